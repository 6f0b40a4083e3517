//! Which packets of a stream were seen, for a sink whose queues are read by several threads.
//!
//! An entry stands for 32 sequences that follow each other, and is used again for those a window
//! later: the high half says how many windows came before, the low half has one bit for each. It is
//! the scheme of the kernel's sink (`xdp/src/tester/sink.c`), so that both judge alike.

use std::sync::atomic::{AtomicU64, Ordering};

/// Base-2 logarithm of the packets of a window: 16 s of a million packets a second, 4 MiB.
pub(crate) const WINDOW_BITS: u32 = 24;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It is the first of its sequence.
    New,
    /// Its sequence was there before.
    Duplicate,
    /// It came more than a window late: nobody can tell.
    Unjudged,
}

/// Which packets of one stream were seen.
#[derive(Debug)]
pub(crate) struct Window {
    entries: Box<[AtomicU64]>,
    bits: u32,
}

impl Window {
    /// A window of `2^bits` packets, `bits` from 5 to 39.
    pub(crate) fn new(bits: u32) -> Self {
        Self { entries: (0..1_usize << (bits - 5)).map(|_| AtomicU64::new(0)).collect(), bits }
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        for entry in &self.entries {
            entry.store(0, Ordering::Relaxed);
        }
    }

    /// Marks a sequence, below 2^40, as seen and tells whether it was.
    #[inline]
    pub(crate) fn mark(&self, sequence: u64) -> Seen {
        let entry = &self.entries[(sequence >> 5) as usize % self.entries.len()];
        let window = sequence >> self.bits;
        let bit = 1 << (sequence & 31);
        let mut old = entry.load(Ordering::Relaxed);
        // Nothing else is ordered by these entries, so that relaxed exchanges will do.
        loop {
            let new = match (old >> 32).cmp(&window) {
                std::cmp::Ordering::Greater => return Seen::Unjudged,
                std::cmp::Ordering::Equal if old & bit != 0 => return Seen::Duplicate,
                std::cmp::Ordering::Equal => old | bit,
                std::cmp::Ordering::Less => window << 32 | bit,
            };
            match entry.compare_exchange_weak(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Seen::New,
                Err(now) => old = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_window_judges_as_a_set_does(
            sequences in proptest::collection::vec(0_u64..4096, 0..2000),
        ) {
            let window = Window::new(12);
            let mut seen = HashSet::new();
            for sequence in sequences {
                let expected = if seen.insert(sequence) { Seen::New } else { Seen::Duplicate };
                prop_assert_eq!(window.mark(sequence), expected);
            }
        }
    }

    #[test]
    fn what_is_a_window_late_is_not_judged() {
        let window = Window::new(10);
        assert_eq!(window.mark(7), Seen::New);
        assert_eq!(window.mark(1024 + 7), Seen::New);
        assert_eq!(window.mark(7), Seen::Unjudged);
        assert_eq!(window.mark(1024 + 7), Seen::Duplicate);
        window.clear();
        assert_eq!(window.mark(7), Seen::New);
    }

    #[test]
    fn threads_agree_on_who_was_first() {
        let window = Window::new(16);
        let new = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for sequence in 0..1 << 16 {
                        if window.mark(sequence) == Seen::New {
                            new.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(new.into_inner(), 1 << 16);
    }
}
