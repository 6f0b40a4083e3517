//! Set-up, lab, tests and CI, one command each.
//!
//! ```text
//!  setup          packages, the wasm target, bpffs: whatever this machine lacks
//!  plugins        plugins/* -> target/plugins/NAME.wasm
//!  test           setup, plugins, every test of the workspace, then the lab
//!  ci             formatting, lints, then test
//!  bless          setup, plugins, then rewrites what the scenarios expect
//!  bench          setup, then Sluice beside Linux; with --criterion the benches of the code
//!  bench-changes  setup, plugins, then what changes of the running router cost
//!  bench-peers    setup, then Sluice beside other routers, each in the same place
//!  fuzz           setup, then libFuzzer over the targets of dataplane/fuzz
//!  miri           setup, then the tests of what threads share without locks
//!  lab            a small Internet on this machine, with real traffic through real routers
//! ```
//!
//! It builds before anything is set up, so it depends on no crate that needs a system package and on
//! no other crate of this workspace. Every command says what it runs before it runs it.
#![forbid(unsafe_code)]

pub mod build;
pub mod changes;
pub mod checks;
pub mod command;
pub mod fuzz;
pub mod lab;
pub mod miri;
pub mod peers;
pub mod setup;
pub mod soak;
pub mod test_output;
