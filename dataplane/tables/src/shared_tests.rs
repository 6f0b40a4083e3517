//! What workers read while one thread changes it, from several threads: for miri, which finds races and reads of
//! what is no longer there in runs with small tables; without it the same on tables of full size.
//!
//! `cargo xtask miri` runs them. (loom_tests has every order of steps of smaller cases.)

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ipnet::Ipv4Net;

use crate::fib4::shape::{INDEX_BITS, INNER_BITS, PLACE_BITS, QUARTER_BITS};
use crate::{
    AdjacencyId, EgressBlock, Fib4, Fib4Writer, Group, GroupsWriter, NextHopGroup, NodeId, Owner,
    Publisher, Reader, RouteId, SliceHit, SliceId, SliceKey, SliceRange, SliceWriter, Snapshot,
};

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Random, net4, snapshot};

/// Readers beside the writer.
const READERS: usize = 2;

/// Length of the prefixes that blocks have places for, and of those for single addresses.
const WHOLE: u8 = (INDEX_BITS + PLACE_BITS) as u8;
const SINGLE: u8 = WHOLE + (QUARTER_BITS + INNER_BITS) as u8;

/// The n-th address that a table of this shape tells from others.
fn address(n: u32) -> u32 {
    n << (32 - SINGLE)
}

fn steps(of_miri: usize, otherwise: usize) -> usize {
    if cfg!(miri) { of_miri } else { otherwise }
}

/// Has readers `look` turn by turn, sleep now and then and come back, until `change` has been called `changes`
/// times, and each of them has looked a few times meanwhile.
fn beside_readers(
    publisher: &mut Publisher,
    changes: usize,
    look: impl Fn(&Snapshot, &mut Random) + Sync,
    mut change: impl FnMut(&mut Publisher, usize),
) {
    let stop = AtomicBool::new(false);
    let turns = AtomicUsize::new(0);
    let readers: Vec<Reader> = (0..READERS).map(|_| publisher.reader()).collect();
    std::thread::scope(|scope| {
        for (mut reader, seed) in readers.into_iter().zip(100..) {
            let (stop, turns, look) = (&stop, &turns, &look);
            scope.spawn(move || {
                let mut random = Random(seed);
                while !stop.load(Ordering::Relaxed) {
                    reader.refresh();
                    look(reader.snapshot(), &mut random);
                    turns.fetch_add(1, Ordering::Relaxed);
                    if random.below(20) == 0 {
                        reader.park();
                        std::thread::yield_now();
                    }
                }
            });
        }
        // Also when a change panics: those who read are waited for.
        let _stop = StopOnDrop(&stop);
        let mut step = 0;
        while step < changes || turns.load(Ordering::Relaxed) < 4 * READERS {
            change(publisher, step);
            step += 1;
        }
    });
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Routes to single addresses, to parts of blocks and to blocks come and go in another around them. What was
/// taken out is used again all the time: the table is small, or the changes are many.
#[test]
fn routes_change_beside_readers() {
    // Ids say for which block a route is: a reader that is led into another would see it.
    let around = RouteId(1);
    let id_of = |n: u32, which: u16| RouteId(100 + (n >> (SINGLE - WHOLE)) as u16 * 16 + which);
    let blocks = 8;
    let outer = net4(0, WHOLE - 4);
    let mut writer = Fib4Writer::build([(outer, around)]).expect("there is room");
    let mut publisher = Publisher::new(snapshot(writer.table()));
    let mut random = Random(1);
    let mut present: Vec<(Ipv4Net, RouteId)> = Vec::new();
    let look = |snapshot: &Snapshot, random: &mut Random| {
        let places: [u32; 5] =
            std::array::from_fn(|_| random.below(blocks << (SINGLE - WHOLE)) as u32);
        let mut results = [RouteId::NONE; 5];
        snapshot.fib4.lookup_batch(&places.map(address), &mut results);
        for (n, result) in places.into_iter().zip(results) {
            let own = id_of(n, 0).0..id_of(n, 16).0;
            assert!(result == around || own.contains(&result.0), "{n} led to {result:?}");
        }
    };
    beside_readers(&mut publisher, steps(100, 100_000), look, |publisher, _| {
        if present.len() < 6 || (present.len() < 20 && random.below(2) == 0) {
            let n = random.below(blocks << (SINGLE - WHOLE)) as u32;
            let length = WHOLE + random.below(u64::from(SINGLE - WHOLE) + 1) as u8;
            let prefix = net4(address(n), length).trunc();
            let id = id_of(n, random.below(16) as u16);
            present.retain(|(other, _)| *other != prefix);
            present.push((prefix, id));
            writer.insert(prefix, id).expect("there is room");
        } else {
            let (prefix, _) = present.swap_remove(random.below(present.len() as u64) as usize);
            let parent = present
                .iter()
                .filter(|(other, _)| other.contains(&prefix))
                .max_by_key(|(other, _)| other.prefix_len())
                .map_or((WHOLE - 4, around), |(other, id)| (other.prefix_len(), *id));
            writer.remove(prefix, Some(parent)).expect("there is room");
        }
        writer.reclaim(publisher);
    });
}

/// A group is what it was or what it is to be, whenever it is asked for, and its members are its own.
#[test]
fn groups_change_beside_readers() {
    let mut groups = GroupsWriter::new().expect("there is memory");
    let mut fib = Fib4Writer::new().expect("there is memory");
    // Members of one group are alike but for their last digit.
    let group = |n: usize| -> NextHopGroup {
        let members = (0..n % 4 + 2).map(|member| AdjacencyId((n * 10 + member) as u32));
        NextHopGroup::Adjacencies(members.collect())
    };
    let mut ids = Vec::new();
    for n in 0..6 {
        let id = groups.insert(&group(n)).expect("there is room");
        fib.insert(net4(address(n as u32), SINGLE), id).expect("there is room");
        ids.push(id);
    }
    let first = Snapshot { groups: groups.groups(), ..snapshot(fib.table()) };
    let mut publisher = Publisher::new(first);
    let look = |snapshot: &Snapshot, random: &mut Random| {
        let route = snapshot.fib4.lookup(address(random.below(6) as u32));
        let Some(Group::Adjacencies(members)) = snapshot.groups.get(route) else {
            panic!("a route without its group");
        };
        let all: Vec<u32> = members.iter().map(|member| member.0).collect();
        let of = all[0] / 10;
        let own = (0..of % 4 + 2).map(|member| of * 10 + member);
        assert!(all.iter().copied().eq(own), "{all:?} are no group");
        assert!(all.contains(&members.choose(random.next() as u32).expect("never none").0));
    };
    beside_readers(&mut publisher, steps(60, 50_000), look, |publisher, step| {
        let at = step % ids.len();
        if step % 3 == 0 {
            // Another id: the new group is there before the route, and the old one goes after it.
            let id = groups.insert(&group(step)).expect("there is room");
            fib.insert(net4(address(at as u32), SINGLE), id).expect("there is room");
            groups.remove(ids[at]).expect("it is there");
            ids[at] = id;
        } else {
            groups.replace(ids[at], &group(step)).expect("there is room");
        }
        while groups.retired() > 20 {
            groups.reclaim(publisher);
            fib.reclaim(publisher);
        }
    });
}

/// Owners of slices, whose hits two prefixes share until one of them changes.
#[test]
fn owners_change_beside_readers() {
    let block = |text: &str, base| EgressBlock {
        prefix: text.parse().expect("a prefix"),
        ranges: (0..4)
            .map(|n| SliceRange {
                first_port: 1_000 * n + 1_000,
                last_port: 1_000 * n + 1_999,
                slice: SliceId(base + u32::from(n)),
                owner: Owner::Node(NodeId(n * 100)),
            })
            .collect(),
        rest: Owner::Unowned,
        portless: Owner::Unowned,
    };
    let blocks = vec![block("192.0.2.1/32", 0), block("192.0.2.2/32", 4)];
    let prefixes: Vec<_> = blocks.iter().map(|block| block.prefix).collect();
    let mut slices = SliceWriter::build(blocks).expect("no contradictions");
    let fib = Fib4::build([]).expect("there is memory");
    let mut publisher = Publisher::new(Snapshot { slices: slices.table(), ..snapshot(fib.into()) });
    let look = |snapshot: &Snapshot, random: &mut Random| {
        let which = random.below(2) as u32;
        let egress = snapshot.slices.egress4(0xc000_0201 + which).expect("it is shared");
        let ports: [u16; 3] = std::array::from_fn(|_| 1_000 + random.below(4_000) as u16);
        let mut hits = [SliceHit::MISS; 3];
        snapshot.slices.lookup_batch(&ports.map(|port| SliceKey { egress, port }), &mut hits);
        for (port, hit) in ports.into_iter().zip(hits) {
            let n = (port - 1_000) / 1_000;
            assert_eq!(hit.slice, Some(SliceId(which * 4 + u32::from(n))));
            assert!(matches!(hit.owner, Owner::Node(NodeId(id)) if id / 100 == n), "{hit:?}");
        }
    };
    beside_readers(&mut publisher, steps(60, 50_000), look, |publisher, step| {
        let (which, n) = (step % 2, (step / 2 % 4) as u16);
        let owner = Owner::Node(NodeId(n * 100 + (step % 100) as u16));
        let slice = SliceId(which as u32 * 4 + u32::from(n));
        slices.set_owner(prefixes[which], slice, owner).expect("the slice is there");
        slices.reclaim(publisher);
    });
}

/// Snapshots follow each other, and each that is freed has no reader.
#[test]
fn snapshots_follow_each_other() {
    let fib = std::sync::Arc::new(Fib4::build([]).expect("there is memory"));
    // What a snapshot says in two places agrees.
    let nth = |n: u64| Snapshot {
        configuration: n,
        punt_packets_per_s: n as u32,
        ..snapshot(fib.clone())
    };
    let mut publisher = Publisher::new(nth(0));
    let look = |snapshot: &Snapshot, _: &mut Random| {
        assert_eq!(snapshot.configuration, u64::from(snapshot.punt_packets_per_s));
        assert_eq!(snapshot.configuration + 1, snapshot.epoch, "numbered in order");
    };
    beside_readers(&mut publisher, steps(40, 20_000), look, |publisher, step| {
        let before = publisher.current().configuration;
        assert_eq!(before, step as u64);
        publisher.publish(nth(before + 1));
    });
    assert_eq!(publisher.collect(), 0, "nobody reads the old ones");
}
