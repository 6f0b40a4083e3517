//! [`Project`]: what a folder or file is that an author names, and how a module comes of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// The target that plugins are built for.
const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// What an author's path leads to.
#[derive(Debug)]
pub(crate) enum Project {
    /// A package with a library that is a plugin.
    Rust(RustProject),
    /// A folder of C files with a `manifest.toml`.
    C {
        /// The folder.
        folder: PathBuf,
        /// The files that are compiled.
        sources: Vec<PathBuf>,
    },
    /// A module, whoever built it.
    Module(PathBuf),
}

/// A package of cargo.
#[derive(Debug)]
pub(crate) struct RustProject {
    /// The folder of its `Cargo.toml`.
    pub(crate) folder: PathBuf,
    /// The package's name.
    pub(crate) package: String,
    /// The library's name, as `use` writes it.
    pub(crate) library: String,
    /// Whether the library can be linked to a program.
    pub(crate) is_linkable: bool,
    /// The folder of `Cargo.lock`.
    pub(crate) workspace: PathBuf,
    /// Where cargo builds.
    pub(crate) target: PathBuf,
}

impl Project {
    /// Finds out what `path` is.
    pub(crate) fn find(path: &Path) -> Result<Self> {
        ensure!(path.exists(), "{}: there is no such file or folder", path.display());
        if path.is_file() {
            return Ok(Self::Module(path.to_owned()));
        }
        if path.join("Cargo.toml").exists() {
            return RustProject::read(path).map(Self::Rust);
        }
        let mut sources = Vec::new();
        for entry in std::fs::read_dir(path).with_context(|| path.display().to_string())? {
            let file = entry?.path();
            if file.extension().is_some_and(|extension| extension == "c") {
                sources.push(file);
            }
        }
        sources.sort();
        if sources.is_empty() {
            bail!("{}: neither a Cargo.toml nor a C file is here", path.display());
        }
        Ok(Self::C { folder: path.to_owned(), sources })
    }

    /// Builds the module, and returns its path.
    pub(crate) fn build(&self) -> Result<PathBuf> {
        match self {
            Self::Rust(project) => project.build(),
            Self::C { folder, sources } => build_c(folder, sources),
            Self::Module(path) => Ok(path.clone()),
        }
    }
}

/// Runs a command whose output the author sees.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).status();
    let status = status.with_context(|| format!("`{program}` cannot be started"))?;
    ensure!(status.success(), "`{program}` failed ({status})");
    Ok(())
}

fn output_of(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("`{program}` cannot be started"))?;
    ensure!(output.status.success(), "`{program}` failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Cargo in a folder, without what an outer cargo put into the environment for its own package.
pub(crate) fn cargo(folder: &Path) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name.as_ref());
        }
    }
    cargo
}

impl RustProject {
    fn read(folder: &Path) -> Result<Self> {
        let folder = folder.canonicalize()?;
        let mut ask = cargo(&folder);
        ask.args(["metadata", "--no-deps", "--format-version", "1"]);
        let metadata: Value = serde_json::from_str(&output_of(&mut ask)?)
            .context("`cargo metadata` did not answer in JSON")?;
        let manifest = folder.join("Cargo.toml");
        let packages = metadata["packages"].as_array().context("no packages")?;
        let package = packages
            .iter()
            .find(|package| package["manifest_path"].as_str().map(Path::new) == Some(&manifest))
            .with_context(|| format!("{}: no package, but a workspace", manifest.display()))?;
        let name = package["name"].as_str().context("a package without a name")?;
        let has_kind = |target: &Value, kind: &str| {
            target["crate_types"].as_array().is_some_and(|all| all.iter().any(|one| one == kind))
        };
        let targets = package["targets"].as_array().context("no targets")?;
        let library = targets.iter().find(|target| has_kind(target, "cdylib")).with_context(|| {
            format!(
                "{}: no library of the type a module is made of: `[lib] crate-type = [\"cdylib\", \
                 \"rlib\"]`",
                manifest.display()
            )
        })?;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        Ok(Self {
            package: name.to_owned(),
            library: text(&library["name"])?.replace('-', "_"),
            is_linkable: has_kind(library, "rlib") || has_kind(library, "lib"),
            workspace: text(&metadata["workspace_root"])?.into(),
            target: text(&metadata["target_directory"])?.into(),
            folder,
        })
    }

    fn build(&self) -> Result<PathBuf> {
        self.add_target()?;
        let mut build = cargo(&self.folder);
        build.args(["build", "--release", "--lib", "--target", WASM_TARGET]);
        build.args(["--message-format", "json-render-diagnostics"]);
        let messages = output_of(&mut build)?;
        messages
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| {
                message["target"]["name"]
                    .as_str()
                    .is_some_and(|name| name.replace('-', "_") == self.library)
            })
            .filter_map(|message| message["filenames"].as_array().cloned())
            .flatten()
            .filter_map(|file| file.as_str().map(PathBuf::from))
            .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
            .context("cargo built no module")
    }

    /// Installs the target, where the toolchain comes from rustup.
    fn add_target(&self) -> Result<()> {
        let mut ask = Command::new("rustc");
        ask.current_dir(&self.folder);
        ask.args(["--print", "target-libdir", "--target", WASM_TARGET]);
        // The folder exists exactly when the target's standard library is installed.
        if Path::new(output_of(&mut ask)?.trim()).exists() {
            return Ok(());
        }
        let by_hand = format!("rustup target add {WASM_TARGET}");
        eprintln!("$ {by_hand}");
        run(Command::new("rustup").current_dir(&self.folder).args(["target", "add", WASM_TARGET]))
            .with_context(|| format!("plugins are built for {WASM_TARGET}; by hand: {by_hand}"))
    }
}

fn build_c(folder: &Path, sources: &[PathBuf]) -> Result<PathBuf> {
    ensure!(
        folder.join("manifest.toml").exists(),
        "{}: without a manifest.toml, which SLUICE_MANIFEST embeds",
        folder.display()
    );
    let folder = folder.canonicalize()?;
    let name = folder.file_name().context("a folder without a name")?;
    let target = folder.join("target");
    std::fs::create_dir_all(&target).with_context(|| target.display().to_string())?;
    let module = target.join(name).with_extension("wasm");
    let mut clang = Command::new("clang");
    clang.current_dir(&folder);
    clang.args(["--target=wasm32", "-std=c11", "-O2", "-mbulk-memory", "-Wall", "-Wextra"]);
    // There is no C library: loops must not become calls of its functions.
    clang.args(["-ffreestanding", "-fno-builtin", "-nostdlib"]);
    // The header lies beside the plugin, or above it as in the repository.
    clang.args(["-I", ".", "-I", ".."]);
    clang.args(["-Wl,--no-entry", "-Wl,-z,stack-size=65536"]);
    if let Some(linker) = wasm_linker() {
        clang.arg(format!("-fuse-ld={}", linker.display()));
    }
    clang.arg("-o").arg(&module);
    clang.args(sources.iter().filter_map(|source| source.file_name()));
    run(&mut clang).map_err(|error| match has_clang() {
        true => error,
        false => error.context("plugins in C take clang and lld: `apt-get install clang lld`"),
    })?;
    Ok(module)
}

/// Whether there is a compiler of C with a linker for modules.
fn has_clang() -> bool {
    let is_there = |program: &str| {
        let mut ask = Command::new(program);
        ask.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    is_there("clang") && (is_there("wasm-ld") || wasm_linker().is_some())
}

/// The linker that comes with Rust, where clang would find none.
fn wasm_linker() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    if std::env::split_paths(&path).any(|folder| folder.join("wasm-ld").exists()) {
        return None;
    }
    let sysroot = output_of(Command::new("rustc").args(["--print", "sysroot"])).ok()?;
    let targets = Path::new(sysroot.trim()).join("lib/rustlib");
    let folders = std::fs::read_dir(targets).ok()?.filter_map(Result::ok);
    folders.map(|entry| entry.path().join("bin/gcc-ld/wasm-ld")).find(|linker| linker.exists())
}
