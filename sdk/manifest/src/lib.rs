//! [`Manifest`]: what a plugin says of itself, in the custom section `sluice.manifest`.
//!
//! Reading it is a check: what [`Manifest::parse`] returns keeps the rules and limits of `sdk/ABI.md`.
//! The host reads it when it loads a module, and the guest crate's macro while a plugin is compiled, so
//! that an author need not load a module to learn of a wrong key. Deliberately absent: whether the operator
//! grants what it asks for, and whether the module has what it says. These are the host's.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::panic
    )
)]

mod action;
mod counters;

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use sluice_abi::{ABI_VERSION_MAJOR, ABI_VERSION_MINOR, edit};

pub use action::Action;
pub use counters::{CounterDeclaration, CounterTable, NamedCounter};

/// Where a plugin can be called.
pub const HOOKS: [&str; 3] = ["ingress", "forward", "egress"];

/// The capabilities that imports need.
pub const CAPABILITIES: [&str; 6] = ["log", "random", "names", "meter", "table", "quota"];

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// A text that names the key and, for broken TOML, the line.
    Invalid(String),
    /// It is made for a version of the ABI that this one does not take.
    AbiVersion {
        /// That version.
        found: String,
        /// This one.
        spoken: String,
    },
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(text) => f.write_str(text),
            Self::AbiVersion { found, spoken } => {
                write!(f, "the plugin is made for ABI {found}, this is {spoken}")
            }
        }
    }
}

impl std::error::Error for ManifestError {}

/// The verdict of a packet that the guest leaves undecided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultVerdict {
    /// The packet goes on.
    #[default]
    Continue,
    /// The packet is dropped.
    Drop,
}

/// What becomes of packets while a plugin cannot judge them: it trapped, or it is disabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTrap {
    /// They go on.
    #[default]
    Open,
    /// They are dropped.
    Closed,
    /// The generation before judges them; without one, or when it traps too, they go on.
    LastGood,
}

/// The most reasons for drops that a plugin may name: each is a metric.
const REASONS_MAX: usize = 64;
/// The most counters that a plugin may have: each is copied out of its memory ten times a second.
const COUNTERS_MAX: usize = 4096;
/// Memory of a plugin whose manifest does not say, in bytes.
const MEMORY_BYTES_DEFAULT: usize = 16 << 20;

/// The most bytes of a packet that a plugin may be shown.
const PAYLOAD_BYTES_MAX: usize = 2048;
/// The most bytes of state that one instance may hand over: they are copied between two turns.
const STATE_BYTES_MAX: usize = 1 << 20;
/// The most tables that a plugin may read.
const TABLES_MAX: usize = 16;
/// Bounds of the time between two ticks, in milliseconds. More often would be work for every turn.
const TICK_MS: std::ops::RangeInclusive<u32> = 10..=3_600_000;

/// Whether a plugin is asked about every packet, or about the first of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Granularity {
    /// About every packet.
    #[default]
    Packet,
    /// About a flow's packet whose verdict the host does not have, or has no longer.
    Flow,
}

/// The part of each packet that a plugin is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadWindow {
    /// Where it starts.
    pub from: PayloadStart,
    /// How many bytes at most.
    pub bytes: usize,
    /// Whether the plugin does without: it is then shown nothing unless the operator grants it.
    #[serde(default)]
    pub optional: bool,
}

/// Where the part of a packet that a plugin is shown starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadStart {
    /// With the IP header.
    L3,
    /// With the transport header.
    L4,
}

/// The state that an instance hands over to its successor when the plugin is reloaded.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateDeclaration {
    /// Number of the form that it exports.
    pub schema: u32,
    /// The most bytes that it exports or takes.
    pub bytes_max: usize,
    /// Numbers of other forms that it takes.
    #[serde(default)]
    pub takes: Vec<u32>,
}

/// What a plugin says of itself. TOML; a key that is not listed here is refused.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the ABI that it is made for: `"major.minor"`. A host takes plugins of its own
    /// major version whose minor version is not above its own.
    pub abi: String,
    /// What the module is called.
    pub name: String,
    /// The hooks that it can be used at: `ingress`, `forward`, `egress`.
    pub hooks: Vec<String>,
    /// The capabilities that its imports need: `log`, `meter`, and the others of `ABI.md`.
    #[serde(default)]
    pub imports: Vec<String>,
    /// What it does with packets besides dropping them.
    #[serde(default)]
    pub actions: Vec<Action>,
    /// Whether it is asked about every packet.
    #[serde(default)]
    pub granularity: Granularity,
    /// The part of each packet that it is shown.
    #[serde(default)]
    pub payload: Option<PayloadWindow>,
    /// Names of the tables that the operator has to give it.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Milliseconds from one call of `sluice_tick` to the next.
    #[serde(default)]
    pub tick_ms: Option<u32>,
    /// The state that it hands over when it is reloaded.
    #[serde(default)]
    pub state: Option<StateDeclaration>,
    /// The most memory that it will use, in bytes.
    #[serde(default = "memory_bytes_default")]
    pub memory_max_bytes: usize,
    /// The verdict of packets that it leaves undecided.
    #[serde(default)]
    pub default: DefaultVerdict,
    /// What becomes of packets that it cannot judge.
    #[serde(default)]
    pub on_trap: OnTrap,
    /// Whether its verdicts depend on what it keeps in its memory between calls. Such a plugin cannot
    /// be asked aside, by `sluice explain`.
    #[serde(default)]
    pub stateful: bool,
    /// Names of its reasons for drops; a verdict's argument is an index into them.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Its counters, in their order in memory.
    #[serde(default)]
    pub counters: Vec<CounterDeclaration>,
}

const fn memory_bytes_default() -> usize {
    MEMORY_BYTES_DEFAULT
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ManifestError::Invalid`] names the key and, for broken TOML, the line;
    /// [`ManifestError::AbiVersion`] both versions.
    pub fn parse(section: &[u8]) -> Result<Self, ManifestError> {
        let fault = ManifestError::Invalid;
        let text = std::str::from_utf8(section).map_err(|error| fault(error.to_string()))?;
        let manifest: Self =
            toml::from_str(text).map_err(|error| fault(error.to_string().trim_end().to_owned()))?;
        manifest.check_abi()?;
        check_name("name", &manifest.name)?;
        if manifest.hooks.is_empty() {
            return Err(fault("`hooks` names none".to_owned()));
        }
        for hook in &manifest.hooks {
            if !HOOKS.contains(&hook.as_str()) {
                return Err(fault(format!(
                    "`hooks`: `{hook}` is none of ingress, forward, egress"
                )));
            }
        }
        for import in &manifest.imports {
            if !CAPABILITIES.contains(&import.as_str()) {
                let known = CAPABILITIES.join(", ");
                return Err(fault(format!("`imports`: `{import}` is none of {known}")));
            }
        }
        manifest.check_limits().map_err(fault)?;
        if manifest.reasons.len() > REASONS_MAX {
            return Err(fault(format!("`reasons` has more than {REASONS_MAX} entries")));
        }
        unique("reasons", manifest.reasons.iter().map(String::as_str))?;
        unique("tables", manifest.tables.iter().map(String::as_str))?;
        unique("counters", manifest.counters.iter().map(CounterDeclaration::name))?;
        let counters = manifest.counters.iter().try_fold(0_usize, |sum, counter| {
            sum.checked_add(counter.count()).filter(|sum| *sum <= COUNTERS_MAX)
        });
        if counters.is_none() {
            return Err(fault(format!("`counters` are more than {COUNTERS_MAX}")));
        }
        Ok(manifest)
    }

    fn check_limits(&self) -> Result<(), String> {
        for (position, action) in self.actions.iter().enumerate() {
            if self.actions.iter().take(position).any(|earlier| earlier == action) {
                return Err(format!("`actions`: `{}` stands there twice", action.name()));
            }
        }
        if let Some(window) = self.payload
            && !(1..=PAYLOAD_BYTES_MAX).contains(&window.bytes)
        {
            let bytes = window.bytes;
            return Err(format!("`payload.bytes`: {bytes} is not from 1 to {PAYLOAD_BYTES_MAX}"));
        }
        if let Some(ms) = self.tick_ms
            && !TICK_MS.contains(&ms)
        {
            let (least, most) = (TICK_MS.start(), TICK_MS.end());
            return Err(format!("`tick_ms`: {ms} is not from {least} to {most}"));
        }
        if let Some(state) = &self.state
            && !(1..=STATE_BYTES_MAX).contains(&state.bytes_max)
        {
            let bytes = state.bytes_max;
            return Err(format!("`state.bytes_max`: {bytes} is not from 1 to {STATE_BYTES_MAX}"));
        }
        if self.tables.len() > TABLES_MAX {
            return Err(format!("`tables` has more than {TABLES_MAX} entries"));
        }
        Ok(())
    }

    /// Whether it declares an action that takes an edit, so that it needs room for edits.
    #[must_use]
    pub fn takes_edits(&self) -> bool {
        let takes_edit = |action: &Action| action.flag().is_some_and(|flag| flag != edit::MIRROR);
        self.actions.iter().any(takes_edit)
    }

    fn check_abi(&self) -> Result<(), ManifestError> {
        let parsed = self.abi.split_once('.').and_then(|(major, minor)| {
            Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?))
        });
        match parsed {
            None => Err(ManifestError::Invalid(format!(
                "`abi`: `{}` does not have the form major.minor",
                self.abi
            ))),
            Some((major, minor)) => check_version(major, minor),
        }
    }

    /// Whether it can be used at `hook`.
    #[must_use]
    pub fn has_hook(&self, hook: &str) -> bool {
        self.hooks.iter().any(|known| known == hook)
    }

    /// All counters, those of arrays with their index, in their order in memory.
    #[must_use]
    pub fn named_counters(&self) -> Vec<NamedCounter> {
        self.counters.iter().flat_map(CounterDeclaration::each).collect()
    }

    /// Their names.
    #[must_use]
    pub fn counter_names(&self) -> Vec<String> {
        self.named_counters().into_iter().map(|counter| counter.name).collect()
    }

    /// For each of them, whether it is a gauge.
    #[must_use]
    pub fn gauges(&self) -> Vec<bool> {
        self.named_counters().into_iter().map(|counter| counter.is_gauge).collect()
    }
}

/// Whether a plugin of this version of the ABI is taken.
///
/// # Errors
/// [`ManifestError::AbiVersion`] names both versions.
pub fn check_version(major: u16, minor: u16) -> Result<(), ManifestError> {
    if major == ABI_VERSION_MAJOR && (0..=ABI_VERSION_MINOR).contains(&minor) {
        return Ok(());
    }
    Err(ManifestError::AbiVersion {
        found: format!("{major}.{minor}"),
        spoken: format!("{ABI_VERSION_MAJOR}.{ABI_VERSION_MINOR}"),
    })
}

/// Names end up as labels of metrics, so they are held to what every consumer takes.
fn check_name(key: &str, name: &str) -> Result<(), ManifestError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(ManifestError::Invalid(format!(
            "`{key}`: {name:?} is no name of 1 to 64 letters, digits, `-` and `_`"
        )));
    }
    Ok(())
}

fn unique<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<(), ManifestError> {
    let mut seen = BTreeSet::new();
    for name in names {
        check_name(key, name)?;
        if name == "default" || !seen.insert(name) {
            return Err(ManifestError::Invalid(format!(
                "`{key}`: `{name}` is reserved or stands there twice"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
