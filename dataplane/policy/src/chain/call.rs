//! [`Context`]: a call of a plugin, of its candidate, or of the generation that stands in for it.

use frame::{Nanos, tsc};

use super::{
    Failure, Terms,
    open::{Open, Selected},
};
use crate::{
    candidate::Candidate,
    counters::WorkerCounters,
    instance::{Instance, Packets, seen},
    last_good::LastGood,
    ticker::Beat,
};

/// What a plugin said of the packets that it was asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// All go on, and nothing else: they are as they were.
    Continue,
    /// Something of its own of each.
    Each,
}

/// What a call has besides the instance and its packets.
pub(super) struct Context<'a> {
    pub(super) terms: &'a Terms,
    pub(super) counters: &'a WorkerCounters,
    pub(super) beat: &'a Beat,
    pub(super) now: Nanos,
    pub(super) is_watched: bool,
}

impl Context<'_> {
    /// Has the instance judge the open packets; `None` if there is no instance. After an error it is to be
    /// retired, and the packets are as they were.
    #[inline]
    pub(super) fn judge(
        &self,
        instance: &mut Option<Box<Instance>>,
        open: &mut Open<'_>,
    ) -> Result<Option<Answer>, Failure> {
        let n = open.len() as u64;
        self.counters.packets.add(n);
        self.counters.batches.add(1);
        let Some(instance) = instance else { return Ok(None) };
        let judged = self.judge_with(instance, open);
        self.counters.traps.add(u64::from(judged.is_err()));
        judged.map(Some)
    }

    #[inline]
    fn judge_with(&self, instance: &mut Instance, open: &mut Open<'_>) -> Result<Answer, Failure> {
        self.timed_call(instance, open)?;
        self.read(instance, open).ok_or(None)
    }

    #[inline]
    fn timed_call(&self, instance: &mut Instance, open: &Open<'_>) -> Result<(), Failure> {
        let started = tsc::now();
        let called = self.call(instance, open);
        self.counters.took(tsc::now().wrapping_sub(started), open.len() as u64);
        called
    }

    /// Asks a candidate about the open packets; whether it answered.
    #[cold]
    pub(super) fn ask(&self, candidate: &mut Candidate, worker: usize, open: &Open<'_>) -> bool {
        let Candidate { terms, instance: Some(instance), counters, .. } = candidate else {
            return false;
        };
        let Some(counters) = counters.workers.get(worker) else { return false };
        counters.packets.add(open.len() as u64);
        counters.batches.add(1);
        let called = (Context { terms, counters, ..*self }).timed_call(instance, open);
        if let Err(error) = called {
            counters.traps.add(1);
            candidate.failed = Some(error);
            return false;
        }
        true
    }

    /// Has the generation before judge what the plugin could not, or does what `on_trap` says. Whether
    /// the former.
    #[cold]
    pub(super) fn fall_back(
        &self,
        by: Option<&mut LastGood>,
        worker: usize,
        open: &mut Open<'_>,
    ) -> bool {
        let n = open.len() as u64;
        let Some(LastGood { terms, instance, counters, failed }) = by else {
            self.go_unjudged(open);
            return false;
        };
        if let (Some(instance), Some(counters)) = (instance, counters.workers.get(worker)) {
            match (Context { terms, counters, ..*self }).judge_with(instance, open) {
                Ok(_) => {
                    self.counters.stood_in.add(n);
                    return true;
                }
                Err(error) => {
                    counters.traps.add(1);
                    *failed = Some(error);
                }
            }
        }
        self.go_unjudged(open);
        false
    }

    fn go_unjudged(&self, open: &mut Open<'_>) {
        self.counters.unjudged.add(open.len() as u64);
        self.counters.default_drops.add(open.fail(self.terms.on_trap) as u64);
    }

    #[inline]
    fn call(&self, instance: &mut Instance, open: &Open<'_>) -> Result<(), Failure> {
        let default = self.terms.default_word();
        let descriptors = open.descriptors;
        let packets = match open.some {
            None => Packets::All(descriptors),
            Some(some) => Packets::Some(Selected { descriptors, some: some.iter() }),
        };
        instance.place(packets, default).ok_or(None)?;
        if let Some(window) = instance.window() {
            let positions = (0..open.len()).filter_map(|index| open.position(index));
            let payload = positions.map(|at| match (open.frames.get(at), descriptors.get(at)) {
                (Some(frame), Some(of)) => seen(window, open.point, frame, of),
                _ => &[],
            });
            instance.place_payload(payload).ok_or(None)?;
        }
        if instance.reads_marks() {
            let marks = |index| open.position(index).map(|at| open.edits.get(at).marks());
            instance.place_marks(open.len(), marks).ok_or(None)?;
        }
        instance.call(open.len(), self.now, self.beat).map_err(Some)
    }

    /// Reads and checks the answers. `None` if they are not where they should be, which
    /// cannot happen as long as memories do not shrink.
    #[inline]
    fn read(&self, instance: &mut Instance, open: &mut Open<'_>) -> Option<Answer> {
        let n = open.len();
        // Most batches are let through as a whole: one pass, and nothing is written.
        if instance.continues_all(n) {
            return Some(Answer::Continue);
        }
        let instance = &*instance;
        if let Some(words) = instance.verdict_words(n) {
            for (index, word) in words.iter().enumerate() {
                let position = open.position(index)?;
                self.apply(*word, position, open, || instance.edit(index))?;
            }
        } else {
            for index in 0..n {
                let (word, position) = (instance.verdict_word(index)?, open.position(index)?);
                self.apply(word, position, open, || instance.edit(index))?;
            }
        }
        Some(Answer::Each)
    }
}
