//! `sluice plugin new`: a project that builds, tests and loads as it stands.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use super::cli::{Language, NewArgs};

/// The templates: a path in the project, and its text.
const RUST: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("templates/rust/Cargo.toml.in")),
    (".cargo/config.toml", include_str!("templates/rust/cargo-config.toml.in")),
    (".gitignore", "/target\n"),
    ("manifest.toml", include_str!("templates/rust/manifest.toml.in")),
    ("config.toml", include_str!("templates/rust/config.toml.in")),
    ("src/lib.rs", include_str!("templates/rust/lib.rs.in")),
    ("README.md", include_str!("templates/rust/README.md.in")),
];
const C: [(&str, &str); 6] = [
    ("plugin.c", include_str!("../../../../sdk/c/example/plugin.c")),
    ("sluice.h", include_str!("../../../../sdk/c/sluice.h")),
    (".gitignore", "/target\n"),
    ("manifest.toml", include_str!("../../../../sdk/c/example/manifest.toml")),
    ("config.toml", include_str!("templates/c/config.toml.in")),
    ("README.md", include_str!("templates/c/README.md.in")),
];

pub(crate) fn run(args: &NewArgs) -> Result<ExitCode> {
    let name = args.path.file_name().and_then(|name| name.to_str()).context("a folder's name")?;
    check_name(name)?;
    ensure!(!args.path.exists(), "{}: it is there already", args.path.display());
    let files: &[(&str, &str)] = match args.lang {
        Language::Rust => &RUST,
        Language::C => &C,
    };
    let sdk = match args.lang {
        Language::Rust => sdk_dependency(args)?,
        Language::C => String::new(),
    };
    for (file, text) in files {
        let text = text
            .replace("{{name}}", name)
            .replace("{{library}}", &name.replace('-', "_"))
            .replace("{{sdk}}", &sdk)
            .replace("\"block-sources\"", &format!("\"{name}\""));
        let path = args.path.join(file);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    let at = args.path.display();
    println!("made {at}; next:");
    println!("  sluice plugin build {at}");
    println!("  sluice plugin test {at}");
    println!("  sluice plugin bench {at}");
    Ok(ExitCode::SUCCESS)
}

/// What cargo takes as a package's name and manifests as a plugin's.
fn check_name(name: &str) -> Result<()> {
    let letters = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if !starts || name.len() > 64 || !name.bytes().all(letters) {
        bail!("{name:?}: a plugin's name has a to z, 0 to 9 and `-`, and begins with a letter");
    }
    Ok(())
}

/// The SDK as a dependency: at the path or repository that was named, or in the clone of Sluice that the
/// project or this program lies in.
fn sdk_dependency(args: &NewArgs) -> Result<String> {
    if let Some(git) = &args.sdk_git {
        return Ok(format!("{{ git = {git:?} }}"));
    }
    let found = match &args.sdk {
        Some(path) => is_sdk(path).then(|| path.clone()).with_context(|| {
            format!("{}: the package sluice-sdk is not here", path.display())
        })?,
        None => find_sdk(&args.path).context(
            "the SDK was not found beside this program or above the new folder: name the folder `sdk` \
             of a clone of Sluice with --sdk, or its repository with --sdk-git",
        )?,
    };
    let found = found.canonicalize().with_context(|| found.display().to_string())?;
    Ok(format!("{{ path = {found:?} }}"))
}

fn is_sdk(folder: &Path) -> bool {
    std::fs::read_to_string(folder.join("Cargo.toml"))
        .is_ok_and(|text| text.contains("name = \"sluice-sdk\""))
}

fn find_sdk(project: &Path) -> Option<PathBuf> {
    let current = std::env::current_dir().ok();
    let starts = [current.map(|folder| folder.join(project)), std::env::current_exe().ok()];
    // Where this program was built, if that clone is still there.
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../sdk");
    let above = |start: &PathBuf| {
        start.ancestors().map(|folder| folder.join("sdk")).find(|folder| is_sdk(folder))
    };
    starts.iter().flatten().find_map(above).or_else(|| is_sdk(&built).then_some(built))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_cargo_and_manifests_take() {
        for good in ["a", "drop-udp", "x2"] {
            check_name(good).expect(good);
        }
        for bad in ["", "2x", "Drop", "a_b", "a b", "../a", "-a"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sdk_of_this_clone_is_found() {
        let found = find_sdk(Path::new("/nowhere/plugin")).expect("this program lies in the clone");
        assert!(found.join("ABI.md").exists());
    }
}
