//! Whose a packet is: the slices of its two ends, who may send under the one, and who gets what is sent to the
//! other.
//!
//! Slice keys, as in RFC 7597 section 8: the destination port; for ICMP echo the identifier; for an
//! ICMP error the source port of the packet that it quotes, which is the one the owner sent; for a later
//! fragment that of its first one (see `fragments`). What has no port goes to the owner that is declared
//! for it, and so do errors about what such an owner sent.

use frame::{Descriptor, DropReason, Frame};
use sluice_abi::{direction, flags};
use tables::{
    AdjacencyId, AdjacencyState, Delivery, EgressId, NodeId, Owner, Peer, PeerId, Role, RouteId,
    SiteId, SliceHit, Snapshot, SourceValidation,
};
use wire::{EmbeddedError, Quoted, ethernet, icmp, icmpv6, protocol};

use crate::address::{v4_bits, v6_bits};
use crate::path::{Next, Path};
use crate::sources;

/// What the slices say of a packet.
pub(crate) enum Steering {
    /// Nothing: routed by destination.
    Route,
    /// Its next step is decided.
    Decided(Result<Next, DropReason>),
    /// Goes where this route leads.
    Through(RouteId),
    /// Goes to this neighbor.
    To(AdjacencyId),
}

/// What slices say of one packet, whose ends are in these egress prefixes.
#[inline]
pub(crate) fn steer(
    (source, destination): (Option<EgressId>, Option<EgressId>),
    frame: &Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Steering {
    if let Some(egress) = source {
        descriptor.direction = direction::OUTBOUND;
        if let Err(reason) = admit_sender(egress, frame, descriptor, path, snapshot) {
            return Steering::Decided(Err(reason));
        }
    }
    let Some(egress) = destination else { return Steering::Route };
    if source.is_none() {
        descriptor.direction = direction::INBOUND;
    }
    let hit = match find_slice(egress, End::Destination, frame, descriptor, path, snapshot) {
        Ok(hit) => hit,
        Err(reason) => return Steering::Decided(Err(reason)),
    };
    deliver(hit, descriptor, path, snapshot)
}

/// To whom the slice of a packet's destination belongs.
#[inline(always)]
pub(crate) fn deliver(
    hit: SliceHit,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Steering {
    descriptor.slice = hit.slice.map_or(0, |slice| slice.0.saturating_add(1));
    match hit.owner {
        Owner::Local(owner) => {
            path.delivered = true;
            match snapshot.delivery(owner) {
                Some(Delivery::NextHop { adjacency, .. }) => Steering::To(*adjacency),
                Some(Delivery::Kernel) | None => Steering::Decided(Ok(Next::Punt)),
            }
        }
        Owner::Node(node) => into_tunnel(tunnel_to_node(node, path, snapshot), path),
        Owner::Site(site) => into_tunnel(tunnel_to_site(site, path, snapshot), path),
        Owner::DropByDefault => Steering::Decided(Err(DropReason::SliceDefault)),
        Owner::Unowned => Steering::Decided(Err(DropReason::SliceUnowned)),
    }
}

/// The egress prefixes that source and destination lie in.
#[inline(always)]
pub(crate) fn egresses(
    descriptor: &Descriptor,
    snapshot: &Snapshot,
) -> (Option<EgressId>, Option<EgressId>) {
    let slices = &snapshot.slices;
    if descriptor.flags & flags::IPV6 == 0 {
        (
            slices.egress4(v4_bits(&descriptor.source)),
            slices.egress4(v4_bits(&descriptor.destination)),
        )
    } else {
        (
            slices.egress6(v6_bits(&descriptor.source)),
            slices.egress6(v6_bits(&descriptor.destination)),
        )
    }
}

/// The other site that a far end is of.
fn site_of(peer: PeerId, snapshot: &Snapshot) -> Option<SiteId> {
    snapshot.peer(peer).and_then(|peer| peer.site)
}

/// A tunnel, if a packet may enter it.
type Tunnel<'s> = Result<(PeerId, &'s Peer), DropReason>;

/// The tunnel to another node of this site. A node hop is the last one; after a site hop there may be one to a
/// node.
#[inline(always)]
pub(crate) fn tunnel_to_node<'s>(node: NodeId, path: &Path, snapshot: &'s Snapshot) -> Tunnel<'s> {
    let from_node = path.decapsulated.is_some_and(|peer| site_of(peer, snapshot).is_none());
    tunnel(snapshot.node_peer(node), from_node, snapshot)
}

/// The tunnel to another site, for packets that came by none.
#[inline(always)]
pub(crate) fn tunnel_to_site<'s>(site: SiteId, path: &Path, snapshot: &'s Snapshot) -> Tunnel<'s> {
    tunnel(snapshot.site_peer(site), path.decapsulated.is_some(), snapshot)
}

#[inline(always)]
fn tunnel(peer: Option<PeerId>, would_loop: bool, snapshot: &Snapshot) -> Tunnel<'_> {
    if would_loop {
        return Err(DropReason::TunnelLoop);
    }
    peer.and_then(|id| Some((id, snapshot.peer(id)?))).ok_or(DropReason::NoRoute)
}

#[inline(always)]
fn into_tunnel(tunnel: Tunnel<'_>, path: &mut Path) -> Steering {
    match tunnel {
        Ok((id, peer)) => {
            path.encapsulate = Some(id);
            Steering::Through(peer.route)
        }
        Err(reason) => Steering::Decided(Err(reason)),
    }
}

/// A sender may use only an (address, port) inside its own live slice: an owner on this machine from
/// the interface that it is behind, another node through its tunnel.
pub(crate) fn admit_sender(
    egress: EgressId,
    frame: &Frame,
    descriptor: &Descriptor,
    path: &Path,
    snapshot: &Snapshot,
) -> Result<(), DropReason> {
    // Asked first, as it tells more than that there is no slice.
    come_from_inside(frame, path, snapshot)?;
    let hit = find_slice(egress, End::Source, frame, descriptor, path, snapshot)
        .map_err(|_| DropReason::SliceSender)?;
    admit(hit, frame, path, snapshot)
}

/// Nobody outside has a shared address.
#[inline(always)]
fn come_from_inside(frame: &Frame, path: &Path, snapshot: &Snapshot) -> Result<(), DropReason> {
    let role = snapshot.interface(frame.ingress()).map(|interface| interface.role);
    if path.decapsulated.is_none() && role == Some(Role::Outside) {
        return Err(DropReason::SpoofedSource);
    }
    Ok(())
}

/// The sender of a packet whose source belongs to the slice of `hit`.
#[inline(always)]
pub(crate) fn admit(
    hit: SliceHit,
    frame: &Frame,
    path: &Path,
    snapshot: &Snapshot,
) -> Result<(), DropReason> {
    come_from_inside(frame, path, snapshot)?;
    let admitted = match (hit.owner, path.decapsulated) {
        (Owner::Local(owner), None) => match snapshot.delivery(owner) {
            Some(Delivery::NextHop { interface, adjacency }) if *interface == frame.ingress() => {
                came_from(*adjacency, frame, snapshot)?;
                true
            }
            _ => false,
        },
        // What a node of this site sends comes by its own tunnel: no other site has its packets, since one
        // to a slice of that site ends there, and one to a slice of this site never leaves it.
        (Owner::Node(node), Some(peer)) => snapshot.node_peer(node) == Some(peer),
        // It came by the site's tunnel, to here or to a node of this site that passes it on.
        (Owner::Site(site), Some(peer)) => {
            // From any node there, not from the one alone that the site is reached by.
            site_of(peer, snapshot).is_none_or(|from| from == site)
        }
        _ => false,
    };
    if admitted { Ok(()) } else { Err(DropReason::SliceSender) }
}

/// Where sources are validated strictly, an owner's packets come from the neighbor that those to it go to.
/// On a one-armed interface nothing else tells them from what the world sends under the same address;
/// on a link with several owners, nothing else tells those apart. While the neighbor is not resolved,
/// nobody is taken for it.
#[inline]
fn came_from(owner: AdjacencyId, frame: &Frame, snapshot: &Snapshot) -> Result<(), DropReason> {
    if sources::mode(frame.ingress(), snapshot) != SourceValidation::Strict {
        return Ok(());
    }
    let sender = ethernet::source(frame.bytes());
    let is_it = snapshot.adjacency(owner).is_some_and(|adjacency| {
        adjacency.state == AdjacencyState::Resolved && Some(adjacency.destination) == sender
    });
    if is_it { Ok(()) } else { Err(DropReason::SpoofedSource) }
}

/// Which address of a packet the slice belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// The slice of one end of a packet.
#[inline]
pub(crate) fn find_slice(
    egress: EgressId,
    end: End,
    frame: &Frame,
    descriptor: &Descriptor,
    path: &Path,
    snapshot: &Snapshot,
) -> Result<SliceHit, DropReason> {
    if descriptor.flags & flags::PORTS != 0 {
        let port = match end {
            End::Source => descriptor.source_port,
            End::Destination => descriptor.destination_port,
        };
        return Ok(snapshot.slices.lookup(egress, port));
    }
    find_slice_without_port(egress, end, frame, descriptor, path, snapshot)
}

#[cold]
fn find_slice_without_port(
    egress: EgressId,
    end: End,
    frame: &Frame,
    descriptor: &Descriptor,
    path: &Path,
    snapshot: &Snapshot,
) -> Result<SliceHit, DropReason> {
    if descriptor.flags & flags::LATER_FRAGMENT != 0 && !path.follows_first {
        return Err(DropReason::SliceFragment);
    }
    if descriptor.flags & flags::ICMP_ERROR != 0 {
        return find_slice_of_quoted(egress, end, frame, descriptor, snapshot);
    }
    match descriptor.protocol {
        protocol::ICMP | protocol::ICMPV6 => Err(DropReason::SliceIcmp),
        protocol if protocol::has_ports(protocol) => Err(DropReason::TransportTruncated),
        _ => portless_owner(egress, DropReason::SlicePortless, snapshot),
    }
}

/// The slice that an ICMP error is about: the quoted packet was sent by the owner when the error comes
/// in, and to the owner when the owner itself reports the error.
fn find_slice_of_quoted(
    egress: EgressId,
    end: End,
    frame: &Frame,
    descriptor: &Descriptor,
    snapshot: &Snapshot,
) -> Result<SliceHit, DropReason> {
    let reason = |error| match error {
        EmbeddedError::Truncated => DropReason::IcmpInnerTruncated,
        _ => DropReason::SliceIcmp,
    };
    let quoted = quoted_packet(frame, descriptor).map_err(reason)?;
    let (address, own) = match end {
        End::Destination => (descriptor.destination, quoted.source),
        End::Source => (descriptor.source, quoted.destination),
    };
    if address != own {
        return Err(DropReason::SliceIcmp);
    }
    match (quoted.flow(), end) {
        (Ok(flow), End::Destination) => Ok(snapshot.slices.lookup(egress, flow.source_port)),
        (Ok(flow), End::Source) => Ok(snapshot.slices.lookup(egress, flow.destination_port)),
        // ESP, GRE and the like: of whoever has what comes to the address without a port.
        (Err(EmbeddedError::NoPorts), _)
            if !matches!(quoted.protocol, protocol::ICMP | protocol::ICMPV6) =>
        {
            portless_owner(egress, DropReason::SliceIcmp, snapshot)
        }
        (Err(error), _) => Err(reason(error)),
    }
}

/// Who gets what has no port; `nobody` says why there is no one.
fn portless_owner(
    egress: EgressId,
    nobody: DropReason,
    snapshot: &Snapshot,
) -> Result<SliceHit, DropReason> {
    match snapshot.slices.portless(egress) {
        Owner::Unowned | Owner::DropByDefault => Err(nobody),
        owner => Ok(SliceHit { slice: None, owner }),
    }
}

/// The packet that an ICMP error is about.
pub(crate) fn quoted_packet<'a>(
    frame: &'a Frame,
    descriptor: &Descriptor,
) -> Result<Quoted<'a>, EmbeddedError> {
    let end = usize::from(descriptor.l3_offset) + usize::from(descriptor.length);
    let message = frame
        .bytes()
        .get(usize::from(descriptor.l4_offset)..end)
        .ok_or(EmbeddedError::Truncated)?;
    if descriptor.flags & flags::IPV6 == 0 {
        Quoted::parse_v4(icmp::embedded(message).ok_or(EmbeddedError::Truncated)?)
    } else {
        Quoted::parse_v6(icmpv6::embedded(message).ok_or(EmbeddedError::Truncated)?)
    }
}
