//! Next-hop groups and the life of their ids.
//!
//! ```text
//!   acquire --> in use --last release--> leaving --published--> waiting --no worker knows it--> free
//!                 ^                         |                      |
//!                 +-------- acquired again -+----------------------+
//! ```
//!
//! A worker reads an id out of a FIB and looks it up among the groups, which change in place. So an id that
//! leaves the FIBs keeps its group until every worker has been between two turns since: only then is it
//! taken out of [`GroupsWriter`], which hands it out again after one more such time.
//!
//! Invariant: a group names adjacencies, so their positions stay taken as long as it does.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use tables::{AdjacencyId, Grace, GroupsError, GroupsWriter, NextHopGroup, Publisher, RouteId};
use wire::InterfaceId;

use super::super::adjacencies::Adjacencies;
use super::super::host_view::{NextHopView, RouteView};
use super::buckets::{self, Member};

/// What a group does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Route(RouteView),
    /// The same, and for the default route alone: source validation may have to tell it from others.
    DefaultRoute(RouteView),
    Broadcast,
}

#[derive(Debug)]
struct Slot {
    content: Content,
    /// What the group keeps from being forgotten.
    adjacencies: Vec<AdjacencyId>,
    references: u32,
    /// While it waits: when FIBs without it were published.
    gone_since: Option<Grace>,
}

/// All groups.
#[derive(Debug)]
pub(super) struct Groups {
    writer: GroupsWriter,
    ids: HashMap<Content, RouteId>,
    slots: HashMap<RouteId, Slot>,
    leaving: Vec<RouteId>,
    waiting: VecDeque<(Grace, RouteId)>,
}

impl Groups {
    pub(super) fn new() -> Result<Self, GroupsError> {
        Ok(Self {
            writer: GroupsWriter::new()?,
            ids: HashMap::new(),
            slots: HashMap::new(),
            leaving: Vec::new(),
            waiting: VecDeque::new(),
        })
    }

    /// The same groups under ids of their own, with what each id has become. Those that are not in use
    /// stay behind, and give `adjacencies` back what they took.
    pub(super) fn aside(
        &self,
        adjacencies: &mut Adjacencies,
    ) -> Result<(Self, HashMap<RouteId, RouteId>), GroupsError> {
        let mut aside = Self::new()?;
        let mut renamed = HashMap::new();
        for (id, slot) in &self.slots {
            if slot.references == 0 {
                slot.adjacencies.iter().for_each(|id| adjacencies.release(*id));
                continue;
            }
            let Some(group) = self.writer.groups().copy(*id) else { continue };
            let new = aside.writer.insert(&group)?;
            aside.ids.insert(slot.content.clone(), new);
            let slot = Slot {
                content: slot.content.clone(),
                adjacencies: slot.adjacencies.clone(),
                references: slot.references,
                gone_since: None,
            };
            aside.slots.insert(new, slot);
            renamed.insert(*id, new);
        }
        Ok((aside, renamed))
    }

    /// The id of a group that does this. None if there is no room for another.
    pub(super) fn acquire(
        &mut self,
        content: &Content,
        adjacencies: &mut Adjacencies,
    ) -> Option<RouteId> {
        if let Some(id) = self.ids.get(content)
            && let Some(slot) = self.slots.get_mut(id)
        {
            slot.references += 1;
            slot.gone_since = None;
            return Some(*id);
        }
        let (group, required) = make(content, adjacencies);
        let Ok(id) = self.writer.insert(&group) else {
            required.iter().for_each(|id| adjacencies.release(*id));
            return None;
        };
        let slot = Slot {
            content: content.clone(),
            adjacencies: required,
            references: 1,
            gone_since: None,
        };
        self.slots.insert(id, slot);
        self.ids.insert(content.clone(), id);
        Some(id)
    }

    /// Ends one use.
    pub(super) fn release(&mut self, id: RouteId) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.references -= 1;
        if slot.references == 0 {
            self.leaving.push(id);
        }
    }

    /// Whether every worker can follow a route to this group: all of them know its adjacencies.
    pub(super) fn is_known(&self, id: RouteId, adjacencies: &Adjacencies) -> bool {
        self.slots.get(&id).is_none_or(|slot| adjacencies.are_known(&slot.adjacencies))
    }

    /// FIBs that name none of the ids that were released were published before this time.
    pub(super) fn published(&mut self, grace: Grace) {
        for id in self.leaving.drain(..) {
            if let Some(slot) = self.slots.get_mut(&id)
                && slot.references == 0
            {
                slot.gone_since = Some(grace);
                self.waiting.push_back((grace, id));
            }
        }
    }

    /// Takes out what no worker can know any more.
    pub(super) fn reclaim(&mut self, publisher: &mut Publisher, adjacencies: &mut Adjacencies) {
        while let Some((grace, id)) =
            self.waiting.pop_front_if(|(grace, _)| publisher.has_passed(*grace))
        {
            // It may have come back meanwhile, and gone again: then it stands in the queue once more.
            if self.slots.get(&id).is_none_or(|slot| slot.gone_since != Some(grace)) {
                continue;
            }
            if let Some(slot) = self.slots.remove(&id) {
                self.ids.remove(&slot.content);
                slot.adjacencies.iter().for_each(|id| adjacencies.release(*id));
            }
            // It is there: this is the only place that takes one out.
            let _ = self.writer.remove(id);
        }
        self.writer.reclaim(publisher);
    }

    /// What workers read.
    pub(super) fn groups(&self) -> Arc<tables::Groups> {
        self.writer.groups()
    }

    /// Groups that something leads to.
    pub(super) fn in_use(&self) -> usize {
        self.slots.values().filter(|slot| slot.references > 0).count()
    }

    /// What a group does.
    #[cfg(test)]
    pub(super) fn content(&self, id: RouteId) -> Option<&Content> {
        self.slots.get(&id).map(|slot| &slot.content)
    }

    /// Ids that are out of use and wait for workers.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.slots.len() - self.in_use()
    }
}

/// The group, and the adjacencies that it names, each once.
fn make(content: &Content, adjacencies: &mut Adjacencies) -> (NextHopGroup, Vec<AdjacencyId>) {
    let view = match content {
        Content::Broadcast => return (NextHopGroup::Broadcast, Vec::new()),
        Content::Route(view) | Content::DefaultRoute(view) => view,
    };
    let group = match view {
        RouteView::Kernel => NextHopGroup::Local,
        RouteView::Blackhole => NextHopGroup::Blackhole,
        RouteView::Prohibit => NextHopGroup::Prohibit,
        RouteView::Unreachable => NextHopGroup::Unreachable,
        RouteView::NextHops(hops) => match &**hops {
            [] => NextHopGroup::Unreachable,
            &[NextHopView { interface, via: None, mtu, .. }] => {
                NextHopGroup::Glean { interface, mtu }
            }
            hops => return spread(hops, adjacencies),
        },
    };
    (group, Vec::new())
}

/// Next hops with addresses, each in as many buckets as its weight says.
fn spread(hops: &[NextHopView], adjacencies: &mut Adjacencies) -> (NextHopGroup, Vec<AdjacencyId>) {
    // A next hop that stands there twice counts twice.
    let mut members: Vec<(Member, u16)> = Vec::new();
    for hop in hops {
        let Some(address) = hop.via else { continue };
        let same = |(member, _): &&mut (Member, u16)| {
            (member.interface, member.address) == (hop.interface, address)
        };
        match members.iter_mut().find(same) {
            Some((member, _)) => member.weight = member.weight.saturating_add(hop.weight.max(1)),
            None => {
                let weight = hop.weight.max(1);
                members.push((Member { interface: hop.interface, address, weight }, hop.mtu));
            }
        }
    }
    let mut require = |(member, mtu): &(Member, u16)| -> AdjacencyId {
        let (interface, address): (InterfaceId, IpAddr) = (member.interface, member.address);
        adjacencies.acquire(interface, address, *mtu)
    };
    let ids: Vec<AdjacencyId> = members.iter().map(&mut require).collect();
    let group = match &*ids {
        [] => NextHopGroup::Unreachable,
        [only] => NextHopGroup::Adjacencies([*only].into()),
        ids => {
            let members: Vec<Member> = members.iter().map(|(member, _)| *member).collect();
            let owners = buckets::assign(&members);
            NextHopGroup::Adjacencies(owners.into_iter().map(|owner| ids[owner]).collect())
        }
    };
    (group, ids)
}
