//! What routes cost the control loop, beside a full Internet table.
//!
//! - `routes/aside`: what a plan takes away with it while the loop waits.
//! - `routes/change` and `routes/change+aside`: one change of a route, without and with such a copy in
//!   somebody's hands, each at another place of the table.
//! - `routes/burst6/N`: N changes of IPv6 routes, from the kernel's news until workers can read them, in time
//!   *for each change*. As routers tell them: half of them lead elsewhere, the others are withdrawn or announced
//!   again. The control loop gathers news for as long as the last publication took.
//! - `routes/host6`: one host in a /64, which comes or goes; `routes/host6 settled`: what follows half a second
//!   after the first of them, when the table is built anew.
//!
//! The routes are those of SLUICE_TESTDATA, or a synthetic table of the same shape.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::routes::Routes;
use config::Checked;
use control::kernel::{NextHop, Route, RouteChange, RouteKind};
use control::publication::{Changes, HostView, InterfaceView, Publication};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ipnet::{IpNet, Ipv6Net};
use tables::RouteId;
use wire::{InterfaceId, MacAddress};

const CONFIG: &str = "[router]\n[[interface]]\nname = \"wan0\"\nrole = \"outside\"\n\
                      [[interface]]\nname = \"lan0\"\nrole = \"inside\"\n";
/// The kernel's number of the interface that all routes lead to.
const IFINDEX: u32 = 7;
/// More than a table stays patched.
const SETTLED: Duration = Duration::from_secs(1);
/// Changes that the kernel's mirror hands over together.
const TOLD_AT_ONCE: usize = 64;
/// Neighbors that routes lead to, of each family.
const NEXT_HOPS: u16 = 200;

fn host() -> HostView {
    let mut host = HostView::default();
    for (which, addresses) in
        [["10.0.0.1/24", "fd00:0::1/64"], ["10.0.1.1/24", "fd00:1::1/64"]].iter().enumerate()
    {
        host.interfaces.push(InterfaceView {
            mac: MacAddress([2, 0, 0, 0, 0, which as u8]),
            mtu: 1500,
            addresses: addresses.iter().map(|text| text.parse().expect("a prefix")).collect(),
        });
    }
    host.links.insert(IFINDEX, InterfaceId(1));
    host
}

/// The kernel's news of one route.
fn route(prefix: IpNet, hop: u16) -> RouteChange {
    let hop = 2 + hop % NEXT_HOPS;
    let via: IpAddr = match prefix {
        IpNet::V4(_) => format!("10.0.1.{hop}"),
        IpNet::V6(_) => format!("fd00:1::{hop:x}"),
    }
    .parse()
    .expect("an address");
    let hop = NextHop { via: Some(via), ifindex: IFINDEX, weight: 1, mtu: 0 };
    let kind = Arc::new(RouteKind::NextHops([hop].into()));
    let route = Route { table: 254, metric: 0, protocol: 12, kind };
    RouteChange { prefix, routes: [route].into_iter().collect() }
}

fn routes(criterion: &mut Criterion) {
    let routes = Routes::full();
    let config = Arc::new(Checked::parse(CONFIG, "bench.toml").expect("a valid configuration"));
    let host = host();
    let mut publication = Publication::new(config, &host, 1).expect("a publication");
    let v4 = routes.v4.iter().map(|&(prefix, id)| route(prefix.into(), id.0));
    let v6 = routes.v6.iter().map(|&(prefix, id)| route(prefix.into(), id.0));
    let all: Vec<RouteChange> = v4.chain(v6).collect();
    publication.kernel_routes(&all, Instant::now());
    publication
        .host_changed(&host, Changes { routes: true, neighbors: true })
        .expect("a publication");
    eprintln!("routes, {}: {:?}", routes.source, publication.counts());

    let mut group = criterion.benchmark_group("routes");
    group.sample_size(20);
    group.bench_function("aside", |bencher| {
        bencher.iter_with_large_drop(|| publication.routes_aside().expect("there is memory"));
    });
    let mut at = 0;
    let mut changes = move || {
        at += 1;
        let prefix = all[at * 7919 % all.len()].prefix;
        [route(prefix, (at / all.len()) as u16 + at as u16 * 3)]
    };
    let since = Instant::now();
    group.bench_function("change", |bencher| {
        bencher.iter_batched(
            &mut changes,
            |change| publication.kernel_routes(&change, since),
            criterion::BatchSize::PerIteration,
        );
    });
    let mut worst = std::time::Duration::ZERO;
    group.bench_function("change+aside", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut all = std::time::Duration::ZERO;
            for _ in 0..iterations {
                let aside = publication.routes_aside().expect("there is memory");
                let change = changes();
                let start = Instant::now();
                publication.kernel_routes(&change, since);
                let took = start.elapsed();
                worst = worst.max(took);
                all += took;
                drop(aside);
            }
            all
        });
    });
    eprintln!("routes/change+aside, the slowest: {worst:?}");
    group.finish();
    bursts6(criterion, &mut publication, &host, &routes.v6);
}

/// The kernel's news of a route that is gone.
fn gone(prefix: IpNet) -> RouteChange {
    RouteChange { prefix, routes: [].into_iter().collect() }
}

/// As the control loop does it when it has gathered `changes`: until workers can read them.
fn publish(publication: &mut Publication, host: &HostView, changes: &[RouteChange]) -> Duration {
    let start = Instant::now();
    for told in changes.chunks(TOLD_AT_ONCE) {
        publication.kernel_routes(told, start);
    }
    let routes = Changes { routes: true, neighbors: false };
    publication.host_changed(host, routes).expect("a publication");
    let took = start.elapsed();
    publication.collect();
    took
}

fn bursts6(
    criterion: &mut Criterion,
    publication: &mut Publication,
    host: &HostView,
    routes: &[(Ipv6Net, RouteId)],
) {
    let mut group = criterion.benchmark_group("routes");
    group.sample_size(10);
    let mut at = 0;
    let mut withdrawn = VecDeque::new();
    let mut change = || {
        at += 1;
        let prefix = IpNet::from(routes[at * 7919 % routes.len()].0);
        match at % 4 {
            0 => {
                withdrawn.push_back(prefix);
                gone(prefix)
            }
            1 if !withdrawn.is_empty() => route(withdrawn.pop_front().expect("one"), at as u16),
            _ => route(prefix, (at / routes.len()) as u16 + at as u16 * 3),
        }
    };
    for size in [1_000, 100_000] {
        group.bench_function(BenchmarkId::new("burst6", size), |bencher| {
            bencher.iter_custom(|iterations| {
                let mut all = Duration::ZERO;
                for _ in 0..iterations {
                    let changes: Vec<RouteChange> = (0..size).map(|_| change()).collect();
                    all += publish(publication, host, &changes);
                }
                all / size
            });
        });
    }
    let mut at = 0_u128;
    group.bench_function("host6", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut all = Duration::ZERO;
            for _ in 0..iterations {
                at += 1;
                // A hundred of them, each there every other time.
                let address = 0x2001_0db8_u128 << 96 | (at / 2 % 100);
                let prefix = Ipv6Net::new_assert(address.into(), 128).into();
                let change =
                    if at.is_multiple_of(2) { gone(prefix) } else { route(prefix, at as u16) };
                all += publish(publication, host, &[change]);
            }
            all
        });
    });
    group.bench_function("host6 settled", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut all = Duration::ZERO;
            for _ in 0..iterations {
                at += 1;
                let prefix = Ipv6Net::new_assert((0x2001_0db8_u128 << 96).into(), 128).into();
                publish(publication, host, &[route(prefix, at as u16)]);
                assert!(publication.tick(Instant::now() + SETTLED), "a table has patches");
                all += publish(publication, host, &[]);
            }
            all
        });
    });
    group.finish();
}

criterion_group!(benches, routes);
criterion_main!(benches);
