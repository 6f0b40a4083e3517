//! [`Generator`]: `sluice bench generate` and `sluice bench search` in the tester's namespace.
//!
//! They run as processes, because this program is built before what they need is there; what they
//! measured comes back as the documents that they write.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::Value;

use super::bed::{Bed, D0, DESTINATIONS, SOURCES, T0, T1};
use super::placement::Cores;
use crate::lab::process::Process;

/// Five-tuples of the traffic: more than a per-packet cache of a kernel holds, fewer than conntrack's
/// default limit.
const FLOWS: &str = "10k";

/// How long a process may take beyond its trials.
const GRACE: Duration = Duration::from_secs(30);

/// How often a trial that says nothing is made again.
const REPEATS_MAX: u32 = 2;

/// How often a full load is lowered, and to what share of it, when the sink could not count all that
/// came: down to an eighth.
const STEPS_DOWN_MAX: u32 = 6;
const STEP_DOWN: f64 = 0.7;

/// Loss below which the generator, and not the router, set the rate.
const LOSS_OF_A_FULL_LOAD: f64 = 0.001;

/// How long a search may take before it ends with what it knows.
pub const SEARCH_MAX: Duration = Duration::from_secs(180);

/// What a search asks for: 21 trials decide about a rate, as FD.io CSIT asks, of half a second each. A
/// machine that has no core to spare takes one away for some 10 ms every other second, and longer trials
/// would tell of that alone: with half of them allowed to lose, the rest tells of the router.
const SEARCH: [[&str; 2]; 5] = [
    ["--trial", "500ms"],
    ["--trials-sum", "10500ms"],
    ["--width", "2%"],
    ["--repeats", "10"],
    ["--latency-trial", "1s"],
];

/// What makes the packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// The kernel itself, on the live frames of an XDP program: 5 Mpps and more from one core, which a
    /// kernel that routes takes over in batches, as it does from a NIC's driver.
    #[default]
    Live,
    /// An AF_XDP socket, as an independent generator would use one: the kernel copies each packet into a
    /// socket buffer and raises an interrupt for it alone.
    Xsk,
}

impl Engine {
    fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Xsk => "xsk",
        }
    }
}

/// The generator with its sink.
#[derive(Clone, Copy, Debug)]
pub struct Generator<'a> {
    /// The binary of Sluice, which has both.
    pub program: &'a Path,
    /// A folder for what it writes.
    pub folder: &'a Path,
    /// Its core.
    pub cores: Cores,
    /// What makes the packets.
    pub engine: Engine,
}

/// What a trial gave.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The whole document.
    document: Value,
}

impl Trial {
    fn number(&self, key: &str) -> Result<f64> {
        let trial = &self.document["outcome"]["trial"];
        trial[key].as_f64().with_context(|| format!("the trial has no {key}: {trial}"))
    }

    /// Packets a second that arrived.
    ///
    /// # Errors
    /// When the document lacks a number.
    pub fn received_pps(&self) -> Result<f64> {
        Ok(self.number("received")? / self.number("duration_s")?.max(f64::MIN_POSITIVE))
    }

    /// Packets a second that were sent.
    ///
    /// # Errors
    /// When the document lacks a number.
    pub fn sent_pps(&self) -> Result<f64> {
        Ok(self.number("sent")? / self.number("duration_s")?.max(f64::MIN_POSITIVE))
    }

    /// The share of the packets that did not arrive, 0 to 1.
    ///
    /// # Errors
    /// When the document lacks a number.
    pub fn loss_ratio(&self) -> Result<f64> {
        Ok(self.number("lost")? / self.number("sent")?.max(1.0))
    }

    /// The latencies, if they were measured.
    #[must_use]
    pub fn latency(&self) -> Option<&Value> {
        Some(&self.document["outcome"]["trial"]["latency"]).filter(|latency| latency.is_object())
    }

    /// The traffic in words.
    #[must_use]
    pub fn traffic(&self) -> Option<&str> {
        self.document["outcome"]["traffic"].as_str()
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Value {
        &self.document["machine"]
    }

    fn void(&self) -> Vec<&str> {
        let reasons = self.document["outcome"]["trial"]["void"].as_array();
        reasons.into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// What was forwarded at full load.
#[derive(Clone, Debug)]
pub struct FullLoad {
    /// The trial.
    pub trial: Trial,
    /// Whether the tester set the rate, as it could not offer or count more.
    pub is_tester_limited: bool,
}

impl Generator<'_> {
    /// Offers a rate, or as much as it can, for some time.
    ///
    /// # Errors
    /// When the generator fails, or every trial was void.
    pub fn trial(&self, bed: &Bed, rate_pps: Option<f64>, duration: Duration) -> Result<Trial> {
        let mut reasons = String::new();
        for _ in 0..=REPEATS_MAX {
            let trial = self.attempt(bed, rate_pps, duration)?;
            reasons = trial.void().join("; ");
            if reasons.is_empty() {
                return Ok(trial);
            }
        }
        bail!("{} void trials: {reasons}", REPEATS_MAX + 1)
    }

    /// Offers as much as it can. A router that forwards more than the sink can count is offered less
    /// until it does not: its rate is then the tester's.
    ///
    /// # Errors
    /// When the generator fails, or every trial was void.
    pub fn full_load(&self, bed: &Bed, duration: Duration) -> Result<FullLoad> {
        let (mut rate_pps, mut reasons) = (None, String::new());
        for _ in 0..=STEPS_DOWN_MAX {
            let trial = self.attempt(bed, rate_pps, duration)?;
            reasons = trial.void().join("; ");
            if reasons.is_empty() {
                let lost_nothing = trial.loss_ratio()? < LOSS_OF_A_FULL_LOAD;
                let is_tester_limited = rate_pps.is_some() || lost_nothing;
                return Ok(FullLoad { trial, is_tester_limited });
            }
            rate_pps = Some(trial.sent_pps()? * STEP_DOWN);
        }
        bail!("{} void trials: {reasons}", STEPS_DOWN_MAX + 1)
    }

    /// Sends as much as it can to somebody who lets nothing through. Returns how many packets were sent,
    /// and in how many seconds.
    ///
    /// # Errors
    /// When the generator fails.
    pub fn flood(&self, bed: &Bed, duration: Duration) -> Result<(f64, f64)> {
        let seconds = format!("{}s", duration.as_secs_f64());
        let words = ["generate", "--duration", &seconds, "--rate", "max", "--sink", "none"];
        let document = self.run(bed, &words.map(str::to_owned), duration + GRACE)?;
        let trial = Trial { document };
        Ok((trial.number("sent")?, trial.number("duration_s")?))
    }

    /// One trial, void or not.
    fn attempt(&self, bed: &Bed, rate_pps: Option<f64>, duration: Duration) -> Result<Trial> {
        let mut words = vec!["generate".to_owned()];
        words.extend(["--duration".to_owned(), format!("{}s", duration.as_secs_f64())]);
        let rate = rate_pps.map_or_else(|| "max".to_owned(), |rate| format!("{rate:.0}"));
        words.extend(["--rate".to_owned(), rate]);
        Ok(Trial { document: self.run(bed, &words, duration + GRACE)? })
    }

    /// Searches for the highest rate without loss. Returns the document.
    ///
    /// # Errors
    /// When the search fails.
    pub fn search(&self, bed: &Bed, subject: &str, placement: &str) -> Result<Value> {
        let limit = format!("{}s", SEARCH_MAX.as_secs());
        let named =
            [["--subject", subject], ["--placement", placement], ["--max-duration", &limit]];
        let words: Vec<_> = std::iter::once("search")
            .chain(named.into_iter().chain(SEARCH).flatten())
            .map(str::to_owned)
            .collect();
        self.run(bed, &words, SEARCH_MAX + GRACE)
    }

    /// Runs a command of `sluice bench` and returns its document.
    fn run(&self, bed: &Bed, words: &[String], timeout: Duration) -> Result<Value> {
        let out = self.folder.join("generator.json");
        let mut run = Command::new("taskset");
        run.args(["--cpu-list", &self.cores.generator.to_string()]);
        run.arg(self.program).arg("bench").args(words);
        run.args(["--tx", T0.name, "--rx", T1.name, "--dst-mac", D0.mac]);
        run.args(["--src", SOURCES, "--dst", DESTINATIONS[0], "--flows", FLOWS]);
        run.args(["--cores", &self.cores.generator.to_string(), "--engine", self.engine.name()]);
        run.arg("--out").arg(&out);
        let mut process = Process::start("generator", Some(&bed.tester), run, self.folder)?;
        let status = process.wait(timeout)?;
        if !status.success() {
            let output = process.output()?;
            // The last line is the error; what stands before it is progress.
            let reason = output.trim().lines().last().unwrap_or("it said nothing");
            bail!("`sluice bench {}` failed: {reason}", words.join(" "));
        }
        let text = std::fs::read_to_string(&out).with_context(|| out.display().to_string())?;
        serde_json::from_str(&text).with_context(|| out.display().to_string())
    }
}
