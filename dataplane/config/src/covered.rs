//! Shared addresses that are somebody else's too: what is allowed, and rarely meant.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::model::Checked;

impl Checked {
    /// Warnings of egress prefixes that hold an address at which tunnels to this node end.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Some(node) = self.local_node.and_then(|position| self.nodes.get(position)) else {
            return Vec::new();
        };
        let site = node.site.and_then(|site| self.sites.get(usize::from(site.0)));
        let node = ("tunnels to this node end", Some(node.endpoints));
        let site = ("tunnels to this site end", site.map(|site| site.endpoints));
        let mut warnings = Vec::new();
        for (what, endpoints) in [node, site] {
            let Some(endpoints) = endpoints else { continue };
            let ends = [endpoints.ipv4.map(IpAddr::V4), endpoints.ipv6.map(IpAddr::V6)];
            for address in ends.into_iter().flatten() {
                let prefixes = self.egress.iter().map(|egress| egress.prefix);
                for prefix in prefixes.filter(|prefix| prefix.contains(&address)) {
                    warnings.push(format!(
                        "egress prefix {prefix} holds {address}, at which {what}: all other packets to \
                         that address go to the owners of slices, and none to this machine's kernel"
                    ));
                }
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }

    /// Warnings of egress prefixes that hold an interface's own address. `own` are the names of interfaces
    /// with their addresses and the lengths of the prefixes on their links.
    ///
    /// An egress prefix of that address alone is meant: so is an address shared that a machine has.
    #[must_use]
    pub fn warnings_on<'a>(&self, own: impl IntoIterator<Item = (&'a str, IpNet)>) -> Vec<String> {
        let mut warnings = Vec::new();
        for (interface, network) in own {
            let address = network.addr();
            let holds = |prefix: &IpNet| {
                prefix.contains(&address) && prefix.prefix_len() < prefix.max_prefix_len()
            };
            let prefixes = self.egress.iter().map(|egress| egress.prefix);
            for prefix in prefixes.filter(holds) {
                warnings.push(format!(
                    "egress prefix {prefix} holds {address}, the own address of {interface}: packets to \
                     it go to the owners of slices, and none to this machine's kernel"
                ));
            }
        }
        warnings.sort();
        warnings.dedup();
        warnings
    }
}
