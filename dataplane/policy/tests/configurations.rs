//! A set that goes with the tables of a configuration is taken over with them, and what came later behind it.

mod common;

use common::{Rig, Wat, batch, every, word};
use frame::{Descriptor, DropReason, Hook as _, Nanos, Verdict};
use policy::PluginSpec;
use sluice_abi::action;

const DROPPED: Verdict = Verdict::Drop(DropReason::Plugin);

fn spec(rig: &Rig, name: &str, action: u8) -> PluginSpec {
    rig.spec(name, &Wat { process: every(word(action, 0)), ..Wat::default() })
}

/// What becomes of a packet in the next turn.
fn judged(rig: &mut Rig, now: u64) -> Verdict {
    rig.turn(0, &mut batch(&[Descriptor::default()]), Nanos(now))[0]
}

#[test]
fn a_set_waits_for_its_tables() {
    let mut rig = Rig::new(1);
    let pass = spec(&rig, "pass", action::CONTINUE);
    rig.publish(&[pass]);
    rig.chains[0].tables_are_of(4);
    assert_eq!(judged(&mut rig, 1), Verdict::Continue);

    let drop = spec(&rig, "drop", action::DROP);
    let set = rig.host.prepare(std::slice::from_ref(&drop)).expect("a plugin");
    rig.host.publish_for(set, 6).expect("room");
    assert_eq!(judged(&mut rig, 2), Verdict::Continue, "its tables are not in force");
    rig.chains[0].tables_are_of(5);
    assert_eq!(judged(&mut rig, 3), Verdict::Continue, "nor by others");

    // Meanwhile the plugin that waits is replaced, and then another configuration follows.
    Wat { process: every(word(action::CONTINUE, 0)), ..Wat::default() }.write(&drop.path);
    rig.host.reload("drop").expect("reloaded");
    assert_eq!(judged(&mut rig, 4), Verdict::Continue);
    Wat { process: every(word(action::DROP, 0)), ..Wat::default() }.write(&drop.path);
    rig.host.reload("drop").expect("reloaded");
    let total = |rig: &mut Rig| rig.host.status()[0].total.packets;
    assert_eq!(total(&mut rig), 0, "none of the three was asked so far");
    // With a later one's tables all that waits is in force, in its order.
    rig.chains[0].tables_are_of(7);
    assert_eq!(judged(&mut rig, 5), DROPPED);
    assert_eq!(total(&mut rig), 1);

    // What is published by itself waits for nothing.
    let pass = spec(&rig, "pass", action::CONTINUE);
    let set = rig.host.prepare(&[pass]).expect("a plugin");
    rig.host.publish(set).expect("room");
    assert_eq!(judged(&mut rig, 6), Verdict::Continue);
}
