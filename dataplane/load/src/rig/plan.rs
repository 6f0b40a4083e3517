//! [`RigPlan`]: which interfaces, queues and cores a tester uses, and how.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::Source;

/// What the generator sends by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    /// [`Self::Live`] on a veth pair, [`Self::Xsk`] elsewhere.
    #[default]
    Auto,
    /// Packets made in the kernel and redirected to the interface.
    Live,
    /// AF_XDP sockets.
    Xsk,
}

/// Who counts what arrives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkKind {
    /// An XDP program on the receiving interface.
    #[default]
    Kernel,
    /// AF_XDP sockets on the receiving interface.
    Xsk,
    /// Nobody: the generator alone.
    None,
}

impl fmt::Display for Engine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Auto => "auto",
            Self::Live => "live",
            Self::Xsk => "xsk",
        })
    }
}

impl fmt::Display for SinkKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Kernel => "kernel",
            Self::Xsk => "xsk",
            Self::None => "none",
        })
    }
}

impl FromStr for Engine {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "live" => Ok(Self::Live),
            "xsk" => Ok(Self::Xsk),
            _ => Err(format!("{text:?} is no engine: live, xsk or auto")),
        }
    }
}

impl FromStr for SinkKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "kernel" => Ok(Self::Kernel),
            "xsk" => Ok(Self::Xsk),
            "none" => Ok(Self::None),
            _ => Err(format!("{text:?} is no sink: kernel, xsk or none")),
        }
    }
}

/// Which interfaces, queues and cores a tester uses, and how.
#[derive(Clone, Debug)]
pub struct RigPlan {
    /// The interface that packets leave by.
    pub send_interface: String,
    /// What they are sent by.
    pub engine: Engine,
    /// Queues that the generator's sockets send by, a worker each; empty: queue 0. In the kernel:
    /// as many workers as there are numbers.
    pub send_queues: Vec<u32>,
    /// The interface that they come back by, which may be the same one.
    pub sink_interface: String,
    /// Who counts them.
    pub sink: SinkKind,
    /// Queues that the sink's sockets receive by; empty: all of the interface. The kernel's sink
    /// always counts on all.
    pub sink_queues: Vec<u32>,
    /// Cores that workers are pinned to: the generator's first, then the sink's. Workers for which
    /// there is none run where the kernel puts them.
    pub cores: Vec<usize>,
    /// What is sent.
    pub source: Arc<Source>,
    /// Packets after which a run ends.
    pub packets_max: Option<u64>,
    /// After the last packet was sent, a run waits until none has arrived for so long ...
    pub settle: Duration,
    /// ... but no longer than this.
    pub settle_max: Duration,
}

impl RigPlan {
    /// The usual waits.
    pub const SETTLE: Duration = Duration::from_millis(100);
    /// The longest wait after a run: more than any queue holds a packet.
    pub const SETTLE_MAX: Duration = Duration::from_secs(1);

    /// A plan with one worker of whatever engine suits the interface, and the sink in the kernel.
    #[must_use]
    pub fn new(
        send_interface: impl Into<String>,
        sink_interface: impl Into<String>,
        source: Arc<Source>,
    ) -> Self {
        Self {
            send_interface: send_interface.into(),
            engine: Engine::Auto,
            send_queues: Vec::new(),
            sink_interface: sink_interface.into(),
            sink: SinkKind::Kernel,
            sink_queues: Vec::new(),
            cores: Vec::new(),
            source,
            packets_max: None,
            settle: Self::SETTLE,
            settle_max: Self::SETTLE_MAX,
        }
    }
}
