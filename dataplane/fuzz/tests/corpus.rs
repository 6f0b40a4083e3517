//! Every input that fuzzing found worth keeping, and every one that once broke something, on an ordinary
//! compiler. An input that breaks its target is the last one that the test prints.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fuzz::TARGETS;

/// Inputs of a folder, in an order that is the same everywhere. A folder that is not there has none.
fn inputs(folder: &str, target: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target);
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn run(target: &str) {
    let (_, function) = TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let corpus = inputs("corpus", target);
    assert!(corpus.len() >= 8, "{target} has {} inputs", corpus.len());
    for path in corpus.iter().chain(&inputs("crashes", target)) {
        println!("{}", path.display());
        function(&fs::read(path).expect("an input"));
    }
    for edge in [&[][..], &[0; 64], &[0xff; 64], &[0; 4096]] {
        println!("{} bytes {:?}", edge.len(), edge.first());
        function(edge);
    }
}

/// A test for each target, so that they are named and run side by side.
macro_rules! tests {
    ($($target:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($target)),*];
        $(
            #[test]
            fn $target() {
                run(stringify!($target));
            }
        )*
    };
}

tests! {
    configuration control_socket edits embedding filter fragments pcap plugin tunnels turn verdicts views
}

#[test]
fn every_target_is_tested_and_has_a_program() {
    let listed: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(listed, TESTED.iter().map(|name| (*name).to_owned()).collect());
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    assert_eq!(listed, inputs("fuzz_targets", "").into_iter().map(stem).collect());
}
