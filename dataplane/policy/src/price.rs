//! [`Price`]: what a plugin costs, found out before it runs, and held against a budget.
//!
//! ```text
//!  packets (recent ones, or generated) --batches--> scratch instance, same engine, limits, configuration
//!                                                     | all batches, several times over
//!                             each batch's fastest repetition --> price --> within the budget? --> runs
//! ```
//! A batch on which it traps has no cost. The others are judged by a new instance, so that the price says how
//! many those are; a plugin that traps on all packets that the router received last is not loaded, unless an
//! operator insists. At start there are none, and nothing else that could run.
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
    instance::{Instance, Packets, is_interrupt, reason},
    loading::instance_of,
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

/// A call that is interrupted may have been held up by the machine: so often it is tried, with so many times
/// its budget of time. What needs more than its budget has a price that says so.
const TRIES: u32 = 3;
const TIMES_BUDGET: u64 = 16;

/// How long new instances are made for the batches behind one that trapped: what comes later is not judged.
const TRAPS_WITHIN: Duration = Duration::from_secs(1);

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

impl TrafficSource {
    /// What batches of such packets are called.
    fn of_batches(self) -> &'static str {
        match self {
            Self::Recent => "recorded",
            Self::Generated => "generated",
        }
    }
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

/// What a plugin costs. Batches that it trapped on count for nothing: where there are no others, there are no
/// cycles (0, and in JSON no key).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Price {
    /// Clock cycles a packet: the mean over all batches, of each the fastest repetition. This is what a
    /// budget is held against.
    #[serde(skip_serializing_if = "is_unknown")]
    pub cycles_per_packet: f64,
    /// Clock cycles a packet that half of the batches do not exceed.
    #[serde(skip_serializing_if = "is_unknown")]
    pub cycles_per_packet_p50: f64,
    /// The same of 99 % of the batches.
    #[serde(skip_serializing_if = "is_unknown")]
    pub cycles_per_packet_p99: f64,
    /// Where the packets came from.
    pub traffic: TrafficSource,
    /// How many there were.
    pub packets: usize,
    /// How many of them a call had at most.
    pub batch_frames: usize,
    /// How often each batch was judged and measured.
    pub repetitions: u32,
    /// Batches that were judged: all, unless traps took too long.
    pub batches: usize,
    /// Those on which it trapped.
    pub trapped_batches: usize,
    /// How many those are and why it did on the first of them, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trapped: Option<String>,
    /// Packets a second that the router receives.
    pub packets_per_s: f64,
    /// Cores that the plugin keeps busy at so many packets.
    pub cores: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
fn is_unknown(cycles: &f64) -> bool {
    *cycles == 0.0
}

/// Why a call ended without verdicts.
struct Ended {
    reason: String,
    /// It took too long, which may be the machine's doing.
    was_interrupted: bool,
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
    ) -> Result<u64, Ended> {
        let start = tsc::now();
        let all = Packets::<std::slice::Iter<'_, Descriptor>>::All(&self.descriptors);
        let placed = instance.place(all, default).and_then(|()| {
            let payload = self.payload.iter().map(Vec::as_slice);
            instance.show(&self.marks, payload)
        });
        placed.ok_or_else(|| Ended {
            reason: "it has no room for the batch".to_owned(),
            was_interrupted: false,
        })?;
        let called = instance.call(self.descriptors.len(), now, beat);
        let words = instance.verdict_words(self.descriptors.len());
        let sum = words.map(|words| words.iter().fold(0_u64, |sum, word| sum.wrapping_add(*word)));
        std::hint::black_box(sum);
        let cycles = tsc::now().wrapping_sub(start);
        called.map_err(|error| Ended {
            reason: reason(&error),
            was_interrupted: is_interrupt(&error),
        })?;
        Ok(cycles)
    }
}

/// What was found out about one batch.
#[derive(Clone, Copy)]
struct Batch {
    packets: usize,
    /// The fastest repetition that counts.
    cycles: Option<u64>,
    has_trapped: bool,
}

/// What was measured.
struct Measured {
    batches: Vec<Batch>,
    repetitions: u32,
    /// Why it trapped first.
    trapped: Option<String>,
}

/// A scratch instance that judges batches, and is made anew after each trap.
struct Scratch<'a, M> {
    make: M,
    instance: Box<Instance>,
    default: u64,
    now: Nanos,
    beat: &'a Beat,
}

impl<'a, M: Fn() -> Result<Box<Instance>, PluginFault>> Scratch<'a, M> {
    fn new(make: M, default: u64, beat: &'a Beat) -> Result<Self, PluginFault> {
        let instance = make()?;
        Ok(Self { make, instance, default, now: Nanos(START_NS), beat })
    }

    /// Cycles of a call, or why it trapped. What was interrupted is tried anew.
    fn judge(&mut self, call: &Call) -> Result<Result<u64, String>, PluginFault> {
        self.now = self.now.plus(BATCH_NS);
        let mut tried = 1;
        loop {
            match call.time(&mut self.instance, self.default, self.now, self.beat) {
                Ok(cycles) => return Ok(Ok(cycles)),
                Err(Ended { reason, was_interrupted }) => {
                    self.instance = (self.make)()?;
                    if !was_interrupted || tried == TRIES {
                        return Ok(Err(reason));
                    }
                    tried += 1;
                }
            }
        }
    }

    fn measure(mut self, calls: &[Call]) -> Result<Measured, PluginFault> {
        let packets = |call: &Call| call.descriptors.len();
        let batch = |call| Batch { packets: packets(call), cycles: None, has_trapped: false };
        let batches = calls.iter().map(batch).collect();
        let mut measured = Measured { batches, repetitions: 0, trapped: None };
        let started = Instant::now();
        for repetition in 0..=REPETITIONS_MAX {
            for (call, batch) in calls.iter().zip(&mut measured.batches) {
                if batch.has_trapped {
                    continue;
                }
                match self.judge(call)? {
                    // The first, which is not counted, is known only if nothing comes of the second.
                    Ok(cycles) if repetition <= 1 => batch.cycles = Some(cycles),
                    Ok(cycles) => batch.cycles = batch.cycles.map(|least| least.min(cycles)),
                    Err(reason) => {
                        (batch.cycles, batch.has_trapped) = (None, true);
                        measured.trapped.get_or_insert(reason);
                        if started.elapsed() >= TRAPS_WITHIN {
                            return Ok(measured);
                        }
                    }
                }
            }
            measured.repetitions = repetition;
            let have_all_trapped = measured.batches.iter().all(|batch| batch.has_trapped);
            let is_enough = repetition >= REPETITIONS_MIN && started.elapsed() >= WITHIN;
            if have_all_trapped || is_enough {
                break;
            }
        }
        Ok(measured)
    }
}

#[expect(clippy::cast_precision_loss, reason = "cycles of a batch are far below 2^53")]
fn per_packet(cycles: u64, packets: usize) -> f64 {
    if packets == 0 { 0.0 } else { cycles as f64 / packets as f64 }
}

impl Price {
    fn new(measured: Measured, traffic: TrafficSource, batch_frames: usize) -> Self {
        let Measured { batches, repetitions, trapped } = measured;
        let packets = batches.iter().map(|batch| batch.packets).sum();
        let known = || {
            batches.iter().filter_map(|batch| batch.cycles.map(|cycles| (cycles, batch.packets)))
        };
        let mut each: Vec<f64> =
            known().map(|(cycles, packets)| per_packet(cycles, packets)).collect();
        each.sort_by(f64::total_cmp);
        let percentile = |part: usize| {
            let at = (each.len().saturating_sub(1) * part).div_ceil(100);
            each.get(at).copied().unwrap_or_default()
        };
        let (cycles, judged) = known()
            .fold((0, 0), |(cycles, judged), (more, packets)| (cycles + more, judged + packets));
        let trapped_batches = batches.iter().filter(|batch| batch.has_trapped).count();
        let batches = each.len() + trapped_batches;
        let kind = traffic.of_batches();
        let trapped = trapped.map(|reason| {
            format!("trapped on {trapped_batches} of {batches} {kind} batches: {reason}")
        });
        Self {
            cycles_per_packet: per_packet(cycles, judged),
            cycles_per_packet_p50: percentile(50),
            cycles_per_packet_p99: percentile(99),
            traffic,
            packets,
            batch_frames,
            repetitions,
            batches,
            trapped_batches,
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
        let offers = self.offers.aside(&loaded.spec.name);
        let (options, beat) = (&self.options, self.beat.clone());
        let work = || {
            let make = || -> Result<_, PluginFault> {
                let mut instance = instance_of(options, loaded, &offers, &beat)?;
                instance.give_time(TIMES_BUDGET);
                Ok(instance)
            };
            Scratch::new(make, default, &beat)?.measure(&calls)
        };
        let measured = if self.compiles_in_background { background::run(work) } else { work() }?;
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

    /// Refuses a version that trapped on every batch of the packets that the router received last, unless
    /// [`Self::allowing_traps`] says otherwise.
    pub(crate) fn refuse_traps(&self, price: Option<&Price>) -> Result<(), PluginFault> {
        let Some(price) = price.filter(|price| {
            price.traffic == TrafficSource::Recent && price.trapped_batches == price.batches
        }) else {
            return Ok(());
        };
        match &price.trapped {
            Some(text) if !self.allows_traps => Err(PluginFault::Traps(text.clone())),
            _ => Ok(()),
        }
    }

    /// Has `load` load plugins that are refused because they trap, if `is_allowed`.
    pub fn allowing_traps<T>(&mut self, is_allowed: bool, load: impl FnOnce(&mut Self) -> T) -> T {
        self.allows_traps = is_allowed;
        let loaded = load(self);
        self.allows_traps = false;
        loaded
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
