//! Addresses between the descriptor's 16 bytes and the types of `core::net`.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use wire::flow;

/// The address of a descriptor: IPv4 where it is IPv4-mapped (the parser refuses those on IPv6).
#[inline]
pub(crate) fn ip(address: &[u8; 16]) -> IpAddr {
    match flow::as_ipv4(address) {
        Some(address) => IpAddr::V4(Ipv4Addr::from(address)),
        None => IpAddr::V6(Ipv6Addr::from(*address)),
    }
}

/// The IPv4 address in the last 4 bytes of a mapped one, in host order.
#[inline]
pub(crate) fn v4_bits(address: &[u8; 16]) -> u32 {
    let [.., a, b, c, d] = *address;
    u32::from_be_bytes([a, b, c, d])
}

/// The IPv6 address in host order.
#[inline]
pub(crate) fn v6_bits(address: &[u8; 16]) -> u128 {
    u128::from_be_bytes(*address)
}
