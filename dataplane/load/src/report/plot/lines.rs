//! Lines over time.

use plotters::prelude::*;
use plotters::series::DashedLineSeries;
use plotters::style::text_anchor::{HPos, VPos};

use super::{DrawError, axis_end, colour, drawing, is_drawable, text, tick};

/// A drawing of lines over time.
pub(in super::super) struct Lines {
    pub(in super::super) x_label: &'static str,
    pub(in super::super) y_label: &'static str,
    pub(in super::super) lines: Vec<Line>,
}

/// One line.
pub(in super::super) struct Line {
    pub(in super::super) colour: usize,
    pub(in super::super) is_dashed: bool,
    pub(in super::super) points: Vec<(f64, f64)>,
}

impl Lines {
    pub(in super::super) fn draw(&self) -> Result<String, DrawError> {
        drawing(220, |area| {
            let points = || {
                let all = self.lines.iter().flat_map(|line| &line.points);
                all.filter(|(x, y)| is_drawable(*x) && is_drawable(*y))
            };
            let (end_x, end_y) = (axis_end(points().map(|p| p.0)), axis_end(points().map(|p| p.1)));
            let mut chart = ChartBuilder::on(area)
                .margin_top(26)
                .margin_right(6)
                .margin_bottom(18)
                .set_label_area_size(LabelAreaPosition::Left, 46)
                .set_label_area_size(LabelAreaPosition::Bottom, 22)
                .build_cartesian_2d(0.0..end_x / 1.08, 0.0..end_y)?;
            chart
                .configure_mesh()
                .y_labels(5)
                .x_labels(6)
                .max_light_lines(0)
                .bold_line_style(BLACK.mix(0.15))
                .x_label_formatter(&tick)
                .y_label_formatter(&tick)
                .x_label_style(text(HPos::Center, VPos::Top))
                .y_label_style(text(HPos::Right, VPos::Center))
                .draw()?;
            area.draw_text(self.y_label, &text(HPos::Left, VPos::Top), (4, 4))?;
            let (x, _) = chart.backend_coord(&(end_x / 2.16, 0.0));
            area.draw_text(self.x_label, &text(HPos::Center, VPos::Top), (x, 203))?;
            for line in &self.lines {
                let finite =
                    || line.points.iter().copied().filter(|p| is_drawable(p.0) && is_drawable(p.1));
                let style = colour(line.colour).stroke_width(2);
                if line.is_dashed {
                    chart.draw_series(DashedLineSeries::new(finite(), 6, 4, style))?;
                } else {
                    chart.draw_series([PathElement::new(finite().collect::<Vec<_>>(), style)])?;
                }
            }
            Ok(())
        })
    }
}
