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

    /// The highest id that a route can name, so 65,279 next-hop groups: the IPv4 table has 16-bit
    /// values, of which one is a miss and 256 are its own.
    pub const MAX: Self = Self(u16::MAX - 257);

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

/// Why a forwarding table could not be built or changed. What is in force stays in force.
#[derive(Debug, thiserror::Error)]
pub enum FibError {
    /// A route names an id above [`RouteId::MAX`].
    #[error("route {prefix} names next-hop group {}; the highest is {}", .id.0, RouteId::MAX.0)]
    RouteIdOutOfRange {
        /// The route's prefix.
        prefix: IpNet,
        /// What it names.
        id: RouteId,
    },
    /// The prefix that was said to be around another is not shorter.
    #[error("a prefix of length {length} is not around {prefix}")]
    ParentNotShorter {
        /// The inner prefix.
        prefix: IpNet,
        /// Length of the other one.
        length: u8,
    },
    /// The IPv4 table has no room for another block.
    #[error(
        "the IPv4 table has no room for {needed} bytes more: blocks have {taken} bytes of {max}"
    )]
    Fib4Full {
        /// Bytes of the block.
        needed: usize,
        /// Bytes that blocks have, in pieces of other sizes between which there may be room.
        taken: usize,
        /// Bytes in all, [`Fib4::BLOCK_BYTES_MAX`](crate::Fib4::BLOCK_BYTES_MAX).
        max: usize,
    },
    /// More routes than the table's indices hold.
    #[error("more than {max} IPv6 routes")]
    TooManyRoutes {
        /// The limit, [`Fib6::ROUTES_MAX`](crate::Fib6::ROUTES_MAX).
        max: usize,
    },
    /// A change of an IPv6 prefix that is shorter than /64 cannot be patched.
    #[error("{prefix} is shorter than /64: the IPv6 table has to be built anew")]
    PatchTooShort {
        /// The prefix.
        prefix: IpNet,
    },
    /// More changes since the IPv6 table was built than it is worth to keep beside it.
    #[error("more than {max} changes of an IPv6 table: it has to be built anew")]
    TooManyPatches {
        /// The limit, [`Fib6::PATCHES_MAX`](crate::Fib6::PATCHES_MAX).
        max: usize,
    },
    /// The kernel refused the address space.
    #[error("cannot map {bytes} bytes for the IPv4 table: {error}")]
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// The kernel's answer.
        error: std::io::Error,
    },
}
