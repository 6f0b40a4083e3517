//! Publication: how a new [`Snapshot`] reaches workers that never wait, and when what was taken out of
//! a table that they share may be used again.
//!
//! ```text
//!  Publisher --store--> current, signal --load once a turn--> Reader (one per worker)
//!      |                                                         |
//!      |  <------------- acknowledged, between turns ------------+
//!      +-- retired: kept until nobody else refers to it, then freed on the publisher's thread
//! ```

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::Snapshot;
use crate::grace::{Grace, GraceReader, GraceWriter};

/// The writing end, owned by one control thread.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Snapshot>>,
    epoch: u64,
    grace: GraceWriter,
    retired: Vec<Arc<Snapshot>>,
}

impl Publisher {
    /// A publisher whose first publication is `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        let epoch = snapshot.epoch;
        let current = Arc::new(ArcSwap::from_pointee(snapshot));
        Self { current, epoch, grace: GraceWriter::new(), retired: Vec::new() }
    }

    /// A reading end for one worker. Until it is dropped or parked, grace periods wait for it.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let grace = self.grace.reader();
        let snapshot = self.current.load_full();
        Reader { current: Arc::clone(&self.current), snapshot, grace }
    }

    /// What is published now.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Publishes `snapshot` under the next number, which it returns, and frees those before it that
    /// no worker uses any more.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        self.epoch += 1;
        snapshot.epoch = self.epoch;
        self.retired.push(self.current.swap(Arc::new(snapshot)));
        self.grace.begin();
        self.collect();
        self.epoch
    }

    /// Begins a grace period: it has passed when every worker has been between two turns since, with
    /// the newest snapshot and every change of a shared table before this call in view.
    pub fn begin_grace(&mut self) -> Grace {
        self.grace.begin()
    }

    /// Whether the grace period has passed. It never waits; workers in busy turns take microseconds.
    #[must_use]
    pub fn has_passed(&self, grace: Grace) -> bool {
        self.grace.has_passed(grace)
    }

    /// For tables that are changed in place.
    pub(crate) const fn grace(&mut self) -> &mut GraceWriter {
        &mut self.grace
    }

    /// Frees retired snapshots that no worker uses any more. Returns how many are still in use.
    pub fn collect(&mut self) -> usize {
        self.retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        self.retired.len()
    }
}

/// The reading end of one worker.
#[derive(Debug)]
pub struct Reader {
    current: Arc<ArcSwap<Snapshot>>,
    snapshot: Arc<Snapshot>,
    grace: GraceReader,
}

impl Reader {
    /// Takes over the newest publication, if there is a newer one than that held, and lets go of
    /// everything that was read before. Called between turns; costs one load when nothing changed.
    /// Returns whether the snapshot changed.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        match self.grace.pending() {
            None => false,
            Some(signal) => self.pass(signal),
        }
    }

    #[cold]
    fn pass(&mut self, signal: Grace) -> bool {
        let before = self.snapshot.epoch;
        // First this, so that a reader that was parked is waited for before it looks at anything.
        self.grace.acknowledge(signal);
        // The publisher still holds the old one, so that nothing is freed here.
        self.snapshot = self.current.load_full();
        self.snapshot.epoch != before
    }

    /// Says that nothing is read before the next [`Reader::refresh`]: for a worker that goes to sleep,
    /// whom grace periods must not wait for.
    pub fn park(&mut self) {
        self.grace.park();
    }

    /// The snapshot of this turn.
    #[inline]
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}
