//! The state of a running router as one value: made once a second, sent over the control socket as
//! JSON, rendered for people by [`render`], and exported to Prometheus by
//! [`record`](crate::metrics::record).
//!
//! Counters are totals since the router's start and never go back while it runs; gauges are the
//! state at the moment of the report. Packets are frames, bytes are L2 bytes without the checksum.
//!
//! Invariant, per interface: `rx = forwarded + to_kernel + consumed + held + sum(drops)`; see
//! [`accounting`].

mod accounting;
mod plugins;
mod render;
#[cfg(test)]
pub(crate) mod sample;
mod sharing;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use accounting::{AccountingError, accounting};
pub use plugins::refusal_text;
pub use render::render;
pub use sharing::{OwnerStatus, SHARED_ROWS_MAX, SharingStatus};

/// Everything that `sluice status` shows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StatusReport {
    /// The process as a whole.
    pub router: RouterStatus,
    /// One row for each interface that the router owns.
    pub interfaces: Vec<InterfaceStatus>,
    /// One row for each worker.
    pub workers: Vec<WorkerStatus>,
    /// What the classifier decided, by interface and reason, in packets.
    pub classifier: Vec<ClassifierCount>,
    /// `XDP_STATISTICS` of every socket: losses before the RX ring.
    pub xdp: Vec<XdpStatistics>,
    /// Slices and egress prefixes in numbers, and what the two lists behind it leave out.
    #[serde(default)]
    pub sharing: SharingStatus,
    /// The slices that are configured: the first [`SHARED_ROWS_MAX`] of them.
    pub slices: Vec<SliceStatus>,
    /// The egress addresses (prefixes) that are shared: of more than [`SHARED_ROWS_MAX`] those with the
    /// most slices.
    pub egress: Vec<EgressStatus>,
    /// The nodes that own slices.
    pub nodes: Vec<NodeStatus>,
    /// The neighbors of the router's interfaces.
    pub neighbors: Vec<NeighborStatus>,
    /// Sizes of the routing tables.
    pub routes: RouteCounts,
    /// What became of packets on their way to the kernel.
    pub punt: PuntStatus,
    /// What left by plugins' orders: one row for each class, egress tag and next hop that has a name.
    #[serde(default)]
    pub actions: Vec<ActionStatus>,
    /// One value a plugin, as the policy host reports it. Known keys (`name`, `generation`,
    /// `packets`, `drops`, `traps`, `cycles_per_packet`) are rendered, others are carried along.
    pub plugins: Vec<serde_json::Value>,
    /// Reloads of the configuration since the start.
    pub reloads: ReloadStatus,
    /// The configuration in force waits for its confirmation; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmation: Option<ConfirmationStatus>,
}

/// The process as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouterStatus {
    /// Name of this node.
    pub name: String,
    /// Version of the program.
    pub version: String,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Number of the configuration in force; the first is 1.
    pub configuration_generation: u64,
    /// How workers wait for packets: `busy` or `adaptive`.
    pub poll: String,
    /// Frames that a worker takes in one turn at most.
    pub batch_frames: u32,
    /// Entries of each queue's RX ring; FILL has twice as many.
    pub rx_ring_entries: u32,
    /// Entries of each queue's TX ring.
    pub tx_ring_entries: u32,
    /// Clocks of the time stamp counter per second.
    pub tsc_hz: u64,
}

/// One interface and what happened to the packets it received.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Name in the kernel.
    pub name: String,
    /// `inside`, `outside` or `both`.
    pub role: String,
    /// `up`; or, when nothing is sent there, `no-carrier`, `down`, `gone`, or `made-anew`: another interface
    /// has the name now, and only a restart binds sockets to it.
    #[serde(default)]
    pub link: String,
    /// Name of the device's driver.
    pub driver: String,
    /// How the classifier is attached: `native` or `generic`.
    pub xdp_mode: String,
    /// How the sockets are bound: `zero-copy` or `copy`.
    pub bind_mode: String,
    /// Number of queues, each with a socket.
    pub queues: u32,
    /// MTU in bytes.
    pub mtu: u32,
    /// Ethernet address.
    pub mac: String,
    /// Packets received by workers from this interface.
    pub rx_packets: u64,
    /// Bytes received by workers from this interface.
    pub rx_bytes: u64,
    /// Packets that left through this interface.
    pub tx_packets: u64,
    /// Bytes that left through this interface.
    pub tx_bytes: u64,
    /// Packets that the router made itself and sent out of this interface, part of `tx_packets`.
    pub originated: u64,
    /// Packets that the router made itself and could not send.
    pub originated_lost: u64,
    /// Packets that the router made itself, about those received here, and handed to the kernel.
    #[serde(default)]
    pub originated_to_kernel: u64,
    /// Packets that left through this interface in fragments that the router made.
    pub fragmented: u64,
    /// Fragments that the router made and sent out of this interface, part of `tx_packets`.
    pub fragments_created: u64,
    /// Packets received here by one worker and finished by another.
    pub handed_over: u64,
    /// ICMP errors about packets received here that the rate limit forbade.
    pub icmp_limited: u64,
    /// Packets received here that were delivered to an owner on this machine.
    pub delivered: u64,
    /// Packets received here that were sent on to the node or site that owns their slice.
    pub to_owner: u64,
    /// Packets received here that came out of an owner tunnel.
    pub decapsulated: u64,
    /// Packets received here that left through some interface.
    pub forwarded: u64,
    /// Packets received here that were handed to the kernel.
    pub to_kernel: u64,
    /// Packets received here that the router answered or used up itself.
    pub consumed: u64,
    /// Packets received here that wait now, for a neighbor, a first fragment or another worker.
    pub held: u64,
    /// Packets received here that were dropped, by the label of the reason.
    pub drops: BTreeMap<String, u64>,
    /// Packets a second received, over the last second.
    pub rx_rate_pps: f64,
    /// Packets a second sent, over the last second.
    pub tx_rate_pps: f64,
}

impl InterfaceStatus {
    /// The sum of drops over all reasons, in packets.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.drops.values().fold(0, |sum, drops| sum.saturating_add(*drops))
    }
}

/// One worker.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Number of the worker, which is the queue it owns on every interface.
    pub id: u32,
    /// The core it is pinned to, if it is pinned.
    pub core: Option<u32>,
    /// Number of queues it owns.
    pub queues: u32,
    /// Turns of its loop.
    pub turns: u64,
    /// Turns that took long: from the beginning of one to that of the next, with whatever else their core did
    /// meanwhile. From the shortest to the longest.
    #[serde(default)]
    pub long_turns: Vec<LongTurns>,
    /// The part of the last second in which turns carried packets, 0.0 to 1.0.
    pub busy_fraction: f64,
    /// Mean number of frames in a batch that was not empty, over the last second.
    pub batch_mean: f64,
    /// Where its frames are.
    pub frames: FrameCounts,
    /// System calls made to wake the kernel.
    pub kicks: u64,
    /// Turns that carried packets.
    pub busy_turns: u64,
    /// Turns whose stages were timed, part of `busy_turns`.
    pub timed_turns: u64,
    /// Packets received in the timed turns.
    pub timed_packets: u64,
    /// Where the time of the timed turns went, in the order of a turn.
    pub stages: Vec<StageClocks>,
}

/// Turns of about the same length, which is known to an eighth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongTurns {
    /// They took less than this.
    pub below_ns: u64,
    /// How many there were since the start.
    pub turns: u64,
}

/// What one stage of a worker's turns cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageClocks {
    /// The stage's name.
    pub stage: String,
    /// Clocks of the time stamp counter, of all timed turns.
    pub clocks: u64,
}

/// Where the frames of a worker's pool are. `free + receiving + transmitting + held` is `total`
/// but for frames in the batch at hand and on their way between workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// In the free list.
    pub free: u64,
    /// In FILL and RX rings.
    pub receiving: u64,
    /// In TX and COMPLETION rings.
    pub transmitting: u64,
    /// Held for a neighbor or a first fragment, or on the way to the kernel.
    pub held: u64,
    /// All frames of the pool.
    pub total: u64,
}

/// What the classifier did with packets of one interface for one reason.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClassifierCount {
    /// Name of the interface.
    pub interface: String,
    /// Label of the reason.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}

/// `XDP_STATISTICS` of one socket, names as in `struct xdp_statistics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct XdpStatistics {
    /// Name of the interface.
    pub interface: String,
    /// Number of the queue.
    pub queue: u32,
    /// Packets dropped by the socket for other reasons than those below.
    pub rx_dropped: u64,
    /// RX descriptors that were invalid.
    pub rx_invalid_descs: u64,
    /// TX descriptors that were invalid.
    pub tx_invalid_descs: u64,
    /// Packets dropped because the RX ring was full.
    pub rx_ring_full: u64,
    /// Times that the FILL ring was empty when a packet came.
    pub rx_fill_ring_empty_descs: u64,
    /// Times that the TX ring was empty when the kernel looked.
    pub tx_ring_empty_descs: u64,
}

/// What left, or went to the kernel, with a class or by an egress tag or a next hop that plugins gave it.
/// Bytes are those of IP packets, without headers of tunnels and links.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ActionStatus {
    /// `class`, `egress-tag` or `next-hop`.
    pub kind: String,
    /// Name in the configuration.
    pub name: String,
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
    /// Packets with the egress tag that took their routes, because none of its next hops could be used.
    pub missed_packets: u64,
    /// Bytes of those.
    pub missed_bytes: u64,
    /// Whether there is a next hop that can be used now; absent for a class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usable: Option<bool>,
}

/// One slice.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SliceStatus {
    /// Name in the configuration.
    pub name: String,
    /// The shared address or prefix.
    pub egress: String,
    /// The inclusive port range, or the port set, as text.
    pub ports: String,
    /// The owning node.
    pub owner: String,
    /// `owned`, `draining` or `none`.
    pub state: String,
}

/// One egress prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EgressStatus {
    /// The shared prefix.
    pub prefix: String,
    /// Number of slices in it.
    pub slices: u64,
    /// What happens to ports that no slice covers: a node or an action.
    pub default: String,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Name in the configuration.
    pub name: String,
    /// Its address, where tunnels to it end.
    pub address: String,
    /// State of the next hop towards it, as text: `resolved`, `incomplete`, `no route`, `self`.
    pub next_hop_state: String,
}

/// One neighbor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NeighborStatus {
    /// Its IP address.
    pub address: String,
    /// The interface it is on.
    pub interface: String,
    /// Its Ethernet address, if known.
    pub mac: Option<String>,
    /// The kernel's state of it, in lower case: `reachable`, `stale`, `failed` …
    pub state: String,
    /// Whether the kernel keeps it fresh on the router's behalf.
    pub managed: bool,
}

/// Prefixes for which a source's route is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceCount {
    /// The source: `own-address`, `broadcast`, `static`, `machine`, `kernel` or `withdrawn`.
    pub source: String,
    /// IPv4 prefixes.
    pub v4: u64,
    /// IPv6 prefixes.
    pub v6: u64,
}

/// Routes that are left to the kernel for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// The reason in a word or two.
    pub reason: String,
    /// Prefixes.
    pub prefixes: u64,
}

/// What the kernel mirror has seen, and how soon that was in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MirrorStatus {
    /// Times that the kernel lost news for want of buffer.
    pub overruns: u64,
    /// Full readings of the kernel's tables that have ended.
    pub resyncs: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Prefixes whose routes the kernel has changed.
    pub route_changes: u64,
    /// Publications of tables.
    pub publications: u64,
    /// From the kernel's word on the oldest route change in the last publication with one, until workers
    /// could read it, in microseconds.
    pub last_delay_us: u64,
    /// The longest of those.
    pub max_delay_us: u64,
    /// What the last publication with route changes took by itself, in microseconds.
    pub last_build_us: u64,
}

/// Sizes of the routing tables in prefixes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteCounts {
    /// IPv4 prefixes.
    pub v4: u64,
    /// IPv6 prefixes.
    pub v6: u64,
    /// Prefixes, part of the above, whose packets go to the kernel because the router cannot
    /// express the route.
    pub unexpressible: u64,
    /// The same by reason.
    #[serde(default)]
    pub unexpressible_by_reason: Vec<ReasonCount>,
    /// Prefixes by the source of the route in force.
    #[serde(default)]
    pub by_source: Vec<SourceCount>,
    /// Prefixes, part of the above, that were withdrawn and are held.
    #[serde(default)]
    pub withdrawn: u64,
    /// Groups of next hops, and other things that routes lead to.
    #[serde(default)]
    pub groups: u64,
    /// Bytes of the prefixes with all their candidates; look-up tables and the kernel mirror apart.
    #[serde(default)]
    pub rib_bytes: u64,
    /// Bytes that look-ups of IPv4 destinations read.
    #[serde(default)]
    pub fib4_bytes: u64,
    /// Bytes that look-ups of IPv6 destinations read.
    #[serde(default)]
    pub fib6_bytes: u64,
    /// Where they come from.
    #[serde(default)]
    pub mirror: MirrorStatus,
}

/// What became of packets that workers gave to the punt device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PuntStatus {
    /// Those that the kernel took.
    pub written: u64,
    /// Those that it refused, such as while the device was down.
    pub refused: u64,
}

/// Reloads of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadStatus {
    /// Those that came into force.
    pub ok: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Why the last one was refused; absent after a reload that came into force.
    pub last_error: Option<String>,
    /// Those that were not confirmed, so that the router went back.
    #[serde(default)]
    pub gone_back: u64,
}

/// A configuration that waits for its confirmation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmationStatus {
    /// Seconds until the router goes back.
    pub seconds_left: u64,
    /// Number of the configuration that it goes back to.
    pub back_to: u64,
    /// Why going back failed; it is tried again each second.
    pub last_error: Option<String>,
}
