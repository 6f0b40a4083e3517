//! [`Workspace`]: where things are, and what has to be built before tests, benches and the lab.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

/// The packages that are built as plugins.
const PLUGINS: [&str; 5] = ["filter", "rate-limit", "hop-distance", "syn-guard", "egress-tags"];

/// The target that plugins are built for.
pub const WASM_TARGET: &str = "wasm32-unknown-unknown";

/// The same machine without a standard library.
const BARE_WASM_TARGET: &str = "wasm32v1-none";

/// Where the workspace and its build products are.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// Asks cargo for the workspace that this program belongs to.
    ///
    /// # Errors
    /// When cargo cannot be asked.
    pub fn find() -> Result<Self> {
        // Cargo says at run time where this package is. What it said at compile time is wrong when
        // two clones share a folder of build products.
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let mut cargo = Command::new(cargo_program());
        cargo
            .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
            .arg(package.join("Cargo.toml"));
        let metadata: Value = serde_json::from_str(&command::output(&mut cargo)?)
            .context("`cargo metadata` did not answer in JSON")?;
        let path = |key: &str| {
            metadata[key]
                .as_str()
                .map(PathBuf::from)
                .with_context(|| format!("`cargo metadata` names no {key}"))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")? })
    }

    /// The folder of the workspace's `Cargo.toml`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder that cargo builds in.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder of the built plugins.
    #[must_use]
    pub fn plugins(&self) -> PathBuf {
        self.target.join("plugins")
    }

    /// Cargo, in the workspace's folder.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut cargo = Command::new(cargo_program());
        cargo.current_dir(&self.root);
        // `cargo xtask` runs this program with its own package in the environment, which tells
        // build scripts nothing and makes cargo rebuild those that watch it.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
                cargo.env_remove(name.as_ref());
            }
        }
        cargo
    }

    /// Builds the plugins for wasm as `NAME.wasm` in [`Self::plugins`], and returns their paths.
    ///
    /// # Errors
    /// When a plugin cannot be built or copied.
    pub fn build_plugins(&self) -> Result<Vec<PathBuf>> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--target", WASM_TARGET, "--profile", "plugin"]);
        for plugin in PLUGINS {
            cargo.args(["-p", plugin]);
        }
        command::run(&mut cargo)?;
        let folder = self.plugins();
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        PLUGINS
            .iter()
            .map(|plugin| {
                let built = format!("{}.wasm", plugin.replace('-', "_"));
                let from = self.target.join(WASM_TARGET).join("plugin").join(built);
                let to = folder.join(format!("{plugin}.wasm"));
                std::fs::copy(&from, &to)
                    .with_context(|| format!("{} to {}", from.display(), to.display()))?;
                Ok(to)
            })
            .collect()
    }

    /// Lints of the plugins and of what they are made with, for the target that they run on.
    #[must_use]
    pub fn plugin_lints(&self) -> Command {
        let mut cargo = self.cargo();
        cargo.args(["clippy", "--target", WASM_TARGET, "--profile", "plugin", "-p", "sluice-sdk"]);
        for plugin in PLUGINS {
            cargo.args(["-p", plugin]);
        }
        cargo.args(["--", "-D", "warnings"]);
        cargo
    }

    /// A check that the guest crate does without the standard library, on a target that has none.
    ///
    /// # Errors
    /// When the target cannot be installed.
    pub fn sdk_without_std(&self) -> Result<Command> {
        crate::setup::rustup(&["target", "add", BARE_WASM_TARGET])?;
        let mut cargo = self.cargo();
        cargo.args(["check", "--profile", "plugin", "--target", BARE_WASM_TARGET]);
        cargo.args(["-p", "sluice-sdk", "--no-default-features"]);
        Ok(cargo)
    }

    /// The router's binary: what `SLUICE_ROUTER` names, or a fresh build.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn find_router(&self) -> Result<PathBuf> {
        std::env::var_os("SLUICE_ROUTER").map_or_else(|| self.build_router(), |it| Ok(it.into()))
    }

    /// Builds the router as a user does, and returns the path of its binary.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn build_router(&self) -> Result<PathBuf> {
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "-p", "router"]);
        self.router_among_artifacts(&mut cargo)?.context("cargo built no binary of the router")
    }

    /// Builds all tests, and returns the path of the router's binary, which comes with its tests.
    /// Building it alone would choose other features of shared dependencies, and build those and all
    /// that depends on them once more.
    ///
    /// # Errors
    /// When something cannot be built.
    pub fn build_tests(&self) -> Result<PathBuf> {
        let mut cargo = self.cargo();
        cargo.args(["test", "--workspace", "--release", "--no-run"]);
        match self.router_among_artifacts(&mut cargo)? {
            Some(router) => Ok(router),
            None => self.build_router(),
        }
    }

    /// Runs a build and returns the path of the router's binary, if it made one.
    fn router_among_artifacts(&self, cargo: &mut Command) -> Result<Option<PathBuf>> {
        let line = command::line(cargo);
        eprintln!("$ {line}");
        let output = cargo
            .args(["--message-format", "json-render-diagnostics"])
            .stdin(Stdio::null())
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("`{line}` cannot be started"))?;
        anyhow::ensure!(output.status.success(), "`{line}` failed");
        let manifest = self.root.join("dataplane/router/Cargo.toml");
        let router = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|message| {
                message["manifest_path"].as_str().is_some_and(|path| Path::new(path) == manifest)
                    && message["target"]["kind"][0] == "bin"
                    && message["profile"]["test"] == false
            })
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        Ok(router)
    }

    /// Cargo, with what tests need to find: `SLUICE_ROUTER` (the router's binary) and
    /// `SLUICE_PLUGINS` (the folder of the built plugins). `SLUICE_TESTDATA` is passed on as it is.
    #[must_use]
    pub fn cargo_for_tests(&self, router: &Path) -> Command {
        let mut cargo = self.cargo();
        cargo.env("SLUICE_ROUTER", router).env("SLUICE_PLUGINS", self.plugins());
        cargo
    }
}

/// The cargo that runs this program, so that a chosen toolchain stays chosen.
fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
