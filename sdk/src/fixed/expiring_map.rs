//! [`ExpiringMap`]: a hash map of fixed size whose entries expire when they are not used.
//!
//! ```text
//!  hash(key) -> set      | way 0 | way 1 | ... | way 7 |    key, value, last use
//! ```
//!
//! Terms as in caches: a *set* of eight *ways*. A new key takes the place in its set that is free or
//! expired, or else that of the entry that was not used for longest, which is handed back.

use alloc::{boxed::Box, vec::Vec};
use core::hash::Hash;

use ahash::RandomState;

/// Places that a key may lie in.
const WAYS: usize = 8;

#[derive(Clone, Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    used_ns: u64,
}

/// A hash map with room for a fixed number of entries. An entry that was not used for its lifetime is
/// gone.
#[derive(Clone, Debug)]
pub struct ExpiringMap<K, V> {
    entries: Box<[Option<Entry<K, V>>]>,
    sets_mask: usize,
    lifetime_ns: u64,
    /// The place that [`ExpiringMap::expire`] looks at next.
    expire_at: usize,
    hasher: RandomState,
}

/// What [`ExpiringMap::get_or_insert_with`] found or made.
#[derive(Debug)]
pub struct Slot<'m, K, V> {
    /// The value of the key.
    pub value: &'m mut V,
    /// Whether the key was not there before.
    pub is_new: bool,
    /// The entry that had to make room, if it had not expired.
    pub evicted: Option<(K, V)>,
}

impl<K: Eq + Hash, V> ExpiringMap<K, V> {
    /// An empty map for `entries` entries, rounded up to a power of two of at least eight. Since a key has
    /// eight places to choose from, take twice as many as are expected to be in use at once. Entries live
    /// for `lifetime_ns` after their last use; [`u64::MAX`] is for ever.
    #[must_use]
    pub fn new(entries: usize, lifetime_ns: u64, seed: u64) -> Self {
        let entries = entries.max(WAYS).next_power_of_two();
        let places: Vec<_> = core::iter::repeat_with(|| None).take(entries).collect();
        Self {
            entries: places.into_boxed_slice(),
            sets_mask: entries / WAYS - 1,
            lifetime_ns,
            expire_at: 0,
            hasher: RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 0x736c_7569_6365),
        }
    }

    /// Entries that it has places for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Entries that are alive at `now_ns`. Looks at every place.
    #[must_use]
    pub fn count(&self, now_ns: u64) -> usize {
        self.iter(now_ns).count()
    }

    /// The living entries, in no order. Looks at every place.
    pub fn iter(&self, now_ns: u64) -> impl Iterator<Item = (&K, &V)> {
        self.iter_used(now_ns).map(|(key, value, _)| (key, value))
    }

    /// The living entries, each with the time of its last use, in no order. Looks at every place.
    ///
    /// An `export` writes them with their times; an `import` puts each into an empty map by
    /// [`get_or_insert_with`](Self::get_or_insert_with) with its time as `now_ns`, so that it expires when it
    /// would have.
    pub fn iter_used(&self, now_ns: u64) -> impl Iterator<Item = (&K, &V, u64)> {
        let lifetime = self.lifetime_ns;
        let living = move |entry: &&Entry<K, V>| is_alive(entry.used_ns, now_ns, lifetime);
        let entries = self.entries.iter().flatten().filter(living);
        entries.map(|entry| (&entry.key, &entry.value, entry.used_ns))
    }

    /// The value of a key, which counts as no use.
    #[must_use]
    pub fn get(&self, key: &K, now_ns: u64) -> Option<&V> {
        let start = self.set_of(key);
        self.entries[start..start + WAYS]
            .iter()
            .flatten()
            .find(|entry| entry.key == *key && is_alive(entry.used_ns, now_ns, self.lifetime_ns))
            .map(|entry| &entry.value)
    }

    /// The value of a key, which is thereby used.
    #[must_use]
    pub fn get_mut(&mut self, key: &K, now_ns: u64) -> Option<&mut V> {
        let start = self.set_of(key);
        let lifetime = self.lifetime_ns;
        let entry = self.entries[start..start + WAYS]
            .iter_mut()
            .flatten()
            .find(|entry| entry.key == *key && is_alive(entry.used_ns, now_ns, lifetime))?;
        entry.used_ns = now_ns.max(entry.used_ns);
        Some(&mut entry.value)
    }

    /// The value of a key, which is thereby used; one that `make` makes if it is not there.
    pub fn get_or_insert_with(
        &mut self,
        key: K,
        now_ns: u64,
        make: impl FnOnce() -> V,
    ) -> Slot<'_, K, V> {
        let start = self.set_of(&key);
        let lifetime = self.lifetime_ns;
        let set = &mut self.entries[start..start + WAYS];
        // One pass: the key's own place, or the place that it would take.
        let mut best = 0;
        let mut best_rank = u64::MAX;
        let mut found = false;
        for (way, place) in set.iter().enumerate() {
            let rank = match place {
                Some(entry) if !is_alive(entry.used_ns, now_ns, lifetime) => 0,
                Some(entry) if entry.key == key => {
                    (best, found) = (way, true);
                    break;
                }
                Some(entry) => entry.used_ns.saturating_add(1),
                None => 0,
            };
            if rank < best_rank {
                (best, best_rank) = (way, rank);
            }
        }
        let place = &mut set[best];
        let mut evicted = None;
        if !found {
            let new = Entry { key, value: make(), used_ns: now_ns };
            let old = place.replace(new);
            evicted = old
                .filter(|old| is_alive(old.used_ns, now_ns, lifetime))
                .map(|old| (old.key, old.value));
        }
        let Some(entry) = place else { unreachable!("the place was filled or found") };
        entry.used_ns = now_ns.max(entry.used_ns);
        Slot { value: &mut entry.value, is_new: !found, evicted }
    }

    /// Takes a key out.
    pub fn remove(&mut self, key: &K, now_ns: u64) -> Option<V> {
        let start = self.set_of(key);
        let lifetime = self.lifetime_ns;
        let place = self.entries[start..start + WAYS].iter_mut().find(|place| {
            place
                .as_ref()
                .is_some_and(|entry| entry.key == *key && is_alive(entry.used_ns, now_ns, lifetime))
        })?;
        place.take().map(|entry| entry.value)
    }

    /// Keeps of the living entries those for which `keep`, which is given the time of the last use, says so.
    /// Neither is a use. Expired ones go unasked. Looks at every place, and allocates nothing.
    pub fn retain(&mut self, now_ns: u64, mut keep: impl FnMut(&K, &mut V, u64) -> bool) {
        let lifetime = self.lifetime_ns;
        for place in &mut self.entries {
            let is_kept = place.as_mut().is_some_and(|Entry { key, value, used_ns }| {
                is_alive(*used_ns, now_ns, lifetime) && keep(key, value, *used_ns)
            });
            if !is_kept {
                *place = None;
            }
        }
    }

    /// Takes expired entries out, and hands each over with the time of its last use: for a `tick` that tells
    /// of what expired. Without it, an expired entry lies unseen until a new key takes its place.
    ///
    /// Looks at `places` places, from the one behind the last that the call before looked at, and begins
    /// again at the end: [`capacity`](Self::capacity) of them are the whole map. A tick whose budget a large
    /// map would outlast looks at a part of it. Allocates nothing.
    pub fn expire(&mut self, now_ns: u64, places: usize, mut expired: impl FnMut(K, V, u64)) {
        let lifetime = self.lifetime_ns;
        let is_over = |entry: &mut Entry<K, V>| !is_alive(entry.used_ns, now_ns, lifetime);
        for _ in 0..places.min(self.entries.len()) {
            if let Some(entry) = self.entries[self.expire_at].take_if(is_over) {
                expired(entry.key, entry.value, entry.used_ns);
            }
            // The length is a power of two.
            self.expire_at = (self.expire_at + 1) & (self.entries.len() - 1);
        }
    }

    /// Takes all entries out.
    pub fn clear(&mut self) {
        self.entries.fill_with(|| None);
    }

    fn set_of(&self, key: &K) -> usize {
        (self.hasher.hash_one(key) as usize & self.sets_mask) * WAYS
    }
}

/// Alive until `lifetime_ns` are over; for ever with [`u64::MAX`].
fn is_alive(used_ns: u64, now_ns: u64, lifetime_ns: u64) -> bool {
    now_ns.saturating_sub(used_ns) < lifetime_ns
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Use(u16),
        Look(u16),
        Touch(u16),
        Remove(u16),
        /// Keep the keys above it, and those that were used since the time before it.
        Retain(u16, u64),
        /// Expire what is in so many places.
        Expire(usize),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let key = 0_u16..60;
        let step = prop_oneof![
            6 => key.clone().prop_map(Step::Use),
            2 => key.clone().prop_map(Step::Look),
            2 => key.clone().prop_map(Step::Touch),
            1 => key.clone().prop_map(Step::Remove),
            1 => (key, 0_u64..50).prop_map(|(key, age)| Step::Retain(key, age)),
            1 => (0_usize..40).prop_map(Step::Expire),
            2 => (0_u64..40).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..400)
    }

    proptest! {
        /// Against a map without bounds, from which what the table says that it evicted is removed.
        #[test]
        fn it_is_a_hash_map_that_says_what_it_forgets(steps in steps(), seed: u64) {
            const LIFETIME: u64 = 50;
            let mut map = ExpiringMap::new(32, LIFETIME, seed);
            let mut model = HashMap::<u16, (u32, u64)>::new();
            // What expired and was not handed over. Some of it may have made room since.
            let mut over = HashSet::<(u16, u32, u64)>::new();
            let mut now = 0;
            let mut made = 0;
            for step in steps {
                match step {
                    Step::Use(key) => {
                        made += 1;
                        let slot = map.get_or_insert_with(key, now, || made);
                        prop_assert_eq!(slot.is_new, !model.contains_key(&key));
                        if let Some((evicted, value)) = slot.evicted {
                            let (known, used) = model.remove(&evicted).expect("it was there");
                            prop_assert_eq!(known, value);
                            prop_assert!(model.values().filter(|(_, at)| *at < used).count() < 32 - 7);
                        }
                        let entry = model.entry(key).or_insert((made, now));
                        entry.1 = now;
                        prop_assert_eq!(*slot.value, entry.0);
                    }
                    Step::Look(key) => {
                        prop_assert_eq!(map.get(&key, now), model.get(&key).map(|entry| &entry.0));
                    }
                    Step::Touch(key) => {
                        let expected = model.get_mut(&key).map(|entry| {
                            entry.1 = now;
                            entry.0
                        });
                        prop_assert_eq!(map.get_mut(&key, now).copied(), expected);
                    }
                    Step::Remove(key) => {
                        let expected = model.remove(&key).map(|entry| entry.0);
                        prop_assert_eq!(map.remove(&key, now), expected);
                    }
                    Step::Retain(least, age) => {
                        let keep = |key: u16, used: u64| key > least || now - used < age;
                        map.retain(now, |key, value, used| {
                            assert_eq!(model.get(key), Some(&(*value, used)));
                            keep(*key, used)
                        });
                        model.retain(|key, (_, used)| keep(*key, *used));
                        over.clear();
                    }
                    Step::Expire(places) => {
                        map.expire(now, places, |key, value, used| {
                            assert!(over.remove(&(key, value, used)));
                        });
                    }
                    Step::Wait(ns) => now += ns,
                }
                let gone = model.extract_if(|_, (_, used)| now - *used >= LIFETIME);
                over.extend(gone.map(|(key, (value, used))| (key, value, used)));
                let mut entries: Vec<_> = map.iter_used(now).map(|(k, v, used)| (*k, (*v, used))).collect();
                let mut expected: Vec<_> = model.iter().map(|(k, v)| (*k, *v)).collect();
                entries.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(&entries, &expected);
                prop_assert_eq!(map.count(now), model.len());
            }
        }
    }

    #[test]
    fn what_expired_is_handed_over_once_part_by_part() {
        let mut map = ExpiringMap::new(32, 50, 1);
        for key in 0..8_u64 {
            assert!(map.get_or_insert_with(key, key, || ()).is_new);
        }
        let mut expired = Vec::new();
        // At 53 the first four are over.
        for _ in 0..4 {
            map.expire(53, 8, |key, (), used| expired.push((key, used)));
        }
        expired.sort_unstable();
        assert_eq!(expired, [(0, 0), (1, 1), (2, 2), (3, 3)]);
        map.expire(53, usize::MAX, |key, (), _| panic!("{key} a second time"));
        assert_eq!(map.count(53), 4);
        map.expire(1000, map.capacity(), |key, (), used| assert_eq!(key, used));
        assert_eq!(map.entries.iter().flatten().count(), 0);
    }

    #[test]
    fn an_entry_that_is_put_back_with_its_time_expires_when_it_would_have() {
        let mut map = ExpiringMap::new(8, 50, 1);
        for key in 0..4_u64 {
            map.get_or_insert_with(key, key * 10, || key);
        }
        let mut next = ExpiringMap::new(64, 50, 2);
        for (key, value, used) in map.iter_used(30) {
            assert!(next.get_or_insert_with(*key, used, || *value).is_new);
        }
        for now in 30..100 {
            assert_eq!(next.count(now), map.count(now), "{now}");
        }
    }

    #[test]
    fn in_a_full_set_the_one_not_used_for_longest_makes_room() {
        let mut map = ExpiringMap::new(8, u64::MAX, 1);
        for key in 0..8_i32 {
            assert!(
                map.get_or_insert_with(key, u64::from(key.unsigned_abs()), || key)
                    .evicted
                    .is_none()
            );
        }
        assert_eq!(map.get_mut(&0, 100), Some(&mut 0));
        let slot = map.get_or_insert_with(8, 101, || 8);
        assert_eq!(slot.evicted, Some((1, 1)));
        assert_eq!(map.count(u64::MAX), 8, "without a lifetime nothing expires");
        map.clear();
        assert_eq!((map.count(0), map.capacity()), (0, 8));
    }
}
