//! Hashes of keys, keyed anew in each process: nobody can aim keys at one place.
//!
//! Where the processor has AES instructions a hash is two rounds of AES, after which each byte depends on all
//! of the key's. They are worth what `policy/rate-limit` of the bench shows: 16 bytes in 4 instructions,
//! where the portable hash takes some 25.

use std::{
    array,
    hash::{BuildHasher, RandomState},
};

use crate::meters::vectors::Vectors;

/// A hash of keys of 16 bytes.
#[derive(Clone, Debug)]
pub(crate) enum KeyHash {
    Aes(Vectors, [[u8; 16]; 3]),
    Portable(ahash::RandomState),
}

impl KeyHash {
    /// The quickest on this processor.
    pub(crate) fn new() -> Self {
        Vectors::new().map_or_else(Self::portable, |vectors| {
            let (one, other) = (RandomState::new(), RandomState::new());
            let key = |number: usize| {
                let halves = [&one, &other].map(|seed| seed.hash_one(number).to_ne_bytes());
                *halves.as_flattened().first_chunk().expect("two halves of 8 bytes")
            };
            Self::Aes(vectors, array::from_fn(key))
        })
    }

    /// What every processor has.
    pub(crate) fn portable() -> Self {
        Self::Portable(keyed_hasher())
    }

    /// Hashes keys, as many as there are places for hashes, and hands each hash on.
    #[inline]
    pub(crate) fn each(
        &self,
        keys: impl Iterator<Item = [u8; 16]>,
        hashes: &mut [u64],
        then: impl Fn(u64),
    ) {
        match self {
            Self::Aes(vectors, secret) => vectors.hash_each(*secret, keys, hashes, then),
            Self::Portable(hasher) => portable(hasher, keys, hashes, then),
        }
    }

    /// The same for the prefixes of addresses.
    #[inline]
    pub(crate) fn each_prefix(
        &self,
        masks: PrefixMasks,
        addresses: impl Iterator<Item = [u8; 16]>,
        hashes: &mut [u64],
        then: impl Fn(u64),
    ) {
        match self {
            Self::Aes(vectors, secret) => {
                vectors.hash_each_prefix(*secret, masks, addresses, hashes, then);
            }
            Self::Portable(hasher) => {
                portable(hasher, addresses.map(|address| masks.key(address)), hashes, then);
            }
        }
    }
}

fn portable(
    hasher: &ahash::RandomState,
    keys: impl Iterator<Item = [u8; 16]>,
    hashes: &mut [u64],
    then: impl Fn(u64),
) {
    for (hash, key) in hashes.iter_mut().zip(keys) {
        *hash = hasher.hash_one(u128::from_ne_bytes(key));
        then(*hash);
    }
}

/// A hasher with a key of its own. The standard library's is keyed by the operating system's random numbers;
/// its output keys the quicker one.
pub(crate) fn keyed_hasher() -> ahash::RandomState {
    let seed = RandomState::new();
    let [a, b, c, d] = [1_u64, 2, 3, 4].map(|number| seed.hash_one(number));
    ahash::RandomState::with_seeds(a, b, c, d)
}

/// What an IPv4 address begins with among IPv6 addresses (RFC 4291, section 2.5.5.2).
pub(super) const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// Which bits of an address belong to a key: those of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PrefixMasks {
    /// For IPv4 addresses, which are mapped.
    pub(super) v4: [u8; 16],
    pub(super) v6: [u8; 16],
}

impl PrefixMasks {
    /// For IPv4 prefixes of `len4` bits and IPv6 prefixes of `len6`; `None` if there are no such.
    pub(crate) fn new(len4: i32, len6: i32) -> Option<Self> {
        let mask = |len: i32, bits: u32| {
            let len = u32::try_from(len).ok().filter(|len| *len <= bits)?;
            Some(u128::MAX.checked_shl(bits - len).unwrap_or(0).to_be_bytes())
        };
        Some(Self { v4: mask(len4, 32)?, v6: mask(len6, 128)? })
    }

    fn key(&self, address: [u8; 16]) -> [u8; 16] {
        let mask = if address.starts_with(&MAPPED) { self.v4 } else { self.v6 };
        (u128::from_ne_bytes(address) & u128::from_ne_bytes(mask)).to_ne_bytes()
    }
}
