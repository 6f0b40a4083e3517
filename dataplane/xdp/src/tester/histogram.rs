//! [`LatencyHistogram`]: latencies in log-linear buckets, the same in the kernel's sink and in others.
//!
//! ```text
//!  0 1 2 ... 63 | 64 65 ... 127 | 128 130 ... 254 | 256 260 ... 508 | ...      below 2^40 ns
//!  1 ns each      1 ns each       2 ns each         4 ns each
//! ```
//!
//! A value is known to one part in 64; the lowest, the highest and the sum are exact.

/// Base-2 logarithm of the number of buckets for each power of two; sink.c repeats it.
const SUB_BITS: u32 = 6;

/// Values from `2^LATENCY_BITS` on (18 minutes) count as the last bucket; sink.c repeats it.
const LATENCY_BITS: u32 = 40;

/// Number of buckets.
pub(super) const BUCKETS: usize = ((LATENCY_BITS - SUB_BITS + 1) << SUB_BITS) as usize;

/// A distribution of latencies in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyHistogram {
    buckets: Box<[u64]>,
    count: u64,
    sum_ns: u64,
    min_ns: u64,
    max_ns: u64,
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self {
            buckets: vec![0; BUCKETS].into_boxed_slice(),
            count: 0,
            sum_ns: 0,
            min_ns: u64::MAX,
            max_ns: 0,
        }
    }
}

impl LatencyHistogram {
    /// Counts one latency.
    #[inline]
    pub fn record(&mut self, latency_ns: u64) {
        self.buckets[bucket(latency_ns)] += 1;
        self.count += 1;
        self.sum_ns = self.sum_ns.wrapping_add(latency_ns);
        self.min_ns = self.min_ns.min(latency_ns);
        self.max_ns = self.max_ns.max(latency_ns);
    }

    /// Adds the latencies of another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (sum, count) in self.buckets.iter_mut().zip(&other.buckets) {
            *sum += count;
        }
        self.count += other.count;
        self.sum_ns = self.sum_ns.wrapping_add(other.sum_ns);
        self.min_ns = self.min_ns.min(other.min_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
    }

    /// Adds what a program counted: `count(i)` latencies in bucket `i`, with their extremes.
    pub(super) fn add(
        &mut self,
        count: impl Fn(usize) -> u64,
        sum_ns: u64,
        min_ns: u64,
        max_ns: u64,
    ) {
        for (position, sum) in self.buckets.iter_mut().enumerate() {
            let more = count(position);
            *sum += more;
            self.count += more;
        }
        self.sum_ns = self.sum_ns.wrapping_add(sum_ns);
        self.min_ns = self.min_ns.min(min_ns);
        self.max_ns = self.max_ns.max(max_ns);
    }

    /// Latencies counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The lowest, exactly; `None` without any.
    #[must_use]
    pub fn min_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.min_ns)
    }

    /// The highest, exactly; `None` without any.
    #[must_use]
    pub fn max_ns(&self) -> Option<u64> {
        (self.count > 0).then_some(self.max_ns)
    }

    /// The mean; `None` without any.
    #[must_use]
    pub fn mean_ns(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum_ns as f64 / self.count as f64)
    }

    /// The latency that `share` (0 to 1) of all did not exceed: the upper end of its bucket, so at most
    /// a 64th too high, and never outside lowest to highest. `None` without any.
    #[must_use]
    pub fn quantile_ns(&self, share: f64) -> Option<u64> {
        if self.count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "rounded, from 0 to the count"
        )]
        let rank = ((share.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).clamp(1, self.count);
        let mut below = 0;
        for (position, count) in self.buckets.iter().enumerate() {
            below += count;
            if below >= rank {
                return Some(highest(position).clamp(self.min_ns, self.max_ns));
            }
        }
        Some(self.max_ns)
    }

    /// The buckets that are not empty: the highest latency of each, and how many it holds.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets
            .iter()
            .enumerate()
            .filter(|&(_, &count)| count > 0)
            .map(|(position, &count)| (highest(position), count))
    }
}

/// The bucket of a latency.
#[inline]
fn bucket(latency_ns: u64) -> usize {
    if latency_ns >> LATENCY_BITS != 0 {
        return BUCKETS - 1;
    }
    let shift = (latency_ns >> SUB_BITS).checked_ilog2().unwrap_or(0);
    #[expect(clippy::cast_possible_truncation, reason = "below 128 after the shift")]
    {
        ((shift << SUB_BITS) as usize) + (latency_ns >> shift) as usize
    }
}

/// The highest latency of a bucket.
fn highest(position: usize) -> u64 {
    // Buckets 64 to 127 have shift 0, as those below; from then on each 64 one more.
    let shift = (position >> SUB_BITS).saturating_sub(1) as u32;
    let within = position - ((shift << SUB_BITS) as usize);
    ((within as u64 + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_cover_all_values_without_gap() {
        let mut next = 0;
        for position in 0..BUCKETS {
            assert_eq!(bucket(next), position, "{next}");
            let highest = highest(position);
            assert!(highest >= next && highest - next <= next / 64);
            assert_eq!(bucket(highest), position);
            next = highest + 1;
        }
        assert_eq!(next, 1 << LATENCY_BITS);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_close_and_extremes_exact() {
        let mut histogram = LatencyHistogram::default();
        assert_eq!(histogram.quantile_ns(0.5), None);
        for value in 1..=10_000 {
            histogram.record(value);
        }
        assert_eq!((histogram.min_ns(), histogram.max_ns()), (Some(1), Some(10_000)));
        assert_eq!(histogram.mean_ns(), Some(5000.5));
        for (share, exact) in [(0.0, 1), (0.5, 5000), (0.99, 9900), (0.999, 9990), (1.0, 10_000)] {
            let found = histogram.quantile_ns(share).expect("not empty");
            assert!(found >= exact && found - exact <= exact / 64 + 1, "{share}: {found}");
        }
        let mut twice = histogram.clone();
        twice.merge(&histogram);
        assert_eq!(twice.count(), 20_000);
        assert_eq!(twice.quantile_ns(0.5), histogram.quantile_ns(0.5));
    }
}
