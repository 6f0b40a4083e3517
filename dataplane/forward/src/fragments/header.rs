//! [`Piece`]: what a fragment says of the packet that it is a part of.

use frame::{Descriptor, DropReason, Frame};
use sluice_abi::flags;
use wire::{flow, ipv4, ipv6};

/// What all fragments of one packet have in common: RFC 791 section 3.2, and RFC 8200 section 4.5, where
/// the next header may differ from fragment to fragment and takes no part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    source: [u8; 16],
    destination: [u8; 16],
    identification: u32,
    /// 0 for IPv6.
    protocol: u8,
}

impl Key {
    /// The same for all fragments of a packet.
    pub(crate) fn hash(&self) -> u32 {
        let [a, b, c, d] = self.identification.to_be_bytes();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        flow::hash(&self.source, &self.destination, high, low, self.protocol)
    }
}

/// One fragment: whose part it is, and which.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) key: Key,
    /// Where it begins in the packet's payload, in bytes.
    pub(crate) start: u16,
    /// Where it ends.
    pub(crate) end: u16,
    /// Others follow it.
    pub(crate) more: bool,
}

/// Reads the headers of a fragment once more; the parser found them sound.
pub(crate) fn read(frame: &Frame, descriptor: &Descriptor) -> Result<Piece, DropReason> {
    let packet = frame.bytes().get(usize::from(descriptor.l3_offset)..).unwrap_or_default();
    let is_v6 = descriptor.flags & flags::IPV6 != 0;
    let fields = if is_v6 { fields_v6(packet) } else { fields_v4(packet) };
    let Fields { identification, start, len, more } =
        fields.ok_or(DropReason::FragmentMalformed)?;
    // RFC 8200 section 4.5: "If the length of a fragment [...] is not a multiple of 8 octets and the M
    // flag of that fragment is 1, then that fragment must be discarded", and so must one such that "the
    // Payload Length of the packet reassembled from that fragment would exceed 65,535 octets".
    let end = usize::from(start) + len;
    let (Ok(end), false) = (u16::try_from(end), len == 0 || more && !len.is_multiple_of(8)) else {
        return Err(DropReason::FragmentMalformed);
    };
    let key = Key {
        source: descriptor.source,
        destination: descriptor.destination,
        identification,
        protocol: if is_v6 { 0 } else { descriptor.protocol },
    };
    Ok(Piece { key, start, end, more })
}

struct Fields {
    identification: u32,
    start: u16,
    len: usize,
    more: bool,
}

fn fields_v4(packet: &[u8]) -> Option<Fields> {
    let header = ipv4::Ipv4::parse(packet).ok()?;
    Some(Fields {
        identification: u32::from(header.identification()),
        start: header.fragment_offset_bytes(),
        len: header.payload().len(),
        more: header.more_fragments(),
    })
}

fn fields_v6(packet: &[u8]) -> Option<Fields> {
    let header = ipv6::Ipv6::parse(packet).ok()?;
    let payload = header.payload();
    let fragment = ipv6::walk_extensions(header.next_header(), payload).ok()?.fragment?;
    Some(Fields {
        identification: fragment.identification,
        start: fragment.offset_bytes,
        len: payload.len().checked_sub(fragment.header_offset + 8)?,
        more: fragment.more,
    })
}
