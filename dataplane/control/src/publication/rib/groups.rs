//! Next-hop groups and the life of their ids.
//!
//! ```text
//!   free --acquire--> in use --last release--> leaving --published--> retired --no reader is left--> free
//!                       ^                         |                      |
//!                       +-------- acquired again -+----------------------+
//! ```
//!
//! A worker reads an id out of a FIB and looks it up in the list of groups. So an id that leaves the FIBs
//! keeps its group, in this list and in all that are published, until no worker can have read it before:
//! until every snapshot from before the first FIB without it is out of use. Then it may mean something
//! else.
//!
//! Invariants: ids in use are as low as they were when they were given out, since the highest id bounds how
//! many /24 blocks an IPv4 FIB can divide. The list never shrinks while a reader may look.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use tables::{AdjacencyId, NextHopGroup, RouteId};
use wire::InterfaceId;

use super::super::adjacencies::Adjacencies;
use super::super::host_view::{NextHopView, RouteView};
use super::buckets::{self, Member};

/// What a group does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Content {
    Route(RouteView),
    Broadcast,
}

#[derive(Clone, Debug)]
struct Slot {
    content: Content,
    group: NextHopGroup,
    /// What the group keeps from being forgotten.
    adjacencies: Vec<AdjacencyId>,
    references: u32,
    /// While it is retired: the first publication without it.
    gone_since: Option<u64>,
}

/// All groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    ids: HashMap<Content, RouteId>,
    slots: Vec<Option<Slot>>,
    free: BTreeSet<RouteId>,
    leaving: Vec<RouteId>,
    retired: VecDeque<(u64, RouteId)>,
    /// What was made of `slots` last; none after a change.
    list: Option<Arc<[NextHopGroup]>>,
}

impl Groups {
    /// The id of a group that does this. None if no id is left.
    pub(super) fn acquire(
        &mut self,
        content: &Content,
        adjacencies: &mut Adjacencies,
    ) -> Option<RouteId> {
        if let Some(&id) = self.ids.get(content)
            && let Some(slot) = self.slots[id.index()].as_mut()
        {
            slot.references += 1;
            slot.gone_since = None;
            return Some(id);
        }
        let id = match self.free.pop_first() {
            Some(id) => id,
            None => {
                let id = u16::try_from(self.slots.len()).ok().map(RouteId);
                let id = id.filter(|id| *id <= RouteId::MAX)?;
                self.slots.push(None);
                id
            }
        };
        let (group, required) = make(content, adjacencies);
        self.slots[id.index()] = Some(Slot {
            content: content.clone(),
            group,
            adjacencies: required,
            references: 1,
            gone_since: None,
        });
        self.ids.insert(content.clone(), id);
        self.list = None;
        Some(id)
    }

    /// Ends one use.
    pub(super) fn release(&mut self, id: RouteId) {
        let slot = self.slots.get_mut(id.index()).and_then(Option::as_mut);
        let Some(slot) = slot else { return };
        slot.references -= 1;
        if slot.references == 0 {
            self.leaving.push(id);
        }
    }

    /// FIBs that name none of the ids that were released were published under this number.
    pub(super) fn published(&mut self, epoch: u64) {
        for id in self.leaving.drain(..) {
            if let Some(Some(slot)) = self.slots.get_mut(id.index())
                && slot.references == 0
            {
                slot.gone_since = Some(epoch);
                self.retired.push_back((epoch, id));
            }
        }
    }

    /// Frees ids, given that no snapshot older than `oldest` is in use.
    pub(super) fn reclaim(&mut self, oldest: u64, adjacencies: &mut Adjacencies) {
        while let Some((_, id)) = self.retired.pop_front_if(|(epoch, _)| *epoch <= oldest) {
            let Some(place) = self.slots.get_mut(id.index()) else { continue };
            // It may have come back meanwhile, and gone again: then it stands in the queue once more.
            let Some(slot) =
                place.take_if(|slot| slot.gone_since.is_some_and(|epoch| epoch <= oldest))
            else {
                continue;
            };
            self.ids.remove(&slot.content);
            slot.adjacencies.iter().for_each(|id| adjacencies.release(*id));
            self.free.insert(id);
            self.list = None;
        }
    }

    /// What workers read, by id.
    pub(super) fn list(&mut self) -> Arc<[NextHopGroup]> {
        let Self { list, slots, .. } = self;
        let made = list.get_or_insert_with(|| {
            // Nobody reads an id that is free.
            let group = |slot: &Option<Slot>| {
                slot.as_ref().map_or(NextHopGroup::Unreachable, |slot| slot.group.clone())
            };
            slots.iter().map(group).collect()
        });
        Arc::clone(made)
    }

    /// Groups that something leads to.
    pub(super) fn in_use(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.references > 0).count()
    }

    /// Ids that are out of use and wait for readers.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.slots.iter().flatten().filter(|slot| slot.references == 0).count()
    }
}

/// The group, and the adjacencies that it names, each once.
fn make(content: &Content, adjacencies: &mut Adjacencies) -> (NextHopGroup, Vec<AdjacencyId>) {
    let view = match content {
        Content::Broadcast => return (NextHopGroup::Broadcast, Vec::new()),
        Content::Route(view) => view,
    };
    let group = match view {
        RouteView::Kernel => NextHopGroup::Local,
        RouteView::Blackhole => NextHopGroup::Blackhole,
        RouteView::Prohibit => NextHopGroup::Prohibit,
        RouteView::Unreachable => NextHopGroup::Unreachable,
        RouteView::NextHops(hops) => match &**hops {
            [] => NextHopGroup::Unreachable,
            [NextHopView { interface, via: None, .. }] => NextHopGroup::Glean(*interface),
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
