//! Tables: look-ups by guests, files that change, and what is refused.

mod common;

use std::path::{Path, PathBuf};

use common::{COUNTERS, Rig, Wat, batch, numbered};
use frame::{Descriptor, DropReason, Nanos, Verdict};
use policy::{PluginFault, PluginSpec};

const PLUGIN: Verdict = Verdict::Drop(DropReason::Plugin);

/// Opens the table `deny`, notes the number of the word `bad` and drops packets whose source has it.
fn denying() -> Wat {
    let mut wat = Wat::default();
    wat.manifest.push_str("imports = [\"table\"]\ntables = [\"deny\", \"other\"]\n");
    wat.imports = "(import \"sluice\" \"table_open\" (func $open (param i32 i32) (result i32)))
        (import \"sluice\" \"table_word\" (func $word (param i32 i32 i32) (result i32)))
        (import \"sluice\" \"table_batch\" (func $batch (param i32 i32 i32 i32 i32)))
        (data (i32.const 60000) \"denybadgone\") (global $bad (mut i32) (i32.const 0))"
        .to_owned();
    wat.memory = "(memory (export \"memory\") 2)".to_owned();
    wat.configure = "(if (call $open (i32.const 60000) (i32.const 4)) (then unreachable))
        (if (i32.ne (call $open (i32.const 60000) (i32.const 3)) (i32.const -2)) (then unreachable))
        (if (call $word (i32.const 0) (i32.const 60007) (i32.const 4)) (then unreachable))
        (global.set $bad (call $word (i32.const 0) (i32.const 60004) (i32.const 3)))
        (i32.const 0)"
        .to_owned();
    wat.process = format!(
        "(local $i i32) (local $at i32)
         (call $batch (i32.const 0) (i32.const 1024) (i32.const 64) (local.get $n)
           (i32.const 66000))
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (if (i32.eq (global.get $bad) (i32.load (i32.add (i32.const 66000)
               (i32.shl (local.get $i) (i32.const 2))))) (then
             (i64.store (i32.add (i32.const {verdicts}) (i32.shl (local.get $i) (i32.const 3)))
               (i64.const 1))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))",
        verdicts = common::VERDICTS,
    );
    wat
}

fn from(address: &str) -> Descriptor {
    let address: std::net::IpAddr = address.parse().expect("an address");
    let source = match address {
        std::net::IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        std::net::IpAddr::V6(address) => address.octets(),
    };
    Descriptor { source, ..Descriptor::default() }
}

struct Files {
    deny: PathBuf,
    other: PathBuf,
}

fn files(rig: &Rig, deny: &str) -> Files {
    let file = |name: &str| rig.directory.path().join(name);
    let files = Files { deny: file("deny.txt"), other: file("other.txt") };
    std::fs::write(&files.deny, deny).expect("written");
    std::fs::write(&files.other, "").expect("written");
    files
}

fn spec(rig: &Rig, files: &Files) -> PluginSpec {
    let mut spec = rig.spec("denying", &denying());
    spec.grants = vec!["table".to_owned()];
    spec.tables =
        [("deny".to_owned(), files.deny.clone()), ("other".to_owned(), files.other.clone())].into();
    spec
}

const PACKETS: [&str; 4] = ["10.1.2.3", "10.9.9.9", "2001:db8::5", "192.0.2.1"];

fn verdicts(rig: &mut Rig, worker: usize) -> Vec<Verdict> {
    let packets: Vec<_> = PACKETS.iter().map(|address| from(address)).collect();
    rig.turn(worker, &mut batch(&packets), Nanos(1))
}

/// Replaces a file, as editors and operators do it.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("written");
    std::fs::rename(&new, path).expect("renamed");
}

#[test]
fn a_table_is_read_by_all_workers_and_swapped_when_its_file_changes() {
    let mut rig = Rig::new(2);
    let files = files(&rig, "10.0.0.0/8 bad\n10.9.0.0/16 good\n2001:db8::/32 bad\n");
    let spec = spec(&rig, &files);
    rig.publish(&[spec]);
    let before = [PLUGIN, Verdict::Continue, PLUGIN, Verdict::Continue];
    for worker in 0..2 {
        assert_eq!(verdicts(&mut rig, worker), before);
    }
    assert!(rig.host.poll_files().is_empty());
    let tables = rig.host.status().remove(0).tables;
    assert_eq!((tables[0].name.as_str(), tables[0].entries, tables[1].entries), ("deny", 3, 0));
    assert!(tables[0].bytes < 1000);

    // `good` comes first now; `bad` keeps its number all the same.
    replace(&files.deny, "10.1.0.0/16 good\n10.0.0.0/8 bad\n192.0.2.1 bad\n");
    assert!(rig.host.poll_files().is_empty(), "tables are not reloads");
    {
        use frame::{Hook as _, HookPoint};
        let mut packets = batch(&[from("192.0.2.1")]);
        rig.chains[0].run(HookPoint::Ingress, &mut packets, Nanos(1));
        assert_eq!(packets.verdicts[0], Verdict::Continue, "within a turn nothing changes");
    }
    let after = [Verdict::Continue, PLUGIN, Verdict::Continue, PLUGIN];
    for worker in 0..2 {
        assert_eq!(verdicts(&mut rig, worker), after);
    }
    rig.host.maintain();
    let status = rig.host.status().remove(0);
    assert_eq!((status.generation, status.total.traps), (1, 0), "the instances are the same");

    // With a fault it is refused as a whole, once, and what was there goes on.
    replace(&files.deny, "10.0.0.0/8 bad\n10.0.0.0/64 bad\n");
    let reports = rig.host.poll_files();
    let error = reports[0].as_ref().expect_err("refused").to_string();
    assert!(error.contains("deny.txt:2: `10.0.0.0/64`: the length is not from 0 to 32"), "{error}");
    assert!(rig.host.poll_files().is_empty());
    assert_eq!(verdicts(&mut rig, 0), after);
    std::fs::remove_file(&files.deny).expect("removed");
    assert_eq!(rig.host.poll_files().len(), 1);
    assert_eq!(verdicts(&mut rig, 1), after);

    // A reload reads the files, and starts the words anew no more than a changed file does.
    replace(&files.deny, "10.0.0.0/8 worse\n2001:db8::/32 bad\n");
    rig.host.reload("denying").expect("it reloads");
    let last = [Verdict::Continue, Verdict::Continue, PLUGIN, Verdict::Continue];
    assert_eq!(verdicts(&mut rig, 0), last);
    assert!(rig.host.poll_files().is_empty());
}

#[test]
fn a_spare_has_the_tables_of_the_moment() {
    let mut rig = Rig::new(1);
    let files = files(&rig, "10.0.0.0/8 bad\n");
    let mut wat = denying();
    wat.process.insert_str(
        wat.process.find("(call $batch").expect("the call"),
        "(if (i32.eq (local.get $n) (i32.const 13)) (then unreachable)) ",
    );
    let spec = PluginSpec { path: rig.spec("denying", &wat).path, ..spec(&rig, &files) };
    wat.write(&spec.path);
    rig.publish(&[spec]);
    replace(&files.deny, "192.0.2.1 bad\n");
    assert!(rig.host.poll_files().is_empty());
    rig.turn(0, &mut batch(&numbered(13)), Nanos(1));
    assert_eq!(rig.host.status()[0].total.traps, 1);
    let expected = [Verdict::Continue, Verdict::Continue, Verdict::Continue, PLUGIN];
    assert_eq!(verdicts(&mut rig, 0), expected);
}

#[test]
fn every_table_of_the_manifest_needs_a_file_that_is_sound() {
    let mut rig = Rig::new(1);
    let files = files(&rig, "10.0.0.0/8 bad\n");
    let good = spec(&rig, &files);
    let refused = |rig: &mut Rig, spec: &PluginSpec| {
        rig.host.prepare(std::slice::from_ref(spec)).err().expect("refused")
    };
    let mut bad = good.clone();
    bad.tables.remove("other");
    let error = refused(&mut rig, &bad);
    assert!(matches!(error.fault(), Some(PluginFault::TableMissing(name)) if name == "other"));
    let mut bad = good.clone();
    bad.tables.insert("third".to_owned(), files.other.clone());
    let error = refused(&mut rig, &bad);
    assert!(matches!(error.fault(), Some(PluginFault::TableUnknown(name)) if name == "third"));
    let mut bad = good.clone();
    bad.tables.insert("other".to_owned(), rig.directory.path().join("absent"));
    assert!(matches!(refused(&mut rig, &bad).fault(), Some(PluginFault::Read { .. })));
    std::fs::write(&files.other, b"::1\n::2 \xff\n").expect("written");
    let error = refused(&mut rig, &good).to_string();
    assert!(error.contains("other.txt:2: it is no UTF-8"), "{error}");
}

/// Whether one call, with a table opened as handle 0, makes it trap; and its first counter.
fn outcome(call: &str) -> (bool, u64) {
    let mut rig = Rig::new(1);
    let files = files(&rig, "::/0 7\n");
    let mut wat = denying();
    wat.configure = "(call $open (i32.const 60000) (i32.const 4))".to_owned();
    wat.process = format!("(if (i32.eq (local.get $n) (i32.const 1)) (then {call}))");
    let mut spec = spec(&rig, &files);
    wat.write(&spec.path);
    spec.name = "caller".to_owned();
    rig.publish(&[spec]);
    rig.turn(0, &mut batch(&numbered(1)), Nanos(1));
    rig.begin(Nanos(1_000_000_000));
    let total = rig.host.status().remove(0).total;
    (total.traps == 1, total.counters["one"])
}

#[test]
fn what_is_out_of_range_is_a_trap_and_what_is_not_is_done() {
    let lookup = |arguments: [i64; 5]| {
        let arguments = arguments.map(|value| format!("(i32.const {value})")).join(" ");
        outcome(&format!("(call $batch {arguments})"))
    };
    let to = i64::from(COUNTERS);
    let end = 131_072;
    for bad in [
        [1, 0, 16, 1, to],
        [2, 0, 16, 1, to],
        [-1, 0, 16, 1, to],
        [33, 0, 16, 1, to],
        [0, 0, 15, 1, to],
        [0, 0, 18, 1, to],
        [0, 0, 4100, 1, to],
        [0, 0, -16, 1, to],
        [0, 0, 16, 257, to],
        [0, 0, 16, -1, to],
        [0, end - 15, 16, 1, to],
        [0, end - 16 - 64 + 1, 64, 2, to],
        [0, -16, 16, 1, to],
        [0, 0, 16, 1, end - 3],
        [0, 0, 16, 1, -4],
    ] {
        assert_eq!(lookup(bad), (true, 0), "{bad:?}");
    }
    for good in [
        [0, 0, 16, 1, to],
        [0, end - 16, 16, 1, to],
        [0, end - 16 - 64, 64, 2, to - 4],
        [0, end - 16 - 4096, 4096, 2, to - 4],
    ] {
        assert_eq!(lookup(good), (false, 7), "{good:?}");
    }
    assert_eq!(lookup([0, end, 16, 0, end]), (false, 0), "nothing is asked");
    for call in [
        "(drop (call $open (i32.const 131070) (i32.const 4)))",
        "(drop (call $open (i32.const 0) (i32.const -1)))",
        "(drop (call $word (i32.const 1) (i32.const 0) (i32.const 1)))",
        "(drop (call $word (i32.const 0) (i32.const 131072) (i32.const 1)))",
    ] {
        assert_eq!(outcome(call), (true, 0), "{call}");
    }
    let late = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.extend_i32_u (i32.eq (i32.const -1)
           (call $open (i32.const 60000) (i32.const 4)))))"
    );
    assert_eq!(outcome(&late), (false, 1), "tables are opened while configuring only");
    let long = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.extend_i32_u (i32.eqz
           (call $word (i32.const 0) (i32.const 0) (i32.const 131072)))))"
    );
    assert_eq!(outcome(&long), (false, 1), "nothing so long is a word");
}
