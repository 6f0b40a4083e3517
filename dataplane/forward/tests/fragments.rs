//! Fragments to a shared address: in any order, doubled, overlapped and lost, with one worker or two,
//! what reaches the owner makes the packet that was sent, or none.
//!
//! The owner is played by a reassembler that follows RFC 791 to the letter and knows nothing of the
//! router's code.

mod common;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use common::{LAN, Plan, Rig, WAN, address, packets};
use frame::DropReason;
use proptest::prelude::*;
use sim::QueueSizes;
use tables::AdjacencyState;

/// A part of a packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    start: usize,
    end: usize,
    more: bool,
}

/// One packet: who sent it, and its payload (a UDP segment).
#[derive(Clone, Debug)]
struct Whole {
    from: IpAddr,
    to: IpAddr,
    identification: u32,
    payload: Vec<u8>,
}

impl Whole {
    fn new(is_v6: bool, identification: u32, port: u16, len: usize) -> Self {
        let (from, to) = if is_v6 {
            (address("2001:db8:7::7"), address("2001:db8:5::1"))
        } else {
            (address("198.51.100.7"), address("192.0.2.1"))
        };
        let body: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ identification as u8).collect();
        Self { from, to, identification, payload: packets::udp(53, port, &body) }
    }

    /// Parts of this many bytes, and what is left.
    fn parts(&self, sizes: &[usize]) -> Vec<Part> {
        let (mut parts, mut start) = (Vec::new(), 0);
        let mut sizes = sizes.iter().cycle();
        while start < self.payload.len() {
            let size = sizes.next().expect("a size") * 8;
            let end = (start + size).min(self.payload.len());
            parts.push(Part { start, end, more: end < self.payload.len() });
            start = end;
        }
        parts
    }

    /// A fragment as a frame; `evil` changes its bytes behind the ports.
    fn frame(&self, part: Part, evil: bool) -> Vec<u8> {
        let mut data = self.payload[part.start..part.end].to_vec();
        if evil {
            data.iter_mut().skip(8).for_each(|byte| *byte ^= 0xff);
        }
        let packet = if self.to.is_ipv4() {
            let mut packet =
                packets::ip(self.from, self.to, 64, packets::UDP, &data).expect("one family");
            packet[4..6].copy_from_slice(&(self.identification as u16).to_be_bytes());
            let word = u16::from(part.more) << 13 | (part.start / 8) as u16;
            packet[6..8].copy_from_slice(&word.to_be_bytes());
            packets::repair_ipv4(&mut packet);
            packet
        } else {
            let word = part.start as u16 | u16::from(part.more);
            let mut payload = vec![packets::UDP, 0];
            payload.extend(word.to_be_bytes());
            payload.extend(self.identification.to_be_bytes());
            payload.extend(data);
            packets::ip(self.from, self.to, 64, 44, &payload).expect("one family")
        };
        packets::frame(WAN, &packet)
    }
}

/// Fragments by what they belong to.
type Key = (bool, u32);

/// What an owner makes of what it gets: RFC 791 section 3.2, without any defence against overlaps, so
/// that whatever the router lets through shows.
#[derive(Default)]
struct Owner {
    open: HashMap<Key, (BTreeMap<usize, u8>, Option<usize>)>,
    /// The first packet that came whole, by identification.
    whole: HashMap<Key, Vec<u8>>,
    /// Where the fragments began, in order of their arrival.
    starts: HashMap<Key, Vec<usize>>,
}

impl Owner {
    fn receive(&mut self, frame: &[u8]) {
        let packet = &frame[14..];
        let is_v6 = packet[0] >> 4 == 6;
        let be16 = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
        let (identification, start, more, data) = if is_v6 {
            let id = u32::from_be_bytes(packet[44..48].try_into().expect("4 bytes"));
            (id, be16(42) & 0xfff8, packet[43] & 1 != 0, &packet[48..40 + be16(4)])
        } else {
            let header = usize::from(packet[0] & 15) * 4;
            let (word, id) = (be16(6), be16(4) as u32);
            (id, (word & 0x1fff) * 8, word & 0x2000 != 0, &packet[header..be16(2)])
        };
        let key = (is_v6, identification);
        self.starts.entry(key).or_default().push(start);
        let (bytes, end) = self.open.entry(key).or_default();
        bytes.extend(data.iter().enumerate().map(|(at, byte)| (start + at, *byte)));
        if !more {
            *end = Some(start + data.len());
        }
        let is_whole = |end: usize| (0..end).all(|at| bytes.contains_key(&at));
        if let Some(end) = *end
            && is_whole(end)
        {
            let payload = bytes.range(..end).map(|(_, byte)| *byte).collect();
            self.whole.entry(key).or_insert(payload);
            self.open.remove(&key);
        }
    }
}

fn rig() -> (Plan, Rig) {
    // Rings on which everything that is released at once finds room.
    let sizes = QueueSizes {
        tx_frames_max: 512,
        completion_frames_max: 512,
        quota_frames_max: 512,
        ..Plan::default().sizes
    };
    let plan = Plan { frames: 1024, sizes, punt_frames_max: Some(512), ..Plan::default() };
    let mut rig = Rig::new(&plan);
    for (at, of) in [(WAN, "10.0.0.12"), (LAN, "10.1.0.2")] {
        rig.neighbor(at, address(of), AdjacencyState::Resolved);
    }
    (plan, rig)
}

fn dropped(rig: &Rig, reason: DropReason) -> u64 {
    rig.drops().into_iter().find(|drop| drop.0 == reason).map_or(0, |drop| drop.1)
}

#[test]
fn fragments_before_their_first_leave_behind_it_in_order_of_arrival() {
    let (plan, mut rig) = rig();
    let whole = Whole::new(false, 7, 2000, 200);
    let parts = whole.parts(&[4]);
    // In one batch and over several: the order is that of arrival, the first one in front.
    for turns in [false, true] {
        let mut owner = Owner::default();
        for at in [3, 1, 0, 5, 2, 4, 6] {
            assert!(rig.receive(WAN, &whole.frame(parts[at], false)));
            if turns {
                rig.turn();
            }
        }
        rig.turn();
        rig.take(LAN).iter().for_each(|frame| owner.receive(frame));
        assert_eq!(owner.whole[&(false, 7)], whole.payload);
        let starts: Vec<_> = owner.starts[&(false, 7)].iter().map(|start| start / 32).collect();
        assert_eq!(starts, [0, 3, 1, 5, 2, 4, 6], "over several turns: {turns}");
        assert_eq!(rig.sum("held"), 0);
    }
    assert_eq!((rig.drops(), rig.sum("forwarded"), rig.sum("delivered")), (vec![], 14, 14));
    rig.finish(plan.frames);
}

#[test]
fn held_fragments_are_bounded_in_number_bytes_and_time() {
    let (plan, mut rig) = rig();
    let whole = |id| Whole::new(false, id, 2000, 200);
    let later = |id| whole(id).frame(whole(id).parts(&[4])[1], false);
    rig.change(|snapshot| snapshot.fragments.frames_max = 3);
    for id in 0..5 {
        rig.receive(WAN, &later(id));
    }
    rig.turn();
    assert_eq!((rig.sum("held"), dropped(&rig, DropReason::FragmentFull)), (3, 2));
    rig.advance_ms(1999);
    rig.turn();
    assert_eq!((rig.sum("held"), dropped(&rig, DropReason::FragmentTimeout)), (3, 0));
    rig.advance_ms(1);
    rig.turn();
    assert_eq!((rig.sum("held"), dropped(&rig, DropReason::FragmentTimeout)), (0, 3));

    rig.change(|snapshot| snapshot.fragments.bytes_max = 100);
    rig.receive(WAN, &later(10));
    rig.receive(WAN, &later(11));
    rig.turn();
    assert_eq!((rig.sum("held"), dropped(&rig, DropReason::FragmentFull)), (1, 3));

    // The oldest packet gives way, with what waits of it.
    rig.change(|snapshot| snapshot.fragments.packets_max = 2);
    for id in 20..22 {
        let whole = whole(id);
        rig.receive(WAN, &whole.frame(whole.parts(&[4])[0], false));
    }
    rig.turn();
    assert_eq!((rig.sum("held"), dropped(&rig, DropReason::FragmentFull)), (0, 4));
    assert_eq!(rig.take(LAN).len(), 2);
    rig.finish(plan.frames);
}

#[test]
fn a_flood_of_packets_ever_new_leaves_room_for_whole_ones() {
    let (plan, mut rig) = rig();
    let mut owner = Owner::default();
    for id in 0..30_000 {
        // A first fragment that nothing follows, then a packet that comes whole.
        let junk = Whole::new(false, 30_000 + id, 2000, 200);
        rig.receive(WAN, &junk.frame(junk.parts(&[4])[0], false));
        let whole = Whole::new(false, id, 2000, 100);
        for part in whole.parts(&[8]) {
            rig.receive(WAN, &whole.frame(part, false));
        }
        if id % 8 == 7 {
            rig.turn();
            rig.take(LAN).iter().for_each(|frame| owner.receive(frame));
        }
    }
    assert_eq!((rig.drops(), owner.whole.len()), (vec![], 30_000));
    rig.finish(plan.frames);
}

#[test]
fn later_fragments_of_what_has_no_port_follow_their_first() {
    let (plan, mut rig) = rig();
    // A port unreachable error about a packet of the owner, cut in two: its slice is that of the
    // quoted packet's source port.
    let quoted = packets::ip(
        address("192.0.2.1"),
        address("198.51.100.7"),
        9,
        17,
        &packets::udp(2000, 53, &[0; 60]),
    );
    let message = [&[3, 3, 0, 0, 0, 0, 0, 0], &quoted.expect("IPv4")[..]].concat();
    let mut whole = Whole::new(false, 9, 0, 0);
    whole.payload = message;
    let fragment = |part: Part| {
        let mut frame = whole.frame(part, false);
        frame[14 + 9] = 1;
        packets::repair_ipv4(&mut frame[14..]);
        frame
    };
    for part in whole.parts(&[6]).into_iter().rev() {
        rig.receive(WAN, &fragment(part));
        rig.turn();
    }
    assert_eq!((rig.drops(), rig.take(LAN).len()), (vec![], 2));
    rig.finish(plan.frames);
}

#[test]
fn fragmentation_is_bounded_and_leaves_nothing_behind() {
    let (plan, mut rig) = rig();
    rig.neighbor(LAN, address("10.1.0.5"), AdjacencyState::Resolved);
    let large = packets::frame(
        WAN,
        &packets::ip(
            address("198.51.100.7"),
            address("10.1.0.5"),
            64,
            17,
            &packets::udp(1, 2, &[7; 1450]),
        )
        .expect("IPv4"),
    );
    rig.receive(WAN, &large);
    rig.turn();
    let parts = rig.take(LAN);
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [14 + 1396, 14 + 20 + 1458 - 1376]);
    assert_eq!((rig.sum("fragmented"), rig.sum("fragments_created")), (1, 2));
    assert_eq!((rig.sum("forwarded"), rig.sum("tx_packets")), (1, 2));

    rig.change(|snapshot| snapshot.fragments.egress_packets_per_s = 10);
    rig.advance_ms(200);
    for _ in 0..3 {
        rig.receive(WAN, &large);
    }
    rig.turn();
    assert_eq!(dropped(&rig, DropReason::FragmentationLimited), 2);
    rig.change(|snapshot| snapshot.fragments.egress = false);
    rig.receive(WAN, &large);
    rig.turn();
    assert_eq!(dropped(&rig, DropReason::FragmentationOff), 1);
    // TX with room for one: the packet is a drop, and the fragment that left was sent all the same.
    rig.take(LAN);
    rig.finish(plan.frames);
    let sizes = QueueSizes { quota_frames_max: 1, ..plan.sizes };
    let mut rig = Rig::new(&Plan { sizes, ..plan });
    rig.neighbor(LAN, address("10.1.0.5"), AdjacencyState::Resolved);
    rig.receive(WAN, &large);
    rig.turn();
    assert_eq!(dropped(&rig, DropReason::TransmitFull), 1);
    assert_eq!((rig.sum("forwarded"), rig.sum("fragmented")), (0, 0));
    assert_eq!((rig.sum("tx_packets"), rig.sum("fragments_created")), (1, 1));
    rig.finish(plan.frames);
    // No free chunk: all of them are on FILL.
    let sizes = QueueSizes { fill_frames_max: 32, ..plan.sizes };
    let mut rig = Rig::new(&Plan { sizes, frames: 65, ..plan });
    rig.neighbor(LAN, address("10.1.0.5"), AdjacencyState::Resolved);
    rig.receive(WAN, &large);
    rig.turn();
    assert_eq!(dropped(&rig, DropReason::FragmentationFrames), 1);
    rig.finish(65);
}

/// What comes: fragments of a few packets, with some doubled, some lost, some overlapped by others
/// whose bytes differ.
#[derive(Clone, Debug)]
struct Story {
    wholes: Vec<Whole>,
    /// Packet, part, and whether its bytes are changed.
    comes: Vec<(usize, Part, bool)>,
    turn_every: usize,
}

fn story() -> impl Strategy<Value = Story> {
    let whole = (any::<bool>(), 0..3000_usize, prop::collection::vec(7..40_usize, 1..6));
    let wholes = prop::collection::vec(whole, 1..5);
    let overlaps = prop::collection::vec((any::<usize>(), 0..400_usize, 1..100_usize), 0..3);
    (wholes, overlaps, prop::collection::vec(any::<u16>(), 400), 0..4_u16, 1..20_usize).prop_map(
        |(wholes, overlaps, dice, trouble, turn_every)| {
            let mut dice = dice.into_iter().cycle();
            let mut die = move || dice.next().expect("endless");
            let (mut comes, mut parts) = (Vec::new(), Vec::new());
            let wholes: Vec<Whole> = wholes
                .into_iter()
                .zip(1_u32..)
                .map(|((is_v6, len, sizes), id)| {
                    let whole = Whole::new(is_v6, id, 2000, len + 20);
                    parts.push(whole.parts(&sizes));
                    for &part in &parts[id as usize - 1] {
                        let at = id as usize - 1;
                        match (trouble > 0, die() % 16) {
                            (true, 0) => {}
                            (true, 1) => comes.extend([(at, part, false); 2]),
                            _ => comes.push((at, part, false)),
                        }
                    }
                    whole
                })
                .collect();
            for (of, start, len) in overlaps {
                let of = of % wholes.len();
                let end = wholes[of].payload.len();
                let start = (start * 8).min(end.saturating_sub(1) / 8 * 8);
                let part = Part { start, end: (start + len * 8).min(end), more: true };
                let part = Part { more: part.end < end, ..part };
                // Bytes that fill a gap between others to the byte are nothing that anybody can tell from
                // the right ones: that takes both ends to be those of parts, or two that complement each
                // other.
                let starts = parts[of].iter().any(|known| known.start == part.start);
                let ends = parts[of].iter().any(|known| known.end == part.end);
                let is_second = comes.iter().any(|(at, _, evil)| *at == of && *evil);
                if !(starts && ends || is_second) {
                    comes.push((of, part, true));
                }
            }
            let mut keyed: Vec<(u16, _)> = comes.into_iter().map(|one| (die(), one)).collect();
            keyed.sort_by_key(|(key, _)| *key);
            let comes = keyed.into_iter().map(|(_, one)| one).collect();
            Story { wholes, comes, turn_every }
        },
    )
}

/// The owner's packets are those sent; without trouble all of them are there.
fn judge(story: &Story, owner: &Owner, complete: bool) {
    for whole in &story.wholes {
        let key = (whole.to.is_ipv6(), whole.identification);
        match owner.whole.get(&key) {
            Some(payload) => assert_eq!(payload, &whole.payload, "{key:?} is not what was sent"),
            None => assert!(!complete, "{key:?} did not arrive"),
        }
        // Nothing goes in front of the first fragment.
        assert_eq!(owner.starts.get(&key).map_or(0, |starts| starts[0]), 0);
    }
}

/// Whether each packet came once, whole and alone, so that it must arrive.
fn is_without_trouble(story: &Story) -> bool {
    let mut bytes = vec![0; story.wholes.len()];
    let mut seen = Vec::new();
    for (at, part, evil) in &story.comes {
        if *evil || part.end - part.start < 8 && part.start == 0 {
            return false;
        }
        if !seen.contains(&(*at, part.start)) {
            seen.push((*at, part.start));
            bytes[*at] += part.end - part.start;
        }
    }
    bytes.iter().zip(&story.wholes).all(|(bytes, whole)| *bytes == whole.payload.len())
}

/// Cases of a property, or what `PROPTEST_CASES` says.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(512)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_reaches_the_owner_is_what_was_sent_or_nothing(story in story()) {
        let (plan, mut rig) = rig();
        let mut owner = Owner::default();
        for (number, (at, part, evil)) in story.comes.iter().enumerate() {
            rig.receive(WAN, &story.wholes[*at].frame(*part, *evil));
            if number % story.turn_every == 0 {
                rig.turn();
                rig.take(LAN).iter().for_each(|frame| owner.receive(frame));
                kernel(&mut rig, &mut owner);
            }
        }
        for _ in 0..40 {
            rig.turn();
            rig.take(LAN).iter().for_each(|frame| owner.receive(frame));
            kernel(&mut rig, &mut owner);
        }
        judge(&story, &owner, is_without_trouble(&story));
        rig.finish(plan.frames);
    }
}

/// The kernel owns the IPv6 slice.
fn kernel(rig: &mut Rig, owner: &mut Owner) {
    for packet in rig.kernel_packets() {
        owner.receive(&[&[0; 14], &packet[..]].concat());
    }
}
