//! [`Sources`]: which sources completed a handshake of late. Nothing is swept: one that is trusted no
//! longer is found when its place is wanted.

use crate::key::Key;

const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// 0 for none.
    tag: u32,
    /// Seconds until which it is trusted.
    until_s: u32,
}

/// The sources that a worker trusts.
#[derive(Debug)]
pub(crate) struct Sources {
    ways: Box<[[Source; WAYS]]>,
    verified_s: u32,
}

fn seconds(now_ns: u64) -> u32 {
    (now_ns / 1_000_000_000) as u32
}

impl Sources {
    /// Room for about `sources`.
    pub(crate) fn new(sources: u32, verified_s: u32) -> Self {
        let buckets = (sources as usize).div_ceil(WAYS).next_power_of_two();
        Self { ways: vec![[Source::default(); WAYS]; buckets].into(), verified_s }
    }

    /// Whether a source completed a handshake of late.
    pub(crate) fn is_verified(&self, key: Key, now_ns: u64) -> bool {
        let bucket = &self.ways[key.bucket(self.ways.len())];
        bucket.iter().any(|source| source.tag == key.tag() && source.until_s > seconds(now_ns))
    }

    /// A source completed a handshake. False when there is no place to write that down.
    pub(crate) fn verify(&mut self, key: Key, now_ns: u64) -> bool {
        if self.verified_s == 0 {
            return true;
        }
        let now_s = seconds(now_ns);
        let at = key.bucket(self.ways.len());
        let bucket = &mut self.ways[at];
        let own = bucket.iter().position(|source| source.tag == key.tag());
        let way = own.or_else(|| bucket.iter().position(|source| source.until_s <= now_s));
        let Some(way) = way else { return false };
        bucket[way] = Source { tag: key.tag(), until_s: now_s.saturating_add(self.verified_s) };
        true
    }

    /// How many buckets there are.
    pub(crate) fn buckets(&self) -> u32 {
        self.ways.len() as u32
    }

    /// All sources that are known: place, tag, and until when it is trusted.
    pub(crate) fn entries(&self) -> impl Iterator<Item = [u32; 3]> {
        let all = self.ways.iter().flatten().zip(0_u32..).filter(|(source, _)| source.tag != 0);
        all.map(|(source, place)| [place, source.tag, source.until_s])
    }

    /// Takes one of another table's [`Self::entries`]. False when there is no such place.
    pub(crate) fn set_entry(&mut self, [place, tag, until_s]: [u32; 3]) -> bool {
        let source = self.ways.as_flattened_mut().get_mut(place as usize);
        let Some(source) = source else { return false };
        *source = Source { tag, until_s };
        true
    }
}
