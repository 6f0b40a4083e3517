//! [`Bed`]: the namespaces, links, addresses and neighbors.

use std::time::{Duration, Instant};

use control::status::RouteCounts;

use super::{BACKUP, GROUPS, Groups, STEADY, Table, Traffic, hop_mac, text_of};
use crate::net::{self, Namespace, Router, Tap};
use crate::packet::{ROUTER_MAC, Random};

/// The static route that nothing may disturb.
const SLUICE: &str = "[[route]]\nprefix = \"198.18.0.0/15\"\nvia = \"10.1.0.30\"\n";

pub(crate) struct Bed {
    pub(crate) feeder: Namespace,
    pub(crate) router: Namespace,
    _hops: Namespace,
    _world: Namespace,
    pub(crate) sender: Option<Tap>,
    pub(crate) receiver: Option<Tap>,
}

impl Bed {
    pub(crate) fn new() -> Self {
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

    /// Sends to an address in each of about `count` prefixes of the table, once.
    pub(crate) fn send_to(&mut self, table: &Table, count: usize) -> Traffic {
        let addresses = table.addresses(count, &mut Random(7));
        eprintln!(
            "{} IPv4 and {} IPv6 prefixes, traffic to {} addresses",
            table.v4.len(),
            table.v6.len(),
            addresses.len()
        );
        let sender = self.sender.take().expect("a sender");
        Traffic::start(addresses, sender, self.receiver.take().expect("a receiver"))
    }

    /// What the kernel and the router know of the way to an address.
    pub(crate) fn explain(&self, sluice: &Router, address: &str) -> String {
        format!(
            "the kernel: {}\nthe router: {}\n{:?}\nthreads {}\n{}",
            self.router.ip(&format!("route get fibmatch {address}")),
            sluice.say(&["route", "get", address]),
            sluice.status().routes,
            sluice.threads(),
            sluice.log(),
        )
    }

    pub(crate) fn sluice(&self) -> Router {
        Router::start(&self.router, &[("lan0", "inside"), ("wan0", "outside")], SLUICE)
    }

    /// Waits until every address that has a route is reached by it, and then asks the router whether its look-up
    /// tables have all routes, and none that went.
    #[track_caller]
    pub(crate) fn settle(
        &self,
        traffic: &Traffic,
        sluice: &Router,
        groups: Groups,
        patience: Duration,
    ) {
        traffic.settle(groups, patience, &|address| self.explain(sluice, address));
        sluice.done(&["route", "verify"]);
    }

    /// Waits until the router knows the whole table beside what it knew `before`.
    #[track_caller]
    pub(crate) fn wait_for_all(
        &self,
        sluice: &Router,
        table: &Table,
        before: &RouteCounts,
        patience: Duration,
        explain: &dyn Fn() -> String,
    ) -> RouteCounts {
        let (v4, v6) = (table.v4.len() as u64 + before.v4, table.v6.len() as u64 + before.v6);
        let deadline = Instant::now() + patience;
        loop {
            let known = sluice.status().routes;
            // More than that when the kernel adds some of its own, as for link-local addresses.
            if known.v4 >= v4 && known.v6 >= v6 {
                return known;
            }
            assert!(
                Instant::now() < deadline,
                "{known:?} of {v4} and {v6}, threads {}\n{}",
                sluice.threads(),
                explain()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
