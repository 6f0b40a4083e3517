//! Rings on memory: everything that a worker needs in order to run without a network card.
//!
//! ```text
//!  pcap file, test --push_rx--> MemoryQueue --receive--> worker
//!  pcap file, test <--take_tx-- MemoryQueue <-transmit-- worker
//!                  benchmark -> LoopQueue: sent chunks come back as new packets
//! ```
//!
//! [`MemoryQueue`] behaves as an AF_XDP socket does, so that conservation of frames, losses with a
//! name and a full ring can be tested without privileges. [`LoopQueue`] costs about 5 nanoseconds a
//! packet, so that what is measured is the router. [`Faults`] come from a seed: a run that failed is
//! repeated by its seed. Deliberately absent: threads and real time.
#![forbid(unsafe_code)]

mod chunks;
mod clock;
mod faults;
mod loop_queue;
mod memory_queue;
mod pcap;

pub use chunks::{POISON, memory_pool, reclaim_frames, reclaim_pool};
pub use clock::VirtualClock;
pub use faults::Faults;
pub use loop_queue::{HEADER_BYTES_MAX, HeaderTemplate, LoopQueue, Rewrite, Vary};
pub use memory_queue::{MemoryQueue, QueueSizes, Wire};
pub use pcap::{Capture, Packet, PcapError, read_pcap, read_pcap_bytes, write_pcap, write_pcap_to};
