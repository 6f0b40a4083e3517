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

mod keys;
mod vectors;

use std::{
    hint::{select_unpredictable, spin_loop},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use serde::Serialize;
use sluice_abi::meter::{Rate, RateAt};
use tables::prefetch;

pub(crate) use keys::{PrefixMasks, keyed_hasher};

use crate::registry::{Registry, SharedTable};
use keys::KeyHash;

/// Ways of a set: two arrays of four fill one cache line.
const WAYS: usize = 4;
/// The most entries of a table: 64 MiB.
pub(crate) const ENTRIES_MAX: usize = 1 << 22;
/// The most tables that one plugin may open.
pub(crate) const METERS_MAX: usize = 16;
/// Of a larger table lines are fetched ahead. Those of a smaller one are near enough that the processor, which
/// charges a dozen buckets at a time, waits for none.
const FETCHED_BYTES: usize = 1 << 20;
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

    fn find(&self, tag: u64) -> Option<&AtomicU64> {
        self.tats.get(Portable::find(&self.tags, tag)?)
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

/// How a tag is found among those of a set.
trait Find {
    /// Which of them it is. To be marked `#[inline(always)]`: what is not inlined is compiled for any
    /// processor.
    fn find(tags: &[AtomicU64; WAYS], tag: u64) -> Option<usize>;
}

/// One after the other.
struct Portable;

impl Find for Portable {
    #[inline(always)]
    fn find(tags: &[AtomicU64; WAYS], tag: u64) -> Option<usize> {
        // Without a branch for each way: which it is, is as random as the hash.
        let mut found = None;
        for (way, owner) in tags.iter().enumerate() {
            found = if owner.load(Ordering::Relaxed) == tag { Some(way) } else { found };
        }
        found
    }
}

/// The buckets of one meter, shared by all workers and kept across generations.
#[derive(Debug)]
pub(crate) struct MeterTable {
    sets: Box<[Set]>,
    claims: Box<[AtomicBool]>,
    hash: KeyHash,
    evictions: AtomicU64,
}

impl SharedTable for MeterTable {
    /// A table of at least `entries` buckets, all full.
    fn new(entries: usize) -> Self {
        Self::hashing(entries, KeyHash::new())
    }

    fn room(entries: usize) -> usize {
        sets_for(entries)
    }

    fn copy(&self) -> Self {
        Self {
            sets: self.sets.iter().map(Set::copy).collect(),
            claims: self.claims.iter().map(|_| AtomicBool::default()).collect(),
            hash: self.hash.clone(),
            evictions: AtomicU64::new(0),
        }
    }
}

impl MeterTable {
    fn hashing(entries: usize, hash: KeyHash) -> Self {
        let sets = sets_for(entries);
        Self {
            sets: (0..sets).map(|_| Set::default()).collect(),
            claims: (0..sets).map(|_| AtomicBool::default()).collect(),
            hash,
            evictions: AtomicU64::new(0),
        }
    }

    pub(crate) fn entries(&self) -> usize {
        self.sets.len() * WAYS
    }

    /// Entries that were given to another key while they were in debt.
    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// The hashes of keys, as many as there is room for. Fetches the lines that charging them will need, if
    /// the table is large.
    #[inline]
    pub(crate) fn hash_each(&self, keys: impl Iterator<Item = [u8; 16]>, hashes: &mut [u64]) {
        self.hash.each(keys, hashes, self.fetch());
    }

    /// The same for the prefixes of addresses.
    #[inline]
    pub(crate) fn hash_each_prefix(
        &self,
        masks: PrefixMasks,
        addresses: impl Iterator<Item = [u8; 16]>,
        hashes: &mut [u64],
    ) {
        self.hash.each_prefix(masks, addresses, hashes, self.fetch());
    }

    #[inline(always)]
    fn fetch(&self) -> impl Fn(u64) + '_ {
        let sets = &*self.sets;
        let is_large = size_of_val(sets) > FETCHED_BYTES;
        move |hash| {
            if is_large && let Some(set) = sets.get(position(hash, sets)) {
                prefetch(set);
            }
        }
    }

    /// Takes `cost` tokens from the bucket of `hash`. False when it holds fewer. With `IS_SHARED` others may
    /// charge it at the same time.
    #[inline(always)]
    fn charge<F: Find, const IS_SHARED: bool>(
        &self,
        sets: &[Set],
        rate: &RateAt,
        hash: u64,
        cost: u32,
    ) -> bool {
        // Nobody owns the tag 0.
        let tag = hash | 1;
        let position = position(hash, sets);
        let Some(set) = sets.get(position) else {
            return false;
        };
        // The remainder says to the compiler that there is such a way.
        let entry = match F::find(&set.tags, tag).and_then(|way| set.tats.get(way % WAYS)) {
            Some(entry) => entry,
            None => self.insert(set, position, tag, rate.now()),
        };
        let mut tat = entry.load(Ordering::Relaxed);
        if !IS_SHARED {
            // Without a branch: which packet is refused cannot be foretold.
            let next = rate.take(tat, cost);
            let kept = select_unpredictable(next.is_some(), next.unwrap_or_default(), tat);
            entry.store(kept, Ordering::Relaxed);
            return next.is_some();
        }
        while let Some(next) = rate.take(tat, cost) {
            match entry.compare_exchange_weak(tat, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(current) => tat = current,
            }
        }
        false
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

/// What a batch takes from the buckets of a meter.
pub(crate) struct Charges<'a> {
    pub(crate) meter: &'a Meter,
    /// The time in units.
    pub(crate) now: u64,
    pub(crate) hashes: &'a [u64],
    /// Tokens for each; one, if there is no such list.
    pub(crate) costs: Option<&'a [u32]>,
    /// For each hash, whether its bucket had the tokens: 1 or 0.
    pub(crate) results: &'a mut [u8],
}

impl Charges<'_> {
    /// Charges the buckets one after the other.
    #[inline]
    pub(crate) fn make(self) {
        let meter = self.meter;
        match (&meter.table.hash, meter.is_shared) {
            (KeyHash::Aes(vectors, _), true) => vectors.charge_each::<true>(self),
            (KeyHash::Aes(vectors, _), false) => vectors.charge_each::<false>(self),
            (KeyHash::Portable(_), true) => self.each::<Portable, true>(),
            (KeyHash::Portable(_), false) => self.each::<Portable, false>(),
        }
    }

    #[inline(always)]
    fn each<F: Find, const IS_SHARED: bool>(self) {
        let Self { meter: Meter { table, rate, .. }, now, hashes, costs, results } = self;
        // Not looked up again for each: the compiler cannot know that no result lies over them.
        let (table, sets, rate) = (&**table, &*table.sets, rate.at(now));
        let results = results.iter_mut().zip(hashes);
        let charge = |hash, cost| u8::from(table.charge::<F, IS_SHARED>(sets, &rate, hash, cost));
        match costs {
            None => results.for_each(|(result, hash)| *result = charge(*hash, 1)),
            Some(costs) => {
                for ((result, hash), cost) in results.zip(costs) {
                    *result = charge(*hash, *cost);
                }
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

/// Where the set of a hash is. There is a power of two of them.
#[inline(always)]
fn position(hash: u64, sets: &[Set]) -> usize {
    (hash >> 32) as usize & sets.len().wrapping_sub(1)
}

/// Sets of a table that is asked for `entries` buckets.
fn sets_for(entries: usize) -> usize {
    entries.clamp(WAYS, ENTRIES_MAX).div_ceil(WAYS).next_power_of_two()
}

#[cfg(test)]
mod tests;
