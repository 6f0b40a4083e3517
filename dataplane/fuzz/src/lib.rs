//! What any bytes may be done to: one module a target, each with the properties that must hold.
//!
//! ```text
//!  fuzz_targets/NAME.rs   libFuzzer's program around a target      cargo xtask fuzz [NAME]
//!  src/NAME.rs            the target: any bytes in, or a panic     tests/corpus.rs
//!  src/planted.rs         defects that targets have to find        tests/planted.rs
//!  corpus/NAME/           inputs that reach different code, by their hash
//!  crashes/NAME/          inputs that once broke something, each named after what it broke
//!  dictionaries/NAME.dict words that random changes would take long to find
//! ```
//!
//! A target is an ordinary function, so that the test run on a stable compiler runs every input of
//! `corpus` and `crashes` through it; only finding new ones takes libFuzzer. `examples/seeds.rs` makes
//! the first inputs from the scenarios and the configurations.
//!
//! Invariants: a target is deterministic, keeps nothing from one input to the next but what is immutable
//! or what it checks against itself, opens no file that its input names, and ends.
//!
//! Deliberately absent: the kernel's side (classifier, AF_XDP), which has tests in namespaces.
#![forbid(unsafe_code)]

#[path = "../../forward/tests/common/mod.rs"]
mod common;

pub mod configuration;
pub mod control_socket;
mod cursor;
pub mod edits;
pub mod embedding;
pub mod filter;
pub mod fragments;
mod guest;
pub mod pcap;
pub mod planted;
pub mod plugin;
pub mod seeds;
pub mod tunnels;
pub mod turn;
pub mod verdicts;
pub mod views;

/// A target: a property of any bytes, which panics where it does not hold.
pub type Target = fn(&[u8]);

/// All targets by their names.
pub const TARGETS: &[(&str, Target)] = &[
    ("configuration", configuration::run),
    ("control_socket", control_socket::run),
    ("edits", edits::run),
    ("embedding", embedding::run),
    ("filter", filter::run),
    ("fragments", fragments::run),
    ("pcap", pcap::run),
    ("plugin", plugin::run),
    ("tunnels", tunnels::run),
    ("turn", turn::run),
    ("verdicts", verdicts::run),
    ("views", views::run),
];
