//! This repository's plugins as modules under the engine that the router uses.

mod common;

use std::{sync::Barrier, thread};

use common::{Rig, batch};
use frame::{Descriptor, DropReason, Hook as _, HookPoint, Nanos, Verdict};
use policy::{HostOptions, PluginConfig, PluginSpec, PluginState};
use sluice_abi::flags;

const SECOND: u64 = 1_000_000_000;

fn ipv4(source: [u8; 4], destination_port: u16) -> Descriptor {
    let [a, b, c, d] = source;
    Descriptor {
        source: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d],
        destination: [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1],
        destination_port,
        protocol: 17,
        flags: flags::PORTS,
        ..Descriptor::default()
    }
}

fn spec(name: &str, config: &str) -> Option<PluginSpec> {
    let mut spec = PluginSpec::new(name, common::plugin(name)?, HookPoint::Ingress);
    spec.config = PluginConfig::Table(config.parse().expect("TOML"));
    Some(spec)
}

fn rate_limit(config: &str) -> Option<PluginSpec> {
    let mut spec = spec("rate_limit", config)?;
    spec.grants = vec!["meter".to_owned()];
    Some(spec)
}

#[test]
fn the_filter_drops_counts_and_is_reconfigured() {
    let mut rig = Rig::new(1);
    let Some(mut spec) = spec(
        "filter",
        "default = \"allow\"
         rules = [
            { action = \"allow\", source = \"10.1.0.0/16\" },
            { action = \"drop\", source = [\"10.0.0.0/8\"], destination_ports = [\"1000-2000\"] },
         ]",
    ) else {
        return;
    };
    rig.publish(std::slice::from_ref(&spec));
    let packets = [
        ipv4([10, 1, 0, 1], 1500),
        ipv4([10, 2, 0, 1], 1500),
        ipv4([10, 2, 0, 1], 2001),
        ipv4([11, 2, 0, 1], 1500),
    ];
    let verdicts = rig.turn(0, &mut batch(&packets), Nanos(1));
    let dropped = Verdict::Drop(DropReason::Plugin);
    assert_eq!(verdicts, [Verdict::Continue, dropped, Verdict::Continue, Verdict::Continue]);
    rig.begin(Nanos(SECOND));
    let status = rig.host.status().remove(0);
    assert_eq!((status.name.as_str(), status.module.as_str()), ("filter", "filter"));
    let counters: Vec<_> = status.total.counters.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(counters, [("no-rule", 2), ("rule-hits[0]", 1), ("rule-hits[1]", 1)]);
    assert_eq!(status.total.drops_by_reason["rule"], 1);

    spec.config = PluginConfig::Table("default = \"drop\"".parse().expect("TOML"));
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.turn(0, &mut batch(&packets), Nanos(SECOND)), [dropped; 4]);
    let status = rig.host.status().remove(0);
    assert_eq!(status.generation, 2);
    assert_eq!(status.total.drops_by_reason["no-rule"], 4);

    let broken = "default = \"drop\"\nrules = [{ action = \"drop\", sauce = \"10.0.0.0/8\" }]";
    spec.config = PluginConfig::Table(broken.parse().expect("TOML"));
    let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
    assert!(error.contains("`rules[0].sauce`: unknown key"), "{error}");
    assert_eq!(rig.turn(0, &mut batch(&packets), Nanos(SECOND)), [dropped; 4], "the old one runs");
}

#[test]
fn a_large_filter_loads_within_its_limits() {
    let mut rig = Rig::new(2);
    let rules: String = (0..1024_u32)
        .map(|n| {
            let (a, b) = (n / 256, n % 256);
            format!(
                "[[rules]]\naction = \"drop\"\nsource = [\"10.{a}.{b}.0/24\", \"2001:db8:{n:x}::/48\"]\n\
                 destination_ports = [\"{n}-{}\"]\n",
                n + 100
            )
        })
        .collect();
    let Some(spec) = spec("filter", &format!("default = \"allow\"\n{rules}")) else {
        return;
    };
    rig.publish(&[spec]);
    let packets = [ipv4([10, 3, 255, 9], 1023), ipv4([10, 3, 255, 9], 1022)];
    let verdicts = rig.turn(1, &mut batch(&packets), Nanos(1));
    assert_eq!(verdicts, [Verdict::Drop(DropReason::Plugin), Verdict::Continue]);
    rig.begin(Nanos(SECOND));
    assert_eq!(rig.host.status()[0].total.counters["rule-hits[1023]"], 1);
}

#[test]
fn a_configured_rate_holds_for_all_workers_together() {
    let mut rig = Rig::new(2);
    let Some(spec) = rate_limit("packets_per_s = 1000\nburst = 5000") else {
        return;
    };
    rig.publish(std::slice::from_ref(&spec));
    let now = Nanos(SECOND);
    let barrier = Barrier::new(2);
    // Time stands still; both workers offer 6400 packets of one /24.
    thread::scope(|scope| {
        for chain in &mut rig.chains {
            let barrier = &barrier;
            scope.spawn(move || {
                let sources: Vec<_> = (0..64).map(|host| ipv4([10, 0, 0, host], 1)).collect();
                let mut packets = batch(&sources);
                barrier.wait();
                for _ in 0..100 {
                    packets.verdicts[..64].fill(Verdict::Continue);
                    chain.begin_turn(now);
                    chain.run(HookPoint::Ingress, &mut packets, now);
                }
            });
        }
    });
    rig.begin(Nanos(2 * SECOND));
    let status = rig.host.status().remove(0);
    assert_eq!(status.total.counters["admitted"], 5000, "the burst, for both workers together");
    assert_eq!(status.total.counters["refused"], 7800);
    assert_eq!(status.total.drops_by_reason["rate"], 7800);
    for worker in &status.workers {
        assert_eq!(worker.packets, 6400);
    }
    assert_eq!(status.meters.len(), 1);
    assert_eq!((status.meters[0].entries, status.meters[0].evictions), (65_536, 0));

    // A second later 1000 tokens have come back, whichever worker spends them, and a reload neither
    // adds nor takes any.
    rig.host.reload("rate_limit").expect("it reloads");
    let mut packets = batch(&vec![ipv4([10, 0, 0, 7], 1); 256]);
    let mut admitted = 0;
    for turn in 0..8 {
        let verdicts = rig.turn(turn % 2, &mut packets, Nanos(2 * SECOND));
        admitted += verdicts.iter().filter(|verdict| **verdict == Verdict::Continue).count();
    }
    assert_eq!(admitted, 1000);
    let mut other = batch(&[ipv4([10, 0, 1, 7], 1)]);
    assert_eq!(rig.turn(0, &mut other, Nanos(2 * SECOND)), [Verdict::Continue]);
    let status = rig.host.status().remove(0);
    assert_eq!((status.generation, status.state), (2, PluginState::Running));
    assert_eq!(status.total.traps, 0);
}

#[test]
fn the_rate_limit_needs_its_capability() {
    let mut rig = Rig::new(1);
    let Some(mut spec) = rate_limit("packets_per_s = 1000\nburst = 50") else {
        return;
    };
    spec.grants.clear();
    let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
    assert!(error.contains("does not grant it the capability `meter`"), "{error}");
    let bad = rate_limit("packets_per_s = 1000\nburst = 0").expect("it was built");
    let error = rig.host.prepare(&[bad]).err().expect("refused").to_string();
    assert!(error.contains("the configuration is refused: `burst`: 0"), "{error}");
}

#[test]
fn an_expression_is_refused_with_its_place_and_else_decides() {
    let mut rig = Rig::new(1);
    let rules = |when: &str| {
        format!("default = \"allow\"\n[[rules]]\naction = \"drop\"\nwhen = \"{when}\"\n")
    };
    let when = "ip.src in {10.0.0.0/8 2001:db8::/32} and udp.dstport in {80 8000..8100}";
    let Some(spec) = spec("filter", &rules(when)) else { return };
    rig.publish(std::slice::from_ref(&spec));
    let packets = [ipv4([10, 1, 0, 1], 8050), ipv4([10, 1, 0, 1], 8101), ipv4([11, 0, 0, 1], 8050)];
    let verdicts = rig.turn(0, &mut batch(&packets), Nanos(1));
    assert_eq!(verdicts, [Verdict::Drop(DropReason::Plugin), Verdict::Continue, Verdict::Continue]);

    let bad = self::spec("filter", &rules("tcp and udp.dstprt == 80")).expect("it was built");
    let error = rig.host.prepare(&[bad]).err().expect("refused").to_string();
    let expected = "`rules[0].when`, line 1, column 9: `udp.dstprt` is no field; is it `udp.dstport`?\n    \
                    tcp and udp.dstprt == 80\n            ^^^^^^^^^^";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn long_named_sets_load_within_their_limits() {
    let mut rig = Rig::with(HostOptions::new(1));
    let prefixes: Vec<_> = (0..15_000_u32)
        .map(|n| format!("\"{}.{}.{}.0/24\"", 11 + n % 7, n / 250, n % 250))
        .collect();
    let rule = "{ action = \"drop\", when = \"ip.src in $many and udp.dstport == 53\" }";
    let config = format!(
        "default = \"allow\"\nsets = {{ many = [{}] }}\nrules = [{rule}]",
        prefixes.join(",")
    );
    let Some(spec) = spec("filter", &config) else { return };
    rig.publish(&[spec]);
    let packets = [ipv4([11, 0, 0, 1], 53), ipv4([12, 59, 248, 1], 53), ipv4([12, 59, 248, 1], 54)];
    let verdicts = rig.turn(0, &mut batch(&packets), Nanos(1));
    let expected: Vec<_> = packets
        .iter()
        .map(|packet| {
            let [.., a, b, c, _] = packet.source;
            let n = (0..15_000_u32)
                .find(|n| [11 + n % 7, n / 250, n % 250] == [a, b, c].map(u32::from));
            match n {
                Some(_) if packet.destination_port == 53 => Verdict::Drop(DropReason::Plugin),
                _ => Verdict::Continue,
            }
        })
        .collect();
    assert_eq!(verdicts, expected);
    assert_eq!(verdicts[0], Verdict::Drop(DropReason::Plugin));
}

#[test]
fn distances_are_judged_by_prefix() {
    let mut rig = Rig::new(1);
    let config = "max_hops = 20\ndirections = [\"transit\"]\n\
                  prefixes = [{ prefix = \"10.0.0.0/8\", max_hops = 3 }]";
    let Some(spec) = spec("hop_distance", config) else { return };
    rig.publish(&[spec]);
    let from = |source, ttl| Descriptor { ttl, ..ipv4(source, 53) };
    let packets = [
        from([10, 0, 0, 1], 61),
        from([10, 0, 0, 1], 60),
        from([11, 0, 0, 1], 60),
        from([11, 0, 0, 1], 43),
    ];
    let verdicts = rig.turn(0, &mut batch(&packets), Nanos(1));
    let dropped = Verdict::Drop(DropReason::Plugin);
    assert_eq!(verdicts, [Verdict::Continue, dropped, Verdict::Continue, dropped]);
    rig.begin(Nanos(SECOND));
    let status = rig.host.status().remove(0);
    assert_eq!((status.total.counters["checked"], status.total.counters["too-far"]), (4, 2));
    assert_eq!(status.total.drops_by_reason["too-far"], 2);
}

/// TCP packets with their sequence and acknowledgment numbers.
fn tcp_batch(packets: &[(Descriptor, u32, u32)]) -> frame::Batch {
    let mut batch = frame::Batch::new();
    for (index, (descriptor, sequence, acknowledgment)) in packets.iter().enumerate() {
        let mut frame = frame::Frame::new(Box::leak(Box::new([0; frame::CHUNK_BYTES])), 0);
        let bytes = frame.reset(14 + 40).expect("it fits");
        bytes[38..42].copy_from_slice(&sequence.to_be_bytes());
        bytes[42..46].copy_from_slice(&acknowledgment.to_be_bytes());
        assert!(batch.push(frame).is_ok());
        batch.descriptors[index] =
            Descriptor { l3_offset: 14, l4_offset: 34, length: 40, ..*descriptor };
    }
    batch
}

#[test]
fn an_answer_on_another_worker_tells_the_ack_of_who_saw_it_from_a_blind_one() {
    let mut rig = Rig::new(2);
    let config =
        "syn_per_s = 1e6\nhalf_open_max = 1\nproof = \"answer\"\ndirections = [\"transit\"]";
    let Some(mut spec) = spec("syn_guard", config) else { return };
    spec.grants = ["meter", "quota", "payload"].map(str::to_owned).to_vec();
    rig.publish(std::slice::from_ref(&spec));
    let tcp = |source_port, tcp_flags| Descriptor {
        protocol: 6,
        tcp_flags,
        source_port,
        ..ipv4([203, 0, 113, 7], 443)
    };
    let (syn, ack) = (|port| (tcp(port, 0x02), 1, 0), |port, number| (tcp(port, 0x10), 2, number));
    let syn_ack = |port, number| {
        let Descriptor { source, destination, .. } = tcp(port, 0);
        let answer = Descriptor {
            source: destination,
            destination: source,
            source_port: 443,
            destination_port: port,
            ..tcp(port, 0x12)
        };
        (answer, number, 2)
    };
    let (go, drop) = (Verdict::Continue, Verdict::Drop(frame::DropReason::Plugin));
    let at = Nanos(SECOND);
    let turn = |rig: &mut Rig, worker, packet| rig.turn(worker, &mut tcp_batch(&[packet]), at)[0];
    assert_eq!(turn(&mut rig, 0, syn(1)), go);
    assert_eq!(turn(&mut rig, 0, syn(2)), drop);
    assert_eq!(turn(&mut rig, 1, syn_ack(1, 1000)), go);
    // A blind ACK passes, and its handshake is as half-open as before.
    assert_eq!(turn(&mut rig, 0, ack(1, 1000)), go);
    assert_eq!(turn(&mut rig, 0, syn(2)), drop);
    assert_eq!(turn(&mut rig, 0, ack(1, 1001)), go);
    assert_eq!(turn(&mut rig, 0, syn(2)), go);
    let counters = |rig: &mut Rig, ms: u64| {
        rig.begin(Nanos(SECOND + ms * 1_000_000));
        rig.host.status().remove(0).total.counters
    };
    let told = counters(&mut rig, 200);
    assert_eq!((told["completed"], told["unproved"], told["unseen"]), (1, 1, 0));
    assert_eq!((told["syns"], told["half-open"]), (4, 2));
    // Without the grant the plugin is loaded all the same: any ACK will do, and that is counted.
    spec.grants.pop();
    rig.publish(&[spec]);
    assert_eq!(turn(&mut rig, 1, syn_ack(2, 5)), go);
    assert_eq!(turn(&mut rig, 0, ack(2, 77)), go);
    assert_eq!(turn(&mut rig, 0, syn(3)), go);
    let told = counters(&mut rig, 400);
    assert_eq!((told["completed"], told["unproved"], told["unseen"]), (2, 1, 2));
}

#[test]
fn the_rate_of_syns_holds_for_all_workers_and_no_flow_is_lost_to_a_flood() {
    let mut rig = Rig::new(2);
    let config = "syn_per_s = 100\nburst = 500\nfallback_per_s = 10\nentries = 1024\nsources = 64\n\
                  half_open_max = 4\ndirections = [\"transit\"]";
    let Some(mut spec) = spec("syn_guard", config) else { return };
    spec.grants = ["meter", "quota"].map(str::to_owned).to_vec();
    rig.publish(&[spec]);
    let tcp = |n: u32, tcp_flags| Descriptor {
        protocol: 6,
        tcp_flags,
        source_port: n as u16,
        ..ipv4(n.to_be_bytes(), 443)
    };
    // A source that each worker trusts, and that from then on completes no more handshakes.
    let greedy = |port, tcp_flags| Descriptor { source_port: port, ..tcp(7, tcp_flags) };
    for (worker, tcp_flags) in [(0, 0x02), (0, 0x10), (1, 0x02), (1, 0x10)] {
        let verdicts = rig.turn(worker, &mut batch(&[greedy(1, tcp_flags)]), Nanos(SECOND));
        assert_eq!(verdicts, [Verdict::Continue]);
    }
    // Each worker gets a flood of ten times its table, and packets of established flows with it.
    let established: Vec<_> = [0x10, 0x18, 0x11, 0x04, 0x12]
        .into_iter()
        .flat_map(|tcp_flags| [greedy(1, tcp_flags), tcp(9, tcp_flags)])
        .collect();
    let mut passed = 2_u64;
    for turn in 0..160_u32 {
        let mut packets: Vec<_> =
            (0..128).map(|n| tcp(0x0b00_0000 + turn * 128 + n, 0x02)).collect();
        packets.push(greedy(1000 + turn as u16, 0x02));
        packets.extend(&established);
        let verdicts = rig.turn(turn as usize % 2, &mut batch(&packets), Nanos(SECOND));
        let (of_syns, of_others) = verdicts.split_at(129);
        assert!(of_others.iter().all(|verdict| *verdict == Verdict::Continue), "turn {turn}");
        passed += of_syns.iter().filter(|verdict| **verdict == Verdict::Continue).count() as u64;
    }
    rig.begin(Nanos(2 * SECOND));
    let status = rig.host.status().remove(0);
    let counters = &status.total.counters;
    let syns = 160 * 129 + 2;
    assert_eq!(counters["syns"], syns);
    assert_eq!(counters["unchallenged"], 500, "the burst, for both workers together");
    assert_eq!(counters["unremembered"], 10, "the fall-back, likewise");
    // Of the trusted source four may be half-open, at both workers together, of which three still had a token.
    assert_eq!((counters["verified"], counters["half-open"]), (4 - 3, 160 - 4));
    assert_eq!(passed, 500 + 10 + 1);
    assert!(counters["handshakes-full"] > 0, "{counters:?}");
    let quota = &status.quotas[0];
    // Who completed its handshake has left, and so have those of the fall-back, whose end would not be noticed.
    assert_eq!((quota.refusals, quota.departures, quota.overflows), (156, 2 + 10, 0));
    let drops = &status.total.drops_by_reason;
    assert_eq!(drops["challenged"], counters["challenged"]);
    assert_eq!(drops["table-full"], counters["refused-table-full"]);
    assert_eq!(drops["half-open"], counters["half-open"]);
    assert_eq!(drops.values().sum::<u64>(), syns - passed, "none without a reason");
    assert_eq!(status.total.traps, 0);
}
