//! [`judge`]: what a guest's verdict and edit ask for, checked against what the plugin may ask for.
//!
//! ```text
//!  verdict  | action | flags | lifetime | argument |      8 bytes, little-endian
//!  edit     | mark | tag | mss | class | dscp | tcp options | 0 |    only fields that flags name are read
//! ```
//!
//! Invariant: a [`Judgement`] holds only what its plugin declared, what its hook can do, numbers that have
//! a name now, and values in range. One field that does not fit voids all of the verdict.

use frame::{HookPoint, KnownNumbers};
use sluice_abi::{Edit, REASON_DEFAULT, action, edit, tcp_option};

use crate::{Action, Granularity, Manifest};

/// A verdict of a plugin that has nothing to say: the most common one.
pub(crate) const CONTINUE: u64 = action::CONTINUE as u64;
/// A verdict of a plugin whose default is to drop, of what it left undecided.
pub(crate) const DROP_BY_DEFAULT: u64 = (REASON_DEFAULT as u64) << 32 | action::DROP as u64;

/// The least MSS that an edit may ask for: what a link with an MTU of 256 bytes leaves. Less would make
/// senders spend more on headers than on data.
const MSS_LEAST: u16 = 216;
const DSCP_MOST: u8 = 63;

/// Flags that can be set at `egress`, where the packet is written already.
const FLAGS_AT_EGRESS: u8 = edit::MARK | edit::MIRROR | edit::CLASS;

/// What a plugin may ask for where it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// Bits of [`sluice_abi::edit`].
    declared: u8,
    transmits: bool,
    has_lifetimes: bool,
    is_egress: bool,
    /// How many reasons of its own it has.
    reasons: u32,
}

impl Allowed {
    pub(crate) fn new(manifest: &Manifest, point: HookPoint) -> Self {
        Self {
            declared: manifest
                .actions
                .iter()
                .filter_map(|action| action.flag())
                .fold(0, |a, b| a | b),
            transmits: manifest.actions.contains(&Action::Transmit),
            has_lifetimes: manifest.granularity == Granularity::Flow,
            is_egress: point == HookPoint::Egress,
            reasons: u32::try_from(manifest.reasons.len()).unwrap_or(u32::MAX),
        }
    }
}

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ruling {
    /// It goes on.
    Continue,
    /// It is dropped, for the plugin's reason with this index or for its default.
    Drop(u32),
    /// It goes to the next hop of this number.
    Transmit(u16),
}

/// A verdict with its edit, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    pub(crate) ruling: Ruling,
    /// Bits of [`sluice_abi::edit`].
    pub(crate) flags: u8,
    /// How long it holds for the packet's flow, in units of 100 ms.
    #[allow(dead_code, reason = "for those who keep verdicts")]
    pub(crate) lifetime: u16,
    /// Fields that the flags do not name are 0.
    pub(crate) edit: Edit,
}

/// Why a verdict is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    Action,
    TransmitUndeclared,
    TransmitAtEgress,
    NextHop,
    Reason,
    Argument,
    Lifetime,
    FlagUnknown,
    FlagUndeclared,
    FlagAtEgress,
    FlagWithDrop,
    NoEdit,
    Tag,
    Class,
    Dscp,
    Mss,
    TcpOptions,
}

impl Bad {
    /// For a person.
    pub(crate) const fn text(self) -> &'static str {
        match self {
            Self::Action => "there is no such action",
            Self::TransmitUndeclared => "its manifest does not declare transmit",
            Self::TransmitAtEgress => "transmit is not possible at egress",
            Self::NextHop => "the configuration has no next hop of this number",
            Self::Reason => "it has no reason of this number",
            Self::Argument => "continue takes no argument",
            Self::Lifetime => "its manifest does not say that it judges flows",
            Self::FlagUnknown => "there is no such flag",
            Self::FlagUndeclared => "its manifest does not declare what the flags ask for",
            Self::FlagAtEgress => "the flags ask for what is not possible at egress",
            Self::FlagWithDrop => "of a dropped packet only a mirror can be asked for",
            Self::NoEdit => "it has no array of edits",
            Self::Tag => "the configuration has no egress tag of this number",
            Self::Class => "the configuration has no class of this number",
            Self::Dscp => "a DSCP above 63",
            Self::Mss => "an MSS below 216 bytes",
            Self::TcpOptions => "there is no such TCP option",
        }
    }
}

/// Checks the verdict `word`; `read_edit` gives the packet's edit, where there is one.
#[inline]
pub(crate) fn judge(
    word: u64,
    allowed: &Allowed,
    known: &KnownNumbers,
    read_edit: impl FnOnce() -> Option<Edit>,
) -> Result<Judgement, Bad> {
    let [kind, flags, lifetime_low, lifetime_high, argument @ ..] = word.to_le_bytes();
    let lifetime = u16::from_le_bytes([lifetime_low, lifetime_high]);
    let argument = u32::from_le_bytes(argument);
    let ruling = match kind {
        action::CONTINUE if argument == 0 => Ruling::Continue,
        action::CONTINUE => return Err(Bad::Argument),
        action::DROP if argument < allowed.reasons || argument == REASON_DEFAULT => {
            Ruling::Drop(argument)
        }
        action::DROP => return Err(Bad::Reason),
        action::TRANSMIT => Ruling::Transmit(next_hop(argument, allowed, known)?),
        _ => return Err(Bad::Action),
    };
    if lifetime != 0 && !allowed.has_lifetimes {
        return Err(Bad::Lifetime);
    }
    let edit = if flags == 0 {
        Edit::default()
    } else {
        edit_of(flags, ruling, allowed, known, read_edit)?
    };
    Ok(Judgement { ruling, flags, lifetime, edit })
}

fn next_hop(argument: u32, allowed: &Allowed, known: &KnownNumbers) -> Result<u16, Bad> {
    if !allowed.transmits {
        return Err(Bad::TransmitUndeclared);
    }
    if allowed.is_egress {
        return Err(Bad::TransmitAtEgress);
    }
    let number = u16::try_from(argument).ok().filter(|number| known.next_hops.contains(*number));
    number.ok_or(Bad::NextHop)
}

fn edit_of(
    flags: u8,
    ruling: Ruling,
    allowed: &Allowed,
    known: &KnownNumbers,
    read_edit: impl FnOnce() -> Option<Edit>,
) -> Result<Edit, Bad> {
    const ALL: u8 = edit::MARK
        | edit::TAG
        | edit::MIRROR
        | edit::CLASS
        | edit::DSCP
        | edit::MSS
        | edit::TCP_OPTIONS;
    if flags & !ALL != 0 {
        return Err(Bad::FlagUnknown);
    }
    if flags & !allowed.declared != 0 {
        return Err(Bad::FlagUndeclared);
    }
    if allowed.is_egress && flags & !FLAGS_AT_EGRESS != 0 {
        return Err(Bad::FlagAtEgress);
    }
    if matches!(ruling, Ruling::Drop(_)) && flags != edit::MIRROR {
        return Err(Bad::FlagWithDrop);
    }
    if flags == edit::MIRROR {
        return Ok(Edit::default());
    }
    let given = read_edit().ok_or(Bad::NoEdit)?;
    let mut edit = Edit::default();
    if flags & edit::MARK != 0 {
        edit.mark = given.mark;
    }
    if flags & edit::TAG != 0 {
        edit.tag = known.tags.contains(given.tag).then_some(given.tag).ok_or(Bad::Tag)?;
    }
    if flags & edit::CLASS != 0 {
        let is_known = known.classes.contains(u16::from(given.class));
        edit.class = is_known.then_some(given.class).ok_or(Bad::Class)?;
    }
    if flags & edit::DSCP != 0 {
        edit.dscp = (given.dscp <= DSCP_MOST).then_some(given.dscp).ok_or(Bad::Dscp)?;
    }
    if flags & edit::MSS != 0 {
        edit.mss = (given.mss >= MSS_LEAST).then_some(given.mss).ok_or(Bad::Mss)?;
    }
    if flags & edit::TCP_OPTIONS != 0 {
        let is_known = given.tcp_options & !tcp_option::ALL == 0;
        edit.tcp_options = is_known.then_some(given.tcp_options).ok_or(Bad::TcpOptions)?;
    }
    Ok(edit)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a plugin of this manifest line may ask for at a hook.
    fn allowed(more: &str, point: HookPoint) -> Allowed {
        let manifest = format!(
            "abi = \"1.0\"\nname = \"p\"\nhooks = [\"ingress\", \"forward\", \"egress\"]\n\
             reasons = [\"one\", \"two\"]\n{more}"
        );
        Allowed::new(&Manifest::parse(manifest.as_bytes()).unwrap(), point)
    }

    const EVERYTHING: &str = "actions = [\"transmit\", \"tag\", \"class\", \"mark\", \"mirror\", \
                              \"dscp\", \"mss\", \"tcp-options\"]";

    fn known() -> KnownNumbers {
        let mut known = KnownNumbers::NONE;
        known.next_hops.insert(3);
        known.tags.insert(1023);
        known.classes.insert(255);
        known
    }

    fn word(action: u8, flags: u8, lifetime: u16, argument: u32) -> u64 {
        u64::from(action)
            | u64::from(flags) << 8
            | u64::from(lifetime) << 16
            | u64::from(argument) << 32
    }

    const GOOD: Edit = Edit {
        mark: u32::MAX,
        tag: 1023,
        mss: 216,
        class: 255,
        dscp: 63,
        tcp_options: 31,
        reserved: [0xff; 5],
    };

    fn judged(word: u64, allowed: &Allowed, edit: Edit) -> Result<Judgement, Bad> {
        judge(word, allowed, &known(), || Some(edit))
    }

    #[test]
    fn every_action_with_every_set_of_flags_at_every_hook() {
        for point in HookPoint::ALL {
            let allowed = allowed(EVERYTHING, point);
            let is_egress = point == HookPoint::Egress;
            for action in 0..=u8::MAX {
                for flags in 0..=u8::MAX {
                    let argument = match action {
                        action::DROP => 1,
                        action::TRANSMIT => 3,
                        _ => 0,
                    };
                    let got = judged(word(action, flags, 0, argument), &allowed, GOOD);
                    let expected = match action {
                        action::CONTINUE => Ok(Ruling::Continue),
                        action::DROP => Ok(Ruling::Drop(1)),
                        action::TRANSMIT if is_egress => Err(Bad::TransmitAtEgress),
                        action::TRANSMIT => Ok(Ruling::Transmit(3)),
                        _ => Err(Bad::Action),
                    };
                    let expected = expected.and_then(|ruling| match flags {
                        128.. => Err(Bad::FlagUnknown),
                        _ if is_egress && flags & 0b111_0010 != 0 => Err(Bad::FlagAtEgress),
                        0 | 4 => Ok(ruling),
                        _ if action == action::DROP => Err(Bad::FlagWithDrop),
                        _ => Ok(ruling),
                    });
                    let case = format!("{point:?} action {action} flags {flags:#b}");
                    assert_eq!(got.map(|judged| judged.ruling), expected, "{case}");
                    if let Ok(judged) = got {
                        let edit = judged.edit;
                        let named = |bit: u8, value: u64| if flags & bit != 0 { value } else { 0 };
                        assert_eq!(u64::from(edit.mark), named(1, 0xffff_ffff), "{case}");
                        assert_eq!(u64::from(edit.tag), named(2, 1023), "{case}");
                        assert_eq!(u64::from(edit.class), named(8, 255), "{case}");
                        assert_eq!(u64::from(edit.dscp), named(16, 63), "{case}");
                        assert_eq!(u64::from(edit.mss), named(32, 216), "{case}");
                        assert_eq!(u64::from(edit.tcp_options), named(64, 31), "{case}");
                        assert_eq!(edit.reserved, [0; 5], "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn values_out_of_range_void_the_verdict() {
        let allowed = allowed(EVERYTHING, HookPoint::Forward);
        let cases = [
            (edit::TAG, Edit { tag: 0, ..GOOD }, Bad::Tag),
            (edit::TAG, Edit { tag: 1, ..GOOD }, Bad::Tag),
            (edit::TAG, Edit { tag: u16::MAX, ..GOOD }, Bad::Tag),
            (edit::CLASS, Edit { class: 0, ..GOOD }, Bad::Class),
            (edit::CLASS, Edit { class: 254, ..GOOD }, Bad::Class),
            (edit::DSCP, Edit { dscp: 64, ..GOOD }, Bad::Dscp),
            (edit::MSS, Edit { mss: 215, ..GOOD }, Bad::Mss),
            (edit::MSS, Edit { mss: 0, ..GOOD }, Bad::Mss),
            (edit::TCP_OPTIONS, Edit { tcp_options: 32, ..GOOD }, Bad::TcpOptions),
        ];
        for (flag, edit, expected) in cases {
            for flags in [flag, flag | edit::MARK | edit::MIRROR, 0x7f] {
                let got = judged(word(action::CONTINUE, flags, 0, 0), &allowed, edit);
                assert_eq!(got, Err(expected), "flags {flags:#b}");
                // Fields that are not named are not read.
                let others = 0x7f & !flag & flags;
                assert!(judged(word(action::CONTINUE, others, 0, 0), &allowed, edit).is_ok());
            }
        }
        for (number, expected) in [
            (0, Err(Bad::NextHop)),
            (2, Err(Bad::NextHop)),
            (3, Ok(Ruling::Transmit(3))),
            (4, Err(Bad::NextHop)),
            (0x1_0003, Err(Bad::NextHop)),
            (u32::MAX, Err(Bad::NextHop)),
        ] {
            let got = judged(word(action::TRANSMIT, 0, 0, number), &allowed, GOOD);
            assert_eq!(got.map(|judged| judged.ruling), expected, "next hop {number}");
        }
        for (reason, expected) in [
            (0, Ok(Ruling::Drop(0))),
            (1, Ok(Ruling::Drop(1))),
            (2, Err(Bad::Reason)),
            (REASON_DEFAULT - 1, Err(Bad::Reason)),
            (REASON_DEFAULT, Ok(Ruling::Drop(REASON_DEFAULT))),
        ] {
            let got = judged(word(action::DROP, 0, 0, reason), &allowed, GOOD);
            assert_eq!(got.map(|judged| judged.ruling), expected, "reason {reason}");
        }
        assert_eq!(judged(word(action::CONTINUE, 0, 0, 1), &allowed, GOOD), Err(Bad::Argument));
    }

    #[test]
    fn what_is_not_declared_voids_the_verdict() {
        for action in Action::ALL {
            let others = Action::ALL.iter().filter(|other| **other != action);
            let names: Vec<_> = others.map(|other| format!("\"{}\"", other.name())).collect();
            let line = format!("actions = [{}]", names.join(", "));
            let allowed = allowed(&line, HookPoint::Ingress);
            let (word, expected) = match action.flag() {
                Some(flag) => (word(action::CONTINUE, flag, 0, 0), Bad::FlagUndeclared),
                None => (word(action::TRANSMIT, 0, 0, 3), Bad::TransmitUndeclared),
            };
            assert_eq!(judged(word, &allowed, GOOD), Err(expected), "{}", action.name());
        }
    }

    #[test]
    fn lifetimes_are_for_those_that_judge_flows() {
        let word = word(action::CONTINUE, 0, 300, 0);
        let packets = allowed("", HookPoint::Ingress);
        assert_eq!(judged(word, &packets, GOOD), Err(Bad::Lifetime));
        let flows = allowed("granularity = \"flow\"", HookPoint::Ingress);
        assert_eq!(judged(word, &flows, GOOD).map(|judged| judged.lifetime), Ok(300));
    }

    #[test]
    fn an_edit_that_cannot_be_read_voids_the_verdict() {
        let allowed = allowed(EVERYTHING, HookPoint::Ingress);
        let got = judge(word(action::CONTINUE, edit::MARK, 0, 0), &allowed, &known(), || None);
        assert_eq!(got, Err(Bad::NoEdit));
        let got = judge(word(action::CONTINUE, edit::MIRROR, 0, 0), &allowed, &known(), || None);
        assert!(got.is_ok(), "a mirror needs none");
    }
}
