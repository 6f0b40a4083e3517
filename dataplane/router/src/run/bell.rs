//! [`Bell`]: wakes a worker that sleeps when another one hands it frames.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use anyhow::{Context, Result};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// An eventfd that a sleeping worker polls together with its sockets.
#[derive(Clone, Debug)]
pub(crate) struct Bell(Arc<EventFd>);

impl Bell {
    pub(crate) fn new() -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let descriptor = EventFd::from_value_and_flags(0, flags)
            .context("an eventfd between the workers cannot be made")?;
        Ok(Self(Arc::new(descriptor)))
    }

    /// Wakes the worker, or keeps it from its next sleep.
    pub(crate) fn ring(&self) {
        // It can only fail when it has been rung 2^64 - 2 times unheard.
        let _ = self.0.write(1);
    }

    /// Forgets that it was rung. Before the worker looks at what it was rung for.
    pub(crate) fn silence(&self) {
        // Nothing to read means that it was not rung.
        let _ = self.0.read();
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
