//! Ticks of plugins that want some, one in a turn.

use frame::Nanos;

use super::{WorkerChain, traps::fail_over};

impl WorkerChain {
    /// Calls the first tick that is due, at most one in a turn, and looks when the next one is.
    #[cold]
    pub(super) fn tick(&mut self, now: Nanos) {
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
