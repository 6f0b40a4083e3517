//! [`Image`]: a packet in all but its tag, and where the tag belongs.

use super::TesterError;

/// Bytes of a packet that an image holds. The rest of a longer frame is zero.
pub const IMAGE_BYTES: usize = 112;

/// Bytes of a tag.
pub const TAG_LEN: usize = 18;

/// The shortest frame, without check sequence: what Ethernet allows.
pub const FRAME_LEN_MIN: usize = 60;

/// The longest frame that a [`LiveSender`](super::LiveSender) sends, without check sequence. A live
/// frame shares its page with the kernel's notes about it (`struct xdp_page_head` of
/// net/bpf/test_run.c, at most 128 bytes), the XDP headroom (256) and `skb_shared_info` (320).
pub const FRAME_LEN_MAX: usize = 4096 - 128 - 256 - 320;

/// A packet in all but its tag: its first bytes, its length, and where tag and checksum belong.
///
/// ```text
///  0                    checksum_offset      tag_offset  +18             112      frame_len
///  +----------+---------+----------+---------+-----------+----------------+  - - - -+
///  | Ethernet |   IP    |   L4 ...|csum| ... |    tag    |  more payload  |  zeros  |
///  +----------+---------+----------+---------+-----------+----------------+  - - - -+
/// ```
///
/// The sender copies `bytes`, writes the tag at `tag_offset`, and completes the L4 checksum: to
/// `checksum_base`, the one's-complement sum (RFC 1071) of pseudo header, L4 header and payload with
/// checksum and tag zero, it adds the nine 16-bit words of the tag, all as numbers in network byte
/// order, and writes the complement of the folded sum. 0 is written as `0xffff`, as UDP demands and
/// TCP allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Image {
    /// The packet's first bytes from the Ethernet header on, with the places of tag and L4 checksum
    /// zero. Bytes beyond `frame_len` are not sent.
    pub bytes: [u8; IMAGE_BYTES],
    /// Bytes of the frame, without check sequence: [`FRAME_LEN_MIN`] to [`FRAME_LEN_MAX`].
    pub frame_len: u16,
    /// Where the tag starts. Even, and the whole tag lies within image and frame.
    pub tag_offset: u16,
    /// Where the L4 checksum stands, even; 0 if there is none to fill in.
    pub checksum_offset: u16,
    /// Zero.
    pub reserved: u16,
    /// The sum that the tag is added to. Need not be folded.
    pub checksum_base: u32,
    /// Zero.
    pub reserved2: u32,
}

const _: () = assert!(size_of::<Image>() == 128);

impl Image {
    /// Whether a program can be trusted with this image, which is number `number` of its kind.
    ///
    /// # Errors
    /// [`TesterError::Image`], with what is wrong.
    pub fn check(&self, number: usize) -> Result<(), TesterError> {
        let frame_len = usize::from(self.frame_len);
        let held = frame_len.min(IMAGE_BYTES);
        let tag = usize::from(self.tag_offset);
        let checksum = usize::from(self.checksum_offset);
        let wrong = |what: String| Err(TesterError::Image { number, what });
        if !(FRAME_LEN_MIN..=FRAME_LEN_MAX).contains(&frame_len) {
            return wrong(format!(
                "its frame has {frame_len} bytes, not {FRAME_LEN_MIN} to {FRAME_LEN_MAX}"
            ));
        }
        if tag % 2 != 0 || tag + TAG_LEN > held {
            return wrong(format!(
                "the tag would start at byte {tag}, but that must be even and at most {}",
                held - TAG_LEN
            ));
        }
        if checksum % 2 != 0
            || checksum + 2 > held
            || (checksum != 0 && checksum + 2 > tag && checksum < tag + TAG_LEN)
        {
            return wrong(format!(
                "the checksum would stand at byte {checksum}, but that must be even, at most {}, and \
                 not in the tag",
                held - 2
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(frame_len: u16, tag_offset: u16, checksum_offset: u16) -> Image {
        Image { frame_len, tag_offset, checksum_offset, ..bytemuck::Zeroable::zeroed() }
    }

    #[test]
    fn what_the_programs_rely_on_is_checked() {
        for good in [image(60, 42, 40), image(60, 42, 0), image(3392, 94, 50), image(80, 62, 60)] {
            assert!(good.check(0).is_ok(), "{good:?}");
        }
        for bad in [
            image(59, 30, 0),
            image(3393, 42, 40),
            image(60, 44, 40),
            image(60, 41, 0),
            image(1514, 96, 40),
            image(1514, 42, 41),
            image(1514, 42, 112),
            image(1514, 42, 42),
            image(1514, 42, 58),
        ] {
            assert!(matches!(bad.check(7), Err(TesterError::Image { number: 7, .. })), "{bad:?}");
        }
    }
}
