//! The same policies by other means, side by side: the plugin under the engine, its code natively (what the
//! host does for it is then done by the SDK's stand-in for tests), for `rate-limit` also native code by hand, an XDP
//! program under the kernel's BPF_PROG_TEST_RUN, and, for rules, the crate wirefilter-engine. All judge the
//! same packets, 64 at a time, and must agree on every verdict before anything is measured.
//!
//! Rounds go from one to the next, so that a change of the machine's speed meets all of them; the median
//! of the rounds counts. From the plugin's the copy is subtracted by which the bench plays the parser.

mod by_hand;
mod ebpf;
mod expressions;
mod packets;

use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use criterion::Criterion;
use frame::{Batch, Hook as _, HookPoint, Nanos, Verdict};
use policy::{PluginConfig, PluginHost, PluginSpec, WorkerChain};
use sluice_abi::{BATCH_MAX, Descriptor};
use sluice_sdk::{Config as _, Declared, Parts, Plugin};

use super::{frames, load, module, plugins, trivial};
use ebpf::Ebpf;
use expressions::Expressions;
use packets::{PACKETS, Rule};

const BATCH: usize = 64;
/// Passes over the packets that are compared: enough that the token bucket has run dry.
const PASSES: usize = 12;
const ROUNDS: usize = 21;
/// Passes over the packets in a round of one engine.
const PASSES_MEASURED: usize = 200;
const BATCH_NS: u64 = 10_000;
/// Half of what the busiest network sends, in packets a second.
const RATE: u64 = 640_000;
const BURST: u64 = 1_000;

/// Judges all packets once, in batches.
type Pass<'a> = Box<dyn FnMut(&mut [u8]) + 'a>;

/// One engine with one policy.
struct Engine<'a> {
    name: &'static str,
    pass: Pass<'a>,
}

impl<'a> Engine<'a> {
    fn new(name: &'static str, pass: impl FnMut(&mut [u8]) + 'a) -> Self {
        Self { name, pass: Box::new(pass) }
    }
}

/// A plugin that runs in a worker's chain; the verdicts say only whether a packet is dropped.
struct Hosted {
    _host: PluginHost,
    chain: WorkerChain,
    batch: Batch,
    turn: u64,
}

impl Hosted {
    fn new(spec: &PluginSpec) -> Self {
        let (host, chain) = load(spec, 1);
        Self { _host: host, chain, batch: frames(BATCH), turn: 0 }
    }

    fn pass(&mut self, packets: &[Descriptor], verdicts: &mut [u8]) {
        let batches = packets.as_chunks::<BATCH>().0.iter();
        for (packets, verdicts) in batches.zip(verdicts.as_chunks_mut::<BATCH>().0) {
            place(&mut self.batch, packets);
            self.turn += 1;
            let now = Nanos(1_000_000_000 + self.turn * BATCH_NS);
            self.chain.begin_turn(now);
            self.chain.run(HookPoint::Ingress, &mut self.batch, now);
            for (to, from) in verdicts.iter_mut().zip(&self.batch.verdicts[..]) {
                *to = u8::from(*from != Verdict::Continue);
            }
        }
    }
}

/// What the parser does in a router: puts descriptors in their place.
fn place(batch: &mut Batch, packets: &[Descriptor; BATCH]) {
    batch.descriptors[..BATCH].copy_from_slice(packets);
    batch.verdicts[..BATCH].fill(Verdict::Continue);
}

/// The bench's own part of what [`Hosted::pass`] takes.
fn copy_only<'a>(packets: &'a [Descriptor]) -> Engine<'a> {
    let mut batch = frames(BATCH);
    Engine::new("copy", move |verdicts| {
        let batches = packets.as_chunks::<BATCH>().0.iter();
        for (packets, verdicts) in batches.zip(verdicts.as_chunks_mut::<BATCH>().0) {
            place(&mut batch, packets);
            black_box(&mut batch);
            for (to, from) in verdicts.iter_mut().zip(&batch.verdicts[..]) {
                *to = u8::from(*from != Verdict::Continue);
            }
        }
    })
}

fn native<'a, P: Plugin + Declared + 'a>(config: &str, packets: &'a [Descriptor]) -> Engine<'a> {
    let table: toml::Table = config.parse().expect("TOML");
    let json = serde_json::to_vec(&table).expect("JSON");
    let config = P::Config::from_json(&json).expect("the configuration is good");
    let mut plugin = P::configure(config).expect("the configuration is good");
    let mut counters = vec![0; P::DECLARATION.counters_len];
    let mut turn = 0;
    let mut answers = [sluice_abi::Verdict::CONTINUE; BATCH_MAX];
    Engine::new("native", move |verdicts| {
        let batches = packets.as_chunks::<BATCH>().0.iter();
        for (packets, verdicts) in batches.zip(verdicts.as_chunks_mut::<BATCH>().0) {
            turn += 1;
            plugin.process(&mut sluice_sdk::Batch::new(Parts {
                descriptors: packets,
                verdicts: &mut answers[..BATCH],
                counters: &mut counters,
                now_ns: 1_000_000_000 + turn * BATCH_NS,
                ..Parts::default()
            }));
            for (to, from) in verdicts.iter_mut().zip(&answers) {
                *to = u8::from(*from != sluice_abi::Verdict::CONTINUE);
            }
        }
    })
}

/// Measures them in turn; the median of each in nanoseconds a packet.
fn measure(engines: &mut [Engine<'_>]) -> Vec<(&'static str, f64)> {
    let mut samples = vec![Vec::new(); engines.len()];
    let mut verdicts = vec![0; PACKETS];
    for _ in 0..ROUNDS {
        for (engine, samples) in engines.iter_mut().zip(&mut samples) {
            // The first pass brings its tables back into the cache.
            (engine.pass)(&mut verdicts);
            let started = Instant::now();
            for _ in 0..PASSES_MEASURED {
                (engine.pass)(&mut verdicts);
                black_box(&mut verdicts);
            }
            let took = started.elapsed().as_nanos() as f64;
            samples.push(took / (PASSES_MEASURED * PACKETS) as f64);
        }
    }
    let median = |mut samples: Vec<f64>| {
        samples.sort_unstable_by(f64::total_cmp);
        samples[samples.len() / 2]
    };
    engines.iter().map(|engine| engine.name).zip(samples.into_iter().map(median)).collect()
}

/// Compares the engines of a policy, measures them and prints the figures.
///
/// `expected` are the verdicts of a scan, where the policy has no state; else the engines are only compared
/// with one another.
fn compare<'a>(
    policy: &str,
    mut engines: Vec<Engine<'a>>,
    ebpf: &Result<Ebpf, String>,
    expected: Option<&[u8]>,
    packets: &'a [Descriptor],
) {
    if !is_wanted(&format!("peers/{policy}")) {
        return;
    }
    engines.retain(|engine| is_wanted(&format!("peers/{policy}/{}", engine.name)));
    let mut first: Option<(&str, Vec<u8>)> =
        expected.map(|verdicts| ("a scan", verdicts.repeat(PASSES)));
    let mut agree = |name: &'static str, verdicts: Vec<u8>| {
        let (other, before) = first.get_or_insert_with(|| (name, verdicts.clone()));
        // The plugin says only whether a packet met a rule, the others also which.
        let tells_rules = !matches!(name, "plugin" | "native" | "by hand, one worker");
        let same = |a: u8, b: u8| if tells_rules { a == b } else { (a == 0) == (b == 0) };
        let differs = verdicts.iter().zip(&*before).position(|(a, b)| !same(*a, *b));
        let at = differs.map(|at| packets[at % PACKETS]);
        assert!(differs.is_none(), "{policy}: {name} and {other} differ at {differs:?}: {at:?}");
    };
    for engine in &mut engines {
        let mut verdicts = vec![0; PACKETS * PASSES];
        for pass in verdicts.chunks_exact_mut(PACKETS) {
            (engine.pass)(pass);
        }
        agree(engine.name, verdicts);
    }
    let by_kernel = match ebpf {
        _ if !is_wanted(&format!("peers/{policy}/ebpf")) => Err("not asked for".to_owned()),
        Ok(ebpf) => ebpf.measure(policy, PASSES),
        Err(missing) => Err(missing.clone()),
    };
    match &by_kernel {
        Ok(measured) => agree("ebpf", measured.verdicts.clone()),
        Err(missing) => eprintln!("SKIPPED: {policy}: ebpf: {missing}"),
    }
    if let Some((_, verdicts)) = &first {
        let dropped = verdicts.iter().filter(|verdict| **verdict > 0).count();
        let share = dropped as f64 * 100.0 / verdicts.len() as f64;
        println!("peers/{policy}: all agree, {share:.1} % dropped");
    }
    engines.push(copy_only(packets));
    let mut figures = measure(&mut engines);
    let (_, copy) = figures.pop().expect("the copy is the last");
    if let Some((_, plugin)) = figures.iter_mut().find(|(name, _)| *name == "plugin") {
        *plugin -= copy;
    }
    if let Ok(measured) = by_kernel {
        figures.push(("ebpf, 64 packets a run", measured.looped));
        figures.push(("ebpf, a run a packet", measured.each));
    }
    let (base_name, base) = figures[0];
    for (name, ns) in figures {
        let ratio = ns / base;
        println!("peers/{policy}/{name:<28} {ns:7.2} ns a packet, {ratio:6.2} times {base_name}");
    }
    println!("peers/{policy}/(copy, subtracted)          {copy:7.2} ns a packet");
}

/// Whether the command line asks for this: a beginning of its name, or of the name of a part of it.
pub(super) fn is_wanted(name: &str) -> bool {
    let mut filters = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let is_by = |filter: String| name.starts_with(&filter) || filter.starts_with(name);
    filters.next().is_none_or(|first| is_by(first) || filters.any(is_by))
}

/// Criterion's filter does not reach them: they run when it begins as a name of theirs, such as
/// `peers/filter/plugin`, or says nothing.
pub(super) fn peers(_: &mut Criterion) {
    if !is_wanted("peers") {
        return;
    }
    let rules = packets::rules();
    let packets = packets::packets(&rules);
    let rate = sluice_abi::meter::units(1_000_000_000) / RATE;
    let ebpf = Ebpf::build(&rules, (rate, rate * BURST), &packets);
    let directory = tempfile::tempdir().expect("a directory");
    let built = plugins();

    if is_wanted("peers/trivial") {
        let passed = vec![0; PACKETS];
        let path = trivial(directory.path());
        let mut hosted = Hosted::new(&PluginSpec::new("trivial", path, HookPoint::Ingress));
        let engine = Engine::new("plugin", |verdicts| hosted.pass(&packets, verdicts));
        compare("trivial", vec![engine], &ebpf, Some(&passed), &packets);
    }
    if is_wanted("peers/rate_limit") {
        let config = format!("packets_per_s = {RATE}.0\nburst = {BURST}");
        let mut hosted = built.as_deref().map(|built| spec(built, "rate-limit", &config));
        let mut engines = with_plugin(hosted.as_mut(), &packets);
        engines.push(native::<rate_limit::RateLimit>(&config, &packets));
        let mut buckets = by_hand::Buckets::new(RATE, BURST);
        let packets = &packets;
        engines.push(Engine::new("by hand, one worker", move |verdicts: &mut [u8]| {
            buckets.pass(packets, verdicts);
        }));
        compare("rate_limit", engines, &ebpf, None, packets);
    }
    if is_wanted("peers/filter") {
        filter(&rules, &packets, built.as_deref(), &ebpf);
    }
}

/// The filter also in the language of wirefilter.
fn filter(
    rules: &[Rule],
    packets: &[Descriptor],
    built: Option<&Path>,
    ebpf: &Result<Ebpf, String>,
) {
    let rows: String = rules.iter().map(Rule::toml).collect();
    let config = format!("default = \"allow\"\n{rows}");
    let expressions = Expressions::new(rules);
    let mut context = expressions.context();
    let filled: Vec<_> = packets
        .iter()
        .map(|packet| {
            let mut context = expressions.context();
            expressions::fill(&mut context, packet);
            context
        })
        .collect();
    let mut hosted = built.map(|built| spec(built, "filter", &config));
    let mut engines = with_plugin(hosted.as_mut(), packets);
    engines.push(native::<filter::Filter>(&config, packets));
    engines.push(Engine::new("wirefilter", |verdicts: &mut [u8]| {
        for (packet, verdict) in packets.iter().zip(verdicts) {
            expressions::fill(&mut context, packet);
            *verdict = expressions.judge(&context);
        }
    }));
    engines.push(Engine::new("wirefilter, fields set before", |verdicts: &mut [u8]| {
        for (context, verdict) in filled.iter().zip(verdicts) {
            *verdict = expressions.judge(context);
        }
    }));
    let expected = packets::scan(rules, packets);
    compare("filter", engines, ebpf, Some(&expected), packets);
}

/// A plugin of this repository in a chain of its own.
fn spec(built: &Path, file: &str, config: &str) -> Hosted {
    let mut spec = PluginSpec::new(file, module(built, file), HookPoint::Ingress);
    spec.config = PluginConfig::Table(config.parse().expect("TOML"));
    spec.grants = vec!["meter".to_owned()];
    Hosted::new(&spec)
}

fn with_plugin<'a>(hosted: Option<&'a mut Hosted>, packets: &'a [Descriptor]) -> Vec<Engine<'a>> {
    let engine = |hosted: &'a mut Hosted| {
        Engine::new("plugin", move |verdicts: &mut [u8]| hosted.pass(packets, verdicts))
    };
    hosted.map(engine).into_iter().collect()
}
