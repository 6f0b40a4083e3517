//! Packet views, emitters and checksums.
//!
//! ```text
//! ethernet -> ipv4 | ipv6 -> tcp | udp | icmp | icmpv6      views and emitters, one header each
//!                              `-> gue -> ipv4 | ipv6       what a tunnel carries
//! checksum   full and incremental (RFC 1071, RFC 1624)
//! ecn        congestion bits across a tunnel (RFC 6040)
//! embedded   the flow that an ICMP error is about
//! flow       hash of a flow, IPv4 addresses in 16 bytes
//! fragmentation   an IPv4 packet to its fragments
//! ```
//!
//! A view borrows the bytes and copies nothing. `parse` checks the bounds once, by taking a
//! fixed-size array out of the slice; after that a field costs one load.
//!
//! Invariants: no function panics, whatever the bytes; no function writes outside the slice that
//! it was given; a view never reaches past the length that the header states. Numbers are in host
//! order in the API and in network order in the bytes; addresses are bytes in network order.
//!
//! Deliberately absent: decisions. A view tells what a packet says, and `forward` decides what
//! becomes of it. Also absent are allocation, clocks and ownership: those are in `frame`.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic
    )
)]

#[cfg(test)]
extern crate std;

pub mod checksum;
pub mod ecn;
pub mod embedded;
pub mod ethernet;
mod field;
pub mod flow;
pub mod fragmentation;
pub mod gue;
pub mod icmp;
pub mod icmpv6;
mod interface_id;
pub mod ipv4;
pub mod ipv6;
mod mac_address;
pub mod protocol;
pub mod tcp;
pub mod udp;

pub use embedded::{EmbeddedError, EmbeddedFlow, parse_embedded_v4, parse_embedded_v6};
pub use interface_id::InterfaceId;
pub use ipv4::{Ipv4, Ipv4Error, Ipv4Repr};
pub use ipv6::{Ipv6, Ipv6Error, Ipv6Repr};
pub use mac_address::{MacAddress, ParseMacAddressError};
pub use protocol::IpVersion;
pub use tcp::{Tcp, TcpError};
pub use udp::{Udp, UdpError};
