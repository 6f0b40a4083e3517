//! Plans of a running router: the control side, and the thread that judges.
//!
//! ```text
//!  control loop: copies samples and the machine's state --> thread `plan`, at the lowest priority
//!                                                             reads the file, builds tables, judges
//!  control loop: answers, or reloads what was judged <------- the report and the configuration
//! ```
//!
//! The thread takes what no worker wants: it has the nice value 19. Not SCHED_IDLE, which would starve
//! where every core has a busy worker.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, bail};
use control::publication::{HostView, RoutesAside};
use control::socket::Responder;
use forward::Sample;
use frame::Nanos;
use serde_json::json;
use thread_priority::{ThreadPriority, set_current_thread_priority};
use tracing::warn;

use crate::plan::{MaxChanged, PlanReport, Question, judge, summary, top_changes};
use crate::plugins;
use crate::run::control_loop::{ControlLoop, reply};
use crate::run::datapath;
use crate::run::plugin_thread::PluginAsker;
use crate::run::reload::{Terms, name_of};
use crate::run::source::Source;
use crate::run::turns::Turn;

/// What a plan is made for.
pub(crate) enum Purpose {
    /// To be shown.
    Show,
    /// To reload if no more changes than this.
    Reload { limit: MaxChanged, terms: Terms },
}

/// What the thread is given.
struct Job {
    file: PathBuf,
    in_force: Source,
    generation: u64,
    host: HostView,
    routes: RoutesAside,
    samples: Vec<Vec<Sample>>,
    plugins: PluginAsker,
    start: Instant,
}

/// What the thread gives back.
struct Planned {
    purpose: Purpose,
    responder: Responder,
    /// Of the configuration that was in force when the samples were taken.
    generation: u64,
    result: Result<(Source, PlanReport)>,
}

impl ControlLoop {
    /// Has a plan made; the answer comes with [`Self::finish_plan`].
    pub(crate) fn start_plan(&mut self, file: PathBuf, purpose: Purpose, responder: Responder) {
        if self.is_planning {
            let busy = "a plan is being made already: try again in a moment";
            responder.reply_with(Err::<(), _>(busy));
            return;
        }
        let routes = match self.publication.routes_aside() {
            Ok(routes) => routes,
            Err(error) => return responder.reply_with(Err::<(), _>(error.to_string())),
        };
        let job = Job {
            file,
            in_force: Source { config: Arc::clone(&self.config), text: Arc::clone(&self.text) },
            generation: self.generation,
            host: self.host.view().clone(),
            routes,
            samples: self.samples.iter().map(|ring| ring.read()).collect(),
            plugins: self.plugins.asker(),
            start: self.start,
        };
        let generation = self.generation;
        let tell = self.resume_with(move |this, result| {
            this.finish_plan(Planned { purpose, responder, generation, result });
        });
        let thread = std::thread::Builder::new().name("plan".to_owned());
        let spawned = thread.spawn(move || run(job, tell));
        // Without the thread the responder is dropped, which is an answer, too.
        match spawned {
            Ok(_) => self.is_planning = true,
            Err(error) => warn!(%error, "the thread of a plan cannot be started"),
        }
    }

    /// Answers with a plan, or reloads by it.
    fn finish_plan(&mut self, planned: Planned) {
        self.is_planning = false;
        let Planned { purpose, responder, generation, result } = planned;
        match purpose {
            Purpose::Show => {
                let answer = result.and_then(|(new, mut report)| {
                    report.notes.extend(self.classifier_notes(&new));
                    Ok(serde_json::to_value(report)?)
                });
                reply(responder, answer);
            }
            Purpose::Reload { limit, terms } => self.in_turn(move |this, turn| {
                let new = result.and_then(|(new, report)| {
                    if generation != this.generation {
                        bail!("another configuration came into force while this one was judged");
                    }
                    refuse(&report, limit)?;
                    Ok((new, report))
                });
                this.reload_planned(new, terms, responder, turn);
            }),
        }
    }

    fn reload_planned(
        &mut self,
        new: Result<(Source, PlanReport)>,
        terms: Terms,
        responder: Responder,
        turn: Turn,
    ) {
        let (new, report) = match new {
            Ok((new, report)) => (Ok(new), Some(report)),
            Err(error) => (Err(error), None),
        };
        let foreseen = report.map(|report| {
            json!({ "changed": report.changed, "sample": report.sample, "words": summary(&report) })
        });
        let answer = move |this: &mut Self, result: Result<Vec<String>>| {
            reply(responder, result.map(|changed| this.reloaded(&changed, foreseen)));
        };
        self.reload_from(new, terms, turn, Box::new(answer));
    }

    /// What the classifier would decide otherwise than now: no worker remembers packets of the kernel's.
    fn classifier_notes(&self, new: &Source) -> Vec<String> {
        let old = datapath::rules(&self.config, &self.host);
        let new = datapath::rules(&new.config, &self.host);
        let mut notes = Vec::new();
        let more = new.egress.iter().filter(|prefix| !old.egress.contains(prefix));
        for prefix in more {
            let locals: Vec<String> = new
                .locals
                .iter()
                .filter(|address| prefix.contains(*address))
                .map(ToString::to_string)
                .collect();
            if !locals.is_empty() {
                notes.push(format!(
                    "packets to {} go to the kernel now, so that none is in the sample",
                    locals.join(", ")
                ));
            }
        }
        if (old.tunnel_port, old.gre, old.ipip, &old.tunnels)
            != (new.tunnel_port, new.gre, new.ipip, &new.tunnels)
        {
            notes.push(
                "tunnel packets to this node that go to the kernel now are not in the sample"
                    .into(),
            );
        }
        notes
    }
}

/// Why a reload is refused by its plan.
fn refuse(report: &PlanReport, limit: MaxChanged) -> Result<()> {
    if report.is_blind() {
        bail!(
            "--max-changed {limit}: nothing can be said, since no packet was received yet; without \
             --max-changed the configuration is put into force all the same"
        );
    }
    if limit.is_exceeded(&report.changed) {
        bail!(
            "more than {limit} would change: {} of the sample{}",
            summary(report),
            top_changes(report)
        );
    }
    Ok(())
}

fn run(job: Job, tell: impl FnOnce(Result<(Source, PlanReport)>)) {
    if let Err(error) = set_current_thread_priority(ThreadPriority::Min) {
        warn!(%error, "a plan is made at the usual priority");
    }
    tell(make(job));
}

fn make(job: Job) -> Result<(Source, PlanReport)> {
    let Job { file, in_force, generation, host, routes, samples, plugins, start } = job;
    let new = Source::read(&file)?;
    let differs: Vec<String> =
        config::diff(&in_force.config, &new.config)?.iter().map(name_of).collect();
    let workers = samples.len();
    let now = Nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    let mut report = if differs.is_empty() {
        PlanReport::default()
    } else {
        let names = routes.names(&new.config)?;
        let asides = plugins.asides_of_plan(plugins::specs(&new.config, &names))?;
        let question = Question {
            old: in_force.config,
            new: Arc::clone(&new.config),
            host,
            routes,
            samples,
            asides,
        };
        PlanReport::new(judge(question, now)?, workers, now.0 as f64 / 1e9)
    };
    report.file = file.display().to_string();
    report.configuration = generation;
    report.differs = differs;
    Ok((new, report))
}
