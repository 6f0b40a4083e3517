//! Forwarding tables and the immutable snapshot that workers read.
//!
//! ```text
//!  Publisher --publish--> Snapshot: Fib4, Fib6 -> groups -> adjacencies; SliceTable; peers; limits
//!                            |
//!  Reader (one per worker) --+-- refresh() once a turn
//! ```
//!
//! A snapshot never changes but for the tables in it that one writer changes in place while workers
//! read, [`Fib4`] and [`Groups`]: by single stores, so that each look-up sees the table before or after.
//!
//! Invariants: a worker sees one snapshot in a turn, and frees none; what a table in place names stays
//! until every worker has been between two turns ([`Publisher`]). Batch look-ups on the packet path;
//! single ones are for the control side.
#![deny(unsafe_code)]

// Tests inside and outside share what they need.
#[cfg(all(test, not(loom)))]
extern crate self as tables;

mod actions;
mod adjacency;
mod audit;
mod encapsulation;
mod exact_index;
mod fib;
mod fib4;
mod fib6;
mod grace;
mod groups;
#[allow(unsafe_code)]
mod hardware;
mod intervals;
#[cfg(all(test, loom))]
mod loom_tests;

mod outer;
mod own_addresses;
mod publish;
mod rank_tree;
#[cfg(all(test, not(loom)))]
mod shared_tests;
mod slices;
mod snapshot;
mod sync;

pub use actions::{Actions, CLASSES_MAX, Class, Detour, NUMBERS_MAX, Way};
pub use adjacency::{Adjacency, AdjacencyId, AdjacencyState, Neighbors, NextHopGroup};
pub use audit::{Audit, Difference};
pub use encapsulation::{Encapsulation, Gre, Sequence, TunnelKinds};
pub use fib::{FibError, RouteId};
pub use fib4::{Fib4, Fib4Writer};
pub use fib6::{Fib6, Fib6Change};
pub use grace::Grace;
pub use groups::{Group, Groups, GroupsError, GroupsWriter, Members};
pub use hardware::{Instructions, prefetch};
pub use intervals::Intervals;
pub use outer::{OUTER_TTL, OuterHeaders};
pub use own_addresses::OwnAddresses;
pub use publish::{Publisher, Reader};
pub use slices::{
    EgressBlock, EgressId, LocalOwnerId, NodeId, Owner, ResolvedRange, SiteId, SliceHit, SliceId,
    SliceKey, SliceRange, SliceTable, SliceTableError, SliceWriter,
};
pub use snapshot::{
    Delivery, FragmentLimits, HeaderRules, HoldLimits, IcmpLimits, Interface, Peer, PeerId, Role,
    Snapshot, SourceValidation,
};
