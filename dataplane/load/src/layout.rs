//! A frame's bytes: filled from an image and a tag, and the place of the tag in a received one.

use wire::{checksum, ethernet, ipv6, protocol, udp};
use xdp::tester::Image;

use crate::tag::TAG_LEN;

/// Writes the packet of `image` with `tag` over `frame`, which has the image's length.
#[inline]
pub(crate) fn fill(frame: &mut [u8], image: &Image, tag: &[u8; TAG_LEN]) {
    let known = frame.len().min(image.bytes.len());
    frame[..known].copy_from_slice(&image.bytes[..known]);
    frame[known..].fill(0);
    let at = usize::from(image.tag_offset);
    frame[at..at + TAG_LEN].copy_from_slice(tag);
    let at = usize::from(image.checksum_offset);
    if at != 0 {
        let sum = checksum::ones_complement_sum(tag, image.checksum_base);
        frame[at..at + 2].copy_from_slice(&finish(sum));
    }
}

/// The checksum's bytes for a sum of all that it covers.
#[inline]
pub(crate) fn finish(sum: u32) -> [u8; 2] {
    match !checksum::fold(sum) {
        // Both are zero in one's complement; UDP has given 0 another meaning (RFC 768).
        0 => [0xff, 0xff],
        sum => sum.to_be_bytes(),
    }
}

/// Offset of the payload of a UDP or TCP packet and its end: not a fragment, and without IPv6
/// extension headers. `None` for all else.
pub(crate) fn payload_bounds(frame: &[u8]) -> Option<(usize, usize)> {
    let packet = ethernet::payload(frame)?;
    let (header_len, end, protocol) = match ethernet::ethertype(frame)? {
        ethernet::ETHERTYPE_IPV4 => {
            let ip = wire::Ipv4::parse(packet).ok()?;
            if ip.is_fragment() {
                return None;
            }
            (ip.header_len(), usize::from(ip.total_len()), ip.protocol())
        }
        ethernet::ETHERTYPE_IPV6 => {
            let ip = wire::Ipv6::parse(packet).ok()?;
            (ipv6::HEADER_LEN, ip.total_len(), ip.next_header())
        }
        _ => return None,
    };
    let l4 = packet.get(header_len..end)?;
    let l4_header_len = match protocol {
        protocol::UDP => wire::Udp::parse(l4).ok().map(|_| udp::HEADER_LEN)?,
        protocol::TCP => wire::Tcp::parse(l4).ok()?.header_len(),
        _ => return None,
    };
    let start = ethernet::HEADER_LEN + header_len;
    Some((start + l4_header_len, start + l4.len()))
}

/// Where the tag of a received packet would be; `None` if it has no room for one.
#[inline]
pub(crate) fn locate_tag(frame: &[u8]) -> Option<&[u8; TAG_LEN]> {
    let (start, end) = payload_bounds(frame)?;
    frame.get(start..end)?.first_chunk()
}
