//! The packet path, set up: classifier, UMEM, sockets, workers.
//!
//! Order (see `xdp`): the classifier first, so that egress addresses fail closed from then on;
//! sockets; FILL rings; the classifier's socket map last, so that no packet meets an empty ring.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use config::{Checked, OnExit, Poll, TunnelKind, Workers};
use crossbeam::channel::Sender;
use forward::{
    Handoff, Neighbor, PuntSender, Sampler, TapReader, Worker, WorkerCounters, WorkerParts,
};
use frame::{Nanos, Pool};
use policy::WorkerChain;
use tables::Reader;
use wire::InterfaceId;
use xdp::host::{self, InterfaceFacts};
use xdp::{
    AttachSpec, AttachedMode, BindMode, Classifier, ClassifierRules, FILL_ENTRIES_PER_RX_ENTRY,
    StatisticsReader, Umem, UmemPlan, XskOptions, XskQueue,
};

use crate::run::bell::Bell;
use crate::run::host_state::HostState;
use crate::run::worker_thread::{self, RouterWorker, Surroundings};

/// An interface as it was set up.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) facts: InterfaceFacts,
    pub(crate) xdp_mode: AttachedMode,
    pub(crate) bind_mode: BindMode,
    /// One for each queue.
    pub(crate) statistics: Vec<StatisticsReader>,
}

/// Everything that moves packets, before it moves.
pub(crate) struct Datapath {
    pub(crate) classifier: Classifier,
    pub(crate) interfaces: Vec<Attached>,
    pub(crate) workers: Vec<RouterWorker>,
    pub(crate) cores: Vec<usize>,
    /// Kept as long as its sockets.
    _umem: Umem,
}

/// What a worker is given by the rest of the router.
pub(crate) struct WorkerInputs {
    pub(crate) hook: WorkerChain,
    pub(crate) reader: Reader,
    pub(crate) punt: PuntSender,
    /// `None` where there is only one worker.
    pub(crate) handoff: Option<Handoff>,
    pub(crate) taps: TapReader,
    pub(crate) sampler: Sampler,
}

/// What the classifier is to decide by.
pub(crate) fn rules(config: &Checked, host: &HostState) -> ClassifierRules {
    let local_node = config.local_node.and_then(|position| config.nodes.get(position));
    let mut tunnels: Vec<IpAddr> = Vec::new();
    if let Some(node) = local_node {
        tunnels.extend(node.endpoints.ipv4.map(IpAddr::V4));
        tunnels.extend(node.endpoints.ipv6.map(IpAddr::V6));
        let site = node.site.and_then(|site| config.sites.get(usize::from(site.0)));
        if let Some(site) = site {
            tunnels.extend(site.endpoints.ipv4.map(IpAddr::V4));
            tunnels.extend(site.endpoints.ipv6.map(IpAddr::V6));
        }
    }
    let kinds: Vec<TunnelKind> = config.tunnels().map(|tunnel| tunnel.kind).collect();
    let has_gue = kinds.contains(&TunnelKind::Gue);
    ClassifierRules {
        locals: host.locals().collect::<BTreeSet<_>>(),
        broadcasts: host.broadcasts().collect::<BTreeSet<_>>(),
        egress: config.egress.iter().map(|egress| egress.prefix).collect(),
        tunnels,
        tunnel_port: if has_gue { config.gue_port } else { 0 },
        gre: kinds.iter().any(|kind| matches!(kind, TunnelKind::Gre(_))),
        ipip: kinds.contains(&TunnelKind::Ipip),
        on_exit: match config.router.on_exit {
            OnExit::Drop => xdp::OnExit::Drop,
            OnExit::Kernel => xdp::OnExit::Kernel,
        },
    }
}

/// The core of each worker.
pub(crate) fn cores(config: &Checked, facts: &[InterfaceFacts]) -> Result<Vec<usize>> {
    let queues = facts.first().and_then(|first| first.rx_queues).unwrap_or(1);
    let cores: Vec<usize> = match &config.workers {
        Workers::Auto => {
            let available = core_affinity::get_core_ids().unwrap_or_default();
            let wanted = usize::try_from(queues)?;
            if available.len() < wanted {
                bail!(
                    "workers.cores: {wanted} queues want {wanted} cores, and this machine has {}; \
                     mend it with fewer queues (ethtool -L), or name cores",
                    available.len()
                );
            }
            available.iter().take(wanted).map(|core| core.id).collect()
        }
        Workers::Cores(cores) => cores.iter().map(|&core| usize::from(core)).collect(),
    };
    Ok(cores)
}

impl Datapath {
    /// Sets everything up. Packets arrive from the moment that this returns, and wait in the rings.
    pub(crate) fn set_up(
        config: &Checked,
        facts: Vec<InterfaceFacts>,
        rules: &ClassifierRules,
        cores: Vec<usize>,
        inputs: Vec<WorkerInputs>,
        wanted: &Sender<Neighbor>,
        counters: &[Arc<WorkerCounters>],
    ) -> Result<Self> {
        let specs: Vec<AttachSpec> = (0_u8..)
            .zip(&config.interfaces)
            .map(|(position, interface)| AttachSpec {
                name: interface.name.clone(),
                id: InterfaceId(position),
                mode: match interface.xdp {
                    config::XdpMode::Auto => xdp::XdpMode::Auto,
                    config::XdpMode::Native => xdp::XdpMode::Native,
                    config::XdpMode::Generic => xdp::XdpMode::Generic,
                },
            })
            .collect();
        let (mut classifier, modes) =
            Classifier::attach(&config.router.name, &config.router.bpffs, &specs, rules)?;
        let frames_per_worker = usize::try_from(config.router.frames_per_worker)?;
        let rx_ring_entries = usize::try_from(config.router.rx_ring_entries)?;
        let plan = UmemPlan { workers: cores.len(), frames_per_worker, rx_ring_entries };
        let (umem, pools) = Umem::new(plan)?;
        let mut attached: Vec<Attached> = facts
            .into_iter()
            .zip(modes)
            .map(|(facts, xdp_mode)| Attached {
                facts,
                xdp_mode,
                bind_mode: BindMode::Copy,
                statistics: Vec::new(),
            })
            .collect();
        let mut workers = Vec::new();
        for ((id, pool), (inputs, counters)) in
            (0_u16..).zip(pools).zip(inputs.into_iter().zip(counters))
        {
            let queues = bind_queues(config, &umem, id, &mut attached, frames_per_worker)?;
            workers.push(assemble(config, id, queues, pool, inputs, wanted, counters));
        }
        for (worker, queue_id) in workers.iter_mut().zip(0_u32..) {
            // A turn without packets fills the FILL rings.
            worker.turn(Nanos(0));
            // It goes on once its thread runs: what lies between is the start, and no turn.
            worker.rest();
            for (queue, position) in worker.queues().iter().zip(0_u8..) {
                classifier.set_socket(InterfaceId(position), queue_id, queue)?;
            }
        }
        Ok(Self { classifier, interfaces: attached, workers, cores, _umem: umem })
    }

    /// Starts the workers' threads. Adaptive ones sleep on their `bells` too.
    pub(crate) fn start(
        &mut self,
        poll: Poll,
        bells: Vec<Bell>,
        stop: &Arc<AtomicBool>,
        start: Instant,
    ) -> Result<Vec<JoinHandle<RouterWorker>>> {
        let workers = std::mem::take(&mut self.workers);
        (0_u16..)
            .zip(workers)
            .zip(&self.cores)
            .zip(bells)
            .map(|(((id, worker), &core), bell)| {
                let stop = Arc::clone(stop);
                worker_thread::spawn(worker, Surroundings { id, core, poll, bell, stop, start })
            })
            .collect()
    }

    /// Takes all sockets out of the classifier's map: what arrives from now on is dropped or goes to
    /// the kernel, by the rules.
    pub(crate) fn close(&mut self) {
        for (position, interface) in (0_u8..).zip(&self.interfaces) {
            for (queue_id, _) in (0_u32..).zip(&interface.statistics) {
                if let Err(error) = self.classifier.clear_socket(InterfaceId(position), queue_id) {
                    tracing::warn!(interface = interface.facts.name, queue_id, %error);
                }
            }
        }
    }
}

// `config` says what may stand in a file without knowing `xdp`.
const _: () = {
    assert!(config::Router::RX_RING_ENTRIES_MIN as usize == xdp::RX_RING_ENTRIES);
    assert!(config::Router::RX_RING_ENTRIES_MAX as usize == xdp::RX_RING_ENTRIES_MAX);
    assert!(tables::SliceTable::PREFIXES_MAX <= xdp::EGRESS_MAX);
    assert!(config::Router::FRAMES_PER_RX_ENTRY_MIN as usize == FILL_ENTRIES_PER_RX_ENTRY);
};

fn bind_queues(
    config: &Checked,
    umem: &Umem,
    worker: u16,
    attached: &mut [Attached],
    frames_per_worker: usize,
) -> Result<Vec<XskQueue>> {
    // Half of the chunks for receiving and a quarter in flight, whatever the number of interfaces,
    // leaves a quarter for what is held or on its way to the kernel.
    let interfaces = attached.len().max(1);
    let defaults = XskOptions::for_worker(worker);
    let mut queues = Vec::new();
    for ((position, interface), attached) in (0_u8..).zip(&config.interfaces).zip(attached) {
        let options = XskOptions {
            zero_copy: match interface.zero_copy {
                config::ZeroCopy::Auto => xdp::ZeroCopy::Auto,
                config::ZeroCopy::Force => xdp::ZeroCopy::Force,
                config::ZeroCopy::Off => xdp::ZeroCopy::Off,
            },
            busy_poll: config.router.poll == Poll::Busy,
            receiving_frames_max: (umem.rx_ring_entries() * FILL_ENTRIES_PER_RX_ENTRY)
                .min(frames_per_worker / 2 / interfaces)
                .max(1),
            quota_frames: defaults.quota_frames.min(frames_per_worker / 4 / interfaces).max(1),
            ..defaults
        };
        let (queue, mode) = XskQueue::bind(
            umem,
            InterfaceId(position),
            &interface.name,
            u32::from(worker),
            options,
        )?;
        attached.bind_mode = mode;
        attached.statistics.push(queue.statistics());
        queues.push(queue);
    }
    Ok(queues)
}

fn assemble(
    config: &Checked,
    id: u16,
    queues: Vec<XskQueue>,
    pool: Pool,
    inputs: WorkerInputs,
    wanted: &Sender<Neighbor>,
    counters: &Arc<WorkerCounters>,
) -> RouterWorker {
    let WorkerInputs { hook, reader, punt, handoff, taps, sampler } = inputs;
    let mut worker = Worker::new(WorkerParts {
        id,
        queues,
        pool,
        hook,
        reader,
        counters: Arc::clone(counters),
        punt: Some(punt),
        handoff,
        wanted: wanted.clone(),
        batch_frames: usize::from(config.router.batch_frames),
    });
    worker.set_taps(taps);
    worker.set_sampler(sampler);
    worker
}

/// What is known of each of the router's interfaces.
pub(crate) fn facts(config: &Checked) -> Result<Vec<InterfaceFacts>> {
    config
        .interfaces
        .iter()
        .enumerate()
        .map(|(position, interface)| {
            host::interface(&interface.name)
                .with_context(|| format!("interface[{position}].name: {}", interface.name))
        })
        .collect()
}
