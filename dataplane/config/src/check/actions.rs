//! `[[next_hop]]`, `[[egress_tag]]` and `[[class]]`: what plugins may name.

use tables::Owner;
use toml::Spanned;
use wire::InterfaceId;

use super::routes::{MTU_MIN_V4, MTU_MIN_V6, not_exactly_one};
use super::topology::Topology;
use super::{Checker, Names, bounded};
use crate::address;
use crate::model::{Class, EgressTag, NextHop, TagMember, Way};
use crate::raw::{RawClass, RawEgressTag, RawNamedNextHop, RawTagMember, Tables};
use crate::reason::{Place, Reason};
use crate::word_or::WordOr;

/// A DSCP has six bits.
const DSCP_MAX: u32 = 63;

impl Checker<'_> {
    pub(super) fn next_hops(
        &mut self,
        raw: &Tables<RawNamedNextHop>,
        links: &Names<InterfaceId>,
        topology: &Topology,
    ) -> (Vec<NextHop>, Names<usize>) {
        let mut names = Names::new("next hop");
        self.bound("next_hop", "next hops", raw.len(), usize::from(tables::NUMBERS_MAX));
        let mut next_hops = Vec::with_capacity(raw.len());
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("next_hop[{position}]"), spanned);
            let raw = spanned.get_ref();
            let name = self.label(&at, &raw.name, position, &mut names);
            let way = match (&raw.via, &raw.node, &raw.site) {
                (_, None, None) => self.way_on_link(&at, raw, links),
                (None, Some(_), None) | (None, None, Some(_)) => {
                    self.way_through_tunnel(&at, raw, topology)
                }
                (via, node, site) => {
                    let keys = [
                        ("via", via.is_some()),
                        ("node", node.is_some()),
                        ("site", site.is_some()),
                    ];
                    self.refuse(&at, not_exactly_one("`via`, `node` and `site`", &keys));
                    None
                }
            };
            // The stand-in of what was refused gets nowhere.
            next_hops.push(NextHop { name, way: way.unwrap_or(Way::Here) });
        }
        let owners = next_hops.iter().filter_map(|hop| match hop.way {
            Way::Node(node) => Some(Owner::Node(node)),
            Way::Site(site) => Some(Owner::Site(site)),
            Way::Link { .. } | Way::Here => None,
        });
        self.endpoints_of_owners(owners, topology);
        (next_hops, names)
    }

    fn way_on_link(
        &mut self,
        at: &Place,
        raw: &RawNamedNextHop,
        links: &Names<InterfaceId>,
    ) -> Option<Way> {
        let via = self.required(at, "via", &raw.via, "its address, or its `node` or `site`");
        let via = via.and_then(|(text, at)| {
            let address = self.accept(&at, address::parse_unicast(text))?;
            if address::is_link_local(address) && raw.interface.is_none() {
                self.refuse(&at, Reason::LinkLocalWithoutInterface(address));
            }
            Some(address)
        });
        let interface = raw.interface.as_ref().and_then(|name| {
            let at = self.key(at, "interface", &raw.interface);
            self.link(&at, name.get_ref(), links)
        });
        let mtu = raw.mtu.as_ref().and_then(|value| {
            let at = self.key(at, "mtu", &raw.mtu);
            let least = if via.is_some_and(|via| via.is_ipv6()) { MTU_MIN_V6 } else { MTU_MIN_V4 };
            let mtu = self.accept(&at, bounded(*value.get_ref(), least..=u32::from(u16::MAX)))?;
            u16::try_from(mtu).ok()
        });
        Some(Way::Link { via: via?, interface, mtu: mtu.unwrap_or_default() })
    }

    fn way_through_tunnel(
        &mut self,
        at: &Place,
        raw: &RawNamedNextHop,
        topology: &Topology,
    ) -> Option<Way> {
        if raw.interface.is_some() {
            let at = self.key(at, "interface", &raw.interface);
            self.refuse(&at, Reason::OnlyWithVia);
        }
        if raw.mtu.is_some() {
            let at = self.key(at, "mtu", &raw.mtu);
            self.refuse(&at, Reason::OnlyWithVia);
        }
        if let Some(name) = &raw.site {
            let at = self.key(at, "site", &raw.site);
            let site = self.accept(&at, topology.site_names.find(name.get_ref()))?;
            let is_own = topology.this_node().is_some_and(|this| this.site == Some(site));
            return Some(if is_own { Way::Here } else { Way::Site(site) });
        }
        let (_, owner) = self.node_and_owner(at, (&raw.node, &None), topology)?;
        Some(match owner {
            Owner::Node(node) => Way::Node(node),
            Owner::Site(site) => Way::Site(site),
            Owner::Local(_) | Owner::Unowned | Owner::DropByDefault => Way::Here,
        })
    }

    pub(super) fn egress_tags(
        &mut self,
        raw: &Tables<RawEgressTag>,
        (next_hops, hop_names): (&[NextHop], &Names<usize>),
    ) -> Vec<EgressTag> {
        let mut names = Names::new("egress tag");
        self.bound("egress_tag", "egress tags", raw.len(), usize::from(tables::NUMBERS_MAX));
        let mut tags = Vec::with_capacity(raw.len());
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("egress_tag[{position}]"), spanned);
            let raw = spanned.get_ref();
            let name = self.label(&at, &raw.name, (), &mut names);
            let members = raw.next_hops.as_deref();
            let key = Place { key: format!("{}.next_hops", at.key), line: at.line };
            if members.is_none_or(<[_]>::is_empty) {
                self.refuse(
                    &key,
                    Reason::Missing("the names of one or several next hops".to_owned()),
                );
            }
            let members = members.unwrap_or_default();
            self.bound(&key.key, "next hops", members.len(), EgressTag::MEMBERS_MAX);
            let members = self.tag_members(&key, members, hop_names);
            if members.len() > 1 {
                let hops = members.iter().filter_map(|member| next_hops.get(member.next_hop));
                if let Some(tunnel) = hops.into_iter().find(|hop| hop.way.is_tunnel()) {
                    self.refuse(&key, Reason::SharedTunnel(tunnel.name.clone()));
                }
            }
            tags.push(EgressTag { name, members });
        }
        tags
    }

    fn tag_members(
        &mut self,
        key: &Place,
        raw: &[Spanned<WordOr<RawTagMember>>],
        next_hops: &Names<usize>,
    ) -> Vec<TagMember> {
        let mut members: Vec<(TagMember, Place)> = Vec::with_capacity(raw.len());
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("{}[{position}]", key.key), spanned);
            let (name, at, weight) = match spanned.get_ref() {
                WordOr::Word(name) => (name, at, 1),
                WordOr::Other(raw) => {
                    let most = u32::from(EgressTag::WEIGHT_MAX);
                    let weight = self.number(&at, "weight", &raw.weight, 1..=most, 1);
                    let name =
                        self.required(&at, "next_hop", &raw.next_hop, "the name of a next hop");
                    let Some((name, at)) = name else { continue };
                    (name, at, weight)
                }
            };
            let Some(next_hop) = self.accept(&at, next_hops.find(name)) else { continue };
            if let Some((_, other)) = members.iter().find(|(other, _)| other.next_hop == next_hop) {
                let (value, other) = (name.clone(), other.clone());
                self.refuse(&at, Reason::Duplicate { value, other });
            }
            let weight = u16::try_from(weight).unwrap_or(EgressTag::WEIGHT_MAX);
            members.push((TagMember { next_hop, weight }, at));
        }
        members.into_iter().map(|(member, _)| member).collect()
    }

    pub(super) fn classes(&mut self, raw: &Tables<RawClass>) -> Vec<Class> {
        let mut names = Names::new("class");
        self.bound("class", "classes", raw.len(), usize::from(tables::CLASSES_MAX));
        let mut classes = Vec::with_capacity(raw.len());
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("class[{position}]"), spanned);
            let raw = spanned.get_ref();
            let name = self.label(&at, &raw.name, (), &mut names);
            let dscp = raw.dscp.as_ref().and_then(|value| {
                let at = self.key(&at, "dscp", &raw.dscp);
                let dscp = self.accept(&at, bounded(*value.get_ref(), 0..=DSCP_MAX))?;
                u8::try_from(dscp).ok()
            });
            classes.push(Class { name, dscp });
        }
        classes
    }

    /// Refuses more entries than there are numbers, or than are useful.
    fn bound(&mut self, key: &str, what: &'static str, entries: usize, most: usize) {
        if entries > most {
            let at = Place { key: key.to_owned(), line: None };
            self.refuse(&at, Reason::TooMany { what, most });
        }
    }
}
