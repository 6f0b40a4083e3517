//! The native half of a test: a program that is made for one plugin, built from its source.

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use sluice_sdk::testing::trial::{OUTCOME_BEGINS, Outcome, Script};

use super::project::{RustProject, cargo};

/// Builds the program; returns its path.
pub(crate) fn build(project: &RustProject) -> Result<PathBuf> {
    ensure!(
        project.is_linkable,
        "{}: to run natively too, the library needs `crate-type = [\"cdylib\", \"rlib\"]`",
        project.folder.display()
    );
    let folder = project.target.join("sluice-runner").join(&project.package);
    let sources = folder.join("src");
    std::fs::create_dir_all(&sources).with_context(|| sources.display().to_string())?;
    let name = format!("{}-runner", project.package);
    let manifest = format!(
        "# Made by `sluice plugin test`.\n[package]\nname = \"{name}\"\nversion = \"0.0.0\"\n\
         edition = \"2024\"\npublish = false\n\n[dependencies]\n{} = {{ path = {:?} }}\n\n\
         [workspace]\n",
        project.package, project.folder
    );
    let main = format!(
        "//! Made by `sluice plugin test`.\nfn main() -> std::process::ExitCode {{\n    \
         u8::from(!{}::__sluice_native()).into()\n}}\n",
        project.library
    );
    write_if_changed(&folder.join("Cargo.toml"), &manifest)?;
    write_if_changed(&sources.join("main.rs"), &main)?;
    // The versions that the plugin is built with.
    let lock = project.workspace.join("Cargo.lock");
    if let Ok(locked) = std::fs::read_to_string(&lock)
        && !folder.join("Cargo.lock").exists()
    {
        write_if_changed(&folder.join("Cargo.lock"), &locked)?;
    }
    let mut build = cargo(&folder);
    build.args(["build", "--release", "--quiet", "--target-dir"]).arg(&project.target);
    let status = build.stdin(Stdio::null()).status().context("`cargo` cannot be started")?;
    ensure!(
        status.success(),
        "the plugin could not be built natively; the attribute `#[sluice_sdk::plugin]`, or `export!`, \
         has to stand at the root of the library"
    );
    Ok(project.target.join("release").join(name))
}

fn write_if_changed(path: &std::path::Path, text: &str) -> Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|before| before == text) {
        return Ok(());
    }
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

/// Plays a script to the plugin.
pub(crate) fn play(runner: &PathBuf, script: &Script) -> Result<Outcome> {
    let mut child = Command::new(runner)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| runner.display().to_string())?;
    let input = child.stdin.take().context("no input")?;
    let mut output = child.stdout.take().context("no output")?;
    // The program reads all before it writes anything.
    let written = script.write(input);
    let mut answer = Vec::new();
    let read = output.read_to_end(&mut answer);
    let status = child.wait()?;
    if !status.success() {
        bail!("the plugin failed natively ({status}): what it wrote stands above");
    }
    written?;
    read?;
    let (written, outcome) =
        match answer.windows(OUTCOME_BEGINS.len()).position(|window| window == OUTCOME_BEGINS) {
            Some(at) => answer.split_at(at),
            None => (&[][..], &answer[..]),
        };
    // What a module writes goes nowhere; here its author may want to see it.
    std::io::stderr().write_all(written)?;
    let outcome = outcome.strip_prefix(OUTCOME_BEGINS).unwrap_or(outcome);
    Outcome::read(outcome, script.packets()).context("what the plugin's program wrote is garbled")
}
