//! The fields that an expression can name, with their types and the values that they stand for.

use sluice_sdk::{direction, flags};

use crate::clause::Condition;
use crate::column::{self, Column, Values};
use crate::ranges::Ranges;

/// What a field is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// Addresses and prefixes of both families.
    Address,
    /// Numbers up to this one.
    Number(u16),
    /// Numbers up to 255, and the names of protocols.
    Protocol,
    /// `inbound`, `outbound`, `transit`.
    Direction,
    /// Nothing (the field alone is a test), or `true`, `false`, 1, 0.
    Flag,
}

/// Where the values of a field are.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Both parts of an address column.
    Address(Column),
    /// The values as they are.
    Whole(Column),
    /// The values of one part.
    Part(Column, usize),
    /// The bits of a byte column (of its part) that a mask has, as a number.
    Bits(Column, usize, u8),
    /// Number of an interface, of which the column holds one more, and 0 for none.
    OneLess(Column),
    /// Protocol of this number.
    Protocol(u8),
    /// 4 or 6.
    Version,
}

/// A field.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Type,
    /// Two for fields that stand for a packet's both ends: one of them is enough.
    places: &'static [Place],
}

const fn field(name: &'static str, kind: Type, places: &'static [Place]) -> Field {
    Field { name, kind, places }
}

const ANY: usize = 0;

/// All fields.
#[rustfmt::skip]
pub(super) static FIELDS: &[Field] = {
    use Column::{Destination, DestinationPort, Egress, Flags, Ingress, Length, Protocol, Source, SourcePort, TcpFlags, TrafficClass, Ttl, Vrf};
    use Place::{Address, Bits, OneLess, Part, Whole};
    use column::{TCP, TCP_PORT, UDP_PORT};
    const PORT: Type = Type::Number(u16::MAX);
    const BYTE: Type = Type::Number(u8::MAX as u16);
    const FLAG: Type = Type::Flag;
    &[
        field("ip.src", Type::Address, &[Address(Source)]),
        field("ip.dst", Type::Address, &[Address(Destination)]),
        field("ip.addr", Type::Address, &[Address(Source), Address(Destination)]),
        field("ip.version", Type::Number(15), &[Place::Version]),
        field("ip.proto", Type::Protocol, &[Whole(Protocol)]),
        field("ip.ttl", BYTE, &[Whole(Ttl)]),
        field("ip.len", PORT, &[Whole(Length)]),
        field("ip.tos", BYTE, &[Whole(TrafficClass)]),
        field("ip.dscp", Type::Number(63), &[Bits(TrafficClass, ANY, 0xfc)]),
        field("ip.ecn", Type::Number(3), &[Bits(TrafficClass, ANY, 0x03)]),
        field("ip.frag", FLAG, &[Bits(Flags, ANY, flags::FRAGMENT)]),
        field("ip.frag.later", FLAG, &[Bits(Flags, ANY, flags::LATER_FRAGMENT)]),
        field("ip.options", FLAG, &[Bits(Flags, ANY, flags::OPTIONS)]),
        field("icmp", FLAG, &[Place::Protocol(1)]),
        field("icmp.error", FLAG, &[Bits(Flags, ANY, flags::ICMP_ERROR)]),
        field("tcp", FLAG, &[Place::Protocol(6)]),
        field("udp", FLAG, &[Place::Protocol(17)]),
        field("gre", FLAG, &[Place::Protocol(47)]),
        field("esp", FLAG, &[Place::Protocol(50)]),
        field("icmpv6", FLAG, &[Place::Protocol(58)]),
        field("sctp", FLAG, &[Place::Protocol(132)]),
        field("tcp.srcport", PORT, &[Part(SourcePort, TCP_PORT)]),
        field("tcp.dstport", PORT, &[Part(DestinationPort, TCP_PORT)]),
        field("tcp.port", PORT, &[Part(SourcePort, TCP_PORT), Part(DestinationPort, TCP_PORT)]),
        field("udp.srcport", PORT, &[Part(SourcePort, UDP_PORT)]),
        field("udp.dstport", PORT, &[Part(DestinationPort, UDP_PORT)]),
        field("udp.port", PORT, &[Part(SourcePort, UDP_PORT), Part(DestinationPort, UDP_PORT)]),
        field("tcp.flags", BYTE, &[Part(TcpFlags, TCP)]),
        field("tcp.flags.fin", FLAG, &[Bits(TcpFlags, TCP, 0x01)]),
        field("tcp.flags.syn", FLAG, &[Bits(TcpFlags, TCP, 0x02)]),
        field("tcp.flags.rst", FLAG, &[Bits(TcpFlags, TCP, 0x04)]),
        field("tcp.flags.psh", FLAG, &[Bits(TcpFlags, TCP, 0x08)]),
        field("tcp.flags.ack", FLAG, &[Bits(TcpFlags, TCP, 0x10)]),
        field("tcp.flags.urg", FLAG, &[Bits(TcpFlags, TCP, 0x20)]),
        field("tcp.flags.ece", FLAG, &[Bits(TcpFlags, TCP, 0x40)]),
        field("tcp.flags.cwr", FLAG, &[Bits(TcpFlags, TCP, 0x80)]),
        field("sluice.direction", Type::Direction, &[Whole(Column::Direction)]),
        field("sluice.ingress", PORT, &[Whole(Ingress)]),
        field("sluice.egress", Type::Number(u16::MAX - 1), &[OneLess(Egress)]),
        field("sluice.vrf", PORT, &[Whole(Vrf)]),
        field("sluice.decapsulated", FLAG, &[Bits(Flags, ANY, flags::DECAPSULATED)]),
    ]
};

/// Protocols by name.
const PROTOCOLS: [(&str, u8); 7] =
    [("icmp", 1), ("tcp", 6), ("udp", 17), ("gre", 47), ("esp", 50), ("icmpv6", 58), ("sctp", 132)];

/// The number of a protocol's name.
pub(super) fn protocol(name: &str) -> Option<u8> {
    PROTOCOLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The number of a direction's name.
pub(super) fn direction(name: &str) -> Option<u8> {
    match name {
        "transit" => Some(direction::TRANSIT),
        "outbound" => Some(direction::OUTBOUND),
        "inbound" => Some(direction::INBOUND),
        _ => None,
    }
}

/// The values that a field is to have: addresses by family, or numbers.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    pub(super) v4: Ranges,
    pub(super) v6: Ranges,
    pub(super) numbers: Ranges,
}

fn has(ranges: &Ranges, number: u8) -> bool {
    ranges.as_slice().iter().any(|(first, last)| (*first..=*last).contains(&number.into()))
}

impl Place {
    fn test(self, wanted: &Wanted) -> Condition {
        let bytes = |is_wanted: &dyn Fn(u8) -> bool| {
            let bytes = (0..=u8::MAX).filter(|byte| is_wanted(*byte));
            Ranges::new(bytes.map(|byte| (byte.into(), byte.into())))
        };
        let (column, parts) = match self {
            Self::Address(column) => {
                (column, vec![(column::V4, wanted.v4.clone()), (column::V6, wanted.v6.clone())])
            }
            Self::Whole(column) => (column, vec![(0, wanted.numbers.clone())]),
            Self::Part(column, part) => (column, vec![(part, wanted.numbers.clone())]),
            Self::Bits(column, part, mask) => {
                let is_wanted =
                    |byte: u8| has(&wanted.numbers, (byte & mask) >> mask.trailing_zeros());
                (column, vec![(part, bytes(&is_wanted))])
            }
            Self::OneLess(column) => {
                let numbers = wanted.numbers.as_slice().iter();
                (column, vec![(0, Ranges::new(numbers.map(|(first, last)| (first + 1, last + 1))))])
            }
            Self::Protocol(number) => {
                let is_wanted = |byte: u8| has(&wanted.numbers, u8::from(byte == number));
                (Column::Protocol, vec![(0, bytes(&is_wanted))])
            }
            Self::Version => {
                let is_wanted =
                    |byte: u8| has(&wanted.numbers, if byte & flags::IPV6 == 0 { 4 } else { 6 });
                (Column::Flags, vec![(0, bytes(&is_wanted))])
            }
        };
        Condition::Test(column, Values::new(column, parts))
    }
}

impl Field {
    /// The field of a name.
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| field.name == name)
    }

    /// The field whose name is nearest to one that is none, if it is near enough for a slip.
    pub(super) fn near(name: &str) -> Option<&'static str> {
        let near = FIELDS.iter().map(|field| (distance(name, field.name), field.name)).min()?;
        (near.0 <= 2 && near.0 < name.len()).then_some(near.1)
    }

    /// The field has one of these values: of two ends, one.
    pub(super) fn is_any_of(&self, wanted: &Wanted) -> Condition {
        match self.places {
            [one] => one.test(wanted),
            places => Condition::Or(places.iter().map(|place| place.test(wanted)).collect()),
        }
    }

    /// The field is there and has one of these values: of two ends, both.
    pub(super) fn are_all_of(&self, wanted: &Wanted) -> Condition {
        Condition::And(self.places.iter().map(|place| place.test(wanted)).collect())
    }
}

/// Letters to add, to take or to change, to make one word of another (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut before = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = before + usize::from(x != y);
            before = row[j + 1];
            row[j + 1] = change.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
