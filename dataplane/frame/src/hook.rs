//! [`Hook`]: where policy meets a batch.

use crate::{Batch, Nanos, Verdict};

/// The three points of a turn at which policy sees a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookPoint {
    /// After parse and decap, before any look-up.
    Ingress,
    /// After the look-up: the descriptor names slice and next hop.
    Forward,
    /// After the rewrite: the descriptor names the interface that the packet leaves by.
    Egress,
}

impl HookPoint {
    /// All points, in the order of a turn.
    pub const ALL: [Self; 3] = [Self::Ingress, Self::Forward, Self::Egress];

    /// Whether policy is asked here about a frame with this verdict. Before the rewrite it is asked
    /// about what is not decided; after it about what leaves by an interface.
    #[inline]
    #[must_use]
    pub const fn asks_about(self, verdict: Verdict) -> bool {
        match self {
            Self::Ingress | Self::Forward => verdict.is_open(),
            Self::Egress => matches!(verdict, Verdict::Transmit(_) | Verdict::Fragment(_)),
        }
    }
}

/// Policy, as a worker calls it. One value per worker: nothing in it is shared on the packet path.
pub trait Hook {
    /// Called once at the start of each turn, before any batch: the one place where a newly
    /// published generation may be taken over.
    fn begin_turn(&mut self, now: Nanos);

    /// Tells which configuration the tables of the next turns are of: a number that rises with each. What
    /// was published for a configuration is not taken over before its tables are.
    fn tables_are_of(&mut self, _configuration: u64) {}

    /// Whether anything is to be called at `point`. Asked once a batch.
    fn is_active(&self, point: HookPoint) -> bool;

    /// Judges the batch: reads `batch.descriptors` and sets `batch.verdicts` of those frames that
    /// [it is asked about](HookPoint::asks_about) to [`Verdict::Drop`] where it refuses them.
    fn run(&mut self, point: HookPoint, batch: &mut Batch, now: Nanos);

    /// Says whether somebody will ask for [`Self::blame`] from the next batch on.
    fn watch(&mut self, _on: bool) {}

    /// Which plugin dropped the frame at `position` of the batch that was judged last. Only while
    /// watched, and only of frames that were dropped for
    /// [`DropReason::Plugin`](crate::DropReason::Plugin) or
    /// [`DropReason::PluginDefault`](crate::DropReason::PluginDefault).
    fn blame(&self, _position: usize) -> Option<Blame> {
        None
    }
}

/// Which plugin dropped a frame, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Blame {
    /// The plugin's number, the same for all generations under its name.
    pub plugin: u32,
    /// The generation that judged the frame.
    pub generation: u64,
    /// Index of the plugin's own reason, or [`sluice_abi::REASON_DEFAULT`].
    pub reason: u32,
}

/// No policy at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHook;

impl Hook for NoHook {
    #[inline]
    fn begin_turn(&mut self, _: Nanos) {}

    #[inline]
    fn is_active(&self, _: HookPoint) -> bool {
        false
    }

    #[inline]
    fn run(&mut self, _: HookPoint, _: &mut Batch, _: Nanos) {}
}
