//! Who has which (address, port): sites, nodes, local owners, egress prefixes and slices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use tables::{NodeId, Owner, SiteId};
use wire::InterfaceId;

use crate::model::Tunnel;
use crate::ports::PortRange;

/// A place of several nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// Unique.
    pub name: String,
    /// Tunnel endpoints of the site; empty only for a site to which this node sends nothing.
    pub endpoints: Endpoints,
    /// The tunnels that end at it, where they differ from the others.
    pub tunnel: Option<Tunnel>,
}

/// A machine that can own slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Unique.
    pub name: String,
    /// Tunnel endpoints of the node; empty only for a node that neither sends nor is sent anything
    /// by tunnel.
    pub endpoints: Endpoints,
    /// The tunnels that end at it, where they differ from the others.
    pub tunnel: Option<Tunnel>,
    /// Its site; `None` for the one site without a name.
    pub site: Option<SiteId>,
}

/// The addresses at which a tunnel ends: at most one of each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// For outer IPv4 headers.
    pub ipv4: Option<Ipv4Addr>,
    /// For outer IPv6 headers.
    pub ipv6: Option<Ipv6Addr>,
}

impl Endpoints {
    /// Whether there is no address at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ipv4.is_none() && self.ipv6.is_none()
    }

    /// Source and destination of the outer header from here to `remote`, IPv4 where both have it;
    /// `None` without a common family.
    #[must_use]
    pub fn outer_to(&self, remote: &Self) -> Option<(IpAddr, IpAddr)> {
        match (self.ipv4, remote.ipv4, self.ipv6, remote.ipv6) {
            (Some(source), Some(destination), _, _) => Some((source.into(), destination.into())),
            (_, _, Some(source), Some(destination)) => Some((source.into(), destination.into())),
            _ => None,
        }
    }
}

/// One of the owners of slices on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalOwner {
    /// Unique; [`LocalOwner::KERNEL`] is the one that is always there.
    pub name: String,
    /// What becomes of its packets.
    pub delivery: Delivery,
}

impl LocalOwner {
    /// Name of the owner of the slices that name none: the node's own kernel.
    pub const KERNEL: &str = "kernel";

    /// The owner of the slices that name none: the node's own kernel.
    #[must_use]
    pub fn kernel() -> Self {
        Self { name: Self::KERNEL.to_owned(), delivery: Delivery::Kernel }
    }
}

/// How a local owner gets its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// They are punted to the local kernel.
    Kernel,
    /// They are sent to a next hop, such as a workload's address on a link of this node.
    NextHop {
        /// A unicast address.
        address: IpAddr,
        /// The link.
        interface: InterfaceId,
    },
}

/// A shared address, or a prefix of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Host bits are zero.
    pub prefix: IpNet,
    /// Who gets the (address, port) pairs that no slice and no site has.
    pub rest: Owner,
    /// Who gets packets of protocols without ports. `None`: the owner of a slice that has all ports
    /// of the address, or else they are dropped.
    pub portless: Option<Owner>,
    /// Level 1: port ranges of sites, ascending and disjoint. Empty: each slice is where its node is.
    pub sites: Vec<SitePorts>,
}

/// Level 1: the port range of every address of an egress prefix that a site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SitePorts {
    /// The range.
    pub ports: PortRange,
    /// Whose it is.
    pub site: SiteId,
}

/// A port range of an address (or of each address of a prefix), and the node that owns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Unique. Default: `ADDRESS:FIRST-LAST`.
    pub name: String,
    /// The egress prefix that it is cut from: a position in [`Checked::egress`](crate::Checked::egress).
    pub egress: usize,
    /// Within that prefix. Of nested addresses the longest that has the port wins.
    pub address: IpNet,
    /// The ports.
    pub ports: PortRange,
    /// The node that owns it.
    pub node: NodeId,
    /// The same from this node's point of view: a local owner, another node of this site, or
    /// another site.
    pub owner: Owner,
}
