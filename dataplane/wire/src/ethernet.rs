//! Ethernet II framing.
//!
//! ```text
//!  0             6             12          14
//!  +-------------+-------------+-----------+----------
//!  | destination | source      | EtherType | payload
//!  +-------------+-------------+-----------+----------
//! ```
//!
//! Deliberately absent: 802.1Q tags and 802.3 lengths. The classifier leaves such frames to the
//! kernel.

use crate::MacAddress;
use crate::field;

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 14;

/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of ARP, RFC 826.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// EtherType of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// EtherType of IPv6, RFC 2464.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

const DESTINATION: usize = 0;
const SOURCE: usize = 6;
const ETHERTYPE: usize = 12;

/// The EtherType of `frame`; `None` if the frame is shorter than a header.
#[inline]
#[must_use]
pub fn ethertype(frame: &[u8]) -> Option<u16> {
    Some(field::u16_at::<ETHERTYPE, HEADER_LEN>(frame.first_chunk()?))
}

/// The station that `frame` is for; `None` if the frame is shorter than a header.
#[inline]
#[must_use]
pub fn destination(frame: &[u8]) -> Option<MacAddress> {
    Some(MacAddress(*field::array::<DESTINATION, 6, HEADER_LEN>(frame.first_chunk()?)))
}

/// The station that sent `frame`; `None` if the frame is shorter than a header.
#[inline]
#[must_use]
pub fn source(frame: &[u8]) -> Option<MacAddress> {
    Some(MacAddress(*field::array::<SOURCE, 6, HEADER_LEN>(frame.first_chunk()?)))
}

/// What `frame` carries after its header, padding included; `None` if the frame is shorter than a
/// header.
#[inline]
#[must_use]
pub fn payload(frame: &[u8]) -> Option<&[u8]> {
    frame.split_first_chunk::<HEADER_LEN>().map(|(_, payload)| payload)
}

/// Writes a whole header.
#[inline]
pub fn write_header(
    out: &mut [u8; HEADER_LEN],
    destination: MacAddress,
    source: MacAddress,
    ethertype: u16,
) {
    *field::array_mut::<DESTINATION, 6, _>(out) = destination.0;
    *field::array_mut::<SOURCE, 6, _>(out) = source.0;
    field::set_u16::<ETHERTYPE, _>(out, ethertype);
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: [u8; 16] = [0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2, 0x86, 0xdd, 0x60, 0x01];

    #[test]
    fn fields() {
        assert_eq!(ethertype(&FRAME), Some(ETHERTYPE_IPV6));
        assert_eq!(destination(&FRAME), Some(MacAddress([2, 0, 0, 0, 0, 1])));
        assert_eq!(source(&FRAME), Some(MacAddress([2, 0, 0, 0, 0, 2])));
        assert_eq!(payload(&FRAME), Some(&[0x60, 0x01][..]));
    }

    #[test]
    fn a_short_frame_has_no_fields() {
        for len in 0..HEADER_LEN {
            assert_eq!(ethertype(&FRAME[..len]), None);
            assert_eq!(destination(&FRAME[..len]), None);
            assert_eq!(source(&FRAME[..len]), None);
            assert_eq!(payload(&FRAME[..len]), None);
        }
        assert_eq!(payload(&FRAME[..HEADER_LEN]), Some(&[][..]));
    }

    #[test]
    fn written_as_read() {
        let mut out = [0xaa; HEADER_LEN];
        let (to, from) = (MacAddress([2, 0, 0, 0, 0, 1]), MacAddress([2, 0, 0, 0, 0, 2]));
        write_header(&mut out, to, from, ETHERTYPE_IPV6);
        assert_eq!(out, FRAME[..HEADER_LEN]);
    }
}
