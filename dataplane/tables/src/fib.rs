//! What the two forwarding tables share: the id they give and the errors of building one.

use ipnet::IpNet;

/// The next-hop group a route names: an index into the snapshot's list of groups.
///
/// A table holds ids and not adjacencies, so failing over to another next hop is one store in the
/// list and no change of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RouteId(pub u16);

impl RouteId {
    /// No route covers the address. A route cannot name it.
    pub const NONE: Self = Self(u16::MAX);

    /// The highest id that a route can name.
    pub const MAX: Self = Self(u16::MAX - 1);

    /// Whether no route covers the address.
    #[inline]
    #[must_use]
    pub const fn is_none(self) -> bool {
        self.0 == Self::NONE.0
    }

    /// The position in the list of next-hop groups; for [`RouteId::NONE`] one past the end of the
    /// longest list.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A miss.
impl Default for RouteId {
    fn default() -> Self {
        Self::NONE
    }
}

/// Why a forwarding table could not be built. The table in force stays as it was.
#[derive(Debug, thiserror::Error)]
pub enum FibError {
    /// A route names [`RouteId::NONE`], which means a miss.
    #[error("route {prefix} names next-hop group {}; the highest is {}", RouteId::NONE.0, RouteId::MAX.0)]
    RouteIdOutOfRange {
        /// The route's prefix.
        prefix: IpNet,
    },
    /// More blocks of 256 IPv4 addresses hold routes longer than /24 than the 16-bit codes of the
    /// table can name beside the next-hop groups.
    #[error(
        "{needed} /24 blocks hold routes longer than /24, but with next-hop groups up to \
         {highest} in use the table has room for {available}"
    )]
    TooManyGroups {
        /// /24 blocks that hold longer routes.
        needed: usize,
        /// What is left of the codes, see [`Fib4::groups_max`](crate::Fib4::groups_max).
        available: usize,
        /// The highest next-hop group that a route names.
        highest: u16,
    },
    /// More routes than the table's indices hold.
    #[error("more than {max} IPv6 routes")]
    TooManyRoutes {
        /// The limit, [`Fib6::ROUTES_MAX`](crate::Fib6::ROUTES_MAX).
        max: usize,
    },
    /// The kernel refused the address space.
    #[error("cannot map {bytes} bytes for the IPv4 table: {source}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        source: std::io::Error,
    },
}
