//! The rounds: every router once in each, in an order that rotates, each on a bed of its own.
//!
//! What disturbs a round (another tenant, a warm machine) disturbs all of it, so ratios are made within
//! a round; the rotation keeps a place in the order from being anybody's advantage.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::bed::Bed;
use super::generator::{Engine, Generator, Trial};
use super::placement::{Cores, Placement};
use super::routers::{Router, Running, Site};
use super::statistics::median;
use super::{GROUP, forwarding, generator};
use crate::lab::cleanup::Folder;

/// The share of the lowest router's rate at which latency is measured.
const LATENCY_LOAD: f64 = 0.5;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How often every router has its turn.
    pub rounds: usize,
    /// Where what runs.
    pub placements: Vec<Placement>,
    /// Length of a trial.
    pub trial: Duration,
    /// Whether to search for the rate without loss in each round, too.
    pub searches: bool,
    /// No round begins that would end after this time, but one in each placement does in any case.
    pub duration_max: Option<Duration>,
}

/// What setting a router up and checking it takes at most, as a rule.
const SET_UP: Duration = Duration::from_secs(2);

impl Plan {
    /// How long it takes at most with that many routers, if none fails.
    #[must_use]
    pub fn estimate(&self, routers: usize) -> Duration {
        let search = if self.searches { generator::SEARCH_MAX } else { Duration::ZERO };
        let turns = self.rounds * self.placements.len() * routers;
        let all = (SET_UP + 2 * self.trial + search) * u32::try_from(turns).unwrap_or(u32::MAX);
        self.duration_max.map_or(all, |limit| all.min(limit))
    }
}

/// What came of one router in one placement.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its place among the routers.
    pub router: usize,
    /// The placement.
    pub placement: Placement,
    /// Rate at full load by round, in packets per second.
    pub full_pps: Vec<Option<f64>>,
    /// Whether the tester set the rate at full load in some round.
    pub is_tester_limited: bool,
    /// Rate without loss by round, in packets per second.
    pub ndr_pps: Vec<Option<f64>>,
    /// The searches' documents with their rates.
    pub searches: Vec<(f64, Value)>,
    /// Latencies at the common load, each with its median in ns.
    pub latencies: Vec<(u64, Value)>,
    /// Why it does not run or forward here: it has no further turn then.
    pub trouble: Option<String>,
    /// What could not be measured in which round, and why.
    pub notes: Vec<String>,
}

impl Row {
    fn new(router: usize, placement: Placement, rounds: usize) -> Self {
        Self {
            router,
            placement,
            full_pps: vec![None; rounds],
            is_tester_limited: false,
            ndr_pps: vec![None; rounds],
            searches: Vec::new(),
            latencies: Vec::new(),
            trouble: None,
            notes: Vec::new(),
        }
    }

    /// Takes back what a round gave that turned out not to be the router's: it died meanwhile, or
    /// the kernel forwarded in its place. `searches` and `latencies` are how many there were before.
    fn forget(&mut self, round: usize, (searches, latencies): (usize, usize)) {
        self.full_pps[round] = None;
        self.ndr_pps[round] = None;
        self.searches.truncate(searches);
        self.latencies.truncate(latencies);
    }

    /// The median rate at full load.
    #[must_use]
    pub fn full_median_pps(&self) -> Option<f64> {
        median(&self.full_pps.iter().flatten().copied().collect::<Vec<_>>())
    }

    /// The median rate that it sustains: without loss where that was searched, else at full load.
    fn sustained_pps(&self) -> Option<f64> {
        let ndr: Vec<_> = self.ndr_pps.iter().flatten().copied().collect();
        median(&ndr).or_else(|| self.full_median_pps())
    }

    /// Why there is no rate of it.
    #[must_use]
    pub fn why_skipped(&self) -> &str {
        let note = self.notes.last().map(String::as_str);
        self.trouble.as_deref().or(note).unwrap_or("no round gave a rate")
    }

    /// The latency of the median run.
    #[must_use]
    pub fn latency(&self) -> Option<&Value> {
        let mut sorted: Vec<_> = self.latencies.iter().collect();
        sorted.sort_by_key(|(p50_ns, _)| *p50_ns);
        // The lower of two in the middle, as there is no document of a mean.
        sorted.get(sorted.len().checked_sub(1)? / 2).map(|(_, latency)| latency)
    }
}

/// What came of all.
#[derive(Debug)]
pub struct Outcome {
    /// One row for each router and placement.
    pub rows: Vec<Row>,
    /// The rate at which latency was measured, by placement, in packets per second.
    pub latency_pps: Vec<(Placement, f64)>,
    /// The traffic in words.
    pub traffic: Option<String>,
    /// The machine, as the generator describes it.
    pub machine: Option<Value>,
}

/// The measurement with all that it needs.
pub struct Rounds<'a> {
    routers: &'a [Box<dyn Router>],
    sluice: PathBuf,
    folder: Folder,
    cores: Cores,
    engine: Engine,
}

impl<'a> Rounds<'a> {
    /// Prepares it. `sluice` is the binary, which has the generator too; `engine` makes its packets.
    ///
    /// # Errors
    /// When there is no second core, or no folder can be made.
    pub fn new(routers: &'a [Box<dyn Router>], sluice: &Path, engine: Engine) -> Result<Self> {
        let (folder, cores) = (Folder::create(GROUP, "run")?, Cores::find()?);
        Ok(Self { routers, sluice: sluice.to_owned(), folder, cores, engine })
    }

    /// Checks of each router whether it forwards here, in each placement, and says so. Returns whether
    /// all that are here do.
    pub fn check(&self, placements: &[Placement]) -> bool {
        let mut all = true;
        for router in self.routers {
            if let Some(reason) = router.lacks() {
                println!("{:18} skipped: {reason}", router.name());
                continue;
            }
            for &placement in placements {
                let outcome = self.with(router.as_ref(), placement, |_| Ok(()));
                let told = match &outcome {
                    Ok(()) => {
                        let packets = forwarding::PACKETS;
                        format!("{packets} of {packets} packets forwarded, IPv4 and IPv6")
                    }
                    Err(error) => format!("FAILED: {error:#}"),
                };
                println!("{:18} {:14} {told}", router.name(), placement.name());
                all &= outcome.is_ok();
            }
        }
        all
    }

    /// Measures.
    pub fn run(&self, plan: &Plan) -> Outcome {
        let mut outcome =
            Outcome { rows: Vec::new(), latency_pps: Vec::new(), traffic: None, machine: None };
        let started = Instant::now();
        for (&placement, share) in plan.placements.iter().zip(1..) {
            let count = self.routers.len();
            let deadline = plan
                .duration_max
                .map(|limit| limit.mul_f64(f64::from(share) / plan.placements.len() as f64));
            let mut rows: Vec<_> =
                (0..count).map(|router| Row::new(router, placement, plan.rounds)).collect();
            for (router, row) in self.routers.iter().zip(&mut rows) {
                row.trouble = router.lacks();
            }
            let mut latency_pps = None;
            let mut longest = Duration::ZERO;
            for round in 0..plan.rounds {
                let begun = started.elapsed();
                if round > 0 && deadline.is_some_and(|deadline| begun + longest > deadline) {
                    eprintln!("{placement}: no time for round {} and later", round + 1);
                    break;
                }
                for place in 0..count {
                    let row = &mut rows[(place + round) % count];
                    // Whoever failed once would only cost time again.
                    if row.trouble.is_some() {
                        continue;
                    }
                    let router = self.routers[row.router].as_ref();
                    let before = (row.searches.len(), row.latencies.len());
                    let turn = self.with(router, placement, |bed| {
                        // What one round could not measure, the next one may.
                        if let Err(error) =
                            self.measure(bed, plan, round, latency_pps, row, &mut outcome)
                        {
                            row.notes.push(format!("round {}: {error:#}", round + 1));
                        }
                        Ok(())
                    });
                    if let Err(error) = turn {
                        row.forget(round, before);
                        row.trouble = Some(format!("{error:#}"));
                    }
                    self.tell(plan, round, row);
                }
                longest = longest.max(started.elapsed() - begun);
                if latency_pps.is_none() {
                    let lowest = rows.iter().filter_map(Row::sustained_pps);
                    latency_pps = lowest.min_by(f64::total_cmp).map(|pps| pps * LATENCY_LOAD);
                }
            }
            outcome.latency_pps.extend(latency_pps.map(|pps| (placement, pps)));
            outcome.rows.extend(rows);
        }
        outcome
    }

    /// Measures a router that is set up.
    fn measure(
        &self,
        bed: &Bed,
        plan: &Plan,
        round: usize,
        latency_pps: Option<f64>,
        row: &mut Row,
        outcome: &mut Outcome,
    ) -> Result<()> {
        let generator = Generator {
            program: &self.sluice,
            folder: self.folder.path(),
            cores: self.cores,
            engine: self.engine,
        };
        let full = generator.full_load(bed, plan.trial).context("full load")?;
        row.full_pps[round] = Some(full.trial.received_pps()?);
        row.is_tester_limited |= full.is_tester_limited;
        outcome.note(&full.trial);
        if plan.searches {
            let subject = self.routers[row.router].name();
            let found = generator.search(bed, subject, row.placement.name())?;
            let ndr = found["outcome"]["ndr"]["lower_pps"].as_f64();
            row.ndr_pps[round] = ndr;
            row.searches.extend(ndr.map(|ndr| (ndr, found)));
        }
        if let Some(rate) = latency_pps {
            let moderate = generator.trial(bed, Some(rate), plan.trial).context("latency")?;
            if let Some(latency) = moderate.latency() {
                let p50_ns = latency["p50_ns"].as_u64().context("latency without p50_ns")?;
                row.latencies.push((p50_ns, latency.clone()));
            }
        }
        Ok(())
    }

    /// Sets a router up, checks that it forwards, does `work`, and tears it down however that ended.
    fn with(
        &self,
        router: &dyn Router,
        placement: Placement,
        work: impl FnOnce(&Bed) -> Result<()>,
    ) -> Result<()> {
        let bed = Bed::build().context("the bed cannot be made")?;
        let site = Site { bed: &bed, folder: self.folder.path(), cores: self.cores };
        let mut running = router.set_up(site).context("set-up")?;
        let outcome = (|| {
            placement.apply(&bed, self.cores, router.is_in_kernel())?;
            forwarding::check(&bed, router.expected()).context("it does not forward")?;
            work(&bed)?;
            running.check_alive()?;
            let by_kernel = bed.forwarded_by_kernel()?;
            ensure!(
                router.uses_kernel_forwarding() || by_kernel == 0,
                "{by_kernel} packets took the way of the kernel's own forwarding"
            );
            Ok(())
        })();
        let end = Running::tear_down(running).context("tear-down");
        outcome.and(end)
    }

    /// Shows what a turn gave.
    fn tell(&self, plan: &Plan, round: usize, row: &Row) {
        let name = self.routers[row.router].name();
        let place = row.placement.name();
        let what = match (&row.trouble, row.full_pps[round], row.ndr_pps[round]) {
            (Some(trouble), ..) => format!("does not go on: {trouble}"),
            (None, Some(full), Some(ndr)) => {
                format!("{:.3} Mpps at full load, NDR {:.3} Mpps", full / 1e6, ndr / 1e6)
            }
            (None, Some(full), None) if plan.searches => {
                let why = row.notes.last().map_or("none was found in time", String::as_str);
                format!("{:.3} Mpps at full load, no NDR: {why}", full / 1e6)
            }
            (None, Some(full), None) => format!("{:.3} Mpps at full load", full / 1e6),
            (None, None, _) => format!("no rate: {}", row.why_skipped()),
        };
        eprintln!("{place:14} round {}/{} {name:18} {what}", round + 1, plan.rounds);
    }
}

impl Outcome {
    /// Keeps what every trial tells alike.
    fn note(&mut self, trial: &Trial) {
        if self.traffic.is_none() {
            self.traffic = trial.traffic().map(str::to_owned);
            self.machine = Some(trial.machine().clone()).filter(Value::is_object);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_that_failed_leaves_no_figures() {
        let mut row = Row::new(0, Placement::Default, 2);
        row.full_pps[0] = Some(1e6);
        row.searches.push((1e5, Value::Null));
        let before = (row.searches.len(), row.latencies.len());
        row.full_pps[1] = Some(9e6);
        row.ndr_pps[1] = Some(8e6);
        row.searches.push((8e6, Value::Null));
        row.latencies.push((1000, Value::Null));
        row.forget(1, before);
        assert_eq!(
            (row.full_pps.as_slice(), row.full_median_pps()),
            (&[Some(1e6), None][..], Some(1e6))
        );
        assert_eq!((row.ndr_pps[1], row.searches.len(), row.latency()), (None, 1, None));
    }
}
