//! Fields at fixed offsets of a header, with the bounds checked by the compiler.
//!
//! Invariant: each access is proved in range when it is compiled (`AT + LEN <= N`), so that none
//! has a run-time check and none can panic.

/// The `LEN` bytes at `AT`.
#[inline]
pub(crate) const fn array<const AT: usize, const LEN: usize, const N: usize>(
    bytes: &[u8; N],
) -> &[u8; LEN] {
    const { assert!(AT + LEN <= N) };
    match bytes.split_at(AT).1.first_chunk() {
        Some(field) => field,
        // Removed by the compiler: the assertion above is this case.
        None => unreachable!(),
    }
}

/// The `LEN` bytes at `AT`, to write.
#[inline]
pub(crate) const fn array_mut<const AT: usize, const LEN: usize, const N: usize>(
    bytes: &mut [u8; N],
) -> &mut [u8; LEN] {
    const { assert!(AT + LEN <= N) };
    match bytes.split_at_mut(AT).1.first_chunk_mut() {
        Some(field) => field,
        // Removed by the compiler: the assertion above is this case.
        None => unreachable!(),
    }
}

/// The byte at `AT`.
#[inline]
pub(crate) const fn u8_at<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u8 {
    let [byte] = *array::<AT, 1, N>(bytes);
    byte
}

/// The 16-bit number at `AT`.
#[inline]
pub(crate) const fn u16_at<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u16 {
    u16::from_be_bytes(*array::<AT, 2, N>(bytes))
}

/// The 32-bit number at `AT`.
#[inline]
pub(crate) const fn u32_at<const AT: usize, const N: usize>(bytes: &[u8; N]) -> u32 {
    u32::from_be_bytes(*array::<AT, 4, N>(bytes))
}

/// Writes the byte at `AT`.
#[inline]
pub(crate) const fn set_u8<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u8) {
    *array_mut::<AT, 1, N>(bytes) = [value];
}

/// Writes the 16-bit number at `AT`.
#[inline]
pub(crate) const fn set_u16<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u16) {
    *array_mut::<AT, 2, N>(bytes) = value.to_be_bytes();
}

/// Writes the 32-bit number at `AT`.
#[inline]
pub(crate) const fn set_u32<const AT: usize, const N: usize>(bytes: &mut [u8; N], value: u32) {
    *array_mut::<AT, 4, N>(bytes) = value.to_be_bytes();
}
