//! Any bytes as what a plugin says of itself: manifest, module, layout.
//!
//! ```text
//!  first byte modulo 4:  0  a manifest        1  a module, in a file
//!                        2  the manifest of a sound module
//!                        3  address u32 | counters u16 | memory that holds a layout
//! ```

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use frame::HookPoint;
use policy::{HostOptions, LayoutNeeds, Manifest, PluginHost, PluginSpec, check_layout};
use tempfile::TempDir;

use crate::cursor::Cursor;
use crate::guest;

/// The target.
pub fn run(bytes: &[u8]) {
    let mut input = Cursor::new(bytes);
    match input.u8() % 4 {
        0 => _ = manifest(input.rest()),
        1 => _ = load(input.rest()),
        2 => {
            static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| guest::module(64, 8, None));
            let text = input.rest();
            let is_loaded = load(&guest::with_manifest(SOUND.clone(), text));
            let manifest = manifest(text);
            assert!(!is_loaded || manifest.is_some(), "loaded in spite of its manifest");
        }
        _ => layout(&mut input),
    }
}

fn manifest(bytes: &[u8]) -> Option<Manifest> {
    match Manifest::parse(bytes) {
        Ok(manifest) => {
            let names = manifest.counter_names();
            assert!(names.len() <= 4096 && manifest.reasons.len() <= 64);
            assert!(names.iter().chain(&manifest.reasons).all(|name| !name.is_empty()));
            assert!(
                manifest.hooks.iter().all(|hook| manifest.has_hook(hook))
                    && !manifest.hooks.is_empty()
            );
            Some(manifest)
        }
        Err(fault) => {
            assert!(!fault.to_string().is_empty());
            None
        }
    }
}

struct Loader {
    host: PluginHost,
    path: PathBuf,
    _directory: TempDir,
}

/// Loads a module, and says whether that went well.
fn load(module: &[u8]) -> bool {
    static LOADER: LazyLock<Mutex<Loader>> = LazyLock::new(|| {
        let options = HostOptions { load_budget_ms: 50, ..HostOptions::new(1) };
        let (host, _) = PluginHost::new(options).expect("a host");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("plugin.wasm");
        Mutex::new(Loader { host, path, _directory: directory })
    });
    let mut loader = LOADER.lock().unwrap_or_else(PoisonError::into_inner);
    let Loader { host, path, .. } = &mut *loader;
    std::fs::write(&*path, module).expect("a file");
    let mut spec = PluginSpec::new("plugin", path.clone(), HookPoint::Ingress);
    spec.memory_max_bytes = Some(16 << 20);
    spec.grants = ["log", "meter", "random", "quota", "table", "payload"].map(str::to_owned).into();
    let prepared = host.prepare(&[spec]);
    if let Err(error) = &prepared {
        assert!(!error.to_string().is_empty());
    }
    host.maintain();
    prepared.is_ok()
}

fn layout(input: &mut Cursor<'_>) {
    let (address, counters) = (input.u32(), usize::from(input.u16()));
    let needs = LayoutNeeds {
        counters,
        edits: input.u8().is_multiple_of(2),
        payload_bytes: usize::from(input.u8()),
        state_bytes: usize::from(input.u8()),
    };
    let mut memory = input.rest().to_vec();
    // Large enough for the areas of a sound layout, and where the input ends is of interest too.
    for len in [memory.len(), 1 << 16] {
        memory.resize(len, 0);
        match check_layout(&memory, address, needs) {
            Ok(areas) => {
                assert_eq!(areas[4].len(), counters * 8);
                for (position, area) in areas.iter().enumerate() {
                    assert!(area.start <= area.end && area.end <= memory.len());
                    assert_eq!(area.start % 8, 0);
                    for other in areas.iter().skip(position + 1) {
                        let is_apart = area.end <= other.start || other.end <= area.start;
                        assert!(is_apart || area.is_empty() || other.is_empty(), "{areas:?}");
                    }
                }
                assert!(areas[0].len() >= 256 * 64 && areas[1].len() >= 256 * 8);
            }
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    }
}
