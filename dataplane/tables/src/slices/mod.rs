//! Who owns an (egress address, port).
//!
//! ```text
//!   address --ExactIndex--> EgressId --> Egress { partition, hits, .. }
//!                                            |          |
//!   port ------------------------------> last ports     |
//!                                        [2047|4095|..] |
//!                                            | n        |
//!                                            +------> n-th hit: slice, owner
//! ```
//!
//! Terms (RFC 6346, RFC 7597): an egress prefix is addresses shared by port; its *partition* divides
//! the 65,536 ports of each of its addresses into ranges; a *hit* says which slice a range is and who
//! owns it.
//!
//! An owner changes by one store: of its hit, or where prefixes share their hits, of where those of the
//! prefix begin, after they were copied ([`SliceWriter`]).
//!
//! Invariants: a partition covers every port, so each port has an owner or is `Owner::Unowned`; what
//! a prefix leaves open has been filled from the prefixes that cover it, so that a look-up reads one
//! prefix. Equal partitions are stored once and equal hits are stored once: where machines share many
//! addresses in the same way, all packets read the same few cache lines.
//!
//! Memory: 32 bytes an egress prefix and about 20 of its exact table; 8 bytes a hit; 66 bytes to 130
//! a distinct partition of up to 33 ranges. 65,536 prefixes of 31 slices each take 3.3 MB when the
//! same nodes share them alike and 20 MB when no two are alike.
//!
//! Ports are looked up for a whole batch ([`SliceTable::lookup_batch`]): 10 ns each where the tables fit the
//! near caches, 24 ns for 65,536 addresses that are shared alike and 37 ns where no two are (one by one 11,
//! 31 and 78 ns, in the same run). An ordinary address is refused in 1 to 2 ns, in 4 among 65,536.
//!
//! Absent: state of a slice other than its owner, and any per-flow state.

mod batch;
mod build;
mod partition;
mod writer;

use std::fmt;

use ipnet::IpNet;

use crate::exact_index::ExactIndex;
use crate::hardware::{Instructions, Memory};
use crate::rank_tree::{Node, RankTree};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

pub use batch::SliceKey;
pub use writer::SliceWriter;

/// Position of a slice in the configuration's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SliceId(pub u32);

/// Position of an owner on this machine: its kernel, or a workload's next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LocalOwnerId(pub u16);

/// Position of a node of this site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// Position of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SiteId(pub u16);

/// Who a packet to an egress address goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Nobody has been named: a miss.
    Unowned,
    /// Nobody, as the configuration says: the packet is dropped.
    DropByDefault,
    /// An owner on this machine.
    Local(LocalOwnerId),
    /// Another node of this site.
    Node(NodeId),
    /// Another site.
    Site(SiteId),
}

/// Position of an egress prefix in its [`SliceTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EgressId(u32);

/// What a look-up of an (egress address, port) gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SliceHit {
    /// The slice; none for ports that belong to a prefix's rest, or to nobody.
    pub slice: Option<SliceId>,
    /// Who gets the packet.
    pub owner: Owner,
}

impl SliceHit {
    /// Nobody owns the port.
    pub const MISS: Self = Self { slice: None, owner: Owner::Unowned };
}

/// Ports of each address of an egress prefix that one owner has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceRange {
    /// First port.
    pub first_port: u16,
    /// Last port, part of the range.
    pub last_port: u16,
    /// The slice that these ports are.
    pub slice: SliceId,
    /// Its owner. A slice with the owner [`Owner::Unowned`] is a miss of its own: nothing is
    /// inherited for it.
    pub owner: Owner,
}

/// One egress prefix of a checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressBlock {
    /// The shared addresses; bits beyond the prefix length are ignored.
    pub prefix: IpNet,
    /// Its slices, in any order.
    pub ranges: Vec<SliceRange>,
    /// Who has the ports that are in no slice. With [`Owner::Unowned`] they belong to whoever has
    /// them in the longest prefix around this one that names somebody.
    pub rest: Owner,
    /// Who gets packets of protocols without ports; inherited like `rest`.
    pub portless: Owner,
}

/// A range of the resolved partition of an egress prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolvedRange {
    /// First port.
    pub first_port: u16,
    /// Last port, part of the range.
    pub last_port: u16,
    /// What a look-up of these ports gives.
    pub hit: SliceHit,
}

/// Why a table of slices could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SliceTableError {
    /// Two blocks have one prefix.
    #[error("egress prefix {prefix} stands twice, as entries {first} and {second}")]
    DuplicatePrefix {
        /// The prefix.
        prefix: IpNet,
        /// Position of the one block, from 0.
        first: usize,
        /// Position of the other block, from 0.
        second: usize,
    },
    /// A range ends before it begins.
    #[error(
        "egress prefix {prefix}: slice {} begins at port {first_port} and ends at port {last_port}",
        .slice.0
    )]
    Reversed {
        /// The prefix.
        prefix: IpNet,
        /// The slice.
        slice: SliceId,
        /// Its first port.
        first_port: u16,
        /// Its last port.
        last_port: u16,
    },
    /// Two ranges of one prefix share ports.
    #[error(
        "egress prefix {prefix}: slices {} (ports {}-{}) and {} (ports {}-{}) overlap",
        .lower.slice.0, .lower.first_port, .lower.last_port,
        .higher.slice.0, .higher.first_port, .higher.last_port
    )]
    Overlap {
        /// The prefix.
        prefix: IpNet,
        /// The range that begins first.
        lower: SliceRange,
        /// The range that begins within it.
        higher: SliceRange,
    },
    /// More egress prefixes than the table holds.
    #[error("{count} egress prefixes; the table holds {max}")]
    TooManyPrefixes {
        /// Prefixes given.
        count: usize,
        /// [`SliceTable::PREFIXES_MAX`].
        max: usize,
    },
    /// More ranges than the table holds, after equal ones were merged.
    #[error("at egress prefix {prefix} the table passes {max} distinct port ranges")]
    TooManyRanges {
        /// The prefix that did not fit.
        prefix: IpNet,
        /// [`SliceTable::RANGES_MAX`].
        max: usize,
    },
    /// An owner was to change of a slice that no prefix within this one has.
    #[error("slice {} is not in force within {within}", .slice.0)]
    NoSuchSlice {
        /// The slice.
        slice: SliceId,
        /// Where it was looked for.
        within: IpNet,
    },
    /// The kernel refused the address space.
    #[error("cannot map memory for the slices: {0}")]
    Memory(std::io::ErrorKind),
}

/// Levels for 65,536 ranges: 33^4 is above a million.
const DEPTH_MAX: usize = 4;

type PortNode = Node<[u16; 32]>;

/// One egress prefix, resolved.
struct Egress {
    /// Its last ports.
    tree: RankTree<DEPTH_MAX>,
    /// Its first hit; changes when the prefix gets hits of its own.
    first_hit: AtomicU32,
    /// Added to the hits' slices, see [`RelativeHit`].
    slice_base: u32,
    portless: Owner,
}

/// A hit without the position at which its prefix's slices begin in the configuration, so that
/// prefixes that are shared in the same way have equal hits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct RelativeHit {
    /// `RelativeHit::NO_SLICE`, or less.
    slice: u32,
    owner: Owner,
}

impl RelativeHit {
    const NO_SLICE: u32 = u32::MAX;

    /// In one word, so that it changes by one store.
    #[inline(always)]
    const fn pack(self) -> u64 {
        let (kind, id) = match self.owner {
            Owner::Unowned => (0, 0),
            Owner::DropByDefault => (1, 0),
            Owner::Local(LocalOwnerId(id)) => (2, id),
            Owner::Node(NodeId(id)) => (3, id),
            Owner::Site(SiteId(id)) => (4, id),
        };
        (self.slice as u64) << 32 | kind << 16 | id as u64
    }

    #[inline(always)]
    const fn unpack(word: u64) -> Self {
        let id = word as u16;
        let owner = match word as u32 >> 16 {
            0 => Owner::Unowned,
            1 => Owner::DropByDefault,
            2 => Owner::Local(LocalOwnerId(id)),
            3 => Owner::Node(NodeId(id)),
            _ => Owner::Site(SiteId(id)),
        };
        Self { slice: (word >> 32) as u32, owner }
    }
}

/// The hits of all prefixes; nothing while there is none.
#[derive(Default)]
struct Hits(Option<Memory<AtomicU64, { SliceTable::RANGES_MAX }>>);

impl Hits {
    #[inline(always)]
    fn cells(&self) -> &[AtomicU64] {
        self.0.as_ref().map_or(&[], |memory| memory.cells())
    }

    #[inline(always)]
    fn get(&self, position: usize) -> RelativeHit {
        // Acquire, as with the position: the hit was written before.
        RelativeHit::unpack(self.cells()[position].load(Ordering::Acquire))
    }
}

/// A table of who owns which (egress address, port). [`SliceWriter`] changes owners while others read;
/// everything else about it stays.
///
/// Addresses are integers in host order: 192.0.2.1 is `0xc000_0201`.
pub struct SliceTable {
    index4: ExactIndex<u32>,
    index6: ExactIndex<u128>,
    egresses: Vec<Egress>,
    nodes: Vec<PortNode>,
    hits: Hits,
    instructions: Instructions,
    /// Hits in use, for status output alone.
    hits_len: AtomicU32,
    /// For status output alone: prefixes, and their partitions as lists.
    prefixes: Vec<IpNet>,
    partitions: Vec<std::ops::Range<u32>>,
    last_ports: Vec<u16>,
}

impl SliceTable {
    /// Egress prefixes and addresses with slices of their own that a table holds: twice every address of an IPv4
    /// /16, so that those and the prefixes around them fit.
    pub const PREFIXES_MAX: usize = 1 << 17;

    /// Distinct port ranges that a table holds, eight bytes each: 128 for each of
    /// [`SliceTable::PREFIXES_MAX`] prefixes even if no two are alike. It bounds what inheriting a
    /// large partition into many prefixes can take.
    pub const RANGES_MAX: usize = if cfg!(miri) { 256 } else { 1 << 24 };

    /// Builds the table.
    ///
    /// # Errors
    /// [`SliceTableError`], which names both sides of a contradiction.
    pub fn build(blocks: Vec<EgressBlock>) -> Result<Self, SliceTableError> {
        build::Builder::build(blocks)
    }

    /// Whether there is no egress prefix.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.egresses.is_empty()
    }

    /// The longest egress prefix that holds the IPv4 address. An ordinary address is refused by one
    /// bit of a small filter.
    #[inline]
    #[must_use]
    pub fn egress4(&self, address: u32) -> Option<EgressId> {
        self.index4.longest(address).map(EgressId)
    }

    /// The longest egress prefix that holds the IPv6 address.
    #[inline]
    #[must_use]
    pub fn egress6(&self, address: u128) -> Option<EgressId> {
        self.index6.longest(address).map(EgressId)
    }

    /// The slice and the owner of `port` at each address of the prefix. Packets take
    /// [`SliceTable::lookup_batch`].
    ///
    /// # Panics
    /// If `egress` comes from another table.
    #[inline]
    #[must_use]
    pub fn lookup(&self, egress: EgressId, port: u16) -> SliceHit {
        let egress = &self.egresses[egress.0 as usize];
        egress.hit(&self.hits, egress.place(egress.tree.rank(&self.nodes, port)))
    }

    /// Who gets packets of protocols without ports.
    ///
    /// # Panics
    /// If `egress` comes from another table.
    #[inline]
    #[must_use]
    pub fn portless(&self, egress: EgressId) -> Owner {
        self.egresses[egress.0 as usize].portless
    }

    /// The egress prefix.
    ///
    /// # Panics
    /// If `egress` comes from another table.
    #[must_use]
    pub fn prefix(&self, egress: EgressId) -> IpNet {
        self.prefixes[egress.0 as usize]
    }

    /// All egress prefixes, IPv4 first, then from the shortest to the longest.
    pub fn egresses(&self) -> impl ExactSizeIterator<Item = EgressId> + '_ {
        (0..position(self.egresses.len())).map(EgressId)
    }

    /// The resolved partition of an egress prefix, from port 0 to port 65535 without a gap.
    ///
    /// # Panics
    /// If `egress` comes from another table.
    pub fn ranges(&self, egress: EgressId) -> impl Iterator<Item = ResolvedRange> + '_ {
        let Self { egresses, hits, partitions, last_ports, .. } = self;
        let partition = &partitions[egress.0 as usize];
        let last_ports = &last_ports[partition.start as usize..partition.end as usize];
        let egress = &egresses[egress.0 as usize];
        let first_ports = std::iter::once(0).chain(last_ports.iter().map(|last| last + 1));
        first_ports.zip(last_ports).enumerate().map(|(n, (first_port, &last_port))| ResolvedRange {
            first_port,
            last_port,
            hit: egress.hit(hits, egress.place(n)),
        })
    }

    /// Bytes that look-ups read.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.index4.bytes()
            + self.index6.bytes()
            + size_of_val(&*self.egresses)
            + size_of_val(&*self.nodes)
            + self.hits_len.load(Ordering::Relaxed) as usize * size_of::<RelativeHit>()
    }
}

impl Egress {
    /// Where the hit of a range is.
    #[inline(always)]
    fn place(&self, range: usize) -> usize {
        self.first_hit.load(Ordering::Acquire) as usize + range
    }

    #[inline(always)]
    fn hit(&self, hits: &Hits, place: usize) -> SliceHit {
        let hit = hits.get(place);
        let slice = (hit.slice != RelativeHit::NO_SLICE)
            .then_some(SliceId(self.slice_base.wrapping_add(hit.slice)));
        SliceHit { slice, owner: hit.owner }
    }
}

/// A table without egress prefixes.
impl Default for SliceTable {
    fn default() -> Self {
        Self {
            index4: ExactIndex::new(Vec::new()),
            index6: ExactIndex::new(Vec::new()),
            egresses: Vec::new(),
            nodes: Vec::new(),
            hits: Hits::default(),
            instructions: Instructions::best(),
            hits_len: AtomicU32::new(0),
            prefixes: Vec::new(),
            partitions: Vec::new(),
            last_ports: Vec::new(),
        }
    }
}

impl fmt::Debug for SliceTable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SliceTable")
            .field("egresses", &self.egresses.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

fn position(count: usize) -> u32 {
    u32::try_from(count).expect("PREFIXES_MAX and RANGES_MAX keep positions within 32 bits")
}
