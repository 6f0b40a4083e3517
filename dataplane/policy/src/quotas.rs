//! Budgets of members that all workers share: of a budget of 10, exactly 10 are admitted.
//!
//! ```text
//!  hash(group, member) --> 2 buckets of 8 --> member: deadline | group | next | previous
//!  hash(group) ----------> 2 buckets of 8 --> group:  members  | cursor --> ring of its members
//! ```
//!
//! A member is admitted as long as its deadline lies ahead. To ask about one that is admitted takes no
//! lock: its deadline is moved by compare-and-swap. Whatever changes *who* is there is done under two
//! claims, of the member's hash and of the group's, each a flag that some hashes share:
//!
//! - under the member's claim a member is put in or taken out, so that there is never a second record of
//!   it in its other bucket;
//! - under the group's claim its number of members and its ring change, so that the number is exact.
//!
//! Invariants: a group's number is that of the records in its ring, and never above the budget that it was
//! asked with. A record without a tag has the deadline 0. A record is emptied only under both claims.
//!
//! A member that leaves is taken out under its claims, so that its budget has returned when its worker is
//! told. Without the group's claim it is only made one that is over, which takes the member's claim alone.
//!
//! *Nobody waits.* A claim is held for some 100 ns. Whoever finds one taken looks again, a bounded number
//! of times for a whole batch, and then says that it cannot remember the member (which is the answer for
//! want of room, too), or that the member cannot leave now: only when a worker is interrupted in those
//! 100 ns, and only to members that are new or leave. That a budget is exceeded, or that a member which is
//! admitted is refused, cannot come of it. A claim
//! beyond the two is taken at the first look or not at all, so that no two workers stop each other. A
//! queue-free table of two words per change (group and member) without claims would need helpers that
//! finish each other's changes, for a case that happens when a core is taken away.
//!
//! Budget returns when somebody needs it: a full group's ring is looked through for members that are
//! over, 16 of them for each ask, from where the last look ended. Up to budgets of 16 it is exact; of
//! larger groups that many asks later. A newcomer takes the place of any member that is over.

use std::{
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
};

use serde::Serialize;
use sluice_abi::quota::{answer, departure};

use crate::{
    meters::keyed_hasher,
    registry::{Registry, SharedTable},
};

/// Records of a bucket: their tags fill one cache line.
const WAYS: usize = 8;
/// The most members of a quota: some 250 MB.
pub(crate) const MEMBERS_MAX: usize = 1 << 22;
/// The most quotas that one plugin may open.
pub(crate) const QUOTAS_MAX: usize = 16;
/// The longest that a member is remembered without a packet, in milliseconds: a day.
pub(crate) const LIFETIME_MS_MAX: u64 = 86_400_000;
/// Looks at claims that others hold, for one batch: 100 us at the most.
pub(crate) const PATIENCE: u32 = 1024;
/// Members of a full group that one ask looks at.
const RING_STEPS: usize = 16;
/// Claims of each kind.
const CLAIMS_MAX: usize = 4096;
/// No record.
const NONE: u32 = u32::MAX;
/// The deadline of a member that has left and is not yet taken out: over, whatever a worker's clock says.
const OVER: u64 = 1;

/// What an instance asks with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) budget: u32,
    pub(crate) lifetime_ns: u64,
}

/// Tags of a bucket; 0 stands for none.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Bucket([AtomicU64; WAYS]);

/// Tags in buckets, of which each tag has two.
#[derive(Debug)]
struct Tags {
    buckets: Box<[Bucket]>,
    claims: Box<[AtomicBool]>,
}

impl Tags {
    fn new(buckets: usize) -> Self {
        let claims = buckets.next_power_of_two().min(CLAIMS_MAX);
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            claims: (0..claims).map(|_| AtomicBool::default()).collect(),
        }
    }

    /// The two buckets of a tag, by its two halves.
    fn positions(&self, tag: u64) -> [usize; 2] {
        let buckets = self.buckets.len() as u64;
        let scaled = |half: u64| usize::try_from((half * buckets) >> 32).unwrap_or(0);
        [scaled(tag & 0xffff_ffff), scaled(tag >> 32)]
    }

    /// The places of a tag's two buckets, with the tags there.
    fn places(&self, tag: u64) -> impl Iterator<Item = (u32, &AtomicU64)> {
        self.positions(tag).into_iter().flat_map(|position| {
            let ways = self.buckets.get(position).map(|bucket| &bucket.0);
            let first = u32::try_from(position * WAYS).unwrap_or(NONE);
            ways.into_iter().flatten().zip(first..).map(|(way, place)| (place, way))
        })
    }

    #[inline]
    fn find(&self, tag: u64) -> Option<u32> {
        let found = self.places(tag).find(|(_, way)| way.load(Ordering::Acquire) == tag);
        found.map(|(place, _)| place)
    }

    fn at(&self, place: u32) -> Option<&AtomicU64> {
        let place = place as usize;
        self.buckets.get(place / WAYS)?.0.get(place % WAYS)
    }

    /// Puts a tag into a free place of its buckets. Under the tag's claim.
    fn insert(&self, tag: u64) -> Option<u32> {
        let taken = self.places(tag).find(|(_, way)| {
            way.load(Ordering::Relaxed) == 0
                && way.compare_exchange(0, tag, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        });
        taken.map(|(place, _)| place)
    }

    fn remove(&self, place: u32) {
        if let Some(way) = self.at(place) {
            way.store(0, Ordering::Release);
        }
    }

    fn claim_number(&self, tag: u64) -> usize {
        // Bits from the middle: the buckets go by the upper ends of both halves.
        usize::try_from((tag >> 10) & 0xfff).unwrap_or(0) & (self.claims.len() - 1)
    }

    /// Claims a tag, with some patience.
    fn claim(&self, tag: u64, patience: &mut u32) -> Option<Claim<'_>> {
        let flag = self.claims.get(self.claim_number(tag))?;
        loop {
            if !flag.swap(true, Ordering::Acquire) {
                return Some(Claim(flag));
            }
            *patience = patience.checked_sub(1)?;
            spin_loop();
        }
    }
}

/// A flag that is taken, until this is dropped.
struct Claim<'a>(&'a AtomicBool);

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Debug, Default)]
struct Member {
    /// Admitted until then, in nanoseconds; 0 while it is not.
    deadline: AtomicU64,
    group: AtomicU32,
    next: AtomicU32,
    previous: AtomicU32,
}

#[derive(Debug, Default)]
struct Group {
    members: AtomicU32,
    /// Where the next look at its ring begins.
    cursor: AtomicU32,
}

/// The members of one quota and their groups, shared by all workers and kept across generations.
#[derive(Debug)]
pub(crate) struct QuotaTable {
    room: usize,
    member_tags: Tags,
    members: Box<[Member]>,
    group_tags: Tags,
    groups: Box<[Group]>,
    hasher: ahash::RandomState,
    admissions: AtomicU64,
    refusals: AtomicU64,
    overflows: AtomicU64,
    departures: AtomicU64,
}

impl SharedTable for QuotaTable {
    fn new(entries: usize) -> Self {
        let room = Self::room(entries);
        // A quarter more than asked for: with two buckets to choose from, they are then hardly ever full.
        let buckets = (room + room / 4).div_ceil(WAYS).max(2);
        Self {
            room,
            member_tags: Tags::new(buckets),
            members: (0..buckets * WAYS).map(|_| Member::default()).collect(),
            group_tags: Tags::new(buckets),
            groups: (0..buckets * WAYS).map(|_| Group::default()).collect(),
            hasher: keyed_hasher(),
            admissions: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            departures: AtomicU64::new(0),
        }
    }

    fn room(entries: usize) -> usize {
        entries.clamp(1, MEMBERS_MAX)
    }

    /// The same members. Those that come and go meanwhile are copied or not.
    fn copy(&self) -> Self {
        let copy = Self { hasher: self.hasher.clone(), ..Self::new(self.room) };
        for (tag, member) in
            self.member_tags.buckets.iter().flat_map(|bucket| &bucket.0).zip(&self.members)
        {
            let tag = tag.load(Ordering::Acquire);
            let deadline = member.deadline.load(Ordering::Acquire);
            let group = self.group_tags.at(member.group.load(Ordering::Relaxed));
            let group = group.map_or(0, |group| group.load(Ordering::Acquire));
            if tag != 0 && deadline != 0 && group != 0 {
                let terms = Terms { budget: u32::MAX, lifetime_ns: deadline };
                copy.admit(terms, tag, group, 0, &mut 1);
            }
        }
        copy
    }
}

/// Links that lead nowhere: a fault of this module, or of a copy that met changes.
struct BrokenRing;

impl QuotaTable {
    /// The hashes of a member and its group.
    #[inline]
    pub(crate) fn hashes(&self, group: [u8; 16], member: [u8; 16]) -> (u64, u64) {
        let (group, member) = (u128::from_le_bytes(group), u128::from_le_bytes(member));
        let tag = |hash: u64| hash.max(1);
        (tag(self.hasher.hash_one((group, member))), tag(self.hasher.hash_one(group)))
    }

    /// Fetches the line that [`Self::ask`] will need first.
    #[inline]
    pub(crate) fn touch(&self, member: u64) -> u64 {
        let [first, _] = self.member_tags.positions(member);
        let way = self.member_tags.buckets.get(first).and_then(|bucket| bucket.0.first());
        way.map_or(0, |way| way.load(Ordering::Relaxed))
    }

    /// Asks for a member, by hashes, at the time `now`: one of [`answer`].
    #[inline]
    pub(crate) fn ask(
        &self,
        terms: Terms,
        (member, group): (u64, u64),
        now: u64,
        patience: &mut u32,
    ) -> u8 {
        if let Some(place) = self.member_tags.find(member)
            && let Some(record) = self.members.get(place as usize)
            && extend(record, terms, now)
        {
            return answer::ADMITTED;
        }
        let answer = self.admit(terms, member, group, now, patience);
        let counter = match answer {
            answer::ADMITTED => &self.admissions,
            answer::FULL => &self.refusals,
            _ => &self.overflows,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Whether a member is admitted at the time `now`, by its hash. Changes nothing, its deadline included, and
    /// takes no claim.
    #[inline]
    pub(crate) fn contains(&self, member: u64, now: u64) -> bool {
        let Some(place) = self.member_tags.find(member) else { return false };
        let deadline = self.members.get(place as usize);
        let is_in = deadline.is_some_and(|record| record.deadline.load(Ordering::Acquire) > now);
        // The record may have become another member's between the two looks.
        is_in && self.member_tags.at(place).is_some_and(|way| way.load(Ordering::Acquire) == member)
    }

    /// Has a member leave, by hashes, at the time `now`: one of [`departure`]. Of one that is not in nothing is
    /// written, and no claim is taken.
    #[inline]
    pub(crate) fn leave(&self, (member, group): (u64, u64), now: u64, patience: &mut u32) -> u8 {
        if self.member_tags.find(member).is_none() {
            return departure::ABSENT;
        }
        let departure = self.take_out(member, group, now, patience);
        if departure == departure::LEFT {
            self.departures.fetch_add(1, Ordering::Relaxed);
        }
        departure
    }

    /// Takes a member out that was found.
    fn take_out(&self, member: u64, group: u64, now: u64, patience: &mut u32) -> u8 {
        let Some(_member_claim) = self.member_tags.claim(member, patience) else {
            return departure::BUSY;
        };
        // Another worker may have been quicker. From here on nobody else can empty the record.
        let Some(place) = self.member_tags.find(member) else { return departure::ABSENT };
        let Some(record) = self.members.get(place as usize) else { return departure::ABSENT };
        let group_claim = self.group_tags.claim(group, patience);
        // Packets of it ask without a claim: what they did to the deadline until now was in time.
        let deadline = if group_claim.is_some() {
            let deadline = record.deadline.swap(0, Ordering::AcqRel);
            // What cannot be unlinked is in no ring, and needs no unlinking.
            let _ = self.unlink(place, record.group.load(Ordering::Relaxed));
            self.member_tags.remove(place);
            deadline
        } else {
            // Whoever needs its place or its budget takes it out.
            record.deadline.swap(OVER, Ordering::AcqRel)
        };
        if deadline > now { departure::LEFT } else { departure::ABSENT }
    }

    /// Puts a member in that was not found, if its group has budget left.
    #[cold]
    fn admit(&self, terms: Terms, member: u64, group: u64, now: u64, patience: &mut u32) -> u8 {
        let Some(_member_claim) = self.member_tags.claim(member, patience) else {
            return answer::NO_ROOM;
        };
        let deadline = now.saturating_add(terms.lifetime_ns).max(1);
        if let Some(place) = self.member_tags.find(member) {
            // Another worker put it in meanwhile, or it is over and its budget not yet given back: as
            // long as this claim is held nobody takes that from it.
            if let Some(record) = self.members.get(place as usize) {
                record.deadline.fetch_max(deadline, Ordering::AcqRel);
                return answer::ADMITTED;
            }
        }
        let Some(_group_claim) = self.group_tags.claim(group, patience) else {
            return answer::NO_ROOM;
        };
        let held = Held { member, group };
        let group_place = self.group_tags.find(group);
        if let Some(place) = group_place
            && let Some(record) = self.groups.get(place as usize)
            && record.members.load(Ordering::Relaxed) >= terms.budget
        {
            let skipped = self.reclaim(record, &held, now);
            // With its last member a group is gone, and its record may be another's.
            let left = self.group_tags.find(group);
            let left = left.and_then(|place| self.groups.get(place as usize));
            if left.is_some_and(|left| left.members.load(Ordering::Relaxed) >= terms.budget) {
                // Somebody is busy with a member that is over: who knows what will become of it.
                return if skipped { answer::NO_ROOM } else { answer::FULL };
            }
        }
        let Some(member_place) = self.place_for(member, &held, now) else {
            return answer::NO_ROOM;
        };
        let group_place = self.group_tags.find(group).or_else(|| self.group_tags.insert(group));
        let linked = group_place.and_then(|group| self.link(member_place, group));
        if linked.is_none() {
            self.member_tags.remove(member_place);
            return answer::NO_ROOM;
        }
        if let Some(record) = self.members.get(member_place as usize) {
            record.deadline.store(deadline, Ordering::Release);
        }
        answer::ADMITTED
    }

    /// A place for a new member: a free one, or that of a member that is over.
    fn place_for(&self, member: u64, held: &Held, now: u64) -> Option<u32> {
        self.member_tags.insert(member).or_else(|| {
            for (place, way) in self.member_tags.places(member) {
                let tag = way.load(Ordering::Acquire);
                let is_over = self.members.get(place as usize).is_some_and(|record| {
                    (1..=now).contains(&record.deadline.load(Ordering::Acquire))
                });
                if tag != 0 && is_over && self.expire(place, tag, held, now) {
                    return self.member_tags.insert(member);
                }
            }
            None
        })
    }

    /// Looks through a part of a group's ring and takes out members that are over. Under the group's
    /// claim. Says whether any could not be taken out.
    fn reclaim(&self, group: &Group, held: &Held, now: u64) -> bool {
        let mut skipped = false;
        let steps = RING_STEPS.min(group.members.load(Ordering::Relaxed) as usize);
        for _ in 0..steps {
            let place = group.cursor.load(Ordering::Relaxed);
            let Some(record) = self.members.get(place as usize) else { break };
            // Before the record is emptied, which moves the cursor itself if it must.
            group.cursor.store(record.next.load(Ordering::Relaxed), Ordering::Relaxed);
            if record.deadline.load(Ordering::Acquire) > now {
                continue;
            }
            let tag = self.member_tags.at(place).map_or(0, |way| way.load(Ordering::Acquire));
            let is_last = group.members.load(Ordering::Relaxed) == 1;
            if !self.expire(place, tag, held, now) {
                skipped = true;
            } else if is_last {
                break;
            }
        }
        skipped
    }

    /// Empties the record at `place` if it still holds `tag` and is over. Takes the claims that it needs
    /// beyond those that are held at the first look or not at all.
    fn expire(&self, place: u32, tag: u64, held: &Held, now: u64) -> bool {
        let is_held = |tags: &Tags, tag, held| tags.claim_number(tag) == tags.claim_number(held);
        let _member_claim = if is_held(&self.member_tags, tag, held.member) {
            None
        } else {
            let Some(claim) = self.member_tags.claim(tag, &mut 0) else { return false };
            Some(claim)
        };
        let same = self.member_tags.at(place).is_some_and(|way| way.load(Ordering::Acquire) == tag);
        let Some(record) = self.members.get(place as usize).filter(|_| same && tag != 0) else {
            return false;
        };
        // As long as the member is there and claimed, so is its group.
        let group = record.group.load(Ordering::Relaxed);
        let group_tag = self.group_tags.at(group).map_or(0, |way| way.load(Ordering::Acquire));
        let _group_claim = if is_held(&self.group_tags, group_tag, held.group) {
            None
        } else {
            let Some(claim) = self.group_tags.claim(group_tag, &mut 0) else { return false };
            Some(claim)
        };
        // A packet of it may arrive at this moment, and asks without a claim.
        let deadline = record.deadline.load(Ordering::Acquire);
        let is_over = (1..=now).contains(&deadline)
            && record
                .deadline
                .compare_exchange(deadline, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if is_over {
            // What cannot be unlinked is in no ring, and needs no unlinking.
            let _ = self.unlink(place, group);
            self.member_tags.remove(place);
        }
        is_over
    }

    /// Puts a member into its group's ring, before the cursor. Under the group's claim.
    fn link(&self, place: u32, group_place: u32) -> Option<()> {
        let group = self.groups.get(group_place as usize)?;
        let member = self.members.get(place as usize)?;
        let count = group.members.load(Ordering::Relaxed);
        let (previous, next) = if count == 0 {
            group.cursor.store(place, Ordering::Relaxed);
            (place, place)
        } else {
            let next = group.cursor.load(Ordering::Relaxed);
            let after = self.members.get(next as usize)?;
            let previous = after.previous.load(Ordering::Relaxed);
            self.members.get(previous as usize)?.next.store(place, Ordering::Relaxed);
            after.previous.store(place, Ordering::Relaxed);
            (previous, next)
        };
        member.previous.store(previous, Ordering::Relaxed);
        member.next.store(next, Ordering::Relaxed);
        member.group.store(group_place, Ordering::Relaxed);
        group.members.store(count.saturating_add(1), Ordering::Relaxed);
        Some(())
    }

    /// Takes a member out of its group's ring; with the last one the group is gone. Under the group's
    /// claim.
    fn unlink(&self, place: u32, group_place: u32) -> Result<(), BrokenRing> {
        let group = self.groups.get(group_place as usize).ok_or(BrokenRing)?;
        let count = group.members.load(Ordering::Relaxed).saturating_sub(1);
        group.members.store(count, Ordering::Relaxed);
        if count == 0 {
            self.group_tags.remove(group_place);
            return Ok(());
        }
        let member = self.members.get(place as usize).ok_or(BrokenRing)?;
        let next = member.next.load(Ordering::Relaxed);
        let previous = member.previous.load(Ordering::Relaxed);
        let after = self.members.get(next as usize).ok_or(BrokenRing)?;
        let before = self.members.get(previous as usize).ok_or(BrokenRing)?;
        after.previous.store(previous, Ordering::Relaxed);
        before.next.store(next, Ordering::Relaxed);
        if group.cursor.load(Ordering::Relaxed) == place {
            group.cursor.store(next, Ordering::Relaxed);
        }
        Ok(())
    }

    fn status(&self, handle: usize) -> QuotaStatus {
        let count = |tags: &Tags| {
            let ways = tags.buckets.iter().flat_map(|bucket| &bucket.0);
            ways.filter(|way| way.load(Ordering::Relaxed) != 0).count()
        };
        QuotaStatus {
            handle,
            members_max: self.room,
            members: count(&self.member_tags),
            groups: count(&self.group_tags),
            admissions: self.admissions.load(Ordering::Relaxed),
            refusals: self.refusals.load(Ordering::Relaxed),
            overflows: self.overflows.load(Ordering::Relaxed),
            departures: self.departures.load(Ordering::Relaxed),
        }
    }
}

/// The tags whose claims the running ask holds.
struct Held {
    member: u64,
    group: u64,
}

/// Moves the deadline of a member that is admitted. False if it is not.
#[inline]
fn extend(record: &Member, terms: Terms, now: u64) -> bool {
    let next = now.saturating_add(terms.lifetime_ns);
    let mut deadline = record.deadline.load(Ordering::Acquire);
    loop {
        if deadline <= now {
            return false;
        }
        if deadline >= next {
            return true;
        }
        // Not a maximum: the record may be given to another member between the two looks.
        match record.deadline.compare_exchange_weak(
            deadline,
            next,
            Ordering::AcqRel,
            Ordering::Acquire,
        ) {
            Ok(_) => return true,
            Err(current) => deadline = current,
        }
    }
}

/// One quota of an instance: the shared members, and what its generation asks with.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    pub(crate) table: Arc<QuotaTable>,
    pub(crate) terms: Terms,
}

/// What `sluice status` shows of one quota.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct QuotaStatus {
    /// Its handle: its place in the order of opening.
    pub handle: usize,
    /// Members that it has room for.
    pub members_max: usize,
    /// Members that are remembered, those included that are over and whose place nobody wanted yet.
    pub members: usize,
    /// Groups that they belong to.
    pub groups: usize,
    /// Members that were admitted.
    pub admissions: u64,
    /// Asks that met a group whose budget was used up.
    pub refusals: u64,
    /// Asks for members that could not be remembered. Any number of them means that the quota is too
    /// small for the traffic.
    pub overflows: u64,
    /// Members that left before their lifetime was over.
    pub departures: u64,
}

/// The quotas of all plugins.
pub(crate) type QuotaRegistry = Registry<QuotaTable>;

impl QuotaRegistry {
    pub(crate) fn status(&self, plugin: &str) -> Vec<QuotaStatus> {
        self.of(plugin).into_iter().map(|(handle, table)| table.status(handle)).collect()
    }
}

#[cfg(test)]
mod tests;
