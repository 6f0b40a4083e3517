//! The search itself: first trials, then one trial after the other until no goal wants a further one.

use std::cmp::Reverse;
use std::time::Duration;

use super::evidence::{Evidence, Measured};
use super::goal::Phase;
use super::grid::{Grid, Load};
use super::selector::Selector;
use super::{Found, Goal, Plan, SearchError, Watch};
use crate::Tester;
use crate::document::{Bound, Trial};

/// Of what the generator reached at most, the share that it is asked for from then on: at its very
/// limit it would fall short in every second trial.
const GENERATOR_MARGIN: f64 = 0.98;

/// How often the ceiling may be lowered. The first time finds the generator's limit; more than a
/// few times says that it has no steady one.
const LOWERINGS_MAX: u32 = 8;

/// Searches for all goals of `plan` at once.
///
/// When [`Plan::duration_max`] has passed, or a trial stays void, the result is what is known by then, from the
/// finest phase that knows a lower bound, with [`Bound::is_conclusive`] false.
///
/// # Errors
/// See [`SearchError`].
pub fn search(
    tester: &mut dyn Tester,
    plan: &Plan,
    watch: &mut dyn Watch,
) -> Result<Found, SearchError> {
    plan.check()?;
    let mut bench = Bench::new(tester, plan.repeats_max, watch);
    let max_pps = warm_up(&mut bench, plan)?;
    let width = plan.goals.iter().map(|goal| goal.width).fold(f64::INFINITY, f64::min);
    let grid = Grid::new(plan.min_pps, max_pps, width);
    let phases: Vec<_> = plan.goals.iter().map(|goal| goal.phases(&grid)).collect();
    let mut run = Run {
        bench,
        plan,
        ceiling: grid.top(),
        grid,
        evidence: Evidence::default(),
        notes: Vec::new(),
    };
    run.run_out(&phases)?;
    let bounds: Vec<_> =
        plan.goals.iter().zip(&phases).map(|(goal, phases)| run.bound(goal, phases)).collect();
    run.note_limits(&bounds);
    Ok(Found { bounds, trials: run.bench.trials, notes: run.notes })
}

/// Asks a generator without a given highest rate what it can do, and warms the device up.
fn warm_up(bench: &mut Bench<'_>, plan: &Plan) -> Result<f64, SearchError> {
    let Some(max_pps) = plan.max_pps else {
        let trial = bench.valid(None, plan.warm_up.max(Duration::from_millis(200)))?;
        let reached_pps = trial.sent_pps();
        let max_pps = reached_pps * GENERATOR_MARGIN;
        if max_pps <= plan.min_pps {
            return Err(SearchError::GeneratorTooSlow { reached_pps, min_pps: plan.min_pps });
        }
        return Ok(max_pps);
    };
    if !plan.warm_up.is_zero() {
        bench.tester.trial(Some(max_pps), plan.warm_up)?;
    }
    Ok(max_pps)
}

/// The tester, and the book that is kept of its trials.
pub(super) struct Bench<'a> {
    tester: &'a mut dyn Tester,
    repeats_max: u32,
    watch: &'a mut dyn Watch,
    pub(super) trials: Vec<Trial>,
    /// Sum of the trials' lengths.
    spent: Duration,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        tester: &'a mut dyn Tester,
        repeats_max: u32,
        watch: &'a mut dyn Watch,
    ) -> Self {
        Self { tester, repeats_max, watch, trials: Vec::new(), spent: Duration::ZERO }
    }

    fn trial(&mut self, rate_pps: Option<f64>, duration: Duration) -> Result<Trial, SearchError> {
        let mut trial = self.tester.trial(rate_pps, duration)?;
        if trial.sent == 0 && trial.void.is_empty() {
            trial.void.push("the generator sent nothing".into());
        }
        self.spent += duration;
        self.watch.trial(&trial, duration);
        self.trials.push(trial.clone());
        Ok(trial)
    }

    /// One trial that says something of the device under test.
    pub(super) fn valid(
        &mut self,
        rate_pps: Option<f64>,
        duration: Duration,
    ) -> Result<Trial, SearchError> {
        let mut tries = 0;
        loop {
            let trial = self.trial(rate_pps, duration)?;
            tries += 1;
            if trial.void.is_empty() {
                return Ok(trial);
            }
            if tries > self.repeats_max {
                let rate_pps = rate_pps.unwrap_or_else(|| trial.sent_pps());
                return Err(SearchError::Void { rate_pps, tries, reasons: trial.void });
            }
        }
    }
}

/// Why no further trial was made.
enum Halt {
    /// The time is up.
    Deadline,
    /// The generator does not reach a rate; the most that it sent.
    FellShort { load: Load, reached_pps: f64 },
    /// There is no result.
    Failed(SearchError),
}

impl From<SearchError> for Halt {
    fn from(error: SearchError) -> Self {
        Self::Failed(error)
    }
}

struct Run<'a> {
    bench: Bench<'a>,
    plan: &'a Plan,
    grid: Grid,
    ceiling: Load,
    evidence: Evidence,
    notes: Vec<String>,
}

impl Run<'_> {
    /// Makes trials until no goal wants one, or the time is up.
    fn run_out(&mut self, phases: &[Vec<Phase>]) -> Result<(), SearchError> {
        let mut lowerings = 0;
        loop {
            match self.below_ceiling(phases) {
                Ok(()) => return Ok(()),
                Err(Halt::Deadline) => {
                    self.notes.push(format!(
                        "The search was ended after {:?}, before it was conclusive.",
                        self.plan.duration_max
                    ));
                    return Ok(());
                }
                // What was measured before stays true.
                Err(Halt::Failed(error @ SearchError::Void { .. })) if self.knows_some(phases) => {
                    self.notes
                        .push(format!("The search was ended, before it was conclusive: {error}."));
                    return Ok(());
                }
                Err(Halt::Failed(error)) => return Err(error),
                Err(Halt::FellShort { load, reached_pps }) => {
                    lowerings += 1;
                    let rate_pps = self.grid.rate_pps(load);
                    if lowerings > LOWERINGS_MAX {
                        return Err(SearchError::GeneratorUnsteady { times: lowerings, rate_pps });
                    }
                    let ceiling_pps = reached_pps * GENERATOR_MARGIN;
                    if ceiling_pps < self.plan.min_pps || load == 0 {
                        let min_pps = self.plan.min_pps;
                        return Err(SearchError::GeneratorTooSlow { reached_pps, min_pps });
                    }
                    self.ceiling = self.grid.floor(ceiling_pps).min(load - 1);
                    self.notes.push(format!(
                        "The generator reached {reached_pps:.0} packets/s when asked for \
                         {rate_pps:.0}: rates above {:.0} were not tried.",
                        self.grid.rate_pps(self.ceiling)
                    ));
                }
            }
        }
    }

    /// Whether some goal has a rate that meets it.
    fn knows_some(&self, phases: &[Vec<Phase>]) -> bool {
        let mut all = phases.iter().flatten();
        all.any(|phase| self.evidence.bounds(phase).lower.is_some())
    }

    fn below_ceiling(&mut self, phases: &[Vec<Phase>]) -> Result<(), Halt> {
        let hints = self.first_trials(phases)?;
        let mut selectors: Vec<_> = phases
            .iter()
            .map(|phases| Selector::new(phases.clone(), hints, self.ceiling))
            .collect();
        loop {
            // The lowest rate first, and there the longest trial: what is measured low is of use to
            // the other goals, and what loses a lot is measured as seldom as can be.
            let winner = selectors
                .iter_mut()
                .enumerate()
                .filter_map(|(goal, selector)| Some((selector.nominate(&self.evidence)?, goal)))
                .min_by_key(|(candidate, goal)| {
                    (candidate.load, Reverse(candidate.duration), *goal)
                });
            let Some((candidate, goal)) = winner else { return Ok(()) };
            self.measure(candidate.load, candidate.duration)?;
            selectors[goal].tried(&candidate, &self.evidence);
        }
    }

    /// The highest rate, what came through there (FRMOL, RFC 2285 section 3.6.2), and what came
    /// through then or a width more: two rates between which the strictest goal's bound is expected.
    fn first_trials(&mut self, phases: &[Vec<Phase>]) -> Result<(Load, Load), Halt> {
        let first = || phases.iter().filter_map(|phases| phases.first());
        let duration = first().map(|phase| phase.trial).max().unwrap_or_default();
        let width = first().map(|phase| phase.width).max().unwrap_or(1);
        let goal_loss = first().map(|phase| phase.loss_ratio).fold(1.0, f64::min);
        // What a rate lets expect, if all that it lost is what it was too high by.
        let expected = |grid: &Grid, load: Load, loss_ratio: f64| {
            let share = (1.0 - loss_ratio) / (1.0 - goal_loss);
            grid.floor(grid.rate_pps(load) * share).min(load - width).max(0)
        };

        let top_loss = self.measure(self.ceiling, duration)?;
        if top_loss <= goal_loss || self.ceiling == 0 {
            return Ok((self.ceiling, self.ceiling));
        }
        let second = expected(&self.grid, self.ceiling, top_loss);
        let loss = self.measure(second, duration)?;
        let third = if loss > goal_loss {
            expected(&self.grid, second, loss)
        } else {
            (second + width).min(self.ceiling)
        };
        if third != second && third != self.ceiling {
            self.measure(third, duration)?;
        }
        Ok((second.min(third), second.max(third)))
    }

    /// One trial at one rate; its loss ratio.
    fn measure(&mut self, load: Load, duration: Duration) -> Result<f64, Halt> {
        let rate_pps = self.grid.rate_pps(load);
        let mut reached_pps: f64 = 0.0;
        for _ in 0..=self.plan.repeats_max {
            let elapsed = self.bench.watch.elapsed(self.bench.spent);
            if elapsed + duration > self.plan.duration_max {
                return Err(Halt::Deadline);
            }
            let trial = self.bench.valid(Some(rate_pps), duration)?;
            if !trial.is_generator_limited {
                let loss_ratio = trial.lost as f64 / trial.sent as f64;
                self.evidence.add(load, Measured { duration, loss_ratio });
                return Ok(loss_ratio);
            }
            reached_pps = reached_pps.max(trial.sent_pps().min(rate_pps));
        }
        Err(Halt::FellShort { load, reached_pps })
    }

    /// The result of one goal.
    fn bound(&self, goal: &Goal, phases: &[Phase]) -> Bound {
        let known = phases.iter().enumerate().rev().map(|(number, phase)| {
            (number + 1 == phases.len(), phase, self.evidence.bounds(phase))
        });
        let (is_final, phase, bounds) = known
            .clone()
            .find(|(_, _, bounds)| bounds.lower.is_some() || bounds.upper == Some(0))
            .or_else(|| known.clone().find(|(_, _, bounds)| bounds.upper.is_some()))
            .or_else(|| known.clone().next())
            .expect("a goal has a final phase");
        let basis = bounds.lower.or(bounds.upper);
        let trials = basis.map_or(&[][..], |load| self.evidence.at(load));
        let full_length = || trials.iter().filter(|trial| trial.duration >= phase.trial);
        let seconds = |sum: Duration| sum.as_secs_f64();
        Bound {
            loss_ratio_max: goal.loss_ratio,
            lower_pps: bounds.lower.map(|load| self.grid.rate_pps(load)),
            upper_pps: bounds.upper.map(|load| self.grid.rate_pps(load)),
            forwarded_pps: bounds.lower.map(|load| {
                let loss_ratio = self.evidence.quantile_loss_ratio(load, phase);
                self.grid.rate_pps(load) * (1.0 - loss_ratio)
            }),
            trial_s: seconds(phase.trial),
            trials_s: seconds(full_length().map(|trial| trial.duration).sum()),
            high_loss_s: seconds(
                full_length()
                    .filter(|trial| trial.loss_ratio > goal.loss_ratio)
                    .map(|trial| trial.duration)
                    .sum(),
            ),
            goal_trials_s: seconds(goal.trials_sum),
            exceed_ratio: goal.exceed_ratio,
            width: goal.width,
            is_conclusive: is_final
                && matches!((bounds.lower, bounds.upper), (Some(lower), Some(upper))
                    if upper - lower <= phase.width),
        }
    }

    /// Says what a missing bound means.
    fn note_limits(&mut self, bounds: &[Bound]) {
        for (goal, bound) in self.plan.goals.iter().zip(bounds) {
            let ceiling_pps = self.grid.rate_pps(self.ceiling);
            match (bound.lower_pps, bound.upper_pps) {
                (Some(lower_pps), None) if lower_pps >= ceiling_pps => self.notes.push(format!(
                    "{} was met at the highest rate, {lower_pps:.0} packets/s: the limit of the device \
                     under test is higher.",
                    goal.name
                )),
                (None, Some(upper_pps)) if upper_pps <= self.plan.min_pps => {
                    self.notes.push(format!(
                        "{} was not met at the lowest rate, {upper_pps:.0} packets/s.",
                        goal.name
                    ));
                }
                _ => {}
            }
        }
        let void = self.bench.trials.iter().filter(|trial| !trial.void.is_empty()).count();
        if void > 0 {
            self.notes.push(format!(
                "{void} of {} trials were void and were repeated.",
                self.bench.trials.len()
            ));
        }
    }
}
