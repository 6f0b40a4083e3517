//! Which slots of the second level are taken: each region with groups has one chunk, a power of two of
//! slots, which is exchanged for one twice as large when it is full.
//!
//! Chunks are halved and merged as buddies (K. C. Knowlton, "A fast storage allocator", CACM 1965), the
//! lowest place first, so that what is used stays on few pages.

use std::collections::BTreeSet;

use super::REGION_GROUPS;

/// Sizes of chunks: 1, 2, 4, .. slots.
const ORDERS: usize = REGION_GROUPS.ilog2() as usize + 1;

/// The free chunks of the second level.
#[derive(Debug)]
pub(super) struct Slots {
    /// First slots of free chunks, by the binary logarithm of their size.
    free: [BTreeSet<u32>; ORDERS],
    /// Slots that chunks have.
    taken: usize,
}

impl Slots {
    /// `slots` of them, all free; a multiple of the largest chunk.
    pub(super) fn new(slots: usize) -> Self {
        let mut free = [const { BTreeSet::new() }; ORDERS];
        let firsts = (0..slots).step_by(1 << (ORDERS - 1));
        free[ORDERS - 1] = firsts.map(|first| u32::try_from(first).expect("few slots")).collect();
        Self { free, taken: 0 }
    }

    /// The first slot of a free chunk of `1 << order` slots.
    pub(super) fn take(&mut self, order: usize) -> Option<u32> {
        let found = (order..ORDERS).find(|&order| !self.free[order].is_empty())?;
        let first = self.free[found].pop_first()?;
        for half in order..found {
            self.free[half].insert(first + (1 << half));
        }
        self.taken += 1 << order;
        Some(first)
    }

    /// Frees a chunk that was taken.
    pub(super) fn give(&mut self, mut first: u32, mut order: usize) {
        self.taken -= 1 << order;
        while order + 1 < ORDERS && self.free[order].remove(&(first ^ (1 << order))) {
            first &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(first);
    }

    /// Slots that chunks have.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }
}

/// The groups of a region.
#[derive(Clone, Debug)]
pub(super) struct Region {
    /// First slot of its chunk.
    pub(super) base: u32,
    /// Binary logarithm of the slots in it.
    pub(super) order: usize,
    /// Groups that are named by an entry, or may still be read.
    used: [u64; REGION_GROUPS.div_ceil(64)],
}

impl Region {
    pub(super) const fn new(base: u32, order: usize) -> Self {
        Self { base, order, used: [0; REGION_GROUPS.div_ceil(64)] }
    }

    /// A group that is not used, which it then is; nothing if the chunk is full.
    pub(super) fn take(&mut self) -> Option<usize> {
        let groups = 1 << self.order;
        let group = (0..groups).find(|group| self.used[group / 64] & 1 << (group % 64) == 0)?;
        self.used[group / 64] |= 1 << (group % 64);
        Some(group)
    }

    pub(super) const fn give(&mut self, group: usize) {
        self.used[group / 64] &= !(1 << (group % 64));
    }

    pub(super) fn is_unused(&self) -> bool {
        self.used.iter().all(|&word| word == 0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_becomes_whole_again() {
        let mut slots = Slots::new(512);
        let mut taken = Vec::new();
        for order in [0, 3, 0, 8, 1, 2, 0, 5] {
            let first = slots.take(order).expect("there is room");
            assert_eq!(first % (1 << order), 0);
            for &(other, other_order) in &taken {
                assert!(first + (1 << order) <= other || other + (1_u32 << other_order) <= first);
            }
            taken.push((first, order));
        }
        assert_eq!(slots.taken(), 1 + 8 + 1 + 256 + 2 + 4 + 1 + 32);
        assert_eq!(slots.take(8), None, "one of the two is divided");
        for (first, order) in taken {
            slots.give(first, order);
        }
        assert_eq!(slots.taken(), 0);
        assert_eq!((slots.take(8), slots.take(8), slots.take(0)), (Some(0), Some(256), None));
    }

    #[test]
    fn a_region_uses_each_group_once() {
        let mut region = Region::new(0, 7);
        let groups: Vec<_> = std::iter::from_fn(|| region.take()).collect();
        assert_eq!(groups, (0..128).collect::<Vec<_>>());
        region.give(77);
        assert_eq!((region.take(), region.take()), (Some(77), None));
        (0..128).for_each(|group| region.give(group));
        assert!(region.is_unused());
    }
}
