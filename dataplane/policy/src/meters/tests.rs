use std::{array, sync::Barrier, thread};

use sluice_abi::meter::units;

use super::*;

const NOW: u64 = units(1_000_000_000);

/// Tables of each way to hash and to find keys.
fn tables(entries: usize) -> [Arc<MeterTable>; 2] {
    [KeyHash::new(), KeyHash::portable()].map(|hash| Arc::new(MeterTable::hashing(entries, hash)))
}

/// For each key and cost whether it is admitted, as one worker of several (or the only one) asks.
fn take(
    table: &Arc<MeterTable>,
    rate: &Rate,
    is_shared: bool,
    now: u64,
    keys: &[[u8; 16]],
    costs: Option<&[u32]>,
) -> Vec<u8> {
    let meter = Meter { table: Arc::clone(table), rate: *rate, is_shared };
    let (mut hashes, mut results) = (vec![0; keys.len()], vec![9; keys.len()]);
    table.hash_each(keys.iter().copied(), &mut hashes);
    Charges { meter: &meter, now, hashes: &hashes, costs, results: &mut results }.make();
    results
}

/// How many of so many charges of one token are admitted.
fn admitted(table: &Arc<MeterTable>, rate: &Rate, key: u128, now: u64, offered: usize) -> u32 {
    let keys = vec![key.to_le_bytes(); offered];
    take(table, rate, true, now, &keys, None).into_iter().map(u32::from).sum()
}

#[test]
fn threads_share_one_budget_exactly() {
    let rate = Rate::new(1_000, 10_000).expect("a rate");
    for round in 0..25 {
        for table in tables(1024) {
            let barrier = Barrier::new(2);
            let sum: u32 = thread::scope(|scope| {
                let offer = || {
                    barrier.wait();
                    admitted(&table, &rate, round, NOW, 8_000)
                };
                let threads = [scope.spawn(offer), scope.spawn(offer)];
                threads.map(|thread| thread.join().expect("no panic")).iter().sum()
            });
            assert_eq!(sum, 10_000, "round {round}");
            assert_eq!(table.evictions(), 0);
        }
    }
}

#[test]
fn all_ways_to_charge_answer_alike() {
    let rate = Rate::new(1_000_000, 7).expect("a rate");
    let ways = tables(1 << 16)
        .into_iter()
        .flat_map(|table| [false, true].map(|is_shared| (Arc::new(table.copy()), is_shared)));
    let ways: Vec<_> = ways.collect();
    let mut sums = [0, 0];
    for step in 0..5_000_u64 {
        let keys: [_; 20] =
            array::from_fn(|n| u128::from((step * 20 + n as u64) * 7919 % 31).to_le_bytes());
        let costs: [_; 20] = array::from_fn(|n| (n % 3) as u32);
        let costs = step.is_multiple_of(2).then_some(&costs[..]);
        let now = NOW + units(step * 60_000);
        let answers =
            ways.iter().map(|(table, is_shared)| take(table, &rate, *is_shared, now, &keys, costs));
        let answers: Vec<_> = answers.collect();
        assert!(answers.iter().all(|one| *one == answers[0]), "step {step}: {answers:?}");
        answers[0].iter().for_each(|answer| sums[usize::from(*answer)] += 1);
    }
    assert!(sums.iter().all(|sum| *sum > 10_000), "refused and admitted: {sums:?}");
}

#[test]
fn keys_have_buckets_of_their_own() {
    let rate = Rate::new(1_000, 3).expect("a rate");
    for table in tables(4096) {
        for key in 0..64 {
            assert_eq!(admitted(&table, &rate, key, NOW, 5), 3, "key {key}");
        }
        assert_eq!(admitted(&table, &rate, 9, NOW + units(1_000_000_000), 5), 1);
    }
}

#[test]
fn a_flood_of_keys_evicts_and_mints_no_tokens() {
    let rate = Rate::new(1_000, 10).expect("a rate");
    for table in tables(4) {
        assert_eq!(table.entries(), 4);
        let total: u32 = (0..1000).map(|key| admitted(&table, &rate, key, NOW, 1)).sum();
        assert_eq!(total, 40, "four ways of ten tokens each");
        assert!(table.evictions() > 900, "{}", table.evictions());
    }
}

#[test]
fn an_idle_entry_is_reused_without_an_eviction() {
    let rate = Rate::new(1_000_000, 10).expect("a rate");
    for table in tables(4) {
        for key in 0..100 {
            let now = NOW + units(1_000_000_000) * u64::try_from(key).expect("small");
            assert_eq!(admitted(&table, &rate, key, now, 20), 10);
        }
        assert_eq!(table.evictions(), 0);
    }
}

#[test]
fn the_key_of_a_prefix_is_its_address_without_the_bits_behind_it() {
    // Of SplitMix64 (Steele, Lea, Flood 2014), for addresses.
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    };
    for table in tables(1 << 20) {
        for (len4, len6) in [(0, 0), (24, 64), (32, 128), (7, 1), (1, 97), (31, 96)] {
            let masks = PrefixMasks::new(len4, len6).expect("lengths of prefixes");
            let addresses: [u128; 100] = array::from_fn(|n| {
                let address = u128::from(random()) << 64 | u128::from(random());
                match n % 5 {
                    // Mapped, and what is like it but for one bit.
                    0 => 0xffff << 32 | address & 0xffff_ffff,
                    1 => (0xffff << 32 | address & 0xffff_ffff) ^ 1 << (32 + random() % 96),
                    2 => address & 0xffff_ffff,
                    _ => address,
                }
            });
            let keys = addresses.map(|address| {
                let is_mapped = address >> 32 == 0xffff;
                let len = if is_mapped { 96 + len4 } else { len6 };
                let mask = u128::MAX.checked_shl(128 - len as u32).unwrap_or(0);
                (address & mask).to_be_bytes()
            });
            let [mut of_keys, mut of_prefixes] = [[0; 100]; 2];
            table.hash_each(keys.into_iter(), &mut of_keys);
            let addresses = addresses.into_iter().map(u128::to_be_bytes);
            table.hash_each_prefix(masks, addresses, &mut of_prefixes);
            assert_eq!(of_keys, of_prefixes, "{len4} and {len6}");
        }
    }
    for (len4, len6) in [(-1, 64), (33, 64), (24, -1), (24, 129)] {
        assert_eq!(PrefixMasks::new(len4, len6), None, "{len4} and {len6}");
    }
}

#[test]
fn networks_beside_one_another_spread_over_the_sets() {
    for table in tables(1 << 18) {
        let sets = &*table.sets;
        // All the /24 of a /8; /64 of a /48; all the /32 of a /16.
        let mapped = 0xffff << 32 | 10_u128 << 24;
        let networks: [fn(u128) -> u128; 3] = [|n| n << 8, |n| 0x2001_0db8 << 96 | n << 64, |n| n];
        for (which, network) in networks.into_iter().enumerate() {
            let keys = (0..1 << 16).map(|n| match which {
                1 => network(n).to_be_bytes(),
                _ => (mapped | network(n)).to_be_bytes(),
            });
            let mut hashes = vec![0; 1 << 16];
            table.hash_each(keys, &mut hashes);
            let mut load = vec![0; sets.len()];
            hashes.iter().for_each(|hash| load[position(*hash, sets)] += 1);
            // At random, one of 65,536 sets with one key each on average has more than 12 once in 10^5 tables.
            let most = load.iter().max().copied().unwrap_or_default();
            assert!(most <= 12, "networks {which}: {most} in one set");
            hashes.sort_unstable();
            hashes.dedup();
            assert_eq!(hashes.len(), 1 << 16, "networks {which}");
        }
    }
}

#[test]
fn tables_outlive_generations_of_the_same_size() {
    let registry = MeterRegistry::default();
    let first = registry.open("a", 0, 1000);
    assert!(Arc::ptr_eq(&first, &registry.open("a", 0, 1000)));
    assert!(!Arc::ptr_eq(&first, &registry.open("a", 1, 1000)));
    assert!(!Arc::ptr_eq(&first, &registry.open("b", 0, 1000)));
    assert!(!Arc::ptr_eq(&first, &registry.open("a", 0, 5000)));
    assert_eq!(registry.status("a").len(), 3);
    registry.prune();
    let kept: Vec<_> = registry.status("a").iter().map(|meter| meter.entries).collect();
    assert_eq!(kept, [1024], "one is still used");
    drop(first);
    registry.prune();
    assert!(registry.status("a").is_empty());
}
