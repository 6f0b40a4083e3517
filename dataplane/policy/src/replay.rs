//! [`replay`]: a saved batch is given to its module once more, with the same limits, away from any router.
//!
//! Each try has an instance of its own, configured as the one that trapped. What that one had kept in its
//! memory, meters and the like is not there: a trap that needs it does not come again.

use std::sync::Arc;

use frame::{HookPoint, Nanos};
use sluice_abi::Descriptor;
use wasmtime::WasmBacktrace;

use crate::{
    HostOptions, PluginConfig, PluginHost, PluginSpec, PolicyError, SavedBatch,
    engine::engine_that_traces,
    foreign_text::printable,
    generation::{Files, Loaded, Numbers},
    instance::{Packets, reason},
    manifest::hook_name,
    module::inspect,
    watch::Stamp,
};

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How the call of the whole batch trapped; `None`: it did not.
    pub trapped: Option<TrappedCall>,
    /// Positions of packets whose call traps when each is alone in it.
    pub alone: Vec<usize>,
    /// Without such packets: how many of the first are enough.
    pub first: Option<usize>,
}

/// How a call trapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrappedCall {
    /// Why, as the router's log says it.
    pub reason: String,
    /// Names of the functions that it was in, the innermost first, as far as the module has names.
    pub functions: Vec<String>,
}

/// Packets of a batch, with what else they were shown as.
struct Shown {
    descriptors: Vec<Descriptor>,
    marks: Vec<Vec<u8>>,
    payload: Vec<Vec<u8>>,
}

/// Gives a saved batch to its module once more.
///
/// # Errors
/// [`PolicyError::Saved`] if the file is not sound, [`PolicyError::Plugin`] if the module is not the one
/// that trapped or is refused.
pub fn replay(saved: &SavedBatch, module: &[u8]) -> Result<Replayed, PolicyError> {
    let bad = PolicyError::Saved;
    let hook = HookPoint::ALL.into_iter().find(|hook| hook_name(*hook) == saved.hook);
    let hook = hook.ok_or_else(|| bad(format!("`{}` is no hook", saved.hook)))?;
    let mut spec = PluginSpec::new(saved.plugin.clone(), saved.path.clone(), hook);
    spec.grants.clone_from(&saved.grants);
    spec.names = Arc::new(saved.names.clone());
    spec.budget_us = saved.budget_us;
    spec.memory_max_bytes = saved.memory_max_bytes;
    spec.default = saved.default;
    spec.config = PluginConfig::Empty;
    let shown = Shown::of(saved).map_err(bad)?;

    let fault = |fault| PolicyError::plugin(&saved.plugin, fault);
    let inspected = inspect(module, &spec).map_err(fault)?;
    if crate::module::hex(&inspected.0) != saved.sha256 {
        let found = crate::module::hex(&inspected.0);
        let pinned = saved.sha256.clone();
        return Err(fault(crate::PluginFault::Pin { found, pinned }));
    }
    let (host, _) = PluginHost::with_engine(HostOptions::new(1), engine_that_traces()?)?;
    let config = saved.config.clone().into_bytes();
    let files = Files { stamp: Stamp::of(&spec), bytes: module.to_vec(), config, inspected };
    let (compiled, _) = host.module(&spec, &files).map_err(fault)?;
    let numbers = Numbers { plugin: 0, generation: 0, number: saved.generation };
    let loaded = host.version(&spec, compiled, files.config, files.stamp, numbers);

    let now = Nanos(saved.now_ns);
    let call = |packets: &[usize]| call(&host, &loaded, &shown, packets, now).map_err(fault);
    let all: Vec<usize> = (0..shown.descriptors.len()).collect();
    let trapped = call(&all)?;
    let mut replayed = Replayed { trapped, alone: Vec::new(), first: None };
    if replayed.trapped.is_some() {
        for position in &all {
            if call(&[*position])?.is_some() {
                replayed.alone.push(*position);
            }
        }
        if replayed.alone.is_empty() {
            for first in 0..=all.len() {
                if call(all.get(..first).unwrap_or_default())?.is_some() {
                    replayed.first = Some(first);
                    break;
                }
            }
        }
    }
    Ok(replayed)
}

impl Shown {
    fn of(saved: &SavedBatch) -> Result<Self, String> {
        if saved.packets.len() > frame::BATCH_MAX {
            return Err(format!("{} packets are more than a batch holds", saved.packets.len()));
        }
        let mut shown = Self { descriptors: Vec::new(), marks: Vec::new(), payload: Vec::new() };
        for packet in &saved.packets {
            shown.descriptors.push(packet.descriptor()?);
            shown.marks.push(packet.marks()?);
            shown.payload.push(packet.payload()?);
        }
        Ok(shown)
    }
}

/// One call, of a new instance, with some of the packets.
fn call(
    host: &PluginHost,
    loaded: &Loaded,
    shown: &Shown,
    packets: &[usize],
    now: Nanos,
) -> Result<Option<TrappedCall>, crate::PluginFault> {
    let mut instance = host.instantiate_aside(loaded)?;
    let descriptors = packets.iter().filter_map(|at| shown.descriptors.get(*at));
    let descriptors: Vec<Descriptor> = descriptors.copied().collect();
    let marks: Vec<u8> =
        packets.iter().filter_map(|at| shown.marks.get(*at)).flatten().copied().collect();
    let payload = packets.iter().filter_map(|at| shown.payload.get(*at)).map(Vec::as_slice);
    let default = loaded.terms().default_word();
    let none = None::<std::iter::Empty<&Descriptor>>;
    let all = none.map_or(Packets::All(&descriptors), Packets::Some);
    let placed = instance.place(all, default).and_then(|()| instance.show(&marks, payload));
    if placed.is_none() {
        return Ok(Some(TrappedCall {
            reason: "it has no room for the batch".to_owned(),
            functions: Vec::new(),
        }));
    }
    let called = instance.call(descriptors.len(), now, host.aside_beat());
    Ok(called
        .err()
        .map(|error| TrappedCall { reason: reason(&error), functions: functions(&error) }))
}

fn functions(error: &wasmtime::Error) -> Vec<String> {
    let trace = error.downcast_ref::<WasmBacktrace>();
    let frames = trace.map(WasmBacktrace::frames).unwrap_or_default();
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        // A name that is not Rust's stays as it is; the hash at the end of one that is says nothing.
        Some(name) => printable(format!("{:#}", rustc_demangle::demangle(name)).as_bytes()),
        None => format!("function {}", frame.func_index()),
    };
    without_panic_runtime(frames.iter().map(name).collect())
}

/// What a Rust guest runs between the place that panics and the trap, as starts of names.
const PANIC_RUNTIME: [&str; 8] = [
    "__rust",
    "core::cell::panic_",
    "core::panicking::",
    "panic_abort::",
    "rust_begin_unwind",
    "rust_panic",
    "std::panicking::",
    "std::sys::backtrace::__rust_end_short_backtrace",
];

/// Such as `core::option::unwrap_failed`, `core::slice::index::slice_index_fail` and
/// `<alloc::vec::Vec<_>>::remove::assert_failed`.
fn is_failed_check(name: &str) -> bool {
    let name = name.trim_start_matches('<');
    let is_library = ["core::", "alloc::", "std::"].iter().any(|start| name.starts_with(start));
    is_library && ["_fail", "_failed", "_fail_rt"].iter().any(|end| name.ends_with(end))
}

/// Without the innermost functions that belong to the panic, if there are others.
fn without_panic_runtime(functions: Vec<String>) -> Vec<String> {
    let is_runtime = |name: &String| {
        PANIC_RUNTIME.iter().any(|start| name.starts_with(start)) || is_failed_check(name)
    };
    match functions.iter().position(|name| !is_runtime(name)) {
        Some(first) => functions.into_iter().skip(first).collect(),
        None => functions,
    }
}
