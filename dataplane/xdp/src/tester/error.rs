//! [`TesterError`]: why packets could not be sent or counted, and what to do about it.

use std::io;

use crate::XdpError;

/// What went wrong with the tester's programs. Texts are sentences for an operator and end with the
/// remedy, where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TesterError {
    /// The kernel cannot run an XDP program over frames that are really sent.
    #[error(
        "Linux {major}.{minor} cannot send by XDP alone: BPF_PROG_TEST_RUN with live frames needs \
         Linux 5.18; send by AF_XDP sockets instead"
    )]
    NoLiveFrames {
        /// Major version of the running kernel.
        major: u32,
        /// Minor version of the running kernel.
        minor: u32,
    },

    /// The interface takes no redirected frames.
    #[error(
        "interface {interface} takes no redirected packets: on a veth pair the other end needs an \
         XDP program or GRO (`ethtool -K PEER gro on`) and must be up; on other interfaces the driver \
         needs ndo_xdp_xmit (some only while an XDP program is attached)"
    )]
    NoRedirectTarget {
        /// Name of the interface.
        interface: String,
    },

    /// A frame is longer than the interface sends.
    #[error(
        "interface {interface}: frames of {frame_len} bytes need an MTU of {} or more, but it is {mtu}; \
         `ip link set dev {interface} mtu {}`", frame_len - 14, frame_len - 14
    )]
    FrameTooLong {
        /// Name of the interface.
        interface: String,
        /// Bytes of the longest frame.
        frame_len: u32,
        /// The interface's MTU.
        mtu: u32,
    },

    /// An image that no packet can be made of.
    #[error("image {number} cannot be sent: {what}")]
    Image {
        /// Its position among the images.
        number: usize,
        /// What is wrong with it.
        what: String,
    },

    /// The order names an image that there is none of.
    #[error("position {position} of the order names image {image}, but there are {images}")]
    Order {
        /// Where in the order.
        position: usize,
        /// The number there.
        image: u32,
        /// How many images there are.
        images: usize,
    },

    /// A number is out of its range.
    #[error("{what} is {value}, but must be {min} to {max}")]
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// What was given.
        value: u64,
        /// The least that is allowed.
        min: u64,
        /// The most that is allowed.
        max: u64,
    },

    /// A program could not be loaded into the kernel.
    #[error("the kernel does not accept the tester's program {program}: {reason}")]
    Load {
        /// Name of the program.
        program: &'static str,
        /// The loader's or verifier's words, with all their causes.
        reason: String,
    },

    /// A program could not be attached to an interface.
    #[error(
        "interface {interface}: cannot attach {program} in {mode} mode: {error}; another program may \
         be attached (`bpftool net show`, `ip link set dev {interface} xdp off`), or this mode is not \
         supported"
    )]
    Attach {
        /// Name of the interface.
        interface: String,
        /// Name of the program.
        program: &'static str,
        /// `native` or `generic`.
        mode: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// The sending program could not be held ready.
    #[error(
        "cannot hold the sending program ready on a TAP device in a network namespace of its own: \
         {operation} failed: {error}; it needs root and the module tun (`modprobe tun`)"
    )]
    Anchor {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        error: io::Error,
    },

    /// A map of a program could not be opened, mapped, read or written.
    #[error("the tester's map {map}: {operation} failed: {reason}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        reason: String,
    },

    /// A run of the sending program failed.
    #[error("interface {interface}: BPF_PROG_TEST_RUN failed: {error}")]
    Run {
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        error: io::Error,
    },

    /// The kernel did not take packets, by which a stream would have gaps that are nobody's loss.
    #[error(
        "interface {interface}: the kernel refused {failures} packets (is the interface still there \
         and up, and does it still take redirected packets?)"
    )]
    Refused {
        /// Name of the interface.
        interface: String,
        /// How many.
        failures: u64,
    },

    /// The counters of the interface could not be read.
    #[error("interface {interface}: cannot read its counters from /proc/net/dev: {error}")]
    Counters {
        /// Name of the interface.
        interface: String,
        /// What the kernel said.
        error: io::Error,
    },

    /// A question about the host or an interface failed.
    #[error(transparent)]
    Xdp(#[from] XdpError),
}
