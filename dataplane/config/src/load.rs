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
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::of_file(path, Reason::Unreadable(error.to_string())))?;
        let mut open = |path: &Path| -> std::io::Result<Box<dyn BufRead>> {
            Ok(Box::new(BufReader::new(File::open(path)?)))
        };
        check(&text, path, Some(&mut open))
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
