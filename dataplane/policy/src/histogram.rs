//! [`Histogram`]: how often values occur, in buckets whose width grows with the value.
//!
//! ```text
//!   0 1 2 ... 15 | 16-17 18-19 ... 30-31 | 32-35 36-39 ... 60-63 | ...     8 buckets for each doubling
//! ```
//!
//! Log-linear, as in HdrHistogram: a value is known to 6 % of itself. One writer; adding is a few
//! instructions, a load and a store. Values of 2^32 and more count as the largest.

use crate::counters::Counter;

/// Values below this have buckets of their own.
const LINEAR: u64 = 1 << LINEAR_BITS;
const LINEAR_BITS: u32 = 4;
/// Buckets for each doubling, as a power of two.
const SUB_BITS: u32 = LINEAR_BITS - 1;
const VALUE_BITS: u32 = 32;
pub(crate) const BUCKETS: usize =
    (1 << LINEAR_BITS) + (((VALUE_BITS - LINEAR_BITS) as usize) << SUB_BITS);

/// Buckets that one worker writes and anyone reads.
#[derive(Debug)]
pub(crate) struct Histogram(Box<[Counter]>);

impl Default for Histogram {
    fn default() -> Self {
        Self((0..BUCKETS).map(|_| Counter::default()).collect())
    }
}

#[inline]
fn bucket(value: u64) -> usize {
    let value = value.min((1 << VALUE_BITS) - 1);
    let bucket = if value < LINEAR {
        value
    } else {
        let exponent = value.ilog2();
        let sub = (value >> (exponent - SUB_BITS)) & ((1 << SUB_BITS) - 1);
        LINEAR + (u64::from(exponent - LINEAR_BITS) << SUB_BITS) + sub
    };
    usize::try_from(bucket).unwrap_or(0)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < LINEAR {
        return bucket;
    }
    let (doubling, sub) =
        ((bucket - LINEAR) >> SUB_BITS, (bucket - LINEAR) & ((1 << SUB_BITS) - 1));
    let width = 2 << doubling;
    (LINEAR << doubling) + sub * width + width / 2
}

impl Histogram {
    /// Counts a value `times` times.
    #[inline]
    pub(crate) fn add(&self, value: u64, times: u64) {
        if let Some(bucket) = self.0.get(bucket(value)) {
            bucket.add(times);
        }
    }
}

/// Sums of histograms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution(Vec<u64>);

impl Distribution {
    /// Adds what one worker counted.
    pub(crate) fn add(&mut self, histogram: &Histogram) {
        self.0.resize(BUCKETS, 0);
        for (sum, bucket) in self.0.iter_mut().zip(&histogram.0) {
            *sum += bucket.get();
        }
    }

    /// Adds another's sums.
    pub(crate) fn merge(&mut self, other: &Self) {
        if !other.0.is_empty() {
            self.0.resize(BUCKETS, 0);
        }
        for (sum, more) in self.0.iter_mut().zip(&other.0) {
            *sum += more;
        }
    }

    /// The value that `percent` of all values do not exceed; 0 if there is none.
    pub(crate) fn percentile(&self, percent: u64) -> u64 {
        let all: u64 = self.0.iter().sum();
        let rank = all.saturating_mul(percent).div_ceil(100).max(1);
        let mut seen = 0;
        let at = self.0.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        at.map_or(0, middle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_hold_their_middle() {
        let mut last = 0;
        for bucket_of in 0..BUCKETS {
            let value = middle(bucket_of);
            assert!(value > last || bucket_of == 0, "{bucket_of}: {value} after {last}");
            assert_eq!(bucket(value), bucket_of);
            last = value;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn a_value_is_known_to_a_sixteenth_of_itself() {
        for value in (0..100_000).chain((1 << 20..1 << 31).step_by(99_991)) {
            let found = middle(bucket(value));
            assert!(found.abs_diff(value) * 16 <= value, "{value} is told as {found}");
        }
    }

    #[test]
    fn percentiles_are_those_of_a_sorted_list() {
        let values: Vec<u64> = (0..1000_u64).map(|n| n * n % 977).collect();
        let (histogram, mut distribution) = (Histogram::default(), Distribution::default());
        values.iter().for_each(|value| histogram.add(*value, 2));
        distribution.add(&histogram);
        let mut twice = distribution.clone();
        twice.merge(&distribution);
        let mut sorted = values;
        sorted.sort_unstable();
        for percent in [1, 50, 90, 99, 100] {
            let exact = sorted[(sorted.len() * percent).div_ceil(100) - 1];
            for found in [&distribution, &twice].map(|all| all.percentile(percent as u64)) {
                assert_eq!(bucket(found), bucket(exact), "p{percent}: {found}, in truth {exact}");
            }
        }
        assert_eq!(Distribution::default().percentile(99), 0);
    }
}
