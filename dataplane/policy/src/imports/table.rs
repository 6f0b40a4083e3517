//! `table`: keys looked up in tables from files ([`crate::tables`]).

use sluice_abi::{BATCH_MAX, table::open_error};
use wasmtime::{Caller, format_err};

use super::{HostState, count_of, memory_of, outside, strided};
use crate::{
    layout::span,
    tables::{Table, Tables, WORD_BYTES_MAX},
};

/// The tables that one instance reads.
pub(super) struct TableReader {
    /// In the manifest's order; so many as its limit says.
    names: Vec<String>,
    tables: Tables,
    /// Those that it has opened, a bit for each.
    opened: u32,
}

impl TableReader {
    pub(super) fn new(names: Vec<String>, tables: Tables) -> Self {
        Self { names, tables, opened: 0 }
    }

    pub(super) fn none() -> Self {
        Self::new(Vec::new(), Tables::from([]))
    }

    /// Reads these tables from now on, and gives back in their place those that it read.
    pub(super) fn swap(&mut self, tables: &mut Tables) {
        std::mem::swap(&mut self.tables, tables);
    }

    fn open(&mut self, name: &[u8]) -> i32 {
        let found = self.names.iter().position(|own| own.as_bytes() == name);
        let handle = found.and_then(|position| i32::try_from(position).ok());
        let Some(handle) = handle else { return open_error::UNKNOWN };
        self.opened |= 1 << handle;
        handle
    }

    fn get(&self, handle: i32, function: &str) -> wasmtime::Result<&Table> {
        u32::try_from(handle)
            .ok()
            .filter(|handle| *handle < u32::BITS && self.opened & 1 << handle != 0)
            .and_then(|handle| self.tables.get(handle as usize))
            .map(|table| &**table)
            .ok_or_else(|| format_err!("`sluice.{function}`: {handle} is no handle of a table"))
    }
}

pub(super) fn table_open(
    mut caller: Caller<'_, HostState>,
    name: i32,
    len: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = memory_of(&mut caller, "table_open")?;
    let name = span(memory.len(), name.cast_unsigned(), len.cast_unsigned() as usize)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| format_err!("`sluice.table_open` was given a name outside the memory"))?;
    if !state.configuring {
        return Ok(open_error::NOT_CONFIGURING);
    }
    Ok(state.tables.open(name))
}

pub(super) fn table_word(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    text: i32,
    len: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = memory_of(&mut caller, "table_word")?;
    let table = state.tables.get(handle, "table_word")?;
    let text = span(memory.len(), text.cast_unsigned(), len.cast_unsigned() as usize)
        .and_then(|range| memory.get(range))
        .ok_or_else(|| format_err!("`sluice.table_word` was given a word outside the memory"))?;
    // Nothing longer is a word, however long it takes to see that it is UTF-8.
    let word = text.get(..text.len().min(WORD_BYTES_MAX + 1)).unwrap_or_default();
    Ok(std::str::from_utf8(word).map_or(0, |word| table.word(word)).cast_signed())
}

pub(super) fn table_batch(
    mut caller: Caller<'_, HostState>,
    handle: i32,
    first: i32,
    stride: i32,
    n: i32,
    results: i32,
) -> wasmtime::Result<()> {
    let (memory, state) = memory_of(&mut caller, "table_batch")?;
    let table = state.tables.get(handle, "table_batch")?;
    let n = count_of(n, "table_batch")?;
    let mut keys = [0_u128; BATCH_MAX];
    let given = strided(memory, first, stride, n, "table_batch", "the keys")?;
    for (key, bytes) in keys.iter_mut().zip(given) {
        *key = u128::from_be_bytes(bytes);
    }
    let mut values = [0_u32; BATCH_MAX];
    if let (Some(keys), Some(values)) = (keys.get(..n), values.get_mut(..n)) {
        table.lookup_batch(keys, values);
    }
    let results = span(memory.len(), results.cast_unsigned(), n * 4)
        .and_then(|range| memory.get_mut(range))
        .ok_or_else(|| outside("table_batch", "the results"))?;
    for (place, value) in results.as_chunks_mut::<4>().0.iter_mut().zip(values) {
        *place = value.to_le_bytes();
    }
    Ok(())
}
