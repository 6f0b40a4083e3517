//! The file as it is written: every key, with its default and its bounds.
//!
//! A key that is not listed here is refused. Every key is optional at this level; which ones must
//! be there is said at the key and found by the check, so that one missing key does not hide
//! other errors. Paths are relative to the directory of the configuration file. What is said of tables and keys
//! is what operators read, too: `reference.rs` makes a page of it.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::model::{
    Grant, OnExit, OnTrap, PluginDefault, PluginHook, Poll, Role, SourceValidation, XdpMode,
    ZeroCopy,
};
use crate::word_or::WordOr;

/// A key that may be missing, with the place where it stands.
pub(crate) type Field<T> = Option<Spanned<T>>;
/// An array of tables, `[[name]]`.
pub(crate) type Tables<T> = Vec<Spanned<T>>;
/// One text or a list of them.
pub(crate) type Texts = WordOr<Vec<Spanned<String>>>;

/// The top level.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawConfig {
    /// The process: names, polling, memory.
    pub(crate) router: Field<RawRouter>,
    /// One worker for each queue.
    pub(crate) workers: Field<RawWorkers>,
    /// What is mirrored from the kernel.
    pub(crate) kernel: Field<RawKernel>,
    /// What is refused in headers.
    pub(crate) validation: Field<RawValidation>,
    /// Limits of the ICMP errors that the router sends.
    pub(crate) icmp: Field<RawIcmp>,
    /// Limits of what goes to the kernel of this machine.
    pub(crate) punt: Field<RawPunt>,
    /// Limits of the frames that wait for a neighbor.
    pub(crate) hold: Field<RawHold>,
    /// How fragments are followed and made.
    pub(crate) fragments: Field<RawFragments>,
    /// How packets travel between nodes and sites.
    pub(crate) tunnel: Field<RawTunnel>,
    /// The interfaces that the router drives: 1 to 64, all with the same number of queues.
    #[serde(default)]
    pub(crate) interface: Tables<RawInterface>,
    /// Which routes are preferred, and what happens to those that are withdrawn.
    pub(crate) routes: Field<RawRoutes>,
    /// Static routes. Several next hops with one prefix and one metric share its flows.
    #[serde(default)]
    pub(crate) route: Tables<RawRoute>,
    /// Files of static routes, for tables that are too long for this file. One route a line:
    /// `PREFIX via ADDRESS [dev INTERFACE] [metric N]`, `PREFIX dev INTERFACE [metric N]`, or
    /// `PREFIX blackhole|unreachable|prohibit [metric N]`; `#` starts a comment. At most 2 million
    /// routes a file.
    pub(crate) route_files: Option<Vec<Spanned<String>>>,
    /// Static neighbors.
    #[serde(default)]
    pub(crate) neighbor: Tables<RawNeighbor>,
    /// Other places that own ports, and this one.
    #[serde(default)]
    pub(crate) site: Tables<RawSite>,
    /// The machines that own slices, this one included.
    #[serde(default)]
    pub(crate) node: Tables<RawNode>,
    /// Owners beside the kernel, on nodes that have several.
    #[serde(default)]
    pub(crate) owner: Tables<RawOwner>,
    /// Shared addresses, and who has which part of them.
    #[serde(default)]
    pub(crate) egress: Tables<RawEgress>,
    /// Next hops that have a name, for egress tags and for plugins that transmit: at most 1023.
    #[serde(default)]
    pub(crate) next_hop: Tables<RawNamedNextHop>,
    /// Paths that plugins may give packets instead of their routes: at most 1023.
    #[serde(default)]
    pub(crate) egress_tag: Tables<RawEgressTag>,
    /// Classes that plugins may put packets into, which are then counted by them: at most 255.
    #[serde(default)]
    pub(crate) class: Tables<RawClass>,
    /// Policy plugins, in the order in which they run within a hook.
    #[serde(default)]
    pub(crate) plugin: Tables<RawPlugin>,
    /// What holds for all plugins.
    pub(crate) plugins: Field<RawPluginOptions>,
}

/// `[router]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawRouter {
    /// Names this instance, its control socket and its pins: 1 to 32 of a-z, 0-9 and `-`.
    /// Default: `"default"`.
    pub(crate) name: Field<String>,
    /// The `[[node]]` that this machine is. Must be there when there are `[[egress]]` entries.
    pub(crate) node: Field<String>,
    /// `"busy"` (default): workers never sleep; or `"adaptive"`: they sleep while queues are empty.
    pub(crate) poll: Field<Poll>,
    /// `"drop"` (default) or `"kernel"`: what happens to transit packets while no router runs.
    /// Packets to egress addresses are dropped in either case.
    pub(crate) on_exit: Field<OnExit>,
    /// The most frames that are handled together: 1 to 256. Default: 64. More is faster under load
    /// and adds latency.
    pub(crate) batch_frames: Field<i64>,
    /// Chunks of 4096 bytes for each worker: for each interface at least 4096 and twice
    /// `rx_ring_entries`, at most 1048576 (4 GiB). Default: 16384 (64 MiB), or that least if it is more;
    /// with longer RX rings than by default twice that least.
    pub(crate) frames_per_worker: Field<i64>,
    /// Entries of each queue's receive ring: 2048, 4096, 8192 or 16384. Default: 2048, which bears 2 ms
    /// of a million packets a second while a worker is kept from its core. Longer ones bear more, and
    /// cost some percent of the rate at full load, as what waits there has left the caches.
    pub(crate) rx_ring_entries: Field<i64>,
    /// The control socket. Default: `"/run/sluice/NAME.sock"`.
    pub(crate) control_socket: Field<String>,
    /// Address and port where metrics are served over HTTP. Default: nowhere.
    pub(crate) metrics_listen: Field<String>,
    /// Mount point of the BPF file system. Default: `"/sys/fs/bpf"`; pins are in `sluice/NAME`
    /// below it.
    pub(crate) bpffs: Field<String>,
    /// Name of the TUN device by which packets reach the local kernel. Default: `"sluice0"`.
    pub(crate) punt_device: Field<String>,
}

/// `[workers]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawWorkers {
    /// The core of each worker; worker *i* owns queue *i* of every interface. Default: `"auto"`,
    /// as many workers as the interfaces have queues, on cores 0, 1, 2, …
    pub(crate) cores: Field<WordOr<Vec<Spanned<i64>>>>,
}

/// `[kernel]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawKernel {
    /// Whether routes are taken from the kernel (those of BIRD and FRR too). Default: true.
    pub(crate) routes: Field<bool>,
    /// The kernel's routing table that they are taken from. Default: 254, which is `main`.
    pub(crate) table: Field<i64>,
    /// Several of them, instead of `table`: 1 to 16. They become one table: where two have a route for
    /// one prefix, the one that stands first here wins, whatever the metrics (unless `routes.preference`
    /// puts the protocol of one before that of the other). Rules (`ip rule`) are not followed.
    pub(crate) tables: Option<Vec<Spanned<i64>>>,
    /// Whether neighbors are taken from the kernel. Default: true.
    pub(crate) neighbors: Field<bool>,
}

/// `[validation]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawValidation {
    /// Whether packets from or to 0.0.0.0/8 and 240.0.0.0/4 are dropped (RFC 1812 section 5.3.7).
    /// Default: true. What can be no host's address is dropped in any case: 0.0.0.0, 127.0.0.0/8,
    /// the limited broadcast address, link-local addresses, and multicast ones as a source.
    pub(crate) drop_martians: Field<bool>,
    /// Whether IPv4 packets with a loose or strict source route are dropped (RFC 7126 sections 4.3 and
    /// 4.4). Default: true. If not, they are forwarded as if the option were not there.
    pub(crate) drop_source_routes: Field<bool>,
}

/// `[routes]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawRoutes {
    /// Whose route wins when several give one for the same prefix, the first one first: `"static"` (this
    /// configuration and its route files), `"kernel"` (all protocols that are not named), and
    /// `"kernel:PROTOCOL"`, a name such as `bird` or a number, as `ip route` shows it. Own addresses of the
    /// machine come before all of them. Default: `["static", "kernel"]`.
    pub(crate) preference: Option<Vec<Spanned<String>>>,
    /// How long a route that was withdrawn goes on forwarding, in milliseconds: 0 to 600000. It ends
    /// earlier when the prefix gets another route or a link of the old one goes down. Default: 0.
    pub(crate) withdraw_hold_ms: Field<i64>,
}

/// `[icmp]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawIcmp {
    /// ICMP errors a second for each interface, a tenth of them at once; 0 sends none. Default:
    /// 1000.
    pub(crate) errors_per_s: Field<i64>,
    /// ICMP errors a second to one source prefix (/24 or /64), a tenth of them at once; 0 sends
    /// none. Default: 50.
    pub(crate) per_source_prefix_per_s: Field<i64>,
}

/// `[punt]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawPunt {
    /// Packets a second that the router hands to the kernel of this machine, those of its own slices
    /// included: a tenth of them at once; 0 hands it none. Default: 250000.
    pub(crate) packets_per_s: Field<i64>,
}

/// `[hold]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawHold {
    /// Frames that may wait for one unresolved neighbor, for each worker: 0 to 64. Default: 8.
    pub(crate) frames_max_per_neighbor: Field<i64>,
    /// Frames that may wait in all, for each worker: 0 to 16384, and at most half of
    /// `router.frames_per_worker`. Default: 1024.
    pub(crate) frames_max: Field<i64>,
    /// How long one waits before it is dropped, in milliseconds: 10 to 10000. Default: 1000.
    pub(crate) timeout_ms: Field<i64>,
}

/// `[fragments]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawFragments {
    /// Packets to or from shared addresses whose fragments are followed at a time, for each worker: 0
    /// to 32768. The oldest gives way. 0 follows none: fragments other than the first are dropped.
    /// Default: 4096. A reload that raises it (or `frames_max`) above both its value at start and its
    /// default takes the rest at the next start.
    pub(crate) packets_max: Field<i64>,
    /// Fragments that may wait for the first one of their packet, for each worker: 0 to 8192, and at
    /// most half of `router.frames_per_worker`. Default: 512.
    pub(crate) frames_max: Field<i64>,
    /// Bytes that those fragments may have together, for each worker: 0 to 33554432. Default: 786432.
    pub(crate) bytes_max: Field<i64>,
    /// How long the fragments of a packet are waited for, in milliseconds: 10 to 60000. Default: 2000.
    pub(crate) timeout_ms: Field<i64>,
    /// Whether an IPv4 packet without DF that is larger than the next hop's MTU is fragmented. Default:
    /// true.
    pub(crate) egress: Field<bool>,
    /// Packets a second that are fragmented, a tenth of them at once: 0 to 10000000. Default: 20000.
    pub(crate) egress_packets_per_s: Field<i64>,
}

/// `[tunnel]`, and `tunnel = { … }` of a node or site.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawTunnel {
    /// `"gue"` (default): IP in UDP, whose source port tells flows apart for those who spread them over
    /// paths and queues; `"gre"`, or `"ipip"`: one flow for everybody on an IPv4 path.
    pub(crate) kind: Field<String>,
    /// With `"gue"`, and in `[tunnel]` only: the UDP destination port, the same on all nodes. Default:
    /// 6080.
    pub(crate) port: Field<i64>,
    /// With `"gre"`: the key, 0 to 4294967295, which packets must have in both directions. Default: none,
    /// and packets that have one are refused.
    pub(crate) key: Field<i64>,
    /// With `"gre"`: whether packets leave with a checksum over all their bytes; one that is there on
    /// receipt is verified in any case. Default: false.
    pub(crate) checksum: Field<bool>,
    /// With `"gre"`: whether packets leave with a sequence number; one that is there on receipt is
    /// accepted and not used, so that packets are neither reordered nor dropped by it. Default: false.
    pub(crate) sequence: Field<bool>,
    /// `"copy"` (default) or `"zero"`: the DSCP of outer headers. ECN is always copied.
    pub(crate) dscp: Field<String>,
}

/// `[[interface]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawInterface {
    /// The kernel's name. Must be there.
    pub(crate) name: Field<String>,
    /// `"inside"` (towards the owners), `"outside"` (towards the world) or `"both"` (one-armed).
    /// Must be there.
    pub(crate) role: Field<Role>,
    /// `"auto"` (default), `"native"` (in the driver or refuse to start), or `"generic"`.
    pub(crate) xdp: Field<XdpMode>,
    /// `"auto"` (default), `"force"` (or refuse to start), or `"off"`.
    pub(crate) zero_copy: Field<ZeroCopy>,
    /// `"auto"` (default): MSS is lowered to what the next hop's MTU holds; `"off"`; or a number
    /// of bytes, 536 to 9960.
    pub(crate) mss_clamp: Field<WordOr<i64>>,
    /// Whether the source of a packet that comes in here is looked up (RFC 3704): `"off"` (default);
    /// `"strict"`: one of the next hops on the way back is here, and what has a shared source comes from
    /// its owner's link-layer address; `"loose"`: there is a way back, be it the default route; or
    /// `"loose-ignoring-default"`: another one than the default route. A source on the way to a blackhole
    /// is dropped by each (RFC 5635).
    pub(crate) source_validation: Field<SourceValidation>,
    /// What `sluice replay` takes for the interface's facts, which a running router has from the
    /// kernel.
    pub(crate) replay: Field<RawReplay>,
}

/// `[interface.replay]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawReplay {
    /// Its link-layer address. Default: `02:00:00:00:00:NN` with its position, counted from 1.
    pub(crate) mac: Field<String>,
    /// Its MTU in bytes, 576 to 3498. Default: 1500.
    pub(crate) mtu: Field<i64>,
    /// Its addresses, each with the length of the prefix that is on the link. Default: none.
    pub(crate) addresses: Field<Vec<Spanned<String>>>,
}

/// `[[route]]`: exactly one of `via`, `interface` alone, and `type`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawRoute {
    /// Destinations. Must be there.
    pub(crate) prefix: Field<String>,
    /// The next hop. An IPv4 prefix may have an IPv6 one (RFC 8950).
    pub(crate) via: Field<String>,
    /// With `via`: the link of the next hop. Alone: the destinations are on this link.
    pub(crate) interface: Field<String>,
    /// `"blackhole"` (no answer), `"unreachable"` or `"prohibit"` (with an ICMP error).
    #[serde(rename = "type")]
    pub(crate) kind: Field<RawRouteKind>,
    /// The lowest metric wins among static routes; `routes.preference` says whether those or the kernel's
    /// come first. Default: 0.
    pub(crate) metric: Field<i64>,
    /// The largest IP packet that goes this way, in bytes, where that is less than the link's MTU: 68 (IPv6:
    /// 1280) to 65535. With `via` or `interface`.
    pub(crate) mtu: Field<i64>,
}

/// `type` of a route.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum RawRouteKind {
    Blackhole,
    Unreachable,
    Prohibit,
}

/// `[[neighbor]]`: all keys must be there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawNeighbor {
    /// Its address.
    pub(crate) address: Field<String>,
    /// The link that it is on.
    pub(crate) interface: Field<String>,
    /// Its link-layer address, such as `"02:00:00:00:00:01"`.
    pub(crate) mac: Field<String>,
}

/// `[[site]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawSite {
    /// Must be there.
    pub(crate) name: Field<String>,
    /// Where tunnels to this site end: an address, or one of each family. Must be there for a
    /// site other than this node's that owns ports.
    pub(crate) address: Field<Texts>,
    /// The tunnels between this site and others, in the keys of `[tunnel]` without `port`; a key that is
    /// missing has its default, not the value in `[tunnel]`. Default: `[tunnel]`. When both ends have one,
    /// they must be equal.
    pub(crate) tunnel: Field<RawTunnel>,
}

/// `[[node]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawNode {
    /// Must be there.
    pub(crate) name: Field<String>,
    /// Where tunnels to this node end: an address, or one of each family. Must be there for nodes
    /// that own ports, once there are several nodes or sites.
    pub(crate) address: Field<Texts>,
    /// The tunnels between this node and others of its site, in the keys of `[tunnel]` without `port`;
    /// a key that is missing has its default, not the value in `[tunnel]`. Default: `[tunnel]`. When both
    /// ends have one, they must be equal.
    pub(crate) tunnel: Field<RawTunnel>,
    /// The `[[site]]` that it is at. All nodes without one are at one site without a name.
    pub(crate) site: Field<String>,
}

/// `[[owner]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawOwner {
    /// Must be there; `"kernel"` is taken.
    pub(crate) name: Field<String>,
    /// The `[[node]]` that it is on. Must be there.
    pub(crate) node: Field<String>,
    /// `"kernel"` (default), or `{ next_hop = "10.1.0.2", interface = "eth1" }` for a workload on
    /// a link of its node.
    pub(crate) deliver: Field<WordOr<RawNextHop>>,
}

/// `deliver` of an owner: both keys must be there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawNextHop {
    /// The workload's address on the link.
    pub(crate) next_hop: Field<String>,
    /// The link.
    pub(crate) interface: Field<String>,
}

/// `[[egress]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawEgress {
    /// A shared address, or a prefix of them. Must be there. A longer prefix may have an entry of
    /// its own within a shorter one, and then has nothing from that.
    pub(crate) prefix: Field<String>,
    /// Who gets the ports that no slice has: `"drop"`, `{ node = "b" }`, `{ owner = "web" }` or
    /// `{ site = "ams" }`. Must be there when slices and sites leave a gap.
    pub(crate) default: Field<WordOr<RawHolder>>,
    /// Who gets packets of protocols without ports; the same forms. Default: the owner of a slice
    /// that has all ports of the address, if there is one, or else `"drop"`.
    pub(crate) portless: Field<WordOr<RawHolder>>,
    /// Level 1: which site has which ports of every address of the prefix. Default: each slice is
    /// at the site of its node.
    #[serde(default)]
    pub(crate) sites: Tables<RawSitePorts>,
    /// Level 2: which node has which ports.
    #[serde(default)]
    pub(crate) slice: Tables<RawSlice>,
}

/// `default` and `portless` of an egress entry, as tables: exactly one of the keys.
#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "\"drop\", or a table with one of `node`, `owner` and `site`"
)]
pub(crate) struct RawHolder {
    /// A `[[node]]`: its kernel.
    pub(crate) node: Field<String>,
    /// An `[[owner]]`, on its node.
    pub(crate) owner: Field<String>,
    /// A `[[site]]` other than this node's.
    pub(crate) site: Field<String>,
}

/// `sites` of an egress entry, each: both keys must be there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawSitePorts {
    /// In the notations of a slice.
    pub(crate) ports: Field<WordOr<RawPsid>>,
    /// The `[[site]]`.
    pub(crate) site: Field<String>,
}

/// `[[egress.slice]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawSlice {
    /// Unique. Default: `ADDRESS:FIRST-LAST`.
    pub(crate) name: Field<String>,
    /// An address of the egress prefix, or a longer prefix within it. May be missing when the
    /// egress prefix is one address. Slices may nest: of the addresses that hold a destination,
    /// the longest one that has the port wins.
    pub(crate) address: Field<String>,
    /// `"FIRST-LAST"` (both included), `"START+COUNT"`, `"PORT"`, or
    /// `{ psid = 3, psid_len = 6, psid_offset = 0 }`. Default: all ports.
    pub(crate) ports: Field<WordOr<RawPsid>>,
    /// The `[[node]]` that owns it. Must be there, unless `owner` is.
    pub(crate) node: Field<String>,
    /// The `[[owner]]` on that node. Default: the node's kernel.
    pub(crate) owner: Field<String>,
}

/// `ports` of a slice, as a port set by RFC 7597: the ports whose upper `psid_len` bits are `psid`.
#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a string such as \"80\" or \"1024-2047\", or a table with `psid` and `psid_len`"
)]
pub(crate) struct RawPsid {
    /// Must be there.
    pub(crate) psid: Field<i64>,
    /// Bits of the PSID: 0 to 16. Must be there.
    pub(crate) psid_len: Field<i64>,
    /// Bits before the PSID. Default: 0, the only value that is supported.
    pub(crate) psid_offset: Field<i64>,
}

/// `[plugins]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawPluginOptions {
    /// A directory for what the router keeps of plugins: compiled modules in `compiled`, batches that
    /// trapped in `traps`. Default: the control socket's path, with `.plugins` instead of `.sock`.
    pub(crate) state_dir: Field<String>,
    /// Bytes that compiled modules may take there: 0 (none are kept) to 4294967295. Default: 67108864
    /// (64 MiB).
    pub(crate) compiled_bytes_max: Field<i64>,
    /// What all plugins of a worker may cost a packet, in clock cycles, as they are priced when they are
    /// loaded: 1 to 1000000. What would go beyond is refused. Default: no limit.
    pub(crate) budget_cycles_per_packet: Field<i64>,
}

/// `[[next_hop]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawNamedNextHop {
    /// Unique: 1 to 64 letters, digits and any of `. _ - : /`. Must be there.
    pub(crate) name: Field<String>,
    /// Its address, of either family: packets of both may be sent to it. This, `node` or `site` must be there.
    pub(crate) via: Field<String>,
    /// The link that `via` is on. Default: the one with the longest prefix that holds the address.
    pub(crate) interface: Field<String>,
    /// The largest IP packet that `via` is sent, in bytes, where that is less than the link's MTU: 68 (with an
    /// IPv6 `via`: 1280) to 65535.
    pub(crate) mtu: Field<i64>,
    /// A `[[node]]`, by its tunnel (that of its site, if that is another one). On the node itself packets take
    /// slices and routes, so that one file serves all.
    pub(crate) node: Field<String>,
    /// A `[[site]]`, by its tunnel. At the site itself packets take slices and routes.
    pub(crate) site: Field<String>,
}

/// `[[egress_tag]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawEgressTag {
    /// Unique, as that of a next hop. Must be there.
    pub(crate) name: Field<String>,
    /// The `[[next_hop]]`s that share its flows, 1 to 64: names, or `{ next_hop = "NAME", weight = 3 }`. One
    /// that is on no link, whose link is down or that does not answer is left out; while all are, packets
    /// with the tag take their routes. One with `node` or `site` is the only one of its tag; while there is no
    /// way to it, or for a packet that came by such a tunnel, packets take their routes too. Must be there.
    pub(crate) next_hops: Option<Vec<Spanned<WordOr<RawTagMember>>>>,
}

/// `next_hops` of an egress tag, each, as a table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawTagMember {
    /// Its name. Must be there.
    pub(crate) next_hop: Field<String>,
    /// Its part of the tag's flows, beside those of the others: 1 to 256. Default: 1.
    pub(crate) weight: Field<i64>,
}

/// `[[class]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawClass {
    /// Unique, as that of a next hop. Must be there.
    pub(crate) name: Field<String>,
    /// The DSCP that its packets leave with, 0 to 63, where no plugin sets another. Default: they keep
    /// their own.
    pub(crate) dscp: Field<i64>,
}

/// `[[plugin]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(crate) struct RawPlugin {
    /// Unique: 1 to 32 of a-z, 0-9 and `-`. Must be there.
    pub(crate) name: Field<String>,
    /// The Wasm module. Must be there. It is opened when the plugin is loaded, not before.
    pub(crate) path: Field<String>,
    /// `"ingress"`, `"forward"` or `"egress"`. Must be there.
    pub(crate) hook: Field<PluginHook>,
    /// Its configuration as an inline table; not beside `config_file`.
    pub(crate) config: Field<toml::Table>,
    /// A file with its configuration, read when the plugin is loaded; not beside `config`.
    pub(crate) config_file: Field<String>,
    /// Files of the tables that its manifest names: `tables = { countries = "countries.txt" }`. They are
    /// read when the plugin is loaded, and again when they change. Default: none.
    #[serde(default)]
    pub(crate) tables: BTreeMap<String, Spanned<String>>,
    /// `"continue"` or `"drop"`: the verdict of packets on which it gave none. Default: what its
    /// manifest says.
    pub(crate) default: Field<PluginDefault>,
    /// `"closed"`, `"open"` or `"last-good"`: whether a trap drops its batch, lets it go on, or leaves
    /// it to the plugin's generation before. Default: what its manifest says.
    pub(crate) on_trap: Field<OnTrap>,
    /// Time for one batch in microseconds, before it is stopped as a trap: 100 to 1000000, in
    /// ticks of 100. Default: 1000.
    pub(crate) budget_us: Field<i64>,
    /// Bound of its memory in bytes, a multiple of 65536, up to 1 GiB; a plugin whose manifest asks
    /// for more is refused when it is loaded. Default: 67108864 (64 MiB).
    pub(crate) memory_max_bytes: Field<i64>,
    /// It is disabled after this many traps within a minute: 1 to 1000000. Default: 10.
    pub(crate) traps_max: Field<i64>,
    /// What the module's bytes must hash to, in hexadecimal. Default: not checked.
    pub(crate) sha256: Field<String>,
    /// What it may import from the host: `"log"`, `"meter"`, `"names"`, `"quota"`, `"random"`, `"table"`;
    /// whether it may see `"payload"`; and what it may do with packets besides dropping them: `"class"`,
    /// `"dscp"`, `"mark"`, `"mirror"`, `"mss"`, `"tag"`, `"tcp-options"`, `"transmit"`. Default: nothing.
    pub(crate) grants: Option<Vec<Spanned<Grant>>>,
}
