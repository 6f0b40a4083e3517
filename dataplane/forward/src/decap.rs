//! Owner tunnels that end here, of every kind that this node has: see `encap.rs` for what they look like.
//!
//! ```text
//!  | Ethernet | outer IP | UDP, GRE or nothing | inner IP ...
//!                                              ^ l3_offset afterwards
//! ```
//!
//! Nothing is moved: the descriptor then speaks of the inner packet, and the bytes in front of it
//! are cut when the frame is rewritten. Accepted is only what comes from the address of a far end, in the
//! encapsulation that is configured for it. A GRE sequence number is accepted and not used: RFC 2890
//! section 2.2 wants packets out of sequence dropped, but several workers receive a tunnel's packets at
//! once, so that the order in which they are seen says nothing.
//!
//! ICMP errors about tunnel packets are in `tunnel_errors.rs`.

use frame::{Batch, Descriptor, DropReason, Frame, Verdict};
use sluice_abi::flags;
use tables::{Encapsulation, Gre, PeerId, Snapshot, TunnelKinds};
use wire::{GreRepr, IpVersion, checksum, ecn, ethernet, flow, gue, ipv4, ipv6, protocol, udp};

use crate::address::ip;
use crate::counters::WorkerCounters;
use crate::path::Path;
use crate::{parse, tunnel_errors};

/// Opens every tunnel packet of the batch that is addressed to this node, and takes what the network
/// reports about those that it sent. Returns the flags that any of the packets in them has. Counts them,
/// unless they come a second time, for which `counters` is `None`.
#[inline]
pub(crate) fn run(
    batch: &mut Batch,
    paths: &mut [Path],
    snapshot: &Snapshot,
    counters: Option<&WorkerCounters>,
) -> u8 {
    let mut seen = 0;
    let kinds = snapshot.tunnel_kinds;
    let Batch { frames, descriptors, verdicts, .. } = batch;
    for (((frame, descriptor), verdict), path) in
        frames.iter_mut().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths)
    {
        let is_error = descriptor.flags & flags::ICMP_ERROR != 0;
        if !is_error && !is_tunnel_packet(descriptor, kinds)
            || !verdict.is_open()
            || !is_for_us(descriptor, snapshot)
        {
            continue;
        }
        if is_error {
            if let Some(taken) = tunnel_errors::take(frame, descriptor, path, snapshot) {
                *verdict = taken;
            }
            continue;
        }
        match open(frame, descriptor, snapshot) {
            Ok(peer) => {
                path.decapsulated = Some(peer);
                seen |= descriptor.flags;
                let interface =
                    counters.and_then(|all| all.interfaces.get(frame.ingress().index()));
                if let Some(interface) = interface {
                    interface.decapsulated.add(1);
                }
            }
            Err(reason) => *verdict = Verdict::Drop(reason),
        }
    }
    seen
}

#[inline]
fn is_tunnel_packet(descriptor: &Descriptor, kinds: TunnelKinds) -> bool {
    kinds.include(descriptor.protocol, descriptor.destination_port)
}

#[inline]
fn is_for_us(descriptor: &Descriptor, snapshot: &Snapshot) -> bool {
    snapshot.locals.contains(&ip(&descriptor.destination))
}

fn open(
    frame: &mut Frame,
    descriptor: &mut Descriptor,
    snapshot: &Snapshot,
) -> Result<PeerId, DropReason> {
    // Our own tunnels are never fragmented: the outer packet has DF, or is IPv6.
    if descriptor.flags & flags::FRAGMENT != 0 {
        return Err(DropReason::TunnelMalformed);
    }
    let (id, peer) = snapshot
        .peer_at(ip(&descriptor.source))
        .and_then(|id| Some((id, snapshot.peer(id)?)))
        .ok_or(DropReason::TunnelUnknownPeer)?;
    let outer = *descriptor;
    let outer_end = usize::from(outer.l3_offset) + usize::from(outer.length);
    // What lies behind the outer packet's end is padding, and no part of the inner packet.
    if !frame.set_len(outer_end.min(frame.len())) {
        return Err(DropReason::TunnelMalformed);
    }
    let start = usize::from(outer.l4_offset);
    let payload = frame.bytes().get(start..).ok_or(DropReason::TunnelMalformed)?;
    let (inner, header_len) = match (&peer.encapsulation, outer.protocol) {
        (Encapsulation::Gue { .. }, protocol::UDP) => open_gue(payload, &outer)?,
        (Encapsulation::Gre(gre), protocol::GRE) => open_gre(payload, gre)?,
        // RFC 2003 section 3.1, RFC 4213 section 3.5 and RFC 2473 section 3.3: the protocol says it all.
        (Encapsulation::Ipip, protocol::IPIP) => (IpVersion::V4, 0),
        (Encapsulation::Ipip, protocol::IPV6) => (IpVersion::V6, 0),
        _ => return Err(DropReason::TunnelKind),
    };
    let parse = match inner {
        IpVersion::V4 => parse::packet_v4,
        IpVersion::V6 => parse::packet_v6,
    };
    parse(frame.bytes(), start + header_len, flags::DECAPSULATED, snapshot.rules, descriptor)?;
    if is_tunnel_packet(descriptor, snapshot.tunnel_kinds) && is_for_us(descriptor, snapshot) {
        return Err(DropReason::TunnelNested);
    }
    let traffic_class = ecn::decapsulate(descriptor.traffic_class, outer.traffic_class)
        .map_err(|_| DropReason::TunnelEcn)?;
    if traffic_class != descriptor.traffic_class {
        set_traffic_class(frame, descriptor, traffic_class);
    }
    Ok(id)
}

/// The version of the packet in a UDP segment, and where it begins.
fn open_gue(segment: &[u8], outer: &Descriptor) -> Result<(IpVersion, usize), DropReason> {
    check_udp(segment, outer)?;
    let version = segment.get(udp::HEADER_LEN..).and_then(gue::inner_protocol);
    Ok((version.ok_or(DropReason::TunnelMalformed)?, udp::HEADER_LEN))
}

/// The version of the packet behind a GRE header, and where it begins. RFC 2890 section 2.1 leaves to the
/// receiver what a key means: here it is a property of the tunnel, so that a packet with another key,
/// without the key or with one that is not wanted belongs to no tunnel of ours.
fn open_gre(packet: &[u8], gre: &Gre) -> Result<(IpVersion, usize), DropReason> {
    let header = GreRepr::parse(packet).map_err(|_| DropReason::TunnelMalformed)?;
    if header.key != gre.key {
        return Err(DropReason::TunnelKey);
    }
    let version = gre_payload(&header).ok_or(DropReason::TunnelMalformed)?;
    Ok((version, header.header_len()))
}

/// The version of the packet that a GRE header announces.
pub(crate) fn gre_payload(header: &GreRepr) -> Option<IpVersion> {
    match header.protocol {
        ethernet::ETHERTYPE_IPV4 => Some(IpVersion::V4),
        ethernet::ETHERTYPE_IPV6 => Some(IpVersion::V6),
        _ => None,
    }
}

/// RFC 768: a checksum of zero means that there is none (over IPv6 RFC 6935 allows that for
/// tunnels); any other must be right. The UDP length must agree with the packet.
fn check_udp(segment: &[u8], outer: &Descriptor) -> Result<(), DropReason> {
    let header = segment.first_chunk::<{ udp::HEADER_LEN }>().ok_or(DropReason::TunnelMalformed)?;
    let [_, _, _, _, l0, l1, c0, c1] = *header;
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length < udp::HEADER_LEN || length != segment.len() {
        return Err(DropReason::TunnelMalformed);
    }
    if (c0, c1) == (0, 0) {
        return Ok(());
    }
    let len = u16::from_be_bytes([l0, l1]);
    let pseudo_header = match (flow::as_ipv4(&outer.source), flow::as_ipv4(&outer.destination)) {
        (Some(source), Some(destination)) => {
            checksum::pseudo_header_v4(source, destination, protocol::UDP, len)
        }
        _ => checksum::pseudo_header_v6(
            &outer.source,
            &outer.destination,
            protocol::UDP,
            u32::from(len),
        ),
    };
    // Over a segment that holds its right checksum, the sum comes out as all ones.
    let sum = checksum::fold(checksum::ones_complement_sum(segment, pseudo_header));
    if sum == 0xffff { Ok(()) } else { Err(DropReason::TunnelMalformed) }
}

fn set_traffic_class(frame: &mut Frame, descriptor: &mut Descriptor, traffic_class: u8) {
    let l3 = usize::from(descriptor.l3_offset);
    let Some(packet) = frame.bytes_mut().get_mut(l3..) else { return };
    if descriptor.flags & flags::IPV6 != 0 {
        if let Some(header) = packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>() {
            ecn::set_traffic_class_v6(header, traffic_class);
        }
    } else if let Some(header) = packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>() {
        ecn::set_traffic_class_v4(header, traffic_class);
    }
    descriptor.traffic_class = traffic_class;
}
