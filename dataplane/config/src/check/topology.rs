//! `[[site]]`, `[[node]]` and `[[owner]]`: who there is, as seen from this node.

use std::net::IpAddr;

use tables::{LocalOwnerId, NodeId, Owner, SiteId};
use toml::Spanned;
use wire::InterfaceId;

use super::routes::not_exactly_one;
use super::{Checker, Names, check_label};
use crate::address;
use crate::model::{Delivery, Endpoints, LocalOwner, Node, Site};
use crate::raw::{Field, RawConfig, RawHolder, RawNamedNextHop, RawOwner, Texts};
use crate::reason::{NoEndpoint, Place, Reason};
use crate::word_or::WordOr;

/// Ids of nodes, sites and owners have 16 bits.
const ENTRIES_MAX: usize = 1 << 16;

/// Sites, nodes and owners, and which node this is.
pub(super) struct Topology {
    pub(super) sites: Vec<Site>,
    pub(super) nodes: Vec<Node>,
    /// The owners on this node, the kernel first.
    pub(super) owners: Vec<LocalOwner>,
    pub(super) local: Option<NodeId>,
    pub(super) site_names: Names<SiteId>,
    pub(super) node_names: Names<NodeId>,
    owner_names: Names<NamedOwner>,
    /// Where the addresses of each stand, or would.
    site_addresses: Vec<Place>,
    node_addresses: Vec<Place>,
}

/// An owner that has a name, on any node.
#[derive(Clone, Copy)]
struct NamedOwner {
    /// `None` when the entry's `node` was refused.
    node: Option<NodeId>,
    /// Its id, if it is on this node.
    local: Option<LocalOwnerId>,
}

impl Topology {
    pub(super) fn node(&self, id: NodeId) -> &Node {
        &self.nodes[usize::from(id.0)]
    }

    pub(super) fn site(&self, id: SiteId) -> &Site {
        &self.sites[usize::from(id.0)]
    }

    /// The node that this is.
    pub(super) fn this_node(&self) -> Option<&Node> {
        self.local.map(|node| self.node(node))
    }

    /// A node's kernel, or one of its owners, as seen from this node.
    fn seen(&self, node: NodeId, owner: Option<LocalOwnerId>) -> Result<Owner, Reason> {
        let Some(this) = self.this_node() else { return Ok(Owner::Node(node)) };
        if self.local == Some(node) {
            return Ok(Owner::Local(owner.unwrap_or(LocalOwnerId(0))));
        }
        let other = self.node(node);
        match (this.site, other.site) {
            (this, other) if this == other => Ok(Owner::Node(node)),
            (_, Some(site)) => Ok(Owner::Site(site)),
            (Some(site), None) => Err(Reason::UnnamedSite {
                node: other.name.clone(),
                site: self.site(site).name.clone(),
            }),
            (None, None) => Ok(Owner::Node(node)),
        }
    }
}

impl Checker<'_> {
    pub(super) fn topology(&mut self, raw: &RawConfig, links: &Names<InterfaceId>) -> Topology {
        let mut topology = Topology {
            sites: Vec::new(),
            nodes: Vec::new(),
            owners: vec![LocalOwner::kernel()],
            local: None,
            site_names: Names::new("site"),
            node_names: Names::new("node"),
            owner_names: Names::new("owner"),
            site_addresses: Vec::new(),
            node_addresses: Vec::new(),
        };
        for (kind, entries) in
            [("site", raw.site.len()), ("node", raw.node.len()), ("owner", raw.owner.len())]
        {
            // An owner more than those of the file is the kernel.
            if entries >= ENTRIES_MAX {
                let at = Place { key: kind.to_owned(), line: None };
                self.refuse(&at, Reason::TooMany { what: kind, most: ENTRIES_MAX - 1 });
                return topology;
            }
        }
        self.sites(raw, &mut topology);
        self.nodes(raw, &mut topology);
        self.local_node(raw, &mut topology);
        for (position, owner) in raw.owner.iter().enumerate() {
            let at = self.place(format!("owner[{position}]"), owner);
            self.owner(&at, owner.get_ref(), links, &mut topology);
        }
        topology
    }

    fn sites(&mut self, raw: &RawConfig, topology: &mut Topology) {
        for (spanned, id) in raw.site.iter().zip(0u16..) {
            let at = self.place(format!("site[{id}]"), spanned);
            let raw = spanned.get_ref();
            let name = self.label(&at, &raw.name, SiteId(id), &mut topology.site_names);
            let endpoints = self.endpoints(&at, &raw.address);
            let tunnel = self.own_tunnel(&at, &raw.tunnel);
            topology.site_addresses.push(self.key(&at, "address", &raw.address));
            topology.sites.push(Site { name, endpoints, tunnel });
        }
    }

    fn nodes(&mut self, raw: &RawConfig, topology: &mut Topology) {
        for (spanned, id) in raw.node.iter().zip(0u16..) {
            let at = self.place(format!("node[{id}]"), spanned);
            let raw = spanned.get_ref();
            let name = self.label(&at, &raw.name, NodeId(id), &mut topology.node_names);
            let endpoints = self.endpoints(&at, &raw.address);
            let tunnel = self.own_tunnel(&at, &raw.tunnel);
            let site = raw.site.as_ref().and_then(|site| {
                let at = self.key(&at, "site", &raw.site);
                self.accept(&at, topology.site_names.find(site.get_ref()))
            });
            topology.node_addresses.push(self.key(&at, "address", &raw.address));
            topology.nodes.push(Node { name, endpoints, tunnel, site });
        }
    }

    /// A name that must be there, that must be unique, and that is added to `names`.
    pub(super) fn label<T: Copy>(
        &mut self,
        table: &Place,
        field: &Field<String>,
        value: T,
        names: &mut Names<T>,
    ) -> String {
        let Some((name, at)) = self.required(table, "name", field, "a name to refer to it by")
        else {
            return String::new();
        };
        let added = names.add(name, value, &at);
        self.accept(&at, added);
        self.accept(&at, check_label(name)).unwrap_or_default()
    }

    fn endpoints(&mut self, table: &Place, field: &Field<Texts>) -> Endpoints {
        let mut endpoints = Endpoints::default();
        let Some(texts) = field else { return endpoints };
        let at = self.key(table, "address", field);
        match texts.get_ref() {
            WordOr::Word(text) => self.endpoint(&at, text, &mut endpoints),
            WordOr::Other(list) => {
                for (position, text) in list.iter().enumerate() {
                    let at = self.place(format!("{}[{position}]", at.key), text);
                    self.endpoint(&at, text.get_ref(), &mut endpoints);
                }
            }
        }
        endpoints
    }

    fn endpoint(&mut self, at: &Place, text: &str, endpoints: &mut Endpoints) {
        let before = match self.accept(at, address::parse_unicast(text)) {
            None => return,
            Some(IpAddr::V4(second)) => {
                endpoints.ipv4.replace(second).map(|first| (first.into(), second.into()))
            }
            Some(IpAddr::V6(second)) => {
                endpoints.ipv6.replace(second).map(|first| (first.into(), second.into()))
            }
        };
        if let Some((first, second)) = before {
            self.refuse(at, Reason::TwoOfOneFamily { first, second });
        }
    }

    fn local_node(&mut self, raw: &RawConfig, topology: &mut Topology) {
        let table = self.table("router", &raw.router);
        let empty = crate::raw::RawRouter::default();
        let router = raw.router.as_ref().map_or(&empty, Spanned::get_ref);
        let at = self.key(&table, "node", &router.node);
        match &router.node {
            Some(name) => {
                topology.local = self.accept(&at, topology.node_names.find(name.get_ref()));
            }
            None => {
                let is_tunnel = |hop: &RawNamedNextHop| hop.node.is_some() || hop.site.is_some();
                let who = if !raw.egress.is_empty() {
                    "[[egress]] needs it"
                } else if raw.next_hop.iter().any(|hop| is_tunnel(hop.get_ref())) {
                    "a next hop with `node` or `site` needs it"
                } else {
                    return;
                };
                let meaning = format!("which [[node]] this machine is; {who}");
                self.refuse(&at, Reason::Missing(meaning));
            }
        }
    }

    fn owner(
        &mut self,
        at: &Place,
        raw: &RawOwner,
        links: &Names<InterfaceId>,
        topology: &mut Topology,
    ) {
        let node = self
            .required(at, "node", &raw.node, "the [[node]] that it is on")
            .and_then(|(name, at)| self.accept(&at, topology.node_names.find(name)));
        let is_local = node.is_some() && node == topology.local;
        // The links of other nodes are not known here, so there only the form is checked.
        let links = is_local.then_some(links);
        let delivery = self.delivery(at, raw, links);
        let local = u16::try_from(topology.owners.len()).ok().filter(|_| is_local);
        let named = NamedOwner { node, local: local.map(LocalOwnerId) };
        let name = self.label(at, &raw.name, named, &mut topology.owner_names);
        if name == LocalOwner::KERNEL {
            let at = self.key(at, "name", &raw.name);
            self.refuse(&at, Reason::ReservedOwner(name.clone()));
        }
        if is_local {
            topology.owners.push(LocalOwner { name, delivery });
        }
    }

    fn delivery(
        &mut self,
        owner: &Place,
        raw: &RawOwner,
        links: Option<&Names<InterfaceId>>,
    ) -> Delivery {
        let Some(deliver) = &raw.deliver else { return Delivery::Kernel };
        let at = self.key(owner, "deliver", &raw.deliver);
        let next_hop = match deliver.get_ref() {
            WordOr::Word(word) if word == "kernel" => return Delivery::Kernel,
            WordOr::Word(word) => {
                let expected = "\"kernel\" or { next_hop = …, interface = … }";
                self.refuse(&at, Reason::Word { value: word.clone(), expected });
                return Delivery::Kernel;
            }
            WordOr::Other(next_hop) => next_hop,
        };
        let address = self
            .required(&at, "next_hop", &next_hop.next_hop, "the workload's address")
            .and_then(|(text, at)| self.accept(&at, address::parse_unicast(text)));
        let interface =
            self.required(&at, "interface", &next_hop.interface, "the link of the workload");
        let interface = interface.and_then(|(name, at)| self.link(&at, name, links?));
        match (address, interface) {
            (Some(address), Some(interface)) => Delivery::NextHop { address, interface },
            _ => Delivery::Kernel,
        }
    }

    /// The node that `node` and `owner` name together, and who that is from here. At least one of
    /// the two keys must be there.
    pub(super) fn node_and_owner(
        &mut self,
        table: &Place,
        (node_field, owner_field): (&Field<String>, &Field<String>),
        topology: &Topology,
    ) -> Option<(NodeId, Owner)> {
        let node = match node_field {
            Some(name) => {
                let at = self.key(table, "node", node_field);
                Some((self.accept(&at, topology.node_names.find(name.get_ref()))?, at))
            }
            None => None,
        };
        let Some(owner) = owner_field else {
            let Some((node, at)) = node else {
                let at = self.key(table, "node", node_field);
                let meaning = "the [[node]] that owns it, or the `owner`";
                self.refuse(&at, Reason::Missing(meaning.to_owned()));
                return None;
            };
            return Some((node, self.accept(&at, topology.seen(node, None))?));
        };
        let at = self.key(table, "owner", owner_field);
        let owner = owner.get_ref();
        if owner == LocalOwner::KERNEL
            && let Some((node, at)) = &node
        {
            return Some((*node, self.accept(at, topology.seen(*node, None))?));
        }
        let named = self.accept(&at, topology.owner_names.find(owner))?;
        let on = named.node?;
        if let Some((node, _)) = node
            && node != on
        {
            let declared = topology.owner_names.place(owner).cloned();
            self.refuse(
                &at,
                Reason::OwnerElsewhere {
                    owner: owner.clone(),
                    on: topology.node(on).name.clone(),
                    declared: declared.unwrap_or_else(|| at.clone()),
                    node: topology.node(node).name.clone(),
                },
            );
            return None;
        }
        Some((on, self.accept(&at, topology.seen(on, named.local))?))
    }

    /// Who `default` or `portless` names.
    pub(super) fn holder(
        &mut self,
        at: &Place,
        holder: &WordOr<RawHolder>,
        topology: &Topology,
    ) -> Option<Owner> {
        let raw = match holder {
            WordOr::Word(word) if word == "drop" => return Some(Owner::DropByDefault),
            WordOr::Word(word) => {
                let expected = "\"drop\", { node = … }, { owner = … } or { site = … }";
                self.refuse(at, Reason::Word { value: word.clone(), expected });
                return None;
            }
            WordOr::Other(raw) => raw,
        };
        match (&raw.node, &raw.owner, &raw.site) {
            (Some(_), None, None) | (None, Some(_), None) => {
                self.node_and_owner(at, (&raw.node, &raw.owner), topology).map(|(_, owner)| owner)
            }
            (None, None, Some(name)) => {
                let at = self.key(at, "site", &raw.site);
                let site = self.accept(&at, topology.site_names.find(name.get_ref()))?;
                if topology.this_node().is_some_and(|this| this.site == Some(site)) {
                    self.refuse(&at, Reason::OwnSite(name.get_ref().clone()));
                    return None;
                }
                Some(Owner::Site(site))
            }
            (node, owner, site) => {
                let keys = [
                    ("node", node.is_some()),
                    ("owner", owner.is_some()),
                    ("site", site.is_some()),
                ];
                self.refuse(at, not_exactly_one("`node`, `owner` and `site`", &keys));
                None
            }
        }
    }

    /// Every end of a tunnel that is needed has an address, and this node one of the same family.
    pub(super) fn endpoints_of_owners(
        &mut self,
        owners: impl Iterator<Item = Owner>,
        topology: &Topology,
    ) {
        let Some(local) = topology.local else { return };
        let this = topology.node(local);
        let mut needed: Vec<(&Place, &Endpoints, NoEndpoint)> = Vec::new();
        let mut owns = false;
        let mut seen = std::collections::HashSet::new();
        for owner in owners.filter(|owner| seen.insert(*owner)) {
            match owner {
                Owner::Unowned | Owner::DropByDefault => {}
                Owner::Local(_) => owns = true,
                Owner::Node(id) => {
                    let node = topology.node(id);
                    let at = &topology.node_addresses[usize::from(id.0)];
                    needed.push((at, &node.endpoints, NoEndpoint::Node(node.name.clone())));
                }
                Owner::Site(id) => {
                    let site = topology.site(id);
                    let at = &topology.site_addresses[usize::from(id.0)];
                    needed.push((at, &site.endpoints, NoEndpoint::Site(site.name.clone())));
                }
            }
        }
        let local_at = &topology.node_addresses[usize::from(local.0)];
        // An address that was refused is not missing as well.
        let refused = |at: &Place| self.errors.iter().any(|error| error.key.starts_with(&at.key));
        needed.retain(|(at, ..)| !refused(at));
        if refused(local_at) {
            return;
        }
        if this.endpoints.is_empty() {
            if !needed.is_empty() {
                let what = NoEndpoint::ThisNode(this.name.clone());
                self.refuse(local_at, Reason::NoEndpoint(what));
            } else if owns && topology.nodes.len() + topology.sites.len() > 1 {
                let what = NoEndpoint::Node(this.name.clone());
                self.refuse(local_at, Reason::NoEndpoint(what));
            }
        }
        for (at, endpoints, what) in needed {
            if endpoints.is_empty() {
                self.refuse(at, Reason::NoEndpoint(what));
            } else if !this.endpoints.is_empty() && this.endpoints.outer_to(endpoints).is_none() {
                self.refuse(at, Reason::NoCommonFamily(this.name.clone()));
            }
        }
    }
}
