//! [`Classifier`]: finds the first matching rule without looking at the rules one by one.
//!
//! Each field on its own says which rules it lets match, as a bit for each rule; a packet's rules
//! are those that all fields let match, and the lowest bit is the first rule (Lakshman and Stiliadis,
//! SIGCOMM 1998).
//!
//! ```text
//!   source ------ intervals --> 0110 1111 ..
//!   destination - intervals --> 1010 1011 ..
//!   ports, protocol, flags,                    AND --> 0010 0011 ..  --> first bit: rule 2
//!   direction --- tables -----> 1111 0011 ..
//! ```
//!
//! The cost is one binary search an address and one load for each other field, whatever the rules
//! are, plus one AND for each 64 rules and field. Fields that no rule asks about are left out.

use std::{
    collections::{BTreeMap, HashMap},
    ops::RangeInclusive,
};

use ipnet::IpNet;
use sluice_sdk::{Descriptor, flags};

use crate::config::{ICMP, ICMPV6, Rule, TCP};

/// The bit sets of all fields, one behind the other; equal ones are stored once.
#[derive(Debug, Default)]
struct BitSets {
    words_each: usize,
    words: Vec<u64>,
    known: HashMap<Vec<u64>, u32>,
}

impl BitSets {
    /// The position of the set of the rules that `holds` is true for.
    fn add(&mut self, rules: &[Rule], holds: impl Fn(&Rule) -> bool) -> u32 {
        let mut set = vec![0_u64; self.words_each];
        for (index, rule) in rules.iter().enumerate() {
            set[index / 64] |= u64::from(holds(rule)) << (index % 64);
        }
        self.add_words(set)
    }

    fn add_words(&mut self, set: Vec<u64>) -> u32 {
        if let Some(position) = self.known.get(&set) {
            return *position;
        }
        let position = self.words.len() as u32;
        self.words.extend(&set);
        self.known.insert(set, position);
        position
    }
}

/// The sets of one address field: entry *i* holds from `starts[i]` on.
#[derive(Debug)]
struct Intervals<A> {
    starts: Vec<A>,
    sets: Vec<u32>,
}

impl<A: Copy + Ord> Intervals<A> {
    #[inline]
    fn find(&self, address: A) -> u32 {
        // The first interval starts at zero, so there always is one before.
        let after = self.starts.partition_point(|start| *start <= address);
        self.sets[after - 1]
    }
}

/// The sets of one field that is a small number.
type Numbers = Box<[u32; 256]>;

/// The sets of one port field.
#[derive(Debug)]
struct Ports {
    by_port: Box<[u32]>,
    /// For packets without ports.
    none: u32,
}

#[derive(Debug)]
struct TcpFlags {
    by_flags: Numbers,
    /// For packets that are not TCP, and for fragments without a TCP header.
    none: u32,
}

/// Rules, compiled.
#[derive(Debug)]
pub struct Classifier {
    words_each: usize,
    words: Vec<u64>,
    /// The set of all rules, for fields that no rule asks about.
    all: u32,
    source4: Option<Intervals<u32>>,
    destination4: Option<Intervals<u32>>,
    source6: Option<Intervals<u128>>,
    destination6: Option<Intervals<u128>>,
    source_ports: Option<Ports>,
    destination_ports: Option<Ports>,
    protocol: Option<Numbers>,
    tcp_flags: Option<TcpFlags>,
    direction: Option<Numbers>,
}

impl Classifier {
    /// Compiles the rules.
    #[must_use]
    pub fn new(rules: &[Rule]) -> Self {
        let mut sets = BitSets { words_each: rules.len().div_ceil(64), ..BitSets::default() };
        let (source, destination) = (Rule::source as Prefixes, Rule::destination as Prefixes);
        let classifier = Self {
            words_each: sets.words_each,
            all: sets.add(rules, |_| true),
            source4: intervals(&mut sets, rules, source, v4_range, |bits| bits as u32),
            destination4: intervals(&mut sets, rules, destination, v4_range, |bits| bits as u32),
            source6: intervals(&mut sets, rules, source, v6_range, |bits| bits),
            destination6: intervals(&mut sets, rules, destination, v6_range, |bits| bits),
            source_ports: ports(&mut sets, rules, |rule| &rule.source_ports),
            destination_ports: ports(&mut sets, rules, |rule| &rule.destination_ports),
            protocol: numbers(&mut sets, rules, |rule| {
                // Only TCP has TCP flags.
                rule.protocol.or(rule.tcp_flags.map(|_| TCP)).map(|wanted| (0xff, wanted))
            }),
            tcp_flags: numbers(&mut sets, rules, |rule| rule.tcp_flags).map(|by_flags| TcpFlags {
                by_flags,
                none: sets.add(rules, |rule| rule.tcp_flags.is_none()),
            }),
            direction: numbers(&mut sets, rules, |rule| {
                rule.direction.map(|wanted| (0xff, wanted))
            }),
            words: Vec::new(),
        };
        Self { words: sets.words, ..classifier }
    }

    /// The position of the first rule that the packet matches.
    #[inline]
    #[must_use]
    pub fn first_match(&self, packet: &Descriptor) -> Option<usize> {
        let (source, destination) = if packet.flags & flags::IPV6 == 0 {
            (
                self.source4.as_ref().map(|table| table.find(v4_bits(packet.source))),
                self.destination4.as_ref().map(|table| table.find(v4_bits(packet.destination))),
            )
        } else {
            let find = |table: &Intervals<u128>, address| table.find(u128::from_be_bytes(address));
            (
                self.source6.as_ref().map(|table| find(table, packet.source)),
                self.destination6.as_ref().map(|table| find(table, packet.destination)),
            )
        };
        // An echo's identifier stands in the place of ports and is none.
        let has_ports =
            packet.flags & flags::PORTS != 0 && !matches!(packet.protocol, ICMP | ICMPV6);
        let port = |table: &Ports, port: u16| {
            if has_ports { table.by_port[usize::from(port)] } else { table.none }
        };
        let has_flags = packet.protocol == TCP && packet.flags & flags::LATER_FRAGMENT == 0;
        let positions = [
            source,
            destination,
            self.source_ports.as_ref().map(|table| port(table, packet.source_port)),
            self.destination_ports.as_ref().map(|table| port(table, packet.destination_port)),
            self.protocol.as_ref().map(|table| table[usize::from(packet.protocol)]),
            self.tcp_flags.as_ref().map(|table| {
                if has_flags { table.by_flags[usize::from(packet.tcp_flags)] } else { table.none }
            }),
            self.direction.as_ref().map(|table| table[usize::from(packet.direction)]),
        ];
        let fields = positions.map(|position| {
            let start = position.unwrap_or(self.all) as usize;
            &self.words[start..start + self.words_each]
        });
        for word in 0..self.words_each {
            let both = fields.iter().fold(u64::MAX, |both, field| both & field[word]);
            if both != 0 {
                return Some(word * 64 + both.trailing_zeros() as usize);
            }
        }
        None
    }
}

#[inline]
fn v4_bits(mapped: [u8; 16]) -> u32 {
    let [.., a, b, c, d] = mapped;
    u32::from_be_bytes([a, b, c, d])
}

type Prefixes = fn(&Rule) -> &[IpNet];

/// First address and the one after the last, which is 0 when there is none.
fn v4_range(net: &IpNet) -> Option<(u128, u128)> {
    match net {
        IpNet::V4(net) => {
            let end = net.broadcast().to_bits().wrapping_add(1);
            Some((net.network().to_bits().into(), end.into()))
        }
        IpNet::V6(_) => None,
    }
}

fn v6_range(net: &IpNet) -> Option<(u128, u128)> {
    match net {
        IpNet::V4(_) => None,
        IpNet::V6(net) => {
            Some((net.network().to_bits(), net.broadcast().to_bits().wrapping_add(1)))
        }
    }
}

/// Sweeps over the ends of all prefixes of one family and field.
fn intervals<A: Copy>(
    sets: &mut BitSets,
    rules: &[Rule],
    prefixes: Prefixes,
    range: fn(&IpNet) -> Option<(u128, u128)>,
    narrow: fn(u128) -> A,
) -> Option<Intervals<A>> {
    if rules.iter().all(|rule| prefixes(rule).is_empty()) {
        return None;
    }
    // At each address, the rules of which a prefix begins (+1) or has ended (-1).
    let mut ends: BTreeMap<u128, Vec<(usize, i32)>> = BTreeMap::from([(0, Vec::new())]);
    for (index, rule) in rules.iter().enumerate() {
        for (first, end) in prefixes(rule).iter().filter_map(range) {
            ends.entry(first).or_default().push((index, 1));
            if end > first {
                ends.entry(end).or_default().push((index, -1));
            }
        }
    }
    let mut open = vec![0_i32; rules.len()];
    for (open, rule) in open.iter_mut().zip(rules) {
        *open = i32::from(prefixes(rule).is_empty());
    }
    let mut set = vec![0_u64; sets.words_each];
    for (index, open) in open.iter().enumerate() {
        set[index / 64] |= u64::from(*open > 0) << (index % 64);
    }
    let mut intervals = Intervals { starts: Vec::new(), sets: Vec::new() };
    for (start, changes) in ends {
        for (index, change) in changes {
            open[index] += change;
            let bit = 1 << (index % 64);
            if open[index] > 0 {
                set[index / 64] |= bit;
            } else {
                set[index / 64] &= !bit;
            }
        }
        let position = sets.add_words(set.clone());
        if intervals.sets.last() != Some(&position) {
            intervals.starts.push(narrow(start));
            intervals.sets.push(position);
        }
    }
    Some(intervals)
}

fn ports(
    sets: &mut BitSets,
    rules: &[Rule],
    ranges: fn(&Rule) -> &[RangeInclusive<u16>],
) -> Option<Ports> {
    if rules.iter().all(|rule| ranges(rule).is_empty()) {
        return None;
    }
    let none = sets.add(rules, |rule| ranges(rule).is_empty());
    let mut starts = BTreeMap::from([(0_u32, ())]);
    for range in rules.iter().flat_map(ranges) {
        starts.insert((*range.start()).into(), ());
        starts.insert(u32::from(*range.end()) + 1, ());
    }
    let mut by_port = Vec::with_capacity(1 << 16);
    let mut starts = starts.into_keys().filter(|start| *start < 1 << 16).peekable();
    while let Some(start) = starts.next() {
        let position = sets.add(rules, |rule| {
            let ranges = ranges(rule);
            ranges.is_empty() || ranges.iter().any(|range| range.contains(&(start as u16)))
        });
        let end = starts.peek().copied().unwrap_or(1 << 16);
        by_port.resize(end as usize, position);
    }
    Some(Ports { by_port: by_port.into_boxed_slice(), none })
}

/// The sets of a field of which each rule may ask that the bits of a mask have a value.
fn numbers(
    sets: &mut BitSets,
    rules: &[Rule],
    wanted: impl Fn(&Rule) -> Option<(u8, u8)>,
) -> Option<Numbers> {
    if rules.iter().all(|rule| wanted(rule).is_none()) {
        return None;
    }
    let mut positions = Box::new([0; 256]);
    for (number, position) in (0..=u8::MAX).zip(positions.iter_mut()) {
        *position =
            sets.add(rules, |rule| wanted(rule).is_none_or(|(mask, value)| number & mask == value));
    }
    Some(positions)
}
