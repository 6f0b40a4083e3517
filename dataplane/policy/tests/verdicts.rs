//! What batches and verdicts look like to the guest and what the host makes of its answers.

mod common;

use common::{COUNTERS, Rig, VERDICTS, Wat, batch, every, numbered, word};
use frame::{DropReason, HookPoint, Nanos, Verdict};
use policy::{DefaultVerdict, PluginState};

const PLUGIN: Verdict = Verdict::Drop(DropReason::Plugin);
const DEFAULT: Verdict = Verdict::Drop(DropReason::PluginDefault);

/// Drops the packets whose source port is odd, for the reason 0 or 1 by its second bit, and counts
/// packets and calls.
fn odd_ports() -> Wat {
    Wat {
        process: format!(
            "(local $i i32) (local $port i32)
             (i64.store (i32.const {COUNTERS}) (i64.add (i64.load (i32.const {COUNTERS}))
               (i64.extend_i32_u (local.get $n))))
             (i64.store (i32.const {second}) (i64.add (i64.load (i32.const {second}))
               (i64.extend_i32_u (i32.ne (local.get $n) (i32.const 0)))))
             (block $end (loop $next
               (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
               (local.set $port (i32.load16_u
                 (i32.add (i32.const {ports}) (i32.shl (local.get $i) (i32.const 6)))))
               (if (i32.and (local.get $port) (i32.const 1)) (then
                 (i64.store (i32.add (i32.const {VERDICTS}) (i32.shl (local.get $i) (i32.const 3)))
                   (i64.or (i64.const 1) (i64.shl (i64.extend_i32_u (i32.and (i32.shr_u
                     (local.get $port) (i32.const 1)) (i32.const 1))) (i64.const 32))))))
               (local.set $i (i32.add (local.get $i) (i32.const 1)))
               (br $next)))",
            second = COUNTERS + 8,
            ports = 1024 + 32,
        ),
        ..Wat::default()
    }
}

#[test]
fn verdicts_fall_on_their_packets_and_are_counted_by_reason() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("odd", &odd_ports());
    rig.publish(&[spec]);
    for n in [1, 2, 63, 64, 256] {
        let verdicts = rig.turn(0, &mut batch(&numbered(n)), Nanos(5));
        for (port, verdict) in verdicts.iter().enumerate() {
            assert_eq!(*verdict, if port % 2 == 1 { PLUGIN } else { Verdict::Continue });
        }
    }
    rig.begin(Nanos(200_000_000));
    let status = &rig.host.status()[0];
    let total = &status.total;
    assert_eq!((total.packets, total.batches, total.drops), (386, 5, 192));
    let reasons: Vec<_> = total.drops_by_reason.iter().map(|(k, v)| (k.as_str(), *v)).collect();
    assert_eq!(reasons, [("default", 0), ("first", 97), ("second", 95)]);
    assert_eq!(
        (total.default_drops, total.unjudged, total.traps, total.bad_verdicts),
        (0, 0, 0, 0)
    );
    assert_eq!((total.counters["one"], total.counters["two"]), (386, 5));
    assert!(total.cycles_per_packet > 0.0);
    assert_eq!(
        (status.state, status.generation, status.hook),
        (PluginState::Running, 1, "ingress")
    );
    assert_eq!(status.workers.len(), 1);
    assert_eq!(&status.workers[0], total);
}

#[test]
fn decided_packets_are_neither_shown_nor_changed() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("odd", &odd_ports());
    rig.publish(&[spec]);
    let mut packets = batch(&numbered(256));
    for (port, verdict) in packets.verdicts.iter_mut().enumerate() {
        *verdict = if port % 3 == 0 { Verdict::Punt } else { Verdict::Continue };
    }
    use frame::Hook as _;
    rig.chains[0].begin_turn(Nanos(1));
    rig.chains[0].run(HookPoint::Ingress, &mut packets, Nanos(1));
    for (port, verdict) in packets.verdicts.iter().enumerate() {
        let expected = match (port % 3, port % 2) {
            (0, _) => Verdict::Punt,
            (_, 1) => PLUGIN,
            _ => Verdict::Continue,
        };
        assert_eq!(*verdict, expected, "port {port}");
    }
    packets.verdicts.fill(Verdict::Punt);
    rig.chains[0].run(HookPoint::Ingress, &mut packets, Nanos(1));
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.packets, total.batches), (170, 1), "a batch without open packets is no call");
}

#[test]
fn at_egress_plugins_judge_what_leaves_and_nothing_else() {
    let mut rig = Rig::new(1);
    let wat = Wat { manifest: Wat::default().manifest.replace("ingress", "egress"), ..odd_ports() };
    let mut spec = rig.spec("odd", &wat);
    spec.hook = HookPoint::Egress;
    rig.publish(&[spec]);
    let leaves = |port: usize| match port % 3 {
        0 => Verdict::Transmit(wire::InterfaceId(1)),
        1 => Verdict::Fragment(wire::InterfaceId(2)),
        _ => Verdict::Punt,
    };
    let mut packets = batch(&numbered(256));
    for (port, verdict) in packets.verdicts.iter_mut().enumerate() {
        *verdict = leaves(port);
    }
    use frame::Hook as _;
    rig.chains[0].begin_turn(Nanos(1));
    rig.chains[0].run(HookPoint::Egress, &mut packets, Nanos(1));
    for (port, verdict) in packets.verdicts.iter().enumerate() {
        let is_dropped = port % 3 < 2 && port % 2 == 1;
        assert_eq!(*verdict, if is_dropped { PLUGIN } else { leaves(port) }, "port {port}");
    }
    assert_eq!(rig.host.status().remove(0).total.packets, 171);
}

#[test]
fn the_first_plugin_that_drops_decides_and_hooks_are_apart() {
    let mut rig = Rig::new(1);
    let first = rig.spec("odd", &odd_ports());
    let second = rig.spec("all", &Wat { process: every(word(1, 1)), ..Wat::default() });
    let mut elsewhere = rig.spec(
        "elsewhere",
        &Wat {
            manifest: Wat::default().manifest.replace("ingress", "egress"),
            process: every(word(1, 0)),
            ..Wat::default()
        },
    );
    elsewhere.hook = HookPoint::Egress;
    rig.publish(&[elsewhere, first, second]);
    let verdicts = rig.turn(0, &mut batch(&numbered(10)), Nanos(5));
    assert_eq!(verdicts, [PLUGIN; 10]);
    let status = rig.host.status();
    let seen: Vec<_> =
        status.iter().map(|s| (s.name.as_str(), s.total.packets, s.total.drops)).collect();
    assert_eq!(seen, [("odd", 10, 5), ("all", 5, 5), ("elsewhere", 0, 0)]);
    use frame::Hook as _;
    assert!(rig.chains[0].is_active(HookPoint::Egress));
    assert!(!rig.chains[0].is_active(HookPoint::Forward));
}

#[test]
fn answers_that_make_no_sense_cost_the_default() {
    let bad = [
        word(2, 0),
        word(255, 0),
        word(1, 2),
        word(1, u32::MAX - 1),
        word(0, 1),
        word(1, 0) | 1 << 8,
        word(0, 0) | 1 << 15,
        word(1, 0) | 1 << 16,
        u64::MAX,
    ];
    for word in bad {
        for (default, expected) in
            [(DefaultVerdict::Continue, Verdict::Continue), (DefaultVerdict::Drop, DEFAULT)]
        {
            let mut rig = Rig::new(1);
            let mut spec = rig.spec("bad", &Wat { process: every(word), ..Wat::default() });
            spec.default = Some(default);
            rig.publish(&[spec]);
            let verdicts = rig.turn(0, &mut batch(&numbered(3)), Nanos(5));
            assert_eq!(verdicts, [expected; 3], "{word:#x}");
            let total = rig.host.status().remove(0).total;
            let dropped = if default == DefaultVerdict::Drop { 3 } else { 0 };
            assert_eq!((total.bad_verdicts, total.drops, total.default_drops), (3, 0, dropped));
        }
    }
}

#[test]
fn packets_left_undecided_get_the_default() {
    let mut rig = Rig::new(1);
    let manifest = Wat::default().manifest + "default = \"drop\"\n";
    let spec = rig.spec("silent", &Wat { manifest, ..Wat::default() });
    let mut overruled = spec.clone();
    overruled.name = "overruled".to_owned();
    overruled.default = Some(DefaultVerdict::Continue);
    rig.publish(&[overruled, spec]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(3)), Nanos(5)), [PLUGIN; 3]);
    let status = rig.host.status();
    assert_eq!((status[0].total.drops, status[1].total.drops), (0, 3));
    assert_eq!(status[1].total.drops_by_reason["default"], 3);
    assert_eq!(status[1].total.bad_verdicts, 0);
}

#[test]
fn wider_strides_are_honoured() {
    let mut wat = odd_ports();
    // Descriptors every 128 bytes: the guest's own loop steps by 64, so it sees packet 0, its tail,
    // packet 1, and so on; only even places hold packets.
    wat.layout[2] = 65_536;
    wat.layout[3] = 128;
    wat.memory = "(memory (export \"memory\") 3)".to_owned();
    wat.process = wat.process.replace("i32.const 1056", "i32.const 65568").replace(
        "(i32.shl (local.get $i) (i32.const 6))",
        "(i32.shl (local.get $i) (i32.const 7))",
    );
    // Verdicts every 16 bytes.
    wat.layout[4] = 65_536 + 32_768;
    wat.layout[5] = 16;
    wat.process =
        wat.process.replace(&format!("(i32.const {VERDICTS})"), "(i32.const 98304)").replace(
            "(i32.shl (local.get $i) (i32.const 3))",
            "(i32.shl (local.get $i) (i32.const 4))",
        );
    let mut rig = Rig::new(1);
    let spec = rig.spec("wide", &wat);
    rig.publish(&[spec]);
    let verdicts = rig.turn(0, &mut batch(&numbered(256)), Nanos(5));
    for (port, verdict) in verdicts.iter().enumerate() {
        assert_eq!(*verdict, if port % 2 == 1 { PLUGIN } else { Verdict::Continue });
    }
}

#[test]
fn a_counter_that_falls_never_makes_the_sum_fall() {
    let process = format!("(i64.store (i32.const {COUNTERS}) (i64.extend_i32_u (local.get $n)))");
    let mut rig = Rig::new(1);
    let spec = rig.spec("falls", &Wat { process, ..Wat::default() });
    rig.publish(&[spec]);
    let mut sums = Vec::new();
    for (turn, n) in [100_usize, 40, 41].into_iter().enumerate() {
        let now = Nanos(1_000_000_000 * (turn as u64 + 1));
        rig.turn(0, &mut batch(&numbered(n)), now);
        rig.begin(Nanos(now.0 + 500_000_000));
        sums.push(rig.host.status()[0].total.counters["one"]);
    }
    assert_eq!(sums, [100, 140, 141]);
}

/// Writes a drop to each verdict from one on.
fn drop_from(first: &str) -> String {
    format!(
        "(local $i i32) (local.set $i {first})
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (i32.const 256)))
           (i64.store (i32.add (i32.const {VERDICTS}) (i32.shl (local.get $i) (i32.const 3)))
             (i64.const 1))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    )
}

#[test]
fn verdicts_start_as_the_default_whatever_the_guest_wrote_before() {
    // What lies behind those of its packets is none of them, and becomes none of the next batch's.
    let mut rig = Rig::new(1);
    let behind = Wat { process: drop_from("(local.get $n)"), ..Wat::default() };
    let spec = rig.spec("behind", &behind);
    rig.publish(&[spec]);
    for n in [8, 16, 3, 17, 256, 1, 256] {
        let verdicts = rig.turn(0, &mut batch(&numbered(n)), Nanos(5));
        assert_eq!(verdicts, vec![Verdict::Continue; n], "{n} packets");
    }

    // Nor is what it writes in a call that is about no packet.
    let mut rig = Rig::new(1);
    let mut ticking = Wat::default();
    ticking.manifest += "tick_ms = 10\n";
    ticking.more =
        format!("(func (export \"sluice_tick\") (param $now i64) {})", drop_from("(i32.const 0)"));
    let spec = rig.spec("ticking", &ticking);
    rig.publish(&[spec]);
    for ms in 1..50 {
        let verdicts = rig.turn(0, &mut batch(&numbered(9)), Nanos(ms * 5_000_000));
        assert_eq!(verdicts, [Verdict::Continue; 9], "after {ms} turns");
    }

    // A default that drops comes back after a batch that was let through.
    let mut rig = Rig::new(1);
    let odd = format!(
        "(if (i32.and (local.get $n) (i32.const 1)) (then
           (memory.fill (i32.const {VERDICTS}) (i32.const 0) (i32.const 2048))))"
    );
    let mut spec = rig.spec("odd", &Wat { process: odd, ..Wat::default() });
    spec.default = Some(DefaultVerdict::Drop);
    rig.publish(&[spec]);
    for n in [3, 4, 4, 255, 256, 3, 2] {
        let expected = if n % 2 == 1 { Verdict::Continue } else { PLUGIN };
        let verdicts = rig.turn(0, &mut batch(&numbered(n)), Nanos(5));
        assert_eq!(verdicts, vec![expected; n], "{n} packets");
    }
}

#[test]
fn who_comes_after_one_that_lets_all_through_is_asked_about_what_is_open() {
    let mut rig = Rig::new(1);
    let (all, odd) = (Wat::default(), odd_ports());
    let places = [("first", &all), ("second", &odd), ("third", &all), ("fourth", &all)];
    let specs = places.map(|(name, wat)| rig.spec(name, wat));
    rig.publish(&specs);
    for n in [64, 1, 19] {
        let verdicts = rig.turn(0, &mut batch(&numbered(n)), Nanos(5));
        for (port, verdict) in verdicts.iter().enumerate() {
            assert_eq!(*verdict, if port % 2 == 1 { PLUGIN } else { Verdict::Continue });
        }
    }
    let asked: Vec<_> = rig.host.status().iter().map(|plugin| plugin.total.packets).collect();
    assert_eq!(asked, [84, 84, 43, 43]);
}
