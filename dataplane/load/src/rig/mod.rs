//! [`Rig`]: a tester with one interface to send by and one to receive by, like a hardware tester with
//! two ports.
//!
//! ```text
//!             workers (live or xsk)                        workers (xsk) or program (kernel)
//!   stream 0 ----+                                                +---- ledger
//!   stream 1 ----+--> send interface --> device --> sink interface +---- ledger
//!                                        under test
//!                this thread: links, seconds, signal
//! ```
//!
//! Terms. A *stream* is what one worker of the generator sends. Loss is what was sent less the
//! different packets that the sink took; no completion of a TX ring is asked.
//!
//! Both interfaces are in one network namespace, that of the calling thread. Sequences go on and the
//! key stays from one trial to the next; the sink forgets.

mod arrivals;
mod device;
mod plan;
mod sender;
mod sink;
mod trial;
mod window;
mod xsk_sender;
mod xsk_sink;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use xdp::host::{self, InterfaceFacts};

use device::Watch;
pub use plan::{Engine, RigPlan, SinkKind};
use sender::Sender;
use sink::Sink;

use crate::LoadError;
use crate::tag::TagKey;

/// An opened tester.
#[derive(Debug)]
pub struct Rig {
    plan: RigPlan,
    engine: Engine,
    is_veth: bool,
    key: TagKey,
    senders: Vec<Sender>,
    sink: Sink,
    watches: Vec<Watch>,
    stop: Arc<AtomicBool>,
    // The first socket of a UMEM is the UMEM itself.
    _umem: Option<xdp::Umem>,
}

impl Rig {
    /// Opens the generator's and the sink's interfaces as planned. Everything is undone when the rig
    /// is dropped.
    ///
    /// # Errors
    /// [`LoadError::Plan`] for what the plan lacks or contradicts; else what the kernel refused.
    pub fn open(plan: &RigPlan) -> Result<Self, LoadError> {
        let sending = device::facts(&plan.send_interface)?;
        let sinking = device::facts(&plan.sink_interface)?;
        check(plan, &sending)?;
        let engine = match plan.engine {
            Engine::Auto if sending.is_veth => Engine::Live,
            Engine::Auto => Engine::Xsk,
            engine => engine,
        };
        check_capabilities(engine, plan.sink)?;
        let send_queues =
            if plan.send_queues.is_empty() { vec![0] } else { plan.send_queues.clone() };
        let sink_queues = if plan.sink_queues.is_empty() {
            (0..sinking.rx_queues.unwrap_or(1)).collect()
        } else {
            plan.sink_queues.clone()
        };
        check_queues(plan, engine, &send_queues, &sink_queues)?;
        let mut watches = vec![Watch::new(&plan.send_interface, false)?];
        Watch::new(&plan.sink_interface, false)?;

        let key = TagKey::random();
        // The sink comes first: it makes an interface of a veth pair ready to take redirected packets.
        let sink = Sink::open(plan, &sinking, &sink_queues, send_queues.len(), &key)?;
        watches.push(Watch::new(&plan.sink_interface, plan.sink != SinkKind::None)?);
        let (senders, umem) = match engine {
            Engine::Live => {
                let workers = send_queues.len();
                (sender::open_live(&plan.send_interface, workers, &plan.source, &key)?, None)
            }
            Engine::Xsk | Engine::Auto => {
                let busy_poll = !sending.is_veth;
                let interface = &plan.send_interface;
                let (senders, umem) =
                    sender::open_xsk(interface, &send_queues, busy_poll, &plan.source, key)?;
                (senders, Some(umem))
            }
        };
        Ok(Self {
            plan: plan.clone(),
            engine,
            is_veth: sending.is_veth,
            key,
            senders,
            sink,
            watches,
            stop: Arc::default(),
            _umem: umem,
        })
    }

    /// What the generator sends by: never [`Engine::Auto`].
    #[must_use]
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Setting it ends the trial that runs, and keeps others from starting.
    #[must_use]
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// What the latency of a trial is, in words: packets that come back to where they left made a
    /// round trip, others went one way between two interfaces of this machine, which has one clock.
    #[must_use]
    pub fn latency_is(&self) -> &'static str {
        if self.plan.send_interface == self.plan.sink_interface { "round trip" } else { "one way" }
    }

    /// The traffic, engine and sink in words.
    #[must_use]
    pub fn text(&self) -> String {
        let workers = self.senders.len();
        format!(
            "{}; sent by {} ({workers} worker{}) on {}, counted by {} on {}; latency {}",
            self.plan.source.text(),
            self.engine,
            if workers == 1 { "" } else { "s" },
            self.plan.send_interface,
            self.plan.sink,
            self.plan.sink_interface,
            self.latency_is(),
        )
    }
}

fn check(plan: &RigPlan, sending: &InterfaceFacts) -> Result<(), LoadError> {
    let longest = plan.source.frame_bytes_max();
    let most = sending.mtu as usize + wire::ethernet::HEADER_LEN;
    if longest > most {
        return Err(LoadError::Plan(format!(
            "frames of {longest} bytes do not fit interface {}, whose MTU is {}: `ip link set dev {} \
             mtu {}`",
            sending.name,
            sending.mtu,
            sending.name,
            longest - wire::ethernet::HEADER_LEN,
        )));
    }
    if plan.source.positions() == 0 {
        return Err(LoadError::Plan("there is nothing to send".into()));
    }
    let known = core_affinity::get_core_ids().unwrap_or_default();
    match plan.cores.iter().find(|&&core| !known.iter().any(|known| known.id == core)) {
        Some(core) => Err(LoadError::Plan(format!(
            "there is no core {core} for this process: it may use {}",
            known.iter().map(|core| core.id.to_string()).collect::<Vec<_>>().join(", ")
        ))),
        None => Ok(()),
    }
}

fn check_capabilities(engine: Engine, sink: SinkKind) -> Result<(), LoadError> {
    let has = host::capabilities()?;
    let needs_bpf = engine == Engine::Live || sink != SinkKind::None;
    let needs_raw = engine != Engine::Live || sink == SinkKind::Xsk;
    let missing: Vec<&str> = [
        (!has.net_admin, "CAP_NET_ADMIN"),
        (needs_bpf && !has.bpf, "CAP_BPF"),
        (needs_raw && !has.net_raw, "CAP_NET_RAW"),
    ]
    .into_iter()
    .filter_map(|(is_missing, name)| is_missing.then_some(name))
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(LoadError::Plan(format!(
        "the tester lacks {}: run it as root, or under `setpriv --ambient-caps`",
        missing.join(", ")
    )))
}

fn check_queues(
    plan: &RigPlan,
    engine: Engine,
    send_queues: &[u32],
    sink_queues: &[u32],
) -> Result<(), LoadError> {
    let streams_max = usize::from(xdp::tester::STREAMS_MAX);
    if send_queues.len() > streams_max {
        return Err(LoadError::Plan(format!(
            "{} workers of the generator are too many: at most {streams_max}",
            send_queues.len()
        )));
    }
    let is_shared = engine == Engine::Xsk
        && plan.sink == SinkKind::Xsk
        && plan.send_interface == plan.sink_interface;
    match send_queues.iter().find(|queue| is_shared && sink_queues.contains(queue)) {
        Some(queue) => Err(LoadError::Plan(format!(
            "queue {queue} of {} cannot both send and receive: use --sink kernel, or other queues",
            plan.send_interface
        ))),
        None => Ok(()),
    }
}
