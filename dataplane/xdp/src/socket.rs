//! UMEM and sockets: everything between a [`frame::Frame`] and the four rings of a queue.

mod create;
mod descriptor;
mod options;
mod queue;
mod sleeper;
mod statistics;
mod umem;

pub use options::{BindMode, XskOptions, ZeroCopy};
pub use queue::XskQueue;
pub use sleeper::Sleeper;
pub use statistics::{StatisticsReader, XskStatistics};
pub use umem::{RX_RING_ENTRIES_MAX, Umem, UmemPlan};

/// Entries of a FILL ring for each one of an RX ring, so that a worker that was held up finds the kernel
/// still able to store what arrives. More would only pin chunks; fewer loses bursts.
pub const FILL_ENTRIES_PER_RX_ENTRY: usize = 2;

/// Entries of a COMPLETION ring: as many as TX, so that no frame in flight lacks a slot.
pub const COMPLETION_RING_ENTRIES: usize = 2048;

/// Entries of an RX ring unless a plan says otherwise: 2 ms of a million packets a second.
pub const RX_RING_ENTRIES: usize = 2048;

/// Entries of a TX ring, and the most frames that a queue may have in flight.
pub const TX_RING_ENTRIES: usize = 2048;
