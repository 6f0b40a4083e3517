//! [`Prefixes`]: what is known of each prefix, in parts that copies share until one of them changes.
//!
//! ```text
//!   Prefixes ----> 1.0.0.0 ... 1.255.255.255   a trie, shared <---- a copy
//!            ----> 2.0.0.0 ...                 a trie, shared <----
//!            ----> 3.0.0.0 ... (changed since) a trie      another <-
//! ```
//!
//! A copy costs a pointer for each part, so that whoever plans with the routes of a full table takes them
//! away without keeping the control loop; a change of a route while somebody has a copy costs a copy of its
//! part, once.
//!
//! A prefix stands in the part of its network address, also when it is so short that it reaches beyond:
//! then a look-up by an address finds it by its own few lengths. So the order of the parts is that of
//! prefixes, by address and a shorter one first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use prefix_trie::{Prefix, PrefixMap};
use smallvec::SmallVec;

/// How prefixes of a family are divided.
pub(super) trait Family: Prefix + Copy {
    /// Leading bits of an address by which parts are told apart. More make for more parts, each of which a
    /// copy costs something; fewer for larger ones, which a change beside a copy does.
    const PART_BITS: u8;

    /// The part of the network address.
    fn part(self) -> u16;

    /// The prefix of this length that the network address lies in.
    fn cut(self, len: u8) -> Self;
}

impl Family for Ipv4Net {
    /// At most 256 parts; a full table has some 5,000 prefixes in each.
    const PART_BITS: u8 = 8;

    fn part(self) -> u16 {
        u16::from(self.network().octets()[0])
    }

    fn cut(self, len: u8) -> Self {
        Self::new_assert(self.network(), len).trunc()
    }
}

impl Family for Ipv6Net {
    /// What is routed begins with few different words: a full table has some hundred parts, and the first
    /// byte alone would put half of all prefixes into one.
    const PART_BITS: u8 = 16;

    fn part(self) -> u16 {
        self.network().segments()[0]
    }

    fn cut(self, len: u8) -> Self {
        Self::new_assert(self.network(), len).trunc()
    }
}

/// A map of prefixes that costs little to copy.
#[derive(Clone, Debug)]
pub(super) struct Prefixes<P: Prefix, T> {
    parts: BTreeMap<u16, Arc<PrefixMap<P, T>>>,
}

impl<P: Family, T: Clone> Prefixes<P, T> {
    pub(super) fn new() -> Self {
        Self { parts: BTreeMap::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.parts.values().map(|part| part.len()).sum()
    }

    /// Bytes that it takes, whoever shares them.
    pub(super) fn mem_size(&self) -> usize {
        self.parts.values().map(|part| part.mem_size()).sum()
    }

    pub(super) fn get(&self, prefix: &P) -> Option<&T> {
        self.parts.get(&prefix.part())?.get(prefix)
    }

    pub(super) fn insert(&mut self, prefix: P, value: T) {
        let part = self.parts.entry(prefix.part()).or_insert_with(|| Arc::new(PrefixMap::new()));
        Arc::make_mut(part).insert(prefix, value);
    }

    pub(super) fn remove(&mut self, prefix: &P) {
        let key = prefix.part();
        let Some(part) = self.parts.get_mut(&key) else { return };
        if part.contains_key(prefix) {
            Arc::make_mut(part).remove(prefix);
        }
        if part.is_empty() {
            self.parts.remove(&key);
        }
    }

    /// All of them in the order of their addresses, a shorter one first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (P, &T)> + '_ {
        self.parts.values().flat_map(|part| part.iter())
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &T> + '_ {
        self.parts.values().flat_map(|part| part.values())
    }

    /// Those that come behind this one in that order.
    pub(super) fn behind(&self, after: P) -> impl Iterator<Item = (P, &T)> + '_ {
        let part = after.part();
        let rest = self.parts.range(part..).skip_while(move |(key, _)| **key == part);
        let same = self.parts.get(&part).map(|part| part.iter_from(&after, false));
        same.into_iter().flatten().chain(rest.flat_map(|(_, part)| part.iter()))
    }

    /// Those around this one and itself, the shortest first.
    pub(super) fn cover(&self, prefix: P) -> SmallVec<[(P, &T); 8]> {
        // The short ones, in whichever parts they stand, and of the prefix's own part the others.
        let short = P::PART_BITS.min(prefix.prefix_len());
        let around = (0..short).filter_map(|len| {
            let around = prefix.cut(len);
            Some((around, self.get(&around)?))
        });
        let mut all: SmallVec<[(P, &T); 8]> = around.collect();
        if let Some(part) = self.parts.get(&prefix.part()) {
            all.extend(part.cover(&prefix).filter(|(around, _)| around.prefix_len() >= short));
        }
        all
    }

    /// The longest prefix around this one.
    pub(super) fn longest(&self, prefix: P) -> Option<(P, &T)> {
        let part = self.parts.get(&prefix.part());
        // The longest of its own part is the longest of all unless it is so short that others are between.
        match part.and_then(|part| part.get_lpm(&prefix)) {
            Some(found) if found.0.prefix_len() >= P::PART_BITS => Some(found),
            _ => self.cover(prefix).pop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Prefixes that often lie in each other, and at the bounds of parts.
    fn any4() -> impl Strategy<Value = Ipv4Net> {
        let byte = prop_oneof![Just(0_u8), Just(9), Just(10), Just(11), Just(255)];
        ([byte.clone(), byte.clone(), byte.clone(), byte], 0..=32_u8)
            .prop_map(|(octets, len)| Ipv4Net::new_assert(Ipv4Addr::from(octets), len).trunc())
    }

    fn any6() -> impl Strategy<Value = Ipv6Net> {
        let word = prop_oneof![Just(0_u16), Just(0x2001), Just(0x2000), Just(0xffff)];
        ([word.clone(), word.clone(), word], 0..=64_u8).prop_map(|([a, b, c], len)| {
            Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 1), len).trunc()
        })
    }

    /// Does the same to a map in parts and to one that is whole, with a copy now and then, and compares
    /// what they say.
    fn agree<P: Family + Ord + Copy>(changes: Vec<(P, Option<u16>, bool)>, asked: Vec<P>) {
        let (mut parts, mut whole) = (Prefixes::new(), PrefixMap::new());
        let mut copies = Vec::new();
        let list = |map: &Prefixes<P, u16>| -> Vec<(P, u16)> {
            map.iter().map(|(prefix, value)| (prefix, *value)).collect()
        };
        for (prefix, value, is_copied) in changes {
            if is_copied {
                copies.push((parts.clone(), list(&parts)));
            }
            match value {
                Some(value) => {
                    parts.insert(prefix, value);
                    whole.insert(prefix, value);
                }
                None => {
                    parts.remove(&prefix);
                    whole.remove(&prefix);
                }
            }
        }
        let all: Vec<(P, u16)> = whole.iter().map(|(prefix, value)| (prefix, *value)).collect();
        assert_eq!(list(&parts), all);
        assert_eq!(parts.len(), all.len());
        assert_eq!(parts.values().count(), all.len());
        for prefix in asked {
            assert_eq!(parts.get(&prefix), whole.get(&prefix));
            assert_eq!(parts.longest(prefix), whole.get_lpm(&prefix), "{prefix:?}");
            let (ours, theirs) = (parts.cover(prefix), whole.cover(&prefix));
            assert_eq!(ours.to_vec(), theirs.collect::<Vec<_>>(), "{prefix:?}");
            let (ours, theirs) = (parts.behind(prefix), whole.iter_from(&prefix, false));
            assert_eq!(ours.collect::<Vec<_>>(), theirs.collect::<Vec<_>>(), "{prefix:?}");
        }
        for (copy, before) in copies {
            assert_eq!(list(&copy), before, "a copy is as it was");
        }
    }

    proptest! {
        #[test]
        fn parts_say_what_one_map_says(
            changes in prop::collection::vec((any4(), prop::option::of(any::<u16>()), any::<bool>()), 0..60),
            asked in prop::collection::vec(any4(), 0..40),
        ) {
            agree(changes, asked);
        }

        #[test]
        fn so_it_is_with_ipv6(
            changes in prop::collection::vec((any6(), prop::option::of(any::<u16>()), any::<bool>()), 0..60),
            asked in prop::collection::vec(any6(), 0..40),
        ) {
            agree(changes, asked);
        }
    }

    #[test]
    fn a_change_copies_its_own_part_only() {
        let net = |text: &str| text.parse::<Ipv4Net>().expect("a prefix");
        let mut ours = Prefixes::new();
        for text in ["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"] {
            ours.insert(net(text), 1);
        }
        let copy = ours.clone();
        ours.remove(&net("12.0.0.0/8"));
        ours.remove(&net("10.2.0.0/16"));
        assert!(Arc::ptr_eq(&ours.parts[&10], &copy.parts[&10]), "nothing changed");
        ours.insert(net("10.1.0.0/16"), 2);
        assert!(!Arc::ptr_eq(&ours.parts[&10], &copy.parts[&10]));
        assert!(Arc::ptr_eq(&ours.parts[&11], &copy.parts[&11]));
        ours.remove(&net("11.0.0.0/8"));
        assert_eq!((ours.parts.len(), copy.len()), (1, 3));
    }
}
