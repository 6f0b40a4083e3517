//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use ipnet::IpNet;

use crate::bench::BenchCommand;
use crate::plan::MaxChanged;
use crate::plugin_author::AuthorCommand;
use crate::plugin_manager::ManageCommand;
use crate::run::CONFIRM_S_MAX;

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
    ///
    /// Plugins are loaded as a reload would load them, up to putting them into force: compiled, instantiated,
    /// configured, and priced by generated packets. No running router is asked, and all is done at the lowest
    /// priority: where its workers want every core it takes as long as they leave it.
    Check {
        /// The configuration file
        file: PathBuf,
        /// Leave the plugins' modules, configuration files and tables alone
        #[arg(long)]
        no_plugins: bool,
    },
    /// Check whether this machine can run the router, and print the command that mends each fault
    Preflight(ConfigArgs),
    /// Draft a configuration from this machine's interfaces, addresses and routes
    Init {
        /// Print every key that there is instead, with its default and bounds, as Markdown
        #[arg(long)]
        reference: bool,
    },
    /// Show the state of the running router
    Status {
        #[command(flatten)]
        socket: SocketArgs,
        /// The report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Make the running router read its configuration again; it is put into force whole or not at all
    Reload(ReloadArgs),
    /// Keep the configuration that was reloaded with --confirm
    Confirm {
        /// Go back to the configuration before at once instead
        #[arg(long)]
        cancel: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Tell what another configuration would change for the packets that were received last
    ///
    /// Exit codes: 0 if it would change nothing for any of them, 3 if it would, 4 if the configuration
    /// differs and there was no packet to judge by, 1 if it is refused as a reload would refuse it.
    Plan(PlanArgs),
    /// Plugins: write, build, test and measure them; those of the running router
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Remove the classifier of a router that no longer runs: the kernel then gets every packet
    Detach(ConfigArgs),
    /// Run captures through the workers' code on memory rings, in virtual time
    Replay(ReplayArgs),
    /// Run programs inside a slice
    #[command(subcommand)]
    Workload(WorkloadCommand),
    /// Tell what would become of a packet now, and why: every table, entry and plugin that decides
    Explain(ExplainArgs),
    /// Explain live packets that match a filter
    Trace(TraceArgs),
    /// Write live packets to a pcapng file, with what became of each as a comment
    Capture(CaptureArgs),
    /// Routes of the running router: what there is, and which one an address takes
    #[command(subcommand)]
    Route(RouteCommand),
    /// Slices of the running router: who has which ports, and the way to them
    #[command(subcommand)]
    Slice(SliceCommand),
    /// Measure: send traffic and count what comes back, or watch the running router
    #[command(subcommand)]
    Bench(Box<BenchCommand>),
    /// List the reasons for which packets are dropped; `explain` and `capture -i drops` tell which one
    /// meets a packet
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

#[derive(Debug, Args)]
pub(crate) struct ReloadArgs {
    /// Refuse the configuration if more than this would change: '0.1%' of the packets that were received
    /// last, or '10 flows' of them. Refused too when there is no packet to judge by
    #[arg(long, value_name = "N%|N flows")]
    pub(crate) max_changed: Option<MaxChanged>,
    /// Go back to the configuration before unless 'sluice confirm' or another reload comes within so many
    /// seconds. A router that is started anew before that goes back too
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=CONFIRM_S_MAX))]
    pub(crate) confirm: Option<u64>,
    /// Load plugins even if they trap on all packets that were received last
    #[arg(long)]
    pub(crate) allow_traps: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArgs {
    /// The new configuration, which the router reads; relative paths in it start from its folder
    pub(crate) file: PathBuf,
    /// The report as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// List plugins: what runs, what ran before, and what they did
    List {
        /// The report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Load a plugin's file and configuration again, and swap it between two batches
    Reload {
        /// Name of the plugin in the configuration
        name: String,
        /// Load it even if it traps on all packets that the router received last
        #[arg(long)]
        allow_traps: bool,
        /// The report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    #[command(flatten)]
    Manage(ManageCommand),
    #[command(flatten)]
    Author(AuthorCommand),
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// List routes, those in force and those that are not, in the order of their prefixes
    Show {
        /// Only this prefix; an address is one of /32 or /128
        #[arg(value_parser = crate::show::prefix)]
        prefix: Option<IpNet>,
        /// Also all longer ones within it
        #[arg(long, requires = "prefix")]
        longer: bool,
        /// Only prefixes for which this source has a route: own-address, broadcast, static,
        /// machine, kernel, kernel:PROTOCOL (as `ip route` names it) or withdrawn
        #[arg(long, value_name = "SOURCE")]
        source: Option<String>,
        /// Only routes that are left to the kernel, because the router cannot express them
        #[arg(long)]
        unexpressible: bool,
        /// A line of JSON for each prefix
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Tell what a packet to an address would meet: the route and its source, what was not chosen and
    /// why, the next hops and their neighbors
    ///
    /// Of several addresses there is a line each, with a tab between columns and - where there is nothing:
    /// ADDRESS, PREFIX, what it leads to (next-hops, on-link, kernel, blackhole, unreachable, prohibit,
    /// broadcast, no-route), NEXTHOP%INTERFACE with commas between several, and the route's source.
    Get {
        /// The address, several, or - for those that standard input has, one a line
        #[arg(required = true, value_name = "ADDRESS")]
        addresses: Vec<String>,
        /// The answer as JSON, a line for each address
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Hold the tables that packets are forwarded by against the routes in force, for every address
    ///
    /// Tells how many routes and ranges of addresses were compared, and where the two differ, which they never
    /// should: then the exit status is 1. With a million routes the router takes no other changes for some tenths
    /// of a second; packets are forwarded meanwhile.
    Verify {
        /// The answer as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum SliceCommand {
    /// List the port ranges of shared addresses with their owners
    Show {
        /// Only shared prefixes that hold this one or lie in it; an address is one of /32 or /128
        #[arg(value_parser = crate::show::prefix)]
        prefix: Option<IpNet>,
        /// A line of JSON for each range
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Tell what a packet to a shared address would meet: slice, owner, tunnel and route
    ///
    /// Of several there is a line each, with a tab between columns and - where there is nothing: ADDRESS, PORT,
    /// PROTOCOL, slice, what becomes of it (kernel, workload, tunnel, drop, not-shared), where to or why, owner.
    Get {
        /// The shared address and the destination port (of ICMP the identifier), several such pairs, or - for
        /// lines of standard input: ADDRESS PORT [PROTOCOL]
        #[arg(required = true, value_names = ["ADDRESS", "PORT"], num_args = 1..)]
        ports: Vec<String>,
        /// tcp, udp, sctp, dccp, udplite, icmp, icmpv6, gre, esp, ah, ipip, or a number
        #[arg(long, default_value = "tcp")]
        protocol: String,
        /// The answer as JSON, a line for each
        #[arg(long)]
        json: bool,
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
    /// Tell of each packet what becomes of it and why, and write the same to explain.jsonl
    #[arg(long)]
    pub(crate) explain: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// The interface that receives the packet
    #[arg(long = "in", value_name = "IFACE")]
    pub(crate) interface: String,
    /// The packet: 'udp 192.0.2.1:5000 > 198.51.100.7:53', 'tcp [2001:db8::1]:80 > [2001:db8::2]:5000
    /// syn,ack', 'icmp 10.0.0.1 > 10.0.0.2 echo id 7', 'proto 47 10.0.0.1 > 10.0.0.2'; then any of
    /// 'ttl N', 'length N' (of the IP packet), 'df', 'fragment OFFSET', 'fragment OFFSET+'
    #[arg(required_unless_present_any = ["hex", "pcap"])]
    pub(crate) packet: Vec<String>,
    /// The frame from its Ethernet header on, in hexadecimal
    #[arg(long, value_name = "HEX", conflicts_with = "packet")]
    pub(crate) hex: Option<String>,
    /// The frames of a capture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["packet", "hex"])]
    pub(crate) pcap: Option<PathBuf>,
    /// Only this frame of the capture, counted from 1
    #[arg(long = "packet", value_name = "N", requires = "pcap", id = "number")]
    pub(crate) number: Option<usize>,
    /// Keep the destination MAC address of the frame; otherwise a unicast frame is taken as sent to the
    /// interface
    #[arg(long)]
    pub(crate) keep_mac: bool,
    /// The explanation as JSON, a line for each packet
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    /// Which packets, as in pcap-filter(7); all of them without it
    #[arg(long, value_name = "EXPR", default_value = "")]
    pub(crate) filter: String,
    /// How many packets to explain
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) count: usize,
    /// The interface that receives them
    #[arg(long = "in", value_name = "IFACE", default_value = "any")]
    pub(crate) interface: String,
    /// The explanations as JSON, a line for each packet
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    /// An interface (what it receives and sends), 'any', 'drops' (what is dropped), or a plugin (what
    /// it drops)
    #[arg(short = 'i', long = "in", value_name = "IFACE|any|drops|PLUGIN")]
    pub(crate) target: String,
    /// Which packets, as in pcap-filter(7); all of them without it
    #[arg(long, value_name = "EXPR", default_value = "")]
    pub(crate) filter: String,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub(crate) write: PathBuf,
    /// Bytes of each packet to keep
    #[arg(long, value_name = "BYTES", default_value_t = 4096, value_parser = snaplen)]
    pub(crate) snaplen: usize,
    /// Stop after this many packets
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// Stop after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<f64>,
    #[command(flatten)]
    pub(crate) socket: SocketArgs,
}

/// What a tap copies at most is a whole chunk.
fn snaplen(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes @ 1..=forward::SNAP_BYTES_MAX) => Ok(bytes),
        _ => Err(format!("1 to {} bytes", forward::SNAP_BYTES_MAX)),
    }
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
