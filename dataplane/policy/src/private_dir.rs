//! [`PrivateDir`]: a directory in which nobody but this process's user reads or writes.
//!
//! Invariants: it is used only while it is a directory of our own with mode 0700, and a file in it only if
//! it is a regular one of our own, with mode 0600 and one name. All names are looked up in the directory
//! that was checked, without following symbolic links.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open, openat, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, geteuid, unlinkat},
};

/// A directory that was found to be ours.
#[derive(Debug)]
pub(crate) struct PrivateDir {
    path: PathBuf,
    handle: OwnedFd,
}

/// A file in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    /// When it was written: seconds and nanoseconds.
    pub(crate) modified: (i64, i64),
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

fn odd(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text.to_owned())
}

impl PrivateDir {
    /// Opens the directory, and makes it, and those above it, if it is not there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            if let Some(above) = path.parent() {
                fs::create_dir_all(above)?;
            }
            DirBuilder::new().mode(0o700).create(path)?;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let handle = open(path, flags, Mode::empty())?;
        let data = File::from(handle.try_clone()?).metadata()?;
        if data.uid() != geteuid().as_raw() {
            return Err(odd("the directory belongs to another user"));
        }
        if data.mode() & 0o7777 != 0o700 {
            return Err(odd("the directory's mode is not 0700"));
        }
        Ok(Self { path: path.to_owned(), handle })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads a file of at most `bytes_max` bytes.
    pub(crate) fn read(&self, name: &str, bytes_max: usize) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(&self.handle, name, flags, Mode::empty())?);
        let data = file.metadata()?;
        if !data.is_file() || data.nlink() != 1 {
            return Err(odd("it is not a regular file with one name"));
        }
        if data.uid() != geteuid().as_raw() || data.mode() & 0o7777 != 0o600 {
            return Err(odd("it is not ours alone: owner or mode differ"));
        }
        if data.len() > bytes_max as u64 {
            return Err(odd("it is too large"));
        }
        let mut bytes = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes a file, whole or not at all.
    pub(crate) fn write(&self, name: &str, parts: &[&[u8]]) -> io::Result<()> {
        let new = format!("{name}.new");
        // What an earlier attempt left behind.
        self.remove(&new);
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file =
            File::from(openat(&self.handle, new.as_str(), flags, Mode::from_bits_truncate(0o600))?);
        let written = parts.iter().try_for_each(|part| file.write_all(part));
        let written = written.and_then(|()| {
            renameat(&self.handle, new.as_str(), &self.handle, name).map_err(io::Error::from)
        });
        if written.is_err() {
            self.remove(&new);
        }
        written
    }

    /// Removes a file, if it is there.
    pub(crate) fn remove(&self, name: &str) {
        // What cannot be removed is not read either.
        let _ = unlinkat(&self.handle, name, UnlinkatFlags::NoRemoveDir);
    }

    /// Its files whose names end so, the oldest first.
    pub(crate) fn list(&self, end: &str) -> Vec<Entry> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let mut files: Vec<Entry> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let data = fs::symlink_metadata(entry.path()).ok()?;
                let modified = (data.mtime(), data.mtime_nsec());
                name.ends_with(end).then_some(Entry { modified, name, bytes: data.len() })
            })
            .collect();
        files.sort();
        files
    }
}
