//! What [`export!`](crate::export) writes calls: the memory that host and guest share. Not for use
//! by plugins.
#![expect(unsafe_code, reason = "the host reads and writes these areas from outside the program")]

mod error_area;

use alloc::{borrow::ToOwned as _, boxed::Box};
use core::cell::UnsafeCell;

use error_area::ErrorArea;
pub use sluice_abi::{ABI_VERSION, Layout};
use sluice_abi::{BATCH_MAX, Descriptor, Edit, Marks, Verdict};

use crate::{Batch, Config as _, Counters, Parts, Plugin, StateWriter};

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

/// Length of an optional area with an entry for each packet.
#[must_use]
pub const fn len_of(is_there: bool) -> usize {
    if is_there { BATCH_MAX } else { 0 }
}

#[repr(C, align(64))]
struct Areas<
    const COUNTERS: usize,
    const CONFIG: usize,
    const EDITS: usize,
    const MARKS: usize,
    const PAYLOAD: usize,
    const STATE: usize,
> {
    descriptors: [Descriptor; BATCH_MAX],
    verdicts: [Verdict; BATCH_MAX],
    edits: [Edit; EDITS],
    marks: [Marks; MARKS],
    payload: [u64; PAYLOAD],
    counters: [u64; COUNTERS],
    // Each on a multiple of 8, which the host asks for.
    state: Aligned<STATE>,
    config: Aligned<CONFIG>,
    layout: Layout,
}

#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// A plugin with all that the host sees of it: its counters, the bytes of its configuration, edits, marks
/// and payload (in words), and the bytes of its state.
pub struct Exported<
    P,
    const COUNTERS: usize,
    const CONFIG: usize,
    const EDITS: usize,
    const MARKS: usize,
    const PAYLOAD: usize,
    const STATE: usize,
> {
    areas: UnsafeCell<Areas<COUNTERS, CONFIG, EDITS, MARKS, PAYLOAD, STATE>>,
    /// By itself, since a panic is written to it while a call holds the other areas.
    error: ErrorArea,
    /// Boxed, so that all of this starts as zeros, of which a module's file holds none.
    plugin: UnsafeCell<Option<Box<P>>>,
}

// SAFETY: a guest has one thread, and the host calls its exports one after another; the exports do
// not call each other. So there is never more than one reference into either cell.
unsafe impl<
    P,
    const C: usize,
    const F: usize,
    const E: usize,
    const M: usize,
    const L: usize,
    const S: usize,
> Sync for Exported<P, C, F, E, M, L, S>
{
}

impl<
    P: Plugin,
    const C: usize,
    const F: usize,
    const E: usize,
    const M: usize,
    const L: usize,
    const S: usize,
> Exported<P, C, F, E, M, L, S>
{
    /// All zero, and no plugin yet.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "made once, as a constant")]
    pub const fn new() -> Self {
        // SAFETY: all types in it are integers and arrays of them, for which zero is a value.
        let areas = unsafe { core::mem::zeroed() };
        Self {
            areas: UnsafeCell::new(areas),
            error: ErrorArea::new(),
            plugin: UnsafeCell::new(None),
        }
    }

    /// What `sluice_layout` returns.
    pub fn layout(&self) -> *const Layout {
        // SAFETY: see `Sync`: the host is waiting in a call of an export, so this is the one
        // reference; it ends with this function.
        let areas = unsafe { &mut *self.areas.get() };
        // What has no entries has no address of its own.
        let optional = |address: usize, len: usize| if len == 0 { 0 } else { address as u32 };
        areas.layout = Layout {
            size: size_of::<Layout>() as u32,
            batch_max: BATCH_MAX as u32,
            descriptors: areas.descriptors.as_ptr().addr() as u32,
            descriptor_stride: size_of::<Descriptor>() as u32,
            verdicts: areas.verdicts.as_ptr().addr() as u32,
            verdict_stride: size_of::<Verdict>() as u32,
            config: areas.config.0.as_ptr().addr() as u32,
            config_capacity: F as u32,
            error: self.error.address() as u32,
            error_capacity: ErrorArea::CAPACITY as u32,
            counters: areas.counters.as_ptr().addr() as u32,
            counters_len: C as u32,
            edits: optional(areas.edits.as_ptr().addr(), E),
            edit_stride: size_of::<Edit>() as u32,
            marks: optional(areas.marks.as_ptr().addr(), M),
            payload: optional(areas.payload.as_ptr().addr(), L),
            payload_stride: (L / BATCH_MAX * 8) as u32,
            state: optional(areas.state.0.as_ptr().addr(), S),
            state_capacity: S as u32,
            reserved: 0,
        };
        &raw const areas.layout
    }

    /// What `sluice_configure` does: 0, or the length of the text of an error.
    pub fn configure(&'static self, len: usize) -> i32 {
        #[cfg(all(feature = "std", target_family = "wasm"))]
        self.error.take_panics();
        // SAFETY: as in `layout`; the plugin gets a shared slice of the area for the time of the
        // call, and nothing here writes to it meanwhile.
        let areas = unsafe { &mut *self.areas.get() };
        let configured = P::Config::from_json(&areas.config.0[..len]).and_then(P::configure);
        let text = match configured {
            Ok(plugin) => {
                // SAFETY: as in `layout`: nobody else holds a reference to the plugin.
                unsafe { *self.plugin.get() = Some(Box::new(plugin)) };
                return 0;
            }
            Err(text) if text.is_empty() => "(no reason given)".to_owned(),
            Err(text) => text,
        };
        self.error.write(&text) as i32
    }

    /// What `sluice_process` does.
    pub fn process(&self, n: usize, now_ns: u64) {
        // SAFETY: as in `layout`, for both cells: they are distinct.
        let (areas, plugin) = unsafe { (&mut *self.areas.get(), &mut *self.plugin.get()) };
        if let Some(plugin) = plugin {
            plugin.process(&mut Batch::new(Parts {
                descriptors: &areas.descriptors[..n],
                verdicts: &mut areas.verdicts[..n],
                edits: &mut areas.edits,
                marks: &areas.marks,
                payload: &areas.payload,
                payload_stride: L / BATCH_MAX * 8,
                counters: &mut areas.counters,
                now_ns,
            }));
        }
    }

    /// What `sluice_tick` does.
    pub fn tick(&self, now_ns: u64) {
        // SAFETY: as in `process`.
        let (areas, plugin) = unsafe { (&mut *self.areas.get(), &mut *self.plugin.get()) };
        if let Some(plugin) = plugin {
            plugin.tick(now_ns, &mut Counters::new(&mut areas.counters));
        }
    }

    /// What `sluice_export` does: the length of the state, or -1 for none.
    pub fn export(&self) -> i32 {
        // SAFETY: as in `process`.
        let (areas, plugin) = unsafe { (&mut *self.areas.get(), &mut *self.plugin.get()) };
        let Some(plugin) = plugin else { return -1 };
        let mut state = StateWriter::new(&mut areas.state.0);
        match plugin.export(&mut state) {
            Ok(()) => state.len() as i32,
            Err(_) => -1,
        }
    }

    /// What `sluice_import` does: 0, or 1 if the plugin does not want the state.
    pub fn import(&self, schema: u32, len: usize) -> i32 {
        // SAFETY: as in `process`.
        let (areas, plugin) = unsafe { (&mut *self.areas.get(), &mut *self.plugin.get()) };
        let Some((plugin, state)) = plugin.as_mut().zip(areas.state.0.get(..len)) else {
            return 1;
        };
        i32::from(plugin.import(schema, state).is_err())
    }
}
