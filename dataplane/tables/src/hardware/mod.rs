//! What the tables ask of the machine beyond safe Rust; the one module of this crate that holds
//! `unsafe`.
//!
//! Each part states what it is worth, by `cargo bench -p benches --bench tables`.

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
mod gather;
mod instructions;
mod memory;
mod prefetch;

#[cfg(all(target_arch = "x86_64", not(any(miri, loom))))]
pub(crate) use gather::Gather;
pub use instructions::Instructions;
pub(crate) use instructions::{Compare, Work, run};
pub(crate) use memory::{Memory, Parts};
pub use prefetch::prefetch;
