//! Packets, built without any code of the router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const UDP: u8 = 17;
pub(crate) const TUNNEL_PORT: u16 = 6080;

/// An IPv4 packet with a right header checksum.
pub(crate) fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    protocol: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).expect("a short packet").to_be_bytes();
    let mut packet = vec![0x45, 0, length[0], length[1], 0, 7, 0, 0, ttl, protocol, 0, 0];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    repair_ipv4(&mut packet);
    packet.extend(payload);
    packet
}

/// Computes the checksum over the header, if there is a whole one.
pub(crate) fn repair_ipv4(packet: &mut [u8]) {
    let header_len = packet.first().map_or(0, |byte| usize::from(byte & 15) * 4).max(20);
    let Some(header) = packet.get_mut(..header_len) else { return };
    header[10..12].fill(0);
    let mut sum: u32 =
        header.chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("folded");
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// An IPv6 packet.
pub(crate) fn ipv6(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    next: u8,
    payload: &[u8],
) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("a short packet").to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, hop_limit];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A packet of the family of its destination; `None` when the addresses are of different families.
pub(crate) fn ip(
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    protocol: u8,
    payload: &[u8],
) -> Option<Vec<u8>> {
    match (source, destination) {
        (IpAddr::V4(from), IpAddr::V4(to)) => Some(ipv4(from, to, ttl, protocol, payload)),
        (IpAddr::V6(from), IpAddr::V6(to)) => Some(ipv6(from, to, ttl, protocol, payload)),
        _ => None,
    }
}

/// A UDP segment without a checksum.
pub(crate) fn udp(source_port: u16, destination_port: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).expect("a short segment");
    let mut segment = Vec::new();
    for field in [source_port, destination_port, length, 0] {
        segment.extend(field.to_be_bytes());
    }
    segment.extend(payload);
    segment
}

/// A GRE header with the fields that `flags` say, sequence number 0 and a right checksum, and the packet
/// behind it.
pub(crate) fn gre(flags: u8, is_v6: bool, key: Option<u32>, inner: &[u8]) -> Vec<u8> {
    let mut packet = vec![flags, 0];
    packet.extend(if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    if flags & 0x80 != 0 {
        packet.extend([0; 4]);
    }
    packet.extend(
        key.map(u32::to_be_bytes).unwrap_or_default().iter().take(if flags & 0x20 != 0 {
            4
        } else {
            0
        }),
    );
    if flags & 0x10 != 0 {
        packet.extend([0; 4]);
    }
    packet.extend(inner);
    if flags & 0x80 != 0 {
        let checksum = checksum(&packet, 0);
        packet[4..6].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// An ICMP message of the family of its destination, with its checksum put in.
pub(crate) fn icmp(source: IpAddr, destination: IpAddr, mut message: Vec<u8>) -> Option<Vec<u8>> {
    let pseudo_header = match (source, destination) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let words = from.segments().into_iter().chain(to.segments());
            words.map(u32::from).sum::<u32>() + 58 + u32::try_from(message.len()).ok()?
        }
        _ => 0,
    };
    let checksum = checksum(&message, pseudo_header);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    ip(source, destination, 64, if source.is_ipv4() { 1 } else { 58 }, &message)
}

/// RFC 1071.
pub(crate) fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = bytes.chunks(2).fold(start, |sum, word| {
        sum + u32::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

/// The packet in a frame to the interface at `position`.
pub(crate) fn frame(position: u8, packet: &[u8]) -> Vec<u8> {
    let ethertype = if packet.first().is_some_and(|byte| byte >> 4 == 6) { 0x86dd } else { 0x0800 };
    ethernet(position, ethertype, packet)
}

/// Any bytes in a frame to the interface at `position`.
pub(crate) fn ethernet(position: u8, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, position + 1, 2, 0, 0, 0, 0xaa, 1];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}
