//! How long a worker's turns are while a million routes are read again from the kernel: the distribution of
//! the processor time of single turns, beside controls.
//!
//! ```text
//!  ip -batch --> kernel --netlink--> KernelMirror --> Publication --> worker, alone on the last core,
//!  (a namespace)                     (a thread)       (this thread)   64 packets of the table a turn
//! ```
//!
//! - `quiet`: nothing changes.
//! - `asked`: everything is read again, and nothing is found to have changed.
//! - `overrun`: all routes get another next hop, faster than the mirror's small buffer takes. News is lost
//!   and everything is read again, as often as the kernel tells of losses; every route changes in the tables.
//!
//! The last two once for a worker *aside*, whose tables are a copy that stays as it is, and once for one that
//! follows. Interrupts are charged to the thread that they interrupt: what is long in the rows of a worker
//! aside, or in `quiet`, is no work of the worker's. A turn *follows* when it takes over a new snapshot; of a
//! worker aside it is the turn that comes when there is one.
//!
//! `cargo bench -p benches --bench resync`; it takes four minutes, root and four gigabytes. The routes are
//! those of SLUICE_TESTDATA, or a synthetic table of the same shape.

#[allow(dead_code, reason = "each bench is a program of its own, and not all need everything")]
#[path = "common/rig.rs"]
mod rig;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use benches::routes::Routes;
use config::Checked;
use control::kernel::{KernelEvent, KernelMirror, MirrorCounts, MirrorOptions};
use control::publication::{Changes, HostView, NeighborView, Publication, Timing};
use crossbeam::channel::Receiver;
use forward::Worker;
use frame::{Nanos, NoHook};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use rig::{CONFIG, NEXT_HOP_MAC, Traffic, go_inside, host, prepare, spread_inside4, worker};
use sim::LoopQueue;
use tables::{AdjacencyState, Reader};
use wire::InterfaceId;

/// Frames of a turn.
const BATCH: usize = 64;
/// Next hops of each family that routes lead to, and that all of them move by.
const NEXT_HOPS: usize = 64;
const MOVE: usize = 7;
/// Some hundred routes of news.
const SMALL_BUFFER_BYTES: usize = 256 << 10;
/// What a turn is to stay below.
const LONG: Duration = Duration::from_micros(50);
/// How often each of the longest two is done.
const ROUNDS: usize = 2;
/// The router's own bounds on how long it gathers changes.
const GATHERED_MIN: Duration = Duration::from_millis(2);
const GATHERED_MAX: Duration = Duration::from_secs(1);
/// Nothing has come for so long when all is known.
const SILENCE: Duration = Duration::from_secs(1);

/// Turns by processor time.
struct Turns {
    /// By whole microseconds; the last for all that are longer.
    counts: Vec<u64>,
    longest: Duration,
}

impl Turns {
    fn new() -> Self {
        Self { counts: vec![0; 10_000], longest: Duration::ZERO }
    }

    fn add(&mut self, took: Duration) {
        let last = self.counts.len() - 1;
        self.counts[usize::try_from(took.as_micros()).unwrap_or(last).min(last)] += 1;
        self.longest = self.longest.max(took);
    }

    fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Microseconds that this share of turns stays within.
    fn quantile(&self, share: f64) -> usize {
        let rank = (self.len() as f64 * share) as u64;
        let mut below = 0;
        let is_there = |count: &u64| {
            below += count;
            below > rank
        };
        self.counts.iter().position(is_there).unwrap_or_default() + 1
    }

    fn long(&self) -> u64 {
        self.counts[LONG.as_micros() as usize..].iter().sum()
    }
}

/// A worker that was measured.
struct Measured {
    all: Turns,
    /// Those that took over a snapshot, or could have.
    following: Turns,
    page_faults: i64,
    took: Duration,
}

fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a clock of the thread").into()
}

fn measure(
    worker: &mut Worker<LoopQueue, NoHook>,
    mut published: Reader,
    stop: &AtomicBool,
) -> Measured {
    let faults = || getrusage(UsageWho::RUSAGE_THREAD).map_or(0, |usage| usage.minor_page_faults());
    let (mut all, mut following) = (Turns::new(), Turns::new());
    // The first turn fills the rings, others fill the caches.
    for now in 0..1000 {
        prepare(worker);
        worker.turn(Nanos(now));
    }
    let (start, faults_before) = (Instant::now(), faults());
    published.refresh();
    while !stop.load(Ordering::Relaxed) {
        prepare(worker);
        let follows = published.refresh();
        let now = Nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX) + 1000);
        let before = processor_time();
        worker.turn(now);
        let took = processor_time() - before;
        all.add(took);
        if follows {
            following.add(took);
        }
    }
    Measured { all, following, page_faults: faults() - faults_before, took: start.elapsed() }
}

/// Measures a worker on the last core while `work` is done here.
fn beside(
    control: &mut Control,
    mut worker: Worker<LoopQueue, NoHook>,
    work: impl FnOnce(&mut Control),
) -> Measured {
    let published = control.publication.reader();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            if let Some(&core) = core_affinity::get_core_ids().unwrap_or_default().last() {
                core_affinity::set_for_current(core);
            }
            measure(&mut worker, published, &stop)
        });
        work(control);
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("a worker")
    })
}

/// The router's control loop, as far as it is about routes.
struct Control {
    mirror: KernelMirror,
    events: Receiver<KernelEvent>,
    publication: Publication,
    host: HostView,
    gathered_since: Option<Instant>,
    collected: Instant,
}

impl Control {
    /// Takes in what comes next, and publishes what is due.
    fn pass(&mut self) -> Option<KernelEvent> {
        let event = self.events.recv_timeout(Duration::from_millis(1)).ok();
        match &event {
            Some(KernelEvent::Routes { changes, since }) => {
                self.publication.kernel_routes(changes, *since);
                self.gathered_since.get_or_insert_with(Instant::now);
            }
            Some(KernelEvent::Failed(error)) => panic!("{error}"),
            _ => {}
        }
        let now = Instant::now();
        if self.publication.tick(now) {
            self.gathered_since.get_or_insert(now);
        }
        if let Some(since) = self.gathered_since {
            let pause = self.publication.timing().last_build.clamp(GATHERED_MIN, GATHERED_MAX);
            let waited = since.elapsed();
            if waited >= pause && (self.events.is_empty() || waited >= GATHERED_MAX) {
                let changes = Changes { routes: true, neighbors: false };
                self.publication.host_changed(&self.host, changes).expect("a publication");
                self.gathered_since = None;
            }
        } else if self.publication.is_waiting() || self.collected.elapsed() > GATHERED_MAX {
            self.publication.collect();
            self.collected = Instant::now();
        }
        event
    }

    fn pass_for(&mut self, time: Duration) {
        let start = Instant::now();
        while start.elapsed() < time {
            self.pass();
        }
    }

    /// Has everything read again, once.
    fn resync(&mut self) {
        self.mirror.resync();
        while !matches!(self.pass(), Some(KernelEvent::Synchronized(_))) {}
        self.settle();
    }

    /// Goes on until the kernel and the mirror are silent.
    fn settle(&mut self) {
        let (mut messages, mut since) = (0, Instant::now());
        while since.elapsed() < SILENCE || self.gathered_since.is_some() {
            let now = self.mirror.counts().messages;
            if self.pass().is_some() || now != messages {
                (messages, since) = (now, Instant::now());
            }
        }
    }

    /// Has the kernel change all routes.
    fn change(&mut self, batch: &Path) {
        let mut ip = Command::new("ip").arg("-batch").arg(batch).spawn().expect("ip runs");
        while ip.try_wait().expect("a process").is_none() {
            self.pass();
        }
        assert!(ip.wait().expect("a process").success(), "ip -batch");
        self.settle();
    }

    fn worker(&self) -> Worker<LoopQueue, NoHook> {
        to_inside(&self.publication)
    }

    /// Of a router with the same routes, which do not change.
    fn worker_aside(&self) -> Worker<LoopQueue, NoHook> {
        let aside = self.publication.routes_aside().expect("there is memory");
        to_inside(&aside.publication(config(), &self.host).expect("a publication"))
    }
}

fn to_inside(publication: &Publication) -> Worker<LoopQueue, NoHook> {
    worker(Traffic::Ipv4, (BATCH, BATCH), Some(spread_inside4), publication, NoHook)
}

fn config() -> Arc<Checked> {
    Arc::new(Checked::parse(CONFIG, "bench.toml").expect("a valid configuration"))
}

fn ip(words: &str) {
    let done = Command::new("ip").args(words.split(' ')).status().expect("ip runs");
    assert!(done.success(), "ip {words}");
}

fn via(number: usize) -> [IpAddr; 2] {
    let hop = 2 + number % NEXT_HOPS;
    [format!("10.0.1.{hop}"), format!("fd00:1::{hop:x}")]
        .map(|text| text.parse().expect("an address"))
}

/// Lines for `ip -batch`: every route by the next hop that is `shift` behind its own.
fn batch(routes: &Routes, shift: usize) -> tempfile::NamedTempFile {
    let mut lines = String::new();
    // What no kernel routes, and its own links.
    let v4 = routes.v4.iter().map(|(prefix, _)| prefix.trunc());
    let v4 = v4.filter(|prefix| !matches!(prefix.network().octets()[0], 0 | 10 | 127 | 224..));
    for (number, prefix) in v4.enumerate() {
        let hop = via(number + shift)[0];
        writeln!(lines, "route replace {prefix} via {hop}").expect("a string");
    }
    let v6 = routes.v6.iter().map(|(prefix, _)| prefix.trunc());
    let v6 = v6.filter(|prefix| prefix.network().segments()[0] & 0xe000 == 0x2000);
    for (number, prefix) in v6.enumerate() {
        let hop = via(number + shift)[1];
        writeln!(lines, "route replace {prefix} via {hop} dev wan0").expect("a string");
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), lines).expect("a file");
    file
}

/// A router with these routes in the kernel of a namespace that goes with this process.
fn control(routes: &Routes) -> Control {
    ip("link add wan0 type veth peer name wan1");
    for words in [
        "link set wan1 up",
        "link set wan0 up",
        "address add 10.0.1.1/24 dev wan0",
        "-6 address add fd00:1::1/64 dev wan0 nodad",
    ] {
        ip(words);
    }
    std::fs::write("/proc/sys/net/ipv6/route/max_size", "4000000").expect("a variable");
    let file = batch(routes, 0);
    ip(&format!("-batch {}", file.path().display()));

    let options =
        MirrorOptions { receive_buffer_bytes: SMALL_BUFFER_BYTES, ..MirrorOptions::default() };
    let (mirror, events) = KernelMirror::start(options).expect("a mirror");
    let mut host = host();
    let resolved = NeighborView { mac: Some(NEXT_HOP_MAC), state: AdjacencyState::Resolved };
    for hop in (0..NEXT_HOPS).flat_map(via) {
        host.neighbors.insert((InterfaceId(1), hop), resolved);
    }
    let links = match events.recv() {
        Ok(KernelEvent::Links(links)) => links,
        other => panic!("before all links: {other:?}"),
    };
    host.links.insert(links["wan0"].ifindex, InterfaceId(1));
    let publication = Publication::new(config(), &host, 1).expect("a publication");
    let (gathered_since, collected) = (None, Instant::now());
    let mut control = Control { mirror, events, publication, host, gathered_since, collected };
    while !matches!(control.pass(), Some(KernelEvent::Synchronized(_))) {}
    control.settle();
    control
}

fn show(name: &str, measured: &Measured) {
    let Measured { all, following, page_faults, took } = measured;
    let per_s = |count: u64| count as f64 / took.as_secs_f64();
    println!(
        "{name:<20} {:>6.1} {:>9} {:>5} {:>6} {:>7} {:>7} {:>8} {:>9.1} {:>6} | {:>5} {:>5} {:>8} {:>5}",
        took.as_secs_f64(),
        all.len(),
        all.quantile(0.5),
        all.quantile(0.999),
        all.quantile(0.9999),
        all.quantile(0.99999),
        all.longest.as_micros(),
        per_s(all.long()),
        page_faults,
        following.len(),
        following.quantile(0.5),
        following.longest.as_micros(),
        following.long(),
    );
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    if !is_bench || arguments.next().is_some_and(|name| !"resync".contains(&name)) {
        return;
    }
    // Before there is any other thread: what comes later stays inside.
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        eprintln!("skipped: resync, which needs a network namespace: {error}");
        return;
    }
    let routes = Routes::full();
    go_inside(&routes);
    let mut control = control(&routes);
    println!("resync, {}: {:?}", routes.source, control.publication.counts());
    let files = [batch(&routes, MOVE), batch(&routes, 0)];
    println!(
        "processor time of turns of {BATCH} packets in us; long: {} and more\n\
         {:<20} {:>6} {:>9} {:>5} {:>6} {:>7} {:>7} {:>8} {:>9} {:>6} | {:>5} {:>5} {:>8} {:>5}",
        LONG.as_micros(),
        "while",
        "s",
        "turns",
        "p50",
        "p99.9",
        "p99.99",
        "p99.999",
        "longest",
        "long a s",
        "faults",
        "new",
        "p50",
        "longest",
        "long",
    );
    let worker = control.worker();
    show(
        "quiet",
        &beside(&mut control, worker, |control| control.pass_for(Duration::from_secs(10))),
    );
    let aside = control.worker_aside();
    show("asked, aside", &beside(&mut control, aside, Control::resync));
    let worker = control.worker();
    show("asked", &beside(&mut control, worker, Control::resync));
    for _ in 0..ROUNDS {
        let aside = control.worker_aside();
        let change = |file: usize| {
            let path = files[file].path();
            move |control: &mut Control| control.change(path)
        };
        show("overrun, aside", &beside(&mut control, aside, change(0)));
        let worker = control.worker();
        let before = (control.mirror.counts(), control.publication.timing());
        show("overrun", &beside(&mut control, worker, change(1)));
        show_work(before, (control.mirror.counts(), control.publication.timing()));
    }
}

type Work = (MirrorCounts, Timing);

/// What was done while the worker followed.
fn show_work((mirror_before, before): Work, (mirror, after): Work) {
    println!(
        "meanwhile {} overruns, {} readings, {} changes in {} publications, the slowest {:?} after \
         its first news",
        mirror.overruns - mirror_before.overruns,
        mirror.readings - mirror_before.readings,
        after.route_changes - before.route_changes,
        after.publications - before.publications,
        after.max_delay,
    );
}
