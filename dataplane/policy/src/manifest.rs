//! [`Manifest`]: what a plugin says of itself, in the custom section `sluice.manifest`.

use std::collections::BTreeSet;

use frame::HookPoint;
use serde::Deserialize;
use sluice_abi::{ABI_VERSION_MAJOR, ABI_VERSION_MINOR};

use crate::{DefaultVerdict, OnTrap, PluginFault};

/// The most reasons for drops that a plugin may name: each is a metric.
const REASONS_MAX: usize = 64;
/// The most counters that a plugin may have: each is copied out of its memory ten times a second.
const COUNTERS_MAX: usize = 4096;
/// Memory of a plugin whose manifest does not say, in bytes.
const MEMORY_BYTES_DEFAULT: usize = 16 << 20;

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
    /// The capabilities that it needs: `log`, `meter`.
    #[serde(default)]
    pub imports: Vec<String>,
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
    /// Several: `{ name = "name", len = 16 }`. They are shown as `name[0]` and so on.
    Array {
        /// The name that they share.
        name: String,
        /// How many they are.
        len: usize,
    },
}

impl CounterDeclaration {
    fn name(&self) -> &str {
        match self {
            Self::One(name) | Self::Array { name, .. } => name,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Array { len, .. } => *len,
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
                return Err(fault(format!("`imports`: `{import}` is none of log, meter")));
            }
        }
        if manifest.reasons.len() > REASONS_MAX {
            return Err(fault(format!("`reasons` has more than {REASONS_MAX} entries")));
        }
        unique("reasons", manifest.reasons.iter().map(String::as_str))?;
        unique("counters", manifest.counters.iter().map(CounterDeclaration::name))?;
        let counters = manifest.counters.iter().try_fold(0_usize, |sum, counter| {
            sum.checked_add(counter.len()).filter(|sum| *sum <= COUNTERS_MAX)
        });
        if counters.is_none() {
            return Err(fault(format!("`counters` are more than {COUNTERS_MAX}")));
        }
        Ok(manifest)
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
        let mut names = Vec::new();
        for counter in &self.counters {
            match counter {
                CounterDeclaration::One(name) => names.push(name.clone()),
                CounterDeclaration::Array { name, len } => {
                    names.extend((0..*len).map(|index| format!("{name}[{index}]")));
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
