//! `sluice_tick`, gauges and quotas over the life of instances.

mod common;

use common::{COUNTERS, Rig, Wat, batch, numbered};
use frame::{Nanos, Verdict};
use policy::PluginFault;

const MS: u64 = 1_000_000;

/// Counts its ticks in its first counter and notes the time of the last one, in milliseconds, in a gauge.
fn ticking() -> Wat {
    let mut wat = Wat::default();
    wat.manifest = wat.manifest.replace(
        "counters = [\"one\", \"two\"]",
        "counters = [\"ticks\", { name = \"last\", gauge = true }]\ntick_ms = 10",
    );
    wat.more = format!(
        "(func (export \"sluice_tick\") (param $now i64)
           (i64.store (i32.const {COUNTERS}) (i64.add (i64.load (i32.const {COUNTERS}))
             (i64.const 1)))
           (i64.store (i32.const {last}) (i64.div_u (local.get $now) (i64.const 1000000))))",
        last = COUNTERS + 8,
    );
    wat
}

fn counted(rig: &mut Rig) -> (u64, u64) {
    let total = rig.host.status().remove(0).total;
    (total.counters["ticks"], total.gauges["last"])
}

#[test]
fn ticks_come_between_turns_about_that_often_for_each_worker() {
    let mut rig = Rig::new(2);
    let spec = rig.spec("ticking", &ticking());
    rig.publish(&[spec]);
    // The first turn is at 0, so that the first tick is due at 10 ms.
    for ms in 1..=100 {
        rig.begin(Nanos(ms * MS));
    }
    rig.begin(Nanos(1000 * MS));
    assert_eq!(
        counted(&mut rig),
        (20, 200),
        "of two workers; the counters are older than the tick"
    );
    // Ticks that were missed are not made up for.
    rig.begin(Nanos(1100 * MS));
    assert_eq!(counted(&mut rig), (22, 2000));
    rig.begin(Nanos(1200 * MS));
    assert_eq!(counted(&mut rig), (24, 2200));
}

#[test]
fn at_most_one_tick_is_called_in_a_turn() {
    let mut rig = Rig::new(1);
    let specs = ["a", "b", "c"].map(|name| rig.spec(name, &ticking()));
    rig.publish(&specs);
    for turn in 0..3 {
        rig.begin(Nanos(10 * MS + turn));
    }
    rig.begin(Nanos(200 * MS));
    let ticks: Vec<u64> =
        rig.host.status().iter().map(|plugin| plugin.total.counters["ticks"]).collect();
    assert_eq!(ticks, [1, 1, 1]);
}

#[test]
fn a_candidate_ticks_in_the_same_turn_as_its_plugin() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("ticking", &ticking());
    let path = spec.path.clone();
    rig.publish(&[spec]);
    rig.begin(Nanos(5 * MS));
    rig.host.load_candidate("ticking", &path, None).expect("a good module");
    // It came at 8 ms, and is due with the plugin at 10 ms.
    for at in [8 * MS, 10 * MS - 1, 10 * MS, 200 * MS] {
        rig.begin(Nanos(at));
    }
    let found = rig.host.candidate("ticking").expect("a candidate").candidate;
    assert_eq!((found.counters["ticks"], found.gauges["last"]), (1, 10));
    assert_eq!(counted(&mut rig), (1, 10));
    // One that traps in it is given up, and nobody else notices.
    let mut endless = ticking();
    endless.more = "(func (export \"sluice_tick\") (param $now i64) (loop $l (br $l)))".to_owned();
    endless.write(&path);
    rig.host.load_candidate("ticking", &path, None).expect("a good module");
    rig.begin(Nanos(300 * MS));
    rig.begin(Nanos(500 * MS));
    let found = rig.host.candidate("ticking").expect("a candidate");
    assert_eq!((found.traps.len(), found.candidate.traps), (1, 1));
    assert_eq!(rig.host.status()[0].total.traps, 0);
    assert_eq!(counted(&mut rig), (3, 300), "the counters are older than the last tick");
}

#[test]
fn a_tick_that_traps_is_a_trap_and_the_spare_goes_on() {
    let mut rig = Rig::new(1);
    let mut wat = ticking();
    wat.more = "(func (export \"sluice_tick\") (param $now i64) (loop $l (br $l)))".to_owned();
    let spec = rig.spec("endless", &wat);
    rig.publish(&[spec]);
    rig.begin(Nanos(10 * MS));
    assert_eq!(rig.host.status()[0].total.traps, 1);
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), Nanos(11 * MS)), [Verdict::Continue; 3]);
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.traps, total.unjudged, total.packets), (1, 0, 3), "no packet pays for it");
    rig.begin(Nanos(20 * MS));
    assert_eq!(rig.host.status()[0].total.traps, 1, "the spare's first tick is a whole one away");
    rig.begin(Nanos(21 * MS));
    assert_eq!(rig.host.status()[0].total.traps, 2);
}

#[test]
fn a_tick_that_is_declared_must_be_there() {
    let mut rig = Rig::new(1);
    let mut wat = ticking();
    wat.more = String::new();
    let spec = rig.spec("absent", &wat);
    let error = rig.host.prepare(&[spec]).err().expect("refused");
    assert!(matches!(error.fault(), Some(PluginFault::ExportMissing("sluice_tick"))));
    wat.more = "(func (export \"sluice_tick\") (param i32))".to_owned();
    let spec = rig.spec("other", &wat);
    let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
    assert!(error.contains("`sluice_tick` is not a function (i64) -> ()"), "{error}");
}

#[test]
fn a_gauge_goes_with_its_instance_and_a_counter_stays() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("ticking", &ticking());
    rig.publish(std::slice::from_ref(&spec));
    rig.begin(Nanos(10 * MS));
    rig.begin(Nanos(150 * MS));
    assert_eq!(counted(&mut rig), (1, 10));
    rig.host.reload("ticking").expect("it reloads");
    rig.begin(Nanos(151 * MS));
    assert_eq!(counted(&mut rig), (2, 0), "the old one's last tick, and nothing that stands");
    rig.host.maintain();
    rig.begin(Nanos(161 * MS));
    rig.begin(Nanos(300 * MS));
    assert_eq!(counted(&mut rig), (3, 161), "added up over generations, and as it stands");
}

/// Asks a quota of 2 for each packet, by its source port, and drops those that it does not admit.
fn limiting() -> Wat {
    let mut wat = Wat::default();
    wat.manifest.push_str("imports = [\"quota\"]\n");
    wat.imports = "(import \"sluice\" \"quota_open\" (func $open (param i32 i32 i64) (result i32)))
        (import \"sluice\" \"quota_batch\" (func $admit (param i32 i32 i32 i32 i64 i32)))"
        .to_owned();
    wat.memory = "(memory (export \"memory\") 2)".to_owned();
    wat.configure = "(call $open (i32.const 2) (i32.const 1000) (i64.const 1000))".to_owned();
    // Groups, all zero, from 66000 on; members, from 71000 on; results at 76000.
    wat.process = format!(
        "(local $i i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (i64.store (i32.add (i32.const 71000) (i32.shl (local.get $i) (i32.const 4)))
             (i64.load16_u (i32.add (i32.const {ports}) (i32.shl (local.get $i) (i32.const 6)))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))
         (call $admit (i32.const 0) (i32.const 66000) (i32.const 71000) (local.get $n)
           (local.get $now) (i32.const 76000))
         (local.set $i (i32.const 0))
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (if (i32.eqz (i32.load8_u (i32.add (i32.const 76000) (local.get $i)))) (then
             (i64.store (i32.add (i32.const {verdicts}) (i32.shl (local.get $i) (i32.const 3)))
               (i64.const 1))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))",
        ports = 1024 + 32,
        verdicts = common::VERDICTS,
    );
    wat
}

#[test]
fn a_quota_holds_over_workers_reloads_and_questions_aside() {
    let mut rig = Rig::new(2);
    let mut spec = rig.spec("limiting", &limiting());
    spec.grants = vec!["quota".to_owned()];
    rig.publish(std::slice::from_ref(&spec));
    let drop = Verdict::Drop(frame::DropReason::Plugin);
    let (go, at) = (Verdict::Continue, |ms: u64| Nanos(ms * MS));
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), at(1)), [go]);
    assert_eq!(rig.turn(1, &mut batch(&numbered(3)), at(1)), [go, go, drop]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), at(2)), [go, go, drop]);
    rig.host.reload("limiting").expect("it reloads");
    assert_eq!(rig.turn(1, &mut batch(&numbered(3)), at(3)), [go, go, drop], "a new generation");
    rig.host.maintain();
    let status = rig.host.status().remove(0).quotas.remove(0);
    assert_eq!((status.members_max, status.members, status.groups), (1000, 2, 1));
    assert_eq!((status.admissions, status.refusals, status.overflows), (2, 3, 0));
    // Members 1 and 2 are silent for a second: the third takes the place of one of them.
    let third = [numbered(3)[2]];
    assert_eq!(rig.turn(0, &mut batch(&third), at(1002)), [drop]);
    assert_eq!(rig.turn(0, &mut batch(&third), at(1003)), [go]);
    rig.publish(&[]);
    rig.host.maintain();
    rig.publish(&[spec]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), at(1004)), [go, go, drop], "started anew");
}
