//! Routes of the kernel come, go and change a thousand times a second, by one `ip -batch` that is fed
//! through a pipe. Every tenth change gives the traffic's own prefix another next hop, as good as the
//! one before; the others are of prefixes beside it.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::eventually;
use crate::changes::bed::T1_SECOND_V4;
use crate::changes::site::{Site, Window};
use crate::command;
use crate::lab::process::Process;
use crate::peers::bed::{D1, DESTINATIONS, T1};

/// Changes a second.
const RATE: u32 = 1000;

/// Changes that are fed at once: 10 ms of them.
const PORTION: u32 = 10;

/// Prefixes beside the traffic's: each is added, and deleted that many changes later.
const PREFIXES: u32 = 500;

/// Marks the routes beside the traffic's, to find them again.
const PROTOCOL: &str = "200";

/// How long `ip` may lag behind, and the router behind the kernel.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn make(site: &Site, window: Window) -> Result<u32> {
    let pipe = site.folder.path().join("routes.pipe");
    if !pipe.exists() {
        command::output(Command::new("mkfifo").arg(&pipe))?;
    }
    let mut ip = Command::new("ip");
    ip.args(["-n", site.bed.a.name(), "-batch"]).arg(&pipe);
    let mut ip = Process::start("ip-batch", None, ip, site.folder.path())?;
    // Open for both, it does not wait for the reader. A reader that has stopped lets it fill up.
    let mut feed = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(&pipe)
        .with_context(|| pipe.display().to_string())?;
    let mut fed = 0;
    let start = Instant::now();
    // The reader needs a moment for the last ones.
    let length = window.length().saturating_sub(start.elapsed() + Duration::from_millis(300));
    while start.elapsed() < length && window.is_open() {
        let mut text = String::new();
        for number in fed..fed + PORTION {
            // A String takes writes without an error.
            let _ = writeln!(text, "{}", line(number));
        }
        fed += PORTION;
        let log = || ip.output().unwrap_or_default();
        feed.write_all(text.as_bytes()).with_context(|| format!("`ip -batch`: {}", log()))?;
        let due = start + Duration::from_secs(1) * fed / RATE;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    drop(feed);
    let status = ip.wait(TIMEOUT)?;
    ensure!(status.success(), "`ip -batch` failed: {}", ip.output()?.trim_end());
    ensure!(window.is_open(), "the kernel took fewer than {RATE} route changes a second");
    let expected = kernel_routes(site)?;
    eventually("have the kernel's routes", TIMEOUT, || Ok(own_routes(site)? >= expected))?;
    Ok(fed)
}

/// The change of that number, as `ip` takes it.
fn line(number: u32) -> String {
    let prefix = |number: u32| format!("10.{}.{}.0/24", 64 + number / 256, number % 256);
    if number % 10 == 9 {
        let via = if (number / 10).is_multiple_of(2) { T1_SECOND_V4 } else { T1.v4 };
        return format!("route replace {} via {via} dev {}", DESTINATIONS[0], D1.name);
    }
    // Of ten numbers, nine are of prefixes; those are counted through.
    let turn = number / 10 * 9 + number % 10;
    let (round, place) = (turn / PREFIXES, turn % PREFIXES);
    let action = if round.is_multiple_of(2) { "add" } else { "delete" };
    let via = if round.is_multiple_of(2) {
        format!(" via {} dev {}", T1.v4, D1.name)
    } else {
        String::new()
    };
    format!("route {action} {}{via} proto {PROTOCOL}", prefix(place))
}

/// Puts the kernel's routes back, and waits until the router has followed.
pub(super) fn settle(site: &Site) -> Result<()> {
    // It fails when there is none to delete.
    let _ = site.bed.a.ip(&["-4", "route", "flush", "proto", PROTOCOL]);
    site.bed.a.ip(&["route", "replace", DESTINATIONS[0], "via", T1.v4, "dev", D1.name])?;
    let expected = kernel_routes(site)?;
    ensure!(expected == 0, "{expected} routes are left");
    eventually("forget the routes", TIMEOUT, || Ok(own_routes(site)? < u64::from(PREFIXES) / 10))
}

/// Routes beside the traffic's that the kernel has.
fn kernel_routes(site: &Site) -> Result<u64> {
    let text = site.bed.a.ip(&["-4", "route", "show", "proto", PROTOCOL])?;
    Ok(text.lines().count() as u64)
}

/// IPv4 prefixes that the router has.
fn own_routes(site: &Site) -> Result<u64> {
    let status = site.a.status()?;
    status.value()["routes"]["v4"].as_u64().context("the status report counts no routes")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_prefix_is_added_before_it_is_deleted_and_the_traffic_has_always_a_route() {
        let mut there = BTreeSet::new();
        let mut flips = Vec::new();
        for number in 0..5000 {
            let line = line(number);
            let words: Vec<_> = line.split(' ').collect();
            match words[1] {
                "add" => assert!(there.insert(words[2].to_owned()), "{line}: twice"),
                "delete" => assert!(there.remove(words[2]), "{line}: not there"),
                _ => flips.push((words[2].to_owned(), words[4].to_owned())),
            }
        }
        assert_eq!(flips.len(), 500);
        assert!(flips.iter().all(|(prefix, _)| prefix == DESTINATIONS[0]));
        assert!(flips.windows(2).all(|pair| pair[0].1 != pair[1].1), "each is another next hop");
        // 4,500 changes of prefixes: nine rounds, of which five add.
        assert_eq!(there.len(), PREFIXES as usize);
    }
}
