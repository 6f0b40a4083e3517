//! State that goes from one generation to the next or to a candidate, and payload that guests are shown.

mod common;

use common::{COUNTERS, Rig, Wat, batch, every, numbered, word};
use frame::{Batch, Descriptor, Frame, Nanos, Verdict};
use policy::{PluginFault, Start, TrialStatus};

const STATE: u32 = 61_440;
const PAYLOAD: u32 = 65_536;
/// The variable of [`every`], which stands before all else.
const LOCAL: &str = "(local $i i32)";

/// The text of the module with a layout of 80 bytes, whose last fields are these.
fn extended(wat: &Wat, more: [u32; 8]) -> Vec<u8> {
    let escape = |bytes: &[u8]| bytes.iter().map(|b| format!("\\{b:02x}")).collect::<String>();
    let bytes =
        |fields: &[u32]| -> Vec<u8> { fields.iter().flat_map(|f| f.to_le_bytes()).collect() };
    let short = escape(&bytes(&wat.layout));
    let mut layout = wat.layout;
    layout[0] = 80;
    let long = escape(&[bytes(&layout), bytes(&more)].concat());
    let text = wat.text().replace(&short, &long);
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Counts packets at address 8, hands that number over and shows it as its first counter. `import` and
/// `export` come first in the two functions.
fn counting(schema: u32, takes: &str, export: &str, import: &str) -> Vec<u8> {
    counting_then(schema, takes, export, import, "")
}

/// The same, with more to do for each batch.
fn counting_then(schema: u32, takes: &str, export: &str, import: &str, then: &str) -> Vec<u8> {
    let mut wat = Wat::default();
    wat.manifest +=
        &format!("state = {{ schema = {schema}, bytes_max = 16, takes = [{takes}] }}\n");
    wat.process = format!(
        "{LOCAL}
         (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8))
           (i64.extend_i32_u (local.get $n))))
         (i64.store (i32.const {COUNTERS}) (i64.load (i32.const 8)))
         {then}"
    );
    wat.more = format!(
        "(func (export \"sluice_export\") (result i32)
           {export}
           (i64.store (i32.const {STATE}) (i64.load (i32.const 8)))
           (i32.const 8))
         (func (export \"sluice_import\") (param $schema i32) (param $len i32) (result i32)
           {import}
           (if (i32.ne (local.get $len) (i32.const 8)) (then unreachable))
           (i64.store (i32.const 8) (i64.load (i32.const {STATE})))
           (i64.store (i32.const {COUNTERS}) (i64.load (i32.const 8)))
           (i32.const 0))"
    );
    extended(&wat, [0, 0, 0, 0, 0, STATE, 16, 0])
}

/// What the instances of each worker remember once the second module took the place of the first, and
/// how many states were taken and lost. Worker 0 saw 5 packets, worker 1 saw 7.
fn outcome(first: &[u8], second: &[u8]) -> ([u64; 2], (u64, u64, u64)) {
    let mut rig = Rig::new(2);
    let spec = rig.spec("counting", &Wat::default());
    std::fs::write(&spec.path, first).expect("written");
    rig.publish(std::slice::from_ref(&spec));
    rig.turn(0, &mut batch(&numbered(5)), Nanos(1));
    rig.turn(1, &mut batch(&numbered(7)), Nanos(1));
    rig.begin(Nanos(200_000_000));
    std::fs::write(&spec.path, second).expect("written");
    rig.host.reload("counting").expect("it reloads");
    rig.begin(Nanos(200_000_001));
    rig.host.maintain();
    // One packet each: the counter, which does not fall, rises by what the instance remembers, and one.
    let before: Vec<u64> =
        rig.host.status()[0].workers.iter().map(|worker| worker.counters["one"]).collect();
    for worker in 0..2 {
        assert_eq!(
            rig.turn(worker, &mut batch(&numbered(1)), Nanos(200_000_002)),
            [Verdict::Continue]
        );
    }
    rig.begin(Nanos(400_000_000));
    let status = rig.host.status().remove(0);
    let remembered =
        [0, 1].map(|worker| status.workers[worker].counters["one"] - before[worker] - 1);
    let total = &status.total;
    (remembered, (total.states_taken, total.states_lost, total.traps))
}

#[test]
fn state_goes_along_inside_a_worker() {
    let good = counting(1, "", "", "");
    assert_eq!(outcome(&good, &good), ([5, 7], (2, 0, 0)));
    let next =
        counting(2, "1", "", "(if (i32.ne (local.get $schema) (i32.const 1)) (then unreachable))");
    assert_eq!(outcome(&good, &next), ([5, 7], (2, 0, 0)), "a schema that it takes");
    let other = counting(2, "3", "", "unreachable");
    assert_eq!(outcome(&good, &other), ([0, 0], (0, 2, 0)), "one that it does not take");
}

#[test]
fn who_refuses_or_traps_starts_empty_and_nothing_else_happens() {
    let good = counting(1, "", "", "");
    let refuses = counting(1, "", "", "(if (i32.const 1) (then (return (i32.const 9))))");
    assert_eq!(outcome(&good, &refuses), ([0, 0], (0, 2, 0)));
    // It wrote to its memory before it trapped: the spare did not.
    let traps = counting(1, "", "", "(i64.store (i32.const 8) (i64.const 99)) unreachable");
    assert_eq!(outcome(&good, &traps), ([0, 0], (0, 2, 2)));
    let endless = counting(1, "", "", "(loop $l (br $l))");
    assert_eq!(outcome(&good, &endless), ([0, 0], (0, 2, 2)));
    let old_traps = counting(1, "", "unreachable", "");
    assert_eq!(outcome(&old_traps, &good), ([0, 0], (0, 2, 0)));
    let none = counting(1, "", "(if (i32.const 1) (then (return (i32.const -1))))", "unreachable");
    assert_eq!(outcome(&none, &good), ([0, 0], (0, 0, 0)), "it has none");
    for length in [17, 65_536, 0x7fff_ffff] {
        let long = counting(
            1,
            "",
            &format!("(if (i32.const 1) (then (return (i32.const {length}))))"),
            "unreachable",
        );
        assert_eq!(outcome(&long, &good), ([0, 0], (0, 2, 0)), "{length} bytes");
    }
}

#[test]
fn a_rollback_hands_state_back() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("counting", &Wat::default());
    std::fs::write(&spec.path, counting(1, "", "", "")).expect("written");
    rig.publish(std::slice::from_ref(&spec));
    rig.turn(0, &mut batch(&numbered(5)), Nanos(1));
    // The same but for a number in its code.
    let second = counting(1, "", "(drop (i32.const 7))", "");
    std::fs::write(&spec.path, second).expect("written");
    rig.host.reload("counting").expect("it reloads");
    rig.turn(0, &mut batch(&numbered(2)), Nanos(2));
    rig.host.rollback("counting").expect("there is a generation before");
    rig.begin(Nanos(3));
    rig.begin(Nanos(300_000_000));
    rig.host.maintain();
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.states_taken, total.states_lost), (2, 0));
    assert_eq!(total.packets, 7);
}

/// Counts as [`counting`] does, and drops everything once it remembers more than 8.
fn limiting(schema: u32, takes: &str, export: &str, import: &str) -> Vec<u8> {
    let drop = every(word(1, 0));
    let drop = drop.strip_prefix(LOCAL).expect("its variable");
    let then = format!("(if (i64.gt_u (i64.load (i32.const 8)) (i64.const 8)) (then {drop}))");
    counting_then(schema, takes, export, import, &then)
}

/// What is told of `candidate` beside `running`, and of the latter's traps. Worker 0 had seen 5 packets,
/// worker 1 had seen 7, when the candidate came; then each sees 2.
fn trial(running: &[u8], candidate: &[u8]) -> (TrialStatus, u64) {
    let mut rig = Rig::new(2);
    let spec = rig.spec("limiting", &Wat::default());
    std::fs::write(&spec.path, running).expect("written");
    rig.publish(std::slice::from_ref(&spec));
    rig.turn(0, &mut batch(&numbered(5)), Nanos(1));
    rig.turn(1, &mut batch(&numbered(7)), Nanos(1));
    let path = rig.directory.path().join("candidate.wasm");
    std::fs::write(&path, candidate).expect("written");
    rig.host.load_candidate("limiting", &path, None).expect("a good module");
    let status = rig.host.status().remove(0);
    assert!(status.candidate_starts.iter().all(|start| start.start == Start::Due));
    for worker in 0..2 {
        rig.turn(worker, &mut batch(&numbered(2)), Nanos(2));
    }
    rig.begin(Nanos(400_000_000));
    let found = rig.host.candidate("limiting").expect("a candidate");
    let status = rig.host.status().remove(0);
    assert_eq!(status.candidate_starts, found.starts);
    assert_eq!((status.total.states_taken, status.total.states_lost), (0, 0), "of generations");
    assert_eq!((status.total.packets, status.total.unjudged), (16, 0));
    (found, status.total.traps)
}

fn starts(found: &TrialStatus) -> [Start; 2] {
    [0, 1].map(|worker| found.starts[worker].start)
}

#[test]
fn a_candidate_begins_with_the_state_of_the_plugin_in_its_worker() {
    let good = limiting(1, "", "", "");
    for candidate in [&good, &limiting(4, "3, 1", "", "")] {
        let (found, traps) = trial(&good, candidate);
        assert_eq!(starts(&found), [Start::WithState; 2], "{:?}", found.starts);
        assert_eq!(found.starts[1].worker, 1);
        assert_eq!(found.starts[0].text, "with the state of the plugin that runs, schema 1");
        // Worker 0 remembers 7 then and passes both, worker 1 remembers 9.
        assert_eq!((found.packets, found.same_drops), (4, 2));
        assert_eq!((found.new_drops, found.new_passes, found.others), (0, 0, 0));
        assert_eq!((found.candidate.counters["one"], traps), (16, 0));
    }
}

#[test]
fn why_a_candidate_began_without_state_is_told() {
    let good = limiting(1, "", "", "");
    let returns = |value: &str| format!("(if (i32.const 1) (then (return (i32.const {value}))))");
    let unkept = Wat { process: every(word(0, 0)), ..Wat::default() }.bytes();
    for (running, candidate, start, text) in [
        (
            &good,
            &limiting(2, "3", "", "unreachable"),
            Start::OtherSchema,
            "schema 1, and the candidate takes 2, 3",
        ),
        (&good, &unkept, Start::Unkept, "the candidate's manifest has none"),
        (&unkept, &good, Start::Unkept, "the manifest of the plugin that runs has none"),
        (&limiting(1, "", &returns("-1"), ""), &good, Start::Nothing, "had none to hand over"),
        (&limiting(1, "", &returns("17"), ""), &good, Start::TooLong, "state.bytes_max"),
        (&good, &limiting(1, "", "", &returns("9")), Start::Refused, "import refused it"),
    ] {
        let (found, traps) = trial(running, candidate);
        assert_eq!(starts(&found), [start; 2], "{:?}", found.starts);
        assert!(found.starts.iter().all(|start| start.text.contains(text)), "{:?}", found.starts);
        assert_eq!((found.packets, traps, found.traps.len()), (4, 0, 0), "{start:?}");
        // Whichever began empty passes what the other drops.
        let differs = if *running == unkept { 0 } else { 2 };
        assert_eq!((found.new_passes, found.new_drops), (differs, 0), "{start:?}");
    }
}

#[test]
fn a_trap_on_the_way_to_a_candidate_is_one_of_who_trapped() {
    let good = limiting(1, "", "", "");
    // The instance that trapped was replaced, as after any trap: both begin empty.
    let (found, traps) = trial(&limiting(1, "", "unreachable", ""), &good);
    assert_eq!((starts(&found), traps), ([Start::ExportTrapped; 2], 2));
    assert_eq!((found.packets, found.same_drops, found.new_drops, found.new_passes), (4, 0, 0, 0));
    for import in ["unreachable", "(loop $l (br $l))"] {
        let (found, traps) = trial(&good, &limiting(1, "", "", import));
        assert_eq!((starts(&found), traps), ([Start::ImportTrapped; 2], 0), "{import}");
        assert_eq!((found.packets, found.traps.len(), found.candidate.traps), (0, 2, 2));
    }
}

#[test]
fn what_state_needs_must_be_exported() {
    let mut rig = Rig::new(1);
    let mut wat = Wat::default();
    wat.manifest += "state = { schema = 1, bytes_max = 16 }\n";
    let spec = rig.spec("lacks", &wat);
    let error = rig.host.prepare(std::slice::from_ref(&spec)).err().expect("refused");
    assert!(matches!(error.fault(), Some(PluginFault::ExportMissing("sluice_export"))));
    wat.more = "(func (export \"sluice_export\") (result i32) (i32.const 0))
        (func (export \"sluice_import\") (param i32) (result i32) (i32.const 0))"
        .to_owned();
    std::fs::write(&spec.path, wat.bytes()).expect("written");
    let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
    assert!(error.contains("`sluice_import` is not a function (i32, i32) -> i32"), "{error}");
}

/// A plugin that drops what its window does not show two bytes of, or whose second one is odd.
fn looking(window: &str) -> Vec<u8> {
    let mut wat = Wat::default();
    wat.manifest += &format!("payload = {window}\n");
    wat.memory = "(memory (export \"memory\") 3)".to_owned();
    wat.process = format!(
        "(local $i i32) (local $at i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (local.set $at (i32.add (i32.const {PAYLOAD}) (i32.mul (local.get $i) (i32.const 24))))
           (if (i32.or (i32.lt_u (i32.load16_u (local.get $at)) (i32.const 2))
               (i32.and (i32.load8_u offset=9 (local.get $at)) (i32.const 1))) (then
             (i64.store (i32.add (i32.const {verdicts}) (i32.shl (local.get $i) (i32.const 3)))
               (i64.const 1))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))",
        verdicts = common::VERDICTS,
    );
    extended(&wat, [0, 0, 0, PAYLOAD, 24, 0, 0, 0])
}

fn packets(contents: &[&[u8]]) -> Batch {
    let mut batch = Batch::new();
    for (index, bytes) in contents.iter().enumerate() {
        let mut frame = Frame::new(Box::leak(Box::new([0; frame::CHUNK_BYTES])), 0);
        frame.reset(14 + bytes.len()).expect("it fits")[14..].copy_from_slice(bytes);
        assert!(batch.push(frame).is_ok());
        batch.descriptors[index] = Descriptor {
            l3_offset: 14,
            l4_offset: 16,
            length: bytes.len() as u16,
            ..Descriptor::default()
        };
    }
    batch
}

#[test]
fn an_area_for_payload_that_the_manifest_does_not_declare_is_refused() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("looking", &Wat::default());
    let wat = Wat { memory: "(memory (export \"memory\") 3)".to_owned(), ..Wat::default() };
    let module = extended(&wat, [0, 0, 0, PAYLOAD, 24, 0, 0, 0]);
    std::fs::write(&spec.path, module).expect("written");
    for grants in [Vec::new(), vec!["payload".to_owned()]] {
        spec.grants = grants;
        let error = rig.host.prepare(std::slice::from_ref(&spec)).err().expect("refused");
        let text = error.to_string();
        assert!(text.starts_with("plugin `looking`: the layout is not valid: "), "{text}");
        assert!(text.contains("write `payload = { from = \"l4\", bytes = 64 }`"), "{text}");
    }
}

#[test]
fn a_guest_that_does_without_payload_is_shown_it_if_the_operator_grants_it() {
    let drop = Verdict::Drop(frame::DropReason::Plugin);
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("looking", &Wat::default());
    let module = looking("{ from = \"l3\", bytes = 2, optional = true }");
    std::fs::write(&spec.path, module).expect("written");
    let content: [&[u8]; 2] = [&[0, 1], &[0, 2]];
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.turn(0, &mut packets(&content), Nanos(1)), [drop, drop], "it sees nothing");
    // The same module under another entry, and back.
    spec.grants = vec!["payload".to_owned()];
    rig.publish(std::slice::from_ref(&spec));
    let seen = [drop, Verdict::Continue];
    assert_eq!(rig.turn(0, &mut packets(&content), Nanos(2)), seen);
    spec.grants.clear();
    rig.publish(&[spec]);
    assert_eq!(rig.turn(0, &mut packets(&content), Nanos(3)), [drop, drop]);
}

#[test]
fn a_guest_is_shown_the_bytes_that_it_asked_for() {
    let drop = Verdict::Drop(frame::DropReason::Plugin);
    for (window, expected) in [
        ("{ from = \"l3\", bytes = 2 }", [drop, Verdict::Continue, drop]),
        ("{ from = \"l4\", bytes = 16 }", [Verdict::Continue, drop, drop]),
        ("{ from = \"l4\", bytes = 1 }", [drop, drop, drop]),
    ] {
        let mut rig = Rig::new(1);
        let mut spec = rig.spec("looking", &Wat::default());
        std::fs::write(&spec.path, looking(window)).expect("written");
        let refused = rig.host.prepare(std::slice::from_ref(&spec)).err().expect("refused");
        assert!(matches!(refused.fault(), Some(PluginFault::PayloadUngranted)));
        spec.grants = vec!["payload".to_owned()];
        rig.publish(&[spec]);
        let mut batch = packets(&[&[0, 1, 0, 2], &[0, 2, 0, 1, 9], &[1]]);
        assert_eq!(rig.turn(0, &mut batch, Nanos(1)), expected, "{window}");
        // Packets that are decided leave no gap: each sees its own bytes.
        batch.verdicts[0] = Verdict::Punt;
        use frame::{Hook as _, HookPoint};
        batch.verdicts[1..3].fill(Verdict::Continue);
        rig.chains[0].run(HookPoint::Ingress, &mut batch, Nanos(1));
        assert_eq!(batch.verdicts[..3], [Verdict::Punt, expected[1], expected[2]], "{window}");
    }
}
