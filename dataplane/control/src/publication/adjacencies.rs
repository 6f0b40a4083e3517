//! Adjacencies with positions that stay the same while neighbors come and go.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use config::Checked;
use tables::{Adjacency, AdjacencyId, AdjacencyState, Neighbors};
use wire::{InterfaceId, MacAddress};

use super::host_view::HostView;

/// The neighbors that routes, owners and tunnels lead to, each with its position.
#[derive(Debug, Default)]
pub(super) struct Adjacencies {
    positions: HashMap<(InterfaceId, IpAddr), AdjacencyId>,
    order: Vec<(InterfaceId, IpAddr)>,
}

impl Adjacencies {
    /// The position of a neighbor that a route, an owner or a tunnel leads to.
    pub(super) fn require(&mut self, interface: InterfaceId, address: IpAddr) -> AdjacencyId {
        let next = AdjacencyId(u32::try_from(self.order.len()).unwrap_or(u32::MAX));
        let key = (interface, address);
        *self.positions.entry(key).or_insert_with(|| {
            self.order.push(key);
            next
        })
    }

    /// The neighbors that routes, owners and tunnels lead to: those to be kept fresh.
    pub(super) fn required(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.order.iter().copied()
    }

    /// What workers read: every neighbor that is required, in its position, and behind those every
    /// other one that is known, which only connected prefixes lead to.
    pub(super) fn resolve(&self, config: &Checked, host: &HostView) -> (Vec<Adjacency>, Neighbors) {
        let known = host.neighbors.keys().copied();
        let fixed = config.neighbors.iter().map(|fixed| (fixed.interface, fixed.address));
        let others: BTreeSet<_> =
            known.chain(fixed).filter(|key| !self.positions.contains_key(key)).collect();
        let mut neighbors = Neighbors::default();
        let mut adjacencies = Vec::with_capacity(self.order.len() + others.len());
        for ((interface, address), position) in self.order.iter().copied().chain(others).zip(0..) {
            neighbors.insert(interface, address, AdjacencyId(position));
            adjacencies.push(resolve_one(interface, address, config, host));
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
