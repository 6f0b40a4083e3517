//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::bench::BenchCommand;

/// A user-space router on AF_XDP: port slices of shared addresses, longest-prefix match, and
/// policy in WebAssembly.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, about, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the router until SIGTERM or SIGINT
    Run(ConfigArgs),
    /// Check a configuration and say everything that is wrong with it
    Check {
        /// The configuration file
        file: PathBuf,
    },
    /// Check whether this machine can run the router, and print the command that mends each fault
    Preflight(ConfigArgs),
    /// Draft a configuration from this machine's interfaces, addresses and routes
    Init,
    /// Show the state of the running router
    Status {
        #[command(flatten)]
        socket: SocketArgs,
        /// The report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the running router read its configuration again; it is put into force whole or not at all
    Reload {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Plugins of the running router
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Remove the classifier of a router that no longer runs: the kernel then gets every packet
    Detach(ConfigArgs),
    /// Run captures through the workers' code on memory rings, in virtual time
    Replay(ReplayArgs),
    /// Run programs inside a slice
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// Measure: send traffic and count what comes back, or watch the running router
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// Explain the reasons for which packets are dropped
    Drops,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/sluice/sluice.toml")]
    pub(crate) config: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct SocketArgs {
    /// The router's control socket
    #[arg(long, value_name = "PATH", default_value = "/run/sluice/default.sock")]
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// List plugins with what they did
    List {
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Load a plugin's file and configuration again, and swap it between two batches
    Reload {
        /// Name of the plugin in the configuration
        name: String,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// A capture and the interface that receives it
    #[arg(long = "in", value_name = "IFACE=FILE", required = true)]
    pub(crate) inputs: Vec<String>,
    /// Where to write what left each interface, what went to the kernel, and counters.json
    #[arg(long, value_name = "DIR")]
    pub(crate) out_dir: PathBuf,
    /// Number of workers; packets are spread over them by flow
    #[arg(long, default_value_t = 1)]
    pub(crate) workers: u16,
    /// Keep the destination MAC addresses of the captures; otherwise each unicast frame is taken as
    /// sent to the interface that receives it
    #[arg(long)]
    pub(crate) keep_mac: bool,
    /// Leave next hops unresolved that the configuration has no [[neighbor]] for; otherwise each
    /// resolves at once, to an invented MAC address
    #[arg(long)]
    pub(crate) no_resolve: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkloadCommand {
    /// Run a command so that its ephemeral ports, and its source address, are those of a slice
    Run(WorkloadRunArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WorkloadRunArgs {
    /// The slice: its name in the running router, or ADDRESS:FIRST-LAST
    #[arg(long)]
    pub(crate) slice: String,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}
