//! The routing information base: all routes that any source gives, and which of them is in force.
//!
//! ```text
//!   own addresses ----+
//!   configuration ----+   candidates           target (what it leads to,         group, under a
//!   kernel, by table, +-> of a prefix --best--> shared by all that lead   -----> RouteId that is
//!   protocol, metric -+     |                   there)                           reused late
//!                           +-- prefixes whose best has changed --> FIBs
//! ```
//!
//! Which candidate is best: [`source`]. How flows spread over next hops: [`buckets`]. When an id may mean
//! something else: [`groups`]. What happens to routes that were withdrawn: [`withdrawn`].
//!
//! Invariants:
//! - A change of one prefix costs one prefix, whatever the size of the tables.
//! - `changed4` and `changed6` hold every prefix whose group differs from what the FIB has, and that; nothing
//!   as long as there is none.
//! - A target counts its candidates, and of those the chosen ones; a group counts its targets. What nobody
//!   counts any more is gone.
//!
//! Absent: recursion. A next hop is on a link; routing daemons resolve theirs before they tell the kernel.

mod buckets;
mod derive;
mod detours;
mod groups;
mod prefixes;
mod source;
mod targets;
mod unexpressible;
mod withdrawn;

#[cfg(test)]
mod detours_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Checked;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::joint::set::JointPrefixSet;
use smallvec::SmallVec;
use tables::{Fib6, Fib6Change, Grace, GroupsError, Publisher, RouteId};
use wire::InterfaceId;

use super::adjacencies::Adjacencies;
use super::host_view::{HostView, RouteView};
use crate::kernel::RouteChange;
use detours::Detours;
use groups::{Content, Groups};
use prefixes::{Family, Prefixes};
pub use source::RouteSource;
use source::{Class, Preference};
use targets::{Said, TargetId, Targets};
pub use unexpressible::Unexpressible;
use withdrawn::Withdrawn;

/// A route that some source gives for a prefix, in 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Candidate {
    target: TargetId,
    metric: u32,
    class: Class,
    /// Position in [`Rib::tables`], the first of which wins; 0 for what is in none.
    table: u8,
    protocol: u8,
}

/// Nearly every prefix has one candidate; that one takes no allocation.
#[derive(Clone, Debug)]
enum Candidates {
    One(Candidate),
    /// The best first. A `Vec` by itself would make each of a million entries of the other kind larger.
    #[allow(clippy::box_collection, reason = "8 bytes beside 12, and not 24")]
    Many(Box<Vec<Candidate>>),
}

/// What is known of a prefix.
#[derive(Clone, Debug)]
struct Entry {
    candidates: Candidates,
    chosen: TargetId,
}

impl Candidates {
    fn as_slice(&self) -> &[Candidate] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    fn of(list: &[Candidate]) -> Option<Self> {
        match list {
            [] => None,
            [one] => Some(Self::One(*one)),
            many => Some(Self::Many(Box::new(many.to_vec()))),
        }
    }
}

/// How many routes are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RibCounts {
    /// IPv4 prefixes.
    pub v4: usize,
    /// IPv6 prefixes.
    pub v6: usize,
    /// Prefixes, part of the above, that the packet path cannot express and leaves to the kernel.
    pub unexpressible: usize,
    /// The same by [`Unexpressible::label`].
    pub unexpressible_by_reason: BTreeMap<&'static str, usize>,
    /// IPv4 and IPv6 prefixes by the [`RouteSource::label`] of the source that gave the route in force.
    pub by_source: BTreeMap<&'static str, [usize; 2]>,
    /// Prefixes that are held after they were withdrawn; part of the above.
    pub withdrawn: usize,
    /// Groups of next hops, and other things that routes lead to, that are in use.
    pub groups: usize,
    /// What the sources name, each once.
    pub targets: usize,
    /// Bytes of the prefixes and their candidates.
    pub bytes: usize,
}

/// A candidate, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct CandidateView {
    /// Who gave it.
    pub source: RouteSource,
    /// Its metric; the lowest wins among those that are preferred alike and in one table.
    pub metric: u32,
    /// What the packet path does with it.
    pub route: RouteView,
    /// Why that is [`RouteView::Kernel`], where it is not what the source said.
    pub unexpressible: Option<Unexpressible>,
    /// Its place in the preference among sources; the lowest wins.
    pub place: u16,
}

/// A prefix with its candidates, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct PrefixView {
    /// The prefix.
    pub prefix: IpNet,
    /// Its candidates, the one in force first. Never empty.
    pub candidates: Vec<CandidateView>,
    /// The group of the one in force.
    pub route: RouteId,
    /// How long it is held, after it was withdrawn.
    pub held_for: Option<Duration>,
}

/// A count of chosen routes.
type Tally<const N: usize> = HashMap<&'static str, [usize; N]>;

/// All routes.
#[derive(Debug)]
pub(super) struct Rib {
    v4: Prefixes<Ipv4Net, Entry>,
    v6: Prefixes<Ipv6Net, Entry>,
    targets: Targets,
    groups: Groups,
    pub(super) adjacencies: Adjacencies,
    detours: Detours,
    preference: Preference,
    /// Numbers of the kernel's tables that candidates come from.
    tables: Vec<u32>,
    hold: Duration,
    withdrawn: Withdrawn,
    now: Instant,
    /// The router's interfaces by the kernel's numbers, and those that are down.
    links: HashMap<u32, InterfaceId>,
    down: HashSet<InterfaceId>,
    /// What candidates were derived from.
    egress: Arc<JointPrefixSet<IpNet>>,
    own: HashSet<IpNet>,
    broadcasts: HashSet<IpNet>,
    subnets: Vec<Vec<IpNet>>,
    statics: HashSet<IpNet>,
    machine: HashMap<IpNet, Arc<RouteView>>,
    /// Prefixes whose group may differ from what the FIB has for them, and that group.
    changed4: HashMap<Ipv4Net, RouteId>,
    changed6: HashMap<Ipv6Net, RouteId>,
    /// Whether FIBs were made of these routes, which are to be told what changes.
    has_fibs: bool,
    by_source: Tally<2>,
    by_reason: Tally<1>,
}

impl Rib {
    /// The routes that follow from the configuration and the machine.
    ///
    /// # Errors
    /// [`GroupsError::Memory`].
    pub(super) fn new(config: &Checked, host: &HostView) -> Result<Self, GroupsError> {
        let mut rib = Self {
            v4: Prefixes::new(),
            v6: Prefixes::new(),
            targets: Targets::default(),
            groups: Groups::new()?,
            adjacencies: Adjacencies::default(),
            detours: Detours::default(),
            preference: Preference::new(&config.route_options.preference),
            tables: config.kernel.tables.clone(),
            hold: Duration::from_millis(config.route_options.withdraw_hold_ms.into()),
            withdrawn: Withdrawn::default(),
            now: Instant::now(),
            links: HashMap::new(),
            down: HashSet::new(),
            egress: Arc::new(derive::egress_prefixes(config)),
            own: HashSet::new(),
            broadcasts: HashSet::new(),
            subnets: Vec::new(),
            statics: HashSet::new(),
            machine: HashMap::new(),
            changed4: HashMap::new(),
            changed6: HashMap::new(),
            has_fibs: false,
            by_source: HashMap::new(),
            by_reason: HashMap::new(),
        };
        rib.follow_host(config, host, true);
        Ok(rib)
    }

    /// A copy whose groups are its own, for FIBs of its own. Prefixes are shared until one changes
    /// ([`Prefixes`]), so that it costs what there is beside them.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub(super) fn aside(&self) -> Result<Self, GroupsError> {
        let mut adjacencies = self.adjacencies.clone();
        let (groups, renamed) = self.groups.aside(&mut adjacencies)?;
        let mut targets = self.targets.clone();
        targets.rename(&renamed);
        Ok(Self {
            v4: self.v4.clone(),
            v6: self.v6.clone(),
            targets,
            groups,
            adjacencies,
            detours: self.detours.renamed(&renamed),
            preference: self.preference.clone(),
            tables: self.tables.clone(),
            hold: self.hold,
            withdrawn: self.withdrawn.clone(),
            now: self.now,
            links: self.links.clone(),
            down: self.down.clone(),
            egress: Arc::clone(&self.egress),
            own: self.own.clone(),
            broadcasts: self.broadcasts.clone(),
            subnets: self.subnets.clone(),
            statics: self.statics.clone(),
            machine: self.machine.clone(),
            changed4: HashMap::new(),
            changed6: HashMap::new(),
            has_fibs: false,
            by_source: self.by_source.clone(),
            by_reason: self.by_reason.clone(),
        })
    }

    /// Takes over what a new configuration says about routes.
    pub(super) fn follow_config(&mut self, config: &Checked, host: &HostView) {
        self.hold = Duration::from_millis(config.route_options.withdraw_hold_ms.into());
        let preference = Preference::new(&config.route_options.preference);
        if preference != self.preference {
            self.preference = preference;
            self.choose_anew(|_| true, &HashMap::new());
        }
        self.egress = Arc::new(derive::egress_prefixes(config));
        self.follow_host(config, host, true);
    }

    /// Whether a prefix is, or lies in, one of the egress addresses. These belong to their slices, wherever the
    /// kernel has them.
    pub(super) fn is_egress(&self, prefix: IpNet) -> bool {
        self.egress.get_spm(&prefix).is_some()
    }

    /// Takes over what follows from the machine. `statics`: derive static routes although the machine's
    /// addresses are as they were.
    pub(super) fn follow_host(&mut self, config: &Checked, host: &HostView, statics: bool) {
        self.follow_links(host);
        let own: HashSet<IpNet> =
            derive::own_prefixes(host).filter(|prefix| !self.is_egress(*prefix)).collect();
        self.follow_addresses(Class::OwnAddress, own);
        let broadcasts: HashSet<IpNet> = derive::broadcasts(host).collect();
        self.follow_addresses(Class::Broadcast, broadcasts);
        let subnets: Vec<Vec<IpNet>> =
            host.interfaces.iter().map(|interface| interface.addresses.clone()).collect();
        // Next hops of static routes are found by the prefixes of interfaces.
        if statics || subnets != self.subnets {
            self.subnets = subnets;
            self.follow_statics(config, host);
        }
        self.follow_machine(host);
    }

    /// Takes over which interfaces the router has, and which are down.
    pub(super) fn follow_links(&mut self, host: &HostView) {
        if host.links != self.links {
            self.links.clone_from(&host.links);
            let Self { targets, groups, adjacencies, links, .. } = self;
            let changed = targets.express_anew(links, groups, adjacencies);
            if !changed.is_empty() {
                self.choose_anew(|chosen| changed.contains_key(&chosen), &changed);
            }
        }
        if host.down != self.down {
            self.down.clone_from(&host.down);
            // What leads over a link that is down is not worth holding.
            let held: Vec<IpNet> = self.withdrawn.prefixes().collect();
            for prefix in held {
                let chosen = self.entry(prefix).map(|entry| entry.chosen);
                if chosen.is_some_and(|target| !self.may_hold(target)) {
                    self.set(prefix, Class::Withdrawn, &[]);
                }
            }
        }
    }

    fn follow_addresses(&mut self, class: Class, now: HashSet<IpNet>) {
        let known = match class {
            Class::OwnAddress => &mut self.own,
            _ => &mut self.broadcasts,
        };
        let before = std::mem::replace(known, now.clone());
        for prefix in before.difference(&now) {
            self.set(*prefix, class, &[]);
        }
        let said = if class == Class::OwnAddress { Said::Own } else { Said::Broadcast };
        for prefix in now.difference(&before) {
            self.set(*prefix, class, &[(said.clone(), 0, 0, 0)]);
        }
    }

    fn follow_statics(&mut self, config: &Checked, host: &HostView) {
        let now = derive::configured(config, host);
        let gone: Vec<IpNet> =
            self.statics.iter().filter(|prefix| !now.contains_key(prefix)).copied().collect();
        for prefix in gone {
            self.statics.remove(&prefix);
            self.set(prefix, Class::Configuration, &[]);
        }
        for (prefix, by_metric) in now {
            self.statics.insert(prefix);
            let list: Vec<_> =
                by_metric.into_iter().map(|(metric, said)| (said, metric, 0, 0)).collect();
            self.set(prefix, Class::Configuration, &list);
        }
    }

    fn follow_machine(&mut self, host: &HostView) {
        if self.machine.is_empty() && host.routes.is_empty() {
            return;
        }
        let before = std::mem::replace(&mut self.machine, host.routes.clone());
        for prefix in before.keys().filter(|prefix| !host.routes.contains_key(prefix)) {
            self.set(prefix.trunc(), Class::Machine, &[]);
        }
        for (prefix, view) in &host.routes {
            if before.get(prefix) != Some(view) {
                let said = Said::View((**view).clone());
                self.set(prefix.trunc(), Class::Machine, &[(said, 0, 0, 0)]);
            }
        }
    }

    /// The groups of the default routes, IPv4 first.
    pub(super) fn defaults(&self) -> [RouteId; 2] {
        let defaults: [IpNet; 2] = [Ipv4Net::default().into(), Ipv6Net::default().into()];
        defaults.map(|prefix| {
            self.entry(prefix).map_or(RouteId::NONE, |entry| self.targets.route(entry.chosen))
        })
    }

    /// Takes in what the kernel tells of a prefix.
    pub(super) fn kernel_changed(&mut self, change: &RouteChange) {
        let list: SmallVec<[(Said, u32, u8, u8); 1]> = change
            .routes
            .iter()
            .map(|route| {
                let table = match self.tables.iter().position(|table| *table == route.table) {
                    Some(table) => table,
                    None => {
                        self.tables.push(route.table);
                        self.tables.len() - 1
                    }
                };
                let table = u8::try_from(table).unwrap_or(u8::MAX);
                (Said::Kernel(Arc::clone(&route.kind)), route.metric, table, route.protocol)
            })
            .collect();
        self.set(change.prefix, Class::Kernel, &list);
    }

    /// Replaces all candidates of one class for a prefix: what it is said to lead to, with metric,
    /// position of the table and protocol.
    fn set(&mut self, prefix: IpNet, class: Class, list: &[(Said, u32, u8, u8)]) {
        let mut now: SmallVec<[Candidate; 4]> = SmallVec::new();
        for (said, metric, table, protocol) in list {
            let mut said = said.clone();
            if prefix.prefix_len() == 0 {
                said = Said::Default(Box::new(said));
            }
            let target = self.targets.acquire(said, &self.links);
            let (metric, table, protocol) = (*metric, *table, *protocol);
            now.push(Candidate { target, metric, class, table, protocol });
        }
        let mut gone: SmallVec<[TargetId; 4]> = SmallVec::new();
        let (mut was_held, mut before) = (false, TargetId::NONE);
        if let Some(entry) = self.entry(prefix) {
            before = entry.chosen;
            for candidate in entry.candidates.as_slice() {
                was_held |= candidate.class == Class::Withdrawn;
                // A held route ends with the first other one.
                if candidate.class == class
                    || candidate.class == Class::Withdrawn && !now.is_empty()
                {
                    gone.push(candidate.target);
                } else {
                    now.push(*candidate);
                }
            }
        }
        let is_routed = matches!(class, Class::Configuration | Class::Machine | Class::Kernel);
        let is_last = now.is_empty() && is_routed && !self.hold.is_zero();
        if is_last && before != TargetId::NONE && self.may_hold(before) {
            self.targets.keep(before);
            now.push(Candidate {
                target: before,
                metric: 0,
                class: Class::Withdrawn,
                table: 0,
                protocol: 0,
            });
            self.withdrawn.hold(prefix, self.now + self.hold);
        } else if was_held && !now.iter().any(|candidate| candidate.class == Class::Withdrawn) {
            self.withdrawn.forget(prefix);
        }
        self.put(prefix, &mut now);
        for target in gone {
            self.targets.release(target);
        }
    }

    /// Puts candidates in order and in force.
    fn put(&mut self, prefix: IpNet, candidates: &mut [Candidate]) {
        // Stable: what the kernel prefers stays in front.
        candidates.sort_by_key(|candidate| {
            let place = self.preference.place(candidate.class, candidate.protocol);
            (place, candidate.table, candidate.metric, candidate.class)
        });
        let (old, old_class) = match self.entry(prefix) {
            Some(entry) => {
                (entry.chosen, entry.candidates.as_slice().first().map(|first| first.class))
            }
            None => (TargetId::NONE, None),
        };
        let new = candidates.first().map_or(TargetId::NONE, |first| first.target);
        let new_class = candidates.first().map(|first| first.class);
        let is_v6 = usize::from(matches!(prefix, IpNet::V6(_)));
        if let Some(class) = old_class {
            self.tally(class, old, is_v6, |count| *count = count.saturating_sub(1));
        }
        // First the new, so that a target that stays chosen is never without.
        if new != TargetId::NONE {
            self.targets.choose(new, &mut self.groups, &mut self.adjacencies);
        }
        let (was, is) = (self.targets.route(old), self.targets.route(new));
        if let Some(class) = new_class {
            self.tally(class, new, is_v6, |count| *count += 1);
        }
        if old != TargetId::NONE {
            self.targets.unchoose(old, &mut self.groups);
        }
        if was != is {
            self.note_change(prefix, was);
        }
        match (prefix, Candidates::of(candidates)) {
            (IpNet::V4(prefix), Some(candidates)) => {
                self.v4.insert(prefix, Entry { candidates, chosen: new });
            }
            (IpNet::V6(prefix), Some(candidates)) => {
                self.v6.insert(prefix, Entry { candidates, chosen: new });
            }
            (IpNet::V4(prefix), None) => {
                self.v4.remove(&prefix);
            }
            (IpNet::V6(prefix), None) => {
                self.v6.remove(&prefix);
            }
        }
    }

    fn tally(&mut self, class: Class, target: TargetId, family: usize, count: impl Fn(&mut usize)) {
        count(&mut self.by_source.entry(class.label()).or_default()[family]);
        if let Some(reason) = self.targets.unexpressible(target) {
            count(&mut self.by_reason.entry(reason.label()).or_default()[0]);
        }
    }

    /// Notes that the FIB has to be told of a prefix, for which it has `known` unless it was noted before.
    fn note_change(&mut self, prefix: IpNet, known: RouteId) {
        if !self.has_fibs {
            return;
        }
        match prefix {
            IpNet::V4(prefix) => self.changed4.entry(prefix).or_insert(known),
            IpNet::V6(prefix) => self.changed6.entry(prefix).or_insert(known),
        };
    }

    /// Whether a withdrawn route is worth holding: it forwards, over links that are up.
    fn may_hold(&self, target: TargetId) -> bool {
        match self.targets.content(target) {
            Content::Route(RouteView::NextHops(hops))
            | Content::DefaultRoute(RouteView::NextHops(hops)) => {
                hops.iter().all(|hop| hop.via.is_some() && !self.down.contains(&hop.interface))
            }
            _ => false,
        }
    }

    /// Orders the candidates of all prefixes anew whose chosen target is one of `which`. Costs a pass over
    /// all prefixes.
    /// `before` are the groups that targets had, of those that have another one now.
    fn choose_anew(
        &mut self,
        which: impl Fn(TargetId) -> bool,
        before: &HashMap<TargetId, RouteId>,
    ) {
        fn of<P: Family + Into<IpNet>>(
            map: &Prefixes<P, Entry>,
            which: &impl Fn(TargetId) -> bool,
        ) -> Vec<IpNet> {
            let chosen = map.iter().filter(|(_, entry)| which(entry.chosen));
            chosen.map(|(prefix, _)| prefix.into()).collect()
        }
        let mut all = of(&self.v4, &which);
        all.extend(of(&self.v6, &which));
        for prefix in all {
            let Some(entry) = self.entry(prefix) else { continue };
            let mut candidates = entry.candidates.as_slice().to_vec();
            if let Some(known) = before.get(&entry.chosen) {
                // The target is the same and its group is not.
                self.note_change(prefix, *known);
            }
            self.put(prefix, &mut candidates);
        }
        self.recount_reasons();
    }

    /// Counts what cannot be expressed, after targets have changed under their prefixes.
    fn recount_reasons(&mut self) {
        let mut by_reason: Tally<1> = HashMap::new();
        let chosen = self.v4.values().chain(self.v6.values()).map(|entry| entry.chosen);
        for reason in chosen.filter_map(|target| self.targets.unexpressible(target)) {
            by_reason.entry(reason.label()).or_default()[0] += 1;
        }
        self.by_reason = by_reason;
    }

    /// Ends the holds whose time is over. True if there were some.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        self.now = now;
        let mut ended = false;
        while let Some(prefix) = self.withdrawn.due(now) {
            self.set(prefix, Class::Withdrawn, &[]);
            ended = true;
        }
        ended
    }

    fn entry(&self, prefix: IpNet) -> Option<&Entry> {
        match prefix {
            IpNet::V4(prefix) => self.v4.get(&prefix),
            IpNet::V6(prefix) => self.v6.get(&prefix),
        }
    }

    // ---- what FIBs are made of ----

    /// The chosen group of every IPv4 prefix.
    pub(super) fn routes4(&self) -> impl Iterator<Item = (Ipv4Net, RouteId)> + '_ {
        self.v4.iter().map(|(prefix, entry)| (prefix, self.targets.route(entry.chosen)))
    }

    /// The chosen group of every IPv6 prefix.
    pub(super) fn routes6(&self) -> impl Iterator<Item = (Ipv6Net, RouteId)> + '_ {
        self.v6.iter().map(|(prefix, entry)| (prefix, self.targets.route(entry.chosen)))
    }

    /// Whether the FIBs have to be told something.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed4.is_empty() || !self.changed6.is_empty()
    }

    /// Whether the IPv6 FIB has to be told something.
    pub(super) fn has_changes6(&self) -> bool {
        !self.changed6.is_empty()
    }

    /// What the IPv6 FIB has to be told, as changes of single prefixes; `None` if they are more than
    /// `changes_max`, or some are shorter than its table takes.
    pub(super) fn due6(&self, changes_max: usize) -> Option<Vec<Fib6Change>> {
        let is_small = self.changed6.len() <= changes_max
            && self.changed6.keys().all(|prefix| prefix.prefix_len() >= Fib6::PATCH_LENGTH_MIN);
        is_small.then(|| {
            let told = |prefix: &Ipv6Net| match self.v6.get(prefix) {
                Some(entry) => Fib6Change::Insert(*prefix, self.targets.route(entry.chosen)),
                None => Fib6Change::Remove(*prefix, self.parent6(prefix)),
            };
            self.changed6.keys().map(told).collect()
        })
    }

    /// The IPv6 prefixes that changed, with what they lead to, or nothing for those that are gone; `None` if
    /// they are so many that asking for each costs more than going through all.
    pub(super) fn changes6(&self) -> Option<impl Iterator<Item = (Ipv6Net, Option<RouteId>)> + '_> {
        let are_few = self.changed6.len() < self.v6.len() / 4;
        are_few.then(|| {
            let route = |prefix| self.v6.get(prefix).map(|entry| self.targets.route(entry.chosen));
            self.changed6.keys().map(move |prefix| (*prefix, route(prefix)))
        })
    }

    /// The longest prefix around this one that has a route, its length, and its group.
    fn parent6(&self, prefix: &Ipv6Net) -> Option<(u8, RouteId)> {
        let around = self.v6.cover(*prefix).into_iter().rfind(|(around, _)| around != prefix);
        around.map(|(around, entry)| (around.prefix_len(), self.targets.route(entry.chosen)))
    }

    /// The prefixes that the IPv4 FIB has to be told of, with what it is to have, and the prefixes that it
    /// has to forget, the shorter before the longer: what is around a prefix here is then also what is around
    /// it there. What leads to adjacencies that not every worker knows is left for later.
    pub(super) fn due4(&self) -> (Vec<(Ipv4Net, RouteId)>, Vec<Ipv4Net>) {
        let (mut told, mut gone) = (Vec::new(), Vec::new());
        for prefix in self.changed4.keys() {
            match self.v4.get(prefix).map(|entry| self.targets.route(entry.chosen)) {
                Some(route) if self.groups.is_known(route, &self.adjacencies) => {
                    told.push((*prefix, route));
                }
                Some(_) => {}
                None => gone.push(*prefix),
            }
        }
        gone.sort_unstable_by_key(Ipv4Net::prefix_len);
        (told, gone)
    }

    /// The longest prefix around this one that the IPv4 FIB has, and its group there.
    pub(super) fn parent4(&self, prefix: Ipv4Net) -> Option<(u8, RouteId)> {
        let around = self.v4.cover(prefix).into_iter().filter(|(around, _)| *around != prefix);
        let mut in_fib = around.filter_map(|(around, entry)| {
            let known = self.changed4.get(&around).copied();
            let route = known.unwrap_or_else(|| self.targets.route(entry.chosen));
            (!route.is_none()).then_some((around.prefix_len(), route))
        });
        in_fib.next_back()
    }

    /// The IPv4 FIB has what it is to have for this prefix.
    pub(super) fn settle4(&mut self, prefix: Ipv4Net) {
        self.changed4.remove(&prefix);
        if self.changed4.is_empty() {
            // After a full table this is tens of megabytes.
            self.changed4.shrink_to(4096);
        }
    }

    /// FIBs were made of all routes.
    pub(super) fn fibs_built(&mut self) {
        self.settle_all4();
        self.settle_all6();
        self.has_fibs = true;
    }

    /// The IPv4 FIB has all routes.
    pub(super) fn settle_all4(&mut self) {
        self.changed4 = HashMap::new();
    }

    /// The IPv6 FIB has all routes.
    pub(super) fn settle_all6(&mut self) {
        self.changed6 = HashMap::new();
    }

    /// What workers read, by [`RouteId`].
    pub(super) fn groups(&self) -> Arc<tables::Groups> {
        self.groups.groups()
    }

    /// A snapshot was published before this time.
    pub(super) fn published(&mut self, grace: Grace) {
        self.adjacencies.published(grace);
        // Until the FIBs have all changes, they may name what was released.
        if !self.has_changes() {
            self.groups.published(grace);
        }
    }

    /// Frees what no worker can know any more. True if that lets more changes into the IPv4 FIB.
    pub(super) fn reclaim(&mut self, publisher: &mut Publisher) -> bool {
        let waited = !self.adjacencies.are_all_known();
        self.adjacencies.arrive(publisher);
        self.groups.reclaim(publisher, &mut self.adjacencies);
        waited && self.adjacencies.are_all_known() && !self.changed4.is_empty()
    }

    // ---- for people, and for tunnels ----

    /// The group that the longest prefix of an address leads to.
    pub(super) fn lookup(&self, address: IpAddr) -> RouteId {
        let entry = match address {
            IpAddr::V4(address) => self.v4.longest(Ipv4Net::from(address)).map(|(_, entry)| entry),
            IpAddr::V6(address) => self.v6.longest(Ipv6Net::from(address)).map(|(_, entry)| entry),
        };
        entry.map_or(RouteId::NONE, |entry| self.targets.route(entry.chosen))
    }

    /// Every prefix that holds an address, the longest first.
    pub(super) fn covering(&self, address: IpAddr) -> Vec<PrefixView> {
        let mut all: Vec<PrefixView> = match address {
            IpAddr::V4(address) => self
                .v4
                .cover(Ipv4Net::from(address))
                .into_iter()
                .map(|(prefix, entry)| self.view(prefix.into(), entry))
                .collect(),
            IpAddr::V6(address) => self
                .v6
                .cover(Ipv6Net::from(address))
                .into_iter()
                .map(|(prefix, entry)| self.view(prefix.into(), entry))
                .collect(),
        };
        all.reverse();
        all
    }

    /// The prefix itself.
    pub(super) fn exact(&self, prefix: IpNet) -> Option<PrefixView> {
        self.entry(prefix).map(|entry| self.view(prefix, entry))
    }

    /// Prefixes in the order of their addresses, a shorter one first, IPv4 before IPv6. `after`: only what
    /// comes behind this one.
    pub(super) fn from(&self, after: Option<IpNet>) -> impl Iterator<Item = PrefixView> + '_ {
        // What comes behind the last of a family is the first of the next.
        let (v4, v6) = match after {
            None => ((Some(self.v4.iter()), None), (Some(self.v6.iter()), None)),
            Some(IpNet::V4(after)) => {
                ((None, Some(self.v4.behind(after))), (Some(self.v6.iter()), None))
            }
            Some(IpNet::V6(after)) => ((None, None), (None, Some(self.v6.behind(after)))),
        };
        let v4 = v4.0.into_iter().flatten().chain(v4.1.into_iter().flatten());
        let v4 = v4.map(|(prefix, entry)| self.view(prefix.into(), entry));
        let v6 = v6.0.into_iter().flatten().chain(v6.1.into_iter().flatten());
        v4.chain(v6.map(|(prefix, entry)| self.view(prefix.into(), entry)))
    }

    fn view(&self, prefix: IpNet, entry: &Entry) -> PrefixView {
        let candidate = |candidate: &Candidate| CandidateView {
            source: match candidate.class {
                Class::OwnAddress => RouteSource::OwnAddress,
                Class::Broadcast => RouteSource::Broadcast,
                Class::Configuration => RouteSource::Configuration,
                Class::Machine => RouteSource::Machine,
                Class::Withdrawn => RouteSource::Withdrawn,
                Class::Kernel => RouteSource::Kernel {
                    table: self.tables.get(usize::from(candidate.table)).copied().unwrap_or(0),
                    protocol: candidate.protocol,
                },
            },
            metric: candidate.metric,
            route: match self.targets.content(candidate.target) {
                Content::Route(view) | Content::DefaultRoute(view) => view.clone(),
                Content::Broadcast => RouteView::Blackhole,
            },
            unexpressible: self.targets.unexpressible(candidate.target),
            place: self.preference.place(candidate.class, candidate.protocol),
        };
        PrefixView {
            prefix,
            candidates: entry.candidates.as_slice().iter().map(candidate).collect(),
            route: self.targets.route(entry.chosen),
            held_for: self
                .withdrawn
                .until(prefix)
                .map(|until| until.saturating_duration_since(self.now)),
        }
    }

    /// How many routes there are.
    pub(super) fn counts(&self) -> RibCounts {
        let nonzero = |(label, [count]): (&&'static str, &[usize; 1])| {
            (*count > 0).then_some((*label, *count))
        };
        let by_reason: BTreeMap<_, _> = self.by_reason.iter().filter_map(nonzero).collect();
        RibCounts {
            v4: self.v4.len(),
            v6: self.v6.len(),
            unexpressible: by_reason.values().sum(),
            unexpressible_by_reason: by_reason,
            by_source: self
                .by_source
                .iter()
                .filter(|(_, counts)| **counts != [0, 0])
                .map(|(label, counts)| (*label, *counts))
                .collect(),
            withdrawn: self.withdrawn.len(),
            groups: self.groups.in_use(),
            targets: self.targets.len(),
            bytes: self.v4.mem_size() + self.v6.mem_size(),
        }
    }
}
