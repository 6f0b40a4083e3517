//! The report as a page.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::model::{
    Block, Figure, Mark, MarkKind, Origin, Place, Row, Section, SummaryRow, Table, group_by,
    mark_kinds,
};
use super::number::figure as figure_of;
use super::plot::Glyph;
use super::source::Source;
use super::{NOT_COMPARED, overview};

/// The whole look of the page. Attribute selectors give the black of the drawings the colour of the
/// text, so that one drawing serves light and dark.
const STYLE: &str = include_str!("report.css");

/// No script, no network: also when a document's text found a way into the markup.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(super) fn page(sources: &[Source], parts: &[(Place<'_>, Vec<Section>)]) -> String {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { "Sluice: measurements" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Sluice: measurements" }
                p { (overview(sources)) }
                @if parts.len() > 1 { p.warning { (NOT_COMPARED) } }
                @for (index, (place, sections)) in parts.iter().enumerate() {
                    (machine(index, place, sections))
                }
            }
        }
    };
    markup.into_string()
}

fn machine(index: usize, place: &Place<'_>, sections: &[Section]) -> Markup {
    html! {
        section {
            h2 { (place.name()) }
            @if let Some(hz) = place.machine.tsc_hz {
                p { "Time stamp counter: " (figure_of(hz as f64 / 1e9)) " GHz" }
            }
            (summary(index, sections))
            (key(sections))
            @for section in sections {
                h3 id=(anchor(index, section)) { (section.title) }
                p.intro { (section.intro) }
                @for (at, block) in section.blocks.iter().enumerate() {
                    (self::block(&format!("{}-{}", anchor(index, section), at + 1), block))
                }
            }
        }
    }
}

fn anchor(index: usize, section: &Section) -> String {
    format!("machine-{}-{}", index + 1, section.id)
}

/// The summary: a heading for each measurement and its conditions, below it a line for each subject.
fn summary(index: usize, sections: &[Section]) -> Markup {
    let groups = |section: &Section| -> Vec<(String, Vec<Markup>)> {
        let line = |row: &SummaryRow| {
            html! {
                tr { td { (row.subject) } td.result { (row.result) } td { (marks(&row.marks)) } }
            }
        };
        group_by(section.summary.iter().map(|row| {
            let conditions = if row.conditions.is_empty() { "" } else { ": " };
            (format!("{}{conditions}{}", row.what, row.conditions), line(row))
        }))
    };
    html! {
        h3 { "Summary" }
        div.wide tabindex="0" {
            table.summary {
                thead { tr { th { "subject" } th { "result" } th { "notes" } } }
                @for section in sections {
                    @for (heading, lines) in groups(section) {
                        tbody {
                            tr { th colspan="3" { a href={ "#" (anchor(index, section)) } { (heading) } } }
                            @for line in lines { (line) }
                        }
                    }
                }
            }
        }
    }
}

/// Explains the marks that occur.
fn key(sections: &[Section]) -> Markup {
    let kinds = mark_kinds(sections);
    html! {
        @if !kinds.is_empty() {
            dl.key {
                @for kind in kinds { div { dt { (badge(kind)) } dd { (kind.help()) } } }
            }
        }
    }
}

fn badge(kind: MarkKind) -> Markup {
    let class = match kind {
        MarkKind::Void | MarkKind::VoidTrials => "badge void",
        MarkKind::GeneratorLimited | MarkKind::Inconclusive | MarkKind::Open => "badge doubt",
        MarkKind::Skipped | MarkKind::Unproven | MarkKind::WithinControl => "badge",
    };
    html! { span class=(class) { (kind.label()) } }
}

fn marks(marks: &[Mark]) -> Markup {
    html! {
        @for mark in marks {
            div.mark { (badge(mark.kind)) @if !mark.text.is_empty() { " " (mark.text) } }
        }
    }
}

/// A block; `id` is unique in the page.
fn block(id: &str, block: &Block) -> Markup {
    html! {
        article id=(id) {
            h4 { (block.title) }
            @if !block.figures.is_empty() {
                div.figures { @for figure in &block.figures { (self::figure(figure)) } }
            }
            (table(id, &block.table))
            @for note in &block.notes { p.note { (note) } }
            (origins(id, &block.origins))
            @for (title, table) in &block.details {
                details { summary { (title) } (self::table(id, table)) }
            }
        }
    }
}

fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            div.plot role="img" aria-label=(figure.caption) { (PreEscaped(&figure.svg)) }
            @if !figure.legend.is_empty() {
                ul.legend {
                    @for (glyph, meaning) in &figure.legend { li { (self::glyph(*glyph)) (meaning) } }
                }
            }
            figcaption { (figure.caption) }
        }
    }
}

fn glyph(glyph: Glyph) -> Markup {
    let inner = match glyph {
        Glyph::Solid(series) => html! {
            rect x="1" y="1" width="16" height="10" fill=(Glyph::css_colour(series)) {}
        },
        Glyph::Light(series) => {
            let colour = Glyph::css_colour(series);
            html! {
                rect x="1" y="1" width="16" height="10" fill=(colour) fill-opacity=(Glyph::light())
                    stroke=(colour) {}
            }
        }
        Glyph::Line(series) => html! {
            path d="M0 6H18" stroke=(Glyph::css_colour(series)) stroke-width="2" {}
        },
        Glyph::Dashes(series) => html! {
            path d="M0 6H18" stroke=(Glyph::css_colour(series)) stroke-width="2"
                stroke-dasharray="6 4" {}
        },
        Glyph::Circle => html! { circle cx="9" cy="6" r="5" fill="#000000" {} },
        Glyph::Bar => html! { path d="M3 6H15" stroke="#000000" stroke-width="3" {} },
        Glyph::Cross => html! {
            path d="M4 1L14 11M4 11L14 1" stroke="#000000" stroke-width="2" {}
        },
        Glyph::Text(sign) => {
            html! { text x="9" y="11" text-anchor="middle" fill="#000000" { (sign) } }
        }
    };
    html! { svg.glyph width="18" height="12" aria-hidden="true" { (inner) } }
}

/// Numbers of a void run are struck out; of a skipped one there are none.
fn row_class(row: &Row) -> Option<&'static str> {
    if row.is(MarkKind::Void) {
        Some("no-result void")
    } else {
        row.is(MarkKind::Skipped).then_some("no-result")
    }
}

/// A table; its rows link to the origins of the block `id`.
fn table(id: &str, table: &Table) -> Markup {
    let has_marks = table.has_marks();
    let class = |is_number: bool| if is_number { "number" } else { "words" };
    html! {
        div.wide tabindex="0" {
            table {
                thead { tr {
                    th { "run" }
                    @for column in &table.columns {
                        th class=(class(column.is_number)) { (column.label) }
                    }
                    @if has_marks { th { "† notes" } }
                } }
                tbody {
                    @for row in &table.rows {
                        tr class=[row_class(row)] {
                            td.run {
                                a href={ "#" (id) "-run-" (row.origin) } { "[" (row.origin) "]" }
                                // The notes may be out of sight, to the right.
                                @if !row.marks.is_empty() { span.sign title="see notes" { " †" } }
                            }
                            @for (cell, column) in row.cells.iter().zip(&table.columns) {
                                td class=(class(column.is_number)) { (cell) }
                            }
                            @if has_marks { td.notes { (marks(&row.marks)) } }
                        }
                    }
                }
            }
        }
    }
}

fn origins(id: &str, origins: &[Origin]) -> Markup {
    html! {
        ul.origins {
            @for origin in origins {
                li id={ (id) "-run-" (origin.number) } {
                    "[" (origin.number) "] " (origin.title) ": "
                    code { (origin.command) }
                    div.about { (origin.about) }
                }
            }
        }
    }
}
