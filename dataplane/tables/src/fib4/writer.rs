//! Changing the IPv4 table in place.
//!
//! ```text
//!   insert 10.1.2.0/23 -> 7           depth of each entry: length of the prefix it stands for
//!     10.1.2.0/24  [16 -> 23]           not longer: overwritten
//!     10.1.3.0/24  [24]                 longer: stays
//!   remove 10.1.2.0/23, parent /16      depth 23: becomes the parent's, with depth 16
//! ```
//!
//! Each entry changes by one store, from what it was to what it is to be: a prefix that is removed
//! gives way to the one around it, never to a miss. A change of a short prefix is many such stores; a
//! reader sees some before and some after, each look-up one or the other.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::slots::{Region, Slots};
use super::{
    FIRST, FIRST_BITS, FIRST_GROUP, Fib4, GROUP, MISS, REGION_BITS, SECOND_BITS, SLOTS,
    first_index, within_group,
};
use crate::grace::Retired;
use crate::sync::Ordering;
use crate::{FibError, Publisher, RouteId};

/// The one writer of a [`Fib4`] that any number of workers read.
///
/// The caller has the routes: it says which one is around a prefix that it removes, and has every
/// worker see a next-hop group before a route names it (see [`Publisher::begin_grace`]).
pub struct Fib4Writer {
    table: Arc<Fib4>,
    /// By entry of the first level: length of the prefix it stands for; nothing for a group.
    first_depths: Vec<u8>,
    /// By entry of the second level.
    second_depths: Vec<u8>,
    regions: HashMap<usize, Region>,
    slots: Slots,
    retired: Retired<Unlinked>,
    /// Groups that no entry names any more but some reader may, by their block: the group, and which
    /// of its ends this is.
    lingering: HashMap<usize, (usize, u64)>,
    ends: u64,
    groups: usize,
}

/// What no entry names any more.
enum Unlinked {
    Group { block: usize, end: u64 },
    Chunk { base: u32, order: usize },
}

/// What an entry stands for: a code that is no group, and the length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    code: u16,
    depth: u8,
}

impl Fib4Writer {
    /// A writer of an empty table.
    ///
    /// # Errors
    /// [`FibError::Memory`].
    pub fn new() -> Result<Self, FibError> {
        Ok(Self {
            table: Arc::new(Fib4::empty()?),
            first_depths: vec![0; FIRST],
            second_depths: vec![0; SLOTS * GROUP],
            regions: HashMap::new(),
            slots: Slots::new(SLOTS),
            retired: Retired::new(),
            lingering: HashMap::new(),
            ends: 0,
            groups: 0,
        })
    }

    /// A writer of a table with `routes`. Of two routes for the same prefix the later counts; bits of an
    /// address beyond its prefix length are ignored.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`], [`FibError::TooManyGroups`] or [`FibError::Memory`].
    pub fn build(routes: impl IntoIterator<Item = (Ipv4Net, RouteId)>) -> Result<Self, FibError> {
        let mut by_length = [const { Vec::new() }; 33];
        for (prefix, id) in routes {
            let code = encode(prefix, id)?;
            by_length[usize::from(prefix.prefix_len())].push((prefix, code));
        }
        let mut writer = Self::new()?;
        writer.reserve(by_length[FIRST_BITS as usize + 1..].iter().flatten())?;
        // From the shortest to the longest, so that each overwrites what it refines.
        for (prefix, code) in by_length.into_iter().flatten() {
            writer.paint_prefix(prefix, code)?;
        }
        writer.count();
        Ok(writer)
    }

    /// Gives each region a chunk that fits all of its groups, the largest first, so that they are
    /// packed and no chunk has to be exchanged.
    fn reserve<'a>(
        &mut self,
        longer: impl Iterator<Item = &'a (Ipv4Net, u16)>,
    ) -> Result<(), FibError> {
        let mut blocks: Vec<usize> =
            longer.map(|(prefix, _)| first_index(prefix.network().to_bits())).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let of_region = |block: usize| block >> (FIRST_BITS - REGION_BITS);
        let mut chunks: Vec<(usize, usize)> = blocks
            .chunk_by(|one, other| of_region(*one) == of_region(*other))
            .map(|blocks| (blocks.len().next_power_of_two().ilog2() as usize, of_region(blocks[0])))
            .collect();
        chunks.sort_unstable_by_key(|&(order, region)| (std::cmp::Reverse(order), region));
        let needed = chunks.iter().map(|&(order, _)| 1 << order).sum::<usize>();
        for (order, region) in chunks {
            let base = self.slots.take(order).ok_or(FibError::TooManyGroups {
                groups: blocks.len(),
                free: SLOTS,
                needed,
                slots: SLOTS,
            })?;
            self.table.bases.cells()[region].store(base, Ordering::Release);
            self.regions.insert(region, Region::new(base, order));
        }
        Ok(())
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
    /// [`FibError::RouteIdOutOfRange`] or [`FibError::TooManyGroups`]; the table is then unchanged. Of
    /// the latter, [`Fib4Writer::reclaim`] may help, else building the table anew.
    pub fn insert(&mut self, prefix: Ipv4Net, id: RouteId) -> Result<(), FibError> {
        let code = encode(prefix, id)?;
        self.paint_prefix(prefix, code)?;
        self.count();
        Ok(())
    }

    /// Takes a route out. `parent` is the longest prefix around it that has a route, by its length, and
    /// where that leads. Nothing happens if the table has no such route.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`] or [`FibError::ParentNotShorter`]; the table is then unchanged.
    pub fn remove(
        &mut self,
        prefix: Ipv4Net,
        parent: Option<(u8, RouteId)>,
    ) -> Result<(), FibError> {
        let length = prefix.prefix_len();
        let entry = match parent {
            None => Entry { code: MISS, depth: 0 },
            Some((depth, _)) if depth >= length => {
                return Err(FibError::ParentNotShorter { prefix: prefix.into(), length: depth });
            }
            Some((depth, id)) => Entry { code: encode(prefix, id)?, depth },
        };
        let address = prefix.network().to_bits();
        if u32::from(length) <= FIRST_BITS {
            self.paint_first(first_range(prefix), |depth| depth == length, entry);
            return Ok(());
        }
        let block = first_index(address);
        let Some(slot) = self.slot(block) else { return Ok(()) };
        self.paint_second(slot, second_range(prefix), |depth| depth == length, entry);
        let depths = &self.second_depths[slot << SECOND_BITS..][..GROUP];
        if depths.iter().all(|&depth| u32::from(depth) <= FIRST_BITS) {
            self.unlink_group(block, slot);
            self.count();
        }
        Ok(())
    }

    /// Makes what was taken out available again as far as every worker has been between two turns
    /// since. To be called now and then, as after each batch of changes; it never waits.
    ///
    /// # Panics
    /// It does not, but it has to be the publisher of all snapshots that hold this table.
    pub fn reclaim(&mut self, publisher: &mut Publisher) {
        self.reclaim_with(publisher.grace());
    }

    pub(crate) fn reclaim_with(&mut self, grace: &mut crate::grace::GraceWriter) {
        let Self { retired, regions, slots, table, lingering, .. } = self;
        retired.collect(grace, |unlinked| match unlinked {
            Unlinked::Chunk { base, order } => slots.give(base, order),
            Unlinked::Group { block, end } => {
                // The block may have its group back, and may have lost it again.
                let Some(&(group, _)) = lingering.get(&block).filter(|(_, last)| *last == end)
                else {
                    return;
                };
                lingering.remove(&block);
                let number = region_of(block);
                let Some(region) = regions.get_mut(&number) else { return };
                region.give(group);
                if region.is_unused() {
                    slots.give(region.base, region.order);
                    regions.remove(&number);
                }
            }
        });
        table.slots.store(slots.taken() as u64, Ordering::Relaxed);
    }

    /// Groups and chunks that were taken out and may still be read.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    /// Bytes that the writer keeps for itself: a byte for each entry.
    #[must_use]
    pub fn bytes(&self) -> usize {
        FIRST + self.slots.taken() * GROUP
    }

    fn paint_prefix(&mut self, prefix: Ipv4Net, code: u16) -> Result<(), FibError> {
        let length = prefix.prefix_len();
        let entry = Entry { code, depth: length };
        let not_longer = |depth| depth <= length;
        if u32::from(length) <= FIRST_BITS {
            self.paint_first(first_range(prefix), not_longer, entry);
            return Ok(());
        }
        let block = first_index(prefix.network().to_bits());
        if let Some(slot) = self.slot(block) {
            self.paint_second(slot, second_range(prefix), not_longer, entry);
            return Ok(());
        }
        let (group, slot) = self.new_group(block)?;
        let around = Entry {
            code: self.table.first.cells()[block].load(Ordering::Relaxed),
            depth: self.first_depths[block],
        };
        self.paint_second(slot, 0..=GROUP - 1, |_| true, around);
        self.paint_second(slot, second_range(prefix), |_| true, entry);
        self.first_depths[block] = 0;
        // Release: the group and the base of its region are before the entry that names them.
        self.table.first.cells()[block].store(FIRST_GROUP + group as u16, Ordering::Release);
        self.groups += 1;
        Ok(())
    }

    /// Overwrites the first level, and in its groups the second, wherever `matches` says so of the
    /// depth.
    fn paint_first(
        &mut self,
        range: RangeInclusive<usize>,
        matches: impl Fn(u8) -> bool + Copy,
        entry: Entry,
    ) {
        let table = Arc::clone(&self.table);
        let entries = &table.first.cells()[range.clone()];
        for (cell, block) in entries.iter().zip(range) {
            let code = cell.load(Ordering::Relaxed);
            if code < FIRST_GROUP {
                if matches(self.first_depths[block]) {
                    self.first_depths[block] = entry.depth;
                    // Release: the next-hop group is before the entry that names it.
                    cell.store(entry.code, Ordering::Release);
                }
            } else if let Some(slot) = self.slot(block) {
                self.paint_second(slot, 0..=GROUP - 1, matches, entry);
            }
        }
    }

    fn paint_second(
        &mut self,
        slot: usize,
        range: RangeInclusive<usize>,
        matches: impl Fn(u8) -> bool,
        entry: Entry,
    ) {
        let entries = &self.table.second.cells()[slot << SECOND_BITS..][..GROUP];
        let depths = &mut self.second_depths[slot << SECOND_BITS..][..GROUP];
        for (cell, depth) in entries[range.clone()].iter().zip(&mut depths[range]) {
            if matches(*depth) {
                *depth = entry.depth;
                cell.store(entry.code, Ordering::Release);
            }
        }
    }

    /// The slot of the group that stands for a block, if one does.
    fn slot(&self, block: usize) -> Option<usize> {
        let code = self.table.first.cells()[block].load(Ordering::Relaxed);
        let group = usize::from(code.checked_sub(FIRST_GROUP)?);
        let base = self.table.bases.cells()[region_of(block)].load(Ordering::Relaxed);
        Some(base as usize + group)
    }

    /// A group for a block that has none, and its slot. Readers of no other block can reach it.
    fn new_group(&mut self, block: usize) -> Result<(usize, usize), FibError> {
        let number = region_of(block);
        // A reader that still has the group's code asks for addresses of this block, and finds what is
        // true of them. So a block has one group, and a region as many as it has blocks.
        if let (Some((group, _)), Some(region)) =
            (self.lingering.remove(&block), self.regions.get(&number))
        {
            return Ok((group, region.base as usize + group));
        }
        let (groups, free) = (self.groups, SLOTS - self.slots.taken());
        let full = |order: usize| FibError::TooManyGroups {
            groups: groups + 1,
            free,
            needed: 1 << order,
            slots: SLOTS,
        };
        if !self.regions.contains_key(&number) {
            let base = self.slots.take(0).ok_or(full(0))?;
            self.table.bases.cells()[number].store(base, Ordering::Release);
            self.regions.insert(number, Region::new(base, 0));
        }
        let region = self.regions.get_mut(&number).expect("it is there now");
        if let Some(group) = region.take() {
            return Ok((group, region.base as usize + group));
        }
        // Every group of the old chunk keeps its number in the new one, those that stale entries of
        // readers name included.
        let (old, order) = (region.base, region.order);
        let base = self.slots.take(order + 1).ok_or(full(order + 1))?;
        (region.base, region.order) = (base, order + 1);
        let group = region.take().expect("half of the chunk is new");
        let (from, to) = ((old as usize) << SECOND_BITS, (base as usize) << SECOND_BITS);
        let second = self.table.second.cells();
        for offset in 0..GROUP << order {
            second[to + offset]
                .store(second[from + offset].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.second_depths.copy_within(from..from + (GROUP << order), to);
        // Release: a reader that sees the chunk sees what was copied to it.
        self.table.bases.cells()[number].store(base, Ordering::Release);
        self.retired.push(Unlinked::Chunk { base: old, order });
        Ok((group, base as usize + group))
    }

    /// Puts an entry in place of a group whose entries have all become the same.
    fn unlink_group(&mut self, block: usize, slot: usize) {
        let second = slot << SECOND_BITS;
        let code = self.table.second.cells()[second].load(Ordering::Relaxed);
        debug_assert!(
            self.table.second.cells()[second..][..GROUP]
                .iter()
                .all(|entry| entry.load(Ordering::Relaxed) == code),
            "the prefixes around a block cover all of it"
        );
        let base = self.table.bases.cells()[region_of(block)].load(Ordering::Relaxed);
        self.first_depths[block] = self.second_depths[second];
        self.table.first.cells()[block].store(code, Ordering::Release);
        self.groups -= 1;
        self.ends += 1;
        self.lingering.insert(block, (slot - base as usize, self.ends));
        self.retired.push(Unlinked::Group { block, end: self.ends });
    }

    /// For status output.
    fn count(&self) {
        self.table.groups.store(self.groups as u64, Ordering::Relaxed);
        self.table.slots.store(self.slots.taken() as u64, Ordering::Relaxed);
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

const fn region_of(block: usize) -> usize {
    block >> (FIRST_BITS - REGION_BITS)
}

/// The entries of the first level that a prefix covers.
fn first_range(prefix: Ipv4Net) -> RangeInclusive<usize> {
    first_index(prefix.network().to_bits())..=first_index(prefix.broadcast().to_bits())
}

/// The entries of its group that a prefix covers.
fn second_range(prefix: Ipv4Net) -> RangeInclusive<usize> {
    within_group(prefix.network().to_bits())..=within_group(prefix.broadcast().to_bits())
}
