use std::collections::{BTreeMap, VecDeque};

use super::*;

fn prefix(number: u32) -> IpNet {
    format!("10.{number}.0.0/16").parse().expect("a prefix")
}

fn via(last: u8) -> Body {
    let via = Some(std::net::Ipv4Addr::new(192, 0, 2, last).into());
    let hop = NextHop { via, ifindex: 1, weight: 1, mtu: 0 };
    Body::Kind(Arc::new(RouteKind::NextHops([hop].into())))
}

fn statement(prefix: IpNet, metric: u32, body: Body) -> RouteStatement {
    RouteStatement {
        table: 254,
        protocol: 4,
        prefix,
        metric,
        object_mtu: 0,
        selector: Selector::default(),
        body,
        ifindex: None,
        local: None,
        dead: false,
        preferred_source: None,
    }
}

/// All changes, folded into what a consumer knows.
fn told(tables: &mut Tables, known: &mut BTreeMap<IpNet, Route>) -> usize {
    tables.settle();
    let mut count = 0;
    while tables.is_dirty() {
        for change in tables.take_changes(7).0 {
            count += 1;
            match change.routes.first() {
                Some(route) => known.insert(change.prefix, route.clone()),
                None => known.remove(&change.prefix),
            };
        }
    }
    count
}

/// A small generator, so that a failure's seed says all.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the kernel sends: news on one socket, pieces of a dump on another. Each is in order, but
/// either may be read late.
enum Sent {
    Added(RouteStatement),
    Deleted(RouteStatement),
}

/// A kernel whose table changes while it is dumped; whatever the two sockets' delays, in the end
/// the consumer knows the kernel's table.
#[test]
fn news_and_dumps_in_any_order_give_the_kernels_table() {
    for seed in 1..400 {
        let mut random = Random(seed);
        let mut kernel: BTreeMap<(IpNet, u32), Body> = BTreeMap::new();
        let mut tables = Tables::new(vec![254]);
        let mut known = BTreeMap::new();
        // Routes from before the mirror started, of which it gets no news.
        for number in 0..20 {
            kernel.insert((prefix(number), number % 3), via(1));
        }
        for _reading in 0..3 {
            let mut news = VecDeque::new();
            let mut pieces = VecDeque::new();
            // Where the kernel is in its table.
            let mut position = Some((prefix(0), 0));
            tables.begin(Version::V4);
            while position.is_some() || !pieces.is_empty() || !news.is_empty() {
                match random.below(4) {
                    0 if position.is_some() => {
                        let prefix = prefix(random.below(24) as u32);
                        let metric = random.below(3) as u32;
                        let key = (prefix, metric);
                        if let Some(old) = kernel.remove(&key)
                            && random.below(2) == 0
                        {
                            news.push_back(Sent::Deleted(statement(prefix, metric, old)));
                        } else {
                            let body = via(random.below(5) as u8);
                            kernel.insert(key, body.clone());
                            news.push_back(Sent::Added(statement(prefix, metric, body)));
                        }
                    }
                    1 => {
                        if let Some(from) = position {
                            let piece: Vec<_> = kernel
                                .range(from..)
                                .take(4)
                                .map(|((prefix, metric), body)| {
                                    statement(*prefix, *metric, body.clone())
                                })
                                .collect();
                            position = piece.last().map(|last| (last.prefix, last.metric + 1));
                            pieces.push_back(piece);
                        }
                    }
                    2 => match news.pop_front() {
                        Some(Sent::Added(route)) => tables.added(route, Placement::Replace),
                        Some(Sent::Deleted(route)) => {
                            tables.deleted(route);
                        }
                        None => {}
                    },
                    _ => {
                        for route in pieces.pop_front().into_iter().flatten() {
                            tables.dumped(route);
                        }
                    }
                }
                if random.below(10) == 0 {
                    told(&mut tables, &mut known);
                }
            }
            tables.finish(Version::V4, 254);
            told(&mut tables, &mut known);
            let mut expected: BTreeMap<IpNet, Route> = BTreeMap::new();
            for ((prefix, metric), body) in &kernel {
                let Body::Kind(kind) = body else { unreachable!("no objects here") };
                expected.entry(*prefix).or_insert_with(|| Route {
                    table: 254,
                    protocol: 4,
                    metric: *metric,
                    kind: Arc::clone(kind),
                });
            }
            assert_eq!(known, expected, "seed {seed}");
            assert_eq!(tables.v4.told, known.len() as u64, "seed {seed}");
            // News that was lost: only the next reading tells.
            kernel.remove(&(prefix(1), 1));
            kernel.insert((prefix(2), 0), via(9));
        }
    }
}

#[test]
fn a_second_reading_of_the_same_table_tells_nothing() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    for reading in 0..3 {
        tables.begin(Version::V4);
        for number in 0..10 {
            tables.dumped(statement(prefix(number), 1, via(1)));
            tables.dumped(statement(prefix(number), 2, via(2)));
        }
        tables.finish(Version::V4, 254);
        assert_eq!(told(&mut tables, &mut known), if reading == 0 { 10 } else { 0 });
    }
}

#[test]
fn a_reading_replaces_before_it_removes() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    tables.added(statement(prefix(1), 0, via(1)), Placement::First);
    told(&mut tables, &mut known);
    tables.begin(Version::V4);
    tables.dumped(statement(prefix(1), 0, via(2)));
    let leads_to = |known: &BTreeMap<IpNet, Route>, via: &str| {
        matches!(&*known[&prefix(1)].kind, RouteKind::NextHops(hops)
            if hops[0].via == Some(via.parse().expect("an address")))
    };
    told(&mut tables, &mut known);
    assert!(leads_to(&known, "192.0.2.1"), "the old route stands in front until the reading ends");
    tables.finish(Version::V4, 254);
    assert_eq!(told(&mut tables, &mut known), 1);
    assert!(leads_to(&known, "192.0.2.2"));
}

#[test]
fn a_change_that_is_undone_is_not_told() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    tables.added(statement(prefix(1), 0, via(1)), Placement::First);
    assert!(tables.deleted(statement(prefix(1), 0, via(1))));
    assert_eq!(told(&mut tables, &mut known), 0);
    assert!(tables.v4.slots.is_empty());
}

#[test]
fn of_two_equal_routes_an_unknown_one_cannot_be_removed() {
    let mut tables = Tables::new(vec![254]);
    tables.added(statement(prefix(1), 0, via(1)), Placement::First);
    tables.added(statement(prefix(1), 0, via(2)), Placement::Last);
    assert!(!tables.deleted(statement(prefix(1), 0, via(3))), "a reading must tell");
    assert!(tables.deleted(statement(prefix(1), 0, via(2))));
    assert!(tables.deleted(statement(prefix(1), 0, via(9))), "the only one it can be");
    assert!(tables.v4.slots.is_empty());
}

#[test]
fn a_route_waits_for_its_object() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    tables.added(statement(prefix(1), 0, Body::Object(5)), Placement::First);
    told(&mut tables, &mut known);
    let unknown = RouteKind::NotExpressible(Reason::UnknownNexthop(5));
    assert_eq!(*known[&prefix(1)].kind, unknown);
    assert_eq!(tables.v4.unexpressible, 1);

    tables.object_set(5, Nexthop::Blackhole, Origin::News);
    assert!(tables.is_dirty());
    assert_eq!(told(&mut tables, &mut known), 1);
    assert_eq!(*known[&prefix(1)].kind, RouteKind::Blackhole);
    assert_eq!(tables.v4.unexpressible, 0);

    tables.object_set(6, Nexthop::Blackhole, Origin::News);
    assert_eq!(told(&mut tables, &mut known), 0, "nobody names object 6");
    tables.object_deleted(5);
    told(&mut tables, &mut known);
    assert!(known.is_empty(), "it goes with its object");
}

#[test]
fn the_routes_of_an_object_that_goes_while_they_are_read_are_not_kept() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    tables.object_set(5, Nexthop::Blackhole, Origin::News);
    tables.object_set(6, Nexthop::Blackhole, Origin::News);
    let by_object = |number, id| statement(prefix(number), 0, Body::Object(id));
    tables.added(by_object(1, 5), Placement::First);
    tables.begin(Version::V4);
    tables.object_deleted(5);
    told(&mut tables, &mut known);
    // What the kernel wrote before, of a route that was known and of one that was not.
    tables.dumped(by_object(1, 5));
    tables.dumped(by_object(2, 5));
    tables.dumped(by_object(3, 6));
    tables.finish(Version::V4, 254);
    told(&mut tables, &mut known);
    assert_eq!(known.keys().copied().collect::<Vec<_>>(), [prefix(3)]);

    tables.begin(Version::V4);
    tables.object_deleted(6);
    assert!(!tables.object_set(6, Nexthop::Blackhole, Origin::News), "a dump must tell whose 3 is");
    tables.finish(Version::V4, 254);
    assert!(tables.object_set(6, Nexthop::Blackhole, Origin::News));
}

#[test]
fn a_peer_of_a_route_that_goes_during_a_reading_stays() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    tables.added(statement(prefix(1), 0, via(1)), Placement::First);
    tables.added(statement(prefix(1), 0, via(2)), Placement::Last);
    tables.begin(Version::V4);
    tables.deleted(statement(prefix(1), 0, via(1)));
    tables.dumped(statement(prefix(1), 0, via(1)));
    tables.dumped(statement(prefix(1), 0, via(2)));
    tables.finish(Version::V4, 254);
    told(&mut tables, &mut known);
    let Body::Kind(kind) = via(2) else { unreachable!("no object here") };
    assert_eq!(known.get(&prefix(1)).map(|route| &route.kind), Some(&kind));
}

#[test]
fn an_object_that_comes_and_goes_at_once_leaves_nothing_to_do() {
    let mut tables = Tables::new(vec![254]);
    tables.object_set(5, Nexthop::Blackhole, Origin::News);
    tables.object_deleted(5);
    tables.settle();
    assert!(!tables.is_dirty());
}

/// The metric `mtu` is the route's, whatever object it names: two routes by one object may differ in it.
#[test]
fn the_mtu_of_a_route_holds_for_the_next_hops_of_its_object() {
    let (mut tables, mut known) = (Tables::default(), BTreeMap::new());
    let hop = |mtu| NextHop { via: None, ifindex: 3, weight: 1, mtu };
    let by_object = |number, object_mtu| RouteStatement {
        object_mtu,
        ..statement(prefix(number), 0, Body::Object(5))
    };
    tables.added(by_object(1, 1300), Placement::First);
    tables.added(by_object(2, 0), Placement::First);
    tables.object_set(5, Nexthop::Hop(hop(0)), Origin::News);
    told(&mut tables, &mut known);
    assert_eq!(*known[&prefix(1)].kind, RouteKind::NextHops([hop(1300)].into()));
    assert_eq!(*known[&prefix(2)].kind, RouteKind::NextHops([hop(0)].into()));
}

#[test]
fn targets_that_nobody_uses_are_dropped() {
    let (mut tables, mut known) = (Tables::new(vec![254]), BTreeMap::new());
    for metric in 0..100_000 {
        // The metric of a route is no part of its target; its next hop's interface is.
        let kind = RouteKind::NextHops(
            [NextHop { via: None, ifindex: metric + 1, weight: 1, mtu: 0 }].into(),
        );
        tables.added(statement(prefix(1), 0, Body::Kind(kind.into())), Placement::Replace);
    }
    told(&mut tables, &mut known);
    assert!(tables.interner.targets.len() <= 2048, "{}", tables.interner.targets.len());
}
