// SPDX-License-Identifier: Apache-2.0
//! The identity numbers on disk, so that a restart gives no number to other labels.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use weft_translate::Identities;

/// The table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum IdentityFileError {
    /// The file could not be read or written.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is damaged. Starting with an empty table could give a number to other labels.
    #[error("{path} is damaged; restore it, or remove it after every node was stopped")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: serde_json::Error,
    },
}

/// Reads the table; a file that does not exist is an empty one.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn load(path: &Path) -> Result<Identities, IdentityFileError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map_err(|source| IdentityFileError::Damaged { path: path.to_owned(), source }),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(Identities::default()),
        Err(source) => Err(IdentityFileError::Io { action: "read", path: path.to_owned(), source }),
    }
}

/// Replaces the file in one step.
///
/// # Errors
/// When the file cannot be written.
pub fn save(path: &Path, identities: &Identities) -> Result<(), IdentityFileError> {
    let failed = |source| IdentityFileError::Io { action: "write", path: path.to_owned(), source };
    let bytes = serde_json::to_vec(identities).map_err(|error| failed(error.into()))?;
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new).map_err(failed)?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_table_is_an_error_and_a_missing_one_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identities.json");
        assert_eq!(load(&path).unwrap(), Identities::default());
        save(&path, &Identities::default()).unwrap();
        load(&path).unwrap();
        fs::write(&path, "{").unwrap();
        assert!(matches!(load(&path), Err(IdentityFileError::Damaged { .. })));
    }
}
