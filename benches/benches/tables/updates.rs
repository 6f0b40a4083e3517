//! Changes: how long one takes, and what readers lose while there are many.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use benches::destinations::{self, Spread};
use benches::random::Random;
use benches::routes::Routes;
use criterion::{BatchSize, Criterion};
use ipnet::Ipv4Net;
use tables::{Fib4, Fib4Writer, Fib6, RouteId};

use super::{CORES, group};

/// Changes by length of their prefixes: the median of all in the mix of a full table, and the worst of
/// each length. Criterion has no worst, so these are printed.
fn by_length(routes: &[(Ipv4Net, RouteId)]) {
    let mut writer = Fib4Writer::build(routes.iter().copied()).expect("the table fits");
    let mut random = Random(5);
    let mut all = Vec::new();
    let mut of_length = vec![Vec::new(); 33];
    let started = Instant::now();
    while all.len() < 300_000 && started.elapsed() < Duration::from_secs(20) {
        let &(prefix, _) = random.pick(routes);
        let id = RouteId(random.below(60_000) as u16);
        let start = Instant::now();
        writer.insert(prefix, id).expect("it was there before");
        let ns = start.elapsed().as_nanos() as u64;
        all.push(ns);
        of_length[usize::from(prefix.prefix_len())].push(ns);
    }
    all.sort_unstable();
    println!(
        "updates/fib4 in the mix of the table: median {} ns, 99 % below {} ns (the clock's own included)",
        all[all.len() / 2],
        all[all.len() * 99 / 100]
    );
    // The rare short ones, each several times.
    for &(prefix, id) in routes.iter().filter(|(prefix, _)| prefix.prefix_len() < 16).take(2_000) {
        let start = Instant::now();
        writer.insert(prefix, id).expect("it was there before");
        of_length[usize::from(prefix.prefix_len())].push(start.elapsed().as_nanos() as u64);
    }
    for (length, mut times) in
        of_length.into_iter().enumerate().filter(|(_, times)| !times.is_empty())
    {
        times.sort_unstable();
        println!(
            "updates/fib4 of /{length}: median {} ns, worst {} ns of {}",
            times[times.len() / 2],
            times[times.len() - 1],
            times.len()
        );
    }
}

/// What a reader on this core does in a second, alone and while another core changes a million routes
/// in it.
fn readers(routes: &[(Ipv4Net, RouteId)]) {
    let cores = CORES.get().map_or(&[][..], |cores| cores);
    let &[theirs, .., _] = cores else {
        eprintln!("skipped: updates/readers, which needs a second core");
        return;
    };
    let mut writer = Fib4Writer::build(routes.iter().copied()).expect("the table fits");
    let table = writer.table();
    let to = destinations::v4(Spread::InPrefix, routes);
    let (stop, changes) = (AtomicBool::new(false), AtomicU64::new(0));
    let read_for = |duration: Duration| {
        let mut results = [RouteId::NONE; 64];
        let (start, mut reads) = (Instant::now(), 0_u64);
        'reading: loop {
            for batch in to.chunks_exact(64) {
                table.lookup_batch(batch, &mut results);
                std::hint::black_box(&mut results);
                reads += 64;
                if reads.is_multiple_of(1 << 16) && start.elapsed() > duration {
                    break 'reading;
                }
            }
        }
        start.elapsed().as_nanos() as f64 / reads as f64
    };
    let alone = read_for(Duration::from_secs(1));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(theirs);
            let mut random = Random(6);
            // From /20 on, as nearly all changes are.
            let long: Vec<_> =
                routes.iter().filter(|(prefix, _)| prefix.prefix_len() >= 20).copied().collect();
            let start = Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let done = changes.fetch_add(64, Ordering::Relaxed);
                for _ in 0..64 {
                    let &(prefix, _) = random.pick(&long);
                    let id = RouteId(random.below(60_000) as u16);
                    writer.insert(prefix, id).expect("it was there before");
                }
                while start.elapsed().as_nanos() < u128::from(done) * 1_000 {
                    std::hint::spin_loop();
                }
            }
        });
        let start = Instant::now();
        let beside = read_for(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
        println!(
            "updates/readers: {alone:.2} ns a look-up alone, {beside:.2} ns beside {:.2} M changes/s: {:+.1} %",
            changes.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64() / 1e6,
            (beside / alone - 1.0) * 100.0
        );
    });
}

pub(super) fn updates(criterion: &mut Criterion) {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let routes = Routes::full();
    if filters.is_empty() || filters.iter().any(|filter| filter.starts_with("updates")) {
        by_length(&routes.v4);
        readers(&routes.v4);
    }
    let mut group = group(criterion, "build");
    group.sample_size(10);
    group.bench_function("fib4", |bencher| {
        bencher.iter_batched(
            || routes.v4.clone(),
            |routes| Fib4::build(routes).expect("the table fits"),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("fib6", |bencher| {
        bencher.iter(|| Fib6::build(routes.v6.iter().copied()).expect("the table fits"));
    });
    group.finish();
}
