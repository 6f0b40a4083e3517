//! Lying bars, or points on a logarithmic axis: a line each, its name on the left and its number on
//! the right, so that neither covers anything.

use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{
    Area, CHARACTER, DrawError, Failure, LIGHT, WIDTH, axis_end, colour, drawable, drawing, fitted,
    is_drawable, log_ends, log_ticks, real, text, tick,
};

/// A drawing of lying bars.
pub(in super::super) struct Bars {
    /// What the length is, with its unit.
    pub(in super::super) x_label: &'static str,
    pub(in super::super) rows: Vec<BarRow>,
    pub(in super::super) scale: Scale,
}

/// How lengths are drawn.
#[derive(Clone, Copy, PartialEq)]
pub(in super::super) enum Scale {
    /// Bars from 0, to at least this end (so that drawings beside each other share a scale).
    Linear { end_min: f64 },
    /// Points on a logarithmic axis; zero has no place on it, and only its number is there. A whisker
    /// that begins at zero begins at the axis' end.
    Log,
    /// The same around a line at 1. For ratios: a half is as far from 1 as twice.
    Ratio,
}

/// One line; its bars lie below each other.
pub(in super::super) struct BarRow {
    pub(in super::super) label: String,
    pub(in super::super) bars: Vec<Bar>,
}

/// One bar.
pub(in super::super) struct Bar {
    pub(in super::super) value: f64,
    /// Ends of the whisker.
    pub(in super::super) spread: Option<(f64, f64)>,
    pub(in super::super) colour: usize,
    pub(in super::super) is_light: bool,
    /// The number as text.
    pub(in super::super) figure: String,
}

/// Height of a bar and of the gap between rows.
const BAR: u32 = 15;
const GAP: u32 = 7;
/// Above the rows the axis' name, below them the ticks.
const TOP: u32 = 24;
const BOTTOM: u32 = 24;
/// Most that names may take of the width.
const LABEL_MAX: f64 = 205.0;

impl Bars {
    pub(in super::super) fn draw(&self) -> Result<String, DrawError> {
        let lines: usize = self.rows.iter().map(|row| row.bars.len().max(1)).sum();
        let height = TOP
            + BOTTOM
            + u32::try_from(lines).unwrap_or(u32::MAX / 64) * BAR
            + u32::try_from(self.rows.len()).unwrap_or(u32::MAX / 64) * GAP;
        drawing(height, |area| match self.scale {
            Scale::Linear { end_min } => {
                let end = axis_end(self.extents().chain([end_min / 1.08]));
                self.on_axis(area, 0.0..end, f64::from(height - TOP - BOTTOM), None)
            }
            Scale::Log | Scale::Ratio => {
                let around_1 = [0.6, 1.7].into_iter().filter(|_| self.scale == Scale::Ratio);
                let ends = log_ends(self.extents().chain(around_1)).unwrap_or((0.5, 2.0));
                let axis = (ends.0..ends.1).log_scale();
                self.on_axis(area, axis, f64::from(height - TOP - BOTTOM), Some(ends))
            }
        })
    }

    fn extents(&self) -> impl Iterator<Item = f64> {
        self.rows.iter().flat_map(|row| &row.bars).flat_map(|bar| {
            let (low, high) = bar.spread.unwrap_or((bar.value, bar.value));
            [low, bar.value, high]
        })
    }

    /// Widths of the names on the left and of the numbers on the right.
    fn sides(&self) -> (f64, f64) {
        let longest = |texts: &mut dyn Iterator<Item = usize>| real(texts.max().unwrap_or(0));
        let names = longest(&mut self.rows.iter().map(|row| row.label.chars().count()));
        let figures = longest(
            &mut self.rows.iter().flat_map(|row| &row.bars).map(|bar| bar.figure.chars().count()),
        );
        // A point at the axis' end reaches beyond it.
        ((names * CHARACTER).min(LABEL_MAX) + 8.0, figures * CHARACTER + 14.0)
    }

    fn on_axis<X>(
        &self,
        area: &Area<'_>,
        axis: X,
        height: f64,
        log: Option<(f64, f64)>,
    ) -> Result<(), Failure>
    where
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let (left_px, right_px) = self.sides();
        #[expect(clippy::cast_possible_truncation, reason = "below the width")]
        let (left, right) = (left_px as i32, right_px as i32);
        let mut chart = ChartBuilder::on(area)
            .margin_left(left)
            .margin_right(right)
            .margin_top(TOP)
            .set_label_area_size(LabelAreaPosition::Bottom, BOTTOM)
            // Pixels from the top, so that bars are equally thick in every drawing.
            .build_cartesian_2d(axis, height..0.0)?;
        let below = text(HPos::Center, VPos::Top);
        if let Some(ends) = log {
            for value in log_ticks(ends, f64::from(WIDTH) - left_px - right_px, 6.0 * CHARACTER) {
                let is_reference = self.scale == Scale::Ratio && (value - 1.0).abs() < 1e-9;
                let line = if is_reference { BLACK.mix(0.9) } else { BLACK.mix(0.15) };
                let path = PathElement::new(vec![(value, 0.0), (value, height)], line);
                chart.draw_series([path])?;
                let (x, y) = chart.backend_coord(&(value, height));
                area.draw_text(&tick(&value), &below, (x, y + 5))?;
            }
        } else {
            chart
                .configure_mesh()
                .disable_y_mesh()
                .disable_y_axis()
                .x_labels(5)
                .x_max_light_lines(0)
                .bold_line_style(BLACK.mix(0.15))
                .x_label_formatter(&tick)
                .label_style(below)
                .draw()?;
        }
        area.draw_text(self.x_label, &text(HPos::Left, VPos::Top), (left, 4))?;

        let edge = i32::try_from(WIDTH).unwrap_or(i32::MAX);
        let mut y = f64::from(GAP) / 2.0;
        for row in &self.rows {
            let thick = f64::from(BAR) * real(row.bars.len().max(1));
            let middle = pixel(y + thick / 2.0);
            let name = fitted(&row.label, LABEL_MAX);
            area.draw_text(&name, &text(HPos::Right, VPos::Center), (left - 6, middle))?;
            for bar in &row.bars {
                let centre = y + f64::from(BAR) / 2.0;
                if is_drawable(bar.value) {
                    let shade = colour(bar.colour).mix(if bar.is_light { LIGHT } else { 1.0 });
                    // A logarithm has no place for zero.
                    if log.is_some() {
                        let point = Circle::new((bar.value, centre), 5, shade.filled());
                        chart.draw_series((bar.value > 0.0).then_some(point))?;
                    } else {
                        let corners = [(0.0, y + 1.5), (bar.value, y + f64::from(BAR) - 1.5)];
                        chart.draw_series([Rectangle::new(corners, shade.filled())])?;
                    }
                    let spread =
                        drawable(bar.spread).filter(|(_, high)| log.is_none() || *high > 0.0);
                    if let Some((low, high)) = spread {
                        let is_open = log.is_some() && low == 0.0;
                        let low = log.map_or(low, |(axis_low, _)| low.max(axis_low));
                        let mut strokes = vec![
                            vec![(low, centre), (high, centre)],
                            vec![(high, centre - 3.0), (high, centre + 3.0)],
                        ];
                        if !is_open {
                            strokes.push(vec![(low, centre - 3.0), (low, centre + 3.0)]);
                        }
                        chart.draw_series(
                            strokes.into_iter().map(|stroke| PathElement::new(stroke, BLACK)),
                        )?;
                    }
                }
                let at = (edge - 3, pixel(centre));
                area.draw_text(&bar.figure, &text(HPos::Right, VPos::Center), at)?;
                y += f64::from(BAR);
            }
            y += f64::from(GAP);
        }
        Ok(())
    }
}

/// The vertical position in the whole drawing.
#[expect(clippy::cast_possible_truncation, reason = "within the drawing")]
fn pixel(y: f64) -> i32 {
    (f64::from(TOP) + y).round() as i32
}
