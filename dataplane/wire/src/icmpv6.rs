//! ICMP for IPv6, RFC 4443: what a message is about, and the errors that a router sends.
//!
//! ```text
//!  0      1      2             4                           8
//!  +------+------+-------------+---------------------------+------------------------
//!  | type | code | checksum    | rest of header            | quoted packet, or data
//!  +------+------+-------------+---------------------------+------------------------
//! ```
//!
//! Deliberately absent: whether an error may be sent at all, and how often (RFC 4443 section 2.4).
//! That is decided in `forward`.

use crate::ipv6::{self, Ipv6Repr};
use crate::{checksum, field, protocol};

pub use crate::embedded::{EmbeddedError, EmbeddedFlow, parse_embedded_v6};

/// Length of the header in bytes, rest of header included.
pub const HEADER_LEN: usize = 8;

/// Destination unreachable.
pub const DESTINATION_UNREACHABLE: u8 = 1;
/// Packet too big; the rest of the header is the MTU.
pub const PACKET_TOO_BIG: u8 = 2;
/// Time exceeded.
pub const TIME_EXCEEDED: u8 = 3;
/// Parameter problem.
pub const PARAMETER_PROBLEM: u8 = 4;
/// Echo request.
pub const ECHO_REQUEST: u8 = 128;
/// Echo reply.
pub const ECHO_REPLY: u8 = 129;
/// Router solicitation, RFC 4861.
pub const ROUTER_SOLICITATION: u8 = 133;
/// Router advertisement, RFC 4861.
pub const ROUTER_ADVERTISEMENT: u8 = 134;
/// Neighbor solicitation, RFC 4861.
pub const NEIGHBOR_SOLICITATION: u8 = 135;
/// Neighbor advertisement, RFC 4861.
pub const NEIGHBOR_ADVERTISEMENT: u8 = 136;
/// Redirect, RFC 4861. Unlike that of IPv4 it is no error.
pub const REDIRECT: u8 = 137;

/// Destination unreachable: no route.
pub const CODE_NO_ROUTE: u8 = 0;
/// Destination unreachable: administratively prohibited.
pub const CODE_PROHIBITED: u8 = 1;
/// Destination unreachable: the neighbor does not answer.
pub const CODE_ADDRESS_UNREACHABLE: u8 = 3;
/// Destination unreachable: the source address failed the ingress or egress policy.
pub const CODE_SOURCE_POLICY: u8 = 5;
/// Time exceeded: the hop limit ran out in transit.
pub const CODE_HOP_LIMIT_EXCEEDED: u8 = 0;
/// Parameter problem: a next header is not known, or is the hop-by-hop options' where those must not be
/// (RFC 8200 section 4).
pub const CODE_NEXT_HEADER: u8 = 1;
/// Parameter problem: the extension headers have too many bytes for a router on the way (RFC 8883).
pub const CODE_CHAIN_TOO_LONG: u8 = 7;
/// Parameter problem: there are too many extension headers for a router on the way (RFC 8883).
pub const CODE_TOO_MANY_HEADERS: u8 = 8;
/// Parameter problem: an IPv6 option is not known.
pub const CODE_UNKNOWN_OPTION: u8 = 2;

/// The most bytes of an error message, IP header included. RFC 4443 section 2.4(c): "as much of
/// the IPv6 offending (invoking) packet [...] as possible without making the error message packet
/// exceed the minimum IPv6 MTU".
pub const ERROR_LEN_MAX: usize = 1280;

const CHECKSUM: usize = 2;
const IDENTIFIER: usize = 4;
const REST_OF_HEADER: usize = 4;
const LENGTH: usize = 4;

/// The message is about another packet, which it quotes. RFC 4443 section 2.1: "Error messages are
/// identified as such by a zero in the high-order bit of their message Type field values."
#[inline]
#[must_use]
pub const fn is_error(kind: u8) -> bool {
    kind < 128
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

/// The MTU in bytes of a "packet too big" (RFC 4443 section 3.2); `None` for any other message.
#[inline]
#[must_use]
pub fn mtu(message: &[u8]) -> Option<u32> {
    let header = message.first_chunk::<HEADER_LEN>()?;
    (field::u8_at::<0, _>(header) == PACKET_TOO_BIG)
        .then_some(field::u32_at::<REST_OF_HEADER, _>(header))
}

/// The packet that an error quotes, without the extensions that may follow it; `None` if the
/// message is no error or has no header.
///
/// RFC 4884 section 4: in types 1 and 3 the length attribute counts the padded "original
/// datagram" field in 64-bit words, and 0 says that there are no extensions. A length beyond the
/// message leaves the message as its end.
#[inline]
#[must_use]
pub fn embedded(message: &[u8]) -> Option<&[u8]> {
    let (header, quoted) = message.split_first_chunk::<HEADER_LEN>()?;
    let [kind, ..] = *header;
    if !is_error(kind) {
        return None;
    }
    let has_length = matches!(kind, DESTINATION_UNREACHABLE | TIME_EXCEEDED);
    let len = if has_length { usize::from(field::u8_at::<LENGTH, _>(header)) * 8 } else { 0 };
    match len {
        0 => Some(quoted),
        len => Some(quoted.get(..len).unwrap_or(quoted)),
    }
}

/// An error message, all but the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorRepr {
    /// The router's address on the interface that the message leaves by.
    pub source: [u8; 16],
    /// The source of the packet that the message is about.
    pub destination: [u8; 16],
    /// ICMPv6 type.
    pub kind: u8,
    /// ICMPv6 code.
    pub code: u8,
    /// Bytes 4 to 7 of the ICMPv6 header: the MTU for "packet too big", a pointer for "parameter
    /// problem", else 0.
    pub rest: u32,
}

const ERROR_HOP_LIMIT: u8 = 64;

/// Writes a whole IPv6 packet, IP header first, that carries `error` and quotes as much of
/// `original`, the packet that it is about from its IP header on, as [`ERROR_LEN_MAX`] permits.
/// Padding after the original's payload length is not quoted.
///
/// Gives the length in bytes, or `None` if `out` is too small; then `out` is untouched.
#[must_use]
pub fn emit_error_v6(out: &mut [u8], error: &ErrorRepr, original: &[u8]) -> Option<usize> {
    const QUOTE_MAX: usize = ERROR_LEN_MAX - ipv6::HEADER_LEN - HEADER_LEN;
    let total_len = original.first_chunk::<{ ipv6::HEADER_LEN }>().map(|header| {
        ipv6::HEADER_LEN + usize::from(field::u16_at::<{ ipv6::PAYLOAD_LEN }, _>(header))
    });
    let original = total_len.and_then(|len| original.get(..len)).unwrap_or(original);
    let quoted = original.get(..QUOTE_MAX).unwrap_or(original);

    let message_len = u16::try_from(HEADER_LEN + quoted.len()).ok()?;
    let out = out.get_mut(..ipv6::HEADER_LEN + usize::from(message_len))?;
    let len = out.len();
    let (ip, message) = out.split_first_chunk_mut::<{ ipv6::HEADER_LEN }>()?;
    let (header, body) = message.split_first_chunk_mut::<HEADER_LEN>()?;
    Ipv6Repr {
        source: error.source,
        destination: error.destination,
        next_header: protocol::ICMPV6,
        hop_limit: ERROR_HOP_LIMIT,
        traffic_class: 0,
        flow_label: 0,
        payload_len: message_len,
    }
    .emit(ip);
    let [a, b, c, d] = error.rest.to_be_bytes();
    *header = [error.kind, error.code, 0, 0, a, b, c, d];
    // Of the same length: `out` was cut to it.
    body.copy_from_slice(quoted);
    // RFC 4443 section 2.3: the checksum covers a pseudo header too, unlike that of ICMP.
    let pseudo_header = checksum::pseudo_header_v6(
        &error.source,
        &error.destination,
        protocol::ICMPV6,
        u32::from(message_len),
    );
    let checksum = !checksum::fold(checksum::ones_complement_sum(message, pseudo_header));
    let (header, _) = message.split_first_chunk_mut::<HEADER_LEN>()?;
    field::set_u16::<CHECKSUM, _>(header, checksum);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Ipv6;
    use std::vec;
    use std::vec::Vec;

    const ERROR: ErrorRepr = ErrorRepr {
        source: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        destination: [0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        kind: PACKET_TOO_BIG,
        code: 0,
        rest: 1452,
    };

    fn original(len: u16) -> Vec<u8> {
        let mut packet: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
        Ipv6Repr {
            source: ERROR.destination,
            destination: ERROR.source,
            next_header: protocol::UDP,
            hop_limit: 1,
            traffic_class: 0,
            flow_label: 0,
            payload_len: len - 40,
        }
        .emit(packet.first_chunk_mut().unwrap());
        packet
    }

    fn is_valid(ipv6: &Ipv6<'_>) -> bool {
        let len = u32::from(ipv6.payload_len());
        let pseudo = checksum::pseudo_header_v6(ipv6.source(), ipv6.destination(), 58, len);
        checksum::fold(checksum::ones_complement_sum(ipv6.payload(), pseudo)) == 0xffff
    }

    #[test]
    fn errors_and_echoes() {
        for kind in 0..=255 {
            assert_eq!(is_error(kind), kind <= 127);
            assert_eq!(is_echo(kind), kind == 128 || kind == 129);
        }
        assert_eq!(echo_identifier(&[128, 0, 0, 0, 0x12, 0x34]), Some(0x1234));
        assert_eq!(echo_identifier(&[129, 0, 0, 0, 0x12, 0x34, 0]), Some(0x1234));
        assert_eq!(echo_identifier(&[135, 0, 0, 0, 0x12, 0x34]), None);
        assert_eq!(echo_identifier(&[128, 0, 0, 0, 0x12]), None);
    }

    #[test]
    fn an_original_is_quoted_up_to_1280_bytes_in_all() {
        let mut out = [0xaa; 2000];
        for len in [40, 60, 1231, 1232, 1233, 1500] {
            let original = original(len);
            let mut padded = original.clone();
            padded.extend_from_slice(&[0; 6]);
            let emitted = emit_error_v6(&mut out, &ERROR, &padded).unwrap();
            assert_eq!(emitted, 1280.min(48 + usize::from(len)));
            let ipv6 = Ipv6::parse(&out[..emitted]).unwrap();
            assert_eq!((ipv6.source(), ipv6.destination()), (&ERROR.source, &ERROR.destination));
            assert_eq!((ipv6.next_header(), ipv6.hop_limit()), (58, 64));
            assert!(is_valid(&ipv6), "original of {len} bytes");
            assert_eq!(mtu(ipv6.payload()), Some(1452));
            assert_eq!(embedded(ipv6.payload()).unwrap(), &original[..emitted - 48]);
        }
    }

    #[test]
    fn a_buffer_that_is_too_small_is_untouched() {
        let original = original(48);
        for len in 0..96 {
            let mut out = vec![0xaa; len];
            assert_eq!(emit_error_v6(&mut out, &ERROR, &original), None);
            assert!(out.iter().all(|&byte| byte == 0xaa));
        }
        assert_eq!(emit_error_v6(&mut [0; 96], &ERROR, &original), Some(96));
    }

    /// RFC 4884: the length attribute tells the quotation from the extensions.
    #[test]
    fn extensions_are_not_quoted_packet() {
        let mut message = vec![0; 8 + 128 + 12];
        for (kind, has_length) in [(1, true), (3, true), (2, false), (4, false)] {
            message[0] = kind;
            message[4] = 16;
            let expected = if has_length { 128 } else { 140 };
            assert_eq!(embedded(&message).unwrap().len(), expected, "type {kind}");
            message[4] = 0;
            assert_eq!(embedded(&message).unwrap().len(), 140, "type {kind}");
            message[4] = 255;
            assert_eq!(embedded(&message).unwrap().len(), 140, "type {kind}");
        }
        assert_eq!(embedded(&message[..7]), None);
        message[0] = ECHO_REPLY;
        assert_eq!(embedded(&message), None);
    }
}
