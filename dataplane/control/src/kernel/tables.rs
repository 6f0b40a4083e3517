//! The kernel's routes: for each prefix all candidates, and the nexthop objects that some of them name.
//!
//! ```text
//!   news, dumps -> candidates of a prefix -> in order -> compared with what was told -> changes
//!                     nexthop objects ----------^
//! ```
//!
//! Invariants: a prefix is in `dirty` if and only if its routes may differ from what was told;
//! `dirty` holds what was told. Candidates that do the same share one [`Target`]. What
//! [`Stamped`](super::stamped::Stamped) says about dumps and news holds here for each candidate.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use smallvec::SmallVec;

use super::decode::{Body, Nexthop, RouteStatement, Selector};
use super::model::{NextHop, Reason, Route, RouteChange, RouteKind, Routes};
use super::objects::Objects;
use super::stamped::{Origin, Stamp};

/// How the kernel put a route among others of its prefix, type of service and metric: the flags
/// `NLM_F_REPLACE` and `NLM_F_APPEND` of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    First,
    Replace,
    Last,
}

/// What a route does, shared by all that do it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Target {
    table: u32,
    protocol: u8,
    selector: Selector,
    /// The largest packet that it takes by the object's next hops, in bytes; 0: what the links do.
    object_mtu: u32,
    body: Body,
}

impl Target {
    fn hops(&self) -> &[NextHop] {
        match &self.body {
            Body::Kind(kind) => match kind.as_ref() {
                RouteKind::NextHops(hops) => hops,
                _ => &[],
            },
            Body::Object(_) | Body::KindBesideObject(..) => &[],
        }
    }

    fn names(&self, objects: &HashSet<u32>) -> bool {
        self.body.object().is_some_and(|object| objects.contains(&object))
    }
}

/// One of the routes of a prefix.
#[derive(Clone, Debug)]
struct Candidate {
    target: Arc<Target>,
    metric: u32,
    stamp: Stamp,
}

impl Candidate {
    /// Whether the kernel has it in the same place of the same table.
    fn is_peer(&self, metric: u32, target: &Target) -> bool {
        self.metric == metric
            && self.target.table == target.table
            && self.target.selector == target.selector
    }
}

/// Nearly every prefix has one route; that one takes no allocation.
type Candidates = SmallVec<[Candidate; 1]>;

/// A prefix of one family, small enough to keep a million of.
pub(super) trait Prefix: Copy + Eq + Hash + Debug + Into<IpNet> {
    /// Whether the kernel joins routes of equal metric into one, as it does for IPv6.
    const JOINS: bool;
}

impl Prefix for Ipv4Net {
    const JOINS: bool = false;
}

impl Prefix for Ipv6Net {
    const JOINS: bool = true;
}

/// What the order and the meaning of candidates depend on.
#[derive(Clone, Copy)]
struct With<'a> {
    /// The tables that are mirrored, those that come first first.
    tables: &'a [u32],
    objects: &'a Objects,
}

/// Routes of one family.
#[derive(Debug)]
pub(super) struct Family<P> {
    slots: HashMap<P, Candidates>,
    /// What was told of prefixes that may have changed since.
    dirty: HashMap<P, Routes>,
    generation: u32,
    /// Present while a dump runs: the candidates that news removed since its start.
    removed: Option<HashSet<(P, u32, u32, Selector)>>,
    /// The nexthop objects that went since its start: it may still name routes that name them.
    gone: HashSet<u32>,
    /// Prefixes that were told, and those of them that are not expressible.
    pub(super) told: u64,
    pub(super) unexpressible: u64,
}

impl<P> Default for Family<P> {
    fn default() -> Self {
        Self {
            slots: HashMap::new(),
            dirty: HashMap::new(),
            generation: 0,
            removed: None,
            gone: HashSet::new(),
            told: 0,
            unexpressible: 0,
        }
    }
}

impl<P: Prefix> Family<P> {
    fn stamp(&self, origin: Origin) -> Stamp {
        Stamp::new(self.generation, origin)
    }

    /// Notes what was told of `prefix`, before it changes.
    fn touch(&mut self, prefix: P, with: With<'_>) {
        self.dirty.entry(prefix).or_insert_with(|| {
            self.slots.get(&prefix).map_or_else(Routes::new, |slot| in_order(slot, with))
        });
    }

    fn begin(&mut self) {
        self.generation = self.generation.wrapping_add(1) & (u32::MAX >> 1);
        self.removed = Some(HashSet::new());
        self.gone.clear();
    }

    fn finish(&mut self, table: u32, with: With<'_>) {
        let gone = std::mem::take(&mut self.gone);
        if !gone.is_empty() {
            self.drop_naming(&gone, with);
        }
        let oldest = self.stamp(Origin::Dump);
        self.removed = None;
        // What is in another table this dump did not name.
        let stays =
            |candidate: &Candidate| candidate.stamp >= oldest || candidate.target.table != table;
        let outdated: Vec<P> = self
            .slots
            .iter()
            .filter(|(_, slot)| !slot.iter().all(stays))
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in outdated {
            self.touch(prefix, with);
            if let Some(slot) = self.slots.get_mut(&prefix) {
                slot.retain(|candidate| stays(candidate));
                if slot.is_empty() {
                    self.slots.remove(&prefix);
                }
            }
        }
    }

    /// A dump names a route. Candidates of an earlier time stay in front until the dump ends, so
    /// that the best route does not change back and forth.
    fn dumped(&mut self, prefix: P, metric: u32, target: Arc<Target>, with: With<'_>) {
        let key = (prefix, metric, target.table, target.selector);
        let (news, stamp) = (self.stamp(Origin::News), self.stamp(Origin::Dump));
        let Some(removed) = &self.removed else { return };
        if removed.contains(&key) {
            // What news removed is no longer in the slot; a peer of it that is, stays.
            let slot = self.slots.get_mut(&prefix).into_iter().flatten();
            for peer in slot.filter(|peer| peer.metric == metric && peer.target == target) {
                peer.stamp = peer.stamp.max(stamp);
            }
            return;
        }
        if let Some(slot) = self.slots.get_mut(&prefix) {
            if let [only] = slot.as_mut_slice()
                && only.metric == metric
                && only.stamp < stamp
                && only.target == target
            {
                only.stamp = stamp;
                return;
            }
            let settled = |peer: &Candidate| {
                peer.stamp == news || (peer.stamp == stamp && peer.target == target)
            };
            if slot.iter().any(|peer| peer.is_peer(metric, &target) && settled(peer)) {
                return;
            }
        }
        self.touch(prefix, with);
        let slot = self.slots.entry(prefix).or_default();
        if let Some(at) = slot
            .iter()
            .position(|peer| peer.metric == metric && peer.target == target && peer.stamp < stamp)
        {
            slot.remove(at);
        }
        slot.push(Candidate { target, metric, stamp });
    }

    /// The kernel tells that it has added or replaced a route.
    fn added(
        &mut self,
        prefix: P,
        metric: u32,
        target: Arc<Target>,
        placement: Placement,
        with: With<'_>,
    ) {
        self.touch(prefix, with);
        let stamp = self.stamp(Origin::News);
        let slot = self.slots.entry(prefix).or_default();
        // The dump on the other socket, or an earlier reading, may have told of it already.
        if let Some(same) =
            slot.iter_mut().find(|peer| peer.metric == metric && peer.target == target)
        {
            same.stamp = stamp;
            return;
        }
        let candidate = Candidate { target, metric, stamp };
        let place = Arc::clone(&candidate.target);
        if P::JOINS && placement != Placement::Replace {
            // The message names all next hops of the joined route, also those it had before.
            let hops = candidate.target.hops();
            slot.retain(|peer| {
                let known = peer.target.hops();
                !(peer.is_peer(metric, &place)
                    && !known.is_empty()
                    && known.iter().all(|hop| hops.contains(hop)))
            });
            slot.push(candidate);
            return;
        }
        let peer = slot.iter().position(|peer| peer.is_peer(metric, &place));
        match (placement, peer) {
            (Placement::Replace, Some(at)) => slot[at] = candidate,
            (Placement::First, Some(at)) => slot.insert(at, candidate),
            _ => slot.push(candidate),
        }
    }

    /// The kernel tells that it has removed a route, or some next hops of one. False if what goes
    /// cannot be told apart from what stays.
    fn deleted(
        &mut self,
        prefix: P,
        metric: u32,
        target: &Target,
        intern: impl FnOnce(Target) -> Arc<Target>,
        with: With<'_>,
    ) -> bool {
        if let Some(removed) = &mut self.removed {
            removed.insert((prefix, metric, target.table, target.selector));
        }
        if !self.slots.contains_key(&prefix) {
            return true;
        }
        self.touch(prefix, with);
        let stamp = self.stamp(Origin::News);
        let Some(slot) = self.slots.get_mut(&prefix) else { return true };
        let peers: SmallVec<[usize; 4]> =
            (0..slot.len()).filter(|&at| slot[at].is_peer(metric, target)).collect();
        let same = peers.iter().copied().find(|&at| *slot[at].target == *target);
        // IPv6 tells of one next hop that leaves a joined route.
        let part = peers.iter().copied().find(|&at| {
            let (known, gone) = (slot[at].target.hops(), target.hops());
            P::JOINS
                && !gone.is_empty()
                && gone.len() < known.len()
                && gone.iter().all(|hop| known.contains(hop))
        });
        let certain = match (same, part, peers.as_slice()) {
            (Some(at), ..) => {
                slot.remove(at);
                true
            }
            (None, Some(at), _) => {
                let gone = target.hops();
                let old = &slot[at].target;
                let rest: Vec<_> =
                    old.hops().iter().filter(|hop| !gone.contains(hop)).copied().collect();
                let body = Body::Kind(Arc::new(RouteKind::NextHops(rest.into())));
                slot[at].target = intern(Target { body, ..Target::clone(old) });
                slot[at].stamp = stamp;
                true
            }
            // Known with other next hops, some of which were dead then or are now.
            (None, None, [at]) if slot[*at].target.body.object() == target.body.object() => {
                slot.remove(*at);
                true
            }
            (None, None, []) => true,
            // A route that names an object is known by it, or has gone with it.
            (None, None, _) => target.body.object().is_some(),
        };
        if slot.is_empty() {
            self.slots.remove(&prefix);
        }
        certain
    }

    /// Up to `count_max` changes since they were last asked for.
    fn take_changes(&mut self, count_max: usize, with: With<'_>, changes: &mut Vec<RouteChange>) {
        let prefixes: Vec<P> = self.dirty.keys().take(count_max).copied().collect();
        for prefix in prefixes {
            let before = self.dirty.remove(&prefix).unwrap_or_default();
            let after =
                self.slots.get(&prefix).map_or_else(Routes::new, |slot| in_order(slot, with));
            if before == after {
                continue;
            }
            self.told += u64::from(!after.is_empty());
            self.told -= u64::from(!before.is_empty());
            self.unexpressible += u64::from(is_unexpressible(after.first()));
            self.unexpressible -= u64::from(is_unexpressible(before.first()));
            changes.push(RouteChange { prefix: prefix.into(), routes: after });
        }
        if self.dirty.is_empty() {
            // After a full table this is tens of megabytes.
            self.dirty.shrink_to(4096);
        }
    }

    /// Notes what was told of all prefixes with a route that names one of `objects`, and gives them.
    fn touch_naming(&mut self, objects: &HashSet<u32>, with: With<'_>) -> Vec<P> {
        let prefixes: Vec<P> = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.iter().any(|candidate| candidate.target.names(objects)))
            .map(|(prefix, _)| *prefix)
            .collect();
        for &prefix in &prefixes {
            self.touch(prefix, with);
        }
        prefixes
    }

    /// Removes all routes that name one of `objects`.
    fn drop_naming(&mut self, objects: &HashSet<u32>, with: With<'_>) {
        for prefix in self.touch_naming(objects, with) {
            if let Some(slot) = self.slots.get_mut(&prefix) {
                slot.retain(|candidate| !candidate.target.names(objects));
                if slot.is_empty() {
                    self.slots.remove(&prefix);
                }
            }
        }
    }

    /// The kernel tells that a nexthop object has gone.
    fn object_deleted(&mut self, id: u32) {
        if self.removed.is_some() {
            self.gone.insert(id);
        }
    }
}

fn is_unexpressible(route: Option<&Route>) -> bool {
    route.is_some_and(|route| matches!(*route.kind, RouteKind::NotExpressible(_)))
}

/// All routes in the kernel's order: in each table the lowest metric first, of equal ones the first
/// candidate. If any candidate of a table looks at more than the destination, only the kernel can choose
/// in that table.
fn in_order(slot: &Candidates, With { tables, objects }: With<'_>) -> Routes {
    let position = |candidate: &Candidate| {
        tables.iter().position(|table| *table == candidate.target.table).unwrap_or(tables.len())
    };
    let selector = |table: u32| {
        let of_table = slot.iter().filter(|candidate| candidate.target.table == table);
        of_table.map(|candidate| candidate.target.selector).find(|one| *one != Selector::default())
    };
    let mut order: SmallVec<[&Candidate; 4]> = slot.iter().collect();
    order.sort_by_key(|candidate| (position(candidate), candidate.metric));
    let route = |candidate: &&Candidate| {
        let Target { table, protocol, object_mtu, ref body, .. } = *candidate.target;
        let kind = match (selector(table), body) {
            (Some(selector), _) => Arc::new(RouteKind::NotExpressible(if selector.tos != 0 {
                Reason::DependsOnTos
            } else {
                Reason::DependsOnSource
            })),
            (None, Body::Object(id)) => limited(objects.kind(*id), object_mtu),
            (None, Body::Kind(kind) | Body::KindBesideObject(kind, _)) => Arc::clone(kind),
        };
        Route { table, protocol, metric: candidate.metric, kind }
    };
    order.iter().map(route).collect()
}

/// What a nexthop object does, by a route that takes packets up to `mtu` bytes: the metric is the route's, the
/// next hops are the object's.
fn limited(kind: Arc<RouteKind>, mtu: u32) -> Arc<RouteKind> {
    match &*kind {
        RouteKind::NextHops(hops) if mtu != 0 => {
            let hops = hops.iter().map(|hop| NextHop { mtu, ..*hop });
            Arc::new(RouteKind::NextHops(hops.collect()))
        }
        _ => kind,
    }
}

/// One copy of each target.
#[derive(Debug, Default)]
struct Interner {
    targets: HashSet<Arc<Target>>,
    /// Size at which targets that nobody uses are dropped.
    sweep_at: usize,
}

impl Interner {
    fn get(&mut self, target: Target) -> Arc<Target> {
        if let Some(known) = self.targets.get(&target) {
            return Arc::clone(known);
        }
        if self.targets.len() >= self.sweep_at {
            self.targets.retain(|target| Arc::strong_count(target) > 1);
            self.sweep_at = (2 * self.targets.len()).max(1024);
        }
        let target = Arc::new(target);
        self.targets.insert(Arc::clone(&target));
        target
    }

    /// Whether a route names one of `objects`: to ask the targets is cheap, there are far fewer than routes.
    fn is_named(&self, objects: &HashSet<u32>) -> bool {
        let is_used = |target: &&Arc<Target>| Arc::strong_count(target) > 1;
        self.targets.iter().filter(is_used).any(|target| target.names(objects))
    }
}

/// Which family a dump is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V4,
    V6,
}

/// The routes of both families and the nexthop objects.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// The tables that are mirrored, those that come first first.
    tables: Vec<u32>,
    /// When the oldest change was heard of that was not taken yet.
    since: Option<Instant>,
    pub(super) v4: Family<Ipv4Net>,
    pub(super) v6: Family<Ipv6Net>,
    objects: Objects,
    /// Objects that have gone, whose routes are yet to be removed.
    gone: HashSet<u32>,
    interner: Interner,
}

impl Tables {
    pub(super) fn new(tables: Vec<u32>) -> Self {
        Self { tables, ..Self::default() }
    }

    /// A dump of this family starts.
    pub(super) fn begin(&mut self, version: Version) {
        match version {
            Version::V4 => self.v4.begin(),
            Version::V6 => self.v6.begin(),
        }
    }

    /// The dump of this family's routes in a table has ended.
    pub(super) fn finish(&mut self, version: Version, table: u32) {
        let with = With { tables: &self.tables, objects: &self.objects };
        match version {
            Version::V4 => self.v4.finish(table, with),
            Version::V6 => self.v6.finish(table, with),
        }
    }

    /// Takes in what a dump says.
    pub(super) fn dumped(&mut self, route: RouteStatement) {
        if route.dead {
            return;
        }
        let (prefix, metric) = (route.prefix, route.metric);
        let target = self.interner.get(target(route));
        let with = With { tables: &self.tables, objects: &self.objects };
        match prefix {
            IpNet::V4(prefix) => self.v4.dumped(prefix, metric, target, with),
            IpNet::V6(prefix) => self.v6.dumped(prefix, metric, target, with),
        }
    }

    /// Takes in that a route was added or replaced.
    pub(super) fn added(&mut self, route: RouteStatement, placement: Placement) {
        if route.dead {
            self.deleted(route);
            return;
        }
        let (prefix, metric) = (route.prefix, route.metric);
        let target = self.interner.get(target(route));
        let with = With { tables: &self.tables, objects: &self.objects };
        match prefix {
            IpNet::V4(prefix) => self.v4.added(prefix, metric, target, placement, with),
            IpNet::V6(prefix) => self.v6.added(prefix, metric, target, placement, with),
        }
    }

    /// Takes in that a route was removed; false if a dump must tell what is left.
    pub(super) fn deleted(&mut self, route: RouteStatement) -> bool {
        let (prefix, metric) = (route.prefix, route.metric);
        let target = target(route);
        let with = With { tables: &self.tables, objects: &self.objects };
        let interner = &mut self.interner;
        let intern = |target| interner.get(target);
        match prefix {
            IpNet::V4(prefix) => self.v4.deleted(prefix, metric, &target, intern, with),
            IpNet::V6(prefix) => self.v6.deleted(prefix, metric, &target, intern, with),
        }
    }

    /// The nexthop objects are dumped from now on.
    pub(super) fn begin_objects(&mut self) {
        self.objects.begin();
    }

    /// The dump of the nexthop objects has ended.
    pub(super) fn finish_objects(&mut self) {
        self.objects.finish();
    }

    /// Takes in what a nexthop object is. It comes into force with [`settle`](Self::settle). False if a dump
    /// must tell which routes name this one, and which one that had its number and has gone.
    pub(super) fn object_set(&mut self, id: u32, nexthop: Nexthop, origin: Origin) -> bool {
        if self.gone.contains(&id) {
            self.drop_orphans();
        }
        self.objects.set(id, nexthop, origin);
        !(self.v4.gone.contains(&id) || self.v6.gone.contains(&id))
    }

    /// Takes in that a nexthop object has gone, and the routes that name it with it: of IPv4 ones the kernel does
    /// not tell, of IPv6 ones it does with the sysctl `nexthop_compat_mode` alone.
    pub(super) fn object_deleted(&mut self, id: u32) {
        self.objects.remove(id);
        self.gone.insert(id);
        self.v4.object_deleted(id);
        self.v6.object_deleted(id);
    }

    /// Removes the routes of all objects that have gone, together: it may cost a pass over all routes.
    fn drop_orphans(&mut self) {
        let gone = std::mem::take(&mut self.gone);
        if self.interner.is_named(&gone) {
            let with = With { tables: &self.tables, objects: &self.objects };
            self.v4.drop_naming(&gone, with);
            self.v6.drop_naming(&gone, with);
        }
    }

    /// Lets changes of nexthop objects come into force. Costs a pass over all routes if an object changed
    /// that a route names.
    pub(super) fn settle(&mut self) {
        self.drop_orphans();
        if !self.objects.is_dirty() {
            return;
        }
        let changed = self.objects.changed();
        if self.interner.is_named(&changed) {
            let with = With { tables: &self.tables, objects: &self.objects };
            self.v4.touch_naming(&changed, with);
            self.v6.touch_naming(&changed, with);
        }
        // Also when all changes cancelled out: else they would be waited for again and again.
        self.objects.settle();
    }

    /// Whether [`take_changes`](Self::take_changes) may find some.
    pub(super) fn is_dirty(&self) -> bool {
        !self.v4.dirty.is_empty()
            || !self.v6.dirty.is_empty()
            || self.objects.is_dirty()
            || !self.gone.is_empty()
    }

    /// Notes that something was heard of now, unless something older waits to be taken.
    pub(super) fn heard(&mut self) {
        if self.since.is_none() && self.is_dirty() {
            self.since = Some(Instant::now());
        }
    }

    /// Looks at up to `count_max` prefixes that may have changed, and gives those that did, and since
    /// when one of them waited.
    pub(super) fn take_changes(&mut self, count_max: usize) -> (Vec<RouteChange>, Instant) {
        let mut changes = Vec::new();
        let v4 = self.v4.dirty.len().min(count_max);
        let with = With { tables: &self.tables, objects: &self.objects };
        self.v4.take_changes(v4, with, &mut changes);
        self.v6.take_changes(count_max - v4, with, &mut changes);
        let since = self.since.unwrap_or_else(Instant::now);
        if !self.is_dirty() {
            self.since = None;
        }
        (changes, since)
    }
}

fn target(route: RouteStatement) -> Target {
    let RouteStatement { table, protocol, selector, object_mtu, body, .. } = route;
    Target { table, protocol, selector, object_mtu, body }
}

#[cfg(test)]
mod tests;
