//! The filter is swapped under traffic, takes effect, is lifted, and survives a broken module.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::flows;
use crate::lab::configuration::{self, Which};
use crate::lab::node::Node;
use crate::lab::plan::{ECHO_PORT, SERVER, SHARED};
use crate::lab::probes::{Outcome, Probes};
use crate::lab::report::Report;
use crate::lab::sockets;
use crate::lab::stage::{Stage, eventually};

/// The plugin's name in the configuration.
const PLUGIN: &str = "filter";

/// Reloads of each node.
const RELOADS: u16 = 10;

/// How long a new version may take: it is compiled when nothing else wants the core.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Flows of each workload during the reloads.
const FLOWS: u16 = 8;

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("policy is swapped under traffic");
    report.check("ten reloads", || ten_reloads(stage));
    report.check("a rule takes effect and is lifted", || rule(stage));
    report.check("a broken module is refused", || broken(stage));
}

fn ten_reloads(stage: &mut Stage) -> Result<String> {
    let to = SocketAddr::new(SERVER.v4.into(), ECHO_PORT);
    let open = |which, first: u16| {
        Probes::open(stage.workload(which), SHARED.v4.into(), first..first + FLOWS, to)
    };
    let probes = open(Which::A, 25_000)?.and(open(Which::B, 55_000)?);
    let before = generations(stage)?;
    let (reloads, during) = probes.during(|| reload_all(stage))?;
    let reloads = reloads?;
    let control = probes.run_for(during.duration)?;
    let after = generations(stage)?;
    for (before, after) in before.iter().zip(after) {
        let count = after - before;
        // One that is told may have noticed by itself a moment before.
        ensure!(count >= u64::from(RELOADS), "a node went through {count} generations");
    }
    let lost = during.lost.saturating_sub(control.lost);
    stage.totals.plugin_reloads += reloads;
    stage.totals.plugin_reload_losses += lost;
    let words = |name: &str, Outcome { sent, lost, duration }: Outcome| {
        format!("{name}: {sent} sent, {lost} lost in {:.1} s", duration.as_secs_f64())
    };
    let words =
        format!("{reloads} swaps; {}; {}", words("meanwhile", during), words("without", control));
    ensure!(lost == 0, "{words}");
    Ok(words)
}

/// Every second time the router is told, else it has to notice by itself. Returns the number.
fn reload_all(stage: &Stage) -> Result<u64> {
    let mut reloads = 0;
    for number in 0..RELOADS {
        let expected = generations(stage)?.map(|generation| generation + 1);
        for node in [&stage.a, &stage.b] {
            // Harmless to the traffic at hand, but other rules than before.
            let rule = drop_rule(1000 + number);
            node.files().write_rules(node.which(), &rule)?;
            if number % 2 == 0 {
                node.ask(&["plugin", "reload", PLUGIN])?;
            }
        }
        for (node, expected) in [&stage.a, &stage.b].into_iter().zip(expected) {
            eventually("the next generation", TIMEOUT, || {
                Ok((node.status()?.plugin_generation(PLUGIN)? >= expected).then_some(()))
            })?;
            reloads += 1;
        }
    }
    Ok(reloads)
}

fn generations(stage: &Stage) -> Result<[u64; 2]> {
    Ok([stage.a.status()?.plugin_generation(PLUGIN)?, stage.b.status()?.plugin_generation(PLUGIN)?])
}

/// TOML of a rule against a UDP port.
fn drop_rule(port: u16) -> String {
    format!("[[rules]]\naction = \"drop\"\nprotocol = \"udp\"\ndestination_ports = [{port}]\n")
}

fn set_rules(node: &Node, rules: &str) -> Result<()> {
    node.files().write_rules(node.which(), rules)?;
    node.ask(&["plugin", "reload", PLUGIN]).map(drop)
}

fn rule(stage: &mut Stage) -> Result<String> {
    let server = SERVER.v4.into();
    let echo = |stage: &Stage| flows::udp_echo(stage, Which::A, 26_000, server);
    echo(stage)?;
    let before = stage.a.status()?.dropped("plugin");
    set_rules(&stage.a, &drop_rule(ECHO_PORT))?;
    let outcome = echo(stage);
    let dropped = stage.a.status()?.dropped("plugin") - before;
    set_rules(&stage.a, "")?;
    match outcome {
        Ok(()) => bail!("an echo passed a rule that drops it"),
        Err(error) if dropped == 0 => return Err(error.context("but no drop was counted")),
        Err(error) => ensure!(sockets::is_silence(&error), "{error:#}"),
    }
    echo(stage).context("after the rule was lifted")?;
    stage.totals.refused += dropped;
    stage.totals.echoes += 2;
    Ok(format!("{dropped} datagrams dropped by it, echoes before and after"))
}

fn broken(stage: &mut Stage) -> Result<String> {
    let module = stage.a.files().module();
    let good = std::fs::read(&module).with_context(|| module.display().to_string())?;
    let before = generations(stage)?;
    // Cut off in the middle, as an interrupted copy is.
    configuration::replace(&module, &good[..good.len() / 2])?;
    let refusals: Vec<_> =
        [&stage.a, &stage.b].map(|node| node.ask(&["plugin", "reload", PLUGIN])).into();
    configuration::replace(&module, &good)?;
    let mut words = String::new();
    for refusal in refusals {
        match refusal {
            Ok(text) => bail!("it was taken: {text}"),
            Err(error) => words = format!("{error:#}"),
        }
    }
    ensure!(words.contains(PLUGIN), "the refusal does not name the plugin: {words}");
    ensure!(generations(stage)? == before, "the running generation changed");
    for (which, port) in [(Which::A, 26_001), (Which::B, 56_001)] {
        flows::udp_echo(stage, which, port, SERVER.v4.into())?;
    }
    stage.totals.echoes += 2;
    let words = words.rsplit("): ").next().unwrap_or_default().lines().next().unwrap_or_default();
    Ok(format!("both keep what runs: {words}"))
}
