//! One piece of code compiled for several sets of vector instructions, of which the processor's best is
//! chosen when a table is built.
//!
//! The `unsafe` here is worth what the bench shows with `+avx512`, `+avx2` and `+portable`. "fib6": the portable
//! code has SSE2, which does not compare 64-bit integers. "fib4": it neither counts bits nor shifts by what is
//! in any register. Left to itself the compiler makes worse code
//! of AVX-512 than of AVX2, since it gathers the nodes of several look-ups; hence the intrinsics.

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
use super::gather::{self, Gather};

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
    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    Avx512Gather(Gather),
}

impl Instructions {
    /// What every processor has.
    pub const PORTABLE: Self = Self(Set::Portable);

    /// All that this processor has, the widest first, by their names:
    ///
    /// | name | processors whose best it is | for instance |
    /// |---|---|---|
    /// | `avx512-gather` | AMD from Zen 4, Intel from Sapphire Rapids; Ice Lake with nothing against Downfall | c7i, c7a |
    /// | `avx512` | Ice Lake, where gathers are slow or may be: with the microcode against Downfall, in virtual machines | c6i, c6in |
    /// | `avx2` | Intel from Haswell to Cascade Lake, AMD to Zen 3 | c5n, m5n, c5a, c6a |
    /// | `portable` | what has none of these, and other architectures | |
    ///
    /// Skylake and Cascade Lake have AVX-512 as well, but lower the clock of a core that uses 512 bits for all
    /// that it does (Intel, "Optimization Reference Manual", "Skylake Server Power Management"), and most of what
    /// a core does with a packet is no look-up. What they lack and later ones have is AVX512-VPOPCNTDQ.
    pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
        let sets = [
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            ("avx512-gather", Gather::new().map(|gather| Self(Set::Avx512Gather(gather)))),
            ("avx512", Self::avx512()),
            ("avx2", Self::avx2()),
            ("portable", Some(Self::PORTABLE)),
        ];
        sets.into_iter().filter_map(|(name, set)| Some((name, set?)))
    }

    /// The widest that is worth it on this processor.
    #[must_use]
    pub fn best() -> Self {
        Self::all().find(|(_, set)| set.is_quick()).map_or(Self::PORTABLE, |(_, set)| set)
    }

    fn avx2() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("popcnt")
        {
            return Some(Self(Set::Avx2));
        }
        None
    }

    fn avx512() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if Self::avx2().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
        {
            return Some(Self(Set::Avx512));
        }
        None
    }

    fn is_quick(self) -> bool {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
            Set::Avx512Gather(_) => gather::are_quick_here(),
            _ => true,
        }
    }
}

/// Comparisons of many with one.
pub(crate) trait Compare {
    /// How many of eight rising keys are below another.
    fn below(keys: &[i64; 8], x: i64) -> usize;

    /// Which of 64 are not below another: the n-th bit for the n-th.
    fn at_least(values: &[u16; 64], least: u16) -> u64;
}

/// In four comparisons of the eight: two find the third, two count within it.
struct Portable;

impl Compare for Portable {
    #[inline(always)]
    fn below(keys: &[i64; 8], x: i64) -> usize {
        let below = |n: usize| usize::from(keys[n & 7] < x);
        let third = 3 * (below(2) + below(5));
        third + below(third) + below(third + 1)
    }

    #[inline(always)]
    fn at_least(values: &[u16; 64], least: u16) -> u64 {
        values.iter().rev().fold(0, |found, &value| found << 1 | u64::from(value >= least))
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use core::arch::x86_64::{
        _mm256_castsi256_ps, _mm256_cmpeq_epi16, _mm256_cmpgt_epi64, _mm256_loadu_si256,
        _mm256_max_epu16, _mm256_movemask_epi8, _mm256_movemask_ps, _mm256_packs_epi16,
        _mm256_packs_epi32, _mm256_permute4x64_epi64, _mm256_set1_epi16, _mm256_set1_epi64x,
        _mm512_cmpge_epu16_mask, _mm512_cmplt_epi64_mask, _mm512_loadu_si512, _mm512_set1_epi16,
        _mm512_set1_epi64,
    };

    use super::Compare;

    pub(super) struct Avx2;

    impl Compare for Avx2 {
        #[inline(always)]
        fn below(keys: &[i64; 8], x: i64) -> usize {
            // SAFETY: the type is private to the parent, which runs it where the processor has AVX2
            // and POPCNT alone. The loads are of the eight keys that the reference is for, and need no
            // alignment; nobody writes to a shared reference's integers.
            unsafe {
                let x = _mm256_set1_epi64x(x);
                let low = _mm256_loadu_si256(keys.as_ptr().cast());
                let high = _mm256_loadu_si256(keys.as_ptr().add(4).cast());
                // In which order they are packed does not matter.
                let all =
                    _mm256_packs_epi32(_mm256_cmpgt_epi64(x, low), _mm256_cmpgt_epi64(x, high));
                (_mm256_movemask_ps(_mm256_castsi256_ps(all)) as u32).count_ones() as usize
            }
        }

        #[inline(always)]
        fn at_least(values: &[u16; 64], least: u16) -> u64 {
            let (values, _) = values.as_chunks::<16>();
            both(&values[0], &values[1], least) | both(&values[2], &values[3], least) << 32
        }
    }

    /// Which of twice sixteen are not below another.
    #[inline(always)]
    fn both(values: &[u16; 16], others: &[u16; 16], least: u16) -> u64 {
        // SAFETY: as above.
        unsafe {
            let least = _mm256_set1_epi16(least as i16);
            let values = _mm256_loadu_si256(values.as_ptr().cast());
            let others = _mm256_loadu_si256(others.as_ptr().cast());
            let values = _mm256_cmpeq_epi16(_mm256_max_epu16(values, least), values);
            let others = _mm256_cmpeq_epi16(_mm256_max_epu16(others, least), others);
            // It packs halves, whose quarters then lie 0, 2, 1, 3.
            let packed = _mm256_packs_epi16(values, others);
            let bytes = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            u64::from(_mm256_movemask_epi8(bytes) as u32)
        }
    }

    pub(super) struct Avx512;

    impl Compare for Avx512 {
        #[inline(always)]
        fn below(keys: &[i64; 8], x: i64) -> usize {
            // SAFETY: as above, with AVX-512F and POPCNT.
            unsafe {
                let keys = _mm512_loadu_si512(keys.as_ptr().cast());
                _mm512_cmplt_epi64_mask(keys, _mm512_set1_epi64(x)).count_ones() as usize
            }
        }

        #[inline(always)]
        fn at_least(values: &[u16; 64], least: u16) -> u64 {
            // SAFETY: as above, with AVX-512BW.
            unsafe {
                let least = _mm512_set1_epi16(least as i16);
                let low = _mm512_loadu_si512(values.as_ptr().cast());
                let high = _mm512_loadu_si512(values.as_ptr().add(32).cast());
                let low = _mm512_cmpge_epu16_mask(low, least);
                let high = _mm512_cmpge_epu16_mask(high, least);
                u64::from(low) | u64::from(high) << 32
            }
        }
    }
}

/// A piece of work to be compiled for each set.
pub(crate) trait Work {
    /// Does it. To be marked `#[inline(always)]`: what is not inlined is compiled for any processor.
    fn run<C: Compare>(self);

    /// Does it where the processor gathers.
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
            // SAFETY: such a `Gather` is made where the processor has AVX-512 (and no processor with it lacks
            // AVX2, BMI1, BMI2 or LZCNT) alone. The call touches no memory but the work's own.
            Set::Avx512Gather(gather) => return unsafe { avx512_gathering(work, gather) },
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Compares by the set that it is run with.
    struct Comparisons<'a> {
        keys: [i64; 8],
        values: [u16; 64],
        x: i64,
        least: u16,
        found: &'a mut (usize, u64),
    }

    impl Work for Comparisons<'_> {
        #[inline(always)]
        fn run<C: Compare>(self) {
            *self.found = (C::below(&self.keys, self.x), C::at_least(&self.values, self.least));
        }
    }

    #[test]
    fn each_set_compares_alike() {
        let keys = [i64::MIN, -9, -8, 0, 1, 1, 70_000, i64::MAX];
        let values: [u16; 64] = std::array::from_fn(|n| (n as u16).wrapping_mul(40_503));
        for (name, set) in Instructions::all() {
            for x in keys.into_iter().flat_map(|x| [x, x.wrapping_sub(1), x.wrapping_add(1)]) {
                let least = (x as u16).wrapping_mul(977);
                let mut found = (0, 0);
                run(set, Comparisons { keys, values, x, least, found: &mut found });
                let below = keys.iter().filter(|&&key| key < x).count();
                let bits = (0..64).filter(|&n| values[n] >= least).map(|n| 1 << n);
                assert_eq!(found, (below, bits.sum()), "{name}: {x} and {least}");
            }
        }
    }

    #[test]
    fn sets_are_named_from_the_widest_to_what_all_have() {
        let names: Vec<_> = Instructions::all().map(|(name, _)| name).collect();
        assert_eq!(names.last(), Some(&"portable"));
        assert!(Instructions::all().any(|(_, set)| set == Instructions::best()));
        let mut sorted = names.clone();
        sorted.sort_unstable_by_key(|name| {
            ["avx512-gather", "avx512", "avx2", "portable"].iter().position(|known| known == name)
        });
        assert_eq!(names, sorted);
    }
}
