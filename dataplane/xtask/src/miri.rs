//! `miri`: runs the tests of what threads share without locks under miri, which finds data races, and reads of
//! what is no longer there, in the runs that it makes up.
//!
//! ```text
//!  forward  the ring of samples: a writer and a reader under a sequence lock
//!  tables   routes, groups and owners that change beside readers, grace periods, publication
//! ```
//!
//! Under miri the tables are small, and their look-ups the portable ones: it runs no assembly.
//!
//! Deliberately absent: all other tests, which would take hours; and loom, which tries every order of steps
//! (`dataplane/tables/Cargo.toml` has its command).

use anyhow::Result;

use crate::build::Workspace;
use crate::{command, fuzz, setup};

/// Packages, with the arguments of their tests.
const TESTS: [(&str, &[&str]); 2] = [
    ("forward", &["--lib", "sample::tests::"]),
    ("tables", &["--lib", "--", "shared_tests::", "grace::tests::", "hardware::memory::"]),
];

/// Tests read files and clocks. Chunks of packets are leaked on purpose: a UMEM is never unmapped.
const FLAGS: &str = "-Zmiri-disable-isolation -Zmiri-ignore-leaks";

/// Runs them. Returns whether all passed.
///
/// # Errors
/// When miri cannot be installed here.
pub fn run(workspace: &Workspace) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    let root = workspace.root();
    fuzz::require_nightly(root)?;
    if !fuzz::answers(fuzz::nightly(root).args(["miri", "--version"])) {
        eprintln!("missing Rust component miri");
        let component = ["component", "add", "--toolchain", "nightly", "miri", "rust-src"];
        setup::rustup(&component)?;
    }
    let mut has_passed = true;
    for (package, arguments) in TESTS {
        let mut cargo = fuzz::nightly(root);
        cargo.env("MIRIFLAGS", FLAGS).args(["miri", "test", "-p", package]);
        // A build of its own: what it makes is of no use to anything else.
        cargo.arg("--target-dir").arg(workspace.target().join("miri")).args(arguments);
        has_passed &= command::status(&mut cargo)?;
    }
    Ok(has_passed)
}
