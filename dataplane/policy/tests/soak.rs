//! Ten plugins under packets while somebody reloads, rolls back, tries, promotes and loads good and hostile
//! modules at random. At the end every packet is accounted for, memory has not grown, and the ten judge as
//! their modules say.
//!
//! `SLUICE_SOAK_S` is how long it takes, `SLUICE_SOAK_SEED` where its random numbers begin; both are printed.

mod common;

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{VERDICTS, Wat, batch, every, numbered};
use frame::{Hook as _, HookPoint, Nanos, Verdict};
use policy::{HostOptions, PluginHost, PluginSpec, PluginState, WorkerChain};

const PLUGINS: usize = 10;
const WORKERS: usize = 2;
/// Packets of a batch, which have the source ports from 0 on.
const PACKETS: usize = 64;
const SECONDS: u64 = 20;
/// By how much memory may grow after the first quarter of the time. Instances and compiled modules come and
/// go; the allocator keeps some of their room.
const GROWTH_MAX_MIB: usize = 64;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Plugin number `index`: drops the packets from the source port that is its number. Versions differ in
/// code that is never run.
fn good(index: usize, version: usize) -> Wat {
    let process = format!(
        "(local $i i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (i64.store (i32.add (i32.const {VERDICTS}) (i32.shl (local.get $i) (i32.const 3)))
             (i64.extend_i32_u (i32.eq (i32.const {index})
               (i32.load16_u offset=1056 (i32.shl (local.get $i) (i32.const 6))))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    );
    let more = format!("(func (result i32) (i32.const {version}))");
    Wat { process, more, ..Wat::default() }
}

/// A module that means harm: it traps, never ends, answers nonsense, or is refused.
fn hostile(kind: usize) -> Vec<u8> {
    let wat = Wat::default();
    match kind {
        0 => Wat { process: "unreachable".to_owned(), ..wat }.bytes(),
        1 => Wat { process: "(loop $next (br $next))".to_owned(), ..wat }.bytes(),
        2 => Wat { process: every(0xdead_beef_dead_beef), ..wat }.bytes(),
        3 => Wat { configure: "unreachable".to_owned(), ..wat }.bytes(),
        4 => Wat { process: "(drop (i32.load (i32.const -4)))".to_owned(), ..wat }.bytes(),
        _ => b"\0asm and then nothing that makes sense".to_vec(),
    }
}
const HOSTILE_KINDS: usize = 6;

/// Resident memory of this process.
fn resident_mib() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    (pages.expect("a number") * 4096) >> 20
}

/// What a worker saw.
#[derive(Default)]
struct Seen {
    offered: u64,
    dropped: u64,
}

fn worker(mut chain: WorkerChain, stop: &AtomicBool) -> (WorkerChain, Seen) {
    let (mut packets, mut seen) = (batch(&numbered(PACKETS)), Seen::default());
    let started = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let now = Nanos(1 + started.elapsed().as_nanos() as u64);
        turn(&mut chain, &mut packets, &mut seen, now);
        // The control thread has to run, too, where there are few cores.
        thread::sleep(Duration::from_micros(50));
    }
    (chain, seen)
}

fn turn(chain: &mut WorkerChain, packets: &mut frame::Batch, seen: &mut Seen, now: Nanos) {
    packets.verdicts[..PACKETS].fill(Verdict::Continue);
    chain.begin_turn(now);
    chain.run(HookPoint::Ingress, packets, now);
    let dropped = packets.verdicts[..PACKETS].iter().filter(|v| **v != Verdict::Continue).count();
    seen.offered += PACKETS as u64;
    seen.dropped += dropped as u64;
}

/// Something at random that an operator, or somebody who means harm, may do. Whether it was done.
fn act(host: &mut PluginHost, random: &mut Random, directory: &Path) -> bool {
    let index = random.below(PLUGINS);
    let name = format!("p{index}");
    let file = directory.join(format!("{name}.wasm"));
    let other = directory.join("other.wasm");
    let module = |random: &mut Random| match random.below(3) {
        0 => hostile(random.below(HOSTILE_KINDS)),
        _ => good(index, random.below(8)).bytes(),
    };
    match random.below(8) {
        0 | 1 => {
            std::fs::write(&file, module(random)).expect("written");
            host.reload(&name).is_ok()
        }
        2 => {
            std::fs::write(&file, module(random)).expect("written");
            host.poll_files().iter().all(Result::is_ok)
        }
        3 => host.rollback(&name).is_ok(),
        4 => {
            std::fs::write(&other, module(random)).expect("written");
            host.load_from(&name, &other, None).is_ok()
        }
        5 => {
            std::fs::write(&other, module(random)).expect("written");
            host.load_candidate(&name, &other, None).is_ok()
        }
        6 => host.promote(&name).is_ok(),
        _ => host.discard(&name).is_ok(),
    }
}

#[test]
fn ten_plugins_survive_whatever_is_done_to_them() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("SLUICE_SOAK_S").unwrap_or(SECONDS);
    let seed = number("SLUICE_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("{seconds} s, seed {seed}");
    let mut options = HostOptions::new(WORKERS);
    options.load_budget_ms = 50;
    let (mut host, chains) = PluginHost::new(options).expect("a host");
    let directory = tempfile::tempdir().expect("a directory");
    let specs: Vec<_> = (0..PLUGINS)
        .map(|index| {
            let name = format!("p{index}");
            let path = directory.path().join(format!("{name}.wasm"));
            good(index, 0).write(&path);
            PluginSpec::new(name, path, HookPoint::Ingress)
        })
        .collect();
    let set = host.prepare(&specs).expect("good");
    host.publish(set).expect("room");
    let mut chains: Vec<_> = chains.into_iter().collect();
    for chain in &mut chains {
        chain.begin_turn(Nanos(1));
    }

    let stop = AtomicBool::new(false);
    let (mut random, mut done, mut refused, mut before_mib) = (Random(seed), 0_u64, 0_u64, None);
    let workers: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> =
            chains.into_iter().map(|chain| scope.spawn(|| worker(chain, &stop))).collect();
        let (started, length) = (Instant::now(), Duration::from_secs(seconds));
        while started.elapsed() < length {
            if act(&mut host, &mut random, directory.path()) {
                done += 1;
            } else {
                refused += 1;
            }
            host.maintain();
            if before_mib.is_none() && started.elapsed() > length / 4 {
                before_mib = Some(resident_mib());
            }
            thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    let (mut chains, seen): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    host.maintain();
    let (before_mib, after_mib) = (before_mib.unwrap_or_default(), resident_mib());
    let (offered, dropped) =
        seen.iter().fold((0, 0), |sum, seen| (sum.0 + seen.offered, sum.1 + seen.dropped));
    println!("{done} done, {refused} refused; {offered} packets, {dropped} dropped");
    println!("{before_mib} MiB resident after a quarter of it, {after_mib} MiB at its end");
    assert!(done > 0 && refused > 0 && dropped > 0, "nothing was tried");
    assert!(after_mib < before_mib + GROWTH_MAX_MIB, "memory grew");

    // What one plugin lets go on, and nothing else, is shown to the next one.
    let mut shown = offered;
    for status in host.status() {
        assert_eq!(status.total.packets, shown, "{}", status.name);
        shown -= status.total.drops + status.total.default_drops;
    }
    assert_eq!(offered - shown, dropped, "every drop is counted, once");

    // With good modules again, all of them do as they say.
    for index in 0..PLUGINS {
        let name = format!("p{index}");
        good(index, 99).write(&directory.path().join(format!("{name}.wasm")));
        host.reload(&name).expect("a good module");
        let _ = host.discard(&name);
    }
    for chain in &mut chains {
        let (mut packets, mut seen) = (batch(&numbered(PACKETS)), Seen::default());
        turn(chain, &mut packets, &mut seen, Nanos(u64::MAX / 2));
        assert_eq!(seen.dropped, PLUGINS as u64);
    }
    host.maintain();
    for status in host.status() {
        assert_eq!(status.state, PluginState::Running, "{}", status.name);
        assert!(!status.has_candidate, "{}", status.name);
    }
}
