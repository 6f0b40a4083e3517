//! The IPv4 table while it changes: against a trie after every change, and read by other threads.

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{Random, by_each_set, edges4, net4, publisher, real_routes};
use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;
use tables::{Fib4Writer, FibError, Publisher, Reader, RouteId};

/// A table and the routes that it should have, as whoever has the routes uses it.
struct Pair {
    writer: Fib4Writer,
    routes: PrefixMap<Ipv4Net, RouteId>,
    publisher: Publisher,
    reader: Reader,
}

impl Pair {
    fn new(routes: impl IntoIterator<Item = (Ipv4Net, RouteId)> + Clone) -> Self {
        let writer = Fib4Writer::build(routes.clone()).unwrap();
        let routes = routes.into_iter().map(|(prefix, id)| (prefix.trunc(), id)).collect();
        let publisher = publisher(writer.table());
        let reader = publisher.reader();
        Self { writer, routes, publisher, reader }
    }

    fn insert(&mut self, prefix: Ipv4Net, id: RouteId) {
        self.routes.insert(prefix.trunc(), id);
        self.writer.insert(prefix, id).unwrap();
    }

    fn remove(&mut self, prefix: Ipv4Net) {
        self.routes.remove(&prefix.trunc());
        let parent = self.parent(prefix);
        self.writer.remove(prefix, parent).unwrap();
    }

    /// Of a prefix that has no route of its own.
    fn parent(&self, prefix: Ipv4Net) -> Option<(u8, RouteId)> {
        self.routes.get_lpm(&prefix.trunc()).map(|(parent, &id)| (parent.prefix_len(), id))
    }

    fn want(&self, address: u32) -> RouteId {
        self.routes.get_lpm(&net4(address, 32)).map_or(RouteId::NONE, |(_, &id)| id)
    }

    fn check(&self, addresses: impl IntoIterator<Item = u32>) {
        let addresses: Vec<u32> = addresses.into_iter().collect();
        let table = self.writer.table();
        let want: Vec<RouteId> = addresses.iter().map(|&address| self.want(address)).collect();
        for (set, results) in by_each_set(&table, &addresses) {
            for ((&address, &result), &want) in addresses.iter().zip(&results).zip(&want) {
                let shown = std::net::Ipv4Addr::from(address);
                assert_eq!(result, want, "{shown} by {set:?}");
                assert_eq!(table.lookup(address), result, "{shown}");
            }
        }
    }

    fn turn(&mut self) {
        self.reader.refresh();
        self.writer.reclaim(&mut self.publisher);
    }
}

/// Prefixes that crowd into a few /16s, so that they nest, touch and share groups; now and then any.
fn crowded(random: &mut Random) -> Ipv4Net {
    let address = match random.below(8) {
        0 => random.next() as u32,
        1 => u32::MAX - random.below(1 << 12) as u32,
        _ => 0x0a00_0000 + random.below(3) as u32 * 0x1_0000 + random.below(1 << 11) as u32 * 32,
    };
    let length = match random.below(10) {
        0 => random.below(33) as u8,
        1..=4 => 20 + random.below(5) as u8,
        _ => 25 + random.below(8) as u8,
    };
    // Short ones are stores by the million; a few of them are enough.
    let length =
        if length < 10 && random.below(20) > 0 { 10 + random.below(15) as u8 } else { length };
    net4(address, length)
}

/// 40,000 changes, and after each the whole neighbourhood of what changed, and now and then all of the
/// crowded /16s.
#[test]
fn random_changes() {
    let mut random = Random(11);
    let mut pair = Pair::new([]);
    let mut present: Vec<Ipv4Net> = Vec::new();
    for step in 0..40_000 {
        let target = if step % 10_000 < 6_000 { 700 } else { 40 };
        let grow = random.below(1_000) > (present.len() as u64 * 500 / target).min(990);
        let prefix = if grow || present.is_empty() {
            let prefix = crowded(&mut random);
            present.push(prefix);
            pair.insert(prefix, RouteId(random.below(6) as u16));
            prefix
        } else {
            let at = random.below(present.len() as u64) as usize;
            let prefix = present.swap_remove(at);
            pair.remove(prefix);
            prefix
        };
        let block = prefix.network().to_bits() & !0xff;
        let inside = (0..8).map(|_| {
            prefix.network().to_bits() | (random.next() as u32 & prefix.hostmask().to_bits())
        });
        let inside: Vec<u32> = inside.collect();
        pair.check(edges4(prefix).into_iter().chain(inside).chain(block..=block | 0xff));
        if step % 3 == 0 {
            pair.turn();
        }
        if step % 4_000 == 0 {
            pair.check((0x0a00_0000..0x0a03_0000).step_by(7));
        }
    }
    for prefix in present {
        pair.remove(prefix);
    }
    pair.turn();
    pair.turn();
    pair.check((0x0a00_0000..0x0a03_0000).step_by(3));
    let table = pair.writer.table();
    assert_eq!((table.groups(), pair.writer.retired()), (0, 0));
    let empty = Fib4Writer::new().unwrap().table();
    assert_eq!(table.bytes(), empty.bytes(), "nothing is left of what was removed");
}

/// A full Internet table that a hundred thousand changes go through: withdrawals of real routes,
/// announcements of them, and of prefixes within them.
#[test]
fn changes_of_a_full_table() {
    let Some(routes) = real_routes("changes_of_a_full_table (IPv4)", 40_000) else { return };
    let mut random = Random(12);
    let mut pair = Pair::new(routes.v4.iter().copied());
    let mut longer: BTreeMap<Ipv4Net, RouteId> = BTreeMap::new();
    for step in 0..100_000_u32 {
        let (real, id) = routes.v4[random.below(routes.v4.len() as u64) as usize];
        let prefix = match random.below(4) {
            0 if real.prefix_len() >= 8 => {
                pair.remove(real);
                real
            }
            1 => {
                pair.insert(real, id);
                real
            }
            2 => {
                let address =
                    real.network().to_bits() | (random.next() as u32 & real.hostmask().to_bits());
                let prefix = net4(address, 24 + random.below(9) as u8).trunc();
                longer.insert(prefix, id);
                pair.insert(prefix, RouteId(random.below(65_279) as u16));
                prefix
            }
            _ => {
                let Some((prefix, _)) = longer.pop_first() else { continue };
                pair.remove(prefix);
                prefix
            }
        };
        pair.check(edges4(prefix));
        if step % 64 == 0 {
            pair.turn();
        }
    }
    let addresses: Vec<u32> = pair.routes.keys().flat_map(edges4).collect();
    pair.check(addresses);
}

#[test]
fn what_is_around_shows_again() {
    for (outer, inner) in
        [((8, 1), (24, 2)), ((24, 1), (25, 2)), ((25, 1), (32, 2)), ((0, 1), (32, 2))]
    {
        let address = 0x0a01_0203;
        let (outer, outer_id) = (net4(address, outer.0), RouteId(outer.1));
        let mut pair = Pair::new([(outer, outer_id)]);
        pair.insert(net4(address, inner.0), RouteId(inner.1));
        pair.check(edges4(net4(address, inner.0)));
        pair.remove(net4(address, inner.0));
        pair.check(edges4(net4(address, inner.0)));
        assert_eq!(pair.writer.table().lookup(address), outer_id);
    }
}

/// A /16 whose 256 blocks all have longer prefixes, some of which come and go within a grace period.
/// Several routes go, each with the parent that is left when all are gone.
#[test]
fn routes_that_go_together_show_what_is_left() {
    let block = 0xcb00_7100;
    let [left, around, inner] = [(0, 1), (24, 2), (26, 3)];
    for first in [block, block + 64, block + 192] {
        let routes = [left, around].map(|(len, id)| (net4(block, len), RouteId(id)));
        for is_longer_first in [false, true] {
            let mut pair = Pair::new(routes);
            pair.insert(net4(first, inner.0), RouteId(inner.1));
            let mut gone = [net4(block, around.0), net4(first, inner.0)];
            if is_longer_first {
                gone.reverse();
            }
            gone.iter().for_each(|prefix| {
                pair.routes.remove(prefix);
            });
            for prefix in gone {
                pair.writer.remove(prefix, Some((left.0, RouteId(left.1)))).unwrap();
            }
            pair.check(block..block + 256);
            pair.turn();
        }
    }
}

#[test]
fn longer_prefixes_flap_without_a_grace_period() {
    let mut pair = Pair::new([]);
    for block in 0..256 {
        pair.insert(net4(0x0a00_0000 | block << 8 | 1, 32), RouteId(1));
    }
    pair.turn();
    for round in 0..100 {
        let block = (round % 7) << 8;
        pair.remove(net4(0x0a00_0000 | block | 1, 32));
        pair.check([0x0a00_0000 | block, 0x0a00_0001 | block]);
        pair.insert(net4(0x0a00_0000 | block | 2, 32), RouteId(2));
        pair.check([0x0a00_0001 | block, 0x0a00_0002 | block]);
        pair.remove(net4(0x0a00_0000 | block | 2, 32));
        pair.insert(net4(0x0a00_0000 | block | 1, 32), RouteId(3));
        pair.check([0x0a00_0001 | block, 0x0a00_0002 | block]);
    }
    pair.turn();
    pair.turn();
    assert_eq!((pair.writer.table().groups(), pair.writer.retired()), (256, 0));
    pair.check(0x0a00_0000..0x0a01_0000);
}

#[test]
fn blocks_come_back_when_every_reader_has_passed() {
    let mut pair = Pair::new([]);
    let mut other = pair.publisher.reader();
    let empty = pair.writer.table().bytes();
    let prefix = net4(0x0a00_0001, 32);
    pair.insert(prefix, RouteId(1));
    let one = pair.writer.table().bytes();
    assert!(one > empty);
    pair.remove(prefix);
    for _ in 0..3 {
        pair.turn();
    }
    assert_eq!((pair.writer.table().bytes(), pair.writer.retired()), (one, 2));
    other.refresh();
    pair.turn();
    assert_eq!((pair.writer.table().bytes(), pair.writer.retired()), (empty, 0));
}

/// A route that leads elsewhere changes in place: nothing is taken out, whatever its length.
#[test]
fn another_next_hop_takes_no_room() {
    let mut pair = Pair::new([(net4(0x0a00_0000, 8), RouteId(1))]);
    for length in [20, 24, 27, 32] {
        pair.insert(net4(0x0a01_0203, length), RouteId(u16::from(length)));
    }
    pair.turn();
    pair.turn();
    let bytes = pair.writer.table().bytes();
    for id in 100..200 {
        for length in [20, 24, 27, 32] {
            pair.insert(net4(0x0a01_0203, length), RouteId(id + u16::from(length)));
        }
        pair.check(0x0a01_0000..0x0a01_1000);
    }
    assert_eq!((pair.writer.table().bytes(), pair.writer.retired()), (bytes, 0));
}

#[test]
fn refusals_change_nothing() {
    let mut pair = Pair::new([(net4(0x0a00_0000, 8), RouteId(1))]);
    for length in [16, 32] {
        let prefix = net4(0x0a00_0000, length);
        let error = pair.writer.insert(prefix, RouteId(RouteId::MAX.0 + 1)).unwrap_err();
        assert!(matches!(error, FibError::RouteIdOutOfRange { .. }), "{error}");
        let error = pair.writer.remove(prefix, Some((8, RouteId::NONE))).unwrap_err();
        assert!(matches!(error, FibError::RouteIdOutOfRange { .. }), "{error}");
        let error = pair.writer.remove(prefix, Some((length, RouteId(1)))).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("a prefix of length {length} is not around {prefix}")
        );
        // Not there.
        pair.writer.remove(prefix, Some((8, RouteId(1)))).unwrap();
        pair.check(edges4(prefix));
    }
    assert_eq!(pair.writer.table().groups(), 0);
}

/// In the end room runs out, with an error and without harm, and taking something out makes room.
#[test]
fn running_out_of_room() {
    // Each /24 differs from its neighbours and holds 128 runs, so that it takes 70 words.
    let hosts = |block: u32| (0..64).map(move |host| net4((block << 8) + host * 4 + 1, 32));
    let mut pair = Pair::new((0..180_000).flat_map(hosts).map(|prefix| (prefix, RouteId(5))));
    let mut block = 180_000;
    let error = 'full: loop {
        for prefix in hosts(block) {
            if let Err(error) = pair.writer.insert(prefix, RouteId(6)) {
                break 'full error;
            }
            pair.routes.insert(prefix, RouteId(6));
        }
        pair.turn();
        block += 1;
    };
    assert!(matches!(error, FibError::Fib4Full { .. }), "{error}");
    let kept = (block - 2) << 8..block << 8;
    pair.check(kept.clone());
    // Changes that find room for one part and not for another, in blocks of every size.
    let mut random = Random(1);
    let (mut done, mut refused) = (0, 0);
    let mut touched = Vec::new();
    while refused < 500 {
        let block = random.below(180_000) as u32;
        // The shorter ones change several quarters of a group, each of which needs room of its own.
        let length = [31, 31, 27, 25, 24][random.below(5) as usize];
        let prefix = net4((block << 8) + random.below(256) as u32, length).trunc();
        let id = RouteId(5 + random.below(4) as u16);
        let bytes = pair.writer.table().bytes();
        match pair.writer.insert(prefix, id) {
            Ok(()) => {
                pair.routes.insert(prefix, id);
                done += 1;
            }
            Err(FibError::Fib4Full { .. }) => {
                pair.turn();
                assert!(pair.writer.table().bytes() <= bytes, "nothing stays taken");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
        pair.turn();
        touched.extend(block << 8..(block + 1) << 8);
    }
    assert!(done > 0, "some fit");
    pair.check(touched);
    for prefix in (0..64).flat_map(hosts) {
        pair.remove(prefix);
        pair.turn();
    }
    pair.turn();
    for prefix in hosts(block) {
        pair.insert(prefix, RouteId(6));
        pair.turn();
    }
    pair.check(kept.chain(block << 8..(block + 1) << 8));
}

/// Three threads read while one changes: prefixes around others come and go, groups are made, moved,
/// taken out and used again. Whatever a reader sees of an address is what was true before or after a
/// change, and never a miss where something is around.
#[test]
fn readers_see_before_or_after() {
    const READERS: u64 = 3;
    let changes = if cfg!(miri) { 60 } else { 300_000 };
    let around = RouteId(1);
    // Ids say for which /24 a route is: a reader that is led into another group would see it.
    let id_of = |address: u32, generation: u16| {
        RouteId(1_000 + (address >> 8 & 0xff) as u16 * 16 + generation)
    };
    let mut pair = Pair::new([(net4(0x0a00_0000, 14), around)]);
    let (stop, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    let readers: Vec<Reader> = (0..READERS).map(|_| pair.publisher.reader()).collect();
    pair.reader.park();
    std::thread::scope(|scope| {
        for (mut reader, seed) in readers.into_iter().zip(100..) {
            let (stop, reads) = (&stop, &reads);
            scope.spawn(move || {
                let mut random = Random(seed);
                let mut addresses = [0; 48];
                let mut results = [RouteId::NONE; 48];
                let mut seen = 0;
                while !stop.load(Ordering::Relaxed) {
                    reader.refresh();
                    let table = &reader.snapshot().fib4;
                    for address in &mut addresses {
                        *address = 0x0a00_0000 | random.below(1 << 18) as u32;
                    }
                    table.lookup_batch(&addresses, &mut results);
                    for (&address, &result) in addresses.iter().zip(&results) {
                        let own = id_of(address, 0).0..id_of(address, 16).0;
                        assert!(
                            result == around || own.contains(&result.0),
                            "{} led to {result:?}",
                            std::net::Ipv4Addr::from(address)
                        );
                        seen += u64::from(result != around);
                    }
                    if random.below(1_000) == 0 {
                        reader.park();
                        std::thread::yield_now();
                    }
                }
                reads.fetch_add(seen, Ordering::Relaxed);
            });
        }
        let mut random = Random(5);
        let mut present: Vec<Ipv4Net> = Vec::new();
        for _ in 0..changes {
            if present.len() < 200 || (present.len() < 900 && random.below(2) == 0) {
                let address = 0x0a00_0000 | random.below(1 << 18) as u32;
                let prefix = net4(address, 24 + random.below(9) as u8).trunc();
                present.push(prefix);
                pair.insert(prefix, id_of(address, random.below(16) as u16));
            } else {
                let at = random.below(present.len() as u64) as usize;
                pair.remove(present.swap_remove(at));
            }
            pair.writer.reclaim(&mut pair.publisher);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(cfg!(miri) || reads.load(Ordering::Relaxed) > 1_000);
    pair.check((0x0a00_0000..0x0a04_0000).step_by(if cfg!(miri) { 10_007 } else { 3 }));
}
