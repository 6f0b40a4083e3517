//! [`Classes`]: the sets of clauses that the values of a column, or of several, let match.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::TooMany;
use crate::clause::Clause;
use crate::column::Column;

/// The most words of all sets of clauses together: 8 MiB.
pub(super) const WORDS_MAX: usize = 1 << 20;

/// Where classes begin: each holds from its value up to the next one. The first value is 0.
pub(super) type Starts = Vec<(u128, u16)>;

/// The class of each pair of classes: that of the first times `width`, plus the second.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) width: usize,
    pub(super) cells: Box<[u16]>,
}

/// The sets of clauses that the classes of a column, or of a group of columns, let match. No two are
/// equal.
#[derive(Default)]
pub(super) struct Classes {
    pub(super) sets: Vec<Vec<u64>>,
    known: HashMap<Vec<u64>, u16, BuildHasherDefault<Mixer>>,
}

/// Hashes sets, which an operator wrote and nobody aims at one place: as quick as can be.
#[derive(Clone, Copy, Default)]
pub(super) struct Mixer(u64);

impl Mixer {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.mix(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.mix((*byte).into()));
    }

    fn write_u64(&mut self, word: u64) {
        self.mix(word);
    }

    fn write_usize(&mut self, word: usize) {
        self.mix(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

impl Classes {
    /// The class of a set.
    fn add(&mut self, set: &[u64]) -> Result<u16, TooMany> {
        if let Some(class) = self.known.get(set) {
            return Ok(*class);
        }
        let class = u16::try_from(self.sets.len()).map_err(|_| TooMany::Tables)?;
        if (self.sets.len() + 1) * set.len() > WORDS_MAX {
            return Err(TooMany::Tables);
        }
        self.sets.push(set.to_vec());
        self.known.insert(set.to_vec(), class);
        Ok(class)
    }

    /// The classes of one part of a column.
    pub(super) fn starts(
        &mut self,
        clauses: &[Clause],
        column: Column,
        part: usize,
    ) -> Result<Starts, TooMany> {
        let top = column.tops()[part];
        let mut set = vec![0_u64; words_of(clauses)];
        let mut changes = Vec::new();
        for (clause, index) in clauses.iter().zip(0_usize..) {
            let Some(values) = clause.get(column) else {
                set[index / 64] |= 1 << (index % 64);
                continue;
            };
            for (first, last) in values.parts()[part].as_slice() {
                changes.push((*first, index));
                if *last < top {
                    changes.push((*last + 1, index));
                }
            }
        }
        // The ranges of a clause do not touch: at each change its bit is another one.
        changes.sort_unstable();
        let mut starts: Starts = Vec::new();
        let mut changes = changes.into_iter().peekable();
        let mut start = 0;
        loop {
            while let Some((_, index)) = changes.next_if(|(at, _)| *at == start) {
                set[index / 64] ^= 1 << (index % 64);
            }
            let class = self.add(&set)?;
            if starts.last().is_none_or(|(_, last)| *last != class) {
                starts.push((start, class));
            }
            match changes.peek() {
                Some((at, _)) => start = *at,
                None => return Ok(starts),
            }
        }
    }

    /// The classes of both, and which of them each pair is.
    pub(super) fn pairs(&self, other: &Self) -> Result<(Self, Pairs), TooMany> {
        let (mut both, mut cells) = (Self::default(), Vec::new());
        let mut set = Vec::new();
        for ours in &self.sets {
            for theirs in &other.sets {
                set.clear();
                set.extend(ours.iter().zip(theirs).map(|(a, b)| a & b));
                cells.push(both.add(&set)?);
            }
        }
        Ok((both, Pairs { width: other.sets.len(), cells: cells.into() }))
    }

    /// How many classes there are of both; two of one hash count as one.
    pub(super) fn count_of_pairs(&self, other: &Self) -> usize {
        let mut seen = HashSet::<u64, BuildHasherDefault<Mixer>>::default();
        for ours in &self.sets {
            for theirs in &other.sets {
                let mut mixer = Mixer::default();
                ours.iter().zip(theirs).for_each(|(a, b)| mixer.mix(a & b));
                seen.insert(mixer.finish());
            }
        }
        seen.len()
    }

    /// The first clause of each class, or `none`.
    pub(super) fn firsts(&self, none: u16) -> Vec<u16> {
        self.sets.iter().map(|set| first(set.iter().copied()).unwrap_or(none)).collect()
    }
}

/// The number of the lowest bit.
pub(super) fn first(mut words: impl Iterator<Item = u64>) -> Option<u16> {
    let mut before = 0;
    words.find_map(|word| {
        before += 64;
        (word != 0).then(|| before - 64 + word.trailing_zeros() as u16)
    })
}

/// Words of a set of these clauses.
pub(super) fn words_of(clauses: &[Clause]) -> usize {
    clauses.len().div_ceil(64).max(1)
}
