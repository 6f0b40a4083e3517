//! [`QueueIo`]: the four rings of one queue of one interface, whatever moves them.

use crate::{Batch, Frame, Pool};

/// The rings of one queue (interface, queue id), as a worker drives them: AF_XDP in `xdp`, memory in
/// `sim`. One turn calls `reclaim`, `refill`, `receive`, any number of `transmit`, then `flush`.
pub trait QueueIo {
    /// COMPLETION to pool. Returns how many frames came back.
    fn reclaim(&mut self, pool: &mut Pool) -> usize;

    /// Pool to FILL, as many as fit. Returns how many frames went.
    fn refill(&mut self, pool: &mut Pool) -> usize;

    /// RX to the end of `batch`, at most `frames_max` and at most what the batch has room for.
    /// Returns how many came. Frames whose bounds make no sense are given back to `pool` and counted
    /// in [`QueueStatus::rx_invalid`].
    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool, frames_max: usize) -> usize;

    /// Puts a frame on TX.
    ///
    /// # Errors
    /// Gives the frame back when TX is full, when this queue already has its quota of frames in
    /// flight, or when its link is down. The caller flushes once and tries again, then drops.
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame>;

    /// Tells the kernel of what was put on TX and FILL since the last call: the doorbell.
    fn flush(&mut self);

    /// Where this queue's frames are, and what it lost.
    fn status(&self) -> QueueStatus;
}

/// Where a queue's frames are, and what it lost. The first two, with the pool's free frames and
/// those held, make the number of chunks: the conservation of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueStatus {
    /// Frames on FILL or RX, or being filled by the kernel.
    pub receiving: usize,
    /// Frames on TX or COMPLETION, or being sent by the kernel.
    pub transmitting: usize,
    /// Frames that RX reported with bounds outside their chunk.
    pub rx_invalid: u64,
    /// System calls made to wake the kernel.
    pub kicks: u64,
}
