//! `sluice preflight`: whether this machine can run the router, and the one command that mends each
//! fault. `sluice run` refuses to start for the same faults.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use config::{Checked, Poll, XdpMode};
use xdp::host::{self, InterfaceFacts};

use crate::run::{core_list, interface_facts};

/// Kernels before this one have no `bpf_link` for XDP, which is what outlives a crash.
const KERNEL_MIN: (u32, u32) = (5, 9);

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gravity {
    /// As it should be.
    Fine,
    /// The router runs, but not as well as it could.
    Warning,
    /// The router cannot start.
    Fault,
}

/// What was found of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    gravity: Gravity,
    what: String,
    fix: Option<String>,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self { gravity: Gravity::Fine, what: what.into(), fix: None }
    }

    fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { gravity: Gravity::Warning, what: what.into(), fix: Some(fix.into()) }
    }

    fn fault(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { gravity: Gravity::Fault, what: what.into(), fix: Some(fix.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.gravity {
            Gravity::Fine => "ok     ",
            Gravity::Warning => "warning",
            Gravity::Fault => "fault  ",
        };
        write!(f, "{mark}  {}", self.what)?;
        match &self.fix {
            Some(fix) => write!(f, "\n         mend it with: {fix}"),
            None => Ok(()),
        }
    }
}

/// Runs the command: prints everything, fails if anything would stop the router.
pub(crate) fn run(config: &Checked) -> Result<()> {
    let findings = examine(config);
    for finding in &findings {
        println!("{finding}");
    }
    match findings.iter().filter(|finding| finding.gravity == Gravity::Fault).count() {
        0 => Ok(()),
        faults => bail!("{} would stop the router from starting", counted(faults, "fault")),
    }
}

/// Refuses to go on with any fault; prints warnings.
pub(crate) fn require(config: &Checked) -> Result<()> {
    let findings = examine(config);
    let faults: Vec<String> = findings
        .iter()
        .filter(|finding| finding.gravity == Gravity::Fault)
        .map(ToString::to_string)
        .collect();
    for finding in findings.iter().filter(|finding| finding.gravity == Gravity::Warning) {
        eprintln!("{finding}");
    }
    if faults.is_empty() { Ok(()) } else { bail!("cannot start:\n{}", faults.join("\n")) }
}

fn examine(config: &Checked) -> Vec<Finding> {
    let mut findings = vec![kernel(), capabilities(), memlock(config), bpffs(config)];
    findings.push(reverse_path_filter());
    let mut facts = Vec::new();
    for (position, interface) in config.interfaces.iter().enumerate() {
        match host::interface(&interface.name) {
            Ok(found) => {
                findings.extend(interface_findings(config, position, &found));
                facts.push(found);
            }
            Err(error) => findings.push(Finding::fault(
                format!("interface[{position}].name: {error}"),
                "ip link (shows the names of the interfaces that exist)",
            )),
        }
    }
    if facts.len() == config.interfaces.len() {
        findings.extend(queue_findings(config, &facts));
    }
    findings.extend(core_findings(config, &facts));
    findings
}

fn kernel() -> Finding {
    match host::kernel_version() {
        Ok(version) if version >= KERNEL_MIN => {
            Finding::fine(format!("kernel {}.{}", version.0, version.1))
        }
        Ok((major, minor)) => Finding::fault(
            format!("kernel {major}.{minor} is older than {}.{}", KERNEL_MIN.0, KERNEL_MIN.1),
            "a newer kernel (Debian 11, Ubuntu 22.04 or later have one)",
        ),
        Err(error) => Finding::warning(error.to_string(), "uname -r"),
    }
}

fn capabilities() -> Finding {
    let fix = "run as root, or with AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF \
               CAP_PERFMON CAP_IPC_LOCK in the systemd unit";
    match host::capabilities() {
        Ok(held) => {
            let missing: Vec<&str> = [
                (held.net_raw, "CAP_NET_RAW"),
                (held.net_admin, "CAP_NET_ADMIN"),
                (held.bpf, "CAP_BPF"),
            ]
            .into_iter()
            .filter(|(is_held, _)| !is_held)
            .map(|(_, name)| name)
            .collect();
            if missing.is_empty() {
                Finding::fine("capabilities")
            } else {
                Finding::fault(format!("missing capabilities: {}", missing.join(", ")), fix)
            }
        }
        Err(error) => Finding::fault(error.to_string(), fix),
    }
}

/// A UMEM is locked memory, on every kernel.
fn memlock(config: &Checked) -> Finding {
    let workers = core_list(config, &interface_facts(config).unwrap_or_default())
        .map_or(1, |cores| cores.len());
    let needed =
        u64::from(config.router.frames_per_worker) * (workers as u64) * (frame::CHUNK_BYTES as u64);
    let unbounded = host::capabilities().is_ok_and(|held| held.ipc_lock);
    match host::memlock_limit() {
        Ok(Some(limit)) if !unbounded && limit < needed => Finding::fault(
            format!("memlock limit of {limit} bytes is below the {needed} bytes of packet memory"),
            "ulimit -l unlimited (or LimitMEMLOCK=infinity in the systemd unit)",
        ),
        Ok(_) => Finding::fine(format!("{} MiB of packet memory can be locked", needed >> 20)),
        Err(error) => Finding::warning(error.to_string(), "ulimit -l"),
    }
}

fn bpffs(config: &Checked) -> Finding {
    let path = &config.router.bpffs;
    if host::is_bpffs(path) {
        Finding::fine(format!("BPF file system at {}", path.display()))
    } else {
        let fix = match named_namespace() {
            // `ip netns exec` mounts /sys anew in a mount namespace that ends with its command, and so would
            // what is mounted there.
            Some(name) => format!(
                "nsenter --net=/run/netns/{name} in place of 'ip netns exec {name}', which hides what is \
                 mounted under /sys; outside of it, if need be: mount -t bpf bpf {}",
                path.display()
            ),
            None => format!("mount -t bpf bpf {}", path.display()),
        };
        Finding::fault(
            format!("router.bpffs: no BPF file system is mounted at {}", path.display()),
            fix,
        )
    }
}

/// The network namespace that `ip netns exec` put this process into: it mounts /sys anew, under the name of
/// the namespace.
fn named_namespace() -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    sysfs_source(&mounts)
        .filter(|name| Path::new("/run/netns").join(name).exists())
        .map(str::to_owned)
}

/// What the file system at /sys was mounted as.
/// Source: proc_pid_mountinfo(5); the mount point is the fifth field, and the last mount is on top.
fn sysfs_source(mounts: &str) -> Option<&str> {
    let mut at_sys = mounts.lines().rev().filter(|line| line.split(' ').nth(4) == Some("/sys"));
    let (_, mount) = at_sys.next()?.split_once(" - ")?;
    mount.strip_prefix("sysfs ")?.split(' ').next()
}

/// `1 queue`, `2 queues`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn reverse_path_filter() -> Finding {
    let all = fs::read_to_string("/proc/sys/net/ipv4/conf/all/rp_filter").unwrap_or_default();
    match all.trim() {
        "0" | "" => Finding::fine("reverse-path filtering lets punted packets through"),
        value => Finding::fault(
            format!("net.ipv4.conf.all.rp_filter is {value}: the kernel would drop punted packets"),
            "sysctl -w net.ipv4.conf.all.rp_filter=0",
        ),
    }
}

fn interface_findings(config: &Checked, position: usize, facts: &InterfaceFacts) -> Vec<Finding> {
    let name = &facts.name;
    let mut findings = Vec::new();
    if facts.mtu > host::MTU_MAX {
        findings.push(Finding::fault(
            format!(
                "{name}: an MTU of {} does not fit a chunk; at most {}",
                facts.mtu,
                host::MTU_MAX
            ),
            format!("ip link set dev {name} mtu {}", host::MTU_MAX),
        ));
    } else {
        findings.push(Finding::fine(format!("{name}: driver {}, MTU {}", facts.driver, facts.mtu)));
    }
    if !facts.is_up {
        findings.push(Finding::warning(
            format!("{name}: is down"),
            format!("ip link set dev {name} up"),
        ));
    }
    if facts.mac.is_none() {
        findings.push(Finding::fault(
            format!("{name}: is not an Ethernet interface"),
            "name another interface",
        ));
    }
    let configured = config.interfaces.get(position).map(|interface| interface.xdp);
    if facts.native_xdp == Some(false) && configured == Some(XdpMode::Native) {
        findings.push(Finding::fault(
            format!("{name}: its driver has no native XDP"),
            format!("interface[{position}].xdp = \"auto\""),
        ));
    }
    if facts.driver == "ena" {
        findings.extend(ena_findings(facts));
    }
    if facts.is_veth {
        findings.push(Finding::warning(
            format!("{name}: is a veth; checksums are wrong unless its peer computes them"),
            "ethtool -K PEER tx off gro off tso off gso off (in the peer's namespace)",
        ));
    }
    findings
}

/// What FACTS of the Elastic Network Adapter ask for: at most half of the channels with XDP on the
/// in-tree driver, large LLQ entries for headers beyond 96 bytes, and a switched-off source check.
fn ena_findings(facts: &InterfaceFacts) -> Vec<Finding> {
    let name = &facts.name;
    let mut findings = vec![Finding::warning(
        format!("{name}: EC2 drops packets that are not the instance's own unless told otherwise"),
        "aws ec2 modify-network-interface-attribute --no-source-dest-check \
         --network-interface-id ENI",
    )];
    let in_tree = !facts.driver_version.contains('g');
    findings.push(Finding::fine(format!("{name}: ENA driver {}", facts.driver_version)));
    if let Some(channels) = facts.channels
        && in_tree
        && channels.combined > channels.combined_max / 2
    {
        findings.push(Finding::fault(
            format!(
                "{name}: XDP needs at most half of the {} channels, {} are in use",
                channels.combined_max, channels.combined
            ),
            format!("ethtool -L {name} combined {}", (channels.combined_max / 2).max(1)),
        ));
    }
    if facts.ena_large_llq == Some(false) {
        findings.push(Finding::warning(
            format!("{name}: tunnel headers exceed 96 bytes, which LLQ entries do not hold"),
            "modprobe -r ena && modprobe ena force_large_llq_header=1",
        ));
    }
    findings
}

fn queue_findings(config: &Checked, facts: &[InterfaceFacts]) -> Vec<Finding> {
    let queues: BTreeSet<Option<u32>> = facts.iter().map(|facts| facts.rx_queues).collect();
    let least = facts.iter().filter_map(|facts| facts.rx_queues).min().unwrap_or(1);
    let workers = match core_list(config, facts) {
        Ok(cores) => cores.len(),
        Err(error) => return vec![Finding::fault(error.to_string(), "workers.cores = [ … ]")],
    };
    let mut findings = Vec::new();
    for facts in facts {
        let (rx, tx) = (facts.rx_queues.unwrap_or(1), facts.tx_queues.unwrap_or(1));
        let name = &facts.name;
        if queues.len() > 1 && rx != least {
            findings.push(Finding::fault(
                format!(
                    "{name}: has {}, another interface has {least}",
                    counted(rx as usize, "queue")
                ),
                format!("ethtool -L {name} combined {least}"),
            ));
        } else if rx as usize != workers {
            findings.push(Finding::fault(
                format!(
                    "{name}: has {} for {}; what arrives on a \
                     queue without a worker would pass the router by",
                    counted(rx as usize, "receive queue"),
                    counted(workers, "worker"),
                ),
                format!(
                    "ethtool -L {name} combined {workers} (for a veth: rx {workers} tx {workers})"
                ),
            ));
        } else if (tx as usize) < workers {
            findings.push(Finding::fault(
                format!(
                    "{name}: has {} for {}",
                    counted(tx as usize, "transmit queue"),
                    counted(workers, "worker"),
                ),
                format!("ethtool -L {name} tx {workers}"),
            ));
        } else {
            let queues = counted(rx as usize, "queue");
            findings.push(Finding::fine(format!("{name}: {queues}, a worker for each")));
        }
    }
    findings
}

fn core_findings(config: &Checked, facts: &[InterfaceFacts]) -> Vec<Finding> {
    let Ok(cores) = core_list(config, facts) else { return Vec::new() };
    let online: BTreeSet<usize> =
        core_affinity::get_core_ids().unwrap_or_default().iter().map(|core| core.id).collect();
    let mut findings = Vec::new();
    for core in &cores {
        if !online.contains(core) {
            findings.push(Finding::fault(
                format!("workers.cores: this process may not use a core {core}"),
                format!("name cores out of {online:?}"),
            ));
        }
    }
    for (position, core) in cores.iter().enumerate() {
        let siblings = host::hyperthread_siblings(*core).unwrap_or_default();
        let shared = cores
            .iter()
            .skip(position + 1)
            .find(|other| *other != core && siblings.contains(other));
        if let Some(other) = shared {
            findings.push(Finding::warning(
                format!("workers.cores: {core} and {other} are hyperthreads of one core"),
                "name cores that are no siblings (lscpu -e)",
            ));
        }
    }
    if config.router.poll == Poll::Busy && cores.len() >= online.len() {
        findings.push(Finding::warning(
            "busy polling on every core leaves none to the rest of the machine",
            "router.poll = \"adaptive\", or fewer queues",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_on_top_tells_the_namespace() {
        let host = "24 30 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
                    27 24 0:23 / /sys/fs/bpf rw shared:8 - bpf bpf rw\n";
        assert_eq!(sysfs_source(host), Some("sysfs"));
        let within = format!("{host}99 30 0:80 / /sys rw,relatime - sysfs blue rw\n");
        assert_eq!(sysfs_source(&within), Some("blue"));
        assert_eq!(sysfs_source("1 0 0:1 / / rw - ext4 /dev/sda rw\n"), None);
    }

    #[test]
    fn one_queue_is_no_plural() {
        assert_eq!(
            (counted(1, "queue"), counted(2, "queue")),
            ("1 queue".into(), "2 queues".into())
        );
    }
}
