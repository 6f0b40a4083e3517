//! What plugins are priced with: the packets that the workers remember, or generated ones before there are
//! any, and how much traffic the router has.
//!
//! Of a remembered packet the plugin is shown what is known as it comes in: its headers, not its route,
//! slice, next hop or direction, and of a tunnel's packet the outer headers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use config::Checked;
use forward::{Sample, SampleRing};
use policy::{Manifest, PayloadStart, PriceTraffic, RehearsalPacket, TrafficNow, TrafficSource};

use crate::plugin_author::generated_packets;

/// Packets that are taken of those that the workers remember, the latest.
const PACKETS_MAX: usize = 4096;

/// Fewer say too little about a plugin's cost.
const PACKETS_MIN: usize = 64;

/// What generated packets are made from: the same ones at each start.
const SEED: u64 = 1;

/// Packets a second that the router receives, as the control loop measures them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReceivedRate(Arc<AtomicU64>);

impl ReceivedRate {
    pub(crate) fn set(&self, packets_per_s: f64) {
        self.0.store(packets_per_s.to_bits(), Ordering::Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }
}

/// The router's traffic, for the policy host.
pub(crate) struct RouterTraffic {
    pub(crate) samples: Vec<Arc<SampleRing>>,
    pub(crate) batch_frames: usize,
    pub(crate) rate: ReceivedRate,
    pub(crate) clocks_per_s: f64,
}

impl RouterTraffic {
    /// That of a router which has not received a packet, so that plugins are priced as at its start.
    pub(crate) fn none(config: &Checked) -> Self {
        Self {
            samples: Vec::new(),
            batch_frames: config.router.batch_frames.into(),
            rate: ReceivedRate::default(),
            clocks_per_s: frame::tsc::hertz() as f64,
        }
    }

    fn recent(&self, manifest: &Manifest) -> Vec<RehearsalPacket> {
        let each = PACKETS_MAX / self.samples.len().max(1);
        let samples = self.samples.iter().flat_map(|ring| {
            let mut samples = ring.read();
            samples.split_off(samples.len().saturating_sub(each))
        });
        samples.filter_map(|sample| packet(&sample, manifest)).collect()
    }
}

fn packet(sample: &Sample, manifest: &Manifest) -> Option<RehearsalPacket> {
    let frame = sample.frame();
    let descriptor = forward::describe(&frame).ok()?;
    let payload = manifest.payload.map(|window| {
        let start = match window.from {
            PayloadStart::L3 => descriptor.l3_offset,
            PayloadStart::L4 => descriptor.l4_offset,
        };
        let bytes = frame.get(usize::from(start)..).unwrap_or_default();
        bytes.get(..bytes.len().min(window.bytes)).unwrap_or_default().to_vec()
    });
    Some(RehearsalPacket { descriptor, payload: payload.unwrap_or_default(), ..Default::default() })
}

impl PriceTraffic for RouterTraffic {
    fn packets(&self, manifest: &Manifest, config: &[u8]) -> (TrafficSource, Vec<RehearsalPacket>) {
        let recent = self.recent(manifest);
        if recent.len() >= PACKETS_MIN {
            return (TrafficSource::Recent, recent);
        }
        (TrafficSource::Generated, generated_packets(SEED, config, manifest))
    }

    fn batch_frames(&self) -> usize {
        self.batch_frames
    }

    fn now(&self) -> TrafficNow {
        TrafficNow { packets_per_s: self.rate.get(), clocks_per_s: self.clocks_per_s }
    }
}

#[cfg(test)]
mod tests {
    use frame::Nanos;
    use wire::InterfaceId;

    use super::*;

    const MANIFEST: &str = "abi = \"1.0\"\nname = \"p\"\nhooks = [\"ingress\"]\n\
                            memory_max_bytes = 65536\npayload = { from = \"l4\", bytes = 12 }\n";

    /// UDP from 10.0.0.1:53 to 10.0.0.2:2000.
    const HEAD: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0x66, 0xcf,
        10, 0, 0, 1, 10, 0, 0, 2, 0, 53, 7, 0xd0, 0, 8, 0, 0,
    ];

    fn traffic() -> RouterTraffic {
        let rate = ReceivedRate::default();
        rate.set(1_000_000.0);
        let samples = vec![Arc::new(SampleRing::default())];
        RouterTraffic { samples, batch_frames: 64, rate, clocks_per_s: 2e9 }
    }

    #[test]
    fn a_remembered_packet_is_shown_with_the_bytes_that_the_plugin_asks_for() {
        let manifest = Manifest::parse(MANIFEST.as_bytes()).expect("a manifest");
        let (time, ingress, weight) = (Nanos(1), InterfaceId(0), 1);
        let sample = Sample { time, ingress, weight, length: 60, head: HEAD.to_vec() };
        let shown = packet(&sample, &manifest).expect("a packet");
        assert_eq!((shown.descriptor.source_port, shown.descriptor.destination_port), (53, 2000));
        assert_eq!(shown.payload, [&HEAD[34..], &[0; 4]].concat());
        let arp = Sample { head: vec![0; 60], ..sample };
        assert_eq!(packet(&arp, &manifest), None);
    }

    #[test]
    fn without_a_past_packets_are_generated_and_the_same_each_time() {
        let manifest = Manifest::parse(MANIFEST.as_bytes()).expect("a manifest");
        let traffic = traffic();
        let (source, generated) = traffic.packets(&manifest, b"{}");
        assert_eq!(source, TrafficSource::Generated);
        assert!(generated.len() > 1000, "{}", generated.len());
        assert_eq!(traffic.packets(&manifest, b"{}").1, generated);
        assert_eq!(traffic.now(), TrafficNow { packets_per_s: 1e6, clocks_per_s: 2e9 });
    }
}
