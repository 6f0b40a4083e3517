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
//!   protocol, TTL, .. - 256 ---> class 1 -+
//!   ports, lengths - 2 pages --> class 9 -+-> pairs --> class 4 -+
//!   source ------- Map4, Map6 -> class 17 -----------------------+-> pairs --> class 6: clause 2
//! ```
//!
//! The batch is taken column by column: short loops without branches that depend on packets, four at
//! a time, so that the machine works on many packets at once. Columns that no clause asks about cost
//! nothing.

use std::collections::HashMap;

use prefixes::{Map4, Map6, v4_bits};
use sluice_sdk::{BATCH_MAX, Descriptor, flags};

use crate::clause::Clause;
use crate::column::{Column, OTHER_PORT, TCP, TCP_PORT, UDP_PORT};

/// The most clauses of all rules together: a word of summary has as many bits as words of clauses.
pub const CLAUSES_MAX: usize = 4096;

/// The most ranges in the columns of all clauses together: an expression may name a long set, and many
/// expressions the same one.
pub const RANGES_MAX: usize = 1 << 18;

/// The most words of all sets of clauses together: 8 MiB.
const WORDS_MAX: usize = 1 << 20;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

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

/// The most pairs of classes in one table: 64 KiB of it.
const PAIRS_MAX: usize = 1 << 15;

/// The most words of the sets of all pairs, while a table of them is made: 4 MiB.
const PAIRS_WORDS_MAX: usize = 1 << 19;

/// The sets of clauses that the classes of a column, or of a group of columns, let match. No two are
/// equal.
#[derive(Default)]
struct Classes {
    sets: Vec<Vec<u64>>,
    known: HashMap<Vec<u64>, u16>,
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

    /// The classes of one part of a column, each with the value where it begins.
    fn starts(
        &mut self,
        clauses: &[Clause],
        column: Column,
        part: usize,
    ) -> Result<Vec<(u128, u16)>, TooMany> {
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
        let mut starts: Vec<(u128, u16)> = Vec::new();
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

    /// The classes of both, and the one of each pair: that of `self` times the number of the others,
    /// plus the other.
    fn pairs(&self, other: &Self) -> Result<(Self, Box<[u16]>), TooMany> {
        let (mut both, mut pairs) = (Self::default(), Vec::new());
        for ours in &self.sets {
            for theirs in &other.sets {
                let set: Vec<u64> = ours.iter().zip(theirs).map(|(a, b)| a & b).collect();
                pairs.push(both.add(&set)?);
            }
        }
        Ok((both, pairs.into()))
    }

    /// The first clause of each class, or `none`.
    fn firsts(&self, none: u16) -> Vec<u16> {
        let first = |set: &Vec<u64>| {
            let word = set.iter().position(|word| *word != 0)?;
            Some(word as u16 * 64 + set[word].trailing_zeros() as u16)
        };
        self.sets.iter().map(|set| first(set).unwrap_or(none)).collect()
    }
}

fn words_of(clauses: &[Clause]) -> usize {
    clauses.len().div_ceil(64).max(1)
}

/// The classes of 256 values.
type Page = [u16; 256];

/// The classes of a column of 16 bits: a page for the upper byte, which names one for the lower. Equal
/// pages are one.
#[derive(Debug)]
struct Numbers {
    pages: Vec<Page>,
}

impl Numbers {
    /// Adds the pages of a part; returns its upper page.
    fn add(&mut self, starts: &[(u128, u16)]) -> Page {
        let mut upper = [0; 256];
        for (high, entry) in upper.iter_mut().enumerate() {
            let page = bytes(starts, high as u128 * 256);
            let known = self.pages.iter().position(|known| *known == page);
            let position = known.unwrap_or_else(|| {
                self.pages.push(page);
                self.pages.len() - 1
            });
            // Four parts have 1024 pages at most.
            *entry = position as u16;
        }
        upper
    }

    #[inline]
    fn get(&self, upper: &Page, number: u16) -> u16 {
        let [high, low] = number.to_be_bytes();
        self.pages[usize::from(upper[usize::from(high)])][usize::from(low)]
    }
}

/// The classes of 256 values from `first` on.
fn bytes(starts: &[(u128, u16)], first: u128) -> Page {
    let mut page = [0; 256];
    for (entry, value) in page.iter_mut().zip(first..) {
        let after = starts.partition_point(|(start, _)| *start <= value);
        *entry = starts[after - 1].1;
    }
    page
}

/// One column's way from a packet to its class.
#[derive(Debug)]
enum Table {
    Addresses { v4: Map4, v6: Map6 },
    Ports { upper: Box<[Page; 4]>, numbers: Numbers },
    TcpFlags { none: u16, flags: Box<Page> },
    Byte(Box<Page>),
    Word { upper: Box<Page>, numbers: Numbers },
}

impl Table {
    fn new(classes: &mut Classes, clauses: &[Clause], column: Column) -> Result<Self, TooMany> {
        let mut starts = |part| classes.starts(clauses, column, part);
        Ok(match column {
            Column::Source | Column::Destination => {
                let v4: Vec<_> =
                    starts(0)?.iter().map(|(start, class)| (*start as u32, *class)).collect();
                Self::Addresses {
                    v4: Map4::new(&v4).map_err(|_| TooMany::Tables)?,
                    v6: Map6::new(&starts(1)?).map_err(|_| TooMany::Tables)?,
                }
            }
            Column::SourcePort | Column::DestinationPort => {
                let mut numbers = Numbers { pages: Vec::new() };
                let mut upper = Box::new([[0; 256]; 4]);
                for (part, upper) in upper.iter_mut().enumerate() {
                    *upper = numbers.add(&starts(part)?);
                }
                Self::Ports { upper, numbers }
            }
            Column::TcpFlags => {
                Self::TcpFlags { none: starts(0)?[0].1, flags: Box::new(bytes(&starts(1)?, 0)) }
            }
            Column::Protocol
            | Column::Flags
            | Column::Direction
            | Column::Ttl
            | Column::TrafficClass => Self::Byte(Box::new(bytes(&starts(0)?, 0))),
            Column::Length | Column::Ingress | Column::Egress | Column::Vrf => {
                let mut numbers = Numbers { pages: Vec::new() };
                let upper = Box::new(numbers.add(&starts(0)?));
                Self::Word { upper, numbers }
            }
        })
    }
}

/// Which part of a port column each protocol's ports are in.
const PORT_PARTS: [u8; 256] = {
    let mut parts = [OTHER_PORT as u8; 256];
    parts[PROTOCOL_TCP as usize] = TCP_PORT as u8;
    parts[PROTOCOL_UDP as usize] = UDP_PORT as u8;
    // An echo's identifier stands in the place of ports and is none.
    parts[ICMP as usize] = 0;
    parts[ICMPV6 as usize] = 0;
    parts
};

#[inline]
fn port_part(packet: &Descriptor) -> usize {
    let has_ports = packet.flags & flags::PORTS != 0;
    usize::from(PORT_PARTS[usize::from(packet.protocol)]) * usize::from(has_ports)
}

/// One column of a group.
#[derive(Debug)]
struct Step {
    column: Column,
    table: Table,
    /// Classes of the column.
    classes: usize,
    /// The class of each pair of one of the columns before and one of this; none in a group's first.
    pairs: Box<[u16]>,
}

/// Columns whose classes became one.
#[derive(Debug)]
struct Group {
    steps: Vec<Step>,
    /// The sets of its classes, one behind the other; of many words, each behind its summary. Empty
    /// when there is one group only.
    words: Vec<u64>,
    /// The classes of a batch's packets.
    found: Box<[u16; BATCH_MAX]>,
}

/// Clauses, compiled.
#[derive(Debug)]
pub struct Classifier {
    clauses: usize,
    words_each: usize,
    groups: Vec<Group>,
    /// The first clause by answer.
    firsts: Vec<u16>,
}

/// Up to as many words, all of them are read.
const WORDS_FEW: usize = 2;

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
        let mut columns = Vec::new();
        let mut words = 0;
        for column in Column::ALL {
            if clauses.iter().any(|clause| clause.get(column).is_some()) {
                let mut classes = Classes::default();
                let table = Table::new(&mut classes, clauses, column)?;
                words += classes.sets.len() * words_of(clauses);
                if words > WORDS_MAX {
                    return Err(TooMany::Tables);
                }
                columns.push((column, table, classes));
            }
        }
        if columns.is_empty() {
            // Clauses that ask for nothing, or none at all: any column says so.
            let (column, mut classes) = (Column::Direction, Classes::default());
            columns.push((column, Table::new(&mut classes, clauses, column)?, classes));
        }
        // Those with few classes first: more of them fit into one table.
        columns.sort_by_key(|(_, _, classes)| classes.sets.len());
        let words_each = words_of(clauses);
        let pairs_max = PAIRS_WORDS_MAX / words_each;
        let mut groups: Vec<(Vec<Step>, Classes)> = Vec::new();
        for (column, table, classes) in columns {
            let mut step =
                Step { column, table, classes: classes.sets.len(), pairs: Box::default() };
            match groups.last_mut() {
                Some((steps, before))
                    if before.sets.len() * step.classes <= PAIRS_MAX.min(pairs_max) =>
                {
                    (*before, step.pairs) = before.pairs(&classes)?;
                    steps.push(step);
                }
                _ => groups.push((vec![step], classes)),
            }
        }
        let none = words_each as u16 * 64;
        let firsts = match &groups[..] {
            [(_, classes)] => classes.firsts(none),
            _ => (0..=none).collect(),
        };
        let is_one = groups.len() == 1;
        let groups: Vec<_> = groups
            .into_iter()
            .map(|(steps, classes)| Group {
                steps,
                words: if is_one { Vec::new() } else { flat(&classes.sets) },
                found: Box::new([0; BATCH_MAX]),
            })
            .collect();
        Ok(Self { clauses: clauses.len(), words_each, groups, firsts })
    }

    /// How many answers [`Self::classify`] may give: they are smaller.
    #[must_use]
    pub fn answers(&self) -> usize {
        self.firsts.len()
    }

    /// The first clause that packets with an answer meet, if there is one.
    #[must_use]
    pub fn first(&self, answer: usize) -> Option<usize> {
        let first = usize::from(*self.firsts.get(answer)?);
        (first < self.clauses).then_some(first)
    }

    /// The answer for each packet, of which [`Self::first`] knows the clause. At most [`BATCH_MAX`]
    /// packets.
    pub fn classify(&mut self, packets: &[Descriptor], answers: &mut [u16]) {
        let answers = &mut answers[..packets.len()];
        if let [only] = &self.groups[..] {
            classes(&only.steps, packets, answers);
            return;
        }
        for group in &mut self.groups {
            classes(&group.steps, packets, &mut group.found[..packets.len()]);
        }
        match self.words_each {
            1 => self.few::<1>(answers),
            2 => self.few::<2>(answers),
            _ => self.many(answers),
        }
    }

    fn few<const WORDS: usize>(&self, answers: &mut [u16]) {
        for (index, answer) in answers.iter_mut().enumerate() {
            let mut left = [u64::MAX; WORDS];
            for group in &self.groups {
                let (sets, _) = group.words.as_chunks::<WORDS>();
                for (left, word) in left.iter_mut().zip(&sets[usize::from(group.found[index])]) {
                    *left &= word;
                }
            }
            // Without a bit the number of zeros is 64, which makes it the number behind the last.
            let [low, high] = [left[0], left[WORDS - 1]];
            *answer = if WORDS == 1 || low != 0 {
                low.trailing_zeros() as u16
            } else {
                64 + high.trailing_zeros() as u16
            };
        }
    }

    fn many(&self, answers: &mut [u16]) {
        let stride = 1 + self.words_each;
        for (index, answer) in answers.iter_mut().enumerate() {
            let all = |word: usize| {
                self.groups.iter().fold(u64::MAX, |all, group| {
                    all & group.words[usize::from(group.found[index]) * stride + word]
                })
            };
            *answer = self.words_each as u16 * 64;
            let mut candidates = all(0);
            while candidates != 0 {
                let word = candidates.trailing_zeros() as usize;
                let bits = all(1 + word);
                if bits != 0 {
                    *answer = (word * 64) as u16 + bits.trailing_zeros() as u16;
                    break;
                }
                candidates &= candidates - 1;
            }
        }
    }
}

/// Sets one behind the other; of many words, each behind a word that says which of them are not zero.
fn flat(sets: &[Vec<u64>]) -> Vec<u64> {
    let mut words = Vec::new();
    for set in sets {
        if set.len() > WORDS_FEW {
            let bits = set.iter().enumerate();
            words.push(bits.fold(0, |bits, (at, word)| bits | u64::from(*word != 0) << at));
        }
        words.extend(set);
    }
    words
}

/// The class of each packet in a group of columns.
fn classes(steps: &[Step], packets: &[Descriptor], classes: &mut [u16]) {
    for (step, position) in steps.iter().zip(0..) {
        if position == 0 {
            find(step.column, &step.table, packets, classes, |_, class| class);
        } else {
            let (width, pairs) = (step.classes, &step.pairs);
            find(step.column, &step.table, packets, classes, |before, class| {
                pairs[usize::from(before) * width + usize::from(class)]
            });
        }
    }
}

/// The class of each packet in one column; what `each` makes of the class so far and it replaces that.
#[inline]
fn find(
    column: Column,
    table: &Table,
    packets: &[Descriptor],
    classes: &mut [u16],
    each: impl Fn(u16, u16) -> u16,
) {
    /// The loop itself. By fours, since every turn of a loop costs a plugin a look at its budget.
    #[inline]
    fn all(
        packets: &[Descriptor],
        classes: &mut [u16],
        each: impl Fn(u16, u16) -> u16,
        class: impl Fn(&Descriptor) -> u16,
    ) {
        let (fours, rest) = packets.as_chunks::<4>();
        let (class_fours, class_rest) = classes.as_chunks_mut::<4>();
        for (packets, classes) in fours.iter().zip(class_fours) {
            let [a, b, c, d] = packets;
            let found = [class(a), class(b), class(c), class(d)];
            let [e, f, g, h] = *classes;
            let [i, j, k, l] = found;
            *classes = [each(e, i), each(f, j), each(g, k), each(h, l)];
        }
        for (packet, place) in rest.iter().zip(class_rest) {
            *place = each(*place, class(packet));
        }
    }

    match (table, column) {
        (Table::Addresses { v4, v6 }, Column::Source) => {
            all(packets, classes, each, |packet| address_class(v4, v6, packet, &packet.source));
        }
        (Table::Addresses { v4, v6 }, _) => {
            all(packets, classes, each, |packet| {
                address_class(v4, v6, packet, &packet.destination)
            });
        }
        (Table::Ports { upper, numbers }, Column::SourcePort) => {
            all(packets, classes, each, |packet| {
                numbers.get(&upper[port_part(packet)], packet.source_port)
            })
        }
        (Table::Ports { upper, numbers }, _) => all(packets, classes, each, |packet| {
            numbers.get(&upper[port_part(packet)], packet.destination_port)
        }),
        (Table::TcpFlags { none, flags }, _) => all(packets, classes, each, |packet| {
            let class = flags[usize::from(packet.tcp_flags)];
            if has_tcp_flags(packet) { class } else { *none }
        }),
        (Table::Byte(page), Column::Protocol) => {
            all(packets, classes, each, |packet| page[usize::from(packet.protocol)]);
        }
        (Table::Byte(page), Column::Flags) => {
            all(packets, classes, each, |packet| page[usize::from(packet.flags)]);
        }
        (Table::Byte(page), Column::Ttl) => {
            all(packets, classes, each, |packet| page[usize::from(packet.ttl)]);
        }
        (Table::Byte(page), Column::TrafficClass) => {
            all(packets, classes, each, |packet| page[usize::from(packet.traffic_class)]);
        }
        (Table::Byte(page), _) => {
            all(packets, classes, each, |packet| page[usize::from(packet.direction)]);
        }
        (Table::Word { upper, numbers }, Column::Length) => {
            all(packets, classes, each, |packet| numbers.get(upper, packet.length));
        }
        (Table::Word { upper, numbers }, Column::Ingress) => {
            all(packets, classes, each, |packet| numbers.get(upper, packet.ingress));
        }
        (Table::Word { upper, numbers }, Column::Egress) => {
            all(packets, classes, each, |packet| numbers.get(upper, packet.egress));
        }
        (Table::Word { upper, numbers }, _) => {
            all(packets, classes, each, |packet| numbers.get(upper, packet.vrf));
        }
    }
}

/// A call costs a plugin looks at its stack and its budget: only the longer search is one.
#[inline(always)]
fn address_class(v4: &Map4, v6: &Map6, packet: &Descriptor, address: &[u8; 16]) -> u16 {
    if packet.flags & flags::IPV6 == 0 { v4.get(v4_bits(address)) } else { v6_class(v6, address) }
}

#[inline(never)]
fn v6_class(v6: &Map6, address: &[u8; 16]) -> u16 {
    v6.get(u128::from_be_bytes(*address))
}

#[inline]
fn has_tcp_flags(packet: &Descriptor) -> bool {
    // Of a column with two parts, the first is for packets without the header.
    const { assert!(TCP == 1) };
    packet.protocol == PROTOCOL_TCP && packet.flags & flags::LATER_FRAGMENT == 0
}
