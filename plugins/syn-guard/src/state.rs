//! What an instance hands over to its successor: the secret, without which the tables mean nothing, and
//! what is in them.
//!
//! ```text
//!  secret u64 (0: none yet) | buckets of handshakes u32 | of sources u32 | passed u32, 0 or 1 | when u32
//!  sources u32 | each: place u32, tag u32, trusted until u32
//!  to the end: handshakes: place u32, tag u32, stamp u32
//! ```
//!
//! Places are positions in the tables, so that a successor whose tables have another size begins anew.
//! Where there is no room for all, handshakes are left out: a flood's are most of them.

use sluice_sdk::{StateFull, StateWriter};

use crate::Memory;

const HEAD_BYTES: usize = 28;
const SOURCE_BYTES: usize = 12;
const HANDSHAKE_BYTES: usize = 12;

/// Fields of a state, in their order.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*field))
    }

    fn u64(&mut self) -> Option<u64> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*field))
    }

    fn words(&mut self) -> Option<[u32; 3]> {
        Some([self.u32()?, self.u32()?, self.u32()?])
    }
}

impl Memory {
    pub(crate) fn export(&self, state: &mut StateWriter<'_>) -> Result<(), StateFull> {
        let (buckets, passed) = self.handshakes.head();
        let sources = self.sources.entries().count();
        if state.room() < HEAD_BYTES + sources * SOURCE_BYTES {
            return Err(StateFull);
        }
        state.write(&self.secret.unwrap_or(0).to_le_bytes())?;
        let head =
            [buckets, self.sources.buckets(), u32::from(passed.is_some()), passed.unwrap_or(0)];
        for field in head {
            state.write(&field.to_le_bytes())?;
        }
        state.write(&(sources as u32).to_le_bytes())?;
        for word in self.sources.entries().flatten() {
            state.write(&word.to_le_bytes())?;
        }
        let room = state.room() / HANDSHAKE_BYTES;
        for word in self.handshakes.entries().take(room).flatten() {
            state.write(&word.to_le_bytes())?;
        }
        Ok(())
    }

    pub(crate) fn import(&mut self, state: &[u8]) -> Result<(), String> {
        let mut reader = Reader(state);
        let cut = || "the state is cut short".to_owned();
        let secret = reader.u64().ok_or_else(cut)?;
        let [handshakes, sources, is_passed] = reader.words().ok_or_else(cut)?;
        let passed = reader.u32().ok_or_else(cut)?;
        if (handshakes, sources) != (self.handshakes.head().0, self.sources.buckets()) {
            return Err("the tables had another size".to_owned());
        }
        let misplaced = || "the state names a place that is none".to_owned();
        for _ in 0..reader.u32().ok_or_else(cut)? {
            if !self.sources.set_entry(reader.words().ok_or_else(cut)?) {
                return Err(misplaced());
            }
        }
        while let Some(words) = reader.words() {
            if !self.handshakes.set_entry(words) {
                return Err(misplaced());
            }
        }
        self.handshakes.set_passed((is_passed != 0).then_some(passed));
        self.secret = (secret != 0).then_some(secret);
        Ok(())
    }
}
