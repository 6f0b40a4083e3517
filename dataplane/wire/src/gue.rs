//! Generic UDP encapsulation, variant 1: an IP packet directly after the UDP header
//! (draft-ietf-intarea-gue).
//!
//! ```text
//! outer IP | UDP, destination port 6080, source port = flow entropy | inner IPv4 or IPv6 packet
//! ```
//!
//! The first two bits are the variant. Variant 1 is `01`, and so begin the version numbers 4
//! (`0100`) and 6 (`0110`): an IP header is its own GUE header.
//!
//! Deliberately absent: variant 0, which has a header of its own.

use crate::protocol::IpVersion;

/// The UDP port registered for GUE.
pub const GUE_PORT: u16 = 6080;

/// The packet after the UDP header is an IP packet, judged by its first byte: the first nibble is
/// the version 4 or 6. The other values that begin with the bits `01` belong to no IP version.
#[inline]
#[must_use]
pub const fn is_variant_1(first_byte: u8) -> bool {
    IpVersion::of_first_byte(first_byte).is_some()
}

/// The IP version of the packet that `payload`, the UDP payload, carries; `None` if it is empty or
/// not variant 1.
#[inline]
#[must_use]
pub const fn inner_protocol(payload: &[u8]) -> Option<IpVersion> {
    match payload {
        [first, ..] => IpVersion::of_first_byte(*first),
        [] => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variant_by_first_nibble() {
        for first in 0..=255u8 {
            let expected = match first >> 4 {
                4 => Some(IpVersion::V4),
                6 => Some(IpVersion::V6),
                _ => None,
            };
            assert_eq!(inner_protocol(&[first, 0]), expected);
            assert_eq!(is_variant_1(first), expected.is_some());
        }
        assert_eq!(inner_protocol(&[]), None);
    }
}
