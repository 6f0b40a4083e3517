//! The kernel mirror: what the kernel knows of links, addresses, routes and neighbors, kept up to
//! date over netlink, so that BIRD, FRR and `ip` work with the router unchanged.
//!
//! ```text
//!                         news (multicast groups)
//!   kernel --------------------------------------> +--------+   KernelEvent, coalesced
//!          <-- dump requests --- dumps ----------> | thread | -----------------------> router
//!                                                  +--------+
//!          <-- neighbors to keep, look-ups --------- KernelMirror (caller's thread)
//! ```
//!
//! Terms: *news* are messages that the kernel sends by itself; a *dump* is a table that it was
//! asked for. Both run at the same time: `stamped.rs` says which of them is believed.
//!
//! Invariants:
//! - What was told is never forgotten while a table is read again: a full reading tells the
//!   differences only, and removals last.
//! - Memory is bounded by the kernel's tables, not by the rate of news: a consumer that is slow
//!   finds changes coalesced. Neighbors and links are told at once, routes and addresses at most
//!   every [`COALESCE_MS`].
//! - When the kernel loses news (ENOBUFS), all tables are read again. So they are when a
//!   link changes its state or an address goes, because the kernel then removes
//!   IPv4 routes, and disables IPv6 ones, without telling. The routes of a nexthop object that goes
//!   it removes without telling too, but they are those that name it: nothing is read for them.
//!
//! Deliberately absent: rules (`ip rule`). The tables that are mirrored become one; what a rule sends
//! elsewhere the router does not see. Multicast routes and MPLS belong to the kernel.

mod decode;
mod mirror;
mod model;
mod netlink;
mod objects;
mod requests;
mod stamped;
mod tables;

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crossbeam::channel::Receiver;
use thiserror::Error;
use thread_priority::ThreadPriority;

pub use model::{
    Address, Addresses, KernelEvent, KernelState, Link, LocalKind, Mac, Neighbor, NeighborChange,
    NeighborState, NextHop, Reason, Route, RouteChange, RouteKind, Routes, Scope, SyncCause,
};
pub use requests::{Management, RouteLookup};

/// How long changes of routes and addresses are gathered, in milliseconds. Less costs more
/// publications of tables; more delays the network's convergence.
pub const COALESCE_MS: u64 = 5;

/// Most changes in one [`KernelEvent::Routes`]: a megabyte.
pub const CHANGES_MAX: usize = 8192;

/// Most events that wait for the consumer. More stay coalesced inside the mirror.
pub const EVENTS_MAX: usize = 64;

/// What to mirror.
#[derive(Clone, Debug)]
pub struct MirrorOptions {
    /// The routing tables; 254 is the main one. Where several have a route for one prefix, those of the
    /// table that stands first come first.
    pub tables: Vec<u32>,
    /// Whether to mirror routes. Links, addresses and local prefixes always are.
    pub routes: bool,
    /// Whether to mirror neighbors.
    pub neighbors: bool,
    /// Names of the interfaces whose neighbors are mirrored; none means all.
    pub interfaces: Vec<String>,
    /// Bytes of the kernel's buffer for news. What does not fit costs a reading of all tables: a
    /// route takes about 1 KiB there.
    pub receive_buffer_bytes: usize,
}

impl Default for MirrorOptions {
    fn default() -> Self {
        Self {
            tables: vec![254],
            routes: true,
            neighbors: true,
            interfaces: Vec::new(),
            receive_buffer_bytes: 128 << 20,
        }
    }
}

/// Why there is no mirror, or why the kernel did not do what it was asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MirrorError {
    /// A socket or thread could not be made.
    #[error("kernel mirror: {action}: {error}")]
    Start {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// Reading from the kernel failed for good.
    #[error("kernel mirror: {action}: {error}")]
    Broken {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        error: io::Error,
    },
    /// The kernel refused a request.
    #[error("kernel: {action}: {error}{}", .words.as_deref().map(|words| format!(" ({words})")).unwrap_or_default())]
    Request {
        /// What was asked, with the address and the interface.
        action: String,
        /// The errno.
        error: io::Error,
        /// The kernel's own words, where it has some.
        words: Option<String>,
    },
}

impl MirrorError {
    fn request(action: String, refusal: netlink::Refusal) -> Self {
        Self::Request { action, error: refusal.error, words: refusal.words }
    }

    /// The system's error number, if there is one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Start { error, .. }
            | Self::Broken { error, .. }
            | Self::Request { error, .. } => error.raw_os_error(),
        }
    }
}

/// What the mirror has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MirrorCounts {
    /// IPv4 prefixes told.
    pub routes_v4: u64,
    /// IPv6 prefixes told.
    pub routes_v6: u64,
    /// Prefixes told, of both families, whose route is [`RouteKind::NotExpressible`].
    pub routes_unexpressible: u64,
    /// Messages received, news and dumps.
    pub messages: u64,
    /// Messages that could not be read and were passed over.
    pub malformed: u64,
    /// Times that the kernel lost news for want of buffer.
    pub overruns: u64,
    /// Full readings that have ended.
    pub readings: u64,
}

#[derive(Debug, Default)]
struct Counters {
    routes_v4: AtomicU64,
    routes_v6: AtomicU64,
    routes_unexpressible: AtomicU64,
    messages: AtomicU64,
    malformed: AtomicU64,
    overruns: AtomicU64,
    readings: AtomicU64,
}

/// A running mirror. Dropping it ends its thread.
///
/// All its sockets belong to the network namespace of the thread that called
/// [`start`](Self::start).
#[derive(Debug)]
pub struct KernelMirror {
    counters: Arc<Counters>,
    requests: Mutex<requests::Requests>,
    /// A byte asks for a full reading; closing it ends the thread.
    commands: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl KernelMirror {
    /// Starts the mirror. Its events come out of the returned channel; the first
    /// [`KernelEvent::Synchronized`] follows the whole initial state.
    ///
    /// # Errors
    /// [`MirrorError::Start`] if a netlink socket or the thread cannot be made.
    pub fn start(options: MirrorOptions) -> Result<(Self, Receiver<KernelEvent>), MirrorError> {
        let start = |action| move |error| MirrorError::Start { action, error };
        let news = netlink::open_news(options.receive_buffer_bytes)
            .map_err(start("opening a netlink socket for news"))?;
        let dumps = netlink::open().map_err(start("opening a netlink socket for dumps"))?;
        dumps.set_non_blocking(true).map_err(start("opening a netlink socket for dumps"))?;
        let requests =
            requests::Requests::open().map_err(start("opening a netlink socket for requests"))?;

        let counters = Arc::new(Counters::default());
        let (commands, received) = UnixStream::pair()
            .and_then(|(near, far)| {
                // A full pipe means that a reading is due anyway.
                near.set_nonblocking(true)?;
                far.set_nonblocking(true)?;
                Ok((near, far))
            })
            .map_err(start("making a pair of sockets"))?;
        let (sender, events) = crossbeam::channel::bounded(EVENTS_MAX);
        let thread = thread::Builder::new()
            .name("kernel-mirror".into())
            .spawn({
                let counters = Arc::clone(&counters);
                move || {
                    give_way();
                    mirror::run(options, &news, &dumps, &received, sender, &counters);
                }
            })
            .map_err(start("starting a thread"))?;
        let mirror = Self {
            counters,
            requests: Mutex::new(requests),
            commands: Some(commands),
            thread: Some(thread),
        };
        Ok((mirror, events))
    }

    /// Makes the kernel resolve `address` on the interface and keep it resolved, although no
    /// packet of its own goes there.
    ///
    /// # Errors
    /// [`MirrorError::Request`], for instance without CAP_NET_ADMIN or on an interface that is
    /// down.
    pub fn install_managed_neighbor(
        &self,
        ifindex: u32,
        address: IpAddr,
    ) -> Result<Management, MirrorError> {
        self.requests().manage(ifindex, address)
    }

    /// Leaves the neighbor to itself again. No error if the kernel does not know or manage it.
    ///
    /// # Errors
    /// [`MirrorError::Request`].
    pub fn remove_managed_neighbor(
        &self,
        ifindex: u32,
        address: IpAddr,
    ) -> Result<(), MirrorError> {
        self.requests().unmanage(ifindex, address)
    }

    /// Makes the kernel resolve the neighbor now, or confirm it if it is stale. The outcome comes
    /// as an event.
    ///
    /// # Errors
    /// [`MirrorError::Request`].
    pub fn probe(&self, ifindex: u32, address: IpAddr) -> Result<(), MirrorError> {
        self.requests().probe(ifindex, address)
    }

    /// What the kernel would do with a packet of its own to `address`, by all its rules and tables.
    ///
    /// # Errors
    /// [`MirrorError::Request`].
    pub fn route_get(&self, address: IpAddr) -> Result<RouteLookup, MirrorError> {
        self.requests().route(address)
    }

    /// Reads all tables again and tells the differences, then [`KernelEvent::Synchronized`].
    pub fn resync(&self) {
        if let Some(mut commands) = self.commands.as_ref() {
            // A thread that has ended has told so.
            let _ = commands.write(&[0]);
        }
    }

    /// What was seen so far.
    #[must_use]
    pub fn counts(&self) -> MirrorCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        MirrorCounts {
            routes_v4: get(&self.counters.routes_v4),
            routes_v6: get(&self.counters.routes_v6),
            routes_unexpressible: get(&self.counters.routes_unexpressible),
            messages: get(&self.counters.messages),
            malformed: get(&self.counters.malformed),
            overruns: get(&self.counters.overruns),
            readings: get(&self.counters.readings),
        }
    }

    fn requests(&self) -> std::sync::MutexGuard<'_, requests::Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes this thread wait for others where cores are shared: reading a million routes again takes seconds
/// of a core, which belong to the workers first.
fn give_way() {
    // Nice 5 on the crate's scale, where 0 is nice 20 and 99 nice -20: a quarter of a core that a worker
    // keeps busy. With much less, a reading would take so long that its end is out of date.
    const PRIORITY: u8 = 37;
    let lowered = ThreadPriority::try_from(PRIORITY).map(ThreadPriority::set_for_current);
    if !matches!(lowered, Ok(Ok(()))) {
        tracing::warn!("the kernel mirror's thread keeps its priority");
    }
}

impl Drop for KernelMirror {
    fn drop(&mut self) {
        drop(self.commands.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
