//! [`LiveSender`]: packets made and sent in the kernel, by an XDP program that runs over frames of its
//! own (`BPF_PROG_TEST_RUN` with `BPF_F_TEST_XDP_LIVE_FRAMES`, since Linux 5.18).
//!
//! ```text
//!   this thread -- BPF_PROG_TEST_RUN --> program over each frame: not due? drop and try again
//!    ^   |                                  | due: image, tag, checksum
//!    |   | plan                             v
//!    |   +--> state (mapped) <--------- redirect --> ndo_xdp_xmit of the interface
//!    +------------ counters
//! ```
//!
//! On a veth pair the kernel's receive side of the peer, XDP program and stack included, then runs in
//! a softirq on the core of this thread, unless the peer polls in a thread of its own.

use std::{
    fmt, io,
    os::fd::{AsFd, AsRawFd},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aya::{Ebpf, EbpfLoader, maps::xdp::DevMap};
use libxdp_sys as sys;
use nix::time::{ClockId, clock_gettime};

use super::{
    IMAGE_BYTES, Image, Interval, SendPlan, SendReport, TesterError,
    anchor::Anchor,
    checks::{check_mtu, check_redirect_target, check_traffic},
    counters::TransmitCounters,
    mapping::Mapping,
    program,
};
use crate::{error::chain, host};

/// The compiled program, and its name.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/inject.o"));
const PROGRAM: &str = "tester_inject";

/// The most images that a sender takes: 128 MiB of kernel memory. inject.c repeats it.
pub const IMAGES_MAX: usize = 1 << 20;

/// The longest order that a sender takes: 128 MiB of kernel memory. inject.c repeats it.
pub const ORDER_MAX: usize = 1 << 24;

/// `BPF_F_TEST_XDP_LIVE_FRAMES` of linux/bpf.h.
const LIVE_FRAMES: u32 = 1 << 1;

/// The first kernel with live frames.
const KERNEL_MIN: (u32, u32) = (5, 18);

/// How long one run is to take. Each run makes and takes down a page pool, which costs some 50 us, and
/// the stop flag is looked at between runs only.
const RUN_NS: u64 = 15_000_000;

/// Frames of the first run, whose time a frame is not known yet, and of any run at most.
const RUN_FRAMES_FIRST: u64 = 4096;
const RUN_FRAMES_MAX: u64 = 1 << 20;

/// Frames that are worked on before those to be sent are flushed to the interface, at high rates. The
/// kernel allows 256 (`TEST_XDP_MAX_BATCH` of net/bpf/test_run.c), but the ring of a veth peer holds no
/// more, so that whatever it had left would make it overflow; and no rate is gained beyond 64.
const BATCH_FRAMES_MAX: u32 = 64;

/// The same at low rates. A packet waits for the end of its batch, some 30 ns for each frame that is
/// dropped since nothing is due, which adds to its latency.
const BATCH_FRAMES_PACED: u32 = 16;

/// Below this interval packets come so close that large batches are needed to keep up.
const BATCH_INTERVAL_NS: u64 = 1_000;

/// How long before the first slot the thread wakes up, and how long it sleeps between looks at the
/// stop flag before that.
const WAKE_EARLY_NS: u64 = 300_000;
const SLEEP_NS_MAX: u64 = 10_000_000;

/// Words of `struct state` of inject.c, and their positions.
const STATE_WORDS: usize = 16;
mod state {
    pub(super) const SEQUENCE: usize = 0;
    pub(super) const DUE_NS: usize = 2;
    pub(super) const DUE_FRACTION: usize = 3;
    pub(super) const INTERVAL_NS: usize = 4;
    pub(super) const INTERVAL_FRACTION: usize = 5;
    pub(super) const SEQUENCE_END: usize = 6;
    pub(super) const UNTIL_NS: usize = 7;
    pub(super) const LAG_MAX_NS: usize = 8;
    pub(super) const FIRST_NS: usize = 9;
    pub(super) const LAST_NS: usize = 10;
    pub(super) const FAILURES: usize = 11;
    pub(super) const LAG_NS: usize = 12;
    pub(super) const HELD_UP_NS: usize = 13;
}

/// A sender of one stream on one interface. Its sequences go on from one plan to the next.
///
/// Each sender has its own copy of images and order in the kernel. One thread at a time runs it, on
/// the core that the caller pinned it to.
pub struct LiveSender {
    interface: String,
    if_index: u32,
    kernel: (u32, u32),
    object: Ebpf,
    state: Arc<Mapping>,
    counters: TransmitCounters,
    _anchor: Anchor,
    /// Time of a frame of the last run, in ns; 0 before the first one.
    frame_ns: u64,
}

/// Reads the number of packets that a sender has sent, from any thread, at any time.
#[derive(Clone, Debug)]
pub struct SentCounter(Arc<Mapping>);

impl SentCounter {
    /// Packets sent since the sender was opened.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.0.get(state::SEQUENCE)
    }
}

impl LiveSender {
    /// Loads the program for an interface of the thread's network namespace, with what it is to send:
    /// `images`, at most [`IMAGES_MAX`], in `order` (numbers of images, at most [`ORDER_MAX`]), which is
    /// walked again and again. `stream`, below [`STREAMS_MAX`], and `key` are what the tags say.
    ///
    /// # Errors
    /// [`TesterError::NoLiveFrames`], [`TesterError::NoRedirectTarget`], [`TesterError::Image`],
    /// [`TesterError::Order`], [`TesterError::OutOfRange`], [`TesterError::FrameTooLong`],
    /// [`TesterError::Load`], [`TesterError::Map`], [`TesterError::Counters`],
    /// [`TesterError::Anchor`], and
    /// [`XdpError::UnknownInterface`](crate::XdpError::UnknownInterface).
    pub fn open(
        interface: &str,
        key: [u64; 2],
        images: &[Image],
        order: &[u32],
        stream: u8,
    ) -> Result<Self, TesterError> {
        let kernel = host::kernel_version()?;
        if kernel < KERNEL_MIN {
            return Err(TesterError::NoLiveFrames { major: kernel.0, minor: kernel.1 });
        }
        check_traffic(images, order, stream)?;
        let if_index = host::interface_index(interface)?;
        check_redirect_target(interface, if_index, kernel)?;
        check_mtu(interface, images)?;

        let mut object = program::load(
            PROGRAM,
            OBJECT,
            EbpfLoader::new()
                .override_global("key0", &key[0], true)
                .override_global("key1", &key[1], true)
                .override_global("stream", &u64::from(stream), true)
                .override_global("order_length", &(order.len() as u64), true)
                .map_max_entries("images", images.len() as u32)
                .map_max_entries("order", order.len() as u32),
        )?;
        let words: &[u64] = bytemuck::cast_slice(images);
        let mapping = Mapping::take(&mut object, "images", words.len())?;
        for (position, &word) in words.iter().enumerate() {
            mapping.set(position, word);
        }
        let mapping = Mapping::take(&mut object, "order", order.len())?;
        for (position, &image) in order.iter().enumerate() {
            mapping.set(position, image.into());
        }
        let state = Arc::new(Mapping::take(&mut object, "state", STATE_WORDS)?);
        set_interface(&mut object, if_index)?;
        let counters = TransmitCounters::open(interface)?;
        let anchor = Anchor::new(program::descriptor(&mut object, PROGRAM)?.as_fd())?;
        Ok(Self {
            interface: interface.into(),
            if_index,
            kernel,
            object,
            state,
            counters,
            _anchor: anchor,
            frame_ns: 0,
        })
    }

    /// A counter for progress.
    #[must_use]
    pub fn sent_counter(&self) -> SentCounter {
        SentCounter(Arc::clone(&self.state))
    }

    /// Packets sent since the sender was opened: the sequence of the next one.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.state.get(state::SEQUENCE)
    }

    /// Sends as planned until the plan ends or `stop` is set, which is looked at every 15 ms or so. The
    /// thread must be in the interface's network namespace.
    ///
    /// # Errors
    /// [`TesterError::NoRedirectTarget`], [`TesterError::Run`], [`TesterError::Refused`] and
    /// [`TesterError::Counters`], also after some packets were sent: what was counted of this plan is no
    /// measurement then.
    pub fn send(&mut self, plan: SendPlan, stop: &AtomicBool) -> Result<SendReport, TesterError> {
        check_redirect_target(&self.interface, self.if_index, self.kernel)?;
        let dropped_before = self.counters.dropped()?;
        let first = self.begin(&plan);
        let end = first.saturating_add(plan.packets_max);
        let batch_frames = match plan.interval.parts().0 {
            nanos if nanos < BATCH_INTERVAL_NS => BATCH_FRAMES_MAX,
            _ => BATCH_FRAMES_PACED,
        };
        let mut frames = RUN_FRAMES_FIRST;
        loop {
            let now = now_ns();
            if stop.load(Ordering::Relaxed) || self.sent() >= end || now >= plan.until_ns {
                break;
            }
            let early = plan.start_ns.saturating_sub(now);
            if early > WAKE_EARLY_NS {
                let nap = (early - WAKE_EARLY_NS).min(SLEEP_NS_MAX);
                std::thread::sleep(Duration::from_nanos(nap));
                continue;
            }
            self.run(frames, batch_frames)?;
            let failures = self.state.get(state::FAILURES);
            if failures > 0 {
                return Err(TesterError::Refused { interface: self.interface.clone(), failures });
            }
            self.frame_ns = (now_ns() - now) / frames;
            frames = self.next_frames(&plan, end - self.sent().min(end));
        }
        // What was redirected to an interface that went down is nobody's loss either.
        check_redirect_target(&self.interface, self.if_index, self.kernel)?;
        let sent = self.sent() - first;
        let lag = |word| if plan.interval == Interval::NONE { 0 } else { self.state.get(word) };
        Ok(SendReport {
            sent,
            missed: missed(&plan, sent, now_ns().min(plan.until_ns)),
            lag_max_ns: lag(state::LAG_MAX_NS),
            held_up_ns: lag(state::HELD_UP_NS),
            departures_ns: (sent > 0)
                .then(|| (self.state.get(state::FIRST_NS), self.state.get(state::LAST_NS))),
            ring_overflows: self.counters.dropped()?.saturating_sub(dropped_before),
        })
    }

    /// Writes the plan for the program, and returns the sequence of its first packet.
    fn begin(&self, plan: &SendPlan) -> u64 {
        let first = self.sent();
        let (nanos, fraction) = plan.interval.parts();
        for (position, value) in [
            (state::DUE_NS, plan.start_ns),
            (state::DUE_FRACTION, 0),
            (state::INTERVAL_NS, nanos),
            (state::INTERVAL_FRACTION, fraction.into()),
            (state::SEQUENCE_END, first.saturating_add(plan.packets_max)),
            (state::UNTIL_NS, plan.until_ns),
            (state::LAG_MAX_NS, 0),
            (state::FIRST_NS, 0),
            (state::LAST_NS, 0),
            (state::FAILURES, 0),
            (state::LAG_NS, 0),
            (state::HELD_UP_NS, 0),
        ] {
            self.state.set(position, value);
        }
        first
    }

    /// Frames of the next run: as many as fit its time, and not many more than the plan still needs.
    fn next_frames(&self, plan: &SendPlan, packets_left: u64) -> u64 {
        let now = now_ns();
        let mut nanos = RUN_NS.min(plan.until_ns.saturating_sub(now));
        let (interval_ns, _) = plan.interval.parts();
        // The end of a paced plan, by its slots; behind it there is only time to be wasted.
        let paced_ns = packets_left.saturating_mul(interval_ns);
        let frame_ns = self.frame_ns.max(1);
        let mut frames_max = RUN_FRAMES_MAX;
        if interval_ns == 0 {
            frames_max = frames_max.min(packets_left);
        } else {
            nanos = nanos.min(paced_ns.saturating_add(frame_ns * u64::from(BATCH_FRAMES_PACED)));
        }
        (nanos / frame_ns + 1).max(BATCH_FRAMES_PACED.into()).min(frames_max).max(1)
    }

    /// One system call: the program over so many frames.
    fn run(&mut self, frames: u64, batch_frames: u32) -> Result<(), TesterError> {
        let descriptor = program::descriptor(&mut self.object, PROGRAM)?;
        let frame = [0_u8; IMAGE_BYTES];
        // SAFETY: the struct consists of integers and pointers: all zero is valid.
        let mut options: sys::bpf_test_run_opts = unsafe { std::mem::zeroed() };
        options.sz = size_of_val(&options);
        options.data_in = frame.as_ptr().cast();
        options.data_size_in = IMAGE_BYTES as u32;
        options.repeat = frames as libc::c_int;
        options.flags = LIVE_FRAMES;
        options.batch_size = batch_frames;
        // SAFETY: the descriptor is open, and `options` and `frame` live until the call returns. The
        // kernel only reads `frame`, and the program works on frames of the kernel's.
        let result = unsafe {
            sys::bpf_prog_test_run_opts(descriptor.as_fd().as_raw_fd(), &raw mut options)
        };
        // EINTR: a signal ended the run early, and what was sent is in the state.
        if result >= 0 || -result == libc::EINTR {
            return Ok(());
        }
        Err(TesterError::Run {
            interface: self.interface.clone(),
            error: io::Error::from_raw_os_error(-result),
        })
    }
}

impl fmt::Debug for LiveSender {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LiveSender")
            .field("interface", &self.interface)
            .field("sent", &self.sent())
            .finish_non_exhaustive()
    }
}

/// Slots that passed by `end_ns` and were not used.
fn missed(plan: &SendPlan, sent: u64, end_ns: u64) -> u64 {
    if plan.interval == Interval::NONE {
        return 0;
    }
    let slots = plan.interval.slots_in(end_ns.saturating_sub(plan.start_ns));
    slots.min(plan.packets_max).saturating_sub(sent)
}

/// Puts the interface into the program's device map.
fn set_interface(object: &mut Ebpf, if_index: u32) -> Result<(), TesterError> {
    let failed = |operation, reason| TesterError::Map { map: "interface", operation, reason };
    let map = object
        .take_map("interface")
        .ok_or_else(|| failed("open", "the object has no such map".into()))?;
    let mut map = DevMap::try_from(map).map_err(|error| failed("open", chain(&error)))?;
    map.set(0, if_index, None, 0).map_err(|error| failed("update", chain(&error)))
}

/// `CLOCK_MONOTONIC`, the clock of `bpf_ktime_get_ns`.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the clock exists");
    // It starts with the machine and is never negative.
    now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned()
}
