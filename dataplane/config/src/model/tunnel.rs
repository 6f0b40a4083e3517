//! How packets travel between nodes and between sites.

use std::fmt;

use crate::model::{Checked, Node, Site};

/// A tunnel, alike in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The encapsulation.
    pub kind: TunnelKind,
    /// Whether the DSCP of a packet is copied to its outer header (RFC 2983); if not, it is 0 there.
    pub copies_dscp: bool,
}

/// An encapsulation. Each carries IPv4 and IPv6 packets over either of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunnelKind {
    /// IP in UDP: GUE variant 1 of draft-ietf-intarea-gue.
    #[default]
    Gue,
    /// Generic routing encapsulation: RFC 2784, RFC 2890, RFC 7676.
    Gre(Gre),
    /// IP in IP without a header between: RFC 2003, RFC 4213 section 3, RFC 2473.
    Ipip,
}

/// The optional fields of a GRE header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gre {
    /// The key: sent, and demanded of what comes in; `None` refuses packets that have one.
    pub key: Option<u32>,
    /// Whether packets leave with a checksum.
    pub checksum: bool,
    /// Whether packets leave with a sequence number.
    pub sequence: bool,
}

impl Default for Tunnel {
    fn default() -> Self {
        Self { kind: TunnelKind::default(), copies_dscp: true }
    }
}

/// As the keys of the file say it.
impl fmt::Display for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TunnelKind::Gue => f.write_str("gue")?,
            TunnelKind::Ipip => f.write_str("ipip")?,
            TunnelKind::Gre(Gre { key, checksum, sequence }) => {
                f.write_str("gre")?;
                if let Some(key) = key {
                    write!(f, ", key {key}")?;
                }
                if checksum {
                    f.write_str(", checksum")?;
                }
                if sequence {
                    f.write_str(", sequence")?;
                }
            }
        }
        if self.copies_dscp { Ok(()) } else { f.write_str(", dscp zero") }
    }
}

impl Checked {
    /// The tunnel between this node and another one of its site.
    ///
    /// Both ends of a tunnel read the same rule from the same list: the `tunnel` of the one of them that
    /// has any, else `[tunnel]`. Two that differ are refused.
    #[must_use]
    pub fn tunnel_to_node(&self, node: &Node) -> Tunnel {
        let own = self.local_node.and_then(|position| self.nodes.get(position));
        node.tunnel.or_else(|| own?.tunnel).unwrap_or(self.tunnel)
    }

    /// The tunnel between this node and another site.
    #[must_use]
    pub fn tunnel_to_site(&self, site: &Site) -> Tunnel {
        let own = self.local_node.and_then(|position| self.nodes.get(position));
        let own_site = own.and_then(|node| self.sites.get(usize::from(node.site?.0)));
        site.tunnel.or_else(|| own_site?.tunnel).unwrap_or(self.tunnel)
    }

    /// The tunnels that this node is an end of, or its site is: to each other node of its site, and to
    /// each other site.
    pub fn tunnels(&self) -> impl Iterator<Item = Tunnel> + '_ {
        let own = self.local_node.and_then(|position| self.nodes.get(position));
        let nodes = self.nodes.iter().enumerate().filter(move |(position, node)| {
            own.is_some_and(|own| {
                Some(*position) != self.local_node
                    && node.site == own.site
                    && own.endpoints.outer_to(&node.endpoints).is_some()
            })
        });
        let sites = self.sites.iter().enumerate().filter(move |(position, site)| {
            own.is_some_and(|own| {
                own.site.is_none_or(|own| usize::from(own.0) != *position)
                    && own.endpoints.outer_to(&site.endpoints).is_some()
            })
        });
        nodes
            .map(|(_, node)| self.tunnel_to_node(node))
            .chain(sites.map(|(_, site)| self.tunnel_to_site(site)))
    }
}
