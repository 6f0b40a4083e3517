//! Forwarding tables and the immutable snapshot that workers read.
//!
//! ```text
//!  Publisher --publish--> Snapshot: Fib4, Fib6 -> groups -> adjacencies; SliceTable; peers; limits
//!                            |
//!  Reader (one per worker) --+-- refresh() once a turn
//! ```
//!
//! Invariants: a published snapshot never changes; a worker sees one in a turn, and frees none. Batch
//! look-ups on the packet path; single ones are for the control side.
#![deny(unsafe_code)]

mod adjacency;
mod encapsulation;
mod fib;
mod fib4;
mod fib6;
mod huge_memory;
mod own_addresses;
#[allow(unsafe_code)]
mod prefetch;
mod publish;
mod rank_tree;
mod slices;
mod snapshot;

pub use adjacency::{Adjacency, AdjacencyId, AdjacencyState, Neighbors, NextHopGroup};
pub use encapsulation::{Encapsulation, Gre, Sequence, TunnelKinds};
pub use fib::{FibError, RouteId};
pub use fib4::Fib4;
pub use fib6::Fib6;
pub use own_addresses::OwnAddresses;
pub use prefetch::prefetch;
pub use publish::{Publisher, Reader};
pub use slices::{
    EgressBlock, EgressId, LocalOwnerId, NodeId, Owner, ResolvedRange, SiteId, SliceHit, SliceId,
    SliceRange, SliceTable, SliceTableError,
};
pub use snapshot::{
    Delivery, FragmentLimits, HeaderRules, HoldLimits, IcmpLimits, Interface, Peer, PeerId, Role,
    Snapshot, SourceValidation,
};
