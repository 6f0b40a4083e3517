//! The thread of the policy host: compiling takes milliseconds to seconds, during which neighbors
//! and routes must go on being published.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use control::socket::Responder;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use policy::{
    AsidePlugins, Checkpoint, ListedPlugin, PluginConfig, PluginHost, PluginSpec, PluginStatus,
    PolicyError, ReloadReport,
};
use tracing::{info, warn};

/// How often trapped instances are replaced and logs are written.
const MAINTAIN_EVERY: Duration = Duration::from_millis(100);

/// How often plugin files are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What is to be done with an answer, on the plugins' thread.
type Tell<T> = Box<dyn FnOnce(T) + Send>;

/// What the thread is asked for.
enum Order {
    /// Compile, configure and price a whole set; nothing changes yet.
    Prepare(Wanted, Tell<Result<Prepared>>),
    /// What an operator asks for by a command.
    Act(PluginDeed, Responder),
    /// Tell what plugins did.
    Status(Tell<Vec<PluginStatus>>),
    /// Which there are.
    List(Tell<Vec<ListedPlugin>>),
    /// Instances aside, to ask about a packet.
    Aside(Tell<Result<Box<AsidePlugins>>>),
    /// The same of those that run and of those of a new configuration, for a plan.
    AsidesOfPlan(Vec<PluginSpec>, Sender<Result<Box<(AsidePlugins, AsidePlugins)>>>),
}

/// Plugins that a configuration wants.
pub(crate) enum Wanted {
    /// Those that run.
    Running,
    /// From files; they may cost so many cycles a packet, and `allow_traps` is as in [`PluginDeed::Reload`].
    Files { specs: Vec<PluginSpec>, budget: Option<u32>, allow_traps: bool },
    /// As they ran.
    Checkpoint(Box<Checkpoint>),
}

/// What [`PluginThread::prepare`] made.
pub(crate) struct Prepared {
    /// The set that runs, to go back to.
    pub(crate) ran: Checkpoint,
    /// None if that is what was wanted.
    pub(crate) set: Option<PreparedPlugins>,
}

/// A set of plugins that is compiled and configured. The plugins' thread does nothing else until it is put into
/// force or dropped, so that neither takes time.
pub(crate) struct PreparedPlugins {
    decide: Sender<(u64, Sender<Result<()>>)>,
}

impl PreparedPlugins {
    /// Puts it into force with the tables of the configuration of this number, which must follow.
    pub(crate) fn publish(self, configuration: u64) -> Result<()> {
        let (reply, answer) = bounded(1);
        self.decide.send((configuration, reply)).map_err(|_| ended())?;
        answer.recv().map_err(|_| ended())?
    }
}

fn ended() -> anyhow::Error {
    anyhow!("the plugin thread has ended")
}

/// What an operator may ask for.
pub(crate) enum PluginDeed {
    /// Load a plugin's files again; `allow_traps`: whatever comes of the packets received last.
    Reload { name: String, allow_traps: bool },
    /// Bring the generation before back.
    Rollback(String),
    /// Load a plugin from another file, or a candidate beside it.
    Load {
        name: String,
        module: PathBuf,
        config: Option<PluginConfig>,
        shadow: bool,
        allow_traps: bool,
    },
    /// Tell what the candidate would have done otherwise.
    Shadow(String),
    /// Put the candidate into force.
    Promote { name: String, allow_traps: bool },
    /// End the trial of the candidate.
    Discard(String),
}

impl PluginDeed {
    fn on(self, host: &mut PluginHost, responder: Responder) {
        let told = |what: &str, result: Result<ReloadReport, PolicyError>| {
            match &result {
                Ok(report) => info!(plugin = report.name, generation = report.generation, "{what}"),
                Err(error) => warn!(%error, "not {what}; what ran runs on"),
            }
            result
        };
        match self {
            Self::Reload { name, allow_traps } => {
                let result = host.allowing_traps(allow_traps, |host| host.reload(&name));
                responder.reply_with(told("reloaded", result));
            }
            Self::Rollback(name) => {
                responder.reply_with(told("rolled back", host.rollback(&name)));
            }
            Self::Load { name, module, config, shadow: true, .. } => {
                let result = host.load_candidate(&name, &module, config);
                responder.reply_with(told("loaded as a candidate", result));
            }
            Self::Load { name, module, config, shadow: false, allow_traps } => {
                let result =
                    host.allowing_traps(allow_traps, |host| host.load_from(&name, &module, config));
                responder.reply_with(told("loaded", result));
            }
            Self::Promote { name, allow_traps } => {
                let result = host.allowing_traps(allow_traps, |host| host.promote(&name));
                responder.reply_with(told("promoted", result));
            }
            Self::Shadow(name) => responder.reply_with(host.candidate(&name)),
            Self::Discard(name) => {
                let result = host.discard(&name);
                if result.is_ok() {
                    info!(plugin = name, "its candidate is discarded");
                }
                responder.reply_with(result);
            }
        }
    }
}

/// Asks the policy host from another thread.
#[derive(Clone, Debug)]
pub(crate) struct PluginAsker(Sender<Order>);

impl PluginAsker {
    /// Instances aside of the plugins that run, and of those that `specs` would load.
    pub(crate) fn asides_of_plan(
        &self,
        specs: Vec<PluginSpec>,
    ) -> Result<(AsidePlugins, AsidePlugins)> {
        let (reply, answer) = bounded(1);
        self.0.send(Order::AsidesOfPlan(specs, reply)).map_err(|_| ended())?;
        Ok(*answer.recv().map_err(|_| ended())??)
    }
}

/// The policy host on its thread.
#[derive(Debug)]
pub(crate) struct PluginThread {
    orders: PluginAsker,
    /// Nobody decides about what is prepared any more.
    is_over: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl PluginThread {
    /// Starts the thread.
    pub(crate) fn spawn(host: PluginHost) -> Result<Self> {
        let (orders, received) = bounded(64);
        let is_over = Arc::new(AtomicBool::new(false));
        let is_over_there = Arc::clone(&is_over);
        let handle = std::thread::Builder::new()
            .name("plugins".to_owned())
            .spawn(move || run(host, &received, &is_over_there))
            .context("the plugin thread cannot be started")?;
        Ok(Self { orders: PluginAsker(orders), is_over, handle: Some(handle) })
    }

    /// Compiles, configures and prices a whole set, and has `tell` called with it;
    /// [`PreparedPlugins::publish`] puts it into force.
    pub(crate) fn prepare(
        &self,
        wanted: Wanted,
        tell: impl FnOnce(Result<Prepared>) + Send + 'static,
    ) {
        self.leave(Order::Prepare(wanted, Box::new(tell)));
    }

    pub(crate) fn asker(&self) -> PluginAsker {
        self.orders.clone()
    }

    /// Does what an operator asks for, and answers.
    pub(crate) fn act(&self, deed: PluginDeed, responder: Responder) {
        self.leave(Order::Act(deed, responder));
    }

    /// Has `tell` called with what plugins did, on the plugins' thread: once it has compiled what it is at,
    /// which the caller does not wait for.
    pub(crate) fn tell_status(&self, tell: impl FnOnce(Vec<PluginStatus>) + Send + 'static) {
        self.leave(Order::Status(Box::new(tell)));
    }

    /// Leaves an order without waiting. Without the thread, or room, its responder is dropped, which is an
    /// answer, too.
    fn leave(&self, order: Order) {
        let _ = self.orders.0.try_send(order);
    }

    /// Has `tell` called with which plugins there are.
    pub(crate) fn tell_list(&self, tell: impl FnOnce(Vec<ListedPlugin>) + Send + 'static) {
        self.leave(Order::List(Box::new(tell)));
    }

    /// Has `tell` called with instances of all plugins aside. At most one set may be called at a time.
    pub(crate) fn tell_aside(&self, tell: impl FnOnce(Result<Box<AsidePlugins>>) + Send + 'static) {
        self.leave(Order::Aside(Box::new(tell)));
    }
}

impl Drop for PluginThread {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let (closed, _) = bounded(0);
        self.orders = PluginAsker(closed);
        if let Some(handle) = self.handle.take() {
            // A panic was reported by the thread itself.
            let _ = handle.join();
        }
    }
}

/// Prepares a set, and waits for what becomes of it.
fn prepare(
    host: &mut PluginHost,
    wanted: Wanted,
    tell: Tell<Result<Prepared>>,
    is_over: &AtomicBool,
) {
    let ran = host.checkpoint();
    let set = match wanted {
        Wanted::Running => return tell(Ok(Prepared { ran, set: None })),
        Wanted::Files { specs, budget, allow_traps } => {
            host.allowing_traps(allow_traps, |host| host.prepare_within(&specs, budget))
        }
        Wanted::Checkpoint(to) => host.prepare_checkpoint(&to),
    };
    let set = match set {
        Ok(set) => set,
        Err(error) => return tell(Err(error.into())),
    };
    let (decide, decided) = bounded(1);
    tell(Ok(Prepared { ran, set: Some(PreparedPlugins { decide }) }));
    while !is_over.load(Ordering::Relaxed) {
        match decided.recv_timeout(MAINTAIN_EVERY) {
            Ok((configuration, reply)) => {
                let _ = reply.send(host.publish_for(set, configuration).map_err(Into::into));
                return;
            }
            Err(RecvTimeoutError::Timeout) => host.maintain(),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn run(mut host: PluginHost, orders: &Receiver<Order>, is_over: &AtomicBool) {
    let mut watched = Instant::now();
    loop {
        match orders.recv_timeout(MAINTAIN_EVERY) {
            Ok(Order::Prepare(wanted, tell)) => prepare(&mut host, wanted, tell, is_over),
            Ok(Order::Act(deed, responder)) => deed.on(&mut host, responder),
            Ok(Order::Status(tell)) => tell(host.status()),
            Ok(Order::List(tell)) => tell(host.list()),
            Ok(Order::Aside(tell)) => tell(host.aside().map(Box::new).map_err(Into::into)),
            Ok(Order::AsidesOfPlan(specs, reply)) => {
                let asides = host.asides_of_plan(&specs);
                let _ = reply.send(asides.map(Box::new).map_err(Into::into));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        host.maintain();
        if watched.elapsed() >= WATCH_EVERY {
            watched = Instant::now();
            for result in host.poll_files() {
                match result {
                    Ok(report) => info!(
                        plugin = report.name,
                        generation = report.generation,
                        "its file changed: reloaded"
                    ),
                    Err(error) => warn!(%error, "not reloaded; the old one runs on"),
                }
            }
        }
    }
}
