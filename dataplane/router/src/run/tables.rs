//! Answers about routes and slices: what is there, and what a packet would meet.
//!
//! A million routes are shown in pages, each of which looks at a bounded number of prefixes, so that no
//! answer holds up the control loop. Between two pages the tables may change.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use config::protocol_name;
use control::kernel::Link;
use control::publication::{CandidateView, PrefixView, RouteSource, RouteView, Unexpressible};
use ipnet::IpNet;
use serde_json::{Value, json};
use tables::{
    AdjacencyId, AdjacencyState, Audit, Delivery, Difference, EgressId, Encapsulation,
    NextHopGroup, Owner, PeerId, RouteId, Snapshot,
};
use wire::{InterfaceId, MacAddress, ethernet, ipv4, ipv6, protocol, udp};

use crate::run::control_loop::ControlLoop;
use crate::run::host_state::LinkState;
use crate::run::sharing::slice_row;

/// Prefixes in one page at most.
const PAGE_ROUTES_MAX: usize = 500;

/// Prefixes that are looked at for one page: some milliseconds.
const PAGE_LOOKS_MAX: usize = 20_000;

/// Shorter prefixes that are shown with a look-up.
const SHORTER_MAX: usize = 8;

/// Ranges of ports in one page.
const PAGE_RANGES_MAX: usize = 1000;

/// Slices that are named where one is not found.
const NAMES_MAX: usize = 16;

/// Which routes are wanted.
pub(crate) struct RouteQuery {
    pub(crate) prefix: Option<IpNet>,
    pub(crate) longer: bool,
    pub(crate) source: Option<String>,
    pub(crate) unexpressible: bool,
    pub(crate) after: Option<IpNet>,
}

impl ControlLoop {
    /// A page of routes, and where the next one begins.
    pub(crate) fn show_routes(&self, query: &RouteQuery) -> Result<Value> {
        const SOURCES: [&str; 6] =
            ["own-address", "broadcast", "static", "machine", "kernel", "withdrawn"];
        if let Some(source) = &query.source
            && !SOURCES.contains(&source.split(':').next().unwrap_or_default())
        {
            bail!("no source \"{source}\"; there are {}, and kernel:PROTOCOL", SOURCES.join(", "));
        }
        if let (Some(prefix), false) = (query.prefix, query.longer) {
            let routes: Vec<Value> = self
                .publication
                .routes_of(prefix)
                .iter()
                .map(|view| self.prefix_json(view))
                .collect();
            return Ok(json!({ "routes": routes, "next": null }));
        }
        // A prefix stands behind those that hold it, so that the ones in it are one run.
        let mut routes = Vec::new();
        let (mut looks, mut last, mut is_end) = (0, None, true);
        let after = query.after;
        if let (Some(prefix), None) = (query.prefix, after)
            && let Some(view) = self.publication.routes_of(prefix)
            && self.is_wanted(&view, query)
        {
            routes.push(self.prefix_json(&view));
        }
        for view in self.publication.routes_from(after.or(query.prefix)) {
            if query.prefix.is_some_and(|prefix| !prefix.contains(&view.prefix)) {
                break;
            }
            if routes.len() >= PAGE_ROUTES_MAX || looks >= PAGE_LOOKS_MAX {
                is_end = false;
                break;
            }
            looks += 1;
            last = Some(view.prefix);
            if self.is_wanted(&view, query) {
                routes.push(self.prefix_json(&view));
            }
        }
        let next = last.filter(|_| !is_end).map(|prefix| prefix.to_string());
        Ok(json!({ "routes": routes, "next": next }))
    }

    fn is_wanted(&self, view: &PrefixView, query: &RouteQuery) -> bool {
        let Some(best) = view.candidates.first() else { return false };
        let of_source = |candidate: &CandidateView| match (&query.source, candidate.source) {
            (None, _) => true,
            (Some(wanted), RouteSource::Kernel { protocol, .. }) => match wanted.split_once(':') {
                Some(("kernel", name)) => {
                    *name == *protocol_name(protocol) || name.parse() == Ok(protocol)
                }
                _ => wanted == "kernel",
            },
            (Some(wanted), source) => wanted == source.label(),
        };
        view.candidates.iter().any(of_source)
            && (!query.unexpressible || best.unexpressible.is_some())
    }

    fn prefix_json(&self, view: &PrefixView) -> Value {
        let candidates: Vec<Value> = view
            .candidates
            .iter()
            .enumerate()
            .map(|(position, candidate)| {
                let mut value = self.candidate_json(candidate);
                value["in_force"] = json!(position == 0);
                if position > 0
                    && let Some(best) = view.candidates.first()
                {
                    value["why_not"] = json!(why_not(candidate, best));
                }
                value
            })
            .collect();
        json!({
            "prefix": view.prefix.to_string(),
            "candidates": candidates,
            "group": view.route.0,
            "held_ms": view.held_for.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
        })
    }

    fn candidate_json(&self, candidate: &CandidateView) -> Value {
        let mut value = json!({
            "source": candidate.source.label(),
            "metric": candidate.metric,
            "type": match &candidate.route {
                RouteView::NextHops(hops) if hops.is_empty() => "unreachable",
                RouteView::NextHops(_) => "unicast",
                RouteView::Blackhole if candidate.source == RouteSource::Broadcast => "broadcast",
                RouteView::Blackhole => "blackhole",
                RouteView::Unreachable => "unreachable",
                RouteView::Prohibit => "prohibit",
                RouteView::Kernel if candidate.source == RouteSource::OwnAddress => "local",
                RouteView::Kernel => "kernel",
            },
        });
        if let RouteSource::Kernel { table, protocol } = candidate.source {
            value["table"] = json!(table);
            value["protocol"] = json!(protocol_name(protocol));
        }
        if let RouteView::NextHops(hops) = &candidate.route {
            let hops: Vec<Value> = hops
                .iter()
                .map(|hop| {
                    json!({
                        "via": hop.via.map(|via| via.to_string()),
                        "interface": self.interface_name(hop.interface),
                        "weight": hop.weight,
                        "mtu": (hop.mtu > 0).then_some(hop.mtu),
                    })
                })
                .collect();
            value["next_hops"] = json!(hops);
        }
        if let Some(why) = candidate.unexpressible {
            value["unexpressible"] = json!({ "reason": why.label(), "words": self.why_words(why) });
        }
        value
    }

    /// The reason, with the interface's name where it is about one.
    fn why_words(&self, why: Unexpressible) -> String {
        let Unexpressible::ForeignInterface(ifindex) = why else { return why.to_string() };
        match self.host.kernel().link(ifindex) {
            Some(Link { name, .. }) => format!("it leads over {name}, which is not the router's"),
            None => why.to_string(),
        }
    }

    fn link_state(&self, id: InterfaceId) -> LinkState {
        self.host.link_state(id)
    }

    fn interface_name(&self, id: InterfaceId) -> &str {
        self.config.interfaces.get(id.index()).map_or("?", |interface| interface.name.as_str())
    }

    /// What a packet to `address` would meet that comes in by one of the router's interfaces.
    pub(crate) fn answer_route_get(&mut self, address: IpAddr) -> Result<Value> {
        let snapshot = self.publication.current();
        let Err(reason) = forward::judge_destination(address, snapshot.rules) else {
            return self.get_route(address);
        };
        // No route is asked. Some such packets are the kernel's, as those to a multicast group are.
        let classified = self.datapath.classifier.probe(&frame_to(address))?;
        let kernel = classified.filter(|reason| reason.is_to_kernel());
        let next = match kernel {
            Some(why) => json!({ "kind": "kernel", "reason": why.label(), "help": why.help() }),
            None => json!({ "kind": "drop", "reason": reason.label(), "help": reason.help() }),
        };
        Ok(json!({
            "address": address.to_string(),
            "epoch": snapshot.epoch,
            "route": null,
            "next": next,
            "shorter": [],
        }))
    }

    /// What a packet to `address` would meet, as far as routes decide.
    fn get_route(&self, address: IpAddr) -> Result<Value> {
        let snapshot = self.publication.current();
        let covering = self.publication.routes_covering(address);
        let route = lookup(&snapshot, address);
        let egress = egress(&snapshot, address);
        let mut value = json!({
            "address": address.to_string(),
            "epoch": snapshot.epoch,
            "route": covering.first().map(|view| self.prefix_json(view)),
            "next": self.group_json(route, address, &snapshot),
            "shorter": covering
                .iter()
                .skip(1)
                .take(SHORTER_MAX)
                .map(|view| self.prefix_json(view))
                .collect::<Vec<_>>(),
        });
        if let Some(egress) = egress {
            value["egress"] = json!(snapshot.slices.prefix(egress).to_string());
        }
        if covering.first().map_or(RouteId::NONE, |view| view.route) != route {
            value["pending"] = json!(true);
        }
        Ok(value)
    }

    /// Whether the tables that workers read give for every address what the routes in force do; `pending` while
    /// a change is on its way into them.
    pub(crate) fn verify_routes(&self) -> Value {
        let start = Instant::now();
        let Some(audits) = self.publication.audit_routes() else {
            return json!({ "pending": true });
        };
        let took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let snapshot = self.publication.current();
        let difference = |difference: &Difference| {
            let (first, last) = difference.range;
            json!({
                "first": first.to_string(),
                "last": last.to_string(),
                "found": self.group_json(difference.found, first, &snapshot),
                "expected": self.group_json(difference.expected, first, &snapshot),
            })
        };
        let family = |audit: &Audit| {
            json!({
                "routes": audit.routes,
                "ranges": audit.ranges,
                "differences": audit.differences,
                "first": audit.first.iter().map(difference).collect::<Vec<_>>(),
            })
        };
        let [v4, v6] = &audits;
        for difference in audits.iter().flat_map(|audit| &audit.first) {
            tracing::error!(?difference, "the look-up table and the routes differ");
        }
        json!({ "pending": false, "took_ms": took_ms, "v4": family(v4), "v6": family(v6) })
    }

    /// What a route leads to: what workers read.
    fn group_json(&self, route: RouteId, address: IpAddr, snapshot: &Snapshot) -> Value {
        let kind = |kind: &str| json!({ "kind": kind, "group": route.0 });
        match snapshot.groups.copy(route) {
            None => json!({ "kind": "no-route" }),
            Some(NextHopGroup::Local) => kind("kernel"),
            Some(NextHopGroup::Blackhole) => kind("blackhole"),
            Some(NextHopGroup::Unreachable) => kind("unreachable"),
            Some(NextHopGroup::Prohibit) => kind("prohibit"),
            Some(NextHopGroup::Broadcast) => kind("broadcast"),
            Some(NextHopGroup::Glean { interface, mtu }) => json!({
                "kind": "on-link",
                "group": route.0,
                "interface": self.interface_name(interface),
                "link": self.link_state(interface).label(),
                // 0: as large as the link's.
                "mtu": mtu,
                "neighbor": snapshot
                    .neighbors
                    .get(interface, address)
                    .map(|id| self.adjacency_json(id, snapshot)),
            }),
            Some(NextHopGroup::Adjacencies(buckets)) => {
                let mut shares: Vec<(AdjacencyId, usize)> = Vec::new();
                for id in buckets.iter() {
                    match shares.iter_mut().find(|(known, _)| known == id) {
                        Some((_, count)) => *count += 1,
                        None => shares.push((*id, 1)),
                    }
                }
                shares.sort_unstable();
                let members: Vec<Value> = shares
                    .into_iter()
                    .map(|(id, count)| {
                        let mut member = self.adjacency_json(id, snapshot);
                        member["buckets"] = json!(count);
                        member["share"] = json!(count as f64 / buckets.len() as f64);
                        member
                    })
                    .collect();
                json!({
                    "kind": "next-hops",
                    "group": route.0,
                    "buckets": buckets.len(),
                    "members": members,
                })
            }
        }
    }

    fn adjacency_json(&self, id: AdjacencyId, snapshot: &Snapshot) -> Value {
        let Some(adjacency) = snapshot.adjacency(id) else { return Value::Null };
        json!({
            "address": adjacency.address.to_string(),
            "interface": self.interface_name(adjacency.interface),
            "state": adjacency.state.label(),
            "link": self.link_state(adjacency.interface).label(),
            "mac": (adjacency.state == AdjacencyState::Resolved)
                .then(|| adjacency.destination.to_string()),
            "mtu": adjacency.mtu,
        })
    }

    /// A page of the ranges that shared addresses are divided into, and where the next one begins.
    pub(crate) fn show_slices(&self, prefix: Option<IpNet>, after: u64) -> Result<Value> {
        let snapshot = self.publication.current();
        let slices = &snapshot.slices;
        let wanted = |egress: &EgressId| {
            let own = slices.prefix(*egress);
            prefix.is_none_or(|prefix| prefix.contains(&own) || own.contains(&prefix))
        };
        // A page begins at a place (prefix and port) and not behind a number of ranges, which would be counted
        // anew for each page.
        let mut all = (0_u64..)
            .zip(slices.egresses())
            .skip(usize::try_from(after >> 16).unwrap_or(usize::MAX))
            .filter(|(_, egress)| wanted(egress))
            .flat_map(|(number, egress)| {
                let place = move |port: u16| (number << 16) | u64::from(port);
                slices.ranges(egress).map(move |range| (place(range.first_port), egress, range))
            })
            .skip_while(|(place, ..)| *place < after);
        let ranges: Vec<Value> = all
            .by_ref()
            .take(PAGE_RANGES_MAX)
            .map(|(_, egress, range)| {
                let slice = range.hit.slice.and_then(|id| self.slice_name(id.0));
                json!({
                    "egress": slices.prefix(egress).to_string(),
                    "first_port": range.first_port,
                    "last_port": range.last_port,
                    "slice": slice,
                    "owner": self.owner_words(range.hit.owner),
                })
            })
            .collect();
        let next = all.next().map(|(place, ..)| place);
        Ok(json!({ "ranges": ranges, "next": next }))
    }

    /// The slice of this name.
    pub(crate) fn slice_named(&self, name: &str) -> Result<Value> {
        let slices = &self.config.slices;
        let Some(slice) = slices.iter().find(|slice| slice.name == name) else {
            let names: Vec<&str> =
                slices.iter().take(NAMES_MAX).map(|slice| slice.name.as_str()).collect();
            let more = match slices.len() - names.len() {
                0 => String::new(),
                more => format!(" and {more} more (sluice slice show)"),
            };
            bail!("there is no slice {name}; the router has: {}{more}", names.join(", "));
        };
        Ok(json!(slice_row(&self.config, slice)))
    }

    fn slice_name(&self, position: u32) -> Option<&str> {
        let slice = self.config.slices.get(usize::try_from(position).ok()?)?;
        Some(&slice.name)
    }

    fn owner_words(&self, owner: Owner) -> String {
        let config = &self.config;
        match owner {
            Owner::Unowned => "nobody".to_owned(),
            Owner::DropByDefault => "nobody, by the configured default".to_owned(),
            Owner::Local(id) => match config.owners.get(usize::from(id.0)) {
                Some(owner) => format!("{} on this machine", owner.name),
                None => "an owner on this machine".to_owned(),
            },
            Owner::Node(id) => match config.nodes.get(usize::from(id.0)) {
                Some(node) => format!("node {}", node.name),
                None => "a node".to_owned(),
            },
            Owner::Site(id) => match config.sites.get(usize::from(id.0)) {
                Some(site) => format!("site {}", site.name),
                None => "a site".to_owned(),
            },
        }
    }

    /// What a packet to a shared address and a port would meet: slice, owner, and the way to it.
    pub(crate) fn get_slice(&self, address: IpAddr, port: u16, has_ports: bool) -> Result<Value> {
        let snapshot = self.publication.current();
        let egress = egress(&snapshot, address).with_context(|| {
            format!("{address} is no shared address; `sluice route get {address}` tells its route")
        })?;
        let hit = if has_ports {
            snapshot.slices.lookup(egress, port)
        } else {
            tables::SliceHit { slice: None, owner: snapshot.slices.portless(egress) }
        };
        let slice = hit.slice.and_then(|id| self.config.slices.get(usize::try_from(id.0).ok()?));
        let next = match hit.owner {
            Owner::Unowned => json!({ "kind": "drop", "reason": "slice-unowned" }),
            Owner::DropByDefault => json!({ "kind": "drop", "reason": "slice-default" }),
            Owner::Local(id) => match snapshot.delivery(id) {
                Some(Delivery::NextHop { adjacency, .. }) => {
                    json!({ "kind": "workload", "neighbor": self.adjacency_json(*adjacency, &snapshot) })
                }
                _ => json!({ "kind": "kernel" }),
            },
            Owner::Node(id) => self.tunnel_json(snapshot.node_peer(id), &snapshot)?,
            Owner::Site(id) => self.tunnel_json(snapshot.site_peer(id), &snapshot)?,
        };
        let site = match hit.owner {
            Owner::Node(id) => self
                .config
                .nodes
                .get(usize::from(id.0))
                .and_then(|node| node.site)
                .and_then(|site| self.config.sites.get(usize::from(site.0)))
                .map(|site| site.name.as_str()),
            _ => None,
        };
        Ok(json!({
            "address": address.to_string(),
            "port": has_ports.then_some(port),
            "epoch": snapshot.epoch,
            "egress": snapshot.slices.prefix(egress).to_string(),
            "slice": slice.map(|slice| json!({ "name": slice.name, "ports": slice.ports.to_string() })),
            "owner": self.owner_words(hit.owner),
            "site": site,
            "next": next,
        }))
    }

    /// Whether an address is shared.
    pub(crate) fn is_shared(&self, address: IpAddr) -> bool {
        egress(&self.publication.current(), address).is_some()
    }

    fn tunnel_json(&self, id: Option<PeerId>, snapshot: &Snapshot) -> Result<Value> {
        let Some(peer) = id.and_then(|id| snapshot.peer(id)) else {
            return Ok(json!({ "kind": "drop", "reason": "no-route" }));
        };
        let encapsulation = match &peer.encapsulation {
            Encapsulation::Gue { port } => format!("GUE to port {port}"),
            Encapsulation::Gre(gre) => match gre.key {
                Some(key) => format!("GRE with key {key}"),
                None => "GRE".to_owned(),
            },
            Encapsulation::Ipip => "IP in IP".to_owned(),
        };
        Ok(json!({
            "kind": "tunnel",
            "remote": peer.remote.to_string(),
            "local": peer.local.to_string(),
            "encapsulation": encapsulation,
            "overhead_bytes": peer.overhead(),
            "route": self.get_route(peer.remote)?,
        }))
    }
}

/// A frame with a UDP packet to an address, for the classifier.
fn frame_to(address: IpAddr) -> Vec<u8> {
    let mut frame = vec![0; ethernet::HEADER_LEN];
    let (ethertype, packet) = match address {
        IpAddr::V4(destination) => {
            let mut packet = [0; ipv4::HEADER_LEN];
            ipv4::Ipv4Repr {
                source: [192, 0, 2, 1],
                destination: destination.octets(),
                protocol: protocol::UDP,
                ttl: 64,
                traffic_class: 0,
                dont_fragment: false,
                identification: 0,
                payload_len: udp::HEADER_LEN as u16,
            }
            .emit(&mut packet);
            (ethernet::ETHERTYPE_IPV4, packet.to_vec())
        }
        IpAddr::V6(destination) => {
            let mut packet = [0; ipv6::HEADER_LEN];
            ipv6::Ipv6Repr {
                source: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).octets(),
                destination: destination.octets(),
                next_header: protocol::UDP,
                hop_limit: 64,
                traffic_class: 0,
                flow_label: 0,
                payload_len: udp::HEADER_LEN as u16,
            }
            .emit(&mut packet);
            (ethernet::ETHERTYPE_IPV6, packet.to_vec())
        }
    };
    if let Some(header) = frame.first_chunk_mut() {
        ethernet::write_header(header, MacAddress::default(), MacAddress::default(), ethertype);
    }
    frame.extend(packet);
    // Ports of nothing that the classifier looks for.
    frame.extend([0; udp::HEADER_LEN]);
    frame
}

/// The group that workers find for an address.
fn lookup(snapshot: &Snapshot, address: IpAddr) -> RouteId {
    match address {
        IpAddr::V4(address) => snapshot.fib4.lookup(address.to_bits()),
        IpAddr::V6(address) => snapshot.fib6.lookup(address.to_bits()),
    }
}

fn egress(snapshot: &Snapshot, address: IpAddr) -> Option<EgressId> {
    match address {
        IpAddr::V4(address) => snapshot.slices.egress4(address.to_bits()),
        IpAddr::V6(address) => snapshot.slices.egress6(address.to_bits()),
    }
}

/// Why a candidate is not in force.
fn why_not(candidate: &CandidateView, best: &CandidateView) -> String {
    if candidate.place > best.place {
        return format!("{} is preferred", best.source);
    }
    match (candidate.source, best.source) {
        (RouteSource::Kernel { table, .. }, RouteSource::Kernel { table: first, .. })
            if table != first =>
        {
            format!("table {first} comes first")
        }
        _ if candidate.metric > best.metric => {
            format!("metric {} is above {}", candidate.metric, best.metric)
        }
        _ => "the kernel uses the other one of equal metric".to_owned(),
    }
}
