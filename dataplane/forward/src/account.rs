//! What left by plugins' orders: packets and bytes by class, egress tag and next hop.

use frame::{Batch, Verdict};

use crate::Counter;
use crate::detour::Detour;
use crate::path::Path;

/// Packets, and bytes of their IP packets.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: Counter,
    /// Bytes of the IP packets, without any tunnel's or link's headers.
    pub bytes: Counter,
}

impl Traffic {
    fn add(&self, bytes: u16) {
        self.packets.add(1);
        self.bytes.add(u64::from(bytes));
    }
}

/// What one worker counts of an egress tag.
#[derive(Debug, Default)]
pub struct TagTraffic {
    /// What took the tag's way.
    pub taken: Traffic,
    /// What had the tag and took its route, because none of the tag's next hops could be used.
    pub missed: Traffic,
}

/// What one worker counts of packets that left, or went to the kernel, with something set on them by a
/// plugin; each by number. What was dropped is counted by its reason, and not here.
#[derive(Debug)]
pub struct ActionCounters {
    /// By class.
    pub classes: Box<[Traffic]>,
    /// By egress tag.
    pub tags: Box<[TagTraffic]>,
    /// By named next hop, of those that plugins sent there.
    pub next_hops: Box<[Traffic]>,
}

impl Default for ActionCounters {
    fn default() -> Self {
        let numbers = || 0..=usize::from(tables::NUMBERS_MAX);
        Self {
            classes: (0..=tables::CLASSES_MAX).map(|_| Traffic::default()).collect(),
            tags: numbers().map(|_| TagTraffic::default()).collect(),
            next_hops: numbers().map(|_| Traffic::default()).collect(),
        }
    }
}

/// Counts a batch of `count` packets that have met their ends.
#[cold]
#[inline(never)]
pub(crate) fn count(batch: &Batch, count: usize, paths: &[Path], counters: &ActionCounters) {
    let Batch { descriptors, verdicts, edits, .. } = batch;
    let known = descriptors.iter().zip(verdicts.iter()).zip(paths).take(count);
    for (position, ((descriptor, verdict), path)) in known.enumerate() {
        if !matches!(verdict, Verdict::Transmit(_) | Verdict::Fragment(_) | Verdict::Punt) {
            continue;
        }
        let class = usize::from(edits.get(position).class);
        if let Some(class) = counters.classes.get(class).filter(|_| class != 0) {
            class.add(descriptor.length);
        }
        let traffic = match path.detour {
            Detour::None => None,
            Detour::NextHop(number) => counters.next_hops.get(usize::from(number)),
            Detour::Tag(number) => counters.tags.get(usize::from(number)).map(|tag| &tag.taken),
            Detour::Missed(number) => counters.tags.get(usize::from(number)).map(|tag| &tag.missed),
        };
        if let Some(traffic) = traffic {
            traffic.add(descriptor.length);
        }
    }
}
