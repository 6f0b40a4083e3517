//! What a look-up costs: the two FIBs over a full Internet table, and the slice table.
//!
//! Addresses are drawn at random from all there are, from within routes (each route as often as any
//! other), and from 10,000 flows within routes.
//!
//! - `fib4 batch`: for each destination of a batch a small piece of other work (a hash, 2 ns), then
//!   the batch look-up; `fib4 prefetched`: the same with `Fib4::prefetch` in the work's pass.
//! - `fib6 batch` against `fib6 one by one`: what descending the tree together is worth.
//! - `slices`: whether an address is shared, and whose a port is.
//!
//! Needs SLUICE_TESTDATA for the routes; without it the FIBs are left out with a visible line.

use std::hint::black_box;
use std::io::Read;
use std::path::PathBuf;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tables::{EgressBlock, Fib4, Fib6, NodeId, Owner, RouteId, SliceId, SliceRange, SliceTable};

/// Addresses of one distribution: far more than caches hold.
const ADDRESSES: usize = 1 << 20;
const BATCHES: [usize; 2] = [32, 256];

/// SplitMix64: a seed gives the same run everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[(self.next() % from.len() as u64) as usize]
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

struct Routes {
    v4: Vec<(Ipv4Net, RouteId)>,
    v6: Vec<(Ipv6Net, RouteId)>,
}

fn real_routes() -> Option<Routes> {
    let Some(root) = std::env::var_os("SLUICE_TESTDATA") else {
        eprintln!("SKIPPED fib4, fib6: SLUICE_TESTDATA does not name the test data");
        return None;
    };
    let path = PathBuf::from(root).join("routes/internet-2024.txt.gz");
    let file = std::fs::File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
    let mut routes = Routes { v4: Vec::new(), v6: Vec::new() };
    for line in text.lines() {
        let (prefix, origin) = line.split_once(' ').expect("prefix and origin");
        let id = RouteId((origin.parse::<u32>().expect("origin") % 40_000) as u16);
        match prefix.parse().expect("prefix") {
            IpNet::V4(prefix) => routes.v4.push((prefix, id)),
            IpNet::V6(prefix) => routes.v6.push((prefix, id)),
        }
    }
    Some(routes)
}

/// The three distributions, made from one draw over everything and one within routes.
fn distributions<A: Copy>(
    anywhere: impl Fn(&mut Random) -> A,
    in_route: impl Fn(&mut Random) -> A,
) -> [(&'static str, Vec<A>); 3] {
    let mut random = Random(1);
    let all = (0..ADDRESSES).map(|_| anywhere(&mut random)).collect();
    let within: Vec<A> = (0..ADDRESSES).map(|_| in_route(&mut random)).collect();
    let flows = (0..ADDRESSES).map(|_| *random.pick(&within[..10_000])).collect();
    [("random", all), ("in routes", within), ("10k flows", flows)]
}

/// Runs `lookup` on one batch after another.
fn bench_batches<A, R: Clone>(
    criterion: &mut Criterion,
    group: &str,
    name: &str,
    addresses: &[A],
    miss: R,
    mut lookup: impl FnMut(&[A], &mut [R]),
) {
    let mut group = criterion.benchmark_group(group);
    for batch in BATCHES {
        group.throughput(Throughput::Elements(batch as u64));
        let mut results = vec![miss.clone(); batch];
        let mut batches = addresses.chunks_exact(batch).cycle();
        group.bench_function(BenchmarkId::new(name, batch), |bencher| {
            bencher.iter(|| {
                lookup(batches.next().expect("a cycle has no end"), &mut results);
                black_box(&mut results);
            });
        });
    }
    group.finish();
}

/// What a packet costs before its look-up, in small.
fn mix(address: u32) -> u64 {
    (0..8).fold(u64::from(address), |hash, _| {
        (hash ^ (hash >> 29)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

fn fibs(criterion: &mut Criterion) {
    let Some(routes) = real_routes() else { return };

    let fib = Fib4::build(routes.v4.iter().copied()).expect("the table fits");
    let within = |random: &mut Random| {
        let (prefix, _) = random.pick(&routes.v4);
        prefix.network().to_bits() | (random.next() as u32 & prefix.hostmask().to_bits())
    };
    for (name, addresses) in distributions(|random| random.next() as u32, within) {
        let mut hashes = [0; 256];
        for (group, ahead) in [("fib4 batch", false), ("fib4 prefetched", true)] {
            bench_batches(
                criterion,
                group,
                name,
                &addresses,
                RouteId::NONE,
                |addresses, results| {
                    for (&address, hash) in addresses.iter().zip(&mut hashes) {
                        if ahead {
                            fib.prefetch(address);
                        }
                        *hash = mix(address);
                    }
                    black_box(&mut hashes);
                    fib.lookup_batch(addresses, results);
                },
            );
        }
    }

    let fib = Fib6::build(routes.v6.iter().copied()).expect("the table fits");
    let within = |random: &mut Random| {
        let (prefix, _) = random.pick(&routes.v6);
        prefix.network().to_bits() | (random.wide() & prefix.hostmask().to_bits())
    };
    for (name, addresses) in distributions(Random::wide, within) {
        bench_batches(
            criterion,
            "fib6 batch",
            name,
            &addresses,
            RouteId::NONE,
            |addresses, results| fib.lookup_batch(addresses, results),
        );
        bench_batches(
            criterion,
            "fib6 one by one",
            name,
            &addresses,
            RouteId::NONE,
            |addresses, results| {
                for (&address, result) in addresses.iter().zip(results) {
                    *result = fib.lookup(address);
                }
            },
        );
    }
}

fn builds(criterion: &mut Criterion) {
    let Some(routes) = real_routes() else { return };
    let mut group = criterion.benchmark_group("build");
    group.sample_size(10);
    group.bench_function("fib4 fresh", |bencher| {
        bencher.iter(|| Fib4::build(routes.v4.iter().copied()).expect("the table fits"));
    });
    let mut fib4 = Fib4::build([]).expect("memory");
    group.bench_function("fib4 again", |bencher| {
        bencher.iter(|| fib4.rebuild_into(routes.v4.iter().copied()).expect("the table fits"));
    });
    group.bench_function("fib6", |bencher| {
        bencher.iter(|| Fib6::build(routes.v6.iter().copied()).expect("the table fits"));
    });
    group.finish();
}

/// `addresses` shared addresses from 10.0.0.0 on, each with 31 slices of 2,048 ports.
fn shared(addresses: u32, node: impl Fn(u32, u16) -> u16) -> SliceTable {
    let blocks = (0..addresses).map(|n| EgressBlock {
        prefix: Ipv4Net::new_assert((0x0a00_0000 + n).into(), 32).into(),
        ranges: (0..31)
            .map(|slice| SliceRange {
                first_port: 2_048 + slice * 2_048,
                last_port: 2_048 + slice * 2_048 + 2_047,
                slice: SliceId(n * 31 + u32::from(slice)),
                owner: Owner::Node(NodeId(node(n, slice))),
            })
            .collect(),
        rest: Owner::DropByDefault,
        portless: Owner::DropByDefault,
    });
    SliceTable::build(blocks.collect()).expect("the table fits")
}

fn slices(criterion: &mut Criterion) {
    for (name, addresses, table) in [
        ("4 addresses", 4, shared(4, |_, slice| slice)),
        ("65536 alike", 65_536, shared(65_536, |_, slice| slice)),
        ("65536 unlike", 65_536, shared(65_536, |n, slice| n as u16 ^ slice)),
    ] {
        let mut random = Random(2);
        let owned: Vec<(u32, u16)> = (0..ADDRESSES)
            .map(|_| (0x0a00_0000 + (random.next() % addresses) as u32, random.next() as u16))
            .collect();
        let ordinary: Vec<(u32, u16)> =
            (0..ADDRESSES).map(|_| (random.next() as u32, random.next() as u16)).collect();
        for (kind, packets) in [("owned", &owned), ("ordinary", &ordinary)] {
            bench_batches(
                criterion,
                &format!("slices {kind}"),
                name,
                packets,
                Owner::Unowned,
                |packets, results| {
                    for (&(address, port), result) in packets.iter().zip(results) {
                        *result = match table.egress4(address) {
                            Some(egress) => table.lookup(egress, port).owner,
                            None => Owner::Unowned,
                        };
                    }
                },
            );
        }
    }
}

criterion_group!(benches, fibs, slices, builds);
criterion_main!(benches);
