//! The control loop: one event at a time.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use config::Checked;
use control::kernel::{KernelEvent, KernelMirror};
use control::metrics::Scrape;
use control::publication::{Changes, Publication};
use control::socket::{LOOKUPS_MAX, Request, Responder, Response};
use control::status::ReloadStatus;
use crossbeam::channel::{Receiver, Sender, never, select};
use forward::{Neighbor, SampleRing, WorkerCounters};
use policy::PluginConfig;
use serde_json::{Value, json};
use tracing::{error, info, warn};

use crate::run::Asked;
use crate::run::confirm::Pending;
use crate::run::datapath::{self, Datapath};
use crate::run::host_state::HostState;
use crate::run::neighbors::Kept;
use crate::run::plans::Purpose;
use crate::run::plugin_thread::{PluginDeed, PluginThread};
use crate::run::prices::ReceivedRate;
use crate::run::punt_thread::PuntThread;
use crate::run::reload::Terms;
use crate::run::report::Rates;
use crate::run::sharing::Sharing;
use crate::run::tables::RouteQuery;
use crate::run::taps::Taps;
use crate::run::turns::{Resume, Turns};

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
    /// Of that configuration.
    pub(crate) sharing: Sharing,
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
    /// Where the loop learns from other threads that it can go on.
    pub(crate) resumes: (Sender<Resume>, Receiver<Resume>),
    /// Changes of the configuration.
    pub(crate) turns: Turns,
    /// A reload by a signal is among those that wait.
    pub(crate) is_signal_waiting: bool,
    pub(crate) is_planning: bool,
    /// What was warned of that is still so.
    pub(crate) warned: Vec<String>,
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
        let resumes = self.resumes.1.clone();
        let mut scrapes = scrapes.clone();
        self.every_second(SECOND);
        self.warn_of_own_addresses();
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
                recv(resumes) -> resume => {
                    if let Ok(resume) = resume {
                        resume(self);
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
            self.take_turns();
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
            let down = host.interfaces_down().into_iter();
            down.map(|(name, state)| format!("{name} ({state})")).collect()
        };
        let down_before = matches!(event, KernelEvent::Links(_)).then(|| down(&self.host));
        let changes = self.host.apply(event);
        match event {
            KernelEvent::Routes { changes, since } => {
                self.publication.kernel_routes(changes, *since);
            }
            KernelEvent::Addresses(_) => {
                self.update_rules();
                self.warn_of_own_addresses();
            }
            KernelEvent::Neighbor(change) => {
                self.neighbors.adopt(change, &self.host, &self.mirror);
            }
            KernelEvent::Links(_) => {
                let down = down(&self.host);
                if !down.is_empty() && Some(&down) != down_before.as_ref() {
                    warn!(?down, "interfaces send nothing; one that was made anew needs a restart");
                }
            }
            _ => {}
        }
        changes
    }

    /// Warns of egress prefixes that hold this machine's own addresses, of each once.
    pub(crate) fn warn_of_own_addresses(&mut self) {
        let mut warnings = self.config.warnings();
        warnings.extend(self.config.warnings_on(self.host.own_networks()));
        for warning in warnings.iter().filter(|warning| !self.warned.contains(warning)) {
            warn!("{warning}");
        }
        self.warned = warnings;
    }

    pub(crate) fn update_rules(&mut self) {
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
            Request::Reload { max_changed, confirm_s, allow_traps } => {
                let terms = Terms { confirm_s, allow_traps };
                match max_changed.map(|limit| limit.parse()).transpose() {
                    Ok(None) => {
                        self.in_turn(move |this, turn| this.reload_asked(terms, responder, turn));
                    }
                    Ok(Some(limit)) => {
                        let purpose = Purpose::Reload { limit, terms };
                        self.start_plan(self.file.clone(), purpose, responder);
                    }
                    Err(error) => responder.reply_with(Err::<(), String>(error)),
                }
            }
            Request::Confirm { cancel } => {
                self.in_turn(move |this, turn| this.confirm(cancel, responder, turn));
            }
            Request::Plan { file } => self.start_plan(file, Purpose::Show, responder),
            Request::PluginList => {
                self.plugins.tell_status(|plugins| responder.reply_with(Ok::<_, String>(plugins)));
            }
            Request::PluginReload { name, allow_traps } => {
                self.plugins.act(PluginDeed::Reload { name, allow_traps }, responder);
            }
            Request::PluginRollback { name } => {
                self.plugins.act(PluginDeed::Rollback(name), responder);
            }
            Request::PluginLoad { name, module, config, shadow, allow_traps } => {
                let config = config.map(PluginConfig::File);
                let deed = PluginDeed::Load { name, module, config, shadow, allow_traps };
                self.plugins.act(deed, responder);
            }
            Request::PluginShadow { name } => {
                self.plugins.act(PluginDeed::Shadow(name), responder);
            }
            Request::PluginPromote { name, allow_traps } => {
                self.plugins.act(PluginDeed::Promote { name, allow_traps }, responder);
            }
            Request::PluginDiscard { name } => {
                self.plugins.act(PluginDeed::Discard(name), responder);
            }
            Request::Explain { interface, packet, has_link_layer, keep_mac } => {
                self.explain(&interface, &packet, has_link_layer, keep_mac, responder);
            }
            Request::RouteShow { prefix, longer, source, unexpressible, after } => {
                let page = || {
                    let (prefix, after) = (optional(prefix)?, optional(after)?);
                    self.show_routes(&RouteQuery { prefix, longer, source, unexpressible, after })
                };
                reply(responder, page());
            }
            Request::RouteGet { address } => {
                let address = parsed(&address);
                reply(responder, address.and_then(|address| self.answer_route_get(address)));
            }
            Request::RouteVerify => reply(responder, Ok(self.verify_routes())),
            Request::SliceShow { prefix, after } => {
                let prefix = optional(prefix);
                reply(responder, prefix.and_then(|prefix| self.show_slices(prefix, after)));
            }
            Request::SliceGet { address, port, has_ports } => {
                let address = parsed(&address);
                reply(responder, address.and_then(|at| self.get_slice(at, port, has_ports)));
            }
            Request::RouteGets { addresses } => {
                let answers = get_each(&addresses, |address| {
                    parsed(address).and_then(|at| self.answer_route_get(at))
                });
                reply(responder, answers);
            }
            Request::SliceGets { questions } => {
                let answers = get_each(&questions, |asked| {
                    let address: IpAddr = parsed(&asked.address)?;
                    if !self.is_shared(address) {
                        return Ok(json!({ "address": asked.address, "error": "not-shared" }));
                    }
                    self.get_slice(address, asked.port, asked.has_ports)
                });
                reply(responder, answers);
            }
            Request::SliceNamed { name } => reply(responder, self.slice_named(&name)),
            Request::TapOpen(request) => self.open_tap(request, responder),
            Request::TapRead { tap, frames_max, explain } => {
                self.read_tap(tap, frames_max, explain, responder);
            }
            Request::TapClose { tap } => reply(responder, self.close_tap(tap)),
        }
    }
}

/// The answers to several look-ups.
fn get_each<T>(asked: &[T], get: impl FnMut(&T) -> Result<Value>) -> Result<Value> {
    ensure!(asked.len() <= LOOKUPS_MAX, "more than {LOOKUPS_MAX} look-ups in one request");
    let answers: Vec<Value> = asked.iter().map(get).collect::<Result<_>>()?;
    Ok(json!({ "answers": answers }))
}

/// A prefix or an address from a request.
fn parsed<T: FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| anyhow!("\"{text}\" is neither an address nor a prefix"))
}

fn optional<T: FromStr>(text: Option<String>) -> Result<Option<T>> {
    text.as_deref().map(parsed).transpose()
}

pub(crate) fn reply(responder: Responder, result: Result<Value>) {
    // A page has thousands of values: it goes as it is, where `reply_with` would build it anew.
    responder.reply(match result {
        Ok(value) => Response::Ok(value),
        Err(error) => Response::error(format!("{error:#}")),
    });
}
