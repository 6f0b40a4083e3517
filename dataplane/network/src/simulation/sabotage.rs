//! [`Sabotage`]: faults that no router may have, put between a worker's ring and the link, to show that
//! the properties notice them.

use fastrand::Rng;

use crate::frames::{self, ETHERNET_LEN, Layer};
use crate::model::{ROUTERS, router_address};

/// What a router appears to do wrong. Those that change frames do it to about one in 16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// It does not decrement the TTL.
    KeptTtl,
    /// It computes a wrong checksum.
    Checksum,
    /// It changes a byte of a payload, and the checksum with it.
    Payload,
    /// It sends a frame twice.
    Twice,
    /// It loses a frame and says nothing.
    Swallowed,
    /// It counts a packet that it never received.
    Counter,
    /// It loses chunks.
    Chunks,
    /// Its slices are others than its configuration's.
    Slices,
    /// It puts what came out of a node's tunnel into another.
    TunnelAgain,
    /// What is malformed passes it.
    Malformed,
    /// It never hears of a neighbor again.
    Deaf,
}

impl Sabotage {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::KeptTtl,
        Self::Checksum,
        Self::Payload,
        Self::Twice,
        Self::Swallowed,
        Self::Counter,
        Self::Chunks,
        Self::Slices,
        Self::TunnelAgain,
        Self::Malformed,
        Self::Deaf,
    ];

    /// What leaves in place of a frame that a router sent.
    pub(super) fn apply(self, router: usize, frame: Vec<u8>, random: &mut Rng) -> Vec<Vec<u8>> {
        if random.u8(..16) > 0 {
            return vec![frame];
        }
        let Some(layer) = Layer::read(&frame, ETHERNET_LEN) else { return vec![frame] };
        let mut frame = frame;
        match self {
            Self::KeptTtl if layer.inner(&frame).is_none() => {
                frames::raise_ttl(&mut frame[ETHERNET_LEN..]);
            }
            Self::Checksum if layer.source.is_ipv4() => frame[ETHERNET_LEN + 10] ^= 1,
            // The last two words: the sum stays what it was.
            Self::Payload if layer.payload.len() > 40 => {
                let (upper, lower) = (layer.payload.end - 4, layer.payload.end - 2);
                frame.swap(upper, lower);
                frame.swap(upper + 1, lower + 1);
            }
            Self::Twice => return vec![frame.clone(), frame],
            Self::Swallowed => return Vec::new(),
            Self::TunnelAgain => {
                let others = (1..ROUTERS).find(|&other| other != router);
                let is_for_workload = frame[..5] == [2, 0, 0, 0x30, router as u8 + 2];
                if let (Some(other), true) = (others, is_for_workload) {
                    let end = layer.payload.end;
                    let (from, to) =
                        (router_address(router, 0, false), router_address(other, 0, false));
                    let mac = frame[6..12].try_into().unwrap_or_default();
                    let outer = frames::gue(from, to, &frame[ETHERNET_LEN..end]);
                    return vec![frames::ethernet([2, 0, 0, 0x10, 0, 1], mac, &outer)];
                }
            }
            _ => {}
        }
        vec![frame]
    }
}
