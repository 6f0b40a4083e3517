//! Users of several countries at several sites, DNS, products by interface and by table, and refusals.

use sluice_sdk::{
    Verdict, edit,
    testing::{Bench, Host, Seen, ipv4, ipv6},
};

use super::*;

const RULES: &str = r#"[
    {"trust": ["low"], "tag": "low"},
    {"country": ["de", "at"], "tag": "de"},
    {"country": ["nl"], "product": ["tunnel"], "tag": "nl"},
    {"product": ["proxy"], "tag": "proxy"}
]"#;

/// What both sites have.
fn host() -> Host {
    ["ams", "fra", "de", "nl", "low", "proxy"]
        .into_iter()
        .fold(Host::new(), Host::egress_tag)
        .interface("wan0")
        .interface("users0")
        .interface("users1")
        .table(
            "countries",
            "10.1.0.0/16 de\n10.2.0.0/16 nl\n10.3.0.0/16 at\n10.4.0.0/16 fr\n2001:db8:1::/48 de\n",
        )
        .table("trust", "10.1.0.66 low\n10.2.0.0/24 high\n")
        .table("products", "10.2.7.0/24 proxy\n10.2.8.0/24 backup\n")
}

fn config(site: &str, rules: &str) -> String {
    format!(
        r#"{{"site_tag": "{site}", "rules": {rules},
            "interfaces": [{{"name": "users0", "product": "tunnel"}}, {{"name": "users1"}}]}}"#
    )
}

fn bench(site: &str) -> Bench<EgressTags> {
    Bench::with_host(&host(), &config(site, RULES)).expect("the configuration is good")
}

/// The names of the tags that packets get; none for no tag.
fn tags(bench: &mut Bench<EgressTags>, packets: &[Descriptor]) -> Vec<&'static str> {
    const TAGS: [&str; 7] = ["", "ams", "fra", "de", "nl", "low", "proxy"];
    let seen: Vec<_> = packets.iter().map(|packet| Seen::from(*packet)).collect();
    let answers = bench.judge_seen(&seen, 1);
    let name = |answer: &sluice_sdk::testing::Answer| {
        let has_tag = answer.verdict.flags == edit::TAG;
        assert_eq!(answer.verdict.action, Verdict::CONTINUE.action);
        assert_eq!(has_tag, answer.edit.tag != 0);
        TAGS[usize::from(answer.edit.tag)]
    };
    answers.iter().map(name).collect()
}

fn https(source: [u8; 4], ingress: u16) -> Descriptor {
    let packet = ipv4(source, [198, 51, 100, 7]);
    Descriptor { protocol: 6, destination_port: 443, ingress, ..packet }
}

const USERS0: u16 = 1;
const USERS1: u16 = 2;

#[test]
fn a_user_of_one_country_who_enters_at_another_site_leaves_by_his_own() {
    let user = https([10, 1, 2, 3], USERS0);
    let dns = Descriptor { protocol: 17, destination_port: 53, ..user };
    let dns_tls = Descriptor { destination_port: 853, ..user };
    let six = Descriptor {
        protocol: 6,
        destination_port: 443,
        ingress: USERS0,
        ..ipv6([0x2001, 0xdb8, 1, 0, 0, 0, 0, 5], [1; 8])
    };
    let packets = [user, six, dns, dns_tls];
    let mut amsterdam = bench("ams");
    assert_eq!(tags(&mut amsterdam, &packets), ["de", "de", "ams", "ams"]);
    let mut frankfurt = bench("fra");
    assert_eq!(tags(&mut frankfurt, &packets), ["de", "de", "fra", "fra"]);
    for bench in [&amsterdam, &frankfurt] {
        assert_eq!((bench.counter("dns"), bench.counter("rule-hits[1]")), (2, 2));
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let mut bench = bench("ams");
    let packets = [
        https([10, 1, 0, 66], USERS0), // low trust, before his country
        https([10, 3, 0, 1], USERS1),  // at
        https([10, 2, 1, 1], USERS0),  // nl, tunnel by interface
        https([10, 2, 1, 1], USERS1),  // nl, no product
        https([10, 2, 0, 1], USERS0),  // nl, high trust: no rule asks for that
        https([10, 2, 7, 1], USERS0),  // nl, proxy by table rather than tunnel by interface
        https([10, 2, 8, 1], USERS0),  // nl, a product that no rule names rather than tunnel
        https([10, 4, 0, 1], USERS0),  // fr: no rule
        https([10, 9, 0, 1], USERS0),  // nowhere
    ];
    let expected = ["low", "de", "nl", "ams", "nl", "proxy", "ams", "ams", "ams"];
    assert_eq!(tags(&mut bench, &packets), expected);
    assert_eq!(bench.counter("no-rule"), 4);
    assert_eq!(bench.counter("unknown-country"), 1);
    let hits = [0, 1, 2, 3].map(|rule| bench.counter(&format!("rule-hits[{rule}]")));
    assert_eq!(hits, [1, 1, 2, 1]);
}

#[test]
fn the_table_goes_before_the_interface_also_where_no_rule_asks_for_its_products() {
    let rules = r#"[{"product": ["tunnel"], "tag": "nl"}]"#;
    let mut bench = Bench::with_host(&host(), &config("ams", rules)).expect("it is good");
    let packets = [https([10, 2, 1, 1], USERS0), https([10, 2, 7, 1], USERS0)];
    assert_eq!(tags(&mut bench, &packets), ["nl", "ams"]);
}

#[test]
fn what_comes_from_elsewhere_is_left_alone() {
    let mut bench = bench("ams");
    let answer = Descriptor {
        source: https([198, 51, 100, 7], 0).source,
        destination: https([10, 1, 2, 3], 0).source,
        ..https([0; 4], 0)
    };
    let user = https([10, 1, 2, 3], USERS1);
    assert_eq!(tags(&mut bench, &[answer]), [""]);
    assert_eq!(tags(&mut bench, &[answer, user, answer]), ["", "de", ""]);
    assert_eq!(bench.counters.iter().sum::<u64>(), 1);
}

#[test]
fn dns_is_a_destination_port_of_udp_or_tcp() {
    let mut bench = bench("ams");
    let user = https([10, 1, 2, 3], USERS0);
    let packets = [
        Descriptor { destination_port: 53, ..user },
        Descriptor { destination_port: 53, protocol: 132, ..user },
        Descriptor { source_port: 53, destination_port: 4000, protocol: 17, ..user },
        Descriptor { destination_port: 53, flags: flags::LATER_FRAGMENT, protocol: 17, ..user },
    ];
    assert_eq!(tags(&mut bench, &packets), ["ams", "de", "de", "de"]);
    let own = config("ams", RULES).replace("\"rules\"", "\"dns_ports\": [5353], \"rules\"");
    let mut own = Bench::with_host(&host(), &own).expect("the configuration is good");
    let packets = [53, 5353].map(|destination_port| Descriptor { destination_port, ..user });
    assert_eq!(tags(&mut own, &packets), ["de", "ams"]);
}

#[test]
fn slips_are_refused() {
    let rules = |rules: &str| config("ams", rules);
    let whole = |json: &str| json.to_owned();
    let many = vec![r#"{"tag": "de"}"#; RULES_MAX + 1].join(",");
    for (config, expected) in [
        (config("mars", "[]"), "`site_tag`: the configuration names no egress tag `mars`"),
        (rules(r#"[{"tag": "mars"}]"#), "`rules[0].tag`: the configuration names no egress tag"),
        (
            rules(r#"[{"country": ["xx"], "tag": "de"}]"#),
            "`rules[0].country`: the table `countries` has no `xx`",
        ),
        (
            rules(r#"[{"trust": ["de"], "tag": "de"}]"#),
            "`rules[0].trust`: the table `trust` has no `de`",
        ),
        (
            rules(r#"[{"product": ["x"], "tag": "de"}]"#),
            "`rules[0].product`: the table `products` has no `x`",
        ),
        (rules(r#"[{"country": [], "tag": "de"}]"#), "`rules[0].country`: the list is empty"),
        (rules(r#"[{"land": ["de"], "tag": "de"}]"#), "`rules[0].land`: unknown key"),
        (rules(r#"[{}]"#), "`rules[0]`: missing field `tag`"),
        (rules(&format!("[{many}]")), "`rules`: more than 256"),
        (whole(r#"{"site_tag": "ams"}"#), "missing field `interfaces`"),
        (whole(r#"{"site_tag": "ams", "interfaces": []}"#), "`interfaces`: the list is empty"),
        (
            whole(r#"{"site_tag": "ams", "interfaces": [{"name": "eth9"}]}"#),
            "`interfaces[0].name`: the configuration names no interface `eth9`",
        ),
        (
            whole(r#"{"site_tag": "ams", "interfaces": [{"name": "wan0"}, {"name": "wan0"}]}"#),
            "`interfaces[1].name`: wan0 stands there twice",
        ),
        (
            whole(r#"{"site_tag": "ams", "interfaces": [{"name": "wan0"}], "dns_ports": [65536]}"#),
            "`dns_ports[0]`: invalid value",
        ),
    ] {
        let text = Bench::<EgressTags>::with_host(&host(), &config).expect_err(expected);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}
