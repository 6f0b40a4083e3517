//! [`Limit`]: how many handshakes each source has half-open, counted for the whole router.
//!
//! ```text
//!  SYN that may pass --admit--> quota of its source --no budget--> dropped, as if it had not come
//!  ACK, RST ----------leave--> quota of its source
//! ```
//!
//! Only these packets cost calls of the host: one for all that begin in a batch, one for all that end. Those
//! that end come first, whatever their order in the batch, so that their room is there for those that begin.
//!
//! A handshake that the quota has no room for passes and is not counted. One that cannot leave, since another
//! worker was interrupted in the middle of a change, is counted until its time is over. Both have counters.

use sluice_sdk::{BATCH_MAX, Descriptor, Quota, QuotaAnswer, QuotaDeparture};

use crate::{handshakes::Before, key, tally};

/// A handshake that begins, if its source has budget.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Begun {
    /// The SYN's place in the batch.
    pub(crate) place: u16,
    /// The counter of SYNs that pass as this one does.
    pub(crate) passes_as: usize,
    /// What was remembered before, if the worker has a place for it.
    pub(crate) before: Option<Before>,
}

/// Members of groups that one call of a quota is about, and its answers.
#[derive(Debug)]
pub(crate) struct Pairs {
    groups: Box<[[u8; 16]; BATCH_MAX]>,
    members: Box<[[u8; 16]; BATCH_MAX]>,
    answers: Box<[u8; BATCH_MAX]>,
    len: usize,
}

impl Pairs {
    pub(crate) fn new() -> Self {
        Self {
            groups: Box::new([[0; 16]; BATCH_MAX]),
            members: Box::new([[0; 16]; BATCH_MAX]),
            answers: Box::new([0; BATCH_MAX]),
            len: 0,
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push(&mut self, group: [u8; 16], member: [u8; 16]) {
        (self.groups[self.len], self.members[self.len]) = (group, member);
        self.len += 1;
    }

    /// Has the host answer for each by `call`, and forgets them.
    pub(crate) fn ask(&mut self, call: impl FnOnce(&[[u8; 16]], &[[u8; 16]], &mut [u8])) -> &[u8] {
        let n = std::mem::take(&mut self.len);
        if n > 0 {
            call(&self.groups[..n], &self.members[..n], &mut self.answers[..n]);
        }
        &self.answers[..n]
    }
}

/// The limit, if there is one, and room for what one batch does to it.
#[derive(Debug)]
pub(crate) struct Limit {
    quota: Quota,
    is_set: bool,
    begins: Pairs,
    begun: Box<[Begun; BATCH_MAX]>,
    ends: Pairs,
}

impl Limit {
    /// So many for each source, 0 for any number; `entries` over all of them.
    pub(crate) fn open(max: u32, half_open_s: u32, entries: u32) -> Result<Self, String> {
        let lifetime_ms = u64::from(half_open_s) * 1000;
        // Always opened: a reload finds quotas by their order.
        let entries = if max > 0 { entries } else { 1 };
        Ok(Self {
            quota: Quota::open(max.max(1), entries, lifetime_ms)?,
            is_set: max > 0,
            begins: Pairs::new(),
            begun: Box::new([Begun::default(); BATCH_MAX]),
            ends: Pairs::new(),
        })
    }

    /// Whether there is one.
    pub(crate) const fn is_set(&self) -> bool {
        self.is_set
    }

    /// A handshake of this client is to begin.
    pub(crate) fn begin(&mut self, begun: Begun, packet: &Descriptor) {
        self.begun[self.begins.len] = begun;
        self.begins.push(key::group(packet), key::member(packet));
    }

    /// Asks for all that are to begin. `judge` is told of each whether it may, the last one first, and says
    /// whether its end will be noticed; else it leaves again.
    pub(crate) fn admit(
        &mut self,
        now_ns: u64,
        counts: &mut [u64; tally::ALL],
        mut judge: impl FnMut(Begun, bool, &mut [u64; tally::ALL]) -> bool,
    ) {
        let quota = &mut self.quota;
        let begins = &mut self.begins;
        let n = begins
            .ask(|groups, members, answers| quota.admit(groups, members, now_ns, answers))
            .len();
        for at in (0..n).rev() {
            let answer = QuotaAnswer::from(begins.answers[at]);
            counts[tally::HALF_OPEN_UNCOUNTED] += u64::from(answer == QuotaAnswer::NoRoom);
            if !judge(self.begun[at], answer != QuotaAnswer::UsedUp, counts) {
                self.ends.push(begins.groups[at], begins.members[at]);
            }
        }
        self.leave(now_ns, counts);
    }

    /// A handshake of this client has ended.
    pub(crate) fn end(&mut self, packet: &Descriptor) {
        if self.is_set {
            self.ends.push(key::group(packet), key::member(packet));
        }
    }

    /// Has all leave that have ended.
    pub(crate) fn leave(&mut self, now_ns: u64, counts: &mut [u64; tally::ALL]) {
        let quota = &mut self.quota;
        let departures = self
            .ends
            .ask(|groups, members, departures| quota.leave(groups, members, now_ns, departures));
        let is_kept = |departure: &u8| QuotaDeparture::from(*departure) == QuotaDeparture::Busy;
        let kept = departures.iter().filter(|departure| is_kept(departure)).count();
        counts[tally::HALF_OPEN_KEPT] += kept as u64;
    }
}
