//! State that new instances take over from those whose place they take, between two turns.

use crossbeam::queue::ArrayQueue;

use super::{Slot, WorkerSet, scrape::scrape_last};
use crate::{
    PluginHost,
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
            HandOver::Nothing => continue,
            HandOver::Taken => {
                counters.states.taken.add(1);
                continue;
            }
            HandOver::Refused => {
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
