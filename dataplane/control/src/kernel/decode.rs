//! From netlink messages to statements about links, addresses, routes, nexthop objects and
//! neighbors.
//!
//! The headers are parsed by `netlink-packet-route`; of the attributes only those that matter are
//! read, in place. That keeps an interface with an attribute that a parser does not know from
//! being lost as a whole, and a route costs no allocation but its next hops.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use netlink_packet_core::{NLA_HEADER_SIZE, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressHeader, AddressHeaderFlags, AddressScope};
use netlink_packet_route::link::{LinkFlags, LinkHeader};
use netlink_packet_route::neighbour::{NeighbourExtFlags, NeighbourFlags, NeighbourHeader};
use netlink_packet_route::route::{
    RouteFlags, RouteHeader, RouteNextHopBuffer, RouteNextHopFlags, RouteType,
};

use super::model::{
    Address, Link, LocalKind, Mac, Neighbor, NeighborState, NextHop, Reason, RouteKind, Scope,
};

/// Why a message cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

type Decoded<T> = Result<Option<T>, Malformed>;

// Lengths of the fixed headers in bytes (struct ifinfomsg, ifaddrmsg, rtmsg, ndmsg, nhmsg).
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
const ROUTE_HEADER_BYTES: usize = 12;
const NEIGHBOR_HEADER_BYTES: usize = 12;
const NEXTHOP_HEADER_BYTES: usize = 8;

/// The attributes of `message` after its fixed header.
fn attributes(
    message: &[u8],
    header_bytes: usize,
) -> impl Iterator<Item = Result<(u16, &[u8]), Malformed>> {
    NlasIterator::new(message.get(header_bytes..).unwrap_or_default()).map(|attribute| {
        let attribute = attribute.map_err(|_| Malformed("attribute length"))?;
        let (kind, length) = (attribute.kind(), usize::from(attribute.length()));
        let value = attribute.into_inner().get(NLA_HEADER_SIZE..length).unwrap_or_default();
        Ok((kind, value))
    })
}

fn u32_of(value: &[u8]) -> Result<u32, Malformed> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)).ok_or(Malformed("u32 attribute"))
}

fn ip_of(value: &[u8]) -> Result<IpAddr, Malformed> {
    if let Ok(octets) = <[u8; 4]>::try_from(value) {
        Ok(Ipv4Addr::from(octets).into())
    } else if let Ok(octets) = <[u8; 16]>::try_from(value) {
        Ok(Ipv6Addr::from(octets).into())
    } else {
        Err(Malformed("address attribute"))
    }
}

/// An Ethernet address; links with addresses of another length (tunnels, InfiniBand) have none.
fn mac_of(value: &[u8]) -> Option<Mac> {
    value.try_into().ok()
}

/// `RTM_NEWLINK`, `RTM_DELLINK`. Messages of one family tell of a bridge port or the like and are
/// no word on the link.
pub(super) fn link(message: &[u8]) -> Decoded<Link> {
    const IFLA_ADDRESS: u16 = 1;
    const IFLA_IFNAME: u16 = 3;
    const IFLA_MTU: u16 = 4;

    let header = LinkHeader::parse(message).map_err(|_| Malformed("link header"))?;
    if header.interface_family != AddressFamily::Unspec {
        return Ok(None);
    }
    let flags = header.flags;
    let mut link = Link {
        ifindex: header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        is_set_up: flags.contains(LinkFlags::Up),
        loopback: flags.contains(LinkFlags::Loopback),
    };
    for attribute in attributes(message, LINK_HEADER_BYTES) {
        match attribute? {
            (IFLA_ADDRESS, value) => link.mac = mac_of(value),
            (IFLA_IFNAME, value) => {
                let name = value.split(|&byte| byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            (IFLA_MTU, value) => link.mtu = u32_of(value)?,
            _ => {}
        }
    }
    if link.name.is_empty() { Err(Malformed("link without a name")) } else { Ok(Some(link)) }
}

/// `RTM_NEWADDR`, `RTM_DELADDR`.
pub(super) fn address(message: &[u8]) -> Decoded<Address> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;

    let header = AddressHeader::parse(message).map_err(|_| Malformed("address header"))?;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6) {
        return Ok(None);
    }
    // On point-to-point links IFA_ADDRESS is the other end and IFA_LOCAL ours; elsewhere they
    // agree, or only IFA_ADDRESS is there (IPv6).
    let (mut local, mut any) = (None, None);
    for attribute in attributes(message, ADDRESS_HEADER_BYTES) {
        match attribute? {
            (IFA_LOCAL, value) => local = Some(ip_of(value)?),
            (IFA_ADDRESS, value) => any = Some(ip_of(value)?),
            _ => {}
        }
    }
    let ip = local.or(any).ok_or(Malformed("address message without an address"))?;
    let network = IpNet::new(ip, header.prefix_len).map_err(|_| Malformed("prefix length"))?;
    // Optimistic addresses (RFC 4429) may be used while they are tentative.
    let checking = header.flags.contains(AddressHeaderFlags::Tentative)
        && !header.flags.contains(AddressHeaderFlags::Optimistic);
    Ok(Some(Address {
        ifindex: header.index,
        network,
        scope: match header.scope {
            AddressScope::Universe => Scope::Global,
            AddressScope::Link => Scope::Link,
            AddressScope::Host | AddressScope::Nowhere => Scope::Host,
            _ => Scope::Site,
        },
        tentative: checking || header.flags.contains(AddressHeaderFlags::Dadfailed),
    }))
}

/// Which packets a route applies to beyond their destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Selector {
    pub(super) tos: u8,
    pub(super) source: Option<IpNet>,
}

/// What a route message says the route does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Body {
    Kind(Arc<RouteKind>),
    /// What the nexthop object with this id does.
    Object(u32),
    /// This, whatever the nexthop object with this id does: it only goes with it.
    KindBesideObject(Arc<RouteKind>, u32),
}

impl Body {
    /// The nexthop object that the route names.
    pub(super) const fn object(&self) -> Option<u32> {
        match self {
            Self::Kind(_) => None,
            Self::Object(id) | Self::KindBesideObject(_, id) => Some(*id),
        }
    }
}

/// A route message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RouteStatement {
    pub(super) table: u32,
    pub(super) protocol: u8,
    pub(super) prefix: IpNet,
    pub(super) metric: u32,
    /// The route's metric `mtu`, for the next hops of the object that it names; 0 without.
    pub(super) object_mtu: u32,
    pub(super) selector: Selector,
    pub(super) body: Body,
    /// The interface of a route with one next hop.
    pub(super) ifindex: Option<u32>,
    /// For routes of the local table: why the kernel takes the packets.
    pub(super) local: Option<LocalKind>,
    /// All its next hops are on links that are down: the kernel skips such a route.
    pub(super) dead: bool,
    /// The source address that the kernel would use.
    pub(super) preferred_source: Option<IpAddr>,
}

/// `RTM_NEWROUTE`, `RTM_DELROUTE`. `deleted`: next hops that are dead stand in the message because
/// they go, too.
pub(super) fn route(message: &[u8], deleted: bool) -> Decoded<RouteStatement> {
    const RTA_DST: u16 = 1;
    const RTA_SRC: u16 = 2;
    const RTA_OIF: u16 = 4;
    const RTA_GATEWAY: u16 = 5;
    const RTA_PRIORITY: u16 = 6;
    const RTA_PREFSRC: u16 = 7;
    const RTA_METRICS: u16 = 8;
    const RTA_MULTIPATH: u16 = 9;
    const RTA_TABLE: u16 = 15;
    const RTA_VIA: u16 = 18;
    const RTA_ENCAP_TYPE: u16 = 21;
    const RTA_NH_ID: u16 = 30;

    let header = RouteHeader::parse(message).map_err(|_| Malformed("route header"))?;
    let unspecified: IpAddr = match header.address_family {
        AddressFamily::Inet => Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    let mut destination = unspecified;
    let mut source = None;
    let mut table = u32::from(header.table);
    let (mut metric, mut object, mut preferred_source) = (0, None, None);
    let (mut ifindex, mut via, mut encapsulates) = (None, Via::None, false);
    let (mut multipath, mut mtu) = (None, 0);
    for attribute in attributes(message, ROUTE_HEADER_BYTES) {
        match attribute? {
            (RTA_DST, value) => destination = ip_of(value)?,
            (RTA_SRC, value) => source = Some(ip_of(value)?),
            (RTA_OIF, value) => ifindex = Some(u32_of(value)?),
            (RTA_GATEWAY, value) => via = Via::Ip(ip_of(value)?),
            (RTA_VIA, value) => via = Via::of(value)?,
            (RTA_PRIORITY, value) => metric = u32_of(value)?,
            (RTA_PREFSRC, value) => preferred_source = Some(ip_of(value)?),
            (RTA_METRICS, value) => mtu = mtu_of(value)?,
            (RTA_MULTIPATH, value) => multipath = Some(value),
            (RTA_TABLE, value) => table = u32_of(value)?,
            (RTA_ENCAP_TYPE, value) => encapsulates = value.iter().any(|&byte| byte != 0),
            (RTA_NH_ID, value) => object = Some(u32_of(value)?),
            _ => {}
        }
    }
    let source = match (source, header.source_prefix_length) {
        (_, 0) => None,
        (source, length) => Some(
            IpNet::new(source.unwrap_or(unspecified), length)
                .map_err(|_| Malformed("source prefix length"))?,
        ),
    };

    let mut dead = false;
    let kind = match header.kind {
        RouteType::Unicast => match multipath {
            Some(value) => match next_hops(value, deleted)? {
                Ok(mut hops) => {
                    dead = hops.is_empty();
                    hops.iter_mut().for_each(|hop| hop.mtu = mtu);
                    // News names the newest next hop of an IPv6 route first, a dump the oldest.
                    if unspecified.is_ipv6() {
                        hops.sort_unstable();
                    }
                    RouteKind::NextHops(hops.into())
                }
                Err(reason) => RouteKind::NotExpressible(reason),
            },
            None => {
                dead = !deleted && header.flags.contains(RouteFlags::Dead);
                one_hop(ifindex, via, encapsulates, 1)
                    .map_or_else(RouteKind::NotExpressible, |hop| {
                        RouteKind::NextHops([NextHop { mtu, ..hop }].into())
                    })
            }
        },
        RouteType::BlackHole => RouteKind::Blackhole,
        RouteType::Unreachable => RouteKind::Unreachable,
        RouteType::Prohibit => RouteKind::Prohibit,
        RouteType::Local | RouteType::Broadcast | RouteType::Anycast => RouteKind::Local,
        RouteType::Multicast => RouteKind::NotExpressible(Reason::Multicast),
        RouteType::Throw => RouteKind::NotExpressible(Reason::Throw),
        other => RouteKind::NotExpressible(Reason::Type(other.into())),
    };
    // Only a unicast route does what its object does: the type of another one comes first
    // (fib_table_lookup, ip6_rt_init_dst).
    let body = match (header.kind, object) {
        (_, None) => Body::Kind(kind.into()),
        (RouteType::Unicast, Some(id)) => Body::Object(id),
        (_, Some(id)) => Body::KindBesideObject(kind.into(), id),
    };
    let prefix = IpNet::new(destination, header.destination_prefix_length)
        .map_err(|_| Malformed("prefix length"))?
        .trunc();
    Ok(Some(RouteStatement {
        table,
        protocol: header.protocol.into(),
        prefix,
        metric,
        object_mtu: if object.is_some() { mtu } else { 0 },
        selector: Selector { tos: header.tos, source },
        body,
        ifindex,
        local: match header.kind {
            RouteType::Local => Some(LocalKind::Local),
            RouteType::Broadcast => Some(LocalKind::Broadcast),
            RouteType::Anycast => Some(LocalKind::Anycast),
            _ => None,
        },
        // An object tells of its own links.
        dead: dead && object.is_none(),
        preferred_source,
    }))
}

/// `RTAX_MTU` among the metrics of a route (`ip route add ... mtu 1400`), 0 if it is not there.
fn mtu_of(metrics: &[u8]) -> Result<u32, Malformed> {
    const RTAX_MTU: u16 = 2;

    for attribute in attributes(metrics, 0) {
        if let (RTAX_MTU, value) = attribute? {
            return u32_of(value);
        }
    }
    Ok(0)
}

/// The address of a next hop as a message gives it.
#[derive(Clone, Copy)]
enum Via {
    None,
    Ip(IpAddr),
    OtherFamily,
}

impl Via {
    /// From `struct rtvia`: a family and an address of its length.
    fn of(value: &[u8]) -> Result<Self, Malformed> {
        let (family, address) = value.split_first_chunk().ok_or(Malformed("RTA_VIA"))?;
        // The field is 16 bits wide, families are 8.
        Ok(match u8::try_from(u16::from_ne_bytes(*family)).map(AddressFamily::from) {
            Ok(AddressFamily::Inet | AddressFamily::Inet6) => Self::Ip(ip_of(address)?),
            _ => Self::OtherFamily,
        })
    }
}

fn one_hop(
    ifindex: Option<u32>,
    via: Via,
    encapsulates: bool,
    weight: u32,
) -> Result<NextHop, Reason> {
    if encapsulates {
        return Err(Reason::Encapsulation);
    }
    let via = match via {
        Via::None => None,
        Via::Ip(address) => Some(address),
        Via::OtherFamily => return Err(Reason::NextHopFamily),
    };
    let ifindex = ifindex.filter(|&ifindex| ifindex != 0).ok_or(Reason::NoInterface)?;
    Ok(NextHop { via, ifindex, weight, mtu: 0 })
}

/// The value of `RTA_MULTIPATH`: `struct rtnexthop` and its attributes, again and again.
fn next_hops(mut value: &[u8], with_dead: bool) -> Result<Result<Vec<NextHop>, Reason>, Malformed> {
    const HEADER_BYTES: usize = 8;
    const RTA_GATEWAY: u16 = 5;
    const RTA_VIA: u16 = 18;
    const RTA_ENCAP_TYPE: u16 = 21;
    const MALFORMED: Malformed = Malformed("RTA_MULTIPATH");

    let mut hops = Vec::new();
    while !value.is_empty() {
        RouteNextHopBuffer::new_checked(value).map_err(|_| MALFORMED)?;
        let (header, _) = value.split_first_chunk::<HEADER_BYTES>().ok_or(MALFORMED)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let flags = RouteNextHopFlags::from_bits_retain(header[2]);
        // rtnh_hops is the weight less one.
        let weight = u32::from(header[3]) + 1;
        let ifindex = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
        let (mut via, mut encapsulates) = (Via::None, false);
        for attribute in attributes(value.get(..length).ok_or(MALFORMED)?, HEADER_BYTES) {
            match attribute? {
                (RTA_GATEWAY, value) => via = Via::Ip(ip_of(value)?),
                (RTA_VIA, value) => via = Via::of(value)?,
                (RTA_ENCAP_TYPE, value) => encapsulates = value.iter().any(|&byte| byte != 0),
                _ => {}
            }
        }
        if with_dead || !flags.contains(RouteNextHopFlags::Dead) {
            match one_hop(Some(ifindex), via, encapsulates, weight) {
                Ok(hop) => hops.push(hop),
                Err(reason) => return Ok(Err(reason)),
            }
        }
        // Entries are aligned to four bytes, but for the end of the last.
        value = value.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(Ok(hops))
}

/// What a nexthop object is (`ip nexthop`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Nexthop {
    Hop(NextHop),
    Blackhole,
    /// Members and their weights.
    Group(Vec<(u32, u32)>),
    /// It is not for routes, or does something that cannot be expressed.
    NotExpressible(Reason),
    /// Its link is down.
    Dead,
}

/// `RTM_NEWNEXTHOP`, `RTM_DELNEXTHOP`, which `netlink-packet-route` does not know: `struct nhmsg`
/// and the attributes `NHA_*` of `linux/nexthop.h`.
pub(super) fn nexthop(message: &[u8]) -> Decoded<(u32, Nexthop)> {
    const NHA_ID: u16 = 1;
    const NHA_GROUP: u16 = 2;
    const NHA_BLACKHOLE: u16 = 4;
    const NHA_OIF: u16 = 5;
    const NHA_GATEWAY: u16 = 6;
    const NHA_ENCAP_TYPE: u16 = 7;
    const RTNH_F_DEAD: u32 = 1;

    let header =
        message.first_chunk::<NEXTHOP_HEADER_BYTES>().ok_or(Malformed("nexthop header"))?;
    let flags = u32::from_ne_bytes([header[4], header[5], header[6], header[7]]);
    let (mut id, mut group, mut blackhole) = (None, None, false);
    let (mut ifindex, mut via, mut encapsulates) = (None, Via::None, false);
    for attribute in attributes(message, NEXTHOP_HEADER_BYTES) {
        match attribute? {
            (NHA_ID, value) => id = Some(u32_of(value)?),
            (NHA_GROUP, value) => group = Some(members(value)),
            (NHA_BLACKHOLE, _) => blackhole = true,
            (NHA_OIF, value) => ifindex = Some(u32_of(value)?),
            (NHA_GATEWAY, value) => via = Via::Ip(ip_of(value)?),
            (NHA_ENCAP_TYPE, value) => encapsulates = value.iter().any(|&byte| byte != 0),
            _ => {}
        }
    }
    let id = id.ok_or(Malformed("nexthop without an id"))?;
    let nexthop = match group {
        Some(group) => Nexthop::Group(group),
        None if blackhole => Nexthop::Blackhole,
        None if flags & RTNH_F_DEAD != 0 => Nexthop::Dead,
        None => one_hop(ifindex, via, encapsulates, 1)
            .map_or_else(Nexthop::NotExpressible, Nexthop::Hop),
    };
    Ok(Some((id, nexthop)))
}

/// `struct nexthop_grp`: id, weight less one in 8 bits, its upper 8 bits (since Linux 6.12, before
/// that zero), reserved.
fn members(value: &[u8]) -> Vec<(u32, u32)> {
    value
        .chunks_exact(8)
        .map(|entry| {
            let id = u32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]);
            (id, (u32::from(entry[5]) << 8) | u32::from(entry[4]))
        })
        .map(|(id, weight)| (id, weight + 1))
        .collect()
}

/// `RTM_NEWNEIGH`, `RTM_DELNEIGH`. Bridge entries, proxied addresses and groups are no neighbors.
pub(super) fn neighbor(message: &[u8]) -> Decoded<(u32, IpAddr, Neighbor)> {
    const NDA_DST: u16 = 1;
    const NDA_LLADDR: u16 = 2;
    const NDA_FLAGS_EXT: u16 = 15;

    let header = NeighbourHeader::parse(message).map_err(|_| Malformed("neighbor header"))?;
    if !matches!(header.family, AddressFamily::Inet | AddressFamily::Inet6)
        || header.flags.contains(NeighbourFlags::Proxy)
    {
        return Ok(None);
    }
    let (mut address, mut mac, mut managed) = (None, None, false);
    for attribute in attributes(message, NEIGHBOR_HEADER_BYTES) {
        match attribute? {
            (NDA_DST, value) => address = Some(ip_of(value)?),
            (NDA_LLADDR, value) => mac = mac_of(value),
            (NDA_FLAGS_EXT, value) => {
                managed = NeighbourExtFlags::from_bits_retain(u32_of(value)?)
                    .contains(NeighbourExtFlags::Managed);
            }
            _ => {}
        }
    }
    let address = address.ok_or(Malformed("neighbor without an address"))?;
    if address.is_multicast() {
        return Ok(None);
    }
    let state = neighbor_state(header.state.into());
    Ok(Some((header.ifindex, address, Neighbor { mac, state, managed })))
}

fn neighbor_state(bits: u16) -> NeighborState {
    match bits {
        0x01 => NeighborState::Incomplete,
        0x02 => NeighborState::Reachable,
        0x04 => NeighborState::Stale,
        0x08 => NeighborState::Delay,
        0x10 => NeighborState::Probe,
        0x20 => NeighborState::Failed,
        0x40 => NeighborState::NoArp,
        0x80 => NeighborState::Permanent,
        _ => NeighborState::None,
    }
}
