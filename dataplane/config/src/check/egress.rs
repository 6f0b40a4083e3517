//! `[[egress]]`: who has which (address, port). Everything that would leave a packet without one
//! clear owner is refused here.
//!
//! ```text
//!              ports 0                                             65535
//!   sites      |      "fra" (this site)      |         "ams"           |   every address
//!   slices     |  web-a  |  web-b  |         |                            address by address
//!   default              .         |#########|                            what is left
//! ```

use std::collections::{HashMap, HashSet};

use ipnet::IpNet;
use tables::{Owner, SiteId, SliceTable};

use super::topology::Topology;
use super::{Checker, Names, check_label};
use crate::address;
use crate::model::{Egress, SitePorts, Slice};
use crate::ports::PortRange;
use crate::raw::{RawEgress, RawPsid, RawSlice, Tables};
use crate::reason::{Place, Reason};
use crate::word_or::WordOr;

/// A slice that was accepted, with its places.
struct Placed {
    slice: Slice,
    at: Place,
    address_at: Place,
    ports_at: Place,
    node_at: Place,
}

impl Checker<'_> {
    pub(super) fn egress(
        &mut self,
        raw: &Tables<RawEgress>,
        topology: &Topology,
    ) -> (Vec<Egress>, Vec<Slice>) {
        let mut prefixes: HashMap<IpNet, Place> = HashMap::new();
        let mut names = Names::new("slice");
        let mut egress = Vec::with_capacity(raw.len());
        let mut slices: Vec<Placed> = Vec::new();
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("egress[{position}]"), spanned);
            let raw = spanned.get_ref();
            let meaning = "the shared address, or a prefix of them";
            let prefix = self
                .required(&at, "prefix", &raw.prefix, meaning)
                .and_then(|(text, at)| self.egress_prefix(&at, text, &mut prefixes));
            let checked = self.egress_entry(&at, raw, egress.len(), prefix, &mut names, topology);
            let Some((entry, own_slices)) = checked else { continue };
            egress.push(entry);
            slices.extend(own_slices);
        }
        self.in_inner_egress(&egress, &slices, &prefixes);
        // As many blocks as `slice_blocks` makes of them.
        let mut addresses: HashSet<IpNet> = egress.iter().map(|entry| entry.prefix).collect();
        addresses.extend(slices.iter().map(|placed| placed.slice.address));
        if addresses.len() > SliceTable::PREFIXES_MAX {
            let at = Place { key: "egress".to_owned(), line: None };
            let what = "egress prefixes and addresses with slices";
            self.refuse(&at, Reason::TooMany { what, most: SliceTable::PREFIXES_MAX });
        }
        let used = egress.iter().flat_map(|entry| {
            let sites = entry.sites.iter().map(|range| Owner::Site(range.site));
            let own_site = topology.this_node().and_then(|this| this.site).map(Owner::Site);
            sites
                .filter(move |owner| Some(*owner) != own_site)
                .chain([entry.rest])
                .chain(entry.portless)
        });
        let used = used.chain(slices.iter().map(|placed| placed.slice.owner));
        self.endpoints_of_owners(used, topology);
        (egress, slices.into_iter().map(|placed| placed.slice).collect())
    }

    fn egress_prefix(
        &mut self,
        at: &Place,
        text: &str,
        prefixes: &mut HashMap<IpNet, Place>,
    ) -> Option<IpNet> {
        let prefix = self.accept(at, address::parse_address_or_prefix(text))?;
        if !address::is_egress_space(prefix) {
            self.refuse(at, Reason::NotEgress(prefix));
            return None;
        }
        if let Some(other) = prefixes.insert(prefix, at.clone()) {
            self.refuse(at, Reason::SamePrefix { prefix, other: other.clone() });
            prefixes.insert(prefix, other);
            return None;
        }
        Some(prefix)
    }

    /// One entry and its slices; nothing if its prefix was refused, though what does not depend on
    /// that is checked still.
    fn egress_entry(
        &mut self,
        at: &Place,
        raw: &RawEgress,
        position: usize,
        prefix: Option<IpNet>,
        names: &mut Names<()>,
        topology: &Topology,
    ) -> Option<(Egress, Vec<Placed>)> {
        let errors = self.errors.len();
        let default = raw.default.as_ref().and_then(|holder| {
            let at = self.key(at, "default", &raw.default);
            self.holder(&at, holder.get_ref(), topology)
        });
        let portless = raw.portless.as_ref().and_then(|holder| {
            let at = self.key(at, "portless", &raw.portless);
            self.holder(&at, holder.get_ref(), topology)
        });
        let sites = self.site_ports(at, raw, topology);
        let mut slices = Vec::with_capacity(raw.slice.len());
        for (index, spanned) in raw.slice.iter().enumerate() {
            let at = self.place(format!("{}.slice[{index}]", at.key), spanned);
            let raw = spanned.get_ref();
            let slice = self.slice(&at, raw, position, prefix, names, topology);
            let Some(slice) = slice else { continue };
            let placed = Placed {
                slice,
                address_at: self.key(&at, "address", &raw.address),
                ports_at: self.key(&at, "ports", &raw.ports),
                node_at: self.key(&at, "node", &raw.node),
                at,
            };
            self.within_site(&placed, &sites, topology);
            slices.push(placed);
        }
        self.overlaps(&slices);
        let prefix = prefix?;
        let own_site = topology.this_node().and_then(|this| this.site);
        let rest = match default {
            Some(owner) => owner,
            // A gap would only follow from what has been refused already.
            None if self.errors.len() > errors || slices.len() < raw.slice.len() => Owner::Unowned,
            None => {
                let elsewhere = sites.iter().filter(|(range, _)| Some(range.site) != own_site);
                let covered = elsewhere.map(|(range, _)| range.ports).collect();
                let within: Vec<_> = slices.iter().map(|placed| &placed.slice).collect();
                if let Some((address, ports)) = first_gap(prefix, covered, &within) {
                    let at = self.key(at, "default", &raw.default);
                    self.refuse(&at, Reason::Gap { address, ports });
                }
                Owner::Unowned
            }
        };
        let sites = sites.into_iter().map(|(range, _)| range).collect();
        Some((Egress { prefix, rest, portless, sites }, slices))
    }

    /// Level 1, ascending, with places.
    fn site_ports(
        &mut self,
        at: &Place,
        raw: &RawEgress,
        topology: &Topology,
    ) -> Vec<(SitePorts, Place)> {
        let mut ranges: Vec<(SitePorts, Place)> = Vec::with_capacity(raw.sites.len());
        for (index, spanned) in raw.sites.iter().enumerate() {
            let at = self.place(format!("{}.sites[{index}]", at.key), spanned);
            let raw = spanned.get_ref();
            let ports = self
                .required(&at, "ports", &raw.ports, "the ports that the site has")
                .and_then(|(ports, at)| self.ports(&at, ports));
            let site = self
                .required(&at, "site", &raw.site, "the [[site]] that has the ports")
                .and_then(|(name, at)| self.accept(&at, topology.site_names.find(name)));
            if let (Some(ports), Some(site)) = (ports, site) {
                ranges.push((SitePorts { ports, site }, at));
            }
        }
        ranges.sort_by_key(|(range, _)| range.ports);
        for pair in ranges.windows(2) {
            let [(lower, lower_at), (upper, upper_at)] = pair else { continue };
            if lower.ports.overlaps(upper.ports) {
                self.refuse(
                    upper_at,
                    Reason::SiteOverlap {
                        ports: upper.ports,
                        other_ports: lower.ports,
                        other: lower_at.clone(),
                    },
                );
            }
        }
        if let (false, Some(this)) = (raw.sites.is_empty(), topology.this_node()) {
            let at = Place { key: format!("{}.sites", at.key), ..at.clone() };
            match this.site {
                None => self.refuse(&at, Reason::NodeWithoutSite(this.name.clone())),
                Some(own) if ranges.iter().all(|(range, _)| range.site != own) => {
                    let name = topology.site(own).name.clone();
                    self.refuse(&at, Reason::OwnSiteMissing(name));
                }
                Some(_) => {}
            }
        }
        ranges
    }

    fn slice(
        &mut self,
        at: &Place,
        raw: &RawSlice,
        egress: usize,
        prefix: Option<IpNet>,
        names: &mut Names<()>,
        topology: &Topology,
    ) -> Option<Slice> {
        let address = self.slice_address(at, raw, prefix);
        let ports = match &raw.ports {
            Some(ports) => {
                let at = self.key(at, "ports", &raw.ports);
                self.ports(&at, ports.get_ref())
            }
            // Not all of them: other slices would be told to overlap with ports that nobody wrote.
            None if self.is_spoiled(at, "ports") => None,
            None => Some(PortRange::ALL),
        };
        let holder = self.node_and_owner(at, (&raw.node, &raw.owner), topology);
        let name_at = self.key(at, "name", &raw.name);
        let name = match &raw.name {
            Some(name) => Some(self.accept(&name_at, check_label(name.get_ref()))?),
            None => None,
        };
        let (address, ports, (node, owner)) = (address?, ports?, holder?);
        let name = name.unwrap_or_else(|| default_name(address, ports));
        let added = names.add(&name, (), &name_at);
        // Slices of one address and one range have one default name; that they overlap says more.
        if raw.name.is_some() {
            self.accept(&name_at, added);
        }
        Some(Slice { name, egress, address, ports, node, owner })
    }

    fn slice_address(
        &mut self,
        at: &Place,
        raw: &RawSlice,
        prefix: Option<IpNet>,
    ) -> Option<IpNet> {
        let at = self.key(at, "address", &raw.address);
        let Some(text) = &raw.address else {
            if self.spoiled.contains(&at.key) {
                return None;
            }
            let prefix = prefix?;
            if prefix.prefix_len() < prefix.max_prefix_len() {
                let meaning = format!("which address of {prefix}, or which prefix within it");
                self.refuse(&at, Reason::Missing(meaning));
                return None;
            }
            return Some(prefix);
        };
        let address = self.accept(&at, address::parse_address_or_prefix(text.get_ref()))?;
        let prefix = prefix?;
        if !prefix.contains(&address) {
            self.refuse(&at, Reason::OutsideEgress { address, prefix });
            return None;
        }
        Some(address)
    }

    fn ports(&mut self, at: &Place, ports: &WordOr<RawPsid>) -> Option<PortRange> {
        let psid = match ports {
            WordOr::Word(text) => return self.accept(at, PortRange::parse(text)),
            WordOr::Other(psid) => psid,
        };
        let value = self.required(at, "psid", &psid.psid, "the number of the port set");
        let length =
            self.required(at, "psid_len", &psid.psid_len, "the number of bits of the PSID");
        let offset = psid.psid_offset.as_ref().map_or(0, |offset| *offset.get_ref());
        let ((value, _), (length, _)) = (value?, length?);
        self.accept(at, PortRange::from_psid(*value, *length, offset))
    }

    /// With level-1 ranges, a slice lies in those of the site of its node.
    fn within_site(&mut self, placed: &Placed, sites: &[(SitePorts, Place)], topology: &Topology) {
        if sites.is_empty() {
            return;
        }
        let Placed { slice, ports_at, node_at, .. } = placed;
        let node = topology.node(slice.node);
        let Some(site) = node.site else {
            self.refuse(node_at, Reason::NodeWithoutSite(node.name.clone()));
            return;
        };
        let Some(outside) = first_outside(slice.ports, site, sites) else { return };
        let holder = sites.iter().find(|(range, _)| range.ports.contains(outside));
        let holder = holder.map_or("no site".to_owned(), |(range, place)| {
            format!("site \"{}\" by {place}", topology.site(range.site).name)
        });
        self.refuse(
            ports_at,
            Reason::OutsideSiteRange {
                port: outside,
                holder,
                node: node.name.clone(),
                site: topology.site(site).name.clone(),
            },
        );
    }

    /// No two slices of one address share ports.
    fn overlaps(&mut self, slices: &[Placed]) {
        let mut by_address: Vec<&Placed> = slices.iter().collect();
        by_address.sort_by_key(|placed| (placed.slice.address, placed.slice.ports));
        // The slice of the address that reaches furthest so far.
        let mut furthest: Option<&Placed> = None;
        for placed in by_address {
            let Placed { slice, ports_at, .. } = placed;
            let same = furthest.filter(|other| other.slice.address == slice.address);
            if let Some(Placed { slice: other, at, .. }) = same
                && other.ports.overlaps(slice.ports)
            {
                let key = format!("{} \"{}\"", at.key, other.name);
                self.refuse(
                    ports_at,
                    Reason::SliceOverlap {
                        ports: slice.ports,
                        address: slice.address,
                        other_ports: other.ports,
                        other: Place { key, line: at.line },
                    },
                );
            }
            if same.is_none_or(|other| other.slice.ports.last() <= slice.ports.last()) {
                furthest = Some(placed);
            }
        }
    }

    /// No slice lies in an egress prefix that is longer than its own.
    fn in_inner_egress(
        &mut self,
        egress: &[Egress],
        slices: &[Placed],
        prefixes: &HashMap<IpNet, Place>,
    ) {
        for Placed { slice, address_at, .. } in slices {
            let Some(entry) = egress.get(slice.egress) else { continue };
            let own_len = entry.prefix.prefix_len();
            let around = std::iter::successors(Some(slice.address), IpNet::supernet)
                .take_while(|around| around.prefix_len() > own_len);
            let inner = around.into_iter().find_map(|around| prefixes.get_key_value(&around));
            if let Some((inner, other)) = inner {
                let (address, inner, other) = (slice.address, *inner, other.clone());
                self.refuse(address_at, Reason::InInnerEgress { address, inner, other });
            }
        }
    }
}

/// Name of a slice that has none.
fn default_name(address: IpNet, ports: PortRange) -> String {
    if address.prefix_len() == address.max_prefix_len() {
        format!("{}:{ports}", address.addr())
    } else {
        format!("{address}:{ports}")
    }
}

/// The first of `ports` that `site` does not have.
fn first_outside(ports: PortRange, site: SiteId, sites: &[(SitePorts, Place)]) -> Option<u16> {
    let mut next = ports.first();
    let own = sites.iter().map(|(range, _)| range).filter(|range| range.site == site);
    for range in own {
        if range.ports.contains(next) {
            if range.ports.last() >= ports.last() {
                return None;
            }
            next = range.ports.last() + 1;
        }
    }
    Some(next)
}

/// The first addresses within `prefix`, with their first ports, that neither `covered` nor a slice
/// has. `slices` lie within `prefix`.
fn first_gap(
    prefix: IpNet,
    mut covered: Vec<PortRange>,
    slices: &[&Slice],
) -> Option<(IpNet, PortRange)> {
    let (whole, within): (Vec<&Slice>, Vec<&Slice>) =
        slices.iter().partition(|slice| slice.address == prefix);
    covered.extend(whole.iter().map(|slice| slice.ports));
    let gap = first_gap_of_ports(&mut covered)?;
    if within.is_empty() {
        return Some((prefix, gap));
    }
    let mut halves = prefix.subnets(prefix.prefix_len() + 1).ok()?;
    halves.find_map(|half| {
        let of_half: Vec<_> =
            within.iter().copied().filter(|slice| half.contains(&slice.address)).collect();
        first_gap(half, covered.clone(), &of_half)
    })
}

/// The first range of ports that none of the ranges has.
fn first_gap_of_ports(ranges: &mut [PortRange]) -> Option<PortRange> {
    ranges.sort_unstable();
    let mut next = 0u16;
    for range in ranges {
        if range.first() > next {
            return PortRange::new(next, range.first() - 1);
        }
        next = next.max(range.last().checked_add(1)?);
    }
    PortRange::new(next, u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tables::NodeId;

    fn slice(address: IpNet, a: u16, b: u16) -> Slice {
        Slice {
            name: String::new(),
            egress: 0,
            address,
            ports: PortRange::new(a.min(b), a.max(b)).unwrap(),
            node: NodeId(0),
            owner: Owner::Unowned,
        }
    }

    /// A length and a position among the prefixes of that length in a /30, and two ports, of which
    /// the ends of the port space are likely.
    fn any_slice() -> impl Strategy<Value = (u8, u32, u16, u16)> {
        let port = prop_oneof![Just(0u16), Just(u16::MAX), Just(99), Just(100), any::<u16>()];
        (30u8..=32, 0u32..4, port.clone(), port)
    }

    proptest! {
        /// The first gap is what enumerating each (address, port) finds.
        #[test]
        fn a_gap_is_found_if_there_is_one(parts in prop::collection::vec(any_slice(), 0..12)) {
            let prefix: IpNet = "192.0.2.0/30".parse().unwrap();
            let slices: Vec<Slice> = parts
                .into_iter()
                .map(|(length, position, a, b)| {
                    let mut subnets = prefix.subnets(length).unwrap();
                    let count = 1usize << (length - 30);
                    slice(subnets.nth(position as usize % count).unwrap(), a, b)
                })
                .collect();
            let has = |address: &std::net::IpAddr, port: u16| {
                slices.iter().any(|s| s.address.contains(address) && s.ports.contains(port))
            };
            let addresses: Vec<_> = prefix.subnets(32).unwrap().map(|net| net.addr()).collect();
            let is_open = |address| (0..=u16::MAX).any(|port| !has(address, port));
            let borrowed: Vec<_> = slices.iter().collect();
            match first_gap(prefix, Vec::new(), &borrowed) {
                None => prop_assert!(!addresses.iter().any(is_open)),
                Some((address, ports)) => {
                    for host in addresses.iter().filter(|host| address.contains(*host)) {
                        prop_assert!((ports.first()..=ports.last()).all(|port| !has(host, port)));
                    }
                }
            }
        }
    }
}
