//! [`Table`]: routes of the Internet, dealt to groups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use benches::routes::Routes;
use ipnet::IpNet;
use prefix_trie::PrefixMap;

use super::{GROUPS, STEADY_PREFIX};
use crate::packet::Random;

/// Prefixes with their groups.
pub(crate) struct Table {
    pub(crate) v4: PrefixMap<ipnet::Ipv4Net, usize>,
    pub(crate) v6: PrefixMap<ipnet::Ipv6Net, usize>,
}

impl Table {
    /// Every `step`-th route of the Internet; of a synthetic table, visibly, without the data.
    pub(crate) fn read(step: usize) -> Self {
        let routes = Routes::full();
        let mut table = Self { v4: PrefixMap::new(), v6: PrefixMap::new() };
        let steady: ipnet::Ipv4Net = STEADY_PREFIX.parse().expect("a prefix");
        for (number, (prefix, _)) in routes.v4.into_iter().step_by(step).enumerate() {
            // The test's own links, and what no kernel routes.
            let first = prefix.network().octets()[0];
            let is_own = prefix.prefix_len() > 0 && matches!(first, 0 | 10 | 127 | 224..);
            if !is_own && !steady.contains(&prefix) {
                table.v4.insert(prefix.trunc(), number % GROUPS);
            }
        }
        for (number, (prefix, _)) in routes.v6.into_iter().step_by(step).enumerate() {
            let segments = prefix.network().segments();
            let is_documentation = segments[..2] == [0x2001, 0xdb8];
            let is_global = segments[0] & 0xe000 == 0x2000 || prefix.prefix_len() == 0;
            if is_global && !is_documentation {
                table.v6.insert(prefix.trunc(), number % GROUPS);
            }
        }
        table
    }

    /// The prefixes of a group, in both families.
    pub(crate) fn of_group(&self, group: usize) -> impl Iterator<Item = IpNet> + '_ {
        let v4 = self.v4.iter().map(|(prefix, of)| (IpNet::from(prefix), *of));
        let v6 = self.v6.iter().map(|(prefix, of)| (IpNet::from(prefix), *of));
        v4.chain(v6).filter(move |(_, of)| *of == group).map(|(prefix, _)| prefix)
    }

    /// The groups of all prefixes that hold an address, the longest prefix first.
    pub(crate) fn covering(&self, address: IpAddr) -> Vec<usize> {
        let mut all: Vec<usize> = match address {
            IpAddr::V4(address) => self.v4.cover_values(&address.into()).copied().collect(),
            IpAddr::V6(address) => self.v6.cover_values(&address.into()).copied().collect(),
        };
        all.reverse();
        all
    }

    /// An address in each of about `count` prefixes, with the groups that it may meet.
    pub(crate) fn addresses(&self, count: usize, random: &mut Random) -> Vec<(IpAddr, Vec<usize>)> {
        let step = (self.v4.len() / count).max(1);
        let v4 = self.v4.keys().step_by(step).map(|prefix| {
            let host = random.next() as u32 & !u32::from(prefix.netmask());
            IpAddr::from(Ipv4Addr::from(u32::from(prefix.network()) | host))
        });
        let mut all: Vec<IpAddr> = v4.collect();
        let step = (self.v6.len() / (count / 4)).max(1);
        all.extend(self.v6.keys().step_by(step).map(|prefix| {
            let bits = u128::from(random.next()) << 64 | u128::from(random.next());
            let host = bits & !u128::from(prefix.netmask());
            IpAddr::from(Ipv6Addr::from(u128::from(prefix.network()) | host))
        }));
        let is_routed = |address: &IpAddr| match address {
            IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 10 | 127 | 224..),
            IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
        };
        all.retain(is_routed);
        all.into_iter().map(|address| (address, self.covering(address))).collect()
    }
}
