//! The rates that a search may try: a geometric grid, so that a relative width is a number of steps
//! and a rate that is tried twice is the same rate.

/// A rate as its place on the grid, 0 for the lowest.
pub(super) type Load = i64;

/// Steps within the narrowest width: intervals below two widths can still be split evenly.
const STEPS_PER_WIDTH: f64 = 16.0;

/// A geometric grid of rates between two rates, both on it.
#[derive(Clone, Debug)]
pub(super) struct Grid {
    min_pps: f64,
    max_pps: f64,
    /// The logarithm of the ratio of neighbors.
    step: f64,
    top: Load,
}

impl Grid {
    /// A grid from `min_pps` to `max_pps`, fine enough for `width`, a share of the higher of two
    /// rates.
    pub(super) fn new(min_pps: f64, max_pps: f64, width: f64) -> Self {
        let whole = (max_pps / min_pps).ln();
        let top = (whole / (log_width(width) / STEPS_PER_WIDTH)).ceil().max(1.0);
        Self { min_pps, max_pps, step: whole / top, top: top as Load }
    }

    /// The place of the highest rate.
    pub(super) fn top(&self) -> Load {
        self.top
    }

    /// The rate at a place, in packets per second.
    pub(super) fn rate_pps(&self, load: Load) -> f64 {
        if load >= self.top {
            return self.max_pps;
        }
        self.min_pps * (self.step * load as f64).exp()
    }

    /// The highest place whose rate is no more than `rate_pps`; 0 for rates below the grid.
    pub(super) fn floor(&self, rate_pps: f64) -> Load {
        if rate_pps <= self.min_pps {
            return 0;
        }
        // A rate that was taken from the grid has to find its own place again, hence the fraction.
        let place = (rate_pps / self.min_pps).ln() / self.step + 1e-6;
        (place.floor() as Load).min(self.top)
    }

    /// The number of steps that a width holds, at least one.
    pub(super) fn width(&self, width: f64) -> Load {
        ((log_width(width) / self.step + 1e-6).floor() as Load).max(1)
    }
}

/// The logarithm of upper over lower where (upper - lower) / upper is `width`.
fn log_width(width: f64) -> f64 {
    -(-width).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_rates_are_each_others_inverse() {
        let grid = Grid::new(1000.0, 14_880_952.0, 0.005);
        assert_eq!(grid.rate_pps(0), 1000.0);
        assert_eq!(grid.rate_pps(grid.top()), 14_880_952.0);
        for load in 0..=grid.top() {
            assert_eq!(grid.floor(grid.rate_pps(load)), load);
        }
        assert_eq!(grid.floor(10.0), 0);
        assert_eq!(grid.floor(1e9), grid.top());
    }

    #[test]
    fn a_width_holds_at_every_place() {
        let grid = Grid::new(1000.0, 1_000_000.0, 0.005);
        let width = grid.width(0.005);
        assert_eq!(width, 16);
        for lower in [0, 17, 1000, grid.top() - width] {
            let (lower, upper) = (grid.rate_pps(lower), grid.rate_pps(lower + width));
            let share = (upper - lower) / upper;
            assert!(share <= 0.005 + 1e-9 && share > 0.0045, "{share}");
        }
    }
}
