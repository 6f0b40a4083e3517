//! Creating a socket with xsk-rs: the flags, the wait for a queue that is busy, the options.

use std::{
    ffi::CString,
    io,
    os::fd::RawFd,
    time::{Duration, Instant},
};

use xsk_rs::{
    CompQueue, FillQueue, RxQueue, Socket, TxQueue,
    config::{BindFlags, Interface, LibxdpFlags, SocketConfig},
};

use super::{
    BindMode, TX_RING_ENTRIES, Umem,
    statistics::set_option,
    umem::{io_error, ring_size},
};

/// How long a bind waits for a queue that is busy. What holds it longer is not about to go.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(1);

/// The rings of a new socket; FILL and COMPLETION are missing when the queue has a socket of this UMEM.
pub(super) type Rings = (TxQueue, RxQueue, Option<(FillQueue, CompQueue)>);

/// Creates and binds a socket in one mode, waiting for a queue that a predecessor is about to release:
/// the kernel takes down the sockets of a process that died in the background (`xp_release_deferred`
/// of net/xdp/xsk_buff_pool.c), so that a restart finds its own queues busy for some milliseconds.
pub(super) fn create_when_free(
    umem: &Umem,
    if_name: &str,
    queue_id: u32,
    mode: BindMode,
) -> io::Result<Rings> {
    let start = Instant::now();
    loop {
        match create_socket(umem, if_name, queue_id, mode) {
            Err(error)
                if error.raw_os_error() == Some(libc::EBUSY) && start.elapsed() < BUSY_WAIT_MAX =>
            {
                std::thread::sleep(BUSY_WAIT_MAX / 100);
            }
            result => return result,
        }
    }
}

/// Creates and binds a socket in one mode, without the program that libxdp would load.
fn create_socket(umem: &Umem, if_name: &str, queue_id: u32, mode: BindMode) -> io::Result<Rings> {
    let name = CString::new(if_name).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    let mode_flag = match mode {
        BindMode::ZeroCopy => BindFlags::XDP_ZEROCOPY,
        BindMode::Copy => BindFlags::XDP_COPY,
    };
    let config = SocketConfig::builder()
        .rx_queue_size(ring_size(umem.rx_ring_entries()))
        .tx_queue_size(ring_size(TX_RING_ENTRIES))
        .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
        .bind_flags(mode_flag | BindFlags::XDP_USE_NEED_WAKEUP)
        .build();
    // SAFETY: the contract asks for INHIBIT_PROG_LOAD when the pair is bound twice: it is always set.
    unsafe { Socket::new(config, umem.handle(), &Interface::new(name), queue_id) }
        .map_err(|error| io_error(&error))
}

/// Asks for busy polling, or says which option was refused.
pub(super) fn set_busy_poll(fd: RawFd) -> Result<(), (&'static str, io::Error)> {
    // 20 us and 64 packets: what the kernel's documentation of AF_XDP measures with
    // (Documentation/networking/napi.rst, "Busy polling").
    for (name, option, value) in [
        ("SO_PREFER_BUSY_POLL", libc::SO_PREFER_BUSY_POLL, 1),
        ("SO_BUSY_POLL", libc::SO_BUSY_POLL, 20),
        ("SO_BUSY_POLL_BUDGET", libc::SO_BUSY_POLL_BUDGET, 64),
    ] {
        set_option(fd, libc::SOL_SOCKET, option, value).map_err(|error| (name, error))?;
    }
    Ok(())
}
