//! Fragments end to end: sockets of Linux on both sides of a running router with two queues, whose
//! fragments it gives to the owner of their slice and lets out again. In network namespaces that the
//! test makes; skipped without root.
//!
//! ```text
//!  world  wan0p ---- wan0  router  lan0 ---- lan0p  web
//!  10.0.0.1, fd00::1                      10.1.0.2, fd01::2; 192.0.2.1, 2001:db8:5::1 on lo
//! ```
//!
//! A kernel sends all fragments of a datagram on the queue of their socket. The worker that follows them is
//! another one for half of all datagrams, since it goes by the identification.

#[path = "common/net/mod.rs"]
mod net;

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use control::status::InterfaceStatus;
use net::{Namespace, Router, link_of_queues};

/// How long the first answer may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[workers]
cores = [0, 1]
[[interface]]
name = "wan0"
role = "outside"
[[interface]]
name = "lan0"
role = "inside"
[[node]]
name = "a"
address = "10.0.0.11"
[[owner]]
name = "web"
node = "a"
deliver = { next_hop = "10.1.0.2", interface = "lan0" }
[[owner]]
name = "web6"
node = "a"
deliver = { next_hop = "fd01::2", interface = "lan0" }
[[egress]]
prefix = "192.0.2.1/32"
default = "drop"
[[egress.slice]]
ports = "1024-33791"
node = "a"
owner = "web"
[[egress]]
prefix = "2001:db8:5::1/128"
default = "drop"
[[egress.slice]]
ports = "1024-33791"
node = "a"
owner = "web6"
"#;

/// Three namespaces and the router in the middle one.
struct Site {
    sluice: Router,
    world: Namespace,
    _router: Namespace,
    web: Namespace,
}

impl Site {
    fn new(test: &str, poll: &str, lan_mtu_bytes: u32) -> Option<Self> {
        if !net::available(test) {
            return None;
        }
        let [world, web] = ["world", "web"].map(Namespace::new);
        let router = Namespace::new("router").forwards();
        for (interface, number, other, mtu_bytes) in
            [("wan0", 0, &world, 1500), ("lan0", 1, &web, lan_mtu_bytes)]
        {
            let peer = format!("{interface}p");
            let [ours, theirs] = ["a", "b"].map(|side| format!("02:00:00:00:00:{side}{number}"));
            let ends = [(&router, interface, &*ours), (other, &*peer, &*theirs)];
            link_of_queues(ends[0], ends[1], mtu_bytes, 2);
        }
        for (namespace, words) in [
            (&router, "address add 10.0.0.11/24 dev wan0"),
            (&router, "address add fd00::11/64 dev wan0"),
            (&router, "address add 10.1.0.1/24 dev lan0"),
            (&router, "address add fd01::1/64 dev lan0"),
            (&router, "route add default via 10.0.0.1"),
            (&router, "route add default via fd00::1"),
            (&world, "address add 10.0.0.1/24 dev wan0p"),
            (&world, "address add fd00::1/64 dev wan0p"),
            (&world, "route add 192.0.2.1 via 10.0.0.11"),
            (&world, "route add 2001:db8:5::1 via fd00::11"),
            (&web, "address add 10.1.0.2/24 dev lan0p"),
            (&web, "address add fd01::2/64 dev lan0p"),
            (&web, "address add 192.0.2.1/32 dev lo"),
            (&web, "address add 2001:db8:5::1/128 dev lo"),
            (&web, "route add default via 10.1.0.1"),
            (&web, "route add default via fd01::1"),
        ] {
            namespace.ip(words);
        }
        let keys = format!("node = \"a\"\npoll = \"{poll}\"");
        let sluice = Router::start_from(&[], &router, &keys, CONFIG);
        Some(Self { sluice, world, _router: router, web })
    }

    /// The sum of a counter over both interfaces.
    fn sum(&self, counter: impl Fn(&InterfaceStatus) -> u64) -> u64 {
        self.sluice.status().interfaces.iter().map(counter).sum()
    }

    /// How many of `count` datagrams of this size come back from an echo at the slice, each as it went.
    fn echoes(&self, at: SocketAddr, count: u32, size: usize) -> u32 {
        let stop = AtomicBool::new(false);
        let (ready, is_ready) = mpsc::channel();
        let serve = || {
            let socket = UdpSocket::bind(at).expect("a socket");
            socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            ready.send(()).expect("the test waits");
            let mut buffer = vec![0; 65_536];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    // A peer that is not reachable yet will ask again.
                    let _ = socket.send_to(&buffer[..len], from);
                }
            }
        };
        let ask = || {
            let any = if at.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).expect("a socket");
            socket.connect(at).expect("a route");
            socket.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
            let mut buffer = vec![0; 65_536];
            let deadline = Instant::now() + PATIENCE;
            // Until the neighbors are resolved.
            while !matches!(exchange(&socket, 0, 100, &mut buffer), Ok(true)) {
                if Instant::now() > deadline {
                    return None;
                }
            }
            let exchange =
                |number| matches!(exchange(&socket, number, size, &mut buffer), Ok(true));
            Some((1..=count).map(exchange).map(u32::from).sum())
        };
        thread::scope(|scope| {
            scope.spawn(|| self.web.within(serve));
            is_ready.recv().expect("the server runs");
            let _stop = Stop(&stop);
            self.world.within(ask).expect("at least a small packet comes back")
        })
    }

    /// Everything received is accounted for, and nothing for a reason that fragments must not meet here.
    fn check(&self) {
        self.sluice.assert_conserved();
        for reason in [
            "slice-fragment",
            "fragment-overlap",
            "fragment-malformed",
            "fragment-full",
            "handoff-full",
        ] {
            assert_eq!(self.sluice.drops(reason), 0, "{reason}");
        }
    }
}

/// Ends the server when the client is done, also by a panic.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The datagram with this number, which stands at its start.
fn datagram(number: u32, size: usize) -> Vec<u8> {
    let body = (4..size).map(|at| (at as u32 * 7 + at as u32 / 256 + number) as u8);
    number.to_be_bytes().into_iter().chain(body).collect()
}

/// Sends a datagram and waits for it to come back, past late answers to those before it. Whatever comes
/// must be what was sent.
fn exchange(
    socket: &UdpSocket,
    number: u32,
    size: usize,
    buffer: &mut [u8],
) -> std::io::Result<bool> {
    socket.send(&datagram(number, size))?;
    loop {
        let len = socket.recv(buffer)?;
        let came = u32::from_be_bytes(buffer[..4].try_into().expect("4 bytes"));
        assert!(buffer[..len] == datagram(came, len), "a datagram was changed on its way");
        if came == number {
            return Ok(len == size);
        }
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn datagrams_in_fragments_reach_their_slice_and_come_back() {
    let Some(site) = Site::new("fragments to a slice", "adaptive", 1500) else { return };
    for at in ["192.0.2.1:2000", "[2001:db8:5::1]:2000"] {
        // Copy-mode transmission on veth loses a packet in a hundred, and each datagram is twelve.
        let came = site.echoes(address(at), 60, 8000);
        eprintln!("{came} of 60 datagrams came back from {at}");
        assert!(came >= 30, "{came} of 60 datagrams came back from {at}");
    }
    assert!(site.sum(|of| of.handed_over) > 100, "about half of all fragments");
    for destination in ["192.0.2.1", "2001:db8:5::1"] {
        let mut ping = Command::new("ping");
        ping.args("-q -c 20 -i 0.05 -W 1 -s 4000 -e 2000".split(' ')).arg(destination);
        let answered = site.world.spawn(&mut ping).wait().expect("ping ends").success();
        assert!(answered, "no answer from {destination}");
    }
    site.check();
}

#[test]
fn fragments_too_large_for_the_next_link_are_fragmented_again() {
    let Some(site) = Site::new("fragments fragmented again", "busy", 1400) else { return };
    let came = site.echoes(address("192.0.2.1:2000"), 60, 8000);
    assert!(came >= 30, "{came} of 60 datagrams came back");
    let created = site.sum(|of| of.fragments_created);
    assert!(created >= 30 * 10, "five of six fragments are too large: {created}");
    assert_eq!(created, site.sum(|of| of.fragmented) * 2);
    site.check();
}
