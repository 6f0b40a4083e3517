//! Drops that only faults and changes bring about, and frames that wait: what a replay cannot show.

mod common;

use common::packets::{TUNNEL_PORT, UDP, frame, ipv4, repair_ipv4, udp};
use common::{LAN, OTHER_OWNERS, Plan, Rig, WAN, address};
use frame::DropReason;
use sim::Faults;
use std::net::IpAddr;
use std::sync::Arc;
use tables::{
    Adjacency, AdjacencyId, AdjacencyState, EgressBlock, Groups, NextHopGroup, Owner, PeerId,
    RouteId, SiteId, SliceTable,
};
use wire::MacAddress;

const WEB: &str = "10.1.0.2";

/// A packet from the world to a port of the shared address, told apart by its payload.
fn to_slice(port: u16, number: u8) -> Vec<u8> {
    let shared = "192.0.2.1".parse().expect("an address");
    let world = "198.51.100.7".parse().expect("an address");
    frame(WAN, &ipv4(world, shared, 64, UDP, &udp(53, port, &[number])))
}

/// A packet from inside to the world.
fn to_world(number: u8) -> Vec<u8> {
    let host = "10.1.0.5".parse().expect("an address");
    let world = "198.51.100.7".parse().expect("an address");
    frame(LAN, &ipv4(host, world, 64, UDP, &udp(1111, 53, &[number])))
}

/// A packet for the router itself.
fn to_router() -> Vec<u8> {
    let host = "10.1.0.5".parse().expect("an address");
    let router = "10.1.0.1".parse().expect("an address");
    frame(LAN, &ipv4(host, router, 64, UDP, &udp(1111, 53, &[])))
}

fn numbers(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.iter().map(|frame| *frame.last().expect("a byte")).collect()
}

#[test]
fn a_full_transmit_ring_is_a_counted_drop() {
    let mut plan = Plan::default();
    plan.sizes.tx_frames_max = 4;
    let mut rig = Rig::new(&plan);
    for number in 0..10 {
        assert!(rig.receive(LAN, &to_world(number)));
    }
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::TransmitFull, 6)]);
    assert_eq!(numbers(&rig.take(WAN)), [0, 1, 2, 3], "the oldest leave");
    // Once the network took them there is room again.
    rig.receive(LAN, &to_world(10));
    rig.turn();
    assert_eq!(numbers(&rig.take(WAN)), [10]);
    rig.finish(plan.frames);
}

#[test]
fn a_dead_link_cannot_starve_the_others() {
    let mut plan = Plan::default();
    plan.sizes.quota_frames_max = 8;
    let mut rig = Rig::new(&plan);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    // Nobody takes what leaves by the interface to the world: more than its quota is never bound.
    for round in 0..100 {
        rig.receive(LAN, &to_world(round));
        rig.receive(WAN, &to_slice(2000, round));
        rig.turn();
        assert_eq!(numbers(&rig.take(LAN)), [round], "the other interface goes on");
    }
    assert_eq!(rig.drops(), [(DropReason::TransmitFull, 92)]);
    // The link goes down: its frames come back, and no more are accepted.
    rig.queue(WAN).set_link(false);
    rig.receive(LAN, &to_world(0));
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::TransmitFull, 93)]);
    assert_eq!(rig.worker.queues()[0].wire().unsent, 8);
    rig.finish(plan.frames);
}

#[test]
fn a_full_ring_to_the_kernel_is_a_counted_drop() {
    let plan = Plan { punt_frames_max: Some(3), ..Plan::default() };
    let mut rig = Rig::new(&plan);
    for _ in 0..5 {
        rig.receive(LAN, &to_router());
    }
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::PuntFull, 2)]);
    assert_eq!((rig.sum("to_kernel"), rig.kernel_takes(9)), (3, 3));
    rig.receive(LAN, &to_router());
    rig.turn();
    assert_eq!((rig.sum("to_kernel"), rig.kernel_takes(9)), (4, 1));
    rig.finish(plan.frames);
}

#[test]
fn a_tunnel_needs_headroom_and_a_plain_hop_does_not() {
    let faults = Faults { headroom_bytes: Some(27), ..Faults::default() };
    let plan = Plan { faults: [faults; 2], ..Plan::default() };
    let mut rig = Rig::new(&plan);
    rig.neighbor(WAN, address("10.0.0.12"), AdjacencyState::Resolved);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    // The upper ports are node b's, behind 28 bytes of IPv4 and UDP.
    rig.receive(WAN, &to_slice(50_000, 0));
    rig.receive(WAN, &to_slice(2000, 1));
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::HeadroomExhausted, 1)]);
    assert_eq!((numbers(&rig.take(LAN)), rig.take(WAN).len()), (vec![1], 0));
    rig.finish(plan.frames);
}

#[test]
fn no_more_goes_to_the_kernel_than_the_rate_allows() {
    let plan = Plan { punt_frames_max: Some(64), ..Plan::default() };
    let mut rig = Rig::new(&plan);
    // Thirty a second, three of them at once.
    rig.change(|snapshot| snapshot.punt_packets_per_s = 30);
    for (rest_ms, admitted) in [(0, 3), (33, 3), (1, 4), (1000, 7)] {
        rig.advance_ms(rest_ms);
        for _ in 0..5 {
            rig.receive(LAN, &to_router());
        }
        rig.turn();
        rig.kernel_takes(9);
        assert_eq!(rig.sum("to_kernel"), admitted, "after {rest_ms} ms");
    }
    assert_eq!(rig.drops(), [(DropReason::PuntLimited, 13)]);
    rig.change(|snapshot| snapshot.punt_packets_per_s = 0);
    rig.receive(LAN, &to_router());
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::PuntLimited, 14)]);
    rig.finish(plan.frames);
}

#[test]
fn without_a_way_to_the_kernel_its_packets_are_refused() {
    let plan = Plan { punt_frames_max: None, ..Plan::default() };
    let mut rig = Rig::new(&plan);
    rig.receive(LAN, &to_router());
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::PuntRefused, 1)]);
    rig.finish(plan.frames);
}

#[test]
fn a_port_that_nobody_owns_is_a_counted_drop() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.change(|snapshot| {
        let block = EgressBlock {
            prefix: "192.0.2.1/32".parse().expect("a prefix"),
            ranges: Vec::new(),
            rest: Owner::Unowned,
            portless: Owner::Unowned,
        };
        snapshot.slices = Arc::new(SliceTable::build(vec![block]).expect("a table"));
    });
    rig.receive(WAN, &to_slice(2000, 0));
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::SliceUnowned, 1)]);
    rig.finish(plan.frames);
}

/// RFC 1812 section 5.2.7.1: a next hop that does not answer is host unreachable, 3/1.
#[test]
fn a_neighbor_that_failed_is_a_drop_of_which_the_sender_is_told() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Failed);
    rig.receive(WAN, &to_slice(2000, 0));
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::NeighborFailed, 1)]);
    let errors = rig.take(WAN);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0][34..36], [3, 1], "ICMP type and code");
    rig.finish(plan.frames);
}

/// RFC 1812 section 5.2.1.2: the next hop's link-layer address is looked for last.
#[test]
fn what_could_not_go_on_anyhow_waits_for_nobody() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    let (world, web) = ("198.51.100.7".parse().unwrap(), WEB.parse().unwrap());
    let dying = frame(WAN, &ipv4(world, web, 1, UDP, &udp(53, 2000, &[0])));
    let mut big = ipv4(world, web, 64, UDP, &udp(53, 2000, &[0; 1401 - 28]));
    big[6] = 0x40;
    repair_ipv4(&mut big);
    let big = frame(WAN, &big);
    for state in [AdjacencyState::Unresolved, AdjacencyState::Failed] {
        rig.neighbor(LAN, address(WEB), state);
        rig.receive(WAN, &dying);
        rig.receive(WAN, &big);
        rig.turn();
        let errors = rig.take(WAN);
        let kinds: Vec<&[u8]> = errors.iter().map(|error| &error[34..36]).collect();
        assert_eq!(kinds, [[11, 0], [3, 4]], "ICMP types and codes");
        assert_eq!(errors[1][40..42], 1400_u16.to_be_bytes(), "the next hop's MTU");
    }
    assert_eq!(rig.drops(), [(DropReason::TtlExceeded, 2), (DropReason::MtuExceeded, 2)]);
    assert!(rig.wanted.is_empty(), "a neighbor was asked for");
    rig.finish(plan.frames);
}

/// RFC 1812 section 4.3.2.4: an error has the address of the interface that it leaves by.
#[test]
fn an_error_that_leaves_by_another_interface_has_its_address() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    let (web, world) = (WEB.parse().unwrap(), "198.51.100.7".parse().unwrap());
    rig.receive(WAN, &frame(WAN, &ipv4(web, world, 1, UDP, &udp(2000, 53, &[0]))));
    rig.turn();
    let errors = rig.take(LAN);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0][26..30], [10, 1, 0, 1], "the source address");
    rig.finish(plan.frames);
}

/// The request for a neighbor may be lost, and others may follow the frame that made it for ever.
#[test]
fn a_neighbor_is_asked_for_as_long_as_frames_wait_for_it() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    let mut asked = 0;
    for number in 0..40 {
        rig.receive(WAN, &to_slice(2000, number));
        rig.turn();
        asked += rig.wanted.try_iter().count();
        rig.advance_ms(250);
    }
    assert_eq!(asked, 10, "once in the time that a frame is held");
    rig.finish(plan.frames);
}

#[test]
fn held_frames_leave_in_order_and_before_what_comes_later() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    for number in 0..5 {
        rig.receive(WAN, &to_slice(2000, number));
        rig.turn();
    }
    assert_eq!((rig.sum("held"), rig.take(LAN).len()), (5, 0));
    assert_eq!(rig.wanted.try_recv().ok(), Some((wire::InterfaceId(LAN), address(WEB))));
    assert_eq!(rig.wanted.try_recv().ok(), None, "one neighbor is asked for once");
    // In one turn the neighbor is resolved and more of the flow comes in.
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    for number in 5..8 {
        rig.receive(WAN, &to_slice(2000, number));
    }
    rig.turn();
    assert_eq!(numbers(&rig.take(LAN)), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((rig.sum("held"), rig.sum("forwarded")), (0, 8));
    rig.finish(plan.frames);
}

#[test]
fn holds_are_bounded_for_each_neighbor_and_in_time() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    let most = 8;
    for number in 0..=most {
        rig.receive(WAN, &to_slice(2000, number));
    }
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::HoldFull, 1)]);
    rig.advance_ms(999);
    rig.turn();
    assert_eq!(rig.sum("held"), u64::from(most));
    rig.advance_ms(1);
    rig.turn();
    let expected = [(DropReason::HoldFull, 1), (DropReason::HoldTimeout, u64::from(most))];
    assert_eq!((rig.sum("held"), rig.drops()), (0, expected.to_vec()));
    rig.finish(plan.frames);
}

/// Whatever each neighbor may have: a bound for all of them together.
#[test]
fn holds_are_bounded_in_all() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.change(|snapshot| snapshot.hold.frames_max = 5);
    for number in 0..3 {
        // To the workload, to node b, and to the router's own link: three neighbors, each with its own bound.
        let host = "10.1.0.5".parse().expect("an address");
        let other = "10.1.0.77".parse().expect("an address");
        rig.receive(WAN, &to_slice(2000, number));
        rig.receive(WAN, &to_slice(40_000, number));
        rig.receive(WAN, &frame(WAN, &ipv4(host, other, 64, UDP, &udp(1, 2, &[number]))));
    }
    rig.turn();
    assert_eq!((rig.sum("held"), rig.drops()), (5, vec![(DropReason::HoldFull, 4)]));
    // As soon as some left there is room again.
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    rig.turn();
    assert_eq!(numbers(&rig.take(LAN)), [0, 1]);
    rig.receive(WAN, &to_slice(40_000, 7));
    rig.turn();
    assert_eq!((rig.sum("held"), rig.drops()), (4, vec![(DropReason::HoldFull, 4)]));
    rig.finish(plan.frames);
}

/// A reload may count the far ends of tunnels otherwise: a frame that waited is still one that came from
/// node b, and goes into no tunnel again, not even where b's former place is now another site's.
#[test]
fn a_held_frame_came_from_the_same_far_end_after_a_reload() {
    let plan = Plan::default();
    for is_gone in [false, true] {
        let mut rig = Rig::new(&plan);
        let (a, b) = (address("10.0.0.11"), address("10.0.0.12"));
        let inner = &to_slice(2000, 9)[14..];
        let (IpAddr::V4(from), IpAddr::V4(to)) = (b, a) else { unreachable!() };
        rig.receive(WAN, &frame(WAN, &ipv4(from, to, 64, UDP, &udp(50_000, TUNNEL_PORT, inner))));
        rig.turn();
        assert_eq!(rig.sum("held"), 1, "the workload is not resolved");
        // The slice is node b's now.
        rig.configure(OTHER_OWNERS);
        rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
        rig.neighbor(WAN, b, AdjacencyState::Resolved);
        rig.change(|snapshot| {
            let last = u16::try_from(snapshot.peers.len() - 1).expect("few");
            snapshot.peers.reverse();
            snapshot.peers[0].site = Some(SiteId(0));
            for place in snapshot.peers_by_address.values_mut() {
                *place = PeerId(last - place.0);
            }
            for place in snapshot.nodes.iter_mut().flatten() {
                *place = PeerId(last - place.0);
            }
            if is_gone {
                snapshot.peers_by_address.remove(&b);
            }
        });
        rig.turn();
        let reason = if is_gone { DropReason::TunnelUnknownPeer } else { DropReason::TunnelLoop };
        assert_eq!((rig.drops(), rig.take(WAN).len()), (vec![(reason, 1)], 0));
        rig.finish(plan.frames);
    }
}

#[test]
fn a_neighbor_that_fails_ends_the_wait() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.receive(WAN, &to_slice(2000, 0));
    rig.turn();
    rig.neighbor(LAN, address(WEB), AdjacencyState::Failed);
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::NeighborFailed, 1)]);
    rig.finish(plan.frames);
}

/// What the router makes itself waits like any frame, within the same bounds, and is not counted as held:
/// it was never received.
#[test]
fn an_error_waits_for_its_next_hop() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Failed);
    let host = "10.1.0.5".parse().expect("an address");
    let shared = "192.0.2.1".parse().expect("an address");
    let (most, sent) = (8, 10);
    for _ in 0..sent {
        // The rate limit of one sender's prefix is above what is asked for here.
        rig.advance_ms(100);
        rig.receive(LAN, &frame(LAN, &ipv4(host, shared, 64, UDP, &udp(1111, 2000, &[]))));
        rig.turn();
    }
    assert_eq!(rig.drops(), [(DropReason::NeighborFailed, sent)]);
    assert_eq!((rig.sum("held"), rig.sum("originated")), (0, 0));
    assert_eq!(rig.sum("originated_lost"), sent - most, "beyond the bound");
    assert_eq!(rig.worker.frames_leaving(), usize::try_from(most).expect("few"));
    assert_eq!(rig.wanted.try_recv().ok(), Some((wire::InterfaceId(LAN), host.into())));
    // A frame that was received waits beside them, for somebody else.
    rig.receive(WAN, &to_slice(40_000, 9));
    rig.turn();
    assert_eq!(rig.sum("held"), 1);
    rig.neighbor(LAN, host.into(), AdjacencyState::Resolved);
    rig.turn();
    let errors = rig.take(LAN);
    assert_eq!(errors.len(), 8);
    assert!(errors.iter().all(|error| error[34..36] == [3, 1]), "ICMP type and code");
    assert_eq!((rig.sum("held"), rig.sum("originated")), (1, most));
    rig.finish(plan.frames);
}

/// One that waits in vain is lost, and nobody is told.
#[test]
fn an_error_that_waits_in_vain_is_lost() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Failed);
    let host: std::net::Ipv4Addr = "10.1.0.5".parse().expect("an address");
    let shared = "192.0.2.1".parse().expect("an address");
    for end in 0..2_u64 {
        rig.receive(LAN, &frame(LAN, &ipv4(host, shared, 64, UDP, &udp(1111, 2000, &[]))));
        rig.turn();
        assert_eq!((rig.worker.frames_leaving(), rig.sum("originated_lost")), (1, end));
        if end == 0 {
            rig.advance_ms(1000);
        } else {
            rig.neighbor(LAN, host.into(), AdjacencyState::Failed);
        }
        rig.turn();
        assert_eq!((rig.worker.frames_leaving(), rig.sum("originated_lost")), (0, end + 1));
    }
    assert_eq!(rig.drops(), [(DropReason::NeighborFailed, 2)]);
    assert_eq!((rig.take(LAN).len(), rig.sum("originated")), (0, 0));
    rig.finish(plan.frames);
}

/// A frame that waits goes where the configuration says that is in force when it leaves: here from a
/// tunnel to a workload.
#[test]
fn a_held_frame_is_steered_anew() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.receive(WAN, &to_slice(40_000, 9));
    rig.turn();
    assert_eq!(rig.sum("held"), 1, "the tunnel's far end is not resolved");
    rig.configure(OTHER_OWNERS);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    rig.neighbor(WAN, address("10.0.0.12"), AdjacencyState::Resolved);
    rig.turn();
    let frames = rig.take(LAN);
    assert_eq!(numbers(&frames), [9]);
    assert_eq!(frames[0].len(), to_slice(40_000, 9).len(), "it is in no tunnel");
    assert_eq!((rig.sum("to_owner"), rig.sum("delivered")), (0, 1));
    rig.finish(plan.frames);
}

/// The other way round: from a workload into a tunnel.
#[test]
fn a_held_frame_enters_a_tunnel_if_its_owner_moved_there() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    rig.receive(WAN, &to_slice(2000, 9));
    rig.turn();
    assert_eq!(rig.sum("held"), 1, "the workload is not resolved");
    rig.configure(OTHER_OWNERS);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    rig.neighbor(WAN, address("10.0.0.12"), AdjacencyState::Resolved);
    rig.turn();
    let frames = rig.take(WAN);
    assert_eq!(frames[0].len(), to_slice(2000, 9).len() + 28);
    assert_eq!((rig.sum("to_owner"), rig.sum("delivered")), (1, 0));
    rig.finish(plan.frames);
}

#[test]
fn frames_with_bounds_outside_their_chunk_are_never_seen() {
    let mut plan = Plan::default();
    plan.faults[usize::from(LAN)].rx_invalid_per_mille = 1000;
    let mut rig = Rig::new(&plan);
    for number in 0..10 {
        rig.receive(LAN, &to_world(number));
    }
    rig.turn();
    assert_eq!((rig.sum("rx_packets"), rig.take(WAN).len()), (0, 0));
    assert_eq!(frame::QueueIo::status(rig.queue(LAN)).rx_invalid, 10);
    rig.finish(plan.frames);
}

/// The hash spreads over next hops; a burst of one flow takes one of them.
#[test]
fn a_burst_larger_than_a_batch_passes_in_order() {
    let plan = Plan { batch_frames: 7, ..Plan::default() };
    let mut rig = Rig::new(&plan);
    for number in 0..60 {
        assert!(rig.receive(LAN, &to_world(number)));
    }
    let mut turns = 0;
    while rig.turn() > 0 {
        turns += 1;
    }
    assert_eq!(turns, 9);
    assert_eq!(numbers(&rig.take(WAN)), (0..60).collect::<Vec<u8>>());
    rig.finish(plan.frames);
}

/// Nothing leaves by a link that is down, whatever is known of the neighbor there; held packets end too.
#[test]
fn a_link_that_is_down_is_a_drop_of_which_the_sender_is_told() {
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    let set_up = |rig: &mut Rig, is_up| {
        rig.change(|snapshot| snapshot.interfaces[usize::from(LAN)].is_up = is_up);
    };
    // The packet waits for a neighbor that nobody knows.
    rig.receive(WAN, &to_slice(2000, 0));
    rig.turn();
    assert_eq!(rig.drops(), []);
    set_up(&mut rig, false);
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::LinkDown, 1)]);
    let errors = rig.take(WAN);
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0][34..36], [3, 1], "ICMP type and code");
    // One that is known is no use either.
    rig.neighbor(LAN, address(WEB), AdjacencyState::LinkDown);
    rig.receive(WAN, &to_slice(2000, 0));
    rig.turn();
    assert_eq!(rig.drops(), [(DropReason::LinkDown, 2)]);
    assert!(rig.take(LAN).is_empty());
    set_up(&mut rig, true);
    rig.neighbor(LAN, address(WEB), AdjacencyState::Resolved);
    rig.receive(WAN, &to_slice(2000, 0));
    rig.turn();
    assert_eq!(rig.take(LAN).len(), 1);
    assert_eq!(rig.drops(), [(DropReason::LinkDown, 2)]);
    rig.finish(plan.frames);
}

/// Makes the way to the world a group of next hops, each with as many buckets in turn as the others, and a
/// state of its own; the last byte of its MAC address is its position.
fn world_through(rig: &mut Rig, states: &[AdjacencyState]) {
    rig.change(|snapshot| {
        let world: std::net::Ipv4Addr = "198.51.100.7".parse().expect("an address");
        let route = snapshot.fib4.lookup(world.to_bits());
        let first = u32::try_from(snapshot.adjacencies.len()).expect("few");
        let of_gateway = snapshot.adjacencies[0].clone();
        for (position, &state) in (0..).zip(states) {
            let destination = MacAddress([2, 0, 0, 0, 0xcc, position]);
            snapshot.adjacencies.push(Adjacency { state, destination, ..of_gateway.clone() });
        }
        let buckets = (0..30 * states.len() as u32).map(|n| first + n % states.len() as u32);
        let members = NextHopGroup::Adjacencies(buckets.map(AdjacencyId).collect());
        let known = (0..=route.0).map(|id| snapshot.groups.copy(RouteId(id)).expect("a group"));
        let mut groups: Vec<_> = known.collect();
        groups[route.index()] = members;
        snapshot.groups = Arc::new(Groups::from_list(&groups).expect("they fit"));
    });
}

#[test]
fn a_next_hop_that_does_not_answer_is_passed_over_while_others_do() {
    use AdjacencyState::{Failed, LinkDown, Resolved};
    let plan = Plan::default();
    let mut rig = Rig::new(&plan);
    let ways = |rig: &mut Rig, states: &[AdjacencyState]| -> Vec<u8> {
        world_through(rig, states);
        let flows = 0..32_u16;
        for flow in flows {
            let (host, world) = ("10.1.0.5".parse(), "198.51.100.7".parse());
            let (host, world) = (host.expect("an address"), world.expect("an address"));
            let packet = ipv4(host, world, 64, UDP, &udp(1000 + flow, 53, &[]));
            assert!(rig.receive(LAN, &frame(LAN, &packet)));
        }
        rig.turn();
        rig.take(WAN).iter().map(|frame| frame[5]).collect()
    };
    let all_up = ways(&mut rig, &[Resolved; 3]);
    assert!((0..3).all(|hop| all_up.contains(&hop)), "{all_up:?}");
    let one_down = ways(&mut rig, &[Resolved, Failed, Resolved]);
    for (before, after) in all_up.iter().zip(&one_down) {
        let stays = *before != 1;
        assert!(*after != 1 && (!stays || before == after), "{all_up:?} became {one_down:?}");
    }
    assert_eq!(
        ways(&mut rig, &[Resolved, LinkDown, Resolved]),
        one_down,
        "down is as good as failed"
    );
    assert!(rig.drops().is_empty());
    assert_eq!(ways(&mut rig, &[Resolved; 3]), all_up, "all come back");
    let one_up = ways(&mut rig, &[Failed, Failed, Resolved]);
    assert_eq!(one_up, [2; 32]);
    assert_eq!(ways(&mut rig, &[Failed; 3]), [] as [u8; 0]);
    assert_eq!(rig.drops(), [(DropReason::NeighborFailed, 32)]);
    rig.finish(plan.frames);
}
