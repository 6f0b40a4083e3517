//! [`Sources`]: which sources completed a handshake of late, and how many each has half-open.
//!
//! Half-open handshakes are a debt, as in the generic cell rate algorithm (ITU-T I.371): each moves the
//! moment at which the source owes nothing by `half_open_s / half_open_max`, a completed one moves it
//! back, and what never completes is forgotten with time. So nothing is swept, and at no moment are
//! more than twice `half_open_max` half-open.

use crate::key::Key;

const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    /// 0 for none.
    tag: u32,
    /// Seconds until which it is trusted, or 0.
    verified_until_s: u32,
    /// When it owes nothing.
    free_at_ns: u64,
}

/// The sources that a worker knows.
#[derive(Debug)]
pub(crate) struct Sources {
    ways: Box<[[Source; WAYS]]>,
    /// What one half-open handshake costs; 0 when any number is allowed.
    cost_ns: u64,
    window_ns: u64,
    verified_s: u32,
}

/// Whether a source may begin a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It may, and that is written down.
    Yes,
    /// It may, since there is no place to write it down.
    Unknown,
    /// It has too many half-open.
    No,
}

fn seconds(now_ns: u64) -> u32 {
    (now_ns / 1_000_000_000) as u32
}

impl Sources {
    /// Room for about `sources`.
    pub(crate) fn new(sources: u32, half_open_max: u32, half_open_s: u32, verified_s: u32) -> Self {
        let buckets = (sources as usize).div_ceil(WAYS).next_power_of_two();
        let window_ns = u64::from(half_open_s) * 1_000_000_000;
        Self {
            ways: vec![[Source::default(); WAYS]; buckets].into(),
            cost_ns: window_ns.checked_div(half_open_max.into()).unwrap_or(0),
            window_ns,
            verified_s,
        }
    }

    fn bucket(&mut self, key: Key) -> &mut [Source; WAYS] {
        let at = key.bucket(self.ways.len());
        &mut self.ways[at]
    }

    fn find(&mut self, key: Key) -> Option<&mut Source> {
        self.bucket(key).iter_mut().find(|source| source.tag == key.tag())
    }

    /// The place of a source: its own, or one of a source that is neither trusted nor in debt.
    fn place(&mut self, key: Key, now_ns: u64) -> Option<&mut Source> {
        let bucket = self.bucket(key);
        let way = bucket.iter().position(|source| source.tag == key.tag()).or_else(|| {
            bucket.iter().position(|source| {
                source.verified_until_s <= seconds(now_ns) && source.free_at_ns <= now_ns
            })
        })?;
        let source = &mut bucket[way];
        if source.tag != key.tag() {
            *source = Source { tag: key.tag(), ..Source::default() };
        }
        Some(source)
    }

    /// Whether a source completed a handshake of late.
    pub(crate) fn is_verified(&mut self, key: Key, now_ns: u64) -> bool {
        self.find(key).is_some_and(|source| source.verified_until_s > seconds(now_ns))
    }

    /// A source begins a handshake.
    pub(crate) fn begin(&mut self, key: Key, now_ns: u64) -> Answer {
        if self.cost_ns == 0 {
            return Answer::Yes;
        }
        let (cost_ns, window_ns) = (self.cost_ns, self.window_ns);
        let Some(source) = self.place(key, now_ns) else { return Answer::Unknown };
        let free_at_ns = source.free_at_ns.max(now_ns) + cost_ns;
        if free_at_ns > now_ns + window_ns {
            return Answer::No;
        }
        source.free_at_ns = free_at_ns;
        Answer::Yes
    }

    /// A handshake ended: completed, or taken back. False when it was completed and there is no place
    /// to write that down.
    pub(crate) fn end(&mut self, key: Key, now_ns: u64, is_completed: bool) -> bool {
        let cost_ns = self.cost_ns;
        let verified_until_s = seconds(now_ns).saturating_add(self.verified_s);
        let is_verified = is_completed && self.verified_s > 0;
        let source = if is_verified { self.place(key, now_ns) } else { self.find(key) };
        match source {
            Some(source) => {
                source.free_at_ns = source.free_at_ns.saturating_sub(cost_ns);
                if is_verified {
                    source.verified_until_s = verified_until_s;
                }
                true
            }
            None => !is_verified,
        }
    }

    /// How many buckets there are.
    pub(crate) fn buckets(&self) -> u32 {
        self.ways.len() as u32
    }

    /// All sources that are known: place, tag, until when it is trusted, and when it owes nothing.
    pub(crate) fn entries(&self) -> impl Iterator<Item = ([u32; 3], u64)> {
        let all = self.ways.iter().flatten().zip(0_u32..).filter(|(source, _)| source.tag != 0);
        all.map(|(source, place)| ([place, source.tag, source.verified_until_s], source.free_at_ns))
    }

    /// Takes one of another table's [`Self::entries`]. False when there is no such place.
    pub(crate) fn set_entry(&mut self, [place, tag, until_s]: [u32; 3], free_at_ns: u64) -> bool {
        let source = self.ways.as_flattened_mut().get_mut(place as usize);
        let Some(source) = source else { return false };
        *source = Source { tag, verified_until_s: until_s, free_at_ns };
        true
    }
}
