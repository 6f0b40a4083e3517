//! The example in C, built as its page says and asked by the host.

mod common;

use std::{path::Path, process::Command};

use common::{Rig, batch};
use frame::{Descriptor, DropReason, HookPoint, Nanos, Verdict};
use policy::{PluginConfig, PluginSpec};
use sluice_abi::flags;

/// Builds the example into `to`. Says whether there is a compiler for it.
fn build(to: &Path) -> bool {
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/c");
    build_source(to, &sdk.join("example/plugin.c"))
}

/// Builds a source that has the example's manifest.
fn build_source(to: &Path, source: &Path) -> bool {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !(has("clang") && has("wasm-ld")) {
        eprintln!("SKIPPED: the example in C: `apt-get install clang lld`");
        return false;
    }
    let sdk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk/c");
    let output = Command::new("clang")
        .args(["--target=wasm32", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"])
        .args(["-ffreestanding", "-fno-builtin", "-nostdlib", "-Wl,--no-entry", "-I", ".."])
        .arg("-o")
        .args([to, source])
        .current_dir(sdk.join("example"))
        .output()
        .expect("clang runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn udp(source: [u8; 4]) -> Descriptor {
    let [a, b, c, d] = source;
    Descriptor {
        source: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
        protocol: 17,
        flags: flags::PORTS,
        ..Descriptor::default()
    }
}

#[test]
fn it_drops_its_sources_and_counts_them() {
    let mut rig = Rig::new(1);
    let module = rig.directory.path().join("block-sources.wasm");
    if !build(&module) {
        return;
    }
    let mut spec = PluginSpec::new("block", &module, HookPoint::Ingress);
    let config = |text: &str| PluginConfig::Table(text.parse().expect("TOML"));
    spec.config = config("sources = [\"192.0.2.1\", \"10.0.0.7\"]");
    rig.publish(std::slice::from_ref(&spec));
    // The low half of an IPv6 address is no IPv4 address.
    let mut v6 = udp([192, 0, 2, 1]);
    v6.flags |= flags::IPV6;
    let packets = [udp([192, 0, 2, 1]), udp([192, 0, 2, 2]), udp([10, 0, 0, 7]), v6];
    let verdicts = rig.turn(0, &mut batch(&packets), Nanos(1));
    let dropped = Verdict::Drop(DropReason::Plugin);
    assert_eq!(verdicts, [dropped, Verdict::Continue, dropped, Verdict::Continue]);
    rig.begin(Nanos(1_000_000_000));
    let status = rig.host.status().remove(0);
    assert_eq!(status.module, "block-sources");
    assert_eq!(status.total.drops_by_reason["blocked"], 2);
    let counters: Vec<_> = status.total.counters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(counters, [("blocked", 2), ("passed", 2)]);

    for (text, expected) in [
        ("sources = [\"192.0.2\"]", "`sources`: no IPv4 address: 192.0.2"),
        ("sources = [\"300.0.2.1\"]", "no IPv4 address: 300.0.2.1"),
        ("sauces = []", "there is one key, `sources`, not sauces"),
    ] {
        spec.config = config(text);
        let error = rig.host.prepare(std::slice::from_ref(&spec)).err().expect(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_it_says_before_it_gives_up_is_shown() {
    let mut rig = Rig::new(1);
    let module = rig.directory.path().join("gives-up.wasm");
    let example = include_str!("../../../sdk/c/example/plugin.c");
    let long = "far too long for the area ".repeat(20);
    for (text, expected) in [("no room for a rule", "no room for a rule"), (&long, &long[..256])] {
        let begin = "int32_t sluice_configure(uint32_t len) {";
        let source = example.replace(
            begin,
            &format!("{begin}\n    if (len == 2) sluice_give_up(error, \"{text}\");"),
        );
        assert_ne!(source, example);
        let file = rig.directory.path().join("plugin.c");
        std::fs::write(&file, source).expect("written");
        if !build_source(&module, &file) {
            return;
        }
        let spec = PluginSpec::new("gives-up", &module, HookPoint::Ingress);
        let error = rig.host.prepare(&[spec]).err().expect("it gives up").to_string();
        let expected = format!("sluice_configure failed: it gave up: {}", expected.trim());
        assert!(error.ends_with(&expected), "{error}");
    }
}
