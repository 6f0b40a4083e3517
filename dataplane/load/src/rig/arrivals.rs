//! What one thread of the sink in user space counts.

use std::time::Duration;

use xdp::tester::{SinkLedger, StreamLedger};

use super::window::{Seen, Window};
use crate::layout;
use crate::tag::{Tag, TagKey};

/// A payload with a wrong check passes for a damaged tag if its time lies within the last two
/// minutes, as with the kernel's sink.
const TAG_AGE_NS_MAX: u64 = 1 << 37;

/// A ledger with what it takes to judge packets.
#[derive(Debug)]
pub(crate) struct Arrivals<'run> {
    key: TagKey,
    windows: &'run [Window],
    start_ns: u64,
    ledger: SinkLedger,
    unique: u64,
    latency_max_ns: u64,
}

impl<'run> Arrivals<'run> {
    /// An empty ledger of a run that started at `start_ns`, with a window for each of its streams.
    pub(crate) fn new(key: TagKey, windows: &'run [Window], start_ns: u64) -> Self {
        let streams = vec![StreamLedger::default(); windows.len()];
        let ledger = SinkLedger { streams, refused: 0, foreign: 0 };
        Self { key, windows, start_ns, ledger, unique: 0, latency_max_ns: 0 }
    }

    /// Counts a packet that arrived at `now_ns`.
    ///
    /// Reordering is judged within the queue that this thread reads: queues have no common order,
    /// and a flow stays on its queue.
    #[inline]
    pub(crate) fn count(&mut self, packet: &[u8], now_ns: u64) {
        let Some(bytes) = layout::locate_tag(packet) else {
            self.ledger.foreign += 1;
            return;
        };
        let Some(tag) = Tag::decode(bytes, &self.key) else {
            self.stray(Tag::decode_unchecked(bytes), now_ns);
            return;
        };
        let number = usize::from(tag.stream);
        let (Some(stream), Some(window)) =
            (self.ledger.streams.get_mut(number), self.windows.get(number))
        else {
            self.ledger.refused += 1;
            return;
        };
        if tag.timestamp_ns < self.start_ns {
            // A straggler of the run before, which had the same key.
            self.ledger.refused += 1;
            return;
        }
        stream.packets += 1;
        stream.bytes += packet.len() as u64;
        stream.arrivals_ns =
            Some(stream.arrivals_ns.map_or((now_ns, now_ns), |(first, _)| (first, now_ns)));
        match window.mark(tag.sequence) {
            Seen::Duplicate => stream.duplicates += 1,
            Seen::Unjudged => stream.unjudged += 1,
            Seen::New => {
                self.unique += 1;
                match stream.sequence_max {
                    Some(highest) if tag.sequence < highest => stream.reordered += 1,
                    _ => stream.sequence_max = Some(tag.sequence),
                }
                let latency_ns = now_ns.saturating_sub(tag.timestamp_ns);
                self.latency_max_ns = self.latency_max_ns.max(latency_ns);
                stream.latency.record(latency_ns);
            }
        }
    }

    fn stray(&mut self, tag: Tag, now_ns: u64) {
        let is_like_a_tag = usize::from(tag.stream) < self.windows.len()
            && now_ns.checked_sub(tag.timestamp_ns).is_some_and(|age| age < TAG_AGE_NS_MAX);
        if is_like_a_tag {
            self.ledger.refused += 1;
        } else {
            self.ledger.foreign += 1;
        }
    }

    /// Different packets so far.
    #[inline]
    pub(crate) fn unique(&self) -> u64 {
        self.unique
    }

    /// Packets without a tag so far.
    #[inline]
    pub(crate) fn foreign(&self) -> u64 {
        self.ledger.foreign
    }

    /// The longest latency so far; 0 without any.
    #[inline]
    pub(crate) fn latency_max_ns(&self) -> u64 {
        self.latency_max_ns
    }

    /// What was counted.
    pub(crate) fn into_ledger(self) -> SinkLedger {
        self.ledger
    }
}

/// Adds up what the threads of a sink counted.
pub(crate) fn merge(mut sum: SinkLedger, part: &SinkLedger) -> SinkLedger {
    sum.refused += part.refused;
    sum.foreign += part.foreign;
    sum.streams.resize_with(sum.streams.len().max(part.streams.len()), StreamLedger::default);
    for (sum, part) in sum.streams.iter_mut().zip(&part.streams) {
        sum.packets += part.packets;
        sum.bytes += part.bytes;
        sum.sequence_max = sum.sequence_max.max(part.sequence_max);
        sum.reordered += part.reordered;
        sum.duplicates += part.duplicates;
        sum.unjudged += part.unjudged;
        sum.arrivals_ns = match (sum.arrivals_ns, part.arrivals_ns) {
            (Some(a), Some(b)) => Some((a.0.min(b.0), a.1.max(b.1))),
            (a, b) => a.or(b),
        };
        sum.latency.merge(&part.latency);
    }
    sum
}

const _: () = assert!(Duration::from_nanos(TAG_AGE_NS_MAX).as_secs() == 137);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Addresses, Kind, Popularity, Sizes};
    use crate::profile::{Destinations, PORTS, Profile, Stations};

    fn packet(tag: Tag, key: &TagKey) -> Vec<u8> {
        let net = |text: &str| Addresses::Prefixes(vec![text.parse().expect("a prefix")]);
        let profile = Profile {
            sizes: Sizes::fixed(60).expect("a size"),
            flows: 1,
            popularity: Popularity::Uniform,
            ipv6_share: None,
            kind: Kind::Udp,
            bursts: None,
            sources: net("10.0.0.0/24"),
            destinations: Destinations::Addresses(net("10.0.1.0/24"), PORTS),
            seed: 1,
        };
        let traffic = profile.build(Stations::default()).expect("a profile");
        let mut packet = vec![0; 60];
        layout::fill(&mut packet, &traffic.images[0], &tag.encode(key));
        packet
    }

    #[test]
    fn packets_are_told_apart() {
        let key = TagKey::new([1, 2]);
        let windows = [Window::new(10)];
        let mut arrivals = Arrivals::new(key, &windows, 1_000);
        let sent = |sequence, timestamp_ns| Tag { stream: 0, sequence, timestamp_ns };
        for sequence in [0, 1, 3, 2, 3] {
            arrivals.count(&packet(sent(sequence, 2_000), &key), 2_500);
        }
        arrivals.count(&packet(sent(4, 999), &key), 3_000); // of an earlier run
        arrivals.count(&packet(sent(5, 2_000), &TagKey::new([1, 3])), 3_000); // forged
        arrivals.count(&packet(Tag { stream: 1, ..sent(6, 2_000) }, &key), 3_000);
        arrivals.count(&packet(sent(7, u64::MAX), &TagKey::new([1, 3])), 3_000); // no tag
        arrivals.count(&[0; 60], 3_000);
        assert_eq!((arrivals.unique(), arrivals.latency_max_ns()), (4, 500));
        let ledger = arrivals.into_ledger();
        assert_eq!((ledger.refused, ledger.foreign), (3, 2));
        let stream = &ledger.streams[0];
        assert_eq!((stream.packets, stream.bytes, stream.unique()), (5, 300, 4));
        assert_eq!((stream.reordered, stream.duplicates, stream.unjudged), (1, 1, 0));
        assert_eq!(stream.sequence_max, Some(3));
        assert_eq!(stream.latency.max_ns(), Some(500));
        let twice = merge(merge(SinkLedger::default(), &ledger), &ledger);
        assert_eq!((twice.refused, twice.streams[0].packets), (6, 10));
        assert_eq!(twice.streams[0].latency.count(), 8);
    }
}
