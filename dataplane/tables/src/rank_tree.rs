//! Which of many sorted intervals holds a key: a B+-tree in an array, without pointers.
//!
//! Disjoint intervals that cover the whole key space are named by their last keys, `lasts`. The
//! interval of a key `x` is the number of last keys below `x`.
//!
//! ```text
//!   KEYS = 2, so 3 children       [ 17 . 41 ]                  level 0
//!                               /      |      \
//!                     [ 5 . 9 ]   [ 20 . 33 ]   [ 50 . MAX ]   level 1
//!   interval           0  1  2     3    4   5     6     7
//!   lasts              5  9 17    20   33  41    50   MAX
//! ```
//!
//! A node is one cache line (8 keys of 64 bits, which vector instructions compare with their signs, 32 of 16):
//! inside it keys are counted without a branch, and the next node's place is computed from the count. A key
//! is stored in exactly one level. Many small trees share one arena of nodes.
//!
//! Invariants: the last interval ends at `MAX`; a place that no interval fills holds `MAX`, which no
//! key exceeds, so a descent never leaves the tree.

/// The keys of a node: as many of one type as a cache line holds, in rising order.
pub(crate) trait Keys: Copy {
    /// An integer.
    type Key: Copy + Ord;

    /// How many they are.
    const COUNT: usize;
    /// The greatest key.
    const MAX: Self::Key;

    /// The line whose n-th key is `key(n)`.
    fn from_fn(key: impl FnMut(usize) -> Self::Key) -> Self;

    /// How many of them are below `x`.
    fn below(&self, x: Self::Key) -> usize;
}

impl Keys for [u16; 32] {
    type Key = u16;

    const COUNT: usize = 32;
    const MAX: u16 = u16::MAX;

    fn from_fn(key: impl FnMut(usize) -> u16) -> Self {
        std::array::from_fn(key)
    }

    /// Counts in the keys' own width, so that the sum stays in the vector lanes of the comparison.
    #[inline(always)]
    fn below(&self, x: u16) -> usize {
        self.iter().map(|&key| u16::from(key < x)).sum::<u16>().into()
    }
}

impl Keys for [i64; 8] {
    type Key = i64;

    const COUNT: usize = 8;
    const MAX: i64 = i64::MAX;

    fn from_fn(key: impl FnMut(usize) -> i64) -> Self {
        std::array::from_fn(key)
    }

    #[inline(always)]
    fn below(&self, x: i64) -> usize {
        self.iter().map(|&key| u64::from(key < x)).sum::<u64>() as usize
    }
}

/// One cache line of keys.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Node<L>(L);

impl<L: Keys> Node<L> {
    /// Children of a node: one more than it has keys.
    pub(crate) const CHILDREN: usize = L::COUNT + 1;

    /// Which child of the node holds `x`.
    #[inline(always)]
    pub(crate) fn child(&self, x: L::Key) -> usize {
        self.0.below(x)
    }
}

impl<L> Node<L> {
    /// The keys of the node.
    #[inline(always)]
    pub(crate) const fn keys(&self) -> &L {
        &self.0
    }
}

/// One tree: where its levels lie in the arena. `DEPTH_MAX` bounds the number of intervals by
/// `CHILDREN^DEPTH_MAX`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RankTree<const DEPTH_MAX: usize> {
    first_nodes: [u32; DEPTH_MAX],
    depth: u32,
}

impl<const DEPTH_MAX: usize> RankTree<DEPTH_MAX> {
    /// Appends the tree over `lasts` to `arena`.
    ///
    /// # Panics
    /// If `lasts` does not end with the greatest key or is longer than the depth allows.
    pub(crate) fn append<L: Keys>(arena: &mut Vec<Node<L>>, lasts: &[L::Key]) -> Self {
        assert!(lasts.last() == Some(&L::MAX), "intervals cover the key space");
        let children = Node::<L>::CHILDREN;
        let mut depth = 1;
        while children.pow(depth) < lasts.len() {
            depth += 1;
        }
        let mut first_nodes = [0; DEPTH_MAX];
        for level in 0..depth {
            first_nodes[level as usize] =
                u32::try_from(arena.len()).expect("the caller bounds the intervals");
            let child_intervals = children.pow(depth - 1 - level);
            let node_intervals = child_intervals * children;
            arena.extend((0..lasts.len()).step_by(node_intervals).map(|first| {
                Node(L::from_fn(|key| {
                    let last = first + (key + 1) * child_intervals - 1;
                    lasts.get(last).copied().unwrap_or(L::MAX)
                }))
            }));
        }
        Self { first_nodes, depth }
    }

    /// The arena indices of the first node of each level, from the root.
    #[inline(always)]
    pub(crate) fn levels(&self) -> impl Iterator<Item = usize> {
        self.first_nodes.iter().take(self.depth as usize).map(|&first| first as usize)
    }

    /// The interval that holds `x`.
    #[inline(always)]
    pub(crate) fn rank<L: Keys>(&self, arena: &[Node<L>], x: L::Key) -> usize {
        self.levels().fold(0, |position, first| {
            position * Node::<L>::CHILDREN + arena[first + position].child(x)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size around a full node and a full level, every key around every boundary.
    #[test]
    fn rank_is_the_number_of_lasts_below() {
        for intervals in (1..=200_u64).chain([1_088, 1_089, 1_090, 35_936, 35_937, 35_938, 65_536])
        {
            let mut lasts: Vec<u16> = (1..=intervals)
                .map(|n| u16::try_from(n * 65_536 / intervals - 1).unwrap())
                .collect();
            lasts.dedup();
            let mut arena = Vec::new();
            // Another tree before it: positions are relative to the tree's own levels.
            RankTree::<4>::append::<[u16; 32]>(&mut arena, &[7, u16::MAX]);
            let tree = RankTree::<4>::append::<[u16; 32]>(&mut arena, &lasts);
            for (index, &last) in lasts.iter().enumerate() {
                assert_eq!(tree.rank(&arena, last), index, "{last} of {intervals}");
                if last < u16::MAX {
                    assert_eq!(tree.rank(&arena, last + 1), index + 1, "{last} of {intervals}");
                }
            }
            assert_eq!(tree.rank(&arena, 0), 0);
        }
    }

    #[test]
    fn full_width_keys() {
        for intervals in (1..=100_i64).chain([728, 729, 730, 6_560, 6_561, 6_562, 60_000]) {
            let step = (u64::MAX / intervals as u64) as i64;
            let mut lasts: Vec<i64> =
                (1..intervals).map(|n| i64::MIN.wrapping_add(step.wrapping_mul(n))).collect();
            lasts.push(i64::MAX);
            let mut arena = Vec::new();
            let tree = RankTree::<8>::append::<[i64; 8]>(&mut arena, &lasts);
            for (index, &last) in lasts.iter().enumerate() {
                assert_eq!(tree.rank(&arena, last), index);
                assert_eq!(tree.rank(&arena, last.wrapping_add(1)), (index + 1) % lasts.len());
            }
        }
    }
}
