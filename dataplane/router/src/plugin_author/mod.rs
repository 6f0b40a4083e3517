//! `sluice plugin new | build | test | bench`: what an author of plugins does before an operator loads one.
//!
//! ```text
//!  new    templates --> a project
//!  build  cargo or clang --> module --> the checks that loading makes
//!  test   frames (generated, or of a capture) --> descriptors --+--> native plugin (a runner made for it)
//!                                                               +--> module, engine of the router, twice
//!                                                  verdicts, edits and counters must be the same,
//!                                                  also with the packets spread over several workers
//!  bench  the same packets --> module, timed by batch
//! ```
//!
//! None of them needs a running router.

mod bench;
mod build;
mod cli;
mod compare;
mod new;
mod packets;
mod project;
mod runner;
mod spread;
mod test;
mod verdicts;

use std::process::ExitCode;

use anyhow::Result;

pub(crate) use cli::AuthorCommand;
pub(crate) use packets::generated_packets;

/// Runs one of them.
pub(crate) fn run(command: &AuthorCommand) -> Result<ExitCode> {
    match command {
        AuthorCommand::New(args) => new::run(args),
        AuthorCommand::Build(args) => build::run(args),
        AuthorCommand::Test(args) => test::run(args),
        AuthorCommand::Bench(args) => bench::run(args),
    }
}
