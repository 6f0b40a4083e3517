//! Unmodified programs exchange bytes with the Internet by the shared addresses.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::lab::configuration::Which;
use crate::lab::plan::{
    BY_NODE_A, BY_NODE_B, ECHO_PORT, SERVER, SERVER2, SERVICE_A, SERVICE_B, SHARED,
};
use crate::lab::report::Report;
use crate::lab::stage::{Stage, family};
use crate::lab::{random, sockets};

/// Fetches at the same time.
const FETCHES: u64 = 4;

/// Bytes of each.
const BYTES: usize = 4 << 20;

/// Bytes that a service of a workload answers with.
const SERVICE_BYTES: usize = 1 << 20;

/// Identifiers of echoes within the slices of node a and node b.
const PING_A: u16 = 2000;
const PING_B: u16 = 40_000;

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("programs use the shared addresses");
    for which in [Which::A, Which::B] {
        for server in SERVER.both() {
            let name = format!("{} from {}, {}", "HTTP", place(which), family(server));
            report.check(name, || fetch(stage, which, server));
        }
    }
    for (which, by, port) in [(Which::A, BY_NODE_B, SERVICE_A), (Which::B, BY_NODE_A, SERVICE_B)] {
        let name = format!("service on {} reached by the other node", place(which));
        report.check(name, || visit(stage, by.both(), port));
    }
    for (which, first_port) in [(Which::A, 3000), (Which::B, 50_000)] {
        let name = format!("UDP echo from {}", place(which));
        report.check(name, || {
            for server in SERVER.both().into_iter().chain(SERVER2.both()) {
                for port in first_port..first_port + 8 {
                    udp_echo(stage, which, port, server)?;
                }
            }
            stage.totals.echoes += 32;
            Ok("32 of 32 came back, both families".to_owned())
        });
    }
    for (which, own, other) in [(Which::A, PING_A, PING_B), (Which::B, PING_B, PING_A)] {
        for server in SERVER.both() {
            let name = format!("ping from {}, {}", place(which), family(server));
            report.check(name, || {
                ping(stage, which, own, server)?;
                stage.totals.echoes += 3;
                match ping(stage, which, other, server) {
                    Ok(()) => bail!("identifier {other} is not in its slice, but was answered"),
                    Err(_) => Ok(format!("identifier {own} is answered, {other} is not")),
                }
            });
        }
    }
}

/// Where a workload runs.
pub(super) fn place(which: Which) -> &'static str {
    match which {
        Which::A => "host-a",
        Which::B => "node b",
    }
}

/// Several fetches at once, by curl inside the slice; every byte is compared.
pub(super) fn fetch(stage: &mut Stage, which: Which, server: IpAddr) -> Result<String> {
    let files: Vec<_> =
        (0..FETCHES).map(|n| stage.folder.path().join(format!("body{n}"))).collect();
    let mut words = vec!["curl".to_owned()];
    // One transfer starts without waiting for another's connection, as browsers do.
    words.extend(
        "--fail --silent --show-error --globoff --parallel --parallel-immediate"
            .split(' ')
            .map(str::to_owned),
    );
    words.extend(["--max-time".to_owned(), "20".to_owned()]);
    for (seed, file) in (0..).zip(&files) {
        words.extend(["--output".to_owned(), file.display().to_string()]);
        words.push(format!("http://{}/{seed}/{BYTES}", SocketAddr::new(server, 80)));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let started = std::time::Instant::now();
    stage.workload(which).output(&mut stage.confined(which, server.is_ipv6(), &words))?;
    let seconds = started.elapsed().as_secs_f64();
    for (seed, file) in (0..).zip(&files) {
        let body = std::fs::read(file).with_context(|| file.display().to_string())?;
        ensure!(body == random::bytes(seed, BYTES), "fetch {seed}: wrong bytes");
        stage.totals.flows += 1;
        stage.totals.bytes += BYTES as u64;
    }
    let megabytes = FETCHES as f64 * BYTES as f64 / 1e6;
    Ok(format!(
        "{FETCHES} fetches at once, {megabytes:.1} MB right, {:.0} Mbit/s",
        megabytes * 8.0 / seconds
    ))
}

/// Fetches from a service behind a slice, from addresses whose packets come to the other node.
fn visit(stage: &mut Stage, from: [IpAddr; 2], port: u16) -> Result<String> {
    let before = stage.total("to_owner")?;
    for from in from {
        let to = SocketAddr::new(SHARED.like(from), port);
        let from = SocketAddr::new(from, 0);
        let timeout = Duration::from_secs(3);
        let mut stream = sockets::connect_from(&stage.topology.inet2, from, to, timeout)?
            .map_err(|errno| anyhow!("{to}: {}", errno.desc()))?;
        sockets::fetch(&mut stream, 9, SERVICE_BYTES)?;
        stage.totals.flows += 1;
        stage.totals.bytes += SERVICE_BYTES as u64;
    }
    let forwarded = stage.total("to_owner")? - before;
    ensure!(forwarded > 0, "no packet took the tunnel");
    Ok(format!("both families, {forwarded} packets through the tunnel"))
}

/// One echo, from a chosen port.
pub(super) fn udp_echo(stage: &Stage, which: Which, port: u16, server: IpAddr) -> Result<()> {
    let from = SocketAddr::new(SHARED.like(server), port);
    let to = SocketAddr::new(server, ECHO_PORT);
    let socket = sockets::udp(stage.workload(which), from, to)?;
    sockets::echo(&socket, b"are you there?", Duration::from_millis(500), 4)
        .with_context(|| format!("from port {port} to {server}"))
}

/// Three echoes with an identifier.
pub(super) fn ping(stage: &Stage, which: Which, identifier: u16, server: IpAddr) -> Result<()> {
    let identifier = identifier.to_string();
    let from = SHARED.like(server).to_string();
    let mut ping = Command::new("ping");
    ping.args(["-n", "-q", "-c", "3", "-i", "0.1", "-W", "0.5", "-e", &identifier, "-I", &from]);
    ping.arg(server.to_string());
    stage.workload(which).output(&mut ping).map(drop)
}
