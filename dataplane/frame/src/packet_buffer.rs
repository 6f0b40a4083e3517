//! [`Frame`]: the move-only owner of one chunk that holds a packet.
//!
//! ```text
//!  0            start                  start+len              CHUNK_BYTES
//!  +--------------+------------------------+-----------------------+
//!  |   headroom   |         packet         |        tailroom       |
//!  +--------------+------------------------+-----------------------+
//!         <- prepend     trim_front ->     (set_len)
//! ```
//!
//! A chunk is borrowed for `'static`: the memory behind it lives as long as the process, so that
//! whoever holds the reference is its one owner, and moving a frame moves 16 bytes.

use wire::InterfaceId;

/// Size of a chunk in bytes. ENA's zero-copy mode asks for chunks of a page, and a power of two
/// keeps address arithmetic to a shift.
pub const CHUNK_BYTES: usize = 4096;

/// Room in front of a received packet, in bytes, at the least: `XDP_PACKET_HEADROOM` of the kernel.
/// The longest encapsulation (IPv6 and GRE with all its fields, 56 bytes) fits four times.
pub const HEADROOM_BYTES: usize = 256;

/// The move-only owner of one chunk that holds a packet.
#[derive(Debug)]
#[must_use = "a frame that is dropped loses its chunk: give it to a queue or back to its pool"]
pub struct Frame {
    chunk: &'static mut [u8; CHUNK_BYTES],
    /// Start, length, home and ingress, in this order from the low bits up, 16 bits each. As one number
    /// a frame travels in two registers, and no part of it is ever read back wider than it was written,
    /// for which the processor would wait until the store has left its buffer.
    place: u64,
}

const LEN_SHIFT: u32 = 16;
const HOME_SHIFT: u32 = 32;
const INGRESS_SHIFT: u32 = 48;

const _: () = assert!(size_of::<Frame>() == 16);

impl Frame {
    /// A frame on `chunk`, empty, with [`HEADROOM_BYTES`] of headroom. `home` is the number of the
    /// worker whose pool the chunk belongs to.
    #[inline]
    pub fn new(chunk: &'static mut [u8; CHUNK_BYTES], home: u16) -> Self {
        Self { chunk, place: HEADROOM_BYTES as u64 | u64::from(home) << HOME_SHIFT }
    }

    /// Gives up the frame for its chunk.
    #[inline]
    #[must_use]
    pub fn into_chunk(self) -> &'static mut [u8; CHUNK_BYTES] {
        self.chunk
    }

    /// Address of the chunk, for rings that turn it into an offset.
    #[inline]
    #[must_use]
    pub fn chunk_address(&self) -> usize {
        self.chunk.as_ptr() as usize
    }

    /// Number of the worker whose pool the chunk belongs to.
    #[inline]
    #[must_use]
    pub fn home(&self) -> u16 {
        (self.place >> HOME_SHIFT) as u16
    }

    /// The interface that received the packet, or that an originated packet is charged to.
    #[inline]
    #[must_use]
    pub fn ingress(&self) -> InterfaceId {
        InterfaceId((self.place >> INGRESS_SHIFT) as u8)
    }

    /// Sets the interface that received the packet.
    #[inline]
    pub fn set_ingress(&mut self, ingress: InterfaceId) {
        let rest = self.place & ((1 << INGRESS_SHIFT) - 1);
        self.place = rest | u64::from(ingress.0) << INGRESS_SHIFT;
    }

    /// Offset of the packet in its chunk, in bytes.
    #[inline]
    #[must_use]
    pub fn start(&self) -> usize {
        usize::from(self.place as u16)
    }

    /// Length of the packet in bytes.
    #[inline]
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "an empty frame is not a case")]
    pub fn len(&self) -> usize {
        usize::from((self.place >> LEN_SHIFT) as u16)
    }

    /// Says where in the chunk the packet lies, as a ring reported it. Returns false, and leaves the
    /// frame as it was, when that does not fit a chunk.
    #[inline]
    #[must_use]
    pub fn set_bounds(&mut self, start: usize, len: usize) -> bool {
        if start > CHUNK_BYTES || len > CHUNK_BYTES - start {
            return false;
        }
        let rest = self.place >> HOME_SHIFT << HOME_SHIFT;
        self.place = rest | (len as u64) << LEN_SHIFT | start as u64;
        true
    }

    /// The packet, from its Ethernet header on.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let start = self.start();
        &self.chunk[start..start + self.len()]
    }

    /// The packet, from its Ethernet header on, for writing.
    #[inline]
    #[must_use]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (start, len) = (self.start(), self.len());
        &mut self.chunk[start..start + len]
    }

    /// Grows the packet by `count` bytes at its front, whose content is whatever was there, and
    /// returns the whole packet. `None`, and no change, without that much headroom.
    #[inline]
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let start = self.start().checked_sub(count)?;
        let len = self.len() + count;
        self.set_bounds(start, len).then(|| self.bytes_mut())
    }

    /// Puts `count` bytes, whose content is whatever was there, in place of the first `cut` of the
    /// packet, and cuts it behind the `keep` bytes that follow those. Returns the whole packet. `None`,
    /// and no change, when the packet is shorter than that, or without that much headroom.
    #[inline]
    pub fn replace_front(&mut self, cut: usize, keep: usize, count: usize) -> Option<&mut [u8]> {
        if cut.saturating_add(keep) > self.len() {
            return None;
        }
        let start = (self.start() + cut).checked_sub(count)?;
        self.set_bounds(start, count + keep).then(|| self.bytes_mut())
    }

    /// Cuts `count` bytes from the front of the packet. Returns false, and leaves the frame as it
    /// was, when the packet is shorter.
    #[inline]
    #[must_use]
    pub fn trim_front(&mut self, count: usize) -> bool {
        let (start, len) = (self.start(), self.len());
        count <= len && self.set_bounds(start + count, len - count)
    }

    /// Replaces the packet by `len` bytes at the usual headroom, whose content is whatever was
    /// there, and returns them. `None`, and no change, when they do not fit.
    #[inline]
    pub fn reset(&mut self, len: usize) -> Option<&mut [u8]> {
        self.set_bounds(HEADROOM_BYTES, len).then(|| self.bytes_mut())
    }

    /// Cuts the packet to its first `len` bytes (it may also grow into the tailroom). Returns false,
    /// and leaves the frame as it was, when that does not fit the chunk.
    #[inline]
    #[must_use]
    pub fn set_len(&mut self, len: usize) -> bool {
        self.set_bounds(self.start(), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame::new(Box::leak(Box::new([0; CHUNK_BYTES])), 3)
    }

    #[test]
    fn bounds_outside_the_chunk_are_refused() {
        let mut frame = frame();
        assert!(frame.set_bounds(CHUNK_BYTES - 1, 1));
        assert!(!frame.set_bounds(CHUNK_BYTES - 1, 2));
        assert!(!frame.set_bounds(CHUNK_BYTES + 1, 0));
        assert!(!frame.set_bounds(usize::MAX, 1));
        assert_eq!((frame.start(), frame.len()), (CHUNK_BYTES - 1, 1));
    }

    #[test]
    fn prepend_takes_headroom_and_trim_gives_it_back() {
        let mut frame = frame();
        frame.reset(20).expect("20 bytes fit").fill(7);
        assert!(frame.prepend(HEADROOM_BYTES + 1).is_none());
        assert_eq!(frame.prepend(28).expect("headroom").len(), 48);
        assert_eq!(frame.start(), HEADROOM_BYTES - 28);
        assert!(frame.trim_front(28));
        assert_eq!(frame.bytes(), [7; 20]);
        assert!(!frame.trim_front(21));
        assert_eq!(frame.home(), 3);
    }

    #[test]
    fn a_front_is_replaced_and_what_is_behind_the_packet_cut() {
        let mut frame = frame();
        let packet = frame.reset(20).expect("20 bytes fit");
        (0_u8..).zip(packet).for_each(|(n, byte)| *byte = n);
        assert_eq!(frame.replace_front(14, 4, 42).expect("headroom").len(), 46);
        assert_eq!(frame.start(), HEADROOM_BYTES + 14 - 42);
        assert_eq!(frame.bytes()[42..], [14, 15, 16, 17]);
        let before = (frame.start(), frame.len());
        assert!(frame.replace_front(42, 5, 0).is_none());
        assert!(frame.replace_front(usize::MAX, 1, 0).is_none());
        assert!(frame.replace_front(0, 46, HEADROOM_BYTES + 1).is_none());
        assert_eq!((frame.start(), frame.len()), before);
        assert_eq!(frame.replace_front(42, 4, 0).expect("shorter"), [14, 15, 16, 17]);
    }
}
