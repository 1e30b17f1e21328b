// SPDX-License-Identifier: Apache-2.0
//! The identity numbers on disk, so that a restart gives no number to other labels.
//!
//! The file is a log: a line for each record. It grows by what happens, and is written anew once it holds
//! twice as much as it needs to. Each line begins with a checksum of itself and of all lines before it, so
//! that none can be changed or left out. Another file, the mark, says how far the log goes at least, so that
//! no older copy of it is believed. A last line that a crash cut off was never told to a node, since nodes
//! hear of a number only after its line was written and the mark moved.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use weft_translate::{Identities, IdentityRecord, identity::InvalidTable};

/// A log of so few records is never written anew: it is read in a few milliseconds.
const MIN_RECORDS: usize = 1_024;

/// What stands in the first line of a log, before the number of that line.
const BEGIN: &str = "begin ";

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
    /// A line is not as it was written. Going on without it could give a number to other labels.
    #[error("{path}:{line} is damaged, or lines before it are missing: {}", fix(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
    },
    /// The log ends before what was written, or is another one.
    #[error(
        "{path}:{line} is the last line, and is not the newest that was written, which had number {written}: {}",
        fix(path)
    )]
    Older {
        /// The file.
        path: PathBuf,
        /// Its last line, from 1.
        line: usize,
        /// The number of the last line that is known to have been written, counted from the first ever.
        written: u64,
    },
    /// There is a log and no mark that can be read.
    #[error("{} is missing or damaged, so that nobody can tell whether {path} is whole: {}", mark_path(path).display(), fix(path))]
    NoMark {
        /// The log.
        path: PathBuf,
    },
    /// The lines contradict each other.
    #[error("{path} is damaged: {}", fix(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: InvalidTable,
    },
}

fn fix(path: &Path) -> String {
    let (path, mark) = (path.display(), mark_path(path));
    let mark = mark.display();
    format!(
        "restore the newest copy of it and of {mark}; without one, stop every weft-node, remove {path} and {mark}, and start the controller before the nodes"
    )
}

/// The file.
#[derive(Debug)]
pub(crate) struct IdentityFile {
    path: PathBuf,
    log: File,
    mark: File,
    /// The records in it.
    records: usize,
    /// Where the next line goes: what is behind it was written by half, and never counted.
    end: u64,
    /// The last line.
    last: Line,
    /// How often it was written again, because somebody had removed it.
    rewritten: u64,
}

/// A line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    /// Counted from the first line ever, also of logs in whose place this one is.
    number: u64,
    /// The checksum of this line and of all before it in the log.
    chain: u32,
}

/// What a log holds.
struct Log {
    records: Vec<IdentityRecord>,
    /// The number of the first line.
    first: u64,
    /// The checksum of each line.
    chains: Vec<u32>,
    /// Where the last whole line ends.
    end: usize,
}

impl IdentityFile {
    /// Opens the file, which is made where it does not exist, and reads the table.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or is older than what was written.
    pub(crate) fn open(path: &Path) -> Result<(IdentityFile, Identities), IdentityFileError> {
        let bytes = read_if_there(path)?;
        let mark = read_mark(path)?;
        if bytes.is_empty() && mark.is_none() {
            return Ok((IdentityFile::write(path, 1, &Identities::default())?, Identities::default()));
        }
        let log = Log::read(path, &bytes)?;
        let last = log.check(path, mark)?;
        if log.end < bytes.len() {
            let bytes = bytes.len() - log.end;
            tracing::warn!(path = %path.display(), bytes, "the last line was cut off, and is left out");
        }
        let (records, end) = (log.records.len(), log.end as u64);
        let identities = Identities::replay(log.records)
            .map_err(|source| IdentityFileError::Invalid { path: path.to_owned(), source })?;
        let log = options().open(path).map_err(|source| failed("open", path, source))?;
        log.set_len(end).map_err(|source| failed("cut", path, source))?;
        let mark = move_mark(path, mark, last)?;
        let file = IdentityFile { path: path.to_owned(), log, mark, records, end, last, rewritten: 0 };
        Ok((file, identities))
    }

    /// Adds records, so that what is given survives a crash once this returns. After an error the file is as
    /// before, and the same records can be added again. Where somebody has removed the file, the whole table
    /// is written again.
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
        let is_gone = !is_at(&self.log, &self.path) || !is_at(&self.mark, &mark_path(&self.path));
        if is_gone {
            tracing::error!(path = %self.path.display(), "somebody has removed or replaced it: written again");
        }
        if is_gone || self.records + records.len() > MIN_RECORDS.max(2 * identities.len()) {
            let rewritten = self.rewritten + u64::from(is_gone);
            *self = IdentityFile::write(&self.path, self.last.number + 1, identities)?;
            self.rewritten = rewritten;
            return Ok(());
        }
        let failed = |source| failed("write", &self.path, source);
        let (lines, last) = lines(self.last, records.iter().cloned()).map_err(failed)?;
        // What is lost of the others holds a number for longer than it must be.
        let must_stay = |record: &IdentityRecord| {
            matches!(record, IdentityRecord::Given { .. } | IdentityRecord::Taken { .. })
        };
        let write = || {
            self.log.set_len(self.end)?;
            self.log.write_all_at(&lines, self.end)?;
            if records.iter().any(must_stay) {
                self.log.sync_data()?;
                self.mark.write_all_at(&last.mark(), 0)?;
            }
            Ok(())
        };
        write().map_err(failed)?;
        self.end += lines.len() as u64;
        self.records += records.len();
        self.last = last;
        Ok(())
    }

    /// How often the file was written again since it was opened, because somebody had removed it.
    pub(crate) fn rewritten(&self) -> u64 {
        self.rewritten
    }

    /// Writes the whole table to another file, and puts that in the place of this in one step. Its first line
    /// has this number.
    fn write(path: &Path, first: u64, identities: &Identities) -> Result<IdentityFile, IdentityFileError> {
        if let Some(parent) = path.parent() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(parent);
            made.map_err(|source| failed("create", parent, source))?;
        }
        let begin = format!("{BEGIN}{first}");
        let begun = Line { number: first, chain: crc32fast::hash(begin.as_bytes()) };
        let mut text = format!("{:08x} {begin}\n", begun.chain).into_bytes();
        let (records, last) =
            lines(begun, identities.shortest()).map_err(|source| failed("write", path, source))?;
        text.extend(records);
        let log = replace(path, &text)?;
        let mark = replace(&mark_path(path), &last.mark())?;
        let (end, records) = (text.len() as u64, identities.shortest().count());
        Ok(IdentityFile { path: path.to_owned(), log, mark, records, end, last, rewritten: 0 })
    }
}

impl Log {
    fn read(path: &Path, bytes: &[u8]) -> Result<Log, IdentityFileError> {
        let damaged = |line| IdentityFileError::Damaged { path: path.to_owned(), line };
        let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
        let begin = lines.next().unwrap_or_default();
        let (chain, text) = begin.strip_suffix(b"\n").and_then(|line| checked(0, line)).ok_or(damaged(1))?;
        let number = std::str::from_utf8(text).ok().and_then(|text| text.strip_prefix(BEGIN)?.parse().ok());
        let first = number.ok_or(damaged(1))?;
        let mut log = Log { records: Vec::new(), first, chains: vec![chain], end: begin.len() };
        let mut last = chain;
        for line in lines {
            // Only the last can be without its end: it was cut off.
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            let found = checked(last, whole)
                .and_then(|(chain, text)| Some((chain, serde_json::from_slice(text).ok()?)));
            let (chain, record) = found.ok_or(damaged(log.chains.len() + 1))?;
            log.records.push(record);
            log.chains.push(chain);
            log.end += line.len();
            last = chain;
        }
        Ok(log)
    }

    /// The last line, if the log is as new as the mark says.
    fn check(&self, path: &Path, mark: Option<Line>) -> Result<Line, IdentityFileError> {
        let last_chain = self.chains.last().copied().unwrap_or_default();
        let last = Line { number: self.first + self.chains.len() as u64 - 1, chain: last_chain };
        let Some(mark) = mark else {
            // The very first start was cut off between both files.
            let is_new = self.first == 1 && self.records.is_empty();
            return if is_new { Ok(last) } else { Err(IdentityFileError::NoMark { path: path.to_owned() }) };
        };
        // A log that begins behind the mark was written anew, and the mark not moved yet.
        let at_mark =
            mark.number.checked_sub(self.first).and_then(|at| self.chains.get(usize::try_from(at).ok()?));
        if self.first > mark.number || at_mark == Some(&mark.chain) {
            return Ok(last);
        }
        Err(IdentityFileError::Older { path: path.to_owned(), line: self.chains.len(), written: mark.number })
    }
}

impl Line {
    /// As the mark holds it: always as long, so that it is written in one piece.
    fn mark(self) -> Vec<u8> {
        format!("{:020} {:08x}\n", self.number, self.chain).into_bytes()
    }

    fn parse_mark(text: &[u8]) -> Option<Line> {
        let (number, chain) = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.split_once(' ')?;
        Some(Line { number: number.parse().ok()?, chain: u32::from_str_radix(chain, 16).ok()? })
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

fn mark_path(path: &Path) -> PathBuf {
    path.with_extension("mark")
}

fn read_if_there(path: &Path) -> Result<Vec<u8>, IdentityFileError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| failed("read", path, source)),
    }
}

fn read_mark(path: &Path) -> Result<Option<Line>, IdentityFileError> {
    let bytes = read_if_there(&mark_path(path))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let no_mark = || IdentityFileError::NoMark { path: path.to_owned() };
    Line::parse_mark(&bytes).map(Some).ok_or_else(no_mark)
}

/// Brings the mark of this log to its last line. Needs room on the disk only where there is no mark.
fn move_mark(path: &Path, mark: Option<Line>, last: Line) -> Result<File, IdentityFileError> {
    let path = mark_path(path);
    if mark.is_none() {
        return replace(&path, &last.mark());
    }
    let moved = options().open(&path).and_then(|file| {
        if mark != Some(last) {
            file.write_all_at(&last.mark(), 0)?;
        }
        Ok(file)
    });
    moved.map_err(|source| failed("write", &path, source))
}

/// Whether the file is what the path leads to.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(own), Ok(there)) => (own.dev(), own.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Puts a file with this content in the place of what is there, in one step that survives a crash.
fn replace(path: &Path, bytes: &[u8]) -> Result<File, IdentityFileError> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = options().truncate(true).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
        Ok(file)
    };
    write().map_err(|source| failed("write", path, source))
}

/// The checksum of a line that follows a line with this one, and the rest of it.
fn checked(before: u32, line: &[u8]) -> Option<(u32, &[u8])> {
    let (checksum, text) = line.split_at_checked(9)?;
    let checksum = std::str::from_utf8(checksum).ok()?.strip_suffix(' ')?;
    let chain = chained(before, text);
    (u32::from_str_radix(checksum, 16).ok()? == chain).then_some((chain, text))
}

fn chained(before: u32, text: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(before);
    hasher.update(text);
    hasher.finalize()
}

/// Lines for these records behind a line, and the last of them.
fn lines(mut last: Line, records: impl IntoIterator<Item = IdentityRecord>) -> io::Result<(Vec<u8>, Line)> {
    let mut lines = Vec::new();
    for record in records {
        let record = serde_json::to_vec(&record)?;
        last = Line { number: last.number + 1, chain: chained(last.chain, &record) };
        write!(lines, "{:08x} ", last.chain)?;
        lines.extend_from_slice(&record);
        lines.push(b'\n');
    }
    Ok((lines, last))
}

#[cfg(test)]
mod tests;
