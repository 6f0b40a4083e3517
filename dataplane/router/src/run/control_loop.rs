//! The control loop: one event at a time.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use config::{Action, Checked};
use control::kernel::{KernelEvent, KernelMirror};
use control::metrics::Scrape;
use control::publication::{Changes, Publication};
use control::socket::{Request, Responder};
use control::status::ReloadStatus;
use crossbeam::channel::{Receiver, Sender, never, select};
use forward::{Neighbor, SampleRing, WorkerCounters};
use policy::{Checkpoint, PluginConfig};
use serde_json::{Value, json};
use tracing::{error, info, warn};

use crate::plugins;
use crate::run::Asked;
use crate::run::confirm::Pending;
use crate::run::datapath::{self, Datapath};
use crate::run::host_state::HostState;
use crate::run::neighbors::Kept;
use crate::run::plans::{Planned, Purpose};
use crate::run::plugin_thread::{PluginDeed, PluginThread};
use crate::run::prices::ReceivedRate;
use crate::run::punt_thread::PuntThread;
use crate::run::report::Rates;
use crate::run::source::Source;
use crate::run::tables::RouteQuery;
use crate::run::taps::Taps;

/// How often the loop looks at the time when nothing happens: what measures rates.
const IDLE_TICK: Duration = Duration::from_millis(200);

/// The same while changes are gathered that are to be published.
const GATHERING_TICK: Duration = Duration::from_millis(5);

/// The same while a route waits for workers to learn of its next hop: they take a turn for that.
const WAITING_TICK: Duration = Duration::from_millis(1);

/// How long route changes are gathered at least before they are published: the mirror has gathered them
/// for [`COALESCE_MS`](control::kernel::COALESCE_MS) already.
const GATHERED_MIN: Duration = Duration::from_millis(2);

/// How long they are gathered at most.
const GATHERED_MAX: Duration = Duration::from_secs(1);

/// How often rates are measured.
const SECOND: Duration = Duration::from_secs(1);

/// The state of a running router's control side.
pub(crate) struct ControlLoop {
    pub(crate) file: PathBuf,
    pub(crate) config: Arc<Checked>,
    pub(crate) host: HostState,
    pub(crate) publication: Publication,
    pub(crate) neighbors: Kept,
    pub(crate) mirror: KernelMirror,
    pub(crate) datapath: Datapath,
    pub(crate) plugins: PluginThread,
    pub(crate) punt: PuntThread,
    pub(crate) counters: Vec<Arc<WorkerCounters>>,
    pub(crate) start: Instant,
    pub(crate) rates: Rates,
    /// For the prices of plugins.
    pub(crate) received: ReceivedRate,
    pub(crate) generation: u64,
    /// Clocks of the time stamp counter per second.
    pub(crate) tsc_hz: u64,
    pub(crate) reloads: ReloadStatus,
    pub(crate) taps: Taps,
    /// The text of the configuration in force.
    pub(crate) text: Arc<str>,
    /// The configuration in force waits for its confirmation.
    pub(crate) pending: Option<Pending>,
    /// What each worker remembers of the packets that it received.
    pub(crate) samples: Vec<Arc<SampleRing>>,
    /// Where plans come from their threads.
    pub(crate) planned: (Sender<Planned>, Receiver<Planned>),
    pub(crate) is_planning: bool,
}

/// Where the plugins of a configuration come from.
pub(crate) enum PluginsFrom {
    /// From its files.
    Files,
    /// As they ran.
    Checkpoint(Checkpoint),
}

impl ControlLoop {
    /// Runs until a signal asks for the end.
    pub(crate) fn run(
        &mut self,
        events: &Receiver<KernelEvent>,
        requests: &Receiver<(Request, Responder)>,
        signals: &Receiver<Asked>,
        wanted: &Receiver<Neighbor>,
        scrapes: &Receiver<Scrape>,
    ) -> Result<()> {
        self.neighbors.follow(&self.publication, &self.host, &self.mirror);
        let mut gathered = Changes::default();
        let mut gathered_since = Instant::now();
        let mut second = Instant::now();
        let planned = self.planned.1.clone();
        let mut scrapes = scrapes.clone();
        self.every_second(SECOND);
        loop {
            let tick = match gathered == Changes::default() {
                true if self.publication.is_waiting() => WAITING_TICK,
                true => IDLE_TICK,
                false => GATHERING_TICK,
            };
            let tick = self.confirm_within().map_or(tick, |due| due.min(tick));
            select! {
                recv(events) -> event => match event {
                    Ok(KernelEvent::Failed(error)) => bail!("{error}"),
                    Ok(event) => {
                        if gathered == Changes::default() {
                            gathered_since = Instant::now();
                        }
                        let changes = self.take(&event);
                        gathered.routes |= changes.routes;
                        gathered.neighbors |= changes.neighbors;
                    }
                    Err(_) => bail!("the kernel mirror has ended"),
                },
                recv(requests) -> request => {
                    if let Ok((request, responder)) = request {
                        self.answer(request, responder);
                    }
                }
                recv(signals) -> asked => match asked {
                    Ok(Asked::Reload) => self.reload_by_signal(),
                    Ok(Asked::Stop) | Err(_) => {
                        info!("stopping");
                        return Ok(());
                    }
                },
                recv(planned) -> plan => {
                    if let Ok(plan) = plan {
                        self.finish_plan(plan);
                    }
                }
                recv(wanted) -> neighbor => {
                    if let Ok(neighbor) = neighbor {
                        self.neighbors.seek(neighbor, &self.host, &self.mirror);
                    }
                }
                recv(scrapes) -> scrape => match scrape {
                    Ok(scrape) => self.report_to(|report| scrape.answer(report)),
                    // Metrics are no longer served; their thread has said why.
                    Err(_) => scrapes = never(),
                },
                default(tick) => {}
            }
            if self.publication.tick(Instant::now()) {
                gathered.routes = true;
            }
            if self.publication.is_waiting() && gathered == Changes::default() {
                self.publication.collect();
            }
            // Publishing more often than half of the time would starve everything else.
            let pause = self.publication.timing().last_build.clamp(GATHERED_MIN, GATHERED_MAX);
            let waited = gathered_since.elapsed();
            let due = gathered.neighbors && !gathered.routes || gathered.routes && waited >= pause;
            if due && (events.is_empty() || waited >= GATHERED_MAX) {
                self.publish(gathered);
                gathered = Changes::default();
            }
            self.neighbors.restore(&self.host, &self.mirror);
            self.look_at_confirmation();
            if second.elapsed() >= SECOND {
                self.every_second(second.elapsed());
                second = Instant::now();
            }
        }
    }

    /// Takes news from the kernel in. The classifier learns of addresses at once.
    fn take(&mut self, event: &KernelEvent) -> Changes {
        let down = |host: &HostState| -> Vec<String> {
            host.interfaces_down().into_iter().map(str::to_owned).collect()
        };
        let down_before = matches!(event, KernelEvent::Links(_)).then(|| down(&self.host));
        let changes = self.host.apply(event);
        match event {
            KernelEvent::Routes { changes, since } => {
                self.publication.kernel_routes(changes, *since);
            }
            KernelEvent::Addresses(_) => self.update_rules(),
            KernelEvent::Neighbor(change) => {
                self.neighbors.adopt(change, &self.host, &self.mirror);
            }
            KernelEvent::Links(_) => {
                let down = down(&self.host);
                if !down.is_empty() && Some(&down) != down_before.as_ref() {
                    warn!(
                        ?down,
                        "interfaces are down or gone; a new one under an old name needs a restart"
                    );
                }
            }
            _ => {}
        }
        changes
    }

    fn update_rules(&mut self) {
        let rules = datapath::rules(&self.config, &self.host);
        if let Err(error) = self.datapath.classifier.update_rules(&rules) {
            error!(%error, "the classifier's rules are out of date");
        }
    }

    fn publish(&mut self, changes: Changes) {
        match self.publication.host_changed(self.host.view(), changes) {
            Ok(()) if changes.routes => {
                self.neighbors.follow(&self.publication, &self.host, &self.mirror);
            }
            Ok(()) => {}
            Err(error) => error!(%error, "the tables in force are out of date"),
        }
    }

    fn every_second(&mut self, elapsed: Duration) {
        self.neighbors.tidy(&self.host, &self.mirror);
        if self.publication.collect() {
            self.neighbors.follow(&self.publication, &self.host, &self.mirror);
        }
        self.taps.tidy();
        self.rates.measure(&self.counters, elapsed);
        self.received.set(self.rates.received_pps());
    }

    fn answer(&mut self, request: Request, responder: Responder) {
        match request {
            Request::Status => {
                self.report_to(|report| responder.reply_with(Ok::<_, String>(report)));
            }
            Request::Reload { max_changed: None, confirm_s } => {
                let result = self.reload_from(Source::read(&self.file), confirm_s);
                reply(responder, result.map(|changed| self.reloaded(&changed, None)));
            }
            Request::Reload { max_changed: Some(limit), confirm_s } => match limit.parse() {
                Ok(limit) => {
                    let purpose = Purpose::Reload { limit, confirm_s };
                    self.start_plan(self.file.clone(), purpose, responder);
                }
                Err(error) => responder.reply_with(Err::<(), String>(error)),
            },
            Request::Confirm { cancel } => reply(responder, self.confirm(cancel)),
            Request::Plan { file } => self.start_plan(file, Purpose::Show, responder),
            Request::PluginList => {
                self.plugins.tell_status(|plugins| responder.reply_with(Ok::<_, String>(plugins)));
            }
            Request::PluginReload { name } => self.plugins.reload(name, responder),
            Request::PluginRollback { name } => {
                self.plugins.act(PluginDeed::Rollback(name), responder);
            }
            Request::PluginLoad { name, module, config, shadow } => {
                let config = config.map(PluginConfig::File);
                self.plugins.act(PluginDeed::Load { name, module, config, shadow }, responder);
            }
            Request::PluginShadow { name } => {
                self.plugins.act(PluginDeed::Shadow(name), responder);
            }
            Request::PluginPromote { name } => {
                self.plugins.act(PluginDeed::Promote(name), responder);
            }
            Request::PluginDiscard { name } => {
                self.plugins.act(PluginDeed::Discard(name), responder);
            }
            Request::Explain { interface, packet, has_link_layer, keep_mac } => {
                reply(responder, self.explain(&interface, &packet, has_link_layer, keep_mac));
            }
            Request::RouteShow { prefix, longer, source, unexpressible, after } => {
                let page = || {
                    let (prefix, after) = (optional(prefix)?, optional(after)?);
                    self.show_routes(&RouteQuery { prefix, longer, source, unexpressible, after })
                };
                reply(responder, page());
            }
            Request::RouteGet { address } => {
                reply(responder, parsed(&address).and_then(|address| self.get_route(address)));
            }
            Request::SliceShow { prefix, after } => {
                let prefix = optional(prefix);
                reply(responder, prefix.and_then(|prefix| self.show_slices(prefix, after)));
            }
            Request::SliceGet { address, port, has_ports } => {
                let address = parsed(&address);
                reply(responder, address.and_then(|at| self.get_slice(at, port, has_ports)));
            }
            Request::TapOpen(request) => reply(responder, self.open_tap(request)),
            Request::TapRead { tap, frames_max, explain } => {
                reply(responder, self.read_tap(tap, frames_max, explain));
            }
            Request::TapClose { tap } => reply(responder, self.close_tap(tap)),
        }
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

    /// Puts a configuration into force, whole or not at all. Returns the names of what changed.
    pub(crate) fn put_into_force(
        &mut self,
        source: Source,
        plugins: PluginsFrom,
    ) -> Result<Vec<String>> {
        let Source { config: new, text } = source;
        let actions = config::diff(&self.config, &new)?;
        // Plugins may have been replaced by themselves since a checkpoint.
        let is_going_back = matches!(plugins, PluginsFrom::Checkpoint(_));
        if actions.is_empty() && !is_going_back {
            // Comments and the like may differ.
            self.text = text;
            return Ok(Vec::new());
        }
        // What can fail comes before anything is in force: tables are built and plugins compiled
        // aside.
        let tables = self.publication.prepare(Arc::clone(&new), self.host.view())?;
        // Plugins that ask for the numbers of names are configured anew when those change.
        let has_plugins = is_going_back
            || actions.iter().any(|action| matches!(action, Action::Plugins(_) | Action::Actions));
        match plugins {
            PluginsFrom::Checkpoint(checkpoint) => self.plugins.prepare_checkpoint(checkpoint)?,
            PluginsFrom::Files if has_plugins => {
                let budget = new.plugin_options.budget_cycles_per_packet;
                self.plugins.prepare(plugins::specs(&new, tables.names()), budget)?;
            }
            PluginsFrom::Files => {}
        }
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
        let undo = |this: &mut Self| {
            this.plugins.forget();
            if let Err(error) = this.datapath.classifier.update_rules(&old_rules) {
                error!(%error, "the classifier's rules are out of date");
            }
        };
        if let Err(error) = self.datapath.classifier.update_rules(&both) {
            undo(self);
            return Err(error.into());
        }
        // Handing plugins over fails when a worker does not take part; then nothing has changed. Each worker
        // takes them together with the tables, whose names are then those that they know.
        let number = self.publication.next_configuration();
        if has_plugins && let Err(error) = self.plugins.publish(number) {
            undo(self);
            return Err(error);
        }
        self.publication.config_changed(tables, self.host.view());
        self.config = new;
        self.text = text;
        self.generation += 1;
        self.update_rules();
        self.neighbors.follow(&self.publication, &self.host, &self.mirror);
        Ok(actions.iter().map(name_of).collect())
    }
}

/// A prefix or an address from a request.
fn parsed<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow!("\"{text}\" is neither an address nor a prefix"))
}

fn optional<T: FromStr>(text: Option<String>) -> Result<Option<T>> {
    text.as_deref().map(parsed).transpose()
}

fn reply(responder: Responder, result: Result<Value>) {
    responder.reply_with(result.map_err(|error| format!("{error:#}")));
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
