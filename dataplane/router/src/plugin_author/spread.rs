//! Packets spread over workers, as a NIC spreads flows over its queues.
//!
//! A NIC hashes addresses and ports of a packet (of a fragment, and of other protocols, the addresses alone)
//! with a key of its own. Which flows meet on one worker is then chance; here it is the same in each run.

use sluice_abi::{Descriptor, flags};

use super::packets::{Call, Packets};

impl Packets {
    /// The same packets with each call split among `workers` workers, the flows of which stay together.
    pub(crate) fn spread(&self, workers: usize) -> Self {
        let Self { tick_ns, count, skipped, .. } = *self;
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

/// The worker that a flow comes to.
fn worker_of(packet: &Descriptor, workers: usize) -> usize {
    let has_ports = matches!(packet.protocol, 6 | 17)
        && packet.flags & flags::PORTS != 0
        && packet.flags & flags::FRAGMENT == 0;
    let ports = if has_ports { [packet.source_port, packet.destination_port] } else { [0; 2] };
    let addresses = packet.source.iter().chain(&packet.destination).copied();
    let bytes = addresses.chain(ports.into_iter().flat_map(u16::to_be_bytes));
    // FNV-1a (RFC 9923), and the last step of SplitMix64 (Steele, Lea, Flood 2014), which has the last bytes
    // decide as much as the first.
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (((hash >> 32) * workers as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(source: u8, port: u16, more: u8) -> Descriptor {
        Descriptor {
            source: [source; 16],
            source_port: port,
            protocol: 17,
            flags: flags::PORTS | more,
            ..Descriptor::default()
        }
    }

    #[test]
    fn flows_go_to_one_worker_each_and_to_all_workers() {
        for workers in [1, 2, 3, 16, 64] {
            let mut counts = vec![0_usize; workers];
            for port in 0..64 * workers as u16 {
                let worker = worker_of(&packet(1, port, 0), workers);
                assert_eq!(worker, worker_of(&packet(1, port, 0), workers));
                counts[worker] += 1;
            }
            let (least, most) = (counts.iter().min(), counts.iter().max());
            assert!(least > Some(&16) && most < Some(&160), "{workers}: {counts:?}");
        }
    }

    #[test]
    fn ports_of_fragments_do_not_count() {
        let of = |port| worker_of(&packet(1, port, flags::FRAGMENT), 64);
        assert!((0..256).all(|port| of(port) == of(0)));
    }
}
