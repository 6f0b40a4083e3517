//! A plugin that uses all that the SDK has, natively.

use serde::Deserialize;
use sluice_sdk::{
    BATCH_MAX, Batch, Class, Counters, EgressTag, Meter, NextHop, Plugin, PrefixLens, Quota,
    QuotaAnswer, QuotaDeparture, StateFull, StateWriter, Table, Verdict, action, edit,
    fixed::ExpiringMap,
    interface_named, log, random, tcp_option,
    testing::{Bench, Host, Seen, ipv4, ipv6},
};

const SECOND: u64 = 1_000_000_000;

#[derive(Deserialize)]
struct Config {
    via: String,
    tag: String,
    class: String,
    inside: String,
    country: String,
}

struct Whole {
    via: NextHop,
    tag: EgressTag,
    class: Class,
    inside: u16,
    countries: Table,
    country: u32,
    quota: Quota,
    seen: ExpiringMap<[u8; 16], u32>,
    values: Box<[u32; BATCH_MAX]>,
    answers: Box<[u8; BATCH_MAX]>,
    keys: Box<[[u8; 16]; BATCH_MAX]>,
    members: Box<[[u8; 16]; BATCH_MAX]>,
}

#[sluice_sdk::plugin(
    marks = true,
    config_capacity = 4096,
    manifest_toml = r#"
        abi = "1.0"
        name = "whole"
        hooks = ["forward"]
        granularity = "flow"
        imports = ["log", "random", "names", "meter", "table", "quota"]
        actions = ["transmit", "tag", "class", "mark", "mirror", "dscp", "mss", "tcp-options"]
        payload = { from = "l4", bytes = 20 }
        tables = ["countries"]
        tick_ms = 1000
        state = { schema = 2, bytes_max = 64, takes = [1] }
        reasons = ["country", "members", "4-letters"]
        counters = ["packets", { name = "by-country", len = 4 }, { name = "flows", gauge = true }]
    "#
)]
impl Plugin for Whole {
    type Config = Config;

    fn configure(config: Config) -> Result<Self, String> {
        let countries = Table::open(table::COUNTRIES)?;
        log(3, "configured");
        Ok(Self {
            via: NextHop::named(&config.via)?,
            tag: EgressTag::named(&config.tag)?,
            class: Class::named(&config.class)?,
            inside: interface_named(&config.inside)?,
            country: countries.word_at("country", &config.country)?,
            countries,
            quota: Quota::open(1, 16, 1000)?,
            seen: ExpiringMap::new(64, 10 * SECOND, random()),
            values: Box::new([0; BATCH_MAX]),
            answers: Box::new([0; BATCH_MAX]),
            keys: Box::new([[0; 16]; BATCH_MAX]),
            members: Box::new([[0; 16]; BATCH_MAX]),
        })
    }

    fn process(&mut self, batch: &mut Batch<'_>) {
        let (n, now) = (batch.len(), batch.now_ns());
        let values = &mut self.values[..n];
        self.countries.lookup_sources(batch.descriptors(), values);
        for ((key, member), packet) in
            self.keys.iter_mut().zip(self.members.iter_mut()).zip(batch.descriptors())
        {
            (*key, *member) = (packet.destination, packet.source);
        }
        let answers = &mut self.answers[..n];
        self.quota.admit(&self.keys[..n], &self.members[..n], now, answers);
        batch.count(counter::PACKETS, n as u64);
        let (packets, mut counters) = batch.split();
        for ((mut packet, value), answer) in packets.zip(values).zip(answers.iter()) {
            counters.add(counter::BY_COUNTRY.at(*value as usize), 1);
            *self.seen.get_or_insert_with(packet.source, now, || 0).value += 1;
            packet.set_lifetime_ms(1500);
            if *value == self.country {
                packet.mirror();
                packet.drop(reason::COUNTRY);
            } else if QuotaAnswer::from(*answer) != QuotaAnswer::Admitted {
                packet.drop(reason::MEMBERS);
            } else if packet.payload().starts_with(b"DROP") {
                packet.drop(reason::N4_LETTERS);
            } else if packet.ingress == self.inside {
                packet.set_mark(packet.marks().mark + 1);
                packet.set_tag(self.tag);
                packet.set_class(self.class);
                packet.set_dscp(46);
                packet.limit_mss(1200);
                packet.clear_tcp_options(tcp_option::MULTIPATH);
            } else {
                packet.transmit(self.via);
            }
        }
        counters.set(counter::FLOWS, self.seen.count(now) as u64);
    }

    fn tick(&mut self, now_ns: u64, counters: &mut Counters<'_>) {
        counters.set(counter::FLOWS, self.seen.count(now_ns) as u64);
    }

    fn export(&mut self, state: &mut StateWriter<'_>) -> Result<(), StateFull> {
        for (key, count) in self.seen.iter(0) {
            state.write(key)?;
            state.write_pod(count)?;
        }
        Ok(())
    }

    fn import(&mut self, schema: u32, state: &[u8]) -> Result<(), String> {
        if schema == 1 {
            return Err("nothing of the first form is of use".to_owned());
        }
        let (entries, rest) = state.as_chunks::<20>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are left over", rest.len()));
        }
        for entry in entries {
            let (key, count) = entry.split_at(16);
            let key = key.try_into().expect("16 bytes");
            let count = u32::from_le_bytes(count.try_into().expect("4 bytes"));
            *self.seen.get_or_insert_with(key, SECOND, || 0).value = count;
        }
        Ok(())
    }
}

const CONFIG: &str =
    r#"{"via": "east", "tag": "cheap", "class": "bulk", "inside": "lan", "country": "xx"}"#;

fn host() -> Host {
    Host::new()
        .next_hop("west")
        .next_hop("east")
        .egress_tag("cheap")
        .class("bulk")
        .interface("wan")
        .interface("lan")
        .table("countries", "# prefixes\n10.0.0.0/8 nl\n10.9.0.0/16 xx\n2001:db8::/32 3\n")
}

fn bench() -> Bench<Whole> {
    Bench::with_host(&host(), CONFIG).expect("the configuration is good")
}

#[test]
fn every_action_is_answered_with_its_fields() {
    let mut bench = bench();
    let mut inside = Seen::from(ipv4([10, 0, 0, 1], [192, 0, 2, 1]));
    inside.descriptor.ingress = 1;
    inside.marks.mark = 6;
    let outside = Seen::from(ipv4([11, 0, 0, 2], [192, 0, 2, 2]));
    let foreign = Seen::from(ipv4([10, 9, 0, 2], [192, 0, 2, 3]));
    let mut wordy = Seen::from(ipv6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], [1; 8]));
    wordy.payload = b"DROP this, and more than 20 bytes".to_vec();
    let second = Seen::from(ipv4([10, 0, 0, 9], [192, 0, 2, 1]));
    let answers = bench.judge_seen(&[inside, outside, foreign, wordy, second], SECOND);

    let first = answers[0];
    let all = edit::MARK | edit::TAG | edit::CLASS | edit::DSCP | edit::MSS | edit::TCP_OPTIONS;
    assert_eq!(
        first.verdict,
        Verdict { action: action::CONTINUE, flags: all, lifetime: 15, argument: 0 }
    );
    let set = first.edit;
    assert_eq!((set.mark, set.tag, set.class, set.dscp, set.mss), (7, 1, 1, 46, 1200));
    assert_eq!(set.tcp_options, tcp_option::MULTIPATH);
    assert_eq!(answers[1].verdict, Verdict { lifetime: 15, ..Verdict::transmit(2) });
    assert_eq!(bench.reason(answers[2].verdict), Some("country"));
    assert_eq!(answers[2].verdict.flags, edit::MIRROR, "of a drop, mirror is all that is left");
    assert_eq!(bench.reason(answers[3].verdict), Some("4-letters"));
    assert_eq!(bench.reason(answers[4].verdict), Some("members"), "one member is all");
    assert_eq!(bench.reason(answers[0].verdict), None);
    assert_eq!((bench.counter("packets"), bench.counter("flows")), (5, 5));
    let by_country = [0, 1, 2, 3].map(|at| bench.counter(&format!("by-country[{at}]")));
    assert_eq!(by_country, [1, 2, 1, 1]);
    // The quota's member is forgotten, and flows expire with the tick.
    bench.tick(12 * SECOND);
    assert_eq!(bench.counter("flows"), 0);
    let again = bench.judge(&[ipv4([10, 0, 0, 9], [192, 0, 2, 1])], 12 * SECOND);
    assert_eq!(bench.reason(again[0]), None);
}

#[test]
fn a_reload_hands_over_state_and_keeps_what_is_shared() {
    let mut bench = bench();
    let packet = ipv4([10, 0, 0, 1], [192, 0, 2, 1]);
    bench.judge(&[packet, packet], SECOND);
    assert_eq!(bench.reload(CONFIG), Ok(true));
    assert_eq!(bench.plugin.seen.get(&packet.source, SECOND), Some(&2));
    let other = ipv4([10, 0, 0, 2], [192, 0, 2, 1]);
    let verdicts = bench.judge(&[other], SECOND);
    assert_eq!(bench.reason(verdicts[0]), Some("members"), "the quota went on");
    assert!(bench.import(3, &[]).expect_err("unlisted").contains("does not list the form 3"));
    assert!(bench.import(1, &[]).expect_err("old").contains("first form"));
    assert!(bench.import(2, &[0; 21]).expect_err("cut").contains("1 bytes are left over"));
    // More than fits: the successor starts empty.
    for n in 0..8 {
        bench.judge(&[ipv4([10, 0, 1, n], [192, 0, 3, n])], SECOND);
    }
    assert_eq!(bench.export(), None);
    assert_eq!(bench.reload(CONFIG), Ok(false));
    assert!(bench.reload("{}").expect_err("refused").contains("missing field"));
}

#[test]
fn names_and_words_that_there_are_not_are_refused() {
    for (wrong, expected) in [
        ("east", "names no next hop `nowhere`"),
        ("cheap", "names no egress tag `nowhere`"),
        ("bulk", "names no class `nowhere`"),
        ("lan", "names no interface `nowhere`"),
        ("xx", "`country`: the table has no \"nowhere\""),
    ] {
        let config = CONFIG.replace(&format!("\"{wrong}\""), "\"nowhere\"");
        let error = Bench::<Whole>::with_host(&host(), &config).err().expect(wrong);
        assert!(error.contains(expected), "{error}");
    }
    let error = Bench::<Whole>::new(CONFIG).err().expect("no table");
    assert!(error.contains("does not name `countries`"), "{error}");
}

#[test]
fn meters_take_tokens_and_cannot_be_opened_while_packets_are_judged() {
    struct Late;
    impl Plugin for Late {
        type Config = sluice_sdk::NoConfig;
        fn configure(_: Self::Config) -> Result<Self, String> {
            let mut meter = Meter::open(1000, 2, 16)?;
            // With the 16 of before they would be more than a plugin may have.
            Meter::open(1000, 2, 1 << 22)?;
            let error = Meter::open(1000, 2, 1 << 22).expect_err("2^23 and 16");
            assert!(error.contains("of all meters together at most 8388608"), "{error}");
            Quota::open(1, 1 << 22, 1000)?;
            Quota::open(1, 1 << 22, 1000)?;
            let error = Quota::open(1, 1, 1000).expect_err("2^23 and 1");
            assert!(error.contains("of all quotas together at most 8388608"), "{error}");
            let mut admitted = [9; 3];
            meter.take(&[[1; 16]; 3], SECOND, &mut admitted);
            assert_eq!(admitted, [1, 1, 0]);
            meter.take_costs(&[[2; 16]; 2], &[3, 2], SECOND, &mut admitted);
            assert_eq!(admitted[..2], [0, 1]);
            let packets = [
                ipv4([10, 0, 0, 1], [192, 0, 2, 1]),
                ipv4([10, 0, 0, 2], [192, 0, 2, 2]),
                ipv4([10, 0, 0, 3], [192, 0, 2, 2]),
                ipv6([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1], [1; 8]),
                ipv6([0x2001, 0xdb8, 0, 2, 0, 0, 0, 1], [1; 8]),
            ];
            let mut admitted = [9; 6];
            let lens = PrefixLens::new(24, 64)?;
            meter.take_sources(&packets, lens, SECOND, &mut admitted);
            assert_eq!(admitted, [1, 1, 0, 1, 1, 9], "two tokens for each network");
            let lens = PrefixLens::new(32, 128)?;
            meter.take_destinations(&packets, lens, SECOND, &mut admitted);
            assert_eq!(admitted, [1, 1, 1, 1, 1, 9]);
            assert!(PrefixLens::new(33, 64).expect_err("too long").contains("IPv4"));
            assert!(PrefixLens::new(24, 129).expect_err("too long").contains("IPv6"));
            Ok(Self)
        }
        fn process(&mut self, _: &mut Batch<'_>) {
            let error = Meter::open(1000, 2, 16).expect_err("too late");
            assert!(error.contains("by `configure` only"), "{error}");
            assert!(NextHop::named("x").expect_err("too late").contains("by `configure` only"));
        }
    }
    sluice_sdk::export!(Late, manifest = "");
    Bench::<Late>::new("{}").expect("good").judge(&[], 0);
}

#[test]
fn workers_share_quotas_and_meters_and_no_memory() {
    /// Admits UDP's sources, has those of ICMP leave, lets all else pass whose source was admitted, and takes a
    /// token for each packet.
    struct Doorman {
        inside: Quota,
        meter: Meter,
        judged: u64,
        drawn: u64,
    }
    impl Plugin for Doorman {
        type Config = sluice_sdk::NoConfig;
        fn configure(_: Self::Config) -> Result<Self, String> {
            let (inside, meter) = (Quota::open(2, 16, 1000)?, Meter::open(1, 7, 16)?);
            Ok(Self { inside, meter, judged: 0, drawn: random() })
        }
        fn process(&mut self, batch: &mut Batch<'_>) {
            let now = batch.now_ns();
            for mut packet in batch.split().0 {
                let (group, member, mut answer) = ([[0; 16]], [packet.source], [9]);
                match packet.protocol {
                    17 => self.inside.admit(&group, &member, now, &mut answer),
                    1 => self.inside.leave(&group, &member, now, &mut answer),
                    _ => self.inside.contains(&group, &member, now, &mut answer),
                }
                let mut tokens = [9];
                self.meter.take(&[[1; 16]], now, &mut tokens);
                self.judged += 1;
                if answer != [1] || tokens != [1] {
                    packet.set_verdict(Verdict::drop(0));
                }
            }
        }
    }
    sluice_sdk::export!(Doorman, manifest = "");
    let mut first = Bench::<Doorman>::with_host(&Host::new().seed(5), "{}").expect("good");
    let mut second = first.beside(1, "{}").expect("good");
    let udp = |n| ipv4([10, 0, 0, n], [192, 0, 2, 1]);
    let tcp = |n| sluice_sdk::Descriptor { protocol: 6, ..udp(n) };
    let passes = |bench: &mut Bench<Doorman>, packet, now| {
        bench.judge(&[packet], now)[0].action == action::CONTINUE
    };
    // Looked for by the second worker: not in, then in, put there by the first, and over a second later.
    assert!(!passes(&mut second, tcp(1), SECOND));
    assert!(passes(&mut first, udp(1), SECOND));
    assert!(passes(&mut second, tcp(1), SECOND));
    assert!(passes(&mut second, tcp(1), 2 * SECOND - 1), "to look puts nothing off");
    assert!(!passes(&mut second, tcp(1), 2 * SECOND));
    // A reload of one finds what is shared, as the other does, of which it took the last token.
    assert!(passes(&mut second, udp(2), 3 * SECOND));
    assert_eq!((first.plugin.judged, second.plugin.judged), (1, 5));
    assert_ne!(first.plugin.drawn, second.plugin.drawn);
    first.reload("{}").expect("good");
    assert!(passes(&mut first, tcp(2), 3 * SECOND));
    assert!(!passes(&mut first, tcp(2), 3 * SECOND) && !passes(&mut second, tcp(2), 3 * SECOND));
    // A full group has room again, whoever says that a member leaves; who has left, or is over, is not in.
    let leaves = |n| sluice_sdk::Descriptor { protocol: 1, ..udp(n) };
    let now = 9000 * SECOND;
    assert!(passes(&mut first, udp(3), now) && passes(&mut first, udp(4), now));
    assert!(!passes(&mut second, udp(5), now));
    assert!(passes(&mut second, leaves(3), now) && !passes(&mut first, leaves(3), now));
    assert!(passes(&mut first, udp(5), now) && !passes(&mut second, leaves(4), now + SECOND));
    let told = [0, 1, 2].map(QuotaDeparture::from);
    assert_eq!(told, [QuotaDeparture::Absent, QuotaDeparture::Left, QuotaDeparture::Busy]);
}

#[test]
fn random_numbers_of_a_test_follow_from_its_seed() {
    struct Draws([u64; 2]);
    impl Plugin for Draws {
        type Config = sluice_sdk::NoConfig;
        fn configure(_: Self::Config) -> Result<Self, String> {
            Ok(Self([random(), random()]))
        }
        fn process(&mut self, _: &mut Batch<'_>) {}
    }
    sluice_sdk::export!(Draws, manifest = "");
    let draw =
        |seed| Bench::<Draws>::with_host(&Host::new().seed(seed), "{}").expect("good").plugin.0;
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
    assert_ne!(draw(1)[0], draw(1)[1]);
}
