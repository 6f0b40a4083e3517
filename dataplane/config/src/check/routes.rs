//! `[[route]]` and `route_files`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use ipnet::IpNet;
use toml::Spanned;
use wire::InterfaceId;

use super::{Checker, Names, Open, bounded};
use crate::address;
use crate::model::{Route, RouteTarget};
use crate::raw::{RawRoute, RawRouteKind, Tables};
use crate::reason::{Place, Reason};
use crate::route_file::{RouteFile, via_target};

/// The least MTU of a route: what every IPv4 module forwards whole (RFC 791 section 3.2), and every IPv6
/// link carries (RFC 8200 section 5).
pub(super) const MTU_MIN_V4: u32 = 68;
pub(super) const MTU_MIN_V6: u32 = 1280;

impl Checker<'_> {
    pub(super) fn routes(
        &mut self,
        raw: &Tables<RawRoute>,
        links: &Names<InterfaceId>,
    ) -> Vec<Route> {
        let mut routes: Vec<Route> = Vec::with_capacity(raw.len());
        let mut groups: HashMap<(IpNet, u32), Vec<(RouteTarget, Place)>> = HashMap::new();
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("route[{position}]"), spanned);
            let raw = spanned.get_ref();
            let metric = self.number(&at, "metric", &raw.metric, 0..=u32::MAX, 0);
            let prefix = self
                .required(&at, "prefix", &raw.prefix, "the destinations, such as 0.0.0.0/0")
                .and_then(|(text, at)| self.accept(&at, address::parse_address_or_prefix(text)));
            let mtu = self.route_mtu(&at, raw, prefix);
            let target = self.route_target(&at, raw, prefix, links);
            let (Some(prefix), Some(target)) = (prefix, target) else { continue };
            let group = groups.entry((prefix, metric)).or_default();
            if let Some(reason) = group_conflict(prefix, metric, target, group) {
                self.refuse(&at, reason);
            }
            group.push((target, at));
            routes.push(Route { prefix, target, metric, mtu });
        }
        routes
    }

    fn route_mtu(&mut self, at: &Place, raw: &RawRoute, prefix: Option<IpNet>) -> u16 {
        let Some(value) = &raw.mtu else { return 0 };
        let at = self.key(at, "mtu", &raw.mtu);
        let least = match prefix {
            Some(IpNet::V6(_)) => MTU_MIN_V6,
            _ => MTU_MIN_V4,
        };
        let mtu = self.accept(&at, bounded(*value.get_ref(), least..=u32::from(u16::MAX)));
        mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or_default()
    }

    fn route_target(
        &mut self,
        at: &Place,
        raw: &RawRoute,
        prefix: Option<IpNet>,
        links: &Names<InterfaceId>,
    ) -> Option<RouteTarget> {
        let interface = match &raw.interface {
            Some(name) => {
                let at = self.key(at, "interface", &raw.interface);
                Some(self.link(&at, name.get_ref(), links)?)
            }
            None => None,
        };
        match (&raw.via, interface, raw.kind.as_ref().map(Spanned::get_ref)) {
            (Some(via), interface, None) => {
                let at = self.key(at, "via", &raw.via);
                let address = self.accept(&at, address::parse_unicast(via.get_ref()))?;
                self.accept(&at, via_target(prefix?, address, interface))
            }
            (None, Some(interface), None) => Some(RouteTarget::OnLink(interface)),
            (None, None, Some(RawRouteKind::Blackhole)) => Some(RouteTarget::Blackhole),
            (None, None, Some(RawRouteKind::Unreachable)) => Some(RouteTarget::Unreachable),
            (None, None, Some(RawRouteKind::Prohibit)) => Some(RouteTarget::Prohibit),
            (via, interface, kind) => {
                let keys = [
                    ("via", via.is_some()),
                    ("interface", interface.is_some()),
                    ("type", kind.is_some()),
                ];
                let expected = "`via`, `interface` (on the link) and `type`";
                self.refuse(at, not_exactly_one(expected, &keys));
                None
            }
        }
    }

    pub(super) fn route_files(
        &mut self,
        raw: Option<&[Spanned<String>]>,
        links: &Names<InterfaceId>,
        mut open: Option<Open<'_>>,
    ) -> Vec<RouteFile> {
        let mut files = Vec::new();
        let mut seen = HashMap::new();
        for (position, text) in raw.unwrap_or_default().iter().enumerate() {
            let at = self.place(format!("route_files[{position}]"), text);
            let path = self.path(&at, text.get_ref());
            match seen.entry(path.clone()) {
                Entry::Occupied(other) => {
                    let (value, other) = (text.get_ref().clone(), Place::clone(other.get()));
                    self.refuse(&at, Reason::Duplicate { value, other });
                    continue;
                }
                Entry::Vacant(free) => free.insert(at.clone()),
            };
            let Some(open) = open.as_mut() else {
                self.refuse(&at, Reason::NoDirectory);
                continue;
            };
            match open(&path) {
                Ok(reader) => match RouteFile::read(&path, reader, links) {
                    Ok(file) => files.push(file),
                    Err(errors) => self.errors.extend(errors),
                },
                Err(error) => {
                    self.refuse(&at, Reason::Unreadable(format!("{}: {error}", path.display())));
                }
            }
        }
        files
    }
}

/// Why a target cannot stand beside the others of its prefix and metric.
fn group_conflict(
    prefix: IpNet,
    metric: u32,
    target: RouteTarget,
    group: &[(RouteTarget, Place)],
) -> Option<Reason> {
    let is_next_hop = |target: RouteTarget| matches!(target, RouteTarget::Via { .. });
    let same = group.iter().find(|(other, _)| *other == target);
    if let Some((_, other)) = same {
        let value = prefix.to_string();
        return Some(Reason::Duplicate { value, other: other.clone() });
    }
    let (_, other) =
        group.iter().find(|(other, _)| !(is_next_hop(*other) && is_next_hop(target)))?;
    Some(Reason::RouteConflict { prefix, metric, other: other.clone() })
}

/// The refusal of none or several of some keys.
pub(super) fn not_exactly_one(expected: &'static str, keys: &[(&str, bool)]) -> Reason {
    let there: Vec<_> =
        keys.iter().filter(|(_, there)| *there).map(|(key, _)| format!("`{key}`")).collect();
    let found = if there.is_empty() { "none".to_owned() } else { there.join(" and ") };
    Reason::NotExactlyOne { expected, found }
}
