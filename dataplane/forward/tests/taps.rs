//! Taps: copies agree with the counters, cost a bounded room, and end when nobody wants them.

mod common;

use common::packets::{UDP, frame, ipv4, udp};
use common::{LAN, Plan, Rig, WAN};
use forward::{
    Captured, Filter, FilterInstruction, PacketRecord, Tap, TapBoard, TapDirection, TapScope,
};
use frame::{DropReason, Verdict};
use wire::InterfaceId;

/// A packet from inside to the world, from a source of this machine's own or from a slice of another.
fn packet(source: &str, port: u16, ttl: u8) -> Vec<u8> {
    let source = source.parse().expect("an address");
    let world = "198.51.100.7".parse().expect("an address");
    frame(LAN, &ipv4(source, world, ttl, UDP, &udp(port, 53, &[1, 2, 3])))
}

/// `ip[8] == 1`: the TTL is 1.
fn ttl_is_one() -> Filter {
    let one = |(code, if_true, if_false, k)| FilterInstruction { code, if_true, if_false, k };
    let program = [(0x30, 0, 0, 22), (0x15, 0, 1, 1), (6, 0, 0, 1), (6, 0, 0, 0)];
    Filter::new(program.into_iter().map(one).collect()).expect("a sound program")
}

fn rig(board: &TapBoard) -> Rig {
    let mut rig = Rig::new(&Plan::default());
    rig.worker.set_taps(board.reader(0));
    rig
}

fn taken(tap: &Tap) -> Vec<Captured> {
    let mut all = Vec::new();
    tap.drain(usize::MAX, |one| all.push(one.clone()));
    all
}

/// Three that leave, two that are dropped with an error to the sender.
fn traffic(rig: &mut Rig) {
    for _ in 0..3 {
        rig.receive(LAN, &packet("10.1.0.5", 1000, 64));
    }
    for _ in 0..2 {
        rig.receive(LAN, &packet("10.1.0.5", 1000, 1));
    }
    rig.turn();
    rig.take(WAN);
    rig.take(LAN);
}

#[test]
fn copies_agree_with_the_counters_and_show_the_frame_as_it_came_and_as_it_left() {
    let mut board = TapBoard::default();
    let mut rig = rig(&board);
    let all = Tap::new(TapScope::Interface(None), None, 4096, 1);
    let drops = Tap::new(TapScope::Drops, None, 20, 1);
    let low = Tap::new(TapScope::Received(Some(InterfaceId(LAN))), Some(ttl_is_one()), 4096, 1);
    let wan = Tap::new(TapScope::Interface(Some(InterfaceId(WAN))), None, 4096, 1);
    board.publish(vec![all.clone(), drops.clone(), low.clone(), wan.clone()]);
    traffic(&mut rig);

    let copies = taken(&all);
    let of = |direction| copies.iter().filter(move |one| one.direction == direction);
    assert_eq!(of(TapDirection::Received).count() as u64, rig.sum("rx_packets"));
    assert_eq!(of(TapDirection::Sent).count() as u64, rig.sum("tx_packets"));
    for one in of(TapDirection::Received) {
        let ttl = if matches!(one.verdict, Verdict::Drop(_)) { 1 } else { 64 };
        assert_eq!(one.bytes, packet("10.1.0.5", 1000, ttl), "as it came");
    }
    for one in of(TapDirection::Sent).filter(|one| !one.originated) {
        assert_eq!((one.interface, one.bytes[22]), (InterfaceId(WAN), 63), "as it left");
    }
    let dropped = taken(&drops);
    assert_eq!(dropped.len(), 2);
    for one in &dropped {
        assert_eq!(one.verdict, Verdict::Drop(DropReason::TtlExceeded));
        assert_eq!((one.bytes.len(), one.original_len), (20, packet("10.1.0.5", 1, 1).len()));
    }
    assert_eq!(rig.drops(), [(DropReason::TtlExceeded, 2)]);
    assert_eq!((taken(&low).len(), taken(&wan).len()), (2, 3));

    board.publish(Vec::new());
    traffic(&mut rig);
    assert_eq!(taken(&all).len(), 0, "the tap is over");
    rig.finish(Plan::default().frames);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut board = TapBoard::default();
    let mut rig = rig(&board);
    let tap = Tap::new(TapScope::Received(None), None, 4096, 1);
    board.publish(vec![tap.clone()]);
    let mut received = 0;
    while tap.lost() == 0 {
        traffic(&mut rig);
        received += 5;
        assert!(received < 100_000, "a ring without a bound");
    }
    assert_eq!(taken(&tap).len() as u64 + tap.lost(), received);
    traffic(&mut rig);
    assert_eq!(taken(&tap).len(), 5, "there is room again");
    rig.finish(Plan::default().frames);
}

/// What is dropped after it waited is a drop of the taps, too.
#[test]
fn a_held_frame_that_is_dropped_later_is_seen() {
    let mut board = TapBoard::default();
    let mut rig = rig(&board);
    let tap = Tap::new(TapScope::Drops, None, 4096, 1);
    board.publish(vec![tap.clone()]);
    let shared = "192.0.2.1".parse().expect("an address");
    let world = "198.51.100.7".parse().expect("an address");
    rig.receive(WAN, &frame(WAN, &ipv4(world, shared, 64, UDP, &udp(53, 2000, &[1]))));
    rig.turn();
    assert_eq!((rig.sum("held"), taken(&tap).len()), (1, 0));
    rig.advance_ms(5000);
    rig.turn();
    let copies = taken(&tap);
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].verdict, Verdict::Drop(DropReason::HoldTimeout));
    assert!(copies[0].was_held);
    rig.finish(Plan::default().frames);
}

fn verdicts(records: &[PacketRecord]) -> Vec<Verdict> {
    records.iter().map(|record| record.verdict).collect()
}

/// Ends that only dispatch knows of are in the records.
#[test]
fn records_have_the_ends_that_dispatch_gives() {
    let mut plan = Plan { punt_frames_max: None, ..Plan::default() };
    plan.sizes.tx_frames_max = 1;
    let mut rig = Rig::new(&plan);
    rig.worker.record();
    for source in ["10.1.0.5", "10.1.0.6"] {
        rig.receive(LAN, &packet(source, 1000, 64));
    }
    let router = "10.1.0.1".parse().expect("an address");
    let host = "10.1.0.5".parse().expect("an address");
    rig.receive(LAN, &frame(LAN, &ipv4(host, router, 64, UDP, &udp(1, 2, &[]))));
    rig.turn();
    let expected = [
        Verdict::Transmit(InterfaceId(WAN)),
        Verdict::Drop(DropReason::TransmitFull),
        Verdict::Drop(DropReason::PuntRefused),
    ];
    assert_eq!(verdicts(&rig.worker.take_records()), expected);
    rig.take(WAN);
    rig.finish(plan.frames);
}
