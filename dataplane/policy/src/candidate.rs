//! [`Candidate`]: a version of a plugin that sees the live batches of the one that runs, and decides
//! nothing.
//!
//! ```text
//!   open packets --+--> candidate: its own instance, copies of meters and the like --> its answers
//!                  |                                                                      | compared
//!                  +--> the plugin that runs -----------------------------> verdicts -----+
//! ```
//!
//! It is asked before the plugin that runs, about the same packets with the same marks, so that neither
//! sees what the other did. A difference is a packet that only the candidate drops (a *new drop*), that
//! only the running one drops (a *new pass*), or that both treat alike but for the reason, next hop or edit.
//! Batches that one of the two could not judge are not compared.
//!
//! It begins with the state of the plugin that runs where both declare a form that fits
//! ([`crate::candidate_start`]), and is called for a tick in the same turn.
//!
//! A candidate that traps is not called again by that worker; the running plugin never notices.

use std::sync::Arc;

use crossbeam::{queue::ArrayQueue, utils::CachePadded};
use frame::KnownNumbers;
use serde::Serialize;
use sluice_abi::{Descriptor, Edit, REASON_DEFAULT};

use crate::{
    DefaultVerdict,
    chain::{Failure, Terms},
    counters::{Counter, GenerationCounters},
    instance::Instance,
    judgement::{Judgement, Ruling, judge},
};

/// Differences that may wait for the control side: what comes beyond is counted alone.
const WAITING_MAX: usize = 64;

/// A candidate in one worker.
pub(crate) struct Candidate {
    pub(crate) terms: Terms,
    pub(crate) instance: Option<Box<Instance>>,
    pub(crate) counters: Arc<GenerationCounters>,
    pub(crate) compared: Arc<Compared>,
    /// What it ended with, until the worker gives it up after the batch.
    pub(crate) failed: Option<Failure>,
}

/// What one worker counts of a comparison.
#[derive(Debug, Default)]
pub(crate) struct ComparedCounters {
    pub(crate) packets: Counter,
    pub(crate) same_drops: Counter,
    pub(crate) new_drops: Counter,
    pub(crate) new_passes: Counter,
    pub(crate) others: Counter,
    /// How it began: the number of a [`Start`](crate::Start).
    pub(crate) start: Counter,
}

/// What all workers found.
pub(crate) struct Compared {
    pub(crate) workers: Box<[CachePadded<ComparedCounters>]>,
    pub(crate) differences: ArrayQueue<Difference>,
    /// For each reason of the running plugin the candidate's of the same name.
    reasons: Box<[Option<u32>]>,
}

/// How two verdicts differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DifferenceKind {
    /// Only the candidate drops the packet.
    NewDrop,
    /// Only the plugin that runs drops it.
    NewPass,
    /// Both drop it or let it go on, for another reason, to another next hop, or with another edit.
    Other,
}

/// A packet that the two judge differently.
#[derive(Clone, Copy)]
pub(crate) struct Difference {
    pub(crate) kind: DifferenceKind,
    pub(crate) descriptor: Descriptor,
    pub(crate) running: Outcome,
    pub(crate) candidate: Outcome,
}

/// What a verdict comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Dropped for a reason; `None`: by default.
    Drop(Option<u32>),
    /// Goes on, or to the next hop of this number if that is not 0, with the edit that the flags name.
    Pass { next_hop: u16, flags: u8, edit: Edit },
}

/// What a verdict's word comes to, with the edit beside it, under these terms.
fn outcome(
    terms: &Terms,
    word: u64,
    known: &KnownNumbers,
    read_edit: impl FnOnce() -> Option<Edit>,
) -> Outcome {
    match judge(word, &terms.allowed, known, read_edit) {
        Ok(Judgement { ruling: Ruling::Drop(reason), .. }) => {
            Outcome::Drop((reason != REASON_DEFAULT).then_some(reason))
        }
        Ok(Judgement { ruling: Ruling::Continue, flags, edit, .. }) => {
            Outcome::Pass { next_hop: 0, flags, edit }
        }
        Ok(Judgement { ruling: Ruling::Transmit(next_hop), flags, edit, .. }) => {
            Outcome::Pass { next_hop, flags, edit }
        }
        Err(_) if terms.default == DefaultVerdict::Drop => Outcome::Drop(None),
        Err(_) => Outcome::Pass { next_hop: 0, flags: 0, edit: Edit::default() },
    }
}

impl Compared {
    pub(crate) fn new(workers: usize, running: &[String], candidate: &[String]) -> Self {
        let same = |name: &String| {
            let position = candidate.iter().position(|other| other == name);
            position.and_then(|position| u32::try_from(position).ok())
        };
        Self {
            workers: (0..workers).map(|_| CachePadded::default()).collect(),
            differences: ArrayQueue::new(WAITING_MAX),
            reasons: running.iter().map(same).collect(),
        }
    }

    fn is_same_reason(&self, running: Option<u32>, candidate: Option<u32>) -> bool {
        match running {
            None => candidate.is_none(),
            Some(reason) => {
                let named = usize::try_from(reason).ok().and_then(|at| self.reasons.get(at));
                candidate.is_some() && named.copied().flatten() == candidate
            }
        }
    }
}

impl Candidate {
    /// How much of it comes back to the control side: itself and its instance.
    pub(crate) fn handed_out(&self) -> usize {
        1 + usize::from(self.instance.is_some())
    }

    /// Compares its answers with those of the plugin that runs, packet by packet.
    pub(crate) fn compare<'d>(
        &self,
        (terms, running): (&Terms, &Instance),
        known: &KnownNumbers,
        packets: impl Iterator<Item = &'d Descriptor>,
        worker: usize,
    ) {
        let (Some(counters), Some(own)) =
            (self.compared.workers.get(worker), self.instance.as_deref())
        else {
            return;
        };
        for (index, descriptor) in packets.enumerate() {
            let (Some(theirs), Some(ours)) = (running.verdict_word(index), own.verdict_word(index))
            else {
                return;
            };
            counters.packets.add(1);
            let theirs = outcome(terms, theirs, known, || running.edit(index));
            let ours = outcome(&self.terms, ours, known, || own.edit(index));
            let kind = match (theirs, ours) {
                (Outcome::Drop(theirs), Outcome::Drop(ours)) => {
                    counters.same_drops.add(1);
                    if self.compared.is_same_reason(theirs, ours) {
                        continue;
                    }
                    DifferenceKind::Other
                }
                (Outcome::Pass { .. }, Outcome::Drop(_)) => DifferenceKind::NewDrop,
                (Outcome::Drop(_), Outcome::Pass { .. }) => DifferenceKind::NewPass,
                (theirs, ours) if theirs == ours => continue,
                _ => DifferenceKind::Other,
            };
            match kind {
                DifferenceKind::NewDrop => counters.new_drops.add(1),
                DifferenceKind::NewPass => counters.new_passes.add(1),
                DifferenceKind::Other => counters.others.add(1),
            }
            // Without room it is counted alone.
            let descriptor = *descriptor;
            let difference = Difference { kind, descriptor, running: theirs, candidate: ours };
            let _ = self.compared.differences.push(difference);
        }
    }
}
