//! Which rate one goal would try next.
//!
//! ```text
//!   hints of the phase before         external search              internal search
//!   (first phase: first trials)       one bound is missing         both bounds are there
//!
//!    lower  middle  upper             upper - reach, 2 reach ...   the middle, until the
//!      |-------+------|        -->    lower + reach, 2 reach ...   width is reached
//! ```
//!
//! A rate is nominated until it is decided, so that one that takes 21 trials gets them in a row,
//! unless another goal has a lower rate to try.

use std::time::Duration;

use super::evidence::{Bounds, Evidence};
use super::goal::Phase;
use super::grid::Load;

/// The trial that a goal wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) load: Load,
    pub(super) duration: Duration,
    reaches: Option<Side>,
}

/// The bound that a step of external search looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Lower,
    Upper,
}

/// The search for one goal.
#[derive(Clone, Debug)]
pub(super) struct Selector {
    phases: Vec<Phase>,
    current: usize,
    /// The bounds of the phase before: where this one's are expected.
    hints: Bounds,
    /// The next step of external search.
    reach: Load,
    /// The highest rate that may be tried.
    ceiling: Load,
}

impl Selector {
    /// Starts with the first phase near two rates (that may be equal).
    pub(super) fn new(phases: Vec<Phase>, hints: (Load, Load), ceiling: Load) -> Self {
        let hints = Bounds { lower: Some(hints.0), upper: Some(hints.1) };
        let mut selector = Self { phases, current: 0, hints, reach: 0, ceiling };
        selector.reach = selector.first_reach();
        selector
    }

    fn phase(&self) -> &Phase {
        &self.phases[self.current]
    }

    fn first_reach(&self) -> Load {
        match (self.hints.lower, self.hints.upper) {
            (Some(lower), Some(upper)) => self.phase().width.max(upper - lower),
            _ => self.phase().width,
        }
    }

    /// The next trial for this goal; `None` when the goal is reached, or cannot be.
    pub(super) fn nominate(&mut self, evidence: &Evidence) -> Option<Candidate> {
        loop {
            let bounds = evidence.bounds(self.phase());
            if let Some((load, reaches)) = self.propose(bounds) {
                return Some(Candidate { load, duration: self.phase().trial, reaches });
            }
            if self.current + 1 == self.phases.len() {
                return None;
            }
            self.current += 1;
            self.hints = bounds;
            self.reach = self.first_reach();
        }
    }

    /// Learns that its candidate was tried: a step that did not reach its bound is followed by a
    /// longer one.
    pub(super) fn tried(&mut self, candidate: &Candidate, evidence: &Evidence) {
        let bounds = evidence.bounds(self.phase());
        let passed = match candidate.reaches {
            Some(Side::Upper) => bounds.lower,
            Some(Side::Lower) => bounds.upper,
            None => None,
        };
        if passed == Some(candidate.load) {
            self.reach = self.reach.saturating_mul(2);
        }
    }

    fn propose(&self, bounds: Bounds) -> Option<(Load, Option<Side>)> {
        let width = self.phase().width;
        if bounds.lower.is_some_and(|lower| lower >= self.ceiling) {
            return None;
        }
        if let (Some(lower), Some(upper)) = (bounds.lower, bounds.upper)
            && upper - lower <= width
        {
            return None;
        }
        let hints = [self.middle_hint(), self.hints.lower, self.hints.upper];
        let is_inside = |load: &Load| {
            bounds.lower.is_none_or(|lower| lower < *load)
                && bounds.upper.is_none_or(|upper| *load < upper)
                && *load <= self.ceiling
        };
        if let Some(load) = hints.into_iter().flatten().find(is_inside) {
            return Some((load, None));
        }
        let (load, reaches) = match (bounds.lower, bounds.upper) {
            (Some(lower), Some(upper)) => self.between(lower, upper),
            (Some(lower), None) => (lower + self.reach, Some(Side::Upper)),
            (None, Some(0)) => return None,
            (None, Some(upper)) => (upper - self.reach, Some(Side::Lower)),
            (None, None) => (self.ceiling, None),
        };
        // What remains beyond a step and is narrower than the goal's width is not worth a trial of
        // its own, unless the step would then be one that was already tried.
        let load = if load < width && bounds.lower.is_none() { 0 } else { load };
        let load =
            if self.ceiling - load < width && bounds.upper.is_none() { self.ceiling } else { load };
        Some((load.min(self.ceiling), reaches))
    }

    /// The middle of the hints, if trying it first can save one of them: their distance is more than
    /// this phase's width and no more than twice that, as the phase before leaves it.
    fn middle_hint(&self) -> Option<Load> {
        let (lower, upper) = (self.hints.lower?, self.hints.upper?);
        let width = self.phase().width;
        let gap = upper - lower;
        (gap > width && gap <= 2 * width).then(|| split(lower, upper, width))
    }

    /// A rate between two bounds. They may come from another goal's trials and lie far apart; then
    /// steps from the bound at the hints get there sooner than halving does.
    fn between(&self, lower: Load, upper: Load) -> (Load, Option<Side>) {
        let middle = split(lower, upper, self.phase().width);
        if self.hints.lower.is_some_and(|hint| upper <= hint) && upper - self.reach > middle {
            return (upper - self.reach, Some(Side::Lower));
        }
        if self.hints.upper.is_some_and(|hint| lower >= hint) && lower + self.reach < middle {
            return (lower + self.reach, Some(Side::Upper));
        }
        (middle, None)
    }
}

/// Splits an interval wider than `width`: evenly, except that one half is a power of two of widths
/// where that costs no further split. The smaller half lies below.
fn split(lower: Load, upper: Load, width: Load) -> Load {
    let gap = upper - lower;
    if gap <= 2 * width {
        return lower + gap / 2;
    }
    let mut half = width;
    while half * 2 <= gap / 2 {
        half *= 2;
    }
    lower + half.max(gap - 2 * half)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::search::evidence::Measured;

    fn phase() -> Phase {
        Phase {
            loss_ratio: 0.0,
            exceed_ratio: 0.0,
            width: 16,
            trial: Duration::from_secs(1),
            sum: Duration::from_secs(1),
        }
    }

    fn evidence(trials: &[(Load, f64)]) -> Evidence {
        let mut evidence = Evidence::default();
        for &(load, loss_ratio) in trials {
            evidence.add(load, Measured { duration: Duration::from_secs(1), loss_ratio });
        }
        evidence
    }

    #[test]
    fn splits_never_cost_more_than_halving() {
        fn splits(gap: Load, width: Load) -> u32 {
            if gap <= width {
                return 0;
            }
            let below = split(0, gap, width);
            assert!(0 < below && below < gap, "{gap}");
            1 + splits(below, width).max(splits(gap - below, width))
        }
        for gap in 1..2000 {
            let halvings = (gap as f64 / 16.0).log2().ceil().max(0.0) as u32;
            assert_eq!(splits(gap, 16), halvings, "{gap}");
        }
    }

    #[test]
    fn the_search_upward_lengthens_its_steps() {
        let mut evidence = evidence(&[(100, 0.0)]);
        let mut selector = Selector::new(vec![phase()], (100, 100), 1000);
        let mut tried = Vec::new();
        for _ in 0..4 {
            let candidate = selector.nominate(&evidence).expect("no upper bound yet");
            tried.push(candidate.load);
            evidence
                .add(candidate.load, Measured { duration: candidate.duration, loss_ratio: 0.0 });
            selector.tried(&candidate, &evidence);
        }
        assert_eq!(tried, [116, 148, 212, 340]);
    }

    #[test]
    fn the_search_downward_ends_at_the_lowest_rate() {
        let mut evidence = evidence(&[(40, 0.5)]);
        let mut selector = Selector::new(vec![phase()], (40, 40), 1000);
        let mut tried = Vec::new();
        while let Some(candidate) = selector.nominate(&evidence) {
            tried.push(candidate.load);
            evidence
                .add(candidate.load, Measured { duration: candidate.duration, loss_ratio: 0.5 });
            selector.tried(&candidate, &evidence);
        }
        assert_eq!(tried, [24, 0]);
    }

    #[test]
    fn nothing_is_nominated_above_the_ceiling() {
        let evidence = evidence(&[(100, 0.0), (500, 0.1)]);
        let mut selector = Selector::new(vec![phase()], (300, 300), 110);
        let candidate = selector.nominate(&evidence).expect("110 is not tried yet");
        assert_eq!(candidate.load, 110);
        let evidence = self::evidence(&[(110, 0.0), (500, 0.1)]);
        assert_eq!(selector.nominate(&evidence), None);
    }

    #[test]
    fn far_bounds_of_others_are_approached_from_the_hints() {
        let evidence = evidence(&[(0, 0.0), (500, 0.1), (1000, 0.1)]);
        let mut selector = Selector::new(vec![phase()], (500, 500), 1000);
        assert_eq!(selector.nominate(&evidence).map(|candidate| candidate.load), Some(484));
    }
}
