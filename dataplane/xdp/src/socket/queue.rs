//! [`XskQueue`]: the four rings of one queue of one interface, as a worker drives them.
//!
//! ```text
//!            refill                receive
//!   Pool ------------> FILL ... RX ---------> Batch      receiving    = FILL + kernel + RX
//!     ^                                         |
//!     |      reclaim                            | transmit
//!     +------------- COMPLETION ... TX <- staged <       transmitting = staged + TX + kernel
//!                                                                       + COMPLETION
//! ```
//!
//! xsk-rs's descriptors are `Copy`, so that nothing in its types keeps a chunk from being submitted
//! twice. Here a descriptor exists only between two calls of this module: [`Frame`]s go in and come
//! out, and a frame is taken apart at the moment its descriptor is made.
//!
//! Invariants: `receiving <= receiving_frames_max <= FILL`, and
//! `transmitting <= quota_frames <= TX = COMPLETION`; so every frame in flight has its slot on
//! COMPLETION, and a ring that seems full (the kernel publishes what it consumed in batches) only
//! delays. No call allocates.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    sync::{Arc, PoisonError},
};

use frame::{BATCH_MAX, Batch, CHUNK_BYTES, Frame, Pool, QueueIo, QueueStatus};
use wire::InterfaceId;
use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, TxQueue};

use super::{
    BindMode, StatisticsReader, TX_RING_ENTRIES, Umem, XskOptions, ZeroCopy,
    create::{create_when_free, set_busy_poll},
    statistics::{get_option, set_option},
    umem::UmemView,
};
use crate::{XdpError, host};

/// System calls that one flush makes at most, so that a device that takes nothing cannot hold the
/// worker. In copy mode a call sends 32 packets (`TX_BATCH_SIZE` of net/xdp/xsk.c), hence a full ring
/// needs 64.
const KICKS_PER_FLUSH_MAX: usize = TX_RING_ENTRIES / 32 + 1;

/// While the link is down, one flush in this many asks whether it is up again. A call costs about
/// 200 ns, an idle turn more than 20: the cost stays below a fifth of an idle turn.
const FLUSHES_PER_PROBE: u32 = 64;

/// `XDP_MAX_TX_SKB_BUDGET` of linux/if_xdp.h (since Linux 6.18): packets per system call in copy mode.
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Bit of `struct xdp_options` that says that the socket was bound in zero-copy mode.
const XDP_OPTIONS_ZEROCOPY: u32 = 1;

/// The rings of one queue of one interface. Keep it until the process ends: only then the kernel
/// releases the queue for certain, and frames that are on the rings when it is dropped are lost.
#[derive(Debug)]
pub struct XskQueue {
    interface: InterfaceId,
    queue_id: u32,
    worker: u16,
    mode: BindMode,
    busy_poll: bool,
    umem: UmemView,

    rx: RxQueue,
    tx: TxQueue,
    fill: FillQueue,
    completion: CompQueue,
    fd: RawFd,
    statistics: Arc<OwnedFd>,

    /// Where descriptors are read to and written from, so that the stack is not cleared each turn.
    scratch: Box<[FrameDesc; BATCH_MAX]>,
    /// Frames taken by `transmit` that no `flush` has put on TX yet.
    staged: Vec<FrameDesc>,

    receiving: usize,
    receiving_frames_max: usize,
    transmitting: usize,
    quota_frames: usize,
    rx_invalid: u64,
    kicks: u64,
    /// Whether the last `receive` left nothing on RX.
    rx_is_drained: bool,
    link_down: bool,
    returned_unsent: u64,
    flushes_while_down: u32,
}

impl XskQueue {
    /// Binds a socket to queue `queue_id` of the interface, with rings of its own over the shared
    /// UMEM, and tells which mode the kernel really gave.
    ///
    /// With [`ZeroCopy::Auto`] zero-copy is tried first, then copy. The first socket of a UMEM decides
    /// for all (the kernel copies the mode of a UMEM to every later socket), so bind the interface
    /// that supports less first, or choose by [`host::InterfaceFacts::zero_copy`].
    ///
    /// Busy polling fails softly: without it the queue works, and a warning is logged.
    ///
    /// # Errors
    /// [`XdpError::OutOfRange`], [`XdpError::QueueTaken`], [`XdpError::MixedModes`],
    /// [`XdpError::UnknownInterface`], or [`XdpError::Bind`] with the kernel's reason.
    pub fn bind(
        umem: &Umem,
        interface: InterfaceId,
        if_name: &str,
        queue_id: u32,
        options: XskOptions,
    ) -> Result<(Self, BindMode), XdpError> {
        options.check(umem.rx_ring_entries())?;
        if usize::from(options.worker) >= umem.workers() {
            return Err(XdpError::OutOfRange {
                what: "the number of the worker",
                value: usize::from(options.worker),
                range: format!("0 to {}", umem.workers() - 1),
            });
        }
        let if_index = host::interface_index(if_name)?;

        let mut bound = umem.bound.lock().unwrap_or_else(PoisonError::into_inner);
        if bound.queues.contains(&(if_index, queue_id)) {
            return Err(XdpError::QueueTaken { interface: if_name.into(), queue_id });
        }
        let mode_wanted = match (bound.mode, options.zero_copy) {
            (None, wanted) => wanted,
            // A shared bind must not name a mode: the kernel takes that of the UMEM.
            (Some(_), ZeroCopy::Auto)
            | (Some(BindMode::ZeroCopy), ZeroCopy::Force)
            | (Some(BindMode::Copy), ZeroCopy::Off) => ZeroCopy::Auto,
            (Some(mode), _) => {
                return Err(XdpError::MixedModes {
                    interface: if_name.into(),
                    queue_id,
                    bound: mode,
                });
            }
        };
        let create = |mode| {
            create_when_free(umem, if_name, queue_id, mode).map_err(|error| XdpError::Bind {
                interface: if_name.into(),
                queue_id,
                mode,
                error,
            })
        };
        let (tx, rx, rings) = match (bound.mode, mode_wanted) {
            (Some(mode), _) => create(mode)?,
            (None, ZeroCopy::Force) => create(BindMode::ZeroCopy)?,
            (None, ZeroCopy::Off) => create(BindMode::Copy)?,
            (None, ZeroCopy::Auto) => {
                create(BindMode::ZeroCopy).or_else(|_| create(BindMode::Copy))?
            }
        };
        let (fill, completion) =
            rings.ok_or_else(|| XdpError::QueueTaken { interface: if_name.into(), queue_id })?;

        let fd = rx.fd().as_raw_fd();
        let failed = |operation| {
            move |error| XdpError::Socket { interface: if_name.into(), queue_id, operation, error }
        };
        let mut flags = 0_u32;
        get_option(fd, libc::XDP_OPTIONS, bytemuck::bytes_of_mut(&mut flags))
            .map_err(failed("getsockopt(XDP_OPTIONS)"))?;
        let mode =
            if flags & XDP_OPTIONS_ZEROCOPY != 0 { BindMode::ZeroCopy } else { BindMode::Copy };

        // SAFETY: the descriptor is open: `rx` holds the socket, and outlives this borrow.
        let statistics = unsafe { BorrowedFd::borrow_raw(fd) }
            .try_clone_to_owned()
            .map_err(failed("fcntl(F_DUPFD_CLOEXEC)"))?;

        let busy_poll = options.busy_poll
            && match set_busy_poll(fd) {
                Ok(()) => true,
                Err((option, error)) => {
                    tracing::warn!(
                        interface = if_name, queue_id, option, %error,
                        "busy polling is not available; interrupts drive this queue"
                    );
                    false
                }
            };
        if mode == BindMode::Copy {
            // Only newer kernels know it; without it a flush makes more system calls.
            let _ = set_option(fd, libc::SOL_XDP, XDP_MAX_TX_SKB_BUDGET, BATCH_MAX as libc::c_int);
        }

        bound.mode = Some(mode);
        bound.queues.insert((if_index, queue_id));
        let queue = Self {
            interface,
            queue_id,
            worker: options.worker,
            mode,
            busy_poll,
            umem: umem.view(),
            rx,
            tx,
            fill,
            completion,
            fd,
            statistics: Arc::new(statistics),
            scratch: Box::new([FrameDesc::default(); BATCH_MAX]),
            staged: Vec::with_capacity(options.quota_frames),
            receiving: 0,
            receiving_frames_max: options.receiving_frames_max,
            transmitting: 0,
            quota_frames: options.quota_frames,
            rx_invalid: 0,
            kicks: 0,
            rx_is_drained: true,
            link_down: false,
            returned_unsent: 0,
            flushes_while_down: 0,
        };
        Ok((queue, mode))
    }

    /// The interface whose queue this is.
    #[must_use]
    pub fn interface(&self) -> InterfaceId {
        self.interface
    }

    /// Number of the queue on its interface.
    #[must_use]
    pub fn queue_id(&self) -> u32 {
        self.queue_id
    }

    /// The mode that the kernel gave.
    #[must_use]
    pub fn mode(&self) -> BindMode {
        self.mode
    }

    /// Whether the worker polls the driver: asked for, and available.
    #[must_use]
    pub fn busy_poll(&self) -> bool {
        self.busy_poll
    }

    /// Whether the last attempt to send found the link down. `transmit` refuses frames until it is
    /// up again.
    #[must_use]
    pub fn link_down(&self) -> bool {
        self.link_down
    }

    /// Frames that `transmit` took and that were given back unsent, since the link went down before
    /// the kernel took them.
    #[must_use]
    pub fn returned_unsent(&self) -> u64 {
        self.returned_unsent
    }

    /// A handle that reads the kernel's counters of this socket from any thread.
    #[must_use]
    pub fn statistics(&self) -> StatisticsReader {
        StatisticsReader::new(&self.statistics)
    }

    /// Whether something waits on RX, so that a worker need not sleep.
    #[must_use]
    pub fn has_received(&mut self) -> bool {
        self.rx.nb_avail(1) > 0
    }

    /// Puts staged frames on TX, as many as fit.
    fn submit(&mut self) {
        let wanted = self.staged.len();
        if wanted == 0 {
            return;
        }
        let count = wanted.min(self.tx.nb_free(wanted as u32) as usize);
        // SAFETY: each descriptor was made from a frame that was given up in `transmit`, so that
        // nobody else holds its chunk; it leaves `staged` below, so that it is submitted once; and it
        // lies in the UMEM of this queue, as `UmemView::give` asserts.
        let submitted = unsafe { self.tx.produce(&self.staged[..count]) };
        self.staged.drain(..submitted);
    }

    /// Frames on TX that the kernel has not taken yet.
    fn untaken(&mut self) -> usize {
        TX_RING_ENTRIES - self.tx.nb_free_exact() as usize
    }

    /// Makes the kernel send, until it took all or makes no progress.
    fn kick_tx(&mut self) {
        if self.mode == BindMode::ZeroCopy {
            if self.busy_poll || self.tx.needs_wakeup() {
                let _ = self.send_to();
            }
            return;
        }
        let mut left = self.untaken();
        for _ in 0..KICKS_PER_FLUSH_MAX {
            if left == 0 {
                return;
            }
            let result = self.send_to();
            let before = left;
            left = self.untaken();
            match result {
                // 32 packets a call, then EAGAIN: go on while there is progress. Without, the socket's
                // send buffer is full, or the device's queue (EBUSY, ENOBUFS): next turn.
                Ok(()) | Err(libc::EAGAIN | libc::EBUSY | libc::ENOBUFS) if left < before => {}
                _ => return,
            }
        }
    }

    /// One `sendto`: the doorbell of TX. Keeps track of the link.
    fn send_to(&mut self) -> Result<(), libc::c_int> {
        self.kicks += 1;
        // SAFETY: a null buffer of length 0 is never read; AF_XDP ignores both.
        let result = unsafe {
            libc::sendto(self.fd, std::ptr::null(), 0, libc::MSG_DONTWAIT, std::ptr::null(), 0)
        };
        if result >= 0 {
            self.link_down = false;
            return Ok(());
        }
        let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
        match errno {
            // ENETDOWN: not up. ENXIO: unbound, since the device is gone.
            libc::ENETDOWN | libc::ENXIO => self.link_down = true,
            _ => self.link_down = false,
        }
        Err(errno)
    }

    /// One `recvfrom`: the doorbell of FILL, and under busy polling the poll of the driver.
    fn kick_rx(&mut self) {
        self.kicks += 1;
        // SAFETY: a null buffer of length 0 is never written; AF_XDP ignores both. Errors (a link that
        // is down) say nothing that TX or the kernel's counters do not.
        unsafe {
            libc::recvfrom(
                self.fd,
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
    }
}

impl QueueIo for XskQueue {
    fn reclaim(&mut self, pool: &mut Pool) -> usize {
        let mut total = 0;
        if self.link_down && !self.staged.is_empty() {
            total = self.staged.len();
            for desc in self.staged.drain(..) {
                // SAFETY: a staged descriptor was made from a frame that was given up, and never
                // reached a ring; draining forgets it.
                let frame = unsafe { self.umem.claim(desc.addr()) };
                pool.give(frame);
            }
            self.transmitting -= total;
            self.returned_unsent += total as u64;
        }
        while self.transmitting > 0 {
            // SAFETY: the ring belongs to the UMEM that its addresses are looked up in below.
            let count = unsafe { self.completion.consume(&mut self.scratch[..]) };
            // Not more than can be in flight: a ring that returned a chunk twice would make two owners.
            self.transmitting = self
                .transmitting
                .checked_sub(count)
                .expect("the kernel completed more frames than it was given");
            total += count;
            for desc in &self.scratch[..count] {
                // SAFETY: the kernel gave the chunk back by putting its address on COMPLETION, where
                // it stands once for each submission to TX; the entry is consumed.
                let frame = unsafe { self.umem.claim(desc.addr()) };
                pool.give(frame);
            }
            if count < BATCH_MAX {
                break;
            }
        }
        total
    }

    fn refill(&mut self, pool: &mut Pool) -> usize {
        let mut total = 0;
        loop {
            let wanted =
                (self.receiving_frames_max - self.receiving).min(pool.free()).min(BATCH_MAX);
            if wanted == 0 {
                return total;
            }
            let count = wanted.min(self.fill.nb_free(wanted as u32) as usize);
            for slot in &mut self.scratch[..count] {
                let frame = pool.take().expect("no more than the pool has");
                debug_assert_eq!(frame.home(), self.worker, "a pool holds its own frames");
                *slot = self.umem.layout.describe(self.umem.give(frame), 0);
            }
            // SAFETY: each descriptor was made from a frame that was given up just now, and the
            // scratch array is not read again before it is overwritten. All lie in this UMEM.
            let submitted = unsafe { self.fill.produce(&self.scratch[..count]) };
            assert_eq!(submitted, count, "FILL has the room that it said");
            self.receiving += count;
            total += count;
            if count < wanted {
                return total;
            }
        }
    }

    fn receive(&mut self, batch: &mut Batch, pool: &mut Pool, frames_max: usize) -> usize {
        let limit = frames_max.min(batch.room()).min(BATCH_MAX);
        // SAFETY: the ring belongs to the UMEM that its addresses are looked up in below.
        let count = unsafe { self.rx.consume(&mut self.scratch[..limit]) };
        self.receiving = self
            .receiving
            .checked_sub(count)
            .expect("the kernel returned more frames than it was given");
        self.rx_is_drained = count < limit;
        let mut received = 0;
        for desc in &self.scratch[..count] {
            // SAFETY: the kernel gave the chunk back by putting its address on RX, where it stands
            // once for each entry of FILL that it took; the entry is consumed.
            let mut frame = unsafe { self.umem.claim(desc.addr()) };
            frame.set_ingress(self.interface);
            if !frame.set_bounds(desc.addr() % CHUNK_BYTES, desc.lengths().data()) {
                self.rx_invalid += 1;
                pool.give(frame);
                continue;
            }
            match batch.push(frame) {
                Ok(()) => received += 1,
                Err(frame) => pool.give(frame),
            }
        }
        received
    }

    #[inline]
    fn transmit(&mut self, frame: Frame) -> Result<(), Frame> {
        if self.transmitting >= self.quota_frames || self.link_down {
            return Err(frame);
        }
        let length = frame.len();
        let address = self.umem.give(frame);
        // Never allocates: the capacity is the quota.
        self.staged.push(self.umem.layout.describe(address, length));
        self.transmitting += 1;
        Ok(())
    }

    fn flush(&mut self) {
        if self.link_down {
            self.flushes_while_down = self.flushes_while_down.wrapping_add(1);
            if self.flushes_while_down.is_multiple_of(FLUSHES_PER_PROBE) {
                let _ = self.send_to();
            }
        } else if self.transmitting > 0 {
            self.submit();
            self.kick_tx();
        } else if self.busy_poll && self.mode == BindMode::ZeroCopy {
            self.kick_tx();
        }
        // While packets wait on RX, polling for more would cost a system call a turn and bring none
        // that could be taken sooner.
        if self.busy_poll && self.rx_is_drained || self.fill.needs_wakeup() {
            self.kick_rx();
        }
    }

    fn status(&self) -> QueueStatus {
        QueueStatus {
            receiving: self.receiving,
            transmitting: self.transmitting,
            rx_invalid: self.rx_invalid,
            kicks: self.kicks,
        }
    }
}

impl AsFd for XskQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.statistics.as_fd()
    }
}
