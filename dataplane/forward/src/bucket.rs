//! [`Bucket`]: a token bucket for what the router does at a limited rate, one for each worker.

use frame::Nanos;

/// How much of its rate per second a bucket can hold back for a burst: a tenth.
const BURST_NANOS: u64 = 100_000_000;

/// A token bucket as a time: when it would be full again (GCRA, ITU-T I.371).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Bucket {
    full_at: Nanos,
}

impl Bucket {
    /// Takes one token at a rate of `per_s`, up to a tenth of a second's worth at once. Returns whether
    /// there was one; at a rate of 0 there never is.
    #[inline]
    pub(crate) fn take(&mut self, per_s: u32, now: Nanos) -> bool {
        let Some(cost) = 1_000_000_000_u64.checked_div(u64::from(per_s)) else {
            return false;
        };
        let full_at = self.full_at.max(now).plus(cost);
        // At least one packet always fits, however low the rate is.
        if full_at.since(now) > BURST_NANOS.max(cost) {
            return false;
        }
        self.full_at = full_at;
        true
    }
}
