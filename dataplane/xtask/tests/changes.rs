//! A change is measured on real routers: reloads are made while packets are sent, counted, and told
//! in the shape that the report reads. No speed is asserted. Skips without root.

use std::path::{Path, PathBuf};
use std::time::Duration;

use load::document::{Document, Outcome};
use xtask::changes::kind::Kind;
use xtask::changes::report::Report;
use xtask::changes::rounds::{Plan, Rounds};
use xtask::changes::traffic::Search;
use xtask::lab::Binaries;

/// What any machine offers and forwards without loss, in packets per second.
const RATE_PPS: f64 = 20_000.0;

/// Reloads in a run of two seconds, but for its margin.
const RELOADS_MAX: u32 = 9;

#[test]
fn reloads_under_traffic_are_counted_and_told() {
    const TEST: &str = "reloads_under_traffic_are_counted_and_told";
    if let Err(error) = xtask::lab::probe() {
        eprintln!("SKIPPED {TEST}: {error:#}");
        return;
    }
    // They would be built, and cargo is at work already.
    let given = |name| std::env::var_os(name).map(PathBuf::from);
    let (Some(sluice), Some(plugins)) = (given("SLUICE_ROUTER"), given("SLUICE_PLUGINS")) else {
        eprintln!("SKIPPED {TEST}: run by `cargo xtask test`, which builds a router");
        return;
    };
    let binaries = Binaries { sluice, filter: plugins.join("filter.wasm") };
    let plan = Plan {
        kinds: vec![Kind::ConfigurationReload],
        loads: vec![1.0],
        runs: 1,
        duration: Duration::from_secs(2),
        ndr_pps: Some(RATE_PPS),
        search: Search::SHORT,
    };
    let outcome = Rounds::new(&binaries).expect("two cores").run(&plan);
    let row = outcome.rows().next().expect("a row").clone();
    if let Some(reason) = row.skipped.as_ref().filter(|reason| reason.contains("void runs")) {
        eprintln!("SKIPPED {TEST}: this machine is too busy to send at a steady rate: {reason}");
        return;
    }
    assert_eq!(row.skipped, None);
    // On a busy machine a reload may take longer than its share of the run.
    assert!((1..=RELOADS_MAX).contains(&row.times[0]), "{row:?}");
    assert_eq!((row.times.len(), row.lost.len(), row.control_lost.len()), (1, 1, 1));
    if row.control_lost[0] == 0 {
        // Workers change tables between two turns: a reload itself has nothing to lose. The bound is
        // for what a machine does beside it.
        assert!(row.lost[0] <= 100, "{} packets lost by {} reloads", row.lost[0], row.times[0]);
    }

    let documents = Report { outcome: &outcome, sluice: &binaries.sluice }.documents();
    let [(name, document)] = &documents[..] else { panic!("one document is expected") };
    assert_eq!(Path::new(name).extension().and_then(|it| it.to_str()), Some("json"));
    let document = Document::parse(&document.to_string()).expect("its shape");
    assert!(!document.version.is_empty() && !document.machine.kernel.is_empty());
    let Outcome::Changes(changes) = document.outcome else { panic!("changes are expected") };
    assert!(changes.traffic.contains("10000 flows"), "{}", changes.traffic);
    let change = &changes.changes[0];
    assert_eq!((change.times, &change.lost), (row.times[0], &row.lost));
    assert_eq!(change.control_lost, row.control_lost);
    assert!((change.offered_pps - RATE_PPS).abs() < 1.0);
}
