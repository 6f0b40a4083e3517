//! The Internet does not know which node owns a port: about half of what returns comes to the wrong
//! one, and goes on to the owner through a tunnel.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, anyhow, bail, ensure};

use super::flows;
use crate::lab::capture::Capture;
use crate::lab::configuration::Which;
use crate::lab::plan::{BY_NODE_B, SERVER, SHARED};
use crate::lab::report::Report;
use crate::lab::sockets;
use crate::lab::stage::Stage;

/// Flows of each workload and family, each with its own port: of a fair coin that is thrown so often,
/// the shares below are missed once in some millions.
const FLOWS: u16 = 100;
const SHARES: std::ops::RangeInclusive<f64> = 0.3..=0.7;

/// Bytes that tshark judges in each direction.
const BYTES: usize = 100_000;

/// How long a connection may take.
const TIMEOUT: Duration = Duration::from_secs(3);

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
    report.check("checksums, judged by tshark", || checksums(stage));
}

/// What passes between node a and the exchange, with a tunnel's inner packets: a fetch whose returns
/// come to node b.
fn checksums(stage: &mut Stage) -> Result<String> {
    let capture = Capture::start(&stage.topology.ix, "node-a", "ip and (tcp or udp)")?;
    let from = SocketAddr::from((SHARED.v4, 11_000));
    let to = SocketAddr::from((BY_NODE_B.v4, 80));
    let mut stream = sockets::connect_from(&stage.topology.host_a, from, to, TIMEOUT)?
        .map_err(|errno| anyhow!("{to}: {}", errno.desc()))?;
    sockets::fetch(&mut stream, 11, BYTES)?;
    sockets::push(&mut stream, 12, BYTES)?;
    stage.totals.flows += 1;
    stage.totals.bytes += 2 * BYTES as u64;
    let fields = ["ip.checksum.status", "tcp.checksum.status", "udp.dstport"];
    let packets = capture.finish(&fields, 2 * BYTES / 1448)?;
    let mut tunnelled = 0;
    for packet in &packets {
        let columns: Vec<_> = packet.split('\t').collect();
        let [ip, tcp, udp] = columns[..] else { bail!("tshark gave {packet:?}") };
        // 1 is good; of a packet in a tunnel there are two IP headers.
        let wanted = if udp.is_empty() { "1" } else { "1,1" };
        ensure!(ip == wanted && tcp == "1", "wrong, or not seen by tshark: {packet:?}");
        tunnelled += usize::from(!udp.is_empty());
    }
    ensure!(tunnelled > 0, "no packet came through the tunnel");
    Ok(format!("{} TCP segments right, {tunnelled} of them within the tunnel", packets.len()))
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
