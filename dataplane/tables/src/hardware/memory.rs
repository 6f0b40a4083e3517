//! Zeroed arrays of atomics on 2 MiB pages, which one thread changes while others read.
//!
//! A table of 32 MiB on 4 KiB pages needs 8,192 TLB entries, so that a random look-up misses the TLB
//! as well as the cache. The memory is reserved whole and faulted only where it is touched.
//!
//! Where the kernel gives no huge pages (switched off, or none free) the same memory is on small
//! pages: slower, never different. Under miri it is on the heap.
//!
//! The `unsafe` here is a view of a mapping as atomics: the safe way, a vector of them, is written
//! element by element, which faults all of it, and begins where the allocator likes.

use crate::FibError;
use crate::sync::AtomicU64;
#[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
use crate::sync::Ordering;

/// Atomics whose value is zero when their bytes are.
///
/// # Safety
/// All-zero bytes are a value of the type, which needs no drop and whose shared references may be
/// used from any thread.
pub(crate) unsafe trait Zeroed: Sync + Sized {
    /// Zero.
    #[cfg(loom)]
    fn zero() -> Self;
}

macro_rules! zeroed {
    ($($atomic:ident)*) => {
        $(
            // SAFETY: the standard library says of each atomic integer that it "has the same size and
            // bit validity as the underlying integer type", for which zero bytes are zero; atomics are
            // `Sync` and have no drop glue. Loom's are never taken from bytes, see below.
            unsafe impl Zeroed for crate::sync::$atomic {
                #[cfg(loom)]
                fn zero() -> Self {
                    Self::new(0)
                }
            }
        )*
    };
}

zeroed!(AtomicU16 AtomicU32 AtomicU64);

/// `LEN` atomics that were zero when it was made.
pub(crate) struct Memory<A, const LEN: usize> {
    cells: backing::Cells<A, LEN>,
}

impl<A: Zeroed, const LEN: usize> Memory<A, LEN> {
    /// Reserves the memory; no page of it is faulted yet.
    pub(crate) fn new() -> Result<Self, FibError> {
        Ok(Self { cells: backing::Cells::new()? })
    }

    /// The atomics.
    #[inline(always)]
    pub(crate) fn cells(&self) -> &[A; LEN] {
        self.cells.get()
    }
}

/// Parts of words, in one load each: shifting them out of a word takes five instructions of twenty.
///
/// ```text
///   word          0               1
///   half          0       1       2       3
///   sixteen bits  0   1   2   3   4   5   6   7
/// ```
///
/// Rust has no atomic load of a part of an atomic; on x86-64 the processor has (Intel SDM volume 3, "Guaranteed
/// Atomic Operations"), in order with other loads, and assembly says so.
pub(crate) struct Parts<'a, const LEN: usize>(pub(crate) &'a [AtomicU64; LEN]);

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
impl<const LEN: usize> Parts<'_, LEN> {
    /// The n-th sixteen bits.
    #[inline(always)]
    pub(crate) fn sixteen_bits(&self, n: usize) -> u16 {
        const { assert!(LEN.is_power_of_two()) };
        let found: u32;
        // SAFETY: it reads two aligned bytes of the array, to which the position is masked, and writes one
        // register. Whoever writes the word does so by stores of all of it.
        unsafe {
            core::arch::asm!(
                "movzx {found:e}, word ptr [{base} + {n}*2]",
                found = lateout(reg) found,
                base = in(reg) self.0.as_ptr(),
                n = in(reg) n & (4 * LEN - 1),
                options(readonly, nostack, preserves_flags),
            );
        }
        found as u16
    }

    /// The n-th half of a word.
    #[inline(always)]
    pub(crate) fn half(&self, n: usize) -> u32 {
        const { assert!(LEN.is_power_of_two()) };
        let found;
        // SAFETY: as above, of four bytes.
        unsafe {
            core::arch::asm!(
                "mov {found:e}, dword ptr [{base} + {n}*4]",
                found = lateout(reg) found,
                base = in(reg) self.0.as_ptr(),
                n = in(reg) n & (2 * LEN - 1),
                options(readonly, nostack, preserves_flags),
            );
        }
        found
    }
}

#[cfg(not(all(target_arch = "x86_64", not(any(miri, loom)))))]
impl<const LEN: usize> Parts<'_, LEN> {
    pub(crate) fn sixteen_bits(&self, n: usize) -> u16 {
        // Acquire, as what is read may name what was written before.
        (self.0[n / 4 & (LEN - 1)].load(Ordering::Acquire) >> (n % 4 * 16)) as u16
    }

    pub(crate) fn half(&self, n: usize) -> u32 {
        (self.0[n / 2 & (LEN - 1)].load(Ordering::Acquire) >> (n % 2 * 32)) as u32
    }
}

#[cfg(not(any(miri, loom)))]
mod backing {
    use std::marker::PhantomData;
    use std::ptr::NonNull;

    use memmap2::{Advice, MmapMut, MmapOptions};

    use super::Zeroed;
    use crate::FibError;

    const HUGE_PAGE_BYTES: usize = 2 << 20;

    pub(super) struct Cells<A, const LEN: usize> {
        /// The first 2 MiB boundary in the mapping.
        start: NonNull<[A; LEN]>,
        /// Never read or written through, only unmapped.
        _map: MmapMut,
        cells: PhantomData<A>,
    }

    // SAFETY: the mapping is reached through shared references to `A` alone, which is `Sync`; it can be
    // unmapped from any thread.
    unsafe impl<A: Zeroed, const LEN: usize> Send for Cells<A, LEN> {}
    // SAFETY: as above.
    unsafe impl<A: Zeroed, const LEN: usize> Sync for Cells<A, LEN> {}

    impl<A: Zeroed, const LEN: usize> Cells<A, LEN> {
        pub(super) fn new() -> Result<Self, FibError> {
            const { assert!(align_of::<A>() <= HUGE_PAGE_BYTES && size_of::<A>() * LEN > 0) };
            // One huge page more than needed: kernels before 6.7 do not align large mappings.
            let bytes = size_of::<A>() * LEN + HUGE_PAGE_BYTES;
            let mut map = MmapOptions::new()
                .len(bytes)
                .no_reserve_swap()
                .map_anon()
                .map_err(|error| FibError::Memory { bytes, error })?;
            // A refusal means small pages, with which everything works.
            let _ = map.advise(Advice::HugePage);
            let first = map.as_mut_ptr();
            // At most one huge page less one byte, so that `LEN` elements follow within `bytes`.
            let to_boundary = first.addr().next_multiple_of(HUGE_PAGE_BYTES) - first.addr();
            // SAFETY: `to_boundary` is less than the length of the mapping.
            let start = unsafe { first.add(to_boundary) };
            let start = NonNull::new(start.cast()).expect("a mapping is not at address 0");
            Ok(Self { start, _map: map, cells: PhantomData })
        }

        #[inline(always)]
        pub(super) fn get(&self) -> &[A; LEN] {
            // SAFETY: lifetime: `_map` lives as long as `self`, and the reference no longer. Bounds and
            // alignment: `new` left room for `LEN` elements behind a boundary of 2 MiB. Validity: the
            // kernel zeroed the pages, and zero is a value of `A` by `Zeroed`. Aliasing: nobody uses
            // `_map` but to unmap it, so that all access is through shared references to atomics, and
            // who else writes does so through them too.
            unsafe { self.start.as_ref() }
        }
    }
}

#[cfg(all(miri, not(loom)))]
mod backing {
    use super::Zeroed;
    use crate::FibError;

    pub(super) struct Cells<A, const LEN: usize>(Box<[A; LEN]>);

    impl<A: Zeroed, const LEN: usize> Cells<A, LEN> {
        pub(super) fn new() -> Result<Self, FibError> {
            // SAFETY: zero bytes are a value of `A` by `Zeroed`, so those of an array are as well.
            Ok(Self(unsafe { Box::new_zeroed().assume_init() }))
        }

        pub(super) fn get(&self) -> &[A; LEN] {
            &self.0
        }
    }
}

#[cfg(loom)]
mod backing {
    use super::Zeroed;
    use crate::FibError;

    pub(super) struct Cells<A, const LEN: usize>(Box<[A; LEN]>);

    impl<A: Zeroed, const LEN: usize> Cells<A, LEN> {
        pub(super) fn new() -> Result<Self, FibError> {
            Ok(Self(Box::new(std::array::from_fn(|_| A::zero()))))
        }

        pub(super) fn get(&self) -> &[A; LEN] {
            &self.0
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::Parts;
    use crate::sync::AtomicU64;

    #[test]
    fn parts_are_counted_from_the_low_end() {
        let words = [AtomicU64::new(0x3333_2222_1111_0000), AtomicU64::new(0x7777_6666_5555_4444)];
        let parts = Parts(&words);
        for n in 0..8 {
            assert_eq!(parts.sixteen_bits(n), n as u16 * 0x1111);
        }
        let halves = [0x1111_0000, 0x3333_2222, 0x5555_4444, 0x7777_6666];
        assert_eq!(std::array::from_fn(|n| parts.half(n)), halves);
        assert_eq!((parts.sixteen_bits(9), parts.half(7)), (0x1111, halves[3]), "within the array");
    }
}
