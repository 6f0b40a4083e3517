//! The IPv4 forwarding table: DIR-24-8 with 16-bit entries, changed in place.
//!
//! ```text
//!   destination      aaaaaaaa bbbbbbbb cccccccc dddddddd
//!
//!   first [a b c]    0                  miss
//!   (32 MiB)         1 ..= 65,279       RouteId + 1
//!                    65,280 ..= 65,535  group n of the /16 a.b: a /24 that holds longer prefixes
//!                          | n
//!   bases [a b] ---------> + ---> slot
//!   (256 KiB)                       |
//!   second [slot || d]            0, or RouteId + 1
//!   (512 bytes a slot)
//! ```
//!
//! A /16 holds 256 blocks of /24, so 256 codes name a group within its /16 whatever the number of
//! groups in all, and entries stay at 16 bits: half the cache lines of 32-bit ones. Where the groups of
//! a /16 begin does not depend on the entry, so that both are loaded at once. (P. Gupta, S. Lin, N.
//! McKeown, "Routing Lookups in Hardware at Memory Access Speeds", INFOCOM 1998, but for `bases`.)
//!
//! Limits: next-hop groups up to [`RouteId::MAX`]; [`Fib4::SLOTS`] slots. The groups of a /16 take a
//! power of two of slots, side by side: wherever they are, half as many groups as slots fit a table that
//! is built at once. One that grows route by route holds two chunks of a /16 while the larger one takes
//! over; a table that is refused for it may still be built anew.
//!
//! Invariants: a group's entries are never groups. Whoever reads an entry finds what it names:
//! a group is filled before an entry names it, a slot is used again only when every worker has been
//! between two turns since ([`Publisher`](crate::Publisher)). Memory that was never written is a miss.
//!
//! Memory: 32 MiB, of which a block of 2 MiB is real only where routes touch it, and 512 bytes for
//! each slot; [`Fib4::bytes`] says how much. The writer keeps half as much again for itself.

mod slots;
mod writer;

use std::fmt;

use ipnet::Ipv4Net;

use crate::hardware::{Memory, prefetch};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use crate::{FibError, RouteId};

pub use writer::Fib4Writer;

/// How an address divides into positions.
#[cfg(not(loom))]
mod shape {
    /// First bits of an address, by which the first level is indexed.
    pub(super) const FIRST_BITS: u32 = 24;
    /// The bits that follow them, by which a group is indexed.
    pub(super) const SECOND_BITS: u32 = 8;
    /// First bits of an address that the groups of one region share.
    pub(super) const REGION_BITS: u32 = 16;
    /// Slots of the second level.
    pub(super) const SLOTS: usize = 1 << 19;
}

/// A table so small that all interleavings of a change and a look-up can be run.
#[cfg(loom)]
mod shape {
    pub(super) const FIRST_BITS: u32 = 2;
    pub(super) const SECOND_BITS: u32 = 1;
    pub(super) const REGION_BITS: u32 = 1;
    pub(super) const SLOTS: usize = 4;
}

use shape::{FIRST_BITS, REGION_BITS, SECOND_BITS, SLOTS};

/// Entries of the first level.
const FIRST: usize = 1 << FIRST_BITS;
/// Entries of a group.
const GROUP: usize = 1 << SECOND_BITS;
/// Groups that a region can have.
const REGION_GROUPS: usize = 1 << (FIRST_BITS - REGION_BITS);

/// What an entry holds when no route covers it.
const MISS: u16 = 0;
/// The first code of a group.
const FIRST_GROUP: u16 = RouteId::MAX.0 + 2;

const _: () = assert!(u16::MAX as usize - FIRST_GROUP as usize + 1 >= REGION_GROUPS);

/// Addresses whose first level is read before the second level of any.
const STAGE: usize = 64;

/// An IPv4 longest-prefix-match table, which [`Fib4Writer`] changes while others read. See the module's
/// head for its shape.
///
/// Addresses are `u32` in host order: 192.0.2.1 is `0xc000_0201`.
pub struct Fib4 {
    first: Memory<AtomicU16, FIRST>,
    bases: Memory<AtomicU32, { 1 << REGION_BITS }>,
    second: Memory<AtomicU16, { SLOTS * GROUP }>,
    /// /24 blocks that hold longer prefixes, and slots that regions have; for status output alone.
    groups: AtomicU64,
    slots: AtomicU64,
}

impl Fib4 {
    /// Slots of the second level: eight times what a full Internet table with 65,536 scattered host
    /// routes needs. Each is 512 bytes of address space, and of memory once it is used.
    pub const SLOTS: usize = SLOTS;

    /// Builds a table that is not changed any more. Of two routes for the same prefix the later counts;
    /// bits of an address beyond its prefix length are ignored.
    ///
    /// # Errors
    /// As [`Fib4Writer::build`].
    pub fn build(routes: impl IntoIterator<Item = (Ipv4Net, RouteId)>) -> Result<Self, FibError> {
        Ok(Fib4Writer::build(routes)?.into_table())
    }

    fn empty() -> Result<Self, FibError> {
        Ok(Self {
            first: Memory::new()?,
            bases: Memory::new()?,
            second: Memory::new()?,
            groups: AtomicU64::new(0),
            slots: AtomicU64::new(0),
        })
    }

    /// The group of the longest prefix that holds `destination`. For the control plane; packets take
    /// [`Fib4::lookup_batch`].
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: u32) -> RouteId {
        // Acquire, here and below: what an entry names was written before the entry.
        let code = self.first.cells()[first_index(destination)].load(Ordering::Acquire);
        if code < FIRST_GROUP { decode(code) } else { self.lookup_second(code, destination) }
    }

    /// The second half of a look-up, for an entry that is the code of a group.
    #[inline(always)]
    fn lookup_second(&self, code: u16, destination: u32) -> RouteId {
        // After the entry: the slots of a region are full before one of their groups is named.
        let base = self.bases.cells()[region_index(destination)].load(Ordering::Acquire);
        let slot = base as usize + usize::from(code - FIRST_GROUP);
        let entry = &self.second.cells()[second_index(slot, destination) & (SLOTS * GROUP - 1)];
        decode(entry.load(Ordering::Acquire))
    }

    /// Brings near what [`Fib4::lookup_batch`] reads first for `destination`. For a caller that has
    /// other work before it asks, such as parsing the rest of the batch: the miss then passes while
    /// it works.
    #[inline]
    pub fn prefetch(&self, destination: u32) {
        prefetch(&self.first.cells()[first_index(destination)]);
    }

    /// Looks up all `destinations` and writes the answers to `results`.
    ///
    /// The look-ups do not depend on each other, so the processor waits for the misses of many of
    /// them together. Those that need the second level are listed without a branch and follow after
    /// the first level of the others: which they are cannot be predicted, and a wrong guess costs
    /// more than a look-up.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn lookup_batch(&self, destinations: &[u32], results: &mut [RouteId]) {
        assert_eq!(destinations.len(), results.len(), "one result for each destination");
        let first = self.first.cells();
        for (destinations, results) in destinations.chunks(STAGE).zip(results.chunks_mut(STAGE)) {
            let mut deep = [0_u8; STAGE];
            let mut deep_len = 0;
            for ((&destination, result), position) in
                destinations.iter().zip(results.iter_mut()).zip(0_u8..)
            {
                let code = first[first_index(destination)].load(Ordering::Acquire);
                *result = decode(code);
                deep[deep_len & (STAGE - 1)] = position;
                deep_len += usize::from(code >= FIRST_GROUP);
            }
            for &position in &deep[..deep_len] {
                let (destination, result) =
                    (destinations[usize::from(position)], &mut results[usize::from(position)]);
                *result = self.lookup_second(result.0.wrapping_add(1), destination);
            }
        }
    }

    /// /24 blocks that hold routes longer than /24.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed) as usize
    }

    /// Bytes of the first level and of the slots that are taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let slots = self.slots.load(Ordering::Relaxed) as usize;
        (FIRST + slots * GROUP) * size_of::<u16>() + (size_of::<u32>() << REGION_BITS)
    }
}

impl fmt::Debug for Fib4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fib4")
            .field("groups", &self.groups())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

#[inline(always)]
const fn first_index(destination: u32) -> usize {
    (destination >> (32 - FIRST_BITS)) as usize
}

#[inline(always)]
const fn region_index(destination: u32) -> usize {
    (destination >> (32 - REGION_BITS)) as usize
}

/// Position in a group.
#[inline(always)]
const fn within_group(destination: u32) -> usize {
    (destination >> (32 - FIRST_BITS - SECOND_BITS)) as usize & (GROUP - 1)
}

#[inline(always)]
const fn second_index(slot: usize, destination: u32) -> usize {
    slot << SECOND_BITS | within_group(destination)
}

/// An entry that is not a group, as the id it stands for: `MISS` becomes [`RouteId::NONE`].
#[inline(always)]
const fn decode(entry: u16) -> RouteId {
    RouteId(entry.wrapping_sub(1))
}
