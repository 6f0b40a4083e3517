//! Both routers come up: in the driver, with the queues asked for, and say so.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use crate::lab::node::Node;
use crate::lab::plan::{QUEUES, UNDERLAY_MTU};
use crate::lab::report::Report;
use crate::lab::stage::{Stage, eventually};

/// Plays the act. Returns whether both routers run; without them no other act can be played.
pub fn play(stage: &mut Stage, report: &mut Report) -> bool {
    report.act("both routers start");
    report.check("links", || stage.topology.verify());
    let started = report.check("routers", || {
        stage.start_routers()?;
        Ok(format!("node a with {}", stage.table.describe()))
    });
    if !started {
        return false;
    }
    for node in stage.nodes() {
        let name = format!("node {}", node.which().letter());
        report.check(name, || describe(node));
    }
    report.check("preflight of node a", || {
        let mut preflight = stage.a.command(&["preflight", "--config"]);
        preflight.arg(stage.a.files().config(stage.a.which()));
        let findings = stage.topology.node_a.output(&mut preflight)?;
        let fine = findings.lines().filter(|line| line.starts_with("ok")).count();
        ensure!(fine > 0, "it found nothing: {findings}");
        Ok(format!("{fine} things are as they should be, nothing would stop a router"))
    });
    report.check("metrics of node a", || {
        // They are recorded once a second.
        let lines = eventually("metrics of sluice", Duration::from_secs(3), || {
            let page = stage.topology.node_a.within(metrics)??;
            let lines = page.lines().filter(|line| line.starts_with("sluice_")).count();
            Ok((lines > 10).then_some(lines))
        })?;
        Ok(format!("{lines} time series for Prometheus"))
    });
    true
}

/// What the router says of itself, and whether that is what was asked for.
fn describe(node: &mut Node) -> Result<String> {
    let status = node.status()?;
    for row in status.interfaces()? {
        let name = &row["name"];
        ensure!(row["xdp_mode"] == "native", "{name}: XDP is {}", row["xdp_mode"]);
        ensure!(row["bind_mode"] == "copy", "{name}: bound as {}", row["bind_mode"]);
        ensure!(row["queues"] == QUEUES, "{name}: {} queues", row["queues"]);
        ensure!(row["mtu"] == UNDERLAY_MTU, "{name}: MTU {}", row["mtu"]);
    }
    let packets = status.accounting()?;
    let log = node.log()?;
    let lines: Vec<_> = log.lines().filter(|line| line.contains(": driver ")).collect();
    if lines.is_empty() {
        bail!("its start report names no interface: {log:.500}");
    }
    Ok(format!("{}; {packets} packets received, all accounted for", lines.join("; ")))
}

fn metrics() -> Result<String> {
    let mut stream = TcpStream::connect("127.0.0.1:9100")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
