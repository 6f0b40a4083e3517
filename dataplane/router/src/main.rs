//! The sluice binary: workers and wiring.
fn main() {}
