//! Going back to the generation before, and leaving judgement to it.

mod common;

use common::{Rig, Wat, batch, every, numbered, word};
use frame::{DropReason, Nanos, Verdict};
use policy::{OnTrap, PluginState, PolicyError};

const NOW: Nanos = Nanos(1_000_000_000);
const DROPPED: Verdict = Verdict::Drop(DropReason::Plugin);

fn drops(reason: u32) -> Wat {
    Wat { process: every(word(1, reason)), ..Wat::default() }
}

/// Traps at a packet with the source port `port`, and lets all others go on.
fn traps_at(port: u16) -> Wat {
    let process = format!(
        "(local $i i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (if (i32.eq (i32.const {port})
                 (i32.load16_u offset=32 (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 64)))))
             (then (call $gives_up)))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    );
    let more = "(func $gives_up unreachable)".to_owned();
    Wat { process, more, ..Wat::default() }
}

fn reasons(rig: &Rig) -> Vec<(String, u64)> {
    rig.host.status()[0].total.drops_by_reason.clone().into_iter().collect()
}

#[test]
fn a_rollback_brings_the_generation_before_back_and_stays_until_the_file_changes_again() {
    let mut rig = Rig::new(2);
    let spec = rig.spec("p", &drops(0));
    rig.publish(std::slice::from_ref(&spec));
    assert!(matches!(rig.host.rollback("p"), Err(PolicyError::NoGenerationBefore(_))));
    assert!(matches!(rig.host.rollback("q"), Err(PolicyError::Unknown(_))));
    drops(1).write(&spec.path);
    rig.host.reload("p").expect("a good module");
    let report = rig.host.rollback("p").expect("there is one before");
    assert_eq!((report.generation, report.restores, report.compile_us), (3, Some(1), 0));
    for worker in 0..2 {
        assert_eq!(rig.turn(worker, &mut batch(&numbered(1)), NOW), [DROPPED]);
    }
    assert_eq!(
        reasons(&rig),
        [("default".to_owned(), 0), ("first".to_owned(), 2), ("second".to_owned(), 0)]
    );
    let status = rig.host.status().remove(0);
    assert!(status.is_held);
    assert_eq!(status.before.as_ref().map(|before| before.generation), Some(2));

    // Neither a look at the files, nor one after they were touched, nor a reload of the configuration
    // that says the same of it undoes that.
    assert!(rig.host.poll_files().is_empty());
    drops(1).write(&spec.path);
    assert!(rig.host.poll_files().is_empty(), "touched, and the same");
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.host.status()[0].generation, 3);

    // A file that changes does.
    Wat::default().write(&spec.path);
    let polled = rig.host.poll_files();
    assert_eq!(polled[0].as_ref().expect("a good module").generation, 4);
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Continue]);
    assert!(!rig.host.status()[0].is_held);

    // And so does somebody who asks for it; a second rollback undoes the first.
    rig.host.rollback("p").expect("there is one before");
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [DROPPED]);
    let report = rig.host.rollback("p").expect("there is one before");
    assert_eq!(report.restores, Some(4));
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Continue]);
    rig.host.rollback("p").expect("there is one before");
    assert_eq!(rig.host.reload("p").expect("a good module").generation, 8);
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Continue]);
}

#[test]
fn a_generation_that_was_disabled_is_not_what_comes_back() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("p", &drops(0));
    spec.traps_max = 1;
    rig.publish(std::slice::from_ref(&spec));
    traps_at(0).write(&spec.path);
    rig.host.reload("p").expect("it only traps at a packet");
    rig.turn(0, &mut batch(&numbered(1)), NOW);
    rig.host.maintain();
    assert_eq!(rig.host.status()[0].state, PluginState::Disabled);
    Wat::default().write(&spec.path);
    rig.host.reload("p").expect("a good module");
    let report = rig.host.rollback("p").expect("there is one before");
    assert_eq!(report.restores, Some(1), "and not the one that was disabled");
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [DROPPED]);
}

#[test]
fn the_generation_before_judges_the_batch_that_trapped_and_all_until_the_plugin_can_again() {
    let mut rig = Rig::new(2);
    let mut spec = rig.spec("p", &drops(1));
    spec.on_trap = Some(OnTrap::LastGood);
    spec.traps_max = 2;
    rig.publish(std::slice::from_ref(&spec));
    traps_at(0).write(&spec.path);
    rig.host.reload("p").expect("it only traps at a packet");
    rig.begin(NOW);
    let before = rig.host.status()[0].before.clone().expect("a generation before");
    assert!(before.stands_by);

    // The first batch traps, and so does the second, of the spare; the third meets no instance.
    for _ in 0..3 {
        assert_eq!(rig.turn(0, &mut batch(&numbered(3)), NOW), [DROPPED; 3]);
    }
    let harmless = &numbered(4)[1..];
    assert_eq!(rig.turn(1, &mut batch(harmless), NOW), [Verdict::Continue; 3]);
    let total = rig.host.status()[0].total.clone();
    assert_eq!((total.packets, total.stood_in, total.unjudged, total.traps), (12, 9, 0, 2));
    assert_eq!(total.drops_by_reason["second"], 9);

    // Disabled, the generation before judges on every worker.
    rig.host.maintain();
    assert_eq!(rig.host.status()[0].state, PluginState::Disabled);
    assert_eq!(rig.turn(1, &mut batch(harmless), NOW), [DROPPED; 3]);

    // The counts outlive the generations.
    Wat::default().write(&spec.path);
    rig.host.reload("p").expect("a good module");
    rig.begin(NOW);
    rig.host.maintain();
    let total = rig.host.status()[0].total.clone();
    assert_eq!((total.packets, total.stood_in), (15, 12));
    assert_eq!(total.drops_by_reason["second"], 12);
}

#[test]
fn without_a_generation_before_or_when_it_traps_too_packets_go_on() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("p", &traps_at(0));
    spec.on_trap = Some(OnTrap::LastGood);
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.turn(0, &mut batch(&numbered(2)), NOW), [Verdict::Continue; 2]);
    assert_eq!(rig.host.status()[0].total.unjudged, 2);
    // Another that traps at the same packet.
    let mut other = traps_at(0);
    other.more.push_str("(func)");
    other.write(&spec.path);
    rig.host.reload("p").expect("it only traps at a packet");
    assert_eq!(rig.turn(0, &mut batch(&numbered(2)), NOW), [Verdict::Continue; 2]);
    let total = rig.host.status()[0].total.clone();
    assert_eq!((total.traps, total.stood_in, total.unjudged), (3, 0, 4));
    rig.host.maintain();
}

#[test]
fn a_manifest_may_ask_for_the_generation_before() {
    let mut rig = Rig::new(1);
    let mut asks = drops(0);
    asks.manifest += "on_trap = \"last-good\"\n";
    let spec = rig.spec("p", &asks);
    rig.publish(&[spec]);
    assert!(rig.host.status()[0].before.is_none());
}

mod saved {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::{Path, PathBuf};

    use policy::{HostOptions, Names, SavedBatch, replay};

    use super::*;

    fn rig_that_saves(directory: &Path) -> Rig {
        let mut options = HostOptions::new(1);
        options.traps_dir = Some(directory.to_owned());
        Rig::with(options)
    }

    fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == end));
        paths.sort();
        paths
    }

    fn read(path: &Path) -> (SavedBatch, Vec<u8>) {
        let saved = SavedBatch::parse(&fs::read_to_string(path).expect("a file")).expect("sound");
        let module = path.with_file_name(format!("{}.wasm", saved.sha256));
        (saved, fs::read(module).expect("the module beside it"))
    }

    #[test]
    fn a_batch_that_trapped_is_saved_and_traps_again_natively() {
        let home = tempfile::tempdir().expect("a directory");
        let traps = home.path().join("traps");
        let mut rig = rig_that_saves(&traps);
        let spec = rig.spec("p", &traps_at(7));
        rig.publish(&[spec]);
        let packets = numbered(20);
        rig.turn(0, &mut batch(&packets), NOW);
        rig.host.maintain();
        let [path] = &files(&traps, "json")[..] else { panic!("one file") };
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode();
        assert_eq!((mode(&traps) & 0o777, mode(path) & 0o777), (0o700, 0o600));
        let (saved, module) = read(path);
        assert_eq!((saved.now_ns, saved.worker, saved.packets.len()), (NOW.0, 0, 20));
        let found: Vec<_> =
            saved.packets.iter().map(|packet| packet.descriptor().expect("sound")).collect();
        assert_eq!(found, packets);
        let replayed = replay(&saved, &module).expect("a sound file");
        let trapped = replayed.trapped.expect("it traps again");
        assert_eq!(trapped.reason, saved.reason);
        assert_eq!(trapped.functions, ["gives_up", "process"], "the module has names");
        assert_eq!(replayed.alone, [7]);

        // A module that has the fault no longer is another module.
        assert!(replay(&saved, &traps_at(8).bytes()).is_err());
    }

    #[test]
    fn functions_of_rust_are_named_as_their_source_does_without_those_of_the_panic() {
        let home = tempfile::tempdir().expect("a directory");
        let traps = home.path().join("traps");
        let mut rig = rig_that_saves(&traps);
        // From the outermost to the innermost.
        let names = [
            "_ZN6plugin4Rule5judge17h0123456789abcdefE",
            "_RNvNtCsgXGp5Oqx2Ny_4core6option13unwrap_failed",
            "_RNvNtCsgXGp5Oqx2Ny_4core9panicking9panic_fmt",
            "_RNvCsfLfy6EI15iL_7___rustc17rust_begin_unwind",
            "_RINvNtNtCsebHcaeoSrxy_3std3sys9backtrace26___rust_end_short_backtraceuE",
            "_RNvCsfLfy6EI15iL_7___rustc12___rust_abort",
        ];
        let process = format!("(if (local.get $n) (then (call ${})))", names[0]);
        let mut more = format!("(func ${} unreachable)", names[5]);
        for pair in names.windows(2) {
            more += &format!("(func ${} (call ${}))", pair[0], pair[1]);
        }
        let spec = rig.spec("p", &Wat { process, more, ..Wat::default() });
        rig.publish(&[spec]);
        rig.turn(0, &mut batch(&numbered(1)), NOW);
        rig.host.maintain();
        let (saved, module) = read(&files(&traps, "json")[0]);
        let trapped = replay(&saved, &module).expect("a sound file").trapped.expect("it traps");
        assert_eq!(trapped.functions, ["plugin::Rule::judge", "process"]);
    }

    #[test]
    fn a_trap_that_takes_more_than_the_batch_is_not_reproduced() {
        let home = tempfile::tempdir().expect("a directory");
        let traps = home.path().join("traps");
        let mut rig = rig_that_saves(&traps);
        let process = "(if (i32.eqz (local.get $n)) (then (return)))
             (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
             (if (i32.eq (global.get $calls) (i32.const 3)) (then unreachable))";
        let more = "(global $calls (mut i32) (i32.const 0))".to_owned();
        let spec = rig.spec("p", &Wat { process: process.to_owned(), more, ..Wat::default() });
        rig.publish(&[spec]);
        for _ in 0..3 {
            rig.turn(0, &mut batch(&numbered(1)), NOW);
        }
        rig.host.maintain();
        let (saved, module) = read(&files(&traps, "json")[0]);
        let replayed = replay(&saved, &module).expect("a sound file");
        assert_eq!((replayed.trapped, replayed.alone), (None, Vec::new()));
    }

    /// A plugin that is only configured where its next hop has its number.
    #[test]
    fn the_names_that_an_instance_knew_are_saved_and_files_without_are_read() {
        let home = tempfile::tempdir().expect("a directory");
        let traps = home.path().join("traps");
        let mut rig = rig_that_saves(&traps);
        let mut wat = traps_at(7);
        wat.manifest += "imports = [\"names\"]\n";
        wat.imports = "(import \"sluice\" \"name_number\"
             (func $name_number (param i32 i32 i32) (result i32)))"
            .into();
        wat.memory += "(data (i32.const 512) \"via\")";
        wat.configure = "(if (i32.ne (i32.const 5)
               (call $name_number (i32.const 0) (i32.const 512) (i32.const 3))) (then unreachable))
             i32.const 0"
            .into();
        let mut spec = rig.spec("p", &wat);
        spec.grants = vec!["names".into()];
        spec.names = std::sync::Arc::new(Names {
            next_hops: [("via".to_owned(), 5)].into(),
            ..Names::default()
        });
        rig.publish(std::slice::from_ref(&spec));
        rig.turn(0, &mut batch(&numbered(20)), NOW);
        rig.host.maintain();
        let path = &files(&traps, "json")[0];
        let (saved, module) = read(path);
        assert_eq!(saved.names, *spec.names);
        let replayed = replay(&saved, &module).expect("it is configured as it was");
        assert_eq!(replayed.alone, [7]);

        // As an earlier host wrote it.
        let text = fs::read_to_string(path).expect("a file");
        let mut old: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let fields = old.as_object_mut().expect("an object");
        assert!(fields.remove("names").is_some());
        let old = SavedBatch::parse(&old.to_string()).expect("it is still read");
        assert_eq!(old.names, Names::default());
        let error = replay(&old, &module).expect_err("it misses what it needs").to_string();
        assert!(error.contains("sluice_configure failed"), "{error}");
    }

    #[test]
    fn files_are_bounded_and_an_odd_directory_is_left_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let traps = home.path().join("traps");
        let mut rig = rig_that_saves(&traps);
        let mut spec = rig.spec("p", &traps_at(0));
        spec.traps_max = 1000;
        rig.publish(std::slice::from_ref(&spec));
        for generation in 0..12 {
            // Each with a hash of its own, and with more traps than are saved.
            let mut wat = traps_at(0);
            wat.more =
                format!("(func $gives_up unreachable) (global i32 (i32.const {generation}))");
            wat.write(&spec.path);
            rig.host.reload("p").expect("it only traps at a packet");
            for _ in 0..2 {
                rig.turn(0, &mut batch(&numbered(1)), NOW);
                rig.host.maintain();
            }
            for _ in 0..4 {
                rig.host.reload("p").expect("it only traps at a packet");
                rig.turn(0, &mut batch(&numbered(1)), NOW);
                rig.host.maintain();
            }
        }
        assert_eq!(files(&traps, "json").len(), 32);
        let modules = files(&traps, "wasm").len();
        assert!((6..=8).contains(&modules), "only modules that are named: {modules}");

        let odd = home.path().join("odd");
        fs::create_dir(&odd).expect("a directory");
        fs::set_permissions(&odd, fs::Permissions::from_mode(0o755)).expect("its mode");
        let mut rig = rig_that_saves(&odd);
        let spec = rig.spec("p", &traps_at(0));
        rig.publish(&[spec]);
        rig.turn(0, &mut batch(&numbered(1)), NOW);
        rig.host.maintain();
        assert_eq!(files(&odd, "json"), [] as [PathBuf; 0]);
        assert_eq!(rig.host.status()[0].total.traps, 1);
    }

    #[test]
    fn a_broken_file_says_what_is_broken() {
        for (text, expected) in
            [("", "EOF"), ("{\"format\": 1}", "missing field"), ("nonsense", "expected")]
        {
            let error = SavedBatch::parse(text).expect_err("it is broken");
            assert!(error.contains(expected), "{error}");
        }
    }
}
