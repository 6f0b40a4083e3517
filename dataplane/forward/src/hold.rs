//! Frames that wait for their next hop: bounded in number, in all and for each next hop, and in time.

use core::net::IpAddr;

use frame::{Descriptor, DropReason, Frame, Nanos, PacketEdit};
use tables::{AdjacencyState, HoldLimits, Snapshot};
use wire::InterfaceId;

use crate::path::{Next, Path};
use crate::resolve::{destination, is_up};

/// A neighbor that is to be resolved: its address on the link of an interface.
pub type Neighbor = (InterfaceId, IpAddr);

/// A frame that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) frame: Frame,
    pub(crate) descriptor: Descriptor,
    pub(crate) path: Path,
    /// What plugins set on it.
    pub(crate) edit: PacketEdit,
    /// The far end of the tunnel that it came out of, by its address: a snapshot to come may count far
    /// ends otherwise.
    pub(crate) came_from: Option<IpAddr>,
    neighbor: Neighbor,
    deadline: Nanos,
    /// The neighbor was asked for when this frame came.
    has_asked: bool,
}

/// The frames of one worker that wait.
#[derive(Debug)]
pub(crate) struct Hold {
    waiting: Vec<Held>,
    next_deadline: Nanos,
}

impl Hold {
    /// At most `frames_max` frames are ever held, whatever a snapshot allows.
    pub(crate) fn new(frames_max: usize) -> Self {
        Self { waiting: Vec::with_capacity(frames_max), next_deadline: Nanos(u64::MAX) }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Makes a frame wait. Says which neighbor is to be resolved, unless a frame waits already for
    /// which that was said: should the request have been lost, it is made again when that frame's time
    /// is up, however steadily others follow.
    ///
    /// # Errors
    /// Gives the frame back, with the reason, when its bound is reached.
    pub(crate) fn push(
        &mut self,
        frame: Frame,
        (descriptor, path, edit): (&Descriptor, Path, PacketEdit),
        snapshot: &Snapshot,
        now: Nanos,
    ) -> Result<Option<Neighbor>, (Frame, DropReason)> {
        let HoldLimits { frames_max_per_neighbor, frames_max, timeout_ms } = snapshot.hold;
        let Some(neighbor) = sought(descriptor, &path, snapshot) else {
            return Err((frame, DropReason::NoRoute));
        };
        let bound = usize::from(frames_max).min(self.waiting.capacity());
        let (mut ahead, mut asked) = (0, false);
        for held in self.waiting.iter().filter(|held| held.neighbor == neighbor) {
            ahead += 1;
            asked |= held.has_asked;
        }
        if self.waiting.len() >= bound || ahead >= usize::from(frames_max_per_neighbor) {
            return Err((frame, DropReason::HoldFull));
        }
        let deadline = now.plus(u64::from(timeout_ms) * 1_000_000);
        self.next_deadline = self.next_deadline.min(deadline);
        let descriptor = *descriptor;
        let has_asked = !asked;
        let came_from =
            path.decapsulated.and_then(|peer| snapshot.peer(peer)).map(|peer| peer.remote);
        let held = Held { frame, descriptor, path, edit, came_from, neighbor, deadline, has_asked };
        self.waiting.push(held);
        Ok(has_asked.then_some(neighbor))
    }

    /// Whether a frame's time is up.
    #[inline]
    pub(crate) fn is_due(&self, now: Nanos) -> bool {
        now >= self.next_deadline
    }

    /// Takes out one frame whose neighbor is no longer being resolved, or whose time is up, of those
    /// that the router made itself or of those that it received.
    pub(crate) fn pop_settled(
        &mut self,
        is_originated: bool,
        snapshot: &Snapshot,
        now: Nanos,
    ) -> Option<(Held, bool)> {
        let settled = self.waiting.iter().position(|held| {
            held.path.originated == is_originated
                && (now >= held.deadline
                    || state(held.neighbor, snapshot) != AdjacencyState::Unresolved)
        });
        let Some(position) = settled else {
            self.next_deadline =
                self.waiting.iter().map(|held| held.deadline).min().unwrap_or(Nanos(u64::MAX));
            return None;
        };
        // In order of arrival, so that a flow's packets leave as they came.
        let held = self.waiting.remove(position);
        let timed_out = state(held.neighbor, snapshot) == AdjacencyState::Unresolved;
        Some((held, timed_out))
    }

    /// Takes out any frame: for the end of a worker.
    pub(crate) fn pop(&mut self) -> Option<Held> {
        self.waiting.pop()
    }
}

/// The neighbor that a frame would wait for.
fn sought(descriptor: &Descriptor, path: &Path, snapshot: &Snapshot) -> Option<Neighbor> {
    match path.next {
        Next::Await(id) | Next::Send(id) => {
            let adjacency = snapshot.adjacency(id)?;
            Some((adjacency.interface, adjacency.address))
        }
        Next::Seek(interface) => Some((interface, destination(descriptor, path, snapshot))),
        Next::Punt => None,
    }
}

fn state((interface, address): Neighbor, snapshot: &Snapshot) -> AdjacencyState {
    if !is_up(interface, snapshot) {
        return AdjacencyState::LinkDown;
    }
    snapshot
        .neighbors
        .get(interface, address)
        .and_then(|id| snapshot.adjacency(id))
        .map_or(AdjacencyState::Unresolved, |adjacency| adjacency.state)
}
