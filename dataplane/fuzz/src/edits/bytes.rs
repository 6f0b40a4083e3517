//! What edits do to a packet's bytes, without any code of the router: from RFC 791, RFC 8200, RFC 2474, RFC
//! 3168 and RFC 9293. Checksums are computed from scratch.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::contract::Wanted;
use crate::common::packets::TUNNEL_PORT;

/// Whose tunnels they are. No packet that comes has such a source.
const OWN_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 11);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11);

/// Where things are in an IP packet that is whole.
struct Shape {
    is_v6: bool,
    protocol: u8,
    /// Where what follows the IP header, with its extensions, begins.
    transport: usize,
    is_fragment: bool,
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// RFC 1071: all ones over what holds its right checksum.
fn sum(bytes: &[u8], start: u32) -> u32 {
    let mut sum = bytes.chunks(2).fold(start, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum
}

impl Shape {
    fn of(packet: &[u8]) -> Option<Self> {
        if packet.first()? >> 4 == 4 {
            let transport = usize::from(packet[0] & 15) * 4;
            let is_whole = transport >= 20 && packet.len() >= transport;
            let is_fragment = is_whole && be16(packet, 6) & 0x3fff != 0;
            return is_whole.then_some(Self {
                is_v6: false,
                protocol: packet[9],
                transport,
                is_fragment,
            });
        }
        let (mut protocol, mut transport) = (*packet.get(6)?, 40);
        let mut is_fragment = false;
        // Hop-by-hop options, routing, fragment and destination options.
        while [0, 43, 44, 60].contains(&protocol) {
            let header = packet.get(transport..transport + 8)?;
            if protocol == 44 {
                // An atomic one is a whole packet (RFC 6946).
                is_fragment |= be16(header, 2) & 0xfff9 != 0;
                transport += 8;
            } else {
                transport += 8 + usize::from(header[1]) * 8;
            }
            protocol = header[0];
        }
        Some(Self { is_v6: true, protocol, transport, is_fragment })
    }

    /// Where the TCP header of a SYN that is no fragment begins, and where it ends.
    fn syn(&self, packet: &[u8]) -> Option<(usize, usize)> {
        let segment = packet.get(self.transport..)?;
        if self.protocol != 6 || self.is_fragment || segment.len() < 20 || segment[13] & 2 == 0 {
            return None;
        }
        let header_len = usize::from(segment[12] >> 4) * 4;
        (20..=segment.len())
            .contains(&header_len)
            .then_some((self.transport, self.transport + header_len))
    }

    /// Whether the TCP checksum is right.
    fn has_right_checksum(&self, packet: &[u8]) -> bool {
        let addresses = if self.is_v6 { &packet[8..40] } else { &packet[12..20] };
        let segment = &packet[self.transport..];
        sum(segment, sum(addresses, 6 + segment.len() as u32)) == 0xffff
    }
}

/// Where the packet begins that the router put into a tunnel, or that is in none.
fn innermost(packet: &[u8]) -> usize {
    let Some(Shape { protocol, transport, is_v6, .. }) = Shape::of(packet) else { return 0 };
    let is_own =
        if is_v6 { packet[8..24] == OWN_V6.octets() } else { packet[12..16] == OWN_V4.octets() };
    match protocol {
        _ if !is_own => 0,
        17 if be16(packet, transport + 2) == TUNNEL_PORT => transport + 8,
        47 => {
            let fields = [0x80, 0x20, 0x10].iter().filter(|bit| packet[transport] & **bit != 0);
            transport + 4 + 4 * fields.count()
        }
        4 | 41 => transport,
        _ => 0,
    }
}

fn traffic_class(packet: &[u8]) -> u8 {
    if packet[0] >> 4 == 4 { packet[1] } else { packet[0] << 4 | packet[1] >> 4 }
}

fn set_traffic_class(packet: &mut [u8], class: u8) {
    if packet[0] >> 4 == 4 {
        packet[1] = class;
    } else {
        packet[0] = packet[0] & 0xf0 | class >> 4;
        packet[1] = packet[1] & 0x0f | class << 4;
    }
}

/// Options from `start` on, to the first that is malformed: where each begins and ends.
fn options(packet: &[u8], start: usize, end: usize) -> Vec<(usize, usize)> {
    let (mut at, mut found) = (start, Vec::new());
    while at < end && packet[at] != 0 {
        let len = match packet[at] {
            1 => 1,
            _ if at + 1 < end && packet[at + 1] >= 2 => usize::from(packet[at + 1]),
            _ => break,
        };
        if at + len > end {
            break;
        }
        found.push((at, at + len));
        at += len;
    }
    found
}

/// Carries out what is wanted, but for checksums. Says whether anything of TCP changed.
fn carry_out(packet: &mut [u8], wanted: Wanted) -> bool {
    let Some(shape) = Shape::of(packet) else { return false };
    if let Some(dscp) = wanted.dscp {
        let ecn = traffic_class(packet) & 3;
        set_traffic_class(packet, dscp << 2 | ecn);
    }
    let Some((start, end)) = shape.syn(packet) else { return false };
    let before = packet.to_vec();
    for (from, to) in options(&before, start + 20, end) {
        let option = &mut packet[from..to];
        if option[0] == 2 && option.len() == 4 && wanted.mss != 0 {
            let mss = be16(option, 2).min(wanted.mss);
            option[2..].copy_from_slice(&mss.to_be_bytes());
        } else if wanted.kinds.contains(&Some(option[0])) {
            option.fill(1);
        }
    }
    packet[start..end] != before[start..end]
}

/// An outer header without what differs from packet to packet: checksums, which cover what is inside, the
/// traffic class, and the sequence number of GRE.
fn without_what_varies(outer: &[u8]) -> Vec<u8> {
    let mut outer = outer.to_vec();
    let Some(shape) = Shape::of(&outer) else { return outer };
    set_traffic_class(&mut outer, 0);
    if !shape.is_v6 {
        outer[10..12].fill(0);
    }
    let checksum = match shape.protocol {
        17 => shape.transport + 6..shape.transport + 8,
        47 if outer[shape.transport] & 0x80 != 0 => shape.transport + 4..shape.transport + 6,
        _ => 0..0,
    };
    outer[checksum].fill(0);
    if shape.protocol == 47 && outer[shape.transport] & 0x10 != 0 {
        let sequence = outer.len() - 4..;
        outer[sequence].fill(0);
    }
    outer
}

/// Says what is wrong with a packet that left, given how it leaves without the edits that are wanted. What
/// stands before it is the link's, of so many bytes.
pub(super) fn compare(
    left: &[u8],
    plain: &[u8],
    header_len: usize,
    wanted: Wanted,
) -> Result<(), String> {
    if left == plain && wanted == Wanted::default() {
        return Ok(());
    }
    if left.len() != plain.len() || left[..header_len] != plain[..header_len] {
        return Err("other lengths or addresses".to_owned());
    }
    let (left, plain) = (&left[header_len..], &plain[header_len..]);
    let at = innermost(plain);
    let (outer_left, inner_left) = left.split_at(at);
    let (outer, inner) = plain.split_at(at);
    if at > 0 {
        if without_what_varies(outer_left) != without_what_varies(outer) {
            return Err("another outer header".to_owned());
        }
        // The DSCP is copied to the outer header or is not (RFC 2983 section 3), and ECN has rules of its own.
        let [outer_left, outer, inner_left] =
            [outer_left, outer, inner_left].map(|header| traffic_class(header) >> 2);
        if outer_left != outer && outer_left != inner_left {
            return Err("an outer DSCP of its own".to_owned());
        }
    }
    let mut expected = inner.to_vec();
    let is_changed = carry_out(&mut expected, wanted);
    let Some(shape) = Shape::of(inner) else { return Err("no packet".to_owned()) };
    if [1, 58].contains(&shape.protocol) {
        // No packet that comes is one of ICMP: this is an error about it, and may quote it either way.
        return Ok(());
    }
    if !shape.is_v6 {
        // The header checksum of what left was found right already.
        expected[10..12].copy_from_slice(&inner_left[10..12]);
        if sum(&inner_left[..usize::from(inner_left[0] & 15) * 4], 0) != 0xffff {
            return Err("IPv4 header checksum".to_owned());
        }
    }
    if is_changed {
        let checksum = shape.transport + 16..shape.transport + 18;
        expected[checksum.clone()].copy_from_slice(&inner_left[checksum]);
        // One that was wrong stays wrong: nobody vouches for what was broken on its way.
        if shape.has_right_checksum(inner) != shape.has_right_checksum(inner_left) {
            return Err("TCP checksum".to_owned());
        }
    }
    if expected == inner_left { Ok(()) } else { Err(format!("not {expected:02x?}")) }
}

/// The defect of one who forgets that an option may begin at an odd offset: the checksum is then updated by
/// the MSS with its bytes in the wrong order.
pub(super) fn forget_oddness(left: &mut [u8], plain: &[u8]) {
    let Some((start, end)) = Shape::of(plain).and_then(|shape| shape.syn(plain)) else { return };
    for (from, to) in options(plain, start + 20, end) {
        let is_odd = (from - start) % 2 == 1;
        if is_odd && plain[from] == 2 && plain[from..to] != left[from..to] {
            let delta = be16(left, from + 2).swap_bytes() ^ be16(left, from + 2);
            let checksum = be16(left, start + 16) ^ delta;
            left[start + 16..start + 18].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}
