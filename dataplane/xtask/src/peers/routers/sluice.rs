//! Sluice itself: one worker with one queue of each interface, routes and neighbors from the kernel.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Router, Running, Site};
use crate::command;
use crate::lab::cleanup::{self, Folder};
use crate::lab::configuration::replace;
use crate::lab::process::Process;

/// How long it may take to be ready.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Receive rings that bear four times as long without a worker as those by default.
const LONG_RING_ENTRIES: u32 = 8192;

/// How the worker waits for packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// It sleeps when there are none.
    Adaptive,
    /// It never sleeps.
    Busy,
}

impl Poll {
    fn key(self) -> &'static str {
        match self {
            Self::Adaptive => "adaptive",
            Self::Busy => "busy",
        }
    }
}

/// The router of this workspace.
#[derive(Clone, Debug)]
pub struct Sluice {
    program: PathBuf,
    poll: Poll,
    has_long_rings: bool,
    /// A plugin `filter`, and the sources whose packets it drops.
    filter: Option<(PathBuf, &'static str)>,
}

impl Sluice {
    /// The router of that binary.
    #[must_use]
    pub fn new(program: &Path, poll: Poll) -> Self {
        Self { program: program.to_owned(), poll, has_long_rings: false, filter: None }
    }

    /// With receive rings of [`LONG_RING_ENTRIES`].
    #[must_use]
    pub fn with_long_rings(mut self) -> Self {
        self.has_long_rings = true;
        self
    }

    /// With a plugin in front that drops what comes from `sources`.
    #[must_use]
    pub fn with_filter(mut self, module: &Path, sources: &'static str) -> Self {
        self.filter = Some((module.to_owned(), sources));
        self
    }

    /// The rings' part of the configuration.
    fn rings(&self) -> String {
        if self.has_long_rings {
            format!("rx_ring_entries = {LONG_RING_ENTRIES}\n")
        } else {
            String::new()
        }
    }

    /// The plugin's part of the configuration.
    fn plugin(&self) -> String {
        let Some((module, sources)) = &self.filter else { return String::new() };
        format!(
            r#"
[[plugin]]
name = "filter"
path = "{}"
hook = "ingress"

[plugin.config]
default = "allow"

[[plugin.config.rules]]
action = "drop"
source = "{sources}"
"#,
            module.display()
        )
    }
}

impl Router for Sluice {
    fn name(&self) -> &'static str {
        match (self.poll, self.has_long_rings) {
            (Poll::Adaptive, false) => "sluice",
            (Poll::Busy, false) => "sluice-busy",
            (_, true) => "sluice-long-rings",
        }
    }

    fn about(&self) -> &'static str {
        match (self.poll, self.has_long_rings) {
            (Poll::Adaptive, false) => "AF_XDP, one worker, poll = \"adaptive\"",
            (Poll::Busy, false) => "AF_XDP, one worker, poll = \"busy\"",
            (_, true) => "AF_XDP, one worker, poll = \"busy\", rx_ring_entries = 8192",
        }
    }

    fn lacks(&self) -> Option<String> {
        // The commands before this one have built it.
        None
    }

    fn version(&self) -> Option<String> {
        let text = command::output(Command::new(&self.program).arg("--version")).ok()?;
        text.split_whitespace().last().map(str::to_owned)
    }

    fn is_in_kernel(&self) -> bool {
        false
    }

    fn set_up(&self, site: Site<'_>) -> Result<Running> {
        let name = format!("peers-{}", std::process::id());
        let config = site.folder.join("sluice.toml");
        let socket = socket(site);
        replace(
            &config,
            format!(
                r#"[router]
name = "{name}"
poll = "{}"
control_socket = "{}"
{}
[workers]
cores = [{}]

[[interface]]
name = "d0"
role = "outside"

[[interface]]
name = "d1"
role = "inside"
{}"#,
                self.poll.key(),
                socket.display(),
                self.rings(),
                site.cores.router,
                self.plugin()
            ),
        )?;
        let pins = Folder::adopt(Path::new(cleanup::PINS).join(name));
        let mut run = Command::new(&self.program);
        run.args(["run", "--config"]).arg(&config).env("RUST_LOG", "info");
        let mut process = Process::start("sluice", Some(&site.bed.dut), run, site.folder)?;
        process.wait_until("answer", START_TIMEOUT, |_| Ok(status(&self.program, site).is_ok()))?;
        let mut running = Running::process(process);
        running.folders.push(pins);
        Ok(running)
    }
}

/// The control socket of the router at a site.
fn socket(site: Site<'_>) -> PathBuf {
    site.folder.join("sluice.sock")
}

/// What the router at a site says of itself.
///
/// # Errors
/// When it does not answer.
pub(crate) fn status(program: &Path, site: Site<'_>) -> Result<Value> {
    let mut status = Command::new(program);
    status.args(["status", "--json", "--socket"]).arg(socket(site));
    serde_json::from_str(&command::output(&mut status)?).context("`sluice status --json`")
}
