//! Tunnels that end here: GUE variant 1 (draft-ietf-intarea-gue section 4), an IP packet directly
//! behind a UDP header.
//!
//! ```text
//!  | Ethernet | outer IP | UDP, port 6080 | inner IP ...
//!                                         ^ l3_offset afterwards
//! ```
//!
//! Nothing is moved: the descriptor then speaks of the inner packet, and the bytes in front of it
//! are cut when the frame is rewritten.

use frame::{Batch, Descriptor, DropReason, Frame, Verdict};
use sluice_abi::flags;
use tables::{PeerId, Snapshot};
use wire::{IpVersion, checksum, ecn, flow, gue, ipv4, ipv6, protocol, udp};

use crate::address::ip;
use crate::counters::WorkerCounters;
use crate::parse;
use crate::path::Path;

/// Opens every tunnel packet of the batch that is addressed to this node. Returns the flags that any of
/// the packets in them has. Counts them, unless they come a second time, for which `counters` is `None`.
#[inline]
pub(crate) fn run(
    batch: &mut Batch,
    paths: &mut [Path],
    snapshot: &Snapshot,
    counters: Option<&WorkerCounters>,
) -> u8 {
    let mut seen = 0;
    let Batch { frames, descriptors, verdicts } = batch;
    for (((frame, descriptor), verdict), path) in
        frames.iter_mut().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths)
    {
        if descriptor.destination_port != snapshot.tunnel_port
            || descriptor.protocol != protocol::UDP
            || !verdict.is_open()
            || !is_for_us(descriptor, snapshot)
        {
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
fn is_for_us(descriptor: &Descriptor, snapshot: &Snapshot) -> bool {
    descriptor.flags & flags::LATER_FRAGMENT == 0
        && snapshot.locals.contains(&ip(&descriptor.destination))
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
    let peer = snapshot.peer_at(ip(&descriptor.source)).ok_or(DropReason::TunnelUnknownPeer)?;
    let outer = *descriptor;
    let outer_end = usize::from(outer.l3_offset) + usize::from(outer.length);
    let inner_offset = usize::from(outer.l4_offset) + udp::HEADER_LEN;
    // What lies behind the outer packet's end is padding, and no part of the inner packet.
    if !frame.set_len(outer_end.min(frame.len())) {
        return Err(DropReason::TunnelMalformed);
    }
    check_udp(frame.bytes(), &outer)?;
    match frame.bytes().get(inner_offset..).and_then(gue::inner_protocol) {
        Some(IpVersion::V4) => {
            parse::packet_v4(frame.bytes(), inner_offset, flags::DECAPSULATED, descriptor)?;
        }
        Some(IpVersion::V6) => {
            parse::packet_v6(frame.bytes(), inner_offset, flags::DECAPSULATED, descriptor)?;
        }
        None => return Err(DropReason::TunnelMalformed),
    }
    if descriptor.destination_port == snapshot.tunnel_port
        && descriptor.protocol == protocol::UDP
        && is_for_us(descriptor, snapshot)
    {
        return Err(DropReason::TunnelNested);
    }
    let traffic_class = ecn::decapsulate(descriptor.traffic_class, outer.traffic_class)
        .map_err(|_| DropReason::TunnelEcn)?;
    if traffic_class != descriptor.traffic_class {
        set_traffic_class(frame, descriptor, traffic_class);
    }
    Ok(peer)
}

/// RFC 768: a checksum of zero means that there is none (over IPv6 RFC 6935 allows that for
/// tunnels); any other must be right. The UDP length must agree with the packet.
fn check_udp(bytes: &[u8], outer: &Descriptor) -> Result<(), DropReason> {
    let start = usize::from(outer.l4_offset);
    let segment = bytes.get(start..).ok_or(DropReason::TunnelMalformed)?;
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
