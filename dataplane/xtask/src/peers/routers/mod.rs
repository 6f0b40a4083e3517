//! The routers that are compared, each with how it is set up and what it does to a packet.

pub mod dpdk;
pub mod kernel;
pub mod sluice;
pub mod vpp;
pub mod xdp_fib;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::bed::Bed;
use super::forwarding::Expected;
use super::placement::Cores;
use crate::command;
use crate::lab::cleanup::Folder;
use crate::lab::process::Process;

/// How long a router's process may take to end when it is asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a router is set up.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// The namespaces.
    pub bed: &'a Bed,
    /// A folder for what it reads and logs.
    pub folder: &'a Path,
    /// Its core and the generator's.
    pub cores: Cores,
}

/// A router that can be measured.
pub trait Router {
    /// Its name in tables and on the command line.
    fn name(&self) -> &'static str;

    /// What it is and what it does not do, in one line.
    fn about(&self) -> &'static str;

    /// What this machine lacks to run it, with the command that mends it; `None` if nothing.
    fn lacks(&self) -> Option<String>;

    /// Its version, if it tells.
    fn version(&self) -> Option<String>;

    /// Whether the kernel's NAPI does the router's work, so that the router's core is where that runs.
    fn is_in_kernel(&self) -> bool;

    /// What it does to a packet.
    fn expected(&self) -> Expected {
        Expected { lowers_ttl: true, translates_source: false }
    }

    /// Whether the kernel's own forwarding carries its packets; if not, none may take that way.
    fn uses_kernel_forwarding(&self) -> bool {
        false
    }

    /// Sets it up in `dut`. It may take a moment more until it forwards.
    ///
    /// # Errors
    /// Why it does not run here.
    fn set_up(&self, site: Site<'_>) -> Result<Running>;
}

/// A router that is set up. What is in the namespace goes with that; the rest goes with this.
#[derive(Debug, Default)]
pub struct Running {
    process: Option<Process>,
    // Dropped after the process that fills them.
    folders: Vec<Folder>,
}

impl Running {
    /// A router that is a process.
    #[must_use]
    pub fn process(process: Process) -> Self {
        Self { process: Some(process), folders: Vec::new() }
    }

    /// Checks that it has not ended by itself.
    ///
    /// # Errors
    /// When it has: with the end of its log.
    pub fn check_alive(&mut self) -> Result<()> {
        match &mut self.process {
            // A process that has ended makes this fail; one that lives does it at once.
            Some(process) => {
                let ended = process.ended()?;
                anyhow::ensure!(
                    ended.is_none(),
                    "{} ended while it was measured: {}",
                    process.name(),
                    last_lines(process)
                );
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When its process does not heed; it is killed then.
    pub fn tear_down(mut self) -> Result<()> {
        match &mut self.process {
            Some(process) => process.terminate(STOP_TIMEOUT).map(drop),
            None => Ok(()),
        }
    }
}

fn last_lines(process: &Process) -> String {
    let text = process.output().unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n  ")
}

/// All routers in the order of the table. `sluice` is the binary.
#[must_use]
pub fn all(sluice: &Path) -> Vec<Box<dyn Router>> {
    vec![
        Box::new(sluice::Sluice::new(sluice, sluice::Poll::Adaptive)),
        Box::new(sluice::Sluice::new(sluice, sluice::Poll::Busy)),
        Box::new(sluice::Sluice::new(sluice, sluice::Poll::Busy).with_long_rings()),
        Box::new(kernel::Kernel::Plain),
        Box::new(kernel::Kernel::Conntrack),
        Box::new(kernel::Kernel::SourceNat),
        Box::new(xdp_fib::XdpFib),
        Box::new(dpdk::Testpmd),
        Box::new(vpp::Vpp),
    ]
}

/// The path of a program, if there is one of that name.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // An ordinary user's path often lacks the folder of ip, nft and bpftool.
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// What a missing program is called, and how to get it.
fn lacks_program(name: &str, package: &str) -> Option<String> {
    match program(name) {
        Some(_) => None,
        None => Some(format!("no {name} here: apt-get install --no-install-recommends {package}")),
    }
}

/// A program that may lock as much memory as this process may allow it: older loaders of BPF programs
/// and AF_XDP sockets count what they have against that limit.
fn unlimited(program: &Path) -> Command {
    let mut shell = Command::new("sh");
    // Without CAP_SYS_RESOURCE the hard limit is the most there is.
    let script = "ulimit -l unlimited 2>/dev/null || ulimit -l $(ulimit -H -l); exec \"$0\" \"$@\"";
    shell.args(["-c", script]).arg(program);
    shell
}

/// The first line that a program prints with these arguments.
fn first_line(name: &str, arguments: &[&str]) -> Option<String> {
    let text = command::output(Command::new(program(name)?).args(arguments)).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

/// The kernel's release.
#[must_use]
pub fn kernel_release() -> Option<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    Some(release.trim().to_owned())
}
