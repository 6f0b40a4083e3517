//! Changing the IPv4 table in place.
//!
//! ```text
//!   insert 10.1.2.0/23 -> 7           depth of each /24: length of the prefix it stands for
//!     10.1.2.0/24  [16 -> 23]           not longer: overwritten
//!     10.1.3.0/24  [24]                 longer: stays
//!   remove 10.1.2.0/23, parent /16      depth 23: becomes the parent's, with depth 16
//! ```
//!
//! A block is written out, changed, and stored again: in place where the same runs have other answers, as
//! when a route leads elsewhere; else aside, and then taken over by one store of its entry. So each
//! look-up sees what was or what is to be: a prefix that is removed gives way to the one around it, never
//! to a miss. A change of a short prefix is many such stores; a reader sees some before and some after,
//! each look-up one or the other.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use rustc_hash::FxHashMap;

use super::block::{self, Quarters, Words};
use super::room::Room;
use super::shape::{INDEX_BITS, PLACE_BITS};
use super::{
    BLOCK, FIRST_GROUP, Fib4, GROUP, GROUP_WORDS, INDEX, INNER_PLACES, MISS, PLACES, QUARTERS,
    block_of,
};
use crate::grace::Retired;
use crate::hardware::Parts;
use crate::sync::Ordering;
use crate::{FibError, Publisher, RouteId};

/// The longest prefixes that cover whole /24 blocks.
const WHOLE_BITS: u32 = INDEX_BITS + PLACE_BITS;

/// /24 blocks in all.
const BLOCKS: usize = INDEX * PLACES;

/// Words that are kept for removals, which exchange blocks as insertions do: they shall succeed in a full
/// table.
const KEPT: usize = super::WORDS / 64;

/// What holds of every block that has `HAS_LONGER`.
const HAS_DEPTHS: &str = "the block has depths of its own";

/// In place of a depth: the block holds longer prefixes and has depths of its own.
const HAS_LONGER: u8 = u8::MAX;

/// The one writer of a [`Fib4`] that any number of workers read.
///
/// The caller has the routes: it says which one is around a prefix that it removes, and has every
/// worker see a next-hop group before a route names it (see [`Publisher::begin_grace`]).
pub struct Fib4Writer {
    table: Arc<Fib4>,
    /// By /24 block: length of the prefix it stands for, or `HAS_LONGER`.
    depths: Vec<u8>,
    /// The same by address, of the blocks that hold longer prefixes.
    longer: FxHashMap<usize, Box<[u8; GROUP]>>,
    room: Room,
    /// Words that may not be taken now.
    kept: usize,
    retired: Retired<Piece>,
    /// Of the change under way: pieces that an entry will name once it is stored, and those that it named.
    fresh: Vec<Piece>,
    replaced: Vec<Piece>,
    /// Kept for their memory.
    scratch: Words,
    places: Box<Places>,
}

/// Words that no entry names any more.
#[derive(Clone, Copy)]
struct Piece {
    first: u32,
    size: usize,
}

/// What an entry stands for: a code that is no group, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Answer {
    code: u16,
    depth: u8,
}

/// What an entry of the index names, written out.
struct Places {
    codes: [u16; PLACES],
    /// Where the code is a group's.
    quarters: [Quarters; PLACES],
}

impl Fib4Writer {
    /// A writer of an empty table.
    ///
    /// # Errors
    /// [`FibError::Memory`].
    pub fn new() -> Result<Self, FibError> {
        Ok(Self {
            table: Arc::new(Fib4::empty()?),
            depths: vec![0; BLOCKS],
            longer: FxHashMap::default(),
            room: Room::new(),
            kept: KEPT,
            retired: Retired::new(),
            fresh: Vec::new(),
            replaced: Vec::new(),
            scratch: Words::default(),
            places: Box::new(Places::of(MISS)),
        })
    }

    /// A writer of a table with `routes`. Of two routes for the same prefix the later counts; bits of an
    /// address beyond its prefix length are ignored.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`], [`FibError::Fib4Full`] or [`FibError::Memory`].
    pub fn build(routes: impl IntoIterator<Item = (Ipv4Net, RouteId)>) -> Result<Self, FibError> {
        let mut by_length = [const { Vec::new() }; 33];
        for (prefix, id) in routes {
            let code = encode(prefix, id)?;
            by_length[usize::from(prefix.prefix_len())].push((prefix, code));
        }
        let mut writer = Self::new()?;
        let mut codes = vec![MISS; BLOCKS];
        let mut longer: FxHashMap<usize, Box<[u16; GROUP]>> = FxHashMap::default();
        // From the shortest to the longest, so that each overwrites what it refines.
        for (prefix, code) in by_length.into_iter().flatten() {
            let length = prefix.prefix_len();
            if u32::from(length) <= WHOLE_BITS {
                codes[blocks_of(prefix)].fill(code);
                writer.depths[blocks_of(prefix)].fill(length);
                continue;
            }
            let block = block_of(prefix.network().to_bits());
            let around = writer.depths[block];
            writer.longer.entry(block).or_insert_with(|| Box::new([around; GROUP]))
                [addresses_of(prefix)]
            .fill(length);
            longer.entry(block).or_insert_with(|| Box::new([codes[block]; GROUP]))
                [addresses_of(prefix)]
            .fill(code);
        }
        for &block in longer.keys() {
            writer.depths[block] = HAS_LONGER;
        }
        for (index, codes) in codes.as_chunks::<PLACES>().0.iter().enumerate() {
            let first = index * PLACES;
            let has_longer = writer.depths[first..][..PLACES].contains(&HAS_LONGER);
            if !has_longer && codes.iter().all(|code| *code == codes[0]) {
                writer.table.index.cells()[index].store(u32::from(codes[0]), Ordering::Release);
                continue;
            }
            let mut places = Places { codes: *codes, ..Places::of(MISS) };
            for place in 0..PLACES {
                let Some(codes) = longer.get(&(first + place)) else { continue };
                let (mut quarters, nothing) = ([0; QUARTERS], [MISS; INNER_PLACES]);
                for (entry, codes) in quarters.iter_mut().zip(codes.as_chunks::<INNER_PLACES>().0) {
                    *entry = writer.store(0, &nothing, &mut { *codes }, &[])?;
                }
                places.set(place, quarters);
            }
            writer.publish(index, &[MISS; PLACES], &mut places)?;
        }
        writer.count();
        Ok(writer)
    }

    /// The table, to be read by others.
    #[must_use]
    pub fn table(&self) -> Arc<Fib4> {
        Arc::clone(&self.table)
    }

    /// The table alone, which is not changed any more.
    pub(super) fn into_table(self) -> Fib4 {
        Arc::into_inner(self.table).expect("nobody has been given the table")
    }

    /// Adds a route, or changes where the route for its prefix leads. Bits beyond the prefix length are
    /// ignored.
    ///
    /// Every worker has to see the next-hop group already.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`]; the table is then unchanged. [`FibError::Fib4Full`]: then some
    /// addresses of the prefix may lead to where it was to lead, and the call has to be repeated after
    /// [`Fib4Writer::reclaim`], or the table built anew.
    pub fn insert(&mut self, prefix: Ipv4Net, id: RouteId) -> Result<(), FibError> {
        let length = prefix.prefix_len();
        let answer = Answer { code: encode(prefix, id)?, depth: length };
        let not_longer = |depth| depth <= length;
        if u32::from(length) <= WHOLE_BITS {
            self.paint(prefix, not_longer, answer)?;
        } else {
            let block = block_of(prefix.network().to_bits());
            let around = self.depths[block];
            self.longer.entry(block).or_insert_with(|| Box::new([around; GROUP]));
            self.depths[block] = HAS_LONGER;
            self.paint(prefix, not_longer, answer)?;
        }
        self.count();
        Ok(())
    }

    /// Takes a route out. `parent` is the longest prefix around it that has a route in this table, by its length,
    /// and where that leads: of several routes that go, the shorter has to go first. Nothing happens if the table
    /// has no such route.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`] or [`FibError::ParentNotShorter`]; the table is then unchanged.
    /// [`FibError::Fib4Full`], as of [`Fib4Writer::insert`].
    pub fn remove(
        &mut self,
        prefix: Ipv4Net,
        parent: Option<(u8, RouteId)>,
    ) -> Result<(), FibError> {
        let length = prefix.prefix_len();
        let answer = match parent {
            None => Answer { code: MISS, depth: 0 },
            Some((depth, _)) if depth >= length => {
                return Err(FibError::ParentNotShorter { prefix: prefix.into(), length: depth });
            }
            Some((depth, id)) => Answer { code: encode(prefix, id)?, depth },
        };
        let block = block_of(prefix.network().to_bits());
        let is_longer = u32::from(length) > WHOLE_BITS;
        if is_longer && !self.longer.contains_key(&block) {
            return Ok(());
        }
        self.kept = 0;
        let painted = self.paint(prefix, |depth| depth == length, answer);
        self.kept = KEPT;
        painted?;
        if is_longer {
            let depths = &self.longer[&block];
            let around = depths[0];
            // All of it is the same prefix's, unless the caller was wrong about a parent: the block's other
            // addresses then have to be found by their own depths still.
            if u32::from(around) <= WHOLE_BITS && depths.iter().all(|&depth| depth == around) {
                self.depths[block] = around;
                self.longer.remove(&block);
            }
        }
        self.count();
        Ok(())
    }

    /// Makes what was taken out available again as far as every worker has been between two turns
    /// since. To be called now and then, as after each batch of changes; it never waits.
    ///
    /// It has to be the publisher of all snapshots that hold this table.
    pub fn reclaim(&mut self, publisher: &mut Publisher) {
        self.reclaim_with(publisher.grace());
    }

    pub(crate) fn reclaim_with(&mut self, grace: &mut crate::grace::GraceWriter) {
        let Self { retired, room, .. } = self;
        retired.collect(grace, |piece| room.give(piece.first, piece.size));
        self.count();
    }

    /// Blocks that were taken out and may still be read.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    /// Bytes that the writer keeps for itself.
    #[must_use]
    pub fn bytes(&self) -> usize {
        BLOCKS + self.longer.len() * (GROUP + size_of::<(usize, usize)>())
    }

    /// Has `answer` at all addresses of the prefix whose depth `matches`. Of a prefix longer than a
    /// block, the block has depths of its own.
    fn paint(
        &mut self,
        prefix: Ipv4Net,
        matches: impl Fn(u8) -> bool + Copy,
        answer: Answer,
    ) -> Result<(), FibError> {
        let mut places = std::mem::replace(&mut self.places, Box::new(Places::of(MISS)));
        let painted = self.paint_with(&mut places, prefix, matches, answer);
        self.places = places;
        if painted.is_err() {
            // No entry names what was stored last, and all that it was to replace is still named.
            for piece in self.fresh.drain(..) {
                self.room.give(piece.first, piece.size);
            }
            self.replaced.clear();
        }
        painted
    }

    fn paint_with(
        &mut self,
        places: &mut Places,
        prefix: Ipv4Net,
        matches: impl Fn(u8) -> bool + Copy,
        answer: Answer,
    ) -> Result<(), FibError> {
        let blocks = blocks_of(prefix);
        for index in blocks.start() / PLACES..=blocks.end() / PLACES {
            let first = index * PLACES;
            let (from, to) = (first.max(*blocks.start()), (first + PLACES - 1).min(*blocks.end()));
            if !self.depths[from..=to].iter().any(|&depth| depth == HAS_LONGER || matches(depth)) {
                continue;
            }
            self.write_out_places(self.table.index.cells()[index].load(Ordering::Relaxed), places);
            let old = places.codes;
            let mut differs = false;
            for block in from..=to {
                let place = block - first;
                if self.depths[block] == HAS_LONGER {
                    let mut quarters = places.get(place);
                    if self.paint_group(prefix, block, &mut quarters, matches, answer)? {
                        places.set(place, quarters);
                        differs = true;
                    }
                } else if matches(self.depths[block]) {
                    places.codes[place] = answer.code;
                    differs |= old[place] != answer.code;
                }
            }
            if differs {
                self.publish(index, &old, places)?;
            }
            self.deepen(prefix, from..=to, matches, answer.depth);
        }
        Ok(())
    }

    /// Notes the depth of what was painted in these blocks: afterwards, so that a change that did not find room
    /// can be repeated.
    fn deepen(
        &mut self,
        prefix: Ipv4Net,
        blocks: RangeInclusive<usize>,
        matches: impl Fn(u8) -> bool,
        depth: u8,
    ) {
        for block in blocks {
            let of_block = &mut self.depths[block];
            if *of_block == HAS_LONGER {
                let depths = self.longer.get_mut(&block).expect(HAS_DEPTHS);
                let inner = depths[addresses_of(prefix)].iter_mut();
                inner.filter(|inner| matches(**inner)).for_each(|inner| *inner = depth);
            } else if matches(*of_block) {
                *of_block = depth;
            }
        }
    }

    /// The same of a group, whose entries the caller stores; `prefix` is in the block or around it. True if
    /// an entry has become another.
    fn paint_group(
        &mut self,
        prefix: Ipv4Net,
        block: usize,
        quarters: &mut Quarters,
        matches: impl Fn(u8) -> bool,
        answer: Answer,
    ) -> Result<bool, FibError> {
        let mut differs = false;
        let range = addresses_of(prefix);
        let within = range.start() / INNER_PLACES..=range.end() / INNER_PLACES;
        for (quarter, entry) in quarters[within.clone()].iter_mut().enumerate() {
            let first = (within.start() + quarter) * INNER_PLACES;
            let mut old = [MISS; INNER_PLACES];
            self.write_out(*entry, &mut old);
            let mut new = old;
            let depths = self.longer.get(&block).expect(HAS_DEPTHS);
            let (from, to) =
                (first.max(*range.start()), (first + INNER_PLACES - 1).min(*range.end()));
            for address in from..=to {
                if matches(depths[address]) {
                    new[address - first] = answer.code;
                }
            }
            if new != old {
                let stored = self.store(*entry, &old, &mut new, &[])?;
                differs |= stored != *entry;
                *entry = stored;
            }
        }
        Ok(differs)
    }

    /// What an entry of the index names.
    fn write_out_places(&self, entry: u32, places: &mut Places) {
        self.write_out(entry, &mut places.codes);
        let at = (entry & !BLOCK) as usize;
        for place in 0..PLACES {
            let code = places.codes[place];
            if code >= FIRST_GROUP {
                let first = at - GROUP_WORDS * (usize::from(code - FIRST_GROUP) + 1);
                let words = Parts(self.table.words.cells());
                places.quarters[place] =
                    std::array::from_fn(|quarter| words.half(2 * first + quarter));
            }
        }
    }

    /// The codes of the places of an entry.
    fn write_out(&self, entry: u32, codes: &mut [u16]) {
        if entry & BLOCK == 0 {
            codes.fill(entry as u16);
        } else {
            let at = (entry & !BLOCK) as usize;
            block::decode(
                self.table.cells().word(at),
                |n| self.table.cells().word(at + 1 + n),
                codes,
            );
        }
    }

    /// Stores what has become of the places of an entry of the index, whose codes were `old`.
    fn publish(
        &mut self,
        index: usize,
        old: &[u16; PLACES],
        new: &mut Places,
    ) -> Result<(), FibError> {
        let entry = self.table.index.cells()[index].load(Ordering::Relaxed);
        let Places { codes, quarters } = new;
        let mut groups = 0;
        for (place, &code) in codes.iter().enumerate() {
            if code >= FIRST_GROUP {
                quarters[groups] = quarters[place];
                groups += 1;
            }
        }
        let stored = self.store(entry, old, codes, &quarters[..groups])?;
        if stored != entry {
            // Release: the block is before the entry that names it.
            self.table.index.cells()[index].store(stored, Ordering::Release);
        }
        self.fresh.clear();
        for piece in self.replaced.drain(..) {
            self.retired.push(piece);
        }
        Ok(())
    }

    /// The entry that names `new`, in place of `entry`, which has `old` and which the caller stores; it is
    /// the same one where the block could be changed in place.
    fn store(
        &mut self,
        entry: u32,
        old: &[u16],
        new: &mut [u16],
        quarters: &[Quarters],
    ) -> Result<u32, FibError> {
        let is_block = entry & BLOCK != 0;
        let at = (entry & !BLOCK) as usize;
        let cells = self.table.words.cells();
        let Some((words, bitmap_at)) = self.scratch.encode(new, quarters) else {
            if is_block {
                self.replaced.push(piece(at, cells[at].load(Ordering::Relaxed), old));
            }
            return Ok(u32::from(new[0]));
        };
        if is_block {
            let bitmap = cells[at].load(Ordering::Relaxed);
            let groups_stay = || {
                old.iter().zip(&*new).all(|(&old, &new)| old == new || old.max(new) < FIRST_GROUP)
            };
            if bitmap == words[bitmap_at] && groups_stay() {
                let first = at - bitmap_at;
                for (cell, &word) in cells[first..].iter().zip(words) {
                    if cell.load(Ordering::Relaxed) != word {
                        // Release: what a value or an entry of a group names is before it.
                        cell.store(word, Ordering::Release);
                    }
                }
                return Ok(entry);
            }
        }
        let (size, taken) = (words.len(), self.room.taken());
        let first = self.room.take(size, self.kept).ok_or(FibError::Fib4Full {
            needed: size * size_of::<u64>(),
            taken: taken * size_of::<u64>(),
            max: Fib4::BLOCK_BYTES_MAX,
        })?;
        for (cell, &word) in cells[first as usize..].iter().zip(words) {
            cell.store(word, Ordering::Relaxed);
        }
        if is_block {
            self.replaced.push(piece(at, cells[at].load(Ordering::Relaxed), old));
        }
        self.fresh.push(Piece { first, size });
        Ok(BLOCK | (first + bitmap_at as u32))
    }

    /// For status output.
    fn count(&self) {
        self.table.groups.store(self.longer.len() as u64, Ordering::Relaxed);
        self.table.words_taken.store(self.room.taken() as u64, Ordering::Relaxed);
    }
}

/// The words of the block whose bitmap is at `at`.
fn piece(at: usize, bitmap: u64, codes: &[u16]) -> Piece {
    let groups = codes.iter().filter(|code| **code >= FIRST_GROUP).count();
    let (size, before) = block::size(bitmap, groups);
    Piece { first: (at - before) as u32, size }
}

impl Places {
    /// All of them with this code, which is no group's.
    const fn of(code: u16) -> Self {
        Self { codes: [code; PLACES], quarters: [[0; QUARTERS]; PLACES] }
    }

    /// The entries of a place, as if it were a group.
    const fn get(&self, place: usize) -> Quarters {
        match self.codes[place] {
            FIRST_GROUP.. => self.quarters[place],
            code => [code as u32; QUARTERS],
        }
    }

    /// Puts a group at the place, if it is one: not when all its addresses have one code.
    fn set(&mut self, place: usize, quarters: Quarters) {
        let first = quarters[0];
        self.codes[place] = if first & BLOCK == 0 && quarters.iter().all(|&entry| entry == first) {
            first as u16
        } else {
            FIRST_GROUP
        };
        self.quarters[place] = quarters;
    }
}

impl fmt::Debug for Fib4Writer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fib4Writer")
            .field("table", &self.table)
            .field("retired", &self.retired())
            .finish_non_exhaustive()
    }
}

fn encode(prefix: Ipv4Net, id: RouteId) -> Result<u16, FibError> {
    if id > RouteId::MAX {
        return Err(FibError::RouteIdOutOfRange { prefix: prefix.into(), id });
    }
    Ok(id.0 + 1)
}

/// The /24 blocks that a prefix covers, or the one it is in.
fn blocks_of(prefix: Ipv4Net) -> RangeInclusive<usize> {
    block_of(prefix.network().to_bits())..=block_of(prefix.broadcast().to_bits())
}

/// The addresses of any of its blocks that a prefix covers.
fn addresses_of(prefix: Ipv4Net) -> RangeInclusive<usize> {
    if u32::from(prefix.prefix_len()) <= WHOLE_BITS {
        return 0..=GROUP - 1;
    }
    let shift = 32 - WHOLE_BITS - GROUP.ilog2();
    let within = |address: u32| (address >> shift) as usize & (GROUP - 1);
    within(prefix.network().to_bits())..=within(prefix.broadcast().to_bits())
}

#[cfg(all(test, not(loom)))]
mod tests;
