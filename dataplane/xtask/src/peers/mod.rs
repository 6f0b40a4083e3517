//! Peers side by side: Sluice and other routers, one after the other, in the same place.
//!
//! ```text
//!   tester: generator --> t0 ===> d0  the router  d1 ===> t1 --> sink
//!           core 0                      core 1
//! ```
//!
//! [`bed`] is that place, [`placement`] says which core does what, [`routers`] are who is compared,
//! [`forwarding`] proves each of them before it is measured, [`generator`] measures, [`rounds`] gives
//! everybody a turn, and [`report`] tells what came of it. [`drops`] measures, in the same place, how much
//! is taken in to be refused. A router that cannot run here is skipped by
//! name, with the reason; nobody's figure is taken from elsewhere.
//!
//! # What makes it fair
//! - **The same links**: one queue, MTU 1500, a permanent neighbor at each end, one route of each
//!   family, 60-byte frames without check sequence. All offloads are off, so that packets are what a
//!   wire would carry.
//! - **GRO is on at both ends of both links, for everybody.** On veth it is less a feature than a
//!   switch: without it (and without an XDP program there) an interface has no NAPI, cannot be the
//!   target of an XDP redirect, and cannot be polled by a thread. UDP is not merged for it, as that
//!   takes `rx-udp-gro-forwarding` too, which is off. It costs the kernel's routers a look at each
//!   packet, which their own drivers' GRO would cost as well.
//! - **`net.core.bpf_jit_enable`** has to be 1: an interpreted program would be slower by a multiple.
//!   It belongs to the whole machine, so it is checked and not set.
//! - **`rp_filter`** is off in both namespaces: with it the kernel would look every packet's source up
//!   too, which no other router here does.
//! - **The kernel forwards only for those who need it** (Linux, nftables, and `bpf_fib_lookup`, which
//!   refuses otherwise), and its own counter of forwarded packets has to stay 0 for all but the first
//!   two: no router's figure contains packets that the kernel carried past it.
//! - **Spinning**: `sluice-busy` and testpmd take their core whole, whatever the load; `sluice` sleeps
//!   when idle, and Linux works in softirqs. Latency shows the difference.
//! - **testpmd routes nothing**, and xdp-fib has neither policy nor counters: they bound what a router
//!   of their kind could reach.
//!
//! # What veth cannot show
//! There is no NIC: every packet that leaves by an AF_XDP socket is copied by the kernel into a socket
//! buffer, with a system call for each 32, and that is most of what a user-space router costs here.
//! So this ranks input and output, not tables or policy.

pub mod bed;
pub mod drops;
pub mod forwarding;
pub mod generator;
pub mod leftovers;
pub mod placement;
pub mod report;
pub mod rounds;
pub mod routers;
pub mod statistics;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use self::generator::Engine;
use self::placement::Placement;
use self::rounds::{Plan, Rounds};
use self::routers::Router;
use crate::lab::cleanup;

/// The first part of the names of everything that is made here.
pub(crate) const GROUP: &str = "peers";

/// How long a quick comparison takes at most, all rounds together.
const QUICK_MAX: Duration = Duration::from_secs(170);

/// What is compared, and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Three minutes in all: rates at full load in short trials, no search for the rate without loss.
    #[arg(long)]
    pub quick: bool,
    /// Rounds; every router has a turn in each. Latency is measured from the second
    /// one on, at half of what the slowest router reached in the first.
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=100))]
    pub runs: u8,
    /// A folder for the results as JSON, for `sluice bench report`.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Prints the outcome as JSON; what people read goes to the standard error.
    #[arg(long)]
    pub json: bool,
    /// Only these routers; `sluice` comes along, as the others are compared with it.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub peers: Vec<String>,
    /// Which core does what.
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_values_t = [Placement::Default, Placement::ThreadedNapi]
    )]
    pub placements: Vec<Placement>,
    /// What makes the packets: the kernel (live), or an AF_XDP socket (xsk), as most generators do. With
    /// xsk one core sends about a million packets a second, so that fast routers show no more than that.
    #[arg(long, value_enum, default_value_t)]
    pub engine: Engine,
    /// Only checks that each router forwards here.
    #[arg(long)]
    pub check: bool,
}

impl Options {
    /// What a newcomer wants to see: Sluice beside Linux, in a minute or two.
    #[must_use]
    pub fn newcomer() -> Self {
        Self {
            quick: true,
            runs: 3,
            out: None,
            json: false,
            peers: vec!["linux".to_owned()],
            placements: vec![Placement::Default, Placement::ThreadedNapi],
            engine: Engine::Live,
            check: false,
        }
    }

    /// Whether DPDK is among those that are compared.
    #[must_use]
    pub fn wants_dpdk(&self) -> bool {
        let name = routers::dpdk::Testpmd.name();
        self.peers.is_empty() || self.peers.iter().any(|peer| peer == name)
    }

    fn plan(&self) -> Plan {
        Plan {
            rounds: usize::from(self.runs),
            placements: self.placements.clone(),
            trial: Duration::from_secs(if self.quick { 1 } else { 2 }),
            searches: !self.quick,
            duration_max: self.quick.then_some(QUICK_MAX),
        }
    }
}

/// Compares routers. `sluice` is the binary. Returns whether Sluice itself was measured.
///
/// # Errors
/// When the bed cannot be had here, or the outcome cannot be written.
pub fn run(options: &Options, sluice: &Path) -> Result<bool> {
    cleanup::on_signals()?;
    leftovers::remove()?;
    let mut routers = routers::all(sluice);
    for name in &options.peers {
        let names: Vec<_> = routers.iter().map(|router| router.name()).collect();
        ensure!(names.contains(&name.as_str()), "no router {name}: one of {}", names.join(", "));
    }
    if !options.peers.is_empty() {
        routers.retain(|router| {
            router.name() == report::OURS || options.peers.iter().any(|name| name == router.name())
        });
    }
    require_jit()?;
    let plan = options.plan();
    let started = Instant::now();
    let rounds = Rounds::new(&routers, sluice, options.engine)?;
    if options.check {
        return Ok(rounds.check(&plan.placements));
    }
    let here = routers.iter().filter(|router| router.lacks().is_none()).count();
    let minutes = plan.estimate(here).as_secs().div_ceil(60);
    eprintln!("{} rounds of {here} routers: at most {minutes} minutes or so", plan.rounds);
    let outcome = rounds.run(&plan);
    let report = report::Report { routers: &routers, outcome: &outcome };
    report.print(options.json)?;
    if let Some(folder) = &options.out {
        report.write(folder)?;
    }
    eprintln!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(outcome
        .rows
        .iter()
        .any(|row| routers[row.router].name() == report::OURS && row.full_median_pps().is_some()))
}

/// Makes sure that the kernel compiles BPF programs.
pub(crate) fn require_jit() -> Result<()> {
    const FILE: &str = "/proc/sys/net/core/bpf_jit_enable";
    let value = std::fs::read_to_string(FILE).context(FILE)?;
    ensure!(
        value.trim() != "0",
        "the kernel interprets BPF programs, which all XDP routers here are: \
         sysctl -w net.core.bpf_jit_enable=1"
    );
    Ok(())
}
