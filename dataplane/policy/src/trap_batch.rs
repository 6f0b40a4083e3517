//! [`TrapBatch`]: what a worker writes down of a batch whose call trapped.
//!
//! The room for it is made by the control side; writing it down copies bytes and allocates nothing.
//! Marks and payload are copied from the guest's memory: a guest that overwrote what it was shown is
//! written down with what it wrote.

use frame::{BATCH_MAX, Nanos};
use sluice_abi::{Descriptor, Marks};

use crate::instance::Instance;

/// A batch as a guest was shown it.
pub(crate) struct TrapBatch {
    pub(crate) now: Nanos,
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) marks: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    /// Bytes of payload of each packet.
    pub(crate) payload_lengths: Vec<usize>,
}

impl TrapBatch {
    /// Room for a batch of packets with so much payload each.
    pub(crate) fn new(payload_bytes: usize) -> Self {
        Self {
            now: Nanos(0),
            descriptors: Vec::with_capacity(BATCH_MAX),
            marks: Vec::with_capacity(BATCH_MAX * size_of::<Marks>()),
            payload: Vec::with_capacity(BATCH_MAX * payload_bytes),
            payload_lengths: Vec::with_capacity(BATCH_MAX),
        }
    }

    /// Writes a batch down. What there is no room for is left out.
    pub(crate) fn record<'d>(
        &mut self,
        descriptors: impl Iterator<Item = &'d Descriptor>,
        instance: &Instance,
        now: Nanos,
    ) {
        self.now = now;
        self.descriptors.clear();
        self.marks.clear();
        self.payload.clear();
        self.payload_lengths.clear();
        for descriptor in descriptors.take(BATCH_MAX) {
            self.descriptors.push(*descriptor);
        }
        let n = self.descriptors.len();
        self.marks.extend_from_slice(instance.marks_shown(n));
        for index in 0..n {
            let bytes = instance.payload_shown(index);
            let room = self.payload.capacity() - self.payload.len();
            let bytes = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            self.payload.extend_from_slice(bytes);
            self.payload_lengths.push(bytes.len());
        }
    }
}
