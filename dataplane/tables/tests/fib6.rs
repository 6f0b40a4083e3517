//! The IPv6 table against a linear scan, at its limits, and over a full Internet table.

mod common;

use common::{Random, cases, edges6, holds6, linear, net6, real_routes};
use ipnet::Ipv6Net;
use prefix_trie::PrefixMap;
use proptest::prelude::*;
use tables::{Fib6, Fib6Change, FibError, Instructions, RouteId};

/// The table with each set of instructions that the processor has.
fn with_each_set(fib: &Fib6) -> Vec<Fib6> {
    Instructions::all().map(|(_, set)| fib.with_instructions(set)).collect()
}

fn batch(fib: &Fib6, addresses: &[u128]) -> Vec<RouteId> {
    let mut results = vec![RouteId(7); addresses.len()];
    fib.lookup_batch(addresses, &mut results);
    for (set, other) in with_each_set(fib).into_iter().enumerate() {
        let mut others = vec![RouteId(8); addresses.len()];
        other.lookup_batch(addresses, &mut others);
        assert!(results == others, "set {set} of instructions gives other answers");
    }
    results
}

fn assert_same_as_linear(fib: &Fib6, routes: &[(Ipv6Net, RouteId)], addresses: &[u128]) {
    let results = batch(fib, addresses);
    for (&address, &result) in addresses.iter().zip(&results) {
        let want = linear(routes, address, holds6);
        let shown = std::net::Ipv6Addr::from(address);
        assert_eq!(result, want, "batch look-up of {shown} in {routes:?}");
        assert_eq!(fib.lookup(address), want, "look-up of {shown} in {routes:?}");
    }
}

const DOCUMENTATION: u128 = 0x2001_0db8 << 96;

/// Routes that crowd around a few places, on both sides of the /64 boundary.
fn crowded_routes() -> impl Strategy<Value = Vec<(Ipv6Net, RouteId)>> {
    let anchor = prop_oneof![
        Just(0),
        Just(u128::MAX),
        Just(DOCUMENTATION),
        Just(DOCUMENTATION | u128::from(u64::MAX)),
    ];
    let length = prop_oneof![0..=128_u8, 60..=68_u8];
    let route = (anchor, any::<u128>(), 0..128_u32, length, 0..6_u16);
    let route = route.prop_map(|(anchor, noise, bits, length, id)| {
        (net6(anchor ^ (noise & ((1 << bits) - 1)), length), RouteId(id))
    });
    prop::collection::vec(route, 0..60)
}

proptest! {
    #![proptest_config(cases(2_000))]

    #[test]
    fn any_routes(routes in crowded_routes(), others in prop::collection::vec(any::<u128>(), 20)) {
        let fib = Fib6::build(routes.iter().copied()).expect("within the limits");
        let edges = routes.iter().flat_map(|&(prefix, _)| edges6(prefix));
        let halves = routes.iter().flat_map(|&(prefix, _)| {
            let upper = prefix.addr().to_bits() >> 64 << 64;
            [upper, upper | u128::from(u64::MAX)]
        });
        let addresses: Vec<u128> = edges.chain(halves).chain(others.iter().copied()).collect();
        assert_same_as_linear(&fib, &routes, &addresses);
    }
}

#[test]
fn nested_at_every_length() {
    for address in [0, u128::MAX, DOCUMENTATION, DOCUMENTATION - 1, u128::MAX / 3] {
        let mut routes: Vec<_> =
            (0..=128).map(|length| (net6(address, length), RouteId(u16::from(length)))).collect();
        let addresses: Vec<u128> = routes.iter().flat_map(|&(prefix, _)| edges6(prefix)).collect();
        assert_same_as_linear(&Fib6::build(routes.clone()).unwrap(), &routes, &addresses);
        routes.reverse();
        assert_same_as_linear(&Fib6::build(routes.clone()).unwrap(), &routes, &addresses);
    }
}

#[test]
fn empty_table_misses() {
    let fib = Fib6::build([]).unwrap();
    assert_same_as_linear(&fib, &[], &[0, 1, DOCUMENTATION, u128::MAX]);
    assert_eq!((fib.routes(), fib.intervals(), fib.splits()), (0, 1, 0));
}

#[test]
fn of_equal_prefixes_the_later_counts() {
    let prefix = net6(DOCUMENTATION, 32);
    let fib = Fib6::build([(prefix, RouteId(1)), (prefix, RouteId(2))]).unwrap();
    assert_eq!(fib.lookup(DOCUMENTATION + 1), RouteId(2));
    assert_eq!(fib.routes(), 1);
}

/// Neighbours with one id are one interval: what a table costs follows from what it says.
#[test]
fn neighbours_with_one_group_are_one() {
    let subnets = (0..256_u128).map(|n| (net6(DOCUMENTATION | n << 64, 64), RouteId(1)));
    let fib = Fib6::build(subnets).unwrap();
    assert_eq!((fib.routes(), fib.intervals()), (256, 3));
}

#[test]
fn lengths_around_a_stage() {
    let routes =
        [(net6(DOCUMENTATION, 32), RouteId(1)), (net6(DOCUMENTATION | 5, 127), RouteId(2))];
    let fib = Fib6::build(routes).unwrap();
    for length in [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1_000] {
        let addresses: Vec<u128> = (0..length).map(|n| DOCUMENTATION + n).collect();
        assert_same_as_linear(&fib, &routes, &addresses);
    }
}

/// The limit, with a split /64 and two ids in turn, so that nothing merges.
#[test]
fn as_many_routes_as_the_table_takes() {
    let route = |n: usize| (net6((n as u128) << 64, 64), RouteId((n % 2) as u16));
    let long = (net6(DOCUMENTATION, 128), RouteId(5));
    let fib = Fib6::build((1..Fib6::ROUTES_MAX).map(route).chain([long])).unwrap();
    assert_eq!((fib.routes(), fib.splits()), (Fib6::ROUTES_MAX, 1));
    for n in (1..Fib6::ROUTES_MAX).step_by(997).chain([1, Fib6::ROUTES_MAX - 1]) {
        assert_eq!(fib.lookup((n as u128) << 64 | 0xffff), RouteId((n % 2) as u16));
    }
    assert_eq!(fib.lookup((Fib6::ROUTES_MAX as u128) << 64), RouteId::NONE);
    assert_eq!(fib.lookup(DOCUMENTATION), RouteId(5));

    let error = Fib6::build((0..=Fib6::ROUTES_MAX).map(route)).unwrap_err();
    assert!(matches!(error, FibError::TooManyRoutes { max: Fib6::ROUTES_MAX }), "{error}");
    assert_eq!(error.to_string(), "more than 2097152 IPv6 routes");
}

#[test]
fn a_route_must_name_a_group() {
    let error = Fib6::build([(net6(DOCUMENTATION, 32), RouteId::NONE)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "route 2001:db8::/32 names next-hop group 65535; the highest is 65278"
    );
    let fib = Fib6::build([(net6(DOCUMENTATION, 32), RouteId::MAX)]).unwrap();
    assert_eq!(fib.lookup(DOCUMENTATION), RouteId::MAX);
}

#[test]
#[should_panic(expected = "one result for each destination")]
fn unequal_slices() {
    Fib6::build([]).unwrap().lookup_batch(&[1, 2], &mut [RouteId::NONE]);
}

/// The ends of each of 176,000 routes and random addresses within and without them, against a trie;
/// a sample of them against the linear scan as well.
#[test]
fn full_internet_table() {
    let Some(routes) = real_routes("full_internet_table (IPv6)", 65_279) else { return };
    let routes = routes.v6;
    let started = std::time::Instant::now();
    let fib = Fib6::build(routes.iter().copied()).unwrap();
    eprintln!(
        "{} routes, {} intervals, {} splits, {} bytes ({:.1} a route); built in {:?}",
        fib.routes(),
        fib.intervals(),
        fib.splits(),
        fib.bytes(),
        fib.bytes() as f64 / fib.routes() as f64,
        started.elapsed(),
    );
    assert_eq!((fib.routes(), fib.splits()), (176_388, 232));

    let trie: PrefixMap<Ipv6Net, RouteId> =
        routes.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    let mut random = Random(1);
    let mut addresses: Vec<u128> = routes.iter().flat_map(|&(prefix, _)| edges6(prefix)).collect();
    for _ in 0..500_000 {
        let (prefix, _) = routes[random.below(routes.len() as u64) as usize];
        addresses.push(prefix.network().to_bits() | (random.wide() & prefix.hostmask().to_bits()));
        addresses.push(random.wide());
    }
    let results = batch(&fib, &addresses);
    for (&address, &result) in addresses.iter().zip(&results) {
        let want = trie.get_lpm(&net6(address, 128)).map_or(RouteId::NONE, |(_, &id)| id);
        assert_eq!(result, want, "{}", std::net::Ipv6Addr::from(address));
    }
    let sample: Vec<u128> =
        (0..2_000).map(|_| addresses[random.below(addresses.len() as u64) as usize]).collect();
    assert_same_as_linear(&fib, &routes, &sample);
}

/// What a control plane does: prefixes of /64 and longer are patched, others have the table built anew.
struct Pair {
    fib: Fib6,
    routes: PrefixMap<Ipv6Net, RouteId>,
}

impl Pair {
    fn change(&mut self, prefix: Ipv6Net, id: Option<RouteId>) {
        match id {
            Some(id) => self.routes.insert(prefix, id),
            None => self.routes.remove(&prefix),
        };
        if prefix.prefix_len() < 64 || self.fib.patches() > 100 {
            self.fib = self.fib.rebuilt([(prefix, id)]).unwrap();
            assert_eq!((self.fib.routes(), self.fib.patches()), (self.routes.len(), 0));
        } else {
            let parent =
                self.routes.get_lpm(&prefix).map(|(around, &id)| (around.prefix_len(), id));
            let change = match id {
                Some(id) => Fib6Change::Insert(prefix, id),
                None => Fib6Change::Remove(prefix, parent),
            };
            self.fib = self.fib.patched(&[change]).unwrap();
        }
    }

    fn check(&self, addresses: &[u128]) {
        for (&address, result) in addresses.iter().zip(batch(&self.fib, addresses)) {
            let want =
                self.routes.get_lpm(&net6(address, 128)).map_or(RouteId::NONE, |(_, &id)| id);
            let shown = std::net::Ipv6Addr::from(address);
            assert_eq!(result, want, "batch look-up of {shown}");
            assert_eq!(self.fib.lookup(address), want, "look-up of {shown}");
        }
    }
}

/// 20,000 changes, and after each the neighbourhood of what changed.
#[test]
fn random_changes() {
    let mut random = Random(21);
    let mut pair = Pair { fib: Fib6::build([]).unwrap(), routes: PrefixMap::new() };
    let mut present: Vec<Ipv6Net> = Vec::new();
    for step in 0..20_000 {
        let remove = present.len() > 300 || (!present.is_empty() && random.below(5) < 2);
        let prefix = if remove {
            let prefix = present.swap_remove(random.below(present.len() as u64) as usize);
            pair.change(prefix, None);
            prefix
        } else {
            let length = match random.below(8) {
                0 => 28 + random.below(36) as u8,
                1 | 2 => 64,
                3..=5 => 65 + random.below(8) as u8,
                _ => 120 + random.below(9) as u8,
            };
            let address = DOCUMENTATION
                | u128::from(random.below(6)) << 64
                | u128::from(random.below(4)) << 62
                | u128::from(random.below(8));
            let prefix = net6(address, length).trunc();
            if !present.contains(&prefix) {
                present.push(prefix);
            }
            pair.change(prefix, Some(RouteId(random.below(4) as u16)));
            prefix
        };
        let mut addresses: Vec<u128> = edges6(prefix).to_vec();
        for upper in 0..7 {
            for edge in [0, 1, 7, 8, 1 << 62, 3 << 62, u64::MAX] {
                addresses.push(DOCUMENTATION | upper << 64 | u128::from(edge));
            }
        }
        pair.check(&addresses);
        assert!(step < 1_000 || !present.is_empty());
    }
}

/// Twenty times a thousand changes of a full table, some of them of prefixes that were patched before: the
/// tables are those that are built of the routes.
#[test]
fn changes_of_a_full_table() {
    let Some(routes) = real_routes("changes_of_a_full_table (IPv6)", 40_000) else { return };
    let mut random = Random(23);
    let mut fib = Fib6::build(routes.v6.iter().copied()).unwrap();
    let mut present: PrefixMap<Ipv6Net, RouteId> =
        routes.v6.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    for _ in 0..20 {
        let mut addresses = Vec::new();
        let mut change = |lengthen: u8| {
            let (prefix, id) = routes.v6[random.below(routes.v6.len() as u64) as usize];
            let length = prefix.prefix_len().max(lengthen);
            let within = random.wide() & prefix.hostmask().to_bits();
            let prefix = net6(prefix.network().to_bits() | within, length).trunc();
            addresses.extend(edges6(prefix));
            (prefix, (random.below(3) > 0).then_some(RouteId(id.0 ^ 1)))
        };
        let patched: Vec<_> = (0..100).map(|_| change(64)).collect();
        for (prefix, id) in patched {
            let patch = match id {
                Some(id) => {
                    present.insert(prefix, id);
                    Fib6Change::Insert(prefix, id)
                }
                None => {
                    present.remove(&prefix);
                    let around = present.get_lpm(&prefix);
                    Fib6Change::Remove(prefix, around.map(|(net, &id)| (net.prefix_len(), id)))
                }
            };
            fib = fib.patched(&[patch]).unwrap();
        }
        let changes: Vec<_> = (0..1_000).map(|_| change(0)).collect();
        for &(prefix, id) in &changes {
            match id {
                Some(id) => present.insert(prefix, id),
                None => present.remove(&prefix),
            };
        }
        fib = fib.rebuilt(changes).unwrap();
        assert_eq!((fib.routes(), fib.patches()), (present.len(), 0));
        let anew = Fib6::build(present.iter().map(|(prefix, &id)| (prefix, id))).unwrap();
        assert_eq!((fib.intervals(), fib.splits()), (anew.intervals(), anew.splits()));
        addresses.extend((0..10_000).map(|_| random.wide() >> 3 | 1 << 125));
        assert!(batch(&fib, &addresses) == batch(&anew, &addresses));
        for address in addresses.into_iter().take(4_000) {
            let want = present.get_lpm(&net6(address, 128)).map_or(RouteId::NONE, |(_, &id)| id);
            assert_eq!(fib.lookup(address), want, "{}", std::net::Ipv6Addr::from(address));
        }
    }
}

#[test]
fn a_rebuilt_table_has_the_limits_of_a_built_one() {
    let subnet = net6(DOCUMENTATION, 64);
    let fib = Fib6::build([(subnet, RouteId(1))]).unwrap();
    let error = fib.rebuilt([(subnet, Some(RouteId::NONE))]).unwrap_err();
    assert!(matches!(error, FibError::RouteIdOutOfRange { .. }), "{error}");
    let host = |n: usize| (net6(DOCUMENTATION | n as u128, 128), Some(RouteId(2)));
    let full = fib.rebuilt((1..Fib6::ROUTES_MAX).map(host)).unwrap();
    assert_eq!(full.routes(), Fib6::ROUTES_MAX);
    let error = full.rebuilt([host(0)]).unwrap_err();
    assert!(matches!(error, FibError::TooManyRoutes { max: Fib6::ROUTES_MAX }), "{error}");
    let again = full.rebuilt([(subnet, None), host(0), (subnet, None)]).expect("one for another");
    assert_eq!((again.routes(), again.lookup(DOCUMENTATION | 5)), (Fib6::ROUTES_MAX, RouteId(2)));
    let others = fib.rebuilt([(subnet, None), (subnet, Some(RouteId(3)))]).unwrap();
    assert_eq!(others.lookup(DOCUMENTATION), RouteId(3), "the later counts");
}

#[test]
fn a_prefix_that_goes_leaves_what_is_around_it() {
    for (outer, inner) in [(32, 48), (48, 64), (64, 65), (64, 128), (0, 128)] {
        let (outer, inner) = (net6(DOCUMENTATION, outer), net6(DOCUMENTATION, inner));
        let mut pair = Pair { fib: Fib6::build([]).unwrap(), routes: PrefixMap::new() };
        pair.change(outer, Some(RouteId(1)));
        pair.change(inner, Some(RouteId(2)));
        pair.check(&edges6(inner));
        pair.change(inner, None);
        pair.check(&edges6(inner));
        assert_eq!(pair.fib.lookup(DOCUMENTATION), RouteId(1));
    }
}

#[test]
fn patches_that_are_refused() {
    let fib = Fib6::build([(net6(DOCUMENTATION, 32), RouteId(1))]).unwrap();
    let error =
        fib.patched(&[Fib6Change::Insert(net6(DOCUMENTATION, 63), RouteId(1))]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "2001:db8::/63 is shorter than /64: the IPv6 table has to be built anew"
    );
    let subnet = net6(DOCUMENTATION, 64);
    for change in [
        Fib6Change::Insert(subnet, RouteId(RouteId::MAX.0 + 1)),
        Fib6Change::Remove(subnet, Some((32, RouteId::NONE))),
    ] {
        let error = fib.patched(&[change]).unwrap_err();
        assert!(matches!(error, FibError::RouteIdOutOfRange { .. }), "{error}");
    }
    let error = fib.patched(&[Fib6Change::Remove(subnet, Some((64, RouteId(1))))]).unwrap_err();
    assert_eq!(error.to_string(), "a prefix of length 64 is not around 2001:db8::/64");

    let host = |n: usize| Fib6Change::Insert(net6(DOCUMENTATION | n as u128, 128), RouteId(2));
    let hosts: Vec<_> = (0..=Fib6::PATCHES_MAX).map(host).collect();
    let full = fib.patched(&hosts[1..]).unwrap();
    let error = full.patched(&hosts[..1]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "more than 65536 changes of an IPv6 table: it has to be built anew"
    );
    let again = full.patched(&hosts[1..]).expect("the same again are not more");
    assert_eq!(again.patches(), Fib6::PATCHES_MAX);
    for n in [1, 2, Fib6::PATCHES_MAX] {
        assert_eq!(again.lookup(DOCUMENTATION | n as u128), RouteId(2));
    }
    assert_eq!(again.lookup(DOCUMENTATION), RouteId(1));
    assert_eq!(fib.lookup(DOCUMENTATION | 1), RouteId(1), "the table before is as it was");
}
