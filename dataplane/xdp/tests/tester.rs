//! The tester's programs on veth pairs: what is sent arrives as it was planned, and what arrives is
//! counted as what it is. Tags are made and read here by code of its own.

mod common;
#[path = "tester/packets.rs"]
mod packets;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{Namespace, veth, with_bpffs};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use frame::{Batch, QueueIo};
use packets::{Kind, RawSocket, Tag, image, now_ns};
use wire::InterfaceId;
use xdp::{
    AttachedMode, Umem, UmemPlan, XdpMode, XskOptions, XskQueue,
    tester::{
        Image, Interval, KernelSink, LiveSender, RedirectSink, SendPlan, SendReport, SinkLedger,
        SinkOptions, TesterError,
    },
};

/// The key of these runs.
const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// A pair of interfaces in two namespaces: "test-tx" and "test-rx".
struct Pair {
    tx: Namespace,
    rx: Namespace,
}

impl Pair {
    fn new() -> Self {
        let pair = Self { tx: Namespace::new(), rx: Namespace::new() };
        veth((&pair.tx, "test-tx"), (&pair.rx, "test-rx"));
        pair
    }

    fn sink(&self, options: &SinkOptions) -> KernelSink {
        self.rx.enter(|| KernelSink::attach("test-rx", options).expect("the sink is attached"))
    }

    fn sender(&self, images: &[Image], order: &[u32], stream: u8) -> LiveSender {
        self.tx.enter(|| {
            LiveSender::open("test-tx", KEY, images, order, stream).expect("the sender is opened")
        })
    }

    fn send(&self, sender: &mut LiveSender, plan: SendPlan) -> SendReport {
        self.tx.enter(|| sender.send(plan, &AtomicBool::new(false)).expect("it is sent"))
    }
}

/// So many packets at this rate, from now on.
fn plan(rate_pps: f64, packets_max: u64) -> SendPlan {
    let start_ns = now_ns() + 2_000_000;
    SendPlan { start_ns, interval: Interval::of_rate(rate_pps), packets_max, until_ns: u64::MAX }
}

/// The ledger, once it holds so many packets or does not change any more.
fn settled(sink: &KernelSink, packets: u64) -> SinkLedger {
    let start = Instant::now();
    while sink.totals().packets < packets && start.elapsed() < Duration::from_secs(2) {
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(20));
    sink.read()
}

/// Runs a test with a laboratory, as root.
fn laboratory(test: &str, body: impl FnOnce(&Pair) + Send) {
    with_bpffs(test, |_| body(&Pair::new()));
}

#[test]
fn a_sender_that_was_held_up_says_for_how_long() {
    laboratory("a_sender_that_was_held_up_says_for_how_long", |pair| {
        let _sink = pair.sink(&SinkOptions::new(KEY, 3));
        let mut sender = pair.sender(&[image(Kind::Udp4, 60)], &[0], 2);
        // As if its thread had not run since the first slot.
        let late_ns = 50_000_000;
        let start_ns = now_ns() - late_ns;
        let report = pair.send(&mut sender, SendPlan { start_ns, ..plan(100_000.0, 10_000) });
        assert_eq!(report.sent, 10_000);
        assert!(report.lag_max_ns >= late_ns && report.held_up_ns >= late_ns, "{report:?}");
        // Nothing is late where nothing has a slot, and a plan knows nothing of the one before.
        let report = pair.send(&mut sender, plan(f64::INFINITY, 1_000));
        assert_eq!((report.sent, report.held_up_ns), (1_000, 0));
    });
}

#[test]
fn a_paced_stream_arrives_complete_and_in_its_time() {
    laboratory("a_paced_stream_arrives_complete_and_in_its_time", |pair| {
        packets::pin(0); // one CPU, one queue: nothing is reordered
        let sink = pair.sink(&SinkOptions::new(KEY, 3));
        assert_eq!(sink.mode(), AttachedMode::Native);
        let mut sender = pair.sender(&[image(Kind::Udp4, 60)], &[0], 2);
        let before = now_ns();
        let plan = plan(100_000.0, 100_000);
        let report = pair.send(&mut sender, plan);
        assert_eq!((report.sent, report.missed, report.ring_overflows), (100_000, 0, 0));
        assert_eq!((sender.sent(), sender.sent_counter().sent()), (100_000, 100_000));

        // The last slot is 0.99999 s after the first. A machine that is busy delays, but never hastens.
        let (first, last) = report.departures_ns.expect("packets were sent");
        assert!(first >= plan.start_ns, "sent {} ns early", plan.start_ns - first);
        assert!(last >= plan.start_ns + 999_989_999);
        assert!(last - plan.start_ns <= 999_990_000 + report.lag_max_ns);

        let ledger = settled(&sink, 100_000);
        let stream = &ledger.streams[2];
        assert_eq!((stream.packets, stream.unique()), (100_000, 100_000));
        assert_eq!(stream.bytes, 60 * 100_000);
        assert_eq!(stream.sequence_max, Some(99_999));
        assert_eq!((stream.reordered, stream.duplicates, stream.unjudged), (0, 0, 0));
        assert_eq!((ledger.refused, ledger.foreign), (0, 0));
        assert_eq!((ledger.streams[0].packets, ledger.streams[1].packets), (0, 0));
        let (first_arrival, last_arrival) = stream.arrivals_ns.expect("packets arrived");
        assert!(first_arrival >= first && last_arrival >= last);
        assert_eq!(stream.latency.count(), 100_000);
        let (min, max) = (stream.latency.min_ns(), stream.latency.max_ns());
        assert!(min > Some(0) && min <= max && max < Some(now_ns() - before));

        // The program's buckets are those of this side: the extremes lie in the first and the last.
        let (min, max) = (min.unwrap_or(0), max.unwrap_or(0));
        let highest: Vec<_> = stream.latency.buckets().map(|(highest, _)| highest).collect();
        let (first, last) = (highest[0], highest[highest.len() - 1]);
        assert!(first >= min && first - min <= min / 64, "{min} {max} {highest:?}");
        assert!(last >= max && last - max <= max / 64, "{min} {max} {highest:?}");

        // Sequences go on, the sink forgets.
        sink.reset(now_ns());
        assert_eq!(sink.read().streams[2].sequence_max, None);
        let report = pair.send(&mut sender, self::plan(f64::INFINITY, 1_000));
        assert_eq!((report.sent, report.lag_max_ns), (1_000, 0));
        let ledger = settled(&sink, 1_000);
        assert_eq!(ledger.streams[2].unique() + report.ring_overflows, 1_000);
        assert_eq!(ledger.streams[2].sequence_max, Some(100_999));
        assert_eq!(Some(sink.latency_max_ns()), ledger.streams[2].latency.max_ns());

        // What was sent before a run began is none of it, whenever it arrives.
        sink.reset(u64::MAX);
        let report = pair.send(&mut sender, self::plan(10_000.0, 100));
        assert_eq!((report.sent, report.ring_overflows), (100, 0));
        let ledger = settled(&sink, 0);
        assert_eq!((ledger.refused, ledger.streams[2].packets), (100, 0));
    });
}

#[test]
fn frames_have_their_sizes_tags_and_checksums_on_the_wire() {
    laboratory("frames_have_their_sizes_tags_and_checksums_on_the_wire", |pair| {
        packets::pin(0);
        // Without a socket the program gives all frames to the kernel's stack.
        let _pass = pair.rx.enter(|| RedirectSink::attach("test-rx", XdpMode::Native));
        let kinds = [
            (Kind::Udp4, 60),
            (Kind::Udp4, 576),
            (Kind::Udp4, 1514),
            (Kind::Udp6, 80),
            (Kind::Udp6, 1280),
            (Kind::Tcp4, 72),
            (Kind::Tcp6, 92),
            (Kind::Tcp6, 1514),
            (Kind::Udp4, 61),
        ];
        let images: Vec<_> = kinds.iter().map(|&(kind, length)| image(kind, length)).collect();
        // The classic mix of 7 to 4 to 1, then one of each.
        let mut order = vec![0, 0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 2];
        order.extend(0..9);
        let socket = pair.rx.enter(|| RawSocket::open("test-rx"));
        let mut sender = pair.sender(&images, &order, 5);
        let count = 2_100;
        let before = now_ns();
        let report = pair.send(&mut sender, plan(20_000.0, count));
        assert_eq!((report.sent, report.ring_overflows), (count, 0));

        for sequence in 0..count {
            let frame = socket.receive().unwrap_or_else(|| panic!("packet {sequence} is missing"));
            let (kind, length) = kinds[order[sequence as usize % order.len()] as usize];
            assert_eq!(frame.len(), length, "packet {sequence}");
            let packet = SlicedPacket::from_ethernet(&frame).expect("it can be parsed");
            let payload = match (packet.net, packet.transport) {
                (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Udp(udp))) => {
                    assert_eq!(kind, Kind::Udp4);
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv4(&ip.header().to_header(), udp.payload());
                    assert_eq!(sum, Ok(header.checksum), "packet {sequence}");
                    udp.payload().to_vec()
                }
                (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Udp(udp))) => {
                    assert_eq!(kind, Kind::Udp6);
                    let header = udp.to_header();
                    let sum = header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload());
                    assert_eq!(sum, Ok(header.checksum), "packet {sequence}");
                    udp.payload().to_vec()
                }
                (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) => {
                    assert_eq!(kind, Kind::Tcp4);
                    let header = tcp.to_header();
                    let sum = header.calc_checksum_ipv4(&ip.header().to_header(), tcp.payload());
                    assert_eq!(sum, Ok(header.checksum), "packet {sequence}");
                    tcp.payload().to_vec()
                }
                (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Tcp(tcp))) => {
                    assert_eq!(kind, Kind::Tcp6);
                    let header = tcp.to_header();
                    let sum = header.calc_checksum_ipv6(&ip.header().to_header(), tcp.payload());
                    assert_eq!(sum, Ok(header.checksum), "packet {sequence}");
                    tcp.payload().to_vec()
                }
                other => panic!("packet {sequence} is {other:?}"),
            };
            let tag = Tag::read(&payload, KEY).expect("the program and the test agree on the tag");
            assert_eq!((tag.stream, tag.sequence), (5, sequence));
            assert!(tag.timestamp_ns > before && tag.timestamp_ns < now_ns());
            assert!(payload[18..].iter().all(|&byte| byte == 0), "packet {sequence}");
        }
    });
}

#[test]
fn duplicates_reordered_forged_and_foreign_packets_are_told_apart() {
    let name = "duplicates_reordered_forged_and_foreign_packets_are_told_apart";
    laboratory(name, |pair| {
        let sink = pair.sink(&SinkOptions {
            window_bits: 10,
            ports: Some(7_000..=7_001),
            ..SinkOptions::new(KEY, 2)
        });
        let socket = pair.tx.enter(|| RawSocket::open("test-tx"));
        let tag = |sequence| Tag { stream: 1, sequence, timestamp_ns: now_ns() };
        let send = |kind: Kind, bytes: &[u8]| socket.send(&kind.packet(9_000, bytes));
        for (kind, sequence) in [
            (Kind::Udp4, 5),
            (Kind::Udp6, 7),
            (Kind::Tcp4, 6),        // reordered
            (Kind::Tcp6, 5),        // duplicate
            (Kind::Udp4Options, 8), // a header of 24 bytes
            (Kind::Tcp4Options, 8), // duplicate
            (Kind::Udp4, 2_004),    // a jump beyond the window
            (Kind::Udp4, 1_999),    // reordered
            (Kind::Udp4, 980),      // a window before 2,004: too late to be judged
            (Kind::Udp4, 1_999),    // duplicate
            (Kind::Udp4, (1 << 40) - 1),
        ] {
            send(kind, &tag(sequence).bytes(KEY));
        }
        let genuine = 11;

        // Forged: a wrong key, and each part of the tag changed.
        let good = tag(20).bytes(KEY);
        send(Kind::Udp4, &tag(20).bytes([1, 2]));
        for byte in [0, 3, 5, 9, 17] {
            let mut forged = good;
            forged[byte] ^= 1;
            send(Kind::Tcp6, &forged);
        }
        // No tag at all, but a port of the run; too short for one.
        socket.send(&Kind::Udp4.packet(7_000, &[0xff; 18]));
        socket.send(&Kind::Udp6.packet(7_001, b"short"));
        let refused = 8;

        // Foreign: no tag, a stream that is not counted, a time long ago, a fragment, ICMP.
        send(Kind::Udp4, &[0; 18]);
        socket.send(&Kind::Udp4.packet(7_002, &[0xff; 18]));
        socket.send(&Kind::Udp4.packet(6_999, b"short"));
        send(Kind::Udp4, &Tag { stream: 2, ..tag(0) }.bytes(KEY));
        send(Kind::Udp4, &Tag { timestamp_ns: 1, ..tag(0) }.bytes([1, 2]));
        let mut fragment = Kind::Udp4.packet(9_000, &good);
        fragment[20] |= 0x20; // more fragments
        socket.send(&fragment);
        socket.send(&Kind::icmp());
        let foreign = 7;

        let ledger = settled(&sink, genuine);
        let stream = &ledger.streams[1];
        assert_eq!(stream.packets, genuine, "{ledger:?}");
        assert_eq!(stream.sequence_max, Some((1 << 40) - 1));
        assert_eq!((stream.duplicates, stream.unjudged, stream.reordered), (3, 1, 2));
        assert_eq!(stream.unique(), 7);
        assert_eq!(stream.latency.count(), 7);
        assert_eq!((ledger.refused, ledger.foreign), (refused, foreign));
        assert_eq!(sink.totals().unique, 7);
    });
}

#[test]
fn the_sink_leaves_address_resolution_and_ping_alone() {
    laboratory("the_sink_leaves_address_resolution_and_ping_alone", |pair| {
        for mode in [XdpMode::Native, XdpMode::Generic] {
            let sink = pair.sink(&SinkOptions { mode, ..SinkOptions::new(KEY, 1) });
            for (namespace, name, host) in [(&pair.tx, "test-tx", 1), (&pair.rx, "test-rx", 2)] {
                namespace.run(&format!("ip address replace 192.0.2.{host}/24 dev {name}"));
                namespace.run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=0"));
                namespace.run(&format!("ip address replace 2001:db8::{host}/64 dev {name} nodad"));
            }
            pair.tx.run("ip neigh flush dev test-tx");
            pair.tx.run("ping -c 1 -W 2 192.0.2.2");
            pair.tx.run("ping -c 1 -W 2 2001:db8::2");
            let socket = pair.tx.enter(|| RawSocket::open("test-tx"));
            let tag = Tag { stream: 0, sequence: 0, timestamp_ns: now_ns() };
            socket.send(&Kind::Udp6.packet(9_000, &tag.bytes(KEY)));
            let ledger = settled(&sink, 1);
            assert_eq!(ledger.streams[0].unique(), 1, "{mode:?}");
            assert!(ledger.foreign >= 4, "{mode:?}");
            let expected =
                if mode == XdpMode::Native { AttachedMode::Native } else { AttachedMode::Generic };
            assert_eq!(sink.mode(), expected);
        }
    });
}

/// Two threads send the same sequences on two CPUs, hence to two queues: each packet has one twin.
#[test]
fn duplicates_are_exact_with_two_cpus() {
    laboratory("duplicates_are_exact_with_two_cpus", |pair| {
        let sink = pair.sink(&SinkOptions::new(KEY, 1));
        let start_ns = now_ns() + 50_000_000;
        let reports: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..2)
                .map(|cpu| {
                    scope.spawn(move || {
                        packets::pin(cpu);
                        let mut sender = pair.sender(&[image(Kind::Udp4, 60)], &[0], 0);
                        let plan = SendPlan { start_ns, ..plan(400_000.0, 200_000) };
                        pair.send(&mut sender, plan)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("it sends")).collect()
        });
        let overflows: u64 = reports.iter().map(|report| report.ring_overflows).max().unwrap_or(0);
        let ledger = settled(&sink, 400_000 - overflows);
        let stream = &ledger.streams[0];
        assert_eq!(stream.unjudged, 0);
        assert_eq!(stream.sequence_max, Some(199_999));
        if overflows == 0 {
            assert_eq!((stream.packets, stream.duplicates), (400_000, 200_000));
        } else {
            assert!(stream.packets >= 400_000 - 2 * overflows && stream.unique() <= 200_000);
        }
    });
}

#[test]
fn what_never_left_is_told() {
    laboratory("what_never_left_is_told", |pair| {
        // Neither program nor GRO: a veth peer without NAPI takes nothing.
        let open = || LiveSender::open("test-tx", KEY, &[image(Kind::Udp4, 60)], &[0], 0);
        let error = pair.tx.enter(open).expect_err("nothing would arrive");
        assert!(matches!(error, TesterError::NoRedirectTarget { .. }), "{error}");

        let sink = pair.sink(&SinkOptions::new(KEY, 1));
        let long = [image(Kind::Udp6, 1_515)];
        let open = || LiveSender::open("test-tx", KEY, &long, &[0], 0);
        let error = pair.tx.enter(open).expect_err("it is longer than the MTU");
        assert!(matches!(error, TesterError::FrameTooLong { mtu: 1_500, .. }), "{error}");

        // Longer than the peer's MTU: dropped where a full ring drops.
        pair.tx.run("ip link set test-tx mtu 3498");
        let images = [image(Kind::Udp4, 60), image(Kind::Udp4, 2_000)];
        let mut sender = pair.sender(&images, &[0, 1, 1], 0);
        let report = pair.send(&mut sender, plan(30_000.0, 3_000));
        assert_eq!(report.sent, 3_000);
        let ledger = settled(&sink, 1_000);
        // The rest of a bulk behind a frame that is refused is refused with it.
        assert!(report.ring_overflows >= 2_000, "{report:?}");
        assert_eq!(ledger.streams[0].unique(), 3_000 - report.ring_overflows);

        // The longest frame, if the peer takes it.
        pair.rx.run("ip link set test-rx mtu 3498");
        let mut sender = pair.sender(&[image(Kind::Udp6, 3_392)], &[0], 0);
        sink.reset(0);
        let report = pair.send(&mut sender, plan(10_000.0, 100));
        assert_eq!((report.sent, report.ring_overflows), (100, 0));
        let ledger = settled(&sink, 100);
        assert_eq!((ledger.streams[0].unique(), ledger.streams[0].bytes), (100, 339_200));
    });
}

#[test]
fn a_plan_ends_at_its_time_and_when_it_is_stopped() {
    laboratory("a_plan_ends_at_its_time_and_when_it_is_stopped", |pair| {
        let _sink = pair.sink(&SinkOptions::new(KEY, 1));
        let mut sender = pair.sender(&[image(Kind::Udp4, 60)], &[0], 0);
        let start_ns = now_ns();
        let until_ns = start_ns + 100_000_000;
        let endless = SendPlan { start_ns, packets_max: u64::MAX, until_ns, ..plan(1_000.0, 0) };
        let report = pair.send(&mut sender, endless);
        assert_eq!(report.sent + report.missed, 100, "{report:?}");
        assert!(report.departures_ns.is_some_and(|(_, last)| last < until_ns));
        assert!(now_ns() >= until_ns);

        let stop = AtomicBool::new(false);
        let counter = sender.sent_counter();
        thread::scope(|scope| {
            let sending = scope.spawn(|| {
                let endless = SendPlan { packets_max: u64::MAX, ..plan(1_000.0, 0) };
                pair.tx.enter(|| sender.send(endless, &stop).expect("it is sent"))
            });
            while counter.sent() < report.sent + 20 {
                thread::sleep(Duration::from_millis(1));
            }
            stop.store(true, Ordering::Relaxed);
            assert!(sending.join().expect("it stops").sent >= 20);
        });
    });
}

#[test]
fn sockets_get_udp_and_tcp_and_the_kernel_the_rest() {
    laboratory("sockets_get_udp_and_tcp_and_the_kernel_the_rest", |pair| {
        pair.tx.run("ip address add 192.0.2.1/24 dev test-tx");
        pair.rx.run("ip address add 192.0.2.2/24 dev test-rx");
        pair.rx.enter(|| {
            let mut sink = RedirectSink::attach("test-rx", XdpMode::Auto).expect("it is attached");
            let plan = UmemPlan::new(1, 1024);
            let (umem, mut pools) = Umem::new(plan).expect("a UMEM can be had");
            let pool = &mut pools[0];
            let options = XskOptions {
                receiving_frames_max: 256,
                quota_frames: 256,
                busy_poll: false,
                ..XskOptions::for_worker(0)
            };
            let mut queues: Vec<_> = (0..2)
                .map(|number| {
                    let interface = InterfaceId(0);
                    let (mut queue, _) =
                        XskQueue::bind(&umem, interface, "test-rx", number, options)
                            .expect("a socket can be bound");
                    queue.refill(pool);
                    sink.set_socket(&queue).expect("the map takes it");
                    queue
                })
                .collect();

            // Resolution and ping work beside the sockets.
            pair.tx.run("ping -c 1 -W 2 192.0.2.2");
            assert!(sink.passed().expect("counters can be read") >= 2);

            let mut sender =
                pair.sender(&[image(Kind::Udp4, 60), image(Kind::Tcp6, 92)], &[0, 1], 3);
            let report = pair.send(&mut sender, self::plan(10_000.0, 200));
            assert_eq!((report.sent, report.ring_overflows), (200, 0));
            let mut batch = Batch::new();
            let mut seen = [false; 200];
            let start = Instant::now();
            while seen.contains(&false) && start.elapsed() < Duration::from_secs(2) {
                for queue in &mut queues {
                    queue.refill(pool);
                    queue.receive(&mut batch, pool, 64);
                    for frame in batch.frames.drain(..) {
                        let offset = if frame.bytes().len() == 60 { 42 } else { 74 };
                        let tag = Tag::read(&frame.bytes()[offset..], KEY).expect("a tag of ours");
                        assert_eq!(tag.sequence.is_multiple_of(2), offset == 42);
                        assert!(!std::mem::replace(&mut seen[tag.sequence as usize], true));
                        pool.give(frame);
                    }
                    queue.flush();
                }
            }
            assert!(!seen.contains(&false));
        });
    });
}

/// A queue that is never refilled sends all the same, and what it sends is counted by the sink.
#[test]
fn a_queue_that_only_sends_needs_no_program_and_no_refill() {
    laboratory("a_queue_that_only_sends_needs_no_program_and_no_refill", |pair| {
        let sink = pair.sink(&SinkOptions::new(KEY, 1));
        pair.tx.enter(|| {
            let plan = UmemPlan::new(1, 512);
            let (umem, mut pools) = Umem::new(plan).expect("a UMEM can be had");
            let pool = &mut pools[0];
            let options = XskOptions { busy_poll: false, ..XskOptions::for_worker(0) };
            let (mut queue, _) = XskQueue::bind(&umem, InterfaceId(0), "test-tx", 0, options)
                .expect("a socket can be bound");
            for sequence in 0..10_000 {
                let mut frame = loop {
                    match pool.take() {
                        Some(frame) => break frame,
                        None => {
                            queue.flush();
                            queue.reclaim(pool);
                        }
                    }
                };
                let tag = Tag { stream: 0, sequence, timestamp_ns: now_ns() };
                let packet = Kind::Udp4.packet(9_000, &tag.bytes(KEY));
                frame.reset(packet.len()).expect("it fits").copy_from_slice(&packet);
                queue.transmit(frame).expect("no more frames than TX has room for");
                if sequence % 64 == 63 {
                    queue.flush();
                    queue.reclaim(pool);
                    // The peer's ring holds 256; nothing of this test is about what it loses.
                    while sink.totals().packets + 128 < sequence {
                        thread::yield_now();
                    }
                }
            }
            queue.flush();
            let ledger = settled(&sink, 10_000);
            assert_eq!(ledger.streams[0].unique(), 10_000);
            queue.reclaim(pool);
            assert_eq!(queue.status().receiving, 0);
        });
    });
}

/// Prints how fast this machine sends and counts; asserts nothing about it.
#[test]
#[ignore = "measures for some seconds: run it alone, with --ignored --nocapture"]
fn rates() {
    laboratory("rates", |pair| {
        packets::pin(0);
        let sink = pair.sink(&SinkOptions::new(KEY, 1));
        let images: Vec<_> = (0..4_096).map(|_| image(Kind::Udp4, 60)).collect();
        let order: Vec<u32> = (0..4_096).collect();
        let mut sender = pair.sender(&images, &order, 0);
        for rate_pps in [f64::INFINITY, 100e3, 500e3, 1e6, 2e6, 3e6, 4e6, 5e6] {
            sink.reset(0);
            let begin = now_ns() + 10_000_000;
            let packets_max = if rate_pps.is_finite() { (rate_pps * 2.0) as u64 } else { u64::MAX };
            let plan = SendPlan {
                start_ns: begin,
                interval: Interval::of_rate(rate_pps),
                packets_max,
                until_ns: begin + 2_010_000_000,
            };
            // What the thread was given of its CPU tells a busy machine from a slow program.
            let (report, cpu_share) = pair.tx.enter(|| {
                let before = packets::thread_cpu_ns();
                let report = sender.send(plan, &AtomicBool::new(false)).expect("it is sent");
                let span_ns = now_ns() - begin;
                (report, (packets::thread_cpu_ns() - before) as f64 / span_ns as f64)
            });
            let (first, last) = report.departures_ns.unwrap_or_default();
            let ledger = settled(&sink, report.sent);
            let latency = &ledger.streams[0].latency;
            println!(
                "asked {rate_pps:>9} pps: sent {:>8.0} pps with {cpu_share:.2} of the core, lost {}, \
                 {report:?}, latency ns {:?} {:?} {:?} {:?}",
                (report.sent - 1) as f64 / (last - first) as f64 * 1e9,
                report.sent - ledger.streams[0].unique(),
                latency.min_ns(),
                latency.quantile_ns(0.5),
                latency.quantile_ns(0.99),
                latency.max_ns(),
            );
        }
    });
}
