//! [`Handshakes`]: which SYNs were seen, of a fixed number, in buckets of eight within a cache line.
//!
//! ```text
//!  free --SYN, challenged--> Challenged --SYN again, not too soon--> Passed --ACK, RST--> free
//!  free --SYN, passed------> Passed --------------------------------------^
//!  Challenged --4 s--> free          Passed --half_open_s--> free
//! ```
//!
//! A full bucket takes a new handshake in the place of a challenged one that was not repeated within
//! 1.5 s, by when a sender's first retransmission (1 s, RFC 6298) has come; else it takes none, and
//! who asked is told. Nothing is swept: what has expired is found when its place is wanted.

use crate::key::Key;

const WAYS: usize = 8;

/// A unit of time: some 4 ms, of which 31 bits are 104 days.
const TICK_NS: u64 = 1 << 22;
const TICKS_MASK: u32 = u32::MAX >> 1;

const fn ticks_of_ms(ms: u64) -> u32 {
    (ms * 1_000_000).div_ceil(TICK_NS) as u32
}

/// A challenged SYN is remembered for two retransmissions, after 1 s and 3 s.
const CHALLENGED_TICKS: u32 = ticks_of_ms(4_000);
/// For so long nobody takes its place.
const CHALLENGED_KEPT_TICKS: u32 = ticks_of_ms(1_500);

/// A moment, in ticks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment(u32);

impl Moment {
    pub(crate) const fn new(now_ns: u64) -> Self {
        Self((now_ns / TICK_NS) as u32 & TICKS_MASK)
    }

    #[inline]
    fn since(self, then: u32) -> u32 {
        self.0.wrapping_sub(then) & TICKS_MASK
    }
}

/// What a handshake is remembered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Challenged = 0,
    Passed = 1,
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Bucket {
    /// 0 for none.
    tags: [u32; WAYS],
    /// When it was seen, above the lowest bit, which is its state.
    stamps: [u32; WAYS],
}

/// What stood in a place before a handshake was remembered there.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Before {
    place: u32,
    tag: u32,
    stamp: u32,
}

/// The handshakes that a worker has seen.
#[derive(Debug)]
pub(crate) struct Handshakes {
    buckets: Box<[Bucket]>,
    retry_min_ticks: u32,
    half_open_ticks: u32,
    /// When one was passed last: while none can be half-open, no packet needs to be looked up.
    passed: Option<Moment>,
}

impl Handshakes {
    /// Room for about `entries`.
    pub(crate) fn new(entries: u32, retry_min_ms: u32, half_open_s: u32) -> Self {
        let buckets = (entries as usize).div_ceil(WAYS).next_power_of_two();
        Self {
            buckets: vec![Bucket::default(); buckets].into(),
            // Rounded down, since two moments may seem nearer by a tick than they are.
            retry_min_ticks: (u64::from(retry_min_ms) * 1_000_000 / TICK_NS) as u32,
            half_open_ticks: ticks_of_ms(u64::from(half_open_s) * 1000),
            passed: None,
        }
    }

    /// How many it holds.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.buckets.len() * WAYS
    }

    /// Whether an entry counts no longer.
    #[inline]
    fn is_over(&self, stamp: u32, now: Moment) -> bool {
        let most = if stamp & 1 == 0 { CHALLENGED_TICKS } else { self.half_open_ticks };
        now.since(stamp >> 1) > most
    }

    /// Where a handshake is remembered.
    #[inline]
    fn find(&self, key: Key, now: Moment) -> Option<(usize, usize)> {
        let at = key.bucket(self.buckets.len());
        let bucket = &self.buckets[at];
        let way = bucket.tags.iter().position(|tag| *tag == key.tag())?;
        (!self.is_over(bucket.stamps[way], now)).then_some((at, way))
    }

    /// What a handshake is remembered as, if it is, and whether that was too short a time ago for a
    /// retransmission.
    pub(crate) fn syn(&self, key: Key, now: Moment) -> Option<(State, bool)> {
        let (at, way) = self.find(key, now)?;
        let stamp = self.buckets[at].stamps[way];
        let state = if stamp & 1 == 0 { State::Challenged } else { State::Passed };
        Some((state, now.since(stamp >> 1) < self.retry_min_ticks))
    }

    /// Remembers a handshake, or what became of it, and says what stood there. `None` when there is no place.
    pub(crate) fn remember(&mut self, key: Key, now: Moment, state: State) -> Option<Before> {
        if state == State::Passed {
            self.passed = Some(now);
        }
        let at = key.bucket(self.buckets.len());
        let way = self.place(at, key.tag(), now)?;
        let bucket = &mut self.buckets[at];
        let (tag, stamp) = (bucket.tags[way], bucket.stamps[way]);
        bucket.tags[way] = key.tag();
        bucket.stamps[way] = now.0 << 1 | state as u32;
        Some(Before { place: (at * WAYS + way) as u32, tag, stamp })
    }

    /// Undoes what [`Self::remember`] did: of several times, the last one first.
    pub(crate) fn put_back(&mut self, before: Before) {
        self.set_entry([before.place, before.tag, before.stamp]);
    }

    /// The place of a tag in a bucket: its own, a free one, or that of the oldest challenged one that
    /// may be replaced.
    fn place(&self, at: usize, tag: u32, now: Moment) -> Option<usize> {
        let bucket = &self.buckets[at];
        if let Some(own) = bucket.tags.iter().position(|known| *known == tag) {
            return Some(own);
        }
        let ways = || bucket.tags.iter().zip(bucket.stamps).enumerate();
        if let Some((free, _)) =
            ways().find(|(_, (tag, stamp))| **tag == 0 || self.is_over(*stamp, now))
        {
            return Some(free);
        }
        let age = |stamp: u32| now.since(stamp >> 1);
        let (way, (_, stamp)) = ways()
            .filter(|(_, (_, stamp))| stamp & 1 == State::Challenged as u32)
            .max_by_key(|(_, (_, stamp))| age(*stamp))?;
        (age(stamp) > CHALLENGED_KEPT_TICKS).then_some(way)
    }

    /// Whether any handshake may be half-open.
    #[inline]
    pub(crate) fn may_be_half_open(&self, now: Moment) -> bool {
        self.passed.is_some_and(|passed| now.since(passed.0) <= self.half_open_ticks)
    }

    /// Whether the handshake of a flow is half-open.
    #[inline]
    pub(crate) fn is_half_open(&self, key: Key, now: Moment) -> bool {
        let found = self.find(key, now);
        found.is_some_and(|(at, way)| self.buckets[at].stamps[way] & 1 == State::Passed as u32)
    }

    /// A later packet of a flow comes: whether that ends a half-open handshake.
    #[inline]
    pub(crate) fn end(&mut self, key: Key, now: Moment) -> bool {
        match self.find(key, now) {
            Some((at, way)) if self.buckets[at].stamps[way] & 1 == State::Passed as u32 => {
                self.buckets[at].tags[way] = 0;
                true
            }
            _ => false,
        }
    }

    /// How many buckets there are, and when one was passed last.
    pub(crate) fn head(&self) -> (u32, Option<u32>) {
        (self.buckets.len() as u32, self.passed.map(|passed| passed.0))
    }

    /// All that is remembered: place, tag and stamp.
    pub(crate) fn entries(&self) -> impl Iterator<Item = [u32; 3]> {
        self.buckets.iter().zip(0_u32..).flat_map(|(bucket, at)| {
            let ways = bucket.tags.iter().zip(bucket.stamps).zip(0_u32..);
            let ways = ways.filter(|((tag, _), _)| **tag != 0);
            ways.map(move |((tag, stamp), way)| [at * WAYS as u32 + way, *tag, stamp])
        })
    }

    /// Takes what [`Self::head`] said of a table of as many buckets.
    pub(crate) fn set_passed(&mut self, passed: Option<u32>) {
        self.passed = passed.map(|ticks| Moment(ticks & TICKS_MASK));
    }

    /// Takes one of another table's [`Self::entries`]. False when there is no such place.
    pub(crate) fn set_entry(&mut self, [place, tag, stamp]: [u32; 3]) -> bool {
        let (at, way) = (place as usize / WAYS, place as usize % WAYS);
        let Some(bucket) = self.buckets.get_mut(at) else { return false };
        (bucket.tags[way], bucket.stamps[way]) = (tag, stamp);
        true
    }
}
