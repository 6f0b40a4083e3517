//! A worker's thread: turns until it is told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use config::Poll;
use core_affinity::CoreId;
use forward::Worker;
use frame::Nanos;
use policy::WorkerChain;
use tracing::{info, warn};
use xdp::{Sleeper, XskQueue};

use crate::run::bell::Bell;
use crate::run::privileges;

/// Empty turns after which an adaptive worker goes to sleep. Fewer put it to sleep between the
/// packets of a burst, and each waking costs microseconds; more burn the time of an idle machine.
const IDLE_TURNS: u32 = 64;

/// How long an adaptive worker sleeps at most: the bound on how late it sees a new snapshot or a
/// held packet's time. Ten wakings a second cost nothing that shows.
const SLEEP_MS: u16 = 100;

/// While something waits for its neighbor, or is on its way out.
const SLEEP_BUSY_MS: u16 = 1;

/// Priority of a worker that polls without end: the core is meant to be its own. Whatever runs there
/// all the same would else take it away for milliseconds, in which thousands of packets are lost.
const BUSY_NICE: i32 = -20;

/// How long a worker that is to stop goes on while frames still leave.
const DRAIN: Duration = Duration::from_millis(500);

/// How long nothing must arrive before a worker that is to stop stops.
const DRAIN_QUIET: Duration = Duration::from_millis(20);

pub(crate) type RouterWorker = Worker<XskQueue, WorkerChain>;

/// What a worker's thread needs beside the worker.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) id: u16,
    pub(crate) core: usize,
    pub(crate) poll: Poll,
    /// Rung by other workers that handed over frames.
    pub(crate) bell: Bell,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) start: Instant,
}

/// Starts the thread of a worker.
pub(crate) fn spawn(
    worker: RouterWorker,
    surroundings: Surroundings,
) -> Result<std::thread::JoinHandle<RouterWorker>> {
    let id = surroundings.id;
    std::thread::Builder::new()
        .name(format!("worker-{id}"))
        .spawn(move || run(worker, &surroundings))
        .with_context(|| format!("worker {id}: its thread cannot be started"))
}

fn run(mut worker: RouterWorker, surroundings: &Surroundings) -> RouterWorker {
    let Surroundings { id, core, poll, ref bell, ref stop, start } = *surroundings;
    if !core_affinity::set_for_current(CoreId { id: core }) {
        warn!(worker = id, core, "cannot be pinned to its core: another may share its time");
    }
    // A thread's priority is its own on Linux, and asked for by the number of the calling one.
    if poll == Poll::Busy
        && let Err(error) = rustix::process::setpriority_process(None, BUSY_NICE)
    {
        info!(worker = id, %error, "runs at the usual priority");
    }
    if let Err(error) = privileges::drop_all() {
        warn!(worker = id, %error, "keeps privileges that it does not need");
    }
    let now = || Nanos(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    match poll {
        Poll::Busy => {
            while !stop.load(Ordering::Relaxed) {
                worker.turn(now());
            }
        }
        Poll::Adaptive => turn_and_sleep(&mut worker, bell, stop, &now),
    }
    drain(&mut worker, &now);
    info!(worker = id, "stopped");
    worker
}

fn turn_and_sleep(
    worker: &mut RouterWorker,
    bell: &Bell,
    stop: &AtomicBool,
    now: &impl Fn() -> Nanos,
) {
    let mut sleeper = Sleeper::new(worker.queues());
    sleeper.add(bell);
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        if worker.turn(now()) > 0 {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle < IDLE_TURNS {
            continue;
        }
        worker.rest();
        let timeout_ms = if worker.frames_leaving() > 0 { SLEEP_BUSY_MS } else { SLEEP_MS };
        if sleeper.sleep(timeout_ms).is_err() {
            // A queue whose interface is gone cannot be slept on.
            std::thread::sleep(Duration::from_millis(u64::from(SLEEP_BUSY_MS)));
        }
        bell.silence();
        // After a waking the rings are looked at once before the next sleep.
        idle = IDLE_TURNS - 1;
    }
}

/// The sockets are out of the classifier's map by now: what is on the rings is the last.
fn drain(worker: &mut RouterWorker, now: &impl Fn() -> Nanos) {
    let begin = Instant::now();
    let mut last = begin;
    while begin.elapsed() < DRAIN {
        if worker.turn(now()) > 0 {
            last = Instant::now();
        } else if last.elapsed() > DRAIN_QUIET && worker.frames_leaving() == 0 {
            break;
        }
    }
    worker.rest();
}
