//! Traps, budgets, reloads and removal: what happens to a plugin while packets flow.

mod common;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{COUNTERS, Rig, Wat, batch, every, numbered, word};
use frame::{DropReason, Nanos, Verdict};
use policy::{HostOptions, OnTrap, PluginConfig, PluginSpec, PluginState, PolicyError};

const PLUGIN: Verdict = Verdict::Drop(DropReason::Plugin);
const DEFAULT: Verdict = Verdict::Drop(DropReason::PluginDefault);

/// Drops everything, except that a batch of 13 packets makes it trap with `how`.
fn unlucky(how: &str) -> Wat {
    let process = format!(
        "{} (if (i32.eq (local.get $n) (i32.const 13)) (then {how}))",
        every(word(1, 0)).replace("(local $i i32)", "(local $i i32) (local $j i32)")
    );
    Wat { process, ..Wat::default() }
}

/// Runs maintenance, and a turn of each worker, until `done` or for 20 seconds.
fn maintain_until(rig: &mut Rig, done: impl Fn(&Rig) -> bool) {
    let started = Instant::now();
    while !done(rig) {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came to that");
        rig.host.maintain();
        rig.begin(Nanos(1));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_way_of_failing_costs_its_own_batch_alone() {
    for how in [
        "unreachable",
        "(loop $l (br $l))",
        "(call $process (i32.const 13) (i64.const 0))",
        "(drop (i32.load (i32.const -4)))",
        "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
    ] {
        for (on_trap, expected) in [(OnTrap::Open, Verdict::Continue), (OnTrap::Closed, DEFAULT)] {
            let mut rig = Rig::new(1);
            let mut spec = rig.spec("unlucky", &unlucky(how));
            spec.on_trap = Some(on_trap);
            rig.publish(&[spec]);
            assert_eq!(rig.turn(0, &mut batch(&numbered(5)), Nanos(1)), [PLUGIN; 5]);
            let verdicts = rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
            assert_eq!(verdicts, [expected; 13], "{how}: the batch of the trap");
            let verdicts = rig.turn(0, &mut batch(&numbered(5)), Nanos(1));
            assert_eq!(verdicts, [PLUGIN; 5], "{how}: the spare takes over at once");
            let status = rig.host.status().remove(0);
            assert_eq!(status.state, PluginState::Running);
            let total = &status.total;
            assert_eq!((total.traps, total.unjudged, total.drops), (1, 13, 10), "{how}");
            assert_eq!(total.default_drops, if on_trap == OnTrap::Closed { 13 } else { 0 });
        }
    }
}

#[test]
fn an_endless_call_is_stopped_near_its_budget() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("endless", &unlucky("(loop $l (br $l))"));
    rig.publish(&[spec]);
    let started = Instant::now();
    rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(1), "{took:?} is below the budget");
    assert!(took < Duration::from_millis(500), "{took:?} is far above the budget of 1 ms");
    eprintln!("an endless call with a budget of 1 ms took {took:?}");
}

#[test]
fn a_call_within_its_budget_is_left_alone() {
    // Some 20 ms of counting, with a budget of two seconds.
    let slow = "(loop $l (br_if $l (i32.lt_u
        (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 20000000))))";
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("slow", &unlucky(slow));
    spec.budget_us = 2_000_000;
    rig.publish(&[spec]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(13)), Nanos(1)), [PLUGIN; 13]);
    assert_eq!(rig.host.status()[0].total.traps, 0);
}

/// What other work takes of its core is not held against a call, nor what interrupts are charged to it: a
/// thousandth of the budget would be enough for each of these calls.
#[test]
fn a_call_that_is_interrupted_is_left_alone() {
    let core = core_affinity::get_core_ids().and_then(|cores| cores.first().copied());
    let Some(core) = core.filter(|core| core_affinity::set_for_current(*core)) else {
        eprintln!("SKIPPED: no core can be chosen");
        return;
    };
    let short = "(loop $l (br_if $l (i32.lt_u
        (local.tee $j (i32.add (local.get $j) (i32.const 1))) (i32.const 2000))))";
    let mut rig = Rig::new(1);
    let spec = rig.spec("short", &unlucky(short));
    rig.publish(&[spec]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                core_affinity::set_for_current(core);
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let started = Instant::now();
        let mut interrupted = 0;
        while started.elapsed() < Duration::from_secs(3) {
            let called = Instant::now();
            rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
            interrupted += u64::from(called.elapsed() > Duration::from_millis(1));
        }
        is_over.store(true, Ordering::Relaxed);
        eprintln!("{interrupted} turns were interrupted for more than the budget");
    });
    assert_eq!(rig.host.status()[0].total.traps, 0);
}

#[test]
fn without_an_instance_on_trap_holds_until_there_is_one() {
    let mut rig = Rig::new(2);
    let mut spec = rig.spec("unlucky", &unlucky("unreachable"));
    spec.on_trap = Some(OnTrap::Closed);
    rig.publish(&[spec]);
    rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
    rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
    assert_eq!(rig.host.status()[0].state, PluginState::Backoff);
    assert_eq!(rig.turn(0, &mut batch(&numbered(4)), Nanos(1)), [DEFAULT; 4]);
    assert_eq!(rig.turn(1, &mut batch(&numbered(4)), Nanos(1)), [PLUGIN; 4], "the other worker");
    rig.host.maintain();
    rig.begin(Nanos(1));
    assert_eq!(rig.host.status()[0].state, PluginState::Backoff, "not before the back-off");
    maintain_until(&mut rig, |rig| rig.host.status()[0].state == PluginState::Running);
    rig.begin(Nanos(1));
    assert_eq!(rig.turn(0, &mut batch(&numbered(4)), Nanos(1)), [PLUGIN; 4]);
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.traps, total.unjudged, total.default_drops), (2, 30, 30));
}

#[test]
fn too_many_traps_disable_it_on_every_worker_until_it_is_reloaded() {
    let mut rig = Rig::new(2);
    let mut spec = rig.spec("unlucky", &unlucky("unreachable"));
    spec.traps_max = 2;
    spec.on_trap = Some(OnTrap::Closed);
    rig.publish(std::slice::from_ref(&spec));
    rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
    rig.host.maintain();
    assert_eq!(rig.host.status()[0].state, PluginState::Running);
    rig.turn(1, &mut batch(&numbered(13)), Nanos(1));
    rig.host.maintain();
    assert_eq!(rig.host.status()[0].state, PluginState::Disabled);
    for worker in 0..2 {
        assert_eq!(rig.turn(worker, &mut batch(&numbered(4)), Nanos(1)), [DEFAULT; 4]);
    }
    let set = rig.host.prepare(&[spec]).expect("the same plugin can be prepared");
    rig.host.publish(set).expect("room");
    rig.begin(Nanos(1));
    assert_eq!(rig.turn(0, &mut batch(&numbered(4)), Nanos(1)), [PLUGIN; 4], "a new generation");
    let report = rig.host.reload("unlucky").expect("it reloads");
    assert_eq!((report.generation, report.compile_us), (3, 0), "the module was compiled already");
    assert_eq!(rig.turn(0, &mut batch(&numbered(4)), Nanos(1)), [PLUGIN; 4]);
    assert_eq!(rig.host.status()[0].state, PluginState::Running);
}

#[test]
fn memory_grows_to_its_limit_and_no_further() {
    // Grows until it is refused, then stores the size in pages in its first counter.
    let process = format!(
        "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))
         (i64.store (i32.const {COUNTERS}) (i64.extend_i32_u (memory.size)))"
    );
    let mut rig = Rig::new(1);
    let spec = rig.spec("grows", &Wat { process, ..Wat::default() });
    rig.publish(&[spec]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), Nanos(1)), [Verdict::Continue]);
    rig.begin(Nanos(500_000_000));
    assert_eq!(rig.host.status()[0].total.counters["one"], 16, "1 MiB");
}

#[test]
fn a_reload_swaps_between_turns_and_keeps_the_counters() {
    let mut rig = Rig::new(2);
    let count = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.add (i64.load (i32.const {COUNTERS}))
           (i64.extend_i32_u (local.get $n))))"
    );
    let old = Wat { process: format!("{} {count}", every(word(1, 0))), ..Wat::default() };
    let new = Wat { process: format!("{} {count}", every(word(1, 1))), ..Wat::default() };
    let spec = rig.spec("plugin", &old);
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.turn(0, &mut batch(&numbered(10)), Nanos(1)), [PLUGIN; 10]);
    new.write(&spec.path);
    let report = rig.host.reload("plugin").expect("it reloads");
    assert_eq!(report.generation, 2);
    assert!(report.compile_us > 0 && report.instantiate_us > 0);
    use frame::{Hook as _, HookPoint};
    let mut packets = batch(&numbered(10));
    rig.chains[0].run(HookPoint::Ingress, &mut packets, Nanos(2));
    let total = rig.host.status().remove(0).total;
    assert_eq!(total.drops_by_reason["first"], 20, "the same turn sees the old one");
    rig.turn(0, &mut batch(&numbered(5)), Nanos(3));
    rig.begin(Nanos(900_000_000));
    for _ in 0..3 {
        rig.host.maintain();
        let total = rig.host.status().remove(0).total;
        assert_eq!((total.drops_by_reason["first"], total.drops_by_reason["second"]), (20, 5));
        assert_eq!((total.packets, total.counters["one"]), (25, 25));
    }
}

#[test]
fn a_broken_file_is_refused_and_the_old_one_goes_on() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("plugin", &Wat { process: every(word(1, 0)), ..Wat::default() });
    let config = rig.directory.path().join("plugin.toml");
    std::fs::write(&config, "a = 1").expect("written");
    spec.config = PluginConfig::File(config.clone());
    rig.publish(std::slice::from_ref(&spec));
    let running = |rig: &mut Rig, generation: u64| {
        assert_eq!(rig.turn(0, &mut batch(&numbered(3)), Nanos(1)), [PLUGIN; 3]);
        assert_eq!(rig.host.status()[0].generation, generation);
    };
    assert!(rig.host.poll_files().is_empty(), "nothing changed");
    let good = std::fs::read(&spec.path).expect("read");
    std::fs::write(&spec.path, &good[..good.len() / 2]).expect("written");
    let reports = rig.host.poll_files();
    assert!(matches!(&reports[..], [Err(PolicyError::Plugin { .. })]), "{reports:?}");
    running(&mut rig, 1);
    assert!(rig.host.poll_files().is_empty(), "it is reported once");
    std::fs::write(&spec.path, &good).expect("written");
    assert!(rig.host.poll_files().is_empty(), "it is as it was");
    std::fs::write(&config, "b = 22").expect("written");
    let reports = rig.host.poll_files();
    assert!(matches!(&reports[..], [Ok(report)] if report.generation == 2), "{reports:?}");
    running(&mut rig, 2);
    std::fs::remove_file(&spec.path).expect("removed");
    let reports = rig.host.poll_files();
    assert!(reports[0].as_ref().expect_err("gone").to_string().contains("No such file"));
    running(&mut rig, 2);
}

#[test]
fn a_new_set_keeps_what_did_not_change_and_retires_what_is_gone() {
    let mut rig = Rig::new(1);
    // Remembers how many batches it has seen in its memory, and shows that as a counter.
    let remembers = Wat {
        process: format!(
            "(i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
             (i64.store (i32.const {COUNTERS}) (i64.load (i32.const 8)))"
        ),
        ..Wat::default()
    };
    let kept = rig.spec("kept", &remembers);
    let gone = rig.spec("gone", &Wat { process: every(word(1, 0)), ..Wat::default() });
    rig.publish(&[kept.clone(), gone]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), Nanos(1)), [PLUGIN; 3]);
    let added = rig.spec("added", &Wat { process: every(word(1, 1)), ..Wat::default() });
    rig.publish(&[added.clone(), kept.clone()]);
    rig.turn(0, &mut batch(&numbered(3)), Nanos(1));
    rig.begin(Nanos(900_000_000));
    rig.host.maintain();
    let status = rig.host.status();
    let names: Vec<_> = status.iter().map(|s| (s.name.as_str(), s.generation)).collect();
    assert_eq!(names, [("added", 1), ("kept", 1)]);
    let stale = rig.host.prepare(std::slice::from_ref(&kept)).expect("good");
    rig.publish(std::slice::from_ref(&added));
    assert!(matches!(rig.host.publish(stale), Err(PolicyError::Stale(name)) if name == "kept"));
    rig.publish(&[]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), Nanos(1)), [Verdict::Continue; 3]);
    assert!(rig.host.status().is_empty());
}

#[test]
fn a_worker_that_does_not_turn_makes_publishing_fail_and_nothing_else() {
    let mut rig = Rig::new(2);
    let spec = rig.spec("plugin", &Wat { process: every(word(1, 0)), ..Wat::default() });
    rig.publish(std::slice::from_ref(&spec));
    let mut failed = None;
    for _ in 0..2000 {
        rig.chains[0].begin_turn_for_test();
        if let Err(error) = rig.host.reload("plugin") {
            failed = Some(error);
            break;
        }
    }
    assert!(matches!(failed, Some(PolicyError::WorkerStalled(1))), "{failed:?}");
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), Nanos(1)), [PLUGIN; 3]);
    assert_eq!(rig.turn(1, &mut batch(&numbered(3)), Nanos(1)), [PLUGIN; 3]);
    rig.host.maintain();
    rig.host.reload("plugin").expect("the worker turns again");
}

#[test]
fn a_change_of_too_many_plugins_is_called_that() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("plugin-0", &Wat::default());
    let mut specs = Vec::new();
    for number in 0..400 {
        specs.push(PluginSpec { name: format!("plugin-{number}"), ..spec.clone() });
    }
    let set = rig.host.prepare(&specs).expect("each of them is good");
    let error = rig.host.publish(set).expect_err("400 at once");
    assert!(error.to_string().starts_with("too many plugins change at once: worker 0"), "{error}");
    // Some at a time, they run.
    for some in [200, 400] {
        let set = rig.host.prepare(&specs[..some]).expect("good");
        rig.host.publish(set).expect("200 are new");
        rig.begin(Nanos(1));
        rig.host.maintain();
    }
    assert_eq!(rig.host.status().len(), 400);
}

trait BeginTurn {
    fn begin_turn_for_test(&mut self);
}

impl BeginTurn for policy::WorkerChain {
    fn begin_turn_for_test(&mut self) {
        frame::Hook::begin_turn(self, Nanos(1));
    }
}

#[test]
fn reloads_under_load_lose_no_packet_and_mix_no_batch() {
    let (host, chains) = policy::PluginHost::new(HostOptions::new(2)).expect("a host");
    let mut host = host;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("plugin.wasm");
    let (first, second) = (
        Wat { process: every(word(1, 0)), ..Wat::default() },
        Wat { process: every(word(0, 0)), ..Wat::default() },
    );
    first.write(&path);
    let spec = PluginSpec::new("plugin", &path, frame::HookPoint::Ingress);
    let set = host.prepare(&[spec]).expect("good");
    host.publish(set).expect("room");
    let stop = AtomicBool::new(false);
    let judged: u64 = thread::scope(|scope| {
        let workers: Vec<_> = chains
            .into_iter()
            .map(|mut chain| {
                let stop = &stop;
                scope.spawn(move || {
                    use frame::Hook as _;
                    let mut packets = batch(&numbered(64));
                    let mut judged = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        packets.verdicts[..64].fill(Verdict::Continue);
                        chain.begin_turn(Nanos(1));
                        if chain.is_active(frame::HookPoint::Ingress) {
                            chain.run(frame::HookPoint::Ingress, &mut packets, Nanos(1));
                            judged += 64;
                        }
                        let same = packets.verdicts[..64].iter().all(|v| *v == packets.verdicts[0]);
                        assert!(same, "a batch saw two generations");
                    }
                    chain.begin_turn(Nanos(1));
                    judged
                })
            })
            .collect();
        for reload in 0..60 {
            if reload % 2 == 0 { &second } else { &first }.write(&path);
            host.reload("plugin").expect("it reloads");
            host.maintain();
            thread::sleep(Duration::from_millis(2));
        }
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("no panic")).sum()
    });
    host.maintain();
    let status = host.status().remove(0);
    assert_eq!(status.generation, 61);
    assert_eq!(status.total.packets, judged);
    assert_eq!((status.total.traps, status.total.unjudged, status.total.bad_verdicts), (0, 0, 0));
    assert!(status.total.drops > 0 && status.total.drops < judged);
}

#[test]
fn every_call_is_accounted_for() {
    let mut rig = Rig::new(2);
    let spec = rig.spec("p", &Wat { process: every(word(1, 0)), ..Wat::default() });
    rig.publish(&[spec]);
    for n in [1, 10, 100] {
        rig.turn(0, &mut batch(&numbered(n)), Nanos(1));
    }
    let status = rig.host.status().remove(0);
    let total = &status.total;
    assert_eq!((total.batches, total.packets, total.continued, total.drops), (3, 111, 0, 111));
    assert!(0 < total.call_cycles_p50 && total.call_cycles_p50 <= total.call_cycles_p99);
    assert!(0 < total.packet_cycles_p50 && total.packet_cycles_p50 <= total.packet_cycles_p99);
    // Every call is in the sum, so the largest cannot be above it by more than a bucket is wide.
    assert!(total.call_cycles_p99 * 15 / 16 <= total.cycles);
    assert_eq!(status.workers[0].call_cycles_p99, total.call_cycles_p99);
    assert_eq!(status.workers[1].call_cycles_p99, 0);
}
