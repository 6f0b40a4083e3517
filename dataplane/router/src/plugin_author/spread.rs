//! Packets spread over workers, as a NIC spreads flows over its queues.
//!
//! A NIC hashes addresses and ports with a key of its own. Which flows meet on one worker is then chance; here it
//! is decided by the hash of flows that the router's parser makes, and the same in each run.

use sluice_abi::Descriptor;

use super::packets::{Call, Packets};

impl Packets {
    /// The same packets with each call split among `workers` workers, the flows of which stay together.
    pub(crate) fn spread(&self, workers: usize) -> Self {
        let Self { tick_ns, count, .. } = *self;
        let skipped = self.skipped.clone();
        let mut spread = Self { calls: Vec::new(), workers, tick_ns, count, skipped };
        for call in &self.calls {
            let mut parts = vec![Vec::new(); workers];
            for packet in &call.packets {
                parts[worker_of(&packet.seen.descriptor, workers)].push(packet.clone());
            }
            for (worker, packets) in parts.into_iter().enumerate() {
                if !packets.is_empty() {
                    spread.calls.push(Call { now_ns: call.now_ns, worker, packets });
                }
            }
        }
        spread
    }

    /// How many packets each worker has.
    pub(crate) fn of_workers(&self) -> Vec<usize> {
        let mut counts = vec![0; self.workers];
        for call in &self.calls {
            counts[call.worker] += call.packets.len();
        }
        counts
    }
}

/// The worker that a flow comes to: an even spread of hashes without a division.
fn worker_of(packet: &Descriptor, workers: usize) -> usize {
    ((u64::from(packet.hash) * workers as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_go_to_all_workers_alike() {
        let worker =
            |hash, workers| worker_of(&Descriptor { hash, ..Descriptor::default() }, workers);
        for workers in [1, 2, 3, 16, 64] {
            assert_eq!((worker(0, workers), worker(u32::MAX, workers)), (0, workers - 1));
            let mut counts = vec![0_usize; workers];
            for step in 0..1000 * workers as u32 {
                counts[worker(step * (u32::MAX / (1000 * workers as u32)), workers)] += 1;
            }
            assert!(counts.iter().all(|count| count.abs_diff(1000) <= 2), "{workers}: {counts:?}");
        }
    }
}
