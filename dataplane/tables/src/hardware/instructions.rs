//! One piece of code compiled for several sets of vector instructions, of which the processor's best is
//! chosen when a table is built.
//!
//! No intrinsics: the compiler makes the same instructions of plain loops. What is worth the `unsafe`
//! call is measured by "fib6" of the bench, with and without AVX-512: the portable code, which has
//! SSE2 and no comparison of 64-bit lanes, takes twice the time.

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

/// A piece of work to be compiled for each set.
pub(crate) trait Work {
    /// Does it; `WIDE` where vectors of 64-bit integers can be compared. To be marked
    /// `#[inline(always)]`: what is not inlined is compiled for any processor.
    fn run<const WIDE: bool>(self);
}

/// Does the work with these instructions.
#[inline]
pub(crate) fn run(instructions: Instructions, work: impl Work) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx2<W: Work>(work: W) {
            work.run::<true>();
        }

        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,bmi1,bmi2,popcnt,lzcnt")]
        fn avx512<W: Work>(work: W) {
            work.run::<true>();
        }

        match instructions.0 {
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
    work.run::<false>();
}
