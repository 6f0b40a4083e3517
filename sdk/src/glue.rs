//! What [`export!`](crate::export) writes calls: the memory that host and guest share. Not for use
//! by plugins.
#![expect(unsafe_code, reason = "the host reads and writes these areas from outside the program")]

use std::cell::UnsafeCell;

pub use sluice_abi::{ABI_VERSION, Layout};
use sluice_abi::{BATCH_MAX, Descriptor, Verdict};

use crate::{Batch, Plugin};

const ERROR_CAPACITY: usize = 1024;

/// The bytes of a text, as a constant.
#[must_use]
pub const fn bytes<const N: usize>(text: &str) -> [u8; N] {
    let mut bytes = [0; N];
    let mut index = 0;
    while index < N {
        bytes[index] = text.as_bytes()[index];
        index += 1;
    }
    bytes
}

#[repr(C, align(64))]
struct Areas<const COUNTERS: usize, const CAPACITY: usize> {
    descriptors: [Descriptor; BATCH_MAX],
    verdicts: [Verdict; BATCH_MAX],
    counters: [u64; COUNTERS],
    // Each on a multiple of 8, which the host asks for.
    config: Aligned<CAPACITY>,
    error: Aligned<ERROR_CAPACITY>,
    layout: Layout,
}

#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// A plugin with all that the host sees of it.
pub struct Exported<P, const COUNTERS: usize, const CAPACITY: usize> {
    areas: UnsafeCell<Areas<COUNTERS, CAPACITY>>,
    /// Boxed, so that all of this starts as zeros, of which a module's file holds none.
    plugin: UnsafeCell<Option<Box<P>>>,
}

// SAFETY: a guest has one thread, and the host calls its exports one after another; the exports do
// not call each other. So there is never more than one reference into either cell.
unsafe impl<P, const COUNTERS: usize, const CAPACITY: usize> Sync
    for Exported<P, COUNTERS, CAPACITY>
{
}

impl<P: Plugin, const COUNTERS: usize, const CAPACITY: usize> Exported<P, COUNTERS, CAPACITY> {
    /// All zero, and no plugin yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made once, as a constant")]
    pub const fn new() -> Self {
        // SAFETY: all types in it are integers and arrays of them, for which zero is a value.
        let areas = unsafe { std::mem::zeroed() };
        Self { areas: UnsafeCell::new(areas), plugin: UnsafeCell::new(None) }
    }

    /// What `sluice_layout` returns.
    pub fn layout(&self) -> *const Layout {
        // SAFETY: see `Sync`: the host is waiting in a call of an export, so this is the one
        // reference; it ends with this function.
        let areas = unsafe { &mut *self.areas.get() };
        areas.layout = Layout {
            size: size_of::<Layout>() as u32,
            batch_max: BATCH_MAX as u32,
            descriptors: areas.descriptors.as_ptr().addr() as u32,
            descriptor_stride: size_of::<Descriptor>() as u32,
            verdicts: areas.verdicts.as_ptr().addr() as u32,
            verdict_stride: size_of::<Verdict>() as u32,
            config: areas.config.0.as_ptr().addr() as u32,
            config_capacity: CAPACITY as u32,
            error: areas.error.0.as_ptr().addr() as u32,
            error_capacity: ERROR_CAPACITY as u32,
            counters: areas.counters.as_ptr().addr() as u32,
            counters_len: COUNTERS as u32,
            ..Layout::default()
        };
        &raw const areas.layout
    }

    /// What `sluice_configure` does: 0, or the length of the text of an error.
    pub fn configure(&self, len: usize) -> i32 {
        // SAFETY: as in `layout`; the plugin gets a shared slice of the area for the time of the
        // call, and nothing here writes to it meanwhile.
        let areas = unsafe { &mut *self.areas.get() };
        let text = match P::configure(&areas.config.0[..len]) {
            Ok(plugin) => {
                // SAFETY: as in `layout`: nobody else holds a reference to the plugin.
                unsafe { *self.plugin.get() = Some(Box::new(plugin)) };
                return 0;
            }
            Err(text) if text.is_empty() => "(no reason given)".to_owned(),
            Err(text) => text,
        };
        let len = text.floor_char_boundary(ERROR_CAPACITY);
        areas.error.0[..len].copy_from_slice(&text.as_bytes()[..len]);
        len as i32
    }

    /// What `sluice_process` does.
    pub fn process(&self, n: usize, now_ns: u64) {
        // SAFETY: as in `layout`, for both cells: they are distinct.
        let (areas, plugin) = unsafe { (&mut *self.areas.get(), &mut *self.plugin.get()) };
        if let Some(plugin) = plugin {
            plugin.process(&mut Batch::new(
                &areas.descriptors[..n],
                &mut areas.verdicts[..n],
                &mut areas.counters,
                now_ns,
            ));
        }
    }
}

/// The host's functions.
#[cfg(target_family = "wasm")]
pub(crate) mod host {
    mod import {
        #[link(wasm_import_module = "sluice")]
        unsafe extern "C" {
            pub(super) fn log(level: i32, text: *const u8, len: usize);
            pub(super) safe fn meter_open(rate_milli: i64, burst: i64, entries: u32) -> i32;
            pub(super) fn meter_batch(
                handle: i32,
                keys: *const [u8; 16],
                n: usize,
                now_ns: u64,
                costs: *const u32,
                results: *mut u8,
            );
        }
    }

    pub(crate) fn log(level: i32, text: &str) {
        // SAFETY: the host reads `text` during the call and keeps no pointer.
        unsafe { import::log(level, text.as_ptr(), text.len()) }
    }

    #[derive(Debug)]
    pub(crate) struct Meter(i32);

    impl Meter {
        pub(crate) fn open(rate_milli: i64, burst: i64, entries: u32) -> Result<Self, i32> {
            let handle = import::meter_open(rate_milli, burst, entries);
            if handle < 0 { Err(handle) } else { Ok(Self(handle)) }
        }

        pub(crate) fn take(
            &mut self,
            keys: &[[u8; 16]],
            now_ns: u64,
            costs: Option<&[u32]>,
            admitted: &mut [u8],
        ) {
            let costs = costs.map_or(std::ptr::null(), <[u32]>::as_ptr);
            // SAFETY: the host reads as many keys and costs as there are keys, and writes as many
            // results; the caller has checked that all three slices have them. It keeps no pointer.
            unsafe {
                import::meter_batch(
                    self.0,
                    keys.as_ptr(),
                    keys.len(),
                    now_ns,
                    costs,
                    admitted.as_mut_ptr(),
                );
            }
        }
    }
}
