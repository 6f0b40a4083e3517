//! `fuzz`: runs libFuzzer over the targets of `dataplane/fuzz`, one after the other.
//!
//! ```text
//!  dataplane/fuzz/corpus/TARGET, crashes/TARGET --read--> libFuzzer --new inputs--> target/fuzz/TARGET
//!  dataplane/fuzz/dictionaries/TARGET.dict --------------^    +--crash--> dataplane/fuzz/artifacts/TARGET
//! ```
//!
//! Without a sanitizer an ordinary compiler does: the crates under test forbid `unsafe`, but for the
//! WebAssembly host, and what fuzzing finds there is panics, overflows and broken properties. `--sanitizer
//! address` takes the nightly toolchain, and looks into the WebAssembly host and what is written in C, too.
//! That targets find what they should: `fuzz/tests/planted.rs`.
//!
//! Deliberately absent: writing to the committed corpus. What is new there is chosen by hand, with `cargo
//! fuzz cmin`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::build::Workspace;
use crate::{command, setup};

/// How long libFuzzer may take over one input before that is a finding, in seconds.
const TIMEOUT_S: u32 = 30;
/// The most memory that a target may use, in MiB: tables of routes take 32 each.
const RSS_MIB_MAX: u32 = 4096;

/// Targets that start threads. LeakSanitizer looks after each input, and takes for lost what a thread has that
/// begins or ends just then.
const THREADED: [&str; 1] = ["control_socket"];

/// What is fuzzed, and for how long.
#[derive(Debug, Args)]
pub struct Options {
    /// The target; all of them, one after the other, without it.
    target: Option<String>,
    /// How long each target runs.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Looks for misuse of memory too, on the nightly toolchain, at less than half the speed.
    #[arg(long, value_enum, default_value_t = Sanitizer::None)]
    sanitizer: Sanitizer,
}

/// What LLVM adds to a target beside coverage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sanitizer {
    None,
    Address,
}

/// The targets, by the programs in `fuzz_targets`, in the order of the alphabet.
///
/// # Errors
/// When the folder cannot be read.
pub fn targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join("dataplane/fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// Runs one target or all of them. Returns whether nothing was found.
///
/// # Errors
/// When there is no such target, or what fuzzing takes cannot be installed here.
pub fn run(workspace: &Workspace, options: &Options) -> Result<bool> {
    let all = targets(workspace.root())?;
    let chosen: Vec<&String> = match &options.target {
        None => all.iter().collect(),
        Some(name) => all.iter().filter(|target| *target == name).collect(),
    };
    if chosen.is_empty() {
        bail!("no such target; there are: {}", all.join(" "));
    }
    setup::require(setup::Need::Build)?;
    require_cargo_fuzz()?;
    if options.sanitizer == Sanitizer::Address {
        require_nightly(workspace.root())?;
    }
    let mut found = Vec::new();
    for target in &chosen {
        if !run_target(workspace, target, options)? {
            found.push(target.as_str());
        }
    }
    if found.is_empty() {
        println!("\n{} targets ran for {} s each and found nothing", chosen.len(), options.seconds);
        return Ok(true);
    }
    for target in found {
        tell(workspace.root(), target)?;
    }
    Ok(false)
}

/// Runs a target. Returns whether it ended for no other reason than that its time was up.
fn run_target(workspace: &Workspace, target: &str, options: &Options) -> Result<bool> {
    let fuzz = workspace.root().join("dataplane/fuzz");
    // Where cargo builds, new inputs are nobody's concern.
    let new_inputs = workspace.target().join("fuzz").join(target);
    fs::create_dir_all(&new_inputs).with_context(|| new_inputs.display().to_string())?;
    let (mut cargo, sanitizer) = match options.sanitizer {
        Sanitizer::None => (workspace.cargo(), "none"),
        Sanitizer::Address => (nightly(workspace.root()), "address"),
    };
    cargo.args(["fuzz", "run", "--fuzz-dir", "dataplane/fuzz", "--features", "libfuzzer"]);
    cargo.args(["--sanitizer", sanitizer, target]).arg(&new_inputs);
    for folder in ["corpus", "crashes"].map(|folder| fuzz.join(folder).join(target)) {
        if folder.is_dir() {
            cargo.arg(folder);
        }
    }
    cargo.args(["--", "-print_final_stats=1"]);
    cargo.arg(format!("-max_total_time={}", options.seconds));
    cargo.arg(format!("-timeout={TIMEOUT_S}"));
    cargo.arg(format!("-rss_limit_mb={RSS_MIB_MAX}"));
    if options.sanitizer == Sanitizer::Address && THREADED.contains(&target) {
        cargo.arg("-detect_leaks=0");
    }
    let dictionary = fuzz.join("dictionaries").join(target).with_extension("dict");
    if dictionary.is_file() {
        cargo.arg(format!("-dict={}", dictionary.display()));
    }
    command::status(&mut cargo)
}

/// Says where the inputs lie that broke a target, and what to do with them.
fn tell(root: &Path, target: &str) -> Result<()> {
    let folder = root.join("dataplane/fuzz/artifacts").join(target);
    let mut inputs: Vec<PathBuf> = match fs::read_dir(&folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect(),
        Err(_) => Vec::new(),
    };
    inputs.sort();
    println!("\n{target} failed");
    if inputs.is_empty() {
        println!("  no input is to blame: see its output above");
        return Ok(());
    }
    for input in inputs {
        println!("  {}", input.display());
    }
    println!(
        "  once mended, move it to dataplane/fuzz/crashes/{target}/ under a name that says what it \
         broke: `cargo test --release -p fuzz` runs it from then on"
    );
    Ok(())
}

pub(crate) fn answers(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

fn require_cargo_fuzz() -> Result<()> {
    if answers(Command::new("cargo").args(["fuzz", "--version"])) {
        return Ok(());
    }
    eprintln!("missing cargo-fuzz: builds targets for libFuzzer and runs them");
    command::run(Command::new("cargo").args(["install", "--locked", "cargo-fuzz"]))
        .context("cargo-fuzz comes from crates.io; without it `cargo test -p fuzz` runs the inputs that are known")
}

/// Cargo of the nightly toolchain, whichever runs xtask.
pub(crate) fn nightly(root: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(root).arg("+nightly").env_remove("RUSTUP_TOOLCHAIN");
    cargo
}

pub(crate) fn require_nightly(root: &Path) -> Result<()> {
    if answers(nightly(root).arg("--version")) {
        return Ok(());
    }
    eprintln!("missing Rust toolchain nightly: sanitizers and miri need it");
    setup::rustup(&["toolchain", "install", "nightly", "--profile", "minimal"])
}
