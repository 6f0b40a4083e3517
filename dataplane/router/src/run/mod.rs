//! `sluice run`: set-up, and the control loop of a running router.
//!
//! ```text
//!  kernel mirror ---events---+                    +--> publication --> workers
//!  control socket --requests-+--> control loop ---+--> classifier's rules
//!  signals ------------------+        ^           +--> managed neighbors
//!  workers ---wanted neighbors--------+           +--> plugin thread, metrics
//! ```
//!
//! The loop is one thread, so that changes land one after the other. Workers never wait for it.

mod bell;
mod confirm;
mod control_loop;
mod datapath;
mod host_state;
mod neighbors;
mod plans;
mod plugin_thread;
mod prices;
mod privileges;
mod punt_thread;
mod reload;
mod report;
mod sharing;
mod source;
mod tables;
mod taps;
mod turns;
mod worker_thread;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use config::{Checked, Poll};
use control::kernel::{KernelEvent, KernelMirror, MirrorOptions};
use control::metrics::MetricsServer;
use control::publication::{Publication, RoutesAtStart};
use control::socket::ControlServer;
use crossbeam::channel::{Receiver, RecvTimeoutError, bounded, never, unbounded};
use forward::{
    Handoff, SampleRing, Sampler, TapBoard, Wake, WorkerCounters, handoff_mesh, punt_channel,
};
use policy::{HostOptions, PluginHost, WorkerChain};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::info;

use crate::{plugins, preflight};
use bell::Bell;
use control_loop::ControlLoop;
use datapath::{Datapath, WorkerInputs};
use host_state::HostState;
use plugin_thread::PluginThread;
use prices::ReceivedRate;
use punt_thread::PuntThread;
use source::Source;

pub(crate) use confirm::CONFIRM_S_MAX;
pub(crate) use datapath::{cores as core_list, facts as interface_facts};
pub(crate) use prices::RouterTraffic;

/// How long reading the kernel's tables may take at start: a full Internet table takes seconds.
const SYNCHRONIZE_WITHIN: Duration = Duration::from_secs(60);

/// Frames that may be on their way to the kernel, for each worker. More delay the kernel's share of
/// an overload without carrying more of it.
const PUNT_FRAMES_MAX: usize = 2048;

/// Frames that each worker may have with others. Fragments take the detour, and little else: more would
/// only let a flood of them take chunks from the rest.
const HANDOFF_FRAMES_MAX: usize = 1024;

/// Neighbors that workers may have asked for at a time.
const WANTED_MAX: usize = 1024;

/// Permissions of the control socket: its owner and group.
const SOCKET_MODE: u32 = 0o660;

/// Runs the router until it is told to stop.
pub(crate) fn run(file: &Path) -> Result<()> {
    let Source { config, text } = Source::at_start(file)?;
    preflight::require(&config)?;
    let start = Instant::now();
    let facts = datapath::facts(&config)?;
    let cores = datapath::cores(&config, &facts)?;

    let (mirror, events) = privileges::limited(|| start_mirror(&config))?;
    let workers = u32::try_from(cores.len())?;
    let bound = facts.iter().map(|facts| facts.index).collect();
    let (host, publication) = read_machine(&config, bound, workers, &events)?;
    let (server, requests) = privileges::limited(|| {
        Ok(ControlServer::bind(&config.router.control_socket, SOCKET_MODE)?)
    })?;
    // The server lives as long as this function; without one nobody scrapes.
    let (_metrics, scrapes) = privileges::limited(|| {
        Ok(config.router.metrics_listen.map(MetricsServer::start).transpose()?)
    })?
    .map_or_else(|| (None, never()), |(server, scrapes)| (Some(server), scrapes));
    let samples: Vec<_> = cores.iter().map(|_| Arc::new(SampleRing::default())).collect();
    let received = ReceivedRate::default();
    let tsc_hz = frame::tsc::hertz();
    let traffic = RouterTraffic {
        samples: samples.clone(),
        batch_frames: config.router.batch_frames.into(),
        rate: received.clone(),
        clocks_per_s: tsc_hz as f64,
    };
    let (plugin_host, chains) =
        privileges::limited(|| load_plugins(&config, &publication, cores.len(), traffic))?;

    let stop_punt = Arc::new(AtomicBool::new(false));
    let (send_ends, ends) = mpsc::channel();
    let largest_mtu = facts.iter().map(|facts| facts.mtu).max().unwrap_or(1500);
    let device = punt_thread::open(&config.router.punt_device, u16::try_from(largest_mtu)?)?;
    let punt = PuntThread::spawn(device, ends, Arc::clone(&stop_punt))?;

    let (bells, handoffs) = handoffs(cores.len(), config.router.poll)?;
    let mut inputs = Vec::new();
    let mut punt_ends = Vec::new();
    let taps = TapBoard::default();
    let ends = chains.into_iter().zip(handoffs).zip(&samples);
    for (id, ((hook, handoff), sample)) in (0_u16..).zip(ends) {
        let thread = punt.thread();
        let (sender, receiver) = punt_channel(PUNT_FRAMES_MAX, move || thread.unpark());
        punt_ends.push(receiver);
        inputs.push(WorkerInputs {
            hook,
            reader: publication.reader(),
            punt: sender,
            handoff,
            taps: taps.reader(id),
            sampler: Sampler::new(Arc::clone(sample)),
        });
    }
    let (want, wanted) = bounded(WANTED_MAX);
    let counters: Vec<Arc<WorkerCounters>> =
        cores.iter().map(|_| Arc::new(WorkerCounters::new(config.interfaces.len()))).collect();
    let rules = datapath::rules(&config, &host);
    let mut datapath = Datapath::set_up(&config, facts, &rules, cores, inputs, &want, &counters)?;
    report::print_start(&config, &datapath);

    let signals = privileges::limited(watch_signals)?;
    // Everything that wants privileges is open. Threads that start from here on inherit what is left.
    privileges::drop_to_control()?;
    if send_ends.send(punt_ends).is_err() {
        bail!("the punt thread has ended");
    }
    let plugin_thread = PluginThread::spawn(plugin_host)?;
    let stop = Arc::new(AtomicBool::new(false));
    let threads = datapath.start(config.router.poll, bells, &stop, start)?;
    // Without systemd there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    info!(name = config.router.name, workers, "running");

    let taps = taps::Taps::new(taps, counters.len(), start);
    let is_listening = config.kernel.neighbors;
    let mut control = ControlLoop {
        taps,
        file: file.to_path_buf(),
        sharing: sharing::Sharing::new(&config),
        config,
        host,
        publication,
        neighbors: neighbors::Kept::new(is_listening),
        mirror,
        datapath,
        plugins: plugin_thread,
        punt,
        counters,
        start,
        rates: report::Rates::default(),
        generation: 1,
        received,
        tsc_hz,
        reloads: control::status::ReloadStatus::default(),
        text,
        pending: None,
        samples,
        resumes: unbounded(),
        turns: turns::Turns::default(),
        is_signal_waiting: false,
        is_planning: false,
        warned: Vec::new(),
    };
    let outcome = control.run(&events, &requests, &signals, &wanted, &scrapes);

    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    control.datapath.close();
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        if thread.join().is_err() {
            bail!("a worker panicked; its last words are above");
        }
    }
    stop_punt.store(true, Ordering::Relaxed);
    control.punt.join();
    drop(server);
    outcome
}

/// The rings between workers, none for a single one, and what wakes each worker. One that polls has no
/// need to be woken.
fn handoffs(workers: usize, poll: Poll) -> Result<(Vec<Bell>, Vec<Option<Handoff>>)> {
    let bells: Vec<Bell> = (0..workers).map(|_| Bell::new()).collect::<Result<_>>()?;
    let wake = |bell: &Bell| -> Wake {
        let bell = bell.clone();
        match poll {
            Poll::Adaptive => Box::new(move || bell.ring()),
            Poll::Busy => Box::new(|| {}),
        }
    };
    let mesh = handoff_mesh(HANDOFF_FRAMES_MAX, bells.iter().map(wake).collect());
    let ends = mesh.into_iter().map(|end| (workers > 1).then_some(end)).collect();
    Ok((bells, ends))
}

fn load_plugins(
    config: &Checked,
    publication: &Publication,
    workers: usize,
    traffic: RouterTraffic,
) -> Result<(PluginHost, Vec<WorkerChain>)> {
    let mut options = HostOptions::new(workers);
    options.compiled_dir = Some(config.plugin_options.state_dir.join("compiled"));
    options.compiled_bytes_max = config.plugin_options.compiled_bytes_max.into();
    options.traps_dir = Some(config.plugin_options.state_dir.join("traps"));
    let (mut host, chains) = PluginHost::new(options)?;
    host.price_with(Box::new(traffic));
    let specs = plugins::specs(config, publication.names());
    let prepared = host.prepare_within(&specs, config.plugin_options.budget_cycles_per_packet)?;
    host.publish(prepared)?;
    // The first ones were compiled at the usual priority, as no worker runs yet.
    host.compile_in_background();
    Ok((host, chains))
}

fn start_mirror(config: &Checked) -> Result<(KernelMirror, Receiver<KernelEvent>)> {
    let options = MirrorOptions {
        tables: config.kernel.tables.clone(),
        routes: config.kernel.routes,
        neighbors: config.kernel.neighbors,
        interfaces: config.interfaces.iter().map(|interface| interface.name.clone()).collect(),
        ..MirrorOptions::default()
    };
    Ok(KernelMirror::start(options)?)
}

/// Waits until the kernel's tables were read once, and publishes them. Routes go into the publication as
/// they are told, so that a full table is nowhere twice.
fn read_machine(
    config: &Arc<Checked>,
    bound: Vec<u32>,
    workers: u32,
    events: &Receiver<KernelEvent>,
) -> Result<(HostState, Publication)> {
    let names = config.interfaces.iter().map(|interface| interface.name.clone()).collect();
    let mut host = HostState::new(names, bound);
    let mut routes = RoutesAtStart::new(Arc::clone(config), host.view(), workers)?;
    let deadline = Instant::now() + SYNCHRONIZE_WITHIN;
    while !host.is_synchronized() {
        match events.recv_deadline(deadline) {
            Ok(KernelEvent::Failed(error)) => bail!("{error}"),
            Ok(event) => {
                host.apply(&event);
                if let KernelEvent::Routes { changes, .. } = &event {
                    routes.kernel_routes(changes, host.view());
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                bail!("the kernel's tables were not read within {SYNCHRONIZE_WITHIN:?}")
            }
            Err(RecvTimeoutError::Disconnected) => bail!("the kernel mirror has ended"),
        }
    }
    let publication = routes.publication(host.view())?;
    Ok((host, publication))
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Reload,
    Stop,
}

fn watch_signals() -> Result<Receiver<Asked>> {
    let mut signals =
        Signals::new([SIGHUP, SIGINT, SIGTERM]).context("signals cannot be watched")?;
    let (sender, asked) = bounded(16);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            for signal in signals.forever() {
                let what = if signal == SIGHUP { Asked::Reload } else { Asked::Stop };
                if sender.send(what).is_err() {
                    return;
                }
            }
        })
        .context("the signal thread cannot be started")?;
    Ok(asked)
}
