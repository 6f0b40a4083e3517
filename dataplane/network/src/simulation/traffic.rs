//! What hosts and workloads send: [`Traffic`] draws packets, well-formed and odd, and knows where each may go.

use std::net::IpAddr;

use fastrand::Rng;

use super::accounts::Made;
use crate::frames::{self, ETHERNET_LEN, Layer, Recipe, Transport};
use crate::model::{
    HOSTS, Holder, Model, NODES, PORT_FIRST, ROUTERS, Slice, WORKLOADS, host_address,
    router_address, workload_address,
};

/// Where a packet may be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// To the owner of this port of a shared address; without one, of what has none.
    Slice { shared: usize, port: Option<u16> },
    /// To the host or workload whose address it is.
    Station(usize),
    /// To the kernel of a router whose address it is.
    Router(usize),
}

/// A packet that was sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) recipe: Recipe,
    pub(super) sender: usize,
    pub(super) time_ns: u64,
    pub(super) target: Target,
    /// The slice that its source claims.
    pub(super) claims: Option<(usize, Option<u16>)>,
    /// It must not get through, whatever is configured.
    pub(super) never: Option<&'static str>,
    pub(super) is_answered: bool,
}

/// All packets that were sent, by their ids.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: Vec<Sent>,
}

impl Made for Traffic {
    fn error_source(&self, id: u32) -> Option<IpAddr> {
        let sent = self.sent.get(id as usize)?;
        sent.recipe.is_error().then_some(sent.recipe.source)
    }
}

/// A host or workload, by its position: hosts first.
pub(super) const STATIONS: usize = HOSTS + (ROUTERS - 1) * WORKLOADS;

pub(super) fn workload(node: usize, which: usize) -> usize {
    HOSTS + (node - 1) * WORKLOADS + which
}

/// Node and number of a workload; `None` for a host.
pub(super) fn place(station: usize) -> Option<(usize, usize)> {
    let position = station.checked_sub(HOSTS)?;
    Some((1 + position / WORKLOADS, position % WORKLOADS))
}

pub(super) fn address(station: usize, is_v6: bool) -> IpAddr {
    match place(station) {
        Some((node, which)) => workload_address(node, which, is_v6),
        None => host_address(station, is_v6),
    }
}

/// How the frames of a packet leave.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Shape {
    Whole,
    Fragments { cuts: Vec<u16>, is_reversed: bool },
    Overlapping,
    Odd(u8),
}

/// Both ports of a packet, as its source and destination look for them.
fn claims(recipe: &Recipe, model: &Model) -> Option<(usize, Option<u16>)> {
    let shared = model.shared_at(recipe.source)?;
    Some((shared, ports(&recipe.transport).0))
}

fn ports(transport: &Transport) -> (Option<u16>, Option<u16>) {
    match transport {
        Transport::Udp { source, destination } | Transport::Tcp { source, destination, .. } => {
            (Some(*source), Some(*destination))
        }
        Transport::Echo { identifier, .. } => (Some(*identifier), Some(*identifier)),
        Transport::Portless => (None, None),
        // The other way round.
        Transport::Error { quoted, .. } => {
            let at = Layer::read(quoted, 0).map_or(0, |layer| layer.payload.start);
            (Some(frames::be16(quoted, at + 2)), Some(frames::be16(quoted, at)))
        }
    }
}

/// A packet to be sent, before it has a number.
pub(super) struct Draft {
    sender: usize,
    source: IpAddr,
    destination: IpAddr,
    target: Target,
    transport: Transport,
    units: u16,
    ttl: u8,
    dont_fragment: bool,
    shape: Shape,
    never: Option<&'static str>,
    is_answered: bool,
}

impl Draft {
    /// A small packet between two addresses that nothing stands against.
    fn plain(sender: usize, source: IpAddr, destination: IpAddr, target: Target) -> Self {
        Self {
            sender,
            source,
            destination,
            target,
            transport: Transport::Portless,
            units: 12,
            ttl: 64,
            dont_fragment: false,
            shape: Shape::Whole,
            never: None,
            is_answered: false,
        }
    }
}

impl Traffic {
    /// Gives the packet its number. Returns that and the IP packets to send, in their order.
    pub(super) fn send(
        &mut self,
        draft: Draft,
        now: u64,
        model: &Model,
        random: &mut Rng,
        spares_malformed: bool,
    ) -> (u32, Vec<Vec<u8>>) {
        let id = self.sent.len() as u32;
        let identification = random.u16(..);
        let mut recipe = Recipe {
            id,
            source: draft.source,
            destination: draft.destination,
            ttl: draft.ttl,
            dont_fragment: draft.dont_fragment,
            identification,
            transport: draft.transport,
            units: draft.units,
        };
        // What an error quotes has the error's own number.
        if let Transport::Error { quoted, .. } = &mut recipe.transport {
            let at = Layer::read(quoted, 0).map_or(0, |layer| layer.payload.start + 8);
            for (unit, bytes) in (1..).zip(quoted[at..].chunks_exact_mut(8)) {
                bytes.copy_from_slice(&frames::block(id, unit));
            }
        }
        let mut packet = recipe.build();
        let packets = match &draft.shape {
            Shape::Whole => vec![packet],
            Shape::Fragments { cuts, is_reversed } => {
                let mut parts = frames::fragments(&packet, identification, cuts);
                if *is_reversed {
                    parts.reverse();
                }
                parts
            }
            Shape::Overlapping => {
                let parts = frames::fragments(&packet, identification, &[5]);
                let others = frames::fragments(&packet, identification, &[4]);
                vec![parts[0].clone(), others[1].clone(), parts[1].clone()]
            }
            Shape::Odd(kind) => {
                if !spares_malformed {
                    distort(&mut packet, *kind);
                }
                vec![packet]
            }
        };
        let sent = Sent {
            claims: claims(&recipe, model),
            recipe,
            sender: draft.sender,
            time_ns: now,
            target: draft.target,
            never: draft.never,
            is_answered: draft.is_answered,
        };
        self.sent.push(sent);
        (id, packets)
    }
}

/// Damages a packet in a way that no router may let pass.
fn distort(packet: &mut Vec<u8>, kind: u8) {
    let is_v6 = packet[0] >> 4 == 6;
    match (kind, is_v6) {
        (0, false) => packet[10] ^= 0x40,
        (1, false) => {
            packet[0] = 0x44;
            frames::repair_ipv4(packet);
        }
        (2, false) => {
            let longer = (packet.len() + 40) as u16;
            packet[2..4].copy_from_slice(&longer.to_be_bytes());
            frames::repair_ipv4(packet);
        }
        (3, false) => {
            // From a loopback address.
            packet[12] = 127;
            frames::repair_ipv4(packet);
        }
        (4, false) => packet.truncate(15),
        (5, false) => {
            packet[12..16].fill(255);
            frames::repair_ipv4(packet);
        }
        (0, true) => packet[0] = 0x50,
        (1, true) => {
            let longer = (packet.len() + 40) as u16;
            packet[4..6].copy_from_slice(&longer.to_be_bytes());
        }
        (2, true) => packet.truncate(39),
        (3, true) => {
            // RFC 8200 section 4.3 and so on, without an end.
            packet[6] = 0;
            packet[41] = 255;
        }
        (4, true) => {
            packet[8..18].fill(0);
            packet[18..20].fill(255);
        }
        (_, true) => packet[8] = 255,
        (_, false) => packet[0] = 0x55,
    }
}

/// What is drawn for a packet that may be on the way while everything goes wrong.
pub(super) fn draw(model: &Model, random: &mut Rng) -> Draft {
    let mut draft = match random.u8(..20) {
        0..=6 => to_slice(model, random),
        7..=8 => error_to_slice(model, random),
        9..=11 => from_slice(model, random),
        12..=13 => hairpin(model, random),
        14..=16 => direct(random),
        17 => spoofed(model, random),
        18 => portless(model, random),
        _ => to_router(random),
    };
    let is_plain = !matches!(draft.transport, Transport::Error { .. });
    if is_plain {
        draft.units = match random.u8(..10) {
            0..=5 => 4 + random.u16(..12),
            6..=7 => random.u16(40..120),
            _ => random.u16(150..=182),
        };
    }
    draft.dont_fragment = random.bool();
    draft.ttl = if random.u8(..20) == 0 { random.u8(1..6) } else { 64 };
    draft.is_answered &= random.bool();
    let is_shared = matches!(draft.target, Target::Slice { .. });
    if is_plain {
        draft.shape = match random.u8(..20) {
            0..=2 => Shape::Fragments {
                cuts: (0..random.u8(1..4)).map(|_| random.u16(4..draft.units.max(5))).collect(),
                is_reversed: random.bool(),
            },
            3 if is_shared && draft.units > 8 => Shape::Overlapping,
            4 | 5 => {
                draft.never = Some("it is malformed");
                Shape::Odd(random.u8(..7))
            }
            _ => Shape::Whole,
        };
    }
    draft
}

/// One packet for each kind of flow, with the holder that must get it.
pub(super) fn every_flow(model: &Model, random: &mut Rng) -> Vec<(Draft, Option<Holder>)> {
    let mut flows = Vec::new();
    for (which, shared) in model.shared.iter().enumerate() {
        let is_v6 = shared.address.is_ipv6();
        for slice in &shared.slices {
            let port = open_port(model, slice, random);
            let transports = [
                Transport::Udp { source: 40_000, destination: port },
                Transport::Tcp { source: 40_001, destination: port, is_syn: true },
                Transport::Echo { identifier: port, is_reply: false },
            ];
            let shapes = [
                Shape::Whole,
                Shape::Whole,
                Shape::Fragments { cuts: vec![4, 7], is_reversed: false },
                Shape::Fragments { cuts: vec![5], is_reversed: true },
            ];
            for shape in shapes {
                let host = random.usize(..HOSTS);
                let target = Target::Slice { shared: which, port: Some(port) };
                let transport = transports[random.usize(..transports.len())].clone();
                let is_answered = shape == Shape::Whole;
                let plain = Draft::plain(host, address(host, is_v6), shared.address, target);
                flows.push((Draft { transport, shape, is_answered, ..plain }, Some(slice.holder)));
            }
        }
        let target = Target::Slice { shared: which, port: Some(80) };
        let transport = Transport::Udp { source: 40_000, destination: 80 };
        let plain = Draft::plain(0, address(0, is_v6), shared.address, target);
        flows.push((Draft { transport, ..plain }, Some(shared.default)));
        // From each workload that has a slice: to a host, and to each other slice.
        for slice in &shared.slices {
            let Holder::Workload(node, own) = slice.holder else { continue };
            let sender = workload(node, own);
            let source = random.u16(slice.first..=slice.last);
            let transport = Transport::Udp { source, destination: 50_000 };
            let host = random.usize(..HOSTS);
            let plain =
                Draft::plain(sender, shared.address, address(host, is_v6), Target::Station(host));
            flows.push((Draft { transport, is_answered: true, ..plain }, None));
            let other = &shared.slices[random.usize(..shared.slices.len())];
            let port = open_port(model, other, random);
            let target = Target::Slice { shared: which, port: Some(port) };
            let transport = Transport::Tcp { source, destination: port, is_syn: false };
            let plain = Draft::plain(sender, shared.address, shared.address, target);
            flows.push((Draft { transport, ..plain }, Some(other.holder)));
        }
        for _ in 0..4 {
            let draft = error_to_slice(model, random);
            let Target::Slice { shared, port } = draft.target else { continue };
            if port == Some(model.blocked) {
                continue;
            }
            let holder = model.shared[shared].holder(port);
            flows.push((draft, Some(holder)));
        }
    }
    for is_v6 in [false, true] {
        for node in NODES {
            let host = random.usize(..HOSTS);
            let station = workload(node, random.usize(..WORKLOADS));
            let transport = Transport::Udp { source: 1, destination: 2 };
            for (from, to) in [(host, station), (station, host)] {
                let plain = Draft::plain(
                    from,
                    address(from, is_v6),
                    address(to, is_v6),
                    Target::Station(to),
                );
                flows.push((
                    Draft { transport: transport.clone(), is_answered: true, ..plain },
                    None,
                ));
            }
        }
    }
    flows
}

/// A port of a slice that no plugin drops.
fn open_port(model: &Model, slice: &Slice, random: &mut Rng) -> u16 {
    loop {
        let port = random.u16(slice.first..=slice.last);
        if port != model.blocked {
            return port;
        }
    }
}

fn any_shared(model: &Model, random: &mut Rng) -> (usize, IpAddr) {
    let which = random.usize(..model.shared.len());
    (which, model.shared[which].address)
}

fn any_port(random: &mut Rng) -> u16 {
    if random.u8(..16) == 0 { random.u16(..PORT_FIRST) } else { random.u16(PORT_FIRST..) }
}

fn any_transport(source: u16, destination: u16, random: &mut Rng) -> Transport {
    if random.bool() {
        Transport::Udp { source, destination }
    } else {
        Transport::Tcp { source, destination, is_syn: random.bool() }
    }
}

fn to_slice(model: &Model, random: &mut Rng) -> Draft {
    let (shared, destination) = any_shared(model, random);
    let (host, port) = (random.usize(..HOSTS), any_port(random));
    let target = Target::Slice { shared, port: Some(port) };
    let plain = Draft::plain(host, address(host, destination.is_ipv6()), destination, target);
    let transport = match random.u8(..4) {
        0 => Transport::Echo { identifier: port, is_reply: random.bool() },
        _ => any_transport(random.u16(20_000..), port, random),
    };
    Draft { transport, is_answered: true, ..plain }
}

/// A host complains about a packet that an owner sent it.
fn error_to_slice(model: &Model, random: &mut Rng) -> Draft {
    let (shared, destination) = any_shared(model, random);
    let is_v6 = destination.is_ipv6();
    let (host, port) = (random.usize(..HOSTS), random.u16(PORT_FIRST..));
    let target = Target::Slice { shared, port: Some(port) };
    let source = address(host, is_v6);
    let quoted = Recipe {
        id: 0,
        source: destination,
        destination: source,
        ttl: 50,
        dont_fragment: true,
        identification: 9,
        transport: Transport::Udp { source: port, destination: random.u16(20_000..) },
        units: 4,
    };
    let kinds: [(u8, u8); 2] = if is_v6 { [(1, 4), (3, 0)] } else { [(3, 3), (11, 0)] };
    let (kind, code) = kinds[random.usize(..2)];
    let transport = Transport::Error { kind, code, quoted: quoted.build() };
    Draft { transport, ..Draft::plain(host, source, destination, target) }
}

/// From a workload to a host; mostly from a port that is its own.
fn from_slice(model: &Model, random: &mut Rng) -> Draft {
    let (sender, source, port) = any_sender(model, random);
    let host = random.usize(..HOSTS);
    let destination = match random.u8(..4) {
        0 => 7001,
        1 => 7002,
        _ => random.u16(20_000..),
    };
    let to = address(host, source.is_ipv6());
    let transport = any_transport(port, destination, random);
    let plain = Draft::plain(sender, source, to, Target::Station(host));
    Draft { transport, is_answered: true, ..plain }
}

fn any_sender(model: &Model, random: &mut Rng) -> (usize, IpAddr, u16) {
    let (shared, source) = any_shared(model, random);
    let slice = &model.shared[shared].slices[random.usize(..8)];
    let any = workload(random.usize(NODES), random.usize(..WORKLOADS));
    let sender = match slice.holder {
        Holder::Workload(node, which) if random.u8(..6) > 0 => workload(node, which),
        _ => any,
    };
    (sender, source, random.u16(slice.first..=slice.last))
}

fn hairpin(model: &Model, random: &mut Rng) -> Draft {
    let (sender, source, own) = any_sender(model, random);
    let candidates: Vec<usize> = (0..model.shared.len())
        .filter(|&which| model.shared[which].address.is_ipv6() == source.is_ipv6())
        .collect();
    let shared = candidates[random.usize(..candidates.len())];
    let port = random.u16(PORT_FIRST..);
    let target = Target::Slice { shared, port: Some(port) };
    let transport = any_transport(own, port, random);
    let plain = Draft::plain(sender, source, model.shared[shared].address, target);
    Draft { transport, is_answered: true, ..plain }
}

/// Between addresses that nobody shares.
fn direct(random: &mut Rng) -> Draft {
    let is_v6 = random.bool();
    let host = random.usize(..HOSTS);
    let station = workload(random.usize(NODES), random.usize(..WORKLOADS));
    let other = workload(random.usize(NODES), random.usize(..WORKLOADS));
    let (from, to) = match random.u8(..3) {
        0 => (host, station),
        1 => (station, host),
        // Those of one node meet on its link, without a router.
        _ if place(station).map(|(node, _)| node) != place(other).map(|(node, _)| node) => {
            (station, other)
        }
        _ => (host, other),
    };
    let transport = any_transport(random.u16(20_000..), random.u16(20_000..), random);
    let plain = Draft::plain(from, address(from, is_v6), address(to, is_v6), Target::Station(to));
    Draft { transport, is_answered: true, ..plain }
}

/// A host that sends from a shared address.
fn spoofed(model: &Model, random: &mut Rng) -> Draft {
    let draft = hairpin(model, random);
    let never = Some("its source is a shared address, and it comes from outside");
    Draft { sender: random.usize(..HOSTS), never, is_answered: false, ..draft }
}

fn portless(model: &Model, random: &mut Rng) -> Draft {
    let (shared, destination) = any_shared(model, random);
    let host = random.usize(..HOSTS);
    let target = Target::Slice { shared, port: None };
    Draft::plain(host, address(host, destination.is_ipv6()), destination, target)
}

/// To an address of a router itself: for its kernel.
fn to_router(random: &mut Rng) -> Draft {
    let is_v6 = random.bool();
    let host = random.usize(..HOSTS);
    let router = random.usize(..ROUTERS);
    let destination = router_address(router, 0, is_v6);
    let transport = any_transport(random.u16(20_000..), 179, random);
    let plain = Draft::plain(host, address(host, is_v6), destination, Target::Router(router));
    Draft { transport, ..plain }
}

/// The answer to a packet that arrived whole, if it has one.
pub(super) fn answer(sent: &Sent, station: usize) -> Option<Draft> {
    let transport = match sent.recipe.transport {
        Transport::Udp { source, destination } => {
            Transport::Udp { source: destination, destination: source }
        }
        Transport::Tcp { source, destination, .. } => {
            Transport::Tcp { source: destination, destination: source, is_syn: false }
        }
        Transport::Echo { identifier, is_reply: false } => {
            Transport::Echo { identifier, is_reply: true }
        }
        _ => return None,
    };
    let target = match sent.claims {
        Some((shared, port)) => Target::Slice { shared, port },
        None => Target::Station(sent.sender),
    };
    let plain = Draft::plain(station, sent.recipe.destination, sent.recipe.source, target);
    Some(Draft { transport, ..plain })
}

/// The packet in a frame from a station, with what else can be wrong with that.
pub(super) fn frame(to: [u8; 6], from: [u8; 6], packet: &[u8], padding: usize) -> Vec<u8> {
    let mut frame = frames::ethernet(to, from, packet);
    // Ethernet's least: padding that is no part of the packet.
    let len = (ETHERNET_LEN + packet.len() + padding).max(60);
    frame.resize(len, 0xee);
    frame
}
