//! The IPv4 forwarding table: runs of equal answers in two levels, changed in place.
//!
//! ```text
//!   destination      aaaaaaaa bbbbbbbb cc | cccccc | dd | dddddd
//!                     18 bits               place    quarter  place
//!
//!   index [18 bits]   an entry: a route, or where a block is
//!   (1 MiB)              |
//!                        v  the answers of 64 places
//!   block   [.. entries of groups][bitmap][values]
//!                    ^               |       n-th: a route, or a group
//!                    |               +- n = places up to this one that differ from the one before
//!                    +- group g: four entries, one for each 64 of its 256 addresses
//!                          +-> a route, or where a block is, whose places are single addresses
//! ```
//!
//! A block stores each run of equal answers once, so that a full Internet table of a million routes
//! takes 2.6 MiB and the caches near the core hold most of what packets ask for. What is written out for
//! every /24 (DIR-24-8 of P. Gupta, S. Lin, N. McKeown, "Routing Lookups in Hardware at Memory Access
//! Speeds", INFOCOM 1998) takes 52 MB and twice the time, all of it spent waiting for the last cache
//! level. (The bitmap is that of M. Degermark, A. Brodnik, S. Carlsson, S. Pink, "Small Forwarding Tables
//! for Fast Routing Lookups", SIGCOMM 1997.)
//!
//! Limits: next-hop groups up to [`RouteId::MAX`]; [`Fib4::BLOCK_BYTES_MAX`] of blocks, which is 50 times
//! what a full Internet table takes, and 2 million host routes of which no two share a /24.
//!
//! Invariants: a block's bitmap and the places of its groups never change: another one takes over by one
//! store of the entry. Whoever reads an entry finds what it names: a block is filled before an entry names
//! it, its words are used again only when every worker has been between two turns since
//! ([`Publisher`](crate::Publisher)). All sets of instructions give the same answers.
//!
//! Memory: [`Fib4::bytes`]. The writer keeps 16 MiB for itself, and 256 bytes for each /24 that holds
//! longer prefixes.

mod batch;
mod block;
mod room;
mod writer;

use std::fmt;
use std::hint::select_unpredictable;

use ipnet::Ipv4Net;

use crate::hardware::{Instructions, Memory, Parts, prefetch, run};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::{FibError, RouteId};

use batch::LookUp;
pub use writer::Fib4Writer;

/// How an address divides into positions.
#[cfg(not(any(miri, loom)))]
pub(crate) mod shape {
    /// First bits of an address, by which the index is read.
    pub(crate) const INDEX_BITS: u32 = 18;
    /// The bits that follow them: the place in a block.
    pub(crate) const PLACE_BITS: u32 = 6;
    /// The bits that follow those: the quarter of a group.
    pub(crate) const QUARTER_BITS: u32 = 2;
    /// The last bits: the place in a block of a group.
    pub(crate) const INNER_BITS: u32 = 6;
    /// Binary logarithm of the words that blocks share.
    pub(crate) const WORD_BITS: u32 = 24;
}

/// A table small enough for miri, which keeps many bytes for each; with blocks and groups of full size.
#[cfg(all(miri, not(loom)))]
pub(crate) mod shape {
    pub(crate) const INDEX_BITS: u32 = 4;
    pub(crate) const PLACE_BITS: u32 = 6;
    pub(crate) const QUARTER_BITS: u32 = 2;
    pub(crate) const INNER_BITS: u32 = 6;
    pub(crate) const WORD_BITS: u32 = 11;
}

/// A table so small that all interleavings of a change and a look-up can be run.
#[cfg(loom)]
pub(crate) mod shape {
    pub(crate) const INDEX_BITS: u32 = 1;
    pub(crate) const PLACE_BITS: u32 = 1;
    pub(crate) const QUARTER_BITS: u32 = 0;
    pub(crate) const INNER_BITS: u32 = 1;
    pub(crate) const WORD_BITS: u32 = 5;
}

use shape::{INDEX_BITS, INNER_BITS, PLACE_BITS, QUARTER_BITS, WORD_BITS};

/// Entries of the index.
pub(crate) const INDEX: usize = 1 << INDEX_BITS;
/// Words that blocks share.
pub(crate) const WORDS: usize = 1 << WORD_BITS;
/// Places of a block.
const PLACES: usize = 1 << PLACE_BITS;
/// Entries of a group.
const QUARTERS: usize = 1 << QUARTER_BITS;
/// Words that hold them, two to a word.
pub(crate) const GROUP_WORDS: usize = QUARTERS.div_ceil(2);
/// Places of a block of a group.
const INNER_PLACES: usize = 1 << INNER_BITS;
/// Addresses of a group.
const GROUP: usize = QUARTERS * INNER_PLACES;

/// Values of a word.
pub(crate) const VALUES_OF_WORD: usize = 4;

/// In an entry: the rest says where a block is. Without it, it is a code.
pub(crate) const BLOCK: u32 = 1 << 31;

/// What a code is when no route covers the address; else it is a route's id and one.
const MISS: u16 = 0;
/// The first code of a group, which only values of blocks have.
pub(crate) const FIRST_GROUP: u16 = RouteId::MAX.0 + 2;

const _: () = assert!(u16::MAX as usize - FIRST_GROUP as usize + 1 >= PLACES);
const _: () = assert!(WORD_BITS < 31 && INNER_PLACES <= 64 && PLACES <= 64);

/// Addresses whose index is read before the blocks of any.
pub(crate) const STAGE: usize = 64;

/// An IPv4 longest-prefix-match table, which [`Fib4Writer`] changes while others read. See the module's
/// head for its shape.
///
/// Addresses are `u32` in host order: 192.0.2.1 is `0xc000_0201`.
pub struct Fib4 {
    index: Memory<AtomicU32, INDEX>,
    words: Memory<AtomicU64, WORDS>,
    instructions: Instructions,
    /// /24 blocks that hold longer prefixes, and words that blocks have; for status output alone.
    groups: AtomicU64,
    words_taken: AtomicU64,
}

impl Fib4 {
    /// Bytes that blocks have at most, of address space at first, and of memory once they are used.
    pub const BLOCK_BYTES_MAX: usize = WORDS * size_of::<u64>();

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
            index: Memory::new()?,
            words: Memory::new()?,
            instructions: Instructions::best(),
            groups: AtomicU64::new(0),
            words_taken: AtomicU64::new(0),
        })
    }

    /// The group of the longest prefix that holds `destination`. For the control plane; packets take
    /// [`Fib4::lookup_batch`].
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: u32) -> RouteId {
        let cells = self.cells();
        let entry = cells.entry(destination);
        let code = cells.code(entry, place(destination));
        if code < FIRST_GROUP {
            return decode(code);
        }
        let inner = cells.inner_entry(block_at(entry), code, destination);
        decode(cells.code(inner, inner_place(destination)))
    }

    /// Brings near what [`Fib4::lookup_batch`] reads first for `destination`. For a caller that has
    /// other work before it asks, such as parsing the rest of the batch: the miss then passes while
    /// it works.
    #[inline]
    pub fn prefetch(&self, destination: u32) {
        prefetch(&self.index.cells()[index_of(destination)]);
    }

    /// Looks up all `destinations` and writes the answers to `results`.
    ///
    /// The look-ups do not depend on each other, so the processor waits for the misses of many of
    /// them together. Those in groups follow after the others: which they are cannot be predicted, and a
    /// wrong guess costs more than a look-up.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn lookup_batch(&self, destinations: &[u32], results: &mut [RouteId]) {
        self.lookup_batch_by(self.instructions, destinations, results);
    }

    /// The same by other instructions than the processor's best.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn lookup_batch_by(
        &self,
        instructions: Instructions,
        destinations: &[u32],
        results: &mut [RouteId],
    ) {
        assert_eq!(destinations.len(), results.len(), "one result for each destination");
        run(instructions, LookUp { fib: self, destinations, results });
    }

    /// /24 blocks that hold routes longer than /24.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.groups.load(Ordering::Relaxed) as usize
    }

    /// Bytes that look-ups read: of the index and of the blocks, those that were taken out and may still
    /// be read among them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words = self.words_taken.load(Ordering::Relaxed) as usize;
        INDEX * size_of::<u32>() + words * size_of::<u64>()
    }

    /// Tells of ranges of addresses, from the lowest to the highest, what look-ups give for all of a range: the
    /// last address of each and the answer. Neighbours may have the same answer.
    pub(crate) fn each_range(&self, mut tell: impl FnMut(u32, RouteId)) {
        const WHOLE: u32 = u32::MAX >> INDEX_BITS;
        const OF_PLACE: u32 = WHOLE >> PLACE_BITS;
        const OF_QUARTER: u32 = OF_PLACE >> QUARTER_BITS;
        const OF_INNER_PLACE: u32 = OF_QUARTER >> INNER_BITS;
        let cells = self.cells();
        let (mut first, mut is_end) = (0_u32, false);
        while !is_end {
            // The largest range from `first` on that one entry or one place of a block speaks of.
            let entry = cells.entry(first);
            let (code, size) = if entry & BLOCK == 0 {
                (entry as u16, WHOLE)
            } else {
                let code = cells.value(block_at(entry), place(first));
                if code < FIRST_GROUP {
                    (code, OF_PLACE)
                } else {
                    let inner = cells.inner_entry(block_at(entry), code, first);
                    let size = if inner & BLOCK == 0 { OF_QUARTER } else { OF_INNER_PLACE };
                    (cells.code(inner, inner_place(first)), size)
                }
            };
            let last = first | size;
            tell(last, decode(code));
            (first, is_end) = last.overflowing_add(1);
        }
    }

    #[inline(always)]
    fn cells(&self) -> Cells<'_> {
        Cells { index: self.index.cells(), words: self.words.cells() }
    }
}

/// What look-ups read.
#[derive(Clone, Copy)]
struct Cells<'a> {
    index: &'a [AtomicU32; INDEX],
    words: &'a [AtomicU64; WORDS],
}

impl Cells<'_> {
    #[inline(always)]
    fn entry(self, destination: u32) -> u32 {
        // Acquire: what an entry names was written before the entry.
        self.index[index_of(destination)].load(Ordering::Acquire)
    }

    /// The word at `position`, which is taken to be one of a block.
    #[inline(always)]
    fn word(self, position: usize) -> u64 {
        // Acquire, for the entries of groups; it costs nothing where loads are in order.
        self.words[position & (WORDS - 1)].load(Ordering::Acquire)
    }

    /// Brings near the block at `block`.
    #[inline(always)]
    fn prefetch_block(self, block: u32) {
        prefetch(&self.words[block as usize & (WORDS - 1)]);
    }

    /// What the block at `block` has for the n-th place.
    #[inline(always)]
    fn value(self, block: u32, place: u32) -> u16 {
        let at = block as usize;
        let rank = block::rank(self.word(at), place);
        Parts(self.words).sixteen_bits(VALUES_OF_WORD * (at + 1) + rank)
    }

    /// What `entry` says of the n-th place: without a branch, since neither answer is rare. A code is
    /// read from the block at 0, which is none, and then put in place of what was found there.
    #[inline(always)]
    fn code(self, entry: u32, place: u32) -> u16 {
        let value = self.value(block_at(entry), place);
        select_unpredictable(entry & BLOCK == 0, entry as u16, value)
    }

    /// The entry of a group, for its value `code` in the block at `block`.
    #[inline(always)]
    fn inner_entry(self, block: u32, code: u16, destination: u32) -> u32 {
        let group = usize::from(code.wrapping_sub(FIRST_GROUP));
        let first = (block as usize).wrapping_sub(GROUP_WORDS * (group + 1));
        Parts(self.words).half(first.wrapping_mul(2).wrapping_add(quarter(destination)))
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

/// Where the block of an entry is; 0 for a code.
#[inline(always)]
const fn block_at(entry: u32) -> u32 {
    let is_block = ((entry as i32) >> 31) as u32;
    entry & is_block & !BLOCK
}

#[inline(always)]
const fn index_of(destination: u32) -> usize {
    (destination >> (32 - INDEX_BITS)) as usize
}

/// The /24 block of an address.
#[inline(always)]
const fn block_of(destination: u32) -> usize {
    (destination >> (32 - INDEX_BITS - PLACE_BITS)) as usize
}

#[inline(always)]
const fn place(destination: u32) -> u32 {
    (destination >> (32 - INDEX_BITS - PLACE_BITS)) & (PLACES as u32 - 1)
}

#[inline(always)]
const fn quarter(destination: u32) -> usize {
    (destination >> (32 - INDEX_BITS - PLACE_BITS - QUARTER_BITS)) as usize & (QUARTERS - 1)
}

#[inline(always)]
const fn inner_place(destination: u32) -> u32 {
    (destination >> (32 - INDEX_BITS - PLACE_BITS - QUARTER_BITS - INNER_BITS))
        & (INNER_PLACES as u32 - 1)
}

/// A code that is not a group, as the id it stands for: `MISS` becomes [`RouteId::NONE`].
#[inline(always)]
const fn decode(code: u16) -> RouteId {
    RouteId(code.wrapping_sub(1))
}
