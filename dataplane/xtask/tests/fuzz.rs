//! Each target of `dataplane/fuzz` is listed where it has to be, and has inputs to begin with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    // At run time, because the build products may come from another clone.
    let package = std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this test");
    Path::new(&package).join("../..")
}

/// Names of what is in a folder of `dataplane/fuzz`, without their extensions; none if it is not there.
fn names(folder: &str) -> BTreeSet<String> {
    let folder = root().join("dataplane/fuzz").join(folder);
    let Ok(entries) = fs::read_dir(folder) else { return BTreeSet::new() };
    entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            path.file_stem().expect("a name").to_string_lossy().into_owned()
        })
        .collect()
}

#[test]
fn each_target_has_a_program_a_module_and_a_corpus() {
    let targets: BTreeSet<_> =
        xtask::fuzz::targets(&root()).expect("targets").into_iter().collect();
    assert!(targets.len() >= 10, "{targets:?}");
    let manifest =
        fs::read_to_string(root().join("dataplane/fuzz/Cargo.toml")).expect("the manifest");
    let library =
        fs::read_to_string(root().join("dataplane/fuzz/src/lib.rs")).expect("the library");
    for target in &targets {
        assert!(manifest.contains(&format!("name = \"{target}\"\n")), "no program {target}");
        assert!(library.contains(&format!("(\"{target}\", {target}::run)")), "no module {target}");
        assert!(names(&format!("corpus/{target}")).len() >= 8, "no corpus of {target}");
    }
    for folder in ["corpus", "crashes", "dictionaries"] {
        let strangers: Vec<_> = names(folder).difference(&targets).cloned().collect();
        assert!(strangers.is_empty(), "{folder} of no target: {strangers:?}");
    }
}

/// Small enough to be read by every test run and to weigh nothing in a clone.
#[test]
fn the_corpora_are_small() {
    let folder = root().join("dataplane/fuzz/corpus");
    let mut bytes = 0;
    for target in fs::read_dir(folder).expect("a corpus") {
        for input in fs::read_dir(target.expect("a target").path()).expect("inputs") {
            bytes += input.expect("an input").metadata().expect("its size").len();
        }
    }
    assert!(bytes < 600_000, "the corpora take {bytes} bytes: run `cargo fuzz cmin`");
}
