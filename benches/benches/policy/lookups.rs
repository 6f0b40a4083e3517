//! What it costs a plugin to ask for a prefix, by family, kind of table and number of entries.
//!
//! - `lookups/KIND FAMILY SIZE/BATCH`: tables of the host (`sluice.table_batch`), by a guest that asks for every
//!   packet's source and does nothing else.
//!   - KIND: `lpm`, prefixes with values as of a real table of routes; `set`, the same without values and without
//!     the default route, which would be all of it; `hosts`, a set of single addresses, two thirds of the packets
//!     from them;
//!   - FAMILY: `4`, `6`, or `46` for a table of both, and packets of either in no order;
//!   - SIZE: `300`, `10K`, `176K` entries of each family, the last for as many as IPv6 has routes.
//! - `lookups/filter-set FAMILY SIZE/BATCH`: a set in the guest's own memory, as `filter` keeps those of rules.
//! - `lookups/none/BATCH`: the bench's own copy of descriptors; `lookups/trivial/BATCH`: that and a guest
//!   which asks for nothing. What a look-up costs is what a row has beyond `trivial`.
//!
//! Sources are spread evenly over the entries, so that each size has what it costs in the caches.

use std::path::Path;
use std::time::Duration;

use benches::destinations::{self, Spread};
use benches::random::Random;
use benches::routes::Routes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use frame::{Batch, Descriptor, Hook as _, HookPoint, Nanos, Verdict};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use policy::{PluginConfig, PluginSpec, WorkerChain};
use sluice_abi::flags;
use tables::RouteId;

use super::peers::is_wanted;
use super::{frames, load, plugins, source, trivial};

/// Opens its table, and looks up the sources of every batch.
const ASKING: &str = r#"(module
  (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"asking\"\nhooks = [\"ingress\"]\nimports = [\"table\"]\ntables = [\"asked\"]\n")
  (import "sluice" "table_open" (func $open (param i32 i32) (result i32)))
  (import "sluice" "table_batch" (func $batch (param i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
  (data (i32.const 0x7000) "asked")
  (func (export "sluice_abi_version") (result i32) (i32.const 0x10000))
  (func (export "sluice_layout") (result i32) (i32.const 16))
  (func (export "sluice_configure") (param i32) (result i32)
    (if (call $open (i32.const 0x7000) (i32.const 5)) (then unreachable))
    (i32.const 0))
  (func (export "sluice_process") (param $n i32) (param i64)
    (call $batch (i32.const 0) (i32.const 0x400) (i32.const 64) (local.get $n) (i32.const 0x5000))))"#;

/// Entries of a table; the last stands for as many as IPv6 has routes.
const SIZES: [(&str, usize); 3] = [("300", 300), ("10K", 10_000), ("176K", 176_388)];
/// Sets in a guest's memory are configuration, which is not as long.
const OWN_SIZES: [(&str, usize); 2] = [("300", 300), ("10K", 10_000)];
/// Packets that pass in turn.
const PACKETS: usize = 1 << 15;
const BATCHES: [usize; 2] = [64, 256];

#[derive(Clone, Copy)]
enum Kind {
    Lpm,
    Set,
    Hosts,
}

/// Entries of one family as a file has them, and sources of packets.
#[derive(Default)]
struct Entries {
    lines: String,
    nets: Vec<IpNet>,
    sources: Vec<u128>,
}

impl Entries {
    fn v4(routes: &[(Ipv4Net, RouteId)], kind: Kind) -> Self {
        let inside = destinations::v4(Spread::InPrefix, routes);
        let mapped = |address: u32| std::net::Ipv4Addr::from(address).to_ipv6_mapped().to_bits();
        let nets = routes.iter().map(|&(prefix, id)| (prefix.trunc().into(), id));
        Self::of(kind, nets, inside.into_iter().map(mapped))
    }

    fn v6(routes: &[(Ipv6Net, RouteId)], kind: Kind) -> Self {
        let inside = destinations::v6(Spread::InPrefix, routes);
        let nets = routes.iter().map(|&(prefix, id)| (prefix.trunc().into(), id));
        Self::of(kind, nets, inside.into_iter())
    }

    fn of(
        kind: Kind,
        nets: impl ExactSizeIterator<Item = (IpNet, RouteId)>,
        inside: impl Iterator<Item = u128>,
    ) -> Self {
        let inside: Vec<u128> = inside.collect();
        let hosts = nets.len();
        let mut entries = Self::default();
        match kind {
            Kind::Lpm => {
                for (net, id) in nets {
                    entries.lines.push_str(&format!("{net} {}\n", u32::from(id.0) + 1));
                    entries.nets.push(net);
                }
                entries.sources = inside;
            }
            Kind::Set => {
                for (net, _) in nets.filter(|(net, _)| net.prefix_len() > 0) {
                    entries.lines.push_str(&format!("{net}\n"));
                    entries.nets.push(net);
                }
                entries.sources = inside;
            }
            Kind::Hosts => {
                let mut known: Vec<u128> = inside[..hosts].to_vec();
                known.sort_unstable();
                known.dedup();
                known.iter().for_each(|host| entries.lines.push_str(&format!("{host:032x}\n")));
                let mut random = Random(3);
                let sources = inside.iter().map(|&other| match random.below(3) {
                    0 => other,
                    _ => *random.pick(&known),
                });
                entries.sources = sources.collect();
            }
        }
        entries
    }

    /// Both, and sources of either.
    fn and(mut self, other: Self) -> Self {
        let mut random = Random(4);
        for (source, theirs) in self.sources.iter_mut().zip(other.sources) {
            if random.below(2) == 0 {
                *source = theirs;
            }
        }
        self.lines.push_str(&other.lines);
        self.nets.extend(other.nets);
        self
    }

    fn packets(&self) -> Vec<Descriptor> {
        let packets = self.sources[..PACKETS].iter().enumerate();
        packets
            .map(|(n, &address)| {
                let is_v6 = address >> 32 != 0xffff;
                let family = if is_v6 { flags::IPV6 } else { 0 };
                let packet = source(n);
                Descriptor { source: address.to_be_bytes(), flags: packet.flags | family, ..packet }
            })
            .collect()
    }
}

/// Turns of one chain, or of none, over these packets.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    label: &str,
    packets: &[Descriptor],
    mut chain: Option<&mut WorkerChain>,
) {
    for n in BATCHES {
        let mut batch: Batch = frames(n);
        let mut batches = packets.chunks_exact(n).cycle();
        let mut now = 1_000_000_000;
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new(label, n), |bencher| {
            bencher.iter(|| {
                let packets = batches.next().expect("a cycle has no end");
                batch.descriptors[..n].copy_from_slice(packets);
                batch.verdicts[..n].fill(Verdict::Continue);
                now += 10_000;
                if let Some(chain) = &mut chain {
                    chain.begin_turn(Nanos(now));
                    chain.run(HookPoint::Ingress, &mut batch, Nanos(now));
                }
                std::hint::black_box(&mut batch);
            });
        });
    }
}

fn asking(directory: &Path, lines: &str) -> PluginSpec {
    let (module, table) = (directory.join("asking.wasm"), directory.join("asked"));
    std::fs::write(&module, wat::parse_str(ASKING).expect("a module")).expect("written");
    std::fs::write(&table, lines).expect("written");
    let mut spec = PluginSpec::new("asking", module, HookPoint::Ingress);
    spec.grants = vec!["table".to_owned()];
    spec.tables.insert("asked".to_owned(), table);
    spec
}

/// Drops what is in the set and of a protocol that no packet here has, so that every verdict is the same.
fn filtering(plugins: &Path, nets: &[IpNet]) -> PluginSpec {
    let nets: Vec<String> = nets.iter().map(|net| format!("\"{net}\"")).collect();
    let config = format!(
        "default = \"allow\"\n[sets]\nasked = [{}]\n\
         [[rules]]\naction = \"drop\"\nwhen = \"ip.src in $asked and esp\"\n",
        nets.join(", ")
    );
    let mut spec = PluginSpec::new("filter", super::module(plugins, "filter"), HookPoint::Ingress);
    spec.config = PluginConfig::Table(config.parse().expect("TOML"));
    spec
}

pub(super) fn lookups(criterion: &mut Criterion) {
    // Files of a hundred thousand lines take longer to make than other rows to run.
    if !is_wanted("lookups") {
        return;
    }
    let routes = Routes::full();
    eprintln!("lookups: {} routes", routes.source);
    let directory = tempfile::tempdir().expect("a directory");
    let mut group = criterion.benchmark_group("lookups");
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.sample_size(20);

    // Beginnings of names choose; what is not asked for is not made either.
    let is_wanted = |label: &str| is_wanted(&format!("lookups/{label}"));
    let packets = Entries::v6(&routes.v6, Kind::Lpm).packets();
    bench(&mut group, "none", &packets, None);
    let spec = PluginSpec::new("trivial", trivial(directory.path()), HookPoint::Ingress);
    let (_host, mut chain) = load(&spec, 1);
    bench(&mut group, "trivial", &packets, Some(&mut chain));

    for (kind, name) in [(Kind::Lpm, "lpm"), (Kind::Set, "set"), (Kind::Hosts, "hosts")] {
        for (size, entries) in SIZES {
            let v4 = || Entries::v4(&routes.v4[..entries.min(routes.v4.len())], kind);
            let v6 = || Entries::v6(&routes.v6[..entries.min(routes.v6.len())], kind);
            for family in ["4", "6", "46"] {
                let label = format!("{name} {family} {size}");
                if !is_wanted(&label) {
                    continue;
                }
                let entries = match family {
                    "4" => v4(),
                    "6" => v6(),
                    _ => v4().and(v6()),
                };
                let (host, mut chain) = load(&asking(directory.path(), &entries.lines), 1);
                let bytes: usize =
                    host.status().iter().flat_map(|status| &status.tables).map(|t| t.bytes).sum();
                eprintln!("lookups/{label}: {bytes} bytes");
                bench(&mut group, &label, &entries.packets(), Some(&mut chain));
            }
        }
    }
    if !is_wanted("filter-set") {
        return;
    }
    if let Some(plugins) = plugins() {
        for (size, entries) in OWN_SIZES {
            let v4 = Entries::v4(&routes.v4[..entries], Kind::Set);
            let v6 = Entries::v6(&routes.v6[..entries], Kind::Set);
            for (family, entries) in [("4", v4), ("6", v6)] {
                let (_host, mut chain) = load(&filtering(&plugins, &entries.nets), 1);
                let label = format!("filter-set {family} {size}");
                bench(&mut group, &label, &entries.packets(), Some(&mut chain));
            }
        }
    }
    group.finish();
}
