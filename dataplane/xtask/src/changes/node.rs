//! [`Node`]: `sluice run` on a node, as a process that is started, asked, reloaded and ended.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::bed::Shape;
use super::configuration::{self, Fixed, State, Which};
use crate::command;
use crate::lab::cleanup::{self, Folder};
use crate::lab::configuration::replace;
use crate::lab::namespace::Namespace;
use crate::lab::process::Process;
use crate::lab::status::Status;

/// How long it may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// How long it may take to drain and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// A router with its files.
#[derive(Debug)]
pub struct Node {
    which: Which,
    shape: Shape,
    core: usize,
    name: String,
    sluice: PathBuf,
    folder: PathBuf,
    process: Option<Process>,
    runs: u32,
    // Dropped after the process that fills them.
    _pins: Folder,
}

impl Node {
    /// A router that does not run yet. Its files are in `folder`.
    #[must_use]
    pub fn new(which: Which, shape: Shape, core: usize, sluice: &Path, folder: &Path) -> Self {
        let name = format!("changes-{}-{}", std::process::id(), which.letter());
        Self {
            which,
            shape,
            core,
            sluice: sluice.to_owned(),
            folder: folder.to_owned(),
            process: None,
            runs: 0,
            _pins: Folder::adopt(Path::new(cleanup::PINS).join(&name)),
            name,
        }
    }

    /// Writes its configuration. A running router does not know it before it is told to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: State) -> Result<()> {
        let fixed = Fixed {
            which: self.which,
            shape: self.shape,
            core: self.core,
            name: &self.name,
            folder: &self.folder,
        };
        replace(&self.config(), configuration::text(fixed, state))
    }

    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not answer in time: with the end of its log.
    pub fn start(&mut self, namespace: &Namespace) -> Result<()> {
        let mut run = Command::new(&self.sluice);
        run.args(["run", "--config"]).arg(self.config()).env("RUST_LOG", "info");
        self.runs += 1;
        let name = format!("node-{}-run{}", self.which.letter(), self.runs);
        let mut process = Process::start(&name, Some(namespace), run, &self.folder)?;
        let socket = self.socket();
        let mut status = self.command(&["status", "--json"]);
        // A connection costs less than a process, which would take time from the one that starts; but
        // only an answer says that it runs.
        process.wait_until("answer", START_TIMEOUT, |_| {
            Ok(UnixStream::connect(&socket).is_ok() && command::output(&mut status).is_ok())
        })?;
        self.process = Some(process);
        Ok(())
    }

    /// Its report at this moment.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn status(&self) -> Result<Status> {
        Status::parse(&self.ask(&["status", "--json"])?)
    }

    /// The number of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        self.process.as_ref().map(Process::pid).context("the router does not run")
    }

    /// Runs a command of `sluice` that talks to it, and returns what that printed.
    ///
    /// # Errors
    /// When the command fails: with what it wrote.
    pub fn ask(&self, words: &[&str]) -> Result<String> {
        command::output(&mut self.command(words))
    }

    /// Sends it one request over its socket; returns the answer.
    ///
    /// # Errors
    /// When there is no answer, or it is an error.
    pub fn request(&self, request: &Value) -> Result<Value> {
        let mut socket = UnixStream::connect(self.socket()).context("the control socket")?;
        socket.set_read_timeout(Some(START_TIMEOUT))?;
        writeln!(socket, "{request}")?;
        let mut line = String::new();
        BufReader::new(socket).read_line(&mut line)?;
        let mut answer: Value = serde_json::from_str(&line).context("the router's answer")?;
        match answer.get_mut("ok") {
            Some(value) => Ok(value.take()),
            None => bail!("the router answers {request} with {answer}"),
        }
    }

    /// Makes it read its configuration in that state.
    ///
    /// # Errors
    /// When it refuses.
    pub fn reload(&self, state: State) -> Result<()> {
        self.write(state)?;
        self.ask(&["reload"]).map(drop)
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When it does not heed, or ends with an error.
    pub fn terminate(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the router does not run")?;
        let status = process.terminate(STOP_TIMEOUT)?;
        if !status.success() {
            bail!("the router ended with {status}: {}", process.output()?.trim_end());
        }
        Ok(())
    }

    /// Kills it without a chance to tidy up, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self) -> Result<()> {
        let mut process = self.process.take().context("the router does not run")?;
        process.kill().map(drop)
    }

    fn config(&self) -> PathBuf {
        self.folder.join(format!("{}.toml", self.which.letter()))
    }

    fn socket(&self) -> PathBuf {
        self.folder.join(format!("{}.sock", self.which.letter()))
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut sluice = Command::new(&self.sluice);
        sluice.args(words).arg("--socket").arg(self.socket());
        sluice
    }
}
