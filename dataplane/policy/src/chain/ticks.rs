//! Ticks of plugins that want some, one in a turn.

use frame::Nanos;

use super::{Slot, WorkerChain, traps::fail_over};
use crate::{instance::Instance, ticker::Beat};

impl WorkerChain {
    /// Calls the first tick that is due, at most that of one plugin in a turn, and looks when the next one is.
    #[cold]
    pub(super) fn tick(&mut self, now: Nanos) {
        let mut next = Nanos(u64::MAX);
        let mut called = false;
        for slot in self.set.places_mut().filter_map(|place| place.slot.as_mut()) {
            let Some(mut due) = due_of(slot, now) else { continue };
            if due <= now && !called {
                called = true;
                let with = (self.worker, &*self.mailbox, &*self.traps);
                let mut has_failed = false;
                if let Err(error) = tick_if_due(slot.instance.as_deref_mut(), now, &self.beat) {
                    if let Some(counters) = slot.counters.workers.get(self.worker) {
                        counters.traps.add(1);
                    }
                    fail_over(slot, with, Some(error));
                    has_failed = true;
                }
                // A candidate's comes in the same turn, so that it is no batch behind.
                if let Some(candidate) = &mut slot.candidate
                    && let Err(error) =
                        tick_if_due(candidate.instance.as_deref_mut(), now, &self.beat)
                {
                    candidate.give_up(with, error);
                }
                // The first tick of a spare is seen to in the next turn.
                let next = if has_failed { Some(now) } else { due_of(slot, now) };
                due = next.unwrap_or(Nanos(u64::MAX));
            }
            next = next.min(due);
        }
        self.tick_at = next;
    }
}

/// When the plugin's next tick is due, or its candidate's if that is earlier.
fn due_of(slot: &mut Slot, now: Nanos) -> Option<Nanos> {
    let candidate = slot.candidate.as_mut().and_then(|candidate| candidate.instance.as_mut());
    let instances = slot.instance.iter_mut().chain(candidate);
    instances.filter_map(|instance| instance.tick_due(now)).min()
}

fn tick_if_due(
    instance: Option<&mut Instance>,
    now: Nanos,
    beat: &Beat,
) -> Result<(), wasmtime::Error> {
    let Some(instance) = instance else { return Ok(()) };
    if instance.tick_due(now).is_none_or(|due| due > now) {
        return Ok(());
    }
    instance.call_tick(now, beat)
}
