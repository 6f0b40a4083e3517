//! What the tests of tables share: the linear oracle, a seeded generator and the real routes.

#![allow(dead_code)]

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::{Ipv4Net, Ipv6Net};
use proptest::test_runner::Config;
use tables::{
    Fib4, Fib6, FragmentLimits, Groups, HeaderRules, HoldLimits, IcmpLimits, Instructions,
    Neighbors, Publisher, RouteId, SliceTable, Snapshot, TunnelKinds,
};

/// The definition of a longest-prefix match: of all routes that hold the address, the last of the
/// longest.
pub(crate) fn linear<P: Copy, A: Copy>(
    routes: &[(P, RouteId)],
    address: A,
    holds: impl Fn(P, A) -> Option<u8>,
) -> RouteId {
    routes
        .iter()
        .filter_map(|&(prefix, id)| holds(prefix, address).map(|length| (length, id)))
        .max_by_key(|&(length, _)| length)
        .map_or(RouteId::NONE, |(_, id)| id)
}

pub(crate) fn holds4(prefix: Ipv4Net, address: u32) -> Option<u8> {
    let mask = u32::MAX.checked_shl(32 - u32::from(prefix.prefix_len())).unwrap_or(0);
    (address & mask == prefix.addr().to_bits() & mask).then_some(prefix.prefix_len())
}

pub(crate) fn holds6(prefix: Ipv6Net, address: u128) -> Option<u8> {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix.prefix_len())).unwrap_or(0);
    (address & mask == prefix.addr().to_bits() & mask).then_some(prefix.prefix_len())
}

pub(crate) fn net4(address: u32, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(address.into(), length)
}

pub(crate) fn net6(address: u128, length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(address.into(), length)
}

/// What a batch look-up gives, by each set of instructions.
pub(crate) fn by_each_set(
    fib: &Fib4,
    addresses: &[u32],
) -> impl Iterator<Item = (Instructions, Vec<RouteId>)> {
    Instructions::all().map(|(_, set)| {
        let mut results = vec![RouteId(7); addresses.len()];
        fib.lookup_batch_by(set, addresses, &mut results);
        (set, results)
    })
}

/// The addresses where a prefix can be got wrong: its ends and their neighbours.
pub(crate) fn edges4(prefix: Ipv4Net) -> [u32; 4] {
    let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
}

pub(crate) fn edges6(prefix: Ipv6Net) -> [u128; 4] {
    let (first, last) = (prefix.network().to_bits(), prefix.broadcast().to_bits());
    [first.wrapping_sub(1), first, last, last.wrapping_add(1)]
}

/// SplitMix64: a seed gives the same run everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// A full Internet table. Ids follow the origin, folded
/// to `ids` values, since there are more origins than 16 bits.
pub(crate) struct RealRoutes {
    pub(crate) v4: Vec<(Ipv4Net, RouteId)>,
    pub(crate) v6: Vec<(Ipv6Net, RouteId)>,
}

/// The real routes, or nothing and a visible line.
pub(crate) fn real_routes(test: &str, ids: u32) -> Option<RealRoutes> {
    let Some(root) = std::env::var_os("SLUICE_TESTDATA") else {
        eprintln!("SKIPPED {test}: SLUICE_TESTDATA does not name the test data");
        return None;
    };
    let path = PathBuf::from(root).join("routes/internet-2024.txt.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for line in text.lines() {
        let (prefix, origin) = line.split_once(' ').expect("prefix and origin");
        let id = RouteId(u16::try_from(origin.parse::<u32>().expect("origin") % ids).unwrap());
        match prefix.parse().expect("prefix") {
            ipnet::IpNet::V4(prefix) => v4.push((prefix, id)),
            ipnet::IpNet::V6(prefix) => v6.push((prefix, id)),
        }
    }
    Some(RealRoutes { v4, v6 })
}

/// `count` cases; a failure prints its input, which becomes a test of its own.
pub(crate) fn cases(count: u32) -> Config {
    Config { failure_persistence: None, ..Config::with_cases(count) }
}

/// A snapshot with this table and nothing else.
pub(crate) fn snapshot(fib4: Arc<Fib4>) -> Snapshot {
    Snapshot {
        configuration: 1,
        epoch: 1,
        defaults: [RouteId::NONE; 2],
        rules: HeaderRules::default(),
        validates_sources: false,
        interfaces: Vec::new(),
        fib4,
        fib6: Arc::new(Fib6::build([]).expect("an empty table")),
        groups: Arc::new(Groups::from_list(&[]).expect("no groups")),
        adjacencies: Vec::new(),
        neighbors: Neighbors::default(),
        slices: Arc::new(SliceTable::default()),
        owners: Vec::new(),
        peers: Vec::new(),
        peers_by_address: Default::default(),
        nodes: Vec::new(),
        sites: Vec::new(),
        locals: Default::default(),
        tunnel_kinds: TunnelKinds::default(),
        icmp: IcmpLimits { interface_per_s: 0, prefix_per_s: 0 },
        hold: HoldLimits { frames_max_per_neighbor: 0, frames_max: 0, timeout_ms: 0 },
        fragments: FragmentLimits {
            packets_max: 0,
            frames_max: 0,
            bytes_max: 0,
            timeout_ms: 0,
            egress: false,
            egress_packets_per_s: 0,
        },
        actions: Arc::default(),
        punt_packets_per_s: 0,
    }
}

pub(crate) fn publisher(fib4: Arc<Fib4>) -> Publisher {
    Publisher::new(snapshot(fib4))
}
