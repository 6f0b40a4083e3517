//! The RIB against a naive model, after every one of many random changes of several sources.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::*;
use crate::kernel::{NextHop, Reason, Route, RouteKind};
use crate::publication::host_view::{InterfaceView, NextHopView};
use crate::publication::{Changes, Publication};
use tables::{NextHopGroup, Reader};
use wire::MacAddress;

/// A small generator, so that a failure's seed says all.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % bound
    }

    fn of<T: Copy>(&mut self, list: &[T]) -> T {
        list[usize::try_from(self.below(list.len() as u64)).expect("a position")]
    }
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const CONFIG: &str = r#"
[[interface]]
name = "lan0"
role = "inside"
[[interface]]
name = "wan0"
role = "outside"
"#;

pub(super) fn config(rest: &str) -> Checked {
    Checked::parse(&format!("{CONFIG}{rest}"), "sluice.toml").expect("a configuration")
}

pub(super) fn host() -> HostView {
    let interface = |addresses: &[&str]| InterfaceView {
        mac: MacAddress::default(),
        mtu: 1500,
        addresses: addresses.iter().map(|text| net(text)).collect(),
    };
    HostView {
        interfaces: vec![
            interface(&["10.0.0.1/24"]),
            interface(&["10.1.0.1/24", "2001:db8::1/64"]),
        ],
        locals: [ip("10.0.0.1"), ip("10.1.0.1"), ip("2001:db8::1")].into(),
        links: [(3, InterfaceId(0)), (4, InterfaceId(1))].into(),
        ..HostView::default()
    }
}

fn via(ifindex: u32, last: u8) -> NextHop {
    NextHop { via: Some(Ipv4Addr::new(10, 1, 0, last).into()), ifindex, weight: 1, mtu: 0 }
}

fn hops(hops: &[NextHop]) -> RouteKind {
    RouteKind::NextHops(hops.into())
}

/// What routes of the kernel lead to here. Interface 9 is not the router's.
fn kinds() -> Vec<RouteKind> {
    vec![
        hops(&[via(4, 2)]),
        hops(&[via(4, 3)]),
        hops(&[via(4, 2), via(4, 3)]),
        hops(&[NextHop { weight: 5, ..via(4, 2) }, via(4, 3), via(3, 4)]),
        hops(&[NextHop { mtu: 1400, ..via(4, 2) }]),
        hops(&[NextHop { via: None, ..via(4, 2) }]),
        hops(&[via(4, 2), NextHop { via: None, ..via(3, 2) }]),
        hops(&[via(9, 2)]),
        hops(&[via(4, 2), via(9, 3)]),
        RouteKind::Blackhole,
        RouteKind::Unreachable,
        RouteKind::Prohibit,
        RouteKind::Local,
        RouteKind::NotExpressible(Reason::Throw),
        RouteKind::NotExpressible(Reason::UnknownNexthop(7)),
    ]
}

/// A kernel's kind, worked out by hand: what the packet path does, and the label of why it can't.
fn expected(
    kind: &RouteKind,
    links: &HashMap<u32, InterfaceId>,
) -> (RouteView, Option<&'static str>) {
    match kind {
        RouteKind::Blackhole => (RouteView::Blackhole, None),
        RouteKind::Unreachable => (RouteView::Unreachable, None),
        RouteKind::Prohibit => (RouteView::Prohibit, None),
        RouteKind::Local => (RouteView::Kernel, None),
        RouteKind::NotExpressible(reason) => (RouteView::Kernel, Some(reason.label())),
        RouteKind::NextHops(hops) => {
            if hops.iter().any(|hop| !links.contains_key(&hop.ifindex)) {
                return (RouteView::Kernel, Some("foreign-interface"));
            }
            if hops.len() > 1 && hops.iter().any(|hop| hop.via.is_none()) {
                return (RouteView::Kernel, Some("on-link-member"));
            }
            let view = |hop: &NextHop| NextHopView {
                interface: links[&hop.ifindex],
                via: hop.via,
                weight: hop.weight.try_into().expect("a weight"),
                mtu: hop.mtu.try_into().expect("an MTU"),
            };
            (RouteView::NextHops(hops.iter().map(view).collect()), None)
        }
    }
}

/// What the model knows of one candidate: place, metric, then what it is.
type Known = (u16, u32, &'static str, RouteView, Option<&'static str>);

/// Everything written down, nothing kept up to date.
#[derive(Default)]
struct Model {
    kernel: BTreeMap<IpNet, Vec<(u32, u8, u32, RouteKind)>>,
    own: BTreeSet<IpAddr>,
    machine: BTreeMap<IpNet, RouteView>,
    statics: BTreeMap<IpNet, RouteView>,
    held: BTreeMap<IpNet, (u64, RouteView)>,
    links: HashMap<u32, InterfaceId>,
    down: HashSet<InterfaceId>,
    /// Places of: static, BIRD (12), all other protocols.
    places: [u16; 3],
}

impl Model {
    fn candidates(&self, prefix: IpNet) -> Vec<Known> {
        let (mut all, mut second) = (Vec::new(), Vec::new());
        if self.own.iter().any(|address| IpNet::from(*address) == prefix) {
            all.push((0, 0, "own-address", RouteView::Kernel, None));
        }
        if let Some(view) = self.statics.get(&prefix) {
            all.push((self.places[0], 0, "static", view.clone(), None));
        }
        if let Some(view) = self.machine.get(&prefix) {
            let why = (*view == RouteView::Kernel).then_some("described");
            all.push((self.places[2], 0, "machine", view.clone(), why));
        }
        let kernel = self.kernel.get(&prefix).into_iter().flatten();
        // The main table first, whatever the metrics.
        for (table, protocol, metric, kind) in kernel {
            let place = self.places[if *protocol == 12 { 1 } else { 2 }];
            let (view, why) = expected(kind, &self.links);
            let known = (place, *metric, "kernel", view, why);
            if *table == 254 { all.push(known) } else { second.push(known) }
        }
        if let Some((_, view)) = self.held.get(&prefix) {
            all.push((u16::MAX, 0, "withdrawn", view.clone(), None));
        }
        all.sort_by_key(|known| (known.0, known.1));
        second.sort_by_key(|known| (known.0, known.1));
        all.extend(second);
        all.sort_by_key(|known| known.0);
        all
    }

    fn prefixes(&self) -> BTreeSet<IpNet> {
        self.kernel
            .keys()
            .chain(self.machine.keys())
            .chain(self.statics.keys())
            .chain(self.held.keys())
            .copied()
            .chain(self.own.iter().map(|address| IpNet::from(*address)))
            .collect()
    }

    fn forwards(&self, view: &RouteView) -> bool {
        match view {
            RouteView::NextHops(hops) => {
                hops.iter().all(|hop| hop.via.is_some() && !self.down.contains(&hop.interface))
            }
            _ => false,
        }
    }

    /// A source may have taken the last route of a prefix away: `before` was in force.
    fn withdrawn(&mut self, prefix: IpNet, before: Option<Known>, until: u64) {
        let held = self.held.remove(&prefix);
        if !self.candidates(prefix).is_empty() {
            return;
        }
        if held.is_some() {
            // Nothing but the held route was there, and it goes on.
            self.held.extend(held.map(|held| (prefix, held)));
        } else if let Some((_, _, _, view, None)) = before
            && self.forwards(&view)
            && until > 0
        {
            self.held.insert(prefix, (until, view));
        }
    }

    fn lookup(&self, address: IpAddr) -> Option<RouteView> {
        let holding = self.prefixes().into_iter().filter(|prefix| prefix.contains(&address));
        let longest = holding.max_by_key(IpNet::prefix_len)?;
        self.candidates(longest).into_iter().next().map(|known| known.3)
    }
}

fn universe() -> Vec<IpNet> {
    let mut all = Vec::new();
    for text in
        ["0.0.0.0/0", "20.0.0.0/8", "20.1.0.0/16", "20.1.2.0/24", "20.1.2.128/25", "20.1.2.3/32"]
    {
        all.push(net(text));
    }
    for third in 0..6 {
        all.push(net(&format!("20.2.{third}.0/24")));
        all.push(net(&format!("20.2.{third}.64/26")));
    }
    for text in ["::/0", "2001:db8:1::/48", "2001:db8:1:2::/64", "2001:db8:1:2::3/128"] {
        all.push(net(text));
    }
    all
}

fn run(seed: u64, steps: u64, hold_ms: u64, preference: &str, places: [u16; 3]) {
    let text = format!("[routes]\nwithdraw_hold_ms = {hold_ms}\npreference = [{preference}]\n");
    let config = config(&text);
    let mut host = host();
    let mut publication =
        Publication::new(Arc::new(config.clone()), &host, 3).expect("a publication");
    let mut workers: Vec<Reader> = (0..3).map(|_| publication.reader()).collect();
    let start = publication.rib.now;
    let mut random = Random(seed * 0x9e37_79b9 + 1);
    let mut model = Model {
        own: host.locals.iter().copied().collect(),
        links: host.links.clone(),
        places,
        ..Model::default()
    };
    // Of the connected prefixes; they are derived and compared elsewhere.
    let broadcasts: BTreeSet<IpNet> = derive::broadcasts(&host).collect();
    let (universe, kinds) = (universe(), kinds());
    let mut time_ms = 0;
    for step in 0..steps {
        let prefix = random.of(&universe);
        let before = model.candidates(prefix).into_iter().next();
        let until = if hold_ms == 0 { 0 } else { time_ms + hold_ms };
        match random.below(22) {
            0..=11 => {
                let mut routes: Vec<(u32, u8, u32, RouteKind)> = (0..random
                    .of(&[0, 1, 1, 1, 2, 3]))
                    .map(|_| {
                        let kind = kinds[random.below(kinds.len() as u64) as usize].clone();
                        let metric = random.of(&[0, 20, 32, 1024]);
                        (random.of(&[254, 100]), random.of(&[3, 12, 186]), metric, kind)
                    })
                    .collect();
                // As the mirror gives them: by table, then by metric.
                routes.sort_by_key(|(table, _, metric, _)| (*table != 254, *metric));
                let told = routes
                    .iter()
                    .map(|(table, protocol, metric, kind)| Route {
                        table: *table,
                        protocol: *protocol,
                        metric: *metric,
                        kind: Arc::new(kind.clone()),
                    })
                    .collect();
                publication.rib.kernel_changed(&RouteChange { prefix, routes: told });
                if routes.is_empty() {
                    model.kernel.remove(&prefix);
                } else {
                    model.kernel.insert(prefix, routes);
                }
                model.withdrawn(prefix, before, until);
            }
            12 | 13 => {
                let view = random.of(&[0, 1, 2]);
                let view = match view {
                    0 => None,
                    1 => Some(RouteView::Kernel),
                    _ => Some(expected(&kinds[random.below(4) as usize], &model.links).0),
                };
                match &view {
                    Some(view) => {
                        host.routes.insert(prefix, Arc::new(view.clone()));
                        model.machine.insert(prefix, view.clone());
                    }
                    None => {
                        host.routes.remove(&prefix);
                        model.machine.remove(&prefix);
                    }
                }
                publication.rib.follow_host(&config, &host, false);
                model.withdrawn(prefix, before, until);
            }
            14 => {
                let address = ip(random.of(&["20.1.2.3", "2001:db8:1:2::3", "10.1.0.9"]));
                let prefix = IpNet::from(address);
                let before = model.candidates(prefix).into_iter().next();
                if host.locals.remove(&address) {
                    model.own.remove(&address);
                    // An address is no route: nothing is held for it.
                    if model.candidates(prefix).is_empty() {
                        model.held.remove(&prefix);
                    }
                } else {
                    host.locals.insert(address);
                    model.own.insert(address);
                    model.withdrawn(prefix, before, 0);
                }
                publication.rib.follow_host(&config, &host, false);
            }
            // Rarely: tables are built aside, which is what takes the time here.
            15 if random.below(6) == 0 => {
                let text = match random.below(3) {
                    0 => String::new(),
                    _ => format!("[[route]]\nprefix = \"{prefix}\"\ntype = \"prohibit\"\n"),
                };
                let config = self::config(&format!("{}{text}", self::text(hold_ms, preference)));
                let old: Vec<_> = model.statics.keys().copied().collect();
                let befores: Vec<_> =
                    old.iter().map(|prefix| model.candidates(*prefix).into_iter().next()).collect();
                model.statics.clear();
                if !text.is_empty() {
                    model.statics.insert(prefix, RouteView::Prohibit);
                }
                let prepared = publication.prepare(Arc::new(config), &host).expect("tables");
                publication.config_changed(prepared, &host);
                for (prefix, before) in old.into_iter().zip(befores) {
                    model.withdrawn(prefix, before, until);
                }
                if !text.is_empty() {
                    model.withdrawn(prefix, before, until);
                }
            }
            16 => {
                // The interface comes back under another number, or one more is the router's.
                host.links = match random.below(3) {
                    0 => [(3, InterfaceId(0)), (4, InterfaceId(1))].into(),
                    1 => [(3, InterfaceId(0)), (9, InterfaceId(1))].into(),
                    _ => [(3, InterfaceId(1)), (4, InterfaceId(0))].into(),
                };
                model.links = host.links.clone();
                // What is held is held in the router's terms here, in the kernel's there.
                let held: Vec<IpNet> = model.held.keys().copied().collect();
                for prefix in held {
                    model.held.remove(&prefix);
                    publication.rib.set(prefix, Class::Withdrawn, &[]);
                }
                publication.rib.follow_host(&config, &host, false);
            }
            17 => {
                host.down = match random.below(3) {
                    0 => [InterfaceId(1)].into(),
                    _ => HashSet::new(),
                };
                model.down = host.down.clone();
                publication.rib.follow_host(&config, &host, false);
                let model_forwards: Vec<IpNet> = model
                    .held
                    .iter()
                    .filter(|(_, (_, view))| !model.forwards(view))
                    .map(|(prefix, _)| *prefix)
                    .collect();
                model_forwards.iter().for_each(|prefix| {
                    model.held.remove(prefix);
                });
            }
            _ => {
                time_ms += random.below(40);
                publication.rib.tick(start + Duration::from_millis(time_ms));
                model.held.retain(|_, (until, _)| *until > time_ms);
            }
        }

        let place = format!("seed {seed}, step {step}, {prefix}");
        compare(&publication.rib, &model, &universe, &broadcasts, &place);
        if random.below(4) == 0 {
            publication.host_changed(&host, EVERYTHING).expect("tables");
        }
        // Some workers look, and some are late.
        for worker in &mut workers {
            if random.below(3) == 0 {
                worker.refresh();
            }
        }
        if random.below(2) == 0 {
            publication.collect();
        }
        workers.iter().for_each(|worker| sound(worker, &publication, &mut random, &place));
        if random.below(20) == 0 {
            publication.host_changed(&host, EVERYTHING).expect("tables");
            while publication.is_waiting() {
                workers.iter_mut().for_each(|worker| {
                    worker.refresh();
                });
                publication.collect();
            }
            compare_fibs(&publication, &model, &broadcasts, &mut random, &place);
        }
    }
    // Everything goes, and nothing is left behind.
    for prefix in universe {
        publication
            .rib
            .kernel_changed(&RouteChange { prefix, routes: crate::kernel::Routes::new() });
    }
    let nothing = Arc::new(self::config(""));
    let prepared = publication.prepare(nothing, &HostView::default()).expect("tables");
    publication.config_changed(prepared, &HostView::default());
    publication.tick(start + Duration::from_secs(3600));
    publication.host_changed(&HostView::default(), EVERYTHING).expect("tables");
    drop(workers);
    publication.collect();
    publication.collect();
    let counts = publication.counts();
    assert_eq!((counts.v4, counts.v6, counts.targets, counts.groups), (0, 0, 0, 0));
    let rib = &publication.rib;
    assert_eq!((rib.groups.waiting(), rib.adjacencies.len(), rib.withdrawn.len()), (0, 0, 0));
    assert!(counts.by_source.is_empty() && counts.unexpressible == 0, "{counts:?}");
}

const EVERYTHING: Changes = Changes { routes: true, neighbors: true };

/// Whatever a worker finds in tables that change under it, it can follow to the end: to an adjacency of its
/// own snapshot, and to the one that the group means.
fn sound(worker: &Reader, publication: &Publication, random: &mut Random, place: &str) {
    let snapshot = worker.snapshot();
    let is_current = Arc::ptr_eq(&snapshot.groups, &publication.rib.groups());
    for _ in 0..4 {
        let third = random.of(&[0, 1, 2, 3, 7]);
        let address = Ipv4Addr::new(20, random.of(&[1, 2]), third, random.below(256) as u8);
        let id = snapshot.fib4.lookup(address.to_bits());
        if id.is_none() {
            continue;
        }
        let group = snapshot.groups.copy(id).unwrap_or_else(|| panic!("{place}: no group {id:?}"));
        let NextHopGroup::Adjacencies(members) = group else { continue };
        let members: BTreeSet<_> = members.iter().collect();
        for member in members {
            let adjacency = snapshot.adjacency(*member);
            let adjacency = adjacency.unwrap_or_else(|| panic!("{place}: no adjacency {member:?}"));
            let content = publication.rib.groups.content(id);
            let is_meant = match content {
                Some(
                    Content::Route(RouteView::NextHops(hops))
                    | Content::DefaultRoute(RouteView::NextHops(hops)),
                ) => hops.iter().any(|hop| {
                    (hop.interface, hop.via) == (adjacency.interface, Some(adjacency.address))
                }),
                _ => false,
            };
            assert!(
                is_meant || !is_current,
                "{place}: {address} to {adjacency:?}, not {content:?}"
            );
        }
    }
}

fn text(hold_ms: u64, preference: &str) -> String {
    format!("[routes]\nwithdraw_hold_ms = {hold_ms}\npreference = [{preference}]\n")
}

fn compare(
    rib: &Rib,
    model: &Model,
    universe: &[IpNet],
    broadcasts: &BTreeSet<IpNet>,
    place: &str,
) {
    let shown: BTreeMap<IpNet, PrefixView> = rib
        .from(None)
        .filter(|view| !broadcasts.contains(&view.prefix))
        .map(|view| (view.prefix, view))
        .collect();
    assert_eq!(shown.keys().copied().collect::<BTreeSet<_>>(), model.prefixes(), "{place}");
    let mut by_source: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    let mut by_reason: BTreeMap<&str, usize> = BTreeMap::new();
    let mut contents = HashSet::new();
    for prefix in universe.iter().copied().chain(model.prefixes()) {
        let expected = model.candidates(prefix);
        let view = shown.get(&prefix);
        let known: Vec<Known> = view
            .map(|view| &*view.candidates)
            .unwrap_or_default()
            .iter()
            .map(|candidate| {
                let CandidateView { place, metric, source, route, unexpressible } = candidate;
                let why = unexpressible.map(Unexpressible::label);
                (*place, *metric, source.label(), route.clone(), why)
            })
            .collect();
        assert_eq!(known, expected, "{place}: {prefix}");
    }
    for view in shown.values() {
        let CandidateView { source, unexpressible, route, .. } = &view.candidates[0];
        let family = usize::from(matches!(view.prefix, IpNet::V6(_)));
        by_source.entry(source.label()).or_default()[family] += 1;
        if let Some(why) = unexpressible {
            *by_reason.entry(why.label()).or_default() += 1;
        }
        // The default routes have groups of their own.
        contents.insert((view.prefix.prefix_len() == 0, route.clone()));
        assert_eq!(view.held_for.is_some(), model.held.contains_key(&view.prefix), "{place}");
    }
    let counts = rib.counts();
    let mut counted = counts.by_source.clone();
    counted.remove("broadcast");
    assert_eq!(counted, by_source, "{place}");
    assert_eq!(counts.unexpressible_by_reason, by_reason, "{place}");
    assert_eq!(counts.withdrawn, model.held.len(), "{place}");
    assert_eq!(
        counts.groups,
        contents.len()
            + usize::from(!broadcasts.is_empty() && counts.by_source.contains_key("broadcast")),
        "{place}"
    );
}

fn compare_fibs(
    publication: &Publication,
    model: &Model,
    broadcasts: &BTreeSet<IpNet>,
    random: &mut Random,
    place: &str,
) {
    let snapshot = publication.current();
    let (fib4, fib6) = (&snapshot.fib4, &snapshot.fib6);
    for _ in 0..50 {
        let address: IpAddr = if random.below(3) > 0 {
            let [a, b] = [random.of(&[1_u8, 2]), random.of(&[0, 1, 2, 3, 7])];
            Ipv4Addr::new(20, a, b, random.below(256) as u8).into()
        } else {
            ip(random.of(&["2001:db8:1:2::3", "2001:db8:1:2::4", "2001:db8:1:3::", "2001:db8::7"]))
        };
        if broadcasts.contains(&IpNet::from(address)) {
            continue;
        }
        let id = match address {
            IpAddr::V4(address) => fib4.lookup(address.to_bits()),
            IpAddr::V6(address) => fib6.lookup(address.to_bits()),
        };
        assert_eq!(id, publication.rib.lookup(address), "{place}: {address}");
        let expected = model.lookup(address);
        let group = snapshot.groups.copy(id);
        let agrees = match (&expected, &group) {
            (None, None) => true,
            (Some(RouteView::Kernel), Some(NextHopGroup::Local))
            | (Some(RouteView::Blackhole), Some(NextHopGroup::Blackhole))
            | (Some(RouteView::Prohibit), Some(NextHopGroup::Prohibit))
            | (Some(RouteView::Unreachable), Some(NextHopGroup::Unreachable)) => true,
            (Some(RouteView::NextHops(hops)), Some(NextHopGroup::Glean { interface, .. })) => {
                hops.len() == 1 && hops[0].via.is_none() && hops[0].interface == *interface
            }
            (Some(RouteView::NextHops(hops)), Some(NextHopGroup::Adjacencies(members))) => {
                let ids: BTreeSet<_> = members.iter().collect();
                ids.len() == hops.len()
            }
            _ => false,
        };
        assert!(agrees, "{place}: {address} leads to {group:?}, not to {expected:?}");
    }
}

#[test]
fn after_every_change_the_rib_is_what_a_naive_model_says() {
    for seed in 1..=3 {
        run(seed, 1500, 0, "\"static\", \"kernel\"", [2, 3, 3]);
    }
}

#[test]
fn so_it_is_with_holds_and_another_preference() {
    for seed in 10..=12 {
        run(seed, 1500, 100, "\"kernel:bird\", \"static\", \"kernel\"", [3, 2, 4]);
    }
}

/// As rules of the kernel would ask one table after the other.
#[test]
fn the_table_that_is_named_first_wins_whatever_the_metrics() {
    for (tables, metrics, first) in
        [("[254, 100]", [50, 10], 2), ("[100, 254]", [10, 50], 3), ("[254, 100]", [10, 50], 2)]
    {
        let config = config(&format!("[kernel]\ntables = {tables}\n"));
        let mut rib = Rib::new(&config, &host()).expect("a RIB");
        let route = |table, metric, last| Route {
            table,
            protocol: 4,
            metric,
            kind: Arc::new(hops(&[via(4, last)])),
        };
        let prefix = net("20.0.0.0/8");
        let routes = [route(254, metrics[0], 2), route(100, metrics[1], 3)].into_iter().collect();
        rib.kernel_changed(&RouteChange { prefix, routes });
        let view = rib.exact(prefix).expect("the prefix");
        let RouteView::NextHops(hops) = &view.candidates[0].route else {
            panic!("{view:?}");
        };
        let expected = ip(&format!("10.1.0.{first}"));
        assert_eq!(hops[0].via, Some(expected), "{tables}, metrics {metrics:?}");
    }
}

/// The hold in time: it begins with the last route's end and no later, and any route ends it.
#[test]
fn a_withdrawn_route_is_held_for_its_time() {
    let config = config("[routes]\nwithdraw_hold_ms = 1000\n");
    let mut rib = Rib::new(&config, &host()).expect("a RIB");
    let start = rib.now;
    let prefix = net("20.0.0.0/8");
    let tell = |rib: &mut Rib, kinds: &[RouteKind]| {
        let route = |kind: &RouteKind| Route {
            table: 254,
            protocol: 12,
            metric: 32,
            kind: Arc::new(kind.clone()),
        };
        rib.kernel_changed(&RouteChange { prefix, routes: kinds.iter().map(route).collect() });
    };
    tell(&mut rib, &[hops(&[via(4, 2)])]);
    let forwarding = rib.lookup(ip("20.1.1.1"));
    tell(&mut rib, &[]);
    assert_eq!(rib.lookup(ip("20.1.1.1")), forwarding, "it goes on");
    assert_eq!(rib.counts().withdrawn, 1);
    assert!(!rib.tick(start + Duration::from_millis(999)));
    assert_eq!(rib.lookup(ip("20.1.1.1")), forwarding);
    assert!(rib.tick(start + Duration::from_millis(1000)));
    assert!(rib.lookup(ip("20.1.1.1")).is_none(), "its time is over");
    // A new route ends it, and its end begins a new time.
    tell(&mut rib, &[hops(&[via(4, 2)])]);
    tell(&mut rib, &[]);
    tell(&mut rib, &[hops(&[via(4, 3)])]);
    assert_ne!(rib.lookup(ip("20.1.1.1")), forwarding);
    assert_eq!(rib.counts().withdrawn, 0);
    tell(&mut rib, &[]);
    assert!(!rib.tick(start + Duration::from_millis(1999)), "not the time of the first hold");
    assert!(rib.tick(start + Duration::from_millis(2000)));
    // What dropped packets is not held.
    tell(&mut rib, &[RouteKind::Blackhole]);
    tell(&mut rib, &[]);
    assert!(rib.lookup(ip("20.1.1.1")).is_none());
}

/// Flows stay where they are when a next hop of their route goes, and come back when it does.
#[test]
fn flows_stay_with_next_hops_that_stay() {
    let mut rib = Rib::new(&config(""), &host()).expect("a RIB");
    let prefix = net("20.0.0.0/8");
    let mut table = |members: &[u8]| -> Vec<IpAddr> {
        let all: Vec<NextHop> = members.iter().map(|last| via(4, *last)).collect();
        let kind = Arc::new(hops(&all));
        let route = Route { table: 254, protocol: 12, metric: 32, kind };
        rib.kernel_changed(&RouteChange { prefix, routes: [route].into_iter().collect() });
        let (adjacencies, _) = rib.adjacencies.resolve(&config(""), &host());
        let id = rib.lookup(ip("20.0.0.1"));
        let Some(NextHopGroup::Adjacencies(buckets)) = rib.groups().copy(id) else {
            panic!("a group")
        };
        buckets.iter().map(|id| adjacencies[id.0 as usize].address).collect()
    };
    let all = table(&[2, 3, 4, 5]);
    let without = table(&[2, 3, 5]);
    let gone = ip("10.1.0.4");
    let moved = all.iter().zip(&without).filter(|(before, after)| before != after).count();
    assert_eq!(moved, all.iter().filter(|address| **address == gone).count(), "only those of one");
    assert!(moved * 4 > all.len() / 2 && moved * 4 < all.len() * 2, "{moved} of {}", all.len());
    assert_eq!(table(&[5, 4, 3, 2]), all, "as before, in whatever order");
}

/// A host that comes and goes does not wait for the table to be built anew, which follows when it is quiet.
#[test]
fn single_hosts_are_patched_in_and_the_table_is_built_anew_later() {
    let config = Arc::new(config(""));
    let mut publication = Publication::new(config, &host(), 1).expect("a publication");
    let start = Instant::now();
    let tell = |publication: &mut Publication, texts: &[&str], is_there: bool| {
        let change = |text: &&str| {
            let route = Route {
                table: 254,
                protocol: 12,
                metric: 32,
                kind: Arc::new(RouteKind::Blackhole),
            };
            RouteChange {
                prefix: net(text),
                routes: is_there.then_some(route).into_iter().collect(),
            }
        };
        let changes: Vec<_> = texts.iter().map(change).collect();
        publication.kernel_routes(&changes, start);
        let changes = Changes { routes: true, neighbors: false };
        publication.host_changed(&host(), changes).expect("it fits");
    };
    let look = |publication: &Publication, address: &str| {
        let snapshot = publication.current();
        let IpAddr::V6(address) = ip(address) else { panic!("{address} is not of IPv6") };
        snapshot.groups.copy(snapshot.fib6.lookup(address.to_bits()))
    };
    let patches = |publication: &Publication| publication.current().fib6.patches();
    tell(&mut publication, &["2001:db8:1:2::3/128"], true);
    assert_eq!(look(&publication, "2001:db8:1:2::3"), Some(NextHopGroup::Blackhole));
    assert_eq!((look(&publication, "2001:db8:1:2::4"), patches(&publication)), (None, 1));
    tell(&mut publication, &["2001:db8:1:2::3/128"], false);
    assert_eq!((look(&publication, "2001:db8:1:2::3"), patches(&publication)), (None, 1));
    assert!(!publication.tick(start));
    assert!(publication.tick(Instant::now() + std::time::Duration::from_secs(1)), "it is due");
    tell(&mut publication, &["2001:db8:1:2::5/128"], true);
    assert_eq!(patches(&publication), 0);
    assert_eq!(look(&publication, "2001:db8:1:2::5"), Some(NextHopGroup::Blackhole));
    // Shorter prefixes, or too many of them, have the table built at once.
    tell(&mut publication, &["2001:db8:1:2::6/128", "2001:db8:1::/48"], true);
    assert_eq!(patches(&publication), 0);
    assert_eq!(look(&publication, "2001:db8:1:7::6"), Some(NextHopGroup::Blackhole));
    let many: Vec<String> = (0..300).map(|n| format!("2001:db8:2:{n:x}::/64")).collect();
    tell(&mut publication, &many.iter().map(String::as_str).collect::<Vec<_>>(), true);
    assert_eq!(patches(&publication), 0);
}

/// Routes that come and go in one batch lead where the longest of those that are left does, whatever lies
/// around and within them.
#[test]
fn routes_that_change_together_leave_nothing_of_those_that_went() {
    let mut random = Random(4711);
    let mut publication =
        Publication::new(Arc::new(config("")), &host(), 1).expect("a publication");
    let mut worker = publication.reader();
    let start = Instant::now();
    let kinds = [RouteKind::Blackhole, RouteKind::Prohibit, RouteKind::Unreachable];
    let mut known: BTreeMap<Ipv4Net, usize> = BTreeMap::new();
    for round in 0..100 {
        let mut next = known.clone();
        // Every other round most of them go.
        let left = if round % 2 == 0 { 7 } else { 1 };
        next.retain(|_, _| random.below(8) < left);
        for _ in 0..random.below(if round % 2 == 0 { 100 } else { 4 }) {
            // Often they begin where the prefixes around them begin.
            let address = Ipv4Addr::new(20, 3, random.below(32) as u8, random.of(&[0, 0, 64, 130]));
            let len = random.of(&[0, 8, 19, 23, 24, 24, 24, 25, 26, 26, 31, 32]);
            let prefix = Ipv4Net::new(address, len).expect("a length").trunc();
            next.insert(prefix, random.below(3) as usize);
        }
        let changed = |prefix: &&Ipv4Net| known.get(prefix) != next.get(prefix);
        let prefixes: BTreeSet<_> = known.keys().chain(next.keys()).filter(changed).collect();
        let change = |prefix: &Ipv4Net| {
            let route = next.get(prefix).map(|kind| Route {
                table: 254,
                protocol: 12,
                metric: 32,
                kind: Arc::new(kinds[*kind].clone()),
            });
            RouteChange { prefix: (*prefix).into(), routes: route.into_iter().collect() }
        };
        let changes: Vec<_> = prefixes.into_iter().map(change).collect();
        known = next;
        publication.kernel_routes(&changes, start);
        let changes = Changes { routes: true, neighbors: false };
        publication.host_changed(&host(), changes).expect("it fits");
        while publication.is_waiting() {
            worker.refresh();
            publication.collect();
        }
        let snapshot = publication.current();
        let hosts = [0, 1, 63, 64, 66, 127, 128, 130, 131, 200, 255];
        let blocks = (0..32).flat_map(|third| hosts.map(|fourth| [20, 3, third, fourth]));
        for address in blocks.map(Ipv4Addr::from) {
            let around = known.iter().filter(|(prefix, _)| prefix.contains(&address));
            let expected = around.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, n)| *n);
            let expected = expected.map(|kind| match kind {
                0 => NextHopGroup::Blackhole,
                1 => NextHopGroup::Prohibit,
                _ => NextHopGroup::Unreachable,
            });
            let found = snapshot.groups.copy(snapshot.fib4.lookup(address.to_bits()));
            assert_eq!(found, expected, "round {round}: {address}");
        }
        let audits = publication.audit_routes().expect("no change is left");
        assert!(audits[0].routes >= known.len() as u64, "round {round}: {audits:?}");
        assert_eq!(audits.map(|audit| audit.first), [[], []], "round {round}");
    }
}
