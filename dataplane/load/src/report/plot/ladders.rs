//! Percentiles on a logarithmic axis: for each category and run a line from the median up to the
//! 99.9th percentile.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{
    DrawError, Failure, WIDTH, colour, drawing, fitted, is_drawable, log_ends, log_ticks, real,
    text, tick,
};

/// A drawing of percentiles.
pub(in super::super) struct Ladders {
    pub(in super::super) x_label: &'static str,
    pub(in super::super) y_label: &'static str,
    pub(in super::super) categories: Vec<String>,
    pub(in super::super) ladders: Vec<Ladder>,
}

/// The percentiles of one run at one category each.
pub(in super::super) struct Ladder {
    pub(in super::super) colour: usize,
    /// Median, 99th and 99.9th percentile; absent where there is nothing to draw.
    pub(in super::super) rungs: Vec<Option<[f64; 3]>>,
}

const HEIGHT: u32 = 290;
const LEFT: u32 = 54;
const BOTTOM: u32 = 40;
const TOP: u32 = 26;

impl Ladders {
    /// The drawing; none if no percentile is above zero.
    pub(in super::super) fn draw(&self) -> Result<Option<String>, DrawError> {
        let all = self.ladders.iter().flat_map(|ladder| ladder.rungs.iter().flatten().flatten());
        let Some(ends) = log_ends(all.copied()) else { return Ok(None) };
        drawing(HEIGHT, |area| {
            let groups = real(self.categories.len());
            let chart = ChartBuilder::on(area)
                .margin_top(TOP)
                .margin_right(6)
                .margin_left(LEFT)
                .margin_bottom(BOTTOM)
                .build_cartesian_2d(0.0..groups, (ends.0..ends.1).log_scale())?;
            area.draw_text(self.y_label, &text(HPos::Left, VPos::Top), (4, 4))?;
            self.draw_in(chart, area, ends)
        })
        .map(Some)
    }

    fn draw_in(
        &self,
        mut chart: ChartContext<
            '_,
            SVGBackend<'_>,
            Cartesian2d<plotters::coord::types::RangedCoordf64, LogCoord<f64>>,
        >,
        area: &super::Area<'_>,
        ends: (f64, f64),
    ) -> Result<(), Failure> {
        let groups = real(self.categories.len());
        for value in log_ticks(ends, f64::from(HEIGHT - TOP - BOTTOM), 16.0) {
            let path = PathElement::new(vec![(0.0, value), (groups, value)], BLACK.mix(0.15));
            chart.draw_series([path])?;
            let (x, y) = chart.backend_coord(&(0.0, value));
            area.draw_text(&tick(&value), &text(HPos::Right, VPos::Center), (x - 6, y))?;
        }
        let slot = 0.7 / real(self.ladders.len().max(1));
        for (place, ladder) in self.ladders.iter().enumerate() {
            let shade = colour(ladder.colour);
            for (group, rungs) in ladder.rungs.iter().enumerate() {
                // A logarithm has no place for zero, and a shorter time than a clock's step is zero.
                let Some([p50, p99, p999]) = rungs
                    .filter(|rungs| rungs.iter().all(|rung| is_drawable(*rung) && *rung > 0.0))
                else {
                    continue;
                };
                let x = real(group) + 0.15 + (real(place) + 0.5) * slot;
                let stem = PathElement::new(vec![(x, p50), (x, p999)], shade.stroke_width(2));
                chart.draw_series([stem])?;
                chart.draw_series([Circle::new((x, p50), 5, shade.filled())])?;
                let (at, y) = chart.backend_coord(&(x, p99));
                area.draw(&PathElement::new(
                    vec![(at - 6, y), (at + 6, y)],
                    shade.stroke_width(3),
                ))?;
                let (at, y) = chart.backend_coord(&(x, p999));
                for sign in [-1, 1] {
                    let stroke = vec![(at - 5, y - 5 * sign), (at + 5, y + 5 * sign)];
                    area.draw(&PathElement::new(stroke, shade.stroke_width(2)))?;
                }
            }
        }
        let width = f64::from(WIDTH - LEFT) / groups.max(1.0);
        for (group, category) in self.categories.iter().enumerate() {
            let (x, y) = chart.backend_coord(&(real(group) + 0.5, ends.0));
            let label = fitted(category, width - 4.0);
            area.draw_text(&label, &text(HPos::Center, VPos::Top), (x, y + 5))?;
        }
        let (x, y) = chart.backend_coord(&(groups / 2.0, ends.0));
        area.draw_text(self.x_label, &text(HPos::Center, VPos::Top), (x, y + 21))
    }
}
