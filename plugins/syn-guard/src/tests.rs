//! Handshakes one by one; floods of many times the tables; and random traffic against maps that forget
//! nothing before its time.

use std::collections::HashMap;

use proptest::prelude::*;
use sluice_sdk::{
    direction,
    testing::{Bench, Seen, ipv4, ipv6},
};

use super::*;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
const KEPT: Verdict = Verdict::CONTINUE;
const AGAIN: Verdict = reason::CHALLENGED.verdict();
const TOO_MANY: Verdict = reason::HALF_OPEN.verdict();
const FULL: Verdict = reason::TABLE_FULL.verdict();

/// A rate that is used up by its first SYN, so that all others are challenged.
const STRICT: &str = r#""syn_per_s": 0.001, "burst": 1, "fallback_per_s": 0.001"#;

fn bench(config: &str) -> Bench<SynGuard> {
    Bench::new(&format!("{{{config}}}")).expect("the configuration is good")
}

/// One whose rate is used up.
fn strict(more: &str) -> Bench<SynGuard> {
    let mut bench = bench(&format!("{STRICT}{more}"));
    assert_eq!(bench.judge(&[packet(0xffff_ffff, 1, SYN)], SECOND), [KEPT]);
    bench.counters.fill(0);
    bench
}

fn packet(source: u32, source_port: u16, tcp_flags: u8) -> Descriptor {
    Descriptor {
        source_port,
        destination_port: 443,
        protocol: 6,
        tcp_flags,
        direction: direction::INBOUND,
        ..ipv4(source.to_be_bytes(), [192, 0, 2, 1])
    }
}

/// What becomes of packets that come one after the other, each in a batch of its own.
fn apart(bench: &mut Bench<SynGuard>, packets: &[Descriptor], now_ns: u64) -> Vec<Verdict> {
    packets.iter().flat_map(|packet| bench.judge(&[*packet], now_ns)).collect()
}

/// Every SYN has one end.
fn assert_balance(counters: &[u64]) {
    let ends: u64 = counters[tally::UNCHALLENGED..=tally::REFUSED_TABLE_FULL].iter().sum();
    assert_eq!(counters[tally::SYNS], ends, "{counters:?}");
}

#[test]
fn below_the_rate_nothing_is_challenged() {
    let mut bench = bench(r#""syn_per_s": 1000, "burst": 100"#);
    let syns: Vec<_> = (0..100).map(|n| packet(n, 1, SYN)).collect();
    assert!(bench.judge(&syns, SECOND).iter().all(|verdict| *verdict == KEPT));
    let more = [packet(6, 2, SYN), packet(7, 1, ACK), packet(8, 1, RST)];
    assert_eq!(bench.judge(&more, SECOND), [AGAIN, KEPT, KEPT]);
    assert_eq!(bench.judge(&[packet(9, 2, SYN)], SECOND + MS), [KEPT], "a token has come back");
    assert_eq!(bench.counters[tally::UNCHALLENGED], 101);
    assert_eq!(bench.counters[tally::COMPLETED], 1);
    // Another destination has its own rate.
    let other = Descriptor { destination: [7; 16], ..packet(9, 3, SYN) };
    assert_eq!(bench.judge(&[other], SECOND + MS), [KEPT]);
    assert_balance(&bench.counters);
}

#[test]
fn a_challenged_sender_sends_again_and_passes() {
    let mut bench = strict("");
    let syn = [packet(1, 1, SYN)];
    let start = 10 * SECOND;
    assert_eq!(bench.judge(&syn, start), [AGAIN]);
    assert_eq!(bench.judge(&syn, start + 400 * MS), [AGAIN], "no retransmission comes so soon");
    assert_eq!(bench.judge(&syn, start + SECOND), [KEPT], "after RFC 6298's second it does");
    // The SYN or its answer was lost: again, but not a hundred times.
    assert_eq!(bench.judge(&syn, start + SECOND + MS), [AGAIN]);
    assert_eq!(bench.judge(&syn, start + 3 * SECOND), [KEPT]);
    assert_eq!(bench.judge(&[packet(1, 2, SYN)], start + 3 * SECOND), [AGAIN], "another port");
    assert_eq!(bench.counters[..9], [6, 0, 1, 0, 1, 0, 4, 0, 0]);
    assert_balance(&bench.counters);
}

#[test]
fn a_challenge_is_forgotten_after_four_seconds() {
    let mut bench = strict("");
    let syn = [packet(1, 1, SYN)];
    assert_eq!(bench.judge(&syn, 10 * SECOND), [AGAIN]);
    assert_eq!(bench.judge(&syn, 13 * SECOND), [KEPT], "the second retransmission");
    let syn = [packet(1, 2, SYN)];
    assert_eq!(bench.judge(&syn, 20 * SECOND), [AGAIN]);
    assert_eq!(bench.judge(&syn, 25 * SECOND), [AGAIN]);
}

#[test]
fn who_completed_a_handshake_is_not_challenged() {
    let mut bench = strict(r#", "verified_s": 60"#);
    let now = 10 * SECOND;
    // An ACK without a handshake that had passed proves nothing.
    bench.judge(&[packet(1, 1, ACK)], now);
    assert_eq!(bench.judge(&[packet(1, 1, SYN)], now), [AGAIN]);
    bench.judge(&[packet(1, 1, ACK)], now);
    assert_eq!(bench.judge(&[packet(1, 2, SYN)], now), [AGAIN]);
    // A reset ends a handshake and proves nothing either.
    let reset = [packet(1, 1, SYN), packet(1, 1, RST)];
    assert_eq!(apart(&mut bench, &reset, now + SECOND), [KEPT; 2]);
    assert_eq!(bench.judge(&[packet(1, 3, SYN)], now + SECOND), [AGAIN]);
    // Nor does an ACK that comes with its SYN: nobody has answered.
    let blind = [packet(1, 2, SYN), packet(1, 2, ACK)];
    assert_eq!(bench.judge(&blind, now + SECOND), [KEPT; 2]);
    assert_eq!(bench.judge(&[packet(1, 4, SYN)], now + SECOND), [AGAIN]);
    assert_eq!(bench.judge(&[packet(1, 2, ACK)], now + SECOND), [KEPT]);
    assert_eq!(bench.judge(&[packet(1, 7, SYN), packet(2, 4, SYN)], now + SECOND), [KEPT, AGAIN]);
    assert_eq!(bench.judge(&[packet(1, 5, SYN)], now + 60 * SECOND), [KEPT]);
    assert_eq!(bench.judge(&[packet(1, 6, SYN)], now + 61 * SECOND), [AGAIN]);
    assert_eq!(bench.counters[tally::VERIFIED], 2);
    assert_eq!(bench.counters[tally::COMPLETED], 1);
    assert_balance(&bench.counters);
}

#[test]
fn a_source_leaves_only_so_many_handshakes_half_open() {
    let config = r#""syn_per_s": 1e6, "half_open_max": 4, "half_open_s": 8"#;
    let mut bench = bench(config);
    let syns: Vec<_> = (0..6).map(|port| packet(1, port, SYN)).collect();
    let expected = [KEPT, KEPT, KEPT, KEPT, TOO_MANY, TOO_MANY];
    assert_eq!(bench.judge(&syns, SECOND), expected);
    assert_eq!(bench.judge(&[packet(2, 9, SYN)], SECOND), [KEPT], "another source");
    // What is completed, or taken back, counts no longer: at once, also for SYNs that came before.
    let mut packets: Vec<_> = (10..13).map(|port| packet(1, port, SYN)).collect();
    packets.extend([packet(1, 0, ACK), packet(1, 1, RST | ACK), packet(1, 0, ACK)]);
    let expected = [KEPT, KEPT, TOO_MANY, KEPT, KEPT, KEPT];
    assert_eq!(bench.judge(&packets, 2 * SECOND), expected);
    // What never completes, when its time is over; a SYN that is sent again begins it anew.
    assert_eq!(bench.judge(&[packet(1, 2, SYN)], 4 * SECOND), [KEPT]);
    let later: Vec<_> = (20..22).map(|port| packet(1, port, SYN)).collect();
    assert_eq!(bench.judge(&later, 9 * SECOND - MS), [TOO_MANY, TOO_MANY]);
    assert_eq!(bench.judge(&later, 9 * SECOND), [KEPT, TOO_MANY], "of the one on port 3");
    let much_later: Vec<_> = (30..35).map(|port| packet(1, port, SYN)).collect();
    assert_eq!(bench.judge(&much_later, 20 * SECOND), [KEPT, KEPT, KEPT, KEPT, TOO_MANY]);
    assert_balance(&bench.counters);
    // A /64 is one source.
    let six = |host: u16, port| Descriptor {
        protocol: 6,
        tcp_flags: SYN,
        source_port: port,
        direction: direction::INBOUND,
        ..ipv6([0x2001, 0xdb8, 0, 1, 0, 0, 0, host], [1; 8])
    };
    let sixes: Vec<_> = (0..5).map(|n| six(n, n)).collect();
    assert_eq!(bench.judge(&sixes, 20 * SECOND), [KEPT, KEPT, KEPT, KEPT, TOO_MANY]);
}

#[test]
fn what_begins_no_handshake_is_left_alone() {
    let mut bench = strict(r#", "half_open_max": 1"#);
    let plain = packet(1, 1, SYN);
    let others = [
        Descriptor { tcp_flags: SYN | ACK, ..plain },
        Descriptor { tcp_flags: ACK, ..plain },
        Descriptor { tcp_flags: 0, ..plain },
        Descriptor { tcp_flags: FIN | SYN, ..plain },
        Descriptor { protocol: 17, ..plain },
        Descriptor { direction: direction::OUTBOUND, ..plain },
        Descriptor { flags: flags::FRAGMENT | flags::LATER_FRAGMENT | flags::PORTS, ..plain },
        Descriptor { flags: 0, ..plain },
    ];
    assert_eq!(bench.judge(&others, SECOND), [KEPT; 8]);
    assert_eq!(bench.counters, [0; tally::ALL]);
}

/// SYNs of forged sources, each once: `n` of them from number `first` on.
fn flood(first: u32, n: u32) -> Vec<Descriptor> {
    (first..first + n).map(|n| packet(0x1000_0000 + n.wrapping_mul(7919), n as u16, SYN)).collect()
}

#[test]
fn an_established_flow_loses_nothing_to_a_flood_of_ten_times_the_table() {
    let mut bench = bench(
        r#""syn_per_s": 100, "burst": 100, "fallback_per_s": 100, "entries": 4096,
           "sources": 1024, "half_open_max": 16"#,
    );
    let capacity = bench.plugin.memory.handshakes.capacity() as u32;
    assert_eq!(capacity, 4096);
    let (client, start) = (0x0a00_0001, 10 * SECOND);
    let opening = [packet(client, 1, SYN), packet(client, 1, ACK)];
    assert_eq!(apart(&mut bench, &opening, start), [KEPT; 2]);
    let mut established = 0;
    for round in 0..10 * capacity / 64 {
        // 64 forged SYNs and one packet of the flow each 400 us: 160,000 SYNs a second.
        let mut packets = flood(round * 64, 64);
        packets.push(packet(client, 1, ACK));
        let verdicts = bench.judge(&packets, start + u64::from(round) * 400 * 1000);
        assert_eq!(verdicts.last(), Some(&KEPT), "round {round}");
        established += 1;
    }
    assert_eq!(established, 640);
    let counters = &bench.counters;
    assert_eq!(counters[tally::SYNS], 1 + u64::from(10 * capacity));
    assert_balance(counters);
    // The table was full, and that is counted; the fall-back let a part of what it was for pass.
    assert!(counters[tally::HANDSHAKES_FULL] > u64::from(capacity), "{counters:?}");
    assert!((100..200).contains(&counters[tally::UNREMEMBERED]), "{counters:?}");
    assert!(counters[tally::REFUSED_TABLE_FULL] > 0);
    // Who completed a handshake before begins another at once, the flood notwithstanding.
    let end = start + 639 * 400 * 1000;
    assert_eq!(bench.judge(&[packet(client, 2, SYN)], end), [KEPT]);
    assert_eq!(bench.counters[tally::VERIFIED], 1);
}

#[test]
fn full_tables_drop_nothing_that_is_established_and_nothing_without_a_reason() {
    let mut bench = bench(
        r#""syn_per_s": 100, "burst": 100, "fallback_per_s": 50, "entries": 1024, "sources": 64,
           "half_open_max": 4"#,
    );
    let (greedy, start) = (0x0a00_0001, 10 * SECOND);
    let opening = [packet(greedy, 1, SYN), packet(greedy, 1, ACK)];
    assert_eq!(apart(&mut bench, &opening, start), [KEPT; 2]);
    // Trusted sources fill their table, by handshakes of their own.
    for source in 0x0b00_0000..0x0b00_0100 {
        let opening = [packet(source, 1, SYN), packet(source, 1, ACK)];
        apart(&mut bench, &opening, start);
    }
    let (mut syns, mut dropped, mut passed) = (0_u64, [0_u64; 3], 0_u64);
    for counter in tally::SYNS..tally::COMPLETED {
        bench.counters[counter] = 0;
    }
    // Of flows that the plugin saw begin, and did not; one of them of a source whose limit is used up, and
    // one under an address that the flood has forged.
    let established: Vec<_> = [greedy, 0x0a00_0002, 0x1000_0000]
        .into_iter()
        .flat_map(|source| {
            [ACK, ACK | 0x08, ACK | FIN, RST, SYN | ACK, 0].map(|of| packet(source, 1, of))
        })
        .collect();
    for round in 0..10 * 1024 / 64 {
        let mut packets = flood(round * 64, 64);
        packets.extend((0..4).map(|n| packet(greedy, 1000 + (round * 4 + n) as u16, SYN)));
        let begins = packets.len();
        packets.extend(&established);
        let verdicts = bench.judge(&packets, start + u64::from(round) * 400 * 1000);
        assert!(verdicts[begins..].iter().all(|verdict| *verdict == KEPT), "round {round}");
        syns += begins as u64;
        for verdict in &verdicts[..begins] {
            match [AGAIN, TOO_MANY, FULL].iter().position(|reason| reason == verdict) {
                Some(reason) => dropped[reason] += 1,
                None => passed += u64::from(*verdict == KEPT),
            }
        }
    }
    // All tables were full, and each drop is in the counter of its reason.
    let counters = &bench.counters;
    for full in [tally::HANDSHAKES_FULL, tally::SOURCES_FULL] {
        assert!(counters[full] > 0, "{counters:?}");
    }
    assert!(dropped.iter().all(|count| *count > 0), "{dropped:?}");
    assert_eq!(counters[tally::CHALLENGED..=tally::REFUSED_TABLE_FULL], dropped);
    assert_eq!(counters[tally::SYNS], syns);
    assert_eq!(passed + dropped.iter().sum::<u64>(), syns);
    assert_balance(counters);
}

#[test]
fn a_full_table_takes_the_place_of_what_was_not_repeated() {
    // One bucket of eight.
    let mut bench = strict(r#", "entries": 8"#);
    // The SYN that used up the rate has one place, as a handshake that passed.
    let start = SECOND + 20 * MS;
    assert_eq!(bench.judge(&flood(0, 7), start), [AGAIN; 7]);
    let client = [packet(1, 1, SYN)];
    assert_eq!(bench.judge(&client, start + MS), [KEPT], "the fall-back has a token");
    let other = [packet(2, 1, SYN)];
    assert_eq!(bench.judge(&other, start + MS), [FULL]);
    assert_eq!(bench.counters[tally::HANDSHAKES_FULL], 3, "two challenges and one that passed");
    // After 1.5 s the first of the flood gives its place up, and its retransmission is in time.
    assert_eq!(bench.judge(&other, start + 1600 * MS), [AGAIN]);
    assert_eq!(bench.judge(&other, start + 2600 * MS), [KEPT]);
    assert_eq!(bench.counters[tally::PROVED], 1);
    assert_balance(&bench.counters);
}

#[test]
fn sources_that_find_no_place_are_counted_and_not_trusted() {
    let mut bench = bench(r#""syn_per_s": 0.001, "burst": 9, "verified_s": 10, "sources": 8"#);
    let all = |port, tcp_flags| (0..9).map(move |source| packet(source, port, tcp_flags));
    assert_eq!(bench.judge(&all(1, SYN).collect::<Vec<_>>(), SECOND), [KEPT; 9]);
    assert_eq!(bench.judge(&all(1, ACK).collect::<Vec<_>>(), SECOND), [KEPT; 9]);
    assert_eq!((bench.counters[tally::COMPLETED], bench.counters[tally::SOURCES_FULL]), (9, 1));
    let mut expected = [KEPT; 9];
    expected[8] = AGAIN;
    assert_eq!(bench.judge(&all(2, SYN).collect::<Vec<_>>(), SECOND), expected);
    assert_balance(&bench.counters);
}

#[test]
fn handshakes_that_the_quota_has_no_room_for_are_counted_and_not_limited() {
    let mut bench =
        bench(r#""syn_per_s": 1e6, "half_open_max": 1, "half_open_s": 10, "half_open_entries": 8"#);
    let syns: Vec<_> = (0..9).map(|source| packet(source, 1, SYN)).collect();
    assert_eq!(bench.judge(&syns, SECOND), [KEPT; 9]);
    assert_eq!(bench.counters[tally::HALF_OPEN_UNCOUNTED], 1);
    assert_eq!(bench.judge(&[packet(8, 2, SYN), packet(7, 2, SYN)], SECOND), [KEPT, TOO_MANY]);
    // Its end is noticed all the same, and takes nothing from others.
    assert_eq!(bench.judge(&[packet(8, 1, ACK)], SECOND), [KEPT]);
    assert_eq!((bench.counters[tally::COMPLETED], bench.counters[tally::HALF_OPEN_KEPT]), (1, 0));
    assert_eq!(bench.judge(&[packet(7, 3, SYN)], SECOND), [TOO_MANY]);
    assert_balance(&bench.counters);
}

/// As many workers of one router, under one configuration.
fn workers(n: u64, config: &str) -> Vec<Bench<SynGuard>> {
    let config = format!("{{{config}}}");
    let first = Bench::new(&config).expect("good");
    let others: Vec<_> = (1..n).map(|n| first.beside(n, &config).expect("good")).collect();
    std::iter::once(first).chain(others).collect()
}

#[test]
fn the_half_open_limit_is_one_for_all_workers() {
    let mut workers = workers(3, r#""syn_per_s": 1e6, "half_open_max": 4, "half_open_s": 8"#);
    // Each flow of the source has its own worker, as a NIC spreads them.
    let mut judge = |port: u16, tcp_flags, now| {
        workers[usize::from(port) % 3].judge(&[packet(1, port, tcp_flags)], now)[0]
    };
    let mut half_open = std::collections::HashMap::new();
    let mut random = 1_u64;
    for step in 0..2000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (port, now) = ((random >> 40) as u16 % 12, SECOND + step * 100 * MS);
        half_open.retain(|_, until| *until > now);
        if random >> 62 == 0 {
            judge(port, if random >> 61 & 1 == 0 { ACK } else { RST }, now);
            half_open.remove(&port);
            continue;
        }
        let may = half_open.len() < 4 || half_open.contains_key(&port);
        assert_eq!(judge(port, SYN, now), if may { KEPT } else { TOO_MANY }, "step {step}");
        if may {
            half_open.insert(port, now + 8 * SECOND);
        }
    }
    let [refused, completed] = [tally::HALF_OPEN, tally::COMPLETED]
        .map(|counter| workers.iter().map(|worker| worker.counters[counter]).sum::<u64>());
    assert!(refused > 50 && completed > 50, "{refused} {completed}");
}

#[test]
fn what_was_refused_is_as_if_it_had_not_come() {
    let mut bench = strict(r#", "half_open_max": 1, "verified_s": 0"#);
    let now = 10 * SECOND;
    let two = [packet(1, 1, SYN), packet(1, 2, SYN)];
    assert_eq!(bench.judge(&two, now), [AGAIN; 2]);
    // Both prove themselves; there is room for one. The other's challenge stands, as long as it would have.
    let repeated = [packet(1, 1, SYN), packet(1, 2, SYN), packet(1, 2, SYN)];
    assert_eq!(bench.judge(&repeated, now + SECOND), [KEPT, TOO_MANY, AGAIN]);
    assert_eq!(bench.judge(&[packet(1, 2, ACK)], now + SECOND), [KEPT], "it ends nothing");
    assert_eq!(bench.counters[tally::COMPLETED], 0);
    assert_eq!(bench.judge(&[packet(1, 1, ACK)], now + SECOND), [KEPT]);
    assert_eq!(bench.judge(&[packet(1, 2, SYN)], now + 3 * SECOND), [KEPT]);
    assert_eq!(bench.counters[tally::PROVED], 2);
    assert_balance(&bench.counters);
}

#[test]
fn answers_on_another_worker_do_not_matter() {
    let (mut ours, mut theirs) = (strict(""), strict(""));
    let client = packet(1, 1, SYN);
    let answer = Descriptor {
        source: client.destination,
        destination: client.source,
        source_port: client.destination_port,
        destination_port: client.source_port,
        tcp_flags: SYN | ACK,
        direction: direction::OUTBOUND,
        ..client
    };
    assert_eq!(ours.judge(&[client], 10 * SECOND), [AGAIN]);
    assert_eq!(ours.judge(&[client], 11 * SECOND), [KEPT]);
    assert_eq!(theirs.judge(&[answer], 11 * SECOND), [KEPT]);
    assert_eq!(ours.judge(&[packet(1, 1, ACK)], 11 * SECOND), [KEPT]);
    assert_eq!(theirs.judge(&[Descriptor { tcp_flags: ACK, ..answer }], 11 * SECOND), [KEPT]);
    assert_eq!(ours.judge(&[packet(1, 2, SYN)], 11 * SECOND), [KEPT], "completed, thus trusted");
}

#[test]
fn a_reload_goes_on_where_it_was() {
    let config = format!(r#"{{{STRICT}, "half_open_max": 2, "entries": 64, "sources": 16}}"#);
    let mut bench = strict(r#", "half_open_max": 2, "entries": 64, "sources": 16"#);
    let now = 10 * SECOND;
    assert_eq!(bench.judge(&[packet(1, 1, SYN), packet(2, 1, SYN)], now), [AGAIN; 2]);
    let opening = [packet(1, 1, SYN), packet(1, 1, ACK)];
    assert_eq!(apart(&mut bench, &opening, now + SECOND), [KEPT; 2]);
    assert_eq!(bench.judge(&[packet(1, 2, SYN), packet(1, 3, SYN)], now + SECOND), [KEPT; 2]);
    assert_eq!(bench.reload(&config), Ok(true));
    // The challenge, the half-open handshakes and the trust are known to the successor.
    let packets = [packet(2, 1, SYN), packet(1, 4, SYN), packet(1, 3, ACK), packet(1, 4, SYN)];
    assert_eq!(apart(&mut bench, &packets, now + SECOND), [KEPT, TOO_MANY, KEPT, KEPT]);
    // Tables of another size are begun anew, and flows lose nothing.
    let other = config.replace("64", "128");
    assert_eq!(bench.reload(&other), Ok(false));
    let packets = [packet(1, 4, ACK), packet(1, 9, SYN)];
    assert_eq!(bench.judge(&packets, now + SECOND), [KEPT, AGAIN]);
}

#[test]
fn no_state_is_too_strange_to_be_refused() {
    let mut bench = strict("");
    bench.judge(&[packet(1, 1, SYN)], 10 * SECOND);
    let state = bench.export().expect("it has some");
    for len in [0, 7, 8, 27, 28, 29] {
        let _refused_or_not = bench.import(2, &state[..len.min(state.len())]);
    }
    let mut misplaced = state.clone();
    let place = misplaced.len() - 12;
    misplaced[place..place + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    bench.import(2, &misplaced).expect_err("there is no such place");
    bench.import(1, &state).expect_err("there is no such form");
    bench.import(2, &state).expect("its own");
    assert_eq!(bench.judge(&[packet(1, 1, SYN)], 11 * SECOND), [KEPT]);
    // A flood's handshakes are left out where they do not fit, and never too many sources to fit.
    let mut large = strict(r#", "entries": 1048576"#);
    for round in 0..2000 {
        large.judge(&flood(round * 64, 64), 10 * SECOND);
    }
    let state = large.export().expect("as much as fits");
    assert!(((1 << 20) - 12..=1 << 20).contains(&state.len()), "{}", state.len());
    large.import(2, &state).expect("its own");
}

#[test]
fn a_batch_is_counted_by_the_manifests_names() {
    let mut bench = bench(STRICT);
    bench.counters.copy_from_slice(&(0..tally::ALL as u64).collect::<Vec<_>>());
    for (name, position) in [
        ("syns", tally::SYNS),
        ("unchallenged", tally::UNCHALLENGED),
        ("proved", tally::PROVED),
        ("verified", tally::VERIFIED),
        ("repeated", tally::REPEATED),
        ("unremembered", tally::UNREMEMBERED),
        ("challenged", tally::CHALLENGED),
        ("half-open", tally::HALF_OPEN),
        ("refused-table-full", tally::REFUSED_TABLE_FULL),
        ("completed", tally::COMPLETED),
        ("handshakes-full", tally::HANDSHAKES_FULL),
        ("sources-full", tally::SOURCES_FULL),
        ("half-open-uncounted", tally::HALF_OPEN_UNCOUNTED),
        ("half-open-kept", tally::HALF_OPEN_KEPT),
        ("unproved", tally::UNPROVED),
        ("answers-full", tally::ANSWERS_FULL),
        ("unseen", tally::UNSEEN),
    ] {
        assert_eq!(bench.counter(name), position as u64, "{name}");
    }
}

#[test]
fn errors_name_the_key() {
    for (config, expected) in [
        ("", "missing field `syn_per_s`"),
        (r#""syn_per_s": 0"#, "`syn_per_s`: 0 is not from 0.001"),
        (r#""syn_per_s": 1, "burst": 0"#, "`burst`: 0 is not from 1"),
        (r#""syn_per_s": 0.001, "burst": 4000000000"#, "`syn_per_s`: the burst must be"),
        (r#""syn_per_s": 1, "fallback_per_s": -1"#, "`fallback_per_s`: -1"),
        (r#""syn_per_s": 1, "entries": 7"#, "`entries`: 7"),
        (r#""syn_per_s": 1, "entries": 1048577"#, "`entries`: 1048577"),
        (r#""syn_per_s": 1, "sources": 7"#, "`sources`: 7"),
        (r#""syn_per_s": 1, "destinations": 0"#, "`destinations`: 0"),
        (r#""syn_per_s": 1, "half_open_max": 65537"#, "`half_open_max`: 65537"),
        (r#""syn_per_s": 1, "half_open_s": 0"#, "`half_open_s`: 0"),
        (r#""syn_per_s": 1, "half_open_entries": 7"#, "`half_open_entries`: 7"),
        (r#""syn_per_s": 1, "verified_s": 86401"#, "`verified_s`: 86401"),
        (r#""syn_per_s": 1, "retry_min_ms": 901"#, "`retry_min_ms`: 901"),
        (r#""syn_per_s": 1, "answers": 7"#, "`answers`: 7"),
        (r#""syn_per_s": 1, "proof": "cookie""#, "`proof`: "),
        (r#""syn_per_s": 1, "directions": []"#, "`directions`: the list is empty"),
        (r#""syn_per_s": 1, "cookies": true"#, "`cookies`: unknown key"),
    ] {
        let config = format!("{{{config}}}");
        let text = Bench::<SynGuard>::new(&config).expect_err(&config);
        assert!(text.contains(expected), "{config}: {text}");
    }
}

/// What the worker of a client, and that of the server's answers, see of a handshake.
fn shown(descriptor: Descriptor, sequence: u32, acknowledgment: u32) -> Seen {
    let ports = [descriptor.source_port.to_be_bytes(), descriptor.destination_port.to_be_bytes()];
    let numbers = [sequence.to_be_bytes(), acknowledgment.to_be_bytes()];
    Seen { payload: [ports.concat(), numbers.concat()].concat(), ..Seen::from(descriptor) }
}

/// The server's answer to a packet.
fn answer(client: Descriptor, sequence: u32) -> Seen {
    let answer = Descriptor {
        source: client.destination,
        destination: client.source,
        source_port: client.destination_port,
        destination_port: client.source_port,
        tcp_flags: SYN | ACK,
        direction: direction::OUTBOUND,
        ..client
    };
    shown(answer, sequence, 1)
}

fn verdicts(bench: &mut Bench<SynGuard>, packets: &[Seen], now_ns: u64) -> Vec<Verdict> {
    bench.judge_seen(packets, now_ns).iter().map(|answer| answer.verdict).collect()
}

const ANSWERED: &str = r#""syn_per_s": 0.001, "burst": 1, "fallback_per_s": 0.001, "proof": "answer",
    "half_open_max": 1, "half_open_s": 10, "answers": 8"#;

#[test]
fn only_who_saw_the_answer_completes_a_handshake_wherever_that_came() {
    let mut workers = workers(2, ANSWERED);
    let [client, server] = &mut workers[..] else { panic!("two") };
    // The destination's rate is used up by another.
    assert_eq!(client.judge(&[packet(0xffff_ffff, 1, SYN)], SECOND), [KEPT]);
    let syn = |port| packet(1, port, SYN);
    let reply =
        |port, flags, number| shown(Descriptor { tcp_flags: flags, ..syn(port) }, 1, number);
    let now = 10 * SECOND;
    assert_eq!(client.judge(&[syn(1)], now), [AGAIN]);
    assert_eq!(client.judge(&[syn(1)], now + SECOND), [KEPT]);
    // The number at the end of its range.
    assert_eq!(verdicts(server, &[answer(syn(1), u32::MAX)], now + SECOND), [KEPT]);
    // Blind ACKs and resets, and one of another flow: they pass, and end nothing.
    let blind = [
        reply(1, ACK, 1),
        reply(1, ACK, u32::MAX),
        reply(1, RST, 0xdead),
        reply(2, ACK, 0),
        // None of the client's.
        shown(Descriptor { tcp_flags: SYN | ACK, ..syn(1) }, 0, 0),
    ];
    assert_eq!(verdicts(client, &blind, now + SECOND), [KEPT; 5]);
    assert_eq!(client.counter("unproved"), 3);
    assert_eq!(client.counter("completed"), 0);
    // The one that saw it, sent twice.
    let acknowledged = [reply(1, ACK, 0), reply(1, ACK, 0)];
    assert_eq!(verdicts(client, &acknowledged, now + SECOND), [KEPT; 2]);
    assert_eq!((client.counter("unproved"), client.counter("completed")), (3, 1));
    // It is trusted, and its place has returned; an answer is good for one handshake.
    assert_eq!(client.judge(&[syn(3)], now + SECOND), [KEPT]);
    assert_eq!(verdicts(client, &[reply(3, ACK, 0)], now + SECOND), [KEPT]);
    assert_eq!(client.judge(&[syn(4)], now + SECOND), [TOO_MANY]);
    // A reset with the number ends one and makes nobody trusted.
    verdicts(server, &[answer(syn(3), 7)], now + SECOND);
    assert_eq!(verdicts(client, &[reply(3, RST | ACK, 8)], now + SECOND), [KEPT]);
    assert_eq!((client.counter("completed"), client.counter("unseen")), (1, 0));
    assert_eq!(client.judge(&[syn(4)], now + SECOND), [KEPT]);
    // An answer counts until the handshake's time is over.
    verdicts(server, &[answer(syn(4), 9)], now + SECOND);
    assert_eq!(verdicts(client, &[reply(4, ACK, 10)], now + 11 * SECOND), [KEPT]);
    assert_eq!(client.counter("completed"), 1);
    assert_balance(&client.counters);
}

#[test]
fn answers_are_looked_for_where_those_to_the_judged_packets_come() {
    for (directions, passing) in [("inbound", true), ("transit", false)] {
        let config = format!(r#"{ANSWERED}, "directions": ["{directions}"]"#);
        let mut bench = bench(&config);
        let syn = Descriptor { direction: direction::INBOUND, ..packet(1, 1, SYN) };
        verdicts(&mut bench, &[shown(syn, 0, 0), answer(syn, 5)], SECOND);
        let ack = shown(Descriptor { tcp_flags: ACK, ..syn }, 1, 6);
        verdicts(&mut bench, &[ack], SECOND);
        assert_eq!(bench.counter("completed"), u64::from(passing), "{directions}");
    }
    // In transit both ways are alike, and the two may come in one batch.
    let mut bench = bench(&format!(r#"{ANSWERED}, "directions": ["transit"]"#));
    let syn = Descriptor { direction: direction::TRANSIT, ..packet(1, 1, SYN) };
    verdicts(&mut bench, &[shown(syn, 0, 0)], SECOND);
    let answer = answer(syn, 5);
    let descriptor = Descriptor { direction: direction::TRANSIT, ..answer.descriptor };
    let ack = shown(Descriptor { tcp_flags: ACK, ..syn }, 1, 6);
    verdicts(&mut bench, &[ack, Seen { descriptor, ..answer }], SECOND);
    assert_eq!((bench.counter("completed"), bench.counter("unproved")), (1, 0));
    // IPv6 likewise, of which not all of an address is in the key as it is.
    let six = |host: u16| Descriptor {
        protocol: 6,
        tcp_flags: SYN,
        source_port: 7,
        ..ipv6([0x2001, 0xdb8, 0, 1, 0, 0, 0, host], [1; 8])
    };
    bench.judge(&[six(1)], 100 * SECOND);
    for (host, sequence) in [(2, 5), (1, 5)] {
        let reversed = Descriptor {
            source: six(1).destination,
            destination: six(host).source,
            source_port: 0,
            destination_port: 7,
            tcp_flags: SYN | ACK,
            ..six(1)
        };
        let ack = shown(Descriptor { tcp_flags: ACK, ..six(1) }, 1, 6);
        verdicts(&mut bench, &[shown(reversed, sequence, 1), ack], 100 * SECOND);
    }
    assert_eq!((bench.counter("completed"), bench.counter("unproved")), (2, 1));
}

#[test]
fn answers_without_a_place_or_numbers_are_counted_and_cost_no_packet() {
    let config = ANSWERED.replace(r#""burst": 1"#, r#""burst": 100"#);
    let mut bench = bench(&config);
    let syns: Vec<_> = (0..40).map(|source| packet(source, 1, SYN)).collect();
    assert_eq!(bench.judge(&syns, SECOND), [KEPT; 40]);
    let answers: Vec<_> = syns.iter().map(|syn| answer(*syn, 5)).collect();
    assert_eq!(verdicts(&mut bench, &answers, SECOND), [KEPT; 40]);
    assert_eq!(bench.counter("answers-full"), 32);
    let ack = |syn: &Descriptor| shown(Descriptor { tcp_flags: ACK, ..*syn }, 1, 6);
    let acks: Vec<_> = syns.iter().map(ack).collect();
    assert_eq!(verdicts(&mut bench, &acks, SECOND), [KEPT; 40]);
    assert_eq!((bench.counter("completed"), bench.counter("unproved")), (8, 32));
    // Where the operator does not grant the payload no number is seen, and any ACK has to do.
    let hidden: Vec<_> = answers.iter().map(|answer| answer.descriptor).collect();
    assert_eq!(bench.judge(&hidden, SECOND), [KEPT; 40]);
    let hidden: Vec<_> = acks.iter().map(|ack| ack.descriptor).collect();
    assert_eq!(bench.judge(&hidden, SECOND), [KEPT; 40]);
    assert_eq!((bench.counter("completed"), bench.counter("unseen")), (40, 40 + 32));
    assert_balance(&bench.counters);
}

/// The same decisions from maps without a limit. Times are multiples of 100 ms, so that rounding to
/// ticks decides nothing.
#[derive(Default)]
struct Model {
    flows: HashMap<(u32, u16), (bool, u64)>,
    verified: HashMap<u32, u64>,
    /// Until when handshakes count, by source and port.
    half_open: HashMap<u32, HashMap<u16, u64>>,
}

impl Model {
    const HALF_OPEN_NS: u64 = 8 * SECOND;

    fn judge(&mut self, source: u32, port: u16, tcp_flags: u8, now: u64) -> Verdict {
        let flow = self.flows.get(&(source, port)).copied().filter(|(passed, at)| {
            now - at <= if *passed { Self::HALF_OPEN_NS } else { 4 * SECOND }
        });
        if tcp_flags != SYN {
            if let Some((true, _)) = flow {
                self.flows.remove(&(source, port));
                self.half_open.entry(source).or_default().remove(&port);
                if tcp_flags & RST == 0 {
                    self.verified.insert(source, now / SECOND + 30);
                }
            }
            return KEPT;
        }
        let is_verified = self.verified.get(&source).is_some_and(|until| *until > now / SECOND);
        match flow {
            Some((_, at)) if now - at < 500 * MS => return AGAIN,
            Some(_) => {}
            None if is_verified => {}
            None => {
                self.flows.insert((source, port), (false, now));
                return AGAIN;
            }
        }
        let half_open = self.half_open.entry(source).or_default();
        half_open.retain(|_, until| *until > now);
        if half_open.len() >= 3 && !half_open.contains_key(&port) {
            return TOO_MANY;
        }
        half_open.insert(port, now + Self::HALF_OPEN_NS);
        self.flows.insert((source, port), (true, now));
        KEPT
    }
}

proptest! {
    #[test]
    fn decisions_are_those_of_maps_without_a_limit(
        steps in prop::collection::vec(
            (0_u32..4, 0_u16..6, prop::sample::select(vec![SYN, SYN, SYN, ACK, RST]), 0_u64..12),
            1..400,
        ),
    ) {
        let mut bench = strict(r#", "half_open_max": 3, "half_open_s": 8, "verified_s": 30"#);
        let (mut model, mut now) = (Model::default(), 100 * SECOND);
        for (source, port, tcp_flags, tenths) in steps {
            now += tenths * 100 * MS;
            let verdicts = bench.judge(&[packet(source, port, tcp_flags)], now);
            let expected = model.judge(source, port, tcp_flags, now);
            prop_assert_eq!(verdicts, [expected], "{} {} {:#x} at {}", source, port, tcp_flags, now);
        }
        assert_balance(&bench.counters);
    }
}
