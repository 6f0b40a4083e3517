//! The slice table against a list that is walked from the start for every question.

mod common;

use std::net::IpAddr;

use common::{Random, cases};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use proptest::prelude::*;
use tables::{
    EgressBlock, EgressId, Instructions, LocalOwnerId, NodeId, Owner, SiteId, SliceHit, SliceId,
    SliceKey, SliceRange, SliceTable, SliceTableError, SliceWriter,
};

/// The blocks around an address, the longest prefix first.
fn around(blocks: &[EgressBlock], address: IpAddr) -> Vec<&EgressBlock> {
    let mut around: Vec<_> =
        blocks.iter().filter(|block| block.prefix.contains(&address)).collect();
    around.sort_by_key(|block| std::cmp::Reverse(block.prefix.prefix_len()));
    around
}

fn naive_hit(around: &[&EgressBlock], port: u16) -> SliceHit {
    for block in around {
        let range =
            block.ranges.iter().find(|range| (range.first_port..=range.last_port).contains(&port));
        if let Some(range) = range {
            return SliceHit { slice: Some(range.slice), owner: range.owner };
        }
        if block.rest != Owner::Unowned {
            return SliceHit { slice: None, owner: block.rest };
        }
    }
    SliceHit::MISS
}

fn naive_portless(around: &[&EgressBlock]) -> Owner {
    around
        .iter()
        .map(|block| block.portless)
        .find(|&owner| owner != Owner::Unowned)
        .unwrap_or(Owner::Unowned)
}

fn egress(table: &SliceTable, address: IpAddr) -> Option<EgressId> {
    match address {
        IpAddr::V4(address) => table.egress4(address.to_bits()),
        IpAddr::V6(address) => table.egress6(address.to_bits()),
    }
}

/// Compares an address's egress prefix, its portless owner and all of its ports, both as look-ups
/// and as ranges.
fn assert_same_as_naive(table: &SliceTable, blocks: &[EgressBlock], address: IpAddr) {
    let around = around(blocks, address);
    let id = egress(table, address);
    assert_eq!(
        id.map(|id| table.prefix(id)),
        around.first().map(|block| block.prefix.trunc()),
        "{address} in {blocks:?}"
    );
    let Some(id) = id else { return };
    assert_eq!(table.portless(id), naive_portless(&around), "{address} in {blocks:?}");
    let mut ranges = table.ranges(id);
    let mut range = ranges.next().expect("a partition has a range");
    assert_eq!(range.first_port, 0);
    for port in 0..=u16::MAX {
        let want = naive_hit(&around, port);
        assert_eq!(table.lookup(id, port), want, "{address} port {port} in {blocks:?}");
        if port > range.last_port {
            let next = ranges.next().expect("ranges reach port 65535");
            assert_eq!(next.first_port, range.last_port + 1);
            assert_ne!(next.hit, range.hit, "neighbours with one hit are one range");
            range = next;
        }
        assert_eq!(range.hit, want, "{address} port {port}, range {range:?} in {blocks:?}");
    }
    assert_eq!((range.last_port, ranges.next()), (u16::MAX, None));
    let keys: Vec<SliceKey> = (0..=u16::MAX).map(|port| SliceKey { egress: id, port }).collect();
    for (_, instructions) in Instructions::all() {
        // Of no length that stages or vectors have.
        for keys in keys.chunks(999) {
            let mut hits = vec![SliceHit::MISS; keys.len()];
            table.lookup_batch_by(instructions, keys, &mut hits);
            for (key, hit) in keys.iter().zip(hits) {
                assert_eq!(hit, table.lookup(id, key.port), "{address} {key:?} {instructions:?}");
            }
        }
    }
}

fn ends(prefix: IpNet) -> [IpAddr; 2] {
    [prefix.network(), prefix.broadcast()]
}

/// The addresses beside a prefix.
fn neighbours(prefix: IpNet) -> [IpAddr; 2] {
    match prefix {
        IpNet::V4(prefix) => [
            IpAddr::V4(prefix.network().to_bits().wrapping_sub(1).into()),
            IpAddr::V4(prefix.broadcast().to_bits().wrapping_add(1).into()),
        ],
        IpNet::V6(prefix) => [
            IpAddr::V6(prefix.network().to_bits().wrapping_sub(1).into()),
            IpAddr::V6(prefix.broadcast().to_bits().wrapping_add(1).into()),
        ],
    }
}

fn any_owner() -> impl Strategy<Value = Owner> {
    prop_oneof![
        3 => Just(Owner::Unowned),
        1 => Just(Owner::DropByDefault),
        1 => (0..3_u16).prop_map(|id| Owner::Local(LocalOwnerId(id))),
        1 => (0..3_u16).prop_map(|id| Owner::Node(NodeId(id))),
        1 => (0..3_u16).prop_map(|id| Owner::Site(SiteId(id))),
    ]
}

/// Ranges that do not overlap, with arbitrary ends: between cuts, some are slices and some gaps.
fn any_ranges() -> impl Strategy<Value = Vec<SliceRange>> {
    let cut = prop_oneof![
        any::<u16>(),
        (0..8_u16).prop_map(|n| n * 8_192),
        Just(u16::MAX),
        Just(1),
        100..110_u16
    ];
    let cuts = prop::collection::btree_set(cut, 0..8);
    (cuts, prop::collection::vec((any::<bool>(), 0..20_u32, any_owner()), 10), any::<bool>())
        .prop_map(|(cuts, choices, backwards)| {
            let firsts = std::iter::once(0).chain(cuts.iter().copied().filter(|&cut| cut > 0));
            let firsts: Vec<u16> = firsts.collect();
            let lasts = firsts.iter().skip(1).map(|first| first - 1).chain([u16::MAX]);
            let mut ranges: Vec<_> = firsts
                .iter()
                .zip(lasts)
                .zip(choices)
                .filter(|(_, (present, ..))| *present)
                .map(|((&first_port, last_port), (_, slice, owner))| SliceRange {
                    first_port,
                    last_port,
                    slice: SliceId(slice),
                    owner,
                })
                .collect();
            if backwards {
                ranges.reverse();
            }
            ranges
        })
}

/// Prefixes that nest: all hold one of few addresses.
fn any_prefix() -> impl Strategy<Value = IpNet> {
    let v4 = prop_oneof![Just(0_u32), Just(u32::MAX), Just(0xc000_0201)];
    let v4 = (v4, prop_oneof![0..=32_u8, 22..=32_u8])
        .prop_map(|(address, length)| IpNet::V4(Ipv4Net::new_assert(address.into(), length)));
    let v6 = prop_oneof![Just(0_u128), Just(u128::MAX), Just(0x2001_0db8_u128 << 96 | 0xff)];
    let v6 = (v6, prop_oneof![0..=128_u8, 60..=68_u8])
        .prop_map(|(address, length)| IpNet::V6(Ipv6Net::new_assert(address.into(), length)));
    prop_oneof![v4, v6]
}

fn any_blocks() -> impl Strategy<Value = Vec<EgressBlock>> {
    let block = (any_prefix(), any_ranges(), any_owner(), any_owner()).prop_map(
        |(prefix, ranges, rest, portless)| EgressBlock { prefix, ranges, rest, portless },
    );
    prop::collection::vec(block, 0..9).prop_map(|mut blocks| {
        let mut seen = std::collections::HashSet::new();
        blocks.retain(|block| seen.insert(block.prefix.trunc()));
        blocks
    })
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn any_configuration(blocks in any_blocks(), v4 in any::<u32>(), v6 in any::<u128>()) {
        let table = SliceTable::build(blocks.clone()).expect("no contradiction");
        prop_assert_eq!(table.is_empty(), blocks.is_empty());
        prop_assert_eq!(table.egresses().len(), blocks.len());
        for block in &blocks {
            for address in ends(block.prefix) {
                assert_same_as_naive(&table, &blocks, address);
            }
            for address in neighbours(block.prefix) {
                prop_assert_eq!(
                    egress(&table, address).map(|id| table.prefix(id)),
                    around(&blocks, address).first().map(|block| block.prefix.trunc())
                );
            }
        }
        assert_same_as_naive(&table, &blocks, IpAddr::V4(v4.into()));
        assert_same_as_naive(&table, &blocks, IpAddr::V6(v6.into()));
    }
}

fn slice(first_port: u16, last_port: u16, slice: u32, node: u16) -> SliceRange {
    SliceRange { first_port, last_port, slice: SliceId(slice), owner: Owner::Node(NodeId(node)) }
}

fn block(prefix: &str, ranges: Vec<SliceRange>) -> EgressBlock {
    let prefix = prefix.parse().expect("prefix");
    EgressBlock { prefix, ranges, rest: Owner::Unowned, portless: Owner::Unowned }
}

/// 31 slices of 2,048 ports above the well-known ones, as machines share one address.
fn thirty_one(first_slice: u32, node: impl Fn(u16) -> u16) -> Vec<SliceRange> {
    (0..31)
        .map(|n| {
            let first = 2_048 + n * 2_048;
            slice(first, first + 2_047, first_slice + u32::from(n), node(n))
        })
        .collect()
}

#[test]
fn empty_table_has_no_egress() {
    for table in [SliceTable::default(), SliceTable::build(Vec::new()).unwrap()] {
        assert!(table.is_empty());
        assert_eq!(table.egress4(0), None);
        assert_eq!(table.egress4(u32::MAX), None);
        assert_eq!(table.egress6(0), None);
        assert_eq!(table.egress6(u128::MAX), None);
    }
}

#[test]
fn hit_and_miss_of_one_shared_address() {
    let mut blocks = vec![block("192.0.2.1/32", thirty_one(0, |n| n))];
    let table = SliceTable::build(blocks.clone()).unwrap();
    let id = table.egress4(0xc000_0201).unwrap();
    assert_eq!(table.lookup(id, 2_047), SliceHit::MISS);
    let hit = |n| SliceHit { slice: Some(SliceId(n)), owner: Owner::Node(NodeId(n as u16)) };
    assert_eq!(table.lookup(id, 2_048), hit(0));
    assert_eq!(table.lookup(id, 4_095), hit(0));
    assert_eq!(table.lookup(id, 4_096), hit(1));
    assert_eq!(table.lookup(id, u16::MAX), hit(30));
    assert_eq!(table.portless(id), Owner::Unowned);
    assert_eq!(table.egress4(0xc000_0200), None);
    assert_eq!(table.egress4(0xc000_0202), None);

    blocks[0].rest = Owner::DropByDefault;
    blocks[0].portless = Owner::Site(SiteId(3));
    let table = SliceTable::build(blocks.clone()).unwrap();
    let id = table.egress4(0xc000_0201).unwrap();
    assert_eq!(table.lookup(id, 0), SliceHit { slice: None, owner: Owner::DropByDefault });
    assert_eq!(table.portless(id), Owner::Site(SiteId(3)));
}

/// A gap is filled by the longest prefix around it that has something there; a slice without an
/// owner is something.
#[test]
fn gaps_inherit_and_unowned_slices_do_not() {
    let mut unowned = slice(1_000, 1_999, 9, 0);
    unowned.owner = Owner::Unowned;
    let mut blocks = vec![
        block("192.0.2.0/24", vec![slice(0, 9_999, 0, 1)]),
        block("192.0.2.128/25", vec![slice(5_000, 14_999, 1, 2)]),
        block("192.0.2.200/32", vec![unowned]),
    ];
    blocks[0].portless = Owner::Local(LocalOwnerId(4));
    let table = SliceTable::build(blocks.clone()).unwrap();
    let address = "192.0.2.200".parse().unwrap();
    assert_same_as_naive(&table, &blocks, address);
    let id = egress(&table, address).unwrap();
    let slices: Vec<_> = table
        .ranges(id)
        .map(|range| (range.first_port, range.last_port, range.hit.slice.map(|slice| slice.0)))
        .collect();
    let want = [
        (0, 999, Some(0)),
        (1_000, 1_999, Some(9)),
        (2_000, 4_999, Some(0)),
        (5_000, 14_999, Some(1)),
        (15_000, 65_535, None),
    ];
    assert_eq!(slices, want);
    assert_eq!(table.lookup(id, 1_500).owner, Owner::Unowned);
    assert_eq!(table.portless(id), Owner::Local(LocalOwnerId(4)));
}

/// Every length has its own exact table, and the first and the last bit of each count.
#[test]
fn nested_at_every_length() {
    let v4 = (0..=32).map(|length| IpNet::V4(Ipv4Net::new_assert(0xc000_02ff.into(), length)));
    let v6 = (0..=128)
        .map(|length| IpNet::V6(Ipv6Net::new_assert((0x2001_0db8_u128 << 96).into(), length)));
    let prefixes: Vec<IpNet> = v4.chain(v6).collect();
    // With /0 every address is in an egress prefix; without it the shortest is /1, and so on.
    for shortest in [0, 1, 8, 17, 31, 32] {
        let blocks: Vec<_> = prefixes
            .iter()
            .filter(|prefix| prefix.prefix_len() >= shortest)
            .map(|prefix| block(&prefix.to_string(), Vec::new()))
            .collect();
        let table = SliceTable::build(blocks.clone()).unwrap();
        for prefix in &prefixes {
            for address in ends(*prefix).into_iter().chain(neighbours(*prefix)) {
                assert_eq!(
                    egress(&table, address).map(|id| table.prefix(id)),
                    around(&blocks, address).first().map(|block| block.prefix.trunc()),
                    "{address}, prefixes from /{shortest}"
                );
            }
        }
    }
}

/// Each port a range of its own: the deepest tree.
#[test]
fn as_many_ranges_as_ports() {
    let ranges = (0..=u16::MAX).map(|port| slice(port, port, port.into(), port)).collect();
    let blocks = vec![block("2001:db8::/64", ranges)];
    let table = SliceTable::build(blocks.clone()).unwrap();
    let id = egress(&table, "2001:db8::1".parse().unwrap()).unwrap();
    assert_eq!(table.ranges(id).count(), 65_536);
    for port in 0..=u16::MAX {
        let want = SliceHit { slice: Some(SliceId(port.into())), owner: Owner::Node(NodeId(port)) };
        assert_eq!(table.lookup(id, port), want);
    }
}

#[test]
fn slice_positions_reach_the_end_of_their_type() {
    let ranges = vec![slice(0, 9, 0, 1), slice(10, 19, u32::MAX - 1, 2)];
    let blocks = vec![block("192.0.2.1/32", ranges)];
    let table = SliceTable::build(blocks.clone()).unwrap();
    assert_same_as_naive(&table, &blocks, "192.0.2.1".parse().unwrap());
}

/// The first addresses of 10.0.0.0/8, of 31 slices each.
fn addresses(count: u32, node: impl Fn(u32, u16) -> u16) -> Vec<EgressBlock> {
    (0..count)
        .map(|n| EgressBlock {
            prefix: IpNet::V4(Ipv4Net::new_assert((0x0a00_0000 + n).into(), 32)),
            ranges: thirty_one(n * 31, |slice| node(n, slice)),
            rest: Owner::DropByDefault,
            portless: Owner::DropByDefault,
        })
        .collect()
}

/// 65,536 addresses of 31 slices each: shared by the same nodes, and by nodes that differ.
#[test]
fn every_address_of_a_16() {
    let mut random = Random(5);
    for (name, blocks, bytes_max) in [
        ("alike", addresses(65_536, |_, slice| slice), 6 << 20),
        ("unlike", addresses(65_536, |n, slice| (n as u16).wrapping_add(slice * 7)), 24 << 20),
    ] {
        let started = std::time::Instant::now();
        let table = SliceTable::build(blocks.clone()).unwrap();
        eprintln!("{name}: {} bytes, built in {:?}", table.bytes(), started.elapsed());
        assert!(table.bytes() <= bytes_max, "{} bytes", table.bytes());
        for _ in 0..100_000 {
            let n = random.below(65_536) as usize;
            let port = random.next() as u16;
            let id = table.egress4(0x0a00_0000 + n as u32).unwrap();
            assert_eq!(table.lookup(id, port), naive_hit(&[&blocks[n]], port));
        }
        assert_eq!(table.egress4(0x0a00_0000 - 1), None);
        assert_eq!(table.egress4(0x0a01_0000), None);
    }
}

#[test]
fn as_many_prefixes_as_the_table_holds() {
    let mut blocks = addresses(SliceTable::PREFIXES_MAX as u32, |n, slice| n as u16 ^ slice);
    let table = SliceTable::build(blocks.clone()).expect("at the limit");
    for n in (0..blocks.len()).step_by(997).chain([blocks.len() - 1]) {
        let id = table.egress4(0x0a00_0000 + n as u32).unwrap();
        assert_eq!(table.lookup(id, n as u16), naive_hit(&[&blocks[n]], n as u16));
    }
    blocks.push(block("192.0.2.0/24", Vec::new()));
    let error = SliceTable::build(blocks).unwrap_err();
    assert_eq!(error.to_string(), "131073 egress prefixes; the table holds 131072");
}

/// A prefix of 65,536 ranges, and prefixes in it that each change one port: none is like another.
#[test]
fn as_many_ranges_as_the_table_holds() {
    let ranges = (0..=u16::MAX).map(|port| slice(port, port, port.into(), port)).collect();
    let mut blocks = vec![block("2001:db8::/64", ranges)];
    for n in 0..255_u16 {
        blocks.push(block(&format!("2001:db8::{n:x}/128"), vec![slice(n, n, 70_000, 1)]));
    }
    assert_eq!(SliceTable::RANGES_MAX, 256 * 65_536);
    let table = SliceTable::build(blocks.clone()).expect("at the limit");
    let id = egress(&table, "2001:db8::fe".parse().unwrap()).unwrap();
    assert_eq!(table.lookup(id, 254).slice, Some(SliceId(70_000)));
    assert_eq!(table.lookup(id, 255).slice, Some(SliceId(255)));

    blocks.push(block("2001:db8::ffff/128", vec![slice(9_999, 9_999, 70_000, 1)]));
    let error = SliceTable::build(blocks).unwrap_err();
    assert_eq!(
        error.to_string(),
        "at egress prefix 2001:db8::ffff/128 the table passes 16777216 distinct port ranges"
    );
}

#[test]
fn contradictions_name_both_sides() {
    let refused = |blocks: Vec<EgressBlock>| SliceTable::build(blocks).unwrap_err();

    let error = refused(vec![
        block("192.0.2.0/24", Vec::new()),
        block("192.0.3.0/24", Vec::new()),
        block("192.0.2.77/24", Vec::new()),
    ]);
    assert_eq!(error.to_string(), "egress prefix 192.0.2.0/24 stands twice, as entries 0 and 2");

    let error = refused(vec![block("192.0.2.1/32", vec![slice(2_000, 1_999, 7, 0)])]);
    assert_eq!(
        error.to_string(),
        "egress prefix 192.0.2.1/32: slice 7 begins at port 2000 and ends at port 1999"
    );

    let overlap = vec![slice(3_000, 3_999, 1, 0), slice(1_000, 3_000, 0, 0)];
    let error = refused(vec![block("2001:db8::/64", overlap)]);
    assert_eq!(
        error.to_string(),
        "egress prefix 2001:db8::/64: slices 0 (ports 1000-3000) and 1 (ports 3000-3999) overlap"
    );
    assert!(matches!(error, SliceTableError::Overlap { .. }));

    // One inside another, and one that only touches.
    let inside = vec![slice(0, u16::MAX, 0, 0), slice(9, 9, 1, 0)];
    assert!(matches!(
        refused(vec![block("192.0.2.1/32", inside)]),
        SliceTableError::Overlap { .. }
    ));
    let touching = vec![slice(0, 9, 0, 0), slice(10, u16::MAX, 1, 0)];
    assert!(SliceTable::build(vec![block("192.0.2.1/32", touching)]).is_ok());
}

/// Owners change in place: every port of every prefix is asked after each change, of prefixes that share
/// their hits and of prefixes within others.
#[test]
fn owners_change_in_place() {
    let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
    // Three ranges that are no powers of two, the third of which is of the first one's slice.
    let ranges = |base: u32| {
        let range = |first_port, last_port, slice| SliceRange {
            first_port,
            last_port,
            slice: SliceId(base + slice),
            owner: Owner::Node(NodeId(slice as u16)),
        };
        vec![range(1_000, 4_321, 0), range(4_322, 4_322, 1), range(50_000, 65_535, 0)]
    };
    let block = |text: &str, ranges| EgressBlock {
        prefix: prefix(text),
        ranges,
        rest: Owner::Unowned,
        portless: Owner::Unowned,
    };
    let mut blocks = vec![
        block("192.0.2.0/24", ranges(0)),
        block("192.0.2.7/32", Vec::new()),
        block("198.51.100.1/32", ranges(2)),
        block("198.51.100.2/32", ranges(4)),
        block("2001:db8::/64", ranges(6)),
    ];
    let mut writer = SliceWriter::build(blocks.clone()).unwrap();
    let table = writer.table();
    let check = |blocks: &[EgressBlock]| {
        for address in ["192.0.2.1", "192.0.2.7", "198.51.100.1", "198.51.100.2", "2001:db8::9"] {
            assert_same_as_naive(&table, blocks, address.parse().expect("an address"));
        }
    };
    check(&blocks);
    let mut publisher = common::publisher(std::sync::Arc::new(tables::Fib4::build([]).unwrap()));
    let mut reader = publisher.reader();
    let mut random = Random(31);
    for step in 0..200_u16 {
        let slice = random.below(8) as u32;
        let owner = match random.below(3) {
            0 => Owner::Site(SiteId(step)),
            1 => Owner::Local(LocalOwnerId(step)),
            _ => Owner::Node(NodeId(1_000 + step)),
        };
        let (mut within, mut changed) = (None, 0);
        for block in &mut blocks {
            for range in block.ranges.iter_mut().filter(|range| range.slice == SliceId(slice)) {
                range.owner = owner;
                within = Some(block.prefix);
                changed += 1;
            }
        }
        // The /32 has what is around it.
        let inherits = if slice < 2 { 2 } else { 1 };
        let within = within.expect("every slice has a range");
        assert_eq!(writer.set_owner(within, SliceId(slice), owner), Ok(changed * inherits));
        check(&blocks);
        if step % 5 == 0 {
            reader.refresh();
            writer.reclaim(&mut publisher);
        }
    }
    let error =
        writer.set_owner(prefix("198.51.100.1/32"), SliceId(0), Owner::Unowned).unwrap_err();
    assert_eq!(error.to_string(), "slice 0 is not in force within 198.51.100.1/32");
    check(&blocks);
}
