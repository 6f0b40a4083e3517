//! The chain of headers between the fixed IPv6 header and the upper-layer one, RFC 8200 section 4.
//!
//! ```text
//! fixed header | hop-by-hop | destination options | routing | fragment | AH | ... | upper layer
//!              ^ offset 0                                                         ^ Upper::offset
//! ```
//!
//! Invariants: the walk takes at most [`EXTENSIONS_MAX`] headers and [`EXTENSION_BYTES_MAX`] bytes,
//! whatever the packet; it never goes past the first fragment header of a later fragment, where
//! there are no more headers but only data.
//!
//! Deliberately absent: the options inside the headers. A router in transit has no business with
//! them, and hop-by-hop options are skipped (RFC 8200 section 4: "it is now expected that nodes
//! along a packet's delivery path only examine and process the Hop-by-Hop Options header if
//! explicitly configured to do so").

use core::fmt;

use crate::{field, protocol};

/// The most extension headers that one packet may have. RFC 8200 section 4.1 names seven places in
/// its recommended order; more than that is nobody's honest packet.
pub const EXTENSIONS_MAX: u8 = 8;

/// The most bytes that extension headers may take up together. It bounds the bytes that a parser
/// touches to a few cache lines; lower, and a long segment routing header no longer passes; higher,
/// and a packet of nothing but headers costs more than it is worth.
pub const EXTENSION_BYTES_MAX: usize = 512;

const FRAGMENT_HEADER_LEN: usize = 8;
const FRAGMENT_OFFSET: usize = 2;
const FRAGMENT_IDENTIFICATION: usize = 4;

/// Why a chain of extension headers cannot be walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtensionError {
    /// The payload ends inside an extension header. In a first fragment this is what RFC 7112
    /// forbids: a header chain that goes on in the next one.
    Truncated,
    /// A hop-by-hop header that does not follow the fixed header.
    HopByHopNotFirst,
    /// A second fragment header.
    SecondFragment,
    /// More headers than [`EXTENSIONS_MAX`].
    TooMany,
    /// More bytes than [`EXTENSION_BYTES_MAX`].
    TooLong,
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "IPv6 extension headers reach past the packet",
            Self::HopByHopNotFirst => "IPv6 hop-by-hop options are not the first header",
            Self::SecondFragment => "IPv6 packet has two fragment headers",
            Self::TooMany => "IPv6 packet has too many extension headers",
            Self::TooLong => "IPv6 extension headers are too long",
        })
    }
}

impl core::error::Error for ExtensionError {}

/// What a fragment header says, RFC 8200 section 4.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// Where the data stands in the fragmentable part, in bytes: a multiple of 8.
    pub offset_bytes: u16,
    /// More fragments follow.
    pub more: bool,
    /// What the fragments of one packet have in common.
    pub identification: u32,
    /// Where the fragment header stands, in bytes from the end of the fixed header.
    pub header_offset: usize,
}

impl FragmentHeader {
    /// The packet is whole, in spite of its fragment header (RFC 6946: "atomic fragment").
    #[inline]
    #[must_use]
    pub const fn is_atomic(&self) -> bool {
        self.offset_bytes == 0 && !self.more
    }

    /// A fragment other than the first: there is no upper-layer header in it.
    #[inline]
    #[must_use]
    pub const fn is_later(&self) -> bool {
        self.offset_bytes != 0
    }
}

/// Where the walk over the extension headers ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Protocol number of what stands at `offset`, or of what the later fragment is a part of:
    /// then the number that the fragment header names, which may be another extension header.
    pub protocol: u8,
    /// Where the upper-layer header, or the data of a later fragment, begins, in bytes from the
    /// end of the fixed header. At most the payload's length; equal to it if nothing follows.
    pub offset: usize,
    /// The fragment header, if there is one.
    pub fragment: Option<FragmentHeader>,
    /// How many extension headers were walked.
    pub extension_count: u8,
}

impl Upper {
    /// The packet has a fragment header, and it is not atomic.
    #[inline]
    #[must_use]
    pub fn is_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| !fragment.is_atomic())
    }

    /// The packet is a fragment other than the first.
    #[inline]
    #[must_use]
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.is_later())
    }
}

/// Walks from `next_header` of the fixed header over the extension headers in `payload`, which
/// begins where the fixed header ends.
///
/// ESP and "no next header" end the walk as upper-layer protocols.
///
/// # Errors
///
/// See [`ExtensionError`].
#[inline]
pub fn walk_extensions(next_header: u8, payload: &[u8]) -> Result<Upper, ExtensionError> {
    if is_extension(next_header) {
        walk(next_header, payload)
    } else {
        Ok(Upper { protocol: next_header, offset: 0, fragment: None, extension_count: 0 })
    }
}

#[inline]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        protocol::HOP_BY_HOP
            | protocol::ROUTING
            | protocol::FRAGMENT
            | protocol::AH
            | protocol::DESTINATION_OPTIONS
            | protocol::MOBILITY
            | protocol::HIP
            | protocol::SHIM6
    )
}

/// The walk proper. Out of line, because most packets have no extension header.
#[inline(never)]
fn walk(next_header: u8, payload: &[u8]) -> Result<Upper, ExtensionError> {
    let mut upper = Upper { protocol: next_header, offset: 0, fragment: None, extension_count: 0 };
    walk_on(&mut upper, payload)?;
    Ok(upper)
}

/// Where a chain that cannot be walked goes wrong, in bytes from the end of the fixed header, and why: for
/// the pointer of an ICMP error. `None` for a chain that can be walked.
///
/// | error                  | it is at                                                          |
/// |------------------------|-------------------------------------------------------------------|
/// | `HopByHopNotFirst`     | the Next Header field that announces it                           |
/// | `TooMany`              | the first byte of the header that is one too many                 |
/// | `TooLong`              | the first byte beyond [`EXTENSION_BYTES_MAX`]                     |
/// | others                 | the first byte of the header in question                          |
#[must_use]
pub fn locate_extension_error(next_header: u8, payload: &[u8]) -> Option<(ExtensionError, usize)> {
    let mut upper = Upper { protocol: next_header, offset: 0, fragment: None, extension_count: 0 };
    // A walk moves one header at a time, so that the header before is known.
    let mut before = 0;
    while is_extension(upper.protocol) && !upper.is_later_fragment() {
        let here = upper.offset;
        if let Err(error) = step(&mut upper, payload) {
            let at = match error {
                ExtensionError::HopByHopNotFirst => before,
                ExtensionError::TooLong => EXTENSION_BYTES_MAX,
                ExtensionError::Truncated
                | ExtensionError::SecondFragment
                | ExtensionError::TooMany => here,
            };
            return Some((error, at));
        }
        before = here;
    }
    None
}

#[inline]
fn walk_on(upper: &mut Upper, payload: &[u8]) -> Result<(), ExtensionError> {
    while is_extension(upper.protocol) {
        step(upper, payload)?;
        if upper.is_later_fragment() {
            break;
        }
    }
    Ok(())
}

/// Over one extension header.
#[inline]
fn step(upper: &mut Upper, payload: &[u8]) -> Result<(), ExtensionError> {
    if upper.protocol == protocol::HOP_BY_HOP && upper.extension_count > 0 {
        // RFC 8200 section 4.1: "[...] the Hop-by-Hop Options header, which is restricted to
        // appear immediately after an IPv6 header only".
        return Err(ExtensionError::HopByHopNotFirst);
    }
    if upper.extension_count == EXTENSIONS_MAX {
        return Err(ExtensionError::TooMany);
    }
    // Every extension header is a multiple of 8 bytes, or of 4 and at least 8 (AH).
    let header = payload
        .get(upper.offset..)
        .and_then(<[u8]>::first_chunk::<FRAGMENT_HEADER_LEN>)
        .ok_or(ExtensionError::Truncated)?;
    let [next, len, ..] = *header;
    let len = match upper.protocol {
        protocol::FRAGMENT => FRAGMENT_HEADER_LEN,
        // RFC 4302 section 2.2: "in 32-bit words (4-byte units), minus '2'".
        protocol::AH => (usize::from(len) + 2) * 4,
        // RFC 8200 section 4.3: "in 8-octet units, not including the first 8 octets".
        _ => (usize::from(len) + 1) * 8,
    };
    if upper.protocol == protocol::FRAGMENT {
        if upper.fragment.is_some() {
            return Err(ExtensionError::SecondFragment);
        }
        let offset_and_more = field::u16_at::<FRAGMENT_OFFSET, _>(header);
        upper.fragment = Some(FragmentHeader {
            offset_bytes: offset_and_more & 0xfff8,
            more: offset_and_more & 1 != 0,
            identification: field::u32_at::<FRAGMENT_IDENTIFICATION, _>(header),
            header_offset: upper.offset,
        });
    }
    upper.offset += len;
    if upper.offset > payload.len() {
        return Err(ExtensionError::Truncated);
    }
    if upper.offset > EXTENSION_BYTES_MAX {
        return Err(ExtensionError::TooLong);
    }
    upper.protocol = next;
    upper.extension_count += 1;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    const FIRST: [u8; 8] = [protocol::UDP, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef];

    fn plain(next: u8, blocks: u8) -> Vec<u8> {
        let mut header = vec![0; (usize::from(blocks) + 1) * 8];
        header[..2].copy_from_slice(&[next, blocks]);
        header
    }

    #[test]
    fn no_extension() {
        for protocol in [6, 17, 58, protocol::ESP, protocol::NO_NEXT_HEADER, 253] {
            let upper = walk_extensions(protocol, &[]).unwrap();
            assert_eq!((upper.protocol, upper.offset, upper.extension_count), (protocol, 0, 0));
            assert_eq!(upper.fragment, None);
        }
    }

    #[test]
    fn each_kind_of_length() {
        // Kind, second byte of the header, bytes of the header.
        let cases = [
            (protocol::HOP_BY_HOP, 1, 16),
            (protocol::ROUTING, 2, 24),
            (protocol::DESTINATION_OPTIONS, 0, 8),
            (protocol::MOBILITY, 1, 16),
            (protocol::HIP, 4, 40),
            (protocol::SHIM6, 1, 16),
            (protocol::AH, 4, 24),
            (protocol::AH, 0, 8),
            // The second byte of a fragment header is reserved, no length.
            (protocol::FRAGMENT, 9, 8),
        ];
        for (kind, second, len) in cases {
            let mut payload = vec![0; len];
            payload[..2].copy_from_slice(&[protocol::TCP, second]);
            let upper = walk_extensions(kind, &payload).unwrap();
            assert_eq!((upper.protocol, upper.offset), (protocol::TCP, len), "kind {kind}");
            assert_eq!(upper.extension_count, 1);
            for short in 0..len {
                let result = walk_extensions(kind, &payload[..short]);
                assert_eq!(result, Err(ExtensionError::Truncated), "kind {kind}, {short} bytes");
            }
        }
    }

    #[test]
    fn the_recommended_order() {
        let mut payload = plain(protocol::DESTINATION_OPTIONS, 0);
        payload.extend(plain(protocol::ROUTING, 1));
        payload.extend(plain(protocol::FRAGMENT, 2));
        payload.extend([protocol::AH, 0, 0, 1, 0xde, 0xad, 0xbe, 0xef]);
        payload.extend([protocol::DESTINATION_OPTIONS, 4].iter().chain(&[0; 22]));
        payload.extend(plain(protocol::TCP, 0));
        let upper = walk_extensions(protocol::HOP_BY_HOP, &payload).unwrap();
        let fragment = FragmentHeader {
            offset_bytes: 0,
            more: true,
            identification: 0xdead_beef,
            header_offset: 48,
        };
        assert_eq!(
            upper,
            Upper {
                protocol: protocol::TCP,
                offset: payload.len(),
                fragment: Some(fragment),
                extension_count: 6,
            }
        );
        assert!(upper.is_fragment() && !upper.is_later_fragment() && !fragment.is_atomic());
    }

    #[test]
    fn a_later_fragment_has_no_more_headers() {
        // Were they read as a header, the bytes after the fragment header would be truncated.
        let payload = [protocol::ROUTING, 0, 0x05, 0xa8, 0, 0, 0, 7, 6, 255];
        let upper = walk_extensions(protocol::FRAGMENT, &payload).unwrap();
        assert_eq!((upper.protocol, upper.offset), (protocol::ROUTING, 8));
        assert!(upper.is_later_fragment());
        let fragment = upper.fragment.unwrap();
        assert_eq!((fragment.offset_bytes, fragment.more), (0x05a8, false));
        assert_eq!((fragment.identification, fragment.header_offset), (7, 0));
    }

    #[test]
    fn an_atomic_fragment_is_whole() {
        // RFC 6946; the two reserved bits of the offset field are set and ignored.
        let payload = [protocol::UDP, 0, 0, 0b110, 0, 0, 0, 1];
        let upper = walk_extensions(protocol::FRAGMENT, &payload).unwrap();
        assert!(upper.fragment.unwrap().is_atomic());
        assert!(!upper.is_fragment() && !upper.is_later_fragment());
        assert_eq!((upper.protocol, upper.offset), (protocol::UDP, 8));
    }

    #[test]
    fn hop_by_hop_comes_first_or_not_at_all() {
        let mut payload = plain(protocol::HOP_BY_HOP, 0);
        payload.extend(plain(protocol::UDP, 0));
        for first in [protocol::DESTINATION_OPTIONS, protocol::HOP_BY_HOP] {
            let result = walk_extensions(first, &payload);
            assert_eq!(result, Err(ExtensionError::HopByHopNotFirst));
        }
    }

    #[test]
    fn one_fragment_header() {
        let mut payload = vec![protocol::FRAGMENT, 0, 0, 1, 0, 0, 0, 1];
        payload.extend(FIRST);
        let result = walk_extensions(protocol::FRAGMENT, &payload);
        assert_eq!(result, Err(ExtensionError::SecondFragment));
    }

    #[test]
    fn the_bounds_are_where_they_are_said_to_be() {
        let chain = |count: u8| {
            let mut payload = Vec::new();
            for _ in 1..count {
                payload.extend(plain(protocol::DESTINATION_OPTIONS, 0));
            }
            payload.extend(plain(protocol::UDP, 0));
            payload
        };
        let most = walk_extensions(protocol::DESTINATION_OPTIONS, &chain(EXTENSIONS_MAX)).unwrap();
        assert_eq!((most.protocol, most.extension_count), (protocol::UDP, EXTENSIONS_MAX));
        let result = walk_extensions(protocol::DESTINATION_OPTIONS, &chain(EXTENSIONS_MAX + 1));
        assert_eq!(result, Err(ExtensionError::TooMany));

        let longest = walk_extensions(protocol::ROUTING, &plain(protocol::UDP, 63)).unwrap();
        assert_eq!(longest.offset, EXTENSION_BYTES_MAX);
        let result = walk_extensions(protocol::ROUTING, &plain(protocol::UDP, 64));
        assert_eq!(result, Err(ExtensionError::TooLong));
    }

    #[test]
    fn where_a_chain_goes_wrong() {
        let header = |next: u8| plain(next, 0);
        let two = [header(protocol::DESTINATION_OPTIONS), header(protocol::HOP_BY_HOP)].concat();
        let many =
            [header(protocol::DESTINATION_OPTIONS).repeat(8), header(protocol::UDP)].concat();
        type Located = Option<(ExtensionError, usize)>;
        let cases: [(u8, Vec<u8>, Located); 7] = [
            (protocol::UDP, vec![], None),
            (protocol::ROUTING, header(protocol::UDP), None),
            // The fields that announce hop-by-hop options: of the first header, and of the second.
            (protocol::ROUTING, header(0), Some((ExtensionError::HopByHopNotFirst, 0))),
            (protocol::ROUTING, two, Some((ExtensionError::HopByHopNotFirst, 8))),
            (protocol::DESTINATION_OPTIONS, many, Some((ExtensionError::TooMany, 64))),
            (
                protocol::ROUTING,
                plain(protocol::UDP, 64),
                Some((ExtensionError::TooLong, EXTENSION_BYTES_MAX)),
            ),
            (protocol::ROUTING, header(protocol::AH), Some((ExtensionError::Truncated, 8))),
        ];
        for (first, mut payload, expected) in cases {
            if expected.is_some_and(|(error, _)| error == ExtensionError::HopByHopNotFirst) {
                payload.extend(header(protocol::UDP));
            }
            let located = locate_extension_error(first, &payload);
            assert_eq!(located, expected, "{first} {payload:02x?}");
            assert_eq!(walk_extensions(first, &payload).err(), expected.map(|(error, _)| error));
        }
    }
}
