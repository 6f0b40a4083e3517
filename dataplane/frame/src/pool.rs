//! [`Pool`]: a worker's free list of chunks.

use crate::Frame;

/// A worker's free list. Its capacity is the number of chunks that the worker owns, so that giving
/// one back never allocates.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Frame>,
    capacity: usize,
}

impl Pool {
    /// A pool of all chunks of one worker.
    #[must_use]
    pub fn new(frames: Vec<Frame>) -> Self {
        let capacity = frames.len();
        Self { free: frames, capacity }
    }

    /// Number of chunks that the worker owns, wherever they are now.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of free chunks.
    #[inline]
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free chunk.
    #[inline]
    pub fn take(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    /// Gives a chunk back.
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        debug_assert!(self.free.len() < self.capacity, "a chunk was given back twice");
        self.free.push(frame);
    }
}
