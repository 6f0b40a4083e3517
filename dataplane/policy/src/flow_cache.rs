//! [`FlowCache`]: verdicts of one plugin on one worker, kept for the flows that they were given to.
//!
//! ```text
//!  5-tuple, VRF, ingress --keyed hash--> set of 4 tags (16 bytes) --> entries:
//!    | key | verdict | edit | expires | slice, next hop | epoch |
//! ```
//!
//! Invariants: what is found was given to a packet of the same key, route and slice, since the cache was
//! last cleared, and is not over. What is kept is the guest's words, unread: whoever takes them out checks
//! them as those of a call. The cache never grows; a full set forgets the verdict that would be over
//! first, and its flow is asked about again. To clear it is to count an epoch on.
//!
//! Absent: hook and plugin as parts of the key, since each place of a plugin has a cache of its own; and
//! verdicts that hold for the router rather than for one worker, which is what quotas are for.

use frame::Nanos;
use sluice_abi::{Descriptor, Edit, flags};

use crate::meters::keyed_hasher;

/// Entries of a set: their tags are a quarter of a cache line.
const WAYS: usize = 4;
/// Sets: 16,384 flows, 1.6 MiB. Less would forget the flows of a busy worker within their lifetimes,
/// more would not fit the second-level cache.
const SETS: usize = 4096;
/// Nanoseconds in a unit of a verdict's lifetime.
const LIFETIME_UNIT_NS: u64 = 100_000_000;

/// What the packets of a flow have in common, as words.
type Key = [u64; 6];

#[derive(Clone, Copy, Default)]
struct Entry {
    key: Key,
    word: u64,
    edit: Edit,
    expires: Nanos,
    slice: u32,
    next_hop: u16,
    epoch: u32,
}

/// See the module's head.
pub(crate) struct FlowCache {
    /// 0 where nothing was kept yet.
    tags: Box<[[u32; WAYS]]>,
    entries: Box<[[Entry; WAYS]]>,
    epoch: u32,
    hasher: ahash::RandomState,
}

/// Where a key is looked for.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    set: usize,
    tag: u32,
}

/// Whether a packet's verdict may be kept, or taken from what is kept: a fragment may have no ports, and
/// an ICMP error speaks about another flow.
pub(crate) const fn is_of_a_flow(descriptor: &Descriptor) -> bool {
    descriptor.flags & (flags::FRAGMENT | flags::LATER_FRAGMENT | flags::ICMP_ERROR) == 0
}

/// How long a verdict holds, in nanoseconds.
#[inline]
const fn lifetime_ns(word: u64) -> u64 {
    (word >> 16 & 0xffff) * LIFETIME_UNIT_NS
}

fn key(of: &Descriptor) -> Key {
    let [a, b] = halves(of.source);
    let [c, d] = halves(of.destination);
    let e = u64::from(of.source_port)
        | u64::from(of.destination_port) << 16
        | u64::from(of.protocol) << 32
        | u64::from(of.vrf) << 48;
    [a, b, c, d, e, u64::from(of.ingress)]
}

fn halves(address: [u8; 16]) -> [u64; 2] {
    let bits = u128::from_le_bytes(address);
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    [bits as u64, (bits >> 64) as u64]
}

impl FlowCache {
    /// An empty one, with all the memory that it will have.
    pub(crate) fn new() -> Self {
        Self {
            tags: vec![[0; WAYS]; SETS].into(),
            entries: vec![[Entry::default(); WAYS]; SETS].into(),
            epoch: 1,
            hasher: keyed_hasher(),
        }
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        if self.epoch == 0 {
            // Entries of the same number, of four billion clearings ago.
            self.tags.fill([0; WAYS]);
            self.epoch = 1;
        }
    }

    /// Where a packet's verdict is looked for; touches the tags that will be read.
    #[inline]
    pub(crate) fn place(&self, of: &Descriptor) -> Place {
        let hash = self.hasher.hash_one(key(of));
        let [low, high] = [hash & 0xffff_ffff, hash >> 32];
        let set = usize::try_from(low).unwrap_or(0) % SETS;
        Place { set, tag: u32::try_from(high).unwrap_or(0) | 1 }
    }

    /// The verdict and the edit that are kept for a packet.
    #[inline]
    pub(crate) fn get(&self, place: Place, of: &Descriptor, now: Nanos) -> Option<(u64, Edit)> {
        let tags = self.tags.get(place.set)?;
        let ways = tags.iter().zip(self.entries.get(place.set)?);
        let mut found = ways.filter(|(tag, _)| **tag == place.tag).map(|(_, entry)| entry);
        let entry = found.find(|entry| entry.key == key(of))?;
        let is_valid = entry.epoch == self.epoch
            && now < entry.expires
            && entry.slice == of.slice
            && entry.next_hop == of.next_hop;
        is_valid.then_some((entry.word, entry.edit))
    }

    /// Keeps a verdict that has a lifetime. Says whether another flow's, not yet over, was forgotten.
    #[inline]
    pub(crate) fn keep(&mut self, of: &Descriptor, word: u64, edit: Edit, now: Nanos) -> bool {
        let place = self.place(of);
        let key = key(of);
        let epoch = self.epoch;
        let sets = self.tags.get_mut(place.set).zip(self.entries.get_mut(place.set));
        let Some((tags, entries)) = sets else { return false };
        let is_same = |tag: u32, entry: &Entry| tag == place.tag && entry.key == key;
        // How much would be lost with it: nothing of what is the same, empty or over.
        let cost = |(tag, entry): (&u32, &Entry)| {
            if is_same(*tag, entry) {
                return 0;
            }
            let is_live = *tag != 0 && entry.epoch == epoch && entry.expires > now;
            if is_live { entry.expires.0.max(2) } else { 1 }
        };
        let costs = tags.iter().zip(entries.iter()).map(cost).enumerate();
        let Some((way, cost)) = costs.min_by_key(|(_, cost)| *cost) else { return false };
        if let (Some(tag), Some(entry)) = (tags.get_mut(way), entries.get_mut(way)) {
            *tag = place.tag;
            *entry = Entry {
                key,
                word,
                edit,
                expires: now.plus(lifetime_ns(word)),
                slice: of.slice,
                next_hop: of.next_hop,
                epoch,
            };
        }
        cost > 1
    }
}

/// Whether a verdict is to be kept.
#[inline]
pub(crate) const fn has_lifetime(word: u64) -> bool {
    lifetime_ns(word) > 0
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const S: u64 = 1_000_000_000;

    fn flow(number: u32) -> Descriptor {
        Descriptor {
            source_port: number as u16,
            destination_port: (number >> 16) as u16,
            slice: 3,
            next_hop: 5,
            ..Descriptor::default()
        }
    }

    /// A verdict for so many tenths of a second.
    fn word(lifetime: u16, argument: u32) -> u64 {
        u64::from(lifetime) << 16 | u64::from(argument) << 32
    }

    fn get(cache: &FlowCache, of: &Descriptor, now: u64) -> Option<u64> {
        cache.get(cache.place(of), of, Nanos(now)).map(|(word, _)| word)
    }

    #[test]
    fn a_verdict_holds_for_its_flow_until_it_is_over() {
        let mut cache = FlowCache::new();
        let edit = Edit { mark: 7, ..Edit::default() };
        assert!(!cache.keep(&flow(1), word(20, 9), edit, Nanos(S)));
        assert_eq!(cache.get(cache.place(&flow(1)), &flow(1), Nanos(S)), Some((word(20, 9), edit)));
        assert_eq!(get(&cache, &flow(1), 3 * S - 1), Some(word(20, 9)), "its last moment");
        assert_eq!(get(&cache, &flow(1), 3 * S), None);
        cache.keep(&flow(1), word(20, 1), edit, Nanos(3 * S));
        assert_eq!(get(&cache, &flow(1), 4 * S), Some(word(20, 1)));
        cache.clear();
        assert_eq!(get(&cache, &flow(1), 4 * S), None);
    }

    #[test]
    fn every_part_of_the_key_and_of_what_it_is_valid_for_counts() {
        let mut cache = FlowCache::new();
        let of = flow(1);
        cache.keep(&of, word(20, 9), Edit::default(), Nanos(S));
        let others = [
            Descriptor { source: [1; 16], ..of },
            Descriptor { destination: [1; 16], ..of },
            Descriptor { source_port: 2, ..of },
            Descriptor { destination_port: 2, ..of },
            Descriptor { protocol: 6, ..of },
            Descriptor { vrf: 1, ..of },
            Descriptor { ingress: 1, ..of },
            Descriptor { slice: 4, ..of },
            Descriptor { next_hop: 4, ..of },
        ];
        for other in others {
            assert_eq!(get(&cache, &other, S), None, "{other:?}");
        }
        // What differs from packet to packet of a flow does not.
        let same = Descriptor { length: 9, ttl: 9, tcp_flags: 9, hash: 9, l4_offset: 9, ..of };
        assert_eq!(get(&cache, &same, S), Some(word(20, 9)));
    }

    #[test]
    fn fragments_and_errors_are_of_no_flow() {
        let with = |flags| Descriptor { flags, ..Descriptor::default() };
        assert!(is_of_a_flow(&with(flags::IPV6 | flags::PORTS | flags::OPTIONS)));
        for flag in [flags::FRAGMENT, flags::LATER_FRAGMENT, flags::ICMP_ERROR] {
            assert!(!is_of_a_flow(&with(flag | flags::PORTS)));
        }
    }

    #[test]
    fn a_full_cache_forgets_and_tells_nothing_wrong() {
        let mut cache = FlowCache::new();
        let mut model = HashMap::new();
        let (mut evictions, mut random) = (0_u64, 1_u64);
        for step in 0..60_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (random >> 40) as u32 % 40_000;
            let now = step * 1_000_000;
            if let Some(found) = get(&cache, &flow(number), now) {
                let (kept, expires) = model[&number];
                assert_eq!(found, kept);
                assert!(now < expires);
            } else {
                let word = word(1 + number as u16 % 600, step as u32);
                evictions +=
                    u64::from(cache.keep(&flow(number), word, Edit::default(), Nanos(now)));
                model.insert(number, (word, now + lifetime_ns(word)));
            }
            assert!(get(&cache, &flow(number), now).is_some(), "what was just given is kept");
        }
        assert!(evictions > 0, "it was never full");
    }

    #[test]
    fn few_flows_are_all_kept_and_none_is_evicted_by_one_that_is_over() {
        let mut cache = FlowCache::new();
        // Keys of the hash are drawn: of a thousand flows five share a set in one run of forty.
        for number in 0..100 {
            assert!(!cache.keep(&flow(number), word(10, number), Edit::default(), Nanos(0)));
        }
        let kept = (0..100).filter(|number| get(&cache, &flow(*number), 0).is_some()).count();
        assert_eq!(kept, 100);
        for number in 20_000..60_000 {
            let now = Nanos(u64::from(number) * 2 * S);
            assert!(!cache.keep(&flow(number), word(10, 0), Edit::default(), now));
        }
    }
}
