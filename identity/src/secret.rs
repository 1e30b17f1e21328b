// SPDX-License-Identifier: Apache-2.0
//! Files with secrets: only their owner reads them, and they are there whole or not at all.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Others than the owner can read it.
    #[error("{} has mode {mode:o}, so others may have read its secret: remove it, and what it stood for must be issued again", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
}

impl FileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError::Io { action, path, source }
    }
}

/// Makes a directory that only its owner enters; one that is there stays as it is.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(FileError::io("create", path))
}

/// Reads a file that only its owner can read; nothing when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, FileError> {
    let mode = match fs::metadata(path) {
        Ok(metadata) => metadata.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::io("read", path)(error)),
    };
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    fs::read_to_string(path).map(Some).map_err(FileError::io("read", path))
}

/// Writes a file with mode 0600 that is there whole or not at all.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    // Not after the file's own name, which may be as long as names can be.
    let temporary = path.with_file_name(format!(".new-{}", std::process::id()));
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(FileError::io("write", path))
}
