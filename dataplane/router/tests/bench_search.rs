//! `sluice bench search` against a device under test whose limit is known: a namespace in which Linux
//! forwards, and nftables drops what exceeds a rate.
//!
//! ```text
//!   tester's namespace                    namespace under test
//!   t0 10.83.1.2 ---------------------- d0 10.83.1.1
//!                                          |  forward, "limit rate over 20000/second"
//!   t1 10.83.2.2 ---------------------- d1 10.83.2.1
//! ```
//!
//! No speed of this machine is asserted: the limit is far below what it forwards.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Output, Stdio};
use std::thread;

use load::document::{Document, Outcome, SearchOutcome};
use nix::sched::{CloneFlags, setns, unshare};

/// What nftables lets through, in packets per second.
const LIMIT_PPS: f64 = 20_000.0;

/// A network namespace without a name: it lives as long as this value.
struct Namespace {
    handle: File,
}

impl Namespace {
    fn new() -> Self {
        let handle = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare");
            File::open(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid()))
                .expect("the namespace has a file")
        })
        .join()
        .expect("the namespace is made");
        Self { handle }
    }

    /// A path by which `ip link ... netns PATH` finds it.
    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }

    /// Runs a command within this namespace, with `input` on its standard input.
    fn output(&self, command: &mut Command, input: &str) -> Output {
        thread::scope(|scope| {
            let run = || {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("root may setns");
                let mut child = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::piped())
                    .spawn()
                    .unwrap_or_else(|error| panic!("{command:?} cannot be run: {error}"));
                let mut stdin = child.stdin.take().expect("it is a pipe");
                stdin.write_all(input.as_bytes()).expect("the command reads its input");
                drop(stdin);
                child.wait_with_output().expect("the command ends")
            };
            scope.spawn(run).join().expect("the command was run")
        })
    }

    /// Runs a command line and asserts that it succeeds.
    fn run(&self, line: &str) {
        self.feed(line, "");
    }

    fn feed(&self, line: &str, input: &str) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().expect("a command"));
        let output = self.output(command.args(words), input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` failed: {stderr}");
    }
}

/// Why this test cannot run here, if it cannot.
fn obstacle() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root (network namespaces, BPF)");
    }
    let nft = Command::new("nft").arg("--version").output();
    nft.is_err().then_some("needs nft (package nftables)")
}

/// Two namespaces and the limit between them.
fn bench() -> (Namespace, Namespace) {
    let (tester, device) = (Namespace::new(), Namespace::new());
    for (number, (test, under)) in [("t0", "d0"), ("t1", "d1")].into_iter().enumerate() {
        tester.run(&format!(
            "ip link add {test} address 02:00:00:00:01:0{number} type veth peer name {under} \
             address 02:00:00:00:02:0{number} netns {}",
            device.path()
        ));
        let subnet = number + 1;
        for (namespace, name, host) in [(&tester, test, 2), (&device, under, 1)] {
            namespace.run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
            namespace.run(&format!("ethtool -K {name} tx off rx off tso off gso off gro off"));
            namespace.run(&format!("ip address add 10.83.{subnet}.{host}/24 dev {name}"));
            namespace.run(&format!("ip link set {name} up"));
        }
    }
    // Packets that are redirected to a veth pair need a peer that takes them: GRO makes it one.
    device.run("ethtool -K d0 gro on");
    device.run("sysctl -qw net.ipv4.ip_forward=1");
    device.run("ip neigh replace 10.83.2.2 lladdr 02:00:00:00:01:01 dev d1 nud permanent");
    // The burst, 15 ms of packets, takes what a busy machine holds up; it makes a trial of 300 ms see
    // a limit that is 5 % higher.
    device.feed(
        "nft -f -",
        &format!(
            "table ip bench {{\n chain forward {{\n type filter hook forward priority 0\n \
             limit rate over {LIMIT_PPS}/second burst 300 packets drop\n }}\n}}\n"
        ),
    );
    (tester, device)
}

/// What the search found; `None` when the machine held the generator up too often to tell.
fn search(tester: &Namespace) -> Option<SearchOutcome> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["bench", "search"]);
    command.args(
        "--tx t0 --rx t1 --dst-mac 02:00:00:00:02:00 --src 10.83.1.2 --dst 10.83.2.2".split(' '),
    );
    command.args("--min-rate 2000 --max-rate 100000 --width 5%".split(' '));
    command.args("--trial 300ms --trials-sum 1500ms --warm-up 200ms".split(' '));
    // The test's machine may be a busy virtual one: what it loses to others is not the question.
    command.args("--steal-max 100% --max-duration 2m --latency-trial 300ms".split(' '));
    command.args(["--subject", "linux", "--placement", "one core for all", "--json"]);
    let output = tester.output(&mut command, "");
    let stderr = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && stderr.contains("was void") {
        return None;
    }
    assert!(output.status.success(), "sluice bench search failed: {stderr}");
    assert!(stderr.contains("trial   1 "), "no progress on stderr: {stderr}");
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    let document = Document::parse(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
    match document.outcome {
        Outcome::Search(outcome) => Some(outcome),
        other => panic!("not a search: {other:?}"),
    }
}

#[test]
fn a_search_finds_the_limit_that_nftables_sets() {
    if let Some(obstacle) = obstacle() {
        // Past the test harness, which would swallow what a passing test prints.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a_search_finds_the_limit_that_nftables_sets: {obstacle}"
        );
        return;
    }
    let (tester, _device) = bench();
    let Some(outcome) = (0..5).find_map(|_| search(&tester)) else {
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED a_search_finds_the_limit_that_nftables_sets: the machine is too busy: five \
             searches had void trials only"
        );
        return;
    };

    let (ndr, pdr) = (outcome.ndr, outcome.pdr);
    let state = format!("NDR {ndr:?}, PDR {pdr:?}, notes {:?}", outcome.notes);
    assert!(ndr.is_conclusive && pdr.is_conclusive, "{state}");
    let found = ndr.lower_pps.expect("conclusive results have bounds");
    assert!((found / LIMIT_PPS - 1.0).abs() <= 0.25, "{state}");
    assert!(ndr.lower_pps <= pdr.lower_pps, "{state}");
    assert_eq!((ndr.trial_s, ndr.goal_trials_s, ndr.exceed_ratio), (0.3, 1.5, 0.5));

    let loads: Vec<_> = outcome.latency.iter().map(|at| at.load.as_str()).collect();
    assert_eq!(loads, ["idle", "50 %", "90 %"], "{state}");
    assert!(outcome.latency.iter().all(|at| at.latency.count > 0 && at.latency.p50_ns > 0));
    assert!(outcome.latency[2].p50_over_idle_ns.is_some());
    assert_eq!((outcome.subject.as_str(), outcome.frame_bytes), ("linux", Some(60)));
    for trial in &outcome.trials {
        assert_eq!(trial.sent - trial.received, trial.lost, "{trial:?}");
    }
}
