//! [`Classifier`]: the XDP program on all interfaces of one router instance, and its rules.
//!
//! ```text
//!  BPFFS/sluice/INSTANCE/
//!    xsks locals4 locals6 egress4 egress6 settings counters    one set of maps for all interfaces
//!    IF-link                                                   one for each interface
//! ```
//!
//! The program is loaded once for each interface: the copies differ in one constant, the slot that
//! selects sockets and counters, and share all maps.
//!
//! Invariants. From `attach` on, until `detach`, a program of ours decides on every packet, also after
//! a crash: links are pinned, and a later run replaces the program *in* the link. Rules are in the
//! maps before the program is attached. A rule that keeps packets from the kernel is added before
//! one that lets them through is removed. Nothing here is called by workers.

mod attach;
mod probe;
mod reason;
mod rules;
#[cfg(test)]
mod tests;

pub use attach::{AttachSpec, AttachedMode, XdpMode, detach};
pub use reason::{CounterValue, Reason};
pub use rules::{ClassifierRules, EGRESS_MAX, OnExit};

use std::{
    fmt,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
};

use aya::maps::{MapData, PerCpuArray, XskMap};
use wire::InterfaceId;

use crate::{XdpError, XskQueue, error::chain};
use rules::RuleMaps;

/// Queues of an interface that can have a socket.
pub(crate) const QUEUES_MAX: u32 = 64;

/// Interfaces of an instance.
pub(crate) const INTERFACES_MAX: usize = 64;

/// Counters that an interface has in the map, used or not.
const REASONS_MAX: u32 = 32;

/// The classifier on all interfaces of one router instance. Dropping it changes nothing in the
/// kernel: packets go on being classified, and without sockets egress addresses fail closed. See
/// [`detach`].
pub struct Classifier {
    interfaces: Vec<Attached>,
    rules: RuleMaps,
    xsks: XskMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    /// A copy of the program that is attached to nothing, to be asked; none when all slots are taken.
    probe: Option<probe::Probe>,
    /// Held as long as the instance lives, so that no second one takes its links over.
    _lock: OwnedFd,
}

/// One interface with the classifier on it; its position is its slot.
#[derive(Debug)]
struct Attached {
    id: InterfaceId,
    _link: OwnedFd,
}

impl Classifier {
    /// Loads the classifier with `initial` rules and attaches it to `interfaces`, in the mode of each;
    /// the modes that were got are returned in the same order. A pinned link of an earlier run, after
    /// a crash, is taken over: its program is replaced at once.
    ///
    /// `bpffs` is the mount point, usually `/sys/fs/bpf`.
    ///
    /// # Errors
    /// [`XdpError::NotBpffs`], [`XdpError::PinName`], [`XdpError::InstanceRunning`],
    /// [`XdpError::UnknownInterface`], [`XdpError::ForeignProgram`], [`XdpError::ModeChanged`],
    /// [`XdpError::Load`], [`XdpError::Attach`], [`XdpError::Pin`], [`XdpError::TooMany`] and
    /// [`XdpError::Map`]. Interfaces before the one that failed keep the classifier.
    pub fn attach(
        instance: &str,
        bpffs: &Path,
        interfaces: &[AttachSpec],
        initial: &ClassifierRules,
    ) -> Result<(Self, Vec<AttachedMode>), XdpError> {
        attach::attach(instance, bpffs, interfaces, initial)
    }

    /// Sends what the interface receives on queue `queue_id` to the socket of `queue`, from now on.
    /// Refill the queue before.
    ///
    /// # Errors
    /// [`XdpError::UnattachedInterface`], [`XdpError::OutOfRange`] for a queue number that the
    /// classifier has no place for, [`XdpError::Map`].
    pub fn set_socket(
        &mut self,
        interface: InterfaceId,
        queue_id: u32,
        queue: &XskQueue,
    ) -> Result<(), XdpError> {
        let key = self.socket_key(interface, queue_id)?;
        self.xsks
            .set(key, queue.as_fd().as_raw_fd(), 0)
            .map_err(|error| map_error("xsks", "update", &error))
    }

    /// Takes the socket of a queue away: what the queue receives is dropped or passed by the rules
    /// from now on. Without a socket nothing happens.
    ///
    /// # Errors
    /// As [`Self::set_socket`].
    pub fn clear_socket(&mut self, interface: InterfaceId, queue_id: u32) -> Result<(), XdpError> {
        let key = self.socket_key(interface, queue_id)?;
        match self.xsks.unset(key) {
            Ok(()) => Ok(()),
            Err(error) if is_not_found(&error) => Ok(()),
            Err(error) => Err(map_error("xsks", "delete", &error)),
        }
    }

    /// Replaces the rules by `rules` while packets flow. Only differences are written, in an order
    /// such that at no moment a packet to an address that is an egress address before *and* after is
    /// treated as one of the kernel's.
    ///
    /// # Errors
    /// [`XdpError::TooMany`], with no rule changed; [`XdpError::Map`], after which a repetition goes
    /// on where this call stopped.
    pub fn update_rules(&mut self, rules: &ClassifierRules) -> Result<(), XdpError> {
        self.rules.update(rules)
    }

    /// What was decided so far, for each interface and reason, summed over the CPUs: packets since the
    /// classifier was attached by this run.
    ///
    /// # Errors
    /// [`XdpError::Map`].
    pub fn counters(&self) -> Result<Vec<CounterValue>, XdpError> {
        let mut values = Vec::with_capacity(self.interfaces.len() * Reason::ALL.len());
        for (slot, attached) in (0_u32..).zip(&self.interfaces) {
            for (position, &reason) in (0_u32..).zip(Reason::ALL) {
                let per_cpu = self
                    .counters
                    .get(&(slot * REASONS_MAX + position), 0)
                    .map_err(|error| map_error("counters", "look-up", &error))?;
                values.push(CounterValue {
                    interface: attached.id,
                    reason,
                    packets: per_cpu.iter().sum(),
                });
            }
        }
        Ok(values)
    }

    fn socket_key(&self, interface: InterfaceId, queue_id: u32) -> Result<u32, XdpError> {
        if queue_id >= QUEUES_MAX {
            return Err(XdpError::OutOfRange {
                what: "the number of the queue",
                value: queue_id as usize,
                range: format!("0 to {}", QUEUES_MAX - 1),
            });
        }
        (0_u32..)
            .zip(&self.interfaces)
            .find(|(_, attached)| attached.id == interface)
            .map(|(slot, _)| slot * QUEUES_MAX + queue_id)
            .ok_or(XdpError::UnattachedInterface(interface.0))
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Classifier")
            .field("interfaces", &self.interfaces)
            .finish_non_exhaustive()
    }
}

fn map_error(map: &'static str, operation: &'static str, error: &aya::maps::MapError) -> XdpError {
    XdpError::Map { map, operation, reason: chain(error) }
}

/// Whether a deletion failed only since there is nothing to delete.
fn is_not_found(error: &aya::maps::MapError) -> bool {
    use aya::maps::MapError;
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}
