//! Latency by load, from searches.

use super::super::model::{
    Figure, Place, Row, Run, Section, SummaryRow, Table, group_by, numbers, words,
};
use super::super::number::{ABSENT, count, median, mpps, short, us, us_difference};
use super::super::plot::{DrawError, Glyph, Ladder, Ladders, SERIES_MAX};
use super::{block, heading, is_void, origins, placement, searches, too_many, trial_marks};
use crate::document::{Latency, LatencyAt, SearchOutcome};

type Search<'a> = (Run<'a>, &'a SearchOutcome);

const INTRO: &str = "Latency from the generator to the sink, both timed by one clock, at loads that are \
    shares of NDR; one way or a round trip, as the traffic says. The part of the way that the device under test is not on is in it: \u{201c}over \
    idle\u{201d} is what the load adds.";

pub(super) fn section(place: &Place<'_>) -> Result<Option<Section>, DrawError> {
    let searches = searches(place);
    let timed = searches.iter().filter(|(_, search)| !search.latency.is_empty());
    let groups = group_by(timed.map(|(run, s)| ((s.traffic.clone(), placement(s)), (*run, *s))));
    if groups.is_empty() {
        return Ok(None);
    }
    let mut blocks = Vec::new();
    let mut summary = Vec::new();
    for ((traffic, placement), searches) in groups {
        let (figures, notes) = figures(place, &searches)?;
        let origins = origins(place, searches.iter().map(|(run, _)| *run));
        let title = heading(&[&traffic, &placement]);
        summary.extend(summarise(place, &title, &searches));
        blocks.push(block(title, figures, table(place, &searches), notes, origins));
    }
    let intro = INTRO.to_owned();
    Ok(Some(Section { id: "latency", title: "Latency by load", intro, blocks, summary }))
}

fn table(place: &Place<'_>, searches: &[Search<'_>]) -> Table {
    let columns = vec![
        words("subject"),
        words("load"),
        numbers("rate, Mpps"),
        numbers("packets"),
        numbers("min, µs"),
        numbers("p50, µs"),
        numbers("p99, µs"),
        numbers("p99.9, µs"),
        numbers("max, µs"),
        numbers("p50 over idle, µs"),
        numbers("p99 over idle, µs"),
    ];
    let row = |(run, search): &Search<'_>, at: &LatencyAt| Row {
        origin: run.number,
        cells: vec![
            place.series(*run, &search.subject),
            at.load.clone(),
            mpps(at.rate_pps),
            count(at.latency.count),
            time(at, at.latency.min_ns),
            time(at, at.latency.p50_ns),
            time(at, at.latency.p99_ns),
            time(at, at.latency.p999_ns),
            time(at, at.latency.max_ns),
            us_difference(at.p50_over_idle_ns),
            us_difference(at.p99_over_idle_ns),
        ],
        marks: trial_marks(search).into_iter().filter(|_| is_void(search)).collect(),
    };
    let rows = searches.iter().flat_map(|search| search.1.latency.iter().map(|at| row(search, at)));
    Table { columns, rows: rows.collect() }
}

/// A time of a distribution; absent if no packet was timed.
fn time(at: &LatencyAt, time_ns: u64) -> String {
    if at.latency.count == 0 { ABSENT.to_owned() } else { us(time_ns) }
}

fn figures(
    place: &Place<'_>,
    searches: &[Search<'_>],
) -> Result<(Vec<Figure>, Vec<String>), DrawError> {
    let valid: Vec<_> = searches.iter().filter(|(_, search)| !is_void(search)).collect();
    let mut categories: Vec<String> = Vec::new();
    for at in valid.iter().flat_map(|(_, search)| &search.latency) {
        if !categories.contains(&at.load) {
            categories.push(at.load.clone());
        }
    }
    let subjects = group_by(valid.iter().map(|(run, s)| (place.series(*run, &s.subject), *s)));
    let mut figures = Vec::new();
    for part in subjects.chunks(SERIES_MAX) {
        let mut ladders = Vec::new();
        let mut legend = Vec::new();
        for (colour, (subject, runs)) in part.iter().enumerate() {
            legend.push((Glyph::Solid(colour), subject.clone()));
            ladders.extend(runs.iter().map(|search| Ladder {
                colour,
                rungs: categories.iter().map(|load| rungs(search, load)).collect(),
            }));
        }
        if let Some(note) = too_many(ladders.len() * categories.len()) {
            return Ok((Vec::new(), vec![note]));
        }
        legend.extend([
            (Glyph::Circle, "p50".to_owned()),
            (Glyph::Bar, "p99".to_owned()),
            (Glyph::Cross, "p99.9".to_owned()),
        ]);
        let ladders = Ladders {
            x_label: "load (share of NDR)",
            y_label: "µs, logarithmic",
            categories: categories.clone(),
            ladders,
        };
        if let Some(svg) = ladders.draw()? {
            let caption = "Latency in µs (logarithmic) by load; a line for each run.";
            figures.push(Figure { caption: caption.to_owned(), svg, legend });
        }
    }
    Ok((figures, Vec::new()))
}

#[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns")]
fn rungs(search: &SearchOutcome, load: &str) -> Option<[f64; 3]> {
    let at = search.latency.iter().find(|at| at.load == load && at.latency.count > 0)?;
    let times = [at.latency.p50_ns, at.latency.p99_ns, at.latency.p999_ns];
    Some(times.map(|ns| ns as f64 / 1e3))
}

/// A line for each subject and load, the median of its runs.
fn summarise(place: &Place<'_>, conditions: &str, searches: &[Search<'_>]) -> Vec<SummaryRow> {
    let valid = searches.iter().filter(|(_, search)| !is_void(search));
    let all = valid.flat_map(|(run, search)| {
        let subject = place.series(*run, &search.subject);
        let timed = search.latency.iter().filter(|at| at.latency.count > 0);
        timed.map(move |at| (format!("{subject}, {}", at.load), at.latency))
    });
    let line = |(subject, runs): (String, Vec<Latency>)| {
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 ns")]
        let middle = |of: fn(&Latency) -> u64| {
            let times: Vec<f64> = runs.iter().map(|latency| of(latency) as f64 / 1e3).collect();
            median(&times).map_or_else(|| ABSENT.to_owned(), short)
        };
        let (p50, p99, p999) = (middle(|l| l.p50_ns), middle(|l| l.p99_ns), middle(|l| l.p999_ns));
        let runs = match runs.len() {
            1 => String::new(),
            runs => format!(" (medians of {runs} runs)"),
        };
        SummaryRow {
            what: "latency",
            conditions: conditions.to_owned(),
            subject,
            result: format!("p50 {p50} µs, p99 {p99} µs, p99.9 {p999} µs{runs}"),
            marks: Vec::new(),
        }
    };
    group_by(all).into_iter().map(line).collect()
}
