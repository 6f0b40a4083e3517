//! [`RedirectSink`]: gives what arrives to AF_XDP sockets, so that a program in user space is the sink.

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use aya::{
    EbpfLoader,
    maps::{MapData, MapError, PerCpuArray, XskMap},
};

use super::{TesterError, program};
use crate::{AttachedMode, XdpMode, XskQueue, error::chain};

/// The compiled program, and its name.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirect.o"));
const PROGRAM: &str = "tester_redirect";

/// Queues that can have a socket; redirect.c repeats it.
const QUEUES_MAX: u32 = 64;

/// The program on one interface that gives UDP and TCP packets to the socket of the queue that they
/// arrived on, and everything else, or without a socket everything, to the kernel. Dropping it detaches
/// the program.
///
/// An interface that is only sent on needs none: bind an [`XskQueue`], never call `refill` on it, and
/// nothing is received.
pub struct RedirectSink {
    sockets: XskMap<MapData>,
    passed: PerCpuArray<MapData, u64>,
    mode: AttachedMode,
    _link: OwnedFd,
}

impl RedirectSink {
    /// Attaches the program to the interface of the thread's network namespace.
    ///
    /// # Errors
    /// [`TesterError::Load`], [`TesterError::Attach`], [`TesterError::Map`], and
    /// [`XdpError::UnknownInterface`](crate::XdpError::UnknownInterface).
    pub fn attach(interface: &str, mode: XdpMode) -> Result<Self, TesterError> {
        let mut object = program::load(PROGRAM, OBJECT, &mut EbpfLoader::new())?;
        let sockets = object.take_map("sockets").ok_or_else(|| missing("sockets"))?;
        let sockets = XskMap::try_from(sockets).map_err(map_error("sockets", "open"))?;
        let passed = object.take_map("passed").ok_or_else(|| missing("passed"))?;
        let passed = PerCpuArray::try_from(passed).map_err(map_error("passed", "open"))?;
        let (link, mode) = program::attach(&mut object, PROGRAM, interface, mode)?;
        Ok(Self { sockets, passed, mode, _link: link })
    }

    /// The mode that the kernel gave.
    #[must_use]
    pub fn mode(&self) -> AttachedMode {
        self.mode
    }

    /// Gives what the queue of `queue` receives to its socket, from now on. Refill the queue before.
    ///
    /// # Errors
    /// [`TesterError::OutOfRange`] for a queue number that the program has no place for,
    /// [`TesterError::Map`].
    pub fn set_socket(&mut self, queue: &XskQueue) -> Result<(), TesterError> {
        let number = queue.queue_id();
        if number >= QUEUES_MAX {
            return Err(TesterError::OutOfRange {
                what: "the number of the queue",
                value: number.into(),
                min: 0,
                max: (QUEUES_MAX - 1).into(),
            });
        }
        self.sockets
            .set(number, queue.as_fd().as_raw_fd(), 0)
            .map_err(map_error("sockets", "update"))
    }

    /// Packets that went to the kernel since the program was attached.
    ///
    /// # Errors
    /// [`TesterError::Map`].
    pub fn passed(&self) -> Result<u64, TesterError> {
        let per_cpu = self.passed.get(&0, 0).map_err(map_error("passed", "look-up"))?;
        Ok(per_cpu.iter().sum())
    }
}

impl fmt::Debug for RedirectSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RedirectSink").field("mode", &self.mode).finish_non_exhaustive()
    }
}

fn missing(map: &'static str) -> TesterError {
    TesterError::Map { map, operation: "open", reason: "the object has no such map".into() }
}

fn map_error(map: &'static str, operation: &'static str) -> impl Fn(MapError) -> TesterError {
    move |error| TesterError::Map { map, operation, reason: chain(&error) }
}
