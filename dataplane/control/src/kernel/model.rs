//! What the mirror knows and how it tells of changes.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use smallvec::SmallVec;

/// An Ethernet address in transmission order.
pub type Mac = [u8; 6];

/// A network interface of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number of the interface.
    pub ifindex: u32,
    /// Its name, which may change.
    pub name: String,
    /// Its Ethernet address; absent on links that have none.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it carries packets: set up by the operator, and with a carrier (`IFF_LOWER_UP`, which links
    /// that cannot tell always have).
    pub up: bool,
    /// Whether the operator set it up.
    pub is_set_up: bool,
    /// Whether it is the loopback.
    pub loopback: bool,
}

/// How far an address is valid (`rtnetlink(7)`, `RT_SCOPE_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Everywhere.
    Global,
    /// Inside the site, or a scope that the operator defined.
    Site,
    /// On the link.
    Link,
    /// In this machine.
    Host,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The interface.
    pub ifindex: u32,
    /// The address, with the length of the prefix that is on the link.
    pub network: IpNet,
    /// How far it is valid.
    pub scope: Scope,
    /// IPv6: duplicate address detection has not ended, or found a duplicate. Not to be used as a
    /// source.
    pub tentative: bool,
}

/// Why the kernel takes packets to an address for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalKind {
    /// An address of this machine.
    Local,
    /// The broadcast address of a subnet.
    Broadcast,
    /// An anycast address, such as the subnet-router anycast address of RFC 4291 section 2.6.1.
    Anycast,
}

/// All addresses of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// Those configured on interfaces, in order.
    pub addresses: Vec<Address>,
    /// What the kernel's local table (255) holds, of all interfaces: mostly single addresses, but
    /// also prefixes such as 127.0.0.0/8. Where a prefix is of several kinds, the first in the
    /// order of [`LocalKind`] stands.
    pub locals: BTreeMap<IpNet, LocalKind>,
}

/// One way out of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextHop {
    /// The address of the next hop; none if the destination is on the link. May be IPv6 in an IPv4
    /// route (RFC 8950).
    pub via: Option<IpAddr>,
    /// The interface to it.
    pub ifindex: u32,
    /// Its share among the route's next hops, 1 or more.
    pub weight: u32,
    /// The largest IP packet that the route takes this way, in bytes, where the route has the metric
    /// `mtu`; 0 without.
    pub mtu: u32,
}

/// What a route does with a packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// Sends it to one of these, which are at least one: in the kernel's order, or sorted where
    /// that order is not stable (IPv6).
    NextHops(Box<[NextHop]>),
    /// Drops it silently.
    Blackhole,
    /// Drops it; the sender learns that the destination is unreachable.
    Unreachable,
    /// Drops it; the sender learns that it is prohibited.
    Prohibit,
    /// Gives it to this machine (local, broadcast and anycast routes).
    Local,
    /// Something that the router cannot do itself: such packets belong to the kernel.
    NotExpressible(Reason),
}

/// Why a route cannot be expressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// It encapsulates (`ip route … encap`).
    Encapsulation,
    /// It applies to some values of the type-of-service field only.
    DependsOnTos,
    /// It applies to some source addresses only (`ip -6 route … from`).
    DependsOnSource,
    /// It continues in the table of the next rule (`throw`).
    Throw,
    /// It is for packets to a multicast group, which are not routed here.
    Multicast,
    /// It names a nexthop object that the kernel has not (yet) told of, or that has no live member.
    UnknownNexthop(u32),
    /// Its next hop's address is neither IPv4 nor IPv6.
    NextHopFamily,
    /// It names no interface.
    NoInterface,
    /// Its type (`RTN_*`) is none of the above.
    Type(u8),
}

impl Reason {
    /// The kind of reason in a word or two, for metrics.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Encapsulation => "encapsulation",
            Self::DependsOnTos => "depends-on-tos",
            Self::DependsOnSource => "depends-on-source",
            Self::Throw => "throw",
            Self::Multicast => "multicast",
            Self::UnknownNexthop(_) => "unknown-nexthop",
            Self::NextHopFamily => "next-hop-family",
            Self::NoInterface => "no-interface",
            Self::Type(_) => "type",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encapsulation => f.write_str("it encapsulates"),
            Self::DependsOnTos => f.write_str("it depends on the type of service"),
            Self::DependsOnSource => f.write_str("it depends on the source address"),
            Self::Throw => f.write_str("it continues in another table (throw)"),
            Self::Multicast => f.write_str("it is for multicast, which is not routed here"),
            Self::UnknownNexthop(id) => write!(f, "nexthop object {id} is unknown or dead"),
            Self::NextHopFamily => f.write_str("its next hop is neither IPv4 nor IPv6"),
            Self::NoInterface => f.write_str("it names no interface"),
            Self::Type(kind) => write!(f, "its type is {kind}"),
        }
    }
}

/// A route of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The routing table that it is in.
    pub table: u32,
    /// Who put it there (`RTPROT_*` of `linux/rtnetlink.h`): 2 the kernel itself, 4 an administrator,
    /// 12 BIRD, 186 BGP of FRR …
    pub protocol: u8,
    /// The metric (priority), lower is preferred.
    pub metric: u32,
    /// What it does; shared by all routes that do the same.
    pub kind: Arc<RouteKind>,
}

/// The routes of a prefix, in the kernel's order: tables in the order of
/// [`MirrorOptions::tables`](super::MirrorOptions::tables), in a table the lowest metric first, and of
/// equal metrics the one that the kernel uses. Nearly every prefix has one.
pub type Routes = SmallVec<[Route; 1]>;

/// A prefix whose routes changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteChange {
    /// The prefix.
    pub prefix: IpNet,
    /// Its routes from now on; empty if it has none any more.
    pub routes: Routes,
}

/// The kernel's state of a neighbor (RFC 4861 section 7.3.2 and `NUD_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NeighborState {
    /// Known by name only.
    None,
    /// Being asked for; packets to it wait.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately; usable.
    Stale,
    /// About to be probed; usable.
    Delay,
    /// Being probed; usable.
    Probe,
    /// Does not answer.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by the operator.
    Permanent,
}

impl NeighborState {
    /// Whether packets may be sent to the neighbor's Ethernet address.
    #[must_use]
    pub const fn is_usable(self) -> bool {
        !matches!(self, Self::None | Self::Incomplete | Self::Failed)
    }

    /// The state in lower case, as iproute2 writes it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
            Self::NoArp => "noarp",
            Self::Permanent => "permanent",
        }
    }
}

/// A neighbor on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its Ethernet address, if known. It may be a remembered one: ask
    /// [`NeighborState::is_usable`].
    pub mac: Option<Mac>,
    /// The kernel's state of it.
    pub state: NeighborState,
    /// Whether the kernel keeps it fresh by itself (`NTF_EXT_MANAGED`).
    pub managed: bool,
}

/// A neighbor that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborChange {
    /// The interface.
    pub ifindex: u32,
    /// The neighbor's address.
    pub address: IpAddr,
    /// What is known of it from now on; none if the kernel has forgotten it.
    pub neighbor: Option<Neighbor>,
}

/// Why the mirror read the kernel's tables in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncCause {
    /// The mirror started.
    Start,
    /// The kernel had more news than the socket's buffer holds (ENOBUFS), or a dump was
    /// interrupted too often.
    Overrun,
    /// A link or an address changed, which removes routes without a word from the kernel.
    SilentChange,
    /// [`KernelMirror::resync`](super::KernelMirror::resync).
    Asked,
}

/// News from the kernel. Each is the state at the time of sending: what happened twice in between
/// is told once.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelEvent {
    /// Links changed; this is all of them, by name.
    Links(Arc<BTreeMap<String, Link>>),
    /// Addresses or local routes changed; this is all of them.
    Addresses(Arc<Addresses>),
    /// Routes changed.
    Routes {
        /// The changed prefixes, each once.
        changes: Vec<RouteChange>,
        /// When the mirror heard of the oldest of them.
        since: Instant,
    },
    /// A neighbor changed.
    Neighbor(NeighborChange),
    /// All that a full reading of the kernel's tables found has been told. Before the first of
    /// these, what was told is incomplete.
    Synchronized(SyncCause),
    /// The mirror has ended and will tell no more.
    Failed(Arc<super::MirrorError>),
}

impl PartialEq for super::MirrorError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// The fold of all events: what the kernel has, as far as it was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelState {
    /// Links by name.
    pub links: Arc<BTreeMap<String, Link>>,
    /// Addresses and local prefixes.
    pub addresses: Arc<Addresses>,
    /// Routes by prefix, of which there is at least one.
    pub routes: HashMap<IpNet, Routes>,
    /// Neighbors by interface and address.
    pub neighbors: HashMap<(u32, IpAddr), Neighbor>,
    /// Whether a full reading has been told.
    pub synchronized: bool,
}

impl KernelState {
    /// Takes `event` in.
    pub fn apply(&mut self, event: &KernelEvent) {
        match event {
            KernelEvent::Links(links) => self.links = Arc::clone(links),
            KernelEvent::Addresses(addresses) => self.addresses = Arc::clone(addresses),
            KernelEvent::Routes { changes, .. } => {
                for RouteChange { prefix, routes } in changes {
                    if routes.is_empty() {
                        self.routes.remove(prefix);
                    } else {
                        self.routes.insert(*prefix, routes.clone());
                    }
                }
            }
            KernelEvent::Neighbor(change) => {
                let key = (change.ifindex, change.address);
                match change.neighbor {
                    Some(neighbor) => self.neighbors.insert(key, neighbor),
                    None => self.neighbors.remove(&key),
                };
            }
            KernelEvent::Synchronized(_) => self.synchronized = true,
            KernelEvent::Failed(_) => {}
        }
    }

    /// The link with this number.
    #[must_use]
    pub fn link(&self, ifindex: u32) -> Option<&Link> {
        self.links.values().find(|link| link.ifindex == ifindex)
    }
}
