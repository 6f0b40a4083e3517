//! The way to the kernel of this machine: a bounded ring to a thread that writes packets to a TUN
//! device, and a ring on which the chunks come home.

use core::fmt;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use frame::{DropReason, Frame, Nanos, Pool};

use crate::bucket::Bucket;

/// The rings between one worker and the thread that writes to the kernel.
#[derive(Debug)]
struct Rings {
    to_kernel: ArrayQueue<Frame>,
    home: ArrayQueue<Frame>,
}

/// The worker's end.
pub struct PuntSender {
    rings: Arc<Rings>,
    limit: Bucket,
    away: usize,
    pushed: bool,
    wake: Box<dyn Fn() + Send>,
}

/// The kernel's end. Frames are IP packets, without a link-layer header.
#[derive(Debug)]
pub struct PuntReceiver {
    rings: Arc<Rings>,
}

/// The two ends of a way to the kernel on which at most `frames_max` frames are under way. `wake` is
/// called at the end of each turn that sent any.
#[must_use]
pub fn punt_channel(
    frames_max: usize,
    wake: impl Fn() + Send + 'static,
) -> (PuntSender, PuntReceiver) {
    let rings = Arc::new(Rings {
        to_kernel: ArrayQueue::new(frames_max),
        // As many come home as went, so that this one can never be full.
        home: ArrayQueue::new(frames_max),
    });
    let sender = PuntSender {
        rings: Arc::clone(&rings),
        limit: Bucket::default(),
        away: 0,
        pushed: false,
        wake: Box::new(wake),
    };
    (sender, PuntReceiver { rings })
}

impl PuntSender {
    /// Takes home what the kernel's end is done with.
    #[inline]
    pub(crate) fn reclaim(&mut self, pool: &mut Pool) {
        if self.away == 0 {
            return;
        }
        while let Some(frame) = self.rings.home.pop() {
            self.away -= 1;
            pool.give(frame);
        }
    }

    /// Sends a frame to the kernel, `per_s` of them a second at most.
    ///
    /// # Errors
    /// Gives the frame back when as many as allowed are under way, or went in the last time.
    pub(crate) fn send(
        &mut self,
        frame: Frame,
        per_s: u32,
        now: Nanos,
    ) -> Result<(), (Frame, DropReason)> {
        if self.away >= self.rings.home.capacity() {
            return Err((frame, DropReason::PuntFull));
        }
        if !self.limit.take(per_s, now) {
            return Err((frame, DropReason::PuntLimited));
        }
        self.rings.to_kernel.push(frame).map_err(|frame| (frame, DropReason::PuntFull))?;
        self.away += 1;
        self.pushed = true;
        Ok(())
    }

    /// Says that there is something to take, once a turn.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if core::mem::take(&mut self.pushed) {
            (self.wake)();
        }
    }

    /// Frames that are under way.
    #[must_use]
    pub fn away(&self) -> usize {
        self.away
    }
}

impl fmt::Debug for PuntSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PuntSender").field("away", &self.away).finish_non_exhaustive()
    }
}

impl PuntReceiver {
    /// Takes the next frame. It must come back through [`give_back`](Self::give_back).
    #[must_use]
    pub fn receive(&self) -> Option<Frame> {
        self.rings.to_kernel.pop()
    }

    /// Sends a frame's chunk home.
    pub fn give_back(&self, frame: Frame) {
        let given = self.rings.home.push(frame);
        // The ring holds as many as can be away.
        debug_assert!(given.is_ok(), "more frames came back than went");
    }
}
