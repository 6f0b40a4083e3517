//! What is shown of a plugin whose files were refused, and for how long.

mod common;

use std::{collections::BTreeMap, fs, path::Path};

use common::{Rig, Wat};
use policy::{PluginFault, PluginSpec, PolicyError};

/// How many refusals there were, and the reason of the one that stands.
fn standing(rig: &Rig) -> (u64, Option<String>) {
    let status = rig.host.status().remove(0);
    (status.refused, status.last_refusal.map(|refusal| refusal.reason))
}

/// Replaces a file as installers do, so that its inode changes.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    fs::write(&new, bytes).expect("a file");
    fs::rename(&new, path).expect("a file");
}

/// SHA-256 of the default module, as the host tells it.
fn pin(rig: &mut Rig, spec: &PluginSpec) -> [u8; 32] {
    let mut other = spec.clone();
    other.sha256 = Some([0; 32]);
    let error = rig.host.prepare(&[other]).err().expect("refused");
    let Some(PluginFault::Pin { found, .. }) = error.fault() else { panic!("{error}") };
    let mut pin = [0; 32];
    for (byte, digits) in pin.iter_mut().zip(found.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).expect("digits");
        *byte = u8::from_str_radix(digits, 16).expect("digits");
    }
    pin
}

#[test]
fn a_file_that_does_not_match_its_pin_is_shown_until_it_does() {
    let mut rig = Rig::new(1);
    let mut spec = rig.spec("p", &Wat::default());
    spec.sha256 = Some(pin(&mut rig, &spec));
    rig.publish(std::slice::from_ref(&spec));
    assert_eq!(standing(&rig), (0, None));

    let pinned = fs::read(&spec.path).expect("a module");
    let other = Wat { process: "nop".to_owned(), ..Wat::default() }.bytes();
    replace(&spec.path, &other);
    let polled = rig.host.poll_files();
    assert!(matches!(&polled[..], [Err(PolicyError::Plugin { .. })]), "{polled:?}");
    let (refused, reason) = standing(&rig);
    let reason = reason.expect("a refusal");
    assert!(reason.starts_with("the file's SHA-256 is ") && reason.contains("pins"), "{reason}");
    assert_eq!(refused, 1);
    assert_eq!(rig.host.status()[0].generation, 1);
    // It is told in the log once, and stands.
    assert!(rig.host.poll_files().is_empty());
    assert_eq!(standing(&rig).0, 1);
    rig.host.reload("p").expect_err("the pin holds for orders, too");
    assert_eq!(standing(&rig).0, 2);

    // The old file again: there is nothing to load, and nothing to show but the number.
    replace(&spec.path, &pinned);
    assert!(rig.host.poll_files().is_empty());
    assert_eq!(standing(&rig), (2, None));
}

#[test]
fn a_version_that_is_loaded_ends_a_refusal_and_a_rollback_does_not() {
    let mut rig = Rig::new(1);
    let spec = rig.spec("p", &Wat::default());
    rig.publish(std::slice::from_ref(&spec));
    Wat { process: "nop".to_owned(), ..Wat::default() }.write(&spec.path);
    rig.host.reload("p").expect("it is good");
    rig.begin(frame::Nanos(1));

    replace(&spec.path, b"no module");
    rig.host.reload("p").expect_err("it is none");
    rig.host.rollback("p").expect("the one before");
    rig.begin(frame::Nanos(2));
    let (refused, reason) = standing(&rig);
    assert_eq!(refused, 1);
    assert!(reason.is_some_and(|reason| reason.contains("no WebAssembly module")));
    Wat::default().write(&spec.path);
    rig.host.reload("p").expect("it is good");
    assert_eq!(standing(&rig), (1, None));
}

#[test]
fn a_set_and_tables_that_are_refused_are_shown_at_their_plugin() {
    let mut rig = Rig::new(1);
    let mut wat = Wat::default();
    wat.manifest += "tables = [\"t\"]\n";
    let mut spec = rig.spec("p", &wat);
    let table = rig.directory.path().join("t.txt");
    fs::write(&table, "10.0.0.0/8\n").expect("a file");
    spec.tables = BTreeMap::from([("t".to_owned(), table.clone())]);
    rig.publish(std::slice::from_ref(&spec));

    let mut other = spec.clone();
    other.grants = vec!["files".to_owned()];
    assert!(rig.host.prepare(&[other]).is_err());
    assert!(standing(&rig).1.is_some_and(|reason| reason.starts_with("`files` is nothing")));
    rig.host.prepare(std::slice::from_ref(&spec)).expect("what runs");
    assert_eq!(standing(&rig), (1, None));

    replace(&table, b"nonsense/99\n");
    assert_eq!(rig.host.poll_files().len(), 1);
    assert!(standing(&rig).1.is_some_and(|reason| reason.contains("t.txt:1: ")));
    replace(&table, b"10.0.0.0/9\n");
    assert!(rig.host.poll_files().is_empty());
    assert_eq!(standing(&rig), (2, None));
}
