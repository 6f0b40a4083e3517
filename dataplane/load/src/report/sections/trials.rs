//! Single runs at one rate.

use super::super::model::{
    Block, Figure, Place, Row, Run, Section, SummaryRow, Table, numbers, words,
};
use super::super::number::{ABSENT, count, mpps, us};
use super::super::plot::{DrawError, Glyph, Line, Lines};
use super::origins;
use super::throughput::{one_trial_marks, trial_cells, trial_table};
use crate::document::{Outcome, Trial, TrialOutcome};

const INTRO: &str = "Each run offers one rate for one time. Reordered packets are those that arrived \
    after one that was sent later (RFC 4737); refused ones bear a tag that is not of the run.";

pub(super) fn section(place: &Place<'_>) -> Result<Option<Section>, DrawError> {
    let mut blocks = Vec::new();
    let mut summary = Vec::new();
    for run in &place.runs {
        let Outcome::Trial(trial) = &run.document().outcome else { continue };
        summary.push(summarise(*run, trial));
        blocks.push(one(place, *run, trial)?);
    }
    if blocks.is_empty() {
        return Ok(None);
    }
    let intro = INTRO.to_owned();
    Ok(Some(Section { id: "trials", title: "Single runs", intro, blocks, summary }))
}

fn one(place: &Place<'_>, run: Run<'_>, outcome: &TrialOutcome) -> Result<Block, DrawError> {
    let mut table = trial_table(run.number, std::slice::from_ref(&outcome.trial));
    table.columns.extend([
        numbers("p50, µs"),
        numbers("p99, µs"),
        numbers("p99.9, µs"),
        numbers("max, µs"),
    ]);
    let latency = outcome.trial.latency.filter(|latency| latency.count > 0);
    let times = latency.map_or_else(
        || vec![ABSENT.to_owned(); 4],
        |l| [l.p50_ns, l.p99_ns, l.p999_ns, l.max_ns].map(us).to_vec(),
    );
    for row in &mut table.rows {
        row.cells.extend(times.iter().cloned());
    }
    debug_assert!(table.rows.iter().all(|row| row.cells.len() == table.columns.len()));
    let is_void = !outcome.trial.void.is_empty();
    let whole = intervals(outcome).filter(|length_s| *length_s > WHOLE_S).count();
    let figures = if is_void || whole < 2 { Vec::new() } else { vec![figure(outcome)?] };
    let details = if outcome.seconds.is_empty() {
        Vec::new()
    } else {
        vec![(format!("[{}] second by second", run.number), seconds(run, outcome))]
    };
    let title = format!("{}; {}", run.document().title, outcome.traffic);
    let origins = origins(place, [run]);
    Ok(Block { title, figures, table, notes: late(&outcome.trial), origins, details })
}

/// What a generator that was held up means for the numbers, from a millisecond on.
fn late(trial: &Trial) -> Vec<String> {
    let late_ns = trial.late_max_ns.filter(|late_ns| *late_ns >= 1_000_000);
    late_ns
        .map(|late_ns| {
            format!(
                "Packets were sent up to {} µs after they were due. Latency counts from when they were \
                 sent.",
                us(late_ns)
            )
        })
        .into_iter()
        .collect()
}

/// An interval that is shorter is the rest of a run, not one of its seconds.
const WHOLE_S: f64 = 0.9;

/// Length of each interval: since the end of the one before.
fn intervals(outcome: &TrialOutcome) -> impl Iterator<Item = f64> {
    let starts = std::iter::once(0.0).chain(outcome.seconds.iter().map(|second| second.at_s));
    outcome.seconds.iter().zip(starts).map(|(second, start)| second.at_s - start)
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets, rounded for people")]
fn figure(outcome: &TrialOutcome) -> Result<Figure, DrawError> {
    let line = |colour, is_dashed, of: fn(&crate::document::Second) -> u64| Line {
        colour,
        is_dashed,
        points: outcome
            .seconds
            .iter()
            .zip(intervals(outcome))
            // What is left behind the last whole second holds the wait for stragglers as well.
            .filter(|(_, length_s)| *length_s > WHOLE_S)
            .map(|(second, length_s)| (second.at_s, of(second) as f64 / length_s / 1e6))
            .collect(),
    };
    let lines = vec![line(0, false, |second| second.sent), line(1, true, |second| second.received)];
    let svg = Lines { x_label: "s since the start", y_label: "Mpps", lines }.draw()?;
    let legend =
        vec![(Glyph::Line(0), "sent".to_owned()), (Glyph::Dashes(1), "received".to_owned())];
    let caption = "Packets sent and received, in Mpps, in each whole second.".to_owned();
    Ok(Figure { caption, svg, legend })
}

fn seconds(run: Run<'_>, outcome: &TrialOutcome) -> Table {
    let columns = vec![words("end, s"), numbers("sent"), numbers("received")];
    let rows = outcome.seconds.iter().map(|second| Row {
        origin: run.number,
        cells: vec![
            super::super::number::figure(second.at_s),
            count(second.sent),
            count(second.received),
        ],
        marks: Vec::new(),
    });
    Table { columns, rows: rows.collect() }
}

fn summarise(run: Run<'_>, outcome: &TrialOutcome) -> SummaryRow {
    let trial = &outcome.trial;
    let loss = trial_cells(trial).get(5).cloned().unwrap_or_default();
    let result = if trial.void.is_empty() {
        let mut text = format!("received {} Mpps, loss {loss}", mpps(trial.received_pps()));
        if let Some(latency) = trial.latency.filter(|latency| latency.count > 0) {
            text += &format!(", p99 {} µs", us(latency.p99_ns));
        }
        text
    } else {
        "no result".to_owned()
    };
    let asked = trial.asked_pps.map_or_else(
        || "as fast as it goes".to_owned(),
        |rate| format!("asked for {} Mpps", mpps(rate)),
    );
    SummaryRow {
        what: "single run",
        conditions: outcome.traffic.clone(),
        subject: super::heading(&[&run.document().title, &asked]),
        result,
        marks: one_trial_marks(trial),
    }
}
