//! Plugins under test, natively: [`Bench`] drives one, and [`Host`] plays the router's services.

mod bench;
pub(crate) mod doubles;
mod host;
pub mod trial;

pub use bench::{Answer, Bench, Seen};
pub use host::Host;

use sluice_abi::Descriptor;

/// A descriptor of a UDP packet over IPv4.
#[must_use]
pub fn ipv4(source: [u8; 4], destination: [u8; 4]) -> Descriptor {
    let mapped = |[a, b, c, d]: [u8; 4]| [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
    Descriptor {
        source: mapped(source),
        destination: mapped(destination),
        protocol: 17,
        flags: sluice_abi::flags::PORTS,
        length: 60,
        ttl: 64,
        ..Descriptor::default()
    }
}

/// A descriptor of a UDP packet over IPv6.
#[must_use]
pub fn ipv6(source: [u16; 8], destination: [u16; 8]) -> Descriptor {
    Descriptor {
        source: std::net::Ipv6Addr::from(source).octets(),
        destination: std::net::Ipv6Addr::from(destination).octets(),
        protocol: 17,
        flags: sluice_abi::flags::PORTS | sluice_abi::flags::IPV6,
        length: 80,
        ttl: 64,
        ..Descriptor::default()
    }
}
