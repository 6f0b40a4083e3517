//! The same packets through Linux and through Sluice: what comes out must be the same, byte for byte,
//! or a rule in `differential/intended.toml` says why not.
//!
//! ```text
//!                       +-- p1: 1500 bytes --- neighbors
//!   sender --- p0 [router]                                       once with the kernel as the router,
//!                       +-- p2: 1400 bytes --- neighbors         once with `sluice run`
//! ```
//!
//! Both routers have the same addresses, routes, neighbors, MTUs and link-layer addresses. Packets go
//! one by one: behind each comes a marker, whose answer shows that the packet is dealt with. Skipped
//! without root.

#[path = "differential/addresses.rs"]
mod addresses;
#[path = "differential/cases.rs"]
mod cases;
#[path = "differential/cases4.rs"]
mod cases4;
#[path = "differential/cases6.rs"]
mod cases6;
#[path = "differential/compare.rs"]
mod compare;
#[path = "common/net/mod.rs"]
mod net;
#[path = "differential/packet.rs"]
mod packet;
#[path = "differential/rules.rs"]
mod rules;

use std::collections::BTreeMap;
use std::time::Duration;

use cases::Case;
use compare::{Output, words};
use net::{Captured, Namespace, Router, Tap};
use packet::ROUTER_MAC;
use rules::Rules;

/// Where packets come from and go to, as both routers are told.
const SET_UP: &str = "
address add 10.0.0.1/24 dev p0
address add 10.1.0.1/24 dev p1
address add 10.2.0.1/24 dev p2
address add 10.3.0.0/31 dev p1
address add 192.0.2.200/32 dev lo
-6 address add 2001:db8:0::1/64 dev p0
-6 address add 2001:db8:1::1/64 dev p1
-6 address add 2001:db8:2::1/64 dev p2
-6 address add 2001:db8:200::200/128 dev lo
neighbor add 10.0.0.2 lladdr 02:00:00:00:01:02 dev p0
neighbor add 10.0.0.3 lladdr 02:00:00:00:01:03 dev p0
neighbor add 10.1.0.2 lladdr 02:00:00:00:11:02 dev p1
neighbor add 10.1.0.3 lladdr 02:00:00:00:11:03 dev p1
neighbor add 10.2.0.2 lladdr 02:00:00:00:12:02 dev p2
neighbor add 10.3.0.1 lladdr 02:00:00:00:13:01 dev p1
neighbor add 2001:db8:0::2 lladdr 02:00:00:00:01:02 dev p0
neighbor add 2001:db8:0::3 lladdr 02:00:00:00:01:03 dev p0
neighbor add 2001:db8:1::2 lladdr 02:00:00:00:11:02 dev p1
neighbor add 2001:db8:1::3 lladdr 02:00:00:00:11:03 dev p1
neighbor add 2001:db8:2::2 lladdr 02:00:00:00:12:02 dev p2
neighbor add fe80::2 lladdr 02:00:00:00:11:22 dev p1
route add 198.18.0.0/15 via 10.0.0.2
route add 203.0.113.0/24 via 10.1.0.2
route add 203.0.113.128/25 via 10.2.0.2
route add 203.0.113.77/32 via 10.1.0.3
route add 192.0.2.0/24 via 10.2.0.2
route add 198.51.100.0/24 via inet6 fe80::2 dev p1
route add 203.0.115.0/24 via 10.0.0.3
route add 203.0.116.0/24 via 10.1.0.2 mtu 1300
route add 203.0.118.0/24 nexthop via 10.0.0.2 nexthop via 10.1.0.2
route add blackhole 100.64.0.0/24
route add unreachable 100.64.1.0/24
route add prohibit 100.64.2.0/24
-6 route add 2001:db8:f000::/36 via 2001:db8:0::2
-6 route add 2001:db8:100::/48 via 2001:db8:1::2
-6 route add 2001:db8:100:8000::/49 via 2001:db8:2::2
-6 route add 2001:db8:100::77/128 via 2001:db8:1::3
-6 route add 2001:db8:200::/48 via 2001:db8:2::2
-6 route add 2001:db8:300::/48 via 2001:db8:0::3
-6 route add 2001:db8:400::/48 via fe80::2 dev p1
-6 route add 2001:db8:500::/48 via 2001:db8:1::2 mtu 1300
-6 route add 2001:db8:600::/48 nexthop via 2001:db8:0::2 nexthop via 2001:db8:1::2
-6 route add blackhole 2001:db8:b000::/48
-6 route add unreachable 2001:db8:b001::/48
-6 route add prohibit 2001:db8:b002::/48
";

/// The routers' own addresses: what they send by themselves comes from one of these.
const OWN: [&str; 9] = [
    "10.0.0.1",
    "10.1.0.1",
    "10.2.0.1",
    "10.3.0.0",
    "192.0.2.200",
    "2001:db8::1",
    "2001:db8:1::1",
    "2001:db8:2::1",
    "2001:db8:200::200",
];

const PORTS: [(&str, u32); 3] = [("p0", 2000), ("p1", 1500), ("p2", 1400)];

/// Packets at least, so that the test stays what it is.
const CASES_MIN: usize = 3000;

/// How long the answer to a marker may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// One of the two routers, with a tap on everything that it sends.
struct Side {
    name: &'static str,
    router: Namespace,
    tap: Tap,
    markers: u16,
    _world: Namespace,
}

impl Side {
    fn new(name: &'static str) -> Self {
        let router = Namespace::new(name).forwards();
        let world = Namespace::new(&format!("{name}-world")).mute();
        for (port, (interface, mtu_bytes)) in PORTS.iter().enumerate() {
            let mac = ROUTER_MAC[port].map(|byte| format!("{byte:02x}")).join(":");
            let far = format!("02:00:00:00:02:{port:02x}");
            net::link((&router, interface, &mac), (&world, interface, &far), *mtu_bytes);
        }
        for (interface, _) in PORTS {
            // Next hops that do not answer are another test's subject: here none gives up in time.
            router.sysctl(&format!("ipv4/neigh/{interface}/retrans_time_ms"), "60000");
            router.sysctl(&format!("ipv6/neigh/{interface}/retrans_time_ms"), "60000");
        }
        for words in SET_UP.lines().filter(|line| !line.is_empty()) {
            router.ip(words);
        }
        let tap = Tap::new(&world, &PORTS.map(|(interface, _)| interface));
        Self { name, router, tap, markers: 0, _world: world }
    }

    /// Sends a packet whose TTL runs out, with a port of its own, and returns what came in before
    /// the error about it.
    fn mark(&mut self) -> Vec<Captured> {
        self.markers += 1;
        let mut marker = packet::V4 {
            source: "198.18.255.254".parse().expect("an address"),
            ttl: 1,
            ..cases4::base()
        }
        .udp(b"marker");
        let port = self.markers.to_be_bytes();
        marker[22..24].copy_from_slice(&port);
        self.tap.send(0, &packet::ethernet(ROUTER_MAC[0], 0x0800, &marker));
        let mut before = Vec::new();
        loop {
            let Some(captured) = self.tap.receive(PATIENCE) else {
                panic!("{}: no answer to marker {}", self.name, self.markers);
            };
            // Ethernet, IPv4, ICMP, the quoted IPv4 header, the quoted source port.
            let frame = &captured.frame;
            let is_answer = frame.get(30..34) == Some(&[198, 18, 255, 254])
                && frame.get(34) == Some(&11)
                && frame.get(64..66) == Some(&port);
            if is_answer {
                return before;
            }
            before.push(captured);
        }
    }

    /// What comes out for every case.
    fn run(&mut self, cases: &[Case]) -> Vec<Vec<Output>> {
        // What the kernel says when its links come up is over by then.
        std::thread::sleep(Duration::from_millis(200));
        self.mark();
        cases
            .iter()
            .map(|case| {
                self.tap.send(0, &case.frame);
                // Links are flushed one after the other at the end of a turn: the first answer may
                // overtake what leaves by another link in the same turn, the second cannot.
                let mut captured = self.mark();
                captured.extend(self.mark());
                let mut outputs: Vec<Output> = captured.iter().filter_map(Output::of).collect();
                outputs.sort();
                outputs
            })
            .collect()
    }
}

/// One difference that nothing explains.
struct Unexplained {
    class: String,
    what: String,
    /// The values of what differs, Linux's first.
    values: String,
    frame: Vec<u8>,
}

fn compare(
    case: &Case,
    linux: &[Output],
    sluice: &[Output],
    rules: &mut Rules,
) -> Option<Unexplained> {
    let unexplained = |what| {
        let (class, frame) = (case.class.clone(), case.frame.clone());
        Some(Unexplained { class, what, values: String::new(), frame })
    };
    let (linux_words, sluice_words) = (words(linux), words(sluice));
    if linux_words != sluice_words {
        return if rules.explain_outcome(&case.class, &linux_words, &sluice_words) {
            None
        } else {
            unexplained(format!("linux: {linux_words}; sluice: {sluice_words}"))
        };
    }
    for (a, b) in linux.iter().zip(sluice) {
        let mut parts = a.differing(b);
        parts.retain(|part| !rules.explain_part(&case.class, &a.words, part));
        if !parts.is_empty() {
            let values: Vec<String> = parts
                .iter()
                .map(|name| {
                    let value = |of: &Output| {
                        let part = of.parts.iter().find(|part| part.0 == *name);
                        part.map_or_else(|| "none".to_owned(), |part| hex(&part.1))
                    };
                    format!("{name} {} / {}", value(a), value(b))
                })
                .collect();
            let what = format!("{}: {}", a.words, parts.join(", "));
            return Some(Unexplained { values: values.join(", "), ..unexplained(what)? });
        }
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    let mut text: String = bytes.iter().take(80).map(|byte| format!("{byte:02x}")).collect();
    if bytes.len() > 80 {
        text += "...";
    }
    text
}

/// Sends every case through both routers, and returns what came out of each: Linux's first.
fn run_both(linux: &mut Side, sluice: &mut Side, cases: &[Case]) -> [Vec<Vec<Output>>; 2] {
    std::thread::scope(|scope| {
        let of_linux = scope.spawn(|| linux.run(cases));
        let of_sluice = sluice.run(cases);
        [of_linux.join().expect("the kernel's side"), of_sluice]
    })
}

/// Fails on a difference that no rule explains, and on a rule that explains none.
fn judge(cases: &[Case], [of_linux, of_sluice]: &[Vec<Vec<Output>>; 2], rules: &mut Rules) {
    assert_eq!(rules.without_reason(), 0, "rules without a reason");
    let mut unexplained: BTreeMap<(String, String), (usize, Unexplained)> = BTreeMap::new();
    let (mut same, mut forwarded, mut errors) = (0, 0, 0);
    for ((case, linux), sluice) in cases.iter().zip(of_linux).zip(of_sluice) {
        same += usize::from(linux == sluice);
        forwarded += usize::from(words(sluice).starts_with("forward"));
        errors += usize::from(words(sluice).starts_with("icmp"));
        if let Some(found) = compare(case, linux, sluice, rules) {
            let class = found.class.split(':').next().unwrap_or_default().to_owned();
            unexplained.entry((class, found.what.clone())).or_insert((0, found)).0 += 1;
        }
    }
    let gaps = rules.outcome.iter().filter(|rule| rule.known_gap);
    eprintln!(
        "{} packets through Linux and Sluice: {same} to the byte alike; Sluice forwarded \
         {forwarded} and answered {errors} with an ICMP error; {} rules, {} of them gaps",
        cases.len(),
        rules.outcome.len() + rules.part.len(),
        gaps.count(),
    );
    let unexplained: Vec<String> = unexplained
        .iter()
        .map(|((class, what), (count, first))| {
            let Unexplained { class: name, values, frame, .. } = first;
            format!("{count} x {class}: {what}\n    {name}: {values}\n    {}", hex(frame))
        })
        .collect();
    assert!(
        unexplained.is_empty(),
        "{} differences that no rule explains:\n{}",
        unexplained.len(),
        unexplained.join("\n")
    );
    let unused = rules.unused();
    assert!(unused.is_empty(), "rules that explain nothing:\n{}", unused.join("\n"));
}

/// No limits but those of the test, and nobody waits for a neighbor.
const LIMITS: &str = "[icmp]\nerrors_per_s = 1000000\nper_source_prefix_per_s = 1000000\n\
                      [hold]\nframes_max_per_neighbor = 0\n";

const ROLES: [(&str, &str); 3] = [("p0", "inside"), ("p1", "outside"), ("p2", "outside")];

#[test]
fn linux_and_sluice_do_the_same() {
    if !net::available("the differential test") {
        return;
    }
    let mut rules: Rules =
        toml::from_str(include_str!("differential/intended.toml")).expect("the rules");
    // Another seed gives other random packets: SLUICE_SEED=2 cargo nextest run --test differential
    let seed = std::env::var("SLUICE_SEED").ok().and_then(|seed| seed.parse().ok());
    let cases = cases::all(seed.unwrap_or(1));
    assert!(cases.len() >= CASES_MIN, "only {} packets", cases.len());
    let (mut linux, mut sluice) = (Side::new("linux"), Side::new("sluice"));
    let router = Router::start(&sluice.router, &ROLES, LIMITS);
    let outputs = run_both(&mut linux, &mut sluice, &cases);
    router.assert_conserved();
    judge(&cases, &outputs, &mut rules);
}

/// Sources of every kind, with `source_validation` here and there the kernel's `rp_filter` of the same
/// meaning; for IPv6, which has none, the rule that nftables' manual gives for it.
fn sources_are_judged_alike(mode: &str, rp_filter: &str, fib: &str) {
    if !net::available("the differential test of source validation") {
        return;
    }
    let read = |text| -> Rules { toml::from_str(text).expect("the rules") };
    let mut rules = read(include_str!("differential/sources.toml"));
    rules.keep_for(mode);
    rules.with_parts_of(read(include_str!("differential/intended.toml")));
    // What is sent to the router itself is its kernel's on both sides, and not looked at.
    let is_asked = |case: &Case| {
        let what = case.class.get(2..).and_then(|class| class.strip_prefix("/source-"));
        what.is_some_and(|what| !what.starts_with("own/") && !what.starts_with("echo/"))
    };
    let cases: Vec<Case> = cases::all(1).into_iter().filter(is_asked).collect();
    assert!(cases.len() >= 200, "only {} packets", cases.len());
    let (mut linux, mut sluice) = (Side::new("linux"), Side::new("sluice"));
    for scope in ["all", "p0", "p1", "p2"] {
        linux.router.sysctl(&format!("ipv4/conf/{scope}/rp_filter"), rp_filter);
    }
    for words in [
        "add table ip6 sources",
        "add chain ip6 sources input { type filter hook prerouting priority raw ; }",
        &format!("add rule ip6 sources input ip6 saddr != fe80::/10 {fib} drop"),
    ] {
        linux.router.run("nft", &words.split_whitespace().collect::<Vec<_>>());
    }
    // The same for each interface, as the kernel has it.
    let keys = format!("\"off\"\nsource_validation = \"{mode}\"");
    let router = Router::start_with(&sluice.router, &ROLES, &keys, "", LIMITS);
    let outputs = run_both(&mut linux, &mut sluice, &cases);
    router.assert_conserved();
    judge(&cases, &outputs, &mut rules);
}

#[test]
fn linux_and_sluice_validate_sources_alike_strictly() {
    sources_are_judged_alike("strict", "1", "fib saddr . iif oif missing");
}

#[test]
fn linux_and_sluice_validate_sources_alike_loosely() {
    sources_are_judged_alike("loose", "2", "fib saddr oif missing");
}
