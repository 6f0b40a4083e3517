//! Whether a look-up table says of every address what the routes say that it was made of.
//!
//! ```text
//!   routes, in order ----> ranges of addresses, by the longest prefix --+
//!                                                                       +--> [`Audit`]
//!   table, by look-ups --> ranges of addresses with one answer ---------+
//! ```
//!
//! The ranges of routes follow from prefixes alone, by none of the code that builds or changes tables: a route
//! that stayed in a table when it was to go is found, and so is one that never came in.

use std::iter::Peekable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::{Fib4, Fib6, RouteId};

/// Differences that are kept one by one.
const DIFFERENCES_MAX: usize = 16;

/// What a look-up table was found to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Routes that it was held against.
    pub routes: u64,
    /// Ranges of addresses into which these divide all addresses, which were compared.
    pub ranges: u64,
    /// Ranges of addresses of which the table says something else.
    pub differences: u64,
    /// The first of those.
    pub first: Vec<Difference>,
}

/// A range of addresses for which look-ups do not give what the routes do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its lowest and its highest address.
    pub range: (IpAddr, IpAddr),
    /// What look-ups give.
    pub found: RouteId,
    /// What the routes give.
    pub expected: RouteId,
}

impl Fib4 {
    /// Holds the table against the routes that it is to have: each prefix once, in the order of their addresses,
    /// a shorter prefix before a longer one, without bits beyond its length. The one who changes the table asks,
    /// or nobody changes it meanwhile.
    pub fn audit(&self, routes: impl Iterator<Item = (Ipv4Net, RouteId)>) -> Audit {
        let routes = routes.map(|(prefix, id)| Route {
            first: prefix.network().to_bits().into(),
            last: prefix.broadcast().to_bits().into(),
            id,
        });
        let address = |bits: u128| IpAddr::V4(Ipv4Addr::from_bits(bits as u32));
        let mut auditor = Auditor::new(routes, u32::MAX.into(), address);
        self.each_range(|last, id| auditor.hear(last.into(), id));
        auditor.audit
    }
}

impl Fib6 {
    /// The same for IPv6.
    pub fn audit(&self, routes: impl Iterator<Item = (Ipv6Net, RouteId)>) -> Audit {
        let routes = routes.map(|(prefix, id)| Route {
            first: prefix.network().to_bits(),
            last: prefix.broadcast().to_bits(),
            id,
        });
        let address = |bits: u128| IpAddr::V6(Ipv6Addr::from_bits(bits));
        let mut auditor = Auditor::new(routes, u128::MAX, address);
        self.each_range(|last, id| auditor.hear(last, id));
        auditor.audit
    }
}

/// A prefix as the range of its addresses.
struct Route {
    first: u128,
    last: u128,
    id: RouteId,
}

/// Addresses up to `last`, from behind those of the range before, that lead to the same.
#[derive(Clone, Copy)]
struct Range {
    last: u128,
    id: RouteId,
}

/// The ranges of routes, in order.
struct Ranges<I: Iterator<Item = Route>> {
    routes: Peekable<I>,
    /// Routes around the current address, the longest prefix last.
    around: Vec<Route>,
    /// The first address that is in no range yet; none behind the last address there is.
    next: Option<u128>,
    end: u128,
    taken: u64,
}

impl<I: Iterator<Item = Route>> Iterator for Ranges<I> {
    type Item = Range;

    fn next(&mut self) -> Option<Range> {
        let at = self.next?;
        while self.around.pop_if(|route| route.last < at).is_some() {}
        while let Some(route) = self.routes.next_if(|route| route.first <= at) {
            self.taken += 1;
            self.around.push(route);
        }
        let inner = self.around.last();
        let mut last = inner.map_or(self.end, |route| route.last);
        if let Some(following) = self.routes.peek() {
            last = last.min(following.first - 1);
        }
        let id = inner.map_or(RouteId::NONE, |route| route.id);
        self.next = (last < self.end).then(|| last + 1);
        Some(Range { last, id })
    }
}

/// Compares what a table says, range by range, with what routes say.
struct Auditor<I: Iterator<Item = Route>, A> {
    ranges: Ranges<I>,
    /// The range of routes that holds `first`, the first address that was not compared yet.
    current: Option<Range>,
    first: u128,
    address: A,
    /// The end of the last difference, so that what follows it is no other.
    differs_up_to: Option<(u128, RouteId, RouteId)>,
    audit: Audit,
}

impl<I: Iterator<Item = Route>, A: Fn(u128) -> IpAddr> Auditor<I, A> {
    fn new(routes: I, end: u128, address: A) -> Self {
        let (routes, around) = (routes.peekable(), Vec::new());
        let mut ranges = Ranges { routes, around, next: Some(0), end, taken: 0 };
        let current = ranges.next();
        let (differs_up_to, audit) = (None, Audit::default());
        Self { ranges, current, first: 0, address, differs_up_to, audit }
    }

    /// The table says `id` of all addresses from what it said last up to `last`.
    fn hear(&mut self, last: u128, id: RouteId) {
        while let Some(range) = self.current {
            let end = range.last.min(last);
            if id != range.id {
                self.differ(end, id, range.id);
            }
            self.first = end.wrapping_add(1);
            if end == range.last {
                self.audit.ranges += 1;
                self.current = self.ranges.next();
                self.audit.routes = self.ranges.taken;
            }
            if end == last {
                break;
            }
        }
    }

    fn differ(&mut self, end: u128, found: RouteId, expected: RouteId) {
        let before = self.differs_up_to.replace((end, found, expected));
        let goes_on = before.is_some_and(|before| {
            before == (self.first.wrapping_sub(1), found, expected) && self.first > 0
        });
        let range = ((self.address)(self.first), (self.address)(end));
        if !goes_on {
            self.audit.differences += 1;
            if self.audit.first.len() < DIFFERENCES_MAX {
                self.audit.first.push(Difference { range, found, expected });
            }
        } else if self.audit.differences <= DIFFERENCES_MAX as u64
            && let Some(difference) = self.audit.first.last_mut()
        {
            difference.range.1 = range.1;
        }
    }
}

#[cfg(all(test, not(any(miri, loom))))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::{Fib4Writer, Fib6Change};

    /// Prefixes that lie in each other, next to each other, and at both ends of all addresses.
    fn any4() -> impl Strategy<Value = Ipv4Net> {
        let octet = prop_oneof![Just(0_u8), Just(1), Just(10), Just(128), Just(255)];
        ([octet.clone(), octet.clone(), octet.clone(), octet], 0..=32_u8)
            .prop_map(|(octets, len)| Ipv4Net::new_assert(Ipv4Addr::from(octets), len).trunc())
    }

    fn any6() -> impl Strategy<Value = Ipv6Net> {
        let word = prop_oneof![Just(0_u16), Just(0x2001), Just(0xffff)];
        (prop::collection::vec(word, 8), 0..=128_u8).prop_map(|(words, len)| {
            let words: [u16; 8] = words.try_into().expect("eight words");
            Ipv6Net::new_assert(Ipv6Addr::from(words), len).trunc()
        })
    }

    fn routes4() -> impl Strategy<Value = BTreeMap<Ipv4Net, u16>> {
        prop::collection::btree_map(any4(), 0..6_u16, 0..40)
    }

    fn ids<P: Copy>(routes: &BTreeMap<P, u16>) -> impl Iterator<Item = (P, RouteId)> + '_ {
        routes.iter().map(|(&prefix, &id)| (prefix, RouteId(id)))
    }

    /// The addresses at both ends of prefixes, and beside them.
    fn bounds4<'a>(prefixes: impl Iterator<Item = &'a Ipv4Net>) -> Vec<u32> {
        let bounds = prefixes.flat_map(|prefix| {
            let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
            [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
        });
        bounds.chain([0, u32::MAX]).collect()
    }

    fn longest4(routes: &BTreeMap<Ipv4Net, u16>, address: u32) -> RouteId {
        let around =
            routes.iter().filter(|(prefix, _)| prefix.contains(&Ipv4Addr::from_bits(address)));
        let longest = around.max_by_key(|(prefix, _)| prefix.prefix_len());
        longest.map_or(RouteId::NONE, |(_, &id)| RouteId(id))
    }

    proptest! {
        // A table of IPv4 takes a tenth of a second to make.
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn a_table_agrees_with_what_it_was_made_of(routes in routes4()) {
            let fib = Fib4::build(ids(&routes)).expect("a table");
            let audit = fib.audit(ids(&routes));
            prop_assert_eq!(&audit.first, &[]);
            prop_assert_eq!((audit.differences, audit.routes), (0, routes.len() as u64));
        }

        /// Of two sets of routes, what a linear scan of both tells apart is what the audit names.
        #[test]
        fn what_differs_is_named(has in routes4(), is_to_have in routes4()) {
            let audit = Fib4::build(ids(&has)).expect("a table").audit(ids(&is_to_have));
            for address in bounds4(has.keys().chain(is_to_have.keys())) {
                let answers = (longest4(&has, address), longest4(&is_to_have, address));
                let at = IpAddr::V4(Ipv4Addr::from_bits(address));
                let named = audit.first.iter().find(|difference| {
                    (difference.range.0..=difference.range.1).contains(&at)
                });
                let named = named.map(|difference| (difference.found, difference.expected));
                if answers.0 == answers.1 {
                    prop_assert_eq!(named, None, "{}", at);
                } else if audit.differences <= DIFFERENCES_MAX as u64 {
                    prop_assert_eq!(named, Some(answers), "{}", at);
                }
            }
            // Neighbouring differences of one kind are one.
            for pair in audit.first.windows(2) {
                let (before, after) = (&pair[0], &pair[1]);
                prop_assert!(before.range.1 < after.range.0);
            }
        }

        #[test]
        fn so_it_is_with_ipv6(
            routes in prop::collection::btree_map(any6(), 0..6_u16, 0..40),
            others in prop::collection::btree_map(any6(), 0..6_u16, 0..4),
            seen in any6(),
        ) {
            let fib = Fib6::build(ids(&routes)).expect("a table");
            let agreed = fib.audit(ids(&routes));
            prop_assert_eq!(&agreed.first, &[]);
            prop_assert_eq!(agreed.routes, routes.len() as u64);

            // With a route more and one less it differs just where the longest prefix is another.
            let mut changed = routes.clone();
            changed.extend(others);
            if let Some(&prefix) = routes.keys().next() {
                changed.remove(&prefix);
            }
            let audit = fib.audit(ids(&changed));
            let longest = |routes: &BTreeMap<Ipv6Net, u16>, address: Ipv6Addr| {
                let around = routes.iter().filter(|(prefix, _)| prefix.contains(&address));
                let longest = around.max_by_key(|(prefix, _)| prefix.prefix_len());
                longest.map(|(_, id)| *id)
            };
            let bounds = routes.keys().chain(changed.keys()).chain([&seen]);
            for address in bounds.flat_map(|prefix| [prefix.network(), prefix.broadcast()]) {
                let differs = longest(&routes, address) != longest(&changed, address);
                let at = IpAddr::V6(address);
                let mut named = audit.first.iter();
                let is_named =
                    named.any(|found| (found.range.0..=found.range.1).contains(&at));
                if audit.differences <= DIFFERENCES_MAX as u64 {
                    prop_assert_eq!(is_named, differs, "{}", address);
                }
            }
        }
    }

    fn net4(text: &str) -> Ipv4Net {
        text.parse().expect("a prefix")
    }

    #[test]
    fn a_route_that_stayed_is_found() {
        let mut writer = Fib4Writer::new().expect("a table");
        writer.insert(net4("10.0.0.0/8"), RouteId(1)).unwrap();
        writer.insert(net4("10.1.2.0/24"), RouteId(2)).unwrap();
        writer.insert(net4("10.1.2.64/26"), RouteId(3)).unwrap();
        // The routes have lost 10.1.2.64/26, and nobody told the table.
        let routes = [(net4("10.0.0.0/8"), RouteId(1)), (net4("10.1.2.0/24"), RouteId(2))];
        let audit = writer.table().audit(routes.into_iter());
        let range = ("10.1.2.64".parse().unwrap(), "10.1.2.127".parse().unwrap());
        let stayed = Difference { range, found: RouteId(3), expected: RouteId(2) };
        assert_eq!(audit, Audit { routes: 2, ranges: 5, differences: 1, first: vec![stayed] });
    }

    #[test]
    fn patches_of_ipv6_are_looked_up_too() {
        let net = |text: &str| text.parse::<Ipv6Net>().expect("a prefix");
        let (site, host) = (net("2001:db8::/32"), net("2001:db8::7/128"));
        let fib = Fib6::build([(site, RouteId(1))]).unwrap();
        let patched = fib.patched(&[Fib6Change::Insert(host, RouteId(2))]).unwrap();
        let both = [(site, RouteId(1)), (host, RouteId(2))];
        assert_eq!(patched.audit(both.into_iter()).differences, 0);
        assert_eq!(fib.audit(both.into_iter()).differences, 1);
        let audit = patched.audit([(site, RouteId(1))].into_iter());
        assert_eq!(audit.first[0].range.0, IpAddr::V6(host.network()));
        assert_eq!(audit.first[0].range.1, IpAddr::V6(host.network()));
    }
}
