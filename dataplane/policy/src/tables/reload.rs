//! Tables of the plugins that run: loaded with them, and again when their files change.

use std::{path::PathBuf, sync::Arc};

use super::{Table, Tables};
use crate::{
    Manifest, PluginFault, PluginHost, PluginSpec, PolicyError,
    mailbox::Update,
    watch::{FileStamp, file_stamp},
};

/// The files of a plugin's tables, in the manifest's order.
fn paths(spec: &PluginSpec, manifest: &Manifest) -> Result<Vec<PathBuf>, PluginFault> {
    if let Some(extra) = spec.tables.keys().find(|name| !manifest.tables.contains(name)) {
        return Err(PluginFault::TableUnknown(extra.clone()));
    }
    let path = |name: &String| {
        spec.tables.get(name).cloned().ok_or_else(|| PluginFault::TableMissing(name.clone()))
    };
    manifest.tables.iter().map(path).collect()
}

impl PluginHost {
    /// Loads the tables of a plugin. Words keep the numbers that they have in what runs under its name.
    pub(crate) fn load_tables(
        &self,
        spec: &PluginSpec,
        manifest: &Manifest,
    ) -> Result<Tables, PluginFault> {
        let running = self.loaded.iter().find(|running| running.spec.name == spec.name);
        let table = |(path, name): (PathBuf, &String)| {
            let before = running.and_then(|running| {
                let names = &running.module.manifest.tables;
                let position = names.iter().position(|other| other == name)?;
                running.tables.get(position)
            });
            Table::load(&path, before.map(|table| &**table)).map(Arc::new)
        };
        paths(spec, manifest)?.into_iter().zip(&manifest.tables).map(table).collect()
    }

    /// Looks whether files of tables changed, and gives what they hold now to the workers, which take it
    /// between two turns. A file that is refused is reported once, until it changes again, and the table
    /// before it goes on.
    pub(crate) fn poll_tables(&mut self) -> Vec<PolicyError> {
        let mut errors = Vec::new();
        for position in 0..self.loaded.len() {
            let Some(loaded) = self.loaded.get(position) else { break };
            let Ok(paths) = paths(&loaded.spec, &loaded.module.manifest) else { continue };
            let stamps: Vec<FileStamp> = paths.iter().map(|path| file_stamp(path)).collect();
            // Workers that do not turn get it at a later look.
            if stamps == loaded.table_stamps || self.check_room(1).is_err() {
                continue;
            }
            let name = loaded.spec.name.clone();
            let known = paths.iter().zip(stamps.iter().zip(&loaded.table_stamps));
            let changed: Result<Vec<_>, _> = known
                .zip(loaded.tables.iter())
                .map(|((path, (now, before)), table)| {
                    if now == before {
                        return Ok(Arc::clone(table));
                    }
                    Table::load(path, Some(table)).map(Arc::new)
                })
                .collect();
            let generation = loaded.generation;
            if let Some(loaded) = self.loaded.get_mut(position) {
                loaded.table_stamps = stamps;
            }
            match changed {
                Ok(tables) => {
                    self.forget_refusal_of_tables(&name);
                    let tables: Tables = tables.into();
                    if let Some(loaded) = self.loaded.get_mut(position) {
                        loaded.tables = Arc::clone(&tables);
                    }
                    for worker in 0..self.options.workers {
                        let both = Box::new([Arc::clone(&tables), Arc::clone(&tables)]);
                        self.send(worker, Update::Tables(generation, both), 1);
                    }
                    let entries: usize = tables.iter().map(|table| table.entries()).sum();
                    tracing::info!(plugin = %name, entries, "tables loaded again");
                }
                Err(fault) => {
                    let error = PolicyError::plugin(&name, fault);
                    self.note_tables(&name, &error);
                    errors.push(error);
                }
            }
        }
        errors
    }
}
