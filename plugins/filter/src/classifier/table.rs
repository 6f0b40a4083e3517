//! [`Leaf`]: a column whose classes are known; [`Table`]: its way from a packet to its class.

use std::mem::offset_of;

use sluice_sdk::{BATCH_MAX, Descriptor, flags};

use super::classes::{Classes, Pairs, Starts};
use super::{Classed, Packets, TooMany};
use crate::clause::Clause;
use crate::column::{Column, NO_PORT, OTHER_PORT, TCP, TCP_PORT, UDP_PORT};

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// The classes of 256 values.
type Page = [u16; 256];

/// By protocol, and behind those without ports the ones with.
type ByProtocol<T> = [T; 512];

/// Which part of a port column each protocol's ports are in.
const PORT_PARTS: ByProtocol<u8> = {
    // An echo's identifier stands in the place of ports and is none.
    let mut parts = [NO_PORT as u8; 512];
    let mut protocol = 0;
    while protocol < 256 {
        parts[256 + protocol] = match protocol as u8 {
            PROTOCOL_TCP => TCP_PORT as u8,
            PROTOCOL_UDP => UDP_PORT as u8,
            ICMP | ICMPV6 => NO_PORT as u8,
            _ => OTHER_PORT as u8,
        };
        protocol += 1;
    }
    parts
};

/// The most classes of protocols by which ports are looked up, each in a part for those without ports, TCP, UDP
/// and others.
const PROTOCOL_CLASSES_MAX: usize = 16;

/// A column, and where its classes begin in each part.
pub(super) struct Leaf {
    column: Column,
    parts: Vec<Starts>,
    /// The part that each protocol's ports are in, for columns of ports.
    by_protocol: Box<ByProtocol<u8>>,
}

impl Leaf {
    /// The column with its classes.
    pub(super) fn new(clauses: &[Clause], column: Column) -> Result<(Self, Classes), TooMany> {
        let mut classes = Classes::default();
        let parts = (0..column.tops().len()).map(|part| classes.starts(clauses, column, part));
        let parts = parts.collect::<Result<_, _>>()?;
        Ok((Self { column, parts, by_protocol: Box::new(PORT_PARTS) }, classes))
    }

    pub(super) fn parts(&self) -> &[Starts] {
        &self.parts
    }

    const fn has_ports(&self) -> bool {
        matches!(self.column, Column::SourcePort | Column::DestinationPort)
    }

    /// Puts others in the place of its classes.
    pub(super) fn map(&mut self, map: impl Fn(u16) -> u16) {
        for (_, class) in self.parts.iter_mut().flatten() {
            *class = map(*class);
        }
    }

    /// Whether [`Self::with`] makes one column of this one, with its classes, and the other.
    pub(super) fn can_be_with(&self, classes: &Classes, other: &Self) -> bool {
        self.column == Column::Protocol
            && classes.sets.len() <= PROTOCOL_CLASSES_MAX
            && other.has_ports()
    }

    /// The protocol together with ports, which are looked up by protocol anyway.
    pub(super) fn with(self, ports: Self, pairs: &Pairs) -> Self {
        let protocols = bytes(&self.parts[0], 0);
        let (mut known, mut parts) = (Vec::new(), Vec::new());
        let mut by_protocol = Box::new([0; 512]);
        for (at, part) in by_protocol.iter_mut().enumerate() {
            let of = (protocols[at % 256], ports.by_protocol[at]);
            let position = known.iter().position(|known| *known == of).unwrap_or_else(|| {
                let class = |(start, class): &(u128, u16)| (*start, pairs.get(of.0, *class));
                parts.push(ports.parts[usize::from(of.1)].iter().map(class).collect());
                known.push(of);
                known.len() - 1
            });
            *part = position as u8;
        }
        Self { column: ports.column, parts, by_protocol }
    }

    pub(super) fn table(self) -> Table {
        let byte = |at: usize| Table::Byte { at, page: Box::new(bytes(&self.parts[0], 0)) };
        let word = |at: usize| Table::Word { at: at / 2, cells: numbers(&self.parts[..1]) };
        let ports = |at: usize| Table::Ports {
            at: at / 2,
            firsts: Box::new(self.by_protocol.map(|part| u16::from(part) << 8)),
            cells: numbers(&self.parts),
        };
        match self.column {
            Column::Protocol => byte(offset_of!(Descriptor, protocol)),
            Column::Flags => byte(offset_of!(Descriptor, flags)),
            Column::Direction => byte(offset_of!(Descriptor, direction)),
            Column::Ttl => byte(offset_of!(Descriptor, ttl)),
            Column::TrafficClass => byte(offset_of!(Descriptor, traffic_class)),
            Column::Length => word(offset_of!(Descriptor, length)),
            Column::Ingress => word(offset_of!(Descriptor, ingress)),
            Column::Egress => word(offset_of!(Descriptor, egress)),
            Column::Vrf => word(offset_of!(Descriptor, vrf)),
            Column::SourcePort => ports(offset_of!(Descriptor, source_port)),
            Column::DestinationPort => ports(offset_of!(Descriptor, destination_port)),
            Column::TcpFlags => Table::TcpFlags {
                none: self.parts[0][0].1,
                page: Box::new(bytes(&self.parts[TCP], 0)),
            },
            Column::Source | Column::Destination => unreachable!("addresses are found before"),
        }
    }
}

/// The classes of 256 values from `first` on.
fn bytes(starts: &[(u128, u16)], first: u128) -> Page {
    let mut page = [0; 256];
    let mut at = starts.partition_point(|(start, _)| *start <= first) - 1;
    for (entry, value) in page.iter_mut().zip(first..) {
        at += usize::from(starts.get(at + 1).is_some_and(|(start, _)| *start == value));
        *entry = starts[at].1;
    }
    page
}

/// The classes of parts of 16 bits: for each part a page for the upper byte, which names one for the lower
/// by its number. Equal pages are one.
fn numbers(parts: &[Starts]) -> Box<[u16]> {
    let mut pages: Vec<Page> = vec![[0; 256]; parts.len()];
    for (part, starts) in parts.iter().enumerate() {
        for high in 0..256 {
            let page = bytes(starts, high as u128 * 256);
            let known = pages[parts.len()..].iter().position(|known| *known == page);
            let position = parts.len() + known.unwrap_or(pages.len() - parts.len());
            if position == pages.len() {
                pages.push(page);
            }
            pages[part][high] = position as u16;
        }
    }
    pages.into_iter().flatten().collect()
}

/// One column's way from a packet to its class.
#[derive(Debug)]
pub(super) enum Table {
    /// A byte of the descriptor.
    Byte {
        at: usize,
        page: Box<Page>,
    },
    /// A word, `at` counted in words. Its bytes are those of a plugin: the lower first.
    Word {
        at: usize,
        cells: Box<[u16]>,
    },
    /// A word whose first page depends on the protocol: where in `cells` it is.
    Ports {
        at: usize,
        firsts: Box<ByProtocol<u16>>,
        cells: Box<[u16]>,
    },
    TcpFlags {
        none: u16,
        page: Box<Page>,
    },
}

/// What becomes of a packet's class in a column, with the class that it has from other columns.
pub(super) trait After {
    fn class(&self, before: u16, class: u16) -> u16;
}

/// The column is the first.
pub(super) struct Alone;

impl After for Alone {
    #[inline]
    fn class(&self, _: u16, class: u16) -> u16 {
        class
    }
}

impl Pairs {
    #[inline]
    pub(super) fn get(&self, first: u16, second: u16) -> u16 {
        pair(&self.cells, self.width, first, second)
    }
}

#[inline]
fn pair(cells: &[u16], width: usize, first: u16, second: u16) -> u16 {
    cells[usize::from(first) * width + usize::from(second)]
}

impl After for &Pairs {
    #[inline]
    fn class(&self, before: u16, class: u16) -> u16 {
        self.get(before, class)
    }
}

impl Table {
    /// The class of each packet.
    pub(super) fn find(&self, packets: Packets<'_>, classes: &mut Classed, after: impl After) {
        match self {
            Self::Byte { at, page } => find_byte(*at, page, packets, classes, after),
            Self::Word { at, cells } => find_word(*at, cells, packets, classes, after),
            Self::Ports { at, firsts, cells } => {
                find_port(*at, firsts, cells, packets, classes, after);
            }
            Self::TcpFlags { none, page } => {
                find_tcp_flags(*none, page, packets, classes, after);
            }
        }
    }
}

// Each loop is a function of its own: together their variables would not fit the registers.
#[inline(never)]
fn find_byte(
    at: usize,
    page: &Page,
    packets: Packets<'_>,
    classes: &mut Classed,
    after: impl After,
) {
    packets.each(classes, |_, packet, before| {
        let bytes: &[u8; 64] = bytemuck::cast_ref(packet);
        after.class(before, page[usize::from(bytes[at % 64])])
    });
}

#[inline]
fn word(packet: &Descriptor, at: usize) -> [u8; 2] {
    let words: &[[u8; 2]; 32] = bytemuck::cast_ref(packet);
    words[at % 32]
}

#[inline]
fn number(cells: &[u16], first: usize, [low, high]: [u8; 2]) -> u16 {
    let page = cells[first | usize::from(high)];
    cells[usize::from(page) << 8 | usize::from(low)]
}

#[inline(never)]
fn find_word(
    at: usize,
    cells: &[u16],
    packets: Packets<'_>,
    classes: &mut Classed,
    after: impl After,
) {
    packets
        .each(classes, |_, packet, before| after.class(before, number(cells, 0, word(packet, at))));
}

#[inline(never)]
fn find_port(
    at: usize,
    firsts: &ByProtocol<u16>,
    cells: &[u16],
    packets: Packets<'_>,
    classes: &mut Classed,
    after: impl After,
) {
    const { assert!(flags::PORTS << 5 == 0 && (flags::PORTS as usize) << 5 == 256) };
    packets.each(classes, |_, packet, before| {
        let has_ports = usize::from(packet.flags & flags::PORTS) << 5;
        let first = firsts[has_ports | usize::from(packet.protocol)];
        after.class(before, number(cells, first.into(), word(packet, at)))
    });
}

#[inline(never)]
fn find_tcp_flags(
    none: u16,
    page: &Page,
    packets: Packets<'_>,
    classes: &mut Classed,
    after: impl After,
) {
    packets.each(classes, |_, packet, before| {
        let has_flags =
            packet.protocol == PROTOCOL_TCP && packet.flags & flags::LATER_FRAGMENT == 0;
        let class = page[usize::from(packet.tcp_flags)];
        after.class(before, if has_flags { class } else { none })
    });
}

/// Two classes become one.
#[inline(never)]
pub(super) fn merge(pairs: &Pairs, packets: Packets<'_>, first: &mut Classed, second: &Classed) {
    packets.each(first, |at, _, first| pairs.get(first, second[at % BATCH_MAX]));
}
