//! Compiled modules on disk: used only where nobody else can have written them.

mod common;

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use common::{Rig, Wat, batch, every, numbered, word};
use frame::{DropReason, Nanos, Verdict};
use policy::{CompiledStatus, HostOptions};
use tempfile::TempDir;

/// Does something to a file.
type Tamper = Box<dyn Fn(&Path)>;

const DROPPED: Verdict = Verdict::Drop(DropReason::Plugin);

fn options(directory: &Path) -> HostOptions {
    let mut options = HostOptions::new(1);
    options.compiled_dir = Some(directory.to_owned());
    options
}

fn drops() -> Wat {
    Wat { process: every(word(1, 0)), ..Wat::default() }
}

/// A start of a router with one plugin, which must drop whatever stood on disk.
fn start(directory: &Path) -> CompiledStatus {
    let mut rig = Rig::with(options(directory));
    let spec = rig.spec("p", &drops());
    rig.publish(&[spec]);
    assert_eq!(rig.turn(0, &mut batch(&numbered(1)), Nanos(1)), [DROPPED]);
    rig.host.compiled()
}

fn counts(loaded: u64, missed: u64, refused: u64, written: u64) -> CompiledStatus {
    CompiledStatus { loaded, missed, refused, written }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory)
        .expect("a directory")
        .map(|file| file.expect("a file").path())
        .collect();
    files.sort();
    files
}

/// A directory that a start filled, and its one file.
fn filled() -> (TempDir, PathBuf, PathBuf) {
    let home = TempDir::new().expect("a directory");
    let directory = home.path().join("a/compiled");
    assert_eq!(start(&directory), counts(0, 1, 0, 1));
    let [file] = &files(&directory)[..] else { panic!("one file") };
    let file = file.clone();
    (home, directory, file)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn a_second_start_compiles_nothing() {
    let (_home, directory, file) = filled();
    assert_eq!((mode(&directory), mode(&file)), (0o700, 0o600));
    assert_eq!(start(&directory), counts(1, 0, 0, 0));
}

#[test]
fn whatever_is_odd_is_refused_removed_and_compiled_again() {
    let flip = |at: fn(usize) -> usize| {
        move |file: &Path| {
            let mut bytes = fs::read(file).expect("a file");
            let at = at(bytes.len());
            bytes[at] ^= 1;
            fs::write(file, bytes).expect("a file");
        }
    };
    let cases: [(&str, Tamper); 10] = [
        ("its first byte", Box::new(flip(|_| 0))),
        ("the engine's hash", Box::new(flip(|_| 16))),
        ("the module's hash", Box::new(flip(|_| 48))),
        ("its checksum", Box::new(flip(|_| 80))),
        ("its last byte", Box::new(flip(|len| len - 1))),
        (
            "cut short",
            Box::new(|file| {
                let bytes = fs::read(file).expect("a file");
                fs::write(file, &bytes[..bytes.len() / 2]).expect("a file");
            }),
        ),
        ("empty", Box::new(|file| fs::write(file, "").expect("a file"))),
        (
            "open to others",
            Box::new(|file| {
                fs::set_permissions(file, Permissions::from_mode(0o644)).expect("its mode");
            }),
        ),
        (
            "a link",
            Box::new(|file| {
                let elsewhere = file.with_extension("elsewhere");
                fs::rename(file, &elsewhere).expect("a name");
                symlink(&elsewhere, file).expect("a link");
            }),
        ),
        (
            "with two names",
            Box::new(|file| {
                fs::hard_link(file, file.with_extension("second")).expect("a link");
            }),
        ),
    ];
    for (what, tamper) in cases {
        let (_home, directory, file) = filled();
        tamper(&file);
        assert_eq!(start(&directory), counts(0, 0, 1, 1), "{what}");
        assert_eq!(start(&directory), counts(1, 0, 0, 0), "{what}: written anew");
    }
}

#[test]
fn a_file_for_another_module_is_not_taken_under_this_ones_name() {
    let (_home, directory, file) = filled();
    let mut rig = Rig::with(options(&directory));
    let spec = rig.spec("other", &Wat::default());
    rig.publish(&[spec]);
    drop(rig);
    let other = files(&directory).into_iter().find(|path| *path != file).expect("a second file");
    fs::copy(other, &file).expect("a copy");
    assert_eq!(start(&directory), counts(0, 0, 1, 1));
}

#[test]
fn a_directory_that_is_not_ours_alone_is_left_alone() {
    let (_home, directory, file) = filled();
    for other in [0o755, 0o770, 0o500, 0o1700] {
        fs::set_permissions(&directory, Permissions::from_mode(other)).expect("its mode");
        assert_eq!(start(&directory), counts(0, 0, 1, 0), "{other:o}");
    }
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).expect("its mode");
    assert_eq!(start(&directory), counts(1, 0, 0, 0));
    // Neither is one that a link leads to, nor what is no directory.
    let link = directory.with_file_name("link");
    symlink(&directory, &link).expect("a link");
    assert_eq!(start(&link), counts(0, 0, 1, 0));
    assert_eq!(start(&file), counts(0, 0, 1, 0));
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(&directory, Some(1), None).expect("another owner");
        assert_eq!(start(&directory), counts(0, 0, 1, 0));
        std::os::unix::fs::chown(&directory, Some(0), None).expect("the owner");
        std::os::unix::fs::chown(&file, Some(1), None).expect("another owner");
        assert_eq!(start(&directory), counts(0, 0, 1, 1));
    }
}

#[test]
fn the_oldest_make_room_and_what_is_larger_than_all_is_not_kept() {
    let (_home, directory, file) = filled();
    let bytes = fs::metadata(&file).expect("a file").len();
    let mut options = options(&directory);
    options.compiled_bytes_max = bytes * 5 / 2;
    let mut rig = Rig::with(options.clone());
    for number in 1..=4 {
        let mut wat = drops();
        wat.more = format!("(global i32 (i32.const {number}))");
        let spec = rig.spec("p", &wat);
        rig.publish(&[spec]);
        let kept = files(&directory);
        assert!(kept.len() <= 2 && (number < 2 || !kept.contains(&file)), "{number}: {kept:?}");
    }
    drop(rig);
    for none in [bytes / 2, 0] {
        options.compiled_bytes_max = none;
        let mut rig = Rig::with(options.clone());
        let mut wat = drops();
        wat.more = "(global i32 (i32.const 99))".to_owned();
        let spec = rig.spec("p", &wat);
        rig.publish(&[spec]);
        assert_eq!(rig.host.compiled().written, 0);
    }
}

#[test]
fn a_pin_is_checked_before_the_disk_is_asked() {
    let (_home, directory, _) = filled();
    let mut rig = Rig::with(options(&directory));
    let mut spec = rig.spec("p", &drops());
    spec.sha256 = Some([7; 32]);
    assert!(rig.host.prepare(&[spec]).is_err());
    assert_eq!(rig.host.compiled(), CompiledStatus::default());
}
