//! From a file to a compiled module whose every import and export is known to fit.

use std::{
    fmt::Write as _, fs::File, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::Path,
    sync::Arc,
};

use nix::fcntl::OFlag;
use sha2::{Digest as _, Sha256};
use sluice_abi::{IMPORT_MODULE, MANIFEST_SECTION};
use sluice_manifest::CAPABILITIES;
use wasmtime::{
    Engine, ExternType, InstancePre, Linker, Module, ValType,
    wasmparser::{BinaryReaderError, Encoding, Parser, Payload},
};

use crate::{
    Action, Manifest, PayloadWindow, PluginFault, PluginSpec,
    foreign_text::{printable_lines, printable_name},
    imports::{HostState, capability},
    manifest::hook_name,
};

/// The largest module that is read, in bytes. Compiling takes about half a second a megabyte.
pub(crate) const MODULE_BYTES_MAX: usize = 8 << 20;
/// The largest configuration file that is read, in bytes.
pub(crate) const CONFIG_BYTES_MAX: usize = 4 << 20;
/// The most memory of an instance when nobody sets a limit, in bytes.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// The most elements of a table: Rust's plugins have one, of as many elements as there are
/// functions called by pointer.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 65_536;
pub(crate) const TABLES_MAX: u32 = 4;

/// Reads a regular file of at most `bytes_max` bytes. Others are refused: a pipe would hold up the thread that all
/// plugins are loaded by until somebody writes into it.
pub(crate) fn read_file(path: &Path, bytes_max: usize) -> Result<Vec<u8>, PluginFault> {
    let fault = |error| PluginFault::Read { path: path.to_owned(), error };
    let mut bytes = Vec::new();
    // To open a pipe that nobody writes into would wait, too.
    let flags = OFlag::O_NONBLOCK.bits();
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(fault)?;
    let data = file.metadata().map_err(fault)?;
    // To read a folder fails by itself.
    if !(data.is_file() || data.is_dir()) {
        return Err(PluginFault::NoFile { path: path.to_owned() });
    }
    file.take(bytes_max as u64 + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() > bytes_max {
        return Err(PluginFault::FileTooLarge { path: path.to_owned(), bytes_max });
    }
    Ok(bytes)
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A module that passed all checks that need no instance.
#[derive(Clone)]
pub(crate) struct CheckedModule {
    pub(crate) sha256: [u8; 32],
    /// The file, to be saved beside batches that trapped.
    pub(crate) bytes: Arc<[u8]>,
    pub(crate) manifest: Manifest,
    pub(crate) pre: InstancePre<HostState>,
    pub(crate) memory_max_bytes: usize,
}

/// What an operator grants to a plugin that wants to see payload.
pub(crate) const PAYLOAD_GRANT: &str = "payload";

/// What is known of a module before it is compiled: hash and manifest, both as `spec` wants them.
pub(crate) fn inspect(
    bytes: &[u8],
    spec: &PluginSpec,
) -> Result<([u8; 32], Manifest, usize), PluginFault> {
    let found = sha256(bytes);
    if let Some(pinned) = spec.sha256
        && pinned != found
    {
        return Err(PluginFault::Pin { found: hex(&found), pinned: hex(&pinned) });
    }
    if let Some(unknown) = spec.grants.iter().find(|grant| !can_be_granted(grant)) {
        return Err(PluginFault::GrantUnknown(unknown.clone()));
    }
    let manifest = Manifest::parse(manifest_section(bytes)?)?;
    if !manifest.has_hook(hook_name(spec.hook)) {
        return Err(PluginFault::Hook(spec.hook));
    }
    check_grants(&manifest, spec)?;
    let limit = spec.memory_max_bytes.unwrap_or(MEMORY_BYTES_MAX);
    if manifest.memory_max_bytes > limit {
        return Err(PluginFault::MemoryAsked { asked: manifest.memory_max_bytes, limit });
    }
    let memory_max_bytes = manifest.memory_max_bytes;
    Ok((found, manifest, memory_max_bytes))
}

fn can_be_granted(name: &str) -> bool {
    name == PAYLOAD_GRANT
        || CAPABILITIES.contains(&name)
        || Action::ALL.iter().any(|action| action.name() == name)
}

/// Whether the operator grants what the manifest declares and no import shows.
fn check_grants(manifest: &Manifest, spec: &PluginSpec) -> Result<(), PluginFault> {
    let is_granted = |name: &str| spec.grants.iter().any(|granted| granted == name);
    if let Some(action) = manifest.actions.iter().find(|action| !is_granted(action.name())) {
        return Err(PluginFault::ActionUngranted(*action));
    }
    if manifest.payload.is_some_and(|window| !window.optional) && !is_granted(PAYLOAD_GRANT) {
        return Err(PluginFault::PayloadUngranted);
    }
    Ok(())
}

/// The part of packets that a plugin is shown under this entry of the configuration.
pub(crate) fn window(manifest: &Manifest, spec: &PluginSpec) -> Option<PayloadWindow> {
    manifest.payload.filter(|_| spec.grants.iter().any(|granted| granted == PAYLOAD_GRANT))
}

/// The manifest of a module that nobody has configured yet.
pub(crate) fn manifest_of(bytes: &[u8]) -> Result<Manifest, PluginFault> {
    Ok(Manifest::parse(manifest_section(bytes)?)?)
}

/// The fault that the parser found: its text may quote the module.
pub(crate) fn not_wasm(error: BinaryReaderError) -> PluginFault {
    PluginFault::NotWasm(printable_lines(error.to_string().as_bytes()))
}

pub(crate) fn manifest_section(bytes: &[u8]) -> Result<&[u8], PluginFault> {
    let mut manifest = None;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_wasm)? {
            Payload::Version { encoding: Encoding::Component, .. } => {
                return Err(PluginFault::NotWasm(
                    "it is a component, and plugins are core modules".to_owned(),
                ));
            }
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                let earlier = manifest.replace(section.data());
                if earlier.is_some() {
                    return Err(PluginFault::ManifestTwice);
                }
            }
            _ => {}
        }
    }
    manifest.ok_or(PluginFault::ManifestMissing)
}

impl CheckedModule {
    /// Compiles and checks what [`inspect`] let pass.
    pub(crate) fn compile(
        engine: &Engine,
        linker: &Linker<HostState>,
        bytes: &[u8],
        inspected: ([u8; 32], Manifest, usize),
        spec: &PluginSpec,
    ) -> Result<Self, PluginFault> {
        let module = Module::from_binary(engine, bytes).map_err(|error| {
            PluginFault::Compile(printable_lines(format!("{error:#}").as_bytes()))
        })?;
        Self::check(module, linker, bytes, inspected, spec)
    }

    /// Checks a compiled module that [`inspect`] let pass.
    pub(crate) fn check(
        module: Module,
        linker: &Linker<HostState>,
        bytes: &[u8],
        (sha256, manifest, memory_max_bytes): ([u8; 32], Manifest, usize),
        spec: &PluginSpec,
    ) -> Result<Self, PluginFault> {
        check_imports(&module, &manifest, spec)?;
        check_exports(&module, &manifest)?;
        check_sizes(&module, memory_max_bytes)?;
        let pre = linker.instantiate_pre(&module).map_err(|error| {
            PluginFault::ImportType(printable_lines(format!("{error:#}").as_bytes()))
        })?;
        Ok(Self { sha256, bytes: bytes.into(), manifest, pre, memory_max_bytes })
    }

    /// Checks a module that is compiled already against another configuration entry.
    pub(crate) fn recheck(&self, spec: &PluginSpec) -> Result<(), PluginFault> {
        check_grants(&self.manifest, spec)?;
        check_imports(self.pre.module(), &self.manifest, spec)
    }
}

fn check_imports(
    module: &Module,
    manifest: &Manifest,
    spec: &PluginSpec,
) -> Result<(), PluginFault> {
    for import in module.imports() {
        let name = import.name().to_owned();
        if import.module() != IMPORT_MODULE {
            let module = printable_name(import.module());
            return Err(PluginFault::ImportForeign { module, name: printable_name(&name) });
        }
        let Some(capability) = capability(&name) else {
            return Err(PluginFault::ImportUnknown(printable_name(&name)));
        };
        if !manifest.imports.iter().any(|declared| declared == capability) {
            return Err(PluginFault::ImportUndeclared { name, capability });
        }
        if !spec.grants.iter().any(|granted| granted == capability) {
            return Err(PluginFault::ImportUngranted { name, capability });
        }
    }
    Ok(())
}

fn check_exports(module: &Module, manifest: &Manifest) -> Result<(), PluginFault> {
    match module.get_export("memory") {
        None => return Err(PluginFault::ExportMissing("memory")),
        Some(ExternType::Memory(memory)) if !memory.is_shared() && !memory.is_64() => {}
        Some(_) => {
            let expected = "a memory of 32-bit addresses that is not shared";
            return Err(PluginFault::ExportType { name: "memory", expected });
        }
    }
    check_function(module, "sluice_abi_version", "a function () -> i32", "", "i")?;
    check_function(module, "sluice_layout", "a function () -> i32", "", "i")?;
    check_function(module, "sluice_configure", "a function (i32) -> i32", "i", "i")?;
    check_function(module, "sluice_process", "a function (i32, i64) -> ()", "iI", "")?;
    if manifest.tick_ms.is_some() {
        check_function(module, "sluice_tick", "a function (i64) -> ()", "I", "")?;
    }
    if manifest.state.is_some() {
        check_function(module, "sluice_export", "a function () -> i32", "", "i")?;
        check_function(module, "sluice_import", "a function (i32, i32) -> i32", "ii", "i")?;
    }
    Ok(())
}

/// Checks the type of an exported function: `i` stands for i32 and `I` for i64.
fn check_function(
    module: &Module,
    name: &'static str,
    expected: &'static str,
    parameters: &str,
    results: &str,
) -> Result<(), PluginFault> {
    let letters = |types: &mut dyn Iterator<Item = ValType>| -> String {
        types
            .map(|kind| match kind {
                ValType::I32 => 'i',
                ValType::I64 => 'I',
                _ => '?',
            })
            .collect()
    };
    match module.get_export(name) {
        None => Err(PluginFault::ExportMissing(name)),
        Some(ExternType::Func(function))
            if letters(&mut function.params()) == parameters
                && letters(&mut function.results()) == results =>
        {
            Ok(())
        }
        Some(_) => Err(PluginFault::ExportType { name, expected }),
    }
}

fn check_sizes(module: &Module, memory_max_bytes: usize) -> Result<(), PluginFault> {
    let needs = module.resources_required();
    if needs.num_memories != 1 {
        return Err(PluginFault::Memories(needs.num_memories));
    }
    let initial = needs.max_initial_memory_size.unwrap_or(0).saturating_mul(65_536);
    if initial > memory_max_bytes as u64 {
        return Err(PluginFault::MemoryInitial { initial, limit: memory_max_bytes });
    }
    if needs.num_tables > TABLES_MAX {
        return Err(PluginFault::Tables { tables: needs.num_tables, limit: TABLES_MAX });
    }
    let elements = needs.max_initial_table_size.unwrap_or(0);
    if elements > TABLE_ELEMENTS_MAX as u64 {
        let limit = TABLE_ELEMENTS_MAX;
        return Err(PluginFault::TableInitial { initial: elements, limit });
    }
    Ok(())
}
