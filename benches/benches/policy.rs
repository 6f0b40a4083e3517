//! What a plugin costs a packet under the production engine: the turn's start, the copy of the
//! descriptors, the call, and the reading and checking of the verdicts.
//!
//! The modules of `plugins/` are built first, for `wasm32-unknown-unknown`; without that target only
//! the trivial plugin is measured. Packets come from 4096 sources in turn, so that neither tables nor
//! branches see the same batch twice in a row.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use frame::{Batch, CHUNK_BYTES, Descriptor, Frame, Hook, HookPoint, Nanos, Verdict};
use policy::{HostOptions, PluginConfig, PluginHost, PluginSpec, WorkerChain};
use sluice_abi::flags;

/// Accepts everything: what is left is the host's own work.
const TRIVIAL: &str = r#"(module
  (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"trivial\"\nhooks = [\"ingress\"]\n")
  (memory (export "memory") 1)
  (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
  (func (export "sluice_abi_version") (result i32) (i32.const 0x10000))
  (func (export "sluice_layout") (result i32) (i32.const 16))
  (func (export "sluice_configure") (param i32) (result i32) (i32.const 0))
  (func (export "sluice_process") (param i32 i64)))"#;

/// Builds the plugins of this repository; `None` without the target.
fn plugins() -> Option<PathBuf> {
    let target = "wasm32-unknown-unknown";
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--target", target, "--profile", "plugin"])
        .args(["-p", "filter", "-p", "rate-limit", "--target-dir"])
        .arg(&built)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: filter and rate-limit: they do not build for {target}");
        return None;
    }
    Some(built.join(target).join("plugin"))
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

fn source(n: usize) -> Descriptor {
    Descriptor {
        source: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, (n >> 4) as u8, (n & 15) as u8, 9],
        destination: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
        source_port: (n * 7919) as u16,
        destination_port: (n * 31) as u16,
        protocol: if n.is_multiple_of(3) { 17 } else { 6 },
        flags: flags::PORTS,
        length: 64,
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

fn benches(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let trivial = directory.path().join("trivial.wasm");
    let bytes = wat::parse_str(TRIVIAL).expect("a module");
    std::fs::write(&trivial, bytes).expect("written");

    let mut cases = vec![
        ("trivial", PluginSpec::new("trivial", &trivial, HookPoint::Ingress), 1),
        ("trivial x4", PluginSpec::new("trivial", &trivial, HookPoint::Ingress), 4),
    ];
    if let Some(plugins) = plugins() {
        let mut plugin = |label, file: &str, config: &str| {
            let mut spec = PluginSpec::new(file, plugins.join(file), HookPoint::Ingress);
            spec.config = PluginConfig::Table(config.parse().expect("TOML"));
            spec.grants = vec!["meter".to_owned()];
            cases.push((label, spec, 1));
        };
        plugin("filter 10", "filter.wasm", &rules(10));
        plugin("filter 100", "filter.wasm", &rules(100));
        plugin("filter 1000", "filter.wasm", &rules(1000));
        plugin("rate-limit", "rate_limit.wasm", "packets_per_s = 1e9\nburst = 1000000");
    }

    let descriptors: Vec<_> = (0..4096).map(source).collect();
    let mut group = criterion.benchmark_group("policy");
    for (label, spec, copies) in &cases {
        for n in [64, 256] {
            let (_host, mut chain) = load(spec, *copies);
            let mut batch = frames(n);
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
}

criterion_group!(all, benches);
criterion_main!(all);
