//! Fragments end to end: sockets of Linux on both sides of a running router with two queues, whose
//! fragments it gives to the owner of their slice and lets out again. In network namespaces that the
//! test makes; skipped without root.
//!
//! ```text
//!  world  wan0p ---- wan0  router  lan0 ---- lan0p  web
//!  10.0.0.1, fd00::1                      10.1.0.2, fd01::2; 192.0.2.1, 2001:db8:5::1 on lo
//! ```
//!
//! A kernel sends all fragments of a datagram on the queue of their socket. The worker that follows them is
//! another one for half of all datagrams, since it goes by the identification.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

const SLUICE: &str = env!("CARGO_BIN_EXE_sluice");

/// How long the start or the first answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[workers]
cores = [0, 1]
[[interface]]
name = "wan0"
role = "outside"
[[interface]]
name = "lan0"
role = "inside"
[[node]]
name = "a"
address = "10.0.0.11"
[[owner]]
name = "web"
node = "a"
deliver = { next_hop = "10.1.0.2", interface = "lan0" }
[[owner]]
name = "web6"
node = "a"
deliver = { next_hop = "fd01::2", interface = "lan0" }
[[egress]]
prefix = "192.0.2.1/32"
default = "drop"
[[egress.slice]]
ports = "1024-33791"
node = "a"
owner = "web"
[[egress]]
prefix = "2001:db8:5::1/128"
default = "drop"
[[egress.slice]]
ports = "1024-33791"
node = "a"
owner = "web6"
"#;

/// Three namespaces and a router between them; removed at the end, whatever happened.
struct Site {
    name: String,
    folder: tempfile::TempDir,
    router: Option<Child>,
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("the program can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}

impl Site {
    fn new(poll: &str, lan_mtu: u32) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: fragments end to end, since this is not root");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("slf-{}-{number}", std::process::id());
        let mut site = Self { name, folder: tempfile::tempdir().expect("a folder"), router: None };
        for of in ["world", "router", "web"] {
            run(Command::new("ip").args(["netns", "add", &site.namespace(of)]));
            site.ip(of, "link set lo up");
        }
        site.link("wan0", "world", "10.0.0.11/24 fd00::11/64", "10.0.0.1/24 fd00::1/64", 1500);
        site.link("lan0", "web", "10.1.0.1/24 fd01::1/64", "10.1.0.2/24 fd01::2/64", lan_mtu);
        for setting in ["net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"] {
            run(site.within("router", "sysctl").args(["-qw", setting]));
        }
        site.ip("router", "route add default via 10.0.0.1");
        site.ip("router", "route add default via fd00::1");
        site.ip("world", "route add 192.0.2.1 via 10.0.0.11");
        site.ip("world", "route add 2001:db8:5::1 via fd00::11");
        site.ip("web", "addr add 192.0.2.1/32 dev lo");
        site.ip("web", "addr add 2001:db8:5::1/128 dev lo");
        site.ip("web", "route add default via 10.1.0.1");
        site.ip("web", "route add default via fd01::1");
        site.start(poll);
        Some(site)
    }

    fn namespace(&self, of: &str) -> String {
        format!("{}-{of}", self.name)
    }

    /// A veth pair with two queues between the router and another namespace.
    fn link(&self, link: &str, other: &str, ours: &str, theirs: &str, mtu: u32) {
        let peer = format!("{link}p");
        let there = self.namespace(other);
        self.ip(
            "router",
            &format!(
                "link add {link} mtu {mtu} numrxqueues 2 numtxqueues 2 type veth peer name {peer} \
                 mtu {mtu} numrxqueues 2 numtxqueues 2 netns {there}"
            ),
        );
        for (of, device, addresses) in [("router", link, ours), (other, &peer, theirs)] {
            // A checksum that is left to the card is wrong on a veth.
            let off = ["-K", device, "tx", "off", "gro", "off", "gso", "off", "tso", "off"];
            run(self.within(of, "ethtool").args(off));
            self.ip(of, &format!("link set {device} up"));
            for address in addresses.split(' ') {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                self.ip(of, &format!("addr add {address} dev {device} {nodad}"));
            }
        }
    }

    fn ip(&self, of: &str, words: &str) {
        let mut command = Command::new("ip");
        run(command.args(["-n", &self.namespace(of)]).args(words.split_whitespace()));
    }

    /// A command in a namespace; not by `ip netns exec`, which hides the BPF file system.
    fn within(&self, of: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(of))).arg(program);
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self, poll: &str) {
        let text = format!(
            "[router]\nname = \"{}\"\nnode = \"a\"\ncontrol_socket = \"{}\"\npoll = \"{poll}\"\n{CONFIG}",
            self.name,
            self.path("control.sock").display(),
        );
        let config = self.path("sluice.toml");
        fs::write(&config, text).expect("the configuration can be written");
        let log = fs::File::create(self.path("log")).expect("a log");
        let mut command = self.within("router", SLUICE);
        command.args(["run", "--config"]).arg(config);
        let output = Stdio::from(log.try_clone().expect("a log"));
        let child = command.stdout(output).stderr(Stdio::from(log)).spawn();
        self.router = Some(child.expect("a process"));
        let deadline = Instant::now() + PATIENCE;
        while !self.status_command().status.success() {
            let log = fs::read_to_string(self.path("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the router does not start: {log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn status_command(&self) -> Output {
        let mut command = Command::new(SLUICE);
        command.args(["status", "--json", "--socket"]).arg(self.path("control.sock"));
        command.output().expect("the status")
    }

    fn interfaces(&self) -> Vec<Value> {
        let output = self.status_command();
        let status: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        status["interfaces"].as_array().expect("interfaces").clone()
    }

    /// The sum of a counter over both interfaces.
    fn sum(&self, counter: &str) -> u64 {
        let interfaces = self.interfaces();
        interfaces.iter().map(|each| each[counter].as_u64().expect("a counter")).sum()
    }

    fn dropped(&self, reason: &str) -> u64 {
        let interfaces = self.interfaces();
        interfaces.iter().map(|each| each["drops"][reason].as_u64().expect("a reason")).sum()
    }

    /// Runs something on a thread of its own in a namespace.
    fn inside<T: Send + 'static>(
        &self,
        of: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/run/netns/{}", self.namespace(of));
        let namespace = fs::File::open(path).expect("the namespace");
        std::thread::spawn(move || {
            nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).expect("setns");
            work()
        })
    }

    /// How many of `count` datagrams of this size come back from an echo at the slice, each as it went.
    fn echoes(&self, at: SocketAddr, count: u32, size: usize) -> u32 {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = mpsc::channel();
        let server = self.inside("web", move || {
            let socket = UdpSocket::bind(at).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            ready.send(()).expect("the test waits");
            let mut buffer = vec![0; 65_536];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    // A peer that is not reachable yet will ask again.
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        });
        is_ready.recv().expect("the server runs");
        let client = self.inside("world", move || {
            let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.connect(at).expect("a route");
            socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
            let mut buffer = vec![0; 65_536];
            let deadline = Instant::now() + PATIENCE;
            // Until the neighbors are resolved.
            while !matches!(exchange(&socket, 0, 100, &mut buffer), Ok(true)) {
                assert!(Instant::now() < deadline, "not even a small packet comes back");
            }
            let exchange =
                |number| matches!(exchange(&socket, number, size, &mut buffer), Ok(true));
            (1..=count).map(exchange).map(u32::from).sum()
        });
        let came = client.join().expect("the client");
        stop.store(true, Ordering::Relaxed);
        server.join().expect("the server");
        came
    }

    /// Everything received is accounted for, and nothing for a reason that fragments must not meet here.
    fn check(&self) {
        std::thread::sleep(Duration::from_millis(300));
        for interface in self.interfaces() {
            let of = |key: &str| interface[key].as_u64().expect("a counter");
            let drops = interface["drops"].as_object().expect("drops");
            let dropped: u64 = drops.values().filter_map(Value::as_u64).sum();
            let ends = of("forwarded") + of("to_kernel") + of("consumed") + of("held") + dropped;
            assert_eq!(of("rx_packets"), ends, "{interface:#}");
        }
        for reason in [
            "slice-fragment",
            "fragment-overlap",
            "fragment-malformed",
            "fragment-full",
            "handoff-full",
        ] {
            assert_eq!(self.dropped(reason), 0, "{reason}");
        }
    }
}

/// The datagram with this number, which stands at its start.
fn datagram(number: u32, size: usize) -> Vec<u8> {
    let body = (4..size).map(|at| (at as u32 * 7 + at as u32 / 256 + number) as u8);
    number.to_be_bytes().into_iter().chain(body).collect()
}

/// Sends a datagram and waits for it to come back, past late answers to those before it. Whatever comes
/// must be what was sent.
fn exchange(
    socket: &UdpSocket,
    number: u32,
    size: usize,
    buffer: &mut [u8],
) -> std::io::Result<bool> {
    socket.send(&datagram(number, size))?;
    loop {
        let len = socket.recv(buffer)?;
        let came = u32::from_be_bytes(buffer[..4].try_into().expect("4 bytes"));
        assert!(buffer[..len] == datagram(came, len), "a datagram was changed on its way");
        if came == number {
            return Ok(len == size);
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if let Some(router) = &mut self.router {
            let pid = nix::unistd::Pid::from_raw(router.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = router.wait();
        }
        for of in ["world", "router", "web"] {
            let _ = Command::new("ip").args(["netns", "del", &self.namespace(of)]).status();
        }
        let _ = fs::remove_dir_all(format!("/sys/fs/bpf/sluice/{}", self.name));
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn datagrams_in_fragments_reach_their_slice_and_come_back() {
    let Some(site) = Site::new("adaptive", 1500) else { return };
    for at in ["192.0.2.1:2000", "[2001:db8:5::1]:2000"] {
        // Copy-mode transmission on veth loses a packet in a hundred, and each datagram is twelve.
        let came = site.echoes(address(at), 60, 8000);
        eprintln!("{came} of 60 datagrams came back from {at}");
        assert!(came >= 30, "{came} of 60 datagrams came back from {at}");
    }
    assert!(site.sum("handed_over") > 100, "about half of all fragments");
    let ping = |destination: &str| {
        let mut command = site.within("world", "ping");
        command.args([
            "-c",
            "20",
            "-i",
            "0.05",
            "-W",
            "1",
            "-s",
            "4000",
            "-e",
            "2000",
            destination,
        ]);
        command.output().expect("ping")
    };
    for destination in ["192.0.2.1", "2001:db8:5::1"] {
        let output = ping(destination);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "no answer from {destination}: {said}");
    }
    site.check();
}

#[test]
fn fragments_too_large_for_the_next_link_are_fragmented_again() {
    let Some(site) = Site::new("busy", 1400) else { return };
    let came = site.echoes(address("192.0.2.1:2000"), 60, 8000);
    assert!(came >= 30, "{came} of 60 datagrams came back");
    let created = site.sum("fragments_created");
    assert!(created >= 30 * 10, "five of six fragments are too large: {created}");
    assert_eq!(created, site.sum("fragmented") * 2);
    site.check();
}
