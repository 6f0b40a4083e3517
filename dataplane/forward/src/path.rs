//! [`Path`]: what the stages of a turn tell each other about one frame, beside its descriptor.

use frame::{BATCH_MAX, DropReason};
use tables::{AdjacencyId, Interface, PeerId, Snapshot};
use wire::InterfaceId;

use crate::detour::Detour;

/// The router's own notes on one frame. Plugins do not see them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path {
    /// Where the look-up sends it.
    pub next: Next,
    /// The owner tunnel that the packet goes into.
    pub encapsulate: Option<PeerId>,
    /// The owner tunnel that the packet came out of.
    pub decapsulated: Option<PeerId>,
    /// The MTU to report, where the packet was too big.
    pub mtu: u16,
    /// What the route to a connected prefix allows, in bytes; 0: as much as the link. Other routes have an
    /// adjacency that says it.
    pub route_mtu: u16,
    /// Why a router in the tunnel dropped a packet from here, told by the ICMP error that this frame is.
    pub told: Option<DropReason>,
    /// The router made this packet itself: it is not received, and its TTL is its own.
    pub originated: bool,
    /// The packet is at an owner on this machine.
    pub delivered: bool,
    /// A later fragment whose first one is known: the descriptor says what that one said.
    pub follows_first: bool,
    /// Where a plugin sends the packet.
    pub detour: Detour,
    /// The worker that the frame is handed to.
    pub worker: u16,
}

impl Path {
    /// What of `mtu`, which is that of the next hop, the route leaves.
    #[inline]
    pub(crate) fn limited(&self, mtu: u16) -> u16 {
        if self.route_mtu == 0 { mtu } else { mtu.min(self.route_mtu) }
    }

    /// The interface that the frame leaves by, where the look-up has found one.
    pub(crate) fn egress<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Interface> {
        let Next::Send(id) = self.next else { return None };
        snapshot.interface(snapshot.adjacency(id)?.interface)
    }
}

/// Where the look-up sends a frame that it did not drop. The rewrite makes this the verdict, after
/// plugins at the `forward` hook have seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// To the kernel of this machine.
    #[default]
    Punt,
    /// To a neighbor that is resolved.
    Send(AdjacencyId),
    /// To a neighbor that is known and not resolved yet, or does not answer.
    Await(AdjacencyId),
    /// To a neighbor on this link that nothing is known of yet.
    Seek(InterfaceId),
}

/// Notes on every frame of a batch, by position.
pub(crate) type Paths = Box<[Path; BATCH_MAX]>;
