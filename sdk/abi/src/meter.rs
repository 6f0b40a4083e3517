//! The arithmetic of a token bucket, shared by the host and by native tests of plugins.
//!
//! The generic cell rate algorithm (ITU-T I.371): a bucket is one number, its *theoretical arrival
//! time* (TAT), the moment at which it is full again. A packet of cost c moves it c intervals into
//! the future and is refused when that is more than the burst ahead of now.
//!
//! ```text
//!   now          TAT        TAT + c*interval     now + burst*interval
//! ---|------------|----------------|---------------------|--------> time
//!    <-- tokens that are spent --->                      |
//!                                  <-- tokens left ------>
//! ```

/// Fractions of a nanosecond in which time is kept: 64 bits of them last for nine years, and a
/// token every nanosecond is still exact to one percent, rounding included.
pub const UNITS_PER_NS: u64 = 64;

/// The longest that a bucket may take to fill, in units: a year. Above that the sums below could
/// overflow.
const FILL_UNITS_MAX: u64 = 365 * 24 * 3600 * 1_000_000_000 * UNITS_PER_NS;

/// Rate and burst of a set of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    interval: u64,
    burst: u64,
}

/// Why a rate is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum RateError {
    /// The rate is below one token in a thousand seconds, or above 2 x 10^9 tokens a second.
    Rate = -2,
    /// The burst is not positive, or would take more than a year to fill.
    Burst = -3,
}

impl Rate {
    /// `rate_per_s_milli` thousandths of a token a second, up to `burst` tokens at once.
    ///
    /// # Errors
    /// [`RateError`] says which of the two is out of range.
    pub fn new(rate_per_s_milli: i64, burst: i64) -> Result<Self, RateError> {
        const UNITS_PER_1000_S: u64 = 1_000_000_000_000 * UNITS_PER_NS;
        let rate = u64::try_from(rate_per_s_milli).map_err(|_| RateError::Rate)?;
        if rate == 0 || rate > 2_000_000_000_000 {
            return Err(RateError::Rate);
        }
        let interval = (UNITS_PER_1000_S + rate / 2) / rate;
        let burst = u64::try_from(burst).ok().filter(|burst| *burst > 0).ok_or(RateError::Burst)?;
        let burst = interval.checked_mul(burst).ok_or(RateError::Burst)?;
        if burst > FILL_UNITS_MAX {
            return Err(RateError::Burst);
        }
        Ok(Self { interval, burst })
    }

    /// Takes `cost` tokens at the time `now`, in units, from a bucket whose TAT is `tat`: the new
    /// TAT, or `None` when the bucket holds fewer.
    #[inline]
    #[must_use]
    pub fn take(&self, tat: u64, now: u64, cost: u32) -> Option<u64> {
        self.at(now).take(tat, cost)
    }

    /// The same for one moment, of which many buckets are asked.
    #[inline]
    #[must_use]
    pub const fn at(&self, now: u64) -> RateAt {
        RateAt { interval: self.interval, now, latest: now.saturating_add(self.burst) }
    }
}

/// A [`Rate`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateAt {
    interval: u64,
    now: u64,
    /// The latest TAT that a bucket may have.
    latest: u64,
}

impl RateAt {
    /// The moment, in units.
    #[inline]
    #[must_use]
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// As [`Rate::take`].
    #[inline]
    #[must_use]
    pub fn take(&self, tat: u64, cost: u32) -> Option<u64> {
        let tat = tat.max(self.now).saturating_add(self.interval.saturating_mul(u64::from(cost)));
        (tat <= self.latest).then_some(tat)
    }
}

/// The most entries of all meters of a plugin together: some 130 MB.
pub const ENTRIES_IN_ALL_MAX: u32 = 1 << 23;

/// What `meter_open` returns besides handles, and besides [`RateError`].
pub mod open_error {
    /// It was not called by `sluice_configure`.
    pub const NOT_CONFIGURING: i32 = -1;
    /// The number of entries is not from 1 to 2^22, or with those of the meters opened before it is more than
    /// [`ENTRIES_IN_ALL_MAX`](super::ENTRIES_IN_ALL_MAX).
    pub const ENTRIES: i32 = -4;
    /// The plugin has opened all the meters that it may.
    pub const TOO_MANY: i32 = -5;
}

/// A time in nanoseconds as units.
#[inline]
#[must_use]
pub const fn units(now_ns: u64) -> u64 {
    now_ns.saturating_mul(UNITS_PER_NS)
}

#[cfg(test)]
mod tests {
    use super::{Rate, RateError, units};

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::new(1_000_000, 5).expect("1000 a second is a rate");
        let mut tat = 0;
        let mut admitted_by = |now_ns: u64, offered: u32| {
            let mut admitted = 0;
            for _ in 0..offered {
                if let Some(next) = rate.take(tat, units(now_ns), 1) {
                    tat = next;
                    admitted += 1;
                }
            }
            admitted
        };
        assert_eq!(admitted_by(1_000_000_000, 9), 5);
        assert_eq!(admitted_by(1_000_999_999, 9), 0);
        assert_eq!(admitted_by(1_001_000_000, 9), 1);
        assert_eq!(admitted_by(1_003_000_000, 9), 2);
        assert_eq!(admitted_by(9_000_000_000, 9), 5);
    }

    #[test]
    fn costs_count_as_that_many_tokens() {
        let rate = Rate::new(1_000, 1500).expect("one a second is a rate");
        let tat = rate.take(0, units(1), 1000).expect("the bucket is full");
        assert_eq!(rate.take(tat, units(1), 501), None);
        assert!(rate.take(tat, units(1), 500).is_some());
        assert!(rate.take(u64::MAX, units(1), u32::MAX).is_none());
    }

    #[test]
    fn rates_out_of_range_are_named() {
        assert_eq!(Rate::new(0, 1), Err(RateError::Rate));
        assert_eq!(Rate::new(-1, 1), Err(RateError::Rate));
        assert_eq!(Rate::new(i64::MAX, 1), Err(RateError::Rate));
        assert_eq!(Rate::new(1000, 0), Err(RateError::Burst));
        assert_eq!(Rate::new(1, i64::MAX), Err(RateError::Burst));
        assert_eq!(Rate::new(1, 365 * 24 * 3600), Err(RateError::Burst));
        assert!(Rate::new(1, 31_536).is_ok());
    }
}
