//! What a report says, before it is a page or Markdown: sections of figures and tables, built once so
//! that both say the same.

use std::collections::BTreeSet;

use super::number::date;
use super::plot::Glyph;
use super::source::Source;
use crate::document::{Document, Machine};

/// Everything that was measured on one machine.
pub(super) struct Place<'a> {
    pub(super) machine: &'a Machine,
    /// Its documents with their numbers in the report, which count from 1.
    pub(super) runs: Vec<Run<'a>>,
}

/// One document and its number in the report.
#[derive(Clone, Copy)]
pub(super) struct Run<'a> {
    pub(super) number: usize,
    pub(super) source: &'a Source,
}

impl<'a> Run<'a> {
    pub(super) fn document(&self) -> &'a Document {
        &self.source.document
    }
}

impl Place<'_> {
    /// The machine in a line.
    pub(super) fn name(&self) -> String {
        let Machine { cpu, cpus, kernel, platform, tsc_hz: _ } = self.machine;
        let platform = platform.as_deref().unwrap_or("platform unknown");
        let noun = if *cpus == 1 { "CPU" } else { "CPUs" };
        format!("{cpu}, {cpus} {noun}, Linux {kernel}, {platform}")
    }

    /// Whether its documents are of several versions of Sluice: then each series says which.
    pub(super) fn has_versions(&self) -> bool {
        let versions: BTreeSet<_> =
            self.runs.iter().map(|run| run.document().version.as_str()).collect();
        versions.len() > 1
    }

    /// A device under test as a series is called: with the version where there are several, since
    /// runs of two versions are not repetitions of one measurement.
    pub(super) fn series(&self, run: Run<'_>, subject: &str) -> String {
        if self.has_versions() {
            format!("{subject} ({})", run.document().version)
        } else {
            subject.to_owned()
        }
    }
}

/// Groups documents by machine. The clock rate is left out: it is calibrated anew in each run.
pub(super) fn places(sources: &[Source]) -> Vec<Place<'_>> {
    let mut places: Vec<Place<'_>> = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let machine = &source.document.machine;
        let run = Run { number: index + 1, source };
        let is_same = |place: &&mut Place<'_>| {
            let Machine { cpu, cpus, kernel, platform, tsc_hz: _ } = place.machine;
            (cpu, cpus, kernel, platform)
                == (&machine.cpu, &machine.cpus, &machine.kernel, &machine.platform)
        };
        match places.iter_mut().find(is_same) {
            Some(place) => place.runs.push(run),
            None => places.push(Place { machine, runs: vec![run] }),
        }
    }
    places
}

/// Collects items under equal keys, in the order in which the keys first came.
pub(super) fn group_by<K: PartialEq, V>(
    items: impl IntoIterator<Item = (K, V)>,
) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in items {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// A part of the report: one kind of measurement on one machine.
pub(super) struct Section {
    /// Its anchor; unique with the number of the place in front.
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    /// How to read it.
    pub(super) intro: String,
    pub(super) blocks: Vec<Block>,
    /// Its lines of the summary.
    pub(super) summary: Vec<SummaryRow>,
}

/// Figures and the table they are drawn from; all of it may be compared with each other.
pub(super) struct Block {
    pub(super) title: String,
    pub(super) figures: Vec<Figure>,
    pub(super) table: Table,
    /// Sentences below the table.
    pub(super) notes: Vec<String>,
    /// Where the numbers come from.
    pub(super) origins: Vec<Origin>,
    /// Long tables that the page folds away and Markdown leaves to the documents.
    pub(super) details: Vec<(String, Table)>,
}

/// How to measure a document's numbers again.
#[derive(Clone, PartialEq)]
pub(super) struct Origin {
    pub(super) number: usize,
    pub(super) title: String,
    pub(super) command: String,
    /// File, version, date, machine.
    pub(super) about: String,
}

impl Origin {
    pub(super) fn of(place: &Place<'_>, run: Run<'_>) -> Self {
        let Document { title, command, version, started_unix_s, .. } = run.document();
        let about = format!(
            "{}; sluice {version}; {}; {}",
            run.source.file,
            date(*started_unix_s),
            place.name(),
        );
        Self { number: run.number, title: title.clone(), command: command.clone(), about }
    }
}

/// A drawing with what is needed to read it.
pub(super) struct Figure {
    /// What it shows, with units and what the whiskers are.
    pub(super) caption: String,
    pub(super) svg: String,
    pub(super) legend: Vec<(Glyph, String)>,
}

/// A table whose first columns are words and whose others are numbers.
#[derive(Default)]
pub(super) struct Table {
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

pub(super) struct Column {
    pub(super) label: &'static str,
    pub(super) is_number: bool,
}

/// A column of words.
pub(super) const fn words(label: &'static str) -> Column {
    Column { label, is_number: false }
}

/// A column of numbers; the label ends with the unit.
pub(super) const fn numbers(label: &'static str) -> Column {
    Column { label, is_number: true }
}

/// A line of a table; a column "notes" follows the cells if any line has a mark.
pub(super) struct Row {
    /// Number of the document it is from.
    pub(super) origin: usize,
    pub(super) cells: Vec<String>,
    pub(super) marks: Vec<Mark>,
}

impl Row {
    /// Whether the row has a mark of this kind.
    pub(super) fn is(&self, kind: MarkKind) -> bool {
        self.marks.iter().any(|mark| mark.kind == kind)
    }
}

impl Table {
    pub(super) fn has_marks(&self) -> bool {
        self.rows.iter().any(|row| !row.marks.is_empty())
    }
}

/// Why a number is not simply a result.
#[derive(Clone, PartialEq)]
pub(super) struct Mark {
    pub(super) kind: MarkKind,
    /// The particulars; may be empty.
    pub(super) text: String,
}

/// The kinds of [`Mark`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MarkKind {
    Void,
    VoidTrials,
    GeneratorLimited,
    Inconclusive,
    Open,
    Skipped,
    Unproven,
    WithinControl,
}

impl MarkKind {
    pub(super) const ALL: [Self; 8] = [
        Self::Void,
        Self::VoidTrials,
        Self::GeneratorLimited,
        Self::Inconclusive,
        Self::Open,
        Self::Skipped,
        Self::Unproven,
        Self::WithinControl,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Void => "void",
            Self::VoidTrials => "void trials",
            Self::GeneratorLimited => "generator-limited",
            Self::Inconclusive => "inconclusive",
            Self::Open => "open",
            Self::Skipped => "skipped",
            Self::Unproven => "ratio left out",
            Self::WithinControl => "within control",
        }
    }

    pub(super) fn help(self) -> &'static str {
        match self {
            Self::Void => {
                "the run says nothing about the device under test, for the reason given; its \
                 numbers are shown for inspection and are in no figure and no summary"
            }
            Self::VoidTrials => {
                "some trials of the search say nothing about the device under test, for the reasons \
                 given; the result must not rest on them (see the list of trials)"
            }
            Self::GeneratorLimited => {
                "the generator fell short of the rate that was asked for: the device under test \
                 may be faster than the number"
            }
            Self::Inconclusive => {
                "the bounds are not as close to each other as was asked for: the true value is \
                 anywhere between them"
            }
            Self::Open => {
                "bounded on one side only: \u{201c}> x\u{201d} if the goal was still met at the \
                 highest rate that was tried, \u{201c}< x\u{201d} if it was not even met at the \
                 lowest"
            }
            Self::Skipped => "not measured, for the reason given: there is no number",
            Self::Unproven => {
                "the document has a ratio, but not both rates of one kind in one placement: it is \
                 not shown"
            }
            Self::WithinControl => {
                "at least one run with the change lost no more than one without it: the change \
                 cannot be told from the control"
            }
        }
    }
}

/// Makes a mark.
pub(super) fn mark(kind: MarkKind, text: impl Into<String>) -> Mark {
    Mark { kind, text: text.into() }
}

/// One line of the summary on top. Lines of the same `what` and `conditions` stand together.
pub(super) struct SummaryRow {
    pub(super) what: &'static str,
    /// What lines below each other have in common.
    pub(super) conditions: String,
    /// What tells this line from the others.
    pub(super) subject: String,
    pub(super) result: String,
    pub(super) marks: Vec<Mark>,
}

/// The kinds of marks that occur, in their order.
pub(super) fn mark_kinds(sections: &[Section]) -> Vec<MarkKind> {
    let summaries = || sections.iter().flat_map(|section| &section.summary);
    let blocks = || sections.iter().flat_map(|section| &section.blocks);
    let tables = blocks().flat_map(|block| {
        std::iter::once(&block.table).chain(block.details.iter().map(|(_, table)| table))
    });
    let in_tables = tables.flat_map(|table| &table.rows).flat_map(|row| &row.marks);
    let found: BTreeSet<MarkKind> =
        summaries().flat_map(|row| &row.marks).chain(in_tables).map(|mark| mark.kind).collect();
    MarkKind::ALL.into_iter().filter(|kind| found.contains(kind)).collect()
}
