//! Received and dropped: how many packets a second somebody takes in who lets none of them through.
//!
//! ```text
//!   tester: generator --> t0 ===> d0  who drops
//!           core 0                      core 1
//! ```
//!
//! Each counts for itself what it dropped, so that what was lost before (a full ring) is no success: the
//! rate is that count over the time of sending. Half of the work is the kernel's on the generator's core,
//! which copies packets into the sockets of an AF_XDP router, and runs all of nftables.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::bed::{Bed, D0, SOURCES};
use super::generator::{Engine, Generator};
use super::leftovers;
use super::placement::Cores;
use super::routers::sluice::{Poll, Sluice, status};
use super::routers::{Router, Running, Site, program};
use super::statistics::{median, spread};
use super::{GROUP, require_jit};
use crate::lab::cleanup::{self, Folder};
use crate::lab::configuration::replace;

/// How long a trial is.
const TRIAL: Duration = Duration::from_secs(2);

/// How long the counters get to say what is on the way.
const SETTLE: Duration = Duration::from_millis(1500);

/// How it is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Rounds; everybody has a turn in each.
    #[arg(long, value_name = "N", default_value_t = 3,
        value_parser = clap::value_parser!(u8).range(1..=100))]
    pub runs: u8,
}

/// Who drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropper {
    /// A worker whose `filter` plugin has one rule.
    Plugin(Poll),
    /// nftables with one rule at the earliest hook that it has.
    Nftables,
}

impl Dropper {
    const ALL: [Self; 3] = [Self::Plugin(Poll::Adaptive), Self::Plugin(Poll::Busy), Self::Nftables];

    fn name(self) -> &'static str {
        match self {
            Self::Plugin(Poll::Adaptive) => "sluice, adaptive: plugin filter, one rule",
            Self::Plugin(Poll::Busy) => "sluice, busy: plugin filter, one rule",
            Self::Nftables => "nftables: netdev ingress, one rule",
        }
    }

    fn set_up(self, site: Site<'_>, binaries: &Binaries<'_>) -> Result<Running> {
        match self {
            Self::Plugin(poll) => {
                let router = Sluice::new(binaries.sluice, poll);
                router.with_filter(binaries.filter, SOURCES).set_up(site)
            }
            Self::Nftables => {
                let file = site.folder.join("drops.nft");
                let rules = format!(
                    "table netdev drops {{\n\
                     \tchain ingress {{\n\
                     \t\ttype filter hook ingress device \"{}\" priority filter; policy accept;\n\
                     \t\tip saddr {SOURCES} counter drop\n\
                     \t}}\n\
                     }}\n",
                    D0.name
                );
                replace(&file, rules)?;
                site.bed.dut.output(Command::new("nft").arg("-f").arg(&file))?;
                Ok(Running::default())
            }
        }
    }

    /// Packets that it has dropped.
    fn dropped(self, site: Site<'_>, binaries: &Binaries<'_>) -> Result<u64> {
        match self {
            Self::Plugin(_) => {
                let status = status(binaries.sluice, site)?;
                let interfaces = status["interfaces"].as_array().context("no interfaces")?;
                let mut rows = interfaces.iter().filter(|row| row["name"] == D0.name);
                let drops = &rows.next().context("no row of the interface")?["drops"];
                Ok(drops["plugin"].as_u64().unwrap_or(0))
            }
            Self::Nftables => {
                let mut nft = Command::new("nft");
                nft.args(["--json", "list", "table", "netdev", "drops"]);
                let text = site.bed.dut.output(&mut nft)?;
                let rules: Value = serde_json::from_str(&text).context("nft --json")?;
                let rules = rules["nftables"].as_array().context("no rules")?;
                let mut parts = rules
                    .iter()
                    .flat_map(|rule| rule["rule"]["expr"].as_array().into_iter().flatten());
                let counter = parts.find(|part| part["counter"].is_object());
                counter.context("no counter")?["counter"]["packets"].as_u64().context("no packets")
            }
        }
    }
}

/// What is measured with.
struct Binaries<'a> {
    sluice: &'a Path,
    filter: &'a Path,
}

/// What a trial gave, in packets per second.
struct Rates {
    offered_pps: f64,
    dropped_pps: f64,
}

/// Measures. `sluice` and `filter` are the router's binary and the plugin.
///
/// # Errors
/// When the bed cannot be had here, or somebody does not drop.
pub fn run(options: &Options, sluice: &PathBuf, filter: &PathBuf) -> Result<bool> {
    cleanup::on_signals()?;
    leftovers::remove()?;
    require_jit()?;
    let binaries = Binaries { sluice, filter };
    let (folder, cores) = (Folder::create(GROUP, "drops")?, Cores::find()?);
    let mut rows: Vec<(Dropper, Vec<Rates>)> = Dropper::ALL.map(|who| (who, Vec::new())).into();
    if program("nft").is_none() {
        eprintln!("nftables           skipped: no nft here: apt-get install nftables");
        rows.retain(|(who, _)| *who != Dropper::Nftables);
    }
    let count = rows.len();
    for round in 0..usize::from(options.runs) {
        for place in 0..count {
            let (who, rates) = &mut rows[(place + round) % count];
            let bed = Bed::build().context("the bed cannot be made")?;
            let site = Site { bed: &bed, folder: folder.path(), cores };
            rates.push(measure(*who, site, &binaries).with_context(|| who.name())?);
        }
    }
    println!("60 B, IPv4 UDP, as much as the generator offers; {} rounds", options.runs);
    println!("{:44} {:>22} {:>13}", "", "Mpps dropped (spread)", "Mpps offered");
    for (who, rates) in &rows {
        let dropped: Vec<_> = rates.iter().map(|rates| rates.dropped_pps / 1e6).collect();
        let offered: Vec<_> = rates.iter().map(|rates| rates.offered_pps / 1e6).collect();
        let (Some(median_mpps), Some((low, high)), Some(offered)) =
            (median(&dropped), spread(&dropped), median(&offered))
        else {
            continue;
        };
        let dropped = format!("{median_mpps:.2} ({low:.2}-{high:.2})");
        println!("{:44} {dropped:>22} {offered:>13.2}", who.name());
    }
    Ok(true)
}

/// One trial on a fresh bed.
fn measure(who: Dropper, site: Site<'_>, binaries: &Binaries<'_>) -> Result<Rates> {
    let running = who.set_up(site, binaries).context("set-up")?;
    let outcome = (|| {
        let generator = Generator {
            program: binaries.sluice,
            folder: site.folder,
            cores: site.cores,
            engine: Engine::Live,
        };
        let before = who.dropped(site, binaries)?;
        let (sent, duration_s) = generator.flood(site.bed, TRIAL)?;
        std::thread::sleep(SETTLE);
        let dropped = who.dropped(site, binaries)? - before;
        ensure!(dropped > 0, "it dropped nothing");
        ensure!(dropped as f64 <= sent, "it counted more than was sent");
        Ok(Rates { offered_pps: sent / duration_s, dropped_pps: dropped as f64 / duration_s })
    })();
    let end = running.tear_down().context("tear-down");
    outcome.and_then(|rates| end.map(|()| rates))
}
