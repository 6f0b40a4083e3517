//! Packets as hosts make them and as a bystander reads them, without any code of the router: from the
//! RFCs alone.
//!
//! ```text
//!  | IP header | transport header | block | block | ...      behind the IP header all is in units of 8 bytes
//!                                   ^ magic, id of the packet, number of its unit, check
//! ```
//!
//! Every unit of a payload says which packet it belongs to and where, so that any fragment, quotation or
//! tunnel packet tells what it carries, and a byte that changed is seen.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_LEN: usize = 14;
/// UDP port of GUE tunnels.
pub(crate) const TUNNEL_PORT: u16 = 6080;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ESP: u8 = 50;
pub(crate) const ICMPV6: u8 = 58;
const IPIP: u8 = 4;
const IPV6: u8 = 41;
const FRAGMENT_HEADER: u8 = 44;
const GRE: u8 = 47;

const UNIT: usize = 8;
const MAGIC: u8 = 0xa7;

/// A unit of a payload.
pub(crate) fn block(id: u32, unit: u16) -> [u8; UNIT] {
    let [_, a, b, c] = id.to_be_bytes();
    let [d, e] = unit.to_be_bytes();
    let [f, g] = check(id, unit);
    [MAGIC, a, b, c, d, e, f, g]
}

fn check(id: u32, unit: u16) -> [u8; 2] {
    let mixed = (id ^ u32::from(unit) << 13).wrapping_mul(0x9e37_79b9);
    ((mixed >> 16) as u16).to_be_bytes()
}

/// Which packet and unit a block says it is of.
pub(crate) fn read_block(bytes: &[u8]) -> Option<(u32, u16)> {
    let [MAGIC, a, b, c, d, e, f, g] = *bytes.first_chunk::<UNIT>()? else { return None };
    let (id, unit) = (u32::from_be_bytes([0, a, b, c]), u16::from_be_bytes([d, e]));
    (check(id, unit) == [f, g]).then_some((id, unit))
}

/// What stands behind the IP header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp {
        source: u16,
        destination: u16,
    },
    Tcp {
        source: u16,
        destination: u16,
        is_syn: bool,
    },
    Echo {
        identifier: u16,
        is_reply: bool,
    },
    /// A protocol without ports.
    Portless,
    /// An ICMP error that quotes this packet.
    Error {
        kind: u8,
        code: u8,
        quoted: Vec<u8>,
    },
}

/// A packet to be made.
#[derive(Clone, Debug)]
pub(crate) struct Recipe {
    pub(crate) id: u32,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) identification: u16,
    pub(crate) transport: Transport,
    /// Length of what stands behind the IP header, in units.
    pub(crate) units: u16,
}

impl Recipe {
    /// How many units the transport header takes; payload is checked behind them.
    pub(crate) fn header_units(&self) -> u16 {
        match self.transport {
            Transport::Tcp { .. } => 3,
            Transport::Error { .. } => u16::MAX,
            _ => 1,
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self.transport, Transport::Error { .. })
    }

    /// The IP packet.
    pub(crate) fn build(&self) -> Vec<u8> {
        let is_v6 = self.destination.is_ipv6();
        let (protocol, mut segment, checksum_at) = self.segment();
        if let Some(at) = checksum_at {
            let pseudo_header = match protocol {
                ICMP => 0,
                _ => pseudo_header(self.source, self.destination, protocol, segment.len()),
            };
            let mut sum = !sum(&segment, pseudo_header);
            if sum == 0 && protocol == UDP {
                sum = 0xffff;
            }
            segment[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        if is_v6 {
            ipv6(self.source, self.destination, self.ttl, protocol, &segment)
        } else {
            let flags = if self.dont_fragment { 0x4000 } else { 0 };
            ipv4(
                self.source,
                self.destination,
                self.ttl,
                protocol,
                self.identification,
                flags,
                &segment,
            )
        }
    }

    /// Protocol, bytes, and where the checksum stands.
    fn segment(&self) -> (u8, Vec<u8>, Option<usize>) {
        let is_v6 = self.destination.is_ipv6();
        let icmp = if is_v6 { ICMPV6 } else { ICMP };
        let len = self.units * UNIT as u16;
        let (protocol, mut bytes, at) = match &self.transport {
            Transport::Udp { source, destination } => {
                (UDP, words(&[*source, *destination, len, 0]), Some(6))
            }
            Transport::Tcp { source, destination, is_syn } => {
                let mut bytes = words(&[*source, *destination, 0, 1, 0, 0]);
                let flags = if *is_syn { 0x6002 } else { 0x6010 };
                bytes.extend(words(&[flags, 0xffff, 0, 0]));
                // MSS 1460, or four times nothing.
                bytes.extend(if *is_syn { [2, 4, 0x05, 0xb4] } else { [1, 1, 1, 1] });
                (TCP, bytes, Some(16))
            }
            Transport::Echo { identifier, is_reply } => {
                let kind = match (is_v6, is_reply) {
                    (false, false) => 0x0800,
                    (false, true) => 0x0000,
                    (true, false) => 0x8000,
                    (true, true) => 0x8100,
                };
                (icmp, words(&[kind, 0, *identifier, 1]), Some(2))
            }
            Transport::Portless => (ESP, words(&[1, 2, 3, 4]), None),
            Transport::Error { kind, code, quoted } => {
                let mut bytes = vec![*kind, *code, 0, 0, 0, 0, 0, 0];
                bytes.extend(quoted);
                return (icmp, bytes, Some(2));
            }
        };
        for unit in self.header_units()..self.units {
            bytes.extend(block(self.id, unit));
        }
        (protocol, bytes, at)
    }
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn ipv4(
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    protocol: u8,
    identification: u16,
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let length = (20 + payload.len()) as u16;
    let mut packet = words(&[0x4500, length, identification, fragment]);
    packet.extend([ttl, protocol, 0, 0]);
    for address in [source, destination] {
        if let IpAddr::V4(address) = address {
            packet.extend(address.octets());
        }
    }
    repair_ipv4(&mut packet);
    packet.extend(payload);
    packet
}

/// Puts the right checksum into an IPv4 header without options.
pub(crate) fn repair_ipv4(packet: &mut [u8]) {
    let Some(header) = packet.get_mut(..20) else { return };
    header[10..12].fill(0);
    let sum = !sum(header, 0);
    header[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn ipv6(source: IpAddr, destination: IpAddr, hop_limit: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = words(&[0x6000, 0, payload.len() as u16]);
    packet.extend([next, hop_limit]);
    for address in [source, destination] {
        if let IpAddr::V6(address) = address {
            packet.extend(address.octets());
        }
    }
    packet.extend(payload);
    packet
}

/// The fragments of a packet, cut behind these units (RFC 791 section 3.2, RFC 8200 section 4.5).
pub(crate) fn fragments(packet: &[u8], identification: u16, cuts: &[u16]) -> Vec<Vec<u8>> {
    let is_v6 = packet[0] >> 4 == 6;
    let header_len = if is_v6 { 40 } else { 20 };
    let (header, payload) = packet.split_at(header_len);
    let mut edges: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut) * UNIT).collect();
    edges.retain(|&edge| edge > 0 && edge < payload.len());
    edges.push(payload.len());
    edges.sort_unstable();
    edges.dedup();
    let mut start = 0;
    let mut made = Vec::new();
    for edge in edges {
        let more = edge < payload.len();
        let part = &payload[start..edge];
        let mut fragment = header.to_vec();
        if is_v6 {
            let next = std::mem::replace(&mut fragment[6], FRAGMENT_HEADER);
            fragment[4..6].copy_from_slice(&((part.len() + 8) as u16).to_be_bytes());
            let offset = start as u16 | u16::from(more);
            fragment.extend([next, 0]);
            fragment.extend(words(&[offset, 0, identification]));
        } else {
            let offset = (start / UNIT) as u16 | if more { 0x2000 } else { 0 };
            fragment[2..4].copy_from_slice(&((20 + part.len()) as u16).to_be_bytes());
            fragment[4..6].copy_from_slice(&identification.to_be_bytes());
            fragment[6..8].copy_from_slice(&offset.to_be_bytes());
            repair_ipv4(&mut fragment);
        }
        fragment.extend(part);
        made.push(fragment);
        start = edge;
    }
    made
}

/// A packet in an Ethernet frame.
pub(crate) fn ethernet(destination: [u8; 6], source: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let is_v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let ethertype: [u8; 2] = if is_v6 { [0x86, 0xdd] } else { [0x08, 0x00] };
    [&destination[..], &source, &ethertype, packet].concat()
}

/// A packet in a GUE tunnel packet.
pub(crate) fn gue(source: IpAddr, destination: IpAddr, inner: &[u8]) -> Vec<u8> {
    let mut segment = words(&[50_000, TUNNEL_PORT, (8 + inner.len()) as u16, 0]);
    segment.extend(inner);
    if destination.is_ipv6() {
        ipv6(source, destination, 64, UDP, &segment)
    } else {
        ipv4(source, destination, 64, UDP, 0, 0x4000, &segment)
    }
}

/// RFC 1071: the one's complement sum; all ones over what holds its right checksum.
fn sum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = bytes.chunks(2).fold(u64::from(start), |sum, word| {
        sum + u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len: usize) -> u32 {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = sum(&[octets(source), octets(destination)].concat(), 0);
    u32::from(addresses) + u32::from(protocol) + len as u32
}

/// An IP header and what stands behind it, as places in a frame.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    /// Of the payload, in bytes of the whole packet's.
    pub(crate) offset: u16,
    pub(crate) more: bool,
    /// Where the header begins.
    pub(crate) start: usize,
    pub(crate) payload: Range<usize>,
}

impl Layer {
    /// Reads the header at `start`; `None` when the bytes are no whole IP packet.
    pub(crate) fn read(bytes: &[u8], start: usize) -> Option<Self> {
        let packet = bytes.get(start..)?;
        match packet.first()? >> 4 {
            4 => {
                let header_len = usize::from(packet[0] & 15) * 4;
                let header = packet.get(..header_len).filter(|header| header.len() >= 20)?;
                let total = usize::from(be16(header, 2));
                if total < header_len || total > packet.len() {
                    return None;
                }
                let address = |at: usize| {
                    Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3])
                };
                let fragment = be16(header, 6);
                Some(Self {
                    source: address(12).into(),
                    destination: address(16).into(),
                    ttl: header[8],
                    protocol: header[9],
                    offset: (fragment & 0x1fff) * 8,
                    more: fragment & 0x2000 != 0,
                    start,
                    payload: start + header_len..start + total,
                })
            }
            6 => {
                let header = packet.get(..40)?;
                let len = usize::from(be16(header, 4));
                if 40 + len > packet.len() {
                    return None;
                }
                let address = |at: usize| {
                    let bytes: [u8; 16] = header[at..at + 16].try_into().unwrap_or_default();
                    IpAddr::from(Ipv6Addr::from(bytes))
                };
                let mut layer = Self {
                    source: address(8),
                    destination: address(24),
                    ttl: header[7],
                    protocol: header[6],
                    offset: 0,
                    more: false,
                    start,
                    payload: start + 40..start + 40 + len,
                };
                if layer.protocol == FRAGMENT_HEADER {
                    let fragment = bytes.get(layer.payload.clone())?.first_chunk::<8>()?;
                    layer.protocol = fragment[0];
                    layer.offset = be16(fragment, 2) & !7;
                    layer.more = fragment[3] & 1 != 0;
                    layer.payload.start += 8;
                }
                Some(layer)
            }
            _ => None,
        }
    }

    pub(crate) fn is_fragment(&self) -> bool {
        self.more || self.offset != 0
    }

    /// Where the packet in a tunnel packet begins.
    pub(crate) fn inner(&self, bytes: &[u8]) -> Option<usize> {
        let payload = bytes.get(self.payload.clone())?;
        match self.protocol {
            // Variant 1 of GUE begins with an IP header. Anybody may send something else to that port, or
            // be answered on it.
            UDP if payload.len() > 8
                && be16(payload, 2) == TUNNEL_PORT
                && matches!(payload[8] >> 4, 4 | 6)
                && !self.is_fragment() =>
            {
                Some(self.payload.start + 8)
            }
            GRE => {
                let fields = [0x80, 0x20, 0x10]
                    .iter()
                    .filter(|&&bit| payload.first().is_some_and(|flags| flags & bit != 0));
                Some(self.payload.start + 4 + 4 * fields.count())
            }
            IPIP | IPV6 => Some(self.payload.start),
            _ => None,
        }
    }

    /// Whether this is an ICMP error.
    pub(crate) fn is_icmp_error(&self, bytes: &[u8]) -> bool {
        let kind = bytes.get(self.payload.start).copied();
        self.offset == 0
            && match self.protocol {
                ICMP => matches!(kind, Some(3 | 4 | 5 | 11 | 12)),
                ICMPV6 => matches!(kind, Some(..128)),
                _ => false,
            }
    }

    /// Whether this ICMP error is about another one. What it quotes may be cut short.
    pub(crate) fn quotes_icmp_error(&self, bytes: &[u8]) -> bool {
        let quoted = bytes.get(self.payload.start + 8..self.payload.end).unwrap_or_default();
        let byte = |at: usize| quoted.get(at).copied();
        match byte(0).map(|first| (first >> 4, usize::from(first & 15) * 4)) {
            Some((4, header_len)) if byte(9) == Some(ICMP) => {
                matches!(byte(header_len), Some(3 | 4 | 5 | 11 | 12))
            }
            Some((6, _)) if byte(6) == Some(ICMPV6) => matches!(byte(40), Some(..128)),
            _ => false,
        }
    }

    /// Says what is wrong with this packet, and with those in it: lengths, TTL and every checksum that can
    /// be computed from it.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if self.ttl == 0 {
            return Err("TTL 0".to_owned());
        }
        if self.source.is_ipv4() && sum(&bytes[self.start..self.payload.start], 0) != 0xffff {
            return Err(format!("IPv4 header checksum of {} to {}", self.source, self.destination));
        }
        let payload = &bytes[self.payload.clone()];
        if let Some(inner) = self.inner(bytes) {
            if self.protocol == UDP && usize::from(be16(payload, 4)) != payload.len() {
                return Err("UDP length of a tunnel packet".to_owned());
            }
            if self.protocol == GRE && payload[0] & 0x80 != 0 && sum(payload, 0) != 0xffff {
                return Err("GRE checksum".to_owned());
            }
            let inner = Self::read(bytes, inner).ok_or("no packet in a tunnel packet")?;
            if inner.payload.end != self.payload.end {
                return Err("a tunnel packet longer than what is in it".to_owned());
            }
            return inner.check(bytes).map_err(|wrong| format!("in a tunnel: {wrong}"));
        }
        if self.is_fragment() {
            return Ok(());
        }
        let start = match self.protocol {
            ICMP => 0,
            UDP if payload.get(6..8) == Some(&[0, 0]) && self.source.is_ipv4() => return Ok(()),
            UDP | TCP | ICMPV6 => {
                pseudo_header(self.source, self.destination, self.protocol, payload.len())
            }
            _ => return Ok(()),
        };
        if sum(payload, start) == 0xffff {
            Ok(())
        } else {
            Err(format!(
                "checksum of protocol {} from {} to {}",
                self.protocol, self.source, self.destination
            ))
        }
    }
}

/// The packet that a frame carries in the end, behind all tunnels.
pub(crate) fn innermost(bytes: &[u8], layer: &Layer) -> Option<Layer> {
    let mut layer = layer.clone();
    for _ in 0..3 {
        let Some(inner) = layer.inner(bytes) else { return Some(layer) };
        layer = Layer::read(bytes, inner)?;
    }
    None
}

/// The first block anywhere in these bytes.
pub(crate) fn find_block(bytes: &[u8]) -> Option<u32> {
    (0..bytes.len()).find_map(|at| read_block(&bytes[at..])).map(|(id, _)| id)
}

/// The first block at a multiple of a unit.
pub(crate) fn find_aligned_block(bytes: &[u8]) -> Option<u32> {
    bytes.chunks(UNIT).find_map(read_block).map(|(id, _)| id)
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

/// Raises the TTL by one, with the right checksum.
pub(crate) fn raise_ttl(packet: &mut [u8]) {
    if packet[0] >> 4 == 6 {
        packet[7] = packet[7].wrapping_add(1);
    } else {
        packet[8] = packet[8].wrapping_add(1);
        repair_ipv4(packet);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(destination: &str, source: &str, transport: Transport) -> Recipe {
        Recipe {
            id: 0x12_3456,
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
            ttl: 64,
            dont_fragment: false,
            identification: 7,
            transport,
            units: 40,
        }
    }

    #[test]
    fn what_is_built_is_read_back_and_sound() {
        let transports = [
            Transport::Udp { source: 1, destination: 2 },
            Transport::Tcp { source: 1, destination: 2, is_syn: true },
            Transport::Echo { identifier: 9, is_reply: false },
            Transport::Portless,
        ];
        for (source, destination) in [("192.0.2.1", "198.51.100.1"), ("2001:db8::1", "2001:db8::2")]
        {
            for transport in transports.clone() {
                let packet = recipe(destination, source, transport).build();
                let layer = Layer::read(&packet, 0).expect("a packet");
                layer.check(&packet).expect("sound");
                assert_eq!(layer.payload.len(), 320);
                assert_eq!(find_aligned_block(&packet[layer.payload.clone()]), Some(0x12_3456));
                let parts = fragments(&packet, 7, &[5, 11]);
                let mut whole = Vec::new();
                for part in &parts {
                    let layer = Layer::read(part, 0).expect("a fragment");
                    layer.check(part).expect("sound");
                    assert_eq!(usize::from(layer.offset), whole.len());
                    whole.extend(&part[layer.payload]);
                }
                assert_eq!((parts.len(), &whole[..]), (3, &packet[layer.payload]));
            }
        }
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let transport = Transport::Udp { source: 1, destination: 2 };
        let packet = recipe("198.51.100.1", "192.0.2.1", transport).build();
        for at in 0..packet.len() {
            let mut broken = packet.clone();
            broken[at] ^= 0x10;
            let is_seen = Layer::read(&broken, 0).is_none_or(|layer| layer.check(&broken).is_err());
            // DF and the fragment's place decide what can be checked, and the header's sum covers them.
            assert!(is_seen, "byte {at}");
        }
    }

    #[test]
    fn what_only_uses_the_port_of_tunnels_is_no_tunnel_packet() {
        let transport = Transport::Udp { source: 50_000, destination: TUNNEL_PORT };
        let packet = recipe("192.0.2.1", "198.51.100.1", transport).build();
        let layer = Layer::read(&packet, 0).expect("a packet");
        assert_eq!(layer.inner(&packet), None);
        layer.check(&packet).expect("sound");
    }

    #[test]
    fn a_tunnel_packet_is_read_through() {
        let transport = Transport::Udp { source: 1, destination: 2 };
        let inner = recipe("192.0.2.1", "198.51.100.1", transport).build();
        let address = |text: &str| text.parse().expect("an address");
        let outer = gue(address("10.0.0.1"), address("10.0.0.2"), &inner);
        let layer = Layer::read(&outer, 0).expect("a packet");
        layer.check(&outer).expect("sound");
        let found = innermost(&outer, &layer).expect("a packet in it");
        assert_eq!(found.destination, address("192.0.2.1"));
    }
}
