//! [`Tree`]: which of many sorted intervals of 64-bit keys holds a key, for several keys in step.
//!
//! ```text
//!   2 keys, so 3 children         [ 17 . 41 ]                  level 0
//!                               /      |      \
//!                     [ 5 . 9 ]   [ 20 . 33 ]   [ 50 . MAX ]   level 1
//!   interval           0  1  2     3    4   5     6     7
//!   lasts              5  9 17    20   33  41    50   MAX
//! ```
//!
//! A B+-tree in an array, without pointers: a node is a cache line of eight keys, the place of the next one
//! is computed from how many of them are below. Half a million prefixes are seven levels, where halving
//! takes twenty steps, each to another line.
//!
//! Invariants: the last interval ends at the greatest key; places that no interval fills hold that key,
//! which none exceeds, so that a descent never leaves the tree.

/// Keys of a node: a cache line of them.
const KEYS: usize = 8;
const CHILDREN: usize = KEYS + 1;
/// Keys that descend together: one waits for memory while others compare.
pub(super) const LANES: usize = 16;

#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Node([u64; KEYS]);

impl Node {
    /// How many of its keys are below `x`: two comparisons find the third, two count within it.
    #[inline]
    fn below(&self, x: u64) -> usize {
        let Self(keys) = self;
        // The mask says that the place is there.
        let below = |place: usize| keys.get(place & 7).map_or(0, |key| usize::from(*key < x));
        let third = 3 * (below(2) + below(5));
        third + below(third) + below(third + 1)
    }
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: Box<[Node]>,
    /// Where each level begins.
    levels: Box<[usize]>,
}

impl Tree {
    /// The tree over the last keys of intervals, of which the last one must be the greatest key.
    pub(super) fn new(lasts: &[u64]) -> Self {
        debug_assert_eq!(lasts.last(), Some(&u64::MAX), "intervals cover all keys");
        // Intervals under a child of the root.
        let mut under_child = 1;
        while under_child * CHILDREN < lasts.len() {
            under_child *= CHILDREN;
        }
        let (mut nodes, mut levels) = (Vec::new(), Vec::new());
        while under_child > 0 {
            levels.push(nodes.len());
            let firsts = (0..lasts.len()).step_by(under_child * CHILDREN);
            nodes.extend(firsts.map(|first| {
                Node(std::array::from_fn(|key| {
                    let last = first + (key + 1) * under_child - 1;
                    lasts.get(last).copied().unwrap_or(u64::MAX)
                }))
            }));
            under_child /= CHILDREN;
        }
        Self { nodes: nodes.into(), levels: levels.into() }
    }

    /// Bytes that look-ups read.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.nodes)
    }

    /// The interval of each key.
    #[inline]
    pub(super) fn intervals(&self, keys: &[u64; LANES]) -> [usize; LANES] {
        let mut positions = [0; LANES];
        for level in &self.levels {
            for (position, key) in positions.iter_mut().zip(keys) {
                let below = self.nodes.get(level + *position).map_or(0, |node| node.below(*key));
                *position = *position * CHILDREN + below;
            }
        }
        positions
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size around a full node and a full level, every key around every boundary.
    #[test]
    fn it_finds_the_interval_of_every_key_around_a_boundary() {
        for intervals in (1..=100_u64).chain([728, 729, 730, 6_560, 6_561, 6_562, 60_000]) {
            let step = u64::MAX / intervals;
            let lasts: Vec<u64> = (1..intervals).map(|n| n * step).chain([u64::MAX]).collect();
            let tree = Tree::new(&lasts);
            let keys: Vec<u64> = lasts
                .iter()
                .flat_map(|last| [last.saturating_sub(1), *last, last.saturating_add(1)])
                .chain([0])
                .collect();
            for keys in keys.chunks(LANES) {
                let mut padded = [0; LANES];
                padded[..keys.len()].copy_from_slice(keys);
                for (key, found) in padded.iter().zip(tree.intervals(&padded)) {
                    let expected = lasts.partition_point(|last| last < key);
                    assert_eq!(found, expected, "{key} of {intervals}");
                }
            }
        }
    }
}
