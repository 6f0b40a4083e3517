//! The neighbors that the kernel keeps fresh for the router: those that routes, owners and tunnels
//! lead to as long as they do, and those that packets ask for as long as they answer.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use control::kernel::{KernelMirror, NeighborChange, NeighborState};
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

/// What the kernel was asked to keep.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    required: HashSet<Neighbor>,
    sought: HashMap<Neighbor, Instant>,
}

impl Kept {
    /// Asks the kernel for every neighbor that something leads to now, and releases the others.
    pub(crate) fn follow(
        &mut self,
        publication: &Publication,
        host: &HostState,
        mirror: &KernelMirror,
    ) {
        let wanted: HashSet<Neighbor> = publication.required_neighbors().collect();
        for neighbor in wanted.difference(&self.required) {
            install(*neighbor, host, mirror);
        }
        for neighbor in self.required.difference(&wanted) {
            remove(*neighbor, host, mirror);
        }
        self.required = wanted;
    }

    /// Asks the kernel again for everything that it was asked for: after a link came back.
    pub(crate) fn renew(&mut self) {
        self.required.clear();
    }

    /// Has the kernel keep a neighbor fresh that it learnt by itself. It sees none of the packets
    /// that workers send there, and would let its address grow stale.
    pub(crate) fn adopt(
        &mut self,
        change: &NeighborChange,
        host: &HostState,
        mirror: &KernelMirror,
    ) {
        let learnt = change.neighbor.is_some_and(|known| {
            !known.managed && matches!(known.state, NeighborState::Stale | NeighborState::Reachable)
        });
        if let (true, Some(interface)) = (learnt, host.interface(change.ifindex)) {
            self.seek((interface, change.address), host, mirror);
        }
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
        install(neighbor, host, mirror);
    }

    /// Makes room for another neighbor that a packet asks for, at the cost of the one that has not
    /// answered for the longest time: a scan of a connected prefix must not keep others from being
    /// found (RFC 6583 section 7.1). False if all have answered.
    fn release_oldest(&mut self, host: &HostState, mirror: &KernelMirror) -> bool {
        let silent = self.sought.iter().filter(|(neighbor, _)| !is_resolved(neighbor, host));
        let oldest = silent.min_by_key(|(_, since)| **since).map(|(neighbor, _)| *neighbor);
        if let Some(neighbor) = oldest {
            self.sought.remove(&neighbor);
            remove(neighbor, host, mirror);
        }
        oldest.is_some()
    }

    /// Releases neighbors that were sought and did not answer, so that they can be sought again.
    pub(crate) fn tidy(&mut self, host: &HostState, mirror: &KernelMirror) {
        self.sought.retain(|neighbor, since| {
            let keep = is_resolved(neighbor, host) || since.elapsed() < FAILED_FOR;
            if !keep {
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

fn install((interface, address): Neighbor, host: &HostState, mirror: &KernelMirror) {
    let Some(ifindex) = host.ifindex(interface) else { return };
    if let Err(error) = mirror.install_managed_neighbor(ifindex, address) {
        warn!(%address, ifindex, %error, "the kernel does not resolve this neighbor");
    }
}

fn remove((interface, address): Neighbor, host: &HostState, mirror: &KernelMirror) {
    let Some(ifindex) = host.ifindex(interface) else { return };
    if let Err(error) = mirror.remove_managed_neighbor(ifindex, address) {
        warn!(%address, ifindex, %error, "the kernel does not let go of this neighbor");
    }
}
