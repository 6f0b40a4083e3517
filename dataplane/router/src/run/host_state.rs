//! The machine as the kernel mirror tells it, in the form that publication wants.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use control::kernel::{
    KernelEvent, KernelState, Link, LocalKind, NeighborChange, NeighborState, Scope,
};
use control::publication::{Changes, HostView, InterfaceView, NeighborView};
use ipnet::{IpNet, Ipv4Net};
use tables::AdjacencyState;
use wire::{InterfaceId, MacAddress};

/// What one of the router's interfaces can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    Up,
    NoCarrier,
    /// Set down by the operator.
    Down,
    /// The kernel has none of that name.
    Gone,
    /// It was taken away, and another one has its name: the sockets are still those of the old one.
    MadeAnew,
}

impl LinkState {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::NoCarrier => "no-carrier",
            Self::Down => "down",
            Self::Gone => "gone",
            Self::MadeAnew => "made-anew",
        }
    }
}

/// The kernel's state, and the view of it that is published. Routes are not part of it: publication takes
/// them as they come, and keeps them once.
#[derive(Debug)]
pub(crate) struct HostState {
    names: Vec<String>,
    /// The kernel's numbers of the interfaces that sockets are bound to.
    bound: Vec<u32>,
    kernel: KernelState,
    view: HostView,
}

impl HostState {
    /// The state of a machine of which nothing is known yet but the names of the router's interfaces.
    /// `bound` are the kernel's numbers of those that sockets are bound to.
    pub(crate) fn new(names: Vec<String>, bound: Vec<u32>) -> Self {
        Self { names, bound, kernel: KernelState::default(), view: HostView::default() }
    }

    pub(crate) fn view(&self) -> &HostView {
        &self.view
    }

    pub(crate) fn kernel(&self) -> &KernelState {
        &self.kernel
    }

    /// Whether the kernel's tables were read in full at least once.
    pub(crate) fn is_synchronized(&self) -> bool {
        self.kernel.synchronized
    }

    /// The kernel's number of one of the router's interfaces.
    pub(crate) fn ifindex(&self, id: InterfaceId) -> Option<u32> {
        let name = self.names.get(id.index())?;
        self.kernel.links.get(name).map(|link| link.ifindex)
    }

    /// The router's interface with this number.
    pub(crate) fn interface(&self, ifindex: u32) -> Option<InterfaceId> {
        self.view.links.get(&ifindex).copied()
    }

    /// What one of the router's interfaces can do now.
    pub(crate) fn link_state(&self, id: InterfaceId) -> LinkState {
        match self.names.get(id.index()).and_then(|name| self.kernel.links.get(name)) {
            None => LinkState::Gone,
            Some(link) if self.bound.get(id.index()) != Some(&link.ifindex) => LinkState::MadeAnew,
            Some(link) if !link.is_set_up => LinkState::Down,
            Some(link) if !link.up => LinkState::NoCarrier,
            Some(_) => LinkState::Up,
        }
    }

    /// Whether one of the router's interfaces is there and up.
    pub(crate) fn is_up(&self, id: InterfaceId) -> bool {
        self.link_state(id) == LinkState::Up
    }

    /// The router's interfaces that send nothing, and why.
    pub(crate) fn interfaces_down(&self) -> BTreeMap<&str, &'static str> {
        let states = (0..).map(InterfaceId).map(|id| self.link_state(id));
        let named = self.names.iter().map(String::as_str).zip(states);
        named
            .filter(|(_, state)| *state != LinkState::Up)
            .map(|(name, state)| (name, state.label()))
            .collect()
    }

    /// The addresses of the router's interfaces, with the lengths of the prefixes on their links.
    pub(crate) fn own_networks(&self) -> impl Iterator<Item = (&str, IpNet)> + '_ {
        let interfaces = self.names.iter().zip(&self.view.interfaces);
        interfaces.flat_map(|(name, interface)| {
            interface.addresses.iter().map(move |network| (name.as_str(), *network))
        })
    }

    /// Every address that this machine answers for.
    pub(crate) fn locals(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.view.locals.iter().copied()
    }

    /// Broadcast addresses of the machine's subnets.
    pub(crate) fn broadcasts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.view.broadcasts.iter().copied()
    }

    /// Takes news in, and says what it changed. News of routes is for the publication.
    pub(crate) fn apply(&mut self, event: &KernelEvent) -> Changes {
        if !matches!(event, KernelEvent::Routes { .. }) {
            self.kernel.apply(event);
        }
        match event {
            KernelEvent::Links(_) => {
                self.take_links();
                Changes { routes: true, neighbors: true }
            }
            KernelEvent::Addresses(_) => {
                self.take_addresses();
                Changes { routes: true, neighbors: false }
            }
            KernelEvent::Routes { .. } => Changes { routes: true, neighbors: false },
            KernelEvent::Neighbor(change) => {
                Changes { routes: false, neighbors: self.take_neighbor(change) }
            }
            KernelEvent::Synchronized(_) | KernelEvent::Failed(_) => Changes::default(),
        }
    }

    fn take_links(&mut self) {
        let before = std::mem::take(&mut self.view.links);
        self.view.down.clear();
        for (position, name) in (0_u8..).zip(&self.names) {
            if let Some(link) = self.kernel.links.get(name) {
                self.view.links.insert(link.ifindex, InterfaceId(position));
            }
            if !self.is_up(InterfaceId(position)) {
                self.view.down.insert(InterfaceId(position));
            }
        }
        self.take_addresses();
        if before != self.view.links {
            // What was learnt under other numbers means something else now.
            self.view.neighbors.clear();
            let neighbors: Vec<NeighborChange> = self
                .kernel
                .neighbors
                .iter()
                .map(|(&(ifindex, address), neighbor)| NeighborChange {
                    ifindex,
                    address,
                    neighbor: Some(*neighbor),
                })
                .collect();
            for change in &neighbors {
                self.take_neighbor(change);
            }
        }
    }

    fn take_addresses(&mut self) {
        let kernel = &self.kernel;
        self.view.interfaces =
            self.names.iter().map(|name| interface_view(kernel.links.get(name), kernel)).collect();
        // No packet from or to the loopback's prefix is on a wire.
        let loopback = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
        let is_on_wires = |net: &IpNet| !IpNet::V4(loopback).contains(net);
        let prefixes = kernel.addresses.locals.keys();
        let prefixes = prefixes.filter(|net| net.prefix_len() < net.max_prefix_len());
        self.view.local_prefixes = prefixes.filter(|net| is_on_wires(net)).copied().collect();
        let single = |is_wanted: fn(LocalKind) -> bool| {
            kernel
                .addresses
                .locals
                .iter()
                .filter(move |(net, kind)| {
                    net.prefix_len() == net.max_prefix_len() && is_wanted(**kind)
                })
                .map(|(net, _)| net.addr())
                .collect()
        };
        self.view.locals = single(|kind| kind != LocalKind::Broadcast);
        self.view.broadcasts = single(|kind| kind == LocalKind::Broadcast);
    }

    /// Says whether anything changed that a worker sees: a neighbor that goes from reachable to
    /// stale and back is the same to it.
    fn take_neighbor(&mut self, change: &NeighborChange) -> bool {
        let Some(&interface) = self.view.links.get(&change.ifindex) else { return false };
        let key = (interface, change.address);
        // One that failed while the kernel was not asked to keep it says nothing of now: the kernel never
        // looks for it again by itself, and does not forget it either. The next packet asks anew.
        let known =
            change.neighbor.filter(|known| known.managed || known.state != NeighborState::Failed);
        let view = known.map(|neighbor| {
            let state = match neighbor.state {
                NeighborState::Failed => AdjacencyState::Failed,
                state if state.is_usable() && neighbor.mac.is_some() => AdjacencyState::Resolved,
                _ => AdjacencyState::Unresolved,
            };
            NeighborView { mac: neighbor.mac.map(MacAddress), state }
        });
        let before = match view {
            Some(view) => self.view.neighbors.insert(key, view),
            None => self.view.neighbors.remove(&key),
        };
        before != view
    }
}

fn interface_view(link: Option<&Link>, kernel: &KernelState) -> InterfaceView {
    let Some(link) = link else {
        return InterfaceView { mac: MacAddress::default(), mtu: 0, addresses: Vec::new() };
    };
    InterfaceView {
        mac: MacAddress(link.mac.unwrap_or_default()),
        mtu: u16::try_from(link.mtu).unwrap_or(u16::MAX),
        addresses: kernel
            .addresses
            .addresses
            .iter()
            .filter(|address| address.ifindex == link.ifindex && !address.tentative)
            .filter(|address| address.scope == Scope::Global || address.scope == Scope::Site)
            .map(|address| address.network)
            .collect(),
    }
}
