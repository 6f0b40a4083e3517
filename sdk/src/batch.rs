//! [`Batch`]: what a plugin sees of the packets of one call.

use sluice_abi::{Descriptor, Edit, Marks, Verdict};

use crate::{
    Packet, Packets,
    counters::{Counter, Counters, Gauge},
    packet::payload_of,
};

/// The packets of one call, with the verdict of each, which starts as the plugin's default.
#[derive(Debug)]
pub struct Batch<'a>(Parts<'a>);

/// What a batch is made of. Areas that a plugin does not have are empty; the others have an entry for
/// each packet.
#[derive(Debug, Default)]
pub struct Parts<'a> {
    /// What is known of each packet.
    pub descriptors: &'a [Descriptor],
    /// The verdicts.
    pub verdicts: &'a mut [Verdict],
    /// The edits.
    pub edits: &'a mut [Edit],
    /// What earlier plugins set.
    pub marks: &'a [Marks],
    /// The payload entries.
    pub payload: &'a [u64],
    /// Bytes from one payload entry to the next, a multiple of 8.
    pub payload_stride: usize,
    /// The counters, in the order of the manifest.
    pub counters: &'a mut [u64],
    /// Monotonic time in nanoseconds.
    pub now_ns: u64,
}

impl<'a> Batch<'a> {
    /// A batch of as many packets as there are descriptors and verdicts.
    #[must_use]
    pub fn new(mut parts: Parts<'a>) -> Self {
        let n = parts.descriptors.len().min(parts.verdicts.len());
        parts.descriptors = &parts.descriptors[..n];
        parts.verdicts = &mut parts.verdicts[..n];
        Self(parts)
    }

    /// Number of packets.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.descriptors.len()
    }

    /// Whether there is no packet.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.descriptors.is_empty()
    }

    /// Monotonic time in nanoseconds since an arbitrary start.
    #[inline]
    #[must_use]
    pub fn now_ns(&self) -> u64 {
        self.0.now_ns
    }

    /// What is known of each packet.
    #[inline]
    #[must_use]
    pub fn descriptors(&self) -> &'a [Descriptor] {
        self.0.descriptors
    }

    /// What earlier plugins set on each packet; empty unless the plugin was exported with `marks`.
    #[inline]
    #[must_use]
    pub fn marks(&self) -> &'a [Marks] {
        self.0.marks
    }

    /// The bytes of packet number `index` that the manifest's `payload` asks for; empty for none.
    #[inline]
    #[must_use]
    pub fn payload(&self, index: usize) -> &'a [u8] {
        let stride = self.0.payload_stride / 8;
        let at = index.saturating_mul(stride);
        self.0.payload.get(at..at.saturating_add(stride)).map_or(&[], payload_of)
    }

    /// The verdicts, in the order of the packets.
    #[inline]
    #[must_use]
    pub fn verdicts_mut(&mut self) -> &mut [Verdict] {
        self.0.verdicts
    }

    /// Lets go on for which `admitted` is 1, as a [`Meter`](crate::Meter) answers, and gives the others, for
    /// which it is 0, the verdict `refusal`. Returns the number of those. Eight are looked at at once.
    ///
    /// # Panics
    /// If there are fewer answers than packets.
    #[inline]
    pub fn admit(&mut self, admitted: &[u8], refusal: Verdict) -> u64 {
        const ALL: u64 = 0x0101_0101_0101_0101;
        let verdicts = self.verdicts_mut();
        let (eights, rest) = admitted[..verdicts.len()].as_chunks::<8>();
        let (verdict_eights, verdict_rest) = verdicts.as_chunks_mut::<8>();
        let mut refused = 0;
        let mut judge = |verdicts: &mut [Verdict], admitted: &[u8]| {
            for (verdict, admitted) in verdicts.iter_mut().zip(admitted) {
                let is_refused = *admitted == 0;
                *verdict = Verdict::choose(is_refused, refusal, Verdict::CONTINUE);
                refused += u64::from(is_refused);
            }
        };
        for (verdicts, eight) in verdict_eights.iter_mut().zip(eights) {
            if u64::from_ne_bytes(*eight) == ALL {
                verdicts.fill(Verdict::CONTINUE);
            } else {
                judge(verdicts, eight);
            }
        }
        judge(verdict_rest, rest);
        refused
    }

    /// The packets with their verdicts, one after the other.
    #[inline]
    #[must_use]
    pub fn packets(&mut self) -> Packets<'_> {
        self.split().0
    }

    /// Packet number `index` with its verdict.
    #[inline]
    #[must_use]
    pub fn packet(&mut self, index: usize) -> Option<Packet<'_>> {
        self.packets_from(index).next()
    }

    /// The packets, and beside them the counters.
    #[inline]
    #[must_use]
    pub fn split(&mut self) -> (Packets<'_>, Counters<'_>) {
        let parts = &mut self.0;
        let packets = Packets::new(
            parts.descriptors,
            parts.verdicts,
            parts.edits,
            parts.marks,
            parts.payload,
            parts.payload_stride,
        );
        (packets, Counters::new(parts.counters))
    }

    /// The verdicts, and beside them the counters.
    #[inline]
    #[must_use]
    pub fn split_verdicts(&mut self) -> (&mut [Verdict], Counters<'_>) {
        (self.0.verdicts, Counters::new(self.0.counters))
    }

    #[inline]
    fn packets_from(&mut self, index: usize) -> Packets<'_> {
        let parts = &mut self.0;
        let (verdicts, edits) = (parts.verdicts.len(), parts.edits.len());
        let words = index.saturating_mul(parts.payload_stride / 8).min(parts.payload.len());
        Packets::new(
            &parts.descriptors[index.min(verdicts)..],
            &mut parts.verdicts[index.min(verdicts)..],
            &mut parts.edits[index.min(edits)..],
            &parts.marks[index.min(parts.marks.len())..],
            &parts.payload[words..],
            parts.payload_stride,
        )
    }

    /// The plugin's counters.
    #[inline]
    #[must_use]
    pub fn counters(&mut self) -> Counters<'_> {
        Counters::new(self.0.counters)
    }

    /// Adds to a counter; one that the manifest does not name counts nothing.
    #[inline]
    pub fn count(&mut self, counter: impl Into<Counter>, count: u64) {
        self.counters().add(counter, count);
    }

    /// Sets a gauge to what it shows now.
    #[inline]
    pub fn set_gauge(&mut self, gauge: Gauge, value: u64) {
        self.counters().set(gauge, value);
    }
}
