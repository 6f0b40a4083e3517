//! Fragmentation of an IPv4 packet, RFC 791 section 3.2.
//!
//! ```text
//!  | header, all options    | payload                                          |
//!  | header, all options    | first part  |   | header, copied options | next ... |
//!                             multiple of 8                              multiple of 8, but the last
//! ```
//!
//! Terms of RFC 791: an option has the copied flag, the upper bit of its type, if it "is copied into all
//! fragments on fragmentation". A fragment is fragmented further like a whole packet: offsets count from
//! its own, and its last part has its own more-fragments flag.
//!
//! Deliberately absent: any judgement whether the packet may be fragmented (DF).

use crate::{checksum, field, ipv4};

const OPTION_END: u8 = 0;
const OPTION_NO_OPERATION: u8 = 1;
const OPTION_COPIED: u8 = 0x80;
const MORE_FRAGMENTS: u16 = 0x2000;
const UNUSED_FLAG: u16 = 0x8000;
const OPTIONS_LEN_MAX: usize = 40;

/// The fragments of one packet, by number.
#[derive(Clone, Debug)]
pub struct Fragmenter<'a> {
    packet: ipv4::Ipv4<'a>,
    copied: [u8; OPTIONS_LEN_MAX],
    copied_len: usize,
    /// Payload of the first fragment and of those between it and the last.
    first_len: usize,
    next_len: usize,
}

impl<'a> Fragmenter<'a> {
    /// The fragments of `packet`, each of at most `mtu` bytes. `None` if the MTU has no room for a header
    /// and 8 bytes (RFC 791 section 3.2: "Every internet module must be able to forward a datagram of 68 octets
    /// without further fragmentation"), or if the packet is a fragment that ends beyond 65,535 bytes.
    #[must_use]
    pub fn new(packet: ipv4::Ipv4<'a>, mtu: u16) -> Option<Self> {
        let end = usize::from(packet.fragment_offset_bytes()) + packet.payload().len();
        if end > usize::from(u16::MAX) {
            return None;
        }
        let mut copied = [OPTION_END; OPTIONS_LEN_MAX];
        let copied_len = copy_options(packet.options(), &mut copied)?;
        let room = |header_len: usize| Some(usize::from(mtu).checked_sub(header_len)? & !7);
        let first_len = room(packet.header_len())?;
        let next_len = room(ipv4::HEADER_LEN + copied_len)?;
        (first_len > 0).then_some(Self { packet, copied, copied_len, first_len, next_len })
    }

    /// Number of fragments, at least 1.
    #[must_use]
    pub fn count(&self) -> usize {
        let rest = self.packet.payload().len().saturating_sub(self.first_len);
        1 + rest.div_ceil(self.next_len)
    }

    /// Writes the fragment with this number, from 0, to the start of `out`. Returns its length, or `None`
    /// if there is no such fragment or `out` is too short.
    #[must_use]
    pub fn emit(&self, number: usize, out: &mut [u8]) -> Option<usize> {
        let payload = self.packet.payload();
        let (start, len, options) = match number.checked_sub(1) {
            None => (0, self.first_len, self.packet.options()),
            Some(before) => {
                let start = self.first_len + before * self.next_len;
                (start, self.next_len, self.copied.get(..self.copied_len)?)
            }
        };
        let rest = payload.get(start..).filter(|rest| !rest.is_empty() || number == 0)?;
        let is_last = rest.len() <= len;
        let part = rest.get(..len.min(rest.len()))?;
        let header_len = ipv4::HEADER_LEN + options.len();
        let total_len = header_len + part.len();
        let (header, body) = out.get_mut(..total_len)?.split_at_mut(header_len);
        body.copy_from_slice(part);
        let (base, copied) = header.split_first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
        copied.copy_from_slice(options);
        *base = *self.packet.header();
        let words = u8::try_from(header_len / 4).ok()?;
        field::set_u8::<{ ipv4::VERSION_IHL }, _>(base, 0x40 | words);
        field::set_u16::<{ ipv4::TOTAL_LEN }, _>(base, u16::try_from(total_len).ok()?);
        let offset = usize::from(self.packet.fragment_offset_bytes()) + start;
        let more = if is_last && !self.packet.more_fragments() { 0 } else { MORE_FRAGMENTS };
        let unused = field::u16_at::<{ ipv4::FRAGMENT }, _>(base) & UNUSED_FLAG;
        let word = unused | more | u16::try_from(offset >> 3).ok()?;
        field::set_u16::<{ ipv4::FRAGMENT }, _>(base, word);
        field::set_u16::<{ ipv4::CHECKSUM }, _>(base, 0);
        let checksum = checksum::internet_checksum(header);
        let base = header.first_chunk_mut::<{ ipv4::HEADER_LEN }>()?;
        field::set_u16::<{ ipv4::CHECKSUM }, _>(base, checksum);
        Some(total_len)
    }
}

/// Copies those options that every fragment carries, without the padding between them. Returns their
/// length, padded to a multiple of 4; `None` if the options are malformed.
fn copy_options(mut options: &[u8], copied: &mut [u8; OPTIONS_LEN_MAX]) -> Option<usize> {
    let mut len = 0_usize;
    loop {
        options = match *options {
            [] | [OPTION_END, ..] => return Some(len.next_multiple_of(4)),
            [OPTION_NO_OPERATION, ref rest @ ..] => rest,
            [kind, option_len, ..] if option_len >= 2 => {
                let (option, rest) = options.split_at_checked(usize::from(option_len))?;
                if kind & OPTION_COPIED != 0 {
                    copied.get_mut(len..len + option.len())?.copy_from_slice(option);
                    len += option.len();
                }
                rest
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use super::*;

    /// A packet with these options and this fragment word, whose payload counts up.
    fn packet(options: &[u8], fragment: u16, payload_len: usize) -> Vec<u8> {
        let header_len = 20 + options.len();
        let mut packet = vec![0; header_len];
        packet[0] = 0x40 | u8::try_from(header_len / 4).unwrap();
        let total = u16::try_from(header_len + payload_len).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[4..6].copy_from_slice(&[0xab, 0xcd]);
        packet[6..8].copy_from_slice(&fragment.to_be_bytes());
        packet[8..10].copy_from_slice(&[9, 17]);
        packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        packet[20..].copy_from_slice(options);
        let checksum = checksum::internet_checksum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend((0..payload_len).map(|at| u8::try_from(at % 251).unwrap()));
        packet
    }

    fn fragments(packet: &[u8], mtu: u16) -> Vec<Vec<u8>> {
        let fragmenter = Fragmenter::new(ipv4::Ipv4::parse(packet).unwrap(), mtu).unwrap();
        let emit = |number| {
            let mut out = vec![0xee; 4096];
            let len = fragmenter.emit(number, &mut out)?;
            out.truncate(len);
            Some(out)
        };
        let all: Vec<_> = (0..).map_while(emit).collect();
        assert_eq!(all.len(), fragmenter.count());
        all
    }

    /// What every fragment must be, and the payload that they make together.
    fn reassembled(packet: &[u8], mtu: u16) -> Vec<u8> {
        let whole = ipv4::Ipv4::parse(packet).unwrap();
        let all = fragments(packet, mtu);
        let mut payload = Vec::new();
        for (number, bytes) in all.iter().enumerate() {
            let fragment = ipv4::Ipv4::parse(bytes).expect("a valid header");
            assert_eq!(fragment.packet().len(), bytes.len());
            assert!(bytes.len() <= usize::from(mtu));
            assert_eq!(fragment.identification(), whole.identification());
            assert_eq!((fragment.ttl(), fragment.protocol()), (whole.ttl(), whole.protocol()));
            assert_eq!(
                usize::from(fragment.fragment_offset_bytes()),
                usize::from(whole.fragment_offset_bytes()) + payload.len()
            );
            let is_last = number + 1 == all.len();
            assert_eq!(fragment.more_fragments(), !is_last || whole.more_fragments());
            assert!(is_last || fragment.payload().len().is_multiple_of(8));
            payload.extend_from_slice(fragment.payload());
        }
        payload
    }

    #[test]
    fn fragments_make_the_packet_at_every_mtu() {
        let options = [0x94, 4, 0, 0, 1, 7, 7, 4, 0, 0, 0, 0];
        for options in [&[][..], &options] {
            for fragment in [0, 0x2000, 0x2007, 7] {
                let packet = packet(options, fragment, 1000);
                for mtu in 68..1100 {
                    let whole = ipv4::Ipv4::parse(&packet).unwrap();
                    assert_eq!(reassembled(&packet, mtu), whole.payload(), "MTU {mtu}");
                }
            }
        }
    }

    #[test]
    fn only_copied_options_are_copied() {
        // Record route (7) is not copied; router alert (148) and an unknown one (130, 3 bytes) are.
        let options = [1, 7, 7, 4, 0, 0, 0, 0, 148, 4, 0, 0, 130, 3, 9, 0];
        let packet = packet(&options, 0, 200);
        let all = fragments(&packet, 100);
        assert_eq!(ipv4::Ipv4::parse(&all[0]).unwrap().options(), options);
        for later in &all[1..] {
            let options = ipv4::Ipv4::parse(later).unwrap().options();
            assert_eq!(options, [148, 4, 0, 0, 130, 3, 9, 0]);
        }
    }

    #[test]
    fn what_cannot_be_done_is_not_done() {
        let whole = packet(&[], 0, 100);
        assert!(Fragmenter::new(ipv4::Ipv4::parse(&whole).unwrap(), 27).is_none());
        assert!(Fragmenter::new(ipv4::Ipv4::parse(&whole).unwrap(), 28).is_some());
        let beyond = packet(&[], 0x1fff, 100);
        assert!(Fragmenter::new(ipv4::Ipv4::parse(&beyond).unwrap(), 68).is_none());
        let fragmenter = Fragmenter::new(ipv4::Ipv4::parse(&whole).unwrap(), 68).unwrap();
        assert_eq!(fragmenter.emit(0, &mut [0; 67]), None);
        assert_eq!(fragmenter.emit(3, &mut [0; 100]), None);
    }
}
