//! Chunks of memory for pools, and the way back of those that a test is done with.
//!
//! A [`Frame`] borrows its chunk for `'static`, so chunks are leaked. Property tests make thousands
//! of pools: what they give back waits here for the next one, and the process stays small.
//!
//! Chunks lie on page boundaries, one after the other, as in a UMEM. All packets then start at the
//! same offset of a page and compete for the same sets of the first-level cache: a benchmark is to
//! see that, because the router does.

use std::sync::{Mutex, PoisonError};

use frame::{CHUNK_BYTES, Frame, Pool};

/// What every byte of a chunk holds when [`memory_pool`] hands it out: code that reads bytes which
/// nobody wrote sees the same in every run.
pub const POISON: u8 = 0xa5;

type Chunk = &'static mut [u8; CHUNK_BYTES];

#[repr(C, align(4096))]
struct Page([u8; CHUNK_BYTES]);

static SPARE: Mutex<Vec<Chunk>> = Mutex::new(Vec::new());

/// A pool of `frames` chunks of memory that belong to worker `home`.
///
/// The chunks are never freed. Give them back with [`reclaim_pool`] and [`reclaim_frames`] where
/// many pools are made; a [`MemoryQueue`](crate::MemoryQueue) or [`LoopQueue`](crate::LoopQueue)
/// gives back by itself what it holds when it is dropped.
#[must_use]
pub fn memory_pool(frames: usize, home: u16) -> Pool {
    let mut chunks = {
        // A test that panicked elsewhere leaves the list whole: it is only pushed to and popped.
        let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = spare.len().saturating_sub(frames);
        spare.split_off(kept)
    };
    let missing = frames - chunks.len();
    for chunk in &mut chunks {
        chunk.fill(POISON);
    }
    let pages: Vec<Page> = (0..missing).map(|_| Page([POISON; CHUNK_BYTES])).collect();
    chunks.extend(pages.leak().iter_mut().map(|page| &mut page.0));
    Pool::new(chunks.into_iter().map(|chunk| Frame::new(chunk, home)).collect())
}

/// Takes back the free chunks of a pool of [`memory_pool`] for later pools.
pub fn reclaim_pool(mut pool: Pool) {
    reclaim_frames(std::iter::from_fn(|| pool.take()));
}

/// Takes back chunks of [`memory_pool`] for later pools.
pub fn reclaim_frames(frames: impl IntoIterator<Item = Frame>) {
    let mut spare = SPARE.lock().unwrap_or_else(PoisonError::into_inner);
    spare.extend(frames.into_iter().map(Frame::into_chunk));
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn chunks_are_distinct_pages_and_poisoned_again_when_they_come_back() {
        for round in 0..3 {
            let mut pool = memory_pool(17, round);
            assert_eq!((pool.capacity(), pool.free()), (17, 17));
            let mut frames: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
            let addresses: HashSet<_> = frames.iter().map(Frame::chunk_address).collect();
            assert_eq!(addresses.len(), 17);
            assert!(addresses.iter().all(|address| address % CHUNK_BYTES == 0));
            for frame in &mut frames {
                assert_eq!(frame.home(), round);
                let bytes = frame.reset(100).expect("100 bytes fit");
                assert!(bytes.iter().all(|&byte| byte == POISON));
                bytes.fill(0);
            }
            reclaim_frames(frames);
        }
    }
}
