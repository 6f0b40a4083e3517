//! A network in virtual time: real routers, and around them everything that goes wrong, from one seed.
//!
//! ```text
//!  seed --> Model (who owns what) --+--> configurations --> Machine (a router) x 5
//!       --> Traffic                 |                          |  ^
//!       --> links and their faults -|--------------------------+--+
//!                                   v
//!                              Accounts: what must be true of every frame, router and packet
//! ```
//!
//! A run has three parts: faults and changes with traffic, quiet (everything mends), and then one packet
//! for each kind of flow, which must arrive. The same seed gives the same run, event by event, which its
//! digest shows.
//!
//! What is checked (see [`Property`]) is computed from the [`Model`](crate::model::Model) and from the
//! bytes of frames alone. Of the router's own words only two are taken: its counters, which must add up,
//! and its records of drops, since each packet that ends within a router must have exactly one reason.
//!
//! Deliberately absent: the classifier and AF_XDP, and threads. The end-to-end tests have those.

mod accounts;
mod engine;
mod sabotage;
mod traffic;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use sim::Packet;

pub use sabotage::Sabotage;

/// What is simulated.
#[derive(Clone, Debug)]
pub struct Options {
    /// All that happens follows from it.
    pub seed: u64,
    /// Packets that hosts and workloads send while things go wrong, answers not counted.
    pub packets: u32,
    /// The module of the filter plugin; without it no plugin runs.
    pub plugin: Option<PathBuf>,
    /// Whether every event is kept as a line of text.
    pub trace: bool,
    /// Whether every frame on every link is kept.
    pub captures: bool,
    /// A fault of the simulation's own, which a property must notice.
    pub sabotage: Option<Sabotage>,
}

impl Options {
    /// A run of the usual length, in which nothing is kept.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, packets: 1200, plugin: None, trace: false, captures: false, sabotage: None }
    }

    /// What runs the same again, and tells of every event.
    #[must_use]
    pub fn command(&self) -> String {
        let Self { seed, packets, plugin, .. } = self;
        let no_plugin = if plugin.is_none() { " --no-plugin" } else { "" };
        format!("cargo xtask simulate --seed {seed} --packets {packets}{no_plugin} --trace")
    }
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Every received frame has one end in the counters, at every worker and interface.
    Accounting,
    /// No chunk is lost or doubled.
    Chunks,
    /// One frame in gives at most one frame out, and nothing leaves that did not come, but for fragments
    /// and what the router made itself.
    OneForOne,
    /// The TTL falls by one at each router that forwards.
    Ttl,
    /// What leaves has right lengths and checksums.
    Sound,
    /// At most a site hop, and behind it a node hop.
    Hops,
    /// A packet for a slice reaches nobody but who owned it while the packet was under way.
    Owner,
    /// Nobody sends from a slice that it does not own, and nothing malformed passes.
    Admission,
    /// Payloads arrive unchanged, each part once, unless a link doubled it.
    Payload,
    /// Every packet that does not arrive has one reason, at a router or on a link.
    Reason,
    /// When all is well again, every flow gets through.
    Liveness,
    /// A configuration of the model is taken by the routers.
    Configuration,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accounting => "accounting",
            Self::Chunks => "conservation of chunks",
            Self::OneForOne => "at most one frame out for one in",
            Self::Ttl => "the TTL falls by one at each hop",
            Self::Sound => "sound packets leave",
            Self::Hops => "a site hop and a node hop at most",
            Self::Owner => "slices reach their owners only",
            Self::Admission => "what must not pass does not",
            Self::Payload => "payloads arrive unchanged, and once",
            Self::Reason => "every loss has one reason",
            Self::Liveness => "flows get through again",
            Self::Configuration => "configurations are taken",
        })
    }
}

/// What did not hold, when and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which property.
    pub property: Property,
    /// Virtual time.
    pub time_ns: u64,
    /// What happened instead.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.time_ns / 1000;
        write!(f, "{} ms: {}: {}", millis as f64 / 1000.0, self.property, self.what)
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of every event and every byte, in their order.
    pub digest: u64,
    /// How often what happened, by name.
    pub counts: BTreeMap<String, u64>,
    /// What did not hold: the run ends there.
    pub violation: Option<Violation>,
    /// One line for each event, if they were asked for.
    pub trace: Vec<String>,
    /// What was on each segment, if it was asked for.
    pub captures: Vec<Vec<Packet>>,
}

/// Runs a network.
#[must_use]
pub fn simulate(options: &Options) -> Report {
    engine::Engine::run(options)
}
