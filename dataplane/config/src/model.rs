//! The checked configuration: what the router runs.
//!
//! Names have become ids: an [`InterfaceId`], a [`NodeId`](tables::NodeId), a
//! [`SiteId`](tables::SiteId), a [`SliceId`](tables::SliceId) and a
//! [`LocalOwnerId`](tables::LocalOwnerId) are positions in [`Checked::interfaces`], [`Checked::nodes`],
//! [`Checked::sites`], [`Checked::slices`] and [`Checked::owners`]. All of them are valid, since a
//! `Checked` is only made by a check without errors. The keys of the file, with their bounds and
//! defaults, are described in `raw.rs`; here stands what a value means once it is checked.

mod actions;
mod links;
mod ownership;
mod plugin;
mod protocols;
mod tunnel;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wire::InterfaceId;

pub use actions::{Class, EgressTag, NextHop, TagMember, Way};
pub use links::{
    Interface, MssClamp, Neighbor, ReplayFacts, Role, Route, RouteTarget, SourceValidation,
    XdpMode, ZeroCopy,
};
pub use ownership::{Delivery, Egress, Endpoints, LocalOwner, Node, Site, SitePorts, Slice};
pub use plugin::{Grant, OnTrap, Plugin, PluginConfig, PluginDefault, PluginHook, PluginOptions};
pub use protocols::{RoutesFrom, protocol_name};
pub use tunnel::{Gre, Tunnel, TunnelKind};

use crate::route_file::RouteFile;

/// The whole of a configuration, checked, as seen from the node that it runs on.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The file that this was read from; only for messages.
    pub file: PathBuf,
    /// The process: names, polling, memory.
    pub router: Router,
    /// How many workers there are, and where.
    pub workers: Workers,
    /// What is mirrored from the kernel.
    pub kernel: Kernel,
    /// What is refused in headers.
    pub validation: Validation,
    /// Which routes are preferred, and what happens to those that are withdrawn.
    pub route_options: RouteOptions,
    /// Limits of ICMP errors that the router sends.
    pub icmp: Icmp,
    /// Limits of what goes to the kernel of this machine.
    pub punt: Punt,
    /// Limits of frames that wait for a neighbor.
    pub hold: Hold,
    /// How fragments are followed and made.
    pub fragments: Fragments,
    /// How packets travel between nodes and sites that have no `tunnel` of their own.
    pub tunnel: Tunnel,
    /// Destination UDP port of GUE, on all nodes; not 0.
    pub gue_port: u16,
    /// At least one; an [`InterfaceId`] is a position here.
    pub interfaces: Vec<Interface>,
    /// The routes of the configuration file itself. [`Checked::static_routes`] has all of them.
    pub routes: Vec<Route>,
    /// The routes of the files that `route_files` names, in its order.
    pub route_files: Vec<RouteFile>,
    /// Static neighbors; no (address, interface) occurs twice.
    pub neighbors: Vec<Neighbor>,
    /// A [`SiteId`](tables::SiteId) is a position here.
    pub sites: Vec<Site>,
    /// A [`NodeId`](tables::NodeId) is a position here.
    pub nodes: Vec<Node>,
    /// Which of `nodes` this machine is: a position in `nodes`, there whenever `egress` is not empty.
    pub local_node: Option<usize>,
    /// The owners on this node; a [`LocalOwnerId`](tables::LocalOwnerId) is a position here. The first is always
    /// [`LocalOwner::kernel`]. Owners of other nodes are those nodes' affair: only their node is
    /// known here.
    pub owners: Vec<LocalOwner>,
    /// The shared addresses. Prefixes may nest, and are never equal.
    pub egress: Vec<Egress>,
    /// The slices of all egress prefixes, in the order of the file; a [`SliceId`](tables::SliceId) is a position here.
    pub slices: Vec<Slice>,
    /// Next hops that plugins may send packets to, and that egress tags have.
    pub next_hops: Vec<NextHop>,
    /// Paths that plugins may give packets.
    pub egress_tags: Vec<EgressTag>,
    /// Classes that plugins may put packets into.
    pub classes: Vec<Class>,
    /// In the order in which they run within a hook.
    pub plugins: Vec<Plugin>,
    /// What holds for all plugins.
    pub plugin_options: PluginOptions,
}

impl Checked {
    /// All static routes: those of the configuration file, then those of the route files.
    pub fn static_routes(&self) -> impl Iterator<Item = Route> + '_ {
        self.routes.iter().copied().chain(self.route_files.iter().flat_map(RouteFile::routes))
    }

    /// The interface that has this name.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<InterfaceId> {
        let position = self.interfaces.iter().position(|interface| interface.name == name)?;
        u8::try_from(position).ok().map(InterfaceId)
    }

    /// The directory that relative paths of the configuration start from.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.file.parent().unwrap_or(Path::new(""))
    }
}

/// The process: names, polling, memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Names the instance: 1 to 32 of a-z, 0-9 and `-`.
    pub name: String,
    /// What a worker does when its queues are empty.
    pub poll: Poll,
    /// What becomes of transit packets while no router runs.
    pub on_exit: OnExit,
    /// The most frames of a batch: 1 to [`Router::BATCH_FRAMES_MAX`].
    pub batch_frames: u16,
    /// Chunks of UMEM for each worker.
    pub frames_per_worker: u32,
    /// Entries of each queue's RX ring: a power of two, [`Router::RX_RING_ENTRIES_MIN`] to
    /// [`Router::RX_RING_ENTRIES_MAX`].
    pub rx_ring_entries: u32,
    /// Absolute; at most [`Router::SOCKET_PATH_BYTES_MAX`] bytes.
    pub control_socket: PathBuf,
    /// Where metrics are served over HTTP; `None`: only over the control socket.
    pub metrics_listen: Option<SocketAddr>,
    /// Absolute: where the BPF file system is mounted.
    pub bpffs: PathBuf,
    /// Name of the TUN device by which packets reach the local kernel.
    pub punt_device: String,
}

impl Router {
    /// Bound of `batch_frames`: what a plugin is given in one call.
    pub const BATCH_FRAMES_MAX: u16 = 256;
    /// Least `frames_per_worker` for each interface, and for each entry of its RX ring: one FILL ring of a
    /// queue, with twice the RX ring's entries, must be full at all times, or the driver drops.
    pub const FRAMES_PER_INTERFACE_MIN: u32 = 4096;
    /// See [`Router::FRAMES_PER_INTERFACE_MIN`].
    pub const FRAMES_PER_RX_ENTRY_MIN: u32 = 2;
    /// Bounds of `rx_ring_entries`: 2 and 16 ms of a million packets a second.
    pub const RX_RING_ENTRIES_MIN: u32 = 2048;
    /// See [`Router::RX_RING_ENTRIES_MIN`].
    pub const RX_RING_ENTRIES_MAX: u32 = 16_384;
    /// Bound of `frames_per_worker`: 4 GiB of chunks for one worker.
    pub const FRAMES_PER_WORKER_MAX: u32 = 1 << 20;
    /// Bound of a control socket's path: `sun_path` of unix(7), less its final zero.
    pub const SOCKET_PATH_BYTES_MAX: usize = 107;

    /// The directory of this instance's BPF pins: `BPFFS/sluice/NAME`.
    #[must_use]
    pub fn pin_directory(&self) -> PathBuf {
        self.bpffs.join("sluice").join(&self.name)
    }
}

/// What a worker does when its queues are empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Poll {
    /// Asks again at once: least latency, a core in full use.
    #[default]
    Busy,
    /// Sleeps in the kernel until a packet comes.
    Adaptive,
}

/// What becomes of transit packets while no router runs. Packets to egress addresses are dropped
/// either way: a kernel would answer another node's flow with a reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExit {
    /// They are dropped: no packet goes round the policy.
    #[default]
    Drop,
    /// The kernel forwards them by its own routes.
    Kernel,
}

/// Where the workers run: one worker for each queue of the interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Workers {
    /// As many workers as the interfaces have queues, on cores 0, 1, 2, …
    #[default]
    Auto,
    /// Worker *i* on the *i*-th of these cores; not empty, none twice.
    Cores(Vec<u16>),
}

/// What is mirrored from the kernel over netlink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether routes are taken from the kernel.
    pub routes: bool,
    /// Numbers of the routing tables that they are taken from, none twice, at least one; 254 is `main`. For
    /// a prefix that several have, the first counts, whatever the metrics.
    pub tables: Vec<u32>,
    /// Whether neighbors are taken from the kernel.
    pub neighbors: bool,
}

/// What is refused in headers, as far as it can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validation {
    /// Whether packets from or to 0.0.0.0/8 and 240.0.0.0/4 are dropped.
    pub drop_martians: bool,
    /// Whether IPv4 packets with a source route are dropped.
    pub drop_source_routes: bool,
}

/// Which routes are preferred, and what happens to those that are withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// Whose route wins, the first one first; none twice.
    pub preference: Vec<RoutesFrom>,
    /// How long a withdrawn route goes on forwarding, in milliseconds; 0: not at all.
    pub withdraw_hold_ms: u32,
}

/// Limits of the ICMP errors that the router sends: token buckets for the whole router. A
/// tenth of a second's worth may be sent at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// Errors a second for each receiving interface; 0 sends none at all.
    pub errors_per_s: u32,
    /// Errors a second to one source prefix (a /24 or a /64); 0 sends none at all.
    pub per_source_prefix_per_s: u32,
}

/// Limits of what goes to the kernel of this machine: a token bucket for the whole router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punt {
    /// Packets a second, of which a tenth may go at once; 0 hands the kernel nothing.
    pub packets_per_s: u32,
}

/// Limits of the frames that wait for a neighbor to be resolved; for each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Frames that may wait for one neighbor; 0 holds none, they are dropped and counted.
    pub frames_max_per_neighbor: u16,
    /// Frames that may wait in all; at most half of [`Router::frames_per_worker`].
    pub frames_max: u32,
    /// A frame that waited this long is dropped, in milliseconds.
    pub timeout_ms: u32,
}

/// How fragments to and from shared addresses are followed, and how fragments are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragments {
    /// Packets whose fragments are followed at a time, for each worker; 0: none are, and fragments
    /// other than the first are dropped and counted.
    pub packets_max: u16,
    /// Fragments that may wait for the first one of their packet, for each worker; at most half of
    /// [`Router::frames_per_worker`].
    pub frames_max: u16,
    /// Bytes that those fragments may have together, for each worker.
    pub bytes_max: u32,
    /// How long the fragments of a packet are waited for, in milliseconds.
    pub timeout_ms: u32,
    /// Whether an IPv4 packet without DF that is larger than the next hop's MTU is fragmented.
    pub egress: bool,
    /// Packets a second that are fragmented, of which a tenth may be at once: a token bucket for the
    /// whole router.
    pub egress_packets_per_s: u32,
}
