//! Policy plugins, as the configuration states them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

/// What holds for all plugins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginOptions {
    /// Absolute: where the router keeps compiled modules and batches that trapped.
    pub state_dir: PathBuf,
    /// Bytes that compiled modules may take; 0: none are kept.
    pub compiled_bytes_max: u32,
    /// What all plugins of a worker may cost a packet, in clock cycles; `None`: no limit.
    pub budget_cycles_per_packet: Option<u32>,
}

/// A plugin. Whether its file is there and sound is found out when it is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// Unique: 1 to 32 of a-z, 0-9 and `-`.
    pub name: String,
    /// The Wasm module; relative paths of the file have been joined to its directory.
    pub path: PathBuf,
    /// Where in the turn it runs.
    pub hook: PluginHook,
    /// What it is configured with.
    pub config: PluginConfig,
    /// Files of the tables that its manifest names, by name; relative paths have been joined.
    pub tables: BTreeMap<String, PathBuf>,
    /// The verdict of packets on which it gave none; `None`: its manifest decides.
    pub default: Option<PluginDefault>,
    /// What a trap does to its batch; `None`: its manifest decides.
    pub on_trap: Option<OnTrap>,
    /// Time that one batch may take, in microseconds, before it counts as a trap.
    pub budget_us: u32,
    /// Bound of its linear memory, in bytes; a multiple of a Wasm page (64 KiB).
    pub memory_max_bytes: u32,
    /// After this many traps within a minute it is disabled.
    pub traps_max: u32,
    /// What the module's bytes must hash to.
    pub sha256: Option<[u8; 32]>,
    /// What it may import and do, each once, sorted.
    pub grants: Vec<Grant>,
}

impl Plugin {
    /// Default of `budget_us`.
    pub const BUDGET_US: u32 = 1000;
    /// Default of `memory_max_bytes`.
    pub const MEMORY_MAX_BYTES: u32 = 64 << 20;
    /// Default of `traps_max`.
    pub const TRAPS_MAX: u32 = 10;
}

/// Where in the turn a plugin runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginHook {
    /// Before the look-up.
    Ingress,
    /// After it: route and owner are known.
    Forward,
    /// After the rewrite: the egress interface is known.
    Egress,
}

/// What a plugin is configured with.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum PluginConfig {
    /// Nothing.
    #[default]
    None,
    /// The inline table `config`.
    Inline(toml::Table),
    /// The file `config_file`, read when the plugin is loaded.
    File(PathBuf),
}

/// The verdict of packets on which a plugin gave none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginDefault {
    /// They go on.
    #[default]
    Continue,
    /// They are dropped.
    Drop,
}

/// What a trap does to the batch it happened in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTrap {
    /// The batch goes on as if the plugin were not there.
    Open,
    /// The batch is dropped, and counted.
    #[default]
    Closed,
    /// The generation before judges the batch; without one it goes on.
    LastGood,
}

/// What an operator lets a plugin have: a group of host functions, a part of each packet, or an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    /// Rates that hold for the whole router.
    Meter,
    /// Log lines, off the worker and rate-limited.
    Log,
    /// Random numbers.
    Random,
    /// The numbers of next hops, egress tags, classes and interfaces.
    Names,
    /// Look-ups in files that the router loads.
    Table,
    /// Budgets that hold for the whole router.
    Quota,
    /// Bytes of each packet.
    Payload,
    /// Sending a packet to a named next hop.
    Transmit,
    /// Setting a packet's egress tag.
    Tag,
    /// Setting its class.
    Class,
    /// Setting its mark.
    Mark,
    /// Mirroring it to captures.
    Mirror,
    /// Setting its DSCP.
    Dscp,
    /// Lowering the MSS of a SYN.
    Mss,
    /// Overwriting options of a SYN.
    TcpOptions,
}
