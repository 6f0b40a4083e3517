//! What a guest says beside its verdicts, and what it is shown of what earlier plugins said.

use sluice_abi::{Edit, Marks};

use super::Instance;

impl Instance {
    /// Whether the guest has an array for what earlier plugins set.
    #[inline]
    pub(crate) const fn reads_marks(&self) -> bool {
        self.areas.marks.is_some()
    }

    /// Whether the guest has an array of edits.
    pub(crate) const fn has_edits(&self) -> bool {
        self.areas.edits.is_some()
    }

    /// Writes what earlier plugins set on each of the `n` packets of a call.
    ///
    /// `None` never comes for areas that were checked; callers treat it as a trap.
    pub(crate) fn place_marks(
        &mut self,
        n: usize,
        marks: impl Fn(usize) -> Option<Marks>,
    ) -> Option<()> {
        let start = self.areas.marks?;
        let end = start + n * size_of::<Marks>();
        let area = self.guest.memory_mut().get_mut(start..end)?;
        for (index, place) in area.chunks_exact_mut(size_of::<Marks>()).enumerate() {
            place.copy_from_slice(bytemuck::bytes_of(&marks(index)?));
        }
        Some(())
    }

    /// The edit of packet `index` of the last call; `None` if the guest has no array of them.
    pub(crate) fn edit(&self, index: usize) -> Option<Edit> {
        let (start, stride) = self.areas.edits?;
        let start = start + index * stride;
        let bytes = self.guest.memory().get(start..start + size_of::<Edit>())?;
        bytemuck::try_pod_read_unaligned(bytes).ok()
    }
}
