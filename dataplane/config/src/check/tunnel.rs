//! `[tunnel]`, and `tunnel` of nodes and sites: how packets travel between them.

use toml::Spanned;

use super::topology::Topology;
use super::{Checker, bounded};
use crate::model::{Gre, Tunnel, TunnelKind};
use crate::raw::{Field, RawConfig, RawTunnel};
use crate::reason::{Place, Reason};

const GUE_PORT_DEFAULT: u32 = 6080;

impl Checker<'_> {
    /// `[tunnel]`: how packets travel where nothing else is said, and the port of GUE.
    pub(super) fn tunnel(&mut self, raw: &RawConfig, topology: &Topology) -> (Tunnel, u16) {
        let at = self.table("tunnel", &raw.tunnel);
        let tunnel = match &raw.tunnel {
            Some(raw) => self.tunnel_table(&at, raw.get_ref()),
            None => Tunnel::default(),
        };
        let empty = RawTunnel::default();
        let raw = raw.tunnel.as_ref().map_or(&empty, Spanned::get_ref);
        let bounds = 1..=u16::MAX.into();
        let port = self.number(&at, "port", &raw.port, bounds, GUE_PORT_DEFAULT);
        let others = topology.nodes.iter().filter_map(|node| node.tunnel);
        let others = others.chain(topology.sites.iter().filter_map(|site| site.tunnel));
        let uses_gue = |tunnel: Tunnel| tunnel.kind == TunnelKind::Gue;
        if raw.port.is_some() && !std::iter::once(tunnel).chain(others).any(uses_gue) {
            let at = self.key(&at, "port", &raw.port);
            self.refuse(&at, Reason::TunnelKey { kind: word(tunnel.kind), of: "\"gue\"" });
        }
        (tunnel, u16::try_from(port).unwrap_or(u16::MAX))
    }

    /// `tunnel` of a node or site.
    pub(super) fn own_tunnel(&mut self, table: &Place, field: &Field<RawTunnel>) -> Option<Tunnel> {
        let raw = field.as_ref()?.get_ref();
        let at = self.key(table, "tunnel", field);
        if raw.port.is_some() {
            let at = self.key(&at, "port", &raw.port);
            self.refuse(&at, Reason::TunnelPort);
        }
        Some(self.tunnel_table(&at, raw))
    }

    /// All keys but `port`.
    fn tunnel_table(&mut self, at: &Place, raw: &RawTunnel) -> Tunnel {
        let word_of = |field: &Field<String>| field.as_ref().map(|word| word.get_ref().clone());
        let kind = match word_of(&raw.kind).as_deref() {
            None | Some("gue") => TunnelKind::Gue,
            Some("gre") => TunnelKind::Gre(self.gre(at, raw)),
            Some("ipip") => TunnelKind::Ipip,
            Some(value) => {
                let at = self.key(at, "kind", &raw.kind);
                let expected = "\"gue\", \"gre\" or \"ipip\"";
                self.refuse(&at, Reason::Word { value: value.to_owned(), expected });
                // Whatever was meant, its other keys may be right.
                return Tunnel::default();
            }
        };
        if !matches!(kind, TunnelKind::Gre(_)) {
            let useless = Reason::TunnelKey { kind: word(kind), of: "\"gre\"" };
            if raw.key.is_some() {
                self.refuse(&self.key(at, "key", &raw.key), useless.clone());
            }
            for (name, field) in [("checksum", &raw.checksum), ("sequence", &raw.sequence)] {
                if field.is_some() {
                    self.refuse(&self.key(at, name, field), useless.clone());
                }
            }
        }
        let copies_dscp = match word_of(&raw.dscp).as_deref() {
            None | Some("copy") => true,
            Some("zero") => false,
            Some(value) => {
                let at = self.key(at, "dscp", &raw.dscp);
                let expected = "\"copy\" or \"zero\"";
                self.refuse(&at, Reason::Word { value: value.to_owned(), expected });
                true
            }
        };
        Tunnel { kind, copies_dscp }
    }

    fn gre(&mut self, at: &Place, raw: &RawTunnel) -> Gre {
        let key = raw.key.as_ref().and_then(|key| {
            let at = self.key(at, "key", &raw.key);
            self.accept(&at, bounded(*key.get_ref(), 0..=u32::MAX))
        });
        let is_on = |field: &Field<bool>| field.as_ref().is_some_and(|on| *on.get_ref());
        Gre { key, checksum: is_on(&raw.checksum), sequence: is_on(&raw.sequence) }
    }

    /// The two ends of each tunnel from here do not contradict each other.
    pub(super) fn ends_of_tunnels(&mut self, raw: &RawConfig, topology: &Topology) {
        let Some(local) = topology.local else { return };
        let this = topology.node(local);
        let nodes: Vec<_> = raw
            .node
            .iter()
            .zip(&topology.nodes)
            .enumerate()
            .map(|(position, (entry, node))| {
                let table = self.place(format!("node[{position}]"), entry);
                let at = self.key(&table, "tunnel", &entry.get_ref().tunnel);
                let is_reached = this.endpoints.outer_to(&node.endpoints).is_some();
                (at, node.tunnel, node.site == this.site && is_reached)
            })
            .collect();
        self.ends_of(&nodes, usize::from(local.0));
        let sites: Vec<_> = raw
            .site
            .iter()
            .zip(&topology.sites)
            .enumerate()
            .map(|(position, (entry, site))| {
                let table = self.place(format!("site[{position}]"), entry);
                let at = self.key(&table, "tunnel", &entry.get_ref().tunnel);
                (at, site.tunnel, this.endpoints.outer_to(&site.endpoints).is_some())
            })
            .collect();
        if let Some(own) = this.site {
            self.ends_of(&sites, usize::from(own.0));
        }
    }

    /// Compares the end at `own` with those that there is a tunnel to, as the last part of each says.
    fn ends_of(&mut self, ends: &[(Place, Option<Tunnel>, bool)], own: usize) {
        let Some((other, Some(there), _)) = ends.get(own) else { return };
        for (at, here, is_peer) in ends {
            if let (Some(here), true) = (here, is_peer)
                && here != there
            {
                let reason =
                    Reason::TunnelsDiffer { here: *here, other: other.clone(), there: *there };
                self.refuse(at, reason);
            }
        }
    }
}

/// A kind as the file says it.
fn word(kind: TunnelKind) -> &'static str {
    match kind {
        TunnelKind::Gue => "gue",
        TunnelKind::Gre(_) => "gre",
        TunnelKind::Ipip => "ipip",
    }
}
