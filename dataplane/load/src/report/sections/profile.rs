//! Clocks a packet by stage.

use super::super::model::Row;
use super::super::model::{Place, Run, Section, SummaryRow, Table, group_by, numbers, words};
use super::super::number::{ABSENT, count, figure, median, short, spread};
use super::super::plot::{Bar, BarRow, Bars, DrawError, Scale};
use super::{block, origins, plain, too_many};
use crate::document::{Outcome, ProfileOutcome};

type Profile<'a> = (Run<'a>, &'a ProfileOutcome);

const INTRO: &str = "Where a worker's time goes, in clocks of the time stamp counter for each packet \
    received, as the workers time their own turns; reading the counter is included.";

pub(super) fn section(place: &Place<'_>) -> Result<Option<Section>, DrawError> {
    let profiles: Vec<Profile<'_>> = place.runs.iter().filter_map(profile).collect();
    if profiles.is_empty() {
        return Ok(None);
    }
    let by_subject = group_by(
        profiles.iter().map(|profile| (place.series(profile.0, &profile.1.subject), *profile)),
    );
    let subjects: Vec<(String, Vec<Profile<'_>>, Vec<StageRuns>)> = by_subject
        .into_iter()
        .map(|(subject, profiles)| {
            let stages = stages(&profiles);
            (subject, profiles, stages)
        })
        .collect();
    // One scale for all of a machine, so that drawings can be compared by eye.
    let longest = subjects
        .iter()
        .flat_map(|(_, _, stages)| stages)
        .flat_map(|(_, clocks)| clocks.iter().copied())
        .filter(|clocks| clocks.is_finite())
        .fold(0.0, f64::max);
    let mut blocks = Vec::new();
    let mut summary = Vec::new();
    for (subject, profiles, stages) in subjects {
        let (mut figures, mut notes) = (Vec::new(), Vec::new());
        if let Some(note) = too_many(stages.len()) {
            notes.push(note);
        } else if !stages.is_empty() {
            let rows = stages.iter().map(bar).collect();
            let scale = Scale::Linear { end_min: longest * 1.08 };
            let svg = Bars { x_label: "clocks a packet", rows, scale }.draw()?;
            let caption = if profiles.len() > 1 {
                "Clocks a packet by stage: median of the runs; whiskers from the lowest to the highest."
            } else {
                "Clocks a packet by stage."
            };
            figures.push(plain(caption, svg));
        }
        summary.push(summarise(subject.clone(), &profiles));
        let origins = origins(place, profiles.iter().map(|(run, _)| *run));
        blocks.push(block(subject, figures, table(&profiles), notes, origins));
    }
    let intro = INTRO.to_owned();
    let title = "Clocks a packet by stage";
    Ok(Some(Section { id: "profile", title, intro, blocks, summary }))
}

fn profile<'a>(run: &Run<'a>) -> Option<Profile<'a>> {
    match &run.document().outcome {
        Outcome::Profile(profile) => Some((*run, profile)),
        _ => None,
    }
}

/// A stage with its clocks in each run.
type StageRuns = (String, Vec<f64>);

fn stages(profiles: &[Profile<'_>]) -> Vec<StageRuns> {
    let all = profiles.iter().flat_map(|(_, profile)| &profile.stages);
    group_by(all.map(|stage| (stage.name.clone(), stage.clocks_per_packet)))
}

fn bar((name, clocks): &StageRuns) -> BarRow {
    let value = median(clocks);
    let bar = Bar {
        value: value.unwrap_or(f64::NAN),
        spread: spread(clocks),
        colour: 0,
        is_light: false,
        figure: value.map_or_else(|| ABSENT.to_owned(), short),
    };
    BarRow { label: name.clone(), bars: vec![bar] }
}

/// Sum of the stages; none if one of them is no number.
fn total(profile: &ProfileOutcome) -> Option<f64> {
    let sum: f64 = profile.stages.iter().map(|stage| stage.clocks_per_packet).sum();
    (sum.is_finite() && !profile.stages.is_empty()).then_some(sum)
}

#[expect(clippy::cast_precision_loss, reason = "a rate of clocks, rounded for people")]
fn ns(clocks: f64, tsc_hz: u64) -> Option<f64> {
    (tsc_hz > 0).then(|| clocks * 1e9 / tsc_hz as f64)
}

fn table(profiles: &[Profile<'_>]) -> Table {
    let columns = vec![
        words("stage"),
        numbers("clocks a packet"),
        numbers("ns a packet"),
        numbers("share"),
        numbers("packets"),
        numbers("packets a busy turn"),
    ];
    let mut rows = Vec::new();
    for (run, profile) in profiles {
        let total = total(profile);
        let row = |name: &str, clocks: f64| {
            let share = total.filter(|total| *total > 0.0).map(|total| clocks / total * 100.0);
            let text = |value: Option<f64>| value.map_or_else(|| ABSENT.to_owned(), short);
            let share = match share.filter(|share| share.is_finite()) {
                Some(share) => format!("{} %", short(share)),
                None => ABSENT.to_owned(),
            };
            vec![name.to_owned(), short(clocks), text(ns(clocks, profile.tsc_hz)), share]
        };
        for stage in &profile.stages {
            let mut cells = row(&stage.name, stage.clocks_per_packet);
            cells.extend([String::new(), String::new()]);
            rows.push(Row { origin: run.number, cells, marks: Vec::new() });
        }
        if let Some(total) = total {
            let mut cells = row("sum", total);
            cells.extend([count(profile.packets), figure(profile.batch_mean)]);
            rows.push(Row { origin: run.number, cells, marks: Vec::new() });
        }
    }
    Table { columns, rows }
}

fn summarise(subject: String, profiles: &[Profile<'_>]) -> SummaryRow {
    let totals: Vec<f64> = profiles.iter().filter_map(|(_, profile)| total(profile)).collect();
    let times: Vec<f64> =
        profiles.iter().filter_map(|(_, profile)| ns(total(profile)?, profile.tsc_hz)).collect();
    let mut result = match (median(&totals), median(&times)) {
        (Some(clocks), Some(time)) => {
            format!("{} clocks ({} ns) a packet", short(clocks), short(time))
        }
        (Some(clocks), None) => format!("{} clocks a packet", short(clocks)),
        (None, _) => "no result".to_owned(),
    };
    if let Some((low, high)) = spread(&totals) {
        let runs = totals.len();
        result += &format!(", median of {runs} runs, {} to {}", short(low), short(high));
    }
    let batches: Vec<f64> = profiles.iter().map(|(_, profile)| profile.batch_mean).collect();
    if let Some(batch) = median(&batches) {
        result += &format!("; {} packets a busy turn", short(batch));
    }
    let conditions = String::new();
    SummaryRow { what: "clocks", subject, conditions, result, marks: Vec::new() }
}
