//! What tests of the binary share.

use std::path::{Path, PathBuf};
use std::process::Command;

/// `sluice replay`, with everything but its inputs.
#[allow(dead_code, reason = "each test file is a program of its own, and not all need it")]
pub(crate) fn replay(config: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("replay").arg("--config").arg(config).arg("--out-dir").arg(out);
    command
}

/// The folder of the built plugins: `SLUICE_PLUGINS`, or `plugins` beside the folder that the binary
/// was built into.
#[allow(dead_code, reason = "each test file is a program of its own, and not all need it")]
pub(crate) fn plugins() -> Option<PathBuf> {
    let folder = match std::env::var_os("SLUICE_PLUGINS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_BIN_EXE_sluice")).ancestors().nth(2)?.join("plugins"),
    };
    ["filter.wasm", "rate-limit.wasm"]
        .iter()
        .all(|file| folder.join(file).exists())
        .then_some(folder)
}
