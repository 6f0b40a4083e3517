//! Candidates, seen from the control side: loaded beside a plugin, reported on, promoted or discarded.

use std::{path::Path, sync::Arc, time::Instant};

use serde::Serialize;

use crate::{
    CandidateStart, DifferenceKind, PluginConfig, PluginHost, PluginSpec, PolicyError,
    ReloadReport, WorkerStatus,
    candidate::{Candidate, Compared, Difference, Outcome},
    counters::Totals,
    generation::{Files, Loaded, Numbers},
    loading::micros,
    mailbox::Update,
    module::hex,
    packet_text::packet_text,
};

/// Differences of each kind that are kept: the first ones.
const KEPT_PER_KIND: usize = 8;
/// Traps of a candidate that are told: of each worker one, and of so many workers.
const TRAPS_TOLD_MAX: usize = 16;

/// A candidate beside the plugin that runs.
pub(crate) struct Trial {
    pub(crate) loaded: Loaded,
    pub(crate) compared: Arc<Compared>,
    differences: Vec<Difference>,
    pub(crate) traps: Vec<TrialTrap>,
}

/// What a candidate would have done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TrialStatus {
    /// The plugin beside which it is asked.
    pub name: String,
    /// The generation that runs.
    pub generation: u64,
    /// SHA-256 of the candidate's module, in hexadecimal.
    pub sha256: String,
    /// Its file.
    pub path: std::path::PathBuf,
    /// Packets that both judged.
    pub packets: u64,
    /// Packets that both drop.
    pub same_drops: u64,
    /// Packets that only the candidate drops.
    pub new_drops: u64,
    /// Packets that only the plugin that runs drops.
    pub new_passes: u64,
    /// Packets that differ in something else: reason, next hop, edit.
    pub others: u64,
    /// Some of those packets: the first of each kind.
    pub samples: Vec<DifferenceSample>,
    /// How the candidate began, for each worker: with the plugin's state or without.
    pub starts: Vec<CandidateStart>,
    /// Calls of the candidate that trapped; that worker then asks it no more.
    pub traps: Vec<TrialTrap>,
    /// What the candidate counted and cost.
    pub candidate: WorkerStatus,
}

/// A packet that the two judge differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DifferenceSample {
    /// How they differ.
    pub kind: DifferenceKind,
    /// The packet.
    pub packet: String,
    /// What the plugin that runs says.
    pub running: String,
    /// What the candidate says.
    pub candidate: String,
}

/// A call of a candidate that trapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrialTrap {
    /// The worker.
    pub worker: usize,
    /// Why.
    pub reason: String,
}

impl Trial {
    fn take(&mut self) {
        while let Some(difference) = self.compared.differences.pop() {
            let kept = self.differences.iter().filter(|kept| kept.kind == difference.kind).count();
            if kept < KEPT_PER_KIND {
                self.differences.push(difference);
            }
        }
    }

    pub(crate) fn trapped(&mut self, worker: usize, reason: &str) {
        if self.traps.len() < TRAPS_TOLD_MAX {
            self.traps.push(TrialTrap { worker, reason: reason.to_owned() });
        }
    }
}

impl PluginHost {
    /// Loads a module as a candidate beside the plugin `name`: each worker asks it about the packets that
    /// the plugin judges, and compares. It has the plugin's settings, and its configuration unless another
    /// is given; each worker's begins with the state of the plugin there, where their manifests have it.
    /// One candidate at a time; the one before is discarded.
    ///
    /// # Errors
    /// As [`Self::prepare`]; nothing has changed then.
    pub fn load_candidate(
        &mut self,
        name: &str,
        path: &Path,
        config: Option<PluginConfig>,
    ) -> Result<ReloadReport, PolicyError> {
        let (spec, files) = self.files_beside(name, path, config)?;
        let fault = |fault| PolicyError::plugin(name, fault);
        let (module, compile_us) = self.module(&spec, &files).map_err(fault)?;
        let tables = self.load_tables(&spec, &module.manifest).map_err(fault)?;
        self.drain();
        self.check_room(3)?;
        self.generations += 1;
        let running = self.running(name)?;
        let (plugin, live) = (running.plugin, running.generation);
        let numbers =
            Numbers { plugin, generation: self.generations, number: self.next_number(name) };
        let reasons = &module.manifest.reasons;
        let workers = self.options.workers;
        let compared = Compared::new(workers, &running.module.manifest.reasons, reasons);
        let compared = Arc::new(compared);
        let started = Instant::now();
        let mut loaded = self.version(&spec, module, files.config, files.stamp, numbers);
        loaded.read(tables);
        loaded.price = self.price(&loaded).map_err(fault)?;
        self.afford_candidate(name, loaded.price.as_ref())?;
        // Copies of what is shared, which the candidate's instances share among themselves.
        let offers = self.offers.aside(name);
        let mut candidates = Vec::new();
        for _ in 0..workers {
            let instance = self.make(&loaded, &offers, &self.beat).map_err(fault)?;
            candidates.push(Box::new(Candidate {
                terms: loaded.terms(),
                instance: Some(instance),
                counters: Arc::clone(&loaded.counters),
                compared: Arc::clone(&compared),
                failed: None,
            }));
        }
        let report = ReloadReport {
            name: name.to_owned(),
            generation: loaded.number,
            sha256: hex(&loaded.module.sha256),
            restores: None,
            compile_us,
            instantiate_us: micros(started),
            price: self.price_now(loaded.price.as_ref()),
        };
        for (worker, candidate) in candidates.into_iter().enumerate() {
            self.send(worker, Update::Candidate(live, Some(candidate)), 2);
        }
        let trial = Trial { loaded, compared, differences: Vec::new(), traps: Vec::new() };
        if let Some(running) = self.loaded.iter_mut().find(|running| running.spec.name == name) {
            running.trial = Some(Box::new(trial));
        }
        Ok(report)
    }

    /// Loads a module from another file, or with another configuration, in the place of the plugin `name`.
    /// It stays until the files that the plugin's entry names change.
    ///
    /// # Errors
    /// As [`Self::prepare`] and [`Self::publish`]; what runs then goes on running.
    pub fn load_from(
        &mut self,
        name: &str,
        path: &Path,
        config: Option<PluginConfig>,
    ) -> Result<ReloadReport, PolicyError> {
        let (spec, files) = self.files_beside(name, path, config)?;
        let fault = |fault| PolicyError::plugin(name, fault);
        let (module, compile_us) = self.module(&spec, &files).map_err(fault)?;
        let tables = self.load_tables(&spec, &module.manifest).map_err(fault)?;
        let report = self.put(name, &spec, (module, files.config, tables), None, None)?;
        Ok(ReloadReport { compile_us, ..report })
    }

    /// What the candidate beside `name` would have done so far.
    ///
    /// # Errors
    /// [`PolicyError::Unknown`] and [`PolicyError::NoCandidate`].
    pub fn candidate(&mut self, name: &str) -> Result<TrialStatus, PolicyError> {
        self.maintain();
        let running = self.running(name)?;
        let trial = running.trial.as_deref();
        let trial = trial.ok_or_else(|| PolicyError::NoCandidate(name.to_owned()))?;
        Ok(self.trial_status(running, trial))
    }

    /// Puts the candidate beside `name` into force, with instances of its own and what is shared.
    ///
    /// # Errors
    /// As [`Self::candidate`] and [`Self::publish`]; what runs then goes on running, and so does the trial.
    pub fn promote(&mut self, name: &str) -> Result<ReloadReport, PolicyError> {
        let running = self.running(name)?;
        let trial = running.trial.as_deref();
        let trial = trial.ok_or_else(|| PolicyError::NoCandidate(name.to_owned()))?;
        let Loaded { spec, module, config, tables, price, .. } = &trial.loaded;
        let version = (module.clone(), config.clone(), Arc::clone(tables));
        let (spec, price) = (spec.clone(), price.clone());
        self.put(name, &spec, version, None, price)
    }

    /// Ends the trial of the candidate beside `name`. Its last report.
    ///
    /// # Errors
    /// As [`Self::candidate`].
    pub fn discard(&mut self, name: &str) -> Result<TrialStatus, PolicyError> {
        let last = self.candidate(name)?;
        let running = self.loaded.iter_mut().find(|running| running.spec.name == name);
        if let Some(running) = running {
            running.trial = None;
            let generation = running.generation;
            for worker in 0..self.options.workers {
                self.send(worker, Update::Candidate(generation, None), 0);
            }
        }
        Ok(last)
    }

    /// The plugin's settings with another module, and what its files hold.
    fn files_beside(
        &self,
        name: &str,
        path: &Path,
        config: Option<PluginConfig>,
    ) -> Result<(PluginSpec, Files), PolicyError> {
        let mut spec = self.running(name)?.spec.clone();
        path.clone_into(&mut spec.path);
        // The pin is the configured file's.
        spec.sha256 = None;
        if let Some(config) = config {
            spec.config = config;
        }
        let files = Files::read(&spec).map_err(|fault| PolicyError::plugin(name, fault))?;
        Ok((spec, files))
    }

    /// Takes what workers found, so that there is room for more.
    pub(crate) fn take_differences(&mut self) {
        for loaded in &mut self.loaded {
            if let Some(trial) = &mut loaded.trial {
                trial.take();
            }
        }
    }

    fn trial_status(&self, running: &Loaded, trial: &Trial) -> TrialStatus {
        let Trial { loaded, compared, differences, traps } = trial;
        let manifest = &loaded.module.manifest;
        let mut total = Totals::default();
        for counters in &loaded.counters.workers {
            total.add(counters, &manifest.reasons, &loaded.counter_names);
        }
        let sum = |of: fn(&crate::candidate::ComparedCounters) -> &crate::counters::Counter| {
            compared.workers.iter().map(|worker| of(worker).get()).sum()
        };
        let samples = differences.iter().map(|difference| DifferenceSample {
            kind: difference.kind,
            packet: packet_text(&difference.descriptor),
            running: verdict_text(running, difference.running),
            candidate: verdict_text(loaded, difference.candidate),
        });
        TrialStatus {
            name: running.spec.name.clone(),
            generation: running.number,
            sha256: hex(&loaded.module.sha256),
            path: loaded.spec.path.clone(),
            packets: sum(|counters| &counters.packets),
            same_drops: sum(|counters| &counters.same_drops),
            new_drops: sum(|counters| &counters.new_drops),
            new_passes: sum(|counters| &counters.new_passes),
            others: sum(|counters| &counters.others),
            samples: samples.collect(),
            starts: trial.starts(running),
            traps: traps.clone(),
            candidate: total.into(),
        }
    }

    pub(crate) fn next_number(&self, name: &str) -> u64 {
        self.history.get(name).map_or(1, |history| history.generations + 1)
    }
}

/// A verdict, for a person.
fn verdict_text(loaded: &Loaded, outcome: Outcome) -> String {
    match outcome {
        Outcome::Drop(reason) => {
            let name = reason.and_then(|reason| {
                let position = usize::try_from(reason).ok()?;
                loaded.module.manifest.reasons.get(position)
            });
            format!("drop: {}", name.map_or("default", String::as_str))
        }
        Outcome::Pass { next_hop: 0, flags, .. } => format!("continue{}", edits_text(flags)),
        Outcome::Pass { next_hop, flags, .. } => {
            format!("transmit to next hop {next_hop}{}", edits_text(flags))
        }
    }
}

fn edits_text(flags: u8) -> String {
    let names = crate::Action::ALL
        .into_iter()
        .filter(|action| action.flag().is_some_and(|flag| flags & flag != 0));
    let names: Vec<&str> = names.map(crate::Action::name).collect();
    if names.is_empty() { String::new() } else { format!(" with {}", names.join(", ")) }
}
