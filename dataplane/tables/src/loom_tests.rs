//! Every interleaving of a change and a look-up, and of a grace period and a worker that comes and goes:
//! `RUSTFLAGS="--cfg loom" cargo test --release -p tables --lib --target-dir target/loom`.
//!
//! Under `cfg(loom)` a table has two entries of two blocks of two addresses, and room for a few blocks.

use std::sync::Arc;

use ipnet::Ipv4Net;
use loom::thread;

use crate::grace::GraceWriter;
use crate::sync::{AtomicU64, Ordering};
use crate::{AdjacencyId, Fib4, Fib4Writer, Group, GroupsWriter, NextHopGroup, RouteId};

/// A prefix by its bits, as text of zeros and ones.
fn prefix(bits: &str) -> Ipv4Net {
    let value = u32::from_str_radix(bits, 2).unwrap() << (32 - bits.len());
    Ipv4Net::new_assert(value.into(), bits.len() as u8)
}

fn address(bits: &str) -> u32 {
    prefix(bits).addr().to_bits()
}

fn look_up(table: &Fib4, bits: &str) -> u16 {
    let mut result = [RouteId::NONE];
    table.lookup_batch(&[address(bits)], &mut result);
    result[0].0
}

/// A longer prefix comes and goes while a reader asks for it and for its neighbour.
#[test]
fn loom_a_group_is_made_and_taken_out() {
    loom::model(|| {
        let mut writer = Fib4Writer::build([(prefix("00"), RouteId(1))]).unwrap();
        let table = writer.table();
        let reader = thread::spawn(move || {
            let (inner, outer) = (look_up(&table, "000"), look_up(&table, "001"));
            assert!(inner == 1 || inner == 2, "{inner}");
            assert_eq!(outer, 1);
        });
        writer.insert(prefix("000"), RouteId(2)).unwrap();
        writer.remove(prefix("000"), Some((2, RouteId(1)))).unwrap();
        reader.join().unwrap();
    });
}

/// A block is changed in place, and then exchanged for one with another bitmap, while a reader is in it.
#[test]
fn loom_a_block_is_exchanged() {
    loom::model(|| {
        let mut writer = Fib4Writer::build([
            (prefix("00"), RouteId(1)),
            (prefix("000"), RouteId(2)),
            (prefix("01"), RouteId(3)),
        ])
        .unwrap();
        let table = writer.table();
        let reader = thread::spawn(move || {
            let (old, new) = (look_up(&table, "000"), look_up(&table, "010"));
            assert_eq!(old, 2);
            assert!((3..=5).contains(&new), "{new}");
        });
        writer.insert(prefix("01"), RouteId(5)).unwrap();
        writer.insert(prefix("010"), RouteId(4)).unwrap();
        reader.join().unwrap();
    });
}

/// Words that were taken out are used for another block only when the reader has been between turns.
#[test]
fn loom_words_are_used_again() {
    loom::model(|| {
        let mut grace = GraceWriter::new();
        let mut of_reader = grace.reader();
        let mut writer =
            Fib4Writer::build([(prefix("00"), RouteId(1)), (prefix("000"), RouteId(2))]).unwrap();
        let table = writer.table();
        let reader = thread::spawn(move || {
            for _ in 0..2 {
                if let Some(signal) = of_reader.pending() {
                    of_reader.acknowledge(signal);
                }
                let found = look_up(&table, "000");
                assert!(found == 1 || found == 2, "{found}");
            }
        });
        writer.remove(prefix("000"), Some((2, RouteId(1)))).unwrap();
        writer.reclaim_with(&mut grace);
        // In the other entry, so that it takes the words if they are free.
        writer.insert(prefix("100"), RouteId(9)).unwrap();
        reader.join().unwrap();
    });
}

/// A group is there before the route that names it, and its members before the group.
#[test]
fn loom_a_group_is_there_before_its_route() {
    loom::model(|| {
        let mut groups = GroupsWriter::new().unwrap();
        let mut fib = Fib4Writer::new().unwrap();
        let (table, read) = (fib.table(), groups.groups());
        let reader = thread::spawn(move || {
            let route = table.lookup(address("000"));
            if !route.is_none() {
                match read.get(route) {
                    Some(Group::Adjacencies(members)) => {
                        assert_eq!(members.choose(u32::MAX), Some(AdjacencyId(8)));
                    }
                    _ => panic!("a route without its group"),
                }
            }
        });
        let members = [AdjacencyId(7), AdjacencyId(8)];
        let id = groups.insert(&NextHopGroup::Adjacencies(members.into())).unwrap();
        fib.insert(prefix("00"), id).unwrap();
        reader.join().unwrap();
    });
}

/// What a grace period is for: after it, the writer may overwrite what a reader could reach before,
/// whether the reader acknowledges, sleeps and comes back, or goes.
#[test]
fn loom_a_grace_period_waits_for_whoever_reads() {
    for sleeps in [false, true] {
        loom::model(move || {
            let mut grace = GraceWriter::new();
            let mut of_reader = grace.reader();
            // The entry names which of two cells is in force; the other is overwritten.
            let entry = Arc::new(AtomicU64::new(0));
            let cells = Arc::new([AtomicU64::new(10), AtomicU64::new(11)]);
            let (read_entry, read_cells) = (Arc::clone(&entry), Arc::clone(&cells));
            let reader = thread::spawn(move || {
                for turn in 0..2 {
                    if let Some(signal) = of_reader.pending() {
                        of_reader.acknowledge(signal);
                    }
                    let named = read_entry.load(Ordering::Acquire);
                    let found = read_cells[named as usize].load(Ordering::Relaxed);
                    assert_eq!(found, 10 + named, "a cell that is used for something else");
                    if sleeps && turn == 0 {
                        of_reader.park();
                    }
                }
            });
            entry.store(1, Ordering::Release);
            let since = grace.begin();
            if grace.has_passed(since) {
                cells[0].store(99, Ordering::Relaxed);
            }
            reader.join().unwrap();
        });
    }
}
