//! The end of every measurement: its document, and its text for people.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use load::document::{Document, Outcome, SCHEMA};
use load::machine::machine;

/// Prints `text`, or with `json` the document, and writes the document to `out` if that is given.
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
    if let Some(path) = out {
        std::fs::write(path, format!("{document}\n"))
            .with_context(|| format!("{}: cannot be written", path.display()))?;
    }
    if json {
        println!("{document}");
    } else {
        print!("{text}");
    }
    Ok(())
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
    fn a_process_is_as_old_as_it_says() {
        let age = process_age().expect("/proc is mounted");
        assert!(age.as_secs() < 24 * 3600, "{age:?}");
    }
}
