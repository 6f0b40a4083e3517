//! Routes learnt by BIRD over BGP, through the kernel, under traffic: every packet that arrives does so at a
//! next hop that its route names at that time.
//!
//! ```text
//!  sender ---- lan0 [ router: sluice, BIRD ] wan0 ---- hops (their link-layer addresses tell them apart)
//!                         | bgp0
//!                   [ feeder: BIRD, with routes of the Internet, each by one of five next hops ]
//! ```
//!
//! What a packet may meet is worked out from the same routes by a longest-prefix match of its own. While
//! routes change, each prefix has its old or its new next hop and nothing else; when they have settled, the
//! new one. Packets that do not arrive are counted.
//!
//! With `SLUICE_FULL_TABLE` set, and in a release build, the same is done with the whole table of
//! `SLUICE_TESTDATA/routes`, and timings are printed:
//! `SLUICE_FULL_TABLE=1 cargo test --release -p router --test bird -- --nocapture`

#[path = "common/net/mod.rs"]
mod net;
#[allow(dead_code, reason = "the differential test needs more of it")]
#[path = "differential/packet.rs"]
mod packet;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use net::{Captured, Namespace, Router, Tap, wait_until};
use packet::ROUTER_MAC;
use prefix_trie::PrefixMap;

/// The routes are dealt to so many groups, each of which has a next hop of its own.
const GROUPS: usize = 5;
/// The group that moves to another next hop and back, and the one that goes and comes back.
const FLAPPING: usize = 3;
const WITHDRAWN: usize = 4;
/// The number of the next hop that the flapping group moves to.
const BACKUP: u8 = 9;
/// The number of the next hop of a static route, which nothing may disturb.
const STEADY: u8 = 20;
const STEADY_PREFIX: &str = "198.18.0.0/15";

/// What a group's routes lead to.
type Groups = [Option<u8>; GROUPS];

fn normal() -> Groups {
    std::array::from_fn(|group| Some(group as u8))
}

fn hop_mac(number: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0xbe, number]
}

fn text_of(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Prefixes with their groups.
struct Table {
    v4: PrefixMap<ipnet::Ipv4Net, usize>,
    v6: PrefixMap<ipnet::Ipv6Net, usize>,
}

impl Table {
    /// Every `step`-th route of the Internet, and `None`, visibly, without the data.
    fn read(test: &str, step: usize) -> Option<Self> {
        let Some(folder) = std::env::var_os("SLUICE_TESTDATA") else {
            eprintln!("skipped: {test}: SLUICE_TESTDATA is not set");
            return None;
        };
        let file = Path::new(&folder).join("routes/internet-2024.txt.gz");
        let mut child = Command::new("gzip")
            .args(["-dc"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("gzip runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut table = Self { v4: PrefixMap::new(), v6: PrefixMap::new() };
        for (number, line) in lines.enumerate().filter(|(number, _)| number % step == 0) {
            let line = line.expect("a line");
            let prefix: IpNet = line
                .split_whitespace()
                .next()
                .and_then(|text| text.parse().ok())
                .expect("a prefix");
            let group = (number / step) % GROUPS;
            match prefix {
                // The test's own links, and what no kernel routes.
                IpNet::V4(prefix) => {
                    let first = prefix.network().octets()[0];
                    let is_own = prefix.prefix_len() > 0 && matches!(first, 0 | 10 | 127 | 224..);
                    let steady: ipnet::Ipv4Net = STEADY_PREFIX.parse().expect("a prefix");
                    if !is_own && !steady.contains(&prefix) {
                        table.v4.insert(prefix.trunc(), group);
                    }
                }
                IpNet::V6(prefix) => {
                    let first = prefix.network().segments()[0];
                    let is_documentation = prefix.network().segments()[..2] == [0x2001, 0xdb8];
                    let is_global = first & 0xe000 == 0x2000 || prefix.prefix_len() == 0;
                    if is_global && !is_documentation {
                        table.v6.insert(prefix.trunc(), group);
                    }
                }
            }
        }
        child.wait().expect("gzip ends");
        Some(table)
    }

    /// The groups of all prefixes that hold an address, the longest prefix first.
    fn covering(&self, address: IpAddr) -> Vec<usize> {
        let mut all: Vec<usize> = match address {
            IpAddr::V4(address) => self.v4.cover_values(&address.into()).copied().collect(),
            IpAddr::V6(address) => self.v6.cover_values(&address.into()).copied().collect(),
        };
        all.reverse();
        all
    }

    /// An address in each of about `count` prefixes, with the groups that it may meet.
    fn addresses(&self, count: usize, random: &mut packet::Random) -> Vec<(IpAddr, Vec<usize>)> {
        let step = (self.v4.len() / count).max(1);
        let v4 = self.v4.keys().step_by(step).map(|prefix| {
            let host = random.next() as u32 & !u32::from(prefix.netmask());
            IpAddr::from(Ipv4Addr::from(u32::from(prefix.network()) | host))
        });
        let mut all: Vec<IpAddr> = v4.collect();
        let step = (self.v6.len() / (count / 4)).max(1);
        all.extend(self.v6.keys().step_by(step).map(|prefix| {
            let bits = u128::from(random.next()) << 64 | u128::from(random.next());
            let host = bits & !u128::from(prefix.netmask());
            IpAddr::from(Ipv6Addr::from(u128::from(prefix.network()) | host))
        }));
        let is_routed = |address: &IpAddr| match address {
            IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 10 | 127 | 224..),
            IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
        };
        all.retain(is_routed);
        all.into_iter().map(|address| (address, self.covering(address))).collect()
    }
}

/// The next hops that a packet may arrive at while each group is in one of these two states.
fn allowed(covering: &[usize], before: &Groups, after: &Groups) -> HashSet<u8> {
    let mut allowed = HashSet::new();
    for &group in covering {
        allowed.extend(before[group]);
        allowed.extend(after[group]);
        if before[group].is_some() && after[group].is_some() {
            break;
        }
    }
    allowed
}

/// Numbered packets to all addresses, again and again, and what became of them.
struct Traffic {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    addresses: Vec<(IpAddr, Vec<usize>)>,
    /// From which packet on which states of the groups are possible.
    phases: Mutex<Vec<(u32, Groups, Groups)>>,
    sent: AtomicU32,
    arrived: AtomicU64,
    misrouted: Mutex<Vec<String>>,
    /// Of each address the last next hop that it arrived at, and the packet.
    last: Mutex<Vec<(u32, u8)>>,
    steady_sent: AtomicU64,
    steady_arrived: AtomicU64,
    stop: AtomicBool,
}

impl Traffic {
    fn start(addresses: Vec<(IpAddr, Vec<usize>)>, sender: Tap, receiver: Tap) -> Self {
        let last = vec![(0, u8::MAX); addresses.len()];
        let shared = Arc::new(Shared {
            addresses,
            phases: Mutex::new(vec![(0, [None; GROUPS], normal())]),
            sent: AtomicU32::new(0),
            arrived: AtomicU64::new(0),
            misrouted: Mutex::default(),
            last: Mutex::new(last),
            steady_sent: AtomicU64::new(0),
            steady_arrived: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        });
        let threads = vec![
            std::thread::spawn({
                let shared = Arc::clone(&shared);
                move || shared.send(&sender)
            }),
            std::thread::spawn({
                let shared = Arc::clone(&shared);
                move || shared.receive(receiver)
            }),
        ];
        Self { shared, threads }
    }

    /// From here on groups may be in either state.
    fn begin(&self, before: Groups, after: Groups) {
        let sent = self.shared.sent.load(Ordering::SeqCst);
        self.shared.phases.lock().expect("phases").push((sent, before, after));
        // What was sent until now has arrived before anything changes.
        std::thread::sleep(Duration::from_millis(50));
    }

    /// Waits until every address that has a route is reached by it, then accepts nothing else.
    #[track_caller]
    fn settle(&self, groups: Groups, patience: Duration, explain: &dyn Fn(&str) -> String) {
        let shared = &self.shared;
        let from = shared.sent.load(Ordering::SeqCst);
        let start = Instant::now();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let now = shared.sent.load(Ordering::SeqCst);
            let rounds = now.saturating_sub(from) as usize / (shared.addresses.len() + 1);
            let last = shared.last.lock().expect("last").clone();
            let unsettled: Vec<String> = shared
                .addresses
                .iter()
                .zip(&last)
                .filter(|((_, covering), (packet, hop))| {
                    let expected = allowed(covering, &groups, &groups);
                    // A packet of the last rounds arrived there, or none can.
                    let is_late = (now - packet) as usize > 3 * (shared.addresses.len() + 1);
                    if expected.is_empty() { !is_late } else { is_late || !expected.contains(hop) }
                })
                .map(|((address, covering), last)| format!("{address} {covering:?} last {last:?}"))
                .collect();
            if rounds >= 2 && unsettled.is_empty() {
                break;
            }
            assert!(
                start.elapsed() < patience,
                "{} addresses do not settle, at packet {now}: {}\n{}",
                unsettled.len(),
                unsettled[..unsettled.len().min(8)].join("; "),
                unsettled
                    .first()
                    .map(|words| explain(words.split(' ').next().unwrap_or_default()))
                    .unwrap_or_default()
            );
        }
        let sent = shared.sent.load(Ordering::SeqCst);
        shared.phases.lock().expect("phases").push((sent, groups, groups));
        eprintln!("  settled within {:?}", start.elapsed());
        // Some rounds that are judged by the new state alone.
        let rounds = 2 * (shared.addresses.len() as u32 + 1);
        wait_until("more traffic", patience, || shared.sent.load(Ordering::SeqCst) > sent + rounds);
    }

    /// Ends the traffic; packets sent, arrived, and those of the steady flow that were lost.
    fn end(mut self) -> (u64, u64, u64) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().expect("a thread of the traffic");
        }
        let misrouted = self.shared.misrouted.lock().expect("misrouted");
        assert!(
            misrouted.is_empty(),
            "{} misrouted: {:#?}",
            misrouted.len(),
            &misrouted[..misrouted.len().min(10)]
        );
        let get = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let steady = get(&self.shared.steady_sent) - get(&self.shared.steady_arrived);
        (self.shared.sent.load(Ordering::SeqCst).into(), get(&self.shared.arrived), steady)
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

impl Shared {
    fn send(&self, sender: &Tap) {
        let mut number = 0_u32;
        let steady: IpAddr = "198.18.7.7".parse().expect("an address");
        'all: loop {
            for (position, (address, _)) in (0_u32..).zip(&self.addresses) {
                if self.stop.load(Ordering::Relaxed) {
                    break 'all;
                }
                number = self.sent.fetch_add(1, Ordering::SeqCst);
                sender.send(0, &frame(*address, number, position));
                if number.is_multiple_of(16) {
                    self.steady_sent.fetch_add(1, Ordering::SeqCst);
                    sender.send(0, &frame(steady, number, u32::MAX));
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        }
        let _ = number;
    }

    fn receive(&self, mut receiver: Tap) {
        let mut ended = None::<Instant>;
        loop {
            if self.stop.load(Ordering::Relaxed) && ended.is_none() {
                ended = Some(Instant::now());
            }
            if ended.is_some_and(|since| since.elapsed() > Duration::from_millis(500)) {
                return;
            }
            let Some(captured) = receiver.receive(Duration::from_millis(50)) else { continue };
            self.judge(&captured);
        }
    }

    fn judge(&self, captured: &Captured) {
        let frame = &captured.frame;
        let Some(at) = frame.windows(8).position(|window| window == b"numbered") else { return };
        let word = |at: usize| frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
        let (Some(number), Some(position)) = (word(at + 8), word(at + 12)) else { return };
        let hop = match frame.first_chunk::<6>() {
            Some([2, 0, 0, 0, 0xbe, hop]) => *hop,
            other => panic!("a packet to nobody: {other:02x?}"),
        };
        if position == u32::MAX {
            self.steady_arrived.fetch_add(1, Ordering::SeqCst);
            if hop != STEADY {
                self.misrouted.lock().expect("misrouted").push(format!("steady at {hop}"));
            }
            return;
        }
        self.arrived.fetch_add(1, Ordering::SeqCst);
        let (address, covering) = &self.addresses[position as usize];
        let phases = self.phases.lock().expect("phases");
        let (_, before, after) =
            phases.iter().rev().find(|(from, ..)| *from <= number).expect("the first phase");
        if !allowed(covering, before, after).contains(&hop) {
            let words = format!(
                "packet {number} to {address} ({covering:?}) at {hop}, between {before:?} and {after:?}"
            );
            self.misrouted.lock().expect("misrouted").push(words);
        }
        self.last.lock().expect("last")[position as usize] = (number, hop);
    }
}

fn frame(address: IpAddr, number: u32, position: u32) -> Vec<u8> {
    let payload = [&b"numbered"[..], &number.to_be_bytes(), &position.to_be_bytes()].concat();
    packet::udp_frame(address, &payload)
}

/// A BIRD in a namespace.
struct Bird {
    child: Child,
    folder: tempfile::TempDir,
}

impl Bird {
    fn start(namespace: &Namespace, files: &[(String, String)], config: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("a file");
        }
        fs::write(folder.path().join("bird.conf"), config).expect("a file");
        let mut command = Command::new("bird");
        command
            .arg("-f")
            .arg("-c")
            .arg(folder.path().join("bird.conf"))
            .arg("-s")
            .arg(folder.path().join("bird.ctl"))
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("a file"));
        let child = namespace.spawn(&mut command);
        Self { child, folder }
    }

    fn control(&self, words: &[&str]) -> String {
        let socket: PathBuf = self.folder.path().join("bird.ctl");
        let output =
            Command::new("birdc").arg("-s").arg(socket).args(words).output().expect("birdc runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Bird {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!(
                "BIRD wrote: {}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
            );
        }
    }
}

fn feeder_config(table: &Table) -> (Vec<(String, String)>, String) {
    let mut files = Vec::new();
    let mut config = String::from("router id 10.9.0.2;\nprotocol device { scan time 3600; }\n");
    let mut filters = [String::new(), String::new()];
    for (family, name) in [(0, "ipv4"), (1, "ipv6")] {
        let prefixes: Vec<(IpNet, usize)> = if family == 0 {
            table.v4.iter().map(|(prefix, group)| (prefix.into(), *group)).collect()
        } else {
            table.v6.iter().map(|(prefix, group)| (prefix.into(), *group)).collect()
        };
        let mut protocol = |protocol: String, group: usize, hop: u8, preference: u32| {
            let mut lines = String::new();
            for (prefix, _) in prefixes.iter().filter(|(_, of)| *of == group) {
                writeln!(lines, "route {prefix} blackhole;").expect("a string");
            }
            writeln!(
                config,
                "protocol static {protocol} {{ {name} {{ preference {preference}; }};\n\
                 include \"{protocol}.conf\";\n}}"
            )
            .expect("a string");
            let next_hop = if family == 0 {
                format!("10.1.0.{}", 10 + hop)
            } else {
                format!("2001:db8:1::{:x}", 0x10 + u32::from(hop))
            };
            writeln!(filters[family], "if proto = \"{protocol}\" then bgp_next_hop = {next_hop};")
                .expect("a string");
            files.push((format!("{protocol}.conf"), lines));
        };
        for group in 0..GROUPS {
            protocol(format!("p{family}g{group}"), group, group as u8, 200);
        }
        protocol(format!("p{family}backup"), FLAPPING, BACKUP, 100);
    }
    for (family, filter) in filters.iter().enumerate() {
        writeln!(config, "filter out{family} {{ {filter} accept; }}").expect("a string");
    }
    config += "
        protocol bgp to4 { local 10.9.0.2 as 64501; neighbor 10.9.0.1 as 64500; connect retry time 1;
            connect delay time 1; error wait time 1, 2;
            ipv4 { import none; export filter out0; next hop keep; }; }
        protocol bgp to6 { local 2001:db8:9::2 as 64501; neighbor 2001:db8:9::1 as 64500;
            connect retry time 1; connect delay time 1; error wait time 1, 2;
            ipv6 { import none; export filter out1; next hop keep; }; }\n";
    (files, config)
}

const ROUTER_BIRD: &str = "
    router id 10.9.0.1;
    protocol device { scan time 3600; }
    protocol direct { ipv4; ipv6; }
    protocol kernel k4 { scan time 3600; ipv4 { import none; export where source = RTS_BGP; }; }
    protocol kernel k6 { scan time 3600; ipv6 { import none; export where source = RTS_BGP; }; }
    protocol bgp from4 { local 10.9.0.1 as 64500; neighbor 10.9.0.2 as 64501;
        connect retry time 1; connect delay time 1; error wait time 1, 2;
        ipv4 { import all; export none; }; }
    protocol bgp from6 { local 2001:db8:9::1 as 64500; neighbor 2001:db8:9::2 as 64501;
        connect retry time 1; connect delay time 1; error wait time 1, 2;
        ipv6 { import all; export none; }; }
";

const SLUICE: &str = "[[route]]\nprefix = \"198.18.0.0/15\"\nvia = \"10.1.0.30\"\n";

struct Bed {
    feeder: Namespace,
    router: Namespace,
    _hops: Namespace,
    _world: Namespace,
    sender: Option<Tap>,
    receiver: Option<Tap>,
}

impl Bed {
    fn new() -> Self {
        let (world, hops) = (Namespace::new("sender").mute(), Namespace::new("hops").mute());
        let (router, feeder) = (Namespace::new("router").forwards(), Namespace::new("feeder"));
        net::link(
            (&world, "eth0", "02:00:00:00:01:02"),
            (&router, "lan0", &text_of(ROUTER_MAC[0])),
            1500,
        );
        net::link(
            (&router, "wan0", &text_of(ROUTER_MAC[1])),
            (&hops, "eth0", "02:00:00:00:be:ff"),
            1500,
        );
        net::link(
            (&router, "bgp0", "02:00:00:00:09:01"),
            (&feeder, "bgp0", "02:00:00:00:09:02"),
            1500,
        );
        for words in [
            "address add 10.0.0.1/24 dev lan0",
            "-6 address add 2001:db8::1/64 dev lan0",
            "neighbor add 10.0.0.2 lladdr 02:00:00:00:01:02 dev lan0",
            "neighbor add 2001:db8::2 lladdr 02:00:00:00:01:02 dev lan0",
            "address add 10.1.0.1/24 dev wan0",
            "-6 address add 2001:db8:1::1/64 dev wan0",
            "address add 10.9.0.1/24 dev bgp0",
            "-6 address add 2001:db8:9::1/64 dev bgp0",
        ] {
            router.ip(words);
        }
        feeder.ip("address add 10.9.0.2/24 dev bgp0");
        feeder.ip("-6 address add 2001:db8:9::2/64 dev bgp0");
        // A full table is more than older kernels let a namespace have.
        router.sysctl("ipv6/route/max_size", "4000000");
        for hop in (0..GROUPS as u8).chain([BACKUP, STEADY]) {
            let mac = text_of(hop_mac(hop));
            router.ip(&format!("neighbor add 10.1.0.{} lladdr {mac} dev wan0", 10 + hop));
            let v6 = 0x10 + u32::from(hop);
            router.ip(&format!("neighbor add 2001:db8:1::{v6:x} lladdr {mac} dev wan0"));
        }
        let sender = Some(Tap::new(&world, &["eth0"]));
        let receiver = Some(Tap::new(&hops, &["eth0"]));
        Self { feeder, router, _hops: hops, _world: world, sender, receiver }
    }

    /// What the kernel and the router know of the way to an address.
    fn explain(&self, sluice: &Router, address: &str) -> String {
        format!(
            "the kernel: {}\nthe router: {}\n{:?}\nthreads {}\n{}",
            self.router.ip(&format!("route get fibmatch {address}")),
            sluice.say(&["route", "get", address]),
            sluice.status().routes,
            sluice.threads(),
            sluice.log(),
        )
    }

    fn sluice(&self) -> Router {
        Router::start(&self.router, &[("lan0", "inside"), ("wan0", "outside")], SLUICE)
    }
}

/// A thousand route changes a second for three seconds, beside all other routes: what they cost the router.
fn thousand_changes(bed: &Bed, sluice: &Router) {
    let before = (sluice.cpu_ms(), sluice.status().routes.mirror);
    let mut ip = Command::new("ip");
    ip.args(["-n", bed.router.name(), "-batch", "-"]).stdin(Stdio::piped());
    let mut ip = ip.spawn().expect("ip runs");
    let mut pipe = ip.stdin.take().expect("a pipe");
    let start = Instant::now();
    for round in 0..60_u32 {
        let mut lines = String::new();
        for number in 0..50 {
            // Each comes and goes again.
            let verb = if round % 2 == 0 { "add" } else { "del" };
            writeln!(lines, "route {verb} 198.51.100.{number}/32 via 10.1.0.10").expect("a string");
        }
        pipe.write_all(lines.as_bytes()).expect("ip reads");
        let next = start + Duration::from_millis(50) * (round + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    drop(pipe);
    assert!(ip.wait().expect("ip ends").success(), "ip -batch");
    let elapsed = start.elapsed();
    std::thread::sleep(Duration::from_millis(200));
    let after = (sluice.cpu_ms(), sluice.status().routes.mirror);
    let changes = after.1.route_changes - before.1.route_changes;
    eprintln!(
        "  {changes} changes in {elapsed:?}: {} ms of a core in all, {} publications, the last in force \
         {} us after the kernel told of it, of which {} us were the publication's",
        after.0 - before.0,
        after.1.publications - before.1.publications,
        after.1.last_delay_us,
        after.1.last_build_us
    );
    // A route that comes and goes within one gathering is not told.
    assert!(changes > 1500, "{changes} changes");
}

/// Whether BIRD is here; if not, it says so.
fn has_bird(test: &str) -> bool {
    let runs = Command::new("bird").arg("--version").stderr(Stdio::null()).status();
    let is_here = runs.is_ok_and(|status| status.success());
    if !is_here {
        eprintln!("skipped: {test}: BIRD 2 is not installed");
    }
    is_here
}

/// Learnt, flapped, withdrawn and learnt again, with a restart of the router in the middle.
#[track_caller]
fn run(table: &Table, addresses: usize, patience: Duration) {
    let mut bed = Bed::new();
    let sluice = bed.sluice();
    let mut random = packet::Random(7);
    let addresses = table.addresses(addresses, &mut random);
    eprintln!(
        "{} IPv4 and {} IPv6 prefixes, traffic to {} addresses",
        table.v4.len(),
        table.v6.len(),
        addresses.len()
    );
    let before = sluice.status().routes;
    let traffic = Traffic::start(
        addresses,
        bed.sender.take().expect("a sender"),
        bed.receiver.take().expect("a receiver"),
    );
    let (files, config) = feeder_config(table);
    let start = Instant::now();
    let feeder = Bird::start(&bed.feeder, &files, &config);
    let router_bird = Bird::start(&bed.router, &[], ROUTER_BIRD);
    let (v4, v6) = (table.v4.len() as u64 + before.v4, table.v6.len() as u64 + before.v6);
    let mut known = sluice.status().routes;
    let deadline = Instant::now() + patience;
    // More than that when the kernel adds some of its own, as for link-local addresses.
    while known.v4 < v4 || known.v6 < v6 {
        std::thread::sleep(Duration::from_millis(100));
        known = sluice.status().routes;
        assert!(
            Instant::now() < deadline,
            "{known:?} of {v4} and {v6}, threads {}\n{}\n{}",
            sluice.threads(),
            feeder.control(&["show", "protocols", "all"]),
            router_bird.control(&["show", "protocols", "all"])
        );
    }
    eprintln!("learnt by the feeder, BGP, BIRD, kernel and Sluice in {:?}", start.elapsed());
    eprintln!("  {known:?}");
    let rss_kib = sluice.resident_kib();
    let routes = table.v4.len() + table.v6.len();
    eprintln!(
        "  {} MiB resident in all; RIB {} bytes a route",
        rss_kib / 1024,
        known.rib_bytes / routes as u64
    );
    traffic.settle(normal(), patience, &|address| bed.explain(&sluice, address));
    let all = sluice.status().routes;

    thousand_changes(&bed, &sluice);

    // A next hop that flaps.
    let mut moved = normal();
    moved[FLAPPING] = Some(BACKUP);
    let flap = |verb: &str| {
        for family in [0, 1] {
            let protocol = format!("p{family}g{FLAPPING}");
            let said = feeder.control(&[verb, &protocol]);
            assert!(said.contains(&format!("{verb}d")), "{said}");
        }
    };
    for _ in 0..2 {
        traffic.begin(normal(), moved);
        flap("disable");
        traffic.settle(moved, patience, &|address| bed.explain(&sluice, address));
        traffic.begin(moved, normal());
        flap("enable");
        traffic.settle(normal(), patience, &|address| bed.explain(&sluice, address));
    }

    // Withdrawn, and learnt again.
    let mut less = normal();
    less[WITHDRAWN] = None;
    let withdraw = |verb: &str| {
        for family in [0, 1] {
            feeder.control(&[verb, &format!("p{family}g{WITHDRAWN}")]);
        }
    };
    traffic.begin(normal(), less);
    withdraw("disable");
    traffic.settle(less, patience, &|address| bed.explain(&sluice, address));
    let gone = sluice.status().routes;
    assert!(gone.v4 < all.v4 && gone.v6 < all.v6, "{gone:?}");

    // The router starts anew while the routes are learnt again.
    let steady_lost = traffic.shared.steady_sent.load(Ordering::SeqCst)
        - traffic.shared.steady_arrived.load(Ordering::SeqCst);
    let status = sluice.status();
    eprintln!(
        "  until the restart {steady_lost} packets of the steady flow are lost; {:?}",
        status.routes
    );
    traffic.begin(less, normal());
    withdraw("enable");
    sluice.stop();
    let restart = Instant::now();
    let sluice = bed.sluice();
    eprintln!("  restarted in {:?}", restart.elapsed());
    traffic.settle(normal(), patience, &|address| bed.explain(&sluice, address));
    wait_until("the same routes as before", patience, || {
        let again = sluice.status().routes;
        (again.v4, again.v6) == (all.v4, all.v6)
    });
    let (sent, arrived, _) = traffic.end();
    eprintln!("  {sent} packets sent, {arrived} arrived, none at a wrong next hop");
    assert!(arrived > sent / 2, "{arrived} of {sent} packets arrived");
    // Packets of the flow that no change concerns are lost by the test's own queues at most.
    assert!(steady_lost <= 5, "{steady_lost} packets of the steady flow were lost");
    sluice.assert_conserved();
}

#[test]
fn routes_of_bird_under_traffic() {
    const TEST: &str = "routes of BIRD";
    if !net::available(TEST) || !has_bird(TEST) {
        return;
    }
    let Some(table) = Table::read(TEST, 300) else { return };
    run(&table, 600, Duration::from_secs(30));
}

#[test]
fn the_whole_table_of_the_internet_under_traffic() {
    const TEST: &str = "the whole table by BIRD";
    if std::env::var_os("SLUICE_FULL_TABLE").is_none() {
        eprintln!("skipped: {TEST}: SLUICE_FULL_TABLE is not set; it takes minutes and gigabytes");
        return;
    }
    if !net::available(TEST) || !has_bird(TEST) {
        return;
    }
    let Some(table) = Table::read(TEST, 1) else { return };
    run(&table, 2000, Duration::from_secs(90));
}
