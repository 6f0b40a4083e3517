//! What authors of plugins run, on projects made from nothing: they build, test and measure as they stand.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
