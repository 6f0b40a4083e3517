//! From a route to a packet's next step: its next-hop group, a member of that for the flow, and whether that
//! neighbor answers.

use core::net::IpAddr;

use frame::{Descriptor, DropReason};
use tables::{AdjacencyId, AdjacencyState, Group, Members, RouteId, Snapshot};
use wire::InterfaceId;

use crate::address::ip;
use crate::path::{Next, Path};

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
            if is_lost(member, snapshot) {
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
fn is_lost(id: AdjacencyId, snapshot: &Snapshot) -> bool {
    snapshot.adjacency(id).is_some_and(|adjacency| adjacency.state.is_lost())
}

/// Whether an interface carries packets.
pub(crate) fn is_up(interface: InterfaceId, snapshot: &Snapshot) -> bool {
    snapshot.interface(interface).is_none_or(|interface| interface.is_up)
}

/// Who takes a flow whose next hop does not answer or is on a link that is down: the owner of the next bucket
/// that has one which is neither. Buckets that follow each other are drawn independently, so the flows of the
/// one that is lost spread over all others, and come back to it when it answers. If all are lost it stays.
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
        is_new && !is_lost(id, snapshot)
    });
    let chosen = members.choose(hash).unwrap_or(AdjacencyId(u32::MAX));
    others.next().unwrap_or(chosen)
}

/// Whether every packet of the route has the same next step.
#[inline]
pub(crate) fn leads_to_one(route: RouteId, snapshot: &Snapshot) -> bool {
    matches!(snapshot.group(route), Some(Group::Adjacency(_)))
}

/// Whether a packet to this address, which has this route, can be sent: to a next hop that is not known to have
/// failed, on a link that is up.
pub(crate) fn leads_out(route: RouteId, address: IpAddr, snapshot: &Snapshot) -> bool {
    match snapshot.group(route) {
        Some(Group::Adjacency(only)) => !is_lost(only, snapshot),
        Some(Group::Adjacencies(members)) => members.iter().any(|id| !is_lost(id, snapshot)),
        Some(Group::Glean { interface, .. }) => {
            let neighbor = snapshot.neighbors.get(interface, address);
            is_up(interface, snapshot) && !neighbor.is_some_and(|id| is_lost(id, snapshot))
        }
        _ => false,
    }
}

/// The kernel of this machine must not get a packet that is on its way into a tunnel: it would answer
/// another node's flow.
#[inline]
pub(crate) fn outwards(next: Next) -> Result<Next, DropReason> {
    if next == Next::Punt { Err(DropReason::NoRoute) } else { Ok(next) }
}

#[inline]
pub(crate) fn resolve_to(id: AdjacencyId, snapshot: &Snapshot) -> Result<Next, DropReason> {
    match snapshot.adjacency(id).map(|adjacency| adjacency.state) {
        Some(AdjacencyState::Resolved) => Ok(Next::Send(id)),
        Some(_) => Ok(Next::Await(id)),
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
