//! UDP headers, RFC 768.
//!
//! ```text
//!  0             2             4             6             8
//!  +-------------+-------------+-------------+-------------+--------
//!  | source port | dest. port  | length      | checksum    | payload
//!  +-------------+-------------+-------------+-------------+--------
//! ```

use core::fmt;

use crate::{checksum, field, protocol};

/// Length of the header in bytes.
pub const HEADER_LEN: usize = 8;

const SOURCE_PORT: usize = 0;
const DESTINATION_PORT: usize = 2;
const LENGTH: usize = 4;
const CHECKSUM: usize = 6;

/// Why bytes are not a UDP datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UdpError {
    /// Fewer bytes than a header.
    Truncated,
    /// The length is below that of a header or above the bytes that there are. The first fragment
    /// of a datagram fails here; see [`ports`].
    Length,
}

impl fmt::Display for UdpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "shorter than a UDP header",
            Self::Length => "UDP length does not fit the header or the packet",
        })
    }
}

impl core::error::Error for UdpError {}

/// A view of a UDP datagram. The checksum is not verified: that is the receiver's part.
#[derive(Clone, Copy, Debug)]
pub struct Udp<'a> {
    header: &'a [u8; HEADER_LEN],
    payload: &'a [u8],
}

impl<'a> Udp<'a> {
    /// Checks the length of `datagram`, which begins with the UDP header and may be longer than
    /// the header says.
    ///
    /// # Errors
    ///
    /// The first test that fails.
    #[inline]
    pub fn parse(datagram: &'a [u8]) -> Result<Self, UdpError> {
        let (header, rest) =
            datagram.split_first_chunk::<HEADER_LEN>().ok_or(UdpError::Truncated)?;
        let payload = usize::from(field::u16_at::<LENGTH, _>(header))
            .checked_sub(HEADER_LEN)
            .and_then(|payload_len| rest.get(..payload_len))
            .ok_or(UdpError::Length)?;
        Ok(Self { header, payload })
    }

    /// Source port.
    #[inline]
    #[must_use]
    pub const fn source_port(&self) -> u16 {
        field::u16_at::<SOURCE_PORT, _>(self.header)
    }

    /// Destination port.
    #[inline]
    #[must_use]
    pub const fn destination_port(&self) -> u16 {
        field::u16_at::<DESTINATION_PORT, _>(self.header)
    }

    /// Length of header and payload in bytes.
    #[inline]
    #[must_use]
    pub const fn length(&self) -> u16 {
        field::u16_at::<LENGTH, _>(self.header)
    }

    /// The checksum as received; 0 means that the sender computed none.
    #[inline]
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        field::u16_at::<CHECKSUM, _>(self.header)
    }

    /// What follows the header, up to the length.
    #[inline]
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        self.payload
    }
}

/// Source and destination port; `None` below 4 bytes. Enough for a look-up, also in a first
/// fragment or in what an ICMP error quotes.
#[inline]
#[must_use]
pub fn ports(datagram: &[u8]) -> Option<(u16, u16)> {
    let ports = datagram.first_chunk::<4>()?;
    Some((field::u16_at::<SOURCE_PORT, _>(ports), field::u16_at::<DESTINATION_PORT, _>(ports)))
}

/// Writes a header. `length` is that of header and payload in bytes; a `checksum` of 0 says that
/// there is none, which over IPv6 only tunnels may do (RFC 6935, RFC 6936).
#[inline]
pub fn emit_header(
    out: &mut [u8; HEADER_LEN],
    source_port: u16,
    destination_port: u16,
    length: u16,
    checksum: u16,
) {
    field::set_u16::<SOURCE_PORT, _>(out, source_port);
    field::set_u16::<DESTINATION_PORT, _>(out, destination_port);
    field::set_u16::<LENGTH, _>(out, length);
    field::set_u16::<CHECKSUM, _>(out, checksum);
}

/// The checksum to write into `datagram` (header, with a checksum of 0, and payload; at most
/// 65,535 bytes) over IPv4; never 0.
#[inline]
#[must_use]
pub fn checksum_v4(source: [u8; 4], destination: [u8; 4], datagram: &[u8]) -> u16 {
    let len = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
    finish(datagram, checksum::pseudo_header_v4(source, destination, protocol::UDP, len))
}

/// As [`checksum_v4`], over IPv6.
#[inline]
#[must_use]
pub fn checksum_v6(source: &[u8; 16], destination: &[u8; 16], datagram: &[u8]) -> u16 {
    let len = u32::from(u16::try_from(datagram.len()).unwrap_or(u16::MAX));
    finish(datagram, checksum::pseudo_header_v6(source, destination, protocol::UDP, len))
}

/// RFC 768: "If the computed checksum is zero, it is transmitted as all ones".
#[inline]
fn finish(datagram: &[u8], pseudo_header: u32) -> u16 {
    match !checksum::fold(checksum::ones_complement_sum(datagram, pseudo_header)) {
        0 => u16::MAX,
        checksum => checksum,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_bounds() {
        let bytes = [0x17, 0xc0, 0xc3, 0x50, 0, 10, 0xbe, 0xef, 1, 2, 0, 0];
        let udp = Udp::parse(&bytes).unwrap();
        assert_eq!((udp.source_port(), udp.destination_port()), (6080, 50000));
        assert_eq!((udp.length(), udp.checksum()), (10, 0xbeef));
        assert_eq!(udp.payload(), [1, 2], "the rest is padding");
        assert_eq!(ports(&bytes[..4]), Some((6080, 50000)));
        assert_eq!(ports(&bytes[..3]), None);

        assert_eq!(Udp::parse(&bytes[..7]).unwrap_err(), UdpError::Truncated);
        assert_eq!(Udp::parse(&bytes[..9]).unwrap_err(), UdpError::Length);
        let mut short = bytes;
        short[5] = 7;
        assert_eq!(Udp::parse(&short).unwrap_err(), UdpError::Length);
        short[5] = 8;
        assert_eq!(Udp::parse(&short).unwrap().payload(), []);
    }

    #[test]
    fn a_computed_zero_is_sent_as_all_ones() {
        // Source and destination port are chosen so that all words add up to 0xffff.
        let mut datagram = [0; HEADER_LEN];
        let others = u16::from(protocol::UDP) + 8 + 8;
        emit_header(&mut datagram, 0xffff - others, 0, 8, 0);
        assert_eq!(checksum_v4([0; 4], [0; 4], &datagram), 0xffff);
        assert_eq!(checksum_v6(&[0; 16], &[0; 16], &datagram), 0xffff);
    }
}
