//! What a worker holds in its hands: frames, batches, verdicts, and the two boundaries of a turn,
//! [`QueueIo`] (rings) and [`Hook`] (policy).
//!
//! ```text
//!            refill            receive
//!   Pool ------------> FILL . . RX ------> Batch --verdict--> transmit . . COMPLETION
//!     ^                                      |                                  |
//!     +------------------ drop --------------+                                  |
//!     +------------------------------- reclaim ---------------------------------+
//! ```
//!
//! Invariants: a [`Frame`] is the one owner of its chunk and cannot be copied; a chunk that the
//! kernel holds has no `Frame`. Every frame of a batch leaves with exactly one [`Verdict`].
// Reading the time stamp counter is the one exception.
#![deny(unsafe_code)]

mod batch;
mod drop_reason;
mod edits;
mod hook;
mod io;
mod packet_buffer;
mod pool;
pub mod tsc;
mod verdict;

pub use batch::{BATCH_MAX, Batch, Lines};
pub use drop_reason::DropReason;
pub use edits::{Act, DEEDS_MAX, Deed, Edits, KnownNumbers, NumberSet, PacketEdit};
pub use hook::{Blame, Hook, HookPoint, NoHook};
pub use io::{QueueIo, QueueStatus};
pub use packet_buffer::{CHUNK_BYTES, Frame, HEADROOM_BYTES};
pub use pool::Pool;
pub use sluice_abi::Descriptor;
pub use verdict::Verdict;

/// Monotonic time in nanoseconds since an arbitrary start. Time is an argument everywhere: nothing
/// below the router's main loop reads a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(pub u64);

impl Nanos {
    /// Nanoseconds from `earlier` to `self`, 0 if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` plus `nanos`.
    #[must_use]
    pub const fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}
