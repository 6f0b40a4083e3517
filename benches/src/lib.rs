//! What the benches share.

pub mod tsc;
