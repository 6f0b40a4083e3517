//! From checked egress prefixes to a [`SliceTable`]: outer prefixes before inner ones, so that what an
//! inner one inherits is resolved when it is needed; equal trees and equal runs of hits once.

use std::collections::HashMap;

use ipnet::IpNet;
use rustc_hash::FxHashMap;

use super::partition::Partition;
use super::{
    DEPTH_MAX, Egress, EgressBlock, EgressId, Hits, Owner, RelativeHit, SliceHit, SliceTable,
    SliceTableError, position,
};
use crate::FibError;
use crate::exact_index::ExactIndex;
use crate::hardware::Memory;
use crate::rank_tree::RankTree;
use crate::sync::{AtomicU32, Ordering};

/// A table in the making, with what is needed to store equal things once.
#[derive(Default)]
pub(super) struct Builder {
    table: SliceTable,
    /// Trees, and their last ports as lists, by last ports.
    trees: FxHashMap<Vec<u16>, (RankTree<DEPTH_MAX>, std::ops::Range<u32>)>,
    /// The first of equal runs of hits.
    runs: FxHashMap<Vec<RelativeHit>, u32>,
}

impl Builder {
    pub(super) fn build(mut blocks: Vec<EgressBlock>) -> Result<SliceTable, SliceTableError> {
        let (count, max) = (blocks.len(), SliceTable::PREFIXES_MAX);
        if count > max {
            return Err(SliceTableError::TooManyPrefixes { count, max });
        }
        let mut positions = HashMap::with_capacity(count);
        for (second, block) in blocks.iter_mut().enumerate() {
            block.prefix = block.prefix.trunc();
            let prefix = block.prefix;
            if let Some(first) = positions.insert(prefix, second) {
                return Err(SliceTableError::DuplicatePrefix { prefix, first, second });
            }
        }
        // The prefixes around a prefix are resolved before it.
        blocks.sort_by_key(|block| {
            (block.prefix.addr().is_ipv6(), block.prefix.prefix_len(), block.prefix.addr())
        });
        let mut builder = Self::default();
        if count > 0 {
            let memory = Memory::new().map_err(|error| match error {
                FibError::Memory { error, .. } => SliceTableError::Memory(error.kind()),
                _ => SliceTableError::Memory(std::io::ErrorKind::Other),
            })?;
            builder.table.hits = Hits(Some(memory));
        }
        let mut resolved: FxHashMap<IpNet, EgressId> = FxHashMap::default();
        for block in &blocks {
            let around = std::iter::successors(block.prefix.supernet(), IpNet::supernet)
                .find_map(|prefix| resolved.get(&prefix).copied());
            let egress = builder.add(block, around)?;
            resolved.insert(block.prefix, egress);
        }
        let mut table = builder.table;
        let entries = |ipv6: bool| {
            table
                .egresses()
                .zip(&table.prefixes)
                .filter(move |(_, prefix)| prefix.addr().is_ipv6() == ipv6)
        };
        let entries4 = entries(false).filter_map(|(id, prefix)| match prefix {
            IpNet::V4(prefix) => Some((prefix.addr().to_bits(), prefix.prefix_len(), id.0)),
            IpNet::V6(_) => None,
        });
        let entries6 = entries(true).filter_map(|(id, prefix)| match prefix {
            IpNet::V6(prefix) => Some((prefix.addr().to_bits(), prefix.prefix_len(), id.0)),
            IpNet::V4(_) => None,
        });
        let (index4, index6) =
            (ExactIndex::new(entries4.collect()), ExactIndex::new(entries6.collect()));
        (table.index4, table.index6) = (index4, index6);
        Ok(table)
    }

    /// Resolves one block, whose longest surrounding prefix is `around`.
    fn add(
        &mut self,
        block: &EgressBlock,
        around: Option<EgressId>,
    ) -> Result<EgressId, SliceTableError> {
        let egress = EgressId(position(self.table.egresses.len()));
        let portless = match (block.portless, around) {
            (Owner::Unowned, Some(around)) => self.table.portless(around),
            (portless, _) => portless,
        };
        self.table.prefixes.push(block.prefix);
        // A prefix that names nobody shares its surroundings' partition; to merge a large one into
        // each of many prefixes would be work for nothing.
        if let (true, Owner::Unowned, Some(around)) = (block.ranges.is_empty(), block.rest, around)
        {
            let Egress { tree, slice_base, ref first_hit, .. } =
                self.table.egresses[around.0 as usize];
            let first_hit = AtomicU32::new(first_hit.load(Ordering::Relaxed));
            self.table.egresses.push(Egress { tree, first_hit, slice_base, portless });
            let partition = self.table.partitions[around.0 as usize].clone();
            self.table.partitions.push(partition);
            return Ok(egress);
        }
        let inherited = around.into_iter().flat_map(|around| self.table.ranges(around));
        let partition = Partition::resolve(block, inherited)?;
        let too_many =
            SliceTableError::TooManyRanges { prefix: block.prefix, max: SliceTable::RANGES_MAX };
        let (slice_base, hits) = relative(&partition.hits);
        let (tree, list) = self.tree(partition.last_ports).ok_or_else(|| too_many.clone())?;
        let first_hit = AtomicU32::new(self.run(hits).ok_or(too_many)?);
        self.table.egresses.push(Egress { tree, first_hit, slice_base, portless });
        self.table.partitions.push(list);
        Ok(egress)
    }

    /// The tree over `last_ports`; nothing if the table is full.
    fn tree(
        &mut self,
        last_ports: Vec<u16>,
    ) -> Option<(RankTree<DEPTH_MAX>, std::ops::Range<u32>)> {
        if let Some(known) = self.trees.get(&last_ports) {
            return Some(known.clone());
        }
        let SliceTable { nodes, last_ports: lists, .. } = &mut self.table;
        if lists.len() + last_ports.len() > SliceTable::RANGES_MAX {
            return None;
        }
        let tree = RankTree::append(nodes, &last_ports);
        let start = position(lists.len());
        lists.extend(&last_ports);
        let known = (tree, start..position(lists.len()));
        self.trees.insert(last_ports, known.clone());
        Some(known)
    }

    /// The position of a run of hits; nothing if the table is full.
    fn run(&mut self, run: Vec<RelativeHit>) -> Option<u32> {
        if let Some(&first) = self.runs.get(&run) {
            return Some(first);
        }
        let first = self.table.hits_len.load(Ordering::Relaxed);
        let cells = self.table.hits.cells().get(first as usize..)?.get(..run.len())?;
        for (cell, hit) in cells.iter().zip(&run) {
            cell.store(hit.pack(), Ordering::Relaxed);
        }
        self.table.hits_len.store(first + position(run.len()), Ordering::Relaxed);
        self.runs.insert(run, first);
        Some(first)
    }
}

/// Hits relative to their lowest slice.
fn relative(hits: &[SliceHit]) -> (u32, Vec<RelativeHit>) {
    let base = hits.iter().filter_map(|hit| hit.slice).min().map_or(0, |slice| slice.0);
    let relative = hits.iter().map(|hit| RelativeHit {
        slice: hit.slice.map_or(RelativeHit::NO_SLICE, |slice| slice.0 - base),
        owner: hit.owner,
    });
    (base, relative.collect())
}
