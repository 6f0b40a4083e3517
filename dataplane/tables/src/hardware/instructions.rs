//! One piece of code compiled for several sets of vector instructions, of which the processor's best is
//! chosen when a table is built.
//!
//! The `unsafe` here is worth what "fib6" of the bench shows with `+avx2` and `+portable`: the portable
//! code has SSE2, which does not compare 64-bit integers. Left to itself the compiler makes worse code
//! of AVX-512 than of AVX2, since it gathers the nodes of several look-ups; hence the intrinsics.

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::Gather;

/// Vector instructions that a look-up may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instructions(Set);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// With AVX512-VPOPCNTDQ, and quick gathers: Sapphire Rapids, Zen 4 and newer.
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    Avx512Popcount(Gather),
}

impl Instructions {
    /// What every processor has.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// AVX2, where the processor has it.
    #[must_use]
    pub fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
        {
            return Some(Self(Set::Avx2));
        }
        None
    }

    /// AVX-512, where the processor has it.
    #[must_use]
    pub fn avx512() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::avx2().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            #[cfg(not(any(miri, loom)))]
            if let Some(gather) = Gather::new() {
                return Some(Self(Set::Avx512Popcount(gather)));
            }
            return Some(Self(Set::Avx512));
        }
        None
    }

    /// The widest that the processor has.
    #[must_use]
    pub fn best() -> Self {
        Self::avx512().or_else(Self::avx2).unwrap_or(Self::PORTABLE)
    }
}

/// How many of eight rising keys are below another.
pub(crate) trait Count {
    fn below(keys: &[i64; 8], x: i64) -> usize;
}

/// In four comparisons of the eight: two find the third, two count within it.
struct Portable;

impl Count for Portable {
    #[inline(always)]
    fn below(keys: &[i64; 8], x: i64) -> usize {
        let below = |n: usize| usize::from(keys[n & 7] < x);
        let third = 3 * (below(2) + below(5));
        third + below(third) + below(third + 1)
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        _mm256_castsi256_pd, _mm256_cmpgt_epi64, _mm256_loadu_si256, _mm256_movemask_pd,
        _mm256_set1_epi64x, _mm512_cmplt_epi64_mask, _mm512_loadu_si512, _mm512_set1_epi64,
    };

    use super::Count;

    pub(super) struct Avx2;

    impl Count for Avx2 {
        #[inline(always)]
        fn below(keys: &[i64; 8], x: i64) -> usize {
            // SAFETY: the type is private to the parent, which runs it where the processor has AVX2
            // and POPCNT alone. The loads are of the eight keys that the reference is for, and need no
            // alignment; nobody writes to a shared reference's integers.
            unsafe {
                let x = _mm256_set1_epi64x(x);
                let low = _mm256_loadu_si256(keys.as_ptr().cast());
                let high = _mm256_loadu_si256(keys.as_ptr().add(4).cast());
                let low = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(x, low)));
                let high = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpgt_epi64(x, high)));
                (low | high << 4).count_ones() as usize
            }
        }
    }

    pub(super) struct Avx512;

    impl Count for Avx512 {
        #[inline(always)]
        fn below(keys: &[i64; 8], x: i64) -> usize {
            // SAFETY: as above, with AVX-512F and POPCNT.
            unsafe {
                let keys = _mm512_loadu_si512(keys.as_ptr().cast());
                _mm512_cmplt_epi64_mask(keys, _mm512_set1_epi64(x)).count_ones() as usize
            }
        }
    }
}

/// A piece of work to be compiled for each set.
pub(crate) trait Work {
    /// Does it. To be marked `#[inline(always)]`: what is not inlined is compiled for any processor.
    fn run<C: Count>(self);

    /// Does it where the processor gathers and counts bits in vectors.
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[inline(always)]
    fn run_gathering(self, _gather: Gather)
    where
        Self: Sized,
    {
        self.run::<x86::Avx512>();
    }
}

/// Does the work with these instructions.
#[inline]
pub(crate) fn run(instructions: Instructions, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx2(work: impl Work) {
            work.run::<x86::Avx2>();
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx512(work: impl Work) {
            work.run::<x86::Avx512>();
        }

        #[cfg(not(any(miri, loom)))]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx512_gathering(work: impl Work, gather: Gather) {
            work.run_gathering(gather);
        }

        match instructions.0 {
            #[cfg(not(any(miri, loom)))]
            // SAFETY: as for the next, by `Gather::new` as well, which asks for more.
            Set::Avx512Popcount(gather) => return unsafe { avx512_gathering(work, gather) },
            // SAFETY: such a value is made by `Instructions::avx512` alone, where the processor has
            // the instructions. (No processor with AVX2 lacks BMI1 or LZCNT.) The call touches no
            // memory but the work's own.
            Set::Avx512 => return unsafe { avx512(work) },
            // SAFETY: likewise by `Instructions::avx2`.
            Set::Avx2 => return unsafe { avx2(work) },
            Set::Portable => {}
        }
    }
    let _ = instructions;
    work.run::<Portable>();
}
