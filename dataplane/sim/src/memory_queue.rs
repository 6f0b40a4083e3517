//! [`MemoryQueue`]: the four rings of a queue on memory, with a test in the place of the network.
//!
//! ```text
//!              worker                                    test
//!   refill  --> FILL  -------------- a chunk ----------> push_rx  (else a counted loss)
//!   receive <-- RX    <------------- a packet ---------- push_rx
//!   transmit -> TX    -- flush ----> on the wire ------> take_tx
//!   reclaim <-- COMPLETION <-------- the chunk --------- take_tx, link down
//! ```
//!
//! It keeps the contract of AF_XDP where that can hurt a worker:
//! - a packet for which FILL has no chunk is lost, and so is one that finds RX full;
//! - what `transmit` put on TX leaves only after `flush`, the doorbell;
//! - no frame is in flight without a place on COMPLETION: `transmit` refuses before;
//! - packets start [`HEADROOM_BYTES`] into their chunk.
//!
//! Invariant: a chunk is on exactly one of FILL, RX, TX and COMPLETION, so that `receiving` and
//! `transmitting` of the status are what the worker put in less what it took out.

use std::collections::VecDeque;

use frame::{Batch, CHUNK_BYTES, Frame, Pool, QueueIo, QueueStatus};
use wire::InterfaceId;

use crate::faults::{Dice, Faults};

/// How many frames each ring of a [`MemoryQueue`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSizes {
    /// Frames on FILL at most.
    pub fill_frames_max: usize,
    /// Frames on RX at most.
    pub rx_frames_max: usize,
    /// Frames on TX at most.
    pub tx_frames_max: usize,
    /// Frames on COMPLETION at most.
    pub completion_frames_max: usize,
    /// Frames on TX and COMPLETION together at most: the queue's quota.
    pub quota_frames_max: usize,
}

impl Default for QueueSizes {
    /// The sizes of the AF_XDP sockets, with a quota that never binds before they do.
    fn default() -> Self {
        Self {
            fill_frames_max: 4096,
            rx_frames_max: 2048,
            tx_frames_max: 2048,
            completion_frames_max: 2048,
            quota_frames_max: 2048,
        }
    }
}

/// What the network's side of a queue saw: the packets that passed, and those lost before or after
/// the rings, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// Packets put on RX, those with invalid bounds included.
    pub received: u64,
    /// Packets lost because FILL had no chunk (`rx_fill_ring_empty_descs` of `XDP_STATISTICS`).
    pub fill_empty: u64,
    /// Packets lost because RX was full (`rx_ring_full`).
    pub rx_full: u64,
    /// Packets lost because they are longer than a chunk can hold behind the headroom.
    pub oversize: u64,
    /// Packets that came while the link was down.
    pub link_down: u64,
    /// Packets sent.
    pub sent: u64,
    /// Packets on TX that were given back unsent because the link went down.
    pub unsent: u64,
}

/// A chunk on RX with the bounds that its descriptor reports, which the worker has to check.
#[derive(Debug)]
struct Received {
    frame: Frame,
    start: usize,
    len: usize,
}

/// A chunk on COMPLETION, and the call of `reclaim` from which on it may be taken.
#[derive(Debug)]
struct Completed {
    frame: Frame,
    turn: u64,
}

/// The rings of one queue of one interface on memory. The module has the figure.
#[derive(Debug)]
pub struct MemoryQueue {
    interface: InterfaceId,
    sizes: QueueSizes,
    dice: Dice,
    link_up: bool,
    fill: VecDeque<Frame>,
    rx: VecDeque<Received>,
    tx: VecDeque<Frame>,
    /// How many at the end of `tx` wait for the doorbell.
    tx_unflushed: usize,
    completion: VecDeque<Completed>,
    /// Number of calls of `reclaim`.
    turn: u64,
    wire: Wire,
    rx_invalid: u64,
    kicks: u64,
}

impl MemoryQueue {
    /// A queue of `interface` with rings of the default sizes, without faults, link up.
    #[must_use]
    pub fn new(interface: InterfaceId) -> Self {
        Self::with(interface, QueueSizes::default(), Faults::default())
    }

    /// A queue of `interface`, link up.
    #[must_use]
    pub fn with(interface: InterfaceId, sizes: QueueSizes, faults: Faults) -> Self {
        Self {
            interface,
            sizes,
            dice: Dice::new(faults),
            link_up: true,
            fill: VecDeque::new(),
            rx: VecDeque::new(),
            tx: VecDeque::new(),
            tx_unflushed: 0,
            completion: VecDeque::new(),
            turn: 0,
            wire: Wire::default(),
            rx_invalid: 0,
            kicks: 0,
        }
    }

    /// The interface that this queue belongs to.
    #[must_use]
    pub fn interface(&self) -> InterfaceId {
        self.interface
    }

    /// A packet comes from the network. Returns whether it reached RX; a lost one is counted in
    /// [`Wire`].
    pub fn push_rx(&mut self, packet: &[u8]) -> bool {
        if !self.link_up {
            self.wire.link_down += 1;
            return false;
        }
        let start = self.dice.headroom_bytes();
        if packet.len() + start > CHUNK_BYTES {
            self.wire.oversize += 1;
            return false;
        }
        let Some(mut frame) = self.fill.pop_front() else {
            self.wire.fill_empty += 1;
            return false;
        };
        if self.rx.len() >= self.sizes.rx_frames_max {
            // The kernel keeps the chunk for the next packet.
            self.fill.push_front(frame);
            self.wire.rx_full += 1;
            return false;
        }
        if frame.set_bounds(start, packet.len()) {
            frame.bytes_mut().copy_from_slice(packet);
        }
        let (start, len) = if self.dice.rx_invalid() {
            self.dice.invalid_bounds()
        } else {
            (frame.start(), frame.len())
        };
        self.rx.push_back(Received { frame, start, len });
        self.wire.received += 1;
        true
    }

    /// The network takes the next packet that was flushed to TX: `read` sees its bytes, then its
    /// chunk goes to COMPLETION. `None` when there is no such packet.
    pub fn take_tx_with<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        if self.tx.len() <= self.tx_unflushed {
            return None;
        }
        let frame = self.tx.pop_front()?;
        let result = read(frame.bytes());
        self.wire.sent += 1;
        self.complete(frame);
        Some(result)
    }

    /// As [`Self::take_tx_with`], with the bytes copied.
    pub fn take_tx(&mut self) -> Option<Vec<u8>> {
        self.take_tx_with(<[u8]>::to_vec)
    }

    /// The network takes all packets that were flushed to TX, in order. Returns how many.
    pub fn drain_tx(&mut self, mut read: impl FnMut(&[u8])) -> usize {
        let mut taken = 0;
        while self.take_tx_with(&mut read).is_some() {
            taken += 1;
        }
        taken
    }

    /// The link goes up or down. Going down, it gives the frames on TX back unsent; those received
    /// before stay on RX.
    pub fn set_link(&mut self, up: bool) {
        self.link_up = up;
        if !up {
            self.tx_unflushed = 0;
            while let Some(frame) = self.tx.pop_front() {
                self.wire.unsent += 1;
                self.complete(frame);
            }
        }
    }

    /// From now on other faults, drawn from a generator of their own.
    pub fn set_faults(&mut self, faults: Faults) {
        self.dice = Dice::new(faults);
    }

    /// Whether the link is up.
    #[must_use]
    pub fn link_up(&self) -> bool {
        self.link_up
    }

    /// What the network's side saw.
    #[must_use]
    pub fn wire(&self) -> Wire {
        self.wire
    }

    fn complete(&mut self, frame: Frame) {
        let turn = self.turn + 1 + self.dice.completion_delay_turns();
        self.completion.push_back(Completed { frame, turn });
    }

    fn in_flight_frames_max(&self) -> usize {
        self.sizes.quota_frames_max.min(self.sizes.completion_frames_max)
    }
}

impl QueueIo for MemoryQueue {
    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        self.turn += 1;
        let mut count = 0;
        while self.completion.front().is_some_and(|next| next.turn <= self.turn) {
            let Some(Completed { frame, .. }) = self.completion.pop_front() else { break };
            pool.give(frame);
            count += 1;
        }
        count
    }

    fn refill(&mut self, pool: &mut Pool) -> usize {
        let mut count = 0;
        while self.fill.len() < self.sizes.fill_frames_max {
            let Some(frame) = pool.take() else { break };
            self.fill.push_back(frame);
            count += 1;
        }
        count
    }

    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool, frames_max: usize) -> usize {
        let wanted = frames_max.min(batch.room());
        let mut count = 0;
        while count < wanted {
            let Some(Received { mut frame, start, len }) = self.rx.pop_front() else { break };
            if !frame.set_bounds(start, len) {
                self.rx_invalid += 1;
                pool.give(frame);
                continue;
            }
            frame.set_ingress(self.interface);
            match batch.push(frame) {
                Ok(()) => count += 1,
                Err(frame) => {
                    self.rx.push_front(Received { frame, start, len });
                    break;
                }
            }
        }
        count
    }

    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        let in_flight = self.tx.len() + self.completion.len();
        if !self.link_up
            || self.tx.len() >= self.sizes.tx_frames_max
            || in_flight >= self.in_flight_frames_max()
            || self.dice.tx_full()
        {
            return Err(frame);
        }
        self.tx.push_back(frame);
        self.tx_unflushed += 1;
        Ok(())
    }

    fn flush(&mut self) {
        if self.tx_unflushed > 0 {
            self.tx_unflushed = 0;
            self.kicks += 1;
        }
    }

    fn status(&self) -> QueueStatus {
        QueueStatus {
            receiving: self.fill.len() + self.rx.len(),
            transmitting: self.tx.len() + self.completion.len(),
            rx_invalid: self.rx_invalid,
            kicks: self.kicks,
        }
    }
}

impl Drop for MemoryQueue {
    fn drop(&mut self) {
        crate::reclaim_frames(
            (self.fill.drain(..))
                .chain(self.rx.drain(..).map(|received| received.frame))
                .chain(self.tx.drain(..))
                .chain(self.completion.drain(..).map(|completed| completed.frame)),
        );
    }
}
