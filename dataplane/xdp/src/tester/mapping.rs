//! [`Mapping`]: an array map of a program, as memory of this process.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use aya::{Ebpf, maps::Map};

use super::TesterError;

/// An array map that was made with `BPF_F_MMAPABLE`, seen as 64-bit words that the program changes at
/// the same time: reading and filling it costs no system calls.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the memory belongs to the mapping, not to a thread, and is accessed as atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Takes the map `name`, of `words` 64-bit words in all, out of a loaded object. The mapping keeps
    /// the map alive.
    pub(super) fn take(
        object: &mut Ebpf,
        name: &'static str,
        words: usize,
    ) -> Result<Self, TesterError> {
        let failed = |operation, reason| TesterError::Map { map: name, operation, reason };
        let Some(Map::Array(map)) = object.take_map(name) else {
            return Err(failed("open", "the object has no such array".into()));
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory. The
        // descriptor is open, and may be closed afterwards.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(failed("mmap", io::Error::last_os_error().to_string()));
        }
        let start = NonNull::new(start.cast()).expect("mmap does not return null");
        Ok(Self { start, words })
    }

    /// The words.
    #[inline]
    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long, readable and writable until it is dropped,
        // and everything that accesses it, the program included, writes whole aligned words.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// Reads a word.
    #[inline]
    pub(super) fn get(&self, position: usize) -> u64 {
        self.words()[position].load(Ordering::Relaxed)
    }

    /// Writes a word.
    #[inline]
    pub(super) fn set(&self, position: usize, value: u64) {
        self.words()[position].store(value, Ordering::Relaxed);
    }

    /// Sets all words to zero.
    pub(super) fn clear(&self) {
        for word in self.words() {
            word.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `take` mapped, and no borrow of it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}
