//! Grace periods: when no worker can still be reading what was taken out of a table.
//!
//! ```text
//!  writer    unlink X    signal = 7        7 <= 7 and 7 <= 7: X may be used again
//!                            |                  ^
//!  worker 0  [--- turn ---]  7 [--- turn ---]   |        [ ] reads tables
//!  worker 1    [------ turn ------] 7 [- turn -]          7  acknowledges between turns
//! ```
//!
//! A worker holds nothing that it read from one turn to the next. So whatever was unlinked before a
//! signal was given is out of use as soon as every worker has been between two turns since. (P. E.
//! McKenney, J. D. Slingwine, "Read-Copy Update: Using Execution History to Solve Concurrency
//! Problems", PDCS 1998; here as quiescent states.) A turn without a signal costs a load.
//!
//! Invariants: a signal is given after what it is for was unlinked; a worker that sleeps has parked
//! and reads nothing until it has looked for the signal again.

use std::fmt;
use std::sync::Mutex;

use crate::sync::{Arc, AtomicU64, Ordering, fence};

/// What a slot holds while its worker reads nothing: as if every signal had been acknowledged.
const PARKED: u64 = u64::MAX;
/// What a slot holds when its worker is gone.
const GONE: u64 = u64::MAX - 1;

/// A point in time: everything unlinked before it is out of use when every reader has passed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grace(u64);

/// The last signal that one reader acknowledged; a cache line of its own, since its worker writes it.
#[repr(align(64))]
struct Slot(AtomicU64);

/// The last signal given.
#[repr(align(64))]
struct Signal(AtomicU64);

/// The writing end.
pub(crate) struct GraceWriter {
    signal: Arc<Signal>,
    slots: Mutex<Vec<Arc<Slot>>>,
}

impl GraceWriter {
    pub(crate) fn new() -> Self {
        Self { signal: Arc::new(Signal(AtomicU64::new(0))), slots: Mutex::new(Vec::new()) }
    }

    /// A reading end. It has to be made where the writer is, and may then go to another thread.
    pub(crate) fn reader(&self) -> GraceReader {
        let seen = self.signal.0.load(Ordering::Acquire);
        let slot = Arc::new(Slot(AtomicU64::new(seen)));
        self.slots().push(Arc::clone(&slot));
        GraceReader { signal: Arc::clone(&self.signal), slot, seen }
    }

    /// Gives a signal. Whatever was unlinked before is out of use when it [`GraceWriter::has_passed`].
    pub(crate) fn begin(&mut self) -> Grace {
        let next = self.signal.0.load(Ordering::Relaxed) + 1;
        // Pairs with the fence of a reader that comes back: either the reader sees what was unlinked,
        // or the writer sees that it is back.
        fence(Ordering::SeqCst);
        // Release: a reader that sees the signal sees everything before it.
        self.signal.0.store(next, Ordering::Release);
        Grace(next)
    }

    /// Whether every reader has been between two turns since.
    pub(crate) fn has_passed(&self, grace: Grace) -> bool {
        fence(Ordering::SeqCst);
        let mut slots = self.slots();
        // Acquire: what a reader did before it acknowledged is before what the caller does next.
        slots.retain(|slot| slot.0.load(Ordering::Acquire) != GONE);
        slots.iter().all(|slot| slot.0.load(Ordering::Acquire) >= grace.0)
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl fmt::Debug for GraceWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GraceWriter").finish_non_exhaustive()
    }
}

/// The reading end of one worker.
pub(crate) struct GraceReader {
    signal: Arc<Signal>,
    slot: Arc<Slot>,
    /// What the slot holds.
    seen: u64,
}

impl GraceReader {
    /// The signal to be acknowledged, if there is one. Between turns.
    #[inline(always)]
    pub(crate) fn pending(&self) -> Option<Grace> {
        let signal = self.signal.0.load(Ordering::Acquire);
        (signal != self.seen).then_some(Grace(signal))
    }

    /// Acknowledges `signal`: nothing read before is used any more.
    pub(crate) fn acknowledge(&mut self, signal: Grace) {
        let was_parked = self.seen == PARKED;
        self.seen = signal.0;
        // Release: the turns before are before what the writer does next.
        self.slot.0.store(signal.0, Ordering::Release);
        if was_parked {
            // Pairs with those of the writer.
            fence(Ordering::SeqCst);
        }
    }

    /// Says that nothing is read until a signal is acknowledged again.
    pub(crate) fn park(&mut self) {
        self.seen = PARKED;
        self.slot.0.store(PARKED, Ordering::Release);
    }
}

impl Drop for GraceReader {
    fn drop(&mut self) {
        self.slot.0.store(GONE, Ordering::Release);
    }
}

impl fmt::Debug for GraceReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GraceReader").field("seen", &self.seen).finish_non_exhaustive()
    }
}

/// Things taken out of a table that some worker may still read.
#[derive(Debug)]
pub(crate) struct Retired<T> {
    /// Since the last signal.
    open: Vec<T>,
    /// By the signal that was given after they were unlinked, oldest first.
    waiting: std::collections::VecDeque<(Grace, Vec<T>)>,
}

impl<T> Retired<T> {
    pub(crate) const fn new() -> Self {
        Self { open: Vec::new(), waiting: std::collections::VecDeque::new() }
    }

    pub(crate) fn push(&mut self, thing: T) {
        self.open.push(thing);
    }

    /// How many have not been given back.
    pub(crate) fn len(&self) -> usize {
        self.open.len() + self.waiting.iter().map(|(_, things)| things.len()).sum::<usize>()
    }

    /// Gives back what nobody reads any more, and has a signal given for what came since the last.
    pub(crate) fn collect(&mut self, grace: &mut GraceWriter, mut give: impl FnMut(T)) {
        if !self.open.is_empty() {
            self.waiting.push_back((grace.begin(), std::mem::take(&mut self.open)));
        }
        while let Some((since, _)) = self.waiting.front()
            && grace.has_passed(*since)
        {
            let (_, things) = self.waiting.pop_front().expect("there is a front");
            things.into_iter().for_each(&mut give);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn passes_when_every_reader_has_acknowledged() {
        let mut writer = GraceWriter::new();
        let (mut one, mut two) = (writer.reader(), writer.reader());
        assert_eq!(one.pending(), None);
        let grace = writer.begin();
        assert!(!writer.has_passed(grace));
        one.acknowledge(one.pending().unwrap());
        assert!(!writer.has_passed(grace), "the other has not");
        two.acknowledge(two.pending().unwrap());
        assert!(writer.has_passed(grace));
        assert_eq!((one.pending(), two.pending()), (None, None));
    }

    #[test]
    fn who_acknowledges_late_acknowledges_all() {
        let mut writer = GraceWriter::new();
        let mut reader = writer.reader();
        let (first, second) = (writer.begin(), writer.begin());
        reader.acknowledge(reader.pending().unwrap());
        assert!(writer.has_passed(first) && writer.has_passed(second));
    }

    #[test]
    fn parked_and_gone_readers_hold_nothing_up() {
        let mut writer = GraceWriter::new();
        let (mut sleeper, leaver) = (writer.reader(), writer.reader());
        let grace = writer.begin();
        sleeper.park();
        assert!(!writer.has_passed(grace));
        drop(leaver);
        assert!(writer.has_passed(grace));
        // Back again: also without a new signal it has to say so.
        sleeper.acknowledge(sleeper.pending().expect("a reader that comes back acknowledges"));
        let grace = writer.begin();
        assert!(!writer.has_passed(grace));
    }

    #[test]
    fn a_new_reader_is_not_waited_for_by_older_signals() {
        let mut writer = GraceWriter::new();
        let grace = writer.begin();
        let _reader = writer.reader();
        assert!(writer.has_passed(grace));
        let next = writer.begin();
        assert!(!writer.has_passed(next));
    }

    #[test]
    fn retired_things_come_back_once_and_in_order() {
        let mut writer = GraceWriter::new();
        let mut reader = writer.reader();
        let mut retired = Retired::new();
        let mut back = Vec::new();
        retired.push(1);
        retired.collect(&mut writer, |thing| back.push(thing));
        retired.push(2);
        reader.acknowledge(reader.pending().unwrap());
        retired.collect(&mut writer, |thing| back.push(thing));
        assert_eq!((back.as_slice(), retired.len()), ([1].as_slice(), 1));
        reader.acknowledge(reader.pending().unwrap());
        retired.collect(&mut writer, |thing| back.push(thing));
        assert_eq!((back.as_slice(), retired.len()), ([1, 2].as_slice(), 0));
    }
}
