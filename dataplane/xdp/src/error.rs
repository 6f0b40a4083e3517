//! [`XdpError`]: what the operator or the kernel did wrong, where, and the command that mends it.

use std::{io, path::PathBuf};

use crate::BindMode;

/// What went wrong with AF_XDP, the classifier or the host, with the interface, the operation and
/// the errno. Texts are complete sentences for an operator and end with the remedy, where there is
/// one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum XdpError {
    /// A plan or an option is out of its range.
    #[error("{what} is {value}, but must be {range}")]
    OutOfRange {
        /// Which number, in the words of the public documentation.
        what: &'static str,
        /// What was given.
        value: usize,
        /// What would have been allowed.
        range: String,
    },

    /// The kernel refused the UMEM.
    #[error("cannot register a UMEM of {bytes} bytes: {error}{}", remedy(error))]
    Umem {
        /// Size of the region in bytes.
        bytes: usize,
        /// What the kernel said.
        error: io::Error,
    },

    /// The xsk-rs that was linked arranges its descriptors in a way that cannot be written.
    #[error("the layout of xsk-rs's FrameDesc could not be determined: build against xsk-rs 0.11")]
    DescriptorLayout,

    /// The kernel refused an AF_XDP socket on a queue.
    #[error(
        "interface {interface} queue {queue_id}: cannot bind an AF_XDP socket ({mode}): {error}{}",
        remedy(error)
    )]
    Bind {
        /// Name of the interface.
        interface: String,
        /// Number of the queue.
        queue_id: u32,
        /// The mode that was tried last.
        mode: BindMode,
        /// What the kernel said.
        error: io::Error,
    },

    /// The first socket of a UMEM decides between zero-copy and copy for all of them, and this one
    /// was asked for the other mode.
    #[error(
        "interface {interface} queue {queue_id}: the UMEM is already bound in {bound} mode, and all \
         queues of a UMEM share one mode; set the same zero-copy option on every interface"
    )]
    MixedModes {
        /// Name of the interface.
        interface: String,
        /// Number of the queue.
        queue_id: u32,
        /// The mode that the UMEM got with its first socket.
        bound: BindMode,
    },

    /// Somebody of this process already has this queue.
    #[error("interface {interface} queue {queue_id} already has a socket of this UMEM")]
    QueueTaken {
        /// Name of the interface.
        interface: String,
        /// Number of the queue.
        queue_id: u32,
    },

    /// A system call about a socket failed.
    #[error("interface {interface} queue {queue_id}: {operation} failed: {error}")]
    Socket {
        /// Name of the interface.
        interface: String,
        /// Number of the queue.
        queue_id: u32,
        /// Name of the system call and option.
        operation: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// There is no such interface in this network namespace.
    #[error("there is no interface {interface} in this network namespace; see `ip link`")]
    UnknownInterface {
        /// Name that was asked for.
        interface: String,
    },

    /// A question about an interface was refused.
    #[error("interface {interface}: {operation} failed: {error}{}", remedy(error))]
    Interface {
        /// Name of the interface.
        interface: String,
        /// Name of the request.
        operation: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// A question about the host was refused.
    #[error("{operation} failed: {error}")]
    Host {
        /// Name of the request.
        operation: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// The directory for pins is not on a BPF file system.
    #[error(
        "{} is not on a BPF file system, where the classifier's link has to be pinned; mend it with \
         `mount -t bpf bpf /sys/fs/bpf`", path.display()
    )]
    NotBpffs {
        /// The directory.
        path: PathBuf,
    },

    /// A name that would become part of a path in bpffs is not fit for that.
    #[error(
        "{name:?} cannot name a directory in bpffs: use letters, digits, '-' and '_' for an \
         instance, and no '.' in an interface's name (`ip link set {name} name NEW`)"
    )]
    PinName {
        /// The name.
        name: String,
    },

    /// The instance runs, and its links and maps are its own.
    #[error("instance {instance:?} is running; stop it first, or choose another instance name")]
    InstanceRunning {
        /// Name of the instance.
        instance: String,
    },

    /// A pin could not be made, opened or removed.
    #[error("{}: {operation} failed: {error}{}", path.display(), remedy(error))]
    Pin {
        /// The pin or directory.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// The classifier could not be loaded into the kernel.
    #[error("the kernel does not accept the classifier: {reason}")]
    Load {
        /// The loader's or verifier's words, with all their causes.
        reason: String,
    },

    /// Another XDP program is attached to the interface.
    #[error(
        "interface {interface} already runs another XDP program (id {program_id}, see `bpftool prog \
         show id {program_id}`); remove it with its own tool, or with `ip link set dev {interface} xdp off` \
         (`bpftool link list` and `bpftool link detach id LINK` if a BPF link holds it)"
    )]
    ForeignProgram {
        /// Name of the interface.
        interface: String,
        /// Number of the program.
        program_id: u32,
    },

    /// The pinned link of an earlier run has another mode than the configuration asks for.
    #[error(
        "interface {interface}: the classifier of an earlier run is attached in {attached} mode, but \
         {wanted} mode is configured; run `sluice detach`, then start again"
    )]
    ModeChanged {
        /// Name of the interface.
        interface: String,
        /// The mode of the running classifier.
        attached: &'static str,
        /// The mode that is configured.
        wanted: &'static str,
    },

    /// The classifier could not be attached to the interface.
    #[error(
        "interface {interface}: cannot attach the classifier in {mode} mode: {error}{}",
        remedy(error)
    )]
    Attach {
        /// Name of the interface.
        interface: String,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// A map of the classifier could not be read or written.
    #[error("the classifier's map {map}: {operation} failed: {reason}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        reason: String,
    },

    /// More rules than the classifier's maps hold.
    #[error("{count} {what} were given, but the classifier holds at most {max}")]
    TooMany {
        /// Which rules.
        what: &'static str,
        /// How many were given.
        count: usize,
        /// How many fit.
        max: usize,
    },

    /// The interface is not one that the classifier was attached to.
    #[error("interface number {0} is not among those that the classifier was attached to")]
    UnattachedInterface(u8),
}

/// What an operator can do about an errno, as the end of a sentence; empty when nothing is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; the process needs CAP_NET_RAW, CAP_NET_ADMIN and CAP_BPF (run it as root, or give \
             the unit AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN CAP_BPF)"
        }
        Some(libc::ENOMEM | libc::ENOBUFS) => {
            "; locked memory may be limited: raise it with LimitMEMLOCK=infinity in the unit, \
             `ulimit -l unlimited`, or CAP_IPC_LOCK"
        }
        Some(libc::EBUSY) => {
            "; another socket or program holds it: look with `ss --xdp` and `bpftool net show`"
        }
        Some(libc::EOPNOTSUPP) => {
            "; the driver does not support this mode: see `ethtool -i` for the driver, and configure \
             the other mode"
        }
        Some(libc::EAFNOSUPPORT) => "; this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)",
        Some(libc::ENODEV | libc::ENXIO) => {
            "; the interface is gone or has no such queue: see `ip link` and `ethtool -l`"
        }
        Some(libc::ENETDOWN) => "; the interface is down: `ip link set dev INTERFACE up`",
        _ => "",
    }
}

/// An error with all its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    text
}
