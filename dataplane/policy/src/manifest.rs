//! [`Manifest`]: what a plugin says of itself, in the custom section `sluice.manifest`.

use std::collections::BTreeSet;

use frame::HookPoint;
use serde::Deserialize;
use sluice_abi::{ABI_VERSION_MAJOR, ABI_VERSION_MINOR, edit};

use crate::{DefaultVerdict, LayoutNeeds, OnTrap, PluginFault};

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

/// What a plugin may do with a packet besides dropping it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Send it to a named next hop.
    Transmit,
    /// Set its egress tag.
    Tag,
    /// Set its class.
    Class,
    /// Set its mark.
    Mark,
    /// Mirror it to captures.
    Mirror,
    /// Set its DSCP.
    Dscp,
    /// Lower the MSS of a SYN.
    Mss,
    /// Overwrite options of a SYN.
    TcpOptions,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Transmit,
        Self::Tag,
        Self::Class,
        Self::Mark,
        Self::Mirror,
        Self::Dscp,
        Self::Mss,
        Self::TcpOptions,
    ];

    /// Its name in manifests and grants.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transmit => "transmit",
            Self::Tag => "tag",
            Self::Class => "class",
            Self::Mark => "mark",
            Self::Mirror => "mirror",
            Self::Dscp => "dscp",
            Self::Mss => "mss",
            Self::TcpOptions => "tcp-options",
        }
    }

    /// The bit of a verdict's flags that asks for it; `None` for [`Self::Transmit`], which is an action.
    #[must_use]
    pub const fn flag(self) -> Option<u8> {
        match self {
            Self::Transmit => None,
            Self::Tag => Some(edit::TAG),
            Self::Class => Some(edit::CLASS),
            Self::Mark => Some(edit::MARK),
            Self::Mirror => Some(edit::MIRROR),
            Self::Dscp => Some(edit::DSCP),
            Self::Mss => Some(edit::MSS),
            Self::TcpOptions => Some(edit::TCP_OPTIONS),
        }
    }
}

/// The part of each packet that a plugin is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadWindow {
    /// Where it starts.
    pub from: PayloadStart,
    /// How many bytes at most.
    pub bytes: usize,
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

/// A counter, or several that share a name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum CounterDeclaration {
    /// One counter: `"name"`.
    One(String),
    /// More is said about it.
    Described(CounterTable),
}

/// `{ name = "name", len = 16 }`: several counters, which are shown as `name[0]` and so on.
/// `{ name = "name", gauge = true }`: one that also falls.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CounterTable {
    /// Its name, or the name that they share.
    pub name: String,
    /// How many they are; without it there is one, without an index.
    #[serde(default)]
    pub len: Option<usize>,
    /// Whether it says how things stand rather than how often something happened.
    #[serde(default)]
    pub gauge: bool,
}

/// One counter, as status and metrics name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CounterName {
    pub(crate) name: String,
    pub(crate) is_gauge: bool,
}

impl CounterDeclaration {
    fn name(&self) -> &str {
        match self {
            Self::One(name) | Self::Described(CounterTable { name, .. }) => name,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Described(table) => table.len.unwrap_or(1),
        }
    }
}

const fn memory_bytes_default() -> usize {
    MEMORY_BYTES_DEFAULT
}

/// The hook as manifests and configurations write it.
pub(crate) const fn hook_name(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Ingress => "ingress",
        HookPoint::Forward => "forward",
        HookPoint::Egress => "egress",
    }
}

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`PluginFault::Manifest`] names the key and, for broken TOML, the line;
    /// [`PluginFault::AbiVersion`] both versions.
    pub fn parse(section: &[u8]) -> Result<Self, PluginFault> {
        let fault = |text: String| PluginFault::Manifest(text);
        let text = std::str::from_utf8(section).map_err(|error| fault(error.to_string()))?;
        let manifest: Self =
            toml::from_str(text).map_err(|error| fault(error.to_string().trim_end().to_owned()))?;
        manifest.check_abi()?;
        check_name("name", &manifest.name)?;
        if manifest.hooks.is_empty() {
            return Err(fault("`hooks` names none".to_owned()));
        }
        for hook in &manifest.hooks {
            if !HookPoint::ALL.iter().any(|point| hook_name(*point) == hook) {
                return Err(fault(format!(
                    "`hooks`: `{hook}` is none of ingress, forward, egress"
                )));
            }
        }
        for import in &manifest.imports {
            if !crate::imports::is_capability(import) {
                let known = crate::imports::capabilities().join(", ");
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
            sum.checked_add(counter.len()).filter(|sum| *sum <= COUNTERS_MAX)
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

    /// What its layout has to have.
    #[must_use]
    pub fn layout_needs(&self) -> LayoutNeeds {
        let takes_edit = |action: &Action| action.flag().is_some_and(|flag| flag != edit::MIRROR);
        LayoutNeeds {
            counters: self.counter_names().len(),
            edits: self.actions.iter().any(takes_edit),
            payload_bytes: self.payload.map_or(0, |window| window.bytes),
            state_bytes: self.state.as_ref().map_or(0, |state| state.bytes_max),
        }
    }

    fn check_abi(&self) -> Result<(), PluginFault> {
        let parsed = self.abi.split_once('.').and_then(|(major, minor)| {
            Some((major.parse::<u16>().ok()?, minor.parse::<u16>().ok()?))
        });
        match parsed {
            None => Err(PluginFault::Manifest(format!(
                "`abi`: `{}` does not have the form major.minor",
                self.abi
            ))),
            Some((major, minor)) => check_version(major, minor),
        }
    }

    /// Whether it can be used at `point`.
    #[must_use]
    pub fn has_hook(&self, point: HookPoint) -> bool {
        self.hooks.iter().any(|hook| hook == hook_name(point))
    }

    /// Names of all counters, those of arrays with their index, in their order in memory.
    #[must_use]
    pub fn counter_names(&self) -> Vec<String> {
        self.named_counters().into_iter().map(|counter| counter.name).collect()
    }

    /// For each of them, whether it is a gauge.
    #[must_use]
    pub fn gauges(&self) -> Vec<bool> {
        self.named_counters().into_iter().map(|counter| counter.is_gauge).collect()
    }

    /// The same, with what they are.
    pub(crate) fn named_counters(&self) -> Vec<CounterName> {
        let mut names = Vec::new();
        for counter in &self.counters {
            match counter {
                CounterDeclaration::One(name) => {
                    names.push(CounterName { name: name.clone(), is_gauge: false });
                }
                CounterDeclaration::Described(CounterTable { name, len: None, gauge }) => {
                    names.push(CounterName { name: name.clone(), is_gauge: *gauge });
                }
                CounterDeclaration::Described(CounterTable { name, len: Some(len), gauge }) => {
                    names.extend((0..*len).map(|index| CounterName {
                        name: format!("{name}[{index}]"),
                        is_gauge: *gauge,
                    }));
                }
            }
        }
        names
    }
}

/// Whether this host speaks a version of the ABI.
pub(crate) fn check_version(major: u16, minor: u16) -> Result<(), PluginFault> {
    if major == ABI_VERSION_MAJOR && (0..=ABI_VERSION_MINOR).contains(&minor) {
        return Ok(());
    }
    Err(PluginFault::AbiVersion {
        found: format!("{major}.{minor}"),
        spoken: format!("{ABI_VERSION_MAJOR}.{ABI_VERSION_MINOR}"),
    })
}

/// Names end up as labels of metrics, so they are held to what every consumer takes.
fn check_name(key: &str, name: &str) -> Result<(), PluginFault> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(allowed) {
        return Err(PluginFault::Manifest(format!(
            "`{key}`: {name:?} is no name of 1 to 64 letters, digits, `-` and `_`"
        )));
    }
    Ok(())
}

fn unique<'a>(key: &str, names: impl Iterator<Item = &'a str>) -> Result<(), PluginFault> {
    let mut seen = BTreeSet::new();
    for name in names {
        check_name(key, name)?;
        if name == "default" || !seen.insert(name) {
            return Err(PluginFault::Manifest(format!(
                "`{key}`: `{name}` is reserved or stands there twice"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\"]\n";

    fn refusal(text: &str) -> String {
        Manifest::parse(text.as_bytes()).expect_err("this manifest is broken").to_string()
    }

    #[test]
    fn the_least_manifest_takes_the_defaults() {
        let manifest = Manifest::parse(LEAST.as_bytes()).expect("a manifest");
        assert_eq!(manifest.memory_max_bytes, MEMORY_BYTES_DEFAULT);
        assert_eq!((manifest.default, manifest.on_trap), (DefaultVerdict::Continue, OnTrap::Open));
        assert!(manifest.has_hook(HookPoint::Ingress));
        assert!(!manifest.has_hook(HookPoint::Egress));
    }

    #[test]
    fn counters_are_named_with_their_index() {
        let text =
            format!("{LEAST}counters = [\"seen\", {{ name = \"hits\", len = 2 }}, \"last\"]\n");
        let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
        assert_eq!(manifest.counter_names(), ["seen", "hits[0]", "hits[1]", "last"]);
        let text = format!("{LEAST}counters = [{{ name = \"flows\", gauge = true }}, \"last\"]\n");
        let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
        let named = manifest.named_counters();
        assert_eq!(named.iter().map(|c| c.is_gauge).collect::<Vec<_>>(), [true, false]);
        assert_eq!(manifest.counter_names(), ["flows", "last"]);
        refusal(&format!("{LEAST}counters = [{{ name = \"a\", guage = true }}]"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refusal(&format!("{LEAST}colour = 1")).contains("colour"));
        assert!(refusal(&LEAST.replace("1.0", "2.0")).contains("ABI 2.0, this host speaks 1.0"));
        assert!(refusal(&LEAST.replace("1.0", "1.1")).contains("ABI 1.1"));
        assert!(refusal(&LEAST.replace("1.0", "one")).contains("`abi`"));
        assert!(refusal(&LEAST.replace("ingress", "middle")).contains("`middle`"));
        assert!(refusal(&LEAST.replace("[\"ingress\"]", "[]")).contains("`hooks`"));
        assert!(refusal(&LEAST.replace("\"x\"", "\"x y\"")).contains("`name`"));
        assert!(refusal(&format!("{LEAST}imports = [\"files\"]")).contains("`files`"));
        assert!(refusal(&format!("{LEAST}reasons = [\"a\", \"a\"]")).contains("`reasons`: `a`"));
        assert!(refusal(&format!("{LEAST}reasons = [\"default\"]")).contains("reserved"));
        assert!(
            refusal(&format!("{LEAST}counters = [{{ name = \"a\", len = 4097 }}]"))
                .contains("4096")
        );
        assert!(matches!(Manifest::parse(&[0xff]), Err(PluginFault::Manifest(_))));
    }
}
