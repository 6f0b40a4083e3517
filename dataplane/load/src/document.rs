//! What a measurement leaves behind: one JSON document each, which the report is made from.
//!
//! Rates are packets per second of the whole tester, times in their field's unit. A field that could
//! not be measured is absent, never zero.

use serde::{Deserialize, Serialize};

/// The version of this format. A reader refuses another one.
pub const SCHEMA: u32 = 1;

/// One measurement with what it takes to repeat it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// [`SCHEMA`].
    pub schema: u32,
    /// What was measured, in a few words: the heading of its part of the report.
    pub title: String,
    /// The command that measured it, as it was typed.
    pub command: String,
    /// The version of Sluice.
    pub version: String,
    /// Start in seconds since 1970 (for people only: nothing is computed from it).
    pub started_unix_s: u64,
    /// Where it was measured.
    pub machine: Machine,
    /// What was measured.
    pub outcome: Outcome,
}

/// The machine of a measurement.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Processor by its own name.
    pub cpu: String,
    /// Processors online.
    pub cpus: u32,
    /// Kernel release.
    pub kernel: String,
    /// Hypervisor or instance type, where it is known.
    pub platform: Option<String>,
    /// Clocks of the time stamp counter per second.
    pub tsc_hz: Option<u64>,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Outcome {
    /// One run at one rate.
    Trial(TrialOutcome),
    /// A search for the rate without loss.
    Search(SearchOutcome),
    /// Where a worker's time went.
    Profile(ProfileOutcome),
    /// What changes cost while traffic runs.
    Changes(ChangesOutcome),
    /// Several routers in the same place, one after the other.
    Peers(PeersOutcome),
}

/// One run at one rate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialOutcome {
    /// The traffic in words ("64 B, 10000 flows, IPv4").
    pub traffic: String,
    /// What came of it.
    pub trial: Trial,
    /// The same second by second.
    pub seconds: Vec<Second>,
}

/// What came of one run at one rate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// The rate that was asked for; absent when it was "as fast as it goes".
    pub asked_pps: Option<f64>,
    /// From the first packet sent to the last one: one interval less than there are packets.
    pub duration_s: f64,
    /// Packets that left the generator.
    pub sent: u64,
    /// Different packets of this run that the sink took.
    pub received: u64,
    /// `sent` - `received`.
    pub lost: u64,
    /// Packets that arrived after one that was sent later (RFC 4737, section 3).
    pub reordered: u64,
    /// Copies beyond the first.
    pub duplicated: u64,
    /// Packets with a forged tag, or one that is not of this run: those of a run before that the
    /// device under test held back are among them.
    pub refused: u64,
    /// Packets without a tag.
    pub foreign: u64,
    /// One-way latency, if one clock timed both ends.
    pub latency: Option<Latency>,
    /// Why this run says nothing about the device under test; empty if it does.
    pub void: Vec<String>,
    /// Whether the generator fell short of the rate that was asked for.
    pub is_generator_limited: bool,
    /// The most that a packet was sent after it was due; absent without a rate. Latency counts from
    /// when a packet was sent: what kept the generator from sending is not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_max_ns: Option<u64>,
}

impl Trial {
    /// Packets sent a second; 0 for fewer than two packets, which have no rate.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn sent_pps(&self) -> f64 {
        // The time ends with the last packet, so that it holds one interval less than packets.
        if self.duration_s > 0.0 {
            self.sent.saturating_sub(1) as f64 / self.duration_s
        } else {
            0.0
        }
    }

    /// The part of [`Self::sent_pps`] that came back.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn received_pps(&self) -> f64 {
        self.sent_pps() * self.received as f64 / self.sent.max(1) as f64
    }
}

/// A distribution of latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Packets that were timed.
    pub count: u64,
    /// Shortest.
    pub min_ns: u64,
    /// Half of them took no longer.
    pub p50_ns: u64,
    /// 99 of 100 took no longer.
    pub p99_ns: u64,
    /// 999 of 1,000 took no longer.
    pub p999_ns: u64,
    /// Longest.
    pub max_ns: u64,
}

/// One second of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Second {
    /// End of the interval, since the start of the run.
    pub at_s: f64,
    /// Packets sent in it.
    pub sent: u64,
    /// Packets received in it.
    pub received: u64,
}

/// A search for the highest rate with no more than a given loss (MLRsearch).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchOutcome {
    /// The device under test ("sluice", "linux").
    pub subject: String,
    /// The traffic in words.
    pub traffic: String,
    /// Bytes of a frame without its check sequence; absent for a mix.
    pub frame_bytes: Option<u32>,
    /// Which core does what, in words.
    pub placement: Option<String>,
    /// No loss.
    pub ndr: Bound,
    /// At most 0.5 % loss.
    pub pdr: Bound,
    /// Latency by load.
    pub latency: Vec<LatencyAt>,
    /// Every trial of the search in its order.
    pub trials: Vec<Trial>,
    /// What a reader has to know of how the search went, as sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// What a search found for one goal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// Loss that the goal allows, 0 to 1.
    pub loss_ratio_max: f64,
    /// The highest rate that met the goal; absent if none did.
    pub lower_pps: Option<f64>,
    /// The lowest rate that did not; absent if the goal was met at the highest rate.
    pub upper_pps: Option<f64>,
    /// What was really received a second in the trials at `lower_pps` (the conditional throughput).
    pub forwarded_pps: Option<f64>,
    /// Length of the trials that the bounds rest on.
    pub trial_s: f64,
    /// Sum of the lengths of these trials at `lower_pps`, or at `upper_pps` if there is no lower bound.
    pub trials_s: f64,
    /// How much of `trials_s` lost more than the goal allows.
    #[serde(default)]
    pub high_loss_s: f64,
    /// The sum of trials that decides in any case; less decides when the rest could change nothing.
    #[serde(default)]
    pub goal_trials_s: f64,
    /// The share of the trials at a rate, by time, that may lose more while the rate counts as good,
    /// 0 to 1.
    #[serde(default)]
    pub exceed_ratio: f64,
    /// How close the bounds were to get, as a share of the upper one.
    #[serde(default)]
    pub width: f64,
    /// Whether the bounds are as close as was asked for.
    pub is_conclusive: bool,
}

/// Latency at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatencyAt {
    /// "idle", or the share of NDR: "50 %", "90 %".
    pub load: String,
    /// The rate.
    pub rate_pps: f64,
    /// The latency.
    pub latency: Latency,
    /// This load's median minus the idle one's; absent for idle.
    pub p50_over_idle_ns: Option<i64>,
    /// The same of the 99th percentile.
    pub p99_over_idle_ns: Option<i64>,
}

/// Where the time of a router's workers went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileOutcome {
    /// What the workers did meanwhile, in words.
    pub subject: String,
    /// Clocks of the time stamp counter per second.
    pub tsc_hz: u64,
    /// Packets received while it was measured.
    pub packets: u64,
    /// Mean of the packets in a busy turn.
    pub batch_mean: f64,
    /// The stages in their order.
    pub stages: Vec<Stage>,
}

/// One stage of a turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Its name ("parse", "plugin filter").
    pub name: String,
    /// Clocks a packet.
    pub clocks_per_packet: f64,
}

/// What changes cost while traffic runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangesOutcome {
    /// The device under test.
    pub subject: String,
    /// The traffic in words.
    pub traffic: String,
    /// NDR that the loads are shares of.
    pub ndr_pps: f64,
    /// One row for each change and load.
    pub changes: Vec<Change>,
}

/// One change at one load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// What was changed ("plugin reload").
    pub name: String,
    /// Share of NDR, 0 to 1.
    pub load: f64,
    /// The offered rate.
    pub offered_pps: f64,
    /// Length of the run, and of the control.
    pub duration_s: f64,
    /// How often the change was made in a run.
    pub times: u32,
    /// Packets lost in each run with the change.
    pub lost: Vec<u64>,
    /// Packets lost in each equally long run without it.
    pub control_lost: Vec<u64>,
    /// Median of `lost` over the offered rate, for one change.
    pub blocked_us: f64,
    /// The same of the control.
    pub control_blocked_us: f64,
    /// What the router told of the runs; absent where it was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<ChangeTold>,
    /// Why it was not measured; absent if it was.
    pub skipped: Option<String>,
}

/// What a router told of the runs with a change and of those without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeTold {
    /// The longest turn of a worker in a run with the change, with what else its core did meanwhile.
    pub longest_turn_us: Option<f64>,
    /// The same without it.
    pub control_longest_turn_us: Option<f64>,
    /// How long workers were ready to run and another ran, in all runs with the change.
    pub waited_us: f64,
    /// The same without it.
    pub control_waited_us: f64,
    /// The part of a worker's turn that took new plugins over; the mean.
    pub swap_us: Option<f64>,
    /// From a new file until it was in force; the median.
    pub live_us: Option<f64>,
}

/// Several routers in the same place, one after the other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeersOutcome {
    /// The traffic in words.
    pub traffic: String,
    /// One row for each peer and placement.
    pub peers: Vec<Peer>,
}

/// One router in one placement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its name ("sluice", "linux", "nftables-snat").
    pub name: String,
    /// Its version.
    pub version: Option<String>,
    /// Which core does what: ratios hold within a placement only.
    pub placement: String,
    /// What each run gave: the rate that is compared.
    pub rate_pps: Vec<f64>,
    /// What the rate is ("NDR", "forwarded at full load").
    pub rate_is: String,
    /// Latency at half of the lowest peer's rate, from the median run.
    pub latency: Option<Latency>,
    /// `sluice`'s median rate over this one's, median of the rounds' ratios.
    pub sluice_over_peer: Option<f64>,
    /// Lowest and highest of the rounds' ratios.
    pub ratio_spread: Option<(f64, f64)>,
    /// Why it was not measured; absent if it was.
    pub skipped: Option<String>,
}

impl Document {
    /// Reads a document.
    ///
    /// # Errors
    /// What is wrong with it, in words: not JSON, another schema, a field that is unknown or missing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if document.schema != SCHEMA {
            return Err(format!("schema {} is not {SCHEMA}", document.schema));
        }
        Ok(document)
    }
}
