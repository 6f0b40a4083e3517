//! What a guest was shown besides descriptors, as bytes: to be written down after a trap, and put back by
//! a replay.

use sluice_abi::{Marks, PayloadHeader};

use super::Instance;

impl Instance {
    /// The marks of the first `n` packets; none if the guest reads none.
    pub(crate) fn marks_shown(&self, n: usize) -> &[u8] {
        let Some(start) = self.areas.marks else { return &[] };
        let bytes = self.guest.memory().get(start..start + n * size_of::<Marks>());
        bytes.unwrap_or_default()
    }

    /// The payload of packet `index`; nothing if the guest reads none.
    pub(crate) fn payload_shown(&self, index: usize) -> &[u8] {
        let Some((start, stride)) = self.areas.payload else { return &[] };
        let Some(entry) = self.guest.memory().get(start + index * stride..) else {
            return &[];
        };
        let Some((header, bytes)) = entry.split_at_checked(size_of::<PayloadHeader>()) else {
            return &[];
        };
        let length = header.first_chunk().copied().map_or(0, u16::from_le_bytes);
        let room = stride.saturating_sub(size_of::<PayloadHeader>());
        bytes.get(..usize::from(length).min(room)).unwrap_or_default()
    }

    /// Puts marks and payload back, as far as the guest is shown them. `None` if the guest has no room for them.
    pub(crate) fn show<'p>(
        &mut self,
        marks: &[u8],
        payload: impl Iterator<Item = &'p [u8]>,
    ) -> Option<()> {
        let memory = self.guest.memory_mut();
        if let Some(start) = self.areas.marks {
            memory.get_mut(start..start + marks.len())?.copy_from_slice(marks);
        }
        if let (Some((start, stride)), Some(_)) = (self.areas.payload, self.window) {
            let room = stride.saturating_sub(size_of::<PayloadHeader>());
            for (index, bytes) in payload.enumerate() {
                let bytes = bytes.get(..bytes.len().min(room))?;
                let entry = memory.get_mut(start + index * stride..)?;
                let (header, rest) = entry.split_at_mut_checked(size_of::<PayloadHeader>())?;
                header.fill(0);
                let length = u16::try_from(bytes.len()).ok()?.to_le_bytes();
                header.first_chunk_mut::<2>()?.copy_from_slice(&length);
                rest.get_mut(..bytes.len())?.copy_from_slice(bytes);
            }
        }
        Some(())
    }
}

impl Instance {}
