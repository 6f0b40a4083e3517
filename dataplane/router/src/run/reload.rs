//! Reloads: what can fail is made aside, plugins on their thread, and then all of it comes into force in one
//! step, or nothing.

use std::sync::Arc;

use anyhow::{Result, anyhow};
use config::Action;
use control::socket::Responder;
use policy::Checkpoint;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use crate::plugins;
use crate::run::control_loop::{ControlLoop, reply};
use crate::run::datapath;
use crate::run::plugin_thread::{Prepared, PreparedPlugins, Wanted};
use crate::run::sharing::Sharing;
use crate::run::source::Source;
use crate::run::turns::Turn;

/// What a reload is asked for with.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Terms {
    /// Go back unless it is confirmed within so many seconds.
    pub(crate) confirm_s: Option<u64>,
    /// Load plugins that trap on all packets received last.
    pub(crate) allow_traps: bool,
}

/// Where the plugins of a configuration come from.
pub(crate) enum PluginsFrom {
    /// From its files.
    Files {
        /// As in [`Terms`].
        allow_traps: bool,
    },
    /// As they ran.
    Checkpoint(Checkpoint),
}

/// A configuration whose plugins are compiled.
pub(crate) struct Ready {
    pub(crate) source: Source,
    /// The plugins that run until it comes into force, where they were asked for.
    pub(crate) ran: Option<Checkpoint>,
    actions: Vec<Action>,
    is_going_back: bool,
    /// None where plugins do not change.
    plugins: Option<PreparedPlugins>,
}

/// What is done once a reload has ended, with the names of what changed.
pub(crate) type AfterReload = Box<dyn FnOnce(&mut ControlLoop, Result<Vec<String>>) + Send>;

impl ControlLoop {
    /// Reloads the configured file for somebody who waits for the answer.
    pub(crate) fn reload_asked(&mut self, terms: Terms, responder: Responder, turn: Turn) {
        let answer = move |this: &mut Self, result: Result<Vec<String>>| {
            reply(responder, result.map(|changed| this.reloaded(&changed, None)));
        };
        self.reload_from(Source::read(&self.file), terms, turn, Box::new(answer));
    }

    /// A reload that nobody in particular asked for. One that waits for its turn stands for all that come
    /// until then: it reads the file when it gets there.
    pub(crate) fn reload_by_signal(&mut self) {
        if std::mem::replace(&mut self.is_signal_waiting, true) {
            return;
        }
        self.in_turn(|this, turn| {
            this.is_signal_waiting = false;
            let new = match this.is_unconfirmed() {
                true => Err(anyhow!(
                    "SIGHUP: configuration {} waits for its confirmation, and a signal is none",
                    this.generation
                )),
                false => Source::read(&this.file),
            };
            // Its outcome is said in the log.
            this.reload_from(new, Terms::default(), turn, Box::new(|_, _| {}));
        });
    }

    /// Puts a configuration into force, whole or not at all, on these terms.
    pub(crate) fn reload_from(
        &mut self,
        new: Result<Source>,
        terms: Terms,
        turn: Turn,
        then: AfterReload,
    ) {
        let Terms { confirm_s, allow_traps } = terms;
        let end = move |this: &mut Self, result: Result<Vec<String>>| {
            this.note_reload(&result);
            then(this, result);
            drop(turn);
        };
        let new = new.and_then(|new| {
            confirm_s.map_or(Ok(()), Self::check_confirmation)?;
            Ok(new)
        });
        let new = match new {
            Ok(new) => new,
            Err(error) => return end(self, Err(error)),
        };
        let from = PluginsFrom::Files { allow_traps };
        self.prepare(new, from, confirm_s.is_some(), move |this, ready| {
            let result = ready.and_then(|ready| match confirm_s {
                Some(seconds) => this.until_confirmed(ready, seconds),
                None => {
                    let changed = this.put_into_force(ready)?;
                    this.settle();
                    Ok(changed)
                }
            });
            end(this, result);
        });
    }

    fn note_reload(&mut self, result: &Result<Vec<String>>) {
        match result {
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
    }

    /// Has the plugins of a configuration compiled, on their thread, and `go_on` called when that is done. It
    /// is told of the plugins that ran if `is_ran_wanted`.
    pub(crate) fn prepare(
        &mut self,
        source: Source,
        from: PluginsFrom,
        is_ran_wanted: bool,
        go_on: impl FnOnce(&mut Self, Result<Ready>) + Send + 'static,
    ) {
        let is_going_back = matches!(from, PluginsFrom::Checkpoint(_));
        let wanted = self.differs(&source, from);
        let (actions, wanted) = match wanted {
            Ok(found) => found,
            Err(error) => return go_on(self, Err(error)),
        };
        let ready = move |ran, plugins| Ready { source, ran, actions, is_going_back, plugins };
        if matches!(wanted, Wanted::Running) && !is_ran_wanted {
            return go_on(self, Ok(ready(None, None)));
        }
        let tell = self.resume_with(move |this, prepared: Result<Prepared>| {
            go_on(this, prepared.map(|Prepared { ran, set }| ready(Some(ran), set)));
        });
        self.plugins.prepare(wanted, tell);
    }

    /// What a configuration changes, and the plugins that it wants.
    fn differs(&self, source: &Source, from: PluginsFrom) -> Result<(Vec<Action>, Wanted)> {
        let new = &source.config;
        let actions = config::diff(&self.config, new)?;
        // Plugins that ask for the numbers of names are configured anew when those change.
        let concerns = |action: &Action| matches!(action, Action::Plugins(_) | Action::Actions);
        let wanted = match from {
            PluginsFrom::Checkpoint(checkpoint) => Wanted::Checkpoint(Box::new(checkpoint)),
            PluginsFrom::Files { allow_traps } if actions.iter().any(concerns) => {
                let names = self.publication.names_of(new)?;
                let budget = new.plugin_options.budget_cycles_per_packet;
                Wanted::Files { specs: plugins::specs(new, &names), budget, allow_traps }
            }
            PluginsFrom::Files { .. } => Wanted::Running,
        };
        Ok((actions, wanted))
    }

    /// Puts a configuration into force, whole or not at all. Returns the names of what changed.
    pub(crate) fn put_into_force(&mut self, ready: Ready) -> Result<Vec<String>> {
        let Ready { source: Source { config: new, text }, actions, is_going_back, plugins, .. } =
            ready;
        // Plugins may have been replaced by themselves since a checkpoint.
        if actions.is_empty() && !is_going_back {
            // Comments and the like may differ.
            self.text = text;
            return Ok(Vec::new());
        }
        // What can fail comes before anything is in force. Prepared plugins that are dropped are forgotten.
        let tables = self.publication.prepare(Arc::clone(&new), self.host.view())?;
        // Egress addresses that are new must never be taken for the kernel's, so the classifier
        // learns of them first; those that go are forgotten once no worker steers them any more.
        let mut both = datapath::rules(&new, &self.host);
        let old_rules = datapath::rules(&self.config, &self.host);
        both.egress.extend(old_rules.egress.iter().copied());
        both.tunnels.extend(old_rules.tunnels.iter().copied());
        both.egress.sort();
        both.egress.dedup();
        both.tunnels.sort();
        both.tunnels.dedup();
        both.tunnel_port =
            if both.tunnel_port == 0 { old_rules.tunnel_port } else { both.tunnel_port };
        both.gre |= old_rules.gre;
        both.ipip |= old_rules.ipip;
        // Handing plugins over fails when a worker does not take part; then nothing has changed. Each worker
        // takes them together with the tables, whose names are then those that they know.
        let number = self.publication.next_configuration();
        let updated = self.datapath.classifier.update_rules(&both).map_err(anyhow::Error::from);
        let handed_over =
            updated.and_then(|()| plugins.map_or(Ok(()), |plugins| plugins.publish(number)));
        if let Err(error) = handed_over {
            if let Err(error) = self.datapath.classifier.update_rules(&old_rules) {
                error!(%error, "the classifier's rules are out of date");
            }
            return Err(error);
        }
        self.publication.config_changed(tables, self.host.view());
        self.sharing = Sharing::new(&new);
        self.config = new;
        self.text = text;
        self.generation += 1;
        self.update_rules();
        self.warn_of_own_addresses();
        self.neighbors.follow(&self.publication, &self.host, &self.mirror);
        Ok(actions.iter().map(name_of).collect())
    }

    /// The answer to a reload.
    pub(crate) fn reloaded(&self, changed: &[String], foreseen: Option<Value>) -> Value {
        let seconds = self.confirmation().map(|confirmation| confirmation.seconds_left);
        json!({
            "generation": self.generation,
            "changed": changed,
            "confirm_within_s": seconds,
            "foreseen": foreseen,
        })
    }
}

pub(crate) fn name_of(action: &Action) -> String {
    match action {
        Action::Validation => "validation".to_owned(),
        Action::Icmp => "icmp".to_owned(),
        Action::Punt => "punt".to_owned(),
        Action::Hold => "hold".to_owned(),
        Action::Fragments => "fragments".to_owned(),
        Action::Roles => "roles".to_owned(),
        Action::SourceValidation => "source validation".to_owned(),
        Action::MssClamp => "mss clamp".to_owned(),
        Action::Neighbors => "neighbors".to_owned(),
        Action::Routes => "routes".to_owned(),
        Action::Slices => "slices".to_owned(),
        Action::Actions => "next hops, egress tags, classes".to_owned(),
        Action::Plugins(_) => "plugins".to_owned(),
    }
}
