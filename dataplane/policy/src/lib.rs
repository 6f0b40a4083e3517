//! The WebAssembly policy host: plugins judge whole batches, and are swapped under load.
//!
//! ```text
//!  control thread                                   worker thread (one WorkerChain each)
//!  PluginHost                                        begin_turn: epoch changed? take the updates
//!    prepare: read, pin, manifest, imports,   ----->   run: copy descriptors in, call, read verdicts
//!             compile, instantiate, configure  updates
//!    publish / reload                          <-----  retired sets and trapped instances
//!    maintain: free, replace, log, disable     retired
//!  ticker thread: interrupts a call that outlasts its budget
//! ```
//!
//! Terms: a *plugin* is an entry of the configuration; a *generation* a loaded version of it; an
//! *instance* one worker's copy of a generation, with a memory of its own.
//!
//! Invariants: every byte that comes out of a guest is checked before use, and a guest that breaks
//! its word costs its packets its default verdict, a counter and its instance, nothing else. A batch
//! sees one generation of each plugin. On a worker's thread nothing is compiled, freed or logged, and
//! nothing waits. Only this crate names wasmtime.
//!
//! Deliberately absent: the component model (its calls cost 50 times as much), and memory that workers
//! share: what holds for the router is a meter, a quota or a table.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic
    )
)]

mod aside;
mod background;
mod candidate;
mod candidate_start;
mod chain;
mod compiled;
mod counters;
mod engine;
mod error;
mod flow_cache;
mod foreign_text;
mod generation;
mod histogram;
mod host;
mod imports;
mod inspection;
mod instance;
mod judgement;
mod last_good;
mod layout;
mod loading;
mod mailbox;
mod manifest;
mod mending;
mod meters;
mod module;
mod packet_text;
mod price;
mod private_dir;
mod publication;
mod quotas;
mod refusal;
mod registry;
mod rehearsal;
mod replay;
mod reporting;
mod rollback;
mod saved_batch;
mod spec;
mod status;
mod tables;
mod ticker;
mod trap_batch;
mod trial;
mod watch;

pub use aside::{AsidePlugins, AsideTraps, Asked, ListedPlugin};
pub use candidate::DifferenceKind;
pub use candidate_start::{CandidateStart, Start};
pub use chain::WorkerChain;
pub use compiled::CompiledStatus;
pub use error::{LayoutFault, PluginFault, PolicyError};
pub use host::{Checkpoint, PluginHost, PreparedSet, ReloadReport};
pub use imports::Names;
pub use inspection::{ModuleReport, inspect_module};
pub use layout::{LayoutNeeds, check_layout};
pub use meters::MeterStatus;
pub use packet_text::packet_text;
pub use price::{Price, PriceTraffic, TrafficNow, TrafficSource};
pub use quotas::QuotaStatus;
pub use refusal::RefusalStatus;
pub use rehearsal::{
    Examined, Rehearsal, RehearsalAnswer, RehearsalHost, RehearsalPacket, RehearsedHandOver,
};
pub use replay::{Replayed, TrappedCall, replay};
pub use saved_batch::{SavedBatch, SavedPacket};
pub use sluice_manifest::{
    Action, CounterDeclaration, CounterTable, DefaultVerdict, Granularity, Manifest, ManifestError,
    NamedCounter, OnTrap, PayloadStart, PayloadWindow, StateDeclaration,
};
pub use spec::{HostOptions, PluginConfig, PluginSpec};
pub use status::{GenerationStatus, PluginState, PluginStatus, WorkerStatus};
pub use tables::TableStatus;
pub use trial::{DifferenceSample, TrialStatus, TrialTrap};
