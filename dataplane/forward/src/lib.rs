//! One turn of a worker: parse, look up, rewrite, dispatch. No system calls, no clock but the
//! time stamp counter, no allocation, no lock.
//!
//! ```text
//!  receive -> parse -> [sources] -> decap -> [ingress] -> lookup -> [forward] -> rewrite -> [egress] -> dispatch
//! ```
//!
//! Each stage goes over the whole batch before the next begins, and leaves what it learnt in the
//! batch's descriptors (which plugins read) and paths (which they do not).
//!
//! Invariants: every received frame is counted once, under the interface that received it, as
//! forwarded, given to the kernel, consumed, held, or dropped for one reason; chunks are conserved
//! ([`Worker::frames_missing`]); a batch sees one snapshot and one generation of every plugin.
//!
//! Absent: address translation.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic
    )
)]

mod account;
mod address;
mod bucket;
mod counters;
mod decap;
mod describe;
mod detour;
mod edits;
mod encap;
mod filter;
mod fragments;
mod handoff;
mod hold;
mod icmp_errors;
mod io;
mod lookup;
mod ownership;
mod parse;
mod path;
mod pipeline;
mod punt;
mod record;
mod resolve;
mod rewrite;
mod sample;
mod sources;
mod split;
mod stages;
mod tap;
mod tunnel_errors;
mod turns;
mod witness;
mod worker;

pub use account::{ActionCounters, TagTraffic, Traffic};
pub use counters::{Counter, InterfaceCounters, WorkerCounters};
pub use describe::{describe, judge_destination};
pub use detour::{Detour, is_usable};
pub use filter::{FILTER_INSTRUCTIONS_MAX, Filter, FilterError, FilterInstruction};
pub use handoff::{Handoff, Wake, handoff_mesh};
pub use hold::Neighbor;
pub use path::{Next, Path};
pub use punt::{PuntReceiver, PuntSender, punt_channel};
pub use record::{ComplaintRecord, PacketRecord, SliceRecord, StageRecord};
pub use sample::{SAMPLE_HEAD_BYTES, SAMPLE_RECORDS, Sample, SampleRing, Sampler};
pub use stages::{Stage, StageCounters};
pub use tap::{
    Captured, SNAP_BYTES_MAX, TAPS_MAX, Tap, TapBoard, TapDirection, TapReader, TapScope,
};
pub use turns::{LONG_TURN_NS, LongTurns};
pub use worker::{Worker, WorkerParts};
