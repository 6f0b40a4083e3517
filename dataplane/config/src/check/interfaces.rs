//! `[[interface]]`, and `[[neighbor]]` on them.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use toml::Spanned;
use wire::{InterfaceId, MacAddress};

use super::{Checker, Names, bounded, check_interface_name};
use crate::address;
use crate::model::{Interface, MssClamp, Neighbor, ReplayFacts, Role, XdpMode, ZeroCopy};
use crate::raw::{Field, RawInterface, RawNeighbor, RawReplay, Tables};
use crate::reason::{Place, Reason};
use crate::word_or::WordOr;

/// The most interfaces; each has rings for every worker.
const INTERFACES_MAX: usize = 64;
/// A fixed MSS: what every IPv4 host takes (RFC 9293 section 3.7.1), to what a 10,000-byte jumbo
/// frame holds.
const MSS_BYTES: std::ops::RangeInclusive<u32> = 536..=9960;
/// The MTU of an interface in a replay: from what every IPv4 host takes (RFC 791) to what a chunk
/// holds.
const REPLAY_MTU_BYTES: std::ops::RangeInclusive<u32> = 576..=3498;

impl Checker<'_> {
    /// The interfaces, and their names.
    pub(super) fn interfaces(
        &mut self,
        raw: &Tables<RawInterface>,
    ) -> (Vec<Interface>, Names<InterfaceId>) {
        let mut links = Names::new("interface");
        let mut interfaces = Vec::with_capacity(raw.len());
        if raw.is_empty() {
            let at = Place { key: "interface".to_owned(), line: None };
            let meaning = "at least one [[interface]] that the router drives";
            self.refuse(&at, Reason::Missing(meaning.to_owned()));
        }
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("interface[{position}]"), spanned);
            let Some(id) = u8::try_from(position).ok().filter(|_| position < INTERFACES_MAX) else {
                self.refuse(&at, Reason::TooMany { what: "interfaces", most: INTERFACES_MAX });
                break;
            };
            let raw = spanned.get_ref();
            let name = self.required(&at, "name", &raw.name, "the kernel's name of it");
            let name = name.and_then(|(name, at)| {
                let added = links.add(name, InterfaceId(id), &at);
                self.accept(&at, added)?;
                self.accept(&at, check_interface_name(name))
            });
            let meaning = "\"inside\" (towards the owners), \"outside\" (towards the world) or \
                           \"both\" (one-armed)";
            let role = self.required(&at, "role", &raw.role, meaning);
            let xdp = raw.xdp.as_ref().map_or(XdpMode::default(), |mode| *mode.get_ref());
            let zero_copy =
                raw.zero_copy.as_ref().map_or(ZeroCopy::default(), |mode| *mode.get_ref());
            if xdp == XdpMode::Generic && zero_copy == ZeroCopy::Force {
                let at = self.key(&at, "zero_copy", &raw.zero_copy);
                self.refuse(&at, Reason::ForceGeneric);
            }
            interfaces.push(Interface {
                name: name.unwrap_or_default(),
                role: role.map_or(Role::Both, |(role, _)| *role),
                xdp,
                zero_copy,
                source_validation: raw
                    .source_validation
                    .as_ref()
                    .map(|mode| *mode.get_ref())
                    .unwrap_or_default(),
                mss_clamp: self.mss_clamp(&at, &raw.mss_clamp),
                replay: self.replay(&at, id, &raw.replay),
            });
        }
        (interfaces, links)
    }

    fn mss_clamp(&mut self, interface: &Place, field: &Field<WordOr<i64>>) -> MssClamp {
        let Some(value) = field else { return MssClamp::default() };
        let at = self.key(interface, "mss_clamp", field);
        let clamp = match value.get_ref() {
            WordOr::Word(word) if word == "auto" => Ok(MssClamp::Auto),
            WordOr::Word(word) if word == "off" => Ok(MssClamp::Off),
            WordOr::Word(word) => Err(Reason::Word {
                value: word.clone(),
                expected: "\"auto\", \"off\" or a number of bytes",
            }),
            WordOr::Other(bytes) => bounded(*bytes, MSS_BYTES)
                .map(|bytes| MssClamp::Bytes(u16::try_from(bytes).unwrap_or(u16::MAX))),
        };
        self.accept(&at, clamp).unwrap_or_default()
    }

    /// What a replay takes for the interface's facts.
    fn replay(&mut self, interface: &Place, id: u8, field: &Field<RawReplay>) -> ReplayFacts {
        let missing = RawReplay::default();
        let raw = field.as_ref().map_or(&missing, Spanned::get_ref);
        let table = self.key(interface, "replay", field);
        let mac = raw.mac.as_ref().and_then(|text| {
            let at = self.key(&table, "mac", &raw.mac);
            self.accept(&at, address::parse_mac(text.get_ref()))
        });
        let mtu = raw.mtu.as_ref().and_then(|value| {
            let at = self.key(&table, "mtu", &raw.mtu);
            self.accept(&at, bounded(*value.get_ref(), REPLAY_MTU_BYTES))
        });
        let mut addresses = Vec::new();
        for (position, text) in raw.addresses.iter().flat_map(Spanned::get_ref).enumerate() {
            let at = self.place(format!("{}.addresses[{position}]", table.key), text);
            // Host bits are the address itself, so this is not a prefix as elsewhere.
            let parsed = text.get_ref().parse::<IpNet>();
            let parsed = parsed.map_err(|_| Reason::BadPrefix(text.get_ref().clone()));
            addresses.extend(self.accept(&at, parsed));
        }
        ReplayFacts {
            mac: mac.unwrap_or(MacAddress([2, 0, 0, 0, 0, id.saturating_add(1)])),
            mtu: mtu.and_then(|mtu| u16::try_from(mtu).ok()).unwrap_or(1500),
            addresses,
        }
    }

    /// The interface that a key names.
    pub(super) fn link(
        &mut self,
        at: &Place,
        name: &str,
        links: &Names<InterfaceId>,
    ) -> Option<InterfaceId> {
        self.accept(at, links.find(name))
    }

    pub(super) fn neighbors(
        &mut self,
        raw: &Tables<RawNeighbor>,
        links: &Names<InterfaceId>,
    ) -> Vec<Neighbor> {
        let mut seen = std::collections::HashMap::new();
        let mut neighbors = Vec::with_capacity(raw.len());
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("neighbor[{position}]"), spanned);
            let raw = spanned.get_ref();
            let address = self
                .required(&at, "address", &raw.address, "the neighbor's IP address")
                .and_then(|(text, at)| self.accept(&at, address::parse_unicast(text)));
            let interface = self
                .required(&at, "interface", &raw.interface, "the link that it is on")
                .and_then(|(name, at)| self.link(&at, name, links));
            let mac = self
                .required(&at, "mac", &raw.mac, "the neighbor's link-layer address")
                .and_then(|(text, at)| self.accept(&at, address::parse_mac(text)));
            if let (Some(address), Some(interface)) = (address, interface)
                && let Some(other) = seen.insert((interface, address), at.clone())
            {
                let value = address.to_string();
                self.refuse(
                    &self.key(&at, "address", &raw.address),
                    Reason::Duplicate { value, other },
                );
            }
            neighbors.push(Neighbor {
                address: address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
                interface: interface.unwrap_or_default(),
                mac: mac.unwrap_or_default(),
            });
        }
        neighbors
    }
}
