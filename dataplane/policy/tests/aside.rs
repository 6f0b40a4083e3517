//! Plugins asked aside: they answer as those that run would, and leave no trace in what runs.

mod common;

use common::{Rig, Wat, batch, every, numbered, plugin, word};
use frame::{Descriptor, DropReason, Hook, HookPoint, Nanos, Verdict};
use policy::{AsidePlugins, Asked, PluginConfig, PluginSpec};

const NOW: Nanos = Nanos(1_000_000_000);

fn ask(aside: &mut AsidePlugins, packets: &[Descriptor]) -> Vec<Verdict> {
    let mut batch = batch(packets);
    aside.chain.watch(true);
    aside.chain.begin_turn(NOW);
    if aside.chain.is_active(HookPoint::Ingress) {
        aside.chain.run(HookPoint::Ingress, &mut batch, NOW);
    }
    batch.verdicts[..packets.len()].to_vec()
}

#[test]
fn meters_are_copied_as_they_stand_and_not_drained() {
    let Some(path) = plugin("rate_limit") else { return };
    let mut spec = PluginSpec::new("rate", path, HookPoint::Ingress);
    let table = "packets_per_s = 1\nburst = 2".parse().expect("TOML");
    spec.config = PluginConfig::Table(table);
    spec.grants = vec!["meter".to_owned()];
    let mut rig = Rig::new(1);
    rig.publish(&[spec]);
    let packet = numbered(1);
    let dropped = Verdict::Drop(DropReason::Plugin);
    // However often it is asked aside, the two tokens are still there.
    for _ in 0..5 {
        let mut aside = rig.host.aside().expect("instances aside");
        assert_eq!(aside.plugins[0].asked, Asked::CopiedMeters);
        assert_eq!(ask(&mut aside, &packet), [Verdict::Continue]);
    }
    for verdict in [Verdict::Continue, Verdict::Continue, dropped] {
        assert_eq!(rig.turn(0, &mut batch(&packet), NOW), [verdict]);
    }
    let mut aside = rig.host.aside().expect("instances aside");
    assert_eq!(ask(&mut aside, &packet), [dropped]);
    let blame = aside.chain.blame(0).expect("somebody is to blame");
    assert_eq!(aside.plugins[0].plugin, blame.plugin);
    assert_eq!(aside.plugins[0].reason(blame.reason), "rate");
    rig.begin(Nanos(NOW.0 * 2));
    let status = rig.host.status().remove(0);
    assert_eq!((status.total.packets, status.total.drops), (3, 1), "asking counts nowhere");
}

#[test]
fn a_stateful_plugin_is_listed_and_not_asked() {
    let mut rig = Rig::new(1);
    let drops = Wat { process: every(word(1, 1)), ..Wat::default() };
    let mut stateful = drops.clone();
    stateful.manifest += "stateful = true\n";
    let specs = [rig.spec("keeps", &stateful), rig.spec("drops", &drops)];
    rig.publish(&specs);
    let mut aside = rig.host.aside().expect("instances aside");
    let asked: Vec<Asked> = aside.plugins.iter().map(|plugin| plugin.asked).collect();
    assert_eq!(asked, [Asked::Not, Asked::Instance]);
    assert_eq!(ask(&mut aside, &numbered(2)), [Verdict::Drop(DropReason::Plugin); 2]);
    for position in 0..2 {
        let blame = aside.chain.blame(position).expect("somebody is to blame");
        assert_eq!(
            blame.plugin, aside.plugins[1].plugin,
            "the second, since the first is not asked"
        );
        assert_eq!(aside.plugins[1].reason(blame.reason), "second");
    }
}

#[test]
fn a_call_that_fails_aside_says_why_and_harms_nobody() {
    let mut rig = Rig::new(1);
    let traps = Wat { process: "unreachable".to_owned(), ..Wat::default() };
    // It must survive its warming: only a call with packets gives up.
    let process = "(if (local.get $n) (then unreachable))".to_owned();
    let specs = [rig.spec("traps", &Wat { process, ..traps })];
    rig.publish(&specs);
    let mut aside = rig.host.aside().expect("instances aside");
    ask(&mut aside, &numbered(1));
    let (generation, text) = aside.traps.take().expect("a trap");
    assert_eq!(generation, aside.plugins[0].generation);
    assert!(text.contains("gave up"), "{text}");
    assert_eq!(rig.host.status()[0].total.traps, 0);
}

/// A plan asks the plugins of a new configuration beside those that run, and changes neither.
#[test]
fn a_plan_asks_both_sets_and_leaves_no_trace() {
    let mut rig = Rig::new(1);
    let kept = rig.spec("kept", &Wat::default());
    let old = rig.spec("changed", &Wat { process: every(word(1, 0)), ..Wat::default() });
    rig.publish(&[kept.clone(), old]);
    let status = rig.host.status();
    // The file changes in place, as an operator would do it.
    let new = rig.spec("changed", &Wat { process: every(word(1, 1)), ..Wat::default() });
    let added = rig.spec("added", &Wat::default());
    let specs = [added, new, kept];
    let (mut before, mut after) = rig.host.asides_of_plan(&specs).expect("both sets");
    assert_eq!(ask(&mut before, &numbered(1)), [Verdict::Drop(DropReason::Plugin)]);
    assert_eq!(ask(&mut after, &numbered(1)), [Verdict::Drop(DropReason::Plugin)]);
    let reason = |aside: &AsidePlugins| {
        let blame = aside.chain.blame(0).expect("somebody is to blame");
        let plugin = aside.plugins.iter().find(|plugin| plugin.plugin == blame.plugin);
        let plugin = plugin.expect("it is listed");
        (plugin.name.clone(), plugin.number, plugin.reason(blame.reason).to_owned())
    };
    assert_eq!(reason(&before), ("changed".to_owned(), 1, "first".to_owned()));
    assert_eq!(reason(&after), ("changed".to_owned(), 2, "second".to_owned()));
    let names = after.plugins.iter().map(|plugin| (plugin.name.as_str(), plugin.number));
    assert_eq!(names.collect::<Vec<_>>(), [("added", 1), ("changed", 2), ("kept", 1)]);
    assert_eq!(rig.host.status(), status, "what runs is what ran");
    // What comes into force afterwards takes the numbers that were foretold.
    rig.publish(&specs);
    let numbers: Vec<u64> = rig.host.status().iter().map(|status| status.generation).collect();
    assert_eq!(numbers, [1, 2, 1]);
    let broken = PluginSpec::new("broken", rig.directory.path().join("none"), HookPoint::Ingress);
    assert!(rig.host.asides_of_plan(&[broken]).is_err());
}

/// Going back is to the modules and configurations that ran, whatever stands in their files by now.
#[test]
fn a_checkpoint_is_whole_whatever_becomes_of_the_files() {
    let mut rig = Rig::new(1);
    let drops = Wat { process: every(word(1, 0)), ..Wat::default() };
    let [kept, changed, gone] = ["kept", "changed", "gone"].map(|name| rig.spec(name, &drops));
    let kept = PluginSpec { hook: HookPoint::Ingress, ..kept };
    rig.publish(&[kept.clone(), changed, gone.clone()]);
    let checkpoint = rig.host.checkpoint();
    let numbers = |rig: &Rig| -> Vec<(String, u64)> {
        rig.host.status().into_iter().map(|status| (status.name, status.generation)).collect()
    };
    let changed = rig.spec("changed", &Wat::default());
    std::fs::remove_file(&gone.path).expect("the file was there");
    rig.publish(&[changed, kept.clone()]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Drop(DropReason::Plugin)]);
    rig.publish(&[]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Continue]);

    let set = rig.host.prepare_checkpoint(&checkpoint).expect("no file is needed");
    rig.host.publish(set).expect("the worker has room");
    rig.begin(Nanos(NOW.0 * 2));
    let expected = [("kept", 2), ("changed", 3), ("gone", 2)];
    assert_eq!(numbers(&rig), expected.map(|(name, number)| (name.to_owned(), number)));
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), NOW), [Verdict::Drop(DropReason::Plugin)]);
    assert!(rig.host.poll_files().is_empty(), "what stands in the files by now is known");

    // Going back to what runs keeps every plugin with its memory.
    let set = rig.host.prepare_checkpoint(&checkpoint).expect("no file is needed");
    rig.host.publish(set).expect("the worker has room");
    assert_eq!(numbers(&rig), expected.map(|(name, number)| (name.to_owned(), number)));
}
