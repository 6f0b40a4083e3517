//! Refusals: why a plugin's files were not loaded the last time, for as long as that stands.
//!
//! What runs goes on after a refusal, and looks as if nothing had happened: this is where an operator finds
//! that it is not what the files hold. A refusal stands until a version is loaded, or the files are found to
//! hold what runs. A rollback leaves it, since it says nothing of the files.
//!
//! Deliberately absent: other files, and candidates. Whoever has them loaded is told.

use std::time::Instant;

use serde::Serialize;

use crate::{PluginHost, PolicyError};

/// Why a load was refused, and when.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    at: Instant,
    reason: String,
    /// It was tables that were refused, which are loaded by themselves.
    is_of_tables: bool,
}

/// The last refusal of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RefusalStatus {
    /// Seconds that have passed since.
    pub seconds_ago: u64,
    /// Why.
    pub reason: String,
}

impl Refusal {
    pub(crate) fn status(&self) -> RefusalStatus {
        RefusalStatus { seconds_ago: self.at.elapsed().as_secs(), reason: self.reason.clone() }
    }
}

impl PluginHost {
    /// The outcome of a load, which is noted if it is a refusal.
    pub(crate) fn noted<T>(
        &mut self,
        name: &str,
        outcome: Result<T, PolicyError>,
    ) -> Result<T, PolicyError> {
        outcome.inspect_err(|error| self.note(name, error, false))
    }

    /// The same for tables.
    pub(crate) fn note_tables(&mut self, name: &str, error: &PolicyError) {
        self.note(name, error, true);
    }

    fn note(&mut self, name: &str, error: &PolicyError, is_of_tables: bool) {
        let Some(history) = self.history.get_mut(name) else { return };
        // The plugin's name stands beside it.
        let reason = error.fault().map_or_else(|| error.to_string(), ToString::to_string);
        history.refused += 1;
        history.refusal = Some(Refusal { at: Instant::now(), reason, is_of_tables });
    }

    /// The files of a plugin are sound.
    pub(crate) fn forget_refusal(&mut self, name: &str) {
        if let Some(history) = self.history.get_mut(name) {
            history.refusal = None;
        }
    }

    /// Its tables are.
    pub(crate) fn forget_refusal_of_tables(&mut self, name: &str) {
        if let Some(history) = self.history.get_mut(name)
            && history.refusal.as_ref().is_some_and(|refusal| refusal.is_of_tables)
        {
            history.refusal = None;
        }
    }
}
