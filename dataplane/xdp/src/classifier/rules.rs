//! [`ClassifierRules`], and how a change of them reaches the maps without a gap.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::IpNet;

use super::{is_not_found, map_error};
use crate::XdpError;

/// Addresses of each family that the classifier holds.
pub(super) const LOCALS_MAX: usize = 16_384;

/// Egress prefixes that the classifier holds.
pub const EGRESS_MAX: usize = 131_072;

/// Flags of an address, as in `classifier.c`.
const LOCAL_EGRESS: u32 = 1;
const LOCAL_TUNNEL: u32 = 2;
const LOCAL_BROADCAST: u32 = 4;

/// Kinds of tunnels in the settings, as in `classifier.c`.
const TUNNEL_GRE: u8 = 1;
const TUNNEL_IPIP: u8 = 2;

/// What becomes of transit while no socket takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExit {
    /// The kernel routes it.
    #[default]
    Kernel,
    /// It is dropped.
    Drop,
}

/// What the classifier decides by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassifierRules {
    /// Every address that the kernel of this machine answers for: its table `local`, without the
    /// broadcast addresses. Those within an egress prefix go to the router nevertheless.
    pub locals: BTreeSet<IpAddr>,
    /// Broadcast addresses of its subnets. What is sent to one by a unicast frame, which is a directed
    /// broadcast from elsewhere, is transit (and the router drops it, RFC 2644); what a station of the
    /// subnet sends to all is the kernel's.
    pub broadcasts: BTreeSet<IpAddr>,
    /// Prefixes of shared addresses. Nothing to them ever reaches the kernel.
    pub egress: Vec<IpNet>,
    /// Addresses of this machine at which tunnels end; they need not stand in `locals` too.
    pub tunnels: Vec<IpAddr>,
    /// UDP port of GUE tunnels, 0 if there are none.
    pub tunnel_port: u16,
    /// Whether there are GRE tunnels.
    pub gre: bool,
    /// Whether there are tunnels of IP in IP, of either family.
    pub ipip: bool,
    /// What becomes of transit while no socket takes it.
    pub on_exit: OnExit,
}

/// Rules in the form that the maps hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Compiled {
    locals: BTreeMap<IpAddr, u32>,
    egress: BTreeSet<IpNet>,
    settings: Option<Settings>,
}

/// `struct settings` of `classifier.c`: port in network order, drop_on_exit, tunnel_kinds.
type Settings = [u8; 4];

impl Compiled {
    fn new(rules: &ClassifierRules) -> Result<Self, XdpError> {
        let egress: BTreeSet<IpNet> = rules.egress.iter().map(IpNet::trunc).collect();
        let mut locals: BTreeMap<IpAddr, u32> =
            rules.locals.iter().map(|&address| (address, 0)).collect();
        for &address in &rules.broadcasts {
            *locals.entry(address).or_default() |= LOCAL_BROADCAST;
        }
        for &address in &rules.tunnels {
            *locals.entry(address).or_default() |= LOCAL_TUNNEL;
        }
        let lens: BTreeSet<u8> = egress.iter().map(IpNet::prefix_len).collect();
        for (address, flags) in &mut locals {
            let mut around = lens.iter().filter_map(|len| IpNet::new(*address, *len).ok());
            if around.any(|prefix| egress.contains(&prefix.trunc())) {
                *flags |= LOCAL_EGRESS;
            }
        }
        for (what, count, max) in [
            ("local IPv4 addresses", locals.keys().filter(|a| a.is_ipv4()).count(), LOCALS_MAX),
            ("local IPv6 addresses", locals.keys().filter(|a| a.is_ipv6()).count(), LOCALS_MAX),
            ("egress prefixes", egress.len(), EGRESS_MAX),
        ] {
            if count > max {
                return Err(XdpError::TooMany { what, count, max });
            }
        }
        let [high, low] = rules.tunnel_port.to_be_bytes();
        let kind = |is_there: bool, kind: u8| if is_there { kind } else { 0 };
        let kinds = kind(rules.gre, TUNNEL_GRE) | kind(rules.ipip, TUNNEL_IPIP);
        let settings = Some([high, low, u8::from(rules.on_exit == OnExit::Drop), kinds]);
        Ok(Self { locals, egress, settings })
    }
}

/// The maps that hold rules, and what they hold now.
pub(super) struct RuleMaps {
    locals4: HashMap<MapData, [u8; 4], u32>,
    locals6: HashMap<MapData, [u8; 16], u32>,
    egress4: LpmTrie<MapData, [u8; 4], u32>,
    egress6: LpmTrie<MapData, [u8; 16], u32>,
    settings: Array<MapData, Settings>,
    current: Compiled,
}

impl RuleMaps {
    /// Takes the maps, which are empty, from a loaded object.
    pub(super) fn take(object: &mut Ebpf) -> Result<Self, XdpError> {
        Ok(Self {
            locals4: super::attach::take_map(object, "locals4")?,
            locals6: super::attach::take_map(object, "locals6")?,
            egress4: super::attach::take_map(object, "egress4")?,
            egress6: super::attach::take_map(object, "egress6")?,
            settings: super::attach::take_map(object, "settings")?,
            current: Compiled::default(),
        })
    }

    /// Makes the maps say what `rules` say.
    ///
    /// What keeps packets from the kernel comes first and goes last: prefixes are added, then
    /// addresses are added or flagged in one write each, then settings, then addresses are removed,
    /// then prefixes. An address is in one state or the other at every moment.
    pub(super) fn update(&mut self, rules: &ClassifierRules) -> Result<(), XdpError> {
        let wanted = Compiled::new(rules)?;

        for &prefix in wanted.egress.difference(&self.current.egress.clone()) {
            self.insert_egress(prefix)?;
            self.current.egress.insert(prefix);
        }
        for (&address, &flags) in &wanted.locals {
            if self.current.locals.get(&address) != Some(&flags) {
                self.insert_local(address, flags)?;
                self.current.locals.insert(address, flags);
            }
        }
        if let Some(settings) = wanted.settings
            && self.current.settings != wanted.settings
        {
            self.settings
                .set(0, settings, 0)
                .map_err(|error| map_error("settings", "update", &error))?;
            self.current.settings = wanted.settings;
        }
        let gone: Vec<IpAddr> = self
            .current
            .locals
            .keys()
            .filter(|address| !wanted.locals.contains_key(address))
            .copied()
            .collect();
        for address in gone {
            self.remove_local(address)?;
            self.current.locals.remove(&address);
        }
        for &prefix in self.current.egress.clone().difference(&wanted.egress) {
            self.remove_egress(prefix)?;
            self.current.egress.remove(&prefix);
        }
        Ok(())
    }

    fn insert_egress(&mut self, prefix: IpNet) -> Result<(), XdpError> {
        match prefix {
            IpNet::V4(net) => {
                let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
                self.egress4.insert(&key, 1, 0)
            }
            IpNet::V6(net) => {
                let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
                self.egress6.insert(&key, 1, 0)
            }
        }
        .map_err(|error| map_error("egress", "update", &error))
    }

    fn remove_egress(&mut self, prefix: IpNet) -> Result<(), XdpError> {
        let result = match prefix {
            IpNet::V4(net) => {
                let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
                self.egress4.remove(&key)
            }
            IpNet::V6(net) => {
                let key = Key::new(u32::from(net.prefix_len()), net.network().octets());
                self.egress6.remove(&key)
            }
        };
        removed("egress", result)
    }

    fn insert_local(&mut self, address: IpAddr, flags: u32) -> Result<(), XdpError> {
        match address {
            IpAddr::V4(address) => self.locals4.insert(address.octets(), flags, 0),
            IpAddr::V6(address) => self.locals6.insert(address.octets(), flags, 0),
        }
        .map_err(|error| map_error("locals", "update", &error))
    }

    fn remove_local(&mut self, address: IpAddr) -> Result<(), XdpError> {
        let result = match address {
            IpAddr::V4(address) => self.locals4.remove(&address.octets()),
            IpAddr::V6(address) => self.locals6.remove(&address.octets()),
        };
        removed("locals", result)
    }
}

/// A removal that finds nothing has reached its end.
fn removed(map: &'static str, result: Result<(), MapError>) -> Result<(), XdpError> {
    match result {
        Err(error) if !is_not_found(&error) => Err(map_error(map, "delete", &error)),
        _ => Ok(()),
    }
}
