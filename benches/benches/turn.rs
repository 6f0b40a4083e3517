//! One whole turn of a worker on memory rings: from the read of the RX ring to the write of the TX
//! ring, with all counters and descriptors, in TSC clocks a packet.
//!
//! Headers are freshly written before each turn, outside the measured time, as a card leaves them in
//! the cache. What is measured is what `sluice run` runs, but for the system calls of the rings.
//!
//! `full-table` is a full Internet table (or the synthetic one) and random destinations within its
//! routes.
//!
//! `cargo bench -p benches --bench turn`; with plugins: `cargo xtask plugins` before.

#[allow(dead_code, reason = "each bench is a program of its own, and not all need everything")]
#[path = "common/rig.rs"]
mod rig;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Barrier};

use benches::polluter::Polluter;
use benches::routes::Routes;
use benches::tsc::Tsc;
use config::Checked;
use control::publication::{Changes, NeighborView, NextHopView, Publication, RouteView};
use core_affinity::CoreId;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use forward::Worker;
use frame::{DropReason, Hook, HookPoint, Nanos, NoHook};
use policy::{HostOptions, PluginConfig, PluginHost, PluginSpec};
use rig::{
    CONFIG, NEXT_HOP_MAC, Traffic, go_inside, host, prepare, spread_inside4, spread_inside6, worker,
};
use sim::{LoopQueue, Vary};
use tables::{AdjacencyState, RouteId};
use wire::{InterfaceId, checksum, ethernet, ipv4};

/// Frames of each ring, written before a turn and then read: with a batch of them they are read from
/// the first cache levels, with a full ring from the third, where a card leaves them.
const FULL_RING_FRAMES: usize = 2048;

const SLICES: &str = r#"
[[egress]]
prefix = "192.0.2.1/32"
default = "drop"

[[egress.slice]]
ports = "0-32767"
node = "a"

[[egress.slice]]
ports = "32768-65535"
node = "b"
"#;

/// Beside the default route, so that the one row that needs it has it alone.
const BLACKHOLE: &str = r#"
[[route]]
prefix = "100.64.0.0/10"
type = "blackhole"
"#;

/// `CONFIG` with more behind it.
fn publication(more: &str) -> Publication {
    publication_of(&format!("{CONFIG}{more}"))
}

fn publication_of(text: &str) -> Publication {
    let config = Checked::parse(text, "bench.toml").expect("a valid configuration");
    let host = host();
    let mut publication = Publication::new(Arc::new(config), &host, 1).expect("a publication");
    publication
        .host_changed(&host, Changes { routes: true, neighbors: true })
        .expect("a publication");
    publication
}

/// Makes the packet one of `FLOWS`, at random: another destination and other ports for each.
fn spread<const FLOWS: u64>(bytes: &mut [u8], packet: u64) {
    // Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014.
    let mix = |seed: u64| {
        let seed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let seed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let seed = (seed ^ (seed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        seed ^ (seed >> 31)
    };
    let flow = mix(mix(packet) % FLOWS).to_be_bytes();
    let ip = &mut bytes[ethernet::HEADER_LEN..];
    // From 1.0.0.0 to 126.255.255.255, without networks that are dropped.
    ip[16] = 1 + flow[0] % 126;
    ip[17..20].copy_from_slice(&flow[1..4]);
    ip[20..22].copy_from_slice(&flow[4..6]);
    ip[10..12].fill(0);
    let sum = checksum::internet_checksum(&ip[..ipv4::HEADER_LEN]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// Next hops that the routes of a full table lead to.
const NEXT_HOPS: u16 = 64;

/// A publication with a full Internet table, whose routes lead to `NEXT_HOPS` neighbors; the
/// destinations within them become those of [`spread_inside4`] and [`spread_inside6`].
fn full_table() -> Publication {
    let routes = Routes::full();
    let config = Checked::parse(CONFIG, "bench.toml").expect("a valid configuration");
    let mut host = host();
    let via = |family: &str, hop: u16| -> IpAddr {
        let text = if family == "4" { format!("10.0.1.{hop}") } else { format!("fd00:1::{hop:x}") };
        text.parse().expect("an address")
    };
    let targets: Vec<[Arc<RouteView>; 2]> = (2..2 + NEXT_HOPS)
        .map(|hop| {
            ["4", "6"].map(|family| {
                let (interface, via) = (InterfaceId(1), via(family, hop));
                let resolved =
                    NeighborView { mac: Some(NEXT_HOP_MAC), state: AdjacencyState::Resolved };
                host.neighbors.insert((interface, via), resolved);
                let hop = NextHopView { interface, via: Some(via), weight: 1, mtu: 0 };
                Arc::new(RouteView::NextHops(vec![hop]))
            })
        })
        .collect();
    let target =
        |id: RouteId, family: usize| Arc::clone(&targets[usize::from(id.0 % NEXT_HOPS)][family]);
    host.routes.extend(routes.v4.iter().map(|&(prefix, id)| (prefix.into(), target(id, 0))));
    host.routes.extend(routes.v6.iter().map(|&(prefix, id)| (prefix.into(), target(id, 1))));
    go_inside(&routes);
    Publication::new(Arc::new(config), &host, 1).expect("a publication")
}

/// The first turn fills the rings, the second has packets.
fn warm_up<H: Hook>(worker: &mut Worker<LoopQueue, H>) {
    worker.turn(Nanos(0));
    prepare(worker);
    worker.turn(Nanos(1));
}

fn time<H: Hook>(
    criterion: &mut Criterion<Tsc>,
    name: &str,
    batch_frames: usize,
    worker: &mut Worker<LoopQueue, H>,
) {
    // Time goes on from sample to sample, as it does for meters.
    let mut now = 2;
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(batch_frames as u64));
    group.bench_function(BenchmarkId::new(name, batch_frames), |bencher| {
        bencher.iter_custom(|iterations| {
            let mut clocks = 0;
            for _ in 0..iterations {
                prepare(worker);
                let start = Tsc::now();
                worker.turn(Nanos(now));
                clocks += Tsc::now() - start;
                now += 1_000;
            }
            clocks
        });
    });
    group.finish();
    assert_eq!(worker.frames_missing(), 0);
}

/// Measures turns in which every packet is dropped for the one reason; senders are told as often as the
/// limits allow.
fn measure_drops<H: Hook>(
    criterion: &mut Criterion<Tsc>,
    name: &str,
    batch_frames: usize,
    reason: DropReason,
    mut worker: Worker<LoopQueue, H>,
) {
    warm_up(&mut worker);
    time(criterion, name, batch_frames, &mut worker);
    let counters = Arc::clone(worker.counters());
    let ingress = &counters.interfaces[0];
    let received = ingress.rx_packets.get();
    assert_eq!(
        ingress.drops[reason.index()].get(),
        received,
        "{name}: not every packet is dropped"
    );
    let told: u64 = counters.interfaces.iter().map(|each| each.originated.get()).sum();
    let asked = reason == DropReason::TtlExceeded;
    let withheld = if asked { received - told } else { 0 };
    assert_eq!(ingress.icmp_limited.get(), withheld, "{name}: errors are missing");
    // A filter of names may leave it at the one turn of the warm-up, whose errors are all of the burst.
    let is_timed = received > batch_frames as u64;
    assert!(!is_timed || told * 100 <= received, "{name}: {told} errors about {received} packets");
}

/// Measures turns, after making sure that every packet of one is sent.
fn measure<H: Hook>(
    criterion: &mut Criterion<Tsc>,
    name: &str,
    batch_frames: usize,
    mut worker: Worker<LoopQueue, H>,
) {
    warm_up(&mut worker);
    let counters = Arc::clone(worker.counters());
    let sent = || counters.interfaces[1].tx_packets.get();
    assert_eq!(sent(), batch_frames as u64, "{name}: not every packet was forwarded");

    time(criterion, name, batch_frames, &mut worker);
    let received = counters.interfaces[0].rx_packets.get();
    assert_eq!(sent(), received, "{name}: packets were lost");
}

/// Turns of two workers at the same time, each on a core of its own: clocks a packet of both together.
/// Half of what one worker takes would be twice its rate.
fn measure_two(
    criterion: &mut Criterion<Tsc>,
    batch_frames: usize,
    theirs: CoreId,
    mut workers: [Worker<LoopQueue, NoHook>; 2],
) {
    fn turns(worker: &mut Worker<LoopQueue, NoHook>, begun: u64, count: u64) -> u64 {
        let mut clocks = 0;
        for now in begun..begun + count {
            for queue in worker.queues_mut() {
                queue.prepare();
            }
            let start = Tsc::now();
            worker.turn(Nanos(now * 1_000));
            clocks += Tsc::now() - start;
        }
        clocks
    }
    for worker in &mut workers {
        // The first turn fills the rings.
        turns(worker, 0, 2);
    }
    let mut begun = 2;
    let mut group = criterion.benchmark_group("turn");
    group.throughput(Throughput::Elements(2 * batch_frames as u64));
    group.bench_function(BenchmarkId::new("ipv4-2-workers", batch_frames), |bencher| {
        bencher.iter_custom(|iterations| {
            let [ours, other] = &mut workers;
            let together = Barrier::new(2);
            let clocks = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    core_affinity::set_for_current(theirs);
                    together.wait();
                    turns(other, begun, iterations)
                });
                together.wait();
                let ours = turns(ours, begun, iterations);
                ours.max(other.join().expect("the other worker"))
            });
            begun += iterations;
            clocks
        });
    });
    group.finish();
    for worker in &workers {
        let interfaces = &worker.counters().interfaces;
        let (received, sent) = (interfaces[0].rx_packets.get(), interfaces[1].tx_packets.get());
        assert_eq!(sent, received, "two workers: packets were lost");
    }
}

fn plugin(name: &str, config: &str) -> Option<PluginSpec> {
    let folder = std::env::var_os("SLUICE_PLUGINS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/plugins")),
        PathBuf::from,
    );
    let path = folder.join(format!("{name}.wasm"));
    if !path.exists() {
        eprintln!("skipped: {name}, since {} is not there (cargo xtask plugins)", path.display());
        return None;
    }
    let mut spec = PluginSpec::new(name, path, HookPoint::Ingress);
    spec.config = PluginConfig::Table(config.parse().expect("valid TOML"));
    spec.grants = vec!["meter".to_owned(), "log".to_owned()];
    Some(spec)
}

fn turns(criterion: &mut Criterion<Tsc>) {
    println!("TSC: {:.3} GHz", Tsc::gigahertz());
    // The last core is the bench's own, as a worker's is.
    // Asked for before this thread is pinned: afterwards there would be one.
    let cores = core_affinity::get_core_ids().unwrap_or_default();
    if let Some(&ours) = cores.last() {
        core_affinity::set_for_current(ours);
    }
    let full = full_table();
    for batch in [64, 256] {
        for (name, traffic, vary) in [
            ("ipv4-full-table", Traffic::Ipv4, spread_inside4 as Vary),
            ("ipv6-full-table", Traffic::Ipv6, spread_inside6),
        ] {
            let worker = worker(traffic, (batch, batch), Some(vary), &full, NoHook);
            measure(criterion, name, batch, worker);
        }
        let plain = publication("");
        let sliced = publication(SLICES);
        let blackhole = publication(BLACKHOLE);
        let validated = |mode: &str| {
            let role = "role = \"outside\"";
            let keys = format!("{role}\nsource_validation = \"{mode}\"");
            publication_of(&CONFIG.replacen(role, &keys, 1))
        };
        let loose = validated("loose");
        let cases = [
            ("ipv4", Traffic::Ipv4, batch, &plain),
            ("ipv6", Traffic::Ipv6, batch, &plain),
            ("ipv4-slices", Traffic::Ipv4, batch, &sliced),
            ("slice-to-node", Traffic::Slice, batch, &sliced),
            ("ipv4-full-ring", Traffic::Ipv4, FULL_RING_FRAMES, &plain),
            ("ipv6-full-ring", Traffic::Ipv6, FULL_RING_FRAMES, &plain),
            ("ipv4-loose", Traffic::Ipv4, batch, &loose),
            ("ipv6-loose", Traffic::Ipv6, batch, &loose),
        ];
        for (name, traffic, ring, publication) in cases {
            let worker = worker(traffic, (batch, ring), None, publication, NoHook);
            measure(criterion, name, batch, worker);
        }
        // What an attack by "every packet asks for an error" costs, beside what a plain drop costs.
        let attacks = [
            ("ipv4-blackhole", Traffic::Blackholed, DropReason::Blackhole, &blackhole),
            ("ipv4-ttl-1", Traffic::Dying, DropReason::TtlExceeded, &plain),
        ];
        for (name, traffic, reason, publication) in attacks {
            let worker = worker(traffic, (batch, batch), None, publication, NoHook);
            measure_drops(criterion, name, batch, reason, worker);
        }
        let flows: [(&str, Vary); 3] = [
            ("1-flow", spread::<1>),
            ("10k-flows", spread::<10_000>),
            ("1M-flows", spread::<1_000_000>),
        ];
        for (flows, vary) in flows {
            let worker = || worker(Traffic::Ipv4, (batch, batch), Some(vary), &plain, NoHook);
            measure(criterion, &format!("ipv4-{flows}"), batch, worker());
            match cores[..] {
                [theirs, .., _] => {
                    let _polluter = Polluter::start(theirs);
                    measure(criterion, &format!("ipv4-{flows}-polluted"), batch, worker());
                }
                _ => eprintln!("skipped: ipv4-{flows}-polluted, which needs a second core"),
            }
        }
        let one = || worker(Traffic::Ipv4, (batch, batch), None, &plain, NoHook);
        match cores[..] {
            [theirs, .., _] => measure_two(criterion, batch, theirs, [one(), one()]),
            _ => eprintln!("skipped: ipv4-2-workers, which needs a second core"),
        }
        let plugins = [
            (
                "filter",
                "default = \"allow\"\n[[rules]]\naction = \"drop\"\nsource = [\"10.0.0.0/8\"]\n",
            ),
            ("rate-limit", "packets_per_s = 1000000000\nburst = 1000000\n"),
        ];
        for (name, config) in plugins {
            let Some(spec) = plugin(name, config) else { continue };
            let (mut host, chains) = PluginHost::new(HostOptions::new(1)).expect("a host");
            let prepared = host.prepare(&[spec]).expect("a sound plugin");
            host.publish(prepared).expect("published");
            let hook = chains.into_iter().next().expect("one worker");
            let name = format!("ipv4+{name}");
            let worker = worker(Traffic::Ipv4, (batch, batch), None, &plain, hook);
            measure(criterion, &name, batch, worker);
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Tsc).sample_size(50);
    targets = turns
}
criterion_main!(benches);
