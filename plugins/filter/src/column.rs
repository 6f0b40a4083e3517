//! [`Column`]: one field of the descriptor as rules see it, and [`Values`], a set of its values.
//!
//! A column falls into *parts*, so that "not there" is a value like any other: the negation of a
//! test is the rest of its column, and a rule in any form is a list of columns' values.
//!
//! ```text
//!  Source, Destination      | IPv4 address | IPv6 address |
//!  SourcePort, Dest..Port   | no ports | TCP port | UDP port | other port |
//!  TcpFlags                 | no TCP header | the flags |
//!  all others               | the number |
//! ```

use std::rc::Rc;

use crate::ranges::Ranges;

/// What rules can ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Column {
    /// Source address.
    Source,
    /// Destination address.
    Destination,
    /// Source port, by transport.
    SourcePort,
    /// Destination port, by transport.
    DestinationPort,
    /// Protocol of the transport header.
    Protocol,
    /// TCP flags, where there is a TCP header.
    TcpFlags,
    /// The descriptor's flags.
    Flags,
    /// Inbound, outbound or transit.
    Direction,
    /// TTL or hop limit.
    Ttl,
    /// Type of service or traffic class.
    TrafficClass,
    /// Length of the IP packet.
    Length,
    /// Interface that received the packet.
    Ingress,
    /// Interface that it leaves by, plus 1, or 0.
    Egress,
    /// Routing instance.
    Vrf,
}

/// Part of an address column that holds IPv4.
pub const V4: usize = 0;
/// Part of an address column that holds IPv6.
pub const V6: usize = 1;
/// Part of a port column for packets without ports; its one value is 0.
pub const NO_PORT: usize = 0;
/// Part of a port column for TCP.
pub const TCP_PORT: usize = 1;
/// Part of a port column for UDP.
pub const UDP_PORT: usize = 2;
/// Part of a port column for every other transport.
pub const OTHER_PORT: usize = 3;
/// Part of the TCP flags for packets without a TCP header; its one value is 0.
pub const NO_TCP: usize = 0;
/// Part of the TCP flags for those with one.
pub const TCP: usize = 1;

impl Column {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Source,
        Self::Destination,
        Self::SourcePort,
        Self::DestinationPort,
        Self::Protocol,
        Self::TcpFlags,
        Self::Flags,
        Self::Direction,
        Self::Ttl,
        Self::TrafficClass,
        Self::Length,
        Self::Ingress,
        Self::Egress,
        Self::Vrf,
    ];

    /// The largest value of each part.
    #[must_use]
    pub const fn tops(self) -> &'static [u128] {
        const BYTE: u128 = u8::MAX as u128;
        const WORD: u128 = u16::MAX as u128;
        match self {
            Self::Source | Self::Destination => &[u32::MAX as u128, u128::MAX],
            Self::SourcePort | Self::DestinationPort => &[0, WORD, WORD, WORD],
            Self::TcpFlags => &[0, BYTE],
            Self::Protocol | Self::Flags | Self::Direction | Self::Ttl | Self::TrafficClass => {
                &[BYTE]
            }
            Self::Length | Self::Ingress | Self::Egress | Self::Vrf => &[WORD],
        }
    }
}

/// Some of the values of a column, by part. Copies share the ranges.
#[derive(Clone, Debug)]
pub struct Values(Rc<[Ranges]>);

impl Values {
    /// The values of some parts; the others have none.
    #[must_use]
    pub fn new(column: Column, parts: impl IntoIterator<Item = (usize, Ranges)>) -> Self {
        let mut all = vec![Ranges::default(); column.tops().len()];
        for (part, ranges) in parts {
            all[part] = ranges;
        }
        Self(all.into())
    }

    /// The ranges of each part.
    #[must_use]
    pub fn parts(&self) -> &[Ranges] {
        &self.0
    }

    /// Whether there is no value in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Ranges::is_empty)
    }

    /// Whether every value of the column is in it.
    #[must_use]
    pub fn is_all(&self, column: Column) -> bool {
        self.0.iter().zip(column.tops()).all(|(ranges, top)| ranges.is_all(*top))
    }

    /// The values of the column that are not in it.
    #[must_use]
    pub fn complement(&self, column: Column) -> Self {
        Self(
            self.0.iter().zip(column.tops()).map(|(ranges, top)| ranges.complement(*top)).collect(),
        )
    }

    /// The values of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(other.0.iter()).map(|(a, b)| a.union(b)).collect())
    }

    /// The values of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        if Rc::ptr_eq(&self.0, &other.0) {
            return self.clone();
        }
        Self(self.0.iter().zip(other.0.iter()).map(|(a, b)| a.intersection(b)).collect())
    }

    /// Number of ranges.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|ranges| ranges.as_slice().len()).sum()
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || self.0 == other.0
    }
}

impl Eq for Values {}
