//! The sink, whoever counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use xdp::host::InterfaceFacts;
use xdp::tester::{KernelSink, SinkLedger, SinkOptions};

use super::plan::{RigPlan, SinkKind};
use super::window::WINDOW_BITS;
use super::xsk_sink::{Overflows, XskSink};
use crate::LoadError;
use crate::tag::TagKey;

/// Who counts what arrives.
#[derive(Debug)]
pub(super) enum Sink {
    Kernel(KernelSink),
    Xsk(Box<XskSink>),
    None,
}

/// What a sink had counted at some moment, so that a trial can tell its own part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    pub(super) passed: u64,
    pub(super) overflows: Overflows,
}

/// Reads what arrived so far.
pub(super) enum Arrived<'rig> {
    Kernel(&'rig KernelSink),
    Xsk(Vec<Arc<Arriving>>),
    None,
}

/// What a thread of a sink tells of its run while it goes on.
#[derive(Debug, Default)]
pub(super) struct Arriving {
    /// Different packets.
    pub(super) unique: AtomicU64,
    /// Packets without a tag.
    pub(super) foreign: AtomicU64,
    /// The longest latency.
    pub(super) latency_max_ns: AtomicU64,
}

impl Sink {
    pub(super) fn open(
        plan: &RigPlan,
        facts: &InterfaceFacts,
        queues: &[u32],
        streams: usize,
        key: &TagKey,
    ) -> Result<Self, LoadError> {
        let interface = &plan.sink_interface;
        Ok(match plan.sink {
            SinkKind::Kernel => {
                let streams = u8::try_from(streams).unwrap_or(u8::MAX);
                let options = SinkOptions {
                    window_bits: WINDOW_BITS,
                    ..SinkOptions::new(key.words(), streams)
                };
                Self::Kernel(KernelSink::attach(interface, &options)?)
            }
            SinkKind::Xsk => {
                let busy_poll = !facts.is_veth;
                Self::Xsk(Box::new(XskSink::open(interface, queues, streams, busy_poll)?))
            }
            SinkKind::None => Self::None,
        })
    }

    /// Forgets the last run, for one that starts at `start_ns`.
    pub(super) fn reset(&mut self, start_ns: u64) -> Result<Before, LoadError> {
        match self {
            Self::Kernel(sink) => {
                sink.reset(start_ns);
                Ok(Before::default())
            }
            Self::Xsk(sink) => {
                sink.reset();
                Ok(Before { passed: sink.passed()?, overflows: sink.overflows()? })
            }
            Self::None => Ok(Before::default()),
        }
    }

    /// What the trial after `before` ended with: the workers' ledger completed by what they cannot
    /// see, and why the sink itself lost packets.
    pub(super) fn finish(
        &self,
        before: Before,
        workers: SinkLedger,
    ) -> Result<(SinkLedger, Vec<String>), LoadError> {
        let mut void = Vec::new();
        let ledger = match self {
            Self::Kernel(sink) => sink.read(),
            Self::Xsk(sink) => {
                let overflows = sink.overflows()?;
                let full = overflows.rx_ring_full - before.overflows.rx_ring_full;
                let dropped = overflows.dropped - before.overflows.dropped;
                if full > 0 {
                    void.push(format!(
                        "the sink's RX rings were full {full} times: its workers are too slow for \
                         this rate"
                    ));
                }
                if dropped > 0 {
                    void.push(format!("the sink's sockets dropped {dropped} packets"));
                }
                let foreign = workers.foreign + sink.passed()?.saturating_sub(before.passed);
                SinkLedger { foreign, ..workers }
            }
            Self::None => {
                void.push("there was no sink: what arrived was not counted".into());
                workers
            }
        };
        let unjudged: u64 = ledger.streams.iter().map(|stream| stream.unjudged).sum();
        if unjudged > 0 {
            void.push(format!(
                "{unjudged} packets came so late that duplicates cannot be told from them"
            ));
        }
        Ok((ledger, void))
    }
}

impl Arrived<'_> {
    /// Different packets of the run, and packets without a tag.
    pub(super) fn now(&self) -> (u64, u64) {
        match self {
            Self::Kernel(sink) => {
                let totals = sink.totals();
                (totals.unique, totals.foreign)
            }
            Self::Xsk(threads) => threads.iter().fold((0, 0), |sum, thread| {
                let unique = thread.unique.load(Ordering::Relaxed);
                (sum.0 + unique, sum.1 + thread.foreign.load(Ordering::Relaxed))
            }),
            Self::None => (0, 0),
        }
    }

    /// Whether nobody looks.
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }

    /// The longest that a packet of the run took; none if none arrived.
    pub(super) fn latency_max(&self) -> Option<Duration> {
        let longest_ns = match self {
            Self::Kernel(sink) => sink.latency_max_ns(),
            Self::Xsk(threads) => {
                let of = |thread: &Arc<Arriving>| thread.latency_max_ns.load(Ordering::Relaxed);
                threads.iter().map(of).max().unwrap_or(0)
            }
            Self::None => 0,
        };
        (longest_ns > 0).then(|| Duration::from_nanos(longest_ns))
    }
}
