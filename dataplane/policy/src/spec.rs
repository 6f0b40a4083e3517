//! What the operator says about plugins: [`PluginSpec`] for each, [`HostOptions`] for all.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use crate::{DefaultVerdict, Names, OnTrap};
use frame::HookPoint;

/// A plugin's own configuration, which the host hands to the guest as JSON.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PluginConfig {
    /// None: the guest is given an empty object.
    #[default]
    Empty,
    /// A table of the router's configuration. Dates have no form in JSON and are refused.
    Table(toml::Table),
    /// A TOML file, which [`PluginHost::poll_files`](crate::PluginHost::poll_files) watches.
    File(PathBuf),
}

/// One plugin, as the configuration states it. Where a setting is `None` the plugin's manifest
/// decides.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// The operator's name for it, unique, at most 64 bytes.
    pub name: String,
    /// The module, a `.wasm` file.
    pub path: PathBuf,
    /// Where in a turn it is called. Plugins of one hook are called in the order of the list that
    /// [`PluginHost::prepare`](crate::PluginHost::prepare) is given.
    pub hook: HookPoint,
    /// Its own configuration.
    pub config: PluginConfig,
    /// Files of the tables that its manifest names, by name.
    pub tables: BTreeMap<String, PathBuf>,
    /// The verdict of packets that it leaves undecided.
    pub default: Option<DefaultVerdict>,
    /// What becomes of packets that it cannot judge.
    pub on_trap: Option<OnTrap>,
    /// How long one call may run, in microseconds; it is rounded up to the host's tick. A call is
    /// never stopped before, and at the latest about half a millisecond and two ticks after.
    pub budget_us: u32,
    /// The most memory that an instance may have, in bytes. A plugin whose manifest asks for more
    /// is refused.
    pub memory_max_bytes: Option<usize>,
    /// Traps within a minute, over all workers, after which it is disabled until it is reloaded.
    pub traps_max: u32,
    /// The SHA-256 that the file must have. It is checked before anything is compiled.
    pub sha256: Option<[u8; 32]>,
    /// What the plugin may use and do: capabilities of imports, actions, and `payload`.
    pub grants: Vec<String>,
    /// What it may ask for the numbers of; part of what it is configured with.
    pub names: Arc<Names>,
}

impl PluginSpec {
    /// A plugin with the usual limits (1 ms a call, 10 traps a minute) and no capability.
    #[must_use]
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>, hook: HookPoint) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            hook,
            config: PluginConfig::Empty,
            tables: BTreeMap::new(),
            default: None,
            on_trap: None,
            budget_us: 1000,
            memory_max_bytes: None,
            traps_max: 10,
            sha256: None,
            grants: Vec::new(),
            names: Arc::default(),
        }
    }
}

/// Settings of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// Number of workers, each of which gets a [`WorkerChain`](crate::WorkerChain).
    pub workers: usize,
    /// Length of a tick of the clock that interrupts overlong calls, in microseconds. Shorter ones
    /// wake the ticker more often while a call is overlong, longer ones make budgets coarser.
    pub tick_us: u32,
    /// How long loading code of a guest (start function, configuration) may run, in milliseconds.
    pub load_budget_ms: u32,
    /// Where batches are saved whose calls trapped; `None`: nowhere. The directory is made if it is not
    /// there, and used only if it is the process's own and nobody else's.
    pub traps_dir: Option<PathBuf>,
    /// Where the random numbers of instances start, so that a run can be repeated; `None`: the system
    /// seeds them.
    pub seed: Option<u64>,
    /// Where compiled modules are kept; `None`: nowhere. The same holds for this directory.
    pub compiled_dir: Option<PathBuf>,
    /// Bytes that they may take; 0: none are kept.
    pub compiled_bytes_max: u64,
}

impl HostOptions {
    /// The usual settings: ticks of 100 us, a second for loading.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            tick_us: 100,
            load_budget_ms: 1000,
            traps_dir: None,
            seed: None,
            compiled_dir: None,
            compiled_bytes_max: 64 << 20,
        }
    }
}
