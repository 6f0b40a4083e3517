//! [`Intersection`]: the first clause that is in the sets of several classes of a packet.
//!
//! Of up to 128 clauses all words are ANDed. Of more, they are ANDed by blocks of four, the first that holds
//! a common bit being the last: which blocks of a set hold a bit at all is in a word of summary.

use sluice_sdk::BATCH_MAX;

use super::classes::{Classes, first};
use super::{Classed, Packets};

/// Words of a block.
const BLOCK: usize = 4;
/// The most words that are no blocks.
const FEW: usize = 2;

/// The sets of the classes of several groups of columns.
#[derive(Debug)]
pub(super) struct Intersection {
    groups: Vec<Sets>,
    words_each: usize,
    /// What is common to the summaries of a packet's sets, or to the sets.
    common: Box<[[u64; FEW]; BATCH_MAX]>,
}

#[derive(Debug)]
struct Sets {
    /// Where the classes of the packets are.
    at: usize,
    /// Of each set, a bit for each block.
    summaries: Vec<[u64; 1]>,
    /// The sets, one behind the other.
    words: Vec<u64>,
}

impl Sets {
    fn new(at: usize, classes: &Classes, words_each: usize) -> Self {
        let (mut summaries, mut words) = (Vec::new(), Vec::new());
        for set in &classes.sets {
            let from = words.len();
            words.extend(set);
            words.resize(from + words_each, 0);
            let (blocks, _) = words[from..].as_chunks::<BLOCK>();
            let bit = |(block, at): (&[u64; BLOCK], u32)| u64::from(*block != [0; BLOCK]) << at;
            summaries.push([blocks.iter().zip(0..).map(bit).sum()]);
        }
        Self { at, summaries, words }
    }
}

impl Intersection {
    /// Of groups whose classes of packets are at these places, with sets of so many words.
    pub(super) fn new<'a>(
        groups: impl Iterator<Item = (usize, &'a Classes)>,
        words: usize,
    ) -> Self {
        let words_each = if words > FEW { words.next_multiple_of(BLOCK) } else { words };
        let groups = groups.map(|(at, classes)| Sets::new(at, classes, words_each)).collect();
        Self { groups, words_each, common: Box::new([[0; FEW]; BATCH_MAX]) }
    }

    /// Writes the first common clause of each packet, or `none`, in the place of the first group's classes.
    pub(super) fn find(&mut self, packets: Packets<'_>, classes: &mut [Classed], none: u16) {
        let Self { groups, words_each, common } = self;
        for (sets, position) in groups.iter().zip(0..) {
            let classes = &classes[sets.at];
            match (position, *words_each) {
                (0, 1) => and::<1, true>(packets, common, sets.words.as_chunks().0, classes),
                (_, 1) => and::<1, false>(packets, common, sets.words.as_chunks().0, classes),
                (0, 2) => and::<2, true>(packets, common, sets.words.as_chunks().0, classes),
                (_, 2) => and::<2, false>(packets, common, sets.words.as_chunks().0, classes),
                (0, _) => and::<1, true>(packets, common, &sets.summaries, classes),
                (_, _) => and::<1, false>(packets, common, &sets.summaries, classes),
            }
        }
        let to = groups[0].at;
        if *words_each <= FEW {
            packets.each(&mut classes[to], |at, _, _| {
                // Without a bit the number of zeros is 64, which makes it a number behind the last.
                let [low, high] = common[at % BATCH_MAX];
                let zeros =
                    if low == 0 { 64 + high.trailing_zeros() } else { low.trailing_zeros() };
                (zeros as u16).min(none)
            });
        } else {
            self.many(packets, classes, none);
        }
    }

    #[inline(never)]
    fn many(&mut self, packets: Packets<'_>, classes: &mut [Classed], none: u16) {
        let blocks_each = self.words_each / BLOCK;
        let mut answers = [none; BATCH_MAX];
        packets.each(&mut answers, |packet, _, _| {
            let [mut blocks, _] = self.common[packet % BATCH_MAX];
            while blocks != 0 {
                let block = blocks.trailing_zeros() as usize;
                let mut common = [u64::MAX; BLOCK];
                for sets in &self.groups {
                    let class = usize::from(classes[sets.at][packet % BATCH_MAX]);
                    let (words, _) = sets.words.as_chunks::<BLOCK>();
                    let words = words[class * blocks_each + block];
                    common = std::array::from_fn(|word| common[word] & words[word]);
                }
                if let Some(first) = first(common.into_iter()) {
                    return (block * BLOCK * 64) as u16 + first;
                }
                blocks &= blocks - 1;
            }
            none
        });
        classes[self.groups[0].at] = answers;
    }
}

/// ANDs to what is common to each packet the set of its class.
#[inline(never)]
fn and<const WORDS: usize, const IS_FIRST: bool>(
    packets: Packets<'_>,
    common: &mut [[u64; FEW]; BATCH_MAX],
    sets: &[[u64; WORDS]],
    classes: &Classed,
) {
    packets.each(common, |at, _, common| {
        let set = sets[usize::from(classes[at % BATCH_MAX])];
        std::array::from_fn(|word| match set.get(word) {
            Some(word) if IS_FIRST => *word,
            Some(bits) => common[word] & bits,
            None => 0,
        })
    });
}
