//! The Internet checksum, computed (RFC 1071) and updated (RFC 1624).
//!
//! A *sum* is a `u32` that stands for the one's complement sum of 16-bit words, not yet folded;
//! sums may be added up by passing one as the `initial` of the next. A *checksum* is the
//! complement of the folded sum, as it stands in a header.
//!
//! Invariant: a sum is 0 only if every word added was 0. One's complement has two zeros, and this
//! keeps full computation and update on the same one: a header that is not all zeros never gets
//! the checksum `0xffff`, either way.
//!
//! Deliberately absent: UDP's rule that a computed 0 is sent as `0xffff`; it is in [`crate::udp`].

use crate::field;

/// Adds the 16-bit words of `data` to the sum `initial`; an odd last byte counts as the high byte
/// of a word (RFC 1071 section 4.1). `data` holds less than 16 GiB.
///
/// All parts of one checksum but the last must have an even length.
#[inline]
#[must_use]
pub fn ones_complement_sum(data: &[u8], initial: u32) -> u32 {
    // RFC 1071 section 2(B): the sum does not depend on byte order, so words are added as the
    // machine loads them and the result is swapped once; section 2(C): wider words may be added
    // and folded afterwards. 32-bit words in 64-bit lanes cannot overflow and vectorise.
    let (blocks, rest) = data.as_chunks::<32>();
    let mut lanes = [0u64; 8];
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<4>().0) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut sum: u64 = lanes.iter().sum();
    let (words, last) = rest.as_chunks::<4>();
    for word in words {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    sum += u64::from(u32::from_ne_bytes(match *last {
        [a] => [a, 0, 0, 0],
        [a, b] => [a, b, 0, 0],
        [a, b, c] => [a, b, c, 0],
        _ => [0; 4],
    }));
    add(initial, u32::from(u16::from_be(fold_wide(sum))))
}

/// One's complement addition of two sums: a carry out of the top comes back at the bottom, which
/// changes nothing modulo `0xffff`.
#[inline]
const fn add(a: u32, b: u32) -> u32 {
    let (sum, carry) = a.overflowing_add(b);
    // Cannot overflow again: after a carry the sum is at most 2^32 - 2.
    sum + carry as u32
}

/// Folds a sum of 32-bit words to 16 bits.
#[inline]
const fn fold_wide(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u16
}

/// Folds a sum to 16 bits. Its complement is the checksum.
#[inline]
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    (sum & 0xffff) as u16
}

/// The checksum of `data`, in which a checksum field counts as it stands: zero to compute one; as
/// received, the result is 0 if it is right.
#[inline]
#[must_use]
pub fn internet_checksum(data: &[u8]) -> u16 {
    !fold(ones_complement_sum(data, 0))
}

/// The checksum of an IPv4 header, options included, is right. `header` is exactly the header, a
/// multiple of 4 bytes.
#[inline]
#[must_use]
pub fn ipv4_header_is_valid(header: &[u8]) -> bool {
    match <&[u8; 20]>::try_from(header) {
        Ok(header) => ipv4_base_header_is_valid(header),
        Err(_) => fold(ones_complement_sum(header, 0)) == 0xffff,
    }
}

/// As [`ipv4_header_is_valid`] for a header without options: five loads and no loop.
#[inline]
#[must_use]
pub fn ipv4_base_header_is_valid(header: &[u8; 20]) -> bool {
    let mut sum = 0;
    for word in header.as_chunks::<4>().0 {
        sum += u64::from(u32::from_ne_bytes(*word));
    }
    // Folding keeps the value modulo 0xffff and makes 0 of nothing but 0, so this says that the sum
    // folds to all ones, which is the same in either byte order. It is one multiplication, where
    // folding is a chain of ten instructions.
    sum != 0 && sum.is_multiple_of(0xffff)
}

/// The checksum after a 16-bit word that it covers went from `old` to `new`.
///
/// RFC 1624 section 3: "HC' = ~(~HC + ~m + m') -- \[Eqn. 3\]". A word at an odd offset of the
/// covered data is passed with its bytes swapped, both times.
#[inline]
#[must_use]
pub const fn update_u16(checksum: u16, old: u16, new: u16) -> u16 {
    !fold(!checksum as u32 + !old as u32 + new as u32)
}

/// The checksum after an aligned 32-bit word that it covers (an IPv4 address) went from `old` to
/// `new`.
#[inline]
#[must_use]
pub const fn update_u32(checksum: u16, old: u32, new: u32) -> u16 {
    let old = !old;
    let sum = !checksum as u32 + (old >> 16) + (old & 0xffff) + (new >> 16) + (new & 0xffff);
    !fold(sum)
}

/// The checksum after 16 aligned bytes that it covers (an IPv6 address, read by
/// `u128::from_be_bytes`) went from `old` to `new`.
#[inline]
#[must_use]
pub const fn update_u128(checksum: u16, old: u128, new: u128) -> u16 {
    !fold(!checksum as u32 + sum_u128(!old) + sum_u128(new))
}

/// The sum of the eight 16-bit words of `value`.
#[inline]
const fn sum_u128(value: u128) -> u32 {
    // Pairs of 16-bit words that stand 32 bits apart are added in one go, twice.
    let high = (value >> 64) as u64;
    let low = (value & 0xffff_ffff_ffff_ffff) as u64;
    const EVEN: u64 = 0x0000_ffff_0000_ffff;
    let pairs = (high & EVEN) + ((high >> 16) & EVEN) + (low & EVEN) + ((low >> 16) & EVEN);
    ((pairs & 0xffff_ffff) as u32) + ((pairs >> 32) as u32)
}

/// The sum of the pseudo header of TCP and UDP over IPv4 (RFC 9293 section 3.1): addresses,
/// protocol, and `len`, the bytes of transport header and payload.
#[inline]
#[must_use]
pub const fn pseudo_header_v4(
    source: [u8; 4],
    destination: [u8; 4],
    protocol: u8,
    len: u16,
) -> u32 {
    let (source, destination) = (u32::from_be_bytes(source), u32::from_be_bytes(destination));
    (source >> 16)
        + (source & 0xffff)
        + (destination >> 16)
        + (destination & 0xffff)
        + protocol as u32
        + len as u32
}

/// The sum of the pseudo header of RFC 8200 section 8.1: addresses, `len`, the bytes of the
/// upper-layer header and payload, and the protocol of that header.
#[inline]
#[must_use]
pub const fn pseudo_header_v6(
    source: &[u8; 16],
    destination: &[u8; 16],
    protocol: u8,
    len: u32,
) -> u32 {
    sum_u128(u128::from_be_bytes(*source))
        + sum_u128(u128::from_be_bytes(*destination))
        + (len >> 16)
        + (len & 0xffff)
        + protocol as u32
}

/// Lowers the TTL of an IPv4 header by one and updates its checksum.
///
/// The caller has seen a TTL above 1 (RFC 1812 section 5.3.1); a TTL of 0 stays 0.
#[inline]
pub fn decrement_ttl_v4(header: &mut [u8; 20]) {
    const TTL: usize = 8;
    const CHECKSUM: usize = 10;
    let ttl = field::u8_at::<TTL, _>(header);
    if ttl == 0 {
        return;
    }
    field::set_u8::<TTL, _>(header, ttl - 1);
    // The TTL is the high byte of its word, so the word falls by 0x0100 and the checksum rises by
    // that much. 0xffff, the zero that a computed checksum never is, wraps like a carry.
    let sum = u32::from(field::u16_at::<CHECKSUM, _>(header)) + 0x0100;
    let sum = sum + u32::from(sum >= 0xffff);
    field::set_u16::<CHECKSUM, _>(header, (sum & 0xffff) as u16);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A UDP packet's header from a local network, checksum 0xb861.
    const HEADER: [u8; 20] = [
        0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xb8, 0x61, 0xc0, 0xa8, 0x00,
        0x01, 0xc0, 0xa8, 0x00, 0xc7,
    ];

    #[test]
    fn example_of_rfc_1071_section_3() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(ones_complement_sum(&data, 0)), 0xddf2);
        assert_eq!(internet_checksum(&data), 0x220d);
    }

    #[test]
    fn example_of_rfc_1624_section_4() {
        // Eqn. 2 of RFC 1141 would give 0xffff here.
        assert_eq!(update_u16(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn a_header_is_valid_or_not() {
        assert!(ipv4_header_is_valid(&HEADER));
        for byte in 0..HEADER.len() {
            for bit in 0..8 {
                let mut broken = HEADER;
                broken[byte] ^= 1 << bit;
                assert!(!ipv4_header_is_valid(&broken), "byte {byte} bit {bit}");
            }
        }
        assert!(!ipv4_header_is_valid(&[0; 20]));
        assert!(!ipv4_header_is_valid(&[]));
    }

    #[test]
    fn a_header_with_options_is_valid_or_not() {
        let mut header = [0; 24];
        header[..20].copy_from_slice(&HEADER);
        header[0] = 0x46;
        header[20..].copy_from_slice(&[148, 4, 0, 0]);
        header[10..12].fill(0);
        let checksum = internet_checksum(&header);
        header[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert!(ipv4_header_is_valid(&header));
        header[23] ^= 1;
        assert!(!ipv4_header_is_valid(&header));
    }

    #[test]
    fn the_ttl_goes_down_to_zero_and_stays() {
        let mut header = HEADER;
        for ttl in (0..0x40u8).rev() {
            decrement_ttl_v4(&mut header);
            assert_eq!(header[8], ttl);
            assert!(ipv4_header_is_valid(&header), "TTL {ttl}");
        }
        let before = header;
        decrement_ttl_v4(&mut header);
        assert_eq!(header, before);
    }

    #[test]
    fn the_ttl_update_crosses_the_zero_of_ones_complement() {
        // Every checksum that a header can have, by way of its identification.
        for identification in 0..=u16::MAX {
            let mut header = HEADER;
            header[4..6].copy_from_slice(&identification.to_be_bytes());
            header[10..12].fill(0);
            let checksum = internet_checksum(&header);
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            decrement_ttl_v4(&mut header);

            let updated = u16::from_be_bytes([header[10], header[11]]);
            header[10..12].fill(0);
            assert_eq!(updated, internet_checksum(&header), "checksum before {checksum:04x}");
        }
    }

    #[test]
    fn carries_at_the_top_of_a_sum_are_kept() {
        assert_eq!(fold(ones_complement_sum(&[0xff, 0xff], u32::MAX)), 0xffff);
        assert_eq!(fold(ones_complement_sum(&[0x00, 0x01], u32::MAX)), 0x0001);
        assert_eq!(ones_complement_sum(&[], 0), 0);
        assert_eq!(ones_complement_sum(&[0xab], 0), 0xab00);
    }
}
