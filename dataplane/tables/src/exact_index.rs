//! The longest of some prefixes that holds an address, where few addresses lie in any: egress prefixes,
//! and routes that a table does not have yet.
//!
//! ```text
//!   address --first `shared_bits` bits--> hash --> filter: clear means an ordinary address
//!                                                    | set
//!                                                    v
//!                       exact tables of the prefixes, longest first
//! ```
//!
//! Every packet's source and destination are asked, and nearly all are ordinary. `shared_bits` is
//! the length of the shortest prefix, so whatever lies in a prefix has the same such
//! bits as the prefix: a clear bit is certain. With eight or more bits of filter a prefix, few
//! ordinary addresses pass it, and those only cost time.
//!
//! Hashing is not a defence here: which addresses stand in the tables is the operator's choice, and
//! what remote ends choose is only looked up.

use std::hash::{BuildHasher, Hash};

use rustc_hash::{FxBuildHasher, FxHashMap};

/// An address as an unsigned integer in host order.
pub(crate) trait Address: Copy + Eq + Hash {
    /// Width in bits.
    const BITS: u8;

    /// The first `bits` bits, moved to the right; zero for none.
    fn first_bits(self, bits: u8) -> Self;
}

macro_rules! address {
    ($integer:ty) => {
        impl Address for $integer {
            const BITS: u8 = Self::BITS as u8;

            #[inline(always)]
            fn first_bits(self, bits: u8) -> Self {
                self.checked_shr(u32::from(<Self as Address>::BITS - bits)).unwrap_or(0)
            }
        }
    };
}

address!(u32);
address!(u128);

/// The smallest filter is one cache line and the largest 128 KiB.
const FILTER_BITS: std::ops::RangeInclusive<usize> = 512..=1 << 20;
/// Bits of filter a prefix, before rounding up to a power of two: at most one ordinary address in
/// eight passes.
const FILTER_BITS_PER_PREFIX: usize = 8;

/// Prefixes of one address family.
pub(crate) struct ExactIndex<A> {
    shared_bits: u8,
    /// A power of two of words.
    filter: Box<[u64]>,
    /// From the longest prefix to the shortest.
    exact: Box<[Exact<A>]>,
}

/// The prefixes of one length.
struct Exact<A> {
    length: u8,
    /// Values by the prefixes' own bits, moved to the right.
    values: FxHashMap<A, u32>,
}

impl<A: Address> ExactIndex<A> {
    /// An index from (address, prefix length) to a value.
    pub(crate) fn new(entries: Vec<(A, u8, u32)>) -> Self {
        let shared_bits = entries.iter().map(|&(_, length, _)| length).min().unwrap_or(0);
        let filter_bits = (entries.len() * FILTER_BITS_PER_PREFIX)
            .next_power_of_two()
            .clamp(*FILTER_BITS.start(), *FILTER_BITS.end());
        let mut filter = vec![0; filter_bits / 64].into_boxed_slice();
        let mut by_length: Vec<FxHashMap<A, u32>> = Vec::new();
        by_length.resize_with(usize::from(A::BITS) + 1, FxHashMap::default);
        for (address, length, value) in entries {
            let (word, bit) = filter_place(address.first_bits(shared_bits), filter.len());
            filter[word] |= bit;
            by_length[usize::from(length)].insert(address.first_bits(length), value);
        }
        let exact = (0..=A::BITS).zip(by_length).rev().filter(|(_, values)| !values.is_empty());
        let exact = exact.map(|(length, values)| Exact { length, values }).collect();
        Self { shared_bits, filter, exact }
    }

    /// The value of the longest prefix that holds `address`.
    #[inline]
    pub(crate) fn longest(&self, address: A) -> Option<u32> {
        let (word, bit) = filter_place(address.first_bits(self.shared_bits), self.filter.len());
        if self.filter[word] & bit == 0 { None } else { self.longest_exact(address) }
    }

    fn longest_exact(&self, address: A) -> Option<u32> {
        self.exact
            .iter()
            .find_map(|exact| exact.values.get(&address.first_bits(exact.length)).copied())
    }

    /// Bytes that look-ups read.
    pub(crate) fn bytes(&self) -> usize {
        // hashbrown: one control byte a bucket beside the entry.
        let entry = size_of::<(A, u32)>() + 1;
        let exact = self.exact.iter().map(|exact| exact.values.capacity() * 8 / 7 * entry);
        size_of_val(&*self.filter) + exact.sum::<usize>()
    }
}

/// The word and the bit of a filter of `words` words, a power of two.
#[inline(always)]
fn filter_place<A: Address>(shared: A, words: usize) -> (usize, u64) {
    let hash = FxBuildHasher.hash_one(shared) as usize;
    ((hash / 64) & (words - 1), 1 << (hash % 64))
}
