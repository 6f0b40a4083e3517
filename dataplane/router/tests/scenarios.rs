//! Scenarios: a configuration and captures in, exact bytes and *every* counter out.
//!
//! ```text
//!  scenarios/NAME/config.toml       what the scenario shows, and the clause that wants it
//!                 in-IFACE.pcap     what each interface receives (made by scenarios/make.py)
//!                 NAME.table        tables of plugins, if there is any need
//!                 args              further arguments of `sluice replay`, if there is any need
//!                 expect/           IFACE.pcap, kernel.pcap, counters.json
//! ```
//!
//! With `SLUICE_BLESS=1` the router's output replaces `expect/`; `scenarios/make.py --check` then
//! compares it with what scapy and the RFCs say, and the difference is reviewed.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use frame::DropReason;
use serde_json::Value;
use sim::Packet;

/// Where the configurations of scenarios look for plugins, so that they can be run by hand.
const PLUGINS: &str = "../../../../target/plugins";

/// Reasons that no replay reaches, each with why, and where it is tested instead.
const UNREACHED: &[(DropReason, &str)] = &[
    (
        DropReason::SliceUnowned,
        "a configuration with unowned ports is refused; forward/tests/drops.rs",
    ),
    (DropReason::LinkDown, "in a replay every link is up; forward/tests/drops.rs"),
    (
        DropReason::NeighborFailed,
        "in a replay neighbors answer or stay silent; forward/tests/drops.rs",
    ),
    (
        DropReason::HandoffFull,
        "in a replay every worker takes what it is handed at once; forward/tests/handoff.rs",
    ),
    (
        DropReason::FragmentationFrames,
        "a replay never runs out of chunks; forward/tests/fragments.rs",
    ),
    (
        DropReason::HeadroomExhausted,
        "rings leave four times the room that a tunnel takes; forward/tests/drops.rs",
    ),
    (DropReason::TransmitFull, "a replay empties its rings at once; forward/tests/drops.rs"),
    (DropReason::PuntLimited, "needs a rate above that of replays; forward/tests/drops.rs"),
    (DropReason::PuntFull, "a replay empties its rings at once; forward/tests/drops.rs"),
    (DropReason::PuntRefused, "a replay always has a way to the kernel; forward/tests/drops.rs"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// What configurations call the plugin that asks for one thing after another: `scenarios/actor.wat`, which
/// `wat2wasm` turns into a module beside a configuration that is to be run by hand.
const ACTOR: &str = "actor.wasm";

/// Folders of scenarios, in order of their names.
fn scenarios() -> Vec<PathBuf> {
    let entries = fs::read_dir(root()).expect("the folder of scenarios");
    let mut folders: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.join("config.toml").exists())
        .collect();
    folders.sort();
    folders
}

fn name(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Files of a folder by name, none if there is no such folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(folder) else { return BTreeMap::new() };
    entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.is_file())
        .map(|path| (name(&path), fs::read(&path).expect("a readable file")))
        .collect()
}

/// The configuration to run, with the plugins' folder put in; `None`, visibly, without plugins.
fn configuration(scenario: &Path, scratch: &Path) -> Option<PathBuf> {
    let file = scenario.join("config.toml");
    let text = fs::read_to_string(&file).expect("config.toml");
    if text.contains(ACTOR) {
        let actor = fs::read(root().join("actor.wat")).expect("actor.wat");
        let module = wat::parse_bytes(&actor).expect("a sound module");
        fs::write(scratch.join(ACTOR), &module).expect("a writable folder");
        let file = scratch.join("config.toml");
        fs::write(&file, text).expect("a writable folder");
        return Some(file);
    }
    if !text.contains(PLUGINS) {
        return Some(file);
    }
    let Some(plugins) = common::plugins() else {
        eprintln!(
            "SKIPPED scenario {}: no plugins in SLUICE_PLUGINS or target/plugins (cargo xtask \
             plugins)",
            name(scenario)
        );
        return None;
    };
    for (name, lines) in files(scenario) {
        if name.ends_with(".table") {
            fs::write(scratch.join(name), lines).expect("a writable folder");
        }
    }
    let file = scratch.join("config.toml");
    let text = text.replace(PLUGINS, plugins.to_str().expect("a path in UTF-8"));
    fs::write(&file, text).expect("a writable folder");
    Some(file)
}

/// Runs a scenario. Returns what is wrong with it, which is nothing if it is well.
fn run(scenario: &Path, bless: bool) -> String {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let Some(config) = configuration(scenario, scratch.path()) else { return String::new() };
    let out = scratch.path().join("out");
    let mut replay = common::replay(&config, &out);
    for file in files(scenario).keys() {
        if let Some(interface) =
            file.strip_prefix("in-").and_then(|file| file.strip_suffix(".pcap"))
        {
            let file = scenario.join(file);
            replay.arg("--in").arg(format!("{interface}={}", file.display()));
        }
    }
    if let Ok(args) = fs::read_to_string(scenario.join("args")) {
        replay.args(args.split_whitespace());
    }
    let output = replay.output().expect("the router can be started");
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        return format!("the replay failed ({}): {words}", output.status);
    }
    let expect = scenario.join("expect");
    let given = files(&out);
    if bless {
        let _absent = fs::remove_dir_all(&expect);
        fs::create_dir(&expect).expect("a writable folder");
        for (file, bytes) in &given {
            fs::write(expect.join(file), bytes).expect("a writable folder");
        }
        return String::new();
    }
    differences(&files(&expect), &given)
}

/// Everything that differs, and then all counters, since it is them that tell what happened.
fn differences(expected: &BTreeMap<String, Vec<u8>>, given: &BTreeMap<String, Vec<u8>>) -> String {
    let mut text = String::new();
    let files: BTreeSet<&String> = expected.keys().chain(given.keys()).collect();
    for file in files {
        match (expected.get(file), given.get(file)) {
            (Some(expected), Some(given)) if expected == given => {}
            (Some(expected), Some(given)) if file.ends_with(".pcap") => {
                pcap_difference(file, expected, given, &mut text);
            }
            (Some(expected), Some(given)) => text_difference(file, expected, given, &mut text),
            (Some(_), None) => _ = writeln!(text, "{file}: missing"),
            (None, _) => _ = writeln!(text, "{file}: not expected at all"),
        }
    }
    if let (false, Some(counters)) = (text.is_empty(), given.get("counters.json")) {
        _ = writeln!(text, "all counters:\n{}", String::from_utf8_lossy(counters));
    }
    text
}

fn text_difference(file: &str, expected: &[u8], given: &[u8], text: &mut String) {
    let (expected, given) = (String::from_utf8_lossy(expected), String::from_utf8_lossy(given));
    let (expected, given): (Vec<_>, Vec<_>) = (expected.lines().collect(), given.lines().collect());
    for line in 0..expected.len().max(given.len()) {
        let (old, new) = (expected.get(line), given.get(line));
        if old != new {
            _ = writeln!(text, "{file}:{}: {new:?}, expected {old:?}", line + 1);
        }
    }
}

fn pcap_difference(file: &str, expected: &[u8], given: &[u8], text: &mut String) {
    let packets = |bytes| match sim::read_pcap_bytes(file, bytes) {
        Ok(capture) => capture.packets,
        Err(error) => panic!("{error}"),
    };
    let (expected, given) = (packets(expected), packets(given));
    if expected.len() != given.len() {
        _ = writeln!(text, "{file}: {} packets, expected {}", given.len(), expected.len());
    }
    for index in 0..expected.len().max(given.len()) {
        match (expected.get(index), given.get(index)) {
            (Some(old), Some(new)) if old == new => {}
            (Some(old), Some(new)) => packet_difference(file, index, old, new, text),
            (Some(old), None) => {
                _ = writeln!(text, "{file}, packet {index}: missing{}", hex(old, None))
            }
            (None, Some(new)) => {
                _ = writeln!(text, "{file}, packet {index}: new{}", hex(new, None))
            }
            (None, None) => {}
        }
    }
}

fn packet_difference(file: &str, index: usize, old: &Packet, new: &Packet, text: &mut String) {
    if old.time_ns != new.time_ns {
        let (old, new) = (old.time_ns, new.time_ns);
        _ = writeln!(text, "{file}, packet {index}: left at {new} ns, expected {old} ns");
    }
    if old.bytes != new.bytes {
        let same = old.bytes.iter().zip(&new.bytes).take_while(|(old, new)| old == new).count();
        _ = writeln!(
            text,
            "{file}, packet {index}: differs from byte {same} on\n  given{}\n  expected{}",
            hex(new, Some(same)),
            hex(old, Some(same))
        );
    }
}

/// 16 bytes a line, with `>` in front of the byte at `mark`.
fn hex(packet: &Packet, mark: Option<usize>) -> String {
    let mut text = format!(" ({} bytes)", packet.bytes.len());
    for (at, byte) in packet.bytes.iter().enumerate() {
        if at % 16 == 0 {
            _ = write!(text, "\n    {at:04x} ");
        }
        let sign = if mark == Some(at) { '>' } else { ' ' };
        _ = write!(text, "{sign}{byte:02x}");
    }
    text
}

#[test]
fn every_scenario_gives_what_it_expects() {
    let bless = std::env::var_os("SLUICE_BLESS").is_some();
    let folders = scenarios();
    assert!(!folders.is_empty(), "no scenarios");
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(folder) = folders.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let wrong = run(folder, bless);
                    if !wrong.is_empty() {
                        let text = format!("--- scenario {} ---\n{wrong}", name(folder));
                        failures.lock().expect("no thread panicked").push(text);
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().expect("no thread panicked");
    failures.sort();
    let (wrong, all) = (failures.len(), folders.len());
    assert!(wrong == 0, "{wrong} of {all} scenarios:\n{}", failures.join("\n"));
}

#[test]
fn scenarios_reach_every_drop_reason_but_those_listed() {
    if std::env::var_os("SLUICE_BLESS").is_some() {
        // What is expected is being written at this moment; the next run of the tests judges it.
        return;
    }
    let mut reached = BTreeSet::new();
    for folder in scenarios() {
        let text = fs::read_to_string(folder.join("expect/counters.json")).expect("counters");
        let counters: Value = serde_json::from_str(&text).expect("JSON");
        for interface in counters["interfaces"].as_object().expect("interfaces").values() {
            let drops = interface["drops"].as_object().expect("drops");
            reached.extend(drops.keys().cloned());
        }
    }
    for reason in DropReason::ALL {
        let listed = UNREACHED.iter().any(|(unreached, _)| unreached == reason);
        let label = reason.label();
        match (reached.contains(label), listed) {
            (true, true) => panic!("{label} is reached now: take it from the list"),
            (false, false) => panic!("no scenario reaches {label}, and the list has no reason why"),
            _ => {}
        }
    }
}

/// What a scenario shows stands at the head of its configuration.
#[test]
fn every_scenario_says_what_it_shows() {
    for folder in scenarios() {
        let text = fs::read_to_string(folder.join("config.toml")).expect("config.toml");
        assert!(text.starts_with("# "), "{}: config.toml begins with no comment", name(&folder));
        let generator = fs::read_to_string(root().join("make.py")).expect("make.py");
        let function = format!("def {}(s):", name(&folder).replace('-', "_"));
        assert!(generator.contains(&function), "make.py does not make {}", name(&folder));
    }
}
