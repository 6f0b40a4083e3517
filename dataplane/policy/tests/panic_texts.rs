//! What a guest writes to its error area before it traps is shown wherever the trap is.

mod common;

use common::{ERROR, Rig, Wat};
use frame::Nanos;
use policy::{Rehearsal, RehearsalHost, RehearsalPacket};

/// Code that leaves a text in the error area, then does what `then` says.
fn leaves(text: &str, then: &str) -> String {
    let mut code = String::new();
    for (at, byte) in text.bytes().chain([0]).enumerate() {
        code += &format!("(i32.store8 (i32.const {}) (i32.const {byte}))\n", ERROR as usize + at);
    }
    code + then
}

#[track_caller]
fn refusal(wat: &Wat) -> String {
    let mut rig = Rig::new(1);
    let spec = rig.spec("bad", wat);
    rig.host.prepare(&[spec]).err().expect("it is refused").to_string()
}

fn of(change: impl FnOnce(&mut Wat)) -> Wat {
    let mut wat = Wat::default();
    change(&mut wat);
    wat
}

#[test]
fn a_trap_while_it_is_configured_or_warmed_says_what_the_guest_said() {
    let text = refusal(&of(|wat| wat.configure = leaves("no table\n at 7", "unreachable")));
    assert_eq!(text, "plugin `bad`: sluice_configure failed: it gave up: no table; at 7");
    let text = refusal(&of(|wat| wat.process = leaves("len is 0", "unreachable")));
    assert_eq!(
        text,
        "plugin `bad`: sluice_process failed: it gave up: len is 0 \
         (the call had 0 packets: every new instance is warmed by such calls)"
    );
    let text = refusal(&of(|wat| {
        wat.process = leaves("\u{1b}[2J", "(drop (i32.div_u (i32.const 1) (i32.const 0)))");
    }));
    assert!(text.contains("integer divide by zero; it left the text: \u{fffd}[2J"), "{text}");
    // Without a text it is what it was.
    let text = refusal(&of(|wat| wat.process = leaves("", "unreachable")));
    assert!(text.contains("failed: it gave up (unreachable, or a panic) (the call had"), "{text}");
}

#[test]
fn what_was_in_the_area_before_is_not_taken_for_a_text() {
    let text = refusal(&of(|wat| {
        wat.configure = leaves("noted while configured", "i32.const 0");
        wat.process = "unreachable".into();
    }));
    assert!(!text.contains("noted"), "{text}");
}

#[test]
fn a_trap_of_a_tick_and_of_the_state_calls_says_what_the_guest_said() {
    let stated = |export: &str, import: &str, tick: &str| {
        of(|wat| {
            wat.manifest += "tick_ms = 10\nstate = { schema = 1, bytes_max = 8 }\n";
            wat.layout[0] = 80;
            wat.memory = format!(
                "{} (data (i32.const {}) \"{}\")",
                wat.memory,
                common::LAYOUT + 48,
                [0_u32, 16, 0, 0, 0, 60_000, 8, 0]
                    .iter()
                    .flat_map(|field| field.to_le_bytes())
                    .map(|byte| format!("\\{byte:02x}"))
                    .collect::<String>()
            );
            wat.more = format!(
                "(func (export \"sluice_export\") (result i32) {export})
                 (func (export \"sluice_import\") (param i32 i32) (result i32) {import})
                 (func (export \"sluice_tick\") (param i64) {tick})"
            );
        })
    };
    let rehearsed = |wat: &Wat| {
        let rig = Rig::new(1);
        let spec = rig.spec("p", wat);
        Rehearsal::new(&spec.path, None, &RehearsalHost::default()).expect("it is good")
    };
    let good = ("i32.const 0", "i32.const 0", "");
    let mut rehearsal = rehearsed(&stated(good.0, good.1, &leaves("in a tick", "unreachable")));
    assert_eq!(rehearsal.tick(Nanos(1)), Err("it gave up: in a tick".to_owned()));
    let mut rehearsal = rehearsed(&stated(&leaves("exporting", "unreachable"), good.1, good.2));
    let failed = rehearsal.hand_over().expect_err("it traps");
    assert_eq!(failed, "sluice_export: it gave up: exporting");
    let mut rehearsal = rehearsed(&stated(good.0, &leaves("importing", "unreachable"), good.2));
    let failed = rehearsal.hand_over().expect_err("it traps");
    assert_eq!(failed, "sluice_import: it gave up: importing");
    let wat = of(|wat| {
        wat.process =
            format!("(if (local.get $n) (then {}))", leaves("with packets", "unreachable"));
    });
    let failed =
        rehearsed(&wat).judge(0, &[RehearsalPacket::default()], Nanos(1)).expect_err("traps");
    assert_eq!(failed, "it gave up: with packets");
}
