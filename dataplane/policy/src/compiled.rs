//! [`CompiledModules`]: compiled modules on disk, so that a start or a way back compiles nothing.
//!
//! ```text
//!   ENGINE-SHA256.cwasm:  "sluice-module-1\n" | engine | module's SHA-256 | SHA-256 of the rest | code
//! ```
//!
//! *Engine* is a hash of all that code depends on: wasmtime's version, its settings, and the processor's
//! features. Code that is loaded is run, so a file is only taken if nobody but this process's user can have
//! written it ([`PrivateDir`]), if it says that it is for this engine and module, and if its checksum holds.
//! Anything else is counted and logged, removed, and the module is compiled.
//!
//! The checksum finds damage, not forgery: who can write as this user can replace the router as well.

use std::{
    hash::{Hash as _, Hasher},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wasmtime::{Engine, Module};

use crate::{
    module::{hex, sha256},
    private_dir::PrivateDir,
};

const MAGIC: &[u8; 16] = b"sluice-module-1\n";
const HASH_BYTES: usize = 32;
const HEAD_BYTES: usize = MAGIC.len() + 3 * HASH_BYTES;
/// The largest file that is read, in bytes: code is some ten times as large as its module.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Compiled modules on disk.
pub(crate) struct CompiledModules {
    path: Option<PathBuf>,
    bytes_max: u64,
    engine: [u8; HASH_BYTES],
    loaded: AtomicU64,
    missed: AtomicU64,
    refused: AtomicU64,
    written: AtomicU64,
}

/// How the compiled modules on disk fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CompiledStatus {
    /// Modules that needed no compiling, because they were there.
    pub loaded: u64,
    /// Modules that were not there.
    pub missed: u64,
    /// Files, or the directory, that could not be trusted.
    pub refused: u64,
    /// Modules that were written.
    pub written: u64,
}

/// Feeds what is hashed to SHA-256.
struct Digest(Sha256);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0
    }
}

impl CompiledModules {
    /// The modules of `path` for an engine; without a path, or room, there are none.
    pub(crate) fn new(engine: &Engine, path: Option<PathBuf>, bytes_max: u64) -> Self {
        let mut digest = Digest(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut digest);
        Self {
            path: path.filter(|_| bytes_max > 0),
            bytes_max,
            engine: digest.0.finalize().into(),
            loaded: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    pub(crate) fn status(&self) -> CompiledStatus {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        CompiledStatus {
            loaded: get(&self.loaded),
            missed: get(&self.missed),
            refused: get(&self.refused),
            written: get(&self.written),
        }
    }

    fn name(&self, module: &[u8; HASH_BYTES]) -> String {
        let engine = hex(&self.engine);
        format!("{}-{}.cwasm", engine.get(..16).unwrap_or_default(), hex(module))
    }

    fn refuse(&self, name: &str, why: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let path = self.path.clone().unwrap_or_default().join(name);
        tracing::warn!(path = %path.display(), why, "a compiled module is not used");
    }

    /// The compiled module with this hash, if it is there and can be trusted.
    pub(crate) fn load(&self, engine: &Engine, module: &[u8; HASH_BYTES]) -> Option<Module> {
        let path = self.path.as_deref()?;
        let directory = match PrivateDir::open(path) {
            Ok(directory) => directory,
            Err(error) => {
                self.refuse("", &error.to_string());
                return None;
            }
        };
        let name = self.name(module);
        let size = usize::try_from(FILE_BYTES_MAX.min(self.bytes_max)).unwrap_or(usize::MAX);
        let bytes = match directory.read(&name, size) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.missed.fetch_add(1, Ordering::Relaxed);
                return None;
            }
            Err(error) => {
                self.refuse(&name, &error.to_string());
                directory.remove(&name);
                return None;
            }
        };
        let found = self.code(&bytes, module).and_then(|code| deserialize(engine, code));
        match found {
            Ok(module) => {
                self.loaded.fetch_add(1, Ordering::Relaxed);
                Some(module)
            }
            Err(why) => {
                self.refuse(&name, &why);
                directory.remove(&name);
                None
            }
        }
    }

    /// The code in a file, if the file is what it should be.
    fn code<'b>(&self, bytes: &'b [u8], module: &[u8; HASH_BYTES]) -> Result<&'b [u8], String> {
        let (head, code) =
            bytes.split_at_checked(HEAD_BYTES).ok_or_else(|| "it is too short".to_owned())?;
        let (magic, hashes) = head.split_at(MAGIC.len());
        let (hashes, _) = hashes.as_chunks::<HASH_BYTES>();
        let [engine, of, checksum] = hashes else { return Err("it is too short".to_owned()) };
        if magic != MAGIC {
            return Err("it is no compiled module of this router's".to_owned());
        }
        if *engine != self.engine || of != module {
            return Err("it is for another engine or module".to_owned());
        }
        if sha256(code) != *checksum {
            return Err("its checksum does not hold".to_owned());
        }
        Ok(code)
    }

    /// Writes a compiled module, and removes the oldest ones beyond the bound. What cannot be written is
    /// compiled again at the next start.
    pub(crate) fn store(&self, module: &[u8; HASH_BYTES], compiled: &Module) {
        let Some(path) = self.path.as_deref() else { return };
        let write = || -> Result<bool, String> {
            let code = compiled.serialize().map_err(|error| format!("{error:#}"))?;
            if (HEAD_BYTES + code.len()) as u64 > self.bytes_max.min(FILE_BYTES_MAX) {
                return Ok(false);
            }
            let directory = PrivateDir::open(path).map_err(|error| error.to_string())?;
            let checksum = sha256(&code);
            let parts: [&[u8]; 5] = [MAGIC, &self.engine, module, &checksum, &code];
            let name = self.name(module);
            directory.write(&name, &parts).map_err(|error| error.to_string())?;
            let files = directory.list(".cwasm");
            let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
            for old in files.iter().filter(|file| file.name != name) {
                if bytes <= self.bytes_max {
                    break;
                }
                directory.remove(&old.name);
                bytes = bytes.saturating_sub(old.bytes);
            }
            Ok(true)
        };
        match write() {
            Ok(is_written) => {
                self.written.fetch_add(u64::from(is_written), Ordering::Relaxed);
            }
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, error, "a compiled module cannot be kept");
            }
        }
    }
}

#[expect(unsafe_code, reason = "the only way from compiled code on disk to a module")]
fn deserialize(engine: &Engine, code: &[u8]) -> Result<Module, String> {
    // SAFETY: `deserialize` wants bytes that `Module::serialize` gave. They are: they were read from a
    // directory with mode 0700 and a file with mode 0600 that belong to this process's user, were written
    // there by `store` for this engine and module as the head says, and are undamaged by their checksum.
    // The bytes are copied; nobody changes them while they are read.
    unsafe { Module::deserialize(engine, code) }.map_err(|error| format!("{error:#}"))
}
