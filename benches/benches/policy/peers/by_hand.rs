//! The token buckets of `rate-limit` as somebody would write them for one worker that shares them with nobody:
//! the least that the policy costs.

use sluice_abi::{Descriptor, flags, meter::units};

use super::{BATCH, BATCH_NS};

/// Places of the table, a power of two.
const PLACES: usize = 1 << 16;

/// A table with open addressing, of which no entry is ever taken out.
pub(super) struct Buckets {
    /// The key of a network, 0 for none, and its theoretical arrival time.
    places: Box<[(u64, u64)]>,
    interval: u64,
    burst: u64,
    turn: u64,
}

impl Buckets {
    pub(super) fn new(packets_per_s: u64, burst: u64) -> Self {
        let interval = units(1_000_000_000) / packets_per_s;
        let places = vec![(0, 0); PLACES].into_boxed_slice();
        Self { places, interval, burst: interval * burst, turn: 0 }
    }

    /// Judges all packets once, in batches: 1 for one that is refused.
    pub(super) fn pass(&mut self, packets: &[Descriptor], verdicts: &mut [u8]) {
        for (packets, verdicts) in packets.chunks(BATCH).zip(verdicts.chunks_mut(BATCH)) {
            self.turn += 1;
            let now = units(1_000_000_000 + self.turn * BATCH_NS);
            let (interval, latest) = (self.interval, now + self.burst);
            for (packet, verdict) in packets.iter().zip(verdicts) {
                let bucket = self.bucket(network(packet));
                let next = (*bucket).max(now) + interval;
                let is_admitted = next <= latest;
                *bucket = if is_admitted { next } else { *bucket };
                *verdict = u8::from(!is_admitted);
            }
        }
    }

    fn bucket(&mut self, network: u64) -> &mut u64 {
        // Fibonacci hashing (Knuth, "The Art of Computer Programming", volume 3, 6.4).
        let hash = network.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
        let mut place = hash as usize;
        while self.places[place % PLACES].0 != network && self.places[place % PLACES].0 != 0 {
            place += 1;
        }
        let (key, bucket) = &mut self.places[place % PLACES];
        *key = network;
        bucket
    }
}

/// The /24 or /64 of a source, never 0.
fn network(packet: &Descriptor) -> u64 {
    let [first, last] = [0, 8].map(|at| {
        let bytes = packet.source[at..].first_chunk().expect("16 bytes");
        u64::from_be_bytes(*bytes)
    });
    if packet.flags & flags::IPV6 == 0 { last >> 8 } else { first }
}
