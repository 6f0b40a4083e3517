//! Next hops, resolved: from the group that a route names to the bytes that a frame starts with.
//!
//! ```text
//!  RouteId -> NextHopGroup -> AdjacencyId -> Adjacency (interface, MTU, L2 addresses)
//!                 |                 ^
//!                 +-- glean --> Neighbors[(interface, destination)]
//! ```
//!
//! A neighbor that changes its MAC address, or stops answering, changes one [`Adjacency`]; the FIB
//! and the groups stay as they are.

use core::net::IpAddr;
use std::collections::HashMap;

use wire::{InterfaceId, MacAddress};

/// Position of an [`Adjacency`] in its snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdjacencyId(pub u32);

/// Whether frames can be sent to a neighbor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AdjacencyState {
    /// The link-layer address is known.
    Resolved,
    /// The kernel has been asked and has not answered yet.
    Unresolved,
    /// The kernel has given up on it.
    Failed,
    /// Its link has no carrier, is set down or is gone: what is sent there is lost.
    LinkDown,
}

impl AdjacencyState {
    /// Whether packets are better sent to any other next hop.
    #[inline]
    #[must_use]
    pub const fn is_lost(self) -> bool {
        matches!(self, Self::Failed | Self::LinkDown)
    }

    /// The state in a word or two.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Resolved => "resolved",
            Self::Unresolved => "unresolved",
            Self::Failed => "failed",
            Self::LinkDown => "link-down",
        }
    }
}

/// A resolved rewrite: where a frame leaves and what it starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjacency {
    /// Whether frames can be sent.
    pub state: AdjacencyState,
    /// The interface that frames leave by.
    pub interface: InterfaceId,
    /// Largest IP packet that the next hop takes, in bytes.
    pub mtu: u16,
    /// The neighbor's link-layer address; zero unless resolved.
    pub destination: MacAddress,
    /// The interface's own link-layer address.
    pub source: MacAddress,
    /// The neighbor's IP address, of either family (RFC 8950).
    pub address: IpAddr,
}

/// What a route leads to. A FIB value is the position of one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHopGroup {
    /// To one of these adjacencies, chosen by the flow's hash: the buckets of a table, in each of which one
    /// stands, or a single one. Never empty.
    Adjacencies(Box<[AdjacencyId]>),
    /// To the destination itself, which is on a link.
    Glean {
        /// The interface of the link.
        interface: InterfaceId,
        /// Largest IP packet that the route takes, in bytes; 0: as large as the link's.
        mtu: u16,
    },
    /// To this machine's kernel.
    Local,
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere, with ICMP host unreachable.
    Unreachable,
    /// Nowhere, with ICMP communication administratively prohibited.
    Prohibit,
    /// Nowhere: the broadcast address of a connected subnet (RFC 2644).
    Broadcast,
}

/// Neighbors on connected links, by interface and address.
#[derive(Clone, Debug, Default)]
pub struct Neighbors {
    by_address: HashMap<(InterfaceId, IpAddr), AdjacencyId>,
}

impl Neighbors {
    /// The adjacency of `address` on the link of `interface`.
    #[inline]
    #[must_use]
    pub fn get(&self, interface: InterfaceId, address: IpAddr) -> Option<AdjacencyId> {
        self.by_address.get(&(interface, address)).copied()
    }

    /// Says that `address` on the link of `interface` is reached by `adjacency`.
    pub fn insert(&mut self, interface: InterfaceId, address: IpAddr, adjacency: AdjacencyId) {
        self.by_address.insert((interface, address), adjacency);
    }
}
