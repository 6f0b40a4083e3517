//! What a socket is asked for, and the mode that it got.

use std::fmt;

use crate::{FILL_ENTRIES_PER_RX_ENTRY, RX_RING_ENTRIES, TX_RING_ENTRIES, XdpError};

/// Whether a socket may, must or must not let the device read and write the UMEM itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ZeroCopy {
    /// Zero-copy if the driver supports it, else copy. The first socket of a UMEM decides for all.
    #[default]
    Auto,
    /// Zero-copy, or an error.
    Force,
    /// Copy.
    Off,
}

/// How packets get between the device and the UMEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BindMode {
    /// The device reads and writes the UMEM itself.
    ZeroCopy,
    /// The kernel copies each packet.
    Copy,
}

impl BindMode {
    /// The mode in one word, as logs and metrics show it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::ZeroCopy => "zero-copy",
            Self::Copy => "copy",
        }
    }
}

impl fmt::Display for BindMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.label())
    }
}

/// How a socket is to be bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XskOptions {
    /// Number of the worker that drives the queue: its position among the pools of the UMEM. Only
    /// frames of that pool may be refilled; frames of any pool may be transmitted.
    pub worker: u16,
    /// Zero-copy or copy.
    pub zero_copy: ZeroCopy,
    /// Whether the worker polls the driver itself (`SO_PREFER_BUSY_POLL`), which keeps interrupts
    /// away from a dedicated core.
    pub busy_poll: bool,
    /// The most frames on FILL and RX together, at most as many as FILL has entries. It bounds what an
    /// interface without traffic keeps from the pool.
    pub receiving_frames_max: usize,
    /// The most frames in flight on TX and COMPLETION together, at most [`TX_RING_ENTRIES`]. It
    /// bounds what a dead link keeps from the pool.
    pub quota_frames: usize,
}

impl XskOptions {
    /// The defaults for a queue that `worker` drives: zero-copy if possible, busy polling, all of the
    /// rings in use.
    #[must_use]
    pub const fn for_worker(worker: u16) -> Self {
        Self {
            worker,
            zero_copy: ZeroCopy::Auto,
            busy_poll: true,
            receiving_frames_max: RX_RING_ENTRIES * FILL_ENTRIES_PER_RX_ENTRY,
            quota_frames: TX_RING_ENTRIES,
        }
    }

    /// Whether they fit queues whose RX ring has `rx_ring_entries`.
    pub(super) fn check(&self, rx_ring_entries: usize) -> Result<(), XdpError> {
        let fill_entries = rx_ring_entries * FILL_ENTRIES_PER_RX_ENTRY;
        for (what, value, max) in [
            ("receiving_frames_max", self.receiving_frames_max, fill_entries),
            ("quota_frames", self.quota_frames, TX_RING_ENTRIES),
        ] {
            if value == 0 || value > max {
                return Err(XdpError::OutOfRange { what, value, range: format!("1 to {max}") });
            }
        }
        Ok(())
    }
}
