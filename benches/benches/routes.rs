//! What routes cost the control loop, beside a full Internet table.
//!
//! - `routes/aside`: what a plan takes away with it while the loop waits.
//! - `routes/change` and `routes/change+aside`: one change of a route, without and with such a copy in
//!   somebody's hands, each at another place of the table.
//!
//! The routes are those of SLUICE_TESTDATA, or a synthetic table of the same shape.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use benches::routes::Routes;
use config::Checked;
use control::kernel::{NextHop, Route, RouteChange, RouteKind};
use control::publication::{Changes, HostView, InterfaceView, Publication};
use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use wire::{InterfaceId, MacAddress};

const CONFIG: &str = "[router]\n[[interface]]\nname = \"wan0\"\nrole = \"outside\"\n\
                      [[interface]]\nname = \"lan0\"\nrole = \"inside\"\n";
/// The kernel's number of the interface that all routes lead to.
const IFINDEX: u32 = 7;
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
}

criterion_group!(benches, routes);
criterion_main!(benches);
