//! [`Verdict`]: what becomes of a frame.

use wire::InterfaceId;

use crate::DropReason;

/// What becomes of a frame. Every frame of a batch has exactly one when the batch is dispatched, and
/// [`Verdict::Continue`] is none of the final ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Not decided yet.
    #[default]
    Continue,
    /// Leaves by this interface.
    Transmit(InterfaceId),
    /// Leaves by this interface in fragments.
    Fragment(InterfaceId),
    /// Goes on with the worker that sees all fragments of its packet.
    Handoff,
    /// Goes to the kernel of this machine.
    Punt,
    /// Waits for its next hop to be resolved.
    Hold,
    /// Waits for the first fragment of its packet.
    Wait,
    /// Was used up by the router itself.
    Consumed,
    /// Is dropped, for one reason.
    Drop(DropReason),
}

impl Verdict {
    /// Whether the frame still wants a decision.
    #[inline]
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Continue)
    }
}
