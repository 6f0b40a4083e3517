//! Captures of others, sound ones and such as have crashed programs, through the binary.
//!
//! Whatever is in them, the router ends well, accounts for every packet (a replay fails otherwise,
//! and the sums are checked here once more), and what it lets through is sound.

mod common;
#[path = "../../forward/tests/common/sound.rs"]
mod sound;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use sim::PcapError;
use sound::Judge;

/// Captures in one replay. Fewer find a culprit sooner, more save starting the router.
const SHARD_FILES: usize = 16;

/// Packets that must have been let through: the test would mean little if most of them were dropped
/// as something else than IP.
const FORWARDED_MIN: u64 = 10_000;

fn judge() -> Judge {
    let own = ["10.0.0.11", "10.1.0.1", "fd00::11", "fd01::1"];
    let own = own.iter().map(|address| address.parse().expect("an address")).collect();
    Judge { own, tunnel_port: 6080, is_fooled: false }
}

/// Every file below `folder`, in order.
fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a readable folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

/// What a shard did.
#[derive(Debug, Default)]
struct Sums {
    received: u64,
    forwarded: u64,
}

/// Replays captures, each on both interfaces.
fn replay(files: &[PathBuf]) -> Result<Sums, String> {
    let out = tempfile::tempdir().expect("a temporary folder");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures.toml");
    let mut replay = common::replay(&config, out.path());
    for file in files {
        for interface in ["wan0", "lan0"] {
            replay.arg("--in").arg(format!("{interface}={}", file.display()));
        }
    }
    let output = replay.output().expect("the router can be started");
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{}: {words}", output.status));
    }
    let judge = judge();
    for interface in ["wan0", "lan0", "kernel"] {
        let path = out.path().join(format!("{interface}.pcap"));
        let capture = sim::read_pcap(&path).map_err(|error| error.to_string())?;
        for (index, packet) in capture.packets.iter().enumerate() {
            let sound = match interface {
                "kernel" => Judge::to_kernel(packet.bytes.get(14..).unwrap_or_default()),
                _ => judge.forwarded(&packet.bytes),
            };
            sound.map_err(|wrong| format!("{interface}, packet {index}: {wrong}"))?;
        }
    }
    balance(&fs::read_to_string(out.path().join("counters.json")).expect("counters"))
}

/// `rx = forwarded + to_kernel + consumed + held + drops`, for each interface; and what left agrees: a
/// packet that left in fragments was forwarded once.
fn balance(text: &str) -> Result<Sums, String> {
    let counters: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let (mut sums, mut sent, mut originated) = (Sums::default(), 0, 0);
    let (mut fragmented, mut fragments) = (0, 0);
    for (name, interface) in counters["interfaces"].as_object().expect("interfaces") {
        let of = |key: &str| interface[key].as_u64().expect("a counter");
        let drops = interface["drops"].as_object().expect("drops");
        let dropped: u64 = drops.values().filter_map(Value::as_u64).sum();
        let accounted = of("forwarded") + of("to_kernel") + of("consumed") + of("held") + dropped;
        if of("rx_packets") != accounted {
            return Err(format!("{name}: {} received, {accounted} accounted", of("rx_packets")));
        }
        sums.received += of("rx_packets");
        sums.forwarded += of("forwarded");
        sent += of("tx_packets");
        originated += of("originated");
        fragmented += of("fragmented");
        fragments += of("fragments_created");
    }
    if sent + fragmented != sums.forwarded + originated + fragments {
        return Err(format!(
            "{sent} sent, {} forwarded, {originated} made, {fragmented} in {fragments} fragments",
            sums.forwarded
        ));
    }
    Ok(sums)
}

#[test]
fn captures_of_others_do_no_harm() {
    let Some(data) = std::env::var_os("SLUICE_TESTDATA") else {
        eprintln!("SKIPPED captures_of_others_do_no_harm: SLUICE_TESTDATA is not set");
        return;
    };
    let mut all = Vec::new();
    files_below(&Path::new(&data).join("captures"), &mut all);
    let (mut files, mut other_links, mut no_captures) = (Vec::new(), 0, 0);
    for path in all {
        match sim::read_pcap(&path) {
            Ok(_) => files.push(path),
            Err(PcapError::LinkType { .. }) => other_links += 1,
            Err(error) => {
                eprintln!("no capture: {error}");
                no_captures += 1;
            }
        }
    }
    let shards: Vec<&[PathBuf]> = files.chunks(SHARD_FILES).collect();
    let (next, sums, failures) =
        (AtomicUsize::new(0), Mutex::new(Sums::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(shard) = shards.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match replay(shard) {
                        Ok(shard) => {
                            let mut sums = sums.lock().expect("no thread panicked");
                            sums.received += shard.received;
                            sums.forwarded += shard.forwarded;
                        }
                        // Once more, one by one, to name the culprit.
                        Err(together) => {
                            let alone = shard.iter().filter_map(|file| {
                                let wrong = replay(std::slice::from_ref(file)).err()?;
                                Some(format!("{}: {wrong}", file.display()))
                            });
                            let mut alone: Vec<String> = alone.collect();
                            if alone.is_empty() {
                                alone.push(format!("{shard:?} together: {together}"));
                            }
                            failures.lock().expect("no thread panicked").extend(alone);
                        }
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().expect("no thread panicked");
    eprintln!(
        "{} captures: {} packets received, {} forwarded; {other_links} files of other link layers \
         and {no_captures} that are no capture",
        files.len(),
        sums.received,
        sums.forwarded
    );
    let failures = failures.into_inner().expect("no thread panicked");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(sums.forwarded >= FORWARDED_MIN, "only {} packets were forwarded", sums.forwarded);
}
