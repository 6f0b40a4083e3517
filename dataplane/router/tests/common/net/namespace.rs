//! [`Namespace`]: a network namespace, and work within it.
//!
//! A thread enters the namespace, does its work and ends; a child that it starts stays inside. `ip
//! netns exec` would hide the BPF file system, in which the router pins its maps.

use std::fs::File;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const FOLDER: &str = "/run/netns";
const PREFIX: &str = "slt-peer-";

/// What would make packets on a link differ from those on a wire.
const OFFLOADS: [&str; 7] = ["tx", "tso", "gso", "gro", "lro", "rxvlan", "txvlan"];

/// A network namespace, deleted when this is dropped.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: String,
    handle: File,
}

fn output(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Namespace {
    /// A namespace whose kernel is quiet: no duplicate address detection, no router solicitations, no
    /// reverse path filter, no redirects, no limit on ICMP errors.
    #[track_caller]
    pub(crate) fn new(role: &str) -> Self {
        Self::try_new(role).expect("a namespace")
    }

    pub(super) fn try_new(role: &str) -> Result<Self, String> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std::process::id());
        output(Command::new("ip").args(["netns", "add", &name]))?;
        let handle = File::open(format!("{FOLDER}/{name}")).map_err(|error| error.to_string())?;
        let namespace = Self { name, handle };
        namespace.ip("link set lo up");
        for scope in ["all", "default"] {
            for (key, value) in [
                (format!("ipv6/conf/{scope}/accept_dad"), "0"),
                (format!("ipv6/conf/{scope}/router_solicitations"), "0"),
                (format!("ipv6/conf/{scope}/accept_ra"), "0"),
                (format!("ipv4/conf/{scope}/rp_filter"), "0"),
                (format!("ipv4/conf/{scope}/send_redirects"), "0"),
                (format!("ipv4/conf/{scope}/accept_redirects"), "0"),
            ] {
                namespace.sysctl(&key, value);
            }
        }
        namespace.sysctl("ipv4/icmp_ratemask", "0");
        namespace.sysctl("ipv6/icmp/ratelimit", "0");
        // The kernel limits all ICMP errors of a namespace together since version 6.13; before, the
        // mask above takes them out of the limit of the machine.
        sysctl_if_there(&namespace, "ipv4/icmp_msgs_per_sec", "1000000");
        sysctl_if_there(&namespace, "ipv4/icmp_msgs_burst", "1000000");
        Ok(namespace)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Forwards packets, in both families.
    pub(crate) fn forwards(self) -> Self {
        self.sysctl("ipv4/ip_forward", "1");
        self.sysctl("ipv6/conf/all/forwarding", "1");
        self
    }

    /// Says nothing by itself, so that all that a test sees on its links came from the other ends.
    pub(crate) fn mute(self) -> Self {
        for scope in ["all", "default"] {
            self.sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "1");
        }
        self
    }

    /// `ip` with these words, which must not contain spaces of their own.
    #[track_caller]
    pub(crate) fn ip(&self, words: &str) -> String {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(words.split_whitespace());
        output(&mut command).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Sets a variable below `/proc/sys/net`.
    #[track_caller]
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = format!("/proc/sys/net/{key}");
        self.within(|| std::fs::write(&path, value))
            .unwrap_or_else(|error| panic!("{path} = {value}: {error}"));
    }

    /// Does `work` on a thread inside. Sockets that it opens and processes that it starts stay there.
    pub(crate) fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            work()
        };
        std::thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Starts a process inside.
    #[track_caller]
    pub(crate) fn spawn(&self, command: &mut Command) -> Child {
        self.within(|| command.spawn()).unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }

    /// Runs a program inside and returns its standard output.
    #[track_caller]
    pub(crate) fn run(&self, program: &str, words: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(words);
        self.within(|| output(&mut command)).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// Sets a variable that not every kernel has.
fn sysctl_if_there(namespace: &Namespace, key: &str, value: &str) {
    let path = format!("/proc/sys/net/{key}");
    let _ = namespace.within(|| std::fs::write(&path, value));
}

/// One end of a link: a namespace, the name of its interface and its link-layer address.
pub(crate) type End<'a> = (&'a Namespace, &'a str, &'a str);

/// Connects two namespaces by a pair of interfaces with one queue each, without offloads and up.
#[track_caller]
pub(crate) fn link(a: End<'_>, b: End<'_>, mtu_bytes: u32) {
    link_of_queues(a, b, mtu_bytes, 1);
}

/// The same with more queues.
#[track_caller]
pub(crate) fn link_of_queues(a: End<'_>, b: End<'_>, mtu_bytes: u32, queues: u32) {
    let end = |(namespace, interface, mac): End<'_>| {
        format!(
            "name {interface} netns {} address {mac} mtu {mtu_bytes} numtxqueues {queues} \
             numrxqueues {queues}",
            namespace.name
        )
    };
    let words = format!("link add {} type veth peer {}", end(a), end(b));
    let mut command = Command::new("ip");
    command.args(words.split_whitespace());
    output(&mut command).unwrap_or_else(|error| panic!("{error}"));
    for (namespace, interface, _) in [a, b] {
        let mut words = vec!["-K", interface];
        words.extend(OFFLOADS.iter().flat_map(|offload| [*offload, "off"]));
        namespace.run("ethtool", &words);
        namespace.ip(&format!("link set {interface} up"));
    }
}

/// Deletes namespaces of runs that were killed, and ends the routers that still run in them.
pub(super) fn remove_leftovers() {
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let has_ended = pid
            .and_then(|pid| pid.parse::<u32>().ok())
            .is_some_and(|pid| !std::path::Path::new("/proc").join(pid.to_string()).exists());
        if !has_ended {
            continue;
        }
        let inside = output(Command::new("ip").args(["netns", "pids", &name])).unwrap_or_default();
        for pid in inside.lines().filter_map(|line| line.trim().parse().ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = Command::new("ip").args(["netns", "del", &name]).status();
        let _ = std::fs::remove_dir_all(super::router::pins(&name));
    }
}
