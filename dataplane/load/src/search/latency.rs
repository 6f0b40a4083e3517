//! Latency at idle and at shares of the rate without loss, and what load adds to it.

use std::time::Duration;

use super::run::Bench;
use super::{SearchError, Watch};
use crate::Tester;
use crate::document::{LatencyAt, Trial};

/// Where to measure latency.
#[derive(Clone, Debug, PartialEq)]
pub struct LatencyPlan {
    /// The rate that counts as idle: so low that no packet waits for another. Where NDR is low, a
    /// tenth of it is used instead.
    pub idle_pps: f64,
    /// The loads, as shares of NDR.
    pub loads: Vec<f64>,
    /// Length of each trial.
    pub trial: Duration,
    /// How often a void trial is repeated.
    pub repeats_max: u32,
}

impl Default for LatencyPlan {
    fn default() -> Self {
        Self {
            idle_pps: 1000.0,
            loads: vec![0.5, 0.9],
            trial: Duration::from_secs(5),
            repeats_max: 3,
        }
    }
}

/// Latencies that were measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyFound {
    /// Idle first, then the loads in their order.
    pub at: Vec<LatencyAt>,
    /// The trials that they are from.
    pub trials: Vec<Trial>,
    /// What a reader has to know, as sentences.
    pub notes: Vec<String>,
}

/// Measures latency at idle and, if NDR is known, at shares of it.
///
/// # Errors
/// See [`SearchError`].
pub fn latency(
    tester: &mut dyn Tester,
    ndr_pps: Option<f64>,
    plan: &LatencyPlan,
    watch: &mut dyn Watch,
) -> Result<LatencyFound, SearchError> {
    let mut found = LatencyFound::default();
    let idle_pps = ndr_pps.map_or(plan.idle_pps, |ndr_pps| plan.idle_pps.min(ndr_pps / 10.0));
    let mut loads = vec![("idle".to_owned(), idle_pps)];
    if let Some(ndr_pps) = ndr_pps {
        let named = |&share: &f64| (format!("{:.0} %", 100.0 * share), ndr_pps * share);
        loads.extend(plan.loads.iter().map(named));
    } else {
        found.notes.push("Latency under load was not measured: NDR is not known.".into());
    }

    let mut bench = Bench::new(tester, plan.repeats_max, watch);
    let mut idle = None;
    for (load, rate_pps) in loads {
        let trial = match bench.valid(Some(rate_pps), plan.trial) {
            Ok(trial) => trial,
            // The rates that were found before stay true.
            Err(error @ SearchError::Void { .. }) => {
                found.notes.push(format!("Latency ({load}) was not measured: {error}."));
                continue;
            }
            Err(error) => return Err(error),
        };
        let Some(latency) = trial.latency else {
            found.notes.push(format!(
                "Latency ({load}) was not measured: no packet was timed at both ends by one clock."
            ));
            continue;
        };
        if trial.is_generator_limited {
            found.notes.push(format!(
                "The generator fell short of {rate_pps:.0} packets/s while latency was measured ({load})."
            ));
        }
        let over_idle = |of: fn(&crate::document::Latency) -> u64| {
            idle.as_ref().map(|idle| of(&latency).cast_signed() - of(idle).cast_signed())
        };
        found.at.push(LatencyAt {
            rate_pps,
            latency,
            p50_over_idle_ns: over_idle(|latency| latency.p50_ns),
            p99_over_idle_ns: over_idle(|latency| latency.p99_ns),
            load: load.clone(),
        });
        if load == "idle" {
            idle = Some(latency);
        }
    }
    found.trials = bench.trials;
    Ok(found)
}
