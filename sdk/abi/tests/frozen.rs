//! The ABI as it was released, held against the types: what a module of version 1.0 was built with must
//! stay where it is. **Append only**: a field at the end of a structure, a new constant, a new minor version
//! with a table of its own. A change to a line of a released table breaks every plugin that exists.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::mem::{offset_of, size_of_val};

use sluice_abi::*;

const RELEASED: &str = include_str!("v1.0.txt");

/// The lines of one structure. A field that is left out does not compile.
macro_rules! structure {
    ($text:ident, $name:ident: $($field:ident)*) => {
        let value = $name::default();
        let $name { $($field: _),* } = value;
        let (size, align) = (size_of::<$name>(), align_of::<$name>());
        writeln!($text, "struct {} {size} {align}", stringify!($name)).expect("a string");
        $(
            let (offset, size) = (offset_of!($name, $field), size_of_val(&value.$field));
            writeln!($text, "field {}.{} {offset} {size}", stringify!($name), stringify!($field))
                .expect("a string");
        )*
    };
}

macro_rules! constants {
    ($text:ident, $module:ident: $($name:ident)*) => {
        $(
            writeln!($text, "const {}::{} {}", stringify!($module), stringify!($name), $module::$name)
                .expect("a string");
        )*
    };
}

fn present() -> String {
    let mut text = String::new();
    structure!(text, Descriptor: source destination source_port destination_port protocol tcp_flags
        flags direction length ingress hash vrf l3_offset l4_offset ttl traffic_class slice next_hop
        egress);
    structure!(text, Verdict: action flags lifetime argument);
    structure!(text, Edit: mark tag mss class dscp tcp_options reserved);
    structure!(text, Marks: mark tag class reserved);
    structure!(text, PayloadHeader: len reserved);
    structure!(text, Layout: size batch_max descriptors descriptor_stride verdicts verdict_stride
        config config_capacity error error_capacity counters counters_len edits edit_stride marks
        payload payload_stride state state_capacity reserved);
    constants!(text, flags: IPV6 FRAGMENT LATER_FRAGMENT PORTS ICMP_ERROR DECAPSULATED OPTIONS);
    constants!(text, direction: TRANSIT OUTBOUND INBOUND);
    constants!(text, action: CONTINUE DROP TRANSMIT);
    constants!(text, edit: MARK TAG MIRROR CLASS DSCP MSS TCP_OPTIONS);
    constants!(text, tcp_option: WINDOW_SCALE SACK_PERMITTED TIMESTAMPS MULTIPATH FAST_OPEN);
    constants!(text, name_kind: NEXT_HOP EGRESS_TAG CLASS INTERFACE);
    for (name, value) in [
        ("ABI_VERSION", u64::from(ABI_VERSION)),
        ("BATCH_MAX", BATCH_MAX as u64),
        ("REASON_DEFAULT", u64::from(REASON_DEFAULT)),
        ("LAYOUT_BYTES_LEAST", LAYOUT_BYTES_LEAST as u64),
    ] {
        writeln!(text, "const {name} {value}").expect("a string");
    }
    text
}

#[test]
fn what_was_released_stays() {
    let present = present();
    let lines: BTreeSet<_> = present.lines().collect();
    let changed: Vec<_> = RELEASED
        .lines()
        .filter(|line| !line.starts_with('#'))
        // Sizes of structures and the version may grow, with the minor version.
        .filter(|line| {
            let is_size = line.starts_with("struct ") || line.starts_with("const ABI_VERSION ");
            let grew = is_size && ABI_VERSION_MINOR != 0;
            !(grew || lines.contains(line))
        })
        .collect();
    assert!(
        changed.is_empty(),
        "append only: these lines of v1.0.txt no longer hold:\n{}\nThe types now:\n{present}",
        changed.join("\n")
    );
    if ABI_VERSION_MINOR == 0 {
        let new: Vec<_> =
            lines.iter().filter(|line| !RELEASED.lines().any(|known| known == **line)).collect();
        assert!(new.is_empty(), "an addition takes a minor version and its table: {new:?}");
    }
}

#[test]
fn a_structure_grows_at_its_end_only() {
    // Each field lies behind the one before it, without a hole: nothing can be put in between.
    let mut end = 0;
    for line in present().lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("struct"), _) => end = 0,
            (Some("field"), Some(name)) => {
                let mut number = || words.next().and_then(|word| word.parse::<usize>().ok());
                let (offset, size) = number().zip(number()).expect("two numbers");
                assert_eq!(offset, end, "{name}");
                end = offset + size;
            }
            _ => {}
        }
    }
}
