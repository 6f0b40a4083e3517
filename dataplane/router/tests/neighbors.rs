//! Next hops that are resolved, move, fall silent and come back: with a real kernel on the other side.
//!
//! ```text
//!  sender (raw frames) --- lan0 [router] wan0 --- eth0 neighbor (Linux)
//! ```
//!
//! Skipped without root.

#[path = "common/net/mod.rs"]
mod net;
#[path = "differential/packet.rs"]
#[allow(dead_code, reason = "shared with the differential test, which needs more of it")]
mod packet;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use net::{Captured, Namespace, Router, Tap, wait_until};
use packet::ROUTER_MAC;

const PATIENCE: Duration = Duration::from_secs(10);

/// The neighbor's link-layer address at first.
const NEIGHBOR_MAC: &str = "02:00:00:00:00:b0";

struct Net {
    router: Namespace,
    neighbor: Namespace,
    sender: Tap,
    receiver: Tap,
    sluice: Router,
    _world: Namespace,
}

impl Net {
    /// The network with a running router. `set_up` are more words for `ip` in the router's namespace.
    fn new(test: &str, set_up: &[&str], config: &str) -> Option<Self> {
        Self::with_keys(test, set_up, "", config)
    }

    /// The same with more keys in `[router]`.
    fn with_keys(test: &str, set_up: &[&str], keys: &str, config: &str) -> Option<Self> {
        if !net::available(test) {
            return None;
        }
        let (world, router) =
            (Namespace::new("sender").mute(), Namespace::new("router").forwards());
        let neighbor = Namespace::new("neighbor");
        let mac = |port: usize| ROUTER_MAC[port].map(|byte| format!("{byte:02x}")).join(":");
        net::link((&world, "eth0", "02:00:00:00:01:02"), (&router, "lan0", &mac(0)), 1500);
        net::link((&router, "wan0", &mac(1)), (&neighbor, "eth0", NEIGHBOR_MAC), 1500);
        for words in [
            "address add 10.0.0.1/24 dev lan0",
            "-6 address add 2001:db8::1/64 dev lan0",
            "neighbor add 10.0.0.2 lladdr 02:00:00:00:01:02 dev lan0",
            "neighbor add 2001:db8::2 lladdr 02:00:00:00:01:02 dev lan0",
            "address add 10.1.0.1/16 dev wan0",
            "-6 address add 2001:db8:1::1/64 dev wan0",
        ]
        .iter()
        .chain(set_up)
        {
            router.ip(words);
        }
        for (family, key) in [("ipv4", "wan0"), ("ipv6", "wan0")] {
            // A neighbor that falls silent is noticed within seconds instead of minutes.
            for (name, value) in [
                ("base_reachable_time_ms", "1000"),
                ("retrans_time_ms", "200"),
                ("delay_first_probe_time", "1"),
                ("ucast_solicit", "1"),
                ("mcast_solicit", "2"),
            ] {
                router.sysctl(&format!("{family}/neigh/{key}/{name}"), value);
            }
        }
        // An entry that was just learnt is not overwritten for this long; it is the default, a second.
        router.sysctl("ipv4/neigh/wan0/locktime", "0");
        neighbor.ip("address add 10.1.0.2/16 dev eth0");
        neighbor.ip("-6 address add 2001:db8:1::2/64 dev eth0");
        neighbor.sysctl("ipv4/conf/eth0/arp_notify", "1");
        neighbor.sysctl("ipv6/conf/eth0/ndisc_notify", "1");
        let sender = Tap::new(&world, &["eth0"]);
        let receiver = Tap::new(&neighbor, &["eth0"]);
        let interfaces = [("lan0", "inside"), ("wan0", "outside")];
        let sluice = Router::start_with(&router, &interfaces, "\"off\"", keys, config);
        Some(Self { router, neighbor, sender, receiver, sluice, _world: world })
    }

    /// Sends a packet with a number of its own.
    fn send(&self, destination: &str, number: u32) {
        let payload = [&b"numbered"[..], &number.to_be_bytes()].concat();
        let destination = destination.parse().expect("an address");
        self.sender.send(0, &packet::udp_frame(destination, &payload));
    }

    /// Numbered packets that arrive at the neighbor until there are `count`, or time is up: number and
    /// destination MAC address.
    fn arrivals(&mut self, count: usize, timeout: Duration) -> Vec<(u32, String)> {
        let deadline = Instant::now() + timeout;
        let mut arrived = Vec::new();
        while arrived.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_millis(1) {
                break;
            }
            arrived.extend(self.receiver.receive(left).and_then(|captured| number(&captured)));
        }
        arrived
    }

    /// Whether an error of this type and code comes back to the sender.
    fn complained(&mut self, kind: u8, code: u8, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            let Some(Captured { frame, .. }) = self.sender.receive(Duration::from_millis(50))
            else {
                continue;
            };
            let at = if frame.get(12..14) == Some(&[0x86, 0xdd]) { 54 } else { 34 };
            let protocol = if at == 54 { frame.get(20) } else { frame.get(23) };
            let is_icmp = matches!(protocol, Some(&(packet::ICMP | packet::ICMPV6)));
            if is_icmp && frame.get(at..at + 2) == Some(&[kind, code]) {
                return true;
            }
        }
        false
    }

    /// One packet goes through, or the test ends here.
    #[track_caller]
    fn assert_reached(&mut self, destination: &str) {
        static NUMBERS: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(1 << 20);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let number = NUMBERS.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.send(destination, number);
            let arrived = self.arrivals(1, Duration::from_millis(500));
            if arrived.iter().any(|(arrived, _)| *arrived >= 1 << 20) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{destination} is not reached:\n{:?}\n{}",
                self.sluice.status().neighbors,
                self.sluice.log()
            );
        }
    }
}

/// The number of a packet, and the MAC address that it was sent to.
fn number(captured: &Captured) -> Option<(u32, String)> {
    let frame = &captured.frame;
    let at = frame.windows(8).position(|window| window == b"numbered")? + 8;
    let number = u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?);
    let mac: Vec<String> = frame.get(..6)?.iter().map(|byte| format!("{byte:02x}")).collect();
    Some((number, mac.join(":")))
}

#[test]
fn held_packets_leave_in_their_order() {
    let Some(mut net) = Net::new("held packets", &[], "") else { return };
    for destination in ["10.1.0.2", "2001:db8:1::2"] {
        assert_eq!(net.sluice.neighbor(destination), None, "{destination} is known before");
        for number in 0..8 {
            net.send(destination, number);
        }
        let arrived = net.arrivals(8, PATIENCE);
        let numbers: Vec<u32> = arrived.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6, 7], "{destination}");
        assert!(arrived.iter().all(|(_, mac)| mac == NEIGHBOR_MAC), "{arrived:?}");
    }
    assert_eq!(net.sluice.drops("hold-full") + net.sluice.drops("hold-timeout"), 0);
    net.sluice.assert_conserved();
}

#[test]
fn more_than_the_bound_is_dropped_and_counted() {
    let config = "[hold]\nframes_max_per_neighbor = 4\n";
    let Some(mut net) = Net::new("the bound of the hold", &[], config) else { return };
    // The neighbor does not answer yet.
    net.neighbor.ip("address del 10.1.0.2/16 dev eth0");
    for number in 0..10 {
        net.send("10.1.0.2", number);
    }
    wait_until("the bound is reached", PATIENCE, || net.sluice.drops("hold-full") == 6);
    net.neighbor.ip("address add 10.1.0.2/16 dev eth0");
    let arrived = net.arrivals(4, Duration::from_millis(900));
    // Those that were held leave if the answer came before their time was up; the newer never do.
    assert!(arrived.iter().all(|(number, _)| *number < 4), "{arrived:?}");
    net.sluice.assert_conserved();
}

#[test]
fn traffic_follows_a_new_link_layer_address() {
    let Some(mut net) = Net::new("a new link-layer address", &[], "") else { return };
    for destination in ["10.1.0.2", "2001:db8:1::2"] {
        net.assert_reached(destination);
    }
    let new = "02:00:00:00:00:b1";
    // The kernel tells the link: gratuitous ARP, unsolicited neighbor advertisement.
    net.neighbor.ip(&format!("link set eth0 address {new}"));
    for destination in ["10.1.0.2", "2001:db8:1::2"] {
        let mut mac = String::new();
        wait_until("traffic follows", PATIENCE, || {
            net.send(destination, 7);
            let arrived = net.arrivals(1, Duration::from_millis(500));
            mac = arrived.last().map(|(_, mac)| mac.clone()).unwrap_or_default();
            mac == new
        });
        assert_eq!(mac, new, "{destination}");
        let known = net.sluice.neighbor(destination).expect("a known neighbor");
        assert_eq!(known.mac.as_deref(), Some(new));
    }
    net.sluice.assert_conserved();
}

#[test]
fn a_silent_neighbor_is_reported_to_senders_and_found_again() {
    let Some(mut net) = Net::new("a silent neighbor", &[], "") else { return };
    let cases =
        [("10.1.0.2", "10.1.0.2/16", (3, 1)), ("2001:db8:1::2", "2001:db8:1::2/64", (1, 3))];
    for (destination, address, (kind, code)) in cases {
        net.assert_reached(destination);
        net.neighbor.ip(&format!("address del {address} dev eth0"));
        let mut told = false;
        wait_until("the sender is told", PATIENCE, || {
            net.send(destination, 1);
            told = net.complained(kind, code, Duration::from_millis(300));
            told
        });
        let reasons = ["neighbor-failed", "hold-timeout"];
        let drops: u64 = reasons.iter().map(|reason| net.sluice.drops(reason)).sum();
        assert!(drops > 0, "{destination}: {:?}", net.sluice.status().interfaces);
        net.neighbor.ip(&format!("address add {address} dev eth0"));
        net.arrivals(usize::MAX, Duration::from_millis(100));
        net.assert_reached(destination);
    }
    net.sluice.assert_conserved();
}

/// A silent neighbor is not looked for all the time, whoever looked for it last, but the next packet does.
#[test]
fn a_neighbor_that_was_silent_for_long_is_found_again() {
    let Some(mut net) = Net::new("a neighbor silent for long", &[], "") else { return };
    // By turns those that packets ask for, and those that only the router's own kernel asked for.
    let cases = [
        ("10.1.0.3", "10.1.0.3/16", false),
        ("2001:db8:1::3", "2001:db8:1::3/64", false),
        ("10.1.0.4", "10.1.0.4/16", true),
        ("2001:db8:1::4", "2001:db8:1::4/64", true),
    ];
    for (destination, _, by_kernel) in cases {
        if by_kernel {
            let mut ping = std::process::Command::new("ping");
            ping.args(["-q", "-c", "1", "-W", "1", destination]);
            let _ = net.router.spawn(&mut ping).wait().expect("ping ends");
        } else {
            net.send(destination, 1);
        }
    }
    let is_given_up = |destination: &str| {
        let entry = net.router.ip(&format!("neighbor show {destination} dev wan0"));
        entry.is_empty() || entry.contains("FAILED") && !entry.contains("managed")
    };
    let deadline = Instant::now() + 3 * PATIENCE;
    while !cases.iter().all(|(destination, ..)| is_given_up(destination)) {
        assert!(Instant::now() < deadline, "{}", net.router.ip("neighbor show dev wan0"));
        std::thread::sleep(Duration::from_millis(50));
    }
    for (destination, address, _) in cases {
        net.neighbor.ip(&format!("address add {address} dev eth0"));
        net.assert_reached(destination);
    }
    net.sluice.assert_conserved();
}

/// An operator, or the kernel itself, takes entries away that something leads to.
#[test]
fn a_neighbor_that_is_taken_away_is_asked_for_again() {
    let gateway =
        ["route add 203.0.113.0/24 via 10.1.0.2", "-6 route add 2001:db8:9::/48 via 2001:db8:1::2"];
    let Some(mut net) = Net::new("neighbors taken away", &gateway, "") else { return };
    let destinations = ["10.1.0.2", "203.0.113.9", "2001:db8:1::2", "2001:db8:9::9"];
    let takings: [&[&str]; 5] = [
        &["neighbor flush dev wan0"],
        // A change of the router's own address flushes as well.
        &["link set wan0 address 02:00:00:00:00:77"],
        &["link set wan0 down", "link set wan0 up", "-6 address replace 2001:db8:1::1/64 dev wan0"],
        // The flag goes, the entry stays: nobody would look for it when it does not answer.
        &[
            "neighbor replace 10.1.0.2 lladdr 02:00:00:00:00:66 nud stale dev wan0",
            "neighbor replace 2001:db8:1::2 lladdr 02:00:00:00:00:66 nud stale dev wan0",
        ],
        &[
            "neighbor replace 10.1.0.2 lladdr 02:00:00:00:00:66 nud permanent dev wan0",
            "neighbor replace 2001:db8:1::2 lladdr 02:00:00:00:00:66 nud permanent dev wan0",
            "neighbor del 10.1.0.2 dev wan0",
            "neighbor del 2001:db8:1::2 dev wan0",
        ],
    ];
    for taking in takings {
        for words in taking {
            net.router.ip(words);
        }
        // The kernel takes routes away with their link.
        for words in gateway {
            net.router.ip(&words.replace("add", "replace"));
        }
        for destination in destinations {
            net.assert_reached(destination);
        }
        let is_managed = |address: &str| {
            net.router.ip(&format!("neighbor show {address} dev wan0")).contains("managed")
        };
        wait_until("the kernel keeps them", PATIENCE, || {
            is_managed("10.1.0.2") && is_managed("2001:db8:1::2")
        });
    }
    net.sluice.assert_conserved();
}

#[test]
fn a_link_goes_down_and_comes_back() {
    let gateway =
        ["route add 203.0.113.0/24 via 10.1.0.2", "-6 route add 2001:db8:9::/48 via 2001:db8:1::2"];
    let Some(mut net) = Net::new("a link that goes down", &gateway, "") else { return };
    let destinations = ["10.1.0.2", "203.0.113.9", "2001:db8:1::2", "2001:db8:9::9"];
    for destination in destinations {
        net.assert_reached(destination);
    }
    let forwarded = |net: &Net| net.sluice.status().interfaces[0].forwarded;
    net.neighbor.ip("link set eth0 down");
    std::thread::sleep(Duration::from_millis(200));
    let before = forwarded(&net);
    for number in 0..20 {
        for destination in destinations {
            net.send(destination, number);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(net.complained(3, 1, PATIENCE), "the sender is not told: {:?}", net.sluice.status());
    net.sluice.assert_conserved();
    let status = net.sluice.status();
    let lan0 = &status.interfaces[0];
    let reasons =
        ["hold-full", "hold-timeout", "link-down", "neighbor-failed", "unreachable", "no-route"];
    let named: u64 = reasons.iter().filter_map(|reason| lan0.drops.get(*reason)).sum();
    assert_eq!(named + lan0.forwarded - before, 80, "{lan0:?}");
    net.neighbor.ip("link set eth0 up");
    // The kernel takes the IPv6 addresses away with the link.
    net.neighbor.ip("-6 address replace 2001:db8:1::2/64 dev eth0");
    for destination in destinations {
        net.assert_reached(destination);
    }
    net.sluice.assert_conserved();
}

/// Own addresses are known while the router runs: at the start, after a reload, and when one is added.
#[test]
fn an_egress_prefix_that_holds_an_own_address_is_warned_of() {
    let egress = |prefix: &str| {
        format!(
            "[[node]]\nname = \"a\"\naddress = \"10.3.0.7\"\n\
             [[egress]]\nprefix = \"{prefix}\"\ndefault = {{ node = \"a\" }}\n"
        )
    };
    let test = "a warning of own addresses";
    let Some(net) = Net::with_keys(test, &[], "node = \"a\"", &egress("10.0.0.0/24")) else {
        return;
    };
    let warns = |prefix: &str, address: &str| {
        let log = net.sluice.log();
        log.matches(&format!("egress prefix {prefix} holds {address}")).count()
    };
    wait_until("the warning", PATIENCE, || warns("10.0.0.0/24", "10.0.0.1") == 1);
    assert_eq!(warns("10.0.0.0/24", "10.3.0.7") + warns("10.0.0.0/24", "10.1.0.1"), 0);
    // An address of the tunnel, and one that an interface gets later.
    let file = net.sluice.file("sluice.toml");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    std::fs::write(&file, text.replace("10.0.0.0/24", "10.3.0.0/24")).expect("a file");
    net.sluice.done(&["reload"]);
    wait_until("the warning", PATIENCE, || warns("10.3.0.0/24", "10.3.0.7") == 1);
    net.router.ip("address add 10.3.0.1/24 dev wan0");
    wait_until("the warning", PATIENCE, || warns("10.3.0.0/24", "10.3.0.1") == 1);
    assert_eq!(warns("10.3.0.0/24", "10.3.0.7"), 1, "each once");
}

/// The sockets of an interface that was taken away are of no use to the next one of its name.
#[test]
fn an_interface_that_is_made_anew_is_told_as_such() {
    let Some(mut net) = Net::new("an interface made anew", &[], "") else { return };
    net.assert_reached("10.1.0.2");
    net.router.ip("link del wan0");
    let state = |net: &Net| net.sluice.status().interfaces[1].link.clone();
    wait_until("the loss is known", PATIENCE, || state(&net) == "gone");
    let mac = ROUTER_MAC[1].map(|byte| format!("{byte:02x}")).join(":");
    net::link((&net.router, "wan0", &mac), (&net.neighbor, "eth0", NEIGHBOR_MAC), 1500);
    net.router.ip("address add 10.1.0.1/16 dev wan0");
    net.router.ip("neighbor replace 10.1.0.2 lladdr 02:00:00:00:00:b0 dev wan0");
    wait_until("the new one is known", PATIENCE, || state(&net) == "made-anew");
    let get = |net: &Net| net.sluice.say(&["route", "get", "10.1.0.2"]);
    wait_until("its route is known", PATIENCE, || get(&net).contains("link-down"));
    assert!(get(&net).contains("before a restart"), "{}", get(&net));
    let dropped = net.sluice.drops("link-down");
    (0..20).for_each(|number| net.send("10.1.0.2", number));
    wait_until("they are dropped", PATIENCE, || net.sluice.drops("link-down") == dropped + 20);
    assert_eq!(net.sluice.drops("transmit-full"), 0);
    let packet = ["explain", "--in", "lan0", "udp 10.0.0.2:1 > 10.1.0.2:2"];
    let words = net.sluice.say(&packet);
    assert!(words.contains("link-down"), "{words}");
    assert!(net.sluice.say(&["status"]).contains("wan0 was taken away and made anew"));
    net.sluice.assert_conserved();
}

/// The kernel keeps a permanent neighbor, and the routes to it, when a link has no carrier any more.
#[test]
fn nothing_is_sent_by_a_link_without_a_carrier() {
    let set_up = [
        "neighbor add 10.1.0.9 lladdr 02:00:00:00:00:b0 dev wan0",
        "route add 10.9.0.0/16 via 10.1.0.9",
        "route add 10.8.0.0/16 nexthop via 10.1.0.9 nexthop via 10.0.0.2",
    ];
    let Some(mut net) = Net::new("a link without a carrier", &set_up, "") else { return };
    let link = |net: &Net| {
        let interfaces = net.sluice.status().interfaces;
        interfaces.into_iter().find(|row| row.name == "wan0").expect("wan0")
    };
    let send_to = |net: &Net, prefix: &str| {
        (0..20).for_each(|host| net.send(&format!("{prefix}.{host}"), host));
    };
    net.assert_reached("10.9.0.1");
    assert_eq!(link(&net).link, "up");
    net.neighbor.ip("link set eth0 down");
    wait_until("the lost carrier is known", PATIENCE, || link(&net).link == "no-carrier");
    let member = |net: &Net| {
        serde_json::from_str::<serde_json::Value>(
            &net.sluice.say(&["route", "get", "10.9.0.1", "--json"]),
        )
        .expect("JSON")["next"]["members"][0]
            .clone()
    };
    wait_until("it is published", PATIENCE, || member(&net)["state"] == "link-down");
    assert_eq!(member(&net)["link"], "no-carrier");
    let text = net.sluice.say(&["route", "get", "10.9.0.1"]);
    assert!(text.contains("link-down (link no-carrier)"), "{text}");
    let sent_before = link(&net).tx_packets;
    send_to(&net, "10.9.0");
    wait_until("they are dropped", PATIENCE, || net.sluice.drops("link-down") == 20);
    // A neighbor that nobody knows is not waited for.
    net.send("10.1.0.77", 0);
    wait_until("it is dropped", PATIENCE, || net.sluice.drops("link-down") == 21);
    // All flows of the group go the other way.
    let other = |net: &Net| net.sluice.status().interfaces[0].tx_packets;
    let other_before = other(&net);
    send_to(&net, "10.8.0");
    wait_until("they take the other way", PATIENCE, || other(&net) >= other_before + 20);
    assert_eq!(net.sluice.drops("link-down"), 21);
    assert_eq!(link(&net).tx_packets, sent_before);
    net.sluice.assert_conserved();
    net.neighbor.ip("link set eth0 up");
    net.assert_reached("10.9.0.1");
    assert_eq!(link(&net).link, "up");
}

/// RFC 792: the kernel says that nobody listens, which it does for its own addresses only.
#[test]
fn prefixes_that_are_all_the_kernels_own_lead_to_it() {
    let set_up = [
        "address add 203.0.113.0/24 dev lo",
        "route add local 50.25.0.0/16 dev lo",
        "-6 route add local 2001:db8:50::/48 dev lo",
        "route add default via 10.1.0.2",
    ];
    let Some(mut net) = Net::new("local prefixes", &set_up, "") else { return };
    net.router.sysctl("ipv4/icmp_ratelimit", "0");
    for destination in ["203.0.113.9", "50.25.0.1", "50.25.77.1"] {
        net.send(destination, 0);
        assert!(net.complained(3, 3, PATIENCE), "{destination}: {:?}", net.sluice.status());
    }
    net.send("2001:db8:50::9", 0);
    assert!(net.complained(1, 4, PATIENCE), "{:?}", net.sluice.status());
    let get = |address: &str| net.sluice.say(&["route", "get", address]);
    assert!(get("50.25.0.1").starts_with("50.25.0.1: 50.25.0.0/16"), "{}", get("50.25.0.1"));
    assert!(get("50.25.0.1").contains("own-address"), "{}", get("50.25.0.1"));
    net.router.ip("route del local 50.25.0.0/16 dev lo");
    wait_until("it is the world's again", PATIENCE, || get("50.25.0.1").contains("0.0.0.0/0"));
    net.sluice.assert_conserved();
}

/// RFC 8950: an IPv4 prefix by an IPv6 next hop, resolved by neighbor discovery.
#[test]
fn an_ipv4_route_by_an_ipv6_next_hop() {
    let Some(mut net) = Net::new("RFC 8950", &[], "") else { return };
    net.neighbor.ip("-6 address add fe80::b0/64 dev eth0");
    for (prefix, via, destination) in [
        ("198.51.100.0/24", "fe80::b0", "198.51.100.7"),
        ("203.0.113.0/24", "2001:db8:1::2", "203.0.113.7"),
    ] {
        net.router.ip(&format!("route add {prefix} via inet6 {via} dev wan0"));
        net.assert_reached(destination);
        net.neighbor.ip("link set eth0 address 02:00:00:00:00:b2");
        let mut mac = String::new();
        wait_until("traffic follows", PATIENCE, || {
            net.send(destination, 7);
            let arrived = net.arrivals(1, Duration::from_millis(500));
            mac = arrived.last().map(|(_, mac)| mac.clone()).unwrap_or_default();
            mac == "02:00:00:00:00:b2"
        });
        net.neighbor.ip(&format!("link set eth0 address {NEIGHBOR_MAC}"));
    }
    net.sluice.assert_conserved();
}

/// A scan of a connected prefix: a thousand addresses that nobody has.
#[test]
fn a_scan_of_a_connected_prefix_harms_nobody() {
    let Some(mut net) = Net::new("a scan of a connected prefix", &[], "") else { return };
    net.assert_reached("10.1.0.2");
    let mut numbers = 0..;
    let mut sent = HashSet::new();
    for host in 0..1000_u32 {
        net.send(&format!("10.1.{}.{}", 16 + host / 250, 1 + host % 250), 1 << 24);
        let number = numbers.next().expect("a number");
        net.send("10.1.0.2", number);
        sent.insert(number);
        if host % 20 == 19 {
            // Paced, so that no link drops anything by itself.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let arrived: HashSet<u32> =
        net.arrivals(sent.len(), PATIENCE).into_iter().map(|(number, _)| number).collect();
    let lost: Vec<_> = sent.difference(&arrived).collect();
    assert!(lost.is_empty(), "{} packets of the other flow are lost", lost.len());
    let held: u64 = net.sluice.status().workers.iter().map(|worker| worker.frames.held).sum();
    assert!(held <= 1024, "{held} frames are held");
    net.sluice.assert_conserved();
    let status = net.sluice.status();
    let lan0 = &status.interfaces[0];
    let named: u64 = ["hold-full", "hold-timeout", "neighbor-failed"]
        .iter()
        .filter_map(|reason| lan0.drops.get(*reason))
        .sum();
    assert_eq!(named, 1000, "{lan0:?}");
    // Afterwards a neighbor that nothing was known of is found as before.
    net.neighbor.ip("address add 10.1.0.3/16 dev eth0");
    net.assert_reached("10.1.0.3");
    let known = net.sluice.status().neighbors.len();
    assert!(known <= 1024, "{known} neighbors are remembered");
}
