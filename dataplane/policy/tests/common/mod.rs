//! Hand-written modules, batches, and the plugins of this repository as the router would load them.
#![allow(dead_code, reason = "each test file uses its own part of this")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use frame::{Batch, Descriptor, Frame, Hook, HookPoint, Nanos, Verdict};
use policy::{HostOptions, PluginHost, PluginSpec, WorkerChain};
use tempfile::TempDir;

/// A module in text, of which each test changes what it is about. As it is, it is accepted and lets
/// every packet through.
#[derive(Clone)]
pub(crate) struct Wat {
    pub(crate) manifest: String,
    pub(crate) imports: String,
    pub(crate) memory: String,
    /// The fields of `sluice_abi::Layout` in order.
    pub(crate) layout: [u32; 12],
    pub(crate) version: String,
    pub(crate) layout_address: String,
    pub(crate) configure: String,
    pub(crate) process: String,
    pub(crate) more: String,
}

/// Where the layout lies.
pub(crate) const LAYOUT: u32 = 16;
/// Where the verdicts lie.
pub(crate) const VERDICTS: u32 = 32_768;
/// Where the configuration lies.
pub(crate) const CONFIG: u32 = 40_960;
/// Where the text of an error lies.
pub(crate) const ERROR: u32 = 49_152;
/// Where the counters lie.
pub(crate) const COUNTERS: u32 = 57_344;

impl Default for Wat {
    fn default() -> Self {
        Self {
            manifest: "abi = \"1.0\"\nname = \"wat\"\nhooks = [\"ingress\"]\n\
                       reasons = [\"first\", \"second\"]\ncounters = [\"one\", \"two\"]\n\
                       memory_max_bytes = 1048576\n"
                .to_owned(),
            imports: String::new(),
            memory: "(memory (export \"memory\") 1)".to_owned(),
            layout: [48, 256, 1024, 64, VERDICTS, 8, CONFIG, 4096, ERROR, 256, COUNTERS, 2],
            version: "i32.const 0x10000".to_owned(),
            layout_address: format!("i32.const {LAYOUT}"),
            configure: "i32.const 0".to_owned(),
            process: String::new(),
            more: String::new(),
        }
    }
}

impl Wat {
    pub(crate) fn text(&self) -> String {
        let escape = |bytes: &[u8]| bytes.iter().map(|b| format!("\\{b:02x}")).collect::<String>();
        let layout: Vec<u8> = self.layout.iter().flat_map(|field| field.to_le_bytes()).collect();
        format!(
            "(module (@custom \"sluice.manifest\" \"{}\") {}\n {}\n (data (i32.const {LAYOUT}) \"{}\")\n\
             (func (export \"sluice_abi_version\") (result i32) {})\n\
             (func (export \"sluice_layout\") (result i32) {})\n\
             (func (export \"sluice_configure\") (param i32) (result i32) {})\n\
             (func $process (export \"sluice_process\") (param $n i32) (param $now i64) {})\n {})",
            escape(self.manifest.as_bytes()),
            self.imports,
            self.memory,
            escape(&layout),
            self.version,
            self.layout_address,
            self.configure,
            self.process,
            self.more,
        )
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let text = self.text();
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// Writes the module to a file.
    pub(crate) fn write(&self, path: &Path) {
        std::fs::write(path, self.bytes()).expect("the module is written");
    }
}

/// A process that gives every packet one verdict, which is written as a word.
pub(crate) fn every(word: u64) -> String {
    format!(
        "(local $i i32)
         (block $end (loop $next
           (br_if $end (i32.ge_u (local.get $i) (local.get $n)))
           (i64.store (i32.add (i32.const {VERDICTS}) (i32.shl (local.get $i) (i32.const 3)))
             (i64.const {word}))
           (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br $next)))"
    )
}

/// A verdict as a word.
pub(crate) const fn word(action: u8, argument: u32) -> u64 {
    (argument as u64) << 32 | action as u64
}

/// A host with its workers and a directory for modules.
pub(crate) struct Rig {
    pub(crate) host: PluginHost,
    pub(crate) chains: Vec<WorkerChain>,
    pub(crate) directory: TempDir,
}

impl Rig {
    pub(crate) fn new(workers: usize) -> Self {
        let mut options = HostOptions::new(workers);
        options.load_budget_ms = 200;
        Self::with(options)
    }

    pub(crate) fn with(options: HostOptions) -> Self {
        let (host, chains) = PluginHost::new(options).expect("a host");
        Self { host, chains, directory: TempDir::new().expect("a directory") }
    }

    /// Writes a module and names it in a specification.
    pub(crate) fn spec(&self, name: &str, wat: &Wat) -> PluginSpec {
        let path = self.directory.path().join(format!("{name}.wasm"));
        wat.write(&path);
        PluginSpec::new(name, path, HookPoint::Ingress)
    }

    /// Prepares and publishes, and has each worker begin a turn.
    pub(crate) fn publish(&mut self, specs: &[PluginSpec]) {
        let set = self.host.prepare(specs).expect("the plugins are good");
        self.host.publish(set).expect("the workers have room");
        self.begin(Nanos(0));
    }

    pub(crate) fn begin(&mut self, now: Nanos) {
        for chain in &mut self.chains {
            chain.begin_turn(now);
        }
    }

    /// One turn of a worker with one batch of open packets: their verdicts.
    pub(crate) fn turn(&mut self, worker: usize, batch: &mut Batch, now: Nanos) -> Vec<Verdict> {
        let n = batch.len();
        batch.verdicts[..n].fill(Verdict::Continue);
        self.chains[worker].begin_turn(now);
        if self.chains[worker].is_active(HookPoint::Ingress) {
            self.chains[worker].run(HookPoint::Ingress, batch, now);
        }
        batch.verdicts[..n].to_vec()
    }
}

/// A batch of frames without content and with these descriptors.
pub(crate) fn batch(descriptors: &[Descriptor]) -> Batch {
    let mut batch = Batch::new();
    for (index, descriptor) in descriptors.iter().enumerate() {
        let frame = Frame::new(Box::leak(Box::new([0; frame::CHUNK_BYTES])), 0);
        assert!(batch.push(frame).is_ok(), "a batch holds 256 frames");
        batch.descriptors[index] = *descriptor;
    }
    batch
}

/// `n` descriptors that differ in their source port, which counts from 0.
pub(crate) fn numbered(n: usize) -> Vec<Descriptor> {
    (0..n).map(|n| Descriptor { source_port: n as u16, ..Descriptor::default() }).collect()
}

/// The module of one of this repository's plugins, built once; `None`, with a visible line, without
/// the target.
pub(crate) fn plugin(name: &str) -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let target = "wasm32-unknown-unknown";
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let libraries =
            Command::new("rustc").args(["--print", "target-libdir", "--target", target]).output();
        let libraries = libraries.expect("rustc runs").stdout;
        let libraries = String::from_utf8(libraries).expect("a path");
        if !Path::new(libraries.trim()).exists() {
            eprintln!("SKIPPED: the tests of the plugins' modules: `rustup target add {target}`");
            return None;
        }
        let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugins");
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--target", target, "--profile", "plugin"])
            .args(["-p", "filter", "-p", "rate-limit", "-p", "hop-distance", "-p", "syn-guard"])
            .arg("--target-dir")
            .arg(&built)
            .current_dir(root)
            .status();
        assert!(status.expect("cargo runs").success(), "the plugins do not build");
        Some(built.join(target).join("plugin"))
    });
    directory.as_ref().map(|directory| directory.join(format!("{name}.wasm")))
}
