//! [`Batch`]: what a plugin sees of the packets of one call.

use sluice_abi::{Descriptor, Verdict};

/// The packets of one call, with the verdict of each, which starts as the plugin's default.
#[derive(Debug)]
pub struct Batch<'a> {
    descriptors: &'a [Descriptor],
    verdicts: &'a mut [Verdict],
    counters: &'a mut [u64],
    now_ns: u64,
}

impl<'a> Batch<'a> {
    /// A batch of as many packets as both slices have.
    #[must_use]
    pub fn new(
        descriptors: &'a [Descriptor],
        verdicts: &'a mut [Verdict],
        counters: &'a mut [u64],
        now_ns: u64,
    ) -> Self {
        let n = descriptors.len().min(verdicts.len());
        Self { descriptors: &descriptors[..n], verdicts: &mut verdicts[..n], counters, now_ns }
    }

    /// Number of packets.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.descriptors.len()
    }

    /// Whether there is no packet.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.descriptors.is_empty()
    }

    /// Monotonic time in nanoseconds since an arbitrary start.
    #[inline]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.now_ns
    }

    /// What is known of each packet.
    #[inline]
    #[must_use]
    pub fn descriptors(&self) -> &'a [Descriptor] {
        self.descriptors
    }

    /// The verdicts, in the order of the packets.
    #[inline]
    #[must_use]
    pub fn verdicts_mut(&mut self) -> &mut [Verdict] {
        self.verdicts
    }

    /// Each packet with its verdict.
    #[inline]
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&'a Descriptor, &mut Verdict)> {
        self.descriptors.iter().zip(self.verdicts.iter_mut())
    }

    /// Each packet with its verdict, and beside them the counters.
    #[inline]
    pub fn split(
        &mut self,
    ) -> (impl ExactSizeIterator<Item = (&'a Descriptor, &mut Verdict)>, &mut [u64]) {
        (self.descriptors.iter().zip(self.verdicts.iter_mut()), self.counters)
    }

    /// Adds to counter number `index` in the order of the manifest; a number that it does not name
    /// is ignored.
    #[inline]
    pub fn count(&mut self, index: usize, count: u64) {
        if let Some(counter) = self.counters.get_mut(index) {
            *counter = counter.wrapping_add(count);
        }
    }
}
