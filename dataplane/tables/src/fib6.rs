//! The IPv6 forwarding table: disjoint intervals, found through a linearised B+-tree.
//!
//! ```text
//!   routes     |-------------- ::/0 --------------|       nested prefixes
//!                   |---- 2001:db8::/32 ----|
//!                        |- :1::/48 -|
//!   intervals  |0   |1   |2          |1     |0    |       each with its longest prefix's group
//!
//!   upper 64 bits --> tree of u64 --> group, or a split /64
//!   lower 64 bits --> binary search among the intervals of that /64
//! ```
//!
//! Routes are prefixes of at most 64 bits but for a few, so one tree over the upper halves answers
//! nearly all. A /64 that holds longer prefixes is one interval of that tree, with its own list.
//!
//! The tree is built aside, in some milliseconds for a full Internet table, and published: from all routes
//! ([`Fib6::build`]), or from those of the table before and what has changed ([`Fib6::rebuilt`]). What must not
//! wait for that, such as a host that appears on a link, is patched: routes of /64 and longer stand in exact
//! tables beside the tree until it is built again ([`Fib6::patched`]).
//!
//! Invariants: the intervals of the tree cover all upper halves and those of a split /64 all lower
//! halves; there are no pointers, only positions. All sets of instructions give the same answers.
//!
//! Memory: 10 bytes an interval. Neighbours with the same group are one interval, so a full Internet
//! table of 176,000 routes has 113,000 and takes 1.2 MB, 7 bytes a route. The list of routes, for the next
//! table and read by no look-up, takes another 24 bytes a route.
//!
//! Absent: changes of the tree in place.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use ipnet::Ipv6Net;

use crate::exact_index::ExactIndex;
use crate::hardware::{Compare, Instructions, Work, run};
use crate::intervals::{Intervals, STAGE};
use crate::{FibError, RouteId};

/// Each route adds two ends of intervals, or four when it splits a /64.
const _: () = assert!(4 * Fib6::ROUTES_MAX < Intervals::MAX);

/// A target that stands for a split /64; any other is a route's.
const SPLIT: RouteId = RouteId(u16::MAX - 1);

/// Length of the prefixes that the upper half of an address names.
const HALF: u8 = 64;

/// An immutable IPv6 longest-prefix-match table. See the module's head for its shape.
///
/// Addresses are `u128` in host order, as [`Ipv6Addr::to_bits`](std::net::Ipv6Addr::to_bits) gives
/// them.
#[derive(Clone)]
pub struct Fib6 {
    tree: Arc<Tree>,
    /// What the tree was built of, in the order of their prefixes, each once.
    routes: Arc<[Route]>,
    /// Prefixes of /64 and longer that changed since the tree was built: what they lead to, packed.
    patches: Arc<ExactIndex<u128>>,
    /// The same, to be added to.
    patch_list: Arc<BTreeMap<Ipv6Net, Patch>>,
    instructions: Instructions,
}

struct Tree {
    uppers: Intervals,
    /// By interval of the upper halves.
    targets: Vec<RouteId>,
    /// /64s that hold longer prefixes, by their upper halves in rising order: where their intervals lie
    /// in the next lists.
    split_uppers: Vec<u64>,
    splits: Vec<Split>,
    /// Last lower halves, what is longest there, and its length.
    lower_lasts: Vec<u64>,
    lower_ids: Vec<RouteId>,
    lower_lengths: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Split {
    first: u32,
    intervals: u32,
}

/// A change of one prefix of /64 or longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fib6Change {
    /// A route is new or leads elsewhere.
    Insert(Ipv6Net, RouteId),
    /// A route is taken out. What is around it shows: the longest prefix that has a route then, by its
    /// length, and where that leads.
    Remove(Ipv6Net, Option<(u8, RouteId)>),
}

/// What a prefix leads to in place of what the tree says.
#[derive(Clone, Copy)]
struct Patch {
    id: RouteId,
    /// Length of the prefix that the answer belongs to: its own, or the one around it.
    from: u8,
}

/// An answer in the exact tables: the length of the prefix that is looked up, and the id.
const fn pack(length: u8, id: RouteId) -> u32 {
    (length as u32) << 16 | id.0 as u32
}

const fn unpack(packed: u32) -> (u8, RouteId) {
    ((packed >> 16) as u8, RouteId(packed as u16))
}

impl Fib6 {
    /// Routes that a table takes: twelve times the Internet's of 2024. It bounds memory (about
    /// 350 MiB while such a table is built) and keeps positions within 31 bits.
    pub const ROUTES_MAX: usize = 1 << 21;

    /// The shortest prefix that can be patched.
    pub const PATCH_LENGTH_MIN: u8 = HALF;

    /// Patches that a table takes; each further change copies them, which takes some milliseconds for as
    /// many as these.
    pub const PATCHES_MAX: usize = 1 << 16;

    /// Builds a table. Of two routes for the same prefix the later counts; bits of an address beyond
    /// its prefix length are ignored.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`] or [`FibError::TooManyRoutes`].
    pub fn build(routes: impl IntoIterator<Item = (Ipv6Net, RouteId)>) -> Result<Self, FibError> {
        Ok(Self::of(in_order(routes)?, Instructions::best()))
    }

    /// Builds a table of this one's routes with these changes: what prefixes lead to from then on, or nothing
    /// where a route is taken out. It has no patches. Of two changes of one prefix the later counts; bits of an
    /// address beyond its prefix length are ignored.
    ///
    /// # Errors
    /// As [`Fib6::build`].
    pub fn rebuilt(
        &self,
        changes: impl IntoIterator<Item = (Ipv6Net, Option<RouteId>)>,
    ) -> Result<Self, FibError> {
        let patched = self.patch_list.iter().map(|(&prefix, patch)| {
            (prefix, (patch.from == prefix.prefix_len()).then_some(patch.id))
        });
        // A change that takes a route out leads nowhere, which no route does.
        let changes = patched.chain(changes).map(|(prefix, id)| match id {
            Some(id) => Route::new(prefix, id),
            None => Ok(Route { id: RouteId::NONE, ..Route::new(prefix, RouteId(0))? }),
        });
        let mut changes = changes.collect::<Result<Vec<_>, _>>()?;
        sort(&mut changes);
        let mut routes = Vec::with_capacity(self.routes.len() + changes.len());
        let mut unchanged = &*self.routes;
        for change in changes {
            let before = unchanged.iter().take_while(|route| route.key() < change.key()).count();
            let (kept, rest) = unchanged.split_at(before);
            routes.extend_from_slice(kept);
            let is_same = rest.first().is_some_and(|route| route.key() == change.key());
            unchanged = &rest[usize::from(is_same)..];
            if change.id != RouteId::NONE {
                routes.push(change);
            }
        }
        routes.extend_from_slice(unchanged);
        if routes.len() > Self::ROUTES_MAX {
            return Err(FibError::TooManyRoutes { max: Self::ROUTES_MAX });
        }
        Ok(Self::of(routes, self.instructions))
    }

    fn of(routes: Vec<Route>, instructions: Instructions) -> Self {
        Self {
            tree: Arc::new(Tree::build(&routes)),
            routes: routes.into(),
            patches: Arc::new(ExactIndex::new(Vec::new())),
            patch_list: Arc::default(),
            instructions,
        }
    }

    /// The same table with these changes, one after the other, in the time that it takes to copy its
    /// patches: the tree is shared.
    ///
    /// # Errors
    /// [`FibError::PatchTooShort`] for a prefix shorter than /64, [`FibError::RouteIdOutOfRange`],
    /// [`FibError::ParentNotShorter`], or [`FibError::TooManyPatches`]: then the table has to be built
    /// anew.
    pub fn patched(&self, changes: &[Fib6Change]) -> Result<Self, FibError> {
        let mut patch_list = BTreeMap::clone(&self.patch_list);
        for &change in changes {
            let (prefix, patch) = checked(change)?;
            let length = prefix.prefix_len();
            // Prefixes within this one that were taken out show what is around them now.
            let inner = Ipv6Net::new_assert(prefix.broadcast(), 128);
            for (within, other) in patch_list.range_mut(prefix..=inner) {
                let was_taken_out = other.from < within.prefix_len();
                if was_taken_out && prefix.contains(within) && other.from <= length {
                    *other = patch;
                }
            }
            patch_list.insert(prefix, patch);
        }
        if patch_list.len() > Self::PATCHES_MAX {
            return Err(FibError::TooManyPatches { max: Self::PATCHES_MAX });
        }
        let entries = patch_list.iter().map(|(prefix, patch)| {
            let length = prefix.prefix_len();
            (prefix.network().to_bits(), length, pack(length, patch.id))
        });
        Ok(Self {
            tree: Arc::clone(&self.tree),
            routes: Arc::clone(&self.routes),
            patches: Arc::new(ExactIndex::new(entries.collect())),
            patch_list: Arc::new(patch_list),
            instructions: self.instructions,
        })
    }

    /// The same table, with look-ups by other instructions than the processor's best.
    #[must_use]
    pub fn with_instructions(&self, instructions: Instructions) -> Self {
        Self { instructions, ..self.clone() }
    }

    /// The group of the longest prefix that holds `destination`. For the control plane; packets take
    /// [`Fib6::lookup_batch`].
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: u128) -> RouteId {
        let position = self.tree.uppers.find(halves(destination).0);
        if self.patch_list.is_empty() {
            self.tree.resolve(position, destination).0
        } else {
            self.resolve_patched(position, destination)
        }
    }

    /// Looks up all `destinations` and writes the answers to `results`, level by level, so that the
    /// misses of a batch are waited for together.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn lookup_batch(&self, destinations: &[u128], results: &mut [RouteId]) {
        assert_eq!(destinations.len(), results.len(), "one result for each destination");
        if self.patch_list.is_empty() {
            run(self.instructions, LookUp::<false> { fib: self, destinations, results });
        } else {
            run(self.instructions, LookUp::<true> { fib: self, destinations, results });
        }
    }

    /// The longer of what the tree has and what was patched; of equal lengths the patch.
    fn resolve_patched(&self, position: usize, destination: u128) -> RouteId {
        let (id, length) = self.tree.resolve(position, destination);
        match self.patches.longest(destination).map(unpack) {
            Some((patched, patch)) if patched >= length => patch,
            _ => id,
        }
    }

    /// Tells of ranges of addresses, from the lowest to the highest, what look-ups give for all of a range: the
    /// last address of each and the answer. Neighbours may have the same answer.
    pub(crate) fn each_range(&self, mut tell: impl FnMut(u128, RouteId)) {
        // Where answers can change: at both ends of what the tree was built of, and of what was patched.
        let of_routes = self.routes.iter().map(|route| (route.first(), route.last()));
        let of_patches = self.patch_list.keys();
        let of_patches =
            of_patches.map(|prefix| (prefix.network().to_bits(), prefix.broadcast().to_bits()));
        let ends = of_routes.chain(of_patches);
        let mut lasts: Vec<u128> =
            ends.flat_map(|(first, last)| [first.saturating_sub(1), last]).collect();
        lasts.push(u128::MAX);
        lasts.sort_unstable();
        lasts.dedup();
        let mut first = 0;
        for last in lasts {
            let (at_first, at_last) = (self.lookup(first), self.lookup(last));
            // A tree whose ends are others has an end in between.
            if at_first != at_last {
                tell(last - 1, at_first);
            }
            tell(last, at_last);
            first = last.wrapping_add(1);
        }
    }

    /// Routes the tree was built from, each prefix once.
    #[must_use]
    pub fn routes(&self) -> usize {
        self.routes.len()
    }

    /// Patches since.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.patch_list.len()
    }

    /// Intervals of the upper halves.
    #[must_use]
    pub fn intervals(&self) -> usize {
        self.tree.targets.len()
    }

    /// /64s that hold routes longer than /64.
    #[must_use]
    pub fn splits(&self) -> usize {
        self.tree.splits.len()
    }

    /// Bytes that look-ups read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.tree.bytes() + self.patches.bytes()
    }
}

/// A batch, to be compiled for each set of instructions.
struct LookUp<'a, const PATCHED: bool> {
    fib: &'a Fib6,
    destinations: &'a [u128],
    results: &'a mut [RouteId],
}

impl<const PATCHED: bool> LookUp<'_, PATCHED> {
    #[inline(always)]
    fn stage<C: Compare>(fib: &Fib6, destinations: &[u128; STAGE]) -> [RouteId; STAGE] {
        let tree = &*fib.tree;
        let uppers = destinations.map(|destination| halves(destination).0);
        let positions = tree.uppers.find_stage::<C>(uppers);
        std::array::from_fn(|n| {
            if PATCHED {
                fib.resolve_patched(positions[n], destinations[n])
            } else {
                tree.resolve(positions[n], destinations[n]).0
            }
        })
    }
}

impl<const PATCHED: bool> Work for LookUp<'_, PATCHED> {
    #[inline(always)]
    fn run<C: Compare>(self) {
        let Self { fib, destinations, results } = self;
        let (stages, last) = destinations.as_chunks::<STAGE>();
        let (stages_out, last_out) = results.as_chunks_mut::<STAGE>();
        for (destinations, results) in stages.iter().zip(stages_out) {
            *results = Self::stage::<C>(fib, destinations);
        }
        if !last.is_empty() {
            let mut destinations = [0; STAGE];
            destinations[..last.len()].copy_from_slice(last);
            let results = Self::stage::<C>(fib, &destinations);
            last_out.copy_from_slice(&results[..last.len()]);
        }
    }
}

impl Tree {
    fn build(routes: &[Route]) -> Self {
        let mut tree = Self {
            uppers: Intervals::new(vec![u64::MAX]),
            targets: Vec::new(),
            split_uppers: Vec::new(),
            splits: Vec::new(),
            lower_lasts: Vec::new(),
            lower_ids: Vec::new(),
            lower_lengths: Vec::new(),
        };
        let lasts = tree.split_halves(&intervals(routes));
        tree.uppers = Intervals::new(lasts);
        tree
    }

    /// Divides intervals of whole addresses into those of upper halves, whose ends it returns,
    /// and lists for each /64 in which an interval ends before the /64 does.
    fn split_halves(&mut self, intervals: &[Interval]) -> Vec<u64> {
        let mut lasts = Vec::with_capacity(intervals.len());
        // The first /64 that no target covers yet, and whether some of its intervals are listed.
        let (mut next, mut open) = (0_u64, false);
        for interval in intervals {
            let (upper, lower) = halves(interval.last);
            // A prefix longer than /64 is listed also where it and others fill their /64.
            if !open && lower == u64::MAX && interval.length == 0 {
                self.push_upper(&mut lasts, upper, interval.id);
                next = upper.wrapping_add(1);
                continue;
            }
            if !open {
                if upper > next {
                    self.push_upper(&mut lasts, upper - 1, interval.id);
                }
                next = upper;
            }
            let ends_within = upper == next;
            self.push_lower(if ends_within { lower } else { u64::MAX }, interval);
            open = ends_within && lower != u64::MAX;
            if open {
                continue;
            }
            let first = self.splits.last().map_or(0, |split| split.first + split.intervals);
            self.push_upper(&mut lasts, next, SPLIT);
            self.split_uppers.push(next);
            self.splits.push(Split { first, intervals: position(self.lower_ids.len()) - first });
            next = next.wrapping_add(1);
            if ends_within {
                continue;
            }
            // The interval goes on at the start of the /64 `next`.
            if lower == u64::MAX {
                self.push_upper(&mut lasts, upper, interval.id);
                next = upper.wrapping_add(1);
                continue;
            }
            if upper > next {
                self.push_upper(&mut lasts, upper - 1, interval.id);
            }
            next = upper;
            open = true;
            self.push_lower(lower, interval);
        }
        lasts
    }

    fn push_upper(&mut self, lasts: &mut Vec<u64>, last: u64, target: RouteId) {
        self.targets.push(target);
        lasts.push(last);
    }

    fn push_lower(&mut self, last: u64, interval: &Interval) {
        self.lower_lasts.push(last);
        self.lower_ids.push(interval.id);
        self.lower_lengths.push(interval.length);
    }

    /// The group at a position among the upper halves' intervals, and the length of its prefix if that
    /// is above 64.
    #[inline(always)]
    fn resolve(&self, position: usize, destination: u128) -> (RouteId, u8) {
        let target = self.targets[position];
        if target == SPLIT { self.resolve_split(destination) } else { (target, 0) }
    }

    #[cold]
    fn resolve_split(&self, destination: u128) -> (RouteId, u8) {
        let (upper, lower) = halves(destination);
        let at = self.split_uppers.partition_point(|&other| other < upper);
        let Split { first, intervals } = self.splits[at];
        let (first, intervals) = (first as usize, intervals as usize);
        let lasts = &self.lower_lasts[first..][..intervals];
        let at = first + lasts.partition_point(|&last| last < lower);
        (self.lower_ids[at], self.lower_lengths[at])
    }

    fn bytes(&self) -> usize {
        self.uppers.bytes()
            + size_of_val(&*self.targets)
            + size_of_val(&*self.split_uppers)
            + size_of_val(&*self.splits)
            + size_of_val(&*self.lower_lasts)
            + size_of_val(&*self.lower_ids)
            + size_of_val(&*self.lower_lengths)
    }
}

impl fmt::Debug for Fib6 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fib6")
            .field("routes", &self.routes())
            .field("intervals", &self.intervals())
            .field("splits", &self.splits())
            .finish_non_exhaustive()
    }
}

#[inline(always)]
const fn halves(address: u128) -> (u64, u64) {
    ((address >> 64) as u64, address as u64)
}

fn position(count: usize) -> u32 {
    u32::try_from(count).expect("ROUTES_MAX keeps positions within 31 bits")
}

/// The prefix of a change, truncated, and what it leads to from then on.
fn checked(change: Fib6Change) -> Result<(Ipv6Net, Patch), FibError> {
    let (Fib6Change::Insert(prefix, _) | Fib6Change::Remove(prefix, _)) = change;
    let length = prefix.prefix_len();
    if length < HALF {
        return Err(FibError::PatchTooShort { prefix: prefix.into() });
    }
    let (from, id) = match change {
        Fib6Change::Insert(_, id) => (length, id),
        Fib6Change::Remove(_, None) => {
            return Ok((prefix.trunc(), Patch { id: RouteId::NONE, from: 0 }));
        }
        Fib6Change::Remove(_, Some((around, _))) if around >= length => {
            return Err(FibError::ParentNotShorter { prefix: prefix.into(), length: around });
        }
        Fib6Change::Remove(_, Some((around, id))) => (around, id),
    };
    if id > RouteId::MAX {
        return Err(FibError::RouteIdOutOfRange { prefix: prefix.into(), id });
    }
    Ok((prefix.trunc(), Patch { id, from }))
}

/// A prefix without bits beyond its length, and where it leads.
#[derive(Clone, Copy)]
struct Route {
    /// Its first address, in halves, which need less room for their alignment.
    upper: u64,
    lower: u64,
    length: u8,
    id: RouteId,
}

impl Route {
    fn new(prefix: Ipv6Net, id: RouteId) -> Result<Self, FibError> {
        if id > RouteId::MAX {
            return Err(FibError::RouteIdOutOfRange { prefix: prefix.into(), id });
        }
        let (upper, lower) = halves(prefix.network().to_bits());
        Ok(Self { upper, lower, length: prefix.prefix_len(), id })
    }

    /// Outer before inner and lower before higher.
    const fn key(&self) -> (u64, u64, u8) {
        (self.upper, self.lower, self.length)
    }

    fn first(&self) -> u128 {
        u128::from(self.upper) << 64 | u128::from(self.lower)
    }

    fn last(&self) -> u128 {
        self.first() | u128::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }
}

/// Has each prefix once, the last that there was, in order.
fn sort(routes: &mut Vec<Route>) {
    routes.sort_by_key(Route::key);
    // The sort is stable, so the later of two routes for one prefix stands second.
    routes.dedup_by(|later, earlier| {
        let same = later.key() == earlier.key();
        if same {
            earlier.id = later.id;
        }
        same
    });
}

fn in_order(routes: impl IntoIterator<Item = (Ipv6Net, RouteId)>) -> Result<Vec<Route>, FibError> {
    let mut collected: Vec<Route> = Vec::new();
    for (prefix, id) in routes {
        if collected.len() == Fib6::ROUTES_MAX {
            return Err(FibError::TooManyRoutes { max: Fib6::ROUTES_MAX });
        }
        collected.push(Route::new(prefix, id)?);
    }
    sort(&mut collected);
    Ok(collected)
}

struct Interval {
    last: u128,
    id: RouteId,
    /// Length of the prefix that it belongs to, if that is above 64, and then it lies within a /64; else
    /// 0.
    length: u8,
}

/// Flattens nested prefixes into intervals that cover all addresses. Neighbours that give the same
/// answer are one.
fn intervals(routes: &[Route]) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::with_capacity(2 * routes.len() + 1);
    // Prefixes that hold the current address, outermost first.
    let mut holders: Vec<&Route> = Vec::with_capacity(128);
    // The first address not covered yet; nothing past the last address.
    let mut next = Some(0_u128);
    let mut extend = |next: &mut Option<u128>, last: u128, holder: Option<&Route>| {
        if next.is_some_and(|next| next <= last) {
            *next = last.checked_add(1);
            let id = holder.map_or(RouteId::NONE, |holder| holder.id);
            let length = holder.map_or(0, |holder| holder.length);
            let length = if length > HALF { length } else { 0 };
            match intervals.last_mut() {
                Some(interval)
                    if (interval.id, interval.length) == (id, length)
                        && (length == 0 || halves(interval.last).0 == halves(last).0) =>
                {
                    interval.last = last;
                }
                _ => intervals.push(Interval { last, id, length }),
            }
        }
    };
    for route in routes {
        while let Some(holder) = holders.pop_if(|holder| holder.last() < route.first()) {
            extend(&mut next, holder.last(), Some(holder));
        }
        if let Some(before) = route.first().checked_sub(1) {
            extend(&mut next, before, holders.last().copied());
        }
        holders.push(route);
    }
    while let Some(holder) = holders.pop() {
        extend(&mut next, holder.last(), Some(holder));
    }
    extend(&mut next, u128::MAX, None);
    intervals
}
