//! [`SavedBatch`]: a batch whose call trapped, as a file that [`crate::replay`] reads.
//!
//! ```text
//!   traps/NAME-GENERATION-K.json   the batch, the plugin's configuration and its limits
//!   traps/SHA256.wasm              the module that trapped
//! ```
//!
//! Bounds: the first [`SAVED_PER_GENERATION`] of a generation, the last [`SAVED_MAX`] in all, and only the
//! modules that those name. Files are the owner's alone: configurations may hold secrets.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sluice_abi::{Descriptor, Marks};

use crate::{
    DefaultVerdict, Names, PluginSpec,
    generation::Loaded,
    manifest::hook_name,
    module::{CheckedModule, hex},
    private_dir::PrivateDir,
    trap_batch::TrapBatch,
};

/// Files of one generation: the first trap tells most, the others whether it is always the same.
const SAVED_PER_GENERATION: u32 = 4;
/// Files in all.
const SAVED_MAX: usize = 32;
/// Number of this form.
const FORMAT: u32 = 1;

/// A batch whose call trapped, with all that the call depended on but the instance's memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedBatch {
    /// Number of this form: 1.
    pub format: u32,
    /// The operator's name for the plugin.
    pub plugin: String,
    /// Number of its generation.
    pub generation: u64,
    /// Its hook.
    pub hook: String,
    /// The worker whose call trapped.
    pub worker: usize,
    /// Why.
    pub reason: String,
    /// SHA-256 of the module, in hexadecimal: `SHA256.wasm` lies beside this file.
    pub sha256: String,
    /// Where the module was loaded from.
    pub path: PathBuf,
    /// The configuration, as JSON.
    pub config: String,
    /// What the operator granted.
    pub grants: Vec<String>,
    /// The names that it could ask for the numbers of. Files that were saved without have none.
    #[serde(default)]
    pub names: Names,
    /// How long one call might run, in microseconds.
    pub budget_us: u32,
    /// The most memory that an instance might have, in bytes.
    pub memory_max_bytes: Option<usize>,
    /// The verdict of packets that the plugin leaves undecided.
    pub default: Option<DefaultVerdict>,
    /// The time that the call was given, in nanoseconds of the monotonic clock.
    pub now_ns: u64,
    /// The packets, as the plugin was shown them.
    pub packets: Vec<SavedPacket>,
}

/// A packet of a [`SavedBatch`]; all in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedPacket {
    /// The descriptor.
    pub descriptor: String,
    /// What earlier plugins set; empty if it reads no marks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub marks: String,
    /// Its payload; empty if it reads none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
}

impl SavedBatch {
    pub(crate) fn new(loaded: &Loaded, batch: &TrapBatch, worker: usize, reason: &str) -> Self {
        let mut marks = batch.marks.chunks_exact(size_of::<Marks>());
        let mut payload = batch.payload.as_slice();
        let mut lengths = batch.payload_lengths.iter();
        let packets = batch.descriptors.iter().map(|descriptor| {
            let length = lengths.next().copied().unwrap_or(0);
            let (bytes, rest) = payload.split_at_checked(length).unwrap_or_default();
            payload = rest;
            SavedPacket {
                descriptor: hex(bytemuck::bytes_of(descriptor)),
                marks: marks.next().map(hex).unwrap_or_default(),
                payload: hex(bytes),
            }
        });
        let packets = packets.collect();
        let PluginSpec { path, hook, budget_us, memory_max_bytes, default, grants, names, .. } =
            &loaded.spec;
        Self {
            format: FORMAT,
            plugin: loaded.spec.name.clone(),
            generation: loaded.number,
            hook: hook_name(*hook).to_owned(),
            worker,
            reason: reason.to_owned(),
            sha256: hex(&loaded.module.sha256),
            path: path.clone(),
            config: String::from_utf8_lossy(&loaded.config).into_owned(),
            grants: grants.clone(),
            names: Names::clone(names),
            budget_us: *budget_us,
            memory_max_bytes: *memory_max_bytes,
            default: *default,
            now_ns: batch.now.0,
            packets,
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let saved: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if saved.format != FORMAT {
            return Err(format!("its form is number {}, this host reads {FORMAT}", saved.format));
        }
        Ok(saved)
    }
}

impl SavedPacket {
    /// The descriptor.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn descriptor(&self) -> Result<Descriptor, String> {
        let bytes = from_hex(&self.descriptor)?;
        bytemuck::try_pod_read_unaligned(&bytes)
            .map_err(|_| format!("a descriptor of {} bytes", bytes.len()))
    }

    pub(crate) fn marks(&self) -> Result<Vec<u8>, String> {
        from_hex(&self.marks)
    }

    pub(crate) fn payload(&self) -> Result<Vec<u8>, String> {
        from_hex(&self.payload)
    }
}

fn from_hex(text: &str) -> Result<Vec<u8>, String> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2));
    let digits = digits.ok_or_else(|| format!("`{text}` is not hexadecimal"))?;
    Ok(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low).collect())
}

/// Where batches are saved.
pub(crate) struct TrapDirectory {
    path: Option<PathBuf>,
    /// Files of each plugin's last generation.
    saved: BTreeMap<String, (u64, u32)>,
    /// It was said that the directory cannot be used.
    has_complained: bool,
}

impl TrapDirectory {
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        Self { path, saved: BTreeMap::new(), has_complained: false }
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.path.is_some()
    }

    /// Saves a batch with its module; its path if that was done.
    pub(crate) fn save(&mut self, batch: &SavedBatch, module: &CheckedModule) -> Option<PathBuf> {
        let path = self.path.clone()?;
        let saved = self.saved.entry(batch.plugin.clone()).or_default();
        if saved.0 != batch.generation {
            *saved = (batch.generation, 0);
        }
        if saved.1 >= SAVED_PER_GENERATION {
            return None;
        }
        saved.1 += 1;
        let name = format!("{}-{}-{}.json", batch.plugin, batch.generation, saved.1);
        match write(&path, &name, batch, module) {
            Ok(()) => Some(path.join(name)),
            Err(error) => {
                if !self.has_complained {
                    self.has_complained = true;
                    let path = path.display();
                    tracing::warn!(%path, %error, "batches that trap cannot be saved");
                }
                None
            }
        }
    }
}

fn write(
    path: &Path,
    name: &str,
    batch: &SavedBatch,
    module: &CheckedModule,
) -> std::io::Result<()> {
    let directory = PrivateDir::open(path)?;
    let wasm = format!("{}.wasm", batch.sha256);
    if !directory.path().join(&wasm).exists() {
        directory.write(&wasm, &[&module.bytes])?;
    }
    let text = serde_json::to_vec_pretty(batch)?;
    directory.write(name, &[&text])?;
    let batches = directory.list(".json");
    let too_many = batches.len().saturating_sub(SAVED_MAX);
    for old in batches.iter().take(too_many) {
        directory.remove(&old.name);
    }
    if too_many > 0 {
        let texts = batches.iter().skip(too_many).filter_map(|batch| {
            let bytes = directory.read(&batch.name, 8 << 20).ok()?;
            String::from_utf8(bytes).ok()
        });
        let kept: Vec<String> = texts.collect();
        for wasm in directory.list(".wasm") {
            let hash = wasm.name.trim_end_matches(".wasm");
            if !kept.iter().any(|text| text.contains(hash)) {
                directory.remove(&wasm.name);
            }
        }
    }
    Ok(())
}
