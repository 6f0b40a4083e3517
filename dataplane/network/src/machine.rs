//! [`Machine`]: one whole router on memory. Everything is the code of a running one, from the text of a
//! configuration to the snapshots that workers read; only the rings and the kernel are not.
//!
//! ```text
//!  Checked ----> Publication ----> snapshot --+
//!  HostView ---/                              v
//!  push_rx ----> MemoryQueue ----> Worker (one or several) ----> MemoryQueue ----> take_sent
//!                                     |   |
//!                                     |   +--> punts: packets for the kernel
//!                                     +------> wanted: neighbors that the kernel is to resolve
//! ```
//!
//! Whoever holds a machine plays the network, the kernel and the clock. All workers take their turns on
//! the holder's thread. The classifier is absent: what it would leave to the kernel reaches the workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use config::{Action, Checked, ConfigErrors};
use control::publication::{
    ActionNames, Changes, HostView, InterfaceView, NextHopView, Publication, PublicationError,
    RouteView,
};
use crossbeam::channel::{Receiver, bounded};
use forward::{
    Neighbor, PuntReceiver, Wake, Worker, WorkerCounters, WorkerParts, handoff_mesh, punt_channel,
};
use frame::{Nanos, Pool};
use policy::{HostOptions, PluginHost, PluginSpec, PolicyError, WorkerChain};
use sim::{Faults, MemoryQueue, QueueSizes, memory_pool, reclaim_pool};
use wire::InterfaceId;

/// Frames that may be on their way to the kernel, for each worker.
const PUNT_FRAMES_MAX: usize = 1024;

/// Requests for neighbors that may wait.
const WANTED_MAX: usize = 1024;

/// A worker of a [`Machine`].
pub type MemoryWorker = Worker<MemoryQueue, WorkerChain>;

/// What a machine is made of, beside its configuration.
#[derive(Clone, Debug)]
pub struct MachineOptions {
    /// Number of workers, at least 1.
    pub workers: u16,
    /// Chunks of each worker.
    pub frames_per_worker: usize,
    /// Frames that each worker may have with others.
    pub handoff_frames_max: usize,
    /// The rings of every queue.
    pub sizes: QueueSizes,
    /// What goes wrong on every queue; the seed is changed for each.
    pub faults: Faults,
    /// From the configuration's plugins to the policy host's.
    pub plugins: fn(&Checked, &ActionNames) -> Vec<PluginSpec>,
}

/// Why a machine cannot be made, or does not take a configuration.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The tables cannot be built.
    #[error(transparent)]
    Publication(#[from] PublicationError),
    /// A plugin is refused.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Only a restart could do that.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
}

/// One whole router on memory. The module has the figure.
pub struct Machine {
    /// What is in force.
    pub config: Arc<Checked>,
    /// The machine around the router, which the holder may change; see [`Self::host_changed`].
    pub host: HostView,
    /// Makes snapshots.
    pub publication: Publication,
    /// The policy host.
    pub plugins: PluginHost,
    /// The workers, by number.
    pub workers: Vec<MemoryWorker>,
    /// The kernel's end of each worker's way to it.
    pub punts: Vec<PuntReceiver>,
    /// Neighbors that workers ask for.
    pub wanted: Receiver<Neighbor>,
    specs: fn(&Checked, &ActionNames) -> Vec<PluginSpec>,
    /// Set by the others when a worker was given something.
    rung: Vec<Arc<AtomicBool>>,
}

impl Machine {
    /// A machine with `host` around it.
    ///
    /// # Errors
    /// [`MachineError`] when tables or plugins cannot be put into force.
    pub fn new(
        config: Checked,
        host: HostView,
        options: &MachineOptions,
    ) -> Result<Self, MachineError> {
        let config = Arc::new(config);
        let workers = options.workers.max(1);
        let publication = Publication::new(Arc::clone(&config), &host, u32::from(workers))?;
        let (mut plugins, chains) = PluginHost::new(HostOptions {
            // A replay gives the same twice.
            seed: Some(0),
            ..HostOptions::new(usize::from(workers))
        })?;
        let prepared = plugins.prepare(&(options.plugins)(&config, publication.names()))?;
        plugins.publish(prepared)?;
        let interfaces = config.interfaces.len();
        let (want, wanted) = bounded(WANTED_MAX);
        let rung: Vec<_> = (0..workers).map(|_| Arc::new(AtomicBool::new(false))).collect();
        let wakes = rung.iter().map(|flag| {
            let flag = Arc::clone(flag);
            Box::new(move || flag.store(true, Ordering::Relaxed)) as Wake
        });
        let handoffs = handoff_mesh(options.handoff_frames_max, wakes.collect());
        let mut machine = Self {
            config,
            host,
            publication,
            plugins,
            workers: Vec::new(),
            punts: Vec::new(),
            wanted,
            specs: options.plugins,
            rung,
        };
        for ((id, hook), handoff) in (0_u16..).zip(chains).zip(handoffs) {
            let (punt, receiver) = punt_channel(PUNT_FRAMES_MAX, || {});
            machine.punts.push(receiver);
            let queue = |position: u8| {
                let seed = options.faults.seed ^ u64::from(id) << 8 ^ u64::from(position);
                let faults = Faults { seed, ..options.faults };
                MemoryQueue::with(InterfaceId(position), options.sizes, faults)
            };
            machine.workers.push(Worker::new(WorkerParts {
                id,
                queues: (0_u8..).take(interfaces).map(queue).collect(),
                pool: memory_pool(options.frames_per_worker, id),
                hook,
                reader: machine.publication.reader(),
                counters: Arc::new(WorkerCounters::new(interfaces)),
                punt: Some(punt),
                handoff: (workers > 1).then_some(handoff),
                wanted: want.clone(),
                batch_frames: usize::from(machine.config.router.batch_frames),
            }));
        }
        Ok(machine)
    }

    /// A packet comes from the network, to one worker's queue. Returns whether it reached the ring.
    pub fn push_rx(&mut self, worker: usize, interface: InterfaceId, packet: &[u8]) -> bool {
        self.workers
            .get_mut(worker)
            .and_then(|worker| worker.queues_mut().get_mut(interface.index()))
            .is_some_and(|queue| queue.push_rx(packet))
    }

    /// Takes the next packet that a worker sent by an interface.
    pub fn take_sent(&mut self, worker: usize, interface: InterfaceId) -> Option<Vec<u8>> {
        self.workers.get_mut(worker)?.queues_mut().get_mut(interface.index())?.take_tx()
    }

    /// Takes the next packet that a worker gave to the kernel, an IP packet without a link layer.
    pub fn take_punted(&mut self, worker: usize) -> Option<Vec<u8>> {
        let punt = self.punts.get(worker)?;
        let frame = punt.receive()?;
        let bytes = frame.bytes().to_vec();
        punt.give_back(frame);
        Some(bytes)
    }

    /// Whether others gave something to this worker since this was asked last.
    #[must_use]
    pub fn is_rung(&self, worker: usize) -> bool {
        self.rung.get(worker).is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
    }

    /// Puts a configuration into force, whole or not at all, in the order in which a running router
    /// does. Returns the steps that it took.
    ///
    /// # Errors
    /// [`MachineError`], and then what was in force stays.
    pub fn reload(&mut self, config: Checked) -> Result<Vec<Action>, MachineError> {
        let config = Arc::new(config);
        let actions = config::diff(&self.config, &config)?;
        let tables = self.publication.prepare(Arc::clone(&config), &self.host)?;
        let is_of_plugins =
            |action: &Action| matches!(action, Action::Plugins(_) | Action::Actions);
        if actions.iter().any(is_of_plugins) {
            let prepared = self.plugins.prepare(&(self.specs)(&config, tables.names()))?;
            self.plugins.publish(prepared)?;
        }
        self.publication.config_changed(tables, &self.host);
        self.config = config;
        Ok(actions)
    }

    /// Publishes what the holder changed in [`Self::host`].
    ///
    /// # Errors
    /// [`MachineError`], and then what was in force stays.
    pub fn host_changed(&mut self, changes: Changes) -> Result<(), MachineError> {
        Ok(self.publication.host_changed(&self.host, changes)?)
    }

    /// What control threads do every second: free what no worker uses.
    pub fn tidy(&mut self) {
        self.publication.collect();
        self.plugins.maintain();
    }

    /// Says what is wrong between two turns: a chunk that is nowhere, or a packet without an end.
    ///
    /// # Errors
    /// The first thing that is wrong, in words.
    pub fn check(&self) -> Result<(), String> {
        for (id, worker) in self.workers.iter().enumerate() {
            let missing = worker.frames_missing();
            if missing != 0 {
                return Err(format!("{missing} chunks of worker {id} are missing"));
            }
            for (position, interface) in worker.counters().interfaces.iter().enumerate() {
                let imbalance = interface.imbalance();
                if imbalance != 0 {
                    return Err(format!(
                        "the accounting of interface {position} at worker {id} is off by \
                         {imbalance} packets"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Takes the machine apart, so that its chunks serve the next one.
    pub fn dismantle(self) {
        for punt in &self.punts {
            while let Some(frame) = punt.receive() {
                punt.give_back(frame);
            }
        }
        for worker in self.workers {
            let (queues, pool): (_, Pool) = worker.into_parts();
            drop(queues);
            reclaim_pool(pool);
        }
    }

    /// One turn of one worker. Returns how many frames came.
    pub fn turn(&mut self, worker: usize, now: Nanos) -> usize {
        self.workers.get_mut(worker).map_or(0, |worker| worker.turn(now))
    }
}

/// The machine as the configuration's `[interface.replay]` tables describe it.
#[must_use]
pub fn host_view(config: &Checked) -> HostView {
    let mut host = HostView::default();
    for interface in &config.interfaces {
        let replay = &interface.replay;
        host.locals.extend(replay.addresses.iter().map(|net| net.addr()));
        host.interfaces.push(InterfaceView {
            mac: replay.mac,
            mtu: replay.mtu,
            addresses: replay.addresses.clone(),
        });
    }
    for (position, interface) in (0_u8..).zip(&host.interfaces) {
        for net in &interface.addresses {
            host.routes.insert(
                net.trunc(),
                Arc::new(RouteView::NextHops(vec![NextHopView {
                    interface: InterfaceId(position),
                    via: None,
                    weight: 1,
                    mtu: 0,
                }])),
            );
        }
    }
    host
}
