//! [`Anchor`]: keeps a program among those that the kernel calls directly, so that running it does not
//! wait.
//!
//! A run of a program over several frames enters it into the XDP dispatcher and takes it out again
//! (`bpf_prog_test_run_xdp` of net/bpf/test_run.c, `bpf_dispatcher_change_prog` of
//! kernel/bpf/dispatcher.c), each with a grace period of RCU: some 10 ms in which nothing is sent. A
//! program that is attached to a driver is in the dispatcher already, and is only counted. So it is
//! attached to a TAP device without a user, in a network namespace without a name.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
    thread,
};

use nix::sched::{CloneFlags, unshare};

use super::TesterError;
use crate::bpf;

/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// Holds the program in the dispatcher until it is dropped.
#[derive(Debug)]
pub(super) struct Anchor {
    _link: OwnedFd,
    _device: File,
    _namespace: File,
}

impl Anchor {
    /// For a loaded program.
    pub(super) fn new(program: BorrowedFd<'_>) -> Result<Self, TesterError> {
        thread::scope(|scope| {
            // Namespaces belong to threads: this one ends with its own.
            scope
                .spawn(|| Self::make(program))
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn make(program: BorrowedFd<'_>) -> Result<Self, TesterError> {
        let failed = |operation| move |error: io::Error| TesterError::Anchor { operation, error };
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| failed("unshare")(errno.into()))?;
        let namespace = File::open("/proc/thread-self/ns/net")
            .map_err(failed("opening /proc/thread-self/ns/net"))?;
        let device = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun")
            .map_err(failed("opening /dev/net/tun"))?;
        // SAFETY: the struct consists of integers, arrays and a union of these and a pointer: all zero
        // is valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (slot, byte) in request.ifr_name.iter_mut().zip(*b"anchor") {
            *slot = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the request is what this ioctl takes, and is borrowed exclusively for the call.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(failed("ioctl(TUNSETIFF)")(io::Error::last_os_error()));
        }
        let if_index = nix::net::if_::if_nametoindex("anchor")
            .map_err(|errno| failed("if_nametoindex")(errno.into()))?;
        let link = bpf::link_create(program, if_index, bpf::XDP_FLAGS_DRV_MODE)
            .map_err(failed("bpf_link_create"))?;
        Ok(Self { _link: link, _device: device, _namespace: namespace })
    }
}
