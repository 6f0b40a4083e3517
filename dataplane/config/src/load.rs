//! Files and texts to [`Checked`].

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::check::check;
use crate::error::{ConfigError, ConfigErrors};
use crate::model::Checked;
use crate::reason::Reason;

impl Checked {
    /// Reads and checks a configuration file and the route files that it names.
    ///
    /// # Errors
    /// All errors of all of these files, at least one.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        Self::load_text(&Self::read_text(path)?, path)
    }

    /// Reads a configuration file, and judges nothing of it.
    ///
    /// # Errors
    /// That it cannot be read.
    pub fn read_text(path: impl AsRef<Path>) -> Result<String, ConfigErrors> {
        let path = path.as_ref();
        Ok(std::fs::read_to_string(path)
            .map_err(|error| ConfigError::of_file(path, Reason::Unreadable(error.to_string())))?)
    }

    /// Checks a text as [`Self::load`] does what `file` holds, and reads the route files that it names.
    ///
    /// # Errors
    /// All errors of the text and of these files, at least one.
    pub fn load_text(text: &str, file: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let mut open = |path: &Path| -> std::io::Result<Box<dyn BufRead>> {
            Ok(Box::new(BufReader::new(File::open(path)?)))
        };
        check(text, file.as_ref(), Some(&mut open))
    }

    /// Checks a text without opening any file. `file` is its name in messages, and relative paths
    /// of plugins start from its directory.
    ///
    /// # Errors
    /// All errors of the text, at least one. `route_files` is one of them.
    pub fn parse(text: &str, file: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        check(text, file.as_ref(), None)
    }
}
