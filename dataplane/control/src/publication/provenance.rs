//! Which route an address takes, where that comes from, and what was not chosen: for people. The FIB gives
//! what the route leads to, and forgets its prefix; so whether it says of every address what the routes do is
//! asked here too.

use std::net::IpAddr;

use ipnet::IpNet;
use tables::Audit;

use super::{CandidateView, PrefixView, Publication, RouteSource};

/// The longest prefix that covers an address.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteEntry {
    /// The prefix.
    pub prefix: IpNet,
    /// Who gave the route.
    pub source: RouteSource,
    /// Whether the packet path leaves it to the kernel because it cannot express it.
    pub is_unexpressible: bool,
}

impl Publication {
    /// The entry that `address` finds.
    #[must_use]
    pub fn route_entry(&self, address: IpAddr) -> Option<RouteEntry> {
        let PrefixView { prefix, candidates, .. } =
            self.rib.covering(address).into_iter().next()?;
        let CandidateView { source, unexpressible, .. } = candidates.into_iter().next()?;
        Some(RouteEntry { prefix, source, is_unexpressible: unexpressible.is_some() })
    }

    /// Every prefix that holds the address with its candidates, the longest prefix, which decides, first.
    #[must_use]
    pub fn routes_covering(&self, address: IpAddr) -> Vec<PrefixView> {
        self.rib.covering(address)
    }

    /// The routes of the prefix itself.
    #[must_use]
    pub fn routes_of(&self, prefix: IpNet) -> Option<PrefixView> {
        self.rib.exact(prefix)
    }

    /// Prefixes in the order of their addresses, a shorter one first, IPv4 before IPv6. `after`: only what
    /// comes behind this one.
    pub fn routes_from(&self, after: Option<IpNet>) -> impl Iterator<Item = PrefixView> + '_ {
        self.rib.from(after)
    }

    /// Holds the look-up tables that workers read, of IPv4 and of IPv6, against the routes in force, for every
    /// address. `None` while a change is on its way into the tables. With a million routes it takes some tenths of
    /// a second.
    #[must_use]
    pub fn audit_routes(&self) -> Option<[Audit; 2]> {
        let is_on_its_way = self.rib.has_changes() || self.is_table_new;
        let snapshot = self.current();
        (!is_on_its_way).then(|| {
            [snapshot.fib4.audit(self.rib.routes4()), snapshot.fib6.audit(self.rib.routes6())]
        })
    }
}
