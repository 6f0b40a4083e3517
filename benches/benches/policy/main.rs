//! What a plugin costs a packet under the production engine: the turn's start, the copy of the
//! descriptors, the call, and the reading and checking of the verdicts.
//!
//! The modules of `plugins/` are built first, for `wasm32-unknown-unknown`; without that target only
//! the trivial plugin is measured. Packets come from 4096 sources in turn, so that neither tables nor
//! branches see the same batch twice in a row. Then the same policies by other means (`peers`), and what it costs
//! to look prefixes up (`lookups`).

mod lookups;
mod peers;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use frame::{Batch, CHUNK_BYTES, Descriptor, Frame, Hook, HookPoint, Nanos, Verdict};
use policy::{HostOptions, Names, PluginConfig, PluginHost, PluginSpec, WorkerChain};
use sluice_abi::{BATCH_MAX, direction, flags};
use sluice_sdk::{Config as _, Declared, Parts, Plugin};

/// Accepts everything: what is left is the host's own work.
const TRIVIAL: &str = r#"(module
  (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"trivial\"\nhooks = [\"ingress\"]\n")
  (memory (export "memory") 1)
  (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
  (func (export "sluice_abi_version") (result i32) (i32.const 0x10000))
  (func (export "sluice_layout") (result i32) (i32.const 16))
  (func (export "sluice_configure") (param i32) (result i32) (i32.const 0))
  (func (export "sluice_process") (param i32 i64)))"#;

/// The plugins of this repository that are measured.
const PACKAGES: [&str; 5] = ["egress-tags", "filter", "hop-distance", "rate-limit", "syn-guard"];

/// The folder of the built plugins: `SLUICE_PLUGINS`, or one to which they are built; `None` without the
/// target.
fn plugins() -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("SLUICE_PLUGINS") {
        return Some(folder.into());
    }
    let target = "wasm32-unknown-unknown";
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--target", target, "--profile", "plugin", "--target-dir"]);
    cargo.arg(&built).current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."));
    for package in PACKAGES {
        cargo.args(["-p", package]);
    }
    if !cargo.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {}: they do not build for {target}", PACKAGES.join(", "));
        return None;
    }
    Some(built.join(target).join("plugin"))
}

/// The module of a package, whose file cargo and `cargo xtask plugins` name differently.
fn module(folder: &Path, package: &str) -> PathBuf {
    let named = folder.join(format!("{package}.wasm"));
    if named.exists() { named } else { folder.join(format!("{}.wasm", package.replace('-', "_"))) }
}

/// Rules of which the packets below match none: each has to be ruled out.
fn rules(count: usize) -> String {
    let rule = |n: usize| {
        format!(
            "[[rules]]\naction = \"drop\"\nsource = [\"172.16.{}.0/24\"]\nprotocol = \"tcp\"\n\
             destination_ports = [\"{}-{}\"]\n",
            n % 256,
            n * 10,
            n * 10 + 5
        )
    };
    format!("default = \"allow\"\n{}", (0..count).map(rule).collect::<String>())
}

/// The same rules as expressions, which about as many again follow that the packets do match, each
/// some: the flags, the TTL and a source among them.
fn expressions(count: usize) -> String {
    let rule = |n: usize| {
        let when = match n % 4 {
            0 => format!(
                "ip.src in {{172.16.{}.0/24 2001:db8:{n:x}::/48}} and tcp.dstport == {n}",
                n % 256
            ),
            1 => format!(
                "ip.src == 10.{}.0.0/16 and tcp.dstport in {{{}..{}}}",
                n % 256,
                n * 10,
                n * 10 + 50
            ),
            2 => format!("udp.port == {} and not ip.ttl < {}", n * 31, n % 64),
            _ => format!("tcp.flags.syn and not tcp.flags.ack and ip.dst == 192.0.2.{}", n % 256),
        };
        format!("[[rules]]\naction = \"drop\"\nwhen = \"{when}\"\n")
    };
    format!("default = \"allow\"\n{}", (0..count).map(rule).collect::<String>())
}

/// 1000 prefixes with limits of their own.
fn distances() -> String {
    let prefix = |n: usize| {
        let (a, b) = (n / 250, n % 250);
        format!("[[prefixes]]\nprefix = \"10.{a}.{b}.0/24\"\nmax_hops = {}\n", 10 + n % 20)
    };
    format!("max_hops = 40\n{}", (0..1000).map(prefix).collect::<String>())
}

fn source(n: usize) -> Descriptor {
    Descriptor {
        source: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, (n >> 4) as u8, (n & 15) as u8, 9],
        destination: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
        source_port: (n * 7919) as u16,
        destination_port: (n * 31) as u16,
        protocol: if n.is_multiple_of(3) { 17 } else { 6 },
        tcp_flags: if n.is_multiple_of(3) { 0 } else { 2 },
        flags: flags::PORTS,
        length: 64,
        ttl: 40 + (n % 24) as u8,
        direction: direction::INBOUND,
        ..Descriptor::default()
    }
}

fn frames(n: usize) -> Batch {
    let mut batch = Batch::new();
    for _ in 0..n {
        let frame = Frame::new(Box::leak(Box::new([0; CHUNK_BYTES])), 0);
        assert!(batch.push(frame).is_ok(), "a batch holds 256 frames");
    }
    batch
}

/// A host that is kept alive beside the chain that runs its plugin.
fn load(spec: &PluginSpec, copies: usize) -> (PluginHost, WorkerChain) {
    let (mut host, mut chains) = PluginHost::new(HostOptions::new(1)).expect("a host");
    let specs: Vec<_> = (0..copies)
        .map(|n| PluginSpec { name: format!("{}{n}", spec.name), ..spec.clone() })
        .collect();
    let set = host.prepare(&specs).expect("the plugin is good");
    host.publish(set).expect("room");
    (host, chains.remove(0))
}

/// Writes the trivial plugin into a directory.
fn trivial(directory: &Path) -> PathBuf {
    let path = directory.join("trivial.wasm");
    std::fs::write(&path, wat::parse_str(TRIVIAL).expect("a module")).expect("written");
    path
}

fn benches(criterion: &mut Criterion) {
    // Who asks for the others alone need not wait until all plugins are compiled.
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let is_other = |filter: String| ["lookups", "peers"].iter().any(|by| filter.starts_with(by));
    if filters.next().is_some_and(is_other) && filters.all(is_other) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let trivial = trivial(directory.path());

    let mut cases = vec![
        ("trivial", PluginSpec::new("trivial", &trivial, HookPoint::Ingress), 1),
        ("trivial x4", PluginSpec::new("trivial", &trivial, HookPoint::Ingress), 4),
    ];
    if let Some(plugins) = plugins() {
        let mut plugin = |label: &'static str, file: &str, config: &str| {
            let mut spec = PluginSpec::new(file, module(&plugins, file), HookPoint::Ingress);
            spec.config = PluginConfig::Table(config.parse().expect("TOML"));
            spec.grants = ["meter", "quota"].map(str::to_owned).to_vec();
            cases.push((label, spec, 1));
        };
        for (label, file, config) in &configurations() {
            plugin(label, file, config);
        }
        cases.push(("egress-tags", egress_tags(&plugins, directory.path()), 1));
    }

    let descriptors: Vec<_> = (0..4096).map(source).collect();
    let mut group = criterion.benchmark_group("policy");
    for (label, spec, copies) in &cases {
        for n in [64, 256] {
            let (_host, mut chain) = load(spec, *copies);
            let mut batch = frames(n);
            (1..=2).for_each(|tag| batch.edits.known.tags.insert(tag));
            let mut turn = 0;
            group.throughput(Throughput::Elements(n as u64));
            group.bench_function(BenchmarkId::new(*label, n), |bencher| {
                bencher.iter(|| {
                    let start = turn * n % 4096;
                    batch.descriptors[..n].copy_from_slice(&descriptors[start..start + n]);
                    batch.verdicts[..n].fill(Verdict::Continue);
                    turn += 1;
                    let now = Nanos(1_000_000_000 + turn as u64 * 10_000);
                    chain.begin_turn(now);
                    chain.run(HookPoint::Ingress, &mut batch, now);
                });
            });
        }
    }
    // The copy into the batch that each iteration above begins with, to be subtracted.
    for n in [64, 256] {
        let mut batch = frames(n);
        let mut turn = 0;
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new("none", n), |bencher| {
            bencher.iter(|| {
                let start = turn * n % 4096;
                batch.descriptors[..n].copy_from_slice(&descriptors[start..start + n]);
                batch.verdicts[..n].fill(Verdict::Continue);
                turn += 1;
                std::hint::black_box(&mut batch);
            });
        });
    }
    group.finish();
    for (label, file, config) in configurations() {
        match file {
            "filter" => native::<filter::Filter>(criterion, label, &config),
            "hop-distance" => native::<hop_distance::HopDistance>(criterion, label, &config),
            "syn-guard" => native::<syn_guard::SynGuard>(criterion, label, &config),
            _ => native::<rate_limit::RateLimit>(criterion, label, &config),
        }
    }
}

/// Two sites, and 4096 users of whom half are of the other one's country: each packet is looked up in a table
/// and gets a tag. Natively there are no tables, so that only the engine is measured.
fn egress_tags(plugins: &Path, directory: &Path) -> PluginSpec {
    let countries: String = (0..256)
        .map(|n| format!("10.{n}.0.0/17 {}\n", if n % 2 == 0 { "de" } else { "nl" }))
        .collect();
    let mut spec =
        PluginSpec::new("egress-tags", module(plugins, "egress-tags"), HookPoint::Ingress);
    for (table, lines) in [("countries", countries.as_str()), ("trust", ""), ("products", "")] {
        let file = directory.join(table);
        std::fs::write(&file, lines).expect("written");
        spec.tables.insert(table.to_owned(), file);
    }
    spec.grants = ["names", "table", "tag"].map(str::to_owned).to_vec();
    let names = Names {
        tags: [("ams".to_owned(), 1), ("fra".to_owned(), 2)].into(),
        interfaces: [("users0".to_owned(), 1)].into(),
        ..Names::default()
    };
    spec.names = names.into();
    let config = "site_tag = \"ams\"\ninterfaces = [{ name = \"users0\" }]\n\
                  rules = [{ country = [\"de\"], tag = \"fra\" }]\n";
    spec.config = PluginConfig::Table(config.parse().expect("TOML"));
    spec
}

/// What is measured of each plugin: a label, the module and its configuration.
fn configurations() -> Vec<(&'static str, &'static str, String)> {
    vec![
        ("filter 10", "filter", rules(10)),
        ("filter 100", "filter", rules(100)),
        ("filter 1000", "filter", rules(1000)),
        ("filter 100 expressions", "filter", expressions(100)),
        ("filter 1000 expressions", "filter", expressions(1000)),
        ("hop-distance", "hop-distance", distances()),
        ("rate-limit", "rate-limit", "packets_per_s = 1e9\nburst = 1000000".to_owned()),
        // Two thirds of the packets are TCP, and each is a SYN: first all within the rate, which
        // remembers each as half-open, then all challenged and remembered.
        ("syn-guard quiet", "syn-guard", "syn_per_s = 1e9\nburst = 1000000".to_owned()),
        ("syn-guard flood", "syn-guard", "syn_per_s = 0.001\nburst = 1".to_owned()),
        // As the first, and each asks the quota of its source, of which none is used up.
        (
            "syn-guard half-open",
            "syn-guard",
            "syn_per_s = 1e9\nburst = 1000000\nhalf_open_max = 100".to_owned(),
        ),
    ]
}

/// The same plugin as native code: no engine, no copy of descriptors, no check of verdicts.
fn native<P: Plugin + Declared>(criterion: &mut Criterion, label: &str, config: &str) {
    let table: toml::Table = config.parse().expect("TOML");
    let json = serde_json::to_vec(&table).expect("JSON");
    let config = P::Config::from_json(&json).expect("the configuration is good");
    let mut plugin = P::configure(config).expect("the configuration is good");
    let descriptors: Vec<_> = (0..4096).map(source).collect();
    let mut group = criterion.benchmark_group("native");
    let mut verdicts = [sluice_abi::Verdict::CONTINUE; BATCH_MAX];
    let mut counters = vec![0; P::DECLARATION.counters_len];
    for n in [64, 256] {
        let mut turn = 0;
        group.throughput(Throughput::Elements(n as u64));
        group.bench_function(BenchmarkId::new(label, n), |bencher| {
            bencher.iter(|| {
                let start = turn * n % 4096;
                turn += 1;
                plugin.process(&mut sluice_sdk::Batch::new(Parts {
                    descriptors: &descriptors[start..start + n],
                    verdicts: &mut verdicts[..n],
                    counters: &mut counters,
                    now_ns: 1_000_000_000 + turn as u64 * 10_000,
                    ..Parts::default()
                }));
            });
        });
    }
    group.finish();
}

criterion_group!(all, peers::peers, benches, lookups::lookups);
criterion_main!(all);
