//! A sink on AF_XDP sockets: one worker a queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use frame::{BATCH_MAX, Batch, Pool, QueueIo};
use wire::InterfaceId;
use xdp::tester::{RedirectSink, SinkLedger};
use xdp::{Umem, UmemPlan, XdpMode, XskOptions, XskQueue, XskStatistics};

use super::arrivals::Arrivals;
use super::sink::Arriving;
use super::window::{WINDOW_BITS, Window};
use crate::LoadError;
use crate::clock::now_ns;
use crate::tag::TagKey;

/// Chunks of a worker: as many as FILL and RX hold, and a batch at hand.
const FRAMES_PER_WORKER: usize =
    xdp::RX_RING_ENTRIES * xdp::FILL_ENTRIES_PER_RX_ENTRY + 2 * BATCH_MAX;

/// Sockets on the queues of one interface, and the program that gives them what arrives.
#[derive(Debug)]
pub(crate) struct XskSink {
    pub(crate) workers: Vec<SinkWorker>,
    windows: Vec<Window>,
    redirect: RedirectSink,
    // The first socket of a UMEM is the UMEM itself.
    _umem: Umem,
}

/// A worker on one queue.
#[derive(Debug)]
pub(crate) struct SinkWorker {
    queue: XskQueue,
    pool: Pool,
    batch: Batch,
    arriving: Arc<Arriving>,
}

/// What the kernel lost on the sink's sockets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overflows {
    /// RX was full: a worker was too slow.
    pub(crate) rx_ring_full: u64,
    /// No chunk was left, or the packet did not fit one.
    pub(crate) dropped: u64,
}

impl XskSink {
    /// Binds a socket to each of `queues` and attaches the program.
    pub(crate) fn open(
        interface: &str,
        queues: &[u32],
        streams: usize,
        busy_poll: bool,
    ) -> Result<Self, LoadError> {
        let plan = UmemPlan::new(queues.len(), FRAMES_PER_WORKER);
        let (umem, pools) = Umem::new(plan)?;
        let mut redirect = RedirectSink::attach(interface, XdpMode::Auto)?;
        let mut workers = Vec::with_capacity(queues.len());
        for ((&queue_id, mut pool), number) in queues.iter().zip(pools).zip(0..) {
            let options = XskOptions { busy_poll, ..XskOptions::for_worker(number) };
            let (mut queue, mode) =
                XskQueue::bind(&umem, InterfaceId(0), interface, queue_id, options)?;
            tracing::debug!(interface, queue_id, %mode, "bound a socket of the sink");
            queue.refill(&mut pool);
            queue.flush();
            redirect.set_socket(&queue)?;
            workers.push(SinkWorker { queue, pool, batch: Batch::new(), arriving: Arc::default() });
        }
        let windows = (0..streams).map(|_| Window::new(WINDOW_BITS)).collect();
        Ok(Self { workers, windows, redirect, _umem: umem })
    }

    /// Forgets the last run.
    pub(crate) fn reset(&mut self) {
        for window in &self.windows {
            window.clear();
        }
        for worker in &mut self.workers {
            worker.arriving.unique.store(0, Ordering::Relaxed);
            worker.arriving.foreign.store(0, Ordering::Relaxed);
            worker.arriving.latency_max_ns.store(0, Ordering::Relaxed);
            while worker.turn(|_| ()) > 0 {}
        }
    }

    /// The workers, each to be run by a thread of its own, and the windows that they share.
    pub(crate) fn split(&mut self) -> (&mut [SinkWorker], &[Window]) {
        (&mut self.workers, &self.windows)
    }

    /// Readers of what was counted so far.
    pub(super) fn counters(&self) -> Vec<Arc<Arriving>> {
        self.workers.iter().map(|worker| Arc::clone(&worker.arriving)).collect()
    }

    /// Packets that went to the kernel since the sink was opened.
    pub(crate) fn passed(&self) -> Result<u64, LoadError> {
        Ok(self.redirect.passed()?)
    }

    /// What the kernel lost since the sink was opened.
    pub(crate) fn overflows(&self) -> Result<Overflows, LoadError> {
        let mut sum = Overflows::default();
        for worker in &self.workers {
            let statistics = worker
                .queue
                .statistics()
                .read()
                .map_err(|source| LoadError::host("getsockopt(XDP_STATISTICS)", source))?;
            let XskStatistics { rx_ring_full, rx_dropped, .. } = statistics.unwrap_or_default();
            sum.rx_ring_full += rx_ring_full;
            sum.dropped += rx_dropped + worker.queue.status().rx_invalid;
        }
        Ok(sum)
    }
}

impl SinkWorker {
    /// Counts what arrives until `stop` is set.
    pub(crate) fn run(
        &mut self,
        key: TagKey,
        windows: &[Window],
        start_ns: u64,
        stop: &AtomicBool,
    ) -> SinkLedger {
        let mut arrivals = Arrivals::new(key, windows, start_ns);
        while !stop.load(Ordering::Relaxed) {
            let received = self.turn(|packet| arrivals.count(packet, now_ns()));
            if received == 0 {
                // Whoever shares this core may run; alone on it, this costs a system call.
                std::thread::yield_now();
                continue;
            }
            self.arriving.unique.store(arrivals.unique(), Ordering::Relaxed);
            self.arriving.foreign.store(arrivals.foreign(), Ordering::Relaxed);
            self.arriving.latency_max_ns.store(arrivals.latency_max_ns(), Ordering::Relaxed);
        }
        arrivals.into_ledger()
    }

    /// Receives once. Returns how many packets came.
    fn turn(&mut self, mut count: impl FnMut(&[u8])) -> usize {
        self.queue.receive(&mut self.batch, &mut self.pool, BATCH_MAX);
        let received = self.batch.len();
        for frame in self.batch.frames.drain(..) {
            count(frame.bytes());
            self.pool.give(frame);
        }
        self.queue.refill(&mut self.pool);
        self.queue.flush();
        received
    }
}
