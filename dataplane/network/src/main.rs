//! `simulate`: networks from seeds, for `cargo xtask simulate`.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use network::{Options, Report, simulate};
use sim::write_pcap;

/// Runs a network of routers in virtual time and checks what must hold. The same seed gives the same run.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask simulate")]
struct Arguments {
    /// The first seed; random without it.
    #[arg(long)]
    seed: Option<u64>,
    /// How many seeds, one after the other; ends at the first that fails.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Goes on with further seeds for so long instead.
    #[arg(long, conflicts_with = "seeds")]
    seconds: Option<u64>,
    /// Packets that are sent while things go wrong.
    #[arg(long, default_value_t = 1200)]
    packets: u32,
    /// Runs no plugin.
    #[arg(long)]
    no_plugin: bool,
    /// Prints every event.
    #[arg(long)]
    trace: bool,
    /// Writes a capture of every link to this folder.
    #[arg(long, value_name = "DIR")]
    pcap: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let first = arguments.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let started = Instant::now();
    let plugins = std::env::var_os("SLUICE_PLUGINS").map(PathBuf::from);
    let plugin = plugins.map(|folder| folder.join("filter.wasm"));
    let plugin = plugin.filter(|file| file.exists() && !arguments.no_plugin);
    if plugin.is_none() && !arguments.no_plugin {
        // What happens in a run depends on it.
        bail!("there is no filter.wasm in the folder of SLUICE_PLUGINS (cargo xtask plugins)");
    }
    for position in 0.. {
        let is_over = match arguments.seconds {
            Some(seconds) => started.elapsed() >= Duration::from_secs(seconds) && position > 0,
            None => position >= arguments.seeds,
        };
        if is_over {
            break;
        }
        let seed = first.wrapping_add(position);
        let options = Options {
            packets: arguments.packets,
            plugin: plugin.clone(),
            trace: arguments.trace,
            captures: arguments.pcap.is_some(),
            ..Options::new(seed)
        };
        let report = simulate(&options);
        write(&arguments, &report)?;
        print(seed, &report);
        if report.violation.is_some() {
            println!("reproduce it: {}", options.command());
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(arguments: &Arguments, report: &Report) -> Result<()> {
    for line in &report.trace {
        println!("{line}");
    }
    if let Some(folder) = &arguments.pcap {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("{}: cannot be created", folder.display()))?;
        for (segment, packets) in report.captures.iter().enumerate() {
            write_pcap(folder.join(format!("segment{segment}.pcap")), packets)?;
        }
    }
    Ok(())
}

fn print(seed: u64, report: &Report) {
    println!("seed {seed}: digest {:016x}", report.digest);
    for (what, count) in &report.counts {
        println!("  {count:>8} {what}");
    }
    if let Some(violation) = &report.violation {
        println!("FAILED at {violation}");
    }
}
