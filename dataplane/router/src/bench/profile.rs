//! `sluice bench profile`: where the time of a running router's workers goes, stage by stage.
//!
//! The workers time one busy turn in some all the time; this takes the difference of two reports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use control::status::StatusReport;
use load::document::{Outcome, ProfileOutcome, Stage};
use serde_json::Value;

use crate::bench::document;
use crate::cli::SocketArgs;
use crate::client;

#[derive(Debug, Args)]
pub(crate) struct ProfileArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// How long to watch, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    duration: f64,
    /// What the router does meanwhile, for the report
    #[arg(long, value_name = "TEXT", default_value = "a running router")]
    subject: String,
    /// The result as a JSON document, for `sluice bench report`
    #[arg(long)]
    json: bool,
    /// Write the JSON document to this file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &ProfileArgs) -> Result<()> {
    let Ok(duration) = Duration::try_from_secs_f64(args.duration) else {
        bail!("--duration {}: not a number of seconds", args.duration);
    };
    let before = client::report(&args.socket.socket)?;
    std::thread::sleep(duration);
    let after = client::report(&args.socket.socket)?;
    if after.router.uptime_s < before.router.uptime_s {
        bail!("the router was restarted meanwhile: its counters began anew");
    }
    let profile = difference(&before, &after, args.subject.clone());
    if profile.packets == 0 {
        bail!(
            "no timed turn carried a packet in {:.1} s: send traffic through the router meanwhile \
             (`sluice bench generate`)",
            duration.as_secs_f64()
        );
    }
    let text = render(&profile);
    let title = format!("Clocks a packet: {}", args.subject);
    document::finish(&title, Outcome::Profile(profile), args.json, args.out.as_deref(), &text)
}

/// Clocks by stage of all workers together, and packets of the timed turns.
fn totals(report: &StatusReport) -> (Vec<(String, u64)>, u64, u64) {
    let mut stages: Vec<(String, u64)> = Vec::new();
    for row in report.workers.iter().flat_map(|worker| &worker.stages) {
        match stages.iter_mut().find(|(name, _)| *name == row.stage) {
            Some((_, clocks)) => *clocks += row.clocks,
            None => stages.push((row.stage.clone(), row.clocks)),
        }
    }
    let sum = |value: fn(&control::status::WorkerStatus) -> u64| {
        report.workers.iter().map(value).sum::<u64>()
    };
    (stages, sum(|worker| worker.timed_packets), sum(|worker| worker.timed_turns))
}

/// Cycles and packets of each plugin, over all calls.
fn plugins(report: &StatusReport) -> BTreeMap<String, (u64, u64)> {
    let number = |status: &Value, key| status["total"][key].as_u64();
    report
        .plugins
        .iter()
        .filter_map(|status| {
            let name = status["name"].as_str()?.to_owned();
            Some((name, (number(status, "cycles")?, number(status, "packets")?)))
        })
        .collect()
}

fn difference(before: &StatusReport, after: &StatusReport, subject: String) -> ProfileOutcome {
    let (stages_before, packets_before, turns_before) = totals(before);
    let (stages, packets, turns) = totals(after);
    let packets = packets.saturating_sub(packets_before);
    let turns = turns.saturating_sub(turns_before);
    let per = |clocks: u64, packets: u64| clocks as f64 / packets.max(1) as f64;
    let mut rows = Vec::new();
    for (name, clocks) in stages {
        let then =
            stages_before.iter().find(|(each, _)| *each == name).map_or(0, |(_, then)| *then);
        let clocks_per_packet = per(clocks.saturating_sub(then), packets);
        rows.push(Stage { name, clocks_per_packet });
    }
    let plugins_before = plugins(before);
    for (name, (cycles, seen)) in plugins(after) {
        let (cycles_then, seen_then) = plugins_before.get(&name).copied().unwrap_or_default();
        let seen = seen.saturating_sub(seen_then);
        if seen > 0 {
            let clocks_per_packet = per(cycles.saturating_sub(cycles_then), seen);
            rows.push(Stage { name: format!("plugin {name}"), clocks_per_packet });
        }
    }
    ProfileOutcome {
        subject,
        tsc_hz: after.router.tsc_hz,
        packets,
        batch_mean: per(packets, turns),
        stages: rows,
    }
}

fn render(profile: &ProfileOutcome) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    // A String takes writes without an error. A plugin's time is part of its hook's stage.
    let turn: f64 = profile
        .stages
        .iter()
        .filter(|stage| !stage.name.starts_with("plugin "))
        .map(|stage| stage.clocks_per_packet)
        .sum();
    let _ = writeln!(text, "{:<24} {:>14} {:>7}", "stage", "clocks/packet", "share");
    for stage in profile.stages.iter().filter(|stage| stage.clocks_per_packet >= 0.05) {
        let share = 100.0 * stage.clocks_per_packet / turn.max(f64::MIN_POSITIVE);
        let clocks = stage.clocks_per_packet;
        let _ = writeln!(text, "{:<24} {clocks:>14.1} {share:>6.1} %", stage.name);
    }
    let _ = writeln!(
        text,
        "{:<24} {turn:>14.1}          (TSC {:.3} GHz; {} packets timed, {:.1} a turn)",
        "whole turn",
        profile.tsc_hz as f64 / 1e9,
        profile.packets,
        profile.batch_mean,
    );
    text
}

#[cfg(test)]
mod tests {
    use control::status::{RouterStatus, StageClocks, WorkerStatus};
    use serde_json::json;

    use super::*;

    fn report(clocks: [u64; 2], packets: u64, plugin: (u64, u64)) -> StatusReport {
        let worker = |share: u64| WorkerStatus {
            stages: [("parse", clocks[0] / share), ("flush", clocks[1] / share)]
                .map(|(stage, clocks)| StageClocks { stage: stage.to_owned(), clocks })
                .into(),
            timed_packets: packets / share,
            timed_turns: packets / share / 10,
            ..WorkerStatus::default()
        };
        StatusReport {
            router: RouterStatus { tsc_hz: 2_600_000_000, ..RouterStatus::default() },
            workers: vec![worker(2), worker(2)],
            plugins: vec![json!({
                "name": "filter", "total": { "cycles": plugin.0, "packets": plugin.1 }
            })],
            ..StatusReport::default()
        }
    }

    #[test]
    fn a_profile_is_the_difference_over_all_workers() {
        let before = report([1_000, 200], 100, (50, 10));
        let after = report([21_000, 10_200], 1_100, (10_050, 1_010));
        let profile = difference(&before, &after, "a test".to_owned());
        assert_eq!((profile.packets, profile.batch_mean), (1_000, 10.0));
        let rows: Vec<(&str, f64)> = profile
            .stages
            .iter()
            .map(|stage| (stage.name.as_str(), stage.clocks_per_packet))
            .collect();
        assert_eq!(rows, [("parse", 20.0), ("flush", 10.0), ("plugin filter", 10.0)]);
        let text = render(&profile);
        assert!(text.contains("whole turn                         30.0"), "{text}");
    }
}
