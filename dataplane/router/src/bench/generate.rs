//! `sluice bench generate`: sends traffic by one interface, counts what comes back by another, and
//! says what was lost, late, or out of order.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use load::document::{Outcome, Second, Trial, TrialOutcome};
use load::rate::Rate;
use load::{Rig, RigPlan};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::document;
use crate::bench::traffic::{TrafficArgs, time};

#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    traffic: TrafficArgs,
    /// Packets per second in total (250000, 500kpps, 1M), bits per second of layer 2 with check
    /// sequence (2Gbit), or max
    #[arg(long, help_heading = "Run", value_name = "RATE", default_value = "max")]
    rate: Rate,
    /// How long to send
    #[arg(long, help_heading = "Run", value_name = "TIME", default_value = "10s", value_parser = time)]
    duration: Duration,
    /// Send no more packets than this
    #[arg(long, help_heading = "Run", value_name = "N", value_parser = load::rate::count)]
    packets: Option<u64>,
    /// The result as a JSON document, for `sluice bench report`
    #[arg(long, help_heading = "Run")]
    json: bool,
    /// Write the JSON document to this file too
    #[arg(long, help_heading = "Run", value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write what was sent and received in each second to this file
    #[arg(long, help_heading = "Run", value_name = "FILE")]
    csv: Option<PathBuf>,
}

pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    let plan = RigPlan { packets_max: args.packets, ..args.traffic.plan()? };
    let rate_pps = args.rate.pps(plan.source.frame_bytes_mean());
    let mut rig = Rig::open(&plan)?;
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the process: a driver that hangs must not hold it.
        signal_hook::flag::register_conditional_default(signal, rig.stop())?;
        signal_hook::flag::register(signal, rig.stop())?;
    }
    document::writable(args.out.iter().chain(&args.csv))?;
    let progress = Progress::new(args.duration);
    let mut seconds = Vec::new();
    let trial = rig.trial(rate_pps, args.duration, &mut |second| {
        progress.second(&second, args.duration);
        seconds.push(second);
    });
    progress.end();
    let outcome = TrialOutcome { traffic: rig.text(), trial: trial?, seconds };
    drop(rig);
    let text = render(&outcome);
    let csv = args.csv.as_deref().map_or(Ok(()), |path| write_csv(path, &outcome.seconds));
    let outcome = Outcome::Trial(outcome);
    document::finish("One run", outcome, args.json, args.out.as_deref(), &text)?;
    csv
}

/// A line on the terminal, if there is one.
struct Progress(ProgressBar);

impl Progress {
    fn new(duration: Duration) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {msg}") {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn second(&self, second: &Second, duration: Duration) {
        let done_ms = (second.at_s.min(duration.as_secs_f64()) * 1000.0) as u64;
        self.0.set_position(done_ms);
        self.0.set_message(format!("{} sent, {} received", second.sent, second.received));
    }

    fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn write_csv(path: &Path, seconds: &[Second]) -> Result<()> {
    let mut text = String::from("at_s,sent,received\n");
    for Second { at_s, sent, received } in seconds {
        let _ = writeln!(text, "{at_s:.3},{sent},{received}");
    }
    document::write_whole(path, &text)
}

fn render(outcome: &TrialOutcome) -> String {
    let TrialOutcome { traffic, trial, .. } = outcome;
    let per_second = |rate_pps: f64| match trial.sent {
        2.. => format!("{rate_pps:>14.0} packets/s"),
        // One packet has no rate.
        _ => String::new(),
    };
    let share = |count: u64| match trial.sent {
        0 => String::new(),
        sent => format!("{:>14.4} %", 100.0 * count as f64 / sent as f64),
    };
    // A String takes writes without an error.
    let mut text = format!("{traffic}\n\n");
    let _ = writeln!(text, "{:<11}{:>14.3} s", "duration", trial.duration_s);
    let _ = writeln!(text, "{:<11}{:>14} {}", "sent", trial.sent, per_second(trial.sent_pps()));
    let received_pps = per_second(trial.received_pps());
    let _ = writeln!(text, "{:<11}{:>14} {received_pps}", "received", trial.received);
    for (name, count) in
        [("lost", trial.lost), ("reordered", trial.reordered), ("duplicated", trial.duplicated)]
    {
        let _ = writeln!(text, "{name:<11}{count:>14} {}", share(count));
    }
    let _ = writeln!(text, "{:<11}{:>14}", "refused", trial.refused);
    let _ = writeln!(text, "{:<11}{:>14}", "foreign", trial.foreign);
    if let Some(latency) = &trial.latency {
        let us = |ns: u64| ns as f64 / 1000.0;
        let _ = writeln!(
            text,
            "{:<11}min {:.1}, p50 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1} us",
            "latency",
            us(latency.min_ns),
            us(latency.p50_ns),
            us(latency.p99_ns),
            us(latency.p999_ns),
            us(latency.max_ns),
        );
    }
    verdict(&mut text, trial);
    text
}

/// Packets that were sent so late are worth a word: latency and rate are not those of the plan.
const LATE_NS: u64 = 1_000_000;

/// What keeps the figures from being those of the device under test.
fn verdict(text: &mut String, trial: &Trial) {
    if let Some(late_ns) = trial.late_max_ns.filter(|late_ns| *late_ns >= LATE_NS) {
        let _ = writeln!(
            text,
            "note: packets were sent up to {:.1} ms after they were due; latency counts from when they \
             were sent",
            late_ns as f64 / 1e6
        );
    }
    if let (true, Some(asked)) = (trial.is_generator_limited, trial.asked_pps) {
        let _ = writeln!(
            text,
            "note: the generator is the bottleneck: it did not reach {asked:.0} packets/s"
        );
    }
    for why in &trial.void {
        let _ = writeln!(text, "VOID: {why}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_told_with_its_doubts() {
        let trial = Trial {
            asked_pps: Some(1e6),
            duration_s: 2.0,
            sent: 1000,
            received: 990,
            lost: 10,
            void: vec!["cut short after 2.0 of 10.0 s".into()],
            is_generator_limited: true,
            late_max_ns: Some(2_500_000),
            ..Trial::default()
        };
        let text = render(&TrialOutcome { traffic: "60 B".into(), trial, seconds: Vec::new() });
        for part in [
            "  500 packets/s",
            "1.0000 %",
            "did not reach 1000000",
            "VOID: cut short after 2.0",
            "2.5 ms",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }

    /// Ten packets a second for two seconds take 1.9 s from the first to the last.
    #[test]
    fn rates_are_those_of_the_intervals() {
        let trial = Trial { duration_s: 1.9, sent: 20, received: 10, ..Trial::default() };
        let text = render(&TrialOutcome { traffic: String::new(), trial, seconds: Vec::new() });
        assert!(text.contains(" 10 packets/s") && text.contains(" 5 packets/s"), "{text}");
        let trial = Trial { sent: 1, received: 1, ..Trial::default() };
        let text = render(&TrialOutcome { traffic: String::new(), trial, seconds: Vec::new() });
        assert!(!text.contains("packets/s"), "one packet has no rate: {text}");
    }

    #[test]
    fn seconds_are_rows() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let second = Second { at_s: 1.0, sent: 5, received: 4 };
        write_csv(file.path(), &[second]).expect("rows");
        let text = std::fs::read_to_string(file.path()).expect("rows");
        assert_eq!(text, "at_s,sent,received\n1.000,5,4\n");
    }
}
