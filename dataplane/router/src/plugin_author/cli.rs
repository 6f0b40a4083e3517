//! What the authors' commands are told.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, value_parser};

/// The commands that need no router.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthorCommand {
    /// Make a project that builds, tests and loads as it stands
    New(NewArgs),
    /// Build a plugin, and check it as loading would
    Build(BuildArgs),
    /// Run a plugin natively and as a module on the same packets; any difference fails
    Test(TestArgs),
    /// Measure what a packet costs a plugin, at 64 packets a call
    Bench(BenchArgs),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    Rust,
    C,
}

#[derive(Debug, Args)]
pub(crate) struct NewArgs {
    /// The folder to make; its name becomes the plugin's
    pub(crate) path: PathBuf,
    #[arg(long, value_enum, default_value = "rust")]
    pub(crate) lang: Language,
    /// The SDK: the folder 'sdk' of a clone of Sluice. Found by itself inside of one
    #[arg(long, value_name = "DIR", conflicts_with = "sdk_git")]
    pub(crate) sdk: Option<PathBuf>,
    /// The SDK: a git repository of Sluice
    #[arg(long, value_name = "URL")]
    pub(crate) sdk_git: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct BuildArgs {
    /// The project's folder, or a module to check
    #[arg(default_value = ".", value_name = "DIR|MODULE")]
    pub(crate) path: PathBuf,
}

/// What an operator would give a plugin besides its configuration.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// A file for one of the tables that the plugin's manifest names
    #[arg(long, value_name = "NAME=FILE", value_parser = table)]
    pub(crate) table: Vec<(String, PathBuf)>,
    /// A next hop that the plugin may ask for; numbers go from 1 on
    #[arg(long, value_name = "NAME")]
    pub(crate) next_hop: Vec<String>,
    /// An egress tag, likewise
    #[arg(long, value_name = "NAME")]
    pub(crate) tag: Vec<String>,
    /// A class, likewise
    #[arg(long, value_name = "NAME")]
    pub(crate) class: Vec<String>,
    /// An interface, likewise; generated packets come in by all of them, captured ones by the first
    #[arg(long, value_name = "NAME")]
    pub(crate) interface: Vec<String>,
    /// What generated packets and the plugin's random numbers follow from
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
}

#[derive(Debug, Args)]
pub(crate) struct TestArgs {
    /// The project's folder, or a module
    #[arg(default_value = ".", value_name = "DIR|MODULE")]
    pub(crate) path: PathBuf,
    /// Take the packets of a capture (pcap or pcapng) instead of generated ones
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// The plugin's configuration in TOML; else the project's config.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Spread the packets over so many workers by their flows, each with an instance of its own, and say what
    /// one worker would have judged otherwise
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u8).range(1..=64))]
    pub(crate) workers: u8,
    /// Print what becomes of each packet, a line each
    #[arg(long)]
    pub(crate) verdicts: bool,
    /// Print those lines as JSON, and everything else to the standard error
    #[arg(long, requires = "verdicts")]
    pub(crate) json: bool,
    /// Leave out the run in which a new instance takes over in the middle
    #[arg(long)]
    pub(crate) no_hand_over: bool,
    /// Leave out the project's own tests (cargo test)
    #[arg(long)]
    pub(crate) no_unit_tests: bool,
}

#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// The project's folder, or a module
    #[arg(default_value = ".", value_name = "DIR|MODULE")]
    pub(crate) path: PathBuf,
    /// Take the packets of a capture (pcap or pcapng) instead of generated ones
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// The plugin's configuration in TOML; else the project's config.toml
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) host: HostArgs,
    /// Fail if half of the calls cost more than this many nanoseconds a packet
    #[arg(long, value_name = "NS")]
    pub(crate) budget_ns: Option<f64>,
}

fn table(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("it has the form NAME=FILE")?;
    Ok((name.to_owned(), PathBuf::from(file)))
}
