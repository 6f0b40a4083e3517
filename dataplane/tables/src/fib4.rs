//! The IPv4 forwarding table: DIR-24-8 with 16-bit entries.
//!
//! ```text
//!   destination      aaaaaaaa bbbbbbbb cccccccc | dddddddd
//!
//!   entry [0 || a b c]        0                  miss
//!   (2^24 entries, 32 MiB)    1 ..= highest + 1  RouteId + 1
//!                             first_group ..     a group g: one /24 block that holds longer routes
//!                                   |
//!   entry [1 || g || d]       0, or RouteId + 1
//!   (512 bytes a group)
//! ```
//!
//! Both levels are one array of 2^25 entries and a code is its own position in the second half, so a
//! look-up is a load, a comparison and, inside a group, a second load. (P. Gupta, S. Lin, N. McKeown,
//! "Routing Lookups in Hardware at Memory Access Speeds", INFOCOM 1998.)
//!
//! Invariants: a group's entries are never groups; entries outside the groups in use are never read;
//! memory that was never written is zero, which is a miss.
//!
//! Memory: 32 MiB, of which a block of 2 MiB is real only where routes touch it, and 512 bytes for
//! each group; 43 bytes a route for a full Internet table of 1.07 million routes. Building needs
//! 8 bytes a route beside it for a moment.
//!
//! Time, for that table on a 2.6 GHz Sapphire Rapids whose two cores were busy with other work, in
//! batches of 256 (10th percentile): 2.1 ns for 10,000 flows, 5 ns for addresses spread over all
//! routes, 6 ns for random ones; built in 50 to 100 ms, again in the same memory in 30 to 45 ms.
//!
//! Absent: changes in place. A rebuild into memory that is already faulted takes tens of
//! milliseconds and readers of the other table do not notice.

use std::fmt;
use std::hint::cold_path;

use ipnet::Ipv4Net;

use crate::huge_memory::HugeMemory;
use crate::prefetch::prefetch;
use crate::{FibError, RouteId};

/// Entries of the first level: one for each /24.
const FIRST_LEVEL: usize = 1 << 24;
/// Entries of one group: one for each address of a /24.
const GROUP: usize = 1 << 8;
/// Both levels: the second has room for a group at every 16-bit code.
const ENTRIES: usize = FIRST_LEVEL + Fib4::CODES * GROUP;

/// What an entry holds when no route covers it.
const MISS: u16 = 0;

/// An immutable IPv4 longest-prefix-match table. See the module's head for its shape.
///
/// Addresses are `u32` in host order: 192.0.2.1 is `0xc000_0201`.
pub struct Fib4 {
    memory: HugeMemory<ENTRIES>,
    /// The first code that names a group; above every route's code. It exceeds 16 bits when the
    /// highest id leaves room for none.
    first_group: u32,
    groups: usize,
    routes: usize,
}

impl Fib4 {
    /// Values of an entry: one for a miss, one for each next-hop group up to the highest in use, and
    /// one for each /24 block that holds longer routes.
    pub const CODES: usize = 1 << 16;

    /// How many /24 blocks may hold routes longer than /24 when `highest` is the highest next-hop
    /// group that a route names: 65,535 less the ids up to and with `highest`, so 32,768 for
    /// ids up to 32,766 and none for [`RouteId::MAX`].
    #[must_use]
    pub const fn groups_max(highest: RouteId) -> usize {
        (Self::CODES - 1).saturating_sub(highest.0 as usize + 1)
    }

    /// Builds a table. Of two routes for the same prefix the later counts; bits of an address beyond
    /// its prefix length are ignored.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`], [`FibError::TooManyGroups`] or [`FibError::Memory`].
    pub fn build(routes: impl IntoIterator<Item = (Ipv4Net, RouteId)>) -> Result<Self, FibError> {
        let routes = Routes::collect(routes)?;
        let mut fib =
            Self { memory: HugeMemory::new()?, first_group: 1, groups: 0, routes: routes.count() };
        fib.fill(&routes);
        Ok(fib)
    }

    /// Replaces the table's contents by `routes`, in memory that is already faulted: a fresh table
    /// spends most of its time on page faults. A publisher keeps two tables and rebuilds the one
    /// that no worker reads any more.
    ///
    /// # Errors
    /// As [`Fib4::build`]; the contents are then unchanged.
    pub fn rebuild_into(
        &mut self,
        routes: impl IntoIterator<Item = (Ipv4Net, RouteId)>,
    ) -> Result<(), FibError> {
        let routes = Routes::collect(routes)?;
        // A default route overwrites the whole level anyway.
        if routes.by_length[0].is_empty() {
            self.memory.entries_mut()[..FIRST_LEVEL].fill(MISS);
        }
        self.routes = routes.count();
        self.fill(&routes);
        Ok(())
    }

    /// Writes `routes` from the shortest to the longest, so that each overwrites what it refines.
    fn fill(&mut self, routes: &Routes) {
        self.first_group = routes.highest.map_or(1, |id| u32::from(id) + 2);
        let entries = self.memory.entries_mut();
        for (length, routes) in routes.by_length[..=24].iter().enumerate() {
            let blocks = 1 << (24 - length);
            for &(address, id) in routes {
                let first = first_index(address);
                entries[first..first + blocks].fill(id + 1);
            }
        }
        let mut next_group = self.first_group;
        for (length, routes) in routes.by_length.iter().enumerate().skip(25) {
            let addresses = 1 << (32 - length);
            for &(address, id) in routes {
                let mut code = entries[first_index(address)];
                if u32::from(code) < self.first_group {
                    let group = u16::try_from(next_group).expect("groups were counted");
                    next_group += 1;
                    entries[second_index(group, 0)..][..GROUP].fill(code);
                    entries[first_index(address)] = group;
                    code = group;
                }
                let first = second_index(code, address);
                entries[first..first + addresses].fill(id + 1);
            }
        }
        self.groups = (next_group - self.first_group) as usize;
    }

    /// The group of the longest prefix that holds `destination`. For the control plane; packets take
    /// [`Fib4::lookup_batch`].
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: u32) -> RouteId {
        find(self.memory.entries(), self.first_group, destination)
    }

    /// Brings near what [`Fib4::lookup_batch`] reads first for `destination`. For a caller that has
    /// other work before it asks, such as parsing the rest of the batch: the miss then passes while
    /// it works.
    #[inline]
    pub fn prefetch(&self, destination: u32) {
        prefetch(&self.memory.entries()[first_index(destination)]);
    }

    /// Looks up all `destinations` and writes the answers to `results`.
    ///
    /// The look-ups do not depend on each other, so the processor waits for the misses of many of
    /// them together. A pass of prefetches within this call was no faster. Choosing the second level's
    /// entry without a branch makes its load wait for the first one, where a predicted branch does
    /// not: that gained 1.5 ns for addresses spread evenly over all routes, whose branches are the
    /// hardest to predict, and lost as much elsewhere.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn lookup_batch(&self, destinations: &[u32], results: &mut [RouteId]) {
        assert_eq!(destinations.len(), results.len(), "one result for each destination");
        let entries = self.memory.entries();
        for (&destination, result) in destinations.iter().zip(results) {
            *result = find(entries, self.first_group, destination);
        }
    }

    /// Routes the table was built from.
    #[must_use]
    pub const fn routes(&self) -> usize {
        self.routes
    }

    /// /24 blocks that hold routes longer than /24.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.groups
    }

    /// Bytes of the first level and of the groups in use.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        (FIRST_LEVEL + self.groups * GROUP) * size_of::<u16>()
    }
}

impl fmt::Debug for Fib4 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fib4")
            .field("routes", &self.routes)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

#[inline(always)]
const fn first_index(destination: u32) -> usize {
    (destination >> 8) as usize
}

#[inline(always)]
const fn second_index(code: u16, destination: u32) -> usize {
    FIRST_LEVEL | (code as usize) << 8 | (destination & 0xff) as usize
}

#[inline(always)]
fn find(entries: &[u16; ENTRIES], first_group: u32, destination: u32) -> RouteId {
    let code = entries[first_index(destination)];
    if u32::from(code) < first_group {
        return decode(code);
    }
    cold_path();
    decode(entries[second_index(code, destination)])
}

/// An entry that is not a group, as the id it stands for: `MISS` becomes [`RouteId::NONE`].
#[inline(always)]
const fn decode(entry: u16) -> RouteId {
    RouteId(entry.wrapping_sub(1))
}

/// Checked input of a build.
struct Routes {
    /// Addresses and ids by prefix length, in the order given.
    by_length: [Vec<(u32, u16)>; 33],
    /// The highest id, if there is a route.
    highest: Option<u16>,
}

impl Routes {
    fn collect(routes: impl IntoIterator<Item = (Ipv4Net, RouteId)>) -> Result<Self, FibError> {
        let mut by_length = [const { Vec::new() }; 33];
        let mut highest = None;
        for (prefix, id) in routes {
            if id.is_none() {
                return Err(FibError::RouteIdOutOfRange { prefix: prefix.into() });
            }
            highest = highest.max(Some(id.0));
            by_length[usize::from(prefix.prefix_len())].push((prefix.network().to_bits(), id.0));
        }
        let mut blocks: Vec<u32> =
            by_length[25..].iter().flatten().map(|&(address, _)| address >> 8).collect();
        blocks.sort_unstable();
        blocks.dedup();
        if let Some(highest) = highest {
            let (needed, available) = (blocks.len(), Fib4::groups_max(RouteId(highest)));
            if needed > available {
                return Err(FibError::TooManyGroups { needed, available, highest });
            }
        }
        Ok(Self { by_length, highest })
    }

    fn count(&self) -> usize {
        self.by_length.iter().map(Vec::len).sum()
    }
}
