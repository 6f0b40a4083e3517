//! `sluice plugin bench`: what a packet costs, measured by the call.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use frame::Nanos;
use policy::RehearsalPacket;

use super::cli::BenchArgs;
use super::packets::{Packets, rehearsal_packet};
use super::project::Project;
use super::test::{config_of, given, rehearsal};

/// Packets of a call: as many as a worker under load hands over at once.
const BATCH: usize = 64;

/// How long calls are made before they count, and how long they count.
const WARM_UP: Duration = Duration::from_millis(300);
const MEASURE: Duration = Duration::from_secs(2);

pub(crate) fn run(args: &BenchArgs) -> Result<ExitCode> {
    let module = Project::find(&args.path)?.build()?;
    let config = config_of(&args.path, args.config.as_deref());
    let given = given(&args.host);
    let mut rehearsal = rehearsal(&module, config.as_deref(), &given)?;
    let manifest = rehearsal.examined().manifest.clone();
    let packets = match &args.pcap {
        Some(pcap) => Packets::of_capture(pcap, &manifest)?,
        None => {
            let interfaces = given.names.interfaces.len();
            Packets::generate(args.host.seed, rehearsal.config(), &manifest, interfaces)
        }
    };
    let shown: Vec<RehearsalPacket> =
        packets.all().map(|packet| rehearsal_packet(&packet.seen)).collect();
    let mut batches: Vec<&[RehearsalPacket]> = shown.chunks_exact(BATCH).collect();
    if batches.is_empty() {
        batches.push(&shown);
    }
    let mut costs = Vec::new();
    let start = Instant::now();
    for batch in batches.iter().cycle() {
        let elapsed = start.elapsed();
        if elapsed > WARM_UP + MEASURE {
            break;
        }
        let now = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let ns = rehearsal
            .time(batch, Nanos(1_000_000_000_000 + now))
            .map_err(|error| anyhow!(error))?;
        if elapsed > WARM_UP {
            costs.push(ns as f64 / batch.len() as f64);
        }
    }
    costs.sort_by(f64::total_cmp);
    let at = |share: f64| costs.get(((costs.len() - 1) as f64 * share) as usize).copied();
    let (Some(p50), Some(p99)) = (at(0.50), at(0.99)) else {
        return Err(anyhow!("no call was made"));
    };
    let batch = batches.first().map_or(0, |batch| batch.len());
    println!("ns a packet, {batch} a call, {} calls: p50 {p50:.1}, p99 {p99:.1}", costs.len());
    if let Some(budget) = args.budget_ns
        && p50 > budget
    {
        eprintln!("p50 is above the budget of {budget} ns");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
