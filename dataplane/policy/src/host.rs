//! [`PluginHost`]: the control side. It loads, publishes, replaces, watches and reports.
//!
//! Invariant: a set, or a reload, is published only when every plugin in it has been compiled,
//! instantiated and configured for every worker; until then, what runs goes on running.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam::queue::ArrayQueue;
use frame::HookPoint;
use wasmtime::{Engine, Linker};

use crate::{
    HostOptions, PluginFault, PluginSpec, PluginState, PluginStatus, PolicyError, WorkerChain,
    background,
    chain::{Place, Slot, Terms, WorkerSet},
    counters::{GenerationCounters, Totals},
    engine::engine,
    imports::{HostState, Offers, linker},
    instance::{Instance, Recipe, reason},
    manifest::{Manifest, hook_name},
    module::{CheckedModule, MODULE_BYTES_MAX, hex, inspect, read_file, sha256},
    publish::{Mailbox, Retired, TrapReport, Update},
    ticker::{Beat, Ticker},
    watch::{Stamp, config_json},
};

/// Traps are counted over this long.
const TRAP_WINDOW: Duration = Duration::from_secs(60);
/// A worker that lost an instance gets a new one after this long, doubled with each further trap of
/// the window.
const BACKOFF_LEAST: Duration = Duration::from_millis(100);
const BACKOFF_MOST: Duration = Duration::from_secs(10);
/// Reports of traps that may wait to be logged.
const TRAP_REPORTS_MAX: usize = 256;

/// A loaded version of a plugin, and how it fares.
pub(crate) struct Loaded {
    pub(crate) spec: PluginSpec,
    /// Number of the name, the same for all its generations.
    pub(crate) plugin: u32,
    /// Unique in the process: what workers know it by.
    pub(crate) generation: u64,
    /// Counts the versions under this name from 1.
    pub(crate) number: u64,
    name: Arc<str>,
    pub(crate) module: CheckedModule,
    config: Vec<u8>,
    budget_ticks: u64,
    pub(crate) counter_names: Arc<[String]>,
    counters: Arc<GenerationCounters>,
    stamp: Stamp,
    /// New instances sent to each worker after it lost one.
    spares_sent: Vec<u64>,
    traps_seen: u64,
    traps: Vec<Instant>,
    pub(crate) disabled: bool,
}

/// Counters of a generation that some worker may still run.
struct LiveCounters {
    generation: u64,
    counters: Arc<GenerationCounters>,
    reasons: Vec<String>,
    guest: Arc<[String]>,
    workers_left: usize,
}

/// What was counted under a name, over all generations.
#[derive(Default)]
struct History {
    /// Number of the name.
    plugin: u32,
    generations: u64,
    live: Vec<LiveCounters>,
    /// Of generations that no worker runs any more, for each worker.
    folded: Vec<Totals>,
}

/// A plugin of a [`PreparedSet`].
enum Prepared {
    /// Nothing about it changed: it goes on running as it is.
    Keep(String),
    /// A new generation, with its instances for each worker.
    New(Box<Loaded>, Vec<Instances>),
}

/// An instance to run and one to take over after a trap.
struct Instances {
    active: Box<Instance>,
    spare: Box<Instance>,
}

/// What a plugin's files hold.
struct Files {
    stamp: Stamp,
    bytes: Vec<u8>,
    config: Vec<u8>,
    inspected: ([u8; 32], Manifest, usize),
}

impl Files {
    fn read(spec: &PluginSpec) -> Result<Self, PluginFault> {
        if spec.name.is_empty() || spec.name.len() > 64 {
            return Err(PluginFault::Name);
        }
        // Taken before the files are read: a change in between is then seen by the next look.
        let stamp = Stamp::of(spec);
        let bytes = read_file(&spec.path, MODULE_BYTES_MAX)?;
        let config = config_json(&spec.config)?;
        let inspected = inspect(&bytes, spec)?;
        Ok(Self { stamp, bytes, config, inspected })
    }
}

/// What a version of a plugin is known by.
struct Numbers {
    plugin: u32,
    generation: u64,
    number: u64,
}

/// A version of a plugin for instances aside.
pub(crate) enum Aside<'a> {
    /// It runs.
    Running(&'a Loaded),
    /// It would be loaded.
    New(Box<Loaded>),
}

/// A set of plugins to go back to.
#[derive(Clone)]
pub struct Checkpoint {
    plugins: Vec<KeptPlugin>,
}

#[derive(Clone)]
struct KeptPlugin {
    spec: PluginSpec,
    module: CheckedModule,
    config: Vec<u8>,
}

/// Plugins that are ready to run on every worker: compiled, instantiated and configured.
pub struct PreparedSet {
    plugins: Vec<Prepared>,
}

/// What a reload did.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ReloadReport {
    /// The plugin.
    pub name: String,
    /// The generation that runs now.
    pub generation: u64,
    /// SHA-256 of its module, in hexadecimal.
    pub sha256: String,
    /// How long compiling took, in microseconds; 0 if only the configuration is new.
    pub compile_us: u64,
    /// How long it took to make and configure the instances of all workers, in microseconds.
    pub instantiate_us: u64,
}

/// The control side of the policy host. Its methods may take long (a module is compiled in
/// milliseconds to seconds) and are called from one control thread, never from a worker.
pub struct PluginHost {
    options: HostOptions,
    engine: Engine,
    linker: Linker<HostState>,
    beat: Beat,
    /// For calls of instances aside.
    shadow_beat: Beat,
    /// For calls of the instances of a plan, on a thread of their own.
    plan_beat: Beat,
    mailboxes: Vec<Arc<Mailbox>>,
    /// Sets and instances handed out to each worker that have not come back.
    out: Vec<usize>,
    traps: Arc<ArrayQueue<TrapReport>>,
    offers: Offers,
    log_lost: u64,
    loaded: Vec<Loaded>,
    history: BTreeMap<String, History>,
    generations: u64,
    compiles_in_background: bool,
    // Last, so that the thread outlives every call.
    _ticker: Ticker,
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl PluginHost {
    /// A host without plugins, and one empty chain for each worker.
    ///
    /// # Errors
    /// [`PolicyError::Engine`] when the processor is not supported, [`PolicyError::Ticker`] when no
    /// thread can be started.
    pub fn new(options: HostOptions) -> Result<(Self, Vec<WorkerChain>), PolicyError> {
        let engine = engine()?;
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
        let host = Self {
            beat: ticker.beat(options.workers),
            shadow_beat: ticker.beat(options.workers + 1),
            plan_beat: ticker.beat(options.workers + 2),
            out: vec![0; options.workers],
            options,
            engine,
            linker,
            mailboxes,
            traps,
            offers: Offers::new(),
            log_lost: 0,
            loaded: Vec::new(),
            history: BTreeMap::new(),
            generations: 0,
            compiles_in_background: false,
            _ticker: ticker,
        };
        Ok((host, chains))
    }

    /// From now on modules are compiled at the lowest priority, so that running workers lose little time.
    pub fn compile_in_background(&mut self) {
        self.compiles_in_background = true;
    }

    /// Loads all plugins of a configuration: reads, checks, compiles, instantiates and configures
    /// them, and changes nothing of what runs. A plugin about which nothing changed (entry, module,
    /// configuration) is kept as it is, with its memory.
    ///
    /// # Errors
    /// Says which plugin is refused and why; see [`PluginFault`].
    pub fn prepare(&mut self, specs: &[PluginSpec]) -> Result<PreparedSet, PolicyError> {
        for (position, spec) in specs.iter().enumerate() {
            if specs.iter().take(position).any(|earlier| earlier.name == spec.name) {
                return Err(PolicyError::Duplicate(spec.name.clone()));
            }
        }
        let mut plugins = Vec::new();
        for spec in specs {
            let prepared =
                self.load(spec, true).map_err(|fault| PolicyError::plugin(&spec.name, fault))?;
            plugins.push(prepared.0);
        }
        Ok(PreparedSet { plugins })
    }

    /// Loads one plugin; the report says how long that took.
    fn load(
        &mut self,
        spec: &PluginSpec,
        may_keep: bool,
    ) -> Result<(Prepared, ReloadReport), PluginFault> {
        let files = Files::read(spec)?;
        let mut report = ReloadReport {
            name: spec.name.clone(),
            generation: 0,
            sha256: hex(&files.inspected.0),
            compile_us: 0,
            instantiate_us: 0,
        };
        if may_keep && let Some(running) = self.same_as(spec, &files.inspected.0, &files.config) {
            running.stamp = files.stamp;
            report.generation = running.number;
            return Ok((Prepared::Keep(spec.name.clone()), report));
        }
        let (module, compile_us) = self.module(spec, &files)?;
        report.compile_us = compile_us;
        let loaded = self.number(spec, module, files.config, files.stamp);
        report.generation = loaded.number;
        let started = Instant::now();
        let prepared = self.instances_of(loaded)?;
        report.instantiate_us = micros(started);
        Ok((prepared, report))
    }

    /// The plugin that runs with this entry, module and configuration.
    fn same_as(
        &mut self,
        spec: &PluginSpec,
        hash: &[u8; 32],
        config: &[u8],
    ) -> Option<&mut Loaded> {
        let running = self.loaded.iter_mut().find(|running| running.spec == *spec)?;
        running.is(hash, config).then_some(running)
    }

    /// The module of a plugin, and how long compiling it took in microseconds.
    fn module(
        &self,
        spec: &PluginSpec,
        files: &Files,
    ) -> Result<(CheckedModule, u64), PluginFault> {
        let hash = files.inspected.0;
        if let Some(running) = self.loaded.iter().find(|running| running.module.sha256 == hash) {
            running.module.recheck(spec)?;
            return Ok((running.module.clone(), 0));
        }
        let started = Instant::now();
        let inspected = files.inspected.clone();
        let Self { engine, linker, .. } = self;
        let compile = || CheckedModule::compile(engine, linker, &files.bytes, inspected, spec);
        let module =
            if self.compiles_in_background { background::run(compile)? } else { compile()? };
        Ok((module, micros(started)))
    }

    /// A new generation under the plugin's name.
    fn number(
        &mut self,
        spec: &PluginSpec,
        module: CheckedModule,
        config: Vec<u8>,
        stamp: Stamp,
    ) -> Loaded {
        self.generations += 1;
        let next = u32::try_from(self.history.len()).unwrap_or(u32::MAX);
        let history = self
            .history
            .entry(spec.name.clone())
            .or_insert_with(|| History { plugin: next, ..History::default() });
        history.generations += 1;
        let numbers = Numbers {
            plugin: history.plugin,
            generation: self.generations,
            number: history.generations,
        };
        self.version(spec, module, config, stamp, numbers)
    }

    fn version(
        &self,
        spec: &PluginSpec,
        module: CheckedModule,
        config: Vec<u8>,
        stamp: Stamp,
        Numbers { plugin, generation, number }: Numbers,
    ) -> Loaded {
        let counter_names: Arc<[String]> = module.manifest.counter_names().into();
        let workers = self.options.workers;
        let reasons = module.manifest.reasons.len();
        let tick_us = self.options.tick_us.max(1);
        Loaded {
            spec: spec.clone(),
            plugin,
            generation,
            number,
            name: spec.name.as_str().into(),
            module,
            config,
            // One more, because the running tick may end at once.
            budget_ticks: u64::from(spec.budget_us.div_ceil(tick_us)) + 1,
            counters: Arc::new(GenerationCounters::new(workers, reasons, counter_names.len())),
            counter_names,
            stamp,
            spares_sent: vec![0; workers],
            traps_seen: 0,
            traps: Vec::new(),
            disabled: false,
        }
    }

    /// A version with its instances for every worker.
    fn instances_of(&self, loaded: Loaded) -> Result<Prepared, PluginFault> {
        let mut instances = Vec::new();
        for _ in 0..self.options.workers {
            let active = self.instantiate(&loaded)?;
            let spare = self.instantiate(&loaded)?;
            instances.push(Instances { active, spare });
        }
        Ok(Prepared::New(Box::new(loaded), instances))
    }

    /// The version of a plugin that [`Self::prepare`] would load, for instances aside: it takes no number
    /// and leaves no trace. Of plugins that run unchanged, this is the version that runs.
    pub(crate) fn load_aside(
        &self,
        spec: &PluginSpec,
        position: usize,
    ) -> Result<Aside<'_>, PluginFault> {
        let files = Files::read(spec)?;
        let running = self.loaded.iter().find(|running| running.spec == *spec);
        if let Some(running) =
            running.filter(|running| running.is(&files.inspected.0, &files.config))
        {
            return Ok(Aside::Running(running));
        }
        let (module, _) = self.module(spec, &files)?;
        // Numbers that nothing else has: generations and plugins count from 0.
        let numbers = Numbers {
            plugin: u32::MAX - u32::try_from(position).unwrap_or(0),
            generation: u64::MAX - position as u64,
            number: self.history.get(&spec.name).map_or(1, |history| history.generations + 1),
        };
        let loaded = self.version(spec, module, files.config, files.stamp, numbers);
        Ok(Aside::New(Box::new(loaded)))
    }

    /// The set that runs, to go back to: with its modules and configurations, whatever becomes of their
    /// files.
    #[must_use]
    pub fn checkpoint(&self) -> Checkpoint {
        let kept = self.loaded.iter().map(|loaded| KeptPlugin {
            spec: loaded.spec.clone(),
            module: loaded.module.clone(),
            config: loaded.config.clone(),
        });
        Checkpoint { plugins: kept.collect() }
    }

    /// Prepares the set of a checkpoint without reading a file; [`Self::publish`] puts it into force. A
    /// plugin that runs as it did is kept with its memory; a file that holds something else by now is
    /// taken for known, and loaded only when it changes again.
    ///
    /// # Errors
    /// [`PolicyError::Plugin`] when an instance cannot be made.
    pub fn prepare_checkpoint(&mut self, to: &Checkpoint) -> Result<PreparedSet, PolicyError> {
        let mut plugins = Vec::new();
        for KeptPlugin { spec, module, config } in &to.plugins {
            let stamp = Stamp::of(spec);
            if let Some(running) = self.same_as(spec, &module.sha256, config) {
                running.stamp = stamp;
                plugins.push(Prepared::Keep(spec.name.clone()));
                continue;
            }
            let loaded = self.number(spec, module.clone(), config.clone(), stamp);
            let prepared = self
                .instances_of(loaded)
                .map_err(|fault| PolicyError::plugin(&spec.name, fault))?;
            plugins.push(prepared);
        }
        Ok(PreparedSet { plugins })
    }

    fn instantiate(&self, loaded: &Loaded) -> Result<Box<Instance>, PluginFault> {
        self.make(loaded, &self.offers, &self.beat)
    }

    /// An instance aside, which neither logs nor shares anything.
    pub(crate) fn instantiate_aside(&self, loaded: &Loaded) -> Result<Box<Instance>, PluginFault> {
        self.make(loaded, &self.offers.aside(&loaded.spec.name), &self.beat)
    }

    pub(crate) fn loaded(&self) -> &[Loaded] {
        &self.loaded
    }

    pub(crate) fn shadow_beat(&self) -> &Beat {
        &self.shadow_beat
    }

    pub(crate) fn plan_beat(&self) -> &Beat {
        &self.plan_beat
    }

    fn make(
        &self,
        loaded: &Loaded,
        offers: &Offers,
        beat: &Beat,
    ) -> Result<Box<Instance>, PluginFault> {
        let load_budget_us = u64::from(self.options.load_budget_ms) * 1000;
        let recipe = Recipe {
            plugin: &loaded.name,
            module: &loaded.module,
            config: &loaded.config,
            budget_ticks: loaded.budget_ticks,
            load_budget_ticks: load_budget_us.div_ceil(u64::from(self.options.tick_us.max(1))) + 1,
            offers,
        };
        Instance::new(&recipe, beat).map(Box::new)
    }

    /// Makes a prepared set the one that runs. Each worker takes it over as a whole, between two of
    /// its turns; plugins that are not in it are retired.
    ///
    /// # Errors
    /// [`PolicyError::Stale`] when the set keeps a plugin that is no longer there, and
    /// [`PolicyError::WorkerStalled`]. Nothing is changed then.
    pub fn publish(&mut self, prepared: PreparedSet) -> Result<(), PolicyError> {
        for plugin in &prepared.plugins {
            if let Prepared::Keep(name) = plugin
                && !self.loaded.iter().any(|running| running.spec.name == *name)
            {
                return Err(PolicyError::Stale(name.clone()));
            }
        }
        self.drain();
        let new =
            prepared.plugins.iter().filter(|plugin| matches!(plugin, Prepared::New(..))).count();
        self.check_room(1 + 2 * new)?;

        let mut sets: Vec<Box<WorkerSet>> =
            (0..self.options.workers).map(|_| Box::default()).collect();
        let mut old = std::mem::take(&mut self.loaded);
        for plugin in prepared.plugins {
            let (loaded, instances) = match plugin {
                Prepared::New(loaded, instances) => (*loaded, instances),
                Prepared::Keep(name) => {
                    let Some(position) = old.iter().position(|running| running.spec.name == name)
                    else {
                        continue;
                    };
                    (old.swap_remove(position), Vec::new())
                }
            };
            self.place(&mut sets, &loaded, instances);
            self.loaded.push(loaded);
        }
        for (worker, set) in sets.into_iter().enumerate() {
            self.send(worker, Update::Set(set), 1);
        }
        Ok(())
    }

    /// Puts a plugin at the end of its hook in the set of each worker.
    fn place(&mut self, sets: &mut [Box<WorkerSet>], loaded: &Loaded, instances: Vec<Instances>) {
        let generation = loaded.generation;
        if !instances.is_empty() {
            let history = self.history.entry(loaded.spec.name.clone()).or_default();
            history.live.push(LiveCounters {
                generation,
                counters: Arc::clone(&loaded.counters),
                reasons: loaded.module.manifest.reasons.clone(),
                guest: Arc::clone(&loaded.counter_names),
                workers_left: self.options.workers,
            });
        }
        let mut instances = instances.into_iter();
        for (worker, set) in sets.iter_mut().enumerate() {
            let slot = instances.next().map(|Instances { active, spare }| Slot {
                terms: loaded.terms(),
                instance: Some(active),
                spare: Some(spare),
                counters: Arc::clone(&loaded.counters),
            });
            if slot.is_some()
                && let Some(out) = self.out.get_mut(worker)
            {
                *out += 2;
            }
            let [ingress, forward, egress] = &mut set.hooks;
            let hook = match loaded.spec.hook {
                HookPoint::Ingress => ingress,
                HookPoint::Forward => forward,
                HookPoint::Egress => egress,
            };
            hook.push(Place { generation, slot });
        }
    }

    fn check_room(&self, handed_out: usize) -> Result<(), PolicyError> {
        for (worker, (mailbox, out)) in self.mailboxes.iter().zip(&self.out).enumerate() {
            if !mailbox.has_room(*out, handed_out) {
                return Err(PolicyError::WorkerStalled(worker));
            }
        }
        Ok(())
    }

    fn send(&mut self, worker: usize, update: Update, handed_out: usize) {
        if let (Some(mailbox), Some(out)) = (self.mailboxes.get(worker), self.out.get_mut(worker)) {
            *out += handed_out;
            if !mailbox.send(update) {
                // Room was checked, and this is the only thread that fills it.
                tracing::error!(worker, "a policy update was lost");
            }
        }
    }

    /// Loads a plugin again from its files and puts it in the place of the generation that runs. A
    /// disabled plugin is enabled by it. State in the plugin's memory starts anew; counters and
    /// meters go on.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`Self::publish`]; the old generation then goes on running.
    pub fn reload(&mut self, name: &str) -> Result<ReloadReport, PolicyError> {
        let spec = self
            .loaded
            .iter()
            .find(|running| running.spec.name == name)
            .map(|running| running.spec.clone())
            .ok_or_else(|| PolicyError::Unknown(name.to_owned()))?;
        let (replacement, report) =
            self.load(&spec, false).map_err(|fault| PolicyError::plugin(name, fault))?;
        let mut replacement = Some(replacement);
        let plugins = self.loaded.iter().filter_map(|running| {
            if running.spec.name == name {
                replacement.take()
            } else {
                Some(Prepared::Keep(running.spec.name.clone()))
            }
        });
        let set = PreparedSet { plugins: plugins.collect() };
        self.publish(set)?;
        Ok(report)
    }

    /// Looks whether modules or configuration files changed, and reloads those plugins. To be called
    /// about twice a second. A refused file is reported once, until it changes again.
    pub fn poll_files(&mut self) -> Vec<Result<ReloadReport, PolicyError>> {
        let mut changed = Vec::new();
        for running in &mut self.loaded {
            let stamp = Stamp::of(&running.spec);
            if stamp == running.stamp {
                continue;
            }
            running.stamp = stamp;
            // Touched, but the same: nothing to do. A file that cannot be read is reported.
            let module = read_file(&running.spec.path, MODULE_BYTES_MAX);
            let same = module.is_ok_and(|bytes| sha256(&bytes) == running.module.sha256)
                && config_json(&running.spec.config).is_ok_and(|config| config == running.config);
            if !same {
                changed.push(running.spec.name.clone());
            }
        }
        changed.into_iter().map(|name| self.reload(&name)).collect()
    }

    /// Frees what workers gave up, writes what they and the guests had to say to the log, and
    /// replaces or disables plugins that trapped. To be called about ten times a second.
    pub fn maintain(&mut self) {
        self.drain();
        self.write_log();
        let now = Instant::now();
        for position in 0..self.loaded.len() {
            self.mend(position, now);
        }
        self.offers.prune();
    }

    /// Frees what came back from the workers.
    fn drain(&mut self) {
        let mut ended = Vec::new();
        for (worker, mailbox) in self.mailboxes.iter().enumerate() {
            let Some(out) = self.out.get_mut(worker) else { continue };
            while let Some(retired) = mailbox.take_retired() {
                *out = out.saturating_sub(1);
                if let Retired::Set(mut set) = retired {
                    for place in set.places_mut() {
                        let Some(slot) = &place.slot else { continue };
                        let instances = usize::from(slot.instance.is_some())
                            + usize::from(slot.spare.is_some());
                        *out = out.saturating_sub(instances);
                        ended.push(place.generation);
                    }
                }
            }
        }
        let workers = self.options.workers;
        for generation in ended {
            for history in self.history.values_mut() {
                history.end(generation, workers);
            }
        }
    }

    fn write_log(&mut self) {
        while let Some(report) = self.traps.pop() {
            let Some(loaded) = self.loaded.iter().find(|l| l.generation == report.generation)
            else {
                continue;
            };
            let reason =
                report.error.as_ref().map_or_else(|| "its memory moved".to_owned(), reason);
            tracing::warn!(
                plugin = %loaded.name,
                generation = loaded.number,
                worker = report.worker,
                "a call trapped: {reason}"
            );
        }
        while let Some(line) = self.offers.log.lines.pop() {
            let (plugin, text) = (&line.plugin, line.text());
            match line.level {
                ..=1 => tracing::error!(%plugin, "{text}"),
                2 => tracing::warn!(%plugin, "{text}"),
                3 => tracing::info!(%plugin, "{text}"),
                _ => tracing::debug!(%plugin, "{text}"),
            }
        }
        let lost = self.offers.log.lost.load(Ordering::Relaxed);
        if lost > self.log_lost {
            tracing::warn!(lines = lost - self.log_lost, "plugins log too much: lines were lost");
            self.log_lost = lost;
        }
    }

    /// Counts a plugin's new traps; disables it, or makes new instances for workers that lost one.
    fn mend(&mut self, position: usize, now: Instant) {
        let Some(loaded) = self.loaded.get_mut(position) else { return };
        if loaded.disabled {
            return;
        }
        let traps: u64 = loaded.counters.workers.iter().map(|worker| worker.traps.get()).sum();
        for _ in loaded.traps_seen..traps {
            loaded.traps.push(now);
        }
        loaded.traps_seen = traps;
        loaded.traps.retain(|trap| now.duration_since(*trap) < TRAP_WINDOW);
        if loaded.traps.len() >= usize::try_from(loaded.spec.traps_max.max(1)).unwrap_or(usize::MAX)
        {
            loaded.disabled = true;
            let generation = loaded.generation;
            tracing::error!(
                plugin = %loaded.name,
                generation = loaded.number,
                traps = loaded.traps.len(),
                "disabled: it trapped too often within a minute; a reload enables it again"
            );
            for worker in 0..self.options.workers {
                self.send(worker, Update::Disable(generation), 0);
            }
            return;
        }
        let Some(last) = loaded.traps.last() else { return };
        let doublings = u32::try_from(loaded.traps.len() - 1).unwrap_or(u32::MAX).min(16);
        let backoff = BACKOFF_LEAST.saturating_mul(1 << doublings).min(BACKOFF_MOST);
        if now.duration_since(*last) < backoff {
            return;
        }
        for worker in 0..self.options.workers {
            let Some(loaded) = self.loaded.get(position) else { return };
            let Some(owed) = loaded.owed(worker).filter(|owed| *owed > 0) else { continue };
            let roomy = self.mailboxes.get(worker).zip(self.out.get(worker));
            if !roomy.is_some_and(|(mailbox, out)| mailbox.has_room(*out, 1)) {
                continue;
            }
            for _ in 0..owed.min(2) {
                let Some(loaded) = self.loaded.get(position) else { return };
                match self.instantiate(loaded) {
                    Ok(instance) => {
                        let generation = loaded.generation;
                        self.send(worker, Update::Spare(generation, instance), 1);
                    }
                    Err(fault) => {
                        tracing::error!(plugin = %loaded.name, "no new instance: {fault}");
                        return;
                    }
                }
                if let Some(loaded) = self.loaded.get_mut(position)
                    && let Some(sent) = loaded.spares_sent.get_mut(worker)
                {
                    *sent += 1;
                }
            }
        }
    }

    /// All plugins in the order in which they are called, with their counters.
    #[must_use]
    pub fn status(&self) -> Vec<PluginStatus> {
        let mut plugins: Vec<_> = self.loaded.iter().map(|loaded| self.status_of(loaded)).collect();
        let order = |hook: &str| HookPoint::ALL.iter().position(|point| hook_name(*point) == hook);
        plugins.sort_by_key(|plugin| order(plugin.hook));
        plugins
    }

    fn status_of(&self, loaded: &Loaded) -> PluginStatus {
        let mut totals = vec![Totals::default(); self.options.workers];
        if let Some(history) = self.history.get(&loaded.spec.name) {
            for (totals, folded) in totals.iter_mut().zip(&history.folded) {
                totals.merge(folded);
            }
            for live in &history.live {
                for (totals, counters) in totals.iter_mut().zip(&live.counters.workers) {
                    totals.add(counters, &live.reasons, &live.guest);
                }
            }
        }
        let mut total = Totals::default();
        for worker in &totals {
            total.merge(worker);
        }
        let waits = (0..self.options.workers).any(|worker| loaded.owed(worker) >= Some(2));
        PluginStatus {
            name: loaded.spec.name.clone(),
            module: loaded.module.manifest.name.clone(),
            hook: hook_name(loaded.spec.hook),
            generation: loaded.number,
            sha256: hex(&loaded.module.sha256),
            state: match (loaded.disabled, waits) {
                (true, _) => PluginState::Disabled,
                (false, true) => PluginState::Backoff,
                (false, false) => PluginState::Running,
            },
            total: total.into(),
            workers: totals.into_iter().map(Into::into).collect(),
            meters: self.offers.meters.status(&loaded.spec.name),
        }
    }
}

impl Loaded {
    /// Whether this is the version with this module and configuration, and in working order.
    fn is(&self, hash: &[u8; 32], config: &[u8]) -> bool {
        self.module.sha256 == *hash && self.config == config && !self.disabled
    }

    pub(crate) fn terms(&self) -> Terms {
        let manifest = &self.module.manifest;
        Terms {
            plugin: self.plugin,
            generation: self.generation,
            reasons: u32::try_from(manifest.reasons.len()).unwrap_or(u32::MAX),
            default: self.spec.default.unwrap_or(manifest.default),
            on_trap: self.spec.on_trap.unwrap_or(manifest.on_trap),
        }
    }

    /// Instances that `worker` lost and was not sent again. It starts with two, so with two of them
    /// lost it has none.
    fn owed(&self, worker: usize) -> Option<u64> {
        let lost = self.counters.workers.get(worker)?.traps.get();
        Some(lost.saturating_sub(*self.spares_sent.get(worker)?))
    }
}

impl History {
    /// A worker gave a generation up. When all have, what it counted is added up and it is forgotten.
    fn end(&mut self, generation: u64, workers: usize) {
        let Some(position) = self.live.iter().position(|live| live.generation == generation) else {
            return;
        };
        let Some(live) = self.live.get_mut(position) else { return };
        live.workers_left = live.workers_left.saturating_sub(1);
        if live.workers_left > 0 {
            return;
        }
        let live = self.live.swap_remove(position);
        self.folded.resize(workers, Totals::default());
        for (totals, counters) in self.folded.iter_mut().zip(&live.counters.workers) {
            totals.add(counters, &live.reasons, &live.guest);
        }
    }
}
