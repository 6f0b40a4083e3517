//! The guest crate for authors of Sluice plugins.
