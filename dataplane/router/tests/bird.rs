//! Routes learnt by BIRD over BGP, through the kernel, under traffic: every packet that arrives does so at a
//! next hop that its route names at that time.
//!
//! `common/feed` says how that is judged; here a second BIRD feeds the first.
//!
//! With `SLUICE_FULL_TABLE` set, and in a release build, the same is done with the whole table of
//! `SLUICE_TESTDATA/routes`, and timings are printed:
//! `SLUICE_FULL_TABLE=1 cargo test --release -p router --test bird -- --nocapture`

#[path = "common/feed/mod.rs"]
mod feed;
#[path = "common/net/mod.rs"]
mod net;
#[allow(dead_code, reason = "the differential test needs more of it")]
#[path = "differential/packet.rs"]
mod packet;

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use feed::{BACKUP, Bed, Bird, FLAPPING, Feeder, ROUTER_BIRD, Table, WITHDRAWN, has_bird, normal};
use net::{Router, wait_until};

/// A thousand route changes a second for three seconds, beside all other routes: what they cost the router.
fn thousand_changes(bed: &Bed, sluice: &Router) {
    let before = (sluice.cpu_ms(), sluice.status().routes.mirror);
    let mut ip = Command::new("ip");
    ip.args(["-n", bed.router.name(), "-batch", "-"]).stdin(Stdio::piped());
    let mut ip = ip.spawn().expect("ip runs");
    let mut pipe = ip.stdin.take().expect("a pipe");
    let start = Instant::now();
    for round in 0..60_u32 {
        let mut lines = String::new();
        for number in 0..50 {
            // Each comes and goes again.
            let verb = if round % 2 == 0 { "add" } else { "del" };
            writeln!(lines, "route {verb} 198.51.100.{number}/32 via 10.1.0.10").expect("a string");
        }
        pipe.write_all(lines.as_bytes()).expect("ip reads");
        let next = start + Duration::from_millis(50) * (round + 1);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    drop(pipe);
    assert!(ip.wait().expect("ip ends").success(), "ip -batch");
    let elapsed = start.elapsed();
    std::thread::sleep(Duration::from_millis(200));
    let after = (sluice.cpu_ms(), sluice.status().routes.mirror);
    let changes = after.1.route_changes - before.1.route_changes;
    eprintln!(
        "  {changes} changes in {elapsed:?}: {} ms of a core in all, {} publications, the last in force \
         {} us after the kernel told of it, of which {} us were the publication's",
        after.0 - before.0,
        after.1.publications - before.1.publications,
        after.1.last_delay_us,
        after.1.last_build_us
    );
    // A route that comes and goes within one gathering is not told.
    assert!(changes > 1500, "{changes} changes");
}

/// Learnt, flapped, withdrawn and learnt again, with a restart of the router in the middle.
#[track_caller]
fn run(table: &Table, addresses: usize, patience: Duration) {
    let mut bed = Bed::new();
    let sluice = bed.sluice();
    let before = sluice.status().routes;
    let traffic = bed.send_to(table, addresses);
    let start = Instant::now();
    let feeder = Feeder::start(&bed.feeder, table);
    let router_bird = Bird::start(&bed.router, &[], ROUTER_BIRD);
    let known = bed.wait_for_all(&sluice, table, &before, patience, &|| {
        [&feeder.0, &router_bird].map(|bird| bird.control(&["show", "protocols", "all"])).join("\n")
    });
    eprintln!("learnt by the feeder, BGP, BIRD, kernel and Sluice in {:?}", start.elapsed());
    eprintln!("  {known:?}");
    let rss_kib = sluice.resident_kib();
    let routes = table.v4.len() + table.v6.len();
    eprintln!(
        "  {} MiB resident in all; RIB {} bytes a route",
        rss_kib / 1024,
        known.rib_bytes / routes as u64
    );
    bed.settle(&traffic, &sluice, normal(), patience);
    let all = sluice.status().routes;

    thousand_changes(&bed, &sluice);

    // A next hop that flaps.
    let mut moved = normal();
    moved[FLAPPING] = Some(BACKUP);
    for _ in 0..2 {
        traffic.begin(normal(), moved);
        feeder.disable(FLAPPING);
        bed.settle(&traffic, &sluice, moved, patience);
        traffic.begin(moved, normal());
        feeder.enable(FLAPPING);
        bed.settle(&traffic, &sluice, normal(), patience);
    }

    // Withdrawn, and learnt again.
    let mut less = normal();
    less[WITHDRAWN] = None;
    traffic.begin(normal(), less);
    feeder.disable(WITHDRAWN);
    bed.settle(&traffic, &sluice, less, patience);
    let gone = sluice.status().routes;
    assert!(gone.v4 < all.v4 && gone.v6 < all.v6, "{gone:?}");

    // The router starts anew while the routes are learnt again.
    let steady_lost = traffic.steady_lost();
    let status = sluice.status();
    eprintln!(
        "  until the restart {steady_lost} packets of the steady flow are lost; {:?}",
        status.routes
    );
    traffic.begin(less, normal());
    feeder.enable(WITHDRAWN);
    sluice.stop();
    let restart = Instant::now();
    let sluice = bed.sluice();
    eprintln!("  restarted in {:?}", restart.elapsed());
    bed.settle(&traffic, &sluice, normal(), patience);
    wait_until("the same routes as before", patience, || {
        let again = sluice.status().routes;
        (again.v4, again.v6) == (all.v4, all.v6)
    });
    let (sent, arrived, _) = traffic.end();
    eprintln!("  {sent} packets sent, {arrived} arrived, none at a wrong next hop");
    assert!(arrived > sent / 2, "{arrived} of {sent} packets arrived");
    // Packets of the flow that no change concerns are lost by the test's own queues at most.
    assert!(steady_lost <= 5, "{steady_lost} packets of the steady flow were lost");
    sluice.assert_conserved();
}

#[test]
fn routes_of_bird_under_traffic() {
    const TEST: &str = "routes of BIRD";
    if !net::available(TEST) || !has_bird(TEST) {
        return;
    }
    let table = Table::read(300);
    run(&table, 600, Duration::from_secs(30));
}

#[test]
fn the_whole_table_of_the_internet_under_traffic() {
    const TEST: &str = "the whole table by BIRD";
    if std::env::var_os("SLUICE_FULL_TABLE").is_none() {
        eprintln!("skipped: {TEST}: SLUICE_FULL_TABLE is not set; it takes minutes and gigabytes");
        return;
    }
    if !net::available(TEST) || !has_bird(TEST) {
        return;
    }
    let table = Table::read(1);
    run(&table, 2000, Duration::from_secs(90));
}
