//! What came of the rounds: a table for people, and documents for `sluice bench report`.
//!
//! The documents have the shape of the crate `load`'s `document.rs`; a test reads one with it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::bed::Shape;
use super::rounds::{Outcome, Part, Row};
use crate::command;
use crate::lab::configuration::replace;
use crate::peers::report::{SCHEMA, command as own_command, machine};

/// The outcome with what measured it.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// What came of it.
    pub outcome: &'a Outcome,
    /// The binary of the router.
    pub sluice: &'a Path,
}

impl Report<'_> {
    /// Prints it: the table, or the documents with the table on the standard error.
    ///
    /// # Errors
    /// When there is no JSON of it.
    pub fn print(&self, as_json: bool) -> Result<()> {
        if as_json {
            eprint!("\n{}", self.table());
            for (_, document) in self.documents() {
                println!("{}", serde_json::to_string(&document)?);
            }
        } else {
            print!("\n{}", self.table());
        }
        Ok(())
    }

    /// Writes the documents: one for each bed, as each has an NDR of its own.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        for (name, document) in self.documents() {
            replace(&folder.join(name), serde_json::to_string_pretty(&document)?)?;
        }
        Ok(())
    }

    /// The documents with their file names.
    #[must_use]
    pub fn documents(&self) -> Vec<(&'static str, Value)> {
        let version = command::output(Command::new(self.sluice).arg("--version")).ok();
        let version = version.as_deref().and_then(|text| text.split_whitespace().last());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let document = |part: &Part| {
            let (name, title) = match part.shape {
                Shape::Transit => ("changes.json", "Changes under traffic"),
                Shape::Slice => ("changes-slice.json", "Changes of a slice's owner under traffic"),
            };
            let document = json!({
                "schema": SCHEMA,
                "title": title,
                "command": own_command(),
                "version": version.unwrap_or_default(),
                "started_unix_s": now.as_secs(),
                "machine": part.machine.clone().unwrap_or_else(machine),
                "outcome": {
                    "kind": "changes",
                    "subject": "sluice",
                    "traffic": part.traffic.clone().unwrap_or_default(),
                    "ndr_pps": part.ndr_pps,
                    "changes": part.rows.iter().map(change).collect::<Vec<_>>(),
                },
            });
            (name, document)
        };
        self.outcome.parts.iter().map(document).collect()
    }

    /// The table.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = String::new();
        for part in &self.outcome.parts {
            let traffic = part.traffic.as_deref().unwrap_or("no traffic");
            // A String takes writes without an error.
            let _ = writeln!(
                text,
                "{traffic}; loads are shares of {:.3} Mpps\n\
                 {:30} {:>5} {:>9} {:>6} {:>13}  {:22} lost, each control",
                part.ndr_pps / 1e6,
                "",
                "load",
                "pps",
                "times",
                "blocked, us",
                "lost, each run",
            );
            for row in &part.rows {
                let _ = writeln!(text, "{}", line(row));
                if !row.lost.is_empty() {
                    let _ = writeln!(text, "{:36} changes: {}", "", row.observed.words());
                }
                if !row.control_lost.is_empty() {
                    let _ = writeln!(text, "{:36} control: {}", "", row.control_observed.words());
                }
            }
            text.push('\n');
        }
        text += "times: changes in a run. blocked, for one change: (median lost - median lost of the \
                 controls, not below 0) / times / pps\n\
                 live: from a new file until it is in force. swap: the part of a worker's turn that takes a new \
                 generation. longest turn, rounded up by an eighth at most, and swap have in them what the core did \
                 for others meanwhile; without a core: what the worker waited for that in all runs\n";
        text
    }
}

fn line(row: &Row) -> String {
    let title = row.kind.title();
    let load = format!("{:.0} %", row.load * 100.0);
    let mut line = format!("{title:30} {load:>5} {:>9.0}", row.offered_pps);
    if row.lost.is_empty() || row.control_lost.is_empty() {
        let reason = row.skipped.as_deref().unwrap_or("no run");
        let _ = write!(line, "  skipped: {reason}");
        return line;
    }
    let list = |lost: &[u64]| lost.iter().map(u64::to_string).collect::<Vec<_>>().join(" ");
    let (lost, control) = (list(&row.lost), list(&row.control_lost));
    let (times, net) = (row.times_median(), row.net_us());
    let _ = write!(line, " {times:>6} {net:>13.2}  {lost:22} {control}");
    if let Some(reason) = &row.skipped {
        let _ = write!(line, "  then: {reason}");
    }
    line
}

fn change(row: &Row) -> Value {
    let nothing = row.lost.is_empty() || row.control_lost.is_empty();
    json!({
        "name": row.kind.title(),
        "load": row.load,
        "offered_pps": row.offered_pps,
        "duration_s": row.duration.as_secs_f64(),
        "times": row.times_median(),
        "lost": row.lost,
        "control_lost": row.control_lost,
        "blocked_us": row.blocked_us(&row.lost),
        "control_blocked_us": row.blocked_us(&row.control_lost),
        "router": (!nothing).then(|| told(row)),
        // One that failed in a later round has figures, and no reason to be left out.
        "skipped": row.skipped.as_ref().filter(|_| nothing),
    })
}

/// What the router told, as the documents have it.
fn told(row: &Row) -> Value {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let Row { observed, control_observed, .. } = row;
    json!({
        "longest_turn_us": observed.longest_turn.map(us),
        "control_longest_turn_us": control_observed.longest_turn.map(us),
        "waited_us": us(observed.waited),
        "control_waited_us": us(control_observed.waited),
        "swap_us": observed.swap_mean().map(us),
        "live_us": observed.live().map(|(median, _)| us(median)),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use load::document::{Document, Outcome as Measured};

    use super::*;
    use crate::changes::kind::Kind;
    use crate::changes::observed::Observed;

    #[test]
    fn the_documents_are_ones_that_the_report_reads() {
        let row = |kind, skipped: Option<&str>| Row {
            kind,
            load: 0.5,
            offered_pps: 50_000.0,
            duration: Duration::from_secs(5),
            times: if skipped.is_none() { vec![1, 1, 1] } else { Vec::new() },
            lost: if skipped.is_none() { vec![70, 50, 60] } else { Vec::new() },
            control_lost: if skipped.is_none() { vec![10, 0, 5] } else { Vec::new() },
            observed: Observed {
                longest_turn: Some(Duration::from_millis(4)),
                swaps: 2,
                swapping: Duration::from_micros(3),
                live_after: vec![Duration::from_millis(700)],
                ..Observed::default()
            },
            control_observed: Observed::default(),
            skipped: skipped.map(str::to_owned),
        };
        let part = |shape, rows| Part {
            shape,
            ndr_pps: 100_000.0,
            traffic: Some("60 B".to_owned()),
            machine: None,
            rows,
        };
        let outcome = Outcome {
            parts: vec![
                part(Shape::Transit, vec![row(Kind::Restart, None)]),
                part(Shape::Slice, vec![row(Kind::SliceMove, Some("no second node"))]),
            ],
        };
        let report = Report { outcome: &outcome, sluice: Path::new("/nonexistent/sluice") };
        let documents = report.documents();
        let changes = documents.iter().map(|(_, document)| {
            let document = Document::parse(&document.to_string()).expect("its shape");
            let Measured::Changes(changes) = document.outcome else { panic!("changes") };
            assert!((changes.ndr_pps - 100_000.0).abs() < 1e-9);
            changes.changes.into_iter().next().expect("a row")
        });
        let changes: Vec<_> = changes.collect();
        assert_eq!((changes[0].times, &changes[0].lost[..]), (1, &[70, 50, 60][..]));
        assert!((changes[0].blocked_us - 1200.0).abs() < 1e-6);
        assert!((changes[0].control_blocked_us - 100.0).abs() < 1e-6);
        assert_eq!(changes[0].skipped, None);
        let router = changes[0].router.as_ref().expect("what the router told");
        assert_eq!((router.longest_turn_us, router.control_longest_turn_us), (Some(4000.0), None));
        assert_eq!((router.swap_us, router.live_us), (Some(1.5), Some(700_000.0)));
        assert_eq!(changes[1].router, None);
        assert_eq!(changes[1].skipped.as_deref(), Some("no second node"));
        let table = report.table();
        assert!(table.contains("1       1100.00  70 50 60"), "{table}");
        assert!(table.contains("changes: live after 700 ms"), "{table}");
        assert!(table.contains("skipped: no second node"), "{table}");
    }
}
