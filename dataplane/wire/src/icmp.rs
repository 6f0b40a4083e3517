//! ICMP for IPv4, RFC 792: what a message is about, and the errors that a router sends.
//!
//! ```text
//!  0      1      2             4                           8
//!  +------+------+-------------+---------------------------+------------------------
//!  | type | code | checksum    | rest of header            | quoted packet, or data
//!  +------+------+-------------+---------------------------+------------------------
//! ```
//!
//! Deliberately absent: whether an error may be sent at all, and how often (RFC 1812 sections
//! 4.3.2.7 and 4.3.2.8). That is decided in `forward`.

use crate::ipv4::{self, Ipv4Repr};
use crate::{checksum, field, protocol};

pub use crate::embedded::{EmbeddedError, EmbeddedFlow, parse_embedded_v4};

/// Length of the header in bytes, rest of header included.
pub const HEADER_LEN: usize = 8;

/// Echo reply.
pub const ECHO_REPLY: u8 = 0;
/// Destination unreachable; the codes are `CODE_*_UNREACHABLE` and the like.
pub const DESTINATION_UNREACHABLE: u8 = 3;
/// Source quench, deprecated by RFC 6633.
pub const SOURCE_QUENCH: u8 = 4;
/// Redirect.
pub const REDIRECT: u8 = 5;
/// Echo request.
pub const ECHO_REQUEST: u8 = 8;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 11;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 12;

/// Destination unreachable: no route to the network.
pub const CODE_NETWORK_UNREACHABLE: u8 = 0;
/// Destination unreachable: the host does not answer.
pub const CODE_HOST_UNREACHABLE: u8 = 1;
/// Destination unreachable: the packet is too big and must not be fragmented (RFC 1191).
pub const CODE_FRAGMENTATION_NEEDED: u8 = 4;
/// Destination unreachable: administratively prohibited (RFC 1812 section 5.2.7.1).
pub const CODE_PROHIBITED: u8 = 13;
/// Time exceeded: the TTL ran out in transit.
pub const CODE_TTL_EXCEEDED: u8 = 0;
/// Parameter problem: the pointer says where (RFC 792).
pub const CODE_POINTER: u8 = 0;

/// The most bytes of an error message, IP header included. RFC 1812 section 4.3.2.3: "the ICMP
/// datagram SHOULD contain as much of the original datagram as possible without the length of the
/// ICMP datagram exceeding 576 bytes".
pub const ERROR_LEN_MAX: usize = 576;

const CHECKSUM: usize = 2;
const IDENTIFIER: usize = 4;
const LENGTH: usize = 5;
const MTU: usize = 6;

/// The message is about another packet, which it quotes: RFC 1812 section 4.3.1's error messages.
#[inline]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    matches!(
        kind,
        DESTINATION_UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER_PROBLEM
    )
}

/// The message is an echo request or reply.
#[inline]
#[must_use]
pub const fn is_echo(kind: u8) -> bool {
    matches!(kind, ECHO_REQUEST | ECHO_REPLY)
}

/// The identifier of an echo request or reply, which stands for a port; `None` for any other
/// message and below 6 bytes.
#[inline]
#[must_use]
pub fn echo_identifier(message: &[u8]) -> Option<u16> {
    let header = message.first_chunk::<6>()?;
    is_echo(field::u8_at::<0, _>(header)).then_some(field::u16_at::<IDENTIFIER, _>(header))
}

/// The next-hop MTU in bytes of a "fragmentation needed" (RFC 1191 section 4), which is 0 if a
/// router older than that sent it; `None` for any other message.
#[inline]
#[must_use]
pub fn next_hop_mtu(message: &[u8]) -> Option<u16> {
    let header = message.first_chunk::<HEADER_LEN>()?;
    let [kind, code, ..] = *header;
    ((kind, code) == (DESTINATION_UNREACHABLE, CODE_FRAGMENTATION_NEEDED))
        .then_some(field::u16_at::<MTU, _>(header))
}

/// The packet that an error quotes, without the extensions that may follow it; `None` if the
/// message is no error or has no header.
///
/// RFC 4884 section 4: in types 3, 11 and 12 the length attribute is that of the padded "original
/// datagram" field in 32-bit words, and 0 says that there are no extensions. A length beyond the
/// message leaves the message as its end.
#[inline]
#[must_use]
pub fn embedded(message: &[u8]) -> Option<&[u8]> {
    let (header, quoted) = message.split_first_chunk::<HEADER_LEN>()?;
    let [kind, ..] = *header;
    if !is_error(kind) {
        return None;
    }
    let has_length = matches!(kind, DESTINATION_UNREACHABLE | TIME_EXCEEDED | PARAMETER_PROBLEM);
    let len = if has_length { usize::from(field::u8_at::<LENGTH, _>(header)) * 4 } else { 0 };
    match len {
        0 => Some(quoted),
        len => Some(quoted.get(..len).unwrap_or(quoted)),
    }
}

/// An error message, all but the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRepr {
    /// The router's address on the interface that the message leaves by.
    pub source: [u8; 4],
    /// The source of the packet that the message is about.
    pub destination: [u8; 4],
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// Bytes 4 to 7 of the ICMP header: the MTU for "fragmentation needed", else 0.
    pub rest: u32,
}

/// Precedence 6, internetwork control. RFC 1812 section 4.3.2.5: "All other ICMP error messages
/// (Destination Unreachable, Redirect, Time Exceeded, and Parameter Problem) SHOULD have their
/// precedence value set to 6 (INTERNETWORK CONTROL) or 7 (NETWORK CONTROL)."
const ERROR_TRAFFIC_CLASS: u8 = 0xc0;
const ERROR_TTL: u8 = 64;

/// Writes a whole IPv4 packet, IP header first, that carries `error` and quotes as much of
/// `original`, the packet that it is about from its IP header on, as [`ERROR_LEN_MAX`] permits.
/// Padding after the original's total length is not quoted.
///
/// The packet is one that is never fragmented (DF), so that its identification may be 0 (RFC 6864
/// section 4.1). Gives the length in bytes, or `None` if `out` is too small; then `out` is
/// untouched.
#[must_use]
pub fn emit_error_v4(out: &mut [u8], error: &ErrorRepr, original: &[u8]) -> Option<usize> {
    const QUOTE_MAX: usize = ERROR_LEN_MAX - ipv4::HEADER_LEN - HEADER_LEN;
    let total_len = original.first_chunk::<{ ipv4::HEADER_LEN }>().map(|header| {
        usize::from(field::u16_at::<{ ipv4::TOTAL_LEN }, _>(header)).max(ipv4::HEADER_LEN)
    });
    let original = total_len.and_then(|len| original.get(..len)).unwrap_or(original);
    let quoted = original.get(..QUOTE_MAX).unwrap_or(original);

    let message_len = HEADER_LEN + quoted.len();
    let out = out.get_mut(..ipv4::HEADER_LEN + message_len)?;
    let (ip, message) = out.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
    let (header, body) = message.split_first_chunk_mut::<HEADER_LEN>()?;
    Ipv4Repr {
        source: error.source,
        destination: error.destination,
        protocol: protocol::ICMP,
        ttl: ERROR_TTL,
        traffic_class: ERROR_TRAFFIC_CLASS,
        dont_fragment: true,
        identification: 0,
        payload_len: u16::try_from(message_len).ok()?,
    }
    .emit(ip);
    let [a, b, c, d] = error.rest.to_be_bytes();
    *header = [error.kind, error.code, 0, 0, a, b, c, d];
    // Of the same length: `out` was cut to it.
    body.copy_from_slice(quoted);
    let checksum = checksum::internet_checksum(message);
    let (header, _) = message.split_first_chunk_mut::<HEADER_LEN>()?;
    field::set_u16::<CHECKSUM, _>(header, checksum);
    Some(ipv4::HEADER_LEN + message_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ipv4;
    use std::vec;
    use std::vec::Vec;

    const ERROR: ErrorRepr = ErrorRepr {
        source: [192, 0, 2, 1],
        destination: [10, 0, 0, 7],
        kind: DESTINATION_UNREACHABLE,
        code: CODE_FRAGMENTATION_NEEDED,
        rest: 1400,
    };

    fn original(len: u16) -> Vec<u8> {
        let mut packet: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        Ipv4Repr {
            source: [10, 0, 0, 7],
            destination: [198, 51, 100, 1],
            protocol: protocol::UDP,
            ttl: 1,
            traffic_class: 0,
            dont_fragment: true,
            identification: 9,
            payload_len: len - 20,
        }
        .emit(packet.first_chunk_mut().unwrap());
        packet
    }

    #[test]
    fn errors_and_echoes() {
        let errors: Vec<u8> = (0..=255).filter(|&kind| is_error(kind)).collect();
        assert_eq!(errors, [3, 4, 5, 11, 12]);
        let echoes: Vec<u8> = (0..=255).filter(|&kind| is_echo(kind)).collect();
        assert_eq!(echoes, [0, 8]);
        assert_eq!(echo_identifier(&[8, 0, 0, 0, 0x12, 0x34]), Some(0x1234));
        assert_eq!(echo_identifier(&[0, 0, 0, 0, 0x12, 0x34, 0, 1]), Some(0x1234));
        assert_eq!(echo_identifier(&[13, 0, 0, 0, 0x12, 0x34, 0, 1]), None);
        assert_eq!(echo_identifier(&[8, 0, 0, 0, 0x12]), None);
    }

    #[test]
    fn a_short_original_is_quoted_whole() {
        let original = original(60);
        let mut padded = original.clone();
        padded.extend_from_slice(&[0; 10]);
        let mut out = [0xaa; 100];
        let len = emit_error_v4(&mut out, &ERROR, &padded).unwrap();
        assert_eq!(len, 20 + 8 + 60, "padding is not quoted");
        assert_eq!(out[len..], [0xaa; 100 - 88]);

        let ipv4 = Ipv4::parse(&out[..len]).unwrap();
        assert_eq!((ipv4.source(), ipv4.destination()), (ERROR.source, ERROR.destination));
        assert_eq!((ipv4.protocol(), ipv4.ttl(), ipv4.traffic_class()), (1, 64, 0xc0));
        assert!(ipv4.dont_fragment());
        let message = ipv4.payload();
        assert_eq!(checksum::internet_checksum(message), 0);
        assert_eq!(message[..2], [3, 4]);
        assert_eq!(next_hop_mtu(message), Some(1400));
        assert_eq!(embedded(message), Some(&original[..]));
    }

    #[test]
    fn a_long_original_is_cut_at_576_bytes_in_all() {
        let mut out = [0; 2000];
        for len in [547, 548, 549, 1500] {
            let original = original(len);
            let emitted = emit_error_v4(&mut out, &ERROR, &original).unwrap();
            assert_eq!(emitted, 576.min(28 + usize::from(len)));
            let message = Ipv4::parse(&out[..emitted]).unwrap().payload();
            assert_eq!(checksum::internet_checksum(message), 0);
            assert_eq!(embedded(message).unwrap(), &original[..emitted - 28]);
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_untouched() {
        let original = original(40);
        for len in 0..68 {
            let mut out = vec![0xaa; len];
            assert_eq!(emit_error_v4(&mut out, &ERROR, &original), None);
            assert!(out.iter().all(|&byte| byte == 0xaa));
        }
        assert_eq!(emit_error_v4(&mut [0; 68], &ERROR, &original), Some(68));
    }

    /// RFC 4884: the length attribute tells the quotation from the extensions.
    #[test]
    fn extensions_are_not_quoted_packet() {
        let mut message = vec![0; 8 + 128 + 12];
        for (kind, has_length) in [(3, true), (11, true), (12, true), (4, false), (5, false)] {
            message[0] = kind;
            message[5] = 32;
            let expected = if has_length { 128 } else { 140 };
            assert_eq!(embedded(&message).unwrap().len(), expected, "type {kind}");
            message[5] = 0;
            assert_eq!(embedded(&message).unwrap().len(), 140, "type {kind}");
            message[5] = 255;
            assert_eq!(embedded(&message).unwrap().len(), 140, "type {kind}");
        }
        assert_eq!(embedded(&message[..8]), Some(&[][..]));
        assert_eq!(embedded(&message[..7]), None);
        message[0] = ECHO_REQUEST;
        assert_eq!(embedded(&message), None);
    }
}
