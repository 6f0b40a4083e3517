//! A plugin's counters by name: the constants that [`plugin`](crate::plugin) makes of the manifest.

/// Position of a counter, which only rises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter(usize);

/// Position of a gauge: a counter that can fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gauge(usize);

/// Several counters that share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CounterArray {
    first: usize,
    len: usize,
}

/// Several gauges that share a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GaugeArray {
    first: usize,
    len: usize,
}

impl Counter {
    /// The counter at this position in the order of the manifest.
    #[must_use]
    pub const fn new(position: usize) -> Self {
        Self(position)
    }
}

impl From<usize> for Counter {
    fn from(position: usize) -> Self {
        Self(position)
    }
}

impl Gauge {
    /// The gauge at this position in the order of the manifest.
    #[must_use]
    pub const fn new(position: usize) -> Self {
        Self(position)
    }
}

impl CounterArray {
    /// `len` counters from position `first` on.
    #[must_use]
    pub const fn new(first: usize, len: usize) -> Self {
        Self { first, len }
    }

    /// How many they are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Number `index` of them; beyond the last, one that counts nothing.
    #[inline]
    #[must_use]
    pub const fn at(self, index: usize) -> Counter {
        Counter(if index < self.len { self.first + index } else { usize::MAX })
    }
}

impl GaugeArray {
    /// `len` gauges from position `first` on.
    #[must_use]
    pub const fn new(first: usize, len: usize) -> Self {
        Self { first, len }
    }

    /// How many they are.
    #[must_use]
    pub const fn len(self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Number `index` of them; beyond the last, one that shows nothing.
    #[inline]
    #[must_use]
    pub const fn at(self, index: usize) -> Gauge {
        Gauge(if index < self.len { self.first + index } else { usize::MAX })
    }
}

/// The counters of this instance, which the router reads.
#[derive(Debug)]
pub struct Counters<'a>(&'a mut [u64]);

impl<'a> Counters<'a> {
    /// Counters in the order of the manifest.
    #[inline]
    #[must_use]
    pub fn new(values: &'a mut [u64]) -> Self {
        Self(values)
    }

    /// Adds to a counter. One that the manifest does not name counts nothing.
    #[inline]
    pub fn add(&mut self, counter: impl Into<Counter>, count: u64) {
        if let Some(value) = self.0.get_mut(counter.into().0) {
            *value = value.wrapping_add(count);
        }
    }

    /// Sets a gauge to what it shows now.
    #[inline]
    pub fn set(&mut self, gauge: Gauge, value: u64) {
        if let Some(place) = self.0.get_mut(gauge.0) {
            *place = value;
        }
    }

    /// The same counters for a shorter time.
    pub fn reborrow(&mut self) -> Counters<'_> {
        Counters(self.0)
    }
}
