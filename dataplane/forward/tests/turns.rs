//! Long turns are counted, and sleep is none.

mod common;

use common::{Plan, Rig};

/// How many long turns there were, and in which time the longest began to count.
fn long_turns(rig: &Rig) -> (u64, u64) {
    let counts = rig.worker.counters().long_turns.counts();
    counts.fold((0, 0), |(turns, _), (below_ns, count)| (turns + count, below_ns))
}

#[test]
fn a_turn_lasts_until_the_next_one_begins_unless_the_worker_rests() {
    let mut rig = Rig::new(&Plan::default());
    rig.now = rig.now.plus(forward::LONG_TURN_NS - 1);
    rig.turn();
    assert_eq!(long_turns(&rig), (0, 0), "a short one");
    rig.advance_ms(3);
    rig.turn();
    assert_eq!(long_turns(&rig), (1, 3_145_728), "3 ms");
    rig.worker.rest();
    rig.advance_ms(50);
    rig.turn();
    assert_eq!(long_turns(&rig).0, 1, "it slept");
    rig.advance_ms(5);
    rig.turn();
    assert_eq!(long_turns(&rig), (2, 5_242_880), "and was away again");
    rig.finish(Plan::default().frames);
}
