//! What the host offers to guests: functions of the module `sluice`, each behind a capability.
//!
//! A guest's pointers are checked at each call; a bad one is a trap with a text of its own. Nothing
//! here allocates or waits once the plugin is configured.

mod log;
mod meter;
mod names;
mod quota;
mod random;
mod table;

use std::sync::Arc;

use sluice_abi::{BATCH_MAX, IMPORT_MODULE};
use wasmtime::{Caller, Engine, Linker, Memory, StoreLimits, format_err};

use crate::{
    PluginFault, PolicyError, layout::span, meters::MeterRegistry, quotas::QuotaRegistry,
    tables::Tables,
};

pub(crate) use log::LogQueue;
pub use names::Names;
pub(crate) use random::{Generator, Seeds};
use {log::Logger, meter::Meters, quota::Quotas, table::TableReader};

/// Each function with the capability that it takes, in the order of `CAPABILITIES`.
const FUNCTIONS: [(&str, &str); 13] = [
    ("log", "log"),
    ("random", "random"),
    ("name_number", "names"),
    ("meter_open", "meter"),
    ("meter_batch", "meter"),
    ("meter_prefix_batch", "meter"),
    ("table_open", "table"),
    ("table_word", "table"),
    ("table_batch", "table"),
    ("quota_open", "quota"),
    ("quota_batch", "quota"),
    ("quota_contains", "quota"),
    ("quota_leave", "quota"),
];

/// The capability that the function `name` takes, if the host offers it.
pub(crate) fn capability(name: &str) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(function, _)| *function == name).map(|(_, capability)| *capability)
}

/// The capabilities of all functions, each once.
#[cfg(test)]
pub(crate) fn capabilities() -> Vec<&'static str> {
    let mut all: Vec<_> = FUNCTIONS.iter().map(|(_, capability)| *capability).collect();
    all.dedup();
    all
}

/// What all instances are offered besides their packets.
pub(crate) struct Offers {
    pub(crate) log: Arc<LogQueue>,
    pub(crate) meters: Arc<MeterRegistry>,
    pub(crate) quotas: Arc<QuotaRegistry>,
    pub(crate) seeds: Seeds,
    /// Several workers' instances use what is shared.
    pub(crate) is_shared: bool,
}

impl Offers {
    /// With generators that the system seeds, or from a fixed seed on; for several workers or one.
    pub(crate) fn new(seed: Option<u64>, is_shared: bool) -> Self {
        Self {
            is_shared,
            log: Arc::new(LogQueue::new()),
            meters: Arc::default(),
            quotas: Arc::default(),
            seeds: Seeds::new(seed),
        }
    }

    /// What an instance of `plugin` aside is offered: copies of what is shared as it stands, a log that
    /// nobody reads, and always the same random numbers.
    pub(crate) fn aside(&self, plugin: &str) -> Self {
        Self {
            meters: Arc::new(self.meters.copied(plugin)),
            quotas: Arc::new(self.quotas.copied(plugin)),
            ..Self::new(Some(0), true)
        }
    }

    /// What an instance of a rehearsal is offered, and those that come after it: shared by these alone.
    pub(crate) fn rehearsed(seed: u64) -> Self {
        Self { seeds: Seeds::Rehearsed(seed), ..Self::new(Some(0), true) }
    }

    /// What another worker's instance of a rehearsal is offered: the same meters and quotas, and random
    /// numbers of its own.
    pub(crate) fn rehearsed_beside(&self, seed: u64) -> Self {
        Self {
            meters: Arc::clone(&self.meters),
            quotas: Arc::clone(&self.quotas),
            ..Self::rehearsed(seed)
        }
    }

    /// Forgets what no instance uses any more.
    pub(crate) fn prune(&self) {
        self.meters.prune();
        self.quotas.prune();
    }
}

/// What belongs to one instance on the host's side.
pub(crate) struct HostState {
    pub(crate) limits: StoreLimits,
    pub(crate) memory: Option<Memory>,
    pub(crate) configuring: bool,
    /// The time that the running call was given.
    pub(crate) now_ns: u64,
    /// In how many ticks the running call was seen to run after its budget was over.
    pub(crate) overrun_ticks: u64,
    /// In how many it may be, before it is stopped.
    pub(crate) overrun_ticks_max: u64,
    /// So many verdicts at the start of the guest's area are still those that let packets through, as the
    /// last call left them: they need not be written before the next.
    pub(crate) continues: usize,
    logger: Logger,
    meters: Meters,
    names: Arc<Names>,
    quotas: Quotas,
    random: Generator,
    tables: TableReader,
}

impl HostState {
    pub(crate) fn new(
        plugin: &Arc<str>,
        names: &Arc<Names>,
        limits: StoreLimits,
        offers: &Offers,
    ) -> Result<Self, PluginFault> {
        Ok(Self {
            limits,
            memory: None,
            configuring: false,
            now_ns: 0,
            overrun_ticks: 0,
            overrun_ticks_max: 0,
            continues: 0,
            logger: Logger::new(Arc::clone(plugin), Arc::clone(&offers.log)),
            meters: Meters::new(Arc::clone(plugin), Arc::clone(&offers.meters), offers.is_shared),
            names: Arc::clone(names),
            quotas: Quotas::new(Arc::clone(plugin), Arc::clone(&offers.quotas)),
            random: offers.seeds.generator()?,
            tables: TableReader::none(),
        })
    }

    /// Gives the instance its tables, by the names that its manifest has for them.
    pub(crate) fn give_tables(&mut self, names: &[String], tables: &Tables) {
        self.tables = TableReader::new(names.to_vec(), Arc::clone(tables));
    }

    /// Goes on with the random numbers where the other stands.
    pub(crate) fn draw_on_from(&mut self, other: &Self) {
        self.random = other.random.clone();
    }

    /// Gives it others in their place; `tables` are then those that it had.
    pub(crate) fn swap_tables(&mut self, tables: &mut Tables) {
        self.tables.swap(tables);
    }
}

/// All functions, to be linked to modules whose imports were checked.
pub(crate) fn linker(engine: &Engine) -> Result<Linker<HostState>, PolicyError> {
    let mut linker = Linker::new(engine);
    let defined = (|| {
        linker.func_wrap(IMPORT_MODULE, "log", log::log)?;
        linker.func_wrap(IMPORT_MODULE, "name_number", names::name_number)?;
        linker.func_wrap(IMPORT_MODULE, "random", random::random)?;
        linker.func_wrap(IMPORT_MODULE, "table_open", table::table_open)?;
        linker.func_wrap(IMPORT_MODULE, "table_word", table::table_word)?;
        linker.func_wrap(IMPORT_MODULE, "table_batch", table::table_batch)?;
        linker.func_wrap(IMPORT_MODULE, "quota_open", quota::quota_open)?;
        linker.func_wrap(IMPORT_MODULE, "quota_batch", quota::quota_batch)?;
        linker.func_wrap(IMPORT_MODULE, "quota_contains", quota::quota_contains)?;
        linker.func_wrap(IMPORT_MODULE, "quota_leave", quota::quota_leave)?;
        linker.func_wrap(IMPORT_MODULE, "meter_open", meter::meter_open)?;
        linker.func_wrap(IMPORT_MODULE, "meter_batch", meter::meter_batch)?;
        linker.func_wrap(IMPORT_MODULE, "meter_prefix_batch", meter::meter_prefix_batch)?;
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

/// The number of packets that a guest states.
fn count_of(n: i32, function: &str) -> wasmtime::Result<usize> {
    let count = usize::try_from(n).ok().filter(|n| *n <= BATCH_MAX);
    count.ok_or_else(|| format_err!("`sluice.{function}`: {n} is no number of packets"))
}

/// Fields of 16 bytes, `stride` bytes apart, of `n` packets: of the last its own bytes only.
#[inline]
fn strided<'a>(
    memory: &'a [u8],
    first: i32,
    stride: i32,
    n: usize,
    function: &str,
    what: &str,
) -> wasmtime::Result<impl Iterator<Item = [u8; 16]> + use<'a>> {
    let stride = usize::try_from(stride)
        .ok()
        .filter(|stride| (16..=4096).contains(stride) && stride.is_multiple_of(4))
        .ok_or_else(|| format_err!("`sluice.{function}`: {stride} is no stride"))?;
    let bytes = n.checked_sub(1).map_or(0, |before| before * stride + 16);
    let area = span(memory.len(), first.cast_unsigned(), bytes)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| outside(function, what))?;
    // Windows of 16 bytes, of which there is always one more than steps: no remainder to look after.
    let fields = area.windows(16).step_by(stride);
    Ok(fields.map(|field| field.first_chunk().copied().unwrap_or_default()))
}

fn outside(function: &str, what: &str) -> wasmtime::Error {
    format_err!("`sluice.{function}`: {what} lie outside the memory")
}
