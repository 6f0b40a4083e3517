//! A wall clock that steps under a running router: nothing that it does depends on it.
//!
//! ```text
//!  sender (raw frames) --- lan0 [router, under libfaketime] wan0 --- eth0 neighbor (Linux)
//! ```
//!
//! libfaketime stands between the router and `clock_gettime`, and moves `CLOCK_REALTIME` alone, for this
//! one process: setting the machine's clock would be everybody's. Skipped without root or libfaketime.

#[path = "common/net/mod.rs"]
mod net;
#[path = "differential/packet.rs"]
#[allow(dead_code, reason = "shared with the differential test, which needs more of it")]
mod packet;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use net::{Captured, Namespace, Router, Tap};
use packet::ROUTER_MAC;

/// Steps of the clock in seconds, each from the true time.
const STEPS: [i64; 5] = [60, -60, 0, 86_400, -3600];

/// Packets after each step, one a millisecond.
const PACKETS: u32 = 300;

const NEIGHBOR_MAC: &str = "02:00:00:00:00:b0";

/// Debian's package `libfaketime`. The threads of a router want the one with locks.
fn libfaketime() -> Option<PathBuf> {
    ["x86_64-linux-gnu", "aarch64-linux-gnu", ""]
        .iter()
        .map(|folder| Path::new("/usr/lib").join(folder).join("faketime/libfaketimeMT.so.1"))
        .find(|file| file.exists())
}

fn frame(destination: &str, number: u32) -> Vec<u8> {
    let payload = [&b"numbered"[..], &number.to_be_bytes()].concat();
    packet::udp_frame(destination.parse().expect("an address"), &payload)
}

fn number(captured: &Captured) -> Option<u32> {
    let frame = &captured.frame;
    let at = frame.windows(8).position(|window| window == b"numbered")? + 8;
    Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?))
}

/// The time of day of the log's last line, in seconds, less the true one: how far the router's clock is
/// off, within half a day.
fn clock_error_s(log: &str) -> i64 {
    let stamp = log.lines().last().and_then(|line| line.split_once('T')?.1.get(..8));
    let stamp = stamp.unwrap_or_else(|| panic!("no time stamp in the last line of:\n{log}"));
    let of_day =
        stamp.split(':').fold(0, |sum, part| sum * 60 + part.parse::<i64>().expect("a number"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let error = of_day - now.cast_signed().rem_euclid(86_400);
    (error + 43_200).rem_euclid(86_400) - 43_200
}

/// Sends to a neighbor that does not exist, steps the clock while the packet waits for it, and returns
/// after which time the sender was told.
fn told_after(sender: &mut Tap, destination: &str, step: impl FnOnce()) -> Duration {
    let begin = Instant::now();
    sender.send(0, &frame(destination, 1 << 24));
    std::thread::sleep(Duration::from_millis(200));
    step();
    while begin.elapsed() < Duration::from_secs(10) {
        let Some(captured) = sender.receive(Duration::from_millis(20)) else { continue };
        // Host unreachable, RFC 792.
        if captured.frame.get(23) == Some(&packet::ICMP)
            && captured.frame.get(34..36) == Some(&[3, 1])
        {
            return begin.elapsed();
        }
    }
    panic!("the sender is never told");
}

#[test]
fn a_wall_clock_that_steps_changes_nothing() {
    if !net::available("a stepping clock") {
        return;
    }
    let Some(library) = libfaketime() else {
        eprintln!("skipped: a stepping clock: libfaketime is not installed (cargo xtask setup)");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("offset");
    let step_to = |offset_s: i64| {
        // Replaced as a whole: the router reads it at each call.
        let new = folder.path().join("new");
        std::fs::write(&new, format!("{offset_s:+}\n")).expect("a file");
        std::fs::rename(new, &file).expect("the same folder");
    };
    step_to(0);

    let (world, router) = (Namespace::new("sender").mute(), Namespace::new("router").forwards());
    let neighbor = Namespace::new("neighbor");
    let mac = |port: usize| ROUTER_MAC[port].map(|byte| format!("{byte:02x}")).join(":");
    net::link((&world, "eth0", "02:00:00:00:01:02"), (&router, "lan0", &mac(0)), 1500);
    net::link((&router, "wan0", &mac(1)), (&neighbor, "eth0", NEIGHBOR_MAC), 1500);
    router.ip("address add 10.0.0.1/24 dev lan0");
    router.ip("neighbor add 10.0.0.2 lladdr 02:00:00:00:01:02 dev lan0");
    router.ip("address add 10.1.0.1/16 dev wan0");
    neighbor.ip("address add 10.1.0.2/16 dev eth0");
    let mut sender = Tap::new(&world, &["eth0"]);
    let mut receiver = Tap::new(&neighbor, &["eth0"]);
    let environment = [
        ("LD_PRELOAD", library.to_str().expect("a path in UTF-8")),
        ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path in UTF-8")),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("NO_FAKE_STAT", "1"),
    ];
    let interfaces = [("lan0", "inside"), ("wan0", "outside")];
    let sluice = Router::start_in(&environment, &router, &interfaces, "\"off\"", "", "");
    sender.send(0, &frame("10.1.0.2", 1 << 24));
    net::wait_until("the neighbor is resolved", Duration::from_secs(10), || {
        receiver.receive_for(Duration::from_millis(50)).iter().any(|got| number(got).is_some())
    });

    for (position, offset_s) in (0_u32..).zip(STEPS) {
        let before = sluice.status().router.uptime_s;
        let begin = Instant::now();
        // What waits for its neighbor waits as long as it is to: a second, give or take a turn.
        let absent = format!("10.1.0.{}", 10 + position);
        let told = told_after(&mut sender, &absent, || step_to(offset_s));
        let expected = Duration::from_millis(900)..Duration::from_millis(2500);
        assert!(expected.contains(&told), "told after {told:?}, the clock being at {offset_s:+} s");
        // The step has reached the router: it writes its log by that clock.
        sluice.reload();
        let off_s = clock_error_s(&sluice.log());
        let wanted_s = (offset_s + 43_200).rem_euclid(86_400) - 43_200;
        assert!(
            (off_s - wanted_s).abs() <= 5,
            "the router's clock is off by {off_s} s, not {offset_s}"
        );

        let numbers = position * PACKETS..(position + 1) * PACKETS;
        let mut arrived = BTreeSet::new();
        for number in numbers.clone() {
            // To and fro under traffic as well.
            if number % 100 == 50 {
                step_to(-offset_s);
            } else if number % 100 == 0 {
                step_to(offset_s);
            }
            sender.send(0, &frame("10.1.0.2", number));
            std::thread::sleep(Duration::from_millis(1));
        }
        let captured = receiver.receive_for(Duration::from_millis(500));
        arrived.extend(captured.iter().filter_map(number));
        let lost: Vec<u32> = numbers.filter(|number| !arrived.contains(number)).collect();
        assert!(lost.is_empty(), "lost at {offset_s:+} s: {lost:?}\n{}", sluice.log());
        let passed = sluice.status().router.uptime_s - before;
        assert!(passed.abs_diff(begin.elapsed().as_secs()) <= 1, "{passed} s of uptime passed");
    }
    sluice.assert_conserved();
}
