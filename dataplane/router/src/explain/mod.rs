//! What becomes of one packet, and why: the workers' own turn, run aside.
//!
//! ```text
//!  frame --> MemoryQueue --> Worker that records, on the tables in force --> PacketRecord
//!                              |                                                |
//!                        plugins in instances of their own          names of tables and entries
//!                                                                               v
//!                                                          Explanation --> JSON, or text for people
//! ```
//!
//! Nothing is sent, counted or held where it shows: rings, chunks, counters and instances are thrown
//! away afterwards. What the other packets of a moment decide is not seen: a full ring, a used-up rate,
//! frames that wait already.

mod deeds;
mod entries;
pub(crate) mod packet_text;
mod report;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use config::Checked;
use control::publication::Publication;
use crossbeam::channel::{Receiver, bounded};
use forward::{
    Neighbor, PacketRecord, PuntReceiver, Worker, WorkerCounters, WorkerParts, punt_channel,
};
use frame::{Hook, Nanos};
use policy::{AsideTraps, ListedPlugin};
use sim::{Faults, MemoryQueue, QueueSizes, memory_pool, reclaim_pool};
use tables::{Reader, Snapshot};
use wire::{InterfaceId, MacAddress};

pub(crate) use deeds::deed_words;
pub(crate) use entries::{describe, interface_name, ip, owner_words, peer_words};
pub(crate) use report::{Explanation, VerdictReport, verdict_report};
pub(crate) use text::render;

/// Chunks of a worker that is made aside, for each interface: one packet, what is said about it, and
/// room to spare.
const FRAMES: usize = 16;

/// Chunks on each of its FILL rings, so that the first cannot take all of them.
const FILL_FRAMES: usize = 4;

/// What an explanation takes its names from.
#[derive(Clone, Copy)]
pub(crate) struct Names<'a> {
    pub(crate) config: &'a Checked,
    pub(crate) publication: &'a Publication,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) plugins: &'a [ListedPlugin],
}

/// A worker made aside, which carries no traffic and writes down what becomes of each frame.
pub(crate) struct Aside<H: Hook> {
    worker: Worker<MemoryQueue, H>,
    kernel: PuntReceiver,
    _wanted: Receiver<Neighbor>,
}

impl<H: Hook> Aside<H> {
    /// A worker on the tables of `reader`, with the policy of `hook`.
    pub(crate) fn new(reader: Reader, hook: H, now: Nanos) -> Self {
        let interfaces = reader.snapshot().interfaces.len();
        let sizes = QueueSizes { fill_frames_max: FILL_FRAMES, ..QueueSizes::default() };
        let (want, wanted) = bounded(4);
        let (punt, kernel) = punt_channel(4, || {});
        let mut worker = Worker::new(WorkerParts {
            id: 0,
            queues: (0_u8..)
                .take(interfaces)
                .map(|at| MemoryQueue::with(InterfaceId(at), sizes, Faults::default()))
                .collect(),
            pool: memory_pool(FRAMES * interfaces, 0),
            hook,
            reader,
            counters: Arc::new(WorkerCounters::new(interfaces)),
            punt: Some(punt),
            handoff: None,
            wanted: want,
            batch_frames: 1,
        });
        worker.record();
        // The first turn puts chunks on the FILL rings.
        worker.turn(now);
        Self { worker, kernel, _wanted: wanted }
    }

    /// Runs one frame through, and returns what was written down about it.
    pub(crate) fn ask(
        &mut self,
        ingress: InterfaceId,
        frame: &[u8],
        now: Nanos,
    ) -> Result<PacketRecord> {
        let queue =
            self.worker.queues_mut().get_mut(ingress.index()).context("no such interface")?;
        ensure!(
            queue.push_rx(frame),
            "the frame is longer than a chunk holds: {} bytes",
            frame.len()
        );
        self.worker.turn(now);
        // What was held before may meet its end in this turn too.
        let records = self.worker.take_records();
        let record = records.into_iter().rev().find(|record| !record.was_held);
        while let Some(frame) = self.kernel.receive() {
            self.kernel.give_back(frame);
        }
        for queue in self.worker.queues_mut() {
            queue.drain_tx(|_| {});
        }
        self.worker.turn(now);
        record.context("the worker wrote nothing down")
    }

    /// Takes the worker apart, so that its chunks are freed.
    pub(crate) fn end(self) {
        let (queues, pool) = self.worker.into_parts();
        drop(queues);
        reclaim_pool(pool);
    }
}

/// Runs one frame through a worker made aside, and returns what it wrote down.
pub(crate) fn ask(
    reader: Reader,
    hook: impl Hook,
    ingress: InterfaceId,
    frame: &[u8],
    now: Nanos,
) -> Result<PacketRecord> {
    let mut aside = Aside::new(reader, hook, now);
    let record = aside.ask(ingress, frame, now);
    aside.end();
    record
}

/// What went wrong in plugins' calls, by generation.
pub(crate) fn traps(traps: &AsideTraps) -> Vec<(u64, String)> {
    std::iter::from_fn(|| traps.take()).collect()
}

/// Takes a unicast frame as sent to the interface that receives it.
pub(crate) fn address_to(frame: &mut [u8], mac: MacAddress) {
    if let Some(destination) = frame.first_chunk_mut::<6>()
        && !MacAddress(*destination).is_multicast()
    {
        *destination = mac.0;
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hexadecimal digits as bytes; white space and colons between them are passed over.
pub(crate) fn from_hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|letter| !letter.is_whitespace() && *letter != ':')
        .map(|letter| {
            let digit = letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            digit.with_context(|| format!("{letter:?} is no hexadecimal digit"))
        })
        .collect::<Result<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    ensure!(rest.is_empty(), "an odd number of hexadecimal digits");
    Ok(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}
