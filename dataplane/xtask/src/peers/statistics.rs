//! Medians and spreads of few numbers, and ratios of runs that were made in the same round.

/// The median: of an even count, the mean of the two in the middle. `None` of nothing.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0)
}

/// The lowest and the highest. `None` of nothing.
#[must_use]
pub fn spread(values: &[f64]) -> Option<(f64, f64)> {
    let lowest = values.iter().copied().min_by(f64::total_cmp)?;
    let highest = values.iter().copied().max_by(f64::total_cmp)?;
    Some((lowest, highest))
}

/// `ours / theirs` for each round that has both. A round in which the other forwarded nothing has no
/// ratio.
#[must_use]
pub fn ratios(ours: &[Option<f64>], theirs: &[Option<f64>]) -> Vec<f64> {
    ours.iter()
        .zip(theirs)
        .filter_map(|pair| match pair {
            (Some(ours), Some(theirs)) if *theirs > 0.0 => Some(ours / theirs),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_ends() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(spread(&[3.0, 1.0, 2.0]), Some((1.0, 3.0)));
    }

    #[test]
    fn a_ratio_needs_both_runs_of_a_round() {
        let ours = [Some(2.0), None, Some(6.0), Some(1.0)];
        let theirs = [Some(1.0), Some(5.0), Some(2.0), Some(0.0)];
        assert_eq!(ratios(&ours, &theirs), [2.0, 3.0]);
        // Where the median of ratios differs from the ratio of medians, the first is meant: what
        // disturbs a round disturbs both of its runs.
        assert_eq!(median(&ratios(&[Some(10.0), Some(1.0)], &[Some(5.0), Some(2.0)])), Some(1.25));
    }
}
