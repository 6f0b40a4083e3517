//! What a worker takes over between two turns: sets, spares, candidates, tables, and what is to go.

use frame::{Nanos, tsc};

use super::{WorkerChain, WorkerSet, handover, scrape::scrape_last};
use crate::mailbox::{Retired, Update};

impl WorkerChain {
    #[cold]
    pub(super) fn take_updates(&mut self, epoch: u64) {
        self.epoch = epoch;
        self.tick_at = Nanos(0);
        // What wasmtime sets up for a thread at its first call (a stack for signals) is set up here.
        wasmtime::Engine::tls_eager_initialize();
        if let Some(set) = self.waiting.take_if(|set| set.configuration <= self.configuration) {
            self.install(set);
        }
        // What came later may be about plugins of the set that waits.
        while self.waiting.is_none()
            && let Some(update) = self.mailbox.take_update()
        {
            match update {
                Update::Set(set) if set.configuration > self.configuration => {
                    self.waiting = Some(set);
                }
                Update::Set(set) => self.install(set),
                Update::Spare(generation, instance) => {
                    let place = self.set.slot_mut(generation).map(|slot| {
                        if slot.instance.is_none() { &mut slot.instance } else { &mut slot.spare }
                    });
                    let back = match place {
                        Some(place) => place.replace(instance),
                        None => Some(instance),
                    };
                    if let Some(instance) = back {
                        self.mailbox.retire(Retired::Instance(instance));
                    }
                }
                Update::Candidate(generation, mut candidate) => {
                    let old = match self.set.slot_mut(generation) {
                        Some(slot) => {
                            if let Some(candidate) = &mut candidate {
                                let with = (self.worker, &self.beat, &*self.mailbox, &*self.traps);
                                handover::begin_beside(slot, candidate, with);
                            }
                            std::mem::replace(&mut slot.candidate, candidate)
                        }
                        None => candidate,
                    };
                    if let Some(old) = old {
                        self.mailbox.retire(Retired::Candidate(old));
                    }
                }
                Update::Blank(blank) => {
                    if let Some(old) = self.blank.replace(blank) {
                        self.mailbox.retire(Retired::Blank(old));
                    }
                }
                Update::Tables(generation, mut tables) => {
                    if let Some(slot) = self.set.slot_mut(generation) {
                        // What they said may have been otherwise.
                        if let Some(flows) = &mut slot.flows {
                            flows.clear();
                        }
                        let instances = [&mut slot.instance, &mut slot.spare];
                        for (instance, tables) in instances.into_iter().zip(&mut *tables) {
                            if let Some(instance) = instance {
                                instance.swap_tables(tables);
                            }
                        }
                    }
                    self.mailbox.retire(Retired::Tables(tables));
                }
                Update::Disable(generation) => {
                    if let Some(slot) = self.set.slot_mut(generation) {
                        let instances = [slot.instance.take(), slot.spare.take()];
                        for mut instance in instances.into_iter().flatten() {
                            scrape_last(&mut instance, &slot.counters, self.worker);
                            self.mailbox.retire(Retired::Instance(instance));
                        }
                    }
                }
            }
        }
    }

    pub(super) fn install(&mut self, mut set: Box<WorkerSet>) {
        let started = tsc::now();
        for place in set.places_mut().filter(|place| place.slot.is_none()) {
            let kept = self.set.places_mut().find(|old| old.generation == place.generation);
            place.slot = kept.and_then(|kept| kept.slot.take());
        }
        // A new configuration may mean other routes, names and slices.
        for slot in set.places_mut().filter_map(|place| place.slot.as_mut()) {
            if let Some(flows) = &mut slot.flows {
                flows.clear();
            }
        }
        let with = (self.worker, &self.beat, &*self.mailbox, &*self.traps);
        handover::hand_over(&mut set, &mut self.set, with);
        // What is left of the old set is given up.
        for slot in self.set.places_mut().filter_map(|place| place.slot.as_mut()) {
            if let Some(instance) = &mut slot.instance {
                scrape_last(instance, &slot.counters, self.worker);
            }
        }
        self.active = [0, 1, 2].map(|hook| set.hooks.get(hook).is_some_and(|at| !at.is_empty()));
        let old = std::mem::replace(&mut self.set, set);
        self.mailbox.retire(Retired::Set(old));
        let took = tsc::now().wrapping_sub(started);
        for slot in self.set.places_mut().filter_map(|place| place.slot.as_mut()) {
            // Those that were kept have been counted when they came.
            if let Some(counters) = slot.counters.workers.get(self.worker)
                && counters.swaps.count.get() == 0
            {
                counters.swaps.count.add(1);
                counters.swaps.cycles.set(took);
            }
        }
    }
}
