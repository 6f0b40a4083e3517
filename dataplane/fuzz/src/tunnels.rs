//! What one router puts into a tunnel of any kind, the other one takes out as it was, but for the hop.
//!
//! ```text
//!  tunnel u8 | protocol u8 | traffic class u8 | TTL u8 | flags u8 | identification u16 | zeros u16 | payload
//!
//!  world -> a -- GUE | GRE | IP in IP, over IPv4 or IPv6 --> b ... f -> kernel
//! ```
//!
//! A packet that fits the tunnel arrives, byte for byte. One that does not arrives in fragments that make
//! it up, or its sender is told the size that fits.

use std::collections::BTreeMap;

use crate::common::network::{Left, Network};
use crate::common::{A, Plan, WAN, WHOLE, address, packets};
use crate::cursor::Cursor;

/// Destination, port, node that owns it, and bytes of the outer headers.
const TUNNELS: &[(&str, u16, usize, usize)] = &[
    ("192.0.2.1", 40_000, 1, 28),
    ("192.0.2.2", 53, 2, 36),
    ("192.0.2.2", 2000, 3, 20),
    ("192.0.2.2", 40_000, 4, 44),
    ("192.0.2.2", 60_000, 5, 40),
    ("2001:db8:5::1", 60_000, 1, 28),
];

const MTU: usize = 1500;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Cursor::new(bytes);
    let (to, port, node, overhead) = input.choose(TUNNELS);
    let packet = packet(&mut input, to, port);
    let mut network = Network::new(&Plan { frames: 320, ..Plan::default() }, WHOLE);
    let left = network.carry(A, WAN, &packets::frame(WAN, &packet));
    let may_be_fragmented = packet[0] >> 4 == 4 && packet[6] & 0x40 == 0;
    let expected = one_hop_less(&packet);
    if packet.len() + overhead <= MTU {
        let [only] = &left[..] else { panic!("{left:02x?} for {packet:02x?}") };
        assert_eq!((only.node, only.position, only.hops), (node, None, 2), "{packet:02x?}");
        assert_eq!(only.bytes, expected);
    } else if may_be_fragmented {
        assert!(left.iter().all(|part| (part.node, part.position) == (node, None)));
        assert_eq!(reassembled(&left), expected[20..], "{packet:02x?}");
    } else {
        let [error] = &left[..] else { panic!("{left:02x?} for {packet:02x?}") };
        assert_eq!((error.node, error.position), (A, Some(WAN)));
        let message = &error.bytes[14..];
        let mtu = match message[0] >> 4 {
            4 => usize::from(u16::from_be_bytes([message[26], message[27]])),
            _ => usize::from(u16::from_be_bytes([message[46], message[47]])),
        };
        assert_eq!(mtu, MTU - overhead);
    }
    network.finish();
}

fn packet(input: &mut Cursor<'_>, to: &str, port: u16) -> Vec<u8> {
    let to = address(to);
    let from = address(if to.is_ipv4() { "198.51.100.7" } else { "2001:db8:7::7" });
    let (protocol, traffic_class, ttl, flags) =
        (input.u8() % 3, input.u8(), input.u8().max(2), input.u8());
    let (identification, zeros) = (input.u16(), usize::from(input.u16() % 1500));
    let mut payload = input.rest().to_vec();
    payload.resize(payload.len() + zeros, 0);
    // What the interface of the router takes.
    payload.truncate(1400);
    let [high, low] = port.to_be_bytes();
    let (protocol, segment) = match (protocol, to.is_ipv4()) {
        (0, _) => (packets::UDP, packets::udp(53, port, &payload)),
        (1, _) => {
            let header =
                [0, 53, high, low, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0xab, 0xcd, 0, 0];
            (6, [&header[..], &payload].concat())
        }
        (_, true) => (1, [&[8, 0, 0xab, 0xcd, high, low, 0, 1], &payload[..]].concat()),
        (_, false) => (58, [&[128, 0, 0xab, 0xcd, high, low, 0, 1], &payload[..]].concat()),
    };
    let mut packet = packets::ip(from, to, ttl, protocol, &segment).expect("one family");
    if to.is_ipv4() {
        packet[1] = traffic_class;
        packet[4..6].copy_from_slice(&identification.to_be_bytes());
        packet[6] = flags & 0x40;
        packets::repair_ipv4(&mut packet);
    } else {
        packet[0] |= traffic_class >> 4;
        packet[1] = traffic_class << 4 | flags & 15;
    }
    packet
}

fn one_hop_less(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet[0] >> 4 == 4 {
        packet[8] -= 1;
        packets::repair_ipv4(&mut packet);
    } else {
        packet[7] -= 1;
    }
    packet
}

/// The payload that fragments make up: RFC 791 section 3.2, when nothing is missing and nothing twice.
fn reassembled(fragments: &[Left]) -> Vec<u8> {
    let parts: BTreeMap<usize, &[u8]> = fragments
        .iter()
        .map(|fragment| {
            let word = u16::from_be_bytes([fragment.bytes[6], fragment.bytes[7]]);
            (usize::from(word & 0x1fff) * 8, &fragment.bytes[20..])
        })
        .collect();
    assert_eq!(parts.len(), fragments.len(), "two fragments begin at one place");
    parts.into_iter().fold(Vec::new(), |mut payload, (start, part)| {
        assert_eq!(start, payload.len(), "a gap, or an overlap");
        payload.extend(part);
        payload
    })
}
