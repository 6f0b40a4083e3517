//! `sluice bench report` as it is run, and how its page lies on a screen (with headless Chromium, if
//! there is one).

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use load::document::{
    Bound, Change, ChangesOutcome, Document, Latency, LatencyAt, Machine, Outcome, Peer,
    PeersOutcome, ProfileOutcome, SCHEMA, SearchOutcome, Second, Stage, Trial, TrialOutcome,
};

fn report(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.args(["bench", "report"]).arg(dir).output().expect("the binary can be run")
}

fn write(dir: &Path, name: &str, outcome: Outcome) {
    let machine = Machine {
        cpu: "A Processor With Rather a Long Name @ 3.00GHz".to_owned(),
        cpus: 2,
        kernel: "6.18.0-cloud-amd64".to_owned(),
        platform: Some("a virtual machine".to_owned()),
        tsc_hz: Some(2_600_000_000),
    };
    let document = Document {
        schema: SCHEMA,
        title: format!("Measurement {name}"),
        command: format!("sluice bench {name} --with {}", "a-very-long-word-".repeat(9)),
        version: "0.1.0".to_owned(),
        started_unix_s: 1_763_676_000,
        machine,
        outcome,
    };
    let text = serde_json::to_string_pretty(&document).expect("JSON");
    fs::write(dir.join(format!("{name}.json")), text).expect("a file");
}

const LONG: &str = "a name that is longer than there is room for beside a figure";

/// One document of each kind, with words and numbers longer than usual.
fn write_all(dir: &Path) {
    let trial = Trial {
        asked_pps: Some(12_345_678.9),
        duration_s: 10.0,
        sent: 123_456_789,
        received: 123_450_000,
        lost: 6_789,
        void: vec!["the neighbor's address changed while the trial ran".to_owned()],
        ..Trial::default()
    };
    let latency = |p50_ns: u64| Latency {
        count: 1_000_000,
        min_ns: p50_ns / 2,
        p50_ns,
        p99_ns: p50_ns * 40,
        p999_ns: p50_ns * 900,
        max_ns: p50_ns * 4_000,
    };
    for (subject, rate) in [("sluice", 11.2e6), ("linux", 0.81e6), (LONG, 5e6)] {
        for frame_bytes in [Some(60), Some(124), Some(508), Some(1020), Some(1514), None] {
            let bound = |rate: f64, loss_ratio_max| Bound {
                loss_ratio_max,
                lower_pps: Some(rate),
                upper_pps: (frame_bytes != Some(508)).then_some(rate * 1.2),
                forwarded_pps: Some(rate),
                trial_s: 1.0,
                trials_s: 21.0,
                goal_trials_s: 60.0,
                is_conclusive: frame_bytes != Some(1020),
                ..Bound::default()
            };
            let at = |load: &str, p50_ns| LatencyAt {
                load: load.to_owned(),
                rate_pps: rate,
                latency: latency(p50_ns),
                p50_over_idle_ns: Some(12_345_678),
                p99_over_idle_ns: Some(-12_345_678),
            };
            let size = frame_bytes.map_or_else(|| "IMIX".to_owned(), |bytes| format!("{bytes} B"));
            let outcome = SearchOutcome {
                subject: subject.to_owned(),
                traffic: format!("{size}, 10000 flows, IPv4"),
                frame_bytes,
                placement: Some("router on CPU 1, tester on CPU 0".to_owned()),
                ndr: bound(rate, 0.0),
                pdr: bound(rate * 1.1, 0.005),
                latency: vec![at("idle", 900), at("50 %", 9_000), at("90 %", 90_000)],
                trials: vec![trial.clone(), Trial { void: Vec::new(), ..trial.clone() }],
                notes: vec!["A note on how the search went.".to_owned()],
            };
            let subject = subject.split(' ').next().unwrap_or_default();
            write(dir, &format!("search-{subject}-{frame_bytes:?}"), Outcome::Search(outcome));
        }
    }
    let stage = |name: &str, clocks_per_packet| Stage { name: name.to_owned(), clocks_per_packet };
    let profile = ProfileOutcome {
        subject: LONG.to_owned(),
        tsc_hz: 2_600_000_000,
        packets: 123_456_789,
        batch_mean: 31.4,
        stages: vec![stage("parse", 12.3), stage(LONG, 1234.5), stage("transmit", 0.004)],
    };
    write(dir, "profile", Outcome::Profile(profile));
    let change = |name: &str, blocked_us| Change {
        name: name.to_owned(),
        load: 0.9,
        offered_pps: 1e6,
        duration_s: 10.0,
        times: 10,
        lost: vec![123_456, 234_567, 345_678],
        control_lost: vec![0, 0, 1],
        blocked_us,
        control_blocked_us: 0.0,
        router: None,
        skipped: None,
    };
    let changes = ChangesOutcome {
        subject: "sluice".to_owned(),
        traffic: "60 B".to_owned(),
        ndr_pps: 1.1e6,
        changes: vec![change("plugin reload", 23_456.7), change(LONG, 1.0)],
    };
    write(dir, "changes", Outcome::Changes(changes));
    let peer = |name: &str, rate: f64, ratio: Option<f64>| Peer {
        name: name.to_owned(),
        version: Some("6.18".to_owned()),
        placement: "router on CPU 1, tester on CPU 0".to_owned(),
        rate_pps: vec![rate, rate * 1.1, rate * 0.9],
        rate_is: "forwarded at full load".to_owned(),
        latency: Some(latency(9_000)),
        sluice_over_peer: ratio,
        ratio_spread: ratio.map(|ratio| (ratio * 0.8, ratio * 1.2)),
        skipped: None,
    };
    let peers = PeersOutcome {
        traffic: "60 B".to_owned(),
        peers: vec![
            peer("sluice", 1e6, None),
            peer("linux", 0.8e6, Some(1.25)),
            peer(LONG, 0.01e6, Some(100.0)),
            Peer {
                skipped: Some("it is not installed".to_owned()),
                rate_pps: Vec::new(),
                ..peer("another", 0.0, None)
            },
        ],
    };
    write(dir, "peers", Outcome::Peers(peers));
    let single = TrialOutcome {
        traffic: "60 B, 10000 flows, IPv4".to_owned(),
        trial: Trial { void: Vec::new(), latency: Some(latency(9_000)), ..trial },
        seconds: (1..=10)
            .map(|s| Second { at_s: f64::from(s), sent: 12_345_678, received: 12_345_000 })
            .collect(),
    };
    write(dir, "trial", Outcome::Trial(single));
}

#[test]
fn writes_both_files_beside_the_documents() {
    let dir = tempfile::tempdir().expect("a folder");
    write_all(dir.path());
    let output = report(dir.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("report.html") && said.contains("report.md"), "{said}");
    let page = fs::read_to_string(dir.path().join("report.html")).expect("the page");
    let text = fs::read_to_string(dir.path().join("report.md")).expect("the text");
    for section in [
        "Throughput by frame size",
        "Latency by load",
        "Clocks a packet by stage",
        "Time blocked by changes",
        "Ratio to peers",
        "Single runs",
    ] {
        assert!(page.contains(section), "page without {section:?}");
        assert!(text.contains(&format!("### {section}")), "Markdown without {section:?}");
    }
    for foreign in ["http://", "https://", "<script", "<link", "<img", "@import", "url("] {
        let page = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!page.contains(foreign), "the page is not self-contained: {foreign}");
    }
    // The second run reads the same documents: what it wrote is none of them.
    assert!(report(dir.path()).status.success());
}

#[test]
fn refuses_what_is_not_a_document() {
    let dir = tempfile::tempdir().expect("a folder");
    write_all(dir.path());
    fs::write(dir.path().join("first.json"), "7").expect("a file");
    fs::write(dir.path().join("second.json"), "{\"schema\": 1}").expect("a file");
    let output = report(dir.path());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("first.json: invalid type") && said.contains("second.json: "), "{said}");
    assert!(!dir.path().join("report.html").exists(), "a report of half of the documents");
    assert!(!said.contains("peers.json"), "{said}");
}

/// Runs in the page around the report: what sticks out of the page, what sticks out of its drawing,
/// and which words of a drawing cover each other. Boxes that scroll by themselves may hold more than
/// they show.
const LOOK: &str = r#"
const view = document.getElementById("view");
view.onload = () => {
  const inner = view.contentDocument, root = inner.documentElement, faults = [];
  if (inner.querySelectorAll(".plot svg").length < 6) faults.push("drawings are missing");
  if (root.scrollWidth > root.clientWidth)
    faults.push(`page ${root.scrollWidth} wide on ${root.clientWidth}`);
  for (const element of inner.body.querySelectorAll("*")) {
    if (element.closest(".wide") && !element.matches(".wide")) continue;
    if (element.getBoundingClientRect().right > root.clientWidth + 1)
      faults.push(`<${element.localName}> sticks out: ${element.textContent.slice(0, 40)}`);
  }
  for (const drawing of inner.querySelectorAll(".plot svg")) {
    const frame = drawing.getBoundingClientRect();
    const words = [...drawing.querySelectorAll("text")]
      .map(text => [text.textContent.trim(), text.getBoundingClientRect()]);
    words.forEach(([word, box], at) => {
      if (box.left < frame.left - 1 || box.right > frame.right + 1
          || box.top < frame.top - 1 || box.bottom > frame.bottom + 1)
        faults.push(`"${word}" is clipped`);
      for (const [other, there] of words.slice(at + 1))
        if (box.left < there.right - 1 && there.left < box.right - 1
            && box.top < there.bottom - 3 && there.top < box.bottom - 3)
          faults.push(`"${word}" covers "${other}"`);
    });
  }
  document.getElementById("verdict").textContent = "LOOKED " + (faults.join("; ") || "FINE");
};
"#;

#[test]
fn fits_screens_of_any_width() {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok();
    let Some(chromium) = names.iter().find(runs) else {
        eprintln!("skipped: the look of the page, since there is no Chromium");
        return;
    };
    let dir = tempfile::tempdir().expect("a folder");
    write_all(dir.path());
    assert!(report(dir.path()).status.success());
    let page = fs::read_to_string(dir.path().join("report.html")).expect("the page");
    let quoted = page.replace('&', "&amp;").replace('"', "&quot;");
    for width in [320, 400, 800, 1280] {
        // The page goes into the frame as text of an attribute: the frame then shares its origin with
        // the script that looks at it, which it would not as a file.
        let around = format!(
            "<!doctype html><meta charset=utf-8><p id=verdict>NOT LOOKED</p>\
             <iframe id=view style=\"width:{width}px;height:4000px;border:0\" \
             data-page=\"{quoted}\"></iframe>\
             <script>{LOOK}view.srcdoc = view.dataset.page;</script>",
        );
        let file = dir.path().join("around.html");
        fs::write(&file, around).expect("a file");
        let output = Command::new(chromium)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"])
            .args(["--disable-background-networking", "--disable-component-update"])
            .args(["--disable-sync", "--virtual-time-budget=10000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", dir.path().join("profile").display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .expect("Chromium can be run");
        let dom = String::from_utf8_lossy(&output.stdout);
        let verdict = dom.split("id=\"verdict\">").nth(1).and_then(|rest| rest.split('<').next());
        assert_eq!(
            verdict,
            Some("LOOKED FINE"),
            "{width} pixels wide; Chromium said: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
