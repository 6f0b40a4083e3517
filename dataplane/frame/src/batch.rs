//! [`Batch`]: the frames of one turn with what is known of each.

use std::ops::{Deref, DerefMut};

use sluice_abi::Descriptor;

use crate::{Edits, Frame, Verdict};

/// The most frames that a batch holds. More would push the descriptors out of the first-level
/// cache (256 x 64 bytes); fewer leaves less to prefetch across.
pub const BATCH_MAX: usize = sluice_abi::BATCH_MAX;

/// The frames handled together in one turn, with a descriptor and a verdict for each, side by side.
/// Entry *i* of each array speaks of frame *i*.
#[derive(Debug)]
pub struct Batch {
    /// The frames, in order of arrival.
    pub frames: Vec<Frame>,
    /// What the parser learnt of each frame; entries from `frames.len()` on mean nothing.
    pub descriptors: Box<Lines<[Descriptor; BATCH_MAX]>>,
    /// What is decided for each frame; entries from `frames.len()` on mean nothing.
    pub verdicts: Box<[Verdict; BATCH_MAX]>,
    /// What policy set on each frame besides; empty between two batches.
    pub edits: Edits,
}

/// A value that begins with a line of the cache. Descriptors have the size of a line: so each lies in one
/// instead of two, which makes copying them a quarter quicker.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub struct Lines<T>(pub T);

impl<T> Deref for Lines<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Lines<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl Batch {
    /// An empty batch with room for [`BATCH_MAX`] frames.
    #[must_use]
    pub fn new() -> Self {
        Self {
            frames: Vec::with_capacity(BATCH_MAX),
            descriptors: Box::new(Lines([Descriptor::default(); BATCH_MAX])),
            verdicts: Box::new([Verdict::Continue; BATCH_MAX]),
            edits: Edits::new(),
        }
    }

    /// Number of frames.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether there is no frame.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// How many more frames fit.
    #[inline]
    #[must_use]
    pub fn room(&self) -> usize {
        BATCH_MAX - self.frames.len()
    }

    /// Adds a frame, with no verdict yet.
    ///
    /// # Errors
    /// Gives the frame back when the batch is full.
    #[inline]
    pub fn push(&mut self, frame: Frame) -> Result<(), Frame> {
        let Some(verdict) = self.verdicts.get_mut(self.frames.len()) else {
            return Err(frame);
        };
        *verdict = Verdict::Continue;
        self.frames.push(frame);
        Ok(())
    }
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}
