//! A slice's boundary moves on the running routers, and a file with a mistake is refused.

use anyhow::{Result, bail, ensure};

use super::flows;
use crate::lab::configuration::{Variant, Which};
use crate::lab::plan::{BOUNDARY, OTHER_BOUNDARY, SERVER, SLICES_FIRST};
use crate::lab::report::Report;
use crate::lab::stage::Stage;

/// A port that belongs to node b before the change and to node a after it.
const MOVED_PORT: u16 = 35_000;

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("the configuration changes");
    report.check("a boundary moves", || boundary(stage));
    report.check("a mistake is refused", || mistake(stage));
}

/// Writes both files and makes the routers read them.
fn apply(stage: &Stage, variant: Variant) -> Vec<Result<String>> {
    [&stage.a, &stage.b]
        .map(|node| {
            node.files().write_config(node.which(), variant)?;
            node.ask(&["reload"])
        })
        .into()
}

fn boundary(stage: &mut Stage) -> Result<String> {
    let server = SERVER.v4.into();
    let echo = |stage: &Stage, which| flows::udp_echo(stage, which, MOVED_PORT, server);
    echo(stage, Which::B)?;
    stage.variant.boundary = OTHER_BOUNDARY;
    let mut words = String::new();
    for outcome in apply(stage, stage.variant) {
        words = outcome?;
    }
    let expected = format!("{SLICES_FIRST}-{}", OTHER_BOUNDARY - 1);
    for node in [&stage.a, &stage.b] {
        let status = node.status()?;
        let ports = status.slice_ports("a4");
        ensure!(ports == Some(&expected), "slice a4 has {ports:?}");
    }
    echo(stage, Which::A)?;
    ensure!(echo(stage, Which::B).is_err(), "node b still has port {MOVED_PORT}");
    stage.variant.boundary = BOUNDARY;
    for outcome in apply(stage, stage.variant) {
        outcome?;
    }
    echo(stage, Which::B)?;
    stage.totals.echoes += 3;
    Ok(format!("port {MOVED_PORT} went to node a and back; {}", words.trim()))
}

fn mistake(stage: &mut Stage) -> Result<String> {
    let before = stage.a.status()?.value()["router"]["configuration_generation"].clone();
    let mut words = String::new();
    for outcome in apply(stage, Variant { overlap: 10, ..stage.variant }) {
        match outcome {
            Ok(text) => bail!("slices that overlap were taken: {text}"),
            Err(error) => words = format!("{error:#}"),
        }
    }
    ensure!(words.contains("slice[1].ports"), "the refusal does not name the key: {words}");
    let status = stage.a.status()?;
    ensure!(status.value()["router"]["configuration_generation"] == before, "it is in force");
    ensure!(status.value()["reloads"]["refused"] == 1, "the refusal is not counted");
    for (which, port) in [(Which::A, 29_000), (Which::B, 59_000)] {
        flows::udp_echo(stage, which, port, SERVER.v4.into())?;
    }
    stage.totals.echoes += 2;
    // The mistake must not be found by a restart.
    for node in [&stage.a, &stage.b] {
        node.files().write_config(node.which(), stage.variant)?;
    }
    let from = words.find("egress").unwrap_or_default();
    Ok(words[from..].lines().next().unwrap_or_default().to_owned())
}
