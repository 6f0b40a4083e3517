//! [`Stage`]: the topology with its servers and both routers, on which the acts play.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;

use super::cleanup::Folder;
use super::configuration::{Files, Variant, Which};
use super::namespace::Namespace;
use super::node::Node;
use super::plan::{
    BY_NODE_A, BY_NODE_B, ECHO_PORT, MANAGEMENT_PORT, NODE_B, Pair, SERVER, SERVER2, SERVICE_A,
    SERVICE_B, SHARED,
};
use super::process::Process;
use super::routes::Table;
use super::topology::Topology;
use super::{Binaries, GROUP, configuration, serve};

/// What was done in all, beside what the routers count.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    /// TCP connections that carried all of their bytes.
    pub flows: u64,
    /// Bytes of those connections, each compared with what it should be.
    pub bytes: u64,
    /// UDP and ICMP echoes that came back.
    pub echoes: u64,
    /// Plugin reloads under traffic.
    pub plugin_reloads: u64,
    /// Packets that were lost during those.
    pub plugin_reload_losses: u64,
    /// Packets that the routers were seen to refuse, as they should.
    pub refused: u64,
}

/// Everything that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Stage {
    // Dropped in this order: processes before the namespaces that they are in, and before the folder
    // that they write to.
    /// The router with a workload host behind it.
    pub a: Node,
    /// The router whose workload is its own kernel.
    pub b: Node,
    servers: Vec<Process>,
    /// Where the routers pin their programs; they leave them when they are killed.
    pins: [Folder; 2],
    /// The namespaces.
    pub topology: Topology,
    /// Configurations, logs and downloads.
    pub folder: Folder,
    /// The routes of node a.
    pub table: Table,
    /// What node b's configuration is now.
    pub variant: Variant,
    /// What was done so far.
    pub totals: Totals,
}

impl Stage {
    /// Builds the network, writes what the routers read, and starts the servers; not the routers.
    ///
    /// # Errors
    /// When something of it cannot be had here.
    pub fn build(binaries: &Binaries) -> Result<Self> {
        let topology = Topology::build().context("the network cannot be built")?;
        let folder = Folder::create(GROUP, "run")?;
        let files = Files(folder.path());
        let test_data = std::env::var_os("SLUICE_TESTDATA").map(std::path::PathBuf::from);
        let table = Table::load(test_data.as_deref())?;
        table.write(&files.routes())?;
        let module = std::fs::read(&binaries.filter)
            .with_context(|| binaries.filter.display().to_string())?;
        configuration::replace(&files.module(), module)?;
        for which in [Which::A, Which::B] {
            files.write_rules(which, "")?;
        }
        let servers = start_servers(&topology, &folder)?;
        Ok(Self {
            a: Node::new(Which::A, &binaries.sluice, folder.path()),
            b: Node::new(Which::B, &binaries.sluice, folder.path()),
            servers,
            pins: [Which::A, Which::B].map(|which| Folder::adopt(which.pin_directory())),
            topology,
            folder,
            table,
            variant: Variant::default(),
            totals: Totals::default(),
        })
    }

    /// Starts both routers and waits until they are ready.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub fn start_routers(&mut self) -> Result<()> {
        self.a.start(&self.topology.node_a, self.variant)?;
        self.b.start(&self.topology.node_b, self.variant)?;
        self.a.wait_ready()?;
        self.b.wait_ready()?;
        Ok(())
    }

    /// Starts node b's router again, with the configuration of [`Self::variant`].
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn restart_b(&mut self) -> Result<()> {
        self.b.start(&self.topology.node_b, self.variant)?;
        self.b.wait_ready().map(drop)
    }

    /// Both routers.
    pub fn nodes(&mut self) -> [&mut Node; 2] {
        [&mut self.a, &mut self.b]
    }

    /// One of the routers.
    #[must_use]
    pub fn node(&self, which: Which) -> &Node {
        match which {
            Which::A => &self.a,
            Which::B => &self.b,
        }
    }

    /// The namespace in which the node's workload runs.
    #[must_use]
    pub fn workload(&self, which: Which) -> &Namespace {
        match which {
            Which::A => &self.topology.host_a,
            Which::B => &self.topology.node_b,
        }
    }

    /// A program confined to the slice of that node and family, to be run where its workload is.
    #[must_use]
    pub fn confined(&self, which: Which, is_v6: bool, program: &[&str]) -> Command {
        let slice = format!("{}{}", which.letter(), if is_v6 { '6' } else { '4' });
        let mut run = self.node(which).command(&["workload", "run", "--slice", &slice, "--socket"]);
        run.arg(self.node(which).socket()).arg("--").args(program);
        run
    }

    /// A packet counter summed over both routers.
    ///
    /// # Errors
    /// When a router does not answer.
    pub fn total(&self, counter: &str) -> Result<u64> {
        Ok(self.a.status()?.total(counter) + self.b.status()?.total(counter))
    }

    /// Packets that both routers dropped for a reason.
    ///
    /// # Errors
    /// When a router does not answer.
    pub fn dropped(&self, reason: &str) -> Result<u64> {
        Ok(self.a.status()?.dropped(reason) + self.b.status()?.dropped(reason))
    }

    /// Leaves all of it when this is dropped. Returns the process numbers of what runs.
    pub fn keep(&mut self) -> Vec<u32> {
        for namespace in self.topology.all() {
            namespace.keep();
        }
        for folder in self.pins.iter_mut().chain([&mut self.folder]) {
            folder.keep();
        }
        let servers = self.servers.iter_mut().map(Process::keep);
        servers.chain([self.a.keep(), self.b.keep()].into_iter().flatten()).collect()
    }
}

fn start_servers(topology: &Topology, folder: &Folder) -> Result<Vec<Process>> {
    let at = |pair: Pair, port: u16| pair.both().map(|address| SocketAddr::new(address, port));
    let logs = folder.path();
    let management = [SocketAddr::from((NODE_B.v4, MANAGEMENT_PORT))];
    // From each of inet2's addresses returns take another way.
    let echo2 = [SERVER2, BY_NODE_A].map(|pair| at(pair, ECHO_PORT)).concat();
    let http2 = [SERVER2, BY_NODE_A, BY_NODE_B].map(|pair| at(pair, 80)).concat();
    let service_b: Vec<_> = at(SHARED, SERVICE_B).into_iter().chain(management).collect();
    Ok(vec![
        serve::start("inet1", &topology.inet1, &at(SERVER, 80), &at(SERVER, ECHO_PORT), logs)?,
        serve::start("inet2", &topology.inet2, &http2, &echo2, logs)?,
        serve::start("host-a", &topology.host_a, &at(SHARED, SERVICE_A), &[], logs)?,
        serve::start("service-b", &topology.node_b, &service_b, &[], logs)?,
    ])
}

/// Waits until `condition` gives something, for what follows a moment later.
///
/// # Errors
/// When it does not in time: with `what`, or what the condition's last error was.
pub fn eventually<R>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<R>>,
) -> Result<R> {
    let deadline = std::time::Instant::now() + timeout;
    loop {
        if let Some(result) = condition()? {
            return Ok(result);
        }
        anyhow::ensure!(
            std::time::Instant::now() < deadline,
            "{what}: not within {} ms",
            timeout.as_millis()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `4` or `6`, for names.
#[must_use]
pub fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// What the network answered, or did not.
#[must_use]
pub fn errno_name(outcome: &std::result::Result<std::net::TcpStream, Errno>) -> String {
    match outcome {
        Ok(_) => "connected".to_owned(),
        Err(Errno::ETIMEDOUT) => "no answer".to_owned(),
        Err(errno) => errno.desc().to_owned(),
    }
}
