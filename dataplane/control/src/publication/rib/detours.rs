//! The groups that plugins' next hops and egress tags lead to. They come and go with snapshots.

use std::collections::HashSet;
use std::net::IpAddr;

use config::{Checked, NextHop};
use tables::{Actions, AdjacencyState, Class, Detour, RouteId, Way};
use wire::InterfaceId;

use super::super::host_view::{HostView, NextHopView, RouteView};
use super::super::numbers::ActionNames;
use super::Rib;
use super::derive::interface_of;
use super::groups::Content;

/// What publication remembers of next hops.
#[derive(Clone, Debug, Default)]
pub(super) struct Detours {
    /// The groups that the last snapshot names, each as often as it does.
    pub(super) held: Vec<RouteId>,
    /// Neighbors that failed and have not answered since. The kernel tries them again and again, and in
    /// between they look like those that were never asked.
    failed: HashSet<(InterfaceId, IpAddr)>,
}

impl Rib {
    /// What plugins' numbers mean in a snapshot that is to be made.
    pub(in super::super) fn actions(
        &mut self,
        config: &Checked,
        host: &HostView,
        names: &ActionNames,
    ) -> Actions {
        let ways: Vec<Option<NextHopView>> =
            config.next_hops.iter().map(|hop| view(hop, host)).collect();
        self.note_failures(config, host, &ways);
        let mut actions = Actions::default();
        let mut held = Vec::new();
        for (hop, way) in config.next_hops.iter().zip(&ways) {
            let way = tunnel(hop).unwrap_or_else(|| {
                Way::Group(self.group(way.iter().copied().collect(), &mut held))
            });
            put(&mut actions.next_hops, names.next_hops.get(&hop.name), || Detour {
                name: hop.name.as_str().into(),
                way,
            });
        }
        for tag in &config.egress_tags {
            // A tunnel is the only next hop of its tag.
            let first = tag.members.first().and_then(|only| config.next_hops.get(only.next_hop));
            let way = first.and_then(tunnel).unwrap_or_else(|| {
                let members = tag.members.iter().filter_map(|member| {
                    let way = ways.get(member.next_hop).copied().flatten()?;
                    let usable = self.is_usable(&way, host);
                    usable.then_some(NextHopView { weight: member.weight, ..way })
                });
                let members = members.collect();
                Way::Group(self.group(members, &mut held))
            });
            put(&mut actions.tags, names.tags.get(&tag.name), || Detour {
                name: tag.name.as_str().into(),
                way,
            });
        }
        for class in &config.classes {
            put(&mut actions.classes, names.classes.get(&class.name), || Class {
                name: class.name.as_str().into(),
                dscp: class.dscp,
            });
        }
        // After the new ones, so that a group that stays is never without use.
        for route in std::mem::replace(&mut self.detours.held, held) {
            self.groups.release(route);
        }
        actions
    }

    /// The group of these next hops; [`RouteId::NONE`] for none, or when there is no room for another.
    fn group(&mut self, hops: Vec<NextHopView>, held: &mut Vec<RouteId>) -> RouteId {
        if hops.is_empty() {
            return RouteId::NONE;
        }
        let content = Content::Route(RouteView::NextHops(hops));
        let route = self.groups.acquire(&content, &mut self.adjacencies);
        held.extend(route);
        route.unwrap_or(RouteId::NONE)
    }

    fn note_failures(&mut self, config: &Checked, host: &HostView, ways: &[Option<NextHopView>]) {
        let mut failed = HashSet::new();
        for way in ways.iter().flatten() {
            let Some(address) = way.via else { continue };
            let key = (way.interface, address);
            let is_fixed =
                config.neighbors.iter().any(|fixed| (fixed.interface, fixed.address) == key);
            let is_failed = match host.neighbors.get(&key).map(|neighbor| neighbor.state) {
                _ if is_fixed => false,
                Some(AdjacencyState::Failed) => true,
                Some(AdjacencyState::Resolved) => false,
                Some(AdjacencyState::Unresolved | AdjacencyState::LinkDown) | None => {
                    self.detours.failed.contains(&key)
                }
            };
            if is_failed {
                failed.insert(key);
            }
        }
        self.detours.failed = failed;
    }

    /// Whether an egress tag may use a next hop: its link is up, and it has not failed to answer.
    fn is_usable(&self, way: &NextHopView, host: &HostView) -> bool {
        let failed = |address| self.detours.failed.contains(&(way.interface, address));
        !host.down.contains(&way.interface) && !way.via.is_some_and(failed)
    }
}

/// The way to a next hop that is on no link.
fn tunnel(hop: &NextHop) -> Option<Way> {
    Some(match hop.way {
        config::Way::Link { .. } => return None,
        config::Way::Node(node) => Way::Node(node),
        config::Way::Site(site) => Way::Site(site),
        config::Way::Here => Way::Here,
    })
}

/// Where a next hop is; `None` if it is on none of the router's links.
fn view(hop: &NextHop, host: &HostView) -> Option<NextHopView> {
    let config::Way::Link { via, interface, mtu } = hop.way else { return None };
    let interface = interface.or_else(|| interface_of(via, host))?;
    Some(NextHopView { interface, via: Some(via), weight: 1, mtu })
}

/// Puts a thing in the position that is its number.
fn put<T>(list: &mut Vec<Option<T>>, number: Option<&u16>, make: impl FnOnce() -> T) {
    let Some(position) = number.map(|number| usize::from(*number)) else { return };
    if list.len() <= position {
        list.resize_with(position + 1, || None);
    }
    if let Some(place) = list.get_mut(position) {
        *place = Some(make());
    }
}

impl Detours {
    /// The same under the ids of a copy of the groups.
    pub(super) fn renamed(&self, renamed: &std::collections::HashMap<RouteId, RouteId>) -> Self {
        let held = self.held.iter().filter_map(|id| renamed.get(id).copied()).collect();
        Self { held, failed: self.failed.clone() }
    }
}
