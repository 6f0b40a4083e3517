//! TCP headers, RFC 9293.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------------------------------+-------------------------------+
//! |          Source port          |       Destination port        |
//! +-------------------------------+-------------------------------+
//! |                        Sequence number                        |
//! +---------------------------------------------------------------+
//! |                     Acknowledgment number                     |
//! +-------+-------+---------------+-------------------------------+
//! | Offset| Rsrvd |     Flags     |            Window             |
//! +-------+-------+---------------+-------------------------------+
//! |           Checksum            |        Urgent pointer         |
//! +-------------------------------+-------------------------------+
//! ```

use core::fmt;

use crate::{checksum, field};

/// Length of a header without options, in bytes.
pub const HEADER_LEN: usize = 20;

/// Bits of byte 13 of the header.
pub mod flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// The acknowledgment number counts.
    pub const ACK: u8 = 0x10;
    /// The urgent pointer counts.
    pub const URG: u8 = 0x20;
    /// ECN echo, RFC 3168.
    pub const ECE: u8 = 0x40;
    /// Congestion window reduced, RFC 3168.
    pub const CWR: u8 = 0x80;
}

const SOURCE_PORT: usize = 0;
const DESTINATION_PORT: usize = 2;
const SEQUENCE: usize = 4;
const ACKNOWLEDGMENT: usize = 8;
const DATA_OFFSET: usize = 12;
const FLAGS: usize = 13;
const WINDOW: usize = 14;
const CHECKSUM: usize = 16;

const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
const OPTION_MSS: u8 = 2;
const OPTION_MSS_LEN: u8 = 4;

/// Kinds of options that a SYN offers, by their names.
pub mod option {
    /// Window scale, RFC 7323 section 2.2.
    pub const WINDOW_SCALE: u8 = 3;
    /// SACK permitted, RFC 2018 section 2.
    pub const SACK_PERMITTED: u8 = 4;
    /// Timestamps, RFC 7323 section 3.2.
    pub const TIMESTAMPS: u8 = 8;
    /// Multipath TCP, RFC 8684 section 3.
    pub const MULTIPATH: u8 = 30;
    /// Fast Open cookie, RFC 7413 section 4.1.1.
    pub const FAST_OPEN: u8 = 34;
}

/// Why bytes are not a TCP segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpError {
    /// Fewer bytes than a header without options.
    Truncated,
    /// The data offset is below 20 bytes or past the end of the segment.
    DataOffset,
}

impl fmt::Display for TcpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "shorter than a TCP header",
            Self::DataOffset => "TCP data offset is outside of the segment",
        })
    }
}

impl core::error::Error for TcpError {}

/// A view of a TCP segment. The checksum is not verified: that is the receiver's part.
#[derive(Clone, Copy, Debug)]
pub struct Tcp<'a> {
    header: &'a [u8; HEADER_LEN],
    segment: &'a [u8],
}

impl<'a> Tcp<'a> {
    /// Checks the lengths of `segment`, which begins with the TCP header and ends where the IP
    /// payload ends.
    ///
    /// # Errors
    ///
    /// The first test that fails.
    #[inline]
    pub fn parse(segment: &'a [u8]) -> Result<Self, TcpError> {
        let header = segment.first_chunk::<HEADER_LEN>().ok_or(TcpError::Truncated)?;
        let view = Self { header, segment };
        if view.header_len() < HEADER_LEN || view.header_len() > segment.len() {
            return Err(TcpError::DataOffset);
        }
        Ok(view)
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

    /// Sequence number of the first byte of the payload.
    #[inline]
    #[must_use]
    pub const fn sequence(&self) -> u32 {
        field::u32_at::<SEQUENCE, _>(self.header)
    }

    /// The next sequence number that the sender expects.
    #[inline]
    #[must_use]
    pub const fn acknowledgment(&self) -> u32 {
        field::u32_at::<ACKNOWLEDGMENT, _>(self.header)
    }

    /// Length of the header with its options, in bytes: 20 to 60, a multiple of 4.
    #[inline]
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (field::u8_at::<DATA_OFFSET, _>(self.header) >> 4) as usize * 4
    }

    /// The flags, byte 13 of the header.
    #[inline]
    #[must_use]
    pub const fn flags(&self) -> u8 {
        field::u8_at::<FLAGS, _>(self.header)
    }

    /// The window, not scaled.
    #[inline]
    #[must_use]
    pub const fn window(&self) -> u16 {
        field::u16_at::<WINDOW, _>(self.header)
    }

    /// The checksum as received.
    #[inline]
    #[must_use]
    pub const fn checksum(&self) -> u16 {
        field::u16_at::<CHECKSUM, _>(self.header)
    }

    /// The options, 0 to 40 bytes, not judged.
    #[inline]
    #[must_use]
    pub fn options(&self) -> &'a [u8] {
        self.segment.get(HEADER_LEN..self.header_len()).unwrap_or(&[])
    }

    /// What follows the header.
    #[inline]
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.segment.get(self.header_len()..).unwrap_or(&[])
    }
}

/// Source port, destination port and flags; `None` below 14 bytes. Enough for a look-up, also in a
/// first fragment that holds no whole header.
#[inline]
#[must_use]
pub fn ports_and_flags(segment: &[u8]) -> Option<(u16, u16, u8)> {
    let header = segment.first_chunk::<14>()?;
    Some((
        field::u16_at::<SOURCE_PORT, _>(header),
        field::u16_at::<DESTINATION_PORT, _>(header),
        field::u8_at::<FLAGS, _>(header),
    ))
}

/// Lowers the maximum segment size that a SYN announces to `limit` bytes and updates the checksum;
/// says whether it changed anything.
///
/// Nothing is changed in a segment that is not a SYN (or SYN-ACK), whose header is not whole, or
/// whose announcement is no more than `limit`; the walk over the options ends at the first
/// malformed one. **A SYN without the option is left alone**, although its sender then takes 536
/// bytes (RFC 9293 section 3.7.1): adding an option would make the packet grow. If the option
/// stands there twice, both are lowered, since receivers differ on which one they take.
#[inline]
pub fn clamp_mss(segment: &mut [u8], limit: u16) -> bool {
    match ports_and_flags(segment) {
        Some((_, _, flags)) if flags & flags::SYN != 0 => clamp_mss_of_syn(segment, limit),
        _ => false,
    }
}

fn clamp_mss_of_syn(segment: &mut [u8], limit: u16) -> bool {
    let Ok(header_len) = Tcp::parse(segment).map(|tcp| tcp.header_len()) else { return false };
    let Some((header, rest)) = segment.split_first_chunk_mut::<HEADER_LEN>() else { return false };
    let Some(options) = rest.get_mut(..header_len.saturating_sub(HEADER_LEN)) else { return false };

    let mut checksum = field::u16_at::<CHECKSUM, _>(header);
    let mut changed = false;
    let mut at = 0;
    while let Some(option) = options.get_mut(at..) {
        let len = match option {
            [] | [OPTION_END, ..] => break,
            [OPTION_NO_OPERATION, ..] => 1,
            [OPTION_MSS, OPTION_MSS_LEN, high, low, ..] => {
                let old = u16::from_be_bytes([*high, *low]);
                if old > limit {
                    [*high, *low] = limit.to_be_bytes();
                    changed = true;
                    // A value at an odd offset has its high byte where a covered word has its low
                    // one, and the other way round.
                    checksum = if at % 2 == 0 {
                        checksum::update_u16(checksum, old, limit)
                    } else {
                        checksum::update_u16(checksum, old.swap_bytes(), limit.swap_bytes())
                    };
                }
                OPTION_MSS_LEN
            }
            [_, len, ..] if *len >= 2 => *len,
            _ => break,
        };
        at += usize::from(len);
    }
    if changed {
        field::set_u16::<CHECKSUM, _>(header, checksum);
    }
    changed
}

/// Overwrites the options of these kinds in a SYN (or SYN-ACK) with no-operations and updates the
/// checksum; says whether it changed anything. The header keeps its length.
///
/// What an option offers is agreed on only if both ends offer it in their SYNs (RFC 7323 section 1.3, RFC
/// 2018 section 2, RFC 8684 section 3.1), so that without it the connection goes on without the feature.
/// Nothing is changed in a segment that is not a SYN or whose header is not whole; the walk over the
/// options ends at the first malformed one.
pub fn erase_options(segment: &mut [u8], kinds: &[u8]) -> bool {
    match ports_and_flags(segment) {
        Some((_, _, flags)) if flags & flags::SYN != 0 => {}
        _ => return false,
    }
    let Ok(header_len) = Tcp::parse(segment).map(|tcp| tcp.header_len()) else { return false };
    let Some((header, rest)) = segment.split_first_chunk_mut::<HEADER_LEN>() else { return false };
    let Some(options) = rest.get_mut(..header_len.saturating_sub(HEADER_LEN)) else { return false };

    let before = checksum::fold(checksum::ones_complement_sum(options, 0));
    let mut changed = false;
    let mut at = 0;
    while let Some(option) = options.get_mut(at..) {
        let len = match option {
            [] | [OPTION_END, ..] => break,
            [OPTION_NO_OPERATION, ..] => 1,
            [_, len, ..] if *len >= 2 => usize::from(*len),
            _ => break,
        };
        let Some(option) = option.get_mut(..len) else { break };
        if option.first().is_some_and(|kind| kinds.contains(kind)) {
            option.fill(OPTION_NO_OPERATION);
            changed = true;
        }
        at += len;
    }
    if changed {
        // The options start at an even offset and are whole words, so that their sum stands for a word.
        let after = checksum::fold(checksum::ones_complement_sum(options, 0));
        let checksum = field::u16_at::<CHECKSUM, _>(header);
        field::set_u16::<CHECKSUM, _>(header, checksum::update_u16(checksum, before, after));
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;
    use std::vec;
    use std::vec::Vec;

    const ADDRESSES: ([u8; 4], [u8; 4]) = ([192, 0, 2, 1], [198, 51, 100, 2]);

    fn sum(segment: &[u8]) -> u16 {
        let len = u16::try_from(segment.len()).unwrap();
        let (source, destination) = ADDRESSES;
        let pseudo = checksum::pseudo_header_v4(source, destination, protocol::TCP, len);
        checksum::fold(checksum::ones_complement_sum(segment, pseudo))
    }

    /// A segment with right checksum; `options` must be a multiple of 4 bytes.
    fn segment(flags: u8, options: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut segment = vec![0; 20];
        segment[..8].copy_from_slice(&[0xc3, 0x50, 0x01, 0xbb, 0xde, 0xad, 0xbe, 0xef]);
        segment[12] = u8::try_from((20 + options.len()) / 4).unwrap() << 4;
        segment[13] = flags;
        segment[14..16].copy_from_slice(&[0xfa, 0xf0]);
        segment.extend_from_slice(options);
        segment.extend_from_slice(payload);
        let checksum = !sum(&segment);
        segment[16..18].copy_from_slice(&checksum.to_be_bytes());
        segment
    }

    #[test]
    fn fields() {
        let bytes = segment(flags::SYN | flags::ECE, &[2, 4, 5, 0xb4], b"data");
        let tcp = Tcp::parse(&bytes).unwrap();
        assert_eq!((tcp.source_port(), tcp.destination_port()), (50_000, 443));
        assert_eq!((tcp.sequence(), tcp.acknowledgment()), (0xdead_beef, 0));
        assert_eq!((tcp.header_len(), tcp.flags(), tcp.window()), (24, 0x42, 64_240));
        assert_eq!(tcp.options(), [2, 4, 5, 0xb4]);
        assert_eq!(tcp.payload(), b"data");
        assert_eq!(ports_and_flags(&bytes[..14]), Some((50_000, 443, 0x42)));
        assert_eq!(ports_and_flags(&bytes[..13]), None);
    }

    #[test]
    fn bounds() {
        let mut bytes = segment(flags::ACK, &[1, 1, 1, 1], &[]);
        assert_eq!(Tcp::parse(&bytes[..19]).unwrap_err(), TcpError::Truncated);
        assert_eq!(Tcp::parse(&bytes[..23]).unwrap_err(), TcpError::DataOffset);
        bytes[12] = 0x40;
        assert_eq!(Tcp::parse(&bytes).unwrap_err(), TcpError::DataOffset);
        bytes[12] = 0x70;
        assert_eq!(Tcp::parse(&bytes).unwrap_err(), TcpError::DataOffset);
    }

    #[test]
    fn the_option_is_lowered_at_even_and_odd_offsets() {
        for padding in 0..8 {
            let mut options = vec![OPTION_NO_OPERATION; padding];
            options.extend([OPTION_MSS, 4, 0x05, 0xb4, OPTION_NO_OPERATION]);
            options.resize(options.len().next_multiple_of(4), OPTION_END);
            for flags in [flags::SYN, flags::SYN | flags::ACK] {
                let mut bytes = segment(flags, &options, b"fast open");
                assert!(clamp_mss(&mut bytes, 1412));
                let at = 20 + padding + 2;
                assert_eq!(bytes[at..at + 2], 1412u16.to_be_bytes());
                assert_eq!(sum(&bytes), 0xffff, "option at {padding}");
                assert!(!clamp_mss(&mut bytes, 1412), "nothing is left to do");
            }
        }
    }

    #[test]
    fn two_options_are_both_lowered() {
        let mut bytes = segment(flags::SYN, &[2, 4, 5, 0xb4, 1, 2, 4, 6, 0, 1, 1, 0], &[]);
        assert!(clamp_mss(&mut bytes, 1000));
        assert_eq!(bytes[20..], [2, 4, 3, 0xe8, 1, 2, 4, 3, 0xe8, 1, 1, 0]);
        assert_eq!(sum(&bytes), 0xffff);
    }

    #[test]
    fn options_are_erased_and_the_others_stay() {
        use option::{FAST_OPEN, MULTIPATH, SACK_PERMITTED, TIMESTAMPS, WINDOW_SCALE};
        // What Linux sends, with a Fast Open cookie of 3 bytes and MP_CAPABLE behind it.
        let options = [
            &[2, 4, 5, 0xb4, 4, 2, 8, 10, 1, 2, 3, 4, 0, 0, 0, 0, 1, 3, 3, 7][..],
            &[34, 5, 9, 9, 9, 1, 30, 4, 0x01, 0x81, 1, 1],
        ]
        .concat();
        let nops = |options: &mut [u8], at: usize, len: usize| options[at..at + len].fill(1);
        for (kinds, erased) in [
            (&[WINDOW_SCALE][..], &[(17, 3)][..]),
            (&[SACK_PERMITTED], &[(4, 2)]),
            (&[TIMESTAMPS], &[(6, 10)]),
            (&[FAST_OPEN], &[(20, 5)]),
            (&[MULTIPATH], &[(26, 4)]),
            (&[WINDOW_SCALE, TIMESTAMPS, SACK_PERMITTED], &[(17, 3), (6, 10), (4, 2)]),
        ] {
            let mut expected = options.clone();
            erased.iter().for_each(|&(at, len)| nops(&mut expected, at, len));
            for flags in [flags::SYN, flags::SYN | flags::ACK] {
                let mut bytes = segment(flags, &options, b"data");
                assert!(erase_options(&mut bytes, kinds), "{kinds:?}");
                assert_eq!(bytes[20..52], expected, "{kinds:?}");
                assert_eq!(sum(&bytes), 0xffff, "{kinds:?}");
                assert!(!erase_options(&mut bytes, kinds), "nothing is left to do");
            }
        }
    }

    #[test]
    fn nothing_but_whole_options_of_a_syn_is_erased() {
        let cases = [
            ("no SYN", segment(flags::ACK, &[3, 3, 7, 0], &[])),
            ("another kind", segment(flags::SYN, &[4, 2, 1, 1], &[])),
            ("after the end", segment(flags::SYN, &[0, 3, 3, 7], &[])),
            ("inside of another", segment(flags::SYN, &[8, 6, 3, 3, 7, 0, 0, 0], &[])),
            ("length of zero", segment(flags::SYN, &[3, 0, 7, 0], &[])),
            ("length of one", segment(flags::SYN, &[3, 1, 7, 0], &[])),
            ("past the header", segment(flags::SYN, &[1, 1, 3, 3], &[7, 0])),
        ];
        for (name, before) in cases {
            let mut after = before.clone();
            assert!(!erase_options(&mut after, &[option::WINDOW_SCALE]), "{name}");
            assert_eq!(after, before, "{name}");
        }
        let whole = segment(flags::SYN, &[3, 3, 7, 0], &[]);
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert!(!erase_options(&mut cut, &[option::WINDOW_SCALE]));
            assert_eq!(cut, whole[..len]);
        }
    }

    #[test]
    fn everything_else_is_left_alone() {
        let mss = [2, 4, 5, 0xb4];
        let cases = [
            ("no SYN", segment(flags::ACK | flags::RST, &mss, &[]), 1000),
            ("at the limit", segment(flags::SYN, &mss, &[]), 1460),
            ("below the limit", segment(flags::SYN, &mss, &[]), 9000),
            ("no option", segment(flags::SYN, &[], &[2, 4, 5, 0xb4]), 1000),
            ("other options", segment(flags::SYN, &[4, 2, 3, 3, 7, 0, 0, 0], &[]), 1000),
            ("after the end", segment(flags::SYN, &[0, 2, 4, 5, 0xb4, 0, 0, 0], &[]), 1000),
            ("wrong length", segment(flags::SYN, &[2, 3, 5, 0xb4], &[]), 1000),
            ("length of zero", segment(flags::SYN, &[8, 0, 2, 4, 5, 0xb4, 0, 0], &[]), 1000),
            ("length of one", segment(flags::SYN, &[8, 1, 2, 4, 5, 0xb4, 0, 0], &[]), 1000),
            ("inside of another", segment(flags::SYN, &[8, 6, 2, 4, 5, 0xb4, 0, 0], &[]), 1000),
            ("cut by the offset", segment(flags::SYN, &[1, 2, 4, 5], &[0xb4]), 1000),
        ];
        for (name, before, limit) in cases {
            let mut after = before.clone();
            assert!(!clamp_mss(&mut after, limit), "{name}");
            assert_eq!(after, before, "{name}");
        }
        let whole = segment(flags::SYN, &mss, &[]);
        for len in 0..whole.len() {
            let mut cut = whole[..len].to_vec();
            assert!(!clamp_mss(&mut cut, 1000));
            assert_eq!(cut, whole[..len]);
        }
    }
}
