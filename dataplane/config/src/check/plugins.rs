//! `[[plugin]]`. Files are not opened here: a plugin's module and configuration are read, hashed and
//! refused where they are loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;

use super::{Checker, Names, check_name};
use crate::model::{Grant, Plugin, PluginConfig, PluginHook, PluginOptions};
use crate::raw::{RawConfig, RawPlugin, RawPluginOptions, Tables};
use crate::reason::{Place, Reason};

/// A Wasm page.
const PAGE_BYTES: u32 = 65_536;
const MEMORY_BYTES_MAX: u32 = 1 << 30;
/// The host's clock ticks this often, so that a shorter or finer budget has no meaning.
const TICK_US: u32 = 100;
const BUDGET_US_MAX: u32 = 1_000_000;
const TRAPS_MAX: u32 = 1_000_000;
const CYCLES_MAX: u32 = 1_000_000;
const COMPILED_BYTES_DEFAULT: u32 = 64 << 20;

impl Checker<'_> {
    pub(super) fn plugins(&mut self, raw: &Tables<RawPlugin>) -> Vec<Plugin> {
        let mut names = Names::new("plugin");
        let mut plugins = Vec::with_capacity(raw.len());
        for (position, spanned) in raw.iter().enumerate() {
            let at = self.place(format!("plugin[{position}]"), spanned);
            plugins.push(self.plugin(&at, spanned.get_ref(), &mut names));
        }
        plugins
    }

    pub(super) fn plugin_options(&mut self, raw: &RawConfig, socket: &Path) -> PluginOptions {
        let at = self.table("plugins", &raw.plugins);
        let empty = RawPluginOptions::default();
        let raw = raw.plugins.as_ref().map_or(&empty, Spanned::get_ref);
        let default = socket.with_extension("plugins");
        PluginOptions {
            state_dir: match &raw.state_dir {
                None => default,
                Some(_) => self.absolute(&at, "state_dir", &raw.state_dir, ""),
            },
            compiled_bytes_max: self.number(
                &at,
                "compiled_bytes_max",
                &raw.compiled_bytes_max,
                0..=u32::MAX,
                COMPILED_BYTES_DEFAULT,
            ),
            budget_cycles_per_packet: raw.budget_cycles_per_packet.as_ref().map(|_| {
                let field = &raw.budget_cycles_per_packet;
                self.number(&at, "budget_cycles_per_packet", field, 1..=CYCLES_MAX, CYCLES_MAX)
            }),
        }
    }

    fn plugin(&mut self, at: &Place, raw: &RawPlugin, names: &mut Names<()>) -> Plugin {
        let name = self.required(at, "name", &raw.name, "a name to refer to it by");
        let name = name.and_then(|(name, at)| {
            let added = names.add(name, (), &at);
            self.accept(&at, added)?;
            self.accept(&at, check_name(name))
        });
        let path = self.required(at, "path", &raw.path, "the file of its Wasm module");
        let path = path.map(|(path, at)| self.path(&at, path));
        let hook = self.required(at, "hook", &raw.hook, "\"ingress\", \"forward\" or \"egress\"");
        Plugin {
            name: name.unwrap_or_default(),
            path: path.unwrap_or_default(),
            hook: hook.map_or(PluginHook::Ingress, |(hook, _)| *hook),
            config: self.plugin_config(at, raw),
            tables: self.plugin_tables(at, raw),
            default: raw.default.as_ref().map(|word| *word.get_ref()),
            on_trap: raw.on_trap.as_ref().map(|word| *word.get_ref()),
            budget_us: self.multiple(
                at,
                ("budget_us", &raw.budget_us),
                (TICK_US, BUDGET_US_MAX),
                Plugin::BUDGET_US,
            ),
            memory_max_bytes: self.multiple(
                at,
                ("memory_max_bytes", &raw.memory_max_bytes),
                (PAGE_BYTES, MEMORY_BYTES_MAX),
                Plugin::MEMORY_MAX_BYTES,
            ),
            traps_max: self.number(
                at,
                "traps_max",
                &raw.traps_max,
                1..=TRAPS_MAX,
                Plugin::TRAPS_MAX,
            ),
            sha256: raw.sha256.as_ref().and_then(|text| {
                let at = self.key(at, "sha256", &raw.sha256);
                self.accept(&at, parse_sha256(text.get_ref()))
            }),
            grants: self.grants(at, raw.grants.as_deref().unwrap_or_default()),
        }
    }

    /// A number that is a multiple of `unit`, up to `most`.
    fn multiple(
        &mut self,
        table: &Place,
        (name, field): (&str, &crate::raw::Field<i64>),
        (unit, most): (u32, u32),
        default: u32,
    ) -> u32 {
        let value = self.number(table, name, field, unit..=most, default);
        if !value.is_multiple_of(unit) {
            let at = self.key(table, name, field);
            self.refuse(&at, Reason::NotMultiple { value, unit });
        }
        value
    }

    fn plugin_config(&mut self, at: &Place, raw: &RawPlugin) -> PluginConfig {
        match (&raw.config, &raw.config_file) {
            (None, None) => PluginConfig::None,
            (Some(table), None) => PluginConfig::Inline(table.get_ref().clone()),
            (None, Some(file)) => {
                let at = self.key(at, "config_file", &raw.config_file);
                PluginConfig::File(self.path(&at, file.get_ref()))
            }
            (Some(_), Some(_)) => {
                let at = self.key(at, "config_file", &raw.config_file);
                let found = "`config` and `config_file`".to_owned();
                let expected = "`config` and `config_file`, or none";
                self.refuse(&at, Reason::NotExactlyOne { expected, found });
                PluginConfig::None
            }
        }
    }

    fn plugin_tables(&mut self, at: &Place, raw: &RawPlugin) -> BTreeMap<String, PathBuf> {
        let mut tables = BTreeMap::new();
        for (name, file) in &raw.tables {
            let at = self.place(format!("{}.tables.{name}", at.key), file);
            tables.insert(name.clone(), self.path(&at, file.get_ref()));
        }
        tables
    }

    fn grants(&mut self, at: &Place, raw: &[Spanned<Grant>]) -> Vec<Grant> {
        let mut grants: Vec<(Grant, Place)> = Vec::with_capacity(raw.len());
        for (position, grant) in raw.iter().enumerate() {
            let at = self.place(format!("{}.grants[{position}]", at.key), grant);
            let grant = *grant.get_ref();
            if let Some((_, other)) = grants.iter().find(|(other, _)| *other == grant) {
                let (value, other) = (grant.word().to_owned(), other.clone());
                self.refuse(&at, Reason::Duplicate { value, other });
            }
            grants.push((grant, at));
        }
        let mut grants: Vec<_> = grants.into_iter().map(|(grant, _)| grant).collect();
        grants.sort_unstable();
        grants
    }
}

impl Grant {
    /// The word of the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Meter => "meter",
            Self::Log => "log",
            Self::Random => "random",
            Self::Names => "names",
            Self::Table => "table",
            Self::Quota => "quota",
            Self::Payload => "payload",
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
}

fn parse_sha256(text: &str) -> Result<[u8; 32], Reason> {
    let bad = || Reason::BadSha256(text.to_owned());
    let mut hash = [0u8; 32];
    if text.len() != 2 * hash.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(bad());
    }
    for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    }
    Ok(hash)
}
