//! Everything of the router that is not on the packet path and talks to the outside: the kernel
//! (routes, neighbors, addresses), the operator (control socket) and the monitoring (Prometheus).
//!
//! ```text
//!   kernel --netlink--> kernel::KernelMirror --events--> router
//!   router --HostView--> publication --Snapshot--> workers
//!   operator --unix socket--> socket::ControlServer --(Request, Responder)--> router
//!   router --StatusReport, once a second--> metrics::MetricsServer --HTTP--> Prometheus
//!                         \--> socket (JSON) --> status::render --> terminal
//! ```
//!
//! Invariants: no worker calls into this crate, and nothing here holds a lock that a worker takes.
//! The mirror, the control socket and the metrics run in threads of their own, which end when their
//! handles are dropped.
//!
//! Deliberately absent: the wiring. Which part runs, and what a request does, the router decides.
#![forbid(unsafe_code)]

pub mod kernel;
pub mod metrics;
pub mod publication;
pub mod socket;
pub mod status;
