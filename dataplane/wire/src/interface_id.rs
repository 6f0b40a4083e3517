//! The name of an interface on the packet path.

/// Which wire a frame is on: the position of an interface in the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceId(pub u8);

impl InterfaceId {
    /// The position as an index.
    #[inline]
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}
