//! Drawings as inline SVG: axes and shapes by `plotters`, in colours that hold on light and dark.
//!
//! Lines and text are drawn black, which the page's style sheet turns into its own text colour; series
//! have colours with a contrast of at least 3:1 on both grounds, and differ in shape or shade as well.
//! Drawings are narrow, so that their text stays readable when a phone shrinks them.

mod bars;
mod columns;
mod ladders;
mod lines;

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(super) use bars::{Bar, BarRow, Bars, Scale};
pub(super) use columns::{ColumnPoint, ColumnSeries, Columns};
pub(super) use ladders::{Ladder, Ladders};
pub(super) use lines::{Line, Lines};

/// Width of every drawing in pixels of its own coordinates.
const WIDTH: u32 = 480;

/// Size that makes `plotters` write 12 pixels.
const TEXT_SIZE: f64 = 12.0 * 1.24;

/// Pixels a character takes on average at [`TEXT_SIZE`], on the safe side.
const CHARACTER: f64 = 6.7;

/// More bars, points or series than this are not drawn: nobody could read them, and the table has
/// them all.
pub(super) const ITEMS_MAX: usize = 60;

/// A drawing that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("a figure could not be drawn: {0}")]
pub struct DrawError(String);

type Failure = DrawingAreaErrorKind<io::Error>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Blue, vermilion, green, purple, grey, brown: told apart with any colour vision.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x8F, 0x68),
    RGBColor(0xB0, 0x56, 0x9A),
    RGBColor(0x76, 0x76, 0x76),
    RGBColor(0x9A, 0x6A, 0x00),
];

/// Series that one drawing can tell apart.
pub(super) const SERIES_MAX: usize = COLOURS.len();

fn colour(series: usize) -> RGBColor {
    COLOURS.get(series % COLOURS.len()).copied().unwrap_or(BLACK)
}

/// Opacity of the second shade of a colour.
const LIGHT: f64 = 0.45;

/// What stands for a series in a legend.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Glyph {
    /// A filled box in a series' colour.
    Solid(usize),
    /// The same in the second shade.
    Light(usize),
    /// A line in a series' colour.
    Line(usize),
    /// A broken line in a series' colour.
    Dashes(usize),
    /// A character that is drawn.
    Text(char),
    /// Points of [`Ladders`]: median, 99th, 99.9th percentile.
    Circle,
    /// The 99th percentile.
    Bar,
    /// The 99.9th percentile.
    Cross,
}

impl Glyph {
    /// A colour as the page writes it.
    pub(super) fn css_colour(series: usize) -> String {
        let RGBColor(red, green, blue) = colour(series);
        format!("#{red:02X}{green:02X}{blue:02X}")
    }

    /// Opacity of [`Glyph::Light`].
    pub(super) fn light() -> f64 {
        LIGHT
    }
}

/// Runs `draw` on an empty drawing of the given height.
fn drawing(
    height: u32,
    draw: impl FnOnce(&Area<'_>) -> Result<(), Failure>,
) -> Result<String, DrawError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        draw(&area)
            .and_then(|()| area.present())
            .map_err(|failure| DrawError(failure.to_string()))?;
    }
    Ok(svg)
}

fn text(horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    sized_text(TEXT_SIZE, horizontal, vertical)
}

fn sized_text(size: f64, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(horizontal, vertical))
}

/// Shortens words to what fits in `width` pixels; the table has them whole.
fn fitted(words: &str, width: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, positive")]
    let characters_max = (width / CHARACTER).max(1.0) as usize;
    let clean: String = words.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if clean.chars().count() <= characters_max {
        return clean;
    }
    // Names that begin alike tend to differ at the end: most of what is kept is the end.
    let head = characters_max.saturating_sub(1) * 2 / 5;
    let tail = characters_max.saturating_sub(1) - head;
    let skipped = clean.chars().count() - tail;
    let mut cut: String = clean.chars().take(head).collect();
    cut.push('…');
    cut.extend(clean.chars().skip(skipped));
    cut
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn real(count: usize) -> f64 {
    count as f64
}

/// Whether a value can be drawn. Beyond these bounds (in Mpps, µs or clocks) a number is a mistake, and
/// the arithmetic of ticks gets lost in it; the tables show it all the same.
fn is_drawable(value: f64) -> bool {
    value == 0.0 || (1e-6..=1e12).contains(&value)
}

/// A whisker that can be drawn.
fn drawable(spread: Option<(f64, f64)>) -> Option<(f64, f64)> {
    spread.filter(|(low, high)| is_drawable(*low) && is_drawable(*high))
}

/// The end of an axis from 0 that holds all finite values, with some air.
fn axis_end(values: impl Iterator<Item = f64>) -> f64 {
    let highest = values.filter(|value| is_drawable(*value)).fold(0.0, f64::max);
    if highest > 0.0 { highest * 1.08 } else { 1.0 }
}

/// A tick of a linear axis.
fn tick(value: &f64) -> String {
    // A step of 0.1 adds up to 0.30000000000000004.
    let rounded = (value * 1e6).round() / 1e6;
    rounded.to_string()
}

/// The ends of a logarithmic axis that holds all positive values: 1, 2 or 5 times a power of ten.
fn log_ends(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let (low, high) = values
        .filter(|value| is_drawable(*value) && *value > 0.0)
        .fold((f64::INFINITY, 0.0f64), |(low, high), value| (low.min(value), high.max(value)));
    (low <= high).then(|| {
        let below = |value: f64| {
            let decade = 10f64.powf(value.log10().floor());
            [5.0, 2.0].into_iter().map(|m| m * decade).find(|e| *e < value).unwrap_or(decade)
        };
        let above = |value: f64| {
            let decade = 10f64.powf(value.log10().floor());
            [2.0, 5.0, 10.0].into_iter().map(|m| m * decade).find(|e| *e > value)
        };
        (below(low * 0.95), above(high * 1.05).unwrap_or(high * 2.0))
    })
}

/// The ticks of a logarithmic axis of `length` pixels that are at least `gap` pixels apart: 1, 2 and 5
/// times the powers of ten, or the powers alone, or some of them.
fn log_ticks((low, high): (f64, f64), length: f64, gap: f64) -> Vec<f64> {
    let decade = length / (high / low).log10().max(0.1);
    let steps: &[f64] = if decade * 2f64.log10() < gap { &[1.0] } else { &[1.0, 2.0, 5.0] };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "below 400")]
    let (decades, stride) = (
        (low.log10().floor() as i32)..=(high.log10().ceil() as i32),
        (gap / decade).ceil().max(1.0) as usize,
    );
    decades
        .step_by(stride)
        .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
        .filter(|tick| *tick >= low * 0.999 && *tick <= high * 1.001)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_keep_their_distance() {
        assert_eq!(log_ticks((0.5, 2.0), 200.0, 30.0), [0.5, 1.0, 2.0]);
        assert_eq!(log_ticks((0.5, 200.0), 200.0, 30.0), [1.0, 10.0, 100.0]);
        // 10 pixels a decade: every third one.
        assert_eq!(log_ticks((1e-6, 1e6), 120.0, 29.0).len(), 5);
    }

    #[test]
    fn names_are_cut_in_the_middle() {
        assert_eq!(fitted("short", 100.0), "short");
        let cut = fitted("configuration reload, 1 million routes, 50 %", 150.0);
        assert_eq!(cut.chars().count(), 22, "{cut}");
        assert!(cut.starts_with("configur…") && cut.ends_with("routes, 50 %"), "{cut}");
    }
}
