//! Everything that can be wrong with a plugin, each with its own text.
//!
//! A text holds that of its cause, which is therefore no [`source`](std::error::Error::source): whoever
//! prints the chain of an error would say it twice.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::manifest::hook_name;

/// Why the host refused. What ran before goes on running.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// A plugin was refused.
    #[error("plugin `{name}`: {fault}")]
    Plugin {
        /// The operator's name for it.
        name: String,
        /// What is wrong.
        fault: Box<PluginFault>,
    },
    /// Two plugins have one name.
    #[error("two plugins are named `{0}`")]
    Duplicate(String),
    /// No plugin has this name.
    #[error("no plugin is named `{0}`")]
    Unknown(String),
    /// There is no generation to go back to.
    #[error("plugin `{0}` has no generation before the one that runs")]
    NoGenerationBefore(String),
    /// There is no candidate.
    #[error("plugin `{0}` has no candidate: `sluice plugin load --shadow {0} FILE` makes one")]
    NoCandidate(String),
    /// A set was prepared that keeps a plugin which has since been removed or disabled.
    #[error("plugin `{0}` was removed or disabled since the set was prepared: prepare it again")]
    Stale(String),
    /// The plugins of a worker would cost more than they may.
    #[error(
        "the plugins of a worker would cost {total:.0} cycles a packet, and \
         `plugins.budget_cycles_per_packet` is {budget}: {prices}"
    )]
    Budget {
        /// What they would cost together.
        total: f64,
        /// What they may.
        budget: u32,
        /// Each with its price, for a person.
        prices: String,
    },
    /// A plugin has no price, and there is a budget.
    #[error(
        "plugin `{name}` cannot be priced, which `plugins.budget_cycles_per_packet` asks for: it {reason}"
    )]
    Unpriced {
        /// The operator's name for it.
        name: String,
        /// On how many batches it trapped, and why.
        reason: String,
    },
    /// A worker has not taken the last updates.
    #[error("worker {0} takes no updates: it has not turned for a while")]
    WorkerStalled(usize),
    /// More plugins change at once than a worker can give back.
    #[error(
        "too many plugins change at once: worker {worker} could give back {room} more instances, and {needed} are \
         needed; change some of them at a time"
    )]
    TooManyAtOnce {
        /// The worker.
        worker: usize,
        /// Sets and instances that there is room for.
        room: usize,
        /// Those that the change takes.
        needed: usize,
    },
    /// A saved batch cannot be used.
    #[error("the saved batch is not sound: {0}")]
    Saved(String),
    /// The compiler could not be set up.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Engine(String),
    /// The ticker thread could not be started.
    #[error("the ticker thread cannot be started: {0}")]
    Ticker(io::Error),
}

impl PolicyError {
    pub(crate) fn plugin(name: &str, fault: PluginFault) -> Self {
        Self::Plugin { name: name.to_owned(), fault: Box::new(fault) }
    }

    /// What is wrong with the plugin, when it is a plugin's fault.
    #[must_use]
    pub fn fault(&self) -> Option<&PluginFault> {
        match self {
            Self::Plugin { fault, .. } => Some(fault),
            _ => None,
        }
    }
}

/// What is wrong with one plugin.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the text of each variant says what its fields are")]
pub enum PluginFault {
    #[error("the name must have 1 to 64 bytes")]
    Name,
    #[error("{path}: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path} is no regular file")]
    NoFile { path: PathBuf },
    #[error("{path} is larger than {bytes_max} bytes")]
    FileTooLarge { path: PathBuf, bytes_max: usize },
    #[error("the file's SHA-256 is {found}, the configuration pins {pinned}")]
    Pin { found: String, pinned: String },
    #[error("the file is no WebAssembly module: {0}")]
    NotWasm(String),
    #[error("the module has no custom section `sluice.manifest`")]
    ManifestMissing,
    #[error("the module has more than one custom section `sluice.manifest`")]
    ManifestTwice,
    #[error("the manifest is not valid: {0}")]
    Manifest(String),
    #[error("the plugin is made for ABI {found}, this host speaks {spoken}")]
    AbiVersion { found: String, spoken: String },
    #[error("the plugin is not made for the hook `{}`", hook_name(*.0))]
    Hook(frame::HookPoint),
    #[error("the plugin asks for {asked} bytes of memory, the limit is {limit}")]
    MemoryAsked { asked: usize, limit: usize },
    #[error("the module starts with {initial} bytes of memory, the limit is {limit}")]
    MemoryInitial { initial: u64, limit: usize },
    #[error("the module has {0} memories, not one")]
    Memories(u32),
    #[error("the module has {tables} tables, the limit is {limit}")]
    Tables { tables: u32, limit: u32 },
    #[error("the module starts with a table of {initial} elements, the limit is {limit}")]
    TableInitial { initial: u64, limit: usize },
    #[error("the module does not compile: {0}")]
    Compile(String),
    #[error("the module does not export `{0}`")]
    ExportMissing(&'static str),
    #[error("the export `{name}` is not {expected}")]
    ExportType { name: &'static str, expected: &'static str },
    #[error("the module imports `{module}.{name}`; the host offers functions of `sluice` only")]
    ImportForeign { module: String, name: String },
    #[error("the module imports `sluice.{0}`, which the host does not offer")]
    ImportUnknown(String),
    #[error(
        "the module imports `sluice.{name}`, but its manifest does not declare the capability \
         `{capability}` in `imports`"
    )]
    ImportUndeclared { name: String, capability: &'static str },
    #[error(
        "the module imports `sluice.{name}`, but the configuration does not grant it the \
         capability `{capability}`"
    )]
    ImportUngranted { name: String, capability: &'static str },
    #[error("an import does not have the type that the host offers: {0}")]
    ImportType(String),
    #[error(
        "`{}` is nothing that can be granted: there are the capabilities of imports ({}), the \
         actions ({}) and `payload`",
        .0,
        sluice_manifest::CAPABILITIES.join(", "),
        crate::Action::ALL.map(crate::Action::name).join(", ")
    )]
    GrantUnknown(String),
    #[error(
        "the manifest declares the action `{}`, but the configuration does not grant it",
        .0.name()
    )]
    ActionUngranted(crate::Action),
    #[error(
        "the manifest declares a payload window, but the configuration does not grant it `payload`"
    )]
    PayloadUngranted,
    #[error("{path}:{line}: {reason}")]
    Table { path: PathBuf, line: usize, reason: String },
    #[error("the manifest declares the table `{0}`, and the configuration names no file for it")]
    TableMissing(String),
    #[error(
        "the configuration names a file for the table `{0}`, which the manifest does not declare"
    )]
    TableUnknown(String),
    #[error("the system gives no random numbers to start with: {0}")]
    Randomness(String),
    #[error("the module cannot be instantiated: {0}")]
    Instantiate(String),
    #[error("{call} failed: {reason}")]
    Call { call: &'static str, reason: String },
    #[error(
        "sluice_process failed: {reason} (the call had 0 packets: every new instance is warmed by such calls)"
    )]
    WarmCall { reason: String },
    #[error("the layout is not valid: {0}")]
    Layout(LayoutFault),
    #[error("the configuration in {path} is not valid: {error}")]
    ConfigFile { path: PathBuf, error: String },
    #[error("the configuration holds a date, which has no form in JSON")]
    ConfigDate,
    #[error("the configuration takes {bytes} bytes, the plugin has room for {capacity}")]
    ConfigTooLarge { bytes: usize, capacity: u32 },
    #[error("the configuration is refused: {0}")]
    ConfigRefused(String),
    #[error(
        "it {0}; `--allow-traps` of `sluice reload` and of `sluice plugin reload`, `load` and `promote` has it loaded all the same"
    )]
    Traps(String),
}

impl From<LayoutFault> for PluginFault {
    fn from(fault: LayoutFault) -> Self {
        Self::Layout(fault)
    }
}

/// What is wrong with the areas that a guest states.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each variant says what its fields are")]
pub enum LayoutFault {
    #[error("it lies at {address}, outside the memory of {memory} bytes")]
    Outside { address: u32, memory: usize },
    #[error("it is {0} bytes long, version 1.0 has 48")]
    Size(u32),
    #[error("batch_max is {0}, the host hands over up to 256 packets")]
    BatchMax(u32),
    #[error("the stride of the {area} is {stride}, which is no multiple of 8 from {least} to 4096")]
    Stride { area: &'static str, stride: u32, least: u32 },
    #[error("the address of the {area}, {address}, is no multiple of 8")]
    Alignment { area: &'static str, address: u32 },
    #[error("the {area} take {bytes} bytes from {address}, beyond the memory of {memory} bytes")]
    Beyond { area: &'static str, address: u32, bytes: u64, memory: usize },
    #[error("the {0} and the {1} overlap")]
    Overlap(&'static str, &'static str),
    #[error("it has no room for the {0} that the manifest declares")]
    Missing(&'static str),
    #[error(
        "it has an area for the payload of packets, and the manifest declares none, so that nothing would be \
         written there: write `payload = {{ from = \"l4\", bytes = 64 }}` (or \"l3\", up to 2048 bytes) into the \
         manifest, or 0 as the address of that area"
    )]
    PayloadUndeclared,
    #[error("it has {found} counters, the manifest names {named}")]
    Counters { found: u32, named: usize },
}
