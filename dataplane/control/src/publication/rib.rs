//! From candidate routes to the chosen ones, and from those to tables.
//!
//! A prefix may be given by the configuration, by the kernel, or by this machine having the address.
//! Preference: own addresses, then the configuration, then the kernel.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use config::{Checked, RouteTarget};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use tables::{AdjacencyId, Fib4, Fib6, Groups, GroupsError, NextHopGroup, RouteId};
use wire::InterfaceId;

use super::PublicationError;
use super::adjacencies::Adjacencies;
use super::host_view::{HostView, NextHopView, RouteView};

/// The largest weight that one next hop counts for, so that a group stays small: a kernel weight
/// goes up to 256, and 64 entries still express shares to within 2 %.
const GROUP_MEMBERS_MAX: usize = 64;

/// Chosen routes, ready for workers.
#[derive(Clone, Debug)]
pub(super) struct Rib {
    pub(super) fib4: Arc<Fib4>,
    pub(super) fib6: Arc<Fib6>,
    pub(super) groups: Arc<Groups>,
    pub(super) counts: RibCounts,
}

/// How many routes there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RibCounts {
    /// IPv4 prefixes.
    pub v4: usize,
    /// IPv6 prefixes.
    pub v6: usize,
    /// Prefixes, part of the above, that the packet path cannot express and leaves to the kernel.
    pub unexpressible: usize,
}

/// Groups, each once.
#[derive(Default)]
struct Interned {
    list: Vec<NextHopGroup>,
    by_target: HashMap<RouteView, RouteId>,
    local: Option<RouteId>,
    broadcast: Option<RouteId>,
}

impl Interned {
    fn push(&mut self, group: NextHopGroup) -> Result<RouteId, PublicationError> {
        let id = u16::try_from(self.list.len()).ok().map(RouteId).filter(|id| *id <= RouteId::MAX);
        let id = id.ok_or(GroupsError::TooManyGroups)?;
        self.list.push(group);
        Ok(id)
    }

    fn local(&mut self) -> Result<RouteId, PublicationError> {
        if let Some(id) = self.local {
            return Ok(id);
        }
        let id = self.push(NextHopGroup::Local)?;
        self.local = Some(id);
        Ok(id)
    }

    fn broadcast(&mut self) -> Result<RouteId, PublicationError> {
        if let Some(id) = self.broadcast {
            return Ok(id);
        }
        let id = self.push(NextHopGroup::Broadcast)?;
        self.broadcast = Some(id);
        Ok(id)
    }

    fn intern(
        &mut self,
        target: &RouteView,
        adjacencies: &mut Adjacencies,
    ) -> Result<RouteId, PublicationError> {
        if let Some(id) = self.by_target.get(target) {
            return Ok(*id);
        }
        let id = match target {
            RouteView::Kernel => self.local()?,
            RouteView::Blackhole => self.push(NextHopGroup::Blackhole)?,
            RouteView::Unreachable => self.push(NextHopGroup::Unreachable)?,
            RouteView::Prohibit => self.push(NextHopGroup::Prohibit)?,
            RouteView::NextHops(hops) => match &**hops {
                [] => self.push(NextHopGroup::Unreachable)?,
                [NextHopView { interface, via: None, .. }] => {
                    self.push(NextHopGroup::Glean(*interface))?
                }
                hops => {
                    let members = members(hops, adjacencies);
                    if members.is_empty() {
                        self.local()?
                    } else {
                        self.push(NextHopGroup::Adjacencies(members.into()))?
                    }
                }
            },
        };
        self.by_target.insert(target.clone(), id);
        Ok(id)
    }
}

/// Each next hop as often as its weight says.
fn members(hops: &[NextHopView], adjacencies: &mut Adjacencies) -> Vec<AdjacencyId> {
    let total: usize = hops.iter().map(|hop| usize::from(hop.weight.max(1))).sum();
    let mut members = Vec::new();
    for hop in hops {
        let Some(via) = hop.via else { continue };
        let weight = usize::from(hop.weight.max(1));
        let share = if hops.len() == 1 {
            1
        } else if total <= GROUP_MEMBERS_MAX {
            weight
        } else {
            (weight * GROUP_MEMBERS_MAX / total).max(1)
        };
        let id = adjacencies.require(hop.interface, via, hop.mtu);
        members.extend(std::iter::repeat_n(id, share));
    }
    members
}

/// Chooses among all candidates and builds the tables.
pub(super) fn build(
    config: &Checked,
    host: &HostView,
    adjacencies: &mut Adjacencies,
) -> Result<Rib, PublicationError> {
    let mut groups = Interned::default();
    let mut counts = RibCounts::default();
    let mut chosen: HashMap<IpNet, RouteId> = HashMap::with_capacity(host.routes.len());
    for (prefix, target) in &host.routes {
        if **target == RouteView::Kernel {
            counts.unexpressible += 1;
        }
        chosen.insert(*prefix, groups.intern(target, adjacencies)?);
    }
    for (prefix, target) in configured(config, host) {
        chosen.insert(prefix, groups.intern(&target, adjacencies)?);
    }
    // Before the addresses of the machine, which may have the lowest one of a subnet for itself.
    for address in broadcasts(host) {
        chosen.insert(IpNet::from(address), groups.broadcast()?);
    }
    for address in &host.locals {
        // An egress address belongs to its slices, wherever the kernel has it.
        if !config.egress.iter().any(|egress| egress.prefix.contains(address)) {
            chosen.insert(IpNet::from(*address), groups.local()?);
        }
    }
    let mut v4: Vec<(Ipv4Net, RouteId)> = Vec::with_capacity(chosen.len());
    let mut v6: Vec<(Ipv6Net, RouteId)> = Vec::new();
    for (prefix, route) in chosen {
        match prefix {
            IpNet::V4(prefix) => v4.push((prefix, route)),
            IpNet::V6(prefix) => v6.push((prefix, route)),
        }
    }
    (counts.v4, counts.v6) = (v4.len(), v6.len());
    Ok(Rib {
        fib4: Arc::new(Fib4::build(v4)?),
        fib6: Arc::new(Fib6::build(v6)?),
        groups: Arc::new(Groups::from_list(&groups.list)?),
        counts,
    })
}

/// Addresses of connected subnets that no packet may be forwarded to.
///
/// RFC 2644 section 3: receipt and forwarding of directed broadcasts are off unless somebody turns them
/// on. RFC 1812 section 4.2.3.1 (2): a router "SHOULD silently discard" what is addressed to the all-zeros
/// form of a subnet's broadcast address too. RFC 3021 section 2.1: a /31 has neither, and so has a /32. A prefix that is not connected says nothing
/// about its first and last address: what is behind its next hop may be divided in any way.
fn broadcasts(host: &HostView) -> impl Iterator<Item = IpAddr> + '_ {
    let subnets = host.interfaces.iter().flat_map(|interface| &interface.addresses);
    let of_subnets = subnets.filter_map(|subnet| match subnet {
        IpNet::V4(subnet) if subnet.prefix_len() <= 30 => {
            Some([IpAddr::V4(subnet.network()), IpAddr::V4(subnet.broadcast())])
        }
        _ => None,
    });
    of_subnets.flatten().chain(host.broadcasts.iter().copied())
}

/// Static routes: of each prefix those with the lowest metric, as one group.
fn configured(config: &Checked, host: &HostView) -> HashMap<IpNet, RouteView> {
    let mut best: HashMap<IpNet, (u32, RouteView)> = HashMap::new();
    for route in config.static_routes() {
        let target = match route.target {
            RouteTarget::Via { address, interface } => {
                match interface.or_else(|| interface_of(address, host)) {
                    Some(interface) => RouteView::NextHops(vec![NextHopView {
                        interface,
                        via: Some(address),
                        weight: 1,
                        mtu: 0,
                    }]),
                    None => RouteView::Kernel,
                }
            }
            RouteTarget::OnLink(interface) => {
                let hop = NextHopView { interface, via: None, weight: 1, mtu: 0 };
                RouteView::NextHops(vec![hop])
            }
            RouteTarget::Blackhole => RouteView::Blackhole,
            RouteTarget::Unreachable => RouteView::Unreachable,
            RouteTarget::Prohibit => RouteView::Prohibit,
        };
        match best.get_mut(&route.prefix) {
            Some((metric, _)) if *metric < route.metric => {}
            Some((metric, RouteView::NextHops(hops))) if *metric == route.metric => {
                if let RouteView::NextHops(more) = target {
                    hops.extend(more);
                }
            }
            Some(kept) => *kept = (route.metric, target),
            None => {
                best.insert(route.prefix, (route.metric, target));
            }
        }
    }
    best.into_iter().map(|(prefix, (_, target))| (prefix, target)).collect()
}

/// The interface on whose link an address is: the one with the longest connected prefix.
fn interface_of(address: IpAddr, host: &HostView) -> Option<InterfaceId> {
    (0_u8..)
        .zip(&host.interfaces)
        .flat_map(|(id, interface)| interface.addresses.iter().map(move |net| (id, net)))
        .filter(|(_, net)| net.contains(&address))
        .max_by_key(|(_, net)| net.prefix_len())
        .map(|(id, _)| InterfaceId(id))
}
