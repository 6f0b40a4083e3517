//! Changing who owns a slice, while workers read.
//!
//! ```text
//!   hits are the prefix's own       [ a | b | c ]      one store:  b
//!   hits are shared with others     [ a | b | c ]      copied:  [ a | b' | c ]
//!                                                      one store:  where the prefix's hits begin
//! ```

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

use super::build::Builder;
use super::{EgressBlock, Owner, RelativeHit, SliceId, SliceTable, SliceTableError, position};
use crate::Publisher;
use crate::grace::{GraceWriter, Retired};
use crate::sync::Ordering;

/// The one writer of a [`SliceTable`] that any number of workers read.
pub struct SliceWriter {
    table: Arc<SliceTable>,
    /// How many prefixes have the run of hits that begins here.
    users: HashMap<u32, u32>,
    /// First hits of runs that may be used again, by their length.
    free: HashMap<usize, Vec<u32>>,
    retired: Retired<(u32, usize)>,
}

impl SliceWriter {
    /// Builds a table.
    ///
    /// # Errors
    /// As [`SliceTable::build`].
    pub fn build(blocks: Vec<EgressBlock>) -> Result<Self, SliceTableError> {
        let table = Builder::build(blocks)?;
        let mut users = HashMap::new();
        for egress in &table.egresses {
            *users.entry(egress.first_hit.load(Ordering::Relaxed)).or_default() += 1;
        }
        Ok(Self { table: Arc::new(table), users, free: HashMap::new(), retired: Retired::new() })
    }

    /// The table, to be read by others.
    #[must_use]
    pub fn table(&self) -> Arc<SliceTable> {
        Arc::clone(&self.table)
    }

    /// Gives a slice to another owner, in its egress prefix `within` and in the prefixes within that one
    /// that inherit it. For each of its ranges in each prefix this is one store. Returns how many ranges
    /// changed.
    ///
    /// # Errors
    /// [`SliceTableError::NoSuchSlice`], or [`SliceTableError::TooManyRanges`] when shared hits cannot be
    /// copied ([`SliceWriter::reclaim`] may help); the table is then unchanged.
    pub fn set_owner(
        &mut self,
        within: IpNet,
        slice: SliceId,
        owner: Owner,
    ) -> Result<usize, SliceTableError> {
        let table = Arc::clone(&self.table);
        let mut changed = 0;
        // Runs that have to be copied, and their copies.
        let mut copies: Vec<(usize, u32)> = Vec::new();
        let egresses = || {
            table
                .egresses
                .iter()
                .enumerate()
                .filter(|(at, _)| within.contains(&table.prefixes[*at]))
        };
        let holds = |at: usize, hit: RelativeHit| {
            let base = table.egresses[at].slice_base;
            hit.slice != RelativeHit::NO_SLICE && base.wrapping_add(hit.slice) == slice.0
        };
        for (at, egress) in egresses() {
            let first = egress.first_hit.load(Ordering::Relaxed);
            let len = table.partitions[at].len();
            let ranges = (0..len).filter(|n| holds(at, table.hits.get(first as usize + n))).count();
            changed += ranges;
            if ranges > 0 && self.users.get(&first).is_some_and(|users| *users > 1) {
                match self.allocate(len) {
                    Some(copy) => copies.push((at, copy)),
                    None => {
                        for (at, copy) in copies {
                            self.free.entry(table.partitions[at].len()).or_default().push(copy);
                        }
                        let prefix = table.prefixes[at];
                        let max = SliceTable::RANGES_MAX;
                        return Err(SliceTableError::TooManyRanges { prefix, max });
                    }
                }
            }
        }
        if changed == 0 {
            return Err(SliceTableError::NoSuchSlice { slice, within });
        }
        let mut copies = copies.into_iter().peekable();
        let cells = table.hits.cells();
        for (at, egress) in egresses() {
            let first = egress.first_hit.load(Ordering::Relaxed);
            let len = table.partitions[at].len();
            let copy = copies.next_if(|(of, _)| *of == at).map(|(_, copy)| copy);
            for n in 0..len {
                let hit = table.hits.get(first as usize + n);
                let hit = if holds(at, hit) { RelativeHit { owner, ..hit } } else { hit };
                if copy.is_some() || holds(at, hit) {
                    let place = copy.unwrap_or(first) as usize + n;
                    cells[place].store(hit.pack(), Ordering::Release);
                }
            }
            if let Some(copy) = copy {
                // Release: the copied hits are before their place.
                egress.first_hit.store(copy, Ordering::Release);
                self.users.insert(copy, 1);
                // The last user of a run may have moved away by now as well.
                if let Some(users) = self.users.get_mut(&first) {
                    *users -= 1;
                    if *users == 0 {
                        self.users.remove(&first);
                        self.retired.push((first, len));
                    }
                }
            }
        }
        Ok(changed)
    }

    /// Makes room of hits that were copied away available again as far as every worker has been between
    /// two turns since. It never waits.
    pub fn reclaim(&mut self, publisher: &mut Publisher) {
        self.reclaim_with(publisher.grace());
    }

    fn reclaim_with(&mut self, grace: &mut GraceWriter) {
        let Self { retired, free, .. } = self;
        retired.collect(grace, |(first, len)| free.entry(len).or_default().push(first));
    }

    /// Room for a run of hits that no prefix has.
    fn allocate(&mut self, len: usize) -> Option<u32> {
        if let Some(first) = self.free.get_mut(&len).and_then(Vec::pop) {
            return Some(first);
        }
        let first = self.table.hits_len.load(Ordering::Relaxed);
        if first as usize + len > SliceTable::RANGES_MAX {
            return None;
        }
        self.table.hits_len.store(first + position(len), Ordering::Relaxed);
        Some(first)
    }
}

impl fmt::Debug for SliceWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SliceWriter").field("table", &self.table).finish_non_exhaustive()
    }
}
