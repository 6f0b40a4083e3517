//! From the configuration's plugins to the policy host's.

use config::{Checked, PluginDefault, PluginHook};
use frame::HookPoint;
use policy::{DefaultVerdict, OnTrap, PluginConfig, PluginSpec};

/// What the policy host is to load.
pub(crate) fn specs(config: &Checked) -> Vec<PluginSpec> {
    config.plugins.iter().map(spec).collect()
}

fn spec(plugin: &config::Plugin) -> PluginSpec {
    let hook = match plugin.hook {
        PluginHook::Ingress => HookPoint::Ingress,
        PluginHook::Forward => HookPoint::Forward,
        PluginHook::Egress => HookPoint::Egress,
    };
    PluginSpec {
        config: match &plugin.config {
            config::PluginConfig::None => PluginConfig::Empty,
            config::PluginConfig::Inline(table) => PluginConfig::Table(table.clone()),
            config::PluginConfig::File(path) => PluginConfig::File(path.clone()),
        },
        tables: plugin.tables.clone(),
        default: plugin.default.map(|default| match default {
            PluginDefault::Continue => DefaultVerdict::Continue,
            PluginDefault::Drop => DefaultVerdict::Drop,
        }),
        on_trap: plugin.on_trap.map(|on_trap| match on_trap {
            config::OnTrap::Open => OnTrap::Open,
            config::OnTrap::Closed => OnTrap::Closed,
            config::OnTrap::LastGood => OnTrap::LastGood,
        }),
        budget_us: plugin.budget_us,
        memory_max_bytes: usize::try_from(plugin.memory_max_bytes).ok(),
        traps_max: plugin.traps_max,
        sha256: plugin.sha256,
        grants: plugin.grants.iter().map(|grant| grant.word().to_owned()).collect(),
        ..PluginSpec::new(plugin.name.clone(), plugin.path.clone(), hook)
    }
}
