//! What the host offers to guests: functions of the module `sluice`, each behind a capability.
//!
//! A guest's pointers are checked at each call; a bad one is a trap with a text of its own. Nothing
//! here allocates or waits once the plugin is configured.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crossbeam::queue::ArrayQueue;
use sluice_abi::{
    BATCH_MAX, IMPORT_MODULE,
    meter::{Rate, units},
};
use wasmtime::{Caller, Engine, Linker, Memory, StoreLimits, format_err};

use crate::{
    PolicyError,
    layout::span,
    meters::{ENTRIES_MAX, METERS_MAX, Meter, MeterRegistry},
};

/// Each function with the capability that it takes.
const FUNCTIONS: [(&str, &str); 3] =
    [("log", "log"), ("meter_open", "meter"), ("meter_batch", "meter")];

/// Lines that one instance may log a second.
const LOG_LINES_PER_S: u32 = 16;
/// The longest line that is kept, in bytes.
const LOG_BYTES_MAX: usize = 240;
/// Lines of all plugins that may wait to be written.
const LOG_QUEUE_LINES: usize = 512;

/// The capability that the function `name` takes, if the host offers it.
pub(crate) fn capability(name: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(function, _)| *function == name).map(|(_, capability)| *capability)
}

pub(crate) fn is_capability(name: &str) -> bool {
    FUNCTIONS.iter().any(|(_, capability)| *capability == name)
}

/// The capabilities of all functions, each once.
pub(crate) fn capabilities() -> Vec<&'static str> {
    let mut all: Vec<_> = FUNCTIONS.iter().map(|(_, capability)| *capability).collect();
    all.dedup();
    all
}

/// A line of a guest on its way to the control thread.
#[derive(Debug)]
pub(crate) struct LogLine {
    pub(crate) plugin: Arc<str>,
    pub(crate) level: i32,
    bytes: [u8; LOG_BYTES_MAX],
    len: usize,
}

impl LogLine {
    /// The line as text: a guest can neither break the log's encoding nor forge further lines.
    pub(crate) fn text(&self) -> String {
        printable(self.bytes.get(..self.len).unwrap_or_default())
    }
}

/// Bytes of a guest as one line of text.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

/// Where all instances log to.
#[derive(Debug)]
pub(crate) struct LogQueue {
    pub(crate) lines: ArrayQueue<LogLine>,
    /// Lines that were over an instance's rate or that the queue had no room for.
    pub(crate) lost: AtomicU64,
}

impl LogQueue {
    pub(crate) fn new() -> Self {
        Self { lines: ArrayQueue::new(LOG_QUEUE_LINES), lost: AtomicU64::new(0) }
    }
}

/// What belongs to one instance on the host's side.
pub(crate) struct HostState {
    pub(crate) limits: StoreLimits,
    pub(crate) memory: Option<Memory>,
    pub(crate) configuring: bool,
    /// The time that the running call was given.
    pub(crate) now_ns: u64,
    /// Processor time of the thread when the running call was first found over its budget.
    pub(crate) overrun_since: Option<Duration>,
    plugin: Arc<str>,
    log: Arc<LogQueue>,
    log_window_start_ns: u64,
    log_window_lines: u32,
    registry: Arc<MeterRegistry>,
    meters: Vec<Meter>,
}

impl HostState {
    pub(crate) fn new(
        plugin: Arc<str>,
        limits: StoreLimits,
        log: Arc<LogQueue>,
        registry: Arc<MeterRegistry>,
    ) -> Self {
        Self {
            limits,
            memory: None,
            configuring: false,
            now_ns: 0,
            overrun_since: None,
            plugin,
            log,
            log_window_start_ns: 0,
            log_window_lines: 0,
            registry,
            meters: Vec::new(),
        }
    }

    fn log(&mut self, level: i32, text: &[u8]) {
        if self.now_ns.saturating_sub(self.log_window_start_ns) >= 1_000_000_000 {
            self.log_window_start_ns = self.now_ns;
            self.log_window_lines = 0;
        }
        self.log_window_lines = self.log_window_lines.saturating_add(1);
        let mut bytes = [0; LOG_BYTES_MAX];
        let len = text.len().min(LOG_BYTES_MAX);
        for (to, from) in bytes.iter_mut().zip(text) {
            *to = *from;
        }
        let over_rate = self.log_window_lines > LOG_LINES_PER_S;
        let line = LogLine { plugin: Arc::clone(&self.plugin), level, bytes, len };
        if over_rate || self.log.lines.push(line).is_err() {
            self.log.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn meter_open(&mut self, rate_per_s_milli: i64, burst: i64, entries: i32) -> i32 {
        use sluice_abi::meter::open_error;
        if !self.configuring {
            return open_error::NOT_CONFIGURING;
        }
        let rate = match Rate::new(rate_per_s_milli, burst) {
            Ok(rate) => rate,
            Err(error) => return error as i32,
        };
        let entries = usize::try_from(entries).unwrap_or(0);
        if entries == 0 || entries > ENTRIES_MAX {
            return open_error::ENTRIES;
        }
        let handle = self.meters.len();
        if handle >= METERS_MAX {
            return open_error::TOO_MANY;
        }
        let table = self.registry.open(&self.plugin, handle, entries);
        self.meters.push(Meter { table, rate });
        i32::try_from(handle).unwrap_or(open_error::TOO_MANY)
    }
}

/// All functions, to be linked to modules whose imports were checked.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<HostState>, PolicyError> {
    let mut linker = Linker::new(engine);
    let defined = (|| {
        linker.func_wrap(IMPORT_MODULE, "log", log)?;
        linker.func_wrap(IMPORT_MODULE, "meter_open", meter_open)?;
        linker.func_wrap(IMPORT_MODULE, "meter_batch", meter_batch)?;
        Ok::<_, wasmtime::Error>(())
    })();
    defined.map_err(|error| PolicyError::Engine(format!("{error:#}")))?;
    Ok(linker)
}

fn memory_of<'a>(
    caller: &'a mut Caller<'_, HostState>,
    function: &str,
) -> wasmtime::Result<(&'a mut [u8], &'a mut HostState)> {
    let memory = caller
        .data()
        .memory
        .ok_or_else(|| format_err!("`sluice.{function}` was called by the start function"))?;
    Ok(memory.data_and_store_mut(caller))
}

fn log(
    mut caller: Caller<'_, HostState>,
    level: i32,
    address: i32,
    len: i32,
) -> wasmtime::Result<()> {
    let (memory, state) = memory_of(&mut caller, "log")?;
    let bytes = span(memory.len(), address.cast_unsigned(), len.cast_unsigned() as usize)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| format_err!("`sluice.log` was given a text outside the memory"))?;
    state.log(level, bytes);
    Ok(())
}

fn meter_open(
    mut caller: Caller<'_, HostState>,
    rate_per_s_milli: i64,
    burst: i64,
    entries: i32,
) -> i32 {
    caller.data_mut().meter_open(rate_per_s_milli, burst, entries)
}

fn meter_batch(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    keys: i32,
    n: i32,
    now_ns: i64,
    costs: i32,
    results: i32,
) -> wasmtime::Result<()> {
    let (memory, state) = memory_of(&mut caller, "meter_batch")?;
    let meter = usize::try_from(handle)
        .ok()
        .and_then(|handle| state.meters.get(handle))
        .ok_or_else(|| format_err!("`sluice.meter_batch`: {handle} is no handle of a meter"))?;
    let n = usize::try_from(n)
        .ok()
        .filter(|n| *n <= BATCH_MAX)
        .ok_or_else(|| format_err!("`sluice.meter_batch`: {n} is no number of packets"))?;
    let outside = |what: &str| format_err!("`sluice.meter_batch`: {what} lie outside the memory");
    let mut hashes = [0; BATCH_MAX];
    let keys = span(memory.len(), keys.cast_unsigned(), n * 16)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| outside("the keys"))?;
    // Two passes: by the second the lines that the first asked for have come.
    let mut touched = 0;
    for (hash, key) in hashes.iter_mut().zip(keys.as_chunks::<16>().0) {
        *hash = meter.table.hash(*key);
        touched |= meter.table.touch(*hash);
    }
    std::hint::black_box(touched);
    let mut prices = [1_u32; BATCH_MAX];
    if costs != 0 {
        let costs = span(memory.len(), costs.cast_unsigned(), n * 4)
            .and_then(|range| memory.get(range))
            .ok_or_else(|| outside("the costs"))?;
        for (price, cost) in prices.iter_mut().zip(costs.as_chunks::<4>().0) {
            *price = u32::from_le_bytes(*cost);
        }
    }
    let results = span(memory.len(), results.cast_unsigned(), n)
        .and_then(|range| memory.get_mut(range))
        .ok_or_else(|| outside("the results"))?;
    // Buckets outlive the guest: one that lies about the time must not fill them into the future.
    let now = units(now_ns.cast_unsigned().min(state.now_ns));
    for ((result, hash), price) in results.iter_mut().zip(hashes).zip(prices) {
        *result = u8::from(meter.table.charge(&meter.rate, hash, now, price));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wasmtime::StoreLimitsBuilder;

    use super::*;

    #[test]
    fn logs_are_bounded_in_rate_and_length_and_stay_one_line() {
        let queue = Arc::new(LogQueue::new());
        let limits = StoreLimitsBuilder::new().build();
        let registry = Arc::new(MeterRegistry::default());
        let mut state = HostState::new("p".into(), limits, Arc::clone(&queue), registry);
        state.log(2, b"a\nb\xff");
        assert_eq!(queue.lines.pop().expect("a line").text(), "a\u{fffd}b\u{fffd}");
        for _ in 0..100 {
            state.log(2, &[b'x'; 1000]);
        }
        assert_eq!(queue.lines.len(), LOG_LINES_PER_S as usize - 1);
        assert_eq!(queue.lost.load(Ordering::Relaxed), 101 - u64::from(LOG_LINES_PER_S));
        assert_eq!(queue.lines.pop().expect("a line").text().len(), LOG_BYTES_MAX);
        state.now_ns = 1_000_000_000;
        state.log(2, b"again");
        assert_eq!(queue.lost.load(Ordering::Relaxed), 101 - u64::from(LOG_LINES_PER_S));
    }
}
