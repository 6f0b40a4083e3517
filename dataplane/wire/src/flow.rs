//! What packets of one flow have in common: a hash, and addresses of one width.

use crate::field;

const MAPPED_PREFIX: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// `::ffff:a.b.c.d`, the form in which IPv4 addresses share tables with IPv6 ones.
#[inline]
#[must_use]
pub const fn mapped(v4: [u8; 4]) -> [u8; 16] {
    // As one number it stays in registers: written in parts, it would be read back through the store
    // buffer before all parts of it have arrived there.
    (0xffff_u128 << 32 | u32::from_be_bytes(v4) as u128).to_be_bytes()
}

/// The IPv4 address of `::ffff:a.b.c.d`; `None` for any other address.
#[inline]
#[must_use]
pub fn as_ipv4(address: &[u8; 16]) -> Option<[u8; 4]> {
    (*field::array::<0, 12, _>(address) == MAPPED_PREFIX)
        .then_some(*field::array::<12, 4, _>(address))
}

/// A number that is the same for all packets of a flow in one direction, and evenly spread over
/// flows in every bit: for the choice among equal paths and for the entropy of a tunnel's source
/// port.
///
/// Source and destination are each multiplied to 128 bits and folded, then both together: two
/// multiplications deep. The ports enter twice and at different places, so that they and the bits
/// of an address that they meet cannot cancel out in both.
///
/// The constants are fixed and public, so **an adversary can make flows collide**: this is not for
/// security, and must not index a table whose chains can be made long. The
/// value is the same on every machine and in every run, but not promised to stay so between
/// versions.
#[inline]
#[must_use]
pub const fn hash(
    source: &[u8; 16],
    destination: &[u8; 16],
    source_port: u16,
    destination_port: u16,
    protocol: u8,
) -> u32 {
    // The fraction of pi, each part made odd: nothing up the sleeve.
    const K: [u64; 5] = [
        0x243f_6a88_85a3_08d3,
        0x1319_8a2e_0370_7345,
        0xa409_3822_299f_31d1,
        0x082e_fa98_ec4e_6c89,
        0x4528_21e6_38d0_1377,
    ];
    let [k0, k1, k2, k3, k4] = K;
    let ports = (protocol as u64) << 32 | (source_port as u64) << 16 | destination_port as u64;
    let from = fold_multiply(high_half(source) ^ k0, low_half(source) ^ k1 ^ ports);
    let to = fold_multiply(high_half(destination) ^ k2, low_half(destination) ^ k3);
    let mixed = fold_multiply(from ^ k4, to ^ ports.rotate_left(24) ^ k1);
    (mixed >> 32) as u32
}

#[inline]
const fn high_half(address: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*field::array::<0, 8, _>(address))
}

#[inline]
const fn low_half(address: &[u8; 16]) -> u64 {
    u64::from_le_bytes(*field::array::<8, 8, _>(address))
}

/// The two halves of the 128-bit product, folded: every bit of the result depends on every bit of
/// both factors.
#[inline]
const fn fold_multiply(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    ((product >> 64) as u64) ^ ((product & 0xffff_ffff_ffff_ffff) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::vec;
    use std::vec::Vec;

    #[test]
    fn mapped_there_and_back() {
        let address = mapped([192, 0, 2, 33]);
        assert_eq!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 33]);
        assert_eq!(as_ipv4(&address), Some([192, 0, 2, 33]));
        for byte in 0..12 {
            let mut other = address;
            other[byte] ^= 1;
            assert_eq!(as_ipv4(&other), None, "byte {byte}");
        }
    }

    /// The flows that a router sees most are alike: one server, clients in a row, ports in a row.
    fn alike() -> Vec<u32> {
        let server = mapped([198, 51, 100, 7]);
        let mut hashes = Vec::new();
        for client in 0..=255u8 {
            for port in 32_768..33_024 {
                hashes.push(hash(&mapped([10, 0, 0, client]), &server, port, 443, 6));
            }
        }
        hashes
    }

    /// Chi-squared over 64 buckets has a mean of 63 and a standard deviation of 11.2.
    fn chi_squared(hashes: &[u32], bucket: impl Fn(u32) -> usize) -> f64 {
        let mut counts = vec![0u32; 64];
        hashes.iter().for_each(|&hash| counts[bucket(hash)] += 1);
        let expected = hashes.len() as f64 / 64.0;
        counts.iter().map(|&count| (f64::from(count) - expected).powi(2) / expected).sum()
    }

    #[test]
    fn flows_that_are_alike_spread_evenly_in_every_bit() {
        let hashes = alike();
        for shift in 0..=26 {
            let chi_squared = chi_squared(&hashes, |hash| (hash >> shift) as usize & 63);
            assert!((20.0..130.0).contains(&chi_squared), "bits from {shift}: {chi_squared}");
        }
        let scaled = chi_squared(&hashes, |hash| ((u64::from(hash) * 64) >> 32) as usize);
        assert!((20.0..130.0).contains(&scaled), "scaled: {scaled}");
        // 65,536 flows in 2^32 values: half a collision is expected.
        let distinct = hashes.iter().collect::<HashSet<_>>().len();
        assert!(distinct >= hashes.len() - 6, "{distinct} of {}", hashes.len());
    }

    #[test]
    fn every_input_bit_changes_half_of_the_hash() {
        let mut input = [0u8; 37];
        let of = |input: &[u8; 37]| {
            hash(
                input[..16].try_into().unwrap(),
                input[16..32].try_into().unwrap(),
                u16::from_be_bytes([input[32], input[33]]),
                u16::from_be_bytes([input[34], input[35]]),
                input[36],
            )
        };
        const ROUNDS: u32 = 400;
        let mut state = 1u64;
        let mut flips = vec![[0u32; 32]; 37 * 8];
        for _ in 0..ROUNDS {
            for byte in &mut input {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> 56) as u8;
            }
            let before = of(&input);
            for (bit, flips) in flips.iter_mut().enumerate() {
                let mut changed = input;
                changed[bit / 8] ^= 1 << (bit % 8);
                let difference = before ^ of(&changed);
                for (out, flips) in flips.iter_mut().enumerate() {
                    *flips += difference >> out & 1;
                }
            }
        }
        // Of 9,472 binomial counts with a deviation of 10, all stay within 6 of those.
        for (bit, flips) in flips.iter().enumerate() {
            for (out, &count) in flips.iter().enumerate() {
                assert!((140..=260).contains(&count), "input bit {bit}, output bit {out}: {count}");
            }
        }
    }

    /// One client and one server, with the ports that an operating system hands out in a row.
    #[test]
    fn ports_in_a_row_spread_evenly() {
        let (client, server) = (mapped([10, 0, 0, 1]), mapped([198, 51, 100, 7]));
        for step in [1, 2, 8] {
            let ports = (32_768..61_000).step_by(step);
            let hashes: Vec<u32> =
                ports.map(|port| hash(&client, &server, port, 443, 17)).collect();
            for shift in 0..=26 {
                let chi_squared = chi_squared(&hashes, |hash| (hash >> shift) as usize & 63);
                assert!(
                    (20.0..130.0).contains(&chi_squared),
                    "step {step}, {shift}: {chi_squared}"
                );
            }
        }
    }

    /// The protocol meets the first octet of the source, and the ports the last bytes of an IPv6
    /// prefix: pairs of flows that are the same after that exclusive or.
    #[test]
    fn address_and_ports_do_not_cancel_out() {
        let server = mapped([198, 51, 100, 7]);
        let tcp = hash(&mapped([10, 0, 0, 1]), &server, 1000, 443, 6);
        let udp = hash(&mapped([10 ^ 6 ^ 17, 0, 0, 1]), &server, 1000, 443, 17);
        assert_ne!(tcp, udp);
        let (one, mut other) = ([0x20; 16], [0x20; 16]);
        other[8] ^= 1;
        assert_ne!(hash(&one, &server, 9, 2, 6), hash(&other, &server, 9, 3, 6));
    }

    #[test]
    fn direction_and_protocol_count() {
        let (a, b) = (mapped([10, 0, 0, 1]), mapped([10, 0, 0, 2]));
        let there = hash(&a, &b, 1000, 2000, 6);
        assert_ne!(there, hash(&b, &a, 2000, 1000, 6));
        assert_ne!(there, hash(&a, &b, 2000, 1000, 6));
        assert_ne!(there, hash(&a, &b, 1000, 2000, 17));
        assert_eq!(there, hash(&a, &b, 1000, 2000, 6));
    }
}
