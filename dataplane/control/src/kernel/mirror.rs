//! The mirror's thread: news, dumps and publication in one loop.

mod publish;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use ipnet::IpNet;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_DUMP_INTR, NLM_F_REPLACE};
use netlink_sys::Socket;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::decode::{self, Malformed};
use super::model::{Address, KernelEvent, Link, LocalKind, Neighbor, SyncCause};
use super::netlink::{self, DATAGRAM_BYTES_MAX, Dump, Message};
use super::stamped::{Origin, Stamped};
use super::tables::{Placement, Tables, Version};
use super::{Counters, MirrorError, MirrorOptions};

/// The kernel's table of local addresses.
const TABLE_LOCAL: u32 = 255;

/// Datagrams of news that are read in one go, before dumps and publication get their turn.
const NEWS_AT_ONCE: usize = 64;

/// How often a dump that was interrupted is begun again, before what it did not
/// name is left as it was and all is read once more later.
const INTERRUPTIONS_MAX: u32 = 5;

/// A pause before tables are read again: changes of links come in bursts.
const SILENT_CHANGE_PAUSE: Duration = Duration::from_millis(50);

/// A pause before tables are read again after an overrun, so that a storm of news does not keep
/// the mirror reading all the time.
const OVERRUN_PAUSE: Duration = Duration::from_millis(100);

/// A pause before tables are read again that could not be read.
const REFUSAL_PAUSE: Duration = Duration::from_secs(5);

/// A statement about a local prefix. Two interfaces may have the same broadcast address: each
/// statement stands for itself.
type LocalKey = (IpNet, LocalKind, Option<u32>, u32);

/// One full reading of the kernel's tables.
struct Reading {
    cause: SyncCause,
    /// What is left to dump; the first is being dumped.
    dumps: VecDeque<Dump>,
    sequence: u32,
    interrupted: bool,
    interruptions: u32,
}

struct Mirror<'a> {
    options: MirrorOptions,
    counters: &'a Counters,
    events: Sender<KernelEvent>,

    links: Stamped<u32, Link>,
    addresses: Stamped<(u32, IpNet), Address>,
    locals: Stamped<LocalKey, ()>,
    neighbors: Stamped<(u32, IpAddr), Neighbor>,
    tables: Tables,

    links_dirty: bool,
    addresses_dirty: bool,
    neighbors_dirty: BTreeSet<(u32, IpAddr)>,
    /// Neighbors that were told, so that a link that leaves the owned ones takes its own along.
    neighbors_told: HashSet<(u32, IpAddr)>,
    /// A reading that has ended; told when all that it found has been.
    ended: Option<SyncCause>,

    sequence: u32,
    reading: Option<Reading>,
    /// When to read again, and why.
    read_at: Option<(Instant, SyncCause)>,
    /// All news from before the last overrun was taken in. The kernel tells of an overrun at once, while
    /// older news still waits in the buffer: read after a dump has begun, it would be believed rather than
    /// the dump, although what came after it is lost.
    is_drained: bool,
    /// When to tell what was gathered.
    publish_at: Option<Instant>,
    /// That time has come.
    due: bool,
}

/// Mirrors until the other end of `commands` is closed, the events' receivers are gone, or reading
/// fails. Each byte that comes over `commands` asks for a full reading.
pub(super) fn run(
    options: MirrorOptions,
    news: &Socket,
    dumps: &Socket,
    commands: &UnixStream,
    events: Sender<KernelEvent>,
    counters: &Counters,
) {
    let mut mirror = Mirror::new(options, events, counters);
    if let Err(error) = mirror.run(news, dumps, commands) {
        tracing::error!(%error, "the kernel mirror has ended");
        // A consumer that does not listen learns it from the closed channel.
        let _ = mirror
            .events
            .send_timeout(KernelEvent::Failed(Arc::new(error)), Duration::from_secs(1));
    }
}

impl<'a> Mirror<'a> {
    fn new(options: MirrorOptions, events: Sender<KernelEvent>, counters: &'a Counters) -> Self {
        let tables = Tables::new(options.tables.clone());
        Self {
            options,
            counters,
            events,
            links: Stamped::default(),
            addresses: Stamped::default(),
            locals: Stamped::default(),
            neighbors: Stamped::default(),
            tables,
            links_dirty: false,
            addresses_dirty: false,
            neighbors_dirty: BTreeSet::new(),
            neighbors_told: HashSet::new(),
            ended: None,
            sequence: 0,
            reading: None,
            read_at: Some((Instant::now(), SyncCause::Start)),
            is_drained: true,
            publish_at: None,
            due: false,
        }
    }

    fn run(
        &mut self,
        news: &Socket,
        dumps: &Socket,
        commands: &UnixStream,
    ) -> Result<(), MirrorError> {
        let broken = |action| move |error| MirrorError::Broken { action, error };
        let mut buffer = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        loop {
            let [commanded, told, dumped] = self
                .wait(commands.as_fd(), news.as_fd(), dumps.as_fd())
                .map_err(broken("waiting for news"))?;
            if commanded && !self.take_commands(commands).map_err(broken("taking commands"))? {
                return Ok(());
            }
            // News before dumps: it must not be lost, dumps wait in the kernel.
            if told {
                self.read_news(news, &mut buffer).map_err(broken("reading news"))?;
            }
            self.tables.heard();
            let now = Instant::now();
            if self.publish_at.is_some_and(|at| at <= now) {
                self.publish_at = None;
                self.due = true;
            }
            let may_begin = self.reading.is_none() && self.is_drained;
            if may_begin && self.read_at.is_some_and(|(at, _)| at <= now) {
                self.begin_reading(dumps).map_err(broken("asking for a dump"))?;
            } else if dumped {
                self.read_dump(dumps, &mut buffer).map_err(broken("reading a dump"))?;
            }
            if let Err(publish::Deserted) = self.publish() {
                return Ok(());
            }
        }
    }

    /// Waits until one of the three can be read, or something is due.
    fn wait(
        &self,
        commands: BorrowedFd<'_>,
        news: BorrowedFd<'_>,
        dumps: BorrowedFd<'_>,
    ) -> io::Result<[bool; 3]> {
        let may_begin = self.reading.is_none() && self.is_drained;
        let read_at = self.read_at.filter(|_| may_begin).map(|(at, _)| at);
        let timeout = match self.publish_at.into_iter().chain(read_at).min() {
            // Rounded up: waking before the time would mean waking again and again.
            Some(at) => {
                let pause = at.saturating_duration_since(Instant::now());
                let pause_ms = pause.as_micros().div_ceil(1000);
                PollTimeout::try_from(pause_ms).unwrap_or(PollTimeout::MAX)
            }
            None => PollTimeout::NONE,
        };
        let mut fds = [commands, news, dumps].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut fds, timeout) {
            Ok(_) => Ok(fds.map(|fd| fd.any().unwrap_or(true))),
            Err(Errno::EINTR) => Ok([false; 3]),
            Err(errno) => Err(errno.into()),
        }
    }

    /// False if the mirror is to end.
    fn take_commands(&mut self, mut commands: &UnixStream) -> io::Result<bool> {
        let mut bytes = [0; 64];
        match commands.read(&mut bytes) {
            Ok(0) => Ok(false),
            Ok(_) => {
                self.read_again(Duration::ZERO, SyncCause::Asked);
                Ok(true)
            }
            Err(error) if would_block(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    fn read_news(&mut self, socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
        for _ in 0..NEWS_AT_ONCE {
            match netlink::receive(socket, buffer) {
                Ok(()) => self.take_news(buffer),
                Err(error) if is_overrun(&error) => self.overrun(),
                Err(error) if would_block(&error) => {
                    self.is_drained = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read_dump(&mut self, socket: &Socket, buffer: &mut Vec<u8>) -> io::Result<()> {
        match netlink::receive(socket, buffer) {
            Ok(()) => self.take_dump(buffer, socket),
            // A part of this dump is lost: nothing else is on that socket.
            Err(error) if is_overrun(&error) => {
                if let Some(reading) = &mut self.reading {
                    reading.interrupted = true;
                }
                Ok(())
            }
            Err(error) if would_block(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Asks for a full reading after `pause`, unless one is due earlier.
    fn read_again(&mut self, pause: Duration, cause: SyncCause) {
        let at = Instant::now() + pause;
        self.read_at = Some(match self.read_at {
            Some((due, earlier)) if due <= at => (due, earlier),
            _ => (at, cause),
        });
    }

    fn overrun(&mut self) {
        self.counters.overruns.fetch_add(1, Relaxed);
        self.is_drained = false;
        tracing::warn!("the kernel's buffer for news overflowed; all tables are read again");
        self.read_again(OVERRUN_PAUSE, SyncCause::Overrun);
    }

    // ---- dumps ----

    fn begin_reading(&mut self, socket: &Socket) -> io::Result<()> {
        let Some((_, cause)) = self.read_at.take() else { return Ok(()) };
        // Links first: neighbors are filtered by them. Objects before the routes that name them.
        let mut dumps = VecDeque::from([Dump::Links, Dump::Addresses]);
        if self.options.routes {
            dumps.push_back(Dump::Nexthops);
            for &table in &self.options.tables {
                dumps.push_back(Dump::Routes { v6: false, table });
                dumps.push_back(Dump::Routes { v6: true, table });
            }
        }
        dumps.push_back(Dump::Routes { v6: false, table: TABLE_LOCAL });
        dumps.push_back(Dump::Routes { v6: true, table: TABLE_LOCAL });
        if self.options.neighbors {
            dumps.push_back(Dump::Neighbors);
        }
        self.reading =
            Some(Reading { cause, dumps, sequence: 0, interrupted: false, interruptions: 0 });
        self.begin_dump(socket)
    }

    /// Begins the first of the reading's dumps.
    fn begin_dump(&mut self, socket: &Socket) -> io::Result<()> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let Some(&dump) = reading.dumps.front() else { return Ok(()) };
        self.sequence = self.sequence.wrapping_add(1).max(1);
        reading.sequence = self.sequence;
        reading.interrupted = false;
        match dump {
            Dump::Links => self.links.begin(),
            Dump::Addresses => self.addresses.begin(),
            Dump::Nexthops => self.tables.begin_objects(),
            // Both families of the local table are in one map.
            Dump::Routes { v6, table: TABLE_LOCAL } => {
                if !v6 {
                    self.locals.begin();
                }
            }
            Dump::Routes { v6, .. } => self.tables.begin(version(v6)),
            Dump::Neighbors => self.neighbors.begin(),
        }
        netlink::send(socket, &netlink::dump_request(dump, self.sequence))
    }

    fn take_dump(&mut self, datagram: &[u8], socket: &Socket) -> io::Result<()> {
        for message in netlink::messages(datagram) {
            let Ok(message) = message else {
                self.counters.malformed.fetch_add(1, Relaxed);
                break;
            };
            let Some(reading) = &mut self.reading else { break };
            if message.sequence != reading.sequence {
                continue;
            }
            reading.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
            match message.kind {
                netlink::NLMSG_DONE | netlink::NLMSG_ERROR => {
                    self.end_dump(netlink::errno(message.payload), socket)?;
                }
                _ => self.take(message, Origin::Dump),
            }
        }
        Ok(())
    }

    fn end_dump(
        &mut self,
        (errno, words): (i32, Option<String>),
        socket: &Socket,
    ) -> io::Result<()> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        let Some(&dump) = reading.dumps.front() else { return Ok(()) };
        let complete = match errno {
            // A table without routes may not exist; a kernel without nexthop objects or without
            // IPv6 has none of them.
            0 | nix::libc::ENOENT | nix::libc::EOPNOTSUPP | nix::libc::EAFNOSUPPORT => {
                !reading.interrupted
            }
            nix::libc::EBUSY | nix::libc::EAGAIN | nix::libc::EINTR => false,
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                tracing::warn!(?dump, %error, words, "the kernel refuses to dump a table");
                reading.interruptions = INTERRUPTIONS_MAX;
                false
            }
        };
        if !complete {
            if reading.interruptions < INTERRUPTIONS_MAX {
                reading.interruptions += 1;
                if dump == (Dump::Routes { v6: true, table: TABLE_LOCAL }) {
                    reading.dumps.push_front(Dump::Routes { v6: false, table: TABLE_LOCAL });
                }
                return self.begin_dump(socket);
            }
            self.read_again(REFUSAL_PAUSE, SyncCause::Overrun);
        }
        match dump {
            _ if !complete => {}
            Dump::Links => {
                let gone = self.links.finish();
                self.links_dirty |= !gone.is_empty();
                self.refilter_neighbors();
            }
            Dump::Addresses => self.addresses_dirty |= !self.addresses.finish().is_empty(),
            Dump::Nexthops => self.tables.finish_objects(),
            Dump::Routes { v6, table: TABLE_LOCAL } => {
                if v6 {
                    self.addresses_dirty |= !self.locals.finish().is_empty();
                }
            }
            Dump::Routes { v6, table } => self.tables.finish(version(v6), table),
            Dump::Neighbors => {
                self.neighbors_dirty
                    .extend(self.neighbors.finish().into_iter().map(|(key, _)| key));
            }
        }
        let Some(reading) = &mut self.reading else { return Ok(()) };
        reading.dumps.pop_front();
        reading.interruptions = 0;
        if reading.dumps.is_empty() {
            self.ended = Some(reading.cause);
            self.reading = None;
            self.counters.readings.fetch_add(1, Relaxed);
            return Ok(());
        }
        self.begin_dump(socket)
    }

    // ---- statements ----

    fn take_news(&mut self, datagram: &[u8]) {
        for message in netlink::messages(datagram) {
            match message {
                Ok(message) => self.take(message, Origin::News),
                Err(()) => {
                    self.counters.malformed.fetch_add(1, Relaxed);
                }
            }
        }
    }

    fn take(&mut self, message: Message<'_>, origin: Origin) {
        self.counters.messages.fetch_add(1, Relaxed);
        let taken = match message.kind {
            netlink::RTM_NEWLINK | netlink::RTM_DELLINK => self.take_link(message, origin),
            netlink::RTM_NEWADDR | netlink::RTM_DELADDR => self.take_address(message, origin),
            netlink::RTM_NEWROUTE | netlink::RTM_DELROUTE => self.take_route(message, origin),
            netlink::RTM_NEWNEXTHOP | netlink::RTM_DELNEXTHOP => self.take_nexthop(message, origin),
            netlink::RTM_NEWNEIGH | netlink::RTM_DELNEIGH => self.take_neighbor(message, origin),
            _ => Ok(()),
        };
        if let Err(Malformed(what)) = taken {
            self.counters.malformed.fetch_add(1, Relaxed);
            tracing::warn!(what, kind = message.kind, "netlink: a message cannot be read");
        }
    }

    fn take_link(&mut self, message: Message<'_>, origin: Origin) -> Result<(), Malformed> {
        let Some(link) = decode::link(message.payload)? else { return Ok(()) };
        let ifindex = link.ifindex;
        let (was_up, was_named) =
            self.links.get(&ifindex).map_or((false, None), |old| (old.up, Some(old.name.clone())));
        let (is_up, is_named) = if message.kind == netlink::RTM_DELLINK {
            self.links_dirty |= self.links.remove(&ifindex).is_some();
            (false, None)
        } else {
            let now = (link.up, Some(link.name.clone()));
            self.links_dirty |= self.links.set(ifindex, link, origin);
            now
        };
        if origin == Origin::News {
            if was_up != is_up {
                self.read_again(SILENT_CHANGE_PAUSE, SyncCause::SilentChange);
            }
            if was_named != is_named {
                self.refilter_neighbors();
            }
        }
        Ok(())
    }

    fn take_address(&mut self, message: Message<'_>, origin: Origin) -> Result<(), Malformed> {
        let Some(address) = decode::address(message.payload)? else { return Ok(()) };
        let key = (address.ifindex, address.network);
        if message.kind == netlink::RTM_NEWADDR {
            self.addresses_dirty |= self.addresses.set(key, address, origin);
        } else if self.addresses.remove(&key).is_some() {
            self.addresses_dirty = true;
            // Routes with this source address go without a word.
            self.read_again(SILENT_CHANGE_PAUSE, SyncCause::SilentChange);
        }
        Ok(())
    }

    fn take_route(&mut self, message: Message<'_>, origin: Origin) -> Result<(), Malformed> {
        // A kernel's cache entries are no routes.
        const RTM_F_CLONED: u32 = 0x200;
        let flags = message.payload.get(8..12).and_then(<[u8]>::first_chunk);
        if flags.is_some_and(|flags| u32::from_ne_bytes(*flags) & RTM_F_CLONED != 0) {
            return Ok(());
        }
        let deleted = message.kind == netlink::RTM_DELROUTE;
        let Some(route) = decode::route(message.payload, deleted)? else { return Ok(()) };
        if route.table == TABLE_LOCAL {
            if let Some(kind) = route.local {
                let key = (route.prefix, kind, route.ifindex, route.metric);
                self.addresses_dirty |= if deleted {
                    self.locals.remove(&key).is_some()
                } else {
                    self.locals.set(key, (), origin)
                };
            }
        } else if self.options.routes && self.options.tables.contains(&route.table) {
            if deleted {
                if !self.tables.deleted(route) {
                    self.read_again(SILENT_CHANGE_PAUSE, SyncCause::SilentChange);
                }
            } else if origin == Origin::Dump {
                self.tables.dumped(route);
            } else {
                let placement = match message.flags {
                    flags if flags & NLM_F_REPLACE != 0 => Placement::Replace,
                    flags if flags & NLM_F_APPEND != 0 => Placement::Last,
                    _ => Placement::First,
                };
                self.tables.added(route, placement);
            }
        }
        Ok(())
    }

    fn take_nexthop(&mut self, message: Message<'_>, origin: Origin) -> Result<(), Malformed> {
        if let Some((id, nexthop)) = decode::nexthop(message.payload)?
            && self.options.routes
        {
            if message.kind == netlink::RTM_DELNEXTHOP {
                self.tables.object_deleted(id);
            } else if !self.tables.object_set(id, nexthop, origin) {
                self.read_again(SILENT_CHANGE_PAUSE, SyncCause::SilentChange);
            }
        }
        Ok(())
    }

    fn take_neighbor(&mut self, message: Message<'_>, origin: Origin) -> Result<(), Malformed> {
        let Some((ifindex, ip, neighbor)) = decode::neighbor(message.payload)? else {
            return Ok(());
        };
        if !self.options.neighbors {
            return Ok(());
        }
        let key = (ifindex, ip);
        let changed = if message.kind == netlink::RTM_DELNEIGH {
            self.neighbors.remove(&key).is_some()
        } else {
            self.neighbors.set(key, neighbor, origin)
        };
        if changed {
            self.neighbors_dirty.insert(key);
        }
        Ok(())
    }

    fn owns(&self, ifindex: u32) -> bool {
        self.options.interfaces.is_empty()
            || self
                .links
                .get(&ifindex)
                .is_some_and(|link| self.options.interfaces.contains(&link.name))
    }

    /// An interface came, went or has another name.
    fn refilter_neighbors(&mut self) {
        if !self.options.interfaces.is_empty() {
            self.neighbors_dirty.extend(self.neighbors.iter().map(|(key, _)| *key));
            self.neighbors_dirty.extend(&self.neighbors_told);
        }
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(nix::libc::ENOBUFS)
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

fn version(v6: bool) -> Version {
    if v6 { Version::V6 } else { Version::V4 }
}
