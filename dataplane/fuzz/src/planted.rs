//! [`Defect`]: faults that no router may have, put between what a target tests and what it asserts, to show
//! that its properties notice them and that its inputs lead there.
//!
//! `tests/planted.rs` plants each one and looks for an input that shows it, by random changes of the corpus.
//! Each is a mistake that somebody could make, which an input has to be of some kind to meet.
//!
//! Absent: the defects themselves in `wire` and `forward`. What ships has no switch that breaks it.

use std::cell::Cell;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// `views`: a checksum is updated without the carry that one's complement wants (RFC 1624).
    LostCarry,
    /// `embedding`: the ports of a quoted packet are read behind 20 bytes, whatever options it has.
    QuotedOptions,
    /// `fragments`: a fragment that overlaps passes to the owner.
    Overlap,
    /// `edits`: of a verdict that is refused, something is taken all the same.
    HalfVoid,
    /// `edits`: a checksum is updated as if no option began at an odd offset.
    OddOption,
    /// `turn`: a packet whose TTL ends is counted twice.
    CountedTwice,
}

impl Defect {
    /// Every one, with its target.
    pub const ALL: [(Self, &str); 6] = [
        (Self::LostCarry, "views"),
        (Self::QuotedOptions, "embedding"),
        (Self::Overlap, "fragments"),
        (Self::HalfVoid, "edits"),
        (Self::OddOption, "edits"),
        (Self::CountedTwice, "turn"),
    ];
}

thread_local! {
    static PLANTED: Cell<Option<Defect>> = const { Cell::new(None) };
}

/// Plants a defect into the targets that this thread runs, or takes it out again.
pub fn plant(defect: Option<Defect>) {
    PLANTED.set(defect);
}

/// Whether this one is planted.
pub(crate) fn is(defect: Defect) -> bool {
    PLANTED.get() == Some(defect)
}
