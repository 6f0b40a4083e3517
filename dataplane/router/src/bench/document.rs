//! The end of every measurement: its document, and its text for people.

use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use load::document::{Document, Outcome, SCHEMA};
use load::machine::machine;

/// Tries whether these files can be written, since it would be late to learn it when the measurement
/// is done. What they hold stays.
pub(super) fn writable<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Result<()> {
    for path in paths {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        if path.is_dir() {
            anyhow::bail!("{}: cannot be written: it is a folder", path.display());
        }
        if is_special(path) {
            continue;
        }
        tempfile::NamedTempFile::new_in(folder)
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    Ok(())
}

/// Writes a file as a whole or not at all: a half would pass for a result.
pub(super) fn write_whole(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        if is_special(path) {
            return std::fs::write(path, text);
        }
        // A name that leads elsewhere goes on to lead there.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let mut file = tempfile::Builder::new()
            .permissions(Permissions::from_mode(0o666)) // less the umask
            .tempfile_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(text.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("{}: cannot be written", path.display()))
}

/// Whether it is a device or a pipe, which is written to and not replaced.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|about| !about.is_file() && !about.is_dir())
}

/// Prints `text`, or with `json` the document, and writes the document to `out` if that is given. What
/// cannot be written to the one is in the other all the same.
pub(super) fn finish(
    title: &str,
    outcome: Outcome,
    json: bool,
    out: Option<&Path>,
    text: &str,
) -> Result<()> {
    let document = Document {
        schema: SCHEMA,
        title: title.into(),
        command: command(std::env::args()),
        version: env!("CARGO_PKG_VERSION").into(),
        started_unix_s: started_unix_s(),
        machine: machine(),
        outcome,
    };
    let document = serde_json::to_string_pretty(&document)?;
    let written = out.map_or(Ok(()), |path| write_whole(path, &format!("{document}\n")));
    let mut stdout = std::io::stdout().lock();
    let printed = if json { writeln!(stdout, "{document}") } else { write!(stdout, "{text}") };
    let printed = printed.and_then(|()| stdout.flush()).context("the result cannot be printed");
    written.and(printed)
}

/// The command as a shell would read it again.
fn command(words: impl Iterator<Item = String>) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+[]".contains(c);
    words
        .map(|word| {
            if !word.is_empty() && word.chars().all(is_plain) {
                word
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// When this process started, by the time that it has run.
fn started_unix_s() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.saturating_sub(process_age().unwrap_or_default()).as_secs()
}

/// `starttime` of /proc/self/stat (proc_pid_stat(5)) is in clock ticks since boot, 100 a second.
fn process_age() -> Option<std::time::Duration> {
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the command, in parentheses, may hold anything; what follows starts with field 3.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    std::time::Duration::try_from_secs_f64(uptime - ticks / TICKS_PER_SECOND).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_pasted() {
        let words = ["sluice", "bench", "--subject", "it's me", "", "--ipv6-share", "36%"];
        let command = command(words.into_iter().map(String::from));
        assert_eq!(command, r"sluice bench --subject 'it'\''s me' '' --ipv6-share 36%");
    }

    #[test]
    fn a_file_is_written_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("result.json");
        write_whole(&path, "first").expect("it is written");
        write_whole(&path, "second").expect("it is written again");
        assert_eq!(std::fs::read_to_string(&path).expect("a file"), "second");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no leftovers");
        writable([&path].into_iter()).expect("it can be written");
        write_whole(Path::new("/dev/full"), "third").expect_err("a full disk");

        let missing = folder.path().join("missing/result.json");
        for path in [&missing, &folder.path().to_owned()] {
            let error = writable([path].into_iter()).expect_err("there is no such folder");
            assert!(error.to_string().contains("cannot be written"), "{error}");
        }
    }

    #[test]
    fn a_process_is_as_old_as_it_says() {
        let age = process_age().expect("/proc is mounted");
        assert!(age.as_secs() < 24 * 3600, "{age:?}");
    }
}
