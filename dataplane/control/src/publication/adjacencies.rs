//! Adjacencies with positions that stay the same while neighbors come and go.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use config::Checked;
use tables::{Adjacency, AdjacencyId, AdjacencyState, Neighbors};
use wire::{InterfaceId, MacAddress};

use super::host_view::HostView;

/// A neighbor, and the MTU that a route sets for what it sends there; 0 for that of the link. Linux
/// keeps a route's MTU with the route (`ip_dst_mtu_maybe_forward`); here it makes another adjacency.
type Key = (InterfaceId, IpAddr, u16);

/// The neighbors that routes, owners and tunnels lead to, each with its position.
#[derive(Debug, Default)]
pub(super) struct Adjacencies {
    positions: HashMap<Key, AdjacencyId>,
    order: Vec<Key>,
}

impl Adjacencies {
    /// The position of a neighbor that a route, an owner or a tunnel leads to. `mtu` is what the route
    /// allows, 0 for what the link does.
    pub(super) fn require(
        &mut self,
        interface: InterfaceId,
        address: IpAddr,
        mtu: u16,
    ) -> AdjacencyId {
        let next = AdjacencyId(u32::try_from(self.order.len()).unwrap_or(u32::MAX));
        let key = (interface, address, mtu);
        *self.positions.entry(key).or_insert_with(|| {
            self.order.push(key);
            next
        })
    }

    /// The neighbors that routes, owners and tunnels lead to: those to be kept fresh.
    pub(super) fn required(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.order.iter().map(|&(interface, address, _)| (interface, address))
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
        let all = self.order.iter().copied().chain(others);
        for ((interface, address, mtu), position) in all.zip(0..) {
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
