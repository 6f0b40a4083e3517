//! Two workers on one pool of memory: fragments meet on the worker that follows their packet, whichever
//! received them, and every chunk comes home to the worker that owns it.

mod common;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{LAN, WAN, address, packets};
use crossbeam::channel::bounded;
use forward::{
    PuntReceiver, Wake, Worker, WorkerCounters, WorkerParts, handoff_mesh, punt_channel,
};
use frame::{DropReason, Nanos, NoHook, Pool, QueueIo};
use proptest::prelude::*;
use sim::{Faults, MemoryQueue, QueueSizes, memory_pool, reclaim_pool};
use tables::{Adjacency, AdjacencyId, AdjacencyState, Publisher};
use wire::{InterfaceId, MacAddress};

const FRAMES: usize = 256;

struct Pair {
    workers: Vec<Worker<MemoryQueue, NoHook>>,
    punts: Vec<PuntReceiver>,
    wakes: Vec<Arc<AtomicUsize>>,
    now: Nanos,
    /// Packets that left towards the owner.
    delivered: Vec<Vec<u8>>,
    _publisher: Publisher,
}

impl Pair {
    fn new(handoff_frames_max: usize, faults: [Faults; 2]) -> Self {
        let mut snapshot = common::snapshot(common::WHOLE);
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let id = AdjacencyId(u32::try_from(snapshot.adjacencies.len()).expect("few"));
        let (interface, web) = (InterfaceId(LAN), address("10.1.0.2"));
        let adjacency = Adjacency {
            state: AdjacencyState::Resolved,
            interface,
            mtu: 1400,
            destination: mac,
            source: mac,
            address: web,
        };
        match snapshot.neighbors.get(interface, web) {
            Some(known) => snapshot.adjacencies[known.0 as usize] = adjacency,
            None => {
                snapshot.neighbors.insert(interface, web, id);
                snapshot.adjacencies.push(adjacency);
            }
        }
        let publisher = Publisher::new(snapshot);
        let wakes: Vec<Arc<AtomicUsize>> = (0..2).map(|_| Arc::default()).collect();
        let wake = |count: &Arc<AtomicUsize>| -> Wake {
            let count = Arc::clone(count);
            Box::new(move || _ = count.fetch_add(1, Ordering::Relaxed))
        };
        let ends = handoff_mesh(handoff_frames_max, wakes.iter().map(wake).collect());
        let sizes = QueueSizes { fill_frames_max: 48, ..QueueSizes::default() };
        let mut punts = Vec::new();
        let mut workers = Vec::new();
        for ((id, handoff), faults) in (0_u16..).zip(ends).zip(faults) {
            let (sender, receiver) = punt_channel(64, || {});
            punts.push(receiver);
            let queue = |position| MemoryQueue::with(InterfaceId(position), sizes, faults);
            workers.push(Worker::new(WorkerParts {
                id,
                queues: [WAN, LAN].map(queue).into(),
                pool: memory_pool(FRAMES, id),
                hook: NoHook,
                reader: publisher.reader(),
                counters: Arc::new(WorkerCounters::new(2)),
                punt: Some(sender),
                handoff: Some(handoff),
                wanted: bounded(64).0,
                batch_frames: 32,
            }));
        }
        let mut pair = Self {
            workers,
            punts,
            wakes,
            now: Nanos(0),
            delivered: Vec::new(),
            _publisher: publisher,
        };
        pair.turn(0);
        pair.turn(1);
        pair
    }

    /// One turn of one worker, after which nothing is missing on either.
    fn turn(&mut self, worker: usize) -> usize {
        let count = self.workers[worker].turn(self.now);
        for worker in &mut self.workers {
            assert_eq!(worker.frames_missing(), 0, "chunks are missing");
            for interface in &worker.counters().interfaces {
                assert_eq!(interface.imbalance(), 0, "the accounting is off");
            }
            while worker.queues_mut()[usize::from(WAN)].take_tx().is_some() {}
            while let Some(frame) = worker.queues_mut()[usize::from(LAN)].take_tx() {
                self.delivered.push(frame);
            }
        }
        for punt in &self.punts {
            while let Some(frame) = punt.receive() {
                punt.give_back(frame);
            }
        }
        let on_rings = self.sum("handed_over") - self.sum("taken_over");
        let ends = self.sum("forwarded") + self.sum("to_kernel") + self.sum("held") + self.drops();
        assert_eq!(self.sum("rx_packets"), ends + on_rings, "over both workers");
        count
    }

    fn sum(&self, name: &str) -> u64 {
        let named = |worker: &Worker<MemoryQueue, NoHook>| -> u64 {
            let of = |interface: &forward::InterfaceCounters| {
                let found = interface.named().into_iter().find(|(known, _)| *known == name);
                found.expect("a counter of this name").1.get()
            };
            worker.counters().interfaces.iter().map(of).sum()
        };
        self.workers.iter().map(named).sum()
    }

    fn dropped(&self, reason: DropReason) -> u64 {
        let interfaces = self.workers.iter().flat_map(|worker| &worker.counters().interfaces);
        interfaces.map(|interface| interface.drops[reason.index()].get()).sum()
    }

    fn drops(&self) -> u64 {
        DropReason::ALL.iter().map(|reason| self.dropped(*reason)).sum()
    }

    fn receive(&mut self, worker: usize, frame: &[u8]) -> bool {
        self.workers[worker].queues_mut()[usize::from(WAN)].push_rx(frame)
    }

    /// Lets everything come to its end: each chunk must be with the worker that owns it, and only there.
    fn finish(mut self) {
        for _ in 0..64 {
            self.now = self.now.plus(1_000_000_000);
            while self.turn(0) + self.turn(1) > 0 {}
        }
        assert_eq!(self.sum("handed_over"), self.sum("taken_over"));
        assert_eq!(self.sum("held"), 0, "a fragment is held forever");
        let mut chunks = HashSet::new();
        for (worker, id) in self.workers.into_iter().zip(0_u16..) {
            let (queues, mut pool): (Vec<MemoryQueue>, Pool) = worker.into_parts();
            assert_eq!(pool.strangers(), 0);
            let on_rings: usize =
                queues.iter().map(QueueIo::status).map(|status| status.receiving).sum();
            assert_eq!(pool.free() + on_rings, FRAMES, "worker {id}");
            let mut home = Vec::new();
            while let Some(frame) = pool.take() {
                assert_eq!(frame.home(), id);
                assert!(chunks.insert(frame.chunk_address()), "a chunk came home twice");
                home.push(frame);
            }
            sim::reclaim_frames(home);
            reclaim_pool(pool);
        }
    }
}

/// Fragment number `part` of 3 of the packet with this identification.
fn fragment(id: u16, part: u16) -> Vec<u8> {
    let segment = packets::udp(53, 2000, &[part as u8; 56]);
    let body = if part == 0 { &segment[..] } else { &segment[..64] };
    let (from, to) = (address("198.51.100.7"), address("192.0.2.1"));
    let mut packet = packets::ip(from, to, 64, packets::UDP, body).expect("IPv4");
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    let word = (part * 8) | (u16::from(part < 2) << 13);
    packet[6..8].copy_from_slice(&word.to_be_bytes());
    packets::repair_ipv4(&mut packet);
    packets::frame(WAN, &packet)
}

#[test]
fn fragments_that_come_to_two_workers_leave_in_order() {
    let mut pair = Pair::new(64, [Faults::default(); 2]);
    for id in 0..40 {
        // The later ones to one worker, before the first to the other.
        for (worker, part) in [(0, 1), (0, 2), (1, 0)] {
            pair.receive(worker, &fragment(id, part));
            pair.turn(worker);
        }
        for _ in 0..3 {
            pair.turn(0);
            pair.turn(1);
        }
    }
    assert_eq!((pair.delivered.len(), pair.drops()), (120, 0));
    for packet in pair.delivered.chunks(3) {
        let id = &packet[0][18..20];
        assert!(packet.iter().all(|fragment| &fragment[18..20] == id));
        // The first one in front, then in order of arrival.
        let offsets: Vec<u8> = packet.iter().map(|fragment| fragment[21]).collect();
        assert_eq!(offsets, [0, 8, 16]);
    }
    let handed = pair.sum("handed_over");
    assert!((20..=100).contains(&handed), "about half of 120 are on the wrong worker: {handed}");
    let rung: usize = pair.wakes.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    assert!(rung > 0 && rung as u64 <= handed, "once a turn at most: {rung}");
    pair.finish();
}

#[test]
fn a_worker_that_takes_nothing_costs_a_bounded_number_of_frames() {
    let mut pair = Pair::new(8, [Faults::default(); 2]);
    for id in 0..200 {
        pair.receive(0, &fragment(id, 0));
        pair.turn(0);
    }
    let (handed, full) = (pair.sum("handed_over"), pair.dropped(DropReason::HandoffFull));
    assert_eq!(handed, 8);
    assert!(full > 50, "{full}");
    assert_eq!(handed + full + pair.sum("forwarded"), 200);
    pair.turn(1);
    assert_eq!(pair.sum("taken_over"), 8);
    pair.finish();
}

/// One step: which worker, and what.
#[derive(Clone, Copy, Debug)]
enum Step {
    Receive { worker: usize, id: u16, part: u16 },
    Turn { worker: usize },
    Advance { ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2_usize, 0..24_u16, 0..3_u16)
            .prop_map(|(worker, id, part)| Step::Receive { worker, id, part }),
        4 => (0..2_usize).prop_map(|worker| Step::Turn { worker }),
        1 => (0..1500_u64).prop_map(|ms| Step::Advance { ms }),
    ]
}

fn faults() -> impl Strategy<Value = Faults> {
    (any::<u64>(), 0..300_u16, 0..100_u16, 0..4_u32).prop_map(
        |(seed, tx_full_per_mille, rx_invalid_per_mille, completion_delay_turns)| Faults {
            seed,
            tx_full_per_mille,
            rx_invalid_per_mille,
            completion_delay_turns,
            headroom_bytes: None,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn chunks_and_packets_are_conserved_over_both_workers(
        handoff_frames_max in 1..40_usize,
        faults in [faults(), faults()],
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let mut pair = Pair::new(handoff_frames_max, faults);
        for step in steps {
            match step {
                Step::Receive { worker, id, part } => {
                    pair.receive(worker, &fragment(id, part));
                }
                Step::Turn { worker } => _ = pair.turn(worker),
                Step::Advance { ms } => pair.now = pair.now.plus(ms * 1_000_000),
            }
        }
        pair.finish();
    }
}
