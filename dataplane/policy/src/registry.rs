//! [`Registry`]: tables that all workers share, and that outlive the generations that opened them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A table that can be made and copied.
pub(crate) trait SharedTable: Sized {
    /// A table with room for `entries`.
    fn new(entries: usize) -> Self;

    /// What `entries` come to: tables of equal room are one and the same to a reload.
    fn room(entries: usize) -> usize;

    /// A table of its own that holds the same, as it stands.
    fn copy(&self) -> Self;
}

/// All tables of a kind by plugin, handle and room.
#[derive(Debug)]
pub(crate) struct Registry<T> {
    tables: Mutex<HashMap<(String, usize, usize), Arc<T>>>,
}

impl<T> Default for Registry<T> {
    fn default() -> Self {
        Self { tables: Mutex::default() }
    }
}

impl<T: SharedTable> Registry<T> {
    fn tables(&self) -> MutexGuard<'_, HashMap<(String, usize, usize), Arc<T>>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table that `plugin` opens as number `handle`: the one it had, if that has the same room.
    /// Called while a plugin is configured, never by a worker.
    pub(crate) fn open(&self, plugin: &str, handle: usize, entries: usize) -> Arc<T> {
        let key = (plugin.to_owned(), handle, T::room(entries));
        Arc::clone(self.tables().entry(key).or_insert_with(|| Arc::new(T::new(entries))))
    }

    /// Copies of the tables of one plugin, as they stand.
    pub(crate) fn copied(&self, plugin: &str) -> Self {
        // The copying itself, which takes long, holds nobody up.
        let found: Vec<_> = self
            .tables()
            .iter()
            .filter(|((owner, ..), _)| owner == plugin)
            .map(|(key, table)| (key.clone(), Arc::clone(table)))
            .collect();
        let copies = found.into_iter().map(|(key, table)| (key, Arc::new(table.copy())));
        Self { tables: Mutex::new(copies.collect()) }
    }

    /// Forgets the tables that no instance uses any more.
    pub(crate) fn prune(&self) {
        self.tables().retain(|_, table| Arc::strong_count(table) > 1);
    }

    /// Handles and tables of `plugin`, by handle and room.
    pub(crate) fn of(&self, plugin: &str) -> Vec<(usize, Arc<T>)> {
        let mut found: Vec<_> = self
            .tables()
            .iter()
            .filter(|((owner, ..), _)| owner == plugin)
            .map(|((_, handle, room), table)| (*handle, *room, Arc::clone(table)))
            .collect();
        found.sort_by_key(|(handle, room, _)| (*handle, *room));
        found.into_iter().map(|(handle, _, table)| (handle, table)).collect()
    }
}
