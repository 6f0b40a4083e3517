//! Why a measurement could not be made.

use thiserror::Error;
use xdp::XdpError;
use xdp::tester::TesterError;

/// Why a measurement could not be made, or ended without a result.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The plan of the measurement contradicts itself or cannot be met.
    #[error("{0}")]
    Plan(String),
    /// A call to the kernel failed.
    #[error("{context}: {error}")]
    Host {
        /// What was being done, in words.
        context: String,
        /// Why it failed.
        error: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A socket or a UMEM could not be had.
    #[error(transparent)]
    Xdp(#[from] XdpError),
    /// A program of the tester could not be loaded, attached or run.
    #[error(transparent)]
    Tester(#[from] TesterError),
    /// No MAC address is known for the next hop.
    #[error(
        "the kernel has no MAC address for {address} (state {state}) after {waited_ms} ms: is it on a \
         link of this machine, and does it answer (`ip neigh`)? --dst-mac says it without asking"
    )]
    Unresolved {
        /// The next hop.
        address: std::net::IpAddr,
        /// What the kernel says of it: "none", "incomplete", "failed".
        state: String,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// A capture that cannot be replayed.
    #[error("{path}: {reason}")]
    Capture {
        /// The capture file.
        path: String,
        /// Why not.
        reason: String,
    },
    /// An interface could not carry packets any more.
    #[error("interface {interface} {how} {at_s:.1} s into the run: there are no figures of it")]
    LinkDown {
        /// Name of the interface.
        interface: String,
        /// "went down", "was removed".
        how: &'static str,
        /// Since the start of the run.
        at_s: f64,
    },
    /// The sink's program was detached or replaced.
    #[error(
        "the sink's XDP program on {interface} was detached {at_s:.1} s into the run: there are no \
         figures of it"
    )]
    SinkLost {
        /// Name of the interface.
        interface: String,
        /// Since the start of the run.
        at_s: f64,
    },
    /// A thread of the generator or sink ended by a panic.
    #[error("a thread of the tester panicked: there are no figures of the run")]
    Panicked,
    /// Whoever asked for the measurement wants no more of it.
    #[error("interrupted")]
    Interrupted,
}

impl LoadError {
    /// A call to the kernel that failed.
    pub(crate) fn host(
        context: impl Into<String>,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Host { context: context.into(), error: error.into() }
    }
}
