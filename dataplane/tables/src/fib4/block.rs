//! What a block is made of, and back.
//!
//! ```text
//!   codes of 8 places   A A B B B g A A          g: a group, of entries e0 e1 e2 e3
//!
//!   words   [e0 e1][e2 e3] [bitmap 0b0110_0100] [A B g A]
//!                           ^ what an entry names
//! ```
//!
//! Terms: a *code* is a route's id and one, `MISS`, or a group's; groups are numbered in the order of
//! their places, so that equal blocks are equal words.

use super::{FIRST_GROUP, GROUP_WORDS, QUARTERS, VALUES_OF_WORD};

/// Places of any block at most: the bits of a bitmap.
const PLACES_MAX: usize = 64;

/// Position of the value for the n-th place.
#[inline(always)]
pub(super) const fn rank(bitmap: u64, place: u32) -> usize {
    (bitmap << (!place & 63)).count_ones() as usize
}

/// The entries of a group.
pub(super) type Quarters = [u32; QUARTERS];

/// The words of a block in the making: at most 2 * 64 + 1 + 16.
#[derive(Debug, Default)]
pub(super) struct Words {
    words: Vec<u64>,
}

impl Words {
    /// What is to be written, and the position of the bitmap in it; nothing if an entry alone says it, as
    /// when all places have one code. `quarters` are those of the codes of groups, in their order.
    ///
    /// The groups are numbered anew.
    pub(super) fn encode(
        &mut self,
        codes: &mut [u16],
        quarters: &[Quarters],
    ) -> Option<(&[u64], usize)> {
        let first = *codes.first()?;
        if first < FIRST_GROUP && codes.iter().all(|&code| code == first) {
            return None;
        }
        if !quarters.is_empty() {
            let groups = codes.iter_mut().filter(|code| **code >= FIRST_GROUP);
            for (code, group) in groups.zip(FIRST_GROUP..) {
                *code = group;
            }
        }
        self.words.clear();
        for entries in quarters.iter().rev() {
            for pair in entries.chunks(2) {
                let high = pair.get(1).map_or(0, |&entry| u64::from(entry) << 32);
                self.words.push(u64::from(pair[0]) | high);
            }
        }
        let bitmap_at = self.words.len();
        // Without branches: where runs end is not to be predicted.
        let mut values = [0_u16; PLACES_MAX];
        let (mut bitmap, mut rank, mut last) = (0, 0, first);
        for (place, &code) in codes.iter().enumerate() {
            let differs = code != last;
            bitmap |= u64::from(differs) << place;
            rank += usize::from(differs);
            values[rank & (PLACES_MAX - 1)] = code;
            last = code;
        }
        self.words.push(bitmap);
        let (values, _) = values.as_chunks::<VALUES_OF_WORD>();
        self.words.extend(values.iter().take(rank / VALUES_OF_WORD + 1).map(|values| {
            values.iter().rev().fold(0, |word, &value| word << 16 | u64::from(value))
        }));
        Some((&self.words, bitmap_at))
    }
}

/// The codes of places from a bitmap and a block's words behind it.
pub(super) fn decode(bitmap: u64, word: impl Fn(usize) -> u64, codes: &mut [u16]) {
    let mut values = [[0_u16; VALUES_OF_WORD]; PLACES_MAX / VALUES_OF_WORD];
    let words = bitmap.count_ones() as usize / VALUES_OF_WORD + 1;
    for (position, values) in values.iter_mut().take(words).enumerate() {
        let word = word(position);
        *values = std::array::from_fn(|n| (word >> (n * 16)) as u16);
    }
    let values = values.as_flattened();
    let mut rank = 0;
    for (place, code) in codes.iter_mut().enumerate() {
        rank += (bitmap >> place & 1) as usize;
        *code = values[rank & (PLACES_MAX - 1)];
    }
}

/// How many words a block has, and how many of them before its bitmap.
pub(super) fn size(bitmap: u64, groups: usize) -> (usize, usize) {
    let values = bitmap.count_ones() as usize + 1;
    let before = GROUP_WORDS * groups;
    (before + 1 + values.div_ceil(VALUES_OF_WORD), before)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn runs_are_stored_once() {
        let mut codes = [7_u16; 64];
        let mut words = Words::default();
        assert!(words.encode(&mut codes, &[]).is_none(), "an entry says it");
        codes[2..5].fill(8);
        codes[5] = FIRST_GROUP + 9;
        let entries = [1, 2, 3, 4];
        let (encoded, bitmap_at) = words.encode(&mut codes, &[entries]).unwrap();
        let values = 7 | 8 << 16 | u64::from(FIRST_GROUP) << 32 | 7 << 48;
        assert_eq!(bitmap_at, 2);
        assert_eq!(encoded, [1 | 2 << 32, 3 | 4 << 32, 0b110_0100, values]);
        assert_eq!(size(0b110_0100, 1), (4, 2));
        assert_eq!(codes[5], FIRST_GROUP, "numbered anew");
        let mut back = [0; 64];
        decode(encoded[2], |n| encoded[3 + n], &mut back);
        assert_eq!(back, codes);
        let ranks: Vec<usize> = (0..8).map(|place| rank(0b110_0100, place)).collect();
        assert_eq!(ranks, [0, 0, 1, 1, 1, 2, 3, 3]);
    }

    #[test]
    fn a_value_for_each_place() {
        let mut codes: [u16; 64] = std::array::from_fn(|place| place as u16);
        let mut words = Words::default();
        let (encoded, _) = words.encode(&mut codes, &[]).unwrap();
        assert_eq!((encoded.len(), encoded[0]), (17, u64::MAX - 1));
        assert_eq!(size(encoded[0], 0), (17, 0));
        let mut back = [0; 64];
        decode(encoded[0], |n| encoded[1 + n], &mut back);
        assert_eq!(back, codes);
        for place in 0..64 {
            let rank = rank(encoded[0], place);
            assert_eq!((encoded[1 + rank / 4] >> (rank % 4 * 16)) as u16, place as u16);
        }
    }
}
