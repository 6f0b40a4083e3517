//! A descriptor in words, for people who look at one packet.

use std::net::{IpAddr, Ipv6Addr};

use sluice_abi::{Descriptor, flags};

/// The packet of a descriptor: `udp 192.0.2.1:5000 > 198.51.100.7:53, 100 bytes, ttl 64`.
#[must_use]
pub fn packet_text(descriptor: &Descriptor) -> String {
    let Descriptor { source_port, destination_port, length, ttl, protocol, .. } = *descriptor;
    let has_ports = descriptor.flags & flags::PORTS != 0;
    let end = |address: [u8; 16], port: u16| {
        let address = Ipv6Addr::from(address);
        match (address.to_ipv4_mapped().map_or(IpAddr::V6(address), IpAddr::V4), has_ports) {
            (address, false) => address.to_string(),
            (address, true) => std::net::SocketAddr::new(address, port).to_string(),
        }
    };
    let protocol = match protocol {
        1 => "icmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        other => format!("proto {other}"),
    };
    let mut text = format!(
        "{protocol} {} > {}, {length} bytes, ttl {ttl}",
        end(descriptor.source, source_port),
        end(descriptor.destination, destination_port),
    );
    if descriptor.tcp_flags != 0 {
        text.push_str(&format!(", tcp flags {:#04x}", descriptor.tcp_flags));
    }
    if descriptor.flags & flags::FRAGMENT != 0 {
        text.push_str(", fragment");
    }
    text
}
