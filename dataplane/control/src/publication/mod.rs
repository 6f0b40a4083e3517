//! Publication: from the configuration and the machine to the snapshot that workers read.
//!
//! ```text
//!  Checked --+                 +-- Rib (FIBs, groups) --+
//!            +--> Publication -+-- SliceTable ----------+--> Snapshot --> workers
//!  HostView -+                 +-- Adjacencies ---------+
//! ```
//!
//! Parts that did not change are shared with the snapshot before: a neighbor that changes its MAC
//! address costs a copy of the adjacencies, not a rebuild of the FIB.

mod adjacencies;
mod host_view;
mod provenance;
mod rib;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use config::{Checked, Endpoints, MssClamp, Tunnel, TunnelKind};
use tables::{
    Delivery, Encapsulation, FibError, FragmentLimits, Gre, GroupsError, HoldLimits, IcmpLimits,
    Interface, Peer, PeerId, Publisher, Reader, Role, RouteId, Sequence, SliceTable,
    SliceTableError, Snapshot, TunnelKinds,
};
use thiserror::Error;
use wire::InterfaceId;

use adjacencies::Adjacencies;
pub use host_view::{HostView, InterfaceView, NeighborView, NextHopView, RouteView};
pub use provenance::{RouteEntry, RouteSource};
use rib::Rib;
pub use rib::RibCounts;

/// Bytes of an IPv4 and a TCP header, and of an IPv6 and a TCP header.
const TCP_OVERHEAD_V4: u16 = 40;
const TCP_OVERHEAD_V6: u16 = 60;

/// Why a snapshot could not be made. The one before stays in force.
#[derive(Debug, Error)]
pub enum PublicationError {
    /// The routes do not fit the FIB.
    #[error("the routes do not fit the forwarding table: {0}")]
    Fib(#[from] FibError),
    /// The next hops of the routes do not fit the tables.
    #[error(transparent)]
    Groups(#[from] GroupsError),
    /// The slices contradict each other.
    #[error("the slices cannot be put into force: {0}")]
    Slices(#[from] SliceTableError),
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
    adjacencies: Adjacencies,
    rib: Rib,
    slices: Arc<SliceTable>,
}

/// Makes snapshots and publishes them.
#[derive(Debug)]
pub struct Publication {
    config: Arc<Checked>,
    workers: u32,
    adjacencies: Adjacencies,
    rib: Rib,
    slices: Arc<SliceTable>,
    sequences: Sequences,
    publisher: Publisher,
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
        let PreparedTables { config, mut adjacencies, rib, slices } = Self::prepare(config, host)?;
        let mut sequences = Sequences::new();
        let peers = peers(&config, &rib, &mut sequences);
        let snapshot = assemble(&config, host, workers, &mut adjacencies, &rib, &slices, peers);
        let publisher = Publisher::new(snapshot);
        Ok(Self { config, workers, adjacencies, rib, slices, sequences, publisher })
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

    /// How many routes are published.
    #[must_use]
    pub fn counts(&self) -> RibCounts {
        self.rib.counts
    }

    /// The neighbors that routes, owners and tunnels lead to, which the kernel is to keep fresh.
    pub fn required_neighbors(&self) -> impl Iterator<Item = (InterfaceId, IpAddr)> + '_ {
        self.adjacencies.required()
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
            let mut adjacencies = Adjacencies::default();
            self.rib = rib::build(&self.config, host, &mut adjacencies)?;
            self.adjacencies = adjacencies;
        }
        self.publish(host);
        Ok(())
    }

    /// Builds the tables of a new configuration aside: everything about it that can fail.
    ///
    /// # Errors
    /// [`PublicationError`] when the tables cannot be built.
    pub fn prepare(
        config: Arc<Checked>,
        host: &HostView,
    ) -> Result<PreparedTables, PublicationError> {
        let mut adjacencies = Adjacencies::default();
        let rib = rib::build(&config, host, &mut adjacencies)?;
        let slices = Arc::new(SliceTable::build(config.slice_blocks())?);
        Ok(PreparedTables { config, adjacencies, rib, slices })
    }

    /// Publishes the tables of a new configuration.
    pub fn config_changed(&mut self, prepared: PreparedTables, host: &HostView) {
        let PreparedTables { config, adjacencies, rib, slices } = prepared;
        self.config = config;
        self.adjacencies = adjacencies;
        self.rib = rib;
        self.slices = slices;
        self.publish(host);
    }

    /// Frees what no worker uses any more.
    pub fn collect(&mut self) {
        self.publisher.collect();
    }

    fn publish(&mut self, host: &HostView) {
        let Self { config, workers, adjacencies, rib, slices, sequences, publisher } = self;
        let peers = peers(config, rib, sequences);
        publisher.publish(assemble(config, host, *workers, adjacencies, rib, slices, peers));
    }
}

/// Puts the parts of a snapshot together.
fn assemble(
    config: &Checked,
    host: &HostView,
    workers: u32,
    adjacencies: &mut Adjacencies,
    rib: &Rib,
    slices: &Arc<SliceTable>,
    peers: Peers,
) -> Snapshot {
    let owners = owners(config, adjacencies);
    let Peers { list: peers, kinds: tunnel_kinds, nodes, sites, .. } = peers;
    let (resolved, neighbors) = adjacencies.resolve(config, host);
    let egress =
        |address: &IpAddr| config.egress.iter().any(|egress| egress.prefix.contains(address));
    let locals: HashSet<IpAddr> =
        host.locals.iter().filter(|address| !egress(address)).copied().collect();
    Snapshot {
        epoch: 1,
        interfaces: interfaces(config, host, &peers),
        fib4: Arc::clone(&rib.fib4),
        fib6: Arc::clone(&rib.fib6),
        groups: Arc::clone(&rib.groups),
        adjacencies: resolved,
        neighbors,
        slices: Arc::clone(slices),
        owners,
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
                adjacency: adjacencies.require(interface, address, 0),
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

/// The far ends of tunnels: the other nodes of this site, and the other sites. `sequences` are those of
/// the tunnels before, and then of these.
fn peers(config: &Checked, rib: &Rib, sequences: &mut Sequences) -> Peers {
    let mut peers = Peers::default();
    let local = config.local_node.and_then(|position| config.nodes.get(position));
    let Some(local) = local else { return peers };
    let add = |peers: &mut Peers, to: &Endpoints, tunnel: Tunnel, is_site: bool| {
        let (local, remote) = local.endpoints.outer_to(to)?;
        let id = PeerId(u16::try_from(peers.list.len()).ok()?);
        let route: RouteId = match remote {
            IpAddr::V4(address) => rib.fib4.lookup(address.to_bits()),
            IpAddr::V6(address) => rib.fib6.lookup(address.to_bits()),
        };
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
        peers.list.push(Peer { remote, local, encapsulation, copies_dscp, route, is_site });
        Some(id)
    };
    for (position, node) in config.nodes.iter().enumerate() {
        let is_other = Some(position) != config.local_node && node.site == local.site;
        let tunnel = config.tunnel_to_node(node);
        let id = is_other.then(|| add(&mut peers, &node.endpoints, tunnel, false)).flatten();
        peers.nodes.push(id);
    }
    for (position, site) in config.sites.iter().enumerate() {
        let is_other = local.site.is_none_or(|own| usize::from(own.0) != position);
        let tunnel = config.tunnel_to_site(site);
        let id = is_other.then(|| add(&mut peers, &site.endpoints, tunnel, true)).flatten();
        peers.sites.push(id);
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
        .map(|(configured, link)| {
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
                mac: link.mac,
                mtu: link.mtu,
                address4: link.addresses.iter().find_map(|net| match net.addr() {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                }),
                address6: link.addresses.iter().find_map(|net| match net.addr() {
                    IpAddr::V6(address) if !address.is_unicast_link_local() => Some(address),
                    _ => None,
                }),
                mss4,
                mss6,
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
