//! What a worker does once a call has trapped: the instance goes, is written about and reported.

use crossbeam::queue::ArrayQueue;
use frame::Nanos;

use super::{Open, Slot, scrape::scrape_last};
use crate::{
    counters::WorkerCounters,
    instance::Instance,
    mailbox::{Mailbox, Retired, TrapReport},
    trap_batch::TrapBatch,
};

/// What went wrong in a call; `None` if the guest's memory was not where it had been.
pub(crate) type Failure = Option<wasmtime::Error>;

/// Gives up an instance that trapped; the spare takes its place.
#[cold]
pub(super) fn fail_over(
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

/// What a worker does once a call has trapped.
pub(super) struct Aftermath<'a> {
    pub(super) worker: usize,
    pub(super) now: Nanos,
    pub(super) traps: &'a ArrayQueue<TrapReport>,
    pub(super) mailbox: &'a Mailbox,
    pub(super) blank: &'a mut Option<Box<TrapBatch>>,
}

impl Aftermath<'_> {
    /// Writes the batch down, gives the instance up, and reports.
    #[cold]
    pub(super) fn retire(
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
