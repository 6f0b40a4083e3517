//! What leaves: TTL, MSS, encapsulation (in `encap.rs`) and the link-layer header.
//!
//! ```text
//!  received          | Ethernet | (outer headers |) packet
//!  cut                                              ^ l3_offset
//!  leaves   | Ethernet | (outer headers |)          packet
//! ```
//!
//! Each forwarding step, before an encapsulation or after a decapsulation, decrements the TTL once
//! (RFC 2003 section 3.1). What is handed to the kernel keeps its own.

use frame::{Batch, Descriptor, DropReason, Frame, Verdict};
use sluice_abi::flags;
use tables::{Adjacency, AdjacencyState, Peer, Snapshot};
use wire::{InterfaceId, checksum, ethernet, ipv4, ipv6, tcp};

use crate::encap::encapsulate;
use crate::path::{Next, Path};
use crate::resolve::is_up;
use crate::sources;

/// What every host takes: RFC 791 section 3.1 (576 bytes), and RFC 8200 section 5.
const MTU_MIN_V4: u16 = 576;
const MTU_MIN_V6: u16 = 1280;

/// Rewrites every frame that is still open, and turns what the look-up decided into its verdict.
#[inline]
pub(crate) fn run(batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
    let Batch { frames, descriptors, verdicts, .. } = batch;
    for (((frame, descriptor), verdict), path) in
        frames.iter_mut().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths)
    {
        if !verdict.is_open() {
            continue;
        }
        *verdict = match path.next {
            Next::Send(id) => match snapshot.adjacency(id) {
                Some(adjacency) => forward(frame, descriptor, path, adjacency, snapshot),
                None => Verdict::Drop(DropReason::NoRoute),
            },
            Next::Punt => punt(frame, descriptor, snapshot),
            Next::Await(_) | Next::Seek(_) => wait(frame, descriptor, path, snapshot),
        };
    }
}

/// What becomes of a packet whose next hop is not resolved, or is on a link that is down. A packet that
/// could not go on anyhow is dropped at once, and nobody is asked for the sake of it: RFC 1812 section
/// 5.2.1.2 decrements the TTL before the next hop's link-layer address is looked for.
#[cold]
fn wait(frame: &Frame, descriptor: &Descriptor, path: &mut Path, snapshot: &Snapshot) -> Verdict {
    let (mtu, state, interface) = match path.next {
        Next::Await(id) => match snapshot.adjacency(id) {
            Some(adjacency) => (adjacency.mtu, adjacency.state, adjacency.interface),
            None => return Verdict::Drop(DropReason::NoRoute),
        },
        Next::Seek(interface) => {
            let mtu = snapshot.interface(interface).map_or(0, |interface| interface.mtu);
            (mtu, AdjacencyState::Unresolved, interface)
        }
        Next::Send(_) | Next::Punt => return Verdict::Hold,
    };
    if descriptor.ttl <= 1 && !path.originated {
        return Verdict::Drop(DropReason::TtlExceeded);
    }
    let mtu = path.limited(mtu).saturating_sub(overhead(path, snapshot));
    if descriptor.length > mtu && !may_fragment(frame, descriptor) {
        path.mtu = mtu;
        return Verdict::Drop(DropReason::MtuExceeded);
    }
    // What is held ends by the state of the link, so that nothing may be held again for a link that is down.
    match state {
        _ if !is_up(interface, snapshot) => Verdict::Drop(DropReason::LinkDown),
        AdjacencyState::LinkDown => Verdict::Drop(DropReason::LinkDown),
        AdjacencyState::Failed => Verdict::Drop(DropReason::NeighborFailed),
        AdjacencyState::Resolved | AdjacencyState::Unresolved => Verdict::Hold,
    }
}

/// Bytes that the tunnel puts in front of the packet that goes into one.
#[inline]
fn overhead(path: &Path, snapshot: &Snapshot) -> u16 {
    path.encapsulate.and_then(|peer| snapshot.peer(peer)).map_or(0, Peer::overhead)
}

#[inline]
fn forward(
    frame: &mut Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    adjacency: &Adjacency,
    snapshot: &Snapshot,
) -> Verdict {
    let peer = path.encapsulate.and_then(|peer| snapshot.peer(peer));
    // RFC 1812 section 5.3.1: the TTL is tested when a packet is forwarded, and only then.
    if descriptor.ttl <= 1 && !path.originated {
        return Verdict::Drop(DropReason::TtlExceeded);
    }
    let mtu = path.limited(adjacency.mtu).saturating_sub(peer.map_or(0, Peer::overhead));
    if descriptor.length > mtu {
        path.mtu = mtu;
        return too_big(frame, descriptor, path, adjacency, snapshot);
    }
    if !path.originated {
        edit_packet(frame, descriptor, adjacency, mtu, snapshot);
    }
    match wrap(frame, descriptor, peer, adjacency) {
        Ok(()) => {
            descriptor.egress = u16::from(adjacency.interface.0) + 1;
            Verdict::Transmit(adjacency.interface)
        }
        Err(reason) => Verdict::Drop(reason),
    }
}

/// Puts the headers in front of the packet that it leaves with: those of the tunnel, if it goes into one,
/// and that of the link.
#[inline]
pub(crate) fn wrap(
    frame: &mut Frame,
    descriptor: &Descriptor,
    peer: Option<&Peer>,
    adjacency: &Adjacency,
) -> Result<(), DropReason> {
    let l3_offset = usize::from(descriptor.l3_offset);
    // What lies behind the packet's end is link-layer padding, which may be more than the MTU allows.
    let packet_end = l3_offset + usize::from(descriptor.length);
    match peer {
        None if !frame.set_len(packet_end) => Err(DropReason::FrameTruncated),
        None => write_link_layer(frame, l3_offset, adjacency, descriptor.flags & flags::IPV6 != 0),
        Some(peer) => {
            let header = encapsulate(frame, descriptor, peer)?;
            write_header(header, adjacency, peer.remote.is_ipv6());
            Ok(())
        }
    }
}

/// TTL and MSS of the packet itself.
#[inline]
fn edit_packet(
    frame: &mut Frame,
    descriptor: &Descriptor,
    adjacency: &Adjacency,
    mtu: u16,
    snapshot: &Snapshot,
) {
    clamp_mss(frame, descriptor, Some((adjacency.interface, mtu)), snapshot);
    let Some(packet) = frame.bytes_mut().get_mut(usize::from(descriptor.l3_offset)..) else {
        return;
    };
    if descriptor.flags & flags::IPV6 == 0 {
        if let Some(header) = packet.first_chunk_mut::<{ ipv4::HEADER_LEN }>() {
            checksum::decrement_ttl_v4(header);
        }
    } else if let Some(header) = packet.first_chunk_mut::<{ ipv6::HEADER_LEN }>() {
        ipv6::write_hop_limit(header, descriptor.ttl.saturating_sub(1));
    }
}

/// Lowers the MSS of a SYN to what passes both the interface that it came by and the one that it leaves
/// by, and, where that is automatic, the next hop that it goes to (`onward`: interface, and what fits
/// its MTU) and the one that leads back to its sender.
#[inline]
fn clamp_mss(
    frame: &mut Frame,
    descriptor: &Descriptor,
    onward: Option<(InterfaceId, u16)>,
    snapshot: &Snapshot,
) {
    if descriptor.tcp_flags & tcp::flags::SYN != 0 {
        clamp_mss_of_syn(frame, descriptor, onward, snapshot);
    }
}

#[inline(never)]
fn clamp_mss_of_syn(
    frame: &mut Frame,
    descriptor: &Descriptor,
    onward: Option<(InterfaceId, u16)>,
    snapshot: &Snapshot,
) {
    let is_v6 = descriptor.flags & flags::IPV6 != 0;
    let headers = if is_v6 { ipv6::HEADER_LEN } else { ipv4::HEADER_LEN } + tcp::HEADER_LEN;
    let back = sources::mtu_back(descriptor, snapshot);
    let limit = [Some((frame.ingress(), back)), onward.map(|(id, mtu)| (id, Some(mtu)))]
        .into_iter()
        .flatten()
        .filter_map(|(id, mtu)| Some((snapshot.interface(id)?, mtu)))
        .map(|(interface, mtu)| {
            let of_interface = if is_v6 { interface.mss6 } else { interface.mss4 };
            let mtu = mtu.filter(|_| interface.clamps_by_route);
            // Below the least MTU of the family it would be no limit but a trap.
            let of_route = mtu.and_then(|mtu| {
                let least = if is_v6 { MTU_MIN_V6 } else { MTU_MIN_V4 };
                usize::from(mtu.max(least)).checked_sub(headers)
            });
            let of_route = of_route.and_then(|mss| u16::try_from(mss).ok()).unwrap_or(u16::MAX);
            of_interface.min(of_route)
        })
        .filter(|&limit| limit != 0)
        .min();
    let end = usize::from(descriptor.l3_offset) + usize::from(descriptor.length);
    if let Some(limit) = limit
        && let Some(segment) = frame.bytes_mut().get_mut(usize::from(descriptor.l4_offset)..end)
    {
        tcp::clamp_mss(segment, limit);
    }
}

/// RFC 1191 for a packet with DF, RFC 8200 section 5 for IPv6: the sender is told. An IPv4 packet
/// without DF is fragmented (RFC 1812 section 5.2.6) when it is dispatched; it goes there as one, without
/// the headers that each fragment gets.
#[cold]
fn too_big(
    frame: &mut Frame,
    descriptor: &mut Descriptor,
    path: &Path,
    adjacency: &Adjacency,
    snapshot: &Snapshot,
) -> Verdict {
    if !may_fragment(frame, descriptor) {
        return Verdict::Drop(DropReason::MtuExceeded);
    }
    if !snapshot.fragments.egress {
        return Verdict::Drop(DropReason::FragmentationOff);
    }
    if !path.originated {
        edit_packet(frame, descriptor, adjacency, path.mtu, snapshot);
    }
    descriptor.egress = u16::from(adjacency.interface.0) + 1;
    Verdict::Fragment(adjacency.interface)
}

/// IPv4 without DF.
fn may_fragment(frame: &Frame, descriptor: &Descriptor) -> bool {
    let packet = frame.bytes().get(usize::from(descriptor.l3_offset)..).unwrap_or_default();
    descriptor.flags & flags::IPV6 == 0 && packet.get(6).is_some_and(|byte| byte & 0x40 == 0)
}

/// Cuts the frame down to its packet, for the kernel.
fn punt(frame: &mut Frame, descriptor: &Descriptor, snapshot: &Snapshot) -> Verdict {
    clamp_mss(frame, descriptor, None, snapshot);
    if frame.trim_front(usize::from(descriptor.l3_offset))
        && frame.set_len(usize::from(descriptor.length))
    {
        Verdict::Punt
    } else {
        Verdict::Drop(DropReason::FrameTruncated)
    }
}

/// Writes the Ethernet header directly in front of the packet that begins at `l3_offset`.
#[inline]
fn write_link_layer(
    frame: &mut Frame,
    l3_offset: usize,
    adjacency: &Adjacency,
    is_v6: bool,
) -> Result<(), DropReason> {
    if l3_offset != ethernet::HEADER_LEN {
        if !frame.trim_front(l3_offset) {
            return Err(DropReason::FrameTruncated);
        }
        frame.prepend(ethernet::HEADER_LEN).ok_or(DropReason::HeadroomExhausted)?;
    }
    let header = frame.bytes_mut().first_chunk_mut().ok_or(DropReason::FrameTruncated)?;
    write_header(header, adjacency, is_v6);
    Ok(())
}

#[inline]
fn write_header(header: &mut [u8; ethernet::HEADER_LEN], adjacency: &Adjacency, is_v6: bool) {
    let ethertype = if is_v6 { ethernet::ETHERTYPE_IPV6 } else { ethernet::ETHERTYPE_IPV4 };
    ethernet::write_header(header, adjacency.destination, adjacency.source, ethertype);
}
