//! `name_number`: the numbers of what the configuration names, for a guest that is being configured.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};
use sluice_abi::name_kind;
use wasmtime::{Caller, format_err};

use super::{HostState, memory_of};
use crate::layout::span;

/// There is nothing of this name.
const NO_SUCH_NAME: i32 = -1;
/// It was not called by `sluice_configure`.
const NOT_CONFIGURING: i32 = -2;

/// What the operator's configuration names, with numbers from 1 on. Whoever makes one gives a name the same
/// number as long as the process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Names {
    /// Next hops.
    pub next_hops: BTreeMap<String, u16>,
    /// Egress tags.
    pub tags: BTreeMap<String, u16>,
    /// Classes.
    pub classes: BTreeMap<String, u16>,
    /// Interfaces: their positions plus 1.
    pub interfaces: BTreeMap<String, u16>,
}

impl Names {
    /// The names of a kind; `None` for a kind that there is none of.
    fn of_kind(&self, kind: i32) -> Option<&BTreeMap<String, u16>> {
        match kind {
            name_kind::NEXT_HOP => Some(&self.next_hops),
            name_kind::EGRESS_TAG => Some(&self.tags),
            name_kind::CLASS => Some(&self.classes),
            name_kind::INTERFACE => Some(&self.interfaces),
            _ => None,
        }
    }
}

pub(super) fn name_number(
    mut caller: Caller<'_, HostState>,
    kind: i32,
    text: i32,
    len: i32,
) -> wasmtime::Result<i32> {
    let (memory, state) = memory_of(&mut caller, "name_number")?;
    let bytes = usize::try_from(len)
        .ok()
        .and_then(|len| span(memory.len(), text.cast_unsigned(), len))
        .and_then(|range| memory.get(range))
        .ok_or_else(|| {
            format_err!("`sluice.name_number`: {len} bytes at {text} are not in memory")
        })?;
    let names: &Arc<Names> = &state.names;
    let names = names
        .of_kind(kind)
        .ok_or_else(|| format_err!("`sluice.name_number`: there is no kind {kind}"))?;
    if !state.configuring {
        return Ok(NOT_CONFIGURING);
    }
    let number = std::str::from_utf8(bytes).ok().and_then(|name| names.get(name));
    Ok(number.map_or(NO_SUCH_NAME, |number| i32::from(*number)))
}
