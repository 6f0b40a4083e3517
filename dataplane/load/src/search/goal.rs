//! What a search looks for: a goal, and the phases that lead to it.

use std::time::Duration;

use super::SearchError;
use super::grid::{Grid, Load};

/// One search goal (draft-ietf-bmwg-mlrsearch, section "Search Goal"): how much loss is allowed, and
/// how much evidence it takes to say so.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// A short name for people ("NDR").
    pub name: &'static str,
    /// Goal Loss Ratio, 0 to below 1: a trial that loses a greater share is a high-loss trial.
    pub loss_ratio: f64,
    /// Goal Exceed Ratio, 0 to below 1: the share of the evidence, by time, that high-loss trials may
    /// make up at a rate that still counts as good. 0 lets a single one condemn a rate.
    pub exceed_ratio: f64,
    /// Goal Width: the search ends when lower and upper bound are no further apart than this share
    /// of the upper one.
    pub width: f64,
    /// Goal Initial Trial Duration: the length of the first, coarsest phase's trials.
    pub trial_initial: Duration,
    /// Goal Final Trial Duration: shorter trials are hints, but no evidence for a lower bound.
    pub trial_final: Duration,
    /// Goal Duration Sum: as much evidence decides about a rate in any case; less does when what is
    /// missing could change nothing.
    pub trials_sum: Duration,
    /// Number of coarser phases before the final one.
    pub coarse_phases: u32,
}

impl Goal {
    /// "No Drop Rate" with the evidence that FD.io CSIT asks for: trials of 1 s, 21 s of them, half
    /// of which may be high-loss ones.
    #[must_use]
    pub const fn ndr() -> Self {
        Self {
            name: "NDR",
            loss_ratio: 0.0,
            exceed_ratio: 0.5,
            width: 0.005,
            trial_initial: Duration::from_secs(1),
            trial_final: Duration::from_secs(1),
            trials_sum: Duration::from_secs(21),
            coarse_phases: 2,
        }
    }

    /// "Partial Drop Rate": the same with a loss of 0.5 %.
    #[must_use]
    pub const fn pdr() -> Self {
        Self { name: "PDR", loss_ratio: 0.005, ..Self::ndr() }
    }

    /// Says what contradicts itself.
    pub(super) fn check(&self) -> Result<(), SearchError> {
        let wrong = |what: String| Err(SearchError::Plan(format!("goal {}: {what}", self.name)));
        if !(0.0..1.0).contains(&self.loss_ratio) {
            return wrong(format!("loss ratio {} is not between 0 and 1", self.loss_ratio));
        }
        if !(0.0..1.0).contains(&self.exceed_ratio) {
            return wrong(format!("exceed ratio {} is not between 0 and 1", self.exceed_ratio));
        }
        if !(0.0001..=0.5).contains(&self.width) {
            return wrong(format!("width {} is not between 0.01 % and 50 %", self.width));
        }
        if self.trial_initial.is_zero() || self.trial_initial > self.trial_final {
            return wrong(format!(
                "the first trials ({:?}) must take some time, and no longer than the final ones ({:?})",
                self.trial_initial, self.trial_final
            ));
        }
        if self.trials_sum < self.trial_final {
            return wrong(format!(
                "the sum of trials ({:?}) is less than one trial ({:?})",
                self.trials_sum, self.trial_final
            ));
        }
        if self.coarse_phases > 8 {
            return wrong(format!("{} coarse phases are more than 8", self.coarse_phases));
        }
        Ok(())
    }

    /// The phases from the coarsest to the final one: each doubles the precision, and asks for a
    /// duration sum that grows geometrically from the first trial's length to the goal's.
    pub(super) fn phases(&self, grid: &Grid) -> Vec<Phase> {
        let growth = self.trials_sum.as_secs_f64() / self.trial_initial.as_secs_f64();
        let width = grid.width(self.width);
        (0..=self.coarse_phases)
            .map(|number| {
                let remaining = self.coarse_phases - number;
                let sum = match (remaining, number) {
                    (0, _) => self.trials_sum,
                    (_, 0) => self.trial_initial,
                    _ => {
                        let share = f64::from(number) / f64::from(self.coarse_phases);
                        self.trial_initial.mul_f64(growth.powf(share))
                    }
                };
                Phase {
                    loss_ratio: self.loss_ratio,
                    exceed_ratio: self.exceed_ratio,
                    width: width << remaining,
                    trial: sum.min(self.trial_final),
                    sum,
                }
            })
            .collect()
    }
}

/// One phase of a goal: the goal itself, or a coarser form of it that shorter and fewer trials meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Phase {
    pub(super) loss_ratio: f64,
    pub(super) exceed_ratio: f64,
    /// In steps of the grid.
    pub(super) width: Load,
    pub(super) trial: Duration,
    pub(super) sum: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_lead_from_one_short_trial_to_the_goal() {
        let grid = Grid::new(1000.0, 1_000_000.0, 0.005);
        let goal = Goal {
            trial_final: Duration::from_secs(10),
            trials_sum: Duration::from_secs(100),
            ..Goal::ndr()
        };
        let phases = goal.phases(&grid);
        let sums: Vec<_> = phases.iter().map(|phase| phase.sum.as_secs()).collect();
        let trials: Vec<_> = phases.iter().map(|phase| phase.trial.as_secs()).collect();
        assert_eq!((sums, trials), (vec![1, 10, 100], vec![1, 10, 10]));
        assert_eq!(phases[0].width, 4 * phases[2].width);
        assert_eq!(phases[2].width, grid.width(0.005));
    }

    #[test]
    fn a_goal_without_coarse_phases_has_the_final_one_only() {
        let grid = Grid::new(1000.0, 1_000_000.0, 0.005);
        let phases = Goal { coarse_phases: 0, ..Goal::ndr() }.phases(&grid);
        assert_eq!(phases.len(), 1);
        assert_eq!((phases[0].trial, phases[0].sum.as_secs()), (Duration::from_secs(1), 21));
    }

    #[test]
    fn goals_that_contradict_themselves_are_refused() {
        let refused = |goal: Goal| goal.check().expect_err("it is refused").to_string();
        assert!(refused(Goal { exceed_ratio: 1.0, ..Goal::ndr() }).contains("exceed ratio 1"));
        assert!(refused(Goal { width: 0.0, ..Goal::ndr() }).contains("width 0"));
        assert!(refused(Goal { loss_ratio: f64::NAN, ..Goal::ndr() }).contains("loss ratio"));
        let sum = Duration::from_millis(999);
        assert!(refused(Goal { trials_sum: sum, ..Goal::pdr() }).contains("goal PDR: the sum"));
        assert!(refused(Goal { trial_initial: Duration::ZERO, ..Goal::ndr() }).contains("first"));
    }
}
