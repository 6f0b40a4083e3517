//! Reloads that have to be confirmed: the router goes back by itself, whatever becomes of whoever asked.
//!
//! ```text
//!              reload --confirm S                    confirm, reload
//!  confirmed -----------------------> unconfirmed --------------------> confirmed (the new one)
//!      ^                               |       ^ |
//!      |  S seconds, confirm --cancel, |       +-+ reload --confirm: the time begins anew,
//!      +--- restart, crash, reboot ----+           what is gone back to stays
//! ```
//!
//! These are the confirmed commits of RFC 6241 section 8.4, persistent ones: they do not end with the
//! session that asked. A reload without a time is a confirming commit. A SIGHUP is refused while one is
//! due, since what sends signals by itself is nobody's assent.
//!
//! An end of the process while one is due, by SIGTERM as by a crash, confirms nothing and undoes nothing by
//! itself: what is in force stays until the process is gone, and the start after it takes what was confirmed,
//! which then waits for nothing. The file stays what was not confirmed, and `sluice reload` puts it into
//! force.
//!
//! Going back is whole: the tables of the configuration as it was read then, with its route files, and the
//! plugins with the modules and configurations that they ran, whatever their files hold by now. For a
//! restart the text is kept beside the file ([`Source::keep`]); route files and modules are read as they
//! are then.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use control::status::ConfirmationStatus;
use policy::Checkpoint;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use crate::run::control_loop::{ControlLoop, PluginsFrom};
use crate::run::source::{self, Source};

/// How long going back waits before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The longest time for a confirmation: a day.
pub(crate) const CONFIRM_S_MAX: u64 = 86_400;

/// A configuration that somebody has confirmed, by deed or by word.
#[derive(Clone)]
pub(crate) struct Confirmed {
    source: Source,
    plugins: Checkpoint,
    generation: u64,
}

/// The configuration in force waits for its confirmation.
pub(crate) struct Pending {
    back_to: Confirmed,
    deadline: Instant,
    last_error: Option<String>,
}

impl ControlLoop {
    /// Puts a configuration into force, whole or not at all; with `confirm_s` until it is confirmed.
    /// Returns the names of what changed.
    pub(crate) fn reload_from(
        &mut self,
        new: Result<Source>,
        confirm_s: Option<u64>,
    ) -> Result<Vec<String>> {
        let result = new.and_then(|new| match confirm_s {
            Some(seconds) => self.until_confirmed(new, seconds),
            None => {
                let changed = self.put_into_force(new, PluginsFrom::Files)?;
                self.settle();
                Ok(changed)
            }
        });
        match &result {
            Ok(changed) => {
                self.reloads.ok += 1;
                self.reloads.last_error = None;
                info!(?changed, generation = self.generation, "configuration reloaded");
            }
            Err(error) => {
                self.reloads.refused += 1;
                self.reloads.last_error = Some(format!("{error:#}"));
                warn!("configuration refused, the old one stays in force: {error:#}");
            }
        }
        result
    }

    /// A reload that nobody in particular asked for.
    pub(crate) fn reload_by_signal(&mut self) {
        let new = match &self.pending {
            Some(_) => Err(anyhow::anyhow!(
                "SIGHUP: configuration {} waits for its confirmation, and a signal is none",
                self.generation
            )),
            None => Source::read(&self.file),
        };
        // Said in the log already.
        let _ = self.reload_from(new, None);
    }

    fn until_confirmed(&mut self, new: Source, seconds: u64) -> Result<Vec<String>> {
        if !(1..=CONFIRM_S_MAX).contains(&seconds) {
            bail!("a confirmation is waited for 1 to {CONFIRM_S_MAX} s, not {seconds}");
        }
        let back_to = match &self.pending {
            Some(pending) => pending.back_to.clone(),
            None => Confirmed {
                source: Source { config: self.config.clone(), text: self.text.clone() },
                plugins: self.plugins.checkpoint()?,
                generation: self.generation,
            },
        };
        let kept = source::kept_now(&self.file);
        // Before anything is in force: a crash in between must not leave it there.
        back_to.source.keep(&self.file, &new.text)?;
        match self.put_into_force(new, PluginsFrom::Files) {
            Ok(changed) if changed.is_empty() && self.pending.is_none() => {
                source::forget(&self.file);
                Ok(changed)
            }
            Ok(changed) => {
                let deadline = Instant::now() + Duration::from_secs(seconds);
                self.pending = Some(Pending { back_to, deadline, last_error: None });
                Ok(changed)
            }
            Err(error) => {
                // As it was: what is in force is confirmed, or waits, or was gone back to.
                source::keep_again(&self.file, kept);
                Err(error)
            }
        }
    }

    /// What is in force is confirmed.
    fn settle(&mut self) {
        self.pending = None;
        source::forget(&self.file);
    }

    /// Carries `sluice confirm` out.
    pub(crate) fn confirm(&mut self, cancel: bool) -> Result<Value> {
        if self.pending.is_none() {
            bail!("no configuration waits for its confirmation");
        }
        if cancel {
            self.go_back("it was cancelled")?;
        } else {
            self.settle();
            info!(generation = self.generation, "configuration confirmed");
        }
        Ok(json!({ "generation": self.generation, "gone_back": cancel }))
    }

    /// How long the loop may sleep for the sake of a confirmation.
    pub(crate) fn confirm_within(&self) -> Option<Duration> {
        let pending = self.pending.as_ref()?;
        Some(pending.deadline.saturating_duration_since(Instant::now()))
    }

    /// Goes back if the time is up.
    pub(crate) fn look_at_confirmation(&mut self) {
        if self.confirm_within() != Some(Duration::ZERO) {
            return;
        }
        if let Err(error) = self.go_back("no confirmation came in time") {
            error!("cannot go back to the configuration before: {error:#}");
            if let Some(pending) = &mut self.pending {
                pending.deadline = Instant::now() + AGAIN_AFTER;
                pending.last_error = Some(format!("{error:#}"));
            }
        }
    }

    /// Puts the configuration before into force again. What is kept for a restart stays, since the file
    /// still is what was not confirmed.
    fn go_back(&mut self, why: &str) -> Result<()> {
        let pending = self.pending.as_ref().context("nothing to go back to")?;
        let Confirmed { source, plugins, generation } = pending.back_to.clone();
        let left = self.generation;
        let changed = self.put_into_force(source, PluginsFrom::Checkpoint(plugins))?;
        self.pending = None;
        self.reloads.gone_back += 1;
        warn!(
            ?changed,
            generation = self.generation,
            file = %self.file.display(),
            "configuration {left} is no longer in force, since {why}: back to {generation}; the file \
             still holds what was not confirmed"
        );
        Ok(())
    }

    /// What `sluice status` shows.
    pub(crate) fn confirmation(&self) -> Option<ConfirmationStatus> {
        let pending = self.pending.as_ref()?;
        Some(ConfirmationStatus {
            seconds_left: self.confirm_within()?.as_secs_f64().ceil() as u64,
            back_to: pending.back_to.generation,
            last_error: pending.last_error.clone(),
        })
    }
}
