//! [`Umem`]: the one region that all packets live in, carved into a pool for each worker.
//!
//! ```text
//!  base
//!   | worker 0: frames_per_worker chunks | worker 1: ...      | ...
//!   +--------+--------+-- ... --+--------+--------+-- ... --+
//!   | 4096 B | 4096 B |         |        |        |         |
//!   +--------+--------+-- ... --+--------+--------+-- ... --+
//! ```
//!
//! Invariants: a chunk is either held by exactly one [`Frame`] or by the kernel (on a ring of one
//! socket); [`UmemView::give`] and [`UmemView::claim`] are the only ways across. The region lives as
//! long as the process, since frames borrow it for `'static`.

use std::{collections::HashSet, io, num::NonZeroU32, sync::Mutex};

use frame::{CHUNK_BYTES, Frame, Pool};
use xsk_rs::config::{FrameSize, QueueSize, UmemConfig};

use super::{
    COMPLETION_RING_ENTRIES, FILL_ENTRIES_PER_RX_ENTRY, RX_RING_ENTRIES,
    descriptor::DescriptorLayout,
};
use crate::{BindMode, XdpError};

/// The longest RX ring: 16 ms of a million packets a second, and 128 MiB of chunks on its FILL ring.
pub const RX_RING_ENTRIES_MAX: usize = 16_384;

/// How many chunks a process needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UmemPlan {
    /// Number of workers, hence of pools.
    pub workers: usize,
    /// Chunks in each pool. For each interface of a worker its queue may keep
    /// `receiving_frames_max + quota_frames`; what is held and handed over comes on top.
    pub frames_per_worker: usize,
    /// Entries of every queue's RX ring: a power of two. FILL has
    /// [`FILL_ENTRIES_PER_RX_ENTRY`] times as many.
    pub rx_ring_entries: usize,
}

impl UmemPlan {
    /// A plan with RX rings of [`RX_RING_ENTRIES`].
    #[must_use]
    pub const fn new(workers: usize, frames_per_worker: usize) -> Self {
        Self { workers, frames_per_worker, rx_ring_entries: RX_RING_ENTRIES }
    }
}

/// The one UMEM of a process.
#[derive(Debug)]
pub struct Umem {
    umem: xsk_rs::Umem,
    view: UmemView,
    huge_pages: bool,
    rx_ring_entries: usize,
    pub(super) bound: Mutex<Bound>,
}

/// What the sockets of a UMEM have in common.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// The mode of the first socket, which the kernel imposes on all later ones.
    pub(super) mode: Option<BindMode>,
    /// The (interface index, queue id) pairs that have a socket.
    pub(super) queues: HashSet<(u32, u32)>,
}

/// What a queue needs to know of the UMEM to turn addresses into frames and back.
#[derive(Clone, Copy, Debug)]
pub(super) struct UmemView {
    base: usize,
    chunks: usize,
    chunks_per_worker: usize,
    pub(super) layout: DescriptorLayout,
}

impl Umem {
    /// Maps and registers the region, on huge pages if the system has enough of them reserved, and
    /// carves it into one pool for each worker, in order. The region is never unmapped.
    ///
    /// # Errors
    /// [`XdpError::OutOfRange`] for a plan without workers or frames, with more than a UMEM
    /// holds, or with rings that are no power of two; [`XdpError::Umem`] when memory or permission is missing.
    pub fn new(plan: UmemPlan) -> Result<(Self, Vec<Pool>), XdpError> {
        let UmemPlan { workers, frames_per_worker, rx_ring_entries } = plan;
        if workers == 0 || workers > usize::from(u16::MAX) {
            return Err(XdpError::OutOfRange {
                what: "the number of workers",
                value: workers,
                range: format!("1 to {}", u16::MAX),
            });
        }
        // The kernel counts the pages of a UMEM in 32 bits.
        let count = workers
            .checked_mul(frames_per_worker)
            .and_then(|count| NonZeroU32::new(u32::try_from(count).ok()?));
        let Some(count) = count else {
            return Err(XdpError::OutOfRange {
                what: "frames_per_worker",
                value: frames_per_worker,
                range: format!("1 to {}", u32::MAX as usize / workers),
            });
        };
        if !rx_ring_entries.is_power_of_two() || rx_ring_entries > RX_RING_ENTRIES_MAX {
            return Err(XdpError::OutOfRange {
                what: "rx_ring_entries",
                value: rx_ring_entries,
                range: format!("powers of two up to {RX_RING_ENTRIES_MAX}"),
            });
        }
        let layout = DescriptorLayout::probe().ok_or(XdpError::DescriptorLayout)?;

        let refused = |error| XdpError::Umem { bytes: count.get() as usize * CHUNK_BYTES, error };
        let config = UmemConfig::builder()
            .frame_size(FrameSize::new(CHUNK_BYTES as u32).expect("a chunk is at least 2048 bytes"))
            .fill_queue_size(ring_size(rx_ring_entries * FILL_ENTRIES_PER_RX_ENTRY))
            .comp_queue_size(ring_size(COMPLETION_RING_ENTRIES))
            .frame_headroom(0)
            .build()
            .map_err(|error| refused(io::Error::other(error.to_string())))?;
        // Huge pages spare the packet path TLB misses, and need pages that an administrator reserved
        // (vm.nr_hugepages); without them the router works, a little slower.
        let (umem, descs, huge_pages) = match xsk_rs::Umem::new(config, count, true) {
            Ok((umem, descs)) => (umem, descs, true),
            Err(_) => match xsk_rs::Umem::new(config, count, false) {
                Ok((umem, descs)) => (umem, descs, false),
                Err(error) => return Err(refused(io_error(&error))),
            },
        };
        // Frames borrow the region for 'static: keep one handle for ever, whatever becomes of `self`.
        std::mem::forget(umem.clone());

        let first = descs.first().expect("a UMEM has at least one frame");
        // SAFETY: `first` is a descriptor of this UMEM, and nobody has been given any part of it yet,
        // so that no mutable access exists. Only the address is taken.
        let data = unsafe { umem.data(first) };
        let base = data.contents().as_ptr().expose_provenance() - first.addr();
        let view = UmemView {
            base,
            chunks: count.get() as usize,
            chunks_per_worker: frames_per_worker,
            layout,
        };
        drop(descs);

        let pools = (0..workers)
            .map(|worker| {
                let first = worker * frames_per_worker;
                // SAFETY: every chunk number below `chunks` is claimed exactly once here, before any
                // ring exists, so that each frame is the one owner of its chunk.
                Pool::new(
                    (first..first + frames_per_worker)
                        .map(|chunk| unsafe { view.claim(chunk * CHUNK_BYTES) })
                        .collect(),
                )
            })
            .collect();
        Ok((Self { umem, view, huge_pages, rx_ring_entries, bound: Mutex::default() }, pools))
    }

    /// Entries of each queue's RX ring.
    #[must_use]
    pub fn rx_ring_entries(&self) -> usize {
        self.rx_ring_entries
    }

    /// Whether the region is on huge pages.
    #[must_use]
    pub fn huge_pages(&self) -> bool {
        self.huge_pages
    }

    /// Number of chunks in all pools together.
    #[must_use]
    pub fn frames(&self) -> usize {
        self.view.chunks
    }

    /// The mode of the first socket, which all later ones share; `None` before the first one.
    #[must_use]
    pub fn mode(&self) -> Option<BindMode> {
        self.bound.lock().unwrap_or_else(std::sync::PoisonError::into_inner).mode
    }

    pub(super) fn handle(&self) -> &xsk_rs::Umem {
        &self.umem
    }

    pub(super) fn view(&self) -> UmemView {
        self.view
    }

    pub(super) fn workers(&self) -> usize {
        self.view.chunks / self.view.chunks_per_worker
    }
}

impl UmemView {
    /// Gives a frame up and returns the address of its packet in the UMEM.
    #[inline]
    pub(super) fn give(&self, frame: Frame) -> usize {
        let start = frame.start();
        // A frame of another allocation would be a bug of this program that hands foreign memory to
        // the kernel; one comparison per packet rules that out.
        let chunk = frame.chunk_address().wrapping_sub(self.base);
        assert!(chunk < self.chunks * CHUNK_BYTES, "a frame that is not of this UMEM");
        let _ = frame.into_chunk();
        chunk + start
    }

    /// Takes the chunk that `address` lies in. The frame is empty; its home is computed.
    ///
    /// # Safety
    /// No [`Frame`] may exist for that chunk, and no ring may hold it: the caller took its address
    /// from a ring that the kernel gave it back on, or owns the whole region.
    #[inline]
    pub(super) unsafe fn claim(&self, address: usize) -> Frame {
        let chunk = address / CHUNK_BYTES;
        assert!(chunk < self.chunks, "the kernel returned an address outside the UMEM");
        let pointer = std::ptr::with_exposed_provenance_mut::<[u8; CHUNK_BYTES]>(
            self.base + chunk * CHUNK_BYTES,
        );
        // SAFETY: the region lives for ever (one handle is forgotten in `Umem::new`), is readable and
        // writable, and `chunk` lies within it. Exclusive: by this function's contract neither the
        // kernel nor another frame holds the chunk, and xsk-rs itself never touches its bytes. Any
        // bytes make a valid `[u8]`, and alignment is 1.
        let chunk_bytes = unsafe { &mut *pointer };
        #[expect(clippy::cast_possible_truncation, reason = "workers are at most u16::MAX")]
        Frame::new(chunk_bytes, (chunk / self.chunks_per_worker) as u16)
    }
}

/// A ring's size in xsk-rs's type.
pub(super) fn ring_size(entries: usize) -> QueueSize {
    u32::try_from(entries)
        .ok()
        .and_then(|entries| QueueSize::new(entries).ok())
        .expect("ring sizes are constants or were checked, and powers of two")
}

/// The operating system's error in an error of xsk-rs, or its text.
pub(super) fn io_error(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let errno = error
        .source()
        .and_then(|source| source.downcast_ref::<io::Error>())
        .and_then(io::Error::raw_os_error);
    errno.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}
