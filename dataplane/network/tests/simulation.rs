//! Networks from fixed seeds and from those that once failed; the same one twice; and faults that no router
//! may have, each of which a property must notice. New seeds are for `cargo xtask simulate --seeds N`, or
//! `--seconds N`, so that an unlucky one does not stop somebody whose change has nothing to do with it.
//!
//! What fails is run again with `cargo xtask simulate --seed N --trace`, which the failure says. A new seed
//! that fails joins [`ONCE_FAILED`] with what mends it.

use std::path::{Path, PathBuf};

use network::{Options, Property, Report, Sabotage, simulate};

/// The first of the seeds, and how many there are: a few seconds.
const SEED_FIRST: u64 = 1;
const SEEDS: u64 = 24;

/// Seeds that failed once, with what they showed.
const ONCE_FAILED: [(u64, &str); 4] = [
    (
        199_235_862,
        "an error of a router's own passes it again in somebody's tunnel, while it makes another about \
         the next fragment: the judge took that one for the first, come back with its TTL as it was",
    ),
    (
        1_000_003,
        "a packet of a host to the port of tunnels was taken for a tunnel packet by the judge",
    ),
    (
        3_300_000_195,
        "a ring is full after the first fragments of a packet: those were sent, and the packet is a drop",
    ),
    (3_300_000_518, "a flow that was to get through had the one port that the plugin drops"),
];

/// The filter plugin, where it was built.
fn plugin() -> Option<PathBuf> {
    let folder = match std::env::var_os("SLUICE_PLUGINS") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_BIN_EXE_simulate")).ancestors().nth(2)?.join("plugins"),
    };
    let file = folder.join("filter.wasm");
    if !file.exists() {
        eprintln!("SKIPPED the plugin of a simulated router: no filter.wasm (cargo xtask plugins)");
        return None;
    }
    Some(file)
}

fn run(seed: u64) -> Report {
    let options = Options { plugin: plugin(), ..Options::new(seed) };
    let report = simulate(&options);
    if let Some(violation) = &report.violation {
        panic!("seed {seed}: {violation}\nreproduce it: {}", options.command());
    }
    report
}

#[test]
fn networks_hold() {
    for seed in SEED_FIRST..SEED_FIRST + SEEDS {
        let report = run(seed);
        // A run in which nothing happens would show nothing.
        let count = |what: &str| report.counts.get(what).copied().unwrap_or(0);
        for what in [
            "site hops",
            "node hops",
            "deliveries",
            "ICMP errors delivered",
            "lost on a link",
            "doubled on a link",
            "configurations put into force",
            "neighbors failed",
            "MAC addresses changed",
            "flows tried",
        ] {
            assert!(count(what) > 0, "seed {seed}: nothing of {what}: {:?}", report.counts);
        }
    }
}

#[test]
fn what_failed_once_holds() {
    for (seed, what) in ONCE_FAILED {
        println!("seed {seed}: {what}");
        run(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let options = Options { packets: 300, captures: true, trace: true, ..Options::new(seed) };
        simulate(&options)
    };
    let (once, again, other) = (run(7), run(7), run(8));
    let first = once.trace.iter().zip(&again.trace).position(|(once, again)| once != again);
    if let Some(position) = first {
        panic!("they part at:\n{}\n{}", once.trace[position], again.trace[position]);
    }
    assert_eq!((once.digest, &once.counts), (again.digest, &again.counts));
    assert!(once.captures == again.captures, "frames differ");
    assert!(once.captures.iter().map(Vec::len).sum::<usize>() > 1000);
    assert_ne!(once.digest, other.digest);
}

/// The properties that a fault breaks: the first of them to be seen ends the run.
fn broken_by(sabotage: Sabotage) -> &'static [Property] {
    match sabotage {
        Sabotage::KeptTtl => &[Property::Ttl],
        Sabotage::Checksum => &[Property::Sound],
        Sabotage::Payload => &[Property::Payload],
        Sabotage::Twice => &[Property::OneForOne],
        Sabotage::Swallowed => &[Property::Reason, Property::Liveness, Property::Accounting],
        Sabotage::Counter => &[Property::Accounting],
        Sabotage::Chunks => &[Property::Chunks],
        Sabotage::Slices => &[Property::Owner],
        Sabotage::TunnelAgain => &[Property::Hops],
        Sabotage::Malformed => &[Property::Admission],
        Sabotage::Deaf => &[Property::Liveness],
    }
}

#[test]
fn every_fault_is_noticed_by_its_property() {
    for sabotage in Sabotage::ALL {
        let found = (100..110).find_map(|seed| {
            let options = Options { packets: 600, sabotage: Some(sabotage), ..Options::new(seed) };
            simulate(&options).violation
        });
        let violation = found.unwrap_or_else(|| panic!("{sabotage:?} passes unnoticed"));
        assert!(
            broken_by(sabotage).contains(&violation.property),
            "{sabotage:?} is taken for something else: {violation}"
        );
        println!("{sabotage:?}: {violation}");
    }
}
