//! [`Probe`]: what the classifier would decide about a packet, by running it in the kernel on that
//! packet (`BPF_PROG_TEST_RUN`).
//!
//! The probe is one more copy of the program. It shares the rules with those that are attached, and has
//! the last slot for itself, so that its packets are counted where nobody looks, and a socket that is
//! bound to nothing stands for the sockets of the queues: a test run does not carry a redirect out.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::Path,
};

use aya::{
    Ebpf,
    maps::{MapData, XskMap},
    programs::{TestRun, TestRunOptions},
};

use super::{Classifier, INTERFACES_MAX, QUEUES_MAX, REASONS_MAX, Reason, attach, map_error};
use crate::{XdpError, error::chain};

/// The slot of the probe: no interface has it, because an instance with that many has no probe.
const SLOT: u32 = INTERFACES_MAX as u32 - 1;

/// The least that the kernel runs an XDP program on: an Ethernet header.
const PACKET_BYTES_MIN: usize = 14;

/// A copy of the classifier that is attached to nothing.
pub(super) struct Probe {
    object: Ebpf,
    /// Kept as long as it stands in the map.
    _socket: OwnedFd,
}

impl Probe {
    pub(super) fn new(directory: &Path, xsks: &mut XskMap<MapData>) -> Result<Self, XdpError> {
        let object = attach::load(directory, SLOT)?;
        let socket = unbound_socket()
            .map_err(|error| XdpError::Load { reason: format!("a socket for probes: {error}") })?;
        xsks.set(SLOT * QUEUES_MAX, socket.as_raw_fd(), 0)
            .map_err(|error| map_error("xsks", "update", &error))?;
        Ok(Self { object, _socket: socket })
    }
}

fn unbound_socket() -> io::Result<OwnedFd> {
    // SAFETY: socket() touches no memory.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

impl Classifier {
    /// What the classifier decides about `frame` by the rules in force, while the router has a socket
    /// on the queue; `None` for a frame that is too short for the kernel to be asked about, or when the
    /// instance has as many interfaces as there are slots.
    ///
    /// # Errors
    /// [`XdpError::Load`] when the kernel does not run the program, [`XdpError::Map`].
    pub fn probe(&mut self, frame: &[u8]) -> Result<Option<Reason>, XdpError> {
        if frame.len() < PACKET_BYTES_MIN || self.probe.is_none() {
            return Ok(None);
        }
        let before = self.probe_counts()?;
        if let Some(probe) = &mut self.probe {
            let mut options = TestRunOptions::new();
            options.data_in = Some(frame);
            attach::program(&mut probe.object)?
                .test_run(options)
                .map_err(|error| XdpError::Load { reason: chain(&error) })?;
        }
        let after = self.probe_counts()?;
        let moved = before.iter().zip(&after).position(|(before, after)| before != after);
        Ok(moved.and_then(|position| Reason::ALL.get(position).copied()))
    }

    fn probe_counts(&self) -> Result<Vec<u64>, XdpError> {
        (0_u32..)
            .take(Reason::ALL.len())
            .map(|position| {
                let per_cpu = self
                    .counters
                    .get(&(SLOT * REASONS_MAX + position), 0)
                    .map_err(|error| map_error("counters", "look-up", &error))?;
                Ok(per_cpu.iter().sum())
            })
            .collect()
    }
}
