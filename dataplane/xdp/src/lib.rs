//! The one crate that talks to AF_XDP: UMEM, sockets and rings, the classifier that decides in the
//! kernel what reaches them, and the facts of the host that both depend on.
//!
//! ```text
//!                       +---------------------- kernel ----------------------+
//!   wire ---- driver ---| classifier (XDP) --redirect--> XSK socket          |
//!                       |     |                          FILL -> RX          |
//!                       |     +-- pass --> TCP/IP stack  TX -> COMPLETION    |
//!                       +------------------------------------|---------------+
//!                                                            | rings over one UMEM
//!                                                      XskQueue (QueueIo)
//! ```
//!
//! Start order: MTU and channels, [`Classifier::attach`], [`XskQueue::bind`] for every queue,
//! `refill`, [`Classifier::set_socket`]. From the first step on egress addresses fail closed; from
//! the last one on packets arrive.
//!
//! [`tester`] is apart from all that: the XDP programs of a traffic generator and its sink.
//!
//! Deliberately absent: multi-buffer packets (`XDP_USE_SG`), since an interface whose MTU does not
//! fit a chunk is refused ([`MTU_MAX`]); hardware metadata; and unbinding a queue before the process
//! ends: the chunks that the kernel holds at that moment would be lost, and the first socket of a UMEM
//! is the UMEM itself.

mod bpf;
mod classifier;
mod error;
pub mod host;
mod socket;
pub mod tester;

pub use classifier::{
    AttachSpec, AttachedMode, Classifier, ClassifierRules, CounterValue, EGRESS_MAX, OnExit,
    Reason, XdpMode, detach,
};
pub use error::XdpError;
pub use host::MTU_MAX;
pub use socket::{
    BindMode, COMPLETION_RING_ENTRIES, FILL_ENTRIES_PER_RX_ENTRY, RX_RING_ENTRIES,
    RX_RING_ENTRIES_MAX, Sleeper, StatisticsReader, TX_RING_ENTRIES, Umem, UmemPlan, XskOptions,
    XskQueue, XskStatistics, ZeroCopy,
};
