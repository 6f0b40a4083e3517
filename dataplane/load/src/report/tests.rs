//! Reports of documents made up for it: every number is there, nothing absent became one, and no word
//! of a document became markup.

use std::fs;

use super::{ReadError, Report, Source, read_dir, render};
use crate::document::{
    Bound, Change, ChangeTold, ChangesOutcome, Document, Latency, LatencyAt, Machine, Outcome,
    Peer, PeersOutcome, ProfileOutcome, SCHEMA, SearchOutcome, Second, Stage, Trial, TrialOutcome,
};

fn source(outcome: Outcome) -> Source {
    let machine = Machine {
        cpu: "Test CPU".to_owned(),
        cpus: 2,
        kernel: "6.18.0".to_owned(),
        platform: None,
        tsc_hz: Some(2_000_000_000),
    };
    let document = Document {
        schema: SCHEMA,
        title: "a measurement".to_owned(),
        command: "sluice bench it --twice".to_owned(),
        version: "1.2.3".to_owned(),
        started_unix_s: 1_763_676_000,
        machine,
        outcome,
    };
    Source { file: "it.json".to_owned(), document }
}

fn bound(lower_pps: Option<f64>, upper_pps: Option<f64>) -> Bound {
    Bound {
        lower_pps,
        upper_pps,
        forwarded_pps: lower_pps.map(|rate| rate - 1000.0),
        trial_s: 1.0,
        trials_s: 21.0,
        is_conclusive: true,
        ..Bound::default()
    }
}

fn search(ndr: Bound, pdr: Bound) -> SearchOutcome {
    SearchOutcome {
        subject: "sluice".to_owned(),
        traffic: "60 B, 100 flows, IPv4".to_owned(),
        frame_bytes: Some(60),
        placement: Some("router on CPU 1".to_owned()),
        ndr,
        pdr: Bound { loss_ratio_max: 0.005, ..pdr },
        latency: Vec::new(),
        trials: Vec::new(),
        notes: Vec::new(),
    }
}

fn both() -> (Bound, Bound) {
    (bound(Some(1.234e6), Some(1.241e6)), bound(Some(1.345e6), Some(1.352e6)))
}

fn report(outcomes: Vec<Outcome>) -> Report {
    render(&outcomes.into_iter().map(source).collect::<Vec<_>>()).expect("a report")
}

/// The markup without drawings, whose coordinates are numbers too.
fn without_drawings(html: &str) -> String {
    let mut parts = html.split("<svg");
    let mut out = parts.next().unwrap_or_default().to_owned();
    out.extend(parts.filter_map(|part| part.split_once("</svg>")).map(|(_, rest)| rest));
    out
}

#[track_caller]
fn says(report: &Report, words: &[&str]) {
    for word in words {
        let escaped = word.replace('>', "&gt;").replace('<', "&lt;");
        assert!(report.html.contains(&escaped), "page without {word:?}");
        assert!(
            report.markdown.contains(&escaped),
            "Markdown without {word:?}:\n{}",
            report.markdown
        );
    }
}

#[test]
fn a_search_is_told_with_its_command_and_place() {
    let (ndr, pdr) = both();
    let latency = Latency {
        count: 500,
        min_ns: 7_100,
        p50_ns: 8_200,
        p99_ns: 93_000,
        p999_ns: 104_000,
        max_ns: 215_000,
    };
    let idle = LatencyAt {
        load: "idle".to_owned(),
        rate_pps: 1e3,
        latency,
        p50_over_idle_ns: None,
        p99_over_idle_ns: None,
    };
    let half = LatencyAt {
        load: "50 %".to_owned(),
        rate_pps: 617e3,
        p50_over_idle_ns: Some(3_300),
        p99_over_idle_ns: Some(-4_400),
        ..idle.clone()
    };
    let search = SearchOutcome { latency: vec![idle, half], ..search(ndr, pdr) };
    let report = report(vec![Outcome::Search(search)]);
    says(
        &report,
        &[
            "1.234 to 1.241",
            "1.233",
            "1.345 to 1.352",
            "1.344",
            "100 flows, IPv4; router on CPU 1",
            "sluice bench it --twice",
            "it.json; sluice 1.2.3; 2025-11-20 22:00 UTC; Test CPU, 2 CPUs, Linux 6.18.0",
            "7.10",
            "8.20",
            "93.0",
            "104",
            "215",
            "+3.30",
            "-4.40",
            "0.6170",
        ],
    );
    assert_eq!(report.html.matches("<figure>").count(), 2, "throughput and latency");
    assert!(!report.html.contains("Ratio to peers"), "a section without data");
    assert!(!report.markdown.contains("Single runs"), "a section without data");
}

#[test]
fn one_sided_and_missing_bounds_are_never_zero() {
    let report = report(vec![
        Outcome::Search(search(bound(None, Some(2e5)), bound(Some(3e6), None))),
        Outcome::Search(SearchOutcome {
            frame_bytes: None,
            traffic: "IMIX, 100 flows, IPv4".to_owned(),
            ..search(bound(None, None), bound(Some(f64::NAN), Some(f64::INFINITY)))
        }),
    ]);
    says(
        &report,
        &["< 0.2000", "> 3.000", "not met at the lowest", "met at the highest", "not found"],
    );
    let words = without_drawings(&report.html);
    assert!(!words.contains("NaN") && !words.contains("inf "), "{words}");
    assert!(!report.html.contains("NaN"), "a coordinate that is no number");
    for cell in [">0<", ">0.000<", "| 0 |"] {
        assert!(!words.contains(cell) && !report.markdown.contains(cell), "{cell}");
    }
}

#[test]
fn doubtful_and_void_trials_are_marked() {
    let void = Trial { void: vec!["the link went down".to_owned()], ..Trial::default() };
    let limited = Trial { is_generator_limited: true, asked_pps: Some(1e6), ..Trial::default() };
    let (ndr, pdr) = both();
    let mixed = SearchOutcome {
        trials: vec![void.clone(), limited],
        ..search(Bound { is_conclusive: false, ..ndr }, pdr)
    };
    let all_void = SearchOutcome {
        trials: vec![void.clone()],
        frame_bytes: Some(999),
        ..search(bound(Some(7.77e6), Some(7.88e6)), pdr)
    };
    let single = TrialOutcome {
        traffic: "60 B".to_owned(),
        trial: Trial { sent: 1000, received: 900, lost: 100, duration_s: 1.0, ..void },
        seconds: [1.0, 2.0, 2.3].map(|at_s| Second { at_s, sent: 500, received: 450 }).to_vec(),
    };
    let report =
        report(vec![Outcome::Search(mixed), Outcome::Search(all_void), Outcome::Trial(single)]);
    says(
        &report,
        &[
            "inconclusive",
            "generator-limited",
            "void",
            "1 of 2 trials: the link went down",
            "no result",
        ],
    );
    let summary = report.html.split("Throughput by frame size").next().unwrap_or_default();
    assert!(!summary.contains("7.77"), "a void search in the summary");
    // One drawing, of the search that is not void.
    assert_eq!(report.html.matches("<figure>").count(), 1);
}

#[test]
fn void_trials_are_told_by_kind() {
    let trial = |reason: &str| Trial { void: vec![reason.to_owned()], sent: 1, ..Trial::default() };
    let trials = vec![
        trial("held up for 12 ms"),
        trial("held up for 9 ms"),
        trial("the link went down"),
        Trial { sent: 1, ..Trial::default() },
    ];
    let search = SearchOutcome { trials, ..search(both().0, both().1) };
    let report = report(vec![Outcome::Search(search)]);
    says(&report, &["3 of 4 trials: held up for 12 ms; the link went down"]);
}

/// What is behind the last whole second holds the wait for stragglers: as a point it would be a fall
/// of the rate.
#[test]
fn the_rest_of_a_second_is_no_point_of_a_figure() {
    let drawn = |at_s: &[f64]| {
        let second = |&at_s: &f64| Second { at_s, sent: 500, received: 450 };
        let single = TrialOutcome {
            traffic: "60 B".to_owned(),
            trial: Trial {
                sent: 1000,
                received: 900,
                lost: 100,
                duration_s: at_s.iter().copied().fold(0.0, f64::max),
                late_max_ns: Some(2_000_000),
                ..Trial::default()
            },
            seconds: at_s.iter().map(second).collect(),
        };
        report(vec![Outcome::Trial(single)])
    };
    assert_eq!(drawn(&[1.0, 1.3]).html.matches("<figure>").count(), 0);
    let (whole, rest) = (drawn(&[1.0, 2.0]), drawn(&[1.0, 2.0, 2.3]));
    let svg = |report: &Report| {
        let figure = report.html.split("<figure>").nth(1).expect("a figure").to_owned();
        figure.split("</svg>").next().expect("a drawing").to_owned()
    };
    assert_eq!(svg(&whole), svg(&rest));
    says(&whole, &["up to 2,000 µs after they were due"]);
}

#[test]
fn repetitions_become_a_median_and_other_versions_do_not() {
    let at = |rate: f64| Outcome::Search(search(bound(Some(rate), Some(rate + 1e4)), both().1));
    let sources: Vec<Source> = [1.0e6, 1.5e6, 1.1e6].into_iter().map(at).map(source).collect();
    let text = render(&sources).expect("a report").markdown;
    assert!(text.contains("NDR 1.100 Mpps (median of 3 runs, 1.000 to 1.500)"), "{text}");

    let mut versions = sources;
    versions[1].document.version = "2.0.0".to_owned();
    let text = render(&versions).expect("a report").markdown;
    assert!(text.contains("sluice (2.0.0)"), "{text}");
    assert!(text.contains("median of 2 runs, 1.000 to 1.100"), "{text}");
}

#[test]
fn machines_are_kept_apart() {
    let mut sources = vec![source(Outcome::Search(search(both().0, both().1))); 2];
    sources[1].document.machine.kernel = "5.10.0".to_owned();
    // A clock that was calibrated a little differently is the same machine.
    let mut third = sources[0].clone();
    third.document.machine.tsc_hz = Some(2_000_000_017);
    sources.push(third);
    let report = render(&sources).expect("a report");
    says(&report, &["not to be compared", "Linux 5.10.0", "median of 2 runs"]);
    assert_eq!(report.html.matches("<h2>").count(), 2);
}

#[test]
fn a_profile_adds_up() {
    let stage = |name: &str, clocks_per_packet| Stage { name: name.to_owned(), clocks_per_packet };
    let profile = ProfileOutcome {
        subject: "one route".to_owned(),
        tsc_hz: 2_000_000_000,
        packets: 1_234_567,
        batch_mean: 31.5,
        stages: vec![stage("parse", 12.5), stage("transmit", 87.5)],
    };
    let broken = ProfileOutcome {
        subject: "broken".to_owned(),
        stages: vec![stage("parse", f64::NAN)],
        ..profile.clone()
    };
    let report = report(vec![Outcome::Profile(profile), Outcome::Profile(broken)]);
    says(
        &report,
        &["12.5", "87.5", "100 clocks (50.0 ns) a packet", "1,234,567", "31.5", "no result"],
    );
    assert!(!report.html.contains("NaN") && !report.markdown.contains("NaN"));
}

fn change(name: &str) -> Change {
    Change {
        name: name.to_owned(),
        load: 0.5,
        offered_pps: 1e6,
        duration_s: 10.0,
        times: 10,
        lost: vec![210, 230, 250],
        control_lost: vec![0, 10, 20],
        blocked_us: 23.0,
        control_blocked_us: 1.0,
        router: None,
        skipped: None,
    }
}

#[test]
fn changes_stand_beside_their_control() {
    let changes = vec![
        change("plugin reload"),
        Change {
            lost: vec![15, 16, 30],
            blocked_us: 1.6,
            router: Some(ChangeTold {
                longest_turn_us: Some(4100.0),
                swap_us: Some(1.25),
                live_us: Some(712_000.0),
                ..ChangeTold::default()
            }),
            ..change("quiet change")
        },
        Change {
            skipped: Some("needs two nodes".to_owned()),
            lost: Vec::new(),
            control_lost: Vec::new(),
            blocked_us: 0.0,
            control_blocked_us: 0.0,
            times: 0,
            ..change("takeover")
        },
    ];
    let outcome = ChangesOutcome {
        subject: "sluice".to_owned(),
        traffic: "60 B".to_owned(),
        ndr_pps: 2e6,
        changes,
    };
    let report = report(vec![Outcome::Changes(outcome)]);
    says(
        &report,
        &[
            "23.0 µs a change; control 1.00 µs",
            "21.0 to 25.0",
            "210; 230; 250",
            "within control",
            "longest turn, µs",
            "4,100",
            "1.25",
            "712",
            "needs two nodes",
        ],
    );
    let told = "4,100 | – | 1.25 | 712 |";
    assert!(report.markdown.contains(told), "{}", report.markdown);
    let takeover = report.markdown.lines().filter(|line| line.contains("| takeover |"));
    for line in takeover {
        assert!(!line.contains("| 0 |"), "a number of what was skipped: {line}");
    }
}

fn peer(name: &str, placement: &str, rate_pps: f64, ratio: Option<f64>) -> Peer {
    Peer {
        name: name.to_owned(),
        version: None,
        placement: placement.to_owned(),
        rate_pps: vec![rate_pps * 0.9, rate_pps, rate_pps * 1.1],
        rate_is: "NDR".to_owned(),
        latency: None,
        sluice_over_peer: ratio,
        ratio_spread: ratio.map(|ratio| (ratio * 0.9, ratio * 1.1)),
        skipped: None,
    }
}

#[test]
fn ratios_hold_within_a_placement_only() {
    let skipped = Peer {
        rate_pps: Vec::new(),
        skipped: Some("vpp is not installed".to_owned()),
        ..peer("vpp", "apart", 0.0, Some(9.87))
    };
    let peers = vec![
        peer("sluice", "apart", 2e6, None),
        peer("linux", "apart", 1e6, Some(2.0)),
        skipped,
        peer("linux", "together", 1e6, Some(7.65)),
    ];
    let outcome = PeersOutcome { traffic: "60 B".to_owned(), peers };
    let report = report(vec![Outcome::Peers(outcome)]);
    says(
        &report,
        &[
            "2.00 (1.80 to 2.20)",
            "0.9000 to 1.100",
            "Skipped: vpp: vpp is not installed",
            "ratio left out",
        ],
    );
    for number in ["7.65", "9.87"] {
        assert!(!report.html.contains(number) && !report.markdown.contains(number), "{number}");
    }
}

/// A peer that forwards all that the tester offers is still compared, with a word on that.
#[test]
fn a_rate_that_the_tester_limits_keeps_its_ratio() {
    let limited = Peer {
        rate_is: "forwarded at full load; at least this, the tester reached no more".to_owned(),
        ..peer("linux", "apart", 2e6, Some(0.5))
    };
    let full = |peer: Peer| Peer { rate_is: "forwarded at full load".to_owned(), ..peer };
    let peers = vec![
        full(peer("sluice", "apart", 1e6, None)),
        limited,
        peer("nftables", "apart", 1e6, Some(8.76)),
    ];
    let outcome = PeersOutcome { traffic: "60 B".to_owned(), peers };
    let report = report(vec![Outcome::Peers(outcome)]);
    says(&report, &["0.500 (0.450 to 0.550)", "generator-limited", "the tester reached no more"]);
    assert!(!report.html.contains("8.76"), "a ratio of rates of two kinds");
}

/// Of a control that mostly lost nothing, a logarithmic figure shows at least the worst.
#[test]
fn whiskers_that_begin_at_zero_are_drawn() {
    let whiskers = |control_lost: Vec<u64>| {
        let change = Change { control_lost, control_blocked_us: 0.0, ..change("reload") };
        let slow =
            Change { lost: vec![900_000; 3], blocked_us: 90_000.0, ..self::change("restart") };
        let outcome = ChangesOutcome {
            subject: "sluice".to_owned(),
            traffic: "60 B".to_owned(),
            ndr_pps: 2e6,
            changes: vec![change, slow],
        };
        report(vec![Outcome::Changes(outcome)]).html.matches("<polyline").count()
    };
    assert_eq!(whiskers(vec![0, 0, 2000]), whiskers(vec![0, 0, 0]) + 2);
}

#[test]
fn words_of_a_document_are_words_only() {
    let evil = "</td><script>alert(1)</script> | `x` &amp; \"q\" \u{7}";
    let (ndr, pdr) = both();
    let mut sources = vec![
        source(Outcome::Search(SearchOutcome {
            subject: evil.to_owned(),
            traffic: evil.to_owned(),
            placement: Some(evil.to_owned()),
            notes: vec![evil.to_owned()],
            trials: vec![
                Trial { void: vec![evil.to_owned()], ..Trial::default() },
                Trial::default(),
            ],
            ..search(ndr, pdr)
        })),
        source(Outcome::Profile(ProfileOutcome {
            subject: evil.to_owned(),
            tsc_hz: 0,
            packets: 1,
            batch_mean: 1.0,
            stages: vec![Stage { name: evil.to_owned(), clocks_per_packet: 1.0 }],
        })),
        source(Outcome::Peers(PeersOutcome {
            traffic: evil.to_owned(),
            peers: vec![peer(evil, evil, 1e6, None)],
        })),
    ];
    for source in &mut sources {
        source.file = evil.to_owned();
        source.document.title = evil.to_owned();
        source.document.command = evil.to_owned();
        source.document.version = evil.to_owned();
        source.document.machine.cpu = evil.to_owned();
    }
    let report = render(&sources).expect("a report");
    assert!(!report.html.contains("<script"), "markup of a document in the page");
    assert!(report.html.contains("default-src 'none'"), "the page may load something");
    for line in report.markdown.lines() {
        // Code spans hold text as it is; everything else is escaped.
        let outside: String = line.split("`` ").step_by(2).collect();
        assert!(!outside.contains("<script"), "markup in Markdown: {line}");
    }
    let tables = report.markdown.split("\n\n").filter(|part| part.starts_with("| "));
    for table in tables {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let first = table.lines().next().map(cells);
        assert!(table.lines().all(|line| Some(cells(line)) == first), "a ragged table:\n{table}");
    }
}

#[test]
fn extremes_are_drawn_without_a_panic() {
    let odd = [0.0, -1.0, f64::MIN_POSITIVE, f64::MAX, f64::NAN, f64::INFINITY];
    let mut outcomes = Vec::new();
    for value in odd {
        outcomes.push(Outcome::Search(search(bound(Some(value), Some(value)), bound(None, None))));
        outcomes.push(Outcome::Profile(ProfileOutcome {
            subject: outcomes.len().to_string(),
            tsc_hz: u64::MAX,
            packets: 0,
            batch_mean: value,
            stages: vec![Stage { name: String::new(), clocks_per_packet: value }],
        }));
        outcomes.push(Outcome::Peers(PeersOutcome {
            traffic: String::new(),
            peers: vec![peer("sluice", "", value, None), peer("other", "", 1.0, Some(value))],
        }));
        outcomes.push(Outcome::Changes(ChangesOutcome {
            subject: String::new(),
            traffic: String::new(),
            ndr_pps: value,
            changes: vec![Change {
                blocked_us: value,
                offered_pps: value,
                load: value,
                ..change("x")
            }],
        }));
        outcomes.push(Outcome::Trial(TrialOutcome {
            traffic: String::new(),
            trial: Trial { duration_s: value, ..Trial::default() },
            seconds: vec![Second { at_s: value, sent: u64::MAX, received: 0 }; 2],
        }));
    }
    let report = report(outcomes);
    assert!(!report.html.contains("NaN"), "a coordinate that is no number");
}

#[test]
fn every_bad_file_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(read_dir(folder.path()), Err(ReadError::Empty(_))));
    assert!(matches!(read_dir(&folder.path().join("none")), Err(ReadError::Folder { .. })));
    let (ndr, pdr) = both();
    let good = source(Outcome::Search(search(ndr, pdr))).document;
    let write = |name: &str, text: &str| {
        fs::write(folder.path().join(name), text).expect("a file");
    };
    let text = serde_json::to_string(&good).expect("JSON");
    write("good.json", &text);
    write("notes.txt", "not looked at");
    assert_eq!(read_dir(folder.path()).expect("documents").len(), 1);
    write("a.json", "{");
    write("b.json", &text.replace("\"schema\":1", "\"schema\":7"));
    write("c.json", &text.replace("1234000.0", "null").replace("21.0", "null"));
    let said = read_dir(folder.path()).expect_err("bad files").to_string();
    for words in
        ["3 files are not", "a.json: EOF", "b.json: schema 7", "c.json: invalid type: null"]
    {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    assert!(!said.contains("good.json"), "{said}");
}
