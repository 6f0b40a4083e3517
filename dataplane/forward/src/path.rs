//! [`Path`]: what the stages of a turn tell each other about one frame, beside its descriptor.

use frame::BATCH_MAX;
use tables::{AdjacencyId, PeerId};
use wire::InterfaceId;

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
    /// The router made this packet itself: it is not received, and its TTL is its own.
    pub originated: bool,
    /// The packet is at an owner on this machine.
    pub delivered: bool,
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
    /// To a neighbor that is known and not resolved yet.
    Await(AdjacencyId),
    /// To a neighbor on this link that nothing is known of yet.
    Seek(InterfaceId),
}

/// Notes on every frame of a batch, by position.
pub(crate) type Paths = Box<[Path; BATCH_MAX]>;
