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

use anyhow::{Result, anyhow, bail};
use control::socket::Responder;
use control::status::ConfirmationStatus;
use policy::Checkpoint;
use serde_json::json;
use tracing::{error, info, warn};

use crate::run::control_loop::{ControlLoop, reply};
use crate::run::reload::{PluginsFrom, Ready};
use crate::run::source::{self, Source};
use crate::run::turns::Turn;

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
    /// Whether a configuration waits for its confirmation.
    pub(crate) fn is_unconfirmed(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether somebody may have so much time for a confirmation.
    pub(crate) fn check_confirmation(seconds: u64) -> Result<()> {
        if !(1..=CONFIRM_S_MAX).contains(&seconds) {
            bail!("a confirmation is waited for 1 to {CONFIRM_S_MAX} s, not {seconds}");
        }
        Ok(())
    }

    /// Puts a configuration into force for so many seconds, or until it is confirmed.
    pub(crate) fn until_confirmed(&mut self, new: Ready, seconds: u64) -> Result<Vec<String>> {
        let back_to = match (&self.pending, &new.ran) {
            (Some(pending), _) => pending.back_to.clone(),
            (None, Some(ran)) => Confirmed {
                source: Source { config: self.config.clone(), text: self.text.clone() },
                plugins: ran.clone(),
                generation: self.generation,
            },
            (None, None) => bail!("the plugins that run are not known"),
        };
        let kept = source::kept_now(&self.file);
        // Before anything is in force: a crash in between must not leave it there.
        back_to.source.keep(&self.file, &new.source.text)?;
        match self.put_into_force(new) {
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
    pub(crate) fn settle(&mut self) {
        self.pending = None;
        source::forget(&self.file);
    }

    /// Carries `sluice confirm` out.
    pub(crate) fn confirm(&mut self, cancel: bool, responder: Responder, turn: Turn) {
        let confirmed =
            move |this: &Self| Ok(json!({ "generation": this.generation, "gone_back": cancel }));
        if !self.is_unconfirmed() {
            let nothing = anyhow!("no configuration waits for its confirmation");
            return reply(responder, Err(nothing));
        }
        if cancel {
            return self.go_back("it was cancelled", turn, move |this, result| {
                reply(responder, result.and_then(|()| confirmed(this)));
            });
        }
        self.settle();
        info!(generation = self.generation, "configuration confirmed");
        reply(responder, confirmed(self));
    }

    /// How long the loop may sleep for the sake of a confirmation. A change that is under way comes first.
    pub(crate) fn confirm_within(&self) -> Option<Duration> {
        if self.turns.is_taken() { None } else { self.time_left() }
    }

    fn time_left(&self) -> Option<Duration> {
        let pending = self.pending.as_ref()?;
        Some(pending.deadline.saturating_duration_since(Instant::now()))
    }

    /// Goes back if the time is up.
    pub(crate) fn look_at_confirmation(&mut self) {
        if self.confirm_within() == Some(Duration::ZERO) {
            self.in_turn(|this, turn| this.go_back_unconfirmed(turn));
        }
    }

    fn go_back_unconfirmed(&mut self, turn: Turn) {
        self.go_back("no confirmation came in time", turn, |this, result| {
            let Err(error) = result else { return };
            error!("cannot go back to the configuration before: {error:#}");
            if let Some(pending) = &mut this.pending {
                pending.deadline = Instant::now() + AGAIN_AFTER;
                pending.last_error = Some(format!("{error:#}"));
            }
        });
    }

    /// Puts the configuration before into force again, and calls `then`. What is kept for a restart stays,
    /// since the file still is what was not confirmed.
    fn go_back(
        &mut self,
        why: &'static str,
        turn: Turn,
        then: impl FnOnce(&mut Self, Result<()>) + Send + 'static,
    ) {
        let Some(pending) = &self.pending else { return };
        let Confirmed { source, plugins, generation } = pending.back_to.clone();
        let from = PluginsFrom::Checkpoint(plugins);
        self.prepare(source, from, false, move |this, ready| {
            let result = ready.and_then(|ready| this.gone_back(ready, generation, why));
            then(this, result);
            drop(turn);
        });
    }

    fn gone_back(&mut self, to: Ready, generation: u64, why: &str) -> Result<()> {
        let left = self.generation;
        let changed = self.put_into_force(to)?;
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
            seconds_left: self.time_left()?.as_secs_f64().ceil() as u64,
            back_to: pending.back_to.generation,
            last_error: pending.last_error.clone(),
        })
    }
}
