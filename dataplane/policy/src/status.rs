//! What the host tells of its plugins.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    CandidateStart, MeterStatus, Price, QuotaStatus, RefusalStatus, TableStatus, counters::Totals,
};

/// Whether a plugin judges packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// Every worker has an instance.
    Running,
    /// A worker lost its instances to traps and waits for a new one; `on_trap` applies there.
    Backoff,
    /// It trapped too often: `on_trap` applies until it is reloaded.
    Disabled,
}

/// What one worker, or all together, counted for a plugin since its name was first loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct WorkerStatus {
    /// Packets that were shown to the plugin, or would have been, had it had an instance.
    pub packets: u64,
    /// Calls that those packets came in.
    pub batches: u64,
    /// Packets that the plugin dropped for a reason of its own.
    pub drops: u64,
    /// The same by the name of the reason; `default` counts those it left to a default of dropping.
    pub drops_by_reason: BTreeMap<String, u64>,
    /// Packets dropped because the plugin failed: after a trap, without an instance, or for a
    /// verdict that makes no sense.
    pub default_drops: u64,
    /// Packets that the generation before judged, because the plugin could not.
    pub stood_in: u64,
    /// Packets that no instance could judge.
    pub unjudged: u64,
    /// Calls that ended in a trap, an overrun of the budget included.
    pub traps: u64,
    /// Verdicts that are void: an action, flag or number that is unknown, not declared or not possible
    /// there. Their packets got the plugin's default.
    pub bad_verdicts: u64,
    /// Packets that got a verdict which was kept for their flow; `packets` has them, too.
    pub flow_hits: u64,
    /// Packets of flows without a verdict that was kept. Fragments and ICMP errors are of no flow.
    pub flow_misses: u64,
    /// Verdicts of flows that were forgotten before they were over, for want of room.
    pub flow_evictions: u64,
    /// Instances that took over the state of the generation before.
    pub states_taken: u64,
    /// Instances that started empty, because that state was refused or its hand-over trapped.
    pub states_lost: u64,
    /// Sets of plugins that brought a new version of it to a worker.
    pub swaps: u64,
    /// Cycles of the time-stamp counter that the workers took for them, between two turns.
    pub swap_cycles: u64,
    /// The most that one of them took.
    pub swap_cycles_max: u64,
    /// Packets that the plugin sent to a named next hop.
    pub transmitted: u64,
    /// Packets that it set something on: mark, tag, class, DSCP, MSS or TCP options.
    pub edited: u64,
    /// Packets that it mirrored, whether or not anybody captured them.
    pub mirrored: u64,
    /// Cycles of the time-stamp counter that the calls took, host's work included.
    pub cycles: u64,
    /// Cycles of the time-stamp counter a packet, host's work included; nanoseconds on processors
    /// without one.
    pub cycles_per_packet: f64,
    /// Packets that it let go on, or that went on because it could not judge them.
    pub continued: u64,
    /// Cycles of a call: half of the calls, and 99 % of them, took no more. Known to 6 %.
    pub call_cycles_p50: u64,
    /// The same for 99 % of the calls.
    pub call_cycles_p99: u64,
    /// Cycles a packet: half of the packets were in calls that took no more for each.
    pub packet_cycles_p50: u64,
    /// The same for 99 % of the packets.
    pub packet_cycles_p99: u64,
    /// The guest's own counters by name. Of an array those elements that are not zero.
    pub counters: BTreeMap<String, u64>,
    /// The same of those that its manifest calls gauges: what the instances that run show now.
    pub gauges: BTreeMap<String, u64>,
}

/// A version of a plugin that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GenerationStatus {
    /// Its number under the name.
    pub generation: u64,
    /// SHA-256 of its module, in hexadecimal.
    pub sha256: String,
    /// Its module's file.
    pub path: std::path::PathBuf,
    /// It stands by to judge while the one that runs cannot.
    pub stands_by: bool,
}

/// One plugin, as `sluice status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginStatus {
    /// The operator's name for it.
    pub name: String,
    /// What the manifest calls it.
    pub module: String,
    /// `ingress`, `forward` or `egress`.
    pub hook: &'static str,
    /// How many versions of it were loaded under this name, this one included.
    pub generation: u64,
    /// SHA-256 of the module's file, in hexadecimal.
    pub sha256: String,
    /// What runs is not what its entry's file holds: it was put into force by a rollback or a command.
    pub is_held: bool,
    /// Number of the generation that this one brings back.
    pub restores: Option<u64>,
    /// The generation that a rollback brings back.
    pub before: Option<GenerationStatus>,
    /// Whether it judges packets.
    pub state: PluginState,
    /// What it was priced at when it was loaded, and what that comes to now.
    pub price: Option<Price>,
    /// Loads of it that were refused.
    pub refused: u64,
    /// The last of them, until a version is loaded or its files are found to hold what runs.
    pub last_refusal: Option<RefusalStatus>,
    /// Sums over all workers.
    pub total: WorkerStatus,
    /// The same for each worker.
    pub workers: Vec<WorkerStatus>,
    /// A candidate is asked beside it.
    pub has_candidate: bool,
    /// How that began, for each worker.
    pub candidate_starts: Vec<CandidateStart>,
    /// Its meters, which all workers share.
    pub meters: Vec<MeterStatus>,
    /// Its tables, in the manifest's order.
    pub tables: Vec<TableStatus>,
    /// Its quotas, which all workers share.
    pub quotas: Vec<QuotaStatus>,
}

impl From<Totals> for WorkerStatus {
    #[expect(clippy::cast_precision_loss, reason = "a mean, for people")]
    fn from(totals: Totals) -> Self {
        let drops: u64 = totals.reasons.values().sum();
        Self {
            continued: totals.packets.saturating_sub(drops).saturating_sub(totals.default_drops),
            call_cycles_p50: totals.call_cycles.percentile(50),
            call_cycles_p99: totals.call_cycles.percentile(99),
            packet_cycles_p50: totals.packet_cycles.percentile(50),
            packet_cycles_p99: totals.packet_cycles.percentile(99),
            packets: totals.packets,
            batches: totals.batches,
            drops,
            drops_by_reason: totals.reasons,
            default_drops: totals.default_drops,
            stood_in: totals.stood_in,
            unjudged: totals.unjudged,
            traps: totals.traps,
            bad_verdicts: totals.bad_verdicts,
            transmitted: totals.transmitted,
            edited: totals.edited,
            mirrored: totals.mirrored,
            cycles: totals.cycles,
            cycles_per_packet: if totals.packets == 0 {
                0.0
            } else {
                totals.cycles as f64 / totals.packets as f64
            },
            counters: totals.guest,
            gauges: totals.gauges,
            flow_hits: totals.flow_hits,
            flow_misses: totals.flow_misses,
            flow_evictions: totals.flow_evictions,
            states_taken: totals.states_taken,
            states_lost: totals.states_lost,
            swaps: totals.swaps,
            swap_cycles: totals.swap_cycles,
            swap_cycles_max: totals.swap_cycles_max,
        }
    }
}
