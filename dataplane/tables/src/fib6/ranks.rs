//! Which of many sorted intervals holds a key of 56 bits.
//!
//! ```text
//!   key        aaaa_bb_cccccccc        intervals are named by their last keys
//!
//!   regions [aaaa]    intervals before the region, its page
//!   (512 KiB)            |
//!   buckets [page + bb]  +-> intervals before the bucket within the region, its tree
//!                                                |
//!   nodes   [ 16 last keys, 32 bits each ] <-----+    one cache line, 17 children
//!              |          |
//!           [ .. ]     [ .. ]                         level by level, without pointers
//! ```
//!
//! The rank of a key is the number of last keys below it. What registries have given out lies in some
//! hundred regions, whose entries stay in the first cache level, and in some thousand buckets, most of
//! which a node or two levels of nodes divide; one tree over all would have six levels.
//!
//! Invariants: a bucket's tree has all of its last keys but the bucket's own end, which no key in it
//! exceeds; places that no key fills hold the greatest. In a tree the n-th child of node `i` is node
//! `17 * i + 1 + n`, so only its last level may lack nodes.

use crate::hardware::{Count, prefetch};

/// Bits of a key.
pub(super) const KEY_BITS: u32 = 56;
/// Bits of a key by which its region is found, and then its bucket.
const REGION_BITS: u32 = 16;
const BUCKET_BITS: u32 = 8;
/// What is left for nodes.
const NODE_BITS: u32 = KEY_BITS - REGION_BITS - BUCKET_BITS;

const _: () = assert!(NODE_BITS == 32);

/// Buckets of a region.
const PAGE: usize = 1 << BUCKET_BITS;
/// Keys of a node.
const KEYS: usize = 16;
const CHILDREN: usize = KEYS + 1;

/// In an entry of a bucket: how many bits of it are the depth of its tree.
const DEPTH_BITS: u32 = 3;
/// Levels of the deepest tree: for 24 million keys.
const DEPTH_MAX: usize = 6;
/// Nodes above the n-th level where it is full, which is what the place below level n is more than the
/// rank.
const ABOVE: [usize; 1 << DEPTH_BITS] = {
    let mut above = [0; 1 << DEPTH_BITS];
    let mut level = 1;
    while level < above.len() {
        above[level] = above[level - 1] * CHILDREN + 1;
        level += 1;
    }
    above
};

/// One cache line of keys in rising order, with their highest bits flipped so that they compare as signed.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Node([i32; KEYS]);

#[derive(Clone, Copy)]
struct Region {
    first_bucket: u32,
    before: u32,
}

#[derive(Clone, Copy)]
struct Bucket {
    /// Intervals before it in its region.
    before: u32,
    /// First node and depth.
    tree: u32,
}

/// Sorted intervals. See the module's head.
pub(super) struct Ranks {
    regions: Vec<Region>,
    buckets: Vec<Bucket>,
    nodes: Vec<Node>,
}

impl Ranks {
    /// Over the last keys of intervals that cover all keys, in rising order.
    ///
    /// # Panics
    /// If there are more than 2^25.
    pub(super) fn build(lasts: &[u64]) -> Self {
        assert!(lasts.len() <= 1 << 25, "the caller bounds the intervals");
        // The first bucket and the first node are of what one interval covers.
        let empty = Bucket { before: 0, tree: 1 };
        let mut ranks = Self {
            regions: Vec::with_capacity(1 << REGION_BITS),
            buckets: vec![empty; PAGE],
            nodes: vec![Node([i32::MAX; KEYS])],
        };
        let mut before = 0;
        for region in 0..1 << REGION_BITS {
            let end = (region + 1) << (KEY_BITS - REGION_BITS);
            let mut rest = &lasts[before..];
            rest = &rest[..rest.partition_point(|&last| last < end)];
            let divides = rest.first().is_some_and(|&last| last + 1 < end);
            let first_bucket = if divides { ranks.buckets.len() as u32 } else { 0 };
            ranks.regions.push(Region { first_bucket, before: before as u32 });
            before += rest.len();
            if divides {
                ranks.append_region(region << BUCKET_BITS, rest);
            }
        }
        ranks
    }

    fn append_region(&mut self, first: u64, lasts: &[u64]) {
        let mut before = 0;
        for bucket in first..first + PAGE as u64 {
            let end = (bucket + 1) << NODE_BITS;
            let rest = &lasts[before..];
            let rest = &rest[..rest.partition_point(|&last| last < end)];
            let within: Vec<i32> =
                rest.iter().filter(|&&last| last + 1 < end).map(|&last| signed(last)).collect();
            let tree = if within.is_empty() { 1 } else { self.append_tree(&within) };
            self.buckets.push(Bucket { before: before as u32, tree });
            before += rest.len();
        }
    }

    fn append_tree(&mut self, keys: &[i32]) -> u32 {
        let first = self.nodes.len();
        let intervals = keys.len() + 1;
        let mut depth = 1;
        while CHILDREN.pow(depth) < intervals {
            depth += 1;
        }
        for level in 0..depth {
            let of_child = CHILDREN.pow(depth - 1 - level);
            let nodes =
                if level + 1 < depth { CHILDREN.pow(level) } else { intervals.div_ceil(CHILDREN) };
            self.nodes.extend((0..nodes).map(|node| {
                Node(std::array::from_fn(|key| {
                    let last = (node * CHILDREN + key + 1) * of_child - 1;
                    keys.get(last).copied().unwrap_or(i32::MAX)
                }))
            }));
        }
        debug_assert!(depth as usize <= DEPTH_MAX);
        (first as u32) << DEPTH_BITS | depth
    }

    /// The ranks of `keys`, level by level, so that the misses of all are waited for together.
    #[inline(always)]
    pub(super) fn of_batch<C: Count, const N: usize>(&self, keys: &[u64; N]) -> [usize; N] {
        let mut befores = [0; N];
        let mut firsts = [0; N];
        let mut depths = [0; N];
        let mut deepest = 0;
        for n in 0..N {
            let (before, tree) = self.bucket(keys[n]);
            (befores[n], firsts[n]) = (before, tree >> DEPTH_BITS);
            depths[n] = tree & ((1 << DEPTH_BITS) - 1);
            deepest = deepest.max(depths[n]);
            if let Some(node) = self.nodes.get(firsts[n] as usize) {
                prefetch(node);
            }
        }
        let mut places = [0_u32; N];
        for level in 0..deepest {
            for n in 0..N {
                // Who is at the end already asks its root again, which costs less than a wrong guess.
                let goes_on = level < depths[n];
                let place = if goes_on { places[n] } else { 0 };
                let Node(node) = &self.nodes[(firsts[n] + place) as usize];
                let child = CHILDREN as u32 * place + 1 + C::below(node, signed(keys[n])) as u32;
                places[n] = if goes_on { child } else { places[n] };
            }
        }
        std::array::from_fn(|n| befores[n] + places[n] as usize - ABOVE[depths[n] as usize & 7])
    }

    /// Intervals before the bucket of a key, and its tree.
    #[inline(always)]
    fn bucket(&self, key: u64) -> (usize, u32) {
        let region = self.regions[(key >> (KEY_BITS - REGION_BITS)) as usize];
        let within = (key >> NODE_BITS) as usize & (PAGE - 1);
        let bucket = self.buckets[region.first_bucket as usize + within];
        ((region.before + bucket.before) as usize, bucket.tree)
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.regions) + size_of_val(&*self.buckets) + size_of_val(&*self.nodes)
    }
}

/// The last bits of a key, as nodes have them.
#[inline(always)]
const fn signed(key: u64) -> i32 {
    (key as u32 ^ 1 << 31) as i32
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Instructions;
    use crate::hardware::{Work, run};

    const MAX: u64 = (1 << KEY_BITS) - 1;

    struct Check<'a>(&'a Ranks, &'a [u64]);

    impl Work for Check<'_> {
        fn run<C: Count>(self) {
            let Self(ranks, lasts) = self;
            for (rank, &last) in lasts.iter().enumerate() {
                let (found, next) = (ranks.of_batch::<C, 2>(&[last, 0]), (last + 1) & MAX);
                assert_eq!(found, [rank, 0], "{last:x} of {}", lasts.len());
                let found = ranks.of_batch::<C, 1>(&[next]);
                assert_eq!(found, [(rank + 1) % lasts.len()], "{next:x} of {}", lasts.len());
            }
        }
    }

    fn check(mut lasts: Vec<u64>) {
        lasts.push(MAX);
        lasts.sort_unstable();
        lasts.dedup();
        let ranks = Ranks::build(&lasts);
        let sets = [Some(Instructions::PORTABLE), Instructions::avx2(), Instructions::avx512()];
        for set in sets.into_iter().flatten() {
            run(set, Check(&ranks, &lasts));
        }
    }

    /// Every size around a full node and a full level, in one bucket and over many.
    #[test]
    fn rank_is_the_number_of_lasts_below() {
        for intervals in
            (0..40).chain([271, 272, 273, 288, 289, 290, 4_911, 4_912, 4_913, 4_914, 90_000])
        {
            check((0..intervals).map(|n| (0x0020_01db << 32) | (n * 47_721)).collect());
            check((0..intervals).map(|n| n * 0x0203_0405_0607 % MAX).collect());
        }
    }

    #[test]
    fn ends_of_regions_and_buckets() {
        let ends: Vec<u64> = [40, 32]
            .into_iter()
            .flat_map(|bits| (1..=3).map(move |n| (0x20_u64 << 48) + (n << bits) - 1))
            .collect();
        check(ends.clone());
        check(ends.iter().flat_map(|&end| [end - 1, end, end + 1]).collect());
        check(vec![0, 1, MAX - 1]);
    }
}
