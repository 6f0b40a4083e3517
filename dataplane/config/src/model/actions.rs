//! What plugins may name: next hops, egress tags and classes.

use std::net::IpAddr;

use tables::{NodeId, SiteId};
use wire::InterfaceId;

/// A next hop that has a name, for plugins and egress tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// Unique among next hops: 1 to 64 letters, digits and any of `. _ - : /`.
    pub name: String,
    /// How packets get to it.
    pub way: Way,
}

/// How packets get to a named next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// A neighbor on a link.
    Link {
        /// Its address, a unicast address of either family; it takes packets of both.
        via: IpAddr,
        /// Where it is; always there for a link-local address. `None`: on the link whose prefix holds it.
        interface: Option<InterfaceId>,
        /// The largest IP packet that it is sent, in bytes; 0: as large as the link's.
        mtu: u16,
    },
    /// The tunnel to another node of this site.
    Node(NodeId),
    /// The tunnel to another site.
    Site(SiteId),
    /// It is this node or its site: packets take slices and routes.
    Here,
}

impl Way {
    /// Whether packets go through a tunnel, here or on another node that has the same file.
    #[must_use]
    pub const fn is_tunnel(self) -> bool {
        !matches!(self, Self::Link { .. })
    }
}

/// One of an egress tag's next hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagMember {
    /// A position in [`Checked::next_hops`](super::Checked::next_hops).
    pub next_hop: usize,
    /// How many parts of the tag's flows it gets: 1 to 256.
    pub weight: u16,
}

/// A path for the packets that plugins give this tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressTag {
    /// Unique among egress tags.
    pub name: String,
    /// The next hops that share its flows; none twice, at least one. Those that cannot be used are left
    /// out; when none is left, packets take their routes.
    pub members: Vec<TagMember>,
}

impl EgressTag {
    /// The most next hops of a tag.
    pub const MEMBERS_MAX: usize = 64;
    /// The largest weight, which is the kernel's for next hops (`rtnh_hops`).
    pub const WEIGHT_MAX: u16 = 256;
}

/// A class that plugins put packets into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Unique among classes.
    pub name: String,
    /// The DSCP that its packets leave with, 0 to 63, if no plugin sets another.
    pub dscp: Option<u8>,
}
