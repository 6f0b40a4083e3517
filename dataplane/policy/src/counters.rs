//! Counters that one worker writes and anyone reads.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use crossbeam::utils::CachePadded;

use crate::{
    NamedCounter,
    histogram::{Distribution, Histogram},
};

/// A counter with one writer: adding is a load and a store, never a locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    #[inline]
    pub(crate) fn add(&self, count: u64) {
        self.0.store(self.get().wrapping_add(count), Ordering::Relaxed);
    }

    /// Overwrites it: for what is no sum.
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one worker counts for one generation.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    pub(crate) packets: Counter,
    pub(crate) batches: Counter,
    pub(crate) cycles: Counter,
    /// Cycles of each call.
    pub(crate) call_cycles: Histogram,
    /// Cycles a packet of each call, once for each of its packets.
    pub(crate) packet_cycles: Histogram,
    pub(crate) traps: Counter,
    pub(crate) bad_verdicts: Counter,
    /// Packets that the generation before judged, because the plugin could not.
    pub(crate) stood_in: Counter,
    /// Packets that were sent to a named next hop.
    pub(crate) transmitted: Counter,
    /// Packets that something was set on.
    pub(crate) edited: Counter,
    /// Packets that captures were to see.
    pub(crate) mirrored: Counter,
    /// Packets that met no instance able to judge them, and got what `on_trap` says.
    pub(crate) unjudged: Counter,
    /// Those of them, and of the bad verdicts, that were dropped.
    pub(crate) default_drops: Counter,
    pub(crate) flows: FlowCounters,
    pub(crate) states: StateCounters,
    pub(crate) swaps: SwapCounters,
    /// Drops by the plugin's reasons; the last is [`sluice_abi::REASON_DEFAULT`].
    pub(crate) reasons: Box<[Counter]>,
    pub(crate) guest: Box<[Counter]>,
}

/// Packets of flows, of a plugin that judges flows.
#[derive(Debug, Default)]
pub(crate) struct FlowCounters {
    /// Those that got a verdict that was kept.
    pub(crate) hits: Counter,
    /// Those that the plugin was asked about.
    pub(crate) misses: Counter,
    /// Verdicts that were forgotten before they were over, for want of room.
    pub(crate) evictions: Counter,
}

/// States that were to be taken over from the generation before.
#[derive(Debug, Default)]
pub(crate) struct StateCounters {
    pub(crate) taken: Counter,
    /// Of instances that started empty instead.
    pub(crate) lost: Counter,
}

/// Sets that brought a generation to a worker: one, as a rule, for each generation.
#[derive(Debug, Default)]
pub(crate) struct SwapCounters {
    pub(crate) count: Counter,
    /// Cycles from taking the set to going on with it, states handed over included.
    pub(crate) cycles: Counter,
}

/// What all workers count for one generation.
#[derive(Debug)]
pub(crate) struct GenerationCounters {
    pub(crate) workers: Box<[CachePadded<WorkerCounters>]>,
}

/// Sums of one worker over generations, with names instead of positions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) packets: u64,
    pub(crate) batches: u64,
    pub(crate) cycles: u64,
    pub(crate) call_cycles: Distribution,
    pub(crate) packet_cycles: Distribution,
    pub(crate) traps: u64,
    pub(crate) bad_verdicts: u64,
    pub(crate) stood_in: u64,
    pub(crate) transmitted: u64,
    pub(crate) edited: u64,
    pub(crate) mirrored: u64,
    pub(crate) unjudged: u64,
    pub(crate) default_drops: u64,
    pub(crate) flow_hits: u64,
    pub(crate) flow_misses: u64,
    pub(crate) flow_evictions: u64,
    pub(crate) states_taken: u64,
    pub(crate) states_lost: u64,
    pub(crate) swaps: u64,
    pub(crate) swap_cycles: u64,
    pub(crate) swap_cycles_max: u64,
    pub(crate) reasons: BTreeMap<String, u64>,
    pub(crate) guest: BTreeMap<String, u64>,
    pub(crate) gauges: BTreeMap<String, u64>,
}

impl WorkerCounters {
    /// A call about `n` packets took so many cycles.
    #[inline]
    pub(crate) fn took(&self, cycles: u64, n: u64) {
        self.cycles.add(cycles);
        self.call_cycles.add(cycles, 1);
        self.packet_cycles.add(cycles / n.max(1), n);
    }
}

impl GenerationCounters {
    pub(crate) fn new(workers: usize, reasons: usize, guest: usize) -> Self {
        let one = || WorkerCounters {
            reasons: (0..=reasons).map(|_| Counter::default()).collect(),
            guest: (0..guest).map(|_| Counter::default()).collect(),
            ..WorkerCounters::default()
        };
        Self { workers: (0..workers).map(|_| CachePadded::new(one())).collect() }
    }
}

impl Totals {
    /// Adds what a worker counted for a generation with these names.
    pub(crate) fn add(
        &mut self,
        counters: &WorkerCounters,
        reasons: &[String],
        guest: &[NamedCounter],
    ) {
        self.packets += counters.packets.get();
        self.batches += counters.batches.get();
        self.cycles += counters.cycles.get();
        self.call_cycles.add(&counters.call_cycles);
        self.packet_cycles.add(&counters.packet_cycles);
        self.traps += counters.traps.get();
        self.bad_verdicts += counters.bad_verdicts.get();
        self.stood_in += counters.stood_in.get();
        self.transmitted += counters.transmitted.get();
        self.edited += counters.edited.get();
        self.mirrored += counters.mirrored.get();
        self.unjudged += counters.unjudged.get();
        self.default_drops += counters.default_drops.get();
        self.flow_hits += counters.flows.hits.get();
        self.flow_misses += counters.flows.misses.get();
        self.flow_evictions += counters.flows.evictions.get();
        self.states_taken += counters.states.taken.get();
        self.states_lost += counters.states.lost.get();
        let swap_cycles = counters.swaps.cycles.get();
        self.swaps += counters.swaps.count.get();
        self.swap_cycles += swap_cycles;
        self.swap_cycles_max = self.swap_cycles_max.max(swap_cycles);
        let names = reasons.iter().map(String::as_str).chain(["default"]);
        for (name, counter) in names.zip(&counters.reasons) {
            *self.reasons.entry(name.to_owned()).or_default() += counter.get();
        }
        for (NamedCounter { name, is_gauge }, counter) in guest.iter().zip(&counters.guest) {
            // Of an array only what was counted at all is shown: it may have room for thousands.
            let count = counter.get();
            if count > 0 || !name.ends_with(']') {
                let sums = if *is_gauge { &mut self.gauges } else { &mut self.guest };
                let sum = sums.entry(name.clone()).or_default();
                *sum = sum.wrapping_add(count);
            }
        }
    }

    /// Adds another worker's sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.batches += other.batches;
        self.cycles += other.cycles;
        self.call_cycles.merge(&other.call_cycles);
        self.packet_cycles.merge(&other.packet_cycles);
        self.traps += other.traps;
        self.bad_verdicts += other.bad_verdicts;
        self.stood_in += other.stood_in;
        self.transmitted += other.transmitted;
        self.edited += other.edited;
        self.mirrored += other.mirrored;
        self.unjudged += other.unjudged;
        self.default_drops += other.default_drops;
        self.flow_hits += other.flow_hits;
        self.flow_misses += other.flow_misses;
        self.flow_evictions += other.flow_evictions;
        self.states_taken += other.states_taken;
        self.states_lost += other.states_lost;
        self.swaps += other.swaps;
        self.swap_cycles += other.swap_cycles;
        self.swap_cycles_max = self.swap_cycles_max.max(other.swap_cycles_max);
        for (name, count) in &other.reasons {
            *self.reasons.entry(name.clone()).or_default() += count;
        }
        for (name, count) in &other.guest {
            let sum = self.guest.entry(name.clone()).or_default();
            *sum = sum.wrapping_add(*count);
        }
        for (name, value) in &other.gauges {
            let sum = self.gauges.entry(name.clone()).or_default();
            *sum = sum.wrapping_add(*value);
        }
    }
}
