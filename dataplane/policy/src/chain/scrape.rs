//! Copies of the guests' counters, out of their memories.

use super::WorkerChain;
use crate::{counters::GenerationCounters, instance::Instance};

impl WorkerChain {
    /// Those of all instances that are asked about packets.
    pub(super) fn scrape(&mut self) {
        for slot in self.set.places_mut().filter_map(|place| place.slot.as_mut()) {
            if let Some(instance) = &mut slot.instance {
                scrape(instance, &slot.counters, self.worker);
            }
            if let Some(candidate) = &mut slot.candidate
                && let Some(instance) = &mut candidate.instance
            {
                scrape(instance, &candidate.counters, self.worker);
            }
        }
    }
}

fn scrape(instance: &mut Instance, counters: &GenerationCounters, worker: usize) {
    if let Some(counters) = counters.workers.get(worker) {
        instance.scrape(&counters.guest);
    }
}

/// Copies the counters of an instance that is given up.
pub(super) fn scrape_last(instance: &mut Instance, counters: &GenerationCounters, worker: usize) {
    if let Some(counters) = counters.workers.get(worker) {
        instance.scrape(&counters.guest);
        instance.clear_gauges(&counters.guest);
    }
}
