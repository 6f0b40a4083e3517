//! What plugins may ask for besides drops: what becomes of each verdict and edit, plugin after plugin.

mod common;

use common::{Rig, VERDICTS, Wat, batch, word};
use frame::{
    Act, Batch, Descriptor, DropReason, Hook as _, HookPoint, KnownNumbers, Nanos, PacketEdit,
    Verdict,
};
use policy::{DefaultVerdict, PluginSpec};
use sluice_abi::{Edit, action, edit};

const DROPPED: Verdict = Verdict::Drop(DropReason::Plugin);
const DEFAULT: Verdict = Verdict::Drop(DropReason::PluginDefault);

const EDITS: u32 = 17_408;
const MARKS: u32 = 21_504;
const ALL: [&str; 8] = ["transmit", "tag", "class", "mark", "mirror", "dscp", "mss", "tcp-options"];

/// A module with edits of this stride and, if it is asked for, marks.
fn module(hook: &str, actions: &[&str], stride: u32, marks: bool, process: String) -> Wat {
    let mut wat = Wat::default();
    wat.manifest = wat.manifest.replace("\"ingress\"", &format!("\"{hook}\""));
    wat.manifest += &format!("actions = {actions:?}\n");
    wat.layout[0] = 80;
    let marks = if marks { MARKS } else { 0 };
    let tail = [EDITS, stride, marks, 0, 0, 0, 0, 0];
    let bytes: String = tail
        .iter()
        .flat_map(|field| field.to_le_bytes())
        .map(|byte| format!("\\{byte:02x}"))
        .collect();
    wat.more = format!("(data (i32.const {}) \"{bytes}\")", common::LAYOUT + 48);
    wat.process = process;
    wat
}

/// A plugin that says of each packet what the packet says: its source address is the edit, and its
/// destination address begins with the verdict.
fn parrot(stride: u32) -> String {
    format!(
        "(local $i i32) (local $d i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (local.set $d (i32.add (i32.const 1024) (i32.shl (local.get $i) (i32.const 6))))
           (i64.store (i32.add (i32.const {VERDICTS}) (i32.shl (local.get $i) (i32.const 3)))
             (i64.load offset=16 (local.get $d)))
           (memory.copy
             (i32.add (i32.const {EDITS}) (i32.mul (local.get $i) (i32.const {stride})))
             (local.get $d) (i32.const 16))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    )
}

/// A plugin that makes of the marks that it sees a mark: mark + 1000 tag + 100000 class + 1.
fn reader() -> String {
    format!(
        "(local $i i32) (local $m i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (local.set $m (i32.add (i32.const {MARKS}) (i32.shl (local.get $i) (i32.const 3))))
           (i64.store (i32.add (i32.const {VERDICTS}) (i32.shl (local.get $i) (i32.const 3)))
             (i64.const 256))
           (i32.store (i32.add (i32.const {EDITS}) (i32.shl (local.get $i) (i32.const 4)))
             (i32.add (i32.const 1) (i32.add (i32.load (local.get $m)) (i32.add
               (i32.mul (i32.const 1000) (i32.load16_u offset=4 (local.get $m)))
               (i32.mul (i32.const 100000) (i32.load8_u offset=6 (local.get $m)))))))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    )
}

fn spec(rig: &Rig, name: &str, wat: &Wat, hook: HookPoint) -> PluginSpec {
    let mut spec = rig.spec(name, wat);
    spec.hook = hook;
    spec.grants = ALL.iter().map(|action| (*action).to_owned()).collect();
    spec
}

fn known() -> KnownNumbers {
    let mut known = KnownNumbers::NONE;
    known.next_hops.insert(3);
    known.tags.insert(5);
    known.classes.insert(7);
    known
}

/// A packet on which the parrot says this.
fn packet(action: u8, flags: u8, argument: u32, edit: Edit) -> Descriptor {
    let mut descriptor = Descriptor::default();
    descriptor.source.copy_from_slice(bytemuck::bytes_of(&edit));
    let word = word(action, argument) | u64::from(flags) << 8;
    descriptor.destination[..8].copy_from_slice(&word.to_le_bytes());
    descriptor
}

fn packets(descriptors: &[Descriptor]) -> Batch {
    let mut batch = batch(descriptors);
    batch.edits.known = known();
    batch
}

fn run(rig: &mut Rig, point: HookPoint, batch: &mut Batch) {
    rig.chains[0].begin_turn(Nanos(1));
    rig.chains[0].run(point, batch, Nanos(1));
}

#[test]
fn every_edit_reaches_its_packet() {
    let edit =
        Edit { mark: 9, tag: 5, mss: 1200, class: 7, dscp: 46, tcp_options: 3, ..Edit::default() };
    for stride in [16, 24] {
        let mut rig = Rig::new(1);
        let wat = module("ingress", &ALL, stride, false, parrot(stride));
        let spec = spec(&rig, "parrot", &wat, HookPoint::Ingress);
        rig.publish(&[spec]);
        // Every set of flags but the one that does not exist, among packets without any.
        let descriptors: Vec<_> = (0..=255)
            .map(|n| packet(action::CONTINUE, if n % 2 == 0 { 0 } else { n / 2 }, 0, edit))
            .collect();
        let mut batch = packets(&descriptors);
        run(&mut rig, HookPoint::Ingress, &mut batch);
        for (n, position) in (0..=255_u8).zip(0..) {
            let flags = if n % 2 == 0 { 0 } else { n / 2 };
            let mut expected = PacketEdit::default();
            expected.take(flags, &edit);
            assert_eq!(batch.edits.get(position), expected, "flags {flags:#b} stride {stride}");
            assert_eq!(batch.verdicts[position], Verdict::Continue);
        }
        let total = rig.host.status().remove(0).total;
        assert_eq!((total.bad_verdicts, total.mirrored, total.transmitted), (0, 64, 0));
        assert_eq!(total.edited, 128 - 2, "all but no flag and a mirror alone");
    }
}

#[test]
fn a_bad_verdict_is_void_and_gets_the_default() {
    let good =
        Edit { mark: 9, tag: 5, mss: 216, class: 7, dscp: 63, tcp_options: 31, ..Edit::default() };
    let all = 0x7f;
    let cases = [
        ("action", packet(3, 0, 0, good)),
        ("argument", packet(action::CONTINUE, 0, 1, good)),
        ("reason", packet(action::DROP, 0, 2, good)),
        ("edit of a drop", packet(action::DROP, edit::MARK, 0, good)),
        ("next hop", packet(action::TRANSMIT, 0, 4, good)),
        ("no next hop", packet(action::TRANSMIT, 0, 0, good)),
        ("flag", packet(action::CONTINUE, 128, 0, good)),
        ("tag", packet(action::CONTINUE, all, 0, Edit { tag: 6, ..good })),
        ("class", packet(action::CONTINUE, all, 0, Edit { class: 8, ..good })),
        ("dscp", packet(action::CONTINUE, all, 0, Edit { dscp: 64, ..good })),
        ("mss", packet(action::CONTINUE, all, 0, Edit { mss: 215, ..good })),
        ("option", packet(action::CONTINUE, all, 0, Edit { tcp_options: 32, ..good })),
        ("transmit with a bad edit", packet(action::TRANSMIT, all, 3, Edit { tag: 6, ..good })),
    ];
    for (default, expected) in
        [(DefaultVerdict::Continue, Verdict::Continue), (DefaultVerdict::Drop, DEFAULT)]
    {
        let mut rig = Rig::new(1);
        let wat = module("ingress", &ALL, 16, false, parrot(16));
        let mut spec = spec(&rig, "parrot", &wat, HookPoint::Ingress);
        spec.default = Some(default);
        rig.publish(&[spec]);
        rig.chains[0].watch(true);
        let descriptors: Vec<_> = cases.iter().map(|(_, packet)| *packet).collect();
        let mut batch = packets(&descriptors);
        run(&mut rig, HookPoint::Ingress, &mut batch);
        for (position, (case, _)) in cases.iter().enumerate() {
            assert_eq!(batch.verdicts[position], expected, "{case}");
            assert_eq!(batch.edits.get(position), PacketEdit::default(), "{case}");
            let deed = batch.edits.deeds()[position];
            assert_eq!(usize::from(deed.position), position);
            assert!(matches!(deed.act, Act::Bad(_)), "{case}: {deed:?}");
        }
        let total = rig.host.status().remove(0).total;
        assert_eq!(total.bad_verdicts, cases.len() as u64);
        let drops = if expected == DEFAULT { cases.len() as u64 } else { 0 };
        assert_eq!((total.default_drops, total.drops), (drops, 0));
        assert_eq!((total.edited, total.mirrored, total.transmitted), (0, 0, 0));
    }
}

#[test]
fn what_the_manifest_does_not_declare_is_void() {
    for (position, left_out) in ALL.iter().enumerate() {
        let mut rig = Rig::new(1);
        let actions: Vec<_> = ALL.iter().copied().filter(|action| action != left_out).collect();
        let wat = module("ingress", &actions, 16, false, parrot(16));
        let spec = spec(&rig, "parrot", &wat, HookPoint::Ingress);
        rig.publish(&[spec]);
        let edit = Edit { tag: 5, mss: 1200, class: 7, ..Edit::default() };
        let flags = [
            0,
            edit::TAG,
            edit::CLASS,
            edit::MARK,
            edit::MIRROR,
            edit::DSCP,
            edit::MSS,
            edit::TCP_OPTIONS,
        ];
        let asked: Vec<_> = flags
            .iter()
            .map(|flag| match flag {
                0 => packet(action::TRANSMIT, 0, 3, edit),
                flag => packet(action::CONTINUE, *flag, 0, edit),
            })
            .collect();
        run(&mut rig, HookPoint::Ingress, &mut packets(&asked));
        let total = rig.host.status().remove(0).total;
        assert_eq!(total.bad_verdicts, 1, "{left_out}");
        run(&mut rig, HookPoint::Ingress, &mut packets(&asked[position..=position]));
        let total = rig.host.status().remove(0).total;
        assert_eq!(total.bad_verdicts, 2, "{left_out}");
    }
}

#[test]
fn edits_accumulate_and_later_plugins_see_the_marks() {
    let mut rig = Rig::new(1);
    let parrot = module("ingress", &ALL, 16, false, parrot(16));
    let reader_at = |hook| module(hook, &["mark"], 16, true, reader());
    let specs = [
        spec(&rig, "parrot", &parrot, HookPoint::Ingress),
        spec(&rig, "second", &reader_at("ingress"), HookPoint::Ingress),
        spec(&rig, "third", &reader_at("egress"), HookPoint::Egress),
    ];
    rig.publish(&specs);
    let edit = Edit { mark: 10, tag: 5, class: 7, dscp: 1, ..Edit::default() };
    let mut batch = packets(&[
        packet(action::CONTINUE, edit::MARK | edit::TAG | edit::CLASS | edit::DSCP, 0, edit),
        packet(action::CONTINUE, edit::TAG, 0, edit),
        packet(action::DROP, 0, 0, edit),
        packet(action::CONTINUE, 0, 0, edit),
    ]);
    run(&mut rig, HookPoint::Ingress, &mut batch);
    let marks: Vec<u32> = (0..4).map(|position| batch.edits.get(position).mark).collect();
    assert_eq!(marks, [705_011, 5_001, 0, 1], "the dropped one was not shown to the second plugin");
    assert_eq!(batch.edits.get(0).dscp, Some(1), "what the second did not name is as it was");
    for verdict in &mut batch.verdicts[..4] {
        if verdict.is_open() {
            *verdict = Verdict::Transmit(wire::InterfaceId(1));
        }
    }
    run(&mut rig, HookPoint::Egress, &mut batch);
    let marks: Vec<u32> = (0..4).map(|position| batch.edits.get(position).mark).collect();
    assert_eq!(marks, [1_410_012, 10_002, 0, 2]);
    // The marks of an earlier batch are not seen in the next one.
    batch.edits.reset();
    batch.verdicts[..4].fill(Verdict::Transmit(wire::InterfaceId(1)));
    run(&mut rig, HookPoint::Egress, &mut batch);
    assert!((0..4).all(|position| batch.edits.get(position).mark == 1));
}

#[test]
fn a_transmit_ends_the_chain_before_the_packet_leaves() {
    let mut rig = Rig::new(1);
    let mut specs = Vec::new();
    for (name, hook, point) in [
        ("first", "ingress", HookPoint::Ingress),
        ("second", "ingress", HookPoint::Ingress),
        ("third", "forward", HookPoint::Forward),
        ("fourth", "egress", HookPoint::Egress),
    ] {
        let process = if name == "first" { parrot(16) } else { reader() };
        let actions: &[&str] = if name == "first" { &ALL } else { &["mark"] };
        let wat = module(hook, actions, 16, true, process);
        specs.push(spec(&rig, name, &wat, point));
    }
    rig.publish(&specs);
    let edit = Edit { dscp: 10, ..Edit::default() };
    let mut batch = packets(&[
        packet(action::TRANSMIT, edit::DSCP, 3, edit),
        packet(action::CONTINUE, 0, 0, edit),
        packet(action::TRANSMIT, 0, 3, edit),
    ]);
    run(&mut rig, HookPoint::Ingress, &mut batch);
    run(&mut rig, HookPoint::Forward, &mut batch);
    assert!(batch.verdicts[..3].iter().all(|verdict| verdict.is_open()), "the look-up decides");
    let next_hops: Vec<u16> = (0..3).map(|position| batch.edits.get(position).next_hop).collect();
    assert_eq!(next_hops, [3, 0, 3]);
    assert_eq!(batch.edits.get(0).dscp, Some(10));
    let asked = |rig: &Rig| -> Vec<u64> {
        rig.host.status().iter().map(|plugin| plugin.total.packets).collect()
    };
    assert_eq!(asked(&rig), [3, 1, 1, 0]);
    batch.verdicts[..3].fill(Verdict::Transmit(wire::InterfaceId(0)));
    run(&mut rig, HookPoint::Egress, &mut batch);
    assert_eq!(asked(&rig), [3, 1, 1, 3], "at egress all are asked about");
    assert_eq!(rig.host.status()[0].total.transmitted, 2);
}

#[test]
fn a_trap_of_a_later_plugin_leaves_transmitted_packets_alone() {
    let mut rig = Rig::new(1);
    let first = module("ingress", &ALL, 16, false, parrot(16));
    let second =
        Wat { process: "(if (local.get $n) (then unreachable))".to_owned(), ..Wat::default() };
    let mut closed = spec(&rig, "second", &second, HookPoint::Ingress);
    closed.on_trap = Some(policy::OnTrap::Closed);
    let specs = [spec(&rig, "first", &first, HookPoint::Ingress), closed];
    rig.publish(&specs);
    let mut batch = packets(&[
        packet(action::TRANSMIT, 0, 3, Edit::default()),
        packet(action::CONTINUE, 0, 0, Edit::default()),
    ]);
    run(&mut rig, HookPoint::Ingress, &mut batch);
    assert_eq!(batch.verdicts[..2], [Verdict::Continue, DEFAULT]);
}

#[test]
fn at_egress_only_what_needs_no_rewriting_is_possible() {
    let mut rig = Rig::new(1);
    let wat = module("egress", &ALL, 16, false, parrot(16));
    let spec = spec(&rig, "parrot", &wat, HookPoint::Egress);
    rig.publish(&[spec]);
    let edit = Edit { mark: 1, tag: 5, mss: 1200, class: 7, ..Edit::default() };
    let possible = edit::MARK | edit::MIRROR | edit::CLASS;
    let mut asked: Vec<_> = (0..7).map(|bit| packet(action::CONTINUE, 1 << bit, 0, edit)).collect();
    asked.push(packet(action::TRANSMIT, 0, 3, edit));
    asked.push(packet(action::CONTINUE, possible, 0, edit));
    let mut batch = packets(&asked);
    let leaving = Verdict::Transmit(wire::InterfaceId(1));
    batch.verdicts[..9].fill(leaving);
    run(&mut rig, HookPoint::Egress, &mut batch);
    assert!(batch.verdicts[..9].iter().all(|verdict| *verdict == leaving));
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.bad_verdicts, total.edited, total.mirrored), (5, 3, 2));
    assert_eq!(batch.edits.get(8), PacketEdit { mark: 1, class: 7, ..PacketEdit::default() });
}

#[test]
fn whoever_looks_on_learns_what_each_plugin_did() {
    let mut rig = Rig::new(1);
    let wat = module("ingress", &ALL, 16, false, parrot(16));
    let specs =
        [spec(&rig, "one", &wat, HookPoint::Ingress), spec(&rig, "two", &wat, HookPoint::Ingress)];
    rig.publish(&specs);
    let edit = Edit { mark: 4, dscp: 8, ..Edit::default() };
    let asked = [
        packet(action::CONTINUE, edit::MARK, 0, edit),
        packet(action::CONTINUE, 0, 0, edit),
        packet(action::DROP, edit::MIRROR, 1, edit),
        packet(action::TRANSMIT, edit::DSCP, 3, edit),
    ];
    let mut batch = packets(&asked);
    run(&mut rig, HookPoint::Ingress, &mut batch);
    assert!(batch.edits.deeds().is_empty(), "nobody looks on");
    batch = packets(&asked);
    rig.chains[0].watch(true);
    run(&mut rig, HookPoint::Ingress, &mut batch);
    let mut deeds = Vec::new();
    for deed in batch.edits.deeds() {
        deeds.push((
            deed.plugin,
            deed.position,
            deed.act,
            deed.flags,
            deed.edit.mark,
            deed.edit.dscp,
        ));
    }
    assert_eq!(
        deeds,
        [
            (0, 0, Act::Edit, edit::MARK, 4, 0),
            (0, 2, Act::Drop, edit::MIRROR, 0, 0),
            (0, 3, Act::Transmit(3), edit::DSCP, 0, 8),
            (1, 0, Act::Edit, edit::MARK, 4, 0),
        ]
    );
    assert_eq!(batch.verdicts[2], DROPPED);
    assert_eq!(rig.chains[0].blame(2).map(|blame| blame.reason), Some(1));
}
