//! [`Kind`]: the changes that are measured.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;

use super::bed::Shape;

/// A change of a running router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The filter plugin is loaded again by `sluice plugin reload`.
    PluginReload,
    /// The filter plugin's file is replaced, and the router notices by itself.
    PluginFile,
    /// The file of a plugin of 13 KB is replaced, and the router notices by itself.
    PluginFileSmall,
    /// The file of a plugin of 1 MB of code is replaced, and the router notices by itself.
    PluginFileLarge,
    /// A plugin of 13 KB, compiled before, is loaded again a thousand times.
    PluginThousand,
    /// `sluice reload`, between two configurations with different slices and routes.
    ConfigurationReload,
    /// A slice goes to another node and back.
    SliceMove,
    /// The kernel's routes change a thousand times a second, the traffic's own among them.
    RouteChurn,
    /// The router is stopped by SIGTERM and started again.
    Restart,
    /// The router is killed by SIGKILL and started again.
    Crash,
}

impl Kind {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::PluginReload,
        Self::PluginFile,
        Self::PluginFileSmall,
        Self::PluginFileLarge,
        Self::PluginThousand,
        Self::ConfigurationReload,
        Self::SliceMove,
        Self::RouteChurn,
        Self::Restart,
        Self::Crash,
    ];

    /// What is told of it, in the table and in the documents.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::PluginReload => "plugin reload by command",
            Self::PluginFile => "plugin reload by file",
            Self::PluginFileSmall => "plugin of 13 KB by file",
            Self::PluginFileLarge => "plugin of 1 MB by file",
            Self::PluginThousand => "1000 plugin reloads",
            Self::ConfigurationReload => "configuration reload",
            Self::SliceMove => "slice move, new owner first",
            Self::RouteChurn => "route change, 1000 a second",
            Self::Restart => "SIGTERM and start",
            Self::Crash => "SIGKILL and start",
        }
    }

    /// Bytes of the plugin that it needs in place of the filter.
    #[must_use]
    pub fn plugin_bytes(self) -> Option<usize> {
        match self {
            Self::PluginFileSmall | Self::PluginThousand => Some(13_000),
            Self::PluginFileLarge => Some(1_000_000),
            _ => None,
        }
    }

    /// The bed that it needs.
    #[must_use]
    pub fn shape(self) -> Shape {
        if self == Self::SliceMove { Shape::Slice } else { Shape::Transit }
    }

    /// Length of its runs, given that of most others.
    #[must_use]
    pub fn duration(self, usual: Duration) -> Duration {
        match self {
            Self::Restart | Self::Crash => usual * 5 / 2,
            // Fifty a second, for as long as a thousand take; with --quick it is some hundreds.
            Self::PluginThousand => usual * 41 / 10,
            // Compiling takes seconds where the worker has most of the core that is left for it.
            Self::PluginFileLarge => usual * 12,
            _ => usual,
        }
    }

    /// How often it is made in a run of that length, at most.
    #[must_use]
    pub fn times(self, duration: Duration) -> u32 {
        let per_second = match self {
            Self::PluginReload | Self::ConfigurationReload => 5.0,
            // The router looks at plugins' files every half second.
            Self::PluginFile | Self::PluginFileSmall => 1.2,
            Self::PluginFileLarge => 0.05,
            Self::PluginThousand => 50.0,
            Self::SliceMove => 2.0,
            Self::RouteChurn => 1000.0,
            // Ending and starting take a second or two.
            Self::Restart | Self::Crash => 0.2,
        };
        (duration.as_secs_f64() * per_second).max(1.0) as u32
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("", |value| value.get_name()))
    }
}
