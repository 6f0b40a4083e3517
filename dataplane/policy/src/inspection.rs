//! [`inspect_module`]: what a module says of itself, without an operator's word and without compiling it.

use serde::Serialize;
use wasmtime::wasmparser::{ExternalKind, Parser, Payload, TypeRef};

use crate::{
    Manifest, PluginFault,
    foreign_text::printable_name,
    module::{PAYLOAD_GRANT, hex, manifest_section, not_wasm, sha256},
};

/// What is in a module's file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleReport {
    /// Its SHA-256 in hexadecimal, to be pinned.
    pub sha256: String,
    /// Its size in bytes.
    pub bytes: usize,
    /// Bytes of its code.
    pub code_bytes: usize,
    /// Bytes of memory that it starts with.
    pub memory_bytes: u64,
    /// The most bytes of memory that it asks for.
    pub memory_max_bytes: usize,
    /// Its own name.
    pub name: String,
    /// The version of the ABI that it is made for.
    pub abi: String,
    /// The hooks that it can be used at.
    pub hooks: Vec<String>,
    /// What an operator has to grant.
    pub grants: Vec<String>,
    /// Names of the tables that an operator has to give it.
    pub tables: Vec<String>,
    /// Its reasons for drops.
    pub reasons: Vec<String>,
    /// Its counters.
    pub counters: usize,
    /// What it imports: `module.name`.
    pub imports: Vec<String>,
    /// What it exports, with the kind.
    pub exports: Vec<String>,
}

/// Tells what is in a module's file.
///
/// # Errors
/// [`PluginFault::NotWasm`], and those of the manifest. What else may be wrong with it, loading tells.
pub fn inspect_module(bytes: &[u8]) -> Result<ModuleReport, PluginFault> {
    let manifest = Manifest::parse(manifest_section(bytes)?)?;
    let mut grants = manifest.imports.clone();
    grants.extend(manifest.actions.iter().map(|action| action.name().to_owned()));
    grants.extend(manifest.payload.map(|_| PAYLOAD_GRANT.to_owned()));
    let mut report = ModuleReport {
        sha256: hex(&sha256(bytes)),
        bytes: bytes.len(),
        code_bytes: 0,
        memory_bytes: 0,
        memory_max_bytes: manifest.memory_max_bytes,
        counters: manifest.counter_names().len(),
        name: manifest.name,
        abi: manifest.abi,
        hooks: manifest.hooks,
        grants,
        tables: manifest.tables,
        reasons: manifest.reasons,
        imports: Vec::new(),
        exports: Vec::new(),
    };
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(not_wasm)? {
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(not_wasm)?;
                    let kind = match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => "",
                        TypeRef::Memory(_) => " (memory)",
                        TypeRef::Table(_) => " (table)",
                        TypeRef::Global(_) => " (global)",
                        TypeRef::Tag(_) => " (tag)",
                    };
                    let [module, name] = [import.module, import.name].map(printable_name);
                    report.imports.push(format!("{module}.{name}{kind}"));
                }
            }
            Payload::MemorySection(section) => {
                for memory in section {
                    let pages = memory.map_err(not_wasm)?.initial;
                    let bytes = pages.saturating_mul(65_536);
                    report.memory_bytes = report.memory_bytes.saturating_add(bytes);
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(not_wasm)?;
                    let kind = match export.kind {
                        ExternalKind::Func | ExternalKind::FuncExact => "function",
                        ExternalKind::Memory => "memory",
                        ExternalKind::Table => "table",
                        ExternalKind::Global => "global",
                        ExternalKind::Tag => "tag",
                    };
                    report.exports.push(format!("{} ({kind})", printable_name(export.name)));
                }
            }
            Payload::CodeSectionStart { size, .. } => {
                report.code_bytes = usize::try_from(size).unwrap_or(usize::MAX);
            }
            _ => {}
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_module_cannot_steer_a_terminal_or_begin_a_line() {
        let text = r#"(module
            (@custom "sluice.manifest" "abi = \221.0\22\0aname = \22x\22\0ahooks = [\22ingress\22]\0a")
            (import "sluice" "a\1b[2J" (func))
            (memory (export "memory\0aname      trusted") 1))"#;
        let report = inspect_module(&wat::parse_str(text).expect("a module")).expect("a report");
        assert_eq!(report.imports, ["sluice.a\u{fffd}[2J"]);
        assert_eq!(report.exports, ["memory\u{fffd}name      trusted (memory)"]);
    }
}
