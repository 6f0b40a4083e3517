//! [`Model`]: who owns what, as the simulation itself knows it, and the configurations that say so.
//!
//! ```text
//!             hosts 198.51.100.10 ...
//!       ---------+------------------------------------  segment 0
//!                x  (a router of the Internet, Sluice too)
//!       ---+-----+-----+---                ---+----+----+---  segments 1 (site ams), 2 (site fra)
//!          a           b                      c         d
//!       ---+---     ---+---                ---+---   ---+---  segments 3 to 6
//!        w0 w1       w0 w1                  w0 w1     w0 w1   workloads
//! ```
//!
//! The owner of a slice is found here by looking through a list, without any table of the router.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use fastrand::Rng;

/// Routers: `x` is 0, and the nodes `a` to `d` are 1 to 4.
pub(crate) const ROUTERS: usize = 5;
pub(crate) const NODES: std::ops::Range<usize> = 1..ROUTERS;
pub(crate) const SEGMENTS: usize = 7;
pub(crate) const HOSTS: usize = 3;
pub(crate) const WORKLOADS: usize = 2;
pub(crate) const NAMES: [&str; ROUTERS] = ["x", "a", "b", "c", "d"];
const SITES: [&str; 2] = ["ams", "fra"];

/// Ports from here on belong to slices; those below have the address's default.
pub(crate) const PORT_FIRST: u16 = 1024;

/// Who gets packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// They are dropped.
    Nobody,
    /// The kernel of a node.
    Kernel(usize),
    /// A workload of a node.
    Workload(usize, usize),
}

impl Holder {
    pub(crate) fn node(self) -> Option<usize> {
        match self {
            Self::Nobody => None,
            Self::Kernel(node) | Self::Workload(node, _) => Some(node),
        }
    }

    fn toml(self) -> String {
        match self {
            Self::Nobody => "\"drop\"".to_owned(),
            Self::Kernel(node) => format!("{{ node = \"{}\" }}", NAMES[node]),
            Self::Workload(node, which) => format!("{{ owner = \"{}{which}\" }}", NAMES[node]),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub(crate) first: u16,
    pub(crate) last: u16,
    pub(crate) holder: Holder,
}

/// A shared address.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) address: IpAddr,
    pub(crate) slices: Vec<Slice>,
    pub(crate) default: Holder,
    pub(crate) portless: Holder,
}

impl Shared {
    /// Who gets what comes to this port; without one, what has none.
    pub(crate) fn holder(&self, port: Option<u16>) -> Holder {
        let Some(port) = port else { return self.portless };
        self.slices
            .iter()
            .find(|slice| (slice.first..=slice.last).contains(&port))
            .map_or(self.default, |slice| slice.holder)
    }
}

/// What becomes of one prefix that `x` has a route to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detour {
    None,
    Unreachable,
    Blackhole,
}

/// The state of the network that configurations put into force.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) shared: Vec<Shared>,
    /// Whether a node takes part.
    pub(crate) is_present: [bool; ROUTERS],
    /// Whether `x` sends packets for shared addresses to this node.
    pub(crate) is_announced: [bool; ROUTERS],
    /// `x`'s route to the workloads of node `c`.
    pub(crate) detour: Detour,
    /// Tunnels in general, at site `fra`, at node `a` and at node `c`.
    pub(crate) tunnels: [Option<String>; 4],
    /// Destination port that the plugin of node `a` drops.
    pub(crate) blocked: u16,
}

pub(crate) fn site(node: usize) -> usize {
    (node - 1) / 2
}

/// The segment that an interface of a router is on.
pub(crate) fn segment(router: usize, interface: usize) -> usize {
    match (router, interface) {
        (0, interface) => interface,
        (node, 0) => 1 + site(node),
        (node, _) => 2 + node,
    }
}

pub(crate) fn interfaces(router: usize) -> usize {
    if router == 0 { 3 } else { 2 }
}

/// The prefix of a segment, and an address on it.
pub(crate) fn on_segment(segment: usize, last: u8, is_v6: bool) -> IpAddr {
    let node = segment as u16;
    match (segment, is_v6) {
        (0, false) => Ipv4Addr::new(198, 51, 100, last).into(),
        (1, false) => Ipv4Addr::new(10, 0, 0, last).into(),
        (2, false) => Ipv4Addr::new(10, 0, 9, last).into(),
        (_, false) => Ipv4Addr::new(10, 1, segment as u8 - 2, last).into(),
        (0, true) => Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, last.into()).into(),
        (1, true) => Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into()).into(),
        (2, true) => Ipv6Addr::new(0xfd09, 0, 0, 0, 0, 0, 0, last.into()).into(),
        (_, true) => Ipv6Addr::new(0xfd01, node - 2, 0, 0, 0, 0, 0, last.into()).into(),
    }
}

/// The address of a router on its interface.
pub(crate) fn router_address(router: usize, interface: usize, is_v6: bool) -> IpAddr {
    let last = if router > 0 && interface == 0 { 10 + router as u8 } else { 1 };
    on_segment(segment(router, interface), last, is_v6)
}

/// The node that has this address towards the others.
pub(crate) fn node_at(address: IpAddr) -> Option<usize> {
    NODES.into_iter().find(|&node| router_address(node, 0, address.is_ipv6()) == address)
}

impl Model {
    pub(crate) fn new(random: &mut Rng) -> Self {
        let mut model = Self {
            shared: Vec::new(),
            is_present: [true; ROUTERS],
            is_announced: [true; ROUTERS],
            detour: Detour::None,
            tunnels: [const { None }; 4],
            blocked: 7001,
        };
        for address in ["192.0.2.1", "192.0.2.2", "2001:db8:5::1"] {
            let mut slices = Vec::new();
            let mut first = PORT_FIRST;
            for _ in 0..8 {
                let last = first + 8063;
                slices.push(Slice { first, last, holder: model.any_holder(random) });
                first = last.saturating_add(1);
            }
            let default =
                if random.bool() { Holder::Nobody } else { Holder::Kernel(random.usize(NODES)) };
            let portless = model.any_holder(random);
            let address = address.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            model.shared.push(Shared { address, slices, default, portless });
        }
        model.tunnels[0] = model.any_tunnel(random);
        model
    }

    fn any_node(&self, random: &mut Rng) -> usize {
        let present: Vec<usize> = NODES.filter(|&node| self.is_present[node]).collect();
        present[random.usize(..present.len())]
    }

    fn any_holder(&self, random: &mut Rng) -> Holder {
        let node = self.any_node(random);
        match random.u8(..6) {
            0 => Holder::Kernel(node),
            which => Holder::Workload(node, usize::from(which) % WORKLOADS),
        }
    }

    fn any_tunnel(&self, random: &mut Rng) -> Option<String> {
        let kinds = [
            "kind = \"gue\"",
            "kind = \"ipip\"",
            "kind = \"gre\"",
            "kind = \"gre\", key = 77, checksum = true",
            "kind = \"gre\", sequence = true, dscp = \"zero\"",
        ];
        Some(kinds[random.usize(..kinds.len())].to_owned())
    }

    /// Changes something, and says what.
    pub(crate) fn change(&mut self, random: &mut Rng) -> String {
        match random.u8(..10) {
            0..=4 => {
                let (which, slice) = (random.usize(..self.shared.len()), random.usize(..8));
                let holder = self.any_holder(random);
                self.shared[which].slices[slice].holder = holder;
                let Shared { address, slices, .. } = &self.shared[which];
                format!("the slice of {address} from {} moves to {holder:?}", slices[slice].first)
            }
            5 => {
                let node = random.usize(NODES);
                self.is_announced[node] ^= true;
                if !NODES.into_iter().any(|node| self.is_present[node] && self.is_announced[node]) {
                    self.is_announced = [true; ROUTERS];
                }
                format!("x's routes to shared addresses by {} change", NAMES[node])
            }
            6 => {
                let kinds = [Detour::None, Detour::Unreachable, Detour::Blackhole];
                self.detour = kinds[random.usize(..kinds.len())];
                format!("x's route to the workloads of c: {:?}", self.detour)
            }
            7 => {
                let which = random.usize(..4);
                self.tunnels[which] =
                    if which > 0 && random.bool() { None } else { self.any_tunnel(random) };
                format!("tunnels are {:?} now", self.tunnels)
            }
            8 => {
                self.blocked = if self.blocked == 7001 { 7002 } else { 7001 };
                format!("the plugin of a drops what goes to port {}", self.blocked)
            }
            _ => match NODES.into_iter().find(|&node| !self.is_present[node]) {
                Some(node) => {
                    self.is_present[node] = true;
                    format!("node {} comes back", NAMES[node])
                }
                None => {
                    let node = random.usize(NODES);
                    self.is_present[node] = false;
                    self.evacuate(node, random);
                    format!("node {} leaves", NAMES[node])
                }
            },
        }
    }

    fn evacuate(&mut self, node: usize, random: &mut Rng) {
        for which in 0..self.shared.len() {
            for slice in 0..self.shared[which].slices.len() {
                if self.shared[which].slices[slice].holder.node() == Some(node) {
                    self.shared[which].slices[slice].holder = self.any_holder(random);
                }
            }
            if self.shared[which].default.node() == Some(node) {
                self.shared[which].default = Holder::Nobody;
            }
            if self.shared[which].portless.node() == Some(node) {
                self.shared[which].portless = Holder::Nobody;
            }
        }
        if !NODES.into_iter().any(|node| self.is_present[node] && self.is_announced[node]) {
            self.is_announced = [true; ROUTERS];
        }
    }

    /// All is well again: everybody is there, and everything is reached.
    pub(crate) fn settle(&mut self) {
        self.is_present = [true; ROUTERS];
        self.is_announced = [true; ROUTERS];
        self.detour = Detour::None;
    }

    /// A shared address by its position.
    pub(crate) fn shared_at(&self, address: IpAddr) -> Option<usize> {
        self.shared.iter().position(|shared| shared.address == address)
    }

    /// The configuration of a router. `plugin` is the module of node `a`.
    pub(crate) fn toml(&self, router: usize, mtus: &[u16], plugin: Option<&Path>) -> String {
        let mut text = String::new();
        // Writing to a String does not fail.
        _ = if router == 0 {
            self.write_core(&mut text, mtus)
        } else {
            self.write_node(&mut text, router, mtus, plugin)
        };
        text
    }

    fn write_interface(
        text: &mut String,
        router: usize,
        interface: usize,
        role: &str,
        mtus: &[u16],
    ) -> std::fmt::Result {
        let segment = segment(router, interface);
        let (v4, v6) =
            (router_address(router, interface, false), router_address(router, interface, true));
        writeln!(
            text,
            "[[interface]]\nname = \"if{interface}\"\nrole = \"{role}\"\n[interface.replay]\n\
             mac = \"02:00:00:10:{router:02x}:{interface:02x}\"\nmtu = {}\n\
             addresses = [\"{v4}/24\", \"{v6}/64\"]",
            mtus[segment]
        )
    }

    fn write_core(&self, text: &mut String, mtus: &[u16]) -> std::fmt::Result {
        writeln!(text, "[router]\nname = \"x\"\nframes_per_worker = 16384")?;
        for interface in 0..interfaces(0) {
            Self::write_interface(text, 0, interface, "both", mtus)?;
        }
        for shared in &self.shared {
            let is_v6 = shared.address.is_ipv6();
            let len = if is_v6 { 128 } else { 32 };
            for node in NODES.filter(|&node| self.is_present[node] && self.is_announced[node]) {
                let via = router_address(node, 0, is_v6);
                writeln!(
                    text,
                    "[[route]]\nprefix = \"{}/{len}\"\nvia = \"{via}\"",
                    shared.address
                )?;
            }
        }
        for node in NODES {
            for is_v6 in [false, true] {
                let prefix = on_segment(2 + node, 0, is_v6);
                let len = if is_v6 { 64 } else { 24 };
                writeln!(text, "[[route]]\nprefix = \"{prefix}/{len}\"")?;
                match self.detour {
                    Detour::Unreachable if node == 3 => writeln!(text, "type = \"unreachable\"")?,
                    Detour::Blackhole if node == 3 => writeln!(text, "type = \"blackhole\"")?,
                    _ => writeln!(text, "via = \"{}\"", router_address(node, 0, is_v6))?,
                }
            }
        }
        Ok(())
    }

    fn write_node(
        &self,
        text: &mut String,
        own: usize,
        mtus: &[u16],
        plugin: Option<&Path>,
    ) -> std::fmt::Result {
        let name = NAMES[own];
        writeln!(
            text,
            "[router]\nname = \"{name}\"\nnode = \"{name}\"\nframes_per_worker = 16384"
        )?;
        if let Some(tunnel) = &self.tunnels[0] {
            writeln!(text, "[tunnel]\n{}", tunnel.replace(", ", "\n"))?;
        }
        Self::write_interface(text, own, 0, "outside", mtus)?;
        Self::write_interface(text, own, 1, "inside", mtus)?;
        let towards = 1 + site(own);
        for is_v6 in [false, true] {
            let gateway = on_segment(towards, 1, is_v6);
            let prefixes = if is_v6 {
                vec!["::/0".to_owned()]
            } else {
                let others = NODES.filter(|&node| node != own).map(|node| 2 + node);
                [0, 3 - towards]
                    .into_iter()
                    .chain(others)
                    .map(|segment| format!("{}/24", on_segment(segment, 0, false)))
                    .collect()
            };
            for prefix in prefixes {
                writeln!(text, "[[route]]\nprefix = \"{prefix}\"\nvia = \"{gateway}\"")?;
            }
        }
        let present = |node: usize| self.is_present[node] || node == own;
        for (site_id, site_name) in SITES.iter().enumerate() {
            let gateway = NODES.into_iter().find(|&node| site(node) == site_id && present(node));
            let Some(gateway) = gateway else { continue };
            let (v4, v6) = (router_address(gateway, 0, false), router_address(gateway, 0, true));
            writeln!(text, "[[site]]\nname = \"{site_name}\"\naddress = [\"{v4}\", \"{v6}\"]")?;
            if let (1, Some(tunnel)) = (site_id, &self.tunnels[1]) {
                writeln!(text, "tunnel = {{ {tunnel} }}")?;
            }
        }
        for node in NODES.filter(|&node| present(node)) {
            let (v4, v6) = (router_address(node, 0, false), router_address(node, 0, true));
            writeln!(
                text,
                "[[node]]\nname = \"{}\"\nsite = \"{}\"\naddress = [\"{v4}\", \"{v6}\"]",
                NAMES[node],
                SITES[site(node)]
            )?;
            let tunnel = match node {
                1 => &self.tunnels[2],
                3 => &self.tunnels[3],
                _ => &None,
            };
            if let Some(tunnel) = tunnel {
                writeln!(text, "tunnel = {{ {tunnel} }}")?;
            }
            for which in 0..WORKLOADS {
                writeln!(
                    text,
                    "[[owner]]\nname = \"{}{which}\"\nnode = \"{}\"",
                    NAMES[node], NAMES[node]
                )?;
                if node == own {
                    let address = workload_address(node, which, false);
                    writeln!(
                        text,
                        "deliver = {{ next_hop = \"{address}\", interface = \"if1\" }}"
                    )?;
                }
            }
        }
        for shared in &self.shared {
            let len = if shared.address.is_ipv6() { 128 } else { 32 };
            writeln!(
                text,
                "[[egress]]\nprefix = \"{}/{len}\"\ndefault = {}\nportless = {}",
                shared.address,
                shared.default.toml(),
                shared.portless.toml()
            )?;
            for Slice { first, last, holder } in &shared.slices {
                writeln!(text, "[[egress.slice]]\nports = \"{first}-{last}\"")?;
                match holder {
                    Holder::Nobody => {}
                    Holder::Kernel(node) => writeln!(text, "node = \"{}\"", NAMES[*node])?,
                    Holder::Workload(node, which) => {
                        writeln!(text, "owner = \"{}{which}\"", NAMES[*node])?;
                    }
                }
            }
        }
        if let (1, Some(plugin)) = (own, plugin) {
            writeln!(
                text,
                "[[plugin]]\nname = \"filter\"\npath = \"{}\"\nhook = \"ingress\"\nbudget_us = 1000000\n\
                 config = {{ default = \"allow\", rules = [\
                 {{ action = \"drop\", protocol = \"udp\", destination_ports = [{}] }}] }}",
                plugin.display(),
                self.blocked
            )?;
        }
        Ok(())
    }
}

pub(crate) fn workload_address(node: usize, which: usize, is_v6: bool) -> IpAddr {
    on_segment(2 + node, 2 + which as u8, is_v6)
}

pub(crate) fn host_address(host: usize, is_v6: bool) -> IpAddr {
    on_segment(0, 10 + host as u8, is_v6)
}
