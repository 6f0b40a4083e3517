//! What a look-up costs, beside other tables with the same routes and destinations in the same run.
//!
//! - `fib4/SPREAD/SIZE[+SET][+polluted]/BATCH`, `fib6/..`: batch look-ups, the time of a whole batch.
//!   - SPREAD: `random`, `in-prefix`, `zipf` ([`Spread`]);
//!   - SIZE: `1`, `1K`, `10K`, `80K`, `100K`, `1M` routes, the last for all there are;
//!   - SET: none for the best of this processor, `+avx512`, `+avx2` and `+portable` for what older ones have
//!     as their best: Ice Lake (c6i); Skylake and Cascade Lake (c5n), AMD to Zen 3 (c5a, c6a); any at all
//!     ([`Instructions::all`]);
//!   - `+polluted`: while another core uses the cache;
//!   - BATCH: `32`, `64`, `256`.
//! - `single/N`: one look-up after another, each after N dependent instructions of other work.
//! - `slices`: whether an address is shared, and whose a port is.
//! - `updates`: changes in place, builds, and what readers lose meanwhile.
//! - `peers`: the crates prefix-trie and treebitmap; DPDK's tables and the kernel's LPM trie, where
//!   their harness could be built (`peers/`).
//!
//! The routes are those of SLUICE_TESTDATA, or a synthetic table of the same shape. A part by its name:
//! `cargo bench -p benches --bench tables -- fib6/in-prefix`, or `-- 'fib4/zipf/1M[+]avx2/64$'`.

use std::hint::black_box;
use std::iter;
use std::sync::OnceLock;
use std::time::Duration;

use benches::destinations::{self, Spread};
use benches::polluter::Polluter;
use benches::routes::Routes;
use core_affinity::CoreId;
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use tables::{Fib4, Fib6, Instructions, RouteId};

mod peers;
mod shared;
mod updates;

/// The cores of this machine, asked for before this thread is pinned: afterwards there is one.
static CORES: OnceLock<Vec<CoreId>> = OnceLock::new();

/// Routes of the tables; the last stands for all there are.
const SIZES: [usize; 6] = [1, 1_000, 10_000, 80_000, 100_000, 1_000_000];
const BATCHES: [usize; 3] = [32, 64, 256];

/// The first `size` routes, which are in no order; of a single one, the default route.
fn some<P: Copy + Default>(routes: &[(P, RouteId)], size: usize) -> Vec<(P, RouteId)> {
    match size {
        1 => vec![(P::default(), RouteId(1))],
        1_000_000 => routes.to_vec(),
        size => routes[..size.min(routes.len())].to_vec(),
    }
}

fn size_name(size: usize) -> String {
    match size {
        1_000_000 => "1M".to_owned(),
        1_000.. => format!("{}K", size / 1_000),
        size => size.to_string(),
    }
}

/// Runs `look_up` on one batch after another.
fn bench_batches<A, R: Clone>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    batch: usize,
    addresses: &[A],
    miss: R,
    mut look_up: impl FnMut(&[A], &mut [R]),
) {
    group.throughput(Throughput::Elements(batch as u64));
    let mut results = vec![miss; batch];
    let mut batches = addresses.chunks_exact(batch).cycle();
    group.bench_function(BenchmarkId::new(name, batch), |bencher| {
        bencher.iter(|| {
            look_up(batches.next().expect("a cycle has no end"), &mut results);
            black_box(&mut results);
        });
    });
}

/// Many short benches: the machine's noise is larger than what longer ones would gain.
fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.warm_up_time(Duration::from_millis(100)).measurement_time(Duration::from_millis(300));
    group.sample_size(20);
    group
}

/// Runs `bench` alone and beside a neighbour that uses the cache.
fn polluted_too(mut bench: impl FnMut(&str)) {
    bench("");
    let cores = CORES.get().map_or(&[][..], |cores| cores);
    match cores.first() {
        Some(&theirs)
            if std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
                || cores.len() > 1 =>
        {
            let _polluter = Polluter::start(theirs);
            bench("+polluted");
        }
        _ => eprintln!("skipped: +polluted, which needs a second core"),
    }
}

/// The processor's best instructions, and fewer, as what they add to a row's name.
fn sets() -> Vec<(String, Instructions)> {
    let best = Instructions::best();
    let others = Instructions::all().filter(|&(_, set)| set != best);
    let others = others.map(|(name, set)| (format!("+{name}"), set));
    iter::once((String::new(), best)).chain(others).collect()
}

fn fib4(criterion: &mut Criterion) {
    let routes = Routes::full();
    for size in SIZES {
        let some = some(&routes.v4, size);
        let fib = Fib4::build(some.iter().copied()).expect("the table fits");
        eprintln!(
            "fib4, {} {} routes: {} bytes, {:.1} a route",
            some.len(),
            routes.source,
            fib.bytes(),
            fib.bytes() as f64 / some.len() as f64
        );
        for spread in Spread::ALL {
            let addresses = destinations::v4(spread, &some);
            let name = format!("fib4/{}", spread.name());
            polluted_too(|suffix| {
                for (set, instructions) in &sets() {
                    let mut group = group(criterion, &name);
                    for batch in BATCHES {
                        let name = format!("{}{set}{suffix}", size_name(size));
                        bench_batches(
                            &mut group,
                            &name,
                            batch,
                            &addresses,
                            RouteId::NONE,
                            |from, to| {
                                fib.lookup_batch_by(*instructions, from, to);
                            },
                        );
                    }
                    group.finish();
                }
            });
        }
    }
}

fn fib6(criterion: &mut Criterion) {
    let routes = Routes::full();
    for size in SIZES {
        let some = some(&routes.v6, size);
        let fib = Fib6::build(some.iter().copied()).expect("the table fits");
        eprintln!(
            "fib6, {} {} routes: {} bytes, {:.1} a route",
            some.len(),
            routes.source,
            fib.bytes(),
            fib.bytes() as f64 / some.len() as f64
        );
        let sets: Vec<_> = sets()
            .into_iter()
            .map(|(set, instructions)| (set, fib.with_instructions(instructions)))
            .collect();
        for spread in Spread::ALL {
            let addresses = destinations::v6(spread, &some);
            let name = format!("fib6/{}", spread.name());
            polluted_too(|suffix| {
                for (set, fib) in &sets {
                    let mut group = group(criterion, &name);
                    for batch in BATCHES {
                        let name = format!("{}{set}{suffix}", size_name(size));
                        bench_batches(
                            &mut group,
                            &name,
                            batch,
                            &addresses,
                            RouteId::NONE,
                            |from, to| {
                                fib.lookup_batch(from, to);
                            },
                        );
                    }
                    group.finish();
                }
            });
        }
    }
}

/// Work that takes `STEPS` dependent instructions.
#[inline(always)]
fn other_work<const STEPS: usize>(mut value: u64) -> u64 {
    for _ in 0..STEPS / 2 {
        // Two instructions that the compiler cannot fold into fewer.
        value = value.rotate_left(7) ^ 0x55;
    }
    value
}

fn single_with<const STEPS: usize>(
    criterion: &mut Criterion,
    fib4: &Fib4,
    v4: &[u32],
    fib6: &Fib6,
    v6: &[u128],
) {
    let mut group = group(criterion, &format!("single/{STEPS}"));
    group.throughput(Throughput::Elements(1));
    let (mut at, mut value) = (0, 1);
    group.bench_function("work alone", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % destinations::COUNT;
            value = other_work::<STEPS>(value ^ u64::from(v4[at] & 1));
            value
        });
    });
    group.bench_function("fib4", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % destinations::COUNT;
            value = other_work::<STEPS>(value ^ u64::from(fib4.lookup(v4[at]).0));
            value
        });
    });
    group.bench_function("fib6", |bencher| {
        bencher.iter(|| {
            at = (at + 1) % destinations::COUNT;
            value = other_work::<STEPS>(value ^ u64::from(fib6.lookup(v6[at]).0));
            value
        });
    });
    group.finish();
}

fn single(criterion: &mut Criterion) {
    let routes = Routes::full();
    let fib4 = Fib4::build(routes.v4.iter().copied()).expect("the table fits");
    let fib6 = Fib6::build(routes.v6.iter().copied()).expect("the table fits");
    let v4 = destinations::v4(Spread::InPrefix, &routes.v4);
    let v6 = destinations::v6(Spread::InPrefix, &routes.v6);
    single_with::<64>(criterion, &fib4, &v4, &fib6, &v6);
    single_with::<256>(criterion, &fib4, &v4, &fib6, &v6);
}

/// The last core is the bench's own, as a worker's is.
fn pin(_: &mut Criterion) {
    if let Some(&ours) =
        CORES.get_or_init(|| core_affinity::get_core_ids().unwrap_or_default()).last()
    {
        core_affinity::set_for_current(ours);
    }
}

criterion_group!(
    benches,
    pin,
    fib4,
    fib6,
    single,
    shared::slices,
    updates::updates,
    peers::crates,
    peers::harnesses
);
criterion_main!(benches);
