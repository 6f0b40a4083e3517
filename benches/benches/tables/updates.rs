//! Changes: how long one takes, and what readers lose while there are many.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use benches::destinations::{self, Spread};
use benches::random::Random;
use benches::routes::Routes;
use config::Checked;
use control::publication::{HostView, InterfaceView, Publication};
use criterion::{BatchSize, Criterion};
use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;
use tables::{Fib4, Fib4Writer, Fib6, Publisher, RouteId, Snapshot};
use wire::MacAddress;

use super::{CORES, group};

/// Changes beside readers: what a million a second take in two seconds, and some.
const CHANGES: usize = 2_200_000;

/// The one who publishes `fib4`, with nothing else.
fn publisher(fib4: Arc<Fib4>) -> Publisher {
    let config = "[router]\n[[interface]]\nname = \"out0\"\nrole = \"outside\"\n";
    let config = Checked::parse(config, "bench.toml").expect("a valid configuration");
    let mac = MacAddress([2, 0, 0, 0, 0, 1]);
    let mut host = HostView::default();
    host.interfaces.push(InterfaceView { mac, mtu: 1500, addresses: Vec::new() });
    let publication = Publication::new(Arc::new(config), &host, 1).expect("a publication");
    let empty = Snapshot::clone(publication.reader().snapshot());
    Publisher::new(Snapshot { fib4, ..empty })
}

/// A change of a route.
enum Change {
    Insert(Ipv4Net, RouteId),
    Remove(Ipv4Net, Option<(u8, RouteId)>),
}

/// Changes as routers tell them: half of them have a route lead elsewhere, the others withdraw one and
/// announce it again. `routes` are those that are told of.
struct Mix<'a> {
    routes: &'a [(Ipv4Net, RouteId)],
    /// Those that are there, for what is around one that goes.
    present: PrefixMap<Ipv4Net, RouteId>,
    withdrawn: VecDeque<(Ipv4Net, RouteId)>,
    random: Random,
}

impl<'a> Mix<'a> {
    fn new(all: &[(Ipv4Net, RouteId)], routes: &'a [(Ipv4Net, RouteId)]) -> Self {
        let present = all.iter().map(|&(prefix, id)| (prefix.trunc(), id)).collect();
        Self { routes, present, withdrawn: VecDeque::new(), random: Random(5) }
    }

    fn next(&mut self) -> Change {
        match self.random.below(4) {
            0 => {
                let &(prefix, id) = self.random.pick(self.routes);
                self.present.remove(&prefix.trunc());
                self.withdrawn.push_back((prefix, id));
                let around = self.present.get_lpm(&prefix.trunc());
                Change::Remove(prefix, around.map(|(around, &id)| (around.prefix_len(), id)))
            }
            1 if !self.withdrawn.is_empty() => {
                let (prefix, id) = self.withdrawn.pop_front().expect("there is one");
                self.present.insert(prefix.trunc(), id);
                Change::Insert(prefix, id)
            }
            _ => {
                let &(prefix, _) = self.random.pick(self.routes);
                let id = RouteId(self.random.below(60_000) as u16);
                self.present.insert(prefix.trunc(), id);
                Change::Insert(prefix, id)
            }
        }
    }
}

fn apply(writer: &mut Fib4Writer, change: &Change) {
    match *change {
        Change::Insert(prefix, id) => writer.insert(prefix, id).expect("there is room"),
        Change::Remove(prefix, around) => writer.remove(prefix, around).expect("there is room"),
    }
}

/// Changes by length of their prefixes: the median of all in the mix of a full table, and the worst of
/// each length. Criterion has no worst, so these are printed.
fn by_length(routes: &[(Ipv4Net, RouteId)]) {
    let mut writer = Fib4Writer::build(routes.iter().copied()).expect("the table fits");
    let mut publisher = publisher(writer.table());
    let mut mix = Mix::new(routes, routes);
    let mut all = Vec::new();
    let mut of_length = vec![Vec::new(); 33];
    let started = Instant::now();
    while all.len() < 300_000 && started.elapsed() < Duration::from_secs(20) {
        let change = mix.next();
        let (Change::Insert(prefix, _) | Change::Remove(prefix, _)) = change;
        let start = Instant::now();
        apply(&mut writer, &change);
        let ns = start.elapsed().as_nanos() as u64;
        all.push(ns);
        of_length[usize::from(prefix.prefix_len())].push(ns);
        if all.len().is_multiple_of(64) {
            writer.reclaim(&mut publisher);
        }
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

/// What look-ups on this core take: alone, while another core makes a million changes a second in another
/// table, the same in the one that is read, and alone again. The second is the price of a busy neighbour;
/// the last that of the changed routes, of which fewer neighbours are alike; what the third takes beyond
/// the last is the price of the changes.
fn readers(routes: &[(Ipv4Net, RouteId)]) {
    let cores = CORES.get().map_or(&[][..], |cores| cores);
    let &[theirs, .., _] = cores else {
        eprintln!("skipped: updates/readers, which needs a second core");
        return;
    };
    let table = || Fib4Writer::build(routes.iter().copied()).expect("the table fits");
    let (read, other) = (table(), table());
    let mut publishers = [publisher(read.table()), publisher(other.table())];
    let mut reader = publishers[0].reader();
    let to = destinations::v4(Spread::InPrefix, routes);
    // From /20 on, as nearly all changes are.
    let long: Vec<_> =
        routes.iter().filter(|(prefix, _)| prefix.prefix_len() >= 20).copied().collect();
    // Ready before, since what is around a route is not looked for here.
    let mut mix = Mix::new(routes, &long);
    let ready: Vec<Change> = (0..CHANGES).map(|_| mix.next()).collect();
    let mut read_for = |duration: Duration| {
        let mut results = [RouteId::NONE; 64];
        let (start, mut reads) = (Instant::now(), 0_u64);
        'reading: loop {
            for batch in to.chunks_exact(64) {
                reader.refresh();
                reader.snapshot().fib4.lookup_batch(batch, &mut results);
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
    let [other, read] = [(other, 1), (read, 0)].map(|(mut writer, of)| {
        let (stop, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (ready, publisher) = (&ready, &mut publishers[of]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                core_affinity::set_for_current(theirs);
                let start = Instant::now();
                for ready in ready.chunks(64) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    ready.iter().for_each(|change| apply(&mut writer, change));
                    writer.reclaim(publisher);
                    let done = changes.fetch_add(ready.len(), Ordering::Relaxed);
                    while start.elapsed().as_nanos() < done as u128 * 1_000 {
                        std::hint::spin_loop();
                    }
                }
            });
            let start = Instant::now();
            let beside = read_for(Duration::from_secs(2));
            stop.store(true, Ordering::Relaxed);
            (beside, changes.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64() / 1e6)
        })
    });
    let after = read_for(Duration::from_secs(1));
    println!(
        "updates/readers: {alone:.2} ns a look-up alone; {:.2} ns beside {:.2} M changes/s of another \
         table; {:.2} ns beside {:.2} M changes/s, {after:.2} ns after them: {:+.1} %",
        other.0,
        other.1,
        read.0,
        read.1,
        (read.0 / after - 1.0) * 100.0
    );
}

pub(super) fn updates(criterion: &mut Criterion) {
    let filters: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let routes = Routes::full();
    if filters.is_empty() || filters.iter().any(|filter| filter.starts_with("updates")) {
        by_length(&routes.v4);
        readers(&routes.v4);
    }
    let mut group = group(criterion, "updates/build");
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
