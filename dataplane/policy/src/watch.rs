//! The files behind a plugin: when they changed, and its configuration as the guest gets it.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    PluginConfig, PluginFault, PluginSpec,
    module::{CONFIG_BYTES_MAX, read_file},
};

/// What changes when a file is written or replaced: device, inode, size, and time of modification
/// in seconds and nanoseconds. `None` for a file that is not there.
pub(crate) type FileStamp = Option<(u64, u64, u64, i64, i64)>;

/// The state of a plugin's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    module: FileStamp,
    config: FileStamp,
}

pub(crate) fn file_stamp(path: &Path) -> FileStamp {
    let data = std::fs::metadata(path).ok()?;
    Some((data.dev(), data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

impl Stamp {
    pub(crate) fn of(spec: &PluginSpec) -> Self {
        let config = match &spec.config {
            PluginConfig::File(path) => file_stamp(path),
            PluginConfig::Empty | PluginConfig::Table(_) => None,
        };
        Self { module: file_stamp(&spec.path), config }
    }
}

/// A plugin's configuration as JSON.
pub(crate) fn config_json(config: &PluginConfig) -> Result<Vec<u8>, PluginFault> {
    let read;
    let table = match config {
        PluginConfig::Empty => return Ok(b"{}".to_vec()),
        PluginConfig::Table(table) => table,
        PluginConfig::File(path) => {
            read = read_table(path)?;
            &read
        }
    };
    if table.values().any(holds_date) {
        return Err(PluginFault::ConfigDate);
    }
    serde_json::to_vec(table)
        .map_err(|error| PluginFault::ConfigFile { path: PathBuf::new(), error: error.to_string() })
}

fn read_table(path: &Path) -> Result<toml::Table, PluginFault> {
    let bytes = read_file(path, CONFIG_BYTES_MAX)?;
    let fault = |error: String| PluginFault::ConfigFile { path: path.to_owned(), error };
    let text = std::str::from_utf8(&bytes).map_err(|error| fault(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| fault(error.to_string().trim_end().to_owned()))
}

fn holds_date(value: &toml::Value) -> bool {
    match value {
        toml::Value::Datetime(_) => true,
        toml::Value::Array(values) => values.iter().any(holds_date),
        toml::Value::Table(table) => table.values().any(holds_date),
        _ => false,
    }
}
