//! [`Tracker`]: the packets whose fragments are followed, and the fragments that wait.
//!
//! ```text
//!               first fragment            later, first known      later, first not known
//!  admit   -->  Pass                      Pass                    Wait --> held --+
//!                 +--- those held go to ready, in order of arrival <--------------+
//! ```
//!
//! A packet is followed from the first of its fragments that comes until all of it came, its time is up,
//! or it is the oldest and another one needs its place. Once fragments overlap, nothing more of the
//! packet passes until its time is up (RFC 5722 section 4: "[...] the entire datagram (and any
//! constituent fragments, including those not yet received) MUST be silently discarded").
//!
//! Invariants: all memory is taken at start, and a configuration can use less of it but not more. Fragments
//! of a packet leave in order of arrival behind the first one: those that come behind one that waits in
//! the same batch wait too.
//!
//! Deliberately absent: comparing the bytes of a duplicate. It is dropped, so that the owner gets each
//! part of a packet once at most.

use std::collections::{HashMap, VecDeque};

use frame::{BATCH_MAX, DropReason, Frame, Nanos};
use tables::FragmentLimits;

use super::header::{Key, Piece};
use super::ranges::{Ranges, Refused};

/// Places for packets and frames at the least, so that a configuration with less can be changed for one
/// with the defaults without a restart.
const PACKETS_MIN: usize = 4096;
const FRAMES_MIN: usize = 512;

/// What a first fragment says that the later ones do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) protocol: u8,
    pub(crate) hash: u32,
    /// Source and destination port by which both ends find their slice.
    pub(crate) ports: Option<(u16, u16)>,
}

/// What becomes of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Goes on.
    Pass(First),
    /// Is to be given to [`Tracker::keep`].
    Wait,
    /// Is dropped.
    Drop(DropReason),
}

/// A packet that is followed.
#[derive(Debug)]
struct Packet {
    key: Option<Key>,
    /// How often this place was used: tells an old record of its age from the present one.
    generation: u32,
    deadline: Nanos,
    first: Option<First>,
    is_poisoned: bool,
    ranges: Ranges,
    frames_held: u16,
    /// The last batch in which a fragment of it began to wait or to be released.
    waited_in: u64,
}

/// A fragment that waits for its first.
#[derive(Debug)]
struct Held {
    place: u32,
    frame: Frame,
}

/// The packets whose fragments are followed, and the fragments that wait. The module has the figure.
#[derive(Debug)]
pub(crate) struct Tracker {
    packets: Vec<Packet>,
    free: Vec<u32>,
    by_key: HashMap<Key, u32>,
    /// Place and generation, oldest first. Those of packets that are done with are passed over.
    ages: VecDeque<(u32, u32)>,
    held: Vec<Held>,
    held_bytes: usize,
    ready: VecDeque<(Frame, First)>,
    doomed: Vec<(Frame, DropReason)>,
    complete: Vec<u32>,
    batch: u64,
    next_deadline: Nanos,
}

impl Tracker {
    pub(crate) fn new(limits: &FragmentLimits) -> Self {
        let packets_max = usize::from(limits.packets_max).max(PACKETS_MIN);
        let frames_max = usize::from(limits.frames_max).max(FRAMES_MIN);
        let place = |_| Packet {
            key: None,
            generation: 0,
            deadline: Nanos(0),
            first: None,
            is_poisoned: false,
            ranges: Ranges::new(),
            frames_held: 0,
            waited_in: 0,
        };
        let packets: Vec<Packet> = (0..packets_max).map(place).collect();
        Self {
            free: (0_u32..).take(packets_max).collect(),
            packets,
            // Twice as many as ever stand in it: a table that is half empty clears removed entries away
            // in place and never grows.
            by_key: HashMap::with_capacity(packets_max * 2),
            ages: VecDeque::with_capacity(packets_max * 2),
            held: Vec::with_capacity(frames_max),
            held_bytes: 0,
            ready: VecDeque::with_capacity(frames_max + BATCH_MAX),
            doomed: Vec::with_capacity(frames_max + BATCH_MAX),
            complete: Vec::with_capacity(BATCH_MAX),
            batch: 0,
            next_deadline: Nanos(u64::MAX),
        }
    }

    /// Judges a fragment; `first` is what it says if it is a first one.
    pub(crate) fn admit(
        &mut self,
        piece: &Piece,
        first: Option<First>,
        limits: &FragmentLimits,
        now: Nanos,
    ) -> Admission {
        if limits.packets_max == 0 {
            return match first {
                Some(first) => Admission::Pass(first),
                None => Admission::Drop(DropReason::SliceFragment),
            };
        }
        let known = self.by_key.get(&piece.key).copied();
        let Some(place) = known.or_else(|| self.follow(piece.key, limits, now)) else {
            return Admission::Drop(DropReason::FragmentFull);
        };
        let batch = self.batch;
        let Some(packet) = self.packets.get_mut(place as usize) else {
            return Admission::Drop(DropReason::FragmentFull);
        };
        if packet.is_poisoned {
            return Admission::Drop(DropReason::FragmentOverlap);
        }
        match packet.ranges.insert(piece.start, piece.end, piece.more) {
            Ok(()) => {}
            Err(Refused::Duplicate) => return Admission::Drop(DropReason::FragmentDuplicate),
            Err(Refused::TooMany) => return Admission::Drop(DropReason::FragmentFull),
            Err(Refused::Overlap) => {
                packet.is_poisoned = true;
                self.doom(place, DropReason::FragmentOverlap);
                return Admission::Drop(DropReason::FragmentOverlap);
            }
        }
        let is_complete = packet.ranges.is_complete();
        let admission = match (first, packet.first) {
            (Some(first), _) => {
                packet.first = Some(first);
                if packet.frames_held > 0 {
                    packet.waited_in = batch;
                    self.release(place, first);
                }
                Admission::Pass(first)
            }
            (None, Some(first)) if packet.waited_in != batch => Admission::Pass(first),
            (None, _) => {
                packet.waited_in = batch;
                Admission::Wait
            }
        };
        if is_complete {
            self.completed(place);
        }
        admission
    }

    /// Takes a fragment that has to wait.
    ///
    /// # Errors
    /// Gives it back, with the reason, when it cannot.
    pub(crate) fn keep(
        &mut self,
        frame: Frame,
        key: &Key,
        limits: &FragmentLimits,
    ) -> Result<(), (Frame, DropReason)> {
        let place = self.by_key.get(key).copied();
        let packet = place.and_then(|place| self.packets.get_mut(place as usize));
        let (Some(place), Some(packet)) = (place, packet) else {
            return Err((frame, DropReason::FragmentFull));
        };
        if packet.is_poisoned {
            return Err((frame, DropReason::FragmentOverlap));
        }
        if let Some(first) = packet.first {
            self.ready.push_back((frame, first));
            return Ok(());
        }
        let frames_max = usize::from(limits.frames_max).min(self.held.capacity());
        let bytes = self.held_bytes + frame.len();
        if self.held.len() >= frames_max || bytes > limits.bytes_max as usize {
            return Err((frame, DropReason::FragmentFull));
        }
        self.held_bytes = bytes;
        packet.frames_held += 1;
        self.held.push(Held { place, frame });
        Ok(())
    }

    /// Ends a batch: packets that came whole are no longer followed.
    pub(crate) fn end_batch(&mut self) {
        self.batch += 1;
        while let Some(place) = self.complete.pop() {
            let is_complete = |packet: &Packet| packet.ranges.is_complete() && !packet.is_poisoned;
            if self.packets.get(place as usize).is_some_and(is_complete) {
                self.forget(place, DropReason::FragmentOverlap);
            }
        }
    }

    /// The next fragment that waits no longer, with what its first one said.
    pub(crate) fn take_ready(&mut self) -> Option<(Frame, First)> {
        self.ready.pop_front()
    }

    /// The next fragment that waited in vain, and why.
    pub(crate) fn take_doomed(&mut self) -> Option<(Frame, DropReason)> {
        self.doomed.pop()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a packet's time is up.
    #[inline]
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now >= self.next_deadline
    }

    /// Forgets the packets whose time is up.
    pub(crate) fn expire(&mut self, now: Nanos) {
        while let Some(place) = self.oldest() {
            let deadline = self.packets.get(place as usize).map(|packet| packet.deadline);
            match deadline {
                Some(deadline) if deadline > now => {
                    self.next_deadline = deadline;
                    return;
                }
                _ => self.forget(place, DropReason::FragmentTimeout),
            }
        }
        self.next_deadline = Nanos(u64::MAX);
    }

    /// Frames that wait.
    pub(crate) fn frames(&self) -> usize {
        self.held.len() + self.ready.len() + self.doomed.len()
    }

    /// Takes out any frame: for the end of a worker.
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        let held = self.held.pop().map(|held| held.frame);
        held.or_else(|| self.ready.pop_front().map(|(frame, _)| frame))
            .or_else(|| self.doomed.pop().map(|(frame, _)| frame))
    }

    /// Begins to follow a packet, in place of the oldest if there is no room.
    fn follow(&mut self, key: Key, limits: &FragmentLimits, now: Nanos) -> Option<u32> {
        while self.by_key.len() >= usize::from(limits.packets_max) || self.free.is_empty() {
            let oldest = self.oldest()?;
            self.forget(oldest, DropReason::FragmentFull);
        }
        if self.ages.len() == self.packets.len() * 2 {
            let Self { ages, packets, .. } = self;
            ages.retain(|age| is_current(packets, *age));
        }
        let place = self.free.pop()?;
        let packet = self.packets.get_mut(place as usize)?;
        packet.key = Some(key);
        packet.deadline = now.plus(u64::from(limits.timeout_ms) * 1_000_000);
        packet.first = None;
        packet.is_poisoned = false;
        packet.ranges.clear();
        packet.frames_held = 0;
        packet.waited_in = self.batch.wrapping_sub(1);
        self.next_deadline = self.next_deadline.min(packet.deadline);
        self.by_key.insert(key, place);
        self.ages.push_back((place, packet.generation));
        Some(place)
    }

    /// A packet came whole: it is followed no longer, once nothing of it waits in this batch.
    fn completed(&mut self, place: u32) {
        let batch = self.batch;
        let waits = |packet: &Packet| packet.waited_in == batch;
        if self.packets.get(place as usize).is_some_and(waits) {
            self.complete.push(place);
        } else {
            self.forget(place, DropReason::FragmentOverlap);
        }
    }

    /// The oldest packet that is followed.
    fn oldest(&mut self) -> Option<u32> {
        while let Some(&age) = self.ages.front() {
            if is_current(&self.packets, age) {
                return Some(age.0);
            }
            self.ages.pop_front();
        }
        None
    }

    /// No longer follows a packet; what waits for its first fragment is dropped for `reason`.
    fn forget(&mut self, place: u32, reason: DropReason) {
        self.doom(place, reason);
        let Some(packet) = self.packets.get_mut(place as usize) else { return };
        packet.generation = packet.generation.wrapping_add(1);
        if let Some(key) = packet.key.take() {
            self.by_key.remove(&key);
            self.free.push(place);
        }
    }

    fn doom(&mut self, place: u32, reason: DropReason) {
        let Self { held, held_bytes, doomed, packets, .. } = self;
        for frame in take_held(held, held_bytes, packets, place) {
            doomed.push((frame, reason));
        }
    }

    fn release(&mut self, place: u32, first: First) {
        let Self { held, held_bytes, ready, packets, .. } = self;
        for frame in take_held(held, held_bytes, packets, place) {
            ready.push_back((frame, first));
        }
    }
}

fn is_current(packets: &[Packet], (place, generation): (u32, u32)) -> bool {
    packets
        .get(place as usize)
        .is_some_and(|packet| packet.generation == generation && packet.key.is_some())
}

/// Takes out what waits for one packet, in order of arrival.
fn take_held<'a>(
    held: &'a mut Vec<Held>,
    held_bytes: &'a mut usize,
    packets: &mut [Packet],
    place: u32,
) -> impl Iterator<Item = Frame> + 'a {
    let count = packets
        .get_mut(place as usize)
        .map_or(0, |packet| core::mem::take(&mut packet.frames_held));
    // Nothing is looked through for a packet that has nothing waiting.
    let range = if count == 0 { 0 } else { held.len() };
    held.extract_if(..range, move |held| held.place == place).map(|held| {
        *held_bytes -= held.frame.len();
        held.frame
    })
}
