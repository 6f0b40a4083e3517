//! [`Placement`]: which core does what.
//!
//! ```text
//!                 generator's core             router's core
//!   default       generator, and the softirqs  the AF_XDP router's worker, and the softirqs that
//!                 that its packets raise       its packets raise
//!   threaded-napi generator, NAPI of t0 t1,    the router: a worker, or NAPI of d0 d1 where the
//!                 and of d0 d1 where a worker  kernel itself routes (forwarding, nftables, XDP)
//!                 routes
//!   one-core      generator, NAPI of t0 t1     NAPI of d0 d1, and the worker if there is one
//! ```
//!
//! A thread on the generator's core runs before the generator (SCHED_FIFO), as a NIC's interrupt would:
//! otherwise the two would take turns of milliseconds, in which the sink's queue of 256 frames runs
//! over. On the router's core nothing has such a privilege.
//!
//! In `default`, a kernel that routes does so on the generator's core, within the call that sends:
//! the two share a core there, and neither goes as fast as it could. `threaded-napi` gives every
//! router a core to itself; a worker leaves to the generator's core what a NIC's driver does. In
//! `one-core`, all that the router and its drivers do shares one core. So a ratio says something
//! within one placement only.

use std::collections::BTreeSet;
use std::fmt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use super::bed::Bed;
use crate::command;
use crate::lab::configuration;

/// How long the kernel may take to start the threads.
const THREADS_TIMEOUT: Duration = Duration::from_secs(2);

/// The two cores of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Cores {
    /// Where the generator runs.
    pub generator: usize,
    /// Where the router runs.
    pub router: usize,
}

impl Cores {
    /// The first two cores that this process may use.
    ///
    /// # Errors
    /// When it may use only one.
    pub fn find() -> Result<Self> {
        let [generator, router] =
            configuration::two_cores().context("the generator and the router need a core each")?;
        Ok(Self { generator, router })
    }
}

/// Which core does what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Placement {
    /// Softirqs run wherever the kernel raises them.
    Default,
    /// NAPI in threads; the router has a core to itself.
    ThreadedNapi,
    /// NAPI in threads; the router and what its drivers do share a core.
    OneCore,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Placement {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::ThreadedNapi => "threaded-napi",
            Self::OneCore => "one-core",
        }
    }

    /// Puts the NAPI of the bed's interfaces where this placement has it. The peer must be set up
    /// already: an XDP program can make the kernel begin anew with NAPI.
    ///
    /// # Errors
    /// When the kernel gives an interface no thread, or does not let it be pinned.
    pub fn apply(self, bed: &Bed, cores: Cores, is_router_in_kernel: bool) -> Result<()> {
        let dut = match (self, is_router_in_kernel) {
            (Self::Default, _) => return Ok(()),
            (Self::OneCore, _) | (Self::ThreadedNapi, true) => cores.router,
            (Self::ThreadedNapi, false) => cores.generator,
        };
        for ((namespace, interface), core) in
            bed.interfaces().into_iter().zip([cores.generator, cores.generator, dut, dut])
        {
            let before = napi_threads(interface)?;
            // `ip netns exec` shows the namespace's interfaces in /sys.
            let write = format!("echo 1 > /sys/class/net/{interface}/threaded");
            let mut exec = Command::new("ip");
            exec.args(["netns", "exec", namespace.name(), "sh", "-c", &write]);
            command::output(&mut exec).context("threaded NAPI needs Linux 5.12")?;
            let deadline = Instant::now() + THREADS_TIMEOUT;
            // One of the same name in another namespace was there before.
            let pid = loop {
                let started = napi_threads(interface)?;
                if let Some(&pid) = started.difference(&before).next() {
                    break pid;
                }
                ensure!(
                    Instant::now() < deadline,
                    "the kernel starts no NAPI thread of {interface}"
                );
                std::thread::sleep(Duration::from_millis(5));
            };
            pin(pid, core, core == cores.generator)
                .with_context(|| format!("the NAPI thread of {interface} to core {core}"))?;
        }
        Ok(())
    }
}

/// Pins a thread to a core, and lets it run there before all ordinary ones if it `goes_first`.
fn pin(pid: i32, core: usize, goes_first: bool) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core)?;
    sched_setaffinity(Pid::from_raw(pid), &set)?;
    if goes_first {
        command::output(Command::new("chrt").args(["--fifo", "--pid", "1", &pid.to_string()]))?;
    }
    Ok(())
}

/// The pids of the kernel threads `napi/INTERFACE-ID`, of all namespaces.
fn napi_threads(interface: &str) -> Result<BTreeSet<i32>> {
    let prefix = format!("napi/{interface}-");
    let mut pids = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").context("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the two looks.
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        if name.starts_with(&prefix) {
            pids.insert(pid);
        }
    }
    Ok(pids)
}
