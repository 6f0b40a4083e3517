//! `sluice explain` and `sluice trace`: what becomes of packets, from the running router.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use control::socket::{ControlClient, Request, TapRequest, TapScopeRequest};
use serde_json::{Value, json};
use sim::read_pcap;

use crate::cli::{ExplainArgs, TraceArgs};
use crate::explain::{self, Explanation, VerdictReport, packet_text};
use crate::filter;
use crate::tap::{self, TapSession};

/// How long nothing must have come before the router is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// Frames explained in one answer: each costs the router's control loop a fraction of a millisecond.
const FRAMES_AT_ONCE: usize = 32;

/// Runs `sluice explain`.
pub(crate) fn explain(args: &ExplainArgs) -> Result<()> {
    let mut client = ControlClient::connect(&args.socket.socket)?;
    for (packet, has_link_layer) in packets(args)? {
        let answer = client.call(&Request::Explain {
            interface: args.interface.clone(),
            packet: explain::to_hex(&packet),
            has_link_layer,
            keep_mac: args.keep_mac,
        })?;
        if args.json {
            println!("{answer}");
        } else {
            print!("{}", words(&answer)?);
        }
    }
    Ok(())
}

/// The packets that are asked about, and whether each begins with an Ethernet header.
fn packets(args: &ExplainArgs) -> Result<Vec<(Vec<u8>, bool)>> {
    if let Some(hex) = &args.hex {
        return Ok(vec![(explain::from_hex(hex).context("--hex")?, true)]);
    }
    if let Some(file) = &args.pcap {
        let capture = read_pcap(file)?;
        if let Some(warning) = &capture.warning {
            eprintln!("{}: {warning}", file.display());
        }
        let count = capture.packets.len();
        let all = capture.packets.into_iter().map(|packet| (packet.bytes, true));
        return match args.number {
            None => Ok(all.collect()),
            // As Wireshark counts, from 1.
            Some(number) => match number.checked_sub(1).and_then(|at| all.into_iter().nth(at)) {
                Some(packet) => Ok(vec![packet]),
                None => bail!("--packet {number}: {} has packets 1 to {count}", file.display()),
            },
        };
    }
    Ok(vec![(packet_text::parse(&args.packet.join(" "))?, false)])
}

/// An answer for people.
fn words(answer: &Value) -> Result<String> {
    let tables = &answer["tables"];
    let head = format!("configuration {}, snapshot {}: ", tables["configuration"], tables["epoch"]);
    let classifier = answer["classifier"]["reason"].as_str().map(|reason| {
        format!("{reason}: {}", answer["classifier"]["help"].as_str().unwrap_or_default())
    });
    if answer["packet"].is_null() {
        let why = classifier.unwrap_or_default();
        return Ok(format!("{head}no worker gets it\n  {:<16}{why}\n", "classifier"));
    }
    let explanation: Explanation = serde_json::from_value(answer["packet"].clone())?;
    Ok(head + &explain::render(&explanation, classifier.as_deref()))
}

/// Runs `sluice trace`.
pub(crate) fn trace(args: &TraceArgs) -> Result<()> {
    let request = TapRequest {
        scope: TapScopeRequest::Received(args.interface.clone()),
        filter: filter::compile(&args.filter)?,
        snap_bytes: forward::SNAP_BYTES_MAX,
    };
    let stop = tap::stop_flag()?;
    let mut session = TapSession::open(&args.socket.socket, request)?;
    let (mut count, mut lost) = (0, 0);
    while count < args.count && !stop.load(std::sync::atomic::Ordering::Relaxed) {
        // Of each worker so many: what is too much is not explained.
        let answer = session.read(FRAMES_AT_ONCE.min(args.count - count), true)?;
        lost = answer.lost;
        for frame in answer.frames.iter().take(args.count - count) {
            count += 1;
            print_traced(frame, &session, args.json)?;
        }
        if answer.frames.is_empty() {
            std::thread::sleep(PAUSE);
        }
    }
    lost = lost.max(session.close()?);
    eprintln!("{count} packets explained, {lost} more matched and were lost");
    Ok(())
}

fn print_traced(frame: &Value, session: &TapSession, is_json: bool) -> Result<()> {
    let explanation = &frame["explanation"];
    let interface = session.interface_name(frame);
    if is_json {
        let line = json!({
            "time_ns": frame["time_ns"],
            "interface": interface,
            "verdict": frame["verdict"],
            "epoch": frame["epoch"],
            "tables_changed": frame["tables_changed"],
            "explanation": explanation,
        });
        println!("{line}");
        return Ok(());
    }
    print!("{}", words(explanation)?);
    let verdict: VerdictReport = serde_json::from_value(frame["verdict"].clone())?;
    println!("  {:<16}{}", "in fact", verdict.words());
    if frame["tables_changed"] == true {
        println!(
            "  {:<16}the tables changed since: it was handled by snapshot {}",
            "", frame["epoch"]
        );
    }
    Ok(())
}
