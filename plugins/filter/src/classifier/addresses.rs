//! [`Addresses`]: the classes of a batch's packets in the two columns of addresses.
//!
//! All are looked up as IPv4 first, and then those that are IPv6 once more: of which family a packet is,
//! is as good as random, and a branch on it is mispredicted.

use prefixes::{Map4, Map6};
use sluice_sdk::{BATCH_MAX, Descriptor, flags};

use super::classes::Starts;
use super::{Classed, Packets, TooMany};
use crate::column::{V4, V6};

/// The tables of both columns, those of them that clauses ask about.
#[derive(Debug)]
pub(super) struct Addresses {
    source: Option<Table>,
    destination: Option<Table>,
    /// Positions of the packets that are IPv6.
    v6: Box<[u8; BATCH_MAX]>,
}

#[derive(Debug)]
struct Table {
    v4: Map4,
    v6: Map6,
}

/// Where the classes of sources are.
pub(super) const SOURCE: usize = 0;
/// Where those of destinations are.
pub(super) const DESTINATION: usize = 1;

impl Addresses {
    /// Of the starts of each column's parts.
    pub(super) fn new(
        source: Option<&[Starts]>,
        destination: Option<&[Starts]>,
    ) -> Result<Self, TooMany> {
        let table = |parts: Option<&[Starts]>| parts.map(Table::new).transpose();
        let (source, destination) = (table(source)?, table(destination)?);
        Ok(Self { source, destination, v6: Box::new([0; BATCH_MAX]) })
    }

    /// Finds the classes of both columns.
    pub(super) fn find(&mut self, packets: &[Descriptor], classes: &mut [Classed]) {
        if self.source.is_none() && self.destination.is_none() {
            return;
        }
        let v6 = select(packets, &mut self.v6, |packet| packet.flags & flags::IPV6 != 0);
        let v6 = &self.v6[..v6];
        if let Some(table) = &self.source {
            table.find(packets, &mut classes[SOURCE], v6, |packet| &packet.source);
        }
        if let Some(table) = &self.destination {
            table.find(packets, &mut classes[DESTINATION], v6, |packet| &packet.destination);
        }
    }
}

impl Table {
    fn new(parts: &[Starts]) -> Result<Self, TooMany> {
        let v4: Vec<_> = parts[V4].iter().map(|(start, class)| (*start as u32, *class)).collect();
        let v4 = Map4::new(&v4).map_err(|_| TooMany::Tables)?;
        Ok(Self { v4, v6: Map6::new(&parts[V6]).map_err(|_| TooMany::Tables)? })
    }

    #[inline]
    fn find(
        &self,
        packets: &[Descriptor],
        classes: &mut Classed,
        v6: &[u8],
        address: impl Fn(&Descriptor) -> &[u8; 16],
    ) {
        if self.v4.is_deep() {
            find_v4::<true>(&self.v4, packets, classes, &address);
        } else {
            find_v4::<false>(&self.v4, packets, classes, &address);
        }
        if let Some(only) = self.v6.only_value() {
            v6.iter().for_each(|position| classes[usize::from(*position)] = only);
        } else if !v6.is_empty() {
            find_v6(&self.v6, packets, classes, v6, address);
        }
    }
}

// Each loop is a function of its own: together their variables would not fit the registers.
#[inline(never)]
fn find_v4<const IS_DEEP: bool>(
    map: &Map4,
    packets: &[Descriptor],
    classes: &mut Classed,
    address: impl Fn(&Descriptor) -> &[u8; 16],
) {
    Packets::All(packets).each(classes, |_, packet, _| {
        let [.., a, b, c, d] = *address(packet);
        map.get_by::<IS_DEEP>([a, b, c, d])
    });
}

#[inline(never)]
fn find_v6(
    map: &Map6,
    packets: &[Descriptor],
    classes: &mut Classed,
    v6: &[u8],
    address: impl Fn(&Descriptor) -> &[u8; 16],
) {
    let bits = |position: u8| u128::from_be_bytes(*address(&packets[usize::from(position)]));
    let (fours, rest) = v6.as_chunks::<4>();
    for positions in fours {
        for (position, class) in positions.iter().zip(map.get_each(positions.map(bits))) {
            classes[usize::from(*position)] = class;
        }
    }
    for position in rest {
        classes[usize::from(*position)] = map.get(bits(*position));
    }
}

/// Writes the positions of the packets for which `is_one_of_them` holds; returns how many they are.
/// Without a branch that depends on packets.
#[inline(never)]
fn select(
    packets: &[Descriptor],
    positions: &mut [u8; BATCH_MAX],
    is_one_of_them: impl Fn(&Descriptor) -> bool,
) -> usize {
    let mut found = 0;
    let (eights, rest) = packets.as_chunks::<8>();
    let mut position = 0_u8;
    let mut look = |packet: &Descriptor| {
        positions[found % BATCH_MAX] = position;
        found += usize::from(is_one_of_them(packet));
        position = position.wrapping_add(1);
    };
    for eight in eights {
        eight.iter().for_each(&mut look);
    }
    rest.iter().for_each(look);
    found
}
