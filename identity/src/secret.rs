// SPDX-License-Identifier: Apache-2.0
//! Files with secrets: written so that only their owner reads them, and there whole or not at all.

use std::{
    fmt,
    fs::{self, File},
    io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// A file that cannot be used, as the file system says.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}", path.display())]
pub struct FileError {
    /// What was tried.
    action: &'static str,
    /// With what.
    path: PathBuf,
    /// Why it failed.
    #[source]
    source: io::Error,
}

/// Others than its owner can read a file with a secret. It is used all the same: Kubernetes mounts secrets
/// with mode 0644, and adds the group to what is in a volume with `fsGroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exposed {
    path: PathBuf,
    mode: u32,
}

/// A secret as it was read.
pub(crate) struct Secret {
    pub(crate) bytes: Vec<u8>,
    pub(crate) exposed: Option<Exposed>,
}

impl FileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
        let path = path.to_owned();
        move |source| FileError { action, path, source }
    }

    /// What failed and why, in one line.
    pub(crate) fn with_cause(&self) -> String {
        format!("{self}: {}", self.source)
    }

    /// There is no such file.
    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Exposed { path, mode } = self;
        write!(
            f,
            "{} has mode {mode:04o}: others can read the secret in it; where that is not meant, run `chmod 600` on it, \
             and have the secret issued again",
            path.display()
        )
    }
}

/// Whether others can read a file with a secret.
pub fn exposed(path: &Path) -> Option<Exposed> {
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| Exposed { path: path.to_owned(), mode })
}

/// Makes a directory that only its owner enters; one that is there stays as it is.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(FileError::io("create", path))
}

/// Reads a file; nothing when it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<Secret>, FileError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(Secret { bytes, exposed: exposed(path) })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io("read", path)(error)),
    }
}

/// Writes a file with mode 0600 that is there whole or not at all, also after a crash of the machine.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), FileError> {
    // Not after the file's own name, which may be as long as names can be. One process at a time writes in
    // its directory, and what a crash left is written over.
    let temporary = path.with_file_name(".new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
    };
    write().map_err(|error| {
        // Half a file takes room where there is none.
        drop(fs::remove_file(&temporary));
        FileError::io("write", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_used_and_named_with_its_mode() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("token");
        write(&path, "secret").unwrap();
        assert_eq!(exposed(&path), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let secret = read(&path).unwrap().unwrap();
        assert_eq!(secret.bytes, b"secret");
        let text = secret.exposed.unwrap().to_string();
        assert!(text.contains("token has mode 0644") && text.contains("chmod 600"), "{text}");
    }

    #[test]
    fn what_cannot_be_written_leaves_what_was_there_and_no_half_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("taken");
        fs::create_dir(&path).unwrap();
        let error = write(&path, "secret").unwrap_err().to_string();
        assert!(error.contains("cannot write") && error.contains("taken"), "{error}");
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
    }
}
