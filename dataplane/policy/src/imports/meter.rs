//! `meter`: token buckets that all workers share ([`crate::meters`]).

use std::sync::Arc;

use sluice_abi::{
    BATCH_MAX,
    meter::{ENTRIES_IN_ALL_MAX, Rate, open_error, units},
};
use wasmtime::{Caller, format_err};

use super::{HostState, count_of, memory_of, outside, strided};
use crate::{
    layout::span,
    meters::{Charges, ENTRIES_MAX, METERS_MAX, Meter, MeterRegistry, PrefixMasks},
};

/// The meters of one instance.
pub(super) struct Meters {
    plugin: Arc<str>,
    registry: Arc<MeterRegistry>,
    opened: Vec<Meter>,
    /// Of those that are opened.
    entries_in_all: usize,
    is_shared: bool,
    /// Of the keys of a call.
    hashes: Box<[u64; BATCH_MAX]>,
}

/// A meter, and room for the hashes of the packets of a call.
struct Batch<'a> {
    meter: &'a Meter,
    hashes: &'a mut [u64],
}

impl Meters {
    /// For an instance of `plugin`; with `is_shared` several workers charge the same buckets.
    pub(super) fn new(plugin: Arc<str>, registry: Arc<MeterRegistry>, is_shared: bool) -> Self {
        let hashes = Box::new([0; BATCH_MAX]);
        Self { plugin, registry, opened: Vec::new(), entries_in_all: 0, is_shared, hashes }
    }

    /// What a call about `n` packets needs of the meter `handle`.
    fn batch(&mut self, handle: i32, n: usize, function: &str) -> wasmtime::Result<Batch<'_>> {
        let Self { opened, hashes, .. } = self;
        let meter = usize::try_from(handle)
            .ok()
            .and_then(|handle| opened.get(handle))
            .ok_or_else(|| format_err!("`sluice.{function}`: {handle} is no handle of a meter"))?;
        Ok(Batch { meter, hashes: hashes.get_mut(..n).unwrap_or_default() })
    }

    fn open(&mut self, rate_per_s_milli: i64, burst: i64, entries: i32) -> i32 {
        let rate = match Rate::new(rate_per_s_milli, burst) {
            Ok(rate) => rate,
            Err(error) => return error as i32,
        };
        let entries = usize::try_from(entries).unwrap_or(0);
        let in_all = self.entries_in_all.saturating_add(entries);
        if entries == 0 || entries > ENTRIES_MAX || in_all > ENTRIES_IN_ALL_MAX as usize {
            return open_error::ENTRIES;
        }
        let handle = self.opened.len();
        if handle >= METERS_MAX {
            return open_error::TOO_MANY;
        }
        let table = self.registry.open(&self.plugin, handle, entries);
        self.entries_in_all = in_all;
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
    const NAME: &str = "meter_batch";
    let (memory, state) = memory_of(&mut caller, NAME)?;
    let n = count_of(n, NAME)?;
    let Batch { meter, hashes } = state.meters.batch(handle, n, NAME)?;
    let keys = span(memory.len(), keys.cast_unsigned(), n * 16)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| outside(NAME, "the keys"))?;
    meter.table.hash_each(keys.as_chunks().0.iter().copied(), hashes);
    let mut prices;
    let costs = if costs == 0 {
        None
    } else {
        let costs = span(memory.len(), costs.cast_unsigned(), n * 4)
            .and_then(|range| memory.get(range))
            .ok_or_else(|| outside(NAME, "the costs"))?;
        prices = [0; BATCH_MAX];
        for (price, cost) in prices.iter_mut().zip(costs.as_chunks::<4>().0) {
            *price = u32::from_le_bytes(*cost);
        }
        Some(&prices[..])
    };
    let results = span(memory.len(), results.cast_unsigned(), n)
        .and_then(|range| memory.get_mut(range))
        .ok_or_else(|| outside(NAME, "the results"))?;
    let now = spending_time(now_ns, state.now_ns);
    Charges { meter, now, hashes, costs, results }.make();
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the guest's signature")]
pub(super) fn meter_prefix_batch(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    addresses: i32,
    stride: i32,
    n: i32,
    len4: i32,
    len6: i32,
    now_ns: i64,
    results: i32,
) -> wasmtime::Result<()> {
    const NAME: &str = "meter_prefix_batch";
    let (memory, state) = memory_of(&mut caller, NAME)?;
    let n = count_of(n, NAME)?;
    let masks = PrefixMasks::new(len4, len6).ok_or_else(|| {
        format_err!("`sluice.{NAME}`: {len4} and {len6} are no lengths of IPv4 and IPv6 prefixes")
    })?;
    let Batch { meter, hashes } = state.meters.batch(handle, n, NAME)?;
    let addresses = strided(memory, addresses, stride, n, NAME, "the addresses")?;
    meter.table.hash_each_prefix(masks, addresses, hashes);
    let results = span(memory.len(), results.cast_unsigned(), n)
        .and_then(|range| memory.get_mut(range))
        .ok_or_else(|| outside(NAME, "the results"))?;
    let now = spending_time(now_ns, state.now_ns);
    Charges { meter, now, hashes, costs: None, results }.make();
    Ok(())
}

/// The time in units at which buckets are charged. They outlive the guest: one that lies about the time must not
/// fill them into the future.
fn spending_time(now_ns: i64, call_ns: u64) -> u64 {
    units(now_ns.cast_unsigned().min(call_ns))
}
