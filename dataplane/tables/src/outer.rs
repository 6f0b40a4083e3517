//! [`OuterHeaders`]: the outer headers to one far end, written once, and for each packet what differs.
//!
//! ```text
//!   IPv4  45 TC LEN | 0 DF | TTL 17 SUM | local | remote      UDP  SPORT | DPORT | LEN | 0
//!            ** ***                 ***                            *****           ***
//! ```
//!
//! The checksum's sum of what stays is computed when the tables are published; a packet adds the two words
//! that differ.

use core::net::{IpAddr, Ipv4Addr};

use wire::{checksum, ipv4, protocol, udp};

use crate::Encapsulation;

/// TTL or hop limit of outer headers.
pub const OUTER_TTL: u8 = 64;

/// IPv4 and UDP headers of a GUE tunnel, but for what differs from packet to packet.
#[derive(Clone, Debug)]
pub struct OuterHeaders {
    /// Big-endian words of 8 bytes, the last of 4, with zeros for what differs.
    words: [u64; 3],
    last: u32,
    /// One's complement sum of the IPv4 header.
    sum: u32,
}

impl OuterHeaders {
    /// Bytes that they have.
    pub const LEN: usize = ipv4::HEADER_LEN + udp::HEADER_LEN;

    /// Those of a tunnel; nothing for one that is not of GUE over IPv4.
    #[must_use]
    pub fn new(local: IpAddr, remote: IpAddr, encapsulation: &Encapsulation) -> Option<Self> {
        match (local, remote, encapsulation) {
            (IpAddr::V4(local), IpAddr::V4(remote), Encapsulation::Gue { port }) => {
                Some(Self::gue(local, remote, *port))
            }
            _ => None,
        }
    }

    fn gue(local: Ipv4Addr, remote: Ipv4Addr, port: u16) -> Self {
        let mut ip = [0; ipv4::HEADER_LEN];
        ipv4::Ipv4Repr {
            source: local.octets(),
            destination: remote.octets(),
            protocol: protocol::UDP,
            ttl: OUTER_TTL,
            traffic_class: 0,
            dont_fragment: true,
            // RFC 6864 section 4.1: an atomic packet's identification means nothing.
            identification: 0,
            payload_len: 0,
        }
        .emit(&mut ip);
        // Length and checksum.
        for at in [2, 3, 10, 11] {
            ip[at] = 0;
        }
        let sum = checksum::ones_complement_sum(&ip, 0);
        let mut bytes = [0; Self::LEN];
        bytes[..ip.len()].copy_from_slice(&ip);
        bytes[ip.len() + 2..][..2].copy_from_slice(&port.to_be_bytes());
        let mut words = [0; 3];
        let (whole, last) = bytes.as_chunks::<8>();
        for (word, bytes) in words.iter_mut().zip(whole) {
            *word = u64::from_be_bytes(*bytes);
        }
        let last = last.first_chunk().map_or(0, |last| u32::from_be_bytes(*last));
        Self { words, last, sum }
    }

    /// Writes them for a packet of `payload_len` bytes, the UDP header among them: at most 65,515.
    #[inline]
    pub fn emit(
        &self,
        out: &mut [u8; Self::LEN],
        traffic_class: u8,
        payload_len: u16,
        source_port: u16,
    ) {
        let total_len = payload_len.saturating_add(ipv4::HEADER_LEN as u16);
        let differs = u32::from(traffic_class) + u32::from(total_len);
        let sum = !checksum::fold(self.sum.wrapping_add(differs));
        let [first, second, third] = self.words;
        let words = [
            first | u64::from(traffic_class) << 48 | u64::from(total_len) << 32,
            second | u64::from(sum) << 32,
            third | u64::from(source_port) << 16,
        ];
        // RFC 6935: zero checksum, for a tunnel whose inner packets carry their own.
        let last = self.last | u32::from(payload_len) << 16;
        let (whole, rest) = out.as_chunks_mut::<8>();
        for (bytes, word) in whole.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
        }
        if let Some(bytes) = rest.first_chunk_mut() {
            *bytes = last.to_be_bytes();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn as_written_field_by_field() {
        let mut seed = 1_u64;
        let mut random = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 32) as u32
        };
        let lengths = [8, 9, 0xff, 0x100, 65_514, 65_515];
        for n in 0..20_000 {
            let (local, remote) = (Ipv4Addr::from(random()), Ipv4Addr::from(random()));
            let (port, source_port, traffic_class) =
                (random() as u16, random() as u16, random() as u8);
            let payload_len = match lengths.get(n) {
                Some(&len) => len,
                None => 8 + random() as u16 % 65_508,
            };
            let mut want = [0xaa; OuterHeaders::LEN];
            let (ip, rest) = want.split_first_chunk_mut().unwrap();
            ipv4::Ipv4Repr {
                source: local.octets(),
                destination: remote.octets(),
                protocol: protocol::UDP,
                ttl: OUTER_TTL,
                traffic_class,
                dont_fragment: true,
                identification: 0,
                payload_len,
            }
            .emit(ip);
            udp::emit_header(rest.first_chunk_mut().unwrap(), source_port, port, payload_len, 0);
            let headers =
                OuterHeaders::new(local.into(), remote.into(), &Encapsulation::Gue { port })
                    .unwrap();
            let mut out = [0x55; OuterHeaders::LEN];
            headers.emit(&mut out, traffic_class, payload_len, source_port);
            assert_eq!(out, want, "{local} {remote} {port} {traffic_class} {payload_len}");
        }
    }

    #[test]
    fn none_for_other_tunnels() {
        let v4 = IpAddr::from([192, 0, 2, 1]);
        let v6 = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]);
        assert!(OuterHeaders::new(v4, v4, &Encapsulation::Ipip).is_none());
        assert!(OuterHeaders::new(v6, v6, &Encapsulation::Gue { port: 6080 }).is_none());
    }
}
