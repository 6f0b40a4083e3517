//! Whole routers on memory: [`Machine`] is one, as a replay needs it, and [`simulate`] is a network of
//! several in virtual time, from one seed.
//!
//! ```text
//!   machine      one router: configuration, publication, plugins, workers, on memory rings
//!   simulation   several of them, links with faults, hosts; what must hold of it all
//!   model        who owns what in a simulation, and the configurations that say so
//!   frames       packets as hosts make them and as a bystander reads them
//! ```
//!
//! Deliberately absent: threads, real time and the kernel. Nothing here runs in a router that carries
//! traffic.
#![forbid(unsafe_code)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    reason = "numbers of a simulation are small; the router's own crates deny this"
)]

mod frames;
mod machine;
mod model;
mod simulation;

pub use machine::{Machine, MachineError, MachineOptions, MemoryWorker, host_view};
pub use simulation::{Options, Property, Report, Sabotage, Violation, simulate};
