//! Candidates that follow from the configuration and from the machine's addresses.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use config::{Checked, RouteTarget};
use ipnet::IpNet;
use prefix_trie::joint::set::JointPrefixSet;
use wire::InterfaceId;

use super::super::host_view::{HostView, NextHopView, RouteView};
use super::targets::Said;

/// Addresses of connected subnets that no packet may be forwarded to.
///
/// RFC 2644 section 3: receipt and forwarding of directed broadcasts are off unless somebody turns them
/// on. RFC 1812 section 4.2.3.1 (2): a router "SHOULD silently discard" what is addressed to the all-zeros
/// form of a subnet's broadcast address too. RFC 3021 section 2.1: a /31 has neither, and so has a /32. A
/// prefix that is not connected says nothing about its first and last address: what is behind its next hop
/// may be divided in any way.
pub(super) fn broadcasts(host: &HostView) -> impl Iterator<Item = IpNet> + '_ {
    let subnets = host.interfaces.iter().flat_map(|interface| &interface.addresses);
    let of_subnets = subnets.filter_map(|subnet| match subnet {
        IpNet::V4(subnet) if subnet.prefix_len() <= 30 => {
            Some([IpAddr::V4(subnet.network()), IpAddr::V4(subnet.broadcast())])
        }
        _ => None,
    });
    of_subnets.flatten().chain(host.broadcasts.iter().copied()).map(IpNet::from)
}

/// Addresses of the machine, and prefixes that are all its own, egress addresses that it has among them.
///
/// The kernel asks its table of these before any other, whereas here they are prefixes among others: a route to
/// a part of such a prefix wins.
pub(super) fn own_prefixes(host: &HostView) -> impl Iterator<Item = IpNet> + '_ {
    let single = host.locals.iter().copied().map(IpNet::from);
    single.chain(host.local_prefixes.iter().copied())
}

/// The prefixes of all egress addresses. A machine may have tens of thousands, each of them an address of its
/// own as well.
pub(super) fn egress_prefixes(config: &Checked) -> JointPrefixSet<IpNet> {
    config.egress.iter().map(|egress| egress.prefix).collect()
}

/// Static routes: of each prefix and metric what it leads to. Next hops of one metric are one route.
pub(super) fn configured(config: &Checked, host: &HostView) -> HashMap<IpNet, BTreeMap<u32, Said>> {
    let mut all: HashMap<IpNet, BTreeMap<u32, Said>> = HashMap::new();
    for route in config.static_routes() {
        let hop = |interface, via| {
            let hop = NextHopView { interface, via, weight: 1, mtu: route.mtu };
            Said::View(RouteView::NextHops(vec![hop]))
        };
        let said = match route.target {
            RouteTarget::Via { address, interface } => {
                match interface.or_else(|| interface_of(address, host)) {
                    Some(interface) => hop(interface, Some(address)),
                    None => Said::NoLink,
                }
            }
            RouteTarget::OnLink(interface) => hop(interface, None),
            RouteTarget::Blackhole => Said::View(RouteView::Blackhole),
            RouteTarget::Unreachable => Said::View(RouteView::Unreachable),
            RouteTarget::Prohibit => Said::View(RouteView::Prohibit),
        };
        let of_prefix = all.entry(route.prefix.trunc()).or_default();
        match (of_prefix.get_mut(&route.metric), said) {
            (None, said) => {
                of_prefix.insert(route.metric, said);
            }
            (
                Some(Said::View(RouteView::NextHops(hops))),
                Said::View(RouteView::NextHops(more)),
            ) => hops.extend(more),
            // The first of equal metric stands.
            (Some(_), _) => {}
        }
    }
    all
}

/// The interface on whose link an address is: the one with the longest connected prefix.
pub(super) fn interface_of(address: IpAddr, host: &HostView) -> Option<InterfaceId> {
    (0_u8..)
        .zip(&host.interfaces)
        .flat_map(|(id, interface)| interface.addresses.iter().map(move |net| (id, net)))
        .filter(|(_, net)| net.contains(&address))
        .max_by_key(|(_, net)| net.prefix_len())
        .map(|(id, _)| InterfaceId(id))
}
