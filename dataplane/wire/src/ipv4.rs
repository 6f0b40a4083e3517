//! IPv4 headers, RFC 791.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+-------------------------------+
//! |Version|  IHL  |Traffic class  |         Total length          |
//! +-------+-------+---------------+-----+-------------------------+
//! |        Identification         |Flags|     Fragment offset     |
//! +---------------+---------------+-----+-------------------------+
//! | Time to live  |   Protocol    |        Header checksum        |
//! +---------------+---------------+-------------------------------+
//! |                        Source address                         |
//! +---------------------------------------------------------------+
//! |                      Destination address                      |
//! +---------------------------------------------------------------+
//! ```
//!
//! Invariant: an [`Ipv4`] has passed the whole validation of RFC 1812 section 5.2.2, and its
//! slices end at the total length, so that link-layer padding is never taken for payload.
//!
//! Deliberately absent: judgement of addresses and TTL, and reassembly.

use core::fmt;

use crate::{checksum, field};

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

pub(crate) const VERSION_IHL: usize = 0;
const TRAFFIC_CLASS: usize = 1;
pub(crate) const TOTAL_LEN: usize = 2;
const IDENTIFICATION: usize = 4;
pub(crate) const FRAGMENT: usize = 6;
const TTL: usize = 8;
pub(crate) const PROTOCOL: usize = 9;
pub(crate) const CHECKSUM: usize = 10;
pub(crate) const SOURCE: usize = 12;
pub(crate) const DESTINATION: usize = 16;

pub(crate) const DONT_FRAGMENT: u16 = 0x4000;
const MORE_FRAGMENTS: u16 = 0x2000;
pub(crate) const FRAGMENT_OFFSET: u16 = 0x1fff;

const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
const OPTION_LOOSE_SOURCE_ROUTE: u8 = 131;
const OPTION_STRICT_SOURCE_ROUTE: u8 = 137;

/// Why bytes are not a valid IPv4 packet, by the tests of RFC 1812 section 5.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ipv4Error {
    /// Fewer bytes than a header without options (test 1).
    Truncated,
    /// The version is not 4 (test 3).
    Version,
    /// The header length is below 20 bytes (test 4).
    HeaderLength,
    /// The total length is below the header length (test 5) or above the bytes that there are.
    TotalLength,
    /// The header checksum is wrong (test 2).
    Checksum,
}

impl fmt::Display for Ipv4Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "shorter than an IPv4 header",
            Self::Version => "IP version is not 4",
            Self::HeaderLength => "IPv4 header length is below 20 bytes",
            Self::TotalLength => "IPv4 total length does not fit the header or the packet",
            Self::Checksum => "IPv4 header checksum is wrong",
        })
    }
}

impl core::error::Error for Ipv4Error {}

/// The options of an IPv4 header do not add up: an option has no length, a length below 2, or one
/// that reaches past the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MalformedOptions {
    /// Where the option begins that does not add up, in bytes from the start of the header.
    pub offset: u8,
}

impl fmt::Display for MalformedOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed IPv4 options")
    }
}

impl core::error::Error for MalformedOptions {}

/// A view of a valid IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    header: &'a [u8; HEADER_LEN],
    /// From the first byte of the header to the end by the total length.
    packet: &'a [u8],
}

impl<'a> Ipv4<'a> {
    /// Validates `packet`, which begins with the IPv4 header and may end with padding.
    ///
    /// RFC 1812 section 5.2.2: "(1) The packet length reported by the Link Layer must be large
    /// enough to hold the minimum length legal IP datagram (20 bytes). (2) The IP checksum must be
    /// correct. (3) The IP version number must be 4. [...] (4) The IP header length field must be
    /// large enough to hold the minimum length legal IP datagram (20 bytes = 5 words). (5) The IP
    /// total length field must be large enough to hold the IP datagram header, whose length is
    /// specified in the IP header length field." And: "the router SHOULD verify that the packet
    /// length reported by the Link Layer is at least as large as the IP total length recorded in
    /// the packet's IP header".
    ///
    /// # Errors
    ///
    /// The first test that fails; the checksum is tested last, since it needs the header length.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, Ipv4Error> {
        let header = packet.first_chunk::<HEADER_LEN>().ok_or(Ipv4Error::Truncated)?;
        let version_ihl = field::u8_at::<VERSION_IHL, _>(header);
        if version_ihl >> 4 != 4 {
            return Err(Ipv4Error::Version);
        }
        let header_len = usize::from(version_ihl & 0x0f) * 4;
        if header_len < HEADER_LEN {
            return Err(Ipv4Error::HeaderLength);
        }
        let total_len = usize::from(field::u16_at::<TOTAL_LEN, _>(header));
        if total_len < header_len {
            return Err(Ipv4Error::TotalLength);
        }
        let packet = packet.get(..total_len).ok_or(Ipv4Error::TotalLength)?;
        let checksum_is_right = if header_len == HEADER_LEN {
            checksum::ipv4_base_header_is_valid(header)
        } else {
            checksum_with_options_is_right(packet, header_len)
        };
        if !checksum_is_right {
            return Err(Ipv4Error::Checksum);
        }
        Ok(Self { header, packet })
    }

    /// The header without its options.
    #[inline]
    #[must_use]
    pub const fn header(&self) -> &'a [u8; HEADER_LEN] {
        self.header
    }

    /// The whole packet, header included, without link-layer padding.
    #[inline]
    #[must_use]
    pub const fn packet(&self) -> &'a [u8] {
        self.packet
    }

    /// Length of the header with its options, in bytes: 20 to 60, a multiple of 4.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (field::u8_at::<VERSION_IHL, _>(self.header) & 0x0f) as usize * 4
    }

    /// Length of the packet, header included, in bytes.
    #[inline]
    #[must_use]
    pub const fn total_len(&self) -> u16 {
        field::u16_at::<TOTAL_LEN, _>(self.header)
    }

    /// DSCP and ECN, the byte once called type of service.
    #[inline]
    #[must_use]
    pub const fn traffic_class(&self) -> u8 {
        field::u8_at::<TRAFFIC_CLASS, _>(self.header)
    }

    /// What the fragments of one packet have in common.
    #[inline]
    #[must_use]
    pub const fn identification(&self) -> u16 {
        field::u16_at::<IDENTIFICATION, _>(self.header)
    }

    /// The packet must not be fragmented.
    #[inline]
    #[must_use]
    pub const fn dont_fragment(&self) -> bool {
        field::u16_at::<FRAGMENT, _>(self.header) & DONT_FRAGMENT != 0
    }

    /// The packet is a fragment, and not the last one.
    #[inline]
    #[must_use]
    pub const fn more_fragments(&self) -> bool {
        field::u16_at::<FRAGMENT, _>(self.header) & MORE_FRAGMENTS != 0
    }

    /// Where the payload stands in the payload of the unfragmented packet, in bytes: a multiple
    /// of 8, up to 65,528.
    #[inline]
    #[must_use]
    pub const fn fragment_offset_bytes(&self) -> u16 {
        (field::u16_at::<FRAGMENT, _>(self.header) & FRAGMENT_OFFSET) << 3
    }

    /// The packet is a fragment, the first or a later one.
    #[inline]
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        field::u16_at::<FRAGMENT, _>(self.header) & (MORE_FRAGMENTS | FRAGMENT_OFFSET) != 0
    }

    /// Time to live, in hops.
    #[inline]
    #[must_use]
    pub const fn ttl(&self) -> u8 {
        field::u8_at::<TTL, _>(self.header)
    }

    /// Protocol number of the payload, see [`crate::protocol`].
    #[inline]
    #[must_use]
    pub const fn protocol(&self) -> u8 {
        field::u8_at::<PROTOCOL, _>(self.header)
    }

    /// The header checksum as received; `parse` found it right.
    #[inline]
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        field::u16_at::<CHECKSUM, _>(self.header)
    }

    /// Source address.
    #[inline]
    #[must_use]
    pub const fn source(&self) -> [u8; 4] {
        *field::array::<SOURCE, 4, _>(self.header)
    }

    /// Destination address.
    #[inline]
    #[must_use]
    pub const fn destination(&self) -> [u8; 4] {
        *field::array::<DESTINATION, 4, _>(self.header)
    }

    /// The options, 0 to 40 bytes, not judged.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.packet.get(HEADER_LEN..self.header_len()).unwrap_or(&[])
    }

    /// One of the options is a loose or a strict source route (RFC 791 section 3.1).
    ///
    /// # Errors
    ///
    /// [`MalformedOptions`] if the options cannot be walked to their end. The walk goes to the end
    /// even after a source route was found.
    #[inline]
    pub fn has_source_route(&self) -> Result<bool, MalformedOptions> {
        match self.options() {
            [] => Ok(false),
            options => walk_for_source_route(options),
        }
    }

    /// What follows the header, up to the total length.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.packet.get(self.header_len()..).unwrap_or(&[])
    }
}

/// Kept out of line, so that callers hold only the fast path.
#[cold]
#[inline(never)]
fn checksum_with_options_is_right(packet: &[u8], header_len: usize) -> bool {
    packet.get(..header_len).is_some_and(checksum::ipv4_header_is_valid)
}

/// Walks the options of one header. Kept out of the fast path: packets with options are rare.
fn walk_for_source_route(all: &[u8]) -> Result<bool, MalformedOptions> {
    let mut found = false;
    let mut options = all;
    // Options end within 60 bytes from the start of the header.
    let here = |rest: &[u8]| MalformedOptions {
        offset: u8::try_from(HEADER_LEN + all.len() - rest.len()).unwrap_or(u8::MAX),
    };
    loop {
        options = match *options {
            [] | [OPTION_END, ..] => return Ok(found),
            [OPTION_NO_OPERATION, ref rest @ ..] => rest,
            [kind, len, ..] if len >= 2 => {
                found |= matches!(kind, OPTION_LOOSE_SOURCE_ROUTE | OPTION_STRICT_SOURCE_ROUTE);
                options.get(usize::from(len)..).ok_or_else(|| here(options))?
            }
            _ => return Err(here(options)),
        }
    }
}

/// What a header without options says; every value has a valid header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4Repr {
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Time to live, in hops.
    pub ttl: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// The packet must not be fragmented.
    pub dont_fragment: bool,
    /// What the fragments of one packet have in common.
    pub identification: u16,
    /// Length of the payload in bytes, at most 65,515.
    pub payload_len: u16,
}

impl Ipv4Repr {
    /// Writes the header with its checksum. A payload above 65,515 bytes, which no IPv4 packet
    /// holds, gives a total length of 65,535.
    #[inline]
    pub fn emit(&self, out: &mut [u8; HEADER_LEN]) {
        const HEADER_LEN_U16: u16 = 20;
        const VERSION_4_IHL_5: u8 = 0x45;
        field::set_u8::<VERSION_IHL, _>(out, VERSION_4_IHL_5);
        field::set_u8::<TRAFFIC_CLASS, _>(out, self.traffic_class);
        field::set_u16::<TOTAL_LEN, _>(out, self.payload_len.saturating_add(HEADER_LEN_U16));
        field::set_u16::<IDENTIFICATION, _>(out, self.identification);
        field::set_u16::<FRAGMENT, _>(out, if self.dont_fragment { DONT_FRAGMENT } else { 0 });
        field::set_u8::<TTL, _>(out, self.ttl);
        field::set_u8::<PROTOCOL, _>(out, self.protocol);
        field::set_u16::<CHECKSUM, _>(out, 0);
        *field::array_mut::<SOURCE, 4, _>(out) = self.source;
        *field::array_mut::<DESTINATION, 4, _>(out) = self.destination;
        field::set_u16::<CHECKSUM, _>(out, checksum::internet_checksum(out));
    }
}

/// Replaces the source address and brings the header checksum up to date.
pub fn set_source(header: &mut [u8; HEADER_LEN], source: [u8; 4]) {
    let field = field::array_mut::<SOURCE, 4, _>(header);
    let old = u32::from_be_bytes(core::mem::replace(field, source));
    let checksum = field::u16_at::<CHECKSUM, _>(header);
    let checksum = checksum::update_u32(checksum, old, u32::from_be_bytes(source));
    field::set_u16::<CHECKSUM, _>(header, checksum);
}

/// Writes the total length in bytes and updates the checksum.
#[inline]
pub fn set_total_len(header: &mut [u8; HEADER_LEN], total_len: u16) {
    set_word::<TOTAL_LEN>(header, total_len);
}

/// Makes the header that of a fragment whose payload stands at `offset_bytes` (a multiple of 8; the
/// lower three bits are ignored) of the unfragmented payload, and updates the checksum. The DF bit
/// stays as it is.
#[inline]
pub fn set_fragment(header: &mut [u8; HEADER_LEN], offset_bytes: u16, more_fragments: bool) {
    let dont_fragment = field::u16_at::<FRAGMENT, _>(header) & DONT_FRAGMENT;
    let more_fragments = if more_fragments { MORE_FRAGMENTS } else { 0 };
    set_word::<FRAGMENT>(header, dont_fragment | more_fragments | offset_bytes >> 3);
}

/// Writes the 16-bit word at `AT` and updates the checksum.
#[inline]
fn set_word<const AT: usize>(header: &mut [u8; HEADER_LEN], new: u16) {
    let old = field::u16_at::<AT, _>(header);
    field::set_u16::<AT, _>(header, new);
    let checksum = checksum::update_u16(field::u16_at::<CHECKSUM, _>(header), old, new);
    field::set_u16::<CHECKSUM, _>(header, checksum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Header of a UDP packet of 115 bytes.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    /// A packet with `options`, padded, and `payload`; `change` may spoil the header before its
    /// checksum is computed.
    fn packet(options: &[u8], payload: &[u8], change: impl FnOnce(&mut [u8])) -> Vec<u8> {
        let header_len = 20 + options.len().next_multiple_of(4);
        let mut packet = vec![0; header_len];
        packet[..20].copy_from_slice(&HEADER);
        packet[0] = 0x40 | u8::try_from(header_len / 4).unwrap();
        packet[20..20 + options.len()].copy_from_slice(options);
        let total_len = u16::try_from(header_len + payload.len()).unwrap();
        packet[2..4].copy_from_slice(&total_len.to_be_bytes());
        packet[10..12].fill(0);
        change(&mut packet);
        let checksum = checksum::internet_checksum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(payload);
        packet
    }

    #[test]
    fn fields() {
        let bytes = packet(&[], b"payload", |header| {
            header[1] = 0xb9;
            header[4..6].copy_from_slice(&0x1234u16.to_be_bytes());
            header[6..8].copy_from_slice(&0x2003u16.to_be_bytes());
        });
        let ipv4 = Ipv4::parse(&bytes).unwrap();
        assert_eq!((ipv4.header_len(), ipv4.total_len()), (20, 27));
        assert_eq!(ipv4.traffic_class(), 0xb9);
        assert_eq!(ipv4.identification(), 0x1234);
        assert!(!ipv4.dont_fragment());
        assert!(ipv4.more_fragments() && ipv4.is_fragment());
        assert_eq!(ipv4.fragment_offset_bytes(), 24);
        assert_eq!((ipv4.ttl(), ipv4.protocol()), (64, 17));
        assert_eq!(ipv4.source(), [192, 168, 0, 1]);
        assert_eq!(ipv4.destination(), [192, 168, 0, 199]);
        assert!(ipv4.options().is_empty());
        assert_eq!(ipv4.payload(), b"payload");
    }

    #[test]
    fn fragments() {
        let cases = [
            // Field, DF, MF, offset in bytes, is a fragment.
            (0x0000, false, false, 0, false),
            (0x4000, true, false, 0, false),
            (0x8000, false, false, 0, false),
            (0x2000, false, true, 0, true),
            (0x0001, false, false, 8, true),
            (0x1fff, false, false, 65_528, true),
            (0x7fff, true, true, 65_528, true),
        ];
        for (word, dont, more, offset, is_fragment) in cases {
            let bytes =
                packet(&[], &[], |header| header[6..8].copy_from_slice(&u16::to_be_bytes(word)));
            let ipv4 = Ipv4::parse(&bytes).unwrap();
            assert_eq!(ipv4.dont_fragment(), dont, "{word:04x}");
            assert_eq!(ipv4.more_fragments(), more, "{word:04x}");
            assert_eq!(ipv4.fragment_offset_bytes(), offset, "{word:04x}");
            assert_eq!(ipv4.is_fragment(), is_fragment, "{word:04x}");
        }
    }

    /// RFC 1812 section 5.2.2, one packet for each test, and each the nearest one that fails.
    #[test]
    fn validation() {
        let good = packet(&[], &[0; 8], |_| ());
        assert!(Ipv4::parse(&good).is_ok());
        for len in 0..20 {
            assert_eq!(Ipv4::parse(&good[..len]).unwrap_err(), Ipv4Error::Truncated);
        }
        for len in 20..good.len() {
            assert_eq!(Ipv4::parse(&good[..len]).unwrap_err(), Ipv4Error::TotalLength);
        }
        let version = packet(&[], &[], |header| header[0] = 0x55);
        assert_eq!(Ipv4::parse(&version).unwrap_err(), Ipv4Error::Version);
        let ihl = packet(&[], &[], |header| header[0] = 0x44);
        assert_eq!(Ipv4::parse(&ihl).unwrap_err(), Ipv4Error::HeaderLength);
        let total_len = packet(&[1, 1, 1, 0], &[], |header| header[3] = 23);
        assert_eq!(Ipv4::parse(&total_len).unwrap_err(), Ipv4Error::TotalLength);
        let mut checksum = good.clone();
        checksum[11] ^= 1;
        assert_eq!(Ipv4::parse(&checksum).unwrap_err(), Ipv4Error::Checksum);
        let mut checksum_of_options = packet(&[1, 1, 1, 0], &[], |_| ());
        checksum_of_options[23] = 1;
        assert_eq!(Ipv4::parse(&checksum_of_options).unwrap_err(), Ipv4Error::Checksum);
    }

    #[test]
    fn padding_is_no_payload() {
        let mut bytes = packet(&[], b"abc", |_| ());
        bytes.extend_from_slice(&[0xee; 23]);
        let ipv4 = Ipv4::parse(&bytes).unwrap();
        assert_eq!(ipv4.payload(), b"abc");
        assert_eq!(ipv4.packet().len(), 23);
    }

    #[test]
    fn source_routes() {
        let cases: [(&[u8], Result<bool, MalformedOptions>); 12] = [
            (&[], Ok(false)),
            (&[1, 1, 1, 1], Ok(false)),
            (&[148, 4, 0, 0], Ok(false)),
            (&[131, 3, 4, 0], Ok(true)),
            (&[137, 3, 4, 0], Ok(true)),
            (&[1, 7, 3, 4, 137, 3, 4, 0], Ok(true)),
            // What stands after the end of the options is not an option.
            (&[0, 131, 3, 4], Ok(false)),
            // Lengths of 0 and 1, one past the header, and none at all.
            (&[131, 0, 0, 0], Err(MalformedOptions { offset: 20 })),
            (&[131, 1, 0, 0], Err(MalformedOptions { offset: 20 })),
            (&[131, 5, 0, 0], Err(MalformedOptions { offset: 20 })),
            (&[1, 1, 1, 131], Err(MalformedOptions { offset: 23 })),
            (&[131, 3, 4, 7], Err(MalformedOptions { offset: 23 })),
        ];
        for (options, expected) in cases {
            let bytes = packet(options, b"x", |_| ());
            let ipv4 = Ipv4::parse(&bytes).unwrap();
            assert_eq!(ipv4.options(), options);
            assert_eq!(ipv4.has_source_route(), expected, "{options:?}");
            assert_eq!(ipv4.payload(), b"x");
        }
    }

    #[test]
    fn emitted_as_it_was() {
        let repr = Ipv4Repr {
            source: [192, 168, 0, 1],
            destination: [192, 168, 0, 199],
            protocol: 17,
            ttl: 64,
            traffic_class: 0,
            dont_fragment: true,
            identification: 0,
            payload_len: 95,
        };
        let mut out = [0xaa; 20];
        repr.emit(&mut out);
        assert_eq!(out, HEADER);
    }

    #[test]
    fn a_new_source_keeps_the_checksum_right() {
        for source in [[0; 4], [10, 0, 0, 1], [255; 4], [198, 51, 100, 7]] {
            let mut header = HEADER;
            set_source(&mut header, source);
            assert_eq!(header[12..16], source);
            assert!(checksum::ipv4_header_is_valid(&header));
        }
    }

    #[test]
    fn a_payload_that_is_too_long_still_gives_a_header() {
        let mut out = [0; 20];
        let repr = Ipv4Repr {
            source: [0; 4],
            destination: [0; 4],
            protocol: 0,
            ttl: 1,
            traffic_class: 0,
            dont_fragment: false,
            identification: 0,
            payload_len: u16::MAX,
        };
        repr.emit(&mut out);
        assert_eq!(out[2..4], [0xff, 0xff]);
        assert!(checksum::ipv4_header_is_valid(&out));
    }
}
