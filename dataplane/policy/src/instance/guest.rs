//! [`Guest`]: a store, and where the memory of the one instance in it lies.
//!
//! wasmtime finds a memory by seven loads of which each waits for the one before, some 5 ns, and a call needs
//! it twice at least. Here it [never moves](crate::engine), so that it is looked up once.
#![expect(unsafe_code, reason = "memory by its address instead of by its handle")]

use std::ptr::NonNull;

use wasmtime::{AsContextMut as _, Memory, Store, StoreContextMut};

use crate::{engine::MEMORY_MAY_MOVE, imports::HostState};

const _: () = assert!(!MEMORY_MAY_MOVE);

/// A store that nobody can take away from the memory: others get contexts of it.
pub(super) struct Guest {
    store: Store<HostState>,
    /// As much of the memory as there was when this was made: all areas of the layout. It may grow behind
    /// that, and never shrinks.
    memory: NonNull<[u8]>,
}

// SAFETY: the pointer is to memory that the store owns, and goes where the store goes, which may be sent.
unsafe impl Send for Guest {}

impl Guest {
    /// `memory` is one of `store`, and not shared. `None` if it lies nowhere, which no memory does.
    pub(super) fn new(store: Store<HostState>, memory: Memory) -> Option<Self> {
        let start = NonNull::new(memory.data_ptr(&store))?;
        let memory = NonNull::slice_from_raw_parts(start, memory.data_size(&store));
        Some(Self { store, memory })
    }

    /// For calls of the guest.
    #[inline]
    pub(super) fn context(&mut self) -> StoreContextMut<'_, HostState> {
        self.store.as_context_mut()
    }

    #[inline]
    pub(super) fn state(&self) -> &HostState {
        self.store.data()
    }

    #[inline]
    pub(super) fn state_mut(&mut self) -> &mut HostState {
        self.store.data_mut()
    }

    #[inline]
    pub(super) fn memory(&self) -> &[u8] {
        // SAFETY: the store lives as long as `self` and keeps the memory where it is, no shorter than it
        // was. All bytes of it are initialized. Whoever writes it needs the store or this for himself, the
        // guest's code too, and both are borrowed as long as the slice.
        unsafe { self.memory.as_ref() }
    }

    #[inline]
    pub(super) fn memory_mut(&mut self) -> &mut [u8] {
        self.memory_and_state().0
    }

    #[inline]
    pub(super) fn memory_and_state(&mut self) -> (&mut [u8], &mut HostState) {
        // SAFETY: as in `memory`, and nobody else can read it meanwhile. The state is beside the memory, and
        // what it has of it is a handle that is of no use without the store.
        (unsafe { self.memory.as_mut() }, self.store.data_mut())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wasmtime::{Instance, Module, StoreLimits};

    use super::*;
    use crate::imports::Offers;

    #[test]
    fn memory_that_grows_stays_where_it_was() {
        let engine = crate::engine::engine().expect("an engine");
        let text = "(module (memory (export \"memory\") 1)
            (func (export \"grow\") (param i32) (result i32) (memory.grow (local.get 0)))
            (func (export \"write\") (param i32 i32) (i32.store8 (local.get 0) (local.get 1))))";
        let module =
            Module::new(&engine, wat::parse_str(text).expect("a module")).expect("a module");
        let (names, limits) = (Arc::default(), StoreLimits::default());
        let state = HostState::new(&"test".into(), &names, limits, &Offers::rehearsed(1));
        let mut store = Store::new(&engine, state.expect("a state"));
        store.set_epoch_deadline(1 << 30);
        let instance = Instance::new(&mut store, &module, &[]).expect("an instance");
        let memory = instance.get_memory(&mut store, "memory").expect("a memory");
        let grow = instance.get_typed_func::<i32, i32>(&mut store, "grow").expect("a function");
        let write =
            instance.get_typed_func::<(i32, i32), ()>(&mut store, "write").expect("a function");

        let mut guest = Guest::new(store, memory).expect("it lies somewhere");
        let bytes = guest.memory().len();
        for (pages, before) in [(1, 1), (1000, 2), (20_000, 1002)] {
            assert_eq!(grow.call(guest.context(), pages).expect("it runs"), before);
            let start = memory.data_ptr(guest.context());
            assert_eq!(guest.memory().as_ptr(), start.cast_const(), "after {pages} pages");
            assert_eq!(guest.memory().len(), bytes, "what was added is not looked at");
            // Each side sees what the other writes.
            write.call(guest.context(), (65_535, pages % 251)).expect("it runs");
            assert_eq!(i32::from(guest.memory()[65_535]), pages % 251);
            guest.memory_mut()[7] = 9;
            assert_eq!(memory.data(guest.context())[7], 9);
        }
    }
}
