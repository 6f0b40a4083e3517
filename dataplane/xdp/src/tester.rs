//! The kernel's side of a traffic generator and sink: packets that leave an interface by XDP as if a
//! driver had received them, and programs that count or hand over what arrives.
//!
//! ```text
//!   images, order                                              ledger
//!        |                                                       ^
//!   LiveSender --- redirect ---> tx interface     rx interface --+-- KernelSink      tagged: counted
//!   (a run of an XDP program over empty frames)                  |
//!                                                                +-- RedirectSink    UDP, TCP: XSK
//!                                                                      |
//!                                                                XskQueue (RX and TX)
//! ```
//!
//! The sender knows no protocols: it is given [`Image`]s, which say where the tag and the checksum
//! belong, and the order in which they are sent. All programs know the tag, at the start of the
//! packet's UDP or TCP payload:
//!
//! ```text
//!  0         4      5                10                 18
//!  +---------+------+----------------+------------------+
//!  |  check  |stream|    sequence    |    timestamp     |   network byte order
//!  +---------+------+----------------+------------------+
//! ```
//!
//! The timestamp is `CLOCK_MONOTONIC` in nanoseconds, which is the clock of `bpf_ktime_get_ns`. The
//! check is the low half of SipHash-1-3 under the run's key of two words `k0`, `k1` over 16 bytes: the
//! words `stream << 40 | sequence` and `timestamp`, each with its least significant byte first.
//!
//! Terms. A *stream* is what one sender sends in one run: sequences from 0 without a gap. A *slot* is
//! the time at which a packet is due.
//!
//! Invariants: a packet is counted as ours only if its check is right; what is ours never reaches the
//! kernel's stack; ARP and ND always do. Nothing outlives the process: no link is pinned.

mod anchor;
mod checks;
mod counters;
mod error;
mod histogram;
mod image;
mod ledger;
mod live;
mod mapping;
mod plan;
mod program;
mod redirect;
mod sink;

pub use error::TesterError;
pub use histogram::LatencyHistogram;
pub use image::{FRAME_LEN_MAX, FRAME_LEN_MIN, IMAGE_BYTES, Image, TAG_LEN};
pub use ledger::{SinkLedger, SinkTotals, StreamLedger};
pub use live::{IMAGES_MAX, LiveSender, ORDER_MAX, SentCounter};
pub use plan::{Interval, SendPlan, SendReport};
pub use redirect::RedirectSink;
pub use sink::{KernelSink, STREAMS_MAX, SinkOptions};
