//! `sluice explain`, `trace` and `capture` on a running router, in network namespaces that the test
//! makes; skipped without root. tshark judges the captures, where it is installed.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use net::Router;
use net::two_links::{LAN, LAN_MAC, TwoLinks, WAN_MAC, udp_frame};
use serde_json::Value;
use sim::Packet;

mod common;

#[path = "common/net/mod.rs"]
mod net;

/// Frames of each kind that are sent.
const COUNT: usize = 20;

#[track_caller]
fn run(command: &mut Command) -> Output {
    let output = command.output().expect("the program can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

struct Stage {
    links: TwoLinks,
    sluice: Router,
}

impl Stage {
    fn new(test: &str) -> Option<Self> {
        if !net::available(test) {
            return None;
        }
        let Some(plugins) = common::plugins() else {
            eprintln!("skipped: {test}: no plugins (cargo xtask plugins)");
            return None;
        };
        Some(Self::with(&config(&plugins)))
    }

    fn with(config: &str) -> Self {
        let links = TwoLinks::new();
        let keys = "node = \"a\"\npoll = \"adaptive\"";
        let sluice = Router::start_from(&[], &links.space, keys, config);
        Self { links, sluice }
    }

    fn config(&self) -> PathBuf {
        self.sluice.file("sluice.toml")
    }

    fn explain(&self, words: &[&str]) -> Value {
        self.sluice.json(&[&["explain"], words].concat())
    }

    /// What a replay of frames that come in by `lan0` explains of each packet.
    fn replayed(&self, frames: &[Vec<u8>]) -> Vec<String> {
        let pcap = self.sluice.file("in.pcap");
        let packets: Vec<Packet> =
            (1..).zip(frames).map(|(time, frame)| Packet::new(time, frame.clone())).collect();
        sim::write_pcap(&pcap, &packets).expect("a capture");
        let out = self.sluice.file("replayed");
        run(common::replay(&self.config(), &out)
            .arg("--explain")
            .arg("--in")
            .arg(format!("lan0={}", pcap.display())));
        let lines = fs::read_to_string(out.join("explain.jsonl")).expect("explanations");
        lines.lines().map(|line| packet(&serde_json::from_str(line).expect("JSON"))).collect()
    }

    fn capture(&self, target: &str, more: &[&str]) -> (Child, PathBuf) {
        let file = self.sluice.file(&format!("{target}.pcapng"));
        let mut command = self.sluice.command(&["capture", "-i", target, "--duration", "4"]);
        command.arg("-w");
        let child =
            command.arg(&file).args(more).stderr(Stdio::piped()).spawn().expect("a process");
        (child, file)
    }

    /// Sends frames into the far end of `lan0`.
    fn send(&self, frames: &[Vec<u8>]) {
        for frame in frames {
            self.links.tap.send(LAN, frame);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A UDP packet in a frame to `lan0`, as `sluice explain` makes it from its text.
fn udp(source: [u8; 4], source_port: u16, port: u16) -> Vec<u8> {
    let destination = Ipv4Addr::new(198, 51, 100, 7);
    udp_frame(LAN_MAC, (source.into(), source_port), (destination, port), &[])
}

/// Whoever replays the configuration needs what a running router asks its kernel.
fn config(plugins: &Path) -> String {
    format!(
        r#"
        [workers]
        cores = [0]
        [[interface]]
        name = "wan0"
        role = "outside"
        [interface.replay]
        mac = "{WAN_MAC}"
        addresses = ["10.0.0.11/24"]
        [[interface]]
        name = "lan0"
        role = "inside"
        [interface.replay]
        mac = "{LAN_MAC}"
        addresses = ["10.1.0.1/24"]
        [[neighbor]]
        address = "10.0.0.1"
        interface = "wan0"
        mac = "02:00:00:00:00:aa"
        [[neighbor]]
        address = "10.1.0.5"
        interface = "lan0"
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
        deliver = {{ next_hop = "10.1.0.2", interface = "lan0" }}
        [[egress]]
        prefix = "192.0.2.1/32"
        default = "drop"
        [[egress.slice]]
        ports = "1024-33791"
        node = "a"
        owner = "web"
        [[egress.slice]]
        ports = "33792-65535"
        node = "b"
        [[plugin]]
        name = "filter"
        path = "{plugins}/filter.wasm"
        hook = "ingress"
        config = {{ default = "allow", rules = [{{ action = "drop", destination_ports = 9 }}] }}
        "#,
        plugins = plugins.display(),
    )
}

/// Values of a field of a capture, by tshark, with how often each occurs; `None`, visibly, without it.
fn fields(file: &Path, field: &str) -> Option<std::collections::BTreeMap<String, usize>> {
    let output =
        Command::new("tshark").arg("-r").arg(file).args(["-T", "fields", "-e", field]).output();
    let Ok(output) = output else {
        eprintln!("skipped: what tshark says of captures, since it is not installed");
        return None;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut counts = std::collections::BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        *counts.entry(line.to_owned()).or_default() += 1;
    }
    Some(counts)
}

/// The packet of an answer as the bytes that were printed would have it.
fn packet(answer: &Value) -> String {
    serde_json::to_string(&answer["packet"]).expect("JSON")
}

#[test]
fn a_running_router_tells_why() {
    let Some(stage) = Stage::new("explain, trace and capture live") else { return };

    // Explain: each end, by the stage that it meets.
    let kinds = [
        ("udp 10.1.0.5:1000 > 198.51.100.7:53", udp([10, 1, 0, 5], 1000, 53), None),
        ("udp 10.1.0.5:1000 > 198.51.100.7:9", udp([10, 1, 0, 5], 1000, 9), Some("plugin")),
        (
            "udp 192.0.2.1:40000 > 198.51.100.7:53",
            udp([192, 0, 2, 1], 40000, 53),
            Some("slice-sender"),
        ),
        ("udp 192.0.2.1:5000 > 198.51.100.7:53", udp([192, 0, 2, 1], 5000, 53), None),
    ];
    let mut explained = Vec::new();
    for (text, frame, reason) in &kinds {
        let answer = stage.explain(&["--in", "lan0", text]);
        assert_eq!(answer["packet"]["verdict"]["reason"].as_str(), *reason, "{answer}");
        assert_eq!(answer["classifier"]["reason"], "to-xsk-forward");
        let by_hex = stage.explain(&["--in", "lan0", "--hex", &hex(frame)]);
        assert_eq!(packet(&answer), packet(&by_hex), "the packet from its text is the packet");
        explained.push(answer);
    }
    assert_eq!(explained[1]["packet"]["verdict"]["plugin"], "filter");
    let to_router = stage.explain(&["--in", "lan0", "icmp 10.1.0.5 > 10.1.0.1 echo id 7"]);
    assert_eq!(to_router["classifier"]["reason"], "kernel-local");
    let status = stage.sluice.json(&["status"]);
    assert_eq!(status["interfaces"][1]["rx_packets"], 0, "explaining counts nowhere");
    assert_eq!(status["plugins"][0]["total"]["packets"], 0, "nor in plugins");

    // A replay of the same frames says the same, byte for byte.
    let frames: Vec<Vec<u8>> = kinds.iter().map(|(_, frame, _)| frame.clone()).collect();
    assert_eq!(stage.replayed(&frames), explained.iter().map(packet).collect::<Vec<_>>());

    // Live: captures and a trace at the same time.
    let captures = [
        stage.capture("any", &[]),
        stage.capture("drops", &[]),
        stage.capture("filter", &["--filter", "udp port 9", "--snaplen", "40"]),
    ];
    let trace = stage
        .sluice
        .command(&["trace", "--json", "--in", "lan0", "--count", "4"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a process");
    std::thread::sleep(Duration::from_secs(1));
    // At once, so that captures last longer than that on the slowest machine.
    let all: Vec<Vec<u8>> = frames.iter().cycle().take(COUNT * frames.len()).cloned().collect();
    stage.send(&all);
    let traced = trace.wait_with_output().expect("a trace").stdout;
    let traced: Vec<Value> = String::from_utf8_lossy(&traced)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(traced.len(), 4);
    for (line, answer) in traced.iter().zip(&explained) {
        assert_eq!(packet(&line["explanation"]), packet(answer));
        assert_eq!(line["verdict"]["reason"], answer["packet"]["verdict"]["reason"], "in fact");
    }
    let files: Vec<PathBuf> = captures
        .into_iter()
        .map(|(child, file)| {
            let output = child.wait_with_output().expect("a capture");
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() && said.contains(" 0 more"), "{said}");
            file
        })
        .collect();

    // The captures agree with the counters.
    let status = stage.sluice.json(&["status"]);
    let count = |interface: usize, key: &str| {
        usize::try_from(status["interfaces"][interface][key].as_u64().expect("a count"))
            .expect("small")
    };
    let dropped = |reason: &str| status["interfaces"][1]["drops"][reason].as_u64();
    assert_eq!(
        (dropped("plugin"), dropped("slice-sender")),
        (Some(COUNT as u64), Some(COUNT as u64))
    );
    assert_eq!(count(1, "rx_packets"), 4 * COUNT);
    let (sums, read) = (count(0, "rx_packets") + count(1, "rx_packets"), |file: &Path| {
        sim::read_pcap(file).expect("a capture").packets
    });
    assert_eq!(read(&files[0]).len(), sums + count(0, "tx_packets") + count(1, "tx_packets"));
    assert_eq!(read(&files[1]).len(), 2 * COUNT);
    assert!(
        read(&files[2]).iter().all(|packet| packet.bytes.len() == 40 && packet.original_len == 42)
    );
    let Some(comments) = fields(&files[1], "frame.comment") else { return };
    let expected = [("dropped: plugin: filter: rule", COUNT), ("dropped: slice-sender", COUNT)];
    assert_eq!(comments, expected.map(|(text, count)| (text.to_owned(), count)).into());
    let comments = fields(&files[2], "frame.comment").expect("tshark");
    assert_eq!(comments, [("dropped: plugin: filter: rule".to_owned(), COUNT)].into());
    let directions = fields(&files[0], "frame.packet_flags_direction").expect("tshark");
    assert_eq!(directions.values().sum::<usize>(), read(&files[0]).len());
    assert_eq!(directions["0x00000001"], sums, "received");
}

/// A frame of the scenario of actions, which `actor.wat` is asked about by its source port.
fn acted(port: u16) -> Vec<u8> {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let capture = sim::read_pcap(scenarios.join("plugin-actions/in-lan0.pcap")).expect("a capture");
    let is_it = |bytes: &[u8]| {
        bytes[12..14] == [8, 0]
            && bytes[14] == 0x45
            && bytes[20..22] == [0, 0]
            && bytes[30..34] == [198, 51, 100, 7]
            && bytes[22] > 1
            && bytes[34..36] == port.to_be_bytes()
    };
    let mut frames = capture.packets.into_iter().map(|packet| packet.bytes);
    let mut frame = frames.find(|bytes| is_it(bytes)).expect("the scenario has one");
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    frame
}

#[test]
fn what_plugins_do_is_told_by_name() {
    const TEST: &str = "actions in explain, trace, replay and capture";
    if !net::available(TEST) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let actor = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/actor.wat");
    let module =
        wat::parse_bytes(&fs::read(actor).expect("a file")).expect("a module").into_owned();
    fs::write(folder.path().join("actor.wasm"), module).expect("written");
    let base = config(folder.path());
    let base = base.split("[[plugin]]").next().expect("what stands before the plugin");
    let more = r#"
        [[neighbor]]
        address = "10.0.0.8"
        interface = "wan0"
        mac = "02:00:00:00:00:dd"
        [[next_hop]]
        name = "hop"
        via = "10.0.0.8"
        [[egress_tag]]
        name = "tag"
        next_hops = ["hop"]
        [[class]]
        name = "class"
        dscp = 18
        [[plugin]]
        name = "actor"
        hook = "ingress"
        grants = ["names", "transmit", "tag", "class", "mark", "mirror", "dscp", "mss", "tcp-options"]
        "#;
    let path = format!("path = \"{}/actor.wasm\"\n", folder.path().display());
    let stage = Stage::with(&format!("{base}{more}{path}"));
    let kinds: [(u16, &[&str]); 9] = [
        (5001, &["\"transmit\":\"hop\""]),
        (5002, &["\"tag\":\"tag\""]),
        (5003, &["\"class\":\"class\""]),
        (5004, &["\"dscp\":46"]),
        (5005, &["\"mss\":1000"]),
        (5006, &["\"tcp_options\":[\"window scale\",\"SACK permitted\""]),
        (5007, &["\"mark\":7", "\"mirror\":true"]),
        (5008, &["\"mss\":1000", "\"class\":\"class\"", "\"dscp\":10", "\"mirror\":true"]),
        (5009, &["\"mirror\":true", "\"plugin_reason\":\"asked\""]),
    ];
    let frames: Vec<Vec<u8>> = kinds.iter().map(|(port, _)| acted(*port)).collect();
    let mut explained = Vec::new();
    for ((port, expected), frame) in kinds.iter().zip(&frames) {
        let answer = stage.explain(&["--in", "lan0", "--hex", &hex(frame)]);
        for expected in *expected {
            assert!(packet(&answer).contains(expected), "{port}: {expected} in {answer}");
        }
        explained.push(packet(&answer));
    }

    // A replay says the same, byte for byte.
    assert_eq!(stage.replayed(&frames), explained);

    // So does a trace of live packets, while a capture gets what the plugin mirrors.
    let (capture, file) = stage.capture("actor", &[]);
    let trace = stage
        .sluice
        .command(&["trace", "--json", "--in", "lan0", "--count", "9"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    std::thread::sleep(Duration::from_secs(1));
    stage.send(&frames);
    let traced = trace.wait_with_output().expect("a trace").stdout;
    let traced: Vec<String> = String::from_utf8_lossy(&traced)
        .lines()
        .map(|line| packet(&serde_json::from_str::<Value>(line).expect("JSON")["explanation"]))
        .collect();
    assert_eq!(traced, explained);
    let output = capture.wait_with_output().expect("a capture");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let Some(comments) = fields(&file, "frame.comment") else { return };
    assert_eq!(comments.values().sum::<usize>(), 3, "three are mirrored: {comments:?}");
    let dropped = "dropped: plugin: actor: asked, mirrored by a plugin";
    assert_eq!(comments.get(dropped), Some(&1), "{comments:?}");
}
