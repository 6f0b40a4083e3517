//! What a verdict with an edit means by `sdk/ABI.md`, for a plugin that declares every action, has one
//! reason, and judges packets.

use frame::{DropReason, HookPoint, PacketEdit, Verdict};
use policy::DefaultVerdict;

use crate::cursor::Cursor;

/// The plugins' hooks, with the verdict of what they leave undecided.
pub(super) const DEFAULTS: [(HookPoint, DefaultVerdict); 3] = [
    (HookPoint::Ingress, DefaultVerdict::Continue),
    (HookPoint::Forward, DefaultVerdict::Drop),
    (HookPoint::Egress, DefaultVerdict::Continue),
];

/// Numbers of next hops, egress tags and classes that have a name.
pub(super) const NUMBERS: [u16; 2] = [1, 2];
/// The class that has a DSCP.
const VOICE: u8 = 1;
/// That DSCP.
pub(super) const VOICE_DSCP: u8 = 46;

const MARK: u8 = 1;
const TAG: u8 = 2;
const MIRROR: u8 = 4;
const CLASS: u8 = 8;
const DSCP: u8 = 16;
const MSS: u8 = 32;
const TCP_OPTIONS: u8 = 64;

/// What a plugin writes for a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// `action: u8, flags: u8, lifetime: u16, argument: u32`.
    pub(super) word: u64,
    /// `mark: u32, tag: u16, mss: u16, class: u8, dscp: u8, tcp_options: u8` and five bytes.
    pub(super) edit: [u8; 16],
}

impl Answer {
    pub(super) fn read(input: &mut Cursor<'_>) -> Self {
        let word = u64::from(input.u32()) | u64::from(input.u32()) << 32;
        let mut edit = [0; 16];
        let given = input.bytes(16);
        edit[..given.len()].copy_from_slice(given);
        // An answer all of ones has the plugin give up, which other targets are for.
        edit[15] = 0;
        Self { word, edit }
    }
}

/// What is decided about a packet so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) verdict: Verdict,
    pub(super) edit: PacketEdit,
}

/// What the answer asks for, if it makes sense.
enum Sense {
    Void,
    Drop,
    Go { flags: u8, next_hop: u16 },
}

fn sense(point: HookPoint, answer: &Answer) -> Sense {
    let [action, flags, low, high, argument @ ..] = answer.word.to_le_bytes();
    let argument = u32::from_le_bytes(argument);
    let is_egress = point == HookPoint::Egress;
    // This plugin judges packets.
    if (low, high) != (0, 0) {
        return Sense::Void;
    }
    let next_hop = match action {
        0 if argument == 0 => 0,
        1 if argument == 0 || argument == u32::MAX => {
            return if flags & !MIRROR == 0 { Sense::Drop } else { Sense::Void };
        }
        2 if !is_egress => match u16::try_from(argument) {
            Ok(number) if NUMBERS.contains(&number) => number,
            _ => return Sense::Void,
        },
        _ => return Sense::Void,
    };
    let possible = if is_egress { MARK | MIRROR | CLASS } else { 0x7f };
    let Fields { tag, mss, class, dscp, tcp_options, .. } = Fields::of(answer);
    let is_bad = flags & !possible != 0
        || flags & TAG != 0 && !NUMBERS.contains(&tag)
        || flags & CLASS != 0 && !NUMBERS.contains(&u16::from(class))
        || flags & DSCP != 0 && dscp > 63
        || flags & MSS != 0 && mss < 216
        || flags & TCP_OPTIONS != 0 && tcp_options > 31;
    if is_bad { Sense::Void } else { Sense::Go { flags, next_hop } }
}

/// The fields of an edit.
struct Fields {
    mark: u32,
    tag: u16,
    mss: u16,
    class: u8,
    dscp: u8,
    tcp_options: u8,
}

impl Fields {
    fn of(answer: &Answer) -> Self {
        let [m0, m1, m2, m3, t0, t1, s0, s1, class, dscp, tcp_options, ..] = answer.edit;
        Self {
            mark: u32::from_le_bytes([m0, m1, m2, m3]),
            tag: u16::from_le_bytes([t0, t1]),
            mss: u16::from_le_bytes([s0, s1]),
            class,
            dscp,
            tcp_options,
        }
    }
}

/// Whether an answer is one that gets the default instead.
pub(super) fn is_void(point: HookPoint, answer: &Answer) -> bool {
    matches!(sense(point, answer), Sense::Void)
}

/// What is decided about a packet after the plugin at `point`, if it is asked, has answered.
pub(super) fn after(point: HookPoint, before: State, answer: &Answer) -> State {
    // A transmit ends the chains before the packet leaves.
    let is_sent = point != HookPoint::Egress && before.edit.next_hop != 0;
    if !point.asks_about(before.verdict) || is_sent {
        return before;
    }
    match sense(point, answer) {
        Sense::Void => match DEFAULTS[point as usize].1 {
            DefaultVerdict::Continue => before,
            DefaultVerdict::Drop => {
                State { verdict: Verdict::Drop(DropReason::PluginDefault), ..before }
            }
        },
        Sense::Drop => State { verdict: Verdict::Drop(DropReason::Plugin), ..before },
        Sense::Go { flags, next_hop } => {
            let fields = Fields::of(answer);
            let mut edit = before.edit;
            if flags & MARK != 0 {
                edit.mark = fields.mark;
            }
            if flags & TAG != 0 {
                edit.tag = fields.tag;
            }
            if flags & CLASS != 0 {
                edit.class = fields.class;
            }
            if flags & DSCP != 0 {
                edit.dscp = Some(fields.dscp);
            }
            if flags & MSS != 0 {
                edit.mss = fields.mss;
            }
            if flags & TCP_OPTIONS != 0 {
                edit.tcp_options = fields.tcp_options;
            }
            if next_hop != 0 {
                edit.next_hop = next_hop;
            }
            State { edit, ..before }
        }
    }
}

/// What is to change in a packet's bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) dscp: Option<u8>,
    /// 0 for any.
    pub(super) mss: u16,
    /// Kinds of options that are to go.
    pub(super) kinds: [Option<u8>; 5],
}

/// The same of what was set before the packet was rewritten.
pub(super) fn wanted(set: PacketEdit) -> Wanted {
    // An explicit DSCP goes before that of a class.
    let of_class = (set.class == VOICE).then_some(VOICE_DSCP);
    // Window scale, SACK permitted, timestamps, multipath, Fast Open.
    let mut bit = 0;
    let kinds = [3, 4, 8, 30, 34].map(|kind| {
        bit += 1;
        (set.tcp_options >> (bit - 1) & 1 != 0).then_some(kind)
    });
    Wanted { dscp: set.dscp.or(of_class), mss: set.mss, kinds }
}
