//! The flow that an ICMP error is about: the packet that it quotes, parsed as far as it goes.
//!
//! ```text
//! IP header | ICMP header | quoted: IP header | ports or echo identifier | perhaps more
//!                           ^ what these functions are given
//! ```
//!
//! A quotation is cut short (RFC 792: "the internet header plus the first 64 bits"), and the
//! routers on its way have changed its TTL; so a total length beyond the quotation is right, and
//! the checksum of the quoted header is **not** verified: some routers quote it as it stands after
//! their own changes.

use core::fmt;

use crate::protocol::IpVersion;
use crate::{field, flow, icmp, icmpv6, ipv4, ipv6, protocol, udp};

/// Who sent the quoted packet to whom. `source` is the end that the error is returned to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedFlow {
    /// Source address of the quoted packet; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address of the quoted packet; IPv4 as `::ffff:a.b.c.d`.
    pub destination: [u8; 16],
    /// Protocol number of its transport header.
    pub protocol: u8,
    /// Its source port, or its echo identifier.
    pub source_port: u16,
    /// Its destination port, or its echo identifier.
    pub destination_port: u16,
    /// Where its transport header stands, in bytes from the beginning of the quotation.
    pub transport_offset: usize,
}

/// Why a quoted packet names no flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmbeddedError {
    /// The quotation ends before the ports or the identifier.
    Truncated,
    /// The protocol has no ports, or it is ICMP other than echo.
    NoPorts,
    /// The quoted header contradicts itself.
    Malformed,
    /// The quoted packet is a fragment other than the first.
    LaterFragment,
}

impl fmt::Display for EmbeddedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "quoted packet is cut before its ports",
            Self::NoPorts => "quoted packet has no ports",
            Self::Malformed => "quoted packet is malformed",
            Self::LaterFragment => "quoted packet is a later fragment",
        })
    }
}

impl core::error::Error for EmbeddedError {}

/// A quoted packet, as far as its IP header tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted<'a> {
    /// Source address; IPv4 as `::ffff:a.b.c.d`.
    pub source: [u8; 16],
    /// Destination address; IPv4 as `::ffff:a.b.c.d`.
    pub destination: [u8; 16],
    /// Protocol number of its transport header.
    pub protocol: u8,
    /// Length of the whole packet in bytes, as its header states it: mostly more than is quoted.
    pub length: usize,
    /// It must not be fragmented on its way: DF is set, or it is of IPv6.
    pub dont_fragment: bool,
    /// It is a fragment other than the first: what follows the header is no transport header.
    pub is_later_fragment: bool,
    /// Where its transport header stands, in bytes from the beginning of the quotation.
    pub transport_offset: usize,
    /// What is quoted from there on; perhaps nothing.
    pub transport: &'a [u8],
    version: IpVersion,
}

impl<'a> Quoted<'a> {
    /// Reads the IPv4 header that an ICMP error quotes; `quoted` is what [`icmp::embedded`] gives,
    /// or what follows a tunnel's header in such a quotation.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Truncated`] within the header, or [`EmbeddedError::Malformed`].
    pub fn parse_v4(quoted: &'a [u8]) -> Result<Self, EmbeddedError> {
        let header =
            quoted.first_chunk::<{ ipv4::HEADER_LEN }>().ok_or(EmbeddedError::Truncated)?;
        let version_ihl = field::u8_at::<{ ipv4::VERSION_IHL }, _>(header);
        let header_len = usize::from(version_ihl & 0x0f) * 4;
        let length = usize::from(field::u16_at::<{ ipv4::TOTAL_LEN }, _>(header));
        if version_ihl >> 4 != 4 || header_len < ipv4::HEADER_LEN || length < header_len {
            return Err(EmbeddedError::Malformed);
        }
        let fragment = field::u16_at::<{ ipv4::FRAGMENT }, _>(header);
        // What follows the packet in the quotation, such as padding, is no part of it.
        let packet = quoted.get(..length).unwrap_or(quoted);
        Ok(Self {
            source: flow::mapped(*field::array::<{ ipv4::SOURCE }, 4, _>(header)),
            destination: flow::mapped(*field::array::<{ ipv4::DESTINATION }, 4, _>(header)),
            protocol: field::u8_at::<{ ipv4::PROTOCOL }, _>(header),
            length,
            dont_fragment: fragment & ipv4::DONT_FRAGMENT != 0,
            is_later_fragment: fragment & ipv4::FRAGMENT_OFFSET != 0,
            transport_offset: header_len,
            transport: packet.get(header_len..).ok_or(EmbeddedError::Truncated)?,
            version: IpVersion::V4,
        })
    }

    /// Reads the IPv6 header that an ICMPv6 error quotes, and the extension headers behind it;
    /// `quoted` is what [`icmpv6::embedded`] gives, or what follows a tunnel's header in such a
    /// quotation.
    ///
    /// # Errors
    ///
    /// [`EmbeddedError::Truncated`] within the headers, or [`EmbeddedError::Malformed`].
    pub fn parse_v6(quoted: &'a [u8]) -> Result<Self, EmbeddedError> {
        let (header, rest) =
            quoted.split_first_chunk::<{ ipv6::HEADER_LEN }>().ok_or(EmbeddedError::Truncated)?;
        if field::u8_at::<0, _>(header) >> 4 != 6 {
            return Err(EmbeddedError::Malformed);
        }
        let payload_len = usize::from(field::u16_at::<{ ipv6::PAYLOAD_LEN }, _>(header));
        let payload = rest.get(..payload_len).unwrap_or(rest);
        let next_header = field::u8_at::<{ ipv6::NEXT_HEADER }, _>(header);
        let upper = match ipv6::walk_extensions(next_header, payload) {
            Ok(upper) => upper,
            Err(ipv6::ExtensionError::Truncated) => return Err(EmbeddedError::Truncated),
            Err(_) => return Err(EmbeddedError::Malformed),
        };
        Ok(Self {
            source: *field::array::<{ ipv6::SOURCE }, 16, _>(header),
            destination: *field::array::<{ ipv6::DESTINATION }, 16, _>(header),
            protocol: upper.protocol,
            length: ipv6::HEADER_LEN + payload_len,
            dont_fragment: true,
            is_later_fragment: upper.is_later_fragment(),
            transport_offset: ipv6::HEADER_LEN + upper.offset,
            transport: payload.get(upper.offset..).ok_or(EmbeddedError::Truncated)?,
            version: IpVersion::V6,
        })
    }

    /// The flow that the packet belongs to.
    ///
    /// # Errors
    ///
    /// See [`EmbeddedError`].
    pub fn flow(&self) -> Result<EmbeddedFlow, EmbeddedError> {
        if self.is_later_fragment {
            return Err(EmbeddedError::LaterFragment);
        }
        let (source_port, destination_port) = ports(self.protocol, self.transport, self.version)?;
        let &Self { source, destination, protocol, transport_offset, .. } = self;
        Ok(EmbeddedFlow {
            source,
            destination,
            protocol,
            source_port,
            destination_port,
            transport_offset,
        })
    }

    /// Whether it is an ICMP error itself; false for one that is cut before its type.
    #[must_use]
    pub fn is_icmp_error(&self) -> bool {
        match (self.version, self.protocol, self.transport) {
            (IpVersion::V4, protocol::ICMP, [kind, ..]) => icmp::is_error(*kind),
            (IpVersion::V6, protocol::ICMPV6, [kind, ..]) => icmpv6::is_error(*kind),
            _ => false,
        }
    }
}

/// The flow of the IPv4 packet that an ICMP error quotes; `quoted` is what
/// [`icmp::embedded`] gives.
///
/// # Errors
///
/// See [`EmbeddedError`].
pub fn parse_embedded_v4(quoted: &[u8]) -> Result<EmbeddedFlow, EmbeddedError> {
    Quoted::parse_v4(quoted)?.flow()
}

/// The flow of the IPv6 packet that an ICMPv6 error quotes, behind its extension headers; `quoted`
/// is what [`icmpv6::embedded`] gives.
///
/// # Errors
///
/// See [`EmbeddedError`].
pub fn parse_embedded_v6(quoted: &[u8]) -> Result<EmbeddedFlow, EmbeddedError> {
    Quoted::parse_v6(quoted)?.flow()
}

/// The ports of the transport header, or the echo identifier as both.
fn ports(protocol: u8, transport: &[u8], version: IpVersion) -> Result<(u16, u16), EmbeddedError> {
    if protocol::has_ports(protocol) {
        return udp::ports(transport).ok_or(EmbeddedError::Truncated);
    }
    let (is_echo, identifier) = match (version, protocol, transport) {
        (IpVersion::V4, protocol::ICMP, [kind, ..]) => {
            (icmp::is_echo(*kind), icmp::echo_identifier(transport))
        }
        (IpVersion::V6, protocol::ICMPV6, [kind, ..]) => {
            (icmpv6::is_echo(*kind), icmpv6::echo_identifier(transport))
        }
        (IpVersion::V4, protocol::ICMP, []) | (IpVersion::V6, protocol::ICMPV6, []) => {
            return Err(EmbeddedError::Truncated);
        }
        _ => return Err(EmbeddedError::NoPorts),
    };
    match identifier {
        Some(identifier) => Ok((identifier, identifier)),
        None if is_echo => Err(EmbeddedError::Truncated),
        None => Err(EmbeddedError::NoPorts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ipv4Repr, Ipv6Repr};
    use std::vec;
    use std::vec::Vec;

    const TO: [u8; 4] = [198, 51, 100, 1];
    const FROM: [u8; 4] = [192, 0, 2, 7];

    fn v4(protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        Ipv4Repr {
            source: FROM,
            destination: TO,
            protocol,
            ttl: 3,
            traffic_class: 0,
            dont_fragment: true,
            identification: 1,
            payload_len: 1400,
        }
        .emit(packet.first_chunk_mut().unwrap());
        packet[10] ^= 0xff; // The checksum of a quoted header is not judged.
        packet.extend_from_slice(transport);
        packet
    }

    fn v6(next_header: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 40];
        Ipv6Repr {
            source: [0x20; 16],
            destination: [0x21; 16],
            next_header,
            hop_limit: 3,
            traffic_class: 0,
            flow_label: 0,
            payload_len: 1400,
        }
        .emit(packet.first_chunk_mut().unwrap());
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn ports_of_the_shortest_quotation() {
        let ports = [0xc3, 0x50, 0x01, 0xbb];
        for protocol in [protocol::TCP, protocol::UDP] {
            let flow = parse_embedded_v4(&v4(protocol, &ports)).unwrap();
            assert_eq!(
                flow,
                EmbeddedFlow {
                    source: flow::mapped(FROM),
                    destination: flow::mapped(TO),
                    protocol,
                    source_port: 50_000,
                    destination_port: 443,
                    transport_offset: 20,
                }
            );
            let flow = parse_embedded_v6(&v6(protocol, &ports)).unwrap();
            assert_eq!(
                flow,
                EmbeddedFlow {
                    source: [0x20; 16],
                    destination: [0x21; 16],
                    protocol,
                    source_port: 50_000,
                    destination_port: 443,
                    transport_offset: 40,
                }
            );
        }
    }

    #[test]
    fn every_shorter_quotation_is_truncated() {
        let whole4 = v4(protocol::UDP, &[1, 2, 3, 4]);
        for len in 0..whole4.len() {
            assert_eq!(parse_embedded_v4(&whole4[..len]), Err(EmbeddedError::Truncated));
        }
        let whole6 = v6(protocol::ROUTING, &[17, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
        for len in 0..whole6.len() {
            assert_eq!(parse_embedded_v6(&whole6[..len]), Err(EmbeddedError::Truncated));
        }
        assert_eq!(parse_embedded_v6(&whole6).unwrap().transport_offset, 48);
    }

    #[test]
    fn echoes_give_their_identifier_twice() {
        for kind in [icmp::ECHO_REQUEST, icmp::ECHO_REPLY] {
            let packet = v4(protocol::ICMP, &[kind, 0, 0, 0, 0x12, 0x34]);
            let flow = parse_embedded_v4(&packet).unwrap();
            assert_eq!((flow.source_port, flow.destination_port), (0x1234, 0x1234));
            for len in 20..packet.len() {
                assert_eq!(parse_embedded_v4(&packet[..len]), Err(EmbeddedError::Truncated));
            }
        }
        for kind in [icmpv6::ECHO_REQUEST, icmpv6::ECHO_REPLY] {
            let packet = v6(protocol::ICMPV6, &[kind, 0, 0, 0, 0x12, 0x34]);
            let flow = parse_embedded_v6(&packet).unwrap();
            assert_eq!((flow.source_port, flow.destination_port), (0x1234, 0x1234));
            for len in 40..packet.len() {
                assert_eq!(parse_embedded_v6(&packet[..len]), Err(EmbeddedError::Truncated));
            }
        }
    }

    #[test]
    fn what_has_no_ports() {
        let transport = [3, 0, 0, 0, 0, 0, 0, 0];
        for protocol in [protocol::GRE, protocol::ESP, protocol::ICMP, protocol::ICMPV6] {
            let result = parse_embedded_v4(&v4(protocol, &transport));
            assert_eq!(result, Err(EmbeddedError::NoPorts), "protocol {protocol}");
        }
        // An ICMP of the other IP version is no ICMP.
        let echo = [8, 0, 0, 0, 0x12, 0x34, 0, 1];
        assert_eq!(parse_embedded_v6(&v6(protocol::ICMP, &echo)), Err(EmbeddedError::NoPorts));
        for next in [protocol::ESP, protocol::NO_NEXT_HEADER, protocol::ICMPV6] {
            let result = parse_embedded_v6(&v6(next, &transport));
            assert_eq!(result, Err(EmbeddedError::NoPorts), "next header {next}");
        }
    }

    #[test]
    fn fragments() {
        let ports = [0xc3, 0x50, 0x01, 0xbb];
        let mut packet = v4(protocol::UDP, &ports);
        packet[6] = 0x20;
        assert!(parse_embedded_v4(&packet).is_ok(), "the first one has ports");
        packet[7] = 1;
        assert_eq!(parse_embedded_v4(&packet), Err(EmbeddedError::LaterFragment));

        let mut fragment = [17, 0, 0, 1, 0, 0, 0, 9, 0xc3, 0x50, 0x01, 0xbb];
        let flow = parse_embedded_v6(&v6(protocol::FRAGMENT, &fragment)).unwrap();
        assert_eq!((flow.source_port, flow.protocol), (50_000, 17));
        fragment[3] = 9;
        let result = parse_embedded_v6(&v6(protocol::FRAGMENT, &fragment));
        assert_eq!(result, Err(EmbeddedError::LaterFragment));
    }

    #[test]
    fn headers_that_contradict_themselves() {
        let good = v4(protocol::UDP, &[1, 2, 3, 4]);
        for (at, value) in [(0, 0x65), (0, 0x44), (3, 0)] {
            let mut bad = good.clone();
            bad[2] = 0;
            bad[3] = 24;
            assert!(parse_embedded_v4(&bad).is_ok());
            bad[at] = value;
            assert_eq!(parse_embedded_v4(&bad), Err(EmbeddedError::Malformed), "byte {at}");
        }
        let mut bad = v6(protocol::UDP, &[1, 2, 3, 4]);
        bad[0] = 0x40;
        assert_eq!(parse_embedded_v6(&bad), Err(EmbeddedError::Malformed));
        let chain = [0, 0, 0, 0, 0, 0, 0, 0];
        let result = parse_embedded_v6(&v6(protocol::ROUTING, &chain));
        assert_eq!(result, Err(EmbeddedError::Malformed), "hop-by-hop after routing");
    }

    #[test]
    fn padding_is_not_taken_for_ports() {
        let mut packet = v4(protocol::UDP, &[1, 2, 3, 4]);
        packet[2..4].copy_from_slice(&22u16.to_be_bytes());
        assert_eq!(parse_embedded_v4(&packet), Err(EmbeddedError::Truncated));
        let mut packet = v6(protocol::UDP, &[1, 2, 3, 4]);
        packet[4..6].copy_from_slice(&2u16.to_be_bytes());
        assert_eq!(parse_embedded_v6(&packet), Err(EmbeddedError::Truncated));
    }
}
