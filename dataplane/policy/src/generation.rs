//! What the host keeps of a plugin: the version that runs, and what all versions counted.

use std::{sync::Arc, time::Instant};

use crate::{
    Granularity, Manifest, NamedCounter, OnTrap, PluginFault, PluginSpec, Price, TableStatus,
    chain::Terms,
    counters::{GenerationCounters, Totals},
    instance::Instance,
    judgement::Allowed,
    module::{CheckedModule, MODULE_BYTES_MAX, inspect, read_file},
    refusal::Refusal,
    rollback::{Held, KeptPlugin},
    tables::Tables,
    trial::Trial,
    watch::{FileStamp, Stamp, config_json},
};

/// A loaded version of a plugin, and how it fares.
pub(crate) struct Loaded {
    /// What it runs with.
    pub(crate) spec: PluginSpec,
    /// What the configuration says, which differs when an operator put something else into force.
    pub(crate) entry: PluginSpec,
    /// What the entry's files held when that was done: as long as they hold it, it stays.
    pub(crate) held: Option<Held>,
    /// The generation before, to go back to.
    pub(crate) before: Option<Arc<KeptPlugin>>,
    /// Number of the generation that this one brings back.
    pub(crate) restores: Option<u64>,
    /// The generation before as it stands by, if `on_trap` wants that.
    pub(crate) last_good: Option<Box<Loaded>>,
    /// The candidate beside it.
    pub(crate) trial: Option<Box<Trial>>,
    /// Number of the name, the same for all its generations.
    pub(crate) plugin: u32,
    /// Unique in the process: what workers know it by.
    pub(crate) generation: u64,
    /// Counts the versions under this name from 1.
    pub(crate) number: u64,
    pub(crate) name: Arc<str>,
    pub(crate) module: CheckedModule,
    pub(crate) config: Vec<u8>,
    pub(crate) budget_ticks: u64,
    pub(crate) counter_names: Arc<[NamedCounter]>,
    pub(crate) counters: Arc<GenerationCounters>,
    pub(crate) stamp: Stamp,
    pub(crate) tables: Tables,
    /// The state of the tables' files when they were last looked at.
    pub(crate) table_stamps: Vec<FileStamp>,
    /// New instances sent to each worker after it lost one.
    pub(crate) spares_sent: Vec<u64>,
    pub(crate) traps_seen: u64,
    /// Instances that started empty, as far as the log has them.
    pub(crate) states_lost: u64,
    pub(crate) traps: Vec<Instant>,
    pub(crate) disabled: bool,
    /// What it was priced at when it was loaded.
    pub(crate) price: Option<Price>,
}

/// Counters of a generation that some worker may still run.
pub(crate) struct LiveCounters {
    pub(crate) generation: u64,
    pub(crate) counters: Arc<GenerationCounters>,
    pub(crate) reasons: Vec<String>,
    pub(crate) guest: Arc<[NamedCounter]>,
    pub(crate) workers_left: usize,
}

impl LiveCounters {
    pub(crate) fn of(loaded: &Loaded, workers: usize) -> Self {
        Self {
            generation: loaded.generation,
            counters: Arc::clone(&loaded.counters),
            reasons: loaded.module.manifest.reasons.clone(),
            guest: Arc::clone(&loaded.counter_names),
            workers_left: workers,
        }
    }
}

/// What was counted under a name, over all generations.
#[derive(Default)]
pub(crate) struct History {
    /// Number of the name.
    pub(crate) plugin: u32,
    pub(crate) generations: u64,
    pub(crate) live: Vec<LiveCounters>,
    /// Of generations that no worker runs any more, for each worker.
    pub(crate) folded: Vec<Totals>,
    /// Loads that were refused.
    pub(crate) refused: u64,
    /// The last of them, for as long as it stands.
    pub(crate) refusal: Option<Refusal>,
}

/// An instance to run and one to take over after a trap.
pub(crate) struct Instances {
    pub(crate) active: Box<Instance>,
    pub(crate) spare: Box<Instance>,
    /// Of the generation before, if it stands by.
    pub(crate) last_good: Option<Box<Instance>>,
}

/// What a plugin's files hold.
pub(crate) struct Files {
    pub(crate) stamp: Stamp,
    pub(crate) bytes: Vec<u8>,
    pub(crate) config: Vec<u8>,
    pub(crate) inspected: ([u8; 32], Manifest, usize),
}

impl Files {
    pub(crate) fn read(spec: &PluginSpec) -> Result<Self, PluginFault> {
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
pub(crate) struct Numbers {
    pub(crate) plugin: u32,
    pub(crate) generation: u64,
    pub(crate) number: u64,
}

impl Loaded {
    /// Whether this is the version with this module and configuration, and in working order.
    pub(crate) fn is(&self, hash: &[u8; 32], config: &[u8]) -> bool {
        self.module.sha256 == *hash && self.config == config && !self.disabled
    }

    /// Whether this is what runs, in working order, while the entry's files hold this module and
    /// configuration.
    pub(crate) fn is_for(&self, hash: &[u8; 32], config: &[u8]) -> bool {
        self.knows(hash, config) && !self.disabled
    }

    /// Whether the entry's files held this module and configuration when this was put into force.
    pub(crate) fn knows(&self, hash: &[u8; 32], config: &[u8]) -> bool {
        match &self.held {
            None => self.module.sha256 == *hash && self.config == config,
            Some(held) => held.sha256 == *hash && held.config == config,
        }
    }

    pub(crate) fn on_trap(&self) -> OnTrap {
        self.spec.on_trap.unwrap_or(self.module.manifest.on_trap)
    }

    pub(crate) fn terms(&self) -> Terms {
        let manifest = &self.module.manifest;
        Terms {
            plugin: self.plugin,
            generation: self.generation,
            allowed: Allowed::new(manifest, self.spec.hook),
            default: self.spec.default.unwrap_or(manifest.default),
            on_trap: self.on_trap(),
        }
    }

    /// Whether its verdicts may be kept for flows.
    pub(crate) fn judges_flows(&self) -> bool {
        self.module.manifest.granularity == Granularity::Flow
    }

    /// Gives it its tables.
    pub(crate) fn read(&mut self, tables: Tables) {
        self.table_stamps = tables.iter().map(|table| table.stamp()).collect();
        self.tables = tables;
    }

    pub(crate) fn table_status(&self) -> Vec<TableStatus> {
        let names = self.module.manifest.tables.iter().zip(self.tables.iter());
        let status = names.map(|(name, table)| TableStatus {
            name: name.clone(),
            entries: table.entries(),
            bytes: table.bytes(),
        });
        status.collect()
    }

    /// Instances that `worker` lost and was not sent again. It starts with two, so with two of them
    /// lost it has none.
    pub(crate) fn owed(&self, worker: usize) -> Option<u64> {
        let lost = self.counters.workers.get(worker)?.traps.get();
        Some(lost.saturating_sub(*self.spares_sent.get(worker)?))
    }
}

impl History {
    /// A worker gave a generation up. When all have, what it counted is added up and it is forgotten.
    pub(crate) fn end(&mut self, generation: u64, workers: usize) {
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
