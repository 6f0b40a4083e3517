//! Packets by hand: every field can be wrong.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const UDP: u8 = 17;
pub(crate) const TCP: u8 = 6;
pub(crate) const ICMP: u8 = 1;
pub(crate) const ICMPV6: u8 = 58;

/// The router's own link-layer addresses, by port.
pub(crate) const ROUTER_MAC: [[u8; 6]; 3] =
    [[2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 0x11], [2, 0, 0, 0, 0, 0x12]];

/// Where the frames of this test come from.
pub(crate) const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 1, 2];

/// Repeatable random numbers: splitmix64.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    pub(crate) fn of<'a, T>(&mut self, choice: &'a [T]) -> &'a T {
        &choice[self.below(choice.len())]
    }
}

/// The sum of RFC 1071, folded and not complemented.
pub(crate) fn ones_sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2);
    let sum: u64 = words
        .map(|pair| u64::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])))
        .sum();
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn ethernet(destination: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&destination[..], &SENDER_MAC, &ethertype.to_be_bytes(), packet].concat()
}

/// A UDP packet from a host behind the router's first port, in a frame to that port.
#[allow(dead_code, reason = "the differential test has odder packets")]
pub(crate) fn udp_frame(destination: IpAddr, payload: &[u8]) -> Vec<u8> {
    let (ethertype, packet) = match destination {
        IpAddr::V4(destination) => {
            (0x0800, V4::new(Ipv4Addr::new(10, 0, 0, 2), destination).udp(payload))
        }
        IpAddr::V6(destination) => {
            let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
            (0x86dd, V6::new(source, destination).udp(payload))
        }
    };
    ethernet(ROUTER_MAC[0], ethertype, &packet)
}

/// An IPv4 header; what is `None` is filled in as it should be.
#[derive(Clone, Debug)]
pub(crate) struct V4 {
    pub(crate) version: u8,
    pub(crate) header_words: Option<u8>,
    pub(crate) tos: u8,
    pub(crate) total_length: Option<u16>,
    pub(crate) id: u16,
    /// Flags and offset as they stand in the header.
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) protocol: u8,
    pub(crate) checksum: Option<u16>,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) options: Vec<u8>,
}

impl V4 {
    /// The header of a UDP packet with nothing odd about it.
    pub(crate) fn new(source: Ipv4Addr, destination: Ipv4Addr) -> Self {
        Self {
            version: 4,
            header_words: None,
            tos: 0,
            total_length: None,
            id: 0,
            fragment: 0,
            ttl: 64,
            protocol: UDP,
            checksum: None,
            source,
            destination,
            options: Vec::new(),
        }
    }

    pub(crate) fn header(&self, payload_len: usize) -> Vec<u8> {
        let length = 20 + self.options.len();
        let words = self.header_words.unwrap_or((length / 4) as u8);
        let total = self.total_length.unwrap_or((length + payload_len) as u16);
        let mut header = vec![self.version << 4 | words & 0xf, self.tos];
        header.extend(total.to_be_bytes());
        header.extend(self.id.to_be_bytes());
        header.extend(self.fragment.to_be_bytes());
        header.extend([self.ttl, self.protocol, 0, 0]);
        header.extend(self.source.octets());
        header.extend(self.destination.octets());
        header.extend(&self.options);
        header
    }

    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let mut packet = [self.header(payload.len()), payload.to_vec()].concat();
        let checksum = self.checksum.unwrap_or_else(|| {
            // Over what the header claims to be, where there is that much.
            let end = (usize::from(packet[0] & 0xf) * 4).max(20).min(packet.len());
            !ones_sum(&[&packet[..end]])
        });
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet
    }

    /// The packet with its payload as a UDP datagram.
    pub(crate) fn udp(&self, payload: &[u8]) -> Vec<u8> {
        let ends = [self.source.octets(), self.destination.octets()].concat();
        Self { protocol: UDP, ..self.clone() }.packet(&datagram(&ends, payload))
    }

    pub(crate) fn tcp(&self, flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let ends = [self.source.octets(), self.destination.octets()].concat();
        Self { protocol: TCP, ..self.clone() }.packet(&segment(&ends, flags, options, payload))
    }

    pub(crate) fn icmp(&self, kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
        let mut message = [&[kind, code, 0, 0], &rest.to_be_bytes()[..], body].concat();
        let sum = !ones_sum(&[&message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        Self { protocol: ICMP, ..self.clone() }.packet(&message)
    }
}

/// An IPv6 header.
#[derive(Clone, Debug)]
pub(crate) struct V6 {
    pub(crate) version: u8,
    pub(crate) traffic_class: u8,
    pub(crate) flow_label: u32,
    pub(crate) payload_length: Option<u16>,
    pub(crate) next_header: u8,
    pub(crate) hop_limit: u8,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
}

impl V6 {
    /// The header of a UDP packet with nothing odd about it.
    pub(crate) fn new(source: Ipv6Addr, destination: Ipv6Addr) -> Self {
        Self {
            version: 6,
            traffic_class: 0,
            flow_label: 0,
            payload_length: None,
            next_header: UDP,
            hop_limit: 64,
            source,
            destination,
        }
    }

    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        let word = u32::from(self.version) << 28
            | u32::from(self.traffic_class) << 20
            | self.flow_label & 0xf_ffff;
        let length = self.payload_length.unwrap_or(payload.len() as u16);
        let mut packet = word.to_be_bytes().to_vec();
        packet.extend(length.to_be_bytes());
        packet.extend([self.next_header, self.hop_limit]);
        packet.extend(self.source.octets());
        packet.extend(self.destination.octets());
        packet.extend(payload);
        packet
    }

    fn ends(&self) -> Vec<u8> {
        [self.source.octets(), self.destination.octets()].concat()
    }

    pub(crate) fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        datagram(&self.ends(), payload)
    }

    pub(crate) fn udp(&self, payload: &[u8]) -> Vec<u8> {
        Self { next_header: UDP, ..self.clone() }.packet(&self.datagram(payload))
    }

    pub(crate) fn tcp(&self, flags: u8, payload: &[u8]) -> Vec<u8> {
        let segment = segment(&self.ends(), flags, &[], payload);
        Self { next_header: TCP, ..self.clone() }.packet(&segment)
    }

    pub(crate) fn icmp_message(&self, kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
        let mut message = [&[kind, code, 0, 0], &rest.to_be_bytes()[..], body].concat();
        let pseudo = [&(message.len() as u32).to_be_bytes()[..], &[0, 0, 0, ICMPV6]].concat();
        let sum = !ones_sum(&[&self.ends(), &pseudo, &message]);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        message
    }

    pub(crate) fn icmp(&self, kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
        let message = self.icmp_message(kind, code, rest, body);
        Self { next_header: ICMPV6, ..self.clone() }.packet(&message)
    }
}

fn datagram(ends: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let mut datagram = [4660_u16, 53, length, 0].map(u16::to_be_bytes).concat();
    datagram.extend(payload);
    let pseudo = [&u32::from(length).to_be_bytes()[..], &[0, 0, 0, UDP]].concat();
    let sum = !ones_sum(&[ends, &pseudo, &datagram]);
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

fn segment(ends: &[u8], flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
    let words = ((20 + options.len()) / 4) as u8;
    let mut segment = [4660_u16, 80].map(u16::to_be_bytes).concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 2, words << 4, flags, 16, 0, 0, 0, 0, 0]);
    segment.extend(options);
    segment.extend(payload);
    let pseudo = [&(segment.len() as u32).to_be_bytes()[..], &[0, 0, 0, TCP]].concat();
    let sum = !ones_sum(&[ends, &pseudo, &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}
