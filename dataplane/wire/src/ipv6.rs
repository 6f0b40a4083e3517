//! IPv6 headers, RFC 8200. The headers that may follow are walked in [`walk_extensions`].
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+---------------+---------------------------------------+
//! |Version| Traffic class |              Flow label               |
//! +-------+---------------+-------+---------------+---------------+
//! |        Payload length         |  Next header  |   Hop limit   |
//! +-------------------------------+---------------+---------------+
//! |                  Source address (16 bytes)                    |
//! +---------------------------------------------------------------+
//! |                Destination address (16 bytes)                 |
//! +---------------------------------------------------------------+
//! ```
//!
//! Invariant: the slices of an [`Ipv6`] end at the payload length.
//!
//! Deliberately absent: jumbograms (RFC 2675); a payload length of 0 is an empty payload.

use core::fmt;

use crate::field;

mod extensions;

pub use extensions::{
    EXTENSION_BYTES_MAX, EXTENSIONS_MAX, ExtensionError, FragmentHeader, Upper,
    locate_extension_error, walk_extensions,
};

/// Length of the fixed header in bytes.
pub const HEADER_LEN: usize = 40;

pub(crate) const PAYLOAD_LEN: usize = 4;
pub(crate) const NEXT_HEADER: usize = 6;
const HOP_LIMIT: usize = 7;
pub(crate) const SOURCE: usize = 8;
pub(crate) const DESTINATION: usize = 24;

const FLOW_LABEL: u32 = 0x000f_ffff;

/// Why bytes are not a valid IPv6 packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv6Error {
    /// Fewer bytes than the fixed header.
    Truncated,
    /// The version is not 6.
    Version,
    /// The payload length is above the bytes that there are.
    PayloadLength,
}

impl fmt::Display for Ipv6Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "shorter than an IPv6 header",
            Self::Version => "IP version is not 6",
            Self::PayloadLength => "IPv6 payload length is more than the packet holds",
        })
    }
}

impl core::error::Error for Ipv6Error {}

/// A view of an IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Ipv6<'a> {
    /// Checks version and lengths of `packet`, which begins with the fixed header and may end with
    /// padding.
    ///
    /// # Errors
    ///
    /// The first test that fails.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Ipv6Error> {
        let (header, rest) =
            packet.split_first_chunk::<HEADER_LEN>().ok_or(Ipv6Error::Truncated)?;
        if field::u8_at::<0, _>(header) >> 4 != 6 {
            return Err(Ipv6Error::Version);
        }
        let payload_len = usize::from(field::u16_at::<PAYLOAD_LEN, _>(header));
        let payload = rest.get(..payload_len).ok_or(Ipv6Error::PayloadLength)?;
        Ok(Self { header, payload })
    }

    /// The fixed header.
    #[inline]
    #[must_use]
    pub const fn header(&self) -> &'a [u8; HEADER_LEN] {
        self.header
    }

    /// Length of the packet, fixed header included, in bytes: up to 65,575.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// DSCP and ECN.
    #[inline]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        (field::u16_at::<0, _>(self.header) >> 4 & 0xff) as u8
    }

    /// The label that the source gave the flow, 20 bits (RFC 6437).
    #[inline]
    #[must_use]
    pub const fn flow_label(&self) -> u32 {
        field::u32_at::<0, _>(self.header) & FLOW_LABEL
    }

    /// Length of what follows the fixed header, in bytes.
    #[inline]
    #[must_use]
    pub const fn payload_len(&self) -> u16 {
        field::u16_at::<PAYLOAD_LEN, _>(self.header)
    }

    /// Protocol number of the header that follows the fixed one, see [`crate::protocol`].
    #[inline]
    #[must_use]
    pub const fn next_header(&self) -> u8 {
        field::u8_at::<NEXT_HEADER, _>(self.header)
    }

    /// Hops that are left.
    #[inline]
    #[must_use]
    pub const fn hop_limit(&self) -> u8 {
        field::u8_at::<HOP_LIMIT, _>(self.header)
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> &'a [u8; 16] {
        field::array::<SOURCE, 16, _>(self.header)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> &'a [u8; 16] {
        field::array::<DESTINATION, 16, _>(self.header)
    }

    /// What follows the fixed header, extension headers included, up to the payload length.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// What a fixed header says; every value has a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6Repr {
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
    /// Protocol number of what follows.
    pub next_header: u8,
    /// Hops that are left.
    pub hop_limit: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// 20 bits; higher bits are ignored.
    pub flow_label: u32,
    /// Length of what follows, in bytes.
    pub payload_len: u16,
}

impl Ipv6Repr {
    /// Writes the header.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        const VERSION_6: u32 = 6 << 28;
        let first = VERSION_6 | u32::from(self.traffic_class) << 20 | self.flow_label & FLOW_LABEL;
        field::set_u32::<0, _>(out, first);
        field::set_u16::<PAYLOAD_LEN, _>(out, self.payload_len);
        field::set_u8::<NEXT_HEADER, _>(out, self.next_header);
        field::set_u8::<HOP_LIMIT, _>(out, self.hop_limit);
        *field::array_mut::<SOURCE, 16, _>(out) = self.source;
        *field::array_mut::<DESTINATION, 16, _>(out) = self.destination;
    }
}

/// The address is IPv4-mapped, `::ffff:0:0/96` (RFC 4291 section 2.5.5.2): never right on a wire.
#[inline]
#[must_use]
pub fn is_ipv4_mapped(address: &[u8; 16]) -> bool {
    crate::flow::as_ipv4(address).is_some()
}

/// Writes the hop limit; an IPv6 header has no checksum to update.
#[inline]
pub fn write_hop_limit(header: &mut [u8; HEADER_LEN], hop_limit: u8) {
    field::set_u8::<HOP_LIMIT, _>(header, hop_limit);
}

/// Lowers the hop limit by one. The caller has seen a hop limit above 1; 0 stays 0.
#[inline]
pub fn decrement_hop_limit(header: &mut [u8; HEADER_LEN]) {
    let hop_limit = field::u8_at::<HOP_LIMIT, _>(header);
    write_hop_limit(header, hop_limit.saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPR: Ipv6Repr = Ipv6Repr {
        source: [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        destination: [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
        next_header: 58,
        hop_limit: 64,
        traffic_class: 0xb9,
        flow_label: 0x0abcde,
        payload_len: 3,
    };

    fn packet() -> [u8; 48] {
        let mut packet = [0xee; 48];
        REPR.emit(packet.first_chunk_mut().unwrap());
        packet[40..43].copy_from_slice(b"abc");
        packet
    }

    #[test]
    fn fields() {
        let bytes = packet();
        assert_eq!(bytes[..8], [0x6b, 0x9a, 0xbc, 0xde, 0, 3, 58, 64]);
        let ipv6 = Ipv6::parse(&bytes).unwrap();
        assert_eq!((ipv6.traffic_class(), ipv6.flow_label()), (0xb9, 0x0abcde));
        assert_eq!((ipv6.payload_len(), ipv6.total_len()), (3, 43));
        assert_eq!((ipv6.next_header(), ipv6.hop_limit()), (58, 64));
        assert_eq!((ipv6.source(), ipv6.destination()), (&REPR.source, &REPR.destination));
        assert_eq!(ipv6.payload(), b"abc", "padding is no payload");
    }

    #[test]
    fn bounds() {
        let bytes = packet();
        for len in 0..40 {
            assert_eq!(Ipv6::parse(&bytes[..len]).unwrap_err(), Ipv6Error::Truncated);
        }
        for len in 40..43 {
            assert_eq!(Ipv6::parse(&bytes[..len]).unwrap_err(), Ipv6Error::PayloadLength);
        }
        assert!(Ipv6::parse(&bytes[..43]).is_ok());
        let mut version = bytes;
        version[0] = 0x5b;
        assert_eq!(Ipv6::parse(&version).unwrap_err(), Ipv6Error::Version);
    }

    #[test]
    fn a_flow_label_beyond_20_bits_spoils_nothing() {
        let mut out = [0; 40];
        Ipv6Repr { flow_label: u32::MAX, traffic_class: 0, ..REPR }.emit(&mut out);
        assert_eq!(out[..4], [0x60, 0x0f, 0xff, 0xff]);
    }

    #[test]
    fn hop_limits() {
        let mut header = *packet().first_chunk::<40>().unwrap();
        decrement_hop_limit(&mut header);
        assert_eq!(header[7], 63);
        write_hop_limit(&mut header, 0);
        decrement_hop_limit(&mut header);
        assert_eq!(header[7], 0);
    }

    #[test]
    fn mapped_addresses() {
        assert!(is_ipv4_mapped(&crate::flow::mapped([10, 0, 0, 1])));
        assert!(!is_ipv4_mapped(&REPR.source));
        // IPv4-compatible, which is another thing, and long deprecated.
        assert!(!is_ipv4_mapped(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]));
    }
}
