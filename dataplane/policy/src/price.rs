//! [`Price`]: what a plugin costs, found out before it runs, and held against a budget.
//!
//! ```text
//!  packets (recent ones, or generated) --batches--> scratch instance, same engine, limits, configuration
//!                                                     | all batches, several times over
//!                             each batch's fastest repetition --> price --> within the budget? --> runs
//! ```
//!
//! On a machine that does other work, a call can only take longer than it needs, never less: of each batch
//! the fastest repetition counts, and of those the mean. What the first repetition costs, which fills caches
//! and learns flows, is left out.
//!
//! Invariants: the scratch instance shares nothing that changes: meters and quotas are copies, nothing is
//! logged or counted. It is called on the thread of whoever loads, or on one of the lowest priority, never on
//! a worker's.
//!
//! Deliberately absent: ticks, and the judging of verdicts, which is the router's. A plugin that judges flows
//! is priced as though every packet were the first of one.

use std::{
    fmt,
    time::{Duration, Instant},
};

use frame::{BATCH_MAX, Nanos, tsc};
use serde::Serialize;
use sluice_abi::Descriptor;

use crate::{
    Manifest, PluginFault, PluginHost, PolicyError, RehearsalPacket, background,
    generation::Loaded,
    host::Prepared,
    instance::{Instance, Packets, reason},
    ticker::Beat,
};

/// Packets to price with: enough that tables and caches of a plugin are not all in the first-level cache.
const PACKETS_MAX: usize = 4096;

/// Repetitions at most, the first not counted. More change the least no more on a quiet machine.
const REPETITIONS_MAX: u32 = 20;

/// Repetitions that there are in any case.
const REPETITIONS_MIN: u32 = 3;

/// How long repeating goes on.
const WITHIN: Duration = Duration::from_millis(150);

/// A call that is interrupted may have been held up by the machine: so often it is tried anew, with so many
/// times its budget of time. What needs more than its budget has a price that says so.
const TRIES: u32 = 3;
const TIMES_BUDGET: u64 = 16;

/// From batch to batch, and where time begins: some plugins take 0 for *never*.
const BATCH_NS: u64 = 20_000;
const START_NS: u64 = 1_000_000_000_000;

/// Where packets to price plugins with come from, and how much traffic there is.
pub trait PriceTraffic: Send {
    /// Packets for a plugin with this manifest and configuration (in JSON).
    fn packets(&self, manifest: &Manifest, config: &[u8]) -> (TrafficSource, Vec<RehearsalPacket>);

    /// Packets of a batch, at most.
    fn batch_frames(&self) -> usize;

    /// Today's traffic.
    fn now(&self) -> TrafficNow;
}

/// Where the packets of a price came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrafficSource {
    /// The router received them last.
    Recent,
    /// They were generated.
    Generated,
}

impl fmt::Display for TrafficSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recent => "recent",
            Self::Generated => "generated",
        })
    }
}

/// How much traffic there is, beside how fast the machine's clock runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrafficNow {
    /// Packets a second that the router receives.
    pub packets_per_s: f64,
    /// Clocks of the time stamp counter a second.
    pub clocks_per_s: f64,
}

/// What a plugin costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Price {
    /// Clock cycles a packet: the mean over all batches, of each the fastest repetition. This is what a
    /// budget is held against.
    pub cycles_per_packet: f64,
    /// Clock cycles a packet that half of the batches do not exceed.
    pub cycles_per_packet_p50: f64,
    /// The same of 99 % of the batches.
    pub cycles_per_packet_p99: f64,
    /// Where the packets came from.
    pub traffic: TrafficSource,
    /// How many there were.
    pub packets: usize,
    /// How many of them a call had at most.
    pub batch_frames: usize,
    /// How often each batch was judged and measured.
    pub repetitions: u32,
    /// A call trapped, for this reason: the price is of what came before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trapped: Option<String>,
    /// Packets a second that the router receives.
    pub packets_per_s: f64,
    /// Cores that the plugin keeps busy at so many packets.
    pub cores: f64,
}

/// Packets of one call.
struct Call {
    descriptors: Vec<Descriptor>,
    marks: Vec<u8>,
    payload: Vec<Vec<u8>>,
}

impl Call {
    fn of(packets: &[RehearsalPacket]) -> Self {
        let marks: Vec<_> = packets.iter().map(|packet| packet.marks).collect();
        Self {
            descriptors: packets.iter().map(|packet| packet.descriptor).collect(),
            marks: bytemuck::cast_slice(&marks).to_vec(),
            payload: packets.iter().map(|packet| packet.payload.clone()).collect(),
        }
    }

    /// Has the packets judged: clock cycles of it, with the copies of packets in and verdicts out.
    fn time(
        &self,
        instance: &mut Instance,
        default: u64,
        now: Nanos,
        beat: &Beat,
    ) -> Result<u64, String> {
        let start = tsc::now();
        let all = Packets::<std::slice::Iter<'_, Descriptor>>::All(&self.descriptors);
        let placed = instance.place(all, default).and_then(|()| {
            let payload = self.payload.iter().map(Vec::as_slice);
            instance.show(&self.marks, payload)
        });
        placed.ok_or_else(|| "it has no room for the batch".to_owned())?;
        let called = instance.call(self.descriptors.len(), now, beat);
        let words = instance.verdict_words(self.descriptors.len());
        let sum = words.map(|words| words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
        std::hint::black_box(sum);
        let cycles = tsc::now().wrapping_sub(start);
        called.map_err(|error| reason(&error))?;
        Ok(cycles)
    }
}

/// What was measured: of each batch the least cycles and its packets.
#[derive(Default)]
struct Measured {
    least: Vec<(u64, usize)>,
    repetitions: u32,
    trapped: Option<String>,
}

fn measure(instance: &mut Instance, default: u64, calls: &[Call], beat: &Beat) -> Measured {
    let mut measured = Measured::default();
    let unknown = || calls.iter().map(|call| (u64::MAX, call.descriptors.len())).collect();
    let started = Instant::now();
    let mut now = Nanos(START_NS);
    for repetition in 0..=REPETITIONS_MAX {
        // The first, which is not counted, is known only if nothing comes of the second.
        if repetition <= 1 {
            measured.least = unknown();
        }
        for (call, (least, _)) in calls.iter().zip(&mut measured.least) {
            now = now.plus(BATCH_NS);
            match call.time(instance, default, now, beat) {
                Ok(cycles) => *least = cycles.min(*least),
                Err(reason) => {
                    measured.trapped = Some(reason);
                    return measured;
                }
            }
        }
        measured.repetitions = repetition;
        if repetition >= REPETITIONS_MIN && started.elapsed() >= WITHIN {
            break;
        }
    }
    measured
}

#[expect(clippy::cast_precision_loss, reason = "cycles of a batch are far below 2^53")]
fn per_packet(cycles: u64, packets: usize) -> f64 {
    if packets == 0 { 0.0 } else { cycles as f64 / packets as f64 }
}

impl Price {
    fn new(measured: Measured, traffic: TrafficSource, batch_frames: usize) -> Self {
        let Measured { least, repetitions, trapped } = measured;
        let packets = least.iter().map(|(_, packets)| packets).sum();
        let known = || least.iter().filter(|(cycles, _)| *cycles < u64::MAX);
        let mut each: Vec<f64> =
            known().map(|(cycles, packets)| per_packet(*cycles, *packets)).collect();
        each.sort_by(f64::total_cmp);
        let percentile = |part: usize| {
            let at = (each.len().saturating_sub(1) * part).div_ceil(100);
            each.get(at).copied().unwrap_or_default()
        };
        let (cycles, judged) = known()
            .fold((0, 0), |(cycles, judged), (more, packets)| (cycles + more, judged + packets));
        Self {
            cycles_per_packet: per_packet(cycles, judged),
            cycles_per_packet_p50: percentile(50),
            cycles_per_packet_p99: percentile(99),
            traffic,
            packets,
            batch_frames,
            repetitions,
            trapped,
            packets_per_s: 0.0,
            cores: 0.0,
        }
    }
}

/// A plugin's name, whether it is the candidate beside the one of that name, and its price.
type Priced<'a> = (&'a str, bool, Option<&'a Price>);

/// Whether plugins may run together.
fn afford<'a>(
    budget: Option<u32>,
    plugins: impl Iterator<Item = Priced<'a>>,
) -> Result<(), PolicyError> {
    let Some(budget) = budget else { return Ok(()) };
    let (mut total, mut prices) = (0.0, Vec::new());
    for (name, is_candidate, price) in plugins {
        let Some(price) = price else { continue };
        let name = format!("{name}{}", if is_candidate { " (candidate)" } else { "" });
        if let Some(reason) = price.trapped.clone() {
            return Err(PolicyError::Unpriced { name, reason });
        }
        total += price.cycles_per_packet;
        let (cycles, traffic) = (price.cycles_per_packet, price.traffic);
        prices.push(format!("{name} {cycles:.0} ({traffic} packets)"));
    }
    if total > f64::from(budget) {
        return Err(PolicyError::Budget { total, budget, prices: prices.join(", ") });
    }
    Ok(())
}

/// A plugin that runs, and its candidate.
fn priced(running: &Loaded) -> impl Iterator<Item = Priced<'_>> {
    let trial = running.trial.as_deref();
    let candidate = trial.map(|trial| (&*running.spec.name, true, trial.loaded.price.as_ref()));
    std::iter::once((&*running.spec.name, false, running.price.as_ref())).chain(candidate)
}

impl PluginHost {
    /// From now on plugins are priced when they are loaded.
    pub fn price_with(&mut self, traffic: Box<dyn PriceTraffic>) {
        self.traffic = Some(traffic);
    }

    /// What a version costs, by an instance aside; `None` without packets.
    pub(crate) fn price(&self, loaded: &Loaded) -> Result<Option<Price>, PluginFault> {
        let Some(traffic) = &self.traffic else { return Ok(None) };
        let (source, packets) = traffic.packets(&loaded.module.manifest, &loaded.config);
        let batch_frames = traffic.batch_frames().clamp(1, BATCH_MAX);
        let packets = packets.get(..packets.len().min(PACKETS_MAX)).unwrap_or_default();
        let calls: Vec<Call> = packets.chunks(batch_frames).map(Call::of).collect();
        if calls.is_empty() {
            return Ok(None);
        }
        let default = loaded.terms().default_word();
        let mut measured = Measured::default();
        for _ in 0..TRIES {
            let mut instance = self.instantiate_aside(loaded)?;
            instance.give_time(TIMES_BUDGET);
            let beat = self.beat.clone();
            let calls = &calls;
            let mut work = move || measure(&mut instance, default, calls, &beat);
            measured = if self.compiles_in_background { background::run(work) } else { work() };
            if measured.trapped.is_none() {
                break;
            }
        }
        let price = Price::new(measured, source, batch_frames);
        let told = self.price_now(Some(&price));
        tracing::info!(
            plugin = %loaded.name,
            cycles_per_packet = price.cycles_per_packet.round(),
            p50 = price.cycles_per_packet_p50.round(),
            p99 = price.cycles_per_packet_p99.round(),
            cores = told.map_or(0.0, |told| (told.cores * 1000.0).round() / 1000.0),
            packets = price.packets,
            traffic = %price.traffic,
            trapped = price.trapped.as_deref(),
            "priced"
        );
        Ok(Some(price))
    }

    /// A price with what it comes to at today's traffic.
    pub(crate) fn price_now(&self, price: Option<&Price>) -> Option<Price> {
        let mut price = price?.clone();
        if let Some(traffic) = &self.traffic {
            let TrafficNow { packets_per_s, clocks_per_s } = traffic.now();
            price.packets_per_s = packets_per_s;
            price.cores = price.cycles_per_packet * packets_per_s / clocks_per_s.max(1.0);
        }
        Some(price)
    }

    /// Whether a set may be put into force.
    pub(crate) fn afford_set(
        &self,
        budget: Option<u32>,
        set: &[Prepared],
    ) -> Result<(), PolicyError> {
        let plugins = set.iter().flat_map(|plugin| match plugin {
            Prepared::New(loaded, _) => priced(loaded).collect(),
            Prepared::Keep(name) => {
                let running = self.loaded().iter().filter(|running| running.spec.name == *name);
                running.flat_map(priced).collect::<Vec<_>>()
            }
        });
        afford(budget, plugins)
    }

    /// Whether a version at this price may take the place of the one that runs, and of its candidate.
    pub(crate) fn afford_in_place_of(
        &self,
        name: &str,
        price: Option<&Price>,
    ) -> Result<(), PolicyError> {
        let plugins = self.loaded().iter().flat_map(|running| {
            if running.spec.name == name {
                vec![(&*running.spec.name, false, price)]
            } else {
                priced(running).collect()
            }
        });
        afford(self.budget_cycles_per_packet, plugins)
    }

    /// Whether a candidate at this price may be asked beside the plugin `name`.
    pub(crate) fn afford_candidate(
        &self,
        name: &str,
        price: Option<&Price>,
    ) -> Result<(), PolicyError> {
        let plugins = self.loaded().iter().flat_map(|running| {
            if running.spec.name == name {
                let own = &*running.spec.name;
                vec![(own, false, running.price.as_ref()), (own, true, price)]
            } else {
                priced(running).collect()
            }
        });
        afford(self.budget_cycles_per_packet, plugins)
    }
}
