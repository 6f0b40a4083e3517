//! The search for the highest rate that loses no more than a goal allows, by Multiple Loss Ratio
//! search (draft-ietf-bmwg-mlrsearch, FD.io CSIT's method).
//!
//! ```text
//!             +--------------------- evidence (all trials, by rate) <--------------+
//!             v                                                                    |
//!   goal 1 -> phases -> selector --+                                               |
//!   goal 2 -> phases -> selector --+--> the lowest rate wins --> trial (repeated --+
//!                                                                while it is void)
//! ```
//!
//! A *goal* says which loss is allowed and how much evidence decides. A rate is a *lower bound* of a
//! goal when no further trials could keep it from meeting the goal, an *upper bound* when none could
//! make it meet the goal, and undecided otherwise. Each goal passes through phases of growing
//! precision and evidence; a trial for one goal is evidence for all of them.
//!
//! The search is a function of what the trials report: no clock but [`Watch::elapsed`], no state but
//! its own. Rates of which the generator fell short are no evidence: the ceiling is lowered to what
//! it reached, and [`Found::notes`] say so, because the generator's limit is not that of the device
//! under test.
//!
//! Deliberately absent: pauses between trials and the wait for stragglers, which are the tester's.

mod evidence;
mod goal;
mod grid;
mod latency;
mod run;
mod selector;
#[cfg(test)]
mod simulation;

use std::time::Duration;

use thiserror::Error;

use crate::LoadError;
use crate::document::{Bound, Trial};

pub use goal::Goal;
pub use latency::{LatencyFound, LatencyPlan, latency};
pub use run::search;

/// What to search, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The goals; results come in their order.
    pub goals: Vec<Goal>,
    /// The lowest rate that is tried, in packets per second.
    pub min_pps: f64,
    /// The highest rate that is tried; `None` asks the generator what it can do.
    pub max_pps: Option<f64>,
    /// Length of a trial before the search whose result is ignored: neighbors get resolved, caches
    /// and flow tables get filled.
    pub warm_up: Duration,
    /// How often a trial is repeated that is void, or of whose rate the generator fell short.
    pub repeats_max: u32,
    /// The search ends when this much time has passed.
    pub duration_max: Duration,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            goals: vec![Goal::ndr(), Goal::pdr()],
            min_pps: 1000.0,
            max_pps: None,
            warm_up: Duration::from_secs(1),
            repeats_max: 3,
            duration_max: Duration::from_secs(1200),
        }
    }
}

/// What a search found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// One for each goal of the plan.
    pub bounds: Vec<Bound>,
    /// Every trial in its order, void ones too, without the warm-up.
    pub trials: Vec<Trial>,
    /// What a reader has to know of how the search went, as sentences.
    pub notes: Vec<String>,
}

/// Looks on while a search runs.
pub trait Watch {
    /// How much time has passed since the search began. `trials` is the sum of the trials' lengths,
    /// which is the answer of a simulation; a real search takes longer than that.
    fn elapsed(&mut self, trials: Duration) -> Duration {
        trials
    }

    /// A trial of `duration` has ended.
    fn trial(&mut self, trial: &Trial, duration: Duration) {
        let _ = (trial, duration);
    }
}

/// Looks at nothing.
impl Watch for () {}

/// Why a search has no result.
#[derive(Debug, Error)]
pub enum SearchError {
    /// The plan contradicts itself.
    #[error("{0}")]
    Plan(String),
    /// A trial stayed void however often it was repeated, and nothing was known by then.
    #[error(
        "the trial at {rate_pps:.0} packets/s was void {tries} times in a row, so nothing can be said \
         of the device under test: {}", reasons.join("; ")
    )]
    Void {
        /// The rate.
        rate_pps: f64,
        /// How often it was tried.
        tries: u32,
        /// What was wrong with the last one.
        reasons: Vec<String>,
    },
    /// The generator is slower than the search's lowest rate.
    #[error(
        "the generator reached {reached_pps:.0} packets/s, below the search's lowest rate of \
         {min_pps:.0}: give the tester more or quieter cores, or a lower --min-rate"
    )]
    GeneratorTooSlow {
        /// The most that it sent.
        reached_pps: f64,
        /// The lowest rate of the plan.
        min_pps: f64,
    },
    /// The generator falls short again and again, at rates that it reached before.
    #[error(
        "the generator fell short {times} times at ever lower rates, at last at {rate_pps:.0} \
         packets/s: it shares its core with something else"
    )]
    GeneratorUnsteady {
        /// How often the ceiling was lowered.
        times: u32,
        /// The last rate that was not reached.
        rate_pps: f64,
    },
    /// A trial could not be made.
    #[error(transparent)]
    Tester(#[from] LoadError),
}

impl Plan {
    /// Says what contradicts itself.
    fn check(&self) -> Result<(), SearchError> {
        let wrong = |what: String| Err(SearchError::Plan(what));
        if self.goals.is_empty() {
            return wrong("a search needs a goal".into());
        }
        for goal in &self.goals {
            goal.check()?;
        }
        if !(self.min_pps.is_finite() && self.min_pps > 0.0) {
            return wrong(format!("the lowest rate, {}, is no rate", self.min_pps));
        }
        if let Some(max_pps) = self.max_pps
            && !(max_pps.is_finite() && max_pps > self.min_pps)
        {
            return wrong(format!(
                "the highest rate, {max_pps:.0} packets/s, must be above the lowest, {:.0}",
                self.min_pps
            ));
        }
        if self.warm_up > self.duration_max {
            return wrong(format!(
                "the warm-up of {:?} is longer than the search may take, {:?}",
                self.warm_up, self.duration_max
            ));
        }
        let shortest = self.goals.iter().map(|goal| goal.trial_initial).min().unwrap_or_default();
        if shortest > self.duration_max {
            return wrong(format!(
                "the search may take {:?}, which is less than one trial of {shortest:?}",
                self.duration_max
            ));
        }
        let packets = self.min_pps * shortest.as_secs_f64();
        if packets < PACKETS_MIN {
            return wrong(format!(
                "a trial of {shortest:?} at the lowest rate, {:.0} packets/s, has {packets:.1} packets, \
                 fewer than {PACKETS_MIN:.0}: too few to tell a loss ratio from",
                self.min_pps
            ));
        }
        Ok(())
    }
}

/// Fewest packets of a trial: with fewer, one lost packet is a loss of more than 10 %.
const PACKETS_MIN: f64 = 10.0;
