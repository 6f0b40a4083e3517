//! [`WorkerChain`]: the plugins of one worker, called hook by hook over whole batches.
//!
//! Invariants: the set changes in `begin_turn` only. The first plugin that drops a packet decides;
//! later ones do not see it, nor, before the packet leaves, what one of them transmits. Whatever a guest
//! answers, each open packet gets a verdict of its own, of the plugin's default, or of `on_trap`, and
//! each is counted once. Edits are only touched where a verdict asks for one.
//!
//! ```text
//!  between turns  updates  sets, spares, tables --> set  what there is of each plugin
//!                 handover state --> new instances       scrape, ticks
//!  in a batch     open  packets to be asked about --> recall  verdicts that are kept for flows
//!                   `--> call  the plugin, its candidate, who stands in --> effects  of its verdicts
//!                           `--> traps  an instance goes
//! ```

mod call;
mod effects;
mod handover;
mod open;
mod recall;
mod scrape;
mod set;
mod ticks;
mod traps;
mod updates;

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use frame::{BATCH_MAX, Batch, Blame, Hook, HookPoint, Nanos};

use crate::{
    OnTrap,
    mailbox::{Mailbox, TrapReport},
    ticker::Beat,
    trap_batch::TrapBatch,
};
use {
    call::{Answer, Context},
    open::{Open, select},
    traps::Aftermath,
};

pub(crate) use {
    set::{Place, Slot, Terms, WorkerSet},
    traps::Failure,
};

/// How often the guests' counters are copied out of their memories.
const SCRAPE_NS: u64 = 100_000_000;

/// The plugins of one worker: the policy that it runs its batches through.
pub struct WorkerChain {
    worker: usize,
    set: Box<WorkerSet>,
    active: [bool; 3],
    mailbox: Arc<Mailbox>,
    epoch: u64,
    /// The configuration that the tables are of.
    configuration: u64,
    /// A set that waits for its tables, and with it what came later.
    waiting: Option<Box<WorkerSet>>,
    traps: Arc<ArrayQueue<TrapReport>>,
    beat: Beat,
    scrape_at: Nanos,
    /// When to look for ticks that are due.
    tick_at: Nanos,
    /// Positions of the packets of a call, when some of the batch are decided already.
    open: Box<[u8; BATCH_MAX]>,
    /// Those of them whose verdict is not kept.
    misses: Box<[u8; BATCH_MAX]>,
    /// Where a batch is written down whose call traps.
    blank: Option<Box<TrapBatch>>,
    /// Somebody asks which plugin dropped what.
    is_watched: bool,
    /// The plugin that dropped each packet of the batch; only while watched.
    blames: Box<[Option<Blame>; BATCH_MAX]>,
}

const fn index(point: HookPoint) -> usize {
    match point {
        HookPoint::Ingress => 0,
        HookPoint::Forward => 1,
        HookPoint::Egress => 2,
    }
}

impl WorkerChain {
    pub(crate) fn new(
        worker: usize,
        mailbox: Arc<Mailbox>,
        traps: Arc<ArrayQueue<TrapReport>>,
        beat: Beat,
    ) -> Self {
        Self {
            worker,
            set: Box::default(),
            active: [false; 3],
            mailbox,
            epoch: 0,
            configuration: 0,
            waiting: None,
            traps,
            beat,
            scrape_at: Nanos(0),
            tick_at: Nanos(0),
            open: Box::new([0; BATCH_MAX]),
            misses: Box::new([0; BATCH_MAX]),
            blank: None,
            is_watched: false,
            blames: Box::new([None; BATCH_MAX]),
        }
    }

    /// Takes over a set that no mailbox brought: for a chain that is called aside.
    pub(crate) fn adopt(&mut self, set: Box<WorkerSet>) {
        self.install(set);
    }
}

impl Hook for WorkerChain {
    #[inline]
    fn begin_turn(&mut self, now: Nanos) {
        let epoch = self.mailbox.epoch();
        if epoch != self.epoch {
            self.take_updates(epoch);
        }
        if now >= self.scrape_at {
            self.scrape_at = now.plus(SCRAPE_NS);
            self.scrape();
        }
        if now >= self.tick_at {
            self.tick(now);
        }
    }

    fn tables_are_of(&mut self, configuration: u64) {
        self.configuration = configuration;
        if self.waiting.is_some() {
            self.take_updates(self.mailbox.epoch());
        }
    }

    #[inline]
    fn is_active(&self, point: HookPoint) -> bool {
        let [ingress, forward, egress] = self.active;
        match point {
            HookPoint::Ingress => ingress,
            HookPoint::Forward => forward,
            HookPoint::Egress => egress,
        }
    }

    fn run(&mut self, point: HookPoint, batch: &mut Batch, now: Nanos) {
        let Some(places) = self.set.hooks.get_mut(index(point)) else {
            return;
        };
        let n = batch.len();
        let Batch { frames, descriptors, verdicts, edits } = batch;
        let frames = frames.as_slice();
        let (Some(descriptors), Some(verdicts)) = (descriptors.get(..n), verdicts.get_mut(..n))
        else {
            return;
        };
        // Whether all packets are known to be open, since they were before a plugin that let them be.
        let mut are_all = false;
        for place in places {
            let has_transmits = edits.has_transmits() && point != HookPoint::Egress;
            let mut open_packets =
                Open { point, frames, descriptors, verdicts, edits, has_transmits, some: None };
            if !std::mem::take(&mut are_all) && !open_packets.are_all() {
                open_packets.some = Some(select(&open_packets, &mut self.open));
            }
            if open_packets.len() == 0 {
                return;
            }
            let Some(slot) = place.slot.as_mut() else {
                // A place that nothing was kept for: the control side never publishes one.
                open_packets.fail(OnTrap::Closed);
                continue;
            };
            let Some(counters) = slot.counters.workers.get(self.worker) else {
                continue;
            };
            let is_watched = self.is_watched;
            let context =
                Context { terms: &slot.terms, counters, beat: &self.beat, now, is_watched };
            if let Some(flows) = &slot.flows {
                let blames = self.is_watched.then_some(self.blames.as_mut_slice());
                let misses = context.recall(flows, &mut open_packets, &mut self.misses, blames);
                open_packets.some = Some(misses);
                if misses.is_empty() {
                    continue;
                }
            }
            let candidate = slot.candidate.as_deref_mut();
            let is_asked = candidate
                .is_some_and(|candidate| context.ask(candidate, self.worker, &open_packets));
            let judged = context.judge(&mut slot.instance, &mut open_packets);
            if let (Ok(Some(_)), Some(flows), Some(instance)) =
                (&judged, &mut slot.flows, &slot.instance)
            {
                context.keep(flows, instance, &open_packets);
            }
            if let Some(candidate) = &mut slot.candidate {
                match &slot.instance {
                    Some(instance) if is_asked && matches!(judged, Ok(Some(_))) => {
                        let running = (&slot.terms, &**instance);
                        let known = open_packets.edits.known;
                        candidate.compare(running, &known, open_packets.packets(), self.worker);
                    }
                    _ => {}
                }
                if let Some(error) = candidate.failed.take()
                    && let Some(counters) = candidate.counters.workers.get(self.worker)
                {
                    let mut aftermath = Aftermath {
                        worker: self.worker,
                        now,
                        traps: &self.traps,
                        mailbox: &self.mailbox,
                        blank: &mut self.blank,
                    };
                    let generation = candidate.terms.generation;
                    let instance = &mut candidate.instance;
                    aftermath.retire(generation, instance, counters, error, &open_packets);
                }
            }
            if let Ok(Some(answer)) = judged {
                are_all = answer == Answer::Continue && open_packets.some.is_none();
                if self.is_watched {
                    open_packets.note(&slot.terms, slot.instance.as_deref(), &mut *self.blames);
                }
                continue;
            }
            let by = slot.last_good.as_deref_mut();
            let stood_in = context.fall_back(by, self.worker, &mut open_packets);
            if self.is_watched {
                let judge = slot.last_good.as_ref().filter(|_| stood_in);
                let (terms, instance) =
                    judge.map_or((&slot.terms, None), |by| (&by.terms, by.instance.as_deref()));
                open_packets.note(terms, instance, &mut *self.blames);
            }
            let mut aftermath = Aftermath {
                worker: self.worker,
                now,
                traps: &self.traps,
                mailbox: &self.mailbox,
                blank: &mut self.blank,
            };
            if let Err(error) = judged {
                let generation = slot.terms.generation;
                aftermath.retire(generation, &mut slot.instance, counters, error, &open_packets);
                slot.instance = slot.spare.take();
                // The spare's tick is not known yet.
                self.tick_at = Nanos(0);
            }
            if let Some(by) = &mut slot.last_good
                && let Some(error) = by.failed.take()
                && let Some(counters) = by.counters.workers.get(self.worker)
            {
                let generation = by.terms.generation;
                aftermath.retire(generation, &mut by.instance, counters, error, &open_packets);
            }
        }
    }

    fn watch(&mut self, on: bool) {
        self.is_watched = on;
    }

    fn blame(&self, position: usize) -> Option<Blame> {
        self.blames.get(position).copied().flatten()
    }
}
