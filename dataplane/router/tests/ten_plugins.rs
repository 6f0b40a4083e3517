//! Ten plugins on a running router, under packets, while somebody reloads, rolls back, tries, promotes and
//! replaces them without a pause, with sound and hostile modules alike.
//!
//! ```text
//!  numbered packets --> wan0 [ingress: 4 | forward: 4 | egress: 2] lan0 --> ledger
//! ```
//!
//! No packet is lost that no plugin drops, none that one drops gets through, no sound plugin traps, memory does
//! not grow, the counters add up, and afterwards the router is as clean as before. Plugins are the shipped ones.
//! What each says of a packet never changes, but for the two that hostile modules may take the place of: these
//! let every packet pass and trap, run for ever or talk nonsense at packets to port 7, which must pass all the
//! same.
//!
//! Skipped without root or built plugins. The ordinary run is short; `cargo xtask soak --minutes 60`, or
//! `SLUICE_SOAK_S=3600 SLUICE_SOAK_SEED=7 cargo test --release --workspace --test ten_plugins -- --nocapture`.

mod common;
#[path = "ten_plugins/modules.rs"]
mod modules;
#[path = "common/net/mod.rs"]
mod net;
#[path = "differential/packet.rs"]
#[allow(dead_code, reason = "the differential test needs more of it")]
mod packet;
#[path = "ten_plugins/traffic.rs"]
mod traffic;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, Instant};

use control::status::{StatusReport, accounting};
use net::two_links::TwoLinks;
use net::{Namespace, Router, wait_until};
use packet::Random;
use serde_json::Value;
use traffic::{FILTERED, Kind, Ledger, Traffic};

/// Seconds of the ordinary run.
const SECONDS: u64 = 20;
/// Packets a second, unless `SLUICE_SOAK_PPS` says otherwise. So few that a machine that is busy with other
/// things loses none: a receive ring holds two seconds of them.
const RATE_PPS: u64 = 1000;
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two things that are done.
const PAUSE: Duration = Duration::from_millis(60);
/// By how much the router's memory may grow after the first quarter of the time. Instances and compiled modules
/// come and go; the allocator keeps some of their room.
const GROWTH_MAX_KIB: u64 = 64 << 10;
/// How many different modules a plugin has. Compiling a new one takes a quarter of a second of a core.
const VERSIONS: usize = 6;

/// A plugin: its name, whose module it is, its hook, and the rest of its entry.
struct Plugin {
    name: &'static str,
    module: &'static str,
    hook: &'static str,
    rest: &'static str,
    /// Hostile modules may take its place.
    suffers: bool,
}

const fn plugin(
    name: &'static str,
    module: &'static str,
    hook: &'static str,
    rest: &'static str,
) -> Plugin {
    Plugin { name, module, hook, rest, suffers: false }
}

/// In the order in which they are called. Filters are told apart by the number at their end.
const PLUGINS: [Plugin; 10] = [
    plugin("filter-0", "filter", "ingress", ""),
    plugin("limit-in", "rate-limit", "ingress", LIMIT),
    plugin(
        "distance",
        "hop-distance",
        "ingress",
        "config = { enforce = true, prefixes = [{ prefix = \"203.0.113.0/24\", max_hops = 3 }] }\n",
    ),
    plugin(
        "distance-all",
        "hop-distance",
        "ingress",
        "config = { enforce = false, max_hops = 1 }\n",
    ),
    plugin("filter-1", "filter", "forward", ""),
    plugin("guard", "syn-guard", "forward", GUARD),
    plugin("tags", "egress-tags", "forward", TAGS),
    Plugin {
        suffers: true,
        ..plugin("filter-2", "filter", "forward", "on_trap = \"last-good\"\n")
    },
    Plugin { suffers: true, ..plugin("filter-3", "filter", "egress", "on_trap = \"open\"\n") },
    plugin("limit-out", "rate-limit", "egress", LIMIT),
];

const LIMIT: &str = "grants = [\"meter\"]\nconfig = { packets_per_s = 1000000, burst = 1000000 }\n";
const GUARD: &str =
    "grants = [\"meter\", \"quota\"]\nconfig = { syn_per_s = 1000000, half_open_max = 0 }\n";
const TAGS: &str = "grants = [\"names\", \"table\", \"tag\"]\n\
    tables = { countries = \"countries\", trust = \"none\", products = \"none\" }\n\
    config = { site_tag = \"here\", interfaces = [{ name = \"wan0\" }], \
    rules = [{ country = [\"de\"], tag = \"there\" }] }\n";

/// Everything but the plugins: where tagged packets go, and a neighbor that nobody has to be asked for.
const REST: &str = r#"
poll = "adaptive"
[workers]
cores = [0]
[[interface]]
name = "wan0"
role = "outside"
xdp = "native"
[[interface]]
name = "lan0"
role = "inside"
xdp = "native"
[[neighbor]]
address = "10.1.0.2"
interface = "lan0"
mac = "02:00:00:00:00:cc"
[[next_hop]]
name = "lan"
via = "10.1.0.2"
[[egress_tag]]
name = "here"
next_hops = ["lan"]
[[egress_tag]]
name = "there"
next_hops = ["lan"]
"#;

/// The candidate that stands beside a plugin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Candidate {
    Sound,
    Hostile,
}

struct Stage {
    router: Router,
    random: Random,
    /// The modules as they were built, by name.
    built: BTreeMap<&'static str, Vec<u8>>,
    candidates: BTreeMap<&'static str, Candidate>,
    /// The configuration without its plugins.
    config: String,
    is_other: bool,
    _spaces: [Namespace; 2],
}

impl Stage {
    fn new(plugins: &Path, links: [Namespace; 2], seed: u64) -> Self {
        let router = Router::start_from(&[], &links[0], "", REST);
        let built = PLUGINS.iter().map(|plugin| {
            let file = plugins.join(format!("{}.wasm", plugin.module));
            (plugin.module, fs::read(&file).unwrap_or_else(|error| panic!("{file:?}: {error}")))
        });
        let config = fs::read_to_string(router.file("sluice.toml")).expect("the configuration");
        let mut stage = Self {
            built: built.collect(),
            router,
            random: Random(seed),
            candidates: BTreeMap::new(),
            config,
            is_other: false,
            _spaces: links,
        };
        fs::write(stage.router.file("countries"), "198.51.100.0/25 de\n").expect("a file");
        fs::write(stage.router.file("none"), "").expect("a file");
        for (number, filter) in (FILTERED..).zip(stage.filters()) {
            let rules = format!(
                "default = \"allow\"\nrules = [{{ action = \"drop\", destination_ports = {number} }}]\n"
            );
            fs::write(stage.router.file(&format!("{filter}.toml")), rules).expect("a file");
        }
        for plugin in &PLUGINS {
            stage.put_file(plugin);
        }
        fs::write(stage.router.file("sluice.toml"), stage.text()).expect("a file");
        stage.router.reload();
        stage
    }

    fn filters(&self) -> Vec<&'static str> {
        PLUGINS.iter().filter(|of| of.module == "filter").map(|of| of.name).collect()
    }

    /// The configuration, in one of two states that differ in a route, a plugin and an egress tag.
    fn text(&self) -> String {
        let mut text = self.config.clone();
        if self.is_other {
            text += "[[route]]\nprefix = \"192.0.2.0/24\"\ntype = \"blackhole\"\n\
                     [[egress_tag]]\nname = \"elsewhere\"\nnext_hops = [\"lan\"]\n";
        }
        for Plugin { name, module, hook, rest, .. } in &PLUGINS {
            let mut rest = (*rest).to_owned();
            if *module == "filter" {
                rest += &format!("config_file = \"{name}.toml\"\n");
            }
            if self.is_other && *name == "limit-out" {
                rest = rest.replace("1000000", "2000000");
            }
            text += &format!(
                "[[plugin]]\nname = \"{name}\"\npath = \"{name}.wasm\"\nhook = \"{hook}\"\n{rest}"
            );
        }
        text
    }

    /// One of a plugin's modules.
    fn sound(&mut self, plugin: &Plugin) -> Vec<u8> {
        let number = self.random.below(VERSIONS) as u32;
        modules::version(&self.built[plugin.module], number)
    }

    /// Puts one of its modules where the configuration says that it is.
    fn put_file(&mut self, plugin: &Plugin) {
        let module = self.sound(plugin);
        replace(&self.router.file(&format!("{}.wasm", plugin.name)), &module);
    }

    /// Writes a module beside the configured ones.
    fn other_file(&self, module: &[u8]) -> PathBuf {
        let path = self.router.file("other.wasm");
        replace(&path, module);
        path
    }

    fn plugin(&self, words: &[&str]) -> Output {
        self.router.ask(&[&["plugin"], words].concat())
    }

    /// Does something that an operator may do, or somebody who means harm. Says what, and whether it was done.
    fn act(&mut self) -> (&'static str, bool) {
        let act = self.random.below(12);
        let mut plugin = self.random.of(&PLUGINS);
        // What is done to candidates is done where there are some.
        if matches!(act, 6 | 7) && !self.candidates.is_empty() {
            let place = self.random.below(self.candidates.len());
            let name = self.candidates.keys().nth(place);
            plugin = PLUGINS.iter().find(|of| Some(&of.name) == name).unwrap_or(plugin);
        }
        let name = plugin.name;
        match act {
            0 | 1 => {
                self.router.done(&["plugin", "reload", name]);
                ("reload", true)
            }
            2 => ("rollback", self.plugin(&["rollback", name]).status.success()),
            3 | 4 => {
                self.put_file(plugin);
                ("file", true)
            }
            5 => self.load_candidate(plugin),
            6 => {
                // A hostile one would be put into force where nobody reckons with it.
                let is_fit = plugin.suffers
                    || self.candidates.get(name).is_none_or(|of| *of == Candidate::Sound);
                let word = if is_fit { "promote" } else { "discard" };
                self.candidates.remove(name);
                (word, self.plugin(&[word, name]).status.success())
            }
            7 => ("shadow", self.plugin(&["shadow", name]).status.success()),
            8 => self.load(plugin),
            9 => {
                self.is_other = !self.is_other;
                fs::write(self.router.file("sluice.toml"), self.text()).expect("a file");
                self.router.reload();
                ("configuration", true)
            }
            10 => {
                let broken = self.text().replace("hook = \"egress\"", "hook = \"nowhere\"");
                fs::write(self.router.file("sluice.toml"), broken).expect("a file");
                self.router.refused(&["reload"]);
                fs::write(self.router.file("sluice.toml"), self.text()).expect("a file");
                ("broken configuration", false)
            }
            _ => {
                let kind = self.random.below(modules::REFUSED);
                let file = self.router.file(&format!("{name}.wasm"));
                replace(&file, &modules::refused(kind));
                self.router.refused(&["plugin", "reload", name]);
                self.put_file(plugin);
                ("broken file", false)
            }
        }
    }

    fn load_candidate(&mut self, plugin: &Plugin) -> (&'static str, bool) {
        let (module, candidate) = match self.random.below(3) {
            0 => (modules::refused(self.random.below(modules::REFUSED)), None),
            1 => (modules::harmful(self.random.below(modules::HARMFUL)), Some(Candidate::Hostile)),
            _ => (self.sound(plugin), Some(Candidate::Sound)),
        };
        let path = self.other_file(&module);
        let loaded = self.plugin(&["load", "--shadow", plugin.name, utf8(&path)]).status.success();
        if let (true, Some(candidate)) = (loaded, candidate) {
            self.candidates.insert(plugin.name, candidate);
        }
        ("candidate", loaded)
    }

    fn load(&mut self, plugin: &Plugin) -> (&'static str, bool) {
        if plugin.suffers && self.random.below(2) == 0 {
            self.load_harmful(plugin);
            return ("hostile module", true);
        }
        let module = self.sound(plugin);
        let path = self.other_file(&module);
        self.router.done(&["plugin", "load", plugin.name, utf8(&path)]);
        ("module", true)
    }

    /// Puts a hostile module in a plugin's place, with a sound generation before it, which is what stands in
    /// for it, and waits until it has done harm.
    fn load_harmful(&mut self, plugin: &Plugin) {
        let path = self.other_file(&self.built[plugin.module]);
        self.router.done(&["plugin", "load", plugin.name, utf8(&path)]);
        let harm = |stage: &Self| {
            let status = stage.router.status();
            let total = &row(&status, plugin.name)["total"];
            number(total, "traps") + number(total, "bad_verdicts")
        };
        let before = harm(self);
        let module = modules::harmful(self.random.below(modules::HARMFUL));
        let path = self.other_file(&module);
        // One that traps on all the packets that were seen last would be refused.
        self.router.done(&["plugin", "load", "--allow-traps", plugin.name, utf8(&path)]);
        wait_until("it does harm", PATIENCE, || harm(self) > before);
    }

    /// Sound modules again, without candidates.
    fn mend(&mut self) {
        for plugin in &PLUGINS {
            self.put_file(plugin);
            self.router.done(&["plugin", "reload", plugin.name]);
            let _ = self.plugin(&["discard", plugin.name]);
        }
    }

    /// What must hold at any time. `what` was done last.
    fn check(&self, what: &str) -> StatusReport {
        let status = self.router.status();
        for plugin in &PLUGINS {
            let row = row(&status, plugin.name);
            let total = &row["total"];
            let faults = ["traps", "unjudged", "default_drops", "bad_verdicts", "stood_in"];
            let faults = faults.map(|fault| number(total, fault));
            let is_sound = plugin.suffers || row["state"] == "running" && faults == [0; 5];
            assert!(
                is_sound && number(total, "states_lost") == 0,
                "after {what}: {row}\n{}",
                self.log()
            );
        }
        for interface in &status.interfaces {
            for (reason, drops) in &interface.drops {
                assert!(reason == "plugin" || *drops == 0, "after {what}: {drops} {reason}");
            }
        }
        for socket in &status.xdp {
            let lost = [socket.rx_dropped, socket.rx_ring_full, socket.rx_fill_ring_empty_descs];
            assert_eq!(lost, [0; 3], "after {what}, before the ring: {socket:?}");
        }
        status
    }

    fn log(&self) -> String {
        let log = self.router.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

/// Replaces a file by another at once, as `sluice plugin build` does.
fn replace(path: &Path, bytes: &[u8]) {
    let beside = path.with_extension("new");
    fs::write(&beside, bytes).expect("a file");
    fs::rename(&beside, path).expect("a file");
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_else(|| panic!("no {key}: {value}"))
}

fn row<'a>(status: &'a StatusReport, name: &str) -> &'a Value {
    let row = status.plugins.iter().find(|row| row["name"] == name);
    row.unwrap_or_else(|| panic!("no plugin {name}"))
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
}

/// Whether a packet arrives; `None` where that is up to a hostile module.
fn fate(kind: Kind) -> Option<bool> {
    match kind {
        Kind::Plain | Kind::Bait | Kind::Syn => Some(true),
        Kind::Far | Kind::Filtered(0 | 1) => Some(false),
        Kind::Filtered(_) => None,
    }
}

/// The counters of a router that has nothing more to do, against what was sent and what arrived.
fn check_counters(stage: &Stage, ledger: &Ledger) {
    let sent = ledger.sent.len() as u64;
    wait_until("all packets are accounted for", PATIENCE, || {
        let status = stage.router.status();
        let admitted = number(&row(&status, "limit-in")["total"]["counters"], "admitted");
        // A plugin's own counters are copied ten times a second.
        accounting(&status).is_ok()
            && admitted == number(&row(&status, "limit-in")["total"], "packets")
    });
    let status = stage.check("all");
    let wan = &status.interfaces[0];
    assert_eq!((wan.rx_packets, wan.forwarded), (sent, ledger.arrivals()), "{wan:?}");
    assert_eq!(wan.drops["plugin"], sent - ledger.arrivals());
    assert_eq!(status.interfaces[1].tx_packets, ledger.arrivals());

    // What one plugin lets go on, and nothing else, is shown to the next one.
    let mut shown = sent;
    for (place, plugin) in PLUGINS.iter().enumerate() {
        let total = &row(&status, plugin.name)["total"];
        assert_eq!(status.plugins[place]["name"], plugin.name, "their order");
        assert_eq!(number(total, "packets"), shown, "{total}");
        shown -= number(total, "drops") + number(total, "default_drops");
        let by_reason = total["drops_by_reason"].as_object().expect("an object").values();
        assert_eq!(by_reason.filter_map(Value::as_u64).sum::<u64>(), number(total, "drops"));
    }
    assert_eq!(shown, ledger.arrivals(), "what all let go on");
    let dropped = |name, kind| {
        let total = &row(&status, name)["total"];
        assert_eq!(number(total, "drops"), ledger.sent_of(|of| of == kind), "{name}: {total}");
    };
    dropped("filter-0", Kind::Filtered(0));
    dropped("filter-1", Kind::Filtered(1));
    dropped("distance", Kind::Far);
    // What plugins count by themselves survives them.
    let counted = |name: &str, counter| number(&row(&status, name)["total"]["counters"], counter);
    for (name, counter) in [("limit-in", "admitted"), ("limit-out", "admitted")] {
        assert_eq!(
            counted(name, counter),
            number(&row(&status, name)["total"], "packets"),
            "{name}"
        );
    }
    assert_eq!(counted("guard", "unchallenged"), ledger.sent_of(|of| of == Kind::Syn));
    assert!(number(&row(&status, "guard")["total"], "states_taken") > 0, "no state was handed on");
}

#[test]
fn no_packet_is_lost_whatever_is_done_to_ten_plugins() {
    let Some(plugins) = common::plugins() else {
        eprintln!("skipped: ten plugins: no plugins (cargo xtask plugins)");
        return;
    };
    if !net::available("ten plugins") {
        return;
    }
    let seconds = from_environment("SLUICE_SOAK_S", SECONDS);
    let seed = from_environment("SLUICE_SOAK_SEED", u64::from(std::process::id()));
    let rate_pps = from_environment("SLUICE_SOAK_PPS", RATE_PPS);
    println!("{seconds} s, seed {seed}, {rate_pps} packets/s");
    let TwoLinks { tap, space, far } = TwoLinks::new();
    let mut stage = Stage::new(&plugins, [space, far], seed);
    let traffic = Traffic::start(tap, rate_pps, seed);
    for plugin in PLUGINS.iter().filter(|plugin| plugin.suffers) {
        stage.load_harmful(plugin);
    }

    let (begin, length) = (Instant::now(), Duration::from_secs(seconds));
    let begin_kib = stage.router.resident_kib();
    let mut quarter_kib = None;
    let mut done: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    while begin.elapsed() < length {
        let (what, was_done) = stage.act();
        done.entry(what).or_default()[usize::from(was_done)] += 1;
        stage.check(what);
        if quarter_kib.is_none() && begin.elapsed() > length / 4 {
            quarter_kib = Some(stage.router.resident_kib());
        }
        std::thread::sleep(PAUSE);
    }
    stage.mend();
    let end_kib = stage.router.resident_kib();
    let ledger = traffic.end();
    println!("not done, done: {done:?}");
    let longest = stage.router.status().workers[0].long_turns.last().copied().unwrap_or_default();
    println!("the worker's longest turn took less than {} us", longest.below_ns / 1000);
    println!("the router used {} s of processor time", stage.router.cpu_ms() / 1000);
    let (sent, arrived) = (ledger.sent.len(), ledger.arrivals());
    println!("{sent} packets sent, {arrived} arrived");
    let quarter_kib = quarter_kib.unwrap_or(end_kib);
    println!(
        "{begin_kib} KiB resident at begin, {quarter_kib} after a quarter, {end_kib} at the end"
    );
    let wronged = ledger.wronged(|_, kind| fate(kind));
    assert!(
        wronged.is_empty(),
        "seed {seed}: {} packets: {:?}",
        wronged.len(),
        &wronged[..wronged.len().min(20)]
    );
    assert!(sent as u64 > seconds * rate_pps / 4, "the machine was too busy to send");
    check_counters(&stage, &ledger);
    assert!(end_kib < quarter_kib + GROWTH_MAX_KIB, "memory grew");
    stage.router.assert_conserved();
    stage.router.end();
}
