//! The IPv4 table against a linear scan, at its limits, and over a full Internet table.

mod common;

use std::cell::RefCell;

use common::{Random, cases, edges4, holds4, linear, net4, real_routes};
use ipnet::Ipv4Net;
use proptest::prelude::*;
use tables::{Fib4, FibError, RouteId};

fn assert_same_as_linear(fib: &Fib4, routes: &[(Ipv4Net, RouteId)], addresses: &[u32]) {
    let mut results = vec![RouteId(7); addresses.len()];
    fib.lookup_batch(addresses, &mut results);
    for (&address, &result) in addresses.iter().zip(&results) {
        let want = linear(routes, address, holds4);
        let shown = std::net::Ipv4Addr::from(address);
        assert_eq!(result, want, "batch look-up of {shown} in {routes:?}");
        assert_eq!(fib.lookup(address), want, "look-up of {shown} in {routes:?}");
    }
}

/// Routes that crowd around a few places, so that they nest and touch.
fn crowded_routes() -> impl Strategy<Value = Vec<(Ipv4Net, RouteId)>> {
    let anchor = prop_oneof![Just(0), Just(u32::MAX), Just(0xc000_0200), Just(0x7fff_ff80)];
    let route = (anchor, any::<u32>(), 0..32_u32, 0..=32_u8, 0..6_u16);
    let route = route.prop_map(|(anchor, noise, bits, length, id)| {
        // Noise in the low bits alone: the prefix stays close to its anchor. Host bits stay set.
        (net4(anchor ^ (noise & ((1 << bits) - 1)), length), RouteId(id))
    });
    prop::collection::vec(route, 0..40)
}

thread_local! {
    /// One table for all cases: what a rebuild leaves behind would show.
    static REBUILT: RefCell<Fib4> = RefCell::new(Fib4::build([]).expect("an empty table"));
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn any_routes(routes in crowded_routes(), others in prop::collection::vec(any::<u32>(), 20)) {
        REBUILT.with_borrow_mut(|fib| {
            fib.rebuild_into(routes.iter().copied()).expect("within the limits");
            let edges = routes.iter().flat_map(|&(prefix, _)| edges4(prefix));
            let addresses: Vec<u32> = edges.chain(others.iter().copied()).collect();
            assert_same_as_linear(fib, &routes, &addresses);
        });
    }
}

/// One prefix of each length around one address: every nesting there is.
#[test]
fn nested_at_every_length() {
    for address in [0, u32::MAX, 0xc000_02ff, 0xc000_0300, 0x5555_5555] {
        let mut routes: Vec<_> =
            (0..=32).map(|length| (net4(address, length), RouteId(u16::from(length)))).collect();
        let addresses: Vec<u32> = routes.iter().flat_map(|&(prefix, _)| edges4(prefix)).collect();
        assert_same_as_linear(&Fib4::build(routes.clone()).unwrap(), &routes, &addresses);
        // The order of input does not matter.
        routes.reverse();
        assert_same_as_linear(&Fib4::build(routes.clone()).unwrap(), &routes, &addresses);
    }
}

#[test]
fn all_of_a_block_and_its_neighbours() {
    let mut random = Random(4);
    for _ in 0..20 {
        let block = 0xc633_6400_u32;
        let routes: Vec<_> = (0..30)
            .map(|id| {
                let length = 22 + random.below(11) as u8;
                (net4(block - 256 + random.below(768) as u32, length), RouteId(id))
            })
            .collect();
        let addresses: Vec<u32> = (block - 1_024..block + 1_024).collect();
        assert_same_as_linear(&Fib4::build(routes.clone()).unwrap(), &routes, &addresses);
    }
}

#[test]
fn empty_table_misses() {
    let fib = Fib4::build([]).unwrap();
    assert_same_as_linear(&fib, &[], &[0, 1, 0x0a00_0001, u32::MAX]);
    assert_eq!((fib.routes(), fib.groups()), (0, 0));
}

#[test]
fn of_equal_prefixes_the_later_counts() {
    let prefix = net4(0x0a00_0000, 8);
    let fib = Fib4::build([(prefix, RouteId(1)), (prefix, RouteId(2))]).unwrap();
    assert_eq!(fib.lookup(0x0a01_0203), RouteId(2));
}

#[test]
fn rebuilding_forgets_what_was_there() {
    let mut fib = Fib4::build([
        (net4(0, 0), RouteId(1)),
        (net4(0x0a00_0001, 32), RouteId(2)),
        (net4(0x0b00_0001, 32), RouteId(3)),
    ])
    .unwrap();
    let kept = [(net4(0x0a00_0000, 31), RouteId(900))];
    fib.rebuild_into(kept).unwrap();
    assert_same_as_linear(&fib, &kept, &[0, 0x0a00_0000, 0x0a00_0001, 0x0a00_0002, 0x0b00_0001]);
    assert_eq!((fib.routes(), fib.groups()), (1, 1));
}

#[test]
fn lengths_around_a_stage() {
    let routes = [(net4(0x0a00_0000, 8), RouteId(1)), (net4(0x0a00_0080, 25), RouteId(2))];
    let fib = Fib4::build(routes).unwrap();
    for length in [0, 1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1_000] {
        let addresses: Vec<u32> = (0..length).map(|n| 0x0a00_0000 + n * 3).collect();
        assert_same_as_linear(&fib, &routes, &addresses);
    }
}

/// One route longer than /24 in each of `blocks` /24 blocks, the last with the highest id.
fn long_routes(blocks: usize, highest: u16) -> Vec<(Ipv4Net, RouteId)> {
    let routes = (0..blocks as u32)
        .map(|block| (net4(block << 8 | 0x40, 26), RouteId(0)))
        .chain([(net4(0xffff_ff00, 24), RouteId(highest))]);
    routes.collect()
}

#[test]
fn as_many_groups_as_codes_are_left() {
    for (highest, groups_max) in [(0, 65_534), (32_766, 32_768), (65_533, 1), (RouteId::MAX.0, 0)] {
        assert_eq!(Fib4::groups_max(RouteId(highest)), groups_max);
        let routes = long_routes(groups_max, highest);
        let mut fib = Fib4::build(routes.iter().copied()).expect("at the limit");
        assert_eq!(fib.groups(), groups_max);
        for block in 0..groups_max as u32 {
            assert_eq!(fib.lookup(block << 8 | 0x3f), RouteId::NONE);
            assert_eq!(fib.lookup(block << 8 | 0x40), RouteId(0));
            assert_eq!(fib.lookup(block << 8 | 0x7f), RouteId(0));
            assert_eq!(fib.lookup(block << 8 | 0x80), RouteId::NONE);
        }
        assert_eq!(fib.lookup(u32::MAX), RouteId(highest));

        let error = fib.rebuild_into(long_routes(groups_max + 1, highest)).unwrap_err();
        assert!(
            matches!(error, FibError::TooManyGroups { needed, available, highest: id }
                if (needed, available, id) == (groups_max + 1, groups_max, highest)),
            "{error}"
        );
        assert!(error.to_string().contains(&(groups_max + 1).to_string()), "{error}");
        assert_eq!(fib.lookup(u32::MAX), RouteId(highest), "a refusal leaves the table as it was");
    }
}

#[test]
fn a_route_must_name_a_group() {
    let error = Fib4::build([(net4(0x0a00_0000, 8), RouteId::NONE)]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "route 10.0.0.0/8 names next-hop group 65535; the highest is 65534"
    );
}

#[test]
#[should_panic(expected = "one result for each destination")]
fn unequal_slices() {
    Fib4::build([]).unwrap().lookup_batch(&[1, 2], &mut [RouteId::NONE]);
}

/// The ends of each of a million routes and as many random addresses, against a trie; a sample of
/// them against the linear scan as well.
#[test]
fn full_internet_table() {
    let Some(routes) = real_routes("full_internet_table (IPv4)", 40_000) else { return };
    let routes = routes.v4;
    let started = std::time::Instant::now();
    let mut fib = Fib4::build(routes.iter().copied()).unwrap();
    let (fresh, started) = (started.elapsed(), std::time::Instant::now());
    fib.rebuild_into(routes.iter().copied()).unwrap();
    eprintln!(
        "{} routes, {} groups, {} bytes ({:.1} a route); built in {fresh:?}, again in {:?}",
        fib.routes(),
        fib.groups(),
        fib.bytes(),
        fib.bytes() as f64 / fib.routes() as f64,
        started.elapsed(),
    );
    assert_eq!((fib.routes(), fib.groups()), (1_072_529, 25_499));

    let trie: prefix_trie::PrefixMap<Ipv4Net, RouteId> =
        routes.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    let mut random = Random(1);
    let addresses: Vec<u32> = routes
        .iter()
        .flat_map(|&(prefix, _)| edges4(prefix))
        .chain((0..1_000_000).map(|_| random.next() as u32))
        .collect();
    let mut results = vec![RouteId::NONE; addresses.len()];
    fib.lookup_batch(&addresses, &mut results);
    for (&address, &result) in addresses.iter().zip(&results) {
        let want = trie.get_lpm(&net4(address, 32)).map_or(RouteId::NONE, |(_, &id)| id);
        assert_eq!(result, want, "{}", std::net::Ipv4Addr::from(address));
    }
    let sample: Vec<u32> =
        (0..500).map(|_| addresses[random.below(addresses.len() as u64) as usize]).collect();
    assert_same_as_linear(&fib, &routes, &sample);
}
