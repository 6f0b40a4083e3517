//! Rollback: the generation before is kept, compiled, and comes back when an operator says so.
//!
//! What stands in the plugin's files by then is put aside: it is loaded when the files change again, or
//! when somebody asks for it by a reload of this plugin. Until then a reload of the configuration that
//! says the same of the plugin leaves it alone.

use std::{sync::Arc, time::Instant};

use crate::{
    PluginHost, PluginSpec, PolicyError, Price, ReloadReport,
    generation::Loaded,
    loading::micros,
    module::{CheckedModule, MODULE_BYTES_MAX, hex, read_file, sha256},
    tables::Tables,
    watch::{Stamp, config_json},
};

/// What a plugin's files held when something else was put into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) sha256: [u8; 32],
    pub(crate) config: Vec<u8>,
}

impl Held {
    /// What they hold now; `None` if they cannot be read.
    pub(crate) fn of(entry: &PluginSpec) -> Option<Self> {
        let bytes = read_file(&entry.path, MODULE_BYTES_MAX).ok()?;
        let config = config_json(&entry.config).ok()?;
        Some(Self { sha256: sha256(&bytes), config })
    }
}

/// A version of a plugin to go back to.
#[derive(Clone)]
pub(crate) struct KeptPlugin {
    pub(crate) entry: PluginSpec,
    pub(crate) spec: PluginSpec,
    pub(crate) held: Option<Held>,
    pub(crate) module: CheckedModule,
    pub(crate) config: Vec<u8>,
    pub(crate) number: u64,
    pub(crate) tables: Tables,
    pub(crate) price: Option<Price>,
}

impl KeptPlugin {
    pub(crate) fn of(loaded: &Loaded) -> Self {
        Self {
            entry: loaded.entry.clone(),
            spec: loaded.spec.clone(),
            held: loaded.held.clone(),
            module: loaded.module.clone(),
            config: loaded.config.clone(),
            number: loaded.number,
            tables: Arc::clone(&loaded.tables),
            price: loaded.price.clone(),
        }
    }
}

impl PluginHost {
    /// What a new version under this name would have before it: the version that runs, or, if that was
    /// disabled or is the same, what was before it.
    pub(crate) fn before(
        &self,
        spec: &PluginSpec,
        module: &CheckedModule,
        config: &[u8],
    ) -> Option<Arc<KeptPlugin>> {
        let running = self.loaded.iter().find(|running| running.spec.name == spec.name)?;
        let is_same = running.spec == *spec
            && running.module.sha256 == module.sha256
            && running.config == config;
        if is_same || running.disabled {
            return running.before.clone();
        }
        Some(Arc::new(KeptPlugin::of(running)))
    }

    /// Brings the generation before back, with its module, configuration and settings: nothing is read
    /// or compiled. What it takes the place of is the generation before from now on, so that a second
    /// rollback undoes the first. State in the plugin's memory starts anew unless it
    /// hands it over; counters, meters and quotas go on.
    ///
    /// # Errors
    /// [`PolicyError::NoGenerationBefore`], and as [`Self::publish`]; what runs then goes on running.
    pub fn rollback(&mut self, name: &str) -> Result<ReloadReport, PolicyError> {
        let running = self.running(name)?;
        let before = running
            .before
            .clone()
            .ok_or_else(|| PolicyError::NoGenerationBefore(name.to_owned()))?;
        // It is not held against the budget: what ran before must be within reach when what runs is bad.
        let KeptPlugin { spec, module, config, tables, number, price, .. } = &*before;
        let version = (module.clone(), config.clone(), Arc::clone(tables));
        self.put(name, spec, version, Some(*number), price.clone())
    }

    /// Puts a compiled version into force that is not what the plugin's entry names.
    pub(crate) fn put(
        &mut self,
        name: &str,
        spec: &PluginSpec,
        (module, config, tables): (CheckedModule, Vec<u8>, Tables),
        restores: Option<u64>,
        price: Option<Price>,
    ) -> Result<ReloadReport, PolicyError> {
        let entry = self.running(name)?.entry.clone();
        let started = Instant::now();
        let stamp = Stamp::of(&entry);
        let held = Held::of(&entry);
        let mut loaded = self.number(spec, module, config, stamp);
        // Files that cannot be read hold nothing that could be told from what comes later.
        loaded.held = Some(held.unwrap_or(Held { sha256: [0; 32], config: Vec::new() }));
        loaded.read(tables);
        loaded.entry = entry;
        loaded.restores = restores;
        loaded.price = match price {
            Some(price) => Some(price),
            None => self.price(&loaded).map_err(|fault| PolicyError::plugin(name, fault))?,
        };
        if restores.is_none() {
            self.refuse_traps(loaded.price.as_ref())
                .map_err(|fault| PolicyError::plugin(name, fault))?;
            self.afford_in_place_of(name, loaded.price.as_ref())?;
        }
        let price = self.price_now(loaded.price.as_ref());
        let (generation, sha256) = (loaded.number, hex(&loaded.module.sha256));
        let prepared =
            self.instances_of(loaded).map_err(|fault| PolicyError::plugin(name, fault))?;
        self.replace(name, prepared)?;
        let instantiate_us = micros(started);
        let name = name.to_owned();
        Ok(ReloadReport {
            name,
            generation,
            sha256,
            restores,
            compile_us: 0,
            instantiate_us,
            price,
        })
    }
}
