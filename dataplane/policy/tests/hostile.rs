//! Modules that mean harm, each a file in `hostile/`: beside a plugin that does its work, every one of them
//! is refused in the words that its first lines say, or costs its own packets their default.
//!
//! ```text
//!  ;; why it is here
//!  ;; refused: words of the refusal
//!  ;; traps            each batch is unjudged, until the plugin is disabled
//!  ;; bad verdicts     each packet has the default, and is counted
//!  ;; runs             nothing shows
//!  ;; grants: names    what the operator grants it
//! ```
//! `%repeat N TEXT%` stands for that many TEXT, with the number for `#`. A `.hex` file holds bytes.

mod common;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use common::{Rig, Wat, batch, numbered};
use frame::{DropReason, HookPoint, Nanos, Verdict};
use policy::{PluginSpec, PluginState};

/// Packets of a batch.
const PACKETS: usize = 8;

/// A plugin that drops packets from odd ports.
fn guard() -> Wat {
    let process = "(local $i i32)
        (block $end (loop $next
          (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
          (i64.store (i32.add (i32.const 32768) (i32.shl (local.get $i) (i32.const 3)))
            (i64.extend_i32_u (i32.and (i32.const 1)
              (i32.load16_u offset=1056 (i32.shl (local.get $i) (i32.const 6))))))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br $next)))";
    Wat { process: process.to_owned(), ..Wat::default() }
}

struct Case {
    name: String,
    module: Vec<u8>,
    expected: String,
    grants: Vec<String>,
}

impl Case {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a text");
        let is_hex = path.extension().is_some_and(|extension| extension == "hex");
        let comment = if is_hex { "# " } else { ";; " };
        let mut comments = text.lines().map_while(|line| line.strip_prefix(comment)).skip(1);
        let expected = comments.next().expect("what is expected").to_owned();
        let grants = comments.next().and_then(|line| line.strip_prefix("grants: "));
        let grants = grants.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        let module = if is_hex {
            let bytes = text.lines().filter(|line| !line.starts_with('#'));
            let bytes = bytes.flat_map(str::split_whitespace);
            bytes.map(|byte| u8::from_str_radix(byte, 16).expect("a byte")).collect()
        } else {
            let text = expand(&text);
            wat::parse_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        Self { name, module, expected, grants }
    }
}

/// Carries out what `%repeat` asks for.
fn expand(text: &str) -> String {
    let mut whole = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("%repeat ") {
        whole.push_str(before);
        let (repeated, after) = after.split_once('%').expect("an end");
        let (count, repeated) = repeated.split_once(' ').expect("a number");
        for number in 0..count.parse::<usize>().expect("a number") {
            whole.push_str(&repeated.replace('#', &number.to_string()));
        }
        rest = after;
    }
    whole + rest
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hostile");
    let entries = std::fs::read_dir(folder).expect("the corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| Case::read(path)).collect()
}

/// A turn of the worker: the guard judges as always, whatever stands before it.
fn turn(rig: &mut Rig, now: Nanos, name: &str) {
    let verdicts = rig.turn(0, &mut batch(&numbered(PACKETS)), now);
    for (port, verdict) in verdicts.iter().enumerate() {
        let expected =
            if port % 2 == 1 { Verdict::Drop(DropReason::Plugin) } else { Verdict::Continue };
        assert_eq!(*verdict, expected, "{name}: the packet from port {port}");
    }
}

#[test]
fn a_hostile_module_is_refused_or_costs_its_own_packets_their_default() {
    let mut rig = Rig::new(1);
    let sound = rig.spec("guard", &guard());
    rig.publish(std::slice::from_ref(&sound));
    let path = rig.directory.path().join("hostile.wasm");
    let cases = cases();
    assert!(cases.len() > 90, "the corpus was not found whole: {}", cases.len());
    let mut judged = 0;
    let mut now = 0;
    for Case { name, module, expected, grants } in &cases {
        std::fs::write(&path, module).expect("written");
        let mut spec = PluginSpec::new("hostile", &path, HookPoint::Ingress);
        spec.grants.clone_from(grants);
        let started = Instant::now();
        let prepared = rig.host.prepare(&[spec, sound.clone()]);
        assert!(started.elapsed().as_secs() < 60, "{name}: it held up whoever loads it");
        if let Some(words) = expected.strip_prefix("refused:") {
            let words = words.replace("\\n", "\n");
            let text = prepared.err().unwrap_or_else(|| panic!("{name} was accepted")).to_string();
            assert!(text.starts_with("plugin `hostile`: "), "{name}: {text}");
            assert!(text.contains(words.trim()), "{name}: expected {words:?}, got: {text}");
            assert!(text.len() < 20_000 && !text.contains('\u{1b}'), "{name}: {text}");
            // A line that does not begin as the refusal does is set in: nobody takes it for one of the log.
            assert!(text.lines().skip(1).all(|line| line.starts_with("    ")), "{name}: {text}");
            turn(&mut rig, Nanos(now), name);
            judged += 1;
            continue;
        }
        let set = prepared.unwrap_or_else(|error| panic!("{name} was refused: {error}"));
        rig.host.publish(set).expect("the worker has room");
        let before = rig.host.status();
        let total = |status: &[policy::PluginStatus]| {
            let hostile = status.iter().find(|plugin| plugin.name == "hostile");
            hostile.map(|plugin| plugin.total.clone()).unwrap_or_default()
        };
        let before = total(&before);
        const TURNS: u64 = 3;
        for _ in 0..TURNS {
            now += 1_000_000_000;
            turn(&mut rig, Nanos(now), name);
            judged += 1;
        }
        rig.host.maintain();
        let status = rig.host.status();
        let after = total(&status);
        let traps = after.traps - before.traps;
        let bad = after.bad_verdicts - before.bad_verdicts;
        let unjudged = after.unjudged - before.unjudged;
        let packets = TURNS * PACKETS as u64;
        match expected.as_str() {
            // The active instance and the spare trap; the third batch finds none.
            "traps" => {
                assert!((1..=2).contains(&traps), "{name}: {traps} traps");
                assert_eq!((unjudged, bad), (packets, 0), "{name}");
            }
            "bad verdicts" => assert_eq!((traps, bad, unjudged), (0, packets, 0), "{name}"),
            "runs" => assert_eq!((traps, bad, unjudged), (0, 0, 0), "{name}"),
            other => panic!("{name}: {other}"),
        }
        rig.publish(std::slice::from_ref(&sound));
    }
    let status = rig.host.status();
    assert_eq!(status.len(), 1);
    assert_eq!(status[0].state, PluginState::Running);
    assert_eq!(status[0].generation, 1, "the guard was never loaded again");
    assert_eq!(status[0].total.drops, judged * PACKETS as u64 / 2);
    assert_eq!((status[0].total.traps, status[0].total.bad_verdicts), (0, 0));
}
