//! [`Intervals`]: which of many intervals of 64-bit keys holds a key, for whole batches.
//!
//! One [`RankTree`] of cache lines of eight keys. The keys of a stage descend together, a level at a time, so
//! that one waits for memory while others compare; within a line there are no branches. For 64 bits and not
//! 128, since few prefixes of IPv6 are longer than half an address: whoever has those looks on behind it.

use std::fmt;

use crate::hardware::{Compare, Instructions, Work, run};
use crate::rank_tree::{Node, RankTree};

type UpperNode = Node<[i64; 8]>;
/// Levels: 9^8 intervals are 43 million.
const DEPTH_MAX: usize = 8;

/// Keys that descend the tree together.
pub(crate) const STAGE: usize = 16;

/// Disjoint intervals that cover all 64-bit keys, numbered in their order.
pub struct Intervals {
    nodes: Vec<UpperNode>,
    tree: RankTree<DEPTH_MAX>,
}

impl Intervals {
    /// The most of them.
    pub const MAX: usize = UpperNode::CHILDREN.pow(DEPTH_MAX as u32);

    /// The intervals with these last keys, which rise.
    ///
    /// # Panics
    /// If the last of them is not the greatest key, or they are more than [`Intervals::MAX`].
    #[must_use]
    pub fn new(lasts: Vec<u64>) -> Self {
        let lasts: Vec<i64> = lasts.into_iter().map(signed).collect();
        let mut nodes = Vec::new();
        let tree = RankTree::append(&mut nodes, &lasts);
        Self { nodes, tree }
    }

    /// The number of the interval that holds each of `keys`.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn find_batch_by(&self, instructions: Instructions, keys: &[u64], numbers: &mut [u32]) {
        assert_eq!(keys.len(), numbers.len(), "one number for each key");
        run(instructions, Find { intervals: self, keys, numbers });
    }

    /// The number of the interval that holds `key`.
    #[inline]
    pub(crate) fn find(&self, key: u64) -> usize {
        self.tree.rank(&self.nodes, signed(key))
    }

    /// The same of a stage of keys, with the instructions of the work that it is part of.
    #[inline(always)]
    pub(crate) fn find_stage<C: Compare>(&self, keys: [u64; STAGE]) -> [usize; STAGE] {
        let keys = keys.map(signed);
        let mut positions = [0_usize; STAGE];
        for first in self.tree.levels() {
            let nodes = &self.nodes[first..];
            for n in 0..STAGE {
                let child = C::below(nodes[positions[n]].keys(), keys[n]);
                positions[n] = positions[n] * UpperNode::CHILDREN + child;
            }
        }
        positions
    }

    /// Bytes that look-ups read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.nodes)
    }
}

impl fmt::Debug for Intervals {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Intervals").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}

/// A batch, to be compiled for each set of instructions.
struct Find<'a> {
    intervals: &'a Intervals,
    keys: &'a [u64],
    numbers: &'a mut [u32],
}

impl Work for Find<'_> {
    #[inline(always)]
    fn run<C: Compare>(self) {
        let Self { intervals, keys, numbers } = self;
        // Numbers are below `MAX`, which 32 bits hold.
        const { assert!(Intervals::MAX <= u32::MAX as usize) };
        let (stages, last) = keys.as_chunks::<STAGE>();
        let (stages_out, last_out) = numbers.as_chunks_mut::<STAGE>();
        for (keys, numbers) in stages.iter().zip(stages_out) {
            *numbers = intervals.find_stage::<C>(*keys).map(|number| number as u32);
        }
        if !last.is_empty() {
            let mut keys = [0; STAGE];
            keys[..last.len()].copy_from_slice(last);
            let found = intervals.find_stage::<C>(keys);
            for (number, found) in last_out.iter_mut().zip(found) {
                *number = found as u32;
            }
        }
    }
}

/// A key of the tree: signed, in the same order.
#[inline(always)]
const fn signed(key: u64) -> i64 {
    (key ^ 1 << 63) as i64
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Sizes around a full node and a full level, every key around every boundary, batches of any length, all
    /// sets of instructions.
    #[test]
    fn the_interval_of_every_key_around_a_boundary() {
        for count in (1..=100_u64).chain([728, 729, 730, 6_560, 6_561, 6_562]) {
            let step = u64::MAX / count;
            let lasts: Vec<u64> = (1..count).map(|n| n * step).chain([u64::MAX]).collect();
            let intervals = Intervals::new(lasts.clone());
            let around = |last: &u64| [last.saturating_sub(1), *last, last.saturating_add(1)];
            let keys: Vec<u64> = lasts.iter().flat_map(around).chain([0]).collect();
            let want: Vec<u32> =
                keys.iter().map(|key| lasts.partition_point(|last| last < key) as u32).collect();
            for (set, instructions) in Instructions::all() {
                for batch in [1, 15, 16, 17, keys.len()] {
                    for (keys, want) in keys.chunks(batch).zip(want.chunks(batch)) {
                        let mut numbers = vec![u32::MAX; keys.len()];
                        intervals.find_batch_by(instructions, keys, &mut numbers);
                        assert_eq!(numbers, want, "{keys:?} of {count} by {set}");
                    }
                }
            }
            for (&key, &want) in keys.iter().zip(&want) {
                assert_eq!(intervals.find(key), want as usize, "{key} of {count}");
            }
        }
    }
}
