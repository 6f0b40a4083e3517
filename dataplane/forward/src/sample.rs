//! [`Sampler`]: what a worker remembers of the packets that it received, so that a new configuration
//! can be asked what it would do to them.
//!
//! ```text
//!  RX --> batch --one packet of each N--> [sequence|time|length, interface|N|first 224 bytes] x 4096
//!                                          the oldest is overwritten          |
//!  control side <--- whole slots: the sequence is the same before and after --+
//! ```
//!
//! Terms (RFC 5475): the selection is random *n-out-of-N* with n = 1 (section 5.2.1): packets come in
//! groups of N, and of each group one packet is taken, at a random place, whatever the sizes of batches
//! are; the first of each batch would speak for quiet moments. A sample's *weight* is its N, so that the
//! weights of a ring add up to the packets of its time.
//!
//! N is a power of two that follows the traffic: 1, every packet, as long as a bucket of tokens is more
//! than half full, and then the larger, the emptier the bucket is. So a quiet router remembers every
//! packet, and a busy one pays for some hundred copies a second, whatever its rate.
//!
//! Invariants: one writer, which neither waits nor allocates; any number of readers, which never see
//! half of a sample; no `unsafe`: slots are made of atomic words.
//!
//! Absent: what a packet met. It is asked anew, on both configurations.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use frame::{Frame, Nanos};
use wire::InterfaceId;

/// Bytes of a frame that a sample keeps. Enough for every header that decides: Ethernet, an outer IPv6
/// header with UDP, an inner one, and an ICMP error with the packet that it quotes (158 bytes), and
/// options beside; with the words in front a slot is 256 bytes, four cache lines. A descriptor would be
/// 64 and could not be asked again: it holds neither outer headers nor options nor quoted packets.
pub const SAMPLE_HEAD_BYTES: usize = 224;

/// Samples that a ring holds: 1 MiB. Fewer would know fewer flows, more would keep a plan busy for
/// longer than an operator waits.
pub const SAMPLE_RECORDS: usize = 4096;

const HEAD_WORDS: usize = SAMPLE_HEAD_BYTES / 8;

/// One token each 1/256 s: a busy worker copies about so often, some millionths of its time, and its
/// ring reaches back 16 s.
const TOKEN_NANOS: u64 = 1_000_000_000 / 256;

/// Tokens that the bucket holds. Half of them may go to every packet of a burst.
const TOKENS_MAX: u64 = 1024;

/// So many tokens less double the group.
const TOKENS_PER_DOUBLING: u64 = TOKENS_MAX / 2 / GROUP_SHIFT_MAX;

/// Largest group, as a power of two: 256 samples a second at 16 Mpps.
const GROUP_SHIFT_MAX: u64 = 16;

/// A group that is not full after so long ends with a packet of the batch at hand: the traffic has gone
/// down since it began.
const GROUP_NANOS_MAX: u64 = 100_000_000;

/// How often a reader tries a slot that is being written. It is the oldest of the ring then, and is
/// left out.
const READ_TRIES: usize = 4;

/// A packet as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The time of the turn.
    pub time: Nanos,
    /// The interface that received it.
    pub ingress: InterfaceId,
    /// Length of the frame in bytes.
    pub length: usize,
    /// Packets that it stands for, itself included.
    pub weight: u64,
    /// Its first bytes, at most [`SAMPLE_HEAD_BYTES`].
    pub head: Vec<u8>,
}

impl Sample {
    /// Whether `head` is the whole frame.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.head.len() == self.length
    }

    /// The frame in its length, with zeros for the bytes that were not kept.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        bytes.resize(self.length, 0);
        bytes
    }
}

/// One sample, as atomic words: a reader that races with the writer reads nonsense, sees by the sequence
/// that it did, and throws it away (a sequence lock).
#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    /// 0 before the first sample; odd while one is written; then even, and larger for a later one.
    sequence: AtomicU64,
    time: AtomicU64,
    /// Length in bytes, and the interface above it.
    shape: AtomicU64,
    weight: AtomicU64,
    head: [AtomicU64; HEAD_WORDS],
}

const INTERFACE_SHIFT: u32 = 32;

impl Slot {
    fn empty() -> Self {
        Self {
            sequence: AtomicU64::new(0),
            time: AtomicU64::new(0),
            shape: AtomicU64::new(0),
            weight: AtomicU64::new(0),
            head: [const { AtomicU64::new(0) }; HEAD_WORDS],
        }
    }

    fn write(&self, number: u64, frame: &Frame, weight: u64, now: Nanos) {
        let bytes = frame.bytes();
        self.sequence.store(2 * number + 1, Ordering::Relaxed);
        // Nothing of the sample may be seen before the odd number is.
        fence(Ordering::Release);
        self.time.store(now.0, Ordering::Relaxed);
        let shape = bytes.len() as u64 | u64::from(frame.ingress().0) << INTERFACE_SHIFT;
        self.shape.store(shape, Ordering::Relaxed);
        self.weight.store(weight, Ordering::Relaxed);
        let (words, rest) = bytes.as_chunks::<8>();
        let mut slots = self.head.iter();
        for (slot, word) in slots.by_ref().zip(words) {
            slot.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
        if words.len() < HEAD_WORDS
            && let Some(slot) = self.head.get(words.len())
        {
            let mut last = [0; 8];
            for (byte, rest) in last.iter_mut().zip(rest) {
                *byte = *rest;
            }
            slot.store(u64::from_le_bytes(last), Ordering::Relaxed);
        }
        self.sequence.store(2 * number + 2, Ordering::Release);
    }

    /// The sample with its sequence; `None` where there is none, or where the writer is at it.
    fn read(&self) -> Option<(u64, Sample)> {
        for _ in 0..READ_TRIES {
            let before = self.sequence.load(Ordering::Acquire);
            if before == 0 {
                return None;
            }
            if before % 2 == 1 {
                std::hint::spin_loop();
                continue;
            }
            let time = Nanos(self.time.load(Ordering::Relaxed));
            let shape = self.shape.load(Ordering::Relaxed);
            let weight = self.weight.load(Ordering::Relaxed);
            let words: [u64; HEAD_WORDS] = std::array::from_fn(|at| {
                self.head.get(at).map_or(0, |word| word.load(Ordering::Relaxed))
            });
            // The words before the second look at the sequence.
            fence(Ordering::Acquire);
            if self.sequence.load(Ordering::Relaxed) != before {
                continue;
            }
            let length = usize::try_from(shape & u64::from(u32::MAX)).ok()?;
            let ingress = InterfaceId(u8::try_from(shape >> INTERFACE_SHIFT).ok()?);
            let mut head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            head.truncate(length);
            return Some((before, Sample { time, ingress, length, weight, head }));
        }
        None
    }
}

/// The last samples of one worker, as the worker and the control side share them.
#[derive(Debug)]
pub struct SampleRing {
    slots: Box<[Slot]>,
}

impl Default for SampleRing {
    fn default() -> Self {
        Self { slots: (0..SAMPLE_RECORDS).map(|_| Slot::empty()).collect() }
    }
}

impl SampleRing {
    /// The samples that it holds, in the order in which they were taken.
    #[must_use]
    pub fn read(&self) -> Vec<Sample> {
        let mut samples: Vec<(u64, Sample)> = self.slots.iter().filter_map(Slot::read).collect();
        samples.sort_by_key(|(sequence, _)| *sequence);
        samples.into_iter().map(|(_, sample)| sample).collect()
    }
}

/// The worker's end: chooses packets and writes them down.
#[derive(Debug)]
pub struct Sampler {
    ring: Arc<SampleRing>,
    /// Samples written.
    written: u64,
    /// Packets to come before the one that is taken.
    until: u64,
    /// Size of the group that it belongs to, its place in it, and the packets behind it.
    group: u64,
    place: u64,
    rest: u64,
    /// When the group ends, full or not.
    due: u64,
    tokens: u64,
    refilled: u64,
    random: u64,
}

impl Sampler {
    /// A sampler that writes to `ring`. It must be the only one that does.
    #[must_use]
    pub fn new(ring: Arc<SampleRing>) -> Self {
        Self {
            ring,
            written: 0,
            until: 0,
            group: 1,
            place: 0,
            rest: 0,
            due: 0,
            tokens: TOKENS_MAX,
            refilled: 0,
            // Any number but 0; what is to be random is the place against the traffic's own rhythm.
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// A batch was received.
    #[inline]
    pub(crate) fn received(&mut self, frames: &[Frame], now: Nanos) {
        let count = frames.len() as u64;
        if self.until >= count && now.0 < self.due {
            self.until -= count;
            return;
        }
        self.take(frames, now);
    }

    #[cold]
    #[inline(never)]
    fn take(&mut self, frames: &[Frame], now: Nanos) {
        let earned = now.0.saturating_sub(self.refilled) / TOKEN_NANOS;
        self.refilled += earned * TOKEN_NANOS;
        self.tokens = self.tokens.saturating_add(earned).min(TOKENS_MAX);
        let is_due = now.0 >= self.due;
        let mut left = frames.iter();
        let mut has_taken = false;
        while let Some(frame) = usize::try_from(self.until).ok().and_then(|until| left.nth(until)) {
            self.keep(frame, self.group, now);
            self.begin_group(now);
            has_taken = true;
            if self.until >= left.len() as u64 {
                break;
            }
        }
        if has_taken {
            self.until -= left.len() as u64;
            return;
        }
        self.until = self.until.saturating_sub(frames.len() as u64);
        if is_due {
            let at = self.next_random() % (frames.len() as u64).max(1);
            let seen = self.place.saturating_sub(self.until).max(1);
            if let Some(frame) = usize::try_from(at).ok().and_then(|at| frames.get(at)) {
                self.keep(frame, seen, now);
            }
            self.rest = 0;
            self.begin_group(now);
        }
    }

    fn keep(&mut self, frame: &Frame, weight: u64, now: Nanos) {
        let slot = usize::try_from(self.written)
            .ok()
            .and_then(|number| self.ring.slots.get(number % SAMPLE_RECORDS));
        if let Some(slot) = slot {
            slot.write(self.written, frame, weight, now);
        }
        self.written += 1;
        self.tokens = self.tokens.saturating_sub(1);
    }

    /// The next group begins behind what is left of this one.
    fn begin_group(&mut self, now: Nanos) {
        let spent = (TOKENS_MAX / 2).saturating_sub(self.tokens);
        self.group = 1 << (spent / TOKENS_PER_DOUBLING).min(GROUP_SHIFT_MAX);
        self.place = self.next_random() & (self.group - 1);
        self.until = self.rest + self.place;
        self.rest = self.group - 1 - self.place;
        self.due = now.0.saturating_add(GROUP_NANOS_MAX);
    }

    /// Marsaglia, "Xorshift RNGs", 2003, with the multiplication of Vigna's xorshift64*.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }
}

#[cfg(test)]
mod tests;
