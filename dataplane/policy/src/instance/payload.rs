//! The part of each packet that a guest is shown: copied, and only so many bytes as it asked for.

use frame::{Frame, HookPoint};
use sluice_abi::{Descriptor, Edit, PayloadHeader};

use super::Instance;
use crate::{PayloadStart, PayloadWindow};

/// What a window shows of a packet: bytes of the IP packet alone, none of what surrounds it.
pub(crate) fn seen<'f>(
    window: PayloadWindow,
    point: HookPoint,
    frame: &'f Frame,
    of: &Descriptor,
) -> &'f [u8] {
    let bytes = frame.bytes();
    let (l3, l4) = (usize::from(of.l3_offset), usize::from(of.l4_offset));
    // By then the frame ends with the packet, and what stands in front of it has changed.
    let start = match point {
        HookPoint::Egress => bytes.len().saturating_sub(usize::from(of.length)),
        HookPoint::Ingress | HookPoint::Forward => l3,
    };
    let end = bytes.len().min(start + usize::from(of.length));
    let from = match window.from {
        PayloadStart::L3 => start,
        PayloadStart::L4 => start + l4.saturating_sub(l3),
    };
    bytes.get(from..end.min(from + window.bytes)).unwrap_or_default()
}

impl Instance {
    /// What the guest wants to see of packets.
    #[inline]
    pub(crate) const fn window(&self) -> Option<PayloadWindow> {
        self.window
    }

    /// Writes the payload of the packets of a call. `None` never comes for areas that were checked.
    pub(crate) fn place_payload<'f>(
        &mut self,
        packets: impl Iterator<Item = &'f [u8]>,
    ) -> Option<()> {
        let (start, stride) = self.areas.payload?;
        let area = self.guest.memory_mut().get_mut(start..)?;
        for (entry, bytes) in area.chunks_exact_mut(stride).zip(packets) {
            let header = PayloadHeader { len: u16::try_from(bytes.len()).ok()?, reserved: [0; 3] };
            let (to, rest) = entry.split_at_mut_checked(size_of::<PayloadHeader>())?;
            to.copy_from_slice(bytemuck::bytes_of(&header));
            rest.get_mut(..bytes.len())?.copy_from_slice(bytes);
        }
        Some(())
    }

    /// The edit of packet `index` of the last call as the guest wrote it, to be kept with its verdict.
    pub(crate) fn raw_edit(&self, index: usize) -> Edit {
        let edit = self.areas.edits.and_then(|(start, stride)| {
            let start = start + index * stride;
            self.guest.memory().get(start..start + size_of::<Edit>())
        });
        edit.map(bytemuck::pod_read_unaligned).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> Frame {
        let mut frame = Frame::new(Box::leak(Box::new([0; frame::CHUNK_BYTES])), 0);
        frame.reset(bytes.len()).expect("it fits").copy_from_slice(bytes);
        frame
    }

    #[test]
    fn a_window_shows_the_packet_and_nothing_around_it() {
        // Link layer 14, IP header 20, then ten bytes, then padding.
        let bytes: Vec<u8> = (0..60).collect();
        let of = Descriptor { l3_offset: 14, l4_offset: 34, length: 30, ..Descriptor::default() };
        let shown = |from, bytes_max, point, frame: &Frame, of: &Descriptor| {
            seen(PayloadWindow { from, bytes: bytes_max, optional: false }, point, frame, of)
                .to_vec()
        };
        let whole = frame(&bytes);
        for point in [HookPoint::Ingress, HookPoint::Forward] {
            assert_eq!(shown(PayloadStart::L3, 4, point, &whole, &of), [14, 15, 16, 17]);
            assert_eq!(shown(PayloadStart::L3, 2048, point, &whole, &of), bytes[14..44]);
            assert_eq!(shown(PayloadStart::L4, 9, point, &whole, &of), bytes[34..43]);
            assert_eq!(shown(PayloadStart::L4, 11, point, &whole, &of), bytes[34..44]);
        }
        // At egress in a tunnel: other headers in front, no padding behind.
        let sent = frame(&[&[0xff; 42], &bytes[14..44]].concat());
        assert_eq!(shown(PayloadStart::L4, 100, HookPoint::Egress, &sent, &of), bytes[34..44]);
        assert_eq!(shown(PayloadStart::L3, 1, HookPoint::Egress, &sent, &of), [14]);
        // Offsets that lie show nothing.
        let lies = Descriptor { l4_offset: 9999, ..of };
        assert!(shown(PayloadStart::L4, 9, HookPoint::Ingress, &whole, &lies).is_empty());
        let lies = Descriptor { l3_offset: 61, l4_offset: 61, ..of };
        assert!(shown(PayloadStart::L3, 9, HookPoint::Ingress, &whole, &lies).is_empty());
    }
}
