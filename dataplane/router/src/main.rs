//! The `sluice` binary: what an operator runs.
#![forbid(unsafe_code)]

mod action_totals;
mod ask;
mod bench;
mod capture;
mod check;
mod cli;
mod client;
mod explain;
mod filter;
mod init;
mod lookups;
mod plan;
mod plugin_author;
mod plugin_manager;
mod plugins;
mod preflight;
mod replay;
mod run;
mod show;
mod tap;
mod verify;
mod workload;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use config::Checked;
use control::socket::Request;
use frame::DropReason;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, PluginCommand, WorkloadCommand};
use plugin_author::AuthorCommand;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // A command that only tells ends when its reader has gone (`| head`). Others must not.
    if matches!(
        cli.command,
        Command::Status { .. }
            | Command::Plugin(PluginCommand::List { .. } | PluginCommand::Manage(_))
            | Command::Plugin(PluginCommand::Author(
                AuthorCommand::New(_) | AuthorCommand::Build(_) | AuthorCommand::Bench(_)
            ))
            | Command::Check { .. }
            | Command::Preflight(_)
            | Command::Init { .. }
            | Command::Plan(_)
            | Command::Route(_)
            | Command::Slice(_)
            | Command::Explain(_)
            | Command::Trace(_)
            | Command::Drops
    ) {
        sigpipe::reset();
    }
    // A check says itself what there is to say.
    let level = if matches!(cli.command, Command::Check { .. }) { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    match execute(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sluice: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args.config)?,
        Command::Check { file, no_plugins } => check::run(&file, !no_plugins)?,
        Command::Preflight(args) => preflight::run(&Checked::load(&args.config)?)?,
        Command::Init { reference } => init::run(reference)?,
        Command::Status { socket, json } => client::status(&socket.socket, json)?,
        Command::Reload(args) => client::reload(&args)?,
        Command::Confirm { cancel, socket } => client::confirm(&socket.socket, cancel)?,
        Command::Plan(args) => return client::plan(&args),
        Command::Plugin(PluginCommand::Author(command)) => return plugin_author::run(&command),
        Command::Plugin(PluginCommand::List { json, socket }) => {
            plugin_manager::list(&socket.socket, json)?;
        }
        Command::Plugin(PluginCommand::Reload { name, allow_traps, json, socket }) => {
            let request = Request::PluginReload { name, allow_traps };
            plugin_manager::loaded(&socket.socket, &request, json)?;
        }
        Command::Plugin(PluginCommand::Manage(command)) => return plugin_manager::run(command),
        Command::Detach(args) => {
            let config = Checked::load(&args.config)?;
            let removed = xdp::detach(&config.router.name, &config.router.bpffs)?;
            if removed.is_empty() {
                println!("nothing was attached");
            }
            for what in removed {
                println!("removed {what}");
            }
        }
        Command::Route(command) => show::route(&command)?,
        Command::Slice(command) => show::slice(&command)?,
        Command::Replay(args) => replay::run(&args)?,
        Command::Explain(args) => ask::explain(&args)?,
        Command::Trace(args) => ask::trace(&args)?,
        Command::Capture(args) => capture::run(&args)?,
        Command::Bench(command) => bench::run(&command)?,
        Command::Workload(WorkloadCommand::Run(args)) => return workload::run(&args),
        Command::Drops => {
            for reason in DropReason::ALL {
                println!("{:<28} {}", reason.label(), reason.help());
            }
            println!(
                "\nWhy is a packet dropped?  sluice explain --in IFACE 'udp 192.0.2.1:5000 > \
                 198.51.100.7:53'\nWhich packets are?        sluice capture -i drops -w FILE.pcapng"
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
