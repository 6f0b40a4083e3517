//! [`Snapshot`]: everything that a worker looks up, immutable.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::collections::HashMap;
use std::sync::Arc;

use wire::{InterfaceId, MacAddress, ipv4, ipv6};

use crate::{
    Actions, Adjacency, AdjacencyId, Encapsulation, Fib4, Fib6, Group, Groups, LocalOwnerId,
    Neighbors, NodeId, OuterHeaders, OwnAddresses, RouteId, SiteId, SliceTable, TunnelKinds,
};

/// Which side of the router an interface is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Towards workloads: packets from egress addresses are accepted, if their slice allows it.
    Inside,
    /// Towards the Internet: a packet from an egress address is spoofed.
    Outside,
    /// One-armed: both on one link.
    Both,
}

/// Whether a packet's source is looked up: RFC 3704 section 2, for each receiving interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SourceValidation {
    /// It is not.
    #[default]
    Off,
    /// One of the next hops on the way back is on the interface that the packet came by (section 2.3).
    Strict,
    /// There is a way back, by whatever interface (section 2.4).
    Loose,
    /// There is a way back that is not the default route (section 2.5).
    LooseIgnoringDefault,
}

/// What is refused in headers, as far as it can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderRules {
    /// Addresses of 0/8 and 240/4 are dropped (RFC 1812 section 5.3.7).
    pub drops_martians: bool,
    /// Packets with an IPv4 source route are dropped (RFC 7126 sections 4.3 and 4.4); if not, the
    /// option is passed on like any other.
    pub drops_source_routes: bool,
}

impl Default for HeaderRules {
    fn default() -> Self {
        Self { drops_martians: true, drops_source_routes: true }
    }
}

/// What the packet path knows of an interface.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Which side it is on.
    pub role: Role,
    /// Whether the sources of packets that it receives are looked up.
    pub source_validation: SourceValidation,
    /// Whether it carries packets: there, set up, and with a carrier.
    pub is_up: bool,
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Address that ICMP errors leave from.
    pub address4: Option<Ipv4Addr>,
    /// Address that ICMPv6 errors leave from.
    pub address6: Option<Ipv6Addr>,
    /// Largest TCP MSS that passes over IPv4, in bytes; 0 for any.
    pub mss4: u16,
    /// Largest TCP MSS that passes over IPv6, in bytes; 0 for any.
    pub mss6: u16,
    /// Whether the MTU of a packet's next hop may lower the MSS further.
    pub clamps_by_route: bool,
}

/// How a packet reaches an owner on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Through the kernel of this machine.
    Kernel,
    /// To a workload's next hop on this interface.
    NextHop {
        /// The interface that the workload is behind.
        interface: InterfaceId,
        /// Where its packets go.
        adjacency: AdjacencyId,
    },
}

/// The far end of an owner tunnel: a node of this site, another site, or a node there, from which packets
/// come and to which none are sent.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The outer destination address.
    pub remote: IpAddr,
    /// The outer source address, of the same family.
    pub local: IpAddr,
    /// What stands behind the outer IP header, in both directions.
    pub encapsulation: Encapsulation,
    /// The outer headers, where they are of GUE over IPv4, but for what differs from packet to packet.
    pub outer: Option<OuterHeaders>,
    /// Whether the DSCP of a packet is copied to its outer header (the uniform model of RFC 2983
    /// section 3.2); if not, it is 0 there.
    pub copies_dscp: bool,
    /// How `remote` is reached; [`RouteId::NONE`] when it is not.
    pub route: RouteId,
    /// The other site that it is of, whose packets may go on to a node of this one; `None` for a node of
    /// this site.
    pub site: Option<SiteId>,
}

impl Peer {
    /// Bytes that the tunnel puts in front of a packet.
    #[inline]
    #[must_use]
    pub fn overhead(&self) -> u16 {
        let outer = if self.remote.is_ipv4() { ipv4::HEADER_LEN } else { ipv6::HEADER_LEN };
        outer as u16 + self.encapsulation.header_len()
    }
}

/// Position of a [`Peer`] in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerId(pub u16);

/// How many ICMP errors are originated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpLimits {
    /// Errors a second that leave about packets of one interface, for one worker.
    pub interface_per_s: u32,
    /// Errors a second to one source prefix (/24 or /64), for one worker.
    pub prefix_per_s: u32,
}

/// How many frames wait for unresolved next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldLimits {
    /// Frames that wait for one next hop, for one worker.
    pub frames_max_per_neighbor: u16,
    /// Frames that wait in all, for one worker.
    pub frames_max: u16,
    /// How long one waits, in milliseconds.
    pub timeout_ms: u32,
}

/// How fragments are followed and made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLimits {
    /// Packets whose fragments are followed at a time, by one worker; 0: none are.
    pub packets_max: u16,
    /// Fragments that wait for their first, for one worker.
    pub frames_max: u16,
    /// Bytes of those fragments, for one worker.
    pub bytes_max: u32,
    /// How long a packet is followed and its fragments wait, in milliseconds.
    pub timeout_ms: u32,
    /// Whether an IPv4 packet without DF that is too big is fragmented.
    pub egress: bool,
    /// Packets a second that are fragmented, by one worker.
    pub egress_packets_per_s: u32,
}

/// Everything that a worker looks up in one turn. A change makes another one that shares what did not
/// change; IPv4 routes and groups may change in place.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Publication number, greater than that of every snapshot before.
    pub epoch: u64,
    /// Number of the configuration that it is of, from 1 on.
    pub configuration: u64,
    /// Interfaces, by [`InterfaceId`].
    pub interfaces: Vec<Interface>,
    /// IPv4 routes.
    pub fib4: Arc<Fib4>,
    /// IPv6 routes.
    pub fib6: Arc<Fib6>,
    /// What routes lead to, by [`RouteId`].
    pub groups: Arc<Groups>,
    /// Resolved rewrites, by [`AdjacencyId`].
    pub adjacencies: Vec<Adjacency>,
    /// Neighbors on connected links.
    pub neighbors: Neighbors,
    /// The default routes of IPv4 and IPv6, where no other prefix has their [`RouteId`]:
    /// [`SourceValidation::LooseIgnoringDefault`] needs to know them. Else [`RouteId::NONE`].
    pub defaults: [RouteId; 2],
    /// Whether any interface has its packets' sources looked up.
    pub validates_sources: bool,
    /// What is refused in headers.
    pub rules: HeaderRules,
    /// Who owns which slice.
    pub slices: Arc<SliceTable>,
    /// How owners on this machine are reached, by [`LocalOwnerId`].
    pub owners: Vec<Delivery>,
    /// Far ends of owner tunnels, by [`PeerId`].
    pub peers: Vec<Peer>,
    /// Peers by their outer address.
    pub peers_by_address: HashMap<IpAddr, PeerId>,
    /// The peer of each node of this site; `None` for this node and for unreachable ones.
    pub nodes: Vec<Option<PeerId>>,
    /// The peer of each site.
    pub sites: Vec<Option<PeerId>>,
    /// Addresses of this machine itself, egress addresses left out.
    pub locals: OwnAddresses,
    /// Which kinds of tunnels `peers` are the far ends of.
    pub tunnel_kinds: TunnelKinds,
    /// What the numbers mean that plugins give.
    pub actions: Arc<Actions>,
    /// How many ICMP errors are originated.
    pub icmp: IcmpLimits,
    /// How many frames wait for unresolved next hops.
    pub hold: HoldLimits,
    /// How fragments are followed and made.
    pub fragments: FragmentLimits,
    /// Packets a second that one worker hands to the kernel at most.
    pub punt_packets_per_s: u32,
}

impl Snapshot {
    /// The interface at `id`, if the snapshot has it.
    #[inline]
    #[must_use]
    pub fn interface(&self, id: InterfaceId) -> Option<&Interface> {
        self.interfaces.get(id.index())
    }

    /// What the route leads to; `None` for [`RouteId::NONE`].
    #[inline]
    #[must_use]
    pub fn group(&self, route: RouteId) -> Option<Group<'_>> {
        self.groups.get(route)
    }

    /// The adjacency at `id`.
    #[inline]
    #[must_use]
    pub fn adjacency(&self, id: AdjacencyId) -> Option<&Adjacency> {
        self.adjacencies.get(id.0 as usize)
    }

    /// How the owner on this machine is reached.
    #[inline]
    #[must_use]
    pub fn delivery(&self, owner: LocalOwnerId) -> Option<&Delivery> {
        self.owners.get(usize::from(owner.0))
    }

    /// The far end at `id`.
    #[inline]
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.peers.get(usize::from(id.0))
    }

    /// The far end whose outer address is `address`.
    #[inline]
    #[must_use]
    pub fn peer_at(&self, address: IpAddr) -> Option<PeerId> {
        self.peers_by_address.get(&address).copied()
    }

    /// The far end that stands for a node of this site.
    #[inline]
    #[must_use]
    pub fn node_peer(&self, node: NodeId) -> Option<PeerId> {
        self.nodes.get(usize::from(node.0)).copied().flatten()
    }

    /// The far end that stands for another site.
    #[inline]
    #[must_use]
    pub fn site_peer(&self, site: SiteId) -> Option<PeerId> {
        self.sites.get(usize::from(site.0)).copied().flatten()
    }
}
