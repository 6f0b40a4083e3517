//! State that an instance hands over to its successor in the same worker.
//!
//! The bytes go from one memory into the other: nothing is allocated for them.

use wasmtime::{Store, TypedFunc};

use super::{Instance, begin_call, with_panic_text};
use crate::{Manifest, PluginFault, imports::HostState, ticker::Beat};

/// The guest's functions, and what its manifest says of them.
pub(super) struct StateCalls {
    export: TypedFunc<(), i32>,
    import: TypedFunc<(i32, i32), i32>,
    schema: u32,
    bytes_max: usize,
    takes: Box<[u32]>,
}

impl StateCalls {
    /// `None` for a plugin that hands nothing over.
    pub(super) fn of(
        manifest: &Manifest,
        instance: &wasmtime::Instance,
        store: &mut Store<HostState>,
    ) -> Result<Option<Self>, PluginFault> {
        let Some(declared) = &manifest.state else { return Ok(None) };
        let failed = |call| {
            move |error: wasmtime::Error| PluginFault::Call { call, reason: super::reason(&error) }
        };
        Ok(Some(Self {
            export: instance
                .get_typed_func(&mut *store, "sluice_export")
                .map_err(failed("sluice_export"))?,
            import: instance
                .get_typed_func(&mut *store, "sluice_import")
                .map_err(failed("sluice_import"))?,
            schema: declared.schema,
            bytes_max: declared.bytes_max,
            takes: declared.takes.clone().into(),
        }))
    }
}

/// How a hand-over ended.
pub(crate) enum HandOver {
    /// One of the two keeps no state.
    Unkept,
    /// There was nothing to hand over.
    Nothing,
    /// The successor has it.
    Taken,
    /// The successor starts empty: it does not take this schema.
    OtherSchema,
    /// It starts empty: it does not take so much.
    TooLong,
    /// It starts empty: it does not take this.
    Refused,
    /// It starts empty, because its predecessor trapped.
    ExportFailed(wasmtime::Error),
    /// It trapped itself, and is to be retired.
    ImportFailed(wasmtime::Error),
}

impl Instance {
    /// Takes over the state of its predecessor, or of the one that it stands beside, which may go on unless
    /// its export failed. Each of the two calls has the budget of its instance.
    pub(crate) fn take_state_of(&mut self, old: &mut Self, beat: &Beat) -> HandOver {
        let (Some(to), Some(from)) = (&self.state, &old.state) else { return HandOver::Unkept };
        if to.schema != from.schema && !to.takes.contains(&from.schema) {
            return HandOver::OtherSchema;
        }
        begin_call(old.guest.context(), old.budget_ticks);
        let exported = match beat.during(|| from.export.call(old.guest.context(), ())) {
            Ok(exported) => exported,
            Err(error) => {
                let error = with_panic_text(error, &old.areas, old.guest.memory());
                return HandOver::ExportFailed(error);
            }
        };
        if exported < 0 {
            return HandOver::Nothing;
        }
        let len = exported.cast_unsigned() as usize;
        if len > from.bytes_max || len > to.bytes_max {
            return HandOver::TooLong;
        }
        let areas = (old.areas.state.start, self.areas.state.start);
        let bytes = old.guest.memory().get(areas.0..areas.0 + len);
        let place = self.guest.memory_mut().get_mut(areas.1..areas.1 + len);
        let (Some(bytes), Some(place)) = (bytes, place) else { return HandOver::TooLong };
        place.copy_from_slice(bytes);
        begin_call(self.guest.context(), self.budget_ticks);
        let schema = from.schema.cast_signed();
        match beat.during(|| to.import.call(self.guest.context(), (schema, exported))) {
            Ok(0) => HandOver::Taken,
            Ok(_) => HandOver::Refused,
            Err(error) => {
                let error = with_panic_text(error, &self.areas, self.guest.memory());
                HandOver::ImportFailed(error)
            }
        }
    }
}
