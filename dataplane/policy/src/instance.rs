//! One worker's copy of a generation: a memory of its own, checked areas in it, and the call.

mod actions;
mod guest;
mod inputs;
mod panic_text;
mod payload;
mod raw;
mod state;

use std::{
    hint::black_box,
    ops::{Range, RangeInclusive},
    sync::Arc,
};

use frame::Nanos;
use sluice_abi::Descriptor;
use sluice_manifest::check_version;
use wasmtime::{
    AsContextMut as _, Store, StoreContextMut, StoreLimitsBuilder, Trap, TypedFunc, UpdateDeadline,
};

use guest::Guest;
use panic_text::{PanicText, with_panic_text};
pub(crate) use payload::seen;
pub(crate) use state::HandOver;
use state::StateCalls;

use crate::{
    LayoutNeeds, PayloadWindow, PluginFault,
    counters::Counter,
    foreign_text::{printable, printable_lines},
    imports::{HostState, Names, Offers},
    judgement::CONTINUE,
    layout::Areas,
    module::{CheckedModule, TABLE_ELEMENTS_MAX, TABLES_MAX},
    tables::Tables,
    ticker::Beat,
};

/// Pages of a memory up to this size are touched before the first batch, which would otherwise pay
/// a page fault for each (0.2 ms in all for a small plugin).
const TOUCH_BYTES_MAX: usize = 64 << 20;
const PAGE_BYTES: usize = 4096;

/// Calls without a packet that a new instance runs, so that its code has been run.
const WARM_CALLS: u32 = 16;

/// An instance can be called again after it trapped, but its memory is then in whatever state the
/// trap left: whoever gets an error from [`Instance::call`] must retire it.
pub(crate) struct Instance {
    guest: Guest,
    process: TypedFunc<(i32, i64), ()>,
    areas: Areas,
    budget_ticks: u64,
    counters_seen: Box<[u64]>,
    /// Which of the counters are gauges.
    gauges: Box<[bool]>,
    tick: Option<Tick>,
    state: Option<StateCalls>,
    window: Option<PayloadWindow>,
}

/// What is called between two turns, and when next.
struct Tick {
    function: TypedFunc<i64, ()>,
    every_ns: u64,
    /// `None` until the first turn.
    due: Option<Nanos>,
}

/// What it takes to make an instance.
pub(crate) struct Recipe<'a> {
    pub(crate) plugin: &'a Arc<str>,
    pub(crate) module: &'a CheckedModule,
    /// What it is shown of packets besides descriptors.
    pub(crate) window: Option<PayloadWindow>,
    pub(crate) config: &'a [u8],
    pub(crate) budget_ticks: u64,
    pub(crate) load_budget_ticks: u64,
    pub(crate) names: &'a Arc<Names>,
    pub(crate) offers: &'a Offers,
    pub(crate) tables: &'a Tables,
}

/// The ticks in which a call is still seen to run before it is stopped, within these bounds as many as its
/// budget has: the first is more than a call that is nearly done can be caught in, the second keeps what a
/// worker can lose to an endless call near the budget.
const OVERRUN_TICKS: RangeInclusive<u64> = 4..=20;

/// Gives the next call its budget, in ticks. Whatever function of the guest it is, it may write verdicts.
#[inline]
fn begin_call(mut store: StoreContextMut<'_, HostState>, ticks: u64) {
    store.set_epoch_deadline(ticks);
    let state = store.data_mut();
    state.continues = 0;
    state.overrun_ticks = 0;
    state.overrun_ticks_max = ticks.clamp(*OVERRUN_TICKS.start(), *OVERRUN_TICKS.end());
}

/// The budget is counted in ticks of real time. A call that is over it may itself have been interrupted:
/// by other work on its core, by the kernel's receive path, by the hypervisor. The thread's processor time
/// would not tell, as the last two are charged to whom they interrupt. But here is only come to by a call
/// that runs, at most once a tick; so it is stopped when that happened in as many ticks as it was given.
#[allow(clippy::unnecessary_wraps, reason = "the signature that wasmtime asks for")]
fn over_budget(mut context: StoreContextMut<'_, HostState>) -> wasmtime::Result<UpdateDeadline> {
    let state = context.data_mut();
    if state.overrun_ticks >= state.overrun_ticks_max {
        return Ok(UpdateDeadline::Interrupt);
    }
    state.overrun_ticks += 1;
    Ok(UpdateDeadline::Continue(1))
}

/// What went wrong in a call, for a person.
pub(crate) fn reason(error: &wasmtime::Error) -> String {
    let said = error.downcast_ref::<PanicText>();
    match (error.downcast_ref::<Trap>(), said) {
        (Some(Trap::UnreachableCodeReached), Some(said)) => format!("it gave up: {said}"),
        (Some(trap), None) => trap_text(*trap),
        (Some(trap), Some(said)) => format!("{}; it left the text: {said}", trap_text(*trap)),
        (None, None) => printable(format!("{error:#}").as_bytes()),
        (None, Some(said)) => {
            // The text is the outermost of what the error was given on its way.
            let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
            format!("{}; it left the text: {said}", printable(causes.join(": ").as_bytes()))
        }
    }
}

/// Whether a call took too long.
pub(crate) fn is_interrupt(error: &wasmtime::Error) -> bool {
    error.downcast_ref() == Some(&Trap::Interrupt)
}

/// A trap, for a person.
pub(crate) fn trap_text(trap: Trap) -> String {
    match trap {
        Trap::Interrupt => "it ran longer than its budget".to_owned(),
        Trap::StackOverflow => "it used up its stack".to_owned(),
        Trap::UnreachableCodeReached => "it gave up (unreachable, or a panic)".to_owned(),
        other => other.to_string(),
    }
}

impl Instance {
    /// Instantiates, checks, configures and warms. Runs code of the guest, each step within the
    /// budget for loading.
    pub(crate) fn new(recipe: &Recipe<'_>, beat: &Beat) -> Result<Self, PluginFault> {
        let module = recipe.module;
        let limits = StoreLimitsBuilder::new()
            .memory_size(module.memory_max_bytes)
            .table_elements(TABLE_ELEMENTS_MAX)
            .instances(1)
            .memories(1)
            .tables(TABLES_MAX as usize)
            .build();
        let mut state = HostState::new(recipe.plugin, recipe.names, limits, recipe.offers)?;
        state.give_tables(&module.manifest.tables, recipe.tables);
        let mut store = Store::new(module.pre.module().engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(over_budget);

        let ticks = recipe.load_budget_ticks;
        let begin = |store: &mut Store<HostState>| begin_call(store.as_context_mut(), ticks);
        let failed =
            |call| move |error: wasmtime::Error| PluginFault::Call { call, reason: reason(&error) };

        begin(&mut store);
        let instance = beat.during(|| module.pre.instantiate(&mut store)).map_err(|error| {
            if error.is::<Trap>() {
                failed("the start function")(error)
            } else {
                PluginFault::Instantiate(reason(&error))
            }
        })?;
        let memory = instance
            .get_memory(&mut store, "memory")
            .ok_or(PluginFault::ExportMissing("memory"))?;
        store.data_mut().memory = Some(memory);

        let version = instance
            .get_typed_func::<(), i32>(&mut store, "sluice_abi_version")
            .map_err(failed("sluice_abi_version"))?;
        let layout = instance
            .get_typed_func::<(), i32>(&mut store, "sluice_layout")
            .map_err(failed("sluice_layout"))?;
        let configure = instance
            .get_typed_func::<i32, i32>(&mut store, "sluice_configure")
            .map_err(failed("sluice_configure"))?;
        let process = instance
            .get_typed_func::<(i32, i64), ()>(&mut store, "sluice_process")
            .map_err(failed("sluice_process"))?;

        let state = StateCalls::of(&module.manifest, &instance, &mut store)?;
        let window = recipe.window;
        let tick = match module.manifest.tick_ms {
            None => None,
            Some(ms) => Some(Tick {
                function: instance
                    .get_typed_func::<i64, ()>(&mut store, "sluice_tick")
                    .map_err(failed("sluice_tick"))?,
                every_ns: u64::from(ms) * 1_000_000,
                due: None,
            }),
        };

        begin(&mut store);
        let version = beat
            .during(|| version.call(&mut store, ()))
            .map_err(failed("sluice_abi_version"))?
            .cast_unsigned();
        let [minor, major] = [version.to_le_bytes(), (version >> 16).to_le_bytes()]
            .map(|[low, high, ..]| u16::from_le_bytes([low, high]));
        check_version(major, minor)?;

        begin(&mut store);
        let address =
            beat.during(|| layout.call(&mut store, ())).map_err(failed("sluice_layout"))?;
        let gauges: Box<[bool]> = module.manifest.gauges().into();
        let needs = LayoutNeeds::of(&module.manifest);
        let areas = Areas::read(memory.data(&store), address.cast_unsigned(), needs)?;

        begin(&mut store);
        let len = place_config(memory.data_mut(&mut store), &areas, recipe.config)?;
        store.data_mut().configuring = true;
        let answer = beat
            .during(|| configure.call(&mut store, len))
            .map_err(|error| with_panic_text(error, &areas, memory.data(&store)))
            .map_err(failed("sluice_configure"))?;
        store.data_mut().configuring = false;
        if answer != 0 {
            return Err(PluginFault::ConfigRefused(error_text(
                memory.data(&store),
                &areas.error,
                answer,
            )));
        }

        panic_text::clear(memory.data_mut(&mut store), &areas);

        for _ in 0..WARM_CALLS {
            begin(&mut store);
            beat.during(|| process.call(&mut store, (0, 0)))
                .map_err(|error| with_panic_text(error, &areas, memory.data(&store)))
                .map_err(|error| PluginFault::WarmCall { reason: reason(&error) })?;
        }
        for page in
            memory.data_mut(&mut store).chunks_mut(PAGE_BYTES).take(TOUCH_BYTES_MAX / PAGE_BYTES)
        {
            if let Some(byte) = page.first_mut() {
                *byte = black_box(*byte);
            }
        }
        let counters_seen = vec![0; gauges.len()].into_boxed_slice();
        let budget_ticks = recipe.budget_ticks;
        let guest = Guest::new(store, memory).ok_or(PluginFault::ExportMissing("memory"))?;
        Ok(Self { guest, process, areas, budget_ticks, counters_seen, gauges, tick, state, window })
    }

    /// Writes the descriptors of a batch, and the default verdict of each. The guest states the
    /// strides; what it has more room for than the host knows is left alone.
    ///
    /// `None` never comes for areas that were checked; callers treat it as a trap.
    #[inline]
    pub(crate) fn place<'d>(
        &mut self,
        descriptors: Packets<'d, impl ExactSizeIterator<Item = &'d Descriptor>>,
        default: u64,
    ) -> Option<()> {
        let (memory, state) = self.guest.memory_and_state();
        let stride = self.areas.descriptor_stride;
        let n = match descriptors {
            Packets::All(all) if stride == size_of::<Descriptor>() => {
                let bytes: &[u8] = bytemuck::cast_slice(all);
                let start = self.areas.descriptors;
                let area = memory.get_mut(start..start + bytes.len())?;
                // Above 2 KiB `memcpy` takes REP MOVS, which the call then waits for; more than some pages
                // are quicker with it.
                let piece = if bytes.len() <= 4096 { 2048 } else { bytes.len() };
                for (to, from) in area.chunks_mut(piece).zip(bytes.chunks(piece)) {
                    to.copy_from_slice(from);
                }
                all.len()
            }
            Packets::All(all) => {
                place_each(memory, self.areas.descriptors, stride, all.iter())?;
                all.len()
            }
            Packets::Some(some) => {
                let n = some.len();
                place_each(memory, self.areas.descriptors, stride, some)?;
                n
            }
        };
        let stride = self.areas.verdict_stride;
        let start = self.areas.verdicts;
        let verdicts = memory.get_mut(start..start + n * stride)?;
        if stride == size_of::<u64>() {
            let words: &mut [u64] = bytemuck::try_cast_slice_mut(verdicts).ok()?;
            let are_there = std::mem::take(&mut state.continues);
            let are_there = if default == CONTINUE { are_there.min(n) } else { 0 };
            words.get_mut(are_there..)?.fill(default);
        } else {
            for verdict in verdicts.chunks_exact_mut(stride) {
                verdict.get_mut(..8)?.copy_from_slice(&default.to_le_bytes());
            }
        }
        Some(())
    }

    /// Calls `sluice_process`. After an error the instance is poisoned.
    #[inline]
    pub(crate) fn call(&mut self, n: usize, now: Nanos, beat: &Beat) -> wasmtime::Result<()> {
        let n = i32::try_from(n)?;
        begin_call(self.guest.context(), self.budget_ticks);
        self.guest.state_mut().now_ns = now.0;
        beat.during(|| self.process.call(self.guest.context(), (n, now.0.cast_signed())))
            .map_err(|error| with_panic_text(error, &self.areas, self.guest.memory()))
    }

    /// Lets calls take so many times their budget.
    pub(crate) fn give_time(&mut self, times: u64) {
        self.budget_ticks = self.budget_ticks.saturating_mul(times);
    }

    /// The verdicts of the last call, one word each, when they lie one behind the other.
    #[inline]
    pub(crate) fn verdict_words(&self, n: usize) -> Option<&[u64]> {
        if self.areas.verdict_stride != size_of::<u64>() {
            return None;
        }
        let start = self.areas.verdicts;
        let bytes = self.guest.memory().get(start..start + n * size_of::<u64>())?;
        bytemuck::try_cast_slice(bytes).ok()
    }

    /// Whether the last call lets all of its `n` packets through, and nothing else. False also where verdicts
    /// do not lie one behind the other.
    #[inline]
    pub(crate) fn continues_all(&mut self, n: usize) -> bool {
        let all = self.verdict_words(n).is_some_and(|words| {
            // Several sums, as one would have each word wait for the one before.
            let (pieces, rest) = words.as_chunks::<8>();
            let mut sums = [CONTINUE; 8];
            for piece in pieces {
                sums.iter_mut().zip(piece).for_each(|(sum, word)| *sum |= word);
            }
            rest.iter().chain(&sums).fold(0, |all, word| all | word) == CONTINUE
        });
        if all {
            self.guest.state_mut().continues = n;
        }
        all
    }

    /// The verdict of packet `index` of the last call.
    pub(crate) fn verdict_word(&self, index: usize) -> Option<u64> {
        let start = self.areas.verdicts + index * self.areas.verdict_stride;
        let bytes = self.guest.memory().get(start..start + size_of::<u64>())?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    }

    /// Gives it other tables; `tables` are then those that it had.
    pub(crate) fn swap_tables(&mut self, tables: &mut Tables) {
        self.guest.state_mut().swap_tables(tables);
    }

    /// Has its next tick fall due when that of another instance does.
    pub(crate) fn tick_as(&mut self, other: &Self) {
        if let (Some(own), Some(other)) = (&mut self.tick, &other.tick) {
            own.due = other.due;
        }
    }

    /// When its tick is due, for an instance that has one. The first is one interval after `now`.
    pub(crate) fn tick_due(&mut self, now: Nanos) -> Option<Nanos> {
        let tick = self.tick.as_mut()?;
        Some(*tick.due.get_or_insert(now.plus(tick.every_ns)))
    }

    /// Calls `sluice_tick`, within the budget of a call. After an error the instance is poisoned. Ticks
    /// that were missed are not made up for.
    #[cold]
    pub(crate) fn call_tick(&mut self, now: Nanos, beat: &Beat) -> wasmtime::Result<()> {
        let Some(tick) = &mut self.tick else { return Ok(()) };
        tick.due = Some(now.plus(tick.every_ns));
        begin_call(self.guest.context(), self.budget_ticks);
        self.guest.state_mut().now_ns = now.0;
        beat.during(|| tick.function.call(self.guest.context(), now.0.cast_signed()))
            .map_err(|error| with_panic_text(error, &self.areas, self.guest.memory()))
    }

    /// Sets the gauges back: the instance is given up, and what it counted by them with it.
    pub(crate) fn clear_gauges(&self, of: &[Counter]) {
        for (counter, _) in of.iter().zip(&self.gauges).filter(|(_, is_gauge)| **is_gauge) {
            counter.set(0);
        }
    }

    /// Adds what the guest's counters rose by since the last time; gauges are copied as they stand.
    pub(crate) fn scrape(&mut self, into: &[Counter]) {
        let Some(bytes) = self.guest.memory().get(self.areas.counters.clone()) else {
            return;
        };
        let kinds = self.counters_seen.iter_mut().zip(&self.gauges);
        for ((value, (seen, is_gauge)), counter) in
            bytes.as_chunks::<8>().0.iter().zip(kinds).zip(into)
        {
            let value = u64::from_le_bytes(*value);
            if *is_gauge {
                counter.set(value);
                continue;
            }
            // A counter that fell was set back by the guest: what it shows now is what is new.
            counter.add(value.checked_sub(*seen).unwrap_or(value));
            *seen = value;
        }
    }
}

/// The packets of a call: all of a batch, or some of it.
pub(crate) enum Packets<'d, I: ExactSizeIterator<Item = &'d Descriptor>> {
    All(&'d [Descriptor]),
    Some(I),
}

fn place_each<'d>(
    memory: &mut [u8],
    start: usize,
    stride: usize,
    descriptors: impl ExactSizeIterator<Item = &'d Descriptor>,
) -> Option<()> {
    let area = memory.get_mut(start..start + descriptors.len() * stride)?;
    for (place, descriptor) in area.chunks_exact_mut(stride).zip(descriptors) {
        place.get_mut(..size_of::<Descriptor>())?.copy_from_slice(bytemuck::bytes_of(descriptor));
    }
    Some(())
}

fn place_config(memory: &mut [u8], areas: &Areas, config: &[u8]) -> Result<i32, PluginFault> {
    let capacity = areas.config.len();
    let place = memory
        .get_mut(areas.config.clone())
        .and_then(|area| area.get_mut(..config.len()))
        .zip(i32::try_from(config.len()).ok());
    let Some((place, len)) = place else {
        let capacity = u32::try_from(capacity).unwrap_or(u32::MAX);
        return Err(PluginFault::ConfigTooLarge { bytes: config.len(), capacity });
    };
    place.copy_from_slice(config);
    Ok(len)
}

fn error_text(memory: &[u8], area: &Range<usize>, len: i32) -> String {
    let text = usize::try_from(len)
        .ok()
        .zip(memory.get(area.clone()))
        .and_then(|(len, area)| area.get(..len));
    match text {
        Some(text) => printable_lines(text),
        None => format!("(the plugin gave no text: it returned {len})"),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU64, Ordering},
        time::Instant,
    };

    use wasmtime::{Caller, Config, Engine, Linker, Module, StoreLimits};

    use super::*;

    /// The guest loops until `work` says 0. In each round a tick passes, and as much processor time is charged
    /// to the thread as a long interrupt takes.
    fn is_stopped(rounds: u64, budget_ticks: u64) -> bool {
        let engine = Engine::new(Config::new().epoch_interruption(true)).expect("an engine");
        let text = "(module (import \"\" \"work\" (func $work (result i32)))
            (func (export \"call\") (loop $l (br_if $l (call $work)))))";
        let module = Module::new(&engine, wat::parse_str(text).expect("a module")).expect("valid");
        let left = AtomicU64::new(rounds);
        let mut linker = Linker::new(&engine);
        let work = move |caller: Caller<'_, HostState>| {
            let started = Instant::now();
            while started.elapsed().as_micros() < 200 {
                std::hint::spin_loop();
            }
            caller.engine().increment_epoch();
            i32::from(left.fetch_sub(1, Ordering::Relaxed) > 1)
        };
        linker.func_wrap("", "work", work).expect("an import");
        let (names, limits) = (Arc::default(), StoreLimits::default());
        let offers = Offers::rehearsed(1);
        let state = HostState::new(&"test".into(), &names, limits, &offers).expect("a state");
        let mut store = Store::new(&engine, state);
        store.epoch_deadline_callback(over_budget);
        let instance = linker.instantiate(&mut store, &module).expect("an instance");
        let call = instance.get_typed_func::<(), ()>(&mut store, "call").expect("a function");
        begin_call(store.as_context_mut(), budget_ticks);
        call.call(&mut store, ()).is_err()
    }

    #[test]
    fn a_call_is_stopped_by_the_ticks_in_which_it_runs_on() {
        // Of two ticks, then four at least; of ten, then as many; of a thousand, then twenty.
        for (budget_ticks, overrun_ticks) in [(2, 4), (10, 10), (1000, 20)] {
            let allowed = budget_ticks + overrun_ticks;
            assert!(!is_stopped(allowed - 1, budget_ticks), "{budget_ticks}");
            assert!(is_stopped(allowed + 2, budget_ticks), "{budget_ticks}");
        }
    }
}
