//! Modules that break the contract: each is refused, for its own reason, in words that name it.

mod common;

use std::time::Instant;

use common::{CONFIG, ERROR, Rig, Wat};
use frame::HookPoint;
use nix::sys::stat::Mode;
use policy::{LayoutFault, PluginConfig, PluginFault, PluginSpec, PolicyError};

/// Why the host refuses a module; `change` may alter what the operator says of it.
fn refusal(wat: &Wat, change: impl Fn(&mut PluginSpec)) -> String {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("bad", wat);
    change(&mut spec);
    let started = Instant::now();
    let error = rig.host.prepare(&[spec]).err().expect("it must be refused");
    assert!(started.elapsed().as_secs() < 20, "refused too late");
    let text = error.to_string();
    assert!(text.starts_with("plugin `bad`: "), "{text}");
    assert!(error.fault().is_some());
    text
}

#[track_caller]
fn refused(wat: &Wat, expected: &str) {
    let text = refusal(wat, |_| {});
    assert!(text.contains(expected), "expected `{expected}`, got: {text}");
}

fn changed(change: impl Fn(&mut Wat)) -> Wat {
    let mut wat = Wat::default();
    change(&mut wat);
    wat
}

#[test]
fn the_module_that_the_others_change_is_accepted() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("good", &Wat::default());
    rig.host.prepare(&[spec]).expect("it is good");
}

#[test]
fn files_that_are_no_modules() {
    let mut rig = Rig::new(1);
    let path = rig.directory.path().join("bad.wasm");
    let spec = PluginSpec::new("bad", &path, HookPoint::Ingress);
    let refused = |rig: &mut Rig, expected: &str| {
        let text =
            rig.host.prepare(std::slice::from_ref(&spec)).err().expect("refused").to_string();
        assert!(text.contains(expected), "expected `{expected}`, got: {text}");
    };
    refused(&mut rig, "No such file");
    refused(&mut rig, path.to_str().expect("a path"));
    for bytes in [&b""[..], b"\0as", b"not a module at all", b"\0asm\x0d\0\x01\0"] {
        std::fs::write(&path, bytes).expect("written");
        refused(&mut rig, "no WebAssembly module");
    }
    let whole = Wat::default().bytes();
    // The names at the end are no part of the module proper: without them it is whole.
    let names = whole.windows(5).position(|bytes| bytes == b"\x04name").expect("names") - 2;
    for len in 8..names {
        std::fs::write(&path, &whole[..len]).expect("written");
        let error = rig.host.prepare(std::slice::from_ref(&spec)).err();
        assert!(error.is_some(), "cut to {len} bytes of {} it was accepted", whole.len());
    }
    std::fs::write(&path, vec![0; (8 << 20) + 1]).expect("written");
    refused(&mut rig, "larger than 8388608 bytes");
    std::fs::write(&path, wat::parse_str("(module)").expect("text")).expect("written");
    refused(&mut rig, "no custom section `sluice.manifest`");
    let twice = "(module (@custom \"sluice.manifest\" \"a\") (@custom \"sluice.manifest\" \"b\"))";
    std::fs::write(&path, wat::parse_str(twice).expect("text")).expect("written");
    refused(&mut rig, "more than one custom section");
}

#[test]
fn a_pipe_in_the_place_of_a_file_holds_nobody_up() {
    let mut rig = Rig::new(1);
    let path = rig.directory.path().join("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).expect("a pipe");
    let mut as_module = rig.spec("bad", &Wat::default());
    let (mut as_config, mut as_table) = (as_module.clone(), as_module.clone());
    as_module.path.clone_from(&path);
    as_config.config = PluginConfig::File(path.clone());
    let declares = changed(|wat| wat.manifest.push_str("tables = [\"t\"]\n"));
    as_table.path = rig.spec("declares", &declares).path;
    as_table.tables = [("t".to_owned(), path.clone())].into();
    for spec in [as_module, as_config, as_table] {
        let text = rig.host.prepare(&[spec]).err().expect("refused").to_string();
        assert!(text.ends_with("pipe is no regular file"), "{text}");
    }
}

#[test]
fn a_pin_is_checked_before_anything_is_compiled() {
    let broken = changed(|wat| wat.process = "i32.const 1".to_owned());
    // The text tool does not validate, so this compiles to a module that does not.
    assert!(refusal(&broken, |_| {}).contains("does not compile"));
    let text = refusal(&broken, |spec| spec.sha256 = Some([7; 32]));
    assert!(text.contains("the configuration pins 0707070707"), "{text}");
}

#[test]
fn manifests_and_versions() {
    refused(&changed(|wat| wat.manifest = wat.manifest.replace("1.0", "2.0")), "ABI 2.0");
    refused(
        &changed(|wat| wat.version = "i32.const 0x20000".into()),
        "ABI 2.0, this host speaks 1.0",
    );
    refused(&changed(|wat| wat.version = "i32.const 0x10001".into()), "ABI 1.1");
    refused(&changed(|wat| wat.manifest.push_str("colour = 1\n")), "colour");
    let text = refusal(&Wat::default(), |spec| spec.hook = HookPoint::Egress);
    assert!(text.contains("not made for the hook `egress`"), "{text}");
    let text = refusal(&Wat::default(), |spec| spec.memory_max_bytes = Some(65_536));
    assert!(text.contains("asks for 1048576 bytes of memory, the limit is 65536"), "{text}");
    let text = refusal(&Wat::default(), |spec| spec.grants = vec!["files".to_owned()]);
    assert!(text.contains("`files` is nothing that can be granted"), "{text}");
}

#[test]
fn exports_that_are_missing_or_of_another_type() {
    for name in
        ["memory", "sluice_abi_version", "sluice_layout", "sluice_configure", "sluice_process"]
    {
        let mut rig = Rig::new(1);
        let path = rig.directory.path().join("bad.wasm");
        let text = Wat::default().text();
        for (broken, expected) in [
            (text.replace(&format!("\"{name}\""), "\"other\""), "does not export"),
            (
                text.replace(&format!("(export \"{name}\")"), "(export \"other\")").replace(
                    "(module",
                    &format!("(module (global (export \"{name}\") i32 (i32.const 0))"),
                ),
                "is not a",
            ),
        ] {
            std::fs::write(&path, wat::parse_str(&broken).expect("text")).expect("written");
            let spec = PluginSpec::new("bad", &path, HookPoint::Ingress);
            let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
            assert!(error.contains(expected) && error.contains(name), "{name}: {error}");
        }
    }
    let text = Wat::default().text().replace("(param $n i32) (param $now i64)", "(param i32 i32)");
    let mut rig = Rig::new(1);
    let path = rig.directory.path().join("bad.wasm");
    std::fs::write(&path, wat::parse_str(&text).expect("text")).expect("written");
    let spec = PluginSpec::new("bad", &path, HookPoint::Ingress);
    let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
    assert!(error.contains("`sluice_process` is not a function (i32, i64) -> ()"), "{error}");
}

#[test]
fn imports_must_be_offered_declared_and_granted() {
    let log = "(import \"sluice\" \"log\" (func (param i32 i32 i32)))";
    let declared = "imports = [\"log\"]\n";
    refused(
        &changed(|wat| wat.imports = "(import \"wasi\" \"exit\" (func))".into()),
        "imports `wasi.exit`; the host offers functions of `sluice` only",
    );
    refused(
        &changed(|wat| wat.imports = "(import \"sluice\" \"reboot\" (func))".into()),
        "imports `sluice.reboot`, which the host does not offer",
    );
    refused(
        &changed(|wat| wat.imports = log.into()),
        "imports `sluice.log`, but its manifest does not declare the capability `log`",
    );
    let asks = changed(|wat| {
        wat.imports = log.into();
        wat.manifest.push_str(declared);
    });
    refused(&asks, "imports `sluice.log`, but the configuration does not grant it");
    let wrong = changed(|wat| {
        wat.imports = "(import \"sluice\" \"log\" (func (param i64)))".into();
        wat.manifest.push_str(declared);
    });
    let granted = |spec: &mut PluginSpec| spec.grants = vec!["log".to_owned()];
    let text = refusal(&wrong, granted);
    assert!(text.contains("does not have the type that the host offers"), "{text}");
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("good", &asks);
    granted(&mut spec);
    rig.host.prepare(&[spec]).expect("declared and granted");
}

#[test]
fn code_that_never_ends_or_recurses_for_ever() {
    let forever = "(loop $l (br $l))";
    let start = |body: &str| format!("(func $s {body}) (start $s)");
    refused(
        &changed(|wat| wat.more = start(forever)),
        "the start function failed: it ran longer than its budget",
    );
    refused(
        &changed(|wat| wat.more = start("(call $s)")),
        "the start function failed: it used up its stack",
    );
    refused(
        &changed(|wat| wat.more = start("unreachable")),
        "the start function failed: it gave up",
    );
    refused(
        &changed(|wat| wat.version = format!("{forever} unreachable")),
        "sluice_abi_version failed: it ran longer than its budget",
    );
    refused(
        &changed(|wat| wat.layout_address = format!("{forever} unreachable")),
        "sluice_layout failed: it ran longer than its budget",
    );
    refused(
        &changed(|wat| wat.configure = format!("{forever} unreachable")),
        "sluice_configure failed: it ran longer than its budget",
    );
    refused(
        &changed(|wat| wat.process = forever.into()),
        "sluice_process failed: it ran longer than its budget",
    );
    refused(
        &changed(|wat| wat.process = "(call $process (local.get 0) (local.get 1))".into()),
        "sluice_process failed: it used up its stack",
    );
}

#[test]
fn layouts_that_lie() {
    let layout = |field: usize, value: u32| changed(|wat| wat.layout[field] = value);
    refused(
        &changed(|wat| wat.layout_address = "i32.const -1".into()),
        "outside the memory of 65536",
    );
    refused(&changed(|wat| wat.layout_address = "i32.const 65489".into()), "it lies at 65489");
    refused(&layout(0, 47), "47 bytes long");
    refused(&layout(1, 255), "batch_max is 255");
    refused(&layout(2, 65_536 - 64), "the descriptors take 16384 bytes from 65472");
    refused(&layout(2, 0xffff_fff8), "the descriptors take");
    refused(&layout(3, 0xffff_fff8), "the stride of the descriptors is 4294967288");
    refused(&layout(4, 1024 + 8), "the descriptors and the verdicts overlap");
    refused(&layout(4, 32_772), "the address of the verdicts, 32772");
    refused(&layout(7, u32::MAX), "the configuration take 4294967295 bytes");
    refused(&layout(8, CONFIG), "the configuration and the error text overlap");
    refused(&layout(11, 3), "3 counters, the manifest names 2");
    refused(&layout(11, u32::MAX), "counters, the manifest names 2");
    let mut rig = Rig::new(1);
    let spec = rig.spec("bad", &layout(1, 0));
    let error = rig.host.prepare(&[spec]).err().expect("refused");
    let fault = error.fault().expect("a plugin's fault");
    assert!(matches!(fault, PluginFault::Layout(LayoutFault::BatchMax(0))), "{fault:?}");
}

#[test]
fn memories_and_tables_that_are_too_large() {
    let memory = |text: &str| changed(|wat| wat.memory = text.to_owned());
    refused(
        &memory("(memory (export \"memory\") 17)"),
        "starts with 1114112 bytes of memory, the limit is 1048576",
    );
    let table = |text: &str| changed(|wat| wat.more = text.to_owned());
    refused(&table("(table 65537 funcref)"), "a table of 65537 elements, the limit is 65536");
    refused(&table(&"(table 1 funcref)".repeat(5)), "5 tables, the limit is 4");
    refused(&memory("(memory (export \"memory\") 1) (memory 1)"), "does not compile");
    refused(&memory("(memory (export \"memory\") i64 1)"), "does not compile");
    let imported = changed(|wat| {
        wat.memory =
            "(import \"sluice\" \"memory\" (memory 1)) (export \"memory\" (memory 0))".into()
    });
    refused(&imported, "imports `sluice.memory`, which the host does not offer");
}

#[test]
fn configurations_that_are_refused_say_why() {
    let text = "`rules[3]`\u{7} is bad";
    let refuses = changed(|wat| {
        let bytes: String = text.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        wat.more = format!("(data (i32.const {ERROR}) \"{bytes}\")");
        wat.configure = format!("i32.const {}", text.len());
    });
    refused(&refuses, "the configuration is refused: `rules[3]`\u{fffd} is bad");
    for length in [-1, i32::MIN, 257, i32::MAX] {
        let lies = changed(|wat| wat.configure = format!("i32.const {length}"));
        refused(&lies, &format!("the plugin gave no text: it returned {length}"));
    }
    let table: toml::Table = format!("text = \"{}\"", "x".repeat(4096)).parse().expect("TOML");
    let text = refusal(&Wat::default(), |spec| spec.config = PluginConfig::Table(table.clone()));
    assert!(text.contains("takes 4107 bytes, the plugin has room for 4096"), "{text}");
    let table: toml::Table = "when = [1979-05-27]".parse().expect("TOML");
    let text = refusal(&Wat::default(), |spec| spec.config = PluginConfig::Table(table.clone()));
    assert!(text.contains("holds a date"), "{text}");
    let text =
        refusal(&Wat::default(), |spec| spec.config = PluginConfig::File("/nowhere.toml".into()));
    assert!(text.contains("/nowhere.toml: No such file"), "{text}");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("broken.toml");
    std::fs::write(&path, "a = \nb = 2").expect("written");
    let text = refusal(&Wat::default(), |spec| spec.config = PluginConfig::File(path.clone()));
    assert!(text.contains("broken.toml is not valid: TOML parse error at line 1"), "{text}");
}

#[test]
fn a_check_tells_what_is_wrong_with_every_plugin() {
    let mut rig = Rig::new(1);
    let missing = rig.directory.path().join("missing.wasm");
    let missing = PluginSpec::new("missing", missing, HookPoint::Ingress);
    let mut pinned = rig.spec("pinned", &Wat::default());
    pinned.sha256 = Some([7; 32]);
    let good = rig.spec("good", &Wat::default());
    let refuses = rig.spec("refuses", &changed(|wat| wat.configure = "i32.const -1".into()));
    let specs = [missing, pinned, good.clone(), refuses];
    let (reports, errors) = rig.host.check_within(&specs, None);
    assert_eq!(reports.iter().map(|report| &*report.name).collect::<Vec<_>>(), ["good"]);
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let [missing, pinned, refuses] = &texts[..] else { panic!("three errors: {texts:?}") };
    assert!(missing.starts_with("plugin `missing`: ") && missing.contains("No such file"));
    assert!(pinned.starts_with("plugin `pinned`: the file's SHA-256"), "{pinned}");
    assert!(refuses.starts_with("plugin `refuses`: the configuration is refused"), "{refuses}");
    // Nothing has come into force, and the same host can load what is good.
    assert!(rig.host.status().is_empty());
    rig.publish(&[good]);
    assert_eq!(rig.host.status().len(), 1);
}

#[test]
fn names_and_sets() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("twice", &Wat::default());
    let error = rig.host.prepare(&[spec.clone(), spec]).err().expect("refused");
    assert!(matches!(error, PolicyError::Duplicate(name) if name == "twice"));
    assert!(matches!(rig.host.reload("nobody"), Err(PolicyError::Unknown(_))));
    for name in ["", &"x".repeat(65)] {
        let mut spec = rig.spec("named", &Wat::default());
        spec.name = name.to_owned();
        assert!(rig.host.prepare(&[spec]).is_err());
    }
}
