//! `soak`: the test of ten plugins to which everything is done at random, for as long as it is asked to.
//!
//! The ordinary tests run it for some seconds (`dataplane/policy/tests/soak.rs`).

use std::process::Command;

use anyhow::Result;

use crate::build::Workspace;
use crate::{command, setup};

/// How long, and with which random numbers.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// How long, in minutes.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub minutes: u64,
    /// Where the random numbers begin; a test prints its own.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Runs it. Returns whether it passed.
///
/// # Errors
/// When cargo cannot be started.
pub fn run(workspace: &Workspace, options: Options) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--release", "--workspace", "--test", "soak", "--", "--nocapture"]);
    cargo.current_dir(workspace.root()).env("SLUICE_SOAK_S", (options.minutes * 60).to_string());
    if let Some(seed) = options.seed {
        cargo.env("SLUICE_SOAK_SEED", seed.to_string());
    }
    command::status(&mut cargo)
}
