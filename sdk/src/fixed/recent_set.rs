//! [`RecentSet`]: the keys that were used of late.

use core::hash::Hash;

use crate::fixed::ExpiringMap;

/// A set of fixed size that forgets what was not used for longest, of the eight keys that could lie in
/// the place that a new one needs.
#[derive(Clone, Debug)]
pub struct RecentSet<K> {
    keys: ExpiringMap<K, ()>,
    /// Uses so far: a clock that no two uses share.
    uses: u64,
}

impl<K: Eq + Hash> RecentSet<K> {
    /// An empty set for `entries` keys, rounded up to a power of two of at least eight.
    #[must_use]
    pub fn new(entries: usize, seed: u64) -> Self {
        Self { keys: ExpiringMap::new(entries, u64::MAX, seed), uses: 0 }
    }

    /// Puts a key in, or uses it; says whether it was there.
    pub fn insert(&mut self, key: K) -> bool {
        self.uses += 1;
        !self.keys.get_or_insert_with(key, self.uses, || ()).is_new
    }

    /// Whether a key is there; counts as no use.
    #[must_use]
    pub fn contains(&self, key: &K) -> bool {
        self.keys.get(key, self.uses).is_some()
    }

    /// Takes a key out; says whether it was there.
    pub fn remove(&mut self, key: &K) -> bool {
        self.keys.remove(key, self.uses).is_some()
    }

    /// Takes all keys out.
    pub fn clear(&mut self) {
        self.keys.clear();
    }

    /// Keys that it has places for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.keys.capacity()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// With one set of eight places it is exactly the eight that were used last.
        #[test]
        fn eight_places_hold_the_eight_used_last(keys in prop::collection::vec(0_u8..24, 0..300)) {
            let mut set = RecentSet::new(8, 3);
            let mut model = VecDeque::new();
            for key in keys {
                let known = model.iter().position(|other| *other == key);
                prop_assert_eq!(set.insert(key), known.is_some());
                known.map(|position| model.remove(position));
                model.push_back(key);
                if model.len() > 8 {
                    model.pop_front();
                }
                for key in 0..24 {
                    prop_assert_eq!(set.contains(&key), model.contains(&key));
                }
            }
        }

        /// It never claims a key that was not put in or was taken out.
        #[test]
        fn it_knows_no_key_that_was_not_put_in(
            steps in prop::collection::vec((any::<bool>(), 0_u16..500), 0..500), seed: u64,
        ) {
            let mut set = RecentSet::new(64, seed);
            let mut model = HashSet::new();
            for (put, key) in steps {
                if put {
                    let was_there = set.insert(key);
                    prop_assert!(model.contains(&key) || !was_there);
                    model.insert(key);
                } else {
                    let was_there = set.remove(&key);
                    prop_assert!(model.remove(&key) || !was_there);
                }
                prop_assert_eq!(set.contains(&key), put);
            }
        }
    }
}
