//! What a change costs: packets lost while the router is changed, over the offered rate.
//!
//! ```text
//!   transit   generator --> t0 ==> d0 [node a] d1 ==> t1 --> sink
//!
//!   slice     generator --> t0 ==> d0 [node a] d1 ==+  bridge  +==> t1 --> sink
//!                                                   +==> e0 [node b]
//! ```
//!
//! [`kind`] names the changes and [`acts`] makes them, [`bed`] and [`site`] are where, [`traffic`] is
//! the generator in the background, [`rounds`] alternates runs with the change and without it, and
//! [`report`] tells what came of it, with what the router itself has [`observed`].
//!
//! # What is computed
//! A run offers one rate for some time, and changes the router again and again meanwhile; its control
//! offers the same for as long and changes nothing. The sink counts different sequence numbers, so
//! losses are exact. For one change and load:
//!
//! ```text
//!   blocked = max(0, median(lost) - median(lost of the controls)) / changes of a run / offered rate
//! ```
//!
//! The table has that; the documents have both terms by themselves, as `blocked_us` and
//! `control_blocked_us`. Only changes are counted that were complete while packets were sent. Runs
//! whose generator or sink was disturbed (the document calls them void) are made again, unless the loss
//! is ten times what the disturbance can have caused.
//!
//! # Which core does what
//! The generator has the first core to itself, the worker of node a is pinned to the second one, and
//! node b's worker to a third one, or to node a's if there is none. Softirqs run where packets raise
//! them, as a restart would undo any other arrangement. Commands, compilers and the routers' control
//! threads run on all cores but the generator's: if there are only two, they take time from the
//! worker, and what is lost for that is part of what is measured.

pub mod acts;
pub mod bed;
pub mod configuration;
pub mod kind;
pub mod node;
pub mod observed;
pub mod padded;
pub mod report;
pub mod rounds;
pub mod site;
pub mod traffic;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use self::kind::Kind;
use self::rounds::{Plan, Rounds};
use crate::lab::{Binaries, cleanup};
use crate::peers;

/// Shares of NDR at which everything is measured.
const LOADS: [f64; 2] = [0.5, 0.9];

/// What is measured, and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Less than three minutes in all: one short run of each change and load.
    #[arg(long)]
    pub quick: bool,
    /// Runs of each change and load, each with a control; 5 unless given, 1 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=100))]
    pub runs: Option<u8>,
    /// The rate without loss that loads are shares of, in packets per second (250000, 500k, 1M);
    /// it is searched for unless given.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub ndr: Option<f64>,
    /// A folder for the results as JSON, for `sluice bench report`.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Prints the documents as JSON, one a line; what people read goes to the standard error.
    #[arg(long)]
    pub json: bool,
    /// Only these changes.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub changes: Vec<Kind>,
}

impl Options {
    fn plan(&self) -> Plan {
        let kinds = if self.changes.is_empty() { Kind::ALL.to_vec() } else { self.changes.clone() };
        Plan {
            kinds,
            loads: LOADS.to_vec(),
            runs: self.runs.map_or(if self.quick { 1 } else { 5 }, usize::from),
            duration: Duration::from_secs(if self.quick { 2 } else { 5 }),
            ndr_pps: self.ndr,
            search: if self.quick { traffic::Search::SHORT } else { traffic::Search::LONG },
        }
    }
}

/// Measures what changes cost. Returns whether every change was measured.
///
/// # Errors
/// When nothing can be measured here, or the outcome cannot be written.
pub fn run(options: &Options, binaries: &Binaries) -> Result<bool> {
    cleanup::on_signals()?;
    for name in cleanup::delete_leftovers(peers::GROUP)? {
        eprintln!("deleted {name}, which an earlier run left");
    }
    peers::require_jit()?;
    let started = Instant::now();
    let plan = options.plan();
    let seconds = plan.duration_about().as_secs();
    eprintln!("{} changes, {} runs each: {seconds} s or so", plan.kinds.len(), plan.runs);
    let outcome = Rounds::new(binaries)?.run(&plan);
    let report = report::Report { outcome: &outcome, sluice: &binaries.sluice };
    report.print(options.json)?;
    if let Some(folder) = &options.out {
        report.write(folder)?;
    }
    eprintln!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(outcome.rows().all(|row| row.skipped.is_none()))
}

/// Reads a rate in packets per second.
fn rate(text: &str) -> Result<f64, String> {
    let digits = text.strip_suffix("pps").unwrap_or(text);
    let (digits, unit) = match digits.char_indices().last() {
        Some((end, 'k')) => (&digits[..end], 1e3),
        Some((end, 'M')) => (&digits[..end], 1e6),
        _ => (digits, 1.0),
    };
    match digits.parse::<f64>() {
        Ok(number) if number.is_finite() && number * unit >= 1.0 => Ok(number * unit),
        _ => Err("packets per second are wanted, such as 250000, 500k or 1M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_units_and_a_least() {
        for (text, pps) in
            [("250000", 250e3), ("500k", 500e3), ("1.5Mpps", 1.5e6), ("20kpps", 20e3)]
        {
            assert_eq!(rate(text), Ok(pps), "{text}");
        }
        for text in ["", "k", "0", "-5", "nan", "inf", "1G", "2Gbit"] {
            assert!(rate(text).is_err(), "{text}");
        }
    }
}
