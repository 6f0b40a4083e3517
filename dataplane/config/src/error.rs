//! Errors that name file, line and key.

use std::fmt::{self, Write};
use std::path::{Path, PathBuf};

use crate::reason::Reason;

/// One error: `FILE:LINE: KEY: reason`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The configuration file, or the route file that it names.
    pub file: PathBuf,
    /// The line, from 1; `None` when the error has none, such as a file that is not there.
    pub line: Option<u32>,
    /// The key path, such as `egress[0].slice[2].ports`; empty for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub reason: Reason,
}

impl ConfigError {
    /// An error of the file as a whole.
    pub(crate) fn of_file(file: &Path, reason: Reason) -> Self {
        Self { file: file.to_owned(), line: None, key: String::new(), reason }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        f.write_str(" ")?;
        // A value of the file stands in the reason as it is written; one error stays one line, and
        // no value drives the reader's terminal.
        for c in self.reason.to_string().chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// All errors of a configuration, in the order of the file; at least one. Displays one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// Of at least one error: ordered by file and line, errors without a line last.
    pub(crate) fn new(mut errors: Vec<ConfigError>) -> Self {
        errors.sort_by(|a, b| {
            let line = |error: &ConfigError| error.line.unwrap_or(u32::MAX);
            a.file.cmp(&b.file).then(line(a).cmp(&line(b)))
        });
        errors.dedup();
        Self(errors)
    }
}

impl std::ops::Deref for ConfigErrors {
    type Target = [ConfigError];

    fn deref(&self) -> &[ConfigError] {
        &self.0
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl IntoIterator for ConfigErrors {
    type Item = ConfigError;
    type IntoIter = std::vec::IntoIter<ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
