//! Plugins that judge flows: the router keeps their verdicts, and asks about a flow once a lifetime.

mod common;

use common::{COUNTERS, Rig, Wat, batch, numbered};
use frame::{Descriptor, DropReason, Hook as _, HookPoint, Nanos, Verdict};
use policy::OnTrap;
use sluice_abi::flags;

const PLUGIN: Verdict = Verdict::Drop(DropReason::Plugin);
const DEFAULT: Verdict = Verdict::Drop(DropReason::PluginDefault);
const S: u64 = 1_000_000_000;

/// Counts the packets that it is shown, and answers with what their source addresses begin with.
fn echoing() -> Wat {
    let mut wat = Wat::default();
    wat.manifest.push_str("granularity = \"flow\"\n");
    wat.process = format!(
        "(local $i i32)
         (if (i32.eq (local.get $n) (i32.const 13)) (then unreachable))
         (i64.store (i32.const {COUNTERS}) (i64.add (i64.load (i32.const {COUNTERS}))
           (i64.extend_i32_u (local.get $n))))
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (i64.store (i32.add (i32.const {verdicts}) (i32.shl (local.get $i) (i32.const 3)))
             (i64.load (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 6)))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))",
        verdicts = common::VERDICTS,
    );
    wat
}

/// A packet whose verdict is `action`, with the reason 0, for so many tenths of a second.
fn packet(action: u8, lifetime: u16, port: u16) -> Descriptor {
    let mut source = [0; 16];
    source[..8].copy_from_slice(&(u64::from(action) | u64::from(lifetime) << 16).to_le_bytes());
    Descriptor { source, source_port: port, ..Descriptor::default() }
}

fn rig() -> Rig {
    let mut rig = Rig::new(1);
    let spec = rig.spec("echoing", &echoing());
    rig.publish(&[spec]);
    rig
}

/// Verdicts of a turn, and how many packets the plugin was asked about so far.
fn turn(rig: &mut Rig, packets: &[Descriptor], now: u64) -> (Vec<Verdict>, u64) {
    let verdicts = rig.turn(0, &mut batch(packets), Nanos(now));
    let total = rig.host.status().remove(0).total;
    (verdicts, total.packets - total.flow_hits)
}

#[test]
fn a_flow_is_asked_about_once_a_lifetime() {
    let mut rig = rig();
    let packets = [packet(1, 20, 1), packet(0, 20, 2), packet(1, 0, 3), packet(0, 0, 4)];
    let expected = vec![PLUGIN, Verdict::Continue, PLUGIN, Verdict::Continue];
    assert_eq!(turn(&mut rig, &packets, S), (expected.clone(), 4));
    assert_eq!(turn(&mut rig, &packets, 2 * S), (expected.clone(), 6), "two have no lifetime");
    assert_eq!(turn(&mut rig, &packets, 3 * S - 1), (expected.clone(), 8));
    assert_eq!(turn(&mut rig, &packets, 3 * S), (expected, 12), "over, in the middle of the flows");
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.flow_hits, total.flow_misses, total.flow_evictions), (4, 12, 0));
    assert_eq!((total.packets, total.batches, total.drops, total.bad_verdicts), (16, 4, 8, 0));
    // All are kept: the guest is not called at all.
    turn(&mut rig, &packets[..2], 3 * S + 1);
    rig.begin(Nanos(9 * S));
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.batches, total.counters["one"]), (4, 12));
}

#[test]
fn only_packets_of_the_same_flow_route_and_slice_get_it() {
    let mut rig = rig();
    let of = packet(1, 600, 1);
    turn(&mut rig, &[of], S);
    let others = [
        Descriptor { destination_port: 9, ..of },
        Descriptor { ingress: 1, ..of },
        Descriptor { vrf: 1, ..of },
        Descriptor { slice: 1, ..of },
        Descriptor { next_hop: 1, ..of },
    ];
    let (_, shown) = turn(&mut rig, &others, S + 1);
    assert_eq!(shown, 6);
    // A mismatch is a miss, and what is asked anew takes its place.
    assert_eq!(turn(&mut rig, &[others[4], of], S + 2).1, 7);
}

#[test]
fn fragments_and_errors_are_always_asked_about_and_never_kept() {
    let mut rig = rig();
    let of = packet(1, 600, 1);
    for flag in [flags::FRAGMENT, flags::FRAGMENT | flags::LATER_FRAGMENT, flags::ICMP_ERROR] {
        let before = turn(&mut rig, &[of], S).1;
        let odd = Descriptor { flags: flag, ..of };
        assert_eq!(turn(&mut rig, &[odd, of, odd], S), (vec![PLUGIN; 3], before + 2), "{flag}");
        assert_eq!(turn(&mut rig, &[odd], S).1, before + 3);
    }
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.flow_hits, total.flow_misses), (5, 1));
}

#[test]
fn what_makes_no_sense_is_not_kept() {
    let mut rig = rig();
    let bad = packet(77, 600, 1);
    assert_eq!(turn(&mut rig, &[bad], S), (vec![Verdict::Continue], 1));
    assert_eq!(turn(&mut rig, &[bad], S), (vec![Verdict::Continue], 2));
    assert_eq!(rig.host.status().remove(0).total.bad_verdicts, 2);
}

#[test]
fn a_new_generation_and_a_new_configuration_begin_without_verdicts() {
    let mut rig = rig();
    let of = packet(1, 600, 1);
    assert_eq!(turn(&mut rig, &[of], S).1, 1);
    assert_eq!(turn(&mut rig, &[of], S).1, 1);
    rig.host.reload("echoing").expect("it reloads");
    assert_eq!(turn(&mut rig, &[of], S).1, 2);
    // The plugin is kept as it is, beside another one.
    let same = rig.spec("echoing", &echoing());
    let other = rig.spec("other", &Wat::default());
    rig.publish(&[same, other]);
    assert_eq!(turn(&mut rig, &[of], S), (vec![PLUGIN], 3));
    assert_eq!(rig.host.status()[0].generation, 2);
}

#[test]
fn a_trap_costs_the_packets_that_were_asked_about_alone() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("echoing", &echoing());
    spec.on_trap = Some(OnTrap::Closed);
    rig.publish(&[spec]);
    let kept: Vec<_> = (100..110).map(|port| packet(0, 600, port)).collect();
    turn(&mut rig, &kept, S);
    let asked: Vec<_> = (0..13).map(|port| packet(0, 600, port)).collect();
    let all = [&kept[..], &asked[..]].concat();
    let (verdicts, _) = turn(&mut rig, &all, S);
    assert_eq!(verdicts, [vec![Verdict::Continue; 10], vec![DEFAULT; 13]].concat());
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.traps, total.unjudged, total.flow_hits), (1, 13, 10));
    // The spare goes on, with the verdicts that were kept.
    turn(&mut rig, &kept, S);
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.packets, total.flow_hits, total.batches), (43, 20, 2));
}

#[test]
fn more_flows_than_there_is_room_for_evict_and_deny_nothing() {
    let mut rig = rig();
    let wave = |rig: &mut Rig, first: u32| {
        for start in (first..first + 40_960).step_by(256) {
            let packets: Vec<_> = (start..start + 256)
                .map(|number| Descriptor {
                    destination_port: (number >> 16) as u16,
                    ..packet(0, 600, number as u16)
                })
                .collect();
            let verdicts = rig.turn(0, &mut batch(&packets), Nanos(S));
            assert_eq!(verdicts, [Verdict::Continue; 256]);
        }
    };
    wave(&mut rig, 0);
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.flow_misses, total.drops, total.default_drops), (40_960, 0, 0));
    assert!(total.flow_evictions >= 40_960 - 16_384, "{}", total.flow_evictions);
}

#[test]
fn who_dropped_is_known_of_verdicts_that_were_kept() {
    let mut rig = rig();
    rig.chains[0].watch(true);
    let mut packets = batch(&[packet(1, 600, 1)]);
    for _ in 0..2 {
        packets.verdicts[0] = Verdict::Continue;
        rig.chains[0].begin_turn(Nanos(S));
        rig.chains[0].run(HookPoint::Ingress, &mut packets, Nanos(S));
        let blame = rig.chains[0].blame(0).expect("somebody is to blame");
        assert_eq!((blame.generation, blame.reason), (1, 0));
    }
    assert_eq!(rig.host.status().remove(0).total.flow_hits, 1);
}

#[test]
fn a_plugin_that_judges_packets_has_no_lifetimes() {
    let mut rig = Rig::new(1);
    let mut wat = echoing();
    wat.manifest = wat.manifest.replace("granularity = \"flow\"\n", "");
    let spec = rig.spec("echoing", &wat);
    rig.publish(&[spec]);
    assert_eq!(turn(&mut rig, &[packet(1, 5, 1)], S).0, [Verdict::Continue]);
    assert_eq!(turn(&mut rig, &numbered(1), S).0, [Verdict::Continue]);
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.bad_verdicts, total.flow_misses), (1, 0));
}
