//! Whose ports are, for a whole batch.
//!
//! ```text
//!   (egress, port), ..  --> ranks in the partitions of all  --> hits of all
//! ```
//!
//! Look-ups do not depend on each other, so those of one stage wait for memory together; and the ranks
//! are what vector instructions are for: a cache line of 32 last ports is one comparison and one count,
//! which takes sixty instructions of what every x86-64 processor has.

use super::{EgressId, SliceHit, SliceTable};
use crate::hardware::{Compare, Instructions, Work, run};

/// An (egress prefix, port) whose owner is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceKey {
    /// What holds the address.
    pub egress: EgressId,
    /// The port, or what stands for it.
    pub port: u16,
}

/// Keys of a stage.
const STAGE: usize = 64;

impl SliceTable {
    /// [`SliceTable::lookup`] of all `keys`, written to `hits`.
    ///
    /// # Panics
    /// If the slices differ in length, or a key comes from another table.
    pub fn lookup_batch(&self, keys: &[SliceKey], hits: &mut [SliceHit]) {
        self.lookup_batch_by(self.instructions, keys, hits);
    }

    /// The same by other instructions than the processor's best.
    ///
    /// # Panics
    /// As [`SliceTable::lookup_batch`].
    pub fn lookup_batch_by(
        &self,
        instructions: Instructions,
        keys: &[SliceKey],
        hits: &mut [SliceHit],
    ) {
        assert_eq!(keys.len(), hits.len(), "one hit for each key");
        run(instructions, LookUp { table: self, keys, hits });
    }
}

/// A batch, to be compiled for each set of instructions.
struct LookUp<'a> {
    table: &'a SliceTable,
    keys: &'a [SliceKey],
    hits: &'a mut [SliceHit],
}

impl Work for LookUp<'_> {
    #[inline(always)]
    fn run<C: Compare>(self) {
        let Self { table, keys, hits } = self;
        let mut places = [0_usize; STAGE];
        for (keys, hits) in keys.chunks(STAGE).zip(hits.chunks_mut(STAGE)) {
            for (key, place) in keys.iter().zip(&mut places) {
                let egress = &table.egresses[key.egress.0 as usize];
                *place = egress.place(egress.tree.rank(&table.nodes, key.port));
            }
            for ((key, &place), hit) in keys.iter().zip(&places).zip(hits) {
                *hit = table.egresses[key.egress.0 as usize].hit(&table.hits, place);
            }
        }
    }
}
