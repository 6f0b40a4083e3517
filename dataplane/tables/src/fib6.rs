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
//! Invariants: the intervals of the tree cover all upper halves and those of a split /64 all lower
//! halves; there are no pointers, only positions.
//!
//! Memory: 12 bytes an interval. Neighbours with the same group are one interval, so a full Internet
//! table of 176,000 routes has 113,000 and takes 1.4 MB, 8 bytes a route.
//!
//! Time, for that table under the same conditions as [`Fib4`](crate::Fib4)'s: 12 ns in batches of
//! 32 or 256 for addresses spread over all routes; built in 10 ms.
//!
//! Absent: changes in place (a rebuild takes tens of milliseconds), and egress space of whole /64s
//! and single addresses, which [`SliceTable`](crate::SliceTable) keeps in exact tables.

use std::fmt;

use ipnet::Ipv6Net;

use crate::rank_tree::{Node, RankTree};
use crate::{FibError, RouteId};

type UpperNode = Node<[u64; 8]>;
/// Levels for [`Fib6::ROUTES_MAX`] routes: each adds two ends of intervals, or four when it splits a
/// /64, and 9^8 is 43 million.
const DEPTH_MAX: usize = 8;

/// Addresses that descend the tree together, so that one waits for memory while others compare.
const STAGE: usize = 32;

/// Set in a target that is a position in `splits`; else the target is a [`RouteId`].
const SPLIT: u32 = 1 << 31;

/// An immutable IPv6 longest-prefix-match table. See the module's head for its shape.
///
/// Addresses are `u128` in host order, as [`Ipv6Addr::to_bits`](std::net::Ipv6Addr::to_bits) gives
/// them.
pub struct Fib6 {
    nodes: Vec<UpperNode>,
    tree: RankTree<DEPTH_MAX>,
    /// By interval of the upper halves: a [`RouteId`], or `SPLIT` and a position in `splits`.
    targets: Vec<u32>,
    /// /64s that hold longer prefixes: where their intervals lie in the next two lists.
    splits: Vec<Split>,
    /// Last lower halves.
    lower_lasts: Vec<u64>,
    lower_ids: Vec<RouteId>,
    routes: usize,
}

#[derive(Clone, Copy)]
struct Split {
    first: u32,
    intervals: u32,
}

impl Fib6 {
    /// Routes that a table takes: twelve times the Internet's of 2024. It bounds memory (about
    /// 350 MiB while such a table is built) and keeps positions within 31 bits.
    pub const ROUTES_MAX: usize = 1 << 21;

    /// Builds a table. Of two routes for the same prefix the later counts; bits of an address beyond
    /// its prefix length are ignored.
    ///
    /// # Errors
    /// [`FibError::RouteIdOutOfRange`] or [`FibError::TooManyRoutes`].
    pub fn build(routes: impl IntoIterator<Item = (Ipv6Net, RouteId)>) -> Result<Self, FibError> {
        let mut fib = Self {
            nodes: Vec::new(),
            tree: RankTree::append(&mut Vec::<UpperNode>::new(), &[u64::MAX]),
            targets: Vec::new(),
            splits: Vec::new(),
            lower_lasts: Vec::new(),
            lower_ids: Vec::new(),
            routes: 0,
        };
        fib.rebuild_into(routes)?;
        Ok(fib)
    }

    /// Replaces the table's contents by `routes` in the memory it has.
    ///
    /// # Errors
    /// As [`Fib6::build`]; the contents are then unchanged.
    pub fn rebuild_into(
        &mut self,
        routes: impl IntoIterator<Item = (Ipv6Net, RouteId)>,
    ) -> Result<(), FibError> {
        let routes = collect(routes)?;
        self.routes = routes.len();
        self.targets.clear();
        self.splits.clear();
        self.lower_lasts.clear();
        self.lower_ids.clear();
        let lasts = self.split_halves(&intervals(&routes));
        self.nodes.clear();
        self.tree = RankTree::append(&mut self.nodes, &lasts);
        Ok(())
    }

    /// Divides intervals of whole addresses into those of upper halves, whose last keys it returns,
    /// and lists for each /64 in which an interval ends before the /64 does.
    fn split_halves(&mut self, intervals: &[Interval]) -> Vec<u64> {
        let mut lasts = Vec::with_capacity(intervals.len());
        // The first /64 that no target covers yet, and whether some of its intervals are listed.
        let (mut next, mut open) = (0_u64, false);
        for interval in intervals {
            let (upper, lower) = halves(interval.last);
            if open {
                let ends_within = upper == next;
                self.lower_lasts.push(if ends_within { lower } else { u64::MAX });
                self.lower_ids.push(interval.id);
                if ends_within && lower != u64::MAX {
                    continue;
                }
                let first = self.splits.last().map_or(0, |split| split.first + split.intervals);
                self.targets.push(SPLIT | position(self.splits.len()));
                self.splits
                    .push(Split { first, intervals: position(self.lower_ids.len()) - first });
                lasts.push(next);
                open = false;
                if ends_within {
                    next = next.wrapping_add(1);
                    continue;
                }
                next += 1;
            }
            // The interval now begins at the start of the /64 `next`.
            if lower == u64::MAX {
                self.targets.push(u32::from(interval.id.0));
                lasts.push(upper);
                next = upper.wrapping_add(1);
                continue;
            }
            if upper > next {
                self.targets.push(u32::from(interval.id.0));
                lasts.push(upper - 1);
            }
            next = upper;
            open = true;
            self.lower_lasts.push(lower);
            self.lower_ids.push(interval.id);
        }
        lasts
    }

    /// The group of the longest prefix that holds `destination`. For the control plane; packets take
    /// [`Fib6::lookup_batch`].
    #[inline]
    #[must_use]
    pub fn lookup(&self, destination: u128) -> RouteId {
        let (upper, _) = halves(destination);
        self.resolve(self.tree.rank(&self.nodes, upper), destination)
    }

    /// Looks up all `destinations` and writes the answers to `results`, level by level, so that the
    /// misses of a batch are waited for together.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn lookup_batch(&self, destinations: &[u128], results: &mut [RouteId]) {
        assert_eq!(destinations.len(), results.len(), "one result for each destination");
        for (destinations, results) in destinations.chunks(STAGE).zip(results.chunks_mut(STAGE)) {
            let mut positions = [0_usize; STAGE];
            for first in self.tree.levels() {
                for (&destination, position) in destinations.iter().zip(&mut positions) {
                    let (upper, _) = halves(destination);
                    *position = *position * UpperNode::CHILDREN
                        + self.nodes[first + *position].child(upper);
                }
            }
            for ((&destination, &position), result) in
                destinations.iter().zip(&positions).zip(results)
            {
                *result = self.resolve(position, destination);
            }
        }
    }

    /// The group at a position among the upper halves' intervals.
    #[inline(always)]
    fn resolve(&self, position: usize, destination: u128) -> RouteId {
        let target = self.targets[position];
        if target & SPLIT == 0 {
            RouteId(target as u16)
        } else {
            self.resolve_split(self.splits[(target & !SPLIT) as usize], destination)
        }
    }

    fn resolve_split(&self, split: Split, destination: u128) -> RouteId {
        let (_, lower) = halves(destination);
        let (first, intervals) = (split.first as usize, split.intervals as usize);
        let lasts = &self.lower_lasts[first..][..intervals];
        self.lower_ids[first + lasts.partition_point(|&last| last < lower)]
    }

    /// Routes the table was built from, each prefix once.
    #[must_use]
    pub const fn routes(&self) -> usize {
        self.routes
    }

    /// Intervals of the upper halves.
    #[must_use]
    pub const fn intervals(&self) -> usize {
        self.targets.len()
    }

    /// /64s that hold routes longer than /64.
    #[must_use]
    pub const fn splits(&self) -> usize {
        self.splits.len()
    }

    /// Bytes that look-ups read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.nodes)
            + size_of_val(&*self.targets)
            + size_of_val(&*self.splits)
            + size_of_val(&*self.lower_lasts)
            + size_of_val(&*self.lower_ids)
    }
}

impl fmt::Debug for Fib6 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fib6")
            .field("routes", &self.routes)
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

struct Route {
    first: u128,
    length: u8,
    id: RouteId,
}

impl Route {
    fn last(&self) -> u128 {
        self.first | u128::MAX.checked_shr(self.length.into()).unwrap_or(0)
    }
}

/// Reads the routes, each prefix once, outer before inner and lower before higher.
fn collect(routes: impl IntoIterator<Item = (Ipv6Net, RouteId)>) -> Result<Vec<Route>, FibError> {
    let mut collected: Vec<Route> = Vec::new();
    for (prefix, id) in routes {
        if id > RouteId::MAX {
            return Err(FibError::RouteIdOutOfRange { prefix: prefix.into(), id });
        }
        if collected.len() == Fib6::ROUTES_MAX {
            return Err(FibError::TooManyRoutes { max: Fib6::ROUTES_MAX });
        }
        collected.push(Route {
            first: prefix.network().to_bits(),
            length: prefix.prefix_len(),
            id,
        });
    }
    let key = |route: &Route| (route.first, route.length);
    collected.sort_by_key(key);
    // The sort is stable, so the later of two routes for one prefix stands second.
    collected.dedup_by(|later, earlier| {
        let same = key(later) == key(earlier);
        if same {
            earlier.id = later.id;
        }
        same
    });
    Ok(collected)
}

struct Interval {
    last: u128,
    id: RouteId,
}

/// Flattens nested prefixes into intervals that cover all addresses, neighbours with the same id
/// being one.
fn intervals(routes: &[Route]) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = Vec::with_capacity(2 * routes.len() + 1);
    // Prefixes that hold the current address, outermost first.
    let mut holders: Vec<&Route> = Vec::with_capacity(128);
    // The first address not covered yet; nothing past the last address.
    let mut next = Some(0_u128);
    let mut extend = |next: &mut Option<u128>, last: u128, id: RouteId| {
        if next.is_some_and(|next| next <= last) {
            *next = last.checked_add(1);
            match intervals.last_mut() {
                Some(interval) if interval.id == id => interval.last = last,
                _ => intervals.push(Interval { last, id }),
            }
        }
    };
    for route in routes {
        while let Some(holder) = holders.pop_if(|holder| holder.last() < route.first) {
            extend(&mut next, holder.last(), holder.id);
        }
        if let Some(before) = route.first.checked_sub(1) {
            let id = holders.last().map_or(RouteId::NONE, |holder| holder.id);
            extend(&mut next, before, id);
        }
        holders.push(route);
    }
    while let Some(holder) = holders.pop() {
        extend(&mut next, holder.last(), holder.id);
    }
    extend(&mut next, u128::MAX, RouteId::NONE);
    intervals
}
