//! What the parser makes of a frame or an address by itself, for those who ask without sending a packet.

use core::net::{IpAddr, Ipv6Addr};

use frame::{Descriptor, DropReason};
use tables::HeaderRules;
use wire::ethernet;

use crate::parse::{judge_v4, judge_v6, packet_v4, packet_v6};

/// Whether packets to an address are looked up at all, as the parser of the packet path decides it: some
/// addresses are never forwarded to, whatever routes say.
///
/// # Errors
/// Why the router drops them.
pub fn judge_destination(address: IpAddr, rules: HeaderRules) -> Result<(), DropReason> {
    // Sources that say nothing against a packet.
    match address {
        IpAddr::V4(address) => judge_v4(0xc000_0201, address.to_bits(), rules),
        IpAddr::V6(address) => {
            let source = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
            judge_v6(&source.octets(), &address.octets())
        }
    }
}

/// What plugins at `ingress` would be shown of a frame that came in by the first interface: its headers
/// read by the parser of the packet path. Whom the frame is for on its link is not looked at.
///
/// # Errors
/// Why the router would have dropped the frame before any plugin.
pub fn describe(frame: &[u8]) -> Result<Descriptor, DropReason> {
    let Some(([.., t0, t1], _)) = frame.split_first_chunk::<{ ethernet::HEADER_LEN }>() else {
        return Err(DropReason::FrameTruncated);
    };
    let mut descriptor = Descriptor::default();
    let parse = match u16::from_be_bytes([*t0, *t1]) {
        ethernet::ETHERTYPE_IPV4 => packet_v4,
        ethernet::ETHERTYPE_IPV6 => packet_v6,
        _ => return Err(DropReason::NotIp),
    };
    parse(frame, ethernet::HEADER_LEN, 0, HeaderRules::default(), &mut descriptor)?;
    Ok(descriptor)
}
