//! [`LongTurns`]: how often a worker was away from its rings for long, and how long.
//!
//! ```text
//!   turn(now)          turn(now)               turn(now)   rest
//!     |------ took ------>|-------- took -------->|          |      asleep: nothing is counted
//! ```
//!
//! A turn takes from its beginning until the next one begins, by the time that a turn is given anyway: what
//! the core did for others meanwhile is part of it, since packets waited for that as well. A turn that is
//! short costs a subtraction and a comparison.

use crate::Counter;

/// From here on a turn is long: more than a batch of 256 takes with the system call that sends it.
const LONG_BITS: u32 = 16;
/// Buckets for each doubling, as a power of two: a time is known to an eighth of itself.
const SUB_BITS: u32 = 3;
/// What takes 4.3 s or more counts as the longest.
const NANOS_BITS: u32 = 32;
const BUCKETS: usize = ((NANOS_BITS - LONG_BITS) as usize) << SUB_BITS;

/// The shortest turn that is counted, in nanoseconds.
pub const LONG_TURN_NS: u64 = 1 << LONG_BITS;

/// Long turns by how long they took. One writer.
#[derive(Debug)]
pub struct LongTurns([Counter; BUCKETS]);

impl Default for LongTurns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

impl LongTurns {
    /// A turn took that long.
    #[inline]
    pub(crate) fn took(&self, nanos: u64) {
        if nanos >= LONG_TURN_NS {
            self.count(nanos);
        }
    }

    #[cold]
    #[inline(never)]
    fn count(&self, nanos: u64) {
        if let Some(counter) = self.0.get(bucket(nanos)) {
            counter.add(1);
        }
    }

    /// How many turns took less than so many nanoseconds, and no less than the entry before says; without
    /// those of which there was none. From the shortest to the longest.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        let counts = self.0.iter().enumerate().map(|(at, counter)| (end(at), counter.get()));
        counts.filter(|(_, count)| *count > 0)
    }
}

/// The bucket of a time of [`LONG_TURN_NS`] or more.
fn bucket(nanos: u64) -> usize {
    let nanos = nanos.clamp(LONG_TURN_NS, (1 << NANOS_BITS) - 1);
    let exponent = nanos.ilog2();
    let sub = (nanos >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1);
    (((exponent - LONG_BITS) as usize) << SUB_BITS) | usize::try_from(sub).unwrap_or(0)
}

/// The first time that is too long for a bucket.
fn end(bucket: usize) -> u64 {
    let (doubling, sub) = (bucket >> SUB_BITS, bucket as u64 & ((1 << SUB_BITS) - 1));
    ((1 << SUB_BITS) + sub + 1) << (LONG_BITS - SUB_BITS) << doubling
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_below_the_end_of_its_bucket_and_not_of_the_one_before() {
        assert_eq!((bucket(LONG_TURN_NS), bucket(u64::MAX)), (0, BUCKETS - 1));
        for at in 0..BUCKETS {
            assert_eq!(bucket(end(at) - 1), at);
            assert_eq!(bucket(end(at)), (at + 1).min(BUCKETS - 1));
            let begin = at.checked_sub(1).map_or(LONG_TURN_NS, end);
            assert!((end(at) - begin) * 8 <= begin, "{begin} to {}", end(at));
        }
    }

    #[test]
    fn short_turns_are_not_counted_and_long_ones_once() {
        let turns = LongTurns::default();
        for nanos in [0, 1, LONG_TURN_NS - 1] {
            turns.took(nanos);
        }
        assert_eq!(turns.counts().count(), 0);
        for nanos in [LONG_TURN_NS, 1_000_000, 1_000_000, u64::MAX] {
            turns.took(nanos);
        }
        let counts: Vec<_> = turns.counts().collect();
        assert_eq!(counts, [(73_728, 1), (1_048_576, 2), (1 << NANOS_BITS, 1)]);
    }
}
