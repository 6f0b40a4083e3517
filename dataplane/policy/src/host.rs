//! [`PluginHost`]: the control side. It loads, publishes, replaces, watches and reports.
//!
//! Its methods stand by idea in `loading`, `publication`, `mending`, `reporting` and `aside`.
//!
//! Invariant: a set, or a reload, is published only when every plugin in it has been compiled,
//! instantiated and configured for every worker; until then, what runs goes on running.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crossbeam::queue::ArrayQueue;
use wasmtime::{Engine, Linker};

use crate::{
    HostOptions, PolicyError, Price, PriceTraffic, WorkerChain,
    compiled::CompiledModules,
    engine::engine,
    generation::{History, Instances, Loaded},
    imports::{HostState, Offers, linker},
    mailbox::{Mailbox, TrapReport},
    rollback::KeptPlugin,
    saved_batch::TrapDirectory,
    ticker::{Beat, Ticker},
};

/// Reports of traps that may wait to be logged.
const TRAP_REPORTS_MAX: usize = 256;

/// A plugin of a [`PreparedSet`].
pub(crate) enum Prepared {
    /// Nothing about it changed: it goes on running as it is.
    Keep(String),
    /// A new generation, with its instances for each worker.
    New(Box<Loaded>, Vec<Instances>),
}

/// A set of plugins to go back to.
#[derive(Clone)]
pub struct Checkpoint {
    pub(crate) budget_cycles_per_packet: Option<u32>,
    pub(crate) plugins: Vec<KeptPlugin>,
}

/// Plugins that are ready to run on every worker: compiled, instantiated and configured.
pub struct PreparedSet {
    pub(crate) budget_cycles_per_packet: Option<u32>,
    pub(crate) plugins: Vec<Prepared>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ReloadReport {
    /// The plugin.
    pub name: String,
    /// The generation that runs now.
    pub generation: u64,
    /// SHA-256 of its module, in hexadecimal.
    pub sha256: String,
    /// Number of the generation that it brings back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restores: Option<u64>,
    /// How long compiling took, in microseconds; 0 if only the configuration is new.
    pub compile_us: u64,
    /// How long it took to make and configure the instances of all workers, in microseconds.
    pub instantiate_us: u64,
    /// What it costs; `None` without packets to price it with.
    pub price: Option<Price>,
}

/// The control side of the policy host. Its methods may take long (a module is compiled in
/// milliseconds to seconds) and are called from one control thread, never from a worker.
pub struct PluginHost {
    pub(crate) options: HostOptions,
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<HostState>,
    pub(crate) beat: Beat,
    /// For calls of instances aside.
    pub(crate) aside_beat: Beat,
    /// For calls of the instances of a plan, on a thread of their own.
    pub(crate) plan_beat: Beat,
    pub(crate) compiled: CompiledModules,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    /// Sets and instances handed out to each worker that have not come back.
    pub(crate) out: Vec<usize>,
    pub(crate) traps: Arc<ArrayQueue<TrapReport>>,
    /// Where batches that trapped are saved.
    pub(crate) saved: TrapDirectory,
    /// Bytes of payload that the blank of each worker has room for; `None`: it has none.
    pub(crate) blanks: Vec<Option<usize>>,
    pub(crate) offers: Offers,
    pub(crate) log_lost: u64,
    pub(crate) loaded: Vec<Loaded>,
    pub(crate) history: BTreeMap<String, History>,
    pub(crate) generations: u64,
    pub(crate) compiles_in_background: bool,
    /// What traps on all packets is loaded all the same.
    pub(crate) allows_traps: bool,
    /// Where packets to price plugins with come from.
    pub(crate) traffic: Option<Box<dyn PriceTraffic>>,
    /// What all plugins of the set that runs may cost a packet.
    pub(crate) budget_cycles_per_packet: Option<u32>,
    // Last, so that the thread outlives every call.
    pub(crate) _ticker: Ticker,
}

impl PluginHost {
    /// A host without plugins, and one empty chain for each worker.
    ///
    /// # Errors
    /// [`PolicyError::Engine`] when the processor is not supported, [`PolicyError::Ticker`] when no
    /// thread can be started.
    pub fn new(options: HostOptions) -> Result<(Self, Vec<WorkerChain>), PolicyError> {
        Self::with_engine(options, engine()?)
    }

    /// The same on an engine of its own.
    pub(crate) fn with_engine(
        options: HostOptions,
        engine: Engine,
    ) -> Result<(Self, Vec<WorkerChain>), PolicyError> {
        let linker = linker(&engine)?;
        let tick = Duration::from_micros(u64::from(options.tick_us.max(1)));
        let ticker = Ticker::start(engine.clone(), options.workers + 3, tick)?;
        let traps = Arc::new(ArrayQueue::new(TRAP_REPORTS_MAX));
        let mailboxes: Vec<_> = (0..options.workers).map(|_| Arc::new(Mailbox::new())).collect();
        let chains = mailboxes.iter().enumerate().map(|(worker, mailbox)| {
            let (mailbox, traps) = (Arc::clone(mailbox), Arc::clone(&traps));
            WorkerChain::new(worker, mailbox, traps, ticker.beat(worker))
        });
        let chains = chains.collect();
        let compiled =
            CompiledModules::new(&engine, options.compiled_dir.clone(), options.compiled_bytes_max);
        let host = Self {
            compiled,
            beat: ticker.beat(options.workers),
            aside_beat: ticker.beat(options.workers + 1),
            plan_beat: ticker.beat(options.workers + 2),
            out: vec![0; options.workers],
            offers: Offers::new(options.seed, options.workers > 1),
            saved: TrapDirectory::new(options.traps_dir.clone()),
            blanks: vec![None; options.workers],
            options,
            engine,
            linker,
            mailboxes,
            traps,
            log_lost: 0,
            loaded: Vec::new(),
            history: BTreeMap::new(),
            generations: 0,
            compiles_in_background: false,
            allows_traps: false,
            traffic: None,
            budget_cycles_per_packet: None,
            _ticker: ticker,
        };
        Ok((host, chains))
    }

    /// From now on modules are compiled at the lowest priority, so that running workers lose little time.
    pub fn compile_in_background(&mut self) {
        self.compiles_in_background = true;
    }

    pub(crate) fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    pub(crate) fn aside_beat(&self) -> &Beat {
        &self.aside_beat
    }

    pub(crate) fn plan_beat(&self) -> &Beat {
        &self.plan_beat
    }
}
