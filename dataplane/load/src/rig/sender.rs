//! A worker of the generator, whatever it sends by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use wire::InterfaceId;
use xdp::tester::{LiveSender, SendPlan, SendReport, SentCounter};
use xdp::{Umem, UmemPlan, XskOptions, XskQueue};

use super::xsk_sender::XskSender;
use crate::tag::TagKey;
use crate::{LoadError, Source};

/// A worker of the generator.
#[derive(Debug)]
pub(crate) enum Sender {
    /// Packets made in the kernel.
    Live(LiveSender),
    /// Packets made here, sent by a socket.
    Xsk(Box<XskSender>),
}

/// Reads how many packets a worker has sent since it was opened.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    Live(SentCounter),
    Xsk(Arc<AtomicU64>),
}

impl Progress {
    pub(crate) fn sent(&self) -> u64 {
        match self {
            Self::Live(counter) => counter.sent(),
            Self::Xsk(counter) => counter.load(Ordering::Relaxed),
        }
    }
}

impl Sender {
    pub(crate) fn progress(&self) -> Progress {
        match self {
            Self::Live(sender) => Progress::Live(sender.sent_counter()),
            Self::Xsk(sender) => Progress::Xsk(Arc::clone(&sender.sent)),
        }
    }

    /// Sends as planned until the plan ends or `stop` is set.
    pub(crate) fn send(
        &mut self,
        plan: SendPlan,
        stop: &AtomicBool,
    ) -> Result<SendReport, LoadError> {
        match self {
            Self::Live(sender) => Ok(sender.send(plan, stop)?),
            Self::Xsk(sender) => sender.send(plan, stop),
        }
    }
}

/// Opens workers that send in the kernel. Each starts at another place of the order.
pub(crate) fn open_live(
    interface: &str,
    workers: usize,
    source: &Source,
    key: &TagKey,
) -> Result<Vec<Sender>, LoadError> {
    let Source::Profile(traffic) = source else {
        return Err(LoadError::Plan(
            "a capture can be replayed by sockets only: --engine xsk".into(),
        ));
    };
    (0..workers)
        .zip(0..)
        .map(|(number, stream)| {
            let mut order = traffic.order.clone();
            let places = order.len();
            order.rotate_left(places * number / workers);
            let sender = LiveSender::open(interface, key.words(), &traffic.images, &order, stream)?;
            Ok(Sender::Live(sender))
        })
        .collect()
}

/// Opens a worker on each of the queues. The UMEM is to be kept as long as they are.
pub(crate) fn open_xsk(
    interface: &str,
    queues: &[u32],
    busy_poll: bool,
    source: &Arc<Source>,
    key: TagKey,
) -> Result<(Vec<Sender>, Umem), LoadError> {
    // Nothing is received: what a queue has in flight on TX is all that it needs.
    let plan = UmemPlan::new(queues.len(), xdp::TX_RING_ENTRIES + frame::BATCH_MAX);
    let (umem, pools) = Umem::new(plan)?;
    let positions = source.positions();
    let mut senders = Vec::with_capacity(queues.len());
    for ((&queue_id, pool), stream) in queues.iter().zip(pools).zip(0_u8..) {
        let options = XskOptions { busy_poll, ..XskOptions::for_worker(stream.into()) };
        let (queue, mode) = XskQueue::bind(&umem, InterfaceId(0), interface, queue_id, options)?;
        tracing::debug!(interface, queue_id, %mode, "bound a socket of the generator");
        senders.push(Sender::Xsk(Box::new(XskSender {
            interface: interface.into(),
            queue,
            pool,
            source: Arc::clone(source),
            position: positions * usize::from(stream) / queues.len(),
            key,
            stream,
            sequence: 0,
            sent: Arc::default(),
        })));
    }
    Ok((senders, umem))
}
