//! [`Handoff`]: the way of a frame to the worker that must finish it, and of its chunk home.
//!
//! ```text
//!  worker i                      worker j
//!  hand_over --> j's inbox ----> take       (the frame moves; nothing is copied)
//!  reclaim   <-- i's home  <---- send_home  (when j is done with the packet)
//! ```
//!
//! All chunks lie in one UMEM, so that worker *j* may send a chunk of worker *i* on its own rings; only
//! FILL takes none but a worker's own.
//!
//! Invariant: a worker has at most as many frames away as its home ring holds, so that a chunk always
//! finds room there, and a worker that takes nothing costs the others no more than that.

use core::fmt;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use frame::{Frame, Pool};

/// What wakes a worker that sleeps.
pub type Wake = Box<dyn Fn() + Send + Sync>;

/// What others may put before one worker.
struct Mailbox {
    inbox: ArrayQueue<Frame>,
    home: ArrayQueue<Frame>,
    wake: Wake,
}

/// One worker's end of the rings between all workers.
pub struct Handoff {
    id: u16,
    mailboxes: Arc<[Mailbox]>,
    /// Frames of this worker that others have, or that wait on its home ring.
    away: usize,
    /// Frames of others that this worker has.
    guests: usize,
    /// Workers that were given something since the last flush.
    rung: Vec<bool>,
    is_rung: bool,
}

/// The ends of the rings between as many workers as `wakes` has, in their order; each may have
/// `frames_max` frames away. The *i*-th of `wakes` is called when worker *i* was given something.
#[must_use]
pub fn handoff_mesh(frames_max: usize, wakes: Vec<Wake>) -> Vec<Handoff> {
    let mailboxes: Arc<[Mailbox]> = wakes
        .into_iter()
        .map(|wake| Mailbox {
            inbox: ArrayQueue::new(frames_max.max(1)),
            home: ArrayQueue::new(frames_max.max(1)),
            wake,
        })
        .collect();
    (0_u16..)
        .zip(mailboxes.iter())
        .map(|(id, _)| Handoff {
            id,
            mailboxes: Arc::clone(&mailboxes),
            away: 0,
            guests: 0,
            rung: vec![false; mailboxes.len()],
            is_rung: false,
        })
        .collect()
}

impl Handoff {
    /// The worker for a hash: an even spread without a division.
    #[inline]
    pub(crate) fn worker_for(&self, hash: u32) -> u16 {
        let worker = (u64::from(hash) * self.mailboxes.len() as u64) >> 32;
        u16::try_from(worker).unwrap_or_default()
    }

    /// Number of this worker.
    #[inline]
    pub(crate) fn id(&self) -> u16 {
        self.id
    }

    /// The most frames of others that can be here at a time.
    pub(crate) fn guests_max(&self) -> usize {
        let others = self.mailboxes.iter().enumerate();
        let others = others.filter(|(position, _)| *position != usize::from(self.id));
        others.map(|(_, mailbox)| mailbox.home.capacity()).sum()
    }

    /// Gives a frame to another worker.
    ///
    /// # Errors
    /// Gives it back when as many as allowed are away, or the other one's inbox is full.
    pub(crate) fn hand_over(&mut self, frame: Frame, worker: u16) -> Result<(), Frame> {
        let position = usize::from(worker);
        let (Some(mine), Some(theirs)) =
            (self.mailboxes.get(usize::from(self.id)), self.mailboxes.get(position))
        else {
            return Err(frame);
        };
        if self.away >= mine.home.capacity() {
            return Err(frame);
        }
        theirs.inbox.push(frame)?;
        self.away += 1;
        self.is_rung = true;
        if let Some(rung) = self.rung.get_mut(position) {
            *rung = true;
        }
        Ok(())
    }

    /// Whether others have given this worker something.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        self.mailboxes.get(usize::from(self.id)).is_some_and(|mine| !mine.inbox.is_empty())
    }

    /// Takes what another worker gave. It is a guest until its chunk is sent home.
    pub(crate) fn take(&mut self) -> Option<Frame> {
        let frame = self.mailboxes.get(usize::from(self.id))?.inbox.pop()?;
        self.guests += 1;
        Some(frame)
    }

    /// Takes home what others are done with, and sends home what this worker is done with.
    #[inline]
    pub(crate) fn reclaim(&mut self, pool: &mut Pool) {
        if self.away > 0 {
            self.come_home(pool);
        }
        if pool.strangers() > 0 {
            self.send_home(pool);
        }
    }

    #[cold]
    fn come_home(&mut self, pool: &mut Pool) {
        let Some(mine) = self.mailboxes.get(usize::from(self.id)) else { return };
        while let Some(frame) = mine.home.pop() {
            self.away -= 1;
            pool.give(frame);
        }
    }

    #[cold]
    fn send_home(&mut self, pool: &mut Pool) {
        while let Some(frame) = pool.take_stranger() {
            let Some(theirs) = self.mailboxes.get(usize::from(frame.home())) else { continue };
            let sent = theirs.home.push(frame);
            // The ring holds as many as can be away.
            debug_assert!(sent.is_ok(), "more frames came back than went");
            self.guests -= 1;
        }
    }

    /// Wakes those that were given something, once a turn.
    #[inline]
    pub(crate) fn flush(&mut self) {
        if core::mem::take(&mut self.is_rung) {
            for (rung, mailbox) in self.rung.iter_mut().zip(self.mailboxes.iter()) {
                if core::mem::take(rung) {
                    (mailbox.wake)();
                }
            }
        }
    }

    /// Frames of this worker that others have.
    pub(crate) fn away(&self) -> usize {
        self.away
    }

    /// Frames of others that this worker has.
    pub(crate) fn guests(&self) -> usize {
        self.guests
    }
}

impl fmt::Debug for Handoff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handoff")
            .field("id", &self.id)
            .field("away", &self.away)
            .field("guests", &self.guests)
            .finish_non_exhaustive()
    }
}
