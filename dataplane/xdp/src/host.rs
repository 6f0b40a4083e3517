//! Facts of the host: what preflight looks at before a router starts, and prints when it refuses to.
//!
//! Facts only; what to make of them is decided elsewhere. Interfaces are asked through sockets
//! (ioctl and netlink), so that the answer is that of the thread's network namespace; sysfs, whose
//! content is that of whoever mounted it, is used for what the kernel tells nowhere else.

mod ethtool;
mod interface;

use std::{collections::BTreeSet, fs, io, path::Path};

pub use interface::{
    Channels, InterfaceFacts, Offloads, defer_interrupts, driver_statistics, interface,
    interface_index,
};

use nix::sys::statfs::BPF_FS_MAGIC;

use crate::XdpError;

/// The largest MTU of an interface whose packets fit a chunk, in bytes.
///
/// A chunk is a page of 4096 bytes. In front of a packet lies the XDP headroom of 256, behind it the
/// driver's `skb_shared_info`, 320 aligned, since the same buffer may go to the kernel: 3520 are left
/// for Ethernet header (14), one 802.1Q tag (4) and checksum (4). That is the limit of ENA's in-tree
/// driver (`ENA_XDP_MAX_MTU`), the smallest of those that are supported.
pub const MTU_MAX: u32 = 4096 - 256 - 320 - (14 + 4 + 4);

const _: () = assert!(MTU_MAX == 3498);

/// Whether `path` lies on a BPF file system.
#[must_use]
pub fn is_bpffs(path: &Path) -> bool {
    nix::sys::statfs::statfs(path).is_ok_and(|status| status.filesystem_type() == BPF_FS_MAGIC)
}

/// Version of the running kernel: major and minor.
///
/// # Errors
/// [`XdpError::Host`] when `uname` gives something that is no version.
pub fn kernel_version() -> Result<(u32, u32), XdpError> {
    let failed = |error| XdpError::Host { operation: "uname", error };
    let name = nix::sys::utsname::uname().map_err(|errno| failed(errno.into()))?;
    let release = name.release().to_string_lossy();
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => Err(failed(io::Error::new(io::ErrorKind::InvalidData, release.into_owned()))),
    }
}

/// How much memory the process may lock, in bytes; `None` without a limit. Kernels before 5.11 charge
/// maps against it; a UMEM is charged on every kernel, unless the process has `CAP_IPC_LOCK`.
///
/// # Errors
/// [`XdpError::Host`] with what `getrlimit` says.
pub fn memlock_limit() -> Result<Option<u64>, XdpError> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is borrowed exclusively for the call, which fills it.
    if unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } != 0 {
        return Err(XdpError::Host {
            operation: "getrlimit(RLIMIT_MEMLOCK)",
            error: io::Error::last_os_error(),
        });
    }
    Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
}

/// The capabilities that AF_XDP and the classifier need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `CAP_NET_RAW`: to open AF_XDP sockets.
    pub net_raw: bool,
    /// `CAP_NET_ADMIN`: to bind them, and to attach the classifier.
    pub net_admin: bool,
    /// `CAP_BPF`: to load it. `CAP_SYS_ADMIN` includes it.
    pub bpf: bool,
    /// `CAP_IPC_LOCK`: to lock memory beyond [`memlock_limit`].
    pub ipc_lock: bool,
}

/// The capabilities that are in effect for this thread.
///
/// # Errors
/// [`XdpError::Host`] when they cannot be read.
pub fn capabilities() -> Result<Capabilities, XdpError> {
    use caps::{CapSet, Capability};
    let all = caps::read(None, CapSet::Effective).map_err(|error| XdpError::Host {
        operation: "capget",
        error: io::Error::other(error.to_string()),
    })?;
    Ok(Capabilities {
        net_raw: all.contains(&Capability::CAP_NET_RAW),
        net_admin: all.contains(&Capability::CAP_NET_ADMIN),
        bpf: all.contains(&Capability::CAP_BPF) || all.contains(&Capability::CAP_SYS_ADMIN),
        ipc_lock: all.contains(&Capability::CAP_IPC_LOCK),
    })
}

/// The logical CPUs that share a physical core with `cpu`, itself included: two workers must not be
/// pinned to two of them.
///
/// # Errors
/// [`XdpError::Host`] when there is no such CPU.
pub fn hyperthread_siblings(cpu: usize) -> Result<BTreeSet<usize>, XdpError> {
    let path = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
    let text = fs::read_to_string(path)
        .map_err(|error| XdpError::Host { operation: "reading thread_siblings_list", error })?;
    parse_cpu_list(&text).ok_or_else(|| XdpError::Host {
        operation: "reading thread_siblings_list",
        error: io::Error::new(io::ErrorKind::InvalidData, text),
    })
}

/// Parses the kernel's list of CPUs: `0-2,7`.
fn parse_cpu_list(text: &str) -> Option<BTreeSet<usize>> {
    let mut cpus = BTreeSet::new();
    for range in text.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cpus.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_parsed() {
        assert_eq!(parse_cpu_list("0\n"), Some(BTreeSet::from([0])));
        assert_eq!(parse_cpu_list("0-2,7"), Some(BTreeSet::from([0, 1, 2, 7])));
        assert_eq!(parse_cpu_list("0,a"), None);
        assert_eq!(parse_cpu_list(""), None);
    }

    #[test]
    fn the_running_kernel_has_a_version() {
        assert!(kernel_version().expect("uname works") >= (5, 0));
    }

    #[test]
    fn proc_is_no_bpffs() {
        assert!(!is_bpffs(Path::new("/proc")));
        assert!(!is_bpffs(Path::new("/does/not/exist")));
    }
}
