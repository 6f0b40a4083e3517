//! What plugins' numbers mean, while next hops come and go.

use std::collections::BTreeSet;
use std::sync::Arc;

use tables::{Actions, AdjacencyState, Detour, Group, RouteId, Snapshot, Way};
use wire::MacAddress;

use super::tests::{config, host, ip};
use super::*;
use crate::publication::{Changes, NeighborView, Publication};

const ACTIONS: &str = r#"
[[next_hop]]
name = "a"
via = "10.0.0.8"
[[next_hop]]
name = "b"
via = "10.1.0.8"
mtu = 1000
[[next_hop]]
name = "nowhere"
via = "203.0.113.1"
[[egress_tag]]
name = "both"
next_hops = [{ next_hop = "a", weight = 3 }, "b", "nowhere"]
[[egress_tag]]
name = "lost"
next_hops = ["nowhere"]
[[class]]
name = "voice"
dscp = 46
"#;

const A: (InterfaceId, &str) = (InterfaceId(0), "10.0.0.8");
const B: (InterfaceId, &str) = (InterfaceId(1), "10.1.0.8");

fn tell(host: &mut HostView, (interface, address): (InterfaceId, &str), state: AdjacencyState) {
    let mac = (state == AdjacencyState::Resolved).then_some(MacAddress([2, 0, 0, 0, 0, 9]));
    host.neighbors.insert((interface, ip(address)), NeighborView { mac, state });
}

/// How many parts of a group's flows go to each address.
fn shares(snapshot: &Snapshot, route: RouteId) -> BTreeMap<IpAddr, usize> {
    let members: Vec<_> = match snapshot.group(route) {
        Some(Group::Adjacency(only)) => vec![only],
        Some(Group::Adjacencies(members)) => members.iter().collect(),
        _ => Vec::new(),
    };
    let mut shares = BTreeMap::new();
    for member in members {
        *shares.entry(snapshot.adjacency(member).unwrap().address).or_default() += 1;
    }
    shares
}

/// The group of a detour that is no tunnel.
fn group_of(detour: &Detour) -> RouteId {
    let Way::Group(route) = detour.way else { panic!("no group: {detour:?}") };
    route
}

fn addresses(snapshot: &Snapshot, route: RouteId) -> Vec<IpAddr> {
    shares(snapshot, route).into_keys().collect()
}

#[test]
fn next_hops_and_tags_become_groups() {
    let publication = Publication::new(Arc::new(config(ACTIONS)), &host(), 1).unwrap();
    let snapshot = publication.current();
    let actions = &*snapshot.actions;
    assert_eq!(actions.class(1).map(|class| (&*class.name, class.dscp)), Some(("voice", Some(46))));
    let [a, b, nowhere] = [1, 2, 3].map(|number| actions.next_hop(number).unwrap());
    assert_eq!((&*a.name, &*b.name, &*nowhere.name), ("a", "b", "nowhere"));
    assert_eq!(addresses(&snapshot, group_of(a)), [ip("10.0.0.8")]);
    let Some(Group::Adjacency(only)) = snapshot.group(group_of(b)) else { panic!("one next hop") };
    assert_eq!(snapshot.adjacency(only).map(|b| (b.interface, b.mtu)), Some((B.0, 1000)));
    assert_eq!(nowhere.way, Way::Group(RouteId::NONE));
    assert_eq!((actions.next_hop(0), actions.next_hop(4)), (None, None));

    let shares = shares(&snapshot, group_of(actions.tag(1).unwrap()));
    let all: usize = shares.values().sum();
    let of_a = shares[&ip("10.0.0.8")] as f64 / all as f64;
    assert!((0.70..0.80).contains(&of_a), "three of four parts: {of_a}");
    assert_eq!(actions.tag(2).unwrap().way, Way::Group(RouteId::NONE));

    let required: BTreeSet<_> = publication.required_neighbors().collect();
    assert!(required.contains(&(A.0, ip(A.1))) && required.contains(&(B.0, ip(B.1))));
}

#[test]
fn what_does_not_answer_or_is_down_is_left_out_until_it_is_back() {
    use AdjacencyState::{Failed, Resolved, Unresolved};
    const NEIGHBORS: Changes = Changes { routes: false, neighbors: true };
    let mut host = host();
    let mut publication = Publication::new(Arc::new(config(ACTIONS)), &host, 1).unwrap();
    let mut reader = publication.reader();
    let mut after = |host: &HostView| {
        publication.host_changed(host, NEIGHBORS).unwrap();
        reader.refresh();
        publication.collect();
        let snapshot = publication.current();
        addresses(&snapshot, group_of(snapshot.actions.tag(1).unwrap()))
    };
    let (a, b) = (ip(A.1), ip(B.1));
    assert_eq!(after(&host), [a, b], "nobody has failed yet");
    tell(&mut host, A, Failed);
    assert_eq!(after(&host), [b]);
    // The kernel tries again, which says nothing.
    tell(&mut host, A, Unresolved);
    assert_eq!(after(&host), [b]);
    host.down.insert(B.0);
    assert!(after(&host).is_empty(), "none is left: packets take their routes");
    tell(&mut host, A, Resolved);
    assert_eq!(after(&host), [a]);
    host.down.clear();
    assert_eq!(after(&host), [a, b]);
    // A transmit goes to its next hop whatever becomes of it: there is no other way.
    tell(&mut host, B, Failed);
    assert_eq!(after(&host), [a]);
    let snapshot = publication.current();
    assert_eq!(addresses(&snapshot, group_of(snapshot.actions.next_hop(2).unwrap())), [b]);
}

#[test]
fn numbers_stay_and_groups_are_given_back() {
    let host = host();
    let mut publication = Publication::new(Arc::new(config(ACTIONS)), &host, 1).unwrap();
    let mut reader = publication.reader();
    let before = publication.counts().groups;
    let mut put = |text: &str| {
        let prepared = publication.prepare(Arc::new(config(text)), &host).unwrap();
        publication.config_changed(prepared, &host);
        for _ in 0..3 {
            reader.refresh();
            publication.collect();
        }
        (publication.current(), publication.counts().groups, publication.rib.groups.waiting())
    };
    let (snapshot, groups, waiting) = put("[[class]]\nname = \"bulk\"\n");
    let empty = Actions { classes: snapshot.actions.classes.clone(), ..Actions::default() };
    assert_eq!(*snapshot.actions, empty);
    assert_eq!(snapshot.actions.class(1), None, "voice is gone, and nothing else has its number");
    assert_eq!(snapshot.actions.class(2).map(|class| &*class.name), Some("bulk"));
    assert_eq!((groups, waiting), (before - 3, 0));
    // With other routes, which are built aside, the names come back under their numbers.
    let route = "[[route]]\nprefix = \"0.0.0.0/0\"\nvia = \"10.0.0.9\"\n";
    let (snapshot, ..) = put(&format!("{route}{ACTIONS}"));
    assert_eq!(snapshot.actions.next_hop(2).map(|hop| &*hop.name), Some("b"));
    assert_eq!(addresses(&snapshot, group_of(snapshot.actions.next_hop(2).unwrap())), [ip(B.1)]);
    let (snapshot, ..) =
        put(&format!("{route}[[route]]\nprefix = \"::/0\"\ntype = \"prohibit\"{ACTIONS}"));
    assert_eq!(addresses(&snapshot, group_of(snapshot.actions.next_hop(1).unwrap())), [ip(A.1)]);
}
