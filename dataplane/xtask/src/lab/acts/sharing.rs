//! The Internet does not know which node owns a port: about half of what returns comes to the wrong
//! one, and goes on to the owner through a tunnel.

use std::net::IpAddr;

use anyhow::{Result, ensure};

use super::flows;
use crate::lab::configuration::Which;
use crate::lab::plan::SERVER;
use crate::lab::report::Report;
use crate::lab::stage::Stage;

/// Flows of each workload and family, each with its own port: of a fair coin that is thrown so often,
/// the shares below are missed once in some millions.
const FLOWS: u16 = 100;
const SHARES: std::ops::RangeInclusive<f64> = 0.3..=0.7;

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("returns find their owner");
    report.check("forwarded so far", || {
        let mut words = Vec::new();
        for node in [&stage.a, &stage.b] {
            let status = node.status()?;
            let forwarded = status.total("to_owner");
            let letter = node.which().letter();
            ensure!(forwarded > 0, "node {letter} forwarded no packet to the owner");
            words.push(format!(
                "node {letter}: {forwarded} sent on to the owner, {} out of tunnels, {} delivered",
                status.total("decapsulated"),
                status.total("delivered"),
            ));
        }
        Ok(words.join("; "))
    });
    report.check("share of each node", || shares(stage));
}

fn shares(stage: &mut Stage) -> Result<String> {
    let before = [stage.a.status()?.total("to_owner"), stage.b.status()?.total("to_owner")];
    for server in SERVER.both() {
        echoes(stage, Which::A, 10_000, server)?;
        echoes(stage, Which::B, 60_000, server)?;
    }
    // A flow that came to the other node was forwarded there.
    let of_b = stage.a.status()?.total("to_owner") - before[0];
    let of_a = stage.b.status()?.total("to_owner") - before[1];
    let all = f64::from(FLOWS) * 2.0;
    for (letter, forwarded) in [('a', of_a), ('b', of_b)] {
        let share = forwarded as f64 / all;
        ensure!(
            SHARES.contains(&share),
            "{forwarded} of {all} returns of node {letter}'s flows came to the other node"
        );
    }
    stage.totals.echoes += 4 * u64::from(FLOWS);
    Ok(format!(
        "{} flows, of which {} returned to the wrong node and reached the right one",
        4 * FLOWS,
        of_a + of_b
    ))
}

fn echoes(stage: &Stage, which: Which, first_port: u16, server: IpAddr) -> Result<()> {
    (first_port..first_port + FLOWS)
        .try_for_each(|port| flows::udp_echo(stage, which, port, server))
}
