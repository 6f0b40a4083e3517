//! [`StateWriter`]: what an instance hands over to its successor.

use core::fmt;

/// The state does not fit the manifest's `state.bytes_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateFull;

impl fmt::Display for StateFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the state does not fit")
    }
}

impl core::error::Error for StateFull {}

/// Writes bytes one after the other, up to the manifest's `state.bytes_max`.
#[derive(Debug)]
pub struct StateWriter<'a> {
    area: &'a mut [u8],
    len: usize,
}

impl<'a> StateWriter<'a> {
    /// An empty state with room for `area`.
    #[must_use]
    pub fn new(area: &'a mut [u8]) -> Self {
        Self { area, len: 0 }
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`StateFull`] if they do not fit; what was written before stays.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StateFull> {
        let end = self.len.checked_add(bytes.len()).ok_or(StateFull)?;
        self.area.get_mut(self.len..end).ok_or(StateFull)?.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    /// Appends a value as it lies in memory.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn write_pod(&mut self, value: &impl bytemuck::NoUninit) -> Result<(), StateFull> {
        self.write(bytemuck::bytes_of(value))
    }

    /// Bytes written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.area.len() - self.len
    }
}
