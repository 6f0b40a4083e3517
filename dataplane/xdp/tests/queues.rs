//! Sockets and rings on veth pairs with two queues: what arrives is what was sent, and every frame is
//! somewhere, always.

mod common;

use std::time::{Duration, Instant};

use common::{Namespace, run, veth, with_bpffs};
use etherparse::PacketBuilder;
use frame::{Batch, Frame, Pool, QueueIo};
use wire::InterfaceId;
use xdp::{
    AttachSpec, AttachedMode, BindMode, Classifier, ClassifierRules, FILL_ENTRIES_PER_RX_ENTRY,
    RX_RING_ENTRIES, Reason, Sleeper, Umem, UmemPlan, XdpError, XdpMode, XskOptions, XskQueue,
    ZeroCopy,
};

/// Options of all queues of these tests: small numbers of frames, so that pools run dry.
fn options(worker: u16) -> XskOptions {
    XskOptions {
        receiving_frames_max: 512,
        quota_frames: 256,
        busy_poll: false,
        ..XskOptions::for_worker(worker)
    }
}

/// A worker as small as can be: its queues and its pool.
struct Worker {
    queues: Vec<XskQueue>,
    pool: Pool,
    batch: Batch,
}

impl Worker {
    fn new(queues: Vec<XskQueue>, pool: Pool) -> Self {
        Self { queues, pool, batch: Batch::new() }
    }

    /// Every chunk is free, with a queue, or in the batch.
    fn assert_conserved(&self) {
        let with_queues: usize = self
            .queues
            .iter()
            .map(|queue| queue.status().receiving + queue.status().transmitting)
            .sum();
        assert_eq!(
            self.pool.free() + with_queues + self.batch.len(),
            self.pool.capacity(),
            "free {} of {}, queues {:?}",
            self.pool.free(),
            self.pool.capacity(),
            self.queues.iter().map(QueueIo::status).collect::<Vec<_>>()
        );
    }

    fn reclaim_and_refill(&mut self) {
        for queue in &mut self.queues {
            queue.reclaim(&mut self.pool);
            queue.refill(&mut self.pool);
        }
    }

    /// One turn that sends what queue `i` received by queue `route(i)`. Returns how many frames went
    /// and how many were dropped since TX was full.
    fn forward(&mut self, route: impl Fn(usize) -> usize) -> (usize, usize) {
        self.reclaim_and_refill();
        let (mut sent, mut dropped) = (0, 0);
        for from in 0..self.queues.len() {
            self.queues[from].receive(&mut self.batch, &mut self.pool, 64);
            self.assert_conserved();
            let to = route(from);
            for frame in self.batch.frames.drain(..) {
                match self.queues[to].transmit(frame) {
                    Ok(()) => sent += 1,
                    Err(frame) => {
                        self.queues[to].flush();
                        match self.queues[to].transmit(frame) {
                            Ok(()) => sent += 1,
                            Err(frame) => {
                                dropped += 1;
                                self.pool.give(frame);
                            }
                        }
                    }
                }
            }
        }
        for queue in &mut self.queues {
            queue.flush();
        }
        self.assert_conserved();
        (sent, dropped)
    }

    /// Turns without sending, until nothing is in flight any more.
    fn settle(&mut self) {
        let start = Instant::now();
        while self.queues.iter().any(|queue| queue.status().transmitting > 0) {
            for queue in &mut self.queues {
                queue.flush();
                queue.reclaim(&mut self.pool);
            }
            assert!(start.elapsed() < Duration::from_secs(5), "frames stay in flight");
        }
    }

    /// Sends a packet by a queue, waiting for room.
    fn send(&mut self, queue: usize, packet: &[u8]) {
        loop {
            if let Some(mut frame) = self.pool.take() {
                frame.reset(packet.len()).expect("a packet fits a chunk").copy_from_slice(packet);
                match self.queues[queue].transmit(frame) {
                    Ok(()) => return,
                    Err(frame) => self.pool.give(frame),
                }
            }
            self.queues[queue].flush();
            self.queues[queue].reclaim(&mut self.pool);
        }
    }

    /// Receives from all queues and passes each packet to `sink` with the position of its queue.
    fn drain(&mut self, mut sink: impl FnMut(usize, &Frame)) -> usize {
        self.reclaim_and_refill();
        let mut count = 0;
        for position in 0..self.queues.len() {
            count += self.queues[position].receive(&mut self.batch, &mut self.pool, 256);
            for frame in self.batch.frames.drain(..) {
                sink(position, &frame);
                self.pool.give(frame);
            }
            self.queues[position].flush();
        }
        self.assert_conserved();
        count
    }
}

/// The packet number `number`: its length and content depend on that.
fn packet(number: u32, destination: [u8; 4]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(4 + number as usize * 37 % 1400, number as u8);
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2])
        .ipv4([198, 51, 100, 1], destination, 64)
        .udp(1000, 2000)
        .write(&mut bytes, &payload)
        .expect("a Vec takes all");
    bytes
}

/// The number of a packet of ours, after comparing all of it; `None` for what the kernel sends.
fn number(frame: &Frame, destination: [u8; 4]) -> Option<u32> {
    let bytes = frame.bytes();
    if bytes.len() < 46 || bytes[26..30] != [198, 51, 100, 1] {
        return None;
    }
    let number = u32::from_be_bytes(bytes[42..46].try_into().expect("four bytes"));
    assert_eq!(bytes, packet(number, destination), "packet {number} was changed");
    Some(number)
}

fn attach(bpffs: &std::path::Path, names: &[&str], rules: &ClassifierRules) -> Classifier {
    let specs: Vec<AttachSpec> = (0_u8..)
        .zip(names)
        .map(|(id, name)| AttachSpec {
            name: (*name).into(),
            id: InterfaceId(id),
            mode: XdpMode::Native,
        })
        .collect();
    let (classifier, modes) =
        Classifier::attach(&format!("queues{}", names.join("")), bpffs, &specs, rules)
            .expect("veth runs the classifier");
    assert!(modes.iter().all(|&mode| mode == AttachedMode::Native));
    classifier
}

/// Binds queue `queue` of interfaces to one worker and sets the sockets.
fn worker(
    umem: &Umem,
    classifier: &mut Classifier,
    names: &[&str],
    queue_id: u32,
    number: u16,
    mut pool: Pool,
) -> Worker {
    let mut queues = Vec::new();
    for (id, name) in (0_u8..).zip(names) {
        let (mut queue, mode) =
            XskQueue::bind(umem, InterfaceId(id), name, queue_id, options(number))
                .expect("a socket can be bound");
        assert_eq!(mode, BindMode::Copy, "veth has no zero-copy");
        assert!(queue.refill(&mut pool) > 0);
        classifier.set_socket(InterfaceId(id), queue_id, &queue).expect("the map takes it");
        queues.push(queue);
    }
    Worker::new(queues, pool)
}

#[test]
fn two_workers_forward_between_two_interfaces() {
    const PACKETS: u32 = 20_000;
    const TO: [u8; 4] = [203, 0, 113, 9];
    with_bpffs("two_workers_forward_between_two_interfaces", |bpffs| {
        let (router, left, right) = (Namespace::new(), Namespace::new(), Namespace::new());
        veth((&router, "r0"), (&left, "p0"));
        veth((&router, "r1"), (&right, "p1"));

        let (mut workers, classifier) = router.enter(|| {
            let (umem, pools) = Umem::new(UmemPlan::new(2, 1600)).expect("a UMEM");
            assert_eq!(umem.frames(), 3200);
            let mut classifier = attach(bpffs, &["r0", "r1"], &ClassifierRules::default());
            let workers: Vec<Worker> = (0_u16..)
                .zip(pools)
                .map(|(number, pool)| {
                    worker(&umem, &mut classifier, &["r0", "r1"], number.into(), number, pool)
                })
                .collect();
            assert_eq!(umem.mode(), Some(BindMode::Copy));
            (workers, classifier)
        });
        // Sources and sinks have sockets too; the sources need no classifier to send.
        let mut source = left.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 1024)).expect("a UMEM");
            let queues = [0, 1].map(|queue_id| {
                XskQueue::bind(&umem, InterfaceId(0), "p0", queue_id, options(0))
                    .expect("a socket can be bound")
                    .0
            });
            Worker::new(queues.into(), pools.remove(0))
        });
        let (mut sink, _sink_classifier) = right.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 2048)).expect("a UMEM");
            let mut classifier = attach(bpffs, &["p1"], &ClassifierRules::default());
            let mut pool = pools.remove(0);
            let queues = [0, 1].map(|queue_id| {
                let (mut queue, _) =
                    XskQueue::bind(&umem, InterfaceId(0), "p1", queue_id, options(0))
                        .expect("a socket can be bound");
                queue.refill(&mut pool);
                classifier.set_socket(InterfaceId(0), queue_id, &queue).expect("it fits");
                queue
            });
            (Worker::new(queues.into(), pool), classifier)
        });

        let mut seen = vec![0_u8; PACKETS as usize];
        let mut queues_seen = [0_usize; 2];
        let mut forwarded = [0_usize; 2];
        let mut next = 0;
        let start = Instant::now();
        let mut idle = 0;
        while idle < 200 {
            if next < PACKETS {
                for _ in 0..32 {
                    source.send((next % 2) as usize, &packet(next, TO));
                    next += 1;
                }
                source.queues.iter_mut().for_each(QueueIo::flush);
            } else {
                source.queues.iter_mut().for_each(QueueIo::flush);
                idle += 1;
            }
            for (worker, forwarded) in workers.iter_mut().zip(&mut forwarded) {
                let (sent, dropped) = worker.forward(|from| 1 - from);
                *forwarded += sent;
                assert_eq!(dropped, 0, "the turns are short enough for TX");
            }
            let got = sink.drain(|queue, frame| {
                if let Some(number) = number(frame, TO) {
                    seen[number as usize] += 1;
                    queues_seen[queue] += 1;
                }
            });
            if got > 0 {
                idle = 0;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "no end");
        }

        assert!(seen.iter().all(|&times| times <= 1), "a packet came twice");
        let arrived: usize = queues_seen.iter().sum();
        // veth gives up packets when its own ring is full; what it took has to come.
        assert!(arrived > PACKETS as usize * 9 / 10, "only {arrived} of {PACKETS} arrived");
        assert!(queues_seen.iter().all(|&count| count > 5000), "one queue idles: {queues_seen:?}");
        assert!(forwarded.iter().all(|&count| count > 5000), "one worker idles: {forwarded:?}");

        for worker in workers.iter_mut().chain([&mut source, &mut sink]) {
            worker.settle();
            worker.assert_conserved();
            for queue in &worker.queues {
                assert_eq!(queue.status().transmitting, 0);
                assert_eq!(queue.status().rx_invalid, 0);
                let statistics =
                    queue.statistics().read().expect("getsockopt").expect("it is open");
                assert_eq!(statistics.tx_invalid, 0, "the kernel refused a descriptor");
                assert_eq!(statistics.rx_invalid, 0, "the kernel refused a chunk");
            }
        }
        let to_xsk: u64 = classifier
            .counters()
            .expect("counters can be read")
            .iter()
            .filter(|value| {
                value.interface == InterfaceId(0) && value.reason == Reason::ToXskForward
            })
            .map(|value| value.packets)
            .sum();
        assert!(to_xsk >= forwarded.iter().sum::<usize>() as u64, "{to_xsk} < {forwarded:?}");
    });
}

/// An encapsulation moves the start of the packet into the headroom: the kernel takes such addresses,
/// and gives the chunk back.
#[test]
fn packets_leave_from_anywhere_in_the_chunk() {
    const TO: [u8; 4] = [203, 0, 113, 9];
    with_bpffs("packets_leave_from_anywhere_in_the_chunk", |bpffs| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        let mut sender = here.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 64)).expect("a UMEM");
            let (queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v0", 0, options(0)).expect("a socket");
            Worker::new(vec![queue], pools.remove(0))
        });
        let (mut receiver, _classifier) = there.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 600)).expect("a UMEM");
            let mut classifier = attach(bpffs, &["v1"], &ClassifierRules::default());
            (worker(&umem, &mut classifier, &["v1"], 0, 0, pools.remove(0)), classifier)
        });

        let wanted = packet(7, TO);
        let starts: Vec<usize> = (0..=256).step_by(8).chain([255, 4096 - wanted.len()]).collect();
        let mut arrived = 0;
        for &start in &starts {
            let mut frame = sender.pool.take().expect("the pool has frames");
            assert!(frame.set_bounds(start, wanted.len()));
            frame.bytes_mut().copy_from_slice(&wanted);
            sender.queues[0].transmit(frame).expect("there is room");
            sender.queues[0].flush();
            sender.settle();
            sender.assert_conserved();
            assert_eq!(sender.pool.free(), 64, "the frame is home");
            let deadline = Instant::now() + Duration::from_secs(2);
            while arrived < starts.len() && Instant::now() < deadline {
                let mut hit = false;
                receiver.drain(|_, frame| {
                    hit |= number(frame, TO).inspect(|&number| assert_eq!(number, 7)).is_some();
                });
                if hit {
                    arrived += 1;
                    break;
                }
            }
        }
        assert_eq!(arrived, starts.len(), "each start of a packet arrives");
    });
}

/// A frame of one worker's pool is sent by another worker's queue and finds its way home.
#[test]
fn strangers_come_home() {
    with_bpffs("strangers_come_home", |_| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        here.enter(|| {
            let (umem, pools) = Umem::new(UmemPlan::new(2, 32)).expect("a UMEM");
            let [mut mine, mut theirs]: [Pool; 2] = pools.try_into().expect("two pools");
            let (mut queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v0", 0, options(0)).expect("a socket");
            for pool in [&mut theirs, &mut mine] {
                for _ in 0..10 {
                    let mut frame = pool.take().expect("the pool has frames");
                    frame.reset(60).expect("it fits").fill(0xee);
                    queue.transmit(frame).expect("there is room");
                }
            }
            assert_eq!(queue.status().transmitting, 20);
            let deadline = Instant::now() + Duration::from_secs(2);
            let mut home = 0;
            while queue.status().transmitting > 0 && Instant::now() < deadline {
                queue.flush();
                queue.reclaim(&mut mine);
                while let Some(frame) = mine.take_stranger() {
                    assert_eq!(frame.home(), 1);
                    theirs.give(frame);
                    home += 1;
                }
            }
            assert_eq!((home, mine.free(), theirs.free()), (10, 32, 32));
            let homes: Vec<u16> = std::iter::from_fn(|| mine.take()).map(|f| f.home()).collect();
            assert_eq!(homes, [0; 32]);
        });
    });
}

/// While nobody reads, a queue keeps as many packets as its RX ring has entries, and the kernel counts the
/// others.
#[test]
fn an_rx_ring_is_as_long_as_planned() {
    const SENT: u32 = 6_000;
    with_bpffs("an_rx_ring_is_as_long_as_planned", |bpffs| {
        let (left, right) = (Namespace::new(), Namespace::new());
        veth((&left, "p0"), (&right, "p1"));
        let mut source = left.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 1024)).expect("a UMEM");
            let queues = [0, 1].map(|queue_id| {
                XskQueue::bind(&umem, InterfaceId(0), "p0", queue_id, options(0))
                    .expect("a socket can be bound")
                    .0
            });
            Worker::new(queues.into(), pools.remove(0))
        });
        for (rx_ring_entries, queue_id) in [(RX_RING_ENTRIES, 0), (8192, 1)] {
            let (mut sink, _classifier) = right.enter(|| {
                let plan = UmemPlan { workers: 1, frames_per_worker: 32_768, rx_ring_entries };
                let (umem, mut pools) = Umem::new(plan).expect("a UMEM");
                let mut classifier = attach(bpffs, &["p1"], &ClassifierRules::default());
                let receiving_frames_max = rx_ring_entries * FILL_ENTRIES_PER_RX_ENTRY;
                let options = XskOptions { receiving_frames_max, ..options(0) };
                let (mut queue, _) = XskQueue::bind(&umem, InterfaceId(0), "p1", queue_id, options)
                    .expect("a socket");
                let mut pool = pools.remove(0);
                assert_eq!(queue.refill(&mut pool), receiving_frames_max);
                classifier.set_socket(InterfaceId(0), queue_id, &queue).expect("it fits");
                (Worker::new(vec![queue], pool), classifier)
            });
            for next in 0..SENT {
                source.send(queue_id as usize, &packet(next, [198, 51, 100, 9]));
                if next % 32 == 31 {
                    source.queues[queue_id as usize].flush();
                }
            }
            source.settle();
            let lost = sink.queues[0]
                .statistics()
                .read()
                .expect("they can be read")
                .expect("it is there")
                .rx_ring_full;
            let mut kept = 0;
            while let count @ 1.. = sink.drain(|_, _| {}) {
                kept += count;
            }
            if rx_ring_entries < SENT as usize {
                assert_eq!(kept, rx_ring_entries);
                assert!(lost > 0, "the kernel counts what found no place");
            } else {
                assert_eq!(lost, 0);
                assert!(kept > RX_RING_ENTRIES, "{kept} packets arrived");
            }
        }
    });
}

#[test]
fn the_quota_bounds_what_a_queue_keeps() {
    with_bpffs("the_quota_bounds_what_a_queue_keeps", |_| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        here.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 1024)).expect("a UMEM");
            let mut pool = pools.remove(0);
            let (mut queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v0", 0, options(0)).expect("a socket");
            assert_eq!(queue.refill(&mut pool), 512, "no more than receiving_frames_max");
            assert_eq!(queue.refill(&mut pool), 0);
            for _ in 0..256 {
                let mut frame = pool.take().expect("the pool has frames");
                frame.reset(60).expect("it fits").fill(0xee);
                queue.transmit(frame).expect("below the quota");
            }
            let frame = pool.take().expect("the pool has frames");
            let frame = queue.transmit(frame).expect_err("the quota is reached");
            pool.give(frame);
            assert_eq!(queue.status().transmitting, 256);
            // 256 frames are more than the 32 of one system call: flush goes on until all are taken.
            queue.flush();
            let deadline = Instant::now() + Duration::from_secs(2);
            while queue.status().transmitting > 0 && Instant::now() < deadline {
                queue.flush();
                queue.reclaim(&mut pool);
            }
            assert_eq!(pool.free(), 512, "all that were sent came back");
        });
    });
}

#[test]
fn a_link_that_is_down_refuses_and_gives_back() {
    with_bpffs("a_link_that_is_down_refuses_and_gives_back", |_| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        here.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 600)).expect("a UMEM");
            let mut pool = pools.remove(0);
            let (mut queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v0", 0, options(0)).expect("a socket");
            let offer = |queue: &mut XskQueue, pool: &mut Pool| {
                let mut frame = pool.take().expect("the pool has frames");
                frame.reset(60).expect("it fits").fill(0xee);
                queue.transmit(frame)
            };
            run("ip link set v0 down");
            assert!(offer(&mut queue, &mut pool).is_ok(), "it is not known yet");
            queue.flush();
            assert!(queue.link_down());
            let refused = offer(&mut queue, &mut pool).expect_err("now it is known");
            pool.give(refused);
            assert_eq!(pool.free() + queue.status().transmitting, 600);

            run("ip link set v0 up");
            for _ in 0..1000 {
                queue.flush();
                queue.reclaim(&mut pool);
            }
            assert!(!queue.link_down(), "it is found to be up again");
            assert_eq!((queue.status().transmitting, pool.free()), (0, 600));
            assert!(offer(&mut queue, &mut pool).is_ok());
            queue.flush();

            // The other end down: the kernel takes and drops, and frames come back.
            there.run("ip link set v1 down");
            for _ in 0..1000 {
                if let Err(frame) = offer(&mut queue, &mut pool) {
                    pool.give(frame);
                }
                queue.flush();
                queue.reclaim(&mut pool);
            }
            assert_eq!((queue.status().transmitting, pool.free()), (0, 600));

            // The interface gone: transmit refuses, and nothing panics.
            run("ip link del v0");
            for _ in 0..200 {
                if let Err(frame) = offer(&mut queue, &mut pool) {
                    pool.give(frame);
                }
                queue.flush();
                queue.reclaim(&mut pool);
                assert_eq!(pool.free() + queue.status().transmitting, 600);
            }
            assert!(queue.link_down());
        });
    });
}

#[test]
fn a_sleeper_wakes_for_a_packet_and_for_the_time() {
    with_bpffs("a_sleeper_wakes_for_a_packet_and_for_the_time", |bpffs| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        let mut sender = here.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 64)).expect("a UMEM");
            let (queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v0", 1, options(0)).expect("a socket");
            Worker::new(vec![queue], pools.remove(0))
        });
        let (mut receiver, _classifier) = there.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 600)).expect("a UMEM");
            let mut classifier = attach(bpffs, &["v1"], &ClassifierRules::default());
            (worker(&umem, &mut classifier, &["v1"], 1, 0, pools.remove(0)), classifier)
        });
        let mut sleeper = Sleeper::new(&receiver.queues);
        while receiver.drain(|_, _| ()) > 0 || sleeper.sleep(20).expect("poll works") {}
        let start = Instant::now();
        assert!(!sleeper.sleep(50).expect("poll works"), "nothing was sent");
        assert!(start.elapsed() >= Duration::from_millis(50));

        sender.send(0, &packet(1, [203, 0, 113, 9]));
        sender.queues[0].flush();
        let start = Instant::now();
        assert!(sleeper.sleep(5000).expect("poll works"));
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(receiver.queues[0].has_received());

        // Something else than a queue wakes too.
        receiver.drain(|_, _| ());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        sleeper.add(&reader);
        assert!(!sleeper.sleep(1).expect("poll works"));
        std::io::Write::write_all(&mut &writer, b"x").expect("a pipe takes a byte");
        assert!(sleeper.sleep(5000).expect("poll works"));
    });
}

#[test]
fn busy_polling_works_or_says_so() {
    with_bpffs("busy_polling_works_or_says_so", |bpffs| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        let (mut receiver, _classifier) = there.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 600)).expect("a UMEM");
            let mut classifier = attach(bpffs, &["v1"], &ClassifierRules::default());
            let wanted = XskOptions { busy_poll: true, ..options(0) };
            let (mut queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v1", 0, wanted).expect("a socket");
            assert!(queue.busy_poll(), "root may, on a kernel that knows it");
            let mut pool = pools.remove(0);
            queue.refill(&mut pool);
            classifier.set_socket(InterfaceId(0), 0, &queue).expect("the map takes it");
            (Worker::new(vec![queue], pool), classifier)
        });
        let mut sender = here.enter(|| {
            let (umem, mut pools) = Umem::new(UmemPlan::new(1, 64)).expect("a UMEM");
            let (queue, _) =
                XskQueue::bind(&umem, InterfaceId(0), "v0", 0, options(0)).expect("a socket");
            Worker::new(vec![queue], pools.remove(0))
        });
        let mut seen = 0;
        for round in 0..200 {
            sender.send(0, &packet(round, [203, 0, 113, 9]));
            sender.queues[0].flush();
            receiver
                .drain(|_, frame| seen += usize::from(number(frame, [203, 0, 113, 9]).is_some()));
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while seen < 200 && Instant::now() < deadline {
            receiver
                .drain(|_, frame| seen += usize::from(number(frame, [203, 0, 113, 9]).is_some()));
        }
        assert_eq!(seen, 200);
        assert!(receiver.queues[0].status().kicks >= 200, "each turn polls the driver");
    });
}

#[test]
fn what_cannot_be_bound_is_refused_with_a_reason() {
    with_bpffs("what_cannot_be_bound_is_refused_with_a_reason", |_| {
        let (here, there) = (Namespace::new(), Namespace::new());
        veth((&here, "v0"), (&there, "v1"));
        here.enter(|| {
            let plan = UmemPlan::new(1, 64);
            let (umem, _pools) = Umem::new(plan).expect("a UMEM");
            let bind = |name, queue, options| {
                XskQueue::bind(&umem, InterfaceId(0), name, queue, options).map(drop)
            };
            let forced = XskOptions { zero_copy: ZeroCopy::Force, ..options(0) };
            let error = bind("v0", 0, forced).expect_err("veth has no zero-copy");
            assert!(
                error.to_string().contains("interface v0 queue 0")
                    && error.to_string().contains("zero-copy"),
                "{error}"
            );
            let error = bind("nothing", 0, options(0)).expect_err("there is none");
            assert!(matches!(error, XdpError::UnknownInterface { .. }), "{error}");
            let error = bind("v0", 2, options(0)).expect_err("the queues are 0 and 1");
            assert!(matches!(error, XdpError::Bind { queue_id: 2, .. }), "{error}");
            let error = bind("v0", 0, options(1)).expect_err("there is one worker");
            assert!(matches!(error, XdpError::OutOfRange { value: 1, .. }), "{error}");
            let zero = XskOptions { quota_frames: 0, ..options(0) };
            assert!(matches!(bind("v0", 0, zero), Err(XdpError::OutOfRange { .. })));
            let much = XskOptions { receiving_frames_max: 4097, ..options(0) };
            assert!(matches!(bind("v0", 0, much), Err(XdpError::OutOfRange { .. })));

            let (queue, _) = XskQueue::bind(&umem, InterfaceId(0), "v0", 0, options(0))
                .expect("after all these failures it works");
            let error = bind("v0", 0, options(0)).expect_err("the queue has a socket");
            assert!(matches!(error, XdpError::QueueTaken { .. }), "{error}");
            let error = bind("v0", 1, forced).expect_err("the UMEM is in copy mode");
            assert!(matches!(error, XdpError::MixedModes { bound: BindMode::Copy, .. }), "{error}");

            let (other, _pools) = Umem::new(plan).expect("a UMEM");
            let error = XskQueue::bind(&other, InterfaceId(0), "v0", 0, options(0))
                .map(drop)
                .expect_err("another UMEM has the queue");
            assert!(error.to_string().contains("ss --xdp"), "{error}");

            let reader = queue.statistics();
            assert!(reader.read().expect("getsockopt").is_some());
            drop(queue);
            assert_eq!(reader.read().expect("no system call"), None, "a reader keeps nothing open");
        });
        for plan in [(0, 1), (1, 0), (70_000, 1), (1, usize::MAX)] {
            let (workers, frames_per_worker) = plan;
            let result = Umem::new(UmemPlan::new(workers, frames_per_worker));
            assert!(matches!(result, Err(XdpError::OutOfRange { .. })), "{plan:?}");
        }
    });
}
