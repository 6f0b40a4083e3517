//! The MTU of the network between the nodes shrinks under running routers: what no longer fits the
//! tunnel is announced to the senders, and new connections know it from the start.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;

use super::flows;
use crate::lab::configuration::Which;
use crate::lab::plan::{BY_NODE_A, BY_NODE_B, MTU, SERVER, SHARED};
use crate::lab::report::Report;
use crate::lab::sockets;
use crate::lab::stage::{Stage, eventually, family};

/// Bytes that a connection carries before and after the change.
const BYTES: usize = 2 << 20;

/// Bytes in front of a packet in a tunnel, which are IPv4 and UDP for both families of packets.
const OVERHEAD: u32 = 28;

/// How long routers and kernels may take to learn of the change.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Source ports on host-a and node b for connections that live through the change.
const PORT_A: u16 = 21_000;
const PORT_B: u16 = 51_000;

/// Plays the act.
pub fn play(stage: &mut Stage, report: &mut Report) {
    report.act("the MTU between the nodes shrinks");
    let mut open = Vec::new();
    report.check("connections before", || {
        open = connect(stage)?;
        let sizes = transfer(stage, &mut open, 31)?;
        Ok(format!("{} through tunnels, segments of at most {sizes} bytes", open.len()))
    });
    report.check("the routers follow", || {
        stage.topology.set_underlay_mtu(MTU)?;
        for node in [&stage.a, &stage.b] {
            eventually("the new MTU in the status report", TIMEOUT, || {
                let status = node.status()?;
                let row = status.interfaces()?.iter().find(|row| row["name"] == "wan0");
                Ok((row.context("no wan0")?["mtu"] == MTU).then_some(()))
            })?;
        }
        Ok(format!("MTU {MTU} at both, without a restart"))
    });
    report.check("connections from before recover", || {
        ensure!(!open.is_empty(), "there is none");
        let before = (stage.dropped("mtu-exceeded")?, stage.total("originated")?);
        transfer(stage, &mut open, 32)?;
        let too_big = stage.dropped("mtu-exceeded")? - before.0;
        let errors = stage.total("originated")? - before.1;
        ensure!(too_big > 0 && errors > 0, "{too_big} packets were too big, {errors} errors sent");
        Ok(format!("{too_big} packets were too big, {errors} ICMP errors told the senders"))
    });
    report.check("new connections are clamped", || clamped(stage));
    for which in [Which::A, Which::B] {
        for server in SERVER.both() {
            let name = format!("HTTP from {}, {}", flows::place(which), family(server));
            report.check(name, || flows::fetch(stage, which, server));
        }
    }
    report.check("a datagram that must not be fragmented", || too_big_datagrams(stage));
}

/// Of each workload and family a connection whose returns come to the other node.
fn connect(stage: &Stage) -> Result<Vec<TcpStream>> {
    let mut open = Vec::new();
    for (which, server, port) in [(Which::A, BY_NODE_B, PORT_A), (Which::B, BY_NODE_A, PORT_B)] {
        for server in server.both() {
            open.push(connect_one(stage, which, server, port)?);
        }
    }
    Ok(open)
}

fn connect_one(stage: &Stage, which: Which, server: IpAddr, port: u16) -> Result<TcpStream> {
    let from = SocketAddr::new(SHARED.like(server), port);
    let to = SocketAddr::new(server, 80);
    sockets::connect_from(stage.workload(which), from, to, TIMEOUT)?
        .map_err(|errno| anyhow!("{from} to {to}: {}", errno.desc()))
}

/// Bytes over every connection, in both directions. Returns the largest segment.
fn transfer(stage: &mut Stage, open: &mut [TcpStream], seed: u64) -> Result<u32> {
    let mut largest = 0;
    for stream in open {
        let peer = stream.peer_addr()?;
        sockets::fetch(stream, seed, BYTES).with_context(|| format!("from {peer}"))?;
        sockets::push(stream, seed, BYTES).with_context(|| format!("to {peer}"))?;
        largest = largest.max(sockets::segment_bytes_max(stream)?);
        stage.totals.flows += 1;
        stage.totals.bytes += 2 * BYTES as u64;
    }
    Ok(largest)
}

/// The server's answer to a SYN tells a client behind the router how much fits.
fn clamped(stage: &Stage) -> Result<String> {
    let mut words = Vec::new();
    for (server, headers) in [(BY_NODE_B.both()[0], 40), (BY_NODE_B.both()[1], 60)] {
        let stream = connect_one(stage, Which::A, server, PORT_A + 1)?;
        let segment = sockets::segment_bytes_max(&stream)?;
        let fits = MTU - OVERHEAD - headers;
        ensure!(segment <= fits, "{}: segments of {segment} bytes, {fits} fit", family(server));
        words.push(format!("{} segments of at most {segment} bytes", family(server)));
    }
    Ok(words.join(", "))
}

/// A packet of full size to a node that has to send it on: the sender learns that it is too big. One
/// that fits with the tunnel's headers passes.
fn too_big_datagrams(stage: &Stage) -> Result<String> {
    // Connections have taught this host already: it has to learn anew.
    stage.topology.forget_path_mtu()?;
    for (from, headers) in [(BY_NODE_A.both()[0], 28), (BY_NODE_A.both()[1], 48)] {
        let to = SocketAddr::new(SHARED.like(from), PORT_B + 10);
        let receiver = sockets::udp(&stage.topology.node_b, to, SocketAddr::new(from, 21_010))?;
        let sender = sockets::udp(&stage.topology.inet2, SocketAddr::new(from, 21_010), to)?;
        sender.set_read_timeout(Some(Duration::from_secs(2)))?;
        sender.send(&vec![0; (MTU - headers) as usize])?;
        match sender.recv(&mut [0; 8]) {
            Err(error) if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) => {}
            other => bail!("{} bytes to {to}: {other:?}, not EMSGSIZE", MTU),
        }
        let fits = vec![7; (MTU - OVERHEAD - headers) as usize];
        receiver.set_read_timeout(Some(Duration::from_secs(2)))?;
        sender.send(&fits)?;
        let mut received = vec![0; fits.len() + 1];
        let count = receiver
            .recv(&mut received)
            .with_context(|| format!("{} bytes to {to} would fit", MTU - OVERHEAD))?;
        ensure!(received[..count] == fits, "{to} received something else");
    }
    Ok(format!("{MTU} bytes: message too long; {} bytes: received; both families", MTU - OVERHEAD))
}
