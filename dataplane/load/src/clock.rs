//! The one clock of a run: `CLOCK_MONOTONIC`, which the kernel's sink reads too. Nobody can set it
//! (clock_settime(2)), so that a wall clock that steps during a run changes none of its figures.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds since an arbitrary moment, the same for all processes and BPF programs of the machine.
///
/// # Panics
/// Never on Linux, where the clock always exists.
#[inline]
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("CLOCK_MONOTONIC exists");
    #[expect(clippy::cast_sign_loss, reason = "this clock starts at boot with 0")]
    {
        now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
    }
}
