//! The look-ups of a batch, in stages.
//!
//! ```text
//!   64 destinations --> entries --> blocks, asked for --> values --> those of groups --> entries --> values
//!                       loads       vectors               loads      vectors, listed     loads       loads
//! ```
//!
//! What a stage reads was asked for in the one before. One by one look-ups are too long for the processor to
//! see many of them ahead; in stages each is some 20 instructions, none of which is a branch.

use super::{BLOCK, Cells, FIRST_GROUP, Fib4, STAGE, block_at, decode, inner_place, place};
use crate::RouteId;
use crate::hardware::{Compare, Work};

/// A batch, to be compiled for each set of instructions.
pub(super) struct LookUp<'a> {
    pub(super) fib: &'a Fib4,
    pub(super) destinations: &'a [u32],
    pub(super) results: &'a mut [RouteId],
}

impl Work for LookUp<'_> {
    #[inline(always)]
    fn run<C: Compare>(self) {
        let Self { fib, destinations, results } = self;
        let cells = fib.cells();
        for (destinations, results) in destinations.chunks(STAGE).zip(results.chunks_mut(STAGE)) {
            let mut entries = [0; STAGE];
            for (entry, &destination) in entries.iter_mut().zip(destinations) {
                *entry = cells.entry(destination);
            }
            let blocks = entries.map(block_at);
            for &block in &blocks[..destinations.len()] {
                cells.prefetch_block(block);
            }
            let mut codes = [0; STAGE];
            for ((code, &block), &destination) in codes.iter_mut().zip(&blocks).zip(destinations) {
                *code = cells.value(block, place(destination));
            }
            for (code, &entry) in codes.iter_mut().zip(&entries) {
                *code = if entry & BLOCK == 0 { entry as u16 } else { *code };
            }
            let in_groups = C::at_least(&codes, FIRST_GROUP);
            if in_groups != 0 {
                look_into_groups(cells, in_groups, &blocks, destinations, &mut codes);
            }
            for (result, &code) in results.iter_mut().zip(&codes) {
                *result = decode(code);
            }
        }
    }

    #[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
    #[inline(always)]
    fn run_gathering(self, gather: crate::hardware::Gather) {
        let Self { fib, destinations, results } = self;
        let (index, words) = (fib.index.cells(), fib.words.cells());
        for (destinations, results) in destinations.chunks(STAGE).zip(results.chunks_mut(STAGE)) {
            gather.look_up4(index, words, destinations, results);
        }
    }
}

/// Puts what groups have for destinations in place of their codes; `in_groups` has a bit for each.
#[inline(always)]
fn look_into_groups(
    cells: Cells<'_>,
    in_groups: u64,
    blocks: &[u32; STAGE],
    destinations: &[u32],
    codes: &mut [u16; STAGE],
) {
    let (mut entries, mut places) = ([0; STAGE], [0; STAGE]);
    let (mut left, mut count) = (in_groups, 0);
    while left != 0 {
        let n = left.trailing_zeros() as usize;
        left &= left - 1;
        let entry = cells.inner_entry(blocks[n], codes[n], destinations[n]);
        cells.prefetch_block(block_at(entry));
        entries[count & (STAGE - 1)] = entry;
        places[count & (STAGE - 1)] = inner_place(destinations[n]);
        count += 1;
    }
    let mut left = in_groups;
    for (&entry, &place) in entries.iter().zip(&places).take(count) {
        let n = left.trailing_zeros() as usize;
        left &= left.wrapping_sub(1);
        codes[n & (STAGE - 1)] = cells.code(entry, place);
    }
}
