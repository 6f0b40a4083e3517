//! [`WorkerChain`]: the plugins of one worker, called hook by hook over whole batches.
//!
//! Invariants: the set changes in `begin_turn` only. The first plugin that drops a packet decides;
//! later ones do not see it, nor, before the packet leaves, what one of them transmits. Whatever a guest
//! answers, each open packet gets a verdict of its own, of the plugin's default, or of `on_trap`, and
//! each is counted once. Edits are only touched where a verdict asks for one.

mod handover;
mod recall;

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use frame::{
    Act, BATCH_MAX, Batch, Blame, Deed, DropReason, Edits, Frame, Hook, HookPoint, Nanos, Verdict,
    tsc,
};
use sluice_abi::{Descriptor, Edit, REASON_DEFAULT, edit};

use crate::{
    DefaultVerdict, OnTrap,
    candidate::Candidate,
    counters::{GenerationCounters, WorkerCounters},
    flow_cache::FlowCache,
    instance::{Instance, Packets, seen},
    judgement::{Allowed, Bad, CONTINUE, DROP_BY_DEFAULT, Judgement, Ruling, judge},
    last_good::LastGood,
    mailbox::{Mailbox, Retired, TrapReport, Update},
    ticker::Beat,
    trap_batch::TrapBatch,
};

/// How often the guests' counters are copied out of their memories.
const SCRAPE_NS: u64 = 100_000_000;

/// What a worker needs to know of a generation.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// Number of the plugin's name.
    pub(crate) plugin: u32,
    pub(crate) generation: u64,
    pub(crate) allowed: Allowed,
    pub(crate) default: DefaultVerdict,
    pub(crate) on_trap: OnTrap,
}

impl Terms {
    /// What verdicts are filled with before a call.
    pub(crate) const fn default_word(&self) -> u64 {
        match self.default {
            DefaultVerdict::Continue => CONTINUE,
            DefaultVerdict::Drop => DROP_BY_DEFAULT,
        }
    }
}

/// One plugin of one worker.
pub(crate) struct Slot {
    pub(crate) terms: Terms,
    pub(crate) instance: Option<Box<Instance>>,
    pub(crate) spare: Option<Box<Instance>>,
    pub(crate) counters: Arc<GenerationCounters>,
    /// The generation before, if it stands by.
    pub(crate) last_good: Option<Box<LastGood>>,
    /// Verdicts that are kept for flows, of a plugin that judges flows.
    pub(crate) flows: Option<Box<FlowCache>>,
    /// What is asked about the same packets and decides nothing.
    pub(crate) candidate: Option<Box<Candidate>>,
}

impl Slot {
    /// How many instances and candidates it has.
    pub(crate) fn instances(&self) -> usize {
        let last_good = self.last_good.as_ref().is_some_and(|by| by.instance.is_some());
        usize::from(self.instance.is_some())
            + usize::from(self.spare.is_some())
            + usize::from(last_good)
            + self.candidate.as_ref().map_or(0, |candidate| candidate.handed_out())
    }
}

/// A place in a set: a new plugin, or, until the worker takes the set, one to be kept from the old.
pub(crate) struct Place {
    pub(crate) generation: u64,
    pub(crate) slot: Option<Slot>,
}

/// The plugins of one worker, by hook and in order.
#[derive(Default)]
pub(crate) struct WorkerSet {
    pub(crate) hooks: [Vec<Place>; 3],
    /// The configuration whose tables it goes with: it is not taken over before those are.
    pub(crate) configuration: u64,
}

impl WorkerSet {
    pub(crate) fn places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.hooks.iter_mut().flatten()
    }

    fn slot_mut(&mut self, generation: u64) -> Option<&mut Slot> {
        self.places_mut().find(|place| place.generation == generation)?.slot.as_mut()
    }
}

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

    #[cold]
    fn take_updates(&mut self, epoch: u64) {
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
                Update::Candidate(generation, candidate) => {
                    let old = match self.set.slot_mut(generation) {
                        Some(slot) => std::mem::replace(&mut slot.candidate, candidate),
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

    fn install(&mut self, mut set: Box<WorkerSet>) {
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

    fn scrape(&mut self) {
        for slot in self.set.places_mut().filter_map(|place| place.slot.as_mut()) {
            if let Some(instance) = &mut slot.instance {
                scrape(instance, &slot.counters, self.worker);
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
fn scrape_last(instance: &mut Instance, counters: &GenerationCounters, worker: usize) {
    if let Some(counters) = counters.workers.get(worker) {
        instance.scrape(&counters.guest);
        instance.clear_gauges(&counters.guest);
    }
}

impl WorkerChain {
    /// Calls the first tick that is due, at most one in a turn, and looks when the next one is.
    #[cold]
    fn tick(&mut self, now: Nanos) {
        let mut next = Nanos(u64::MAX);
        let mut called = false;
        for slot in self.set.places_mut().filter_map(|place| place.slot.as_mut()) {
            let Some(instance) = &mut slot.instance else { continue };
            let Some(mut due) = instance.tick_due(now) else { continue };
            if due <= now && !called {
                called = true;
                match instance.call_tick(now, &self.beat) {
                    Ok(()) => due = instance.tick_due(now).unwrap_or(due),
                    Err(error) => {
                        if let Some(counters) = slot.counters.workers.get(self.worker) {
                            counters.traps.add(1);
                        }
                        fail_over(slot, (self.worker, &self.mailbox, &self.traps), Some(error));
                        // The spare's first tick is seen to in the next turn.
                        due = now;
                    }
                }
            }
            next = next.min(due);
        }
        self.tick_at = next;
    }
}

/// Gives up an instance that trapped; the spare takes its place.
#[cold]
fn fail_over(
    slot: &mut Slot,
    (worker, mailbox, traps): (usize, &Mailbox, &ArrayQueue<TrapReport>),
    error: Failure,
) {
    if let Some(mut instance) = slot.instance.take() {
        scrape_last(&mut instance, &slot.counters, worker);
        mailbox.retire(Retired::Instance(instance));
    }
    slot.instance = slot.spare.take();
    let generation = slot.terms.generation;
    // A full queue loses a line of the log; the counter has the trap.
    drop(traps.push(TrapReport { generation, worker, error, batch: None }));
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
        for place in places {
            // A sum, unlike a search, is compiled to vector instructions.
            let mut decided: usize =
                verdicts.iter().map(|verdict| usize::from(!point.asks_about(*verdict))).sum();
            let has_transmits = edits.has_transmits() && point != HookPoint::Egress;
            let mut open_packets =
                Open { point, frames, descriptors, verdicts, edits, has_transmits, some: None };
            if has_transmits {
                decided = (0..n).filter(|position| !open_packets.asks(*position)).count();
            }
            if decided == n {
                return;
            }
            if decided > 0 {
                open_packets.some = Some(select(&open_packets, &mut self.open));
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
            if let (Ok(true), Some(flows), Some(instance)) =
                (&judged, &mut slot.flows, &slot.instance)
            {
                context.keep(flows, instance, &open_packets);
            }
            if let Some(candidate) = &mut slot.candidate {
                match &slot.instance {
                    Some(instance) if is_asked && matches!(judged, Ok(true)) => {
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
            if matches!(judged, Ok(true)) {
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

/// Writes the positions of the packets that are asked about, of which there are at most 256.
fn select<'a>(packets: &Open<'_>, open: &'a mut [u8; BATCH_MAX]) -> &'a [u8] {
    let mut count = 0;
    for (position, index) in (0..=u8::MAX).zip(0..packets.verdicts.len()) {
        if let Some(place) = open.get_mut(count) {
            *place = position;
        }
        count += usize::from(packets.asks(index));
    }
    open.get(..count).unwrap_or_default()
}

/// The packets of a batch that are asked about.
struct Open<'a> {
    point: HookPoint,
    frames: &'a [Frame],
    descriptors: &'a [Descriptor],
    verdicts: &'a mut [Verdict],
    edits: &'a mut Edits,
    /// Some of the batch are transmitted, which ends their chains before they leave.
    has_transmits: bool,
    /// Their positions; `None` when they are all of the batch.
    some: Option<&'a [u8]>,
}

impl Open<'_> {
    fn len(&self) -> usize {
        self.some.map_or(self.descriptors.len(), <[u8]>::len)
    }

    /// Their descriptors.
    fn packets(&self) -> impl Iterator<Item = &Descriptor> {
        let all = if self.some.is_none() { self.descriptors } else { &[] };
        let some = self.some.unwrap_or_default().iter();
        all.iter().chain(Selected { descriptors: self.descriptors, some })
    }

    /// Whether the packet at a position of the batch is asked about.
    #[inline]
    fn asks(&self, position: usize) -> bool {
        self.verdicts.get(position).is_some_and(|verdict| self.point.asks_about(*verdict))
            && !(self.has_transmits && self.edits.get(position).next_hop != 0)
    }

    /// The position in the batch of the packet that is number `index` of those open.
    #[inline]
    fn position(&self, index: usize) -> Option<usize> {
        match self.some {
            None => Some(index),
            Some(some) => some.get(index).copied().map(usize::from),
        }
    }

    /// Decides all of them as `on_trap` says; returns how many were dropped.
    #[cold]
    fn fail(&mut self, on_trap: OnTrap) -> usize {
        match on_trap {
            OnTrap::Open | OnTrap::LastGood => 0,
            OnTrap::Closed => {
                // Not whatever is asked about: some may have verdicts that were kept.
                for index in 0..self.len() {
                    let position = self.position(index);
                    if let Some(verdict) = position.and_then(|at| self.verdicts.get_mut(at)) {
                        *verdict = Verdict::Drop(DropReason::PluginDefault);
                    }
                }
                self.len()
            }
        }
    }
}

impl Open<'_> {
    /// Notes for each packet that was just dropped which plugin it was, and why.
    #[cold]
    fn note(&self, terms: &Terms, instance: Option<&Instance>, blames: &mut [Option<Blame>]) {
        for index in 0..self.len() {
            let position = self.position(index).unwrap_or(usize::MAX);
            let reason = match self.verdicts.get(position) {
                Some(Verdict::Drop(DropReason::Plugin)) => instance
                    .and_then(|instance| instance.verdict_word(index))
                    .and_then(|word| u32::try_from(word >> 32).ok()),
                Some(Verdict::Drop(DropReason::PluginDefault)) => None,
                _ => continue,
            };
            let (plugin, generation) = (terms.plugin, terms.generation);
            let reason = reason.unwrap_or(REASON_DEFAULT);
            if let Some(blame) = blames.get_mut(position) {
                *blame = Some(Blame { plugin, generation, reason });
            }
        }
    }
}

/// What went wrong in a call; `None` if the guest's memory was not where it had been.
pub(crate) type Failure = Option<wasmtime::Error>;

/// What a call has besides the instance and its packets.
struct Context<'a> {
    terms: &'a Terms,
    counters: &'a WorkerCounters,
    beat: &'a Beat,
    now: Nanos,
    is_watched: bool,
}

impl Context<'_> {
    /// Has the instance judge the open packets; false if there is none. After an error the instance is to
    /// be retired, and the packets are as they were.
    #[inline]
    fn judge(
        &self,
        instance: &mut Option<Box<Instance>>,
        open: &mut Open<'_>,
    ) -> Result<bool, Failure> {
        let n = open.len() as u64;
        self.counters.packets.add(n);
        self.counters.batches.add(1);
        let Some(instance) = instance else { return Ok(false) };
        let judged = self.judge_with(instance, open);
        self.counters.traps.add(u64::from(judged.is_err()));
        judged.map(|()| true)
    }

    #[inline]
    fn judge_with(&self, instance: &mut Instance, open: &mut Open<'_>) -> Result<(), Failure> {
        self.timed_call(instance, open)?;
        self.read(instance, open).ok_or(None)
    }

    #[inline]
    fn timed_call(&self, instance: &mut Instance, open: &Open<'_>) -> Result<(), Failure> {
        let started = tsc::now();
        let called = self.call(instance, open);
        self.counters.took(tsc::now().wrapping_sub(started), open.len() as u64);
        called
    }

    /// Asks a candidate about the open packets; whether it answered.
    #[cold]
    fn ask(&self, candidate: &mut Candidate, worker: usize, open: &Open<'_>) -> bool {
        let Candidate { terms, instance: Some(instance), counters, .. } = candidate else {
            return false;
        };
        let Some(counters) = counters.workers.get(worker) else { return false };
        counters.packets.add(open.len() as u64);
        counters.batches.add(1);
        let called = (Context { terms, counters, ..*self }).timed_call(instance, open);
        if let Err(error) = called {
            counters.traps.add(1);
            candidate.failed = Some(error);
            return false;
        }
        true
    }

    /// Has the generation before judge what the plugin could not, or does what `on_trap` says. Whether
    /// the former.
    #[cold]
    fn fall_back(&self, by: Option<&mut LastGood>, worker: usize, open: &mut Open<'_>) -> bool {
        let n = open.len() as u64;
        let Some(LastGood { terms, instance, counters, failed }) = by else {
            self.go_unjudged(open);
            return false;
        };
        if let (Some(instance), Some(counters)) = (instance, counters.workers.get(worker)) {
            match (Context { terms, counters, ..*self }).judge_with(instance, open) {
                Ok(()) => {
                    self.counters.stood_in.add(n);
                    return true;
                }
                Err(error) => {
                    counters.traps.add(1);
                    *failed = Some(error);
                }
            }
        }
        self.go_unjudged(open);
        false
    }

    fn go_unjudged(&self, open: &mut Open<'_>) {
        self.counters.unjudged.add(open.len() as u64);
        self.counters.default_drops.add(open.fail(self.terms.on_trap) as u64);
    }

    #[inline]
    fn call(&self, instance: &mut Instance, open: &Open<'_>) -> Result<(), Failure> {
        let default = self.terms.default_word();
        let descriptors = open.descriptors;
        let packets = match open.some {
            None => Packets::All(descriptors),
            Some(some) => Packets::Some(Selected { descriptors, some: some.iter() }),
        };
        instance.place(packets, default).ok_or(None)?;
        if let Some(window) = instance.window() {
            let positions = (0..open.len()).filter_map(|index| open.position(index));
            let payload = positions.map(|at| match (open.frames.get(at), descriptors.get(at)) {
                (Some(frame), Some(of)) => seen(window, open.point, frame, of),
                _ => &[],
            });
            instance.place_payload(payload).ok_or(None)?;
        }
        if instance.reads_marks() {
            let marks = |index| open.position(index).map(|at| open.edits.get(at).marks());
            instance.place_marks(open.len(), marks).ok_or(None)?;
        }
        instance.call(open.len(), self.now, self.beat).map_err(Some)
    }

    /// Reads and checks the answers. `None` if they are not where they should be, which
    /// cannot happen as long as memories do not shrink.
    #[inline]
    fn read(&self, instance: &Instance, open: &mut Open<'_>) -> Option<()> {
        let n = open.len();
        if let Some(words) = instance.verdict_words(n) {
            // Most batches are let through as a whole: one pass, and nothing is written.
            if words.iter().fold(0, |all, word| all | word) == CONTINUE {
                return Some(());
            }
            for (index, word) in words.iter().enumerate() {
                let position = open.position(index)?;
                self.apply(*word, position, open, || instance.edit(index))?;
            }
        } else {
            for index in 0..n {
                let (word, position) = (instance.verdict_word(index)?, open.position(index)?);
                self.apply(word, position, open, || instance.edit(index))?;
            }
        }
        Some(())
    }

    /// Whether a verdict with this edit is none that costs the default.
    fn makes_sense(&self, word: u64, edit: Edit, open: &Open<'_>) -> bool {
        judge(word, &self.terms.allowed, &open.edits.known, || Some(edit)).is_ok()
    }

    /// Does with the packet at `position` of the batch what `word` says, with the edit that `read_edit`
    /// gives where it is wanted.
    #[inline]
    fn apply(
        &self,
        word: u64,
        position: usize,
        open: &mut Open<'_>,
        read_edit: impl FnOnce() -> Option<Edit>,
    ) -> Option<()> {
        if word == CONTINUE {
            return Some(());
        }
        match judge(word, &self.terms.allowed, &open.edits.known, read_edit) {
            Ok(judgement) => self.carry_out(&judgement, position, open),
            Err(bad) => self.void(bad, position, open),
        }
    }

    /// Does with the packet at `position` of the batch what the plugin asks for.
    #[inline]
    fn carry_out(&self, judgement: &Judgement, position: usize, open: &mut Open<'_>) -> Option<()> {
        let Judgement { ruling, flags, edit: wanted, .. } = judgement;
        if let Ruling::Drop(reason) = *ruling {
            // The plugin's own reasons come first, the default is the last.
            let last = self.counters.reasons.len().saturating_sub(1);
            self.counters.reasons.get(last.min(reason as usize))?.add(1);
            *open.verdicts.get_mut(position)? = Verdict::Drop(DropReason::Plugin);
        } else {
            self.edit(judgement, position, open);
        }
        if *flags & edit::MIRROR != 0 {
            self.counters.mirrored.add(1);
        }
        if self.is_watched {
            let act = match *ruling {
                Ruling::Continue => Act::Edit,
                Ruling::Drop(_) => Act::Drop,
                Ruling::Transmit(next_hop) => Act::Transmit(next_hop),
            };
            self.note(act, *flags, *wanted, position, open);
        }
        Some(())
    }

    #[inline(never)]
    fn edit(&self, judgement: &Judgement, position: usize, open: &mut Open<'_>) {
        let Judgement { ruling, flags, edit: wanted, .. } = judgement;
        let next_hop = match *ruling {
            Ruling::Transmit(next_hop) => next_hop,
            _ => 0,
        };
        if next_hop == 0 && *flags & !edit::MIRROR == 0 {
            return;
        }
        self.counters.transmitted.add(u64::from(next_hop != 0));
        self.counters.edited.add(u64::from(*flags & !edit::MIRROR != 0));
        open.edits.change(position, |entry| {
            entry.take(*flags, wanted);
            if next_hop != 0 {
                entry.next_hop = next_hop;
            }
        });
    }

    /// Gives the packet at `position` of the batch the plugin's default.
    #[cold]
    fn void(&self, bad: Bad, position: usize, open: &mut Open<'_>) -> Option<()> {
        self.counters.bad_verdicts.add(1);
        if self.terms.default == DefaultVerdict::Drop {
            self.counters.default_drops.add(1);
            *open.verdicts.get_mut(position)? = Verdict::Drop(DropReason::PluginDefault);
        }
        if self.is_watched {
            self.note(Act::Bad(bad.text()), 0, Edit::default(), position, open);
        }
        Some(())
    }

    /// Notes what the plugin did, for whoever looks on.
    #[cold]
    fn note(&self, act: Act, flags: u8, edit: Edit, position: usize, open: &mut Open<'_>) {
        let Ok(position) = u8::try_from(position) else { return };
        let Terms { plugin, generation, .. } = *self.terms;
        let point = open.point;
        open.edits.note(Deed { position, point, plugin, generation, act, flags, edit });
    }
}

/// What a worker does once a call has trapped.
struct Aftermath<'a> {
    worker: usize,
    now: Nanos,
    traps: &'a ArrayQueue<TrapReport>,
    mailbox: &'a Mailbox,
    blank: &'a mut Option<Box<TrapBatch>>,
}

impl Aftermath<'_> {
    /// Writes the batch down, gives the instance up, and reports.
    #[cold]
    fn retire(
        &mut self,
        generation: u64,
        instance: &mut Option<Box<Instance>>,
        counters: &WorkerCounters,
        error: Failure,
        open: &Open<'_>,
    ) {
        let mut batch = None;
        if let Some(mut instance) = instance.take() {
            batch = self.blank.take();
            if let Some(batch) = &mut batch {
                batch.record(open.packets(), &instance, self.now);
            }
            instance.scrape(&counters.guest);
            instance.clear_gauges(&counters.guest);
            self.mailbox.retire(Retired::Instance(instance));
        }
        let report = TrapReport { generation, worker: self.worker, error, batch };
        // A full queue loses a line of the log; the counter has the trap.
        if let Err(report) = self.traps.push(report) {
            *self.blank = report.batch;
        }
    }
}

/// The descriptors at some positions of a batch.
struct Selected<'a> {
    descriptors: &'a [Descriptor],
    some: std::slice::Iter<'a, u8>,
}

impl<'a> Iterator for Selected<'a> {
    type Item = &'a Descriptor;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.descriptors.get(usize::from(*self.some.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.some.size_hint()
    }
}

impl ExactSizeIterator for Selected<'_> {}
