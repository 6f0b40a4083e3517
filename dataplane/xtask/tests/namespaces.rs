//! The ground of the lab, on real namespaces: what is made is as asked for, and goes away however
//! the lab ends. Skips without root.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use xtask::command::output;
use xtask::lab::cleanup::{self, NAMESPACES, PINS};
use xtask::lab::link::{End, Link};
use xtask::lab::namespace::Namespace;

const GROUP: &str = "xtask";

/// Whether namespaces can be made here; says so when they cannot.
fn can_run(test: &str) -> bool {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED {test}: it makes network namespaces and needs root");
        return false;
    }
    for program in ["ip", "ethtool", "ping", "tshark"] {
        if Command::new("which")
            .arg(program)
            .stdout(Stdio::null())
            .status()
            .is_ok_and(|s| !s.success())
        {
            eprintln!("SKIPPED {test}: no {program} here; `cargo xtask setup` installs it");
            return false;
        }
    }
    // Tests run at the same time, each with its own probe.
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = cleanup::name(GROUP, &format!("probe{number}"));
    if output(Command::new("ip").args(["netns", "add", &name])).is_err() {
        eprintln!("SKIPPED {test}: this container may not make network namespaces");
        return false;
    }
    output(Command::new("ip").args(["netns", "delete", &name])).expect("it was made just now");
    true
}

fn exists(name: &str) -> bool {
    Path::new(NAMESPACES).join(name).exists()
}

#[test]
fn a_link_is_as_asked_for_and_sockets_stay_inside() {
    if !can_run("a_link_is_as_asked_for_and_sockets_stay_inside") {
        return;
    }
    let names = {
        let left = Namespace::create(GROUP, "left").expect("a namespace");
        let right = Namespace::create(GROUP, "right").expect("a namespace");
        let link = Link { queues: 3, mtu_bytes: 3498 };
        let mac = "02:00:00:00:00:01";
        link.connect(
            &End { mac: Some(mac), ..End::new(&left, "eth0", &["192.0.2.1/31", "2001:db8::1/64"]) },
            &End::new(&right, "eth0", &["192.0.2.0/31", "2001:db8::2/64"]),
        )
        .expect("a link");
        let show = left.ip(&["link", "show", "dev", "eth0"]).expect("the interface");
        assert!(show.contains(mac), "{show}");
        let wrong = Link { queues: 2, mtu_bytes: 3498 };
        let error = wrong.verify(&left, "eth0").expect_err("it has three queues").to_string();
        assert_eq!(error, "eth0: num_rx_queues is 3, not 2");

        // IPv6 addresses are usable at once.
        for (from, to) in [("192.0.2.1:0", "192.0.2.0:7"), ("[2001:db8::1]:0", "[2001:db8::2]:7")] {
            let receiver = right.within(|| UdpSocket::bind(to)).unwrap().expect("a socket inside");
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let sender = left.within(|| UdpSocket::bind(from)).unwrap().expect("a socket inside");
            sender.send_to(b"across", to).expect("sent");
            let mut bytes = [0; 16];
            let (count, _) = receiver.recv_from(&mut bytes).expect("received");
            assert_eq!(&bytes[..count], b"across");
        }
        assert!(UdpSocket::bind("192.0.2.1:0").is_err(), "the thread that enters is another one");

        // What ethtool switches on again is found.
        left.output(Command::new("ethtool").args(["-K", "eth0", "tx", "on"])).expect("ethtool");
        let error = link.verify(&left, "eth0").expect_err("an offload is on").to_string();
        assert!(error.contains("tx-checksumming"), "{error}");
        [left.name().to_owned(), right.name().to_owned()]
    };
    assert!(!names.iter().any(|name| exists(name)), "dropped namespaces are deleted");
}

#[test]
fn a_failure_names_the_namespace_and_the_command() {
    if !can_run("a_failure_names_the_namespace_and_the_command") {
        return;
    }
    let namespace = Namespace::create(GROUP, "errors").expect("a namespace");
    let again = Namespace::create(GROUP, "errors").expect_err("it exists").to_string();
    assert!(again.contains("File exists"), "{again}");
    assert!(exists(namespace.name()), "a refused second one does not delete the first");
    let error = namespace.output(&mut Command::new("false")).expect_err("it fails");
    assert_eq!(
        format!("{error:#}"),
        format!("in {}: `false` failed (exit status: 1): ", namespace.name())
    );
    let error = namespace.sysctl("net/ipv4/no_such_key", "1").expect_err("no such key");
    assert!(format!("{error:#}").contains("/proc/sys/net/ipv4/no_such_key = 1"), "{error:#}");
}

#[test]
fn what_a_killed_run_left_is_deleted_and_what_lives_is_not() {
    if !can_run("what_a_killed_run_left_is_deleted_and_what_lives_is_not") {
        return;
    }
    const LEFT: &str = "xtaskleft";
    let mut ended = Command::new("true").spawn().expect("a process");
    let pid = ended.id();
    ended.wait().expect("it ends");
    let stale = format!("slt-{LEFT}-{pid}-client");
    output(Command::new("ip").args(["netns", "add", &stale])).expect("a namespace");
    let living = Namespace::create(LEFT, "living").expect("a namespace");
    let deleted = cleanup::delete_leftovers(LEFT).expect("deleted");
    assert_eq!(deleted.as_slice(), std::slice::from_ref(&stale));
    assert!(!exists(&stale));
    assert!(exists(living.name()));
}

#[test]
fn a_signal_removes_everything() {
    if !can_run("a_signal_removes_everything") {
        return;
    }
    // The lab would build them, and cargo is at work already.
    if ["SLUICE_ROUTER", "SLUICE_PLUGINS"].iter().any(|name| std::env::var_os(name).is_none()) {
        eprintln!(
            "SKIPPED a_signal_removes_everything: run by `cargo xtask test`, which builds a router"
        );
        return;
    }
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut lab = Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["lab", "--json"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the lab starts");
        let pid = lab.id();
        let names = ["ix", "inet1", "inet2", "node-a", "node-b", "host-a"]
            .map(|role| format!("slt-lab-{pid}-{role}"));
        let folder = std::env::temp_dir().join(format!("slt-lab-{pid}-run"));
        let pins = ["a", "b"].map(|letter| Path::new(PINS).join(format!("lab-{pid}-{letter}")));
        let deadline = Instant::now() + Duration::from_secs(60);
        // A router has attached its programs: the most that can be left behind.
        while !pins[1].exists() {
            assert!(lab.try_wait().expect("known").is_none(), "the lab ended before the signal");
            assert!(Instant::now() < deadline, "no router ever starts");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(names.iter().all(|name| exists(name)));
        assert_ne!(processes_with(&folder), 0);
        kill(Pid::from_raw(pid.cast_signed()), signal).expect("it lives");
        let status = lab.wait().expect("it ends");
        assert_eq!(status.code(), Some(128 + signal as i32));
        assert!(!names.iter().any(|name| exists(name)), "a namespace outlived {signal}");
        while processes_with(&folder) > 0 {
            assert!(Instant::now() < deadline, "a process outlived {signal}");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!folder.exists(), "a folder outlived {signal}");
        assert!(!pins.iter().any(|pins| pins.exists()), "a pin outlived {signal}");
    }
}

/// Number of processes with a path in their command line.
fn processes_with(path: &Path) -> usize {
    let path = path.display().to_string();
    std::fs::read_dir("/proc")
        .expect("/proc")
        .filter_map(|entry| std::fs::read(entry.ok()?.path().join("cmdline")).ok())
        .filter(|line| String::from_utf8_lossy(line).contains(&path))
        .count()
}
