//! Whatever is done to the network around a running router: once the network is whole again, every packet
//! arrives.
//!
//! ```text
//!  lan (Linux) --- lan0 [router] wan0 --- wan (Linux), with networks behind it
//! ```
//!
//! Each round does some of what operators, drivers and neighbors do, drawn from a seed: links go down, addresses
//! and link-layer addresses change, routes are replaced, entries of neighbors flushed or pinned to nonsense. Then
//! all of it is undone, and every destination must answer before long. Skipped without root. The ordinary run is
//! short; `SLUICE_CHAOS_S=600 SLUICE_CHAOS_SEED=7` makes it longer and different:
//! `cargo test --release --workspace --test chaos -- --nocapture`

#[path = "common/net/mod.rs"]
mod net;
#[path = "differential/packet.rs"]
#[allow(dead_code, reason = "the differential test needs more of it")]
mod packet;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use net::{Namespace, Router, link, wait_until};
use nix::sys::signal::Signal;
use packet::Random;

/// Seconds of rounds in the ordinary run.
const SECONDS: u64 = 20;

/// How long a network may take until it works again. Linux itself needs 5 s to doubt a neighbor that moved
/// without a word, and some more to ask.
const PATIENCE: Duration = Duration::from_secs(30);

/// The interfaces of the router, with the far ends.
const LINKS: [(&str, &str); 2] = [("wan0", "wan0p"), ("lan0", "lan0p")];

/// Where the lan sends to; the other way it is the first four of the lan's own addresses.
const OUTWARDS: [&str; 8] = [
    "10.0.0.2",
    "fd00::2",
    "10.0.0.3",
    "fd00::3",
    "198.51.100.1",
    "2001:db8:9::1",
    "198.51.101.1",
    "2001:db8:a::1",
];
const INWARDS: [&str; 4] = ["10.1.0.2", "fd01::2", "10.1.0.3", "fd01::3"];

/// The router's routes: through one next hop, and through two.
const ROUTES: [(&str, &str); 4] = [
    ("198.51.100.0/24", "via 10.0.0.2"),
    ("2001:db8:9::/48", "via fd00::2"),
    ("198.51.101.0/24", "nexthop via 10.0.0.2 nexthop via 10.0.0.3"),
    ("2001:db8:a::/48", "nexthop via fd00::2 nexthop via fd00::3"),
];

/// The next hops on the outside.
const HOPS: [&str; 4] = ["10.0.0.2", "fd00::2", "10.0.0.3", "fd00::3"];

struct World {
    router: Namespace,
    wan: Namespace,
    lan: Namespace,
    random: Random,
}

impl World {
    fn new(seed: u64) -> Self {
        let (wan, lan) = (Namespace::new("wan"), Namespace::new("lan"));
        let router = Namespace::new("router").forwards();
        for (namespace, key) in [(&router, "all"), (&router, "default")] {
            // Otherwise a link that goes down takes the addresses along in one family alone.
            namespace.sysctl(&format!("ipv6/conf/{key}/keep_addr_on_down"), "1");
        }
        for ((near, far), other) in LINKS.into_iter().zip([&wan, &lan]) {
            link((&router, near, &mac(near)), (other, far, &mac(far)), 1500);
        }
        let world = Self { router, wan, lan, random: Random(seed) };
        world.mend();
        world
    }

    /// Everything as it should be.
    fn mend(&self) {
        for ((near, far), other) in LINKS.into_iter().zip([&self.wan, &self.lan]) {
            for (namespace, interface) in [(&self.router, near), (other, far)] {
                let mac = mac(interface);
                namespace.ip(&format!("link set {interface} mtu 1500 address {mac} up"));
            }
        }
        for (namespace, address, interface) in self.addresses() {
            namespace.ip(&format!("address replace {address} dev {interface}"));
        }
        for (namespace, gateways) in
            [(&self.wan, ["10.0.0.1", "fd00::1"]), (&self.lan, ["10.1.0.1", "fd01::1"])]
        {
            for gateway in gateways {
                namespace.ip(&format!("route replace default via {gateway}"));
            }
        }
        for (prefix, path) in ROUTES {
            self.router.ip(&format!("route replace {prefix} {path}"));
        }
        for hop in HOPS {
            if self.router.ip(&format!("neighbor show {hop} dev wan0")).contains("PERMANENT") {
                self.router.ip(&format!("neighbor del {hop} dev wan0"));
            }
        }
    }

    fn addresses(&self) -> Vec<(&Namespace, String, &'static str)> {
        let mut all = Vec::new();
        for (host, far, near, namespace) in
            [(0, "wan0p", "wan0", &self.wan), (1, "lan0p", "lan0", &self.lan)]
        {
            for number in [1, 2, 3] {
                let (of, on) = if number == 1 { (&self.router, near) } else { (namespace, far) };
                all.push((of, format!("10.{host}.0.{number}/24"), on));
                all.push((of, format!("fd0{host}::{number}/64"), on));
            }
        }
        for address in &OUTWARDS[4..] {
            let bits = if address.contains(':') { 128 } else { 32 };
            all.push((&self.wan, format!("{address}/{bits}"), "lo"));
        }
        all
    }

    /// Does some harm, and says which.
    fn harm(&mut self, sluice: &Router) -> String {
        let random = &mut self.random;
        let (near, far) = *random.of(&LINKS);
        let other = if near == "wan0" { &self.wan } else { &self.lan };
        let (prefix, _) = *random.of(&ROUTES);
        let hop = *random.of(&HOPS);
        let draw = random.below(usize::MAX);
        let any_mac = format!("02:00:00:00:0c:{:02x}", random.below(256));
        let (namespace, words) = match random.below(15) {
            0 => (&self.router, format!("link set {near} down")),
            1 => (other, format!("link set {far} down")),
            2 => (&self.router, format!("link set {near} address {any_mac}")),
            3 => (other, format!("link set {far} address {any_mac}")),
            4 => (&self.router, format!("neighbor flush dev {near}")),
            5 => (
                &self.router,
                format!("neighbor replace {hop} lladdr {any_mac} dev wan0 nud permanent"),
            ),
            6 => (&self.router, format!("neighbor del {hop} dev wan0")),
            7 => (&self.router, format!("route del {prefix}")),
            8 => (&self.router, format!("route replace blackhole {prefix}")),
            9 => {
                let nowhere = if prefix.contains(':') { "fd00::99" } else { "10.0.0.99" };
                (&self.router, format!("route replace {prefix} via {nowhere}"))
            }
            10 => {
                let mtu = random.of(&[1280, 1400, 9000]);
                (&self.router, format!("link set {near} mtu {mtu}"))
            }
            11 => {
                let addresses = self.addresses();
                let (namespace, address, interface) = &addresses[draw % addresses.len()];
                let words = format!("address del {address} dev {interface}");
                try_ip(namespace, &words);
                return words;
            }
            12 => {
                let destination = *random.of(&OUTWARDS);
                let from = if draw.is_multiple_of(2) { &self.router } else { &self.lan };
                reaches(from, destination);
                return format!("a ping to {destination}");
            }
            13 => {
                sluice.signal(Signal::SIGHUP);
                return "SIGHUP".to_owned();
            }
            _ => {
                let time = Duration::from_millis(*random.of(&[10, 100, 1000, 4000]));
                std::thread::sleep(time);
                return format!("{time:?}");
            }
        };
        try_ip(namespace, &words);
        words
    }
}

/// What was undone already, or is not there, need not be undone again.
fn try_ip(namespace: &Namespace, words: &str) {
    let mut command = Command::new("ip");
    command.args(["-n", namespace.name()]).args(words.split(' '));
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn mac(interface: &str) -> String {
    let number = LINKS.iter().flat_map(|(near, far)| [near, far]).position(|of| *of == interface);
    format!("02:00:00:00:0a:{:02x}", number.expect("one of them"))
}

fn reaches(from: &Namespace, destination: &str) -> bool {
    let mut ping = Command::new("ping");
    ping.args(["-q", "-c", "1", "-W", "1", destination])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    from.spawn(&mut ping).wait().expect("ping ends").success()
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

#[test]
fn a_network_that_is_whole_again_works_again() {
    if !net::available("chaos") {
        return;
    }
    let seed = from_environment("SLUICE_CHAOS_SEED", 1);
    let end = Instant::now() + Duration::from_secs(from_environment("SLUICE_CHAOS_S", SECONDS));
    let mut world = World::new(seed);
    let sluice = Router::start(&world.router, &[("wan0", "outside"), ("lan0", "inside")], "");
    let mut rounds = 0;
    let mut slowest = Duration::ZERO;
    while Instant::now() < end {
        let harms: Vec<String> = (0..=world.random.below(5)).map(|_| world.harm(&sluice)).collect();
        world.mend();
        rounds += 1;
        let start = Instant::now();
        let outwards = OUTWARDS.iter().map(|destination| (&world.lan, *destination));
        let inwards = INWARDS.iter().map(|destination| (&world.wan, *destination));
        let mut missing: Vec<(&Namespace, &str)> = outwards.chain(inwards).collect();
        while !missing.is_empty() {
            missing.retain(|(from, destination)| !reaches(from, destination));
            assert!(
                start.elapsed() < PATIENCE || missing.is_empty(),
                "seed {seed}, round {rounds}: no answer from {:?} after {harms:?}\n{}\n{:?}",
                missing.iter().map(|(_, destination)| destination).collect::<Vec<_>>(),
                world.router.ip("neighbor show"),
                sluice.status().neighbors,
            );
        }
        slowest = slowest.max(start.elapsed());
    }
    println!("{rounds} rounds, the slowest whole again after {slowest:?}");
    wait_until("all packets are accounted for", PATIENCE, || {
        sluice.status().workers.iter().all(|worker| worker.frames.held == 0)
    });
    sluice.assert_conserved();
}
