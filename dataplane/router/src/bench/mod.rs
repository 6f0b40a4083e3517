//! `sluice bench`: measurements, each of which leaves a document that a report is made from.

mod document;
mod generate;
mod profile;
mod report;
mod search;
mod traffic;

use anyhow::Result;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Send traffic, count what comes back, and time it: one run at one rate
    #[command(after_help = EXAMPLES)]
    Generate(generate::GenerateArgs),
    /// Find the highest rates without loss and with half a percent of it (MLRsearch)
    Search(search::SearchArgs),
    /// Show where the time of a running router's workers goes
    Profile(profile::ProfileArgs),
    /// Make a page and a Markdown file from the documents of a folder
    Report(report::ReportArgs),
}

const EXAMPLES: &str = "\
Both interfaces are in the network namespace that the command runs in, like the two ports of a \
hardware tester.
Examples:
  sluice bench generate --tx tx0 --rx rx0 --dst-mac 02:00:00:00:00:01 --rate 100k --duration 5s
  sluice bench generate --tx ens6 --rx ens7 --gateway 10.1.0.1 --src 10.1.0.0/24 --dst 10.2.0.0/16 \
--flows 10k --size imix --rate 2Gbit
  sluice bench generate --tx ens7 --rx ens6 --gateway 10.2.0.1 --slices @slices.txt --rate max";

pub(crate) fn run(command: &BenchCommand) -> Result<()> {
    match command {
        BenchCommand::Generate(args) => generate::run(args),
        BenchCommand::Search(args) => search::run(args),
        BenchCommand::Profile(args) => profile::run(args),
        BenchCommand::Report(args) => report::run(args),
    }
}
