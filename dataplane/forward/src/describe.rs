//! A frame's descriptor by itself, for those who try a plugin without a router.

use frame::{Descriptor, DropReason};
use tables::HeaderRules;
use wire::ethernet;

use crate::parse::{packet_v4, packet_v6};

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
