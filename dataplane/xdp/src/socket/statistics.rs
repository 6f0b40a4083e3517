//! [`StatisticsReader`]: what the kernel counted on a socket, readable from any thread.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{Arc, Weak},
};

/// What the kernel lost or lacked on one socket since it was bound (`struct xdp_statistics` of
/// `linux/if_xdp.h`). All counts are of packets or descriptors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct XskStatistics {
    /// Packets dropped for other reasons than those below, for instance without a chunk on FILL or
    /// longer than a chunk.
    pub rx_dropped: u64,
    /// FILL entries that the kernel refused.
    pub rx_invalid: u64,
    /// TX descriptors that the kernel refused. More than 0 is a bug of this program.
    pub tx_invalid: u64,
    /// Packets dropped since RX was full: the worker was too slow.
    pub rx_ring_full: u64,
    /// Times that the kernel found FILL empty: the pool had no free chunk in time.
    pub fill_empty: u64,
    /// Times that the kernel found TX empty.
    pub tx_empty: u64,
}

/// Reads a socket's [`XskStatistics`]. It does not keep the socket open.
#[derive(Clone, Debug)]
pub struct StatisticsReader {
    socket: Weak<OwnedFd>,
}

impl StatisticsReader {
    pub(super) fn new(socket: &Arc<OwnedFd>) -> Self {
        Self { socket: Arc::downgrade(socket) }
    }

    /// What was counted so far; `None` once the queue is gone.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn read(&self) -> io::Result<Option<XskStatistics>> {
        let Some(socket) = self.socket.upgrade() else { return Ok(None) };
        let mut statistics = XskStatistics::default();
        get_option(
            socket.as_raw_fd(),
            libc::XDP_STATISTICS,
            bytemuck::bytes_of_mut(&mut statistics),
        )?;
        Ok(Some(statistics))
    }
}

/// Reads a socket option of level `SOL_XDP`. An older kernel may write less than `value` holds.
pub(super) fn get_option(fd: libc::c_int, option: libc::c_int, value: &mut [u8]) -> io::Result<()> {
    let mut length = value.len() as libc::socklen_t;
    // SAFETY: `value` is borrowed exclusively for the call, and the kernel writes at most `length`
    // bytes of it.
    let result = unsafe {
        libc::getsockopt(fd, libc::SOL_XDP, option, value.as_mut_ptr().cast(), &raw mut length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sets an integer socket option.
pub(super) fn set_option(
    fd: libc::c_int,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: the kernel reads the 4 bytes of `value`, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
