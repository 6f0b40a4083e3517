//! [`HostView`]: what publication needs to know of the machine, wherever it comes from: the kernel
//! mirror on a live router, the configuration alone in a replay.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tables::AdjacencyState;
use wire::{InterfaceId, MacAddress};

/// One of the router's interfaces, as the machine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceView {
    /// Its link-layer address.
    pub mac: MacAddress,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Its addresses, each with the length of its connected prefix.
    pub addresses: Vec<IpNet>,
}

/// What a route of the machine leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteView {
    /// To next hops on the router's interfaces.
    NextHops(Vec<NextHopView>),
    /// Silently nowhere.
    Blackhole,
    /// Nowhere, with an ICMP error.
    Unreachable,
    /// Nowhere, with another ICMP error.
    Prohibit,
    /// Something that the packet path cannot express, such as a route over an interface that is not
    /// the router's: the kernel forwards for it.
    Kernel,
}

/// One next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NextHopView {
    /// The link that it is on.
    pub interface: InterfaceId,
    /// Its address, of either family; `None` where each destination is its own next hop.
    pub via: Option<IpAddr>,
    /// Its share of the flows, at least 1.
    pub weight: u16,
    /// The largest IP packet that the route takes this way, in bytes; 0: as large as the link's.
    pub mtu: u16,
}

/// What is known of a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborView {
    /// Its link-layer address, where it is resolved.
    pub mac: Option<MacAddress>,
    /// Whether frames can be sent to it.
    pub state: AdjacencyState,
}

/// The machine, as publication sees it.
#[derive(Clone, Debug, Default)]
pub struct HostView {
    /// The router's interfaces, by [`InterfaceId`].
    pub interfaces: Vec<InterfaceView>,
    /// Addresses of the machine itself on any interface, those of egress prefixes included.
    pub locals: HashSet<IpAddr>,
    /// Prefixes of more than one address whose packets are all the machine's own: `local`
    /// routes of its table 255, as an address with a prefix on the loopback makes one.
    pub local_prefixes: HashSet<IpNet>,
    /// Broadcast addresses of its subnets, as far as it names them. Those that follow from an
    /// interface's prefix need not be here.
    pub broadcasts: HashSet<IpAddr>,
    /// The router's interfaces by the kernel's numbers, in which the kernel's routes name them.
    pub links: HashMap<u32, InterfaceId>,
    /// Those of the router's interfaces that are down or gone.
    pub down: HashSet<InterfaceId>,
    /// Its routes, one for each prefix, where they are given in whole: by a replay or a simulation. A live
    /// router leaves this empty and tells [`Publication::kernel_routes`](super::Publication::kernel_routes)
    /// what changes.
    pub routes: HashMap<IpNet, Arc<RouteView>>,
    /// Its neighbors.
    pub neighbors: HashMap<(InterfaceId, IpAddr), NeighborView>,
}
