//! What a call costs: the time-stamp counter, or nanoseconds where there is none.

/// A reading of the clock that only differences make sense of.
#[cfg(target_arch = "x86_64")]
#[inline]
#[expect(unsafe_code, reason = "the intrinsic is unsafe for its target feature alone")]
pub(crate) fn now() -> u64 {
    // SAFETY: RDTSC reads a register and touches no memory; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A reading of the clock that only differences make sense of.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn now() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}
