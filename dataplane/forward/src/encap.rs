//! Owner tunnels that begin here: outer headers in front of a packet.
//!
//! ```text
//!  gue   | IPv4 or IPv6 | UDP, source port = flow | packet     draft-ietf-intarea-gue section 4
//!  gre   | IPv4 or IPv6 | GRE                     | packet     RFC 2784, RFC 2890, RFC 7676
//!  ipip  | IPv4 or IPv6 | packet                               RFC 2003, RFC 4213, RFC 2473
//! ```
//!
//! The outer packet is never fragmented: it has DF over IPv4, whatever the packet has (RFC 2003 section
//! 3.1 allows that, and asks for it when the packet has DF), and no fragment header over IPv6. What does
//! not fit was refused before. Over IPv4 only GUE tells flows apart, by its source port.

use core::net::IpAddr;

use frame::{Descriptor, DropReason, Frame};
use sluice_abi::flags;
use tables::{Encapsulation, Gre, OUTER_TTL, Peer};
use wire::{GreRepr, IpVersion, ecn, ethernet, ipv4, ipv6, udp};

/// Ports from which tunnel packets are sent, RFC 6335's dynamic range: 14 bits of entropy.
const ENTROPY_PORT_FIRST: u16 = 49_152;
const ENTROPY_PORT_MASK: u32 = 0x3fff;

/// Puts the outer headers in front of the packet, in place of what stood there, and room for the link's
/// header in front of them, which it returns.
#[inline]
pub(crate) fn encapsulate<'a>(
    frame: &'a mut Frame,
    descriptor: &Descriptor,
    peer: &Peer,
) -> Result<&'a mut [u8; ethernet::HEADER_LEN], DropReason> {
    let (l3_offset, length) = (usize::from(descriptor.l3_offset), usize::from(descriptor.length));
    if l3_offset + length > frame.len() {
        return Err(DropReason::FrameTruncated);
    }
    let headers_len = ethernet::HEADER_LEN + usize::from(peer.overhead());
    // What lies behind the packet's end is link-layer padding, which must not become payload.
    let frame =
        frame.replace_front(l3_offset, length, headers_len).ok_or(DropReason::HeadroomExhausted)?;
    let (link_layer, packet) =
        frame.split_first_chunk_mut().ok_or(DropReason::HeadroomExhausted)?;
    emit(packet, descriptor, peer)?;
    Ok(link_layer)
}

/// Writes the outer headers to the front of `packet`.
#[inline]
fn emit(packet: &mut [u8], descriptor: &Descriptor, peer: &Peer) -> Result<(), DropReason> {
    let payload_len = descriptor.length.saturating_add(peer.encapsulation.header_len());
    let mut traffic_class = ecn::encapsulate(descriptor.traffic_class);
    if !peer.copies_dscp {
        traffic_class &= ecn::MASK;
    }
    let source_port = ENTROPY_PORT_FIRST | (descriptor.hash & ENTROPY_PORT_MASK) as u16;
    if let Some(outer) = &peer.outer {
        let headers = packet.first_chunk_mut().ok_or(DropReason::HeadroomExhausted)?;
        outer.emit(headers, traffic_class, payload_len, source_port);
        return Ok(());
    }
    emit_other(packet, descriptor, peer, (traffic_class, payload_len, source_port))
}

/// The same, field by field.
#[inline(never)]
fn emit_other(
    packet: &mut [u8],
    descriptor: &Descriptor,
    peer: &Peer,
    (traffic_class, payload_len, source_port): (u8, u16, u16),
) -> Result<(), DropReason> {
    let inner = match descriptor.flags & flags::IPV6 {
        0 => IpVersion::V4,
        _ => IpVersion::V6,
    };
    let protocol = peer.encapsulation.protocol(inner);
    let payload = match (peer.local, peer.remote) {
        (IpAddr::V4(local), IpAddr::V4(remote)) => {
            let (outer, payload) =
                packet.split_first_chunk_mut().ok_or(DropReason::HeadroomExhausted)?;
            ipv4::Ipv4Repr {
                source: local.octets(),
                destination: remote.octets(),
                protocol,
                ttl: OUTER_TTL,
                traffic_class,
                dont_fragment: true,
                // RFC 6864 section 4.1: an atomic packet's identification means nothing.
                identification: 0,
                payload_len,
            }
            .emit(outer);
            payload
        }
        (IpAddr::V6(local), IpAddr::V6(remote)) => {
            let (outer, payload) =
                packet.split_first_chunk_mut().ok_or(DropReason::HeadroomExhausted)?;
            ipv6::Ipv6Repr {
                source: local.octets(),
                destination: remote.octets(),
                next_header: protocol,
                hop_limit: OUTER_TTL,
                traffic_class,
                // RFC 6438 section 3: the flow label tells the flows of a tunnel apart.
                flow_label: descriptor.hash & 0x000f_ffff,
                payload_len,
            }
            .emit(outer);
            payload
        }
        _ => return Err(DropReason::NoRoute),
    };
    match &peer.encapsulation {
        Encapsulation::Gue { port } => {
            let header = payload.first_chunk_mut().ok_or(DropReason::HeadroomExhausted)?;
            // RFC 6935: zero checksum, for a tunnel whose inner packets carry their own.
            udp::emit_header(header, source_port, *port, payload_len, 0);
        }
        Encapsulation::Gre(gre) => emit_gre(gre, inner, payload)?,
        Encapsulation::Ipip => {}
    }
    Ok(())
}

fn emit_gre(gre: &Gre, inner: IpVersion, packet: &mut [u8]) -> Result<(), DropReason> {
    let repr = GreRepr {
        // RFC 2784 section 4 and RFC 7676 section 3.
        protocol: match inner {
            IpVersion::V4 => ethernet::ETHERTYPE_IPV4,
            IpVersion::V6 => ethernet::ETHERTYPE_IPV6,
        },
        checksum: gre.checksum,
        key: gre.key,
        sequence: gre.sequence.as_ref().map(tables::Sequence::take),
    };
    if repr.emit(packet) { Ok(()) } else { Err(DropReason::HeadroomExhausted) }
}
