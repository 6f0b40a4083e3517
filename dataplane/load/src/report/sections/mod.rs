//! The parts of a report, one for each kind of measurement.

mod changes;
mod latency;
mod peers;
mod profile;
mod throughput;
mod trials;

use super::model::{Block, Figure, Mark, MarkKind, Origin, Place, Run, Section, mark};
use super::number::count;
use super::plot::{DrawError, ITEMS_MAX};
use crate::document::{Outcome, SearchOutcome};

/// The sections of a machine, in the order of the page; those without data are left out.
pub(super) fn all(place: &Place<'_>) -> Result<Vec<Section>, DrawError> {
    let sections = [
        throughput::section(place)?,
        latency::section(place)?,
        profile::section(place)?,
        changes::section(place)?,
        peers::section(place)?,
        trials::section(place)?,
    ];
    Ok(sections.into_iter().flatten().collect())
}

/// The router that others are compared with: it comes first, and has the first colour.
const REFERENCE: &str = "sluice";

/// The searches of a machine, those of Sluice first.
fn searches<'a>(place: &Place<'a>) -> Vec<(Run<'a>, &'a SearchOutcome)> {
    let search = |run: &Run<'a>| match &run.document().outcome {
        Outcome::Search(search) => Some((*run, search)),
        _ => None,
    };
    let mut searches: Vec<_> = place.runs.iter().filter_map(search).collect();
    searches.sort_by_key(|(_, search)| (search.subject != REFERENCE, &search.subject));
    searches
}

/// The traffic without the frame size, under which searches of several sizes belong together:
/// "64 B, 10000 flows, IPv4" is "10000 flows, IPv4".
fn traffic_family(search: &SearchOutcome) -> String {
    let is_size = |part: &str| match search.frame_bytes {
        Some(bytes) => part == format!("{bytes} B") || part == format!("{bytes} bytes"),
        None => part.to_lowercase().contains("mix"),
    };
    let parts: Vec<&str> = search.traffic.split(',').map(str::trim).collect();
    parts.iter().filter(|part| !is_size(part)).copied().collect::<Vec<_>>().join(", ")
}

/// Placement in words.
fn placement(search: &SearchOutcome) -> String {
    search.placement.clone().unwrap_or_else(|| "placement not stated".to_owned())
}

/// Whether no trial of a search says anything.
fn is_void(search: &SearchOutcome) -> bool {
    !search.trials.is_empty() && search.trials.iter().all(|trial| !trial.void.is_empty())
}

/// The heading of things that belong together: what is not empty of it.
fn heading(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join("; ")
}

/// Where the numbers of a block come from, each document once.
fn origins<'a>(place: &Place<'_>, runs: impl IntoIterator<Item = Run<'a>>) -> Vec<Origin> {
    let mut origins: Vec<Origin> = Vec::new();
    for run in runs {
        let origin = Origin::of(place, run);
        if !origins.contains(&origin) {
            origins.push(origin);
        }
    }
    origins
}

/// The sentence instead of a figure that would hold too much to be read.
fn too_many(items: usize) -> Option<String> {
    (items > ITEMS_MAX)
        .then(|| format!("Not drawn, since {items} bars could not be told apart: see the table."))
}

/// Marks of what the trials of a search went through.
fn trial_marks(search: &SearchOutcome) -> Vec<Mark> {
    let mut marks = Vec::new();
    let total = count(search.trials.len() as u64);
    let void: Vec<_> = search.trials.iter().filter(|trial| !trial.void.is_empty()).collect();
    if !void.is_empty() {
        // Reasons that differ in a number only are told once; the list of trials has them all.
        let kind = |reason: &str| reason.replace(|c: char| c.is_ascii_digit(), "");
        let mut reasons: Vec<&str> = Vec::new();
        for reason in void.iter().flat_map(|trial| &trial.void) {
            if !reasons.iter().any(|known| kind(known) == kind(reason)) {
                reasons.push(reason);
            }
        }
        let number = count(void.len() as u64);
        let text = format!("{number} of {total} trials: {}", reasons.join("; "));
        // Single void trials were left out by the search; its result stands on the others.
        let kind = if is_void(search) { MarkKind::Void } else { MarkKind::VoidTrials };
        marks.push(mark(kind, text));
    }
    let limited = search.trials.iter().filter(|trial| trial.is_generator_limited).count();
    if limited > 0 {
        let text = format!("{} of {total} trials", count(limited as u64));
        marks.push(mark(MarkKind::GeneratorLimited, text));
    }
    marks
}

/// A figure without a legend.
fn plain(caption: impl Into<String>, svg: String) -> Figure {
    Figure { caption: caption.into(), svg, legend: Vec::new() }
}

/// A block of these parts, without folded tables.
fn block(
    title: String,
    figures: Vec<Figure>,
    table: super::model::Table,
    notes: Vec<String>,
    origins: Vec<Origin>,
) -> Block {
    Block { title, figures, table, notes, origins, details: Vec::new() }
}
