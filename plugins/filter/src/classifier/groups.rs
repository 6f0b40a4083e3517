//! Which columns become one, and in which order: the pairs of classes with the fewest results first.

use std::collections::HashMap;

use super::classes::{Classes, Pairs};
use super::table::{Alone, Leaf, Table, merge};
use super::{Classed, Packets, TooMany};

/// The most pairs of classes in one table: 64 KiB of it.
const PAIRS_MAX: usize = 1 << 15;
/// The most words of the sets of all pairs, while a table of them is made: 4 MiB.
const PAIRS_WORDS_MAX: usize = 1 << 19;
/// The most words of sets that are looked at to see what pairs would come to: some milliseconds.
const TRIED_WORDS_MAX: usize = 1 << 20;

/// A column, or several that became one.
pub(super) struct Item {
    /// Where the classes of a batch's packets are.
    pub(super) at: usize,
    pub(super) classes: Classes,
    /// A column that is not looked up yet. Addresses are, before all others.
    leaf: Option<Leaf>,
    steps: Vec<Plan>,
}

/// A step before its table is made.
enum Plan {
    Find { leaf: Leaf, at: usize, pairs: Option<Pairs> },
    Merge { at: usize, with: usize, pairs: Pairs },
}

/// A part of the way from packets to the classes of a group.
#[derive(Debug)]
pub(super) enum Step {
    /// Looks a column up; with pairs the class becomes one with that which is there.
    Find { table: Table, at: usize, pairs: Option<Pairs> },
    /// Makes one class of two.
    Merge { at: usize, with: usize, pairs: Pairs },
}

impl Step {
    #[inline]
    pub(super) fn run(&self, packets: Packets<'_>, classes: &mut [Classed]) {
        match self {
            Self::Find { table, at, pairs: None } => {
                table.find(packets, &mut classes[*at], Alone);
            }
            Self::Find { table, at, pairs: Some(pairs) } => {
                table.find(packets, &mut classes[*at], pairs);
            }
            Self::Merge { at, with, pairs } => {
                if let Ok([first, second]) = classes.get_disjoint_mut([*at, *with]) {
                    merge(pairs, packets, first, second);
                }
            }
        }
    }
}

impl Item {
    /// A column. Addresses are looked up elsewhere; the others' classes are to be at `at`.
    pub(super) fn new(at: usize, classes: Classes, leaf: Option<Leaf>) -> Self {
        Self { at, classes, leaf, steps: Vec::new() }
    }

    /// Puts others in the place of its classes. False when the step that finds them is not here.
    pub(super) fn map(&mut self, map: impl Fn(u16) -> u16) -> bool {
        let cells =
            |pairs: &mut Pairs| pairs.cells.iter_mut().for_each(|class| *class = map(*class));
        match (&mut self.leaf, self.steps.last_mut()) {
            (Some(leaf), _) | (None, Some(Plan::Find { leaf, pairs: None, .. })) => leaf.map(map),
            (None, Some(Plan::Find { pairs: Some(pairs), .. } | Plan::Merge { pairs, .. })) => {
                cells(pairs);
            }
            (None, None) => return false,
        }
        true
    }

    /// Its way from packets to its classes.
    pub(super) fn steps(self) -> impl Iterator<Item = Step> {
        let find = self.leaf.map(|leaf| Plan::Find { leaf, at: self.at, pairs: None });
        self.steps.into_iter().chain(find).map(Plan::step)
    }

    /// One item of two, and the classes of both.
    fn with(mut self, mut other: Self) -> Result<Self, TooMany> {
        // What has classes already goes first.
        if self.leaf.is_some() && other.leaf.is_none() {
            std::mem::swap(&mut self, &mut other);
        }
        let can_be_one = |a: &Self, b: &Self| {
            a.leaf
                .as_ref()
                .zip(b.leaf.as_ref())
                .is_some_and(|(one, two)| one.can_be_with(&a.classes, two))
        };
        if can_be_one(&other, &self) {
            std::mem::swap(&mut self, &mut other);
        }
        let is_one = can_be_one(&self, &other);
        let (classes, pairs) = self.classes.pairs(&other.classes)?;
        let Self { at, leaf, mut steps, .. } = self;
        let leaf = match (leaf, other.leaf) {
            (Some(ours), Some(theirs)) if is_one => Some(ours.with(theirs, &pairs)),
            (ours, theirs) => {
                steps.extend(ours.map(|leaf| Plan::Find { leaf, at, pairs: None }));
                steps.extend(other.steps);
                steps.push(match theirs {
                    Some(leaf) => Plan::Find { leaf, at, pairs: Some(pairs) },
                    None => Plan::Merge { at, with: other.at, pairs },
                });
                None
            }
        };
        Ok(Self { at, classes, leaf, steps })
    }
}

impl Plan {
    fn step(self) -> Step {
        match self {
            Self::Find { leaf, at, pairs } => Step::Find { table: leaf.table(), at, pairs },
            Self::Merge { at, with, pairs } => Step::Merge { at, with, pairs },
        }
    }
}

/// Makes one of two while their pairs fit a table, those first whose pairs come to the fewest classes:
/// so the tables stay small, and more columns become one.
pub(super) fn merge_all(mut items: Vec<Item>, words_each: usize) -> Result<Vec<Item>, TooMany> {
    let pairs_max = PAIRS_MAX.min(PAIRS_WORDS_MAX / words_each);
    let mut words_left = TRIED_WORDS_MAX;
    let mut counts = HashMap::new();
    loop {
        let mut candidates = Vec::new();
        for (second, b) in items.iter().enumerate() {
            for (first, a) in items[..second].iter().enumerate() {
                let pairs = a.classes.sets.len() * b.classes.sets.len();
                if pairs <= pairs_max {
                    candidates.push((pairs, first, second));
                }
            }
        }
        // Small ones first, while it can be afforded to look at them.
        candidates.sort_unstable();
        let mut best: Option<(usize, usize, usize)> = None;
        for (pairs, first, second) in candidates {
            let (a, b) = (&items[first], &items[second]);
            let count = *counts.entry((a.at, b.at)).or_insert_with(|| {
                match words_left.checked_sub(pairs * words_each) {
                    Some(left) => {
                        words_left = left;
                        a.classes.count_of_pairs(&b.classes)
                    }
                    None => pairs,
                }
            });
            if best.is_none_or(|(least, ..)| count < least) {
                best = Some((count, first, second));
            }
        }
        let Some((_, first, second)) = best else { return Ok(items) };
        // The later one first, so that the other keeps its place.
        let (b, a) = (items.remove(second), items.remove(first));
        counts.retain(|of, _| ![of.0, of.1].iter().any(|at| [a.at, b.at].contains(at)));
        items.push(a.with(b)?);
    }
}
