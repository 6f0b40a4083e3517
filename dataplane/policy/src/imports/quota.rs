//! `quota`: budgets of members that all workers share ([`crate::quotas`]).

use std::sync::Arc;

use sluice_abi::{
    BATCH_MAX,
    quota::{MEMBERS_IN_ALL_MAX, open_error},
};
use wasmtime::{Caller, format_err};

use super::{HostState, count_of, memory_of};
use crate::{
    layout::span,
    quotas::{LIFETIME_MS_MAX, MEMBERS_MAX, PATIENCE, QUOTAS_MAX, Quota, QuotaRegistry, Terms},
};

/// The quotas of one instance.
pub(super) struct Quotas {
    plugin: Arc<str>,
    registry: Arc<QuotaRegistry>,
    opened: Vec<Quota>,
    /// Of those that are opened.
    members_in_all: usize,
}

impl Quotas {
    pub(super) fn new(plugin: Arc<str>, registry: Arc<QuotaRegistry>) -> Self {
        Self { plugin, registry, opened: Vec::new(), members_in_all: 0 }
    }

    fn open(&mut self, budget: i32, members: i32, lifetime_ms: i64) -> i32 {
        let Some(budget) = u32::try_from(budget).ok().filter(|budget| *budget > 0) else {
            return open_error::BUDGET;
        };
        let members = usize::try_from(members).unwrap_or(0);
        let in_all = self.members_in_all.saturating_add(members);
        if members == 0 || members > MEMBERS_MAX || in_all > MEMBERS_IN_ALL_MAX as usize {
            return open_error::MEMBERS;
        }
        let lifetime_ms = u64::try_from(lifetime_ms).unwrap_or(0);
        if lifetime_ms == 0 || lifetime_ms > LIFETIME_MS_MAX {
            return open_error::LIFETIME;
        }
        let handle = self.opened.len();
        if handle >= QUOTAS_MAX {
            return open_error::TOO_MANY;
        }
        let table = self.registry.open(&self.plugin, handle, members);
        let terms = Terms { budget, lifetime_ns: lifetime_ms * 1_000_000 };
        self.members_in_all = in_all;
        self.opened.push(Quota { table, terms });
        i32::try_from(handle).unwrap_or(open_error::TOO_MANY)
    }
}

pub(super) fn quota_open(
    mut caller: Caller<'_, HostState>,
    budget: i32,
    members: i32,
    lifetime_ms: i64,
) -> i32 {
    let state = caller.data_mut();
    if !state.configuring {
        return open_error::NOT_CONFIGURING;
    }
    state.quotas.open(budget, members, lifetime_ms)
}

pub(super) fn quota_batch(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    groups: i32,
    members: i32,
    n: i32,
    now_ns: i64,
    results: i32,
) -> wasmtime::Result<()> {
    let mut patience = PATIENCE;
    let ask = |quota: &Quota, hashes, now| quota.table.ask(quota.terms, hashes, now, &mut patience);
    for_each(&mut caller, "quota_batch", (handle, groups, members, n, results), now_ns, ask)
}

pub(super) fn quota_contains(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    groups: i32,
    members: i32,
    n: i32,
    now_ns: i64,
    results: i32,
) -> wasmtime::Result<()> {
    let ask = |quota: &Quota, (member, _), now| u8::from(quota.table.contains(member, now));
    for_each(&mut caller, "quota_contains", (handle, groups, members, n, results), now_ns, ask)
}

pub(super) fn quota_leave(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    groups: i32,
    members: i32,
    n: i32,
    now_ns: i64,
    results: i32,
) -> wasmtime::Result<()> {
    let mut patience = PATIENCE;
    let leave = |quota: &Quota, hashes, now| quota.table.leave(hashes, now, &mut patience);
    for_each(&mut caller, "quota_leave", (handle, groups, members, n, results), now_ns, leave)
}

/// Has `ask` answer for each pair of a group and a member, by their hashes and the time of the call.
#[inline]
fn for_each(
    caller: &mut Caller<'_, HostState>,
    function: &str,
    (handle, groups, members, n, results): (i32, i32, i32, i32, i32),
    now_ns: i64,
    mut ask: impl FnMut(&Quota, (u64, u64), u64) -> u8,
) -> wasmtime::Result<()> {
    let (memory, state) = memory_of(caller, function)?;
    let quota = usize::try_from(handle)
        .ok()
        .and_then(|handle| state.quotas.opened.get(handle))
        .ok_or_else(|| format_err!("`sluice.{function}`: {handle} is no handle of a quota"))?;
    let n = count_of(n, function)?;
    let outside = |what: &str| format_err!("`sluice.{function}`: {what} lie outside the memory");
    let keys = |address: i32, what| {
        span(memory.len(), address.cast_unsigned(), n * 16)
            .and_then(|range| memory.get(range))
            .map(|bytes| bytes.as_chunks::<16>().0)
            .ok_or_else(|| outside(what))
    };
    let (groups, members) = (keys(groups, "the groups")?, keys(members, "the members")?);
    let mut hashes = [(0, 0); BATCH_MAX];
    // Two passes, as for meters: by the second the lines that the first asked for have come.
    let mut touched = 0;
    for (hash, (group, member)) in hashes.iter_mut().zip(groups.iter().zip(members)) {
        *hash = quota.table.hashes(*group, *member);
        touched |= quota.table.touch(hash.0);
    }
    std::hint::black_box(touched);
    let results = span(memory.len(), results.cast_unsigned(), n)
        .and_then(|range| memory.get_mut(range))
        .ok_or_else(|| outside("the results"))?;
    // Members outlive the guest, as buckets do.
    let now = now_ns.cast_unsigned().min(state.now_ns);
    for (result, hashes) in results.iter_mut().zip(hashes) {
        *result = ask(quota, hashes, now);
    }
    Ok(())
}
