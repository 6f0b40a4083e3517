//! The guest crate for authors of Sluice plugins.
//!
//! A plugin is a type that implements [`Plugin`], below an attribute that reads the plugin's manifest:
//!
//! ```
//! use sluice_sdk::{Batch, NoConfig, Plugin};
//!
//! struct DropUdp;
//!
//! #[sluice_sdk::plugin(manifest_toml = r#"
//!     abi = "1.0"
//!     name = "drop-udp"
//!     hooks = ["ingress"]
//!     reasons = ["udp"]
//!     counters = ["seen"]
//! "#)]
//! impl Plugin for DropUdp {
//!     type Config = NoConfig;
//!
//!     fn configure(_config: NoConfig) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn process(&mut self, batch: &mut Batch<'_>) {
//!         batch.count(counter::SEEN, batch.len() as u64);
//!         for mut packet in batch.packets() {
//!             if packet.protocol == 17 {
//!                 packet.drop(reason::UDP);
//!             }
//!         }
//!     }
//! }
//!
//! // Natively, the same plugin runs under test.
//! use sluice_sdk::testing::{Bench, ipv4};
//!
//! fn main() {
//!     let mut bench = Bench::<DropUdp>::new("{}").expect("it takes no configuration");
//!     let verdicts = bench.judge(&[ipv4([10, 0, 0, 1], [192, 0, 2, 1])], 0);
//!     assert_eq!(verdicts, [reason::UDP.verdict()]);
//!     assert_eq!(bench.counter("seen"), 1);
//! }
//! ```
//!
//! In a project of its own the manifest is a file, and the attribute says `manifest = "manifest.toml"`.
//! [`plugin`] checks it while the plugin is compiled, and makes modules `reason`, `counter` and `table` of
//! the names in it. Built for `wasm32-unknown-unknown` as a `cdylib`, that is a module which the router
//! loads; built natively, there is only the type, which tests drive through [`testing::Bench`]. What crosses
//! the boundary is described in `sdk/ABI.md`.
//!
//! What the router does for a plugin, each for a capability that the manifest's `imports` declares:
//! [`log`], [`random`], [`Meter`], [`Quota`], [`Table`], and the names in [`NextHop`], [`EgressTag`],
//! [`Class`] and [`interface_named`]. What a plugin can hold by itself without allocating while it judges:
//! [`fixed`].
//!
//! A panic ends the call, and the instance with it. With the feature `std` its text and place are left in
//! the error area, and the router shows them wherever it shows the trap; a guest without `std` has a panic
//! handler of its own, and may do the same.
//!
//! Invariants: nothing here allocates while a batch is processed. All `unsafe` of a plugin is in
//! [`glue`], and in the export lines that the macro writes.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

#[cfg(all(not(feature = "std"), not(target_family = "wasm")))]
compile_error!("natively, the host's services are played by the feature `std`");

extern crate alloc;
// The attribute writes paths that begin with the crate's name, also for tests in here.
extern crate self as sluice_sdk;

use alloc::string::String;

mod batch;
mod config;
mod counters;
mod declaration;
pub mod fixed;
#[doc(hidden)]
pub mod glue;
mod names;
mod packet;
mod services;
mod state;
#[cfg(all(feature = "std", not(target_family = "wasm")))]
pub mod testing;

pub use batch::{Batch, Parts};
pub use config::{Config, NoConfig, RawConfig, unknown_key};
pub use counters::{Counter, CounterArray, Counters, Gauge, GaugeArray};
pub use declaration::{CounterName, Declaration, Declared};
pub use names::{Class, EgressTag, NextHop, Reason, interface_named};
pub use packet::{Packet, Packets};
pub use serde;
pub use services::{Meter, PrefixLens, Quota, QuotaAnswer, QuotaDeparture, Table, log, random};
pub use sluice_abi::{
    BATCH_MAX, Descriptor, Edit, Marks, REASON_DEFAULT, Verdict, action, direction, edit, flags,
    tcp_option,
};
pub use sluice_macros::plugin;
pub use state::{StateFull, StateWriter};

/// A plugin: one value lives in each instance, that is for each worker and generation. What one remembers the
/// others do not know, and different flows of one source come to different workers: what has to hold for the whole
/// router is for [`Meter`] and [`Quota`].
pub trait Plugin: Sized {
    /// What it is configured by: a type that serde reads, [`NoConfig`], or [`RawConfig`] for the bytes
    /// themselves. Keys that the type does not have are refused, wherever they stand, with those that it has.
    type Config: Config;

    /// Makes the plugin from its configuration. It is the only place where meters, quotas and tables can
    /// be opened and names looked up.
    ///
    /// # Errors
    /// A text that names the key and what is wrong with it; the operator gets to see it, and the
    /// generation that runs goes on running.
    fn configure(config: Self::Config) -> Result<Self, String>;

    /// Judges a batch: sets the verdict of each packet that is not to get the plugin's default. A
    /// batch may be empty, and must then change nothing. Time stands still within a batch.
    /// [`Batch::now_ns`] has one origin as long as the router runs, for all workers and generations: times
    /// that an instance exports mean the same to its successor.
    fn process(&mut self, batch: &mut Batch<'_>);

    /// With `tick_ms` in the manifest: called about that often, between two batches.
    fn tick(&mut self, now_ns: u64, counters: &mut Counters<'_>) {
        let _ = (now_ns, counters);
    }

    /// With `state` in the manifest: writes what its successor is to know, in the form that the manifest's
    /// `state.schema` numbers. The plugin may go on judging afterwards, beside a candidate that began with
    /// this state: what it judges by has to stay as it is.
    ///
    /// # Errors
    /// [`StateFull`] if it does not fit `state.bytes_max`: the successor then starts empty.
    fn export(&mut self, state: &mut StateWriter<'_>) -> Result<(), StateFull> {
        let _ = state;
        Err(StateFull)
    }

    /// With `state` in the manifest: takes what a predecessor wrote, in the form `schema`, which is the
    /// manifest's `state.schema` or one of `state.takes`.
    ///
    /// # Errors
    /// A text, for tests; the instance then goes on as it was configured.
    fn import(&mut self, schema: u32, state: &[u8]) -> Result<(), String> {
        let _ = (schema, state);
        Err(String::new())
    }
}

/// Exports a type that implements [`Plugin`] as the module's plugin: what [`plugin`] expands to, for
/// those who would rather count by hand.
///
/// `manifest` is the text of the manifest, a literal or `include_str!`. What the manifest declares is said
/// again, and may be left out where it declares nothing: `counters`, how many it names in all; `edits`,
/// whether it has actions that take an [`Edit`]; `payload`, its `payload.bytes`; `state`, its
/// `(schema, takes, bytes_max)`; `tick`, that there is a `tick_ms`. `config_capacity` is the room for the
/// configuration in bytes, 256 KiB unless it is said; `marks` says whether the plugin reads
/// [`Packet::marks`].
#[macro_export]
macro_rules! export {
    ($plugin:ty, manifest = $manifest:expr $(, counters = $counters:expr)?
     $(, config_capacity = $capacity:expr)? $(, edits = $edits:expr)? $(, marks = $marks:expr)?
     $(, payload = $payload:expr)? $(, state = ($schema:expr, $takes:expr, $state:expr))?
     $(, tick = $tick:ident)? $(, reasons = $reasons:expr)? $(, names = $names:expr)?
     $(,)?) => {
        impl $crate::Declared for $plugin {
            const DECLARATION: $crate::Declaration = {
                #[allow(unused_mut, reason = "what the manifest leaves out is not set")]
                let mut declaration = $crate::Declaration::new($manifest);
                $(declaration.counters_len = $counters;)?
                $(declaration.config_capacity = $capacity;)?
                $(declaration.has_edits = $edits;)?
                $(declaration.has_marks = $marks;)?
                $(declaration.payload_bytes = $payload;)?
                $(declaration.state_schema = $schema;)?
                $(declaration.state_takes = &$takes;)?
                $(declaration.state_bytes = $state;)?
                $(declaration.has_tick = $tick;)?
                $(declaration.reasons = &$reasons;)?
                $(declaration.counters = &$names;)?
                declaration
            };
        }

        /// Runs the plugin natively as `sluice plugin test` asks for it.
        #[cfg(not(target_family = "wasm"))]
        #[doc(hidden)]
        #[allow(dead_code, reason = "called by a runner that is made for the plugin")]
        pub fn __sluice_native() -> bool {
            $crate::testing::trial::run::<$plugin>()
        }

        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::glue::{Exported, Layout, len_of};

            const __SLUICE: $crate::Declaration = <$plugin as $crate::Declared>::DECLARATION;

            #[used]
            #[unsafe(link_section = "sluice.manifest")]
            static __SLUICE_SECTION: [u8; __SLUICE.manifest.len()] =
                $crate::glue::bytes(__SLUICE.manifest);

            static __SLUICE_EXPORTED: Exported<
                $plugin,
                { __SLUICE.counters_len },
                { __SLUICE.config_capacity },
                { len_of(__SLUICE.has_edits) },
                { len_of(__SLUICE.has_marks) },
                { __SLUICE.payload_words() },
                { __SLUICE.state_bytes },
            > = Exported::new();

            #[unsafe(no_mangle)]
            extern "C" fn sluice_abi_version() -> u32 {
                $crate::glue::ABI_VERSION
            }

            #[unsafe(no_mangle)]
            extern "C" fn sluice_layout() -> *const Layout {
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

            $(
                const _: bool = $tick;

                #[unsafe(no_mangle)]
                extern "C" fn sluice_tick(now_ns: u64) {
                    __SLUICE_EXPORTED.tick(now_ns);
                }
            )?

            $(
                const _: usize = $state;

                #[unsafe(no_mangle)]
                extern "C" fn sluice_export() -> i32 {
                    __SLUICE_EXPORTED.export()
                }

                #[unsafe(no_mangle)]
                extern "C" fn sluice_import(schema: u32, len: u32) -> i32 {
                    __SLUICE_EXPORTED.import(schema, len as usize)
                }
            )?
        };
    };
}
