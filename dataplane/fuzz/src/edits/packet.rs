//! Packets that come to the router: of a kind that an edit is about, or nearly so.
//!
//! ```text
//!  kind u8: bit 0 IPv6, bit 1 by lan0, bits 2-3 TCP, TCP, UDP, ESP, bit 4 checksum left as it is,
//!           bit 5 a fragment, bit 6 padding of the link behind it
//!  from u8 | to u8 | traffic class u8 | TTL u8 | ports u16 u16 | offset of the data u8 | TCP flags u8
//!  options: length u8, bytes | payload: length u8, bytes
//! ```

use std::net::IpAddr;

use crate::common::{LAN, WAN, address, packets};
use crate::cursor::Cursor;

const TCP: u8 = 6;
const ESP: u8 = 50;

/// Companions are longer than whatever is read from an input.
pub(super) const COMPANION_BYTES_MIN: usize = 900;

const V4: [&str; 7] =
    ["198.51.100.7", "203.0.113.9", "192.0.2.1", "192.0.2.2", "10.1.0.2", "10.1.0.5", "10.0.0.11"];
const V6: [&str; 5] =
    ["2001:db8:9::7", "2001:db8:a::9", "2001:db8:5::1", "fd01::5", "2001:db8:5::2"];

fn one_of(texts: &[&str], input: &mut Cursor<'_>) -> IpAddr {
    address(input.choose(texts))
}

/// The interface, and a frame that comes by it.
pub(super) fn read(input: &mut Cursor<'_>) -> (u8, Vec<u8>) {
    let kind = input.u8();
    let position = if kind & 2 == 0 { WAN } else { LAN };
    let protocol = [TCP, TCP, packets::UDP, ESP][usize::from(kind >> 2 & 3)];
    // The router itself, last of those of IPv4, is nobody's source.
    let (from, to) = if kind & 1 == 0 {
        (one_of(&V4[..6], input), one_of(&V4, input))
    } else {
        (one_of(&V6, input), one_of(&V6, input))
    };
    let (class, ttl) = (input.u8(), input.u8());
    let mut payload = transport(protocol, input);
    if kind & 16 == 0 && payload.len() >= 20 && protocol == TCP {
        set_checksum(from, to, &mut payload);
    }
    let is_fragment = kind & 32 != 0;
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut packet = packets::ipv4(from, to, ttl, protocol, &payload);
            packet[1] = class;
            packet[6] = if is_fragment { 0x20 } else { 0x40 };
            packets::repair_ipv4(&mut packet);
            packet
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = [protocol, 0, 0, u8::from(is_fragment), 0, 0, 0, 7];
            // One that is none is a whole packet, and so is one without this header.
            let (next, payload) = if is_fragment || class & 0x10 != 0 {
                (44, [&header[..], &payload].concat())
            } else {
                (protocol, payload)
            };
            let mut packet = packets::ipv6(from, to, ttl, next, &payload);
            packet[0] |= class >> 4;
            packet[1] |= class << 4;
            packet
        }
        _ => unreachable!("both are of one family"),
    };
    if kind & 64 != 0 {
        packet.extend([0xee; 5]);
    }
    (position, packets::frame(position, &packet))
}

fn transport(protocol: u8, input: &mut Cursor<'_>) -> Vec<u8> {
    let (from, to) = (input.u16(), input.u16());
    let (offset, tcp_flags) = (input.u8(), input.u8());
    let options = usize::from(input.u8());
    let options = input.bytes(options).to_vec();
    let payload = usize::from(input.u8());
    let payload = input.bytes(payload);
    match protocol {
        TCP => {
            // To where its options end, unless the input says otherwise.
            let whole = u8::try_from(options.len().div_ceil(4) + 5).unwrap_or(15).min(15);
            let offset = if offset == 0 { whole } else { offset >> 4 };
            let mut segment = Vec::new();
            segment.extend(from.to_be_bytes());
            segment.extend(to.to_be_bytes());
            segment.extend([
                0,
                0,
                0,
                1,
                0,
                0,
                0,
                0,
                offset << 4,
                tcp_flags,
                0xff,
                0xff,
                0,
                0,
                0,
                0,
            ]);
            segment.extend(&options);
            segment.resize(segment.len().next_multiple_of(4), 0);
            segment.extend(payload);
            segment
        }
        packets::UDP => packets::udp(from, to, payload),
        _ => [&options, payload].concat(),
    }
}

fn set_checksum(from: IpAddr, to: IpAddr, segment: &mut [u8]) {
    let mut covered = Vec::new();
    for address in [from, to] {
        match address {
            IpAddr::V4(address) => covered.extend(address.octets()),
            IpAddr::V6(address) => covered.extend(address.octets()),
        }
    }
    covered.extend([0, TCP]);
    covered.extend(u16::try_from(segment.len()).expect("a short segment").to_be_bytes());
    covered.extend(&*segment);
    let checksum = packets::checksum(&covered, 0);
    segment[16..18].copy_from_slice(&checksum.to_be_bytes());
}

/// A packet through the router that no answer is about.
pub(super) fn companion(position: u8) -> Vec<u8> {
    let datagram = packets::udp(7, 7, &[0; COMPANION_BYTES_MIN]);
    let (from, to) = (address("203.0.113.1"), address("198.51.100.1"));
    let packet = packets::ip(from, to, 64, packets::UDP, &datagram).expect("of one family");
    packets::frame(position, &packet)
}
