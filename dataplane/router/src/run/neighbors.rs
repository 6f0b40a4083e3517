//! The neighbors that the kernel keeps fresh for the router: those that routes, owners and tunnels
//! lead to as long as they do, and those that packets ask for as long as they answer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use control::kernel::{KernelMirror, Management, Neighbor as Known, NeighborChange, NeighborState};
use control::publication::Publication;
use forward::Neighbor;
use tables::AdjacencyState;
use tracing::warn;

use crate::run::host_state::HostState;

/// Neighbors that packets asked for, kept at most. A scan of a connected prefix asks for all of its
/// addresses; more than this would fill the kernel's neighbor table (`gc_thresh3`, 1024 by default).
const SOUGHT_MAX: usize = 512;

/// How long a neighbor that does not answer is remembered as failed before it may be asked again.
const FAILED_FOR: Duration = Duration::from_secs(3);

/// How often the kernel is asked again for what it let go of: somebody may take entries away all the time.
const RESTORE_EVERY: Duration = Duration::from_millis(200);

/// The same when it refused.
const REFUSED_FOR: Duration = Duration::from_secs(5);

/// What the kernel was asked to keep.
///
/// The kernel lets go of entries by itself when a link goes down or its address changes, and an operator can
/// take them away (`ip neighbor flush`). What is still wanted is asked for again.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The router listens to what the kernel knows of neighbors; otherwise there is nothing to ask for.
    is_listening: bool,
    required: HashSet<Neighbor>,
    sought: HashMap<Neighbor, Instant>,
    /// Of both, what the kernel no longer keeps.
    lost: HashSet<Neighbor>,
    /// Of those, what it refused to keep.
    refused: HashSet<Neighbor>,
    /// When to ask for them.
    restore_at: Option<Instant>,
    /// The kernel has shown that it keeps neighbors by itself.
    is_kernel_able: bool,
}

impl Kept {
    /// Nothing as yet. `is_listening` is `kernel.neighbors` of the configuration.
    pub(crate) fn new(is_listening: bool) -> Self {
        Self {
            is_listening,
            required: HashSet::new(),
            sought: HashMap::new(),
            lost: HashSet::new(),
            refused: HashSet::new(),
            restore_at: None,
            is_kernel_able: false,
        }
    }

    /// Asks the kernel for every neighbor that something leads to now, and releases the others.
    pub(crate) fn follow(
        &mut self,
        publication: &Publication,
        host: &HostState,
        mirror: &KernelMirror,
    ) {
        let wanted: HashSet<Neighbor> = publication.required_neighbors().collect();
        let before = std::mem::replace(&mut self.required, wanted);
        for neighbor in before.difference(&self.required) {
            if !self.sought.contains_key(neighbor) {
                self.lost.remove(neighbor);
                remove(*neighbor, host, mirror);
            }
        }
        let new: Vec<Neighbor> = self.required.difference(&before).copied().collect();
        for neighbor in new {
            self.install(neighbor, host, mirror);
        }
    }

    /// Takes news of a neighbor in. One that the kernel learnt by itself it is to keep fresh: it sees none of
    /// the packets that workers send there, and would let its address grow stale.
    pub(crate) fn adopt(
        &mut self,
        change: &NeighborChange,
        host: &HostState,
        mirror: &KernelMirror,
    ) {
        let Some(interface) = host.interface(change.ifindex) else { return };
        let neighbor = (interface, change.address);
        let is_kept = self.contains(&neighbor);
        match change.neighbor {
            None if is_kept => {
                self.lost.insert(neighbor);
            }
            Some(known) if known.managed => {
                self.lost.remove(&neighbor);
            }
            // What is permanent needs no care.
            Some(Known { state: NeighborState::Permanent | NeighborState::NoArp, .. }) | None => {}
            Some(_) if is_kept && self.is_kernel_able => {
                self.lost.insert(neighbor);
            }
            Some(known)
                if matches!(known.state, NeighborState::Stale | NeighborState::Reachable) =>
            {
                self.seek(neighbor, host, mirror);
            }
            Some(_) => {}
        }
    }

    /// Asks the kernel again for what it let go of, on links that are up.
    pub(crate) fn restore(&mut self, host: &HostState, mirror: &KernelMirror) {
        let now = Instant::now();
        if self.lost.is_empty() || self.restore_at.is_some_and(|at| now < at) {
            return;
        }
        let lost = std::mem::take(&mut self.lost);
        self.refused.retain(|neighbor| lost.contains(neighbor));
        for neighbor in lost {
            if !self.contains(&neighbor) {
                self.refused.remove(&neighbor);
            } else if host.is_up(neighbor.0) {
                self.install(neighbor, host, mirror);
            } else {
                self.lost.insert(neighbor);
            }
        }
        let pause = if self.refused.is_empty() { RESTORE_EVERY } else { REFUSED_FOR };
        self.restore_at = Some(now + pause);
    }

    /// Asks the kernel for a neighbor that a packet waits for.
    pub(crate) fn seek(&mut self, neighbor: Neighbor, host: &HostState, mirror: &KernelMirror) {
        if self.required.contains(&neighbor) || self.sought.contains_key(&neighbor) {
            // It is being resolved, or has just failed: the kernel goes on by itself.
            return;
        }
        if self.sought.len() >= SOUGHT_MAX && !self.release_oldest(host, mirror) {
            return;
        }
        self.sought.insert(neighbor, Instant::now());
        self.install(neighbor, host, mirror);
    }

    /// Has the kernel keep a neighbor. If it refuses, as it does while a link is down, it is asked again.
    fn install(&mut self, neighbor: Neighbor, host: &HostState, mirror: &KernelMirror) {
        if !self.is_listening {
            return;
        }
        let (interface, address) = neighbor;
        let Some(ifindex) = host.ifindex(interface) else {
            self.lost.insert(neighbor);
            return;
        };
        match mirror.install_managed_neighbor(ifindex, address) {
            Ok(management) => {
                self.is_kernel_able |= management == Management::Kernel;
                self.refused.remove(&neighbor);
            }
            Err(error) => {
                self.lost.insert(neighbor);
                if self.refused.insert(neighbor) {
                    warn!(%address, ifindex, %error, "the kernel does not resolve this neighbor");
                }
            }
        }
    }

    /// Makes room for another neighbor that a packet asks for, at the cost of the one that has not
    /// answered for the longest time: a scan of a connected prefix must not keep others from being
    /// found (RFC 6583 section 7.1). False if all have answered.
    fn release_oldest(&mut self, host: &HostState, mirror: &KernelMirror) -> bool {
        let silent = self.sought.iter().filter(|(neighbor, _)| !is_resolved(neighbor, host));
        let oldest = silent.min_by_key(|(_, since)| **since).map(|(neighbor, _)| *neighbor);
        if let Some(neighbor) = oldest {
            self.sought.remove(&neighbor);
            self.lost.remove(&neighbor);
            remove(neighbor, host, mirror);
        }
        oldest.is_some()
    }

    /// Releases neighbors that were sought and did not answer, so that they can be sought again, and finds
    /// those that the kernel no longer knows: it need not tell of an entry that came to nothing, nor does
    /// the mirror tell of one that came and went at once.
    pub(crate) fn tidy(&mut self, host: &HostState, mirror: &KernelMirror) {
        let unknown = |neighbor: &&Neighbor| !host.view().neighbors.contains_key(*neighbor);
        self.lost.extend(self.required.iter().filter(unknown));
        self.sought.retain(|neighbor, since| {
            let keep = is_resolved(neighbor, host) || since.elapsed() < FAILED_FOR;
            if !keep && !self.required.contains(neighbor) {
                remove(*neighbor, host, mirror);
            }
            keep
        });
    }

    /// Whether the kernel keeps this neighbor fresh for the router.
    pub(crate) fn contains(&self, neighbor: &Neighbor) -> bool {
        self.required.contains(neighbor) || self.sought.contains_key(neighbor)
    }
}

fn is_resolved(neighbor: &Neighbor, host: &HostState) -> bool {
    let known = host.view().neighbors.get(neighbor);
    known.is_some_and(|known| known.state == AdjacencyState::Resolved)
}

fn remove((interface, address): Neighbor, host: &HostState, mirror: &KernelMirror) {
    let Some(ifindex) = host.ifindex(interface) else { return };
    if let Err(error) = mirror.remove_managed_neighbor(ifindex, address) {
        warn!(%address, ifindex, %error, "the kernel does not let go of this neighbor");
    }
}
