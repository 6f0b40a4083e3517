//! The IPv4 table against a linear scan, at its limits, and over a full Internet table.

mod common;

use common::{Random, by_each_set, cases, edges4, holds4, linear, net4, publisher, real_routes};
use ipnet::Ipv4Net;
use proptest::prelude::*;
use tables::{Fib4, Fib4Writer, FibError, RouteId};

fn assert_same_as_linear(fib: &Fib4, routes: &[(Ipv4Net, RouteId)], addresses: &[u32]) {
    for (set, results) in by_each_set(fib, addresses) {
        for (&address, &result) in addresses.iter().zip(&results) {
            let want = linear(routes, address, holds4);
            let shown = std::net::Ipv4Addr::from(address);
            assert_eq!(result, want, "batch look-up of {shown} by {set:?} in {routes:?}");
            assert_eq!(fib.lookup(address), want, "look-up of {shown} in {routes:?}");
        }
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

proptest! {
    #![proptest_config(cases(100))]

    #[test]
    fn any_routes(routes in crowded_routes(), others in prop::collection::vec(any::<u32>(), 20)) {
        let fib = Fib4::build(routes.iter().copied()).expect("within the limits");
        let edges = routes.iter().flat_map(|&(prefix, _)| edges4(prefix));
        let addresses: Vec<u32> = edges.chain(others.iter().copied()).collect();
        assert_same_as_linear(&fib, &routes, &addresses);
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
    assert_eq!(fib.groups(), 0);
}

#[test]
fn of_equal_prefixes_the_later_counts() {
    let prefix = net4(0x0a00_0000, 8);
    let fib = Fib4::build([(prefix, RouteId(1)), (prefix, RouteId(2))]).unwrap();
    assert_eq!(fib.lookup(0x0a01_0203), RouteId(2));
}

#[test]
fn lengths_around_a_stage() {
    let routes = [(net4(0x0a00_0000, 8), RouteId(1)), (net4(0x0a00_0080, 25), RouteId(2))];
    let fib = Fib4::build(routes).unwrap();
    for length in [0, 1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1_000] {
        let addresses: Vec<u32> = (0..length).map(|n| 0x0a00_0000 + n * 3).collect();
        assert_same_as_linear(&fib, &routes, &addresses);
    }
}

/// All there is of a block: a route of its own for each /24 of a /18 that has longer ones, and for each
/// address of some.
#[test]
fn blocks_with_as_many_groups_and_values_as_there_can_be() {
    let first = 0x0a00_4000_u32;
    let mut routes = vec![(net4(first, 17), RouteId::MAX)];
    for block in 0..64 {
        routes.push((net4(first | block << 8, 24), RouteId(block as u16)));
        routes.push((net4(first | block << 8 | (block * 4), 32), RouteId(100 + block as u16)));
    }
    routes.extend((0..256).map(|last| (net4(first | last, 32), RouteId(1_000 + last as u16))));
    routes.extend((0..64).map(|n| (net4(first | 0x100 | (n * 4), 30), RouteId(2_000 + n as u16))));
    let fib = Fib4::build(routes.iter().copied()).unwrap();
    assert_eq!(fib.groups(), 64);
    let addresses: Vec<u32> = (first - 300..first + (1 << 14) + 300).collect();
    for (set, results) in by_each_set(&fib, &addresses) {
        let trie: prefix_trie::PrefixMap<Ipv4Net, RouteId> =
            routes.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
        for (&address, &result) in addresses.iter().zip(&results) {
            let want = trie.get_lpm(&net4(address, 32)).map_or(RouteId::NONE, |(_, &id)| id);
            assert_eq!(result, want, "{} by {set:?}", std::net::Ipv4Addr::from(address));
        }
    }
}

/// A host route in each of the first `blocks` /24s, no two alike around.
fn hosts(blocks: u32) -> impl Iterator<Item = (Ipv4Net, RouteId)> {
    (0..blocks).map(|block| (net4(block << 8 | 0x40, 32), RouteId((block % 60_000) as u16)))
}

/// Two million host routes of which no two share a /24, and a clear answer to too many.
#[test]
fn as_many_host_routes_as_there_is_room_for() {
    let fib = Fib4::build(hosts(1 << 21)).expect("within the limits");
    assert_eq!(fib.groups(), 1 << 21);
    for block in (0..1 << 21).step_by(61) {
        let found = [0x3f, 0x40, 0x41].map(|address| fib.lookup(block << 8 | address));
        assert_eq!(found, [RouteId::NONE, RouteId((block % 60_000) as u16), RouteId::NONE]);
    }
    let error = Fib4::build(hosts(1 << 23)).expect_err("too many");
    assert!(matches!(error, FibError::Fib4Full { max: Fib4::BLOCK_BYTES_MAX, .. }), "{error}");
    assert!(error.to_string().starts_with("the IPv4 table has no room for "), "{error}");
}

/// A full Internet table and 65,536 shared addresses of one's own, no two in one /24, with as many
/// next-hop groups as a route can name.
#[test]
fn a_full_table_and_scattered_addresses() {
    let Some(routes) = real_routes("a_full_table_and_scattered_addresses", 65_279) else { return };
    let mut random = Random(3);
    let mut blocks: Vec<u32> = (0..16_000_000).collect();
    let own: Vec<(Ipv4Net, RouteId)> = (0..65_536)
        .map(|_| {
            let block = blocks.swap_remove(random.below(blocks.len() as u64) as usize);
            let id = RouteId(random.below(65_279) as u16);
            (net4(block << 8 | random.below(256) as u32, 32), id)
        })
        .collect();
    let mut writer = Fib4Writer::build(routes.v4.iter().copied()).unwrap();
    let mut publisher = publisher(writer.table());
    let mut reader = publisher.reader();
    for &(prefix, id) in &own {
        writer.insert(prefix, id).expect("all of them fit");
        reader.refresh();
        writer.reclaim(&mut publisher);
    }
    reader.refresh();
    writer.reclaim(&mut publisher);
    let fib = writer.table();
    assert!(fib.groups() > 65_536 + 25_499 - 2_000, "{}", fib.groups());
    assert_eq!(writer.retired(), 0);
    let all: Vec<_> = routes.v4.iter().chain(&own).copied().collect();
    let built = Fib4::build(all.iter().copied()).unwrap();
    eprintln!(
        "{} routes, {} groups, {} bytes ({:.1} a route), {} built at once; the writer's own {}",
        all.len(),
        fib.groups(),
        fib.bytes(),
        fib.bytes() as f64 / all.len() as f64,
        built.bytes(),
        writer.bytes(),
    );
    assert!(fib.bytes() / all.len() < 120);
    let trie: prefix_trie::PrefixMap<Ipv4Net, RouteId> =
        all.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    let addresses: Vec<u32> = own
        .iter()
        .flat_map(|&(prefix, _)| edges4(prefix))
        .chain((0..500_000).map(|_| random.next() as u32))
        .collect();
    for (_, results) in [&*fib, &built].iter().flat_map(|table| by_each_set(table, &addresses)) {
        for (&address, &result) in addresses.iter().zip(&results) {
            let want = trie.get_lpm(&net4(address, 32)).map_or(RouteId::NONE, |(_, &id)| id);
            assert_eq!(result, want, "{}", std::net::Ipv4Addr::from(address));
        }
    }
}

#[test]
fn a_route_must_name_a_group() {
    for id in [RouteId::NONE, RouteId(RouteId::MAX.0 + 1)] {
        let error = Fib4::build([(net4(0x0a00_0000, 8), id)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("route 10.0.0.0/8 names next-hop group {}; the highest is 65278", id.0)
        );
    }
    let fib =
        Fib4::build([(net4(0x0a00_0000, 8), RouteId::MAX), (net4(0x0a00_0001, 32), RouteId::MAX)])
            .unwrap();
    assert_eq!(fib.lookup(0x0a00_0000), RouteId::MAX);
    assert_eq!(fib.lookup(0x0a00_0001), RouteId::MAX);
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
    let fib = Fib4::build(routes.iter().copied()).unwrap();
    eprintln!(
        "{} routes, {} groups, {} bytes ({:.1} a route); built in {:?}",
        routes.len(),
        fib.groups(),
        fib.bytes(),
        fib.bytes() as f64 / routes.len() as f64,
        started.elapsed(),
    );
    assert_eq!((routes.len(), fib.groups()), (1_072_529, 25_499));

    let trie: prefix_trie::PrefixMap<Ipv4Net, RouteId> =
        routes.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
    let mut random = Random(1);
    let addresses: Vec<u32> = routes
        .iter()
        .flat_map(|&(prefix, _)| edges4(prefix))
        .chain((0..1_000_000).map(|_| random.next() as u32))
        .collect();
    let want: Vec<RouteId> = addresses
        .iter()
        .map(|&address| trie.get_lpm(&net4(address, 32)).map_or(RouteId::NONE, |(_, &id)| id))
        .collect();
    for (set, results) in by_each_set(&fib, &addresses) {
        for ((&address, &result), &want) in addresses.iter().zip(&results).zip(&want) {
            assert_eq!(result, want, "{} by {set:?}", std::net::Ipv4Addr::from(address));
        }
    }
    let sample: Vec<u32> =
        (0..500).map(|_| addresses[random.below(addresses.len() as u64) as usize]).collect();
    assert_same_as_linear(&fib, &routes, &sample);
}
