//! Every packet is accounted for; the routers end when asked, and leave nothing once detached.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::lab::configuration::Which;
use crate::lab::report::Report;
use crate::lab::stage::Stage;

/// Time for what is still on its way.
const SETTLE: Duration = Duration::from_millis(300);

/// Plays the part of the act in which the routers still run.
pub fn account(stage: &mut Stage, report: &mut Report) {
    report.act("the account");
    for node in [&stage.a, &stage.b] {
        report.check(format!("every packet of node {}", node.which().letter()), || {
            thread::sleep(SETTLE);
            let (mut packets, mut drops) = (0, 0);
            let now = node.status()?;
            // Runs that were killed or ended: of their last moment, in which nothing was sent.
            for status in node.ended.iter().chain([&now]) {
                packets += status.accounting()?;
                drops += status.drops().values().sum::<u64>();
            }
            let runs = node.ended.len() + 1;
            Ok(format!("{packets} received in {runs} runs; {drops} dropped, each for a reason"))
        });
    }
}

/// Plays the rest: nothing runs after it.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("the end");
    for which in [Which::A, Which::B] {
        let letter = which.letter();
        report.check(format!("SIGTERM to node {letter}"), || {
            let node = if which == Which::A { &mut stage.a } else { &mut stage.b };
            let status = node.terminate()?;
            ensure!(status.success(), "it ended with {status}");
            Ok(String::new())
        });
        report.check(format!("sluice detach on node {letter}"), || detach(stage, which));
    }
}

fn detach(stage: &Stage, which: Which) -> Result<String> {
    let (namespace, interfaces): (_, &[&str]) = match which {
        Which::A => (&stage.topology.node_a, &["wan0", "lan0"]),
        Which::B => (&stage.topology.node_b, &["wan0"]),
    };
    let has_xdp = |interface: &str| -> Result<bool> {
        Ok(namespace.ip(&["-d", "link", "show", "dev", interface])?.contains("prog/xdp"))
    };
    for interface in interfaces {
        ensure!(has_xdp(interface)?, "{interface} has no XDP program already before");
    }
    let node = stage.node(which);
    let mut detach = node.command(&["detach", "--config"]);
    namespace.output(detach.arg(node.files().config(which)))?;
    for interface in interfaces {
        ensure!(!has_xdp(interface)?, "{interface} still has an XDP program");
    }
    let pins = which.pin_directory();
    ensure!(!pins.exists(), "{} is still there", pins.display());
    Ok(format!("no XDP program on {}, no pins", interfaces.join(", ")))
}
