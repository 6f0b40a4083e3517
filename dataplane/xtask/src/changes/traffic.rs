//! [`Tester`]: `sluice bench` in the tester's namespace, in the background while changes are made.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::bed::{Bed, Shape};
use super::configuration::{PORTS, SHARED};
use crate::lab::process::Process;
use crate::peers::bed::{D0, DESTINATIONS, SOURCES, T0, T1};

/// Five-tuples of the traffic.
const FLOWS: &str = "10k";

/// The part of lost packets that may be due to bursts of a generator that was held up.
const BURST_SHARE_MAX: f64 = 0.1;

/// How long a process may take beyond its trials.
const GRACE: Duration = Duration::from_secs(30);

/// How the rate without loss is searched for. It only places the loads, so a few percent do.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// Length of a trial.
    trial: &'static str,
    /// Sum of the trials that decides about a rate.
    trials_sum: &'static str,
    /// How close the bounds have to get.
    width: &'static str,
    /// When it ends with what it knows.
    pub max: Duration,
}

impl Search {
    /// Ten seconds or so.
    pub const SHORT: Self =
        Self { trial: "500ms", trials_sum: "2s", width: "5%", max: Duration::from_secs(12) };
    /// A minute at most.
    pub const LONG: Self =
        Self { trial: "1s", trials_sum: "7s", width: "2%", max: Duration::from_secs(60) };
}

/// The generator with its sink.
#[derive(Clone, Debug)]
pub struct Tester {
    /// The binary of Sluice, which has both.
    pub program: PathBuf,
    /// A folder for what it writes.
    pub folder: PathBuf,
    /// Its core.
    pub core: usize,
}

/// A run that is going on.
#[derive(Debug)]
pub struct Flight {
    process: Process,
    out: PathBuf,
    timeout: Duration,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Trial {
    /// Packets that were sent.
    pub sent: u64,
    /// Those that did not arrive.
    pub lost: u64,
    /// Why it says nothing of the router.
    pub void: Vec<String>,
    /// The traffic in words.
    pub traffic: String,
    /// The machine.
    pub machine: Value,
}

impl Tester {
    /// Begins to offer a rate.
    ///
    /// # Errors
    /// When the generator cannot be started.
    pub fn start(
        &self,
        bed: &Bed,
        shape: Shape,
        rate_pps: f64,
        duration: Duration,
    ) -> Result<Flight> {
        let rate = format!("{rate_pps:.0}");
        let length = format!("{}s", duration.as_secs_f64());
        let words = ["generate", "--rate", &rate, "--duration", &length];
        self.run(bed, shape, &words, duration + GRACE)
    }

    /// Searches for the highest rate without loss, in packets per second.
    ///
    /// # Errors
    /// When the search fails, or found no such rate.
    pub fn search(&self, bed: &Bed, shape: Shape, search: Search) -> Result<f64> {
        let max = format!("{}s", search.max.as_secs());
        let words = [
            ["--trial", search.trial],
            ["--trial-initial", search.trial],
            ["--trials-sum", search.trials_sum],
            ["--width", search.width],
            ["--warm-up", "500ms"],
            ["--latency-trial", "0s"],
            ["--subject", "sluice"],
            ["--max-duration", &max],
        ];
        let words: Vec<_> = std::iter::once("search").chain(words.into_iter().flatten()).collect();
        let mut flight = self.run(bed, shape, &words, search.max + GRACE)?;
        let found = flight.document().context("the search for NDR; --ndr gives it")?;
        let ndr = &found["outcome"]["ndr"]["lower_pps"];
        ndr.as_f64().context("no rate was without loss; --ndr gives one")
    }

    fn run(&self, bed: &Bed, shape: Shape, words: &[&str], timeout: Duration) -> Result<Flight> {
        let out = self.folder.join("generator.json");
        let core = self.core.to_string();
        let mut run = Command::new("nice");
        // Whatever else this machine does must not hold the generator up, as it would not hold up one
        // in a machine of its own.
        run.args(["-n", "-20", "taskset", "--cpu-list", &core])
            .arg(&self.program)
            .arg("bench")
            .args(words);
        run.args(["--tx", T0.name, "--rx", T1.name, "--dst-mac", D0.mac]);
        run.args(["--src", SOURCES, "--flows", FLOWS, "--cores", &core]);
        match shape {
            Shape::Transit => run.args(["--dst", DESTINATIONS[0]]),
            Shape::Slice => run.args(["--slices", &format!("{SHARED}:{PORTS}")]),
        };
        run.arg("--out").arg(&out);
        let process = Process::start("generator", Some(&bed.tester), run, &self.folder)?;
        Ok(Flight { process, out, timeout })
    }
}

impl Flight {
    /// How the generator ended, or `None` while it runs. It runs on for a tenth of a second after its
    /// last packet at least, to wait for stragglers.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.process.ended()
    }

    /// Waits for the end. Returns what came of it.
    ///
    /// # Errors
    /// When the generator fails, or its document lacks something.
    pub fn land(mut self) -> Result<Trial> {
        Trial::read(&self.document()?)
    }

    fn document(&mut self) -> Result<Value> {
        let status = self.process.wait(self.timeout)?;
        if !status.success() {
            let output = self.process.output()?;
            // The last line is the error; what stands before it is progress.
            let reason = output.trim().lines().last().unwrap_or("it said nothing");
            bail!("the generator failed: {reason}");
        }
        read(&self.out)
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| path.display().to_string())
}

impl Trial {
    /// Whether it says nothing of the router. A generator that was held up and then sent a burst has
    /// caused the loss of that burst at most, which an outage that is ten times longer can bear.
    #[must_use]
    pub fn is_void(&self, rate_pps: f64) -> bool {
        self.void.iter().any(|reason| {
            let burst = hold_up_ms(reason).map(|ms| ms / 1e3 * rate_pps);
            burst.is_none_or(|burst| burst > self.lost as f64 * BURST_SHARE_MAX)
        })
    }

    fn read(document: &Value) -> Result<Self> {
        let trial = &document["outcome"]["trial"];
        let number =
            |key: &str| trial[key].as_u64().with_context(|| format!("the trial has no {key}"));
        let (sent, lost) = (number("sent")?, number("lost")?);
        ensure!(sent > 0, "the generator sent nothing");
        let reasons = trial["void"].as_array().into_iter().flatten();
        let mut void: Vec<_> = reasons.filter_map(Value::as_str).map(str::to_owned).collect();
        if trial["is_generator_limited"] == true {
            void.push("the generator did not reach the rate".to_owned());
        }
        let traffic = document["outcome"]["traffic"].as_str().unwrap_or_default().to_owned();
        Ok(Self { sent, lost, void, traffic, machine: document["machine"].clone() })
    }
}

/// For how long the generator was held up, if that is the reason.
fn hold_up_ms(reason: &str) -> Option<f64> {
    let rest = reason.strip_prefix("the generator was held up for ")?;
    rest.split_once(" ms")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_up_is_borne_by_a_long_outage_only() {
        let held_up = "the generator was held up for 16 ms and sent a burst afterwards: loss may be \
            its doing";
        let trial = |lost, reasons: &[&str]| Trial {
            sent: 100_000,
            lost,
            void: reasons.iter().map(|&reason| reason.to_owned()).collect(),
            traffic: String::new(),
            machine: Value::Null,
        };
        // 16 ms of 20,000 packets a second are 320.
        assert!(!trial(3200, &[held_up]).is_void(20_000.0));
        assert!(trial(3199, &[held_up]).is_void(20_000.0));
        assert!(
            trial(90_000, &[held_up, "the generator did not reach the rate"]).is_void(20_000.0)
        );
        assert!(!trial(0, &[]).is_void(20_000.0));
    }
}
