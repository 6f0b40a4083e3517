//! Interfaces, and the static routes and neighbors on them.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use wire::{InterfaceId, MacAddress};

/// An interface that the router drives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The kernel's name, 1 to 15 bytes; unique.
    pub name: String,
    /// Which way its packets go.
    pub role: Role,
    /// How the XDP program is attached.
    pub xdp: XdpMode,
    /// Whether the driver reads and writes UMEM itself.
    pub zero_copy: ZeroCopy,
    /// Whether the sources of packets that come in are looked up.
    pub source_validation: SourceValidation,
    /// What becomes of the MSS option of a SYN that leaves here.
    pub mss_clamp: MssClamp,
    /// Its facts in a replay.
    pub replay: ReplayFacts,
}

/// Facts of an interface that a running router has from the kernel, and a replay from the
/// configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayFacts {
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Its addresses, each with the length of the prefix that is on the link.
    pub addresses: Vec<IpNet>,
}

/// Which way an interface's packets go. A packet whose source lies in an egress prefix is accepted
/// from `inside` and `both`, and is spoofed on `outside`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Towards the machines that own slices.
    Inside,
    /// Towards the world.
    Outside,
    /// One interface for both: one-armed.
    Both,
}

/// How the XDP program is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver, or else in the kernel's stack with a warning.
    #[default]
    Auto,
    /// In the driver, or the start is refused.
    Native,
    /// In the kernel's stack: works with every driver, slowly.
    Generic,
}

/// Whether the driver reads and writes UMEM itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ZeroCopy {
    /// If it can; the status shows what was got.
    #[default]
    Auto,
    /// It must, or the start is refused.
    Force,
    /// The kernel copies.
    Off,
}

/// Whether the source of a packet is looked up before it is forwarded: RFC 3704 section 2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceValidation {
    /// It is not.
    #[default]
    Off,
    /// One of the next hops on the way back is on the receiving interface.
    Strict,
    /// There is a way back, by whatever interface and route.
    Loose,
    /// There is a way back that is not the default route.
    LooseIgnoringDefault,
}

/// What becomes of the MSS option of a SYN or SYN-ACK. It is only ever lowered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MssClamp {
    /// To what the packet's path holds: the next hop's MTU less headers and encapsulation.
    #[default]
    Auto,
    /// Left alone.
    Off,
    /// To this many bytes at most.
    Bytes(u16),
}

/// A static route. Several routes with one prefix and one metric form a next-hop group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// Host bits are zero; never an IPv4-mapped IPv6 prefix.
    pub prefix: IpNet,
    /// Where to.
    pub target: RouteTarget,
    /// Of several routes to a prefix, the one with the lowest metric is used.
    pub metric: u32,
    /// The largest IP packet that goes this way, in bytes; 0: as large as the link's.
    pub mtu: u16,
}

/// Where a static route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RouteTarget {
    /// To a next hop. An IPv4 prefix may have an IPv6 next hop (RFC 8950), not the other way round.
    Via {
        /// The next hop: a unicast address.
        address: IpAddr,
        /// Where the next hop is; always there for a link-local next hop. `None`: where the route
        /// to the next hop leads.
        interface: Option<InterfaceId>,
    },
    /// The prefix is on the link: each destination is its own next hop.
    OnLink(InterfaceId),
    /// Dropped silently, and counted.
    Blackhole,
    /// Dropped with an ICMP error: host unreachable, or no route.
    Unreachable,
    /// Dropped with an ICMP error: administratively prohibited.
    Prohibit,
}

/// A static neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Neighbor {
    /// A unicast address.
    pub address: IpAddr,
    /// Where it is.
    pub interface: InterfaceId,
    /// A unicast address, not zero.
    pub mac: MacAddress,
}
