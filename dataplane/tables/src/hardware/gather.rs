//! Look-ups in the IPv4 table sixteen at a time, with AVX-512.
//!
//! ```text
//!   16 destinations --gather--> 16 entries --gather--> 2 * 8 bitmaps --count--> --gather--> 16 values
//!                                                              those in groups, listed: the same again
//! ```
//!
//! It is worth what "fib4" of the bench shows with `+avx512`: a look-up in blocks is some 20 instructions,
//! and one by one they take longer than the misses.
//!
//! The `unsafe` here is the gathers. They read what another thread may be storing. That is no race: each
//! element is one aligned load of 32 or 64 bits, which the processor does in one piece (Intel SDM volume
//! 3, "Guaranteed Atomic Operations"; gathers load element by element) and in order with what depends on it;
//! and they are assembly, so that the compiler takes them for what the processor does. Bounds: every index
//! is masked to the array.

use core::arch::asm;
use core::arch::x86_64::{
    __m256i, __m512i, _mm256_mask_storeu_epi16, _mm512_add_epi32, _mm512_and_si512,
    _mm512_castsi256_si512, _mm512_castsi512_si256, _mm512_cmpge_epu32_mask, _mm512_cvtepi32_epi16,
    _mm512_cvtepi64_epi32, _mm512_cvtepu32_epi64, _mm512_extracti64x4_epi64, _mm512_inserti64x4,
    _mm512_mask_blend_epi32, _mm512_mask_expand_epi32, _mm512_maskz_and_epi32,
    _mm512_maskz_compress_epi32, _mm512_maskz_loadu_epi32, _mm512_movepi32_mask,
    _mm512_permutexvar_epi32, _mm512_popcnt_epi64, _mm512_set_epi32, _mm512_set1_epi32,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32,
    _mm512_srlv_epi32, _mm512_srlv_epi64, _mm512_sub_epi32, _mm512_sub_epi64,
};

use std::sync::OnceLock;

use crate::RouteId;
use crate::fib4::{BLOCK, FIRST_GROUP, GROUP_WORDS, INDEX, STAGE, WORDS, shape};
use crate::sync::{AtomicU32, AtomicU64};

/// Elements of a vector of 32 bits.
const LANES: usize = 16;
/// Vectors of a stage.
const CHUNKS: usize = STAGE / LANES;

const _: () = assert!(
    shape::PLACE_BITS == 6
        && shape::INNER_BITS == 6
        && shape::QUARTER_BITS == 2
        && GROUP_WORDS == 2
);
const _: () = assert!(STAGE.is_multiple_of(LANES) && WORDS.is_power_of_two());

/// What the kernel says of Gather Data Sampling (Intel-SA-00828): its
/// Documentation/admin-guide/hw-vuln/gather_data_sampling.rst.
const SAMPLING_STATE: &str = "/sys/devices/system/cpu/vulnerabilities/gather_data_sampling";

/// Whether gathers are worth it, by the kernel's word. The microcode against Gather Data Sampling (processors
/// from Skylake to Ice Lake) has each wait for all of its loads; a virtual machine is not told whether its
/// host has it, and takes it for given.
fn are_quick(sampling_state: &str) -> bool {
    !["Mitigation", "Unknown"].iter().any(|word| sampling_state.starts_with(word))
}

/// The same of this machine, where nothing is known of it as well.
pub(super) fn are_quick_here() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        std::fs::read_to_string(SAMPLING_STATE).map_or(true, |state| are_quick(&state))
    })
}

/// A sign that the processor has what the look-ups here need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gather(());

impl Gather {
    /// If the processor has it; whether it is worth while is another question.
    pub(super) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vpopcntdq")
            && is_x86_feature_detected!("popcnt");
        has.then_some(Self(()))
    }

    /// Looks up at most `STAGE` destinations in the IPv4 table.
    #[inline(always)]
    pub(crate) fn look_up4(
        self,
        index: &[AtomicU32; INDEX],
        words: &[AtomicU64; WORDS],
        destinations: &[u32],
        results: &mut [RouteId],
    ) {
        // SAFETY: `self` was made where the processor has these instructions.
        unsafe { look_up4(index, words, destinations, results) }
    }
}

/// Sixteen elements of `index`, at these positions in it.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather32<const LEN: usize>(array: &[AtomicU32; LEN], positions: __m512i) -> __m512i {
    const { assert!(LEN.is_power_of_two() && LEN <= 1 << 31) };
    let positions = _mm512_and_si512(positions, _mm512_set1_epi32((LEN - 1) as i32));
    // SAFETY: the positions are within the array. See the head of this file for who else writes.
    unsafe { gather32_raw(array.as_ptr().cast(), positions) }
}

/// Sixteen halves of `words`, at these positions in halves.
#[inline]
#[target_feature(enable = "avx512f")]
fn gather_halves(words: &[AtomicU64; WORDS], positions: __m512i) -> __m512i {
    let positions = _mm512_and_si512(positions, _mm512_set1_epi32(2 * WORDS as i32 - 1));
    // SAFETY: as above; the array has twice as many halves as words.
    unsafe { gather32_raw(words.as_ptr().cast(), positions) }
}

/// # Safety
/// Each position, unsigned and below 2^31, is of 4 aligned bytes that may be read behind `base`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather32_raw(base: *const u32, positions: __m512i) -> __m512i {
    let mut found = _mm512_setzero_si512();
    // SAFETY: it reads what the caller allows, and writes its operands alone.
    unsafe {
        asm!(
            "kxnorw {all}, {all}, {all}",
            "vpgatherdd {found} {{{all}}}, [{base} + {positions}*4]",
            all = out(kreg) _,
            found = inout(zmm_reg) found,
            base = in(reg) base,
            positions = in(zmm_reg) positions,
            options(readonly, nostack, preserves_flags),
        );
    }
    found
}

/// Eight of `words`, at these positions.
///
/// # Safety
/// The positions are below `WORDS`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gather_words(words: &[AtomicU64; WORDS], positions: __m256i) -> __m512i {
    let mut found = _mm512_setzero_si512();
    // SAFETY: the positions are within the array, says the caller. It writes its operands alone. The head of
    // this file says who else writes.
    unsafe {
        asm!(
            "kxnorw {all}, {all}, {all}",
            "vpgatherdq {found} {{{all}}}, [{base} + {positions:y}*8]",
            all = out(kreg) _,
            found = inout(zmm_reg) found,
            base = in(reg) words.as_ptr(),
            positions = in(ymm_reg) positions,
            options(readonly, nostack, preserves_flags),
        );
    }
    found
}

/// What entries say of places below 64, and where their blocks are.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512vpopcntdq")]
fn values(words: &[AtomicU64; WORDS], entries: __m512i, places: __m512i) -> (__m512i, __m512i) {
    // The sign bit.
    const { assert!(BLOCK == 1 << 31) };
    let is_block = _mm512_movepi32_mask(entries);
    let within = _mm512_set1_epi32(WORDS as i32 - 1);
    let at = _mm512_maskz_and_epi32(is_block, entries, within);
    let ranks = |at: __m256i, places: __m256i| {
        // SAFETY: `at` was masked to the array.
        let bitmaps = unsafe { gather_words(words, at) };
        let above = _mm512_sub_epi64(_mm512_set1_epi64(63), _mm512_cvtepu32_epi64(places));
        let up_to = _mm512_srlv_epi64(_mm512_set1_epi64(-1), above);
        _mm512_cvtepi64_epi32(_mm512_popcnt_epi64(_mm512_and_si512(bitmaps, up_to)))
    };
    let low = ranks(_mm512_castsi512_si256(at), _mm512_castsi512_si256(places));
    let high = ranks(_mm512_extracti64x4_epi64::<1>(at), _mm512_extracti64x4_epi64::<1>(places));
    let ranks = _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high);
    // In halves of words, two values each, behind the bitmap's two.
    let first = _mm512_add_epi32(_mm512_slli_epi32::<1>(at), _mm512_set1_epi32(2));
    let pairs = gather_halves(words, _mm512_add_epi32(first, _mm512_srli_epi32::<1>(ranks)));
    let shift = _mm512_slli_epi32::<4>(_mm512_and_si512(ranks, _mm512_set1_epi32(1)));
    let values = _mm512_srlv_epi32(pairs, shift);
    let values = _mm512_mask_blend_epi32(is_block, entries, values);
    (_mm512_and_si512(values, _mm512_set1_epi32(0xffff)), at)
}

/// The answers for entries of groups, at these positions in halves of words.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512vpopcntdq")]
fn inner_values(words: &[AtomicU64; WORDS], halves: __m512i, destinations: __m512i) -> __m512i {
    let places = _mm512_and_si512(destinations, _mm512_set1_epi32(63));
    values(words, gather_halves(words, halves), places).0
}

/// Looks up `destinations`; `STAGE` at most.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vpopcntdq,popcnt")]
fn look_up4(
    index: &[AtomicU32; INDEX],
    words: &[AtomicU64; WORDS],
    destinations: &[u32],
    results: &mut [RouteId],
) {
    let zero = _mm512_setzero_si512();
    let mut to = [zero; CHUNKS];
    let mut entries = [zero; CHUNKS];
    for ((to, entries), destinations) in
        to.iter_mut().zip(&mut entries).zip(destinations.chunks(LANES))
    {
        *to = load(destinations);
        *entries = gather32(index, _mm512_srli_epi32::<{ 32 - shape::INDEX_BITS }>(*to));
    }
    let mut codes = [zero; CHUNKS];
    let mut inner = [zero; CHUNKS];
    let mut in_groups = [0_u16; CHUNKS];
    let chunks = destinations.len().div_ceil(LANES).min(CHUNKS);
    for n in 0..chunks {
        let places = _mm512_and_si512(_mm512_srli_epi32::<8>(to[n]), _mm512_set1_epi32(63));
        let (found, at) = values(words, entries[n], places);
        codes[n] = found;
        in_groups[n] = _mm512_cmpge_epu32_mask(found, _mm512_set1_epi32(FIRST_GROUP as i32));
        // 2 * at - 4 * (group + 1) + quarter
        let behind = _mm512_sub_epi32(found, _mm512_set1_epi32(FIRST_GROUP as i32 - 1));
        let start = _mm512_sub_epi32(_mm512_slli_epi32::<1>(at), _mm512_slli_epi32::<2>(behind));
        let quarters = _mm512_and_si512(_mm512_srli_epi32::<6>(to[n]), _mm512_set1_epi32(3));
        inner[n] = _mm512_add_epi32(start, quarters);
    }
    let deep: u32 = in_groups.iter().map(|lanes| lanes.count_ones()).sum();
    if deep as usize > LANES {
        for n in 0..chunks {
            let found = inner_values(words, inner[n], to[n]);
            codes[n] = _mm512_mask_blend_epi32(in_groups[n], codes[n], found);
        }
    } else if deep > 0 {
        // Those in groups, of all chunks, moved together into one vector. It stays in registers: a list in
        // memory would be read before it is written.
        let (mut to_all, mut inner_all, mut before) = (zero, zero, 0);
        for n in 0..chunks {
            let behind = (u32::from(u16::MAX) << before) as u16;
            let lanes = in_groups[n];
            to_all = expand(to_all, behind, _mm512_maskz_compress_epi32(lanes, to[n]));
            inner_all = expand(inner_all, behind, _mm512_maskz_compress_epi32(lanes, inner[n]));
            before += lanes.count_ones();
        }
        let found = inner_values(words, inner_all, to_all);
        let lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
        let mut before = 0;
        for n in 0..chunks {
            let own = _mm512_add_epi32(lanes, _mm512_set1_epi32(before));
            let own = _mm512_permutexvar_epi32(own, found);
            codes[n] = expand(codes[n], in_groups[n], own);
            before += in_groups[n].count_ones() as i32;
        }
    }
    for (results, codes) in results.chunks_mut(LANES).zip(codes) {
        store(results, _mm512_sub_epi32(codes, _mm512_set1_epi32(1)));
    }
}

/// The first lanes of `from`, in their order, where `lanes` says; elsewhere `around`.
#[inline]
#[target_feature(enable = "avx512f")]
fn expand(around: __m512i, lanes: u16, from: __m512i) -> __m512i {
    _mm512_mask_expand_epi32(around, lanes, from)
}

/// As many lanes as there are, at most sixteen; zero in the others.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(lanes: &[u32]) -> __m512i {
    // SAFETY: lanes that the reference is for; those beyond are masked and not read.
    unsafe { _mm512_maskz_loadu_epi32(first_lanes(lanes.len()), lanes.as_ptr().cast()) }
}

/// Writes the low halves of as many lanes as there are results, at most sixteen.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn store(results: &mut [RouteId], ids: __m512i) {
    let ids = _mm512_cvtepi32_epi16(ids);
    // SAFETY: lanes that the reference is for, which nobody else has; those beyond are masked and not
    // written. An id is a `u16`, of which all values are valid.
    unsafe {
        _mm256_mask_storeu_epi16(results.as_mut_ptr().cast(), first_lanes(results.len()), ids);
    }
}

const fn first_lanes(len: usize) -> u16 {
    if len < LANES { (1 << len) - 1 } else { u16::MAX }
}

#[cfg(test)]
mod tests {
    use super::are_quick;

    #[test]
    fn the_kernels_words_for_gathers() {
        for quick in ["Not affected\n", "Vulnerable\n", "Vulnerable: No microcode\n"] {
            assert!(are_quick(quick), "{quick}");
        }
        for slow in [
            "Mitigation: Microcode\n",
            "Mitigation: Microcode (locked)\n",
            "Mitigation: AVX disabled, no microcode\n",
            "Unknown: Dependent on hypervisor status\n",
        ] {
            assert!(!are_quick(slow), "{slow}");
        }
    }
}
