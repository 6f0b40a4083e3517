//! Throughput by frame size, from searches.

use super::super::model::{
    Block, Figure, Mark, MarkKind, Place, Row, Run, Section, SummaryRow, Table, group_by, mark,
    numbers, words,
};
use super::super::number::{ABSENT, count, median, mpps, mpps_or_absent, percent, round, spread};
use super::super::plot::{ColumnPoint, ColumnSeries, Columns, DrawError, Glyph, SERIES_MAX};
use super::{
    REFERENCE, heading, is_void, origins, placement, searches, too_many, traffic_family,
    trial_marks,
};
use crate::document::{Bound, SearchOutcome, Trial};

type Search<'a> = (Run<'a>, &'a SearchOutcome);

const INTRO: &str = "The highest rate with no loss (NDR) and with at most the stated loss (PDR), found \
    by a search of trials (MLRsearch). A result is an interval: the lower bound is the highest rate \
    that met the goal, the upper bound the lowest one that did not. Rates count the packets of all \
    directions together.";

pub(super) fn section(place: &Place<'_>) -> Result<Option<Section>, DrawError> {
    let mut searches = searches(place);
    if searches.is_empty() {
        return Ok(None);
    }
    // Sizes within a subject, mixes last.
    searches.sort_by_key(|(_, s)| {
        (s.subject != REFERENCE, &s.subject, s.frame_bytes.unwrap_or(u32::MAX))
    });
    let families =
        group_by(searches.iter().map(|(run, s)| ((traffic_family(s), placement(s)), (*run, *s))));
    let mut blocks = Vec::new();
    let mut summary = Vec::new();
    for ((traffic, placement), searches) in families {
        summary.extend(summarise(place, &traffic, &placement, &searches));
        blocks.push(family(place, heading(&[&traffic, &placement]), &searches)?);
    }
    let title = "Throughput by frame size";
    Ok(Some(Section { id: "throughput", title, intro: INTRO.to_owned(), blocks, summary }))
}

/// Frame size as a category.
fn size(search: &SearchOutcome) -> String {
    search.frame_bytes.map_or_else(|| "mix".to_owned(), |bytes| bytes.to_string())
}

/// A bound as an interval in Mpps; one-sided if a side is absent.
pub(super) fn interval(bound: &Bound) -> String {
    let finite = |rate: Option<f64>| rate.filter(|rate| rate.is_finite());
    match (finite(bound.lower_pps), finite(bound.upper_pps)) {
        (Some(lower), Some(upper)) => format!("{} to {}", mpps(lower), mpps(upper)),
        (Some(lower), None) => format!("> {}", mpps(lower)),
        (None, Some(upper)) => format!("< {}", mpps(upper)),
        (None, None) => ABSENT.to_owned(),
    }
}

fn bound_marks(goal: &str, bound: &Bound) -> Vec<Mark> {
    let mut marks = Vec::new();
    if !bound.is_conclusive {
        marks.push(mark(MarkKind::Inconclusive, goal));
    }
    let text = match (bound.lower_pps.is_some(), bound.upper_pps.is_some()) {
        (true, true) => return marks,
        (true, false) => "met at the highest rate tried",
        (false, true) => "not met at the lowest rate tried",
        (false, false) => "no rate was decided",
    };
    marks.push(mark(MarkKind::Open, format!("{goal} {text}")));
    marks
}

fn marks(search: &SearchOutcome) -> Vec<Mark> {
    let mut marks = trial_marks(search);
    marks.extend(bound_marks("NDR", &search.ndr));
    marks.extend(bound_marks("PDR", &search.pdr));
    marks
}

/// The marks that a reader of the result alone has to know: a generator that fell short far above the
/// bounds, where a search starts, does not touch them.
fn result_marks(search: &SearchOutcome) -> Vec<Mark> {
    let highest = match (search.ndr.upper_pps, search.pdr.upper_pps) {
        (Some(ndr), Some(pdr)) => ndr.max(pdr),
        _ => f64::INFINITY,
    };
    let touches = |trial: &Trial| {
        trial.is_generator_limited && trial.asked_pps.is_none_or(|asked| asked <= highest)
    };
    let is_limited = search.trials.iter().any(touches);
    let mut marks = marks(search);
    marks.retain(|mark| mark.kind != MarkKind::GeneratorLimited || is_limited);
    marks
}

fn family(place: &Place<'_>, title: String, searches: &[Search<'_>]) -> Result<Block, DrawError> {
    let mut table = Table {
        columns: vec![
            words("subject"),
            numbers("frame, B"),
            numbers("NDR, Mpps"),
            numbers("forwarded at NDR, Mpps"),
            numbers("PDR, Mpps"),
            numbers("forwarded at PDR, Mpps"),
        ],
        rows: Vec::new(),
    };
    let mut details = Vec::new();
    for (run, search) in searches {
        table.rows.push(Row {
            origin: run.number,
            cells: vec![
                place.series(*run, &search.subject),
                size(search),
                interval(&search.ndr),
                mpps_or_absent(search.ndr.forwarded_pps),
                interval(&search.pdr),
                mpps_or_absent(search.pdr.forwarded_pps),
            ],
            marks: marks(search),
        });
        if !search.trials.is_empty() {
            let title = format!(
                "[{}] all trials of the search ({}); NDR rests on {}; PDR on {}",
                run.number,
                count(search.trials.len() as u64),
                evidence(&search.ndr),
                evidence(&search.pdr),
            );
            details.push((title, trial_table(run.number, &search.trials)));
        }
    }
    let (figures, mut notes) = figures(place, searches)?;
    notes.extend(goals(searches));
    let said = searches.iter().flat_map(|(run, s)| s.notes.iter().map(move |note| (run, note)));
    notes.extend(said.map(|(run, note)| format!("[{}] {note}", run.number)));
    let origins = origins(place, searches.iter().map(|(run, _)| *run));
    Ok(Block { title, figures, table, notes, origins, details })
}

/// What a bound rests on.
fn evidence(bound: &Bound) -> String {
    let mut text = format!("{} s in trials of {} s", round(bound.trials_s), round(bound.trial_s));
    if bound.high_loss_s > 0.0 {
        text += &format!(", {} s above the loss", round(bound.high_loss_s));
    }
    text
}

/// The goals of the searches in words, each once.
fn goals(searches: &[Search<'_>]) -> Vec<String> {
    let mut goals: Vec<String> = Vec::new();
    for (name, bound) in searches.iter().flat_map(|(_, s)| [("NDR", &s.ndr), ("PDR", &s.pdr)]) {
        let mut goal = format!("{name}: loss of at most {}", percent(bound.loss_ratio_max));
        if bound.goal_trials_s > 0.0 {
            goal += &format!(
                ", which {} of the trials' time at a rate may exceed; decided by {} s of trials, or \
                 by fewer if the rest could change nothing; bounds to be within {} of the upper one",
                percent(bound.exceed_ratio),
                round(bound.goal_trials_s),
                percent(bound.width),
            );
        }
        goal.push('.');
        if !goals.contains(&goal) {
            goals.push(goal);
        }
    }
    goals
}

/// Frame sizes in ascending order, a mix last.
fn categories(searches: &[Search<'_>]) -> Vec<String> {
    let mut sizes: Vec<_> =
        searches.iter().map(|(_, s)| (s.frame_bytes.unwrap_or(u32::MAX), size(s))).collect();
    sizes.sort();
    sizes.dedup();
    sizes.into_iter().map(|(_, label)| label).collect()
}

fn figures(
    place: &Place<'_>,
    searches: &[Search<'_>],
) -> Result<(Vec<Figure>, Vec<String>), DrawError> {
    let categories = categories(searches);
    let valid = searches.iter().filter(|(_, search)| !is_void(search));
    let subjects =
        group_by(valid.map(|search| (place.series(search.0, &search.1.subject), search)));
    if let Some(note) = too_many(categories.len() * subjects.len().min(SERIES_MAX) * 2) {
        return Ok((Vec::new(), vec![note]));
    }
    let mut figures = Vec::new();
    for part in subjects.chunks(SERIES_MAX) {
        let mut series = Vec::new();
        let mut legend = Vec::new();
        for (colour, (subject, runs)) in part.iter().enumerate() {
            for (is_light, goal) in [(false, "NDR"), (true, "PDR")] {
                let bound = |search: &SearchOutcome| if is_light { search.pdr } else { search.ndr };
                let at = |category: &String| {
                    let same = runs.iter().filter(|(_, s)| size(s) == *category);
                    point(&same.map(|(_, s)| bound(s)).collect::<Vec<_>>())
                };
                series.push(ColumnSeries {
                    colour,
                    is_light,
                    points: categories.iter().map(at).collect(),
                });
                let glyph = if is_light { Glyph::Light(colour) } else { Glyph::Solid(colour) };
                legend.push((glyph, format!("{subject} {goal}")));
            }
        }
        let points = || series.iter().flat_map(|series| series.points.iter().flatten());
        if points().next().is_none() {
            continue;
        }
        for (sign, meaning) in [
            (INCONCLUSIVE, "inconclusive: between the whiskers"),
            (OPEN, "goal met at the highest rate tried: the bar is a lower bound"),
        ] {
            if points().any(|point| point.sign == Some(sign)) {
                legend.push((Glyph::Text(sign), meaning.to_owned()));
            }
        }
        let columns = Columns {
            x_label: "frame without check sequence, B",
            y_label: "Mpps",
            categories: categories.clone(),
            series,
        };
        let caption = "Rate in Mpps by frame size: lower bound (median of the runs, where there are \
             several). Whiskers: from the lowest lower to the highest upper bound of all runs.";
        figures.push(Figure { caption: caption.to_owned(), svg: columns.draw()?, legend });
    }
    Ok((figures, Vec::new()))
}

const INCONCLUSIVE: char = '?';
const OPEN: char = '↑';

/// The bar of all runs of one measurement; none if no run met the goal.
fn point(bounds: &[Bound]) -> Option<ColumnPoint> {
    let to_mpps = |rate: Option<f64>| rate.filter(|rate| rate.is_finite()).map(|rate| rate / 1e6);
    let lower: Vec<f64> = bounds.iter().filter_map(|bound| to_mpps(bound.lower_pps)).collect();
    let value = median(&lower)?;
    let ends = bounds.iter().flat_map(|bound| [to_mpps(bound.lower_pps), to_mpps(bound.upper_pps)]);
    let spread = spread(&ends.flatten().collect::<Vec<_>>());
    let sign = if bounds.iter().any(|bound| bound.upper_pps.is_none()) {
        Some(OPEN)
    } else if bounds.iter().any(|bound| !bound.is_conclusive || bound.lower_pps.is_none()) {
        Some(INCONCLUSIVE)
    } else {
        None
    };
    Some(ColumnPoint { value, spread, sign })
}

/// One line for each subject and frame size; several runs become a median with their spread.
fn summarise(
    place: &Place<'_>,
    traffic: &str,
    placement: &str,
    searches: &[Search<'_>],
) -> Vec<SummaryRow> {
    let key = |search: &Search<'_>| (place.series(search.0, &search.1.subject), size(search.1));
    let groups = group_by(searches.iter().map(|search| (key(search), search.1)));
    let line = |((subject, size), runs): ((String, String), Vec<&SearchOutcome>)| {
        let valid: Vec<_> = runs.iter().copied().filter(|search| !is_void(search)).collect();
        let goal = |name: &str, bound: fn(&SearchOutcome) -> Bound| {
            let bounds: Vec<Bound> = valid.iter().map(|search| bound(search)).collect();
            format!("{name} {}", over_runs(&bounds))
        };
        let mut marks: Vec<Mark> = Vec::new();
        for mark in runs.iter().flat_map(|search| result_marks(search)) {
            if !marks.contains(&mark) {
                marks.push(mark);
            }
        }
        let size = if size == "mix" { size } else { format!("{size} B") };
        let ndr = goal("NDR", |search| search.ndr);
        let pdr = goal("PDR", |search| search.pdr);
        SummaryRow {
            what: "throughput",
            conditions: heading(&[traffic, placement]),
            subject: format!("{subject}, {size}"),
            result: if valid.is_empty() { "no result".to_owned() } else { format!("{ndr}; {pdr}") },
            marks,
        }
    };
    groups.into_iter().map(line).collect()
}

fn over_runs(bounds: &[Bound]) -> String {
    if let [bound] = bounds {
        let interval = interval(bound);
        return if interval == ABSENT {
            "not found".to_owned()
        } else {
            format!("{interval} Mpps")
        };
    }
    let lower: Vec<f64> = bounds.iter().filter_map(|bound| bound.lower_pps).collect();
    let runs = bounds.len();
    match (median(&lower), spread(&lower)) {
        (Some(middle), Some((low, high))) => format!(
            "{} Mpps (median of {runs} runs, {} to {})",
            mpps(middle),
            mpps(low),
            mpps(high)
        ),
        (Some(middle), None) => format!("{} Mpps (1 of {runs} runs met it)", mpps(middle)),
        (None, _) => format!("not found in {runs} runs"),
    }
}

/// Trials, each in a line.
pub(super) fn trial_table(origin: usize, trials: &[Trial]) -> Table {
    let columns = vec![
        numbers("asked, Mpps"),
        numbers("length, s"),
        numbers("sent"),
        numbers("received"),
        numbers("lost"),
        numbers("loss"),
        numbers("reordered"),
        numbers("copies"),
        numbers("refused"),
        numbers("foreign"),
    ];
    let rows = trials.iter().map(|trial| Row {
        origin,
        cells: trial_cells(trial),
        marks: one_trial_marks(trial),
    });
    Table { columns, rows: rows.collect() }
}

/// The numbers of a trial as in [`trial_table`].
pub(super) fn trial_cells(trial: &Trial) -> Vec<String> {
    let asked = trial.asked_pps.map_or_else(|| "as fast as it goes".to_owned(), mpps);
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let loss = (trial.sent > 0).then(|| trial.lost as f64 / trial.sent as f64);
    vec![
        asked,
        round(trial.duration_s),
        count(trial.sent),
        count(trial.received),
        count(trial.lost),
        loss.map_or_else(|| ABSENT.to_owned(), percent),
        count(trial.reordered),
        count(trial.duplicated),
        count(trial.refused),
        count(trial.foreign),
    ]
}

/// What is wrong with a trial.
pub(super) fn one_trial_marks(trial: &Trial) -> Vec<Mark> {
    let mut marks = Vec::new();
    if !trial.void.is_empty() {
        marks.push(mark(MarkKind::Void, trial.void.join("; ")));
    }
    if trial.is_generator_limited {
        marks.push(mark(MarkKind::GeneratorLimited, ""));
    }
    marks
}
