//! [`Matches`]: the packets of a batch that meet a clause. Most batches have few of them.

use sluice_sdk::BATCH_MAX;

use super::Classed;

/// A packet that meets a clause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Where in the batch it is.
    pub position: u16,
    /// The number of the clause; that of all clauses for none.
    pub clause: u16,
}

/// Matches, in the order of the packets.
#[derive(Debug)]
pub(super) struct Matches {
    list: Box<[Match; BATCH_MAX]>,
    len: usize,
}

impl Matches {
    pub(super) fn new() -> Self {
        Self { list: Box::new([Match::default(); BATCH_MAX]), len: 0 }
    }

    pub(super) fn as_slice(&self) -> &[Match] {
        &self.list[..self.len]
    }

    /// Gives those whose clause is `undecided` that of their packet.
    pub(super) fn decide(&mut self, undecided: u16, clauses: &Classed) {
        for Match { position, clause } in &mut self.list[..self.len] {
            let found = clauses[usize::from(*position) % BATCH_MAX];
            *clause = if *clause == undecided { found } else { *clause };
        }
    }

    /// Lists those of `n` packets whose clause is not `none`, by a table of pairs of classes.
    pub(super) fn list_pairs(
        &mut self,
        table: &[u16],
        width: usize,
        [first, second]: &[Classed; 2],
        n: usize,
        none: u16,
    ) {
        self.len = list(&mut self.list, n, none, |at| {
            table[usize::from(first[at]) * width + usize::from(second[at])]
        });
    }

    /// Lists those of `n` packets whose clause is not `none`.
    pub(super) fn list(&mut self, clauses: &Classed, n: usize, none: u16) {
        self.len = list(&mut self.list, n, none, |at| clauses[at]);
    }
}

/// Without a branch on what is as good as random, and by eights, since every turn of a loop costs a plugin a
/// look at its budget.
#[inline]
fn list(
    matches: &mut [Match; BATCH_MAX],
    n: usize,
    none: u16,
    clause: impl Fn(usize) -> u16,
) -> usize {
    let mut len = 0;
    let mut look = |at: usize| {
        let clause = clause(at);
        matches[len % BATCH_MAX] = Match { position: at as u16, clause };
        len += usize::from(clause != none);
    };
    let n = n.min(BATCH_MAX);
    let eights = n / 8;
    for eight in 0..eights {
        (0..8).for_each(|at| look(eight * 8 + at));
    }
    (eights * 8..n).for_each(look);
    len
}
