//! Fragments in any order, doubled, overlapping and late, through a worker whose bounds change; and the
//! fragmenter over any packet.
//!
//! ```text
//!  first byte odd: MTU u16 | a packet, which is cut into fragments
//!  even: steps, tag u8, then by its two highest bits
//!    0, 1  a fragment: of packet tag & 3, over IPv6 if bit 2 is set, not the last if bit 3 is
//!          | offset u8, in units of 8 bytes | length u8, in bytes
//!    2     time passes: milliseconds u16
//!    3     other bounds: packets u8 | frames u8 | bytes u16 | milliseconds u16
//! ```
//!
//! What reaches the owner never overlaps within one life of a packet: until all of it passed, its time was
//! up, or its place or its frames were needed by others. So an owner never gets two versions of a byte
//! (RFC 5722), however the fragments come.

use std::collections::HashMap;

use frame::DropReason;
use tables::{AdjacencyState, FragmentLimits};
use wire::fragmentation::Fragmenter;

use crate::common::{LAN, Plan, Rig, WAN, address, packets};
use crate::cursor::Cursor;
use crate::planted::{self, Defect};

const STEPS_MAX: usize = 200;

/// How many different packets there are: four of each family.
const PACKETS: u16 = 8;

/// The longest that a packet is followed here: shorter than the end of a rig waits.
const LIFE_MS_MAX: u64 = 30_000;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Cursor::new(bytes);
    if input.u8() & 1 == 1 { cut(&mut input) } else { follow(&mut input) }
}

/// Fragments of one packet, each within the MTU and with a right header, make it up.
fn cut(input: &mut Cursor<'_>) {
    let mtu = input.u16() % 1600;
    let mut bytes = input.rest().to_vec();
    // A whole packet: the total length is what is there.
    if let (Ok(len), true) = (u16::try_from(bytes.len()), bytes.len() >= 20) {
        bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }
    packets::repair_ipv4(&mut bytes);
    let Ok(packet) = wire::Ipv4::parse(&bytes) else { return };
    let Some(fragmenter) = Fragmenter::new(packet, mtu) else { return };
    let (mut payload, count) = (Vec::new(), fragmenter.count());
    assert!(count >= 1);
    for number in 0..count {
        let mut out = [0xaa; 2048];
        let len = fragmenter.emit(number, &mut out).expect("room for a fragment");
        assert!(len <= usize::from(mtu));
        assert!(out[len..].iter().all(|byte| *byte == 0xaa));
        let part = wire::Ipv4::parse(&out[..len]).expect("a fragment is a packet");
        assert_eq!(part.payload().len() + part.header_len(), len);
        assert_eq!(
            part.fragment_offset_bytes(),
            packet.fragment_offset_bytes() + payload.len() as u16
        );
        let is_last = number + 1 == count;
        assert_eq!(part.more_fragments(), !is_last || packet.more_fragments());
        assert!(is_last || part.payload().len().is_multiple_of(8));
        assert_eq!((part.source(), part.destination()), (packet.source(), packet.destination()));
        assert_eq!(part.identification(), packet.identification());
        payload.extend_from_slice(part.payload());
    }
    assert_eq!(payload, packet.payload());
    assert_eq!(fragmenter.emit(count, &mut [0; 2048]), None);
}

/// What the owner got of a packet in its present life.
#[derive(Default)]
struct Life {
    /// Starts and ends of what came, and whether one was the last.
    parts: Vec<(usize, usize)>,
    end: Option<usize>,
}

impl Life {
    fn is_whole(&self) -> bool {
        let came: usize = self.parts.iter().map(|(start, end)| end - start).sum();
        self.end == Some(came)
    }
}

fn follow(input: &mut Cursor<'_>) {
    let plan = Plan { frames: 400, ..Plan::default() };
    let mut rig = Rig::new(&plan);
    rig.neighbor(LAN, address("10.1.0.2"), AdjacencyState::Resolved);
    let mut lives: HashMap<(bool, u32), Life> = HashMap::new();
    let mut pushed = 0;
    let mut limits: Option<FragmentLimits> = None;
    let mut lost = 0;
    // Whether each life is known from its beginning.
    let mut is_sure = true;
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        let tag = input.u8();
        let (mut came, overlaps) = (None, dropped(&rig, DropReason::FragmentOverlap));
        match tag >> 6 {
            2 => {
                let ms = u64::from(input.u16());
                rig.advance_ms(ms);
                // By then every packet's time is up; before, nobody but the tracker knows whose is.
                // Where there are fewer places than packets, one is given up without a word.
                is_sure =
                    ms >= LIFE_MS_MAX && limits.is_none_or(|limits| limits.packets_max >= PACKETS);
                lives.clear();
            }
            3 => {
                let set = FragmentLimits {
                    packets_max: u16::from(input.u8() % 16),
                    frames_max: u16::from(input.u8() % 32),
                    bytes_max: u32::from(input.u16()),
                    timeout_ms: u32::from(input.u16()).clamp(1, LIFE_MS_MAX as u32),
                    egress: true,
                    egress_packets_per_s: 1000,
                };
                rig.change(|snapshot| snapshot.fragments = set);
                limits = Some(set);
                is_sure = false;
            }
            _ => {
                let (start, len) = (usize::from(input.u8()) * 8, usize::from(input.u8()));
                let frame = fragment(tag, start, len);
                pushed += u64::from(rig.receive(WAN, &frame));
                came = Some(frame);
            }
        }
        let held = rig.sum("held");
        rig.turn();
        rig.check_sums(pushed);
        // More cannot begin to wait; what waits already stays when the bounds are lowered.
        if let Some(limits) = limits {
            assert!(rig.sum("held") <= held.max(u64::from(limits.frames_max)), "too many wait");
        }
        let full = dropped(&rig, DropReason::FragmentFull);
        if full > lost {
            lost = full;
            is_sure = false;
        }
        let mut frames = rig.take(LAN);
        if planted::is(Defect::Overlap) && dropped(&rig, DropReason::FragmentOverlap) > overlaps {
            frames.extend(came);
        }
        assert!(rig.take(WAN).iter().all(|frame| is_error(frame)), "it went to somebody else");
        for frame in frames
            .iter()
            .map(|frame| &frame[14..])
            .chain(rig.kernel_packets().iter().map(Vec::as_slice))
        {
            arrive(&mut lives, frame, is_sure);
        }
    }
    rig.finish(plan.frames);
}

fn dropped(rig: &Rig, reason: DropReason) -> u64 {
    rig.drops().iter().find(|(of, _)| *of == reason).map_or(0, |(_, count)| *count)
}

fn is_error(frame: &[u8]) -> bool {
    frame.get(23) == Some(&1) || frame.get(20) == Some(&58)
}

/// A fragment of a UDP datagram whose every byte says where it stands.
fn fragment(tag: u8, start: usize, len: usize) -> Vec<u8> {
    let (packet, is_v6, more) = (tag & 3, tag & 4 != 0, tag & 8 != 0);
    let data: Vec<u8> = (start..start + len).map(|at| content(packet, at)).collect();
    let bytes = if is_v6 {
        let word = start as u16 | u16::from(more);
        let mut payload = vec![packets::UDP, 0];
        payload.extend(word.to_be_bytes());
        payload.extend(u32::from(packet).to_be_bytes());
        payload.extend(data);
        let (from, to) = (address("2001:db8:7::7"), address("2001:db8:5::1"));
        packets::ip(from, to, 64, 44, &payload).expect("one family")
    } else {
        let (from, to) = (address("198.51.100.7"), address("192.0.2.1"));
        let mut bytes = packets::ip(from, to, 64, packets::UDP, &data).expect("one family");
        bytes[4..6].copy_from_slice(&u16::from(packet).to_be_bytes());
        let word = u16::from(more) << 13 | (start / 8) as u16;
        bytes[6..8].copy_from_slice(&word.to_be_bytes());
        packets::repair_ipv4(&mut bytes);
        bytes
    };
    packets::frame(WAN, &bytes)
}

/// The byte at a place: at the front, ports of the slice of `web` and of the kernel's.
fn content(packet: u8, at: usize) -> u8 {
    match at {
        0..8 => [0, 53, 0x07, 0xd0, 0, 200, 0, 0][at],
        _ => (at % 251) as u8 ^ packet << 6,
    }
}

/// A fragment reached the owner: it is what was sent, and nothing of it came before.
fn arrive(lives: &mut HashMap<(bool, u32), Life>, packet: &[u8], is_sure: bool) {
    let be16 = |at: usize| usize::from(packet[at]) << 8 | usize::from(packet[at + 1]);
    let is_v6 = packet[0] >> 4 == 6;
    let (id, start, more, data) = if is_v6 {
        if packet[6] != 44 {
            return;
        }
        (u32::from(packet[47]), be16(42) & 0xfff8, packet[43] & 1 != 0, &packet[48..])
    } else {
        if packet[9] != packets::UDP {
            return;
        }
        let word = be16(6);
        (be16(4) as u32, (word & 0x1fff) * 8, word & 0x2000 != 0, &packet[20..])
    };
    for (at, byte) in (start..).zip(data) {
        assert_eq!(*byte, content(id as u8, at), "another byte than was sent");
    }
    // A packet that is whole is not followed.
    if !is_sure || start == 0 && !more {
        return;
    }
    let end = start + data.len();
    let life = lives.entry((is_v6, id)).or_default();
    for (from, to) in &life.parts {
        assert!(end <= *from || *to <= start, "{start}..{end} after {from}..{to}: an overlap");
    }
    life.parts.push((start, end));
    if !more {
        life.end = Some(end);
    }
    if life.is_whole() {
        lives.remove(&(is_v6, id));
    }
}
