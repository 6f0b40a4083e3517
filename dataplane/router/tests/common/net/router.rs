//! [`Router`]: `sluice run` inside a namespace.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use control::status::{FrameCounts, NeighborStatus, StatusReport, accounting};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Namespace, wait_until};

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the router in a namespace: as unique as the namespace's, and within the bounds of a
/// router's.
fn name_in(namespace: &str) -> &str {
    namespace.trim_start_matches("slt-")
}

/// What the router in a namespace pins.
pub(super) fn pins(namespace: &str) -> PathBuf {
    PathBuf::from("/sys/fs/bpf/sluice").join(name_in(namespace))
}

/// A running router; stopped when this is dropped, with what it pinned.
#[derive(Debug)]
pub(crate) struct Router {
    child: Child,
    pins: PathBuf,
    keeps_pins: bool,
    folder: tempfile::TempDir,
}

fn spawn(namespace: &Namespace, folder: &tempfile::TempDir, environment: &[(&str, &str)]) -> Child {
    let log = File::options().create(true).append(true).open(folder.path().join("log"));
    let mut command = Command::new(SLUICE);
    command
        .args(["run", "--config"])
        .arg(folder.path().join("sluice.toml"))
        .env("RUST_LOG", "info")
        .envs(environment.iter().copied())
        .stdout(Stdio::null())
        .stderr(log.expect("a file"));
    namespace.spawn(&mut command)
}

impl Router {
    /// Starts a router on these interfaces, with native XDP and one worker, and waits until it
    /// answers. `interfaces` are names and roles; `rest` is put behind them.
    #[track_caller]
    pub(crate) fn start(namespace: &Namespace, interfaces: &[(&str, &str)], rest: &str) -> Self {
        Self::start_with(namespace, interfaces, "\"off\"", "", rest)
    }

    /// The same with an `mss_clamp`, and more keys in `[router]`.
    #[track_caller]
    pub(crate) fn start_with(
        namespace: &Namespace,
        interfaces: &[(&str, &str)],
        mss_clamp: &str,
        keys: &str,
        rest: &str,
    ) -> Self {
        Self::start_in(&[], namespace, interfaces, mss_clamp, keys, rest)
    }

    /// The same with further environment variables.
    #[track_caller]
    pub(crate) fn start_in(
        environment: &[(&str, &str)],
        namespace: &Namespace,
        interfaces: &[(&str, &str)],
        mss_clamp: &str,
        keys: &str,
        rest: &str,
    ) -> Self {
        let mut text = "[workers]\ncores = [0]\n".to_owned();
        for (interface, role) in interfaces {
            text += &format!(
                "[[interface]]\nname = \"{interface}\"\nrole = \"{role}\"\nxdp = \"native\"\n\
                 mss_clamp = {mss_clamp}\n"
            );
        }
        let keys = format!("poll = \"adaptive\"\n{keys}");
        Self::start_from(environment, namespace, &keys, &(text + rest))
    }

    /// Starts a router on a configuration of which only its name and its control socket are given:
    /// `keys` are the other ones of `[router]`, and `rest` comes behind them.
    #[track_caller]
    pub(crate) fn start_from(
        environment: &[(&str, &str)],
        namespace: &Namespace,
        keys: &str,
        rest: &str,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let text = format!(
            "[router]\nname = \"{}\"\ncontrol_socket = \"{}\"\n{keys}\n{rest}",
            name_in(namespace.name()),
            folder.path().join("control.sock").display()
        );
        fs::write(folder.path().join("sluice.toml"), text).expect("a file");
        let child = spawn(namespace, &folder, environment);
        let mut router = Self { child, pins: pins(namespace.name()), keeps_pins: false, folder };
        router.wait_for_an_answer();
        router
    }

    fn wait_for_an_answer(&mut self) {
        wait_until("the router answers", PATIENCE, || {
            if let Some(status) = self.child.try_wait().expect("a process") {
                panic!("the router has ended: {status}\n{}", self.log());
            }
            self.ask_status().is_some()
        });
    }

    /// Kills it without a warning and starts it again.
    #[track_caller]
    pub(crate) fn crash_and_start(&mut self, namespace: &Namespace) {
        self.child.kill().expect("a process");
        self.child.wait().expect("a process");
        self.child = spawn(namespace, &self.folder, &[]);
        self.wait_for_an_answer();
    }

    /// Ends it as an operator does. It must say that all went well.
    #[track_caller]
    pub(crate) fn end(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut status = None;
        wait_until("the router ends", PATIENCE, || {
            status = self.child.try_wait().expect("a process");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}\n{}", self.log());
    }

    /// Ends it as an operator does, and starts it again.
    #[track_caller]
    pub(crate) fn stop_and_start(&mut self, namespace: &Namespace) {
        self.end();
        self.child = spawn(namespace, &self.folder, &[]);
        self.wait_for_an_answer();
    }

    /// Sends it a signal.
    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("a process");
    }

    /// A file beside its configuration, which is `sluice.toml`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `sluice` with these words, asking this router.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(SLUICE);
        command.args(words).arg("--socket").arg(self.socket());
        command
    }

    /// What such a command answers.
    #[track_caller]
    pub(crate) fn ask(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("sluice runs")
    }

    /// What a command writes that must succeed.
    #[track_caller]
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {said}\n{}", self.log());
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The same for one that answers in JSON when it is asked to.
    #[track_caller]
    pub(crate) fn json(&self, words: &[&str]) -> Value {
        let text = self.done(&[words, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// What a command says that must be refused.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str]) -> String {
        let output = self.ask(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    /// Packets received on all interfaces.
    #[track_caller]
    pub(crate) fn received(&self) -> u64 {
        self.status().interfaces.iter().map(|interface| interface.rx_packets).sum()
    }

    /// Stops it as an operator would who starts it again: the classifier stays.
    pub(crate) fn stop(mut self) {
        self.keeps_pins = true;
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Has it read its configuration again, which it writes a line about.
    #[track_caller]
    pub(crate) fn reload(&self) {
        self.done(&["reload"]);
    }

    /// Kilobytes of memory that it holds.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or_default()
    }

    /// Milliseconds of processor time that it has used.
    pub(crate) fn cpu_ms(&self) -> u64 {
        let stat =
            fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        let ticks =
            fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
        // USER_HZ is 100 on every architecture that this runs on.
        10 * ticks.sum::<u64>()
    }

    /// Its threads with their state, nice value and ticks of processor time.
    pub(crate) fn threads(&self) -> String {
        let folder = format!("/proc/{}/task", self.child.id());
        let tasks = fs::read_dir(folder).into_iter().flatten().flatten();
        let line = |task: fs::DirEntry| {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            let name = stat.split(['(', ')']).nth(1).unwrap_or_default().to_owned();
            let fields: Vec<&str> =
                stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            let field = |at: usize| fields.get(at).copied().unwrap_or_default().to_owned();
            format!("{name} {} nice {} ticks {}+{}", field(0), field(16), field(11), field(12))
        };
        tasks.map(line).collect::<Vec<_>>().join(", ")
    }

    /// What a module's file holds.
    #[track_caller]
    pub(crate) fn inspect(&self, module: &Path) -> Value {
        let mut command = Command::new(SLUICE);
        command.args(["plugin", "inspect", "--json"]).arg(module);
        let output = command.output().expect("sluice runs");
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// What a command of `sluice` says about it.
    pub(crate) fn say(&self, words: &[&str]) -> String {
        let output = self.command(words).output().expect("sluice runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text + &String::from_utf8_lossy(&output.stderr)
    }

    /// Its control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn ask_status(&self) -> Option<StatusReport> {
        let mut command = Command::new(SLUICE);
        command.args(["status", "--json", "--socket"]).arg(self.socket());
        let output = command.output().ok().filter(|output| output.status.success())?;
        Some(serde_json::from_slice(&output.stdout).expect("a status report"))
    }

    /// Its status.
    #[track_caller]
    pub(crate) fn status(&self) -> StatusReport {
        self.ask_status().unwrap_or_else(|| panic!("no status:\n{}", self.log()))
    }

    /// Drops of one reason on all interfaces.
    #[track_caller]
    pub(crate) fn drops(&self, reason: &str) -> u64 {
        let status = self.status();
        status.interfaces.iter().filter_map(|interface| interface.drops.get(reason)).sum()
    }

    /// What is known of a neighbor.
    #[track_caller]
    pub(crate) fn neighbor(&self, address: &str) -> Option<NeighborStatus> {
        self.status().neighbors.into_iter().find(|neighbor| neighbor.address == address)
    }

    /// Waits until the router is at rest, and checks that it has lost neither a packet nor a chunk:
    /// all packets are accounted for, none waits, and every chunk is in a known place.
    #[track_caller]
    pub(crate) fn assert_conserved(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            let missing: i64 = status
                .workers
                .iter()
                .map(|worker| {
                    let FrameCounts { free, receiving, transmitting, held, total } = worker.frames;
                    total.cast_signed() - (free + receiving + transmitting + held).cast_signed()
                })
                .sum();
            let held: u64 = status.workers.iter().map(|worker| worker.frames.held).sum();
            let accounts = accounting(&status);
            if missing == 0 && held == 0 && accounts.is_ok() {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{missing} chunks are missing, {held} packets are held, accounts: {accounts:?}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                let _ = self.child.kill();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if !self.keeps_pins {
            let _ = fs::remove_dir_all(&self.pins);
        }
        if std::thread::panicking() {
            eprintln!("the router wrote:\n{}", self.log());
        }
    }
}
