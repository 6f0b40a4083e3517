//! `soak`: the tests of ten plugins to which everything is done at random, for as long as they are asked to.
//!
//! One drives the policy host alone, with modules made for it (`dataplane/policy/tests/soak.rs`), the other a
//! running router with the shipped plugins, under packets (`dataplane/router/tests/ten_plugins.rs`). The ordinary
//! tests run both for some seconds.

use std::process::Command;

use anyhow::Result;

use crate::build::Workspace;
use crate::{command, setup};

/// How long, and with which random numbers.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// How long each of the two parts takes, in minutes.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub minutes: u64,
    /// Where the random numbers begin; a test prints its own.
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

/// Runs both, one after the other. Returns whether they passed.
///
/// # Errors
/// When cargo cannot be started.
pub fn run(workspace: &Workspace, options: Options) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    workspace.build_plugins()?;
    let mut cargo = Command::new("cargo");
    cargo.args(["test", "--release", "--workspace", "--test", "soak"]);
    cargo.args(["--test", "ten_plugins", "--", "--nocapture"]);
    cargo.current_dir(workspace.root()).env("SLUICE_SOAK_S", (options.minutes * 60).to_string());
    cargo.env("SLUICE_PLUGINS", workspace.plugins());
    if let Some(seed) = options.seed {
        cargo.env("SLUICE_SOAK_SEED", seed.to_string());
    }
    command::status(&mut cargo)
}
