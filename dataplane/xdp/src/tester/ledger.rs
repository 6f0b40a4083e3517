//! [`SinkLedger`]: what arrived, stream by stream.

use super::LatencyHistogram;

/// What a sink counted since it was attached or reset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkLedger {
    /// One for each stream, by its number.
    pub streams: Vec<StreamLedger>,
    /// Packets whose tag is damaged, forged, or older than the run: dropped.
    pub refused: u64,
    /// Packets without a tag: given to the kernel.
    pub foreign: u64,
}

/// What arrived of one stream: packets whose check was right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamLedger {
    /// All packets, each copy counted.
    pub packets: u64,
    /// Bytes of their frames, without check sequence.
    pub bytes: u64,
    /// The highest sequence; `None` before the first packet.
    pub sequence_max: Option<u64>,
    /// Packets that arrived after one with a higher sequence (RFC 4737 section 3.3). Further copies
    /// are not among them.
    pub reordered: u64,
    /// Packets that had arrived before.
    pub duplicates: u64,
    /// Packets that came so late behind the highest sequence that the sink had forgotten whether they
    /// were there: neither duplicates nor unique.
    pub unjudged: u64,
    /// When the first and the last packet arrived: `CLOCK_MONOTONIC` in nanoseconds. `None` before the
    /// first one.
    pub arrivals_ns: Option<(u64, u64)>,
    /// Time from the tag to arrival, of each packet that is not a duplicate or unjudged.
    pub latency: LatencyHistogram,
}

/// The sums of a ledger that progress is shown by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkTotals {
    /// Packets of all streams, each copy counted.
    pub packets: u64,
    /// Packets of all streams, copies not counted.
    pub unique: u64,
    /// Bytes of all packets.
    pub bytes: u64,
    /// As [`SinkLedger::refused`].
    pub refused: u64,
    /// As [`SinkLedger::foreign`].
    pub foreign: u64,
}

impl StreamLedger {
    /// Different packets that arrived. What was sent less this is lost.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.packets.saturating_sub(self.duplicates + self.unjudged)
    }
}
