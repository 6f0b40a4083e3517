//! The router of node b is killed, twice: the machine stays reachable, its slices fail closed, transit
//! follows `on_exit`, node a is not disturbed, and a restart takes over.

use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;

use super::flows;
use crate::lab::configuration::Which;
use crate::lab::plan::{
    BY_NODE_A, BY_NODE_B, ECHO_PORT, INET1, MANAGEMENT_PORT, NODE_B, SERVER, SERVICE_A, SERVICE_B,
    SHARED, SINK_PORT, TRANSIT,
};
use crate::lab::probes::Probes;
use crate::lab::report::Report;
use crate::lab::sockets;
use crate::lab::stage::{Stage, errno_name, eventually};

/// How long a peer waits for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(400);

/// How long an answer that must come may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    for on_exit in ["drop", "kernel"] {
        report.act(&format!("node b's router is killed, on_exit = \"{on_exit}\""));
        report.check("transit through node b before", || {
            switch_stance(stage, on_exit)?;
            transit(stage, true)
        });
        report.check("kill -9", || {
            stage.b.kill()?;
            Ok("its programs stay pinned".to_owned())
        });
        report.check("the machine stays reachable", || management(stage));
        report.check("its slices fail closed", || fail_closed(stage));
        report.check("transit", || transit(stage, on_exit == "kernel"));
        report.check("node a is not disturbed", || undisturbed(stage));
        report.check("a restart takes over", || {
            stage.restart_b()?;
            for (which, port) in [(Which::A, 28_000), (Which::B, 58_000)] {
                for server in SERVER.both() {
                    flows::udp_echo(stage, which, port, server)?;
                }
            }
            stage.totals.echoes += 4;
            Ok("echoes of both nodes and families come back".to_owned())
        });
    }
}

/// `on_exit` is read at start.
fn switch_stance(stage: &mut Stage, on_exit: &'static str) -> Result<()> {
    if stage.variant.on_exit == on_exit {
        return Ok(());
    }
    stage.b.terminate()?;
    stage.variant.on_exit = on_exit;
    stage.restart_b()
}

/// SSH and BGP of the machine: its own address.
fn management(stage: &Stage) -> Result<String> {
    let to = NODE_B.v4.to_string();
    let mut ping = Command::new("ping");
    ping.args(["-n", "-q", "-c", "2", "-i", "0.1", "-W", "1", &to]);
    stage.topology.inet1.output(&mut ping)?;
    let from = SocketAddr::from((INET1.v4, 0));
    let to = SocketAddr::from((NODE_B.v4, MANAGEMENT_PORT));
    let mut stream = sockets::connect_from(&stage.topology.inet1, from, to, TIMEOUT)?
        .map_err(|errno| anyhow!("{to}: {}", errno.desc()))?;
    sockets::fetch(&mut stream, 5, 1000)?;
    Ok("ping and TCP to its own address".to_owned())
}

/// Neither the dead node's own service nor the other node's ports are answered there: an answer of
/// the kernel would be a reset, which breaks connections of the other node.
fn fail_closed(stage: &Stage) -> Result<String> {
    for to in SHARED.both() {
        for port in [SERVICE_B, SERVICE_A, 2000, 60_000] {
            let from = SocketAddr::new(BY_NODE_B.like(to), 0);
            let to = SocketAddr::new(to, port);
            let outcome = sockets::connect_from(&stage.topology.inet2, from, to, SILENCE / 2)?;
            if !matches!(outcome, Err(Errno::ETIMEDOUT)) {
                bail!("{to} by the dead node: {}", errno_name(&outcome));
            }
        }
    }
    Ok("no answer to SYNs for ports of either node, both families".to_owned())
}

/// A packet of each family from inet2 to an address behind inet1, by node b.
fn transit(stage: &Stage, must_pass: bool) -> Result<String> {
    let bind = |port| move || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port));
    let sink = stage.topology.inet1.within(bind(SINK_PORT))?.context("a sink on inet1")?;
    let socket = stage.topology.inet2.within(bind(0))?.context("a socket on inet2")?;
    sink.set_read_timeout(Some(SILENCE))?;
    for to in [TRANSIT.v4.to_ipv6_mapped(), TRANSIT.v6] {
        let arrives = || -> Result<bool> {
            socket.send_to(b"transit", (to, SINK_PORT))?;
            Ok(sink.recv(&mut [0; 16]).is_ok())
        };
        if must_pass {
            eventually("a packet in transit", TIMEOUT, || Ok(arrives()?.then_some(())))
                .with_context(|| format!("to {to}"))?;
        } else {
            ensure!(!arrives()?, "a packet to {to} passed");
        }
    }
    Ok(if must_pass { "passes, both families" } else { "does not pass, both families" }.to_owned())
}

/// Flows of node a that do not meet node b lose nothing.
fn undisturbed(stage: &mut Stage) -> Result<String> {
    stage.a.check_alive()?;
    let to = SocketAddr::from((BY_NODE_A.v4, ECHO_PORT));
    let probes = Probes::open(&stage.topology.host_a, SHARED.v4.into(), 28_100..28_104, to)?;
    let outcome = probes.run_for(Duration::from_millis(300))?;
    ensure!(outcome.sent > 0 && outcome.lost == 0, "{} of {} lost", outcome.lost, outcome.sent);
    stage.totals.echoes += outcome.sent;
    Ok(format!("{} echoes, none lost", outcome.sent))
}
