//! `sluice plan`, `reload --max-changed` and `reload --confirm` on a running router, in network namespaces
//! that the test makes, with traffic; skipped without root.

mod common;

#[path = "common/net/mod.rs"]
mod net;

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use net::two_links::{INTERFACES, LAN, LAN_MAC, TwoLinks, WAN, WAN_MAC, udp_frame};
use net::{Captured, Namespace, Router, Tap, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

const SHARED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Two nodes share an address; the second half of its ports, from `SPLIT` on, is node b's.
const CONFIG: &str = r#"
[[neighbor]]
address = "10.0.0.1"
interface = "wan0"
mac = "02:00:00:00:00:aa"
[[neighbor]]
address = "10.0.0.12"
interface = "wan0"
mac = "02:00:00:00:00:bb"
[[neighbor]]
address = "10.1.0.2"
interface = "lan0"
mac = "02:00:00:00:00:cc"
[[route]]
prefix = "0.0.0.0/0"
via = "10.0.0.1"
[[node]]
name = "a"
address = "10.0.0.11"
[[node]]
name = "b"
address = "10.0.0.12"
[[owner]]
name = "web"
node = "a"
deliver = { next_hop = "10.1.0.2", interface = "lan0" }
[[egress]]
prefix = "192.0.2.1/32"
default = "drop"
[[egress.slice]]
ports = "1024-2999"
node = "a"
owner = "web"
[[egress.slice]]
ports = "3000-65535"
node = "b"
"#;

struct Stage {
    tap: Tap,
    router: Router,
    space: Namespace,
    far: Namespace,
}

impl Stage {
    fn new(test: &str, rest: &str, prepare: impl Fn(&Router)) -> Option<Self> {
        if !net::available(test) {
            return None;
        }
        let TwoLinks { tap, space, far } = TwoLinks::new();
        let rest = format!("{CONFIG}{rest}");
        let router = Router::start_with(&space, &INTERFACES, "\"off\"", "node = \"a\"\n", &rest);
        prepare(&router);
        Some(Self { tap, router, space, far })
    }

    /// The configuration in the file, with some parts replaced.
    fn changed(&self, changes: &[(&str, &str)]) -> String {
        let mut text =
            fs::read_to_string(self.router.file("sluice.toml")).expect("the configuration");
        for (old, new) in changes {
            assert!(text.contains(old), "{old}");
            text = text.replacen(old, new, 1);
        }
        text
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.router.file(name), text).expect("a file");
    }

    /// A plan of a file beside the configuration, with the exit code.
    #[track_caller]
    fn plan(&self, name: &str) -> (Option<i32>, Value) {
        let file = self.router.file(name);
        let output = self.router.ask(&["plan", "--json", file.to_str().expect("UTF-8")]);
        let said = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout);
        (output.status.code(), report.unwrap_or_else(|error| panic!("{error}: {said}")))
    }

    fn generation(&self) -> u64 {
        self.router.status().router.configuration_generation
    }

    /// What becomes of a packet to a port of the shared address.
    fn owner(&self, port: u16) -> String {
        let text = format!("udp {REMOTE}:53 > {SHARED}:{port}");
        let answer = self.router.done(&["explain", "--json", "--in", "wan0", &text]);
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        let steps = answer["packet"]["steps"].as_array().cloned().unwrap_or_default();
        let owner = steps.iter().find_map(|step| step["details"]["owner"].as_str());
        owner.unwrap_or("nobody").to_owned()
    }
}

fn inbound(port: u16) -> Vec<u8> {
    udp_frame(WAN_MAC, (REMOTE, 53), (SHARED, port), &[0; 4])
}

fn outbound(port: u16) -> Vec<u8> {
    udp_frame(LAN_MAC, (SHARED, port), (REMOTE, 53), &[0; 4])
}

/// The kinds of the changes, with flows and packets of each.
fn kinds(report: &Value) -> Vec<(String, u64, u64)> {
    let groups = report["groups"].as_array().expect("groups");
    let number = |group: &Value, key: &str| group["share"][key].as_u64().expect("a number");
    groups
        .iter()
        .map(|group| {
            let kind = group["kind"].as_str().expect("a kind").to_owned();
            (kind, number(group, "flows"), number(group, "sampled"))
        })
        .collect()
}

/// Waits until `count` packets have come in at the router.
#[track_caller]
fn wait_for(stage: &Stage, count: u64) {
    wait_until("all packets are received", PATIENCE, || stage.router.received() >= count);
}

/// Moves the ports from 2005 on.
const MOVE: [(&str, &str); 2] = [("1024-2999", "1024-2004"), ("3000-65535", "2005-65535")];

#[test]
fn a_slice_that_moves_is_foreseen_exactly_and_refused_beyond_a_limit() {
    let Some(stage) = Stage::new("plans", "", |_| {}) else { return };
    stage.write("same.toml", &(stage.changed(&[]) + "# a comment\n"));
    stage.write("new.toml", &stage.changed(&MOVE));

    // Without any traffic nothing is known, and that is no assent.
    let (code, report) = stage.plan("same.toml");
    assert_eq!((code, report["differs"].as_array().map(Vec::len)), (Some(0), Some(0)), "{report}");
    let (code, report) = stage.plan("new.toml");
    assert_eq!(
        (code, &report["sample"]["judged"]["sampled"]),
        (Some(4), &Value::from(0)),
        "{report}"
    );
    let old = stage.changed(&[]);
    stage.write("sluice.toml", &stage.changed(&MOVE));
    let said = stage.router.refused(&["reload", "--max-changed", "100%"]);
    assert!(said.contains("no packet was received yet"), "{said}");
    stage.write("sluice.toml", &old);

    // Ten flows to the workload and from it, five to node b: three packets each.
    let ports = 2000..2010;
    let mut sent = 0;
    for _ in 0..3 {
        for port in ports.clone() {
            stage.tap.send(WAN, &inbound(port));
            stage.tap.send(LAN, &outbound(port));
        }
        for port in 40_000..40_005 {
            stage.tap.send(WAN, &inbound(port));
        }
        sent += 25;
    }
    wait_for(&stage, sent);
    let before = stage.router.status();
    let (code, report) = stage.plan("new.toml");
    assert_eq!(code, Some(3), "{report}");
    let judged = &report["sample"]["judged"];
    assert_eq!((judged["sampled"].as_u64(), judged["flows"].as_u64()), (Some(75), Some(25)));
    assert_eq!(report["sample"]["is_every_packet"], true);
    let foreseen = [("verdict", 5, 15), ("owner", 5, 15)];
    let foreseen = foreseen.map(|(kind, flows, packets)| (kind.to_owned(), flows, packets));
    assert_eq!(kinds(&report), foreseen, "{report}");
    assert_eq!(report["changed"]["percent"], 40.0);
    assert_eq!(report["groups"][0]["after"], "dropped: slice-sender");
    assert!(report["groups"][1]["after"].as_str().expect("words").contains("node b (10.0.0.12)"));
    let after = stage.router.status();
    assert_eq!(before.interfaces, {
        let mut same = after.interfaces.clone();
        for (one, other) in same.iter_mut().zip(&before.interfaces) {
            (one.rx_rate_pps, one.tx_rate_pps) = (other.rx_rate_pps, other.tx_rate_pps);
        }
        same
    });
    let text = stage.router.ask(&["plan", stage.router.file("new.toml").to_str().expect("UTF-8")]);
    let text = String::from_utf8(text.stdout).expect("UTF-8");
    assert!(text.contains("the last 75 packets, of 25 flows") && text.contains("40.00%"), "{text}");
    let (code, report) = stage.plan("same.toml");
    assert_eq!((code, report["changed"]["sampled"].as_u64()), (Some(0), Some(0)));

    // Refused as a reload would refuse it: broken, or not to be changed while it runs.
    stage.write("broken.toml", &stage.changed(&[("node = \"b\"", "node = \"c\"")]));
    stage.write("restart.toml", &stage.changed(&[("cores = [0]", "cores = [1]")]));
    for (name, reason) in [("broken.toml", "\"c\""), ("restart.toml", "workers.cores")] {
        let file = stage.router.file(name);
        let said = stage.router.refused(&["plan", file.to_str().expect("UTF-8")]);
        assert!(said.contains(reason), "{said}");
    }
    assert_eq!(stage.generation(), 1);

    // A limit holds for the reload, whole or not at all.
    stage.write("sluice.toml", &stage.changed(&MOVE));
    for limit in ["39.9%", "0%", "9 flows"] {
        let said = stage.router.refused(&["reload", "--max-changed", limit]);
        assert!(said.contains("owner: 5 flows, 15 packets, 20.00%"), "{said}");
        assert!(said.contains("dropped: slice-sender"), "{said}");
    }
    let status = stage.router.status();
    assert_eq!((stage.generation(), status.reloads.refused), (1, 4));
    assert_eq!(stage.owner(2005), "owner web on this machine");
    let said = stage.router.done(&["reload", "--max-changed", "10 flows"]);
    assert!(said.contains("in force, configuration 2: slices"), "{said}");
    assert!(said.contains("10 flows, 30 packets, 40.00%"), "{said}");
    assert_eq!(stage.owner(2005), "node b");

    // What was foreseen is what happens.
    for port in ports {
        stage.tap.send(LAN, &outbound(port));
    }
    wait_for(&stage, sent + 10);
    assert_eq!(stage.router.drops("slice-sender"), 5);
    stage.router.assert_conserved();
}

/// The far end that a packet to port 2005 came out at.
fn arrivals(captured: &[Captured]) -> Vec<usize> {
    let is_ip = |frame: &[u8]| frame.get(12..14) == Some(&[8, 0]);
    captured.iter().filter(|one| is_ip(&one.frame)).map(|one| one.port).collect()
}

#[test]
fn without_a_confirmation_the_router_goes_back_under_traffic_and_with_one_it_does_not() {
    let Some(mut stage) = Stage::new("confirmed reloads", "", |_| {}) else { return };
    stage.write("sluice.toml", &stage.changed(&MOVE));
    let sender = Tap::new(&stage.far, &["wan0p"]);
    let stop = AtomicBool::new(false);
    let frame = inbound(2005);
    let (sent, captured) = thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                sender.send(0, &frame);
                sent += 1;
                thread::sleep(Duration::from_millis(2));
            }
            sent
        });
        wait_until("traffic", PATIENCE, || stage.router.received() > 10);
        let asked = Instant::now();
        let said = stage.router.done(&["reload", "--confirm", "2"]);
        assert!(said.contains("going back in 2 s"), "{said}");
        assert_eq!(stage.owner(2005), "node b");
        let status = stage.router.status();
        let pending = status.confirmation.expect("it is shown");
        assert!(pending.seconds_left <= 2 && pending.back_to == 1, "{pending:?}");
        let text = stage.router.done(&["status"]);
        assert!(text.contains("configuration 2 waits for 'sluice confirm'"), "{text}");
        wait_until("it goes back", PATIENCE, || stage.router.status().confirmation.is_none());
        assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
        let status = stage.router.status();
        assert_eq!((status.router.configuration_generation, status.reloads.gone_back), (3, 1));
        assert_eq!(stage.owner(2005), "owner web on this machine");
        thread::sleep(Duration::from_millis(100));
        stop.store(true, Ordering::Relaxed);
        let sent: usize = traffic.join().expect("no panic");
        (sent, stage.tap.receive_for(Duration::from_millis(500)))
    });
    // First to the workload, then into the tunnel, then to the workload again; none is lost.
    let seen = arrivals(&captured);
    assert_eq!(seen.len(), sent, "packets were lost");
    let mut places = seen.clone();
    places.dedup();
    assert_eq!(places, [LAN, WAN, LAN]);
    stage.router.assert_conserved();

    // Confirmed in time, it stays.
    stage.router.done(&["reload", "--confirm", "2"]);
    let said = stage.router.done(&["confirm"]);
    assert!(said.contains("configuration 4 is confirmed"), "{said}");
    assert!(!stage.router.file("sluice.toml.confirmed").exists());
    thread::sleep(Duration::from_millis(2500));
    assert_eq!((stage.generation(), stage.owner(2005)), (4, "node b".to_owned()));
    let said = stage.router.refused(&["confirm"]);
    assert!(said.contains("no configuration waits"), "{said}");
}

/// Ports that move in other places.
const OTHER: [(&str, &str); 2] = [("1024-2004", "1024-2500"), ("2005-65535", "2501-65535")];

#[test]
fn what_comes_in_between_is_defined() {
    let Some(mut stage) = Stage::new("confirmed reloads", "", |_| {}) else { return };
    let old = stage.changed(&[]);
    let kept = stage.router.file("sluice.toml.confirmed");
    stage.write("sluice.toml", &stage.changed(&MOVE));
    stage.router.done(&["reload", "--confirm", "600"]);
    assert!(fs::read_to_string(&kept).expect("it is kept").ends_with(&old));

    // A signal is no confirmation.
    stage.router.signal(Signal::SIGHUP);
    wait_until("it is refused", PATIENCE, || stage.router.status().reloads.refused == 1);
    let status = stage.router.status();
    assert!(status.reloads.last_error.expect("said").contains("SIGHUP"));
    assert!(status.confirmation.is_some());

    // A broken file leaves all as it is, and what is kept belongs to what is in force.
    let moved = stage.changed(&[]);
    stage.write("sluice.toml", &stage.changed(&[("node = \"b\"", "node = \"c\"")]));
    stage.router.refused(&["reload", "--confirm", "600"]);
    assert!(stage.router.status().confirmation.is_some());
    stage.write("sluice.toml", &moved);

    // A second one begins its time anew, and goes back to what was confirmed.
    stage.write("sluice.toml", &stage.changed(&OTHER));
    stage.router.done(&["reload", "--confirm", "600"]);
    assert_eq!(
        (stage.owner(2400), stage.owner(2600)),
        ("owner web on this machine".into(), "node b".into())
    );
    let status = stage.router.status();
    assert_eq!(status.confirmation.expect("it waits").back_to, 1);
    let said = stage.router.done(&["confirm", "--cancel"]);
    assert!(said.contains("back to the configuration before"), "{said}");
    assert_eq!(stage.owner(2600), "owner web on this machine");
    assert!(stage.router.status().confirmation.is_none());

    // A reload without a time confirms.
    stage.router.done(&["reload", "--confirm", "600"]);
    stage.router.done(&["reload"]);
    assert!(stage.router.status().confirmation.is_none());
    assert!(!kept.exists());
    assert_eq!(stage.owner(2600), "node b");

    // A crash goes back, and so does every later start, until the file is put into force or mended.
    stage.write(
        "sluice.toml",
        &stage.changed(&[("1024-2500", "1024-1999"), ("2501-65535", "2000-65535")]),
    );
    stage.router.done(&["reload", "--confirm", "600"]);
    assert_eq!(stage.owner(2400), "node b");
    let Stage { router, space, .. } = &mut stage;
    router.crash_and_start(space);
    assert!(stage.router.log().contains("not confirmed: this start takes the one before"));
    assert_eq!(
        (stage.owner(2400), stage.owner(2600)),
        ("owner web on this machine".into(), "node b".into())
    );

    // So does an end that was asked for while it waits; what is in force then waits for nothing, and the
    // file stays what was not confirmed.
    let unconfirmed = stage.changed(&[]);
    stage.router.done(&["reload", "--confirm", "600"]);
    assert_eq!(stage.owner(2400), "node b");
    for _ in 0..2 {
        let Stage { router, space, .. } = &mut stage;
        router.stop_and_start(space);
        assert_eq!(stage.owner(2400), "owner web on this machine");
        assert!(stage.router.status().confirmation.is_none());
        assert_eq!(stage.changed(&[]), unconfirmed);
        assert!(kept.exists());
    }
    stage.router.done(&["reload"]);
    assert_eq!(stage.owner(2400), "node b");
    assert!(!kept.exists());
    let Stage { router, space, .. } = &mut stage;
    router.crash_and_start(space);
    assert_eq!(stage.owner(2400), "node b");
}

#[test]
fn plugins_are_foreseen_and_gone_back_to_whatever_becomes_of_their_files() {
    let Some(plugins) = common::plugins() else {
        eprintln!("skipped: plans of plugins: no plugins (cargo xtask plugins)");
        return;
    };
    let prepare = |router: &Router| {
        fs::copy(plugins.join("filter.wasm"), router.file("filter.wasm")).expect("a plugin");
    };
    let Some(stage) = Stage::new("plans of plugins", "", prepare) else { return };
    let plugin = |port: u16| {
        format!(
            "[[plugin]]\nname = \"filter\"\npath = \"filter.wasm\"\nhook = \"ingress\"\n\
             config = {{ default = \"allow\", rules = [{{ action = \"drop\", destination_ports = {port} }}] }}\n"
        )
    };
    let plain = stage.changed(&[]);
    stage.write("sluice.toml", &(plain.clone() + &plugin(2001)));
    stage.router.done(&["reload"]);
    for port in 2000..2004 {
        stage.tap.send(WAN, &inbound(port));
    }
    wait_for(&stage, 4);
    assert_eq!(stage.router.drops("plugin"), 1);

    stage.write("sluice.toml", &(plain + &plugin(2002)));
    let (code, report) = stage.plan("sluice.toml");
    assert_eq!((code, report["changed"]["flows"].as_u64()), (Some(3), Some(2)), "{report}");
    let afters: Vec<&str> = report["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .filter_map(|group| group["after"].as_str())
        .collect();
    assert!(afters.contains(&"dropped: plugin: filter: rule"), "{afters:?}");
    let generation = |stage: &Stage| stage.router.status().plugins[0]["generation"].clone();
    assert_eq!(generation(&stage), 1, "a plan loads nothing");

    stage.router.done(&["reload", "--confirm", "600"]);
    stage.tap.send(WAN, &inbound(2002));
    wait_until("the new rule holds", PATIENCE, || stage.router.drops("plugin") == 2);
    fs::remove_file(stage.router.file("filter.wasm")).expect("a plugin");
    stage.router.done(&["confirm", "--cancel"]);
    for port in [2001, 2002] {
        stage.tap.send(WAN, &inbound(port));
    }
    wait_for(&stage, 7);
    wait_until("the old rule holds", PATIENCE, || stage.router.drops("plugin") == 3);
    assert_eq!(generation(&stage), 3);
    stage.router.assert_conserved();
}
