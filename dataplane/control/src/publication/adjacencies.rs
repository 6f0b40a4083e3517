//! Adjacencies with positions that stay the same while neighbors come and go.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use config::Checked;
use tables::{Adjacency, AdjacencyId, AdjacencyState, Grace, Neighbors, Publisher};
use wire::{InterfaceId, MacAddress};

use super::host_view::HostView;

/// A neighbor, and the MTU that a route sets for what it sends there; 0 for that of the link. Linux
/// keeps a route's MTU with the route (`ip_dst_mtu_maybe_forward`); here it makes another adjacency.
type Key = (InterfaceId, IpAddr, u16);

/// The neighbors that routes, owners and tunnels lead to, each with its position.
///
/// A position is given to somebody else only when nothing names it any more. Groups change in place, beside
/// snapshots: a route may lead to a group only when every worker has a snapshot with its adjacencies
/// ([`are_known`](Self::are_known)), or it would find there whoever had the position before.
#[derive(Clone, Debug, Default)]
pub(super) struct Adjacencies {
    positions: HashMap<Key, AdjacencyId>,
    /// How often each is named.
    order: Vec<Option<(Key, u32)>>,
    free: Vec<AdjacencyId>,
    /// Those that are not in the snapshots of all workers, with the number of their giving out: a position
    /// may be given back and out again before the first news of it has arrived.
    unknown: HashMap<AdjacencyId, u64>,
    given_out: u64,
    /// Of those, the ones that no snapshot has, and the ones that were published before a time.
    unpublished: Vec<(AdjacencyId, u64)>,
    on_the_way: Vec<(Grace, Vec<(AdjacencyId, u64)>)>,
}

impl Adjacencies {
    /// The position of a neighbor that a group or an owner names from now on. `mtu` is what the route
    /// allows, 0 for what the link does.
    pub(super) fn acquire(
        &mut self,
        interface: InterfaceId,
        address: IpAddr,
        mtu: u16,
    ) -> AdjacencyId {
        let key = (interface, address, mtu);
        if let Some(&id) = self.positions.get(&key) {
            if let Some(Some((_, uses))) = self.order.get_mut(id.0 as usize) {
                *uses += 1;
            }
            return id;
        }
        let id = self.free.pop().unwrap_or_else(|| {
            self.order.push(None);
            AdjacencyId(u32::try_from(self.order.len() - 1).unwrap_or(u32::MAX))
        });
        self.order[id.0 as usize] = Some((key, 1));
        self.positions.insert(key, id);
        self.given_out += 1;
        self.unknown.insert(id, self.given_out);
        self.unpublished.push((id, self.given_out));
        id
    }

    /// A snapshot with all of them was published before this time.
    pub(super) fn published(&mut self, grace: Grace) {
        if !self.unpublished.is_empty() {
            self.on_the_way.push((grace, std::mem::take(&mut self.unpublished)));
        }
    }

    /// Notes which ones every worker has by now.
    pub(super) fn arrive(&mut self, publisher: &Publisher) {
        let Self { on_the_way, unknown, .. } = self;
        on_the_way.retain(|(grace, ids)| {
            let has_arrived = publisher.has_passed(*grace);
            if has_arrived {
                for (id, number) in ids {
                    if unknown.get(id) == Some(number) {
                        unknown.remove(id);
                    }
                }
            }
            !has_arrived
        });
    }

    /// Whether every worker has a snapshot with all of them.
    pub(super) fn are_all_known(&self) -> bool {
        self.unknown.is_empty()
    }

    /// Whether every worker has a snapshot with these.
    pub(super) fn are_known(&self, ids: &[AdjacencyId]) -> bool {
        self.unknown.is_empty() || !ids.iter().any(|id| self.unknown.contains_key(id))
    }

    /// Ends one use.
    pub(super) fn release(&mut self, id: AdjacencyId) {
        let Some(place) = self.order.get_mut(id.0 as usize) else { return };
        let Some((key, uses)) = place else { return };
        *uses -= 1;
        if *uses == 0 {
            self.positions.remove(key);
            *place = None;
            self.unknown.remove(&id);
            self.free.push(id);
        }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.positions.len()
    }

    /// The neighbors that routes, owners and tunnels lead to: those to be kept fresh.
    pub(super) fn required(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.positions.keys().map(|&(interface, address, _)| (interface, address))
    }

    /// What workers read: every neighbor that is required, in its position, and behind those every
    /// other one that is known, which only connected prefixes lead to.
    pub(super) fn resolve(&self, config: &Checked, host: &HostView) -> (Vec<Adjacency>, Neighbors) {
        let known = host.neighbors.keys().map(|&(interface, address)| (interface, address, 0));
        let fixed = config.neighbors.iter().map(|fixed| (fixed.interface, fixed.address, 0));
        let others: BTreeSet<_> =
            known.chain(fixed).filter(|key| !self.positions.contains_key(key)).collect();
        let mut neighbors = Neighbors::default();
        let mut adjacencies = Vec::with_capacity(self.order.len() + others.len());
        let named = self.order.iter().map(|place| place.map(|(key, _)| key));
        for (key, position) in named.chain(others.into_iter().map(Some)).zip(0..) {
            let Some((interface, address, mtu)) = key else {
                // Nothing names this position.
                adjacencies.push(NOBODY);
                continue;
            };
            // A connected prefix leads to the neighbor itself, whatever some route allows.
            if mtu == 0 {
                neighbors.insert(interface, address, AdjacencyId(position));
            }
            let mut adjacency = resolve_one(interface, address, config, host);
            if mtu != 0 {
                adjacency.mtu = adjacency.mtu.min(mtu);
            }
            adjacencies.push(adjacency);
        }
        (adjacencies, neighbors)
    }
}

/// What stands in a position that nothing names.
const NOBODY: Adjacency = Adjacency {
    state: AdjacencyState::Failed,
    interface: InterfaceId(0),
    mtu: 0,
    destination: MacAddress([0; 6]),
    source: MacAddress([0; 6]),
    address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
};

fn resolve_one(
    interface: InterfaceId,
    address: IpAddr,
    config: &Checked,
    host: &HostView,
) -> Adjacency {
    let fixed = config
        .neighbors
        .iter()
        .find(|neighbor| neighbor.interface == interface && neighbor.address == address)
        .map(|neighbor| (AdjacencyState::Resolved, Some(neighbor.mac)));
    let learnt = || host.neighbors.get(&(interface, address)).map(|known| (known.state, known.mac));
    let (state, mac) = match fixed.or_else(learnt) {
        Some((AdjacencyState::Resolved, Some(mac))) => (AdjacencyState::Resolved, mac),
        Some((AdjacencyState::Failed, _)) => (AdjacencyState::Failed, MacAddress::default()),
        _ => (AdjacencyState::Unresolved, MacAddress::default()),
    };
    let state = if host.down.contains(&interface) { AdjacencyState::LinkDown } else { state };
    let link = host.interfaces.get(interface.index());
    Adjacency {
        state,
        interface,
        mtu: link.map_or(0, |link| link.mtu),
        destination: mac,
        source: link.map_or_else(MacAddress::default, |link| link.mac),
        address,
    }
}
