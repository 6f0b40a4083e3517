//! The tag that every packet of a run carries, and how a forged one is told from ours.
//!
//! ```text
//!  0         4      5                10                 18
//!  +---------+------+----------------+------------------+
//!  |  check  |stream|    sequence    |    timestamp     |   network byte order,
//!  +---------+------+----------------+------------------+   at the start of the L4 payload
//! ```
//!
//! `check` is the low half of SipHash-1-3 (Aumasson and Bernstein 2012, "SipHash: a fast short-input
//! PRF") under the run's random key over 16 bytes: the words `stream << 40 | sequence` and
//! `timestamp`, each with its least significant byte first. So a packet of an earlier run, or of
//! somebody who does not know the key, is not counted as ours, but for one in 2^32. The programs of
//! [`xdp::tester`] compute the same.

use siphasher::sip::SipHasher13;
pub use xdp::tester::TAG_LEN;

/// Sequences are below this; then they start again.
pub const SEQUENCES: u64 = 1 << 40;

/// The key of a run.
#[derive(Clone, Copy, Debug)]
pub struct TagKey {
    words: [u64; 2],
    hasher: SipHasher13,
}

impl TagKey {
    /// A key from its two words, `k0` and `k1` of the SipHash paper.
    #[must_use]
    pub fn new(words: [u64; 2]) -> Self {
        Self { words, hasher: SipHasher13::new_with_keys(words[0], words[1]) }
    }

    /// A key that nobody can know.
    #[must_use]
    pub fn random() -> Self {
        Self::new([rand::random(), rand::random()])
    }

    /// `k0` and `k1`.
    #[must_use]
    pub fn words(&self) -> [u64; 2] {
        self.words
    }

    #[inline]
    fn check(&self, identity: u64, timestamp_ns: u64) -> u32 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&identity.to_le_bytes());
        bytes[8..].copy_from_slice(&timestamp_ns.to_le_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
        {
            self.hasher.hash(&bytes) as u32
        }
    }
}

/// What a tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Number of the generator's worker.
    pub stream: u8,
    /// Number of the packet in its stream, below [`SEQUENCES`].
    pub sequence: u64,
    /// When it was sent: `CLOCK_MONOTONIC` in nanoseconds.
    pub timestamp_ns: u64,
}

impl Tag {
    /// The tag's bytes. Of the sequence the low 40 bits count.
    #[inline]
    #[must_use]
    pub fn encode(self, key: &TagKey) -> [u8; TAG_LEN] {
        let identity = (u64::from(self.stream) << 40) | (self.sequence % SEQUENCES);
        let mut bytes = [0; TAG_LEN];
        bytes[4..10].copy_from_slice(&identity.to_be_bytes()[2..]);
        bytes[10..].copy_from_slice(&self.timestamp_ns.to_be_bytes());
        let check = key.check(identity, self.timestamp_ns);
        bytes[..4].copy_from_slice(&check.to_be_bytes());
        bytes
    }

    /// Reads a tag; `None` if its check is not that of this run.
    #[inline]
    #[must_use]
    pub fn decode(bytes: &[u8; TAG_LEN], key: &TagKey) -> Option<Self> {
        let [a, b, c, d, ..] = *bytes;
        let tag = Self::decode_unchecked(bytes);
        let identity = (u64::from(tag.stream) << 40) | tag.sequence;
        (key.check(identity, tag.timestamp_ns) == u32::from_be_bytes([a, b, c, d])).then_some(tag)
    }

    /// What the bytes would say if they were a tag.
    #[inline]
    #[must_use]
    pub(crate) fn decode_unchecked(bytes: &[u8; TAG_LEN]) -> Self {
        let [_, _, _, _, stream, a, b, c, d, e, time @ ..] = *bytes;
        Self {
            stream,
            sequence: u64::from_be_bytes([0, 0, 0, a, b, c, d, e]),
            timestamp_ns: u64::from_be_bytes(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_picture() {
        // The key of the vectors in the SipHash paper, appendix A: bytes 0 to 15.
        let key = TagKey::new([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let tag = Tag { stream: 3, sequence: 0x01_0203_0405, timestamp_ns: 0x1112_1314_1516_1718 };
        let bytes = tag.encode(&key);
        assert_eq!(bytes[4..10], [3, 1, 2, 3, 4, 5]);
        assert_eq!(bytes[10..], [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
        let words = [5, 4, 3, 2, 1, 3, 0, 0, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11];
        let hash =
            SipHasher13::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908).hash(&words);
        assert_eq!(bytes[..4], hash.to_be_bytes()[4..]);
    }

    proptest! {
        #[test]
        fn read_as_written(
            key: [u64; 2], stream: u8, sequence in 0..SEQUENCES, timestamp_ns: u64,
        ) {
            let key = TagKey::new(key);
            let tag = Tag { stream, sequence, timestamp_ns };
            prop_assert_eq!(Tag::decode(&tag.encode(&key), &key), Some(tag));
        }

        #[test]
        fn a_changed_bit_is_refused(
            key: [u64; 2], stream: u8, sequence in 0..SEQUENCES, timestamp_ns: u64,
            bit in 0..TAG_LEN * 8,
        ) {
            let key = TagKey::new(key);
            let mut bytes = Tag { stream, sequence, timestamp_ns }.encode(&key);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Tag::decode(&bytes, &key), None);
        }

        #[test]
        fn another_runs_tag_is_refused(sequence in 0..SEQUENCES, timestamp_ns: u64) {
            let tag = Tag { stream: 0, sequence, timestamp_ns };
            prop_assert_eq!(Tag::decode(&tag.encode(&TagKey::random()), &TagKey::random()), None);
        }
    }
}
