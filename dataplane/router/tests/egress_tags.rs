//! Two sites with the plugin `egress-tags`, each with a pool of addresses of its own, and Linux's sockets at
//! both ends: a user of one country enters at the other site.
//!
//! ```text
//!  user -- users0  ams  wan0 ---- world ---- wan0  fra
//!             pool0 |core0 ------------------ core0| pool0
//!            pool of ams                      pool of fra       (Linux translates there)
//! ```
//!
//! The user has a private address; what he leaves with says which way he went, and the world tells him what
//! it saw. Skipped without root, without the built plugins, and without nft.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use net::two_links::{INTERFACES, LAN, LAN_MAC, TwoLinks, udp_frame};
use net::{Namespace, Router, link, wait_until};

mod common;

#[path = "common/net/mod.rs"]
mod net;

/// How long an answer may take. The first packets wait for neighbors.
const PATIENCE: Duration = Duration::from_secs(10);

const WORLD: &str = "198.51.100.7";
/// What each site's users leave with.
const POOL_AMS: &str = "192.0.2.1";
const POOL_FRA: &str = "192.0.2.2";

const GERMAN: &str = "10.1.0.2";
const DUTCH: &str = "10.1.0.3";
const ELSEWHERE: &str = "10.1.0.4";
/// German, and little trusted.
const SUSPECT: &str = "10.1.0.66";

const COUNTRIES: &str = "10.1.0.2 de\n10.1.0.3 nl\n10.1.0.66 de\n";

/// What is between the sites.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Between {
    /// A link, on which the other site is a next hop.
    Link,
    /// A tunnel.
    Tunnel,
}

/// A site: its name, its number, and the address of its pool.
struct Site {
    name: &'static str,
    number: u8,
    pool: &'static str,
    router: Namespace,
    /// Translates what it is sent; held so that it lives.
    _translator: Namespace,
}

impl Site {
    fn new(name: &'static str, number: u8, pool: &'static str) -> Self {
        let router = Namespace::new(name).forwards();
        let translator = Namespace::new("pool").forwards();
        let mac = |of: u8| format!("02:00:00:00:{number:02x}:{of:02x}");
        link((&router, "pool0", &mac(1)), (&translator, "eth0", &mac(2)), 1500);
        router.ip(&format!("address add 10.2{number}.0.1/24 dev pool0"));
        translator.ip(&format!("address add 10.2{number}.0.2/24 dev eth0"));
        translator.ip(&format!("route add default via 10.2{number}.0.1"));
        let to = format!("{pool}:1024-65535");
        for words in [
            "add table ip pool",
            "add chain ip pool out { type nat hook postrouting priority 100 ; }",
            &format!(
                "add rule ip pool out ip saddr 10.1.0.0/16 ip protocol {{ tcp, udp }} snat to {to}"
            ),
        ] {
            translator.run("nft", &[words]);
        }
        Self { name, number, pool, router, _translator: translator }
    }

    /// The configuration, but for the first table's keys: the sites differ in where users come in, and in
    /// what leads to the other one.
    fn config(&self, between: Between, folder: &Path, plugins: &Path) -> String {
        let Self { name, number, .. } = self;
        let (other, other_number) = if *number == 1 { ("fra", 2) } else { ("ams", 1) };
        let users = if *number == 1 { "users0" } else { "core0" };
        let way = match between {
            Between::Link => format!("via = \"10.9.0.{other_number}\""),
            Between::Tunnel => format!("node = \"{other}\""),
        };
        let interfaces: String = ["wan0", "pool0", "core0"]
            .iter()
            .chain((*number == 1).then_some(&"users0"))
            .map(|interface| {
                let role = if *interface == "wan0" { "outside" } else { "inside" };
                format!(
                    "[[interface]]\nname = \"{interface}\"\nrole = \"{role}\"\nxdp = \"native\"\n"
                )
            })
            .collect();
        let egress: String = [("ams", POOL_AMS), ("fra", POOL_FRA)]
            .iter()
            .map(|(node, pool)| {
                let owner = if node == name { "owner = \"pool\"\n" } else { "" };
                format!(
                    "[[egress]]\nprefix = \"{pool}/32\"\ndefault = \"drop\"\n[[egress.slice]]\n\
                     ports = \"1024-65535\"\nnode = \"{node}\"\n{owner}"
                )
            })
            .collect();
        format!(
            r#"
            node = "{name}"
            poll = "adaptive"
            [workers]
            cores = [0]
            {interfaces}
            [[node]]
            name = "ams"
            address = "10.9.0.1"
            [[node]]
            name = "fra"
            address = "10.9.0.2"
            [[owner]]
            name = "pool"
            node = "{name}"
            deliver = {{ next_hop = "10.2{number}.0.2", interface = "pool0" }}
            {egress}
            [[next_hop]]
            name = "own-pool"
            via = "10.2{number}.0.2"
            [[next_hop]]
            name = "to-{other}"
            {way}
            [[egress_tag]]
            name = "{name}"
            next_hops = ["own-pool"]
            [[egress_tag]]
            name = "{other}"
            next_hops = ["to-{other}"]
            [[plugin]]
            name = "egress-tags"
            path = "{plugins}/egress-tags.wasm"
            hook = "forward"
            grants = ["names", "table", "tag"]
            tables = {{ countries = "{folder}/countries", trust = "{folder}/trust", products = "{folder}/products" }}
            [plugin.config]
            site_tag = "{name}"
            interfaces = [{{ name = "{users}" }}]
            rules = [
                {{ trust = ["low"], tag = "{name}" }},
                {{ country = ["de"], tag = "fra" }},
                {{ country = ["nl"], tag = "ams" }},
            ]
            "#,
            plugins = plugins.display(),
            folder = folder.display(),
        )
    }

    fn start(&self, between: Between, folder: &Path, plugins: &Path) -> Router {
        // The first line is a key of `[router]`.
        Router::start_from(&[], &self.router, "", &self.config(between, folder, plugins))
    }
}

/// Two sites, a user and the world.
struct Net {
    ams: Site,
    fra: Site,
    user: Namespace,
    world: Namespace,
}

impl Net {
    fn new() -> Self {
        let (ams, fra) = (Site::new("ams", 1, POOL_AMS), Site::new("fra", 2, POOL_FRA));
        let (user, world) = (Namespace::new("user"), Namespace::new("world"));
        let core = ((&ams.router, "core0"), (&fra.router, "core0"));
        link(
            (core.0.0, core.0.1, "02:00:00:00:09:01"),
            (core.1.0, core.1.1, "02:00:00:00:09:02"),
            1500,
        );
        link(
            (&ams.router, "users0", "02:00:00:00:01:11"),
            (&user, "eth0", "02:00:00:00:01:12"),
            1500,
        );
        for site in [&ams, &fra] {
            let n = site.number;
            link(
                (&site.router, "wan0", &format!("02:00:00:00:0{n}:21")),
                (&world, &format!("eth{n}"), &format!("02:00:00:00:0{n}:22")),
                1500,
            );
            site.router.ip(&format!("address add 10.3{n}.0.1/24 dev wan0"));
            site.router.ip(&format!("address add 10.9.0.{n}/24 dev core0"));
            site.router.ip(&format!("route add default via 10.3{n}.0.2"));
            world.ip(&format!("address add 10.3{n}.0.2/24 dev eth{n}"));
            world.ip(&format!("route add {}/32 via 10.3{n}.0.1", site.pool));
        }
        world.ip(&format!("address add {WORLD}/32 dev lo"));
        ams.router.ip("address add 10.1.0.1/24 dev users0");
        // Answers to users go to the site that they came in by.
        fra.router.ip("route add 10.1.0.0/24 via 10.9.0.1");
        for address in [GERMAN, DUTCH, ELSEWHERE, SUSPECT] {
            user.ip(&format!("address add {address}/24 dev eth0"));
        }
        user.ip("route add default via 10.1.0.1");
        Self { ams, fra, user, world }
    }

    /// Has the world tell everybody who asks what address it sees.
    fn serve(&self) {
        let https = self.world.within(|| TcpListener::bind((WORLD, 443))).expect("a listener");
        std::thread::spawn(move || {
            while let Ok((mut stream, from)) = https.accept() {
                let _ = stream.write_all(from.ip().to_string().as_bytes());
            }
        });
        for port in [53, 4433] {
            let socket = self.world.within(|| UdpSocket::bind((WORLD, port))).expect("a socket");
            std::thread::spawn(move || {
                let mut query = [0; 512];
                while let Ok((_, from)) = socket.recv_from(&mut query) {
                    let _ = socket.send_to(from.ip().to_string().as_bytes(), from);
                }
            });
        }
    }

    /// The address that the world sees of a connection from this address of the user.
    #[track_caller]
    fn https(&self, from: &str) -> String {
        let stream = self.user.within(|| {
            let socket = socket_from(from);
            TcpStream::from(socket)
        });
        let mut stream = stream;
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    }

    /// The same of datagrams to a port, the first of which may be lost while neighbors are asked for.
    #[track_caller]
    fn udp(&self, from: &str, port: u16) -> String {
        let socket = self.user.within(|| UdpSocket::bind((from, 0))).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE / 10)).expect("a timeout");
        let mut buffer = [0; 64];
        for _ in 0..10 {
            socket.send_to(b"who am I?", (WORLD, port)).expect("a datagram");
            if let Ok((len, _)) = socket.recv_from(&mut buffer) {
                return String::from_utf8_lossy(&buffer[..len]).into_owned();
            }
        }
        panic!("no answer to {from} from port {port}");
    }
}

/// A connection to the world from an address. The standard library cannot choose one's own.
#[track_caller]
fn socket_from(from: &str) -> std::os::fd::OwnedFd {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket,
    };
    use std::os::fd::AsRawFd;
    let address = |ip: &str, port| {
        let ip: IpAddr = ip.parse().expect("an address");
        SockaddrStorage::from(SocketAddr::new(ip, port))
    };
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
    let socket = socket.expect("a socket");
    bind(socket.as_raw_fd(), &address(from, 0)).expect("bound");
    connect(socket.as_raw_fd(), &address(WORLD, 443)).expect("a connection");
    socket
}

/// Packets that a router counted for an egress tag.
#[track_caller]
fn tagged(router: &Router, tag: &str) -> u64 {
    let status = router.status();
    let mut rows = status.actions.iter().filter(|row| row.kind == "egress-tag");
    rows.find(|row| row.name == tag).expect("the tag").packets
}

/// Everything that the sites need; nothing, said aloud, where they cannot be had.
fn set_the_stage(test: &str) -> Option<(PathBuf, tempfile::TempDir, Net)> {
    if !net::available(test) {
        return None;
    }
    let Some(plugins) = common::plugins() else {
        eprintln!("skipped: {test}: no plugins (cargo xtask plugins)");
        return None;
    };
    if Command::new("nft").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: {test}: nft is not installed");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, lines: &str| fs::write(folder.path().join(name), lines);
    write("countries", COUNTRIES).expect("a file");
    write("trust", "10.1.0.66 low\n").expect("a file");
    write("products", "").expect("a file");
    let net = Net::new();
    net.serve();
    Some((plugins, folder, net))
}

#[test]
fn a_user_of_one_country_who_enters_at_another_site_leaves_by_his_own() {
    let Some((plugins, folder, net)) = set_the_stage("egress tags at two sites") else { return };
    let ams = net.ams.start(Between::Link, folder.path(), &plugins);
    let fra = net.fra.start(Between::Link, folder.path(), &plugins);

    // A German who came in at Amsterdam: the world sees Frankfurt's address, and he gets his answer.
    assert_eq!(net.https(GERMAN), POOL_FRA);
    assert_eq!(net.udp(GERMAN, 4433), POOL_FRA);
    let (to_fra, by_ams) = (tagged(&ams, "fra"), tagged(&ams, "ams"));
    assert!(to_fra >= 4, "a handshake, an end and a datagram: {to_fra}");
    assert_eq!(by_ams, 0);
    assert_eq!(tagged(&fra, "fra"), to_fra, "all that came is translated there");

    // His DNS leaves where he is.
    assert_eq!(net.udp(GERMAN, 53), POOL_AMS);
    assert_eq!((tagged(&ams, "fra"), tagged(&fra, "fra")), (to_fra, to_fra));
    assert!(tagged(&ams, "ams") >= 1);

    // Others, at the same time and interface.
    assert_eq!(net.https(DUTCH), POOL_AMS);
    assert_eq!(net.https(ELSEWHERE), POOL_AMS, "no rule is his: the site's tag");
    assert_eq!(net.https(SUSPECT), POOL_AMS, "the first rule that matches decides");
    assert_eq!(tagged(&ams, "fra"), to_fra);

    // Guests' counters are copied ten times a second.
    let total = || ams.json(&["status"])["plugins"][0]["total"].clone();
    let own = |name: &str| total()["counters"][name].as_u64().unwrap_or_default();
    wait_until("its rules' hits are counted", PATIENCE, || own("rule-hits[1]") == to_fra);
    wait_until("and the others'", PATIENCE, || {
        own("dns") >= 1
            && own("rule-hits[0]") >= 4
            && own("rule-hits[2]") >= 4
            && own("no-rule") >= 4
    });
    assert_eq!(own("no-rule"), own("unknown-country"));
    let total = total();
    assert_eq!((&total["bad_verdicts"], &total["traps"]), (&0.into(), &0.into()), "{total}");

    // He moves: once the file says so, both his new connections leave by Amsterdam.
    let moved = "10.1.0.2 nl\n10.1.0.3 de\n10.1.0.66 de\n";
    fs::write(folder.path().join("countries"), moved).expect("a file");
    wait_until("the new table is in force", PATIENCE, || net.https(GERMAN) == POOL_AMS);
    assert_eq!(net.https(DUTCH), POOL_FRA);

    // The way to Frankfurt is gone: a tag without a next hop changes nothing, and the route decides.
    let explained = |text: &str| ams.json(&["explain", "--in", "users0", text]);
    let packet = "tcp 10.1.0.3:5000 > 198.51.100.7:443 syn";
    let before = explained(packet);
    assert_eq!(before["packet"]["verdict"]["interface"], "core0", "{before}");
    net.ams.router.ip("link set core0 down");
    wait_until("the tag is out of force", PATIENCE, || {
        explained(packet)["packet"]["verdict"]["interface"] == "wan0"
    });
    net.ams.router.ip("link set core0 up");
    wait_until("the tag is in force again", PATIENCE, || {
        explained(packet)["packet"]["verdict"]["interface"] == "core0"
    });
    wait_until("the way is used again", PATIENCE, || net.https(DUTCH) == POOL_FRA);
    ams.assert_conserved();
    fra.assert_conserved();
}

/// The same where the sites are far from each other, with a tunnel between them.
#[test]
fn the_way_to_his_own_site_is_a_tunnel() {
    let test = "egress tags through a tunnel";
    let Some((plugins, folder, net)) = set_the_stage(test) else { return };
    let ams = net.ams.start(Between::Tunnel, folder.path(), &plugins);
    let fra = net.fra.start(Between::Tunnel, folder.path(), &plugins);
    let entered =
        |router: &Router| router.status().interfaces.iter().map(|on| on.to_owner).sum::<u64>();
    let came_out = |router: &Router| -> u64 {
        router.status().interfaces.iter().map(|on| on.decapsulated).sum()
    };
    assert_eq!(net.https(GERMAN), POOL_FRA);
    assert_eq!(net.udp(GERMAN, 4433), POOL_FRA);
    let to_fra = tagged(&ams, "fra");
    assert!(to_fra >= 4, "a handshake, an end and a datagram: {to_fra}");
    assert_eq!(entered(&ams), to_fra, "each went into the tunnel");
    assert_eq!(came_out(&fra), to_fra);
    assert_eq!(tagged(&fra, "fra"), to_fra, "all that came is translated there");
    assert_eq!((net.https(DUTCH), net.udp(GERMAN, 53)), (POOL_AMS.into(), POOL_AMS.into()));
    assert_eq!(entered(&ams), to_fra);

    // Packets of the tunnel are smaller than the link's, and senders learn it.
    let packet = "udp 10.1.0.2:5000 > 198.51.100.7:4433";
    let explained = |text: &str| ams.json(&["explain", "--in", "users0", text]);
    let known = explained(packet);
    assert_eq!(known["packet"]["verdict"]["interface"], "core0", "{known}");
    let words = "by egress tag fra, whatever routes say: through the tunnel to node fra (10.9.0.2)";
    assert!(known.to_string().contains(words), "{known}");
    let known = explained(&format!("{packet} length 1500 df"));
    assert_eq!(known["packet"]["verdict"]["reason"], "mtu-exceeded", "{known}");
    let is_usable = || {
        let mut rows = ams.status().actions.into_iter().filter(|row| row.kind == "egress-tag");
        rows.find(|row| row.name == "fra").expect("the tag").usable
    };
    assert_eq!(is_usable(), Some(true));

    // There is no way to the tunnel's end, as this is longer than the link's own prefix: the route decides.
    net.ams.router.ip("route add unreachable 10.9.0.2/32");
    wait_until("the tunnel has no way", PATIENCE, || is_usable() == Some(false));
    let known = explained(packet);
    assert_eq!(known["packet"]["verdict"]["interface"], "wan0", "{known}");
    assert!(!known.to_string().contains("through the tunnel"), "{known}");
    ams.assert_conserved();
    fra.assert_conserved();
}

/// The numbers of names are in the tables when the plugins that know them are, and as long: while tags are
/// renamed again and again under traffic, no verdict names a tag that there is none of.
#[test]
fn renamed_tags_give_no_bad_verdict() {
    const TEST: &str = "reloads with new names";
    const RELOADS: u32 = 40;
    if !net::available(TEST) {
        return;
    }
    let Some(plugins) = common::plugins() else {
        eprintln!("skipped: {TEST}: no plugins (cargo xtask plugins)");
        return;
    };
    let links = TwoLinks::new();
    let folder = tempfile::tempdir().expect("a folder");
    for table in ["countries", "trust", "products"] {
        fs::write(folder.path().join(table), "").expect("a file");
    }
    let config = |tag: &str| {
        let mut text = "[workers]\ncores = [0]\n".to_owned();
        for (interface, role) in INTERFACES {
            text += &format!("[[interface]]\nname = \"{interface}\"\nrole = \"{role}\"\n");
        }
        text + &format!(
            r#"
            [[neighbor]]
            address = "10.0.0.1"
            interface = "wan0"
            mac = "02:00:00:00:00:aa"
            [[route]]
            prefix = "0.0.0.0/0"
            via = "10.0.0.1"
            [[next_hop]]
            name = "hop-{tag}"
            via = "10.0.0.1"
            [[egress_tag]]
            name = "{tag}"
            next_hops = ["hop-{tag}"]
            [[plugin]]
            name = "egress-tags"
            path = "{plugins}/egress-tags.wasm"
            hook = "forward"
            grants = ["names", "table", "tag"]
            tables = {{ countries = "{folder}/countries", trust = "{folder}/trust", products = "{folder}/products" }}
            config = {{ site_tag = "{tag}", interfaces = [{{ name = "lan0" }}] }}
            "#,
            plugins = plugins.display(),
            folder = folder.path().display(),
        )
    };
    let sluice = Router::start_from(&[], &links.space, "poll = \"busy\"", &config("tag-0"));
    let file = sluice.file("sluice.toml");
    let head = fs::read_to_string(&file).expect("a file");
    let head = head.split("[workers]").next().expect("the first table").to_owned();
    let frame = udp_frame(
        LAN_MAC,
        ([10, 1, 0, 5].into(), 1000),
        ([198, 51, 100, 7].into(), 53),
        b"a packet",
    );
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for _ in 0..32 {
                    links.tap.send(LAN, &frame);
                }
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        for n in 1..=RELOADS {
            fs::write(&file, head.clone() + &config(&format!("tag-{n}"))).expect("written");
            sluice.reload();
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let status = sluice.json(&["status"]);
    let total = &status["plugins"][0]["total"];
    let packets = total["packets"].as_u64().expect("a number");
    assert!(packets > u64::from(RELOADS) * 10, "traffic went on: {packets}");
    assert_eq!(total["bad_verdicts"], 0, "of {packets} packets");
    assert_eq!(total["edited"], packets, "each was tagged");
    sluice.assert_conserved();
}
