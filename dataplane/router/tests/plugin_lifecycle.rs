//! Commands for plugins on a running router, in network namespaces that the test makes, with traffic;
//! skipped without root.

mod common;

#[path = "common/net/mod.rs"]
mod net;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use net::two_links::{INTERFACES, TwoLinks, WAN, WAN_MAC, udp_frame};
use net::{Namespace, Router, Tap, wait_until};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// A module that gives up at packets to port 7, and at no other.
const GIVES_UP: &str = r#"(module
    (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"gives-up\"\nhooks = [\"ingress\"]\nmemory_max_bytes = 1048576\n")
    (memory (export "memory") 1)
    (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
    (func (export "sluice_abi_version") (result i32) i32.const 0x10000)
    (func (export "sluice_layout") (result i32) i32.const 16)
    (func (export "sluice_configure") (param i32) (result i32) i32.const 0)
    (func $gives_up unreachable)
    (func $process (export "sluice_process") (param $n i32) (param $now i64) (local $i i32)
      (block $end (loop $next
        (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
        (if (i32.eq (i32.const 7) (i32.load16_u offset=34
              (i32.add (i32.const 1024) (i32.mul (local.get $i) (i32.const 64)))))
          (then (call $gives_up)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))))"#;

/// A module that is compiled for a second or more.
fn large() -> Vec<u8> {
    let mut text = GIVES_UP.strip_suffix(')').expect("a module").to_owned();
    for function in 0..2000 {
        text += "(func (param i32) (result i32) local.get 0\n";
        for step in 0..50 {
            let odd = 500_000_001 + 2 * (function * 50 + step);
            text += &format!("i32.const {odd} i32.mul local.get 0 i32.xor i32.popcnt\n");
        }
        text += ")\n";
    }
    wat::parse_str(text + ")").expect("a module")
}

struct Stage {
    tap: Tap,
    router: Router,
    space: Namespace,
    _far: Namespace,
}

fn rules(port: u16) -> String {
    format!("default = \"allow\"\nrules = [{{ action = \"drop\", destination_ports = {port} }}]\n")
}

impl Stage {
    fn new(plugins: &Path) -> Option<Self> {
        if !net::available("commands for plugins") {
            return None;
        }
        let TwoLinks { tap, space, far } = TwoLinks::new();
        let rest = "[[neighbor]]\naddress = \"10.1.0.2\"\ninterface = \"lan0\"\n\
                    mac = \"02:00:00:00:00:cc\"\n";
        let router = Router::start(&space, &INTERFACES, rest);
        let stage = Self { tap, router, space, _far: far };
        fs::copy(plugins.join("filter.wasm"), stage.file("filter.wasm")).expect("a plugin");
        fs::write(stage.file("rules.toml"), rules(2001)).expect("a file");
        fs::write(stage.file("other.toml"), rules(2002)).expect("a file");
        fs::write(stage.file("gives-up.wasm"), wat::parse_str(GIVES_UP).expect("a module"))
            .expect("a file");
        let config = fs::read_to_string(stage.file("sluice.toml")).expect("the configuration");
        let plugin = "[[plugin]]\nname = \"filter\"\npath = \"filter.wasm\"\nhook = \"ingress\"\n\
                      config_file = \"rules.toml\"\n";
        fs::write(stage.file("sluice.toml"), config + plugin).expect("a file");
        stage.router.reload();
        Some(stage)
    }

    /// With a module that is compiled for long.
    fn with_large(test: &str) -> Option<Self> {
        let Some(plugins) = common::plugins() else {
            eprintln!("skipped: {test}: no plugins (cargo xtask plugins)");
            return None;
        };
        let stage = Self::new(&plugins)?;
        fs::write(stage.file("large.wasm"), large()).expect("a file");
        Some(stage)
    }

    /// Starts a command whose end nobody waits for yet.
    fn start(&self, words: &[&str]) -> Child {
        let mut command = self.router.command(words);
        command.stdout(Stdio::null()).spawn().expect("sluice runs")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.router.file(name)
    }

    /// Sends a packet to each port, and returns how many were dropped by the plugin.
    #[track_caller]
    fn send(&self, ports: &[u16]) -> u64 {
        let (before, dropped) = (self.router.received(), self.router.drops("plugin"));
        for port in ports {
            self.tap.send(WAN, &frame(*port));
        }
        let wanted = before + ports.len() as u64;
        wait_until("the packets came", PATIENCE, || self.router.received() >= wanted);
        self.router.drops("plugin") - dropped
    }
}

fn frame(port: u16) -> Vec<u8> {
    let source = (Ipv4Addr::new(198, 51, 100, 7), 53);
    udp_frame(WAN_MAC, source, (Ipv4Addr::new(10, 1, 0, 2), port), &[0; 4])
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn candidates_rollbacks_and_saved_traps_over_the_control_socket() {
    let Some(plugins) = common::plugins() else {
        eprintln!("skipped: commands for plugins: no plugins (cargo xtask plugins)");
        return;
    };
    let Some(mut stage) = Stage::new(&plugins) else { return };
    let (filter, other) = (stage.file("filter.wasm"), stage.file("other.toml"));
    assert_eq!(stage.send(&[2000, 2001, 2002]), 1);
    assert!(
        stage.router.refused(&["plugin", "rollback", "filter"]).contains("no generation before")
    );
    assert!(stage.router.refused(&["plugin", "shadow", "filter"]).contains("no candidate"));
    assert!(stage.router.refused(&["plugin", "promote", "none"]).contains("no plugin is named"));

    // A candidate with other rules: one new drop, one new pass, and nothing happens.
    let words = ["plugin", "load", "--shadow", "filter", path(&filter), "--config", path(&other)];
    stage.router.done(&words);
    assert_eq!(stage.send(&[2000, 2001, 2002, 2003]), 1);
    let found = stage.router.json(&["plugin", "shadow", "filter"]);
    assert_eq!((&found["packets"], &found["new_drops"]), (&4.into(), &1.into()), "{found}");
    assert_eq!((&found["new_passes"], &found["others"]), (&1.into(), &0.into()), "{found}");
    let samples: Vec<&str> = found["samples"]
        .as_array()
        .expect("samples")
        .iter()
        .filter_map(|sample| sample["packet"].as_str())
        .collect();
    let packet = |port: u16| format!("udp 198.51.100.7:53 > 10.1.0.2:{port}, 32 bytes, ttl 64");
    let began = "without state: the manifest of the plugin that runs has none (worker";
    for words in [["plugin", "shadow", "filter"].as_slice(), &["plugin", "list"]] {
        let told = stage.router.done(words);
        assert!(told.contains("began") && told.contains(began), "{told}");
    }
    assert_eq!(found["starts"][0]["start"], "unkept", "{found}");
    assert!(samples.contains(&packet(2001).as_str()), "{samples:?}");
    assert!(samples.contains(&packet(2002).as_str()), "{samples:?}");

    // Promoted; and back, without compiling.
    stage.router.done(&["plugin", "promote", "filter"]);
    assert_eq!(stage.send(&[2001, 2002, 2002]), 2);
    let back = stage.router.json(&["plugin", "rollback", "filter"]);
    assert_eq!((&back["restores"], &back["compile_us"]), (&1.into(), &0.into()));
    assert_eq!(stage.send(&[2001, 2002, 2002]), 1);
    let listed = stage.router.json(&["plugin", "list"]);
    assert_eq!(
        (&listed[0]["generation"], &listed[0]["before"]["generation"]),
        (&3.into(), &2.into())
    );
    assert!(stage.router.done(&["plugin", "list"]).contains("generation 1 again"));
    stage.router.done(&["plugin", "load", "--shadow", "filter", path(&filter)]);
    stage.router.done(&["plugin", "discard", "filter"]);

    // A module that traps: its batch is saved, and traps again without the router.
    stage.router.done(&["plugin", "load", "filter", path(&stage.file("gives-up.wasm"))]);
    stage.send(&[7]);
    let state = stage.file("control.plugins");
    let saved = state.join("traps/filter-4-1.json");
    wait_until("the batch is saved", PATIENCE, || saved.exists());
    let sluice = |words: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_sluice")).args(words).output().expect("sluice runs")
    };
    let again = sluice(&["plugin", "replay", path(&saved)]);
    let text = String::from_utf8_lossy(&again.stdout).into_owned();
    assert_eq!(again.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&again.stderr));
    assert!(text.contains("reproduced: it gave up") && text.contains("in gives_up"), "{text}");
    assert!(text.contains(&format!("packet 0 alone: {}", packet(7))), "{text}");
    let other = path(&stage.file("rules.toml")).to_owned();
    assert_eq!(sluice(&["plugin", "replay", &other]).status.code(), Some(1));
    stage.router.done(&["plugin", "rollback", "filter"]);
    assert_eq!(stage.send(&[7, 2001]), 1);

    // What a file holds, without a router.
    let report = sluice(&["plugin", "inspect", path(&filter), "--json"]);
    let report: Value = serde_json::from_slice(&report.stdout).expect("JSON");
    assert_eq!(report["name"], "filter");
    assert_eq!(report["sha256"].as_str().map(str::len), Some(64));

    // A restart takes the configured file, compiled before.
    let compiled = fs::read_dir(state.join("compiled")).expect("a directory").count();
    assert_eq!(compiled, 2, "the filter and the one that gives up");
    stage.router.crash_and_start(&stage.space);
    let listed = stage.router.json(&["plugin", "list"]);
    assert_eq!((&listed[0]["generation"], &listed[0]["is_held"]), (&1.into(), &false.into()));
    assert_eq!(stage.send(&[2001, 2002]), 1);
    stage.router.assert_conserved();
}

#[test]
fn the_router_is_asked_about_routes_while_a_plugin_is_compiled() {
    const QUESTIONS: usize = 5;
    let Some(stage) = Stage::with_large("questions while a plugin is compiled") else { return };
    let start = |words: &[&str]| stage.start(words);
    let mut load = start(&["plugin", "load", "filter", path(&stage.file("large.wasm"))]);
    let mut reports = Vec::new();
    // A report waits for the plugin. Who asks for something else does not wait for the report.
    for question in 0..QUESTIONS {
        reports.push(start(&["status"]));
        stage.router.done(&["route", "get", "10.1.0.2"]);
        assert!(load.try_wait().expect("a process").is_none(), "compiled before answer {question}");
    }
    for mut process in reports.into_iter().chain([load]) {
        assert!(process.wait().expect("a process").success());
    }
    let listed = stage.router.json(&["plugin", "list"]);
    assert_eq!(listed[0]["generation"], 2);
    stage.router.assert_conserved();
}

#[test]
fn routes_go_on_while_a_reload_compiles_and_reloads_come_one_after_the_other() {
    const QUESTIONS: usize = 5;
    let Some(stage) = Stage::with_large("reloads while a plugin is compiled") else { return };
    let start = |words: &[&str]| stage.start(words);
    let generation = || {
        let status = stage.router.json(&["status"]);
        status["router"]["configuration_generation"].as_u64().expect("a number")
    };
    let before = generation();
    let small = fs::read_to_string(stage.file("sluice.toml")).expect("the configuration");
    let with_large = small.replace("filter.wasm", "large.wasm");
    fs::write(stage.file("sluice.toml"), &with_large).expect("a file");
    let mut large = start(&["reload"]);
    stage.router.done(&["route", "get", "10.1.0.2"]);
    // Read when the first one has been carried out, not when it is asked for.
    let mut with_small = start(&["reload", "--confirm", "60"]);
    let hexadecimal: String = frame(2001).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut explain = start(&["explain", "--in", "wan0", "--hex", &hexadecimal]);
    for question in 0..QUESTIONS {
        stage.router.done(&["route", "get", "10.1.0.2"]);
        let is_compiled = large.try_wait().expect("a process").is_some();
        assert!(!is_compiled, "compiled before answer {question}");
    }
    fs::write(stage.file("sluice.toml"), &small).expect("a file");
    for process in [&mut large, &mut with_small, &mut explain] {
        assert!(process.wait().expect("a process").success());
    }
    assert_eq!(generation(), before + 2);
    let listed = stage.router.json(&["plugin", "list"]);
    assert_eq!(listed[0]["generation"], 3);
    assert_eq!(stage.send(&[2001, 7]), 1, "the filter is in force");
    stage.router.done(&["confirm", "--cancel"]);
    assert_eq!(generation(), before + 3);
    assert_eq!(stage.send(&[2001]), 0, "the large one is in force again");
    stage.router.assert_conserved();
}
