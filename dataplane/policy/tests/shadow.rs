//! Plugins asked aside: they answer as those that run would, and leave no trace in what runs.

mod common;

use common::{Rig, Wat, batch, every, numbered, plugin, word};
use frame::{Descriptor, DropReason, Hook, HookPoint, Nanos, Verdict};
use policy::{Asked, PluginConfig, PluginSpec, Shadow};

const NOW: Nanos = Nanos(1_000_000_000);

fn ask(shadow: &mut Shadow, packets: &[Descriptor]) -> Vec<Verdict> {
    let mut batch = batch(packets);
    shadow.chain.watch(true);
    shadow.chain.begin_turn(NOW);
    if shadow.chain.is_active(HookPoint::Ingress) {
        shadow.chain.run(HookPoint::Ingress, &mut batch, NOW);
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
        let mut shadow = rig.host.shadow().expect("instances aside");
        assert_eq!(shadow.plugins[0].asked, Asked::CopiedMeters);
        assert_eq!(ask(&mut shadow, &packet), [Verdict::Continue]);
    }
    for verdict in [Verdict::Continue, Verdict::Continue, dropped] {
        assert_eq!(rig.turn(0, &mut batch(&packet), NOW), [verdict]);
    }
    let mut shadow = rig.host.shadow().expect("instances aside");
    assert_eq!(ask(&mut shadow, &packet), [dropped]);
    let blame = shadow.chain.blame(0).expect("somebody is to blame");
    assert_eq!(shadow.plugins[0].plugin, blame.plugin);
    assert_eq!(shadow.plugins[0].reason(blame.reason), "rate");
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
    let mut shadow = rig.host.shadow().expect("instances aside");
    let asked: Vec<Asked> = shadow.plugins.iter().map(|plugin| plugin.asked).collect();
    assert_eq!(asked, [Asked::Not, Asked::Instance]);
    assert_eq!(ask(&mut shadow, &numbered(2)), [Verdict::Drop(DropReason::Plugin); 2]);
    for position in 0..2 {
        let blame = shadow.chain.blame(position).expect("somebody is to blame");
        assert_eq!(
            blame.plugin, shadow.plugins[1].plugin,
            "the second, since the first is not asked"
        );
        assert_eq!(shadow.plugins[1].reason(blame.reason), "second");
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
    let mut shadow = rig.host.shadow().expect("instances aside");
    ask(&mut shadow, &numbered(1));
    let (generation, text) = shadow.traps.take().expect("a trap");
    assert_eq!(generation, shadow.plugins[0].generation);
    assert!(text.contains("gave up"), "{text}");
    assert_eq!(rig.host.status()[0].total.traps, 0);
}
