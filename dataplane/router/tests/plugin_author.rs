//! What authors of plugins run, on projects made from nothing: they build, test and measure as they stand.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

/// One folder of build products for all projects, kept from run to run: their dependencies are the same.
fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-author")
}

fn sluice(folder: &Path, arguments: &[&str]) -> Output {
    let mut sluice = Command::new(env!("CARGO_BIN_EXE_sluice"));
    sluice.current_dir(folder).args(arguments).env("CARGO_TARGET_DIR", target());
    // What is measured here is nobody's interest: build quickly.
    sluice.env("CARGO_PROFILE_RELEASE_LTO", "off").env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    sluice.output().expect("sluice runs")
}

#[track_caller]
fn succeeds(folder: &Path, arguments: &[&str]) -> String {
    let output = sluice(folder, arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{arguments:?}\n{text}\n{error}");
    text
}

#[track_caller]
fn fails(folder: &Path, arguments: &[&str], expected: &[&str]) {
    let output = sluice(folder, arguments);
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{arguments:?}\n{text}");
    for expected in expected {
        assert!(text.contains(expected), "expected {expected:?} of {arguments:?}, got:\n{text}");
    }
}

/// As with `| head`, whose end is no fault of the command's.
#[track_caller]
fn ends_when_nobody_reads(folder: &Path, arguments: &[&str]) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut sluice = Command::new(env!("CARGO_BIN_EXE_sluice"));
    let sluice = sluice.current_dir(folder).args(arguments).stdout(writer).stderr(Stdio::piped());
    let output = sluice.spawn().and_then(Child::wait_with_output).expect("sluice runs");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!text.contains("panicked") && !output.status.success(), "{arguments:?}: {text}");
}

fn has_wasm_target() -> bool {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", "wasm32-unknown-unknown"])
        .output()
        .expect("rustc runs");
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists()
}

#[test]
fn a_new_project_in_rust_builds_tests_and_is_measured() {
    if !has_wasm_target() {
        eprintln!("SKIPPED: projects in Rust: `rustup target add wasm32-unknown-unknown`");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    succeeds(at, &["plugin", "new", "drop-ports"]);
    fails(at, &["plugin", "new", "drop-ports"], &["it is there already"]);
    fails(at, &["plugin", "new", "Drop"], &["begins with a letter"]);
    let project = at.join("drop-ports");

    let text = succeeds(&project, &["plugin", "build"]);
    for expected in ["drop_ports.wasm", "sha256", "for ingress, forward", "[[plugin]]"] {
        assert!(text.contains(expected), "{text}");
    }
    let text = succeeds(at, &["plugin", "test", "drop-ports"]);
    assert!(text.contains("dropped: blocked-port"), "{text}");
    assert!(text.contains("native and module agree"), "{text}");
    assert!(text.contains("counter  blocked "), "{text}");

    // Each packet in a line, in the words of an explanation; and for programs, where nothing else is written.
    let words = ["plugin", "test", "drop-ports", "--no-unit-tests", "--verdicts"];
    let text = succeeds(at, &words);
    let passed = text.lines().filter(|line| line.ends_with(": drop-ports lets it pass")).count();
    let drop = ": drop-ports drops it: blocked-port";
    let dropped: Vec<&str> = text.lines().filter(|line| line.ends_with(drop)).collect();
    let summary = format!("module   {passed} continue, {} dropped: blocked-port", dropped.len());
    assert!(passed + dropped.len() == 4096 && text.contains(&summary), "{text}");
    let text = succeeds(at, &[&words[..], &["--json", "--workers", "2"]].concat());
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!(lines.len(), 4096);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["number"], number + 1, "in the order in which they came");
    }
    assert!((0..2).all(|worker| lines.iter().any(|line| line["worker"] == worker)));
    let blocked: Vec<_> = lines.iter().filter(|line| line["verdict"] == "drop").collect();
    assert_eq!(blocked.len(), dropped.len(), "it remembers nothing: workers make no difference");
    for (line, text) in blocked.iter().zip(&dropped) {
        assert_eq!((&line["reason"], &line["protocol"]), (&"blocked-port".into(), &17.into()));
        let packet = line["packet"].as_str().expect("a packet");
        assert!(text.contains(&format!("{}  {packet}{drop}", line["number"])), "{text}: {line}");
        let port = format!(":{}, {} bytes", line["destination_port"], line["length"]);
        assert!(packet.starts_with("udp ") && packet.contains(&port), "{line}");
    }
    fails(at, &[&words[..4], &["--json"]].concat(), &["--verdicts"]);
    fails(at, &[&words[..4], &["--workers", "0"]].concat(), &["--workers"]);
    succeeds(&project, &["plugin", "bench", "--budget-ns", "1000000"]);
    fails(&project, &["plugin", "bench", "--budget-ns", "0.001"], &["above the budget"]);

    // A module that judges otherwise than the source says natively is found, with the packet.
    let source = project.join("src/lib.rs");
    let sound = std::fs::read_to_string(&source).expect("a source");
    let lying = sound.replace(
        "if is_udp &&",
        "if cfg!(target_family = \"wasm\") && packet.ttl == 255 {\n                \
         packet.drop(reason::BLOCKED_PORT);\n            } else if is_udp &&",
    );
    assert_ne!(lying, sound);
    std::fs::write(&source, lying).expect("written");
    let arguments = ["plugin", "test", "--no-unit-tests"];
    fails(&project, &arguments, &["judged differently", "ttl 255", "native   continue", "frame "]);
    // What the plugin writes to its standard output is seen, and harms nothing.
    let talking = sound.replace(
        "fn process(",
        "fn process(&mut self, batch: &mut Batch<'_>) {\n        \
                                 println!(\"hello\");\n        self.judge(batch);\n    }\n}\n\n\
                                 impl PortFilter {\n    fn judge(",
    );
    std::fs::write(&source, talking).expect("written");
    let output = sluice(&project, &arguments);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("hello"), "{text}");

    // An action that the manifest does not declare is void in a router, and so an error here.
    let undeclared = sound.replace("counters.add(counter::PASSED, 1);", "packet.set_mark(7);");
    assert_ne!(undeclared, sound);
    std::fs::write(&source, undeclared).expect("written");
    let expected = ["verdicts are bad", "continue, mark: its manifest does not declare"];
    fails(&project, &arguments, &expected);

    // A wrong manifest does not even compile.
    std::fs::write(&source, sound).expect("written");
    let manifest = project.join("manifest.toml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, format!("{text}colour = 1\n")).expect("written");
    fails(&project, &["plugin", "build"], &["the manifest is not valid", "colour"]);
}

#[test]
fn a_new_project_in_c_builds_tests_and_is_measured() {
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !(has("clang") && has("wasm-ld")) {
        eprintln!("SKIPPED: projects in C: `apt-get install clang lld`");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    succeeds(at, &["plugin", "new", "--lang", "c", "block"]);
    let text = succeeds(at, &["plugin", "build", "block"]);
    assert!(text.contains("plugin   block, for ingress"), "{text}");
    assert!(text.contains("\nconfig_file = ") && text.contains("\n# sha256 = "), "{text}");
    let text = succeeds(at, &["plugin", "test", "block"]);
    assert!(
        text.contains("dropped: blocked"),
        "the configured sources are among the packets: {text}"
    );
    assert!(text.contains("again    the same"), "{text}");
    let text = succeeds(
        at,
        &["plugin", "bench", "block/target/block.wasm", "--config", "block/config.toml"],
    );
    assert!(text.contains("ns a packet, 64 a call"), "{text}");
    // A table that is missing is asked for in the words of this command.
    let manifest = at.join("block/manifest.toml");
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    std::fs::write(&manifest, format!("{text}tables = [\"countries\"]\n")).expect("written");
    fails(at, &["plugin", "test", "block"], &["--table countries=FILE"]);
    std::fs::write(&manifest, text).expect("written");
    for arguments in [&["build", "block"][..], &["test", "block"], &["new", "other"]] {
        ends_when_nobody_reads(at, &[&["plugin"], arguments].concat());
    }
    // Without its configuration's key it is refused in its own words.
    std::fs::write(at.join("wrong.toml"), "sources = [\"x\"]\n").expect("written");
    let arguments = ["plugin", "test", "block", "--config", "wrong.toml"];
    fails(at, &arguments, &["no IPv4 address: x"]);
    // A capture, too.
    let text =
        succeeds(at, &["plugin", "test", "block", "--pcap", capture().to_str().expect("a path")]);
    assert!(text.contains("again    the same"), "{text}");
    std::fs::write(at.join("cut.wasm"), b"\0asm").expect("written");
    fails(at, &["plugin", "build", "cut.wasm"], &["no WebAssembly module"]);
    fails(at, &["plugin", "build", "nothing"], &["no such file or folder"]);
}

/// Any of the captures that scenarios are fed with.
fn capture() -> PathBuf {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut folders = vec![scenarios];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "pcap")
                && std::fs::metadata(&path).expect("a file").len() > 400
            {
                return path;
            }
        }
    }
    panic!("no scenario has a capture");
}

/// Every plugin of the repository says the same natively and under the engine, and goes through a reload
/// without a difference: with names, tables, meters and state.
#[test]
fn the_plugins_that_ship_pass_their_own_test() {
    if !has_wasm_target() {
        eprintln!("SKIPPED: plugins of the repository: `rustup target add wasm32-unknown-unknown`");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    let write = |name: &str, text: &str| std::fs::write(at.join(name), text).expect("written");
    write("countries", "10.0.0.0/8 de\n11.0.0.0/8 nl\n2001:db8::/33 de\n");
    write("trust", "12.0.0.0/8 low\n");
    write("products", "10.64.0.0/10 proxy\n");
    let tags = [
        "--tag=ams",
        "--tag=de",
        "--tag=low",
        "--interface=wan0",
        "--interface=users0",
        "--table=countries=countries",
        "--table=trust=trust",
        "--table=products=products",
    ];
    let none: &[&str] = &[];
    let cases = [
        (
            "filter",
            "default = \"allow\"\nrules = [{ action = \"drop\", destination_ports = 53 }]\n",
            none,
            "dropped: rule",
        ),
        ("hop-distance", "max_hops = 3\n", none, "dropped: "),
        ("rate-limit", "packets_per_s = 1000\nburst = 8\n", none, "dropped: rate"),
        ("syn-guard", "syn_per_s = 1\nburst = 2\nhalf_open_max = 2\n", none, "dropped: challenged"),
        (
            "egress-tags",
            "site_tag = \"ams\"\ninterfaces = [{ name = \"users0\", product = \"tunnel\" }]\n\
             rules = [{ trust = [\"low\"], tag = \"low\" },\n\
             { country = [\"de\"], product = [\"tunnel\"], tag = \"de\" }]\n",
            &tags,
            "with edits",
        ),
    ];
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
    for (name, config, more, expected) in cases {
        write("config.toml", config);
        let path = plugins.join(name);
        let words = ["plugin", "test", path.to_str().expect("a path"), "--no-unit-tests"];
        let config = ["--config", "config.toml"];
        let text = succeeds(at, &[&words[..], &config, more].concat());
        for expected in [expected, "reload   before call", "native and module agree"] {
            assert!(text.contains(expected), "{name}: {text}");
        }
        // Both sides draw packets and numbers from the seed.
        let again = succeeds(at, &[&words[..], &config, more, &["--seed", "7"]].concat());
        assert!(again.contains("--seed 7") && again.contains("agree"), "{name}: {again}");
        // Several workers, which share meters and quotas, say the same natively and under the engine too. What one
        // would say otherwise is told of plugins that remember, and of them alone.
        let spread = succeeds(at, &[&words[..], &config, more, &["--workers", "3"]].concat());
        for expected in ["workers  3, by flows: ", "native and module agree", "one      "] {
            assert!(spread.contains(expected), "{name}: {spread}");
        }
        let is_told = spread.contains("packets, one worker would judge otherwise");
        let remembers = ["rate-limit", "syn-guard"].contains(&name);
        assert_eq!(is_told, remembers, "{name}: {spread}");
    }
    // Without its names it says which one it misses.
    let path = plugins.join("egress-tags");
    let words = ["plugin", "test", path.to_str().expect("a path"), "--no-unit-tests"];
    let tables = &tags[5..];
    let arguments = [&words[..], &["--config", "config.toml", "--tag=ams"], tables].concat();
    fails(at, &arguments, &["the configuration names no interface `users0`"]);
}

/// What a plugin in Rust panics with, and where, is shown; and what is wrong with a configuration is said once.
#[test]
fn panics_have_their_text_and_their_place() {
    if !has_wasm_target() {
        eprintln!("SKIPPED: projects in Rust: `rustup target add wasm32-unknown-unknown`");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    succeeds(at, &["plugin", "new", "panics"]);
    let project = at.join("panics");
    let source = project.join("src/lib.rs");
    let sound = std::fs::read_to_string(&source).expect("a source");
    let test = ["plugin", "test", "--no-unit-tests"];
    // Has the source say something else somewhere; where what is marked as the place is then.
    let with = |from: &str, to: &str| {
        let changed = sound.replace(from, &to.replace("/**/", ""));
        assert_ne!(changed, sound, "{from}");
        std::fs::write(&source, changed).expect("written");
        let marked = sound.replace(from, to);
        let line = marked.lines().position(|line| line.contains("/**/")).expect("a mark");
        format!(", at src/lib.rs:{}:", line + 1)
    };
    let port = "let port = packet.destination_port;";
    let place = with(port, &format!("{port}\nlet port = /**/[port; 4][usize::from(packet.ttl)];"));
    let text = "it gave up: index out of bounds: the len is 4 but the index is ";
    fails(&project, &test, &["the module trapped on a batch", text, &place]);
    let split = "let (packets, mut counters) = batch.split();";
    let place = with(split, &format!("let _first = /**/batch.descriptors()[0];\n{split}"));
    let text = "index out of bounds: the len is 0 but the index is 0, at ";
    fails(&project, &test, &[text, &place, "(the call had 0 packets"]);
    let made = "Ok(Self { blocked })";
    let place = with(
        made,
        "let none = (blocked[0] == 1).then_some(1);\n/**/none.expect(\"no\\nsuch thing\");\nOk(Self { blocked })",
    );
    fails(&project, &test, &["sluice_configure failed: it gave up: no; such thing", &place]);

    std::fs::write(&source, &sound).expect("written");
    let config = project.join("config.toml");
    std::fs::write(&config, "udp_ports = [0]\n").expect("written");
    let output = sluice(&project, &test);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.matches("0 is no port").count(), 1, "{text}");
}

/// A plugin that draws a secret, keeps a count in its memory, reads packets and hands its memory over.
const KEEPER: &str = r#"
use sluice_sdk::{Batch, NoConfig, Plugin, StateWriter};

pub struct Keeper {
    secret: u64,
    seen: u64,
}

#[sluice_sdk::plugin(manifest = "manifest.toml")]
impl Plugin for Keeper {
    type Config = NoConfig;

    fn configure(_: NoConfig) -> Result<Self, String> {
        Ok(Self { secret: sluice_sdk::random(), seen: 0 })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (packets, mut counters) = batch.split();
        for mut packet in packets {
            self.seen += 1;
            let first = packet.payload().first().copied().unwrap_or_default();
            let drawn = sluice_sdk::random() ^ self.secret ^ self.seen ^ u64::from(first);
            if drawn % 3 == 0 {
                packet.drop(reason::CHANCE);
            }
            counters.add(counter::SEEN, 1);
        }
    }

    fn export(&mut self, state: &mut StateWriter<'_>) -> Result<(), sluice_sdk::StateFull> {
        state.write_pod(&self.secret)?;
        state.write_pod(&self.seen)
    }

    fn import(&mut self, _: u32, state: &[u8]) -> Result<(), String> {
        let words = state.as_chunks::<8>().0;
        let [secret, seen] = words else { return Err("two words".to_owned()) };
        self.secret = u64::from_le_bytes(*secret);
        self.seen = u64::from_le_bytes(*seen);
        Ok(())
    }
}
"#;

#[test]
fn random_numbers_payload_and_state_are_tested_and_measured() {
    if !has_wasm_target() {
        eprintln!("SKIPPED: projects in Rust: `rustup target add wasm32-unknown-unknown`");
        return;
    }
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    succeeds(at, &["plugin", "new", "keeper"]);
    let project = at.join("keeper");
    let manifest = "abi = \"1.0\"\nname = \"keeper\"\nhooks = [\"ingress\"]\nimports = [\"random\"]\n\
                    payload = { from = \"l4\", bytes = 16 }\nstateful = true\n\
                    state = { schema = 1, bytes_max = 64 }\nreasons = [\"chance\"]\n\
                    counters = [\"seen\"]\n";
    std::fs::write(project.join("manifest.toml"), manifest).expect("written");
    std::fs::write(project.join("config.toml"), "").expect("written");
    let source = project.join("src/lib.rs");
    std::fs::write(&source, KEEPER).expect("written");
    let test = ["plugin", "test", "--no-unit-tests"];
    let text = succeeds(&project, &test);
    for expected in
        ["dropped: chance", "again    the same", "reload   before call", "agree on every"]
    {
        assert!(text.contains(expected), "{text}");
    }
    // With several workers each has a memory and random numbers of its own, through reloads too.
    let text = succeeds(&project, &[&test[..], &["--workers", "4", "--verdicts"]].concat());
    for expected in [
        "would judge otherwise",
        "one      number ",
        "agree on every",
        "worker 3 ",
        "reload   before",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    let text = succeeds(&project, &["plugin", "bench"]);
    assert!(text.contains("ns a packet, 64 a call"), "{text}");

    // One that forgets a part of its state is found out, with the packet.
    let forgets = KEEPER.replace("self.seen = u64::from_le_bytes(*seen);", "let _ = seen;");
    std::fs::write(&source, forgets).expect("written");
    fails(&project, &test, &["a reload before call", "judged differently", "without", "frame "]);
    succeeds(&project, &[&test[..], &["--no-hand-over"]].concat());
    // So is one that refuses it.
    let refuses = KEEPER.replace("Ok(())\n    }\n}", "Err(\"no\".to_owned())\n    }\n}");
    assert_ne!(refuses, KEEPER);
    std::fs::write(&source, refuses).expect("written");
    fails(&project, &test, &["did not take the state"]);
}
