//! Upright bars side by side: one group for each category, one bar for each series.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};

use super::{
    DrawError, LIGHT, TEXT_SIZE, WIDTH, axis_end, colour, drawable, drawing, fitted, is_drawable,
    real, sized_text, text, tick,
};

/// A drawing of upright bars.
pub(in super::super) struct Columns {
    /// What the categories are.
    pub(in super::super) x_label: &'static str,
    /// What the height is, with its unit.
    pub(in super::super) y_label: &'static str,
    pub(in super::super) categories: Vec<String>,
    pub(in super::super) series: Vec<ColumnSeries>,
}

/// The bars of one series.
pub(in super::super) struct ColumnSeries {
    pub(in super::super) colour: usize,
    pub(in super::super) is_light: bool,
    /// One for each category; absent where there is nothing to draw.
    pub(in super::super) points: Vec<Option<ColumnPoint>>,
}

/// One bar.
#[derive(Clone, Copy)]
pub(in super::super) struct ColumnPoint {
    pub(in super::super) value: f64,
    /// Ends of the whisker.
    pub(in super::super) spread: Option<(f64, f64)>,
    /// A character above the bar, which is then not filled: something about it needs a word.
    pub(in super::super) sign: Option<char>,
}

const HEIGHT: u32 = 270;
/// Room on the left for ticks, at the bottom for categories.
const LEFT: u32 = 46;
const BOTTOM: u32 = 40;

impl Columns {
    pub(in super::super) fn draw(&self) -> Result<String, DrawError> {
        drawing(HEIGHT, |area| {
            let all = || self.series.iter().flat_map(|series| series.points.iter().flatten());
            let end = axis_end(all().flat_map(|point| {
                [point.value, point.spread.map_or(point.value, |(_, high)| high)]
            }));
            let groups = real(self.categories.len());
            let mut chart = ChartBuilder::on(area)
                .margin_top(26)
                .margin_right(6)
                .margin_bottom(BOTTOM)
                .set_label_area_size(LabelAreaPosition::Left, LEFT)
                .build_cartesian_2d(0.0..groups, 0.0..end * 1.04)?;
            chart
                .configure_mesh()
                .disable_x_mesh()
                .disable_x_axis()
                .y_labels(10)
                .y_max_light_lines(0)
                .bold_line_style(BLACK.mix(0.15))
                .y_label_formatter(&tick)
                .label_style(text(HPos::Right, VPos::Center))
                .draw()?;
            area.draw_text(self.y_label, &text(HPos::Left, VPos::Top), (4, 4))?;

            let slot = 0.8 / real(self.series.len().max(1));
            let width = f64::from(WIDTH - LEFT) / groups.max(1.0);
            // A sign that is as high as it is wide, as some fonts have them, keeps to its bar.
            let sign_size = TEXT_SIZE.min(slot * width * TEXT_SIZE / 12.0);
            for (place, series) in self.series.iter().enumerate() {
                let shade = colour(series.colour).mix(if series.is_light { LIGHT } else { 1.0 });
                for (group, point) in series.points.iter().enumerate() {
                    let Some(point) = point.filter(|point| is_drawable(point.value)) else {
                        continue;
                    };
                    let left = real(group) + 0.1 + real(place) * slot;
                    let corners = [(left + slot * 0.08, 0.0), (left + slot * 0.92, point.value)];
                    if point.sign.is_none() {
                        chart.draw_series([Rectangle::new(corners, shade.filled())])?;
                    }
                    let edge = colour(series.colour).stroke_width(1);
                    chart.draw_series([Rectangle::new(corners, edge)])?;
                    let middle = left + slot / 2.0;
                    let mut top = point.value;
                    if let Some((low, high)) = drawable(point.spread) {
                        top = top.max(high);
                        let arm = slot * 0.2;
                        let strokes = [
                            vec![(middle, low), (middle, high)],
                            vec![(middle - arm, low), (middle + arm, low)],
                            vec![(middle - arm, high), (middle + arm, high)],
                        ];
                        chart.draw_series(
                            strokes.into_iter().map(|stroke| PathElement::new(stroke, BLACK)),
                        )?;
                    }
                    if let Some(sign) = point.sign {
                        let (x, y) = chart.backend_coord(&(middle, top));
                        let style = sized_text(sign_size, HPos::Center, VPos::Bottom);
                        area.draw_text(&sign.to_string(), &style, (x, y - 2))?;
                    }
                }
            }

            for (group, category) in self.categories.iter().enumerate() {
                let (x, y) = chart.backend_coord(&(real(group) + 0.5, 0.0));
                let label = fitted(category, width - 4.0);
                area.draw_text(&label, &text(HPos::Center, VPos::Top), (x, y + 5))?;
            }
            let (x, y) = chart.backend_coord(&(groups / 2.0, 0.0));
            area.draw_text(self.x_label, &text(HPos::Center, VPos::Top), (x, y + 21))
        })
    }
}
