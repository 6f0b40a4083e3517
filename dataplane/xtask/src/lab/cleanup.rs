//! What the lab has made, so that it goes away with the lab, however that ends.
//!
//! Drop guards serve the ordinary end and panics, [`on_signals`] serves SIGINT, SIGTERM and SIGHUP,
//! and [`delete_leftovers`] serves runs that were killed. Names carry the pid of the run that made
//! them, so that nothing of a run that still lives, or of anybody else, is touched.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::command;

/// Where `ip netns` keeps its names.
pub const NAMESPACES: &str = "/run/netns";

/// Where routers pin their programs, each in a folder of its name.
pub const PINS: &str = "/sys/fs/bpf/sluice";

/// What this process has made and not yet removed.
#[derive(Debug)]
pub(crate) struct Made {
    /// Names of namespaces.
    pub(crate) namespaces: BTreeSet<String>,
    /// Folders of files that nobody needs after the run.
    pub(crate) folders: BTreeSet<PathBuf>,
    /// Process groups whose leader has not been waited for, so that their number is not another's.
    pub(crate) process_groups: BTreeSet<i32>,
}

static MADE: Mutex<Made> = Mutex::new(Made {
    namespaces: BTreeSet::new(),
    folders: BTreeSet::new(),
    process_groups: BTreeSet::new(),
});

/// What this process has made. Hold it while making something and noting it: a signal then finds
/// either nothing or all.
pub(crate) fn made() -> MutexGuard<'static, Made> {
    // A panic between two insertions leaves the sets whole.
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a thing of this process: `slt-GROUP-PID-ROLE`.
#[must_use]
pub fn name(group: &str, role: &str) -> String {
    format!("slt-{group}-{}-{role}", std::process::id())
}

/// From now on, SIGINT, SIGTERM and SIGHUP remove what was made before they end this process.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn on_signals() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("signal handlers cannot be installed")?;
    thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let made = made();
            eprintln!(
                "signal {signal}: removing {} namespaces, ending {} processes",
                made.namespaces.len(),
                made.process_groups.len()
            );
            for &group in &made.process_groups {
                // It may have ended by itself.
                let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
            }
            for name in &made.namespaces {
                if let Err(error) = delete_namespace(name) {
                    eprintln!("{error:#}");
                }
            }
            for folder in &made.folders {
                let _ = std::fs::remove_dir_all(folder);
            }
            // `made` stays locked, so that nothing is made between here and the end.
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// A temporary folder. It is removed, with all that is in it, when this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes the folder `slt-GROUP-PID-ROLE` where this machine keeps temporary files.
    ///
    /// # Errors
    /// When it cannot be made, or exists already.
    pub fn create(group: &str, role: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(name(group, role));
        let mut made = made();
        std::fs::create_dir(&path).with_context(|| path.display().to_string())?;
        made.folders.insert(path.clone());
        Ok(Self(path))
    }

    /// Takes a folder over that may come into being later.
    #[must_use]
    pub fn adopt(path: PathBuf) -> Self {
        made().folders.insert(path.clone());
        Self(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves the folder when this is dropped.
    pub fn keep(&mut self) {
        made().folders.remove(&self.0);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if made().folders.remove(&self.0) {
            // What is left of temporary files harms nobody.
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// Deletes a namespace by its name.
pub(crate) fn delete_namespace(name: &str) -> Result<()> {
    command::output(Command::new("ip").args(["netns", "delete", name])).map(drop)
}

/// Deletes the namespaces of `group` whose run has ended without deleting them, and returns their
/// names.
///
/// # Errors
/// When one of them cannot be deleted.
pub fn delete_leftovers(group: &str) -> Result<Vec<String>> {
    let mut deleted = Vec::new();
    for (name, _) in leftover_entries(Path::new(NAMESPACES), &format!("slt-{group}-")) {
        delete_namespace(&name)?;
        deleted.push(name);
    }
    deleted.sort();
    Ok(deleted)
}

/// The entries of a folder whose names begin with `prefix` and the pid of a run that has ended: their
/// names and paths. A folder that is not there has none.
#[must_use]
pub(crate) fn leftover_entries(folder: &Path, prefix: &str) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
        .filter(|(name, _)| owner(name, prefix).is_some_and(|pid| !is_alive(pid)))
        .collect()
}

/// The pid in a name that begins with `prefix`.
fn owner(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.split_once('-')?.0.parse().ok()
}

/// Whether a process lives under this pid. It may be another one, since pids come round again: its
/// leftovers then stay until a later run.
fn is_alive(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_group_have_an_owner() {
        assert_eq!(owner("slt-lab-123-client", "slt-lab-"), Some(123));
        assert_eq!(owner(&name("lab", "a-b"), "slt-lab-"), Some(std::process::id()));
        for other in ["slt-lab-client", "slt-lab-12x-client", "slt-labs-1-a", "slt-xdp-1-a", "a"] {
            assert_eq!(owner(other, "slt-lab-"), None, "{other}");
        }
    }

    #[test]
    fn a_folder_goes_with_what_is_in_it() {
        let folder = Folder::create("xtask", "folder").expect("a folder");
        let path = folder.path().to_owned();
        assert!(Folder::create("xtask", "folder").is_err(), "it exists");
        std::fs::write(path.join("file"), "text").expect("a file");
        drop(folder);
        assert!(!path.exists());
    }
}
