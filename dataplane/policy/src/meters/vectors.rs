//! What the processor's AES and AVX2 do for meters; without them the portable code does it.
//!
//! The `unsafe` here is worth what `policy/rate-limit` of the bench shows: a key is hashed in 4 instructions
//! in place of some 25, and looked for in a set in 5 in place of 14.
#![expect(unsafe_code, reason = "instructions that not every processor has")]

#[cfg(all(target_arch = "x86_64", not(miri)))]
pub(super) use x86::Vectors;

#[cfg(all(target_arch = "x86_64", not(miri)))]
mod x86 {
    use core::arch::{
        asm,
        x86_64::{
            __m128i, _mm_aesenc_si128, _mm_and_si128, _mm_castsi128_ps, _mm_cmpeq_epi32,
            _mm_cvtsi128_si64, _mm_loadu_si128, _mm_movemask_ps, _mm_xor_si128, _mm256_set1_epi64x,
        },
    };
    use std::{array, sync::atomic::AtomicU64};

    use crate::meters::{
        Charges, Find, WAYS,
        keys::{MAPPED, PrefixMasks},
    };

    /// A sign that the processor has what is used here.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Vectors(());

    impl Vectors {
        /// If the processor has it.
        pub(crate) fn new() -> Option<Self> {
            let has = is_x86_feature_detected!("aes")
                && is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("bmi1");
            has.then_some(Self(()))
        }

        #[inline]
        pub(crate) fn hash_each(
            self,
            secret: [[u8; 16]; 3],
            keys: impl Iterator<Item = [u8; 16]>,
            hashes: &mut [u64],
            then: impl Fn(u64),
        ) {
            // SAFETY: `self` was made where the processor has the instructions.
            unsafe { hash_each(secret, keys, hashes, then) }
        }

        #[inline]
        pub(crate) fn hash_each_prefix(
            self,
            secret: [[u8; 16]; 3],
            masks: PrefixMasks,
            addresses: impl Iterator<Item = [u8; 16]>,
            hashes: &mut [u64],
            then: impl Fn(u64),
        ) {
            // SAFETY: as above.
            unsafe { hash_each_prefix(secret, masks, addresses, hashes, then) }
        }

        #[inline]
        pub(crate) fn charge_each<const IS_SHARED: bool>(self, charges: Charges<'_>) {
            // SAFETY: as above.
            unsafe { charge_each::<IS_SHARED>(charges) }
        }
    }

    #[target_feature(enable = "aes,avx2")]
    fn hash_each(
        secret: [[u8; 16]; 3],
        keys: impl Iterator<Item = [u8; 16]>,
        hashes: &mut [u64],
        then: impl Fn(u64),
    ) {
        let secret = secret.map(|bytes| vector(bytes));
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = hash_one(secret, vector(key));
            then(*hash);
        }
    }

    #[target_feature(enable = "aes,avx2")]
    fn hash_each_prefix(
        secret: [[u8; 16]; 3],
        masks: PrefixMasks,
        addresses: impl Iterator<Item = [u8; 16]>,
        hashes: &mut [u64],
        then: impl Fn(u64),
    ) {
        let secret = secret.map(|bytes| vector(bytes));
        let mapped = vector(array::from_fn(|byte| MAPPED.get(byte).copied().unwrap_or(0)));
        // By which of an address's four words are those of a mapped one.
        let masks: [__m128i; 16] =
            array::from_fn(|words| vector(if words & 7 == 7 { masks.v4 } else { masks.v6 }));
        for (hash, address) in hashes.iter_mut().zip(addresses) {
            let address = vector(address);
            let words = _mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(address, mapped)));
            let mask = masks.get(words as usize & 15).copied().unwrap_or(mapped);
            *hash = hash_one(secret, _mm_and_si128(address, mask));
            then(*hash);
        }
    }

    #[inline]
    #[target_feature(enable = "aes,avx2")]
    fn hash_one([whitening, first, second]: [__m128i; 3], key: __m128i) -> u64 {
        let mixed = _mm_aesenc_si128(_mm_xor_si128(key, whitening), first);
        _mm_cvtsi128_si64(_mm_aesenc_si128(mixed, second)).cast_unsigned()
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn vector(bytes: [u8; 16]) -> __m128i {
        // SAFETY: it reads the 16 bytes, which need no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx2,bmi1")]
    fn charge_each<const IS_SHARED: bool>(charges: Charges<'_>) {
        charges.each::<Avx2, IS_SHARED>();
    }

    /// Compares with all tags at once.
    struct Avx2;

    impl Find for Avx2 {
        #[inline(always)]
        fn find(tags: &[AtomicU64; WAYS], tag: u64) -> Option<usize> {
            // SAFETY: the type is private to this module, which uses it where the processor has AVX2 alone.
            let found = unsafe { equal(tags, tag) };
            (found != 0).then(|| found.trailing_zeros() as usize)
        }
    }

    /// Which of the tags are equal to `tag`: the n-th bit for the n-th.
    #[inline]
    #[target_feature(enable = "avx2,bmi1")]
    fn equal(tags: &[AtomicU64; WAYS], tag: u64) -> u32 {
        let found: u32;
        // SAFETY: it reads the four tags and writes nothing. That another thread may be storing one is no race:
        // each lies aligned, and the processor reads it in one piece (Intel SDM volume 3, "Guaranteed Atomic
        // Operations"); as assembly, the compiler takes it for what the processor does.
        unsafe {
            asm!(
                "vpcmpeqq {equal}, {equal}, ymmword ptr [{tags}]",
                "vmovmskpd {found:e}, {equal}",
                equal = inout(ymm_reg) _mm256_set1_epi64x(tag.cast_signed()) => _,
                tags = in(reg) tags.as_ptr(),
                found = lateout(reg) found,
                options(pure, readonly, nostack, preserves_flags),
            );
        }
        found
    }
}

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(super) use none::Vectors;

#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod none {
    use crate::meters::{Charges, keys::PrefixMasks};

    /// No processor has it.
    #[derive(Clone, Copy, Debug)]
    pub(crate) enum Vectors {}

    impl Vectors {
        pub(crate) const fn new() -> Option<Self> {
            None
        }

        pub(crate) fn hash_each(
            self,
            _: [[u8; 16]; 3],
            _: impl Iterator<Item = [u8; 16]>,
            _: &mut [u64],
            _: impl Fn(u64),
        ) {
            match self {}
        }

        pub(crate) fn hash_each_prefix(
            self,
            _: [[u8; 16]; 3],
            _: PrefixMasks,
            _: impl Iterator<Item = [u8; 16]>,
            _: &mut [u64],
            _: impl Fn(u64),
        ) {
            match self {}
        }

        pub(crate) fn charge_each<const IS_SHARED: bool>(self, _: Charges<'_>) {
            match self {}
        }
    }
}
