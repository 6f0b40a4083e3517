//! Next-hop groups by id, changed in place: failing over is one store, whatever number of routes names
//! the group.
//!
//! ```text
//!  RouteId --> cell [ kind | members | adjacency, interface or first member ]   8 bytes
//!                                                   |
//!                                members [ AdjacencyId | AdjacencyId | .. ]
//! ```
//!
//! Invariants: the members that a cell names were written before it, and stay until every worker has
//! been between two turns after it changed; so does an id that was removed. A route may name an id as
//! soon as [`GroupsWriter::insert`] has returned it, if all workers know the adjacencies in it.
//!
//! Memory: half a megabyte of cells and four bytes a member.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use wire::InterfaceId;

use crate::grace::{GraceWriter, Retired};
use crate::hardware::Memory;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::{AdjacencyId, FibError, NextHopGroup, Publisher, RouteId};

/// Ids that a group can have.
#[cfg(not(any(miri, loom)))]
const IDS: usize = RouteId::MAX.0 as usize + 1;
#[cfg(all(miri, not(loom)))]
const IDS: usize = 64;
#[cfg(loom)]
const IDS: usize = 2;

/// Members of all groups: tables of 4,096 buckets for 4,096 groups. Memory is real only where they are.
#[cfg(not(any(miri, loom)))]
const MEMBERS: usize = 1 << 24;
#[cfg(all(miri, not(loom)))]
const MEMBERS: usize = 256;
#[cfg(loom)]
const MEMBERS: usize = 4;

/// What a cell says in its highest byte. Zero: there is no such group.
mod kind {
    pub(super) const ADJACENCY: u64 = 1;
    pub(super) const ADJACENCIES: u64 = 2;
    pub(super) const GLEAN: u64 = 3;
    pub(super) const LOCAL: u64 = 4;
    pub(super) const BLACKHOLE: u64 = 5;
    pub(super) const UNREACHABLE: u64 = 6;
    pub(super) const PROHIBIT: u64 = 7;
    pub(super) const BROADCAST: u64 = 8;
}
const KIND_SHIFT: u32 = 56;
const LEN_SHIFT: u32 = 32;
const GLEAN_MTU_SHIFT: u32 = 8;

/// A next-hop group as the packet path reads it; see [`NextHopGroup`].
#[derive(Clone, Copy)]
pub enum Group<'a> {
    /// To this adjacency.
    Adjacency(AdjacencyId),
    /// To one of these, chosen by the flow's hash.
    Adjacencies(Members<'a>),
    /// To the destination itself, which is on the link of this interface.
    Glean {
        /// The interface.
        interface: InterfaceId,
        /// The largest IP packet that the route takes, in bytes; 0: as large as the link's.
        mtu: u16,
    },
    /// To this machine's kernel.
    Local,
    /// Nowhere, silently.
    Blackhole,
    /// Nowhere, with ICMP host unreachable.
    Unreachable,
    /// Nowhere, with ICMP communication administratively prohibited.
    Prohibit,
    /// Nowhere: the broadcast address of a connected subnet.
    Broadcast,
}

/// The adjacencies of a group, each as many times as its weight says.
#[derive(Clone, Copy)]
pub struct Members<'a> {
    cells: &'a [AtomicU32],
}

impl<'a> Members<'a> {
    /// How many they are; never none.
    #[inline]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none: never.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The one that a flow's hash chooses: the upper half of hash times length, which spreads evenly
    /// without a division.
    #[inline]
    #[must_use]
    pub fn choose(&self, hash: u32) -> Option<AdjacencyId> {
        // Relaxed: they were written before the cell that names them, which was read with Acquire.
        self.cells.get(self.position(hash)).map(|cell| AdjacencyId(cell.load(Ordering::Relaxed)))
    }

    /// Where among them that one stands.
    #[inline]
    #[must_use]
    pub const fn position(&self, hash: u32) -> usize {
        ((hash as u64 * self.cells.len() as u64) >> 32) as usize
    }

    /// All of them.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = AdjacencyId> + 'a {
        self.cells.iter().map(|cell| AdjacencyId(cell.load(Ordering::Relaxed)))
    }
}

/// Next-hop groups, which [`GroupsWriter`] changes while others read.
pub struct Groups {
    cells: Memory<AtomicU64, IDS>,
    members: Memory<AtomicU32, MEMBERS>,
}

impl Groups {
    /// Ids that a group can have: one for each value that a route can name.
    pub const IDS: usize = IDS;

    /// Members that all groups have together, those with a single one left out.
    pub const MEMBERS_MAX: usize = MEMBERS;

    /// Groups that are not changed any more, the n-th with the id n.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn from_list(groups: &[NextHopGroup]) -> Result<Self, GroupsError> {
        let mut writer = GroupsWriter::new()?;
        for group in groups {
            writer.insert(group)?;
        }
        Ok(Arc::into_inner(writer.groups).expect("nobody has been given the groups"))
    }

    /// The group; `None` for [`RouteId::NONE`] and for an id that no group has.
    #[inline]
    #[must_use]
    pub fn get(&self, route: RouteId) -> Option<Group<'_>> {
        // Acquire: the members were written before.
        let cell = self.cells.cells().get(route.index())?.load(Ordering::Acquire);
        Some(match cell >> KIND_SHIFT {
            kind::ADJACENCY => Group::Adjacency(AdjacencyId(cell as u32)),
            kind::ADJACENCIES => {
                let len = usize::from((cell >> LEN_SHIFT) as u16);
                let members = self.members.cells().get(cell as u32 as usize..)?;
                Group::Adjacencies(Members { cells: members.get(..len)? })
            }
            kind::GLEAN => Group::Glean {
                interface: InterfaceId(cell as u8),
                mtu: (cell >> GLEAN_MTU_SHIFT) as u16,
            },
            kind::LOCAL => Group::Local,
            kind::BLACKHOLE => Group::Blackhole,
            kind::UNREACHABLE => Group::Unreachable,
            kind::PROHIBIT => Group::Prohibit,
            kind::BROADCAST => Group::Broadcast,
            _ => return None,
        })
    }

    /// A copy of the group, for the control side.
    #[must_use]
    pub fn copy(&self, route: RouteId) -> Option<NextHopGroup> {
        Some(match self.get(route)? {
            Group::Adjacency(only) => NextHopGroup::Adjacencies(Box::new([only])),
            Group::Adjacencies(members) => NextHopGroup::Adjacencies(members.iter().collect()),
            Group::Glean { interface, mtu } => NextHopGroup::Glean { interface, mtu },
            Group::Local => NextHopGroup::Local,
            Group::Blackhole => NextHopGroup::Blackhole,
            Group::Unreachable => NextHopGroup::Unreachable,
            Group::Prohibit => NextHopGroup::Prohibit,
            Group::Broadcast => NextHopGroup::Broadcast,
        })
    }

    /// Brings near what [`Groups::get`] reads first.
    #[inline]
    pub fn prefetch(&self, route: RouteId) {
        if let Some(cell) = self.cells.cells().get(route.index()) {
            crate::prefetch(cell);
        }
    }
}

impl fmt::Debug for Groups {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Groups").finish_non_exhaustive()
    }
}

/// Why a group could not be added or changed. The groups in force stay as they were.
#[derive(Debug, thiserror::Error)]
pub enum GroupsError {
    /// Every id is in use, or was until a moment ago.
    #[error("the routes name more than {} different sets of next hops", Groups::IDS)]
    TooManyGroups,
    /// The groups have too many members together.
    #[error("the sets of next hops have more than {} members in all", Groups::MEMBERS_MAX)]
    TooManyMembers,
    /// One group has too many members, or none.
    #[error("a set of {members} next hops; there may be from 1 to {}", u16::MAX)]
    GroupSize {
        /// How many it has.
        members: usize,
    },
    /// There is no such group.
    #[error("there is no next-hop group {}", .0.0)]
    NoSuchGroup(RouteId),
    /// The kernel refused the address space.
    #[error(transparent)]
    Memory(#[from] FibError),
}

/// The one writer of [`Groups`] that any number of workers read. It gives out the ids.
pub struct GroupsWriter {
    groups: Arc<Groups>,
    /// Ids that may be given out, the latest given back first, and the first never given out.
    free: Vec<u16>,
    next: usize,
    /// First members of lists that may be used again, by their length, and the first never used.
    free_lists: HashMap<u16, Vec<u32>>,
    next_member: usize,
    retired: Retired<Unlinked>,
}

/// What no cell, or no route, names any more.
enum Unlinked {
    Id(u16),
    List { first: u32, len: u16 },
}

impl GroupsWriter {
    /// A writer without groups.
    ///
    /// # Errors
    /// [`GroupsError::Memory`].
    pub fn new() -> Result<Self, GroupsError> {
        Ok(Self {
            groups: Arc::new(Groups { cells: Memory::new()?, members: Memory::new()? }),
            free: Vec::new(),
            next: 0,
            free_lists: HashMap::new(),
            next_member: 0,
            retired: Retired::new(),
        })
    }

    /// The groups, to be read by others.
    #[must_use]
    pub fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups)
    }

    /// Adds a group under an id that no worker can still know from before.
    ///
    /// # Errors
    /// [`GroupsError`]; of [`GroupsError::TooManyGroups`] and [`GroupsError::TooManyMembers`],
    /// [`GroupsWriter::reclaim`] may help.
    pub fn insert(&mut self, group: &NextHopGroup) -> Result<RouteId, GroupsError> {
        if self.free.is_empty() && self.next == IDS {
            return Err(GroupsError::TooManyGroups);
        }
        let cell = self.encode(group)?;
        let id = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            u16::try_from(self.next - 1).expect("ids have 16 bits")
        });
        self.store(RouteId(id), cell);
        Ok(RouteId(id))
    }

    /// Changes what a group is: one store, after which all routes that name it lead elsewhere.
    ///
    /// # Errors
    /// [`GroupsError`].
    pub fn replace(&mut self, id: RouteId, group: &NextHopGroup) -> Result<(), GroupsError> {
        let before = self.cell(id).ok_or(GroupsError::NoSuchGroup(id))?;
        let cell = self.encode(group)?;
        self.store(id, cell);
        self.retire_list(before);
        Ok(())
    }

    /// Takes a group out that no route names any more. Workers may know its id for the rest of their
    /// turn, so the group stays until they have finished it.
    ///
    /// # Errors
    /// [`GroupsError::NoSuchGroup`].
    pub fn remove(&mut self, id: RouteId) -> Result<(), GroupsError> {
        let before = self.cell(id).ok_or(GroupsError::NoSuchGroup(id))?;
        self.retire_list(before);
        self.retired.push(Unlinked::Id(id.0));
        Ok(())
    }

    /// Makes ids and members that were taken out available again as far as every worker has been
    /// between two turns since. It never waits.
    pub fn reclaim(&mut self, publisher: &mut Publisher) {
        self.reclaim_with(publisher.grace());
    }

    pub(crate) fn reclaim_with(&mut self, grace: &mut GraceWriter) {
        let Self { retired, groups, free, free_lists, .. } = self;
        retired.collect(grace, |unlinked| match unlinked {
            Unlinked::Id(id) => {
                groups.cells.cells()[usize::from(id)].store(0, Ordering::Relaxed);
                free.push(id);
            }
            Unlinked::List { first, len } => free_lists.entry(len).or_default().push(first),
        });
    }

    /// Ids and lists that were taken out and may still be read.
    #[must_use]
    pub fn retired(&self) -> usize {
        self.retired.len()
    }

    fn cell(&self, id: RouteId) -> Option<u64> {
        let cell = self.groups.cells.cells().get(id.index())?.load(Ordering::Relaxed);
        (cell != 0).then_some(cell)
    }

    fn store(&self, id: RouteId, cell: u64) {
        // Release: the members are before the cell that names them.
        self.groups.cells.cells()[id.index()].store(cell, Ordering::Release);
    }

    fn retire_list(&mut self, cell: u64) {
        if cell >> KIND_SHIFT == kind::ADJACENCIES {
            let (first, len) = (cell as u32, (cell >> LEN_SHIFT) as u16);
            self.retired.push(Unlinked::List { first, len });
        }
    }

    /// The cell of a group, whose members are written.
    fn encode(&mut self, group: &NextHopGroup) -> Result<u64, GroupsError> {
        let (kind, rest) = match group {
            NextHopGroup::Adjacencies(members) => match &**members {
                [only] => (kind::ADJACENCY, u64::from(only.0)),
                members => (kind::ADJACENCIES, self.write_members(members)?),
            },
            NextHopGroup::Glean { interface, mtu } => {
                (kind::GLEAN, u64::from(interface.0) | u64::from(*mtu) << GLEAN_MTU_SHIFT)
            }
            NextHopGroup::Local => (kind::LOCAL, 0),
            NextHopGroup::Blackhole => (kind::BLACKHOLE, 0),
            NextHopGroup::Unreachable => (kind::UNREACHABLE, 0),
            NextHopGroup::Prohibit => (kind::PROHIBIT, 0),
            NextHopGroup::Broadcast => (kind::BROADCAST, 0),
        };
        Ok(kind << KIND_SHIFT | rest)
    }

    /// Writes a list of members where nobody reads, and returns its length and its place.
    fn write_members(&mut self, members: &[AdjacencyId]) -> Result<u64, GroupsError> {
        let size = GroupsError::GroupSize { members: members.len() };
        let len = u16::try_from(members.len()).ok().filter(|&len| len > 0).ok_or(size)?;
        let first = match self.free_lists.get_mut(&len).and_then(Vec::pop) {
            Some(first) => first,
            None if self.next_member + members.len() <= MEMBERS => {
                self.next_member += members.len();
                u32::try_from(self.next_member - members.len()).expect("few members")
            }
            None => return Err(GroupsError::TooManyMembers),
        };
        for (cell, member) in self.groups.members.cells()[first as usize..].iter().zip(members) {
            cell.store(member.0, Ordering::Relaxed);
        }
        Ok(u64::from(len) << LEN_SHIFT | u64::from(first))
    }
}

impl fmt::Debug for GroupsWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("GroupsWriter")
            .field("ids", &(self.next - self.free.len()))
            .field("retired", &self.retired())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn via(members: &[u32]) -> NextHopGroup {
        NextHopGroup::Adjacencies(members.iter().copied().map(AdjacencyId).collect())
    }

    fn every_kind() -> Vec<NextHopGroup> {
        vec![
            via(&[7]),
            via(&[1, 2, 2, u32::MAX]),
            NextHopGroup::Glean { interface: InterfaceId(255), mtu: 1400 },
            NextHopGroup::Local,
            NextHopGroup::Blackhole,
            NextHopGroup::Unreachable,
            NextHopGroup::Prohibit,
            NextHopGroup::Broadcast,
            via(&[u32::MAX]),
        ]
    }

    #[test]
    fn every_kind_is_what_was_put_in() {
        let groups = Groups::from_list(&every_kind()).unwrap();
        for (id, want) in (0..).zip(every_kind()) {
            assert_eq!(groups.copy(RouteId(id)), Some(want));
        }
        assert_eq!(groups.copy(RouteId(9)), None);
        assert_eq!((groups.copy(RouteId::MAX), groups.copy(RouteId::NONE)), (None, None));
    }

    #[test]
    fn a_hash_chooses_evenly() {
        let groups = Groups::from_list(&[via(&[5, 6, 7])]).unwrap();
        let Some(Group::Adjacencies(members)) = groups.get(RouteId(0)) else { panic!() };
        let chosen = |hash| members.choose(hash).unwrap().0;
        assert_eq!([chosen(0), chosen(u32::MAX / 2), chosen(u32::MAX)], [5, 6, 7]);
    }

    #[test]
    fn an_id_is_not_given_out_again_while_somebody_may_know_it() {
        let mut grace = GraceWriter::new();
        let mut reader = grace.reader();
        let mut writer = GroupsWriter::new().unwrap();
        let groups = writer.groups();
        let (one, two) =
            (writer.insert(&via(&[1, 2])).unwrap(), writer.insert(&via(&[3, 4])).unwrap());
        writer.remove(one).unwrap();
        writer.reclaim_with(&mut grace);
        assert_eq!(groups.copy(one), Some(via(&[1, 2])), "a worker may still follow a route to it");
        assert_eq!(writer.insert(&via(&[5, 6])).unwrap(), RouteId(2));
        assert_eq!(groups.copy(one), Some(via(&[1, 2])), "nor is its list used again");
        reader.acknowledge(reader.pending().unwrap());
        writer.reclaim_with(&mut grace);
        assert_eq!(groups.copy(one), None);
        assert_eq!(writer.insert(&via(&[8, 9])).unwrap(), one);
        assert_eq!(writer.next_member, 6, "the list was used again");
        assert_eq!((groups.copy(one), groups.copy(two)), (Some(via(&[8, 9])), Some(via(&[3, 4]))));
        assert!(matches!(writer.remove(RouteId(9)), Err(GroupsError::NoSuchGroup(RouteId(9)))));
    }

    #[test]
    fn failing_over_is_seen_at_once() {
        let mut writer = GroupsWriter::new().unwrap();
        let groups = writer.groups();
        for group in every_kind() {
            writer.insert(&group).unwrap();
        }
        for id in (0..9).map(RouteId) {
            for group in every_kind() {
                writer.replace(id, &group).unwrap();
                assert_eq!(groups.copy(id), Some(group));
            }
        }
    }

    #[test]
    fn limits() {
        let mut writer = GroupsWriter::new().unwrap();
        for id in 0..IDS {
            assert_eq!(writer.insert(&NextHopGroup::Local).unwrap().index(), id);
        }
        let error = writer.insert(&NextHopGroup::Local).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the routes name more than 65279 different sets of next hops"
        );
        let size = |error: GroupsError| error.to_string();
        let error = writer.replace(RouteId(0), &via(&[])).unwrap_err();
        assert_eq!(size(error), "a set of 0 next hops; there may be from 1 to 65535");
        let error = writer.replace(RouteId(0), &via(&[1; 65_536])).unwrap_err();
        assert_eq!(size(error), "a set of 65536 next hops; there may be from 1 to 65535");
        for id in 0..256 {
            writer.replace(RouteId(id), &via(&[1; 65_535])).unwrap();
        }
        let error = writer.replace(RouteId(256), &via(&[1; 65_535])).unwrap_err();
        assert_eq!(size(error), "the sets of next hops have more than 16777216 members in all");
        assert_eq!(writer.groups.copy(RouteId(256)), Some(NextHopGroup::Local));
    }
}
