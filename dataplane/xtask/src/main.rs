//! `cargo xtask`: set-up, lab, tests and CI, one command each.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::build::Workspace;
use xtask::{changes, checks, fuzz, lab, miri, peers, setup, soak};

/// Set-up, lab, tests and CI of Sluice, one command each.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs what this machine lacks to build and to test; the other commands do so too.
    Setup,
    /// Builds the plugins as target/plugins/NAME.wasm.
    Plugins,
    /// Runs every test of the workspace, then the lab.
    Test {
        /// Runs only the tests whose name contains this.
        #[arg(long)]
        filter: Option<String>,
    },
    /// Checks formatting and lints, then runs every test: what CI does.
    Ci,
    /// Rewrites what the scenarios expect by what they give now; review the difference.
    Bless,
    /// Measures Sluice beside Linux's own forwarding, in a minute or two.
    Bench {
        /// Runs the benches of the code instead: whole turns and parts of them, on memory.
        #[arg(long)]
        criterion: bool,
        /// Passed on to the benches.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, requires = "criterion")]
        arguments: Vec<String>,
    },
    /// Measures Sluice beside other routers, each in the same place.
    BenchPeers(peers::Options),
    /// Measures how many packets a second a plugin drops, beside nftables.
    BenchDrops(peers::drops::Options),
    /// Measures what changes of the running router cost: packets lost over the offered rate.
    BenchChanges(changes::Options),
    /// Does everything at random to ten plugins under packets, good and hostile modules alike: to the policy host
    /// alone, and to a running router.
    Soak(soak::Options),
    /// Runs networks of routers in virtual time, each from its seed, and checks what must hold.
    Simulate {
        /// `--seed N`, `--seeds N`, `--seconds N`, `--packets N`, `--trace`, `--pcap DIR`; see `--help`
        /// behind `--`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Looks for inputs that break something, with libFuzzer.
    Fuzz(fuzz::Options),
    /// Runs the tests of what threads share without locks under miri.
    Miri,
    /// Runs a small Internet on this machine, with real traffic through real routers.
    Lab(lab::Options),
    /// Serves in a namespace of the lab.
    #[command(hide = true)]
    LabServe(lab::serve::Arguments),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a command. Returns whether all that it checks is right.
fn run(command: Command) -> Result<bool> {
    if let Command::LabServe(arguments) = &command {
        return lab::serve::run(arguments).map(|()| true);
    }
    let workspace = Workspace::find()?;
    match command {
        Command::Setup => setup::run(setup::Need::Everything),
        Command::Plugins => {
            setup::require(setup::Need::Build)?;
            workspace.build_plugins()?;
            Ok(true)
        }
        Command::Test { filter } => checks::test(&workspace, filter.as_deref()),
        Command::Ci => checks::ci(&workspace),
        Command::Bless => checks::bless(&workspace),
        Command::Simulate { arguments } => checks::simulate(&workspace, &arguments),
        Command::Bench { criterion: true, arguments } => checks::bench(&workspace, &arguments),
        Command::Bench { .. } => bench_peers(&workspace, &peers::Options::newcomer()),
        Command::Fuzz(options) => fuzz::run(&workspace, &options),
        Command::Miri => miri::run(&workspace),
        Command::BenchPeers(options) => bench_peers(&workspace, &options),
        Command::BenchDrops(options) => {
            setup::require(setup::Need::Build)?;
            setup::require(setup::Need::Peers)?;
            let lab::Binaries { sluice, filter } = lab::Binaries::find(&workspace)?;
            peers::drops::run(&options, &sluice, &filter)
        }
        Command::BenchChanges(options) => {
            setup::require(setup::Need::Build)?;
            setup::require(setup::Need::Lab)?;
            changes::run(&options, &lab::Binaries::find(&workspace)?)
        }
        Command::Soak(options) => soak::run(&workspace, options),
        Command::Lab(options) if options.clean => lab::clean().map(|()| true),
        Command::Lab(options) => {
            setup::require(setup::Need::Build)?;
            setup::require(setup::Need::Lab)?;
            lab::run(&options, &lab::Binaries::find(&workspace)?)
        }
        Command::LabServe(_) => Ok(true),
    }
}

/// Measures routers side by side, with whatever they need here.
fn bench_peers(workspace: &Workspace, options: &peers::Options) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    setup::require(setup::Need::Peers)?;
    if options.wants_dpdk() {
        setup::offer(setup::Need::Dpdk);
    }
    peers::run(options, &workspace.find_router()?)
}
