//! [`Source`]: a configuration with the text that it was made from, and what is kept of the one that was
//! confirmed last.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use config::Checked;
use sha2::{Digest as _, Sha256};
use tracing::warn;

/// What a kept configuration begins with, before the hash of the one that was not confirmed.
const MARK: &str = "# Kept by sluice: what was confirmed last. A start reads this as long as the file \
                    beside it is the one that was not confirmed: sha256 ";

/// A configuration and its text.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) config: Arc<Checked>,
    pub(crate) text: Arc<str>,
}

impl Source {
    /// Reads and checks a file.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = Checked::read_text(file)?;
        let config = Arc::new(Checked::load_text(&text, file)?);
        Ok(Self { config, text: text.into() })
    }

    /// What a start puts into force: the file, or what was confirmed before it if the file is one that
    /// was put into force and never confirmed. RFC 6241 section 8.4.1: "If the device reboots for any
    /// reason before the confirm timeout expires, the server MUST restore the configuration to its state
    /// before the confirmed commit was issued."
    pub(crate) fn at_start(file: &Path) -> Result<Self> {
        let kept = kept(file);
        let known = match fs::read_to_string(&kept) {
            Ok(known) => known,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::read(file),
            Err(error) => {
                return Err(error).with_context(|| format!("{}: cannot be read", kept.display()));
            }
        };
        let text = Checked::read_text(file)?;
        let (mark, confirmed) = known.split_once('\n').unwrap_or_default();
        if mark.strip_prefix(MARK) != Some(hash(&text).as_str()) {
            warn!(
                kept = %kept.display(),
                "the configuration changed since it was not confirmed: what was kept is removed"
            );
            forget(file);
            return Self::read(file);
        }
        warn!(
            file = %file.display(),
            kept = %kept.display(),
            "the configuration was put into force and not confirmed: this start takes the one before; \
             'sluice reload' puts the file into force"
        );
        let config = Arc::new(Checked::load_text(confirmed, file)?);
        Ok(Self { config, text: confirmed.into() })
    }

    /// Keeps this one for a start, beside the file, while `unconfirmed` is in force or stands in the file.
    pub(crate) fn keep(&self, file: &Path, unconfirmed: &str) -> Result<()> {
        let kept = kept(file);
        let write = || -> io::Result<()> {
            let new = kept.with_extension("new");
            // Whatever secrets plugins are configured with are the owner's.
            let mut options = fs::OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut out = options.open(&new)?;
            write!(out, "{MARK}{}\n{}", hash(unconfirmed), self.text)?;
            out.sync_all()?;
            fs::rename(&new, &kept)
        };
        write().with_context(|| {
            format!(
                "{}: the configuration in force cannot be kept there, so that a restart could not go \
                 back to it",
                kept.display()
            )
        })
    }
}

/// What is kept now, to be kept again if nothing comes of a change.
pub(crate) fn kept_now(file: &Path) -> Option<Vec<u8>> {
    fs::read(kept(file)).ok()
}

/// Keeps what was kept before.
pub(crate) fn keep_again(file: &Path, before: Option<Vec<u8>>) {
    let Some(before) = before else { return forget(file) };
    let kept = kept(file);
    if let Err(error) = fs::write(&kept, before) {
        warn!(kept = %kept.display(), %error, "cannot be written: a start takes the file itself");
    }
}

/// Nothing is to be gone back to any more.
pub(crate) fn forget(file: &Path) {
    let kept = kept(file);
    if let Err(error) = fs::remove_file(&kept)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(kept = %kept.display(), %error, "cannot be removed: a start may take it for the file");
    }
}

/// Where the configuration is kept that was confirmed last.
pub(crate) fn kept(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".confirmed");
    name.into()
}

fn hash(text: &str) -> String {
    crate::explain::to_hex(&Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOUND: &str = "[router]\n[[interface]]\nname = \"wan0\"\nrole = \"outside\"\n";

    fn named(name: &str) -> String {
        SOUND.replace("[router]", &format!("[router]\nname = \"{name}\""))
    }

    #[test]
    fn a_start_takes_what_was_confirmed_while_the_file_is_what_was_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sluice.toml");
        let start = || Source::at_start(&file).map(|source| source.config.router.name.clone());
        fs::write(&file, named("old")).expect("a file");
        assert_eq!(start().expect("sound"), "old");
        let confirmed = Source::read(&file).expect("sound");

        // Not confirmed: whatever the router does, a start takes the old one.
        fs::write(&file, named("new")).expect("a file");
        confirmed.keep(&file, &named("new")).expect("there is room");
        assert_eq!(start().expect("sound"), "old");
        assert_eq!(start().expect("sound"), "old", "as often as it starts");

        // Mended by hand: the file counts again, also once it is what was not confirmed.
        fs::write(&file, named("mended")).expect("a file");
        assert_eq!(start().expect("sound"), "mended");
        fs::write(&file, named("new")).expect("a file");
        assert_eq!(start().expect("sound"), "new");

        // Confirmed.
        confirmed.keep(&file, &named("new")).expect("there is room");
        forget(&file);
        assert_eq!(start().expect("sound"), "new");

        // Nonsense is nobody's confirmed configuration.
        fs::write(kept(&file), "[router]\nname = \"someone\"\n").expect("a file");
        assert_eq!(start().expect("sound"), "new");
        assert!(!kept(&file).exists());
    }

    #[test]
    fn a_configuration_that_cannot_be_kept_says_where() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("sluice.toml");
        fs::write(&file, named("old")).expect("a file");
        let source = Source::read(&file).expect("sound");
        let nowhere = folder.path().join("none/sluice.toml");
        let error = source.keep(&nowhere, "").expect_err("there is no such folder");
        assert!(error.to_string().contains("none/sluice.toml.confirmed"), "{error}");
    }
}
