//! Generic routing encapsulation: RFC 2784, with the key and the sequence number of RFC 2890.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-----------------+-----+-------------------------------+
//! |C| |K|S|    Reserved0    | Ver |         Protocol type         |
//! +-+-+-+-+-----------------+-----+-------------------------------+
//! |      Checksum (optional)      |     Reserved1 (optional)      |
//! +-------------------------------+-------------------------------+
//! |                         Key (optional)                        |
//! +---------------------------------------------------------------+
//! |                   Sequence number (optional)                  |
//! +---------------------------------------------------------------+
//! ```
//!
//! The protocol type of an IP packet is its EtherType: `0x0800` (RFC 2784 section 4) or `0x86dd`
//! (RFC 7676 section 3).
//!
//! Deliberately absent: RFC 1701's routing field. Whether a key is the right one, and what becomes of
//! packets out of sequence, is decided in `forward`.

use core::fmt;

use crate::{checksum, field};

/// Length of a header without optional fields, in bytes.
pub const HEADER_LEN_MIN: usize = 4;
/// Length of a header with all of them, in bytes.
pub const HEADER_LEN_MAX: usize = 16;

const CHECKSUM_PRESENT: u16 = 0x8000;
const KEY_PRESENT: u16 = 0x2000;
const SEQUENCE_PRESENT: u16 = 0x1000;
const VERSION: u16 = 0x0007;

/// Bits 1, 4 and 5. RFC 2784 section 2.3: "A receiver MUST discard a packet where any of bits 1-5 are
/// non-zero, unless that receiver implements RFC 1701"; RFC 2890 section 2 gives bits 2 and 3 their
/// meaning. "Bits 6-12 are reserved for future use. These bits MUST be sent as zero and MUST be
/// ignored on receipt."
const MUST_BE_ZERO: u16 = 0x4c00;

const FIELD_LEN: usize = 4;

/// Why bytes are not a GRE packet that can be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GreError {
    /// The bytes end within the header.
    Truncated,
    /// The version is not 0. RFC 2784 section 2.3.1: it "MUST contain the value zero".
    Version,
    /// One of the bits 1, 4 and 5 is set: RFC 1701's routing, or something newer.
    Reserved,
    /// The checksum is there, and wrong.
    Checksum,
}

impl fmt::Display for GreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "shorter than its GRE header",
            Self::Version => "GRE version is not 0",
            Self::Reserved => "a GRE flag is set that must be zero",
            Self::Checksum => "GRE checksum is wrong",
        })
    }
}

impl core::error::Error for GreError {}

/// A header: all that it says but the checksum's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GreRepr {
    /// EtherType of what follows the header.
    pub protocol: u16,
    /// Whether there is a checksum.
    pub checksum: bool,
    /// The key, where there is one: RFC 2890 section 2.1.
    pub key: Option<u32>,
    /// The sequence number, where there is one: RFC 2890 section 2.2.
    pub sequence: Option<u32>,
}

impl GreRepr {
    /// Reads the header that `packet` begins with, which may be cut anywhere behind it. The checksum
    /// covers the whole packet and is not verified: see [`parse`](Self::parse).
    ///
    /// # Errors
    ///
    /// Any [`GreError`] but [`GreError::Checksum`].
    #[inline]
    pub fn parse_header(packet: &[u8]) -> Result<Self, GreError> {
        let (fixed, mut rest) =
            packet.split_first_chunk::<HEADER_LEN_MIN>().ok_or(GreError::Truncated)?;
        let flags = field::u16_at::<0, _>(fixed);
        if flags & VERSION != 0 {
            return Err(GreError::Version);
        }
        if flags & MUST_BE_ZERO != 0 {
            return Err(GreError::Reserved);
        }
        let mut optional = |is_present: u16| {
            if flags & is_present == 0 {
                return Ok(None);
            }
            let (value, behind) =
                rest.split_first_chunk::<FIELD_LEN>().ok_or(GreError::Truncated)?;
            rest = behind;
            Ok(Some(u32::from_be_bytes(*value)))
        };
        let checksum = optional(CHECKSUM_PRESENT)?.is_some();
        let key = optional(KEY_PRESENT)?;
        let sequence = optional(SEQUENCE_PRESENT)?;
        Ok(Self { protocol: field::u16_at::<2, _>(fixed), checksum, key, sequence })
    }

    /// Reads the header of a whole packet, and verifies the checksum where there is one. RFC 2784
    /// section 2.5: it "contains the IP (one's complement) checksum sum of the all the 16 bit words in
    /// the GRE header and the payload packet".
    ///
    /// # Errors
    ///
    /// Any [`GreError`].
    #[inline]
    pub fn parse(packet: &[u8]) -> Result<Self, GreError> {
        let header = Self::parse_header(packet)?;
        if header.checksum && checksum::internet_checksum(packet) != 0 {
            return Err(GreError::Checksum);
        }
        Ok(header)
    }

    /// Length of the header in bytes: 4, 8, 12 or 16.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        HEADER_LEN_MIN
            + FIELD_LEN
                * (self.checksum as usize
                    + self.key.is_some() as usize
                    + self.sequence.is_some() as usize)
    }

    /// Writes the header to the front of `packet`, whose rest is the payload, and computes the
    /// checksum if there is one. Says whether there was room; if not, nothing is written.
    #[inline]
    #[must_use]
    pub fn emit(&self, packet: &mut [u8]) -> bool {
        let Some(header) = packet.get_mut(..self.header_len()) else { return false };
        let Some((fixed, mut rest)) = header.split_first_chunk_mut::<HEADER_LEN_MIN>() else {
            return false;
        };
        let flag = |is_present: bool, flag: u16| if is_present { flag } else { 0 };
        let flags = flag(self.checksum, CHECKSUM_PRESENT)
            | flag(self.key.is_some(), KEY_PRESENT)
            | flag(self.sequence.is_some(), SEQUENCE_PRESENT);
        field::set_u16::<0, _>(fixed, flags);
        field::set_u16::<2, _>(fixed, self.protocol);
        // Reserved1 "MUST be transmitted as zero" (RFC 2784 section 2.6), as is the checksum while it
        // is computed.
        for value in [self.checksum.then_some(0), self.key, self.sequence].into_iter().flatten() {
            let Some((place, behind)) = rest.split_first_chunk_mut::<FIELD_LEN>() else { break };
            *place = u32::to_be_bytes(value);
            rest = behind;
        }
        if self.checksum {
            let value = checksum::internet_checksum(packet).to_be_bytes();
            if let Some(place) = packet.get_mut(HEADER_LEN_MIN..HEADER_LEN_MIN + value.len()) {
                place.copy_from_slice(&value);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;
    use std::vec::Vec;

    /// Made with scapy 2.8: `GRE(chksum_present=1, key_present=1, seqnum_present=1, key=7,
    /// sequence_number=0xffffffff, proto=0x800)/Raw(bytes(range(21)))`.
    const VECTOR: [u8; 37] = [
        0xb0, 0x00, 0x08, 0x00, 0xd9, 0x93, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0xff, 0xff, 0xff,
        0xff, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20,
    ];

    fn reprs() -> Vec<GreRepr> {
        let mut reprs = Vec::new();
        for checksum in [false, true] {
            for key in [None, Some(0), Some(7), Some(u32::MAX)] {
                for sequence in [None, Some(0), Some(u32::MAX)] {
                    reprs.push(GreRepr { protocol: 0x86dd, checksum, key, sequence });
                }
            }
        }
        reprs
    }

    #[test]
    fn a_packet_of_another_implementation() {
        let repr =
            GreRepr { protocol: 0x0800, checksum: true, key: Some(7), sequence: Some(u32::MAX) };
        assert_eq!(GreRepr::parse(&VECTOR), Ok(repr));
        let mut packet = VECTOR;
        packet[..16].fill(0xaa);
        assert!(repr.emit(&mut packet));
        assert_eq!(packet, VECTOR);
    }

    #[test]
    fn what_is_written_is_read() {
        for repr in reprs() {
            for payload_len in [0, 1, 20, 1399] {
                let len = repr.header_len() + payload_len;
                let mut packet: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                assert!(repr.emit(&mut packet));
                assert_eq!(GreRepr::parse(&packet), Ok(repr));
                for cut in 0..repr.header_len() {
                    assert_eq!(GreRepr::parse_header(&packet[..cut]), Err(GreError::Truncated));
                }
                assert_eq!(GreRepr::parse_header(&packet[..repr.header_len()]), Ok(repr));
            }
            let mut short = vec![0xaa; repr.header_len() - 1];
            assert!(!repr.emit(&mut short));
            assert!(short.iter().all(|&byte| byte == 0xaa));
        }
    }

    #[test]
    fn lengths_are_those_of_the_fields() {
        let lens: Vec<usize> = reprs().iter().map(GreRepr::header_len).collect();
        assert_eq!((lens.iter().min(), lens.iter().max()), (Some(&4), Some(&16)));
        assert!(lens.iter().all(|len| len % 4 == 0));
    }

    /// RFC 2784 section 2.3: of the flags that mean nothing here, bits 1, 4 and 5 are refused and bits
    /// 6 to 12 ignored.
    #[test]
    fn every_bit_of_the_first_two_bytes() {
        for bit in 0..16 {
            let mut packet = vec![0; 40];
            packet[2..4].copy_from_slice(&[0x08, 0x00]);
            let word = 0x8000_u16 >> bit;
            packet[..2].copy_from_slice(&word.to_be_bytes());
            let parsed = GreRepr::parse_header(&packet);
            match bit {
                1 | 4 | 5 => assert_eq!(parsed, Err(GreError::Reserved), "bit {bit}"),
                13..=15 => assert_eq!(parsed, Err(GreError::Version), "bit {bit}"),
                0 => assert!(parsed.unwrap().checksum),
                2 => assert_eq!(parsed.unwrap().key, Some(0)),
                3 => assert_eq!(parsed.unwrap().sequence, Some(0)),
                _ => {
                    assert_eq!(parsed.unwrap(), GreRepr { protocol: 0x0800, ..Default::default() })
                }
            }
        }
    }

    #[test]
    fn a_wrong_checksum_is_found_wherever_it_is_wrong() {
        for at in 4..VECTOR.len() {
            for bit in 0..8 {
                let mut packet = VECTOR;
                packet[at] ^= 1 << bit;
                assert_eq!(GreRepr::parse(&packet), Err(GreError::Checksum), "byte {at} bit {bit}");
                assert!(GreRepr::parse_header(&packet).is_ok());
            }
        }
    }
}
