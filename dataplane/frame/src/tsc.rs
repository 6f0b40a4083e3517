//! The time stamp counter: what stages and plugins cost, in the unit in which data planes are
//! compared. Only differences on one core mean anything.

/// What the counter shows. Nanoseconds on a machine without one.
#[cfg(target_arch = "x86_64")]
#[inline]
#[must_use]
#[expect(unsafe_code, reason = "the intrinsic is unsafe for its target feature alone")]
pub fn now() -> u64 {
    // SAFETY: RDTSC reads a register and touches no memory; every x86-64 processor has it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// What the counter shows. Nanoseconds on a machine without one.
#[cfg(not(target_arch = "x86_64"))]
#[must_use]
pub fn now() -> u64 {
    use std::{sync::OnceLock, time::Instant};
    static START: OnceLock<Instant> = OnceLock::new();
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// How fast the counter runs, in clocks a second, measured over a fiftieth of a second: not for the
/// packet path.
#[must_use]
pub fn hertz() -> u64 {
    let (start, clocks) = (std::time::Instant::now(), now());
    std::thread::sleep(std::time::Duration::from_millis(20));
    let (clocks, nanos) = (now().wrapping_sub(clocks), start.elapsed().as_nanos());
    u64::try_from(u128::from(clocks) * 1_000_000_000 / nanos.max(1)).unwrap_or(u64::MAX)
}
