//! From the slices of one egress prefix, and what it inherits, to a partition of all ports.
//!
//! ```text
//!   own slices        |   A   |        | B |
//!   rest (a named owner, or what is around)
//!   around       |  x        |    y        |    z  |
//!   resolved     |  x |   A   |  y     | B |    z  |
//! ```

use std::iter::Peekable;

use super::{EgressBlock, Owner, ResolvedRange, SliceHit, SliceRange, SliceTableError};

/// Ranges of ports without a gap: the n-th ends at `last_ports[n]` and gives `hits[n]`. Neighbours
/// differ in their hits.
#[derive(Debug, Default)]
pub(super) struct Partition {
    pub(super) last_ports: Vec<u16>,
    pub(super) hits: Vec<SliceHit>,
}

impl Partition {
    /// The block's slices, and between them its rest, or where nobody is named for that, `around`:
    /// the resolved partition of the prefix around the block, or nothing if there is none.
    pub(super) fn resolve(
        block: &EgressBlock,
        around: impl Iterator<Item = ResolvedRange>,
    ) -> Result<Self, SliceTableError> {
        let ranges = checked(block)?;
        let mut partition = Self::default();
        let mut background = Background {
            rest: (block.rest != Owner::Unowned)
                .then_some(SliceHit { slice: None, owner: block.rest }),
            around: around.peekable(),
        };
        let mut next = Some(0);
        for range in ranges {
            if let (Some(next), Some(before)) = (next, range.first_port.checked_sub(1)) {
                background.paint(&mut partition, next, before);
            }
            let hit = SliceHit { slice: Some(range.slice), owner: range.owner };
            partition.push(range.last_port, hit);
            next = range.last_port.checked_add(1);
        }
        if let Some(next) = next {
            background.paint(&mut partition, next, u16::MAX);
        }
        Ok(partition)
    }

    fn push(&mut self, last_port: u16, hit: SliceHit) {
        match (self.last_ports.last_mut(), self.hits.last()) {
            (Some(last), Some(previous)) if *previous == hit => *last = last_port,
            _ => {
                self.last_ports.push(last_port);
                self.hits.push(hit);
            }
        }
    }
}

/// What lies behind the slices. Gaps are asked for in rising order.
struct Background<I: Iterator<Item = ResolvedRange>> {
    /// One owner for all gaps, which hides what is around.
    rest: Option<SliceHit>,
    around: Peekable<I>,
}

impl<I: Iterator<Item = ResolvedRange>> Background<I> {
    /// Fills the ports from `first` to `last`; nothing if `first` is above `last`.
    fn paint(&mut self, partition: &mut Partition, first: u16, last: u16) {
        if first > last {
            return;
        }
        if let Some(hit) = self.rest {
            return partition.push(last, hit);
        }
        while self.around.next_if(|range| range.last_port < first).is_some() {}
        while let Some(range) = self.around.next_if(|range| range.last_port < last) {
            partition.push(range.last_port, range.hit);
        }
        // The range that reaches beyond the gap may fill the next one as well.
        let hit = self.around.peek().map_or(SliceHit::MISS, |range| range.hit);
        partition.push(last, hit);
    }
}

/// The block's ranges in rising order, none reversed and no two sharing a port.
fn checked(block: &EgressBlock) -> Result<Vec<SliceRange>, SliceTableError> {
    let prefix = block.prefix;
    let mut ranges = block.ranges.clone();
    ranges.sort_by_key(|range| range.first_port);
    for &SliceRange { first_port, last_port, slice, .. } in &ranges {
        if first_port > last_port {
            return Err(SliceTableError::Reversed { prefix, slice, first_port, last_port });
        }
    }
    for pair in ranges.windows(2) {
        if let &[lower, higher] = pair
            && higher.first_port <= lower.last_port
        {
            return Err(SliceTableError::Overlap { prefix, lower, higher });
        }
    }
    Ok(ranges)
}
