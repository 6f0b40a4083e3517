//! A network namespace of the test's own, and what happens in it.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use control::kernel::{KernelEvent, KernelMirror, KernelState, MirrorOptions};
use crossbeam::channel::Receiver;

/// A network namespace, removed on drop.
pub(crate) struct Namespace {
    pub(crate) name: String,
}

impl Namespace {
    /// None, with a line that says so, without the right to make one.
    pub(crate) fn new(test: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "slt-control-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let made = Command::new("ip").args(["netns", "add", &name]).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED {test}: cannot make a network namespace (needs root and iproute2)");
            return None;
        }
        let namespace = Self { name };
        namespace.ip("link set lo up");
        Some(namespace)
    }

    /// Runs `ip` in the namespace, with the words of `arguments`, and gives its output.
    pub(crate) fn ip(&self, arguments: &str) -> String {
        let output = Command::new("ip")
            .args(["-n", &self.name])
            .args(arguments.split_whitespace())
            .output()
            .expect("ip runs");
        assert!(
            output.status.success(),
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("ip writes text")
    }

    /// Feeds `lines` to `ip -batch`.
    pub(crate) fn ip_batch(&self, lines: &str) {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("ip runs");
        child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("ip reads");
        assert!(child.wait().expect("ip ends").success(), "ip -batch failed");
    }

    /// Runs any program in the namespace.
    pub(crate) fn run(&self, arguments: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name])
            .args(arguments.split_whitespace())
            .output()
            .expect("ip runs");
        assert!(
            output.status.success(),
            "{arguments}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs `body` on a thread inside the namespace.
    pub(crate) fn enter<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace");
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)
                        .expect("enters the namespace");
                    body()
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// A pair of veth interfaces, both here and up, without offloads.
    pub(crate) fn veth(&self, near: &str, far: &str) {
        self.ip(&format!("link add {near} type veth peer name {far}"));
        self.start_veth(near);
        self.start_veth(far);
    }

    /// The peer goes to the namespace `other`.
    pub(crate) fn veth_to(&self, near: &str, far: &str, other: &Namespace) {
        self.ip(&format!("link add {near} type veth peer name {far} netns {}", other.name));
        self.start_veth(near);
        other.start_veth(far);
    }

    fn start_veth(&self, name: &str) {
        let _ = Command::new("ip")
            .args(["netns", "exec", &self.name, "ethtool", "-K", name])
            .args(["tx", "off", "tso", "off", "gro", "off"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        // No duplicate address detection: its end would be a change of its own.
        self.run(&format!("sysctl -qw net.ipv6.conf.{name}.accept_dad=0"));
        self.ip(&format!("link set {name} up"));
    }

    /// Starts a mirror inside.
    pub(crate) fn mirror(&self, options: MirrorOptions) -> Follower {
        let (mirror, events) =
            self.enter(|| KernelMirror::start(options)).expect("the mirror starts");
        let mut follower = Follower { mirror, events, state: KernelState::default() };
        follower.until("the first synchronization", |state| state.synchronized);
        follower
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// A mirror and the fold of its events.
pub(crate) struct Follower {
    pub(crate) mirror: KernelMirror,
    pub(crate) events: Receiver<KernelEvent>,
    pub(crate) state: KernelState,
}

impl Follower {
    /// Takes events in until `condition` holds; fails after 20 s, showing the state.
    pub(crate) fn until(&mut self, what: &str, condition: impl Fn(&KernelState) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !condition(&self.state) {
            match self.events.recv_deadline(deadline) {
                Ok(event) => self.take(&event),
                Err(_) => {
                    let state = &self.state;
                    panic!(
                        "no {what}. {:?}\nlinks {:?}\naddresses {:?}\n{} routes, some of them {:?}\
                         \nneighbors {:?}",
                        self.mirror.counts(),
                        state.links,
                        state.addresses,
                        state.routes.len(),
                        state.routes.iter().take(20).collect::<Vec<_>>(),
                        state.neighbors,
                    );
                }
            }
        }
    }

    /// Takes events in for `duration`, and gives them.
    pub(crate) fn during(&mut self, duration: Duration) -> Vec<KernelEvent> {
        let deadline = Instant::now() + duration;
        let mut events = Vec::new();
        while let Ok(event) = self.events.recv_deadline(deadline) {
            self.take(&event);
            events.push(event);
        }
        events
    }

    fn take(&mut self, event: &KernelEvent) {
        assert!(!matches!(event, KernelEvent::Failed(_)), "{event:?}");
        self.state.apply(event);
    }

    pub(crate) fn ifindex(&self, name: &str) -> u32 {
        self.state.links.get(name).unwrap_or_else(|| panic!("no link {name}")).ifindex
    }
}
