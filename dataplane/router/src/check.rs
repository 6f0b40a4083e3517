//! `sluice check`: everything that is wrong with a configuration, the plugins that it names included.
//!
//! Plugins go the way of a start: the same host loads them from the same specifications, and prices them by the
//! same generated packets. It ends before anything is published. Nothing is written, and the modules that the
//! router keeps compiled are not used: that folder is its own.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, bail};
use config::Checked;
use control::publication::ActionNames;
use nix::unistd::geteuid;
use policy::{HostOptions, PluginFault, PluginHost, PolicyError, ReloadReport};

use crate::plugins;
use crate::run::RouterTraffic;

/// What there is to say about plugins.
#[derive(Debug, Default)]
struct Findings {
    /// What a start or reload would be refused for.
    errors: Vec<String>,
    /// What would be loaded, and is worth a look.
    warnings: Vec<String>,
    /// What could not be looked at.
    unchecked: Vec<String>,
}

/// Runs the command.
pub(crate) fn run(file: &Path, opens_plugins: bool) -> Result<()> {
    let config = Checked::load(file)?;
    let file = file.display();
    let mut found = Findings::default();
    if opens_plugins && !config.plugins.is_empty() {
        found = plugin_findings(&config)?;
    }
    found.warnings.extend(config.warnings());
    for warning in &found.warnings {
        eprintln!("{file}: warning: {warning}");
    }
    for unchecked in &found.unchecked {
        eprintln!("{file}: not checked: {unchecked}");
    }
    if !found.errors.is_empty() {
        let lines: Vec<_> = found.errors.iter().map(|error| format!("{file}: {error}")).collect();
        bail!("{}", lines.join("\n"));
    }
    println!(
        "{file}: {} interfaces, {} egress prefixes, {} slices, {} plugins{}: no errors{}",
        config.interfaces.len(),
        config.egress.len(),
        config.slices.len(),
        config.plugins.len(),
        if opens_plugins { "" } else { " (not opened)" },
        if found.unchecked.is_empty() { "" } else { " in what was checked" },
    );
    Ok(())
}

fn plugin_findings(config: &Checked) -> Result<Findings> {
    let mut found = Findings::default();
    let names = ActionNames::at_start(config)?;
    // One worker's instances are like another's.
    let (mut host, _chains) = match PluginHost::new(HostOptions::new(1)) {
        Ok(host) => host,
        Err(error) => {
            found.unchecked.push(format!("plugins: {error}"));
            return Ok(found);
        }
    };
    // A router may be running on these cores.
    host.compile_in_background();
    host.price_with(Box::new(RouterTraffic::none(config)));
    let budget = config.plugin_options.budget_cycles_per_packet;
    let (loaded, refused) = host.check_within(&plugins::specs(config, &names), budget);
    for error in refused {
        match is_unreadable(&error) && !geteuid().is_root() {
            true => found.unchecked.push(format!("{error}; the router may be allowed to read it")),
            false => found.errors.push(error.to_string()),
        }
    }
    found.warnings.extend(loaded.iter().filter_map(warning));
    Ok(found)
}

/// A file that another user could read.
fn is_unreadable(error: &PolicyError) -> bool {
    let denied = |error: &std::io::Error| error.kind() == ErrorKind::PermissionDenied;
    matches!(error.fault(), Some(PluginFault::Read { error, .. }) if denied(error))
}

fn warning(loaded: &ReloadReport) -> Option<String> {
    let trapped = loaded.price.as_ref()?.trapped.as_ref()?;
    Some(format!("plugin `{}`: {trapped}", loaded.name))
}
