//! Distances at the ends of each initial TTL, limits at theirs, and what is refused.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use proptest::prelude::*;
use sluice_sdk::{
    Descriptor, direction,
    testing::{Bench, ipv4, ipv6},
};

use super::*;

const FAR: Verdict = reason::TOO_FAR.verdict();
const NEAR: Verdict = reason::TOO_NEAR.verdict();
const KEPT: Verdict = Verdict::CONTINUE;

fn bench(config: &str) -> Bench<HopDistance> {
    Bench::new(config).expect("the configuration is good")
}

fn from(source: [u8; 4], ttl: u8) -> Descriptor {
    Descriptor { ttl, direction: direction::INBOUND, ..ipv4(source, [192, 0, 2, 1]) }
}

#[test]
fn a_distance_is_counted_from_the_next_initial_ttl() {
    let usual = [32, 64, 128, 255];
    for (ttl, hops) in [
        (0, 32),
        (1, 31),
        (32, 0),
        (33, 31),
        (57, 7),
        (64, 0),
        (65, 63),
        (128, 0),
        (129, 126),
        (255, 0),
    ] {
        assert_eq!(distance(&usual, ttl), hops, "{ttl}");
    }
    assert_eq!(distance(&[64, 255], 30), 34);
}

#[test]
fn what_came_from_too_far_or_too_near_is_dropped_and_counted() {
    let mut bench = bench(r#"{"min_hops": 2, "max_hops": 20}"#);
    let source = [9, 9, 9, 9];
    let packets = [from(source, 63), from(source, 62), from(source, 44), from(source, 43)];
    assert_eq!(bench.judge(&packets, 0), [NEAR, KEPT, KEPT, FAR]);
    assert_eq!(bench.counters[..3], [4, 1, 1]);
    for hops in 0..=HOPS_COUNTED {
        let expected = u64::from([1, 2, 20, 21].contains(&hops));
        assert_eq!(bench.counter(&format!("hops[{hops}]")), expected, "{hops}");
    }
    // A distance beyond the last counter is in it.
    bench.judge(&[from(source, 129)], 0);
    assert_eq!(bench.counter("hops[64]"), 1);
}

#[test]
fn without_enforcement_packets_are_counted_and_go_on() {
    let mut bench = bench(r#"{"min_hops": 2, "max_hops": 20, "enforce": false}"#);
    let packets = [from([1; 4], 64), from([1; 4], 40)];
    assert_eq!(bench.judge(&packets, 0), [KEPT, KEPT]);
    assert_eq!(bench.counters[..3], [2, 1, 1]);
}

#[test]
fn only_the_directions_that_are_named_are_judged() {
    let at = |direction| Descriptor { direction, ..from([1; 4], 64) };
    let packets = [0, 1, 2, 3, 255].map(at);
    let mut usual = bench(r#"{"min_hops": 1}"#);
    assert_eq!(usual.judge(&packets, 0), [NEAR, KEPT, NEAR, KEPT, KEPT]);
    assert_eq!(usual.counter("checked"), 2);
    let mut outbound = bench(r#"{"min_hops": 1, "directions": ["outbound"]}"#);
    assert_eq!(outbound.judge(&packets, 0), [KEPT, NEAR, KEPT, KEPT, KEPT]);
}

#[test]
fn the_longest_prefix_has_its_own_limits() {
    let mut bench = bench(
        r#"{"max_hops": 5, "prefixes": [
            {"prefix": "10.0.0.0/8", "max_hops": 10},
            {"prefix": "10.1.0.0/16", "min_hops": 3},
            {"prefix": "::ffff:10.2.0.0/112", "min_hops": 0, "max_hops": 0},
            {"prefix": "2001:db8::/32", "min_hops": 7, "max_hops": 7}]}"#,
    );
    let six = |ttl| Descriptor {
        ttl,
        direction: direction::INBOUND,
        ..ipv6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [1; 8])
    };
    let packets = [
        from([11, 0, 0, 1], 58),
        from([10, 0, 0, 1], 58),
        from([10, 0, 0, 1], 53),
        from([10, 1, 0, 1], 62),
        from([10, 1, 0, 1], 33),
        from([10, 2, 0, 1], 255),
        from([10, 2, 0, 1], 254),
        six(57),
        six(58),
    ];
    assert_eq!(bench.judge(&packets, 0), [FAR, KEPT, FAR, NEAR, KEPT, KEPT, FAR, KEPT, NEAR]);
}

#[test]
fn errors_name_the_key() {
    let many = vec![r#"{"prefix":"10.0.0.0/8"}"#; PREFIXES_MAX + 1].join(",");
    for (config, expected) in [
        ("[]", "invalid"),
        (r#"{"hops": 1}"#, "`hops`: unknown key"),
        (r#"{"max_hops": 256}"#, "`max_hops`: invalid value: integer `256`"),
        (r#"{"min_hops": -1}"#, "`min_hops`: invalid value: integer `-1`"),
        (r#"{"min_hops": 9, "max_hops": 8}"#, "`min_hops` is above `max_hops`"),
        (r#"{"initial": [64, 64]}"#, "`initial[1]`: 64 is not above 64"),
        (r#"{"initial": [0]}"#, "`initial[0]`: 0 is not above 0"),
        (r#"{"initial": [1,2,3,4,5,6,7,8,9]}"#, "`initial`: more than 8"),
        (r#"{"directions": []}"#, "`directions`: the list is empty"),
        (r#"{"directions": ["up"]}"#, "`directions[0]`: unknown variant `up`"),
        (r#"{"enforce": 1}"#, "`enforce`: invalid type"),
        (r#"{"prefixes": {}}"#, "`prefixes`: invalid type: map"),
        (r#"{"prefixes": [7]}"#, "`prefixes[0]`: invalid type"),
        (r#"{"prefixes": [{}]}"#, "`prefixes[0]`: missing field `prefix`"),
        (
            r#"{"prefixes": [{"prefix": "10.0.0.1/8"}]}"#,
            "`prefixes[0].prefix`: 10.0.0.1/8 has bits",
        ),
        (r#"{"prefixes": [{"prefix": "::/0", "hops": 1}]}"#, "`prefixes[0].hops`: unknown key"),
        (
            r#"{"prefixes": [{"prefix": "::/0", "min_hops": 2, "max_hops": 1}]}"#,
            "`prefixes[0].min_hops` is above `prefixes[0].max_hops`",
        ),
        (r#"{"prefixes": [{"prefix": "::/0"}, {"prefix": "::/0"}]}"#, "::/0 stands there twice"),
        (&format!(r#"{{"prefixes": [{many}]}}"#), "`prefixes`: more than 4096"),
    ] {
        let text = Bench::<HopDistance>::new(config).expect_err(expected);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

proptest! {
    #[test]
    fn judgement_is_that_of_the_longest_prefix_one_by_one(
        prefixes in prop::collection::btree_map((0_u8..4, 0_u8..4, 1_u8..33), (0_u8..9, 0_u8..9), 0..20),
        packets in prop::collection::vec((0_u8..4, 0_u8..4, any::<u8>()), 100),
    ) {
        let prefixes = prefixes
            .into_iter()
            .map(|((a, b, len), (min, more))| {
                let net = IpNet::new(IpAddr::from([a, b, 0, 0]), len).expect("a length").trunc();
                (net, (min, min + more))
            })
            .collect::<BTreeMap<_, _>>();
        let json: Vec<_> = prefixes
            .iter()
            .map(|(net, (min, max))| {
                format!(r#"{{"prefix":"{net}","min_hops":{min},"max_hops":{max}}}"#)
            })
            .collect();
        let mut bench = bench(&format!(r#"{{"max_hops":30,"prefixes":[{}]}}"#, json.join(",")));
        for (a, b, ttl) in packets {
            let holding = prefixes.iter().filter(|(net, _)| net.contains(&IpAddr::from([a, b, 0, 1])));
            let (min, max) = holding
                .max_by_key(|(net, _)| net.prefix_len())
                .map_or((0, 30), |(_, limits)| *limits);
            let initial = [32_u8, 64, 128, 255].into_iter().find(|initial| *initial >= ttl);
            let hops = initial.expect("255 is the last") - ttl;
            let expected = if hops > max { FAR } else if hops < min { NEAR } else { KEPT };
            prop_assert_eq!(bench.judge(&[from([a, b, 0, 1], ttl)], 0), [expected]);
        }
    }
}
