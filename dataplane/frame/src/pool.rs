//! [`Pool`]: a worker's free list of chunks.
//!
//! A chunk comes back to the worker that was done with its packet, which after a handoff is not the
//! worker that owns it. The pool sorts: its own chunks are free, strangers wait for their way home.

use crate::Frame;

/// A worker's free list. Its capacity is the number of chunks that the worker owns, so that giving
/// one back never allocates.
#[derive(Debug)]
pub struct Pool {
    free: Vec<Frame>,
    capacity: usize,
    home: u16,
    strangers: Vec<Frame>,
}

impl Pool {
    /// A pool of all chunks of one worker.
    #[must_use]
    pub fn new(frames: Vec<Frame>) -> Self {
        let capacity = frames.len();
        let home = frames.first().map_or(0, Frame::home);
        Self { free: frames, capacity, home, strangers: Vec::new() }
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

    /// Gives a chunk back; that of another worker waits for [`Self::take_stranger`].
    #[inline]
    pub fn give(&mut self, frame: Frame) {
        if frame.home() != self.home {
            return self.give_stranger(frame);
        }
        debug_assert!(self.free.len() < self.capacity, "a chunk was given back twice");
        self.free.push(frame);
    }

    #[cold]
    fn give_stranger(&mut self, frame: Frame) {
        self.strangers.push(frame);
    }

    /// Makes room for as many chunks of other workers as can be here at a time, so that giving one
    /// back never allocates.
    pub fn expect_strangers(&mut self, frames_max: usize) {
        self.strangers.reserve(frames_max);
    }

    /// Number of chunks of other workers that wait for their way home.
    #[inline]
    #[must_use]
    pub fn strangers(&self) -> usize {
        self.strangers.len()
    }

    /// Takes a chunk of another worker, for its way home.
    #[inline]
    pub fn take_stranger(&mut self) -> Option<Frame> {
        self.strangers.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHUNK_BYTES;

    fn frame(home: u16) -> Frame {
        Frame::new(Box::leak(Box::new([0; CHUNK_BYTES])), home)
    }

    #[test]
    fn strangers_are_never_taken_for_free_chunks() {
        let mut pool = Pool::new(vec![frame(3), frame(3)]);
        let mine = pool.take().expect("a chunk");
        pool.give(frame(4));
        pool.give(mine);
        assert_eq!((pool.free(), pool.strangers()), (2, 1));
        assert_eq!(pool.take_stranger().map(|frame| frame.home()), Some(4));
        assert!(pool.take_stranger().is_none());
        while let Some(frame) = pool.take() {
            assert_eq!(frame.home(), 3);
        }
    }
}
