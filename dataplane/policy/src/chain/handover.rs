//! State that new instances take over between two turns: from those whose place they take, and candidates
//! from those that they stand beside.

use crossbeam::queue::ArrayQueue;

use super::{Slot, WorkerSet, scrape::scrape_last, traps::fail_over};
use crate::{
    PluginHost,
    candidate::Candidate,
    candidate_start::Start,
    instance::HandOver,
    mailbox::{Mailbox, Retired, TrapReport},
    ticker::Beat,
};

/// Has each new instance of `set` take over the state of the plugin's instance in `old`.
pub(super) fn hand_over(
    set: &mut WorkerSet,
    old: &mut WorkerSet,
    (worker, beat, mailbox, traps): (usize, &Beat, &Mailbox, &ArrayQueue<TrapReport>),
) {
    for slot in set.places_mut().filter_map(|place| place.slot.as_mut()) {
        let plugin = slot.terms.plugin;
        // Slots that are kept have left the old set by now.
        let before = old.places_mut().filter_map(|place| place.slot.as_mut());
        let Some(before) = before.into_iter().find(|before| before.terms.plugin == plugin) else {
            continue;
        };
        let (Some(from), Some(to)) = (&mut before.instance, &mut slot.instance) else { continue };
        let outcome = to.take_state_of(from, beat);
        let Some(counters) = slot.counters.workers.get(worker) else { continue };
        let error = match outcome {
            HandOver::Unkept | HandOver::Nothing => continue,
            HandOver::Taken => {
                counters.states.taken.add(1);
                continue;
            }
            HandOver::OtherSchema | HandOver::TooLong | HandOver::Refused => {
                counters.states.lost.add(1);
                continue;
            }
            HandOver::ExportFailed(error) => {
                counters.states.lost.add(1);
                error
            }
            HandOver::ImportFailed(error) => {
                counters.states.lost.add(1);
                counters.traps.add(1);
                begin_empty(slot, worker, mailbox);
                error
            }
        };
        let generation = slot.terms.generation;
        // A full queue loses a line of the log; the counter has it.
        drop(traps.push(TrapReport { generation, worker, error: Some(error), batch: None }));
    }
}

/// Puts the spare, which was shown no state, in the place of an instance that trapped.
fn begin_empty(slot: &mut Slot, worker: usize, mailbox: &Mailbox) {
    if let Some(mut instance) = slot.instance.take() {
        scrape_last(&mut instance, &slot.counters, worker);
        mailbox.retire(Retired::Instance(instance));
    }
    slot.instance = slot.spare.take();
}

/// Has a candidate begin beside the plugin in `slot`: with its state, where the two agree on that, and
/// with ticks at the same times.
pub(super) fn begin_beside(
    slot: &mut Slot,
    candidate: &mut Candidate,
    (worker, beat, mailbox, traps): (usize, &Beat, &Mailbox, &ArrayQueue<TrapReport>),
) {
    let outcome = match (&mut slot.instance, &mut candidate.instance) {
        (Some(from), Some(to)) => {
            to.tick_as(from);
            Some(to.take_state_of(from, beat))
        }
        _ => None,
    };
    if let Some(counters) = candidate.compared.workers.get(worker) {
        counters.start.set(outcome.as_ref().map_or(Start::NoInstance, Start::of).number());
    }
    match outcome {
        Some(HandOver::ExportFailed(error)) => {
            if let Some(counters) = slot.counters.workers.get(worker) {
                counters.traps.add(1);
            }
            fail_over(slot, (worker, mailbox, traps), Some(error));
        }
        Some(HandOver::ImportFailed(error)) => {
            candidate.give_up((worker, mailbox, traps), error);
        }
        _ => {}
    }
}

impl Candidate {
    /// Gives its instance up after a trap outside of a batch: this worker asks it no more.
    pub(super) fn give_up(
        &mut self,
        (worker, mailbox, traps): (usize, &Mailbox, &ArrayQueue<TrapReport>),
        error: wasmtime::Error,
    ) {
        if let Some(counters) = self.counters.workers.get(worker) {
            counters.traps.add(1);
        }
        if let Some(mut instance) = self.instance.take() {
            scrape_last(&mut instance, &self.counters, worker);
            mailbox.retire(Retired::Instance(instance));
        }
        let generation = self.terms.generation;
        // A full queue loses a line of the log; the counter has the trap.
        drop(traps.push(TrapReport { generation, worker, error: Some(error), batch: None }));
    }
}

impl PluginHost {
    /// Says so where instances started empty.
    pub(crate) fn report_lost_states(&mut self) {
        for loaded in &mut self.loaded {
            let lost = loaded.counters.workers.iter().map(|worker| worker.states.lost.get()).sum();
            if lost > loaded.states_lost {
                tracing::warn!(
                    plugin = %loaded.name,
                    generation = loaded.number,
                    workers = lost - loaded.states_lost,
                    "it started empty: the state of the generation before was refused or not given"
                );
                loaded.states_lost = lost;
            }
        }
    }
}
