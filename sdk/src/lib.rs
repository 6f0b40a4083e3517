//! The guest crate for authors of Sluice plugins.
//!
//! A plugin is a type that implements [`Plugin`], and one line that exports it:
//!
//! ```
//! use sluice_sdk::{Batch, Plugin, Verdict};
//!
//! struct DropUdp;
//!
//! impl Plugin for DropUdp {
//!     fn configure(_config: &[u8]) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn process(&mut self, batch: &mut Batch<'_>) {
//!         for (packet, verdict) in batch.iter_mut() {
//!             if packet.protocol == 17 {
//!                 *verdict = Verdict::drop(0);
//!             }
//!         }
//!     }
//! }
//!
//! sluice_sdk::export!(DropUdp, manifest = r#"
//!     abi = "1.0"
//!     name = "drop-udp"
//!     hooks = ["ingress"]
//!     reasons = ["udp"]
//! "#);
//! # fn main() {}
//! ```
//!
//! Built for `wasm32-unknown-unknown` as a `cdylib`, that is a module which the router loads; built
//! natively, `export!` leaves only the type, which tests drive through [`testing::Bench`]. What
//! crosses the boundary is described in `sdk/ABI.md`.
//!
//! Invariants: nothing here allocates while a batch is processed. All `unsafe` of a plugin is in
//! [`glue`], and in the three export lines that the macro writes.
#![deny(unsafe_code)]

mod batch;
#[doc(hidden)]
pub mod glue;
mod host;
pub mod testing;

pub use batch::Batch;
pub use host::{Meter, log};
pub use sluice_abi::{BATCH_MAX, Descriptor, REASON_DEFAULT, Verdict, action, direction, flags};

/// A plugin: one value lives in each instance, that is for each worker and generation.
pub trait Plugin: Sized {
    /// Makes the plugin from its configuration, a JSON object. It is the only place where meters can
    /// be opened.
    ///
    /// # Errors
    /// A text that names the key and what is wrong with it; the operator gets to see it, and the
    /// generation that runs goes on running.
    fn configure(config: &[u8]) -> Result<Self, String>;

    /// Judges a batch: sets the verdict of each packet that is not to get the plugin's default. A
    /// batch may be empty. Time stands still within a batch.
    fn process(&mut self, batch: &mut Batch<'_>);
}

/// Exports a type that implements [`Plugin`] as the module's plugin.
///
/// `manifest` is the text of the manifest, a literal or `include_str!`. `counters` is how many
/// counters it names in all; without it there are none. `config_capacity` is the room for the
/// configuration in bytes, 256 KiB unless it is said.
#[macro_export]
macro_rules! export {
    ($plugin:ty, manifest = $manifest:expr $(, counters = $counters:expr)?
     $(, config_capacity = $capacity:expr)? $(,)?) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            // The arguments are expressions of the plugin's: these names must not hide its own.
            const __SLUICE_MANIFEST: &str = $manifest;
            const __SLUICE_COUNTERS: usize = 0 $(+ $counters)?;
            const __SLUICE_CAPACITY: usize = [$($capacity,)? 256 << 10][0];

            #[used]
            #[unsafe(link_section = "sluice.manifest")]
            static __SLUICE_SECTION: [u8; __SLUICE_MANIFEST.len()] =
                $crate::glue::bytes(__SLUICE_MANIFEST);

            static __SLUICE_EXPORTED: $crate::glue::Exported<
                $plugin,
                __SLUICE_COUNTERS,
                __SLUICE_CAPACITY,
            > = $crate::glue::Exported::new();

            #[unsafe(no_mangle)]
            extern "C" fn sluice_abi_version() -> u32 {
                $crate::glue::ABI_VERSION
            }

            #[unsafe(no_mangle)]
            extern "C" fn sluice_layout() -> *const $crate::glue::Layout {
                __SLUICE_EXPORTED.layout()
            }

            #[unsafe(no_mangle)]
            extern "C" fn sluice_configure(len: u32) -> i32 {
                __SLUICE_EXPORTED.configure(len as usize)
            }

            #[unsafe(no_mangle)]
            extern "C" fn sluice_process(n: u32, now_ns: u64) {
                __SLUICE_EXPORTED.process(n as usize, now_ns);
            }
        };
    };
}
