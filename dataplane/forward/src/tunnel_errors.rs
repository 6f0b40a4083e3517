//! ICMP errors about tunnel packets that this node sent: relayed to whoever sent the packet inside, which
//! knows nothing of the tunnel (RFC 2003 section 4, RFC 2473 section 8).
//!
//! ```text
//!  | outer IP | ICMP | quoted: outer IP | UDP, GRE or nothing | inner IP ...
//!                                                             ^ what the relayed error is about
//! ```
//!
//! | in the tunnel             | the sender learns                                       |
//! |---------------------------|---------------------------------------------------------|
//! | too big                   | too big, MTU less the tunnel's overhead                 |
//! | unreachable, TTL exceeded | host unreachable (3/1), address unreachable (1/3)       |
//! | anything else             | nothing: only this node can do something about it       |
//!
//! Nothing is remembered: no flow, and no path MTU of a tunnel either. RFC 2003 section 5 describes such
//! soft state for encapsulators that fragment, or whose errors quote too little; here every sender gets its
//! own error, and one forged error cannot narrow the tunnel for all others. What it costs: an error from a
//! router that quotes no more than 8 bytes behind its IP header (RFC 792's least) reaches nobody, and is
//! counted.
//!
//! An error is believed if it quotes what could have left here: from the address that it came to, to the
//! far end of a tunnel, in that tunnel's encapsulation, with a packet to an egress address inside.

use core::net::IpAddr;

use frame::{Descriptor, DropReason, Frame, Verdict};
use sluice_abi::flags;
use tables::{Encapsulation, Peer, Snapshot};
use wire::{EmbeddedError, GreRepr, IpVersion, Quoted, checksum, gue, icmp, icmpv6, protocol, udp};

use crate::address::{ip, v4_bits, v6_bits};
use crate::decap::gre_payload;
use crate::parse;
use crate::path::Path;

/// RFC 791 section 3.2: "Every internet module must be able to forward a datagram of 68 octets".
const MTU_MIN_V4: u16 = 68;
/// RFC 8200 section 5.
const MTU_MIN_V6: u16 = 1280;
/// What is quoted of a transport header at the least for the sender to find its flow: RFC 792's 64 bits.
const TRANSPORT_LEN_MIN: usize = 8;

/// What happened to a packet in the tunnel.
#[derive(Clone, Copy)]
enum Event {
    /// Larger than this MTU, in bytes of the outer packet; 0 if the router did not say (RFC 1191 section
    /// 4).
    TooBig(u16),
    /// It did not arrive.
    Lost,
    /// Nothing that its sender could act on.
    Other,
}

/// Takes an ICMP error that is addressed to this node, if it is about a tunnel packet; `None` leaves it to
/// the kernel. When it is to be relayed, the descriptor then speaks of the quoted inner packet, and the
/// path of what to say about it.
#[cold]
pub(crate) fn take(
    frame: &Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Option<Verdict> {
    let is_v6 = descriptor.flags & flags::IPV6 != 0;
    let end = usize::from(descriptor.l3_offset) + usize::from(descriptor.length);
    let message = frame.bytes().get(usize::from(descriptor.l4_offset)..end)?;
    let (quotation, version) = if is_v6 {
        (icmpv6::embedded(message)?, IpVersion::V6)
    } else {
        (icmp::embedded(message)?, IpVersion::V4)
    };
    let outer = quoted(quotation, version).ok()?;
    let peer = snapshot.peer(snapshot.peer_at(ip(&outer.destination))?)?;
    if outer.source != descriptor.destination || !is_of_tunnel(&outer, peer) {
        return None;
    }
    let event = match *message {
        [kind, code, ..] if is_v6 => event_v6(kind, code, message, peer)?,
        [kind, code, ..] => event_v4(kind, code, message, peer)?,
        _ => return None,
    };
    // Of an error in fragments, only the first one quotes anything; its checksum is over all of them, which
    // nobody puts together here. A forger would have made it right.
    let is_whole = descriptor.flags & flags::FRAGMENT == 0;
    if is_whole && !has_right_checksum(message, descriptor) {
        return Some(Verdict::Drop(DropReason::TunnelIcmp));
    }
    let told = match relay(quotation, &outer, peer, event, snapshot) {
        Ok(Some(told)) => told,
        Ok(None) => return Some(Verdict::Consumed),
        Err(Unusable) => return Some(Verdict::Drop(DropReason::TunnelIcmp)),
    };
    let offset = usize::from(descriptor.l4_offset) + icmp::HEADER_LEN + told.offset;
    let Relayed { inner, is_v6, len, reason, mtu, .. } = told;
    (path.told, path.mtu) = (Some(reason), mtu);
    descriptor.source = inner.source;
    descriptor.destination = inner.destination;
    descriptor.protocol = inner.protocol;
    descriptor.flags = if is_v6 { flags::IPV6 } else { 0 };
    if inner.is_icmp_error() {
        descriptor.flags |= flags::ICMP_ERROR;
    }
    if inner.is_later_fragment {
        descriptor.flags |= flags::LATER_FRAGMENT;
    }
    // Both lie within a chunk.
    descriptor.l3_offset = u16::try_from(offset).unwrap_or(u16::MAX);
    descriptor.length = u16::try_from(len).unwrap_or(0);
    Some(Verdict::Consumed)
}

/// What is to be told to the sender of a packet.
struct Relayed<'a> {
    inner: Quoted<'a>,
    is_v6: bool,
    /// Where the packet begins in the quotation, and how much of it is there, in bytes.
    offset: usize,
    len: usize,
    /// The drop that the same error stands for when it happens here.
    reason: DropReason,
    mtu: u16,
}

/// An error that says too little, or that cannot be true.
struct Unusable;

fn relay<'a>(
    quotation: &'a [u8],
    outer: &Quoted<'a>,
    peer: &Peer,
    event: Event,
    snapshot: &Snapshot,
) -> Result<Option<Relayed<'a>>, Unusable> {
    if matches!(event, Event::Other) {
        return Ok(None);
    }
    let (version, header_len) = behind_header(outer, peer)?;
    let offset = outer.transport_offset + header_len;
    // What follows the outer packet in the quotation is no part of it.
    let quotation = quotation.get(..outer.length).unwrap_or(quotation);
    let bytes = quotation.get(offset..).ok_or(Unusable)?;
    let inner = quoted(bytes, version).map_err(|_| Unusable)?;
    let bytes = bytes.get(..inner.length).unwrap_or(bytes);
    let is_whole = bytes.len() == inner.length;
    if !is_whole && inner.transport.len() < TRANSPORT_LEN_MIN || !may_have_left(&inner, snapshot) {
        return Err(Unusable);
    }
    let is_v6 = version == IpVersion::V6;
    let (reason, mtu) = match event {
        Event::Lost => (DropReason::NeighborFailed, 0),
        Event::TooBig(reported) => {
            let Some(mtu) = told_mtu(reported, outer, &inner, is_v6, peer)? else {
                return Ok(None);
            };
            (DropReason::MtuExceeded, mtu)
        }
        Event::Other => return Ok(None),
    };
    Ok(Some(Relayed { inner, is_v6, offset, len: bytes.len(), reason, mtu }))
}

/// The MTU to tell the sender: that of the tunnel's ICMP message less the length of the tunnel's headers (RFC
/// 2473 sections 8.2 and 8.3); `None` if it is not to be told.
fn told_mtu(
    reported: u16,
    outer: &Quoted<'_>,
    inner: &Quoted<'_>,
    is_v6: bool,
    peer: &Peer,
) -> Result<Option<u16>, Unusable> {
    // An MTU that the packet would have passed is no reason to drop it.
    if usize::from(reported) >= outer.length {
        return Err(Unusable);
    }
    // RFC 2473 section 8.2: an IPv6 sender is told only about packets that are larger than the minimum
    // MTU; section 8.3: an IPv4 sender only about packets with DF. Over IPv4, RFC 2003 section 4.1 has the
    // error relayed in any case: "The encapsulator MUST relay ICMP Datagram Too Big messages".
    let is_told = if is_v6 {
        inner.length > usize::from(MTU_MIN_V6)
    } else {
        inner.dont_fragment || peer.remote.is_ipv4()
    };
    let least = if is_v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
    let mtu = match reported {
        // The sender has to guess then, as this node would have to (RFC 1191 section 5).
        0 if !is_v6 => 0,
        reported => reported.saturating_sub(peer.overhead()).max(least),
    };
    Ok(is_told.then_some(mtu))
}

fn quoted(bytes: &[u8], version: IpVersion) -> Result<Quoted<'_>, EmbeddedError> {
    match version {
        IpVersion::V4 => Quoted::parse_v4(bytes),
        IpVersion::V6 => Quoted::parse_v6(bytes),
    }
}

/// Whether the quoted packet is one of the tunnel to `peer`, as far as its IP and UDP headers tell.
fn is_of_tunnel(outer: &Quoted<'_>, peer: &Peer) -> bool {
    !outer.is_later_fragment
        && match (&peer.encapsulation, outer.protocol) {
            (Encapsulation::Gue { port }, protocol::UDP) => {
                udp::ports(outer.transport).is_some_and(|(_, to)| to == *port)
            }
            (Encapsulation::Gre(_), protocol::GRE)
            | (Encapsulation::Ipip, protocol::IPIP | protocol::IPV6) => true,
            _ => false,
        }
}

/// The version of the packet in the tunnel packet, and the length of what stands in front of it.
fn behind_header(outer: &Quoted<'_>, peer: &Peer) -> Result<(IpVersion, usize), Unusable> {
    match &peer.encapsulation {
        Encapsulation::Gue { .. } => {
            let version = outer.transport.get(udp::HEADER_LEN..).and_then(gue::inner_protocol);
            Ok((version.ok_or(Unusable)?, udp::HEADER_LEN))
        }
        // The checksum covers what is not quoted.
        Encapsulation::Gre(gre) => match GreRepr::parse_header(outer.transport) {
            Ok(header) if header.key == gre.key => {
                Ok((gre_payload(&header).ok_or(Unusable)?, header.header_len()))
            }
            _ => Err(Unusable),
        },
        Encapsulation::Ipip if outer.protocol == protocol::IPV6 => Ok((IpVersion::V6, 0)),
        Encapsulation::Ipip => Ok((IpVersion::V4, 0)),
    }
}

/// Whether a packet may have been put into a tunnel here: only those to egress addresses are.
fn may_have_left(inner: &Quoted<'_>, snapshot: &Snapshot) -> bool {
    let (source, destination) = (&inner.source, &inner.destination);
    match (ip(source), ip(destination)) {
        (IpAddr::V4(_), IpAddr::V4(_)) => {
            let (from, to) = (v4_bits(source), v4_bits(destination));
            parse::judge_v4(from, to, snapshot.rules).is_ok()
                && snapshot.slices.egress4(to).is_some()
        }
        (IpAddr::V6(_), IpAddr::V6(_)) => {
            parse::judge_v6(source, destination).is_ok()
                && snapshot.slices.egress6(v6_bits(destination)).is_some()
        }
        _ => false,
    }
}

/// RFC 2003 section 4, for an outer IPv4 header. `None`: the kernel's affair (redirects, section 4.3).
fn event_v4(kind: u8, code: u8, message: &[u8], peer: &Peer) -> Option<Event> {
    const PORT_UNREACHABLE: u8 = 3;
    const SOURCE_ROUTE_FAILED: u8 = 5;
    Some(match (kind, code) {
        (icmp::DESTINATION_UNREACHABLE, icmp::CODE_FRAGMENTATION_NEEDED) => {
            Event::TooBig(icmp::next_hop_mtu(message)?)
        }
        (icmp::DESTINATION_UNREACHABLE, PORT_UNREACHABLE) => port_unreachable(peer),
        // Section 4.1: "SHOULD be handled by the encapsulator itself. It MUST NOT be relayed".
        (icmp::DESTINATION_UNREACHABLE, SOURCE_ROUTE_FAILED) => Event::Other,
        // Section 4.1: code 0 may become code 1 where "the datagram arrived at the correct network", which
        // an egress address of this node is; and code 2 means nothing to a sender that used no tunnel.
        (icmp::DESTINATION_UNREACHABLE, _) => Event::Lost,
        // Section 4.4: "MUST be reported to the sender of the original unencapsulated datagram as Host
        // Unreachable (Type 3, Code 1)". Code 1 is about reassembly, which our packets never need.
        (icmp::TIME_EXCEEDED, icmp::CODE_TTL_EXCEEDED) => Event::Lost,
        // Sections 4.2 and 4.5: not relayed. Our outer header has no field that the sender chose, but DSCP.
        (icmp::TIME_EXCEEDED | icmp::SOURCE_QUENCH | icmp::PARAMETER_PROBLEM, _) => Event::Other,
        _ => return None,
    })
}

/// RFC 2473 section 8.1, for an outer IPv6 header.
fn event_v6(kind: u8, code: u8, message: &[u8], peer: &Peer) -> Option<Event> {
    const PORT_UNREACHABLE: u8 = 4;
    Some(match (kind, code) {
        (icmpv6::PACKET_TOO_BIG, _) => {
            Event::TooBig(u16::try_from(icmpv6::mtu(message)?).unwrap_or(u16::MAX))
        }
        (icmpv6::DESTINATION_UNREACHABLE, PORT_UNREACHABLE) => port_unreachable(peer),
        (icmpv6::DESTINATION_UNREACHABLE, _)
        | (icmpv6::TIME_EXCEEDED, icmpv6::CODE_HOP_LIMIT_EXCEEDED) => Event::Lost,
        // Of parameter problems only those about the encapsulation limit would be relayed, an option that
        // our packets do not have.
        (icmpv6::TIME_EXCEEDED | icmpv6::PARAMETER_PROBLEM, _) => Event::Other,
        _ => return None,
    })
}

/// RFC 2003 section 4.1: without ports in the outer header it "should never be received" and "MUST NOT be
/// relayed". In GUE it says that the far end does not listen, as code 2 does for the other kinds.
fn port_unreachable(peer: &Peer) -> Event {
    match peer.encapsulation {
        Encapsulation::Gue { .. } => Event::Lost,
        Encapsulation::Gre(_) | Encapsulation::Ipip => Event::Other,
    }
}

/// RFC 792, and RFC 4443 section 2.3 with a pseudo header.
fn has_right_checksum(message: &[u8], descriptor: &Descriptor) -> bool {
    let pseudo_header = if descriptor.flags & flags::IPV6 == 0 {
        0
    } else {
        let len = u32::try_from(message.len()).unwrap_or(u32::MAX);
        checksum::pseudo_header_v6(
            &descriptor.source,
            &descriptor.destination,
            protocol::ICMPV6,
            len,
        )
    };
    checksum::fold(checksum::ones_complement_sum(message, pseudo_header)) == 0xffff
}
