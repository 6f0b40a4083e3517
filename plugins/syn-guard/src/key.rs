//! Packets to keys: of a worker's own tables a bucket and a tag within it, from a hash with a secret; of what
//! workers share a group and a member, which are the same to all of them.
//!
//! The secret is made of the time of the first batch and what was in it, and differs between workers
//! and reloads: who wants to fill one bucket of all must guess it. The hash is no cryptographic one. Groups
//! and members are what packets say, and hashed by the host, with a secret of its own.

use sluice_sdk::{Descriptor, flags};

/// The hash of a flow or source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(u64);

/// An odd number whose bits look random (the golden ratio).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn mix(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(MULTIPLIER);
    (product ^ product >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ product >> 29
}

#[inline]
fn halves(address: &[u8; 16]) -> [u64; 2] {
    let (halves, _) = address.as_chunks::<8>();
    [u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])]
}

/// The source of a packet, as a group: an IPv4 address, or the /64 of an IPv6 one.
#[inline]
pub(crate) fn group(packet: &Descriptor) -> [u8; 16] {
    let mut group = packet.source;
    if packet.flags & flags::IPV6 != 0 {
        group[8..].fill(0);
    }
    group
}

/// A direction of a TCP connection, as a member of its source's group: the rest of the source, ports, and
/// destination. Of an IPv6 destination there is room for 32 bits of a hash.
#[inline]
pub(crate) fn member(packet: &Descriptor) -> [u8; 16] {
    let [_, source] = halves(&packet.source);
    let destination = if packet.flags & flags::IPV6 != 0 {
        let [high, low] = halves(&packet.destination);
        mix(mix(MULTIPLIER, high), low) as u32
    } else {
        u32::from_le_bytes(*packet.destination.last_chunk().unwrap_or(&[0; 4]))
    };
    let ports = u64::from(packet.source_port) << 16 | u64::from(packet.destination_port);
    let rest = ports << 32 | u64::from(destination.wrapping_add(packet.vrf.into()));
    let mut member = [0; 16];
    member[..8].copy_from_slice(&source.to_le_bytes());
    member[8..].copy_from_slice(&rest.to_le_bytes());
    member
}

/// A secret from what nobody outside knows.
pub(crate) fn secret(now_ns: u64, packets: &[Descriptor]) -> u64 {
    packets.iter().take(8).fold(mix(MULTIPLIER, now_ns), |secret, packet| {
        let [high, low] = halves(&packet.source);
        mix(mix(secret, high ^ low), u64::from(packet.hash))
    })
}

impl Key {
    /// That of one direction of a TCP connection.
    #[inline]
    pub(crate) fn flow(secret: u64, packet: &Descriptor) -> Self {
        let ports = u64::from(packet.source_port) << 16 | u64::from(packet.destination_port);
        let ([_, source], [_, destination]) = (halves(&packet.source), halves(&packet.destination));
        let mut hash = mix(mix(mix(secret, ports), source), destination);
        if packet.flags & flags::IPV6 != 0 {
            let ([source, _], [destination, _]) =
                (halves(&packet.source), halves(&packet.destination));
            hash = mix(mix(hash, source), destination);
        }
        Self(mix(hash, packet.vrf.into()))
    }

    /// That of a source: an IPv4 address, or the /64 of an IPv6 one.
    #[inline]
    pub(crate) fn source(secret: u64, packet: &Descriptor) -> Self {
        let is_v6 = packet.flags & flags::IPV6 != 0;
        let [high, low] = halves(&packet.source);
        Self(mix(mix(!secret, if is_v6 { high } else { low }), u64::from(is_v6)))
    }

    /// Which of `buckets`, a power of two.
    #[inline]
    pub(crate) fn bucket(self, buckets: usize) -> usize {
        self.0 as usize & (buckets - 1)
    }

    /// What tells it from others in its bucket; never 0.
    #[inline]
    pub(crate) fn tag(self) -> u32 {
        (self.0 >> 32) as u32 | 1
    }
}
