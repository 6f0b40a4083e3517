//! Rules by field against a scan of the rules one by one, and the edges of each field. Expressions
//! have tests of their own.

mod expressions;

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use proptest::prelude::*;
use sluice_sdk::{
    Descriptor, REASON_DEFAULT, Verdict, direction, flags,
    testing::{Bench, ipv4, ipv6},
};

use super::*;

const DROPPED: Verdict = reason::RULE.verdict();

fn bench(config: &str) -> Bench<Filter> {
    Bench::new(config).expect("the configuration is good")
}

/// The verdict of a single rule that drops, for one packet.
fn drops(rule: &str, packet: &Descriptor) -> bool {
    let config = format!(r#"{{"default":"allow","rules":[{{"action":"drop",{rule}}}]}}"#);
    let verdicts = bench(&config).judge(std::slice::from_ref(packet), 0);
    assert!(verdicts[0] == DROPPED || verdicts[0] == Verdict::CONTINUE);
    verdicts[0] == DROPPED
}

fn refusal(config: &str) -> String {
    Bench::<Filter>::new(config).expect_err("the configuration is broken")
}

#[test]
fn the_first_match_wins_and_is_counted() {
    let mut bench = bench(
        r#"{"default":"drop","rules":[
            {"action":"allow","source":"10.1.0.0/16"},
            {"action":"drop","source":"10.0.0.0/8"},
            {"action":"allow","destination":"2001:db8::/32"}]}"#,
    );
    let packets = [
        ipv4([10, 1, 2, 3], [192, 0, 2, 1]),
        ipv4([10, 2, 2, 3], [192, 0, 2, 1]),
        ipv4([11, 0, 0, 0], [192, 0, 2, 1]),
        ipv6([0xfd00, 0, 0, 0, 0, 0, 0, 1], [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    ];
    let verdicts = bench.judge(&packets, 0);
    let no_rule = reason::NO_RULE.verdict();
    assert_eq!(verdicts, [Verdict::CONTINUE, DROPPED, no_rule, Verdict::CONTINUE]);
    assert_eq!(bench.counters[..4], [1, 1, 1, 1]);
    assert!(bench.counters[4..].iter().all(|count| *count == 0));
    const { assert!(reason::NO_RULE.index() != REASON_DEFAULT) };
}

#[test]
fn prefixes_hold_from_their_first_to_their_last_address() {
    let from = |source| ipv4(source, [1, 1, 1, 1]);
    let rule = r#""source":["192.0.2.0/25"]"#;
    assert!(drops(rule, &from([192, 0, 2, 0])));
    assert!(drops(rule, &from([192, 0, 2, 127])));
    assert!(!drops(rule, &from([192, 0, 2, 128])));
    assert!(!drops(rule, &from([192, 0, 1, 255])));
    let ends = r#""source":["0.0.0.0/8","255.255.255.255"]"#;
    assert!(drops(ends, &from([0, 0, 0, 0])));
    assert!(drops(ends, &from([255, 255, 255, 255])));
    assert!(!drops(ends, &from([255, 255, 255, 254])));
    assert!(drops(r#""source":"0.0.0.0/0""#, &from([255, 255, 255, 255])));
    assert!(!drops(r#""source":"::/0""#, &from([1, 2, 3, 4])), "IPv4 is no part of ::/0");
    assert!(drops(r#""source":"::ffff:192.0.2.0/120""#, &from([192, 0, 2, 9])), "it is IPv4");
    let all = [0xffff; 8];
    assert!(drops(r#""destination":"ff00::/8""#, &ipv6([0; 8], all)));
    assert!(drops(r#""destination":"::/0""#, &ipv6([0; 8], all)));
    assert!(!drops(r#""destination":"0.0.0.0/0""#, &ipv6([0; 8], all)));
}

#[test]
fn ports_need_a_packet_that_has_them() {
    let mut packet = ipv4([1, 1, 1, 1], [2, 2, 2, 2]);
    packet.destination_port = 2000;
    let rule = r#""destination_ports":["1000-2000",3000]"#;
    assert!(drops(rule, &packet));
    packet.destination_port = 3000;
    assert!(drops(rule, &packet));
    packet.destination_port = 2001;
    assert!(!drops(rule, &packet));
    packet.destination_port = 999;
    assert!(!drops(rule, &packet));
    packet.destination_port = 1000;
    assert!(drops(rule, &packet));
    let everything = r#""destination_ports":"0-65535""#;
    packet.destination_port = u16::MAX;
    assert!(drops(everything, &packet));
    let fragment = Descriptor { flags: flags::FRAGMENT | flags::LATER_FRAGMENT, ..packet };
    assert!(!drops(everything, &fragment));
    let echo = Descriptor { protocol: 1, ..packet };
    assert!(!drops(everything, &echo), "an echo's identifier is no port");
}

#[test]
fn tcp_flags_are_tcp_only_and_not_for_later_fragments() {
    let mut packet = ipv4([1, 1, 1, 1], [2, 2, 2, 2]);
    let rule = r#""tcp_flags":{"set":["syn"],"clear":["ack"]}"#;
    packet.tcp_flags = 0x02;
    assert!(!drops(rule, &packet), "it is UDP");
    packet.protocol = 6;
    assert!(drops(rule, &packet));
    packet.tcp_flags = 0x12;
    assert!(!drops(rule, &packet));
    packet.tcp_flags = 0xc2;
    assert!(drops(rule, &packet));
    packet.tcp_flags = 0;
    let clear = r#""tcp_flags":{"clear":["ack"]}"#;
    assert!(drops(clear, &packet));
    packet.flags = flags::FRAGMENT | flags::LATER_FRAGMENT;
    assert!(!drops(clear, &packet));
}

#[test]
fn direction_and_protocol_are_exact() {
    let mut packet = ipv4([1, 1, 1, 1], [2, 2, 2, 2]);
    packet.direction = direction::INBOUND;
    assert!(drops(r#""direction":"inbound","protocol":"udp""#, &packet));
    assert!(drops(r#""direction":"inbound","protocol":17"#, &packet));
    assert!(!drops(r#""direction":"outbound""#, &packet));
    assert!(!drops(r#""protocol":"tcp""#, &packet));
    packet.direction = 9;
    assert!(!drops(r#""direction":"inbound""#, &packet));
}

/// Addresses decide most of them, and rules of other fields the rest: one, some, most and all of a batch.
#[test]
fn packets_that_addresses_decide_are_judged_as_the_others() {
    let mut bench = bench(
        r#"{"default":"allow","rules":[
            {"action":"allow","source":"10.0.0.0/8"},
            {"action":"drop","source":"172.16.0.0/12","protocol":"udp","destination_ports":53},
            {"action":"drop","source":"2001:db8::/32","source_ports":7},
            {"action":"drop","destination":"192.0.2.0/24"}]}"#,
    );
    let at = |source: [u8; 4], port| Descriptor {
        destination_port: port,
        ..ipv4(source, [198, 51, 100, 1])
    };
    let v6 =
        |port| Descriptor { source_port: port, ..ipv6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [1; 8]) };
    let decided = [
        (ipv4([10, 1, 1, 1], [192, 0, 2, 1]), Verdict::CONTINUE),
        (ipv4([11, 1, 1, 1], [192, 0, 2, 1]), DROPPED),
        (ipv4([11, 1, 1, 1], [192, 0, 3, 1]), Verdict::CONTINUE),
        (ipv6([0xfd00, 0, 0, 0, 0, 0, 0, 1], [1; 8]), Verdict::CONTINUE),
    ];
    let others = [
        (at([172, 16, 0, 1], 53), DROPPED),
        (at([172, 16, 0, 1], 54), Verdict::CONTINUE),
        (v6(7), DROPPED),
        (v6(8), Verdict::CONTINUE),
    ];
    for undecided in [0, 1, 7, 100, 180, 250, 3, 256, 0, 20] {
        for n in [undecided, 256] {
            let pick = |at: usize| {
                if at * undecided / n.max(1) != (at + 1) * undecided / n.max(1) {
                    others[at % others.len()]
                } else {
                    decided[at % decided.len()]
                }
            };
            let (packets, expected): (Vec<_>, Vec<_>) = (0..n).map(pick).unzip();
            assert_eq!(bench.judge(&packets, 0), expected, "{undecided} of {n}");
        }
    }
}

#[test]
fn no_rules_leave_the_default() {
    let packet = ipv4([1, 1, 1, 1], [2, 2, 2, 2]);
    let mut bench = bench(r#"{"default":"drop"}"#);
    assert_eq!(bench.judge(&[packet], 0), [reason::NO_RULE.verdict()]);
}

#[test]
fn errors_name_rule_and_key() {
    let rule = |keys: &str| {
        refusal(&format!(
            r#"{{"default":"allow","rules":[{{"action":"allow"}},{{"action":"drop"{keys}}}]}}"#
        ))
    };
    for (keys, expected) in [
        (
            r#","colour":1"#,
            "`rules[1].colour`: unknown key, expected one of `action`, `when`, `source`",
        ),
        (r#","source":["10.0.0.0/8","nine"]"#, "`rules[1].source[1]`: \"nine\" is no prefix"),
        (r#","source":"10.0.0.1/8""#, "`rules[1].source`: 10.0.0.1/8 has bits set"),
        (r#","when":"tcp","source":"10.0.0.0/8""#, "`rules[1].source`: a rule with `when`"),
        (r#","when":7"#, "`rules[1].when`: 7 is no text"),
        (r#","source":[]"#, "`rules[1].source`: the list is empty"),
        (r#","destination_ports":["2000-1000"]"#, "`rules[1].destination_ports[0]`"),
        (r#","source_ports":65536"#, "`rules[1].source_ports`"),
        (r#","protocol":"tpc""#, "`rules[1].protocol`: \"tpc\" is no protocol"),
        (r#","protocol":256"#, "`rules[1].protocol`"),
        (r#","protocol":"icmp","source_ports":1"#, "`rules[1]`: `protocol` has no ports"),
        (r#","protocol":"udp","tcp_flags":{"set":"syn"}"#, "`rules[1].tcp_flags`"),
        (r#","tcp_flags":{"set":["sin"]}"#, "`rules[1].tcp_flags.set[0]`"),
        (
            r#","tcp_flags":{"sett":["syn"]}"#,
            "`rules[1].tcp_flags.sett`: unknown key, expected one of `set`, `clear`",
        ),
        (r#","tcp_flags":{"set":"syn","clear":"syn"}"#, "`rules[1].tcp_flags`: a flag is both"),
        (r#","tcp_flags":{}"#, "`rules[1].tcp_flags`: neither"),
        (r#","direction":"up""#, "`rules[1].direction`"),
        (r#","source":"10.0.0.0/8","destination":"::/0""#, "no address family in common"),
    ] {
        let text = rule(keys);
        assert!(text.contains(expected), "{keys}: {text}");
    }
    assert!(refusal("{}").contains("`default` is missing"));
    assert!(refusal(r#"{"default":"maybe"}"#).contains("`default`: \"maybe\""));
    let unknown = "`rule`: unknown key, expected one of `default`, `sets`, `rules`";
    assert!(refusal(r#"{"default":"allow","rule":[]}"#).contains(unknown));
    // What is misspelt is told rather than missed.
    let misspelt = refusal(r#"{"default":"allow","rules":[{"acton":"drop"}]}"#);
    assert!(
        misspelt.contains("`rules[0].acton`: unknown key, expected one of `action`"),
        "{misspelt}"
    );
    assert!(
        refusal(r#"{"default":"allow","rules":[{}]}"#).contains("`rules[0].action` is missing")
    );
    assert!(refusal("[]").contains("is no table"));
    assert!(refusal("{").contains("line 1"));
    let many = vec![r#"{"action":"drop"}"#; RULES_MAX + 1].join(",");
    assert!(refusal(&format!(r#"{{"default":"allow","rules":[{many}]}}"#)).contains("1024"));
}

/// What the rules say, one by one.
fn scan(rules: &[Fields], packet: &Descriptor) -> Option<usize> {
    let address = |bytes: [u8; 16]| {
        let v6 = Ipv6Addr::from(bytes);
        if packet.flags & flags::IPV6 == 0 {
            IpAddr::V4(v6.to_ipv4_mapped().expect("mapped"))
        } else {
            IpAddr::V6(v6)
        }
    };
    let within = |nets: &[IpNet], bytes| {
        nets.is_empty() || nets.iter().any(|net| net.contains(&address(bytes)))
    };
    let has_ports = packet.flags & flags::PORTS != 0 && ![1, 58].contains(&packet.protocol);
    let ports = |ranges: &[std::ops::RangeInclusive<u16>], port| {
        ranges.is_empty() || has_ports && ranges.iter().any(|range| range.contains(&port))
    };
    rules.iter().position(|rule| {
        within(&rule.source, packet.source)
            && within(&rule.destination, packet.destination)
            && ports(&rule.source_ports, packet.source_port)
            && ports(&rule.destination_ports, packet.destination_port)
            && rule.protocol.is_none_or(|protocol| protocol == packet.protocol)
            && rule.direction.is_none_or(|direction| direction == packet.direction)
            && rule.tcp_flags.is_none_or(|(mask, value)| {
                packet.protocol == 6
                    && packet.flags & flags::LATER_FRAGMENT == 0
                    && packet.tcp_flags & mask == value
            })
    })
}

/// Addresses are drawn from few, so that prefixes and packets meet.
fn net() -> impl Strategy<Value = IpNet> {
    let v4 = (0_u8..4, 0_u8..4, prop::sample::select(vec![0_u8, 7, 8, 16, 31, 32]));
    let v4 = v4.prop_map(|(a, b, len)| {
        IpNet::new(IpAddr::from([a * 85, b, 0, b]), len).expect("a length").trunc()
    });
    let v6 = (0_u16..3, 0_u16..3, prop::sample::select(vec![0_u8, 1, 16, 32, 64, 127, 128]));
    let v6 = v6.prop_map(|(a, b, len)| {
        let address = Ipv6Addr::from([a * 0x7fff, b, 0, 0, 0, 0, 0, b]);
        IpNet::new(address.into(), len).expect("a length").trunc()
    });
    prop_oneof![v4, v6]
}

fn rule() -> impl Strategy<Value = Fields> {
    let nets = || prop::collection::vec(net(), 0..3);
    let ports = || {
        let range = (0_u16..8, 0_u16..8).prop_map(|(a, b)| a.min(b) * 9000..=a.max(b) * 9000);
        prop::collection::vec(range, 0..2)
    };
    let flags = prop::option::weighted(0.2, (1_u8..8, 0_u8..8).prop_map(|(m, v)| (m, v & m)));
    let protocol = prop::option::of(prop::sample::select(vec![1_u8, 6, 17]));
    let direction = prop::option::weighted(0.3, 0_u8..3);
    (nets(), nets(), ports(), ports(), flags, protocol, direction).prop_map(
        |(source, destination, source_ports, destination_ports, tcp_flags, protocol, direction)| {
            Fields {
                source,
                destination,
                protocol,
                source_ports,
                destination_ports,
                tcp_flags,
                direction,
            }
        },
    )
}

fn packet() -> impl Strategy<Value = Descriptor> {
    let address = (0_u16..4, 0_u16..4);
    let ports = (0_u16..70, 0_u16..70).prop_map(|(a, b)| (a * 900, b * 900));
    let kind = (any::<bool>(), any::<bool>(), prop::sample::select(vec![1_u8, 6, 17, 50]));
    (address.clone(), address, ports, kind, 0_u8..8, 0_u8..4).prop_map(
        |(source, destination, ports, (v6, fragment, protocol), tcp_flags, direction)| {
            let packet = if v6 {
                let wide = |(a, b): (u16, u16)| [a * 0x5555, b, 0, 0, 0, 0, 0, b];
                ipv6(wide(source), wide(destination))
            } else {
                let narrow = |(a, b): (u16, u16)| [a as u8 * 85, b as u8, 0, b as u8];
                ipv4(narrow(source), narrow(destination))
            };
            let later = if fragment { flags::FRAGMENT | flags::LATER_FRAGMENT } else { 0 };
            let kept = if fragment { !flags::PORTS } else { !0 };
            Descriptor {
                source_port: ports.0,
                destination_port: ports.1,
                protocol,
                tcp_flags,
                direction,
                flags: packet.flags & kept | later,
                ..packet
            }
        },
    )
}

proptest! {
    #[test]
    fn the_classifier_is_the_scan(
        rules in prop_oneof![
            prop::collection::vec(rule(), 0..150),
            prop::collection::vec(rule(), 150..400),
        ],
        packets in prop::collection::vec(packet(), 200),
    ) {
        let clauses: Vec<_> = rules.iter().map(Fields::clause).collect();
        let mut classifier = Classifier::new(&clauses).expect("they fit");
        // What a batch leaves behind must not meet the next, which has another size.
        let (first, rest) = packets.split_at(67);
        for packets in [first, &rest[..1], &rest[1..], &[]] {
            let mut found = vec![None; packets.len()];
            for a_match in classifier.classify(packets) {
                let clause = usize::from(a_match.clause);
                found[usize::from(a_match.position)] = Some(clause).filter(|it| *it < rules.len());
            }
            for (packet, found) in packets.iter().zip(found) {
                prop_assert_eq!(found, scan(&rules, packet), "{:?}", packet);
            }
        }
    }
}
