//! The thread of the policy host: compiling takes milliseconds to seconds, during which neighbors
//! and routes must go on being published.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use control::socket::Responder;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use policy::{
    AsidePlugins, Checkpoint, ListedPlugin, PluginConfig, PluginHost, PluginSpec, PluginStatus,
    PolicyError, PreparedSet, ReloadReport,
};
use tracing::{info, warn};

/// How often trapped instances are replaced and logs are written.
const MAINTAIN_EVERY: Duration = Duration::from_millis(100);

/// How often plugin files are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// What is to be done with what plugins did.
type Tell = Box<dyn FnOnce(Vec<PluginStatus>) + Send>;

/// What the thread is asked for.
enum Order {
    /// Compile, configure and price a whole set, which may cost so many cycles a packet; nothing changes
    /// yet.
    Prepare(Vec<PluginSpec>, Option<u32>, Sender<Result<()>>),
    /// The set that runs, to go back to.
    Checkpoint(Sender<Checkpoint>),
    /// Prepare the set of a checkpoint; nothing changes yet.
    PrepareCheckpoint(Box<Checkpoint>, Sender<Result<()>>),
    /// Put the set that was prepared last into force, with the tables of the configuration of this number.
    Publish(u64, Sender<Result<()>>),
    /// Forget the set that was prepared last.
    Forget,
    /// Load one plugin again.
    Reload(String, Responder),
    /// What an operator asks for by a command.
    Act(PluginDeed, Responder),
    /// Tell what plugins did.
    Status(Tell),
    /// Which there are.
    List(Sender<Vec<ListedPlugin>>),
    /// Instances aside, to ask about a packet.
    Aside(Sender<Result<Box<AsidePlugins>>>),
    /// The same of those that run and of those of a new configuration, for a plan.
    AsidesOfPlan(Vec<PluginSpec>, Sender<Result<Box<(AsidePlugins, AsidePlugins)>>>),
}

/// What an operator may ask for.
pub(crate) enum PluginDeed {
    /// Bring the generation before back.
    Rollback(String),
    /// Load a plugin from another file, or a candidate beside it.
    Load { name: String, module: PathBuf, config: Option<PluginConfig>, shadow: bool },
    /// Tell what the candidate would have done otherwise.
    Shadow(String),
    /// Put the candidate into force.
    Promote(String),
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
            Self::Rollback(name) => {
                responder.reply_with(told("rolled back", host.rollback(&name)));
            }
            Self::Load { name, module, config, shadow: true } => {
                let result = host.load_candidate(&name, &module, config);
                responder.reply_with(told("loaded as a candidate", result));
            }
            Self::Load { name, module, config, shadow: false } => {
                let result = host.load_from(&name, &module, config);
                responder.reply_with(told("loaded", result));
            }
            Self::Promote(name) => responder.reply_with(told("promoted", host.promote(&name))),
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
        Ok(*self.ask(|reply| Order::AsidesOfPlan(specs, reply))??)
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T> {
        let (reply, answer) = bounded(1);
        self.0.send(order(reply)).map_err(|_| anyhow!("the plugin thread has ended"))?;
        answer.recv().map_err(|_| anyhow!("the plugin thread has ended"))
    }
}

/// The policy host on its thread.
#[derive(Debug)]
pub(crate) struct PluginThread {
    orders: PluginAsker,
    handle: Option<JoinHandle<()>>,
}

impl PluginThread {
    /// Starts the thread.
    pub(crate) fn spawn(host: PluginHost) -> Result<Self> {
        let (orders, received) = bounded(64);
        let handle = std::thread::Builder::new()
            .name("plugins".to_owned())
            .spawn(move || run(host, &received))
            .context("the plugin thread cannot be started")?;
        Ok(Self { orders: PluginAsker(orders), handle: Some(handle) })
    }

    /// Compiles, configures and prices a whole set, which may cost so many cycles a packet;
    /// [`publish`](Self::publish) puts it into force.
    pub(crate) fn prepare(
        &self,
        specs: Vec<PluginSpec>,
        budget_cycles_per_packet: Option<u32>,
    ) -> Result<()> {
        self.ask(|reply| Order::Prepare(specs, budget_cycles_per_packet, reply))?
    }

    /// The set that runs, to go back to.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        self.ask(Order::Checkpoint)
    }

    /// Prepares the set of a checkpoint; [`publish`](Self::publish) puts it into force.
    pub(crate) fn prepare_checkpoint(&self, to: Checkpoint) -> Result<()> {
        self.ask(|reply| Order::PrepareCheckpoint(Box::new(to), reply))?
    }

    pub(crate) fn asker(&self) -> PluginAsker {
        self.orders.clone()
    }

    /// Puts what was prepared into force with the tables of this configuration, which must follow.
    pub(crate) fn publish(&self, configuration: u64) -> Result<()> {
        self.ask(|reply| Order::Publish(configuration, reply))?
    }

    pub(crate) fn forget(&self) {
        // A thread that has ended has nothing to forget.
        let _ = self.orders.0.send(Order::Forget);
    }

    /// Loads one plugin again and answers the one who asked.
    pub(crate) fn reload(&self, name: String, responder: Responder) {
        self.leave(Order::Reload(name, responder));
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

    pub(crate) fn list(&self) -> Vec<ListedPlugin> {
        self.ask(Order::List).unwrap_or_default()
    }

    /// Instances of all plugins aside. At most one set may be called at a time.
    pub(crate) fn aside(&self) -> Result<AsidePlugins> {
        Ok(*self.ask(Order::Aside)??)
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order) -> Result<T> {
        self.orders.ask(order)
    }
}

impl Drop for PluginThread {
    fn drop(&mut self) {
        let (closed, _) = bounded(0);
        self.orders = PluginAsker(closed);
        if let Some(handle) = self.handle.take() {
            // A panic was reported by the thread itself.
            let _ = handle.join();
        }
    }
}

fn run(mut host: PluginHost, orders: &Receiver<Order>) {
    let mut prepared: Option<PreparedSet> = None;
    let mut watched = Instant::now();
    loop {
        match orders.recv_timeout(MAINTAIN_EVERY) {
            Ok(Order::Prepare(specs, budget, reply)) => {
                let result = host.prepare_within(&specs, budget).map(|set| prepared = Some(set));
                let _ = reply.send(result.map_err(Into::into));
            }
            Ok(Order::Checkpoint(reply)) => {
                let _ = reply.send(host.checkpoint());
            }
            Ok(Order::PrepareCheckpoint(to, reply)) => {
                let result = host.prepare_checkpoint(&to).map(|set| prepared = Some(set));
                let _ = reply.send(result.map_err(Into::into));
            }
            Ok(Order::Publish(configuration, reply)) => {
                let result = match prepared.take() {
                    Some(set) => host.publish_for(set, configuration).map_err(Into::into),
                    None => Err(anyhow!("no plugins were prepared")),
                };
                let _ = reply.send(result);
            }
            Ok(Order::Forget) => prepared = None,
            Ok(Order::Reload(name, responder)) => {
                let result = host.reload(&name);
                match &result {
                    Ok(report) => info!(plugin = name, generation = report.generation, "reloaded"),
                    Err(error) => warn!(plugin = name, %error, "not reloaded; the old one runs on"),
                }
                responder.reply_with(result);
            }
            Ok(Order::Act(deed, responder)) => deed.on(&mut host, responder),
            Ok(Order::Status(tell)) => tell(host.status()),
            Ok(Order::List(reply)) => {
                let _ = reply.send(host.list());
            }
            Ok(Order::Aside(reply)) => {
                let _ = reply.send(host.aside().map(Box::new).map_err(Into::into));
            }
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
