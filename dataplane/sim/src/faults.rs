//! [`Faults`]: what goes wrong on a [`MemoryQueue`](crate::MemoryQueue), drawn from a seed.

/// What goes wrong on a queue, and how often. The same seed and the same calls give the same faults.
/// The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Seed of the generator that draws the faults.
    pub seed: u64,
    /// How many of 1,000 calls of `transmit` find the ring full although it is not.
    pub tx_full_per_mille: u16,
    /// How many of 1,000 received frames are reported with bounds outside their chunk.
    pub rx_invalid_per_mille: u16,
    /// A frame that was sent comes back with the call of `reclaim` after this many others. Time is
    /// counted in calls because a queue has no clock.
    pub completion_delay_turns: u32,
    /// Received packets begin so many bytes into their chunks, as under a driver that reserves less than
    /// the kernel's [`frame::HEADROOM_BYTES`].
    pub headroom_bytes: Option<u16>,
}

/// The generator behind [`Faults`].
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    random: fastrand::Rng,
    faults: Faults,
}

impl Dice {
    pub(crate) fn new(faults: Faults) -> Self {
        Self { random: fastrand::Rng::with_seed(faults.seed), faults }
    }

    pub(crate) fn tx_full(&mut self) -> bool {
        self.happens(self.faults.tx_full_per_mille)
    }

    pub(crate) fn rx_invalid(&mut self) -> bool {
        self.happens(self.faults.rx_invalid_per_mille)
    }

    pub(crate) fn completion_delay_turns(&self) -> u64 {
        u64::from(self.faults.completion_delay_turns)
    }

    pub(crate) fn headroom_bytes(&self) -> usize {
        self.faults.headroom_bytes.map_or(frame::HEADROOM_BYTES, usize::from)
    }

    /// Bounds, as (start, length), that no chunk has.
    pub(crate) fn invalid_bounds(&mut self) -> (usize, usize) {
        let beyond = 1 + self.random.usize(..frame::CHUNK_BYTES);
        let start = self.random.usize(..=frame::CHUNK_BYTES);
        (start, frame::CHUNK_BYTES - start + beyond)
    }

    fn happens(&mut self, per_mille: u16) -> bool {
        // Without faults the generator stays as it is, so that adding one kind of fault to a run
        // does not depend on the others.
        per_mille > 0 && self.random.u16(..1000) < per_mille
    }
}
