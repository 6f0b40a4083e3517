//! [`Classifier`]: finds the first clause that a packet meets without looking at them one by one.
//!
//! Each column on its own sorts packets into *classes*: packets of a class let the same clauses match,
//! a set that is kept as a bit for each clause. Two columns become one by a table of their classes'
//! pairs, as long as it is small (recursive flow classification: Gupta and McKeown, SIGCOMM 1999).
//! Most often one group of columns is left, and its class names the first clause. Else the sets of the
//! groups are ANDed, and the lowest bit is the first clause (Lakshman and Stiliadis, SIGCOMM 1998); of
//! many clauses, a word in front of each set says which of its words hold a bit at all, so that most
//! are never read (Baboescu and Varghese, SIGCOMM 2001).
//!
//! ```text
//!   source, destination - Map4, Map6 --> classes 17, 3 --> pairs: decided already?
//!     of those that are not:
//!   protocol, TTL, .. - 256 ---> class 1 -+
//!   ports, lengths - 2 pages --> class 9 -+-> pairs --> class 4 -+
//!   source --------------------> class 17 -----------------------+-> pairs --> class 6: clause 2
//! ```
//!
//! The batch is taken column by column: short loops without branches that depend on packets, four at
//! a time, so that the machine works on many packets at once. Columns that no clause asks about cost
//! nothing.

mod addresses;
mod classes;
mod early;
mod groups;
mod intersection;
mod matches;
mod table;

use sluice_sdk::{BATCH_MAX, Descriptor};

use crate::clause::Clause;
use crate::column::Column;
use addresses::{Addresses, DESTINATION, SOURCE};
use classes::{WORDS_MAX, words_of};
use early::{Early, UNDECIDED};
use groups::{Item, Step};
use intersection::Intersection;
pub use matches::Match;
use matches::Matches;
use table::Leaf;

/// The most clauses of all rules together: a word of summary has as many bits as words of clauses.
pub const CLAUSES_MAX: usize = 4096;

/// The most ranges in the columns of all clauses together: an expression may name a long set, and many
/// expressions the same one.
pub const RANGES_MAX: usize = 1 << 18;

/// Rules that do not fit the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooMany {
    /// More than [`CLAUSES_MAX`].
    #[error("the rules come to more than {CLAUSES_MAX} alternatives")]
    Clauses,
    /// More than [`RANGES_MAX`].
    #[error("the rules name more than {RANGES_MAX} prefixes, ports and other values")]
    Ranges,
    /// More than 65,536 different sets of clauses, or 8 MiB of them, or pages of addresses.
    #[error("the tables of the rules are too large: fewer rules, or fewer prefixes")]
    Tables,
}

/// A number for each packet of a batch: its class in a column or a group of columns.
type Classed = [u16; BATCH_MAX];

/// So many packets are looked up in a turn of a loop, since each costs a plugin a look at its budget.
const EIGHT: usize = 8;
/// So many of those that are picked.
const FOUR: usize = 4;

/// Packets to be looked up.
#[derive(Clone, Copy)]
enum Packets<'a> {
    /// A whole batch.
    All(&'a [Descriptor]),
    /// Those at these positions of it. One may be repeated among four.
    Some(&'a [Descriptor], &'a [[u8; FOUR]]),
}

impl Packets<'_> {
    /// What `each` makes of the packet at each position, and writes there.
    #[inline]
    fn each<T: Copy>(self, to: &mut [T; BATCH_MAX], each: impl Fn(usize, &Descriptor, T) -> T) {
        match self {
            Self::All(packets) => {
                let to = &mut to[..packets.len()];
                let (eights, rest) = packets.as_chunks::<EIGHT>();
                let (to_eights, to_rest) = to.as_chunks_mut::<EIGHT>();
                let mut at = 0;
                for (packets, to) in eights.iter().zip(to_eights) {
                    for (packet, to) in packets.iter().zip(to) {
                        *to = each(at, packet, *to);
                        at += 1;
                    }
                }
                for (packet, to) in rest.iter().zip(to_rest) {
                    *to = each(at, packet, *to);
                    at += 1;
                }
            }
            Self::Some(packets, positions) => {
                for positions in positions {
                    let at = positions.map(usize::from);
                    // All are read before any is written.
                    let found = at.map(|at| each(at, &packets[at], to[at]));
                    at.into_iter().zip(found).for_each(|(at, found)| to[at] = found);
                }
            }
        }
    }
}

/// Clauses, compiled.
#[derive(Debug)]
pub struct Classifier {
    addresses: Addresses,
    early: Option<Early>,
    groups: Groups,
    /// Those of addresses first.
    classes: Vec<Classed>,
    matches: Matches,
}

impl Classifier {
    /// Compiles the clauses.
    ///
    /// # Errors
    /// [`TooMany`] says what of.
    pub fn new(clauses: &[Clause]) -> Result<Self, TooMany> {
        if clauses.len() > CLAUSES_MAX {
            return Err(TooMany::Clauses);
        }
        if clauses.iter().map(Clause::ranges).sum::<usize>() > RANGES_MAX {
            return Err(TooMany::Ranges);
        }
        let (mut source, mut destination, mut items) = (None, None, Vec::new());
        let (mut words, mut buffers) = (0, DESTINATION + 1);
        for column in Column::ALL {
            let is_asked = clauses.iter().any(|clause| clause.get(column).is_some());
            // Clauses that ask for nothing, or none at all: any column says so.
            if is_asked || column == Column::Vrf && words == 0 {
                let (leaf, classes) = Leaf::new(clauses, column)?;
                words += classes.sets.len() * words_of(clauses);
                if words > WORDS_MAX {
                    return Err(TooMany::Tables);
                }
                items.push(match column {
                    Column::Source => {
                        source = Some(leaf);
                        Item::new(SOURCE, classes, None)
                    }
                    Column::Destination => {
                        destination = Some(leaf);
                        Item::new(DESTINATION, classes, None)
                    }
                    _ => {
                        buffers += 1;
                        Item::new(buffers - 1, classes, Some(leaf))
                    }
                });
            }
        }
        let classes_at = |at: usize| items.iter().find(|item| item.at == at).map(|it| &it.classes);
        let early = Early::new(clauses, classes_at(SOURCE), classes_at(DESTINATION));
        let mut items = groups::merge_all(items, words_of(clauses))?;
        if let [only] = &mut items[..] {
            // Its class is the answer.
            let firsts = only.classes.firsts(clauses.len() as u16);
            let first = |class: u16| firsts[usize::from(class)];
            if !only.map(first) {
                source.iter_mut().chain(&mut destination).for_each(|leaf| leaf.map(first));
            }
        }
        Ok(Self {
            addresses: Addresses::new(
                source.as_ref().map(Leaf::parts),
                destination.as_ref().map(Leaf::parts),
            )?,
            early,
            groups: Groups::new(items, clauses),
            classes: vec![[0; BATCH_MAX]; buffers],
            matches: Matches::new(),
        })
    }

    /// The packets that meet a clause, and some that meet none: those that are not listed meet none
    /// either. At most [`BATCH_MAX`] packets.
    pub fn classify(&mut self, packets: &[Descriptor]) -> &[Match] {
        let Self { addresses, early, groups, classes, matches } = self;
        let n = packets.len();
        addresses.find(packets, classes);
        let decided = early.as_mut().and_then(|early| early.decide(n, classes, matches));
        match decided {
            None => matches.list(groups.answers(Packets::All(packets), classes), n, groups.none),
            Some([]) => {}
            Some(undecided) => {
                let packets = Packets::Some(packets, undecided);
                matches.decide(UNDECIDED, groups.answers(packets, classes));
            }
        }
        matches.as_slice()
    }
}

/// The columns that became one, and the ways to their classes.
#[derive(Debug)]
struct Groups {
    steps: Vec<Step>,
    /// Where the answers are in the end.
    at: usize,
    /// Of several groups.
    intersection: Option<Intersection>,
    none: u16,
}

impl Groups {
    fn new(items: Vec<Item>, clauses: &[Clause]) -> Self {
        let each = items.iter().map(|item| (item.at, &item.classes));
        let intersection = (items.len() > 1).then(|| Intersection::new(each, words_of(clauses)));
        let at = items.first().map_or(0, |item| item.at);
        let steps = items.into_iter().flat_map(Item::steps).collect();
        Self { steps, at, intersection, none: clauses.len() as u16 }
    }

    /// The first clause of each packet, or `none`. The classes of addresses are there.
    fn answers<'a>(&mut self, packets: Packets<'_>, classes: &'a mut [Classed]) -> &'a Classed {
        for step in &self.steps {
            step.run(packets, classes);
        }
        if let Some(intersection) = &mut self.intersection {
            intersection.find(packets, classes, self.none);
        }
        &classes[self.at]
    }
}
