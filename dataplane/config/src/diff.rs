//! The difference of two configurations: what to do, or what only a restart can do.
//!
//! The function is pure: it tells which parts differ, in the order in which they are to be applied,
//! and whoever applies an action takes its values from the new configuration.

use std::path::{Path, PathBuf};

use crate::error::{ConfigError, ConfigErrors};
use crate::model::{Checked, Interface, OnExit, Plugin, Poll, Workers, XdpMode, ZeroCopy};
use crate::reason::Reason;

/// One step from the running configuration to the new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// What is refused in headers.
    Validation,
    /// Limits of ICMP errors.
    Icmp,
    /// Limits of what goes to the kernel.
    Punt,
    /// Limits of held frames.
    Hold,
    /// How fragments are followed and made.
    Fragments,
    /// Roles of interfaces.
    Roles,
    /// Source validation of interfaces.
    SourceValidation,
    /// MSS clamps of interfaces.
    MssClamp,
    /// Static neighbors.
    Neighbors,
    /// Static routes, of the configuration or of a route file, or what is said about all routes.
    Routes,
    /// Egress prefixes, slices, sites, nodes, owners or kinds of tunnels: everything that
    /// [`Checked::slice_blocks`] and the tunnels are made from.
    Slices,
    /// Next hops, egress tags or classes, which plugins name.
    Actions,
    /// Plugins.
    Plugins(PluginChanges),
}

/// Which plugins differ, by name. Their order within a hook is that of the new configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PluginChanges {
    /// In the new configuration only.
    pub added: Vec<String>,
    /// In the old configuration only.
    pub removed: Vec<String>,
    /// In both, with other keys.
    pub changed: Vec<String>,
    /// Whether those that are in both come in another order.
    pub reordered: bool,
    /// Whether they may cost something else.
    pub budget: bool,
}

/// What leads from `old` to `new`; empty if they are equal.
///
/// # Errors
/// Each key that differs and cannot change while the router runs, with its old and new value. Then
/// nothing is to be applied.
pub fn diff(old: &Checked, new: &Checked) -> Result<Vec<Action>, ConfigErrors> {
    let errors = restarts(old, new);
    if !errors.is_empty() {
        return Err(ConfigErrors::new(errors));
    }
    let mut actions = Vec::new();
    let mut differs = |action: Action, is_different: bool| {
        if is_different {
            actions.push(action);
        }
    };
    let of_interfaces = |is_different: fn(&Interface, &Interface) -> bool| {
        old.interfaces.iter().zip(&new.interfaces).any(|(old, new)| is_different(old, new))
    };
    differs(Action::Validation, old.validation != new.validation);
    differs(Action::Icmp, old.icmp != new.icmp);
    differs(Action::Punt, old.punt != new.punt);
    differs(Action::Hold, old.hold != new.hold);
    differs(Action::Fragments, old.fragments != new.fragments);
    differs(Action::Roles, of_interfaces(|old, new| old.role != new.role));
    differs(
        Action::SourceValidation,
        of_interfaces(|old, new| old.source_validation != new.source_validation),
    );
    differs(Action::MssClamp, of_interfaces(|old, new| old.mss_clamp != new.mss_clamp));
    differs(Action::Neighbors, old.neighbors != new.neighbors);
    differs(
        Action::Routes,
        old.routes != new.routes
            || old.route_files != new.route_files
            || old.route_options != new.route_options,
    );
    differs(
        Action::Slices,
        old.egress != new.egress
            || old.slices != new.slices
            || old.tunnel != new.tunnel
            || old.sites != new.sites
            || old.nodes != new.nodes
            || old.owners != new.owners
            || old.local_node != new.local_node,
    );
    differs(
        Action::Actions,
        old.next_hops != new.next_hops
            || old.egress_tags != new.egress_tags
            || old.classes != new.classes,
    );
    let budgets = [old, new].map(|config| config.plugin_options.budget_cycles_per_packet);
    let budget = budgets[0] != budgets[1];
    if old.plugins != new.plugins || budget {
        let changes = plugin_changes(&old.plugins, &new.plugins);
        actions.push(Action::Plugins(PluginChanges { budget, ..changes }));
    }
    Ok(actions)
}

fn plugin_changes(old: &[Plugin], new: &[Plugin]) -> PluginChanges {
    let find =
        |plugins: &[Plugin], name: &str| plugins.iter().find(|plugin| plugin.name == name).cloned();
    let mut changes = PluginChanges::default();
    for plugin in new {
        match find(old, &plugin.name) {
            None => changes.added.push(plugin.name.clone()),
            Some(before) if before != *plugin => changes.changed.push(plugin.name.clone()),
            Some(_) => {}
        }
    }
    let gone = old.iter().filter(|plugin| find(new, &plugin.name).is_none());
    changes.removed = gone.map(|plugin| plugin.name.clone()).collect();
    let kept_of = |plugins: &[Plugin], others: &[Plugin]| -> Vec<String> {
        let kept = plugins.iter().filter(|plugin| find(others, &plugin.name).is_some());
        kept.map(|plugin| plugin.name.clone()).collect()
    };
    changes.reordered = kept_of(old, new) != kept_of(new, old);
    changes
}

/// How a key without a value is shown.
const NOTHING: &str = "nothing";

/// Collects what cannot change.
struct Restarts<'a> {
    file: &'a Path,
    errors: Vec<ConfigError>,
}

impl Restarts<'_> {
    fn compare<T: PartialEq>(
        &mut self,
        key: impl Into<String>,
        (old, new): (&T, &T),
        written: impl Fn(&T) -> String,
    ) {
        if old != new {
            let reason = Reason::NeedsRestart { old: written(old), new: written(new) };
            let file = self.file.to_owned();
            self.errors.push(ConfigError { file, line: None, key: key.into(), reason });
        }
    }
}

fn restarts(old: &Checked, new: &Checked) -> Vec<ConfigError> {
    let mut restarts = Restarts { file: &new.file, errors: Vec::new() };
    let (before, after) = (&old.router, &new.router);
    let text = |text: &String| format!("\"{text}\"");
    let path = |path: &PathBuf| format!("\"{}\"", path.display());
    restarts.compare("router.name", (&before.name, &after.name), text);
    restarts.compare("router.node", (&local_name(old), &local_name(new)), |name| {
        name.map_or(NOTHING.to_owned(), |name| format!("\"{name}\""))
    });
    restarts.compare("router.poll", (&before.poll, &after.poll), |poll| match poll {
        Poll::Busy => "busy".to_owned(),
        Poll::Adaptive => "adaptive".to_owned(),
    });
    restarts.compare(
        "router.on_exit",
        (&before.on_exit, &after.on_exit),
        |on_exit| match on_exit {
            OnExit::Drop => "drop".to_owned(),
            OnExit::Kernel => "kernel".to_owned(),
        },
    );
    let batches = (&before.batch_frames, &after.batch_frames);
    restarts.compare("router.batch_frames", batches, u16::to_string);
    let frames = (&before.frames_per_worker, &after.frames_per_worker);
    restarts.compare("router.frames_per_worker", frames, u32::to_string);
    let rings = (&before.rx_ring_entries, &after.rx_ring_entries);
    restarts.compare("router.rx_ring_entries", rings, u32::to_string);
    let sockets = (&before.control_socket, &after.control_socket);
    restarts.compare("router.control_socket", sockets, path);
    let listens = (&before.metrics_listen, &after.metrics_listen);
    restarts.compare("router.metrics_listen", listens, |listen| {
        listen.map_or(NOTHING.to_owned(), |listen| listen.to_string())
    });
    let (dir, dir_after) = (&old.plugin_options.state_dir, &new.plugin_options.state_dir);
    // Its default follows the control socket.
    if before.control_socket == after.control_socket {
        restarts.compare("plugins.state_dir", (dir, dir_after), path);
    }
    let bytes = (&old.plugin_options.compiled_bytes_max, &new.plugin_options.compiled_bytes_max);
    restarts.compare("plugins.compiled_bytes_max", bytes, u32::to_string);
    restarts.compare("router.bpffs", (&before.bpffs, &after.bpffs), path);
    let devices = (&before.punt_device, &after.punt_device);
    restarts.compare("router.punt_device", devices, text);
    restarts.compare("workers.cores", (&old.workers, &new.workers), |workers| match workers {
        Workers::Auto => "auto".to_owned(),
        Workers::Cores(cores) => format!("{cores:?}"),
    });
    let routes = (&old.kernel.routes, &new.kernel.routes);
    restarts.compare("kernel.routes", routes, bool::to_string);
    let tables = (&old.kernel.tables, &new.kernel.tables);
    restarts.compare("kernel.tables", tables, |tables| format!("{tables:?}"));
    let neighbors = (&old.kernel.neighbors, &new.kernel.neighbors);
    restarts.compare("kernel.neighbors", neighbors, bool::to_string);
    restarts.compare("tunnel.port", (&old.gue_port, &new.gue_port), u16::to_string);
    restarts.interfaces(old, new);
    restarts.errors
}

impl Restarts<'_> {
    /// Rings and programs of an interface are made at start; ids of interfaces are positions.
    fn interfaces(&mut self, old: &Checked, new: &Checked) {
        let names = |checked: &Checked| -> Vec<String> {
            checked.interfaces.iter().map(|interface| interface.name.clone()).collect()
        };
        let (before, after) = (names(old), names(new));
        self.compare("interface", (&before, &after), |names| format!("{names:?}"));
        if before != after {
            return;
        }
        for (position, (old, new)) in old.interfaces.iter().zip(&new.interfaces).enumerate() {
            let key = format!("interface[{position}].xdp");
            self.compare(key, (&old.xdp, &new.xdp), |mode| match mode {
                XdpMode::Auto => "auto".to_owned(),
                XdpMode::Native => "native".to_owned(),
                XdpMode::Generic => "generic".to_owned(),
            });
            let key = format!("interface[{position}].zero_copy");
            self.compare(key, (&old.zero_copy, &new.zero_copy), |mode| match mode {
                ZeroCopy::Auto => "auto".to_owned(),
                ZeroCopy::Force => "force".to_owned(),
                ZeroCopy::Off => "off".to_owned(),
            });
        }
    }
}

fn local_name(checked: &Checked) -> Option<&str> {
    checked.local_node.map(|node| checked.nodes[node].name.as_str())
}
