//! Text to [`RawConfig`]: all errors of form at once.
//!
//! serde stops at the first error. So the text is parsed into a tree once, and read from that; what
//! an error points at is taken out of the tree, and the rest is read again, until nothing is wrong
//! with it. The check runs on what is left, with the keys that were taken out marked as spoiled:
//! that they are missing is not reported once more.

use std::collections::HashSet;
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::raw::RawConfig;
use crate::reason::{Place, Reason};

/// A text is read this often at most: a bound on the work that a broken file makes.
const ERRORS_MAX: usize = 64;

/// A raw configuration, and what was wrong with the form of its file.
pub(crate) struct Reading {
    /// What could be read; `None` if the text is not TOML, since nothing in it can be trusted then.
    pub(crate) raw: Option<RawConfig>,
    /// Errors of form.
    pub(crate) errors: Vec<(Place, Reason)>,
    /// Keys that were taken out.
    pub(crate) spoiled: HashSet<String>,
}

/// Reads a text.
pub(crate) fn read(text: &str, lines: &Lines) -> Reading {
    let mut reading = Reading { raw: None, errors: Vec::new(), spoiled: HashSet::new() };
    let (mut tree, syntax) = DeTable::parse_recoverable(text);
    for error in syntax.iter().take(ERRORS_MAX) {
        let line = error.span().map(|span| lines.line(span.start));
        let place = Place { key: String::new(), line };
        let mut message = one_line(error.message());
        // The parser knows where the key is, and does not say which.
        let key = error.span().and_then(|span| text.get(span));
        if let (true, Some(key)) = (message == "duplicate key", key) {
            message = format!("{message} `{key}`");
        }
        reading.errors.push((place, Reason::Toml(message)));
    }
    if !reading.errors.is_empty() {
        return reading;
    }
    loop {
        let error = match RawConfig::deserialize(toml::Deserializer::from(tree.clone())) {
            Ok(raw) => {
                reading.raw = Some(raw);
                return reading;
            }
            Err(error) => error,
        };
        let span = error.span().unwrap_or_default();
        let line = error.span().map(|span| lines.line(span.start));
        let path = find_in_table(tree.get_ref(), &span).unwrap_or_default();
        let reason = Reason::Toml(one_line(error.message()));
        reading.errors.push((Place { key: path.text(), line }, reason));
        reading.spoiled.insert(path.text());
        if reading.errors.len() == ERRORS_MAX {
            reading.errors.push((Place { key: String::new(), line: None }, Reason::MoreErrors));
            return reading;
        }
        if !take_out(tree.get_mut(), &path.0) {
            return reading;
        }
    }
}

/// Where lines of a text start.
pub(crate) struct Lines(Vec<usize>);

impl Lines {
    pub(crate) fn of(text: &str) -> Self {
        let behind_newlines = text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n');
        Self(std::iter::once(0).chain(behind_newlines.map(|(_, next)| next)).collect())
    }

    /// The line, from 1, that holds the byte at `offset`.
    pub(crate) fn line(&self, offset: usize) -> u32 {
        let line = self.0.partition_point(|start| *start <= offset);
        u32::try_from(line).unwrap_or(u32::MAX)
    }
}

/// A message of the TOML crate on one line, without the names of Rust's types.
fn one_line(message: &str) -> String {
    let line = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    line.replace("expected i64", "expected an integer")
        .replace("expected a sequence", "expected a list")
        .replace("wanted string or table", "must be a string")
}

/// A step from a table or list to what is in it.
#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Position(usize),
}

#[derive(Clone, Debug, Default)]
struct KeyPath(Vec<Step>);

impl KeyPath {
    fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Key(key) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(&key.escape_debug().to_string());
                }
                Step::Position(position) => text.push_str(&format!("[{position}]")),
            }
        }
        text
    }
}

/// The path of the key or value that has this span.
fn find_in_table(table: &DeTable<'_>, span: &Range<usize>) -> Option<KeyPath> {
    let mut path = Vec::new();
    table_has(table, span, &mut path).then_some(KeyPath(path))
}

fn table_has(table: &DeTable<'_>, span: &Range<usize>, path: &mut Vec<Step>) -> bool {
    for (key, value) in table {
        path.push(Step::Key(key.get_ref().to_string()));
        if key.span() == *span || value_has(value, span, path) {
            return true;
        }
        path.pop();
    }
    false
}

fn value_has(value: &Spanned<DeValue<'_>>, span: &Range<usize>, path: &mut Vec<Step>) -> bool {
    // What is inside comes first: a list of tables has the span of its first table.
    let inside = match value.get_ref() {
        DeValue::Table(table) => table_has(table, span, path),
        DeValue::Array(list) => list.iter().enumerate().any(|(position, element)| {
            path.push(Step::Position(position));
            let found = value_has(element, span, path);
            if !found {
                path.pop();
            }
            found
        }),
        _ => false,
    };
    inside || value.span() == *span
}

/// Takes the last key of the path out of its table, with all of its value. No element is taken out
/// of a list, so the positions of its other elements stay right.
fn take_out(table: &mut DeTable<'_>, path: &[Step]) -> bool {
    let Some((Step::Key(key), rest)) = path.split_first() else { return false };
    let found = table.iter().find(|(have, _)| have.get_ref() == key).map(|(have, _)| have.clone());
    let Some(found) = found else { return false };
    if rest.iter().any(|step| matches!(step, Step::Key(_)))
        && let Some(value) = table.get_mut(&found)
        && take_out_of_value(value, rest)
    {
        return true;
    }
    table.remove(&found).is_some()
}

fn take_out_of_value(value: &mut Spanned<DeValue<'_>>, path: &[Step]) -> bool {
    match (value.get_mut(), path.split_first()) {
        (DeValue::Table(table), Some((Step::Key(_), _))) => take_out(table, path),
        (DeValue::Array(list), Some((Step::Position(position), rest))) => {
            list.get_mut(*position).is_some_and(|element| take_out_of_value(element, rest))
        }
        _ => false,
    }
}
