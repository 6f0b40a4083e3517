//! `cargo xtask setup` on machines that lack something, played by programs of the same names that
//! stand first in the path and write down how they were called.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use xtask::lab::cleanup::Folder;

/// A machine of shell scripts. `$PLAY` is the folder that they share.
struct Machine(Folder);

impl Machine {
    fn new(name: &str) -> Self {
        let machine = Self(Folder::create("xtask", name).expect("a folder"));
        // All is installed but m4, until apt-get says that it installed it.
        machine.program(
            "dpkg-query",
            "for word; do
                case $word in
                -*|*'$'*) ;;
                m4) test -e $PLAY/installed && echo 'm4 installed' ;;
                *) echo \"$word installed\" ;;
                esac
             done",
        );
        machine.program("apt-get", "touch $PLAY/installed");
        machine.program("mount", "exit 0");
        machine.program("systemctl", "exit 0");
        machine
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn program(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        let text = format!("#!/bin/sh\necho {name} \"$@\" >> $PLAY/calls\n{script}\n");
        std::fs::write(&path, text).expect("a script");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
    }

    fn setup(&self) -> Output {
        let old = std::env::var("PATH").expect("a path");
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .arg("setup")
            .env("PATH", format!("{}:{old}", self.path().display()))
            .env("PLAY", self.path())
            .stdin(Stdio::null())
            .output()
            .expect("xtask starts")
    }

    /// The calls of apt-get, without the options that are the same in all.
    fn apt_calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.path().join("calls")).expect("calls");
        calls
            .lines()
            .filter_map(|line| line.strip_prefix("apt-get "))
            .map(|line| line.split(' ').skip_while(|word| *word != "update" && *word != "install"))
            .map(|words| words.collect::<Vec<_>>().join(" "))
            .collect()
    }
}

/// Whether a machine can be played here; says so when it cannot.
fn can_run(test: &str) -> bool {
    let can = nix::unistd::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists();
    if !can {
        eprintln!("SKIPPED {test}: it needs root on Debian or Ubuntu");
    }
    can
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const INSTALL: &str = "install --yes --no-install-recommends m4";

#[test]
fn what_is_missing_is_named_and_only_that_is_installed() {
    if !can_run("what_is_missing_is_named_and_only_that_is_installed") {
        return;
    }
    let machine = Machine::new("missing");
    let output = machine.setup();
    let errors = text(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert!(errors.contains("missing package m4: writes libxdp's dispatcher"), "{errors}");
    let calls = machine.apt_calls();
    assert_eq!(calls.last().map(String::as_str), Some(INSTALL));
    // A second run finds everything there.
    let output = machine.setup();
    assert!(output.status.success());
    assert!(!text(&output.stderr).contains("missing"), "{}", text(&output.stderr));
    assert_eq!(machine.apt_calls(), calls);
}

#[test]
fn old_lists_are_fetched_once_and_a_refusal_says_what_to_do() {
    if !can_run("old_lists_are_fetched_once_and_a_refusal_says_what_to_do") {
        return;
    }
    let machine = Machine::new("refused");
    machine.program("apt-get", "case \"$*\" in *install*) exit 100 ;; esac");
    let output = machine.setup();
    let errors = text(&output.stderr);
    assert!(!output.status.success());
    let by_hand = "by hand: apt-get install --no-install-recommends m4";
    assert!(errors.contains(by_hand), "{errors}");
    let calls = machine.apt_calls();
    assert_eq!(calls.iter().filter(|call| *call == "update").count(), 1, "{calls:?}");
    assert_eq!(calls.last().map(String::as_str), Some(INSTALL));
}

#[test]
fn an_apt_get_that_lies_is_found_out() {
    if !can_run("an_apt_get_that_lies_is_found_out") {
        return;
    }
    let machine = Machine::new("lies");
    machine.program("apt-get", "exit 0");
    let output = machine.setup();
    assert!(!output.status.success());
    let errors = text(&output.stderr);
    assert!(errors.contains("these are not installed: m4"), "{errors}");
}
