//! `sluice route get` against the kernel's own look-up (`RTM_GETROUTE`, which is what `ip route get` asks), for
//! a hundred thousand addresses in a namespace with routes of every kind beside some of the Internet's;
//! `sluice route show`, page by page; and `sluice slice` for every port.
//!
//! With `SLUICE_FULL_TABLE` set, and in a release build, the look-ups are in the whole table:
//! `SLUICE_FULL_TABLE=1 cargo test --release -p router --test route_get whole -- --nocapture`

#[path = "common/feed/mod.rs"]
mod feed;
#[path = "common/net/mod.rs"]
mod net;
#[allow(dead_code, reason = "the differential test needs more of it")]
#[path = "differential/packet.rs"]
mod packet;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::time::{Duration, Instant};

use control::kernel::{KernelMirror, MirrorOptions, RouteKind};
use control::socket::{ControlClient, Request};
use feed::Table;
use net::{Namespace, Router, wait_until};
use packet::Random;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(20);

/// Routes of every kind that the kernel has. `dum0` is not the router's.
const ROUTES: &[&str] = &[
    "route add default via 10.1.0.2",
    "route add 20.0.0.0/8 via 10.1.0.3 proto bird metric 32",
    "route add 20.0.0.0/8 via 10.1.0.4 metric 1024",
    "route add 20.1.0.0/16 nexthop via 10.1.0.3 weight 3 nexthop via 10.1.0.4 weight 1",
    "route add 20.2.0.0/16 dev wan0",
    "route add blackhole 20.3.0.0/16",
    "route add unreachable 20.4.0.0/16",
    "route add prohibit 20.5.0.0/16",
    "route add 20.6.0.0/16 via inet6 2001:db8:1::3 dev wan0",
    "route add 20.7.0.0/16 via 172.16.0.2 dev dum0",
    "route add 20.8.0.0/16 nexthop via 10.1.0.3 nexthop via 172.16.0.2 dev dum0",
    "route add throw 20.9.0.0/16",
    "nexthop add id 7 via 10.1.0.5 dev wan0",
    "nexthop add id 8 via 10.1.0.6 dev wan0",
    "nexthop add id 9 group 7/8",
    "route add 20.10.0.0/16 nhid 7",
    "route add 20.11.0.0/16 nhid 9",
    "route add 20.12.0.0/16 via 10.1.0.3 mtu 1400",
    "route add 20.1.2.0/24 via 10.1.0.5",
    "route add 20.1.2.128/25 via 10.1.0.6",
    "route add blackhole 20.1.2.3/32",
    "-6 route add default via 2001:db8:1::2",
    "-6 route add 2001:db8:20::/48 via 2001:db8:1::3",
    "-6 route add 2001:db8:21::/48 nexthop via 2001:db8:1::3 nexthop via 2001:db8:1::4",
    "-6 route add blackhole 2001:db8:22::/48",
    "-6 route add unreachable 2001:db8:23::/48",
    "-6 route add prohibit 2001:db8:24::/48",
    "-6 route add 2001:db8:25::/48 dev wan0",
    "-6 route add 2001:db8:20:1::/64 via fe80::7 dev wan0",
    "-6 route add 2001:db8:26::/48 dev dum0",
];

struct Net {
    router: Namespace,
    sluice: Router,
    _ends: [Namespace; 2],
}

impl Net {
    fn new(test: &str, config: &str) -> Option<Self> {
        Self::with_keys(test, "", config)
    }

    /// The same with more keys in `[router]`.
    fn with_keys(test: &str, keys: &str, config: &str) -> Option<Self> {
        if !net::available(test) {
            return None;
        }
        let ends = [Namespace::new("lan").mute(), Namespace::new("wan").mute()];
        let router = Namespace::new("router").forwards();
        for (end, name, number) in [(&ends[0], "lan0", 0), (&ends[1], "wan0", 1)] {
            let mac = format!("02:00:00:00:00:1{number}");
            net::link((end, "eth0", "02:00:00:00:01:02"), (&router, name, &mac), 1500);
        }
        router.ip("link add dum0 type veth peer name dum1");
        router.ip("link set dum1 up");
        for words in [
            "link set dum0 up",
            "address add 10.0.0.1/24 dev lan0",
            "address add 10.1.0.1/24 dev wan0",
            "address add 172.16.0.1/24 dev dum0",
            "-6 address add 2001:db8::1/64 dev lan0",
            "-6 address add 2001:db8:1::1/64 dev wan0",
        ]
        .iter()
        .chain(ROUTES)
        {
            router.ip(words);
        }
        let interfaces = [("lan0", "inside"), ("wan0", "outside")];
        let sluice = Router::start_with(&router, &interfaces, "\"off\"", keys, config);
        Some(Self { router, sluice, _ends: ends })
    }

    fn client(&self) -> ControlClient {
        ControlClient::connect(self.sluice.socket()).expect("the control socket")
    }
}

/// What the kernel says, in the words of `route get`: the kind, and the next hop where there is one.
fn kernel_says(kind: &RouteKind) -> (&'static str, Option<IpAddr>) {
    match kind {
        RouteKind::Blackhole => ("blackhole", None),
        RouteKind::Unreachable => ("unreachable", None),
        RouteKind::Prohibit => ("prohibit", None),
        RouteKind::Local => ("kernel", None),
        RouteKind::NotExpressible(_) => ("object", None),
        RouteKind::NextHops(hops) => match hops[0].via {
            Some(via) => ("next-hops", Some(via)),
            None => ("on-link", None),
        },
    }
}

/// Next hops of the Internet's routes, in each family. None of them answers.
const NEXT_HOPS: usize = 32;

/// Addresses that are looked up: a hundred thousand, and those that the router leaves to the kernel.
const LOOKUPS: usize = 105_000;

/// Puts routes into the kernel, each by one of the next hops, and waits until the router knows them.
fn fill(net: &Net, table: &Table) {
    let mut batch = String::new();
    // What holds the routes of every kind, and has a default route of its own.
    let other: ipnet::Ipv4Net = "20.0.0.0/8".parse().expect("a prefix");
    let v4 = table.v4.keys().filter(|prefix| prefix.prefix_len() > 0 && !other.contains(prefix));
    for (number, prefix) in v4.enumerate() {
        let hop = 50 + number % NEXT_HOPS;
        writeln!(batch, "route add {prefix} via 10.1.0.{hop}").expect("a string");
    }
    let v6 = table.v6.keys().filter(|prefix| prefix.prefix_len() > 0);
    for (number, prefix) in v6.enumerate() {
        let hop = 0x50 + number % NEXT_HOPS;
        writeln!(batch, "route add {prefix} via 2001:db8:1::{hop:x} dev wan0").expect("a string");
    }
    net.router.sysctl("ipv6/route/max_size", "4000000");
    let before = net.sluice.status().routes;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &batch).expect("a file");
    net.router.run("ip", &["-batch", file.path().to_str().expect("a path")]);
    let routes = batch.lines().count() as u64;
    wait_until("the routes are known", PATIENCE, || {
        let now = net.sluice.status().routes;
        now.v4 + now.v6 >= before.v4 + before.v6 + routes
    });
}

/// Addresses within prefixes of the table, in routes of every kind, and anywhere.
fn addresses(table: &Table, random: &mut Random) -> Vec<IpAddr> {
    let v4: Vec<_> = table.v4.keys().collect();
    let v6: Vec<_> = table.v6.keys().collect();
    let mut all = Vec::with_capacity(LOOKUPS);
    while all.len() < LOOKUPS {
        let bits = u128::from(random.next()) << 64 | u128::from(random.next());
        // Of IPv6 what has been given out so far: 2000::/3.
        let (bits4, bits6) = (bits as u32, bits >> 3 | 1 << 125);
        let [a, b, c, _] = bits4.to_be_bytes();
        let address: IpAddr = match all.len() % 10 {
            0 => Ipv4Addr::new(20, a % 14, b, c).into(),
            1 => Ipv4Addr::new(20, 1, 2, c).into(),
            2 => Ipv4Addr::from_bits(bits4).into(),
            3..6 => {
                let prefix = random.of(&v4);
                let host = bits4 & prefix.hostmask().to_bits();
                Ipv4Addr::from_bits(prefix.network().to_bits() | host).into()
            }
            6 => {
                let (third, fourth) = (0x1e + u16::from(a % 12), u16::from(b % 3));
                Ipv6Addr::new(0x2001, 0xdb8, third, fourth, 0, 0, 0, 1 + u16::from(c)).into()
            }
            7 => Ipv6Addr::from_bits(bits6).into(),
            _ => {
                let prefix = random.of(&v6);
                let host = bits6 & prefix.hostmask().to_bits();
                Ipv6Addr::from_bits(prefix.network().to_bits() | host).into()
            }
        };
        // The test's own links, and what no kernel routes.
        let is_routed = match address {
            IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 10 | 127 | 224..),
            IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
        };
        // Otherwise another one of the same sort.
        if is_routed {
            all.push(address);
        }
    }
    all
}

/// Looks up addresses in the kernel and the router, which have the same routes.
#[track_caller]
fn compare(net: &Net, table: &Table) {
    let start = Instant::now();
    fill(net, table);
    eprintln!(
        "{} IPv4 and {} IPv6 prefixes known within {:?}",
        table.v4.len(),
        table.v6.len(),
        start.elapsed()
    );
    let mirror = net.router.within(|| {
        KernelMirror::start(MirrorOptions { routes: false, ..MirrorOptions::default() })
    });
    let (mirror, _events) = mirror.expect("a mirror");
    let mut client = net.client();
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    // How long the prefixes were that were found, in each family.
    let mut lengths = [[0_usize; 129]; 2];
    let (start, mut left) = (Instant::now(), 0);
    for address in addresses(table, &mut Random(11)) {
        let (expected, via) = kernel_says(&mirror.route_get(address).expect("an answer").kind);
        let answer =
            client.call(&Request::RouteGet { address: address.to_string() }).expect("an answer");
        let next = &answer["next"];
        let kind = next["kind"].as_str().unwrap_or_default();
        let candidate = &answer["route"]["candidates"][0];
        *met.entry(format!("{kind} {expected}")).or_default() += 1;
        if let Some(prefix) = answer["route"]["prefix"].as_str() {
            let prefix: ipnet::IpNet = prefix.parse().expect("a prefix");
            lengths[usize::from(address.is_ipv6())][usize::from(prefix.prefix_len())] += 1;
        }
        // What it leaves to the kernel it names, with a reason; the kernel does as it likes.
        if kind == "kernel" && !candidate["unexpressible"].is_null() {
            assert!(candidate["unexpressible"]["words"].is_string(), "{answer}");
            left += 1;
            continue;
        }
        let members: Vec<IpAddr> = next["members"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|member| member["address"].as_str()?.parse().ok())
            .collect();
        match (expected, via) {
            // The kernel names the object and not what it does.
            ("object", _) => assert!(kind == "next-hops", "{address}: {answer}"),
            (_, Some(via)) => assert!(members.contains(&via), "{address}: {via}, not {answer}"),
            ("unreachable", None) if kind == "no-route" => {}
            _ => assert_eq!(kind, expected, "{address}: {answer}"),
        }
    }
    eprintln!(
        "{LOOKUPS} addresses in {:?}, of which {left} are left to the kernel, met: {met:?}",
        start.elapsed()
    );
    assert!(LOOKUPS - left >= 100_000, "{left} of {LOOKUPS} are left to the kernel");
    for (lengths, family) in lengths.iter().zip(["IPv4", "IPv6"]) {
        let found: Vec<_> =
            (0..).zip(lengths).filter(|(_, count)| **count > 0).map(|(length, _)| length).collect();
        eprintln!("{family} prefixes of these lengths were found: {found:?}");
        assert!(found.len() > 15, "{family}: {found:?}");
    }
    for kind in ["next-hops", "on-link", "blackhole", "unreachable", "prohibit", "kernel"] {
        let count: usize =
            met.iter().filter(|(met, _)| met.starts_with(kind)).map(|(_, count)| count).sum();
        assert!(count > 500, "{kind} was met {count} times: {met:?}");
    }
}

#[test]
fn route_get_says_what_the_kernel_says() {
    let Some(net) = Net::new("route get", "") else { return };
    compare(&net, &Table::read(30));
    let status = net.sluice.status().routes;
    let reasons: BTreeMap<&str, u64> = status
        .unexpressible_by_reason
        .iter()
        .map(|row| (row.reason.as_str(), row.prefixes))
        .collect();
    assert_eq!(reasons.get("throw"), Some(&1), "{reasons:?}");
    // 20.7/16, 20.8/16, 2001:db8:26::/48 and what the kernel makes for dum0 and lo by itself.
    assert!(reasons.get("foreign-interface") >= Some(&4), "{reasons:?}");
}

/// Addresses that no route is asked for: what is told of them is what becomes of a packet.
#[test]
fn route_get_says_what_becomes_of_special_addresses() {
    let Some(net) = Net::new("route get of special addresses", "") else { return };
    net.router.ip("route replace default via 10.1.0.3");
    net.router.ip("-6 route replace default via 2001:db8:1::3");
    wait_until("the default is known", PATIENCE, || {
        net.sluice.say(&["route", "get", "8.8.8.8"]).contains("0.0.0.0/0")
            && net.sluice.say(&["route", "get", "2001:4860::8"]).contains("::/0")
    });
    let special = [
        ("224.0.0.1", "kernel", "kernel-multicast"),
        ("255.255.255.255", "kernel", "kernel-multicast"),
        ("127.0.0.2", "drop", "martian-destination"),
        ("169.254.1.1", "drop", "ipv4-link-local"),
        ("240.0.0.1", "drop", "martian-destination"),
        ("0.0.0.0", "drop", "martian-destination"),
        ("ff02::1", "kernel", "kernel-multicast"),
        ("fe80::1234", "kernel", "kernel-link-local"),
        ("::ffff:1.2.3.4", "drop", "ipv6-mapped-address"),
        ("::", "drop", "martian-destination"),
    ];
    for (address, kind, reason) in special {
        let answer = net.sluice.json(&["route", "get", address]);
        assert_eq!(
            (&answer["next"]["kind"], &answer["next"]["reason"]),
            (&kind.into(), &reason.into()),
            "{answer}"
        );
        assert!(answer["route"].is_null(), "{answer}");
        let text = net.sluice.done(&["route", "get", address]);
        assert!(text.contains("no route is asked") && text.contains(reason), "{text}");
        // The same packet, all the way.
        let source = if address.contains(':') { "[2001:db8::9]" } else { "10.0.0.9" };
        let destination =
            if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
        let words = format!("udp {source}:1000 > {destination}:2000");
        let explained = net.sluice.done(&["explain", "--in", "lan0", &words]);
        assert!(explained.contains(reason), "{address}: {explained}");
    }
    // Asked together they are answered alike.
    let words = ["route", "get", "--json"].into_iter();
    let words: Vec<_> = words.chain(special.map(|(address, ..)| address)).collect();
    let answers = net.sluice.done(&words);
    let reasons: Vec<_> = answers
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|answer| answer["next"]["reason"].as_str().unwrap_or("none").to_owned())
        .collect();
    assert_eq!(reasons, special.map(|(.., reason)| reason));
}

#[test]
fn route_get_says_what_the_kernel_says_of_the_whole_table() {
    const TEST: &str = "route get in the whole table";
    if std::env::var_os("SLUICE_FULL_TABLE").is_none() {
        eprintln!("skipped: {TEST}: SLUICE_FULL_TABLE is not set; it takes a minute and gigabytes");
        return;
    }
    let Some(net) = Net::new(TEST, "") else { return };
    compare(&net, &Table::read(1));
}

#[test]
fn route_get_tells_what_was_not_chosen_and_why() {
    let rest = "[[route]]\nprefix = \"20.12.0.0/16\"\nvia = \"10.1.0.9\"\n\
                [[route]]\nprefix = \"20.13.0.0/16\"\nvia = \"10.1.0.9\"\n";
    let Some(net) = Net::new("route get with alternatives", rest) else { return };
    let mut client = net.client();
    let mut get = |address: &str| -> Value {
        client.call(&Request::RouteGet { address: address.to_owned() }).expect("an answer")
    };
    let answer = get("20.0.0.1");
    let candidates = answer["route"]["candidates"].as_array().expect("candidates");
    assert_eq!(candidates.len(), 2, "{answer}");
    assert_eq!(
        (&candidates[0]["protocol"], &candidates[0]["metric"]),
        (&"bird".into(), &32.into())
    );
    assert_eq!(candidates[1]["why_not"], "metric 1024 is above 32");
    assert_eq!(answer["shorter"][0]["prefix"], "0.0.0.0/0");
    let answer = get("20.12.0.1");
    let candidates = &answer["route"]["candidates"];
    assert_eq!(candidates[0]["source"], "static", "{answer}");
    assert_eq!(candidates[1]["why_not"], "the configuration is preferred");
    assert_eq!(candidates[1]["next_hops"][0]["mtu"], 1400);
    // Buckets by weight: three quarters of them.
    let answer = get("20.1.0.1");
    let members = answer["next"]["members"].as_array().expect("members");
    let share = |via: &str| -> f64 {
        let member = members.iter().find(|member| member["address"] == via).expect("a member");
        member["share"].as_f64().expect("a share")
    };
    assert!((share("10.1.0.3") - 0.75).abs() < 0.04, "{answer}");
    assert!((share("10.1.0.3") + share("10.1.0.4") - 1.0).abs() < 1e-9);
    let answer = get("20.7.0.1");
    let why = answer["route"]["candidates"][0]["unexpressible"]["words"].as_str();
    assert_eq!(why, Some("it leads over dum0, which is not the router's"), "{answer}");
}

fn sluice(net: &Net, words: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(words)
        .arg("--socket")
        .arg(net.sluice.socket())
        .output()
        .expect("sluice runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn routes_are_shown_in_pages_and_by_source() {
    let Some(net) = Net::new("route show", "") else { return };
    // Some pages of them.
    let batch: String = (0..3000_u32)
        .map(|number| {
            let [_, _, a, b] = number.to_be_bytes();
            format!("route add 30.{a}.{b}.0/24 via 10.1.0.3 proto bird\n")
        })
        .collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), batch).expect("a file");
    net.router.run("ip", &["-batch", file.path().to_str().expect("a path")]);
    wait_until("routes are known", PATIENCE, || net.sluice.status().routes.v4 > 3000);
    let prefixes = |words: &[&str]| -> Vec<String> {
        let (done, text) = sluice(&net, words);
        assert!(done, "{text}");
        let value = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
        let prefix = |line| value(line)["prefix"].as_str().expect("a prefix").to_owned();
        text.lines().map(prefix).collect()
    };
    let all = prefixes(&["route", "show", "--json"]);
    let status = net.sluice.status().routes;
    assert_eq!(all.len() as u64, status.v4 + status.v6, "each once");
    let distinct: std::collections::BTreeSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
    let longer = prefixes(&["route", "show", "30.0.0.0/8", "--longer", "--json"]);
    assert_eq!(longer.len(), 3000);
    assert_eq!(prefixes(&["route", "show", "--source", "kernel:bird", "--json"]).len(), 3001);
    assert_eq!(prefixes(&["route", "show", "--source", "kernel:12", "--json"]).len(), 3001);
    let unexpressible = prefixes(&["route", "show", "--unexpressible", "--json"]);
    assert_eq!(unexpressible.len() as u64, status.unexpressible);
    assert!(unexpressible.contains(&"20.9.0.0/16".to_owned()));
    let (done, text) = sluice(&net, &["route", "show", "20.0.0.0/8"]);
    assert!(
        done && text.contains("[kernel bird metric 32]")
            && text.contains("metric 1024 is above 32"),
        "{text}"
    );
    let (done, text) = sluice(&net, &["route", "get", "20.1.0.1"]);
    assert!(done && text.contains("of 4096 buckets"), "{text}");
    let (done, text) = sluice(&net, &["route", "show", "99.0.0.0/8"]);
    assert!(!done && text.contains("no such route"), "{text}");
    let (done, text) = sluice(&net, &["route", "show", "--source", "heaven"]);
    assert!(!done && text.contains("no source"), "{text}");
    let (_, help) = sluice(&net, &["route", "show", "--help"]);
    assert!(help.contains("machine") && text.contains("machine"), "{help}{text}");
    // An address is the prefix of itself alone.
    let (done, text) = sluice(&net, &["route", "show", "20.1.2.3"]);
    assert!(done && text.starts_with("20.1.2.3/32") && text.lines().count() == 1, "{text}");
    let (done, text) = sluice(&net, &["route", "show", "20.1.2.4"]);
    assert!(!done && text.contains("sluice route get 20.1.2.4"), "{text}");

    // Several addresses: a line each, on the command line as from standard input.
    let addresses = ["20.1.0.1", "20.2.0.1", "20.3.0.1", "20.12.0.1", "2001:db8:20::1", "10.0.0.1"];
    let several = net.sluice.done(&[&["route", "get"], &addresses[..]].concat());
    let lines: Vec<Vec<&str>> = several.lines().map(|line| line.split('\t').collect()).collect();
    let expected = [
        ["20.1.0.1", "20.1.0.0/16", "next-hops", "10.1.0.3%wan0,10.1.0.4%wan0", "kernel"],
        ["20.2.0.1", "20.2.0.0/16", "on-link", "%wan0", "kernel"],
        ["20.3.0.1", "20.3.0.0/16", "blackhole", "-", "kernel"],
        ["20.12.0.1", "20.12.0.0/16", "next-hops", "10.1.0.3%wan0", "kernel"],
        ["2001:db8:20::1", "2001:db8:20::/48", "next-hops", "2001:db8:1::3%wan0", "kernel"],
        ["10.0.0.1", "10.0.0.1/32", "kernel", "-", "own-address"],
    ];
    assert_eq!(lines, expected, "{several}");
    let (done, piped) =
        asked_by_input(&net, &["route", "get", "-"], &addresses.join("\n# none\n\n"));
    assert!(done && piped == several, "{piped}");
    let (_, json) = asked_by_input(&net, &["route", "get", "--json", "-"], "20.1.0.1\n20.2.0.1\n");
    let kinds: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["next"]["kind"].clone())
        .collect();
    assert_eq!(kinds, ["next-hops", "on-link"], "{json}");
    let (done, text) = asked_by_input(&net, &["route", "get", "-"], "20.3.0.1\n20.3.0\n");
    assert!(
        !done && text.starts_with("20.3.0.1\t") && text.contains("line 2: \"20.3.0\""),
        "{text}"
    );
}

/// What `sluice` says to what it reads.
#[track_caller]
fn asked_by_input(net: &Net, words: &[&str], input: &str) -> (bool, String) {
    let mut command = net.sluice.command(words);
    // A file, since a pipe that nobody empties would hold up both ends.
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(input.as_bytes()).and_then(|()| file.rewind()).expect("a file");
    let output = command.stdin(file).output().expect("sluice runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), text + &String::from_utf8_lossy(&output.stderr))
}

/// Two machines behind one IPv4 address, the second in two ranges, and an IPv6 prefix.
const SLICES: &str = r#"
[[node]]
name = "a"
address = "10.1.0.1"
[[node]]
name = "b"
address = "10.1.0.7"
[[egress]]
prefix = "192.0.2.1/32"
default = "drop"
portless = { node = "b" }
[[egress.slice]]
name = "here"
ports = "1024-3071"
node = "a"
[[egress.slice]]
name = "there"
ports = "3072-3072"
node = "b"
[[egress.slice]]
name = "there-too"
ports = "40000-65535"
node = "b"
[[egress]]
prefix = "2001:db8:5::/64"
default = { node = "a" }
"#;

#[test]
fn every_port_of_a_shared_address_has_an_owner_or_none() {
    let keys = "node = \"a\"";
    let Some(net) = Net::with_keys("slice get", keys, SLICES) else { return };
    let mut client = net.client();
    let mut ask = |address: &str, port: u16, has_ports: bool| {
        let address = address.to_owned();
        client.call(&Request::SliceGet { address, port, has_ports }).expect("an answer")
    };
    for port in 0..=u16::MAX {
        let answer = ask("192.0.2.1", port, true);
        let (slice, kind) = match port {
            1024..=3071 => (Some("here"), "kernel"),
            3072 => (Some("there"), "tunnel"),
            40_000.. => (Some("there-too"), "tunnel"),
            _ => (None, "drop"),
        };
        assert_eq!(answer["slice"]["name"].as_str(), slice, "port {port}: {answer}");
        assert_eq!(answer["next"]["kind"], kind, "port {port}: {answer}");
        if kind == "tunnel" {
            assert_eq!(answer["next"]["remote"], "10.1.0.7");
            assert_eq!(answer["owner"], "node b");
        }
    }
    let answer = ask("192.0.2.1", 0, false);
    assert_eq!((&answer["next"]["kind"], &answer["slice"]), (&"tunnel".into(), &Value::Null));
    let answer = ask("2001:db8:5::77", 80, true);
    assert_eq!((&answer["next"]["kind"], &answer["slice"]), (&"kernel".into(), &Value::Null));
    assert_eq!(answer["egress"], "2001:db8:5::/64");
    let request = Request::SliceGet { address: "10.0.0.1".into(), port: 1, has_ports: true };
    let error = client.call(&request).expect_err("not shared").to_string();
    assert!(error.contains("10.0.0.1 is no shared address"), "{error}");

    // The list covers each prefix from port 0 to the last, without a gap, and says the same.
    let lines = net.sluice.say(&["slice", "show", "--json"]);
    let ranges: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let shown = |egress: &str| -> Vec<(u64, u64, Option<&str>)> {
        let of = ranges.iter().filter(|range| range["egress"] == egress);
        let bound = |range: &Value, key: &str| range[key].as_u64().expect("a port");
        of.map(|range| {
            (bound(range, "first_port"), bound(range, "last_port"), range["slice"].as_str())
        })
        .collect()
    };
    let expected = [
        (0, 1023, None),
        (1024, 3071, Some("here")),
        (3072, 3072, Some("there")),
        (3073, 39_999, None),
        (40_000, 65_535, Some("there-too")),
    ];
    assert_eq!(shown("192.0.2.1/32"), expected, "{lines}");
    assert_eq!(shown("2001:db8:5::/64"), [(0, 65_535, None)], "{lines}");
    let text = net.sluice.say(&["slice", "show", "192.0.2.1/32"]);
    assert!(text.contains("40000-65535") && !text.contains("2001:db8:5"), "{text}");
    assert_eq!(net.sluice.say(&["slice", "show", "192.0.2.1"]), text, "an address is a /32");

    // Every port at once: as one by one, in the same words.
    let mut input = String::new();
    for port in 0..=u16::MAX {
        let _ = writeln!(input, "192.0.2.1 {port} udp");
    }
    input += "192.0.2.1 0 gre\n10.0.0.1 1\n";
    let (done, text) = asked_by_input(&net, &["slice", "get", "-"], &input);
    assert!(done, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 65_538);
    for (port, line) in lines[..65_536].iter().enumerate() {
        let rest = match port {
            1024..=3071 => "here\tkernel\t-\tkernel on this machine",
            3072 => "there\ttunnel\t10.1.0.7\tnode b",
            40_000.. => "there-too\ttunnel\t10.1.0.7\tnode b",
            _ => "-\tdrop\tslice-default\tnobody, by the configured default",
        };
        assert_eq!(*line, format!("192.0.2.1\t{port}\tudp\t{rest}"));
    }
    assert_eq!(lines[65_536], "192.0.2.1\t0\tgre\t-\ttunnel\t10.1.0.7\tnode b");
    assert_eq!(lines[65_537], "10.0.0.1\t1\ttcp\t-\tnot-shared\t-\t-");
    let two = net.sluice.done(&["slice", "get", "192.0.2.1", "80", "192.0.2.1", "3072"]);
    assert_eq!(two.lines().count(), 2, "{two}");
    let refused = net.sluice.refused(&["slice", "get", "192.0.2.1", "80", "192.0.2.1"]);
    assert!(refused.contains("ADDRESS PORT"), "{refused}");
    let refused = net.sluice.refused(&["slice", "get", "192.0.2.1", "80", "--protocol", "foo"]);
    assert!(refused.contains("gre, esp"), "{refused}");

    // A status that is read by people and scripts names a slice of few.
    let status = net.sluice.status();
    assert_eq!((status.sharing.slices, status.sharing.slices_here), (3, 1), "{:?}", status.sharing);
    let named = client.call(&Request::SliceNamed { name: "there".into() }).expect("an answer");
    assert_eq!((&named["egress"], &named["ports"]), (&"192.0.2.1/32".into(), &"3072-3072".into()));
    let error = client.call(&Request::SliceNamed { name: "web".into() }).expect_err("none");
    assert!(error.to_string().contains("here, there, there-too"), "{error}");
}
