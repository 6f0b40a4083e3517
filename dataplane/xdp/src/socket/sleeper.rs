//! [`Sleeper`]: where a worker in adaptive mode waits.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use super::XskQueue;

/// The file descriptors that can wake a worker. It is made once; sleeping allocates nothing.
///
/// The descriptors are not owned: a queue that is dropped must not be slept on any more (the kernel
/// would report an invalid descriptor at once, and [`Sleeper::sleep`] an error).
#[derive(Debug, Default)]
pub struct Sleeper {
    descriptors: Vec<libc::pollfd>,
}

impl Sleeper {
    /// A sleeper that wakes when one of `queues` has received something.
    pub fn new<'queues>(queues: impl IntoIterator<Item = &'queues XskQueue>) -> Self {
        let mut sleeper = Self::default();
        for queue in queues {
            sleeper.add(queue);
        }
        sleeper
    }

    /// Also wakes when `descriptor` becomes readable: the eventfd that another worker signals after a
    /// handoff, for instance.
    pub fn add(&mut self, descriptor: &impl AsFd) {
        self.descriptors.push(libc::pollfd {
            fd: descriptor.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
    }

    /// Sleeps until something was received or `timeout_ms` have passed. In copy mode the kernel also
    /// takes what is on TX. Returns whether something is ready; a signal counts as nothing.
    ///
    /// # Errors
    /// What `poll` says, and `EBADF` for a descriptor that is not open.
    pub fn sleep(&mut self, timeout_ms: u16) -> io::Result<bool> {
        // SAFETY: the array is borrowed exclusively for the call, and its length is passed.
        let ready = unsafe {
            libc::poll(
                self.descriptors.as_mut_ptr(),
                self.descriptors.len() as libc::nfds_t,
                libc::c_int::from(timeout_ms),
            )
        };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) };
        }
        if self.descriptors.iter().any(|entry| entry.revents & libc::POLLNVAL != 0) {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        Ok(ready > 0)
    }
}
