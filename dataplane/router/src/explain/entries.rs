//! Entries of tables in words.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use control::publication::RouteEntry;
use forward::{Next, Path};
use serde_json::{Value, json};
use sluice_abi::{Descriptor, flags};
use tables::{
    Adjacency, AdjacencyId, AdjacencyState, NextHopGroup, Owner, PeerId, SliceId, Snapshot,
};
use wire::{InterfaceId, flow, protocol};

use super::Names;

/// The address of a descriptor.
pub(crate) fn ip(address: &[u8; 16]) -> IpAddr {
    match flow::as_ipv4(address) {
        Some(address) => IpAddr::V4(Ipv4Addr::from(address)),
        None => IpAddr::V6(Ipv6Addr::from(*address)),
    }
}

/// A packet in a line.
pub(crate) fn describe(descriptor: &Descriptor, received: &[u8]) -> String {
    let has_ports = descriptor.flags & flags::PORTS != 0;
    let is_icmp = matches!(descriptor.protocol, protocol::ICMP | protocol::ICMPV6);
    let end = |address: &[u8; 16], port: u16| match ip(address) {
        address if !has_ports || is_icmp => address.to_string(),
        IpAddr::V4(address) => format!("{address}:{port}"),
        IpAddr::V6(address) => format!("[{address}]:{port}"),
    };
    let name = match descriptor.protocol {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::SCTP => "sctp".to_owned(),
        protocol::ICMP => "icmp".to_owned(),
        protocol::ICMPV6 => "icmpv6".to_owned(),
        other => format!("protocol {other}"),
    };
    let mut words = format!(
        "{name} {} > {}",
        end(&descriptor.source, descriptor.source_port),
        end(&descriptor.destination, descriptor.destination_port)
    );
    if descriptor.protocol == protocol::TCP && has_ports {
        words += &format!(" {}", tcp_flags(descriptor.tcp_flags));
    }
    if is_icmp && descriptor.flags & flags::LATER_FRAGMENT == 0 {
        let at = usize::from(descriptor.l4_offset);
        if let Some([kind, code]) = received.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
            words += &format!(" type {kind} code {code}");
        }
        if has_ports {
            words += &format!(" id {}", descriptor.source_port);
        }
    }
    words += &format!(", {} bytes, TTL {}", descriptor.length, descriptor.ttl);
    if descriptor.flags & flags::LATER_FRAGMENT != 0 {
        words += ", a later fragment";
    } else if descriptor.flags & flags::FRAGMENT != 0 {
        words += ", the first fragment";
    }
    words
}

fn tcp_flags(bits: u8) -> String {
    let names = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];
    let set: Vec<&str> =
        (0..8).zip(names).filter(|(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| name).collect();
    if set.is_empty() { "no flags".to_owned() } else { set.join(",") }
}

pub(crate) fn interface_name<'a>(id: InterfaceId, names: Names<'a>) -> &'a str {
    names.config.interfaces.get(id.index()).map_or("?", |interface| interface.name.as_str())
}

/// The far end of a tunnel.
pub(crate) fn peer_words(id: PeerId, names: Names<'_>) -> Option<String> {
    let peer = names.snapshot.peer(id)?;
    let remote = peer.remote;
    let position = |list: &[Option<PeerId>]| list.iter().position(|peer| *peer == Some(id));
    let node = position(&names.snapshot.nodes).and_then(|at| names.config.nodes.get(at));
    let site = peer.site.and_then(|site| names.config.sites.get(usize::from(site.0)));
    Some(match (node, site) {
        (Some(node), _) => format!("node {} ({remote})", node.name),
        (_, Some(site)) => format!("site {} ({remote})", site.name),
        _ => remote.to_string(),
    })
}

/// Who owns a slice.
pub(crate) fn owner_words(owner: Owner, names: Names<'_>) -> String {
    let config = names.config;
    match owner {
        Owner::Local(id) => match config.owners.get(usize::from(id.0)) {
            Some(owner) => format!("owner {} on this machine", owner.name),
            None => "an owner on this machine".to_owned(),
        },
        Owner::Node(id) => config
            .nodes
            .get(usize::from(id.0))
            .map_or_else(|| "a node".to_owned(), |node| format!("node {}", node.name)),
        Owner::Site(id) => config
            .sites
            .get(usize::from(id.0))
            .map_or_else(|| "a site".to_owned(), |site| format!("site {}", site.name)),
        Owner::Unowned => "nobody".to_owned(),
        Owner::DropByDefault => "nobody, by the configured default".to_owned(),
    }
}

/// A slice, or what stands for it.
pub(super) fn slice_words(slice: Option<SliceId>, owner: Owner, names: Names<'_>) -> String {
    let slice = slice.and_then(|id| names.config.slices.get(usize::try_from(id.0).ok()?));
    match slice {
        Some(slice) => format!("slice {} (ports {})", slice.name, slice.ports),
        None if matches!(owner, Owner::Unowned | Owner::DropByDefault) => "no slice".to_owned(),
        None => "the rest of its ports".to_owned(),
    }
}

/// Who gave a route.
pub(super) fn source_words(entry: &RouteEntry) -> String {
    if entry.is_unexpressible {
        format!("{}, which has to forward it itself", entry.source)
    } else {
        entry.source.to_string()
    }
}

/// What a route leads to.
pub(super) fn group_words(group: &NextHopGroup, names: Names<'_>) -> String {
    match group {
        NextHopGroup::Adjacencies(members) => {
            let mut seen: Vec<(AdjacencyId, usize)> = Vec::new();
            for member in members {
                match seen.iter_mut().find(|(id, _)| id == member) {
                    Some((_, count)) => *count += 1,
                    None => seen.push((*member, 1)),
                }
            }
            let hops: Vec<String> = seen
                .iter()
                .filter_map(|(id, count)| {
                    let adjacency = names.snapshot.adjacency(*id)?;
                    let interface = interface_name(adjacency.interface, names);
                    let share = if seen.len() > 1 {
                        format!(" ({count} of {} buckets)", members.len())
                    } else {
                        String::new()
                    };
                    Some(format!("via {} on {interface}{share}", adjacency.address))
                })
                .collect();
            hops.join(" or ")
        }
        NextHopGroup::Glean { interface, mtu } => {
            let limit = if *mtu == 0 { String::new() } else { format!(", MTU {mtu}") };
            format!("on the link of {}{limit}", interface_name(*interface, names))
        }
        NextHopGroup::Local => "this machine's kernel".to_owned(),
        NextHopGroup::Broadcast => "the broadcast address of a connected subnet".to_owned(),
        NextHopGroup::Blackhole => "blackhole".to_owned(),
        NextHopGroup::Unreachable => "unreachable".to_owned(),
        NextHopGroup::Prohibit => "prohibit".to_owned(),
    }
}

/// The neighbor that the look-up chose.
pub(super) fn adjacency_of<'a>(
    path: &Path,
    _descriptor: &Descriptor,
    snapshot: &'a Snapshot,
) -> Option<&'a Adjacency> {
    match path.next {
        Next::Send(id) | Next::Await(id) => snapshot.adjacency(id),
        Next::Seek(_) | Next::Punt => None,
    }
}

pub(super) fn adjacency_json(adjacency: &Adjacency, names: Names<'_>) -> Value {
    json!({
        "address": adjacency.address.to_string(),
        "interface": interface_name(adjacency.interface, names),
        "state": adjacency.state.label(),
        "mac": (adjacency.state == AdjacencyState::Resolved)
            .then(|| adjacency.destination.to_string()),
        "mtu": adjacency.mtu,
    })
}

/// Where the look-up sends a packet, as the end of a sentence.
pub(super) fn next_hop_words(
    next: Next,
    descriptor: &Descriptor,
    path: &Path,
    names: Names<'_>,
) -> String {
    match next {
        Next::Send(id) | Next::Await(id) => match names.snapshot.adjacency(id) {
            Some(adjacency) => {
                let interface = interface_name(adjacency.interface, names);
                let (address, state) = (adjacency.address, adjacency.state.label());
                let mac = match adjacency.state {
                    AdjacencyState::Resolved => format!(" at {}", adjacency.destination),
                    _ => String::new(),
                };
                format!("; neighbor {address} on {interface} is {state}{mac}")
            }
            None => String::new(),
        },
        Next::Seek(interface) => {
            let peer = path.encapsulate.and_then(|id| names.snapshot.peer(id));
            let address = peer.map_or_else(|| ip(&descriptor.destination), |peer| peer.remote);
            let is_down = names.snapshot.interface(interface).is_some_and(|link| !link.is_up);
            let state = if is_down { "link-down" } else { "not known yet" };
            format!("; neighbor {address} on {} is {state}", interface_name(interface, names))
        }
        Next::Punt => String::new(),
    }
}

/// Ranges of bytes that differ: `at: before > after`, at most eight of them.
pub(super) fn changed_bytes(before: &[u8], after: &[u8]) -> Value {
    let differs = |at: usize| before.get(at) != after.get(at);
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for at in (0..before.len().min(after.len())).filter(|at| differs(*at)) {
        match ranges.last_mut() {
            Some((_, end)) if *end == at => *end = at + 1,
            _ => ranges.push((at, at + 1)),
        }
    }
    let hex = |bytes: &[u8], (start, end): (usize, usize)| {
        super::to_hex(bytes.get(start..end).unwrap_or_default())
    };
    let words: Vec<String> = ranges
        .iter()
        .take(8)
        .map(|&range| format!("{}: {} > {}", range.0, hex(before, range), hex(after, range)))
        .collect();
    json!(words)
}
