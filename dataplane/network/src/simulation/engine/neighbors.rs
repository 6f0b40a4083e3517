//! The kernels of routers: they look for neighbors, find them late or not at all, and hear of new addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use control::publication::{Changes, NeighborView};
use tables::AdjacencyState;
use wire::{InterfaceId, MacAddress};

use super::{
    Engine, Event, FAILED_NANOS, MILLI, SECOND, STATIONS, Station, Step, router_mac,
    station_segment,
};
use crate::model::{NAMES, ROUTERS, interfaces, router_address, segment};
use crate::simulation::{Property, Sabotage, traffic};

impl Engine<'_> {
    pub(super) fn seek_required(&mut self, router: usize) {
        let machine = &self.routers[router].machine;
        // In an order of its own: that of a hash map would not be the same in the next run.
        let required: BTreeSet<(usize, IpAddr)> = machine
            .publication
            .required_neighbors()
            .filter(|neighbor| !machine.host.neighbors.contains_key(neighbor))
            .map(|(interface, address)| (interface.index(), address))
            .collect();
        for (interface, address) in required {
            self.seek(router, interface, address);
        }
    }

    pub(super) fn seek(&mut self, router: usize, interface: usize, address: IpAddr) {
        if self.routers[router].sought.insert((interface, address)) {
            let is_slow = !self.is_calm && self.random.u8(..8) == 0;
            let most = if is_slow { 3 * SECOND } else { 20 * MILLI };
            self.soon(most, Event::Resolve { router, interface, address });
        }
    }

    /// A station says where it is, or no longer does: those who know it find out.
    pub(super) fn announce(&mut self, station: usize) {
        for router in 0..ROUTERS {
            for interface in 0..interfaces(router) {
                for is_v6 in [false, true] {
                    let address = traffic::address(station, is_v6);
                    let known = (InterfaceId(interface as u8), address);
                    let is_known = self.routers[router].machine.host.neighbors.contains_key(&known);
                    if segment(router, interface) == station_segment(station) && is_known {
                        self.soon(500 * MILLI, Event::Resolve { router, interface, address });
                    }
                }
            }
        }
    }

    pub(super) fn resolve(&mut self, router: usize, interface: usize, address: IpAddr) -> Step {
        let is_deaf = self.options.sabotage == Some(Sabotage::Deaf);
        if is_deaf && router == 1 && self.is_calm {
            return Ok(());
        }
        let found = self.station_at(segment(router, interface), address);
        let view = match found {
            Some(mac) => {
                NeighborView { mac: Some(MacAddress(mac)), state: AdjacencyState::Resolved }
            }
            None => NeighborView { mac: None, state: AdjacencyState::Failed },
        };
        if found.is_none() && !self.is_over {
            self.at(self.now + FAILED_NANOS, Event::Resolve { router, interface, address });
        }
        let at = &mut self.routers[router];
        at.sought.remove(&(interface, address));
        let neighbor = (InterfaceId(interface as u8), address);
        if at.machine.host.neighbors.insert(neighbor, view) == Some(view) {
            return Ok(());
        }
        let changes = Changes { routes: false, neighbors: true };
        let result = at.machine.host_changed(changes);
        self.note(format_args!("{}: {address} is {:?}", NAMES[router], view.state));
        self.count(if found.is_some() { "neighbors resolved" } else { "neighbors failed" });
        result.map_err(|error| self.wrong(Property::Configuration, error.to_string()))
    }

    pub(super) fn station_at(&self, on: usize, address: IpAddr) -> Option<[u8; 6]> {
        let is_v6 = address.is_ipv6();
        let station = (0..STATIONS).find(|&station| {
            station_segment(station) == on && traffic::address(station, is_v6) == address
        });
        if let Some(station) = station {
            let Station { mac, is_silent } = self.stations[station];
            return (!is_silent).then_some(mac);
        }
        let ends = (0..ROUTERS)
            .flat_map(|router| (0..interfaces(router)).map(move |interface| (router, interface)));
        ends.filter(|&(router, interface)| segment(router, interface) == on)
            .find(|&(router, interface)| router_address(router, interface, is_v6) == address)
            .map(|(router, interface)| router_mac(router, interface))
    }
}
