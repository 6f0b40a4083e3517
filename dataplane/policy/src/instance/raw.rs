//! A call whose answers are handed out as the guest wrote them, for rehearsals.

use frame::Nanos;
use sluice_abi::{BATCH_MAX, Verdict};

use super::{Instance, Packets};
use crate::{
    rehearsal::{RehearsalAnswer, RehearsalPacket},
    ticker::Beat,
};

impl Instance {
    /// Judges up to a batch of packets: verdict and edit of each, unchecked. `None` if the memory does not
    /// have the areas that were checked, or there are too many packets.
    pub(crate) fn raw_call(
        &mut self,
        packets: &[RehearsalPacket],
        default: u64,
        now: Nanos,
        beat: &Beat,
    ) -> Option<wasmtime::Result<Vec<RehearsalAnswer>>> {
        let n = packets.len();
        if n > BATCH_MAX {
            return None;
        }
        self.place(Packets::Some(packets.iter().map(|packet| &packet.descriptor)), default)?;
        let marks: Vec<_> = packets.iter().map(|packet| packet.marks).collect();
        let payload = packets.iter().map(|packet| packet.payload.as_slice());
        self.show(bytemuck::cast_slice(&marks), payload)?;
        if let Err(error) = self.call(n, now, beat) {
            return Some(Err(error));
        }
        let answers = (0..n).map(|index| {
            let verdict = bytemuck::cast::<u64, Verdict>(self.verdict_word(index)?);
            Some(RehearsalAnswer { verdict, edit: self.raw_edit(index) })
        });
        Some(Ok(answers.collect::<Option<_>>()?))
    }

    /// Goes on with the random numbers where the other instance stands.
    pub(crate) fn draw_on_from(&mut self, other: &Self) {
        self.guest.state_mut().draw_on_from(other.guest.state());
    }

    /// The guest's counters as they stand.
    pub(crate) fn raw_counters(&self) -> Vec<u64> {
        let bytes = self.guest.memory().get(self.areas.counters.clone());
        let words = bytes.unwrap_or_default().as_chunks::<8>().0;
        words.iter().map(|word| u64::from_le_bytes(*word)).collect()
    }
}
