//! FRR beside the router, under traffic: routes that it learns over BGP and installs by nexthop objects of the
//! kernel, and peers on links without addresses, whose IPv4 routes have IPv6 next hops (RFC 8950).
//!
//! `common/feed` says how it is judged where packets of the first test arrive; a BIRD feeds it. The others:
//! ```text
//!  sender ---- lan0 [ router: sluice, FRR ] wan0 ---- eth0 [ peer 0: FRR ]   each announces a prefix of its
//!                                           wan1 ---- eth0 [ peer 1: FRR ]   own, and both announce another
//! ```

#[path = "common/feed/mod.rs"]
mod feed;
#[path = "common/net/mod.rs"]
mod net;
#[allow(dead_code, reason = "the differential test needs more of it")]
#[path = "differential/packet.rs"]
mod packet;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use feed::{BACKUP, Bed, FLAPPING, Feeder, Frr, Table, WITHDRAWN, has_bird, has_frr, normal};
use net::{Captured, Namespace, Router, Tap, wait_until};
use packet::ROUTER_MAC;

const PATIENCE: Duration = Duration::from_secs(40);

/// Objects that no route needs any more go after a second; by default zebra keeps them for three minutes.
const ZEBRA: &str = "zebra nexthop-group keep 1\n";

/// From the feeder into the kernel.
const BGPD: &str = "
router bgp 64500
 bgp router-id 10.9.0.1
 no bgp ebgp-requires-policy
 neighbor 10.9.0.2 remote-as 64501
 neighbor 2001:db8:9::2 remote-as 64501
 address-family ipv4 unicast
  no neighbor 2001:db8:9::2 activate
 exit-address-family
 address-family ipv6 unicast
  neighbor 2001:db8:9::2 activate
 exit-address-family
";

/// Learnt, flapped, withdrawn and learnt again, with a crash of FRR in the middle.
#[test]
fn routes_of_frr_under_traffic() {
    const TEST: &str = "routes of FRR";
    if !net::available(TEST) || !has_frr(TEST) || !has_bird(TEST) {
        return;
    }
    let table = Table::read(300);
    let mut bed = Bed::new();
    let sluice = bed.sluice();
    let before = sluice.status().routes;
    let traffic = bed.send_to(&table, 600);
    let feeder = Feeder::start(&bed.feeder, &table);
    let mut frr = Frr::start(&bed.router, &[("zebra", ZEBRA), ("bgpd", BGPD)]);
    bed.wait_for_all(&sluice, &table, &before, PATIENCE, &|| frr.say("bgpd", "show bgp summary"));
    bed.settle(&traffic, &sluice, normal(), PATIENCE);
    let all = sluice.status().routes;
    assert!(bed.router.ip("route").contains("nhid"), "FRR installs routes by objects");

    // Objects come and go with the next hop that flaps. No link changes: nothing is read again for them.
    let mut moved = normal();
    moved[FLAPPING] = Some(BACKUP);
    traffic.begin(normal(), moved);
    feeder.disable(FLAPPING);
    bed.settle(&traffic, &sluice, moved, PATIENCE);
    let flapping = format!("via 10.1.0.{} ", 10 + FLAPPING);
    wait_until("zebra to delete the object", PATIENCE, || {
        !bed.router.ip("nexthop").contains(&flapping)
    });
    traffic.begin(moved, normal());
    feeder.enable(FLAPPING);
    bed.settle(&traffic, &sluice, normal(), PATIENCE);
    assert_eq!(sluice.status().routes.mirror.resyncs, all.mirror.resyncs);

    // FRR crashes. zebra finds its routes in the kernel when it starts again, and keeps them for the time that
    // bgpd needs to learn them anew; what is withdrawn meanwhile, it sweeps then. (When zebra alone starts again,
    // bgpd 8.4 tells it nothing of what it told before.)
    let mut less = normal();
    less[WITHDRAWN] = None;
    traffic.begin(normal(), less);
    frr.kill("bgpd");
    frr.kill("zebra");
    feeder.disable(WITHDRAWN);
    frr.start_daemon(&bed.router, "zebra", &["-K", "10"]);
    frr.start_daemon(&bed.router, "bgpd", &[]);
    bed.settle(&traffic, &sluice, less, PATIENCE);
    traffic.begin(less, normal());
    feeder.enable(WITHDRAWN);
    bed.settle(&traffic, &sluice, normal(), PATIENCE);
    wait_until("the same routes as before", PATIENCE, || {
        let again = sluice.status().routes;
        (again.v4, again.v6) == (all.v4, all.v6)
    });

    let (sent, arrived, steady_lost) = traffic.end();
    eprintln!("  {sent} packets sent, {arrived} arrived, none at a wrong next hop");
    assert!(arrived > sent / 2, "{arrived} of {sent} packets arrived");
    // Packets of the flow that no change concerns are lost by the test's own queues at most.
    assert!(steady_lost <= 5, "{steady_lost} packets of the steady flow were lost");
    sluice.assert_conserved();
}

/// The router's links to the peers.
const LINKS: [&str; 2] = ["wan0", "wan1"];

/// What each peer announces alone, and what both do: an IPv4 and an IPv6 prefix.
const OWN: [[&str; 2]; 2] =
    [["198.51.100.0/24", "2001:db8:a::/48"], ["192.0.2.0/24", "2001:db8:b::/48"]];
const SHARED: [&str; 2] = ["203.0.113.0/24", "2001:db8:5::/48"];

/// Flows to each shared prefix.
const FLOWS: usize = 48;

/// A bgpd that speaks with whoever is on these links.
fn unnumbered(number: u32, links: &[&str], networks: &[[&str; 2]]) -> String {
    let mut config = format!(
        "router bgp {}\n bgp router-id 10.9.0.{number}\n no bgp ebgp-requires-policy\n \
         no bgp network import-check\n bgp bestpath as-path multipath-relax\n timers bgp 1 3\n",
        64500 + number
    );
    for link in links {
        config += &format!(
            " neighbor {link} interface remote-as external\n neighbor {link} timers connect 1\n \
             neighbor {link} advertisement-interval 0\n"
        );
    }
    for (family, name) in ["ipv4", "ipv6"].into_iter().enumerate() {
        config += &format!(" address-family {name} unicast\n");
        for link in links {
            config += &format!("  neighbor {link} activate\n");
        }
        for network in networks {
            config += &format!("  network {}\n", network[family]);
        }
        config += " exit-address-family\n";
    }
    config
}

/// Where a packet may arrive: at any peer, or at the one that alone announces its prefix.
type Owner = Option<usize>;

struct Fabric {
    router: Namespace,
    peers: [Namespace; 2],
    _world: Namespace,
    sender: Tap,
    receivers: [Tap; 2],
    sluice: Router,
    frr: Frr,
    peer_frrs: [Frr; 2],
    flows: Vec<(IpAddr, Owner)>,
    sent: u32,
    /// Of each flow the peer that it arrived at in the last round.
    at: Vec<Option<usize>>,
    /// The peer of each flow while both are there.
    homes: Option<Vec<Option<usize>>>,
}

impl Fabric {
    fn new(zebra: &str) -> Self {
        let text = |mac: [u8; 6]| mac.map(|byte| format!("{byte:02x}")).join(":");
        let world = Namespace::new("sender").mute();
        let router = Namespace::new("router").forwards();
        let peers = [Namespace::new("peer0"), Namespace::new("peer1")];
        net::link(
            (&world, "eth0", "02:00:00:00:01:02"),
            (&router, "lan0", &text(ROUTER_MAC[0])),
            1500,
        );
        for words in [
            "address add 10.0.0.1/24 dev lan0",
            "-6 address add 2001:db8::1/64 dev lan0",
            "neighbor add 10.0.0.2 lladdr 02:00:00:00:01:02 dev lan0",
            "neighbor add 2001:db8::2 lladdr 02:00:00:00:01:02 dev lan0",
        ] {
            router.ip(words);
        }
        for (number, peer) in peers.iter().enumerate() {
            let mac = format!("02:00:00:00:be:0{number}");
            net::link(
                (&router, LINKS[number], &text(ROUTER_MAC[1 + number])),
                (peer, "eth0", &mac),
                1500,
            );
        }
        let sluice = Router::start(
            &router,
            &[("lan0", "inside"), (LINKS[0], "outside"), (LINKS[1], "outside")],
            "",
        );
        let bgpd = unnumbered(1, &LINKS, &[]);
        let frr = Frr::start(&router, &[("zebra", zebra), ("bgpd", &bgpd)]);
        let peer_frrs = [0, 1].map(|number| {
            let bgpd = unnumbered(2 + number as u32, &["eth0"], &[OWN[number], SHARED]);
            Frr::start(&peers[number], &[("zebra", ""), ("bgpd", &bgpd)])
        });
        let address = |prefix: &str, host: usize| -> IpAddr {
            match prefix.parse().expect("a prefix") {
                ipnet::IpNet::V4(net) => net.hosts().nth(host).expect("a host").into(),
                ipnet::IpNet::V6(net) => net.hosts().nth(host).expect("a host").into(),
            }
        };
        let mut flows = Vec::new();
        for family in [0, 1] {
            flows.extend((0..FLOWS).map(|host| (address(SHARED[family], host), None)));
            flows.extend([0, 1].map(|peer| (address(OWN[peer][family], 7), Some(peer))));
        }
        Self {
            sender: Tap::new(&world, &["eth0"]),
            receivers: [0, 1].map(|peer: usize| Tap::new(&peers[peer], &["eth0"])),
            router,
            peers,
            _world: world,
            sluice,
            frr,
            peer_frrs,
            at: vec![None; flows.len()],
            flows,
            sent: 0,
            homes: None,
        }
    }

    /// A packet of each flow, and where those arrive that do: at a peer that announces their prefix, and those
    /// whose peer stays at no other.
    #[track_caller]
    fn round(&mut self) {
        let first = self.sent;
        for (position, (address, _)) in (0_u32..).zip(&self.flows) {
            let words = [&b"numbered"[..], &self.sent.to_be_bytes(), &position.to_be_bytes()];
            self.sender.send(0, &packet::udp_frame(*address, &words.concat()));
            self.sent += 1;
        }
        self.at.fill(None);
        for peer in [0, 1] {
            for captured in self.receivers[peer].receive_for(Duration::from_millis(25)) {
                let Some((number, position)) = numbers(&captured) else { continue };
                let (address, owner) = self.flows[position];
                assert!(
                    owner.is_none_or(|owner| owner == peer),
                    "{address} arrives at peer {peer}\n{}",
                    self.explain(address)
                );
                if let Some(homes) = &self.homes
                    && homes[position] == Some(0)
                {
                    assert_eq!(peer, 0, "the flow to {address} leaves a peer that stays");
                }
                if number >= first {
                    assert_eq!(self.at[position], None, "{address} arrives twice");
                    self.at[position] = Some(peer);
                }
            }
        }
    }

    /// Rounds until three in a row are as they should be.
    #[track_caller]
    fn settle(&mut self, what: &str, is_settled: impl Fn(&Self, usize) -> bool) {
        let start = Instant::now();
        let mut in_a_row = 0;
        while in_a_row < 3 {
            self.round();
            let wrong = (0..self.flows.len()).find(|flow| !is_settled(self, *flow));
            in_a_row = if wrong.is_none() { in_a_row + 1 } else { 0 };
            if let (Some(flow), true) = (wrong, start.elapsed() > PATIENCE) {
                let (address, _) = self.flows[flow];
                panic!("{what}: {address} at {:?}\n{}", self.at[flow], self.explain(address));
            }
        }
        eprintln!("  {what} within {:?}", start.elapsed());
    }

    /// With both peers each flow has one, and both have some.
    #[track_caller]
    fn settle_on_both(&mut self, what: &str) {
        self.settle(what, |fabric, flow| match (&fabric.homes, fabric.flows[flow].1) {
            (Some(homes), _) => fabric.at[flow] == homes[flow],
            (None, Some(owner)) => fabric.at[flow] == Some(owner),
            (None, None) => {
                let others = fabric.at.iter().zip(&fabric.flows);
                let mut others = others.filter(|(_, (address, owner))| {
                    owner.is_none() && address.is_ipv4() == fabric.flows[flow].0.is_ipv4()
                });
                fabric.at[flow].is_some() && others.any(|(at, _)| *at != fabric.at[flow])
            }
        });
    }

    /// Without peer 1 all flows to the shared prefixes have the other.
    #[track_caller]
    fn settle_on_the_other(&mut self, what: &str) {
        self.settle(what, |fabric, flow| {
            fabric.at[flow] == (fabric.flows[flow].1 != Some(1)).then_some(0)
        });
    }

    /// Links of the kernel's route to a shared prefix.
    fn kernel_links(&self, prefix: &str) -> Vec<usize> {
        let family = if prefix.contains(':') { "-6" } else { "-4" };
        let route = self.router.ip(&format!("{family} route show {prefix}"));
        (0..LINKS.len()).filter(|link| route.contains(&format!("dev {} ", LINKS[*link]))).collect()
    }

    fn explain(&self, address: IpAddr) -> String {
        format!(
            "the kernel: {}\n{}\nthe router: {}\nFRR: {}\n{}",
            self.router.ip("route"),
            self.router.ip("nexthop"),
            self.sluice.say(&["route", "get", &address.to_string()]),
            self.frr.say("bgpd", "show bgp summary"),
            self.sluice.log(),
        )
    }
}

/// The number of a packet, and that of its flow.
fn numbers(captured: &Captured) -> Option<(u32, usize)> {
    let frame = &captured.frame;
    let at = frame.windows(8).position(|window| window == b"numbered")?;
    let word = |at: usize| frame.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes);
    Some((word(at + 8)?, usize::try_from(word(at + 12)?).ok()?))
}

/// Two peers share a prefix; one of them leaves by its session, comes back, and leaves by its link.
fn peers_without_addresses(zebra: &str, installed: &str) {
    let mut fabric = Fabric::new(zebra);
    fabric.settle_on_both("both peers");
    let routes = fabric.router.ip("route show proto bgp");
    assert!(routes.contains(installed), "{routes}");
    fabric.homes = Some(fabric.at.clone());

    fabric.peer_frrs[1].kill("bgpd");
    fabric.settle_on_the_other("without the daemon of one");
    fabric.peer_frrs[1].start_daemon(&fabric.peers[1], "bgpd", &[]);
    fabric.settle_on_both("both peers again");

    // The kernel takes the link's next hop out of objects and routes, and tells of nothing but the link.
    fabric.peers[1].ip("link set eth0 down");
    fabric.settle_on_the_other("without the link of one");
    fabric.peers[1].ip("link set eth0 up");
    // Whatever FRR makes of it (8.4 leaves the group without its second member), the packets go as the kernel
    // has it, and what only this peer announces goes there.
    fabric.settle("the link again", |fabric, flow| match fabric.flows[flow] {
        (_, Some(owner)) => fabric.at[flow] == Some(owner),
        (address, None) => {
            let prefix = SHARED[usize::from(address.is_ipv6())];
            fabric.at[flow].is_some_and(|peer| fabric.kernel_links(prefix).contains(&peer))
        }
    });
    eprintln!("  {} packets sent, none at a wrong peer", fabric.sent);
    fabric.sluice.assert_conserved();
}

/// As FRR has it by default: `203.0.113.0/24 nhid 20`, a group of objects with IPv6 addresses.
#[test]
fn ecmp_over_peers_without_addresses_by_nexthop_objects() {
    const TEST: &str = "FRR's peers without addresses";
    if net::available(TEST) && has_frr(TEST) {
        peers_without_addresses(ZEBRA, "nhid");
    }
}

/// Without objects zebra gives the peer an IPv4 address that both links have, and a permanent neighbor for it.
#[test]
fn ecmp_over_peers_without_addresses_by_a_made_up_address() {
    const TEST: &str = "FRR's peers without addresses or nexthop objects";
    if net::available(TEST) && has_frr(TEST) {
        peers_without_addresses("no zebra nexthop kernel enable\n", "169.254.0.1");
    }
}
