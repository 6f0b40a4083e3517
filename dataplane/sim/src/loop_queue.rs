//! [`LoopQueue`]: a queue for benchmarks, whose sent chunks come back as new packets.
//!
//! ```text
//!   refill  --> RX  --(headers written)--> receive
//!   transmit -> TX  ---------------------> reclaim
//! ```
//!
//! Every ring operation is one on an array, so that what a benchmark measures is the router. The
//! chunk of a sent packet comes back through the pool, as with AF_XDP, and the packet that it
//! carries next is the next [`HeaderTemplate`]: an endless stream of packets on few chunks.
//!
//! A card leaves the header of a received packet in the cache. [`Rewrite`] says who pays for that
//! here: the caller of `receive`, or the caller of [`LoopQueue::prepare`] outside the measured time.
//!
//! Deliberately absent: payload. The bytes behind the header are whatever the chunk held.

use frame::{Batch, CHUNK_BYTES, Frame, HEADROOM_BYTES, Pool, QueueIo, QueueStatus};
use wire::InterfaceId;

/// The most bytes of a packet that a [`HeaderTemplate`] holds: Ethernet, IPv6, UDP, and an inner
/// IPv6 and TCP header fit.
pub const HEADER_BYTES_MAX: usize = 128;

/// A cache line. Short headers are written as one of these, so that no line is touched that a card
/// would not have touched.
const LINE_BYTES: usize = 64;

/// The start of a packet, and how long the packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderTemplate {
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: u16,
    packet_bytes: u16,
}

impl HeaderTemplate {
    /// A template with the first [`HEADER_BYTES_MAX`] bytes of `packet` and its length. `None` when
    /// the packet does not fit a chunk behind the headroom.
    #[must_use]
    pub fn new(packet: &[u8]) -> Option<Self> {
        if packet.len() > CHUNK_BYTES - HEADROOM_BYTES {
            return None;
        }
        let header_bytes = packet.len().min(HEADER_BYTES_MAX);
        let mut header = [0; HEADER_BYTES_MAX];
        header[..header_bytes].copy_from_slice(&packet[..header_bytes]);
        Some(Self {
            header,
            header_bytes: u16::try_from(header_bytes).ok()?,
            packet_bytes: u16::try_from(packet.len()).ok()?,
        })
    }

    /// Writes the packet's header into `frame` and sets its bounds. Bytes behind a packet that is
    /// shorter than a cache line or two may be overwritten too: they lie in the tailroom.
    #[inline]
    fn write(&self, frame: &mut Frame) {
        if usize::from(self.header_bytes) <= LINE_BYTES {
            if let Some(bytes) = frame.reset(LINE_BYTES) {
                bytes.copy_from_slice(&self.header[..LINE_BYTES]);
            }
        } else if let Some(bytes) = frame.reset(HEADER_BYTES_MAX) {
            bytes.copy_from_slice(&self.header);
        }
        let fits = frame.set_len(usize::from(self.packet_bytes));
        debug_assert!(fits, "the constructor checked the length");
    }
}

/// When the headers of the next packets are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// By `receive`: its cost is part of what is measured.
    OnReceive,
    /// By [`LoopQueue::prepare`], which the benchmark calls outside the measured time; `receive`
    /// gives only frames that were prepared.
    OnPrepare,
}

/// Changes a packet: its bytes, and how many packets came before it. It runs with
/// [`Rewrite::OnPrepare`] only, outside the measured time.
pub type Vary = fn(&mut [u8], u64);

/// A ring on an array: positions grow without end and wrap at the ring's size.
#[derive(Debug)]
struct Ring {
    slots: Box<[Option<Frame>]>,
    mask: usize,
    head: usize,
    tail: usize,
}

impl Ring {
    fn new(frames_max: usize) -> Self {
        let size = frames_max.next_power_of_two();
        Self { slots: (0..size).map(|_| None).collect(), mask: size - 1, head: 0, tail: 0 }
    }

    #[inline]
    fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head)
    }

    #[inline]
    fn is_full(&self) -> bool {
        self.len() > self.mask
    }

    /// The slot at a position; positions behind the tail hold what they held before.
    #[inline]
    fn slot(&mut self, position: usize) -> &mut Option<Frame> {
        &mut self.slots[position & self.mask]
    }

    #[inline]
    fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.is_full() {
            return Err(frame);
        }
        let tail = self.tail;
        *self.slot(tail) = Some(frame);
        self.tail = tail.wrapping_add(1);
        Ok(())
    }

    #[inline]
    fn pop(&mut self) -> Option<Frame> {
        if self.head == self.tail {
            return None;
        }
        let head = self.head;
        self.head = head.wrapping_add(1);
        self.slot(head).take()
    }
}

/// A queue for benchmarks. The module has the figure.
#[derive(Debug)]
pub struct LoopQueue {
    interface: InterfaceId,
    rewrite: Rewrite,
    templates: Box<[HeaderTemplate]>,
    next_template: usize,
    vary: Option<Vary>,
    packets: u64,
    rx: Ring,
    /// How many at the head of `rx` have their headers, with [`Rewrite::OnPrepare`].
    prepared: usize,
    tx: Ring,
    kicks: u64,
    transmit_pending: bool,
}

impl LoopQueue {
    /// A queue of `interface` whose RX and TX hold `ring_frames` each (rounded up to a power of
    /// two), and that receives `templates` in turn, without end. Without templates it receives
    /// nothing.
    ///
    /// The number of frames on RX is the number of chunks that take turns: below about 256 their
    /// headers stay in a second-level cache, with 4096 they do not, and a card's FILL ring has 4096.
    #[must_use]
    pub fn new(
        interface: InterfaceId,
        ring_frames: usize,
        templates: Vec<HeaderTemplate>,
        rewrite: Rewrite,
    ) -> Self {
        Self {
            interface,
            rewrite,
            templates: templates.into_boxed_slice(),
            next_template: 0,
            vary: None,
            packets: 0,
            rx: Ring::new(ring_frames),
            prepared: 0,
            tx: Ring::new(ring_frames),
            kicks: 0,
            transmit_pending: false,
        }
    }

    /// The same, but every packet is changed by `vary` after its template was written: a million flows
    /// take no memory, and what the caches hold is the router's alone.
    #[must_use]
    pub fn varied(mut self, vary: Vary) -> Self {
        self.vary = Some(vary);
        self
    }

    /// Writes the headers of all frames that wait on RX without one. Returns how many. Does nothing
    /// with [`Rewrite::OnReceive`].
    pub fn prepare(&mut self) -> usize {
        if self.rewrite == Rewrite::OnReceive || self.templates.is_empty() {
            return 0;
        }
        let before = self.prepared;
        while self.prepared < self.rx.len() {
            let position = self.rx.head.wrapping_add(self.prepared);
            let template = &self.templates[self.next_template];
            if let Some(frame) = self.rx.slots[position & self.rx.mask].as_mut() {
                template.write(frame);
                if let Some(vary) = self.vary {
                    vary(frame.bytes_mut(), self.packets);
                }
            }
            self.next_template = next(self.next_template, self.templates.len());
            self.packets += 1;
            self.prepared += 1;
        }
        self.prepared - before
    }

    /// Shows the packets on TX, oldest first, so that a benchmark can check what it measured.
    pub fn inspect_tx(&self, mut read: impl FnMut(&[u8])) {
        for offset in 0..self.tx.len() {
            let position = self.tx.head.wrapping_add(offset) & self.tx.mask;
            if let Some(frame) = &self.tx.slots[position] {
                read(frame.bytes());
            }
        }
    }
}

/// The index after `index` of `count`, round and round, without a division.
#[inline]
fn next(index: usize, count: usize) -> usize {
    if index + 1 == count { 0 } else { index + 1 }
}

impl QueueIo for LoopQueue {
    #[inline]
    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        let count = self.tx.len();
        while let Some(frame) = self.tx.pop() {
            pool.give(frame);
        }
        count
    }

    #[inline]
    fn refill(&mut self, pool: &mut Pool) -> usize {
        let before = self.rx.len();
        while !self.rx.is_full() {
            let Some(frame) = pool.take() else { break };
            if let Err(frame) = self.rx.push(frame) {
                pool.give(frame);
                break;
            }
        }
        self.rx.len() - before
    }

    #[inline]
    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool, frames_max: usize) -> usize {
        if self.templates.is_empty() {
            return 0;
        }
        let ready = match self.rewrite {
            Rewrite::OnReceive => self.rx.len(),
            Rewrite::OnPrepare => self.prepared,
        };
        let count = frames_max.min(batch.room()).min(ready);
        for _ in 0..count {
            let Some(mut frame) = self.rx.pop() else { break };
            if self.rewrite == Rewrite::OnReceive {
                self.templates[self.next_template].write(&mut frame);
                self.next_template = next(self.next_template, self.templates.len());
            }
            frame.set_ingress(self.interface);
            if let Err(frame) = batch.push(frame) {
                pool.give(frame);
            }
        }
        if self.rewrite == Rewrite::OnPrepare {
            self.prepared -= count;
        }
        count
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        self.tx.push(frame)?;
        self.transmit_pending = true;
        Ok(())
    }

    #[inline]
    fn flush(&mut self) {
        self.kicks += u64::from(self.transmit_pending);
        self.transmit_pending = false;
    }

    fn status(&self) -> QueueStatus {
        QueueStatus {
            receiving: self.rx.len(),
            transmitting: self.tx.len(),
            rx_invalid: 0,
            kicks: self.kicks,
        }
    }
}

impl Drop for LoopQueue {
    fn drop(&mut self) {
        crate::reclaim_frames(std::iter::from_fn(|| self.rx.pop().or_else(|| self.tx.pop())));
    }
}
