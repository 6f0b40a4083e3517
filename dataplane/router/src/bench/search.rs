//! `sluice bench search`: the highest rates without loss (NDR) and with half a percent of it (PDR) of
//! whatever lies between two interfaces, by MLRsearch, and its latency at shares of NDR.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Args;
use load::document::{Bound, LatencyAt, Outcome, SearchOutcome, Trial};
use load::rate::Rate;
use load::search::{Goal, LatencyPlan, Plan, Watch, latency, search};
use load::void::Guarded;
use load::{Rig, SinkKind};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::bench::document;
use crate::bench::traffic::{TrafficArgs, share, time};

#[derive(Debug, Args)]
pub(crate) struct SearchArgs {
    /// What is measured, for the report ("sluice", "linux")
    #[arg(long, value_name = "NAME", default_value = "device under test")]
    subject: String,
    /// Which core does what, for the report
    #[arg(long, value_name = "TEXT")]
    placement: Option<String>,
    /// The part of a CPU's time that the hypervisor may take away before a trial is void
    #[arg(long, value_name = "SHARE", default_value = "1%", value_parser = share)]
    steal_max: f64,
    /// The result as a JSON document, for `sluice bench report`
    #[arg(long)]
    json: bool,
    /// Write the JSON document to this file too
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    // A heading holds for all options after it, so those with one come last.
    #[command(flatten)]
    traffic: TrafficArgs,
    #[command(flatten)]
    goals: GoalArgs,
}

/// What is searched, and how much evidence it takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Search")]
struct GoalArgs {
    /// The lowest rate that is tried (1000, 500kpps, 2Gbit)
    #[arg(long, value_name = "RATE", default_value = "1000")]
    min_rate: Rate,
    /// The highest one; max is what the generator reaches
    #[arg(long, value_name = "RATE", default_value = "max")]
    max_rate: Rate,
    /// How close lower and upper bound have to get, as a share of the upper one
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = share)]
    width: f64,
    /// Loss that PDR allows
    #[arg(long, value_name = "SHARE", default_value = "0.5%", value_parser = share)]
    pdr_loss: f64,
    /// Length of the trials that decide (RFC 2544, section 24, asks for 60s)
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    trial: Duration,
    /// Length of the first trials, which only narrow the search down; at most 1s and --trial
    /// unless given
    #[arg(long, value_name = "TIME", value_parser = time)]
    trial_initial: Option<Duration>,
    /// Sum of the trials that decides about a rate in any case; 21s or --trial unless given
    #[arg(long, value_name = "TIME", value_parser = time)]
    trials_sum: Option<Duration>,
    /// Share of these trials that may lose more than the goal allows; 0% lets one condemn a rate
    #[arg(long, value_name = "SHARE", default_value = "50%", value_parser = share)]
    exceed: f64,
    /// Length of the trial before the search, whose result is ignored
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = time)]
    warm_up: Duration,
    /// How often a void trial is repeated before the search fails
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeats: u32,
    /// End the search after this time with what is known
    #[arg(long, value_name = "TIME", default_value = "20m", value_parser = time)]
    max_duration: Duration,
    /// The rate at which latency counts as that of an idle device (at most a tenth of NDR is used)
    #[arg(long, value_name = "RATE", default_value = "1000")]
    idle_rate: Rate,
    /// Length of the trials that measure latency; 0s leaves them out
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = time)]
    latency_trial: Duration,
}

impl GoalArgs {
    /// The plan for frames of `frame_bytes` on the average.
    fn plan(&self, frame_bytes: f64) -> Result<Plan> {
        let Some(min_pps) = self.min_rate.pps(frame_bytes) else {
            bail!("--min-rate max: the lowest rate has to be a number");
        };
        let ndr = Goal {
            exceed_ratio: self.exceed,
            width: self.width,
            trial_initial: self
                .trial_initial
                .unwrap_or_else(|| self.trial.min(Goal::ndr().trial_initial)),
            trial_final: self.trial,
            trials_sum: self.trials_sum.unwrap_or_else(|| self.trial.max(Goal::ndr().trials_sum)),
            ..Goal::ndr()
        };
        let pdr = Goal { name: Goal::pdr().name, loss_ratio: self.pdr_loss, ..ndr.clone() };
        Ok(Plan {
            goals: vec![ndr, pdr],
            min_pps,
            max_pps: self.max_rate.pps(frame_bytes),
            warm_up: self.warm_up,
            repeats_max: self.repeats,
            duration_max: self.max_duration,
        })
    }

    fn latency_plan(&self, frame_bytes: f64) -> Result<LatencyPlan> {
        if self.latency_trial > self.max_duration {
            bail!(
                "--latency-trial {:?}: longer than the search may take, {:?}",
                self.latency_trial,
                self.max_duration
            );
        }
        let Some(idle_pps) = self.idle_rate.pps(frame_bytes) else {
            bail!("--idle-rate max: the rate of an idle device has to be a number");
        };
        Ok(LatencyPlan {
            idle_pps,
            trial: self.latency_trial,
            repeats_max: self.repeats,
            ..LatencyPlan::default()
        })
    }
}

pub(crate) fn run(args: &SearchArgs) -> Result<()> {
    let rig_plan = args.traffic.plan()?;
    if rig_plan.sink == SinkKind::None {
        bail!("--sink none: a search has to count what comes back");
    }
    let frame_bytes = rig_plan.source.frame_bytes_mean();
    let plan = args.goals.plan(frame_bytes)?;
    let latency_plan = args.goals.latency_plan(frame_bytes)?;
    document::writable(args.out.iter())?;
    let rig = Rig::open(&rig_plan)?;
    for signal in [SIGINT, SIGTERM] {
        // The second one ends the process: a driver that hangs must not hold it.
        signal_hook::flag::register_conditional_default(signal, rig.stop())?;
        signal_hook::flag::register(signal, rig.stop())?;
    }
    let traffic = rig.text();
    let mut tester = Guarded::new(rig, args.traffic.interfaces(), args.steal_max);
    let mut progress = Progress::new();

    let found = search(&mut tester, &plan, &mut progress)?;
    let [ndr, pdr] = found.bounds[..] else { bail!("the search has no result for NDR and PDR") };
    let (mut trials, mut notes) = (found.trials, found.notes);
    let mut latencies = Vec::new();
    if !args.goals.latency_trial.is_zero() {
        let found = latency(&mut tester, ndr.lower_pps, &latency_plan, &mut progress)?;
        latencies = found.at;
        trials.extend(found.trials);
        notes.extend(found.notes);
    }

    let outcome = SearchOutcome {
        subject: args.subject.clone(),
        traffic,
        frame_bytes: args.traffic.frame_bytes(),
        placement: args.placement.clone(),
        ndr,
        pdr,
        latency: latencies,
        trials,
        notes,
    };
    let text = render(&outcome);
    let title = format!("Rate without loss: {}", args.subject);
    document::finish(&title, Outcome::Search(outcome), args.json, args.out.as_deref(), &text)
}

/// A line on stderr for each trial.
struct Progress {
    start: Instant,
    trials: u32,
}

impl Progress {
    fn new() -> Self {
        Self { start: Instant::now(), trials: 0 }
    }
}

impl Watch for Progress {
    fn elapsed(&mut self, _: Duration) -> Duration {
        self.start.elapsed()
    }

    fn trial(&mut self, trial: &Trial, duration: Duration) {
        self.trials += 1;
        let line = trial_line(self.trials, trial, duration);
        eprintln!("{:>7.1} s  {line}", self.start.elapsed().as_secs_f64());
    }
}

fn trial_line(number: u32, trial: &Trial, duration: Duration) -> String {
    let asked = match trial.asked_pps {
        Some(rate_pps) => format!("{rate_pps:>12.0} packets/s"),
        None => "as fast as it goes".into(),
    };
    let mut line = format!("trial {number:>3}  {asked}  {duration:>5?}  ");
    let _ = match trial.lost {
        _ if trial.sent == 0 => write!(line, "nothing sent"),
        0 => write!(line, "no loss"),
        lost => {
            let share = 100.0 * lost as f64 / trial.sent as f64;
            write!(line, "lost {lost} of {} ({share:.4} %)", trial.sent)
        }
    };
    if trial.is_generator_limited {
        line.push_str(", and the generator fell short");
    }
    if !trial.void.is_empty() {
        let _ = write!(line, "  VOID: {}", trial.void.join("; "));
    }
    line
}

fn render(outcome: &SearchOutcome) -> String {
    // A String takes writes without an error.
    let mut text = String::new();
    let _ = writeln!(text, "{}: {}", outcome.subject, outcome.traffic);
    if let Some(placement) = &outcome.placement {
        let _ = writeln!(text, "{placement}");
    }
    let _ = writeln!(
        text,
        "\n{:<5} {:>7} {:>14} {:>14} {:>14}  {:<10} evidence at the bound",
        "goal", "loss", "lower pps", "upper pps", "forwarded pps", "conclusive"
    );
    for (name, bound) in [("NDR", &outcome.ndr), ("PDR", &outcome.pdr)] {
        bound_row(&mut text, name, bound);
    }
    let bound = &outcome.ndr;
    let _ = writeln!(
        text,
        "\nMLRsearch: a rate is decided by trials that sum up to {} s at most, of which {:.0} % may \
         lose more than\nthe goal allows; bounds within {:.2} %. {} trials, void ones included.",
        bound.goal_trials_s,
        100.0 * bound.exceed_ratio,
        100.0 * bound.width,
        outcome.trials.len()
    );
    if !outcome.latency.is_empty() {
        latency_table(&mut text, &outcome.latency);
    }
    for note in &outcome.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn bound_row(text: &mut String, name: &str, bound: &Bound) {
    let rate = |rate: Option<f64>, missing: &str| {
        rate.map_or_else(|| missing.to_owned(), |pps| format!("{pps:.0}"))
    };
    let _ = writeln!(
        text,
        "{name:<5} {:>5.1} % {:>14} {:>14} {:>14}  {:<10} {} s of {} s trials, {} s with more loss",
        100.0 * bound.loss_ratio_max,
        rate(bound.lower_pps, "none"),
        rate(bound.upper_pps, "not reached"),
        rate(bound.forwarded_pps, "-"),
        if bound.is_conclusive { "yes" } else { "no" },
        bound.trials_s,
        bound.trial_s,
        bound.high_loss_s,
    );
}

fn latency_table(text: &mut String, latency: &[LatencyAt]) {
    let _ = writeln!(
        text,
        "\n{:<6} {:>12} {:>10} {:>10} {:>10} {:>10} {:>13} {:>13}",
        "load",
        "packets/s",
        "p50 us",
        "p99 us",
        "p99.9 us",
        "max us",
        "p50 over idle",
        "p99 over idle"
    );
    let us = |ns: u64| ns as f64 / 1000.0;
    let over = |ns: Option<i64>| {
        ns.map_or_else(String::new, |ns| format!("{:+.1} us", ns as f64 / 1000.0))
    };
    for at in latency {
        let _ = writeln!(
            text,
            "{:<6} {:>12.0} {:>10.1} {:>10.1} {:>10.1} {:>10.1} {:>13} {:>13}",
            at.load,
            at.rate_pps,
            us(at.latency.p50_ns),
            us(at.latency.p99_ns),
            us(at.latency.p999_ns),
            us(at.latency.max_ns),
            over(at.p50_over_idle_ns),
            over(at.p99_over_idle_ns),
        );
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use load::document::Latency;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        goals: GoalArgs,
    }

    fn goals(line: &str) -> GoalArgs {
        let words = std::iter::once("search").chain(line.split_whitespace());
        Line::try_parse_from(words).expect("the options are right").goals
    }

    #[test]
    fn the_defaults_are_those_of_csit() {
        assert_eq!(goals("").plan(60.0).expect("a plan"), Plan::default());
        assert_eq!(goals("").latency_plan(60.0).expect("a plan"), LatencyPlan::default());
    }

    #[test]
    fn longer_and_shorter_trials_take_the_rest_along() {
        let goal = |line| goals(line).plan(60.0).expect("a plan").goals[0].clone();
        let long = goal("--trial 60s --exceed 0%");
        assert_eq!((long.trial_initial, long.trials_sum.as_secs()), (Duration::from_secs(1), 60));
        let short = goal("--trial 200ms --trials-sum 1");
        assert_eq!(short.trial_initial, Duration::from_millis(200));
        assert_eq!(short.trials_sum, Duration::from_secs(1));
    }

    #[test]
    fn rates_in_bits_are_those_of_the_frames() {
        let plan = goals("--min-rate 512k --max-rate 512Mbit").plan(60.0).expect("a plan");
        assert_eq!((plan.min_pps, plan.max_pps), (512_000.0, Some(1_000_000.0)));
        assert!(goals("--min-rate max").plan(60.0).is_err());
        assert!(goals("--idle-rate max").latency_plan(60.0).is_err());
    }

    #[test]
    fn a_trial_is_one_line() {
        let trial = Trial { asked_pps: Some(2e6), sent: 2_000_000, lost: 20, ..Trial::default() };
        let line = trial_line(7, &trial, Duration::from_secs(1));
        assert_eq!(line, "trial   7       2000000 packets/s     1s  lost 20 of 2000000 (0.0010 %)");
        let void = vec!["its ring overflowed".to_owned()];
        let trial = Trial { sent: 5, void, is_generator_limited: true, ..Trial::default() };
        let line = trial_line(8, &trial, Duration::from_millis(500));
        assert!(line.starts_with("trial   8  as fast as it goes  500ms"), "{line}");
        assert!(
            line.ends_with("and the generator fell short  VOID: its ring overflowed"),
            "{line}"
        );
    }

    #[test]
    fn the_table_states_bounds_and_evidence() {
        let ndr = Bound {
            lower_pps: Some(20_000.0),
            upper_pps: Some(20_100.0),
            forwarded_pps: Some(20_000.0),
            trial_s: 1.0,
            trials_s: 11.0,
            goal_trials_s: 21.0,
            exceed_ratio: 0.5,
            width: 0.005,
            is_conclusive: true,
            ..Bound::default()
        };
        let pdr = Bound { loss_ratio_max: 0.005, upper_pps: None, is_conclusive: false, ..ndr };
        let latency = Latency { p50_ns: 12_340, p99_ns: 45_000, ..Latency::default() };
        let outcome = SearchOutcome {
            subject: "linux".into(),
            traffic: "64 B".into(),
            frame_bytes: Some(60),
            placement: None,
            ndr,
            pdr,
            latency: vec![LatencyAt {
                load: "90 %".into(),
                rate_pps: 18_000.0,
                latency,
                p50_over_idle_ns: Some(2_340),
                p99_over_idle_ns: Some(-1_000),
            }],
            trials: vec![Trial::default(); 3],
            notes: vec!["PDR was met at the highest rate.".into()],
        };
        let text = render(&outcome);
        for part in [
            "NDR     0.0 %          20000          20100          20000  yes        11 s of 1 s trials",
            "PDR     0.5 %          20000    not reached",
            "sum up to 21 s at most, of which 50 % may",
            "bounds within 0.50 %. 3 trials",
            "+2.3 us       -1.0 us",
            "note: PDR was met",
        ] {
            assert!(text.contains(part), "{part:?} is missing in\n{text}");
        }
    }
}
