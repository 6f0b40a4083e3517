//! [`Early`]: packets whose addresses decide already.
//!
//! Most packets are of no rule's concern by their addresses alone, or meet one that asks about nothing
//! else. The others are brought together, and only they are looked up in the other columns.

use sluice_sdk::BATCH_MAX;

use super::classes::{Classes, first};
use super::matches::{Match, Matches};
use super::{Classed, FOUR};
use crate::clause::Clause;
use crate::column::Column;

/// The most pairs of classes of addresses: 256 KiB of them.
const PAIRS_MAX: usize = 1 << 17;
/// The most words of sets that are looked at to make the table: some milliseconds.
const WORDS_MAX: usize = 1 << 21;

/// In the place of the clause of a packet that its addresses do not decide.
pub(super) const UNDECIDED: u16 = u16::MAX;

/// Batches that are not tried after one that gained nothing.
const PAUSE: u32 = 255;

/// The answers of pairs of addresses.
#[derive(Debug)]
pub(super) struct Early {
    /// By class of the source and of the destination.
    answers: Box<[u16]>,
    width: usize,
    /// Batches that are left before the next try.
    pause: u32,
    none: u16,
    /// Of the packets that are undecided.
    positions: Box<[[u8; FOUR]; BATCH_MAX / FOUR]>,
}

impl Early {
    /// `None` if addresses never decide alone, or there are too many classes of them.
    pub(super) fn new(
        clauses: &[Clause],
        source: Option<&Classes>,
        destination: Option<&Classes>,
    ) -> Option<Self> {
        let words = super::words_of(clauses);
        let all = vec![vec![u64::MAX; words]];
        let sources = source.map_or(&all, |classes| &classes.sets);
        let destinations = destination.map_or(&all, |classes| &classes.sets);
        let pairs = sources.len() * destinations.len();
        if pairs > PAIRS_MAX || pairs * words > WORDS_MAX {
            return None;
        }
        let mut is_sole = |clause: &Clause| {
            let mut columns = Column::ALL.into_iter();
            columns.all(|column| {
                matches!(column, Column::Source | Column::Destination)
                    || clause.get(column).is_none()
            })
        };
        let by_addresses: Vec<bool> = clauses.iter().map(&mut is_sole).collect();
        if by_addresses.iter().all(|is_sole| *is_sole) {
            return None;
        }
        let none = clauses.len() as u16;
        let answer = |(ours, theirs): (&Vec<u64>, &Vec<u64>)| match first(
            ours.iter().zip(theirs).map(|(a, b)| a & b),
        ) {
            Some(clause) if by_addresses.get(usize::from(clause)) == Some(&true) => clause,
            Some(clause) if clause < none => UNDECIDED,
            _ => none,
        };
        let pairs = sources.iter().flat_map(|ours| destinations.iter().map(move |it| (ours, it)));
        let answers: Box<[u16]> = pairs.map(answer).collect();
        answers.iter().any(|answer| *answer != UNDECIDED).then(|| Self {
            answers,
            width: destinations.len(),
            pause: 0,
            none,
            positions: Box::new([[0; FOUR]; BATCH_MAX / FOUR]),
        })
    }

    /// Lists those of `n` packets that are not decided to meet no clause; returns the positions of those that
    /// are undecided. `None` if they are most: the next batches are then not tried.
    pub(super) fn decide(
        &mut self,
        n: usize,
        classes: &[Classed],
        matches: &mut Matches,
    ) -> Option<&[[u8; FOUR]]> {
        self.pause = self.pause.saturating_sub(1);
        if self.pause > 0 {
            return None;
        }
        let classes = classes.first_chunk::<2>()?;
        matches.list_pairs(&self.answers, self.width, classes, n, self.none);
        let undecided = positions(matches.as_slice(), self.positions.as_flattened_mut());
        if undecided * 4 > n * 3 {
            self.pause = PAUSE;
            return None;
        }
        Some(&self.positions[..undecided.div_ceil(FOUR)])
    }
}

/// Lists where the undecided packets are, and behind them the last once more until there is no rest; returns
/// how many they are.
#[inline(never)]
fn positions(matches: &[Match], positions: &mut [u8]) -> usize {
    let mut found = 0;
    let mut last = 0;
    for a_match in matches {
        let is_undecided = a_match.clause == UNDECIDED;
        last = if is_undecided { a_match.position as u8 } else { last };
        if let Some(position) = positions.get_mut(found) {
            *position = last;
        }
        found += usize::from(is_undecided);
    }
    positions[found..found.next_multiple_of(FOUR)].fill(last);
    found
}
