//! A worker on memory rings, and packets for it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use benches::destinations::{self, Spread};
use benches::routes::Routes;
use control::publication::{HostView, InterfaceView, NeighborView, Publication};
use crossbeam::channel::bounded;
use forward::{Sampler, Worker, WorkerCounters, WorkerParts};
use frame::Hook;
use sim::{HeaderTemplate, LoopQueue, Rewrite, Vary, memory_pool};
use tables::AdjacencyState;
use wire::{InterfaceId, MacAddress, checksum, ethernet, ipv4, ipv6, protocol, udp};

/// Flows that the packets belong to where a case does not say otherwise: the look-ups stay in the
/// cache.
const FLOWS: u16 = 64;

const ROUTER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
pub(crate) const NEXT_HOP_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

pub(crate) const CONFIG: &str = r#"
[router]
name = "bench"
node = "a"

[[interface]]
name = "in0"
role = "outside"

[[interface]]
name = "out0"
role = "outside"

[[route]]
prefix = "0.0.0.0/0"
via = "10.0.1.2"
interface = "out0"

[[route]]
prefix = "::/0"
via = "fd00:1::2"
interface = "out0"

[[node]]
name = "a"
address = "10.0.1.1"

[[node]]
name = "b"
address = "10.0.1.2"
"#;

#[derive(Clone, Copy)]
pub(crate) enum Traffic {
    Ipv4,
    Ipv6,
    /// To a slice of node b.
    Slice,
    /// With a TTL of 1: each asks for an ICMP error.
    Dying,
    /// To a blackhole: dropped without a word.
    Blackholed,
}

/// A 64-byte frame (without its checksum: 60 bytes).
fn packet(traffic: Traffic, flow: u16) -> Vec<u8> {
    let [high, low] = flow.to_be_bytes();
    let mut bytes = vec![0; 14];
    let header: &mut [u8; 14] = bytes.first_chunk_mut().expect("14 bytes");
    let udp_len: u16 = if matches!(traffic, Traffic::Ipv6) { 8 } else { 26 };
    let (ethertype, destination_port) = match traffic {
        Traffic::Ipv4 | Traffic::Dying | Traffic::Blackholed => (ethernet::ETHERTYPE_IPV4, 53),
        Traffic::Ipv6 => (ethernet::ETHERTYPE_IPV6, 53),
        Traffic::Slice => (ethernet::ETHERTYPE_IPV4, 40_000 + flow),
    };
    ethernet::write_header(header, ROUTER_MAC, NEXT_HOP_MAC, ethertype);
    match traffic {
        Traffic::Ipv4 | Traffic::Slice | Traffic::Dying | Traffic::Blackholed => {
            let mut ip = [0; ipv4::HEADER_LEN];
            ipv4::Ipv4Repr {
                source: [203, 0, 113, low],
                destination: match traffic {
                    Traffic::Slice => [192, 0, 2, 1],
                    Traffic::Blackholed => [100, 64, high, low],
                    _ => [198, 51, high, low],
                },
                protocol: protocol::UDP,
                ttl: if matches!(traffic, Traffic::Dying) { 1 } else { 64 },
                traffic_class: 0,
                dont_fragment: true,
                identification: 0,
                payload_len: udp_len,
            }
            .emit(&mut ip);
            bytes.extend(ip);
        }
        Traffic::Ipv6 => {
            let mut ip = [0; ipv6::HEADER_LEN];
            let address =
                |last: u8| [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, high, last];
            ipv6::Ipv6Repr {
                source: address(low),
                destination: address(low ^ 0x80),
                next_header: protocol::UDP,
                hop_limit: 64,
                traffic_class: 0,
                flow_label: 0,
                payload_len: udp_len,
            }
            .emit(&mut ip);
            bytes.extend(ip);
        }
    }
    let mut header = [0; udp::HEADER_LEN];
    udp::emit_header(&mut header, 1024 + flow, destination_port, udp_len, 0);
    bytes.extend(header);
    bytes.resize(bytes.len() + usize::from(udp_len) - udp::HEADER_LEN, 0);
    bytes
}

/// A machine with both interfaces and a neighbor of each family.
pub(crate) fn host() -> HostView {
    let mut host = HostView::default();
    for addresses in [["10.0.0.1/24", "fd00:0::1/64"], ["10.0.1.1/24", "fd00:1::1/64"]] {
        host.interfaces.push(InterfaceView {
            mac: ROUTER_MAC,
            mtu: 1600,
            addresses: addresses.iter().map(|text| text.parse().expect("a prefix")).collect(),
        });
    }
    let resolved = NeighborView { mac: Some(NEXT_HOP_MAC), state: AdjacencyState::Resolved };
    for address in ["10.0.1.2", "fd00:1::2"] {
        let address: IpAddr = address.parse().expect("an address");
        host.neighbors.insert((InterfaceId(1), address), resolved);
    }
    host
}

/// Destinations within the routes of a full table, of both families.
struct Inside {
    v4: Vec<u32>,
    v6: Vec<u128>,
}

static INSIDE: OnceLock<Inside> = OnceLock::new();

/// The destinations within these routes become those of [`spread_inside4`] and [`spread_inside6`].
pub(crate) fn go_inside(routes: &Routes) {
    INSIDE.get_or_init(|| {
        // Without what no router forwards to.
        let v4 = destinations::v4(Spread::InPrefix, &routes.v4).into_iter();
        let v6 = destinations::v6(Spread::InPrefix, &routes.v6).into_iter();
        Inside {
            v4: v4
                .filter(|to| matches!(to >> 24, 1..=9 | 11..=126 | 128..=168 | 193..=223))
                .collect(),
            v6: v6.filter(|to| to >> 125 == 1).collect(),
        }
    });
}

pub(crate) fn spread_inside4(bytes: &mut [u8], packet: u64) {
    let to = INSIDE.get().map_or(&[][..], |inside| &inside.v4);
    let ip = &mut bytes[ethernet::HEADER_LEN..];
    ip[16..20].copy_from_slice(&to[packet as usize % to.len()].to_be_bytes());
    ip[10..12].fill(0);
    let sum = checksum::internet_checksum(&ip[..ipv4::HEADER_LEN]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

pub(crate) fn spread_inside6(bytes: &mut [u8], packet: u64) {
    let to = INSIDE.get().map_or(&[][..], |inside| &inside.v6);
    let ip = &mut bytes[ethernet::HEADER_LEN..];
    ip[24..40].copy_from_slice(&to[packet as usize % to.len()].to_be_bytes());
}

pub(crate) fn worker<H: Hook>(
    traffic: Traffic,
    (batch_frames, ring_frames): (usize, usize),
    vary: Option<Vary>,
    publication: &Publication,
    hook: H,
) -> Worker<LoopQueue, H> {
    let templates: Vec<HeaderTemplate> = (0..FLOWS)
        .map(|flow| HeaderTemplate::new(&packet(traffic, flow)).expect("a short packet"))
        .collect();
    let mut ingress = LoopQueue::new(InterfaceId(0), ring_frames, templates, Rewrite::OnPrepare);
    if let Some(vary) = vary {
        ingress = ingress.varied(vary);
    }
    let queues =
        vec![ingress, LoopQueue::new(InterfaceId(1), ring_frames, Vec::new(), Rewrite::OnPrepare)];
    let mut worker = Worker::new(WorkerParts {
        id: 0,
        queues,
        // The second interface receives nothing, so that its ring keeps its chunks for ever.
        pool: memory_pool(3 * ring_frames, 0),
        hook,
        reader: publication.reader(),
        counters: Arc::new(WorkerCounters::new(2)),
        punt: None,
        handoff: None,
        wanted: bounded(16).0,
        batch_frames,
    });
    worker.set_sampler(Sampler::new(Arc::default()));
    worker
}

pub(crate) fn prepare<H: Hook>(worker: &mut Worker<LoopQueue, H>) {
    for queue in worker.queues_mut() {
        queue.prepare();
    }
}
