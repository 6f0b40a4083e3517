//! A worker on memory rings, with the test in the place of network, kernel and control.
#![allow(dead_code, reason = "each test file is a program of its own, and none needs all of it")]

pub(crate) mod network;
pub(crate) mod packets;
pub(crate) mod sound;

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use config::Checked;
use control::publication::{
    HostView, InterfaceView, NeighborView, NextHopView, Publication, RouteView,
};
use crossbeam::channel::{Receiver, bounded};
use forward::{Neighbor, PuntReceiver, Worker, WorkerCounters, WorkerParts, punt_channel};
use frame::{DropReason, Hook, Nanos, NoHook};
use sim::{Faults, MemoryQueue, QueueSizes, memory_pool, reclaim_pool};
use sound::Judge;
use tables::{Adjacency, AdjacencyId, AdjacencyState, Publisher, Snapshot};
use wire::{InterfaceId, MacAddress};

/// Position of the interface towards the world.
pub(crate) const WAN: u8 = 0;
/// Position of the interface towards workloads.
pub(crate) const LAN: u8 = 1;

/// The nodes, each with the last digits of the addresses that it has on the link between them, whether it
/// tunnels over IPv4 too, and the kind of tunnel that it wants.
pub(crate) const NODES: [(&str, u8, bool, &str); 6] = [
    ("a", 11, true, ""),
    ("b", 12, true, ""),
    ("c", 13, true, r#"tunnel = { kind = "gre", key = 7, checksum = true, sequence = true }"#),
    ("d", 14, true, r#"tunnel = { kind = "ipip" }"#),
    ("e", 15, false, r#"tunnel = { kind = "gre" }"#),
    ("f", 16, false, r#"tunnel = { kind = "ipip", dscp = "zero" }"#),
];
/// Position of the node that most tests are about.
pub(crate) const A: usize = 0;

/// The same for every node, but for its name and addresses.
const INTERFACES: &str = r#"
    [router]
    node = "NODE"
    [[interface]]
    name = "wan0"
    role = "outside"
    [interface.replay]
    addresses = ["10.0.0.DIGITS/24", "fd00::DIGITS/64"]
    [[interface]]
    name = "lan0"
    role = "inside"
    [interface.replay]
    addresses = ["10.1.0.1/24", "fd01::1/64"]
    mtu = 1400
    [[owner]]
    name = "web"
    node = "a"
    deliver = { next_hop = "10.1.0.2", interface = "lan0" }
"#;

const DEFAULT_ROUTES: &str = r#"
    [[route]]
    prefix = "0.0.0.0/0"
    via = "10.0.0.1"
    [[route]]
    prefix = "::/0"
    via = "fd00::1"
"#;

/// `web` has the lower ports, node b the upper ones; of another address nodes c to f, each by a tunnel of
/// its own kind.
const SLICES: &str = r#"
    [[egress]]
    prefix = "192.0.2.1/32"
    default = "drop"
    [[egress.slice]]
    ports = "1024-33791"
    node = "a"
    owner = "web"
    [[egress.slice]]
    ports = "33792-65535"
    node = "b"
    [[egress]]
    prefix = "2001:db8:5::1/128"
    default = { node = "b" }
    [[egress.slice]]
    ports = "1024-33791"
    node = "a"
    [[egress]]
    prefix = "192.0.2.2/32"
    default = "drop"
    portless = { node = "f" }
    [[egress.slice]]
    ports = "0-1023"
    node = "c"
    [[egress.slice]]
    ports = "1024-33791"
    node = "d"
    [[egress.slice]]
    ports = "33792-50000"
    node = "e"
    [[egress.slice]]
    ports = "50001-65535"
    node = "f"
"#;

const INSIDE: &str = "role = \"inside\"";
const STRICT: &str = "role = \"inside\"\n    source_validation = \"strict\"";

/// The other way round, and the IPv6 address not shared any more. Sources from inside are validated.
const MOVED: &str = r#"
    [[egress]]
    prefix = "192.0.2.1/32"
    default = "drop"
    [[egress.slice]]
    ports = "1024-33791"
    node = "b"
    [[egress.slice]]
    ports = "33792-65535"
    node = "a"
    owner = "web"
"#;

/// With slices and default routes.
pub(crate) const WHOLE: usize = 0;
/// With other owners, and without default routes.
pub(crate) const OTHER_OWNERS: usize = 1;
/// Without any slices.
pub(crate) const PLAIN: usize = 2;

/// How many configurations there are.
pub(crate) const CONFIGURATIONS: usize = 3;

/// The tables of one of the configurations, of node a. In each the gateways are resolved, and nobody else
/// is.
pub(crate) fn snapshot(configuration: usize) -> Snapshot {
    snapshot_of_node(A, configuration).clone()
}

/// The same of any node. They are made once, and only those that are asked for.
fn snapshot_of_node(node: usize, configuration: usize) -> &'static Snapshot {
    static SNAPSHOTS: [[OnceLock<Snapshot>; CONFIGURATIONS]; NODES.len()] =
        [const { [const { OnceLock::new() }; CONFIGURATIONS] }; NODES.len()];
    SNAPSHOTS[node][configuration].get_or_init(|| snapshot_of(&text_of_node(node, configuration)))
}

/// The tables of node a in the first configuration, and what `more` says.
pub(crate) fn snapshot_with(more: &str) -> Snapshot {
    snapshot_of(&(text_of_node(A, WHOLE) + more))
}

fn text_of_node(node: usize, configuration: usize) -> String {
    let (own_name, digits, ..) = NODES[node];
    let mut interfaces =
        INTERFACES.replace("NODE", own_name).replace("DIGITS", &digits.to_string());
    for (name, digits, has_ipv4, tunnel) in NODES {
        let addresses = if has_ipv4 {
            format!(r#"["10.0.0.{digits}", "fd00::{digits}"]"#)
        } else {
            format!(r#""fd00::{digits}""#)
        };
        // Two nodes that want different kinds of tunnels have none between them, which a configuration
        // may not say: only node a has one to each other.
        let tunnel = if node == A || name == own_name { tunnel } else { "" };
        interfaces += &format!("[[node]]\nname = {name:?}\naddress = {addresses}\n{tunnel}\n");
    }
    match configuration {
        WHOLE => format!("{interfaces}{DEFAULT_ROUTES}{SLICES}"),
        OTHER_OWNERS => format!("{}{MOVED}", interfaces.replace(INSIDE, STRICT)),
        _ => format!("{interfaces}{DEFAULT_ROUTES}"),
    }
}

fn snapshot_of(text: &str) -> Snapshot {
    let config = Arc::new(Checked::parse(text, "test.toml").expect("a sound configuration"));
    let mut host = HostView::default();
    for (position, interface) in (0_u8..).zip(&config.interfaces) {
        let facts = &interface.replay;
        host.locals.extend(facts.addresses.iter().map(|net| net.addr()));
        host.interfaces.push(InterfaceView {
            mac: facts.mac,
            mtu: facts.mtu,
            addresses: facts.addresses.clone(),
        });
        for net in &facts.addresses {
            let hop =
                NextHopView { interface: InterfaceId(position), via: None, weight: 1, mtu: 0 };
            host.routes.insert(net.trunc(), Arc::new(RouteView::NextHops(vec![hop])));
        }
    }
    for gateway in ["10.0.0.1", "fd00::1"] {
        let view = NeighborView { mac: Some(mac(1)), state: AdjacencyState::Resolved };
        host.neighbors.insert((InterfaceId(WAN), address(gateway)), view);
    }
    let publication = Publication::new(config, &host, 1).expect("the tables can be built");
    (*publication.current()).clone()
}

pub(crate) fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0xbb, last])
}

/// What a rig is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) frames: usize,
    pub(crate) sizes: QueueSizes,
    pub(crate) faults: [Faults; 2],
    /// Frames under way to the kernel at most; `None`: there is no way.
    pub(crate) punt_frames_max: Option<usize>,
    pub(crate) batch_frames: usize,
}

impl Default for Plan {
    fn default() -> Self {
        let sizes = QueueSizes {
            fill_frames_max: 64,
            rx_frames_max: 64,
            tx_frames_max: 64,
            completion_frames_max: 64,
            quota_frames_max: 64,
        };
        Self {
            frames: 512,
            sizes,
            faults: [Faults::default(); 2],
            punt_frames_max: Some(64),
            batch_frames: 32,
        }
    }
}

/// A worker with two interfaces.
pub(crate) struct Rig<H: Hook = NoHook> {
    pub(crate) worker: Worker<MemoryQueue, H>,
    pub(crate) wanted: Receiver<Neighbor>,
    pub(crate) now: Nanos,
    publisher: Publisher,
    punt: Option<PuntReceiver>,
    pub(crate) judge: Judge,
    node: usize,
}

impl Rig {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self::of(A, plan)
    }

    /// The worker of one of the nodes.
    pub(crate) fn of(node: usize, plan: &Plan) -> Self {
        Self::with(node, plan, snapshot_of_node(node, WHOLE), NoHook)
    }
}

impl<H: Hook> Rig<H> {
    /// The worker of one of the nodes, with these tables and this policy.
    pub(crate) fn with(node: usize, plan: &Plan, tables: &Snapshot, hook: H) -> Self {
        let publisher = Publisher::new(tables.clone());
        let (sender, receiver) = plan.punt_frames_max.map(|max| punt_channel(max, || {})).unzip();
        let (want, wanted) = bounded(64);
        let queues = [WAN, LAN].map(|position| {
            MemoryQueue::with(InterfaceId(position), plan.sizes, plan.faults[usize::from(position)])
        });
        let worker = Worker::new(WorkerParts {
            id: 0,
            queues: queues.into(),
            pool: memory_pool(plan.frames, 0),
            hook,
            reader: publisher.reader(),
            counters: Arc::new(WorkerCounters::new(2)),
            punt: sender,
            handoff: None,
            wanted: want,
            batch_frames: plan.batch_frames,
        });
        let own = tables.locals.iter().copied().collect();
        let judge = Judge { own, tunnel_port: packets::TUNNEL_PORT, is_fooled: false };
        let mut rig =
            Self { worker, wanted, now: Nanos(0), publisher, punt: receiver, judge, node };
        // The first turn puts chunks on the FILL rings.
        rig.turn();
        rig
    }

    pub(crate) fn queue(&mut self, position: u8) -> &mut MemoryQueue {
        &mut self.worker.queues_mut()[usize::from(position)]
    }

    /// A packet comes in; says whether it reached the receive ring.
    pub(crate) fn receive(&mut self, position: u8, frame: &[u8]) -> bool {
        self.judge.note(frame);
        self.queue(position).push_rx(frame)
    }

    /// One turn, after which no chunk and no packet is missing.
    pub(crate) fn turn(&mut self) -> usize {
        let received = self.worker.turn(self.now);
        assert_eq!(self.worker.frames_missing(), 0, "chunks are missing");
        for interface in &self.worker.counters().interfaces {
            assert_eq!(interface.imbalance(), 0, "the accounting is off");
        }
        received
    }

    /// What must hold of all counters at any time, beside what [`Rig::turn`] asserts, when `pushed` packets
    /// reached the receive rings.
    pub(crate) fn check_sums(&self, pushed: u64) {
        let received = self.sum("rx_packets");
        assert!(received <= pushed, "more was received than came");
        assert!(self.sum("forwarded") <= received, "more than one frame out for one in");
        let dropped: u64 = self.drops().iter().map(|(_, count)| count).sum();
        let complaints = self.sum("originated")
            + self.sum("originated_to_kernel")
            + self.sum("originated_lost")
            + self.sum("icmp_limited");
        let told = dropped + self.sum("consumed");
        assert!(complaints <= told, "more than one error for a packet dropped here or in a tunnel");
        // A packet in fragments is forwarded once. Those of one that then found the ring full were sent too.
        assert_eq!(
            self.sum("tx_packets") + self.sum("fragmented"),
            self.sum("forwarded") + self.sum("originated") + self.sum("fragments_created")
        );
        assert!(self.sum("delivered") + self.sum("to_owner") <= received);
        // What the rings say left is what the counters say left.
        let wires = self.worker.queues().iter().map(MemoryQueue::wire);
        let left: u64 = wires.map(|wire| wire.sent + wire.unsent).sum();
        assert!(left <= self.sum("tx_packets"), "more left than was counted");
    }

    pub(crate) fn advance_ms(&mut self, ms: u64) {
        self.now = self.now.plus(ms * 1_000_000);
    }

    /// Takes what left by an interface, and judges it.
    pub(crate) fn take(&mut self, position: u8) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.queue(position).take_tx() {
            if let Err(wrong) = self.judge.forwarded(&frame) {
                panic!("interface {position} sent what is not sound: {wrong}: {frame:02x?}");
            }
            frames.push(frame);
        }
        frames
    }

    /// The kernel takes at most `count` packets, and judges them.
    pub(crate) fn kernel_takes(&mut self, count: usize) -> usize {
        let Some(punt) = &self.punt else { return 0 };
        for taken in 0..count {
            let Some(frame) = punt.receive() else { return taken };
            if let Err(wrong) = Judge::to_kernel(frame.bytes()) {
                panic!("the kernel got what is not sound: {wrong}: {:02x?}", frame.bytes());
            }
            punt.give_back(frame);
        }
        count
    }

    /// The kernel takes all that is there for it, and judges it.
    pub(crate) fn kernel_packets(&mut self) -> Vec<Vec<u8>> {
        let Some(punt) = &self.punt else { return Vec::new() };
        let mut packets = Vec::new();
        while let Some(frame) = punt.receive() {
            if let Err(wrong) = Judge::to_kernel(frame.bytes()) {
                panic!("the kernel got what is not sound: {wrong}: {:02x?}", frame.bytes());
            }
            packets.push(frame.bytes().to_vec());
            punt.give_back(frame);
        }
        packets
    }

    /// Puts another of the configurations into force.
    pub(crate) fn configure(&mut self, configuration: usize) {
        self.publisher.publish(snapshot_of_node(self.node, configuration).clone());
    }

    /// Publishes a changed copy of what is in force.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = (*self.publisher.current()).clone();
        change(&mut snapshot);
        self.publisher.publish(snapshot);
    }

    /// What the kernel says of a neighbor, published.
    pub(crate) fn neighbor(&mut self, position: u8, address: IpAddr, state: AdjacencyState) {
        self.change(|snapshot| {
            let interface = InterfaceId(position);
            let source = snapshot.interfaces[usize::from(position)].mac;
            let mtu = snapshot.interfaces[usize::from(position)].mtu;
            let next = AdjacencyId(u32::try_from(snapshot.adjacencies.len()).expect("few"));
            let adjacency =
                Adjacency { state, interface, mtu, destination: mac(2), source, address };
            match snapshot.neighbors.get(interface, address) {
                Some(id) => snapshot.adjacencies[id.0 as usize] = adjacency,
                None => {
                    snapshot.neighbors.insert(interface, address, next);
                    snapshot.adjacencies.push(adjacency);
                }
            }
        });
    }

    /// Drops by reason, those that happened, over both interfaces.
    pub(crate) fn drops(&self) -> Vec<(DropReason, u64)> {
        let of = |reason: &DropReason| {
            let interfaces = self.worker.counters().interfaces.iter();
            interfaces.map(|interface| interface.drops[reason.index()].get()).sum::<u64>()
        };
        let all = DropReason::ALL.iter().map(|reason| (*reason, of(reason)));
        all.filter(|(_, count)| *count > 0).collect()
    }

    /// The sum of a counter over both interfaces.
    pub(crate) fn sum(&self, counter: &str) -> u64 {
        let named = |interface: &forward::InterfaceCounters| {
            let counter = interface.named().into_iter().find(|(name, _)| *name == counter);
            counter.expect("a counter of this name").1.get()
        };
        self.worker.counters().interfaces.iter().map(named).sum()
    }

    /// Lets everything that is under way come to its end, and takes the rig apart: each chunk must
    /// come home, and only once.
    pub(crate) fn finish(mut self, frames: usize) {
        for position in [WAN, LAN] {
            self.queue(position).set_link(true);
        }
        // First what is on the receive rings, then as long as anything can be held or delayed.
        for _ in 0..64 {
            self.advance_ms(1000);
            while self.turn() > 0 {}
            self.take(WAN);
            self.take(LAN);
            self.kernel_takes(usize::MAX);
        }
        assert_eq!(self.sum("held"), 0, "a frame is held forever");
        assert_eq!(self.worker.frames_leaving(), 0, "a frame never leaves");
        let (queues, mut pool) = self.worker.into_parts();
        let mut chunks = HashSet::new();
        let mut home = Vec::new();
        while let Some(frame) = pool.take() {
            assert!(chunks.insert(frame.chunk_address()), "a chunk came home twice");
            home.push(frame);
        }
        let on_rings: usize =
            queues.iter().map(frame::QueueIo::status).map(|status| status.receiving).sum();
        assert_eq!(home.len() + on_rings, frames);
        sim::reclaim_frames(home);
        reclaim_pool(pool);
    }
}
