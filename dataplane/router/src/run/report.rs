//! What `sluice run` prints at start, and the report behind `sluice status` and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use config::{Checked, Poll};
use control::publication::RibCounts;
use control::status::{
    ActionStatus, ClassifierCount, FrameCounts, InterfaceStatus, LongTurns, MirrorStatus,
    NeighborStatus, NodeStatus, PuntStatus, ReasonCount, RouteCounts, RouterStatus, SourceCount,
    StageClocks, StatusReport, WorkerStatus, XdpStatistics,
};
use forward::{Counter, InterfaceCounters, Stage, WorkerCounters};
use frame::DropReason;
use tables::{AdjacencyState, NextHopGroup};
use tracing::warn;
use wire::InterfaceId;
use xdp::AttachedMode;

use crate::action_totals::action_totals;
use crate::preflight::counted;
use crate::run::control_loop::ControlLoop;
use crate::run::datapath::Datapath;

/// Prints how each interface was set up and which worker owns which queue.
pub(crate) fn print_start(config: &Checked, datapath: &Datapath) {
    for (interface, attached) in config.interfaces.iter().zip(&datapath.interfaces) {
        let facts = &attached.facts;
        println!(
            "{}: driver {}, XDP {}, {}, {}, MTU {}, role {}",
            interface.name,
            facts.driver,
            attached.xdp_mode.label(),
            attached.bind_mode,
            counted(attached.statistics.len(), "queue"),
            facts.mtu,
            role(interface.role),
        );
        if attached.xdp_mode == AttachedMode::Generic {
            warn!(
                interface = interface.name,
                "its driver has no native XDP: packets take the slow way through the kernel"
            );
        }
    }
    for (id, core) in datapath.cores.iter().enumerate() {
        let names: Vec<&str> =
            config.interfaces.iter().map(|interface| interface.name.as_str()).collect();
        println!("worker {id}: core {core}, queue {id} of {}", names.join(", "));
    }
}

fn role(role: config::Role) -> &'static str {
    match role {
        config::Role::Inside => "inside",
        config::Role::Outside => "outside",
        config::Role::Both => "both",
    }
}

/// Rates over the last second or so.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    interfaces: Vec<(u64, u64)>,
    /// Of each interface: packets a second received and sent.
    interface_rates: Vec<(f64, f64)>,
    workers: Vec<(u64, u64, u64)>,
    /// Of each worker: part of the turns that carried packets, and mean batch.
    worker_rates: Vec<(f64, f64)>,
}

impl Rates {
    /// Takes the difference to the last call, `elapsed` ago.
    pub(crate) fn measure(&mut self, counters: &[Arc<WorkerCounters>], elapsed: Duration) {
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let interfaces = counters.first().map_or(0, |first| first.interfaces.len());
        let totals: Vec<(u64, u64)> = (0..interfaces)
            .map(|position| {
                (
                    sum(counters, position, |each| each.rx_packets.get()),
                    sum(counters, position, |each| each.tx_packets.get()),
                )
            })
            .collect();
        self.interfaces.resize(interfaces, (0, 0));
        self.interface_rates = totals
            .iter()
            .zip(&self.interfaces)
            .map(|(now, then)| {
                let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
                (rate(now.0, then.0), rate(now.1, then.1))
            })
            .collect();
        self.interfaces = totals;
        let totals: Vec<(u64, u64, u64)> = counters
            .iter()
            .map(|worker| {
                let packets = worker.interfaces.iter().map(|each| each.rx_packets.get()).sum();
                (worker.turns.get(), worker.busy_turns.get(), packets)
            })
            .collect();
        self.workers.resize(totals.len(), (0, 0, 0));
        self.worker_rates = totals
            .iter()
            .zip(&self.workers)
            .map(|(now, then)| {
                let turns = now.0.saturating_sub(then.0);
                let busy = now.1.saturating_sub(then.1);
                let packets = now.2.saturating_sub(then.2);
                let part = |part: u64, whole: u64| {
                    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
                };
                (part(busy, turns), part(packets, busy))
            })
            .collect();
        self.workers = totals;
    }

    /// Packets a second that all interfaces received.
    pub(crate) fn received_pps(&self) -> f64 {
        self.interface_rates.iter().map(|(received, _)| received).sum()
    }
}

fn sum(
    counters: &[Arc<WorkerCounters>],
    position: usize,
    value: impl Fn(&InterfaceCounters) -> u64,
) -> u64 {
    counters.iter().filter_map(|worker| worker.interfaces.get(position)).map(value).sum()
}

impl ControlLoop {
    /// Has `take` called with everything that `sluice status` shows. Routes and neighbors do not wait for a
    /// plugin that is being compiled: the plugins' thread completes the report when it gets to it.
    pub(crate) fn report_to(&self, take: impl FnOnce(StatusReport) + Send + 'static) {
        let mut report = self.report();
        self.plugins.tell_status(move |plugins| {
            let plugins = plugins.into_iter();
            report.plugins =
                plugins.filter_map(|status| serde_json::to_value(status).ok()).collect();
            take(report);
        });
    }

    /// The same without plugins.
    fn report(&self) -> StatusReport {
        let counts = self.publication.counts();
        StatusReport {
            router: RouterStatus {
                name: self.config.router.name.clone(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                uptime_s: self.start.elapsed().as_secs(),
                configuration_generation: self.generation,
                poll: match self.config.router.poll {
                    Poll::Busy => "busy".to_owned(),
                    Poll::Adaptive => "adaptive".to_owned(),
                },
                batch_frames: self.config.router.batch_frames.into(),
                rx_ring_entries: self.config.router.rx_ring_entries,
                tx_ring_entries: xdp::TX_RING_ENTRIES as u32,
                tsc_hz: self.tsc_hz,
            },
            interfaces: self.interfaces(),
            workers: self.workers(),
            classifier: self.classifier(),
            xdp: self.xdp_statistics(),
            sharing: self.sharing.counts.clone(),
            slices: self.sharing.slices.clone(),
            egress: self.sharing.egress.clone(),
            nodes: self.nodes(),
            neighbors: self.neighbor_rows(),
            routes: self.routes(&counts),
            punt: self.punted(),
            actions: self.actions(),
            plugins: Vec::new(),
            reloads: self.reloads.clone(),
            confirmation: self.confirmation(),
        }
    }

    fn actions(&self) -> Vec<ActionStatus> {
        let workers: Vec<&WorkerCounters> = self.counters.iter().map(|worker| &**worker).collect();
        action_totals(&self.publication.current(), &workers)
    }

    fn routes(&self, counts: &RibCounts) -> RouteCounts {
        let mirror = self.mirror.counts();
        let timing = self.publication.timing();
        let [fib4_bytes, fib6_bytes] = self.publication.fib_bytes();
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let reason = |(reason, prefixes): (&&str, &usize)| ReasonCount {
            reason: (*reason).to_owned(),
            prefixes: *prefixes as u64,
        };
        let source = |(source, [v4, v6]): (&&str, &[usize; 2])| SourceCount {
            source: (*source).to_owned(),
            v4: *v4 as u64,
            v6: *v6 as u64,
        };
        RouteCounts {
            v4: counts.v4 as u64,
            v6: counts.v6 as u64,
            unexpressible: counts.unexpressible as u64,
            unexpressible_by_reason: counts.unexpressible_by_reason.iter().map(reason).collect(),
            by_source: counts.by_source.iter().map(source).collect(),
            withdrawn: counts.withdrawn as u64,
            groups: counts.groups as u64,
            rib_bytes: counts.bytes as u64,
            fib4_bytes: fib4_bytes as u64,
            fib6_bytes: fib6_bytes as u64,
            mirror: MirrorStatus {
                overruns: mirror.overruns,
                resyncs: mirror.readings,
                malformed: mirror.malformed,
                route_changes: timing.route_changes,
                publications: timing.publications,
                last_delay_us: us(timing.last_delay),
                max_delay_us: us(timing.max_delay),
                last_build_us: us(timing.last_build),
            },
        }
    }

    fn interfaces(&self) -> Vec<InterfaceStatus> {
        let rows = self.config.interfaces.iter().zip(&self.datapath.interfaces);
        rows.zip((0..).map(InterfaceId))
            .map(|((interface, attached), id)| {
                let position = id.index();
                let total = |value: fn(&InterfaceCounters) -> &Counter| {
                    sum(&self.counters, position, |each| value(each).get())
                };
                let link = self.host.view().interfaces.get(position);
                let mut drops = BTreeMap::new();
                for reason in DropReason::ALL {
                    let dropped =
                        sum(&self.counters, position, |each| each.drops[reason.index()].get());
                    drops.insert(reason.label().to_owned(), dropped);
                }
                let rates = self.rates.interface_rates.get(position).copied().unwrap_or_default();
                InterfaceStatus {
                    name: interface.name.clone(),
                    role: role(interface.role).to_owned(),
                    link: self.host.link_state(id).label().to_owned(),
                    driver: attached.facts.driver.clone(),
                    xdp_mode: attached.xdp_mode.label().to_owned(),
                    bind_mode: attached.bind_mode.label().to_owned(),
                    queues: u32::try_from(attached.statistics.len()).unwrap_or(u32::MAX),
                    mtu: link.map_or(attached.facts.mtu, |link| u32::from(link.mtu)),
                    mac: link.map(|link| link.mac.to_string()).unwrap_or_default(),
                    rx_packets: total(|each| &each.rx_packets),
                    rx_bytes: total(|each| &each.rx_bytes),
                    tx_packets: total(|each| &each.tx_packets),
                    tx_bytes: total(|each| &each.tx_bytes),
                    originated: total(|each| &each.originated),
                    originated_lost: total(|each| &each.originated_lost),
                    originated_to_kernel: total(|each| &each.originated_to_kernel),
                    fragmented: total(|each| &each.fragmented),
                    fragments_created: total(|each| &each.fragments_created),
                    handed_over: total(|each| &each.handed_over),
                    icmp_limited: total(|each| &each.icmp_limited),
                    delivered: total(|each| &each.delivered),
                    to_owner: total(|each| &each.to_owner),
                    decapsulated: total(|each| &each.decapsulated),
                    forwarded: total(|each| &each.forwarded),
                    to_kernel: total(|each| &each.to_kernel),
                    consumed: total(|each| &each.consumed),
                    // What is on the rings between workers waits too.
                    held: total(|each| &each.held)
                        + total(|each| &each.handed_over)
                            .saturating_sub(total(|each| &each.taken_over)),
                    drops,
                    rx_rate_pps: rates.0,
                    tx_rate_pps: rates.1,
                }
            })
            .collect()
    }

    fn workers(&self) -> Vec<WorkerStatus> {
        let total = u64::from(self.config.router.frames_per_worker);
        let queues = u32::try_from(self.config.interfaces.len()).unwrap_or(u32::MAX);
        (0_u32..)
            .zip(&self.counters)
            .zip(&self.datapath.cores)
            .map(|((id, counters), core)| {
                let (busy_fraction, batch_mean) =
                    self.rates.worker_rates.get(id as usize).copied().unwrap_or_default();
                WorkerStatus {
                    id,
                    core: u32::try_from(*core).ok(),
                    queues,
                    turns: counters.turns.get(),
                    long_turns: counters
                        .long_turns
                        .counts()
                        .map(|(below_ns, turns)| LongTurns { below_ns, turns })
                        .collect(),
                    busy_fraction,
                    batch_mean,
                    frames: FrameCounts {
                        free: counters.frames_free.get(),
                        receiving: counters.frames_receiving.get(),
                        transmitting: counters.frames_transmitting.get(),
                        held: counters.frames_held.get()
                            + counters.frames_punting.get()
                            + counters.frames_away.get(),
                        total,
                    },
                    kicks: counters.kicks.get(),
                    busy_turns: counters.busy_turns.get(),
                    timed_turns: counters.stages.turns.get(),
                    timed_packets: counters.stages.packets.get(),
                    stages: Stage::ALL
                        .iter()
                        .zip(&counters.stages.clocks)
                        .map(|(stage, clocks)| StageClocks {
                            stage: stage.label().to_owned(),
                            clocks: clocks.get(),
                        })
                        .collect(),
                }
            })
            .collect()
    }

    fn classifier(&self) -> Vec<ClassifierCount> {
        let counts = match self.datapath.classifier.counters() {
            Ok(counts) => counts,
            Err(error) => {
                warn!(%error, "the classifier's counters cannot be read");
                return Vec::new();
            }
        };
        counts
            .into_iter()
            .filter_map(|count| {
                Some(ClassifierCount {
                    interface: self.config.interfaces.get(count.interface.index())?.name.clone(),
                    reason: count.reason.label().to_owned(),
                    packets: count.packets,
                })
            })
            .collect()
    }

    fn xdp_statistics(&self) -> Vec<XdpStatistics> {
        let mut rows = Vec::new();
        for attached in &self.datapath.interfaces {
            for (queue, reader) in (0_u32..).zip(&attached.statistics) {
                // None for a socket that is closed.
                let Ok(Some(statistics)) = reader.read() else { continue };
                rows.push(XdpStatistics {
                    interface: attached.facts.name.clone(),
                    queue,
                    rx_dropped: statistics.rx_dropped,
                    rx_invalid_descs: statistics.rx_invalid,
                    tx_invalid_descs: statistics.tx_invalid,
                    rx_ring_full: statistics.rx_ring_full,
                    rx_fill_ring_empty_descs: statistics.fill_empty,
                    tx_ring_empty_descs: statistics.tx_empty,
                });
            }
        }
        rows
    }

    fn nodes(&self) -> Vec<NodeStatus> {
        let snapshot = self.publication.current();
        self.config
            .nodes
            .iter()
            .enumerate()
            .map(|(position, node)| {
                let peer = snapshot.nodes.get(position).copied().flatten();
                let state = if Some(position) == self.config.local_node {
                    "self"
                } else {
                    match peer.and_then(|id| snapshot.peer(id)) {
                        None => "no tunnel",
                        Some(peer) => match snapshot.groups.copy(peer.route) {
                            Some(NextHopGroup::Adjacencies(members)) => {
                                let resolved = members.iter().any(|id| {
                                    snapshot.adjacency(*id).is_some_and(|adjacency| {
                                        adjacency.state == AdjacencyState::Resolved
                                    })
                                });
                                if resolved { "resolved" } else { "unresolved" }
                            }
                            Some(NextHopGroup::Glean { interface, .. }) => {
                                let adjacency = snapshot
                                    .neighbors
                                    .get(interface, peer.remote)
                                    .and_then(|id| snapshot.adjacency(id));
                                match adjacency.map(|adjacency| adjacency.state) {
                                    Some(state) => state.label(),
                                    None => "unresolved",
                                }
                            }
                            _ => "no route",
                        },
                    }
                };
                let address = node
                    .endpoints
                    .ipv4
                    .map(|address| address.to_string())
                    .or(node.endpoints.ipv6.map(|address| address.to_string()));
                NodeStatus {
                    name: node.name.clone(),
                    address: address.unwrap_or_default(),
                    next_hop_state: state.to_owned(),
                }
            })
            .collect()
    }

    fn neighbor_rows(&self) -> Vec<NeighborStatus> {
        let mut rows: Vec<NeighborStatus> = Vec::new();
        for (&(interface, address), known) in &self.host.view().neighbors {
            let kernel = self
                .host
                .ifindex(interface)
                .and_then(|ifindex| self.host.kernel().neighbors.get(&(ifindex, address)));
            rows.push(NeighborStatus {
                address: address.to_string(),
                interface: self
                    .config
                    .interfaces
                    .get(interface.index())
                    .map(|each| each.name.clone())
                    .unwrap_or_default(),
                mac: known.mac.map(|mac| mac.to_string()),
                state: kernel.map_or("unknown", |kernel| kernel.state.label()).to_owned(),
                managed: self.neighbors.contains(&(interface, address)),
            });
        }
        for fixed in &self.config.neighbors {
            rows.push(NeighborStatus {
                address: fixed.address.to_string(),
                interface: self.config.interfaces[fixed.interface.index()].name.clone(),
                mac: Some(fixed.mac.to_string()),
                state: "static".to_owned(),
                managed: false,
            });
        }
        rows.sort_by(|a, b| (&a.interface, &a.address).cmp(&(&b.interface, &b.address)));
        rows
    }

    fn punted(&self) -> PuntStatus {
        let counters = self.punt.counters();
        PuntStatus {
            written: counters.written.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
        }
    }
}
