//! A laboratory for tests: network and mount namespaces of their own, which vanish with the test's
//! threads and descriptors, however the test ends.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::{
    fs::File,
    io::Write,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};

/// A network namespace without a name: it lives as long as this value.
pub struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new one, with its loopback up.
    pub fn new() -> Self {
        let handle = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("root may unshare");
            run("ip link set lo up");
            // Neighbor Discovery and the like would disturb counters.
            run("sysctl -qw net.ipv6.conf.all.disable_ipv6=0");
            File::open(format!("/proc/self/task/{}/ns/net", nix::unistd::gettid()))
                .expect("the namespace has a file")
        })
        .join()
        .expect("the namespace is made");
        Self { handle }
    }

    /// A path by which `ip link ... netns PATH` finds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.handle.as_raw_fd())
    }

    /// Runs `body` on a thread of its own within this namespace. The thread shares the caller's
    /// mounts, so that a bpffs of the laboratory is seen.
    pub fn enter<R: Send>(&self, body: impl FnOnce() -> R + Send) -> R {
        thread::scope(|scope| {
            let joined = scope
                .spawn(|| {
                    setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("root may setns");
                    body()
                })
                .join();
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a command within this namespace and asserts that it succeeds.
    pub fn run(&self, command: &str) {
        self.enter(|| run(command));
    }
}

/// Runs `body` on a thread with mounts of its own, among them a fresh bpffs whose path it gets.
/// Returns false, after saying so, when the process may not do that.
pub fn with_bpffs(test: &str, body: impl FnOnce(&Path) + Send) -> bool {
    if !nix::unistd::geteuid().is_root() {
        // Past the test harness, which would swallow what a passing test prints.
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED {test}: needs root (network namespaces, AF_XDP, BPF)"
        );
        return false;
    }
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path: PathBuf = directory.path().into();
    thread::scope(|scope| {
        let joined = scope
            .spawn(|| {
                unshare(CloneFlags::CLONE_NEWNS).expect("root may unshare");
                let none: Option<&str> = None;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                    .expect("mounts can be made private");
                mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), none)
                    .expect("a bpffs can be mounted");
                body(&path);
            })
            .join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    true
}

/// Makes a veth pair with two queues at each end, `left` in one namespace and `right` in the other,
/// up, with all offloads off that would leave packets unfinished.
pub fn veth(left: (&Namespace, &str), right: (&Namespace, &str)) {
    let queues = "numrxqueues 2 numtxqueues 2";
    left.0.run(&format!(
        "ip link add {} {queues} type veth peer name {} {queues} netns {}",
        left.1,
        right.1,
        right.0.path()
    ));
    for (namespace, name) in [left, right] {
        namespace.run(&format!("sysctl -qw net.ipv6.conf.{name}.disable_ipv6=1"));
        namespace.run(&format!("ethtool -K {name} tx off rx off tso off gso off gro off"));
        namespace.run(&format!("ip link set {name} up"));
    }
}

/// Runs a command where the thread is and asserts that it succeeds.
pub fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a command"))
        .args(words)
        .output()
        .unwrap_or_else(|error| panic!("`{command}` cannot be run: {error}"));
    assert!(
        output.status.success(),
        "`{command}` failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
