//! What a run that was killed has left: processes, namespaces, pins and files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::GROUP;
use crate::lab::cleanup;

/// Removes what runs that have ended left, and says so.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove() -> Result<()> {
    let folders = cleanup::leftover_entries(&std::env::temp_dir(), &format!("slt-{GROUP}-"));
    for (_, folder) in folders {
        for pid in writers(&folder) {
            // It may end by itself at this moment.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            eprintln!("ended process {pid} of {}, which an earlier run left", folder.display());
        }
        std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for name in cleanup::delete_leftovers(GROUP)? {
        eprintln!("deleted {name}, which an earlier run left");
    }
    for (_, pins) in cleanup::leftover_entries(Path::new(cleanup::PINS), &format!("{GROUP}-")) {
        std::fs::remove_dir_all(&pins).with_context(|| pins.display().to_string())?;
    }
    Ok(())
}

/// The processes whose output goes to a file in that folder.
fn writers(folder: &Path) -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let output = PathBuf::from(format!("/proc/{pid}/fd/1"));
            std::fs::read_link(output).is_ok_and(|file| file.starts_with(folder))
        })
        .collect()
}
