//! The host's functions, called with arguments that are wrong in every way.

mod common;

use common::{COUNTERS, Rig, Wat, batch, numbered};
use frame::{Nanos, Verdict};

/// A plugin that opens a meter of one token and, for a batch of one packet, runs `call`.
fn caller(call: &str) -> Wat {
    let mut wat = Wat::default();
    wat.manifest.push_str("imports = [\"log\", \"meter\", \"random\", \"quota\"]\n");
    wat.imports = "(import \"sluice\" \"random\" (func $random (result i64)))
        (import \"sluice\" \"quota_open\" (func $quota (param i32 i32 i64) (result i32)))
        (import \"sluice\" \"quota_batch\"
            (func $admit (param i32 i32 i32 i32 i64 i32)))
        (import \"sluice\" \"quota_contains\"
            (func $contains (param i32 i32 i32 i32 i64 i32)))
        (import \"sluice\" \"quota_leave\"
            (func $leave (param i32 i32 i32 i32 i64 i32)))
        (import \"sluice\" \"log\" (func $log (param i32 i32 i32)))
        (import \"sluice\" \"meter_open\" (func $open (param i64 i64 i32) (result i32)))
        (import \"sluice\" \"meter_batch\"
            (func $take (param i32 i32 i32 i64 i32 i32)))
        (import \"sluice\" \"meter_prefix_batch\"
            (func $prefixes (param i32 i32 i32 i32 i32 i32 i64 i32)))"
        .to_owned();
    wat.configure = "(i32.or (call $open (i64.const 1000) (i64.const 1) (i32.const 64))
        (call $quota (i32.const 1) (i32.const 64) (i64.const 1000)))"
        .to_owned();
    wat.process = format!("(if (i32.eq (local.get $n) (i32.const 1)) (then {call}))");
    wat
}

fn grants() -> Vec<String> {
    ["log", "meter", "random", "quota"].map(str::to_owned).to_vec()
}

/// Whether one batch of one packet makes it trap, and its first counter afterwards.
fn outcome(call: &str) -> (bool, u64) {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("caller", &caller(call));
    spec.grants = grants();
    rig.publish(&[spec]);
    let verdicts = rig.turn(0, &mut batch(&numbered(1)), Nanos(1_000_000_000));
    assert_eq!(verdicts, [Verdict::Continue]);
    rig.begin(Nanos(2_000_000_000));
    rig.host.maintain();
    let total = rig.host.status().remove(0).total;
    (total.traps == 1, total.counters["one"])
}

/// A call of `meter_prefix_batch`, by its arguments but for the time.
fn prefixes(
    handle: &str,
    addresses: &str,
    stride: &str,
    n: &str,
    len4: &str,
    len6: &str,
    results: &str,
) -> String {
    let numbers = [handle, addresses, stride, n, len4, len6].map(|n| format!("(i32.const {n})"));
    format!("(call $prefixes {} (i64.const -1) (i32.const {results}))", numbers.join(" "))
}

#[test]
fn what_is_out_of_range_is_a_trap() {
    for call in [
        "(call $log (i32.const 1) (i32.const -1) (i32.const 1))",
        "(call $log (i32.const 1) (i32.const 65536) (i32.const 1))",
        "(call $log (i32.const 1) (i32.const 0) (i32.const -1))",
        "(call $take (i32.const 1) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $take (i32.const -1) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $take (i32.const 0) (i32.const 0) (i32.const 257) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $take (i32.const 0) (i32.const 0) (i32.const -1) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $take (i32.const 0) (i32.const 65521) (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $take (i32.const 0) (i32.const -16) (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0))",
        "(call $take (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 65533) (i32.const 0))",
        "(call $take (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0) (i32.const 65536))",
        "(call $take (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0) (i32.const -1))",
        &prefixes("1", "0", "64", "1", "24", "64", "0"),
        &prefixes("-1", "0", "64", "1", "24", "64", "0"),
        &prefixes("0", "0", "64", "257", "24", "64", "0"),
        &prefixes("0", "0", "64", "-1", "24", "64", "0"),
        &prefixes("0", "0", "15", "1", "24", "64", "0"),
        &prefixes("0", "0", "18", "1", "24", "64", "0"),
        &prefixes("0", "0", "4100", "1", "24", "64", "0"),
        &prefixes("0", "0", "-64", "1", "24", "64", "0"),
        &prefixes("0", "0", "64", "1", "33", "64", "0"),
        &prefixes("0", "0", "64", "1", "-1", "64", "0"),
        &prefixes("0", "0", "64", "1", "24", "129", "0"),
        &prefixes("0", "65521", "64", "1", "24", "64", "0"),
        &prefixes("0", "65472", "64", "2", "24", "64", "0"),
        &prefixes("0", "-16", "16", "1", "24", "64", "0"),
        &prefixes("0", "0", "64", "1", "24", "64", "65536"),
        "(call $admit (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $admit (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $admit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 257) (i64.const 0) (i32.const 0))",
        "(call $admit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i64.const 0) (i32.const 0))",
        "(call $admit (i32.const 0) (i32.const 65521) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $admit (i32.const 0) (i32.const 0) (i32.const 65521) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $admit (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 65536))",
        "(call $admit (i32.const 0) (i32.const 0) (i32.const -16) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 257) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const 0) (i32.const 65521) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const 0) (i32.const 0) (i32.const 65521) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $contains (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 65536))",
        "(call $contains (i32.const 0) (i32.const 0) (i32.const -16) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 257) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const 0) (i32.const 65521) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const 0) (i32.const 0) (i32.const 65521) (i32.const 1) (i64.const 0) (i32.const 0))",
        "(call $leave (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1) (i64.const 0) (i32.const 65536))",
        "(call $leave (i32.const 0) (i32.const 0) (i32.const -16) (i32.const 1) (i64.const 0) (i32.const 0))",
    ] {
        assert_eq!(outcome(call), (true, 0), "{call}");
    }
}

#[test]
fn what_is_in_range_is_done() {
    // Two keys, both zero, of a meter of one token: the first is admitted.
    let take = format!(
        "(call $log (i32.const 3) (i32.const 65535) (i32.const 1))
         (call $take (i32.const 0) (i32.const 51200) (i32.const 2) (i64.const -1) (i32.const 0)
           (i32.const {COUNTERS}))"
    );
    assert_eq!(outcome(&take), (false, 1), "little-endian bytes 1, 0");
    let none = "(call $take (i32.const 0) (i32.const 65536) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 65536))";
    assert_eq!(outcome(none), (false, 0));
    // Five addresses 20 bytes apart, the last at the memory's end, of which the /8 and the /16 count: 10.1.0.0 and
    // 10.2.0.0 (mapped, and of one network), 0:1:: and 0:2:: (of two), 10.1.0.0 again. The same as keys, of which
    // the first two are used up.
    let at = |n: u32| 65536 - 16 - 20 * (4 - n);
    let mapped = |address: u32, second: u32| {
        format!(
            "(i32.store (i32.const {}) (i32.const 0xffff0000))
             (i32.store (i32.const {}) (i32.const {}))",
            address + 8,
            address + 12,
            10 | second << 8
        )
    };
    let by_prefix = format!(
        "{} {} (i32.store (i32.const {}) (i32.const 0x01000000)) \
         (i32.store (i32.const {}) (i32.const 0x02000000)) {} {} {} {} \
         (call $take (i32.const 0) (i32.const 51200) (i32.const 2) (i64.const -1) (i32.const 0) \
           (i32.const {}))",
        mapped(at(0), 1),
        mapped(at(1), 2),
        at(2),
        at(3),
        mapped(at(4), 1),
        prefixes("0", &at(0).to_string(), "20", "5", "8", "32", &COUNTERS.to_string()),
        mapped(51200, 0),
        mapped(51216, 9),
        COUNTERS + 5,
    );
    assert_eq!(outcome(&by_prefix), (false, 0x01_00_00_01_01_00_01), "1, 0, 1, 1, 0, then 0, 1");
    // Three pairs of one group with a budget of one: the member that is in, another, the first again.
    let admit = format!(
        "(i32.store (i32.const 51216) (i32.const 7))
         (call $admit (i32.const 0) (i32.const 51248) (i32.const 51200) (i32.const 3) (i64.const -1)
           (i32.const {COUNTERS}))"
    );
    assert_eq!(outcome(&admit), (false, 0x01_00_01), "bytes 1, 0, 1");
    // The same questions without adding: nobody is in, then one is, and after all that its group has room for none
    // but that one.
    let contains = |members: u32, results: u32| {
        format!(
            "(call $contains (i32.const 0) (i32.const 51248) (i32.const {members}) (i32.const 2)
               (i64.const -1) (i32.const {results}))"
        )
    };
    let looks = format!(
        "(i32.store (i32.const 51216) (i32.const 7))
         {before}
         (call $admit (i32.const 0) (i32.const 51248) (i32.const 51200) (i32.const 1) (i64.const -1)
           (i32.const {admitted}))
         {after}",
        before = contains(51200, COUNTERS),
        admitted = COUNTERS + 2,
        after = contains(51200, COUNTERS + 3),
    );
    assert_eq!(outcome(&looks), (false, 0x01_01_00_00), "bytes 0, 0, 1, 1, 0");
    // One is in and leaves, once; then there is room for the other.
    let change = |function: &str, members: u32, results: u32| {
        format!(
            "(call {function} (i32.const 0) (i32.const 51248) (i32.const {members}) (i32.const 1)
               (i64.const -1) (i32.const {results}))"
        )
    };
    let leaves = format!(
        "(i32.store (i32.const 51216) (i32.const 7)) {} {} {} {} {}",
        change("$leave", 51200, COUNTERS),
        change("$admit", 51200, COUNTERS + 1),
        change("$leave", 51200, COUNTERS + 2),
        change("$leave", 51200, COUNTERS + 3),
        change("$admit", 51216, COUNTERS + 4),
    );
    assert_eq!(outcome(&leaves), (false, 0x01_00_01_01_00), "bytes 0, 1, 1, 0, 1");
    let none = "(call $leave (i32.const 0) (i32.const 65536) (i32.const 65536) (i32.const 0)
        (i64.const 0) (i32.const 65536))";
    assert_eq!(outcome(none), (false, 0));
    let draws = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.extend_i32_u
           (i64.ne (call $random) (call $random))))"
    );
    assert_eq!(outcome(&draws), (false, 1), "two draws differ");
    let late_quota = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.extend_i32_u (i32.eq (i32.const -1)
           (call $quota (i32.const 1) (i32.const 64) (i64.const 1000)))))"
    );
    assert_eq!(outcome(&late_quota), (false, 1), "quotas are opened while configuring only");
    let late = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.extend_i32_u (i32.eq (i32.const -1)
           (call $open (i64.const 1000) (i64.const 1) (i32.const 64)))))"
    );
    assert_eq!(outcome(&late), (false, 1), "meters are opened while configuring only");
}

#[test]
fn meters_out_of_range_are_not_opened() {
    for (arguments, code) in [
        ("(i64.const 0) (i64.const 1) (i32.const 64)", 2),
        ("(i64.const 1000) (i64.const -1) (i32.const 64)", 3),
        ("(i64.const 1000) (i64.const 1) (i32.const 0)", 4),
        ("(i64.const 1000) (i64.const 1) (i32.const -1)", 4),
        ("(i64.const 1000) (i64.const 1) (i32.const 4194305)", 4),
    ] {
        let mut rig = Rig::new(1);
        let mut wat = caller("");
        // Its error, made positive, is the length of the text: that many zeros.
        wat.configure = format!("(i32.sub (i32.const 0) (call $open {arguments}))");
        let mut spec = rig.spec("opens", &wat);
        spec.grants = grants();
        let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
        let zeros = "\u{fffd}".repeat(code);
        assert!(error.ends_with(&format!("refused: {zeros}")), "{arguments}: {error}");
    }
}

/// What `call` returns while the plugin is configured, made positive; it must be an error.
fn code(call: &str) -> usize {
    let mut rig = Rig::new(1);
    let mut wat = caller("");
    wat.configure = format!("(i32.sub (i32.const 0) {call})");
    let mut spec = rig.spec("opens", &wat);
    spec.grants = grants();
    let error = rig.host.prepare(&[spec]).err().expect("refused").to_string();
    error.chars().filter(|letter| *letter == '\u{fffd}').count()
}

#[test]
fn all_meters_and_quotas_of_a_plugin_have_a_bound_together() {
    let meter =
        |entries: u32| format!("(call $open (i64.const 1000) (i64.const 1) (i32.const {entries}))");
    let quota = |members: u32| {
        format!("(call $quota (i32.const 1) (i32.const {members}) (i64.const 1000))")
    };
    for (most, one, expected) in [(meter(1 << 22), meter(1), 4), (quota(1 << 22), quota(1), 3)] {
        // Two of the largest are opened; the answer is that for the third.
        let third = format!("(block (result i32) (drop {most}) (drop {most}) {one})");
        assert_eq!(code(&third), expected, "{one}");
    }
}

#[test]
fn quotas_out_of_range_are_not_opened() {
    for (arguments, expected) in [
        ("(i32.const 0) (i32.const 64) (i64.const 1)", 2),
        ("(i32.const -1) (i32.const 64) (i64.const 1)", 2),
        ("(i32.const 1) (i32.const 0) (i64.const 1)", 3),
        ("(i32.const 1) (i32.const 4194305) (i64.const 1)", 3),
        ("(i32.const 1) (i32.const 64) (i64.const 0)", 4),
        ("(i32.const 1) (i32.const 64) (i64.const 86400001)", 4),
    ] {
        assert_eq!(code(&format!("(call $quota {arguments})")), expected, "{arguments}");
    }
    let most = "(call $quota (i32.const 2147483647) (i32.const 1) (i64.const 86400000))";
    let all = format!("(drop {most})").repeat(16);
    assert_eq!(code(&format!("(block (result i32) {all} {most})")), 5, "the seventeenth");
}

/// A plugin whose configuration fails with the text `!` unless `test` is true.
fn asks_for_names(test: &str) -> Wat {
    let mut wat = Wat::default();
    wat.manifest.push_str("imports = [\"names\"]\n");
    wat.imports =
        "(import \"sluice\" \"name_number\" (func $number (param i32 i32 i32) (result i32)))"
            .to_owned();
    wat.more =
        "(data (i32.const 30000) \"scrubber\\ff\") (data (i32.const 49152) \"!\")".to_owned();
    wat.configure = format!("(if (result i32) {test} (then i32.const 0) (else i32.const 1))");
    wat
}

#[test]
fn names_have_numbers_while_a_plugin_is_configured() {
    let names = policy::Names {
        next_hops: [("scrubber".to_owned(), 1023)].into(),
        tags: [("scrub".to_owned(), 2)].into(),
        classes: [("s".to_owned(), 255)].into(),
        interfaces: [("scrubbe".to_owned(), 1)].into(),
    };
    let loads = |test: &str| {
        let mut rig = Rig::new(1);
        let mut spec = rig.spec("asker", &asks_for_names(test));
        spec.grants = vec!["names".to_owned()];
        spec.names = names.clone().into();
        rig.host.prepare(&[spec]).map(|_| ()).map_err(|error| error.to_string())
    };
    for (kind, len, number) in [
        (0, 8, 1023),
        (1, 5, 2),
        (2, 1, 255),
        (3, 7, 1),
        (0, 7, -1),
        (1, 8, -1),
        (2, 0, -1),
        // Not a text.
        (0, 9, -1),
    ] {
        let ask = |answer: i32| {
            loads(&format!(
                "(i32.eq (i32.const {answer}) (call $number (i32.const {kind}) \
                 (i32.const 30000) (i32.const {len})))"
            ))
        };
        assert_eq!(ask(number), Ok(()), "kind {kind} length {len}");
        assert!(ask(number + 1).is_err(), "the test itself tells answers apart");
    }
    for arguments in [
        "(i32.const 4) (i32.const 30000) (i32.const 8)",
        "(i32.const -1) (i32.const 30000) (i32.const 8)",
        "(i32.const 0) (i32.const 65536) (i32.const 1)",
        "(i32.const 0) (i32.const 30000) (i32.const -1)",
    ] {
        let error = loads(&format!("(call $number {arguments})")).unwrap_err();
        assert!(error.contains("sluice.name_number"), "{arguments}: {error}");
    }
}

#[test]
fn names_have_no_numbers_for_a_plugin_that_runs() {
    let mut rig = Rig::new(1);
    let mut wat = asks_for_names("(i32.const 1)");
    wat.process = format!(
        "(i64.store (i32.const {COUNTERS}) (i64.extend_i32_s (i32.sub (i32.const 0) \
         (call $number (i32.const 0) (i32.const 30000) (i32.const 8)))))"
    );
    let mut spec = rig.spec("asker", &wat);
    spec.grants = vec!["names".to_owned()];
    spec.names = policy::Names {
        next_hops: [("scrubber".to_owned(), 5)].into(),
        ..policy::Names::default()
    }
    .into();
    rig.publish(&[spec]);
    rig.turn(0, &mut batch(&numbered(1)), Nanos(1));
    rig.begin(Nanos(200_000_000));
    let total = rig.host.status().remove(0).total;
    assert_eq!((total.traps, total.counters["one"]), (0, 2), "-2, as it was told");
}

#[test]
fn other_names_configure_a_plugin_that_asks_for_them_anew() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("asker", &asks_for_names("(i32.const 1)"));
    spec.grants = vec!["names".to_owned()];
    rig.publish(std::slice::from_ref(&spec));
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(rig.host.status()[0].generation, 1, "nothing is new");
    spec.names = policy::Names {
        next_hops: [("scrubber".to_owned(), 5)].into(),
        ..policy::Names::default()
    }
    .into();
    rig.publish(&[spec]);
    assert_eq!(rig.host.status()[0].generation, 2);
}
