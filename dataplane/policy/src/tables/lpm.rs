//! [`Lpm`]: the longest of some prefixes that holds a key of 128 bits, for whole batches.
//!
//! ```text
//!   prefixes    |------------ a -------------|
//!                     |--- b ---|
//!   intervals  |0     |a  |b       |a         |0      each with its longest prefix's value
//!
//!   key in ::ffff:0:0/96 --> its upper bits --> index --> a few of the starts of 32 bits
//!   any other key ---------> its upper half --> Intervals --> value, or a split /64
//!                            its lower half --> a few starts of that /64
//! ```
//!
//! Built once, then only read. It is as large as its prefixes: up to two intervals of 8 bytes for each of
//! IPv4, of 17 bytes for others, and 4 bytes of index an interval. Of the router's own tables only the tree
//! of upper halves is used here: that for IPv4 starts at 32 MB, and both give 16-bit numbers of next hops.

use std::collections::BTreeMap;
use std::hint::select_unpredictable;

use tables::{Instructions, Intervals};

/// Keys of a stage, which wait for memory together.
const STAGE: usize = 64;
/// Starts that are compared together, and those behind the last one, so that there are always as many.
const PADDING: usize = 8;

/// The first 96 bits of an IPv4 address in its mapped form.
const MAPPED: u128 = 0xffff << 32;
/// In a target: it is no value but the number of a split /64.
const SPLIT: u64 = 1 << 32;
/// The index goes by at most so many upper bits: 4 MiB.
const INDEX_BITS_MAX: u32 = 20;

/// A prefix: the bits behind its length are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    pub(crate) bits: u128,
    pub(crate) length: u8,
}

impl Prefix {
    /// A prefix, of which bits behind the length are cleared.
    pub(crate) fn new(bits: u128, length: u8) -> Self {
        Self { bits: bits & !host_bits(length), length }
    }

    fn last(self) -> u128 {
        self.bits | host_bits(self.length)
    }
}

/// The bits behind a prefix of `length`.
fn host_bits(length: u8) -> u128 {
    u128::MAX.checked_shr(u32::from(length)).unwrap_or(0)
}

/// Starts of intervals of IPv4 addresses, and an index into them.
#[derive(Debug)]
struct Mapped {
    starts: Box<[u32]>,
    values: Box<[u32]>,
    /// By upper bits: the number of starts below.
    index: Box<[u32]>,
    shift: u32,
}

/// Intervals of all other addresses.
#[derive(Debug)]
struct Others {
    uppers: Intervals,
    instructions: Instructions,
    /// By interval of the upper halves: a value, or [`SPLIT`] and a number.
    targets: Box<[u64]>,
    /// Where the starts of each split /64 begin, and behind the last one where they end.
    splits: Box<[u32]>,
    /// Lower halves in which intervals of a split /64 begin, the first of each 0.
    starts: Box<[u64]>,
    values: Box<[u32]>,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Lpm {
    mapped: Mapped,
    others: Others,
}

impl Lpm {
    /// A table of these prefixes and their values, none of which is 0.
    pub(crate) fn build(prefixes: &BTreeMap<Prefix, u32>) -> Self {
        let intervals = intervals(prefixes);
        let inside = |start: u128| start & !u128::from(u32::MAX) == MAPPED;
        let mut mapped_starts: Vec<u32> = vec![0];
        let mut mapped_values: Vec<u32> = vec![0];
        for (start, value) in &intervals {
            // The last interval that begins before IPv4 reaches into it.
            if *start <= MAPPED {
                mapped_values = vec![*value];
            } else if inside(*start) {
                mapped_starts.push(low_half(*start));
                mapped_values.push(*value);
            }
        }
        // Of the intervals of IPv4 the others keep the last, which may reach out of it.
        let first_inside = intervals.partition_point(|(start, _)| *start <= MAPPED);
        let first_beyond = intervals.partition_point(|(start, _)| *start <= MAPPED | 0xffff_ffff);
        let kept = intervals.iter().enumerate().filter(|(position, _)| {
            !(first_inside..first_beyond.saturating_sub(1)).contains(position)
        });
        let kept: Vec<_> = kept.map(|(_, interval)| *interval).collect();
        Self { mapped: Mapped::new(mapped_starts, mapped_values), others: Others::new(&kept) }
    }

    /// Bytes that look-ups read.
    pub(crate) fn bytes(&self) -> usize {
        let (mapped, others) = (&self.mapped, &self.others);
        4 * (mapped.starts.len() + mapped.values.len() + mapped.index.len())
            + others.uppers.bytes()
            + 8 * (others.targets.len() + others.starts.len())
            + 4 * (others.splits.len() + others.values.len())
    }

    /// The value of the longest prefix that holds each of `keys`, or 0.
    pub(crate) fn lookup_batch(&self, keys: &[u128], results: &mut [u32]) {
        for (keys, results) in keys.chunks(STAGE).zip(results.chunks_mut(STAGE)) {
            match keys.iter().map(|key| usize::from(is_mapped(*key))).sum::<usize>() {
                0 => self.others.lookup(keys, results),
                mapped if mapped == keys.len() => self.mapped.lookup(keys, results),
                mapped => self.lookup_both(mapped, keys, results),
            }
        }
    }

    /// Of up to `STAGE` keys, of which so many are of IPv4: each family's together. Of which one a key is, no
    /// branch can foresee.
    fn lookup_both(&self, mapped: usize, keys: &[u128], results: &mut [u32]) {
        let (mut sorted, mut places, mut found) = ([0; STAGE], [0; STAGE], [0; STAGE]);
        let (mut next_mapped, mut next_other) = (0, mapped);
        for (place, key) in keys.iter().enumerate() {
            let is_mapped = is_mapped(*key);
            let to = select_unpredictable(is_mapped, next_mapped, next_other);
            if let (Some(key_to), Some(place_to)) = (sorted.get_mut(to), places.get_mut(to)) {
                (*key_to, *place_to) = (*key, place);
            }
            next_mapped += usize::from(is_mapped);
            next_other += usize::from(!is_mapped);
        }
        if let (Some((mapped, rest)), Some((found_mapped, found_rest))) =
            (sorted.split_at_checked(mapped), found.split_at_mut_checked(mapped))
        {
            self.mapped.lookup(mapped, found_mapped);
            let others = keys.len() - mapped.len();
            self.others.lookup(rest.get(..others).unwrap_or_default(), found_rest);
        }
        for (place, found) in places.iter().zip(found).take(keys.len()) {
            if let Some(result) = results.get_mut(*place) {
                *result = found;
            }
        }
    }
}

impl Others {
    /// Of intervals in order, the first from 0.
    fn new(intervals: &[(u128, u32)]) -> Self {
        // Where intervals of upper halves begin, and what is there.
        let mut uppers: Vec<(u64, u64)> = Vec::new();
        let (mut splits, mut starts, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let mut before = 0;
        let mut rest = intervals;
        while let Some((start, _)) = rest.first() {
            let upper = upper_half(*start);
            let here = rest.partition_point(|(start, _)| upper_half(*start) == upper);
            let (inside, behind) = rest.split_at(here);
            rest = behind;
            match inside {
                [(start, value)] if lower_half(*start) == 0 => {
                    uppers.push((upper, u64::from(*value)));
                    before = *value;
                }
                _ => {
                    uppers.push((upper, SPLIT | splits.len() as u64));
                    splits.push(position(starts.len()));
                    if inside.first().is_some_and(|(start, _)| lower_half(*start) != 0) {
                        starts.push(0);
                        values.push(before);
                    }
                    for (start, value) in inside {
                        starts.push(lower_half(*start));
                        values.push(*value);
                        before = *value;
                    }
                    // What reaches out of it goes on behind it.
                    if let Some(next) = upper.checked_add(1)
                        && rest.first().is_none_or(|(start, _)| *start != u128::from(next) << 64)
                    {
                        uppers.push((next, u64::from(before)));
                    }
                }
            }
        }
        splits.push(position(starts.len()));
        starts.extend([u64::MAX; PADDING]);
        // In the /64 behind a split one another may begin.
        uppers.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 = next.1;
            }
            is_same
        });
        let ends = uppers.iter().skip(1).map(|(start, _)| start - 1).chain([u64::MAX]);
        let lasts: Vec<u64> = ends.collect();
        Self {
            uppers: Intervals::new(lasts),
            instructions: Instructions::best(),
            targets: uppers.iter().map(|(_, target)| *target).collect(),
            splits: splits.into(),
            starts: starts.into(),
            values: values.into(),
        }
    }

    /// Of up to `STAGE` keys.
    fn lookup(&self, keys: &[u128], results: &mut [u32]) {
        let mut uppers = [0; STAGE];
        for (upper, key) in uppers.iter_mut().zip(keys) {
            *upper = upper_half(*key);
        }
        let mut intervals = [0; STAGE];
        if let (Some(uppers), Some(intervals)) =
            (uppers.get(..keys.len()), intervals.get_mut(..keys.len()))
        {
            self.uppers.find_batch_by(self.instructions, uppers, intervals);
        }
        // Those in split /64s follow after the others: which they are no branch can foresee.
        let (mut places, mut split) = ([0; STAGE], 0);
        for (place, (result, interval)) in
            results.iter_mut().zip(intervals).take(keys.len()).enumerate()
        {
            let target = self.targets.get(interval as usize).copied().unwrap_or(0);
            *result = low_half(u128::from(target));
            if let Some(next) = places.get_mut(split) {
                *next = place;
            }
            split += usize::from(target & SPLIT != 0);
        }
        if let Some(places) = places.get(..split).filter(|places| !places.is_empty()) {
            self.lookup_split(places, keys, results);
        }
    }

    /// Of the keys at these places, which are in split /64s: `results` has the numbers of those.
    fn lookup_split(&self, places: &[usize], keys: &[u128], results: &mut [u32]) {
        let mut ranges = [(0_u32, 0_u32); STAGE];
        for (range, place) in ranges.iter_mut().zip(places) {
            let split = results.get(*place).copied().unwrap_or(0) as usize;
            let at = |split: usize| self.splits.get(split).copied().unwrap_or(0);
            *range = (at(split), at(split + 1));
        }
        for (place, range) in places.iter().zip(ranges) {
            let lower = lower_half(keys.get(*place).copied().unwrap_or(0));
            if let Some(result) = results.get_mut(*place) {
                *result = value_within(range, lower, &self.starts, &self.values);
            }
        }
    }
}

impl Mapped {
    fn new(mut starts: Vec<u32>, values: Vec<u32>) -> Self {
        // About one start for each entry.
        let bits = usize::BITS - starts.len().leading_zeros();
        let shift = 32 - bits.min(INDEX_BITS_MAX);
        let slots = 1_u64 << (32 - shift);
        let index = (0..=slots).map(|slot| {
            let below = starts.partition_point(|start| u64::from(*start) < slot << shift);
            u32::try_from(below).unwrap_or(u32::MAX)
        });
        let index = index.collect();
        starts.extend([u32::MAX; PADDING]);
        Self { index, starts: starts.into(), values: values.into(), shift }
    }

    /// Of up to `STAGE` keys.
    fn lookup(&self, keys: &[u128], results: &mut [u32]) {
        let mut ranges = [(0_u32, 0_u32); STAGE];
        for (range, key) in ranges.iter_mut().zip(keys) {
            let slot = (low_half(*key) >> self.shift) as usize;
            let at = |slot: usize| self.index.get(slot).copied().unwrap_or(0);
            *range = (at(slot), at(slot + 1));
        }
        for ((result, key), range) in results.iter_mut().zip(keys).zip(ranges) {
            *result = value_within(range, low_half(*key), &self.starts, &self.values);
        }
    }
}

/// The value of the last of the starts `first..end` that is not above `key`, or else of the one before them.
/// There are [`PADDING`] more starts than values.
#[inline]
fn value_within<K: Copy + Ord>(
    (first, end): (u32, u32),
    key: K,
    starts: &[K],
    values: &[u32],
) -> u32 {
    let (first, end) = (first as usize, end as usize);
    let len = end.saturating_sub(first);
    let few = starts.get(first..).and_then(<[K]>::first_chunk::<PADDING>);
    let behind = match few {
        // As many comparisons for every number of them, which cannot be foreseen.
        Some(few) if len <= PADDING => {
            let of_them = few.iter().enumerate();
            of_them.map(|(n, start)| usize::from(n < len) & usize::from(*start <= key)).sum()
        }
        _ => starts.get(first..end).unwrap_or_default().partition_point(|start| *start <= key),
    };
    // The first start of all is 0, so that there is always one at or before the key.
    let position = (first + behind).saturating_sub(1);
    values.get(position).copied().unwrap_or(0)
}

/// Whether a key is an IPv4 address.
fn is_mapped(key: u128) -> bool {
    key >> 32 == MAPPED >> 32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn low_half(key: u128) -> u32 {
    key as u32
}

fn upper_half(key: u128) -> u64 {
    (key >> 64) as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is what is asked for")]
fn lower_half(key: u128) -> u64 {
    key as u64
}

/// A position in a list, which the size of a table's file keeps within 32 bits.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

/// Disjoint intervals that cover all keys: where each begins, and its value, or 0.
fn intervals(prefixes: &BTreeMap<Prefix, u32>) -> Vec<(u128, u32)> {
    let mut intervals: Vec<(u128, u32)> = vec![(0, 0)];
    let mut push = |start: u128, value: u32| match intervals.last_mut() {
        Some(last) if last.0 == start => last.1 = value,
        Some(last) if last.1 == value => {}
        _ => intervals.push((start, value)),
    };
    // Prefixes around the place that was reached, the longest last.
    let mut open: Vec<(Prefix, u32)> = Vec::new();
    let close =
        |open: &mut Vec<(Prefix, u32)>, until: Option<u128>, push: &mut dyn FnMut(u128, u32)| {
            while let Some((inner, _)) = open.last()
                && until.is_none_or(|until| inner.last() < until)
            {
                let last = inner.last();
                open.pop();
                let around = open.last().map_or(0, |(_, value)| *value);
                if let Some(next) = last.checked_add(1) {
                    push(next, around);
                }
            }
        };
    // By their first bits, of equal ones the shorter first.
    for (prefix, value) in prefixes {
        close(&mut open, Some(prefix.bits), &mut push);
        push(prefix.bits, *value);
        open.push((*prefix, *value));
    }
    close(&mut open, None, &mut push);
    // What was set and then set again may have become equal to what is before it.
    intervals.dedup_by_key(|(_, value)| *value);
    intervals
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn linear(prefixes: &BTreeMap<Prefix, u32>, key: u128) -> u32 {
        let around = prefixes.iter().filter(|(p, _)| p.bits <= key && key <= p.last());
        around.max_by_key(|(prefix, _)| prefix.length).map_or(0, |(_, value)| *value)
    }

    fn agree(prefixes: &BTreeMap<Prefix, u32>, keys: &[u128]) {
        let table = Lpm::build(prefixes);
        let mut results = vec![u32::MAX; keys.len()];
        table.lookup_batch(keys, &mut results);
        for (key, result) in keys.iter().zip(results) {
            assert_eq!(result, linear(prefixes, *key), "{key:x} in {prefixes:x?}");
        }
    }

    /// All places where something may change, and their neighbours.
    fn edges(prefixes: &BTreeMap<Prefix, u32>) -> Vec<u128> {
        let mut keys = vec![0, 1, u128::MAX, MAPPED - 1, MAPPED, MAPPED | 0xffff_ffff, 1 << 48];
        for prefix in prefixes.keys() {
            for edge in [prefix.bits, prefix.last()] {
                keys.extend([edge, edge.wrapping_sub(1), edge.wrapping_add(1)]);
            }
        }
        keys
    }

    #[test]
    fn nested_and_touching_prefixes() {
        let v4 = |bits: u32, length: u8| Prefix::new(MAPPED | u128::from(bits), 96 + length);
        let all: [&[(Prefix, u32)]; 6] = [
            &[],
            &[(Prefix::new(0, 0), 7)],
            &[
                (v4(0, 0), 1),
                (v4(0x0a00_0000, 8), 2),
                (v4(0x0a00_0000, 32), 3),
                (v4(u32::MAX, 32), 4),
            ],
            &[(Prefix::new(0, 0), 1), (v4(0x0a00_0000, 8), 2), (Prefix::new(1 << 127, 1), 3)],
            &[(Prefix::new(MAPPED, 80), 9), (v4(0x8000_0000, 1), 9), (v4(0, 1), 8)],
            &[(Prefix::new(0, 128), 1), (Prefix::new(1, 128), 1), (Prefix::new(u128::MAX, 128), 2)],
        ];
        for prefixes in all {
            let prefixes = prefixes.iter().copied().collect();
            agree(&prefixes, &edges(&prefixes));
        }
    }

    /// In one /64, and in one entry of the index for IPv4.
    #[test]
    fn as_many_starts_as_are_compared_together_and_more() {
        for count in 1..=PADDING as u32 + 2 {
            let every_other = (0..count).flat_map(|n| {
                [1 << 64, MAPPED]
                    .map(|around| (Prefix::new(around | u128::from(n * 2 + 1), 128), n + 1))
            });
            let prefixes = every_other.collect();
            agree(&prefixes, &edges(&prefixes));
        }
    }

    #[test]
    fn a_small_set_is_small() {
        let prefixes =
            (0..100_u32).map(|n| (Prefix::new(MAPPED | u128::from(n << 12), 120), n + 1));
        assert!(Lpm::build(&prefixes.collect()).bytes() < 8192);
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        // Few bits that differ, so that prefixes nest and touch.
        let spread = |bits: u16, at: u32| u128::from(bits).rotate_right(at);
        prop_oneof![
            (any::<u16>(), 0_u8..=32).prop_map(|(bits, length)| {
                Prefix::new(MAPPED | u128::from(u32::from(bits & 0x1f1f) << 16), 96 + length)
            }),
            (any::<u16>(), 0_u32..32, 80_u8..=128).prop_map(|(bits, at, length)| Prefix::new(
                MAPPED ^ u128::from(bits) << at,
                length
            )),
            (any::<u16>(), 0_u8..=128)
                .prop_map(move |(bits, length)| Prefix::new(spread(bits & 0x0f0f, 16), length)),
        ]
    }

    proptest! {
        #[test]
        fn it_answers_as_a_scan_does(
            prefixes in prop::collection::btree_map(any_prefix(), 1_u32..5, 0..60),
            keys in prop::collection::vec(any::<u128>(), 0..40),
        ) {
            agree(&prefixes, &edges(&prefixes));
            agree(&prefixes, &keys);
        }
    }
}
