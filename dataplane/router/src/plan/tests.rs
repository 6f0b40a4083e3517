//! Grouping, limits and words, and plans over whole configurations in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Checked;
use control::publication::{NeighborView, Publication};
use forward::Sample;
use frame::Nanos;
use network::host_view;
use policy::{HostOptions, PluginHost};
use sim::read_pcap;
use tables::AdjacencyState;
use wire::{InterfaceId, MacAddress, ethernet};

use super::report::{GROUPS_MAX, Share};
use super::{Flow, Judged, Judgement, MaxChanged, Outcome, PlanReport, Question, judge, render};
use crate::explain::{address_to, packet_text};
use crate::plugins;

fn outcome(end: &str, owner: Option<&str>, way: Option<(&str, &str)>) -> Outcome {
    Outcome {
        end: end.to_owned(),
        owner: owner.map(str::to_owned),
        interface: way.map(|(interface, _)| interface.to_owned()),
        next_hop: way.map(|(_, next_hop)| next_hop.to_owned()),
        ..Outcome::default()
    }
}

fn judged(port: u16, weight: u64, before: &Outcome, after: &Outcome) -> Judged {
    Judged {
        flow: Flow::on(InterfaceId(0), (port, 53)),
        packet: format!("flow {port}"),
        weight,
        before: before.clone(),
        after: after.clone(),
    }
}

#[test]
fn changes_are_grouped_weighed_and_named_by_the_most_important() {
    let sent = outcome("sent", None, Some(("wan0", "10.0.0.1")));
    let elsewhere = outcome("sent", None, Some(("wan0", "10.0.0.2")));
    let other_link = outcome("sent", None, Some(("lan0", "10.0.0.2")));
    let owned = outcome("sent", Some("node b"), Some(("lan0", "10.0.0.2")));
    let dropped = outcome("dropped: no-route", None, None);
    let rewritten = Outcome { sent: vec![0; 61], ..sent.clone() };
    let sent = Outcome { sent: vec![0; 60], ..sent };
    let rows = [
        judged(1, 10, &sent, &sent),
        judged(1, 10, &sent, &elsewhere),
        judged(2, 5, &sent, &elsewhere),
        judged(3, 20, &sent, &other_link),
        judged(4, 30, &sent, &owned),
        judged(5, 1, &sent, &dropped),
        judged(6, 24, &sent, &rewritten),
    ];
    let times = Some((Nanos(1_000_000_000), Nanos(3_000_000_000)));
    let judgement = Judgement { judged: rows.into(), times, ..Judgement::default() };
    let report = PlanReport::new(judgement, 2, 5.0);
    let groups: Vec<(&str, Share)> =
        report.groups.iter().map(|group| (group.kind.label(), group.share.clone())).collect();
    let share =
        |flows, sampled, packets| Share { flows, sampled, packets, percent: packets as f64 };
    let expected = [
        ("owner", share(1, 1, 30)),
        ("rewrite", share(1, 1, 24)),
        ("interface", share(1, 1, 20)),
        ("next hop", share(2, 2, 15)),
        ("verdict", share(1, 1, 1)),
    ];
    assert_eq!(groups, expected);
    assert_eq!(report.changed, share(6, 6, 90));
    assert_eq!(report.sample.judged, share(6, 7, 100));
    assert_eq!((report.sample.oldest_s, report.sample.newest_s), (4.0, 2.0));
    assert!(!report.sample.is_every_packet);
    assert_eq!(report.groups[3].examples, ["flow 1", "flow 2"]);
    assert!(report.groups[1].before.ends_with("60 bytes"), "{:?}", report.groups[1]);
}

#[test]
fn what_is_not_shown_is_counted() {
    let sent = outcome("sent", None, None);
    let rows = (0..30_u16).map(|number| {
        let after = outcome(&format!("dropped: {number}"), None, None);
        judged(number, u64::from(number) + 1, &sent, &after)
    });
    let judgement = Judgement { judged: rows.collect(), ..Judgement::default() };
    let report = PlanReport::new(judgement, 1, 0.0);
    assert_eq!(report.groups.len(), GROUPS_MAX);
    assert_eq!(report.groups[0].share.packets, 30);
    assert_eq!((report.rest.groups, report.rest.share.flows), (10, 10));
    assert_eq!(report.rest.share.packets, (1..=10).sum::<u64>());
    let report = PlanReport { differs: vec!["routes".to_owned()], ..report };
    let text = render(&report);
    assert!(text.contains("and 10 more changes: 10 flows, 55 packets, 11.83%"), "{text}");
}

#[test]
fn an_empty_sample_is_said_and_is_no_assent() {
    let report = PlanReport::new(Judgement::default(), 1, 0.0);
    assert!(!report.is_blind(), "nothing differs");
    let report = PlanReport { differs: vec!["slices".to_owned()], ..report };
    assert!(report.is_blind());
    let text = render(&report);
    assert!(text.contains("no packet was received yet by 1 worker"), "{text}");
    assert!(text.contains("unknown"), "{text}");
}

#[test]
fn a_sample_without_a_change_says_what_it_leaves_open() {
    let sent = outcome("sent", None, None);
    let rows = (0..300).map(|_| judged(1, 2, &sent, &sent)).collect();
    let judgement = Judgement { judged: rows, ..Judgement::default() };
    let report = PlanReport::new(judgement, 1, 1.0);
    let report = PlanReport { differs: vec!["slices".to_owned()], ..report };
    assert!(render(&report).contains("less than 1.00% of the traffic"), "{}", render(&report));
}

#[test]
fn limits() {
    let limit = |text: &str| text.parse::<MaxChanged>();
    assert_eq!(limit("0.1%"), Ok(MaxChanged::Percent(0.1)));
    assert_eq!(limit(" 5 % "), Ok(MaxChanged::Percent(5.0)));
    assert_eq!(limit("10 flows"), Ok(MaxChanged::Flows(10)));
    assert_eq!(limit("1flow"), Ok(MaxChanged::Flows(1)));
    for wrong in
        ["", "10", "flows", "%", "-1%", "101%", "NaN%", "1.5 flows", "10 packets", "-1 flows"]
    {
        assert!(limit(wrong).is_err(), "{wrong}");
    }
    let share = |flows, percent| Share { flows, percent, ..Share::default() };
    assert!(!MaxChanged::Percent(0.1).is_exceeded(&share(9, 0.1)));
    assert!(MaxChanged::Percent(0.1).is_exceeded(&share(1, 0.11)));
    assert!(!MaxChanged::Flows(2).is_exceeded(&share(2, 99.0)));
    assert!(MaxChanged::Flows(2).is_exceeded(&share(3, 0.0)));
}

fn scenarios() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

/// The configuration of `slice-to-node` with some parts of it replaced.
fn configuration(changes: &[(&str, &str)]) -> Arc<Checked> {
    let file = scenarios().join("slice-to-node/config.toml");
    let mut text = fs::read_to_string(&file).expect("config.toml");
    for (old, new) in changes {
        assert!(text.contains(old), "{old}");
        text = text.replacen(old, new, 1);
    }
    Arc::new(Checked::parse(&text, &file).expect("it is sound"))
}

fn sample(ingress: InterfaceId, mut frame: Vec<u8>) -> Sample {
    let length = frame.len();
    frame.truncate(forward::SAMPLE_HEAD_BYTES);
    Sample { time: Nanos(0), ingress, length, weight: 1, head: frame }
}

fn ask(old: &Arc<Checked>, new: &Arc<Checked>, samples: Vec<Sample>) -> PlanReport {
    let mut host = host_view(old);
    // Every next hop that somebody asks for answers.
    for config in [old, new] {
        let tables = Publication::new(Arc::clone(config), &host, 1).expect("tables");
        let mac = Some(MacAddress([2, 0, 0, 0, 0, 9]));
        let known = NeighborView { mac, state: AdjacencyState::Resolved };
        for neighbor in tables.required_neighbors().collect::<Vec<_>>() {
            host.neighbors.insert(neighbor, known);
        }
    }
    let (mut runs, _chains) = PluginHost::new(HostOptions::new(1)).expect("a host");
    let routes = Publication::new(Arc::clone(old), &host, 1)
        .and_then(|live| live.routes_aside())
        .expect("tables");
    let specs =
        |config: &Checked| plugins::specs(config, &routes.names(config).expect("few names"));
    let set = runs.prepare(&specs(old)).expect("sound plugins");
    runs.publish(set).expect("room");
    let asides = runs.asides_of_plan(&specs(new)).expect("instances");
    let question = Question {
        old: Arc::clone(old),
        new: Arc::clone(new),
        routes,
        host,
        samples: vec![samples],
        asides,
    };
    PlanReport::new(judge(question, Nanos(0)).expect("a judgement"), 1, 1.0)
}

fn plan(old: &Arc<Checked>, new: &Arc<Checked>, packets: &[(&str, &str)]) -> PlanReport {
    let host = host_view(old);
    let samples = packets.iter().map(|(interface, text)| {
        let ingress = old.interface(interface).expect("an interface");
        let mut frame = vec![0; ethernet::HEADER_LEN];
        frame[12] = 8;
        frame.extend(packet_text::parse(text).expect("a packet"));
        address_to(&mut frame, host.interfaces[ingress.index()].mac);
        sample(ingress, frame)
    });
    ask(old, new, samples.collect())
}

/// What is asked twice of one configuration is answered alike, for every packet of every scenario: no
/// packet's fate hangs on the ones before, on random numbers or on which side is asked.
#[test]
fn a_configuration_that_does_not_differ_changes_no_packet_of_any_scenario() {
    let (mut judged, mut not_judged) = (0, 0);
    for entry in fs::read_dir(scenarios()).expect("scenarios") {
        let folder = entry.expect("an entry").path();
        let file = folder.join("config.toml");
        let Ok(text) = fs::read_to_string(&file) else { continue };
        // Those with plugins need built ones; that both sets answer alike is tested with the host.
        if text.contains("[[plugin]]") {
            continue;
        }
        let config = Arc::new(Checked::parse(&text, &file).expect("it is sound"));
        let mut samples = Vec::new();
        for (position, interface) in (0_u8..).zip(&config.interfaces) {
            let capture = folder.join(format!("in-{}.pcap", interface.name));
            if !capture.exists() {
                continue;
            }
            let mac = host_view(&config).interfaces[usize::from(position)].mac;
            for packet in read_pcap(&capture).expect("a capture").packets {
                let mut frame = packet.bytes;
                address_to(&mut frame, mac);
                samples.push(sample(InterfaceId(position), frame));
            }
        }
        let report = ask(&config, &config, samples);
        assert_eq!(report.changed, Share::default(), "{}: {report:#?}", folder.display());
        judged += report.sample.judged.sampled;
        not_judged += report.sample.not_judged.values().sum::<u64>();
    }
    assert!(judged > 500, "{judged} packets");
    assert!(not_judged * 5 < judged, "{not_judged} of {judged} are not judged");
}

#[test]
fn a_slice_that_moves_is_foreseen_packet_by_packet() {
    let old = configuration(&[]);
    let new = configuration(&[("1024-33791", "1024-2999"), ("33792-65535", "3000-65535")]);
    let packets = [
        ("wan0", "udp 198.51.100.7:53 > 192.0.2.1:2999"),
        ("wan0", "udp 198.51.100.7:53 > 192.0.2.1:3000"),
        ("wan0", "udp 198.51.100.7:54 > 192.0.2.1:3000"),
        ("wan0", "udp 198.51.100.7:53 > 192.0.2.1:3000 length 1400"),
        ("wan0", "tcp 198.51.100.7:53 > 192.0.2.1:33791 syn"),
        ("wan0", "udp 198.51.100.7:53 > 192.0.2.1:33792"),
        ("wan0", "icmp 198.51.100.7 > 192.0.2.1 reply id 5000"),
        ("lan0", "udp 192.0.2.1:2999 > 198.51.100.7:53"),
        ("lan0", "udp 192.0.2.1:3000 > 198.51.100.7:53"),
        ("wan0", "udp 198.51.100.7:53 > 192.0.2.1:3000 fragment 1480"),
    ];
    let report = plan(&old, &new, &packets);
    let reasons: Vec<&String> = report.sample.not_judged.keys().collect();
    assert_eq!(reasons, ["later fragments, which follow the first of their packet"]);
    assert_eq!((report.sample.judged.sampled, report.sample.judged.flows), (9, 8));
    assert_eq!((report.changed.sampled, report.changed.flows), (6, 5));
    let rows: Vec<(&str, &str, &str, u64, u64)> = report
        .groups
        .iter()
        .map(|group| {
            let Share { flows, sampled, .. } = group.share;
            (group.kind.label(), group.before.as_str(), group.after.as_str(), flows, sampled)
        })
        .collect();
    let expected = [
        (
            "owner",
            "sent, slice of owner web on this machine, via 10.1.0.2 on lan0",
            "sent, slice of node b, in GUE (port 6080) to node b (10.0.0.12), via its far end itself \
             (not resolved yet) on wan0",
            4,
            5,
        ),
        ("verdict", "sent, via 10.0.0.1 on wan0", "dropped: slice-sender", 1, 1),
    ];
    assert_eq!(rows, expected);
    assert!(report.groups[0].examples.len() == 3, "{:?}", report.groups[0].examples);
}

#[test]
fn routes_tunnels_and_bytes_that_change_have_kinds_of_their_own() {
    let old = configuration(&[]);
    let packets = [
        ("lan0", "udp 10.1.0.5:1000 > 198.51.100.7:53"),
        ("wan0", "udp 198.51.100.7:53 > 192.0.2.1:40000"),
        ("lan0", "tcp 10.1.0.5:1000 > 198.51.100.7:53 syn"),
    ];
    let kinds = |changes: &[(&str, &str)]| -> Vec<(&'static str, u64)> {
        let report = plan(&old, &configuration(changes), &packets);
        report.groups.iter().map(|group| (group.kind.label(), group.share.sampled)).collect()
    };
    assert_eq!(kinds(&[("via = \"10.0.0.1\"", "via = \"10.0.0.2\"")]), [("next hop", 2)]);
    assert_eq!(kinds(&[("via = \"10.0.0.1\"", "via = \"10.1.0.9\"")]), [("interface", 2)]);
    assert_eq!(kinds(&[("prefix = \"0.0.0.0/0\"", "prefix = \"9.0.0.0/8\"")]), [("verdict", 2)]);
    assert_eq!(kinds(&[("address = \"10.0.0.12\"", "address = \"10.0.0.13\"")]), [("tunnel", 1)]);
    assert_eq!(kinds(&[("[router]", "[icmp]\nerrors_per_s = 7\n[router]")]), []);
}
