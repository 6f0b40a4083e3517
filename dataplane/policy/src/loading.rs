//! Loading: from a plugin's files to a version with its instances, while what runs goes on.

use std::{ops::ControlFlow, sync::Arc, time::Instant};

use crate::{
    HostOptions, NamedCounter, OnTrap, PluginFault, PluginHost, PluginSpec, PolicyError,
    PreparedSet, ReloadReport, background,
    counters::GenerationCounters,
    generation::{Files, History, Instances, Loaded, Numbers},
    host::Prepared,
    imports::Offers,
    instance::{Instance, Recipe},
    module::{CheckedModule, hex, window},
    rollback::KeptPlugin,
    tables::no_tables,
    ticker::Beat,
    watch::Stamp,
};

/// A version of a plugin for instances aside.
pub(crate) enum AsideVersion<'a> {
    /// It runs.
    Running(&'a Loaded),
    /// It would be loaded.
    New(Box<Loaded>),
}

pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

impl PluginHost {
    /// Loads all plugins of a configuration: reads, checks, compiles, instantiates and configures
    /// them, and changes nothing of what runs. A plugin about which nothing changed (entry, module,
    /// configuration) is kept as it is, with its memory. They may cost what those that run may.
    ///
    /// # Errors
    /// Says which plugin is refused and why; see [`PluginFault`], [`PolicyError::Budget`] and
    /// [`PolicyError::Unpriced`].
    pub fn prepare(&mut self, specs: &[PluginSpec]) -> Result<PreparedSet, PolicyError> {
        self.prepare_within(specs, self.budget_cycles_per_packet)
    }

    /// As [`Self::prepare`], with what they may cost a packet together, in clock cycles; `None`: anything.
    ///
    /// # Errors
    /// As [`Self::prepare`].
    pub fn prepare_within(
        &mut self,
        specs: &[PluginSpec],
        budget_cycles_per_packet: Option<u32>,
    ) -> Result<PreparedSet, PolicyError> {
        let mut refused = None;
        let (plugins, _) = self.load_set(specs, budget_cycles_per_packet, |error| {
            refused = Some(error);
            ControlFlow::Break(())
        });
        match refused {
            Some(error) => Err(error),
            None => Ok(PreparedSet { budget_cycles_per_packet, plugins }),
        }
    }

    /// What [`Self::prepare_within`] would make of a configuration: a report of each plugin that it would
    /// load, and everything that it would refuse. It stops at nothing, and keeps nothing.
    pub fn check_within(
        &mut self,
        specs: &[PluginSpec],
        budget_cycles_per_packet: Option<u32>,
    ) -> (Vec<ReloadReport>, Vec<PolicyError>) {
        let mut refused = Vec::new();
        let (_, reports) = self.load_set(specs, budget_cycles_per_packet, |error| {
            refused.push(error);
            ControlFlow::Continue(())
        });
        (reports, refused)
    }

    /// Loads a set. What is refused is told; `refuse` says whether to go on. What a set costs is known only
    /// when nothing else is wrong.
    fn load_set(
        &mut self,
        specs: &[PluginSpec],
        budget_cycles_per_packet: Option<u32>,
        mut refuse: impl FnMut(PolicyError) -> ControlFlow<()>,
    ) -> (Vec<Prepared>, Vec<ReloadReport>) {
        let (mut plugins, mut reports) = (Vec::new(), Vec::new());
        for (position, spec) in specs.iter().enumerate() {
            if specs.iter().take(position).any(|earlier| earlier.name == spec.name)
                && refuse(PolicyError::Duplicate(spec.name.clone())).is_break()
            {
                return (plugins, reports);
            }
        }
        for spec in specs {
            let loaded =
                self.load(spec, true).map_err(|fault| PolicyError::plugin(&spec.name, fault));
            match self.noted(&spec.name, loaded) {
                Ok((plugin, report)) => {
                    plugins.push(plugin);
                    reports.push(report);
                }
                Err(error) => {
                    if refuse(error).is_break() {
                        return (plugins, reports);
                    }
                }
            }
        }
        if plugins.len() == specs.len()
            && let Err(error) = self.afford_set(budget_cycles_per_packet, &plugins)
        {
            // Nothing comes behind it.
            let _ = refuse(error);
        }
        (plugins, reports)
    }

    /// Loads one plugin; the report says how long that took.
    pub(crate) fn load(
        &mut self,
        spec: &PluginSpec,
        may_keep: bool,
    ) -> Result<(Prepared, ReloadReport), PluginFault> {
        let files = Files::read(spec)?;
        let mut report = ReloadReport {
            name: spec.name.clone(),
            generation: 0,
            sha256: hex(&files.inspected.0),
            restores: None,
            compile_us: 0,
            instantiate_us: 0,
            price: None,
        };
        if may_keep && let Some(running) = self.unchanged(spec, &files.inspected.0, &files.config) {
            running.stamp = files.stamp;
            report.generation = running.number;
            report.price = running.price.clone();
            self.forget_refusal(&spec.name);
            return Ok((Prepared::Keep(spec.name.clone()), report));
        }
        let (module, compile_us) = self.module(spec, &files)?;
        report.compile_us = compile_us;
        let tables = self.load_tables(spec, &module.manifest)?;
        let mut loaded = self.number(spec, module, files.config, files.stamp);
        loaded.read(tables);
        report.generation = loaded.number;
        loaded.price = self.price(&loaded)?;
        self.refuse_traps(loaded.price.as_ref())?;
        report.price = self.price_now(loaded.price.as_ref());
        let started = Instant::now();
        let prepared = self.instances_of(loaded)?;
        report.instantiate_us = micros(started);
        Ok((prepared, report))
    }

    /// The plugin that runs with this specification, module and configuration.
    pub(crate) fn same_as(
        &mut self,
        spec: &PluginSpec,
        hash: &[u8; 32],
        config: &[u8],
    ) -> Option<&mut Loaded> {
        let running = self.loaded.iter_mut().find(|running| running.spec == *spec)?;
        running.is(hash, config).then_some(running)
    }

    /// The plugin that goes on running if its entry and files are these: because they are what it runs, or
    /// because they are what an operator put aside.
    fn unchanged(
        &mut self,
        spec: &PluginSpec,
        hash: &[u8; 32],
        config: &[u8],
    ) -> Option<&mut Loaded> {
        let running = self.loaded.iter_mut().find(|running| running.entry == *spec)?;
        running.is_for(hash, config).then_some(running)
    }

    /// The module of a plugin, and how long compiling it took in microseconds.
    pub(crate) fn module(
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
        let Self { engine, linker, compiled, .. } = self;
        if let Some(module) = compiled.load(engine, &hash) {
            let module = CheckedModule::check(module, linker, &files.bytes, inspected, spec)?;
            return Ok((module, micros(started)));
        }
        let compile = || CheckedModule::compile(engine, linker, &files.bytes, inspected, spec);
        let module =
            if self.compiles_in_background { background::run(compile)? } else { compile()? };
        let compile_us = micros(started);
        compiled.store(&hash, module.pre.module());
        Ok((module, compile_us))
    }

    /// A new generation under the plugin's name.
    pub(crate) fn number(
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
        let plugin = history.plugin;
        let before = self.before(spec, &module, &config);
        let mut loaded = self.version(spec, module, config, stamp.clone(), numbers);
        if loaded.on_trap() == OnTrap::LastGood
            && let Some(before) = before.as_ref().filter(|before| before.spec.hook == spec.hook)
        {
            self.generations += 1;
            let numbers = Numbers { plugin, generation: self.generations, number: before.number };
            let KeptPlugin { spec, module, config, tables, .. } = &**before;
            let mut by = self.version(spec, module.clone(), config.clone(), stamp, numbers);
            by.read(Arc::clone(tables));
            loaded.last_good = Some(Box::new(by));
        }
        loaded.before = before;
        loaded
    }

    pub(crate) fn version(
        &self,
        spec: &PluginSpec,
        module: CheckedModule,
        config: Vec<u8>,
        stamp: Stamp,
        Numbers { plugin, generation, number }: Numbers,
    ) -> Loaded {
        let counter_names: Arc<[NamedCounter]> = module.manifest.named_counters().into();
        let tables = no_tables(&module.manifest);
        let workers = self.options.workers;
        let reasons = module.manifest.reasons.len();
        let tick_us = self.options.tick_us.max(1);
        Loaded {
            spec: spec.clone(),
            entry: spec.clone(),
            held: None,
            before: None,
            restores: None,
            last_good: None,
            trial: None,
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
            tables,
            table_stamps: Vec::new(),
            spares_sent: vec![0; workers],
            traps_seen: 0,
            states_lost: 0,
            traps: Vec::new(),
            disabled: false,
            price: None,
        }
    }

    /// A version with its instances for every worker.
    pub(crate) fn instances_of(&self, loaded: Loaded) -> Result<Prepared, PluginFault> {
        let mut instances = Vec::new();
        for _ in 0..self.options.workers {
            // Before the new ones, which have the last word on what is shared.
            let last_good = loaded.last_good.as_ref().and_then(|by| {
                self.instantiate(by)
                    .inspect_err(|fault| {
                        tracing::warn!(plugin = %by.name, "the generation before cannot stand by: {fault}");
                    })
                    .ok()
            });
            let active = self.instantiate(&loaded)?;
            let spare = self.instantiate(&loaded)?;
            instances.push(Instances { active, spare, last_good });
        }
        Ok(Prepared::New(Box::new(loaded), instances))
    }

    /// The version of a plugin that [`Self::prepare`] would load, for instances aside: it takes no number
    /// and leaves no trace. Of plugins that run unchanged, this is the version that runs.
    pub(crate) fn load_aside(
        &self,
        spec: &PluginSpec,
        position: usize,
    ) -> Result<AsideVersion<'_>, PluginFault> {
        let files = Files::read(spec)?;
        let running = self.loaded.iter().find(|running| running.entry == *spec);
        if let Some(running) =
            running.filter(|running| running.is_for(&files.inspected.0, &files.config))
        {
            return Ok(AsideVersion::Running(running));
        }
        let (module, _) = self.module(spec, &files)?;
        // Numbers that nothing else has: generations and plugins count from 0.
        let numbers = Numbers {
            plugin: u32::MAX - u32::try_from(position).unwrap_or(0),
            generation: u64::MAX - position as u64,
            number: self.next_number(&spec.name),
        };
        let tables = self.load_tables(spec, &module.manifest)?;
        let mut loaded = self.version(spec, module, files.config, files.stamp, numbers);
        loaded.read(tables);
        Ok(AsideVersion::New(Box::new(loaded)))
    }

    pub(crate) fn instantiate(&self, loaded: &Loaded) -> Result<Box<Instance>, PluginFault> {
        self.make(loaded, &self.offers, &self.beat)
    }

    /// An instance aside, which neither logs nor shares anything.
    pub(crate) fn instantiate_aside(&self, loaded: &Loaded) -> Result<Box<Instance>, PluginFault> {
        self.make(loaded, &self.offers.aside(&loaded.spec.name), &self.beat)
    }

    pub(crate) fn make(
        &self,
        loaded: &Loaded,
        offers: &Offers,
        beat: &Beat,
    ) -> Result<Box<Instance>, PluginFault> {
        instance_of(&self.options, loaded, offers, beat)
    }
}

/// An instance of a version, with what it is offered.
pub(crate) fn instance_of(
    options: &HostOptions,
    loaded: &Loaded,
    offers: &Offers,
    beat: &Beat,
) -> Result<Box<Instance>, PluginFault> {
    let load_budget_us = u64::from(options.load_budget_ms) * 1000;
    let recipe = Recipe {
        plugin: &loaded.name,
        module: &loaded.module,
        window: window(&loaded.module.manifest, &loaded.spec),
        config: &loaded.config,
        budget_ticks: loaded.budget_ticks,
        load_budget_ticks: load_budget_us.div_ceil(u64::from(options.tick_us.max(1))) + 1,
        names: &loaded.spec.names,
        offers,
        tables: &loaded.tables,
    };
    Instance::new(&recipe, beat).map(Box::new)
}
