//! The lab: a small Internet of namespaces on this machine, with real traffic through real routers.
//!
//! ```text
//!   inet1 198.51.100.10          inet2 198.51.100.20     what they send to the shared addresses
//!     |                            |                     goes to either node, by flow
//!     +------------- ix ----------+         a bridge: the subnet of a cloud
//!     |                           |
//!   wan0 10.0.0.11              wan0 10.0.0.12
//!   node-a  <---- tunnel ---->  node-b      `sluice run` on both
//!   lan0                          its workload: 192.0.2.1, ports 33792-65535
//!     |
//!   host-a  192.0.2.1, ports 1024-33791
//! ```
//!
//! The same in IPv6, with 2001:db8:100::1 as the shared address. [`plan`] has all addresses.
//!
//! Everything is made by this process and goes away with it, however it ends, unless it is to be kept
//! ([`kept`]). The judges share no code with the router: kernels, curl, ping, and bytes that both ends
//! know beforehand.

pub mod acts;
pub mod capture;
pub mod cleanup;
pub mod configuration;
pub mod kept;
pub mod link;
pub mod namespace;
pub mod node;
pub mod plan;
pub mod probes;
pub mod process;
pub mod random;
pub mod report;
pub mod routes;
pub mod serve;
pub mod sockets;
pub mod stage;
pub mod status;
pub mod topology;
pub mod totals;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use self::report::Report;
use self::stage::Stage;
use crate::build::Workspace;

/// The first part of the names of everything that the lab makes.
const GROUP: &str = "lab";

/// How the lab is run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Leaves everything running, until the next run, and prints what to try.
    #[arg(long)]
    pub keep: bool,
    /// Only removes what was kept.
    #[arg(long, conflicts_with = "keep")]
    pub clean: bool,
    /// Prints the outcome as JSON; what people read goes to the standard error.
    #[arg(long)]
    pub json: bool,
}

/// What the lab runs.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The router.
    pub sluice: PathBuf,
    /// The filter plugin.
    pub filter: PathBuf,
}

impl Binaries {
    /// Builds them, unless `SLUICE_ROUTER` and `SLUICE_PLUGINS` say where they are.
    ///
    /// # Errors
    /// When they cannot be built.
    pub fn find(workspace: &Workspace) -> Result<Self> {
        let given = |name| std::env::var_os(name).map(PathBuf::from);
        let plugins = match given("SLUICE_PLUGINS") {
            Some(folder) => folder,
            None => {
                workspace.build_plugins()?;
                workspace.plugins()
            }
        };
        let sluice = given("SLUICE_ROUTER").map_or_else(|| workspace.build_router(), Ok)?;
        Ok(Self { sluice, filter: plugins.join("filter.wasm") })
    }
}

/// Finds out whether this machine lets the lab be built.
///
/// # Errors
/// When it does not: without root or a second core, or in a container that may not make namespaces.
pub fn probe() -> Result<()> {
    configuration::two_cores()?;
    namespace::Namespace::create(GROUP, "probe").map(drop)
}

/// Removes what ended runs have left, kept or not.
///
/// # Errors
/// When something of it cannot be removed.
pub fn clean() -> Result<()> {
    kept::end()?;
    for name in cleanup::delete_leftovers(GROUP)? {
        eprintln!("deleted {name}, which an earlier run left");
    }
    Ok(())
}

/// Builds the network, plays every act, and tells what happened. Returns whether all of it was as
/// expected.
///
/// # Errors
/// When the network cannot be built.
pub fn run(options: &Options, binaries: &Binaries) -> Result<bool> {
    cleanup::on_signals()?;
    clean()?;
    let started = Instant::now();
    let mut report = Report::new("lab");
    let mut stage = Stage::build(binaries)?;
    if acts::start::play(&mut stage, &mut report) {
        acts::flows::play(&mut stage, &mut report);
        acts::sharing::play(&mut stage, &mut report);
        acts::destinations::play(&mut stage, &mut report);
        acts::plugins::play(&mut stage, &mut report);
        acts::refusals::play(&mut stage, &mut report);
        acts::reload::play(&mut stage, &mut report);
        acts::mtu::play(&mut stage, &mut report);
        acts::crash::play(&mut stage, &mut report);
        acts::idle::play(&mut stage, &mut report);
        acts::ending::account(&mut stage, &mut report);
        if !options.keep {
            acts::ending::play(&mut stage, &mut report);
        }
        totals::add(&stage, &mut report, started.elapsed());
    }
    report.print(options.json);
    if options.keep {
        kept::leave(stage, options.json)?;
    }
    Ok(report.passed())
}
