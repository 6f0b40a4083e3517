//! Nexthop objects (`ip nexthop`) and what routes that name them do.
//!
//! Invariant: [`Objects::kind`] changes only in [`Objects::settle`], so that between two of them
//! "what was told" of a route can be computed from its candidates.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::decode::Nexthop;
use super::model::{NextHop, Reason, RouteKind};
use super::stamped::{Origin, Stamped};

/// The objects by id.
#[derive(Debug, Default)]
pub(super) struct Objects {
    known: Stamped<u32, Nexthop>,
    /// What each does, as of the last settling.
    settled: HashMap<u32, Arc<RouteKind>>,
    dirty: bool,
}

impl Objects {
    pub(super) fn begin(&mut self) {
        self.known.begin();
    }

    pub(super) fn finish(&mut self) {
        self.dirty |= !self.known.finish().is_empty();
    }

    pub(super) fn set(&mut self, id: u32, nexthop: Nexthop, origin: Origin) {
        self.dirty |= self.known.set(id, nexthop, origin);
    }

    pub(super) fn remove(&mut self, id: u32) {
        self.dirty |= self.known.remove(&id).is_some();
    }

    pub(super) const fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// What a route that names the object does.
    pub(super) fn kind(&self, id: u32) -> Arc<RouteKind> {
        self.settled.get(&id).map_or_else(
            || Arc::new(RouteKind::NotExpressible(Reason::UnknownNexthop(id))),
            Arc::clone,
        )
    }

    /// The objects whose [`kind`](Self::kind) the next settling changes.
    pub(super) fn changed(&self) -> HashSet<u32> {
        let gone = self.settled.keys().filter(|id| self.known.get(id).is_none()).copied();
        let different = self
            .known
            .iter()
            .filter(|(id, nexthop)| {
                self.settled.get(id).is_none_or(|kind| **kind != self.resolve(**id, nexthop))
            })
            .map(|(id, _)| *id);
        gone.chain(different).collect()
    }

    /// Lets all changes come into force.
    pub(super) fn settle(&mut self) {
        let settled = self
            .known
            .iter()
            .map(|(id, nexthop)| (*id, Arc::new(self.resolve(*id, nexthop))))
            .collect();
        self.settled = settled;
        self.dirty = false;
    }

    fn resolve(&self, id: u32, nexthop: &Nexthop) -> RouteKind {
        match nexthop {
            Nexthop::Hop(hop) => RouteKind::NextHops([*hop].into()),
            Nexthop::Blackhole => RouteKind::Blackhole,
            Nexthop::NotExpressible(reason) => RouteKind::NotExpressible(*reason),
            Nexthop::Dead => RouteKind::NotExpressible(Reason::UnknownNexthop(id)),
            Nexthop::Group(members) => self.resolve_group(id, members),
        }
    }

    /// Groups have no groups as members; a blackhole may be the one member of a group.
    fn resolve_group(&self, id: u32, members: &[(u32, u32)]) -> RouteKind {
        let mut hops = Vec::with_capacity(members.len());
        for (member, weight) in members {
            match self.known.get(member) {
                Some(Nexthop::Hop(hop)) => hops.push(NextHop { weight: *weight, ..*hop }),
                Some(Nexthop::Blackhole) => return RouteKind::Blackhole,
                Some(Nexthop::NotExpressible(reason)) => return RouteKind::NotExpressible(*reason),
                Some(Nexthop::Dead) | None => {}
                Some(Nexthop::Group(_)) => {
                    return RouteKind::NotExpressible(Reason::UnknownNexthop(*member));
                }
            }
        }
        if hops.is_empty() {
            RouteKind::NotExpressible(Reason::UnknownNexthop(id))
        } else {
            RouteKind::NextHops(hops.into())
        }
    }
}
