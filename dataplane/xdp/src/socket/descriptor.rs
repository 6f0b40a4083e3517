//! [`DescriptorLayout`]: writes address and length of a descriptor of xsk-rs, which has no setter
//! for them.
//!
//! A router needs descriptors for any address of the UMEM: an encapsulation moves the start of the
//! packet into the headroom, and a frame that one queue received is sent by another. `FrameDesc` is
//! a plain `Copy` struct of integers, but Rust does not say in which order they lie. So the offsets
//! are *probed* once per UMEM: a pattern is written at each candidate offset of a scratch
//! descriptor, and the getters tell which field it hit. A version of xsk-rs with other fields makes
//! the probe fail at start; it cannot write astray.

use xsk_rs::FrameDesc;

/// Where in a `FrameDesc` the two fields lie, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DescriptorLayout {
    address_at: usize,
    length_at: usize,
}

impl DescriptorLayout {
    /// Determines the layout, or `None` when a field is not found exactly once, or when writing it
    /// changes another one.
    pub(super) fn probe() -> Option<Self> {
        let address_at = Self::find(|desc| {
            (desc.addr() == PATTERN && desc.lengths().data() == 0) && is_rest_zero(desc)
        })?;
        let length_at = Self::find(|desc| {
            (desc.addr() == 0 && desc.lengths().data() == PATTERN) && is_rest_zero(desc)
        })?;
        let layout = Self { address_at, length_at };
        let desc = layout.describe(0x1234_5678, 0x9ab);
        (desc.addr() == 0x1234_5678 && desc.lengths().data() == 0x9ab && is_rest_zero(&desc))
            .then_some(layout)
    }

    fn find(is_hit: impl Fn(&FrameDesc) -> bool) -> Option<usize> {
        let mut hits = (0..=size_of::<FrameDesc>() - size_of::<usize>())
            .step_by(align_of::<usize>())
            .filter(|&offset| {
                let mut desc = FrameDesc::default();
                write(&mut desc, offset, PATTERN);
                is_hit(&desc)
            });
        let first = hits.next()?;
        hits.next().is_none().then_some(first)
    }

    /// A descriptor of `length` bytes at `address`, an offset from the start of the UMEM.
    #[inline]
    pub(super) fn describe(self, address: usize, length: usize) -> FrameDesc {
        let mut desc = FrameDesc::default();
        write(&mut desc, self.address_at, address);
        write(&mut desc, self.length_at, length);
        desc
    }
}

/// Distinct in every byte, so that a write that hits two fields in part is seen.
const PATTERN: usize = 0x0102_0304_0506_0708;

fn is_rest_zero(desc: &FrameDesc) -> bool {
    desc.options() == 0 && desc.lengths().headroom() == 0
}

/// Writes one word into a descriptor.
#[inline]
fn write(desc: &mut FrameDesc, offset: usize, value: usize) {
    debug_assert!(offset + size_of::<usize>() <= size_of::<FrameDesc>());
    // SAFETY: `desc` is borrowed exclusively, so nobody else reads or writes it, and the pointer does
    // not outlive the statement. In bounds: `find` only tries offsets with a whole word before the
    // end, and `DescriptorLayout` only holds offsets that `find` returned. Every bit pattern is
    // valid: all fields of `FrameDesc` are `usize` or `u32`, which the probe confirms by reading
    // each of them back.
    unsafe { std::ptr::from_mut(desc).byte_add(offset).cast::<usize>().write_unaligned(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probed_descriptors_read_back_as_written() {
        let layout = DescriptorLayout::probe().expect("the layout of xsk-rs 0.11 is known");
        for (address, length) in [(0, 0), (4096 + 228, 1514), (usize::MAX >> 1, 4096)] {
            let desc = layout.describe(address, length);
            assert_eq!(desc.addr(), address);
            assert_eq!(desc.lengths().data(), length);
            assert_eq!(desc.lengths().headroom(), 0);
            assert_eq!(desc.options(), 0);
        }
    }
}
