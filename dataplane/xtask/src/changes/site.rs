//! [`Site`]: a bed with its routers running, and runs on it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::acts;
use super::bed::{Bed, Shape};
use super::configuration::{self, State, Which};
use super::kind::Kind;
use super::node::Node;
use super::observed::{Counted, Observed};
use super::padded;
use super::rounds::Cores;
use super::traffic::{Flight, Tester, Trial};
use crate::lab::Binaries;
use crate::lab::cleanup::Folder;
use crate::lab::status::Status;
use crate::peers::GROUP;

/// The rate and length of the run that shows that packets arrive at all.
const WARM_UP_PPS: f64 = 2000.0;
const WARM_UP: Duration = Duration::from_millis(500);

/// How long the first packets of a run may take to come.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long before the last packet the last change must be complete. It covers that the run began a
/// little before its first packets were seen.
const MARGIN: Duration = Duration::from_millis(200);

/// A bed with its routers.
#[derive(Debug)]
pub struct Site {
    /// Node a.
    pub a: Node,
    /// Node b, if there is one.
    pub b: Option<Node>,
    /// The namespaces.
    pub bed: Bed,
    /// Which bed it is.
    pub shape: Shape,
    /// The plugin as it was built.
    pub filter: PathBuf,
    /// How often the plugin's file was replaced.
    pub modules: u32,
    /// How long after its file was there each new version of the plugin ran, in this run.
    pub live_after: Vec<Duration>,
    /// Where all files are.
    pub folder: Folder,
    tester: Tester,
}

/// The time in which packets are sent.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    start: Instant,
    length: Duration,
    times: u32,
}

impl Window {
    /// Waits until it is time for the change of that number, from 0. Returns `false` if there is
    /// none.
    #[must_use]
    pub fn wait_for(&self, number: u32) -> bool {
        if number >= self.times {
            return false;
        }
        let share = (f64::from(number) + 0.25) / f64::from(self.times);
        let due = self.start + self.length.mul_f64(share);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        self.is_open()
    }

    /// Whether packets are still sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.start.elapsed() < self.length
    }

    /// From the first packets seen to the moment at which the last change must be complete.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.length
    }
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Run {
    /// The generator's part.
    pub trial: Trial,
    /// Changes that were made.
    pub times: u32,
    /// Where lost packets went, as far as routers know.
    pub fates: String,
    /// What node a told of it.
    pub observed: Observed,
}

impl Site {
    /// Makes the bed and starts the routers.
    ///
    /// # Errors
    /// When a part of it cannot be made, or no packet arrives.
    pub fn build(shape: Shape, binaries: &Binaries, cores: Cores) -> Result<Self> {
        let folder = Folder::create(GROUP, "changes")?;
        configuration::write_rules(folder.path())?;
        configuration::write_module(&binaries.filter, folder.path(), 0)?;
        let bed = Bed::build(shape).context("the bed cannot be made")?;
        let node = |which, core| Node::new(which, shape, core, &binaries.sluice, folder.path());
        let mut a = node(Which::A, cores.a);
        let mut b = bed.b.as_ref().map(|_| node(Which::B, cores.b));
        a.write(State::First)?;
        a.start(&bed.a)?;
        if let (Some(b), Some(namespace)) = (&mut b, &bed.b) {
            b.write(State::First)?;
            b.start(namespace)?;
        }
        let tester = Tester {
            program: binaries.sluice.clone(),
            folder: folder.path().to_owned(),
            core: cores.generator,
        };
        let filter = binaries.filter.clone();
        let site =
            Self { a, b, bed, shape, filter, modules: 0, live_after: Vec::new(), folder, tester };
        for state in site.states() {
            site.enter(state)?;
            let trial = site.tester.start(&site.bed, shape, WARM_UP_PPS, WARM_UP)?.land()?;
            ensure!(trial.lost < trial.sent, "no packet arrives; {}", site.fates(&[], trial.sent)?);
        }
        site.enter(State::First)?;
        Ok(site)
    }

    /// The states whose costs differ: a control is in each of them for its share of the time.
    fn states(&self) -> Vec<State> {
        match self.shape {
            Shape::Transit => vec![State::First],
            Shape::Slice => vec![State::First, State::Second],
        }
    }

    /// Brings the slice to where it is in that state; it does nothing else.
    fn enter(&self, state: State) -> Result<()> {
        match &self.b {
            Some(_) => acts::slice::switch(self, state),
            None => Ok(()),
        }
    }

    /// The rate without loss, in packets per second. With two nodes it is that of the longer way.
    ///
    /// # Errors
    /// When the search fails.
    pub fn search(&self, search: super::traffic::Search) -> Result<f64> {
        self.enter(State::Second)?;
        let ndr = self.tester.search(&self.bed, self.shape, search)?;
        self.enter(State::First)?;
        Ok(ndr)
    }

    /// A run without changes: the same time in each state.
    ///
    /// # Errors
    /// When the generator fails, or a router does not answer.
    pub fn control(&self, rate_pps: f64, duration: Duration) -> Result<Run> {
        let states = self.states();
        let mut sum: Option<Run> = None;
        let share = duration / u32::try_from(states.len())?;
        for state in states {
            self.enter(state)?;
            let (before, counted) = (self.statuses()?, self.counted()?);
            let trial = self.tester.start(&self.bed, self.shape, rate_pps, share)?.land()?;
            let fates = self.fates(&before, trial.lost)?;
            let observed = self.counted()?.since(&counted);
            sum = Some(match sum {
                None => Run { trial, times: 0, fates, observed },
                Some(mut sum) => {
                    sum.trial.sent += trial.sent;
                    sum.trial.lost += trial.lost;
                    sum.trial.void.extend(trial.void);
                    sum.observed = sum.observed.and(&observed);
                    sum.fates = [sum.fates, fates].join(" ").trim().to_owned();
                    sum
                }
            });
        }
        self.enter(State::First)?;
        sum.context("a control has a state")
    }

    /// A run in which changes are made.
    ///
    /// # Errors
    /// When a change cannot be made, the generator fails, or a router does not answer.
    pub fn run(&mut self, kind: Kind, rate_pps: f64, duration: Duration) -> Result<Run> {
        if let Some(bytes) = kind.plugin_bytes() {
            self.take_padded(bytes)?;
        }
        self.live_after.clear();
        let (before, counted) = (self.statuses()?, self.counted()?);
        let mut flight = self.tester.start(&self.bed, self.shape, rate_pps, duration)?;
        let start = self.await_packets(&mut flight)?;
        let length = duration.saturating_sub(MARGIN);
        let window = Window { start, length, times: kind.times(length) };
        let times = acts::make(self, kind, window)?;
        let trial = flight.land()?;
        let fates = self.fates(&before, trial.lost)?;
        let mut observed = self.counted()?.since(&counted);
        observed.live_after = std::mem::take(&mut self.live_after);
        acts::settle(self, kind)?;
        ensure!(times > 0, "no change was complete within the {:.1} s", duration.as_secs_f64());
        Ok(Run { trial, times, fates, observed })
    }

    /// Puts a plugin of that many bytes in the filter's place, and waits until it runs.
    fn take_padded(&mut self, bytes: usize) -> Result<()> {
        let path = self.folder.path().join(format!("padded-{bytes}.wasm"));
        if self.filter != path {
            std::fs::write(&path, padded::module(bytes)?)?;
            configuration::write_module(&path, self.folder.path(), 0)?;
            self.a.ask(&["plugin", "reload", configuration::PLUGIN])?;
            self.filter = path;
        }
        Ok(())
    }

    /// What node a has counted so far.
    fn counted(&self) -> Result<Counted> {
        Counted::read(&self.a.status()?, self.a.pid()?)
    }

    /// Waits until node a has received packets of the run.
    fn await_packets(&self, flight: &mut Flight) -> Result<Instant> {
        let received = || Ok::<_, anyhow::Error>(self.a.status()?.total("rx_packets"));
        let before = received()?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            // What neighbors say among themselves is not the traffic.
            if received()? > before + 100 {
                return Ok(Instant::now());
            }
            ensure!(flight.ended()?.is_none(), "the generator ended before packets came");
            ensure!(Instant::now() < deadline, "no packets came");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn statuses(&self) -> Result<Vec<Status>> {
        std::iter::once(&self.a).chain(&self.b).map(Node::status).collect()
    }

    /// What routers dropped since `before`, in words; empty if nothing was lost.
    fn fates(&self, before: &[Status], lost: u64) -> Result<String> {
        if lost == 0 {
            return Ok(String::new());
        }
        let mut words = Vec::new();
        for (place, (status, letter)) in self.statuses()?.iter().zip(["a", "b"]).enumerate() {
            // A router that was started meanwhile counts from 0.
            let before = before
                .get(place)
                .filter(|old| old.total("rx_packets") <= status.total("rx_packets"));
            for (reason, count) in counts(status) {
                let old = before.map(counts).unwrap_or_default();
                let old = old.iter().find(|(name, _)| *name == reason).map_or(0, |(_, old)| *old);
                if count > old {
                    words.push(format!("{letter}: {} {reason}", count - old));
                }
            }
        }
        Ok(words.join(", "))
    }
}

/// What a router, its classifier and its sockets have counted as lost, by reason.
fn counts(status: &Status) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = status.drops().into_iter().collect();
    for key in ["rx_dropped", "rx_ring_full", "rx_fill_ring_empty_descs"] {
        let rows = status.value()["xdp"].as_array().into_iter().flatten();
        counts.push((key.to_owned(), rows.filter_map(|row| row[key].as_u64()).sum()));
    }
    for row in status.value()["classifier"].as_array().into_iter().flatten() {
        if let (Some(reason), Some(packets)) = (row["reason"].as_str(), row["packets"].as_u64())
            && !reason.starts_with("to-")
        {
            let interface = row["interface"].as_str().unwrap_or_default();
            counts.push((format!("classifier {reason} {interface}"), packets));
        }
    }
    counts
}
