//! Where a packet goes: slices first, then the FIB, then the adjacency, each for the whole batch.
//!
//! ```text
//!               source in an egress prefix? -- may this sender use it? --+
//!                                                                       v
//!  destination in an egress prefix? -- slice -> owner:  local  -> kernel or workload
//!          | no                                         node   -> tunnel to that node
//!          v                                            site   -> tunnel to that site
//!         FIB -> next-hop group -> adjacency
//! ```
//!
//! Slice keys, as in RFC 7597 section 8: the destination port; for ICMP echo the identifier; for an
//! ICMP error the source port of the packet that it quotes, which is the one the owner sent; for a later
//! fragment that of its first one (see `fragments`). What has no port goes to the owner that is declared
//! for it, and so do errors about what such an owner sent.

use core::net::IpAddr;

use frame::{BATCH_MAX, Batch, Descriptor, DropReason, Frame, Verdict};
use sluice_abi::{direction, flags};
use tables::{
    AdjacencyId, AdjacencyState, Delivery, EgressId, Group, Members, Owner, PeerId, Role, RouteId,
    SiteId, SliceHit, SliceKey, Snapshot, SourceValidation,
};
use wire::{EmbeddedError, Quoted, ethernet, icmp, icmpv6, protocol};

use crate::address::{ip, v4_bits, v6_bits};
use crate::detour;
use crate::io::Origin;
use crate::path::{Next, Path};
use crate::sources;
use crate::stages::{Stage, Stopwatch};

/// Lists of positions that wait for the same kind of look-up, kept between turns for their memory.
#[derive(Debug)]
pub(crate) struct Lookup {
    /// Packets with ports that have an end in an egress prefix, and the slices they ask for: for each the
    /// source's, then the destination's.
    shared: Vec<Shared>,
    keys: Vec<SliceKey>,
    hits: Vec<SliceHit>,
    /// Packets that go by the tables.
    routed: Routed,
    /// Packets that go into tunnels, whose routes are known.
    positions_through: Vec<u16>,
    routes_through: Vec<RouteId>,
}

/// A packet whose ends, one or both, are in egress prefixes.
#[derive(Clone, Copy, Debug)]
struct Shared {
    position: u16,
    source: bool,
    destination: bool,
}

/// Packets whose destinations are looked up in the tables.
#[derive(Debug)]
struct Routed {
    positions4: Vec<u16>,
    destinations4: Vec<u32>,
    positions6: Vec<u16>,
    destinations6: Vec<u128>,
    routes: Box<[RouteId; BATCH_MAX]>,
}

impl Routed {
    fn clear(&mut self) {
        self.positions4.clear();
        self.destinations4.clear();
        self.positions6.clear();
        self.destinations6.clear();
    }

    #[inline(always)]
    fn push(
        &mut self,
        position: u16,
        descriptor: &Descriptor,
        verdict: &mut Verdict,
        snapshot: &Snapshot,
    ) {
        // RFC 1812 section 5.3.7. Two slices of one shared address may talk to each other; no other
        // address is both ends of a packet on a wire.
        if descriptor.source == descriptor.destination {
            *verdict = Verdict::Drop(DropReason::MartianSource);
        } else if descriptor.flags & flags::IPV6 == 0 {
            let destination = v4_bits(&descriptor.destination);
            // The miss passes while the rest of the batch is steered.
            snapshot.fib4.prefetch(destination);
            self.positions4.push(position);
            self.destinations4.push(destination);
        } else {
            self.positions6.push(position);
            self.destinations6.push(v6_bits(&descriptor.destination));
        }
    }
}

/// What the slices say of a packet.
enum Steering {
    /// Nothing: routed by destination.
    Route,
    /// Its next step is decided.
    Decided(Result<Next, DropReason>),
    /// Goes where this route leads.
    Through(RouteId),
    /// Goes to this neighbor.
    To(AdjacencyId),
}

impl Lookup {
    pub(crate) fn new() -> Self {
        Self {
            shared: Vec::with_capacity(BATCH_MAX),
            keys: Vec::with_capacity(2 * BATCH_MAX),
            hits: Vec::with_capacity(2 * BATCH_MAX),
            routed: Routed {
                positions4: Vec::with_capacity(BATCH_MAX),
                destinations4: Vec::with_capacity(BATCH_MAX),
                positions6: Vec::with_capacity(BATCH_MAX),
                destinations6: Vec::with_capacity(BATCH_MAX),
                routes: Box::new([RouteId::NONE; BATCH_MAX]),
            },
            positions_through: Vec::with_capacity(BATCH_MAX),
            routes_through: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Decides for every open frame of the batch either an adjacency or a verdict.
    #[inline]
    pub(crate) fn run(
        &mut self,
        batch: &mut Batch,
        paths: &mut [Path],
        snapshot: &Snapshot,
        origin: Origin,
        watch: &mut Stopwatch,
    ) {
        self.shared.clear();
        self.keys.clear();
        self.routed.clear();
        self.positions_through.clear();
        self.routes_through.clear();
        if batch.edits.is_touched() {
            self.steer::<true>(batch, paths, snapshot, origin);
        } else {
            self.steer::<false>(batch, paths, snapshot, origin);
        }
        if !self.shared.is_empty() {
            self.steer_shared(batch, paths, snapshot);
        }
        watch.lap(Stage::Slices);
        self.route(batch, paths, snapshot);
        watch.lap(Stage::Routes);
    }

    /// Slices: who may send, and who owns. `HAS_EDITS`: plugins may have set where some packets go.
    fn steer<const HAS_EDITS: bool>(
        &mut self,
        batch: &mut Batch,
        paths: &mut [Path],
        snapshot: &Snapshot,
        origin: Origin,
    ) {
        let Batch { frames, descriptors, verdicts, edits, .. } = batch;
        let has_slices = !snapshot.slices.is_empty();
        for (position, (((frame, descriptor), verdict), path)) in (0_u16..)
            .zip(frames.iter().zip(descriptors.iter_mut()).zip(verdicts.iter_mut()).zip(paths))
        {
            if !verdict.is_open() {
                continue;
            }
            descriptor.direction = direction::TRANSIT;
            // RFC 1812 section 5.3.7. It could pass for a packet of a tunnel from here, at the other end.
            if origin == Origin::Received
                && snapshot.locals.may_contain(v4_bits(&descriptor.source))
                && snapshot.locals.contains(&ip(&descriptor.source))
            {
                *verdict = Verdict::Drop(DropReason::MartianSource);
                continue;
            }
            if HAS_EDITS {
                let edit = edits.get(usize::from(position));
                if let Some(next) = detour::steer(frame, descriptor, path, edit, snapshot) {
                    settle(next, path, verdict);
                    continue;
                }
            }
            if has_slices {
                let (source, destination) = egresses(descriptor, snapshot);
                if source.or(destination).is_some() {
                    if descriptor.flags & flags::PORTS != 0 {
                        self.ask(position, source, destination, descriptor);
                    } else {
                        let steering = steer_one(frame, descriptor, path, snapshot);
                        self.follow(steering, position, descriptor, path, verdict, snapshot);
                    }
                    continue;
                }
            }
            self.routed.push(position, descriptor, verdict, snapshot);
        }
    }

    /// Notes which slices a packet with ports asks for.
    #[inline]
    fn ask(
        &mut self,
        position: u16,
        source: Option<EgressId>,
        destination: Option<EgressId>,
        descriptor: &mut Descriptor,
    ) {
        self.shared.push(Shared {
            position,
            source: source.is_some(),
            destination: destination.is_some(),
        });
        descriptor.direction = direction::INBOUND;
        if let Some(egress) = source {
            descriptor.direction = direction::OUTBOUND;
            self.keys.push(SliceKey { egress, port: descriptor.source_port });
        }
        if let Some(egress) = destination {
            self.keys.push(SliceKey { egress, port: descriptor.destination_port });
        }
    }

    /// The packets of `shared`, whose slices are looked up together.
    #[inline(never)]
    fn steer_shared(&mut self, batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
        let Batch { frames, descriptors, verdicts, .. } = batch;
        self.hits.resize(self.keys.len(), SliceHit::MISS);
        snapshot.slices.lookup_batch(&self.keys, &mut self.hits);
        let hits = std::mem::take(&mut self.hits);
        let shared = std::mem::take(&mut self.shared);
        let mut left = hits.iter();
        for &Shared { position, source, destination } in &shared {
            let source = if source { left.next() } else { None };
            let destination = if destination { left.next() } else { None };
            let at = usize::from(position);
            let (Some(frame), Some(descriptor), Some(verdict), Some(path)) =
                (frames.get(at), descriptors.get_mut(at), verdicts.get_mut(at), paths.get_mut(at))
            else {
                continue;
            };
            if let Some(hit) = source
                && let Err(reason) = admit(*hit, frame, path, snapshot)
            {
                *verdict = Verdict::Drop(reason);
                continue;
            }
            let steering = match destination {
                Some(hit) => deliver(*hit, descriptor, path, snapshot),
                None => Steering::Route,
            };
            self.follow(steering, position, descriptor, path, verdict, snapshot);
        }
        (self.hits, self.shared) = (hits, shared);
    }

    /// Does what the slices say.
    #[inline(always)]
    fn follow(
        &mut self,
        steering: Steering,
        position: u16,
        descriptor: &Descriptor,
        path: &mut Path,
        verdict: &mut Verdict,
        snapshot: &Snapshot,
    ) {
        match steering {
            Steering::Route => self.routed.push(position, descriptor, verdict, snapshot),
            Steering::Decided(next) => settle(next, path, verdict),
            Steering::Through(route) => {
                self.positions_through.push(position);
                self.routes_through.push(route);
            }
            Steering::To(adjacency) => settle(resolve_to(adjacency, snapshot), path, verdict),
        }
    }

    /// FIB, then next-hop group, then adjacency.
    fn route(&mut self, batch: &mut Batch, paths: &mut [Path], snapshot: &Snapshot) {
        let Batch { descriptors, verdicts, .. } = batch;
        let mut settle_all = |positions: &[u16], routes: &[RouteId], is_into_tunnel: bool| {
            // Packets come in runs to one next hop, which is then resolved once.
            let mut known = None;
            for (&position, &route) in positions.iter().zip(routes) {
                let position = usize::from(position);
                if let (Some(descriptor), Some(verdict), Some(path)) = (
                    descriptors.get_mut(position),
                    verdicts.get_mut(position),
                    paths.get_mut(position),
                ) {
                    if let Some((route_before, next)) = known
                        && route_before == route
                    {
                        descriptor.next_hop = route.0.saturating_add(1);
                        path.next = next;
                        continue;
                    }
                    let mut next = resolve(route, descriptor, path, snapshot);
                    if is_into_tunnel {
                        next = next.and_then(outwards);
                    }
                    known = match next {
                        Ok(next) if leads_to_one(route, snapshot) => Some((route, next)),
                        _ => None,
                    };
                    settle(next, path, verdict);
                }
            }
        };
        let Routed { positions4, destinations4, positions6, destinations6, routes } =
            &mut self.routed;
        if let Some(routes) = routes.get_mut(..destinations4.len()) {
            snapshot.fib4.lookup_batch(destinations4, routes);
            settle_all(positions4, routes, false);
        }
        if let Some(routes) = routes.get_mut(..destinations6.len()) {
            snapshot.fib6.lookup_batch(destinations6, routes);
            settle_all(positions6, routes, false);
        }
        settle_all(&self.positions_through, &self.routes_through, true);
    }
}

#[inline]
pub(crate) fn settle(next: Result<Next, DropReason>, path: &mut Path, verdict: &mut Verdict) {
    match next {
        Ok(next) => path.next = next,
        Err(reason) => *verdict = Verdict::Drop(reason),
    }
}

/// Looks up where one packet goes, as for a whole batch; its source was judged before.
#[cold]
pub(crate) fn alone(
    frame: &Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Result<Next, DropReason> {
    let steering = if snapshot.slices.is_empty() {
        Steering::Route
    } else {
        steer_one(frame, descriptor, path, snapshot)
    };
    match steering {
        Steering::Route => {
            let route = if descriptor.flags & flags::IPV6 == 0 {
                snapshot.fib4.lookup(v4_bits(&descriptor.destination))
            } else {
                snapshot.fib6.lookup(v6_bits(&descriptor.destination))
            };
            resolve(route, descriptor, path, snapshot)
        }
        Steering::Decided(next) => next,
        Steering::Through(route) => resolve(route, descriptor, path, snapshot).and_then(outwards),
        Steering::To(adjacency) => resolve_to(adjacency, snapshot),
    }
}

#[inline]
fn steer_one(
    frame: &Frame,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Steering {
    let (source, destination) = egresses(descriptor, snapshot);
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
fn deliver(
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
        Owner::Node(node) => {
            // A node hop is the last one; after a site hop there may be one to a node.
            let from_node = path.decapsulated.is_some_and(|peer| site_of(peer, snapshot).is_none());
            into_tunnel(snapshot.node_peer(node), from_node, path, snapshot)
        }
        Owner::Site(site) => {
            into_tunnel(snapshot.site_peer(site), path.decapsulated.is_some(), path, snapshot)
        }
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

#[inline(always)]
fn into_tunnel(
    peer: Option<PeerId>,
    would_loop: bool,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Steering {
    if would_loop {
        return Steering::Decided(Err(DropReason::TunnelLoop));
    }
    let Some((id, peer)) = peer.and_then(|id| Some((id, snapshot.peer(id)?))) else {
        return Steering::Decided(Err(DropReason::NoRoute));
    };
    path.encapsulate = Some(id);
    Steering::Through(peer.route)
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
#[inline]
fn come_from_inside(frame: &Frame, path: &Path, snapshot: &Snapshot) -> Result<(), DropReason> {
    let role = snapshot.interface(frame.ingress()).map(|interface| interface.role);
    if path.decapsulated.is_none() && role == Some(Role::Outside) {
        return Err(DropReason::SpoofedSource);
    }
    Ok(())
}

/// The sender of a packet whose source belongs to the slice of `hit`.
#[inline]
fn admit(hit: SliceHit, frame: &Frame, path: &Path, snapshot: &Snapshot) -> Result<(), DropReason> {
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

/// From a route to a next step, or to the reason that there is none.
#[inline]
pub(crate) fn resolve(
    route: RouteId,
    descriptor: &mut Descriptor,
    path: &mut Path,
    snapshot: &Snapshot,
) -> Result<Next, DropReason> {
    let group = snapshot.group(route).ok_or(DropReason::NoRoute)?;
    descriptor.next_hop = route.0.saturating_add(1);
    match group {
        Group::Adjacency(only) => resolve_to(only, snapshot),
        Group::Adjacencies(members) => {
            let member = members.choose(descriptor.hash).ok_or(DropReason::NoRoute)?;
            if has_failed(member, snapshot) {
                return resolve_to(bypass(members, descriptor.hash, snapshot), snapshot);
            }
            resolve_to(member, snapshot)
        }
        Group::Glean { interface, mtu } => {
            path.route_mtu = mtu;
            let destination = destination(descriptor, path, snapshot);
            match snapshot.neighbors.get(interface, destination) {
                Some(adjacency) => resolve_to(adjacency, snapshot),
                None => Ok(Next::Seek(interface)),
            }
        }
        Group::Local => Ok(Next::Punt),
        Group::Broadcast => Err(DropReason::DirectedBroadcast),
        Group::Blackhole => Err(DropReason::Blackhole),
        Group::Unreachable => Err(DropReason::Unreachable),
        Group::Prohibit => Err(DropReason::Prohibited),
    }
}

#[inline]
fn has_failed(id: AdjacencyId, snapshot: &Snapshot) -> bool {
    snapshot.adjacency(id).is_some_and(|adjacency| adjacency.state == AdjacencyState::Failed)
}

/// Who takes a flow whose next hop does not answer: the owner of the next bucket that has one which is not
/// known to have failed. Buckets that follow each other are drawn independently, so the flows of the one that
/// failed spread over all others, and come back to it when it answers. If all have failed it stays.
///
/// Linux does the same where `net.ipv4.fib_multipath_use_neigh` is set.
#[cold]
fn bypass(members: Members<'_>, hash: u32, snapshot: &Snapshot) -> AdjacencyId {
    let position = members.position(hash);
    let (before, from) = (members.iter().take(position), members.iter().skip(position));
    let mut last = None;
    let mut others = from.chain(before).filter(|&id| {
        // Runs of one owner are looked at once.
        let is_new = last.replace(id) != Some(id);
        is_new && !has_failed(id, snapshot)
    });
    let chosen = members.choose(hash).unwrap_or(AdjacencyId(u32::MAX));
    others.next().unwrap_or(chosen)
}

/// Whether every packet of the route has the same next step.
#[inline]
fn leads_to_one(route: RouteId, snapshot: &Snapshot) -> bool {
    matches!(snapshot.group(route), Some(Group::Adjacency(_)))
}

/// The kernel of this machine must not get a packet that is on its way into a tunnel: it would answer
/// another node's flow.
#[inline]
pub(crate) fn outwards(next: Next) -> Result<Next, DropReason> {
    if next == Next::Punt { Err(DropReason::NoRoute) } else { Ok(next) }
}

#[inline]
fn resolve_to(id: AdjacencyId, snapshot: &Snapshot) -> Result<Next, DropReason> {
    match snapshot.adjacency(id).map(|adjacency| adjacency.state) {
        Some(AdjacencyState::Resolved) => Ok(Next::Send(id)),
        Some(AdjacencyState::Unresolved | AdjacencyState::Failed) => Ok(Next::Await(id)),
        None => Err(DropReason::NoRoute),
    }
}

/// The address that the frame travels to next: of the tunnel's far end, or of the packet itself.
pub(crate) fn destination(descriptor: &Descriptor, path: &Path, snapshot: &Snapshot) -> IpAddr {
    match path.encapsulate.and_then(|peer| snapshot.peer(peer)) {
        Some(peer) => peer.remote,
        None => ip(&descriptor.destination),
    }
}
