//! [`Path`]: what the stages of a turn tell each other about one frame, beside its descriptor.

use frame::BATCH_MAX;
use tables::{AdjacencyId, Interface, PeerId, Snapshot};
use wire::InterfaceId;

/// The router's own notes on one frame. Plugins do not see them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Path {
    /// Where the look-up sends it.
    pub(crate) next: Next,
    /// The owner tunnel that the packet goes into.
    pub(crate) encapsulate: Option<PeerId>,
    /// The owner tunnel that the packet came out of.
    pub(crate) decapsulated: Option<PeerId>,
    /// The MTU to report, where the packet was too big.
    pub(crate) mtu: u16,
    /// The router made this packet itself: it is not received, and its TTL is its own.
    pub(crate) originated: bool,
    /// The packet is at an owner on this machine.
    pub(crate) delivered: bool,
    /// A later fragment whose first one is known: the descriptor says what that one said.
    pub(crate) follows_first: bool,
    /// The worker that the frame is handed to.
    pub(crate) worker: u16,
}

impl Path {
    /// The interface that the frame leaves by, where the look-up has found one.
    pub(crate) fn egress<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Interface> {
        let Next::Send(id) = self.next else { return None };
        snapshot.interface(snapshot.adjacency(id)?.interface)
    }
}

/// Where the look-up sends a frame that it did not drop. The rewrite makes this the verdict, after
/// plugins at the `forward` hook have seen it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Next {
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
