//! The addresses of this machine, of which every packet's source has to be asked.
//!
//! ```text
//!   last 32 bits --hash--> filter, one cache line: clear means another's
//!                            | set
//!                            v
//!                          the set
//! ```
//!
//! Nothing that comes from a wire has one of them for its source (RFC 1812 section 5.3.7): a neighbor that
//! used one could pass off its packets as those of a tunnel from here.

use std::collections::HashSet;
use std::net::IpAddr;

/// Bits of the filter, as a power of two. With the twenty addresses of a machine with several interfaces
/// one ordinary packet in 25 is asked about in the set.
const FILTER_BITS_LOG2: u32 = 9;

/// Own addresses, egress addresses left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    filter: [u64; (1 << FILTER_BITS_LOG2) / 64],
    addresses: HashSet<IpAddr>,
}

/// Word and bit of the filter for an address by its last 32 bits. Multiplicative hashing: Knuth, "The Art
/// of Computer Programming", volume 3, section 6.4.
#[inline(always)]
const fn place(last_bits: u32) -> (usize, u64) {
    let hash = last_bits.wrapping_mul(0x9e37_79b1) >> (u32::BITS - FILTER_BITS_LOG2);
    ((hash / 64) as usize, 1 << (hash % 64))
}

impl OwnAddresses {
    /// Whether the address may be one of them, by its last 32 bits in host order. If not, it is none for
    /// certain.
    #[inline]
    #[must_use]
    pub fn may_contain(&self, last_bits: u32) -> bool {
        let (word, bit) = place(last_bits);
        self.filter[word] & bit != 0
    }

    /// Whether the address is one of them.
    #[must_use]
    pub fn contains(&self, address: &IpAddr) -> bool {
        self.addresses.contains(address)
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.iter()
    }
}

impl FromIterator<IpAddr> for OwnAddresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        let mut own = Self::default();
        for address in addresses {
            let last_bits = match address {
                IpAddr::V4(address) => address.to_bits(),
                IpAddr::V6(address) => address.to_bits() as u32,
            };
            let (word, bit) = place(last_bits);
            own.filter[word] |= bit;
            own.addresses.insert(address);
        }
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_lets_every_own_address_pass_and_few_others() {
        let addresses: Vec<IpAddr> = (0..10_u32)
            .map(|n| IpAddr::from((0x0a00_0001 + (n << 8)).to_be_bytes()))
            .chain(
                (0..10_u128)
                    .map(|n| IpAddr::from(((0x2001_0db8 << 96) + (n << 64) + 1).to_be_bytes())),
            )
            .collect();
        let own: OwnAddresses = addresses.iter().copied().collect();
        for address in &addresses {
            assert!(own.contains(address));
            match address {
                IpAddr::V4(address) => assert!(own.may_contain(address.to_bits())),
                IpAddr::V6(address) => assert!(own.may_contain(address.to_bits() as u32)),
            }
        }
        assert!(!own.contains(&IpAddr::from([10, 0, 0, 2])));
        let others =
            (0..100_000_u32).filter(|n| own.may_contain(n.wrapping_mul(0x0001_0203))).count();
        assert!(others < 10_000, "{others} of 100,000");
    }

    #[test]
    fn none_are_nobodys() {
        assert!((0..1000).all(|n| !OwnAddresses::default().may_contain(n)));
    }
}
