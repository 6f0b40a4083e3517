//! Changes of a table that is full to its last word but for some that they need.
//!
//! ```text
//!   all addresses -> a, odd ones by routes of their own      one answer: no block at all
//!   the same -> b                                            odd ones stay: four blocks of single addresses
//!                                                            in each /24, then one that names them
//! ```

use std::net::Ipv4Addr;

use super::super::VALUES_OF_WORD;
use super::*;

/// Length of the prefix of a single address, where blocks are of prefixes of `WHOLE_BITS`.
const SINGLE_BITS: u32 = WHOLE_BITS + GROUP.ilog2();

/// Words of a block of single addresses of which each leads elsewhere than the one before.
const QUARTER: usize = 1 + INNER_PLACES / VALUES_OF_WORD;
/// Words of the block that names four of them: their entries, the bitmap, and the answers around them.
const NAMES: usize = GROUP_WORDS + 1 + 1;

/// Where routes lead at first and later.
const A: RouteId = RouteId(1);
const B: RouteId = RouteId(2);
const C: RouteId = RouteId(3);

/// A /24 block in the midst of those that an entry of the index is for, and one of the next entry's.
const FIRST: u32 = 5;
const SECOND: u32 = PLACES as u32 + 5;

/// The n-th address of a block.
fn address(block: u32, n: u32) -> u32 {
    block << (32 - WHOLE_BITS) | n << (32 - SINGLE_BITS)
}

fn net(address: u32, length: u32) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::from_bits(address), length as u8)
}

/// A writer, and not yet a word taken: all that two entries of the index are for, and the odd addresses of these
/// blocks by routes of their own, lead to `A`.
fn with_odd_routes(blocks: &[u32]) -> Fib4Writer {
    let mut writer = Fib4Writer::new().unwrap();
    writer.insert(net(0, INDEX_BITS - 1), A).unwrap();
    for &block in blocks {
        for n in (1..GROUP as u32).step_by(2) {
            writer.insert(net(address(block, n), SINGLE_BITS), A).unwrap();
        }
    }
    assert_eq!(writer.room.taken(), 0);
    writer
}

/// Fills the table, but for pieces of these sizes, which are yet to be given.
fn fill(writer: &mut Fib4Writer, sizes: &[usize]) -> Vec<Piece> {
    let take = |room: &mut Room, size| room.take(size, KEPT).map(|first| Piece { first, size });
    let pieces = sizes.iter().map(|&size| take(&mut writer.room, size).expect("room")).collect();
    for size in [128, 8, 1] {
        while take(&mut writer.room, size).is_some() {}
    }
    writer.count();
    pieces
}

fn give(writer: &mut Fib4Writer, pieces: &[Piece]) {
    for piece in pieces {
        writer.room.give(piece.first, piece.size);
    }
    writer.count();
}

fn answers(writer: &Fib4Writer, block: u32) -> Vec<RouteId> {
    (0..GROUP as u32).map(|n| writer.table.lookup(address(block, n))).collect()
}

/// Even addresses of a block lead to one, odd ones to another.
fn in_turn(even: RouteId, odd: RouteId) -> Vec<RouteId> {
    (0..GROUP).map(|n| if n % 2 == 0 { even } else { odd }).collect()
}

fn assert_full(changed: Result<(), FibError>) {
    let error = changed.expect_err("there is no room");
    assert!(matches!(error, FibError::Fib4Full { .. }), "{error}");
}

/// Has the whole block `FIRST` lead to `id` in tables that have room for the first of what that needs, in
/// each number; then, once there is room for the rest, in the same ones. `prepared` has the routes before.
fn refused_and_done(
    prepared: impl Fn() -> Fib4Writer,
    needed: &[usize],
    id: RouteId,
    after: &[RouteId],
) {
    let prefix = net(address(FIRST, 0), WHOLE_BITS);
    for found in 0..needed.len() {
        let mut writer = prepared();
        let pieces = fill(&mut writer, needed);
        let (there, missing) = pieces.split_at(found);
        give(&mut writer, there);
        let (taken, before) = (writer.room.taken(), answers(&writer, FIRST));
        for _ in 0..3 {
            assert_full(writer.insert(prefix, id));
            assert_eq!(writer.room.taken(), taken, "{found} of {needed:?} given back");
            assert_eq!((writer.fresh.len(), writer.replaced.len(), writer.retired()), (0, 0, 0));
            assert_eq!(answers(&writer, FIRST), before, "{found} of {needed:?}: nothing changed");
        }
        give(&mut writer, missing);
        writer.insert(prefix, id).expect("room for all of it, and for no word more");
        assert_eq!(answers(&writer, FIRST), after);
        assert_eq!(writer.room.take(1, KEPT), None, "full to the last word");
    }
}

#[test]
fn a_change_that_is_refused_gives_back_what_it_took() {
    let needed = [QUARTER, QUARTER, QUARTER, QUARTER, NAMES];
    refused_and_done(|| with_odd_routes(&[FIRST]), &needed, B, &in_turn(B, A));
}

/// The same where there are blocks before, which are retired when others take over and not sooner.
#[test]
fn a_change_that_is_refused_keeps_what_it_was_to_replace() {
    // The routes of the first odd address of each quarter lead where those around do.
    let odd_as_around = |n: usize| n % INNER_PLACES == 1;
    let prepared = || {
        let mut writer = with_odd_routes(&[FIRST]);
        writer.insert(net(address(FIRST, 0), WHOLE_BITS), B).unwrap();
        for n in (0..GROUP).filter(|&n| odd_as_around(n)) {
            writer.insert(net(address(FIRST, n as u32), SINGLE_BITS), B).unwrap();
        }
        writer.retired = Retired::new();
        writer
    };
    let mut after = in_turn(C, A);
    (0..GROUP).filter(|&n| odd_as_around(n)).for_each(|n| after[n] = B);
    refused_and_done(prepared, &[QUARTER; QUARTERS], C, &after);
}

/// Of a prefix that several entries of the index are for, those that found room are read, and keep it; the call
/// is repeated for the others.
#[test]
fn what_an_entry_names_is_not_given_back() {
    let mut writer = with_odd_routes(&[FIRST, SECOND]);
    let of_entry = [QUARTER, QUARTER, QUARTER, QUARTER, NAMES];
    let pieces = fill(&mut writer, &[of_entry, of_entry].concat());
    let (missing, there) = pieces.split_last().unwrap();
    give(&mut writer, there);
    let taken = writer.room.taken();
    let prefix = net(0, INDEX_BITS - 1);
    for _ in 0..3 {
        assert_full(writer.insert(prefix, B));
        let words: usize = of_entry.iter().sum();
        assert_eq!(writer.room.taken(), taken + words, "those of the first entry");
        assert_eq!(answers(&writer, FIRST), in_turn(B, A));
        assert_eq!(answers(&writer, SECOND), vec![A; GROUP]);
    }
    give(&mut writer, &[*missing]);
    writer.insert(prefix, B).expect("room for the second entry");
    for block in [FIRST, SECOND] {
        assert_eq!(answers(&writer, block), in_turn(B, A));
    }
    assert_eq!(writer.room.take(1, KEPT), None, "full to the last word");
}
