//! Which route an address takes, and where that comes from: for people. The FIB gives what the route
//! leads to, and forgets its prefix.

use std::collections::HashSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{HostView, Publication, RouteView};

/// The longest prefix that covers an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The prefix.
    pub prefix: IpNet,
    /// Who gave the route.
    pub source: RouteSource,
}

/// Who gave a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteSource {
    /// An address of this machine.
    OwnAddress,
    /// The configuration or one of its route files.
    Configuration,
    /// The kernel, where a routing daemon or the operator put it, or an interface's own prefix.
    Kernel,
    /// The kernel, as a route that the packet path cannot express.
    KernelUnexpressible,
}

impl Publication {
    /// The entry that `address` finds, by the preference among sources that the published tables were
    /// built with. `host` is what was published last.
    #[must_use]
    pub fn route_entry(&self, host: &HostView, address: IpAddr) -> Option<RouteEntry> {
        let is_egress = self.config.egress.iter().any(|egress| egress.prefix.contains(&address));
        if host.locals.contains(&address) && !is_egress {
            return Some(RouteEntry { prefix: address.into(), source: RouteSource::OwnAddress });
        }
        let configured: HashSet<IpNet> = self
            .config
            .static_routes()
            .map(|route| route.prefix)
            .filter(|prefix| prefix.contains(&address))
            .collect();
        covering(address).find_map(|prefix| {
            let source = if configured.contains(&prefix) {
                RouteSource::Configuration
            } else {
                match **host.routes.get(&prefix)? {
                    RouteView::Kernel => RouteSource::KernelUnexpressible,
                    _ => RouteSource::Kernel,
                }
            };
            Some(RouteEntry { prefix, source })
        })
    }
}

/// Every prefix that holds the address, the longest first.
fn covering(address: IpAddr) -> impl Iterator<Item = IpNet> {
    let longest = if address.is_ipv4() { 32 } else { 128 };
    (0..=longest).rev().filter_map(move |length| match address {
        IpAddr::V4(address) => Ipv4Net::new(address, length).ok().map(|net| net.trunc().into()),
        IpAddr::V6(address) => Ipv6Net::new(address, length).ok().map(|net| net.trunc().into()),
    })
}
