//! What the host keeps of a plugin: the version that runs, and what all versions counted.

use std::{sync::Arc, time::Instant};

use crate::{
    PluginFault, PluginSpec,
    chain::Terms,
    counters::{GenerationCounters, Totals},
    instance::Instance,
    manifest::Manifest,
    module::{CheckedModule, MODULE_BYTES_MAX, inspect, read_file},
    watch::{Stamp, config_json},
};

/// A loaded version of a plugin, and how it fares.
pub(crate) struct Loaded {
    pub(crate) spec: PluginSpec,
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
    pub(crate) counter_names: Arc<[String]>,
    pub(crate) counters: Arc<GenerationCounters>,
    pub(crate) stamp: Stamp,
    /// New instances sent to each worker after it lost one.
    pub(crate) spares_sent: Vec<u64>,
    pub(crate) traps_seen: u64,
    pub(crate) traps: Vec<Instant>,
    pub(crate) disabled: bool,
}

/// Counters of a generation that some worker may still run.
pub(crate) struct LiveCounters {
    pub(crate) generation: u64,
    pub(crate) counters: Arc<GenerationCounters>,
    pub(crate) reasons: Vec<String>,
    pub(crate) guest: Arc<[String]>,
    pub(crate) workers_left: usize,
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
}

/// An instance to run and one to take over after a trap.
pub(crate) struct Instances {
    pub(crate) active: Box<Instance>,
    pub(crate) spare: Box<Instance>,
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
