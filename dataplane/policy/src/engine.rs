//! How modules are compiled.

use std::num::NonZeroUsize;

use wasmtime::{Config, Engine, OptLevel};

use crate::PolicyError;

/// Stack of one call of a guest, in bytes. Worker threads have 2 MiB, of which the host needs
/// little; a guest that recurses deeper traps.
const STACK_BYTES: usize = 256 << 10;

/// Address space reserved for each memory. With all that 32 bits can reach reserved and a guard
/// behind it, loads and stores need no comparison: dynamic checks would double the cost.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// With that reserved it need not.
pub(crate) const MEMORY_MAY_MOVE: bool = false;

/// Frames of a trap that a replay shows.
const BACKTRACE_FRAMES: usize = 32;

/// The one engine of the process's host.
pub(crate) fn engine() -> Result<Engine, PolicyError> {
    engine_with(None)
}

/// The same engine, which also tells where in the guest a call trapped. That takes time at each trap.
pub(crate) fn engine_that_traces() -> Result<Engine, PolicyError> {
    engine_with(NonZeroUsize::new(BACKTRACE_FRAMES))
}

fn engine_with(frames: Option<NonZeroUsize>) -> Result<Engine, PolicyError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .cranelift_opt_level(OptLevel::Speed)
        .max_wasm_stack(STACK_BYTES)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_may_move(MEMORY_MAY_MOVE)
        .wasm_backtrace_max_frames(frames)
        .wasm_memory64(false)
        .wasm_multi_memory(false);
    Engine::new(&config).map_err(|error| PolicyError::Engine(format!("{error:#}")))
}
