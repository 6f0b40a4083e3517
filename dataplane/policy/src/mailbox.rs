//! How sets and instances reach a worker, and come back from it, without a lock.
//!
//! ```text
//!   control --updates--> [ArrayQueue] --begin_turn--> worker
//!   control <---------- [ArrayQueue] <--retired------ worker
//! ```
//!
//! A worker looks at one number a turn. Whatever it gives up goes back through a queue, because
//! freeing a memory of a guest unmaps 4 GiB of address space. The control side counts what it handed
//! out and never hands out more than the way back has room for.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::queue::ArrayQueue;

use crate::{
    candidate::Candidate, chain::WorkerSet, instance::Instance, tables::Tables,
    trap_batch::TrapBatch,
};

/// Updates that may wait for a worker.
const UPDATES_MAX: usize = 64;
/// Sets and instances that may be out at one worker or on their way back.
const RETIRED_MAX: usize = 1024;

/// What a worker is told.
pub(crate) enum Update {
    /// The plugins to run from now on.
    Set(Box<WorkerSet>),
    /// A warm instance for the plugin of this generation.
    Spare(u64, Box<Instance>),
    /// Tables for the plugin of this generation: for its instance and for its spare.
    Tables(u64, Box<[Tables; 2]>),
    /// The plugin of this generation is not called again.
    Disable(u64),
    /// The candidate beside the plugin of this generation, or none any more.
    Candidate(u64, Option<Box<Candidate>>),
    /// Room to write down a batch whose call traps.
    Blank(Box<TrapBatch>),
}

/// What a worker gives up.
pub(crate) enum Retired {
    Set(Box<WorkerSet>),
    /// Tables that no instance reads any more.
    Tables(#[expect(dead_code, reason = "they are only freed")] Box<[Tables; 2]>),
    Instance(#[expect(dead_code, reason = "it is only freed")] Box<Instance>),
    Candidate(Box<Candidate>),
    Blank(#[expect(dead_code, reason = "it is only freed")] Box<TrapBatch>),
}

/// What a worker reports of a trap.
pub(crate) struct TrapReport {
    pub(crate) generation: u64,
    pub(crate) worker: usize,
    /// What the call ended with: it is put into words, and freed, off the worker's thread.
    pub(crate) error: Option<wasmtime::Error>,
    /// The batch, if there was room to write it down.
    pub(crate) batch: Option<Box<TrapBatch>>,
}

/// The two queues of one worker.
pub(crate) struct Mailbox {
    updates: ArrayQueue<Update>,
    retired: ArrayQueue<Retired>,
    epoch: AtomicU64,
}

impl Mailbox {
    pub(crate) fn new() -> Self {
        Self {
            updates: ArrayQueue::new(UPDATES_MAX),
            retired: ArrayQueue::new(RETIRED_MAX),
            epoch: AtomicU64::new(0),
        }
    }

    /// Whether another update fits, and with it another `handed_out` things to come back when
    /// `out` are out already.
    pub(crate) fn has_room(&self, out: usize, handed_out: usize) -> bool {
        !self.updates.is_full() && out.saturating_add(handed_out) <= RETIRED_MAX
    }

    /// How many more things could come back when `out` are out already.
    pub(crate) const fn room(out: usize) -> usize {
        RETIRED_MAX.saturating_sub(out)
    }

    /// Whether the worker has taken all updates.
    pub(crate) fn is_empty(&self) -> bool {
        self.updates.is_empty()
    }

    /// Control: puts an update in. False, and it is freed here, when there was no room.
    pub(crate) fn send(&self, update: Update) -> bool {
        let sent = self.updates.push(update).is_ok();
        self.epoch.fetch_add(1, Ordering::Release);
        sent
    }

    /// Control: takes what the worker gave up.
    pub(crate) fn take_retired(&self) -> Option<Retired> {
        self.retired.pop()
    }

    /// Worker: a number that changes with each update.
    #[inline]
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Worker: the next update.
    pub(crate) fn take_update(&self) -> Option<Update> {
        self.updates.pop()
    }

    /// Worker: gives something up. There is always room (see the module's invariant); if there were
    /// none it would be freed here, which is slow and nothing worse.
    pub(crate) fn retire(&self, retired: Retired) {
        drop(self.retired.push(retired));
    }
}
