//! `sluice check` through the binary: what is wrong with a configuration's plugins is found before a start or
//! reload would refuse it.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// A module with more in its manifest, that answers `sluice_configure` and `sluice_process` like this.
fn module(manifest: &str, configure: &str, process: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
    (@custom "sluice.manifest" "abi = \"1.0\"\nname = \"wat\"\nhooks = [\"ingress\"]\nmemory_max_bytes = 1048576\n{manifest}")
    (memory (export "memory") 1)
    (data (i32.const 16) "\30\00\00\00\00\01\00\00\00\04\00\00\40\00\00\00\00\80\00\00\08\00\00\00\00\a0\00\00\00\10\00\00\00\c0\00\00\00\01\00\00\00\e0\00\00\00\00\00\00")
    (data (i32.const 0xc000) "too bold")
    (func (export "sluice_abi_version") (result i32) i32.const 0x10000)
    (func (export "sluice_layout") (result i32) i32.const 16)
    (func (export "sluice_configure") (param i32) (result i32) {configure})
    (func (export "sluice_process") (param $n i32) (param $now i64) {process}))"#
    );
    wat::parse_str(&text).expect("a module")
}

fn good() -> Vec<u8> {
    module("", "i32.const 0", "")
}

/// It is allowed, and seldom meant.
#[test]
fn an_egress_prefix_that_holds_the_nodes_tunnel_address_is_warned_of() {
    let folder = Folder::new();
    for (prefix, is_warned) in [("10.3.0.0/24", true), ("10.4.0.0/24", false)] {
        let text = format!(
            "[router]\nnode = \"a\"\n[[interface]]\nname = \"nope0\"\nrole = \"both\"\n\
             [[node]]\nname = \"a\"\naddress = \"10.3.0.7\"\n\
             [[egress]]\nprefix = \"{prefix}\"\ndefault = {{ node = \"a\" }}\n"
        );
        folder.write("sluice.toml", text.as_bytes());
        let file = folder.path("sluice.toml");
        let output = Command::new(SLUICE).arg("check").arg(file).output().expect("sluice runs");
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        let warning = "warning: egress prefix 10.3.0.0/24 holds 10.3.0.7";
        assert_eq!(said.contains(warning), is_warned, "{said}");
    }
}

/// A folder with a configuration and modules.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).expect("a file");
    }

    /// Writes a configuration with these plugins: each a name, which is its file's too, and further keys.
    fn configure(&self, plugins: &[(&str, &str)]) {
        let state = self.path("state");
        let mut text = format!(
            "[[interface]]\nname = \"nope0\"\nrole = \"both\"\n[plugins]\nstate_dir = \"{}\"\n",
            state.display()
        );
        for (name, keys) in plugins {
            text += &format!(
                "[[plugin]]\nname = \"{name}\"\npath = \"{name}.wasm\"\nhook = \"ingress\"\n{keys}\n"
            );
        }
        self.write("sluice.toml", text.as_bytes());
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(SLUICE);
        command.arg("check").arg(self.path("sluice.toml")).args(words).env_remove("SLUICE_LOG");
        command
    }

    #[track_caller]
    fn passes(&self, words: &[&str]) -> (String, String) {
        let output = self.command(words).output().expect("sluice runs");
        let (out, err) = said(&output);
        assert!(output.status.success(), "{out}{err}");
        (out, err)
    }

    /// The lines of a refusal.
    #[track_caller]
    fn refused(&self) -> Vec<String> {
        let output = self.command(&[]).output().expect("sluice runs");
        let (out, err) = said(&output);
        assert_eq!((output.status.code(), &*out), (Some(1), ""), "{err}");
        err.lines().map(str::to_owned).collect()
    }
}

fn said(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_plugin_that_would_be_refused_is_told_at_once() {
    let folder = Folder::new();
    folder.write("broken.wasm", b"\0asm nothing");
    folder.write("mirrors.wasm", &module(r#"actions = [\"mirror\"]\n"#, "i32.const 0", ""));
    folder.write("pinned.wasm", &good());
    folder.write("bold.wasm", &module("", "i32.const 8", ""));
    folder.write("good.wasm", &good());
    let pin = format!("sha256 = \"{}\"", "07".repeat(32));
    folder.configure(&[
        ("missing", ""),
        ("broken", ""),
        ("mirrors", ""),
        ("pinned", &pin),
        ("bold", "config = { rate = 1 }"),
        ("good", ""),
    ]);
    let file = folder.path("sluice.toml");
    let lines = folder.refused();
    assert!(lines[0].starts_with(&format!("sluice: {}: plugin `missing`: ", file.display())));
    for (line, (name, expected)) in lines.iter().zip([
        ("missing", "missing.wasm: No such file"),
        ("broken", "the file is no WebAssembly module"),
        ("mirrors", "declares the action `mirror`, but the configuration does not grant it"),
        ("pinned", "the configuration pins 07070707"),
        ("bold", "the configuration is refused: too bold"),
    ]) {
        assert!(line.contains(&format!("plugin `{name}`: ")), "{line}");
        assert!(line.contains(expected), "expected {expected:?} in {line}");
    }
    assert_eq!(lines.len(), 5, "{lines:#?}");

    // Without them there is nothing wrong, and the words tell what was left out.
    let (out, err) = folder.passes(&["--no-plugins"]);
    assert!(out.contains("6 plugins (not opened): no errors\n") && err.is_empty(), "{out}{err}");
    folder.configure(&[("good", ""), ("mirrors", "grants = [\"mirror\"]")]);
    let (out, err) = folder.passes(&[]);
    assert!(out.contains("2 plugins: no errors\n") && err.is_empty(), "{out}{err}");
    assert!(!folder.path("state").exists(), "a check writes nothing");
}

#[test]
fn a_shipped_plugin_tells_the_keys_that_there_are() {
    let Some(plugins) = common::plugins() else {
        eprintln!("skipped: keys of shipped plugins: no plugins (cargo xtask plugins)");
        return;
    };
    let folder = Folder::new();
    for name in ["filter", "rate-limit"] {
        let file = format!("{name}.wasm");
        fs::copy(plugins.join(&file), folder.path(&file)).expect("a plugin");
    }
    folder.configure(&[
        ("filter", "config = { defualt = \"allow\" }"),
        ("rate-limit", "grants = [\"meter\"]\nconfig = { packet_per_s = 9, burst = 1 }"),
    ]);
    let lines = folder.refused();
    let filter = "`defualt`: unknown key, expected one of `default`, `sets`, `rules`";
    assert!(lines[0].ends_with(filter), "{lines:#?}");
    let limit = "`packet_per_s`: unknown key, expected one of `packets_per_s`, `burst`, ";
    assert!(lines[1].contains(limit), "{lines:#?}");
    assert!(lines[1].ends_with("; missing field `packets_per_s`"), "{lines:#?}");
}

#[test]
fn a_budget_is_held_against_prices_as_at_a_start() {
    let folder = Folder::new();
    folder.write("good.wasm", &good());
    folder.configure(&[("good", "")]);
    let text = fs::read_to_string(folder.path("sluice.toml")).expect("the configuration");
    let text = text.replace("[plugins]\n", "[plugins]\nbudget_cycles_per_packet = 1\n");
    folder.write("sluice.toml", text.as_bytes());
    let lines = folder.refused();
    assert!(lines[0].contains("`plugins.budget_cycles_per_packet` is 1: good "), "{lines:#?}");
    assert!(lines[0].contains("(generated packets)"), "{lines:#?}");
}

#[test]
fn traps_over_generated_packets_are_a_warning() {
    let folder = Folder::new();
    folder.write(
        "gives-up.wasm",
        &module("", "i32.const 0", "(if (local.get $n) (then unreachable))"),
    );
    folder.configure(&[("gives-up", "")]);
    let (out, err) = folder.passes(&[]);
    assert!(out.contains("1 plugins: no errors"), "{out}");
    assert!(
        err.contains("warning: plugin `gives-up`: trapped on ") && err.contains("it gave up"),
        "{err}"
    );
}

#[test]
fn what_this_user_may_not_read_is_said_to_be_unchecked() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: files of other users, since this is not root");
        return;
    }
    let folder = Folder::new();
    let open = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    folder.write("secret.wasm", &good());
    folder.configure(&[("secret", "")]);
    open(folder.path(""), 0o755);
    open(folder.path("secret.wasm"), 0o600);
    // The binary may stand where nobody but root gets to.
    let sluice = folder.path("sluice");
    fs::copy(SLUICE, &sluice).expect("a copy");
    let check = |words: &[&str]| {
        let mut command = Command::new(&sluice);
        command.arg("check").arg(folder.path("sluice.toml")).args(words).uid(65_534).gid(65_534);
        let output = command.current_dir("/").output().expect("sluice runs");
        let (out, err) = said(&output);
        assert!(output.status.success(), "{out}{err}");
        (out, err)
    };
    let (out, err) = check(&[]);
    assert!(out.ends_with("1 plugins: no errors in what was checked\n"), "{out}");
    assert!(err.contains("not checked: plugin `secret`: ") && err.contains("denied"), "{err}");
    open(folder.path("secret.wasm"), 0o644);
    let (out, err) = check(&[]);
    assert!(out.ends_with("1 plugins: no errors\n") && err.is_empty(), "{out}{err}");
}
