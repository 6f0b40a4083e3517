//! `test`, `ci`, `bless`, `simulate` and `bench`: the same preparation, then cargo.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};

use crate::build::Workspace;
use crate::lab::report::Report;
use crate::test_output::Summary;
use crate::{command, lab, setup};

/// Where tests find data that is no part of the repository.
const TEST_DATA: &str = "SLUICE_TESTDATA";

/// Runs every test and then the lab, or those tests whose name contains `filter`. Returns whether all
/// passed.
///
/// # Errors
/// When something that the tests need cannot be built.
pub fn test(workspace: &Workspace, filter: Option<&str>) -> Result<bool> {
    let started = Instant::now();
    setup::require(setup::Need::Build)?;
    setup::offer(setup::Need::Lab);
    setup::offer(setup::Need::Browser);
    match std::env::var_os(TEST_DATA) {
        Some(folder) => eprintln!("{TEST_DATA}={}", folder.display()),
        None => eprintln!("{TEST_DATA} is not set: tests that need its captures skip"),
    }
    workspace.build_plugins()?;
    let router = workspace.build_tests()?;
    let mut cargo = workspace.cargo_for_tests(&router);
    cargo.args(["test", "--workspace", "--release", "--no-fail-fast"]);
    // The output of tests that passed is shown, because it says what they skipped.
    cargo.args(filter).args(["--", "--show-output"]);
    let (success, summary) = run_tests(&mut cargo)?;
    // Whoever looks for one test does not want the lab.
    let lab = filter.is_some() || run_lab(workspace, router)?;
    println!("\n{summary}; {:.0} s in all", started.elapsed().as_secs_f64());
    Ok(success && lab)
}

/// Runs the lab where it can be run, and says so where it cannot.
fn run_lab(workspace: &Workspace, sluice: PathBuf) -> Result<bool> {
    if let Err(error) = setup::require(setup::Need::Lab).and_then(|()| lab::probe()) {
        eprintln!("SKIPPED the lab: {error:#}");
        return Ok(true);
    }
    let options = lab::Options { keep: false, clean: false, json: false };
    let binaries = lab::Binaries { sluice, filter: workspace.plugins().join("filter.wasm") };
    lab::run(&options, &binaries)
}

/// Runs cargo's tests with their output passed on and counted.
fn run_tests(cargo: &mut Command) -> Result<(bool, Summary)> {
    let line = command::line(cargo);
    eprintln!("$ {line}");
    let mut child = cargo
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("`{line}` cannot be started"))?;
    let mut summary = Summary::default();
    if let Some(output) = child.stdout.take() {
        let mut output = BufReader::new(output);
        let mut stdout = std::io::stdout().lock();
        let mut bytes = Vec::new();
        // Tests print what they like: not every line is text.
        while output.read_until(b'\n', &mut bytes)? > 0 {
            if summary.read(&String::from_utf8_lossy(&bytes)) {
                stdout.write_all(&bytes)?;
            }
            bytes.clear();
        }
    }
    let status = child.wait().with_context(|| format!("`{line}` is lost"))?;
    Ok((status.success(), summary))
}

/// Checks formatting and lints, then runs every test. A check that fails does not hide the next.
/// Returns whether all passed.
///
/// # Errors
/// When the machine lacks something that cannot be installed.
pub fn ci(workspace: &Workspace) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    setup::require(setup::Need::Lints)?;
    let mut report = Report::new("ci");

    let mut format = workspace.cargo();
    format.args(["fmt", "--all", "--check"]);
    let mut lints = workspace.cargo();
    lints.args(["clippy", "--workspace", "--all-targets", "--release", "--", "-D", "warnings"]);
    let mut plugin_lints = workspace.plugin_lints();
    for (name, cargo) in
        [("format", &mut format), ("lints", &mut lints), ("plugin lints", &mut plugin_lints)]
    {
        report.timed(name, || command::run(cargo));
    }
    report.timed("SDK without std", || command::run(&mut workspace.sdk_without_std()?));
    report.timed("tests", || {
        anyhow::ensure!(test(workspace, None)?, "a test failed");
        Ok(())
    });
    println!("\n{report}");
    Ok(report.passed())
}

/// Rewrites what the scenarios expect by what they give now, and says which files changed.
///
/// # Errors
/// When something that the scenarios need cannot be built.
pub fn bless(workspace: &Workspace) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    workspace.build_plugins()?;
    let router = workspace.build_tests()?;
    let mut cargo = workspace.cargo_for_tests(&router);
    cargo.env("SLUICE_BLESS", "1");
    // Of all packages, although most have none: so it is the build that the tests have made.
    cargo.args(["test", "--workspace", "--release", "scenario", "--", "--show-output"]);
    let (success, summary) = run_tests(&mut cargo)?;
    println!("\n{summary}");
    anyhow::ensure!(summary.passed > 0, "no test has `scenario` in its name");
    let mut git = Command::new("git");
    git.current_dir(workspace.root()).args(["status", "--short"]);
    // Without git, or outside a clone, there is nothing to add.
    if let Ok(changes) = command::output(&mut git) {
        println!("review what changed:\n{changes}");
    }
    Ok(success)
}

/// Runs simulated networks, with `arguments` passed on. Returns whether all held.
///
/// # Errors
/// When something that a simulation needs cannot be built.
pub fn simulate(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    workspace.build_plugins()?;
    let mut cargo = workspace.cargo();
    cargo.env("SLUICE_PLUGINS", workspace.plugins());
    cargo.args(["run", "--release", "--quiet", "-p", "network", "--bin", "simulate", "--"]);
    cargo.args(arguments);
    // What it found, it has said.
    Ok(cargo.status().context("`cargo run` cannot be started")?.success())
}

/// Runs the benches, with `arguments` passed on to them.
///
/// # Errors
/// When something that the benches need cannot be built.
pub fn bench(workspace: &Workspace, arguments: &[String]) -> Result<bool> {
    setup::require(setup::Need::Build)?;
    workspace.build_plugins()?;
    let mut cargo = workspace.cargo();
    cargo.env("SLUICE_PLUGINS", workspace.plugins());
    cargo.args(["bench", "-p", "benches", "--"]).args(arguments);
    command::status(&mut cargo)
}
