//! [`Ring`]: the last few values.

use alloc::vec::Vec;

/// Keeps the last values that were pushed, a fixed number of them.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    values: Vec<T>,
    capacity: usize,
    /// Where the oldest lies, once it is full.
    oldest: usize,
}

impl<T> Ring<T> {
    /// An empty ring for `capacity` values, at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { values: Vec::with_capacity(capacity), capacity, oldest: 0 }
    }

    /// Appends a value; hands back the oldest if it had to make room.
    pub fn push(&mut self, value: T) -> Option<T> {
        if self.values.len() < self.capacity {
            // Within what was allocated.
            self.values.push(value);
            return None;
        }
        let oldest = core::mem::replace(&mut self.values[self.oldest], value);
        self.oldest = (self.oldest + 1) % self.capacity;
        Some(oldest)
    }

    /// Values in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The most values that it keeps.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        let (newer, older) = self.values.split_at(self.oldest);
        older.iter().chain(newer)
    }

    /// The newest.
    #[must_use]
    pub fn newest(&self) -> Option<&T> {
        self.iter().next_back()
    }

    /// Takes all values out.
    pub fn clear(&mut self) {
        self.values.clear();
        self.oldest = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_queue_that_drops_its_oldest(
            values in prop::collection::vec(any::<Option<u8>>(), 0..200), capacity in 1_usize..20,
        ) {
            let mut ring = Ring::new(capacity);
            let mut model = VecDeque::new();
            for value in values {
                match value {
                    Some(value) => {
                        model.push_back(value);
                        let oldest = (model.len() > capacity).then(|| model.pop_front()).flatten();
                        prop_assert_eq!(ring.push(value), oldest);
                    }
                    None => {
                        ring.clear();
                        model.clear();
                    }
                }
                prop_assert!(ring.iter().eq(&model));
                prop_assert_eq!(ring.newest(), model.back());
                prop_assert_eq!((ring.len(), ring.is_empty()), (model.len(), model.is_empty()));
            }
        }
    }
}
