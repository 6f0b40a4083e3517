//! `sluice plugin test`: the plugin natively and as a module, on the same packets, to the same verdicts.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use policy::Rehearsal;
use sluice_sdk::testing::{Host, trial::Script};

use super::cli::TestArgs;
use super::compare::{self, Difference};
use super::packets::Packets;
use super::project::{Project, cargo, run as run_command};
use super::runner;

pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let project = Project::find(&args.path)?;
    if let Project::Rust(project) = &project
        && !args.no_unit_tests
    {
        run_command(cargo(&project.folder).args(["test", "--quiet"]))
            .context("the plugin's own tests")?;
    }
    let module = project.build()?;
    let config = config_of(&args.path, args.config.as_deref());
    let tables: BTreeMap<_, _> = args.table.iter().cloned().collect();
    let mut rehearsal = Rehearsal::new(&module, config.as_deref(), &tables)?;
    let examined = rehearsal.examined().clone();
    let json = rehearsal.config().to_vec();
    let packets = match &args.pcap {
        Some(pcap) => Packets::of_capture(pcap, &examined.manifest)?,
        None => Packets::generate(args.seed, &json, &examined.manifest),
    };
    let whence = match &args.pcap {
        Some(pcap) => pcap.display().to_string(),
        None => format!("generated, --seed {}", args.seed),
    };
    println!(
        "packets  {} in {} calls ({whence}); {} more would not reach a plugin",
        packets.len(),
        packets.batches.len(),
        packets.skipped
    );
    let differs = |difference: Difference| -> Result<ExitCode> { bail!("{}", difference.0) };
    let module_run = match compare::play(&mut rehearsal, &packets) {
        Ok(outcome) => outcome,
        Err(difference) => return differs(difference),
    };
    println!("module   {}", compare::summary(&module_run, &examined));
    if examined.manifest.imports.iter().any(|import| import == "random") {
        println!("skipped  comparing runs: the plugin draws random numbers");
        return Ok(ExitCode::SUCCESS);
    }
    let mut again = Rehearsal::new(&module, config.as_deref(), &tables)?;
    let second = match compare::play(&mut again, &packets) {
        Ok(outcome) => outcome,
        Err(difference) => return differs(difference),
    };
    if let Err(difference) =
        compare::compare(&packets, &examined, ["once", "again"], [&module_run, &second])
    {
        return differs(difference);
    }
    println!("again    the same verdicts, edits and counters");
    let Project::Rust(project) = &project else { return Ok(ExitCode::SUCCESS) };
    let mut host = Host::new();
    for (name, file) in &tables {
        let lines = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        host = host.table(name, &lines);
    }
    let native = runner::build(project)?;
    let script = Script {
        config: String::from_utf8(json).context("the configuration")?,
        host,
        steps: packets.steps(),
    };
    let outcome = runner::play(&native, &script)?;
    if let Some(refusal) = &outcome.refusal {
        bail!("natively the configuration is refused, which the module takes: {refusal}");
    }
    println!("native   {}", compare::summary(&outcome, &examined));
    let names = ["native", "module"];
    if let Err(difference) = compare::compare(&packets, &examined, names, [&outcome, &module_run]) {
        return differs(difference);
    }
    println!("native and module agree on every verdict, edit and counter");
    Ok(ExitCode::SUCCESS)
}

/// The configuration that is meant: the named file, or the project's `config.toml`.
pub(crate) fn config_of(path: &Path, named: Option<&Path>) -> Option<std::path::PathBuf> {
    let own = path.join("config.toml");
    named.map(Path::to_owned).or_else(|| own.exists().then_some(own))
}
