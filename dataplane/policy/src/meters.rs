//! Token buckets that all workers share, so that a configured rate holds for the whole router.
//!
//! ```text
//!   key (16 bytes) --keyed hash--> set of 4 ways, one cache line:
//!   | tag 0 | tag 1 | tag 2 | tag 3 | TAT 0 | TAT 1 | TAT 2 | TAT 3 |
//! ```
//!
//! A bucket is one 64-bit number (see [`sluice_abi::meter`]) that is changed by compare-and-swap, so
//! no token is given twice whatever the workers do. A full set gives the entry nearest to idle to
//! the newcomer, *with its debt*: one store changes the owner, and a flood of new keys mints no
//! tokens. A set is changed by one worker at a time, without waiting: who finds it taken looks again
//! a few times and then charges the entry that it would have got.
//!
//! Where a router has one worker, nobody else changes a bucket, and it is stored without a locked
//! instruction, which costs as much as all the rest. (A plugin that takes tokens while it is configured, on
//! another thread, may then get them for nothing.)
//!
//! The hash is keyed anew in each process: nobody can aim keys at one set. Two keys of equal 64-bit
//! hash share a bucket.

use std::{
    hash::{BuildHasher, RandomState},
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde::Serialize;
use sluice_abi::meter::Rate;

use crate::registry::{Registry, SharedTable};

/// Ways of a set: two arrays of four fill one cache line.
const WAYS: usize = 4;
/// The most entries of a table: 64 MiB.
pub(crate) const ENTRIES_MAX: usize = 1 << 22;
/// The most tables that one plugin may open.
pub(crate) const METERS_MAX: usize = 16;
/// How often a worker looks at a set that another is changing, which takes it some 20 ns.
const CLAIM_TRIES: usize = 64;

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set {
    tags: [AtomicU64; WAYS],
    tats: [AtomicU64; WAYS],
}

impl Set {
    fn copy(&self) -> Self {
        let copied = |word: &AtomicU64| AtomicU64::new(word.load(Ordering::Relaxed));
        Self { tags: self.tags.each_ref().map(copied), tats: self.tats.each_ref().map(copied) }
    }

    #[inline]
    fn find(&self, tag: u64) -> Option<&AtomicU64> {
        // Without a branch for each way: which it is, is as random as the hash.
        let mut found = WAYS;
        for (way, owner) in self.tags.iter().enumerate() {
            found = if owner.load(Ordering::Relaxed) == tag { way } else { found };
        }
        self.tats.get(found)
    }

    /// The entry that is idle already or will be soonest, with its tag and TAT.
    fn nearest_to_idle(&self) -> (&AtomicU64, &AtomicU64, u64) {
        let [first_tag, ..] = &self.tags;
        let [first, ..] = &self.tats;
        let mut nearest = (first_tag, first, first.load(Ordering::Relaxed));
        for (tag, entry) in self.tags.iter().zip(&self.tats) {
            let tat = entry.load(Ordering::Relaxed);
            if tat < nearest.2 {
                nearest = (tag, entry, tat);
            }
        }
        nearest
    }
}

/// The buckets of one meter, shared by all workers and kept across generations.
#[derive(Debug)]
pub(crate) struct MeterTable {
    sets: Box<[Set]>,
    claims: Box<[AtomicBool]>,
    mask: usize,
    hasher: ahash::RandomState,
    evictions: AtomicU64,
}

impl SharedTable for MeterTable {
    /// A table of at least `entries` buckets, all full.
    fn new(entries: usize) -> Self {
        let sets = sets_for(entries);
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            claims: (0..sets).map(|_| AtomicBool::default()).collect(),
            mask: sets - 1,
            hasher: keyed_hasher(),
            evictions: AtomicU64::new(0),
        }
    }

    fn room(entries: usize) -> usize {
        sets_for(entries)
    }

    fn copy(&self) -> Self {
        Self {
            sets: self.sets.iter().map(Set::copy).collect(),
            claims: self.claims.iter().map(|_| AtomicBool::default()).collect(),
            mask: self.mask,
            hasher: self.hasher.clone(),
            evictions: AtomicU64::new(0),
        }
    }
}

/// A hasher with a key of its own, so that nobody can aim keys at one place. The standard library's
/// is keyed by the operating system's random numbers; its output keys the quicker one.
pub(crate) fn keyed_hasher() -> ahash::RandomState {
    let seed = RandomState::new();
    let [a, b, c, d] = [1_u64, 2, 3, 4].map(|number| seed.hash_one(number));
    ahash::RandomState::with_seeds(a, b, c, d)
}

impl MeterTable {
    pub(crate) fn entries(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Entries that were given to another key while they were in debt.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn hash(&self, key: [u8; 16]) -> u64 {
        self.hasher.hash_one(u128::from_le_bytes(key))
    }

    fn position(&self, hash: u64) -> usize {
        (hash >> 32) as usize & self.mask
    }

    /// Fetches the line that [`Self::charge`] will need.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u64 {
        self.sets.get(self.position(hash)).map_or(0, |set| {
            let [tag, ..] = &set.tags;
            tag.load(Ordering::Relaxed)
        })
    }

    /// Takes `cost` tokens from the bucket of `hash` at the time `now`, in units. False when it
    /// holds fewer. With `IS_SHARED` others may charge it at the same time.
    #[inline]
    pub(crate) fn charge<const IS_SHARED: bool>(
        &self,
        rate: &Rate,
        hash: u64,
        now: u64,
        cost: u32,
    ) -> bool {
        let position = self.position(hash);
        let Some(set) = self.sets.get(position) else {
            return false;
        };
        // Zero marks a way that nobody owns yet.
        let tag = hash | 1;
        let entry = match set.find(tag) {
            Some(entry) => entry,
            None => self.insert(set, position, tag, now),
        };
        let mut tat = entry.load(Ordering::Relaxed);
        loop {
            let Some(next) = rate.take(tat, now, cost) else {
                return false;
            };
            if !IS_SHARED {
                entry.store(next, Ordering::Relaxed);
                return true;
            }
            match entry.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => tat = current,
            }
        }
    }

    #[cold]
    fn insert<'a>(&'a self, set: &'a Set, position: usize, tag: u64, now: u64) -> &'a AtomicU64 {
        if let Some(claim) = self.claims.get(position) {
            for _ in 0..CLAIM_TRIES {
                if !claim.swap(true, Ordering::Acquire) {
                    // Between the first look and the claim another worker may have put it in.
                    let entry = set.find(tag).unwrap_or_else(|| {
                        let (owner, entry, tat) = set.nearest_to_idle();
                        if tat > now {
                            self.evictions.fetch_add(1, Ordering::Relaxed);
                        }
                        owner.store(tag, Ordering::Relaxed);
                        entry
                    });
                    claim.store(false, Ordering::Release);
                    return entry;
                }
                spin_loop();
                if let Some(entry) = set.find(tag) {
                    return entry;
                }
            }
        }
        set.nearest_to_idle().1
    }
}

/// One meter of an instance: the shared buckets, and the rate that its generation asked for.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    pub(crate) table: Arc<MeterTable>,
    pub(crate) rate: Rate,
    /// Several workers charge it.
    pub(crate) is_shared: bool,
}

impl Meter {
    /// Charges buckets, each with its hash and cost, and says of each whether it had the tokens.
    #[inline]
    pub(crate) fn charge_each(
        &self,
        charges: impl Iterator<Item = (u64, u32)>,
        now: u64,
        results: &mut [u8],
    ) {
        let Self { table, rate, is_shared } = self;
        let results = results.iter_mut().zip(charges);
        if *is_shared {
            for (result, (hash, cost)) in results {
                *result = u8::from(table.charge::<true>(rate, hash, now, cost));
            }
        } else {
            for (result, (hash, cost)) in results {
                *result = u8::from(table.charge::<false>(rate, hash, now, cost));
            }
        }
    }
}

/// What `sluice status` shows of one meter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MeterStatus {
    /// Its handle: its place in the order of opening.
    pub handle: usize,
    /// Buckets that it has room for.
    pub entries: usize,
    /// Buckets that were given to another key before they were full again. Any at all means that
    /// `entries` is too small for the traffic.
    pub evictions: u64,
}

/// The meters of all plugins.
pub(crate) type MeterRegistry = Registry<MeterTable>;

impl MeterRegistry {
    pub(crate) fn status(&self, plugin: &str) -> Vec<MeterStatus> {
        let status = |(handle, table): (usize, Arc<MeterTable>)| MeterStatus {
            handle,
            entries: table.entries(),
            evictions: table.evictions(),
        };
        self.of(plugin).into_iter().map(status).collect()
    }
}

/// Sets of a table that is asked for `entries` buckets.
fn sets_for(entries: usize) -> usize {
    entries.clamp(WAYS, ENTRIES_MAX).div_ceil(WAYS).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use sluice_abi::meter::units;

    use super::*;

    const NOW: u64 = units(1_000_000_000);

    fn admitted(table: &MeterTable, rate: &Rate, key: [u8; 16], now: u64, offered: u32) -> u32 {
        let hash = table.hash(key);
        (0..offered).map(|_| u32::from(table.charge::<true>(rate, hash, now, 1))).sum()
    }

    #[test]
    fn threads_share_one_budget_exactly() {
        let rate = Rate::new(1_000, 10_000).expect("a rate");
        for round in 0..50_u8 {
            let table = MeterTable::new(1024);
            let barrier = Barrier::new(2);
            let sum: u32 = thread::scope(|scope| {
                let offer = || {
                    barrier.wait();
                    admitted(&table, &rate, [round; 16], NOW, 8_000)
                };
                let threads = [scope.spawn(offer), scope.spawn(offer)];
                threads.map(|thread| thread.join().expect("no panic")).iter().sum()
            });
            assert_eq!(sum, 10_000, "round {round}");
            assert_eq!(table.evictions(), 0);
        }
    }

    #[test]
    fn one_worker_gets_what_several_get() {
        let rate = Rate::new(1_000_000, 7).expect("a rate");
        let sole = MeterTable::new(1 << 16);
        let shared = sole.copy();
        for step in 0..100_000_u64 {
            let key = u128::from(step * 7919 % 301).to_le_bytes();
            let (now, cost) = (NOW + units(step * 3_000), (step % 3) as u32);
            let hash = sole.hash(key);
            assert_eq!(
                sole.charge::<false>(&rate, hash, now, cost),
                shared.charge::<true>(&rate, hash, now, cost),
                "step {step}"
            );
        }
    }

    #[test]
    fn keys_have_buckets_of_their_own() {
        let rate = Rate::new(1_000, 3).expect("a rate");
        let table = MeterTable::new(4096);
        for key in 0..64_u8 {
            assert_eq!(admitted(&table, &rate, [key; 16], NOW, 5), 3, "key {key}");
        }
        assert_eq!(admitted(&table, &rate, [9; 16], NOW + units(1_000_000_000), 5), 1);
    }

    #[test]
    fn a_flood_of_keys_evicts_and_mints_no_tokens() {
        let rate = Rate::new(1_000, 10).expect("a rate");
        let table = MeterTable::new(4);
        assert_eq!(table.entries(), 4);
        let total: u32 =
            (0..1000_u128).map(|key| admitted(&table, &rate, key.to_le_bytes(), NOW, 1)).sum();
        assert_eq!(total, 40, "four ways of ten tokens each");
        assert!(table.evictions() > 900, "{}", table.evictions());
    }

    #[test]
    fn an_idle_entry_is_reused_without_an_eviction() {
        let rate = Rate::new(1_000_000, 10).expect("a rate");
        let table = MeterTable::new(4);
        for key in 0..100_u128 {
            let now = NOW + units(1_000_000_000) * u64::try_from(key).expect("small");
            assert_eq!(admitted(&table, &rate, key.to_le_bytes(), now, 20), 10);
        }
        assert_eq!(table.evictions(), 0);
    }

    #[test]
    fn tables_outlive_generations_of_the_same_size() {
        let registry = MeterRegistry::default();
        let first = registry.open("a", 0, 1000);
        assert!(Arc::ptr_eq(&first, &registry.open("a", 0, 1000)));
        assert!(!Arc::ptr_eq(&first, &registry.open("a", 1, 1000)));
        assert!(!Arc::ptr_eq(&first, &registry.open("b", 0, 1000)));
        assert!(!Arc::ptr_eq(&first, &registry.open("a", 0, 5000)));
        assert_eq!(registry.status("a").len(), 3);
        registry.prune();
        let kept: Vec<_> = registry.status("a").iter().map(|meter| meter.entries).collect();
        assert_eq!(kept, [1024], "one is still used");
        drop(first);
        registry.prune();
        assert!(registry.status("a").is_empty());
    }
}
