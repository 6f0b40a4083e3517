//! `sluice bench generate` over veth pairs: back to back, through a forwarding kernel, and when things
//! break meanwhile. In network namespaces that the tests make; skipped without root.

use std::io::{Read, Write};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// How long a run may take beyond its own time on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run that is long enough for something to happen in it.
const LONG: &str = "30s";

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("the program can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

/// A network namespace, removed at the end whatever happened.
struct Namespace(String);

impl Namespace {
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            let _ = writeln!(std::io::stderr(), "SKIPPED bench_generate: needs root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slt-bench-{}-{number}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &name]));
        Some(Self(name))
    }

    fn within(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.0)).arg(program);
        command
    }

    fn does(&self, line: &str) {
        let mut words = line.split_whitespace();
        run(self.within(words.next().expect("a program")).args(words));
    }

    /// Makes a veth pair of so many queues, one end here and one there, up and without offloads.
    fn veth(&self, here: &str, there: &str, other: &Self, queues: u32) {
        let queues = format!("numrxqueues {queues} numtxqueues {queues}");
        self.does(&format!(
            "ip link add {here} {queues} type veth peer name {there} {queues} netns {}",
            other.0
        ));
        for (namespace, name) in [(self, here), (other, there)] {
            // Neighbor Discovery would be foreign packets.
            namespace.does(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
            namespace.does(&format!("ethtool -K {name} tx off rx off tso off gso off gro off"));
        }
        self.does(&format!("ip link set {here} up"));
        other.does(&format!("ip link set {there} up"));
    }

    fn generate(&self, options: &str) -> Command {
        let mut command = self.within(SLUICE);
        command.args(["bench", "generate", "--tx", "tx0", "--rx", "rx0"]);
        command.args(options.split_whitespace());
        command
    }

    /// A run that succeeds: its trial and its traffic in words.
    #[track_caller]
    fn measured(&self, options: &str) -> (Value, String) {
        let output = self.generate(options).arg("--json").output().expect("sluice can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{options}: {said}");
        let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        assert_eq!(document["outcome"]["kind"], "trial");
        assert!(document["machine"]["cpus"].as_u64() > Some(0), "{document}");
        let outcome = &document["outcome"];
        let traffic = outcome["traffic"].as_str().expect("text").to_owned();
        let seconds = outcome["seconds"].as_array().expect("seconds");
        for field in ["sent", "received"] {
            let sum: u64 = seconds.iter().filter_map(|second| second[field].as_u64()).sum();
            assert_eq!(Some(sum), outcome["trial"][field].as_u64(), "{field} of {document}");
        }
        (outcome["trial"].clone(), traffic)
    }

    #[track_caller]
    fn refused(&self, options: &str, words: &str) {
        let output = self.generate(options).output().expect("sluice can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{options}: was not refused");
        assert!(said.contains(words), "{options}: {said:?} does not say {words:?}");
    }

    /// A long run that has begun to send.
    fn begun(&self, options: &str) -> Running {
        let before = self.arrived();
        let mut child = self
            .generate(options)
            .args(["--duration", LONG, "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sluice can be run");
        let start = Instant::now();
        while self.arrived() < before + 1000 {
            if start.elapsed() > PATIENCE || child.try_wait().expect("a child").is_some() {
                let mut said = String::new();
                let _ = child.kill();
                let _ = child.stderr.take().expect("a pipe").read_to_string(&mut said);
                panic!("{options}: nothing is sent: {said}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Running(Some(child))
    }

    /// Packets that rx0 has received.
    fn arrived(&self) -> u64 {
        let output = self.within("ip").args(["-s", "-j", "link", "show", "rx0"]).output();
        let links: Value =
            serde_json::from_slice(&output.expect("ip can be run").stdout).unwrap_or_default();
        links[0]["stats64"]["rx"]["packets"].as_u64().unwrap_or(0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

/// A generator that runs, and is killed with the test if that fails.
struct Running(Option<Child>);

impl Running {
    fn id(&self) -> Pid {
        let id = self.0.as_ref().expect("it runs").id();
        Pid::from_raw(i32::try_from(id).expect("a process number"))
    }

    fn output(mut self) -> Output {
        let child = self.0.take().expect("it runs");
        child.wait_with_output().expect("it ends")
    }

    /// What it says when it ends by itself, without any figures.
    #[track_caller]
    fn failure(self) -> String {
        let start = Instant::now();
        let output = self.output();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(start.elapsed() < Duration::from_secs(15), "it went on: {said}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "there are half figures");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// tx0 and rx0, the two ends of one cable.
fn back_to_back() -> Option<Namespace> {
    let tester = Namespace::new()?;
    tester.veth("tx0", "rx0", &tester, 2);
    Some(tester)
}

#[track_caller]
fn assert_nothing_lost(trial: &Value, sent: u64) {
    for (field, expected) in [
        ("sent", sent),
        ("received", sent),
        ("lost", 0),
        ("reordered", 0),
        ("duplicated", 0),
        ("refused", 0),
    ] {
        assert_eq!(trial[field].as_u64(), Some(expected), "{field} of {trial}");
    }
    assert_eq!(trial["void"], Value::Array(Vec::new()));
    let latency = |field: &str| trial["latency"][field].as_u64().expect("it was timed");
    assert!(latency("min_ns") > 0 && latency("min_ns") <= latency("p50_ns"));
    assert!(latency("p50_ns") <= latency("p99_ns") && latency("p999_ns") <= latency("max_ns"));
    assert_eq!(latency("count"), sent);
}

#[test]
fn every_engine_and_sink_counts_every_packet() {
    let Some(tester) = back_to_back() else { return };
    // A sink in user space has to be run in time: on a busy machine its ring must hold half a second.
    for (engine, sink, rate) in [
        ("live", "kernel", 20_000),
        ("xsk", "kernel", 20_000),
        ("xsk", "xsk", 2_000),
        ("live", "xsk", 2_000),
    ] {
        let (trial, traffic) = tester.measured(&format!(
            "--dst-mac 02:00:00:00:00:01 --rate {rate} --duration 2s --flows 100 --engine {engine} \
             --sink {sink}"
        ));
        assert_nothing_lost(&trial, 2 * rate);
        assert_eq!(trial["asked_pps"].as_f64(), Some(rate as f64));
        let words = format!("60 B, 100 flows, IPv4 UDP; sent by {engine} (1 worker) on tx0");
        assert!(traffic.starts_with(&words) && traffic.ends_with("one way"), "{traffic}");
    }
}

/// The last packet of the second worker is due half a second after that of the first.
#[test]
fn slow_workers_send_all_of_their_packets() {
    let Some(tester) = back_to_back() else { return };
    for engine in ["live", "xsk"] {
        let (trial, _) = tester.measured(&format!(
            "--dst-mac 02:00:00:00:00:01 --rate 2 --duration 2s --queues 0,1 --engine {engine}"
        ));
        assert_eq!((trial["sent"].as_u64(), trial["lost"].as_u64()), (Some(4), Some(0)), "{trial}");
        assert_eq!(trial["is_generator_limited"], false, "{trial}");
        assert!(trial["late_max_ns"].as_u64().is_some(), "{trial}");
    }
}

/// An hour's measurement is not lost with the disk, and half of it is left nowhere.
#[test]
fn results_that_cannot_be_written_are_printed() {
    let Some(tester) = back_to_back() else { return };
    let run = "--dst-mac 02:00:00:00:00:01 --rate 1k --packets 10";
    let output = tester
        .generate(run)
        .args(["--json", "--out", "/dev/full", "--csv", "/dev/full"])
        .output()
        .expect("sluice can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("/dev/full: cannot be written"), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
    assert_eq!(document["outcome"]["trial"]["sent"].as_u64(), Some(10));

    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    let output = tester.generate(run).stdout(full).output().expect("sluice can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("cannot be printed") && !said.contains("panicked"), "{said}");

    // Whoever has no place for the result learns it before the run.
    tester.refused(&format!("{run} --out /no/such/folder/x.json"), "cannot be written");
}

#[test]
fn all_kinds_of_packets_arrive() {
    let Some(tester) = back_to_back() else { return };
    for engine in ["live", "xsk"] {
        for packets in [
            "--size imix --flows 1k --zipf 1.0",
            "--kind tcp-syn --src 2001:db8::/64 --dst 2001:db8:1::/64 --flows 10",
            "--kind tcp-ack --size 1514",
            "--burst --flows 10 --queues 0,1",
            "--slices 192.0.2.1:1024-2047,192.0.2.2:1024-2047",
            "--src 10.1.0.0/16,2001:db8::/64 --dst 10.2.0.0/16,2001:db8:1::/64 --flows 100 \
             --ipv6-share 36%",
        ] {
            let (trial, _) = tester.measured(&format!(
                "--dst-mac 02:00:00:00:00:01 --rate 20k --packets 5000 --engine {engine} {packets}"
            ));
            assert_nothing_lost(&trial, 5000);
        }
    }
}

#[test]
fn a_capture_is_replayed() {
    let Some(tester) = back_to_back() else { return };
    let capture = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/ecmp/in-lan0.pcap");
    let options = format!("--rate 20k --packets 3000 --pcap {capture}");
    let (trial, traffic) = tester.measured(&format!("{options} --engine xsk"));
    assert_eq!((trial["sent"].as_u64(), trial["lost"].as_u64()), (Some(3000), Some(0)), "{trial}");
    assert!(traffic.contains("in-lan0.pcap"), "{traffic}");
    tester.refused(&format!("{options} --engine live"), "--engine xsk");
}

#[test]
fn a_forwarding_kernel_is_measured() {
    let (Some(tester), Some(device)) = (Namespace::new(), Namespace::new()) else { return };
    // One queue: several have no order among each other, and so flows would not.
    tester.veth("tx0", "lan0", &device, 1);
    tester.veth("rx0", "wan0", &device, 1);
    tester.does("ip address add 10.1.0.2/24 dev tx0");
    device.does("ip address add 10.1.0.1/24 dev lan0");
    device.does("ip address add 10.2.0.1/24 dev wan0");
    device.does("sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
    device.does("sysctl -qw net.ipv4.conf.lan0.rp_filter=0");
    device.does("ip route add 198.19.0.0/16 via 10.2.0.2");
    device.does("ip neighbor add 10.2.0.2 lladdr 02:00:00:00:00:02 dev wan0");
    // Frames that are redirected to a veth interface need a peer that polls.
    device.does("ethtool -K lan0 gro on");
    for engine in ["live", "xsk"] {
        let (trial, _) = tester.measured(&format!(
            "--gateway 10.1.0.1 --flows 100 --rate 20kpps --duration 2s --engine {engine}"
        ));
        assert_nothing_lost(&trial, 40_000);
    }
    // Without the route, all of it is lost: what is counted is what arrives.
    device.does("ip route del 198.19.0.0/16");
    let (trial, _) = tester.measured("--gateway 10.1.0.1 --rate 20kpps --packets 1000");
    assert_eq!((trial["received"].as_u64(), trial["lost"].as_u64()), (Some(0), Some(1000)));
}

#[test]
fn a_link_that_goes_down_leaves_no_figures() {
    for engine in ["live", "xsk"] {
        for (breakage, words) in
            [("ip link set rx0 down", "into the run"), ("ip link del tx0", "was removed")]
        {
            let Some(tester) = back_to_back() else { return };
            let run =
                tester.begun(&format!("--dst-mac 02:00:00:00:00:01 --rate 20k --engine {engine}"));
            tester.does(breakage);
            let said = run.failure();
            assert!(said.contains(words) && said.contains("no figures"), "{breakage}: {said}");
        }
    }
}

#[test]
fn a_signal_ends_a_run_with_what_was_measured() {
    let Some(tester) = back_to_back() else { return };
    for engine in ["live", "xsk"] {
        let run =
            tester.begun(&format!("--dst-mac 02:00:00:00:00:01 --rate 20k --engine {engine}"));
        kill(run.id(), Signal::SIGINT).expect("it runs");
        let output = run.output();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("a document");
        let trial = &document["outcome"]["trial"];
        assert!(trial["void"].to_string().contains("cut short"), "{trial}");
        assert_eq!(trial["sent"], trial["received"], "{trial}");
        assert_eq!(trial["is_generator_limited"], false, "{trial}");
    }
}

#[test]
fn starts_that_make_no_sense_are_refused() {
    let Some(tester) = back_to_back() else { return };
    tester.refused("", "--dst-mac MAC, or --gateway");
    tester.refused("--dst-mac 02:00:00:00:00:01 --rate fast", "is no rate");
    tester.refused("--dst-mac 02:00:00:00:00:01 --size 3000", "MTU is 1500");
    tester.refused("--dst-mac 02:00:00:00:00:01 --cores 999", "no core 999");
    tester.refused("--gateway 10.9.9.9", "no MAC address for 10.9.9.9");
    tester.does("ip link set rx0 down");
    tester.refused("--dst-mac 02:00:00:00:00:01", "ip link set dev");
    tester.does("ip link del rx0");
    tester.refused("--dst-mac 02:00:00:00:00:01", "there is no interface tx0");
}

#[test]
fn missing_capabilities_are_named() {
    let Some(tester) = back_to_back() else { return };
    let output = tester
        .within("setpriv")
        .args(["--bounding-set", "-bpf,-sys_admin,-net_admin", SLUICE, "bench", "generate"])
        .args(["--tx", "tx0", "--rx", "rx0", "--dst-mac", "02:00:00:00:00:01"])
        .output()
        .expect("setpriv can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("CAP_NET_ADMIN, CAP_BPF"), "{said}");
}
