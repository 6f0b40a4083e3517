//! Routes learnt from ExaBGP, which sends what a script says and keeps no table of its own: attributes that
//! change although the next hop does not, next hops that do, routes withdrawn and announced again, and a
//! feeder that is killed. `common/feed` says how it is judged where packets arrive.
//!
//! With `SLUICE_FULL_TABLE` set, and in a release build, the same is done with the whole table, and
//! timings are printed:
//! `SLUICE_FULL_TABLE=1 cargo test --release -p router --test exabgp -- --nocapture`

#[path = "common/feed/mod.rs"]
mod feed;
#[path = "common/net/mod.rs"]
mod net;
#[allow(dead_code, reason = "the differential test needs more of it")]
#[path = "differential/packet.rs"]
mod packet;

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use feed::{
    BACKUP, Bed, Bird, FLAPPING, GROUPS, Groups, ROUTER_BIRD, Table, WITHDRAWN, has_bird, normal,
};
use ipnet::IpNet;
use net::{Namespace, wait_until};

/// Without a feeder no group has a route.
const NOTHING: Groups = [None; GROUPS];

/// Prefixes that one line announces. ExaBGP makes few messages of them, as a feed of the Internet has many
/// prefixes with the same attributes.
const PREFIXES_PER_LINE: usize = 200;

/// Two sessions, one of each family, that send what is appended to a file.
const CONFIG: &str = "
process feed { run /usr/bin/tail -n +1 -f FOLDER/feed; encoder text; }
neighbor 10.9.0.1 {
    router-id 10.9.0.2; local-address 10.9.0.2; local-as 64501; peer-as 64500;
    family { ipv4 unicast; }
    api { processes [ feed ]; }
}
neighbor 2001:db8:9::1 {
    router-id 10.9.0.2; local-address 2001:db8:9::2; local-as 64501; peer-as 64500;
    family { ipv6 unicast; }
    api { processes [ feed ]; }
}
";

/// An ExaBGP in a namespace.
struct ExaBgp {
    child: Child,
    folder: tempfile::TempDir,
    feed: File,
}

impl ExaBgp {
    /// `pace` is the length of its loop's pauses, in hundredths of a second; it sends some hundred routes
    /// in each round. Without pauses it keeps a core busy.
    fn start(namespace: &Namespace, pace: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let feed = File::create(path.join("feed")).expect("a file");
        let config = CONFIG.replace("FOLDER", path.to_str().expect("UTF-8"));
        fs::write(path.join("exabgp.conf"), config).expect("a file");
        let log = File::create(path.join("log")).expect("a file");
        let mut command = Command::new("exabgp");
        command
            .arg(path.join("exabgp.conf"))
            .envs([
                // Its folder belongs to the test's user.
                ("exabgp.daemon.user", "root"),
                ("exabgp.api.ack", "false"),
                ("exabgp.api.cli", "false"),
                ("exabgp.log.level", "CRIT"),
                ("exabgp.reactor.speed", pace),
            ])
            .current_dir(path)
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        Self { child: namespace.spawn(&mut command), folder, feed }
    }

    /// Announces the routes of a group by a next hop. `version` shows in attributes that decide nothing here.
    fn announce(&mut self, table: &Table, group: usize, hop: u8, version: u32) {
        let attributes = format!(
            "origin igp as-path [ 64501{} ] med {version} community [ 64501:{version} ]",
            " 64502".repeat(version as usize % 3)
        );
        self.say("announce", table, group, hop, &attributes);
    }

    fn withdraw(&mut self, table: &Table, group: usize) {
        self.say("withdraw", table, group, group as u8, "");
    }

    fn say(&mut self, verb: &str, table: &Table, group: usize, hop: u8, attributes: &str) {
        let (v4, v6): (Vec<IpNet>, Vec<IpNet>) =
            table.of_group(group).partition(|prefix| matches!(prefix, IpNet::V4(_)));
        let hop6 = 0x10 + u32::from(hop);
        let mut lines = String::new();
        for (prefixes, next_hop) in
            [(v4, format!("10.1.0.{}", 10 + hop)), (v6, format!("2001:db8:1::{hop6:x}"))]
        {
            for some in prefixes.chunks(PREFIXES_PER_LINE) {
                write!(lines, "{verb} attributes next-hop {next_hop} {attributes} nlri")
                    .expect("a string");
                for prefix in some {
                    write!(lines, " {prefix}").expect("a string");
                }
                lines.push('\n');
            }
        }
        self.feed.write_all(lines.as_bytes()).expect("a file");
    }
}

impl Drop for ExaBgp {
    /// Killed, as far as its neighbors can tell: it says no farewell.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            eprintln!("ExaBGP wrote: {log}");
        }
    }
}

/// Whether ExaBGP is here; if not, it says so.
fn has_exabgp(test: &str) -> bool {
    let runs = Command::new("exabgp")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_here = runs.is_ok_and(|status| status.success());
    if !is_here {
        eprintln!("skipped: {test}: ExaBGP is not installed");
    }
    is_here
}

/// Routes of both families that BIRD has with these attributes.
fn routes_of_version(bird: &Bird, version: u32) -> usize {
    let filter = format!("source = RTS_BGP && bgp_med = {version}");
    let count = |table: &str| -> usize {
        let words = ["show", "route", "table", table, "where", &filter, "count"];
        let said = bird.control(&words);
        let number = said.lines().rev().find_map(|line| line.split(' ').next()?.parse().ok());
        number.unwrap_or_else(|| panic!("BIRD counts nothing: {said}"))
    };
    count("master4") + count("master6")
}

/// Learnt, changed, withdrawn, announced again; and twice the feeder dies.
#[track_caller]
fn run(table: &Table, addresses: usize, pace: &str, patience: Duration) {
    let mut bed = Bed::new();
    let sluice = bed.sluice();
    let before = sluice.status().routes;
    let traffic = bed.send_to(table, addresses);
    let bird = Bird::start(&bed.router, &[], ROUTER_BIRD);
    let settle = |groups: Groups| {
        bed.settle(&traffic, &sluice, groups, patience);
    };
    let wait_for_all = |what: &str, start: Instant| {
        bed.wait_for_all(&sluice, table, &before, patience, &|| {
            bird.control(&["show", "protocols", "all"])
        });
        eprintln!("{what} in {:?}", start.elapsed());
    };
    let announce_all = |feeder: &mut ExaBgp, version: u32| {
        for group in 0..GROUPS {
            feeder.announce(table, group, group as u8, version);
        }
    };

    let start = Instant::now();
    let mut feeder = ExaBgp::start(&bed.feeder, pace);
    announce_all(&mut feeder, 1);
    wait_for_all("learnt by ExaBGP, BIRD, kernel and Sluice", start);
    settle(normal());
    let all = sluice.status().routes;

    // Other attributes, the same next hops: nothing moves.
    traffic.begin(normal(), normal());
    announce_all(&mut feeder, 2);
    wait_until("BIRD has the new attributes", patience, || {
        routes_of_version(&bird, 2) == table.v4.len() + table.v6.len()
    });
    settle(normal());

    // Other next hops, with other attributes or not.
    let mut moved = normal();
    moved[FLAPPING] = Some(BACKUP);
    for version in [3, 2] {
        traffic.begin(normal(), moved);
        feeder.announce(table, FLAPPING, BACKUP, version);
        settle(moved);
        traffic.begin(moved, normal());
        feeder.announce(table, FLAPPING, FLAPPING as u8, version);
        settle(normal());
    }

    let mut less = normal();
    less[WITHDRAWN] = None;
    traffic.begin(normal(), less);
    feeder.withdraw(table, WITHDRAWN);
    settle(less);
    let gone = sluice.status().routes;
    assert!(gone.v4 < all.v4 && gone.v6 < all.v6, "{gone:?}");
    traffic.begin(less, normal());
    feeder.announce(table, WITHDRAWN, WITHDRAWN as u8, 4);
    settle(normal());

    // It dies while it withdraws and announces.
    traffic.begin(normal(), NOTHING);
    feeder.withdraw(table, WITHDRAWN);
    wait_until("some routes are gone", patience, || sluice.status().routes.v4 < all.v4);
    feeder.announce(table, WITHDRAWN, WITHDRAWN as u8, 5);
    wait_until("some of them are back", patience, || routes_of_version(&bird, 5) > 0);
    let start = Instant::now();
    drop(feeder);
    settle(NOTHING);
    wait_until("no route of the feeder is left", patience, || {
        let left = sluice.status().routes;
        (left.v4, left.v6) == (all.v4 - table.v4.len() as u64, all.v6 - table.v6.len() as u64)
    });
    eprintln!("the feeder was killed; all is gone in {:?}", start.elapsed());

    // It dies again before it has told all, and comes back.
    traffic.begin(NOTHING, normal());
    let start = Instant::now();
    let mut feeder = ExaBgp::start(&bed.feeder, pace);
    announce_all(&mut feeder, 6);
    wait_until("some routes are back", patience, || {
        sluice.status().routes.v4 > all.v4 - table.v4.len() as u64 / 2
    });
    drop(feeder);
    let mut feeder = ExaBgp::start(&bed.feeder, pace);
    announce_all(&mut feeder, 7);
    wait_until("BIRD has learnt all again", patience, || {
        routes_of_version(&bird, 7) == table.v4.len() + table.v6.len()
    });
    wait_for_all("killed again half-way and learnt again", start);
    settle(normal());
    let again = sluice.status().routes;
    assert_eq!((again.v4, again.v6), (all.v4, all.v6), "the same routes as before");

    let steady_lost = traffic.steady_lost();
    let (sent, arrived, _) = traffic.end();
    eprintln!(
        "  {sent} packets sent, {arrived} arrived, none at a wrong next hop, {steady_lost} of the steady flow \
         lost; {:?}",
        sluice.status().routes.mirror
    );
    assert!(arrived > sent / 3, "{arrived} of {sent} packets arrived");
    // Packets of the flow that no change concerns are lost by the test's own queues at most.
    assert!(steady_lost <= 5, "{steady_lost} packets of the steady flow were lost");
    sluice.assert_conserved();
}

#[test]
fn routes_of_exabgp_under_traffic() {
    const TEST: &str = "routes of ExaBGP";
    if !net::available(TEST) || !has_bird(TEST) || !has_exabgp(TEST) {
        return;
    }
    run(&Table::read(300), 600, "0.1", Duration::from_secs(30));
}

#[test]
fn the_whole_table_of_the_internet_by_exabgp() {
    const TEST: &str = "the whole table by ExaBGP";
    if std::env::var_os("SLUICE_FULL_TABLE").is_none() {
        eprintln!("skipped: {TEST}: SLUICE_FULL_TABLE is not set; it takes minutes and gigabytes");
        return;
    }
    if !net::available(TEST) || !has_bird(TEST) || !has_exabgp(TEST) {
        return;
    }
    run(&Table::read(1), 2000, "0.01", Duration::from_secs(180));
}
