//! The mirror against a real kernel, in network namespaces of the tests' own.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use common::Namespace;
use control::kernel::{
    KernelEvent, KernelState, LocalKind, Management, MirrorOptions, NeighborState, NextHop, Reason,
    RouteKind, Scope, SyncCause,
};
use ipnet::IpNet;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// What the route of `prefix` does.
fn kind<'a>(state: &'a KernelState, prefix: &str) -> Option<&'a RouteKind> {
    state.routes.get(&net(prefix)).map(|routes| routes[0].kind.as_ref())
}

fn hops(list: &[(&str, u32, u32)]) -> RouteKind {
    RouteKind::NextHops(
        list.iter()
            .map(|&(via, ifindex, weight)| NextHop {
                via: (!via.is_empty()).then(|| ip(via)),
                ifindex,
                weight,
                mtu: 0,
            })
            .collect(),
    )
}

macro_rules! namespace {
    () => {
        match Namespace::new(module_path!()) {
            Some(namespace) => namespace,
            None => return,
        }
    };
}

#[test]
fn links_addresses_and_locals_are_known_and_followed() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 brd + dev v0");
    let mut mirror = ns.mirror(MirrorOptions::default());
    let v0 = mirror.ifindex("v0");

    let link = &mirror.state.links["v0"];
    assert!(link.up && !link.loopback && link.mtu == 1500 && link.mac.is_some(), "{link:?}");
    assert!(mirror.state.links["lo"].loopback);
    let addresses = &mirror.state.addresses;
    let found = addresses.addresses.iter().find(|address| address.network == net("10.1.0.1/24"));
    assert!(found.is_some_and(|a| a.ifindex == v0 && a.scope == Scope::Global), "{addresses:?}");
    assert_eq!(addresses.locals.get(&net("10.1.0.1/32")), Some(&LocalKind::Local));
    assert_eq!(addresses.locals.get(&net("10.1.0.255/32")), Some(&LocalKind::Broadcast));
    assert_eq!(addresses.locals.get(&net("127.0.0.0/8")), Some(&LocalKind::Local));
    assert_eq!(kind(&mirror.state, "10.1.0.0/24"), Some(&hops(&[("", v0, 1)])));

    // The same broadcast address on two interfaces: one of them may go.
    ns.ip("addr add 10.1.0.2/24 brd + dev v1");
    ns.ip("addr add 2001:db8:1::1/64 dev v0");
    let has = |state: &KernelState, prefix: &str| state.addresses.locals.contains_key(&net(prefix));
    mirror.until("new addresses", |state| {
        has(state, "10.1.0.2/32") && has(state, "2001:db8:1::1/128")
    });
    ns.ip("addr del 10.1.0.2/24 dev v1");
    mirror.until("the address to go", |state| !has(state, "10.1.0.2/32"));
    mirror.during(Duration::from_millis(200));
    assert!(has(&mirror.state, "10.1.0.255/32"), "v0 still has it: {:?}", mirror.state.addresses);

    // Forwarding makes the kernel take the subnet-router anycast address.
    ns.run("sysctl -qw net.ipv6.conf.all.forwarding=1");
    mirror.until("the anycast address", |state| {
        state.addresses.locals.get(&net("2001:db8:1::/128")) == Some(&LocalKind::Anycast)
    });

    ns.ip("link set v0 mtu 1400");
    mirror.until("the new MTU", |state| state.links["v0"].mtu == 1400);
    ns.ip("link set v1 down");
    mirror.until("the lost carrier", |state| !state.links["v0"].up && !state.links["v1"].up);
    ns.ip("link set v1 name w1");
    mirror.until("the new name", |state| {
        state.links.contains_key("w1") && !state.links.contains_key("v1")
    });
    ns.ip("link del v0");
    mirror.until("the links to go", |state| state.links.len() == 1);
    mirror.until("their addresses to go", |state| !has(state, "10.1.0.1/32"));
    assert_eq!(mirror.mirror.counts().malformed, 0);
}

#[test]
fn routes_of_every_kind_come_and_go() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("addr add 2001:db8:1::1/64 dev v0 nodad");
    // Half of them before the mirror starts, half after: dumps and news must agree.
    let routes = [
        ("10.2.0.0/16", "10.2.0.0/16 via 10.1.0.2"),
        ("10.3.0.0/16", "10.3.0.0/16 nexthop via 10.1.0.2 weight 3 nexthop via 10.1.0.3 weight 1"),
        ("10.4.0.0/16", "blackhole 10.4.0.0/16"),
        ("10.5.0.0/16", "unreachable 10.5.0.0/16"),
        ("10.6.0.0/16", "prohibit 10.6.0.0/16"),
        ("10.7.0.0/16", "10.7.0.0/16 via inet6 fe80::7 dev v0"),
        ("10.8.0.0/16", "throw 10.8.0.0/16"),
        ("10.9.0.0/16", "10.9.0.0/16 encap ip id 5 dst 10.9.9.9 via 10.1.0.2"),
        ("10.10.0.0/16", "10.10.0.0/16 via 10.1.0.2 tos 0x10"),
        ("10.11.0.0/16", "local 10.11.0.0/16 dev lo table main"),
        ("232.0.0.0/8", "multicast 232.0.0.0/8 dev v0"),
        ("0.0.0.0/0", "default via 10.1.0.2 metric 50"),
        ("2001:db8:2::/48", "2001:db8:2::/48 via 2001:db8:1::2"),
        (
            "2001:db8:3::/48",
            "2001:db8:3::/48 nexthop via 2001:db8:1::2 weight 2 nexthop via 2001:db8:1::3 weight 5",
        ),
        ("2001:db8:4::/48", "blackhole 2001:db8:4::/48"),
        ("2001:db8:5::/48", "2001:db8:5::/48 from 2001:db8:9::/48 via 2001:db8:1::2"),
    ];
    let expected = |v0: u32| {
        let inexpressible = RouteKind::NotExpressible;
        [
            ("10.2.0.0/16", hops(&[("10.1.0.2", v0, 1)])),
            ("10.3.0.0/16", hops(&[("10.1.0.2", v0, 3), ("10.1.0.3", v0, 1)])),
            ("10.4.0.0/16", RouteKind::Blackhole),
            ("10.5.0.0/16", RouteKind::Unreachable),
            ("10.6.0.0/16", RouteKind::Prohibit),
            ("10.7.0.0/16", hops(&[("fe80::7", v0, 1)])),
            ("10.8.0.0/16", inexpressible(Reason::Throw)),
            ("10.9.0.0/16", inexpressible(Reason::Encapsulation)),
            ("10.10.0.0/16", inexpressible(Reason::DependsOnTos)),
            ("10.11.0.0/16", RouteKind::Local),
            ("232.0.0.0/8", inexpressible(Reason::Multicast)),
            ("0.0.0.0/0", hops(&[("10.1.0.2", v0, 1)])),
            ("2001:db8:2::/48", hops(&[("2001:db8:1::2", v0, 1)])),
            ("2001:db8:3::/48", hops(&[("2001:db8:1::2", v0, 2), ("2001:db8:1::3", v0, 5)])),
            ("2001:db8:4::/48", RouteKind::Blackhole),
            ("2001:db8:5::/48", inexpressible(Reason::DependsOnSource)),
        ]
    };
    for early in [0, 1] {
        for (_, route) in routes.iter().skip(early).step_by(2) {
            ns.ip(&format!("route add {route}"));
        }
        let mut mirror = ns.mirror(MirrorOptions::default());
        for (_, route) in routes.iter().skip(1 - early).step_by(2) {
            ns.ip(&format!("route add {route}"));
        }
        let v0 = mirror.ifindex("v0");
        for (prefix, does) in expected(v0) {
            mirror.until(&format!("{prefix} {does:?}"), |state| kind(state, prefix) == Some(&does));
        }
        assert_eq!(mirror.state.routes[&net("0.0.0.0/0")][0].metric, 50);
        let counts = mirror.mirror.counts();
        assert_eq!(counts.routes_unexpressible, 5, "{counts:?}");
        assert_eq!(
            counts.routes_v4 + counts.routes_v6,
            mirror.state.routes.len() as u64,
            "{counts:?}"
        );
        for (prefix, route) in routes {
            ns.ip(&format!("route del {route}"));
            mirror.until(&format!("{prefix} to go"), |state| kind(state, prefix).is_none());
        }
        let counts = mirror.mirror.counts();
        assert_eq!((counts.routes_unexpressible, counts.malformed), (0, 0), "{counts:?}");
    }
}

#[test]
fn of_several_routes_the_kernels_choice_is_told() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("addr add 2001:db8:1::1/64 dev v0 nodad");
    let mut mirror = ns.mirror(MirrorOptions::default());
    let v0 = mirror.ifindex("v0");
    let mut step = |command: &str, prefix: &str, does: Option<&RouteKind>| {
        ns.ip(command);
        mirror.until(&format!("{prefix} {does:?} after {command}"), |state| {
            kind(state, prefix) == does
        });
    };
    let by = |host: &str| hops(&[(host, v0, 1)]);
    let p = "10.2.0.0/16";
    step("route add 10.2.0.0/16 via 10.1.0.2 metric 20", p, Some(&by("10.1.0.2")));
    step("route add 10.2.0.0/16 via 10.1.0.3 metric 10", p, Some(&by("10.1.0.3")));
    step("route replace 10.2.0.0/16 via 10.1.0.4 metric 10", p, Some(&by("10.1.0.4")));
    // Appended behind, prepended before the others of the same metric.
    step("route append 10.2.0.0/16 via 10.1.0.5 metric 10", p, Some(&by("10.1.0.4")));
    step("route prepend 10.2.0.0/16 via 10.1.0.6 metric 10", p, Some(&by("10.1.0.6")));
    step("route del 10.2.0.0/16 via 10.1.0.6 metric 10", p, Some(&by("10.1.0.4")));
    step("route del 10.2.0.0/16 via 10.1.0.4 metric 10", p, Some(&by("10.1.0.5")));
    step("route del 10.2.0.0/16 via 10.1.0.5 metric 10", p, Some(&by("10.1.0.2")));
    step("route del 10.2.0.0/16 metric 20", p, None);

    // IPv6 joins routes of equal metric into one.
    let p = "2001:db8:2::/48";
    let (a, b) = ("2001:db8:1::a", "2001:db8:1::b");
    step("route add 2001:db8:2::/48 via 2001:db8:1::a", p, Some(&by(a)));
    step(
        "route append 2001:db8:2::/48 via 2001:db8:1::b",
        p,
        Some(&hops(&[(a, v0, 1), (b, v0, 1)])),
    );
    step("route del 2001:db8:2::/48 via 2001:db8:1::a", p, Some(&by(b)));
    step("route replace 2001:db8:2::/48 via 2001:db8:1::c", p, Some(&by("2001:db8:1::c")));
    step("route del 2001:db8:2::/48", p, None);
}

#[test]
fn nexthop_objects_are_resolved() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    // Without it the kernel expands objects in messages, and tells of every route again when an
    // object changes. Routing daemons switch that off; the mirror must do without it.
    ns.run("sysctl -qw net.ipv4.nexthop_compat_mode=0");
    ns.ip("nexthop add id 1 via 10.1.0.2 dev v0");
    ns.ip("nexthop add id 2 via 10.1.0.3 dev v0");
    ns.ip("nexthop add id 10 group 1,3/2");
    ns.ip("route add 10.2.0.0/16 nhid 1");
    ns.ip("route add 10.3.0.0/16 nhid 10");
    let mut mirror = ns.mirror(MirrorOptions::default());
    let v0 = mirror.ifindex("v0");
    let by = |host: &str| hops(&[(host, v0, 1)]);
    assert_eq!(kind(&mirror.state, "10.2.0.0/16"), Some(&by("10.1.0.2")));
    assert_eq!(
        kind(&mirror.state, "10.3.0.0/16"),
        Some(&hops(&[("10.1.0.2", v0, 3), ("10.1.0.3", v0, 1)]))
    );

    ns.ip("nexthop add id 3 blackhole");
    ns.ip("route add 10.4.0.0/16 nhid 3");
    mirror.until("the blackhole", |s| kind(s, "10.4.0.0/16") == Some(&RouteKind::Blackhole));
    // No route changes here, but what two of them do.
    ns.ip("nexthop replace id 1 via 10.1.0.9 dev v0");
    mirror.until("the new next hop", |state| {
        kind(state, "10.2.0.0/16") == Some(&by("10.1.0.9"))
            && kind(state, "10.3.0.0/16")
                == Some(&hops(&[("10.1.0.9", v0, 3), ("10.1.0.3", v0, 1)]))
    });
    ns.ip("nexthop replace id 10 group 2");
    mirror.until("the new group", |s| kind(s, "10.3.0.0/16") == Some(&by("10.1.0.3")));
    // The kernel removes the routes with the object, silently.
    ns.ip("nexthop del id 2");
    mirror.until("the route to go", |state| kind(state, "10.3.0.0/16").is_none());
    assert_eq!(mirror.mirror.counts().malformed, 0);
}

#[test]
fn an_object_that_comes_and_goes_at_once_leaves_the_mirror_at_rest() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    let mut mirror = ns.mirror(MirrorOptions::default());
    ns.ip_batch("nexthop add id 5 via 10.1.0.2 dev v0\nnexthop del id 5\n");
    mirror.during(Duration::from_millis(300));
    // A mirror that waits for something that never comes does not tell that it has read all.
    mirror.mirror.resync();
    let events = mirror.during(Duration::from_secs(1));
    assert!(events.contains(&KernelEvent::Synchronized(SyncCause::Asked)), "{events:?}");
}

#[test]
fn a_route_that_drops_does_so_whatever_object_it_names() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("nexthop add id 1 via 10.1.0.2 dev v0");
    ns.ip("route add unreachable 10.2.0.0/16 nhid 1");
    let mut mirror = ns.mirror(MirrorOptions::default());
    ns.ip("route add prohibit 10.3.0.0/16 nhid 1");
    ns.ip("route add blackhole 10.4.0.0/16 nhid 1");
    let of = |prefix| move |state: &KernelState| kind(state, prefix).cloned();
    mirror.until("the routes", |state| of("10.4.0.0/16")(state).is_some());
    for (prefix, kind) in [
        ("10.2.0.0/16", RouteKind::Unreachable),
        ("10.3.0.0/16", RouteKind::Prohibit),
        ("10.4.0.0/16", RouteKind::Blackhole),
    ] {
        assert_eq!(of(prefix)(&mirror.state), Some(kind), "{prefix}");
    }
    // They go with it all the same.
    ns.ip("nexthop del id 1");
    mirror.until("the routes to go", |s| {
        ["10.2.0.0/16", "10.3.0.0/16", "10.4.0.0/16"].iter().all(|prefix| kind(s, prefix).is_none())
    });
}

/// Routing daemons delete an object for each path that is gone. Of the routes that name one, the kernel tells
/// nothing (of IPv6 ones with `nexthop_compat_mode` alone); to read all tables each time would be the price of
/// a full table for each.
#[test]
fn the_routes_of_an_object_go_with_it_and_nothing_is_read_again() {
    for compat_mode in [0, 1] {
        let ns = namespace!();
        ns.veth("v0", "v1");
        ns.ip("addr add 10.1.0.1/24 dev v0");
        ns.ip("addr add 2001:db8:1::1/64 dev v0");
        ns.run(&format!("sysctl -qw net.ipv4.nexthop_compat_mode={compat_mode}"));
        for id in 1..=3 {
            ns.ip(&format!("nexthop add id {id} via 10.1.0.{} dev v0", id + 1));
            ns.ip(&format!("nexthop add id 1{id} via 2001:db8:1::{} dev v0", id + 1));
        }
        ns.ip("nexthop add id 20 group 1/2");
        ns.ip("nexthop add id 21 group 2");
        ns.ip("route add 10.2.0.0/16 nhid 1");
        ns.ip("route add 10.2.0.0/16 via 10.1.0.9 metric 7");
        ns.ip("route add 10.3.0.0/16 nhid 2");
        ns.ip("route add 10.4.0.0/16 nhid 20");
        ns.ip("route add 10.5.0.0/16 nhid 21");
        ns.ip("-6 route add 2001:db8:2::/48 nhid 11");
        // Two of one metric, of which one stays.
        ns.ip("-6 route append 2001:db8:2::/48 nhid 12");
        ns.ip("-6 route add 2001:db8:3::/48 nhid 13");
        let mut mirror = ns.mirror(MirrorOptions::default());
        // What the links' own changes cause.
        mirror.during(Duration::from_millis(300));
        let v0 = mirror.ifindex("v0");
        let readings = mirror.mirror.counts().readings;
        let by = |host: &str| Some(hops(&[(host, v0, 1)]));

        ns.ip("nexthop add id 30 via 10.1.0.9 dev v0");
        ns.ip("nexthop del id 30");
        ns.ip("nexthop del id 1");
        mirror.until("the other route", |s| kind(s, "10.2.0.0/16") == by("10.1.0.9").as_ref());
        mirror.until("the member to go", |s| kind(s, "10.4.0.0/16") == by("10.1.0.3").as_ref());
        ns.ip("nexthop del id 11");
        mirror.until("the other route", |s| {
            kind(s, "2001:db8:2::/48") == by("2001:db8:1::3").as_ref()
        });
        // The same number again is another object, of which no route is left; groups without members go.
        ns.ip_batch("nexthop del id 2\nnexthop add id 2 via 10.1.0.8 dev v0\n");
        ns.ip_batch("nexthop del id 13\nnexthop add id 13 via 2001:db8:1::8 dev v0\n");
        mirror.until("the routes to go", |s| {
            ["10.3.0.0/16", "10.4.0.0/16", "10.5.0.0/16", "2001:db8:3::/48"]
                .iter()
                .all(|prefix| kind(s, prefix).is_none())
        });
        ns.ip("route add 10.3.0.0/16 nhid 2");
        mirror.until("the new route", |s| kind(s, "10.3.0.0/16") == by("10.1.0.8").as_ref());
        mirror.during(Duration::from_millis(300));
        assert_eq!(kind(&mirror.state, "2001:db8:2::/48"), by("2001:db8:1::3").as_ref());
        assert_eq!(mirror.mirror.counts().readings, readings, "compat mode {compat_mode}");

        // As the kernel has it.
        let before = mirror.state.clone();
        mirror.mirror.resync();
        mirror.during(Duration::from_millis(300));
        assert_eq!(mirror.state.routes, before.routes);
        assert_eq!(mirror.mirror.counts().readings, readings + 1);
    }
}

#[test]
fn routes_that_go_silently_are_noticed() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.veth("v2", "v3");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("addr add 10.2.0.1/24 dev v2");
    ns.ip("addr add 10.2.0.7/32 dev v2");
    ns.ip("route add 10.3.0.0/16 via 10.1.0.2");
    ns.ip("route add 10.4.0.0/16 nexthop via 10.1.0.2 nexthop via 10.2.0.2");
    ns.ip("route add 10.5.0.0/16 via 10.2.0.2 src 10.2.0.7");
    let mut mirror = ns.mirror(MirrorOptions::default());
    let v2 = mirror.ifindex("v2");
    assert!(kind(&mirror.state, "10.3.0.0/16").is_some());
    assert!(kind(&mirror.state, "10.5.0.0/16").is_some());
    ns.ip("link set v0 down");
    mirror.until("the routes over v0 to go", |state| {
        kind(state, "10.3.0.0/16").is_none()
            && kind(state, "10.4.0.0/16") == Some(&hops(&[("10.2.0.2", v2, 1)]))
    });
    ns.ip("addr del 10.2.0.7/32 dev v2");
    mirror.until("the route with that source to go", |s| kind(s, "10.5.0.0/16").is_none());
}

#[test]
fn neighbors_of_owned_interfaces_are_followed() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.veth("v2", "v3");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("neigh add 10.1.0.9 lladdr 02:00:00:00:00:09 dev v0");
    let mut mirror =
        ns.mirror(MirrorOptions { interfaces: vec!["v0".into()], ..MirrorOptions::default() });
    let key = (mirror.ifindex("v0"), ip("10.1.0.9"));
    let neighbor = mirror.state.neighbors[&key];
    assert_eq!(neighbor.mac, Some([2, 0, 0, 0, 0, 9]));
    assert_eq!(neighbor.state, NeighborState::Permanent);
    assert_eq!(
        mirror.mirror.install_managed_neighbor(key.0, key.1).expect("answers"),
        Management::Unneeded,
        "the operator's address stays"
    );
    ns.ip("neigh add 10.9.9.9 lladdr 02:00:00:00:00:08 dev v2");
    let start = Instant::now();
    ns.ip("neigh replace 10.1.0.9 lladdr 02:00:00:00:00:0a dev v0 nud stale");
    mirror.until("the new address", |s| s.neighbors[&key].mac == Some([2, 0, 0, 0, 0, 10]));
    assert!(start.elapsed() < Duration::from_secs(1));
    ns.ip("neigh del 10.1.0.9 dev v0");
    mirror.until("the neighbor to go", |state| !state.neighbors.contains_key(&key));
    assert!(
        mirror.state.neighbors.keys().all(|(ifindex, _)| *ifindex == key.0),
        "v2 is not owned: {:?}",
        mirror.state.neighbors
    );
}

#[test]
fn a_managed_neighbor_is_resolved_and_kept() {
    let (ns, peer) = (namespace!(), namespace!());
    ns.veth_to("v0", "p0", &peer);
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("addr add 2001:db8:1::1/64 dev v0 nodad");
    peer.ip("addr add 10.1.0.2/24 dev p0");
    peer.ip("addr add 2001:db8:1::2/64 dev p0 nodad");
    let mut mirror = ns.mirror(MirrorOptions::default());
    let v0 = mirror.ifindex("v0");
    for address in ["10.1.0.2", "2001:db8:1::2"] {
        let key = (v0, ip(address));
        let management = mirror.mirror.install_managed_neighbor(v0, key.1).expect("installs");
        assert_eq!(management, Management::Kernel);
        mirror.until("the neighbor", |state| {
            state.neighbors.get(&key).is_some_and(|neighbor| {
                neighbor.managed && neighbor.mac.is_some() && neighbor.state.is_usable()
            })
        });
        let line = ns.ip(&format!("neigh show {address}"));
        assert!(line.contains("managed") && line.contains("lladdr"), "{line}");
        mirror.mirror.probe(v0, key.1).expect("probes");
        mirror.mirror.install_managed_neighbor(v0, key.1).expect("again");
        let line = ns.ip(&format!("neigh show {address}"));
        assert!(line.contains("managed"), "a probe does not end it: {line}");
        mirror.mirror.remove_managed_neighbor(v0, key.1).expect("removes");
        mirror.until("the end of its management", |state| {
            state.neighbors.get(&key).is_none_or(|neighbor| !neighbor.managed)
        });
        let line = ns.ip(&format!("neigh show {address}"));
        assert!(!line.contains("managed"), "{line}");
        mirror.mirror.remove_managed_neighbor(v0, key.1).expect("once more is no error");
    }
    // Nobody answers.
    let key = (v0, ip("10.1.0.77"));
    mirror.mirror.install_managed_neighbor(v0, key.1).expect("installs");
    mirror.until("the failure", |state| {
        state.neighbors.get(&key).is_some_and(|n| n.state == NeighborState::Failed)
    });
    let error = mirror.mirror.install_managed_neighbor(9999, key.1).expect_err("no such interface");
    assert!(error.to_string().contains("10.1.0.77 on interface 9999"), "{error}");
    assert_eq!(error.errno(), Some(nix::libc::ENODEV));
}

#[test]
fn single_routes_are_looked_up() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("route add 10.2.0.0/16 via 10.1.0.2");
    for (what, net) in [("blackhole", 4), ("unreachable", 5), ("prohibit", 6)] {
        ns.ip(&format!("route add {what} 10.{net}.0.0/16"));
    }
    let mirror = ns.mirror(MirrorOptions::default());
    let v0 = mirror.ifindex("v0");
    let get = |address: &str| mirror.mirror.route_get(ip(address)).expect("answers");
    let found = get("10.2.3.4");
    assert_eq!(found.kind, hops(&[("10.1.0.2", v0, 1)]));
    assert_eq!(found.source, Some(ip("10.1.0.1")));
    assert_eq!(get("10.1.0.9").kind, hops(&[("", v0, 1)]));
    assert_eq!(get("10.1.0.1").kind, RouteKind::Local);
    assert_eq!(get("10.4.0.1").kind, RouteKind::Blackhole);
    assert_eq!(get("10.5.0.1").kind, RouteKind::Unreachable);
    assert_eq!(get("10.6.0.1").kind, RouteKind::Prohibit);
    assert_eq!(get("192.0.2.1").kind, RouteKind::Unreachable, "no route at all");
}

/// 250 blocks of 200 prefixes.
fn burst(verb: &str) -> (String, BTreeSet<IpNet>) {
    let (mut lines, mut prefixes) = (String::new(), BTreeSet::new());
    for block in 0..250 {
        for number in 0..200 {
            let prefix = format!("20.{block}.{number}.0/24");
            writeln!(lines, "route {verb} {prefix} via 10.1.0.2").expect("writes");
            prefixes.insert(net(&prefix));
        }
    }
    (lines, prefixes)
}

fn of_burst(state: &KernelState) -> usize {
    state.routes.keys().filter(|prefix| net("20.0.0.0/8").contains(*prefix)).count()
}

fn burst_arrives(receive_buffer_bytes: usize) -> Option<u64> {
    let ns = Namespace::new(module_path!())?;
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    let mut mirror = ns.mirror(MirrorOptions { receive_buffer_bytes, ..MirrorOptions::default() });
    let (lines, prefixes) = burst("add");
    ns.ip_batch(&lines);
    mirror.until("all routes of the burst", |state| of_burst(state) == prefixes.len());
    assert!(prefixes.iter().all(|prefix| mirror.state.routes.contains_key(prefix)));
    // A table that was read twice is told once.
    let before = mirror.state.clone();
    mirror.mirror.resync();
    let mut told = 0;
    while let Ok(event) = mirror.events.recv_timeout(Duration::from_secs(10)) {
        mirror.state.apply(&event);
        match event {
            KernelEvent::Routes { changes, .. } => told += changes.len(),
            KernelEvent::Synchronized(SyncCause::Asked) => break,
            _ => {}
        }
    }
    assert_eq!(told, 0, "a reading that finds nothing new tells nothing");
    assert_eq!(before.routes, mirror.state.routes);

    ns.ip_batch(&burst("del").0);
    mirror.until("all routes to go", |state| of_burst(state) == 0);
    let counts = mirror.mirror.counts();
    assert_eq!(counts.malformed, 0, "{counts:?}");
    Some(counts.overruns)
}

#[test]
fn a_burst_of_50_000_routes_arrives() {
    if let Some(overruns) = burst_arrives(32 << 20) {
        assert_eq!(overruns, 0, "the buffer holds a burst");
    }
}

#[test]
fn a_burst_arrives_through_a_buffer_that_overflows() {
    // The kernel makes it 2304 bytes at least: two or three messages.
    if let Some(overruns) = burst_arrives(1) {
        assert!(overruns > 0, "the buffer was meant to overflow");
    }
}

#[test]
fn a_consumer_that_sleeps_finds_changes_coalesced() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    let mut mirror = ns.mirror(MirrorOptions::default());
    ns.ip("neigh add 10.1.0.3 lladdr 02:00:00:00:00:03 dev v0");
    let mut lines = String::new();
    for round in 0..2000 {
        let verb = if round % 2 == 0 { "add" } else { "del" };
        writeln!(lines, "route {verb} 10.7.0.0/16 via 10.1.0.2").expect("writes");
        writeln!(
            lines,
            "neigh replace 10.1.0.3 lladdr 02:00:00:00:{:02x}:{:02x} dev v0",
            round / 256,
            round % 256
        )
        .expect("writes");
    }
    ns.ip_batch(&lines);
    std::thread::sleep(Duration::from_millis(100));
    let events = mirror.during(Duration::from_millis(500));
    assert!(events.len() < 500, "{} events for 4000 changes", events.len());
    let key = (mirror.ifindex("v0"), ip("10.1.0.3"));
    assert_eq!(mirror.state.neighbors[&key].mac, Some([2, 0, 0, 0, 7, 0xcf]), "the last one");
    assert_eq!(kind(&mirror.state, "10.7.0.0/16"), None);
}

#[test]
fn another_table_is_mirrored_alone() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    // Above 255: the table's number does not fit into the header.
    ns.ip("route add 10.2.0.0/16 via 10.1.0.2 table 1000");
    let mut mirror = ns.mirror(MirrorOptions { tables: vec![1000], ..MirrorOptions::default() });
    ns.ip("route add 10.3.0.0/16 via 10.1.0.2 table 1000");
    ns.ip("route add 10.4.0.0/16 via 10.1.0.2");
    mirror.until("the route of table 1000", |state| kind(state, "10.3.0.0/16").is_some());
    mirror.during(Duration::from_millis(100));
    let prefixes: BTreeSet<_> = mirror.state.routes.keys().copied().collect();
    assert_eq!(prefixes, [net("10.2.0.0/16"), net("10.3.0.0/16")].into());
    drop(mirror);
    let mirror = ns.mirror(MirrorOptions { tables: vec![4000], ..MirrorOptions::default() });
    assert!(mirror.state.routes.is_empty(), "a table that does not exist is empty");
    drop(mirror);
    let mirror = ns.mirror(MirrorOptions { routes: false, ..MirrorOptions::default() });
    assert!(mirror.state.routes.is_empty());
    assert!(mirror.state.addresses.locals.contains_key(&net("10.1.0.1/32")), "locals all the same");
}

#[test]
fn several_tables_become_one_in_their_order() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    ns.ip("route add 10.2.0.0/16 via 10.1.0.2 table 100 metric 50");
    ns.ip("route add 10.2.0.0/16 via 10.1.0.3 metric 10 proto bird");
    ns.ip("route add 10.3.0.0/16 via 10.1.0.4");
    let options = MirrorOptions { tables: vec![100, 254], ..MirrorOptions::default() };
    let mut mirror = ns.mirror(options);
    let known = |state: &KernelState, prefix: &str| -> Vec<(u32, u8, u32)> {
        let routes = state.routes.get(&net(prefix)).into_iter().flatten();
        routes.map(|route| (route.table, route.protocol, route.metric)).collect()
    };
    // The table that stands first comes first, whatever its metric.
    assert_eq!(known(&mirror.state, "10.2.0.0/16"), [(100, 3, 50), (254, 12, 10)]);
    assert_eq!(known(&mirror.state, "10.3.0.0/16"), [(254, 3, 0)]);
    // A full reading of one table leaves the other alone.
    mirror.mirror.resync();
    let events = mirror.during(Duration::from_millis(500));
    assert!(!events.iter().any(|event| matches!(event, KernelEvent::Routes { .. })), "{events:?}");
    ns.ip("route del 10.2.0.0/16 table 100");
    mirror.until("the other table's route", |state| known(state, "10.2.0.0/16") == [(254, 12, 10)]);
    ns.ip("route del 10.2.0.0/16");
    mirror.until("no route", |state| known(state, "10.2.0.0/16").is_empty());
    assert_eq!(known(&mirror.state, "10.3.0.0/16"), [(254, 3, 0)]);
}

#[test]
fn dropping_the_mirror_or_its_events_ends_the_thread() {
    let ns = namespace!();
    let mirror = ns.mirror(MirrorOptions::default());
    let events = mirror.events.clone();
    drop(mirror);
    while events.try_recv().is_ok() {}
    assert!(
        events.recv_timeout(Duration::from_secs(5)).is_err_and(|error| error.is_disconnected())
    );
    let mirror = ns.mirror(MirrorOptions::default());
    drop(mirror.events);
    ns.veth("v0", "v1");
    drop(mirror.mirror);
}

/// Prints what a full table costs: `cargo test -p control --release --test kernel -- --ignored
/// --nocapture`.
#[test]
#[ignore = "takes a minute and a GiB of the kernel's memory"]
fn a_full_table_is_read_in_seconds() {
    let ns = namespace!();
    ns.veth("v0", "v1");
    ns.ip("addr add 10.1.0.1/24 dev v0");
    let mut lines = String::new();
    for number in 0..1_000_000u32 {
        let [_, a, b, c] = number.to_be_bytes();
        writeln!(lines, "route add {}.{b}.{c}.0/24 via 10.1.0.{}", 20 + a, 2 + number % 50)
            .expect("writes");
    }
    ns.ip_batch(&lines);
    let resident_kib = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").expect("reads");
        let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("a line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    };
    drop(lines);
    let (before_kib, start) = (resident_kib(), Instant::now());
    let (mirror, events) = ns
        .enter(|| control::kernel::KernelMirror::start(MirrorOptions::default()))
        .expect("starts");
    let mut routes = 0;
    for event in &events {
        match event {
            KernelEvent::Routes { changes, .. } => routes += changes.len(),
            KernelEvent::Synchronized(_) => break,
            _ => {}
        }
    }
    let elapsed = start.elapsed();
    eprintln!("{routes} routes in {elapsed:?}, {} MiB more", (resident_kib() - before_kib) / 1024);
    assert!(routes > 1_000_000 && elapsed < Duration::from_secs(20));
    let start = Instant::now();
    mirror.resync();
    for event in &events {
        match event {
            KernelEvent::Routes { changes, .. } => panic!("{} changes", changes.len()),
            KernelEvent::Synchronized(_) => break,
            _ => {}
        }
    }
    eprintln!("read again in {:?}", start.elapsed());
}
