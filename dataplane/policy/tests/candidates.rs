//! Candidates: they see what the plugin that runs sees, decide nothing, and are compared both ways.

mod common;

use std::path::PathBuf;

use common::{Rig, Wat, batch, every, numbered, plugin, word};
use frame::{Descriptor, DropReason, HookPoint, Nanos, Verdict};
use policy::{DifferenceKind, PluginConfig, PluginSpec, PolicyError};

const NOW: Nanos = Nanos(1_000_000_000);
const DROPPED: Verdict = Verdict::Drop(DropReason::Plugin);

/// Drops packets with source ports from `first` to `last` for `reason`.
fn drops_ports(first: u16, last: u16, reason: u32) -> Wat {
    let process = format!(
        "(local $i i32) (local $port i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (local.set $port
             (i32.load16_u offset=32 (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 64)))))
           (if (i32.and (i32.ge_u (local.get $port) (i32.const {first}))
                        (i32.le_u (local.get $port) (i32.const {last})))
             (then (i64.store (i32.add (i32.const 32768) (i32.shl (local.get $i) (i32.const 3)))
               (i64.const {}))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))",
        word(1, reason)
    );
    Wat { process, ..Wat::default() }
}

fn file(rig: &Rig, name: &str, wat: &Wat) -> PathBuf {
    let path = rig.directory.path().join(name);
    wat.write(&path);
    path
}

#[test]
fn differences_are_found_in_both_directions_and_decide_nothing() {
    let mut rig = Rig::new(2);
    let spec = rig.spec("p", &drops_ports(0, 9, 0));
    rig.publish(&[spec]);
    assert!(matches!(rig.host.candidate("p"), Err(PolicyError::NoCandidate(_))));
    assert!(matches!(rig.host.promote("p"), Err(PolicyError::NoCandidate(_))));
    let path = file(&rig, "candidate.wasm", &drops_ports(4, 19, 0));
    rig.host.load_candidate("p", &path, None).expect("a good module");
    for worker in 0..2 {
        let verdicts = rig.turn(worker, &mut batch(&numbered(100)), NOW);
        assert!(verdicts[..10].iter().all(|verdict| *verdict == DROPPED));
        assert!(verdicts[10..].iter().all(|verdict| *verdict == Verdict::Continue));
    }
    let found = rig.host.candidate("p").expect("a candidate");
    assert_eq!((found.packets, found.same_drops, found.others), (200, 12, 0));
    assert_eq!((found.new_drops, found.new_passes), (20, 8));
    assert_eq!((found.candidate.packets, found.candidate.batches), (200, 2));
    let of = |kind| found.samples.iter().filter(move |sample| sample.kind == kind);
    assert_eq!(of(DifferenceKind::NewDrop).count(), 8, "the first ones are kept");
    assert_eq!(of(DifferenceKind::NewPass).count(), 8);
    let first = of(DifferenceKind::NewPass).next().expect("a sample");
    assert_eq!((first.running.as_str(), first.candidate.as_str()), ("drop: first", "continue"));
    let status = rig.host.status().remove(0);
    assert!(status.has_candidate);
    assert_eq!((status.generation, status.total.drops), (1, 20), "it counts nowhere else");

    // Promoted it decides, and the one before comes back at once.
    let report = rig.host.promote("p").expect("a candidate");
    assert_eq!((report.generation, report.compile_us), (2, 0));
    let verdicts = rig.turn(0, &mut batch(&numbered(100)), NOW);
    assert_eq!(verdicts[3..5], [Verdict::Continue, DROPPED]);
    assert!(matches!(rig.host.candidate("p"), Err(PolicyError::NoCandidate(_))));
    assert!(rig.host.poll_files().is_empty(), "the configured file did not change");
    rig.host.rollback("p").expect("a generation before");
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [DROPPED]);
}

#[test]
fn reasons_are_compared_by_name_and_a_candidate_can_be_discarded() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("p", &drops_ports(0, 99, 0));
    rig.publish(&[spec]);
    // The same name at another index is the same, another name is not.
    let mut moved = drops_ports(0, 49, 1);
    moved.manifest = moved.manifest.replace("\"first\", \"second\"", "\"second\", \"first\"");
    let path = file(&rig, "moved.wasm", &moved);
    rig.host.load_candidate("p", &path, None).expect("a good module");
    rig.turn(0, &mut batch(&numbered(10)), NOW);
    let found = rig.host.candidate("p").expect("a candidate");
    assert_eq!((found.same_drops, found.others), (10, 0));
    let path = file(&rig, "other.wasm", &drops_ports(0, 99, 1));
    rig.host.load_candidate("p", &path, None).expect("it takes the place of the first");
    rig.turn(0, &mut batch(&numbered(10)), NOW);
    let found = rig.host.discard("p").expect("a candidate");
    assert_eq!((found.packets, found.same_drops, found.others), (10, 10, 10));
    assert_eq!(found.samples[0].candidate, "drop: second");
    assert!(matches!(rig.host.discard("p"), Err(PolicyError::NoCandidate(_))));
    rig.turn(0, &mut batch(&numbered(10)), NOW);
    rig.host.maintain();
}

#[test]
fn a_candidate_that_traps_or_runs_away_harms_nobody() {
    for process in ["unreachable", "(loop $forever (br $forever))"] {
        let mut rig = Rig::new(2);
        let spec = rig.spec("p", &drops_ports(0, 9, 0));
        rig.publish(&[spec]);
        // It must survive its warming.
        let process = format!("(if (local.get $n) (then {process}))");
        let path = file(&rig, "bad.wasm", &Wat { process, ..Wat::default() });
        rig.host.load_candidate("p", &path, None).expect("it only fails with packets");
        for _ in 0..3 {
            assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [DROPPED]);
        }
        let found = rig.host.candidate("p").expect("a candidate");
        assert_eq!((found.packets, found.traps.len(), found.candidate.traps), (0, 1, 1));
        assert_eq!(found.traps[0].worker, 0);
        let status = rig.host.status().remove(0);
        assert_eq!((status.total.traps, status.total.unjudged, status.total.drops), (0, 0, 3));
        // A hundred of them, one after the other, use nothing up.
        for _ in 0..100 {
            rig.host.load_candidate("p", &path, None).expect("there is room");
            rig.turn(0, &mut batch(&numbered(1)), NOW);
            rig.turn(1, &mut batch(&[]), NOW);
            rig.host.maintain();
        }
        rig.host.reload("p").expect("there is room");
    }
}

#[test]
fn a_refused_candidate_changes_nothing() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("p", &drops_ports(0, 9, 0));
    rig.publish(&[spec]);
    let mut refuses = Wat { configure: "i32.const 1".to_owned(), ..Wat::default() };
    let path = file(&rig, "refuses.wasm", &refuses);
    assert!(rig.host.load_candidate("p", &path, None).is_err());
    refuses.imports = "(import \"wasi\" \"now\" (func))".to_owned();
    let path = file(&rig, "foreign.wasm", &refuses);
    assert!(rig.host.load_candidate("p", &path, None).is_err());
    assert!(rig.host.load_from("p", &path, None).is_err());
    assert!(rig.host.load_candidate("q", &path, None).is_err());
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [DROPPED]);
    assert_eq!(rig.host.status()[0].generation, 1);
    let path = file(&rig, "good.wasm", &Wat { process: every(word(0, 0)), ..Wat::default() });
    rig.host.load_from("p", &path, None).expect("a good module");
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Continue]);
    assert!(rig.host.status()[0].is_held);
}

#[test]
fn a_candidate_with_another_configuration_takes_tokens_from_copies() {
    let Some(path) = plugin("rate_limit") else { return };
    let table = |burst: u32| -> PluginConfig {
        PluginConfig::Table(format!("packets_per_s = 1\nburst = {burst}").parse().expect("a table"))
    };
    let mut spec = PluginSpec::new("rate", path.clone(), HookPoint::Ingress);
    spec.config = table(3);
    spec.grants = vec!["meter".to_owned()];
    let mut rig = Rig::new(1);
    rig.publish(&[spec]);
    rig.host.load_candidate("rate", &path, Some(table(1))).expect("a good configuration");
    let one: Vec<Descriptor> = numbered(1);
    for expected in [Verdict::Continue, Verdict::Continue, Verdict::Continue, DROPPED] {
        assert_eq!(rig.turn(0, &mut batch(&one), NOW), [expected]);
    }
    let found = rig.host.candidate("rate").expect("a candidate");
    assert_eq!((found.packets, found.new_drops, found.same_drops), (4, 2, 1));
}
