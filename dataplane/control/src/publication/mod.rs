//! Publication: from the configuration and the machine to the snapshot that workers read.
//!
//! ```text
//!  Checked -------+                 +-- Rib --> groups, FIBs --+
//!  HostView ------+--> Publication -+-- SliceTable ------------+--> Snapshot --> workers
//!  kernel routes -+                 +-- Adjacencies -----------+
//! ```
//!
//! Parts that did not change are shared with the snapshot before: a neighbor that changes its MAC
//! address costs a copy of the adjacencies, not a rebuild of the FIB. Routes of the kernel come as
//! changes ([`Publication::kernel_routes`]); any number of them may be taken in before the next
//! publication ([`Publication::host_changed`]).

mod adjacencies;
mod fibs;
mod host_view;
mod numbers;
mod provenance;
mod rib;
mod slices;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::{Checked, MssClamp, SiteId, SourceValidation, Tunnel, TunnelKind};
use ipnet::IpNet;
use tables::{
    Actions, Delivery, Encapsulation, FibError, FragmentLimits, Gre, GroupsError, HeaderRules,
    HoldLimits, IcmpLimits, Interface, OuterHeaders, OwnAddresses, Peer, PeerId, Publisher, Reader,
    Role, Sequence, SliceTable, SliceTableError, Snapshot, TunnelKinds,
};
use thiserror::Error;
use wire::InterfaceId;

use crate::kernel::RouteChange;

use adjacencies::Adjacencies;
use fibs::Fibs;
pub use host_view::{HostView, InterfaceView, NeighborView, NextHopView, RouteView};
pub use numbers::ActionNames;
use numbers::Numbers;
pub use provenance::RouteEntry;
use rib::Rib;
pub use rib::{CandidateView, PrefixView, RibCounts, RouteSource, Unexpressible};
use slices::{PreparedSlices, Slices};

/// Bytes of an IPv4 and a TCP header, and of an IPv6 and a TCP header.
const TCP_OVERHEAD_V4: u16 = 40;
const TCP_OVERHEAD_V6: u16 = 60;

/// Why a snapshot could not be made. The one before stays in force.
#[derive(Debug, Error)]
pub enum PublicationError {
    /// The routes do not fit the FIB.
    #[error("the routes do not fit the forwarding table: {0}")]
    Fib(FibError),
    /// The next hops of the routes do not fit the tables.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// The slices contradict each other.
    #[error("the slices cannot be put into force: {0}")]
    Slices(SliceTableError),
    /// Every number that plugins may know is given to a name.
    #[error(
        "there were more than {most} names of {what} since the start: names that plugins know keep \
         their numbers, so that only a restart makes room for others"
    )]
    Names {
        /// Whose names.
        what: &'static str,
        /// How many numbers there are.
        most: u16,
    },
}

impl From<FibError> for PublicationError {
    fn from(error: FibError) -> Self {
        Self::Fib(error)
    }
}

impl From<SliceTableError> for PublicationError {
    fn from(error: SliceTableError) -> Self {
        Self::Slices(error)
    }
}

/// What changed since the last publication.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Routes, own addresses, or interfaces.
    pub routes: bool,
    /// Neighbors alone.
    pub neighbors: bool,
}

/// The tables of a configuration that is not in force yet.
#[derive(Debug)]
pub struct PreparedTables {
    config: Arc<Checked>,
    /// Absent if the new configuration says about routes what the old one said.
    routes: Option<(Rib, Fibs)>,
    slices: PreparedSlices,
    names: ActionNames,
}

impl PreparedTables {
    /// What the configuration names, with the numbers that plugins are to know it by.
    #[must_use]
    pub fn names(&self) -> &ActionNames {
        &self.names
    }
}

/// How long publications took, and how late they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Publications since the start.
    pub publications: u64,
    /// Prefixes whose routes sources have changed, whether or not that changed what is in force.
    pub route_changes: u64,
    /// From when the kernel told of the oldest route change that the last publication with one had, until
    /// workers could read it.
    pub last_delay: Duration,
    /// The longest of those.
    pub max_delay: Duration,
    /// What the last publication with route changes took by itself.
    pub last_build: Duration,
}

/// Makes snapshots and publishes them.
#[derive(Debug)]
pub struct Publication {
    config: Arc<Checked>,
    /// Number of the configuration, which snapshots carry.
    configuration: u64,
    workers: u32,
    rib: Rib,
    fibs: Fibs,
    slices: Slices,
    owners: Vec<Delivery>,
    sequences: Sequences,
    numbers: Numbers,
    names: ActionNames,
    /// What the numbers mean, as it was published last.
    actions: Arc<Actions>,
    publisher: Publisher,
    timing: Timing,
    /// When the oldest route change was heard of that is not published.
    waiting_since: Option<Instant>,
    /// The IPv4 table was built anew, and no snapshot has it yet.
    is_table_new: bool,
}

/// The routes that are there before the first publication: tables are made of them once, when all are known.
#[derive(Debug)]
pub struct RoutesAtStart {
    config: Arc<Checked>,
    rib: Rib,
    workers: u32,
    route_changes: u64,
}

impl RoutesAtStart {
    /// For a router with this many workers.
    ///
    /// # Errors
    /// [`PublicationError::Groups`] when there is no memory for the groups of next hops.
    pub fn new(
        config: Arc<Checked>,
        host: &HostView,
        workers: u32,
    ) -> Result<Self, PublicationError> {
        let rib = Rib::new(&config, host)?;
        Ok(Self { config, rib, workers, route_changes: 0 })
    }

    /// Takes in what the kernel tells of its routes, on a machine that is known as far as `host`.
    pub fn kernel_routes(&mut self, changes: &[RouteChange], host: &HostView) {
        // A route over an interface that is not known yet would have to be looked at again.
        self.rib.follow_links(host);
        for change in changes {
            self.rib.kernel_changed(change);
        }
        self.route_changes += changes.len() as u64;
    }

    /// The first publication.
    ///
    /// # Errors
    /// [`PublicationError`] when the tables cannot be built.
    pub fn publication(mut self, host: &HostView) -> Result<Publication, PublicationError> {
        self.rib.follow_host(&self.config, host, true);
        let Self { config, rib, workers, route_changes } = self;
        let mut publication = Publication::with(rib, Numbers::default(), config, host, workers)?;
        publication.timing.route_changes = route_changes;
        Ok(publication)
    }
}

/// A copy of all routes, of which publications are made that nobody forwards by.
#[derive(Debug)]
pub struct RoutesAside {
    rib: Rib,
    numbers: Numbers,
    workers: u32,
}

impl RoutesAside {
    /// What a configuration names, with the numbers that plugins would know it by.
    ///
    /// # Errors
    /// [`PublicationError::Names`].
    pub fn names(&self, config: &Checked) -> Result<ActionNames, PublicationError> {
        self.numbers.of(config)
    }

    /// The first publication of a router that has these routes of the kernel, and this configuration.
    ///
    /// # Errors
    /// [`PublicationError`] when the tables cannot be built.
    pub fn publication(
        &self,
        config: Arc<Checked>,
        host: &HostView,
    ) -> Result<Publication, PublicationError> {
        let mut rib = self.rib.aside()?;
        rib.follow_config(&config, host);
        Publication::with(rib, self.numbers.clone(), config, host, self.workers)
    }
}

/// The sequence numbers of tunnels, by their outer addresses: they go on when all else is built anew.
type Sequences = HashMap<(IpAddr, IpAddr), Sequence>;

impl Publication {
    /// The first publication, for a router with this many workers.
    ///
    /// # Errors
    /// [`PublicationError`] when the tables cannot be built.
    pub fn new(
        config: Arc<Checked>,
        host: &HostView,
        workers: u32,
    ) -> Result<Self, PublicationError> {
        RoutesAtStart::new(config, host, workers)?.publication(host)
    }

    /// The same with routes that are there.
    fn with(
        mut rib: Rib,
        numbers: Numbers,
        config: Arc<Checked>,
        host: &HostView,
        workers: u32,
    ) -> Result<Self, PublicationError> {
        let fibs = build(&mut rib)?;
        let slices = Slices::build(&config)?;
        let owners = owners(&config, &mut rib.adjacencies);
        let mut sequences = Sequences::new();
        let names = numbers.of(&config)?;
        let actions = Arc::new(rib.actions(&config, host, &names));
        let parts = Parts {
            rib: &mut rib,
            fibs: &fibs,
            slices: &slices.table(),
            owners: &owners,
            actions: &actions,
        };
        let configuration = 1;
        let snapshot = assemble((&config, configuration), host, workers, parts, &mut sequences);
        let mut publisher = Publisher::new(snapshot);
        rib.published(publisher.begin_grace());
        let (timing, waiting_since) = (Timing::default(), None);
        Ok(Self {
            config,
            configuration,
            workers,
            rib,
            fibs,
            slices,
            owners,
            sequences,
            numbers,
            names,
            actions,
            publisher,
            timing,
            waiting_since,
            is_table_new: false,
        })
    }

    /// The routes as they are now, for publications that nobody forwards by.
    ///
    /// # Errors
    /// [`PublicationError::Groups`].
    pub fn routes_aside(&self) -> Result<RoutesAside, PublicationError> {
        let (rib, numbers) = (self.rib.aside()?, self.numbers.clone());
        Ok(RoutesAside { rib, numbers, workers: self.workers })
    }

    /// What the configuration in force names, with the numbers that plugins know it by.
    #[must_use]
    pub fn names(&self) -> &ActionNames {
        &self.names
    }

    /// What another configuration names, with the numbers that plugins would know it by.
    ///
    /// # Errors
    /// [`PublicationError::Names`].
    pub fn names_of(&self, config: &Checked) -> Result<ActionNames, PublicationError> {
        self.numbers.of(config)
    }

    /// A reading end for one worker.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.publisher.reader()
    }

    /// What is published now.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        self.publisher.current()
    }

    /// How many routes there are.
    #[must_use]
    pub fn counts(&self) -> RibCounts {
        self.rib.counts()
    }

    /// Bytes that look-ups of destinations read, in IPv4 and in IPv6.
    #[must_use]
    pub fn fib_bytes(&self) -> [usize; 2] {
        self.fibs.bytes()
    }

    /// How long publications took.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// The neighbors that routes, owners and tunnels lead to, which the kernel is to keep fresh.
    pub fn required_neighbors(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.rib.adjacencies.required()
    }

    /// Takes in what the kernel tells of its routes, which it told first at `since`. Nothing is published:
    /// [`host_changed`](Self::host_changed) does that for all that was taken in.
    pub fn kernel_routes(&mut self, changes: &[RouteChange], since: Instant) {
        for change in changes {
            self.rib.kernel_changed(change);
        }
        self.timing.route_changes += changes.len() as u64;
        self.waiting_since.get_or_insert(since);
    }

    /// Ends what lasts for a time only: routes that are held after they were withdrawn, and patches of the
    /// IPv6 table. True if a publication is due.
    pub fn tick(&mut self, now: Instant) -> bool {
        let is_rebuild_due = self.fibs.tick(now);
        self.rib.tick(now) || self.is_table_new || is_rebuild_due
    }

    /// Publishes what changed on the machine.
    ///
    /// # Errors
    /// [`PublicationError`] when the tables cannot be built; what was published stays.
    pub fn host_changed(
        &mut self,
        host: &HostView,
        changes: Changes,
    ) -> Result<(), PublicationError> {
        if changes.routes {
            self.rib.follow_host(&self.config, host, false);
        }
        self.publish(host)
    }

    /// Builds the tables of a new configuration aside: everything about it that can fail. The kernel's
    /// routes are those that were taken in; what is taken in later is not in the result, which is to be
    /// published before.
    ///
    /// # Errors
    /// [`PublicationError`] when the tables cannot be built.
    pub fn prepare(
        &self,
        config: Arc<Checked>,
        host: &HostView,
    ) -> Result<PreparedTables, PublicationError> {
        let egress = |config: &Checked| -> Vec<IpNet> {
            config.egress.iter().map(|egress| egress.prefix).collect()
        };
        let old = &*self.config;
        let is_same = old.routes == config.routes
            && old.route_files == config.route_files
            && old.route_options == config.route_options
            && egress(old) == egress(&config);
        let routes = if is_same {
            None
        } else {
            let mut rib = self.rib.aside()?;
            rib.follow_config(&config, host);
            let fibs = build(&mut rib)?;
            Some((rib, fibs))
        };
        let slices = self.slices.prepare(old, &config)?;
        let names = self.numbers.of(&config)?;
        Ok(PreparedTables { config, routes, slices, names })
    }

    /// The number that snapshots carry from the next [`config_changed`](Self::config_changed) on: what is
    /// to come into force with its tables waits for it.
    #[must_use]
    pub fn next_configuration(&self) -> u64 {
        self.configuration + 1
    }

    /// Publishes the tables of a new configuration.
    pub fn config_changed(&mut self, prepared: PreparedTables, host: &HostView) {
        let PreparedTables { config, routes, slices, names } = prepared;
        self.config = config;
        self.configuration += 1;
        self.names = names;
        if let Some((rib, fibs)) = routes {
            (self.rib, self.fibs) = (rib, fibs);
        }
        if let Err(error) = self.slices.follow(slices, &self.config) {
            tracing::error!(%error, "owners of slices that changed are not in force");
        }
        let before = std::mem::take(&mut self.owners);
        self.owners = owners(&self.config, &mut self.rib.adjacencies);
        for delivery in before {
            if let Delivery::NextHop { adjacency, .. } = delivery {
                self.rib.adjacencies.release(adjacency);
            }
        }
        if let Err(error) = self.publish(host) {
            // The tables of the configuration itself were built before.
            tracing::error!(%error, "routes that changed meanwhile are not in force");
        }
    }

    /// Frees what no worker uses any more, and lets into force what waited for workers. True if neighbors
    /// are required no more.
    pub fn collect(&mut self) -> bool {
        let before = self.rib.adjacencies.len();
        self.publisher.collect();
        self.slices.reclaim(&mut self.publisher);
        if self.is_waiting() {
            // An error is told by the next publication, which tries again.
            let _ = self.settle();
        } else {
            self.rib.reclaim(&mut self.publisher);
        }
        self.rib.adjacencies.len() < before
    }

    /// Whether a route waits until all workers know the next hop that it leads to: [`collect`](Self::collect)
    /// is to be called soon.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.rib.has_changes()
    }

    fn publish(&mut self, host: &HostView) -> Result<(), PublicationError> {
        let start = Instant::now();
        let has_changes = self.rib.has_changes();
        // What cannot be built leaves the old table in force, whose ids keep their meaning.
        let followed = self.fibs.follow6(&mut self.rib, start);
        let rebuilt = self.fibs.follow4(&mut self.rib, &mut self.publisher);
        let actions = self.rib.actions(&self.config, host, &self.names);
        if actions != *self.actions {
            self.actions = Arc::new(actions);
        }
        let Self { config, configuration, workers, rib, fibs, slices, owners, .. } = self;
        let Self { sequences, actions, publisher, .. } = self;
        let parts = Parts { rib, fibs, slices: &slices.table(), owners, actions };
        publisher.publish(assemble((config, *configuration), host, *workers, parts, sequences));
        self.is_table_new = false;
        self.timing.publications += 1;
        self.rib.published(self.publisher.begin_grace());
        if has_changes {
            self.timing.last_build = start.elapsed();
        }
        followed?;
        rebuilt?;
        self.settle()
    }

    /// Lets into the IPv4 table what waited until all workers know the adjacencies that it leads to.
    fn settle(&mut self) -> Result<(), PublicationError> {
        if self.rib.reclaim(&mut self.publisher) {
            self.is_table_new |= self.fibs.follow4(&mut self.rib, &mut self.publisher)?;
            // Until the next snapshot the old table is in force, and names what was released.
            if !self.is_table_new {
                self.rib.published(self.publisher.begin_grace());
            }
        }
        if !self.rib.has_changes()
            && !self.is_table_new
            && let Some(since) = self.waiting_since.take()
        {
            self.timing.last_delay = since.elapsed();
            self.timing.max_delay = self.timing.max_delay.max(self.timing.last_delay);
        }
        Ok(())
    }
}

/// The FIBs, if there are ids for all groups.
fn build(rib: &mut Rib) -> Result<Fibs, PublicationError> {
    if rib.counts().unexpressible_by_reason.contains_key(Unexpressible::TooManyGroups.label()) {
        return Err(GroupsError::TooManyGroups.into());
    }
    Fibs::build(rib)
}

/// What a snapshot is made of.
struct Parts<'a> {
    rib: &'a mut Rib,
    fibs: &'a Fibs,
    slices: &'a Arc<SliceTable>,
    owners: &'a [Delivery],
    actions: &'a Arc<Actions>,
}

/// Puts the parts of a snapshot together.
fn assemble(
    (config, configuration): (&Checked, u64),
    host: &HostView,
    workers: u32,
    Parts { rib, fibs, slices, owners, actions }: Parts<'_>,
    sequences: &mut Sequences,
) -> Snapshot {
    let peers = peers(config, rib, sequences);
    let Peers { list: peers, kinds: tunnel_kinds, nodes, sites, .. } = peers;
    let (resolved, neighbors) = rib.adjacencies.resolve(config, host);
    let locals: OwnAddresses =
        host.locals.iter().filter(|address| !rib.is_egress((**address).into())).copied().collect();
    Snapshot {
        epoch: 1,
        configuration,
        interfaces: interfaces(config, host, &peers),
        fib4: fibs.v4(),
        fib6: Arc::clone(&fibs.v6),
        groups: rib.groups(),
        defaults: rib.defaults(),
        validates_sources: config
            .interfaces
            .iter()
            .any(|interface| interface.source_validation != SourceValidation::Off),
        rules: HeaderRules {
            drops_martians: config.validation.drop_martians,
            drops_source_routes: config.validation.drop_source_routes,
        },
        adjacencies: resolved,
        neighbors,
        slices: Arc::clone(slices),
        owners: owners.to_vec(),
        peers_by_address: peers
            .iter()
            .zip(0_u16..)
            .map(|(peer, position)| (peer.remote, PeerId(position)))
            .collect::<HashMap<_, _>>(),
        peers,
        nodes,
        sites,
        locals,
        tunnel_kinds,
        actions: Arc::clone(actions),
        // A configured rate holds for the router; each worker has its part.
        icmp: IcmpLimits {
            interface_per_s: config.icmp.errors_per_s.div_ceil(workers.max(1)),
            prefix_per_s: config.icmp.per_source_prefix_per_s.div_ceil(workers.max(1)),
        },
        punt_packets_per_s: config.punt.packets_per_s.div_ceil(workers.max(1)),
        hold: HoldLimits {
            frames_max_per_neighbor: config.hold.frames_max_per_neighbor,
            frames_max: u16::try_from(config.hold.frames_max).unwrap_or(u16::MAX),
            timeout_ms: config.hold.timeout_ms,
        },
        fragments: FragmentLimits {
            packets_max: config.fragments.packets_max,
            frames_max: config.fragments.frames_max,
            bytes_max: config.fragments.bytes_max,
            timeout_ms: config.fragments.timeout_ms,
            egress: config.fragments.egress,
            egress_packets_per_s: config.fragments.egress_packets_per_s.div_ceil(workers.max(1)),
        },
    }
}

fn owners(config: &Checked, adjacencies: &mut Adjacencies) -> Vec<Delivery> {
    config
        .owners
        .iter()
        .map(|owner| match owner.delivery {
            config::Delivery::Kernel => Delivery::Kernel,
            config::Delivery::NextHop { address, interface } => Delivery::NextHop {
                interface,
                adjacency: adjacencies.acquire(interface, address, 0),
            },
        })
        .collect()
}

#[derive(Default)]
struct Peers {
    list: Vec<Peer>,
    kinds: TunnelKinds,
    sequences: Sequences,
    nodes: Vec<Option<PeerId>>,
    sites: Vec<Option<PeerId>>,
}

/// The far ends of tunnels: the other nodes of this site, the other sites, and the nodes there, each of
/// which sends to this site from its own address. `sequences` are those of the tunnels before, and then
/// of these.
fn peers(config: &Checked, rib: &Rib, sequences: &mut Sequences) -> Peers {
    let mut peers = Peers::default();
    let local = config.local_node.and_then(|position| config.nodes.get(position));
    let Some(local) = local else { return peers };
    let add = |peers: &mut Peers, ends: (IpAddr, IpAddr), tunnel: Tunnel, site: Option<SiteId>| {
        let (local, remote) = ends;
        let id = PeerId(u16::try_from(peers.list.len()).ok()?);
        let route = rib.lookup(remote);
        let encapsulation = match tunnel.kind {
            TunnelKind::Gue => Encapsulation::Gue { port: config.gue_port },
            TunnelKind::Ipip => Encapsulation::Ipip,
            TunnelKind::Gre(gre) => {
                let ends = (local, remote);
                let mut sequence = || {
                    let sequence = sequences.get(&ends).cloned().unwrap_or_default();
                    peers.sequences.insert(ends, sequence.clone());
                    sequence
                };
                Encapsulation::Gre(Gre {
                    key: gre.key,
                    checksum: gre.checksum,
                    sequence: gre.sequence.then(&mut sequence),
                })
            }
        };
        peers.kinds.add(&encapsulation);
        let copies_dscp = tunnel.copies_dscp;
        let outer = OuterHeaders::new(local, remote, &encapsulation);
        peers.list.push(Peer { remote, local, encapsulation, outer, copies_dscp, route, site });
        Some(id)
    };
    for (position, node) in config.nodes.iter().enumerate() {
        let is_other = Some(position) != config.local_node && node.site == local.site;
        let tunnel = config.tunnel_to_node(node);
        let ends = local.endpoints.outer_to(&node.endpoints).filter(|_| is_other);
        let id = ends.and_then(|ends| add(&mut peers, ends, tunnel, None));
        peers.nodes.push(id);
    }
    for (site, id) in config.sites.iter().zip((0..).map(SiteId)) {
        let is_other = local.site != Some(id);
        let tunnel = config.tunnel_to_site(site);
        let ends = local.endpoints.outer_to(&site.endpoints).filter(|_| is_other);
        let id = ends.and_then(|ends| add(&mut peers, ends, tunnel, Some(id)));
        peers.sites.push(id);
    }
    let own_site = local.site.and_then(|own| config.sites.get(usize::from(own.0)));
    for node in config.nodes.iter().filter(|node| node.site != local.site) {
        let site = node.site.and_then(|id| Some((id, config.sites.get(usize::from(id.0))?)));
        let (Some(own_site), Some((id, site))) = (own_site, site) else { continue };
        // As that node sees it: from its own address to this site's, of the family that both have.
        let Some((remote, local)) = node.endpoints.outer_to(&own_site.endpoints) else { continue };
        if peers.list.iter().all(|peer| peer.remote != remote) {
            add(&mut peers, (local, remote), config.tunnel_to_site(site), Some(id));
        }
    }
    *sequences = std::mem::take(&mut peers.sequences);
    peers
}

/// What the packet path knows of each interface.
fn interfaces(config: &Checked, host: &HostView, peers: &[Peer]) -> Vec<Interface> {
    let tunnel_mtu = tunnel_mtu(host, peers);
    config
        .interfaces
        .iter()
        .zip(&host.interfaces)
        .zip((0..).map(InterfaceId))
        .map(|((configured, link), id)| {
            let limit = tunnel_mtu.unwrap_or(u16::MAX).min(link.mtu);
            let (mss4, mss6) = match configured.mss_clamp {
                MssClamp::Off => (0, 0),
                MssClamp::Auto => {
                    (limit.saturating_sub(TCP_OVERHEAD_V4), limit.saturating_sub(TCP_OVERHEAD_V6))
                }
                MssClamp::Bytes(bytes) => (bytes, bytes),
            };
            Interface {
                role: match configured.role {
                    config::Role::Inside => Role::Inside,
                    config::Role::Outside => Role::Outside,
                    config::Role::Both => Role::Both,
                },
                source_validation: match configured.source_validation {
                    SourceValidation::Off => tables::SourceValidation::Off,
                    SourceValidation::Strict => tables::SourceValidation::Strict,
                    SourceValidation::Loose => tables::SourceValidation::Loose,
                    SourceValidation::LooseIgnoringDefault => {
                        tables::SourceValidation::LooseIgnoringDefault
                    }
                },
                is_up: !host.down.contains(&id),
                mac: link.mac,
                mtu: link.mtu,
                address4: link.addresses.iter().find_map(|net| match net.addr() {
                    // RFC 3927 section 2.7: no router would pass on what has a link-local source.
                    IpAddr::V4(address) if !address.is_link_local() => Some(address),
                    _ => None,
                }),
                address6: link.addresses.iter().find_map(|net| match net.addr() {
                    IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
                    _ => None,
                }),
                mss4,
                mss6,
                clamps_by_route: configured.mss_clamp == MssClamp::Auto,
            }
        })
        .collect()
}

/// The largest packet that fits every owner tunnel: of the interface with the smallest MTU, since a
/// tunnel's route may change to any of them.
fn tunnel_mtu(host: &HostView, peers: &[Peer]) -> Option<u16> {
    let overhead = peers.iter().map(Peer::overhead).max()?;
    let smallest = host.interfaces.iter().map(|link| link.mtu).min()?;
    Some(smallest.saturating_sub(overhead))
}
