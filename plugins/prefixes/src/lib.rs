//! Prefix sets in a plugin's own memory: what an operator writes becomes prefixes, and prefixes
//! become tables that are asked packet by packet.
//!
//! ```text
//!  "10.0.0.0/8" --parse--> IpNet --PrefixMap--> Map4 (three loads) | Map6 (binary search) --> u16
//! ```
//!
//! Invariants: tables are built once and never change; every address of a family has a value; a
//! look-up allocates nothing and its time does not depend on the address, so that branches are
//! predicted. An IPv4 address in an IPv6 one (`::ffff:0:0/96`) is an IPv4 address, here and nowhere
//! else.
//!
//! Deliberately absent: changes in place. A plugin is configured anew instead.
#![forbid(unsafe_code)]

mod map;
mod map4;
mod map6;
mod parse;

pub use map::PrefixMap;
pub use map4::Map4;
pub use map6::Map6;
pub use parse::{PrefixError, parse, parse_address};

/// A table would not fit: more than 65,536 pages, values or intervals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the prefixes do not fit a table: fewer of them, or shorter ones")]
pub struct TooLarge;

/// The four bytes of an IPv4 address as a descriptor holds it, `::ffff:a.b.c.d`.
#[inline]
#[must_use]
pub const fn v4_bits(mapped: &[u8; 16]) -> u32 {
    let [.., a, b, c, d] = *mapped;
    u32::from_be_bytes([a, b, c, d])
}
