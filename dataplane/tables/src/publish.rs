//! Publication: how a new [`Snapshot`] reaches workers that never wait.
//!
//! ```text
//!  Publisher --store--> current, epoch --load once a turn--> Reader (one per worker)
//!      |
//!      +-- retired: kept until nobody else refers to it, then freed on the publisher's thread
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

use crate::Snapshot;

/// The place where a publisher and its readers meet.
#[derive(Debug)]
struct Board {
    epoch: AtomicU64,
    current: ArcSwap<Snapshot>,
}

/// The writing end, owned by one control thread.
#[derive(Debug)]
pub struct Publisher {
    board: Arc<Board>,
    retired: Vec<Arc<Snapshot>>,
}

impl Publisher {
    /// A publisher whose first publication is `snapshot`.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Self {
        let epoch = AtomicU64::new(snapshot.epoch);
        let current = ArcSwap::from_pointee(snapshot);
        Self { board: Arc::new(Board { epoch, current }), retired: Vec::new() }
    }

    /// A reading end for one worker.
    #[must_use]
    pub fn reader(&self) -> Reader {
        let snapshot = self.board.current.load_full();
        Reader { board: Arc::clone(&self.board), snapshot }
    }

    /// What is published now.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.board.current.load_full()
    }

    /// Publishes `snapshot` under the next number, which it returns, and frees those before it that
    /// no worker uses any more.
    pub fn publish(&mut self, mut snapshot: Snapshot) -> u64 {
        let epoch = self.board.epoch.load(Ordering::Relaxed) + 1;
        snapshot.epoch = epoch;
        self.retired.push(self.board.current.swap(Arc::new(snapshot)));
        // Release: a reader that sees this number also sees the snapshot stored before it.
        self.board.epoch.store(epoch, Ordering::Release);
        self.collect();
        epoch
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
    board: Arc<Board>,
    snapshot: Arc<Snapshot>,
}

impl Reader {
    /// Takes over the newest publication, if there is a newer one than that held. Called between
    /// turns; costs one load when nothing changed. Returns whether it changed.
    #[inline]
    pub fn refresh(&mut self) -> bool {
        if self.board.epoch.load(Ordering::Acquire) == self.snapshot.epoch {
            return false;
        }
        self.take();
        true
    }

    #[cold]
    fn take(&mut self) {
        // The publisher still holds the old one, so that nothing is freed here.
        self.snapshot = self.board.current.load_full();
    }

    /// The snapshot of this turn.
    #[inline]
    #[must_use]
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }
}
