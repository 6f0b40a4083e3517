//! [`Node`]: a router of the lab, as a process that is started, asked, reloaded and killed.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::configuration::{Files, Variant, Which};
use super::namespace::Namespace;
use super::process::Process;
use super::status::Status;
use crate::command;

/// How long a router may take to be ready; a full table takes seconds on a slow machine.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long it may take to drain and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A router, and what its runs before this one have counted.
#[derive(Debug)]
pub struct Node {
    which: Which,
    sluice: PathBuf,
    folder: PathBuf,
    process: Option<Process>,
    runs: u32,
    /// The last reports of runs that have ended.
    pub ended: Vec<Status>,
}

impl Node {
    /// A router that does not run yet. Its files are in `folder`.
    #[must_use]
    pub fn new(which: Which, sluice: &Path, folder: &Path) -> Self {
        Self {
            which,
            sluice: sluice.to_owned(),
            folder: folder.to_owned(),
            process: None,
            runs: 0,
            ended: Vec::new(),
        }
    }

    /// Which of the two it is.
    #[must_use]
    pub fn which(&self) -> Which {
        self.which
    }

    /// Where its files are.
    #[must_use]
    pub fn files(&self) -> Files<'_> {
        Files(&self.folder)
    }

    /// Starts it. It is not ready yet when this returns: see [`Self::wait_ready`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&mut self, namespace: &Namespace, variant: Variant) -> Result<()> {
        let files = Files(&self.folder);
        files.write_config(self.which, variant)?;
        let mut run = Command::new(&self.sluice);
        run.args(["run", "--config"]).arg(files.config(self.which)).env("RUST_LOG", "info");
        self.runs += 1;
        let name = format!("node-{}-run{}", self.which.letter(), self.runs);
        self.process = Some(Process::start(&name, Some(namespace), run, &self.folder)?);
        Ok(())
    }

    /// Waits until it answers. Returns its first report.
    ///
    /// # Errors
    /// When it ends or does not answer in time: with the end of its log.
    pub fn wait_ready(&mut self) -> Result<Status> {
        let mut status = self.command(&["status", "--json", "--socket"]);
        status.arg(self.socket());
        let process = self.process.as_mut().context("the router was not started")?;
        let mut report = None;
        process.wait_until("answer", START_TIMEOUT, |_| {
            report = command::output(&mut status).ok();
            Ok(report.is_some())
        })?;
        Status::parse(&report.unwrap_or_default())
    }

    /// Its report at this moment.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        Status::parse(&self.ask(&["status", "--json"])?)
    }

    /// Runs a command of `sluice` that talks to it, and returns what that printed.
    ///
    /// # Errors
    /// When the command fails: with what it wrote.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        let mut ask = self.command(words);
        command::output(ask.arg("--socket").arg(self.socket()))
    }

    /// `sluice` with these arguments.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut sluice = Command::new(&self.sluice);
        sluice.args(words);
        sluice
    }

    /// Its control socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.files().socket(self.which)
    }

    /// The running process.
    ///
    /// # Errors
    /// When it was not started or was ended.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().with_context(|| format!("node {} does not run", self.which.letter()))
    }

    /// What the running process has written.
    ///
    /// # Errors
    /// When it does not run, or its log cannot be read.
    pub fn log(&self) -> Result<String> {
        self.process.as_ref().context("the router does not run")?.output()
    }

    /// Checks that it has not ended by itself.
    ///
    /// # Errors
    /// When it has: with how.
    pub fn check_alive(&mut self) -> Result<()> {
        let letter = self.which.letter();
        match self.process()?.ended()? {
            None => Ok(()),
            Some(status) => bail!("the router of node {letter} has ended: {status}"),
        }
    }

    /// Kills it without a chance to tidy up, and keeps its last report.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        self.ended.push(self.status()?);
        self.process()?.kill()?;
        self.process = None;
        Ok(())
    }

    /// Asks it to end, and keeps its last report. Returns how it ended.
    ///
    /// # Errors
    /// When it does not run, or does not heed.
    pub fn terminate(&mut self) -> Result<std::process::ExitStatus> {
        self.ended.push(self.status()?);
        let status = self.process()?.terminate(STOP_TIMEOUT)?;
        self.process = None;
        Ok(status)
    }

    /// Leaves the router running when this is dropped. Returns its process number.
    pub fn keep(&mut self) -> Option<u32> {
        self.process.as_mut().map(Process::keep)
    }
}
