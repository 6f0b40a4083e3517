//! Taps: copies of live frames for an operator who looks.
//!
//! ```text
//!  TapBoard --publish--> set of taps --one load a turn--> worker
//!                                                            | filter, copy, verdict
//!  control  <-- full [ring, one per worker and tap] <--------+
//!           --> free [records of fixed size] --------------->
//! ```
//!
//! Invariants: a worker takes a new set between turns, frees none, and neither allocates nor waits for
//! a tap: it copies into records that the control side made, and what it has no record for is counted
//! as lost. Without a tap a turn pays one load and a branch.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use crossbeam::queue::ArrayQueue;
use frame::{BATCH_MAX, Batch, Blame, DropReason, Edits, Frame, Hook, Nanos, Verdict};
use sluice_abi::edit;
use wire::InterfaceId;

use crate::{Counter, Filter};

/// Taps that may be open at a time. Each costs a run of its filter over every frame.
pub const TAPS_MAX: usize = 4;

/// The most bytes of a frame that a tap copies: a whole chunk.
pub const SNAP_BYTES_MAX: usize = frame::CHUNK_BYTES;

/// Memory of a tap's ring for one worker, in bytes, within the bounds below: what waits while the
/// control side writes it away, a few milliseconds of a busy worker.
const RING_BYTES: usize = 8 << 20;
const RING_RECORDS_MIN: usize = 512;
const RING_RECORDS_MAX: usize = 8192;

/// Which frames a tap wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapScope {
    /// What an interface (or each, for `None`) receives and sends.
    Interface(Option<InterfaceId>),
    /// What it receives alone.
    Received(Option<InterfaceId>),
    /// What is dropped.
    Drops,
    /// What the plugin of this number drops or mirrors.
    Plugin(u32),
}

/// Which way a captured frame went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TapDirection {
    /// It was received, and this is how it came.
    Received,
    /// It was sent, and this is how it left.
    Sent,
}

/// A copy of a frame, with what became of it.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The time of the turn.
    pub time: Nanos,
    /// The snapshot of the turn.
    pub epoch: u64,
    /// The interface that received or sent it.
    pub interface: InterfaceId,
    /// Which of both.
    pub direction: TapDirection,
    /// The router made it itself.
    pub originated: bool,
    /// It had been held since an earlier turn.
    pub was_held: bool,
    /// Its whole length in bytes.
    pub original_len: usize,
    /// Its first bytes.
    pub bytes: Vec<u8>,
    /// What became of it.
    pub verdict: Verdict,
    /// The plugin that dropped it, if one did.
    pub blame: Option<Blame>,
    /// The plugin that the tap is about mirrored it.
    pub mirrored: bool,
}

/// Where a worker's copies wait.
#[derive(Debug)]
struct Ring {
    free: ArrayQueue<Box<Captured>>,
    full: ArrayQueue<Box<Captured>>,
    lost: Counter,
}

/// One tap, as workers and the control side share it.
#[derive(Debug)]
pub struct Tap {
    scope: TapScope,
    filter: Option<Filter>,
    snap_bytes: usize,
    rings: Box<[Ring]>,
}

impl Tap {
    /// A tap for this many workers. It copies the first `snap_bytes` of each frame that `filter` takes.
    #[must_use]
    pub fn new(
        scope: TapScope,
        filter: Option<Filter>,
        snap_bytes: usize,
        workers: usize,
    ) -> Arc<Self> {
        let snap_bytes = snap_bytes.clamp(1, SNAP_BYTES_MAX);
        let records = (RING_BYTES / snap_bytes).clamp(RING_RECORDS_MIN, RING_RECORDS_MAX);
        let ring = || {
            let ring = Ring {
                free: ArrayQueue::new(records),
                full: ArrayQueue::new(records),
                lost: Counter::default(),
            };
            for _ in 0..records {
                let _room = ring.free.push(Box::new(Captured {
                    time: Nanos(0),
                    epoch: 0,
                    interface: InterfaceId(0),
                    direction: TapDirection::Received,
                    originated: false,
                    was_held: false,
                    original_len: 0,
                    bytes: Vec::with_capacity(snap_bytes),
                    verdict: Verdict::Continue,
                    blame: None,
                    mirrored: false,
                }));
            }
            ring
        };
        Arc::new(Self { scope, filter, snap_bytes, rings: (0..workers).map(|_| ring()).collect() })
    }

    /// Gives up to `count` captured frames of each worker to `read`, those of one worker in order.
    pub fn drain(&self, count: usize, mut read: impl FnMut(&Captured)) {
        for ring in &self.rings {
            for _ in 0..count {
                let Some(captured) = ring.full.pop() else { break };
                read(&captured);
                let _room = ring.free.push(captured);
            }
        }
    }

    /// Frames that it wanted and had no record for.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.rings.iter().map(|ring| ring.lost.get()).sum()
    }

    fn takes(&self, bytes: &[u8]) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.matches(bytes))
    }

    fn wants_received(&self, interface: InterfaceId) -> bool {
        match self.scope {
            TapScope::Interface(only) | TapScope::Received(only) => {
                only.is_none_or(|only| only == interface)
            }
            TapScope::Drops | TapScope::Plugin(_) => true,
        }
    }

    fn wants_sent(&self, interface: InterfaceId) -> bool {
        matches!(self.scope, TapScope::Interface(only) if only.is_none_or(|only| only == interface))
    }

    /// Whether a received frame with this end is to be kept.
    fn wants_end(&self, verdict: Verdict, blame: Option<Blame>, mirrored: bool) -> bool {
        match self.scope {
            TapScope::Interface(_) | TapScope::Received(_) => true,
            TapScope::Drops => matches!(verdict, Verdict::Drop(_)),
            TapScope::Plugin(plugin) => {
                let is_its_drop = matches!(
                    verdict,
                    Verdict::Drop(DropReason::Plugin | DropReason::PluginDefault)
                ) && blame.is_some_and(|blame| blame.plugin == plugin);
                mirrored || is_its_drop
            }
        }
    }

    /// Only drops are asked for, which a frame that was held may still become.
    fn is_about_drops(&self) -> bool {
        matches!(self.scope, TapScope::Drops | TapScope::Plugin(_))
    }
}

/// The place where the control side and the workers meet.
#[derive(Debug)]
struct Board {
    epoch: AtomicU64,
    current: ArcSwap<Vec<Arc<Tap>>>,
}

/// The control side's end: publishes sets of taps.
#[derive(Debug)]
pub struct TapBoard {
    board: Arc<Board>,
    retired: Vec<Arc<Vec<Arc<Tap>>>>,
}

impl Default for TapBoard {
    fn default() -> Self {
        let current = ArcSwap::from_pointee(Vec::new());
        Self { board: Arc::new(Board { epoch: AtomicU64::new(0), current }), retired: Vec::new() }
    }
}

impl TapBoard {
    /// A reading end for worker `id`.
    #[must_use]
    pub fn reader(&self, id: u16) -> TapReader {
        TapReader {
            board: Arc::clone(&self.board),
            worker: usize::from(id),
            epoch: 0,
            set: self.board.current.load_full(),
            deeds_lost: 0,
            received: Vec::with_capacity(TAPS_MAX * BATCH_MAX),
            leaving: Vec::with_capacity(TAPS_MAX * BATCH_MAX),
        }
    }

    /// Puts a set of at most [`TAPS_MAX`] taps into force; more are left out.
    pub fn publish(&mut self, mut taps: Vec<Arc<Tap>>) {
        taps.truncate(TAPS_MAX);
        self.retired.push(self.board.current.swap(Arc::new(taps)));
        // Release: a reader that sees this number also sees the set stored before it.
        self.board.epoch.fetch_add(1, Ordering::Release);
        self.collect();
    }

    /// Frees the sets that no worker uses any more.
    pub fn collect(&mut self) {
        self.retired.retain(|set| Arc::strong_count(set) > 1);
    }
}

/// A copy that waits for its frame's end: the tap's position in the set, the frame's in the batch, what
/// plugins did with it, and the record, if there was one.
#[derive(Debug)]
struct Pending {
    tap: usize,
    position: usize,
    blame: Option<Blame>,
    mirrored: bool,
    record: Option<Box<Captured>>,
}

impl Pending {
    const fn new(tap: usize, position: usize, record: Option<Box<Captured>>) -> Self {
        Self { tap, position, blame: None, mirrored: false, record }
    }
}

/// The worker's end.
#[derive(Debug)]
pub struct TapReader {
    board: Arc<Board>,
    worker: usize,
    epoch: u64,
    set: Arc<Vec<Arc<Tap>>>,
    /// Deeds of plugins that there was no room for, when that was looked at last.
    deeds_lost: u64,
    received: Vec<Pending>,
    leaving: Vec<Pending>,
}

/// When and by which tables a batch is handled.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) now: Nanos,
    pub(crate) epoch: u64,
}

impl TapReader {
    /// Takes over a new set, if there is one. Returns whether it changed.
    #[inline]
    pub(crate) fn refresh(&mut self) -> bool {
        let epoch = self.board.epoch.load(Ordering::Acquire);
        if epoch == self.epoch {
            return false;
        }
        self.epoch = epoch;
        // The board still holds the old one, so that nothing is freed here.
        self.set = self.board.current.load_full();
        true
    }

    pub(crate) fn is_on(&self) -> bool {
        !self.set.is_empty()
    }

    /// Copies what the taps may want of a batch that was received, or that waited until now.
    pub(crate) fn received(&mut self, batch: &Batch, moment: Moment, was_held: bool) {
        let Self { set, worker, received, .. } = self;
        received.clear();
        for (at, tap) in set.iter().enumerate() {
            if was_held && !tap.is_about_drops() {
                continue;
            }
            let Some(ring) = tap.rings.get(*worker) else { continue };
            for (position, frame) in batch.frames.iter().enumerate() {
                let interface = frame.ingress();
                if tap.wants_received(interface) && tap.takes(frame.bytes()) {
                    let mut record = ring.free.pop();
                    if let Some(record) = &mut record {
                        record.copy(tap, frame.bytes(), interface, TapDirection::Received, moment);
                        record.was_held = was_held;
                    }
                    received.push(Pending::new(at, position, record));
                }
            }
        }
    }

    /// Copies what is about to leave, and notes which plugins dropped what.
    pub(crate) fn leaving(
        &mut self,
        batch: &Batch,
        originated: bool,
        moment: Moment,
        hook: &impl Hook,
    ) {
        for pending in &mut self.received {
            if let Some(Verdict::Drop(DropReason::Plugin | DropReason::PluginDefault)) =
                batch.verdicts.get(pending.position)
            {
                pending.blame = hook.blame(pending.position);
            }
        }
        self.note_mirrored(&batch.edits);
        for (position, (frame, verdict)) in
            batch.frames.iter().zip(batch.verdicts.iter()).enumerate()
        {
            if let Verdict::Transmit(egress) = *verdict {
                self.copy_leaving(position, frame, egress, originated, moment);
            }
        }
    }

    /// Notes which of the frames that were received are mirrored by the plugins that taps are about.
    fn note_mirrored(&mut self, edits: &Edits) {
        let Self { set, worker, received, deeds_lost, .. } = self;
        let lost = edits.deeds_lost().wrapping_sub(*deeds_lost);
        *deeds_lost = edits.deeds_lost();
        for (at, tap) in set.iter().enumerate() {
            let TapScope::Plugin(plugin) = tap.scope else { continue };
            if lost > 0
                && let Some(ring) = tap.rings.get(*worker)
            {
                ring.lost.add(lost);
            }
            let mut mirrored = [false; BATCH_MAX];
            for deed in edits.deeds() {
                let is_mirror = deed.plugin == plugin && deed.flags & edit::MIRROR != 0;
                if let Some(place) = mirrored.get_mut(usize::from(deed.position)) {
                    *place |= is_mirror;
                }
            }
            for pending in received.iter_mut().filter(|pending| pending.tap == at) {
                pending.mirrored = mirrored.get(pending.position).copied().unwrap_or_default();
            }
        }
    }

    /// Copies one frame that is about to leave by `egress`.
    fn copy_leaving(
        &mut self,
        position: usize,
        frame: &Frame,
        egress: InterfaceId,
        originated: bool,
        moment: Moment,
    ) {
        for (at, tap) in self.set.iter().enumerate() {
            if !tap.wants_sent(egress) || !tap.takes(frame.bytes()) {
                continue;
            }
            let Some(ring) = tap.rings.get(self.worker) else { continue };
            let mut record = ring.free.pop();
            if let Some(record) = &mut record {
                record.copy(tap, frame.bytes(), egress, TapDirection::Sent, moment);
                record.originated = originated;
            }
            self.leaving.push(Pending::new(at, position, record));
        }
    }

    /// Copies one frame that leaves outside of any batch. Called while no frame of a batch waits in
    /// `leaving`; [`Self::settle_alone`] follows.
    pub(crate) fn copy_alone(&mut self, frame: &Frame, egress: InterfaceId, moment: Moment) {
        debug_assert!(self.leaving.is_empty(), "between `leaving` and `dispatched`");
        self.copy_leaving(0, frame, egress, true, moment);
    }

    /// Says whether that frame left.
    pub(crate) fn settle_alone(&mut self, has_left: bool) {
        let Self { set, worker, leaving, .. } = self;
        for Pending { tap, record, .. } in leaving.drain(..) {
            let ring = set.get(tap).and_then(|tap| tap.rings.get(*worker));
            match (ring, record) {
                (Some(ring), Some(record)) => {
                    let queue = if has_left { &ring.full } else { &ring.free };
                    let _room = queue.push(record);
                }
                (Some(ring), None) if has_left => ring.lost.add(1),
                _ => {}
            }
        }
    }

    /// Everything of the batch has met its end, which `verdicts` says.
    pub(crate) fn dispatched(&mut self, verdicts: &[Verdict]) {
        let Self { set, worker, received, leaving, .. } = self;
        for (is_received, pending) in received
            .drain(..)
            .map(|one| (true, one))
            .chain(leaving.drain(..).map(|one| (false, one)))
        {
            let Pending { tap, position, blame, mirrored, record } = pending;
            let Some(tap) = set.get(tap) else { continue };
            let Some(ring) = tap.rings.get(*worker) else { continue };
            let verdict = verdicts.get(position).copied().unwrap_or_default();
            let is_wanted = if is_received {
                tap.wants_end(verdict, blame, mirrored)
            } else {
                matches!(verdict, Verdict::Transmit(_))
            };
            match record {
                Some(mut record) if is_wanted => {
                    record.verdict = verdict;
                    record.blame = blame;
                    record.mirrored = mirrored;
                    let _room = ring.full.push(record);
                }
                Some(record) => {
                    let _room = ring.free.push(record);
                }
                None if is_wanted => ring.lost.add(1),
                None => {}
            }
        }
    }
}

impl Captured {
    fn copy(
        &mut self,
        tap: &Tap,
        bytes: &[u8],
        interface: InterfaceId,
        direction: TapDirection,
        moment: Moment,
    ) {
        self.bytes.clear();
        // Within the capacity that the record was made with.
        self.bytes.extend_from_slice(bytes.get(..tap.snap_bytes).unwrap_or(bytes));
        self.time = moment.now;
        self.epoch = moment.epoch;
        self.interface = interface;
        self.direction = direction;
        self.originated = false;
        self.was_held = false;
        self.original_len = bytes.len();
        self.verdict = Verdict::Continue;
        self.blame = None;
        self.mirrored = false;
    }
}
