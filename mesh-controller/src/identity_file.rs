// SPDX-License-Identifier: Apache-2.0
//! The identity numbers on disk, so that a restart gives no number to other labels.
//!
//! The file is a log: a line for each record, with its checksum in front. It grows by what happens, and is
//! written anew once it holds twice as much as it needs to. A last line that a crash cut off was never told to
//! a node, since nodes hear of a number only after its line was written; a whole line that is not as it was
//! written is damage. One controller at a time has the file.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use weft_translate::{Identities, IdentityRecord, identity::InvalidTable};

/// A log of so few records is never written anew: it is read in a few milliseconds.
const MIN_RECORDS: usize = 1_024;

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
    /// Another controller has it: two would give one number to different labels.
    #[error("{0} is used by another controller: give each a --state-dir of its own, or stop the other")]
    InUse(PathBuf),
    /// A line is not as it was written. Going on without it could give a number to other labels.
    #[error("{path}:{line} is damaged: restore the file, or remove it after every node was stopped")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The lines contradict each other.
    #[error("{path} is damaged: restore it, or remove it after every node was stopped")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidTable,
    },
}

/// The file, which nobody else writes as long as this lives.
#[derive(Debug)]
pub(crate) struct IdentityFile {
    path: PathBuf,
    log: File,
    /// The records in it.
    records: usize,
    /// Where the next line goes: what is behind it was written by half, and never counted.
    end: u64,
    _lock: File,
}

impl IdentityFile {
    /// Opens the file, which is made where it does not exist, and reads the table.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or another controller has it.
    pub(crate) fn open(path: &Path) -> Result<(IdentityFile, Identities), IdentityFileError> {
        let lock = lock(path)?;
        let log = options().read(true).open(path).map_err(|source| failed("open", path, source))?;
        let bytes = fs::read(path).map_err(|source| failed("read", path, source))?;
        let (records, end) = read(path, &bytes)?;
        if end < bytes.len() {
            let bytes = bytes.len() - end;
            tracing::warn!(path = %path.display(), bytes, "the last line was cut off, and is left out");
        }
        let count = records.len();
        let identities = Identities::replay(records)
            .map_err(|source| IdentityFileError::Invalid { path: path.to_owned(), source })?;
        let file = IdentityFile { path: path.to_owned(), log, records: count, end: end as u64, _lock: lock };
        file.log.set_len(file.end).map_err(|source| failed("cut", path, source))?;
        Ok((file, identities))
    }

    /// Adds records, so that what is given survives a crash once this returns. After an error the file is as before,
    /// and the same records can be added again.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(crate) fn append(
        &mut self,
        records: &[IdentityRecord],
        identities: &Identities,
    ) -> Result<(), IdentityFileError> {
        if records.is_empty() {
            return Ok(());
        }
        let needed = identities.len();
        if self.records + records.len() > MIN_RECORDS.max(2 * needed) {
            return self.compact(identities);
        }
        let lines = lines(records.iter().cloned()).map_err(|source| failed("write", &self.path, source))?;
        let write = || {
            self.log.set_len(self.end)?;
            self.log.write_all_at(&lines, self.end)?;
            // What is lost of the others holds a number for longer than it must be.
            let taken = |record: &IdentityRecord| {
                matches!(record, IdentityRecord::Given { .. } | IdentityRecord::Taken { .. })
            };
            if records.iter().any(taken) { self.log.sync_data() } else { Ok(()) }
        };
        write().map_err(|source| failed("write", &self.path, source))?;
        self.end += lines.len() as u64;
        self.records += records.len();
        Ok(())
    }

    /// Writes the whole table to another file, and puts that in the place of this in one step.
    fn compact(&mut self, identities: &Identities) -> Result<(), IdentityFileError> {
        let failed = |source| failed("write", &self.path, source);
        let lines = lines(identities.shortest()).map_err(failed)?;
        let new = self.path.with_extension("new");
        let mut log = options().truncate(true).open(&new).map_err(failed)?;
        log.write_all(&lines).and_then(|()| log.sync_all()).map_err(failed)?;
        fs::rename(&new, &self.path).map_err(failed)?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        self.log = log;
        self.end = lines.len() as u64;
        self.records = identities.shortest().count();
        Ok(())
    }
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> IdentityFileError {
    IdentityFileError::Io { action, path: path.to_owned(), source }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// Takes a file beside it, since the file itself is another one after it was written anew. The kernel
/// gives the lock back when the process ends, however it ends.
fn lock(path: &Path) -> Result<File, IdentityFileError> {
    let beside = path.with_extension("lock");
    let file = options().open(&beside).map_err(|source| failed("open", &beside, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IdentityFileError::InUse(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed("lock", &beside, source)),
    }
}

/// The records, and where the last whole line ends.
fn read(path: &Path, bytes: &[u8]) -> Result<(Vec<IdentityRecord>, usize), IdentityFileError> {
    let (mut records, mut end) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        // Only the last can be without its end: it was cut off.
        let Some(whole) = line.strip_suffix(b"\n") else { break };
        let damaged = || IdentityFileError::Damaged { path: path.to_owned(), line: records.len() + 1 };
        records.push(parse(whole).ok_or_else(damaged)?);
        end += line.len();
    }
    Ok((records, end))
}

fn parse(line: &[u8]) -> Option<IdentityRecord> {
    let (checksum, record) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(record) {
        return None;
    }
    serde_json::from_slice(record).ok()
}

fn lines(records: impl IntoIterator<Item = IdentityRecord>) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for record in records {
        let record = serde_json::to_vec(&record)?;
        write!(lines, "{:08x} ", crc32fast::hash(&record))?;
        lines.extend_from_slice(&record);
        lines.push(b'\n');
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use tempfile::TempDir;

    use super::*;

    fn given(number: u32) -> IdentityRecord {
        let labels = BTreeMap::from([("k8s:app".into(), format!("a{number}").into())]);
        IdentityRecord::Given { number, labels: Arc::new(labels) }
    }

    fn place() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("identities.log");
        (directory, path)
    }

    fn known(path: &Path) -> Vec<IdentityRecord> {
        IdentityFile::open(path).unwrap().1.shortest().collect()
    }

    #[test]
    fn what_was_added_is_there_again() {
        let (_directory, path) = place();
        let (mut file, identities) = IdentityFile::open(&path).unwrap();
        assert!(identities.is_empty());
        file.append(&[given(256), given(257)], &identities).unwrap();
        file.append(&[IdentityRecord::Released { number: 256, at: 7 }], &identities).unwrap();
        drop(file);
        let expected = [given(256), IdentityRecord::Released { number: 256, at: 7 }, given(257)];
        assert_eq!(known(&path), expected);
    }

    #[test]
    fn a_last_line_that_was_cut_off_is_left_out_and_any_other_damage_is_an_error() {
        let (_directory, path) = place();
        let (mut file, identities) = IdentityFile::open(&path).unwrap();
        file.append(&[given(256), given(257)], &identities).unwrap();
        drop(file);
        let whole = fs::read(&path).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for end in first..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(known(&path), [given(256)]);
            let (mut file, identities) = IdentityFile::open(&path).unwrap();
            file.append(&[given(258)], &identities).unwrap();
            drop(file);
            assert_eq!(known(&path), [given(256), given(258)]);
        }
        for at in (0..whole.len() - 1).filter(|at| *at != first - 1) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            let expected = if at < first { 1 } else { 2 };
            let error = IdentityFile::open(&path).unwrap_err();
            assert!(
                matches!(error, IdentityFileError::Damaged { line, .. } if line == expected),
                "byte {at}: {error}"
            );
        }
        fs::write(&path, lines([given(256), given(256)]).unwrap()).unwrap();
        assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::Invalid { .. })));
    }

    #[test]
    fn a_file_that_has_grown_is_written_anew() {
        let (_directory, path) = place();
        let (mut file, _) = IdentityFile::open(&path).unwrap();
        let identities = Identities::replay([given(256)]).unwrap();
        file.append(&[given(256)], &identities).unwrap();
        for at in 0..2_000 {
            let records =
                [IdentityRecord::Released { number: 256, at }, IdentityRecord::Taken { number: 256 }];
            file.append(&records, &identities).unwrap();
        }
        drop(file);
        let lines = fs::read(&path).unwrap().split(|byte| *byte == b'\n').count();
        assert!(lines <= MIN_RECORDS, "{lines}");
        assert_eq!(known(&path), [given(256)]);
    }

    #[test]
    fn a_second_controller_is_refused_until_the_first_has_ended() {
        let (_directory, path) = place();
        let (file, _) = IdentityFile::open(&path).unwrap();
        assert!(matches!(IdentityFile::open(&path), Err(IdentityFileError::InUse(_))));
        drop(file);
        IdentityFile::open(&path).unwrap();
    }
}
