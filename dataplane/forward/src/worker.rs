//! [`Worker::turn`]: one pass over the rings, from RX to TX.

use std::sync::Arc;

use crossbeam::channel::Sender;
use frame::{BATCH_MAX, Batch, Hook, Nanos, Pool, QueueIo};
use tables::Reader;

use crate::bucket::Bucket;
use crate::counters::WorkerCounters;
use crate::edits;
use crate::fragments::Tracker;
use crate::handoff::Handoff;
use crate::hold::Hold;
use crate::icmp_errors::IcmpErrors;
use crate::io::Io;
use crate::lookup::Lookup;
use crate::path::Path;
use crate::pipeline::Pipeline;
use crate::punt::PuntSender;
use crate::sources::Sources;
use crate::stages::Stopwatch;
use crate::witness::Witness;
use crate::{Neighbor, PacketRecord, Sampler, TapReader};

/// Later than any time that a turn is given.
const NEVER: Nanos = Nanos(u64::MAX);

/// What a worker is made of.
#[derive(Debug)]
pub struct WorkerParts<Q, H> {
    /// Number of the worker, from 0; the home of its frames.
    pub id: u16,
    /// One queue for each interface, by [`wire::InterfaceId`].
    pub queues: Vec<Q>,
    /// All the worker's chunks.
    pub pool: Pool,
    /// Policy.
    pub hook: H,
    /// Where snapshots come from.
    pub reader: Reader,
    /// Where to count.
    pub counters: Arc<WorkerCounters>,
    /// The way to the kernel of this machine; `None` refuses what is addressed to it.
    pub punt: Option<PuntSender>,
    /// The rings between this worker and the others; `None` where there is only one.
    pub handoff: Option<Handoff>,
    /// Where to ask for a neighbor to be resolved.
    pub wanted: Sender<Neighbor>,
    /// Frames received in one turn at most, up to [`BATCH_MAX`].
    pub batch_frames: usize,
}

/// A worker: the queues with the same number of every interface, and what it takes to move frames
/// between them. It owns everything it touches; only the snapshot is shared, and immutable.
#[derive(Debug)]
pub struct Worker<Q, H> {
    reader: Reader,
    pipeline: Pipeline<Q, H>,
    /// When the turn before this one began: far ahead if none did since the start or a rest.
    began: Nanos,
}

impl<Q: QueueIo, H: Hook> Worker<Q, H> {
    /// A worker made of `parts`.
    #[must_use]
    pub fn new(parts: WorkerParts<Q, H>) -> Self {
        let hold_max = usize::from(parts.reader.snapshot().hold.frames_max).max(1024);
        let fragments = Tracker::new(&parts.reader.snapshot().fragments);
        debug_assert!(parts.handoff.as_ref().is_none_or(|handoff| handoff.id() == parts.id));
        let mut pool = parts.pool;
        pool.expect_strangers(parts.handoff.as_ref().map_or(0, Handoff::guests_max));
        let interfaces = parts.queues.len();
        let mut batch = Batch::new();
        batch.edits.known = edits::known(&parts.reader.snapshot().actions);
        let pipeline = Pipeline {
            io: Io {
                queues: parts.queues,
                pool,
                punt: parts.punt,
                handoff: parts.handoff,
                wanted: parts.wanted,
                counters: parts.counters,
                split_limit: Bucket::default(),
            },
            hook: parts.hook,
            batch,
            paths: Box::new([Path::default(); BATCH_MAX]),
            originated: Vec::with_capacity(BATCH_MAX),
            sources: Sources::new(),
            lookup: Lookup::new(),
            hold: Hold::new(hold_max),
            fragments,
            firsts: Vec::with_capacity(BATCH_MAX),
            icmp: IcmpErrors::new(interfaces),
            watch: Stopwatch::default(),
            witness: Witness::default(),
            sampler: None,
            turns: 0,
            first_queue: 0,
            batch_frames: parts.batch_frames.clamp(1, BATCH_MAX),
        };
        Self { reader: parts.reader, pipeline, began: NEVER }
    }

    /// Has the worker's frames looked at through taps.
    pub fn set_taps(&mut self, taps: TapReader) {
        self.pipeline.witness.set_taps(taps);
    }

    /// Has a sample of what the worker receives remembered.
    pub fn set_sampler(&mut self, sampler: Sampler) {
        self.pipeline.sampler = Some(sampler);
    }

    /// From now on writes down what becomes of each packet: for a worker that carries no traffic.
    pub fn record(&mut self) {
        self.pipeline.witness.record();
        self.pipeline.hook.watch(true);
    }

    /// What was written down since the last call, in the order in which packets met their ends.
    #[must_use]
    pub fn take_records(&mut self) -> Vec<PacketRecord> {
        self.pipeline.witness.take_records()
    }

    /// One turn: takes what is on the receive rings, at most a batch, and gives every frame of it
    /// its verdict, and then as many as other workers handed over. Returns how many frames came.
    #[inline]
    pub fn turn(&mut self, now: Nanos) -> usize {
        let Self { reader, pipeline, began } = self;
        pipeline.io.counters.long_turns.took(now.since(*began));
        *began = now;
        let changed = reader.refresh();
        pipeline.turn(reader.snapshot(), changed, now)
    }

    /// Publishes the levels of a worker that is about to sleep or to be looked at, and has nobody wait for
    /// it who changes tables.
    pub fn rest(&mut self) {
        self.began = NEVER;
        self.pipeline.publish_levels(self.reader.snapshot().epoch);
        self.reader.park();
    }

    /// Chunks that are in no place that the worker knows of: 0 between turns, whatever happened. Chunks
    /// that other workers have are away; theirs that are here are guests, and no part of the sum.
    #[must_use]
    pub fn frames_missing(&self) -> i64 {
        let on_rings: usize = self
            .pipeline
            .io
            .queues
            .iter()
            .map(QueueIo::status)
            .map(|status| status.receiving + status.transmitting)
            .sum();
        let away = self.pipeline.io.punt.as_ref().map_or(0, PuntSender::away);
        let (handed, guests) = self
            .pipeline
            .io
            .handoff
            .as_ref()
            .map_or((0, 0), |handoff| (handoff.away(), handoff.guests()));
        let here = self.pipeline.io.pool.free() + self.pipeline.io.pool.strangers() + on_rings;
        let waiting = self.pipeline.hold.len() + self.pipeline.fragments.frames();
        self.pipeline.io.pool.capacity() as i64 + guests as i64
            - (here + waiting + away + handed) as i64
    }

    /// Frames that are on transmit rings, on their way to the kernel, or held for a neighbor: what a
    /// worker that is to stop should wait for. Fragments that wait for their first are not among them.
    #[must_use]
    pub fn frames_leaving(&self) -> usize {
        let on_rings: usize = self
            .pipeline
            .io
            .queues
            .iter()
            .map(QueueIo::status)
            .map(|status| status.transmitting)
            .sum();
        on_rings
            + self.pipeline.io.punt.as_ref().map_or(0, PuntSender::away)
            + self.pipeline.hold.len()
    }

    /// What the worker counts.
    #[must_use]
    pub fn counters(&self) -> &Arc<WorkerCounters> {
        &self.pipeline.io.counters
    }

    /// The worker's queues, by [`wire::InterfaceId`].
    pub fn queues_mut(&mut self) -> &mut [Q] {
        &mut self.pipeline.io.queues
    }

    /// The worker's queues, by [`wire::InterfaceId`].
    #[must_use]
    pub fn queues(&self) -> &[Q] {
        &self.pipeline.io.queues
    }

    /// Takes the worker apart: its queues, and the free chunks, those that were held included. Chunks
    /// of other workers are the strangers of the pool.
    #[must_use]
    pub fn into_parts(mut self) -> (Vec<Q>, Pool) {
        while let Some(held) = self.pipeline.hold.pop() {
            self.pipeline.io.pool.give(held.frame);
        }
        while let Some(frame) = self.pipeline.fragments.pop() {
            self.pipeline.io.pool.give(frame);
        }
        (self.pipeline.io.queues, self.pipeline.io.pool)
    }
}
