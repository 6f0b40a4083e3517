//! Expressions: each field by example, what is refused and how, and random ones against an evaluation
//! of what was meant, packet by packet and without any table.

use std::net::Ipv4Addr;

use super::*;

/// What a rule that drops `when` does with a packet.
fn meets(when: &str, packet: &Descriptor) -> bool {
    let when = when.replace('"', "\\\"").replace('\n', "\\n");
    drops(&format!(r#""when":"{when}""#), packet)
}

fn refused(when: &str) -> String {
    parse(when, &Sets::new()).expect_err(when).to_string()
}

fn tcp(source_port: u16, destination_port: u16) -> Descriptor {
    Descriptor {
        source_port,
        destination_port,
        protocol: 6,
        tcp_flags: 0x02,
        ..ipv4([192, 0, 2, 1], [198, 51, 100, 1])
    }
}

#[test]
fn the_example_of_the_readme() {
    let when = "ip.src in {10.0.0.0/8 2001:db8::/32} and tcp.dstport in {80 443 8000..8100} and \
                not ip.ttl < 5";
    let packet = Descriptor { source: ipv4([10, 1, 2, 3], [0; 4]).source, ..tcp(999, 8050) };
    assert!(meets(when, &packet));
    assert!(!meets(when, &Descriptor { destination_port: 8101, ..packet }));
    assert!(!meets(when, &Descriptor { ttl: 4, ..packet }));
    assert!(meets(when, &Descriptor { ttl: 5, ..packet }));
    assert!(!meets(when, &Descriptor { protocol: 17, ..packet }));
    let v6 = Descriptor {
        protocol: 6,
        destination_port: 443,
        ..ipv6([0x2001, 0xdb8, 7, 0, 0, 0, 0, 1], [1; 8])
    };
    assert!(meets(when, &v6));
}

#[test]
fn each_field_is_what_its_name_says() {
    let packet = Descriptor {
        length: 1500,
        ttl: 64,
        traffic_class: 0xb9,
        ingress: 3,
        egress: 5,
        vrf: 7,
        direction: direction::INBOUND,
        flags: flags::PORTS | flags::FRAGMENT | flags::DECAPSULATED,
        tcp_flags: 0x12,
        ..tcp(1234, 443)
    };
    for (when, expected) in [
        ("ip.src == 192.0.2.1", true),
        ("ip.src == ::ffff:192.0.2.1", true),
        ("ip.src != 192.0.2.1", false),
        ("ip.src != 192.0.2.2", true),
        ("ip.src == 192.0.2.0/24", true),
        ("ip.dst in {198.51.100.0/25, 10.0.0.0/8}", true),
        ("ip.dst in {198.51.100.2..198.51.100.9}", false),
        ("ip.addr == 198.51.100.1", true),
        ("ip.addr == 198.51.100.2", false),
        // Of two ends `!=` wants both to differ, as `not .. ==` does.
        ("ip.addr != 198.51.100.1", false),
        ("ip.addr != 198.51.100.2", true),
        ("ip.addr in {192.0.2.0/24}", true),
        ("ip.addr not in {192.0.2.0/24}", false),
        ("ip.version == 4", true),
        ("ip.version == 6", false),
        ("ip.version != 6", true),
        ("ip.proto == 6", true),
        ("ip.proto == tcp", true),
        ("ip.proto != tcp", false),
        ("ip.proto in {tcp udp 47..50}", true),
        ("ip.ttl >= 64 && ip.ttl <= 64", true),
        ("ip.ttl > 64 || ip.ttl < 64", false),
        ("ip.len == 1500", true),
        ("ip.len gt 1499 and ip.len lt 1501", true),
        ("ip.tos == 0xb9", true),
        ("ip.dscp == 46", true),
        ("ip.dscp != 46", false),
        ("ip.ecn == 1", true),
        ("ip.frag", true),
        ("ip.frag == true", true),
        ("ip.frag == 0", false),
        ("ip.frag.later", false),
        ("ip.options", false),
        ("not ip.options", true),
        ("icmp", false),
        ("icmp.error", false),
        ("tcp", true),
        ("tcp == false", false),
        ("udp or tcp", true),
        ("tcp.srcport == 1234", true),
        ("tcp.dstport == 443", true),
        ("tcp.dstport != 443", false),
        ("tcp.dstport != 80", true),
        ("tcp.port == 1234", true),
        ("tcp.port != 1234", false),
        ("tcp.port < 444", true),
        ("udp.port != 53", false),
        ("not udp.port == 53", true),
        ("tcp.flags == 0x12", true),
        ("tcp.flags.syn and tcp.flags.ack", true),
        ("tcp.flags.rst", false),
        ("tcp.flags.rst == 0", true),
        ("sluice.direction == inbound", true),
        ("sluice.direction in {outbound, transit}", false),
        ("sluice.direction != outbound", true),
        ("sluice.ingress == 3", true),
        ("sluice.egress == 4", true),
        ("sluice.egress != 4", false),
        ("sluice.vrf == 7", true),
        ("sluice.decapsulated", true),
    ] {
        if expected {
            assert!(meets(when, &packet), "{when}");
        } else {
            assert!(!meets(when, &packet), "{when}");
        }
    }
    // Before it is known where a packet leaves, no comparison with that holds.
    let unknown = Descriptor { egress: 0, ..packet };
    assert!(!meets("sluice.egress == 0", &unknown));
    assert!(!meets("sluice.egress != 0", &unknown));
    assert!(meets("not sluice.egress == 0", &unknown));
}

#[test]
fn what_a_packet_does_not_have_meets_no_comparison() {
    let udp = Descriptor { destination_port: 443, ..ipv4([1; 4], [2; 4]) };
    assert!(!meets("tcp.dstport == 443", &udp));
    assert!(!meets("tcp.dstport != 443", &udp));
    assert!(meets("not tcp.dstport == 443", &udp));
    assert!(!meets("tcp.flags.syn == 0", &udp));
    assert!(meets("not tcp.flags.syn", &udp));
    let later = Descriptor { flags: flags::FRAGMENT | flags::LATER_FRAGMENT, ..tcp(0, 0) };
    assert!(!meets("tcp.dstport == 0", &later));
    assert!(!meets("tcp.flags.syn == 0", &later));
    assert!(meets("tcp and not tcp.port >= 0", &later));
    let echo = Descriptor { protocol: 1, ..udp };
    assert!(meets("icmp and not udp.port >= 0 and not tcp.port >= 0", &echo));
    assert!(!meets("ip.src in {::/0}", &udp), "IPv4 is no part of ::/0");
    assert!(meets("ip.src != ::1", &udp), "an address is always there");
}

#[test]
fn and_binds_closer_than_or_and_not_closer_than_both() {
    let packet = tcp(1, 2);
    assert!(meets("tcp or udp and ip.ttl == 1", &packet));
    assert!(!meets("(tcp or udp) and ip.ttl == 1", &packet));
    assert!(!meets("not tcp or udp", &packet));
    assert!(!meets("not (tcp or udp)", &packet));
    assert!(meets("! ! tcp", &packet));
    assert!(meets("!(tcp && udp)", &packet));
    assert!(meets("tcp\nand not\n  udp", &packet));
}

#[test]
fn named_sets_are_used_by_expressions() {
    let mut bench = bench(
        r#"{"default":"allow",
            "sets":{"bad":["10.0.0.0/8","2001:db8::/32","192.0.2.1..192.0.2.9"],"web":[80,"8000..8100"]},
            "rules":[{"action":"drop","when":"ip.src in $bad"},
                     {"action":"drop","when":"tcp.dstport in $web and not ip.dst in $bad"}]}"#,
    );
    let packets = [
        ipv4([10, 1, 2, 3], [1; 4]),
        ipv4([192, 0, 2, 9], [1; 4]),
        ipv4([192, 0, 2, 10], [1; 4]),
        ipv6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [1; 8]),
        Descriptor { source: ipv4([9; 4], [0; 4]).source, ..tcp(1, 8001) },
        Descriptor { source: ipv4([9; 4], [0; 4]).source, ..tcp(1, 81) },
    ];
    let kept = Verdict::CONTINUE;
    assert_eq!(bench.judge(&packets, 0), [DROPPED, DROPPED, kept, DROPPED, DROPPED, kept]);
    assert_eq!(bench.counters[..3], [2, 3, 1]);
    for (sets, when, expected) in [
        (r#"{"a":["10.0.0.0/8"]}"#, "tcp.port in $a", "column 13: `$a`: `tcp.port` is a number"),
        (r#"{"a":[70000]}"#, "tcp", "`sets.a[0]`: 70000 is more than 65535"),
        (r#"{"a":[300]}"#, "ip.ttl in $a", "`$a`: `ip.ttl` is a number from 0 to 255"),
        (r#"{"a":[80,"::1"]}"#, "tcp", "`sets.a`: addresses and numbers in one set"),
        (r#"{"a":[]}"#, "tcp", "`sets.a`: the list is empty"),
        (r#"{"a":["10.0.0.9..10.0.0.1"]}"#, "tcp", "`sets.a[0]`: 10.0.0.9..10.0.0.1 is no range"),
        (r#"{"a-b":[1]}"#, "tcp", "`sets`: \"a-b\" is no name"),
        (r#"{"a":[1]}"#, "ip.ttl in $b", "`sets` has no `b`"),
        (r#"[]"#, "tcp", "`sets`: [] is no table"),
    ] {
        let rule = format!(r#"{{"action":"drop","when":"{when}"}}"#);
        let text = refusal(&format!(r#"{{"default":"allow","sets":{sets},"rules":[{rule}]}}"#));
        assert!(text.contains(expected), "{sets} {when}: {text}");
    }
}

#[test]
fn mistakes_have_their_place() {
    for (when, expected) in [
        ("", "column 1: a test must stand here, and the expression ends\n\n^"),
        ("tcp and", "column 8: a test must stand here, and the expression ends"),
        ("tcp.dstprt == 80", "column 1: `tcp.dstprt` is no field; is it `tcp.dstport`?"),
        ("frobnicate", "column 1: `frobnicate` is no field\nfrobnicate\n^^^^^^^^^^"),
        ("tcp udp", "column 5: `and` or `or` must stand between two tests\ntcp udp\n    ^^^"),
        ("tcp and udp)", "column 12: `)` closes nothing"),
        ("(tcp and udp", "column 1: this parenthesis is not closed"),
        ("(tcp udp)", "column 6: `and`, `or` or `)` must stand here"),
        ("ip.src", "column 1: `ip.src` is no test by itself"),
        ("ip.src == 80", "column 11: `ip.src` is an address or a prefix"),
        ("ip.src == nine", "column 11: \"nine\" is no prefix or address"),
        ("ip.src == 10.0.0.1/8", "column 11: 10.0.0.1/8 has bits set behind the prefix"),
        ("ip.src > 10.0.0.1", "column 8: the values of `ip.src` have no order"),
        ("ip.src ==", "column 10: a value must stand here, and the expression ends"),
        ("ip.src in 10.0.0.0/8", "column 11: a set must follow `in`"),
        ("ip.src == {10.0.0.0/8}", "column 11: a set stands behind `in`"),
        ("ip.src in {}", "column 11: the set is empty\nip.src in {}\n          ^^"),
        ("ip.src in {10.0.0.0/8", "column 11: this set is not closed by `}`"),
        ("ip.src in {10.0.0.0/8..11.0.0.0/8}", "is no range"),
        ("tcp.port in {90..80}", "column 14: 90..80 is no range"),
        ("tcp.port in {80..}", "column 18: a value must follow `..`"),
        ("tcp.port in {..80}", "column 14: a value must stand here"),
        ("tcp.port in {80 70000}", "column 17: `tcp.port` is a number from 0 to 65535"),
        ("tcp.port == 99999999999", "column 13: `tcp.port` is a number from 0 to 65535"),
        ("tcp.port == 10.0.0.1", "column 13: `tcp.port` is a number from 0 to 65535"),
        ("ip.ttl == 256", "column 11: `ip.ttl` is a number from 0 to 255"),
        ("ip.ttl < 0", "column 8: `ip.ttl` is from 0 to 255: this never holds"),
        ("ip.ttl > 255", "column 8: `ip.ttl` is from 0 to 255: this never holds"),
        ("ip.dscp == 64", "column 12: `ip.dscp` is a number from 0 to 63"),
        ("ip.proto == tpc", "column 13: `ip.proto` is icmp, tcp, udp"),
        ("ip.proto < udp", "column 10: the values of `ip.proto` have no order"),
        ("tcp.flags.syn == 2", "column 18: `tcp.flags.syn` is true or false"),
        ("sluice.direction == up", "column 21: `sluice.direction` is inbound, outbound or transit"),
        ("sluice.direction == 1", "column 21: `sluice.direction` is inbound"),
        ("tcp.port = 80", "column 10: `=` compares nothing; equality is `==`"),
        ("tcp & udp", "column 5: `&` is no operator"),
        ("tcp | udp", "column 5: `|` is no operator"),
        ("tcp.port in {80-90}", "column 16: `-` is no operator; a range is written"),
        ("ip.src == \"10.0.0.1\"", "column 11: values have no quotes"),
        ("tcp ; udp", "column 5: ';' is no part of an expression"),
        ("ip.src in $ bad", "column 11: the name of a set must follow `$`"),
        (
            "tcp and\nudp and é",
            "line 2, column 9: 'é' is no part of an expression\nudp and é\n        ^",
        ),
    ] {
        let text = refused(when);
        assert!(text.contains(expected), "{when}: {text}");
    }
    let rules = |when: &str| {
        refusal(&format!(r#"{{"default":"allow","rules":[{{"action":"drop","when":"{when}"}}]}}"#))
    };
    let text = rules("ip.ttl == x");
    assert!(text.starts_with("`rules[0].when`, line 1, column 11: `ip.ttl` is"), "{text}");
    assert!(text.ends_with("\nip.ttl == x\n          ^"), "{text}");
    let text = rules("tcp and udp");
    assert!(text.contains("`rules[0].when`: no packet can match this"), "{text}");
}

#[test]
fn limits_hold_at_their_ends() {
    let deep = |depth: usize| format!("{}tcp{}", "(".repeat(depth), ")".repeat(depth));
    parse(&deep(DEPTH_MAX), &Sets::new()).expect("as deep as may be");
    let text = refused(&deep(DEPTH_MAX + 1));
    assert!(text.contains("column 34: nested more than 32 deep"), "{text}");
    let text = refused(&"not ".repeat(DEPTH_MAX + 2));
    assert!(text.contains("nested more than 32 deep"), "{text}");

    let long = |len: usize| format!("tcp{}", " ".repeat(len - 3));
    parse(&long(EXPRESSION_BYTES_MAX), &Sets::new()).expect("as long as may be");
    let text = refused(&long(EXPRESSION_BYTES_MAX + 1));
    assert!(text.contains("has 4097 bytes; 4096 is the most"), "{text}");

    // Each pair differs in two fields, so that nothing merges: 2^n alternatives.
    let pair = |n: usize| {
        format!("(ip.ttl != {n} and ip.len != {n} or ip.tos != {n} and sluice.vrf != {n})")
    };
    let product = |pairs: usize| (0..pairs).map(pair).collect::<Vec<_>>().join(" and ");
    let either = |terms: usize| {
        let term = |n: usize| format!("ip.ttl == {n} and ip.len == {n}");
        (0..terms).map(term).collect::<Vec<_>>().join(" or ")
    };
    let clauses = |text: &str| parse(text, &Sets::new()).expect("an expression").clauses();
    assert_eq!(clauses(&either(64)).map(|clauses| clauses.len()), Ok(CLAUSES_PER_RULE_MAX));
    assert_eq!(clauses(&either(65)), Err(TooManyClauses));
    assert_eq!(clauses(&product(6)).map(|clauses| clauses.len()), Ok(CLAUSES_PER_RULE_MAX));
    assert_eq!(clauses(&product(7)), Err(TooManyClauses));
    let text = refusal(&format!(
        r#"{{"default":"allow","rules":[{{"action":"drop","when":"{}"}}]}}"#,
        either(65)
    ));
    assert!(
        text.contains("`rules[0].when`: written out, the expression has more than 64"),
        "{text}"
    );

    let rules = |rules: usize, when: &str| {
        let rule = format!(r#"{{"action":"drop","when":"{when}"}}"#);
        let rules = vec![rule; rules].join(",");
        let config = format!(r#"{{"default":"allow","rules":[{rules}]}}"#);
        Bench::<Filter>::new(&config)
    };
    rules(CLAUSES_MAX / 64, &either(64)).expect("as many as may be");
    let text = rules(CLAUSES_MAX / 64 + 1, &either(64)).expect_err("one more");
    assert!(text.contains("`rules`: the rules come to more than 4096 alternatives"), "{text}");
    let ports: Vec<_> = (0..600).map(|n| (n * 4).to_string()).collect();
    let text = rules(1000, &format!("tcp.port in {{{}}}", ports.join(" "))).expect_err("too many");
    assert!(text.contains("`rules`: the rules name more than 262144 prefixes"), "{text}");
}

#[test]
fn alternatives_within_a_field_are_one_clause() {
    for (when, clauses) in [
        ("tcp.dstport == 80 or tcp.dstport == 443 or tcp.dstport in {8000..8100}", 1),
        ("tcp.dstport == 80 or udp.dstport == 53", 1),
        ("not tcp.dstport == 80", 1),
        ("not (ip.src in {10.0.0.0/8} and tcp)", 2),
        ("ip.addr in {10.0.0.0/8}", 2),
        ("not ip.addr in {10.0.0.0/8}", 1),
        ("tcp or not tcp", 1),
        ("tcp and udp", 0),
        ("(tcp and ip.ttl == 1) or (tcp and ip.ttl == 2) or tcp", 1),
        ("(tcp or udp) and (ip.ttl == 1 or ip.ttl == 2)", 1),
    ] {
        let condition = parse(when, &Sets::new()).expect(when);
        assert_eq!(condition.clauses().map(|clauses| clauses.len()), Ok(clauses), "{when}");
    }
}

/// What a random expression means; its text is made from it, and its value for a packet.
#[derive(Clone, Debug)]
enum Meaning {
    Source(Ipv4Addr, u8),
    Destination(Ipv4Addr, u8),
    Either(Ipv4Addr, u8, bool),
    Six(u16, u8),
    Port { transport: &'static str, end: &'static str, sign: &'static str, port: u16 },
    Ttl(&'static str, u8),
    Length(u16, u16),
    Dscp(u8),
    Flag(&'static str, u8),
    Protocol(u8),
    Direction(u8),
    Fragment,
    And(Vec<Meaning>),
    Or(Vec<Meaning>),
    Not(Box<Meaning>),
}

const DIRECTIONS: [&str; 3] = ["transit", "outbound", "inbound"];

fn compare(sign: &str, a: u32, b: u32) -> bool {
    match sign {
        "==" => a == b,
        "!=" => a != b,
        "<" => a < b,
        "<=" => a <= b,
        ">" => a > b,
        _ => a >= b,
    }
}

impl Meaning {
    fn text(&self) -> String {
        let join = |terms: &[Self], word: &str| {
            let terms: Vec<_> = terms.iter().map(Self::text).collect();
            format!("({})", terms.join(word))
        };
        match self {
            Self::Source(net, len) => format!("ip.src == {net}/{len}"),
            Self::Destination(net, len) => format!("ip.dst in {{{net}/{len}}}"),
            Self::Either(net, len, true) => format!("ip.addr == {net}/{len}"),
            Self::Either(net, len, false) => format!("ip.addr != {net}/{len}"),
            Self::Six(net, len) => format!("ip.src in {{{net:x}::/{len} 10.0.0.0/8}}"),
            Self::Port { transport, end, sign, port } => format!("{transport}.{end} {sign} {port}"),
            Self::Ttl(sign, ttl) => format!("ip.ttl {sign} {ttl}"),
            Self::Length(first, last) => format!("ip.len in {{{first}..{last}}}"),
            Self::Dscp(dscp) => format!("ip.dscp != {dscp}"),
            Self::Flag(name, _) => format!("tcp.flags.{name}"),
            Self::Protocol(number) => format!("ip.proto == {number}"),
            Self::Direction(number) => {
                format!("sluice.direction == {}", DIRECTIONS[usize::from(*number)])
            }
            Self::Fragment => "ip.frag".to_owned(),
            Self::And(terms) => join(terms, " and "),
            Self::Or(terms) => join(terms, " || "),
            Self::Not(inner) => format!("not {}", inner.text()),
        }
    }

    fn holds(&self, packet: &Descriptor) -> bool {
        let within = |bytes: [u8; 16], net: Ipv4Addr, len: u8| {
            let address = Ipv6Addr::from(bytes).to_ipv4_mapped();
            packet.flags & flags::IPV6 == 0
                && address.is_some_and(|address| {
                    let shift = 32 - u32::from(len);
                    u64::from(address.to_bits()) >> shift == u64::from(net.to_bits()) >> shift
                })
        };
        match self {
            Self::Source(net, len) => within(packet.source, *net, *len),
            Self::Destination(net, len) => within(packet.destination, *net, *len),
            Self::Either(net, len, is_equal) => {
                let either =
                    within(packet.source, *net, *len) || within(packet.destination, *net, *len);
                either == *is_equal
            }
            Self::Six(net, len) => {
                let six = u16::from_be_bytes([packet.source[0], packet.source[1]]);
                let same = (six ^ net).leading_zeros() >= u32::from(*len);
                let v6 = packet.flags & flags::IPV6 != 0;
                v6 && same || within(packet.source, Ipv4Addr::new(10, 0, 0, 0), 8)
            }
            Self::Port { transport, end, sign, port } => {
                let protocol = if *transport == "tcp" { 6 } else { 17 };
                let is_there = packet.flags & flags::PORTS != 0 && packet.protocol == protocol;
                let [source, destination] = [packet.source_port, packet.destination_port]
                    .map(|ours| compare(sign, ours.into(), (*port).into()));
                is_there
                    && match (*end, *sign) {
                        ("srcport", _) => source,
                        ("dstport", _) => destination,
                        (_, "!=") => source && destination,
                        _ => source || destination,
                    }
            }
            Self::Ttl(sign, ttl) => compare(sign, packet.ttl.into(), (*ttl).into()),
            Self::Length(first, last) => (first..=last).contains(&&packet.length),
            Self::Dscp(dscp) => packet.traffic_class / 4 != *dscp,
            Self::Flag(_, bit) => {
                let is_there = packet.protocol == 6 && packet.flags & flags::LATER_FRAGMENT == 0;
                is_there && packet.tcp_flags & bit != 0
            }
            Self::Protocol(number) => packet.protocol == *number,
            Self::Direction(number) => packet.direction == *number,
            Self::Fragment => packet.flags & flags::FRAGMENT != 0,
            Self::And(terms) => terms.iter().all(|term| term.holds(packet)),
            Self::Or(terms) => terms.iter().any(|term| term.holds(packet)),
            Self::Not(inner) => !inner.holds(packet),
        }
    }
}

fn meaning() -> impl Strategy<Value = Meaning> {
    let net = || {
        (0_u8..4, 0_u8..4, prop::sample::select(vec![0_u8, 8, 9, 16, 32])).prop_map(
            |(a, b, len)| {
                let net = Ipv4Addr::new(a * 85, b, 0, b).to_bits();
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                (Ipv4Addr::from(net & mask), len)
            },
        )
    };
    let sign = || prop::sample::select(vec!["==", "!=", "<", "<=", ">", ">="]);
    let test = prop_oneof![
        net().prop_map(|(net, len)| Meaning::Source(net, len)),
        net().prop_map(|(net, len)| Meaning::Destination(net, len)),
        (net(), any::<bool>()).prop_map(|((net, len), same)| Meaning::Either(net, len, same)),
        (0_u16..4, 0_u8..3)
            .prop_map(|(n, len)| Meaning::Six((n * 0x5555) & !(0xffff >> (len * 8)), len * 8)),
        (
            prop::sample::select(vec!["tcp", "udp"]),
            prop::sample::select(vec!["srcport", "dstport", "port"]),
            sign(),
            (1_u16..70).prop_map(|n| n * 900),
        )
            .prop_map(|(transport, end, sign, port)| Meaning::Port {
                transport,
                end,
                sign,
                port
            }),
        (sign(), 1_u8..255).prop_map(|(sign, ttl)| Meaning::Ttl(sign, ttl)),
        (0_u16..5, 0_u16..5).prop_map(|(a, b)| Meaning::Length(a.min(b) * 300, a.max(b) * 300)),
        (0_u8..64).prop_map(Meaning::Dscp),
        prop::sample::select(vec![("fin", 1), ("syn", 2), ("ack", 16), ("cwr", 128)])
            .prop_map(|(name, bit)| Meaning::Flag(name, bit)),
        prop::sample::select(vec![1_u8, 6, 17]).prop_map(Meaning::Protocol),
        (0_u8..3).prop_map(Meaning::Direction),
        Just(Meaning::Fragment),
    ];
    test.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Meaning::And),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Meaning::Or),
            inner.prop_map(|inner| Meaning::Not(Box::new(inner))),
        ]
    })
}

proptest! {
    #[test]
    fn an_expression_is_what_it_means(
        meanings in prop::collection::vec(meaning(), 1..20),
        packets in prop::collection::vec((packet(), any::<u8>(), any::<u8>(), 0_u16..1500), 200),
    ) {
        let packets: Vec<_> = packets
            .into_iter()
            .map(|(packet, ttl, traffic_class, length)| {
                let tcp_flags = packet.tcp_flags | traffic_class & 0x90;
                Descriptor { ttl, traffic_class, length, tcp_flags, ..packet }
            })
            .collect();
        // Expressions that are too long when written out, or that nothing meets, are refused: they
        // are told apart by their own tests.
        let mut rules = Vec::new();
        for meaning in &meanings {
            let text = meaning.text();
            if let Ok(clauses) = parse(&text, &Sets::new()).expect(&text).clauses() {
                if clauses.is_empty() {
                    prop_assert!(!packets.iter().any(|packet| meaning.holds(packet)), "{}", text);
                } else {
                    rules.push((text, meaning));
                }
            }
        }
        let json: Vec<_> = rules
            .iter()
            .map(|(text, _)| format!(r#"{{"action":"drop","when":"{text}"}}"#))
            .collect();
        let config = format!(r#"{{"default":"allow","rules":[{}]}}"#, json.join(","));
        let mut bench = Bench::<Filter>::new(&config).expect("they fit");
        let mut hits = vec![0; 1 + RULES_MAX];
        for (packet, verdict) in packets.iter().zip(bench.judge(&packets, 0)) {
            let first = rules.iter().position(|(_, meaning)| meaning.holds(packet));
            let expected = if first.is_some() { DROPPED } else { Verdict::CONTINUE };
            prop_assert_eq!(verdict, expected, "{:?} {:?}", rules, packet);
            hits[first.map_or(0, |rule| 1 + rule)] += 1;
        }
        prop_assert_eq!(&bench.counters, &hits);
    }
}

proptest! {
    #[test]
    fn any_text_is_understood_or_refused_with_its_place(
        text in prop_oneof![
            any::<String>(),
            // Parts of expressions in any order: what most mistakes look like.
            prop::collection::vec(
                prop::sample::select(vec![
                    "ip.src", "tcp.port", "tcp.flags.syn", "sluice.direction", "ip.proto", "==", "!=", "<", "in",
                    "{", "}", "(", ")", "and", "or", "not", "10.0.0.0/8", "::1", "80", "..", "443", "$a", "$",
                    ",", "tcp", "true", "inbound", "\n", "é", "0x", "1..2..3", "=", "&&", "!",
                ]),
                0..20,
            )
            .prop_map(|words| words.join(" ")),
        ],
    ) {
        let sets = Sets::from([("a".to_owned(), vec![Value::Number(1, 2)])]);
        match parse(&text, &sets) {
            Ok(condition) => { let _any = condition.clauses(); }
            Err(error) => {
                let line = text.split('\n').nth(error.line - 1);
                prop_assert!(line.is_some_and(|line| error.column <= line.chars().count() + 1));
                prop_assert!(error.to_string().ends_with('^'));
            }
        }
    }
}
