//! The rounds: of each change and load, a run with it and a control, in an order that alternates.
//!
//! Each change has a bed and routers of its own, so that nothing of one is left for the next, and one
//! that fails takes no other with it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::Value;

use super::bed::Shape;
use super::kind::Kind;
use super::observed::Observed;
use super::site::{Run, Site};
use super::traffic::Search;
use crate::lab::Binaries;
use crate::peers::statistics::median;

/// How often a run that says nothing is made again.
const REPEATS_MAX: u32 = 3;

/// What a run takes beyond sending, as a rule, and what a change does beyond its runs.
const RUN_OVERHEAD: Duration = Duration::from_millis(700);
const SET_UP: Duration = Duration::from_secs(3);

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The changes.
    pub kinds: Vec<Kind>,
    /// Shares of NDR, 0 to 1.
    pub loads: Vec<f64>,
    /// Runs of each change and load, and as many controls.
    pub runs: usize,
    /// Length of a run.
    pub duration: Duration,
    /// NDR in packets per second, if it is known.
    pub ndr_pps: Option<f64>,
    /// How it is searched for if it is not.
    pub search: Search,
}

impl Plan {
    /// How long it takes as a rule.
    #[must_use]
    pub fn duration_about(&self) -> Duration {
        let runs = 2 * self.loads.len() * self.runs;
        let shapes = self.shapes().len();
        let searches = if self.ndr_pps.is_some() { 0 } else { shapes };
        let times =
            |duration: Duration, count: usize| duration * u32::try_from(count).unwrap_or(u32::MAX);
        let run = |kind: &Kind| times(kind.duration(self.duration) + RUN_OVERHEAD, runs);
        self.kinds.iter().map(run).sum::<Duration>()
            + times(SET_UP, self.kinds.len())
            + times(self.search.max, searches)
    }

    fn shapes(&self) -> Vec<Shape> {
        let is_there = |shape: &Shape| self.kinds.iter().any(|kind| kind.shape() == *shape);
        [Shape::Transit, Shape::Slice].into_iter().filter(is_there).collect()
    }
}

/// What came of one change at one load.
#[derive(Clone, Debug)]
pub struct Row {
    /// The change.
    pub kind: Kind,
    /// Share of NDR, 0 to 1.
    pub load: f64,
    /// The offered rate in packets per second.
    pub offered_pps: f64,
    /// Length of a run.
    pub duration: Duration,
    /// Changes made in each run.
    pub times: Vec<u32>,
    /// Packets lost in each run.
    pub lost: Vec<u64>,
    /// Packets lost in each control.
    pub control_lost: Vec<u64>,
    /// What node a told of the runs with the change, together.
    pub observed: Observed,
    /// What it told of the controls.
    pub control_observed: Observed,
    /// Why it was not measured, or not in every round.
    pub skipped: Option<String>,
}

impl Row {
    /// The median number of changes in a run.
    #[must_use]
    pub fn times_median(&self) -> u32 {
        let times: Vec<_> = self.times.iter().map(|&times| f64::from(times)).collect();
        median(&times).unwrap_or_default().round() as u32
    }

    /// The median of packets lost, over the offered rate, for one change, in microseconds. 0 when
    /// nothing was measured.
    #[must_use]
    pub fn blocked_us(&self, lost: &[u64]) -> f64 {
        let times = f64::from(self.times_median());
        let lost: Vec<_> = lost.iter().map(|&lost| lost as f64).collect();
        match median(&lost) {
            Some(lost) if times > 0.0 && self.offered_pps > 0.0 => {
                lost / times / self.offered_pps * 1e6
            }
            _ => 0.0,
        }
    }

    /// What the change blocks beyond its control, in microseconds.
    #[must_use]
    pub fn net_us(&self) -> f64 {
        (self.blocked_us(&self.lost) - self.blocked_us(&self.control_lost)).max(0.0)
    }
}

/// What came of all changes in one bed.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which bed.
    pub shape: Shape,
    /// The rate that loads are shares of, in packets per second; 0 if none was found.
    pub ndr_pps: f64,
    /// The traffic in words.
    pub traffic: Option<String>,
    /// The machine, as the generator describes it.
    pub machine: Option<Value>,
    /// One for each change and load.
    pub rows: Vec<Row>,
}

/// What came of all.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// One part for each bed.
    pub parts: Vec<Part>,
}

impl Outcome {
    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.parts.iter().flat_map(|part| &part.rows)
    }
}

/// The measurement with all that it needs.
#[derive(Debug)]
pub struct Rounds<'a> {
    binaries: &'a Binaries,
    cores: Cores,
}

/// The cores of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// The generator's, which nothing else runs on.
    pub generator: usize,
    /// That of node a's worker.
    pub a: usize,
    /// That of node b's worker: another one if there are three.
    pub b: usize,
}

impl Cores {
    /// The first three cores that this process may use, and keeps this thread, and what it starts
    /// from now on, off the first of them.
    fn reserve() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("allowed cores")?;
        let mut cores = (0..CpuSet::count()).filter(|&core| allowed.is_set(core) == Ok(true));
        let (Some(generator), Some(a)) = (cores.next(), cores.next()) else {
            bail!("the generator and the router need a core each")
        };
        let mut others = allowed;
        others.unset(generator)?;
        sched_setaffinity(Pid::from_raw(0), &others)?;
        Ok(Self { generator, a, b: cores.next().unwrap_or(a) })
    }
}

impl<'a> Rounds<'a> {
    /// Prepares it. From now on this thread keeps off the generator's core.
    ///
    /// # Errors
    /// When there is no second core.
    pub fn new(binaries: &'a Binaries) -> Result<Self> {
        Ok(Self { binaries, cores: Cores::reserve()? })
    }

    /// Measures. A change that cannot be measured here has the reason in its rows.
    #[must_use]
    pub fn run(&self, plan: &Plan) -> Outcome {
        let parts = plan.shapes().into_iter().map(|shape| self.part(plan, shape)).collect();
        Outcome { parts }
    }

    fn part(&self, plan: &Plan, shape: Shape) -> Part {
        let mut part = Part { shape, ndr_pps: 0.0, traffic: None, machine: None, rows: Vec::new() };
        let ndr = match plan.ndr_pps {
            Some(ndr_pps) => Ok(ndr_pps),
            None => self.site(shape).and_then(|site| site.search(plan.search)),
        };
        let trouble = match &ndr {
            Ok(ndr_pps) => {
                eprintln!("{shape:?}: NDR {:.3} Mpps", ndr_pps / 1e6);
                part.ndr_pps = *ndr_pps;
                None
            }
            Err(error) => Some(format!("{error:#}")),
        };
        for &kind in plan.kinds.iter().filter(|kind| kind.shape() == shape) {
            let mut rows: Vec<_> = plan
                .loads
                .iter()
                .map(|&load| Row {
                    kind,
                    load,
                    offered_pps: (load * part.ndr_pps).round(),
                    duration: kind.duration(plan.duration),
                    times: Vec::new(),
                    lost: Vec::new(),
                    control_lost: Vec::new(),
                    observed: Observed::default(),
                    control_observed: Observed::default(),
                    skipped: trouble.clone(),
                })
                .collect();
            if trouble.is_none() {
                self.measure(plan, shape, &mut rows, &mut part);
            }
            part.rows.append(&mut rows);
        }
        part
    }

    fn site(&self, shape: Shape) -> Result<Site> {
        Site::build(shape, self.binaries, self.cores)
    }

    /// All runs of one change.
    fn measure(&self, plan: &Plan, shape: Shape, rows: &mut [Row], part: &mut Part) {
        let mut site = None;
        for row in rows {
            for round in 0..plan.runs {
                // A router that has failed once says nothing any more.
                let mut here = match site.take().map_or_else(|| self.site(shape), Ok) {
                    Ok(here) => here,
                    Err(error) => {
                        row.skipped = Some(format!("{error:#}"));
                        break;
                    }
                };
                match round_of(&mut here, row, round, plan, part) {
                    Ok(()) => site = Some(here),
                    Err(error) => {
                        row.skipped = Some(format!("{error:#}"));
                        break;
                    }
                }
            }
            if let Some(reason) = &row.skipped {
                eprintln!("{}, {:.0} % of NDR: skipped: {reason}", row.kind, row.load * 100.0);
            }
        }
    }
}

/// One run with the change and one without it. Every second time the control comes first, so that
/// neither is always the one after the other.
fn round_of(
    site: &mut Site,
    row: &mut Row,
    round: usize,
    plan: &Plan,
    part: &mut Part,
) -> Result<()> {
    let order = if round.is_multiple_of(2) { [true, false] } else { [false, true] };
    for is_change in order {
        let run = attempt(row.offered_pps, || {
            if is_change {
                site.run(row.kind, row.offered_pps, row.duration)
            } else {
                site.control(row.offered_pps, row.duration)
            }
        })
        .context(if is_change { "with the change" } else { "control" })?;
        let what = if is_change { format!("{} times", run.times) } else { "control".to_owned() };
        let Run { trial, times, fates, observed } = run;
        let (kind, load) = (row.kind, row.load * 100.0);
        let fates = if fates.is_empty() { fates } else { format!(" ({fates})") };
        eprintln!(
            "{kind}, {load:.0} % of NDR, run {}/{}: {what}: {} of {} lost{fates}; {}",
            round + 1,
            plan.runs,
            trial.lost,
            trial.sent,
            observed.words(),
        );
        if is_change {
            row.times.push(times);
            row.lost.push(trial.lost);
            row.observed = std::mem::take(&mut row.observed).and(&observed);
        } else {
            row.control_lost.push(trial.lost);
            row.control_observed = std::mem::take(&mut row.control_observed).and(&observed);
        }
        if part.traffic.is_none() {
            part.traffic = Some(trial.traffic);
            part.machine = Some(trial.machine).filter(Value::is_object);
        }
    }
    Ok(())
}

/// Makes a run until it is not void.
fn attempt(rate_pps: f64, mut run: impl FnMut() -> Result<Run>) -> Result<Run> {
    let mut reasons = String::new();
    for _ in 0..=REPEATS_MAX {
        let run = run()?;
        if !run.trial.is_void(rate_pps) {
            return Ok(run);
        }
        reasons = run.trial.void.join("; ");
        eprintln!("void, {} of {} lost: {reasons}", run.trial.lost, run.trial.sent);
    }
    bail!("{} void runs: {reasons}", REPEATS_MAX + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_time_is_for_one_change_and_beyond_the_control() {
        let mut row = Row {
            kind: Kind::Restart,
            load: 0.5,
            offered_pps: 100_000.0,
            duration: Duration::from_secs(5),
            times: vec![2, 2, 2],
            lost: vec![1000, 4000, 3000],
            control_lost: vec![0, 1000, 200],
            observed: Observed::default(),
            control_observed: Observed::default(),
            skipped: None,
        };
        assert!((row.blocked_us(&row.lost) - 15_000.0).abs() < 1e-6);
        assert!((row.blocked_us(&row.control_lost) - 1000.0).abs() < 1e-6);
        assert!((row.net_us() - 14_000.0).abs() < 1e-6);
        row.control_lost = vec![9000];
        assert!(row.net_us().abs() < 1e-9, "a control that lost more");
        row.times.clear();
        assert!(row.blocked_us(&row.lost).abs() < 1e-9, "nothing was measured");
    }
}
