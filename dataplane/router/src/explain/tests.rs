//! Explanations over every packet of every scenario.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use config::Checked;
use control::publication::Publication;
use frame::{DropReason, Nanos, NoHook};
use sim::read_pcap;
use tables::{AdjacencyState, EgressBlock, Owner, Publisher, SliceTable, Snapshot};
use wire::{InterfaceId, ethernet};

use super::{Explanation, Names, packet_text};
use crate::replay::{self, Options, Outcome};

/// Reasons that no packet can meet alone on rings of its own: what else goes on decides.
const OF_THE_MOMENT: &[DropReason] = &[
    DropReason::HoldTimeout,
    DropReason::HeadroomExhausted,
    DropReason::TransmitFull,
    DropReason::FragmentOverlap,
    DropReason::FragmentDuplicate,
    DropReason::FragmentTimeout,
    DropReason::FragmentFull,
    DropReason::HandoffFull,
    DropReason::FragmentationLimited,
    DropReason::FragmentationFrames,
    DropReason::PuntFull,
    DropReason::PuntRefused,
];

fn scenarios() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let entries =
        fs::read_dir(root).expect("scenarios").map(|entry| entry.expect("an entry").path());
    let mut folders: Vec<PathBuf> =
        entries.filter(|path| path.join("config.toml").exists()).collect();
    folders.sort();
    folders
}

/// The plugins beside the folder that the test was built into.
fn plugins() -> Option<PathBuf> {
    let folder = match std::env::var_os("SLUICE_PLUGINS") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe().ok()?.ancestors().nth(3)?.join("plugins"),
    };
    folder.join("filter.wasm").exists().then_some(folder)
}

/// Replays a scenario with explanations; `None`, visibly, without its plugins.
fn replay(folder: &Path) -> Option<Outcome> {
    const PLUGINS: &str = "../../../../target/plugins";
    const ACTOR: &str = "actor.wasm";
    let file = folder.join("config.toml");
    let mut text = fs::read_to_string(&file).expect("config.toml");
    if text.contains(PLUGINS) {
        let Some(plugins) = plugins() else {
            eprintln!("SKIPPED {}: no plugins (cargo xtask plugins)", folder.display());
            return None;
        };
        text = text.replace(PLUGINS, plugins.to_str().expect("UTF-8"));
    }
    // The plugin that asks for one thing after another is there as text.
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let file = if text.contains(ACTOR) {
        let actor = fs::read(folder.parent().expect("a folder").join("actor.wat"));
        let module = wat::parse_bytes(&actor.expect("actor.wat")).expect("a sound module").to_vec();
        fs::write(scratch.path().join(ACTOR), module).expect("a writable folder");
        scratch.path().join("config.toml")
    } else {
        file
    };
    let config = Checked::parse(&text, &file).expect("a sound configuration");
    let mut inputs = Vec::new();
    for (position, interface) in (0_u8..).zip(&config.interfaces) {
        let file = folder.join(format!("in-{}.pcap", interface.name));
        if file.exists() {
            inputs.push((InterfaceId(position), read_pcap(&file).expect("a capture").packets));
        }
    }
    let args = fs::read_to_string(folder.join("args")).unwrap_or_default();
    let options = Options {
        workers: 1,
        keep_mac: args.contains("--keep-mac"),
        resolve: !args.contains("--no-resolve"),
        explain: true,
    };
    Some(replay::replay(config, inputs, &options).expect("a replay"))
}

fn json(explanation: &Explanation) -> String {
    serde_json::to_string(explanation).expect("JSON")
}

/// What other packets of the moment decided: a worker aside cannot see it.
fn is_of_the_moment(explanation: &Explanation) -> bool {
    let reason = explanation.verdict.reason.as_deref().unwrap_or_default();
    let is_crowded = ["hold-full", "punt-limited", "punt-full", "transmit-full"].contains(&reason);
    is_crowded || explanation.steps.iter().any(|step| step.result.contains("is used up"))
}

/// A packet that is asked about aside gets the same report, byte for byte, as the packet that comes in.
/// The drops of the reports are those of the counters.
#[test]
fn explanations_are_the_same_aside_and_in_a_replay_and_agree_with_the_counters() {
    let mut compared = 0;
    for folder in scenarios() {
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        // What becomes of a fragment depends on those that came before it.
        if name.contains("fragment") {
            continue;
        }
        let Some(outcome) = replay(&folder) else { continue };
        let mut asked: BTreeMap<String, usize> = BTreeMap::new();
        for explanation in &outcome.asked {
            *asked.entry(json(explanation)).or_default() += 1;
        }
        let mut drops: BTreeMap<String, u64> = BTreeMap::new();
        for explained in &outcome.explained {
            let explanation = &explained.explanation;
            if let Some(reason) = &explanation.verdict.reason {
                *drops.entry(reason.clone()).or_default() += 1;
            }
            let was_held = explanation.steps[0].result.ends_with("held until now");
            // The meters that a worker aside asks are copies, which a burst does not drain; a plugin whose
            // memory decides is not asked.
            let keeps_state = ["plugin-rate-limit", "plugin-syn-guard", "plugin-syn-guard-answers"]
                .contains(&&*name);
            if was_held || is_of_the_moment(explanation) || keeps_state {
                continue;
            }
            let text = json(explanation);
            let count = asked.get_mut(&text);
            assert!(count.as_ref().is_some_and(|count| **count > 0), "{name}: only live: {text}");
            *count.expect("it is there") -= 1;
            compared += 1;
        }
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for interface in outcome.counters["interfaces"].as_object().expect("interfaces").values() {
            for (reason, count) in interface["drops"].as_object().expect("drops") {
                *counted.entry(reason.clone()).or_default() += count.as_u64().expect("a number");
            }
        }
        // A fragment that waits in vain is dropped when nobody looks on.
        counted.remove("fragment-timeout");
        assert_eq!(drops, counted, "{name}");
    }
    assert!(compared > 300, "only {compared} explanations were compared");
}

/// A plugin whose memory decides cannot be asked aside: the end of an explanation names it. The replay itself asked it.
#[test]
fn a_verdict_that_a_stateful_plugin_may_change_says_so() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/plugin-syn-guard");
    let Some(outcome) = replay(&folder) else { return };
    let mut conditional = 0;
    for explanation in &outcome.asked {
        let is_reached = explanation.steps.iter().any(|step| step.result.contains("not asked"));
        let verdict = &explanation.verdict;
        let named: &[&str] = if is_reached { &["syn-guard"] } else { &[] };
        assert_eq!(verdict.if_passed_by, named, "{explanation:?}");
        let text = super::render(explanation, None);
        let last = text.lines().find(|line| line.starts_with("  verdict ")).expect("the end");
        let condition = ", if syn-guard lets it pass as it is";
        assert_eq!(last.ends_with(condition), is_reached, "{text}");
        assert_eq!(json(explanation).contains("if_passed_by"), is_reached);
        conditional += usize::from(is_reached);
    }
    assert!(conditional > 10, "only {conditional} explanations depend on it");
    let judged = outcome.explained.iter().map(|explained| &explained.explanation);
    assert!(judged.clone().any(|one| one.verdict.plugin.as_deref() == Some("syn-guard")));
    assert!(judged.into_iter().all(|one| one.verdict.if_passed_by.is_empty()));
}

/// Every reason but those of plugins and of the moment is reached, and each report says which stage it
/// was and what the reason means.
#[test]
fn every_drop_reason_is_explained() {
    let mut reached = BTreeSet::new();
    for folder in scenarios() {
        for explanation in replay(&folder).iter().flat_map(|outcome| &outcome.asked) {
            let verdict = &explanation.verdict;
            if let Some(reason) = &verdict.reason {
                assert!(verdict.stage.is_some() && verdict.help.is_some(), "{verdict:?}");
                reached.insert(reason.clone());
            }
        }
    }
    for (reason, packet, change) in changed_tables() {
        let explanation = explain_on(packet, change);
        assert_eq!(explanation.verdict.reason.as_deref(), Some(reason.label()), "{packet}");
        reached.insert(reason.label().to_owned());
    }
    for reason in DropReason::ALL {
        let is_of_plugins = matches!(reason, DropReason::Plugin | DropReason::PluginDefault);
        if !is_of_plugins && !OF_THE_MOMENT.contains(reason) {
            assert!(reached.contains(reason.label()), "{} is not explained", reason.label());
        }
    }
}

type Change = fn(&mut Snapshot);

/// What no configuration brings about.
fn changed_tables() -> Vec<(DropReason, &'static str, Change)> {
    vec![
        (DropReason::SliceUnowned, "udp 198.51.100.7:53 > 192.0.2.1:2000", |snapshot| {
            let block = EgressBlock {
                prefix: "192.0.2.1/32".parse().expect("a prefix"),
                ranges: Vec::new(),
                rest: Owner::Unowned,
                portless: Owner::Unowned,
            };
            snapshot.slices = SliceTable::build(vec![block]).expect("a table").into();
        }),
        (DropReason::NeighborFailed, "udp 198.51.100.7:53 > 192.0.2.1:2000", |snapshot| {
            for adjacency in &mut snapshot.adjacencies {
                adjacency.state = AdjacencyState::Failed;
            }
        }),
        (DropReason::LinkDown, "udp 198.51.100.7:53 > 192.0.2.1:2000", |snapshot| {
            for adjacency in &mut snapshot.adjacencies {
                adjacency.state = AdjacencyState::LinkDown;
            }
        }),
        (DropReason::HoldFull, "udp 198.51.100.7:53 > 192.0.2.1:2000", |snapshot| {
            snapshot.hold.frames_max_per_neighbor = 0;
        }),
        (DropReason::PuntLimited, "udp 198.51.100.7:53 > 10.0.0.11:2000", |snapshot| {
            snapshot.punt_packets_per_s = 0;
        }),
    ]
}

/// Explains a packet that comes in by the first interface of a scenario, on changed tables.
fn explain_on(packet: &str, change: Change) -> Explanation {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/slice-to-workload/config.toml");
    let text = fs::read_to_string(&file).expect("config.toml");
    let config = std::sync::Arc::new(Checked::parse(&text, &file).expect("a configuration"));
    let host = network::host_view(&config);
    let publication =
        Publication::new(std::sync::Arc::clone(&config), &host, 1).expect("the tables");
    let mut snapshot = (*publication.current()).clone();
    change(&mut snapshot);
    let ingress = config.interface("wan0").expect("wan0");
    let mac = snapshot.interface(ingress).expect("wan0").mac;
    let publisher = Publisher::new(snapshot);
    let mut frame = vec![0; ethernet::HEADER_LEN];
    frame[12] = 8;
    frame.extend(packet_text::parse(packet).expect("a packet"));
    super::address_to(&mut frame, mac);
    let record = super::ask(publisher.reader(), NoHook, ingress, &frame, Nanos(0));
    let snapshot = publisher.current();
    let names =
        Names { config: &config, publication: &publication, snapshot: &snapshot, plugins: &[] };
    Explanation::new(&record.expect("a record"), names, &[])
}
