//! `meter`: token buckets that all workers share ([`crate::meters`]).

use std::sync::Arc;

use sluice_abi::{
    BATCH_MAX,
    meter::{Rate, open_error, units},
};
use wasmtime::{Caller, format_err};

use super::{HostState, count_of, memory_of};
use crate::{
    layout::span,
    meters::{ENTRIES_MAX, METERS_MAX, Meter, MeterRegistry},
};

/// The meters of one instance.
pub(super) struct Meters {
    plugin: Arc<str>,
    registry: Arc<MeterRegistry>,
    opened: Vec<Meter>,
    is_shared: bool,
    /// Of the keys of a call.
    hashes: Box<[u64; BATCH_MAX]>,
}

impl Meters {
    /// For an instance of `plugin`; with `is_shared` several workers charge the same buckets.
    pub(super) fn new(plugin: Arc<str>, registry: Arc<MeterRegistry>, is_shared: bool) -> Self {
        let hashes = Box::new([0; BATCH_MAX]);
        Self { plugin, registry, opened: Vec::new(), is_shared, hashes }
    }

    fn open(&mut self, rate_per_s_milli: i64, burst: i64, entries: i32) -> i32 {
        let rate = match Rate::new(rate_per_s_milli, burst) {
            Ok(rate) => rate,
            Err(error) => return error as i32,
        };
        let entries = usize::try_from(entries).unwrap_or(0);
        if entries == 0 || entries > ENTRIES_MAX {
            return open_error::ENTRIES;
        }
        let handle = self.opened.len();
        if handle >= METERS_MAX {
            return open_error::TOO_MANY;
        }
        let table = self.registry.open(&self.plugin, handle, entries);
        self.opened.push(Meter { table, rate, is_shared: self.is_shared });
        i32::try_from(handle).unwrap_or(open_error::TOO_MANY)
    }
}

pub(super) fn meter_open(
    mut caller: Caller<'_, HostState>,
    rate_per_s_milli: i64,
    burst: i64,
    entries: i32,
) -> i32 {
    let state = caller.data_mut();
    if !state.configuring {
        return open_error::NOT_CONFIGURING;
    }
    state.meters.open(rate_per_s_milli, burst, entries)
}

pub(super) fn meter_batch(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    keys: i32,
    n: i32,
    now_ns: i64,
    costs: i32,
    results: i32,
) -> wasmtime::Result<()> {
    let (memory, state) = memory_of(&mut caller, "meter_batch")?;
    let Meters { opened, hashes, .. } = &mut state.meters;
    let meter = usize::try_from(handle)
        .ok()
        .and_then(|handle| opened.get(handle))
        .ok_or_else(|| format_err!("`sluice.meter_batch`: {handle} is no handle of a meter"))?;
    let n = count_of(n, "meter_batch")?;
    let outside = |what: &str| format_err!("`sluice.meter_batch`: {what} lie outside the memory");
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
    // Buckets outlive the guest: one that lies about the time must not fill them into the future.
    let now = units(now_ns.cast_unsigned().min(state.now_ns));
    let mut prices = None;
    if costs != 0 {
        let costs = span(memory.len(), costs.cast_unsigned(), n * 4)
            .and_then(|range| memory.get(range))
            .ok_or_else(|| outside("the costs"))?;
        let prices = prices.insert([0_u32; BATCH_MAX]);
        for (price, cost) in prices.iter_mut().zip(costs.as_chunks::<4>().0) {
            *price = u32::from_le_bytes(*cost);
        }
    }
    let results = span(memory.len(), results.cast_unsigned(), n)
        .and_then(|range| memory.get_mut(range))
        .ok_or_else(|| outside("the results"))?;
    let hashes = hashes.iter().copied();
    match &prices {
        None => meter.charge_each(hashes.zip(std::iter::repeat(1)), now, results),
        Some(prices) => meter.charge_each(hashes.zip(prices.iter().copied()), now, results),
    }
    Ok(())
}
