//! [`VirtualClock`]: time that passes only when it is told to.

use frame::Nanos;

/// Time that passes only when it is told to, and never backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VirtualClock {
    now: Nanos,
}

impl VirtualClock {
    /// A clock that shows `start`.
    #[must_use]
    pub const fn new(start: Nanos) -> Self {
        Self { now: start }
    }

    /// What the clock shows.
    #[inline]
    #[must_use]
    pub const fn now(&self) -> Nanos {
        self.now
    }

    /// Lets `nanos` pass, and returns what the clock shows then.
    pub fn advance(&mut self, nanos: u64) -> Nanos {
        self.now = self.now.plus(nanos);
        self.now
    }

    /// Lets time pass until `then`; does nothing when that is over already. Returns what the clock
    /// shows after it.
    pub fn advance_to(&mut self, then: Nanos) -> Nanos {
        self.now = self.now.max(then);
        self.now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_backwards() {
        let mut clock = VirtualClock::new(Nanos(100));
        assert_eq!(clock.advance(50), Nanos(150));
        assert_eq!(clock.advance_to(Nanos(120)), Nanos(150));
        assert_eq!(clock.advance_to(Nanos(200)), Nanos(200));
        assert_eq!(clock.advance(u64::MAX), Nanos(u64::MAX));
    }
}
