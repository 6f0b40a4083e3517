//! From the configuration's plugins to the policy host's.

use std::sync::Arc;

use config::{Checked, Grant, PluginDefault, PluginHook};
use control::publication::ActionNames;
use frame::HookPoint;
use policy::{DefaultVerdict, Names, OnTrap, PluginConfig, PluginSpec};

/// What the policy host is to load.
pub(crate) fn specs(config: &Checked, names: &ActionNames) -> Vec<PluginSpec> {
    let ActionNames { next_hops, tags, classes, interfaces } = names.clone();
    let names = Arc::new(Names { next_hops, tags, classes, interfaces });
    config.plugins.iter().map(|plugin| spec(plugin, &names)).collect()
}

fn spec(plugin: &config::Plugin, names: &Arc<Names>) -> PluginSpec {
    let asks_for_names = plugin.grants.contains(&Grant::Names);
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
        // A plugin that cannot ask goes on as it is when names change.
        names: if asks_for_names { Arc::clone(names) } else { Arc::default() },
        grants: plugin.grants.iter().map(|grant| grant.word().to_owned()).collect(),
        ..PluginSpec::new(plugin.name.clone(), plugin.path.clone(), hook)
    }
}
