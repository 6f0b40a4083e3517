//! Time for which changes block traffic, beside the control.

use super::super::model::{
    Figure, MarkKind, Place, Row, Run, Section, SummaryRow, Table, mark, numbers, words,
};
use super::super::number::{ABSENT, count, median, mpps, percent, round, short, spread};
use super::super::plot::{Bar, BarRow, Bars, DrawError, Glyph, Scale};
use super::{block, heading, origins, too_many};
use crate::document::{Change, ChangesOutcome, Outcome};

const INTRO: &str = "Packets that were lost while a change was made again and again, over the offered \
    rate: the time for which one change blocks traffic. The control is the same load for the same time \
    without the change: what it loses too is not due to the change. 0 means that not one packet was lost.";

pub(super) fn section(place: &Place<'_>) -> Result<Option<Section>, DrawError> {
    let mut blocks = Vec::new();
    let mut summary = Vec::new();
    for run in &place.runs {
        let Outcome::Changes(changes) = &run.document().outcome else { continue };
        let subject = place.series(*run, &changes.subject);
        let (figures, notes) = figures(changes)?;
        let title = heading(&[
            &subject,
            &changes.traffic,
            &format!("loads are shares of NDR {} Mpps", mpps(changes.ndr_pps)),
        ]);
        summary.extend(changes.changes.iter().map(|change| summarise(&subject, changes, change)));
        let origins = origins(place, [*run]);
        blocks.push(block(title, figures, table(*run, changes), notes, origins));
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    let intro = INTRO.to_owned();
    let title = "Time blocked by changes";
    Ok(Some(Section { id: "changes", title, intro, blocks, summary }))
}

/// Name and load of a change.
fn name(change: &Change) -> String {
    format!("{}, {}", change.name, percent(change.load))
}

/// Time blocked for one change in each run, from the packets that it lost.
#[expect(clippy::cast_precision_loss, reason = "counts of packets, rounded for people")]
fn blocked_us(change: &Change, lost: &[u64]) -> Vec<f64> {
    if change.times == 0 || change.offered_pps <= 0.0 {
        return Vec::new();
    }
    let scale = 1e6 / change.offered_pps / f64::from(change.times);
    lost.iter().map(|lost| *lost as f64 * scale).collect()
}

/// Whether the runs with the change cannot be told from those without it.
fn is_within_control(change: &Change) -> bool {
    let lowest = change.lost.iter().min();
    let highest = change.control_lost.iter().max();
    matches!((lowest, highest), (Some(lowest), Some(highest)) if lowest <= highest)
}

/// A time, unless nothing was measured.
fn time(time_us: f64, lost: &[u64]) -> String {
    if lost.is_empty() { ABSENT.to_owned() } else { short(time_us) }
}

fn table(run: Run<'_>, changes: &ChangesOutcome) -> Table {
    let columns = vec![
        words("change"),
        numbers("load, NDR"),
        numbers("offered, Mpps"),
        numbers("changes a run"),
        numbers("run, s"),
        numbers("blocked, µs a change"),
        numbers("spread, µs"),
        numbers("control, µs"),
        numbers("its spread, µs"),
        words("lost, each run"),
        words("lost, each control"),
        numbers("longest turn, µs"),
        numbers("in control, µs"),
        numbers("swap, µs"),
        numbers("live after, ms"),
    ];
    let row = |change: &Change| {
        let mut cells = vec![change.name.clone(), percent(change.load)];
        if let Some(reason) = &change.skipped {
            cells.resize(columns.len(), ABSENT.to_owned());
            let marks = vec![mark(MarkKind::Skipped, reason.clone())];
            return Row { origin: run.number, cells, marks };
        }
        cells.extend([
            mpps(change.offered_pps),
            count(change.times.into()),
            round(change.duration_s),
            time(change.blocked_us, &change.lost),
            spread_text(&blocked_us(change, &change.lost)),
            time(change.control_blocked_us, &change.control_lost),
            spread_text(&blocked_us(change, &change.control_lost)),
            list(&change.lost),
            list(&change.control_lost),
        ]);
        let told = change.router.unwrap_or_default();
        let live_ms = told.live_us.map(|time_us| time_us / 1e3);
        for time in [told.longest_turn_us, told.control_longest_turn_us, told.swap_us, live_ms] {
            cells.push(time.map_or_else(|| ABSENT.to_owned(), short));
        }
        Row { origin: run.number, cells, marks: marks(change) }
    };
    Table { rows: changes.changes.iter().map(row).collect(), columns }
}

fn marks(change: &Change) -> Vec<super::super::model::Mark> {
    if let Some(reason) = &change.skipped {
        return vec![mark(MarkKind::Skipped, reason.clone())];
    }
    if is_within_control(change) { vec![mark(MarkKind::WithinControl, "")] } else { Vec::new() }
}

fn spread_text(values: &[f64]) -> String {
    spread(values).map_or_else(
        || ABSENT.to_owned(),
        |(low, high)| format!("{} to {}", short(low), short(high)),
    )
}

fn list(values: &[u64]) -> String {
    if values.is_empty() {
        return ABSENT.to_owned();
    }
    values.iter().map(|value| count(*value)).collect::<Vec<_>>().join("; ")
}

fn figures(changes: &ChangesOutcome) -> Result<(Vec<Figure>, Vec<String>), DrawError> {
    let measured: Vec<&Change> = changes
        .changes
        .iter()
        .filter(|change| change.skipped.is_none() && !change.lost.is_empty())
        .collect();
    if measured.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    if let Some(note) = too_many(measured.len() * 2) {
        return Ok((Vec::new(), vec![note]));
    }
    let bar = |change: &Change, time_us: f64, lost: &[u64], is_control: bool| Bar {
        value: if lost.is_empty() { f64::NAN } else { time_us },
        spread: spread(&blocked_us(change, lost)),
        colour: if is_control { 4 } else { 0 },
        is_light: false,
        figure: time(time_us, lost),
    };
    let rows = measured.iter().map(|change| BarRow {
        label: name(change),
        bars: vec![
            bar(change, change.blocked_us, &change.lost, false),
            bar(change, change.control_blocked_us, &change.control_lost, true),
        ],
    });
    let rows: Vec<BarRow> = rows.collect();
    let bars = if are_far_apart(&rows) {
        let x_label = "µs a change, logarithmic (no point: 0)";
        Bars { x_label, rows, scale: Scale::Log }
    } else {
        Bars { x_label: "µs a change", rows, scale: Scale::Linear { end_min: 0.0 } }
    };
    Ok((
        vec![Figure {
            caption:
                "Time blocked in µs for one change, by change and load (share of NDR): median \
                of the runs; whiskers from the lowest to the highest."
                    .to_owned(),
            svg: bars.draw()?,
            legend: vec![
                (Glyph::Solid(0), "with the change".to_owned()),
                (Glyph::Solid(4), "control, without it".to_owned()),
            ],
        }],
        Vec::new(),
    ))
}

/// Whether bars on a linear axis would leave some too short to be seen.
fn are_far_apart(rows: &[BarRow]) -> bool {
    let bars = || rows.iter().flat_map(|row| &row.bars);
    let positive = || bars().map(|bar| bar.value).filter(|value| value.is_finite() && *value > 0.0);
    let highest = positive().fold(0.0, f64::max);
    positive().any(|value| value * 50.0 < highest)
}

fn summarise(subject: &str, changes: &ChangesOutcome, change: &Change) -> SummaryRow {
    let result = if change.skipped.is_some() || median(&[change.blocked_us]).is_none() {
        "no result".to_owned()
    } else {
        let control = time(change.control_blocked_us, &change.control_lost);
        format!("{} µs a change; control {control} µs", time(change.blocked_us, &change.lost))
    };
    SummaryRow {
        what: "blocked",
        conditions: heading(&[subject, &changes.traffic, "loads are shares of NDR"]),
        subject: name(change),
        result,
        marks: marks(change),
    }
}
