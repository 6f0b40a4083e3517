//! What the benches share.

pub mod destinations;
pub mod polluter;
pub mod random;
pub mod routes;
pub mod tsc;
