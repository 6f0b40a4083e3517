//! [`SendPlan`]: when packets are due, and when sending ends; [`SendReport`]: what came of it.

/// Time from one slot to the next, in units of 2^-32 ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Interval {
    nanos: u64,
    fraction: u32,
}

impl Interval {
    /// No time at all: as fast as it goes.
    pub const NONE: Self = Self { nanos: 0, fraction: 0 };

    /// The interval of `rate_pps` packets a second. [`Self::NONE`] for infinity and for what is no
    /// rate; rates below one packet in 50 years count as that.
    #[must_use]
    pub fn of_rate(rate_pps: f64) -> Self {
        let nanos = 1e9 / rate_pps;
        if !nanos.is_finite() || nanos <= 0.0 {
            return Self::NONE;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and casts from floating point saturate"
        )]
        Self {
            nanos: nanos.trunc().min((1_u64 << 60) as f64) as u64,
            fraction: (nanos.fract() * f64::from(u32::MAX)) as u32,
        }
    }

    /// Packets a second; infinite for [`Self::NONE`].
    #[must_use]
    pub fn rate_pps(self) -> f64 {
        1e9 / (self.nanos as f64 + f64::from(self.fraction) / 4_294_967_296.0)
    }

    /// Whole nanoseconds, and what is left in units of 2^-32 ns.
    #[must_use]
    pub const fn parts(self) -> (u64, u32) {
        (self.nanos, self.fraction)
    }

    /// Slots that begin in a span of `nanos` from the first one on; `u64::MAX` without interval.
    #[must_use]
    pub fn slots_in(self, nanos: u64) -> u64 {
        let interval = u128::from(self.nanos) << 32 | u128::from(self.fraction);
        if interval == 0 {
            return u64::MAX;
        }
        u64::try_from((u128::from(nanos) << 32).div_ceil(interval)).unwrap_or(u64::MAX)
    }
}

/// When packets are due, and when sending ends. Packet `i` is due at `start_ns + i * interval`; one
/// that is late is sent at once, and those behind it keep their slots.
///
/// For a rate over a time, set `packets_max` to their product and `until_ns` a little after the end,
/// so that a sender that fell behind at the end can catch up, and one that is too slow still stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendPlan {
    /// Time of the first slot: `CLOCK_MONOTONIC` in nanoseconds. May be past.
    pub start_ns: u64,
    /// Time from slot to slot.
    pub interval: Interval,
    /// Packets to send; `u64::MAX` for no limit.
    pub packets_max: u64,
    /// When to stop at the latest, by the same clock; `u64::MAX` for no limit.
    pub until_ns: u64,
}

/// A packet that is so much later than the one before it, in nanoseconds, tells of a sender that was
/// held up: one that only falls behind, does so by less from packet to packet. inject.c repeats it.
const HELD_UP_NS: u64 = 1_000_000;

/// What came of a plan.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Packets that were handed to the interface: each has a sequence of its own, without gaps.
    pub sent: u64,
    /// Packets whose slot had passed when the plan ended, but that were not sent: the rate that was
    /// asked for was not reached. 0 without interval.
    pub missed: u64,
    /// The most that a packet was sent after its slot, in nanoseconds. 0 without interval. Some 100 us
    /// are normal, since the run is interrupted now and then.
    pub lag_max_ns: u64,
    /// The sum of what packets fell behind their slots by at once, from a millisecond on, in
    /// nanoseconds: as many packets as were due in this time were sent in bursts. 0 without interval.
    pub held_up_ns: u64,
    /// When the first and the last packet were sent: `CLOCK_MONOTONIC` in nanoseconds. `None` if none
    /// was.
    pub departures_ns: Option<(u64, u64)>,
    /// Of `sent`, what the interface dropped since its ring, or the veth peer's, was full (`tx_dropped`
    /// of the interface, by whomever): packets that never reached the device under test.
    pub ring_overflows: u64,
}

impl SendReport {
    /// Notes that a packet is sent `lag_ns` after its slot, when the one before it was `before_ns` late.
    pub fn note_lag(&mut self, lag_ns: u64, before_ns: u64) {
        self.lag_max_ns = self.lag_max_ns.max(lag_ns);
        if lag_ns >= before_ns + HELD_UP_NS {
            self.held_up_ns += lag_ns - before_ns;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_comes_at_once_is_held_up() {
        let mut report = SendReport::default();
        let mut before_ns = 0;
        // It is held up by 3 ms, catches up by 2, falls behind bit by bit, and is held up by 1 ms.
        for lag_ns in [100_000, 3_100_000, 1_100_000, 2_099_999, 3_099_998, 4_099_998, 0] {
            report.note_lag(lag_ns, before_ns);
            before_ns = lag_ns;
        }
        assert_eq!((report.lag_max_ns, report.held_up_ns), (4_099_998, 3_000_000 + 1_000_000));
    }

    #[test]
    fn intervals_keep_the_rate() {
        for rate in [1.0, 3.0, 1_000.0, 333_333.0, 1_000_000.0, 14_880_952.38, 3e9] {
            let interval = Interval::of_rate(rate);
            assert!((interval.rate_pps() / rate - 1.0).abs() < 1e-8, "{rate}: {interval:?}");
        }
        for none in [0.0, f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(Interval::of_rate(none), Interval::NONE, "{none}");
        }
    }

    #[test]
    fn slots_are_counted_from_the_first() {
        let interval = Interval::of_rate(1_000_000.0);
        assert_eq!(interval.slots_in(0), 0);
        assert_eq!(interval.slots_in(1), 1);
        assert_eq!(interval.slots_in(1_000), 1);
        assert_eq!(interval.slots_in(1_001), 2);
        assert_eq!(Interval::NONE.slots_in(1), u64::MAX);
    }
}
