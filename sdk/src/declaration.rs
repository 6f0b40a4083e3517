//! [`Declaration`]: what a manifest says, as constants that areas are sized by and tests are shown.

use sluice_abi::{BATCH_MAX, PayloadHeader};

/// Room for the configuration of a plugin that does not say, in bytes.
const CONFIG_CAPACITY: usize = 256 << 10;

/// The declared part of a plugin. [`plugin`](crate::plugin) reads it from the manifest.
#[derive(Clone, Copy, Debug)]
pub struct Declaration {
    /// The manifest's text.
    pub manifest: &'static str,
    /// Number of counters in all.
    pub counters_len: usize,
    /// The counters' names, for tests.
    pub counters: &'static [CounterName],
    /// The reasons' names, for tests.
    pub reasons: &'static [&'static str],
    /// Room for the configuration, in bytes.
    pub config_capacity: usize,
    /// Whether there are actions that take an [`Edit`](crate::Edit).
    pub has_edits: bool,
    /// Whether the plugin is shown what earlier plugins set.
    pub has_marks: bool,
    /// Bytes of each packet that the plugin is shown.
    pub payload_bytes: usize,
    /// Number of the form of its state.
    pub state_schema: u32,
    /// Numbers of other forms that it takes.
    pub state_takes: &'static [u32],
    /// The most bytes of state; 0: it has none.
    pub state_bytes: usize,
    /// Whether it is called between batches.
    pub has_tick: bool,
}

/// A counter's name, or that of several.
#[derive(Clone, Copy, Debug)]
pub struct CounterName {
    /// The name.
    pub name: &'static str,
    /// Position of the first.
    pub first: usize,
    /// How many they are.
    pub len: usize,
}

/// A plugin that was exported.
pub trait Declared {
    /// What its manifest says.
    const DECLARATION: Declaration;
}

impl Declaration {
    /// That of a plugin whose manifest declares none of the optional things.
    #[must_use]
    pub const fn new(manifest: &'static str) -> Self {
        Self {
            manifest,
            counters_len: 0,
            counters: &[],
            reasons: &[],
            config_capacity: CONFIG_CAPACITY,
            has_edits: false,
            has_marks: false,
            payload_bytes: 0,
            state_schema: 0,
            state_takes: &[],
            state_bytes: 0,
            has_tick: false,
        }
    }

    /// Bytes from one packet's payload entry to the next; 0 if the plugin is shown no payload.
    #[must_use]
    pub const fn payload_stride(&self) -> usize {
        if self.payload_bytes == 0 {
            return 0;
        }
        (size_of::<PayloadHeader>() + self.payload_bytes).next_multiple_of(8)
    }

    /// Size of the payload area in words of 8 bytes.
    #[must_use]
    pub const fn payload_words(&self) -> usize {
        self.payload_stride() / 8 * BATCH_MAX
    }
}
