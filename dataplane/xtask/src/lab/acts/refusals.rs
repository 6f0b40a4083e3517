//! Nobody uses a port that is not theirs: not a workload, and not the Internet.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;

use crate::lab::configuration::Which;
use crate::lab::plan::{ECHO_PORT, SERVER, SHARED, SINK_PORT, TRANSIT};
use crate::lab::report::Report;
use crate::lab::sockets;
use crate::lab::stage::{Stage, errno_name, eventually, family};

/// A port of node b's slice, which host-a has no right to.
const FOREIGN_PORT: u16 = 61_000;

/// Packets of each family with a source that is not the sender's.
const SPOOFED: u16 = 10;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("nobody uses another's ports");
    for server in SERVER.both() {
        report.check(format!("a workload outside its slice, {}", family(server)), || {
            outside_slice(stage, server)
        });
    }
    report.check("a confined workload outside its slice", || confined(stage));
    report.check("spoofed packets from the Internet", || spoofed(stage));
}

fn outside_slice(stage: &mut Stage, server: std::net::IpAddr) -> Result<String> {
    let before = stage.a.status()?.dropped("slice-sender");
    let from = SocketAddr::new(SHARED.like(server), FOREIGN_PORT);
    let socket = sockets::udp(&stage.topology.host_a, from, SocketAddr::new(server, ECHO_PORT))?;
    let udp = match sockets::echo(&socket, b"not mine", Duration::from_millis(300), 2) {
        Ok(()) => bail!("an echo from port {FOREIGN_PORT} came back"),
        Err(error) => error.downcast::<std::io::Error>()?.raw_os_error().map(Errno::from_raw),
    };
    let tcp =
        sockets::connect_from(&stage.topology.host_a, from, SocketAddr::new(server, 80), TIMEOUT)?;
    let told = [Errno::EHOSTUNREACH, Errno::EACCES];
    ensure!(udp.is_some_and(|errno| told.contains(&errno)), "UDP was not told: {udp:?}");
    ensure!(
        tcp.as_ref().is_err_and(|errno| told.contains(errno)),
        "TCP was not told: {}",
        errno_name(&tcp)
    );
    let refused = stage.a.status()?.dropped("slice-sender") - before;
    ensure!(refused >= 2, "{refused} drops by slice-sender");
    stage.totals.refused += refused;
    Ok(format!("{refused} packets refused, the program is told: {}", errno_name(&tcp)))
}

/// The same with `sluice workload run`: the packet does not even leave the workload.
fn confined(stage: &Stage) -> Result<String> {
    let before = stage.a.status()?.dropped("slice-sender");
    let url = format!("http://{}/1/1", SERVER.v4);
    let port = FOREIGN_PORT.to_string();
    let curl = ["curl", "--silent", "--show-error", "--max-time", "2", "--local-port", &port, &url];
    let outcome = stage.topology.host_a.output(&mut stage.confined(Which::A, false, &curl));
    let Err(error) = outcome else { bail!("curl from port {FOREIGN_PORT} got its answer") };
    let error = format!("{error:#}");
    let leaked = stage.a.status()?.dropped("slice-sender") - before;
    ensure!(leaked == 0, "{leaked} packets left the workload: {error}");
    let port = "27000";
    let curl = ["curl", "--silent", "--show-error", "--max-time", "2", "--local-port", port, &url];
    stage
        .topology
        .host_a
        .output(&mut stage.confined(Which::A, false, &curl))
        .context("from a port of its slice")?;
    Ok(format!("curl fails from port {FOREIGN_PORT} and no packet leaves, from {port} it succeeds"))
}

/// Packets with a shared address as their source come from outside; they are for somewhere else, so
/// that nothing but their source is wrong with them.
fn spoofed(stage: &mut Stage) -> Result<String> {
    let before = stage.b.status()?.dropped("spoofed-source");
    let all = 2 * u64::from(SPOOFED);
    for to in TRANSIT.both() {
        for number in 0..SPOOFED {
            let from = SocketAddr::new(SHARED.like(to), 2000 + number);
            sockets::send_spoofed(&stage.topology.inet2, from, SocketAddr::new(to, SINK_PORT))?;
        }
    }
    eventually("all of them dropped as spoofed-source", TIMEOUT, || {
        let dropped = stage.b.status()?.dropped("spoofed-source") - before;
        ensure!(dropped <= all, "{dropped} drops for {all} packets");
        Ok((dropped == all).then_some(()))
    })?;
    stage.totals.refused += all;
    Ok(format!("{all} of {all} dropped by node b, both families"))
}
