//! A zeroed array of `u16` on 2 MiB pages.
//!
//! A table of 32 MiB on 4 KiB pages needs 8,192 TLB entries, so that a random look-up misses the TLB
//! as well as the cache. The memory is reserved whole and faulted only where it is touched.
//!
//! Where the kernel gives no huge pages (switched off, or none free) the same memory is on small
//! pages: slower, never different.

use crate::FibError;
use memmap2::{Advice, MmapMut};

const HUGE_PAGE_BYTES: usize = 2 << 20;

/// `ENTRIES` zeroed `u16` that begin on a 2 MiB boundary.
pub(crate) struct HugeMemory<const ENTRIES: usize> {
    map: MmapMut,
    /// Bytes from the start of the mapping to the first 2 MiB boundary.
    start: usize,
}

impl<const ENTRIES: usize> HugeMemory<ENTRIES> {
    const BYTES: usize = ENTRIES * size_of::<u16>();

    /// Reserves the memory; no page of it is faulted yet.
    pub(crate) fn new() -> Result<Self, FibError> {
        // One huge page more than needed: kernels before 6.7 do not align large mappings.
        let bytes = Self::BYTES + HUGE_PAGE_BYTES;
        let map = MmapMut::map_anon(bytes).map_err(|source| FibError::Memory { bytes, source })?;
        // A refusal means small pages, with which everything works.
        let _ = map.advise(Advice::HugePage);
        let start = map.as_ptr().addr().next_multiple_of(HUGE_PAGE_BYTES) - map.as_ptr().addr();
        Ok(Self { map, start })
    }

    /// The memory, to read.
    #[inline]
    pub(crate) fn entries(&self) -> &[u16; ENTRIES] {
        bytemuck::from_bytes(&self.map[self.start..][..Self::BYTES])
    }

    /// The memory, to write.
    pub(crate) fn entries_mut(&mut self) -> &mut [u16; ENTRIES] {
        bytemuck::from_bytes_mut(&mut self.map[self.start..][..Self::BYTES])
    }
}
