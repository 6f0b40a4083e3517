//! The report: one page and one Markdown file from the documents of a folder.
//!
//! ```text
//!   *.json -> sources -> places (machines) -> sections -> html.rs      report.html
//!                                              | ^        markdown.rs  report.md
//!                                              v |
//!                                              plot (inline SVG)
//! ```
//!
//! Documents are untrusted text: every word of them is escaped where it is written, and the page
//! forbids itself scripts and the network. Machines are never compared. What is absent stays absent:
//! nothing here turns a number that is missing, not finite, void or skipped into a zero or into a
//! point of a figure.

mod html;
mod markdown;
mod model;
mod number;
mod plot;
mod sections;
mod source;
#[cfg(test)]
mod tests;

pub use plot::DrawError;
pub use source::{BadFile, ReadError, Source, read_dir};

use model::{Place, Section};

/// A report in both of its forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// One HTML page that needs nothing beside it.
    pub html: String,
    /// The tables as Markdown.
    pub markdown: String,
}

/// Makes the report of these documents.
///
/// # Errors
/// A figure cannot be drawn, which is a fault of this crate and not of a document.
pub fn render(sources: &[Source]) -> Result<Report, DrawError> {
    let mut parts: Vec<(Place<'_>, Vec<Section>)> = Vec::new();
    for place in model::places(sources) {
        let sections = sections::all(&place)?;
        parts.push((place, sections));
    }
    Ok(Report { html: html::page(sources, &parts), markdown: markdown::text(sources, &parts) })
}

/// What the documents are, in a line: how many, of which versions, from when to when.
fn overview(sources: &[Source]) -> String {
    let dates = || sources.iter().map(|source| source.document.started_unix_s);
    let mut versions: Vec<&str> =
        sources.iter().map(|source| source.document.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let (first, last) = (dates().min().unwrap_or(0), dates().max().unwrap_or(0));
    let when = if first == last {
        number::date(first)
    } else {
        format!("{} to {}", number::date(first), number::date(last))
    };
    let noun = if sources.len() == 1 { "measurement" } else { "measurements" };
    format!("{} {noun}; sluice {}; {when}", sources.len(), versions.join(", "))
}

/// Said once where there are several machines.
const NOT_COMPARED: &str = "The measurements are of several machines. Each has its own part; numbers of different machines \
     are not to be compared.";
